"""Whatever members and strangers write, every replica evaluates it alike, and as the rules read (SPEC: A-14 to A-36)."""

from __future__ import annotations

import random
import time
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peersd_protocol.act_index import bits_of
from peersd_protocol.acts import TAKING_ACTS, SetRole, decode_act
from peersd_protocol.roles import Role
from peersd_protocol.standing import Standing
from tests.protocol.membership_cast import Cast
from tests.protocol.membership_histories import History
from tests.protocol.membership_reference import Reference

SEEDS = st.integers(0, 1_000_000)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.randoms(use_true_random=False))
def test_every_order_of_arrival_gives_the_same_state(seed: int, chance: random.Random) -> None:
    group = History(seed, 30).group
    acts = list(group.acts)
    expected = group.state()
    assert expected.standing | expected.void == {act.hash for act in acts}
    for _ in range(3):
        chance.shuffle(acts)
        assert group.state([*acts, *acts[:5]]) == expected


@settings(max_examples=120, deadline=None)
@given(SEEDS, st.integers(1, 50))
def test_a_history_amounts_to_what_the_rules_read_slowly_amount_to(seed: int, count: int) -> None:
    history = History(seed, count)
    state, slow = history.group.state(), Reference(history.group.id, history.group.acts)
    everything = frozenset(slow.acts)
    assert state.standing == slow.stands
    for user in history.users:
        assert state.role_of(user.id) == slow.role(user.id, everything)
        assert (user.id in state.bans) == bool(slow.holding_bans(user.id, everything))
        member = state.members.get(user.id)
        for device in user.devices if member else ():
            assert member is not None
            assert (device.id in member.devices) != slow.is_dropped(user.id, device.id, everything)
    for hash_, invite in state.invites.items():
        assert invite.withdrawn == slow.is_withdrawn(hash_, everything)


class JudgesAll(Standing):
    """Judges every act anew at each step."""

    def judge(self, again: int, voided: int, decided: int) -> int:
        before, self.stands = self.stands, self.identities.standing
        unfounded = self.roster.unfounded
        super().judge(self.index.everything, voided, decided)
        return before ^ self.stands | unfounded ^ self.roster.unfounded


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_judging_only_what_a_decision_touches_gives_what_judging_all_gives(seed: int) -> None:
    group = History(seed, 60).group
    quick = group.state().evaluation
    assert quick is not None
    slow = JudgesAll(group.id, quick.index, quick.bodies, quick.identities)
    plain = Standing(group.id, quick.index, quick.bodies, quick.identities)
    for standing in (slow, plain):
        standing.decide(0)
    assert (slow.stands, slow.roster.unfounded) == (plain.stands, plain.roster.unfounded)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_replicas_that_grow_differently_meet_in_the_same_state(seed: int) -> None:
    group = History(seed, 24).group
    acts = list(group.acts)
    # Each prefix of the order of writing holds all parents; no growth on the way may depend on what was evaluated before.
    states = [group.state(acts[:length]) for length in range(12, len(acts) + 1)]
    again = [group.state(acts[:length]) for length in range(len(acts), 11, -1)][::-1]
    assert states == again


@settings(max_examples=80, deadline=None)
@given(SEEDS)
def test_what_stands_rests_on_members_and_a_group_never_loses_its_last_admin(seed: int) -> None:
    group = History(seed, 50).group
    state = group.state()
    roles = [member.role for member in state.members.values() if member.role]
    assert not roles or max(roles) >= Role.ADMIN
    for act in group.control:
        taking = isinstance(decode_act(act.header.kind, act.body), TAKING_ACTS)
        if act.hash in state.standing and act.hash != group.id and not taking:
            assert state.role_in(act.header.user, act.parents) > Role.NONE


