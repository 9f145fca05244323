"""Which groups get a channel on a link: performs the effects of the machine of the lanes, as peersd.node.sharing does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from peersd.testing.simulator.link_end import ChannelEnd, LinkEnd
from peersd.testing.simulator.replica import Replica
from peersd.testing.simulator.session import Session
from peersd_protocol.errors import CloseCode
from peersd_protocol.handshake import Role
from peersd_protocol.lanes import Accept, Effect, End, GroupId, LaneId, Lanes, Open, Refuse, SetTimer, Standing
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


@dataclass
class _Lane:
    """What runs in a lane.

    Attributes:
        group: whose lane it is.
        channel: None until its OPEN was sent.
        session: None until it is accepted.
        vector: what was stated in OPEN, with its digest.
    """

    group: GroupId
    channel: int | None = None
    session: Session | None = None
    vector: Vector | None = None
    digest: bytes = b""


class Sharing:
    """The groups on one link.

    Args:
        end: this side's end of the link.
        replicas: all groups of this device by id.
        own_user: the device's user.
        remote_device: the other device's key.
        later: runs an event after some ms of virtual time, if this process still lives then.
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
        is_dialler = end.role is Role.DIALLER
        self._own_side, self._remote_side = (SIDE_DIALLER, SIDE_LISTENER) if is_dialler else (SIDE_LISTENER, SIDE_DIALLER)
        self._machine = Lanes(is_dialler=is_dialler, now_ms=end.now_ms)
        self._lanes: dict[LaneId, _Lane] = {}
        self._digests: dict[int, bytes] = {}
        self._lot = ParkingLot()
        self._timer_ms = 0
        self.wake()

    def wake(self) -> None:
        """Groups or memberships have changed."""
        standings = {group: self._standing(replica) for group, replica in self._replicas.items()}
        self._perform(self._machine.set_groups(standings, self._end.now_ms))

    def link_down(self) -> None:
        """The link is over."""
        self._machine.link_down()

    def _standing(self, replica: Replica) -> Standing:
        state = replica.store.state
        if not state.role_of(self._own_user):
            return Standing.LEAVING  # not heard of its own admission yet, and asks whoever it meets
        return Standing.MEMBER if state.is_member_device(self._remote_device) else Standing.NONE

    # --- What the link tells ----------------------------------------------------------------------------------------------------

    def requested(self, channel: int, payload: bytes) -> None:
        """The remote side asks for a channel."""
        wish = decode_open(payload)
        handshake_hash, side = self._end.handshake_hash, self._remote_side
        group = next((id_ for id_ in self._replicas if group_token(id_, handshake_hash, side) == wish.token), None)
        self._digests[channel] = wish.digest
        self._perform(self._machine.requested(channel, group, self._end.now_ms, proof=wish.proof is not None))

    def accepted(self, channel: int, payload: bytes) -> None:
        """The remote side accepted."""
        id_, lane = self._lane_of(channel)
        self._perform(self._machine.accepted(id_, self._end.now_ms))
        if id_ in self._lanes:
            self._begin(id_, lane, lane.vector if decode_accept(payload).digest == lane.digest else None)

    def refused(self, channel: int) -> None:
        """The remote side refused."""
        id_, _ = self._lane_of(channel)
        del self._lanes[id_]
        self._perform(self._machine.refused(id_, self._end.now_ms))

    def _lane_of(self, channel: int) -> tuple[LaneId, _Lane]:
        return next((id_, lane) for id_, lane in self._lanes.items() if lane.channel == channel)

    # --- What the machine asks for ----------------------------------------------------------------------------------------------

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Open(lane, group):
                    self._open(lane, group)
                case Accept(lane, wish, group):
                    self._accept(lane, wish, group)
                case Refuse(wish, _):
                    self._refuse(wish)
                case End(lane, code):
                    self._end_lane(lane, code)
                case SetTimer(at_ms):
                    self._set_timer(at_ms)
                case _:
                    raise AssertionError(f"nobody redeems or was removed here: {effect}")

    def _set_timer(self, at_ms: int) -> None:
        self._timer_ms = at_ms

        def expire() -> None:
            if self._timer_ms == at_ms:
                self._perform(self._machine.timer_expired(self._end.now_ms))

        self._later(at_ms - self._end.now_ms, expire)

    def _open(self, id_: LaneId, group: GroupId) -> None:
        lane = self._lanes[id_] = _Lane(group)

        def open_channel(vector: Vector) -> None:
            if id_ not in self._lanes or not self._end.is_up:
                return
            lane.vector, lane.digest = vector, vector_digest(group, encode_vector(vector))
            payload = OpenPayload(group_token(group, self._end.handshake_hash, self._own_side), lane.digest).encode()
            lane.channel, effects = self._end.machine.open_channel(payload, self._end.now_ms)
            self._end.perform(effects)

        replica = self._replicas[group]
        replica.call("digest", replica.store.vector, open_channel)

    def _accept(self, id_: LaneId, channel: int, group: GroupId) -> None:
        lane = self._lanes[id_] = _Lane(group, channel)
        asked = self._digests.pop(channel)

        def accept(vector: Vector) -> None:
            if id_ not in self._lanes or not self._end.is_up:
                return
            if channel not in self._end.requested:
                self._over(id_, None)  # withdrawn
                return
            self._end.requested.discard(channel)
            digest = vector_digest(group, encode_vector(vector))
            self._end.perform(self._end.machine.accept(channel, AcceptPayload(digest).encode(), self._end.now_ms))
            self._begin(id_, lane, vector if digest == asked else None)

        replica = self._replicas[group]
        replica.call("digest", replica.store.vector, accept)

    def _refuse(self, channel: int) -> None:
        self._digests.pop(channel, None)
        if self._end.is_up and channel in self._end.requested:
            self._end.requested.discard(channel)
            self._end.perform(self._end.machine.refuse(channel, self._end.now_ms))

    def _begin(self, id_: LaneId, lane: _Lane, equal_at: Vector | None) -> None:
        assert lane.channel is not None
        channel = ChannelEnd(self._end, lane.channel, lambda code: self._over(id_, code))
        lane.session = self._replicas[lane.group].open_session(channel, self._lot, equal_at)
        self._end.sessions[lane.channel] = lane.session
        lane.session.take_soon()

    def _end_lane(self, id_: LaneId, code: CloseCode) -> None:
        lane = self._lanes[id_]
        if lane.session is not None:
            lane.session.end(code)
            return
        if lane.channel in self._end.requested:
            self._refuse(lane.channel)
        elif lane.channel is not None:
            self._end.perform(self._end.machine.close_channel(lane.channel, code, self._end.now_ms))
        self._over(id_, None)

    def _over(self, id_: LaneId, code: CloseCode | None) -> None:
        """Tells the machine in a moment, as a task that has to come to its end does."""
        group = self._lanes.pop(id_).group
        self._replicas[group].soon(lambda: self._perform(self._machine.ended(id_, code, self._end.now_ms)))
