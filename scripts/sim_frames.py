"""Sends frames made by a grammar and changed to a device, and tells what became of them; a failure prints what replays it."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from peersd.testing.fuzzing import EPISODE_FRAMES, KINDS, Campaign, FuzzFailed, Tally, episodes_for, make_world, run_campaign
from scripts.sim_arguments import number
from scripts.sim_interrupts import open_run

REPORT_S = 60.0
"""How often a long campaign says how far it is."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a campaign; exit status 1 if it failed."""
    parser = argparse.ArgumentParser(prog="scripts/sim --frames", description=__doc__, allow_abbrev=False)
    parser.add_argument("--frames", type=number(1), nargs="?", const=20_000, default=20_000, help="how many (default 20000)")
    parser.add_argument("--seed", type=number(0), default=0, help="of all that is drawn (default 0)")
    parser.add_argument("--episode", type=number(0), default=0, help=f"the first episode of {EPISODE_FRAMES} frames")
    parser.add_argument("--type", action="append", choices=KINDS, help="send only this type; may be given several times")
    parser.add_argument(
        "--measured-every", type=number(0), default=16, help="measure memory in one of so many episodes; 0 for none"
    )
    chosen = parser.parse_args(argv)
    campaign = Campaign(chosen.seed, tuple(chosen.type or KINDS), chosen.measured_every)
    tally = Tally()
    began_s = reported_s = time.monotonic()
    failure: FuzzFailed | None = None
    with open_run() as interruption, tempfile.TemporaryDirectory(prefix="peersd-frames-") as name:
        folder = Path(name)
        world = make_world(folder)
        for episode in episodes_for(chosen.frames, chosen.episode):
            try:
                run_campaign(world, folder, campaign, iter((episode,)), tally)
            except FuzzFailed as error:
                failure = error
                break
            if time.monotonic() - reported_s > REPORT_S:
                reported_s = time.monotonic()
                print(f"{tally.sent} frames, {tally.sent / (reported_s - began_s):.0f} a second", flush=True)
    print(*tally.lines(), sep="\n")
    if failure is not None:
        print(f"FAILED: {failure}")
    return interruption.end(1 if failure is not None else 0, f"{tally.sent} frames in {time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