@settings(max_examples=80, deadline=None)
@given(SEEDS)
def test_nobody_has_a_role_that_no_standing_act_of_a_higher_one_granted(seed: int) -> None:
    group = History(seed, 50).group
    state = group.state()
    standing = state.evaluation
    assert standing is not None
    for user, member in state.members.items():
        granted = {Role.NONE}
        for role, bits in standing.roster.appointments[user]:
            granted |= {role for _ in bits_of(bits & standing.stands)}
        assert member.role in granted
    for act in group.control:
        body = decode_act(act.header.kind, act.body)
        if act.hash in state.standing and isinstance(body, SetRole) and body.user != act.header.user and body.cuts is None:
            assert state.role_in(act.header.user, act.parents) > max(body.role, Role.MODERATOR)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_no_act_of_a_device_stands_that_had_seen_its_users_end_or_its_own_drop(seed: int) -> None:
    group = History(seed, 50).group
    state = group.state()
    standing = state.evaluation
    assert standing is not None
    for act in group.control:
        body = decode_act(act.header.kind, act.body)
        if act.hash in state.standing and act.hash != group.id and not isinstance(body, TAKING_ACTS):
            past = standing.index.closure(act.parents)
            assert standing.is_live_in(act.header.user, act.header.device, past)


def test_histories_hold_what_they_are_meant_to_try() -> None:
    found: dict[str, list[int]] = {}
    unfounded = 0
    for seed in range(60):
        group = History(seed, 50).group
        state = group.state()
        assert state.evaluation is not None
        unfounded += state.evaluation.roster.unfounded.bit_count()
        for act in group.control:
            counts = found.setdefault(type(decode_act(act.header.kind, act.body)).__name__, [0, 0])
            counts[act.hash in state.standing] += 1
    for name in ("SetRole", "Remove", "Ban", "Unban", "DropDevice", "Leave", "Admit", "RevokeInvite"):
        assert min(found[name]) >= 20, name
    assert unfounded > 0


def roles_after(order: tuple[int, ...]) -> tuple[Role, ...]:
    """The roles after four acts made apart, written in an order."""
    cast = Cast()
    group, before = cast.group, cast.group.acts
    deeds = [
        lambda: group.demote(cast.olga, cast.adam, Role.WRITER, seen=before),
        lambda: group.promote(cast.adam, cast.will, Role.MODERATOR, seen=before),
        lambda: group.remove(cast.mona, cast.will, seen=before),
        lambda: group.ban(cast.adam, cast.mona, seen=before),
    ]
    for number in order:
        deeds[number]()
    state = group.state()
    return tuple(state.role_of(user.id) for user in (cast.olga, cast.adam, cast.mona, cast.will))


def test_all_orders_of_writing_the_same_acts_apart_give_the_same_roles() -> None:
    results = {roles_after(order) for order in permutations(range(4))}
    assert results == {(Role.OWNER, Role.WRITER, Role.MODERATOR, Role.NONE)}


@pytest.mark.parametrize("deed", ["set roles", "drop devices", "ban and unban", "remove and come back"])
def test_many_acts_on_one_member_are_evaluated_quickly(deed: str) -> None:
    cast = Cast()
    group, alice, will = cast.group, cast.alice, cast.will
    for number in range(150):
        seen = (group.control[-1], *alice.acts, *will.acts)
        if deed == "set roles":
            group.promote(alice, will, Role.ADMIN, seen=seen)
            group.demote(alice, will, Role.WRITER, seen=(group.control[-1],))
        elif deed == "drop devices":
            group.drop_device(alice, will.device, seen=seen)
            group.promote(alice, will, Role.WRITER, seen=(group.control[-1],))
        elif deed == "ban and unban":
            group.ban(alice, will, seen=seen)
            group.unban(alice, will, seen=(group.control[-1],))
        else:
            group.remove(alice, will, seen=seen)
            invite = group.invite(alice, seen=(group.control[-1],))
            group.admit(alice, invite, will, seen=(group.control[-1],), link=number)
    acts = group.acts
    group.state(acts)  # signatures are verified once
    started = time.perf_counter()
    group.state(acts)
    # A hang guard only; measured: at most 60 ms.
    assert time.perf_counter() - started < 3
