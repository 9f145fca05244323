"""Bans and unbans: who may, of whom, what they keep out and what lifts them (SPEC: A-20, A-34)."""

from __future__ import annotations

import pytest

from peersd.testing.worlds import FIRST_MS, secret
from peersd_protocol.acts import Ban, Unban
from peersd_protocol.group_state import BanState
from peersd_protocol.roles import Role, may_ban, may_lift_ban
from tests.protocol.membership_cast import Cast, agreed, cut_at, data_log, hashes, tip

ROLES = [Role.NONE, Role.READER, Role.WRITER, Role.MODERATOR, Role.ADMIN, Role.OWNER, Role.FOUNDER]


@pytest.fixture
def cast() -> Cast:
    return Cast()


@pytest.mark.parametrize("actor", ROLES)
def test_users_are_banned_by_moderators_and_above_of_a_higher_role(cast: Cast, actor: Role) -> None:
    users, before = cast.by_role(), cast.group.acts
    for target, user in users.items():
        allowed = actor >= Role.MODERATOR and target < actor
        assert may_ban(actor, target) == allowed
        act = cast.group.ban(users[actor], user, "spam", seen=before, epoch=1 + int(target))
        state = cast.group.state([*before, act])
        assert (act.hash in state.standing) == allowed
        expected = {user.id: BanState("spam", users[actor].id, act.header.hlc)} if allowed else {}
        assert state.bans == expected


def test_nobody_bans_itself(cast: Cast) -> None:
    acts = [cast.group.ban(user, user) for user in (cast.alice, cast.mona, cast.zoe)]
    assert cast.stands(*acts) == [False, False, False]


def test_a_banned_member_is_out_and_listed_as_banned(cast: Cast) -> None:
    ban = cast.group.ban(cast.mona, cast.will, "no\nmore")
    member = agreed(cast.group).members[cast.will.id]
    assert (member.role, member.ended, member.left_hlc) == (Role.NONE, "banned", ban.header.hlc)


def test_who_was_banned_without_ever_being_a_member_is_not_listed_as_one(cast: Cast) -> None:
    cast.group.ban(cast.mona, cast.zoe)
    cast.group.write(cast.mona, Ban(secret("nobody knows"), "", ()))
    state = agreed(cast.group)
    assert set(state.bans) == {cast.zoe.id, secret("nobody knows")}
    assert not set(state.bans) & set(state.members)
    assert (state.former_users(cast.zoe.device.id), state.farewell(cast.zoe.device.id)) == ((), frozenset())


def test_a_ban_cuts_like_a_removal(cast: Cast) -> None:
    named, unnamed = data_log(cast.will), data_log(cast.will, 1)
    before = cast.group.acts
    cast.group.ban(cast.mona, cast.will, data_tips=[tip(named, 3)])
    backdated = cast.group.write(cast.will, [], seen=before)
    state = agreed(cast.group)
    assert [cut_at(state, cast.will, log, hashes(before)) for log in (named, unnamed)] == [3, 0]
    assert backdated.hash in state.void


# --- Bans against invites ---


def test_no_invite_brings_a_banned_user_in(cast: Cast) -> None:
    old = cast.group.invite(cast.alice, Role.OWNER, max_uses=9)
    cast.group.ban(cast.mona, cast.zoe)
    new = cast.group.invite(cast.alice, Role.OWNER, max_uses=9)
    state = agreed(cast.group)
    assert [state.invite_refusal(invite.hash, cast.zoe.id, FIRST_MS) for invite in (old, new)] == ["banned", "banned"]
    admissions = [cast.group.admit(cast.rita, invite, cast.zoe) for invite in (old, new)]
    assert cast.stands(*admissions) == [False, False]
    assert cast.role(cast.zoe) == Role.NONE


def test_of_a_ban_and_an_admission_made_apart_the_ban_counts(cast: Cast) -> None:
    invite = cast.group.invite(cast.alice, Role.OWNER)
    before = cast.group.acts
    cast.group.ban(cast.mona, cast.zoe, seen=before)
    admission = cast.group.admit(cast.rita, invite, cast.zoe, seen=before)
    state = agreed(cast.group)
    assert (admission.hash in state.standing, state.role_of(cast.zoe.id)) == (True, Role.NONE)
    assert state.members[cast.zoe.id].ended == "banned"


def test_refusals_come_in_one_order(cast: Cast) -> None:
    invite = cast.group.invite(cast.alice, expires_ms=FIRST_MS)
    used = cast.group.invite(cast.alice)
    cast.group.admit(cast.rita, used, cast.world.user("yves"))
    state = cast.group.state()
    assert state.invite_refusal(invite.hash, cast.zoe.id, FIRST_MS) == "invite_expired"
    assert state.invite_refusal(used.hash, cast.zoe.id, FIRST_MS) == "invite_used_up"
    cast.group.revoke(cast.alice, invite)
    assert cast.group.state().invite_refusal(invite.hash, cast.zoe.id, FIRST_MS) == "invite_revoked"
    cast.group.ban(cast.alice, cast.zoe)
    state = cast.group.state()
    assert state.invite_refusal(invite.hash, cast.zoe.id, FIRST_MS) == "banned"
    assert state.invite_refusal(secret("nothing"), cast.zoe.id, FIRST_MS) == "invite_invalid"
    assert state.invite_refusal(invite.hash, cast.will.id, FIRST_MS) is None


