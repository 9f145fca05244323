from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peersd_protocol.constants import (
    CHANNELS_MAX,
    CLOSE_ANSWER_MS,
    CONTROL_QUEUE_BYTES_MAX,
    CREDIT_FIRST_BYTES,
    CREDIT_WINDOW_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    MESSAGE_COST_BYTES,
    OPENS_BURST,
    OPENS_PER_S,
    POOL_BYTES,
    POOL_WINDOWS_BYTES,
    PROOF_BYTES_MAX,
    SLOW_MESSAGE_SLACK_MS,
)
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.frames import FrameType, decode_frames, encode_number_frame, encode_varint
from peersd_protocol.link_effects import Accepted, ChannelClosed, Effect, MessageReceived, OpenRequested, Refused, Writable
from peersd_protocol.mux import Mux
from peersd_protocol.outgoing import QUEUE_HIGH_BYTES
from tests.protocol.mux_pair import PLAINTEXT_BYTES, MuxPair, feed, frame, take_at_once


def frames_of(mux: Mux) -> list[tuple[str, int, bytes]]:
    """What a multiplexer would send now."""
    plaintext = mux.pull(PLAINTEXT_BYTES, 0)
    frames = decode_frames(plaintext) if plaintext else []
    return [(FrameType(kind).name, number, bytes(payload)) for kind, number, payload in frames]


# --- States ---


def test_a_channel_lives_by_these_frames() -> None:
    dialler, listener = Mux(is_dialler=True, now_ms=0), Mux(is_dialler=False, now_ms=0)
    assert dialler.open_channel(b"hello", proof_follows=False, now_ms=0) == 1
    assert dialler.open_channel(b"again", proof_follows=True, now_ms=0) == 3
    opens = dialler.pull(PLAINTEXT_BYTES, 0)
    assert opens == b"\x01\x01\x05hello" + b"\x02\x03\x05again"
    feed(listener, opens)
    assert listener.effects == [OpenRequested(1, b"hello", False), OpenRequested(3, b"again", True)]
    listener.accept(1, b"yes")
    listener.refuse(3, b"no", 0)
    assert listener.open_channel(b"", proof_follows=False, now_ms=0) == 2
    answers = listener.pull(PLAINTEXT_BYTES, 0)
    assert answers == b"\x03\x01\x03yes" + b"\x04\x03\x02no" + b"\x01\x02\x00"
    feed(dialler, answers)
    assert dialler.effects == [Accepted(1, b"yes"), Refused(3, b"no"), OpenRequested(2, b"", False)]
    dialler.send(1, b"message", bulk=False)
    data = dialler.pull(PLAINTEXT_BYTES, 0)
    assert data == b"\x09\x03\x01\x00" + b"\x06\x01\x08\x07message"
    listener.effects.clear()
    feed(listener, data)
    assert listener.effects == [MessageReceived(1, b"message")]
    listener.close_channel(1, CloseCode.BAD_CHAIN, 0)
    close = listener.pull(PLAINTEXT_BYTES, 0)
    assert close == b"\x09\x01\x01\x0b"
    dialler.effects.clear()
    feed(dialler, close)
    assert dialler.effects == [ChannelClosed(1, CloseCode.BAD_CHAIN)]
    answer = dialler.pull(PLAINTEXT_BYTES, 0)
    assert answer == b"\x09\x01\x01\x00"
    listener.effects.clear()
    feed(listener, answer)
    assert listener.effects == []


CELL_FRAMES = {
    "ACCEPT": frame(FrameType.ACCEPT, 1),
    "REFUSE": frame(FrameType.REFUSE, 1),
    "DATA": frame(FrameType.DATA_END, 1, b"\x01x"),
    "CREDIT": encode_number_frame(FrameType.CREDIT, 1, 5),
    "RETURN": encode_number_frame(FrameType.RETURN, 1, 5),
    "CLOSE": encode_number_frame(FrameType.CLOSE, 1, CloseCode.NORMAL),
    "OPEN": frame(FrameType.OPEN, 1),
}


def in_state(state: str) -> Mux:
    """A multiplexer with channel 1 in a state; `+proof` where its OPEN announced one."""
    name, _, proof = state.partition("+")
    if name == "opening":
        mux = Mux(is_dialler=True, now_ms=0)
        mux.open_channel(b"", proof_follows=bool(proof), now_ms=0)
    elif name == "closing unanswered":
        mux = in_state("opening")
        mux.close_channel(1, CloseCode.NORMAL, 0)
    else:
        mux = Mux(is_dialler=False, now_ms=0)
        if name != "absent":
            feed(mux, frame(FrameType.OPEN_WITH_PROOF if proof else FrameType.OPEN, 1))
        if name in ("open", "closing", "gone"):
            mux.accept(1, b"")
        if name in ("closing", "gone"):
            mux.close_channel(1, CloseCode.NORMAL, 0)
        if name == "gone":
            feed(mux, CELL_FRAMES["CLOSE"])
    mux.effects.clear()
    mux.pull(PLAINTEXT_BYTES, 0)
    return mux


