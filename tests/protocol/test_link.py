from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peersd_protocol.constants import (
    HANDSHAKE_TIMEOUT_MS,
    MESSAGE_BYTES_MAX,
    PING_INTERVAL_MS,
    TRANSPORT_MESSAGE_BYTES_MAX,
    UPKEEP_INTERVAL_MS,
)
from peersd_protocol.devicekeys import DeviceKeys
from peersd_protocol.errors import CloseCode, LocalProtocolError
from peersd_protocol.frames import FrameType, encode_frame
from peersd_protocol.handshake import Handshake, Role
from peersd_protocol.link import (
    Accepted,
    CancelTimer,
    Down,
    Effect,
    Link,
    LinkState,
    MessageReceived,
    OpenRequested,
    PeerClock,
    RttMeasured,
    SetTimer,
    Up,
    Wake,
)

KEYS = {
    Role.DIALLER: DeviceKeys(b"\x01" * 32, b"\x02" * 32, b"\x03" * 32),
    Role.LISTENER: DeviceKeys(b"\x04" * 32, b"\x05" * 32, b"\x06" * 32),
}


def new_link(role: Role, wall_offset_ms: int = 0) -> Link:
    ephemeral = b"\x07" * 32 if role is Role.DIALLER else b"\x08" * 32
    return Link(role, Handshake(role, KEYS[role], boot_id=b"b" * 16, ephemeral_private=ephemeral), wall_offset_ms=wall_offset_ms)


class LinkPair:
    """Two machines back to back."""

    def __init__(self, *, release: bool = True, listener_offset_ms: int = 0) -> None:
        self.now_ms = 0
        self.dialler = new_link(Role.DIALLER)
        self.listener = new_link(Role.LISTENER, listener_offset_ms)
        self.seen: dict[Link, list[Effect]] = {
            self.dialler: self.dialler.start(0),
            self.listener: self.listener.start(0),
        }
        if release:
            self.settle()
            self.do(self.dialler, self.dialler.release(0))
            self.settle()
            self.do(self.listener, self.listener.release(0))
            self.settle()

    def do(self, link: Link, effects: list[Effect]) -> None:
        self.seen[link] += effects

    def move(self, sender: Link) -> bytes | None:
        receiver = self.listener if sender is self.dialler else self.dialler
        data = sender.pull(self.now_ms)
        self.do(sender, sender.take_effects(self.now_ms))
        if data is not None:
            assert len(data) <= TRANSPORT_MESSAGE_BYTES_MAX
            self.do(receiver, receiver.receive(data, self.now_ms))
        return data

    def settle(self) -> None:
        while self.move(self.dialler) or self.move(self.listener):
            pass

    def take(self, link: Link, kind: type[Effect]) -> list[Effect]:
        """The effects of one kind since the last call."""
        found = [effect for effect in self.seen[link] if isinstance(effect, kind)]
        self.seen[link] = [effect for effect in self.seen[link] if not isinstance(effect, kind)]
        return found

    def down(self, link: Link) -> Down:
        [effect] = self.take(link, Down)
        assert isinstance(effect, Down)
        return effect


def test_both_sides_come_up_with_each_others_device_and_one_hash() -> None:
    pair = LinkPair()
    [dialler] = pair.take(pair.dialler, Up)
    [listener] = pair.take(pair.listener, Up)
    assert isinstance(dialler, Up)
    assert isinstance(listener, Up)
    assert dialler.remote_device == KEYS[Role.LISTENER].device
    assert listener.remote_device == KEYS[Role.DIALLER].device
    assert dialler.handshake_hash == listener.handshake_hash
    assert len(dialler.handshake_hash) == 32


def test_the_first_transport_message_is_one_key_after_its_length() -> None:
    link = new_link(Role.DIALLER)
    assert link.start(5) == [SetTimer("handshake", 5 + HANDSHAKE_TIMEOUT_MS), Wake()]
    first = link.pull(5)
    assert first is not None
    assert first[:2] == b"\x00\x20"
    assert len(first) == 34
    assert link.pull(5) is None


def test_a_dialler_that_is_not_released_keeps_its_last_message() -> None:
    pair = LinkPair(release=False)
    pair.settle()
    assert pair.dialler.state is LinkState.HELD
    assert pair.listener.state is LinkState.HANDSHAKE
    assert pair.dialler.close(CloseCode.REPLACED, 0)[-1] == Down(CloseCode.REPLACED, "closed here")
    assert pair.dialler.pull(0) is None


def test_a_link_that_is_closed_before_its_last_message_left_says_nothing() -> None:
    pair = LinkPair(release=False)
    pair.settle()
    pair.dialler.release(0)
    pair.dialler.close(CloseCode.REPLACED, 0)
    assert pair.dialler.pull(0) is None


