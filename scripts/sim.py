"""Runs simulations by their seeds and tells which failed, by which check, and how to look into it.

A failure is run again with fewer and fewer steps; what is left and still fails the same check is replayed by the last line.

With --frames, --kills, --planted or --scale something else is run; each has its own --help.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Final

from peersd.testing.simulator import Plan, SimulationFailed, run_seed
from peersd.testing.simulator.plan import CHOICES, DRAWN
from peersd.testing.simulator.shrinking import shrink
from peersd.testing.simulator.simulation import steps_of
from scripts import sim_frames, sim_kills, sim_planted, sim_scale
from scripts.sim_arguments import number, parse_seed, parse_seeds, parse_steps
from scripts.sim_interrupts import open_run
from scripts.sim_pool import run_each

SEEDS_MAX: Final = 10_000
PROGRESS_S: Final = 10.0

COUNTED: Final[Mapping[str, Callable[[Sequence[str]], int]]] = {"--frames": sim_frames.main, "--kills": sim_kills.main}
"""Runs of something else, by the option that says how much of it."""

NAMED: Final[Mapping[str, Callable[[Sequence[str]], int]]] = {"--planted": sim_planted.main, "--scale": sim_scale.main}
"""Runs of something else, by a flag that only names it."""


@dataclass(frozen=True)
class Ran:
    """What came of a seed.

    Attributes:
        seed: which.
        line: to be printed.
        failure: the failure's text, its trace if that was wanted; empty if there was none.
    """

    seed: int
    line: str
    failure: str = ""


def run_one(seed: int, plan: Plan, only: Collection[int] | None, shrink_runs: int, *, is_traced: bool) -> Ran:
    """Runs a seed, and again with fewer steps if it fails."""
    began_s = time.monotonic()
    try:
        trace = run_seed(seed, plan, only).trace
    except SimulationFailed as failure:
        if is_traced:
            text = "\n".join([*failure.trace.lines, failure.what, f"replay: {failure.replay}"])
        elif shrink_runs:
            print(f"seed {seed}: fails: {failure.name}; being shortened; replay: {failure.replay}", flush=True)
            text = f"{failure.what}\n{shrink(seed, plan, failure, only, runs_max=shrink_runs).summary}"
        else:
            text = str(failure)
        return Ran(seed, f"seed {seed}: FAILED: {failure.name}", text)
    took_s = time.monotonic() - began_s
    line = f"seed {seed}: {trace.hash} {len(trace.lines)} events, {took_s:.1f} s; {trace.lines[-1].strip()}"
    return Ran(seed, "\n".join([*trace.lines, line]) if is_traced else line)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/sim", description=__doc__, allow_abbrev=False)
    which = parser.add_mutually_exclusive_group()
    every = f"0-{SEEDS_MAX - 1}"
    which.add_argument(
        "--seeds", type=parse_seeds, default=parse_seeds(every), help=f"first and last seed, such as 0-99 (default {every})"
    )
    which.add_argument("--seed", type=parse_seed, dest="seeds", help="one seed")
    parser.add_argument(
        "--jobs", type=number(1), default=os.cpu_count() or 1, help="processes at once (default: one a processor)"
    )
    parser.add_argument(
        "--only", type=parse_steps, help="the steps of one seed that are done, such as 3,7-9; none for none (default: all)"
    )
    parser.add_argument("--trace", action="store_true", help="print all that happened: virtual ms, device, event")
    parser.add_argument("--until-failure", action="store_true", help="end at the first seed that fails")
    parser.add_argument(
        "--shrink", type=number(0), default=150, help="runs to spend on a shorter schedule of a failure (default 150)"
    )
    for field in fields(Plan):
        flag = f"--{field.name.replace('_', '-')}"
        choice = CHOICES[field.name]
        kind = number(choice.least, choice.most, drawn=DRAWN if choice.drawn else None)
        default = f"the seed draws {choice.drawn}" if choice.drawn else field.default
        parser.add_argument(flag, type=kind, default=field.default, metavar="N", help=f"{choice.meaning} (default: {default})")
    chosen = parser.parse_args()
    if chosen.only is not None:
        check_steps(parser, chosen)
    return chosen


def check_steps(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> None:
    """Ends with status 2 if --only names steps that there are not."""
    if len(chosen.seeds) > 1:
        parser.error("argument --only: the steps of each seed are others; choose one seed by --seed")
    count = len(steps_of(chosen.seeds[0], plan_of(chosen)))
    if any(step >= count for step in chosen.only):
        parser.error(f"argument --only: seed {chosen.seeds[0]} has the steps 0 to {count - 1}")


def plan_of(chosen: argparse.Namespace) -> Plan:
    """How much is to happen."""
    return replace(Plan(), **{field.name: getattr(chosen, field.name) for field in fields(Plan)})


def main() -> int:
    """Runs what is asked for; exit status 1 if something failed."""
    arguments = sys.argv[1:]
    for flag, run in NAMED.items():
        if flag in arguments:
            return run([argument for argument in arguments if argument != flag])
    for option, run in COUNTED.items():
        if any(argument.partition("=")[0] == option for argument in arguments):
            return run(arguments)
    return run_seeds(parse_arguments())


def run_seeds(chosen: argparse.Namespace) -> int:
    """Runs the seeds; returns 1 if one failed."""
    plan = plan_of(chosen)
    seeds: range = chosen.seeds
    is_short = chosen.trace or len(seeds) <= 200
    shrink_runs = 0 if chosen.trace or chosen.only is not None else chosen.shrink
    failed: list[int] = []
    ended = 0
    began_s = told_s = time.monotonic()
    jobs = 1 if len(seeds) == 1 else chosen.jobs
    run = partial(run_one, plan=plan, only=chosen.only, shrink_runs=shrink_runs, is_traced=chosen.trace)
    runs = run_each(run, seeds, jobs)
    with open_run() as interruption, closing(runs):
        for ran in runs:
            ended += 1
            if ran.failure or is_short:
                print(ran.line, flush=True)
            if ran.failure:
                failed.append(ran.seed)
                print(ran.failure, flush=True)
                if chosen.until_failure:
                    break
            elif not is_short and time.monotonic() - told_s >= PROGRESS_S:
                told_s = time.monotonic()
                print(f"{ended} of {len(seeds)} seeds, {len(failed)} failed, {told_s - began_s:.0f} s", flush=True)
    which = f": {' '.join(map(str, sorted(failed)))}" if failed else ""
    told = f"{ended} seeds in {time.monotonic() - began_s:.0f} s, {len(failed)} failed{which}"
    return interruption.end(1 if failed else 0, told)


if __name__ == "__main__":
    sys.exit(main())
