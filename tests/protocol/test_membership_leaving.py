"""Leaving a group: what a leave cuts off, who may come back, and that the last admin stays (SPEC: A, DESIGN 10)."""

from __future__ import annotations

from peersd.testing.worlds import Group, User, World, secret
from peersd_protocol.acts import Cut, Leave
from peersd_protocol.constants import LEAVE_ROUNDS_MAX
from peersd_protocol.cuts import killed_by
from peersd_protocol.entries import Act, Kind, LogKey
from peersd_protocol.roles import Role
from peersd_protocol.schema_ops import ColumnDef, CreateTable
from tests.protocol.membership_cast import cut_at

TABLE = CreateTable("t", (ColumnDef("id", "TEXT"),), (0,))


def found(*roles: Role) -> tuple[World, Group, list[User]]:
    """A group of a founder and of one user for each role."""
    world = World()
    users = [world.user(f"user-{number}") for number in range(len(roles) + 1)]
    group = world.group(users[0])
    for user, role in zip(users[1:], roles, strict=True):
        group.join(users[0], user, role)
    return world, group, users


def data_log(user: User, epoch: int = 0) -> LogKey:
    return LogKey(Kind.DATA, b"", user.device.id, secret("data", epoch)[:16])


def tip(log: LogKey, seq: int) -> Cut:
    return Cut(log.kind, log.device, log.epoch, seq, secret("entry", seq))


def hashes(acts: tuple[Act, ...]) -> list[bytes]:
    return [act.hash for act in acts]


def test_who_leaves_is_no_member_and_stays_listed_with_the_time() -> None:
    _, group, (_, will) = found(Role.WRITER)
    leave = group.leave(will)
    state = group.state()
    member = state.members[will.id]
    assert (state.role_of(will.id), member.role, member.left_hlc) == (Role.NONE, Role.NONE, leave.header.hlc)
    assert leave.hash in state.standing


def test_what_a_leaver_writes_afterwards_is_void() -> None:
    _, group, (_, adam) = found(Role.ADMIN)
    group.leave(adam)
    after = group.settings(adam, name="after")
    state = group.state()
    assert after.hash in state.void
    assert not state.may_write(adam.id, adam.device.id, hashes(group.acts))


def test_what_a_leaver_wrote_before_stands() -> None:
    _, group, (_, adam) = found(Role.ADMIN)
    named = group.settings(adam, name="before")
    heads = hashes(group.acts)
    group.leave(adam)
    state = group.state()
    assert named.hash in state.standing
    assert state.name == "before"
    assert state.may_write(adam.id, adam.device.id, heads)


def test_an_act_beyond_the_cut_is_void_whatever_it_claims_to_have_seen() -> None:
    world, group, (_, adam) = found(Role.ADMIN)
    phone = world.add_device(adam, "phone")
    known = group.settings(phone, name="known")
    before = group.acts
    group.leave(adam, seen=before)
    beyond = group.settings(phone, name="beyond", seen=before)
    fresh_log = group.write(phone, [99], seen=before, epoch=7)
    state = group.state()
    assert known.hash in state.standing
    assert {beyond.hash, fresh_log.hash} <= state.void
    assert state.name == "known"
    assert not state.needs_upgrade


def test_a_log_that_the_leave_does_not_name_is_cut_at_what_it_had_seen() -> None:
    world, group, (_, adam) = found(Role.ADMIN)
    phone = world.add_device(adam, "phone")
    seen = group.settings(phone, name="seen")
    before = group.acts
    # The leave names no log at all, but has `seen` in its past: nobody takes back what they attested.
    group.write(adam, Leave(()), seen=before)
    unseen = group.settings(phone, name="unseen", seen=before)
    state = group.state()
    assert seen.hash in state.standing
    assert unseen.hash in state.void


def test_a_leave_is_never_beyond_its_own_cut() -> None:
    _, group, (_, adam) = found(Role.ADMIN)
    first = group.settings(adam, name="first")
    group.settings(adam, name="second")
    log = first.header.log
    leave = group.write(adam, Leave(((adam.id, (Cut(log.kind, log.device, log.epoch, 1, first.hash),)),)))
    state = group.state()
    assert leave.hash in state.standing
    assert state.role_of(adam.id) == Role.NONE
    assert state.name == "second"  # it follows `second` in the log, so it had seen it


