"""What a command gives back: the answer for --json, and the words for people; and how both are written."""

from __future__ import annotations

import os
import sys
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


def write_text(text: str) -> bool:
    """Write to standard output now.

    Returns:
        Whether anybody still reads there.
    """
    try:
        # Bytes, so that neither the locale nor a lone surrogate can fail what the daemon has answered.
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # The reader (head, less) has enough. Python would complain once more when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True
