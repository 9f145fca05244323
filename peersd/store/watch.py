"""The watch over one client statement: its deadline, SQLite's memory and what capture holds (DESIGN 12)."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

import apsw

from peersd.errors import PeersdError
from peersd.store import limits

Clock = Callable[[], float]
"""Seconds of a monotonic clock."""


class watch_statement:
    """Interrupts what runs within when it uses too much, and says why.

    An interrupted write can end the whole transaction; the caller looks at `in_transaction`.

    Args:
        connection: the connection that the statements run on.
        deadline_s: on `clock`.
        clock: injected in simulations.
        held_bytes: further memory to count, such as Capture's.
        memory_bytes_max: growth of `apsw.memory_used()` that ends the statement; SQLite has no bound of its own per connection.

    Raises:
        PeersdError: on entering and on leaving; `timeout`, or `too_large`.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        deadline_s: float,
        *,
        clock: Clock = time.monotonic,
        held_bytes: Callable[[], int] | None = None,
        memory_bytes_max: int = limits.CLIENT_MEMORY_BYTES_MAX,
    ) -> None:
        self._connection = connection
        self._deadline_s = deadline_s
        self._clock = clock
        self._held_bytes = held_bytes
        self._memory_bytes_max = memory_bytes_max
        self._base_bytes = apsw.memory_used()
        self._reason: PeersdError | None = None

    def __enter__(self) -> None:
        if self._clock() >= self._deadline_s:
            raise timed_out()
        self._connection.set_progress_handler(self._is_over, limits.PROGRESS_STEPS)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._connection.set_progress_handler(None)
        if self._reason is not None and isinstance(error, apsw.InterruptError):
            raise self._reason from error

    def _is_over(self) -> bool:
        if self._clock() >= self._deadline_s:
            self._reason = timed_out()
        elif apsw.memory_used() - self._base_bytes > self._memory_bytes_max or (
            self._held_bytes is not None and self._held_bytes() > self._memory_bytes_max
        ):
            self._reason = PeersdError(
                "too_large", "The statement needs too much memory.", hint="Split it, or ask for fewer rows at a time."
            )
        return self._reason is not None


def timed_out() -> PeersdError:
    """The error for a deadline that passed."""
    return PeersdError(
        "timeout", "The statement took longer than it was given.", hint="Give it more time with timeout_s.", retry=True
    )
