"""What the replication machine has read from the store for a session: answers to WANTs, and new entries that join them."""

from __future__ import annotations

from peersd_protocol.constants import STREAM_MESSAGE_BYTES
from peersd_protocol.messages import Want, encode_want
from peersd_protocol.replication import Chunk, Cursor, Locate, Read, Readable, Send
from tests.protocol.replication_steps import MINE, THEIRS, committed, opened, sent, tip, want_item


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


def test_a_want_is_answered_up_to_what_is_here_by_then_and_what_comes_next_is_pushed() -> None:
    """Who asks was behind: stopping at the tip that it named would leave it behind for as long as others write."""
    machine = opened(1, at={})
    machine.committed([committed(11, MINE, 6), committed(12, MINE, 7)], 0)
    machine.located(1, {MINE: (1, 5)}, Cursor(0, 0), {})
    machine.committed([committed(13, MINE, 8)], 0, message=b"run")
    assert machine.next_read(1) == Read({MINE: (1, 8)}, Cursor(0, 0), STREAM_MESSAGE_BYTES, {})


def test_a_want_located_during_a_read_is_answered_up_to_what_is_here_at_its_end() -> None:
    machine = opened(1, at={})
    machine.located(1, {MINE: (4, 4)}, Cursor(8, 8), {})
    machine.next_read(1)
    machine.located(1, {MINE: (1, 4)}, Cursor(0, 0), {})
    machine.committed([committed(11, MINE, 6)], 0)
    machine.read_done(1, Chunk((), {MINE: 5}, Cursor(8, 10), exhausted=True))
    assert machine.next_read(1) == Read({MINE: (1, 6)}, Cursor(0, 0), STREAM_MESSAGE_BYTES, {})


def test_of_a_forked_log_a_want_is_answered_up_to_the_tip_it_names() -> None:
    """The other branches are asked for by their own tips."""
    machine = opened(1, at={}, own={MINE: (tip(4, "b"), tip(9))})
    machine.located(1, {MINE: (1, 4)}, Cursor(0, 0), {})
    assert machine.next_read(1) == Read({MINE: (1, 4)}, Cursor(0, 0), STREAM_MESSAGE_BYTES, {})


def test_a_stream_taken_back_begins_a_detached_body_anew() -> None:
    within = Cursor(4, 8, b"b" * 32, 3)
    assert within.rewound(Cursor(4, 8)) is within
    assert within.rewound(Cursor(9, 9)) is within
    assert within.rewound(Cursor(9, 7)) == Cursor(4, 7)
    assert within.rewound(Cursor(3, 9)) == Cursor(3, 8)


def test_without_a_message_at_hand_a_new_entry_is_streamed() -> None:
    machine = opened(1)
    assert machine.committed([committed(10, MINE, 6)], 0) == [Readable(1)]
    assert machine.next_read(1) == Read({MINE: (6, 6)}, Cursor(9, 9), STREAM_MESSAGE_BYTES, {})


def test_to_a_channel_that_is_congested_new_entries_are_streamed_as_it_goes_on() -> None:
    machine = opened(1, 2)
    effects = machine.committed([committed(10, MINE, 6)], 0, message=b"run", congested={2})
    assert effects == [Send(1, b"run"), Readable(2)]
    assert sent(machine.committed([committed(11, MINE, 7)], 0, message=b"more", congested={2})) == [(1, b"more")]
    assert machine.next_read(2) == Read({MINE: (6, 7)}, Cursor(9, 9), STREAM_MESSAGE_BYTES, {})


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


def test_what_nobody_is_told_of_is_read_for_who_asks_after_it_and_the_stream_goes_on_where_it_stood() -> None:
    machine = opened(1)
    machine.located(1, {MINE: (2, 5)}, Cursor(7, 7), {})
    machine.next_read(1)
    machine.read_done(1, Chunk((b"one",), {MINE: 3}, Cursor(7, 9), exhausted=False))
    untold = (b"a" * 32, b"b" * 32)
    assert machine.looked_up(1, {}, untold) == [Readable(1)]
    read = machine.next_read(1)
    assert read is not None and (read.untold, read.ranges) == (untold, {})
    assert machine.next_read(1) is None  # one read at a time
    assert machine.read_done(1, Chunk((b"aside",), {}, read.cursor, exhausted=False)) == [
        Send(1, b"aside", bulk=True),
        Readable(1),
    ]
    assert machine.next_read(1) == Read({MINE: (2, 5)}, Cursor(7, 9), STREAM_MESSAGE_BYTES, {})


def test_what_nobody_is_told_of_waits_for_the_end_of_a_body_and_is_bounded_by_one_ask() -> None:
    machine = opened(1)
    machine.located(1, {MINE: (2, 5)}, Cursor(7, 7), {})
    machine.next_read(1)
    machine.read_done(1, Chunk((b"run",), {}, Cursor(7, 9, b"b" * 32, 1), exhausted=False))
    for name in (b"a" * 32, b"c" * 32):
        machine.looked_up(1, {}, (name,))
    read = machine.next_read(1)
    assert read is not None and read.cursor.body and not read.untold
    machine.read_done(1, Chunk((b"block",), {MINE: 5}, Cursor(7, 10), exhausted=True))
    read = machine.next_read(1)
    assert read is not None and read.untold == (b"c" * 32,)
    assert machine.read_done(1, Chunk((), {}, read.cursor, exhausted=False)) == []
    assert machine.next_read(1) is None
