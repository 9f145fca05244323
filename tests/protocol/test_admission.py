"""Whom a member's device lets in by an invite, of bytes and the group's state alone (SPEC: O-11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from peersd.testing.worlds import FIRST_MS, RAW_BLOCK, Device, User, device_of, secret
from peersd_protocol import canonical
from peersd_protocol.admission import NotAdmitted, Presented, find_admitting, judge
from peersd_protocol.entries import Act
from peersd_protocol.group_state import GroupState
from peersd_protocol.messages import encode_prune, encode_runs
from peersd_protocol.redemption import sign_redemption
from peersd_protocol.roles import Role
from peersd_protocol.runs import Body, Entry, Run
from peersd_protocol.signing import SigningKey
from tests.protocol.membership_cast import Cast

EXPIRES_MS = FIRST_MS * 2
LINK = secret("handshake", 0)


@pytest.fixture
def cast() -> Cast:
    return Cast()


def presented(cast: Cast, invite: Act, newcomer: User | Device) -> Presented:
    return Presented(cast.group.redeem(invite, newcomer), device_of(newcomer).id, LINK)


def runs_of(user: User, acts: Sequence[Act] | None = None) -> list[Run]:
    """Acts, each in a run of its own."""
    keys = {device.id: device.keys.signing for device in user.devices}
    entries = [
        Entry(act.header, Body.of_blocks([RAW_BLOCK + canonical.encode(act.body)] if act.body else []))
        for act in (user.acts if acts is None else acts)
    ]
    return [Run((entry,), entry.header.sign(keys[entry.header.device])) for entry in entries]


def by(user: User) -> bytes:
    return user.device.id


def refusal(
    state: GroupState, shown: Presented, message: bytes, device: bytes, wall_ms: int = EXPIRES_MS - 1
) -> tuple[str | None, str | None]:
    """The reason, and what was wrong in the message."""
    with pytest.raises(NotAdmitted) as caught:
        judge(state, shown, message, device, wall_ms)
    return caught.value.reason, caught.value.fault.detail if caught.value.fault is not None else None


def refused_unread(cast: Cast, shown: Presented, device: bytes) -> bool:
    """Whether a redemption is refused without a reason, whatever follows."""
    with pytest.raises(NotAdmitted) as caught:
        find_admitting(cast.group.state(), shown, device)
    return refusal(cast.group.state(), shown, b"\x90", device) == (caught.value.reason, None) == (None, None)


def test_a_device_of_any_member_admits_in_the_name_of_its_user(cast: Cast) -> None:
    invite = cast.group.invite(cast.alice)
    shown, identity = presented(cast, invite, cast.zoe), runs_of(cast.zoe)
    for role, user in cast.by_role().items():
        if role:
            admitting, runs = judge(cast.group.state(), shown, encode_runs(identity), by(user), EXPIRES_MS - 1)
            assert (admitting, runs) == (user.id, identity)
            assert find_admitting(cast.group.state(), shown, by(user)) == user.id


def test_the_act_names_user_invite_and_link(cast: Cast) -> None:
    invite = cast.group.invite(cast.alice)
    shown = presented(cast, invite, cast.zoe)
    act = cast.group.write(cast.rita, shown.act())
    assert cast.stands(act) == [True] and cast.role(cast.zoe) is Role.WRITER


def test_a_device_that_is_no_members_decides_nothing(cast: Cast) -> None:
    invite = cast.group.invite(cast.alice)
    shown = presented(cast, invite, cast.zoe)
    assert refused_unread(cast, shown, by(cast.zoe))
    cast.group.leave(cast.rita)
    assert refused_unread(cast, shown, by(cast.rita))
    phone = cast.world.add_device(cast.will, "phone")
    assert find_admitting(cast.group.state(), shown, phone.id) == cast.will.id
    cast.group.drop_device(cast.will, phone)
    assert refused_unread(cast, shown, phone.id)


def test_who_does_not_hold_the_ticket_is_told_nothing(cast: Cast) -> None:
    invite = cast.group.invite(cast.alice)
    good = presented(cast, invite, cast.zoe)
    other = cast.world.user("other")
    own_key = SigningKey(secret("another invite key"))
    by_own_key = sign_redemption(
        group_id=cast.group.id,
        invite_hash=invite.hash,
        invite_key=own_key,
        user=cast.zoe.id,
        identity_head_hash=cast.zoe.acts[-1].hash,
        device_key=cast.zoe.device.keys.signing,
        handshake_hash=LINK,
    )
    for shown in (
        replace(good, redemption=by_own_key),
        replace(good, redemption=replace(good.redemption, invite_public_key=own_key.public)),
        replace(good, redemption=replace(good.redemption, invite_hash=secret("no invite"))),
        replace(good, redemption=replace(good.redemption, user=other.id)),
        replace(good, redemption=replace(good.redemption, invite_signature=bytes(64))),
        replace(good, redemption=replace(good.redemption, device_signature=bytes(64))),
        replace(good, device=other.device.id),
        replace(good, handshake_hash=secret("handshake", 1)),
    ):
        assert refused_unread(cast, shown, by(cast.alice))


def test_what_follows_is_the_users_own_identity_log_with_the_head_that_was_named(cast: Cast) -> None:
    cast.world.rename(cast.zoe, "zo")
    invite = cast.group.invite(cast.alice)
    shown, own = presented(cast, invite, cast.zoe), runs_of(cast.zoe)

    def wrong(message: bytes) -> str | None:
        reason, fault = refusal(cast.group.state(), shown, message, by(cast.alice))
        assert reason == "invite_invalid"
        return fault

    assert wrong(b"") is None  # nothing came in time
    assert wrong(b"\x90") is not None  # no message
    assert wrong(encode_prune()) == "an identity log is one RUNS message"
    control = [act for act in cast.group.control if act.header.user == cast.alice.id][:1]
    own_control = runs_of(cast.zoe, [cast.group.settings(cast.zoe, name="zo's")])
    for others in (runs_of(cast.will), runs_of(cast.alice, control), own_control):
        assert wrong(encode_runs([*own, *others])) == "more than the identity log of who redeems"
    assert wrong(encode_runs(own[:1])) == "an identity log without the head that the redemption names"
    assert wrong(encode_runs(own[1:])) == "an identity log that names acts which are not in it"
    judge(cast.group.state(), shown, encode_runs(own), by(cast.alice), EXPIRES_MS - 1)


def test_the_identity_by_itself_makes_the_device_the_users(cast: Cast) -> None:
    phone = cast.world.add_device(cast.zoe, "phone")
    invite = cast.group.invite(cast.alice)
    stranger = Device("stranger", cast.world.keys("stranger"), cast.zoe)
    state, message = cast.group.state(), encode_runs(runs_of(cast.zoe))
    for device in (cast.zoe.device, phone):
        judge(state, presented(cast, invite, device), message, by(cast.alice), EXPIRES_MS - 1)
    told = refusal(state, presented(cast, invite, stranger), message, by(cast.alice))
    assert told == ("invite_invalid", "an identity log that does not make the device the user's")


def test_the_invite_is_looked_at_before_any_act_is_evaluated_and_a_member_needs_none(cast: Cast) -> None:
    invite = cast.group.invite(cast.alice)
    used = cast.group.invite(cast.alice)
    cast.group.admit(cast.alice, used, cast.world.user("first"))
    revoked = cast.group.invite(cast.alice)
    cast.group.revoke(cast.alice, revoked)
    state, device = cast.group.state(), by(cast.alice)
    stranger = Device("stranger", cast.world.keys("stranger"), cast.zoe)
    for who in (cast.zoe, stranger):
        own = encode_runs(runs_of(cast.zoe))
        assert refusal(state, presented(cast, used, who), own, device) == ("invite_used_up", None)
        assert refusal(state, presented(cast, revoked, who), own, device) == ("invite_revoked", None)
        assert refusal(state, presented(cast, invite, who), own, device, EXPIRES_MS) == ("invite_expired", None)
    for one in (used, revoked, invite):
        judge(state, presented(cast, one, cast.will), encode_runs(runs_of(cast.will)), device, EXPIRES_MS)
    cast.group.ban(cast.alice, cast.zoe)
    own = encode_runs(runs_of(cast.zoe))
    assert refusal(cast.group.state(), presented(cast, invite, cast.zoe), own, device) == ("banned", None)
    assert refusal(cast.group.state(), presented(cast, invite, cast.zoe), b"\x90", device)[0] == "invite_invalid"


def test_who_was_removed_and_has_not_heard_of_it_has_not_joined_by_a_later_invite(cast: Cast) -> None:
    unheard = cast.group.acts
    cast.group.remove(cast.alice, cast.will)
    invite = cast.group.invite(cast.alice)
    before = cast.group.state(unheard)
    assert before.role_of(cast.will.id) and not before.has_joined(cast.will.id, invite.hash)
    assert not cast.group.state().has_joined(cast.will.id, invite.hash)
    cast.group.admit(cast.alice, invite, cast.will)
    assert cast.group.state().has_joined(cast.will.id, invite.hash)
    assert not cast.group.state().has_joined(cast.zoe.id, invite.hash)
