"""A user's identity log: devices, name, and the bounds (SPEC: U, DESIGN 4)."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peersd.testing.worlds import User, World
from peersd_protocol.acts import UserGenesis
from peersd_protocol.constants import IDENTITY_ACTS_MAX, USER_DEVICES_MAX
from peersd_protocol.devicekeys import verify_device_cert
from peersd_protocol.entries import Act, Kind
from peersd_protocol.errors import LocalProtocolError
from peersd_protocol.identity import UserState, evaluate_user


@pytest.fixture
def world() -> World:
    return World()


def state_of(user: User) -> UserState:
    return evaluate_user(user.id, user.acts)


def test_a_user_is_named_by_the_hash_of_the_genesis_and_has_its_device(world: World) -> None:
    alice = world.user("alice")
    state = state_of(alice)
    assert (state.user, state.name) == (alice.acts[0].hash, "alice")
    assert list(state.devices) == [alice.device.id]
    device = state.devices[alice.device.id]
    assert (device.cert.name, device.added_hlc, device.added_by) == ("alice-1", alice.acts[0].header.hlc, alice.id)
    assert state.standing == {alice.id}
    assert state.void == frozenset()
    assert not state.needs_upgrade
    assert (state.recovery_keys, state.recovery_threshold) == ((), 0)


def test_without_acts_a_user_has_no_device() -> None:
    assert evaluate_user(b"u" * 32, []) == UserState(b"u" * 32)


def test_recovery_keys_come_from_the_genesis(world: World) -> None:
    alice = world.user("alice")
    cert = verify_device_cert(alice.device.keys.device_cert("one"))
    act = world.write(alice.device, UserGenesis("a", bytes(16), cert, (b"1" * 32, b"2" * 32), 2), seen=(), epoch=9)
    # The world wrote it under alice's id; a genesis names no user.
    assert act.hash not in evaluate_user(act.hash, [act]).standing
    act = Act(replace(act.header, user=b""), act.body)
    state = evaluate_user(act.hash, [act])
    assert (state.recovery_keys, state.recovery_threshold) == ((b"1" * 32, b"2" * 32), 2)


def test_a_genesis_written_by_another_device_than_it_certifies_is_void(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    act = Act(alice.acts[0].header, [1, "alice", bytes(16), bob.device.keys.device_cert("stolen"), [], 0])
    assert evaluate_user(act.hash, [act]).devices == {}


def test_a_live_device_adds_another_and_that_one_a_third(world: World) -> None:
    alice = world.user("alice")
    phone = world.add_device(alice, "phone")
    tablet = world.add_device(phone, "tablet")
    assert list(state_of(alice).devices) == [alice.device.id, phone.id, tablet.id]
    assert state_of(alice).void == frozenset()


def test_a_device_without_its_own_consent_is_not_added(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    world.add_device(alice, "bob-1", keys=bob.device.keys, consent=bob.device.keys.sign_consent(bob.id))
    state = state_of(alice)
    assert list(state.devices) == [alice.device.id]
    assert state.void == {alice.acts[1].hash}


def test_a_device_that_is_none_of_the_users_adds_nothing_and_renames_nothing(world: World) -> None:
    alice = world.user("alice")
    phone = world.add_device(alice, "phone")
    blind = world.rename(phone, "by the phone, before it knew of being added", seen=alice.acts[:1])
    state = state_of(alice)
    assert state.void == {blind.hash}
    assert state.name == "alice"


def test_a_device_added_twice_keeps_its_first_certificate(world: World) -> None:
    alice = world.user("alice")
    phone = world.add_device(alice, "phone")
    world.add_device(alice, "phone renamed", keys=phone.keys)
    state = state_of(alice)
    assert state.devices[phone.id].cert.name == "phone"
    assert len(state.standing) == 3


def test_the_last_name_counts_and_apart_the_greater_hash(world: World) -> None:
    alice = world.user("alice")
    phone = world.add_device(alice, "phone")
    seen = list(alice.acts)
    one, two = world.rename(alice, "one", seen=seen), world.rename(phone, "two", seen=seen)
    assert state_of(alice).name == ("one" if one.hash > two.hash else "two")
    world.rename(phone, "three")
    assert state_of(alice).name == "three"


def test_an_unknown_act_is_held_and_marks_the_user(world: World) -> None:
    alice = world.user("alice")
    act = world.write_identity(alice, [4, b"later"])
    state = state_of(alice)
    assert state.needs_upgrade
    assert act.hash in state.standing


def test_a_malformed_act_is_void(world: World) -> None:
    alice = world.user("alice")
    act = world.write_identity(alice, [3, "bad\nname"])
    assert state_of(alice).void == {act.hash}


def test_acts_of_other_users_are_passed_over(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    assert evaluate_user(alice.id, [*alice.acts, *bob.acts]) == state_of(alice)


def test_an_identity_act_that_builds_on_another_users_is_void(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    act = world.rename(alice, "tangled", seen=[*alice.acts, *bob.acts])
    state = evaluate_user(alice.id, [*alice.acts, *bob.acts])
    assert state.void == {act.hash}
    after = world.rename(alice, "after")
    assert after.hash in evaluate_user(alice.id, [*alice.acts, *bob.acts]).void


def test_an_identity_act_that_names_a_group_is_void(world: World) -> None:
    alice = world.user("alice")
    group = world.group(alice)
    act = world.write(alice.device, [3, "grouped"], kind=Kind.IDENTITY, seen=alice.acts, group=group.id)
    assert act.hash in evaluate_user(alice.id, [*alice.acts, act]).void


def test_a_missing_parent_is_our_own_fault(world: World) -> None:
    alice = world.user("alice")
    world.rename(alice, "two")
    with pytest.raises(LocalProtocolError):
        evaluate_user(alice.id, alice.acts[1:])


def test_at_most_64_devices_are_live(world: World) -> None:
    alice = world.user("alice")
    devices = [world.add_device(alice, f"device-{number}") for number in range(USER_DEVICES_MAX)]
    state = state_of(alice)
    assert len(state.devices) == 64
    assert devices[-1].id not in state.devices
    assert state.void == {alice.acts[-1].hash}


def test_at_most_1024_acts_count(world: World) -> None:
    alice = world.user("alice")
    for number in range(IDENTITY_ACTS_MAX):
        world.rename(alice, f"name {number}", seen=alice.acts[-1:])
    state = state_of(alice)
    assert len(state.standing) == 1024
    assert state.name == f"name {IDENTITY_ACTS_MAX - 2}"


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.randoms(use_true_random=False))
def test_every_order_of_arrival_gives_the_same_user(seed: int, chance: random.Random) -> None:
    history = random.Random(seed)
    world = World(f"identity {seed}")
    alice = world.user("alice")
    for number in range(12):
        author = history.choice(alice.devices)
        seen = alice.acts[: history.randrange(1, len(alice.acts) + 1)]
        if history.random() < 0.5:
            world.add_device(author, f"device-{number}", seen=seen)
        else:
            world.rename(author, f"name {number}", seen=seen)
    acts, expected = list(alice.acts), state_of(alice)
    chance.shuffle(acts)
    assert evaluate_user(alice.id, acts) == expected
    assert list(evaluate_user(alice.id, acts).devices) == list(expected.devices)
