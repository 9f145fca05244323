"""The events of one subscription, as the client's program takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Protocol

import trio

from peersd.client.errors import PeersError

EVENTS_WAITING_MAX: Final = 1024
"""Events that wait for the program; beyond, the newest are lost and counted (as many as the daemon keeps)."""


UNSUBSCRIBE_S: Final = 5.0
"""A daemon that does not answer must not hold up a program that leaves (guess)."""


class Subscriber(Protocol):
    """The connection as its subscriptions use it; `peersd.client.connection.Connection` is one."""

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """The result of one call."""
        ...

    def events_of(self, subscription: int) -> EventQueue:
        """Where the notifications of a subscription are put, those too that came before this call."""
        ...

    def forget(self, subscription: int) -> None:
        """The subscription has ended; what was not taken is dropped."""
        ...


class EventQueue:
    """Events between the connection and the program. The connection never waits for the program, whose calls it carries too."""

    def __init__(self) -> None:
        self._waiting: deque[dict[str, Any]] = deque()
        self._lost = 0
        self._ended: PeersError | None = None
        self._closed = False
        self._changed = trio.Event()

    def put(self, event: dict[str, Any]) -> None:
        """Queue an event, or count it as lost."""
        # Until what is lost has been told, all that comes is lost: so the gap is one and stands where it was.
        if self._lost or len(self._waiting) >= EVENTS_WAITING_MAX:
            self._lost += 1
        else:
            self._waiting.append(event)
        self._changed.set()

    def end(self, reason: PeersError) -> None:
        """No more events come, for this reason."""
        if self._ended is None:
            self._ended = reason
        self._changed.set()

    def close(self) -> None:
        """The program wants no more: who waits in `take` gets None."""
        self._closed = True
        self._changed.set()

    async def take(self) -> dict[str, Any] | None:
        """The next event, or None after `close`.

        Raises:
            PeersError: the reason of the end, after the last event.
        """
        await trio.lowlevel.checkpoint()
        while not (self._waiting or self._lost or self._ended or self._closed):
            self._changed = trio.Event()
            await self._changed.wait()
        if self._closed:
            return None
        if self._waiting:
            return self._waiting.popleft()
        if self._lost:
            lost, self._lost = self._lost, 0
            now = datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
            return {"kind": "alarm", "at": now, "alarm": "events_lost", "lost": lost}
        assert self._ended is not None
        raise self._ended


class EventStream(AsyncIterator[dict[str, Any]]):
    """A subscription: `async for event in peers.events()`; made by `Peers.events`.

    It subscribes when `async with` enters it, else at the first event asked for, and ends with the connection, with the
    `async with`, or with `aclose`. Leaving the loop alone does not end it.

    A program that takes events more slowly than they come loses some and is told by an event
    `{"kind": "alarm", "alarm": "events_lost", "lost": n, …}`; its other calls go on meanwhile.
    """

    def __init__(self, connection: Subscriber, kinds: list[str] | None) -> None:
        self._connection = connection
        self._kinds = kinds
        self._subscription: int | None = None
        self._closed = False

    async def __aenter__(self) -> EventStream:
        """Subscribe: what happens from now on is told."""
        await self._subscribe()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        """End the subscription."""
        await self.aclose()

    def __aiter__(self) -> EventStream:
        """Itself."""
        return self

    async def __anext__(self) -> dict[str, Any]:
        """The next event: `kind`, `at`, and what its kind carries.

        Raises:
            StopAsyncIteration: after `aclose`, also while it waits.
            PeersError: the daemon refused the subscription, such as for an unknown kind.
            NoDaemon: the connection ended.
        """
        if self._closed:
            raise StopAsyncIteration
        event = await self._connection.events_of(await self._subscribe()).take()
        if event is None:
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        """End the subscription; may be called again, and after the connection's end."""
        if self._closed:
            return
        self._closed = True
        if self._subscription is None:
            return
        self._connection.events_of(self._subscription).close()
        try:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + UNSUBSCRIBE_S):
                await self._connection.call("events.unsubscribe", {"subscription": self._subscription})
        except PeersError:
            # It ended with the connection.
            return
        finally:
            self._connection.forget(self._subscription)

    async def _subscribe(self) -> int:
        if self._subscription is None:
            params = {} if self._kinds is None else {"kinds": self._kinds}
            answer = await self._connection.call("events.subscribe", params)
            self._subscription = int(answer["subscription"])
        return self._subscription