MESSAGE = [MessageReceived(1, b"x")]
CLOSED = [ChannelClosed(1, CloseCode.NORMAL)]
CELLS: dict[tuple[str, str], list[Effect]] = {
    ("opening", "ACCEPT"): [Accepted(1, b"")],
    ("opening", "REFUSE"): [Refused(1, b"")],
    ("opening+proof", "ACCEPT"): [Accepted(1, b"")],
    ("opening+proof", "REFUSE"): [Refused(1, b"")],
    ("opening+proof", "CREDIT"): [],
    ("requested", "CLOSE"): list(CLOSED),
    ("requested+proof", "CLOSE"): list(CLOSED),
    ("requested+proof", "DATA"): list(MESSAGE),
    ("requested+proof", "RETURN"): [],
    ("open", "DATA"): list(MESSAGE),
    ("open", "CREDIT"): [],
    ("open", "RETURN"): [],
    ("open", "CLOSE"): list(CLOSED),
    ("closing", "DATA"): [],
    ("closing", "CREDIT"): [],
    ("closing", "RETURN"): [],
    ("closing", "CLOSE"): [],
    ("closing unanswered", "ACCEPT"): [],
    ("closing unanswered", "REFUSE"): [],
    ("closing unanswered", "CREDIT"): [],
    ("closing unanswered", "RETURN"): [],
    ("closing unanswered", "CLOSE"): [],
    ("absent", "OPEN"): [OpenRequested(1, b"", False)],
}
STATES = ("absent", "opening", "opening+proof", "requested", "requested+proof", "open", "closing", "closing unanswered", "gone")


@pytest.mark.parametrize("frame_name", CELL_FRAMES)
@pytest.mark.parametrize("state", STATES)
def test_every_frame_in_every_state_does_this(state: str, frame_name: str) -> None:
    mux = in_state(state)
    if (state, frame_name) in CELLS:
        feed(mux, CELL_FRAMES[frame_name])
        assert mux.effects == CELLS[state, frame_name]
    else:
        with pytest.raises(RemoteProtocolError) as caught:
            feed(mux, CELL_FRAMES[frame_name])
        assert caught.value.close_code is CloseCode.PROTOCOL


@pytest.mark.parametrize("state", STATES)
def test_commands_out_of_place_are_our_fault(state: str) -> None:
    name = state.partition("+")[0]
    allowed = {"requested": {"accept", "refuse"}, "open": {"send"}}.get(name, set())
    if state == "opening+proof":
        allowed = {"send"}
    for command in {"accept", "refuse", "send"} - allowed:
        mux = in_state(state)
        with pytest.raises(LocalProtocolError):
            {
                "accept": lambda mux=mux: mux.accept(1, b""),
                "refuse": lambda mux=mux: mux.refuse(1, b"", 0),
                "send": lambda mux=mux: mux.send(1, b"x", bulk=False),
            }[command]()


@pytest.mark.parametrize("state", ["absent", "closing", "closing unanswered", "gone"])
def test_on_a_channel_that_is_gone_the_application_may_still_say_what_it_was_about_to(state: str) -> None:
    mux = in_state(state)
    mux.want(1, wanted=True)
    mux.consumed(1, 5)
    mux.close_channel(1, CloseCode.NORMAL, 0)
    assert mux.flush(1)
    assert frames_of(mux) == []


@pytest.mark.parametrize("number", [0 + 2, 3, 2**40 + 1])
def test_an_open_must_take_the_next_number_of_its_side(number: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        feed(Mux(is_dialler=False, now_ms=0), frame(FrameType.OPEN, number))
    assert caught.value.close_code is CloseCode.PROTOCOL


def test_a_number_is_never_used_again() -> None:
    pair = MuxPair()
    number = pair.open()
    pair.dialler.close_channel(number, CloseCode.NORMAL, 0)
    pair.settle()
    assert pair.dialler.open_channel(b"", proof_follows=False, now_ms=0) == number + 2


def test_both_sides_may_close_at_once() -> None:
    pair = MuxPair()
    number = pair.open()
    pair.dialler.close_channel(number, CloseCode.NORMAL, 0)
    pair.listener.close_channel(number, CloseCode.TOO_LARGE, 0)
    assert pair.settle() == []
    assert not pair.dialler.needs_upkeep
    assert not pair.listener.needs_upkeep


def test_an_open_can_be_withdrawn_while_its_accept_is_under_way() -> None:
    pair = MuxPair()
    number = pair.dialler.open_channel(b"", proof_follows=False, now_ms=0)
    pair.settle()
    pair.listener.accept(number, b"")
    pair.listener.send(number, b"x" * 100, bulk=False)
    pair.dialler.close_channel(number, CloseCode.NORMAL, 0)
    assert pair.settle() == [("listener", ChannelClosed(number, CloseCode.NORMAL))]
    assert not pair.dialler.needs_upkeep


# --- Messages and credit ---


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 200_000), st.booleans()), max_size=12))
def test_every_message_arrives_whole_and_in_order_of_its_class(plan: list[tuple[int, int, bool]]) -> None:
    pair = MuxPair()
    numbers = [pair.open() for _ in range(4)]
    for number in numbers:
        pair.listener.want(number, wanted=True)
    sent: dict[tuple[int, bool], list[bytes]] = {}
    received: dict[tuple[int, bool], list[bytes]] = {}

    def take(mux: Mux, effect: Effect) -> None:
        take_at_once(mux, effect)
        if isinstance(effect, MessageReceived):
            received.setdefault((effect.channel, bool(effect.message[0])), []).append(effect.message)

    for index, (which, length_bytes, bulk) in enumerate(plan):
        message = bytes([bulk]) + bytes([index]) * (length_bytes - 1)
        while pair.dialler.is_full(numbers[which]):
            pair.settle(take)
        pair.dialler.send(numbers[which], message, bulk=bulk)
        sent.setdefault((numbers[which], bulk), []).append(message)
    pair.settle(take)
    assert received == sent


