"""One end of a link: performs the effects of the machine of a link over a virtual wire (what peersd.net.runner is to a node)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from peersd.testing.checkers import Checker
from peersd.testing.simulator.schedule import Schedule
from peersd.testing.simulator.wire import WireEnd
from peersd_protocol.errors import CloseCode
from peersd_protocol.handshake import Handshake, Role
from peersd_protocol.link import (
    TIMER_HANDSHAKE,
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

_CHANNEL_CODES = (CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.REPLACED, CloseCode.NOT_MEMBER)
"""What honest devices close channels with."""

_LINK_CODES = (CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.REPLACED, CloseCode.TIMEOUT, CloseCode.REFUSED)
"""What links of honest devices end with."""


class ChannelUser(Protocol):
    """What runs over an open channel, or looks at the proof before it is one."""

    @property
    def group_name(self) -> str:
        """The group that the channel is for."""
        ...

    def push(self, message: bytes) -> None:
        """A message came."""

    def send_soon(self) -> None:
        """The channel has room again, or is empty."""

    def note_closed(self, code: CloseCode) -> None:
        """The remote side closed the channel; what came before can still be taken."""

    def end(self, code: CloseCode) -> None:
        """Ends at once."""


@dataclass
class LinkEvents:
    """What the layer above is told.

    Attributes:
        on_up: the handshake is done: the link is to be released or closed.
        on_open: the remote side asks for a channel, with the payload of its OPEN.
        on_accepted, on_refused: the answer to this side's OPEN, with its payload.
        on_closed: a channel that nothing runs on is gone.
        on_put: a message is put into a channel here.
        on_message: a message has come for what runs over a channel.
        on_down: the link is over; all that ran on it has ended.
    """

    on_up: Callable[[LinkEnd, Up], None]
    on_open: Callable[[LinkEnd, int, bytes], None]
    on_accepted: Callable[[LinkEnd, int, bytes], None]
    on_refused: Callable[[LinkEnd, int, bytes], None]
    on_closed: Callable[[LinkEnd, int], None]
    on_put: Callable[[LinkEnd, int, bytes], None]
    on_message: Callable[[LinkEnd, int, bytes], None]
    on_down: Callable[[LinkEnd, Down], None]


class LinkEnd:
    """One end of one link.

    Args:
        schedule: of the simulation.
        random: of the process.
        device: this device's name.
        remote: the other device's name.
        handshake: not started.
        role: who dialled.
        wire: this end of the wire.
        events: whom to tell.

    Attributes:
        users: what runs over this link, by channel.
        requested: channels that the remote side asked for and still waits for.
        is_carrying: whether it carries channels.
        is_confirmed: whether the other side is known to have the link.
        is_remote_honest: whether the other side runs the product's code, which nobody may refuse.
        is_over: whether it has ended.
    """

    def __init__(
        self,
        schedule: Schedule,
        random: Random,
        device: str,
        remote: str,
        handshake: Handshake,
        role: Role,
        wire: WireEnd,
        events: LinkEvents,
    ) -> None:
        self._schedule = schedule
        self._random = random
        self._device = device
        self.remote = remote
        self.role = role
        self._wire = wire
        self._events = events
        self._timers: dict[str, int] = {}
        self._is_writing = False
        self.machine = Link(role, handshake)
        self.handshake_hash = b""
        self.remote_device = b""
        self.users: dict[int, ChannelUser] = {}
        self.requested: set[int] = set()
        self.is_carrying = False
        self.is_confirmed = False
        self.is_over = False
        self.is_remote_honest = True
        wire.on_message = self._receive
        wire.on_end = lambda: self.close(CloseCode.GOING_AWAY)

    @property
    def now_ms(self) -> int:
        """The machine's clock."""
        return self._schedule.now_ms

    def start(self) -> None:
        """Begins the handshake."""
        self.perform(self.machine.start(self.now_ms))

    def release(self) -> None:
        """The link stays, and carries channels from now on."""
        self.is_carrying = True
        self.perform(self.machine.release(self.now_ms))

    def put(self, channel: int, message: bytes, *, bulk: bool, in_order: bool = False) -> None:
        """Queues a message for a channel."""
        self._events.on_put(self, channel, message)
        self.perform(self.machine.send(channel, message, self.now_ms, bulk=bulk, in_order=in_order))

    def close(self, code: CloseCode) -> None:
        """Ends the link."""
        if not self.is_over:
            self.perform(self.machine.close(code, self.now_ms))

    def abandon(self, *, is_power_lost: bool) -> None:
        """The process is gone: nothing is said, nothing is heard. The system tells the other side, unless it is gone as well."""
        self.is_over = True
        self.is_carrying = False
        self.lose_wire(is_told=not is_power_lost)
        self._wire.end()

    def lose_wire(self, *, is_told: bool) -> None:
        """The network is gone; either side notices in its own time, or only by the silence."""
        if is_told:
            self._wire.cut()
        else:
            self._wire.lose()

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
        self._schedule.at(self.now_ms + self._random.randint(0, 2), self._write)

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
                    if channel in self.users:
                        self._events.on_message(self, channel, message)
                        self.users[channel].push(message)
                case Wake():
                    if not self._is_writing:
                        self._is_writing = True
                        self._schedule.at(self.now_ms + self._random.randint(0, 1), self._write)
                case Writable(channel):
                    if channel in self.users:
                        self.users[channel].send_soon()
                case SetTimer(name, at_ms):
                    self._set_timer(name, at_ms)
                case CancelTimer(name):
                    self._timers.pop(name, None)
                    self.is_confirmed |= name == TIMER_HANDSHAKE
                case OpenRequested(channel, payload, _):
                    self.requested.add(channel)
                    self._events.on_open(self, channel, payload)
                case Accepted(channel, payload):
                    self._events.on_accepted(self, channel, payload)
                case Refused(channel, payload):
                    self._events.on_refused(self, channel, payload)
                case ChannelClosed(channel, code):
                    self._note_closed(channel, code)
                case Up():
                    self._note_up(effect)
                case Down():
                    self._note_down(effect)
                case _:
                    pass

    def _note_closed(self, channel: int, code: CloseCode) -> None:
        if self.is_remote_honest and code not in _CHANNEL_CODES:
            raise self._schedule.fail(Checker.HONEST_REFUSED, f"{self._device}: {self.remote} closed a channel with {code.name}")
        self.requested.discard(channel)
        user = self.users.pop(channel, None)
        if user is not None:
            user.note_closed(code)
        else:
            self._events.on_closed(self, channel)

    def _note_up(self, up: Up) -> None:
        self.handshake_hash = up.handshake_hash
        self.remote_device = up.remote_device
        self._events.on_up(self, up)

    def _note_down(self, down: Down) -> None:
        if self.is_remote_honest and down.code not in _LINK_CODES:
            raise self._schedule.fail(
                Checker.HONEST_REFUSED, f"{self._device}: the link to {self.remote} is down: {down.code.name}, {down.detail}"
            )
        self._schedule.note(self._device, f"link to {self.remote} down: {down.code.name}")
        self.is_over = True
        self.is_carrying = False
        farewell = self.machine.pull(self.now_ms)
        if farewell is not None:
            self._wire.send(farewell)
        for user in list(self.users.values()):
            user.end(CloseCode.NORMAL)
        self.users.clear()
        self._wire.end()
        self._events.on_down(self, down)


