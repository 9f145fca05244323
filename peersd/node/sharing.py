"""What two linked devices share: which channels to open, whose opens to accept, and the sessions on them (DESIGN 5, 9, 10)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import trio

from peersd.errors import PeersdError
from peersd.net.channels import Channel, ChannelIsClosed, IncomingOpen, LinkHandle, OpenRefused
from peersd.node.admission import Refusal, admit
from peersd.node.group import Group
from peersd.sync.group_sync import ChannelClosed
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.replication import ParkingLot
from peersd_protocol.tokens import (
    SIDE_DIALLER,
    SIDE_LISTENER,
    AcceptPayload,
    OpenPayload,
    decode_accept,
    decode_open,
    encode_refusal,
    group_token,
    vector_digest,
)
from peersd_protocol.vectors import Vector, encode_vector

_log = logging.getLogger("peersd.node")

LISTENER_WAIT_S: Final = 0.5
"""How long a listener leaves it to the dialler to open what they share (guess: some round trips)."""

RETRY_S_MIN: Final = 1.0
RETRY_S_MAX: Final = 60.0
LIVED_S: Final = 10.0
"""Waits before a channel that was refused or ended is opened again: doubling, anew after a session that lived (guess)."""


class SessionChannel:
    """A link's channel as a session uses it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def send(self, message: bytes, *, bulk: bool = False) -> None:
        """See GroupSync."""
        try:
            await self._channel.send(message, bulk=bulk)
        except ChannelIsClosed as error:
            raise ChannelClosed from error

    async def receive(self) -> bytes:
        """See GroupSync."""
        try:
            return await self._channel.receive()
        except ChannelIsClosed as error:
            raise ChannelClosed from error

    def close(self, code: CloseCode) -> None:
        """See GroupSync."""
        self._channel.close(code)


@dataclass
class _Lane:
    """A group's place on the link: opening, or open with `scope` running its session.

    Attributes:
        scope: cancelled to end it.
        ended: set when it has.
        was_shared: whether the group was shared with the remote device; while somebody joins it is not yet.
    """

    scope: trio.CancelScope
    ended: trio.Event
    was_shared: bool = False


@dataclass
class _Patience:
    """When a group may be opened again."""

    wait_s: float = 0.0
    not_before: float = -math.inf


class _Answer:
    """What the remote side said to an OPEN with a proof."""

    def __init__(self) -> None:
        self.given = trio.Event()
        self.error: Exception | None = None