def test_without_an_application_that_waits_two_kib_of_a_channel_come_and_no_more() -> None:
    pair = MuxPair()
    number = pair.open()
    pair.dialler.send(number, bytes(100_000), bulk=True)
    pair.settle()
    assert pair.listener.pool_used_bytes == 0
    sent_bytes = 100_000 + MESSAGE_COST_BYTES - pair.dialler.queued_bytes(number)
    assert sent_bytes == CREDIT_FIRST_BYTES
    pair.listener.want(number, wanted=True)
    assert pair.settle() == [("listener", MessageReceived(number, bytes(100_000)))]


def test_a_message_of_1_mib_comes_in_one_grant_and_its_pool_is_freed_when_consumed() -> None:
    pair = MuxPair()
    number = pair.open()
    pair.listener.want(number, wanted=True)
    pair.dialler.send(number, bytes(MESSAGE_BYTES_MAX), bulk=True)
    pair.move_one(pair.dialler, pair.listener)
    [(name, channel, grant), (_, _, window)] = frames_of(pair.listener)
    first_bytes = CREDIT_FIRST_BYTES - MESSAGE_COST_BYTES
    assert (name, channel, grant) == ("CREDIT", number, encode_varint(MESSAGE_BYTES_MAX - first_bytes))
    assert window == encode_varint(CREDIT_WINDOW_BYTES_MAX)
    pool_bytes = MESSAGE_BYTES_MAX + MESSAGE_COST_BYTES + CREDIT_WINDOW_BYTES_MAX - CREDIT_FIRST_BYTES
    assert pair.listener.pool_used_bytes == pool_bytes
    feed(pair.dialler, encode_number_frame(FrameType.CREDIT, number, MESSAGE_BYTES_MAX - first_bytes))
    pair.settle()
    assert pair.listener.pool_used_bytes == pool_bytes
    pair.listener.consumed(number, MESSAGE_BYTES_MAX)
    assert pair.listener.pool_used_bytes == CREDIT_WINDOW_BYTES_MAX - CREDIT_FIRST_BYTES


def test_an_idle_sender_gives_its_credit_back() -> None:
    pair = MuxPair()
    number = pair.open()
    pair.listener.want(number, wanted=True)
    pair.dialler.send(number, bytes(600_000), bulk=True)
    pair.settle(take_at_once)
    assert pair.listener.pool_used_bytes == CREDIT_WINDOW_BYTES_MAX - CREDIT_FIRST_BYTES
    assert pair.dialler.needs_upkeep
    pair.now_ms = 1000
    pair.dialler.upkeep(1000, 1000)
    pair.settle(take_at_once)
    assert pair.listener.pool_used_bytes == 0
    assert not pair.dialler.needs_upkeep
    pair.dialler.send(number, bytes(300_000), bulk=True)
    assert ("listener", MessageReceived(number, bytes(300_000))) in pair.settle(take_at_once)


def test_a_window_doubles_while_it_is_used_up_and_stays_when_it_is_not() -> None:
    pair = MuxPair()
    number = pair.open()
    pair.listener.want(number, wanted=True)
    windows = []
    for _ in range(12):
        while pair.dialler.queued_bytes(number) < 400_000:
            pair.dialler.send(number, bytes(900), bulk=False)
        pair.move_one(pair.dialler, pair.listener)
        for effect in pair.take(pair.listener):
            take_at_once(pair.listener, effect)
        windows.append(pair.listener.pool_used_bytes + CREDIT_FIRST_BYTES)
        pair.move_one(pair.listener, pair.dialler)
    assert windows[0] == 2 * CREDIT_FIRST_BYTES
    assert max(windows) > 30 * CREDIT_FIRST_BYTES
    quiet = pair.open()
    before_bytes = pair.listener.pool_used_bytes
    for _ in range(20):
        pair.listener.want(quiet, wanted=True)
        pair.dialler.send(quiet, bytes(100), bulk=False)
        pair.dialler.upkeep(0, 0)
        pair.settle(take_at_once)
    assert pair.listener.pool_used_bytes - before_bytes < 32 * 1024


