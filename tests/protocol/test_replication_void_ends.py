"""What a remote side is known to hold when it sent what was void here (SPEC: R-12)."""

from __future__ import annotations

import pytest

from peersd_protocol.entries import LogKey
from peersd_protocol.messages import Have, encode_have_parts, encode_vector_parts
from peersd_protocol.replication import TIMER_HAVE, Ingested
from peersd_protocol.vectors import Tip
from tests.protocol.replication_steps import CONTROL, START, THEIRS, committed, opened, said, tip


@pytest.mark.parametrize("is_held_first", [False, True])
def test_who_sent_what_was_void_here_is_known_to_hold_it_once_it_is_held_here(is_held_first: bool) -> None:
    """It is not told again: whoever sent an entry takes it as known that it has it."""
    machine = opened(1, 2)
    restored = {**START, THEIRS: (tip(3),), CONTROL: (tip(1),)}
    brought = Ingested({}, void=(tip(3)[1],), void_tips=((THEIRS, tip(3)),))
    acts = [committed(7, CONTROL, 1)]
    if is_held_first:
        machine.committed(acts, 60, origin=1, vector=restored)
        machine.ingested(1, brought, 60)
    else:
        machine.ingested(1, brought, 50)
        machine.committed(acts, 60, origin=1, vector=restored)
    machine.ingested(1, Ingested({CONTROL: tip(1)}), 70)
    assert machine.durable_vector(1) == restored
    assert machine.is_equal(1)
    assert not machine.is_equal(2)


def test_who_sent_what_lacked_a_body_here_is_known_to_hold_it_once_that_body_has_come() -> None:
    """It may come from another device; who sent the end does not say again that it holds it."""
    machine = opened(1, 2)
    machine.ingested(1, Ingested({}, void=(tip(3)[1],), blocked_tips=((THEIRS, tip(3)),)), 50)
    assert THEIRS not in machine.durable_vector(1)
    machine.committed([committed(7, THEIRS, 3)], 60, origin=2, vector={**START, THEIRS: (tip(3),)})
    assert machine.is_equal(1)


@pytest.mark.parametrize("names_all", [False, True], ids=["HAVE", "VECTOR"])
def test_who_has_said_what_it_holds_of_a_log_is_not_taken_to_hold_what_it_sent_before(*, names_all: bool) -> None:
    """The end became void there, too, and its body may be gone: it says so when it holds it again."""
    machine = opened(1, 2)
    machine.ingested(1, Ingested({}, void=(tip(3)[1],), void_tips=((THEIRS, tip(3)),)), 50)
    left = {**START, THEIRS: (tip(1),)}
    (message,) = encode_vector_parts(left) if names_all else encode_have_parts({THEIRS: (tip(1),)})
    machine.receive(1, message, 55)
    machine.committed([committed(7, THEIRS, 3)], 60, origin=2, vector={**START, THEIRS: (tip(3),)})
    assert machine.durable_vector(1)[THEIRS] == (tip(1),)
    assert not machine.is_equal(1)
    machine.receive(1, encode_have_parts({THEIRS: (tip(3),)})[0], 70)
    assert machine.is_equal(1)


def test_an_end_that_stays_void_says_nothing_of_who_sent_it() -> None:
    machine = opened(1)
    machine.ingested(1, Ingested({}, void=(tip(3)[1],), void_tips=((THEIRS, tip(3)),)), 50)
    machine.committed([committed(7, CONTROL, 1)], 60, origin=1, vector={**START, CONTROL: (tip(1),)})
    assert THEIRS not in machine.durable_vector(1)


@pytest.mark.parametrize("left", [{}, {THEIRS: (tip(1),)}], ids=["nothing", "less"])
def test_who_sent_what_becomes_void_here_counts_as_holding_what_is_left(left: dict[LogKey, tuple[Tip, ...]]) -> None:
    """It had been void at the sender already, which therefore has nothing to say of it."""
    machine = opened(1)
    held = {log: tips for log, tips in START.items() if log != THEIRS}
    brought = Ingested({THEIRS: tip(3)}, new=frozenset({THEIRS}))
    machine.committed([committed(6, THEIRS, 3)], 50, origin=1)
    machine.ingested(1, brought, 50)
    assert machine.durable_vector(1)[THEIRS] == (tip(3),)
    after = {**held, **left, CONTROL: (tip(1),)}
    machine.committed([committed(7, CONTROL, 1)], 60, origin=1, vector=after)
    machine.ingested(1, Ingested({CONTROL: tip(1)}), 70)
    assert machine.durable_vector(1) == after
    assert machine.is_equal(1)


def test_who_sent_what_becomes_void_here_and_is_restored_counts_as_holding_it_again() -> None:
    """What restores it may have come to the sender with what ends it: it was never void there, and it says nothing."""
    machine = opened(1)
    machine.committed([committed(6, THEIRS, 3)], 50, origin=1)
    machine.ingested(1, Ingested({THEIRS: tip(3)}, new=frozenset({THEIRS})), 50)
    ended = {**{log: tips for log, tips in START.items() if log != THEIRS}, CONTROL: (tip(1),)}
    machine.committed([committed(7, CONTROL, 1)], 60, origin=1, vector=ended)
    machine.ingested(1, Ingested({CONTROL: tip(1)}), 60)
    restored = {**START, THEIRS: (tip(3),), CONTROL: (tip(2),)}
    machine.committed([committed(8, CONTROL, 2)], 70, origin=1, vector=restored)
    machine.ingested(1, Ingested({CONTROL: tip(2)}), 70)
    assert machine.durable_vector(1) == restored
    assert machine.is_equal(1)


def test_what_a_side_has_stated_holds_until_it_states_something_else() -> None:
    machine = opened(1)
    machine.receive(1, encode_have_parts({THEIRS: (tip(3),)})[0], 50)
    machine.committed([committed(7, CONTROL, 1)], 60, origin=1, vector={**START, CONTROL: (tip(1),)})
    assert machine.durable_vector(1)[THEIRS] == (tip(3),)


def test_what_was_void_as_it_came_and_is_held_since_is_told_to_who_was_sent_what_came_before_it() -> None:
    """The acts that made it count may come with it: the log ends further on than what is committed of it."""
    machine = opened(1, 2)
    whole = {**START, THEIRS: (tip(3),), CONTROL: (tip(1),)}
    came = [committed(6, THEIRS, 1), committed(7, THEIRS, 2), committed(8, CONTROL, 1)]
    machine.committed(came, 50, origin=1, vector=whole)
    told = [
        message.vector
        for session, message in said(machine, machine.timer_expired(TIMER_HAVE, 100))
        if session == 2 and isinstance(message, Have)
    ]
    assert [vector.get(THEIRS) for vector in told] == [(tip(3),)]
