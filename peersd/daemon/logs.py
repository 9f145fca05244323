"""The log: one line an event on standard error, `time level event key=value …`, every value escaped, no secrets.

Callers log an event's few words and give its values as `extra={"fields": {…}}`. Values may come from remote parties: what is
not plain printable ASCII is escaped, so that no name can make a line of its own or speak to a terminal. Tickets, recovery
phrases, keys and SQL text are never logged.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Final, TextIO

VALUE_CHARACTERS_MAX: Final = 512
"""A value longer than this is cut (guess: a path fits)."""

TRACEBACK_CHARACTERS_MAX: Final = 16384
"""The end of a traceback, which says most, is what is kept."""

_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/+@,[]~")


def format_value(value: object, characters_max: int = VALUE_CHARACTERS_MAX) -> str:
    """A value as it stands in a line: bare when plain, else as a JSON string in ASCII."""
    text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    if len(text) > characters_max:
        text = text[:characters_max] + "…"
    if text and _PLAIN.issuperset(text):
        return text
    return json.dumps(text)


class LogfmtFormatter(logging.Formatter):
    """Formats a record as one line; its traceback, if any, becomes the value of `traceback`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without a newline."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        event = json.dumps(record.getMessage())[1:-1]
        parts = [f"{seconds}.{int(record.msecs):03d}Z", record.levelname.lower(), event]
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            parts += [f"{name}={format_value(value)}" for name, value in fields.items()]
        if record.exc_info:
            trace = self.formatException(record.exc_info)[-TRACEBACK_CHARACTERS_MAX:]
            parts.append("traceback=" + format_value(trace, TRACEBACK_CHARACTERS_MAX))
        return " ".join(parts)


def start_logging(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send our events from `level` up, and warnings of libraries, to `stream` (standard error when None)."""
    # A log that cannot be written (its reader has gone) must not stop the daemon.
    logging.raiseExceptions = False
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LogfmtFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("peersd").setLevel(level)
