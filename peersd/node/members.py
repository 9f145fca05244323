"""Who is in a group and as what: roles, removals, bans, leaving (DESIGN 10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from peersd.crash_points import CrashPoint, reach
from peersd.errors import PeersdError
from peersd.node.group import Group
from peersd.node.naming import find
from peersd.node.users import User
from peersd.store.refusals import not_allowed, was_ended, who_gives
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
    from peersd.node.node import Node
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


def _needs_rank(state: GroupState, user: bytes, target: Role, least: Role) -> PeersdError:
    """The error for who has too low a role for a deed, or none above the other user's."""
    above = next((role for role in sorted(Role) if role > target), None)
    held = state.role_of(user)
    if above is not None or not held:
        return not_allowed(state, user, max(least, above or Role.NONE), state.bans)
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
            if held and granted > held:
                raise _no_promotion(state, user.id, held, granted)
            if not may_lower_oneself(held, granted):
                raise not_allowed(state, user.id, Role.READER, state.bans)
            if not state.may_lower_oneself(user.id, granted):
                raise _last_admin("become less than an admin", held)
        elif not may_set_role(held, old, granted):
            raise _needs_rank(state, user.id, max(old, granted), Role.ADMIN)
        if granted > old:
            await opened.store.act(user.id, Kind.CONTROL, encode_body(SetRole(target, granted)))
        else:
            kinds = (Kind.CONTROL,) if granted >= Role.WRITER else (Kind.CONTROL, Kind.DATA)
            make = _taking(lambda cuts: SetRole(target, granted, cuts(target, kinds)))
            await opened.store.take_right(user.id, make)


def _taking(make: Callable[[FindCuts], Body]) -> Callable[[FindCuts], bytes]:
    return lambda cuts: encode_body(make(cuts))


def _no_promotion(state: GroupState, user: bytes, held: Role, granted: Role) -> PeersdError:
    givers = who_gives(state, user, granted)
    return PeersdError(
        "not_allowed",
        "Nobody can give themselves a higher role.",
        hint=f"Ask {givers} for it." if givers else "Nobody in this group can give it either.",
        role_needed="none",
        role_held=format_role(held),
    )


def _last_admin(what: str, held: Role) -> PeersdError:
    makes_admins = may_set_role(held, Role.READER, Role.ADMIN)
    return PeersdError(
        "not_allowed",
        f"The last admin cannot {what} while others are members.",
        hint="Make somebody else an admin first."
        if makes_admins
        else "An admin can make nobody an admin: it can be done when the others have left, or were removed.",
        role_needed="none",
        role_held=format_role(held),
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
            raise _needs_rank(state, user.id, old, Role.MODERATOR)
        await opened.store.take_right(user.id, _taking(lambda cuts: Remove(target, cuts(target))))


async def ban(user: User, group: Group, member: str, reason: str) -> None:
    """ban.add: of a member, of a former one, or of any user by the whole id."""
    if not is_reason(reason):
        raise PeersdError("too_large", "That reason cannot be used.", hint="At most 512 bytes, no control characters.")
    async with group.use() as opened:
        state = opened.state
        target = _whom_to_ban(state, member)
        held, old = state.role_of(user.id), state.role_of(target)
        if target == user.id:
            raise PeersdError("not_allowed", "You cannot ban yourself.", hint="Leave the group: `peers group leave`.")
        if not may_ban(held, old):
            raise _needs_rank(state, user.id, old, Role.MODERATOR)
        if target not in state.bans:
            await opened.store.take_right(user.id, _taking(lambda cuts: Ban(target, reason, cuts(target))))


def _whom_to_ban(state: GroupState, text: str) -> bytes:
    try:
        return ids.parse_id(ids.USER, text)
    except ValueError as error:
        malformed = str(error)
    try:
        return find_member(state, text, is_member=False)
    except PeersdError as error:
        if error.code != "user_not_found":
            raise
        if not text.startswith(f"{ids.USER}-"):
            error.hint = "`peers members --left` lists whom the group knows; anybody else is banned by the whole id."
            raise
        hint = "Copy the whole id; a part of it is enough only for who is or was a member (`peers members --left`)."
        raise PeersdError("user_not_found", f"{text!r} is no user's id: {malformed}.", hint=hint) from error


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
            raise not_allowed(state, user.id, max(Role.MODERATOR, banned_by), state.bans)
        await opened.store.act(user.id, Kind.CONTROL, encode_body(Unban(target)))
        if target in opened.state.bans:  # by another act, of somebody higher
            state = opened.state
            raise not_allowed(state, user.id, max(Role.MODERATOR, state.role_of(state.bans[target].banned_by)), state.bans)


async def leave(node: Node, user: User, group: Group) -> None:
    """group.leave: the act is written now; other members hear of it as soon as one of them is linked."""
    if group.summary.personal:
        raise PeersdError("not_allowed", "The personal group cannot be left.", hint="It is where your groups are registered.")
    async with group.use() as opened:
        state = opened.state
        held, known = state.role_of(user.id), state.members.get(user.id)
        if not held:
            if known is not None and known.ended in ("removed", "banned"):
                raise was_ended(state, user.id, state.bans)
            return
        if not state.may_leave(user.id):
            raise _last_admin("leave", held)
        others = any(member.role for other, member in state.members.items() if other not in node.users)
        if others:
            user.untold.add(group.id)
            await user.save_untold()
            reach(CrashPoint.LEAVE_NOTED)
        try:
            await opened.store.take_right(user.id, _taking(lambda cuts: Leave(cuts(user.id))))
        except PeersdError:
            user.untold.discard(group.id)
            await user.save_untold()
            raise
    reach(CrashPoint.LEAVE_WRITTEN)
    await user.note_registration(group)
