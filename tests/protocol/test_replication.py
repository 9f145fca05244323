"""The replication machine: literal commands in, literal effects out."""

from __future__ import annotations

import pytest

from peersd_protocol import canonical
from peersd_protocol.constants import PARKED_BYTES_MAX, PARKED_RUNS_MAX, STREAM_MESSAGE_BYTES, VECTOR_LOGS_MAX, WANT_ITEMS_MAX
from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.messages import (
    Ask,
    Block,
    Have,
    Message,
    Runs,
    VectorPart,
    Want,
    WantItem,
    decode_message,
    encode_ask,
    encode_block,
    encode_have,
    encode_runs,
    encode_vector_parts,
    encode_want,
)
from peersd_protocol.replication import (
    BecameEqual,
    Chunk,
    Committed,
    Compare,
    Comparison,
    Cursor,
    Effect,
    Ingest,
    Ingested,
    Locate,
    LookUp,
    Parked,
    ParkingLot,
    Read,
    Readable,
    Replication,
    Send,
    SetTimer,
)
from peersd_protocol.vectors import Tip, Vector

CONTROL = LogKey(Kind.CONTROL, b"", b"c" * 32, b"c" * 16)
MINE = LogKey(Kind.DATA, b"", b"m" * 32, b"m" * 16)
THEIRS = LogKey(Kind.DATA, b"", b"t" * 32, b"t" * 16)


def tip(seq: int, branch: str = "") -> Tip:
    return seq, f"{seq}{branch}".encode().ljust(32, b".")


def committed(position: int, log: LogKey, seq: int, *requires: tuple[LogKey, int], branch: str = "") -> Committed:
    return Committed(position, log, *tip(seq, branch), requires)


def want_item(log: LogKey, seq: int, branch: str = "") -> WantItem:
    return WantItem(log, tip(seq, branch), ())


def sent(effects: list[Effect]) -> list[tuple[int, Message]]:
    return [(effect.session, decode_message(effect.message)) for effect in effects if isinstance(effect, Send)]


def comparisons(effects: list[Effect]) -> list[Compare]:
    return [effect for effect in effects if isinstance(effect, Compare)]


START: Vector = {MINE: (tip(5),)}


def opened(*sessions: int, at: Vector | None = START, own: Vector | None = None) -> Replication:
    """A machine with sessions whose other sides hold the same."""
    machine = Replication(START if own is None else own)
    for session in sessions:
        machine.session_opened(session, ParkingLot(), at, 0)
    return machine


# --- Opening --------------------------------------------------------------------------------------------------------------------


def test_with_equal_digests_nothing_is_sent_and_nothing_asked() -> None:
    assert Replication(START).session_opened(1, ParkingLot(), START, 0) == [BecameEqual(1)]


def test_with_different_digests_the_vector_is_sent() -> None:
    machine = Replication(START)
    assert machine.session_opened(1, ParkingLot(), None, 0) == [Send(1, part) for part in encode_vector_parts(START)]
    assert not machine.is_equal(1)


def test_an_empty_replica_sends_an_empty_vector() -> None:
    effects = Replication({}).session_opened(1, ParkingLot(), None, 0)
    assert sent(effects) == [(1, VectorPart({}, more=False))]


def test_what_was_committed_between_digest_and_accept_is_announced() -> None:
    machine = Replication({MINE: (tip(6),)})
    assert sent(machine.session_opened(1, ParkingLot(), START, 0)) == [(1, Have({MINE: (tip(6),)}))]


def test_a_session_number_is_used_once() -> None:
    with pytest.raises(LocalProtocolError):
        opened(1).session_opened(1, ParkingLot(), None, 0)


# --- Vectors and WANT -----------------------------------------------------------------------------------------------------------


def test_a_vector_in_parts_is_compared_once_it_is_whole() -> None:
    machine = opened(1)
    first, last = encode_vector_parts({MINE: (tip(5),), THEIRS: (tip(2),)}, logs_per_part=1)
    assert machine.receive(1, first, 0) == []
    assert machine.receive(1, last, 0) == [Compare(1, {MINE: (tip(5),), THEIRS: (tip(2),)})]
    assert machine.durable_vector(1) == {MINE: (tip(5),), THEIRS: (tip(2),)}


