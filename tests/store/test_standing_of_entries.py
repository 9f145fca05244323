"""Entries that do not count, cease to count, or are held because others rest on them (DESIGN 6, 10)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from peersd.store.log import State
from peersd.testing.simulator.founding import admit
from peersd_protocol import canonical
from peersd_protocol.acts import Cut, Invite, Leave, Remove, RevokeInvite, SchemaAct, SetRole, Settings, encode_body
from peersd_protocol.blocks import split_body
from peersd_protocol.constants import COLUMNS_MAX
from peersd_protocol.entries import Header, Kind, LogKey
from peersd_protocol.messages import Runs
from peersd_protocol.redemption import sign_redemption
from peersd_protocol.roles import Role
from peersd_protocol.runs import Body, BodyForm, Entry, Run, run_value
from peersd_protocol.signing import SigningKey
from tests.store.pools import entry_of
from tests.store.stores import FIRST_MS, Meeting, Replica, assert_alike, fetch, meet

NEVER_MS = FIRST_MS + 10**9
INVITE_KEY = SigningKey(b"\x09" * 32)


def titles(replica: Replica) -> list[object]:
    return [row[1] for row in replica.notes()]


def state_of(replica: Replica, hash_: bytes) -> State:
    row = replica.store.log.find(hash_)
    assert row is not None
    return row.state


def admit_by(admitting: Replica, invite: bytes, newcomer: Replica) -> bytes:
    """One member admits somebody by an invite, in its own store."""
    store = admitting.store
    store.take_runs([newcomer.person.identity])
    redemption = sign_redemption(
        group_id=store.group,
        invite_hash=invite,
        invite_key=INVITE_KEY,
        user=newcomer.user,
        identity_head_hash=newcomer.person.identity.last.hash,
        device_key=newcomer.person.keys.signing,
        handshake_hash=bytes(32),
    )
    act = redemption.admit(newcomer.person.keys.device, bytes(32))
    header, _ = store.act(admitting.user, Kind.CONTROL, encode_body(act))
    return header.hash


@dataclass
class Undone:
    """An invite that the founder revokes while a member, apart, admits somebody by it.

    Attributes:
        founder, member, guest: who takes part; the guest was admitted by the member.
        invite: its hash.
        entry: the guest's first entry.
    """

    founder: Replica
    member: Replica
    guest: Replica
    invite: bytes
    entry: bytes

    def revoke(self) -> None:
        self.founder.store.act(self.founder.user, Kind.CONTROL, encode_body(RevokeInvite(self.invite)))


@pytest.fixture
def meeting(tmp_path: Path) -> Meeting:
    return Meeting(tmp_path)


@pytest.fixture
def undone(meeting: Meeting) -> Undone:
    founder = meeting.founder
    member = meeting.join("member", Role.ADMIN)
    invite, _ = founder.store.act(founder.user, Kind.CONTROL, encode_body(Invite(Role.WRITER, NEVER_MS, 1, INVITE_KEY.public)))
    fetch(member.store, founder.store)
    guest = meeting.stranger("guest")
    admit_by(member, invite.hash, guest)
    fetch(guest.store, member.store)
    commit = guest.note("g", "by the guest")
    fetch(member.store, guest.store)
    return Undone(founder, member, guest, invite.hash, commit.entries[-1].hash)


def test_an_entry_whose_author_is_no_member_is_kept_as_a_header_and_counts_for_nothing(meeting: Meeting) -> None:
    founder = meeting.founder
    stranger = meeting.stranger("stranger")
    fetch(stranger.store, founder.store)
    founder.store.take_runs([stranger.person.identity])
    founder.note("a", "by the founder")
    body = Body.of_blocks(split_body(canonical.encode([77, "anything"])))
    heads = tuple(sorted(founder.store.log.act_heads))
    header = Header(
        meeting.group,
        Kind.DATA,
        stranger.user,
        stranger.person.keys.device,
        b"e" * 16,
        1,
        b"",
        (FIRST_MS + 10**6) << 16,
        (),
        heads,
        body.hash,
    )
    run = Run((Entry(header, body),), header.sign(stranger.person.keys.signing))
    before = founder.store.vector()
    founder.store.take(Runs(0, canonical.encode([run_value(run)])))
    assert founder.store.vector() == before
    assert state_of(founder, header.hash) is State.VOID
    entry = entry_of(founder.store, header.hash)
    assert entry.body.form is BodyForm.WITHHELD and entry.header == header
    assert titles(founder) == ["by the founder"]
    heads_here = set(founder.store.log.data_heads), set(founder.store.log.act_heads)
    assert header.hash not in heads_here[0]
    log = founder.reopen().log
    assert (log.data_heads, log.act_heads) == heads_here


@pytest.mark.parametrize("last", ["data", "act", "others"])
def test_heads_are_the_same_in_a_file_that_is_opened_again(meeting: Meeting, last: str) -> None:
    founder, other = meeting.founder, meeting.join("other")
    founder.note("a", "seen by both")
    fetch(other.store, founder.store)
    if last == "data":
        founder.note("b", "goes on alone")
    elif last == "act":
        founder.store.act(founder.user, Kind.CONTROL, encode_body(Settings(name="renamed")))
    else:
        founder.note("b", "beside")
        other.note("c", "the other")
        fetch(founder.store, other.store)
    heads = set(founder.store.log.data_heads), set(founder.store.log.act_heads)
    assert len(heads[0]) == (2 if last == "others" else 1)
    for _ in range(2):
        log = founder.reopen().log
        assert (log.data_heads, log.act_heads) == heads
    founder.note("d", "names them all")
    fetch(other.store, founder.store)
    assert other.store.log.data_heads == founder.store.log.data_heads != heads[0]
    assert_alike(founder, other)


def test_rows_of_an_admission_that_is_undone_disappear(undone: Undone) -> None:
    assert titles(undone.member) == ["by the guest"]
    undone.revoke()
    fetch(undone.member.store, undone.founder.store)
    assert undone.member.store.state.role_of(undone.guest.user) is Role.NONE
    assert titles(undone.member) == []
    assert state_of(undone.member, undone.entry) is State.VOID
    meet(undone.founder, undone.member)
    assert_alike(undone.founder, undone.member)


def test_a_replica_that_knew_of_the_revocation_first_ends_like_one_that_learnt_it_last(undone: Undone) -> None:
    undone.revoke()
    fetch(undone.founder.store, undone.member.store)
    assert titles(undone.founder) == []
    fetch(undone.member.store, undone.founder.store)
    assert_alike(undone.founder, undone.member)


def test_an_entry_that_rests_on_a_void_one_counts_and_holds_it(undone: Undone, meeting: Meeting) -> None:
    undone.member.note("m", "after the guest's")
    undone.revoke()
    fetch(undone.member.store, undone.founder.store)
    assert titles(undone.member) == ["after the guest's"]
    assert state_of(undone.member, undone.entry) is State.ANCESTOR
    fetch(undone.founder.store, undone.member.store)
    assert state_of(undone.founder, undone.entry) is State.ANCESTOR
    assert_alike(undone.founder, undone.member)
    late = meeting.join("late")
    meet(undone.founder, undone.member, late)
    assert_alike(undone.founder, undone.member, late)


def test_who_is_undone_keeps_what_it_wrote_and_cannot_write_on(undone: Undone) -> None:
    undone.revoke()
    fetch(undone.guest.store, undone.founder.store)
    assert undone.guest.store.state.role_of(undone.guest.user) is Role.NONE
    with pytest.raises(Exception, match="no member"):
        undone.guest.note("g2", "later")
    entry = entry_of(undone.guest.store, undone.entry)
    assert entry.body.form is BodyForm.INLINE
    assert titles(undone.guest) == []


def test_who_is_undone_and_admitted_again_uses_no_position_twice(undone: Undone) -> None:
    undone.revoke()
    fetch(undone.guest.store, undone.founder.store)
    old = undone.guest.store.epoch
    admit(undone.founder.store, undone.founder.person, undone.guest.person, Role.WRITER)
    fetch(undone.guest.store, undone.founder.store)
    undone.guest.note("g", "by the guest again")
    assert undone.guest.store.epoch != old  # nothing cuts the old log, but its first position is taken
    meet(undone.founder, undone.member, undone.guest)
    assert titles(undone.founder) == ["by the guest again"]
    assert_alike(undone.founder, undone.member, undone.guest)


def test_an_undone_store_is_the_same_after_it_was_opened_again(undone: Undone) -> None:
    undone.member.note("m", "after the guest's")
    undone.revoke()
    meet(undone.founder, undone.member)
    for replica in (undone.founder, undone.member):
        replica.reopen()
    assert_alike(undone.founder, undone.member)
    undone.member.note("n", "goes on")
    meet(undone.founder, undone.member)
    assert_alike(undone.founder, undone.member)


def cuts_of(replica: Replica) -> tuple[tuple[bytes, tuple[Cut, ...]], ...]:
    """The tips of a device's own logs, as its leave names them."""
    device = replica.person.keys.device
    tips = [
        Cut(log.kind, device, log.epoch, seq, hash_)
        for log, held in replica.store.vector().items()
        if log.device == device and log.kind is not Kind.IDENTITY
        for seq, hash_ in held
    ]
    return ((replica.user, tuple(sorted(tips, key=lambda cut: (cut.kind, cut.device, cut.epoch)))),)


