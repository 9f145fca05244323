"""What stands in for a machine in a swarm: virtual clocks, calls in place of threads, and the order in which tasks run."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import trio
import trio.testing

from peersd.store.threads import Called

T = TypeVar("T")

EPOCH_MS: Final = 1_767_225_600_000
"""What a right clock shows when a swarm begins: 2026-01-01 in UTC, so that runs on different days are the same."""

CALL_MS: Final = (0.05, 1.0)
"""Least and greatest virtual time of a call to a store: about what an fsync takes on an SSD (measured, scripts/bench)."""


def virtual_clock() -> trio.testing.MockClock:
    """A clock that stands still while anybody works and jumps on as soon as everybody waits."""
    return trio.testing.MockClock(autojump_threshold=0)


def run_virtually(main: Callable[..., Awaitable[T]], *args: object) -> T:
    """Runs a trio program under a virtual clock; for programs that use a swarm."""
    return trio.run(main, *args, clock=virtual_clock())


def check_clock() -> None:
    """Refuses a clock under which a swarm would run in real time, or not at all.

    Raises:
        RuntimeError: it is not a MockClock that jumps.
    """
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, trio.testing.MockClock) or clock.autojump_threshold != 0:
        raise RuntimeError(
            "A swarm needs a virtual clock: take pytest-trio's fixture autojump_clock, or peersd.testing.swarm.run_virtually."
        )


@contextmanager
def schedule_by_seed(seed: int) -> Generator[None]:
    """Has trio choose by the seed which of several tasks runs first; without, no run could be repeated.

    Trio orders tasks by chance on purpose and has no public way to seed it. Its two private names used here are those by which it
    makes itself repeatable for Hypothesis (`trio._core._run._hypothesis_plugin_setup`).
    """
    run: Any = trio._core._run  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    before, state = run._ALLOW_DETERMINISTIC_SCHEDULING, run._r.getstate()
    run._ALLOW_DETERMINISTIC_SCHEDULING = True
    run._r.seed(seed)
    try:
        yield
    finally:
        run._ALLOW_DETERMINISTIC_SCHEDULING = before
        run._r.setstate(state)


class VirtualThreads:
    """Runs blocking calls at once, each for a virtual moment; see peersd.store.threads.Threads.

    A virtual clock would jump while a real thread works. The moment lets other tasks in between a call's end and who waits for
    it, as threads do.

    Args:
        draw: draws the moments.
    """

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._began_s: float | None = None

    async def run(self, call: Callable[..., T], *args: object, limiter: trio.CapacityLimiter | None = None) -> T:
        """See Threads."""
        if limiter is None:
            return await self._run(call, args)
        async with limiter:
            return await self._run(call, args)

    def start(self, done: Callable[[Called[T]], None], call: Callable[..., T], *args: object) -> None:
        """See Threads."""
        called = Called(call, args)

        async def run() -> None:
            await self._run(called.run, ())
            done(called)

        trio.lowlevel.spawn_system_task(run)

    def start_late(self, done: Callable[[Called[T]], None], call: Callable[..., T], *args: object) -> None:
        """See Threads."""
        self.start(done, call, *args)

    async def _run(self, call: Callable[..., T], args: tuple[object, ...]) -> T:
        await trio.lowlevel.checkpoint()
        self._began_s = time.monotonic()
        try:
            return call(*args)
        finally:
            self._began_s = None
            with trio.CancelScope(shield=True):
                await trio.sleep(self._draw.uniform(*CALL_MS) / 1000)

    def is_abandoned(self) -> bool:
        """See Threads. While a call runs nothing else does."""
        return False

    def clock_s(self) -> float:
        """See Threads: the virtual time, and within a call the real time that it has taken, so that a runaway statement ends."""
        real_s = 0.0 if self._began_s is None else time.monotonic() - self._began_s
        return trio.current_time() + real_s


class VirtualClock:
    """A device's wall clock.

    Attributes:
        skew_ms: how far it is ahead of the right time.
    """

    def __init__(self) -> None:
        self._start_s = trio.current_time()
        self.skew_ms = 0

    def now_ms(self) -> int:
        """Milliseconds since 1970, as the device has them."""
        return EPOCH_MS + self.skew_ms + int((trio.current_time() - self._start_s) * 1000)
