"""What befalls the devices of a simulation, drawn before it begins: steps, each of which can be left out.

A step draws from a source of its own, so that leaving one out changes what the others do as little as can be. That is what makes
a failing simulation shrink (see `shrinking`).
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from random import Random

from peersd.testing.simulator.plan import Plan


class StepKind(enum.StrEnum):
    """What a step does. Which device, group or pair it concerns is drawn when its time has come."""

    WRITE = "writes"
    READ = "reads"
    GOVERN = "governs"
    """Something about memberships: invites, roles, removals, bans, leaves."""
    CUT = "cut"
    """A link is lost, and both sides notice soon."""
    LOSE = "lose"
    """A link is lost, and nobody notices but by its silence."""
    CRASH = "crash"
    CRASH_AFTER_CALL = "crash after a call"
    """The process dies between the next commit of a store and whoever is to be told of it."""
    PART = "part"
    """The network falls into two parts."""
    MUTE = "mute"
    """Some devices are not heard by the others, and hear them."""
    SLOW = "slow"
    """A pair's messages take up to five seconds."""
    CLOCK = "clock"
    """A wall clock jumps, stands still, or goes on."""


FAULTS = {
    StepKind.CUT: 28,
    StepKind.LOSE: 6,
    StepKind.CRASH: 22,
    StepKind.CRASH_AFTER_CALL: 12,
    StepKind.PART: 8,
    StepKind.MUTE: 8,
    StepKind.SLOW: 8,
    StepKind.CLOCK: 12,
}
"""How often each fault is drawn, among 104."""


@dataclass(frozen=True)
class Step:
    """One thing that happens.

    Attributes:
        number: in the order of time, from 0; of all that the seed draws, whatever is left out.
        at_ms: when, in virtual ms.
        kind: what.
    """

    number: int
    at_ms: int
    kind: StepKind


def draw_script(random: Random, plan: Plan) -> list[Step]:
    """All steps until `plan.trouble_ms`, in the order of time."""
    drawn: list[tuple[int, StepKind]] = []
    every_ms = ((plan.write_every_ms, StepKind.WRITE), (plan.read_every_ms, StepKind.READ), (plan.deed_every_ms, StepKind.GOVERN))
    for mean_ms, deed in every_ms:
        drawn += [(at_ms, deed) for at_ms in _times(random, mean_ms, plan.trouble_ms)]
    faults, weights = list(FAULTS), list(FAULTS.values())
    drawn += [(at_ms, random.choices(faults, weights)[0]) for at_ms in _times(random, plan.fault_every_ms, plan.trouble_ms)]
    return [Step(number, at_ms, deed) for number, (at_ms, deed) in enumerate(sorted(drawn))]


def _times(random: Random, mean_ms: int, end_ms: int) -> Iterable[int]:
    at_ms = random.randint(1, 2 * mean_ms)
    while at_ms < end_ms:
        yield at_ms
        at_ms += random.randint(1, 2 * mean_ms)


# --- Which of them --------------------------------------------------------------------------------------------------------------


def format_numbers(numbers: Collection[int]) -> str:
    """`0,3-5,9`: the numbers of steps as scripts/sim takes them; `none` for none."""
    parts: list[str] = []
    left = sorted(numbers)
    while left:
        first = last = left.pop(0)
        while left and left[0] == last + 1:
            last = left.pop(0)
        parts.append(f"{first}-{last}" if last > first else f"{first}")
    return ",".join(parts) or "none"


def parse_numbers(text: str) -> frozenset[int]:
    """Reads what `format_numbers` makes.

    Raises:
        ValueError: it is something else, such as a range whose last number comes first.
    """
    numbers: set[int] = set()
    for part in text.split(",") if text != "none" else ():
        first, dash, last = part.partition("-")
        some = range(int(first), int(last if dash else first) + 1)
        if not some:  # a run of no steps at all would find nothing
            raise ValueError(f"{part!r} holds no number")
        numbers.update(some)
    return frozenset(numbers)