def test_what_a_member_writes_beyond_its_own_leave_is_void_everywhere(meeting: Meeting) -> None:
    leaver, other = meeting.join("leaver"), meeting.join("other")
    leaver.note("before", "before")
    meet(leaver, other, meeting.founder)
    cuts = cuts_of(leaver)
    late = leaver.note("after", "after").entries[-1].hash
    fetch(other.store, leaver.store)
    assert titles(other) == ["after", "before"]
    leaver.store.act(leaver.user, Kind.CONTROL, encode_body(Leave(cuts)))
    meet(meeting.founder, other, leaver)
    for replica in (meeting.founder, other, leaver):
        assert titles(replica) == ["before"]
        assert state_of(replica, late) is State.VOID
    assert_alike(meeting.founder, other)


def test_a_cut_inside_a_run_sends_the_headers_up_to_the_signature(meeting: Meeting) -> None:
    from peersd.store.batch import Request
    from peersd.store.client_sql import Statement
    from peersd.store.store import Write

    leaver = meeting.join("leaver")
    insert = "INSERT INTO note (id, title) VALUES (?, ?)"
    writes = [Write(leaver.user, Request([Statement(insert, (f"n{at}", f"t{at}"))], float("inf"))) for at in range(4)]
    _, commit = leaver.store.write(writes)
    assert commit is not None and len(commit.entries) == 4
    second = commit.entries[1]
    log = LogKey(Kind.DATA, b"", leaver.person.keys.device, leaver.store.epoch)
    cut = Cut(Kind.DATA, log.device, log.epoch, second.seq, second.hash)
    leaver.store.act(leaver.user, Kind.CONTROL, encode_body(Leave(((leaver.user, (cut,)),))))
    assert leaver.store.vector()[log] == ((second.seq, second.hash),)
    fetch(meeting.founder.store, leaver.store)
    assert titles(meeting.founder) == ["t0", "t1"]
    third = meeting.join("third")
    assert titles(third) == ["t0", "t1"]
    assert_alike(meeting.founder, third)


