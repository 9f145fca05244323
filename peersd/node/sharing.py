"""What two linked devices share: performs what the machine of the lanes decides, on channels and groups (DESIGN 5, 9, 10)."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

import trio

from peersd.errors import PeersdError
from peersd.monotonic import monotonic_ms
from peersd.net.channels import Channel, ChannelIsClosed, IncomingOpen, LinkHandle, OpenRefused
from peersd.node.admission import admit, receive_proof
from peersd.node.group import Group
from peersd.node.lane import Stated
from peersd.node.weighing import weigh
from peersd.sync.group_sync import ChannelClosed
from peersd_protocol import ids
from peersd_protocol.admission import NotAdmitted, Presented
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.lanes import (
    Accept,
    Admit,
    Effect,
    End,
    Farewell,
    LaneId,
    Lanes,
    LaneState,
    Open,
    OpenWithProof,
    Refuse,
    SetTimer,
    Tell,
    Weigh,
    WishId,
)
from peersd_protocol.replication import ParkingLot
from peersd_protocol.tokens import (
    NO_DIGEST,
    SIDE_DIALLER,
    SIDE_LISTENER,
    AcceptPayload,
    OpenPayload,
    decode_accept,
    decode_open,
    encode_refusal,
    group_token,
)

if TYPE_CHECKING:
    from peersd.node.node import Node

_log = logging.getLogger("peersd.node")

FAREWELL_TIMEOUT_S: Final = 30.0
"""How long a former member's device may take to hear why it gets nothing more (guess)."""


