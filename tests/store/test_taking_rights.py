"""Acts that take a right: what their cuts name, what lies beyond, and how whoever keeps or regains a role goes on (DESIGN 10)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from peersd.errors import PeersdError
from peersd.store.log import State
from peersd.store.store import FindCuts, open_store
from peersd.testing.simulator.founding import Person, admit
from peersd_protocol import hlc
from peersd_protocol.acts import Ban, Cut, DropDevice, Invite, Leave, Remove, SetRole, Settings, UserGenesis, encode_body
from peersd_protocol.blocks import split_body
from peersd_protocol.constants import CUT_LOGS_MAX
from peersd_protocol.devicekeys import verify_device_cert
from peersd_protocol.entries import Header, Kind
from peersd_protocol.roles import Role
from peersd_protocol.runs import Body, Entry, Run
from peersd_protocol.signing import SigningKey
from tests.store.pools import by_hand, clone, header_of, in_step, packed, runs_of, seqs
from tests.store.stores import FIRST_MS, Meeting, Replica, assert_alike, fetch, meet

NEVER_MS = FIRST_MS + 10**9


@pytest.fixture
def meeting(tmp_path: Path) -> Meeting:
    return Meeting(tmp_path)


def take(by: Replica, whom: Replica, act: Role | str = "remove") -> None:
    """Writes an act that takes a right, a role being what a demotion leaves, with cuts at what the author's store holds."""
    user, device = whom.user, whom.person.keys.device

    def body(cuts: FindCuts) -> bytes:
        match act:
            case Role():
                kinds = [Kind.CONTROL] if act >= Role.WRITER else [Kind.CONTROL, Kind.DATA]
                return encode_body(SetRole(user, act, cuts(user, kinds)))
            case "drop":
                return encode_body(DropDevice(user, device, cuts(user, device=device)))
            case "leave":
                return encode_body(Leave(cuts(user)))
            case "ban":
                return encode_body(Ban(user, "", cuts(user)))
            case _:
                return encode_body(Remove(user, cuts(user)))

    by.store.take_right(by.user, body)


def titles(replica: Replica) -> list[object]:
    return [row[1] for row in replica.notes()]


def cut_of(replica: Replica, kind: Kind) -> Cut:
    """The tip of a device's own log of its epoch."""
    ((log, ((seq, hash_),)),) = [
        (log, tips)
        for log, tips in replica.store.vector().items()
        if (log.kind, log.device, log.epoch) == (kind, replica.person.keys.device, replica.store.epoch)
    ]
    return Cut(kind, log.device, log.epoch, seq, hash_)


def invite_again(meeting: Meeting, whom: Replica, role: Role = Role.WRITER) -> None:
    admit(meeting.founder.store, meeting.founder.person, whom.person, role)


def no_position_twice(replica: Replica) -> bool:
    places = [(entry.header.log, entry.header.seq) for _, entry, _, _ in replica.store.log.all_entries()]
    return len(places) == len(set(places))


# --- What cuts name -------------------------------------------------------------------------------------------------------------


def test_cuts_name_the_tips_of_a_users_control_and_data_logs_in_order(meeting: Meeting) -> None:
    admin, other = meeting.join("admin", Role.ADMIN), meeting.join("other")
    admin.note("a", "the admin's")
    other.note("o", "another's")
    admin.store.act(admin.user, Kind.CONTROL, encode_body(Settings(name="renamed")))
    meet(meeting.founder, admin, other)
    founder = meeting.founder.store
    control, data = cut_of(admin, Kind.CONTROL), cut_of(admin, Kind.DATA)
    assert founder.cuts(admin.user) == ((admin.user, (control, data)),)
    assert founder.cuts(admin.user, [Kind.CONTROL]) == ((admin.user, (control,)),)
    assert founder.cuts(admin.user, device=admin.person.keys.device) == ((admin.user, (control, data)),)
    assert founder.cuts(admin.user, device=other.person.keys.device) == ()
    assert founder.cuts(meeting.stranger("stranger").user) == ()
    encode_body(Remove(admin.user, founder.cuts(admin.user)))  # as every receiver checks it


def test_cuts_name_all_tips_of_a_log_that_forked(meeting: Meeting, tmp_path: Path) -> None:
    writer = meeting.join("writer")
    twin = clone(writer, tmp_path / "twin")
    writer.note("1", "here")
    twin.note("1'", "there")
    twin.note("2'", "there")
    here, there = cut_of(writer, Kind.DATA), cut_of(twin, Kind.DATA)
    meet(meeting.founder, writer, twin)
    assert meeting.founder.store.cuts(writer.user) == ((writer.user, (here, there)),)