def test_a_branch_beside_the_named_tip_is_beyond_the_cut() -> None:
    world, group, (_, adam) = found(Role.ADMIN)
    phone = world.add_device(adam, "phone")
    root = group.write(phone, [])
    named = group.settings(phone, name="named")
    before = group.acts
    group.leave(adam, seen=before)
    # The same sequence, another entry: a fork made later to slip below the cut.
    forged = group.write(phone, [2, [["name", "forged"]]], seen=before[:-1], after=root)
    state = group.state()
    assert forged.header.seq == named.header.seq
    assert forged.hash in state.void
    assert state.name == "named"


def test_a_tip_that_has_not_arrived_yet_counts_by_its_sequence() -> None:
    world, group, (_, adam) = found(Role.ADMIN)
    phone = world.add_device(adam, "phone")
    before = group.acts
    within, tip_act, beyond = (group.settings(phone, name=name, seen=before) for name in ("within", "tip", "beyond"))
    log = within.header.log
    tips = (Cut(log.kind, log.device, log.epoch, 2, tip_act.hash),)
    group.write(adam, Leave(((adam.id, tips),)), seen=before)
    complete = group.state()
    assert {within.hash, tip_act.hash} <= complete.standing
    assert beyond.hash in complete.void
    early = group.state([act for act in group.acts if act not in (tip_act, beyond)])
    assert within.hash in early.standing


def test_a_leave_by_itself_voids_neither_itself_nor_what_it_had_seen() -> None:
    _, group, (_, adam) = found(Role.ADMIN)
    group.settings(adam, name="seen")
    leave = group.write(adam, Leave(()))
    standing = group.state().evaluation
    assert standing is not None
    take = standing.takes[standing.index.position[leave.hash]]
    assert killed_by(take, standing.index.everything, 0, standing.index) == 0


def test_a_revocation_beyond_the_cut_of_its_authors_leave_revokes_nothing() -> None:
    world, group, (alice, mona, will) = found(Role.MODERATOR, Role.WRITER)
    zoe = world.user("zoe")
    phone = world.add_device(mona, "phone")
    invite = group.invite(alice)
    before = group.acts
    group.revoke(phone, invite, seen=before)
    group.admit(will, invite, zoe, seen=before)
    # Deeper than the revocation, so that the order alone would decide the revocation first.
    note = group.settings(alice, name="deeper", seen=before)
    group.leave(mona, seen=(*before, note))
    state = group.state()
    assert state.role_of(zoe.id) == Role.WRITER
    assert not state.invites[invite.hash].revoked


def test_admissions_by_a_leaver_beyond_the_cut_fall_and_are_not_counted_as_uses() -> None:
    world, group, (alice, will) = found(Role.WRITER)
    zoe = world.user("zoe")
    phone = world.add_device(will, "phone")
    invite = group.invite(alice)
    before = group.acts
    group.leave(will, seen=before)
    group.admit(phone, invite, zoe, seen=before)
    state = group.state()
    assert (state.role_of(zoe.id), state.invites[invite.hash].uses) == (Role.NONE, 0)
    group.admit(alice, invite, zoe)
    assert group.state().role_of(zoe.id) == Role.WRITER


def test_a_leave_names_the_data_logs_that_still_count() -> None:
    _, group, (_, will) = found(Role.WRITER)
    first, second = data_log(will), data_log(will, 1)
    heads = hashes(group.acts)
    assert cut_at(group.state(), will, first, heads) is None
    group.leave(will, data_tips=[tip(first, 12)])
    state = group.state()
    assert cut_at(state, will, first, heads) == 12
    assert state.limits(will.id, first, heads) == ((tip(first, 12),),)
    assert cut_at(state, will, second, heads) == 0
    assert state.limits(will.id, second, heads) == ((),)


def test_the_cut_of_one_user_leaves_another_user_of_the_same_log_alone() -> None:
    world, group, (_, will, rita) = found(Role.WRITER, Role.WRITER)
    world.add_device(rita, "shared", keys=will.device.keys)
    group.leave(will)
    assert cut_at(group.state(), will, data_log(will)) == 0
    assert cut_at(group.state(), rita, data_log(will)) is None


def test_a_log_begun_after_coming_back_is_not_cut() -> None:
    _, group, (alice, will) = found(Role.WRITER)
    group.leave(will, data_tips=[tip(data_log(will), 12)])
    left = hashes(group.acts)
    group.join(alice, will)
    back = hashes(group.acts)
    state = group.state()
    assert state.role_of(will.id) == Role.WRITER
    assert cut_at(state, will, data_log(will, 1), back) is None
    assert cut_at(state, will, data_log(will, 1), left) == 0
    assert cut_at(state, will, data_log(will), back) == 12  # the old epoch stays cut
    assert state.may_write(will.id, will.device.id, back)
    assert not state.may_write(will.id, will.device.id, left)


