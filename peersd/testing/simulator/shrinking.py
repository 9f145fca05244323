"""The shortest schedule that still fails: steps of a failing simulation are left out, as long as the same check finds it.

Delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002), over the numbers of the steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from peersd.testing.simulator.plan import Plan
from peersd.testing.simulator.schedule import TRACE_TAIL_LINES, SimulationFailed
from peersd.testing.simulator.script import format_numbers
from peersd.testing.simulator.simulation import run_seed, steps_of


@dataclass(frozen=True)
class Shrunk:
    """The shortest schedule found.

    Attributes:
        seed: as it was.
        plan: with the numbers of devices, groups and links that the seed had drawn, or smaller ones.
        steps: the numbers of the steps that are left.
        failure: how it fails.
        runs: how many simulations that took.
        steps_before: how many steps there were.
    """

    seed: int
    plan: Plan
    steps: tuple[int, ...]
    failure: SimulationFailed
    runs: int
    steps_before: int

    @property
    def command(self) -> str:
        """What replays it."""
        return f"scripts/sim --seed {self.seed}{self.plan.flags} --only {format_numbers(self.steps)} --trace"

    @property
    def summary(self) -> str:
        """What was found, how its trace ends, and how to look at it."""
        found = f"shortest schedule found: {len(self.steps)} of {self.steps_before} steps, in {self.runs} runs:"
        return "\n".join([found, self.failure.what, *self.failure.trace.lines[-TRACE_TAIL_LINES:], f"replay: {self.command}"])


def shrink(
    seed: int,
    plan: Plan,
    failure: SimulationFailed,
    only: Collection[int] | None = None,
    *,
    runs_max: int = 150,
    s_max: float = math.inf,
) -> Shrunk:
    """Looks for a shorter schedule that fails by the same check.

    Args:
        seed: of the failure.
        plan: of the failure.
        failure: what it said.
        only: the steps that it was run with; None for all.
        runs_max: how many simulations may be run.
        s_max: seconds after which none is begun.
    """
    end_s = time.monotonic() + s_max
    steps = [step.number for step in steps_of(seed, plan) if only is None or step.number in only]
    best = Shrunk(seed, plan, tuple(steps), failure, 0, len(steps))

    def fails(left: Sequence[int]) -> bool:
        nonlocal best
        best = replace(best, runs=best.runs + 1)
        try:
            run_seed(seed, plan, left)
        except SimulationFailed as found:
            if found.name == failure.name:
                best = replace(best, steps=tuple(left), failure=found)
                return True
        return False

    def is_over() -> bool:
        return best.runs >= runs_max or time.monotonic() >= end_s

    _reduce(_shorten(steps, fails, is_over), fails, is_over)
    return best


def _shorten(steps: list[int], fails: Callable[[Sequence[int]], bool], is_over: Callable[[], bool]) -> list[int]:
    """Leaves out the end, by halves: often all that comes after the failure's cause does not matter."""
    kept, needed = len(steps), 0
    while kept - needed > 1 and not is_over():
        middle = (needed + kept) // 2
        if fails(steps[:middle]):
            kept = middle
        else:
            needed = middle
    return steps[:kept]


def _reduce(steps: list[int], fails: Callable[[Sequence[int]], bool], is_over: Callable[[], bool]) -> list[int]:
    """Leaves out parts of the whole, then smaller ones, until no single step can be left out."""
    parts = 2
    while len(steps) >= 1 and not is_over():
        size = max(1, -(-len(steps) // parts))
        for start in range(0, len(steps), size):
            left = steps[:start] + steps[start + size :]
            if is_over():
                return steps
            if fails(left):
                steps, parts = left, max(2, parts - 1)
                break
        else:
            if size == 1:
                return steps
            parts = min(len(steps), 2 * parts)
    return steps