class Sharing:
    """What is shared over one link.

    Args:
        handle: the link; it stays.
        groups: all open groups by id; looked at whenever `wake` is called.
        own_users: this device's users.
        wall_ms: the clock that judges the expiry of invites.
    """

    def __init__(
        self, handle: LinkHandle, groups: Mapping[bytes, Group], own_users: Callable[[], list[bytes]], wall_ms: Callable[[], int]
    ) -> None:
        self._handle = handle
        self._groups = groups
        self._own_users = own_users
        self._wall_ms = wall_ms
        self._own_side, self._remote_side = (
            (SIDE_DIALLER, SIDE_LISTENER) if handle.direction == "out" else (SIDE_LISTENER, SIDE_DIALLER)
        )
        self._lanes: dict[bytes, _Lane] = {}
        self._patience: dict[bytes, _Patience] = {}
        self._lot = ParkingLot()
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Serves the link until it is down."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._open_shared)
            async for wish in self._handle.incoming:
                nursery.start_soon(self._answer, wish)
            nursery.cancel_scope.cancel()

    def wake(self) -> None:
        """Groups or memberships have changed."""
        self._changed.set()

    def channels(self) -> list[bytes]:
        """The groups that have a lane on this link."""
        return list(self._lanes)

    # --- Opening ----------------------------------------------------------------------------------------------------------------

    def _is_shared(self, group: Group) -> bool:
        """Whether data of the group may flow to the remote device: it is a standing member's, and so is this one."""
        state = group.state
        return bool(state.is_member_device(self._handle.remote_device)) and any(state.role_of(user) for user in self._own_users())

    async def _open_shared(self) -> None:
        if self._handle.direction == "in":
            await trio.sleep(LISTENER_WAIT_S)
        assert self._nursery is not None
        while True:
            self._changed = trio.Event()
            now = trio.current_time()
            next_try = math.inf
            for group_id, group in list(self._groups.items()):
                shared = self._is_shared(group)
                lane = self._lanes.get(group_id)
                if lane is not None:
                    lane.was_shared |= shared
                    if lane.was_shared and not shared:
                        lane.scope.cancel()
                if not shared or lane is not None:
                    continue
                not_before = self._patience.get(group_id, _Patience()).not_before
                if not_before <= now:
                    self._nursery.start_soon(self._open, group)
                next_try = min(next_try, not_before if not_before > now else math.inf)
            for group_id, lane in self._lanes.items():
                if group_id not in self._groups:
                    lane.scope.cancel()
            with trio.move_on_at(next_try):
                await self._changed.wait()

    async def _open(self, group: Group) -> None:
        if group.id in self._lanes:
            return
        lane = self._lanes[group.id] = _Lane(trio.CancelScope(), trio.Event())
        try:
            with lane.scope:
                vector, digest = await self._digest(group)
                token = group_token(group.id, self._handle.handshake_hash, self._own_side)
                channel = await self._handle.open(OpenPayload(token, digest).encode())
                accept = decode_accept(channel.accept_payload)
                await self._run_session(group, channel, vector if accept.digest == digest else None)
        except OpenRefused:
            self._back_off(group.id)
        except (ChannelIsClosed, PeersdError):
            self._back_off(group.id)
        except RemoteProtocolError as error:
            _log.warning("open_failed", extra={"fields": {"group": group.id[:4].hex(), "detail": error.detail}})
            self._back_off(group.id)
        finally:
            self._end_lane(group.id, lane)

    async def open_with_proof(self, group: Group, payload: OpenPayload, proof_messages: list[bytes]) -> None:
        """Opens a channel as somebody who holds a ticket; returns when it is accepted, and the session runs on as any other.

        Raises:
            OpenRefused, ChannelIsClosed: it did not come to a session.
            RemoteProtocolError: the answer cannot be read.
        """
        assert self._nursery is not None
        answer = _Answer()
        self._nursery.start_soon(self._run_proved, group, payload, proof_messages, answer)
        await answer.given.wait()
        if answer.error is not None:
            raise answer.error

    async def _run_proved(self, group: Group, payload: OpenPayload, proof_messages: list[bytes], answer: _Answer) -> None:
        lane = self._lanes[group.id] = _Lane(trio.CancelScope(), trio.Event())
        try:
            with lane.scope:
                try:
                    channel = await self._handle.open(payload.encode(), proof_messages)
                    decode_accept(channel.accept_payload)
                except (OpenRefused, ChannelIsClosed, PeersdError, RemoteProtocolError) as error:
                    answer.error = error
                    return
                answer.given.set()
                await self._run_session(group, channel, None)
        finally:
            if not answer.given.is_set():
                answer.error = answer.error or ChannelIsClosed(CloseCode.GOING_AWAY)
                answer.given.set()
            self._end_lane(group.id, lane)

    def _end_lane(self, group_id: bytes, lane: _Lane) -> None:
        if self._lanes.get(group_id) is lane:
            del self._lanes[group_id]
        lane.ended.set()
        self.wake()

    def _back_off(self, group_id: bytes) -> None:
        patience = self._patience.setdefault(group_id, _Patience())
        patience.wait_s = min(RETRY_S_MAX, max(RETRY_S_MIN, patience.wait_s * 2))
        patience.not_before = trio.current_time() + patience.wait_s

    async def _digest(self, group: Group) -> tuple[Vector, bytes]:
        vector = await group.store.call(group.store.store.vector)
        return vector, vector_digest(group.id, encode_vector(vector))

    async def _run_session(self, group: Group, channel: Channel, equal_at: Vector | None) -> None:
        began = trio.current_time()
        try:
            code = await group.sync.run_session(self._handle.remote_device, SessionChannel(channel), self._lot, equal_at)
        finally:
            channel.close()
            group.view(self._handle.remote_device).last_seen_ms = self._wall_ms()
        if code is CloseCode.NORMAL and trio.current_time() - began >= LIVED_S:
            self._patience.pop(group.id, None)
        else:
            self._back_off(group.id)

    # --- Answering --------------------------------------------------------------------------------------------------------------

    async def _answer(self, wish: IncomingOpen) -> None:
        """Accepts or refuses an OPEN. Whatever is not an answer to a member is the one constant REFUSE."""
        try:
            payload = decode_open(wish.payload)
        except RemoteProtocolError:
            wish.refuse()
            return
        group = self._group_of(payload.token)
        if group is None:
            wish.refuse()
            return
        try:
            if payload.proof is not None:
                await admit(group, payload.proof, wish, self._handle, self._own_users(), self._wall_ms())
            elif not self._is_shared(group):
                raise Refusal(None)
            lane = await self._take_lane(group.id)
        except Refusal as refusal:
            wish.refuse(encode_refusal(refusal.reason))
            return
        except ChannelIsClosed:
            return
        try:
            with lane.scope:
                vector, digest = await self._digest(group)
                channel = wish.accept(AcceptPayload(digest).encode())
                await self._run_session(group, channel, vector if digest == payload.digest else None)
        except ChannelIsClosed:
            pass
        except PeersdError:  # this group's file: other groups on the link go on
            self._back_off(group.id)
        finally:
            if not wish.is_answered:
                wish.refuse()
            self._end_lane(group.id, lane)

    def _group_of(self, token: bytes) -> Group | None:
        for group_id, group in self._groups.items():
            if group_token(group_id, self._handle.handshake_hash, self._remote_side) == token:
                return group
        return None

    async def _take_lane(self, group_id: bytes) -> _Lane:
        """A group has one lane on a link: where both sides open at once, the dialler's OPEN counts."""
        old = self._lanes.get(group_id)
        while old is not None:  # several OPENs may have waited for one lane to end
            if self._handle.direction == "out":
                raise Refusal(None)
            old.scope.cancel()
            await old.ended.wait()
            old = self._lanes.get(group_id)
        lane = self._lanes[group_id] = _Lane(trio.CancelScope(), trio.Event())
        return lane
