"""A group's store as the node keeps it: opened when something needs it, and closed when idle."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from peersd.errors import PeersdError
from peersd.node.places import Places
from peersd.store.handle import StoreHandle
from peersd.sync.group_sync import GroupSync
from peersd_protocol.group_state import GroupState
from peersd_protocol.vectors import Vector

_log = logging.getLogger("peersd.node")

LOOK_S: Final = 1.0
"""Between two looks at whether a store is idle."""


def _closing() -> PeersdError:
    return PeersdError("busy", "The group is being closed.", hint="Try again once the daemon runs.", retry=True)


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long stores stay open.

    Attributes:
        idle_s: a store that nothing has needed for so long is closed (guess: longer than the pause between two beacons).
        open_max: how many stores are open at once, unless more are at work (see `places.Places`).
        patience_s: how long a store waits for one of these places (guess).
    """

    idle_s: float = 20.0
    open_max: int = 64
    patience_s: float = 2.0


@dataclass(frozen=True)
class Opened:
    """A group whose store is open.

    Attributes:
        store: its store.
        sync: its replication.
        first_vector, first_digest: what it held when it was opened.
    """

    store: StoreHandle
    sync: GroupSync
    first_vector: Vector
    first_digest: bytes

    @property
    def state(self) -> GroupState:
        """The group's acts, evaluated."""
        return self.store.state


class _Turning:
    """An opening or closing.

    Attributes:
        done: set when it has come to its end.
        failure: why the store could not be opened.
    """

    def __init__(self) -> None:
        self.done = trio.Event()
        self.failure: PeersdError | None = None


class StoreHost(Protocol):
    """What a group's store needs of the node."""

    is_stopping: bool
    keeping: Keeping
    places: Places

    def nursery(self) -> trio.Nursery:
        """Where open stores run."""
        ...


class Use:
    """A time for which a group's store is needed; a context. No generator, since each request of a client has one.

    Args:
        store: the group's.
    """

    __slots__ = ("_store",)

    def __init__(self, store: KeptStore) -> None:
        self._store = store

    async def __aenter__(self) -> Opened:
        self._store.note_use(1)
        try:
            return await self._store.open()
        except BaseException:
            self._store.note_use(-1)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._store.note_use(-1)