def test_a_vector_of_more_logs_than_the_bound_is_refused() -> None:
    machine = opened(1)
    logs = [LogKey(Kind.DATA, b"", number.to_bytes(32, "big"), b"e" * 16) for number in range(8192)]
    parts = VECTOR_LOGS_MAX // len(logs)
    for part in range(parts + 1):
        vector = {LogKey(log.kind, b"", log.device, part.to_bytes(16, "big")): (tip(1),) for log in logs}
        message = canonical.encode([1, True, [[3, b"", *log_fields(log), [[1, tip(1)[1]]]] for log in vector]])
        if part < parts:
            assert machine.receive(1, message, 0) == []
        else:
            with pytest.raises(RemoteProtocolError) as refused:
                machine.receive(1, message, 0)
            assert refused.value.close_code is CloseCode.TOO_LARGE


def log_fields(log: LogKey) -> tuple[bytes, bytes]:
    return log.device, log.epoch


def test_what_is_missing_is_asked_of_one_session_only() -> None:
    machine = opened(1, 2)
    missing = Comparison((want_item(THEIRS, 3),), ((b"b" * 32, 2),))
    effects = machine.compared(1, missing, 100)
    assert effects == [Send(1, encode_want(Want(missing.wants, missing.staged))), SetTimer("wants", 5100)]
    assert machine.compared(2, missing, 100) == []


def test_more_items_than_fit_go_into_the_next_want() -> None:
    items = tuple(
        want_item(LogKey(Kind.DATA, b"", number.to_bytes(32, "big"), b"e" * 16), 1) for number in range(WANT_ITEMS_MAX + 1)
    )
    messages = sent(opened(1).compared(1, Comparison(items), 0))
    assert [len(want.items) for _, want in messages if isinstance(want, Want)] == [WANT_ITEMS_MAX, 1]


def asked_of_the_first(*, holder: bool = True) -> Replication:
    machine = opened(1, 2)
    for session in (1, 2) if holder else (1,):
        machine.receive(session, encode_have({THEIRS: (tip(3),)}), 0)
    machine.compared(1, Comparison((want_item(THEIRS, 3),)), 0)
    return machine


def test_a_want_moves_when_its_session_ends() -> None:
    machine = asked_of_the_first()
    assert machine.session_closed(1, 50) == [Compare(2, {THEIRS: (tip(3),)})]
    assert len(sent(machine.compared(2, Comparison((want_item(THEIRS, 3),)), 50))) == 1


def test_a_want_moves_after_5_s_without_progress() -> None:
    machine = asked_of_the_first()
    assert machine.timer_expired("wants", 4999) == [SetTimer("wants", 9999)]
    assert machine.timer_expired("wants", 5000) == [Compare(2, {THEIRS: (tip(3),)})]


def test_messages_that_bring_nothing_are_no_progress() -> None:
    machine = asked_of_the_first()
    machine.receive(1, encode_runs([]), 3000)
    machine.ingested(1, Ingested({}, is_new=False), 3000)
    assert comparisons(machine.timer_expired("wants", 5000)) == [Compare(2, {THEIRS: (tip(3),)})]


def test_what_waits_for_an_entry_is_taken_up_when_that_arrives_void() -> None:
    machine = asked_of_the_first()
    parked = Parked(Runs(0, b"x"), frozenset([b"v" * 32]))
    machine.ingested(1, Ingested({}, (parked,), is_new=False), 10)
    assert Ingest(1, parked.packed) in machine.ingested(2, Ingested({}, void=(b"v" * 32,)), 20)