def test_control_acts_after_coming_back_stand_in_a_new_epoch_and_not_in_the_old() -> None:
    _, group, (alice, adam) = found(Role.ADMIN)
    group.settings(adam, name="before")
    group.leave(adam)
    group.join(alice, adam, Role.ADMIN)
    old = group.write(adam, [2, [["description", "old epoch"]]])
    new = group.write(adam, [2, [["name", "new epoch"]]], epoch=1)
    state = group.state()
    assert old.hash in state.void
    assert new.hash in state.standing
    assert (state.name, state.description) == ("new epoch", "")


def test_who_comes_back_joined_when_they_came_back() -> None:
    _, group, (alice, will) = found(Role.WRITER)
    group.leave(will)
    admission = group.join(alice, will, Role.READER)
    member = group.state().members[will.id]
    assert (member.role, member.joined_hlc, member.left_hlc) == (Role.READER, admission.header.hlc, None)


def test_who_came_and_left_twice_joined_and_left_the_second_time() -> None:
    _, group, (alice, will) = found(Role.WRITER)
    group.leave(will)
    admission = group.join(alice, will)
    leave = group.leave(will, epoch=1)
    member = group.state().members[will.id]
    assert (member.role, member.joined_hlc, member.left_hlc) == (Role.NONE, admission.header.hlc, leave.header.hlc)


def test_of_who_came_back_the_admission_that_saw_the_leave_gives_the_time_and_not_one_made_apart() -> None:
    _, group, (alice, will, rita) = found(Role.WRITER, Role.READER)
    invite = group.invite(alice)
    before = group.acts
    group.leave(will, seen=before)
    back = group.join(alice, will)
    notes = [group.write(rita, [], seen=before) for _ in range(9)]
    apart = group.admit(rita, invite, will, seen=(*before, *notes))  # deeper than `back`, and blind to the leave
    state = group.state()
    assert apart.hash in state.standing
    assert (state.members[will.id].joined_hlc, state.members[will.id].left_hlc) == (back.header.hlc, None)


def test_an_admission_that_has_not_seen_the_leave_does_not_undo_it() -> None:
    _, group, (alice, will, rita) = found(Role.WRITER, Role.READER)
    invite = group.invite(alice)
    before = group.acts
    group.leave(will, seen=before)
    admission = group.admit(rita, invite, will, seen=before)
    state = group.state()
    assert state.role_of(will.id) == Role.NONE
    assert not state.may_write(will.id, will.device.id, hashes(group.acts))
    assert cut_at(state, will, data_log(will), [admission.hash]) == 0


def test_a_stranger_cannot_leave() -> None:
    world, group, _ = found()
    leave = group.leave(world.user("zoe"))
    assert leave.hash in group.state().void


# --- The last admin ---


def test_the_last_admin_cannot_leave_while_others_are_members() -> None:
    _, group, (alice, will) = found(Role.WRITER)
    assert not group.state().may_leave(alice.id)
    leave = group.leave(alice)
    state = group.state()
    assert leave.hash in state.void
    assert (state.role_of(alice.id), state.role_of(will.id)) == (Role.FOUNDER, Role.WRITER)


def test_who_tried_to_leave_in_vain_goes_on_as_before() -> None:
    _, group, (alice, _) = found(Role.WRITER)
    group.leave(alice)
    after = group.settings(alice, name="after")
    state = group.state()
    assert after.hash in state.standing
    assert state.name == "after"


def test_the_last_member_of_all_may_leave() -> None:
    _, group, (alice, will) = found(Role.WRITER)
    group.leave(will)
    assert group.state().may_leave(alice.id)
    leave = group.leave(alice)
    state = group.state()
    assert leave.hash in state.standing
    assert [member.role for member in state.members.values()] == [Role.NONE, Role.NONE]


def test_an_admin_leaves_while_another_stays() -> None:
    _, group, (alice, adam, will) = found(Role.ADMIN, Role.WRITER)
    assert group.state().may_leave(alice.id)
    group.leave(alice)
    state = group.state()
    assert [state.role_of(user.id) for user in (alice, adam, will)] == [Role.NONE, Role.ADMIN, Role.WRITER]


