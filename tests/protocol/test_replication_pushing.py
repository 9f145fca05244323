"""Whom the replication machine pushes new entries to: the tree that duplicates prune and WANTs mend (SPEC: R-10, R-16, R-17)."""

from __future__ import annotations

import pytest

from peersd_protocol.constants import ORIGINS_MAX, PRUNE_INTERVAL_MS
from peersd_protocol.entries import LogKey
from peersd_protocol.messages import Have, Prune, Want, encode_prune, encode_vector_parts, encode_want
from peersd_protocol.replication import Compare, Due, Effect, Ingested, Replication, Send
from peersd_protocol.vectors import Tip
from tests.protocol.replication_steps import (
    MINE,
    START,
    THEIRS,
    committed,
    comparisons,
    have,
    lacks,
    opened,
    said,
    sent,
    tip,
    want_item,
)


def known(held: dict[LogKey, Tip] | None = None) -> Ingested:
    """What the store says of a message that brought nothing new."""
    return Ingested({THEIRS: tip(1)} if held is None else held)


def brought(machine: Replication, session: int, seq: int = 1, now_ms: int = 0) -> list[Effect]:
    """A session brings an entry, which is passed on."""
    effects = machine.committed([committed(seq, THEIRS, seq)], now_ms, origin=session, message=b"run")
    return effects + machine.ingested(session, Ingested({THEIRS: tip(seq)}, new=frozenset({THEIRS})), now_ms)


def pruned(*sessions: int, remotely: int) -> Replication:
    """A machine with sessions, of which one was sent PRUNE."""
    machine = opened(*sessions)
    machine.receive(remotely, encode_prune(), 0)
    return machine


def test_a_new_entry_is_pushed_at_once_to_all_who_can_apply_it() -> None:
    machine = opened(1, 2)
    effects = machine.committed([committed(10, MINE, 6)], 0, message=b"run")
    assert effects == [Send(1, b"run"), Send(2, b"run")]


def test_of_several_entries_those_that_can_be_applied_are_pushed_and_the_others_announced() -> None:
    machine = opened(1)
    machine.committed([committed(10, MINE, 6), committed(11, THEIRS, 1, (THEIRS, 9))], 0, message=b"run")
    assert machine.next_read(1) is not None
    assert said(machine, machine.timer_expired("have", 50)) == [(1, Have({THEIRS: (tip(1),)}))]


# --- Pruning --------------------------------------------------------------------------------------------------------------------


def test_who_is_pushed_what_another_pushed_before_says_prune_and_pushes_no_more() -> None:
    machine = opened(1, 2)
    brought(machine, 1)
    effects = machine.ingested(2, known(), 10)
    assert Due(2) in effects
    assert Prune() in [message for _, message in said(machine, effects)]
    assert (machine.is_eager(1), machine.is_eager(2)) == (True, False)
    assert sent(machine.committed([committed(10, MINE, 6)], 20, message=b"run")) == [(1, b"run")]


def test_who_is_told_prune_pushes_no_more_and_announces() -> None:
    machine = pruned(1, 2, remotely=2)
    assert sent(machine.committed([committed(10, MINE, 6)], 0, message=b"run")) == [(1, b"run")]
    assert said(machine, machine.timer_expired("have", 50)) == [(2, Have({MINE: (tip(6),)}))]


def test_what_comes_back_to_its_author_prunes_too() -> None:
    machine = opened(1)
    machine.committed([committed(10, MINE, 6)], 0, message=b"run")
    machine.ingested(1, known({MINE: tip(6)}), 10)
    assert not machine.is_eager(1)


def test_a_lazy_session_that_goes_on_pushing_is_told_again_once_a_second() -> None:
    """The two sides may differ after a PRUNE and a WANT crossed, and then duplicates settle it."""
    machine = opened(1, 2)
    brought(machine, 1)
    machine.ingested(2, known(), 10)
    machine.take_due(2)
    assert machine.ingested(2, known(), 20) == []
    assert machine.ingested(2, known(), 9 + PRUNE_INTERVAL_MS) == []
    effects = machine.ingested(2, known(), 10 + PRUNE_INTERVAL_MS)
    assert said(machine, effects) == [(2, Prune())]


def test_a_channel_that_takes_nothing_is_owed_one_prune_however_long_that_lasts() -> None:
    machine = opened(1, 2)
    brought(machine, 1)
    for second in range(100):
        machine.ingested(2, known(), second * PRUNE_INTERVAL_MS)
    machine.timer_expired("have", 100_000)
    assert machine.take_due(2).count(encode_prune()) == 1


def test_what_came_first_by_the_same_session_prunes_nothing() -> None:
    machine = opened(1, 2)
    brought(machine, 1)
    machine.ingested(1, known(), 10)
    assert machine.is_eager(1)


def test_what_came_before_anything_was_remembered_prunes_nothing() -> None:
    machine = opened(1, 2)
    machine.ingested(2, known({MINE: tip(5)}), 10)
    assert machine.is_eager(2)


def test_only_so_many_entries_are_remembered() -> None:
    machine = opened(1, 2)
    brought(machine, 1)
    machine.committed([committed(seq, THEIRS, seq) for seq in range(2, ORIGINS_MAX + 1)], 0, origin=1)
    machine.ingested(2, known(), 10)
    assert not machine.is_eager(2)
    machine = opened(1, 2)
    brought(machine, 1)
    machine.committed([committed(seq, THEIRS, seq) for seq in range(2, ORIGINS_MAX + 2)], 0, origin=1)
    machine.ingested(2, known(), 10)
    assert machine.is_eager(2)


