"""Entries that became durable together and are told to the machine as one are each taken for what they are."""

from __future__ import annotations

from peersd_protocol.constants import STREAM_MESSAGE_BYTES
from peersd_protocol.messages import Have
from peersd_protocol.replication import Compare, Cursor, Ingest, Ingested, Read, Send
from peersd_protocol.replication_effects import Committed
from tests.protocol.replication_steps import (
    MINE,
    THEIRS,
    committed,
    comparisons,
    have,
    lacks,
    opened,
    parked,
    said,
    sent,
    tip,
    want_item,
)


def together(first: int, last: int) -> Committed:
    """Entries of THEIRS at positions of the same numbers."""
    return Committed(last, THEIRS, *tip(last), before=tuple(tip(seq)[1] for seq in range(first, last)))


def test_entries_told_as_one_are_those_told_one_by_one() -> None:
    assert together(3, 6).each() == [committed(seq, THEIRS, seq) for seq in range(3, 7)]
    assert together(3, 6).first_seq == 3
    assert [seq for seq in range(10) if together(3, 6).has(tip(seq))] == [3, 4, 5, 6]
    assert not any(together(3, 6).has(tip(seq, "b")) for seq in range(10))
    assert committed(1, THEIRS, 1).each() == [committed(1, THEIRS, 1)]


def test_a_tip_that_was_asked_for_arrives_among_others() -> None:
    machine = opened(1, 2)
    machine.compared(1, lacks(want_item(THEIRS, 3)), 0)
    machine.receive(2, have(THEIRS, tip(9)), 0)
    machine.compared(2, lacks(want_item(THEIRS, 9)), 0)
    machine.committed([together(1, 7)], 250, origin=1)
    assert comparisons(machine.timer_expired("gaps", 400)) == [Compare(2, {THEIRS: (tip(9),)})]


def test_a_gap_is_closed_by_what_comes_among_others() -> None:
    machine = opened(1, 2)
    machine.receive(2, have(THEIRS, tip(2)), 0)
    machine.committed([together(1, 4)], 100, origin=1)
    assert comparisons(machine.timer_expired("gaps", 300)) == []


def test_what_waited_for_one_of_them_is_tried_again() -> None:
    machine = opened(1)
    waiting = parked(10, tip(2)[1], brings=(MINE, tip(6)))
    machine.ingested(1, Ingested({}, (waiting,)), 0)
    assert Ingest(1, waiting.packed) in machine.committed([together(1, 4)], 10)


def test_they_are_pushed_to_who_holds_all_before_them_or_some_of_them_and_announced_to_others() -> None:
    machine = opened(1, 2, 3, 4)
    machine.receive(2, have(THEIRS, tip(2)), 0)
    machine.receive(3, have(THEIRS, tip(4)), 0)
    machine.committed([together(1, 3)], 10)
    effects = machine.committed([together(4, 6)], 10, message=b"run")
    assert {session for session, _ in sent(effects)} <= {1, 2, 3, 4}
    assert Send(3, b"run") in effects
    behind = opened(1)
    assert sent(behind.committed([together(4, 6)], 10, message=b"run")) == []
    assert said(behind, behind.timer_expired("have", 60)) == [(1, Have({THEIRS: (tip(6),)}))]


def test_a_stream_that_they_join_begins_at_the_first_of_them() -> None:
    machine = opened(1)
    machine.committed([together(1, 4)], 0)
    assert machine.next_read(1) == Read({THEIRS: (1, 4)}, Cursor(0, 0), STREAM_MESSAGE_BYTES, {})


def test_another_way_to_one_of_them_is_known() -> None:
    machine = opened(1, 2)
    machine.committed([together(1, 4)], 0, origin=1)
    machine.ingested(2, Ingested({THEIRS: tip(2)}), 0)
    assert not machine.is_eager(2)