def test_a_listener_that_is_not_released_says_why_it_closes() -> None:
    pair = LinkPair(release=False)
    pair.settle()
    pair.dialler.release(0)
    pair.settle()
    assert pair.listener.state is LinkState.HELD
    pair.listener.close(CloseCode.REPLACED, 0)
    pair.settle()
    assert pair.down(pair.dialler) == Down(CloseCode.REPLACED, "the remote side closed the link", by_remote=True)


def test_opens_that_come_before_release_are_reported_after_it() -> None:
    pair = LinkPair(release=False)
    pair.settle()
    pair.dialler.release(0)
    first, _ = pair.dialler.open_channel(b"one", 0)
    second, _ = pair.dialler.open_channel(b"two", 0, proof_follows=True)
    pair.dialler.send(second, b"proof", 0, bulk=False)
    pair.settle()
    assert pair.take(pair.listener, OpenRequested) == []
    with pytest.raises(LocalProtocolError):
        pair.listener.open_channel(b"", 0)
    pair.do(pair.listener, pair.listener.release(0))
    assert [e for e in pair.seen[pair.listener] if isinstance(e, OpenRequested | MessageReceived)] == [
        OpenRequested(first, b"one", False),
        OpenRequested(second, b"two", True),
        MessageReceived(second, b"proof"),
    ]


def test_three_hundred_opens_and_accepts_take_one_round_trip_and_30_kb() -> None:
    pair = LinkPair()
    for _ in range(300):
        pair.dialler.open_channel(bytes(44), 0)
    opens = pair.move(pair.dialler)
    assert opens is not None
    assert pair.dialler.pull(0) is None
    for effect in pair.take(pair.listener, OpenRequested):
        assert isinstance(effect, OpenRequested)
        pair.listener.accept(effect.channel, bytes(27), 0)
    accepts = pair.move(pair.listener)
    assert accepts is not None
    assert len(pair.take(pair.dialler, Accepted)) == 300
    assert len(opens) + len(accepts) < 30_000


def opened(pair: LinkPair) -> int:
    channel, _ = pair.dialler.open_channel(b"", 0)
    pair.settle()
    pair.listener.accept(channel, b"", 0)
    pair.settle()
    return channel


def test_a_message_of_1_mib_fills_transport_messages_of_up_to_256_kib() -> None:
    pair = LinkPair()
    channel = opened(pair)
    pair.listener.want(channel, 0)
    pair.dialler.send(channel, bytes(MESSAGE_BYTES_MAX), 0, bulk=True)
    sizes: list[int] = []
    while data := pair.move(pair.dialler) or pair.move(pair.listener):
        sizes.append(len(data))
    assert pair.take(pair.listener, MessageReceived) == [MessageReceived(channel, bytes(MESSAGE_BYTES_MAX))]
    assert max(sizes) > 250_000
    assert sum(sizes) < MESSAGE_BYTES_MAX * 1.002