def test_a_message_that_brings_anything_new_prunes_nothing() -> None:
    machine = opened(1, 2)
    brought(machine, 1)
    machine.ingested(2, Ingested({THEIRS: tip(1), MINE: tip(6)}, new=frozenset({MINE})), 10)
    assert machine.is_eager(2)


def test_an_answer_to_a_want_prunes_nothing() -> None:
    """Not while it is under way, and not when others were faster with all that was asked for."""
    machine = opened(1, 2)
    machine.compared(2, lacks(want_item(THEIRS, 3)), 0)
    for seq in (1, 2, 3):
        brought(machine, 1, seq)
        machine.ingested(2, known({THEIRS: tip(seq)}), 10)
    assert machine.is_eager(2)
    brought(machine, 1, 4)
    machine.ingested(2, known({THEIRS: tip(4)}), 10)
    assert not machine.is_eager(2)


def test_what_a_session_was_asked_for_is_forgotten_when_its_vector_names_the_log_no_more() -> None:
    """Else one that goes on naming new logs would fill the memory."""
    machine = opened(1, 2)
    machine.compared(2, lacks(want_item(THEIRS, 1)), 0)
    brought(machine, 1)
    (vector,) = encode_vector_parts(START)
    machine.receive(2, vector, 5)
    machine.ingested(2, known(), 10)
    assert not machine.is_eager(2)


def test_while_a_want_is_under_way_its_session_is_not_pruned_for_anything() -> None:
    """An answer goes on beyond what was asked for (R-7)."""
    machine = opened(1, 2)
    machine.compared(2, lacks(want_item(MINE, 9)), 0)
    brought(machine, 1)
    machine.ingested(2, known(), 10)
    assert machine.is_eager(2)


def test_nobody_prunes_for_a_session_that_has_ended() -> None:
    machine = opened(1, 2)
    brought(machine, 1)
    machine.session_closed(1, 5)
    machine.ingested(2, known(), 10)
    assert machine.is_eager(2)


def test_nobody_prunes_for_a_session_that_pushes_no_more() -> None:
    """Two entries from two sides would else prune both ways to them."""
    machine = opened(1, 2)
    brought(machine, 1)
    machine.receive(1, encode_prune(), 5)
    machine.ingested(2, known(), 10)
    assert machine.is_eager(2)


# --- Mending --------------------------------------------------------------------------------------------------------------------


def test_a_want_that_comes_makes_its_session_eager_again() -> None:
    machine = pruned(1, remotely=1)
    machine.receive(1, encode_want(Want((want_item(MINE, 5),))), 10)
    assert sent(machine.committed([committed(10, MINE, 6)], 0, message=b"run")) == [(1, b"run")]


def test_a_want_that_is_sent_makes_its_session_eager_again() -> None:
    machine = pruned(1, remotely=1)
    machine.receive(1, have(THEIRS, tip(1)), 0)
    assert comparisons(machine.timer_expired("gaps", 200)) == [Compare(1, {THEIRS: (tip(1),)})]
    assert not machine.is_eager(1)
    machine.compared(1, lacks(want_item(THEIRS, 1)), 210)
    assert machine.is_eager(1)


def test_a_comparison_after_which_nothing_is_asked_for_makes_nothing_eager() -> None:
    machine = pruned(1, 2, remotely=2)
    machine.compared(1, lacks(want_item(THEIRS, 1)), 0)
    machine.compared(2, lacks(want_item(THEIRS, 1)), 0)
    machine.compared(2, lacks(), 0)
    assert not machine.is_eager(2)


@pytest.mark.parametrize("direction", ["sent", "received"])
def test_a_prune_that_was_not_said_yet_is_not_said_after_a_want(direction: str) -> None:
    machine = opened(1, 2)
    brought(machine, 1)
    machine.ingested(2, known(), 10)
    if direction == "sent":
        machine.compared(2, lacks(want_item(THEIRS, 3)), 20)
    else:
        machine.receive(2, encode_want(Want((want_item(MINE, 5),))), 20)
    assert encode_prune() not in machine.take_due(2)


def test_what_is_missing_is_asked_of_an_eager_session_rather_than_a_lazy_one() -> None:
    """Asking a lazy one makes it eager, and so changes the tree without need."""
    machine = pruned(1, 2, remotely=1)
    machine.receive(1, have(THEIRS, tip(9)), 0)
    machine.receive(2, have(THEIRS, tip(3)), 0)
    assert comparisons(machine.timer_expired("gaps", 200)) == [Compare(2, {THEIRS: (tip(3),)})]


def test_of_sessions_alike_the_one_that_holds_most_is_asked() -> None:
    machine = opened(1, 2, 3)
    for session, seq in ((1, 3), (2, 9), (3, 5)):
        machine.receive(session, have(THEIRS, tip(seq)), 0)
    assert comparisons(machine.timer_expired("gaps", 200)) == [Compare(2, {THEIRS: (tip(9),)})]


def test_once_a_lazy_session_is_eager_again_it_is_pushed_what_follows_what_it_said_to_hold() -> None:
    machine = pruned(1, remotely=1)
    machine.committed([committed(10, MINE, 6)], 0, message=b"run")
    machine.receive(1, have(MINE, tip(6)), 60)
    machine.receive(1, encode_want(Want(())), 70)
    assert sent(machine.committed([committed(11, MINE, 7)], 80, message=b"next")) == [(1, b"next")]


def test_a_prune_means_nothing_to_a_session_that_has_ended() -> None:
    machine = opened(1)
    machine.session_closed(1, 0)
    assert machine.receive(1, encode_prune(), 0) == []
