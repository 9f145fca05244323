"""Sends frames made by a grammar and changed to a device, and tells what became of them; a failure prints what replays it."""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cache, partial
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Final

from peersd.testing.fuzzing import EPISODE_FRAMES, KINDS, Campaign, FuzzFailed, Tally, episodes_for, make_world, run_campaign
from peersd.testing.fuzzing.tally import GROWTH_BYTES_MAX
from peersd.testing.fuzzing.world import World
from peersd.testing.observing import peak_memory_bytes, processor_s
from peersd.testing.simulator.simulation import FOLDER_VARIABLE
from scripts.sim_arguments import number
from scripts.sim_interrupts import open_run
from scripts.sim_pool import run_each

REPORT_S: Final = 60.0
"""How often a long campaign says how far it is."""

CHUNK_EPISODES: Final = 16
"""What a process is given at once: a few seconds of work."""

PROCESS_CHUNKS: Final = 32
"""What a process is given in all, on average. Of each episode that is measured, tracemalloc keeps up to 400 KB for good; what a
process grows by is to be for what it was sent."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a campaign; exit status 1 if it failed."""
    parser = argparse.ArgumentParser(prog="scripts/sim --frames", description=__doc__, allow_abbrev=False)
    parser.add_argument("--frames", type=number(1), nargs="?", const=20_000, default=20_000, help="how many (default 20000)")
    parser.add_argument("--seed", type=number(0), default=0, help="of all that is drawn (default 0)")
    parser.add_argument("--episode", type=number(0), default=0, help=f"the first episode of {EPISODE_FRAMES} frames")
    parser.add_argument("--type", action="append", choices=KINDS, help="send only this type; may be given several times")
    parser.add_argument(
        "--measured-every", type=number(0), default=64, help="measure memory exactly in one of so many episodes; 0 for none"
    )
    parser.add_argument(
        "--jobs", type=number(1), default=os.cpu_count() or 1, help="processes at once (default: one a processor)"
    )
    chosen = parser.parse_args(argv)
    campaign = Campaign(chosen.seed, tuple(chosen.type or KINDS), chosen.measured_every)
    chunks = list(_chunks_of(episodes_for(chosen.frames, chosen.episode)))
    tally = Tally()
    failures: list[str] = []
    began_s = reported_s = time.monotonic()
    jobs = min(chosen.jobs, len(chunks))
    runs = run_each(partial(run_chunk, campaign=campaign), chunks, jobs, tasks_per_process=PROCESS_CHUNKS)
    with open_run() as interruption, closing(runs):
        for ran, failure in runs:
            tally.add_all(ran)
            if failure:
                failures.append(failure)
                break
            if time.monotonic() - reported_s > REPORT_S:
                reported_s = time.monotonic()
                print(f"{tally.sent} frames, {tally.sent / (reported_s - began_s):.0f} a second", flush=True)
    print(*tally.lines(), sep="\n")
    for failure in failures:
        print(f"FAILED: {failure}")
    took_s = time.monotonic() - began_s
    told = f"{tally.sent} frames in {took_s:.0f} s, {tally.sent / took_s:.0f} a second; {processor_s():.0f} s of the processor"
    return interruption.end(1 if failures else 0, told)


def _chunks_of(episodes: range) -> Iterator[range]:
    return (episodes[at : at + CHUNK_EPISODES] for at in range(0, len(episodes), CHUNK_EPISODES))


def run_chunk(episodes: range, campaign: Campaign) -> tuple[Tally, str]:
    """Runs some episodes: what became of the frames, and what failed, in words; empty if nothing did."""
    tally = Tally()
    folder, world = _own_world()
    try:
        first_bytes = _first_peak_bytes(campaign)
        run_campaign(world, folder, campaign, episodes, tally)
    except FuzzFailed as failure:
        return tally, str(failure)
    grown = peak_memory_bytes() - first_bytes
    tally.process_bytes.note(grown, f"episodes {episodes[0]} to {episodes[-1]}")
    if grown > GROWTH_BYTES_MAX:
        replay = campaign.replay(episodes[0], len(episodes))
        return tally, f"a process has grown by {grown} bytes after episode {episodes[-1]}\n{replay}"
    return tally, ""


@cache
def _own_world() -> tuple[Path, World]:
    """This process's folder, in memory where there is any, and the group that all its episodes begin with."""
    folder = Path(tempfile.mkdtemp(prefix="frames-", dir=os.environ[FOLDER_VARIABLE]))
    Finalize(None, shutil.rmtree, (folder, True), exitpriority=0)  # atexit is not heeded in a process of a pool
    world = make_world(folder)
    gc.freeze()  # what all episodes have in common is no garbage, and is not looked through again and again
    return folder, world


@cache
def _first_peak_bytes(campaign: Campaign) -> int:
    """What this process had taken at most when it had run one episode: by then all is loaded."""
    folder, world = _own_world()
    run_campaign(world, folder, campaign, range(1), Tally())
    return peak_memory_bytes()


if __name__ == "__main__":
    sys.exit(main())