# --- Unbans ---


@pytest.mark.parametrize("by", [Role.MODERATOR, Role.ADMIN, Role.OWNER, Role.FOUNDER])
@pytest.mark.parametrize("actor", ROLES)
def test_a_ban_is_lifted_by_moderators_and_above_who_are_not_outranked_by_its_author(cast: Cast, actor: Role, by: Role) -> None:
    users = cast.by_role()
    yves = cast.world.user("yves")
    cast.group.ban(users[by], yves)
    unban = cast.group.unban(users[actor], yves)
    lifted = actor >= max(by, Role.MODERATOR)
    assert may_lift_ban(actor, by) == lifted
    state = agreed(cast.group)
    assert (unban.hash in state.standing, yves.id in state.bans) == (actor >= Role.MODERATOR, not lifted)
    cast.group.admit(cast.rita, cast.group.invite(cast.alice), yves)
    assert cast.role(yves) == (Role.WRITER if lifted else Role.NONE)


def test_another_of_the_same_role_lifts_a_ban(cast: Cast) -> None:
    cast.group.ban(cast.mona, cast.zoe)
    cast.group.unban(cast.mark, cast.zoe)
    assert agreed(cast.group).bans == {}


def test_an_unban_makes_nobody_a_member(cast: Cast) -> None:
    cast.group.ban(cast.mona, cast.will)
    cast.group.unban(cast.mona, cast.will)
    state = agreed(cast.group)
    assert (state.role_of(cast.will.id), state.bans) == (Role.NONE, {})
    assert (state.members[cast.will.id].ended, state.may_write(cast.will.id, cast.will.device.id, hashes(cast.group.acts))) == (
        "banned",
        False,
    )


def test_after_an_unban_only_an_invite_that_saw_the_ban_brings_the_user_in(cast: Cast) -> None:
    old = cast.group.invite(cast.alice, max_uses=9)
    cast.group.ban(cast.mona, cast.will)
    between = cast.group.invite(cast.alice, Role.READER, max_uses=9)
    cast.group.unban(cast.mona, cast.will)
    state = agreed(cast.group)
    assert [state.invite_refusal(it.hash, cast.will.id, FIRST_MS) for it in (old, between)] == ["invite_revoked", None]
    by_old, by_between = cast.group.admit(cast.rita, old, cast.will), cast.group.admit(cast.rita, between, cast.will)
    assert cast.stands(by_old, by_between) == [False, True]
    assert cast.role(cast.will) == Role.READER


def test_an_unban_lifts_only_the_bans_that_it_had_seen(cast: Cast) -> None:
    before = cast.group.acts
    seen = cast.group.ban(cast.mona, cast.zoe, "one", seen=before)
    apart = cast.group.ban(cast.mark, cast.zoe, "two", seen=before)
    cast.group.unban(cast.alice, cast.zoe, seen=(*before, seen))
    assert agreed(cast.group).bans == {cast.zoe.id: BanState("two", cast.mark.id, apart.header.hlc)}
    cast.group.unban(cast.alice, cast.zoe)
    assert agreed(cast.group).bans == {}


def test_of_several_bans_the_last_in_order_is_shown(cast: Cast) -> None:
    cast.group.ban(cast.mona, cast.zoe, "one")
    second = cast.group.ban(cast.mark, cast.zoe, "two")
    assert agreed(cast.group).bans == {cast.zoe.id: BanState("two", cast.mark.id, second.header.hlc)}


def test_a_ban_after_an_unban_holds(cast: Cast) -> None:
    cast.group.ban(cast.mona, cast.zoe)
    cast.group.unban(cast.mona, cast.zoe)
    cast.group.ban(cast.mona, cast.zoe)
    assert set(agreed(cast.group).bans) == {cast.zoe.id}


def test_a_banned_moderator_cannot_unban_itself(cast: Cast) -> None:
    before = cast.group.acts
    ban = cast.group.ban(cast.adam, cast.mona)
    open_, backdated = cast.group.unban(cast.mona, cast.mona), cast.group.unban(cast.mona, cast.mona, seen=before, epoch=1)
    forged = cast.group.write(cast.mona, Unban(cast.mona.id), seen=(*before, ban), epoch=2)
    assert cast.stands(open_, backdated, forged) == [False, False, False]
    assert set(agreed(cast.group).bans) == {cast.mona.id}


def test_an_unban_beyond_the_cut_of_its_authors_removal_lifts_nothing(cast: Cast) -> None:
    cast.group.ban(cast.mona, cast.zoe)
    before = cast.group.acts
    cast.group.remove(cast.adam, cast.mark, seen=before)
    unban = cast.group.unban(cast.mark, cast.zoe, seen=before)
    admission = cast.group.admit(cast.rita, cast.group.invite(cast.alice), cast.zoe)
    assert cast.stands(unban, admission) == [False, False]


def test_a_ban_that_fell_keeps_nobody_out(cast: Cast) -> None:
    before = cast.group.acts
    ban = cast.group.ban(cast.mona, cast.zoe, seen=before)
    admission = cast.group.admit(cast.rita, cast.group.invite(cast.alice), cast.zoe)
    assert cast.stands(ban, admission) == [True, False]
    cast.group.remove(cast.adam, cast.mona, seen=before)
    assert cast.stands(ban, admission) == [False, True]
    assert (agreed(cast.group).bans, cast.role(cast.zoe)) == ({}, Role.WRITER)
