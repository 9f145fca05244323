"""Where blocking calls run, and the clock they are given time by: worker threads, or whatever stands in for them (DESIGN 2)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import trio

T = TypeVar("T")


class Threads(Protocol):
    """Runs blocking calls, such as SQLite's, beside the event loop.

    Under a virtual clock real threads cannot be used: it jumps while they work.
    """

    async def run(self, call: Callable[..., T], *args: object, limiter: trio.CapacityLimiter | None = None) -> T:
        """Runs `call(*args)` and returns what it returns; other tasks may run meanwhile. A call that has begun comes to its end.

        Args:
            call: what blocks.
            args: for it.
            limiter: bounds how many such calls run at once; None for a bound of all.
        """
        ...

    def is_abandoned(self) -> bool:
        """Asked from within a call: whether the task that waits for it was cancelled, and waits for nothing but its end."""
        ...

    def clock_s(self) -> float:
        """Seconds of a monotonic clock, by which statements are given time; may be called in any thread."""
        ...


class WorkerThreads:
    """Trio's worker threads."""

    async def run(self, call: Callable[..., T], *args: object, limiter: trio.CapacityLimiter | None = None) -> T:
        """See Threads."""
        return await trio.to_thread.run_sync(call, *args, limiter=limiter)

    def is_abandoned(self) -> bool:
        """See Threads."""
        try:
            trio.from_thread.check_cancelled()
        except trio.Cancelled:
            return True
        return False

    def clock_s(self) -> float:
        """See Threads."""
        return time.monotonic()
