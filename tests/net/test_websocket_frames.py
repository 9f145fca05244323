from __future__ import annotations

import base64

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peersd.net.websocket_frames import Close, Event, FrameError, FrameReader, Ping, encode_close, encode_message, encode_pong
from peersd.net.websocket_upgrade import ClientUpgrade, ServerUpgrade, UpgradeFailed

MAX = 1000

SAMPLE_NONCE = base64.b64decode("dGhlIHNhbXBsZSBub25jZQ==")
"""And what answers it: RFC 6455, 1.3."""
SAMPLE_ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def events_of(*pieces: bytes, is_dialler: bool = True, message_bytes_max: int = MAX) -> list[Event]:
    """What one side reads out of pieces as they come."""
    reader = FrameReader(is_dialler=is_dialler, message_bytes_max=message_bytes_max)
    events: list[Event] = []
    for piece in pieces:
        reader.feed(piece)
        while (event := reader.next_event()) is not None:
            events.append(event)
    return events


def frame(first: int, payload: bytes = b"") -> bytes:
    """A short frame of a listener's."""
    assert len(payload) < 126
    return bytes((first, len(payload))) + payload


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("is_dialler", [True, False])
def test_a_message_of_any_length_is_read_as_it_was_sent(length: int, is_dialler: bool) -> None:
    message = bytes(length)
    encoded = encode_message(message, is_dialler=is_dialler)
    header_bytes = {0: 2, 1: 2, 125: 2, 126: 4, 65_535: 4, 65_536: 10}[length] + (4 if is_dialler else 0)
    assert len(encoded) == header_bytes + length
    assert events_of(encoded, is_dialler=not is_dialler, message_bytes_max=1 << 20) == [message]


def test_masked_bytes_are_unmasked() -> None:
    hello = bytes.fromhex("82 85 37 fa 21 3d 7f 9f 4d 51 58")  # RFC 6455, 5.7, as a binary message
    assert events_of(hello, is_dialler=False) == [b"Hello"]


def test_a_message_in_fragments_with_a_ping_between_is_whole() -> None:
    pieces = frame(0x02, b"ab") + frame(0x00, b"c") + frame(0x89, b"still?") + frame(0x00) + frame(0x80, b"d") + frame(0x82, b"e")
    assert events_of(pieces) == [Ping(b"still?"), b"abcd", b"e"]


def test_a_close_tells_its_code_if_it_has_one_and_a_pong_tells_nothing() -> None:
    assert events_of(frame(0x88, b"\x03\xe9gone"), frame(0x8A, b"x"), frame(0x88)) == [Close(1001), Close(None)]
    assert events_of(encode_close(is_dialler=True), encode_pong(b"x", is_dialler=True), is_dialler=False) == [Close(1000)]


@given(st.lists(st.binary(max_size=300), max_size=5), st.data())
def test_where_the_bytes_are_cut_does_not_matter(messages: list[bytes], data: st.DataObject) -> None:
    encoded = b"".join(encode_message(message, is_dialler=True) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=6)))
    pieces = [encoded[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(encoded)], strict=True)]
    assert events_of(*pieces, is_dialler=False) == messages


@pytest.mark.parametrize(
    "pieces",
    [
        frame(0x81, b"text"),
        frame(0x83, b"an opcode of nobody"),
        frame(0x8B, b"another"),
        frame(0xC2, b"compressed, which was not agreed on"),
        frame(0x80, b"the end of nothing"),
        frame(0x02, b"a") + frame(0x82, b"another begins"),
        frame(0x09, b"a ping in fragments"),
        bytes((0x89, 126)) + (126).to_bytes(2, "big"),
        bytes((0x82, 126)) + (MAX + 1).to_bytes(2, "big"),
        bytes((0x82, 127)) + (1 << 63).to_bytes(8, "big"),
        bytes((0x02, 126)) + MAX.to_bytes(2, "big") + bytes(MAX) + bytes((0x00, 1)),
        bytes((0x82, 0x80)) + bytes(4),
    ],
    ids=[
        "text",
        "reserved opcode",
        "reserved control opcode",
        "reserved bit",
        "continues nothing",
        "begins within",
        "fragmented ping",
        "long ping",
        "too long",
        "far too long",
        "too long in fragments",
        "masked by a listener",
    ],
)
def test_what_breaks_a_rule_is_refused_before_its_payload_is_there(pieces: bytes) -> None:
    with pytest.raises(FrameError):
        events_of(pieces)


def test_a_dialler_that_does_not_mask_is_refused() -> None:
    with pytest.raises(FrameError):
        events_of(encode_message(b"x", is_dialler=False), is_dialler=False)


def test_the_two_sides_of_an_opening_understand_each_other_and_keep_what_follows() -> None:
    client, server = ClientUpgrade("h.example:7330", "/a?b", SAMPLE_NONCE), ServerUpgrade()
    assert client.request.startswith(b"GET /a?b HTTP/1.1\r\nHost: h.example:7330\r\n")
    assert server.receive(client.request[:20]) is None
    done = server.receive(client.request[20:] + b"first")
    assert done is not None
    answer, rest = done
    assert SAMPLE_ACCEPT in answer
    assert rest == b"first"
    assert client.receive(answer[:20]) is None
    assert client.receive(answer[20:] + b"second") == b"second"


def test_a_request_for_something_else_is_answered_and_refused() -> None:
    good = ClientUpgrade("h", "/", SAMPLE_NONCE).request
    for request in (
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        good.replace(b"GET", b"PUT"),
        good.replace(b": 13", b": 12"),
        good.replace(b"dGhlI", b"dGhl"),
        good.replace(b"Connection: Upgrade", b"Connection: close"),
    ):
        with pytest.raises(UpgradeFailed) as caught:
            ServerUpgrade().receive(request)
        assert caught.value.answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("request_bytes", [b"", b"\x00\xff\r\n\r\n", b"GET " + b"x" * 100_000, b"SSH-2.0\r\n\r\n"])
def test_what_is_no_request_is_not_answered(request_bytes: bytes) -> None:
    with pytest.raises(UpgradeFailed) as caught:
        ServerUpgrade().receive(request_bytes)
    assert caught.value.answer == b""


def test_a_request_with_a_body_is_refused() -> None:
    request = ClientUpgrade("h", "/", SAMPLE_NONCE).request.replace(b"\r\n\r\n", b"\r\nContent-Length: 4\r\n\r\nbody")
    with pytest.raises(UpgradeFailed):
        ServerUpgrade().receive(request)


def test_only_the_answer_to_this_very_request_opens_the_websocket() -> None:
    server = ServerUpgrade()
    done = server.receive(ClientUpgrade("h", "/", bytes(16)).request)
    assert done is not None
    good = done[0]
    assert ClientUpgrade("h", "/", bytes(16)).receive(good) == b""
    extended = good.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
    for answer in (good.replace(b"101", b"100"), good.replace(b"websocket", b"h2c"), extended, b"HTTP/1.1 200 OK\r\n\r\n", b""):
        with pytest.raises(UpgradeFailed):
            ClientUpgrade("h", "/", bytes(16)).receive(answer)
    with pytest.raises(UpgradeFailed):
        ClientUpgrade("h", "/", SAMPLE_NONCE).receive(good)


def test_a_request_cannot_be_smuggled_in_by_an_address() -> None:
    for resource in ("/ HTTP/1.1\r\nX: y", "/a b", ""):
        with pytest.raises((UpgradeFailed, h11.LocalProtocolError)):
            ClientUpgrade("h", resource, SAMPLE_NONCE)
