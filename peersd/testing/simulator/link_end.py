"""One end of a link: performs the effects of the machine of a link over a virtual wire (what peersd.net.runner is to a node)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from peersd.testing.simulator.schedule import Schedule
from peersd.testing.simulator.session import Session
from peersd.testing.simulator.wire import WireEnd
from peersd_protocol.errors import CloseCode
from peersd_protocol.handshake import Handshake, Role
from peersd_protocol.link import (
    Accepted,
    CancelTimer,
    ChannelClosed,
    Down,
    Effect,
    Link,
    MessageReceived,
    OpenRequested,
    Refused,
    SetTimer,
    Up,
    Wake,
    Writable,
)

_HARMLESS_CODES = (CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.REPLACED)


@dataclass
class LinkEvents:
    """What the layer above is told.

    Attributes:
        on_up: the link carries channels.
        on_open: the remote side asks for a channel, with the payload of its OPEN.
        on_accepted, on_refused: the answer to this side's OPEN.
        on_down: the link is over; every session on it has ended.
    """

    on_up: Callable[[LinkEnd], None]
    on_open: Callable[[LinkEnd, int, bytes], None]
    on_accepted: Callable[[LinkEnd, int, bytes], None]
    on_refused: Callable[[LinkEnd, int], None]
    on_down: Callable[[LinkEnd], None]


class LinkEnd:
    """One end of one link.

    Args:
        schedule: of the simulation.
        device: this device's name.
        remote: the other device's name.
        link: the machine, not started.
        role: who dialled.
        wire: this end of the wire.
        events: whom to tell.

    Attributes:
        sessions: those that run over this link, by channel.
        requested: channels that the remote side asked for and still waits for.
        is_up: whether it carries channels.
    """

    def __init__(
        self, schedule: Schedule, device: str, remote: str, handshake: Handshake, role: Role, wire: WireEnd, events: LinkEvents
    ) -> None:
        self._schedule = schedule
        self._device = device
        self.remote = remote
        self.role = role
        self._wire = wire
        self._events = events
        self._timers: dict[str, int] = {}
        self._is_writing = False
        self.machine = Link(role, handshake)
        self.handshake_hash = b""
        self.sessions: dict[int, Session] = {}
        self.requested: set[int] = set()
        self.is_up = False
        self.is_over = False
        wire.on_message = self._receive
        wire.on_end = lambda: self.close(CloseCode.GOING_AWAY)

    @property
    def now_ms(self) -> int:
        """The machine's clock."""
        return self._schedule.now_ms

    def start(self) -> None:
        """Begins the handshake."""
        self.perform(self.machine.start(self.now_ms))

    def close(self, code: CloseCode) -> None:
        """Ends the link."""
        if not self.is_over:
            self.perform(self.machine.close(code, self.now_ms))

    def abandon(self) -> None:
        """The process is gone: nothing is said, nothing is heard."""
        self.is_over = True
        self._wire.cut()

    def lose_wire(self) -> None:
        """The network is gone; either side notices in its own time."""
        self._wire.cut()

    def _receive(self, message: bytes) -> None:
        if not self.is_over:
            self.perform(self.machine.receive(message, self.now_ms))

    def _write(self) -> None:
        if self.is_over:
            return
        message = self.machine.pull(self.now_ms)
        self.perform(self.machine.take_effects(self.now_ms))
        if message is None:
            self._is_writing = False
            return
        self._wire.send(message)
        self._schedule.after(0, 2, self._write)

    def _set_timer(self, name: str, at_ms: int) -> None:
        self._timers[name] = at_ms

        def expire() -> None:
            if not self.is_over and self._timers.get(name) == at_ms:
                del self._timers[name]
                self.perform(self.machine.timer_expired(name, self.now_ms))

        self._schedule.at(at_ms, expire)

    def perform(self, effects: list[Effect]) -> None:
        """Performs effects in their order."""
        for effect in effects:
            match effect:
                case MessageReceived(channel, message):
                    if channel in self.sessions:
                        self.sessions[channel].push(message)
                case Wake():
                    if not self._is_writing:
                        self._is_writing = True
                        self._schedule.after(0, 1, self._write)
                case Writable(channel):
                    if channel in self.sessions:
                        self.sessions[channel].send_soon()
                case SetTimer(name, at_ms):
                    self._set_timer(name, at_ms)
                case CancelTimer(name):
                    self._timers.pop(name, None)
                case OpenRequested(channel, payload, _):
                    self.requested.add(channel)
                    self._events.on_open(self, channel, payload)
                case Accepted(channel, payload):
                    self._events.on_accepted(self, channel, payload)
                case Refused(channel, _):
                    self._events.on_refused(self, channel)
                case ChannelClosed(channel, code):
                    self._note_closed(channel, code)
                case Up():
                    self._note_up(effect)
                case Down():
                    self._note_down(effect)
                case _:
                    pass

    def _note_closed(self, channel: int, code: CloseCode) -> None:
        if code not in _HARMLESS_CODES:
            raise self._schedule.fail(f"{self._device}: {self.remote} closed a channel with {code.name}")
        self.requested.discard(channel)
        session = self.sessions.pop(channel, None)
        if session is not None:
            session.end(code)

    def _note_up(self, up: Up) -> None:
        self.handshake_hash = up.handshake_hash
        self.is_up = True
        self._schedule.note(self._device, f"link to {self.remote} up as {self.role.value}")
        self._events.on_up(self)
        self.perform(self.machine.release(self.now_ms))

    def _note_down(self, down: Down) -> None:
        if down.code not in _HARMLESS_CODES and down.code is not CloseCode.TIMEOUT:
            raise self._schedule.fail(f"{self._device}: the link to {self.remote} is down: {down.code.name}, {down.detail}")
        self._schedule.note(self._device, f"link to {self.remote} down")
        self.is_over = True
        self.is_up = False
        for session in list(self.sessions.values()):
            session.end()
        self.sessions.clear()
        self._wire.cut()
        self._events.on_down(self)


class ChannelEnd:
    """A channel of a link, for a session."""

    def __init__(self, end: LinkEnd, number: int, on_close: Callable[[CloseCode], None]) -> None:
        self._end = end
        self._number = number
        self._on_close = on_close
        self.remote = end.remote

    def send(self, message: bytes, *, bulk: bool) -> None:
        """See SessionChannel."""
        self._end.perform(self._end.machine.send(self._number, message, self._end.now_ms, bulk=bulk))

    def is_full(self) -> bool:
        """See SessionChannel."""
        return self._end.machine.is_full(self._number)

    def want(self) -> None:
        """See SessionChannel."""
        self._end.perform(self._end.machine.want(self._number, self._end.now_ms))

    def consumed(self, message: bytes) -> None:
        """See SessionChannel."""
        self._end.perform(self._end.machine.consumed(self._number, len(message), self._end.now_ms))

    def close(self, code: CloseCode) -> None:
        """See SessionChannel."""
        if self._end.sessions.pop(self._number, None) is not None:
            self._end.perform(self._end.machine.close_channel(self._number, code, self._end.now_ms))
        self._on_close(code)
