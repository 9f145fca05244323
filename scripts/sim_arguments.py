"""Numbers on the command line of scripts/sim: read, and refused with a sentence that says which are valid."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Final

from peersd.testing.simulator.script import parse_numbers

SEED_MAX: Final = 2**63 - 1
"""More than anybody tries."""


def number(least: int, most: int | None = None, *, drawn: int | None = None) -> Callable[[str], int]:
    """What reads a whole number, for argparse.

    Args:
        least: the smallest that is valid.
        most: the largest; None for any.
        drawn: another one that is valid, by which the seed decides.
    """
    valid = f"{least} or more" if most is None else f"{least} to {most}"
    if drawn is not None:
        valid += f", or {drawn} for what the seed draws"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ArgumentTypeError(f"{text!r} is no whole number; valid are {valid}") from None
        if value == drawn or (value >= least and (most is None or value <= most)):
            return value
        raise ArgumentTypeError(f"{value} is out of range; valid are {valid}")

    return parse


def parse_seeds(text: str) -> range:
    """`7` or `0-99`, both ends included.

    Raises:
        ArgumentTypeError: it is something else, or the last comes before the first.
    """
    first, dash, last = text.partition("-")
    try:
        seeds = range(int(first), int(last if dash else first) + 1)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no seed; valid are 7, or 0-99 for the first and the last") from None
    if not seeds:
        raise ArgumentTypeError(f"{text!r} has no seed in it; the first one comes first, as in {last}-{first}")
    return seeds


def parse_seed(text: str) -> range:
    """One seed.

    Raises:
        ArgumentTypeError: it is something else.
    """
    seed = number(0, SEED_MAX)(text)
    return range(seed, seed + 1)


def parse_steps(text: str) -> frozenset[int]:
    """The numbers of steps, such as `3,7-9`, or `none`.

    Raises:
        ArgumentTypeError: it is something else.
    """
    try:
        return parse_numbers(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} are no steps; valid are such as 3,7-9, or none") from None
