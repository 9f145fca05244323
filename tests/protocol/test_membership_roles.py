"""Setting roles: who may, promotions and demotions made apart, what a demotion cuts, lowering oneself (SPEC: A-15 to A-33)."""

from __future__ import annotations

from itertools import permutations

import pytest

from peersd.testing.worlds import User
from peersd_protocol.acts import SetRole
from peersd_protocol.constants import LEAVE_ROUNDS_MAX
from peersd_protocol.roles import Role, may_set_role
from tests.protocol.membership_cast import Cast, agreed, cut_at, data_log, hashes, tip

ROLES = [Role.NONE, Role.READER, Role.WRITER, Role.MODERATOR, Role.ADMIN, Role.OWNER, Role.FOUNDER]
GRANTED = ROLES[1:-1]


@pytest.fixture
def cast() -> Cast:
    return Cast()


# --- Who may set which role of whom ---


@pytest.mark.parametrize("granted", GRANTED)
@pytest.mark.parametrize("actor", ROLES)
def test_a_role_is_set_by_admins_of_lower_members_to_lower_roles(cast: Cast, actor: Role, granted: Role) -> None:
    users, author = cast.by_role(), cast.by_role()[actor]
    targets = {role: user for role, user in users.items() if user is not author}
    before = cast.group.acts
    for taking in (False, True):
        for target, user in targets.items():
            allowed = actor >= Role.ADMIN and Role.NONE < target < actor and granted < actor
            assert may_set_role(actor, target, granted) == allowed
            cuts = cast.group.cuts(user, seen=before) if taking else None
            act = cast.group.write(author, SetRole(user.id, granted, cuts), seen=before, epoch=2 * int(target) + taking)
            assert (act.hash in cast.group.state([*before, act]).standing) == allowed


def test_no_other_admin_sets_the_role_of_an_admin(cast: Cast) -> None:
    acts = [cast.group.demote(cast.adam, cast.abel, Role.WRITER), cast.group.promote(cast.adam, cast.abel, Role.MODERATOR)]
    assert cast.stands(*acts) == [False, False]
    assert cast.role(cast.abel) == Role.ADMIN


def test_a_promoted_member_acts_in_its_new_role_and_did_not_before(cast: Cast) -> None:
    early = cast.group.settings(cast.will, name="early")
    cast.group.promote(cast.olga, cast.will, Role.ADMIN)
    late = cast.group.settings(cast.will, name="late")
    assert cast.stands(early, late) == [False, True]
    assert cast.role(cast.will) == Role.ADMIN


def test_a_promotion_to_a_lower_role_takes_nothing(cast: Cast) -> None:
    act = cast.group.promote(cast.olga, cast.adam, Role.READER)
    assert cast.stands(act) == [True]
    assert cast.role(cast.adam) == Role.ADMIN


def test_a_demoted_member_acts_in_the_lesser_role_in_a_new_epoch(cast: Cast) -> None:
    cast.group.settings(cast.adam, name="begins a log")
    cast.group.demote(cast.olga, cast.adam, Role.MODERATOR)
    named = cast.group.settings(cast.adam, name="named", epoch=1)
    invite = cast.group.invite(cast.adam, Role.WRITER, epoch=1)
    old_log = cast.group.invite(cast.adam, Role.WRITER)
    assert cast.stands(named, invite, old_log) == [False, True, False]
    assert cast.role(cast.adam) == Role.MODERATOR


def test_who_was_demoted_can_be_promoted_again(cast: Cast) -> None:
    cast.group.demote(cast.olga, cast.adam, Role.READER)
    cast.group.promote(cast.olga, cast.adam, Role.ADMIN)
    assert cast.role(cast.adam) == Role.ADMIN


def test_a_role_cannot_be_set_of_who_was_removed_and_has_not_come_back(cast: Cast) -> None:
    cast.group.remove(cast.mona, cast.will)
    promotion = cast.group.promote(cast.alice, cast.will, Role.WRITER)
    assert cast.stands(promotion) == [False]
    assert cast.role(cast.will) == Role.NONE


# --- Made apart ---


