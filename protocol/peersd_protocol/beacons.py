"""The book of a group's beacons: which are known, who lacks which, when to publish one's own (SPEC: B-3 to B-9, DESIGN 9).

A machine: messages, commands and the timer go in, effects come out. What a session's other side lacks is noted by device and not
as messages, and one message is under way at a time: a side that reads slowly gets the newest beacons when it is ready for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from peersd_protocol.beacon_messages import (
    Beacon,
    Counters,
    Holding,
    compact_holdings,
    counters_summary,
    decode_beacon,
    decode_beacon_message,
    encode_beacons,
    encode_counters,
    lag,
    sign_beacon,
)
from peersd_protocol.constants import (
    BEACON_ADDRESSES_MAX,
    BEACON_COUNTER_MAX,
    BEACON_INTERVAL_MS,
    BEACONS_MAX,
    COUNTERS_INTERVAL_MS,
    SMALL_MESSAGE_BYTES,
)
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.messages import is_beacon_message
from peersd_protocol.replication_effects import Send, SessionId
from peersd_protocol.signing import SigningKey

__all__ = [
    "Beacon",
    "BeaconBook",
    "Effect",
    "Holding",
    "Keep",
    "Send",
    "SetTimer",
    "compact_holdings",
    "counters_summary",
    "decode_beacon",
    "is_beacon_message",
    "lag",
]


_MESSAGE_BEACONS_BYTES: Final = SMALL_MESSAGE_BYTES - 16
"""Beacons of one message: so it never queues behind long ones for credit (SPEC: M-11). One of BEACON_BYTES_MAX fits."""


@dataclass(frozen=True, slots=True)
class Keep:
    """This is now the latest beacon of its device: keep it in place of the one before."""

    beacon: Beacon


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Call `timer_expired` at `at_ms` on the clock of the calls' `now_ms`, and then `publish`; an earlier or extra call of these
    does no harm.
    """

    at_ms: int


Effect: TypeAlias = Send | Keep | SetTimer


@dataclass(slots=True)
class _Session:
    """A session.

    Attributes:
        device: the remote device.
        known: counters of the beacons that the remote side has or is being sent, by device.
        owed: devices whose latest beacon is to be sent.
        is_sending: a message is under way.
        is_asking: COUNTERS is to be sent.
        asked_ms: when it was sent last.
        stated: COUNTERS of the remote side that came too soon after the one before to be looked at.
        heard_ms: when one was looked at last.
    """

    device: bytes
    known: dict[bytes, int] = field(default_factory=dict[bytes, int])
    owed: set[bytes] = field(default_factory=set[bytes])
    is_sending: bool = False
    is_asking: bool = False
    asked_ms: int | None = None
    stated: Counters | None = None
    heard_ms: int | None = None