def test_short_messages_are_charged_their_cost_and_stop_at_the_first_credit() -> None:
    pair = MuxPair()
    number = pair.open()
    for _ in range(1000):
        pair.dialler.send(number, b"x", bulk=False)
    received = [effect for _, effect in pair.settle() if isinstance(effect, MessageReceived)]
    assert len(received) == CREDIT_FIRST_BYTES // (MESSAGE_COST_BYTES + 1) == 31


@pytest.mark.parametrize(
    ("payloads", "code"),
    [
        ([(FrameType.DATA_END, b"\x02x")], CloseCode.MALFORMED),
        ([(FrameType.DATA, b"\x01x")], CloseCode.MALFORMED),
        ([(FrameType.DATA_END, b"\x00")], CloseCode.MALFORMED),
        ([(FrameType.DATA_END, b"\x81\x00x")], CloseCode.MALFORMED),
        ([(FrameType.DATA, b"\x81")], CloseCode.MALFORMED),
        ([(FrameType.DATA, b"\x03x"), (FrameType.DATA_END, b"x")], CloseCode.MALFORMED),
        ([(FrameType.DATA, b"\x03x"), (FrameType.DATA_END, b"xxx")], CloseCode.MALFORMED),
        ([(FrameType.DATA, b"\x03x"), (FrameType.DATA, b"xx")], CloseCode.MALFORMED),
        ([(FrameType.DATA, encode_varint(MESSAGE_BYTES_MAX + 1) + b"x")], CloseCode.TOO_LARGE),
        ([(FrameType.DATA, encode_varint(5000) + bytes(CREDIT_FIRST_BYTES - MESSAGE_COST_BYTES + 1))], CloseCode.CREDIT),
        ([(FrameType.DATA_END, b"\x01x")] * 32, CloseCode.CREDIT),
        ([(FrameType.RETURN, encode_varint(CREDIT_FIRST_BYTES + 1))], CloseCode.CREDIT),
        ([(FrameType.RETURN, b"\x00")], CloseCode.MALFORMED),
        ([(FrameType.CREDIT, b"\x00")], CloseCode.MALFORMED),
    ],
)
def test_broken_messages_and_credit_close_with_these_codes(payloads: list[tuple[FrameType, bytes]], code: CloseCode) -> None:
    mux = in_state("open")
    for frame_type, payload in payloads[:-1]:
        feed(mux, frame(frame_type, 1, payload))
    with pytest.raises(RemoteProtocolError) as caught:
        feed(mux, frame(*(payloads[-1][0], 1, payloads[-1][1])))
    assert caught.value.close_code is code


def test_a_closing_channel_drops_what_the_remote_side_had_credit_for_and_no_more() -> None:
    mux = in_state("closing")
    feed(mux, frame(FrameType.DATA, 1, bytes(CREDIT_FIRST_BYTES)))
    with pytest.raises(RemoteProtocolError):
        feed(mux, frame(FrameType.DATA, 1, b"x"))


@pytest.mark.parametrize("length_bytes", [0, MESSAGE_BYTES_MAX + 1])
def test_an_empty_or_too_long_message_is_our_fault(length_bytes: int) -> None:
    pair = MuxPair()
    number = pair.open()
    with pytest.raises(LocalProtocolError):
        pair.dialler.send(number, bytes(length_bytes), bulk=False)


def test_consuming_what_never_came_is_our_fault() -> None:
    with pytest.raises(LocalProtocolError):
        in_state("open").consumed(1, 1)


# --- Proofs ---


def test_a_proof_of_256_kib_is_read_before_the_answer_and_one_byte_more_is_too_large() -> None:
    pair = MuxPair()
    number = pair.dialler.open_channel(b"", proof_follows=True, now_ms=0)
    pair.dialler.send(number, bytes(PROOF_BYTES_MAX), bulk=False)
    with pytest.raises(LocalProtocolError):
        pair.dialler.send(number, b"x", bulk=False)
    pair.settle()
    pair.listener.want(number, wanted=True)
    assert pair.settle() == [("listener", MessageReceived(number, bytes(PROOF_BYTES_MAX)))]
    pair.listener.consumed(number, PROOF_BYTES_MAX)
    with pytest.raises(RemoteProtocolError) as caught:
        feed(pair.listener, frame(FrameType.DATA_END, number, b"\x01x"))
    assert caught.value.close_code is CloseCode.TOO_LARGE


def test_before_the_answer_no_more_than_the_first_credit_is_out_beyond_the_open_message() -> None:
    pair = MuxPair()
    number = pair.dialler.open_channel(b"", proof_follows=True, now_ms=0)
    pair.settle()
    for _ in range(20):
        pair.listener.want(number, wanted=True)
        pair.dialler.send(number, bytes(1500), bulk=False)
        pair.settle()
        pair.listener.consumed(number, 1500)
        assert pair.listener.pool_used_bytes == 0