def test_a_tip_still_missing_after_its_run_was_taken_up_is_asked_for() -> None:
    """The blocks of a detached body that came while its run was parked are gone."""
    machine = asked_of_the_first()
    parked = Parked(Runs(0, b"x"), frozenset([b"v" * 32]), (THEIRS, tip(5)))
    machine.ingested(1, Ingested({}, (parked,)), 10)
    machine.ingested(1, Ingested({}, void=(b"v" * 32,)), 1000)
    assert Compare(1, {THEIRS: (tip(5),)}) not in machine.timer_expired("gaps", 1100)
    assert Compare(1, {THEIRS: (tip(5),)}) in machine.timer_expired("gaps", 1200)


def test_messages_that_bring_something_are_progress() -> None:
    machine = asked_of_the_first()
    machine.receive(1, encode_runs([]), 3000)
    machine.ingested(1, Ingested({}), 3000)
    assert comparisons(machine.timer_expired("wants", 5000)) == []
    assert comparisons(machine.timer_expired("wants", 8000)) == [Compare(2, {THEIRS: (tip(3),)})]


def test_where_nobody_else_holds_it_the_same_session_is_asked_again() -> None:
    machine = asked_of_the_first(holder=False)
    assert machine.timer_expired("wants", 5000) == [Compare(1, {THEIRS: (tip(3),)})]


def test_a_want_ends_when_its_tip_is_here() -> None:
    machine = asked_of_the_first()
    machine.committed([committed(9, THEIRS, 3)], 20, origin=1)
    assert machine.session_closed(1, 50) == []
    assert machine.timer_expired("wants", 9000) == []


def test_a_want_that_comes_is_located_and_streamed() -> None:
    machine = opened(1)
    want = Want((want_item(MINE, 5),), ((b"b" * 32, 1),))
    assert machine.receive(1, encode_want(want), 0) == [Locate(1, want)]
    assert machine.located(1, {MINE: (2, 5)}, Cursor(7, 7), {b"b" * 32: 1}) == [Readable(1)]
    assert machine.next_read(1) == Read({MINE: (2, 5)}, Cursor(7, 7), STREAM_MESSAGE_BYTES, {b"b" * 32: 1})
    assert machine.next_read(1) is None  # one read at a time
    more = machine.read_done(1, Chunk((b"one",), {MINE: 3}, Cursor(7, 9), exhausted=False))
    assert more == [Send(1, b"one", bulk=True), Readable(1)]
    assert machine.next_read(1) == Read({MINE: (2, 5)}, Cursor(7, 9), STREAM_MESSAGE_BYTES, {b"b" * 32: 1})
    assert machine.read_done(1, Chunk((b"two",), {MINE: 5}, Cursor(7, 11), exhausted=False)) == [Send(1, b"two", bulk=True)]
    assert machine.next_read(1) is None


def test_a_want_located_during_a_read_waits_for_its_end_and_may_take_the_stream_back() -> None:
    machine = opened(1)
    machine.located(1, {MINE: (4, 5)}, Cursor(8, 8), {})
    machine.next_read(1)
    assert machine.located(1, {THEIRS: (1, 2)}, Cursor(3, 3), {}) == []
    effects = machine.read_done(1, Chunk((b"m",), {MINE: 5}, Cursor(8, 10), exhausted=True))
    assert effects == [Send(1, b"m", bulk=True), Readable(1)]
    assert machine.next_read(1) == Read({THEIRS: (1, 2)}, Cursor(3, 3), STREAM_MESSAGE_BYTES, {})


def test_a_stream_taken_back_begins_a_detached_body_anew() -> None:
    within = Cursor(4, 8, b"b" * 32, 3)
    assert within.rewound(Cursor(4, 8)) is within
    assert within.rewound(Cursor(9, 9)) is within
    assert within.rewound(Cursor(9, 7)) == Cursor(4, 7)
    assert within.rewound(Cursor(3, 9)) == Cursor(3, 8)


# --- Live -----------------------------------------------------------------------------------------------------------------------


def test_a_new_entry_is_pushed_at_once_to_all_who_can_apply_it() -> None:
    machine = opened(1, 2)
    effects = machine.committed([committed(10, MINE, 6)], 0, message=b"run")
    assert effects == [Send(1, b"run"), Send(2, b"run")]


