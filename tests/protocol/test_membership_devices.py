"""Dropping devices, and what a device that is no member's any more is told (SPEC: A-35, A-36)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peersd.testing.worlds import Device, secret
from peersd_protocol.acts import DropDevice
from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.roles import Role, may_drop_device
from tests.protocol.membership_cast import Cast, agreed, data_log, hashes, tip

ROLES = [Role.NONE, Role.READER, Role.WRITER, Role.MODERATOR, Role.ADMIN, Role.OWNER, Role.FOUNDER]


@pytest.fixture
def cast() -> Cast:
    return Cast()


def log_of(device: Device, kind: Kind = Kind.DATA, epoch: int = 0) -> LogKey:
    return LogKey(kind, b"", device.id, secret("data", epoch)[:16])


# --- Who may drop which ---


@pytest.mark.parametrize("actor", ROLES)
def test_a_device_is_dropped_by_its_user_and_by_admins_of_a_higher_role(cast: Cast, actor: Role) -> None:
    users, before = cast.by_role(), cast.group.acts
    for target, user in users.items():
        own = user is users[actor]
        assert may_drop_device(actor, target) == (actor >= Role.ADMIN and Role.NONE < target < actor)
        allowed = (own and actor > Role.NONE) or may_drop_device(actor, target)
        act = cast.group.drop_device(users[actor], user.device, seen=before, epoch=1 + int(target))
        state = cast.group.state([*before, act])
        assert (act.hash in state.standing) == allowed
        assert state.is_member_device(user.device.id) == ((user.id,) if target and not allowed else ())


def test_one_device_drops_another_of_its_user_and_the_member_stays(cast: Cast) -> None:
    phone = cast.world.add_device(cast.will, "phone")
    cast.group.drop_device(cast.will, phone)
    state = agreed(cast.group)
    assert (state.role_of(cast.will.id), state.members[cast.will.id].devices) == (Role.WRITER, (cast.will.device.id,))
    assert phone.id not in state.member_devices
    assert state.members[cast.will.id].ended is None


def test_only_a_device_of_the_user_named_can_be_dropped(cast: Cast) -> None:
    act = cast.group.write(cast.adam, DropDevice(cast.will.id, cast.rita.device.id, ()))
    assert cast.stands(act) == [False]
    assert cast.rita.device.id in agreed(cast.group).member_devices


def test_a_device_can_be_dropped_only_by_who_saw_that_it_is_the_users(cast: Cast) -> None:
    before = cast.group.acts
    phone = cast.world.add_device(cast.will, "phone")
    act = cast.group.drop_device(cast.adam, phone, seen=before)
    assert cast.stands(act) == [False]


# --- What a drop cuts ---


def test_a_drop_cuts_the_logs_of_that_device_alone(cast: Cast) -> None:
    phone = cast.world.add_device(cast.will, "phone")
    before = hashes(cast.group.acts)
    cast.group.drop_device(cast.will, phone, data_tips=[tip(log_of(phone), 5)])
    state = agreed(cast.group)
    assert state.limits(cast.will.id, log_of(phone), before) == ((tip(log_of(phone), 5),),)
    assert state.limits(cast.will.id, log_of(phone, epoch=1), before) == ((),)
    assert state.limits(cast.will.id, log_of(phone, Kind.CONTROL), before) == ((),)
    assert state.limits(cast.will.id, data_log(cast.will), before) == ()


def test_a_drop_leaves_another_user_of_the_same_device_alone(cast: Cast) -> None:
    shared = cast.world.add_device(cast.rita, "shared", keys=cast.will.device.keys)
    cast.group.drop_device(cast.adam, cast.will.device)
    state = agreed(cast.group)
    assert state.is_member_device(shared.id) == (cast.rita.id,)
    assert state.limits(cast.rita.id, log_of(shared)) == ()
    assert state.limits(cast.will.id, log_of(shared)) == ((),)
    assert state.former_users(shared.id) == (cast.will.id,)
    assert state.farewell(shared.id) == frozenset()  # it still gets everything


def test_entries_and_acts_with_the_drop_in_their_past_do_not_count(cast: Cast) -> None:
    phone = cast.world.add_device(cast.adam, "phone")
    before = hashes(cast.group.acts)
    drop = cast.group.drop_device(cast.adam, phone)
    act = cast.group.settings(phone, name="by the phone", epoch=1)
    note = cast.group.write(phone, [], epoch=2)
    laptop = cast.group.settings(cast.adam, description="by the laptop")
    assert cast.stands(drop, act, note, laptop) == [True, False, False, True]
    state = agreed(cast.group)
    assert [state.may_write(cast.adam.id, phone.id, past) for past in (before, [drop.hash])] == [True, False]
    assert state.may_write(cast.adam.id, cast.adam.device.id, [drop.hash])


def test_a_dropped_device_cannot_backdate(cast: Cast) -> None:
    phone = cast.world.add_device(cast.adam, "phone")
    known = cast.group.settings(phone, name="known")
    before = cast.group.acts
    cast.group.drop_device(cast.adam, phone, seen=before)
    beyond = [cast.group.settings(phone, name="beyond", seen=before, epoch=epoch) for epoch in (0, 1)]
    beside = cast.group.settings(cast.adam, description="beside", seen=before)
    assert cast.stands(known, *beyond, beside) == [True, False, False, True]


def test_a_device_may_drop_itself(cast: Cast) -> None:
    phone = cast.world.add_device(cast.will, "phone")
    drop = cast.group.drop_device(phone, phone)
    after = cast.group.write(phone, [])
    assert cast.stands(drop, after) == [True, False]
    assert agreed(cast.group).members[cast.will.id].devices == (cast.will.device.id,)


def test_of_two_devices_that_drop_each_other_apart_one_stays(cast: Cast) -> None:
    phone = cast.world.add_device(cast.will, "phone")
    before = cast.group.acts
    one = cast.group.drop_device(phone, cast.will.device, seen=before)
    other = cast.group.drop_device(cast.will, phone, seen=before)
    # Each lies beyond the other's cut: the first in order voids the second.
    stays = phone if one.hash < other.hash else cast.will.device
    assert agreed(cast.group).members[cast.will.id].devices == (stays.id,)


def test_a_drop_of_a_seniors_device_counts_for_nothing(cast: Cast) -> None:
    acts = [cast.group.drop_device(cast.adam, device) for device in (cast.olga.device, cast.abel.device)]
    assert cast.stands(*acts) == [False, False]


# --- Coming back ---


def test_a_dropped_device_is_back_after_a_later_grant_to_its_user(cast: Cast) -> None:
    before = cast.group.acts
    drop = cast.group.drop_device(cast.will, cast.will.device)
    apart = cast.group.promote(cast.olga, cast.will, Role.WRITER, seen=before)
    assert cast.will.device.id not in agreed(cast.group).member_devices
    grant = cast.group.promote(cast.olga, cast.will, Role.MODERATOR)
    state = agreed(cast.group)
    assert cast.will.device.id in state.member_devices
    assert [state.may_write(cast.will.id, cast.will.device.id, [it.hash]) for it in (drop, apart, grant)] == [False, True, True]
    assert [state.limits(cast.will.id, data_log(cast.will), [it.hash]) for it in (drop, apart, grant)] == [((),), ((),), ()]
    old, new = cast.group.invite(cast.will, Role.READER), cast.group.invite(cast.will, Role.READER, epoch=1)
    assert cast.stands(old, new) == [False, True]


def test_a_grant_that_fell_brings_no_device_back(cast: Cast) -> None:
    drop = cast.group.drop_device(cast.will, cast.will.device)
    bogus = cast.group.promote(cast.rita, cast.will, Role.MODERATOR)
    entry = cast.group.write(cast.will, [], epoch=1)
    assert cast.stands(drop, bogus, entry) == [True, False, False]
    state = agreed(cast.group)
    assert not state.may_write(cast.will.id, cast.will.device.id, hashes(cast.group.acts))


def test_who_was_removed_and_came_back_has_the_dropped_device_again(cast: Cast) -> None:
    cast.group.drop_device(cast.will, cast.will.device)
    cast.group.remove(cast.mona, cast.will)
    cast.group.join(cast.alice, cast.will)
    assert agreed(cast.group).members[cast.will.id].devices == (cast.will.device.id,)


# --- Farewell ---


def closure(cast: Cast, *heads: bytes) -> set[bytes]:
    acts = {act.hash: act for act in cast.group.acts}
    found, todo = set[bytes](), list(heads)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(acts[name].parents)
    return found


def test_a_member_device_and_a_strangers_get_no_farewell(cast: Cast) -> None:
    state = agreed(cast.group)
    for device in (cast.will.device.id, cast.zoe.device.id, b"?" * 32):
        assert (state.former_users(device), state.farewell(device)) == ((), frozenset())


@pytest.mark.parametrize("how", ["leave", "remove", "ban"])
def test_the_farewell_of_a_former_member_is_the_past_of_what_ended_it_and_nothing_after(cast: Cast, how: str) -> None:
    apart = cast.group.acts
    if how == "leave":
        end = cast.group.leave(cast.will)
    else:
        end = (cast.group.remove if how == "remove" else cast.group.ban)(cast.mona, cast.will)
    later = cast.group.settings(cast.alice, name="secret plans")
    concurrent = cast.group.settings(cast.olga, name="other plans", seen=apart)
    state = agreed(cast.group)
    assert state.former_users(cast.will.device.id) == (cast.will.id,)
    farewell = state.farewell(cast.will.device.id)
    assert farewell == closure(cast, end.hash)
    assert not farewell & {later.hash, concurrent.hash}
    # What it is told is enough to see why.
    told = cast.group.state([act for act in cast.group.acts if act.hash in farewell])
    assert (told.role_of(cast.will.id), told.members[cast.will.id].ended) == (Role.NONE, state.members[cast.will.id].ended)


def test_the_farewell_of_a_dropped_device_is_the_past_of_the_drop(cast: Cast) -> None:
    phone = cast.world.add_device(cast.will, "phone")
    first = cast.group.drop_device(cast.will, phone)
    cast.group.promote(cast.olga, cast.will, Role.MODERATOR)
    assert agreed(cast.group).farewell(phone.id) == frozenset()
    second = cast.group.drop_device(cast.adam, phone)
    cast.group.settings(cast.alice, name="secret plans")
    state = agreed(cast.group)
    assert state.former_users(phone.id) == (cast.will.id,)
    assert state.farewell(phone.id) == closure(cast, second.hash)
    assert first.hash in state.farewell(phone.id)
    assert state.farewell(cast.will.device.id) == frozenset()


def test_a_device_of_two_former_members_is_told_of_both(cast: Cast) -> None:
    shared = cast.world.add_device(cast.rita, "shared", keys=cast.will.device.keys)
    before = cast.group.acts
    ends = [cast.group.remove(cast.mona, cast.will, seen=before), cast.group.ban(cast.mark, cast.rita, seen=before)]
    state = agreed(cast.group)
    assert set(state.former_users(shared.id)) == {cast.will.id, cast.rita.id}
    assert state.farewell(shared.id) == closure(cast, *(act.hash for act in ends))


def test_the_device_that_redeems_is_among_those_that_come_back(cast: Cast) -> None:
    cast.group.drop_device(cast.will, cast.will.device)
    admission = cast.group.admit(cast.rita, cast.group.invite(cast.alice, Role.READER), cast.will)
    state = agreed(cast.group)
    assert admission.hash in state.standing
    assert cast.will.device.id in state.member_devices
    spoiled = cast.group.admit(
        cast.rita, cast.group.invite(cast.alice), cast.will, change=lambda admit: replace(admit, device_signature=bytes(64))
    )
    assert cast.stands(spoiled) == [False]
