"""Which groups get a channel on a link: performs the effects of the machine of the lanes, as peersd.node.sharing does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from peersd.testing.simulator.admission import Admission
from peersd.testing.simulator.copies import digest_of
from peersd.testing.simulator.farewell import Farewelling
from peersd.testing.simulator.link_end import ChannelEnd, ChannelUser, LinkEnd
from peersd.testing.simulator.plan import BACK_OFF_MS_MAX
from peersd.testing.simulator.proving import Proving
from peersd.testing.simulator.replica import Replica
from peersd.testing.simulator.schedule import Schedule
from peersd.testing.simulator.weighing import Weighing
from peersd_protocol.constants import PARKED_BYTES_MAX
from peersd_protocol.errors import CloseCode
from peersd_protocol.handshake import Role
from peersd_protocol.lanes import (
    Accept,
    Admit,
    Effect,
    End,
    Farewell,
    GroupId,
    LaneId,
    Lanes,
    LaneState,
    Open,
    OpenWithProof,
    Refuse,
    SetTimer,
    Standing,
    Tell,
    Weigh,
)
from peersd_protocol.redemption import Redemption
from peersd_protocol.replication import ParkingLot
from peersd_protocol.tokens import (
    NO_DIGEST,
    SIDE_DIALLER,
    SIDE_LISTENER,
    AcceptPayload,
    OpenPayload,
    decode_accept,
    decode_open,
    decode_refusal,
    encode_refusal,
    group_token,
)
from peersd_protocol.vectors import Vector

if TYPE_CHECKING:
    from peersd.testing.simulator.device import Process

T = TypeVar("T")


@dataclass
class Proof:
    """A redemption that this side sends, and whom to tell of the answer.

    Attributes:
        redemption: what OPEN carries.
        identity: the message that follows it.
        on_accepted: the channel is open.
        on_over: it was refused, for a reason or none, or is over.
    """

    redemption: Redemption
    identity: bytes
    on_accepted: Callable[[], None]
    on_over: Callable[[str | None], None]


@dataclass
class _Lane:
    """What runs in a lane.

    Attributes:
        group: whose lane it is.
        channel: None until its OPEN was sent.
        user: what runs over it once it is accepted.
        proof: what it opens with.
        tells: whether it opens for no session.
        pleads: whether it opens with a plea.
        is_last: whether it does not open without.
        asked: its OPEN, if this side sent one.
        vector: what was stated in it.
    """

    group: GroupId
    channel: int | None = None
    user: ChannelUser | None = None
    proof: Proof | None = None
    tells: bool = False
    pleads: bool = False
    is_last: bool = False
    vector: Vector | None = None
    asked: OpenPayload | None = None


class Sharing:
    """The groups on one link.

    Args:
        schedule: of the simulation.
        end: this side's end of the link.
        process: whose groups they are.
    """

    def __init__(self, schedule: Schedule, end: LinkEnd, process: Process) -> None:
        self._schedule = schedule
        self._end = end
        self._process = process
        is_dialler = end.role is Role.DIALLER
        self._own_side, self._remote_side = (SIDE_DIALLER, SIDE_LISTENER) if is_dialler else (SIDE_LISTENER, SIDE_DIALLER)
        self._machine = Lanes(is_dialler=is_dialler, now_ms=end.now_ms, retry_ms_max=BACK_OFF_MS_MAX)
        self._lanes: dict[LaneId, _Lane] = {}
        self._proofs: dict[LaneId, Proof] = {}
        self._wishes: dict[int, OpenPayload] = {}
        self._rebuttals: dict[int, list[bytes]] = {}
        self._asked: set[GroupId] = set()
        self._lot = ParkingLot()
        self._timer_ms = 0
        self._is_waking = False
        self._is_down = False

    @property
    def groups(self) -> tuple[GroupId, ...]:
        """The groups that have a lane on this link."""
        return self._machine.groups

    def begin(self) -> None:
        """The link is about to carry channels."""
        self._state_groups()

    def wake(self) -> None:
        """Groups or memberships have changed."""
        if not self._is_waking:
            self._is_waking = True
            self._later(0, self._state_groups)

    def members_changed(self, group: GroupId) -> None:
        """What is known of a group's members has changed."""
        self._machine.members_changed(group)
        self.wake()

    def link_down(self) -> None:
        """The link is over."""
        self._is_down = True
        self._machine.link_down()
        for proof in (*self._proofs.values(), *(lane.proof for lane in self._lanes.values() if lane.proof)):
            proof.on_over(None)

    def _later(self, wait_ms: int, event: Callable[[], None]) -> None:
        self._process.later(wait_ms, lambda: None if self._is_down else event())

    def _state_groups(self) -> None:
        self._is_waking = False
        device = self._end.remote_device
        standings = {
            group: self._process.known(replica, device, has_asked=group in self._asked).standing
            for group, replica in self._process.replicas.items()
        }
        self._perform(self._machine.set_groups(standings, self._end.now_ms))

    def join(self, group: GroupId, proof: Proof) -> LaneId:
        """Opens a lane as somebody who holds a ticket."""
        lane, effects = self._machine.join(group, self._end.now_ms)
        self._proofs[lane] = proof
        self._perform(effects)
        return lane

    def give_up(self, lane: LaneId) -> None:
        """Ends a lane; does nothing when it is over."""
        self._end_lane(lane, CloseCode.NORMAL)

    # --- What the link tells ----------------------------------------------------------------------------------------------------

    def requested(self, channel: int, payload: bytes) -> None:
        """The remote side asks for a channel."""
        wish = self._wishes[channel] = decode_open(payload)
        handshake_hash, side = self._end.handshake_hash, self._remote_side
        known = self._process.replicas
        group = next((id_ for id_ in known if group_token(id_, handshake_hash, side) == wish.token), None)
        if group is not None and wish.may_be_asked_back and self._process.asks_back(known[group], self._end.remote_device):
            self._asked.add(group)
            self._state_groups()
        if wish.proof is not None and group is not None:
            self._end.users[channel] = Admission(self._schedule, self._end, channel, self._process, known[group], wish.proof)
        if wish.pleads and group is not None:
            self._end.users[channel] = Weighing(self._end, channel, self._process, known[group])

        def ask_machine() -> None:
            if channel in self._end.requested:
                self._perform(
                    self._machine.requested(
                        channel,
                        group,
                        self._end.now_ms,
                        proof=wish.proof is not None,
                        pleads=wish.pleads,
                        expects_session=wish.expects_session,
                    )
                )

        self._later(0, ask_machine)

    def accepted(self, channel: int, payload: bytes) -> None:
        """The remote side accepted."""
        id_ = self._lane_of(channel)
        if id_ is not None:
            self._perform(self._machine.accepted(id_, self._end.now_ms))
        lane = self._lanes.get(id_) if id_ is not None else None
        if id_ is None or lane is None:
            return
        assert lane.asked is not None
        answer = decode_accept(payload, lane.asked)
        is_equal = answer.digest == lane.asked.digest and lane.proof is None
        self._begin(id_, lane, lane.vector if is_equal else None, answer.beacons)
        if lane.proof is not None:
            lane.proof.on_accepted()

    def refused(self, channel: int, payload: bytes) -> None:
        """The remote side refused."""
        id_ = self._lane_of(channel)
        if id_ is None:
            return
        lane = self._lanes.pop(id_)
        self._perform(self._machine.refused(id_, self._end.now_ms))
        if lane.proof is not None:
            lane.proof.on_over(decode_refusal(payload))

    def gone(self, channel: int) -> None:
        """A channel that nothing ran on was closed, or an OPEN withdrawn."""
        found = self._lane_of(channel)
        if found is not None and channel not in self._wishes:
            self._over(found, None)

    def _lane_of(self, channel: int) -> LaneId | None:
        """Whose channel it is; None for one whose lane has ended here, while what the other side said was under way."""
        return next((id_ for id_, lane in self._lanes.items() if lane.channel == channel), None)

    # --- What the machine asks for ----------------------------------------------------------------------------------------------

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Open(lane, group, pleads):
                    self._open(lane, _Lane(group, pleads=pleads))
                case Tell(lane, group, pleads, is_last):
                    self._open(lane, _Lane(group, tells=True, pleads=pleads, is_last=is_last))
                case OpenWithProof(lane, group):
                    self._open(lane, _Lane(group, proof=self._proofs.pop(lane)))
                case Accept(lane, wish, group):
                    self._answer(lane, wish, group, self._accept)
                case Farewell(lane, wish, group):
                    self._answer(lane, wish, group, self._say_farewell)
                case Admit(wish, _):
                    self._admit(wish)
                case Weigh(wish, _):
                    self._weigh(wish)
                case Refuse(wish, reason):
                    self._refuse(wish, reason)
                case End(lane, code):
                    self._end_lane(lane, code)
                case SetTimer(at_ms):
                    self._set_timer(at_ms)

    def _set_timer(self, at_ms: int) -> None:
        self._timer_ms = at_ms

        def expire() -> None:
            if self._timer_ms == at_ms:
                self._perform(self._machine.timer_expired(self._end.now_ms))

        self._later(at_ms - self._end.now_ms, expire)

    def _open(self, id_: LaneId, lane: _Lane) -> None:
        self._lanes[id_] = lane
        replica = self._process.replicas.get(lane.group)
        if replica is None:
            self._over(id_, None)
            return

        device = self._end.remote_device

        def look() -> tuple[Vector, bytes | None]:
            return replica.store.vector(), replica.store.plea(device, is_last=lane.is_last) if lane.pleads else None

        def open_channel(found: tuple[Vector, bytes | None]) -> None:
            if id_ not in self._lanes or not self._end.is_carrying:
                return
            (vector, plea), proof = found, lane.proof
            if lane.is_last and plea is None:
                self._over(id_, None)
                return
            digest, token = digest_of(lane.group, vector), group_token(lane.group, self._end.handshake_hash, self._own_side)
            payload = OpenPayload(token, digest, replica.copies.book.summary(), pleads=bool(plea))
            if proof is not None:
                payload = OpenPayload(token, NO_DIGEST, proof=proof.redemption)
            elif lane.tells:
                payload = OpenPayload(token, NO_DIGEST, pleads=bool(plea))
            lane.vector, lane.asked = vector, payload
            follows = proof.identity if proof is not None else plea
            now_ms, link = self._end.now_ms, self._end.machine
            lane.channel, effects = link.open_channel(payload.encode(), now_ms, proof_follows=follows is not None)
            self._end.perform(effects)
            if follows is not None:
                self._end.put(lane.channel, follows, bulk=False)
            if plea is not None:
                self._schedule.note(self._process.name, f"{replica.name} pleads with {self._end.remote}: {len(plea)} bytes")

        replica.call("digest", look, open_channel)

    def _answer(self, id_: LaneId, channel: int, group: GroupId, answer: Callable[[LaneId, _Lane, int, Replica], None]) -> None:
        lane = self._lanes[id_] = _Lane(group, channel)
        replica = self._process.replicas.get(group)
        if replica is None or channel not in self._end.requested:
            self._refuse(channel, None)
            self._over(id_, None)
        else:
            answer(id_, lane, channel, replica)

    def _may_accept(self, id_: LaneId, channel: int) -> bool:
        """Whether the lane is still there, and the remote side still waits."""
        if id_ not in self._lanes or not self._end.is_carrying:
            return False
        if channel not in self._end.requested:
            self._over(id_, None)  # withdrawn
            return False
        self._end.requested.discard(channel)
        return True

    def _accept(self, id_: LaneId, lane: _Lane, channel: int, replica: Replica) -> None:
        def accept(vector: Vector) -> None:
            if self._may_accept(id_, channel):
                wish = self._wishes.pop(channel)
                digest = digest_of(lane.group, vector)
                payload = AcceptPayload(digest, replica.copies.book.summary()).encode(wish)
                self._end.perform(self._end.machine.accept(channel, payload, self._end.now_ms))
                self._begin(id_, lane, vector if digest == wish.digest else None, wish.beacons)

        replica.call("digest", replica.store.vector, accept)

    def _say_farewell(self, id_: LaneId, lane: _Lane, channel: int, replica: Replica) -> None:
        device = self._end.remote_device

        def accept(messages: list[bytes]) -> None:
            if self._may_accept(id_, channel):
                wish = self._wishes.pop(channel)
                self._schedule.note(self._process.name, f"{replica.name} says farewell to {self._end.remote}")
                payload = AcceptPayload(NO_DIGEST).encode(wish)
                self._end.perform(self._end.machine.accept(channel, payload, self._end.now_ms))
                end = ChannelEnd(self._end, channel, lambda code: self._over(id_, code))
                lane.user = self._end.users[channel] = Farewelling(self._schedule, self._process, replica, end, messages)
                lane.user.send_soon()

        rebuttal = self._rebuttals.pop(channel, [])
        replica.call("farewell", lambda: rebuttal or replica.store.farewell(device), accept)

    def _prove(self, channel: int, kind: type[Proving[T]], told: Callable[[T], None]) -> None:
        """Looks at what follows an OPEN, and tells what was decided unless the link is down by then."""
        proving = self._end.users.get(channel)
        assert isinstance(proving, kind)

        def decided(verdict: T) -> None:
            if self._is_down:
                return
            if self._end.users.get(channel) is proving:
                del self._end.users[channel]
            told(verdict)

        proving.begin(decided)

    def _admit(self, channel: int) -> None:
        def decided(verdict: tuple[bool, str | None]) -> None:
            is_admitted, reason = verdict
            if is_admitted:
                self._state_groups()
                self._perform(self._machine.admitted(channel, self._end.now_ms))
            else:
                self._perform(self._machine.not_admitted(channel, reason, self._end.now_ms))

        self._prove(channel, Admission, decided)

    def _weigh(self, channel: int) -> None:
        def decided(weighed: tuple[bool, list[bytes]]) -> None:
            has_changed, rebuttal = weighed
            if has_changed:
                self._state_groups()
            if rebuttal:
                self._rebuttals[channel] = rebuttal
            now_ms = self._end.now_ms
            self._perform(self._machine.weighed(channel, now_ms, has_changed=has_changed, is_rebutted=bool(rebuttal)))

        self._prove(channel, Weighing, decided)

    def _refuse(self, channel: int, reason: str | None) -> None:
        self._wishes.pop(channel, None)
        self._rebuttals.pop(channel, None)
        self._end.users.pop(channel, None)
        if self._end.is_carrying and channel in self._end.requested:
            self._end.requested.discard(channel)
            self._end.perform(self._end.machine.refuse(channel, self._end.now_ms, encode_refusal(reason)))

    def _begin(self, id_: LaneId, lane: _Lane, equal_at: Vector | None, remote_beacons: bytes) -> None:
        replica = self._process.replicas.get(lane.group)
        assert lane.channel is not None
        channel = ChannelEnd(self._end, lane.channel, lambda code: self._over(id_, code))
        if replica is None:
            self._end.perform(self._end.machine.close_channel(lane.channel, CloseCode.NORMAL, self._end.now_ms))
            self._over(id_, None)
            return
        session = replica.open_session(channel, self._lot, equal_at, remote_beacons)
        lane.user = self._end.users[lane.channel] = session
        session.take_soon()

    def _end_lane(self, id_: LaneId, code: CloseCode) -> None:
        if id_ in self._proofs:  # whose turn had not come
            self._later(0, lambda: self._perform(self._machine.ended(id_, None, self._end.now_ms)))
            self._proofs.pop(id_).on_over(None)
            return
        lane = self._lanes.get(id_)
        if lane is None:  # it is over, as the machine is about to hear
            return
        if lane.user is not None:
            lane.user.end(code)
            return
        if lane.channel in self._end.requested:
            self._refuse(lane.channel, None)
        elif lane.channel is not None:
            self._end.perform(self._end.machine.close_channel(lane.channel, code, self._end.now_ms))
        self._over(id_, None)

    def _over(self, id_: LaneId, code: CloseCode | None) -> None:
        """Tells the machine in a moment, as a task that has to come to its end does."""
        lane = self._lanes.pop(id_)

        def tell() -> None:
            replica = self._process.replicas.get(lane.group)
            if replica is not None and code is CloseCode.NOT_MEMBER:
                self._process.note_not_member(replica, self._end.remote_device)
            self._perform(self._machine.ended(id_, code, self._end.now_ms))
            if lane.group in self._asked:
                self._asked.discard(lane.group)
                self.wake()

        self._later(self._process.random.choice((0, 0, 1, 2, 5)), tell)
        if lane.proof is not None:
            lane.proof.on_over(None)

    # --- For the checks ---------------------------------------------------------------------------------------------------------

    def check_lot(self) -> str | None:
        """Whether more is parked than there is room for, in words."""
        parked_bytes = self._lot.bytes_parked
        return None if 0 <= parked_bytes <= PARKED_BYTES_MAX else f"{parked_bytes} bytes are parked"

    def channels_without_membership(self) -> Iterable[tuple[str, bool]]:
        """The open lanes of which the two are not both members' devices: in words, and whether this side asks back on it."""
        for group in self._machine.groups:
            replica = self._process.replicas.get(group)
            if replica is None or self._machine.state_of(group) is not LaneState.OPEN:
                continue
            standing = self._process.known(replica, self._end.remote_device, has_asked=group in self._asked).standing
            if standing is not Standing.MEMBER:
                text = f"a channel of {replica.name} with {self._end.remote} outlives the membership"
                yield text, group in self._asked and standing is Standing.LEAVING

    @property
    def bytes_parked(self) -> int:
        """What waits for entries that it rests on."""
        return self._lot.bytes_parked
