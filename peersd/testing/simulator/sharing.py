"""Which groups get a channel on a link: as peersd.node.sharing has it, with the trio taken out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from peersd.testing.simulator.link_end import ChannelEnd, LinkEnd
from peersd.testing.simulator.replica import Replica
from peersd.testing.simulator.session import Session
from peersd_protocol.errors import CloseCode
from peersd_protocol.handshake import Role
from peersd_protocol.replication import ParkingLot
from peersd_protocol.tokens import (
    SIDE_DIALLER,
    SIDE_LISTENER,
    AcceptPayload,
    OpenPayload,
    decode_accept,
    decode_open,
    group_token,
    vector_digest,
)
from peersd_protocol.vectors import Vector, encode_vector

LISTENER_WAIT_MS = 500
RETRY_MS = 1_000


@dataclass
class _Lane:
    """A group's place on the link."""

    channel: int | None = None
    session: Session | None = None
    vector: Vector | None = None
    digest: bytes = b""
    is_over: bool = False


class Sharing:
    """The groups on one link.

    Args:
        end: this side's end of the link.
        replicas: all groups of this device by id.
        own_user: the device's user.
        remote_device: the other device's key.
        soon: runs an event at a virtual time, if this process still lives then.
    """

    def __init__(
        self,
        end: LinkEnd,
        replicas: Mapping[bytes, Replica],
        own_user: bytes,
        remote_device: bytes,
        later: Callable[[int, Callable[[], None]], None],
    ) -> None:
        self._end = end
        self._replicas = replicas
        self._own_user = own_user
        self._remote_device = remote_device
        self._later = later
        self._lanes: dict[bytes, _Lane] = {}
        self._lot = ParkingLot()
        self._may_open = end.role is Role.DIALLER
        self._own_side, self._remote_side = (
            (SIDE_DIALLER, SIDE_LISTENER) if end.role is Role.DIALLER else (SIDE_LISTENER, SIDE_DIALLER)
        )
        if self._may_open:
            self.wake()
        else:
            later(LISTENER_WAIT_MS, self._open_rest)

    def _open_rest(self) -> None:
        self._may_open = True
        self.wake()

    def _is_shared(self, replica: Replica) -> bool:
        state = replica.store.state
        return bool(state.is_member_device(self._remote_device)) and bool(state.role_of(self._own_user))

    def wake(self) -> None:
        """Groups or memberships have changed."""
        if not self._may_open or not self._end.is_up:
            return
        for group_id, replica in self._replicas.items():
            # Who has not heard of its own admission yet asks whoever it meets, as the holder of a ticket does.
            is_joining = not replica.store.state.role_of(self._own_user)
            if group_id not in self._lanes and (is_joining or self._is_shared(replica)):
                self._open(group_id, replica)

    def _open(self, group_id: bytes, replica: Replica) -> None:
        lane = self._lanes[group_id] = _Lane()

        def open_channel(vector: Vector) -> None:
            if not self._is_current(group_id, lane):
                return
            lane.vector, lane.digest = vector, vector_digest(group_id, encode_vector(vector))
            token = group_token(group_id, self._end.handshake_hash, self._own_side)
            payload = OpenPayload(token, lane.digest).encode()
            lane.channel, effects = self._end.machine.open_channel(payload, self._end.now_ms)
            self._end.perform(effects)

        replica.call("digest", replica.store.vector, open_channel)

    def _is_current(self, group_id: bytes, lane: _Lane) -> bool:
        return self._lanes.get(group_id) is lane and self._end.is_up

    def _lane_of(self, channel: int) -> tuple[bytes, _Lane] | None:
        return next(((group_id, lane) for group_id, lane in self._lanes.items() if lane.channel == channel), None)

    def accepted(self, channel: int, payload: bytes) -> None:
        """The remote side accepted."""
        found = self._lane_of(channel)
        if found is None:
            self._end.perform(self._end.machine.close_channel(channel, CloseCode.NORMAL, self._end.now_ms))
            return
        group_id, lane = found
        is_equal = decode_accept(payload).digest == lane.digest
        self._begin(group_id, lane, lane.vector if is_equal else None)

    def refused(self, channel: int) -> None:
        """The remote side refused."""
        found = self._lane_of(channel)
        if found is not None:
            self._end_lane(*found)

    def requested(self, channel: int, payload: bytes) -> None:
        """The remote side asks for a channel."""
        wish = decode_open(payload)
        handshake_hash, side = self._end.handshake_hash, self._remote_side
        group_id = next((id_ for id_ in self._replicas if group_token(id_, handshake_hash, side) == wish.token), None)
        old = self._lanes.get(group_id) if group_id else None
        is_taken = old is not None and self._end.role is Role.DIALLER  # where both open at once, the dialler's OPEN counts
        if group_id is None or is_taken or not self._is_shared(self._replicas[group_id]):
            self._refuse(channel)
            return
        if old is not None:
            self._drop(old)
        lane = self._lanes[group_id] = _Lane(channel)
        replica = self._replicas[group_id]

        def accept(vector: Vector) -> None:
            if not self._is_current(group_id, lane) or channel not in self._end.requested:
                self._refuse(channel)
                self._end_lane(group_id, lane)
                return
            self._end.requested.discard(channel)
            digest = vector_digest(group_id, encode_vector(vector))
            self._end.perform(self._end.machine.accept(channel, AcceptPayload(digest).encode(), self._end.now_ms))
            self._begin(group_id, lane, vector if digest == wish.digest else None)

        replica.call("digest", replica.store.vector, accept)

    def _refuse(self, channel: int) -> None:
        if self._end.is_up and channel in self._end.requested:
            self._end.requested.discard(channel)
            self._end.perform(self._end.machine.refuse(channel, self._end.now_ms))

    def _begin(self, group_id: bytes, lane: _Lane, equal_at: Vector | None) -> None:
        assert lane.channel is not None
        channel = ChannelEnd(self._end, lane.channel, lambda: self._end_lane(group_id, lane))
        replica = self._replicas[group_id]
        lane.session = replica.open_session(channel, self._lot, equal_at)
        self._end.sessions[lane.channel] = lane.session
        lane.session.take_soon()

    def _drop(self, lane: _Lane) -> None:
        if lane.channel in self._end.requested:
            self._refuse(lane.channel)
        elif lane.session is not None:
            lane.session.end()
        elif lane.channel is not None:
            self._end.perform(self._end.machine.close_channel(lane.channel, CloseCode.NORMAL, self._end.now_ms))

    def _end_lane(self, group_id: bytes, lane: _Lane) -> None:
        if self._lanes.get(group_id) is lane:
            del self._lanes[group_id]
            self._later(RETRY_MS, self.wake)