def test_a_row_in_a_column_whose_place_another_act_took_meanwhile_is_kept_aside_by_all_and_stops_nobody(meeting: Meeting) -> None:
    founder = meeting.founder
    first, second = meeting.join("first", Role.ADMIN), meeting.join("second", Role.ADMIN)
    writer, other = meeting.join("writer"), meeting.join("other")
    columns = ", ".join(f"c{number} TEXT" for number in range(COLUMNS_MAX - 2))
    change_schema(founder, f"CREATE TABLE wide (id TEXT PRIMARY KEY, {columns})")
    meet(founder, first, second, writer, other)
    change_schema(first, "ALTER TABLE wide ADD COLUMN one TEXT")
    # Of two acts made apart the deeper one comes later: its column is one too many.
    second.store.act(second.user, Kind.CONTROL, encode_body(Settings(description="deeper")))
    change_schema(second, "ALTER TABLE wide ADD COLUMN another TEXT")
    fetch(writer.store, second.store)
    commit = writer.sql("INSERT INTO wide (id, another) VALUES ('a', 'lost place')")
    later = writer.note("n", "behind it")
    fetch(other.store, first.store)
    fetch(other.store, second.store)
    fetch(other.store, writer.store)
    fetch(writer.store, first.store)
    assert_alike(other, writer)
    for replica in (other, writer):
        assert [state_of(replica, entry.hash) for entry in commit.entries] == [State.ASIDE]
        assert [state_of(replica, entry.hash) for entry in later.entries] == [State.APPLIED]


