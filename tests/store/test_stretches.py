"""Many small entries of one run that are taken in as one amount to what they amount to one by one."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from peersd.errors import PeersdError
from peersd.store.batch import Request
from peersd.store.client_sql import Statement
from peersd.store.log import State
from peersd.store.store import Write
from peersd_protocol import canonical, changesets
from peersd_protocol.acts import SchemaAct, encode_body
from peersd_protocol.changesets import Changeset, TableChangeset
from peersd_protocol.entries import Header, Kind
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.runs import Run
from tests.store.pools import by_hand, entry_of, packed
from tests.store.stores import Meeting, Replica, assert_alike, fetch, meet

INSERT = "INSERT INTO note VALUES (?, ?, ?)"


def write_at_once(replica: Replica, *statements: tuple[object, ...]) -> None:
    """Each statement is an entry of its own, all of one run."""
    writes = [
        Write(replica.user, Request([Statement(str(sql), tuple(params))], math.inf))  # type: ignore[arg-type]
        for sql, *params in statements
    ]
    outcomes, _ = replica.store.write(writes)
    assert not any(isinstance(outcome, PeersdError) for outcome in outcomes)


def insert(*ids: str, title: str = "t") -> list[tuple[object, ...]]:
    return [(INSERT, id_, title, None) for id_ in ids]


def spans(replica: Replica) -> list[tuple[object, ...]]:
    rows = replica.store.log.connection.execute("SELECT first, last, step FROM _peers_span ORDER BY first")
    return [tuple(row) for row in rows]


@pytest.fixture
def meeting(tmp_path: Path) -> Meeting:
    return Meeting(tmp_path)


def test_rows_that_entries_of_their_own_insert_one_after_the_other_have_one_clock_row(meeting: Meeting) -> None:
    other = meeting.join("other")
    for batch in range(4):
        write_at_once(meeting.founder, *insert(*(f"{batch}-{n}" for n in range(100))))
        fetch(other.store, meeting.founder.store)
    assert spans(other) == spans(meeting.founder) == [(1, 400, 1)]
    assert_alike(meeting.founder, other)


def test_a_span_is_cut_where_a_row_of_it_changes_hands(meeting: Meeting) -> None:
    other = meeting.join("other")
    write_at_once(meeting.founder, *insert(*"abcdefgh"))
    fetch(other.store, meeting.founder.store)
    write_at_once(other, ("DELETE FROM note WHERE id = 'c'",), *insert("c"), ("UPDATE note SET title = 'u' WHERE id = 'f'",))
    write_at_once(meeting.founder, ("DELETE FROM note WHERE id = 'h'",))
    meet(meeting.founder, other)
    assert_alike(meeting.founder, other)


def test_inserts_of_rows_that_are_there_already_are_merged(meeting: Meeting) -> None:
    other = meeting.join("other")
    write_at_once(meeting.founder, *insert(*"abcdef", title="founder's"))
    write_at_once(other, *insert(*"dbfxyz", title="other's"))
    meet(meeting.founder, other)
    assert_alike(meeting.founder, other)
    assert {str(row[1]) for row in other.notes() if row[0] in ("b", "d", "f")} == {"other's"}


def test_inserts_of_rows_that_were_deleted_elsewhere_are_merged(meeting: Meeting) -> None:
    other, third = meeting.join("other"), meeting.join("third")
    write_at_once(meeting.founder, *insert(*"abcdef"))
    fetch(other.store, meeting.founder.store)
    write_at_once(other, ("DELETE FROM note WHERE id IN ('b', 'd')",), ("UPDATE note SET title = 'u' WHERE id = 'e'",))
    fetch(third.store, other.store)
    write_at_once(third, *insert(*"bdgh", title="again"))
    meet(meeting.founder, other, third)
    assert_alike(meeting.founder, other, third)


def test_other_changes_between_inserts_are_applied_in_their_place(meeting: Meeting) -> None:
    other = meeting.join("other")
    write_at_once(
        meeting.founder,
        *insert(*"abc"),
        ("DELETE FROM note WHERE id = 'b'",),
        *insert("b", "d", title="second"),
        (f"{INSERT}, ('two', 'rows', NULL)", "k", "in one", b"\x00"),
        ("UPDATE note SET title = 'u' WHERE id = 'a'",),
        *insert(*"efg"),
    )
    fetch(other.store, meeting.founder.store)
    assert_alike(meeting.founder, other)


def test_entries_of_several_rows_each_have_their_own_clocks(meeting: Meeting) -> None:
    other = meeting.join("other")
    two = f"{INSERT}, (?, 't', NULL)"
    write_at_once(meeting.founder, *[(two, f"{n}a", "t", None, f"{n}b") for n in range(50)])
    fetch(other.store, meeting.founder.store)
    assert [span[2] for span in spans(other)] == [0] * 50
    assert_alike(meeting.founder, other)


def lengths(replica: Replica) -> list[int]:
    """Of the stretches that were taken in; where an entry was taken in by itself, 1."""
    query = """SELECT id, count FROM _peers_segment
        UNION ALL SELECT id, 1 FROM _peers_entry WHERE log IN (SELECT id FROM _peers_log WHERE kind = 3) ORDER BY id"""
    return [row[1] for row in replica.store.log.connection.execute(query)]


def test_entries_are_taken_in_as_one_whatever_they_change(meeting: Meeting) -> None:
    other = meeting.join("other")
    meeting.founder.note("names the acts of the join")
    write_at_once(
        meeting.founder,
        *insert(*"abc"),
        ("UPDATE note SET title = 'u' WHERE id = 'a'",),
        ("DELETE FROM note WHERE id = 'b'",),
        *insert("b", title="again"),
        ("UPDATE note SET id = 'z' WHERE id = 'c'",),
        ("UPDATE note SET title = 'v', body = x'00'",),
    )
    fetch(other.store, meeting.founder.store)
    assert lengths(other) == [1, 8]
    assert_alike(meeting.founder, other)


def test_entries_that_are_too_much_for_one_look_are_taken_in_as_few(meeting: Meeting) -> None:
    other = meeting.join("other")
    meeting.founder.note("names the acts of the join")
    write_at_once(meeting.founder, *insert(*map(str, range(200)), title="t" * 500))
    fetch(other.store, meeting.founder.store)
    first, *rest = lengths(other)
    assert first == 1 and len(rest) == 2 and sum(rest) == 200
    assert_alike(meeting.founder, other)


def insert_body(replica: Replica, *rows: tuple[object, ...]) -> bytes:
    (table,) = replica.store.state.schema.tables
    return changesets.encode(Changeset((TableChangeset(table.id, (), list(zip(*rows, strict=True))),)))


def begun(meeting: Meeting) -> tuple[Replica, Header]:
    """A member whose log has an entry at the founder, and that entry."""
    writer = meeting.join("writer")
    (entry,) = writer.note("first").entries
    fetch(meeting.founder.store, writer.store)
    stored = entry_of(writer.store, entry.hash)
    return writer, stored.header


def refusal(meeting: Meeting, run: Run) -> CloseCode:
    store = meeting.founder.store
    before = store.vector(), store.dump(), store.log.position
    with pytest.raises(RemoteProtocolError) as refused:
        store.take(packed(run))
    assert (store.vector(), store.dump(), store.log.position) == before
    return refused.value.close_code


def test_one_row_that_two_entries_of_a_run_insert_is_merged(meeting: Meeting) -> None:
    writer, first = begun(meeting)
    bodies = [insert_body(writer, (id_, title, None)) for id_, title in (("a", "1"), ("b", "1"), ("a", "2"))]
    run = by_hand(writer, Kind.DATA, *bodies, after=first)
    assert meeting.founder.store.take(packed(run))[1] is not None
    assert {row[0]: row[1] for row in meeting.founder.notes()} == {"first": None, "a": "2", "b": "1"}
    fetch(meeting.join("third").store, meeting.founder.store)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_body_that_is_not_as_it_has_to_be_is_refused_wherever_it_stands(meeting: Meeting, place: int) -> None:
    writer, first = begun(meeting)
    good = [insert_body(writer, (id_, "t", None)) for id_ in "abc"]

    def code(body: bytes) -> CloseCode:
        return refusal(meeting, by_hand(writer, Kind.DATA, *[*good[:place], body, *good[place + 1 :]], after=first))

    assert code(good[0] + b"\x90") is CloseCode.MALFORMED
    assert code(good[0][:-1]) is CloseCode.MALFORMED
    assert code(good[0].replace(b"\x91\xa1a", b"\xdc\x00\x01\xa1a")) is CloseCode.MALFORMED  # not canonical
    assert code(good[0].replace(b"\x91\xa1a", b"\x91\xc3")) is CloseCode.MALFORMED  # a boolean
    assert code(good[0].replace(b"\x91\xa1a", b"\x90")) is CloseCode.MALFORMED  # columns of different lengths
    assert code(canonical.encode([1, [b"n" * 16], [[0, 0, [], [["x"], ["t"], [None]], [], []]]])) is CloseCode.BAD_BODY


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_entry_that_cannot_be_shown_is_kept_aside_and_its_neighbours_are_shown(meeting: Meeting, place: int) -> None:
    writer, first = begun(meeting)
    bodies = [insert_body(writer, (id_, "t", None)) for id_ in "abc"]
    bodies[place] = insert_body(writer, (None, "t", None))
    run = by_hand(writer, Kind.DATA, *bodies, after=first)
    assert meeting.founder.store.take(packed(run))[1] is not None
    assert len(meeting.founder.notes()) == 3
    states = [state for _, entry, state, _ in meeting.founder.store.log.all_entries() if entry in run.entries]
    assert states == [State.ASIDE if n == place else State.APPLIED for n in range(3)]


def test_what_is_before_an_entry_that_cannot_be_shown_and_what_is_after_it_is_taken_in_as_one(meeting: Meeting) -> None:
    writer, first = begun(meeting)
    bodies = [insert_body(writer, (id_, "t", None)) for id_ in "abcdefgh"]
    bodies[3] = insert_body(writer, (None, "t", None))
    run = by_hand(writer, Kind.DATA, *bodies, after=first)
    _, commit = meeting.founder.store.take(packed(run))
    assert commit is not None
    assert [one.hash for entry in commit.entries for one in entry.each()] == list(run.hashes)
    assert lengths(meeting.founder) == [1, 3, 1, 4]
    assert len(meeting.founder.notes()) == 8


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_table_that_is_not_in_an_entrys_past_is_refused_wherever_it_stands(meeting: Meeting, place: int) -> None:
    writer, first = begun(meeting)
    ops = tuple(meeting.founder.store.plan_schema(meeting.founder.user, "CREATE TABLE later (id TEXT PRIMARY KEY, t TEXT)"))
    meeting.founder.store.act(meeting.founder.user, Kind.CONTROL, encode_body(SchemaAct(ops)))
    later = meeting.founder.store.state.schema.tables[1]
    bodies = [insert_body(writer, (id_, "t", None)) for id_ in "abc"]
    bodies[place] = changesets.encode(Changeset((TableChangeset(later.id, (), [["x"], ["t"]]),)))
    assert refusal(meeting, by_hand(writer, Kind.DATA, *bodies, after=first)) is CloseCode.BAD_BODY


def test_bytes_that_one_body_lacks_and_the_next_has_too_many_are_refused(meeting: Meeting) -> None:
    writer, first = begun(meeting)
    one, two, three = [insert_body(writer, (id_, "t", None)) for id_ in "abc"]
    assert refusal(meeting, by_hand(writer, Kind.DATA, *[one, two[:-1], two[-1:] + three], after=first)) is CloseCode.MALFORMED
    assert refusal(meeting, by_hand(writer, Kind.DATA, *[one, two + three[:1], three[1:]], after=first)) is CloseCode.MALFORMED


@pytest.mark.parametrize("place", [1, 2])
def test_a_stamp_that_does_not_follow_is_refused_within_a_run_of_small_entries(meeting: Meeting, place: int) -> None:
    writer, first = begun(meeting)
    bodies = [insert_body(writer, (id_, "t", None)) for id_ in "abcd"]
    good = by_hand(writer, Kind.DATA, *bodies, after=first)
    start = by_hand(writer, Kind.DATA, *bodies[:place], after=first)
    leap = replace(start.last, hlc=start.last.hlc + 1)
    leap.__dict__["hash"] = start.last.hash
    late = by_hand(writer, Kind.DATA, *bodies[place:], after=leap)
    assert refusal(meeting, Run((*start.entries, *late.entries), late.signature)) is CloseCode.BAD_CHAIN
    assert meeting.founder.store.take(packed(good))[1] is not None