class BeaconBook:
    """The machine of one group.

    Args:
        group_id: 32 bytes.
        own_device: this device's id.
        beacons: those kept from before, whose signatures were checked then.
    """

    def __init__(self, group_id: bytes, own_device: bytes, beacons: Iterable[Beacon] = ()) -> None:
        self._group_id = group_id
        self._own_device = own_device
        self._latest: dict[bytes, Beacon] = {}
        for beacon in beacons:
            if beacon.counter > self._counter(beacon.device):
                self._latest[beacon.device] = beacon
        self._members: frozenset[bytes] = frozenset()
        self._taken_ms: dict[bytes, int] = {}
        self._held_back: dict[bytes, Beacon] = {}
        self._sessions: dict[SessionId, _Session] = {}
        self._is_stale = False
        self._timer_ms: int | None = None

    # --- What is known ----------------------------------------------------------------------------------------------------------

    def summary(self) -> bytes:
        """The 8 bytes over the members' beacons for OPEN and ACCEPT; zero bytes without any."""
        return counters_summary(self._group_id, self._counters())

    @property
    def devices(self) -> Set[bytes]:
        """The devices that have a beacon."""
        return self._latest.keys()

    def latest(self, device: bytes) -> Beacon | None:
        """A device's latest beacon, if there is one."""
        return self._latest.get(device)

    def beacons(self) -> tuple[Beacon, ...]:
        """The latest beacon of each device that has one: members' devices, and this one in any case."""
        return tuple(self._latest.values())

    def addresses_of(self, device: bytes) -> tuple[str, ...]:
        """Where a device says that it can be reached, the best first."""
        beacon = self._latest.get(device)
        return beacon.addresses if beacon else ()

    def digest_of(self, device: bytes) -> bytes | None:
        """The digest of what a device said that it durably holds."""
        beacon = self._latest.get(device)
        return beacon.digest if beacon else None

    def holdings_of(self, device: bytes) -> tuple[Holding, ...]:
        """What a device said that it durably holds; see `lag`."""
        beacon = self._latest.get(device)
        return beacon.holdings if beacon else ()

    def _counter(self, device: bytes) -> int:
        beacon = self._latest.get(device)
        return beacon.counter if beacon else 0

    def _counters(self) -> dict[bytes, int]:
        return {device: beacon.counter for device, beacon in self._latest.items() if device in self._members}

    # --- Members and sessions ---------------------------------------------------------------------------------------------------

    def set_members(self, devices: Collection[bytes], now_ms: int) -> list[Effect]:
        """The members' devices are these from now on.

        Beacons of others are forgotten and nothing goes to them. For new ones the sessions are asked: what came of them before
        was passed over.

        Args:
            devices: ids; of more than BEACONS_MAX the lowest count, on all replicas alike.
            now_ms: monotonic milliseconds.
        """
        members = frozenset(sorted(devices)[:BEACONS_MAX])
        new, self._members = members - self._members, members
        self._latest = {device: one for device, one in self._latest.items() if device in members or device == self._own_device}
        self._held_back = {device: one for device, one in self._held_back.items() if device in members}
        self._taken_ms = {device: at for device, at in self._taken_ms.items() if device in self._latest}
        effects: list[Effect] = []
        for session, state in self._sessions.items():
            state.known = {device: counter for device, counter in state.known.items() if device in members}
            state.owed &= members
            if new:
                state.owed |= {device for device in new & self._latest.keys() if self._lacks(state, device)}
                state.is_asking |= bool(new - self._latest.keys())
                effects += self._flush(session, state, now_ms)
        return effects

    def session_opened(self, session: SessionId, device: bytes, remote_summary: bytes, now_ms: int) -> list[Effect]:
        """A channel was accepted.

        Args:
            session: a number of the caller's, never used again.
            device: the remote device.
            remote_summary: the 8 bytes that its OPEN or ACCEPT carried.
            now_ms: monotonic milliseconds.
        """
        if session in self._sessions:
            raise LocalProtocolError("a session is opened once")
        state = self._sessions[session] = _Session(device)
        state.is_asking = remote_summary != self.summary()
        return self._flush(session, state, now_ms)

    def session_closed(self, session: SessionId) -> None:
        """A channel closed, for whatever reason."""
        self._sessions.pop(session, None)

    def message_sent(self, session: SessionId, now_ms: int) -> list[Effect]:
        """The channel has taken this session's last Send: the next may follow. Without this call none ever does."""
        state = self._sessions.get(session)
        if state is None:
            return []
        state.is_sending = False
        return self._flush(session, state, now_ms)

    def receive(self, session: SessionId, data: bytes, now_ms: int) -> list[Effect]:
        """Takes a message for which `is_beacon_message` holds.

        Raises:
            RemoteProtocolError: the session is to be closed with its code; nothing of the message is kept.
        """
        state = self._sessions[session]
        message = decode_beacon_message(data)
        if isinstance(message, Counters):
            state.stated = message
            return self._look_at_counters(session, state, now_ms)
        known = [beacon for beacon in message.beacons if beacon.device in self._members]
        new = [beacon for beacon in known if beacon.counter > self._newest(beacon.device)]
        if not all(beacon.is_signed(self._group_id) for beacon in new):
            raise RemoteProtocolError(CloseCode.BAD_SIGNATURE, "beacon")
        for beacon in known:
            state.known[beacon.device] = max(beacon.counter, state.known.get(beacon.device, 0))
            if self._lacks(state, beacon.device):
                state.owed.add(beacon.device)  # the other side has an older one than this side
            else:
                state.owed.discard(beacon.device)
        effects: list[Effect] = []
        for beacon in new:
            self._held_back[beacon.device] = beacon
            effects += self._release(beacon.device, now_ms)
        return effects + self._flush(session, state, now_ms)

    def _newest(self, device: bytes) -> int:
        held_back = self._held_back.get(device)
        return held_back.counter if held_back else self._counter(device)

    def _lacks(self, state: _Session, device: bytes) -> bool:
        return self._counter(device) > state.known.get(device, 0)

    def _look_at_counters(self, session: SessionId, state: _Session, now_ms: int) -> list[Effect]:
        """Compares what the remote side has with what is here. It is sent what it lacks, and asked once for what lacks here."""
        if state.stated is None:
            return []
        due_ms = now_ms if state.heard_ms is None else state.heard_ms + COUNTERS_INTERVAL_MS
        if due_ms > now_ms:
            return self._set_timer(due_ms)
        state.known = {device: counter for device, counter in state.stated.counters if device in self._members}
        state.stated, state.heard_ms = None, now_ms
        state.owed = {device for device in self._counters() if self._lacks(state, device)}
        # Having asked before, the other side knows what lacked here then, and has sent it and what came since.
        if state.asked_ms is None and any(counter > self._newest(device) for device, counter in state.known.items()):
            state.is_asking = True
        return self._flush(session, state, now_ms)

    # --- Beacons ----------------------------------------------------------------------------------------------------------------

    @property
    def waits_to_publish(self) -> bool:
        """Whether this device's beacon is behind and its time comes with the timer: until then `publish` need not be called."""
        return self._is_stale and self._timer_ms is not None

    def publish(
        self,
        addresses: Sequence[str],
        digest: bytes,
        holdings: Sequence[Holding],
        now_ms: int,
        wall_ms: int,
        key: SigningKey,
    ) -> list[Effect]:
        """States what holds of this device now. If it says something new, a beacon is made and sent.

        One within BEACON_INTERVAL_MS of the last is left out: the timer then brings the next call, with what holds at that time.

        Args:
            addresses: where this device can be reached, the best first; the first BEACON_ADDRESSES_MAX count.
            digest: of its vector.
            holdings: of its vector, see `compact_holdings`.
            now_ms: monotonic milliseconds.
            wall_ms: milliseconds since 1970: a device that lost its counter goes on above it.
            key: of this device.

        Raises:
            LocalProtocolError: a field breaks a rule, or the key is another device's.
        """
        if key.public != self._own_device:
            raise LocalProtocolError("another device's key")
        stated, last = tuple(addresses[:BEACON_ADDRESSES_MAX]), self._latest.get(self._own_device)
        self._is_stale = last is None or last.contents != (stated, digest, tuple(holdings))
        counter = max(self._counter(self._own_device) + 1, min(wall_ms, BEACON_COUNTER_MAX))
        # Only who holds this device's key can have used up the counters: a fault of nobody's here, so nothing to fail for.
        if not self._is_stale or counter > BEACON_COUNTER_MAX:
            return []
        ready_ms = self._ready_ms(self._own_device, now_ms)
        if ready_ms > now_ms:
            return self._set_timer(ready_ms)
        return self._take(sign_beacon(self._group_id, key, counter, stated, digest, holdings), now_ms)

    def timer_expired(self, now_ms: int) -> list[Effect]:
        """The time of a SetTimer has come. `publish` is to be called after it."""
        self._timer_ms = None
        effects: list[Effect] = []
        for device in list(self._held_back):
            effects += self._release(device, now_ms)
        for session, state in self._sessions.items():
            effects += self._look_at_counters(session, state, now_ms)
            effects += self._flush(session, state, now_ms)
        ready_ms = self._ready_ms(self._own_device, now_ms)
        if self._is_stale and ready_ms > now_ms:
            effects += self._set_timer(ready_ms)
        return effects

    def _ready_ms(self, device: bytes, now_ms: int) -> int:
        """When the next beacon of a device may be taken: no device makes the others pass on more."""
        return self._taken_ms[device] + BEACON_INTERVAL_MS if device in self._taken_ms else now_ms

    def _release(self, device: bytes, now_ms: int) -> list[Effect]:
        """Takes the newest beacon of a device if its time has come."""
        ready_ms = self._ready_ms(device, now_ms)
        if ready_ms > now_ms:
            return self._set_timer(ready_ms)
        effects = self._take(self._held_back[device], now_ms)
        if device == self._own_device:
            # Of a past that this device has lost: what it says may be wrong by now, and `publish` goes on above its counter.
            self._is_stale = True
            effects += self._set_timer(now_ms + BEACON_INTERVAL_MS)
        return effects

    def _take(self, beacon: Beacon, now_ms: int) -> list[Effect]:
        """This is the latest beacon of its device."""
        self._latest[beacon.device] = beacon
        self._taken_ms[beacon.device] = now_ms
        self._held_back.pop(beacon.device, None)
        self._is_stale = self._is_stale and beacon.device != self._own_device
        effects: list[Effect] = [Keep(beacon)]
        for session, state in self._sessions.items():
            if beacon.device in self._members and self._lacks(state, beacon.device):
                state.owed.add(beacon.device)
                effects += self._flush(session, state, now_ms)
        return effects

    def _flush(self, session: SessionId, state: _Session, now_ms: int) -> list[Effect]:
        """Sends the next message to a session whose device is a member's: COUNTERS, else beacons."""
        if state.is_sending or state.device not in self._members:
            return []
        effects: list[Effect] = []
        if state.is_asking:
            due_ms = now_ms if state.asked_ms is None else state.asked_ms + COUNTERS_INTERVAL_MS
            if due_ms <= now_ms:
                state.is_asking, state.asked_ms, state.is_sending = False, now_ms, True
                return [Send(session, encode_counters(self._counters()))]
            effects += self._set_timer(due_ms)
        beacons: list[Beacon] = []
        size = 0
        for device in sorted(state.owed):
            beacon = self._latest[device]
            size += len(beacon.encode())
            if beacons and size > _MESSAGE_BEACONS_BYTES:
                break
            beacons.append(beacon)
            state.owed.discard(device)
            state.known[device] = beacon.counter
        if beacons:
            state.is_sending = True
            effects.append(Send(session, encode_beacons(beacons)))
        return effects

    def _set_timer(self, at_ms: int) -> list[Effect]:
        if self._timer_ms is not None and self._timer_ms <= at_ms:
            return []
        self._timer_ms = at_ms
        return [SetTimer(at_ms)]