class KeptStore:
    """The store of one group.

    Args:
        host: the node.
        text_id: the group's id, for the log.
        open_store: opens the store for as long as its context lasts.

    Attributes:
        failure: the code of the error that kept the store from being opened last, or None.
        is_discarded: whether it was, or is being, closed for good.
        next_opening: set when the store is opened the next time; then there is another one.
    """

    def __init__(self, host: StoreHost, text_id: str, open_store: Callable[[], AbstractAsyncContextManager[Opened]]) -> None:
        self._host = host
        self._text_id = text_id
        self._open_store = open_store
        self.failure: str | None = None
        self.is_discarded = False
        self.next_opening = trio.Event()
        self._opened: Opened | None = None
        self._turning: _Turning | None = None
        """The opening or closing that is under way."""
        self._close_asked = trio.Event()
        self._sleep_asked = False
        self._closing = trio.Event()
        self._uses = 0
        self._last_use_s = 0.0

    @property
    def opened(self) -> Opened | None:
        """The open store, if it is."""
        return self._opened

    @property
    def is_at_rest(self) -> bool:
        """Whether the store is closed, and nothing opens or closes it."""
        return self._opened is None and self._turning is None

    @property
    def is_ending(self) -> bool:
        """Whether it is not opened any more: the node stops, or the file is to be deleted."""
        return self._host.is_stopping or self.is_discarded

    # --- Asking for it ----------------------------------------------------------------------------------------------------------

    def use(self) -> Use:
        """The store, open at least until the context is left.

        Raises:
            PeersdError: on entering; `store_corrupt` and others, if the file cannot be opened.
        """
        return Use(self)

    def note_use(self, change: int) -> None:
        """For Use: one begins, or one has ended."""
        self._uses += change
        if change < 0:
            self._last_use_s = trio.current_time()

    async def open(self) -> Opened:
        """Opens the store if it is not open; it is closed again when idle.

        Raises:
            PeersdError: `store_corrupt` and others.
        """
        while self._opened is None:
            if self.is_ending:
                raise _closing()
            if self._turning is None:
                self._turning = _Turning()
                # In a task of its own: others may wait for it when who asked first is cancelled.
                self._host.nursery().start_soon(self._run)
            turning = self._turning
            await turning.done.wait()
            if turning.failure is not None:
                error = turning.failure
                raise PeersdError(error.code, error.message, hint=error.hint, retry=error.retry) from error
        return self._opened

    async def close(self, *, for_good: bool = False) -> None:
        """Closes the store now, and ends its sessions; `for_good` if its file is to be deleted."""
        self.is_discarded |= for_good
        while not self.is_at_rest:
            self._sleep_asked = False
            self._close_asked.set()
            if self._turning is not None:
                await self._turning.done.wait()
            else:
                await self._closing.wait()

    async def settled(self) -> None:
        """Returns when nothing opens or closes the store."""
        while self._turning is not None:
            await self._turning.done.wait()

    @property
    def idle_since_s(self) -> float | None:
        """Since when nothing has needed the open store, on trio's clock; None if it is closed, needed, or about to close."""
        is_idle = self._opened is not None and not self._close_asked.is_set() and self._is_idle(self._opened)
        return self._last_use_s if is_idle else None

    def sleep(self) -> None:
        """Closes the store now, unless something needs it by then."""
        self._sleep_asked = True
        self._close_asked.set()

    # --- While it is open -------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Takes a place for the store, keeps it open while it is needed, and closes it."""
        try:
            await self._host.places.take()
        except BaseException:  # cancelled: who deletes the file waits for the end of this, whatever cancels the node
            self._turned(_closing())
            raise
        try:
            await self._run_store()
        finally:
            self._host.places.give()

    async def _run_store(self) -> None:
        """Opens the store, keeps it open while it is needed, and closes it."""
        was_open = False
        failure: PeersdError | None = None
        try:
            async with self._open_store() as opened:
                was_open = True
                await self._stay_open(opened)
        except PeersdError as error:
            failure = error
        finally:
            if failure is not None:
                self._note_failure(failure, was_open=was_open)
            self._turned(None if was_open else failure)

    async def _stay_open(self, opened: Opened) -> None:
        """Lets others use the store until it is idle, or to be closed."""
        self._opened, self.failure = opened, None
        self._close_asked, self._closing = trio.Event(), trio.Event()
        self.next_opening.set()
        self.next_opening = trio.Event()
        self._turned()
        try:
            if await self._wait_idle(opened):
                opened.sync.suspend()
            else:
                opened.sync.end_sessions()
        finally:
            # From here on whoever needs the store waits until it is closed, and opens it again.
            self._turning, self._opened = _Turning(), None
            self._closing.set()

    def _is_idle(self, opened: Opened) -> bool:
        return not self._uses and opened.sync.may_sleep

    async def _wait_idle(self, opened: Opened) -> bool:
        """Waits until nothing has needed the store for a while; False if it is to be closed at once."""
        self._last_use_s = trio.current_time()
        while True:
            idle_s = self._host.keeping.idle_s
            with trio.move_on_after(min(LOOK_S, idle_s)):
                await self._close_asked.wait()
            is_due = self._sleep_asked or self._host.places.is_overfull
            if self._close_asked.is_set() and not self._sleep_asked:
                return False
            if not self._is_idle(opened):
                self._last_use_s = trio.current_time()
            elif is_due or trio.current_time() - self._last_use_s >= idle_s:
                return True
            if self._sleep_asked:
                self._sleep_asked, self._close_asked = False, trio.Event()

    # --- The end of an opening or closing ---------------------------------------------------------------------------------------

    def _turned(self, failure: PeersdError | None = None) -> None:
        """The opening or closing that was under way has come to its end."""
        assert self._turning is not None
        turning, self._turning = self._turning, None
        turning.failure = failure
        turning.done.set()

    def _note_failure(self, failure: PeersdError, *, was_open: bool) -> None:
        """The file could not be opened, or not be closed in good order: then the next look into it finds out."""
        fields = {"group": self._text_id, "reason": failure.message}
        if was_open:
            _log.warning("group_not_closed", extra={"fields": fields})
            return
        if self.failure is None:
            _log.log(logging.WARNING if failure.retry else logging.ERROR, "group_not_opened", extra={"fields": fields})
        self.failure = failure.code