def test_of_a_promotion_and_a_demotion_made_apart_the_lower_counts(cast: Cast) -> None:
    before = cast.group.acts
    cast.group.promote(cast.olga, cast.will, Role.ADMIN, seen=before)
    cast.group.demote(cast.adam, cast.will, Role.READER, seen=before)
    assert cast.role(cast.will) == Role.READER


def test_of_two_demotions_made_apart_the_lower_counts_whoever_made_it(cast: Cast) -> None:
    for first, second in permutations((Role.READER, Role.WRITER)):
        cast = Cast()
        before = cast.group.acts
        cast.group.demote(cast.olga, cast.mona, first, seen=before)
        cast.group.demote(cast.adam, cast.mona, second, seen=before)
        assert cast.role(cast.mona) == Role.READER


def test_a_promotion_that_saw_one_of_two_demotions_is_lowered_by_the_other(cast: Cast) -> None:
    before = cast.group.acts
    one = cast.group.demote(cast.olga, cast.mona, Role.READER, seen=before)
    cast.group.demote(cast.adam, cast.mona, Role.WRITER, seen=before)
    cast.group.promote(cast.olga, cast.mona, Role.ADMIN, seen=(*before, one))
    assert cast.role(cast.mona) == Role.WRITER
    cast.group.promote(cast.olga, cast.mona, Role.ADMIN)
    assert cast.role(cast.mona) == Role.ADMIN


def test_a_removal_made_apart_from_a_promotion_ends_the_membership(cast: Cast) -> None:
    before = cast.group.acts
    cast.group.promote(cast.olga, cast.will, Role.ADMIN, seen=before)
    cast.group.remove(cast.mona, cast.will, seen=before)
    assert cast.role(cast.will) == Role.NONE


def test_admins_who_are_demoted_cannot_backdate_a_promotion_of_a_friend(cast: Cast) -> None:
    before = cast.group.acts
    cast.group.demote(cast.olga, cast.adam, Role.WRITER)
    backdated = cast.group.promote(cast.adam, cast.will, Role.MODERATOR, seen=before, epoch=7)
    assert cast.stands(backdated) == [False]
    assert cast.role(cast.will) == Role.WRITER


def test_what_was_done_beyond_a_demotions_cut_falls_though_the_lesser_role_would_allow_it(cast: Cast) -> None:
    before = cast.group.acts
    cast.group.demote(cast.olga, cast.adam, Role.MODERATOR, seen=before)
    invite = cast.group.invite(cast.adam, Role.READER, seen=before)
    assert cast.stands(invite) == [False]


def test_what_a_senior_gave_is_not_taken_by_the_demotion_of_who_passed_it_on(cast: Cast) -> None:
    # rita admits zoe by the founder's invite to owner; that rests on the founder and falls with nobody below an owner.
    invite = cast.group.invite(cast.alice, Role.OWNER)
    before = cast.group.acts
    cast.group.remove(cast.mona, cast.rita, seen=before)
    cast.group.admit(cast.rita, invite, cast.zoe, seen=before)
    assert cast.role(cast.zoe) == Role.OWNER


# --- What a demotion cuts ---


def test_a_demotion_to_writer_leaves_data_logs_alone(cast: Cast) -> None:
    first_past = hashes(cast.group.acts)
    cast.group.demote(cast.adam, cast.mona, Role.WRITER)
    state = agreed(cast.group)
    assert state.limits(cast.mona.id, data_log(cast.mona), first_past) == ()
    assert state.may_write(cast.mona.id, cast.mona.device.id, hashes(cast.group.acts))


def test_a_demotion_to_reader_cuts_data_logs_too(cast: Cast) -> None:
    named, unnamed = data_log(cast.mona), data_log(cast.mona, 1)
    first_past = hashes(cast.group.acts)
    cast.group.demote(cast.adam, cast.mona, Role.READER, data_tips=[tip(named, 12)])
    state = agreed(cast.group)
    assert cut_at(state, cast.mona, named, first_past) == 12
    assert cut_at(state, cast.mona, unnamed, first_past) == 0
    assert not state.may_write(cast.mona.id, cast.mona.device.id, hashes(cast.group.acts))
    assert state.may_write(cast.mona.id, cast.mona.device.id, first_past)


