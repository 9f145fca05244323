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
    WRITE = enum.auto()
    INVITE = enum.auto()
    REMOVE = enum.auto()
    CHANGE_SETTINGS = enum.auto()
    CHANGE_SCHEMA = enum.auto()
    SET_ROLE = enum.auto()


ROLE_NEEDED: Final[dict[Deed, Role]] = {
    Deed.READ: Role.READER,
    Deed.ADMIT: Role.READER,
    Deed.LEAVE: Role.READER,
    Deed.WRITE: Role.WRITER,
    Deed.INVITE: Role.MODERATOR,
    Deed.REMOVE: Role.MODERATOR,
    Deed.CHANGE_SETTINGS: Role.ADMIN,
    Deed.CHANGE_SCHEMA: Role.ADMIN,
    Deed.SET_ROLE: Role.ADMIN,
}

ROLE_BY_NAME: Final[dict[str, Role]] = {role.name.lower(): role for role in Role}


def may(role: int, deed: Deed) -> bool:
    """Whether a role allows a deed (apart from whom it is done to)."""
    return role >= ROLE_NEEDED[deed]


def may_grant(role: int, granted: int) -> bool:
    """Whether a role may invite to, or revoke invites to, the role `granted`: moderators and above, and only to lower roles."""
    return Role.NONE < granted < role and may(role, Deed.INVITE)


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
