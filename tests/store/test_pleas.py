"""What is taken of the acts by which somebody shows that it is a member's device, or the receiver none (SPEC: O-14 to O-16)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from peersd.store.store import Commit
from peersd.testing.simulator.founding import admit
from peersd_protocol import canonical
from peersd_protocol.acts import Invite, Leave, Remove, Settings, encode_body
from peersd_protocol.constants import PLEA_ACTS_MAX, PROOF_BYTES_MAX
from peersd_protocol.entries import Kind
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.messages import Runs, decode_message, decode_runs, encode_runs
from peersd_protocol.roles import Role
from peersd_protocol.runs import Run
from tests.store.pools import by_hand, runs_of
from tests.store.stores import Meeting, Replica, fetch


@pytest.fixture
def meeting(tmp_path: Path) -> Meeting:
    return Meeting(tmp_path)


def remove(by: Replica, target: Replica) -> None:
    by.store.take_right(by.user, lambda cuts: encode_body(Remove(target.user, cuts(target.user))))


def plea(source: Replica, target: Replica) -> bytes:
    message = source.store.plea(target.person.keys.device)
    assert message is not None and len(message) <= PROOF_BYTES_MAX
    return message


def pleaded(source: Replica, target: Replica) -> bool:
    """Whether the target takes anything of what the source pleads with."""
    return take(target, plea(source, target), source) is not None


def take(target: Replica, message: bytes, sender: Replica) -> Commit | None:
    """What the target takes of a plea."""
    commit, _ = target.store.take_plea(message, sender.person.keys.device)
    return commit


def runs_in(source: Replica, message: bytes) -> list[Run]:
    packed = decode_message(message)
    assert isinstance(packed, Runs)
    return decode_runs(packed, source.store.group)


def acts_of(replica: Replica) -> set[bytes]:
    return {entry.header.hash for _, entry, _, _ in replica.store.log.all_entries() if entry.header.kind is not Kind.DATA}


def hashes(runs: Iterable[Run]) -> set[bytes]:
    return {hash_ for run in runs for hash_ in run.hashes}


def split(meeting: Meeting) -> tuple[Replica, Replica, Replica]:
    """An admin, a member whom it has removed, and another one who knows of that: by acts of the founder, which neither the admin
    nor the other one knows, the admin had been removed before."""
    admin, member, other = meeting.join("admin", Role.ADMIN), meeting.join("member"), meeting.join("other")
    for replica in (admin, member, other):
        fetch(replica.store, meeting.founder.store)
    remove(admin, member)
    fetch(other.store, admin.store)
    remove(meeting.founder, admin)
    fetch(member.store, meeting.founder.store)
    return admin, member, other


def test_who_is_held_for_a_former_member_brings_the_acts_by_which_it_is_one(meeting: Meeting) -> None:
    admin, member, other = split(meeting)
    assert other.store.state.role_of(member.user) is Role.NONE and member.store.state.role_of(member.user) is Role.WRITER
    assert pleaded(member, other)
    assert other.store.state.membership == member.store.state.membership
    assert other.store.state.role_of(admin.user) is Role.NONE
    assert not pleaded(member, other), "there is nothing new in it"


def test_of_two_who_hold_each_other_for_former_members_each_brings_the_others_farewell(meeting: Meeting) -> None:
    admin, member, _ = split(meeting)
    said = plea(member, admin)
    assert hashes(runs_in(member, said)) == member.store.state.farewell(admin.person.keys.device)
    assert not pleaded(admin, member), "the founder's act says otherwise"
    assert take(admin, said, member) is not None
    assert admin.store.state.membership == member.store.state.membership


def readmitted(meeting: Meeting) -> tuple[Replica, Replica, Replica]:
    """A member who was removed and whom an admin has admitted anew, a newcomer of that admin's, and another one who knows that
    the admin had been removed by then, and nothing of what it did since."""
    admin, member, other = meeting.join("admin", Role.ADMIN), meeting.join("member"), meeting.join("other")
    remove(meeting.founder, member)
    fetch(admin.store, meeting.founder.store)
    newcomer = meeting.stranger("newcomer")
    for replica in (member, newcomer):
        admit(admin.store, admin.person, replica.person, Role.WRITER)
        fetch(replica.store, admin.store)
    remove(meeting.founder, admin)
    fetch(other.store, meeting.founder.store)
    return member, newcomer, other


def hear(replica: Replica, message: bytes) -> None:
    packed = decode_message(message)
    assert isinstance(packed, Runs)
    replica.store.take(packed)


def rebuttal(source: Replica, target: Replica, message: bytes | None = None) -> list[bytes]:
    """What the target says against a plea of the source's, of which it takes nothing."""
    commit, said = target.store.take_plea(message or plea(source, target), source.person.keys.device)
    assert commit is None
    return said


