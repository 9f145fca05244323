"""Runs that came too early: what they say of their sender, how often what they lack is asked for, partings (SPEC: R-12, R-13)."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from peersd_protocol.constants import (
    ASK_HASHES_MAX,
    GAP_DELAY_MS,
    LEAVE_WAIT_MS,
    PARKED_BYTES_MAX,
    PARKED_HASH_BYTES,
    WANT_TIMEOUT_MS,
)
from peersd_protocol.messages import Ask
from peersd_protocol.replication import Compare, Effect, Ingest, Ingested, ParkingLot, Replication
from tests.protocol.replication_steps import (
    CONTROL,
    MINE,
    START,
    THEIRS,
    committed,
    comparisons,
    have,
    lacks,
    opened,
    parked,
    said,
    tip,
    want_item,
)

DEP = b"d" * 32
LEAVE = replace(parked(10, DEP, brings=(CONTROL, tip(2))), is_parting=True)


def ingests(effects: list[Effect]) -> list[Ingest]:
    return [effect for effect in effects if isinstance(effect, Ingest)]


# --- What is known of the sender ------------------------------------------------------------------------------------------------


def test_a_parked_run_that_ends_void_leaves_both_sides_equal_once_it_is_taken_in() -> None:
    """Runs end at signatures: their last entry may be void at their sender too, who never says that it holds it."""
    machine = opened(1)
    machine.ingested(1, Ingested({}, (parked(100, DEP, brings=(THEIRS, tip(3))),)), 10)
    acts = committed(7, CONTROL, 1)
    machine.committed([acts], 20, origin=1)
    machine.ingested(1, Ingested({CONTROL: tip(1)}, void=(DEP,), new=frozenset({CONTROL})), 20)
    machine.committed([committed(8, THEIRS, 1), committed(9, THEIRS, 2)], 21, origin=1)
    brought = Ingested({THEIRS: tip(2)}, void=(tip(3)[1],), void_tips=((THEIRS, tip(3)),), new=frozenset({THEIRS}))
    machine.ingested(1, brought, 21)
    assert machine.durable_vector(1) == {**START, CONTROL: (tip(1),), THEIRS: (tip(2),)}
    assert machine.is_equal(1)


def test_while_a_run_is_parked_the_sides_are_not_equal() -> None:
    """Else the store would be closed, and the run forgotten that its sender takes for delivered."""
    machine = opened(1)
    assert machine.is_equal(1)
    machine.ingested(1, Ingested({}, (parked(100, DEP, brings=(THEIRS, tip(3))),)), 10)
    assert not machine.is_equal(1)
    assert THEIRS not in machine.durable_vector(1)


def test_a_run_that_waits_anew_does_not_hide_one_that_goes_on_behind_it() -> None:
    """Or both count as equal once the first is here, and the other is dropped, which its sender does not say again."""
    machine = opened(1)
    first, second = parked(100, DEP, brings=(MINE, tip(6))), parked(100, tip(6)[1], brings=(MINE, tip(7)))
    machine.ingested(1, Ingested({}, (first, second)), 10)
    assert ingests(machine.committed([replace(committed(8, THEIRS, 1), hash=DEP)], 20, origin=1)) == [Ingest(1, first.packed)]
    machine.ingested(1, Ingested({THEIRS: (1, DEP)}, new=frozenset({THEIRS})), 20)
    machine.ingested(1, Ingested({}, (parked(100, b"e" * 32, brings=(MINE, tip(6))),)), 21)
    effects = machine.committed([committed(9, MINE, 6)], 30, origin=1)
    assert Ingest(1, second.packed) in effects
    machine.ingested(1, Ingested({MINE: tip(6)}, new=frozenset({MINE})), 30)
    assert not machine.is_equal(1)


def test_who_brought_what_another_session_brings_first_holds_it() -> None:
    """It does not say again that it holds what it sent, here a run whose body came too early, and which is not whole yet."""
    machine = opened(1, 2)
    run = parked(100, DEP, brings=(MINE, tip(6)))
    machine.ingested(1, Ingested({}, (run,)), 10)
    assert ingests(machine.committed([replace(committed(8, THEIRS, 1), hash=DEP)], 20, origin=1)) == [Ingest(1, run.packed)]
    machine.ingested(1, Ingested({THEIRS: (1, DEP)}, new=frozenset({THEIRS})), 20)
    machine.ingested(1, Ingested({}, new=frozenset({MINE})), 21)
    machine.committed([committed(9, MINE, 6)], 30, origin=2)
    assert machine.durable_vector(1)[MINE] == (tip(6),)
    assert machine.is_equal(1)


def test_who_brought_what_came_void_by_another_session_holds_it_once_it_is_held() -> None:
    machine = opened(1, 2)
    machine.ingested(1, Ingested({}, (parked(PARKED_BYTES_MAX, DEP, brings=(MINE, tip(6))),)), 10)  # there is no room for it
    void = Ingested({}, void=(tip(6)[1],), void_tips=((MINE, tip(6)),), new=frozenset({MINE}))
    machine.ingested(2, void, 20)
    machine.committed([committed(9, CONTROL, 1)], 30, origin=2, vector={MINE: (tip(6),), CONTROL: (tip(1),)})
    assert machine.durable_vector(1)[MINE] == machine.durable_vector(2)[MINE] == (tip(6),)


def test_who_states_its_tips_anew_has_not_what_it_brought_before() -> None:
    machine = opened(1)
    machine.ingested(1, Ingested({}, (parked(PARKED_BYTES_MAX, DEP, brings=(MINE, tip(7))),)), 10)
    assert not machine.is_equal(1)
    machine.receive(1, have(MINE, tip(5)), 20)
    assert machine.is_equal(1)
    assert comparisons(machine.timer_expired("gaps", 300)) == []


def test_what_its_sender_does_not_hold_is_parked_no_more_once_both_hold_the_same() -> None:
    """It is void there, and what it waits for may be void as well, and told of by nobody."""
    machine, lot = Replication(START), ParkingLot()
    machine.session_opened(1, lot, START, 0, is_told=True)
    machine.ingested(1, Ingested({}, (parked(10, DEP, brings=(MINE, tip(7))),)), 10)
    machine.receive(1, have(THEIRS, tip(1)), 20)
    machine.receive(1, have(MINE, tip(5)), 30)
    assert lot.bytes_parked  # the other log is to come, and may rest on more
    machine.committed([committed(9, THEIRS, 1)], 40, origin=1)
    machine.ingested(1, Ingested({THEIRS: tip(1)}, new=frozenset({THEIRS})), 40)
    assert machine.is_equal(1)
    assert lot.bytes_parked == 0
    assert said(machine, machine.timer_expired("gaps", 10_000)) == []


# --- Asking after what is lacking -----------------------------------------------------------------------------------------------


def test_what_nobody_knows_of_is_asked_after_ever_less_often() -> None:
    machine = opened(1)
    machine.ingested(1, Ingested({}, (parked(10, DEP),)), 0)
    asked: list[int] = []
    for now_ms in range(GAP_DELAY_MS, 60_000, GAP_DELAY_MS):
        if said(machine, machine.timer_expired("gaps", now_ms)) == [(1, Ask((DEP,)))]:
            asked.append(now_ms)
    assert asked[:7] == [200, 400, 800, 1600, 3200, 6400, 11400]
    assert {after - before for before, after in pairwise(asked[6:])} == {5000}


def test_a_run_that_is_parked_anew_is_asked_after_as_soon_as_the_first() -> None:
    machine = opened(1)
    machine.ingested(1, Ingested({}, (parked(10, DEP),)), 0)
    for now_ms in range(GAP_DELAY_MS, 20_000, GAP_DELAY_MS):
        said(machine, machine.timer_expired("gaps", now_ms))
    machine.ingested(1, Ingested({}, (parked(11, b"e" * 32),)), 20_000)
    assert said(machine, machine.timer_expired("gaps", 20_200)) == [(1, Ask((DEP, b"e" * 32)))]


def test_what_ends_a_parked_run_is_not_asked_after() -> None:
    """It is here, and waits itself: of a long chain more is asked for each time."""
    machine = opened(1)
    waiting = (parked(10, DEP, brings=(MINE, tip(7))), parked(11, tip(7)[1], b"e" * 32, brings=(THEIRS, tip(3))))
    machine.ingested(1, Ingested({}, waiting), 0)
    assert said(machine, machine.timer_expired("gaps", 200)) == [(1, Ask((DEP, b"e" * 32)))]


def test_the_same_run_is_parked_once() -> None:
    machine, lot = Replication(START), ParkingLot()
    machine.session_opened(1, lot, START, 0, is_told=True)
    for now_ms in range(3):
        machine.ingested(1, Ingested({}, (parked(10, DEP, brings=(THEIRS, tip(3))),)), now_ms)
    assert lot.bytes_parked == 10 + 2 * PARKED_HASH_BYTES


def test_a_run_that_lacks_much_takes_room_for_it() -> None:
    """What it names is kept too: bounded by the bytes of payloads alone it would be forty times as much."""
    machine, lot = Replication(START), ParkingLot()
    machine.session_opened(1, lot, START, 0, is_told=True)
    names = [number.to_bytes(32, "big") for number in range(2 * ASK_HASHES_MAX)]
    machine.ingested(1, Ingested({}, (parked(10, *names),)), 0)
    assert lot.bytes_parked == 10 + (1 + len(names)) * PARKED_HASH_BYTES
    machine.session_closed(1, 0)
    assert lot.bytes_parked == 0


# --- Partings -------------------------------------------------------------------------------------------------------------------


def test_a_parting_is_taken_in_once_what_its_sender_wrote_before_is_here() -> None:
    machine = opened(1)
    machine.ingested(1, Ingested({}, (LEAVE,)), 0)
    machine.ingested(1, Ingested({}, void=(DEP,), new=frozenset({THEIRS})), 100)
    machine.ingested(1, Ingested({}, (LEAVE,)), 100)
    assert ingests(machine.committed([replace(committed(9, THEIRS, 3), hash=DEP)], 200, origin=1)) == [Ingest(1, LEAVE.packed)]


def test_a_parting_that_names_what_never_comes_is_taken_in_all_the_same() -> None:
    machine = opened(1)
    machine.ingested(1, Ingested({}, (LEAVE, parked(10, DEP))), 1000)
    assert ingests(machine.timer_expired("gaps", 999 + LEAVE_WAIT_MS)) == []
    assert ingests(machine.timer_expired("gaps", 1000 + LEAVE_WAIT_MS)) == [Ingest(1, LEAVE.packed, is_final=True)]
    assert ingests(machine.timer_expired("gaps", 9000 + LEAVE_WAIT_MS)) == []


def test_as_long_as_what_was_asked_for_comes_a_parting_waits() -> None:
    machine = opened(1, 2)
    machine.receive(2, have(THEIRS, tip(90)), 0)
    machine.compared(2, lacks(want_item(THEIRS, 90)), 0)
    machine.ingested(1, Ingested({}, (LEAVE,)), 0)
    last_ms = 0
    for beat in range(1, 20):
        last_ms = beat * (WANT_TIMEOUT_MS - 1)
        machine.ingested(2, Ingested({}, new=frozenset({THEIRS})), last_ms)
        assert ingests(machine.timer_expired("gaps", last_ms)) == []
    assert ingests(machine.timer_expired("gaps", last_ms + LEAVE_WAIT_MS)) == [Ingest(1, LEAVE.packed, is_final=True)]


def test_a_parting_that_comes_again_waits_no_longer_for_it() -> None:
    """Where a WANT has no answer it is said again every WANT_TIMEOUT_MS, and brings the parting again."""
    machine = opened(1)
    for now_ms in range(0, LEAVE_WAIT_MS, WANT_TIMEOUT_MS):
        machine.ingested(1, Ingested({}, (LEAVE,)), now_ms)
    assert ingests(machine.timer_expired("gaps", LEAVE_WAIT_MS)) == [Ingest(1, LEAVE.packed, is_final=True)]


def test_other_logs_are_asked_for_while_a_parting_waits() -> None:
    machine = opened(1)
    machine.ingested(1, Ingested({}, (LEAVE,)), 0)
    machine.receive(1, have(THEIRS, tip(3)), 10)
    assert comparisons(machine.timer_expired("gaps", 300)) == [Compare(1, {THEIRS: (tip(3),)})]
