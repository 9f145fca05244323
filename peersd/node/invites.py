"""Invites: making, listing and revoking them here, and redeeming a ticket elsewhere (DESIGN 10)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import trio

from peersd.errors import PeersdError
from peersd.net.channels import ChannelIsClosed, LinkHandle, OpenRefused
from peersd.node.group import Group
from peersd.node.naming import find, format_time
from peersd_protocol import ids
from peersd_protocol.acts import Invite, RevokeInvite, encode_body
from peersd_protocol.constants import TICKET_ADDRESSES_MAX
from peersd_protocol.entries import Kind
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.messages import encode_runs
from peersd_protocol.roles import Role, format_role, may_grant, parse_role
from peersd_protocol.runs import Run
from peersd_protocol.signing import SEED_BYTES, SigningKey
from peersd_protocol.tickets import Ticket, make_redemption, parse_ticket
from peersd_protocol.tokens import SIDE_DIALLER, SIDE_LISTENER, OpenPayload, decode_refusal, group_token, vector_digest
from peersd_protocol.vectors import encode_vector

if TYPE_CHECKING:
    from peersd.node.node import Node, User

_log = logging.getLogger("peersd.node")

_REFUSALS: dict[str, tuple[str, str]] = {
    "invite_invalid": ("The ticket is not valid in this group.", "Ask for a new ticket."),
    "invite_expired": ("The ticket has expired.", "Ask for a new ticket."),
    "invite_used_up": ("The ticket has been used as often as it may be.", "Ask for a new ticket."),
    "invite_revoked": ("The ticket was revoked.", "Ask for a new ticket."),
    "banned": ("You are banned from this group.", "Ask a moderator of the group."),
    "too_large": ("The user's identity log is too large to be sent.", "Report this."),
}


def _not_allowed(role: Role, needed: str) -> PeersdError:
    return PeersdError(
        "not_allowed",
        f"This needs the role {needed}; yours is {format_role(role)}.",
        hint="Ask an admin of the group for that role.",
        role_needed=needed,
        role_held=format_role(role),
    )


def _role_that_grants(granted: Role) -> str:
    return next(format_role(role) for role in sorted(Role) if may_grant(role, granted))


async def create(node: Node, user: User, group: Group, role: str, expires_in_s: int, max_uses: int) -> Mapping[str, Any]:
    """invite.create."""
    granted = parse_role(role)
    held = group.state.role_of(user.id)
    if group.state.personal:
        raise PeersdError("not_allowed", "Nobody can be invited to a personal group.", hint="Create a group first.")
    if not may_grant(held, granted):
        raise _not_allowed(held, _role_that_grants(granted) if granted < Role.FOUNDER else "none")
    seed = node.entropy(SEED_BYTES)
    expires_ms = node.wall_ms() + expires_in_s * 1000
    act = Invite(granted, expires_ms, max_uses, SigningKey(seed).public)
    header = await group.store.act(user.id, Kind.CONTROL, encode_body(act))
    addresses = tuple(node.advertised()[:TICKET_ADDRESSES_MAX])
    ticket = Ticket(group.id, header.hash, seed, addresses, group.state.name)
    return {
        "invite_id": ids.format_id(ids.INVITE, header.hash),
        "ticket": ticket.format(),
        "expires_at": format_time(expires_ms),
    }


def list_all(group: Group) -> Sequence[Mapping[str, Any]]:
    """invite.list."""
    return [
        {
            "invite_id": ids.format_id(ids.INVITE, invite_hash),
            "role": format_role(invite.role),
            "expires_at": format_time(invite.expires_ms),
            "max_uses": invite.max_uses,
            "uses": invite.uses,
            "revoked": invite.revoked or invite.withdrawn,
            "created_by": ids.format_id(ids.USER, invite.created_by),
            "overused": invite.overused,
        }
        for invite_hash, invite in group.state.invites.items()
    ]


async def revoke(user: User, group: Group, invite_id: str) -> None:
    """invite.revoke."""
    known = [(ids.format_id(ids.INVITE, invite_hash), "", invite_hash) for invite_hash in group.state.invites]
    found = find(invite_id, known, code="invite_invalid", what="invite")
    invite = group.state.invites[found]
    held = group.state.role_of(user.id)
    if not may_grant(held, invite.role):
        raise _not_allowed(held, _role_that_grants(Role(invite.role)))
    if not invite.revoked:
        await group.store.act(user.id, Kind.CONTROL, encode_body(RevokeInvite(found)))


# --- Redeeming ------------------------------------------------------------------------------------------------------------------


async def accept(node: Node, user: User, text: str, timeout_s: float) -> Mapping[str, Any]:
    """invite.accept: tries the ticket's addresses until one lets this user in, and waits until the membership has arrived."""
    try:
        ticket = parse_ticket(text)
    except ValueError as error:
        raise PeersdError(
            "invite_invalid", f"{str(error).capitalize()}.", hint="Copy the whole ticket, or ask for a new one."
        ) from error
    known = node.groups.get(ticket.group_id)
    if known is not None and known.state.role_of(user.id):
        return _joined(known, user)
    with trio.move_on_after(timeout_s):
        # One after the other: two joins of one group at once would make, and perhaps discard, one file.
        async with node.joining.setdefault(ticket.group_id, trio.Lock()):
            known = node.groups.get(ticket.group_id)
            if known is not None and known.state.role_of(user.id):
                return _joined(known, user)
            return await _join(node, user, ticket)
    raise PeersdError("timeout", "The group did not let this device in in time.", hint="Try again.", retry=True)