# --- The pool ---


def test_hundreds_of_channels_with_1_mib_messages_progress_while_others_never_consume() -> None:
    pair = MuxPair()
    numbers = [pair.open() for _ in range(300)]
    stalled = set(numbers[::2])
    received: Counter[int] = Counter()
    peak_bytes = 0

    def take(mux: Mux, effect: Effect) -> None:
        nonlocal peak_bytes
        peak_bytes = max(peak_bytes, mux.pool_used_bytes)
        if isinstance(effect, MessageReceived):
            received[effect.channel] += 1
            # A stalled application took its first message off the machine, asks for no other, and what comes stays where it is.
            if effect.channel not in stalled:
                take_at_once(mux, effect)
            elif received[effect.channel] == 1:
                mux.consumed(effect.channel, len(effect.message))

    message = bytes(MESSAGE_BYTES_MAX)
    for _ in range(2):
        for number in numbers:
            if pair.dialler.is_full(number):
                pair.settle(take)
            assert number in stalled or not pair.dialler.is_full(number)
            if not pair.dialler.is_full(number):
                pair.dialler.send(number, message, bulk=True)
        for number in numbers:
            pair.listener.want(number, wanted=number not in stalled or not received[number])
        pair.settle(take)
    assert all(received[number] == 2 for number in numbers if number not in stalled)
    assert all(received[number] >= 1 for number in stalled)
    assert POOL_WINDOWS_BYTES < peak_bytes <= POOL_BYTES
    # With all windows stuck in stalled channels, a small message of yet another channel still comes at once.
    late = pair.open()
    pair.listener.want(late, wanted=True)
    pair.dialler.send(late, bytes(60_000), bulk=False)
    assert ("listener", MessageReceived(late, bytes(60_000))) in pair.settle(take)


def test_channels_that_wait_for_the_pool_are_served_in_their_order() -> None:
    pair = MuxPair()
    numbers = [pair.open() for _ in range(20)]
    for number in numbers:
        pair.listener.want(number, wanted=True)
        feed(pair.listener, frame(FrameType.DATA, number, encode_varint(MESSAGE_BYTES_MAX) + b"x"))
    granted = [channel for name, channel, _ in frames_of(pair.listener) if name == "CREDIT"]
    served = list(dict.fromkeys(granted))
    assert served == numbers[: len(served)]
    assert 7 <= len(served) < 20  # four with their windows, and three without
    # The first in line closes: the next one has its turn, and nobody overtakes.
    feed(pair.listener, encode_number_frame(FrameType.CLOSE, numbers[0], 0))
    feed(pair.listener, encode_number_frame(FrameType.CLOSE, numbers[1], 0))
    more = [channel for name, channel, _ in frames_of(pair.listener) if name == "CREDIT" and channel not in served]
    assert more[0] == numbers[len(served)]


def waiting_for_pool(pair: MuxPair, count: int) -> tuple[list[int], list[int]]:
    """Opens channels with a wanted message of 1 MiB each; returns (those that were granted it, those that wait)."""
    numbers = [pair.open() for _ in range(count)]
    for number in numbers:
        pair.listener.want(number, wanted=True)
        feed(pair.listener, frame(FrameType.DATA, number, encode_varint(MESSAGE_BYTES_MAX) + b"x"))
    granted = {channel for name, channel, _ in frames_of(pair.listener) if name == "CREDIT"}
    return [number for number in numbers if number in granted], [number for number in numbers if number not in granted]


def credited(mux: Mux) -> list[int]:
    return [channel for name, channel, _ in frames_of(mux) if name == "CREDIT"]


def test_a_shorter_message_does_not_overtake_a_longer_one_that_waits() -> None:
    pair = MuxPair()
    waiting_for_pool(pair, 20)
    assert POOL_BYTES - pair.listener.pool_used_bytes > 200_000
    late = pair.open()
    pair.listener.want(late, wanted=True)
    feed(pair.listener, frame(FrameType.DATA, late, encode_varint(100_000) + b"x"))
    assert credited(pair.listener) == []


def test_a_channel_that_closes_or_gives_up_while_it_waits_is_passed_over() -> None:
    pair = MuxPair()
    granted, waiting = waiting_for_pool(pair, 20)
    feed(pair.listener, encode_number_frame(FrameType.CLOSE, waiting[0], 0))
    pair.listener.want(waiting[1], wanted=False)
    feed(pair.listener, encode_number_frame(FrameType.CLOSE, granted[0], 0))
    assert credited(pair.listener)[0] == waiting[2]


def test_a_message_ends_the_wish_for_messages() -> None:
    pair = MuxPair()
    number = pair.open()
    pair.listener.want(number, wanted=True)
    pair.dialler.send(number, bytes(1000), bulk=True)
    pair.settle()
    pair.listener.consumed(number, 1000)
    pair.dialler.send(number, bytes(MESSAGE_BYTES_MAX), bulk=True)
    assert pair.settle() == []
    assert pair.listener.pool_used_bytes <= CREDIT_FIRST_BYTES


