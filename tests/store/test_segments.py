"""Many small entries in one row: whatever is asked of one of them is answered as if it had a row of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from peersd.store.log import State
from peersd.store.store import Store
from peersd_protocol.acts import Cut, Remove, encode_body
from peersd_protocol.entries import Header, Kind
from peersd_protocol.messages import Block, Runs, decode_message, decode_runs
from peersd_protocol.replication import Cursor, Read
from peersd_protocol.runs import Run
from tests.store.pools import by_hand, entry_of, header_of, packed, runs_of
from tests.store.stores import Meeting, Replica, assert_alike, fetch, meet, missing
from tests.store.test_stretches import insert, insert_body, write_at_once

ENTRIES = 60


def sizes(replica: Replica) -> list[int]:
    """How many entries each segment holds."""
    return [segment.count for segment in replica.store.log.segments.after(0)]


class Segmented:
    """A writer's log of 60 entries and 60 more, and two who hold it in segments."""

    def __init__(self, folder: Path) -> None:
        self.meeting = Meeting(folder)
        self.founder = self.meeting.founder
        self.writer, self.other = self.meeting.join("writer"), self.meeting.join("other")
        write_at_once(self.writer, *insert(*(f"a{n:02}" for n in range(ENTRIES))))
        fetch(self.founder.store, self.writer.store)
        write_at_once(self.writer, *insert(*(f"b{n:02}" for n in range(ENTRIES))))
        fetch(self.founder.store, self.writer.store)
        fetch(self.other.store, self.writer.store)
        self.headers: list[Header] = [
            entry.header for _, entry, _, _ in self.writer.store.log.all_entries() if entry.header.kind is Kind.DATA
        ]
        self.row = next(row for row in self.founder.store.log.logs() if row.key.kind is Kind.DATA)


@pytest.fixture
def segmented(tmp_path: Path) -> Segmented:
    return Segmented(tmp_path)


def test_runs_that_follow_one_another_are_joined_when_they_are_sent(segmented: Segmented) -> None:
    # The first entry names the acts that its author has seen.
    assert sizes(segmented.founder) == [ENTRIES - 1, ENTRIES]
    assert sizes(segmented.other) == [2 * ENTRIES - 1]
    meet(segmented.founder, segmented.writer, segmented.other)
    assert_alike(segmented.founder, segmented.writer, segmented.other)


def test_every_entry_is_found_by_hash_by_place_and_by_position(segmented: Segmented) -> None:
    log = segmented.other.store.log
    row = next(row for row in log.logs() if row.key.kind is Kind.DATA)
    for header in segmented.headers:
        found = log.find(header.hash)
        assert found is not None
        assert (found.seq, found.hlc, found.state, found.log) == (header.seq, header.hlc, State.APPLIED, row.id)
        assert log.place(row, 0, header.seq) == (found.id, header.hash)
        assert log.hash_at(found.id) == header.hash
        assert log.rank(found.id) == (header.hlc, header.device, header.hash)
        assert entry_of(segmented.other.store, header.hash).header == header
    assert log.find(b"n" * 32) is None
    assert log.find(segmented.headers[5].hash[:6] + b"n" * 26) is None
    assert log.place(row, 0, 2 * ENTRIES + 1) is None


def test_a_file_with_segments_says_the_same_when_it_is_opened_again(segmented: Segmented) -> None:
    before = segmented.other.store.vector(), segmented.other.store.log.data_heads, segmented.other.store.log.position
    store = segmented.other.reopen()
    assert (store.vector(), store.log.data_heads, store.log.position) == before
    segmented.writer.note("later")
    fetch(store, segmented.writer.store)
    meet(segmented.founder, segmented.writer, segmented.other)
    assert_alike(segmented.founder, segmented.writer, segmented.other)


def runs_in(store: Store, messages: Sequence[Runs | Block]) -> list[Run]:
    return [run for message in messages if isinstance(message, Runs) for run in decode_runs(message, store.group)]


def test_a_log_is_served_from_within_a_segment(segmented: Segmented) -> None:
    behind = segmented.meeting.stranger("behind")
    fetch(segmented.other.store, segmented.founder.store)
    first = [run for run in runs_of(segmented.writer.store) if run.last.seq == ENTRIES and run.log.kind is Kind.DATA]
    acts = [run for run in runs_in(behind.store, missing(behind.store, segmented.other.store)) if run.log.kind is not Kind.DATA]
    behind.store.take(packed(*acts, *first))
    assert sizes(behind) == [ENTRIES - 1]
    (rest,) = runs_in(behind.store, missing(behind.store, segmented.other.store))
    assert [entry.header.seq for entry in rest.entries] == list(range(ENTRIES + 1, 2 * ENTRIES + 1))
    fetch(behind.store, segmented.other.store)
    assert_alike(segmented.other, behind)


def test_a_cursor_within_a_segment_goes_on_there(segmented: Segmented) -> None:
    store = segmented.other.store
    found = store.log.find(segmented.headers[9].hash)
    assert found is not None
    key = segmented.headers[0].log
    chunk = store.read(Read({key: (1, 2 * ENTRIES)}, Cursor(0, found.id), 10**6, {}))
    (run,) = runs_in(store, [cast(Runs, decode_message(encoded)) for encoded in chunk.messages])
    assert [entry.header for entry in run.entries] == segmented.headers[10:]


def test_an_entry_within_a_segment_may_be_named_and_be_followed_by_another(segmented: Segmented) -> None:
    inner = segmented.headers[30]
    fork = by_hand(segmented.writer, Kind.DATA, *[insert_body(segmented.writer, (id_, "f", None)) for id_ in "xyz"], after=inner)
    for replica in (segmented.founder, segmented.other):
        assert replica.store.take(packed(fork))[1] is not None
        assert [header_of(replica.store, entry.header.hash).seq for entry in fork.entries] == [32, 33, 34]
    third = segmented.meeting.join("third")
    meet(segmented.founder, segmented.other, third)
    assert_alike(segmented.founder, segmented.other, third)
    segmented.other.reopen()
    assert_alike(segmented.founder, segmented.other)


@pytest.mark.parametrize("kept", [1, 2, 30, 60, 61, 119, 120])
def test_what_an_act_cuts_within_a_segment_does_not_count_any_more(segmented: Segmented, kept: int) -> None:
    last = segmented.headers[kept - 1]
    cut = Cut(Kind.DATA, last.device, last.epoch, last.seq, last.hash)
    own = segmented.founder.person.keys.device
    rows = segmented.founder.store.log.logs()
    (control,) = [row for row in rows if (row.key.device, row.key.kind) == (own, Kind.CONTROL)]
    after = header_of(segmented.founder.store, control.tips[0].hash)
    body = encode_body(Remove(segmented.writer.user, ((segmented.writer.user, (cut,)),)))
    removal = by_hand(segmented.founder, Kind.CONTROL, body, after=after, heads=segmented.founder.store.log.act_heads)
    for replica in (segmented.founder, segmented.other):
        replica.store.take(packed(removal))
        assert len(replica.notes()) == kept
        states = [state for _, entry, state, _ in replica.store.log.all_entries() if entry.header.kind is Kind.DATA]
        assert states == [State.APPLIED] * kept + [State.VOID] * (2 * ENTRIES - kept)
    third = segmented.meeting.join("third")
    fetch(segmented.other.store, segmented.founder.store)
    assert len(third.notes()) == kept
    assert_alike(segmented.founder, segmented.other, third)
