"""What a store takes from others, and what it refuses: chains, signatures, stamps, bodies, parts of bodies (DESIGN 6, 7, 9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from peersd_protocol import canonical, hlc
from peersd_protocol.blocks import split_body
from peersd_protocol.changesets import EMPTY, Changeset, TableChangeset, encode
from peersd_protocol.constants import ACT_BYTES_MAX, MIB, STAGED_BODIES_MAX
from peersd_protocol.entries import NO_BODY_HASH, Header, Kind, LogKey
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.messages import Block, Runs, decode_runs
from peersd_protocol.runs import Body, BodyForm, Entry, Run, run_value
from peersd_protocol.signing import SIGNATURE_BYTES
from tests.store.stores import FIRST_MS, Meeting, Replica, assert_alike, fetch, meet, missing, take_all

NO_BODY = Body.of_blocks([])


@pytest.fixture
def meeting(tmp_path: Path) -> Meeting:
    return Meeting(tmp_path)


def packed(*runs: Run) -> Runs:
    return Runs(0, canonical.encode([run_value(run) for run in runs]))


def unpacked(replica: Replica, messages: Sequence[Runs | Block]) -> list[Run]:
    runs = [message for message in messages if isinstance(message, Runs)]
    return [run for message in runs for run in decode_runs(message, replica.store.group)]


def heads_of(replica: Replica) -> tuple[bytes, ...]:
    return tuple(sorted(replica.store.log.act_heads))


def first_header(author: Replica, **changes: object) -> Header:
    """The first data header of a member who has seen all acts and no data."""
    epoch = changes.pop("epoch", b"e" * 16)
    header = Header(
        author.store.group,
        Kind.DATA,
        author.user,
        author.person.keys.device,
        epoch,  # type: ignore[arg-type]
        1,
        b"",
        hlc.pack(FIRST_MS + 10**6, 0),
        (),
        heads_of(author),
        NO_BODY_HASH,
    )
    return replace(header, **changes)  # type: ignore[arg-type]


def signed(author: Replica, *entries: Entry) -> Run:
    return Run(entries, entries[-1].header.sign(author.person.keys.signing))


def refusal(replica: Replica, message: Runs | Block) -> CloseCode:
    """The code that a message is refused with; nothing of it may have been kept."""
    store = replica.store
    before = store.vector(), store.dump(), store.log.position
    with pytest.raises(RemoteProtocolError) as refused:
        store.take(message)
    assert (store.vector(), store.dump(), store.log.position) == before
    return refused.value.close_code


def count(replica: Replica, table: str) -> int:
    connection = replica.store._connection
    found = connection.execute(f"SELECT count(*) FROM {table}").get
    assert isinstance(found, int)
    return found


# --- Headers --------------------------------------------------------------------------------------------------------------------


def test_a_good_entry_is_taken(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    run = signed(writer, Entry(first_header(writer), NO_BODY))
    ingested, commit = meeting.founder.store.take(packed(run))
    assert commit is not None and [(entry.seq, entry.hash) for entry in commit.entries] == [(1, run.last.hash)]
    assert ingested.held == {run.log: (1, run.last.hash)}
    assert meeting.founder.store.vector()[run.log] == ((1, run.last.hash),)


def test_a_bad_signature_is_refused(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    run = signed(writer, Entry(first_header(writer), NO_BODY))
    assert refusal(meeting.founder, packed(replace(run, signature=bytes(SIGNATURE_BYTES)))) is CloseCode.BAD_SIGNATURE
    by_another = meeting.founder.person.keys.signing.sign(b"peersd/1 entry", run.last.hash)
    assert refusal(meeting.founder, packed(replace(run, signature=by_another))) is CloseCode.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("stamp", "is_taken"),
    [
        (lambda before: before + 1, True),
        (lambda before: before + 2, False),
        (lambda before: hlc.pack(hlc.unpack(before)[0] + 5, 0), True),
        (lambda before: hlc.pack(hlc.unpack(before)[0] + 5, 1), False),
        (lambda before: hlc.pack(hlc.MS_MAX, 0), False),
    ],
    ids=["counted", "skipped", "jumped", "jumped and counted", "after 2109"],
)
def test_a_stamp_must_follow_from_prev(meeting: Meeting, stamp: Callable[[int], int], is_taken: bool) -> None:
    writer = meeting.join("writer")
    first = first_header(writer)
    second = replace(first, seq=2, prev=first.hash, hlc=stamp(first.hlc), control_heads=())
    assert meeting.founder.store.take(packed(signed(writer, Entry(first, NO_BODY))))[1]
    message = packed(signed(writer, Entry(second, NO_BODY)))
    if is_taken:
        assert meeting.founder.store.take(message)[1] is not None
    else:
        assert refusal(meeting.founder, message) is CloseCode.BAD_CHAIN


def test_a_stamp_must_follow_from_deps(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    meeting.founder.note("a")
    fetch(writer.store, meeting.founder.store)
    (dep,) = writer.store.log.data_heads
    row = writer.store.log.find(dep)
    assert row is not None
    early = first_header(writer, deps=(dep,), hlc=row.hlc)
    assert refusal(meeting.founder, packed(signed(writer, Entry(early, NO_BODY)))) is CloseCode.BAD_CHAIN
    late = replace(early, hlc=row.hlc + 1)
    assert meeting.founder.store.take(packed(signed(writer, Entry(late, NO_BODY))))[1]


def test_a_sequence_that_does_not_follow_from_prev_is_refused(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    first = first_header(writer)
    meeting.founder.store.take(packed(signed(writer, Entry(first, NO_BODY))))
    third = replace(first, seq=3, prev=first.hash, hlc=first.hlc + 1, control_heads=())
    assert refusal(meeting.founder, packed(signed(writer, Entry(third, NO_BODY)))) is CloseCode.BAD_CHAIN


def test_a_prev_in_another_log_is_refused(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    first = first_header(writer)
    meeting.founder.store.take(packed(signed(writer, Entry(first, NO_BODY))))
    strayed = replace(first, epoch=b"f" * 16, seq=2, prev=first.hash, hlc=first.hlc + 1, control_heads=())
    assert refusal(meeting.founder, packed(signed(writer, Entry(strayed, NO_BODY)))) is CloseCode.BAD_CHAIN


def test_links_of_the_wrong_kind_are_refused(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    meeting.founder.note("a")
    fetch(writer.store, meeting.founder.store)
    (data,) = writer.store.log.data_heads
    act = heads_of(writer)[0]
    for links in ({"deps": (act,)}, {"control_heads": (data,)}):
        header = first_header(writer, **links)
        assert refusal(meeting.founder, packed(signed(writer, Entry(header, NO_BODY)))) is CloseCode.BAD_CHAIN


def test_a_run_whose_past_is_missing_is_parked_and_named(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    first = first_header(writer)
    unknown = b"\x01" * 32
    second = replace(first, seq=2, prev=first.hash, hlc=first.hlc + 1, deps=(unknown,), control_heads=())
    run = signed(writer, Entry(second, NO_BODY))
    ingested, commit = meeting.founder.store.take(packed(run))
    assert commit is None and ingested.held == {}
    (parked,) = ingested.parked
    assert parked.missing == {first.hash, unknown}
    assert isinstance(parked.packed, Runs) and decode_runs(parked.packed, meeting.group) == [run]


def test_a_run_taken_again_changes_nothing_and_proves_that_the_sender_holds_it(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    run = signed(writer, Entry(first_header(writer), NO_BODY))
    meeting.founder.store.take(packed(run))
    ingested, commit = meeting.founder.store.take(packed(run))
    assert commit is None and ingested.held == {run.log: (1, run.last.hash)}


def test_a_signature_within_a_run_that_is_taken_whole_is_not_needed(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    first = first_header(writer)
    second = replace(first, seq=2, prev=first.hash, hlc=first.hlc + 1, control_heads=())
    run = signed(writer, Entry(first, NO_BODY), Entry(second, NO_BODY))
    _, commit = meeting.founder.store.take(packed(run))
    assert commit is not None and [entry.seq for entry in commit.entries] == [1, 2]


def test_the_acts_of_a_message_are_taken_before_its_data_wherever_they_stand(meeting: Meeting) -> None:
    writer, late = meeting.join("writer"), meeting.stranger("late")
    first = signed(writer, Entry(first_header(writer), NO_BODY))
    runs = unpacked(late, missing(late.store, meeting.founder.store))
    ingested, commit = late.store.take(packed(first, *runs))
    assert ingested.parked == () and commit is not None
    assert first.last.hash in {entry.hash for entry in commit.entries}


def test_nothing_of_a_message_is_kept_where_one_of_its_runs_is_bad(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    good = signed(writer, Entry(first_header(writer), NO_BODY))
    other = signed(writer, Entry(first_header(writer, epoch=b"f" * 16), NO_BODY))
    bad = replace(other, signature=bytes(SIGNATURE_BYTES))
    assert refusal(meeting.founder, packed(good, bad)) is CloseCode.BAD_SIGNATURE
    assert good.log not in meeting.founder.store.vector()


# --- Bodies ---------------------------------------------------------------------------------------------------------------------


def with_body(author: Replica, raw: bytes) -> Run:
    body = Body.of_blocks(split_body(raw))
    return signed(author, Entry(first_header(author, body_hash=body.hash), body))


def test_a_body_that_is_no_changeset_is_refused(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    assert refusal(meeting.founder, packed(with_body(writer, b"\xff\xff"))) is CloseCode.MALFORMED
    assert refusal(meeting.founder, packed(with_body(writer, canonical.encode([1, [], 7])))) in (
        CloseCode.BAD_BODY,
        CloseCode.MALFORMED,
    )


def test_a_body_of_a_later_version_is_held_and_kept_aside(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    run = with_body(writer, canonical.encode([77, "later"]))
    assert meeting.founder.store.take(packed(run))[1] is not None
    assert meeting.founder.store.vector()[run.log] == ((1, run.last.hash),)
    third = meeting.join("third")
    assert_alike(meeting.founder, third)


def test_a_schema_act_that_is_here_and_not_in_the_entrys_past_is_refused(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    (schema_act,) = {table.id[0] for table in meeting.founder.store.state.schema.tables}
    changeset = Changeset((TableChangeset((schema_act, 0), deletes=(["a"],)),))
    body = Body.of_blocks(split_body(encode(changeset)))
    (past,) = heads_of(writer)
    early = writer.store.log.find(past)
    assert early is not None
    # The founder's genesis alone: a past in which there is a group, and no table yet.
    genesis = meeting.group
    outside = first_header(writer, body_hash=body.hash, control_heads=(genesis,))
    founder = meeting.founder
    founders = replace(outside, user=founder.user, device=founder.person.keys.device)
    run = Run((Entry(founders, body),), founders.sign(founder.person.keys.signing))
    assert refusal(writer, packed(run)) is CloseCode.BAD_BODY
    within = replace(founders, control_heads=(past,))
    assert writer.store.take(packed(Run((Entry(within, body),), within.sign(founder.person.keys.signing))))[1] is not None


def test_an_act_above_its_bound_is_refused(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    large = canonical.encode([77, "x" * (ACT_BYTES_MAX + 1)])
    for raw in (large, canonical.encode([77, "x" * 4 * ACT_BYTES_MAX])):
        body = Body.of_blocks(split_body(raw))
        header = replace(first_header(writer, body_hash=body.hash), kind=Kind.CONTROL)
        assert body.form is BodyForm.INLINE
        assert refusal(meeting.founder, packed(signed(writer, Entry(header, body)))) is CloseCode.TOO_LARGE


def test_a_changeset_without_tables_is_refused(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    assert refusal(meeting.founder, packed(with_body(writer, encode(EMPTY)))) is CloseCode.MALFORMED


def test_the_body_of_an_act_cannot_be_withheld(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    empty = meeting.stranger("stranger")
    runs = unpacked(empty, missing(empty.store, meeting.founder.store))
    control = next(run for run in runs if run.log.kind is Kind.CONTROL)
    bare = Run(tuple(Entry(entry.header, Body.withheld(entry.body.hash)) for entry in control.entries), control.signature)
    identities = [run for run in runs if run.log.kind is Kind.IDENTITY]
    empty.store.take(packed(*identities))
    assert refusal(empty, packed(bare)) is CloseCode.BAD_BODY
    assert writer.store.state.members


def detached(meeting: Meeting) -> tuple[Replica, list[Runs | Block], bytes]:
    """A writer whose last entry is 3 MiB long, the messages that the founder lacks, and the content."""
    writer = meeting.join("writer")
    content = Random(1).randbytes(3 * MIB)
    writer.note("large", "3 MiB", content)
    messages = missing(meeting.founder.store, writer.store)
    assert isinstance(messages[0], Runs) and all(isinstance(message, Block) for message in messages[1:])
    assert len(messages) == 14  # 13 blocks of 256 KiB less a byte
    return writer, messages, content


def test_a_detached_body_is_staged_block_by_block_and_applied_whole(meeting: Meeting) -> None:
    writer, messages, content = detached(meeting)
    take_all(meeting.founder.store, messages[:-1])
    assert meeting.founder.notes() == [] and meeting.founder.store.vector() != writer.store.vector()
    assert count(meeting.founder, "_peers_block") == 12
    take_all(meeting.founder.store, messages[-1:])
    assert meeting.founder.notes() == [("large", "3 MiB", content)]
    assert count(meeting.founder, "_peers_staged") == 0
    assert_alike(meeting.founder, writer)


def test_a_staged_body_is_resumed_after_the_store_was_opened_again(meeting: Meeting) -> None:
    writer, messages, content = detached(meeting)
    take_all(meeting.founder.store, messages[:6])
    meeting.founder.reopen()
    rest = missing(meeting.founder.store, writer.store)
    assert isinstance(rest[0], Runs)
    assert [block.index for block in rest[1:] if isinstance(block, Block)] == list(range(5, 13))
    assert take_all(meeting.founder.store, rest) == []
    assert meeting.founder.notes() == [("large", "3 MiB", content)]
    assert_alike(meeting.founder, writer)


def test_the_blocks_of_two_senders_complete_one_body_and_each_is_known_to_hold_it(meeting: Meeting) -> None:
    _, messages, _ = detached(meeting)
    store = meeting.founder.store
    for message in messages:
        store.take(message)
    last = messages[-1]
    ingested, commit = store.take(last)  # another session was a moment behind
    assert commit is None and [seq for seq, _ in ingested.held.values()] == [1]


def test_a_block_that_does_not_match_its_hash_is_refused(meeting: Meeting) -> None:
    _, messages, _ = detached(meeting)
    take_all(meeting.founder.store, messages[:3])
    good = messages[3]
    assert isinstance(good, Block)
    assert refusal(meeting.founder, replace(good, data=good.data[:-1] + b"?")) is CloseCode.BAD_BODY
    assert refusal(meeting.founder, replace(good, index=good.index + 1)) is CloseCode.BAD_BODY
    assert refusal(meeting.founder, replace(good, index=200)) is CloseCode.BAD_BODY


def test_a_block_after_a_hole_and_a_block_of_nothing_known_are_dropped(meeting: Meeting) -> None:
    _, messages, _ = detached(meeting)
    take_all(meeting.founder.store, [messages[0], messages[1], messages[3]])
    assert count(meeting.founder, "_peers_block") == 1
    stray = messages[1]
    assert isinstance(stray, Block)
    ingested, commit = meeting.founder.store.take(replace(stray, entry_hash=b"\x01" * 32))
    assert commit is None and ingested.held == {}


def test_only_so_many_bodies_are_staged_and_the_oldest_gives_way(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    for number in range(STAGED_BODIES_MAX + 1):
        writer.note(f"n{number}", None, Random(number).randbytes(300_000))
    messages = missing(meeting.founder.store, writer.store)
    runs = unpacked(meeting.founder, messages)
    # As separate logs they could be taken side by side; here only the first may be, since each rests on the one before.
    assert [run.entries[0].body.form for run in runs] == [BodyForm.DETACHED] * (STAGED_BODIES_MAX + 1)
    for number in range(STAGED_BODIES_MAX + 1):
        body = Body.of_blocks(split_body(Random(50 + number).randbytes(300_000)))
        header = first_header(writer, epoch=bytes([number]) * 16, body_hash=body.hash)
        meeting.founder.store.take(packed(signed(writer, Entry(header, Body.detached(body.block_hashes)))))
    assert count(meeting.founder, "_peers_staged") == STAGED_BODIES_MAX
    meet(meeting.founder, writer)
    assert len(meeting.founder.notes()) == STAGED_BODIES_MAX + 1


def test_logs_are_told_by_device_and_epoch(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    writer.note("a")
    assert LogKey(Kind.DATA, b"", writer.person.keys.device, writer.store.epoch) in writer.store.vector()
