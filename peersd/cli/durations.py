"""Durations as people write them: 7d, 12h, 30m, 45s, 1h30m; a bare number counts seconds."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Final

UNITS_S: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}

_FORM: Final = re.compile(r"(?:\d+[wdhms])+", re.ASCII)
_PART: Final = re.compile(r"(\d+)([wdhms])", re.ASCII)


def parse_duration_s(text: str) -> int:
    """Whole seconds, at least 1; made for argparse.

    Raises:
        argparse.ArgumentTypeError: not a duration.
    """
    written = text.strip().lower()
    if written.isascii() and written.isdigit():
        seconds = int(written[:18])
    elif _FORM.fullmatch(written):
        seconds = sum(int(number[:18]) * UNITS_S[unit] for number, unit in _PART.findall(written))
    else:
        seconds = 0
    if seconds < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 7d, 12h, 30m or 1h30m")
    return seconds


def duration_up_to(longest: str) -> Callable[[str], int]:
    """A parser of durations, made for argparse, that takes none above `longest`."""
    seconds_max = parse_duration_s(longest)

    def parse(text: str) -> int:
        seconds = parse_duration_s(text)
        if seconds > seconds_max:
            raise argparse.ArgumentTypeError(f"{text!r} is too long; at most {longest}")
        return seconds

    return parse