class SessionChannel:
    """A link's channel as a session uses it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def send(self, message: bytes, *, bulk: bool = False, in_order: bool = False) -> None:
        """See GroupSync."""
        try:
            await self._channel.send(message, bulk=bulk, in_order=in_order)
        except ChannelIsClosed as error:
            raise ChannelClosed from error

    def send_nowait(self, message: bytes, *, bulk: bool = False, in_order: bool = False) -> bool:
        """See GroupSync."""
        return self._channel.send_nowait(message, bulk=bulk, in_order=in_order)

    async def receive(self) -> bytes:
        """See GroupSync."""
        try:
            return await self._channel.receive()
        except ChannelIsClosed as error:
            raise ChannelClosed from error

    def receive_nowait(self) -> bytes | None:
        """See GroupSync."""
        return self._channel.receive_nowait()

    def close(self, code: CloseCode) -> None:
        """See GroupSync."""
        self._channel.close(code)


class _Wish:
    """An OPEN of the remote side."""

    def __init__(self, incoming: IncomingOpen, payload: OpenPayload) -> None:
        self.incoming = incoming
        self.payload = payload
        self.rebuttal: list[bytes] = []
        """What is to be said against its plea, in place of the farewell."""


class _Join:
    """An OPEN with a proof of this side, and what was answered to it."""

    def __init__(self, payload: OpenPayload, messages: Sequence[bytes]) -> None:
        self.payload = payload
        self.messages = messages
        self.answered = trio.Event()
        self.error: Exception | None = None

    def fail(self, error: Exception) -> None:
        """The first answer counts."""
        if not self.answered.is_set():
            self.error = error
            self.answered.set()


class Sharing:
    """What is shared over one link.

    Args:
        handle: the link; it stays.
        node: whose groups they are.
    """

    def __init__(self, handle: LinkHandle, node: Node) -> None:
        self._handle = handle
        self._node = node
        is_dialler = handle.direction == "out"
        self._own_side, self._remote_side = (SIDE_DIALLER, SIDE_LISTENER) if is_dialler else (SIDE_LISTENER, SIDE_DIALLER)
        self._machine = Lanes(is_dialler=is_dialler, now_ms=monotonic_ms(), retry_ms_max=node.patience.reopen_ms_max)
        self._lot = ParkingLot()
        self._scopes: dict[LaneId, trio.CancelScope] = {}
        self._channels: dict[LaneId, Channel] = {}
        self._wishes: dict[WishId, _Wish] = {}
        self._wish_ids = itertools.count(1)
        self._joins: dict[LaneId, _Join] = {}
        self._tokens: dict[bytes, bytes] = {}
        """The groups by the tokens that the remote side opens them with."""
        self._asked: set[bytes] = set()
        """The groups that the remote side has opened while this device was no member's."""
        self._timer_s = math.inf
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Serves the link until it is down."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._state_groups()  # before the first OPEN is looked at: the machine refuses what it was not told of
                nursery.start_soon(self._watch)
                async for incoming in self._handle.incoming:
                    self._request(incoming)
                nursery.cancel_scope.cancel()
        finally:
            self._machine.link_down()
            for join in self._joins.values():
                join.fail(ChannelIsClosed(self._handle.down_code or CloseCode.GOING_AWAY))

    def wake(self) -> None:
        """Groups or memberships have changed."""
        self._changed.set()

    def members_changed(self, group: bytes) -> None:
        """What is known of a group's members has changed."""
        self._machine.members_changed(group)
        self.wake()

    def channels(self) -> dict[bytes, str]:
        """The groups that have a lane on this link, and what it is doing."""
        return {group: "open" if self._is_open(group) else "opening" for group in self._machine.groups}

    def _is_open(self, group: bytes) -> bool:
        return self._machine.state_of(group) is LaneState.OPEN

    async def open_with_proof(self, group: Group, payload: OpenPayload, proof_messages: Sequence[bytes]) -> LaneId:
        """Opens a channel as somebody who holds a ticket; returns when it is accepted, and the session runs on as any other.

        Who does not get in by it gives the lane that is returned up.

        Raises:
            OpenRefused, ChannelIsClosed: it did not come to a session.
            RemoteProtocolError: the answer cannot be read.
        """
        lane, effects = self._machine.join(group.id, monotonic_ms())
        join = self._joins[lane] = _Join(payload, proof_messages)
        self._perform(effects)
        try:
            await join.answered.wait()
        finally:
            if not join.answered.is_set():
                join.fail(ChannelIsClosed(CloseCode.NORMAL))
                self.give_up(lane)
        if join.error is not None:
            raise join.error
        return lane

    def give_up(self, lane: LaneId) -> None:
        """Ends a lane, or the wait for it; does nothing when it is over."""
        if lane in self._scopes:
            self._scopes[lane].cancel()
        elif self._joins.pop(lane, None) is not None:
            self._perform(self._machine.ended(lane, None, monotonic_ms()))

    # --- What goes into the machine ---------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Tells the machine of memberships and of time."""
        while True:
            self._changed = trio.Event()
            self._state_groups()
            with trio.move_on_at(self._timer_s):
                await self._changed.wait()
            if trio.current_time() >= self._timer_s:
                self._timer_s = math.inf
                self._perform(self._machine.timer_expired(monotonic_ms()))

    def _state_groups(self) -> None:
        self._perform(self._machine.set_groups(self._node.standings(self._handle.remote_device, self._asked), monotonic_ms()))

    def _request(self, incoming: IncomingOpen) -> None:
        try:
            payload = decode_open(incoming.payload)
        except RemoteProtocolError:
            incoming.refuse()
            return
        wish = next(self._wish_ids)
        self._wishes[wish] = _Wish(incoming, payload)
        group = self._group_of(payload.token)
        if (
            group is not None
            and payload.may_be_asked_back
            and self._node.asks_back(self._node.groups[group], self._handle.remote_device)
        ):
            self._asked.add(group)
            self._state_groups()
        self._perform(
            self._machine.requested(
                wish,
                group,
                monotonic_ms(),
                proof=payload.proof is not None,
                pleads=payload.pleads,
                expects_session=payload.expects_session,
            )
        )

    def _group_of(self, token: bytes) -> bytes | None:
        for id_ in self._node.groups.keys() - self._tokens.values():
            self._tokens[group_token(id_, self._handle.handshake_hash, self._remote_side)] = id_
        group = self._tokens.get(token)
        return group if group in self._node.groups else None

    # --- Effects ----------------------------------------------------------------------------------------------------------------

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Open(lane, group, pleads):
                    self._begin(lane, group, self._open, lane, group, pleads)
                case Tell(lane, group, pleads, is_last):
                    self._begin(lane, group, self._tell, lane, group, pleads, is_last)
                case OpenWithProof(lane, group):
                    self._begin(lane, group, self._open_proved, lane, group)
                case Accept(lane, wish, group):
                    self._begin(lane, group, self._accept, lane, wish, group)
                case Farewell(lane, wish, group):
                    self._begin(lane, group, self._say_farewell, lane, wish, group)
                case Admit(wish, group):
                    assert self._nursery is not None
                    self._nursery.start_soon(self._admit, wish, group)
                case Weigh(wish, group):
                    assert self._nursery is not None
                    self._nursery.start_soon(self._weigh, wish, group)
                case Refuse(wish, reason):
                    refused = self._wishes.pop(wish)
                    if not refused.incoming.is_answered:
                        refused.incoming.refuse(encode_refusal(reason))
                case End(lane, close_code):
                    if lane in self._channels:
                        self._channels[lane].close(close_code)
                    if lane in self._joins:
                        self._joins[lane].fail(ChannelIsClosed(close_code))
                    self.give_up(lane)
                case SetTimer(at_ms):
                    self._timer_s = at_ms / 1000
                    self._changed.set()

    def _begin(self, lane: LaneId, group: bytes, serve: Callable[..., Awaitable[CloseCode | None]], *args: object) -> None:
        assert self._nursery is not None
        self._scopes[lane] = trio.CancelScope()
        self._nursery.start_soon(self._run_lane, lane, group, serve, args)

    async def _run_lane(
        self, lane: LaneId, group_id: bytes, serve: Callable[..., Awaitable[CloseCode | None]], args: Sequence[object]
    ) -> None:
        """Runs one lane to its end, however that comes, and tells the machine of it."""
        own_code: CloseCode | None = None
        try:
            with self._scopes[lane]:
                own_code = await serve(*args)
        except (OpenRefused, ChannelIsClosed, PeersdError) as error:
            self._fail_join(lane, error)
        except RemoteProtocolError as error:
            own_code = error.close_code
            _log.warning("open_failed", extra={"fields": {"group": ids.format_id(ids.GROUP, group_id), "detail": error.detail}})
            self._fail_join(lane, error)
        finally:
            self._fail_join(lane, ChannelIsClosed(CloseCode.GOING_AWAY))
            self._joins.pop(lane, None)
            del self._scopes[lane]
            channel = self._channels.pop(lane, None)
            if channel is not None and channel.closed is None:
                channel.close(own_code or CloseCode.NORMAL)  # it came to no session, which would have closed it
            code = channel.closed if channel else None
            group = self._node.groups.get(group_id)
            if group is not None and code is CloseCode.NOT_MEMBER:
                self._node.note_not_member(group, self._handle.remote_device)
            if group_id in self._asked:
                self._asked.discard(group_id)
                self.wake()
            is_remote_fault = own_code is not None and own_code.is_fault_of_other
            self._perform(self._machine.ended(lane, code, monotonic_ms(), is_remote_fault=is_remote_fault))

    def _fail_join(self, lane: LaneId, error: Exception) -> None:
        if lane in self._joins:
            self._joins[lane].fail(error)

    # --- Lanes ------------------------------------------------------------------------------------------------------------------

    async def _open(self, lane: LaneId, group_id: bytes, pleads: bool) -> CloseCode | None:
        group = self._node.groups.get(group_id)
        if group is None:
            return None
        plea = await self._plea(group) if pleads else ()
        stated = await group.digest()
        token = group_token(group_id, self._handle.handshake_hash, self._own_side)
        asked = OpenPayload(token, stated.digest, group.copies.book.summary(), pleads=bool(plea))
        channel = self._channels[lane] = await self._handle.open(asked.encode(), plea)
        accept = decode_accept(channel.accept_payload, asked)
        self._perform(self._machine.accepted(lane, monotonic_ms()))
        return await self._serve(group, channel, accept.digest == stated.digest, stated, accept.beacons)

    async def _tell(self, lane: LaneId, group_id: bytes, pleads: bool, is_last: bool) -> CloseCode | None:
        """Opens for no session; the only answer to that is REFUSE."""
        group = self._node.groups.get(group_id)
        if group is None:
            return None
        plea = await self._plea(group, is_last=is_last) if pleads else ()
        if is_last and not plea:
            return None
        token = group_token(group_id, self._handle.handshake_hash, self._own_side)
        asked = OpenPayload(token, NO_DIGEST, pleads=bool(plea))
        self._channels[lane] = await self._handle.open(asked.encode(), plea)
        raise RemoteProtocolError(CloseCode.PROTOCOL, "an OPEN that expects no session is accepted")

    async def _plea(self, group: Group, *, is_last: bool = False) -> Sequence[bytes]:
        """What to send after an OPEN that pleads: a message, or none."""
        async with group.use() as opened:
            plea = await opened.store.plea(self._handle.remote_device, is_last=is_last)
        return () if plea is None else (plea,)

    async def _open_proved(self, lane: LaneId, group_id: bytes) -> CloseCode | None:
        join, group = self._joins[lane], self._node.groups.get(group_id)
        if group is None:
            return None
        channel = self._channels[lane] = await self._handle.open(join.payload.encode(), join.messages)
        accept = decode_accept(channel.accept_payload, join.payload)
        self._perform(self._machine.accepted(lane, monotonic_ms()))
        join.answered.set()
        return await group.run_lane(self._handle.remote_device, SessionChannel(channel), self._lot, None, accept.beacons)

    async def _accept(self, lane: LaneId, wish_id: WishId, group_id: bytes) -> CloseCode | None:
        wish, group = self._wishes.pop(wish_id), self._node.groups.get(group_id)
        try:
            if group is None:
                return None
            stated = await group.digest()
            answer = AcceptPayload(stated.digest, group.copies.book.summary()).encode(wish.payload)
            channel = self._channels[lane] = wish.incoming.accept(answer)
            return await self._serve(group, channel, wish.payload.digest == stated.digest, stated, wish.payload.beacons)
        finally:
            if not wish.incoming.is_answered:
                wish.incoming.refuse()

    async def _serve(self, group: Group, channel: Channel, is_equal: bool, stated: Stated, remote_beacons: bytes) -> CloseCode:
        equal = stated if is_equal else None
        return await group.run_lane(self._handle.remote_device, SessionChannel(channel), self._lot, equal, remote_beacons)

    async def _say_farewell(self, lane: LaneId, wish_id: WishId, group_id: bytes) -> None:
        """Sends a device that is no member's any more the acts that say so, and nothing else."""
        wish, group = self._wishes.pop(wish_id), self._node.groups.get(group_id)
        try:
            if group is None:
                return
            device = self._handle.remote_device
            async with group.use() as opened:
                messages = wish.rebuttal or await opened.store.farewell(device)
            answer = AcceptPayload(NO_DIGEST).encode(wish.payload)
            channel = self._channels[lane] = wish.incoming.accept(answer)
            with trio.move_on_after(FAREWELL_TIMEOUT_S):
                for message in messages:
                    await channel.send(message, bulk=True)
                await channel.flush()
            channel.close(CloseCode.NOT_MEMBER)
        finally:
            if not wish.incoming.is_answered:
                wish.incoming.refuse()

    async def _weigh(self, wish_id: WishId, group_id: bytes) -> None:
        """Looks at a plea. Whatever it was, its sender is told no more than what becomes of its OPEN."""
        wish, group = self._wishes[wish_id], self._node.groups.get(group_id)
        incoming, device, has_changed = wish.incoming, self._handle.remote_device, False
        try:
            message = await receive_proof(incoming)
            if group is not None and message:
                has_changed, wish.rebuttal = await weigh(group, message, device)
        except RemoteProtocolError as error:
            shown = ids.format_id(ids.DEVICE, device)
            fields = {"group": ids.format_id(ids.GROUP, group_id), "device": shown, "detail": error.detail}
            _log.warning("plea_refused", extra={"fields": fields})
        except (ChannelIsClosed, PeersdError):
            pass
        if has_changed:
            self._state_groups()
        is_rebutted = bool(wish.rebuttal)
        self._perform(self._machine.weighed(wish_id, monotonic_ms(), has_changed=has_changed, is_rebutted=is_rebutted))

    async def _admit(self, wish_id: WishId, group_id: bytes) -> None:
        """Looks at a proof. Whatever is not an answer to who holds a ticket is the one constant REFUSE."""
        wish, group = self._wishes[wish_id], self._node.groups.get(group_id)
        handle, node = self._handle, self._node
        assert wish.payload.proof is not None
        presented = Presented(wish.payload.proof, handle.remote_device, handle.handshake_hash)
        reason: str | None = None
        is_admitted = False
        try:
            if group is not None:
                await admit(group, presented, wish.incoming, node.signing_key().public, node.wall_ms)
                is_admitted = True
        except NotAdmitted as refusal:
            reason = refusal.reason
        except (ChannelIsClosed, PeersdError):
            pass
        if is_admitted:
            self._state_groups()
            self._perform(self._machine.admitted(wish_id, monotonic_ms()))
        else:
            self._perform(self._machine.not_admitted(wish_id, reason, monotonic_ms()))
