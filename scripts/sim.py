"""Runs simulations by their seeds and tells which failed, by which check, and how to look into it.

When all have run, failures are run again with fewer and fewer steps; the last line replays what still fails the same check.

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
SHORTENED_MAX: Final = 6
"""Failures that are shortened: where very many seeds fail, it is for a few reasons."""

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


def run_one(seed: int, plan: Plan, only: Collection[int] | None, *, is_traced: bool, is_shortened: bool) -> Ran:
    """Runs a seed.

    Args:
        seed: which.
        plan: how much happens.
        only: the steps that are done; None for all.
        is_traced: whether to tell all that happened.
        is_shortened: whether a failure is told again with fewer steps, so that the end of its trace need not be told now.
    """
    began_s = time.monotonic()
    try:
        trace = run_seed(seed, plan, only).trace
    except SimulationFailed as failure:
        if is_traced:
            text = "\n".join([*failure.trace.lines, failure.what, f"replay: {failure.replay}"])
        elif is_shortened:
            text = f"{failure.what}\nto be shortened; all of it is replayed by: {failure.replay}"
        else:
            text = str(failure)
        return Ran(seed, f"seed {seed}: FAILED: {failure.name}", text)
    took_s = time.monotonic() - began_s
    line = f"seed {seed}: {trace.hash} {len(trace.lines)} events, {took_s:.1f} s; {trace.lines[-1].strip()}"
    return Ran(seed, "\n".join([*trace.lines, line]) if is_traced else line)


def shorten_one(seed: int, plan: Plan, runs_max: int, s_max: float) -> str:
    """What is left of a seed's failure, and how to replay it.

    Args:
        seed: which fails.
        plan: how much happens.
        runs_max: how often it may be run.
        s_max: how long that may take, in seconds; what is under way then is ended first.
    """
    try:
        run_seed(seed, plan)
    except SimulationFailed as failure:
        return f"seed {seed}:\n{shrink(seed, plan, failure, runs_max=runs_max, s_max=s_max).summary}"
    return f"seed {seed}: did not fail again"


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
    parser.add_argument(
        "--shrink-s", type=number(1), default=120, metavar="S", help="seconds to spend on it at most (default 120)"
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
    is_shortened = bool(chosen.shrink) and not chosen.trace and chosen.only is None
    failed: list[int] = []
    ended = 0
    began_s = told_s = time.monotonic()
    jobs = 1 if len(seeds) == 1 else chosen.jobs
    run = partial(run_one, plan=plan, only=chosen.only, is_traced=chosen.trace, is_shortened=is_shortened)
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
    if is_shortened and not interruption.has_come:
        shorten = partial(shorten_one, plan=plan, runs_max=chosen.shrink, s_max=chosen.shrink_s)
        first = sorted(failed)[:SHORTENED_MAX]
        with open_run() as interruption, closing(run_each(shorten, first, min(jobs, max(1, len(first))))) as shortened:
            for text in shortened:
                print(text, flush=True)
    which = f": {' '.join(map(str, sorted(failed)))}" if failed else ""
    told = f"{ended} seeds in {time.monotonic() - began_s:.0f} s, {len(failed)} failed{which}"
    return interruption.end(1 if failed else 0, told)


if __name__ == "__main__":
    sys.exit(main())
