"""How cost grows: with the rows of a group, with groups, with the devices of one group, and with those who write in it."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import trio

from peersd.testing.processes import DaemonProcess
from scripts.bench_catch_up import BULK, measure_one
from scripts.bench_figures import format_number
from scripts.bench_groups import measure_groups
from scripts.bench_limits import Limits, Row, make_rows
from scripts.bench_pairs import init, join, make_group, wait_synced, write_batches
from scripts.bench_plot import Curve, Panel
from scripts.bench_reconnect import reconnect
from scripts.bench_run import FULL, QUICK, Run, Sizes
from scripts.bench_swarm import measure_swarm
from scripts.daemon_process import open_daemon

ROWS = (1_000, 10_000, 100_000, 1_000_000)
GROUPS = (10, 30, 100, 300)
DEVICES = (4, 8, 16, 32)
WRITERS = (1, 2, 4, 8, 16)
WRITTEN_ROWS = 64_000
"""By all writers together, so that only their number grows."""
QUICK_POINTS = 2
"""Of each kind in a quick run."""

CATCH_UP = "catch-up of a group, µs a row"


@dataclass
class Growth:
    """What was measured so far.

    Attributes:
        curves: by their panel, which is its title and the name of what grows there, and by their own names.
    """

    curves: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = field(
        default_factory=dict[tuple[str, str], dict[str, list[tuple[float, float]]]]
    )

    def add(self, title: str, x_name: str, curve: str, x: float, y: float) -> None:
        """Keeps a point and prints it at once."""
        self.curves.setdefault((title, x_name), {}).setdefault(curve, []).append((x, y))
        print(f"{title + ', ' + curve:<64} {format_number(x):>10} {x_name:<8} {format_number(y):>10}", flush=True)

    def panels(self) -> list[Panel]:
        """All of it, to be drawn."""
        return [
            Panel(title, x_name, [Curve(name, points) for name, points in curves.items()])
            for (title, x_name), curves in self.curves.items()
        ]


async def measure_growth(folder: Path, limits: Limits, quick: bool, growth: Growth) -> None:
    """Measures everything, each number of things with daemons of its own."""
    sizes = QUICK if quick else FULL
    count = QUICK_POINTS if quick else None

    async def measure(name: str, alike: Sizes, scenario: Callable[[Run], Awaitable[None]]) -> dict[str, float]:
        place = folder / name
        place.mkdir()
        run = Run(place, alike, limits, is_told=False)
        await scenario(run)
        return {figure.name: figure.value for figure in run.figures}

    await _grow_rows(Run(folder, sizes, limits), ROWS[:count], growth)
    for number in GROUPS[:count]:
        figures = await measure(f"groups{number}", replace(sizes, groups=number, rounds_large=1), measure_groups)
        growth.add("reconnect in sync, ms until all are equal", "groups", "of 100 rows", number, figures["groups_reconnect_time"])
        growth.add("memory of an idle daemon, MiB", "groups", "of 100 rows", number, figures["groups_memory"])
    for number in DEVICES[:count]:
        # Of four each is linked to two others.
        alike = replace(sizes, devices=number, neighbours=min(sizes.neighbours, (number - 1) // 2 * 2))
        figures = await measure(f"devices{number}", alike, measure_swarm)
        growth.add("one write visible on all, ms", "devices", "each linked to 4 others", number, figures["swarm_visible"])
    for number in WRITERS[:count]:
        await _add_writers(Run(folder, sizes, limits), number, growth)


async def _grow_rows(run: Run, totals: tuple[int, ...], growth: Growth) -> None:
    """One group that grows: fresh devices fetch it, and one that has it links anew."""
    place = run.folder / "rows"
    place.mkdir()
    rows: list[Row] = []
    async with open_daemon(place, "a") as a, open_daemon(place, "b") as b:
        await init(a)
        await init(b)
        await make_group(a, BULK)
        await join(a, b, BULK)
        for total in totals:
            new = make_rows(total - len(rows), seed=total)
            rows += new
            async with a.client() as peers:
                await write_batches(peers, BULK, new)
            for daemon in (a, b):
                await wait_synced(daemon, BULK)
            rounds = [(await reconnect(a, b, 1)).ms for _ in range(run.sizes.rounds)]
            await b.terminate()  # the fresh one fetches from one device
            caught_up = await measure_one(run, a, place, f"fresh{total}", rows)
            await b.start()
            growth.add(CATCH_UP, "rows", "peersd", total, 1e6 / caught_up.rows_per_s)
            growth.add(CATCH_UP, "rows", "plain APSW", total, 1e6 / caught_up.limit.rows_per_s)
            growth.add("reconnect in sync, ms", "rows", "of one group", total, statistics.median(rounds))


async def _add_writers(run: Run, number: int, growth: Growth) -> None:
    """So many devices write into one group at once; then one of them is there for a fresh device."""
    place = run.folder / f"writers{number}"
    place.mkdir()
    share = WRITTEN_ROWS // number
    rows = make_rows(WRITTEN_ROWS, seed=number)

    async def write(daemon: DaemonProcess, first: int) -> None:
        async with daemon.client() as peers:
            await write_batches(peers, BULK, rows[first : first + share])

    async with open_daemon(place, "a") as a:
        await init(a)
        await make_group(a, BULK)
        async with AsyncExitStack() as stack:
            others = [await stack.enter_async_context(open_daemon(place, f"writer{index}")) for index in range(1, number)]
            for daemon in others:
                await init(daemon)
                await join(a, daemon, BULK)
            async with trio.open_nursery() as nursery:
                for index, daemon in enumerate([a, *others]):
                    nursery.start_soon(partial(write, daemon, index * share))
            for daemon in others:
                await wait_synced(daemon, BULK)
        caught_up = await measure_one(run, a, place, "fresh", rows)
        growth.add(CATCH_UP, "writers", "peersd", number, 1e6 / caught_up.rows_per_s)
