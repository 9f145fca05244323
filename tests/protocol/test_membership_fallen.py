"""What a device is told by whose admission, or by whose return, does not stand: the acts that it fell with (SPEC: A-36)."""

from __future__ import annotations

import pytest

from peersd_protocol.entries import Act
from peersd_protocol.roles import Role
from tests.protocol.membership_cast import Cast, agreed


@pytest.fixture
def cast() -> Cast:
    return Cast()


def told(cast: Cast, device: bytes, *known: Act) -> tuple[Act, ...]:
    """What a device knows once it has heard its farewell."""
    farewell = agreed(cast.group).farewell(device)
    return tuple(act for act in cast.group.acts if act in known or act.hash in farewell)


def test_who_was_admitted_apart_from_the_revocation_of_the_invite_is_told_of_it(cast: Cast) -> None:
    invite = cast.group.invite(cast.mona)
    before = cast.group.acts
    admission = cast.group.admit(cast.rita, invite, cast.zoe, seen=before)
    known = (*before, *cast.zoe.acts, admission)
    revocation = cast.group.revoke(cast.mona, invite, seen=before)
    later = cast.group.settings(cast.alice, name="secret plans")
    device = cast.zoe.device.id
    assert cast.group.state(known).role_of(cast.zoe.id) == Role.WRITER
    assert agreed(cast.group).former_users(device) == (cast.zoe.id,)
    farewell = agreed(cast.group).farewell(device)
    assert revocation.hash in farewell
    assert later.hash not in farewell
    assert cast.group.state(told(cast, device, *known)).role_of(cast.zoe.id) == Role.NONE


def test_who_was_admitted_by_who_was_removed_is_told_of_the_removal(cast: Cast) -> None:
    before = cast.group.acts
    invite = cast.group.invite(cast.mona, seen=before)
    admission = cast.group.admit(cast.mona, invite, cast.zoe, seen=(*before, invite))
    known = (*before, *cast.zoe.acts, invite, admission)
    removal = cast.group.remove(cast.adam, cast.mona, seen=before)
    device = cast.zoe.device.id
    assert cast.stands(removal, admission) == [True, False]
    assert cast.group.state(known).role_of(cast.zoe.id) == Role.WRITER
    assert cast.group.state(told(cast, device, *known)).role_of(cast.zoe.id) == Role.NONE


def test_a_dropped_device_is_told_why_the_grant_that_brought_it_back_fell(cast: Cast) -> None:
    phone = cast.world.add_device(cast.will, "phone")
    cast.group.drop_device(cast.will, phone)
    before = cast.group.acts
    grant = cast.group.promote(cast.adam, cast.will, Role.MODERATOR, seen=before)
    known = (*before, grant)
    cast.group.remove(cast.olga, cast.adam, seen=before)
    assert phone.id in cast.group.state(known).member_devices
    assert agreed(cast.group).former_users(phone.id) == (cast.will.id,)
    assert phone.id not in cast.group.state(told(cast, phone.id, *known)).member_devices
    assert agreed(cast.group).farewell(cast.will.device.id) == frozenset()
