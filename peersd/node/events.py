"""What happens on this node, told to whoever subscribed (API: events.subscribe)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import trio

from peersd.node.naming import format_time

KINDS: Final = frozenset(("link_up", "link_down", "group_joined", "group_left", "member_changed", "rows_changed", "alarm"))

WAITING_MAX: Final = 1024
"""Events that wait for a subscriber who does not take them; beyond, the oldest are lost and counted (guess: seconds of a busy
daemon, under 1 MiB)."""


class EventStream:
    """The events of one subscriber, from when it was opened on.

    Args:
        hub: where it came from.
        kinds: those wanted.
    """

    def __init__(self, hub: Events, kinds: frozenset[str]) -> None:
        self.kinds = kinds
        self._hub = hub
        self._lost = 0
        self._waiting: dict[object, Mapping[str, Any]] = {}
        self._numbers = 0
        self._changed = trio.Event()

    def push(self, event: Mapping[str, Any], merge_key: object | None) -> None:
        """Queues an event; it takes the place of one with the same merge key that was not taken yet."""
        self._numbers += 1
        if merge_key is not None:
            self._waiting.pop(merge_key, None)
        self._waiting[self._numbers if merge_key is None else merge_key] = event
        if len(self._waiting) > WAITING_MAX:
            del self._waiting[next(iter(self._waiting))]
            self._lost += 1
        self._changed.set()

    async def receive(self) -> Mapping[str, Any]:
        """Waits for the next event."""
        await trio.lowlevel.checkpoint()
        while not self._waiting and not self._lost:
            self._changed = trio.Event()
            await self._changed.wait()
        if self._lost:
            lost, self._lost = self._lost, 0
            return {"kind": "alarm", "at": self._hub.now(), "alarm": "events_lost", "lost": lost}
        return self._waiting.pop(next(iter(self._waiting)))

    def close(self) -> None:
        """Ends the subscription; may be called again."""
        self._hub.streams.discard(self)


class Events:
    """All subscriptions of a node.

    Args:
        wall_ms: the clock of `at`.
    """

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        self._wall_ms = wall_ms
        self.streams: set[EventStream] = set()

    def now(self) -> str:
        """The time as events state it."""
        return format_time(self._wall_ms()) or ""

    def open(self, kinds: frozenset[str] | None) -> EventStream:
        """A new subscription; None for all kinds."""
        stream = EventStream(self, KINDS if kinds is None else kinds)
        self.streams.add(stream)
        return stream

    def publish(self, kind: str, *, merge_key: object | None = None, **fields: object) -> None:
        """Tells all who subscribed to this kind.

        Args:
            kind: one of KINDS.
            merge_key: where given, an event with the same key that waits is replaced: a hundred commits are one `rows_changed`.
            fields: what the event says besides.
        """
        assert kind in KINDS
        if not self.streams:
            return
        event = {"kind": kind, "at": self.now(), **fields}
        for stream in self.streams:
            if kind in stream.kinds:
                stream.push(event, None if merge_key is None else (kind, merge_key))
