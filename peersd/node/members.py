"""Who is in a group and as what: roles, removals, bans, leaving (DESIGN 10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from peersd.errors import PeersdError
from peersd.node.group import Group
from peersd.node.invites import not_allowed
from peersd.node.naming import find
from peersd_protocol import ids
from peersd_protocol.acts import Ban, Body, Leave, Remove, SetRole, Unban, encode_body
from peersd_protocol.entries import Kind
from peersd_protocol.group_state import GroupState
from peersd_protocol.names import is_reason
from peersd_protocol.roles import (
    Role,
    format_role,
    may_ban,
    may_lift_ban,
    may_lower_oneself,
    may_remove,
    may_set_role,
    parse_role,
)

if TYPE_CHECKING:
    from peersd.node.node import Node, User
    from peersd.store.store import FindCuts


def find_member(state: GroupState, text: str, *, is_member: bool = True) -> bytes:
    """The user meant among those that the group knows.

    Args:
        state: of the group.
        text: an id, an unambiguous prefix of one, or a name.
        is_member: whether only members now are meant.

    Raises:
        PeersdError: `user_not_found`, `name_ambiguous`.
    """
    known = [
        (ids.format_id(ids.USER, user), member.name, user)
        for user, member in state.members.items()
        if member.role or not is_member
    ]
    return find(text, known, code="user_not_found", what="member")


def _needs_rank(held: Role, target: Role, least: Role) -> PeersdError:
    """The error for who has too low a role for a deed, or none above the other user's."""
    above = next((role for role in sorted(Role) if role > target), None)
    if above is not None:
        return not_allowed(held, format_role(max(least, above)))
    return PeersdError(
        "not_allowed",
        "Nobody has a role above a founder's.",
        hint="The founder alone can leave, or become less.",
        role_needed="none",
        role_held=format_role(held),
    )


async def set_role(user: User, group: Group, member: str, role: str) -> None:
    """member.set_role."""
    granted = parse_role(role)
    async with group.use() as opened:
        state = opened.state
        target = find_member(state, member)
        held, old = state.role_of(user.id), state.role_of(target)
        if granted == old:
            return
        if target == user.id:
            if not may_lower_oneself(held, granted):
                raise not_allowed(held, "none") if granted > held else not_allowed(held, format_role(Role.ADMIN))
            if not state.may_lower_oneself(user.id, granted):
                raise _last_admin("become less than an admin")
        elif not may_set_role(held, old, granted):
            raise _needs_rank(held, max(old, granted), Role.ADMIN)
        if granted > old:
            await opened.store.act(user.id, Kind.CONTROL, encode_body(SetRole(target, granted)))
        else:
            kinds = (Kind.CONTROL,) if granted >= Role.WRITER else (Kind.CONTROL, Kind.DATA)
            make = _taking(lambda cuts: SetRole(target, granted, cuts(target, kinds)))
            await opened.store.take_right(user.id, make)


def _taking(make: Callable[[FindCuts], Body]) -> Callable[[FindCuts], bytes]:
    return lambda cuts: encode_body(make(cuts))


def _last_admin(what: str) -> PeersdError:
    return PeersdError(
        "not_allowed",
        f"The last admin cannot {what} while others are members.",
        hint="Make somebody else an admin first.",
        role_needed="none",
        role_held="admin",
    )


async def remove(user: User, group: Group, member: str) -> None:
    """member.remove."""
    async with group.use() as opened:
        state = opened.state
        target = find_member(state, member)
        held, old = state.role_of(user.id), state.role_of(target)
        if target == user.id:
            raise PeersdError("not_allowed", "You cannot remove yourself.", hint="Leave the group: `peers group leave`.")
        if not may_remove(held, old):
            raise _needs_rank(held, old, Role.MODERATOR)
        await opened.store.take_right(user.id, _taking(lambda cuts: Remove(target, cuts(target))))


async def ban(user: User, group: Group, member: str, reason: str) -> None:
    """ban.add: of a member, of a former one, or of any user by the whole id."""
    if not is_reason(reason):
        raise PeersdError("too_large", "That reason cannot be used.", hint="At most 512 bytes, no control characters.")
    async with group.use() as opened:
        state = opened.state
        try:
            target = ids.parse_id(ids.USER, member)
        except ValueError:
            target = find_member(state, member, is_member=False)
        held, old = state.role_of(user.id), state.role_of(target)
        if target == user.id:
            raise PeersdError("not_allowed", "You cannot ban yourself.", hint="Leave the group: `peers group leave`.")
        if not may_ban(held, old):
            raise _needs_rank(held, old, Role.MODERATOR)
        if target not in state.bans:
            await opened.store.take_right(user.id, _taking(lambda cuts: Ban(target, reason, cuts(target))))


async def unban(user: User, group: Group, member: str) -> None:
    """ban.remove."""
    async with group.use() as opened:
        state = opened.state
        known = [
            (ids.format_id(ids.USER, banned), state.users[banned].name if banned in state.users else "", banned)
            for banned in state.bans
        ]
        target = find(member, known, code="user_not_found", what="banned user")
        held, banned_by = state.role_of(user.id), state.role_of(state.bans[target].banned_by)
        if not may_lift_ban(held, banned_by):
            raise not_allowed(held, format_role(max(Role.MODERATOR, banned_by)))
        await opened.store.act(user.id, Kind.CONTROL, encode_body(Unban(target)))
        if target in opened.state.bans:  # by another act, of somebody higher
            banned_by = opened.state.role_of(opened.state.bans[target].banned_by)
            raise not_allowed(held, format_role(max(Role.MODERATOR, banned_by)))


async def leave(node: Node, user: User, group: Group) -> None:
    """group.leave: the act is written now; other members hear of it as soon as one of them is linked."""
    if group.summary.personal:
        raise PeersdError("not_allowed", "The personal group cannot be left.", hint="It is where your groups are registered.")
    async with group.use() as opened:
        state = opened.state
        if not state.role_of(user.id):
            return
        if not state.may_leave(user.id):
            raise _last_admin("leave")
        others = any(member.role for other, member in state.members.items() if other not in node.users)
        if others:
            user.untold.add(group.id)
            await node.save_untold(user)
        try:
            await opened.store.take_right(user.id, _taking(lambda cuts: Leave(cuts(user.id))))
        except PeersdError:
            user.untold.discard(group.id)
            await node.save_untold(user)
            raise
    await node.note_registration(user, group)
