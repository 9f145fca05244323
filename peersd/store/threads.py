"""Where blocking calls run, and the clock they are given time by: worker threads, or whatever stands in for them (DESIGN 2)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeAlias, TypeVar, cast

import trio

T = TypeVar("T")


class Threads(Protocol):
    """Runs blocking calls, such as SQLite's, beside the event loop.

    Under a virtual clock real threads cannot be used: it jumps while they work.
    """

    async def run(self, call: Callable[..., T], *args: object, limiter: Limiter | None = None) -> T:
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


class Turns:
    """One after another, in the order of asking: a limiter of one, which unlike trio's costs no wait where nobody is before."""

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Waits for the turn; see trio.CapacityLimiter."""
        if self._is_taken:
            await self._waiting.park()  # who ends its turn leaves it taken for this one
        self._is_taken = True

    def release_on_behalf_of(self, borrower: object) -> None:
        """Ends the turn; see trio.CapacityLimiter."""
        if self._waiting:
            self._waiting.unpark()
        else:
            self._is_taken = False

    async def __aenter__(self) -> None:
        await self.acquire_on_behalf_of(self)

    async def __aexit__(self, *error: object) -> None:
        self.release_on_behalf_of(self)


Limiter: TypeAlias = trio.CapacityLimiter | Turns


class WorkerThreads:
    """Trio's worker threads."""

    async def run(self, call: Callable[..., T], *args: object, limiter: Limiter | None = None) -> T:
        """See Threads."""
        # Documented to take anything that is like its own limiter.
        return await trio.to_thread.run_sync(call, *args, limiter=cast("trio.CapacityLimiter | None", limiter))

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
