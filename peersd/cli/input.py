"""What a command reads: standard input, and files named on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

from peersd.cli.output import UsageError


def read_input(what: str, bytes_max: int) -> str:
    """Standard input as text.

    Raises:
        UsageError: too long, or not UTF-8.
    """
    content = sys.stdin.buffer.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise UsageError(f"the {what} on standard input is longer than {bytes_max} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"the {what} on standard input is not UTF-8") from None


def read_file(path: str, bytes_max: int) -> bytes:
    """A file's content; `-` is standard input.

    Raises:
        UsageError: too long, or it cannot be read.
    """
    try:
        if path == "-":
            content = sys.stdin.buffer.read(bytes_max + 1)
        else:
            with Path(path).open("rb") as file:
                content = file.read(bytes_max + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    if len(content) > bytes_max:
        raise UsageError(f"{path}: longer than {bytes_max} bytes")
    return content