def test_transport_messages_shrink_while_the_transport_is_slow_and_grow_again() -> None:
    pair = LinkPair()
    channel = opened(pair)
    sizes: dict[int, list[int]] = {}
    for took_ms in (50, 0):
        sizes[took_ms] = []
        pair.now_ms += 1000
        for _ in range(4):
            pair.listener.want(channel, pair.now_ms)
            pair.dialler.send(channel, bytes(MESSAGE_BYTES_MAX // 2), pair.now_ms, bulk=True)
            while (data := pair.move(pair.dialler)) or pair.move(pair.listener):
                sizes[took_ms].append(len(data or b""))
                pair.now_ms += took_ms
            for message in pair.take(pair.listener, MessageReceived):
                assert isinstance(message, MessageReceived)
                pair.listener.consumed(channel, len(message.message), pair.now_ms)
    assert sizes[50][-8:-2] == [size for size in sizes[50][-8:-2] if size <= 32_768]
    assert max(sizes[0]) > 250_000


def test_pings_measure_the_round_trip_and_the_other_clock() -> None:
    pair = LinkPair(release=False, listener_offset_ms=7000)
    pair.settle()
    pair.dialler.release(0)
    pair.settle()
    pair.listener.release(0)
    pair.now_ms = 40
    pair.settle()
    assert pair.take(pair.dialler, RttMeasured) == [RttMeasured(40)]
    assert pair.take(pair.dialler, PeerClock) == [PeerClock(40 + 7000 - 20)]


def ping_timer_at(pair: LinkPair, link: Link) -> int:
    timers = [effect for effect in pair.take(link, SetTimer) if isinstance(effect, SetTimer) and effect.name == "ping"]
    return timers[-1].at_ms


def test_a_silent_link_is_dead_after_three_pings() -> None:
    pair = LinkPair()
    times = [0]
    while pair.dialler.state is not LinkState.DOWN:
        at_ms = ping_timer_at(pair, pair.dialler)
        times.append(at_ms)
        pair.do(pair.dialler, pair.dialler.timer_expired("ping", at_ms))
        pair.dialler.pull(at_ms)
    # Something was heard before the first.
    assert times == [0, 15_000, 30_000, 45_000, 60_000]
    assert pair.down(pair.dialler).code is CloseCode.TIMEOUT


def test_any_message_is_a_sign_of_life() -> None:
    pair = LinkPair()
    channel = opened(pair)
    for round_number in range(1, 20):
        now_ms = round_number * PING_INTERVAL_MS
        pair.dialler.timer_expired("ping", now_ms)
        assert pair.dialler.pull(now_ms) is not None  # lost on its way
        pair.listener.send(channel, b"still here", now_ms, bulk=False)
        data = pair.listener.pull(now_ms)
        assert data is not None
        pair.dialler.receive(data, now_ms)
    assert pair.dialler.state is LinkState.CARRYING


def test_a_link_whose_pings_are_never_pulled_is_dead_though_it_hears() -> None:
    pair = LinkPair()
    channel = opened(pair)
    for round_number in range(1, 5):
        now_ms = round_number * PING_INTERVAL_MS
        pair.do(pair.dialler, pair.dialler.timer_expired("ping", now_ms))
        pair.listener.send(channel, b"talks and does not read", now_ms, bulk=False)
        data = pair.listener.pull(now_ms)
        assert data is not None
        pair.dialler.receive(data, now_ms)
    assert pair.down(pair.dialler).code is CloseCode.TIMEOUT


def test_only_the_newest_of_many_pings_is_answered() -> None:
    pair = LinkPair()
    flood = b"".join(encode_frame(FrameType.PING, 0, n.to_bytes(8, "big") + bytes(8)) for n in range(1, 3000))
    plaintexts = [flood[at : at + 19 * 3000] for at in range(0, len(flood), 19 * 3000)]
    for plaintext in plaintexts:
        pair.do(pair.listener, pair.listener.receive(sealed(pair.dialler, plaintext), 0))
    answer = pair.listener.pull(0)
    assert answer is not None
    assert len(answer) == 2 + 19 + 16
    assert pair.listener.pull(0) is None


def sealed(link: Link, plaintext: bytes) -> bytes:
    """A transport message of a hostile but authentic remote side."""
    assert link._established is not None
    message = link._established.send.encrypt(plaintext)
    return len(message).to_bytes(2, "big") + message


@pytest.mark.parametrize("role", Role)
def test_a_handshake_has_ten_seconds(role: Role) -> None:
    link = new_link(role)
    assert SetTimer("handshake", HANDSHAKE_TIMEOUT_MS) in link.start(0)
    effects = link.timer_expired("handshake", HANDSHAKE_TIMEOUT_MS)
    assert effects == [
        CancelTimer("handshake"),
        CancelTimer("ping"),
        CancelTimer("upkeep"),
        Down(CloseCode.TIMEOUT, "the handshake took too long"),
    ]
    assert link.pull(HANDSHAKE_TIMEOUT_MS) is None


def test_a_link_that_nobody_releases_is_closed_too() -> None:
    pair = LinkPair(release=False)
    pair.settle()
    assert pair.dialler.timer_expired("handshake", HANDSHAKE_TIMEOUT_MS)[-1] == Down(
        CloseCode.TIMEOUT, "the handshake took too long"
    )


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("", CloseCode.MALFORMED),
        ("00", CloseCode.MALFORMED),
        ("0000", CloseCode.MALFORMED),
        ("000561", CloseCode.MALFORMED),
        ("ffff61", CloseCode.MALFORMED),
        ("000161", CloseCode.HANDSHAKE),
        ("00016100", CloseCode.HANDSHAKE),
        ("0020" + "00" * 32, CloseCode.HANDSHAKE),
    ],
)
def test_a_stranger_that_sends_this_is_dropped_without_a_word(data: str, code: CloseCode) -> None:
    down_at_once(bytes.fromhex(data), code)


def test_a_transport_message_above_256_kib_is_too_large() -> None:
    down_at_once(bytes(TRANSPORT_MESSAGE_BYTES_MAX + 1), CloseCode.TOO_LARGE)


def down_at_once(data: bytes, code: CloseCode) -> None:
    link = new_link(Role.LISTENER)
    link.start(0)
    down = link.receive(data, 0)[-1]
    assert isinstance(down, Down)
    assert down.code is code
    assert link.pull(0) is None


