"""What a user is told who may not do something: never to ask for what nobody can give, and who can."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from peersd.store.refusals import lift_hint, not_allowed, role_that_gives, was_ended
from peersd_protocol.group_state import BanState
from peersd_protocol.roles import Role, may_set_role

ROLES = [role for role in Role if role]


@dataclass(frozen=True)
class Known:
    """A user as a group knows it."""

    role: Role
    name: str
    ended: str | None = None


@dataclass(frozen=True)
class Trip:
    """A group."""

    name: str = "trip"
    members: dict[bytes, Known] = field(default_factory=dict)


def trip(**roles: Role) -> Trip:
    """A group of these; `me` is who asks."""
    return Trip(members={name.encode(): Known(role, name) for name, role in roles.items()})


@pytest.mark.parametrize(
    ("group", "needed", "hint"),
    [
        (trip(me=Role.READER, ada=Role.FOUNDER), Role.WRITER, "Ask ada (founder) for that role, or to do it."),
        (
            trip(me=Role.WRITER, ben=Role.ADMIN, cem=Role.MODERATOR, ada=Role.FOUNDER),
            Role.MODERATOR,
            "Ask ada (founder) or ben (admin) for that role, or to do it.",
        ),
        # An admin can do it, and makes nobody an admin.
        (trip(me=Role.WRITER, ben=Role.ADMIN), Role.ADMIN, "Only ben (admin) can do it."),
        (trip(me=Role.OWNER, ada=Role.FOUNDER), Role.FOUNDER, "Only ada (founder) can do it."),
        (trip(me=Role.OWNER, ben=Role.ADMIN), Role.FOUNDER, "Nobody in this group has that role, or can give it."),
        (trip(me=Role.ADMIN, ben=Role.ADMIN), Role.OWNER, "Nobody in this group has that role, or can give it."),
        (
            trip(me=Role.READER, a=Role.ADMIN, b=Role.ADMIN, c=Role.OWNER, d=Role.ADMIN, e=Role.ADMIN),
            Role.WRITER,
            "Ask c (owner), a (admin), b (admin) or 2 others for that role, or to do it.",
        ),
    ],
)
def test_who_lacks_a_role_is_told_who_has_it_and_who_can_give_it(group: Trip, needed: Role, hint: str) -> None:
    error = not_allowed(group, b"me", needed)
    held = group.members[b"me"].role
    assert (error.code, error.hint) == ("not_allowed", hint)
    assert error.extra == {"role_needed": needed.name.lower(), "role_held": held.name.lower()}
    assert error.message == f"This needs the role {needed.name.lower()}; yours is {held.name.lower()}."


def test_whoever_is_asked_for_a_role_can_give_it_and_nobody_lower_could() -> None:
    for granted in ROLES:
        able = [role for role in ROLES if may_set_role(role, Role.READER, granted)]
        assert role_that_gives(granted) == min(able, default=None)


@pytest.mark.parametrize(
    ("ended", "said", "hint"),
    [
        ("left", "You have left trip.", "Ask ada (founder) or ben (moderator) for a ticket."),
        ("removed", "You were removed from trip.", "Ask ada (founder) or ben (moderator) for a ticket."),
        ("banned", "You were banned from trip.", "Only ada (founder) or ben (moderator) can lift the ban."),
        (None, "You are no member of trip.", "Ask ada (founder) or ben (moderator) for a ticket."),
    ],
)
def test_who_is_no_member_any_more_is_told_why_and_not_to_ask_for_a_role(ended: str | None, said: str, hint: str) -> None:
    group = trip(ada=Role.FOUNDER, ben=Role.MODERATOR, cem=Role.WRITER)
    if ended is not None:
        group.members[b"me"] = Known(Role.NONE, "me", ended)
    bans = {b"me": BanState("", b"ben", 0)}
    for error in (not_allowed(group, b"me", Role.WRITER, bans), was_ended(group, b"me", bans)):
        assert (error.code, error.message, error.hint, error.extra["role_held"]) == ("not_allowed", said, hint, "none")


def test_a_ban_is_lifted_by_who_set_it_or_somebody_of_at_least_that_role() -> None:
    group = trip(ada=Role.FOUNDER, ben=Role.ADMIN, cem=Role.MODERATOR, dan=Role.WRITER)
    by = {who: lift_hint(group, BanState("", who.encode(), 0)) for who in ("ada", "ben", "cem", "dan", "gone")}
    assert by == {
        "ada": "Only ada (founder) can lift the ban.",
        "ben": "Only ada (founder) or ben (admin) can lift the ban.",
        **dict.fromkeys(("cem", "dan", "gone"), "Only ada (founder), ben (admin) or cem (moderator) can lift the ban."),
    }
    unknown = "Only whoever set the ban, or a moderator or above of at least that one's role, can lift it."
    assert lift_hint(group, None) == lift_hint(trip(), BanState("", b"ada", 0)) == unknown
