"""The paths of the virtual network and the wires on them: messages arrive in order, late, and no more than fit are under way."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

WINDOW_BYTES: Final = 1024 * 1024
"""Bytes of a wire that are sent and not yet read, before a sender waits: the buffers of both ends of a TCP connection (guess)."""

RETRANSMIT_MS: Final = 200.0
"""What a lost packet costs. Precedent: Linux' least retransmission timeout."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a path between two devices is like, in one direction.

    Attributes:
        latency_ms: least and greatest time that a message takes; drawn for each. Order is kept.
        bytes_per_s: what the path carries in all.
        loss: chance, from 0 to below 1, that a message has to be sent again; as with TCP none is missing, it only comes later.

    Raises:
        ValueError: there is no such network.
    """

    latency_ms: tuple[float, float] = (2.0, 20.0)
    bytes_per_s: float = 10e6
    loss: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.latency_ms[0] <= self.latency_ms[1]:
            raise ValueError(f"`latency_ms` is {self.latency_ms}; give the least and the greatest, from 0 on.")
        if not self.bytes_per_s > 0:
            raise ValueError(f"`bytes_per_s` is {self.bytes_per_s}; give more than 0, or part what nothing passes between.")
        if not 0 <= self.loss < 1:  # a message would be sent for ever, at one instant
            raise ValueError(f"`loss` is {self.loss}; give a chance from 0 to below 1, or part what nothing passes between.")


class Path:
    """The way from one host to another, for all their connections.

    Args:
        conditions: what it is like.
        seed: of its delays; each path draws its own, so that one does not disturb another.

    Attributes:
        is_blocked: packets do not arrive; they do once it is open again.
        is_clogged: packets arrive, and nobody reads them.
        wires: those that it matters to.
    """

    def __init__(self, conditions: Conditions, seed: str) -> None:
        self.conditions = conditions
        self.is_blocked = False
        self.is_clogged = False
        self.wires: dict[Wire, None] = {}
        self._changed = trio.Event()
        self._random = random.Random(seed)
        self._busy_until_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether what was sent arrives and is read."""
        return not self.is_blocked and not self.is_clogged

    def tell_changed(self) -> None:
        """To be called after a change of the attributes."""
        self._changed.set()
        self._changed = trio.Event()
        for wire in self.wires:
            wire.wake()

    def latency_s(self) -> float:
        """Draws how long the next message takes."""
        conditions = self.conditions
        latency_ms = self._random.uniform(*conditions.latency_ms)
        while conditions.loss and self._random.random() < conditions.loss:
            latency_ms += RETRANSMIT_MS
        return latency_ms / 1000

    def arrival_s(self, size: int) -> float:
        """Sends `size` bytes now; returns the virtual time at which they arrive."""
        self._busy_until_s = max(self._busy_until_s, trio.current_time()) + size / self.conditions.bytes_per_s
        return self._busy_until_s + self.latency_s()

    async def cross(self) -> None:
        """Returns when a packet sent now has arrived; one that does not get through is sent again until it does."""
        await trio.sleep(self.latency_s())
        while self.is_blocked:
            await self._changed.wait()


class Wire:
    """One direction of one connection; both ends of it.

    Args:
        path: where the messages go.
        back: where it is acknowledged that they were read: without that no more than fit are sent.
        read: called with the size of each message when it is read.
    """

    def __init__(self, path: Path, back: Path, read: Callable[[int], None]) -> None:
        self._path = path
        self._back = back
        self._read = read
        self._queue: deque[tuple[float, bytes | None]] = deque()
        self._last_arrival_s = 0.0
        self._unread_bytes = 0
        self._unacknowledged_bytes = 0
        self._is_severed = False
        self._is_broken = False
        self._is_ended = False
        self._is_deaf = False
        self._arrived = trio.Event()
        self._has_room = trio.Event()
        path.wires[self] = back.wires[self] = None

    @property
    def bytes_under_way(self) -> int:
        """Bytes that were sent and, as far as the sender can know, not read."""
        return self._unread_bytes + self._unacknowledged_bytes

    # --- The sender's end -------------------------------------------------------------------------------------------------------

    async def send(self, message: bytes, /) -> None:
        """Sends a message; waits while the window is full.

        Raises:
            trio.BrokenResourceError: the connection is gone.
        """
        await trio.lowlevel.checkpoint()
        while not self._is_broken and not self._is_ended and self._is_full(len(message)):
            self._has_room = trio.Event()
            await self._has_room.wait()
        if self._is_broken or self._is_ended:
            raise trio.BrokenResourceError("the connection is gone")
        if self._is_severed or not self._is_deaf:
            self._unread_bytes += len(message)
            self._put(self._path.arrival_s(len(message)), message)

    def _is_full(self, size: int) -> bool:
        if self._back.is_open:
            self._unacknowledged_bytes = 0
        # A message larger than the window goes when nothing else is under way.
        return bool(self.bytes_under_way) and self.bytes_under_way + size > WINDOW_BYTES

    def _put(self, arrival_s: float, message: bytes | None) -> None:
        self._last_arrival_s = max(self._last_arrival_s, arrival_s)
        self._queue.append((self._last_arrival_s, message))
        self._arrived.set()

    def end(self) -> None:
        """The sender has closed: what it sent arrives, and then the end."""
        if not self._is_ended and not self._is_broken:
            self._is_ended = True
            self._put(self._path.arrival_s(0), None)
            self._has_room.set()

    # --- The receiver's end -----------------------------------------------------------------------------------------------------

    async def receive(self) -> bytes:
        """The next message.

        Raises:
            trio.EndOfChannel: the sender has closed, or the connection is gone.
        """
        await trio.lowlevel.checkpoint()
        while not self._is_broken and not self._is_deaf:
            at_s = math.inf
            if self._queue and self._path.is_open and not self._is_severed:
                at_s, message = self._queue[0]
                if at_s <= trio.current_time():
                    if message is None:
                        break
                    self._queue.popleft()
                    self._note_read(len(message))
                    return message
            self._arrived = trio.Event()
            with trio.move_on_at(at_s):
                await self._arrived.wait()
        raise trio.EndOfChannel

    def _note_read(self, size: int) -> None:
        self._unread_bytes -= size
        self._unacknowledged_bytes = 0 if self._back.is_open else self._unacknowledged_bytes + size
        self._has_room.set()
        self._read(size)

    def stop_reading(self) -> None:
        """The receiver has closed: what is sent goes nowhere, which the sender learns from the end of the other direction."""
        self._is_deaf = True
        self._queue.clear()
        self._unread_bytes = self._unacknowledged_bytes = 0
        self.wake()

    # --- Both -------------------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """A path has changed: whoever waits looks again."""
        self._arrived.set()
        self._has_room.set()

    def close(self) -> None:
        """Both ends are done with it."""
        self._path.wires.pop(self, None)
        self._back.wires.pop(self, None)

    def break_(self) -> None:
        """Both ends learn at once that the connection is gone."""
        self._is_broken = True
        self.wake()

    def sever(self) -> None:
        """Nothing arrives any more, and nobody learns of it."""
        self._is_severed = True
