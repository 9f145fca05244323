"""Joining a group: a ticket is redeemed at whichever member's device answers (DESIGN 10)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import trio

from peersd.crash_points import CrashPoint, reach
from peersd.errors import PeersdError
from peersd.net.channels import ChannelIsClosed, LinkHandle, OpenRefused
from peersd.node.group import Group
from peersd.node.users import User
from peersd.store.refusals import lift_hint
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.messages import encode_runs
from peersd_protocol.roles import format_role
from peersd_protocol.runs import Run
from peersd_protocol.tickets import Ticket, make_redemption, parse_ticket
from peersd_protocol.tokens import NO_DIGEST, SIDE_DIALLER, SIDE_LISTENER, OpenPayload, decode_refusal, group_token
from peersd_protocol.vectors import Vector

if TYPE_CHECKING:
    from peersd.node.node import Node

_log = logging.getLogger("peersd.node")

ATTEMPT_TIMEOUT_S: Final = 10.0
"""For one address of a ticket, and then for each answer of the device there (DESIGN 5: the time a handshake has)."""

STAGGER_S: Final = 1.0
"""How long an address has before the next is dialled too (RFC 8305 uses 0.25 s for one host's addresses; these are others')."""

_REFUSALS: Final[dict[str, tuple[str, str]]] = {
    "invite_invalid": ("The ticket is not valid in this group.", "Ask for a new ticket."),
    "invite_expired": ("The ticket has expired.", "Ask for a new ticket."),
    "invite_used_up": ("The ticket has been used as often as it may be.", "Ask for a new ticket."),
    "invite_revoked": ("The ticket was revoked.", "Ask for a new ticket."),
    "banned": ("You are banned from this group.", ""),
    "too_large": ("The user's identity log is too large to be sent.", "Report this."),
}


async def accept(
    node: Node, user: User, text: str, timeout_s: float, *, attempt_timeout_s: float = ATTEMPT_TIMEOUT_S
) -> Mapping[str, Any]:
    """invite.accept: tries the ticket's addresses until one lets this user in, and waits until the membership has arrived.

    Args:
        node: the node.
        user: who joins.
        text: the ticket.
        timeout_s: for all of it.
        attempt_timeout_s: for a device to answer, before the next one is asked.
    """
    try:
        ticket = parse_ticket(text)
    except ValueError as error:
        raise PeersdError(
            "invite_invalid", f"{str(error).capitalize()}.", hint="Copy the whole ticket, or ask for a new one."
        ) from error
    with trio.move_on_after(timeout_s):
        # One after the other: two joins of one group at once would make, and perhaps discard, one file.
        async with node.joining.setdefault(ticket.group_id, trio.Lock()):
            known = node.groups.get(ticket.group_id)
            if known is not None and await _has_joined(known, user, ticket):
                return _joined(known, user)
            return await _join(node, user, ticket, attempt_timeout_s)
    raise PeersdError("timeout", "The group did not let this device in in time.", hint="Try again.", retry=True)


async def _has_joined(group: Group, user: User, ticket: Ticket) -> bool:
    async with group.use() as opened:
        return opened.state.has_joined(user.id, ticket.invite_hash)


async def _join(node: Node, user: User, ticket: Ticket, attempt_timeout_s: float) -> Mapping[str, Any]:
    known = node.groups.get(ticket.group_id)
    group = known or await node.files.make(node.files.group_path(ticket.group_id), ticket.group_id, [], None)
    reach(CrashPoint.JOIN_BEGUN)
    joined = False
    try:
        identity = await user.identity_runs()
        try:
            await _redeem_somewhere(_Redeeming(node, user, ticket, group, identity, attempt_timeout_s))
        except PeersdError:
            # Members may have said in the meantime that the user is one of them: let in before, which was not heard here.
            if known is not None or not group.summary.role_of(user.id):
                raise
        reach(CrashPoint.JOIN_REDEEMED)
        registration = user.group_ids.get(group.id)
        if registration is None or registration.left_at_ms is not None:
            await user.register(group)
        await node.addresses.save()  # else a crash now would leave a member who knows nobody's address
        joined = True
    finally:
        if known is None and not joined and group.id not in user.group_ids:
            await node.discard_group(group)
    return _joined(group, user)


@dataclass(frozen=True)
class _Redeeming:
    """A ticket that a user redeems.

    Attributes:
        node: the node.
        user: who joins.
        ticket: the ticket.
        group: the group as it is here, mostly empty yet.
        identity: the user's identity log.
        attempt_timeout_s: for a device to answer, before the next one is asked.
    """

    node: Node
    user: User
    ticket: Ticket
    group: Group
    identity: Sequence[Run]
    attempt_timeout_s: float


async def _redeem_somewhere(redeeming: _Redeeming) -> None:
    """Redeems at one of the ticket's addresses after the other, until one lets the user in, or says why it never will.

    At last over whatever links there are: a member may be linked though no address leads there, as behind a firewall. But who is
    no member learns of the invite and who the user is.

    Raises:
        PeersdError: why the user is not in.
    """
    addresses = redeeming.ticket.addresses
    outcome: PeersdError | None = None
    handles_in, handles = trio.open_memory_channel[LinkHandle](len(addresses))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_dial_all, redeeming.node, addresses, handles_in)
        outcome = await _redeem_in_turn(redeeming, handles)
        nursery.cancel_scope.cancel()
    if outcome is not None:
        raise outcome


async def _redeem_in_turn(redeeming: _Redeeming, handles: trio.MemoryReceiveChannel[LinkHandle]) -> PeersdError | None:
    failure = PeersdError(
        "unreachable",
        "None of the ticket's addresses answered.",
        hint="Ask whether a member's daemon runs and can be reached.",
        retry=True,
    )
    tried: set[LinkHandle] = set()
    async for handle in handles:
        if handle in tried:
            continue
        tried.add(handle)
        try:
            await _redeem(redeeming, handle)
            return None
        except _NotHere as error:
            _log.info("ticket_address_failed", extra={"fields": {"url": handle.url, "reason": str(error)}})
            if error.was_refused:
                failure = _invalid()
        except PeersdError as error:
            return error
    for handle in redeeming.node.links_or_fail().handles():
        if handle not in tried:
            try:
                await _redeem(redeeming, handle)
                return None
            except _NotHere:
                continue
            except PeersdError as error:
                return error
    return failure


def _invalid() -> PeersdError:
    message, hint = _REFUSALS["invite_invalid"]
    return PeersdError("invite_invalid", message, hint=hint)


class _NotHere(Exception):
    """This link does not lead to a device that decides about the ticket.

    Attributes:
        was_refused: whether it answered, without a reason; else the link or the channel ended, or no answer came in time.
    """

    def __init__(self, error: Exception, *, was_refused: bool) -> None:
        super().__init__(str(error))
        self.was_refused = was_refused


async def _dial_all(node: Node, addresses: Sequence[str], handles: trio.MemorySendChannel[LinkHandle]) -> None:
    """Dials one address after the other; a dead one holds the next up for a moment only."""

    async def dial(address: str, done: trio.Event) -> None:
        try:
            handles.send_nowait(await node.links_or_fail().connect(address, None, ATTEMPT_TIMEOUT_S))
        except PeersdError as error:
            _log.info("ticket_address_failed", extra={"fields": {"url": address, "reason": error.message}})
        finally:
            done.set()

    async with handles, trio.open_nursery() as nursery:
        for address in addresses:
            done = trio.Event()
            nursery.start_soon(dial, address, done)
            with trio.move_on_after(STAGGER_S):
                await done.wait()


def _reason(refusal: OpenRefused) -> str | None:
    try:
        return decode_refusal(refusal.payload)
    except RemoteProtocolError:
        return None


async def _redeem(redeeming: _Redeeming, handle: LinkHandle) -> None:
    """Redeems over one link; returns once the membership has arrived.

    Raises:
        _NotHere: another link may do.
        PeersdError: a member's device has refused, and said why.
    """
    try:
        with trio.move_on_after(redeeming.attempt_timeout_s) as attempt:
            try:
                await _redeem_once(redeeming, handle, attempt)
            except _NotHere as error:
                if error.was_refused or handle.is_down:
                    raise
                # A member was let in again and then told that it had left, which nobody had heard of: that ended the channel.
                await _redeem_once(redeeming, handle, attempt)
            return
        raise _NotHere(trio.TooSlowError("no answer in time"), was_refused=False)
    except _NotHere:
        # Others may have shown meanwhile that the user is in.
        if not await _has_joined(redeeming.group, redeeming.user, redeeming.ticket):
            raise


async def _redeem_once(redeeming: _Redeeming, handle: LinkHandle, attempt: trio.CancelScope) -> None:
    """See _redeem. As long as anything comes, the attempt goes on."""
    node, ticket, group = redeeming.node, redeeming.ticket, redeeming.group
    user, identity = redeeming.user, redeeming.identity
    held: Vector | None = None
    try:
        sharing = await node.sharing_of(handle)
        async with group.use() as opened:
            redemption = make_redemption(
                ticket,
                device_key=node.signing_key(),
                user=user.id,
                identity_head_hash=identity[-1].last.hash,
                handshake_hash=handle.handshake_hash,
            )
            side = SIDE_DIALLER if handle.direction == "out" else SIDE_LISTENER
            token = group_token(group.id, handle.handshake_hash, side)
            payload = OpenPayload(token, NO_DIGEST, proof=redemption)
            lane = await sharing.open_with_proof(group, payload, [encode_runs(identity)])
            try:
                # Before the acts show the remote device for a member's nothing is told there, and nobody else would end that.
                while not (
                    (is_in := opened.state.has_joined(user.id, ticket.invite_hash)) and group.may_be_told(handle.remote_device)
                ):
                    if handle.is_down or group.id not in sharing.channels():
                        raise ChannelIsClosed(handle.down_code or CloseCode.GOING_AWAY)
                    if not is_in and held != (held := opened.sync.vector()):
                        attempt.deadline = trio.current_time() + redeeming.attempt_timeout_s
                    with trio.move_on_after(1.0):
                        await opened.sync.wait_progress()
            except BaseException:
                sharing.give_up(lane)
                raise
    except OpenRefused as refusal:
        reason = _reason(refusal)
        if reason is None:
            raise _NotHere(refusal, was_refused=True) from refusal
        message, hint = _REFUSALS[reason]
        if reason == "banned":
            async with group.use() as opened:
                hint = lift_hint(opened.state, opened.state.bans.get(user.id))
        raise PeersdError(reason, message, hint=hint) from refusal
    except (ChannelIsClosed, RemoteProtocolError) as error:
        raise _NotHere(error, was_refused=False) from error


def _joined(group: Group, user: User) -> Mapping[str, Any]:
    return {"group_id": group.text_id, "name": group.name, "role": format_role(group.summary.role_of(user.id))}
