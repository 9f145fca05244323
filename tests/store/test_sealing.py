"""Logs are sealed as they grow: where entries were written, and where they came in one by one."""

from __future__ import annotations

from pathlib import Path
from random import Random

import apsw
import pytest

from peersd.store.log import State
from peersd.store.sealing import SEALED_EVERY
from peersd_protocol.acts import Cut, Remove, encode_body
from peersd_protocol.constants import INLINE_BODY_BYTES_MAX, RUN_ENTRIES_MAX
from peersd_protocol.entries import Header, Kind
from peersd_protocol.messages import Runs, decode_runs
from tests.store.pools import by_hand, header_of, packed
from tests.store.stores import Meeting, Replica, assert_alike, fetch, meet, missing
from tests.store.test_stretches import insert, write_at_once


def sizes(replica: Replica) -> list[int]:
    """How many entries each segment holds."""
    return [segment.count for segment in replica.store.log.segments.after(0)]


def data_headers(replica: Replica) -> list[Header]:
    return [entry.header for _, entry, _, _ in replica.store.log.all_entries() if entry.header.kind is Kind.DATA]


def write_one_by_one(replica: Replica, count: int, prefix: str = "n") -> None:
    for number in range(count):
        replica.note(f"{prefix}{number:04}")


@pytest.fixture
def meeting(tmp_path: Path) -> Meeting:
    return Meeting(tmp_path)