def test_what_a_closed_channel_left_unconsumed_stays_charged() -> None:
    pair = MuxPair()
    number = pair.open()
    pair.listener.want(number, wanted=True)
    pair.dialler.send(number, bytes(100_000), bulk=True)
    pair.settle()
    pair.dialler.close_channel(number, CloseCode.NORMAL, 0)
    pair.settle()
    assert pair.listener.pool_used_bytes == 100_000 + MESSAGE_COST_BYTES - CREDIT_FIRST_BYTES
    pair.listener.consumed(number, 100_000)
    assert pair.listener.pool_used_bytes == 0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.integers(0, 5), st.integers(1, MESSAGE_BYTES_MAX)),
            st.tuples(st.just("want"), st.integers(0, 5), st.booleans()),
            st.tuples(st.just("consume"), st.integers(0, 5), st.just(0)),
            st.tuples(st.just("close"), st.integers(0, 5), st.booleans()),
            st.tuples(st.just("upkeep"), st.just(0), st.integers(1, 2000)),
        ),
        max_size=40,
    )
)
def test_the_pool_is_never_exceeded_and_never_leaks(plan: list[tuple[str, int, int]]) -> None:
    pair = MuxPair()
    numbers = [pair.open() for _ in range(6)]
    waiting: dict[int, list[int]] = {number: [] for number in numbers}

    def note(mux: Mux, effect: Effect) -> None:
        if isinstance(effect, MessageReceived):
            waiting[effect.channel].append(len(effect.message))

    closed: set[int] = set()
    for action, which, value in plan:
        number = numbers[which]
        if action == "send" and number not in closed and not pair.dialler.is_full(number):
            pair.dialler.send(number, bytes(value), bulk=True)
        elif action == "want":
            pair.listener.want(number, wanted=bool(value))
        elif action == "consume" and waiting[number]:
            pair.listener.consumed(number, waiting[number].pop(0))
        elif action == "close" and number not in closed:
            closed.add(number)
            (pair.dialler if value else pair.listener).close_channel(number, CloseCode.NORMAL, pair.now_ms)
            if not value:
                waiting[number].clear()
        elif action == "upkeep":
            pair.now_ms += value
            for mux in (pair.dialler, pair.listener):
                mux.upkeep(pair.now_ms, value)
        pair.settle(note)
    for number in numbers:
        if number not in closed:
            pair.listener.close_channel(number, CloseCode.NORMAL, pair.now_ms)
            waiting[number].clear()
    pair.settle(note)
    for number, lengths in waiting.items():
        for length_bytes in lengths:
            pair.listener.consumed(number, length_bytes)
    assert pair.listener.pool_used_bytes == 0
    assert pair.dialler.pool_used_bytes == 0


# --- Order of sending ---


def test_control_goes_before_live_and_live_before_bulk() -> None:
    pair = MuxPair()
    first, second = pair.open(), pair.open()
    pair.dialler.send(first, b"bulk", bulk=True)
    pair.dialler.send(second, b"live", bulk=False)
    pair.dialler.open_channel(b"", proof_follows=False, now_ms=0)
    assert [name for name, _, _ in frames_of(pair.dialler)] == ["OPEN", "DATA_END", "DATA_END"]
    pair.dialler.send(first, b"bulk", bulk=True)
    pair.dialler.send(second, b"live", bulk=False)
    assert [channel for _, channel, _ in frames_of(pair.dialler)] == [second, first]


def test_a_live_message_behind_a_half_sent_bulk_message_lends_it_its_turn() -> None:
    pair = MuxPair()
    first, second = pair.open(), pair.open()
    for number in (first, second):
        feed(pair.dialler, encode_number_frame(FrameType.CREDIT, number, 2**20))
        pair.dialler.send(number, bytes(200_000), bulk=True)
    for _ in range(2):  # a frame of each
        frames_of(pair.dialler)
    pair.dialler.send(second, b"live", bulk=False)
    order = [channel for _ in range(5) for _, channel, _ in frames_of(pair.dialler)]
    done = order.index(first)
    assert set(order[:done]) == {second}
    assert order.count(second) == done


def sent_on(pair: MuxPair, number: int) -> list[bytes]:
    """The short messages that a side sends on a channel, in their order."""
    return [payload[1:] for name, channel, payload in frames_of(pair.dialler) if (name, channel) == ("DATA_END", number)]


def test_a_live_message_that_keeps_its_place_stays_behind_the_bulk_of_its_channel_and_no_other() -> None:
    pair = MuxPair()
    busy, other = pair.open(), pair.open()
    for number, message in ((other, b"bulk of another"), (busy, b"bulk 1"), (busy, b"bulk 2")):
        pair.dialler.send(number, message, bulk=True)
    pair.dialler.send(busy, b"entry", bulk=False, in_order=True)
    pair.dialler.send(busy, b"have", bulk=False)
    pair.dialler.send(other, b"have of another", bulk=False)
    pair.dialler.send(busy, b"entry after it", bulk=False, in_order=True)
    assert sent_on(pair, busy) == [b"have", b"bulk 1", b"bulk 2", b"entry", b"entry after it"]


