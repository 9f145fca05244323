"""Removing members: who may, what it cuts, which invites it kills, and that removals never go in circles (SPEC: A-15 to A-27)."""

from __future__ import annotations

from itertools import permutations

import pytest

from peersd.testing.worlds import FIRST_MS
from peersd_protocol.acts import Remove
from peersd_protocol.roles import Role, may_remove
from tests.protocol.membership_cast import Cast, agreed, cut_at, data_log, hashes, tip

ROLES = [Role.NONE, Role.READER, Role.WRITER, Role.MODERATOR, Role.ADMIN, Role.OWNER, Role.FOUNDER]


@pytest.fixture
def cast() -> Cast:
    return Cast()


# --- Who may remove whom ---


@pytest.mark.parametrize("actor", ROLES)
def test_members_are_removed_by_moderators_and_above_of_a_higher_role(cast: Cast, actor: Role) -> None:
    users, before = cast.by_role(), cast.group.acts
    for target, user in users.items():
        allowed = actor >= Role.MODERATOR and Role.NONE < target < actor
        assert may_remove(actor, target) == allowed
        act = cast.group.remove(users[actor], user, seen=before, epoch=1 + int(target))
        assert (act.hash in cast.group.state([*before, act]).standing) == allowed


def test_who_was_removed_is_no_member_and_stays_listed_with_how_and_when(cast: Cast) -> None:
    removal = cast.group.remove(cast.mona, cast.will)
    state = agreed(cast.group)
    member = state.members[cast.will.id]
    assert (member.role, member.ended, member.left_hlc) == (Role.NONE, "removed", removal.header.hlc)
    assert state.is_member_device(cast.will.device.id) == ()


def test_who_left_and_who_never_was_cannot_be_removed(cast: Cast) -> None:
    cast.group.leave(cast.will)
    acts = [cast.group.remove(cast.alice, user) for user in (cast.will, cast.zoe)]
    assert cast.stands(*acts) == [False, False]
    assert agreed(cast.group).members[cast.will.id].ended == "left"
    assert cast.zoe.id not in agreed(cast.group).members


def test_of_several_ends_made_apart_the_first_in_order_is_named(cast: Cast) -> None:
    before = cast.group.acts
    leave, removal = cast.group.leave(cast.will, seen=before), cast.group.remove(cast.mona, cast.will, seen=before)
    first = min((leave, removal), key=lambda act: act.hash)
    member = agreed(cast.group).members[cast.will.id]
    assert (member.left_hlc, member.ended) == (first.header.hlc, "left" if first is leave else "removed")


# --- What a removal cuts ---


def test_a_removed_writer_cannot_backdate(cast: Cast) -> None:
    named, unnamed = data_log(cast.will), data_log(cast.will, 1)
    before = hashes(cast.group.acts)
    cast.group.remove(cast.mona, cast.will, data_tips=[tip(named, 12)])
    state = agreed(cast.group)
    assert state.limits(cast.will.id, named, before) == ((tip(named, 12),),)
    assert state.limits(cast.will.id, unnamed, before) == ((),)
    assert cut_at(state, cast.will, unnamed, before) == 0
    # By the past that it claims to have seen it might write; the cut is what keeps it out.
    assert state.may_write(cast.will.id, cast.will.device.id, before)
    assert not state.may_write(cast.will.id, cast.will.device.id, hashes(cast.group.acts))


def test_a_removed_admin_cannot_backdate_an_act_of_any_kind(cast: Cast) -> None:
    invite = cast.group.invite(cast.alice)
    phone = cast.world.add_device(cast.adam, "phone")
    before = cast.group.acts
    cast.group.remove(cast.olga, cast.adam)
    backdated = [
        cast.group.settings(cast.adam, name="by adam", seen=before),
        cast.group.invite(cast.adam, Role.MODERATOR, seen=before),
        cast.group.revoke(cast.adam, invite, seen=before),
        cast.group.admit(phone, invite, cast.zoe, seen=before),
        cast.group.promote(cast.adam, cast.will, Role.MODERATOR, seen=before),
        cast.group.demote(cast.adam, cast.mona, Role.READER, seen=before),
        cast.group.remove(phone, cast.mark, seen=before, epoch=3),
        cast.group.ban(cast.adam, cast.rita, seen=before),
        cast.group.unban(cast.adam, cast.rita, seen=before),
        cast.group.drop_device(cast.adam, cast.mona.device, seen=before),
        cast.group.write(phone, [], seen=before, epoch=4),
    ]
    assert cast.stands(*backdated) == [False] * len(backdated)
    state = agreed(cast.group)
    assert [state.role_of(user.id) for user in (cast.mona, cast.mark, cast.will, cast.rita)] == [
        Role.MODERATOR,
        Role.MODERATOR,
        Role.WRITER,
        Role.READER,
    ]
    assert state.name == "the group"


