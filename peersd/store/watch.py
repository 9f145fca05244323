"""The watch over one client statement: its deadline, SQLite's memory and what capture holds (DESIGN 12)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator

import apsw

from peersd.errors import PeersdError
from peersd.store import limits

Clock = Callable[[], float]
"""Seconds of a monotonic clock."""


@contextlib.contextmanager
def watch_statement(
    connection: apsw.Connection,
    deadline_s: float,
    *,
    clock: Clock = time.monotonic,
    held_bytes: Callable[[], int] | None = None,
    memory_bytes_max: int = limits.CLIENT_MEMORY_BYTES_MAX,
) -> Generator[None]:
    """Interrupts what runs within when it uses too much, and says why.

    An interrupted write can end the whole transaction; the caller looks at `in_transaction`.

    Args:
        connection: the connection that the statements run on.
        deadline_s: on `clock`.
        clock: injected in simulations.
        held_bytes: further memory to count, such as Capture's.
        memory_bytes_max: growth of `apsw.memory_used()` that ends the statement; SQLite has no bound of its own per connection.

    Raises:
        PeersdError: `timeout`, or `too_large`.
    """
    base_bytes = apsw.memory_used()
    reason: PeersdError | None = None

    def over() -> bool:
        nonlocal reason
        if clock() >= deadline_s:
            reason = timed_out()
        elif apsw.memory_used() - base_bytes > memory_bytes_max or (held_bytes is not None and held_bytes() > memory_bytes_max):
            reason = PeersdError(
                "too_large", "The statement needs too much memory.", hint="Split it, or ask for fewer rows at a time."
            )
        return reason is not None

    if clock() >= deadline_s:
        raise timed_out()
    connection.set_progress_handler(over, limits.PROGRESS_STEPS)
    try:
        yield
    except apsw.InterruptError as error:
        if reason is not None:
            raise reason from error
        raise
    finally:
        connection.set_progress_handler(None)


def timed_out() -> PeersdError:
    """The error for a deadline that passed."""
    return PeersdError(
        "timeout", "The statement took longer than it was given.", hint="Give it more time with timeout_s.", retry=True
    )