def test_a_log_in_which_a_user_has_only_void_entries_is_not_named(meeting: Meeting) -> None:
    reader = meeting.join("reader", Role.READER)
    meeting.founder.store.take(packed(by_hand(reader, Kind.DATA, b"", heads=meeting.founder.store.log.act_heads)))
    assert meeting.founder.store.cuts(reader.user) == ()


def test_who_opens_more_logs_than_an_act_can_name_is_removed_all_the_same_and_keeps_the_longest(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    writer.note("1", "in a log of one's own")
    writer.note("2", "and another")
    fetch(meeting.founder.store, writer.store)
    heads = sorted(writer.store.log.act_heads)
    runs = [by_hand(writer, Kind.DATA, b"", epoch=number.to_bytes(16, "big"), heads=heads) for number in range(CUT_LOGS_MAX)]
    meeting.founder.store.take(packed(*runs))
    ((_, tips),) = meeting.founder.store.cuts(writer.user)
    assert len(tips) == CUT_LOGS_MAX and list(tips) == sorted(tips)
    assert cut_of(writer, Kind.DATA) in tips
    take(meeting.founder, writer)
    assert meeting.founder.store.state.role_of(writer.user) is Role.NONE
    assert sorted(map(str, titles(meeting.founder))) == ["and another", "in a log of one's own"]


def test_an_act_that_would_not_stand_is_refused_and_leaves_no_trace(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    before, epoch = writer.store.vector(), writer.store.epoch
    with pytest.raises(PeersdError) as refused:
        take(writer, meeting.founder)
    assert refused.value.code == "not_allowed"
    assert writer.store.vector() == before and writer.store.epoch == epoch


# --- What lies beyond -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["remove", "ban", "drop", Role.READER])
def test_what_a_member_wrote_beyond_the_cut_is_void_everywhere_and_listed_for_it(meeting: Meeting, act: Role | str) -> None:
    writer, other = meeting.join("writer"), meeting.join("other")
    writer.note("1", "known")
    meet(meeting.founder, writer, other)
    late = [writer.note(f"{number}", "late").entries[-1] for number in (2, 3)]
    fetch(other.store, writer.store)
    assert writer.store.voided(writer.user) == []
    take(meeting.founder, writer, act)
    meet(meeting.founder, writer, other)
    for replica in (meeting.founder, writer, other):
        assert titles(replica) == ["known"]
    assert [(entry.log, entry.seq, entry.hash) for entry in writer.store.voided(writer.user)] == [
        (entry.log, entry.seq, entry.hash) for entry in late
    ]
    assert [entry.hlc for entry in writer.store.voided(writer.user)] == [
        header_of(writer.store, entry.hash).hlc for entry in late
    ]
    assert other.store.voided(writer.user) == [] and writer.store.voided(other.user) == []
    with pytest.raises(PeersdError) as refused:
        writer.note("4", "after it knew")
    assert refused.value.code == "not_allowed"
    assert_alike(meeting.founder, other)


@pytest.mark.parametrize("is_told_first", [True, False])
@pytest.mark.parametrize("epoch", ["old", "new"])
@pytest.mark.parametrize("act", ["remove", "ban", "drop", "leave", Role.READER])
def test_a_removed_writer_cannot_backdate(meeting: Meeting, act: Role | str, epoch: str, is_told_first: bool) -> None:
    """What it makes by hand claims a stamp and a control past from before; it may come before the act or after."""
    writer, other = meeting.join("writer"), meeting.join("other")
    writer.note("1", "known")
    meet(meeting.founder, writer, other)
    heads = sorted(writer.store.log.act_heads)
    known = header_of(writer.store, cut_of(writer, Kind.DATA).hash)
    after = known if epoch == "old" else None
    take(writer if act == "leave" else meeting.founder, writer, act)
    forged = by_hand(writer, Kind.DATA, b"", after=after, heads=() if after else heads)
    if act == "leave":
        fetch(meeting.founder.store, writer.store)
    if is_told_first:
        fetch(other.store, meeting.founder.store)
    good = other.note("o", "the other's").entries[-1]
    runs = [run for run in runs_of(other.store) if run.last.hash == good.hash]
    other.store.take(packed(forged))
    fetch(other.store, meeting.founder.store)
    meeting.founder.store.take(packed(forged, *runs))
    for replica in (meeting.founder, other):
        row = replica.store.log.find(forged.last.hash)
        assert row is not None and row.state is State.VOID
        assert titles(replica) == ["known", "the other's"]
    in_step(other.store, meeting.founder.store)


def test_what_a_reader_forges_is_kept_as_headers_and_the_rest_of_the_message_is_taken(meeting: Meeting) -> None:
    reader, writer = meeting.join("reader", Role.READER), meeting.join("writer")
    fetch(reader.store, meeting.founder.store)
    with pytest.raises(PeersdError) as refused:
        reader.note("r", "by its own store")
    assert refused.value.code == "not_allowed"
    body = b"\x93\x01\x90\x07"  # which nobody would take of a writer
    forged = by_hand(reader, Kind.DATA, body, body, heads=reader.store.log.act_heads)
    writer.note("w", "the writer's")
    good = [run for run in runs_of(writer.store) if run.log.kind is Kind.DATA]
    late = meeting.stranger("late")
    acts = [run for run in runs_of(meeting.founder.store) if run.log.kind is not Kind.DATA]
    for store, runs in ((meeting.founder.store, [forged, *good]), (late.store, [forged, *acts, *good])):
        ingested, commit = store.take(packed(*runs))
        assert ingested.parked == () and list(ingested.void) == [entry.header.hash for entry in forged.entries]
        assert ingested.void_tips == ((forged.log, (2, forged.last.hash)),) and forged.log not in ingested.held
        assert commit is not None and forged.last.hash not in {entry.hash for entry in commit.entries}
    for replica in (meeting.founder, late):
        assert titles(replica) == ["the writer's"]
        assert forged.log not in replica.store.vector()
        assert [state for _, _, state, _ in replica.store.log.entries("hash = ?", (forged.last.hash,))] == [State.VOID]


def test_what_a_reader_forges_stays_void_when_the_reader_becomes_a_writer(meeting: Meeting) -> None:
    reader = meeting.join("reader", Role.READER)
    forged = by_hand(reader, Kind.DATA, b"", heads=reader.store.log.act_heads)
    meeting.founder.store.take(packed(forged))
    meeting.founder.store.act(meeting.founder.user, Kind.CONTROL, encode_body(SetRole(reader.user, Role.WRITER)))
    fetch(reader.store, meeting.founder.store)
    reader.note("r", "a writer's")
    fetch(meeting.founder.store, reader.store)
    row = meeting.founder.store.log.find(forged.last.hash)
    assert row is not None and row.state is State.VOID
    assert titles(meeting.founder) == ["a writer's"]


# --- Going on in a new epoch ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["remove", "leave", "drop", Role.READER])
def test_who_was_cut_and_may_write_again_goes_on_in_a_new_epoch_with_its_history(meeting: Meeting, act: Role | str) -> None:
    writer, other = meeting.join("writer"), meeting.join("other")
    writer.note("1", "before")
    meet(meeting.founder, writer, other)
    old = writer.store.epoch
    take(writer if act == "leave" else meeting.founder, writer, act)
    writer.store.vector()
    meet(meeting.founder, writer)
    if act is Role.READER:
        meeting.founder.store.act(meeting.founder.user, Kind.CONTROL, encode_body(SetRole(writer.user, Role.WRITER)))
    else:
        invite_again(meeting, writer)
    fetch(writer.store, meeting.founder.store)
    writer.note("2", "again")
    assert writer.store.epoch != old
    writer.note("1", "changed")
    meet(meeting.founder, writer, other)
    for replica in (meeting.founder, writer, other):
        assert titles(replica) == ["changed", "again"]
        assert seqs(replica.store, old) == [1] and seqs(replica.store, writer.store.epoch) == [1, 2]
        assert no_position_twice(replica)
    assert_alike(meeting.founder, writer, other)
    epoch = writer.store.epoch
    assert writer.reopen().epoch == epoch
    writer.note("3", "goes on")
    assert writer.store.epoch == epoch


def test_what_was_written_before_one_knew_of_the_removal_stays_void_after_one_is_invited_again(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    writer.note("1", "known")
    fetch(meeting.founder.store, writer.store)
    writer.note("2", "beyond")
    old = writer.store.epoch
    take(meeting.founder, writer)
    invite_again(meeting, writer)
    fetch(writer.store, meeting.founder.store)  # of both at once
    assert titles(writer) == ["known"] and len(writer.store.voided(writer.user)) == 1
    writer.note("3", "again")
    meet(meeting.founder, writer)
    assert titles(meeting.founder) == ["known", "again"]
    assert seqs(meeting.founder.store, old) == [1] and seqs(meeting.founder.store, writer.store.epoch) == [1]
    assert no_position_twice(writer)
    assert_alike(meeting.founder, writer)


def test_a_demoted_admin_writes_data_on_and_acts_in_a_new_epoch(meeting: Meeting) -> None:
    admin = meeting.join("admin", Role.ADMIN)
    admin.store.act(admin.user, Kind.CONTROL, encode_body(Settings(name="by the admin")))
    admin.note("1", "before")
    fetch(meeting.founder.store, admin.store)
    admin.note("2", "the cut leaves data alone")
    old = admin.store.epoch
    take(meeting.founder, admin, Role.MODERATOR)
    fetch(admin.store, meeting.founder.store)
    admin.note("3", "after")
    assert admin.store.epoch == old
    key = SigningKey(b"\x07" * 32)
    admin.store.act(admin.user, Kind.CONTROL, encode_body(Invite(Role.WRITER, NEVER_MS, 1, key.public)))
    assert admin.store.epoch != old
    admin.note("4", "in the new one too")
    meet(meeting.founder, admin)
    assert len(titles(meeting.founder)) == 4 and meeting.founder.store.state.name == "by the admin"
    assert len(meeting.founder.store.state.invites) == 2
    assert no_position_twice(meeting.founder)
    assert_alike(meeting.founder, admin)


def test_a_device_that_meets_a_branch_of_its_own_log_goes_on_in_a_new_epoch(meeting: Meeting, tmp_path: Path) -> None:
    writer = meeting.join("writer")
    twin = clone(writer, tmp_path / "twin")
    writer.note("1", "here")
    twin.note("1'", "there")
    old = writer.store.epoch
    fetch(writer.store, twin.store)
    writer.note("2", "knowing of both")
    assert writer.store.epoch != old
    meet(meeting.founder, writer, twin)
    assert_alike(meeting.founder, writer, twin)
    assert len(titles(meeting.founder)) == 3


def test_a_new_epoch_of_an_act_that_is_refused_is_forgotten(meeting: Meeting) -> None:
    writer = meeting.join("writer", Role.MODERATOR)
    writer.store.act(writer.user, Kind.CONTROL, encode_body(Invite(Role.READER, NEVER_MS, 1, SigningKey(b"\x07" * 32).public)))
    fetch(meeting.founder.store, writer.store)
    take(meeting.founder, writer, Role.WRITER)
    fetch(writer.store, meeting.founder.store)
    epoch = writer.store.epoch
    for _ in range(3):
        with pytest.raises(PeersdError):
            writer.store.act(writer.user, Kind.CONTROL, encode_body(Settings(name="not a writer's to change")))
    assert writer.store.epoch == epoch
    writer.note("1", "still there")
    assert writer.store.epoch == epoch


def test_a_copy_from_before_what_became_void_uses_no_position_twice(meeting: Meeting) -> None:
    """The mark counts void entries too: others may have seen them."""
    writer = meeting.join("writer")
    writer.note("1", "known")
    fetch(meeting.founder.store, writer.store)
    writer.store.close()
    shutil.copy(writer.path, backup := writer.path.with_name("backup"))
    writer.store = open_store(writer.path, writer.context, writer.mark)
    writer.note("2", "beyond")
    old = writer.store.epoch
    take(meeting.founder, writer)
    fetch(writer.store, meeting.founder.store)
    assert seqs(writer.store, old) == [1]
    writer.store.close()
    writer.path.write_bytes(backup.read_bytes())  # in place: the inode stays
    writer.store = open_store(writer.path, writer.context, writer.mark)
    assert writer.store.epoch != old


# --- Two users of one device ----------------------------------------------------------------------------------------------------


def test_what_another_user_of_the_same_device_writes_after_a_void_entry_counts(meeting: Meeting) -> None:
    first = meeting.join("first")
    second = second_user(meeting, first)
    fetch(first.store, meeting.founder.store)
    first.note("1", "the first's, known")
    fetch(meeting.founder.store, first.store)
    first.note("2", "the first's, beyond")
    second.note("3", "the second's")
    take(meeting.founder, first)
    fetch(meeting.founder.store, first.store)
    assert titles(meeting.founder) == ["the first's, known", "the second's"]
    assert seqs(meeting.founder.store, first.store.epoch, [State.ANCESTOR]) == [2]
    fetch(first.store, meeting.founder.store)
    old = first.store.epoch
    second.note("4", "and goes on in the same epoch")
    assert first.store.epoch == old
    meet(meeting.founder, first)
    assert_alike(meeting.founder, first)
    assert len(titles(first)) == 3


def second_user(meeting: Meeting, first: Replica) -> Replica:
    """Another user of the same device, and so of the same store."""
    keys = first.person.keys
    act = UserGenesis("second", b"2" * 16, verify_device_cert(keys.device_cert("second")))
    body = Body.of_blocks(split_body(encode_body(act)))
    header = Header(b"", Kind.IDENTITY, b"", keys.device, b"2" * 16, 1, b"", hlc.pack(FIRST_MS, 0), (), (), body.hash)
    identity = Run((Entry(header, body),), header.sign(keys.signing))
    person = Person("second", keys, identity.last.hash, identity)
    second = Replica(first.path.parent, person, first.context.wall_ms)
    second.store = first.store
    admit(meeting.founder.store, meeting.founder.person, person, Role.WRITER)
    return second