def test_where_no_bulk_waits_a_live_message_that_keeps_its_place_goes_before_that_of_other_channels() -> None:
    pair = MuxPair()
    idle, busy = pair.open(), pair.open()
    feed(pair.dialler, encode_number_frame(FrameType.CREDIT, busy, 2**20))
    pair.dialler.send(busy, bytes(400_000), bulk=True)
    frames_of(pair.dialler)
    pair.dialler.send(idle, b"entry", bulk=False, in_order=True)
    assert next(channel for _, channel, _ in frames_of(pair.dialler)) == idle


def test_channels_of_one_class_take_turns_by_bytes_and_not_by_messages() -> None:
    pair = MuxPair()
    large, small = pair.open(), pair.open()
    for number in (large, small):
        feed(pair.dialler, encode_number_frame(FrameType.CREDIT, number, 2**21))
    for _ in range(400):
        pair.dialler.send(small, bytes(1000), bulk=True)
    pair.dialler.send(large, bytes(400_000), bulk=True)
    sent: Counter[int] = Counter()
    for _ in range(6):
        for _, channel, payload in frames_of(pair.dialler):
            sent[channel] += len(payload)
    assert 0.8 < sent[large] / sent[small] < 1.25


def test_a_full_queue_refuses_and_says_when_it_has_room_again() -> None:
    pair = MuxPair()
    number = pair.open()
    pair.listener.want(number, wanted=True)
    pair.dialler.send(number, bytes(MESSAGE_BYTES_MAX), bulk=True)
    assert pair.dialler.is_full(number)
    with pytest.raises(LocalProtocolError):
        pair.dialler.send(number, b"x", bulk=True)
    assert [effect for name, effect in pair.settle(take_at_once) if name == "dialler"] == [Writable(number)]
    assert not pair.dialler.is_full(number)


def test_who_waits_for_room_is_told_though_somebody_else_puts_something_short_into_the_first_that_there_is() -> None:
    """It was not: a bulk sync stood still for good once a beacon had been sent at the wrong moment."""
    pair = MuxPair()
    number = pair.open()
    pair.listener.want(number, wanted=True)
    pair.dialler.send(number, bytes(QUEUE_HIGH_BYTES), bulk=True)
    while pair.dialler.is_full(number):
        assert pair.move_one(pair.dialler, pair.listener)
    pair.dialler.send(number, b"x", bulk=False)
    assert Writable(number) in [effect for name, effect in pair.settle(take_at_once) if name == "dialler"]


def test_flush_reports_once_when_the_queue_is_empty() -> None:
    pair = MuxPair()
    number = pair.open()
    assert pair.dialler.flush(number)
    pair.dialler.send(number, b"x", bulk=False)
    assert not pair.dialler.flush(number)
    assert [effect for name, effect in pair.settle() if name == "dialler"] == [Writable(number)]


@given(st.integers(16_448, PLAINTEXT_BYTES))
@settings(max_examples=25, deadline=None)
def test_pulls_never_exceed_their_room(room_bytes: int) -> None:
    pair = MuxPair()
    number = pair.open()
    feed(pair.dialler, encode_number_frame(FrameType.CREDIT, number, 2**20))
    pair.dialler.send(number, bytes(300_000), bulk=True)
    pulled = 0
    while plaintext := pair.dialler.pull(room_bytes, 0):
        assert len(plaintext) <= room_bytes
        decode_frames(plaintext)
        pulled += len(plaintext)
    assert 300_000 < pulled < 301_000


# --- Limits ---


def test_4096_channels_are_served_and_one_more_is_too_many() -> None:
    mux = Mux(is_dialler=False, now_ms=0)
    for index in range(CHANNELS_MAX):
        feed(mux, frame(FrameType.OPEN, 2 * index + 1))
    assert len(mux.effects) == CHANNELS_MAX
    assert mux.open_wait_ms(0) is None
    with pytest.raises(RemoteProtocolError) as caught:
        feed(mux, frame(FrameType.OPEN, 2 * CHANNELS_MAX + 1), 60_000)
    assert caught.value.close_code is CloseCode.TOO_MANY


def test_opens_that_crossed_beyond_4096_are_refused_without_fault() -> None:
    mux = Mux(is_dialler=False, now_ms=0)
    for _ in range(2000):
        mux.open_channel(b"", proof_follows=False, now_ms=0)
    for index in range(CHANNELS_MAX - 2000 + 1):
        feed(mux, frame(FrameType.OPEN, 2 * index + 1))
    assert len(mux.effects) == CHANNELS_MAX - 2000
    frames = []
    while got := frames_of(mux):
        frames += got
    assert ("REFUSE", 2 * (CHANNELS_MAX - 2000) + 1, b"") in frames


