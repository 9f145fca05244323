"""What nodes say of themselves in their logs: errors, and that an honest device was taken for one that breaks rules."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from peersd.testing.simulator.checkers import Checker, Finding
from peersd_protocol.errors import CloseCode

IS_HOSTILE: Final = ContextVar("is_hostile", default=False)
"""Set in the tasks that speak for hostile devices: what these log is nobody's fault."""

_REFUSING: Final = frozenset(("session closed for a fault of the remote side", "alarm", "redemption_refused"))

_LINK_FAULTS: Final = frozenset(
    code.name.lower() for code in CloseCode if code.is_fault_of_other and code is not CloseCode.HANDSHAKE
)
"""Codes of a link that an honest device never causes. A handshake also fails where another device has come to an address."""


@contextmanager
def errors_noted(note: Callable[[Finding], None], hostile: Collection[str]) -> Generator[None]:
    """Notes what is logged meanwhile that must not be.

    Args:
        note: called with each finding.
        hostile: the ids, as logs have them, of devices that break rules on purpose; it may grow.
    """
    logger, links = logging.getLogger("peersd"), logging.getLogger("peersd.net")
    handler, ends = _Noting(note, hostile), _LinkEnds(note, hostile, links.getEffectiveLevel())
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

    def __init__(self, note: Callable[[Finding], None], hostile: Collection[str]) -> None:
        super().__init__(logging.WARNING)
        self._note = note
        self._hostile = hostile

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        if IS_HOSTILE.get():
            return
        reason = f": {record.exc_info[1]!r}" if record.exc_info else ""
        text = f"logged: {record.getMessage()} {getattr(record, 'fields', '')}{reason}"
        if record.levelno >= logging.ERROR:
            self._note(Finding(Checker.LOGS, text, is_raised=bool(record.exc_info)))
        elif record.getMessage() in _REFUSING and _device_in(record) not in self._hostile:
            self._note(Finding(Checker.HONEST_REFUSED, text))


class _LinkEnds(logging.Filter):
    """Notes links that ended for a fault of one side; they are logged at a level that nobody else has asked for.

    Args:
        note: called with each finding.
        hostile: see errors_noted.
        level: from which on lines are let through.
    """

    def __init__(self, note: Callable[[Finding], None], hostile: Collection[str], level: int) -> None:
        super().__init__()
        self._note = note
        self._hostile = hostile
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        fields: Mapping[str, object] = getattr(record, "fields", {})
        if record.getMessage() == "link_down" and fields.get("code") in _LINK_FAULTS and not IS_HOSTILE.get():
            device = _device_in(record)
            if device and device not in self._hostile:  # who has not shown who it is may be anybody
                self._note(Finding(Checker.HONEST_REFUSED, f"logged: link_down {fields}"))
        return record.levelno >= self._level


def _device_in(record: logging.LogRecord) -> str:
    """The device that a line speaks of; empty if it names none."""
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return str(fields.get("device", ""))