@pytest.mark.parametrize("which", [0, 1], ids=["who was a member before", "who never was"])
def test_who_pleads_by_acts_that_fell_is_told_why_they_fell(meeting: Meeting, which: int) -> None:
    source, other = readmitted(meeting)[which], meeting.founder
    before = acts_of(other)
    assert source.store.state.role_of(source.user) is Role.WRITER
    assert not pleaded(source, other)
    for message in rebuttal(source, other):
        hear(source, message)
    assert source.store.state.role_of(source.user) is Role.NONE
    assert acts_of(other) == before


def test_what_is_said_against_a_plea_is_no_more_than_what_made_its_acts_fall(meeting: Meeting) -> None:
    member, _, other = readmitted(meeting)
    for name in ("later", "last"):
        remove(meeting.founder, meeting.join(name))
    meeting.founder.store.act(meeting.founder.user, Kind.CONTROL, encode_body(Settings(description="of members only")))
    fetch(other.store, meeting.founder.store)
    said = {hash_ for message in rebuttal(member, other) for hash_ in hashes(runs_in(other, message))}
    assert said and said < acts_of(other)
    removal = max(other.store.state.farewell(member.person.keys.device), key=lambda hash_: hash_ in said)
    assert removal in said
    late = [act for act in acts_of(other) - said if act in other.store.state.standing]
    assert len(late) >= 5, "the removals of others and the setting"


def test_who_leaves_its_removal_out_of_its_plea_or_shows_no_membership_is_told_no_more(meeting: Meeting) -> None:
    other, member = meeting.join("other"), meeting.join("member")
    fetch(other.store, meeting.founder.store)
    ignorant = plea(member, other)
    remove(meeting.founder, member)
    remove(meeting.founder, meeting.join("later"))
    fetch(other.store, meeting.founder.store)
    device = member.person.keys.device
    assert rebuttal(member, other, ignorant) == []
    for message in other.store.farewell(device):
        hear(member, message)
    assert rebuttal(member, other, plea(other, member)) == [], "shown by itself it is no member"


def test_who_makes_up_what_a_removed_admin_wrote_is_not_told_of_the_removal(meeting: Meeting) -> None:
    member, _, other = readmitted(meeting)
    known = acts_of(other)
    runs = runs_in(member, plea(member, other))
    assert rebuttal(member, other, encode_runs(runs))
    made_up = [run if known.issuperset(run.hashes) else replace(run, signature=bytes(64)) for run in runs]
    with pytest.raises(RemoteProtocolError) as caught:
        take(other, encode_runs(made_up), member)
    assert caught.value.close_code is CloseCode.BAD_SIGNATURE
    assert acts_of(other) == known


def leave(replica: Replica) -> None:
    replica.store.take_right(replica.user, lambda cuts: encode_body(Leave(cuts(replica.user))))


def test_of_the_last_two_admins_who_left_apart_the_senior_hears_that_it_is_a_member_still(meeting: Meeting) -> None:
    founder, owner = meeting.founder, meeting.join("owner", Role.OWNER)
    reader = meeting.join("reader", Role.READER)
    fetch(owner.store, founder.store)
    leave(founder)
    leave(owner)
    assert not founder.store.state.role_of(founder.user) and not owner.store.state.role_of(owner.user)
    assert pleaded(owner, founder)
    assert founder.store.state.role_of(founder.user) is Role.FOUNDER
    assert founder.store.state.members[owner.user].ended == "left"
    fetch(reader.store, founder.store)
    assert reader.store.state.membership == founder.store.state.membership


