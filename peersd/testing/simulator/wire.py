"""A virtual message pipe between two devices: in order, delayed, and cut at any time with what is under way."""

from __future__ import annotations

from collections.abc import Callable

from peersd.testing.simulator.schedule import Schedule


class WireEnd:
    """One end. Its user sets `on_message` and `on_end`."""

    def __init__(self, schedule: Schedule, latency_ms: int) -> None:
        self._schedule = schedule
        self._latency_ms = latency_ms
        self._last_arrival_ms = 0
        self.other: WireEnd | None = None
        self.is_cut = False
        self.on_message: Callable[[bytes], None] = lambda message: None
        self.on_end: Callable[[], None] = lambda: None

    def send(self, message: bytes) -> None:
        """Sends a message; it arrives after those before it, unless the wire is cut first."""
        if self.is_cut:
            return
        random = self._schedule.random
        jitter_ms = random.choice((0, 1, 3, self._latency_ms, 4 * self._latency_ms))
        arrival_ms = max(self._schedule.now_ms + self._latency_ms + jitter_ms, self._last_arrival_ms)
        self._last_arrival_ms = arrival_ms
        self._schedule.at(arrival_ms, lambda: self._arrive(message))

    def _arrive(self, message: bytes) -> None:
        if self.other is not None and not self.other.is_cut:
            self.other.on_message(message)

    def cut(self) -> None:
        """Cuts the wire: nothing more arrives, and each end notices at its own time."""
        if self.other is None:
            return
        for end in (self, self.other):
            if not end.is_cut:
                end.is_cut = True
                self._schedule.after(0, 300, end.on_end)

    def end(self) -> None:
        """Hangs up: what was sent still arrives, and then the other end notices."""
        other = self.other
        if self.is_cut or other is None:
            return
        self.is_cut = True

        def notice() -> None:
            if not other.is_cut:
                other.is_cut = True
                other.on_end()

        self._schedule.at(max(self._schedule.now_ms + self._latency_ms, self._last_arrival_ms), notice)


def make_wire(schedule: Schedule) -> tuple[WireEnd, WireEnd]:
    """The two ends of a new wire, as slow as chance has it: 1 to 40 ms each way."""
    latency_ms = schedule.random.choice((1, 2, 5, 15, 40))
    first, second = WireEnd(schedule, latency_ms), WireEnd(schedule, latency_ms)
    first.other, second.other = second, first
    return first, second