def test_a_data_log_begun_after_a_demotion_to_reader_counts_from_the_next_promotion_on(cast: Cast) -> None:
    demotion = cast.group.demote(cast.adam, cast.mona, Role.READER)
    promotion = cast.group.promote(cast.adam, cast.mona, Role.WRITER)
    state = agreed(cast.group)
    for first in (demotion, promotion):
        assert state.limits(cast.mona.id, data_log(cast.mona), [first.hash]) == ()
    assert not state.may_write(cast.mona.id, cast.mona.device.id, [demotion.hash])
    assert state.may_write(cast.mona.id, cast.mona.device.id, [promotion.hash])


def test_a_control_log_begun_apart_from_a_demotion_is_cut_and_one_begun_after_is_not(cast: Cast) -> None:
    before = cast.group.acts
    demotion = cast.group.demote(cast.olga, cast.adam, Role.MODERATOR, seen=before)
    apart = cast.group.write(cast.adam, [], seen=before, epoch=1)
    after = cast.group.write(cast.adam, [], seen=(*before, demotion), epoch=2)
    assert cast.stands(apart, after) == [False, True]


def test_an_entry_already_in_a_demotions_past_is_never_cut(cast: Cast) -> None:
    phone = cast.world.add_device(cast.adam, "phone")
    seen = cast.group.settings(phone, name="seen")
    cast.group.write(cast.olga, SetRole(cast.adam.id, Role.WRITER, ()))
    assert cast.stands(seen) == [True]


# --- Lowering oneself ---


@pytest.mark.parametrize("granted", GRANTED)
@pytest.mark.parametrize("role", ROLES)
def test_anybody_lowers_itself_and_nobody_raises_itself(cast: Cast, role: Role, granted: Role) -> None:
    user = cast.by_role()[role]
    allowed = granted < role
    assert cast.group.state().may_lower_oneself(user.id, granted) == allowed
    raising = cast.group.promote(user, user, granted, epoch=1)
    lowering = cast.group.demote(user, user, granted)
    assert cast.stands(raising, lowering) == [False, allowed]
    assert cast.role(user) == (granted if allowed else role)


def test_who_lowered_itself_goes_on_in_a_new_epoch(cast: Cast) -> None:
    cast.group.demote(cast.adam, cast.adam, Role.MODERATOR)
    old, new = cast.group.invite(cast.adam, Role.READER), cast.group.invite(cast.adam, Role.READER, epoch=1)
    assert cast.stands(old, new) == [False, True]


def test_lowering_oneself_does_not_keep_a_role_that_came_from_an_act_that_fell(cast: Cast) -> None:
    before = cast.group.acts
    promotion = cast.group.promote(cast.adam, cast.will, Role.MODERATOR, seen=before)
    lowering = cast.group.demote(cast.will, cast.will, Role.WRITER, seen=(*before, promotion))
    lower_still = cast.group.demote(cast.rita, cast.rita, Role.READER, seen=before)
    assert cast.role(cast.will) == Role.WRITER
    # The promotion lies beyond the cut of its author's removal; the lowering was decided before and stays.
    removal = cast.group.remove(cast.olga, cast.adam, seen=before)
    apart = cast.group.demote(cast.abel, cast.will, Role.READER, seen=before)
    assert cast.stands(promotion, lowering, lower_still, removal, apart) == [False, True, False, True, True]
    assert cast.role(cast.will) == Role.READER


def test_a_friends_promotion_that_falls_leaves_nothing_of_itself_through_a_lowering(cast: Cast) -> None:
    before = cast.group.acts
    promotion = cast.group.promote(cast.adam, cast.rita, Role.MODERATOR, seen=before)
    cast.group.demote(cast.rita, cast.rita, Role.WRITER, seen=(*before, promotion))
    assert cast.role(cast.rita) == Role.WRITER
    cast.group.remove(cast.olga, cast.adam, seen=before)
    state = agreed(cast.group)
    assert state.role_of(cast.rita.id) == Role.READER
    assert not state.may_write(cast.rita.id, cast.rita.device.id, hashes(cast.group.acts))