def test_a_writer_may_always_leave() -> None:
    _, group, (_, will) = found(Role.WRITER)
    assert group.state().may_leave(will.id)


def test_of_the_last_admins_who_leave_at_once_the_senior_stays() -> None:
    _, group, (alice, adam, abel, will) = found(Role.ADMIN, Role.ADMIN, Role.WRITER)
    group.leave(alice)
    before = group.acts
    leaves = [group.leave(user, seen=before) for user in (adam, abel)]
    state = group.state()
    # The founder left before and does not come back; of the two admins the one appointed first stays.
    assert [state.role_of(user.id) for user in (alice, adam, abel, will)] == [Role.NONE, Role.ADMIN, Role.NONE, Role.WRITER]
    assert [leave.hash in state.standing for leave in leaves] == [False, True]


def test_a_founder_and_an_admin_who_leave_at_once_leave_the_founder() -> None:
    _, group, (alice, adam, _) = found(Role.ADMIN, Role.WRITER)
    before = group.acts
    for user in (alice, adam):
        group.leave(user, seen=before)
    state = group.state()
    assert (state.role_of(alice.id), state.role_of(adam.id)) == (Role.FOUNDER, Role.NONE)


def test_an_admission_that_falls_with_its_authors_leave_does_not_hold_the_founder_back() -> None:
    world, group, (alice, will) = found(Role.WRITER)
    zoe = world.user("zoe")
    invite = group.invite(alice)
    before = group.acts
    # By what the founder knew, will had left and nobody else was a member.
    will_left = group.leave(will, seen=before)
    admission = group.admit(will, invite, zoe, seen=before, epoch=1)
    group.leave(alice, seen=(*before, will_left))
    state = group.state()
    # The admission lies beyond the cut of its author's leave: nobody is left, and the founder may go.
    assert admission.hash in state.void
    assert not any(member.role for member in state.members.values())


def test_a_flood_of_last_leaves_is_judged_in_bounded_rounds() -> None:
    _, group, (alice, will) = found(Role.WRITER)
    leaves = [group.leave(alice) for _ in range(40)]
    state = group.state()
    assert {leave.hash for leave in leaves} <= state.void
    assert (state.role_of(alice.id), state.role_of(will.id)) == (Role.FOUNDER, Role.WRITER)


def test_a_leave_that_was_the_last_admins_falls_even_if_an_admin_was_admitted_apart() -> None:
    world, group, (alice, will) = found(Role.WRITER)
    zoe = world.user("zoe")
    invite = group.invite(alice, Role.ADMIN)
    before = group.acts
    leave = group.leave(alice, seen=before)
    group.admit(will, invite, zoe, seen=before)
    state = group.state()
    assert leave.hash in state.void
    assert (state.role_of(alice.id), state.role_of(zoe.id)) == (Role.FOUNDER, Role.ADMIN)


def test_a_leave_that_falls_counts_for_the_leaves_that_saw_it_as_if_it_had_not_been() -> None:
    world, group, (alice, will) = found(Role.WRITER)
    adam = world.user("adam")
    invite = group.invite(alice, Role.ADMIN)
    before = group.acts
    group.leave(alice, seen=before)  # falls: by its own past only a writer would be left
    group.admit(will, invite, adam, seen=before)
    group.leave(adam)
    state = group.state()
    assert (state.role_of(alice.id), state.role_of(adam.id)) == (Role.FOUNDER, Role.NONE)


def test_who_floods_a_group_with_last_leaves_cannot_leave_any_more() -> None:
    world, group, (alice, _) = found(Role.WRITER)
    for _ in range(LEAVE_ROUNDS_MAX + 1):
        group.leave(alice)
    group.join(alice, world.user("adam"), Role.ADMIN)
    group.leave(alice)
    assert group.state().role_of(alice.id) == Role.FOUNDER


def test_who_tried_to_leave_a_few_times_may_once_there_is_another_admin() -> None:
    world, group, (alice, _) = found(Role.WRITER)
    for _ in range(3):
        group.leave(alice)
    group.join(alice, world.user("adam"), Role.ADMIN)
    group.leave(alice)
    assert group.state().role_of(alice.id) == Role.NONE


def test_a_schema_act_beyond_a_cut_makes_no_table() -> None:
    world, group, (_, adam) = found(Role.ADMIN)
    phone = world.add_device(adam, "phone")
    before = group.acts
    group.leave(adam, seen=before)
    group.schema(phone, TABLE, seen=before)
    assert group.state().schema.tables == ()