def test_without_a_message_at_hand_a_new_entry_is_streamed() -> None:
    machine = opened(1)
    assert machine.committed([committed(10, MINE, 6)], 0) == [Readable(1)]
    assert machine.next_read(1) == Read({MINE: (6, 6)}, Cursor(9, 9), STREAM_MESSAGE_BYTES, {})


def test_an_entry_that_rests_on_what_the_other_side_lacks_is_announced() -> None:
    machine = opened(1)
    assert machine.committed([committed(10, MINE, 6, (THEIRS, 1))], 0, message=b"run") == [SetTimer("have", 50)]
    assert sent(machine.timer_expired("have", 50)) == [(1, Have({MINE: (tip(6),)}))]


def test_an_entry_after_one_that_the_other_side_lacks_is_announced() -> None:
    machine = opened(1)
    assert machine.committed([committed(10, MINE, 7)], 0, message=b"run") == [SetTimer("have", 50)]


def test_of_several_entries_those_that_can_be_applied_are_pushed_and_the_others_announced() -> None:
    machine = opened(1)
    effects = machine.committed([committed(10, MINE, 6), committed(11, CONTROL, 1, (THEIRS, 9))], 0, message=b"run")
    assert effects == [Readable(1), SetTimer("have", 50)]
    assert sent(machine.timer_expired("have", 50)) == [(1, Have({CONTROL: (tip(1),)}))]


def test_who_sent_an_entry_is_told_that_it_is_durable_and_others_get_it() -> None:
    machine = opened(1, 2)
    assert machine.committed([committed(10, THEIRS, 1)], 0, origin=1, message=b"run") == [SetTimer("have", 50), Send(2, b"run")]
    assert sent(machine.timer_expired("have", 50)) == [(1, Have({THEIRS: (tip(1),)}))]


def test_who_has_an_entry_already_is_told_that_this_side_has_it_too() -> None:
    machine = opened(1, 2)
    machine.receive(2, encode_have({THEIRS: (tip(1),)}), 0)
    effects = machine.committed([committed(10, THEIRS, 1)], 0, origin=1, message=b"run")
    assert [effect for effect in effects if isinstance(effect, Send)] == []
    assert sent(machine.timer_expired("have", 50)) == [(1, Have({THEIRS: (tip(1),)})), (2, Have({THEIRS: (tip(1),)}))]


def test_announcements_are_gathered_for_50_ms() -> None:
    machine = opened(1)
    machine.committed([committed(10, MINE, 7)], 0)
    assert machine.committed([committed(11, MINE, 8)], 30) == []
    assert sent(machine.timer_expired("have", 50)) == [(1, Have({MINE: (tip(8),)}))]
    assert machine.committed([committed(12, MINE, 9)], 60) == [SetTimer("have", 110)]


def test_an_entry_pushed_during_a_read_that_may_have_gone_past_it_is_read_for() -> None:
    machine = opened(1)
    machine.located(1, {MINE: (4, 5)}, Cursor(8, 8), {})
    machine.next_read(1)
    assert machine.committed([committed(10, THEIRS, 1)], 0) == [Readable(1)]
    effects = machine.read_done(1, Chunk((b"m",), {MINE: 5}, Cursor(8, 20), exhausted=True))
    assert effects == [Send(1, b"m", bulk=True), Readable(1)]
    assert machine.next_read(1) == Read({THEIRS: (1, 1)}, Cursor(8, 9), STREAM_MESSAGE_BYTES, {})


def test_while_a_stream_runs_new_entries_join_it_and_do_not_overtake() -> None:
    machine = opened(1)
    machine.located(1, {MINE: (4, 5)}, Cursor(8, 8), {})
    assert machine.committed([committed(10, MINE, 6)], 0, message=b"run") == [Readable(1)]
    assert machine.next_read(1) == Read({MINE: (4, 6)}, Cursor(8, 8), STREAM_MESSAGE_BYTES, {})