def test_a_demotion_makes_nobody_a_member_whose_admission_fell(cast: Cast) -> None:
    invite = cast.group.invite(cast.mona)
    before = cast.group.acts
    admission = cast.group.admit(cast.rita, invite, cast.zoe, seen=before)
    demotion = cast.group.demote(cast.olga, cast.zoe, Role.READER, seen=(*before, admission))
    assert cast.role(cast.zoe) == Role.READER
    cast.group.remove(cast.adam, cast.mona, seen=before)
    state = agreed(cast.group)
    assert (admission.hash in state.standing, demotion.hash in state.standing) == (False, True)
    assert (state.role_of(cast.zoe.id), cast.zoe.id in state.members) == (Role.NONE, False)


# --- The last admin ---


def founder_and_writer() -> tuple[Cast, User, User]:
    cast = Cast()
    for user in (cast.olga, cast.adam, cast.abel, cast.mona, cast.mark, cast.rita):
        cast.group.remove(cast.alice, user)
    return cast, cast.alice, cast.will


def test_the_last_admin_cannot_lower_itself_below_admin() -> None:
    cast, alice, _ = founder_and_writer()
    state = cast.group.state()
    assert [state.may_lower_oneself(alice.id, role) for role in (Role.MODERATOR, Role.ADMIN)] == [False, True]
    falls = cast.group.demote(alice, alice, Role.MODERATOR)
    assert cast.stands(falls) == [False]
    stands = cast.group.demote(alice, alice, Role.ADMIN)
    assert cast.stands(falls, stands) == [False, True]
    assert cast.role(alice) == Role.ADMIN


def test_the_last_admin_cannot_lower_itself_even_alone() -> None:
    cast, alice, will = founder_and_writer()
    cast.group.remove(alice, will)
    act = cast.group.demote(alice, alice, Role.WRITER)
    assert cast.stands(act) == [False]
    assert cast.role(alice) == Role.FOUNDER


def test_a_lowering_of_the_only_member_falls_even_if_an_admin_was_admitted_apart() -> None:
    cast, alice, will = founder_and_writer()
    cast.group.remove(alice, will)
    phone = cast.world.add_device(alice, "phone")
    invite = cast.group.invite(alice, Role.ADMIN)
    before = cast.group.acts
    admission = cast.group.admit(phone, invite, cast.zoe, seen=before)
    # The cuts name what the past does not hold, so that the admission stands whatever becomes of the lowering.
    lowering = cast.group.write(alice, SetRole(alice.id, Role.WRITER, cast.group.cuts(alice)), seen=before)
    assert cast.stands(admission, lowering) == [True, False]
    assert cast.role(alice) == Role.FOUNDER


def test_of_the_last_admins_who_lower_themselves_or_leave_at_once_the_senior_stays() -> None:
    for alice_leaves in (True, False):
        cast, alice, will = founder_and_writer()
        cast.group.promote(alice, will, Role.ADMIN)
        before = cast.group.acts
        if alice_leaves:
            cast.group.leave(alice, seen=before)
            cast.group.demote(will, will, Role.READER, seen=before)
        else:
            cast.group.demote(alice, alice, Role.READER, seen=before)
            cast.group.leave(will, seen=before)
        assert cast.role(alice) == Role.FOUNDER
        assert cast.role(will) == (Role.READER if alice_leaves else Role.NONE)


def test_a_flood_of_last_lowerings_is_judged_in_bounded_rounds_and_nothing_else_falls() -> None:
    cast, alice, _ = founder_and_writer()
    phone = cast.world.add_device(alice, "phone")
    drop, to_admin = cast.group.drop_device(alice, phone), cast.group.demote(alice, alice, Role.ADMIN)
    acts = [cast.group.demote(alice, alice, Role.WRITER, epoch=1) for _ in range(LEAVE_ROUNDS_MAX + 2)]
    acts.append(cast.group.leave(alice, epoch=1))
    assert cast.stands(*acts) == [False] * len(acts)
    assert cast.stands(drop, to_admin) == [True, True]
    assert cast.role(alice) == Role.ADMIN


def test_a_founder_who_lowered_itself_can_be_removed_by_who_is_higher_now(cast: Cast) -> None:
    cast.group.demote(cast.alice, cast.alice, Role.WRITER)
    removal = cast.group.remove(cast.mona, cast.alice)
    assert cast.stands(removal) == [True]
    assert cast.role(cast.alice) == Role.NONE