def test_what_a_removed_member_did_before_stands(cast: Cast) -> None:
    named = cast.group.settings(cast.adam, name="by adam")
    removal = cast.group.remove(cast.mona, cast.will)
    cast.group.remove(cast.olga, cast.adam)
    assert cast.stands(named, removal) == [True, True]


def test_the_cut_of_a_removal_takes_what_rests_on_what_it_voids(cast: Cast) -> None:
    invite = cast.group.invite(cast.alice, Role.WRITER)
    before = cast.group.acts
    cast.group.remove(cast.olga, cast.adam, seen=before)
    admission = cast.group.admit(cast.adam, invite, cast.zoe, seen=before)
    second = cast.group.invite(cast.alice, Role.READER, max_uses=2)
    yves = cast.world.user("yves")
    by_zoe = cast.group.admit(cast.zoe, second, yves)
    assert cast.stands(admission, by_zoe) == [False, False]
    assert cast.role(yves) == Role.NONE


def test_a_removal_voids_only_what_ranks_lower_than_its_author(cast: Cast) -> None:
    before = cast.group.acts
    promotion = cast.group.promote(cast.olga, cast.will, Role.ADMIN, seen=before)
    as_admin = cast.group.settings(cast.will, name="by will", seen=(*before, promotion))
    cast.group.remove(cast.mona, cast.will, seen=before)
    assert cast.stands(as_admin) == [True]
    assert cast.role(cast.will) == Role.NONE
    # An owner's ban reaches what the moderator's removal does not.
    cast.group.ban(cast.olga, cast.will, seen=before)
    assert cast.stands(as_admin) == [False]


# --- Mutual and circular ---


def test_two_of_one_role_cannot_remove_each_other(cast: Cast) -> None:
    before = cast.group.acts
    acts = [cast.group.remove(cast.adam, cast.abel, seen=before), cast.group.remove(cast.abel, cast.adam, seen=before)]
    assert cast.stands(*acts) == [False, False]


def test_a_removal_by_who_was_promoted_falls_with_its_own_removal_made_apart(cast: Cast) -> None:
    before = cast.group.acts
    promotion = cast.group.promote(cast.olga, cast.mona, Role.ADMIN, seen=before)
    down = cast.group.remove(cast.mona, cast.mark, seen=(*before, promotion))
    top = cast.group.remove(cast.olga, cast.mona, seen=before)
    assert cast.stands(promotion, down, top) == [True, False, True]
    assert cast.role(cast.mark) == Role.MODERATOR


def test_a_chain_of_removals_made_apart_is_decided_from_the_top(cast: Cast) -> None:
    before = cast.group.acts
    chain = [
        cast.group.remove(cast.mona, cast.will, seen=before),
        cast.group.remove(cast.adam, cast.mona, seen=before),
        cast.group.remove(cast.olga, cast.adam, seen=before),
    ]
    # olga's voids adam's, which therefore does not void mona's.
    assert cast.stands(*chain) == [True, False, True]
    assert [cast.role(user) for user in (cast.adam, cast.mona, cast.will)] == [Role.NONE, Role.MODERATOR, Role.NONE]


def test_a_circle_of_removals_is_decided_from_the_top(cast: Cast) -> None:
    for order in permutations(range(3)):
        cast = Cast()
        before = cast.group.acts
        # will, promoted by the founder, removes adam; adam removes will, whom he knew as a writer; olga removes adam.
        promotion = cast.group.promote(cast.alice, cast.will, Role.OWNER, seen=before)
        made = {}
        for number in order:
            if number == 0:
                made[0] = cast.group.remove(cast.will, cast.adam, seen=(*before, promotion))
            elif number == 1:
                made[1] = cast.group.remove(cast.olga, cast.adam, seen=before)
            else:
                made[2] = cast.group.remove(cast.adam, cast.will, seen=before)
        assert cast.stands(promotion, *(made[number] for number in range(3))) == [True, True, True, False]
        assert [cast.role(user) for user in (cast.olga, cast.adam, cast.will)] == [Role.OWNER, Role.NONE, Role.OWNER]