@pytest.mark.parametrize(
    ("plaintext", "code"),
    [
        (b"", CloseCode.MALFORMED),
        (b"\x00\x00\x00", CloseCode.MALFORMED),
        (b"\x05\x01\x02\x01x", CloseCode.PROTOCOL),
        (b"\x0a\x00\x00", CloseCode.MALFORMED),
    ],
)
def test_a_peer_that_breaks_a_rule_is_told_the_code_and_dropped(plaintext: bytes, code: CloseCode) -> None:
    pair = LinkPair()
    pair.do(pair.listener, pair.listener.receive(sealed(pair.dialler, plaintext), 0))
    assert pair.down(pair.listener).code is code
    pair.settle()
    assert pair.down(pair.dialler) == Down(code, "the remote side closed the link", by_remote=True)


def test_bytes_that_do_not_decrypt_end_the_link() -> None:
    pair = LinkPair()
    data = bytearray(sealed(pair.dialler, b"\x0a\x00\x10" + bytes(16)))
    data[-1] ^= 1
    pair.do(pair.listener, pair.listener.receive(bytes(data), 0))
    assert pair.down(pair.listener).code is CloseCode.PROTOCOL


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100), st.booleans())
def test_nothing_that_a_peer_sends_raises(plaintext: bytes, is_sealed: bool) -> None:
    pair = LinkPair()
    opened(pair)
    pair.listener.receive(sealed(pair.dialler, plaintext) if is_sealed else plaintext, 0)


def test_a_remote_side_that_reads_nothing_ends_the_link_with_too_many() -> None:
    pair = LinkPair()
    opens = b"".join(encode_frame(FrameType.OPEN, 2 * index + 1) for index in range(4000))
    pair.do(pair.listener, pair.listener.receive(sealed(pair.dialler, opens), 0))
    for effect in pair.take(pair.listener, OpenRequested):
        assert isinstance(effect, OpenRequested)
        pair.listener.refuse(effect.channel, 0, bytes(500))
        pair.listener.receive(sealed(pair.dialler, encode_frame(FrameType.CLOSE, effect.channel, b"\x00")), 0)
    index, now_ms = 4000, 0
    while pair.listener.state is not LinkState.DOWN:
        now_ms += 20
        for frame in (encode_frame(FrameType.OPEN, 2 * index + 1), encode_frame(FrameType.CLOSE, 2 * index + 1, b"\x00")):
            pair.do(pair.listener, pair.listener.receive(sealed(pair.dialler, frame), now_ms))
            if frame[0] == FrameType.OPEN:
                pair.do(pair.listener, pair.listener.refuse(2 * index + 1, now_ms, bytes(500)))
        index += 1
    assert pair.down(pair.listener).code is CloseCode.TOO_MANY


def test_commands_on_a_link_that_is_down_do_nothing_but_opening_is_refused() -> None:
    pair = LinkPair()
    channel = opened(pair)
    pair.dialler.close(CloseCode.NORMAL, 0)
    pair.dialler.pull(0)
    link = pair.dialler
    assert link.release(0) == []
    assert link.accept(channel, b"", 0) == []
    assert link.refuse(channel, 0) == []
    assert link.send(channel, b"x", 0, bulk=False) == []
    assert link.want(channel, 0) == []
    assert link.consumed(channel, 1, 0) == []
    assert link.close_channel(channel, CloseCode.NORMAL, 0) == []
    assert link.close(CloseCode.NORMAL, 0) == []
    assert link.receive(b"\x00\x01x", 0) == []
    assert link.timer_expired("ping", 0) == []
    assert link.pull(0) is None
    with pytest.raises(LocalProtocolError):
        link.open_channel(b"", 0)


@pytest.mark.parametrize("state", ["handshake", "carrying"])
def test_release_belongs_between_handshake_and_channels(state: str) -> None:
    link = new_link(Role.DIALLER) if state == "handshake" else LinkPair().dialler
    assert link.state.value == state
    with pytest.raises(LocalProtocolError):
        link.release(0)


def test_a_wake_is_not_repeated_until_a_pull_found_nothing() -> None:
    pair = LinkPair()
    channel = opened(pair)
    assert pair.dialler.send(channel, b"a", 0, bulk=False) == [Wake()]
    assert pair.dialler.send(channel, b"b", 0, bulk=False) == []
    assert pair.dialler.pull(0) is not None
    assert pair.dialler.send(channel, b"c", 0, bulk=False) == []
    assert pair.dialler.pull(0) is not None
    assert pair.dialler.pull(0) is None
    assert pair.dialler.send(channel, b"d", 0, bulk=False) == [Wake()]


def test_upkeep_is_asked_for_only_while_there_is_any() -> None:
    pair = LinkPair()
    channel = opened(pair)
    pair.take(pair.dialler, SetTimer)
    effects = pair.dialler.close_channel(channel, CloseCode.NORMAL, 500)
    assert SetTimer("upkeep", 500 + UPKEEP_INTERVAL_MS) in effects
    pair.settle()
    assert pair.dialler.timer_expired("upkeep", 1500) == []