def test_a_row_by_an_act_that_fell_is_kept_aside_though_another_act_made_the_same_column(meeting: Meeting) -> None:
    """The tables stay as they are then: whoever had shown the row went on showing it, and who got it later did not."""
    founder = meeting.founder
    first, second = meeting.join("first", Role.ADMIN), meeting.join("second", Role.ADMIN)
    writer, other = meeting.join("writer"), meeting.join("other")
    meet(founder, first, second, writer, other)
    change_schema(first, "ALTER TABLE note ADD COLUMN done INTEGER")
    second.store.act(second.user, Kind.CONTROL, encode_body(Settings(description="deeper")))
    change_schema(second, "ALTER TABLE note ADD COLUMN done INTEGER")
    fetch(writer.store, second.store)
    commit = writer.sql("INSERT INTO note (id, title, done) VALUES ('a', 'by the second', 1)")
    fetch(writer.store, first.store)
    assert titles(writer) == ["by the second"]
    lower, of = partial(SetRole, second.user, Role.WRITER), (second.user, (Kind.CONTROL,))
    founder.store.take_right(founder.user, lambda cuts: encode_body(lower(cuts(*of))))
    fetch(writer.store, founder.store)
    fetch(other.store, founder.store)
    fetch(other.store, writer.store)
    assert_alike(other, writer)
    for replica in (other, writer):
        assert titles(replica) == []
        assert [state_of(replica, entry.hash) for entry in commit.entries] == [State.ASIDE]


def test_acts_that_were_held_for_an_entry_are_not_once_it_falls_though_one_of_them_names_the_others(meeting: Meeting) -> None:
    """A void act that was held itself kept what it names: whoever had held both went on telling of them, others never did."""
    founder, other = meeting.founder, meeting.join("other")
    admin, member = meeting.join("admin", Role.ADMIN), meeting.join("member")
    for replica in (admin, other):
        fetch(replica.store, founder.store)
    admin.store.act(admin.user, Kind.CONTROL, encode_body(SetRole(member.user, Role.MODERATOR, None)))
    fetch(member.store, admin.store)
    invite = encode_body(Invite(Role.READER, NEVER_MS, 1, INVITE_KEY.public))
    raised, _ = member.store.act(member.user, Kind.CONTROL, invite)
    member.note("n", "rests on both")
    fetch(other.store, member.store)
    made = [entry.header for _, entry, _, _ in other.store.log.all_entries() if entry.header.kind is Kind.CONTROL]
    named = {header.hash for header in made if header.device == admin.person.keys.device}
    for target, state in ((admin, State.ANCESTOR), (member, State.VOID)):
        remove(founder, target)
        fetch(other.store, founder.store)
        assert {state_of(other, act) for act in (raised.hash, *named)} == {state}
    late = meeting.join("late")
    meet(other, late, founder)
    assert_alike(other, late, founder)


def remove(by: Replica, target: Replica) -> None:
    by.store.take_right(by.user, lambda cuts: encode_body(Remove(target.user, cuts(target.user))))


def change_schema(replica: Replica, sql: str) -> None:
    ops = tuple(replica.store.plan_schema(replica.user, sql))
    replica.store.act(replica.user, Kind.CONTROL, encode_body(SchemaAct(ops)))
