"""The replication machine: how sessions open, what is told of new entries, forks, ends. Literal in, literal out."""

from __future__ import annotations

import pytest

from peersd_protocol import canonical
from peersd_protocol.constants import (
    BLOCKS_PER_BODY_MAX,
    BRANCHES_MAX,
    MESSAGE_BYTES_MAX,
    SEQ_MAX,
    STAGED_BODIES_MAX,
    VECTOR_LOGS_MAX,
    VECTOR_TIPS_MAX,
    WANT_SAMPLES_MAX,
)
from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.messages import (
    Block,
    Have,
    VectorPart,
    Want,
    WantItem,
    decode_message,
    encode_ask,
    encode_block,
    encode_have,
    encode_runs,
    encode_vector_parts,
    encode_wants,
)
from peersd_protocol.replication import (
    BecameEqual,
    Chunk,
    Compare,
    Comparison,
    Cursor,
    Due,
    Ingest,
    Ingested,
    ParkingLot,
    Replication,
    Send,
    SetTimer,
)
from peersd_protocol.vectors import Vector, vector_value
from tests.protocol.replication_steps import (
    CONTROL,
    MINE,
    START,
    THEIRS,
    committed,
    have,
    lacks,
    opened,
    parked,
    said,
    sent,
    tip,
    want_item,
)

# --- Opening --------------------------------------------------------------------------------------------------------------------


def test_with_equal_digests_nothing_is_sent_and_nothing_asked() -> None:
    assert Replication(START).session_opened(1, ParkingLot(), START, 0, is_told=True) == [BecameEqual(1)]


def test_with_different_digests_the_vector_is_sent() -> None:
    machine = Replication(START)
    assert machine.session_opened(1, ParkingLot(), None, 0, is_told=True) == [Due(1)]
    assert machine.take_due(1) == encode_vector_parts(START)
    assert machine.take_due(1) == []
    assert not machine.is_equal(1)


def test_an_empty_replica_sends_an_empty_vector() -> None:
    machine = Replication({})
    assert said(machine, machine.session_opened(1, ParkingLot(), None, 0, is_told=True)) == [(1, VectorPart({}, more=False))]


def test_what_was_committed_between_digest_and_accept_is_announced() -> None:
    machine = Replication({MINE: (tip(6),)})
    assert said(machine, machine.session_opened(1, ParkingLot(), START, 0, is_told=True)) == [(1, Have({MINE: (tip(6),)}))]


def test_a_log_of_which_nothing_is_left_since_the_digest_was_made_is_announced_by_the_whole_vector() -> None:
    machine = Replication({**START, THEIRS: (tip(1),)})
    machine.committed([committed(1, CONTROL, 1)], 0, vector={**START, CONTROL: (tip(1),)})
    due = machine.session_opened(1, ParkingLot(), {**START, THEIRS: (tip(1),)}, 0, is_told=True)
    assert said(machine, due) == [(1, VectorPart({**START, CONTROL: (tip(1),)}, more=False))]


def test_who_may_not_be_told_what_is_held_is_asked_and_told_nothing() -> None:
    machine = Replication({MINE: (tip(6),)})
    assert machine.session_opened(1, ParkingLot(), START, 0, is_told=False) == []
    effects = machine.receive(1, encode_vector_parts({THEIRS: (tip(2),)})[0], 0)
    assert effects == [Compare(1, {THEIRS: (tip(2),)})]
    assert said(machine, machine.compared(1, lacks(want_item(THEIRS, 2)), 0)) == [(1, Want((want_item(THEIRS, 2),)))]
    assert machine.receive(1, encode_wants([want_item(MINE, 6)], ())[0], 0) == []
    assert machine.receive(1, encode_ask([b"h" * 32]), 0) == []
    assert machine.committed([committed(10, MINE, 7)], 0, message=b"run") == []
    assert machine.take_due(1) == []


def test_who_may_not_be_told_what_is_held_is_not_told_that_what_it_brought_was_here() -> None:
    machine = Replication({MINE: (tip(6),)})
    machine.session_opened(1, ParkingLot(), None, 0, is_told=False)
    machine.committed([committed(10, MINE, 7)], 0)
    assert machine.ingested(1, Ingested({MINE: tip(7)}), 0) == []


def test_who_may_be_told_from_now_on_is_sent_the_vector_and_pushed_to() -> None:
    machine = Replication({MINE: (tip(6),)})
    machine.session_opened(1, ParkingLot(), None, 0, is_told=False)
    assert said(machine, machine.tell(1)) == [(1, VectorPart({MINE: (tip(6),)}, more=False))]
    assert machine.tell(1) == machine.tell(2) == []
    machine.receive(1, encode_vector_parts({MINE: (tip(6),)})[0], 0)
    assert sent(machine.committed([committed(10, MINE, 7)], 0, message=b"run")) == [(1, b"run")]


