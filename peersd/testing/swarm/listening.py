"""What nodes say of themselves in their logs: errors, and that an honest device was taken for one that breaks rules."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Protocol

from peersd.testing.checkers import Checker, Finding
from peersd_protocol.errors import CloseCode

SPEAKER: Final = ContextVar("speaker", default="")
"""The device that a task runs for, by its name."""

_REFUSING: Final = frozenset(("session closed for a fault of the remote side", "alarm", "redemption_refused", "plea_refused"))

_LINK_FAULTS: Final = frozenset(
    code.name.lower() for code in CloseCode if code.is_fault_of_other and code is not CloseCode.HANDSHAKE
)
"""Codes of a link that an honest device never causes. A handshake also fails where another device has come to an address."""


class Listener(Protocol):
    """Who is told."""

    def note(self, finding: Finding) -> None:
        """Something was logged that must not be."""
        ...

    def excuses(self, name: str) -> bool:
        """Whether a device of this name, empty for none, may log errors: its disk failed, or it is hostile."""
        ...

    def is_hostile(self, device_id: str) -> bool:
        """Whether a device, by its id as logs have it, breaks rules on purpose."""
        ...


@contextmanager
def errors_noted(listener: Listener) -> Generator[None]:
    """Notes what is logged meanwhile that must not be."""
    logger, links = logging.getLogger("peersd"), logging.getLogger("peersd.net")
    handler, ends = _Noting(listener), _LinkEnds(listener, links.getEffectiveLevel())
    level = links.level
    logger.addHandler(handler)
    links.addFilter(ends)
    links.setLevel(min(logging.INFO, links.getEffectiveLevel()))
    try:
        yield
    finally:
        links.setLevel(level)
        links.removeFilter(ends)
        logger.removeHandler(handler)


class _Noting(logging.Handler):
    """Notes errors, and sessions that were closed for a fault of the other side."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(logging.WARNING)
        self._listener = listener

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        reason = f": {record.exc_info[1]!r}" if record.exc_info else ""
        text = f"{SPEAKER.get()} logged: {record.getMessage()} {getattr(record, 'fields', '')}{reason}"
        if self._listener.excuses(SPEAKER.get()):
            return
        if record.levelno >= logging.ERROR:
            self._listener.note(Finding(Checker.LOGS, text.strip(), is_raised=bool(record.exc_info)))
        elif record.getMessage() in _REFUSING and not self._listener.is_hostile(_device_in(record)):
            self._listener.note(Finding(Checker.HONEST_REFUSED, text.strip()))


class _LinkEnds(logging.Filter):
    """Notes links that ended for a fault of one side; they are logged at a level that nobody else has asked for.

    Args:
        listener: is told.
        level: from which on lines are let through.
    """

    def __init__(self, listener: Listener, level: int) -> None:
        super().__init__()
        self._listener = listener
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        fields: Mapping[str, object] = getattr(record, "fields", {})
        if (
            record.getMessage() == "link_down"
            and fields.get("code") in _LINK_FAULTS
            and not self._listener.excuses(SPEAKER.get())
        ):
            device = _device_in(record)
            if device and not self._listener.is_hostile(device):  # who has not shown who it is may be anybody
                self._listener.note(Finding(Checker.HONEST_REFUSED, f"{SPEAKER.get()} logged: link_down {fields}"))
        return record.levelno >= self._level


def _device_in(record: logging.LogRecord) -> str:
    """The device that a line speaks of; empty if it names none."""
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return str(fields.get("device", ""))
