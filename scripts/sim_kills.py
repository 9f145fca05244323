"""Kills daemons at drawn moments and at crash points, and tells what was lost; then how soon a killed one is ready again."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

import trio

from peersd.client import Peers, PeersError
from peersd.crash_points import CrashPoint
from peersd.testing.authors import ENDING
from peersd.testing.crash_cases import CASES, Case, During, cut_off
from peersd.testing.killing import open_killing
from peersd.testing.observing import processor_s
from peersd.testing.pairs import GROUP
from peersd.testing.processes import DaemonProcess, open_daemon
from scripts.sim_arguments import number
from scripts.sim_interrupts import cancel_if_interrupted, open_run

KILLS_EACH: Final = 25
"""Kills of the daemons of one seed: later ones find more rows to look through, and take longer."""

CASES_EACH: Final = 15
"""Those of them that are at crash points."""

PASSES_MAX: Final = 8
"""A daemon that writes passes a crash point so often at most before it dies: node.db is written rarely once a start is over."""

MEET_EVERY: Final = 8

TRACE_LINES: Final = 4
"""Of a failure's trace, the error itself among them: where a hang guard ran out says more than that it did."""

AT_ONCE: Final = 256
"""Writes under way at once while entries are made: as many as one commit takes."""

STARTUP: Final = re.compile(r" ready .* startup_s=([0-9.]+)")
"""In the line that a daemon logs when it is ready."""

STARTS: Final = 5
"""Starts that the median is of."""


@dataclass
class Ran:
    """What came of all seeds.

    Attributes:
        kills: how many daemons were killed.
        reached: how many of them at each crash point.
        whole_seeds: how many seeds came to all their crash points.
        failed: seeds by which something was lost.
    """

    kills: int = 0
    reached: Counter[CrashPoint] = field(default_factory=Counter[CrashPoint])
    whole_seeds: int = 0
    failed: list[int] = field(default_factory=list[int])


def cases_for(seed: int) -> list[Case]:
    """The crash points of a seed: in a drawn order, and such that seeds that follow each other come to all of them in turn."""
    dealt = [CASES[number % len(CASES)] for number in range(seed * CASES_EACH, (seed + 1) * CASES_EACH)]
    random = Random(f"{seed} cases")
    random.shuffle(dealt)
    return [replace(case, passes=random.randint(1, PASSES_MAX)) if case.during is During.WRITING else case for case in dealt]


async def kill_with_seed(seed: int, kills: int, folder: Path, ran: Ran) -> None:
    """Kills the daemons of one seed so many times, or once more where the last were two.

    Args:
        seed: of all that is drawn.
        kills: how many; KILLS_EACH to come to all the crash points of the seed.
        folder: of the daemons.
        ran: gets how many were killed, and where.

    Raises:
        AssertionError: something was lost or differs; the message tells the seed.
    """
    random = Random(f"{seed} kills")
    dealt = cases_for(seed)
    async with open_killing(folder, seed=seed) as killing:
        try:
            met = 0
            while killing.kills < kills:
                # At a moment two may be killed at once.
                if dealt and (random.random() < 0.5 or killing.kills + len(dealt) + 2 > kills):
                    await cut_off(killing, dealt.pop())
                else:
                    await killing.kill_at_a_moment()
                if killing.kills // MEET_EVERY > met:
                    met = killing.kills // MEET_EVERY
                    await killing.meet()
        finally:
            ran.kills += killing.kills
            ran.reached.update(killing.reached)


async def measure_ready(entries: int, folder: Path, took: list[tuple[float, float, float]]) -> None:
    """How long a daemon with so many entries takes after a kill while it was writing.

    Args:
        entries: how many.
        folder: for the daemon.
        took: gets of each start the seconds until the API answered, and until a query of the group did, both from the start of
            the process; and how many of the first the daemon says it took, once Python had loaded it.
    """
    async with open_daemon(folder, "ada") as ada:
        await ada.call("init", user_name="ada")
        await ada.call("group.create", name=GROUP)
        await ada.call("sql.execute", sql="CREATE TABLE item (n INTEGER, body TEXT, PRIMARY KEY (n, body))", group=GROUP)
        made = await _make_entries(ada, 0, entries)
        for _ in range(STARTS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_make_entries, ada, made, 1_000_000_000)
                rows = made
                while rows < made + AT_ONCE:  # only now is it surely in the middle of writing
                    rows = await _rows(ada)
                await ada.kill()
            began_s = time.monotonic()
            await ada.start()
            ready_s = time.monotonic() - began_s
            made = await _rows(ada)
            queried_s = time.monotonic() - began_s
            took.append((ready_s, queried_s, float(STARTUP.findall(ada.log())[-1])))


async def _rows(ada: DaemonProcess) -> int:
    """The first number that no row has."""
    (row,) = (await ada.call("sql.query", sql="SELECT max(n) + 1 FROM item", group=GROUP))["rows"]
    return int(row[0])