def test_what_a_device_writes_is_sealed_whenever_its_log_has_grown_enough(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    write_one_by_one(writer, SEALED_EVERY - 1)
    assert sizes(writer) == []
    write_one_by_one(writer, SEALED_EVERY + 10, "m")
    # The first entry names the acts that its author has seen.
    assert sizes(writer) == [SEALED_EVERY - 1, SEALED_EVERY]
    assert [header.seq for header in data_headers(writer)] == list(range(1, 2 * SEALED_EVERY + 10))
    writer.reopen()
    write_one_by_one(writer, 1, "later")
    other = meeting.join("other")
    meet(writer, meeting.founder, other)
    assert_alike(writer, meeting.founder, other)


def test_what_comes_in_one_by_one_is_sealed_as_well(meeting: Meeting) -> None:
    writer, other = meeting.join("writer"), meeting.join("other")
    fetch(writer.store, other.store)
    for number in range(SEALED_EVERY + 1):
        writer.note(f"{number:04}")
        fetch(other.store, writer.store)
    assert sizes(other) == sizes(writer) == [SEALED_EVERY - 1]
    assert_alike(writer, other)


def test_a_rollback_of_the_transaction_that_seals_undoes_that(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    write_one_by_one(writer, SEALED_EVERY - 1)
    store = writer.store
    before = store.vector(), store.dump()
    store.log.connection.set_commit_hook(lambda: True)  # which SQLite takes for a reason to roll back
    with pytest.raises(apsw.ConstraintError):
        writer.note("fails")
    store.log.connection.set_commit_hook(None)
    assert (store.vector(), store.dump(), sizes(writer)) == (*before, [])
    write_one_by_one(writer, 1, "m")
    assert sizes(writer) == [SEALED_EVERY - 1]
    other = meeting.join("other")
    meet(writer, meeting.founder, other)
    assert_alike(writer, other)


def test_entries_with_large_bodies_and_those_that_name_others_keep_their_rows(meeting: Meeting) -> None:
    writer, other = meeting.join("writer"), meeting.join("other")
    for number in range(SEALED_EVERY):
        if number == 40:
            other.note("other")
            fetch(writer.store, other.store)
        writer.note(f"{number:04}", None, Random(number).randbytes(2000) if number == 80 else None)
    # Of 128: the first and the 41st name others, the 81st is large.
    assert sizes(writer) == [39, 39, 47]
    kept = {
        seq for (seq,) in writer.store.log.connection.execute("SELECT seq FROM _peers_entry WHERE state = 1 AND deps IS NOT NULL")
    }
    assert 41 in kept
    meet(writer, other, meeting.founder)
    assert_alike(writer, other, meeting.founder)


def test_a_few_entries_between_others_keep_their_rows(meeting: Meeting) -> None:
    writer, other = meeting.join("writer"), meeting.join("other")
    for number in range(SEALED_EVERY // 4 + 2):
        other.note(f"o{number:04}")
        fetch(writer.store, other.store)
        write_one_by_one(writer, 4, f"w{number}-")
    assert sizes(writer) == []


def test_only_whole_runs_are_sealed(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    write_at_once(writer, *insert(*(f"a{n:03}" for n in range(100))))
    write_at_once(writer, *insert(*(f"b{n:03}" for n in range(100))))
    write_at_once(writer, *insert(*(f"c{n:03}" for n in range(100))))
    # The first run has the entry that names acts.
    assert sizes(writer) == [100, 100]


def test_a_segment_has_no_more_entries_than_a_run(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    write_one_by_one(writer, 100)
    write_at_once(writer, *insert(*(f"a{n:03}" for n in range(200))))
    assert sizes(writer) == [99, 200]


def test_a_segment_has_no_more_bytes_than_a_run(meeting: Meeting) -> None:
    writer, other = meeting.join("writer"), meeting.join("other")
    writer.note("first")
    for part in "ab":  # two runs that are sealed together
        rows = insert(*(f"{part}{n:03}" for n in range(100)))
        write_at_once(writer, *((*row[:3], Random(str(row)).randbytes(900)) for row in rows))
    assert sizes(writer) == [100, 100]
    bodies = [body for _, entry, _, _ in writer.store.log.entries_in_segments() for body in entry.body.blocks]
    assert sum(map(len, bodies)) > INLINE_BODY_BYTES_MAX
    meet(writer, other, meeting.founder)
    assert_alike(writer, other, meeting.founder)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_written_together_and_whoever_writes_between_all_replicas_are_alike(meeting: Meeting, seed: int) -> None:
    random = Random(seed)
    writer, other = meeting.join("writer"), meeting.join("other")
    for turn in range(40):
        who = other if random.random() < 0.1 else writer
        count = random.choice((1, 1, 2, 5, 20, 60))
        write_at_once(who, *insert(*(f"{who.person.name}{turn}-{n}" for n in range(count))))
        if random.random() < 0.2:
            who.sql("DELETE FROM note WHERE rowid = (SELECT max(rowid) FROM note)")
        if random.random() < 0.15:
            fetch(writer.store, other.store)
            fetch(other.store, writer.store)
        if random.random() < 0.1:
            writer.reopen()
    assert sizes(writer)
    third = meeting.stranger("third")
    messages = missing(third.store, writer.store)
    runs = [run for message in messages if isinstance(message, Runs) for run in decode_runs(message, third.store.group)]
    assert max(len(run.entries) for run in runs) <= RUN_ENTRIES_MAX
    meet(writer, other, meeting.founder, third)
    assert_alike(writer, other, meeting.founder, third)


@pytest.mark.parametrize("kept", [1, 2, 30, SEALED_EVERY - 1, SEALED_EVERY, SEALED_EVERY + 1])
def test_what_an_act_cuts_of_a_devices_own_sealed_log_gets_its_rows_back(meeting: Meeting, kept: int) -> None:
    writer = meeting.join("writer")
    write_one_by_one(writer, SEALED_EVERY + 5)
    fetch(meeting.founder.store, writer.store)
    last = data_headers(writer)[kept - 1]
    cut = Cut(Kind.DATA, last.device, last.epoch, last.seq, last.hash)
    own = meeting.founder.person.keys.device
    rows = meeting.founder.store.log.logs()
    (control,) = [row for row in rows if (row.key.device, row.key.kind) == (own, Kind.CONTROL)]
    after = header_of(meeting.founder.store, control.tips[0].hash)
    body = encode_body(Remove(writer.user, ((writer.user, (cut,)),)))
    removal = by_hand(meeting.founder, Kind.CONTROL, body, after=after, heads=meeting.founder.store.log.act_heads)
    for replica in (meeting.founder, writer):
        replica.store.take(packed(removal))
        states = [state for _, entry, state, _ in replica.store.log.all_entries() if entry.header.kind is Kind.DATA]
        assert states == [State.APPLIED] * kept + [State.VOID] * (SEALED_EVERY + 5 - kept)
    assert sizes(writer) == ([SEALED_EVERY - 1] if kept >= SEALED_EVERY else [])
    assert_alike(meeting.founder, writer)
