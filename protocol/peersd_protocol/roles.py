"""Roles, and the one table of who may do what (SPEC: A, DESIGN 10)."""

from __future__ import annotations

import enum
from typing import Final


class Role(enum.IntEnum):
    """What a member may do in a group; a higher number may do all that a lower one may."""

    NONE = 0
    READER = 20
    WRITER = 40
    MODERATOR = 50
    ADMIN = 60
    OWNER = 80
    FOUNDER = 100


class Deed(enum.Enum):
    """What needs a role."""

    READ = enum.auto()
    ADMIT = enum.auto()
    LEAVE = enum.auto()
    LOWER_ONESELF = enum.auto()
    DROP_OWN_DEVICE = enum.auto()
    WRITE = enum.auto()
    INVITE = enum.auto()
    REMOVE = enum.auto()
    BAN = enum.auto()
    UNBAN = enum.auto()
    CHANGE_SETTINGS = enum.auto()
    CHANGE_SCHEMA = enum.auto()
    SET_ROLE = enum.auto()
    DROP_DEVICE = enum.auto()


ROLE_NEEDED: Final[dict[Deed, Role]] = {
    Deed.READ: Role.READER,
    Deed.ADMIT: Role.READER,
    Deed.LEAVE: Role.READER,
    Deed.LOWER_ONESELF: Role.READER,
    Deed.DROP_OWN_DEVICE: Role.READER,
    Deed.WRITE: Role.WRITER,
    Deed.INVITE: Role.MODERATOR,
    Deed.REMOVE: Role.MODERATOR,
    Deed.BAN: Role.MODERATOR,
    Deed.UNBAN: Role.MODERATOR,
    Deed.CHANGE_SETTINGS: Role.ADMIN,
    Deed.CHANGE_SCHEMA: Role.ADMIN,
    Deed.SET_ROLE: Role.ADMIN,
    Deed.DROP_DEVICE: Role.ADMIN,
}

ROLE_BY_NAME: Final[dict[str, Role]] = {role.name.lower(): role for role in Role}


def may(role: int, deed: Deed) -> bool:
    """Whether a role allows a deed (apart from whom it is done to)."""
    return role >= ROLE_NEEDED[deed]


def may_grant(role: int, granted: int) -> bool:
    """Whether a role may invite to, or revoke invites to, the role `granted`: moderators and above, and only to lower roles."""
    return Role.NONE < granted < role and may(role, Deed.INVITE)


def may_set_role(role: int, target_role: int, granted: int) -> bool:
    """Whether a role may give a member of `target_role` the role `granted`: admins and above, and both must be lower."""
    return may(role, Deed.SET_ROLE) and Role.NONE < target_role < role and Role.NONE < granted < role


def may_lower_oneself(role: int, granted: int) -> bool:
    """Whether a member may lower itself to the role `granted`: anybody, to any lower role but none, which is to leave.

    That a group keeps an admin is another question: see `GroupState.may_lower_oneself`.
    """
    return may(role, Deed.LOWER_ONESELF) and Role.NONE < granted < role


def may_remove(role: int, target_role: int) -> bool:
    """Whether a role may remove a member of `target_role`: moderators and above, and only lower ones."""
    return may(role, Deed.REMOVE) and Role.NONE < target_role < role


def may_ban(role: int, target_role: int) -> bool:
    """Whether a role may ban a user of `target_role`, which may be none: moderators and above, and only lower ones."""
    return may(role, Deed.BAN) and target_role < role


def may_lift_ban(role: int, banned_by_role: int) -> bool:
    """Whether a role may lift a ban by who had `banned_by_role`: moderators and above who were not outranked."""
    return may(role, Deed.UNBAN) and banned_by_role <= role


def may_drop_device(role: int, target_role: int) -> bool:
    """Whether a role may drop a device of a member of `target_role`: admins and above, and only of lower ones.

    A device of one's own any member may drop.
    """
    return may(role, Deed.DROP_DEVICE) and Role.NONE < target_role < role


def parse_role(text: str) -> Role:
    """The role of a name such as `writer`.

    Raises:
        ValueError: there is no such role.
    """
    try:
        return ROLE_BY_NAME[text]
    except KeyError:
        raise ValueError(f"no such role: {text}; there are {', '.join(ROLE_BY_NAME)}") from None


def format_role(role: int) -> str:
    """The name of a role."""
    return Role(role).name.lower()
