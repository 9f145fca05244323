"""Stamps: SPEC, part T."""

from __future__ import annotations

from typing import Any

Pair = tuple[int, int]

VALID: dict[str, tuple[Pair, Pair]] = {
    "the first of all": ((0, 0), (1, 0)),
    "the clock is ahead": ((1_700_000_000_000, 5), (1_700_000_000_001, 0)),
    "far ahead": ((5, 5), (2**42 - 1, 0)),
    "counted": ((1_700_000_000_000, 5), (1_700_000_000_000, 6)),
    "the last count": ((7, 65_534), (7, 65_535)),
    "after the last count": ((7, 65_535), (8, 0)),
    "counted beyond 2^42": ((2**42, 9), (2**42, 10)),
    "after the last count beyond 2^42": ((2**42, 65_535), (2**42 + 1, 0)),
    "the first counted": ((0, 0), (0, 1)),
}

INVALID: dict[str, tuple[Pair, Pair]] = {
    "the same": ((7, 3), (7, 3)),
    "earlier": ((7, 3), (6, 0)),
    "a count left out": ((7, 3), (7, 5)),
    "the count of before": ((7, 3), (7, 2)),
    "a later time with a count": ((7, 3), (8, 1)),
    "the same time without a count": ((7, 3), (7, 0)),
    "a jump to 2^42": ((7, 3), (2**42, 0)),
    "a jump beyond 2^42": ((2**42, 3), (2**42 + 1, 0)),
    "nothing after nothing": ((0, 0), (0, 0)),
    "not the next after the last count beyond 2^42": ((2**42, 65_535), (2**42 + 2, 0)),
}


def make() -> dict[str, Any]:
    return {
        "description": (
            "[milliseconds, counter]: whether `stamp` may follow, `before` being the greatest stamp among prev and deps, [0, 0] "
            "without any."
        ),
        "valid": [{"why": why, "before": list(before), "stamp": list(stamp)} for why, (before, stamp) in VALID.items()],
        "invalid": [
            {"why": why, "before": list(before), "stamp": list(stamp), "error": "BAD_CHAIN"}
            for why, (before, stamp) in INVALID.items()
        ],
    }
