"""What a device that is no member's any more is sent: the acts that show it why, and nothing else (SPEC: O-6)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from peersd.errors import PeersdError
from peersd.store.store import FindCuts
from peersd_protocol.acts import Ban, Cut, DropDevice, Leave, Remove, Settings, encode_body
from peersd_protocol.constants import MESSAGE_BYTES_MAX
from peersd_protocol.entries import Kind
from peersd_protocol.messages import Block, Runs, decode_message, decode_runs
from peersd_protocol.roles import Role
from peersd_protocol.runs import Run
from tests.store.pools import by_hand, packed
from tests.store.stores import Meeting, Replica, fetch, meet


@pytest.fixture
def meeting(tmp_path: Path) -> Meeting:
    return Meeting(tmp_path)


def farewell(source: Replica, target: Replica) -> list[Runs | Block]:
    messages = []
    for encoded in source.store.farewell(target.person.keys.device):
        assert len(encoded) <= MESSAGE_BYTES_MAX
        message = decode_message(encoded)
        assert isinstance(message, Runs | Block)
        messages.append(message)
    return messages


def runs_in(source: Replica, messages: Sequence[Runs | Block]) -> list[Run]:
    return [run for message in messages if isinstance(message, Runs) for run in decode_runs(message, source.store.group)]


def take(target: Replica, messages: Sequence[Runs | Block]) -> None:
    for message in messages:
        assert target.store.take(message)[0].parked == ()


@pytest.mark.parametrize("act", ["removed", "banned", "left", "dropped"])
def test_a_device_learns_from_it_why_it_gets_nothing_any_more(meeting: Meeting, act: str) -> None:
    member, other = meeting.join("member"), meeting.join("other")
    other.note("o", "nobody's business")
    meet(meeting.founder, other)
    user, device = member.user, member.person.keys.device

    def body(cuts: FindCuts) -> bytes:
        tips = cuts(user)
        match act:
            case "removed":
                return encode_body(Remove(user, tips))
            case "banned":
                return encode_body(Ban(user, "why", tips))
            case "dropped":
                return encode_body(DropDevice(user, device, tips))
            case _:
                return encode_body(Leave(tips))

    by = member if act == "left" else meeting.founder
    by.store.take_right(by.user, body)
    fetch(meeting.founder.store, member.store)
    meeting.founder.store.act(meeting.founder.user, Kind.CONTROL, encode_body(Settings(name="renamed since")))
    messages = farewell(meeting.founder, member)
    assert {run.log.kind for run in runs_in(meeting.founder, messages)} == {Kind.IDENTITY, Kind.CONTROL}
    take(member, messages)
    state = member.store.state
    if act == "dropped":
        assert state.role_of(user) is Role.WRITER and state.members[user].devices == ()
    else:
        assert state.role_of(user) is Role.NONE and state.members[user].ended == act
    assert member.notes() == [] and state.name == "group"
    with pytest.raises(PeersdError):
        member.note("m", "too late")


def test_it_brings_a_device_up_from_nothing(meeting: Meeting) -> None:
    member = meeting.join("member")
    meeting.founder.store.take_right(meeting.founder.user, lambda cuts: encode_body(Remove(member.user, cuts(member.user))))
    restored = Replica(member.path.parent / "restored", member.person, member.context.wall_ms)
    restored.path.parent.mkdir()
    restored.create(meeting.group)
    take(restored, farewell(meeting.founder, member))
    assert restored.store.state.members[member.user].ended == "removed"
    restored.store.close()


def test_members_and_strangers_are_told_nothing(meeting: Meeting) -> None:
    member = meeting.join("member")
    assert meeting.founder.store.farewell(member.person.keys.device) == []
    assert meeting.founder.store.farewell(meeting.stranger("stranger").person.keys.device) == []


def test_an_act_inside_a_run_comes_with_the_rest_of_its_run_and_what_that_rests_on(meeting: Meeting) -> None:
    founder, member, other = meeting.founder, meeting.join("member"), meeting.join("other", Role.ADMIN)
    heads = founder.store.log.act_heads.copy()
    named, _ = other.store.act(other.user, Kind.CONTROL, encode_body(Settings(name="by the admin")))
    apart, _ = other.store.act(other.user, Kind.CONTROL, encode_body(Settings(name="by the admin again")))
    fetch(founder.store, other.store)
    removal, settings = encode_body(Remove(member.user, ())), encode_body(Settings(description="one run"))
    run = by_hand(founder, Kind.CONTROL, removal, settings, heads=heads, last_heads=[named.hash])
    founder.store.take(packed(run))
    take(member, farewell(founder, member))
    assert member.store.state.members[member.user].ended == "removed"
    assert (member.store.state.name, member.store.state.description) == ("by the admin", "one run")
    assert member.store.log.find(apart.hash) is None  # nothing rests on it


def test_an_act_with_a_large_body_comes_with_its_blocks(meeting: Meeting) -> None:
    member = meeting.join("member")
    random = Random(1)
    tips = sorted(Cut(Kind.DATA, random.randbytes(32), random.randbytes(16), 1, random.randbytes(32)) for _ in range(1800))
    body = encode_body(Remove(member.user, ((member.user, tuple(tips)),)))
    meeting.founder.store.act(meeting.founder.user, Kind.CONTROL, body)
    messages = farewell(meeting.founder, member)
    assert [type(message) for message in messages] == [Runs, Runs, Block]
    take(member, messages)
    assert member.store.state.role_of(member.user) is Role.NONE


def test_many_acts_come_in_messages_of_moderate_size(meeting: Meeting) -> None:
    member = meeting.join("member")
    random = Random(1)
    for _ in range(12):
        avatar = random.randbytes(60_000)
        meeting.founder.store.act(meeting.founder.user, Kind.CONTROL, encode_body(Settings(avatar=avatar)))
    meeting.founder.store.take_right(meeting.founder.user, lambda cuts: encode_body(Remove(member.user, cuts(member.user))))
    encoded = meeting.founder.store.farewell(member.person.keys.device)
    assert 4 <= len(encoded) <= 6 and max(map(len, encoded)) < 250_000
    take(member, farewell(meeting.founder, member))
    assert member.store.state.role_of(member.user) is Role.NONE