def test_a_stream_that_finds_nothing_more_ends() -> None:
    machine = opened(1)
    machine.located(1, {MINE: (4, 5)}, Cursor(8, 8), {})
    machine.next_read(1)
    assert machine.read_done(1, Chunk((), {}, Cursor(8, 20), exhausted=True)) == []
    assert machine.next_read(1) is None


# --- HAVE and gaps --------------------------------------------------------------------------------------------------------------


def test_a_gap_still_open_after_200_ms_is_asked_for() -> None:
    machine = opened(1)
    assert machine.receive(1, encode_have({THEIRS: (tip(3),)}), 1000) == [SetTimer("gaps", 1200)]
    assert machine.timer_expired("gaps", 1200) == [Compare(1, {THEIRS: (tip(3),)})]
    assert machine.timer_expired("gaps", 1400) == []


def test_a_gap_that_closed_is_not_asked_for() -> None:
    machine = opened(1)
    machine.receive(1, encode_have({THEIRS: (tip(3),)}), 1000)
    machine.committed([committed(10, THEIRS, 3)], 1100, origin=1)
    assert machine.timer_expired("gaps", 1200) == []


def test_a_younger_gap_waits_its_own_200_ms() -> None:
    machine = opened(1)
    machine.receive(1, encode_have({THEIRS: (tip(3),)}), 1000)
    machine.receive(1, encode_have({CONTROL: (tip(1),)}), 1150)
    assert machine.timer_expired("gaps", 1200) == [Compare(1, {THEIRS: (tip(3),)}), SetTimer("gaps", 1400)]


def test_a_have_that_is_behind_is_no_gap() -> None:
    assert opened(1).receive(1, encode_have({MINE: (tip(4),)}), 0) == []


def test_of_several_tips_a_low_one_is_a_gap_too() -> None:
    machine = opened(1)
    assert machine.receive(1, encode_have({MINE: (tip(3, "b"), tip(5))}), 0) == [SetTimer("gaps", 200)]
    assert machine.timer_expired("gaps", 200) == [Compare(1, {MINE: (tip(3, "b"),)})]


def test_a_gap_dies_with_the_session_that_told_of_it() -> None:
    machine = opened(1)
    machine.receive(1, encode_have({THEIRS: (tip(3),)}), 0)
    machine.session_closed(1, 10)
    assert machine.timer_expired("gaps", 200) == []


def test_becoming_equal_is_told_once_each_time() -> None:
    machine = opened(1)
    machine.committed([committed(10, MINE, 6)], 0, message=b"run")
    assert not machine.is_equal(1)
    assert machine.receive(1, encode_have({MINE: (tip(6),)}), 40) == [BecameEqual(1)]
    assert machine.receive(1, encode_have({MINE: (tip(6),)}), 41) == []
    machine.committed([committed(11, MINE, 7)], 50, message=b"run")
    assert machine.receive(1, encode_have({MINE: (tip(7),)}), 90) == [BecameEqual(1)]


def test_who_sends_an_entry_holds_it() -> None:
    machine = opened(1)
    machine.committed([committed(10, THEIRS, 1)], 0, origin=1)
    assert machine.ingested(1, Ingested({THEIRS: tip(1)}), 1) == [BecameEqual(1)]
    assert machine.durable_vector(1) == {MINE: (tip(5),), THEIRS: (tip(1),)}


def test_duplicates_are_harmless() -> None:
    machine = opened(1)
    for _ in range(2):
        assert machine.receive(1, encode_runs([]), 0) == [Ingest(1, Runs(0, canonical.encode([])))]
        assert machine.ingested(1, Ingested({MINE: tip(5)}), 0) == []
    assert machine.is_equal(1)


# --- Parking --------------------------------------------------------------------------------------------------------------------


def parked(size: int, *missing: bytes) -> Parked:
    return Parked(Runs(0, bytes(size)), frozenset(missing))