class ChannelEnd:
    """An open channel of a link, for what runs over it.

    Args:
        end: of the link.
        number: the channel.
        on_close: called once, with the code it closed with, whichever side closed.
    """

    def __init__(self, end: LinkEnd, number: int, on_close: Callable[[CloseCode], None]) -> None:
        self._end = end
        self._number = number
        self._on_close = on_close
        self.remote = end.remote
        self.remote_device = end.remote_device
        self.closed: CloseCode | None = None

    def send(self, message: bytes, *, bulk: bool, in_order: bool = False) -> None:
        """Queues a message."""
        self._end.put(self._number, message, bulk=bulk, in_order=in_order)

    def is_full(self) -> bool:
        """Whether `send` has to wait for Writable."""
        return self._end.machine.is_full(self._number)

    def flush(self) -> bool:
        """Asks for Writable once all queued has left; True if it has."""
        return self._end.machine.flush(self._number)

    def want(self) -> None:
        """The session waits for a message."""
        self._end.perform(self._end.machine.want(self._number, self._end.now_ms))

    def consumed(self, message: bytes) -> None:
        """The session took a message."""
        self._end.perform(self._end.machine.consumed(self._number, len(message), self._end.now_ms))

    def note_closed(self, code: CloseCode) -> None:
        """The remote side closed it."""
        self.closed = code

    def close(self, code: CloseCode) -> None:
        """Closes the channel, and ends what ran over it."""
        if self._end.users.pop(self._number, None) is not None:
            self._end.perform(self._end.machine.close_channel(self._number, code, self._end.now_ms))
        if self.closed is None:
            self.closed = code
        self._on_close(self.closed)
