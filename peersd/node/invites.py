"""Invites: made, listed and revoked (DESIGN 10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peersd.errors import PeersdError
from peersd.node.group import Group
from peersd.node.naming import find, format_time
from peersd.node.users import User
from peersd.store.refusals import not_allowed
from peersd_protocol import ids
from peersd_protocol.acts import Invite, RevokeInvite, encode_body
from peersd_protocol.constants import TICKET_ADDRESSES_MAX
from peersd_protocol.entries import Kind
from peersd_protocol.group_state import InviteState
from peersd_protocol.roles import Role, format_role, may_grant, parse_role
from peersd_protocol.signing import SEED_BYTES, SigningKey
from peersd_protocol.tickets import Ticket

if TYPE_CHECKING:
    from peersd.node.node import Node


def _role_that_grants(granted: Role) -> Role:
    return next((role for role in sorted(Role) if may_grant(role, granted)), Role.FOUNDER)


async def create(node: Node, user: User, group: Group, role: str, expires_in_s: int, max_uses: int) -> Mapping[str, Any]:
    """invite.create."""
    granted = parse_role(role)
    held = group.summary.role_of(user.id)
    if group.summary.personal:
        raise PeersdError("not_allowed", "Nobody can be invited to a personal group.", hint="Create a group first.")
    if not may_grant(held, granted):
        raise not_allowed(group.summary, user.id, _role_that_grants(granted))
    seed = node.entropy(SEED_BYTES)
    expires_ms = node.wall_ms() + expires_in_s * 1000
    act = Invite(granted, expires_ms, max_uses, SigningKey(seed).public)
    async with group.use() as opened:
        header = await opened.store.act(user.id, Kind.CONTROL, encode_body(act))
    ticket = Ticket(group.id, header.hash, seed, _addresses(node, group), group.name)
    return {
        "invite_id": ids.format_id(ids.INVITE, header.hash),
        "ticket": ticket.format(),
        "expires_at": format_time(expires_ms),
    }


def _addresses(node: Node, group: Group) -> tuple[str, ...]:
    """Where the ticket can be redeemed: at this device, and at those of other members, since this one may be off."""
    own = node.own_addresses()
    last_first = sorted(group.summary.member_devices, key=lambda device: node.last_seen_ms(device) or 0, reverse=True)
    others = [
        urls
        for device in last_first
        if device != node.own_device() and (urls := group.copies.book.addresses_of(device) or tuple(node.addresses.of(device)))
    ]
    # In turns: the first address of each device before anybody's second.
    listed = [own, *others]
    longest = max(map(len, listed), default=0)
    in_turns = (urls[index] for index in range(longest) for urls in listed if index < len(urls))
    return tuple(dict.fromkeys(in_turns))[:TICKET_ADDRESSES_MAX]


def _state_of(invite: InviteState, wall_ms: int) -> str:
    """open, or why nobody joins by it any more."""
    if invite.revoked or invite.withdrawn:
        return "revoked"
    if invite.uses >= invite.max_uses:
        return "used_up"
    return "expired" if invite.expires_ms < wall_ms else "open"


async def list_all(node: Node, group: Group) -> Sequence[Mapping[str, Any]]:
    """invite.list."""
    async with group.use() as opened:
        users = opened.state.members
        return [
            {
                "invite_id": ids.format_id(ids.INVITE, invite_hash),
                "role": format_role(invite.role),
                "expires_at": format_time(invite.expires_ms),
                "max_uses": invite.max_uses,
                "uses": invite.uses,
                "revoked": invite.revoked or invite.withdrawn,
                "created_by": ids.format_id(ids.USER, invite.created_by),
                "created_by_name": users[invite.created_by].name if invite.created_by in users else "",
                "state": _state_of(invite, node.wall_ms()),
                "overused": invite.overused,
            }
            for invite_hash, invite in opened.state.invites.items()
        ]


async def revoke(user: User, group: Group, invite_id: str) -> None:
    """invite.revoke."""
    async with group.use() as opened:
        known = [(ids.format_id(ids.INVITE, invite_hash), "", invite_hash) for invite_hash in opened.state.invites]
        found = find(invite_id, known, code="invite_invalid", what="invite")
        invite = opened.state.invites[found]
        held = opened.state.role_of(user.id)
        if not may_grant(held, invite.role):
            raise not_allowed(opened.state, user.id, _role_that_grants(Role(invite.role)), opened.state.bans)
        if not invite.revoked:
            await opened.store.act(user.id, Kind.CONTROL, encode_body(RevokeInvite(found)))