def test_a_parked_run_is_tried_again_when_something_it_lacks_is_here() -> None:
    machine = opened(1)
    waiting = parked(10, tip(1)[1], tip(2)[1])
    assert machine.ingested(1, Ingested({}, (waiting,)), 0) == [SetTimer("gaps", 200)]
    assert Ingest(1, waiting.packed) in machine.committed([committed(10, THEIRS, 1)], 5, origin=1)
    assert Ingest(1, waiting.packed) not in machine.committed([committed(11, THEIRS, 2)], 6, origin=1)


def test_what_a_parked_run_lacks_is_asked_for_after_200_ms() -> None:
    machine = opened(1)
    machine.ingested(1, Ingested({}, (parked(10, b"z" * 32, b"a" * 32),)), 0)
    effects = machine.timer_expired("gaps", 200)
    assert sent(effects) == [(1, Ask((b"a" * 32, b"z" * 32)))]
    assert effects[-1] == SetTimer("gaps", 400)


def test_while_a_want_is_under_way_nothing_parked_is_asked_for() -> None:
    machine = asked_of_the_first()
    machine.ingested(1, Ingested({}, (parked(10, b"z" * 32),)), 0)
    assert sent(machine.timer_expired("gaps", 200)) == []


def test_an_ask_is_looked_up_and_answered_by_have_or_not_at_all() -> None:
    machine = opened(1)
    assert machine.receive(1, encode_ask([b"a" * 32]), 0) == [LookUp(1, (b"a" * 32,))]
    assert sent(machine.looked_up(1, START)) == [(1, Have(START))]
    assert machine.looked_up(1, {}) == []


def test_so_many_runs_are_parked_and_no_more() -> None:
    lot = ParkingLot()
    machine = Replication(START)
    machine.session_opened(1, lot, START, 0)
    machine.ingested(1, Ingested({}, tuple(parked(1, b"z" * 32) for _ in range(PARKED_RUNS_MAX + 5))), 0)
    assert lot.bytes_parked == PARKED_RUNS_MAX


def test_all_sessions_of_a_link_park_so_many_bytes_and_no_more() -> None:
    lot = ParkingLot()
    one, other = Replication(START), Replication(START)
    one.session_opened(1, lot, START, 0)
    other.session_opened(2, lot, START, 0)
    one.ingested(1, Ingested({}, (parked(PARKED_BYTES_MAX - 10, b"z" * 32),)), 0)
    other.ingested(2, Ingested({}, (parked(11, b"z" * 32),)), 0)
    assert lot.bytes_parked == PARKED_BYTES_MAX - 10
    other.ingested(2, Ingested({}, (parked(10, b"z" * 32),)), 0)
    assert lot.bytes_parked == PARKED_BYTES_MAX
    one.session_closed(1, 0)
    assert lot.bytes_parked == 10


# --- Forks, and entries that cease to count -------------------------------------------------------------------------------------


FORKED: Vector = {MINE: (tip(4, "b"), tip(5))}


def test_two_branches_never_look_equal_to_one() -> None:
    machine = Replication(FORKED)
    machine.session_opened(1, ParkingLot(), None, 0)
    (part,) = encode_vector_parts(START)
    assert machine.receive(1, part, 0) == [Compare(1, START)]
    assert not machine.is_equal(1)
    (part,) = encode_vector_parts(FORKED)
    assert machine.receive(1, part, 0) == [Compare(1, FORKED), BecameEqual(1)]


def test_of_a_forked_log_all_tips_are_announced_even_to_whom_an_entry_was_pushed() -> None:
    machine = opened(1)
    effects = machine.committed([committed(10, MINE, 6)], 0, message=b"run", vector={MINE: (tip(4, "b"), tip(6))})
    assert effects == [Send(1, b"run"), SetTimer("have", 50)]
    assert sent(machine.timer_expired("have", 50)) == [(1, Have({MINE: (tip(4, "b"), tip(6))}))]


