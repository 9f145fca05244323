"""Which channels the hostile link carries: performs what the lanes decide, as peersd.node.sharing does (SPEC: O)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peersd_protocol import lanes as ln
from peersd_protocol import link_effects as le
from peersd_protocol.admission import NotAdmitted, Presented, find_admitting
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.lane_effects import Standing
from peersd_protocol.messages import Block, Runs
from peersd_protocol.tokens import (
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
    from peersd.testing.fuzzing.victim import Session, Victim


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the device closed for a fault of the hostile one: "link", "channel" or "open".

    Attributes:
        late: what the fault was in, where an earlier message had brought it and it had to wait.
    """

    scope: str
    code: CloseCode
    detail: str
    late: Runs | Block | None = None


@dataclass
class _Wish:
    channel: int
    payload: OpenPayload
    proof_follows: bool


class Sharing:
    """The lanes of one link.

    Args:
        victim: whose link it is.
        is_dialler: whether the victim dialled.
    """

    def __init__(self, victim: Victim, *, is_dialler: bool) -> None:
        self._victim = victim
        self._own_side, self._remote_side = (SIDE_DIALLER, SIDE_LISTENER) if is_dialler else (SIDE_LISTENER, SIDE_DIALLER)
        self._lanes = ln.Lanes(is_dialler=is_dialler, now_ms=victim.now_ms)
        self._device = b""
        self._wishes: dict[int, _Wish] = {}
        self._wish_ids = itertools.count(1)
        self._opening: dict[int, tuple[int, OpenPayload, Vector]] = {}
        self._admissions: dict[int, int] = {}
        self._sessions: dict[int, Session] = {}
        self._lane_of: dict[int, int] = {}

    def begin(self, device: bytes) -> None:
        """The link is up."""
        self._device = device
        self.state_groups()

    def link_down(self) -> None:
        """The link is over."""
        self._lanes.link_down()
        for session in list(self._sessions.values()):
            self._victim.close_session(session)
        self._sessions.clear()

    def state_groups(self) -> None:
        """Memberships may have changed."""
        if not self._device:
            return
        is_member = self._device in self._victim.store.state.member_devices
        standing = Standing.MEMBER if is_member else Standing.NONE
        self._perform(self._lanes.set_groups({self._victim.world.group: standing}, self._victim.now_ms))

    def timer_expired(self) -> None:
        """The time of the lanes' timer has come."""
        self._perform(self._lanes.timer_expired(self._victim.now_ms))

    def fail(self, session: Session, error: RemoteProtocolError, late: Runs | Block | None = None) -> None:
        """A session's other side broke a rule; see Refusal."""
        self._note("channel", error, late)
        if session.channel is not None:
            self._close(session.channel, error.close_code, is_remote_fault=True)

    def _note(self, scope: str, error: RemoteProtocolError, late: Runs | Block | None = None) -> None:
        self._victim.refusals.append(Refusal(scope, error.close_code, error.detail, late))

    # --- What the link tells ----------------------------------------------------------------------------------------------------

    def perform_link(self, effect: le.Effect) -> None:
        """Takes an effect of the link's that is about a channel."""
        match effect:
            case le.OpenRequested(channel, payload, proof_follows):
                self._request(channel, payload, proof_follows=proof_follows)
            case le.MessageReceived(channel, message):
                self._receive(channel, message)
            case le.ChannelClosed(channel, code):
                self._closed(channel, code)
            case le.Accepted(channel, payload):
                self._accepted(channel, payload)
            case le.Refused(channel, payload):
                self._refused(channel, payload)
            case _:
                pass  # Wake, Writable and clocks: the driver looks by itself

    def _request(self, channel: int, payload: bytes, *, proof_follows: bool) -> None:
        victim = self._victim
        try:
            decoded = decode_open(payload)
        except RemoteProtocolError as error:
            self._note("open", error)
            self._refuse(channel, b"")
            return
        wish = next(self._wish_ids)
        self._wishes[wish] = _Wish(channel, decoded, proof_follows)
        is_ours = decoded.token == group_token(victim.world.group, victim.handshake_hash, self._remote_side)
        group = victim.world.group if is_ours else None
        self._perform(
            self._lanes.requested(
                wish,
                group,
                victim.now_ms,
                proof=decoded.proof is not None,
                pleads=decoded.pleads,
                expects_session=decoded.expects_session,
            )
        )

    def _refuse(self, channel: int, payload: bytes) -> None:
        assert self._victim.link is not None
        self._victim.perform(self._victim.link.refuse(channel, self._victim.now_ms, payload))

    def _receive(self, channel: int, message: bytes) -> None:
        victim = self._victim
        assert victim.link is not None
        victim.perform(victim.link.consumed(channel, len(message), victim.now_ms))
        if channel in self._admissions:
            wish = self._admissions.pop(channel)
            if self._wishes[wish].payload.pleads:
                self._weigh(wish, message)
            else:
                self._admit(wish, message)
            return
        session = self._sessions.get(channel)
        if session is None:
            return
        try:
            victim.take(session, message)
        except RemoteProtocolError as error:
            self.fail(session, error)
            return
        if channel in self._sessions:
            victim.perform(victim.link.want(channel, victim.now_ms))

    def _closed(self, channel: int, code: CloseCode) -> None:
        wish = self._admissions.pop(channel, None)
        if wish is not None:
            self._wishes[wish].channel = 0
            if self._wishes[wish].payload.pleads:
                self._perform(self._lanes.weighed(wish, self._victim.now_ms, has_changed=False))
            else:
                self._perform(self._lanes.not_admitted(wish, None, self._victim.now_ms))
        waiting = next((number for number, one in self._wishes.items() if one.channel == channel), None)
        if waiting is not None:
            self._wishes[waiting].channel = 0  # withdrawn: what is decided for it goes nowhere
        self._end(channel, code)

    def _accepted(self, channel: int, payload: bytes) -> None:
        lane, asked, vector = self._opening.pop(channel)
        try:
            accept = decode_accept(payload, asked)
        except RemoteProtocolError as error:
            self._note("channel", error)
            self._lane_of[channel] = lane
            self._close(channel, error.close_code, is_remote_fault=True)
            return
        self._perform(self._lanes.accepted(lane, self._victim.now_ms))
        self._serve(lane, channel, vector if accept.digest == asked.digest else None, accept.beacons)

    def _refused(self, channel: int, payload: bytes) -> None:
        lane, _, _ = self._opening.pop(channel)
        try:
            decode_refusal(payload)
        except RemoteProtocolError as error:
            self._note("open", error)
        self._perform(self._lanes.refused(lane, self._victim.now_ms))

    # --- What the lanes decide --------------------------------------------------------------------------------------------------

    def _perform(self, effects: Iterable[ln.Effect]) -> None:
        for effect in effects:
            match effect:
                case ln.Open(lane, _, pleads):
                    self._open(lane, pleads=pleads)
                case ln.Accept(lane, wish, _):
                    self._accept(lane, self._wishes.pop(wish))
                case ln.Admit(wish, _):
                    self._look_at(wish)
                case ln.Refuse(wish, reason):
                    channel = self._wishes.pop(wish).channel
                    error = RemoteProtocolError(CloseCode.REFUSED, f"an OPEN is refused: {reason}")
                    self._note("open", error)
                    if channel:
                        self._refuse(channel, encode_refusal(reason))
                case ln.End(lane, code):
                    self._end_lane(lane, code)
                case ln.SetTimer(at_ms):
                    self._victim.set_timer("lanes", "", at_ms)
                case ln.Weigh(wish, _):
                    self._await_plea(wish)
                case ln.OpenWithProof() | ln.Farewell() | ln.Tell():
                    raise AssertionError("nobody joins here, and former members are not served")

    def _open(self, lane: int, *, pleads: bool) -> None:
        victim = self._victim
        link = victim.link
        assert link is not None
        if link.open_wait_ms(victim.now_ms) != 0:
            self._perform(self._lanes.refused(lane, victim.now_ms))
            return
        digest, vector = victim.state_held()
        token = group_token(victim.world.group, victim.handshake_hash, self._own_side)
        plea = victim.store.plea(self._device) if pleads else None
        asked = OpenPayload(token, digest, victim.book.summary(), pleads=plea is not None)
        channel, effects = link.open_channel(asked.encode(), victim.now_ms, proof_follows=plea is not None)
        self._opening[channel] = lane, asked, vector
        victim.perform(effects)
        if plea is not None:
            victim.perform(link.send(channel, plea, victim.now_ms, bulk=False))

    def _accept(self, lane: int, wish: _Wish) -> None:
        victim = self._victim
        if not wish.channel:
            self._perform(self._lanes.ended(lane, None, victim.now_ms))
            return
        assert victim.link is not None
        digest, vector = victim.state_held()
        payload = AcceptPayload(digest, victim.book.summary()).encode(wish.payload)
        victim.perform(victim.link.accept(wish.channel, payload, victim.now_ms))
        self._serve(lane, wish.channel, vector if wish.payload.digest == digest else None, wish.payload.beacons)

    def _serve(self, lane: int, channel: int, equal_at: Vector | None, remote_beacons: bytes) -> None:
        victim = self._victim
        assert victim.link is not None
        self._lane_of[channel] = lane
        self._sessions[channel] = victim.open_session(channel, self._device, equal_at, remote_beacons)
        victim.perform(victim.link.want(channel, victim.now_ms))

    def _end_lane(self, lane: int, code: CloseCode) -> None:
        opening = next((channel for channel, opened in self._opening.items() if opened[0] == lane), None)
        if opening is not None:
            del self._opening[opening]
            self._lane_of[opening] = lane
        channel = next((channel for channel, its in self._lane_of.items() if its == lane), None)
        if channel is not None:
            self._close(channel, code)

    def _close(self, channel: int, code: CloseCode, *, is_remote_fault: bool = False) -> None:
        """Closes a channel here."""
        victim = self._victim
        assert victim.link is not None
        victim.perform(victim.link.close_channel(channel, code, victim.now_ms))
        self._end(channel, code, is_remote_fault=is_remote_fault)

    def _end(self, channel: int, code: CloseCode, *, is_remote_fault: bool = False) -> None:
        session = self._sessions.pop(channel, None)
        if session is not None:
            self._victim.close_session(session)
        lane = self._lane_of.pop(channel, None)
        if lane is not None:
            self._perform(self._lanes.ended(lane, code, self._victim.now_ms, is_remote_fault=is_remote_fault))

    # --- Admitting, as peersd.node.admission does -------------------------------------------------------------------------------

    def _look_at(self, wish: int) -> None:
        victim, one = self._victim, self._wishes[wish]
        assert victim.link is not None
        try:
            find_admitting(victim.store.state, self._presented(wish), victim.world.victim.keys.device)
        except NotAdmitted as refusal:
            self._perform(self._lanes.not_admitted(wish, refusal.reason, victim.now_ms))
            return
        if not one.proof_follows:
            self._admit(wish, b"")
            return
        self._admissions[one.channel] = wish
        victim.perform(victim.link.want(one.channel, victim.now_ms))

    def _presented(self, wish: int) -> Presented:
        proof = self._wishes[wish].payload.proof
        assert proof is not None
        return Presented(proof, self._device, self._victim.handshake_hash)

    def _await_plea(self, wish: int) -> None:
        victim, one = self._victim, self._wishes[wish]
        assert victim.link is not None
        if not one.proof_follows:
            self._perform(self._lanes.weighed(wish, victim.now_ms, has_changed=False))
            return
        self._admissions[one.channel] = wish
        victim.perform(victim.link.want(one.channel, victim.now_ms))

    def _weigh(self, wish: int, message: bytes) -> None:
        victim = self._victim
        has_changed = False
        try:
            commit, _ = victim.store.take_plea(message, self._device)
            has_changed = commit is not None
            victim.tell(commit)
        except RemoteProtocolError as error:
            self._note("open", error)
        if has_changed:
            self.state_groups()
        self._perform(self._lanes.weighed(wish, victim.now_ms, has_changed=has_changed))

    def _admit(self, wish: int, message: bytes) -> None:
        """The identity log came: decides."""
        victim = self._victim
        try:
            victim.store.admit(self._presented(wish), message, victim.wall_ms(), victim.tell)
        except NotAdmitted as refusal:
            self._perform(self._lanes.not_admitted(wish, refusal.reason, victim.now_ms))
            return
        self.state_groups()
        self._perform(self._lanes.admitted(wish, victim.now_ms))
