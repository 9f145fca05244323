"""Measures two daemons on loopback beside what this machine allows, and says the commit and the machine.

Every figure names its limit, measured in the same run: judge the share, not the milliseconds. docs/performance.md says what
each figure is.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from scripts import bench_daemons
from scripts.bench_daemons import BATCH_ROWS, CLIENTS, FULL, QUICK, CatchUp, Sizes
from scripts.bench_groups import measure_groups
from scripts.bench_limits import BulkLimit, Spread, make_rows, measure_bulk, measure_commit, measure_round_trip
from scripts.daemon_process import run_until_interrupted

ROOT = Path(__file__).resolve().parent.parent
GROUP = "bench"
MIB = 1 << 20


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: its name, the same in every run.
        value: the median of its rounds.
        unit: rows/s, ms, bytes, bytes/row, MiB or files.
        limit: what the machine allows, in the same unit; None where there is no such thing.
        share: how much of the limit is reached, 1 being all of it; None without a limit.
    """

    name: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def share(self) -> float | None:
        """Of a rate, the value by the limit; of everything else, the limit by the value."""
        if not self.limit or not self.value:
            return None
        return self.value / self.limit if self.unit.endswith("/s") else self.limit / self.value


class Run:
    """One run of the bench: its sizes, its limits, its figures as they come."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.folder = folder
        self.sizes = sizes
        self.figures: list[Figure] = []
        self.bulk = BulkLimit(0, 0)
        self.commit = self.round_trip = Spread(0, 0)

    def add(self, name: str, value: float, unit: str, limit: float | None = None) -> None:
        """Keeps a figure and prints it at once."""
        figure = Figure(name, value, unit, limit)
        self.figures.append(figure)
        print(format_figure(figure, None), flush=True)

    async def measure_limits(self) -> None:
        """The machine's own limits; always measured."""
        rows = make_rows(self.sizes.bulk_rows, seed=0)
        self.bulk = measure_bulk(self.folder, rows, self.sizes.rounds)
        self.commit = measure_commit(self.folder)
        self.round_trip = await measure_round_trip()
        self.add("bulk_limit", self.bulk.rows_per_s, "rows/s")
        self.add("commit_limit_p50", self.commit.p50_ms, "ms")
        self.add("commit_limit_p99", self.commit.p99_ms, "ms")
        self.add("round_trip_limit_p50", self.round_trip.p50_ms, "ms")
        self.add("round_trip_limit_p99", self.round_trip.p99_ms, "ms")

    async def measure_one_change(self) -> None:
        """One change from A to B."""
        async with bench_daemons.open_pair(self.folder / "change", GROUP) as (a, _, path_b):
            spread = await bench_daemons.measure_one_change(a, path_b, GROUP, self.sizes.changes)
        limit_p50 = 2 * self.commit.p50_ms + self.round_trip.p50_ms
        limit_p99 = 2 * self.commit.p99_ms + self.round_trip.p99_ms
        self.add("one_change_p50", spread.p50_ms, "ms", limit_p50)
        self.add("one_change_p99", spread.p99_ms, "ms", limit_p99)

    async def measure_writes(self) -> None:
        """Writes through the socket while another device is linked."""
        sizes, seed = self.sizes, 100
        singles: list[float] = []
        parallel: list[float] = []
        batches: list[float] = []
        async with bench_daemons.open_pair(self.folder / "writes", GROUP) as (a, _, _):
            for round_number in range(sizes.rounds):
                rows = make_rows(sizes.single_rows + sizes.parallel_rows + sizes.batches * BATCH_ROWS, seed + round_number)
                first, second = sizes.single_rows, sizes.single_rows + sizes.parallel_rows
                singles.append(await bench_daemons.measure_singles(a, GROUP, rows[:first], 1))
                await bench_daemons.wait_synced(a, GROUP)
                parallel.append(await bench_daemons.measure_singles(a, GROUP, rows[first:second], CLIENTS))
                await bench_daemons.wait_synced(a, GROUP)
                batches.append(await bench_daemons.measure_batches(a, GROUP, rows[second:]))
                await bench_daemons.wait_synced(a, GROUP)
        self.add("single_1_client", statistics.median(singles), "rows/s", 1000 / self.commit.p50_ms)
        self.add("single_32_clients", statistics.median(parallel), "rows/s", 1000 / self.commit.p50_ms)
        self.add("batch_1000", statistics.median(batches), "rows/s", self.bulk.rows_per_s)

    async def measure_reconnect(self) -> None:
        """Coming back while in sync, with few rows and with many."""
        async with bench_daemons.open_pair(self.folder / "reconnect", GROUP) as (a, b, _):
            written = 0
            for total in (BATCH_ROWS, self.sizes.bulk_rows):
                rows = make_rows(total - written, seed=total)
                async with a.client() as peers:
                    await bench_daemons.write_batches(peers, GROUP, rows)
                written = total
                rounds = [await bench_daemons.measure_reconnect(a, b, GROUP) for _ in range(self.sizes.rounds)]
                self.add(
                    f"reconnect_time_{total}_rows", statistics.median(one.ms for one in rounds), "ms", self.round_trip.p50_ms
                )
                self.add(f"reconnect_bytes_{total}_rows", statistics.median(one.bytes_total for one in rounds), "bytes")
                after = [one.bytes_total - one.handshake_bytes for one in rounds if one.handshake_bytes is not None]
                if after:
                    self.add(f"reconnect_bytes_after_handshake_{total}_rows", statistics.median(after), "bytes")

    async def measure_catch_up(self, single: bool) -> None:
        """Fresh devices fetch everything."""
        name = "catch_up_single" if single else "catch_up_1000"
        rows = make_rows(self.sizes.bulk_rows, seed=3)
        results = await bench_daemons.measure_catch_up(self.folder / name, rows, single, self.sizes.rounds)
        middle: CatchUp = bench_daemons.median_catch_up(results)
        self.add(name, len(rows) / middle.seconds, "rows/s", self.bulk.rows_per_s)
        self.add(f"{name}_disk", middle.bytes_per_row, "bytes/row", self.bulk.bytes_per_row)
        self.add(f"{name}_memory_sender", middle.sender_bytes / MIB, "MiB")
        self.add(f"{name}_memory_receiver", middle.receiver_bytes / MIB, "MiB")

    async def measure_groups(self) -> None:
        """Many groups in sync."""
        number = self.sizes.groups
        rounds = await measure_groups(self.folder / "groups", number, self.sizes.rounds)
        name = f"groups_{number}"
        self.add(f"{name}_join", rounds[0].join_ms, "ms")
        self.add(f"{name}_ready", statistics.median(one.ready_ms for one in rounds), "ms")
        self.add(f"{name}_in_sync", statistics.median(one.in_sync_ms for one in rounds), "ms")
        self.add(f"{name}_reconnect_bytes", statistics.median(one.link_bytes for one in rounds), "bytes")
        self.add(f"{name}_memory", statistics.median(one.memory_bytes for one in rounds) / MIB, "MiB")
        self.add(f"{name}_handles", statistics.median(one.file_handles for one in rounds), "files")

    def scenarios(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """What --only chooses from."""
        return {
            "one_change": self.measure_one_change,
            "writes": self.measure_writes,
            "reconnect": self.measure_reconnect,
            "groups": self.measure_groups,
            "catch_up_1000": lambda: self.measure_catch_up(single=False),
            "catch_up_single": lambda: self.measure_catch_up(single=True),
        }

    async def measure(self, chosen: Sequence[Callable[[], Awaitable[None]]]) -> None:
        """The limits, then what was chosen."""
        await self.measure_limits()
        for scenario in chosen:
            await scenario()


def format_number(value: float) -> str:
    """Three digits that matter, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def format_figure(figure: Figure, old: dict[str, Any] | None) -> str:
    """A line of the table; with the ratio to an earlier run's figure where there is one."""
    limit = "" if figure.limit is None else format_number(figure.limit)
    share = "" if figure.share is None else f"{figure.share:.2f}"
    line = f"{figure.name:<42} {format_number(figure.value):>10} {figure.unit:<9} {limit:>10} {share:>6}"
    if old and old["value"]:
        line += f"   was {format_number(old['value']):>10}  x{figure.value / old['value']:.2f}"
    return line


HEADER = f"{'figure':<42} {'value':>10} {'unit':<9} {'limit':>10} {'share':>6}"


def run_git(*arguments: str) -> str:
    """What git answers in the checkout; empty where there is none."""
    done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def describe_machine() -> dict[str, Any]:
    """What the figures depend on."""
    processor = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0] if names else processor
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
    }


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rows, one round: whether it runs, not how fast")
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="only scenarios whose name contains this (may be repeated)"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there")
    parser.add_argument("--compare", metavar="OLD.json", type=Path, help="show an earlier run beside this one")
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs the bench; exit status 2 if --only fits no scenario."""
    options = parse_arguments(arguments)
    sizes = QUICK if options.quick else FULL
    old = json.loads(options.compare.read_text(encoding="utf-8")) if options.compare else None
    with tempfile.TemporaryDirectory(prefix="peersd-bench-") as folder:
        run = Run(Path(folder), sizes)
        known = {"limits": None, **run.scenarios()}
        chosen = [name for name in known if not options.only or any(part in name for part in options.only)]
        if options.list or not chosen:
            print(*known, sep="\n", file=sys.stdout if options.list else sys.stderr)
            return 0 if options.list else 2
        about = {
            "commit": (run_git("rev-parse", "--short=12", "HEAD") or "none") + ("+" if run_git("status", "--porcelain") else ""),
            "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "quick": options.quick,
            "machine": describe_machine(),
            "sizes": asdict(sizes),
        }
        print(
            f"commit {about['commit']}  {about['at']}  "
            + "  ".join(f"{key} {value}" for key, value in describe_machine().items())
        )
        print(HEADER, flush=True)
        began = time.monotonic()
        scenarios = [scenario for name in chosen if (scenario := known[name])]
        if not run_until_interrupted(partial(run.measure, scenarios)):
            print("interrupted; the daemons are stopped", file=sys.stderr)
            return 130
        print(f"took {time.monotonic() - began:.0f} s")
    if old is not None:
        print(f"\nbeside commit {old['commit']} of {old['at']}:\n{HEADER}")
        before = {figure["name"]: figure for figure in old["figures"]}
        print(*[format_figure(figure, before.get(figure.name)) for figure in run.figures], sep="\n")
    if options.json:
        figures = [{**asdict(figure), "share": figure.share} for figure in run.figures]
        options.json.write_text(json.dumps({**about, "figures": figures}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