def test_the_leave_of_who_is_a_members_device_is_left_to_the_session_which_brings_its_rows(meeting: Meeting) -> None:
    leaver, other = meeting.join("leaver"), meeting.join("other")
    fetch(leaver.store, meeting.founder.store)
    leaver.note("n", "the last one")
    leave(leaver)
    assert not pleaded(leaver, other)
    fetch(other.store, leaver.store)
    assert other.store.state.members[leaver.user].ended == "left" and len(other.notes()) == 1


def test_who_was_admitted_where_the_other_could_not_hear_it_brings_its_admission(meeting: Meeting) -> None:
    early = meeting.join("early")
    late = meeting.join("late")
    assert not early.store.state.is_member_device(late.person.keys.device)
    late.note("n", "not for pleas")
    assert pleaded(late, early)
    assert early.store.state.role_of(late.user) is Role.WRITER
    assert early.notes() == []


def test_a_leave_that_only_who_was_removed_has_heard_is_brought_by_it(meeting: Meeting) -> None:
    """The leaver took it for a member, and has told nobody else."""
    founder, leaver, removed = meeting.founder, meeting.join("leaver"), meeting.join("removed")
    for replica in (leaver, removed):
        fetch(replica.store, founder.store)
    remove(founder, removed)
    leaver.store.take_right(leaver.user, lambda cuts: encode_body(Leave(cuts(leaver.user))))
    fetch(removed.store, leaver.store)
    for message in founder.store.farewell(removed.person.keys.device):
        hear(removed, message)
    said = removed.store.plea(founder.person.keys.device, is_last=True)
    assert said is not None
    assert founder.store.take_plea(said, removed.person.keys.device) is not None
    assert founder.store.state.role_of(leaver.user) is founder.store.state.role_of(removed.user) is Role.NONE


def test_who_was_removed_by_who_knows_as_much_has_no_last_word(meeting: Meeting) -> None:
    founder, removed = meeting.founder, meeting.join("removed")
    remove(founder, meeting.join("before"))
    fetch(removed.store, founder.store)
    remove(founder, removed)
    for message in founder.store.farewell(removed.person.keys.device):
        hear(removed, message)
    assert removed.store.plea(founder.person.keys.device, is_last=True) is None
    assert removed.store.plea(founder.person.keys.device) is not None


def test_nothing_of_a_truly_removed_members_plea_is_kept(meeting: Meeting) -> None:
    member, other = meeting.join("member", Role.ADMIN), meeting.join("other")
    fetch(member.store, meeting.founder.store)
    remove(meeting.founder, member)
    remove(member, other)
    for name in ("mine", "mine again"):
        member.store.act(member.user, Kind.CONTROL, encode_body(Settings(name=name)))
    before, held = meeting.founder.store.log.position, meeting.founder.store.vector()
    assert not pleaded(member, meeting.founder)
    assert (meeting.founder.store.log.position, meeting.founder.store.vector()) == (before, held)
    assert meeting.founder.store.state.name == "group"


def test_what_stands_not_is_left_out_of_a_plea_that_brings_something(meeting: Meeting) -> None:
    admin, member, other = split(meeting)
    useful = runs_in(member, plea(member, other))
    heads = admin.store.log.act_heads.copy()
    void = by_hand(admin, Kind.CONTROL, *[encode_body(Settings(name=str(number))) for number in range(200)], heads=heads)
    strangers = [meeting.stranger(f"stranger {number}").person for number in range(5)]
    made_up = [run for person in strangers for run in person.identity_runs]
    before = acts_of(other)
    assert take(other, encode_runs([*made_up, void, *useful]), member) is not None
    assert acts_of(other) - before == hashes(useful) - before != set()


def test_an_act_that_stands_and_changes_no_membership_is_not_taken(meeting: Meeting) -> None:
    member, other = meeting.join("member", Role.ADMIN), meeting.join("other")
    fetch(member.store, meeting.founder.store)
    fetch(other.store, member.store)
    member.store.act(member.user, Kind.CONTROL, encode_body(Settings(name="renamed")))
    before = other.store.log.position
    assert take(other, plea(member, other), meeting.stranger("stranger")) is None
    assert other.store.log.position == before


