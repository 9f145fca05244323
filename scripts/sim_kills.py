"""Kills daemons at drawn moments and at crash points, and tells what was lost; then how soon a killed one is ready again."""

from __future__ import annotations

import argparse
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

import trio

from peersd.client import Peers, PeersError
from peersd.testing.authors import ENDING
from peersd.testing.killing import REACHED_BY_WRITING, open_killing
from peersd.testing.pairs import GROUP
from peersd.testing.processes import DaemonProcess, open_daemon
from scripts.sim_arguments import number
from scripts.sim_interrupts import open_run

KILLS_EACH: Final = 25
"""Kills of the daemons of one seed: later ones find more rows to look through, and take longer."""

COUNT_MAX: Final = 8
"""A crash point is passed so often at most before the daemon dies there: node.db is written rarely once a start is over."""

MEET_EVERY: Final = 8

AT_ONCE: Final = 256
"""Writes under way at once while entries are made: as many as one commit takes."""

STARTS: Final = 5
"""Starts that the median is of."""


async def kill_with_seed(seed: int, kills: int, folder: Path) -> None:
    """Kills the daemons of one seed so many times, or once more where the last were two.

    Raises:
        AssertionError: something was lost or differs; the message tells the seed, the folders are kept.
    """
    random = Random(f"{seed} kills")
    async with open_killing(folder, seed=seed) as killing:
        met = 0
        while killing.kills < kills:
            if random.random() < 0.5:
                await killing.kill_at_a_moment()
            else:
                await killing.kill_at(f"{random.choice(REACHED_BY_WRITING)}:{random.randint(1, COUNT_MAX)}")
            if killing.kills // MEET_EVERY > met:
                met = killing.kills // MEET_EVERY
                await killing.meet()


async def measure_ready(entries: int, folder: Path) -> list[tuple[float, float]]:
    """How long a daemon with so many entries takes after a kill while it was writing.

    Returns:
        Of each start: seconds until the API answered, and until a query of the group did, both from the start of the process.
    """
    took: list[tuple[float, float]] = []
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
            took.append((ready_s, time.monotonic() - began_s))
    return took


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
    parser.add_argument("--first-seed", type=number(0), default=0, help=f"each seed takes {KILLS_EACH} kills (default 0)")
    parser.add_argument("--entries", type=number(0), default=100_000, help="for the time to be ready again; 0: not measured")
    chosen = parser.parse_args(argv)
    failed: list[int] = []
    done = 0
    with open_run() as interruption:
        for seed, kills in _kills_of(chosen.first_seed, chosen.kills):
            if not run_seed(seed, kills):
                failed.append(seed)
            done += kills
    told = f"{done} of {chosen.kills} kills, {len(failed)} seeds failed{': ' + ' '.join(map(str, failed)) if failed else ''}"
    status = interruption.end(1 if failed else 0, told)
    if chosen.entries and not interruption.has_come:
        with open_run() as interruption:
            measure(chosen.entries)
        if interruption.has_come:
            return interruption.end(status, f"{told}; the time to be ready again was not measured")
    return status


def run_seed(seed: int, kills: int) -> bool:
    """Kills the daemons of a seed and tells what came of it; whether nothing was lost. Its folder is kept if something was."""
    began_s = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="peersd-kills-"))
    is_kept = False
    try:
        trio.run(kill_with_seed, seed, kills, folder)
    except* (AssertionError, PeersError, trio.TooSlowError) as group:
        is_kept = True
        replay = f"replay: scripts/sim --kills {kills} --first-seed {seed} --entries 0"
        print(f"seed {seed}: FAILED, the folders are in {shlex.quote(str(folder))}\n{_first(group)}\n{replay}", flush=True)
    else:
        print(f"seed {seed}: {kills} kills, {time.monotonic() - began_s:.1f} s", flush=True)
    finally:
        if not is_kept:
            shutil.rmtree(folder)
    return not is_kept


def measure(entries: int) -> None:
    """Prints how soon a daemon with so many entries is ready again."""
    with tempfile.TemporaryDirectory(prefix="peersd-kills-") as name:
        took = trio.run(measure_ready, entries, Path(name))
    ready_s, queried_s = (statistics.median(column) for column in zip(*took, strict=True))
    print(
        f"killed while writing, with {entries} entries: ready again after {ready_s:.2f} s, first query answered after"
        f" {queried_s:.2f} s (medians of {STARTS})"
    )


def _kills_of(first_seed: int, kills: int) -> Iterator[tuple[int, int]]:
    """Seeds, and how many kills each takes."""
    for seed in count(first_seed):
        if kills <= 0:
            return
        yield seed, min(kills, KILLS_EACH)
        kills -= KILLS_EACH


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    sys.exit(main())