def test_who_may_be_told_from_now_on_counts_as_equal_at_once_where_it_holds_the_same() -> None:
    machine = Replication({MINE: (tip(6),)})
    machine.session_opened(1, ParkingLot(), None, 0, is_told=False)
    assert BecameEqual(1) not in machine.receive(1, encode_vector_parts({MINE: (tip(6),)})[0], 0)
    assert not machine.is_equal(1)
    assert machine.tell(1) == [Due(1), BecameEqual(1)]


def test_a_session_number_is_used_once() -> None:
    with pytest.raises(LocalProtocolError):
        opened(1).session_opened(1, ParkingLot(), None, 0, is_told=True)


def test_a_vector_in_parts_is_compared_once_it_is_whole() -> None:
    machine = opened(1)
    first, last = encode_vector_parts({MINE: (tip(5),), THEIRS: (tip(2),)}, logs_per_part=1)
    assert machine.receive(1, first, 0) == []
    assert machine.receive(1, last, 0) == [Compare(1, {MINE: (tip(5),), THEIRS: (tip(2),)})]
    assert machine.durable_vector(1) == {MINE: (tip(5),), THEIRS: (tip(2),)}


def small_logs(part: int) -> Vector:
    """An eighth of the logs that a vector may name."""
    numbers = range(VECTOR_LOGS_MAX // 8)
    return {LogKey(Kind.DATA, b"", number.to_bytes(32, "big"), part.to_bytes(16, "big")): (tip(1),) for number in numbers}


def test_a_vector_of_more_logs_than_the_bound_is_refused() -> None:
    machine = opened(1)
    for part in range(9):
        message = canonical.encode([1, True, vector_value(small_logs(part))])
        if part < 8:
            assert machine.receive(1, message, 0) == []
        else:
            with pytest.raises(RemoteProtocolError) as refused:
                machine.receive(1, message, 0)
            assert refused.value.close_code is CloseCode.TOO_LARGE


def test_a_vector_of_more_tips_than_the_bound_is_refused_whatever_message_names_them() -> None:
    """Eight tips of each log that there may be took 60 MiB."""
    tips = tuple((seq, bytes([seq]) * 32) for seq in range(1, 9))
    logs = [LogKey(Kind.DATA, b"", number.to_bytes(32, "big"), bytes(16)) for number in range(VECTOR_TIPS_MAX // 8 + 1)]
    vectors: list[Vector] = [dict.fromkeys(part, tips) for part in (logs[:2040], logs[2040:4080], logs[4080:])]
    for kind in ("vector", "have"):
        machine = opened(1)
        encoded = [
            canonical.encode([1, True, vector_value(one)] if kind == "vector" else [5, vector_value(one)]) for one in vectors
        ]
        machine.receive(1, encoded[0], 0)
        machine.receive(1, encoded[1], 0)
        with pytest.raises(RemoteProtocolError) as refused:
            machine.receive(1, encoded[2], 0)
        assert refused.value.close_code is CloseCode.TOO_LARGE


# --- What is told of new entries ------------------------------------------------------------------------------------------------


def test_an_entry_that_rests_on_what_the_other_side_lacks_is_announced() -> None:
    machine = opened(1)
    assert machine.committed([committed(10, MINE, 6, (THEIRS, 1))], 0, message=b"run") == [SetTimer("have", 50)]
    assert said(machine, machine.timer_expired("have", 50)) == [(1, Have({MINE: (tip(6),)}))]


def test_an_entry_after_one_that_the_other_side_lacks_is_announced() -> None:
    machine = opened(1)
    assert machine.committed([committed(10, MINE, 7)], 0, message=b"run") == [SetTimer("have", 50)]


def test_who_sent_an_entry_is_told_that_it_is_durable_and_others_get_it() -> None:
    machine = opened(1, 2)
    assert machine.committed([committed(10, THEIRS, 1)], 0, origin=1, message=b"run") == [SetTimer("have", 50), Send(2, b"run")]
    assert said(machine, machine.timer_expired("have", 50)) == [(1, Have({THEIRS: (tip(1),)}))]


def test_who_has_an_entry_already_is_told_that_this_side_has_it_too() -> None:
    machine = opened(1, 2)
    machine.receive(2, have(THEIRS, tip(1)), 0)
    assert sent(machine.committed([committed(10, THEIRS, 1)], 0, origin=1, message=b"run")) == []
    told = said(machine, machine.timer_expired("have", 50))
    assert told == [(1, Have({THEIRS: (tip(1),)})), (2, Have({THEIRS: (tip(1),)}))]


def test_announcements_are_gathered_for_50_ms() -> None:
    machine = opened(1)
    machine.committed([committed(10, MINE, 7)], 0)
    assert machine.committed([committed(11, MINE, 8)], 30) == []
    assert said(machine, machine.timer_expired("have", 50)) == [(1, Have({MINE: (tip(8),)}))]
    assert machine.committed([committed(12, MINE, 9)], 60) == [SetTimer("have", 110)]


def test_a_channel_that_takes_nothing_is_owed_one_have_however_long_that_lasts() -> None:
    machine = opened(1)
    for seq in range(7, 1007):
        machine.committed([committed(seq, MINE, seq)], 50 * seq)
        assert machine.timer_expired("have", 50 * seq + 50) == [Due(1)]
    assert [decode_message(message) for message in machine.take_due(1)] == [Have({MINE: (tip(1006),)})]
    assert machine.take_due(1) == []


def great_logs(count: int) -> list[LogKey]:
    """Logs whose names take as many bytes as any can."""
    return [LogKey(Kind.IDENTITY, b"\xff" * 32, number.to_bytes(32, "big"), b"e" * 16) for number in range(count)]


def test_announcements_beyond_one_message_are_several() -> None:
    tips = tuple((SEQ_MAX - BRANCHES_MAX + branch, bytes([branch]) * 32) for branch in range(BRANCHES_MAX))
    machine = opened(1, at={}, own={})
    machine.committed([], 0, vector=dict.fromkeys(great_logs(5000), tips))
    messages = machine.take_due(1)
    assert MESSAGE_BYTES_MAX * 3 // 4 < max(map(len, messages)) <= MESSAGE_BYTES_MAX
    told = [decode_message(message) for message in messages]
    assert [len(message.vector) for message in told if isinstance(message, Have)] == [2048, 2048, 904]


def test_wants_beyond_one_message_are_several() -> None:
    samples = tuple((SEQ_MAX - number, b"s" * 32) for number in range(WANT_SAMPLES_MAX))
    items = [WantItem(log, (SEQ_MAX, b"t" * 32), samples) for log in great_logs(1000)]
    machine = opened(1)
    machine.compared(1, Comparison(tuple(items), ((b"b" * 32, BLOCKS_PER_BODY_MAX),) * STAGED_BODIES_MAX), 0)
    messages = machine.take_due(1)
    assert MESSAGE_BYTES_MAX * 9 // 10 < max(map(len, messages)) <= MESSAGE_BYTES_MAX
    asked = [item for message in map(decode_message, messages) if isinstance(message, Want) for item in message.items]
    assert asked == items


def test_becoming_equal_is_told_once_each_time() -> None:
    machine = opened(1)
    machine.committed([committed(10, MINE, 6)], 0, message=b"run")
    assert not machine.is_equal(1)
    assert machine.receive(1, have(MINE, tip(6)), 40) == [BecameEqual(1)]
    assert machine.receive(1, have(MINE, tip(6)), 41) == []
    machine.committed([committed(11, MINE, 7)], 50, message=b"run")
    assert machine.receive(1, have(MINE, tip(7)), 90) == [BecameEqual(1)]


def test_who_sends_an_entry_holds_it() -> None:
    machine = opened(1)
    machine.committed([committed(10, THEIRS, 1)], 0, origin=1)
    assert machine.ingested(1, Ingested({THEIRS: tip(1)}), 1) == [BecameEqual(1)]
    assert machine.durable_vector(1) == {MINE: (tip(5),), THEIRS: (tip(1),)}


# --- Forks, and entries that cease to count -------------------------------------------------------------------------------------


FORKED: Vector = {MINE: (tip(4, "b"), tip(5))}


def test_two_branches_never_look_equal_to_one() -> None:
    machine = Replication(FORKED)
    machine.session_opened(1, ParkingLot(), None, 0, is_told=True)
    (part,) = encode_vector_parts(START)
    assert machine.receive(1, part, 0) == [Compare(1, START)]
    assert not machine.is_equal(1)
    (part,) = encode_vector_parts(FORKED)
    assert machine.receive(1, part, 0) == [Compare(1, FORKED), BecameEqual(1)]


def test_of_a_forked_log_all_tips_are_announced_even_to_whom_an_entry_was_pushed() -> None:
    machine = opened(1)
    effects = machine.committed([committed(10, MINE, 6)], 0, message=b"run", vector={MINE: (tip(4, "b"), tip(6))})
    assert effects == [Send(1, b"run"), SetTimer("have", 50)]
    assert said(machine, machine.timer_expired("have", 50)) == [(1, Have({MINE: (tip(4, "b"), tip(6))}))]


def test_two_machines_exchange_their_branches() -> None:
    one, other = Replication({MINE: (tip(5),)}), Replication({MINE: (tip(4, "b"),)})
    one.session_opened(1, ParkingLot(), None, 0, is_told=True)
    other.session_opened(1, ParkingLot(), None, 0, is_told=True)
    (hello,), (answer,) = one.take_due(1), other.take_due(1)
    assert other.receive(1, hello, 0) == [Compare(1, {MINE: (tip(5),)})]
    assert one.receive(1, answer, 0) == [Compare(1, {MINE: (tip(4, "b"),)})]
    item, answered = want_item(MINE, 4, "b"), want_item(MINE, 5)
    assert said(one, one.compared(1, lacks(item), 0)) == [(1, Want((item,)))]
    assert said(other, other.compared(1, lacks(answered), 0)) == [(1, Want((answered,)))]
    one.committed([committed(10, MINE, 4, branch="b")], 1, origin=1, vector={MINE: (tip(4, "b"), tip(5))})
    other.committed([committed(10, MINE, 5)], 1, origin=1, vector={MINE: (tip(4, "b"), tip(5))})
    assert one.timer_expired("have", 51) == [Due(1)]
    (told,) = one.take_due(1)
    assert other.receive(1, told, 60) == [BecameEqual(1)]


def test_a_log_that_shrank_is_announced_and_one_of_which_nothing_is_left_by_the_whole_vector() -> None:
    machine = opened(1, own={MINE: (tip(5),), THEIRS: (tip(3),)}, at={MINE: (tip(5),), THEIRS: (tip(3),)})
    shrunk: Vector = {MINE: (tip(5),), THEIRS: (tip(2),)}
    assert machine.committed([], 0, vector=shrunk) == [SetTimer("have", 50), SetTimer("gaps", 200)]
    assert said(machine, machine.timer_expired("have", 50)) == [(1, Have({THEIRS: (tip(2),)}))]
    machine.committed([], 100, vector={MINE: (tip(5),)})
    assert said(machine, machine.timer_expired("have", 150)) == [(1, VectorPart({MINE: (tip(5),)}, more=False))]


def test_a_vector_in_the_middle_of_a_session_replaces_what_was_known() -> None:
    machine = opened(1, own={MINE: (tip(5),)}, at=None)
    machine.receive(1, have(MINE, tip(5)), 0)
    machine.receive(1, have(THEIRS, tip(3)), 0)
    (part,) = encode_vector_parts(START)
    assert machine.receive(1, part, 10) == [Compare(1, START), BecameEqual(1)]


# --- Ends and faults ------------------------------------------------------------------------------------------------------------


def test_after_its_end_a_session_brings_and_gets_nothing() -> None:
    machine = opened(1)
    machine.session_closed(1, 0)
    assert machine.session_closed(1, 0) == []
    assert machine.receive(1, have(THEIRS, tip(3)), 0) == []
    assert machine.compared(1, lacks(want_item(THEIRS, 3)), 0) == []
    assert machine.located(1, {MINE: (1, 5)}, Cursor(0, 0), {}) == []
    assert machine.ingested(1, Ingested({}, (parked(1, b"z" * 32),)), 0) == []
    assert machine.looked_up(1, START) == []
    assert machine.take_due(1) == []
    assert machine.read_done(1, Chunk((), {}, Cursor(0, 0), exhausted=True)) == []
    assert machine.next_read(1) is None
    assert machine.committed([committed(10, MINE, 6)], 0, origin=1, message=b"run") == []


def test_a_block_is_handed_to_the_store() -> None:
    block = Block(b"b" * 32, 3, b"\x00data")
    assert opened(1).receive(1, encode_block(block), 0) == [Ingest(1, block)]


def test_runs_are_handed_to_the_store_unread() -> None:
    (effect,) = opened(1).receive(1, encode_runs([]), 0)
    assert isinstance(effect, Ingest)


@pytest.mark.parametrize("data", [b"", b"\xc0", canonical.encode([]), canonical.encode([99, 1]), canonical.encode([5, 1])])
def test_what_is_no_message_closes_the_session(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        opened(1).receive(1, data, 0)
    assert refused.value.close_code is CloseCode.MALFORMED


def test_a_have_that_names_more_logs_than_the_bound_in_sum_closes_the_session() -> None:
    machine = opened(1, at={})
    for part in range(8):
        machine.receive(1, encode_have(small_logs(part)), 0)
    with pytest.raises(RemoteProtocolError) as refused:
        machine.receive(1, have(CONTROL, tip(1)), 0)
    assert refused.value.close_code is CloseCode.TOO_LARGE


def test_a_timer_that_was_never_set_is_a_fault_of_ours() -> None:
    with pytest.raises(LocalProtocolError):
        opened(1).timer_expired("tea", 0)