def test_two_machines_exchange_their_branches() -> None:
    one, other = Replication({MINE: (tip(5),)}), Replication({MINE: (tip(4, "b"),)})
    (hello,) = sent(one.session_opened(1, ParkingLot(), None, 0))
    (answer,) = sent(other.session_opened(1, ParkingLot(), None, 0))
    assert other.receive(1, encode_vector_parts(hello[1].vector)[0], 0) == [Compare(1, {MINE: (tip(5),)})]  # type: ignore[union-attr]
    assert one.receive(1, encode_vector_parts(answer[1].vector)[0], 0) == [Compare(1, {MINE: (tip(4, "b"),)})]  # type: ignore[union-attr]
    assert sent(one.compared(1, Comparison((want_item(MINE, 4, "b"),)), 0)) == [(1, Want((want_item(MINE, 4, "b"),)))]
    assert sent(other.compared(1, Comparison((want_item(MINE, 5),)), 0)) == [(1, Want((want_item(MINE, 5),)))]
    one.committed([committed(10, MINE, 4, branch="b")], 1, origin=1, vector={MINE: (tip(4, "b"), tip(5))})
    other.committed([committed(10, MINE, 5)], 1, origin=1, vector={MINE: (tip(4, "b"), tip(5))})
    for _, have in sent(one.timer_expired("have", 51)):
        assert isinstance(have, Have)
        assert other.receive(1, encode_have(have.vector), 60) == [BecameEqual(1)]


def test_a_log_that_shrank_is_announced_and_one_of_which_nothing_is_left_by_the_whole_vector() -> None:
    machine = opened(1, own={MINE: (tip(5),), THEIRS: (tip(3),)}, at={MINE: (tip(5),), THEIRS: (tip(3),)})
    assert machine.committed([], 0, vector={MINE: (tip(5),), THEIRS: (tip(2),)}) == [SetTimer("have", 50)]
    assert sent(machine.timer_expired("have", 50)) == [(1, Have({THEIRS: (tip(2),)}))]
    machine.committed([], 100, vector={MINE: (tip(5),)})
    assert sent(machine.timer_expired("have", 150)) == [(1, VectorPart({MINE: (tip(5),)}, more=False))]


def test_a_vector_in_the_middle_of_a_session_replaces_what_was_known() -> None:
    machine = opened(1, own={MINE: (tip(5),)}, at=None)
    machine.receive(1, encode_have({MINE: (tip(5),), THEIRS: (tip(3),)}), 0)
    (part,) = encode_vector_parts(START)
    assert machine.receive(1, part, 10) == [Compare(1, START), BecameEqual(1)]


# --- Ends and faults ------------------------------------------------------------------------------------------------------------


def test_after_its_end_a_session_brings_and_gets_nothing() -> None:
    machine = opened(1)
    machine.session_closed(1, 0)
    assert machine.session_closed(1, 0) == []
    assert machine.compared(1, Comparison((want_item(THEIRS, 3),)), 0) == []
    assert machine.located(1, {MINE: (1, 5)}, Cursor(0, 0), {}) == []
    assert machine.ingested(1, Ingested({}, (parked(1, b"z" * 32),)), 0) == []
    assert machine.looked_up(1, START) == []
    assert machine.read_done(1, Chunk((), {}, Cursor(0, 0), exhausted=True)) == []
    assert machine.next_read(1) is None
    assert machine.committed([committed(10, MINE, 6)], 0, message=b"run") == []


def test_a_block_is_handed_to_the_store() -> None:
    block = Block(b"b" * 32, 3, b"\x00data")
    assert opened(1).receive(1, encode_block(block), 0) == [Ingest(1, block)]


@pytest.mark.parametrize("data", [b"", b"\xc0", canonical.encode([]), canonical.encode([9, 1]), canonical.encode([5, 1])])
def test_what_is_no_message_closes_the_session(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        opened(1).receive(1, data, 0)
    assert refused.value.close_code is CloseCode.MALFORMED


def test_a_timer_that_was_never_set_is_a_fault_of_ours() -> None:
    with pytest.raises(LocalProtocolError):
        opened(1).timer_expired("tea", 0)