def test_nobody_removes_itself_but_by_leaving(cast: Cast) -> None:
    acts = [cast.group.remove(user, user) for user in cast.by_role().values()]
    assert cast.stands(*acts) == [False] * len(acts)


# --- Coming back ---


def test_who_was_removed_comes_back_by_an_invite_that_saw_the_removal(cast: Cast) -> None:
    cast.group.remove(cast.mona, cast.will)
    left = hashes(cast.group.acts)
    admission = cast.group.join(cast.alice, cast.will, Role.READER)
    state = agreed(cast.group)
    member = state.members[cast.will.id]
    assert (member.role, member.joined_hlc, member.left_hlc, member.ended) == (Role.READER, admission.header.hlc, None, None)
    assert state.limits(cast.will.id, data_log(cast.will, 1), left) == ((),)
    assert state.limits(cast.will.id, data_log(cast.will, 1), [admission.hash]) == ()


def test_a_ticket_that_had_not_seen_the_removal_brings_the_removed_user_in_no_more(cast: Cast) -> None:
    invite = cast.group.invite(cast.alice, max_uses=9)
    cast.group.admit(cast.rita, invite, cast.zoe)
    cast.group.remove(cast.mona, cast.zoe)
    state = agreed(cast.group)
    yves = cast.world.user("yves")
    assert state.invite_refusal(invite.hash, cast.zoe.id, FIRST_MS) == "invite_revoked"
    assert state.invite_refusal(invite.hash, yves.id, FIRST_MS) is None
    again, other = cast.group.admit(cast.rita, invite, cast.zoe), cast.group.admit(cast.rita, invite, yves)
    assert cast.stands(again, other) == [False, True]
    assert (cast.role(cast.zoe), cast.role(yves)) == (Role.NONE, Role.WRITER)


def test_a_ticket_that_had_not_seen_a_leave_brings_who_left_back(cast: Cast) -> None:
    invite = cast.group.invite(cast.alice, max_uses=9)
    cast.group.leave(cast.will)
    assert agreed(cast.group).invite_refusal(invite.hash, cast.will.id, FIRST_MS) is None
    cast.group.admit(cast.rita, invite, cast.will)
    assert cast.role(cast.will) == Role.WRITER


def test_a_second_removal_kills_the_invites_made_after_the_first(cast: Cast) -> None:
    cast.group.remove(cast.mona, cast.will)
    invite = cast.group.invite(cast.alice, max_uses=9)
    assert agreed(cast.group).invite_refusal(invite.hash, cast.will.id, FIRST_MS) is None
    cast.group.admit(cast.rita, invite, cast.will)
    cast.group.remove(cast.mona, cast.will)
    assert agreed(cast.group).invite_refusal(invite.hash, cast.will.id, FIRST_MS) == "invite_revoked"
    cast.group.admit(cast.rita, invite, cast.will)
    assert cast.role(cast.will) == Role.NONE


def test_an_admission_made_apart_from_a_removal_does_not_undo_it(cast: Cast) -> None:
    invite = cast.group.invite(cast.alice, max_uses=9)
    before = cast.group.acts
    cast.group.remove(cast.mona, cast.will, seen=before)
    cast.group.admit(cast.rita, invite, cast.will, seen=before)
    assert cast.role(cast.will) == Role.NONE


def test_a_removal_that_fell_neither_ends_a_membership_nor_kills_an_invite(cast: Cast) -> None:
    invite = cast.group.invite(cast.alice, max_uses=9)
    before = cast.group.acts
    removal = cast.group.remove(cast.mona, cast.will, seen=before)
    cast.group.admit(cast.rita, invite, cast.will)
    assert cast.role(cast.will) == Role.NONE
    cast.group.remove(cast.adam, cast.mona, seen=before)
    assert cast.stands(removal) == [False]
    assert agreed(cast.group).members[cast.will.id].ended is None
    assert cast.role(cast.will) == Role.WRITER


# --- Removing an inviter ---


