"""Where blocking calls run, and the clock they are given time by: worker threads, or whatever stands in for them (DESIGN 2)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar, cast

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

    def start(self, done: Callable[[Called[T]], None], call: Callable[..., T], *args: object) -> None:
        """Begins `call(*args)` and returns; for who bounds by itself how many run.

        Args:
            done: called on the event loop, later, with what came of it; raises nothing, since nobody would be told.
            call: what blocks.
            args: for it.
        """
        ...

    def start_late(self, done: Callable[[Called[T]], None], call: Callable[..., T], *args: object) -> None:
        """As `start`, once the event loop has nothing else to do, and at its second turn from now at the latest.

        For a call that takes along what the turn brings: many clients' requests are one commit then. And a loop that sleeps as
        the thread wakes does not hold it up: both need Python's lock.
        """
        ...

    def is_abandoned(self) -> bool:
        """Asked from within a call: whether the task that waits for it was cancelled, and waits for nothing but its end."""
        ...

    def clock_s(self) -> float:
        """Seconds of a monotonic clock, by which statements are given time; may be called in any thread."""
        ...


class Called(Generic[T]):
    """A blocking call, and what came of it.

    Args:
        call: what blocks.
        args: for it.

    Attributes:
        error: what it raised, or None.
        is_abandoned: whether nobody but its end is waited for.
    """

    __slots__ = ("_args", "_call", "_result", "error", "is_abandoned")

    def __init__(self, call: Callable[..., T], args: tuple[object, ...]) -> None:
        self._call = call
        self._args = args
        self._result: T | None = None
        self.error: BaseException | None = None
        self.is_abandoned = False

    def run(self) -> None:
        """Makes the call; raises nothing."""
        try:
            self._result = self._call(*self._args)
        except BaseException as error:  # noqa: BLE001 - raised again by who asks for the result
            self.error = error

    def result(self) -> T:
        """What the call returned; raises what it raised."""
        if self.error is not None:
            try:
                raise self.error
            finally:
                self.error = None  # its traceback holds this frame: no cycle that only the collector ends
        return cast("T", self._result)


class _Lull(trio.abc.Instrument):
    """Makes calls when the event loop has nothing else to do, or at its second turn."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self._is_second = False

    def before_io_wait(self, timeout: float) -> None:
        """For trio: the loop is about to sleep, or only looks for what has come if the timeout is 0."""
        if self.calls:
            if timeout > 0 or self._is_second:
                calls, self.calls, self._is_second = self.calls, [], False
                for call in calls:
                    call()
            else:
                self._is_second = True


_current = threading.local()
_lull: trio.lowlevel.RunVar[_Lull] = trio.lowlevel.RunVar("lull")


class WorkerThreads:
    """Trio's worker threads, by the plain call that makes no promise of contexts and names (ADR 0023)."""

    async def run(self, call: Callable[..., T], *args: object, limiter: trio.CapacityLimiter | None = None) -> T:
        """See Threads."""
        async with limiter or trio.to_thread.current_default_thread_limiter():
            task = trio.lowlevel.current_task()
            called = Called(call, args)
            self._start(called, lambda _: trio.lowlevel.reschedule(task))

            def abandon(_: Any) -> trio.lowlevel.Abort:
                called.is_abandoned = True
                return trio.lowlevel.Abort.FAILED

            await trio.lowlevel.wait_task_rescheduled(abandon)
            return called.result()

    def start(self, done: Callable[[Called[T]], None], call: Callable[..., T], *args: object) -> None:
        """See Threads."""
        self._start(Called(call, args), done)

    def start_late(self, done: Callable[[Called[T]], None], call: Callable[..., T], *args: object) -> None:
        """See Threads."""
        try:
            lull = _lull.get()
        except LookupError:
            lull = _Lull()
            _lull.set(lull)
            trio.lowlevel.add_instrument(lull)
        lull.calls.append(lambda: self.start(done, call, *args))

    def _start(self, called: Called[T], done: Callable[[Called[T]], None]) -> None:
        token = trio.lowlevel.current_trio_token()

        def run() -> None:
            _current.called = called
            called.run()
            del _current.called

        def deliver(_: object) -> None:
            # If the event loop has ended, so has whoever waited.
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(done, called)

        try:
            trio.lowlevel.start_thread_soon(run, deliver)
        except RuntimeError as error:  # the system has no thread left
            called.error = error
            token.run_sync_soon(done, called)

    def is_abandoned(self) -> bool:
        """See Threads."""
        called: Called[Any] = _current.called
        return called.is_abandoned

    def clock_s(self) -> float:
        """See Threads."""
        return time.monotonic()