async def _make_entries(ada: DaemonProcess, first: int, end: int) -> int:
    """Writes rows with one entry each, many under way at once, until there are so many or the daemon is gone."""
    numbers = iter(range(first, end))

    async def write(peers: Peers) -> None:
        for n in numbers:
            await peers.execute("INSERT INTO item VALUES (?, ?)", [n, f"body {n}"], group=GROUP)

    try:
        async with ada.client() as peers, trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(write, peers)
    except* PeersError as group:
        if any(error.code not in ENDING for error in group.exceptions if isinstance(error, PeersError)):
            raise
    return end


def main(argv: Sequence[str] | None = None) -> int:
    """Runs as many kills as asked for, seed by seed; exit status 1 if one lost something."""
    parser = argparse.ArgumentParser(prog="scripts/sim --kills", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--kills", type=number(0), nargs="?", const=1000, default=1000, help="how many in all; 0: only measure (default 1000)"
    )
    parser.add_argument("--seed", type=number(0), default=0, help=f"the first one; each takes {KILLS_EACH} kills (default 0)")
    parser.add_argument("--entries", type=number(0), default=100_000, help="for the time to be ready again; 0: not measured")
    parser.add_argument(
        "--jobs", type=number(1), default=os.cpu_count() or 1, help="seeds at once, three daemons each (default: one a processor)"
    )
    chosen = parser.parse_args(argv)
    ran = Ran()
    began_s = time.monotonic()
    with open_run() as interruption:
        trio.run(cancel_if_interrupted, run_seeds, _kills_of(chosen.seed, chosen.kills), chosen.jobs, ran)
    if ran.reached:
        print(f"killed at crash points: {', '.join(f'{point} {ran.reached[point]}' for point in CrashPoint)}")
    missed = find_missed(ran)
    if missed:
        print(f"FAILED: never killed at: {', '.join(missed)}")
    which = f": {' '.join(map(str, sorted(ran.failed)))}" if ran.failed else ""
    told = f"{ran.kills} of {chosen.kills} kills, {len(ran.failed)} seeds failed{which}"
    cost = f"{time.monotonic() - began_s:.0f} s, {processor_s():.0f} s of the processor"
    status = interruption.end(1 if ran.failed or missed else 0, f"{told}; {cost}")
    if chosen.entries and not interruption.has_come:
        with open_run() as interruption:
            measure(chosen.entries)
        if interruption.has_come:
            return interruption.end(status, f"{told}; the time to be ready again was not measured")
    return status


def find_missed(ran: Ran) -> list[CrashPoint]:
    """The crash points at which no daemon died, if so many seeds were run that each should have been reached."""
    if ran.whole_seeds * CASES_EACH < len(CASES):
        return []
    return [point for point in CrashPoint if not ran.reached[point]]


async def run_seeds(seeds: Iterator[tuple[int, int]], jobs: int, ran: Ran) -> None:
    """Runs seeds, so many at once; each is given its number of kills."""

    async def run_some() -> None:
        for seed, kills in seeds:
            if not await run_seed(seed, kills, ran):
                ran.failed.append(seed)
            elif kills == KILLS_EACH:
                ran.whole_seeds += 1

    async with trio.open_nursery() as nursery:
        for _ in range(jobs):
            nursery.start_soon(run_some)


async def run_seed(seed: int, kills: int, ran: Ran) -> bool:
    """Kills the daemons of a seed and tells what came of it; whether nothing was lost. Its folder is kept if something was."""
    began_s = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="peersd-kills-"))
    is_kept = False
    try:
        await kill_with_seed(seed, kills, folder, ran)
    except* (AssertionError, PeersError, trio.TooSlowError) as group:
        is_kept = True
        replay = f"replay: scripts/sim --kills {kills} --seed {seed} --entries 0"
        print(f"seed {seed}: FAILED, the folders are in {shlex.quote(str(folder))}\n{_told(group)}\n{replay}", flush=True)
    else:
        print(f"seed {seed}: {kills} kills, {time.monotonic() - began_s:.1f} s", flush=True)
    finally:
        if not is_kept:
            shutil.rmtree(folder)
    return not is_kept


def measure(entries: int) -> None:
    """Prints how soon a daemon with so many entries is ready again."""
    with tempfile.TemporaryDirectory(prefix="peersd-kills-") as name:
        took: list[tuple[float, float, float]] = []
        trio.run(cancel_if_interrupted, measure_ready, entries, Path(name), took)
    ready_s, queried_s, own_s = (statistics.median(column) for column in zip(*took, strict=True))
    print(
        f"killed while writing, with {entries} entries: ready again after {ready_s:.2f} s, {own_s:.2f} s of them its own, first"
        f" query answered after {queried_s:.2f} s (medians of {STARTS})"
    )


def _kills_of(first_seed: int, kills: int) -> Iterator[tuple[int, int]]:
    """Seeds, and how many kills each takes."""
    for seed in count(first_seed):
        if kills <= 0:
            return
        yield seed, min(kills, KILLS_EACH)
        kills -= KILLS_EACH


def _told(group: BaseExceptionGroup[BaseException]) -> str:
    """What failed first, and where."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return "".join(traceback.format_exception(error, chain=False)[-TRACE_LINES:]).rstrip()


if __name__ == "__main__":
    sys.exit(main())
