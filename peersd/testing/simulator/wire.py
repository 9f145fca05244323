"""A virtual message pipe between two devices: in order, delayed, held up by partitions, and lost with what is under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Protocol

from peersd.testing.simulator.schedule import Schedule


class Ether(Protocol):
    """What lies between the devices."""

    def delay_ms(self, sender: str, receiver: str) -> int:
        """By how much messages are slower now than the wire makes them."""
        ...

    def is_blocked(self, sender: str, receiver: str) -> bool:
        """Whether nothing comes through now, in this direction."""
        ...

    def when_open(self, event: Callable[[], None]) -> None:
        """Runs an event when something may come through again."""
        ...

    def note_sent(self, sender: str, receiver: str, sent: bytes) -> None:
        """A device sends something."""
        ...

    def note_noticed(self) -> None:
        """An end of a dead wire has noticed."""
        ...


class WireEnd:
    """One end. Its user sets `on_message` and `on_end`.

    Attributes:
        other: the other end.
        is_over: its user is done with it.
        is_lost: nothing that this end sends arrives any more.
    """

    def __init__(self, schedule: Schedule, ether: Ether, random: Random, names: tuple[str, str], latency_ms: int) -> None:
        self._schedule = schedule
        self._ether = ether
        self._random = random
        self._names = names
        self._latency_ms = latency_ms
        self._last_arrival_ms = 0
        self._under_way: deque[tuple[int, bytes | None]] = deque()  # None: it hangs up
        self.other: WireEnd | None = None
        self.is_over = False
        self.is_lost = False
        self.on_message: Callable[[bytes], None] = lambda message: None
        self.on_end: Callable[[], None] = lambda: None

    @property
    def is_dead(self) -> bool:
        """Whether it was lost and its user has not noticed."""
        return self.is_lost and not self.is_over

    def send(self, message: bytes) -> None:
        """Sends a message; it arrives after those before it, unless the wire is lost first."""
        if not self.is_over and not self.is_lost:
            self._ether.note_sent(*self._names, message)
            self._put(message)

    def _put(self, item: bytes | None) -> None:
        wait_ms = self._latency_ms + self._random.choice((0, 1, 3, self._latency_ms, 4 * self._latency_ms))
        wait_ms += self._ether.delay_ms(*self._names)
        self._last_arrival_ms = max(self._schedule.now_ms + wait_ms, self._last_arrival_ms)
        self._under_way.append((self._last_arrival_ms, item))
        self._schedule.at(self._last_arrival_ms, self._arrive)

    def _arrive(self) -> None:
        other = self.other
        while self._under_way and self._under_way[0][0] <= self._schedule.now_ms and other is not None:
            if self._ether.is_blocked(*self._names):
                self._ether.when_open(self._arrive)
                return
            _, item = self._under_way.popleft()
            if other.is_over:
                continue
            if item is None:
                other.on_end()
            else:
                other.on_message(item)

    def cut(self) -> None:
        """Loses the wire with what is under way; each end notices at its own time."""
        ends = [end for end in (self, self.other) if end is not None and not end.is_over and not end.is_lost]
        self.lose()
        for end in ends:
            self._schedule.at(self._schedule.now_ms + self._random.randint(0, 300), end._notice)

    def _notice(self) -> None:
        if not self.is_over:
            self.on_end()

    def lose(self) -> None:
        """Loses the wire with what is under way, and nobody is told."""
        for end in (self, self.other):
            if end is not None:
                end.is_lost = True
                end._under_way.clear()

    def end(self) -> None:
        """Hangs up: what was sent still arrives, and then the other end notices."""
        if self.is_over:
            return
        if self.is_dead:
            self._ether.note_noticed()
        self.is_over = True
        if not self.is_lost:
            self._put(None)


def make_wire(schedule: Schedule, ether: Ether, random: Random, names: tuple[str, str]) -> tuple[WireEnd, WireEnd]:
    """The two ends of a new wire, as slow as chance has it: 1 to 40 ms each way.

    Args:
        schedule: of the simulation.
        ether: what it goes through.
        random: of this wire.
        names: of the devices, the one that dials first.
    """
    latency_ms = random.choice((1, 2, 5, 15, 40))
    first = WireEnd(schedule, ether, random, names, latency_ms)
    second = WireEnd(schedule, ether, random, (names[1], names[0]), latency_ms)
    first.other, second.other = second, first
    return first, second
