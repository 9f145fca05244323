"""What a command gives back: the answer for --json, and the words for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class UsageError(Exception):
    """The command line cannot be meant; exit status 2."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a command prints.

    Args:
        answer: the API's answer, for --json.
        text: for standard output without --json, ending with a newline; hostile text in it is escaped.
        note: for standard error without --json, so that it does not get into what a script reads.
    """

    answer: Any
    text: str
    note: str = ""