async def _join(node: Node, user: User, ticket: Ticket) -> Mapping[str, Any]:
    identity = await node.identity_runs(user)
    failure = PeersdError(
        "unreachable",
        "None of the ticket's addresses answered.",
        hint="Ask whether the inviter's daemon runs and can be reached.",
        retry=True,
    )
    for address in ticket.addresses:
        try:
            handle = await node.links_or_fail().connect(address, None, ATTEMPT_TIMEOUT_S)
        except PeersdError as error:
            _log.info("ticket_address_failed", extra={"fields": {"url": address, "reason": error.message}})
            continue
        try:
            return await _redeem(node, user, ticket, identity, handle)
        except OpenRefused as refusal:
            reason = _reason(refusal)
            message, hint = _REFUSALS[reason or "invite_invalid"]
            failure = PeersdError(reason or "invite_invalid", message, hint=hint)
            if reason is not None:
                raise failure from refusal
        except (ChannelIsClosed, RemoteProtocolError) as error:
            _log.info("ticket_address_failed", extra={"fields": {"url": address, "reason": str(error)}})
    raise failure


ATTEMPT_TIMEOUT_S = 10.0
"""For one address of a ticket, before the next is tried (DESIGN 5: the time a handshake has)."""


def _reason(refusal: OpenRefused) -> str | None:
    try:
        return decode_refusal(refusal.payload)
    except RemoteProtocolError:
        return None


async def _redeem(node: Node, user: User, ticket: Ticket, identity: Sequence[Run], handle: LinkHandle) -> Mapping[str, Any]:
    assert node.device is not None
    sharing = await node.sharing_of(handle)
    group = node.groups.get(ticket.group_id)
    is_new = group is None
    if group is None:
        group = await node.make_group_store(ticket.group_id, [], None)
    joined = False
    try:
        redemption = make_redemption(
            ticket,
            device_key=node.device.keys.signing,
            user=user.id,
            identity_head_hash=identity[-1].last.hash,
            handshake_hash=handle.handshake_hash,
        )
        side = SIDE_DIALLER if handle.direction == "out" else SIDE_LISTENER
        digest = vector_digest(group.id, encode_vector(await group.store.call(group.store.store.vector)))
        payload = OpenPayload(group_token(group.id, handle.handshake_hash, side), digest, proof=redemption)
        await sharing.open_with_proof(group, payload, [encode_runs(identity)])
        while not group.state.role_of(user.id):
            if handle.is_down or group.id not in sharing.channels():
                raise ChannelIsClosed(handle.down_code or CloseCode.GOING_AWAY)
            with trio.move_on_after(1.0):
                await group.sync.wait_progress()
        await node.add_group(user, group)
        joined = True
    finally:
        if is_new and not joined:
            with trio.CancelScope(shield=True):
                await node.discard_group(group)
    return _joined(group, user)


def _joined(group: Group, user: User) -> Mapping[str, Any]:
    return {"group_id": group.text_id, "name": group.state.name, "role": format_role(group.state.role_of(user.id))}
