"""Methods of who is in a group and as what: members, roles, bans, invites."""

from __future__ import annotations

from typing import Final

from peersd.api.parameters import TICKET_CHARACTERS_MAX, Parameters
from peersd.api.registry import Api, MethodTable
from peersd_protocol.roles import Role

TABLE: Final = MethodTable()

ROLES: Final = tuple(role.name.lower() for role in sorted(Role, reverse=True) if Role.NONE < role < Role.FOUNDER)
"""Roles that can be given, the greatest first: a founder is made by the genesis alone, and no role is a removal."""

INVITE_EXPIRES_IN_S: Final = 604_800
INVITE_EXPIRES_IN_S_MAX: Final = 10 * 365 * 86_400
INVITE_USES_MAX: Final = 1_000_000
JOIN_TIMEOUT_S: Final = 30.0


@TABLE.method("member.list", "group", "include_left")
async def _member_list(api: Api, given: Parameters) -> object:
    return await api.node.member_list(
        user=given.selector("user"), group=given.selector("group"), include_left=given.flag("include_left")
    )


# Here `user` is whom it is done to, as everybody expects of `ban.add`; which of the daemon's users does it says `as_user`.
_ACTING: Final = "as_user"


@TABLE.method("member.set_role", "group", "user", "role", changes=True, acting=_ACTING)
async def _member_set_role(api: Api, given: Parameters) -> object:
    await api.node.member_set_role(
        user=given.selector(_ACTING),
        group=given.selector("group"),
        member=given.text("user"),
        role=given.choice("role", ROLES, None),
    )
    return {}


@TABLE.method("member.remove", "group", "user", changes=True, acting=_ACTING)
async def _member_remove(api: Api, given: Parameters) -> object:
    await api.node.member_remove(user=given.selector(_ACTING), group=given.selector("group"), member=given.text("user"))
    return {}


@TABLE.method("ban.add", "group", "user", "reason", changes=True, acting=_ACTING)
async def _ban_add(api: Api, given: Parameters) -> object:
    await api.node.ban_add(
        user=given.selector(_ACTING), group=given.selector("group"), member=given.text("user"), reason=given.reason()
    )
    return {}


@TABLE.method("ban.remove", "group", "user", changes=True, acting=_ACTING)
async def _ban_remove(api: Api, given: Parameters) -> object:
    await api.node.ban_remove(user=given.selector(_ACTING), group=given.selector("group"), member=given.text("user"))
    return {}


@TABLE.method("ban.list", "group")
async def _ban_list(api: Api, given: Parameters) -> object:
    return await api.node.ban_list(user=given.selector("user"), group=given.selector("group"))


@TABLE.method("invite.create", "group", "role", "expires_in_s", "max_uses", changes=True)
async def _invite_create(api: Api, given: Parameters) -> object:
    return await api.node.invite_create(
        user=given.selector("user"),
        group=given.selector("group"),
        role=given.choice("role", ROLES, "writer"),
        expires_in_s=given.integer("expires_in_s", default=INVITE_EXPIRES_IN_S, least=1, most=INVITE_EXPIRES_IN_S_MAX),
        max_uses=given.integer("max_uses", default=1, least=1, most=INVITE_USES_MAX),
    )


@TABLE.method("invite.list", "group")
async def _invite_list(api: Api, given: Parameters) -> object:
    return await api.node.invite_list(user=given.selector("user"), group=given.selector("group"))


@TABLE.method("invite.revoke", "group", "invite_id", changes=True)
async def _invite_revoke(api: Api, given: Parameters) -> object:
    await api.node.invite_revoke(user=given.selector("user"), group=given.selector("group"), invite_id=given.text("invite_id"))
    return {}


@TABLE.method("invite.accept", "ticket", "timeout_s", changes=True)
async def _invite_accept(api: Api, given: Parameters) -> object:
    # Blanks at the ends come from copying out of a chat or a mail.
    ticket = given.text("ticket", characters_max=TICKET_CHARACTERS_MAX).strip()
    return await api.node.invite_accept(user=given.selector("user"), ticket=ticket, timeout_s=given.timeout_s(JOIN_TIMEOUT_S))
