"""The hybrid logical clock: 48 bits of milliseconds, 16 bits of counter, packed into one integer (SPEC: T-1 to T-4, DESIGN 7).

Validity is checked from the log alone: no local clock is consulted, and every valid stamp has a valid successor.
"""

from __future__ import annotations

from collections.abc import Iterable

COUNTER_MAX = 0xFFFF
MS_MAX = 1 << 42
"""A stamp that jumps ahead must stay below this (the year 2109); only counting up may pass it."""


def pack(ms: int, counter: int) -> int:
    """Packs milliseconds since 1970 and a counter of 0 to 65,535."""
    return (ms << 16) | counter


def unpack(stamp: int) -> tuple[int, int]:
    """Splits a stamp into (milliseconds, counter)."""
    return stamp >> 16, stamp & COUNTER_MAX


def is_valid_successor(stamp: int, greatest_before: int) -> bool:
    """Whether `stamp` may follow, `greatest_before` being the greatest stamp among prev and deps (0 if there are none)."""
    return are_valid_successors((stamp,), greatest_before)


def are_valid_successors(stamps: Iterable[int], greatest_before: int) -> bool:
    """Whether stamps may follow one another, and the first of them `greatest_before`."""
    before = greatest_before
    for stamp in stamps:
        if not (stamp & COUNTER_MAX == 0 and before >> 16 < stamp >> 16 < MS_MAX):
            successor = before + 1 if before & COUNTER_MAX < COUNTER_MAX else pack((before >> 16) + 1, 0)
            if stamp != successor:
                return False
        before = stamp
    return True


def next_stamp(greatest_before: int, wall_ms: int) -> int:
    """The stamp an honest device gives its next entry: its wall clock if that is ahead, else the next count."""
    ms_before, counter_before = unpack(greatest_before)
    if ms_before < wall_ms < MS_MAX:
        return pack(wall_ms, 0)
    if counter_before < COUNTER_MAX:
        return greatest_before + 1
    return pack(ms_before + 1, 0)