def open_and_close(mux: Mux, index: int, now_ms: int) -> None:
    feed(mux, frame(FrameType.OPEN, 2 * index + 1), now_ms)
    feed(mux, encode_number_frame(FrameType.CLOSE, 2 * index + 1, 0), now_ms)


def test_opens_come_in_a_burst_of_4096_and_then_50_a_second() -> None:
    mux = Mux(is_dialler=False, now_ms=0)
    for index in range(OPENS_BURST):
        open_and_close(mux, index, 0)
    for index in range(OPENS_BURST, OPENS_BURST + OPENS_PER_S):
        open_and_close(mux, index, 1000)
    with pytest.raises(RemoteProtocolError) as caught:
        open_and_close(mux, OPENS_BURST + OPENS_PER_S, 1019)
    assert caught.value.close_code is CloseCode.TOO_MANY


def test_this_side_says_when_it_may_open_again_and_keeps_below_the_limit() -> None:
    pair = MuxPair()
    opened = 0
    while pair.dialler.open_wait_ms(0) == 0:
        number = pair.dialler.open_channel(b"", proof_follows=False, now_ms=0)
        pair.dialler.close_channel(number, CloseCode.NORMAL, 0)
        opened += 1
        if opened % 500 == 0:
            pair.settle()
    assert opened == 4000
    wait_ms = pair.dialler.open_wait_ms(0)
    assert wait_ms == 23
    with pytest.raises(LocalProtocolError):
        pair.dialler.open_channel(b"", proof_follows=False, now_ms=0)
    assert pair.dialler.open_wait_ms(wait_ms) == 0


def test_a_message_that_stands_still_while_it_has_credit_is_closed_after_a_minute() -> None:
    mux = in_state("open")
    feed(mux, frame(FrameType.DATA, 1, encode_varint(1000) + b"x"))
    assert mux.needs_upkeep
    for second in range(1, SLOW_MESSAGE_SLACK_MS // 1000 + 1):
        mux.upkeep(second * 1000, 1000)
        assert mux.effects == []
    mux.upkeep(SLOW_MESSAGE_SLACK_MS + 1000, 1000)
    assert mux.effects == [ChannelClosed(1, CloseCode.TIMEOUT)]
    assert frames_of(mux) == [("CLOSE", 1, b"\x06")]


def test_a_message_without_credit_or_at_1_kib_a_second_is_not_slow() -> None:
    waiting = in_state("open")
    feed(waiting, frame(FrameType.DATA, 1, encode_varint(5000) + bytes(CREDIT_FIRST_BYTES - MESSAGE_COST_BYTES)))
    steady = in_state("open")
    steady.want(1, wanted=True)
    feed(steady, frame(FrameType.DATA, 1, encode_varint(MESSAGE_BYTES_MAX) + b"x"))
    for second in range(1, 200):
        feed(steady, frame(FrameType.DATA, 1, bytes(1024)))
        for mux in (waiting, steady):
            mux.upkeep(second * 1000, 1000)
            assert mux.effects == []


def test_a_message_is_not_slow_while_the_link_carries_others() -> None:
    mux = in_state("open")
    feed(mux, frame(FrameType.OPEN, 3))
    mux.accept(3, b"")
    mux.want(3, wanted=True)
    mux.effects.clear()
    feed(mux, frame(FrameType.DATA, 1, encode_varint(1000) + b"x"))
    feed(mux, frame(FrameType.DATA, 3, encode_varint(MESSAGE_BYTES_MAX) + b"x"))
    for second in range(1, 200):
        feed(mux, frame(FrameType.DATA, 3, bytes(4096)))
        mux.upkeep(second * 1000, 1000)
    assert mux.effects == []


def test_a_close_without_an_answer_ends_the_link_after_a_minute() -> None:
    mux = in_state("closing")
    mux.upkeep(CLOSE_ANSWER_MS, 1000)
    with pytest.raises(RemoteProtocolError) as caught:
        mux.upkeep(CLOSE_ANSWER_MS + 1, 1000)
    assert caught.value.close_code is CloseCode.TIMEOUT


def test_a_remote_side_that_never_reads_its_answers_overruns() -> None:
    mux = Mux(is_dialler=False, now_ms=0)
    index = 0
    while not mux.is_overrun:
        feed(mux, frame(FrameType.OPEN, 2 * index + 1), index * 20)
        mux.refuse(2 * index + 1, bytes(500), index * 20)
        feed(mux, encode_number_frame(FrameType.CLOSE, 2 * index + 1, 0), index * 20)
        index += 1
    # 64 REFUSE frames of 504 bytes, 8,128 of 505 and 114 of 506, by the length of their numbers.
    assert index == 64 + 8128 + 114
    assert CONTROL_QUEUE_BYTES_MAX >= 64 * 504 + 8128 * 505 + 113 * 506
