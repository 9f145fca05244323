"""Measures daemons on loopback beside what this machine allows, and says the commit, the machine and which bars are met.

Every figure has its limit from the same run: judge the share, not the milliseconds. docs/performance.md says what each figure is.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import apsw
import trio

from scripts.bench_catch_up import WRITES, measure_catch_up, measure_million
from scripts.bench_figures import HEADER, Figure, format_figure
from scripts.bench_groups import measure_groups
from scripts.bench_growth import Growth, measure_growth
from scripts.bench_latency import measure_one_change
from scripts.bench_limits import make_rows, measure_bulk, open_limits
from scripts.bench_link import measure_link
from scripts.bench_plot import draw
from scripts.bench_reconnect import measure_reconnect
from scripts.bench_run import FULL, QUICK, Run
from scripts.bench_swarm import measure_swarm
from scripts.bench_writes import measure_batch, measure_single
from scripts.daemon_process import run_until_interrupted

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Scenario:
    """What is measured in one go.

    Attributes:
        measure: does it.
        names: of the figures that come of it, with blanks between.
    """

    measure: Callable[[Run], Awaitable[None]]
    names: str

    @property
    def figures(self) -> list[str]:
        """The names."""
        return self.names.split()


async def measure_limits(run: Run) -> None:
    """What the machine allows, alone; the scenarios measure it again beside their own figures."""
    rows = make_rows(run.sizes.bulk_rows, seed=0)
    bulk = [await trio.to_thread.run_sync(measure_bulk, run.folder, rows) for _ in range(run.sizes.rounds)]
    run.add("limit_bulk", "rows/s", [one.rows_per_s for one in bulk])
    run.add("limit_bulk_disk", "bytes/row", [one.bytes_per_row for one in bulk])
    durations = [await run.limits.measure_durations() for _ in range(run.sizes.rounds)]
    for name in ("commit", "websocket", "socket", "hop"):
        spreads = [getattr(one, name) for one in durations]
        run.add(f"limit_{name}_p50", "ms", [one.p50_ms for one in spreads])
        run.add(f"limit_{name}_p99", "ms", [one.p99_ms for one in spreads])


CATCH_UP: Final = "{0} {0}_wire {0}_disk {0}_disk_writer {0}_peak_sender {0}_peak_receiver"
SCENARIOS: Final = (
    Scenario(
        measure_limits,
        "limit_bulk limit_bulk_disk limit_commit_p50 limit_commit_p99 limit_websocket_p50 limit_websocket_p99 "
        "limit_socket_p50 limit_socket_p99 limit_hop_p50 limit_hop_p99",
    ),
    Scenario(measure_one_change, "one_change_p50 one_change_p99"),
    Scenario(measure_single, "single_1_client single_32_clients"),
    Scenario(measure_batch, "batch_1000"),
    *(Scenario(partial(measure_catch_up, name=name), CATCH_UP.format(name)) for name in WRITES),
    Scenario(
        measure_million,
        "catch_up_million catch_up_million_peak_sender catch_up_million_peak_receiver "
        "beside_idle_p99 beside_bulk_p50 beside_bulk_p99",
    ),
    Scenario(
        measure_reconnect,
        "reconnect_handshake_bytes reconnect_time_few reconnect_bytes_few reconnect_group_bytes_few "
        "reconnect_time_many reconnect_bytes_many reconnect_group_bytes_many",
    ),
    Scenario(
        measure_link,
        "link_echo_p50 link_echo_p99 link_echo_beside_bulk_p50 link_echo_beside_bulk_p99 link_bulk_out link_bulk_in "
        "link_cipher link_bulk_far",
    ),
    Scenario(
        measure_groups,
        "groups_join groups_ready groups_start_to_sync groups_memory groups_handles groups_idle groups_reconnect_time "
        "groups_reconnect_bytes groups_reconnect_group_bytes",
    ),
    Scenario(measure_swarm, "swarm_visible swarm_entry_bytes"),
)


NAMES: Final = tuple(name for scenario in SCENARIOS for name in scenario.figures)


def find_figures(part: str) -> list[str]:
    """The names of the figures that begin with this, or contain it where none begins with it.

    Raises:
        ArgumentTypeError: none does.
    """
    found = [name for name in NAMES if name.startswith(part)] or [name for name in NAMES if part in name]
    if not (part and found):
        raise argparse.ArgumentTypeError(f"no figure is called {part!r}; scripts/bench --list names them")
    return found


async def measure(folder: Path, options: argparse.Namespace, names: Sequence[str], figures: list[Figure]) -> None:
    """Runs the scenarios that have one of the figures."""
    async with open_limits(folder) as limits:
        run = Run(folder, QUICK if options.quick else FULL, limits, names.__contains__, figures)
        for scenario in SCENARIOS:
            if not set(scenario.figures).isdisjoint(names):
                await scenario.measure(run)


async def measure_and_draw(folder: Path, path: Path, quick: bool, caption: str) -> None:
    """Measures how cost grows and writes the picture."""
    growth = Growth()
    async with open_limits(folder) as limits:
        await measure_growth(folder, limits, quick, growth)
    path.write_text(draw(growth.panels(), caption), encoding="utf-8")


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
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
    }


def describe_run(quick: bool) -> dict[str, Any]:
    """Which commit, when, where and how much."""
    return {
        "commit": (run_git("rev-parse", "--short=12", "HEAD") or "none") + ("+" if run_git("status", "--porcelain") else ""),
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": describe_machine(),
        "sizes": asdict(QUICK if quick else FULL),
    }


def read_run(path: str) -> dict[str, Any]:
    """An earlier run.

    Raises:
        ArgumentTypeError: there is no such file, or --json did not write it.
    """
    try:
        run: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        format_comparison([Figure(figure["name"], figure["value"], "") for figure in run["figures"]], run, run)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise argparse.ArgumentTypeError(f"{path} is nothing that --json wrote") from None
    return run


def parse_output(path: str) -> Path:
    """A file to be written at the end, of which it is better known at the beginning that it cannot be.

    Raises:
        ArgumentTypeError: it cannot.
    """
    output = Path(path)
    if output.is_dir() or not os.access(output if output.exists() else output.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{path} cannot be written")
    return output


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="few rows, one round: whether it runs, not how fast")
    parser.add_argument(
        "--only",
        metavar="NAME",
        type=find_figures,
        action="append",
        help="only figures whose name begins with this, or else contains it (may be repeated)",
    )
    parser.add_argument("--json", metavar="FILE", type=parse_output, help="write the figures there")
    parser.add_argument("--compare", metavar="OLD.json", type=read_run, help="show beside this run one that --json wrote")
    parser.add_argument(
        "--growth",
        metavar="FILE.svg",
        type=parse_output,
        help="measure how cost grows with rows, groups, devices and writers instead; draw it",
    )
    parser.add_argument("--list", action="store_true", help="name the figures")
    options = parser.parse_args(arguments)
    if options.growth and (options.only or options.json or options.compare or options.list):
        parser.error("argument --growth: it measures no figures, so --only, --json, --compare and --list say nothing beside it")
    return options


def format_summary(figures: Sequence[Figure], quick: bool) -> str:
    """How many bars are met, and which are not."""
    missed = [figure.name for figure in figures if figure.met is False]
    barred = sum(figure.met is not None for figure in figures)
    told = f"{barred - len(missed)} of {barred} bars met" + (f"; not met: {', '.join(missed)}" if missed else "")
    return told + (" (the bars are for a whole run)" if quick and barred else "")


def format_comparison(figures: Sequence[Figure], about: dict[str, Any], old: dict[str, Any]) -> str:
    """The figures beside those of an earlier run, and in what else the two are not alike.

    Args:
        figures: of this run.
        about: what `describe_run` says of it.
        old: the earlier one, as --json wrote it.
    """
    before = {figure["name"]: figure for figure in old["figures"]}
    machine = old["machine"]
    unlike = [
        f"{key} {machine.get(key)}" for key, value in about["machine"].items() if key != "load" and machine.get(key) != value
    ]
    if old["quick"] != about["quick"]:
        unlike.insert(0, "a quick run" if old["quick"] else "a whole run")
    heading = f"beside commit {old['commit']} of {old['at']}" + (f", {', '.join(unlike)}" if unlike else "")
    lines = [f"{heading}:", HEADER]
    return "\n".join([*lines, *(format_figure(figure, before.get(figure.name)) for figure in figures)])


def main(arguments: list[str] | None = None) -> int:
    """Runs the bench; exit status 2 if an option is wrong, 130 if interrupted."""
    options = parse_arguments(arguments)
    names = [name for name in NAMES if options.only is None or any(name in found for found in options.only)]
    if options.list:
        print(*names, sep="\n")
        return 0
    about = describe_run(options.quick)
    print(f"commit {about['commit']}  {about['at']}  " + "  ".join(f"{key} {value}" for key, value in about["machine"].items()))
    began = time.monotonic()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="peersd-bench-") as folder:
        work = partial(measure, Path(folder), options, names, figures)
        if options.growth:
            caption = f"scripts/bench --growth, commit {about['commit']}, {about['machine']['processor']}, {about['at'][:10]}"
            work = partial(measure_and_draw, Path(folder), options.growth, options.quick, caption)
        else:
            print(HEADER, flush=True)
        if not run_until_interrupted(work):
            print("interrupted; the daemons are stopped", file=sys.stderr)
            return 130
    if options.growth:
        return 0
    print(f"{format_summary(figures, options.quick)}; took {time.monotonic() - began:.0f} s")
    if options.compare:
        print("\n" + format_comparison(figures, about, options.compare))
    if options.json:
        written = {**about, "figures": [figure.as_json() for figure in figures]}
        options.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
