"""What the replication machine asks of whom: a log of one session at a time, gaps, moved WANTs, parked runs."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace

import pytest

from peersd_protocol import canonical
from peersd_protocol.constants import KIB, PARKED_BYTES_MAX, PARKED_HASH_BYTES, PARKED_RUNS_MAX, WANT_ITEMS_MAX
from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.messages import (
    Ask,
    Have,
    Runs,
    VectorPart,
    Want,
    decode_message,
    encode_ask,
    encode_runs,
    encode_vector_parts,
    encode_wants,
)
from peersd_protocol.replication import (
    Compare,
    Comparison,
    Due,
    Ingest,
    Ingested,
    Locate,
    LookUp,
    ParkingLot,
    Replication,
    SetTimer,
)
from peersd_protocol.vectors import Tip
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

# --- One session at a time ------------------------------------------------------------------------------------------------------


def test_what_is_missing_is_asked_of_one_session_only() -> None:
    machine = opened(1, 2)
    missing = Comparison((want_item(THEIRS, 3),), ((b"b" * 32, 2),))
    effects = machine.compared(1, missing, 100)
    assert effects == [Due(1), SetTimer("wants", 5100)]
    assert said(machine, effects) == [(1, Want(missing.wants, missing.staged))]
    assert said(machine, machine.compared(2, missing, 100)) == []


def test_who_may_not_be_told_what_is_held_is_asked_for_acts_from_their_beginning_and_not_for_rows_that_are_here() -> None:
    machine = Replication({MINE: (tip(5),), CONTROL: (tip(2),)})
    machine.session_opened(1, ParkingLot(), None, 0, is_told=False)
    machine.receive(1, encode_vector_parts({CONTROL: (tip(3),), MINE: (tip(9),), THEIRS: (tip(4),)})[0], 0)
    items = [replace(want_item(log, seq), have=(tip(2),)) for log, seq in ((CONTROL, 3), (MINE, 9))]
    effects = machine.compared(1, Comparison((*items, want_item(THEIRS, 4)), ((b"b" * 32, 2),)), 0)
    assert said(machine, effects) == [(1, Want((want_item(CONTROL, 3), want_item(THEIRS, 4))))]
    assert comparisons(machine.timer_expired("gaps", 200)) == []
    assert len(said(machine, machine.tell(1))) == 1
    assert comparisons(machine.timer_expired("gaps", 400)) == [Compare(1, {MINE: (tip(9),)})]
    assert said(machine, machine.compared(1, lacks(items[1]), 400)) == [(1, Want((items[1],)))]


def test_of_a_log_that_is_asked_for_a_later_tip_waits_until_that_is_here() -> None:
    machine = opened(1, 2, 3)
    for session, seq in ((1, 3), (2, 7), (3, 5)):
        machine.receive(session, have(THEIRS, tip(seq)), 0)
        machine.compared(session, lacks(want_item(THEIRS, seq)), 0)
    assert comparisons(machine.timer_expired("gaps", 200)) == []
    machine.committed([committed(seq, THEIRS, seq) for seq in (1, 2, 3)], 250, origin=1)
    assert comparisons(machine.timer_expired("gaps", 400)) == [Compare(2, {THEIRS: (tip(7),)})]


def test_what_the_session_itself_names_meanwhile_waits_too() -> None:
    machine = opened(1)
    machine.compared(1, lacks(want_item(THEIRS, 3)), 0)
    machine.receive(1, have(THEIRS, tip(4)), 0)
    assert comparisons(machine.timer_expired("gaps", 200)) == []
    machine.committed([committed(seq, THEIRS, seq) for seq in (1, 2, 3, 4)], 250, origin=1)
    assert comparisons(machine.timer_expired("gaps", 400)) == []


def test_what_came_and_is_void_is_not_waited_for() -> None:
    machine = opened(1, 2)
    machine.compared(1, lacks(want_item(THEIRS, 3)), 0)
    machine.receive(2, have(THEIRS, tip(3), tip(2, "b")), 10)
    machine.ingested(1, Ingested({}, void=(tip(3)[1],), void_tips=((THEIRS, tip(3)),)), 50)
    assert comparisons(machine.timer_expired("gaps", 300)) == [Compare(2, {THEIRS: (tip(2, "b"), tip(3))})]


def test_what_an_entry_lacks_that_acts_have_restored_is_asked_for() -> None:
    """Its tip was known here and void, so that nothing was asked for when the remote side named it."""
    machine = opened(1, 2, own={MINE: (tip(5),), THEIRS: (tip(1),)})
    for session in (1, 2):
        machine.receive(session, have(THEIRS, tip(4)), 0)
    for at_ms in (200, 400):
        for effect in comparisons(machine.timer_expired("gaps", at_ms)):
            machine.compared(effect.session, lacks(), at_ms)
    assert comparisons(machine.timer_expired("gaps", 600)) == []
    machine.committed([committed(9, CONTROL, 1)], 1000, origin=1, vector={MINE: (tip(5),), THEIRS: (tip(1),), CONTROL: (tip(1),)})
    assert comparisons(machine.timer_expired("gaps", 1200)) == [Compare(1, {THEIRS: (tip(4),)})]


def test_other_logs_are_asked_of_other_sessions_meanwhile() -> None:
    machine = opened(1, 2)
    machine.compared(1, lacks(want_item(THEIRS, 3)), 0)
    effects = machine.compared(2, lacks(want_item(THEIRS, 3), want_item(CONTROL, 2)), 0)
    assert said(machine, effects) == [(2, Want((want_item(CONTROL, 2),)))]


def test_branches_of_a_log_are_asked_for_together() -> None:
    machine = opened(1)
    branches = (want_item(THEIRS, 2, "b"), want_item(THEIRS, 3))
    assert said(machine, machine.compared(1, lacks(*branches), 0)) == [(1, Want(branches))]
    machine.committed([committed(9, THEIRS, 3)], 1, origin=1)
    machine.receive(1, have(THEIRS, tip(4)), 2)
    assert comparisons(machine.timer_expired("gaps", 300)) == []  # the other branch is still to come


def test_more_items_than_fit_go_into_the_next_want() -> None:
    items = [want_item(LogKey(Kind.DATA, b"", number.to_bytes(32, "big"), b"e" * 16), 1) for number in range(WANT_ITEMS_MAX + 1)]
    machine = opened(1)
    messages = said(machine, machine.compared(1, lacks(*items), 0))
    assert [len(want.items) for _, want in messages if isinstance(want, Want)] == [WANT_ITEMS_MAX, 1]


def test_what_is_not_asked_for_any_more_when_the_channel_has_room_is_left_out() -> None:
    machine = opened(1, 2)
    machine.receive(2, have(THEIRS, tip(3)), 0)
    machine.compared(1, lacks(want_item(THEIRS, 3)), 0)
    assert comparisons(machine.timer_expired("wants", 5000)) == [Compare(2, {THEIRS: (tip(3),)})]
    assert machine.take_due(1) == []


def test_what_has_come_when_the_channel_has_room_is_left_out() -> None:
    machine = opened(1, 2)
    machine.compared(1, lacks(want_item(THEIRS, 3), want_item(CONTROL, 2)), 0)
    machine.committed([committed(9, THEIRS, 3)], 10, origin=2)
    assert [message for message in map(decode_message, machine.take_due(1)) if isinstance(message, Want)] == [
        Want((want_item(CONTROL, 2),))
    ]


# --- When it does not come ------------------------------------------------------------------------------------------------------


def asked_of_the_first(*, holder: bool = True) -> Replication:
    machine = opened(1, 2)
    for session in (1, 2) if holder else (1,):
        machine.receive(session, have(THEIRS, tip(3)), 0)
    machine.compared(1, lacks(want_item(THEIRS, 3)), 0)
    machine.take_due(1)
    return machine


def test_a_want_moves_when_its_session_ends() -> None:
    machine = asked_of_the_first()
    assert comparisons(machine.session_closed(1, 50)) == [Compare(2, {THEIRS: (tip(3),)})]
    assert said(machine, machine.compared(2, lacks(want_item(THEIRS, 3)), 50)) == [(2, Want((want_item(THEIRS, 3),)))]


def test_a_want_moves_on_if_the_next_session_ends_before_the_store_has_compared() -> None:
    machine = opened(1, 2, 3)
    for session in (1, 2, 3):
        machine.receive(session, have(THEIRS, tip(3)), 0)
    machine.compared(1, lacks(want_item(THEIRS, 3)), 0)
    assert comparisons(machine.session_closed(1, 50)) == [Compare(2, {THEIRS: (tip(3),)})]
    machine.session_closed(2, 60)
    assert comparisons(machine.timer_expired("gaps", 200)) == [Compare(3, {THEIRS: (tip(3),)})]


def test_a_want_moves_to_who_named_the_same_in_its_vector() -> None:
    machine = opened(1, 2, at=None)
    (vector,) = encode_vector_parts({THEIRS: (tip(3),)})
    for session in (1, 2):
        machine.receive(session, vector, 0)
        machine.compared(session, lacks(want_item(THEIRS, 3)), 0)
    assert comparisons(machine.session_closed(1, 50)) == [Compare(2, {THEIRS: (tip(3),)})]


def test_a_want_moves_after_5_s_without_progress() -> None:
    machine = asked_of_the_first()
    assert machine.timer_expired("wants", 4999) == [SetTimer("wants", 5000)]
    assert comparisons(machine.timer_expired("wants", 5000)) == [Compare(2, {THEIRS: (tip(3),)})]


def test_messages_that_bring_nothing_are_no_progress() -> None:
    machine = asked_of_the_first()
    machine.receive(1, encode_runs([]), 3000)
    machine.ingested(1, Ingested({}), 3000)
    assert comparisons(machine.timer_expired("wants", 5000)) == [Compare(2, {THEIRS: (tip(3),)})]


def test_messages_that_bring_other_logs_are_no_progress() -> None:
    """Else what a session cannot serve would never be asked of others, as long as it pushes."""
    machine = asked_of_the_first()
    machine.ingested(1, Ingested({CONTROL: tip(1)}, new=frozenset({CONTROL})), 3000)
    assert comparisons(machine.timer_expired("wants", 5000)) == [Compare(2, {THEIRS: (tip(3),)})]


@pytest.mark.parametrize("void", [(), (tip(9)[1],)], ids=["blocks", "void entries"])
def test_what_is_not_held_of_other_logs_is_no_progress_either(void: tuple[bytes, ...]) -> None:
    """Else any member could hold up what others wrote: with rubbish of its own that counts for nothing."""
    machine = asked_of_the_first()
    machine.ingested(1, Ingested({}, void=void, new=frozenset({CONTROL})), 3000)
    assert comparisons(machine.timer_expired("wants", 5000)) == [Compare(2, {THEIRS: (tip(3),)})]


@pytest.mark.parametrize("brought", [{THEIRS: tip(2)}, {}], ids=["entries", "blocks"])
def test_messages_that_bring_something_of_what_is_asked_are_progress(brought: dict[LogKey, tuple[int, bytes]]) -> None:
    machine = asked_of_the_first()
    machine.ingested(1, Ingested(brought, new=frozenset({THEIRS})), 3000)
    assert machine.timer_expired("wants", 5000) == [SetTimer("wants", 8000)]
    assert comparisons(machine.timer_expired("wants", 8000)) == [Compare(2, {THEIRS: (tip(3),)})]


def test_where_nobody_else_holds_it_the_same_session_is_asked_again() -> None:
    machine = asked_of_the_first(holder=False)
    assert machine.timer_expired("wants", 5000) == []
    assert comparisons(machine.timer_expired("gaps", 5200)) == [Compare(1, {THEIRS: (tip(3),)})]


def test_a_want_ends_when_its_tip_is_here() -> None:
    machine = asked_of_the_first()
    machine.committed([committed(9, THEIRS, 3)], 20, origin=1)
    assert machine.session_closed(1, 50) == []
    assert machine.timer_expired("wants", 9000) == []


def test_a_want_ends_when_its_tip_is_here_and_void() -> None:
    machine = asked_of_the_first()
    machine.ingested(1, Ingested({THEIRS: tip(3)}, void=(tip(3)[1],)), 20)
    assert comparisons(machine.session_closed(1, 50)) == []


def test_who_says_that_it_holds_no_more_what_it_is_asked_for_is_waited_for_no_longer() -> None:
    machine = asked_of_the_first()
    effects = machine.receive(1, have(THEIRS, tip(2)), 100)
    assert comparisons(effects) == [Compare(2, {THEIRS: (tip(3),)})]
    assert said(machine, machine.compared(2, lacks(want_item(THEIRS, 3)), 100)) == [(2, Want((want_item(THEIRS, 3),)))]


def test_a_vector_that_does_not_name_what_is_asked_for_says_so_too() -> None:
    machine = asked_of_the_first()
    (vector,) = encode_vector_parts({MINE: (tip(5),)})
    assert Compare(2, {THEIRS: (tip(3),)}) in machine.receive(1, vector, 100)


@pytest.mark.parametrize("held", [(tip(3),), (tip(4),), (tip(2), tip(4, "b"))])
def test_who_names_what_it_is_asked_for_or_what_may_follow_it_is_waited_for(held: tuple[Tip, ...]) -> None:
    machine = asked_of_the_first()
    assert comparisons(machine.receive(1, have(THEIRS, *held), 100)) == []
    assert comparisons(machine.timer_expired("wants", 5000)) == [Compare(2, {THEIRS: (tip(3),)})]


def test_who_asks_for_what_is_held_no_more_is_told_what_is() -> None:
    machine = opened(1, own={**START, THEIRS: (tip(2),)}, at={**START, THEIRS: (tip(2),)})
    want = Want((want_item(THEIRS, 3), want_item(MINE, 5)))
    effects = machine.receive(1, encode_wants(want.items, ())[0], 0)
    assert effects == [Locate(1, want), Due(1)]
    assert said(machine, effects) == [(1, Have({THEIRS: (tip(2),)}))]
    want = Want((want_item(THEIRS, 2),))
    assert machine.receive(1, encode_wants(want.items, ())[0], 0) == [Locate(1, want)]


def test_who_asks_for_a_log_of_which_nothing_is_left_is_told_all_that_is_held() -> None:
    machine = opened(1)
    want = Want((want_item(THEIRS, 3),))
    assert said(machine, machine.receive(1, encode_wants(want.items, ())[0], 0)) == [(1, VectorPart(more=False, vector=START))]


def test_who_asks_for_logs_that_nobody_wrote_and_takes_no_answer_costs_no_memory() -> None:
    machine = opened(1)

    def ask(number: int) -> None:
        logs = [LogKey(Kind.DATA, b"", f"{number}.{item}".encode().ljust(32, b"."), b"t" * 16) for item in range(100)]
        (want,) = encode_wants([want_item(log, 3) for log in logs], ())
        machine.receive(1, want, 0)

    ask(0)
    tracemalloc.start()
    try:
        for number in range(1, 51):
            ask(number)
        gc.collect()
        grown_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown_bytes < 100 * KIB
    assert said(machine, [Due(1)]) == [(1, VectorPart(more=False, vector=START))]


def test_when_all_sessions_have_ended_no_timer_is_set_again() -> None:
    machine = asked_of_the_first()
    machine.ingested(2, Ingested({}, (parked(10, b"z" * 32),)), 0)
    machine.session_closed(1, 50)
    machine.session_closed(2, 60)
    assert [machine.timer_expired(timer, 9000) for timer in ("have", "gaps", "wants")] == [[], [], []]


# --- HAVE and gaps --------------------------------------------------------------------------------------------------------------


def test_a_gap_still_open_after_200_ms_is_asked_for() -> None:
    machine = opened(1)
    assert machine.receive(1, have(THEIRS, tip(3)), 1000) == [SetTimer("gaps", 1200)]
    assert machine.timer_expired("gaps", 1200) == [Compare(1, {THEIRS: (tip(3),)})]
    assert machine.timer_expired("gaps", 1400) == []


def test_a_gap_that_closed_is_not_asked_for() -> None:
    machine = opened(1)
    machine.receive(1, have(THEIRS, tip(3)), 1000)
    machine.committed([committed(10, THEIRS, 3)], 1100, origin=1)
    assert machine.timer_expired("gaps", 1200) == []


def test_a_younger_gap_waits_its_own_200_ms() -> None:
    machine = opened(1)
    machine.receive(1, have(THEIRS, tip(3)), 1000)
    machine.receive(1, have(CONTROL, tip(1)), 1150)
    assert machine.timer_expired("gaps", 1200) == [Compare(1, {THEIRS: (tip(3),)}), SetTimer("gaps", 1350)]


def test_what_is_named_while_a_gap_is_open_is_a_gap_of_its_own_once_that_has_closed() -> None:
    machine = opened(1)
    machine.receive(1, have(THEIRS, tip(3)), 1000)
    machine.receive(1, have(THEIRS, tip(7)), 1100)
    machine.committed([committed(10, THEIRS, 3)], 1150, origin=1)
    assert machine.timer_expired("gaps", 1200) == [SetTimer("gaps", 1350)]
    assert machine.timer_expired("gaps", 1350) == [Compare(1, {THEIRS: (tip(7),)})]


def test_while_entries_keep_coming_each_has_its_own_200_ms() -> None:
    """A log that others write to all the time is always a little behind what HAVE names."""
    machine = opened(1, 2)
    for seq in range(1, 100):
        machine.receive(1, have(THEIRS, tip(seq + 1)), seq * 50)
        machine.committed([committed(seq, THEIRS, seq)], seq * 50, origin=2)
        assert comparisons(machine.timer_expired("gaps", seq * 50)) == []


def test_a_have_that_is_behind_is_no_gap() -> None:
    assert opened(1).receive(1, have(MINE, tip(4)), 0) == []


def test_of_several_tips_a_low_one_is_a_gap_too() -> None:
    machine = opened(1)
    assert machine.receive(1, have(MINE, tip(3, "b"), tip(5)), 0) == [SetTimer("gaps", 200)]
    assert machine.timer_expired("gaps", 200) == [Compare(1, {MINE: (tip(3, "b"),)})]


def test_a_gap_dies_with_the_only_session_that_told_of_it() -> None:
    machine = opened(1)
    machine.receive(1, have(THEIRS, tip(3)), 0)
    machine.session_closed(1, 10)
    assert machine.timer_expired("gaps", 200) == []


def test_a_gap_that_two_sessions_told_of_outlives_either() -> None:
    machine = opened(1, 2)
    machine.receive(1, have(THEIRS, tip(3)), 0)
    machine.receive(2, have(THEIRS, tip(3)), 0)
    machine.session_closed(1, 10)
    assert machine.timer_expired("gaps", 200) == [Compare(2, {THEIRS: (tip(3),)})]


def test_a_gap_is_forgotten_when_who_told_of_it_holds_it_no_more() -> None:
    machine = opened(1)
    machine.receive(1, have(MINE, tip(7)), 0)
    machine.receive(1, have(MINE, tip(5)), 100)
    assert machine.timer_expired("gaps", 200) == []


# --- Parking --------------------------------------------------------------------------------------------------------------------


def test_a_parked_run_is_tried_again_when_something_it_lacks_is_here() -> None:
    machine = opened(1)
    waiting = parked(10, tip(1)[1], tip(2)[1])
    assert machine.ingested(1, Ingested({}, (waiting,)), 0) == [SetTimer("gaps", 200)]
    assert Ingest(1, waiting.packed) in machine.committed([committed(10, THEIRS, 1)], 5, origin=1)
    assert Ingest(1, waiting.packed) not in machine.committed([committed(11, THEIRS, 2)], 6, origin=1)


def test_what_waits_for_an_entry_is_taken_up_when_that_arrives_void() -> None:
    machine = asked_of_the_first()
    waiting = parked(1, b"v" * 32)
    machine.ingested(1, Ingested({}, (waiting,)), 10)
    assert Ingest(1, waiting.packed) in machine.ingested(2, Ingested({}, void=(b"v" * 32,)), 20)


def test_a_tip_still_missing_after_its_run_was_taken_up_is_asked_for() -> None:
    """The blocks of a detached body that came while its run was parked are gone."""
    machine = opened(1, 2)
    machine.ingested(1, Ingested({}, (parked(1, b"v" * 32, brings=(THEIRS, tip(5))),)), 10)
    machine.ingested(1, Ingested({}, void=(b"v" * 32,)), 1000)
    assert comparisons(machine.timer_expired("gaps", 1100)) == []
    assert comparisons(machine.timer_expired("gaps", 1200)) == [Compare(1, {THEIRS: (tip(5),)})]


def test_a_run_with_a_detached_body_that_had_to_wait_is_asked_for_again_once_it_is_taken_up() -> None:
    """Its blocks came while it waited and are gone, and who was asked for them has sent them: that is not waited for."""
    machine = asked_of_the_first(holder=False)
    waiting = replace(parked(1, b"v" * 32, brings=(THEIRS, tip(3))), is_detached=True)
    machine.ingested(1, Ingested({}, (waiting,)), 10)
    machine.ingested(1, Ingested({}, void=(b"v" * 32,)), 1000)
    assert comparisons(machine.timer_expired("gaps", 1200)) == []
    machine.ingested(1, Ingested({}, new=frozenset({THEIRS})), 1250)
    assert comparisons(machine.timer_expired("gaps", 1400)) == [Compare(1, {THEIRS: (tip(3),)})]


def test_a_run_for_which_there_is_no_room_is_asked_for_again() -> None:
    """Whoever sent it takes it for delivered and will not name it by itself."""
    machine = opened(1)
    machine.ingested(1, Ingested({}, (parked(PARKED_BYTES_MAX + 1, b"z" * 32, brings=(THEIRS, tip(5))),)), 0)
    assert machine.timer_expired("gaps", 200) == [Compare(1, {THEIRS: (tip(5),)})]


def test_what_a_parked_run_lacks_is_asked_for_after_200_ms() -> None:
    machine = opened(1)
    machine.ingested(1, Ingested({}, (parked(10, b"z" * 32, b"a" * 32),)), 0)
    effects = machine.timer_expired("gaps", 200)
    assert effects == [Due(1), SetTimer("gaps", 400)]
    assert said(machine, effects) == [(1, Ask((b"a" * 32, b"z" * 32)))]


def test_a_channel_that_takes_nothing_is_owed_one_ask_however_long_that_lasts() -> None:
    machine = opened(1)
    machine.ingested(1, Ingested({}, (parked(10, b"z" * 32),)), 0)
    for beat in range(1, 1000):
        machine.timer_expired("gaps", beat * 200)
    assert machine.take_due(1) == [encode_ask([b"z" * 32])]


def test_while_a_want_brings_anything_what_parked_runs_lack_is_not_asked_for() -> None:
    machine = asked_of_the_first()
    machine.ingested(1, Ingested({}, (parked(10, b"z" * 32),), new=frozenset({THEIRS})), 100)
    assert said(machine, machine.timer_expired("gaps", 299)) == []


def test_what_parked_runs_lack_is_asked_for_though_a_want_is_always_under_way() -> None:
    """What it brings may wait for that itself, here and at the next session that it is moved to, and so for good."""
    machine = asked_of_the_first()
    machine.ingested(1, Ingested({}, (parked(10, b"z" * 32),), new=frozenset({THEIRS})), 100)
    assert said(machine, machine.timer_expired("gaps", 300)) == [(1, Ask((b"z" * 32,)))]


def test_an_ask_is_looked_up_and_answered_by_have_or_not_at_all() -> None:
    machine = opened(1)
    assert machine.receive(1, encode_ask([b"a" * 32]), 0) == [LookUp(1, (b"a" * 32,))]
    assert said(machine, machine.looked_up(1, START)) == [(1, Have(START))]
    assert machine.looked_up(1, {}) == []


def test_so_many_runs_are_parked_and_no_more() -> None:
    lot = ParkingLot()
    machine = Replication(START)
    machine.session_opened(1, lot, START, 0, is_told=True)
    machine.ingested(1, Ingested({}, tuple(parked(size, b"z" * 32) for size in range(PARKED_RUNS_MAX + 5))), 0)
    assert lot.bytes_parked == sum(size + 2 * PARKED_HASH_BYTES for size in range(PARKED_RUNS_MAX))


def test_all_sessions_of_a_link_park_so_many_bytes_and_no_more() -> None:
    lot = ParkingLot()
    one, other = Replication(START), Replication(START)
    one.session_opened(1, lot, START, 0, is_told=True)
    other.session_opened(2, lot, START, 0, is_told=True)
    beside = 2 * PARKED_HASH_BYTES  # the run, and what it lacks
    one.ingested(1, Ingested({}, (parked(PARKED_BYTES_MAX - 2 * beside - 10, b"z" * 32),)), 0)
    other.ingested(2, Ingested({}, (parked(11, b"z" * 32),)), 0)
    assert lot.bytes_parked == PARKED_BYTES_MAX - beside - 10
    other.ingested(2, Ingested({}, (parked(10, b"z" * 32),)), 0)
    assert lot.bytes_parked == PARKED_BYTES_MAX
    one.session_closed(1, 0)
    assert lot.bytes_parked == beside + 10


def test_duplicates_are_harmless() -> None:
    machine = opened(1)
    for _ in range(2):
        assert machine.receive(1, encode_runs([]), 0) == [Ingest(1, Runs(0, canonical.encode([])))]
        assert machine.ingested(1, Ingested({MINE: tip(5)}), 0) == []
    assert machine.is_equal(1)