@pytest.mark.parametrize("wrong", ["data", "signature", "parents", "message", "rubbish", "many"])
def test_a_plea_that_is_none_changes_nothing_and_says_why(meeting: Meeting, wrong: str) -> None:
    _, member, other = split(meeting)
    runs = runs_in(member, plea(member, other))
    known = acts_of(other)
    new = [run for run in runs if not known.issuperset(run.hashes)]
    member.note("n", "a row")
    match wrong:
        case "data":
            message = encode_runs([*runs, *(run for run in runs_of(member.store) if run.log.kind is Kind.DATA)])
        case "signature":
            message = encode_runs([Run(run.entries, bytes(64)) if run in new else run for run in runs])
        case "parents":
            orphan = by_hand(member, Kind.CONTROL, encode_body(Settings(name="x")), heads=[bytes(32)])
            message = encode_runs([*runs, orphan])
        case "message":
            message = b"\x91\x07"
        case "many":
            heads = member.store.log.act_heads.copy()
            made = [by_hand(member, Kind.CONTROL, *[b""] * 256, heads=heads)]
            while len(made) * 256 < PLEA_ACTS_MAX:
                made.append(by_hand(member, Kind.CONTROL, *[b""] * 256, after=made[-1].last))
            message = encode_runs([*runs, *made])
        case _:
            message = b"rubbish"
    before = other.store.log.position
    with pytest.raises(RemoteProtocolError) as caught:
        take(other, message, member)
    codes = {"signature": CloseCode.BAD_SIGNATURE, "parents": CloseCode.BAD_CHAIN, "rubbish": CloseCode.MALFORMED}
    assert caught.value.close_code is ({**codes, "many": CloseCode.TOO_LARGE}.get(wrong, CloseCode.PROTOCOL))
    assert other.store.log.position == before
    assert take(other, encode_runs(runs), member) is not None


def test_more_than_fits_is_not_pleaded(meeting: Meeting) -> None:
    member, random = meeting.join("member"), Random(1)
    founder, device = meeting.founder, member.person.keys.device
    assert founder.store.plea(device) is not None
    for _ in range(5):
        founder.store.act(founder.user, Kind.CONTROL, encode_body(Settings(avatar=random.randbytes(60_000))))
    assert founder.store.plea(device) is None


def test_a_few_bytes_that_unpack_to_many_are_neither_weighed_nor_pleaded(meeting: Meeting) -> None:
    member, founder = meeting.join("member"), meeting.founder
    device, log = member.person.keys.device, founder.store.log
    raw = canonical.encode([200, *[0] * 250_000])
    run = by_hand(founder, Kind.CONTROL, raw, heads=log.act_heads.copy())
    founder.store.take_runs([run])
    assert founder.store.plea(device) is not None
    rest = by_hand(founder, Kind.CONTROL, *[raw] * 5, after=run.last)
    message = encode_runs([rest])
    assert len(message) < 512, "of acts as many as there may be, 4 KiB would unpack to a gigabyte"
    with pytest.raises(RemoteProtocolError) as caught:
        take(founder, message, meeting.stranger("stranger"))
    assert (caught.value.close_code, caught.value.detail) == (CloseCode.TOO_LARGE, "bodies of acts")
    founder.store.take_runs([rest])
    assert founder.store.plea(device) is None


def test_more_acts_than_are_weighed_are_not_pleaded(meeting: Meeting) -> None:
    member, founder = meeting.join("member"), meeting.founder
    run = by_hand(founder, Kind.CONTROL, *[b""] * 256, heads=founder.store.log.act_heads.copy())
    for _ in range(PLEA_ACTS_MAX // 256):
        founder.store.take_runs([run])
        run = by_hand(founder, Kind.CONTROL, *[b""] * 256, after=run.last)
    assert founder.store.plea(member.person.keys.device) is None


def test_a_plea_shows_an_outsider_no_more_than_its_farewell(meeting: Meeting) -> None:
    member, other = meeting.join("member"), meeting.join("other")
    remove(meeting.founder, member)
    since, _ = meeting.founder.store.act(meeting.founder.user, Kind.CONTROL, encode_body(Invite(20, 1, 1, bytes(32))))
    remove(meeting.founder, other)
    said = hashes(runs_in(meeting.founder, plea(meeting.founder, member)))
    assert said == meeting.founder.store.state.farewell(member.person.keys.device)
    assert since.hash not in said
    assert meeting.founder.store.plea(meeting.stranger("stranger").person.keys.device) is None