def test_removing_the_inviter_voids_the_admissions_it_had_not_seen(cast: Cast) -> None:
    invite = cast.group.invite(cast.mona, max_uses=9)
    seen_user, apart_user, late_user = (cast.world.user(name) for name in ("one", "two", "three"))
    cast.group.admit(cast.rita, invite, seen_user)
    before = cast.group.acts
    cast.group.remove(cast.adam, cast.mona, seen=before)
    apart = cast.group.admit(cast.rita, invite, apart_user, seen=before)
    late = cast.group.admit(cast.rita, invite, late_user)
    assert cast.stands(apart, late) == [False, False]
    state = agreed(cast.group)
    assert [state.role_of(user.id) for user in (seen_user, apart_user, late_user)] == [Role.WRITER, Role.NONE, Role.NONE]
    assert (state.invites[invite.hash].withdrawn, state.invites[invite.hash].used_by) == (True, (seen_user.id,))
    assert state.invite_refusal(invite.hash, cast.zoe.id, FIRST_MS) == "invite_revoked"


def test_an_inviter_who_comes_back_invites_anew(cast: Cast) -> None:
    old = cast.group.invite(cast.mona, max_uses=9)
    cast.group.remove(cast.adam, cast.mona)
    cast.group.join(cast.alice, cast.mona, Role.MODERATOR)
    new = cast.group.invite(cast.mona, epoch=1, max_uses=9)
    before = cast.group.acts
    removal = cast.group.remove(cast.adam, cast.mona, seen=before)
    yves = cast.world.user("yves")
    by_old, by_new = cast.group.admit(cast.rita, old, cast.zoe, seen=before), cast.group.admit(cast.rita, new, yves, seen=before)
    without_removal = cast.group.state([act for act in cast.group.acts if act is not removal])
    assert (by_old.hash in without_removal.standing, by_new.hash in without_removal.standing) == (False, True)
    assert [without_removal.invites[it.hash].withdrawn for it in (old, new)] == [True, False]
    assert cast.stands(by_old, by_new) == [False, False]


def test_an_admission_that_ranks_lower_than_the_remover_of_its_inviter_falls(cast: Cast) -> None:
    invite = cast.group.invite(cast.adam, Role.MODERATOR)
    demotion = cast.group.demote(cast.olga, cast.adam, Role.WRITER)
    before_demotion = [act for act in cast.group.acts if act is not demotion]
    admission = cast.group.admit(cast.rita, invite, cast.zoe, seen=before_demotion)
    removal = cast.group.remove(cast.mona, cast.adam, seen=(*before_demotion, demotion))
    # mona was made a moderator before zoe was, so the admission ranks lower.
    assert cast.stands(removal, admission) == [True, False]


def test_a_moderator_who_is_junior_to_a_newcomer_cannot_void_the_admission_by_removing_the_inviter(cast: Cast) -> None:
    invite = cast.group.invite(cast.adam, Role.MODERATOR)
    before = cast.group.acts
    admission = cast.group.admit(cast.rita, invite, cast.zoe, seen=before)
    demotion = cast.group.demote(cast.olga, cast.adam, Role.WRITER, seen=before)
    junior = cast.world.user("junior")
    second = cast.group.invite(cast.alice, Role.MODERATOR, seen=(*before, demotion))  # deeper than the first admission
    joined = cast.group.admit(cast.rita, second, junior, seen=(*before, demotion), epoch=1)
    removal = cast.group.remove(junior, cast.adam, seen=(*before, demotion, joined))
    assert cast.stands(removal, admission) == [True, True]


# --- Many ---


def test_a_removal_without_cuts_leaves_what_its_author_had_seen(cast: Cast) -> None:
    phone = cast.world.add_device(cast.adam, "phone")
    seen = cast.group.settings(phone, name="seen")
    before = cast.group.acts
    cast.group.write(cast.olga, Remove(cast.adam.id, ()), seen=before)
    unseen = cast.group.settings(phone, name="unseen", seen=before)
    assert cast.stands(seen, unseen) == [True, False]


def test_members_of_all_roles_below_can_be_removed_one_after_another(cast: Cast) -> None:
    targets = [cast.olga, cast.adam, cast.abel, cast.mona, cast.mark, cast.will, cast.rita]
    acts = [cast.group.remove(cast.alice, user) for user in targets]
    assert cast.stands(*acts) == [True] * len(acts)
    assert agreed(cast.group).may_leave(cast.alice.id)
