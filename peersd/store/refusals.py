"""What a user is told who may not do something in a group: why not, and who can help (SPEC: A-15)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from peersd.errors import PeersdError
from peersd_protocol.group_state import BanState
from peersd_protocol.roles import ROLE_NEEDED, Deed, Role, format_role

NAMED_MAX: Final = 3
"""Members named in one hint; more are counted."""


class MemberView(Protocol):
    """A user who is or was a member."""

    @property
    def role(self) -> Role:
        """Now; none for who is no member any more."""
        ...

    @property
    def name(self) -> str:
        """Of the user."""
        ...

    @property
    def ended(self) -> str | None:
        """How the membership ended: left, removed or banned."""
        ...


class GroupView(Protocol):
    """A group's evaluated state, or what is known of it in short."""

    @property
    def name(self) -> str:
        """What the group is called."""
        ...

    @property
    def members(self) -> Mapping[bytes, MemberView]:
        """By user id."""
        ...


def not_allowed(
    group: GroupView, user: bytes, needed: Role, bans: Mapping[bytes, BanState] | None = None, *, message: str = ""
) -> PeersdError:
    """The error for who has too low a role, or is no member any more.

    Args:
        group: where.
        user: who wanted to do something.
        needed: the least role that may do it.
        bans: those that hold in the group, where they are known.
        message: what happened, where more can be said than which role it needs.
    """
    member = group.members.get(user)
    held = member.role if member else Role.NONE
    if not held:
        message, hint = _of_no_member(group, user, member, bans)
    else:
        message = message or f"This needs the role {format_role(needed)}; yours is {format_role(held)}."
        hint = _who_helps(group, user, needed)
    return PeersdError("not_allowed", message, hint=hint, role_needed=format_role(needed), role_held=format_role(held))


def was_ended(group: GroupView, user: bytes, bans: Mapping[bytes, BanState] | None = None) -> PeersdError:
    """The error for who is no member any more, where no role would help."""
    message, hint = _of_no_member(group, user, group.members.get(user), bans)
    return PeersdError("not_allowed", message, hint=hint, role_needed="none", role_held="none")


def lift_hint(group: GroupView, ban: BanState | None) -> str:
    """Who can lift a ban: whoever set it, and moderators and above of at least that one's role now."""
    if ban is not None:
        by = group.members.get(ban.banned_by)
        able = _named(group, max(ROLE_NEEDED[Deed.UNBAN], by.role if by else Role.NONE))
        if able:
            return f"Only {able} can lift the ban."
    return "Only whoever set the ban, or a moderator or above of at least that one's role, can lift it."


def role_that_gives(granted: Role) -> Role | None:
    """The least role that may give a member `granted`; None for the founder's, which nobody can be given."""
    above = next((role for role in sorted(Role) if role > granted), None)
    return None if above is None else max(ROLE_NEEDED[Deed.SET_ROLE], above)


def who_gives(group: GroupView, user: bytes, granted: Role) -> str:
    """Which members may give `user` a role, as words; empty if there is nobody."""
    least = role_that_gives(granted)
    return "" if least is None else _named(group, least, but=user)


def _of_no_member(
    group: GroupView, user: bytes, member: MemberView | None, bans: Mapping[bytes, BanState] | None
) -> tuple[str, str]:
    inviters = _named(group, ROLE_NEEDED[Deed.INVITE], but=user)
    comes_back = f"Ask {inviters} for a ticket." if inviters else "Only a new ticket brings you back."
    match member.ended if member else None:
        case "left":
            return f"You have left {group.name}.", comes_back
        case "removed":
            return f"You were removed from {group.name}.", comes_back
        case "banned":
            return f"You were banned from {group.name}.", lift_hint(group, (bans or {}).get(user))
        case _:
            return f"You are no member of {group.name or 'this group'}.", comes_back


def _who_helps(group: GroupView, user: bytes, needed: Role) -> str:
    givers = who_gives(group, user, needed)
    if givers:
        return f"Ask {givers} for that role, or to do it."
    able = _named(group, needed, but=user)
    return f"Only {able} can do it." if able else "Nobody in this group has that role, or can give it."


def _named(group: GroupView, least: Role, *, but: bytes | None = None) -> str:
    """The members of at least a role, seniors first, as in "ada (founder) or ben (admin)"; empty if there are none."""
    able = sorted(((-member.role, member.name) for user, member in group.members.items() if member.role >= least and user != but))
    words = [f"{name} ({format_role(-role)})" for role, name in able[:NAMED_MAX]]
    if len(able) > NAMED_MAX:
        rest = len(able) - NAMED_MAX
        words.append(f"{rest} {'other' if rest == 1 else 'others'}")
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1] if words else ""
