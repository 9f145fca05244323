from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peersd_protocol.constants import FRAME_PAYLOAD_BYTES_MAX, OPEN_PAYLOAD_BYTES_MAX
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.frames import (
    VARINT_MAX,
    FrameType,
    decode_clock,
    decode_close_code,
    decode_credit,
    decode_frames,
    decode_number,
    decode_varint,
    encode_clock_frame,
    encode_frame,
    encode_number_frame,
    encode_varint,
)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (300, "ac02"),
        (16_384, "808001"),
        (2**20, "808040"),
        (VARINT_MAX, "ffffffffffffff7f"),
    ],
)
def test_a_varint_has_these_bytes(value: int, encoded: str) -> None:
    assert encode_varint(value).hex() == encoded
    assert decode_varint(bytes.fromhex(encoded), 0) == (value, len(encoded) // 2)


@pytest.mark.parametrize("encoded", ["", "80", "8000", "ff00", "80808000", "ffffffffffffffff01", "8080808080808080"])
def test_a_varint_that_is_cut_off_too_long_or_not_shortest_is_malformed(encoded: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_varint(bytes.fromhex(encoded), 0)
    assert caught.value.close_code is CloseCode.MALFORMED


@pytest.mark.parametrize("value", [-1, VARINT_MAX + 1])
def test_a_number_out_of_range_is_our_fault(value: int) -> None:
    with pytest.raises(LocalProtocolError):
        encode_varint(value)


@given(st.integers(0, VARINT_MAX))
def test_every_varint_comes_back(value: int) -> None:
    encoded = encode_varint(value)
    assert decode_varint(b"\xff" + encoded + b"\x00", 1) == (value, 1 + len(encoded))


@pytest.mark.parametrize(
    ("frame", "encoded"),
    [
        (encode_frame(FrameType.OPEN, 1, b"ab"), "0101026162"),
        (encode_frame(FrameType.OPEN_WITH_PROOF, 300, b""), "02ac0200"),
        (encode_frame(FrameType.ACCEPT, 1, b"x"), "03010178"),
        (encode_frame(FrameType.REFUSE, 2), "040200"),
        (encode_frame(FrameType.DATA, 1, b"\x03a"), "0501020361"),
        (encode_frame(FrameType.DATA_END, 1, b"bc"), "0601026263"),
        (encode_number_frame(FrameType.CREDIT, 7, 2048), "0707028010"),
        (encode_number_frame(FrameType.RETURN, 7, 1), "08070101"),
        (encode_number_frame(FrameType.CLOSE, 7, CloseCode.NOT_MEMBER), "0907010d"),
        (encode_clock_frame(FrameType.PING, 1, 2), "0a00100000000000000001" + "0000000000000002"),
        (encode_clock_frame(FrameType.PONG, 2**64 - 1, 0), "0b0010ffffffffffffffff" + "0000000000000000"),
        (encode_number_frame(FrameType.GOAWAY, 0, CloseCode.REPLACED), "0c000102"),
    ],
)
def test_each_type_has_these_bytes(frame: bytes, encoded: str) -> None:
    assert frame.hex() == encoded
    [(frame_type, channel, payload)] = decode_frames(frame)
    assert encode_frame(FrameType(frame_type), channel, bytes(payload)) == frame


@pytest.mark.parametrize(
    ("plaintext", "code"),
    [
        ("", CloseCode.MALFORMED),
        ("00", CloseCode.MALFORMED),
        ("0d000100", CloseCode.MALFORMED),
        ("ff", CloseCode.MALFORMED),
        ("01", CloseCode.MALFORMED),
        ("0101", CloseCode.MALFORMED),
        ("01010261", CloseCode.MALFORMED),
        ("01810000", CloseCode.MALFORMED),
        ("0101820061", CloseCode.MALFORMED),
        ("010000", CloseCode.MALFORMED),
        ("0c010100", CloseCode.MALFORMED),
        ("050100", CloseCode.MALFORMED),
        ("060100", CloseCode.MALFORMED),
        ("0501018000", CloseCode.MALFORMED),
        (encode_frame(FrameType.OPEN, 1).hex() + "05", CloseCode.MALFORMED),
        ("0101" + encode_varint(OPEN_PAYLOAD_BYTES_MAX + 1).hex(), CloseCode.TOO_LARGE),
        ("0501" + encode_varint(FRAME_PAYLOAD_BYTES_MAX + 1).hex(), CloseCode.TOO_LARGE),
        ("0501" + encode_varint(VARINT_MAX).hex(), CloseCode.TOO_LARGE),
    ],
)
def test_malformed_plaintexts_close_with_these_codes(plaintext: str, code: CloseCode) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_frames(bytes.fromhex(plaintext))
    assert caught.value.close_code is code


@given(
    st.lists(
        st.tuples(
            st.sampled_from([FrameType.OPEN, FrameType.DATA, FrameType.CLOSE]), st.integers(1, 2**40), st.binary(min_size=1)
        ),
        min_size=1,
    )
)
def test_many_frames_packed_together_come_back_in_order(frames: list[tuple[FrameType, int, bytes]]) -> None:
    decoded = decode_frames(b"".join(encode_frame(*frame) for frame in frames))
    assert [(frame_type, channel, bytes(payload)) for frame_type, channel, payload in decoded] == frames


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_remote_error(plaintext: bytes) -> None:
    try:
        frames = decode_frames(plaintext)
    except RemoteProtocolError:
        return
    assert b"".join(encode_frame(FrameType(kind), channel, bytes(payload)) for kind, channel, payload in frames) == plaintext
    for _, _, payload in frames:
        for decode in (decode_number, decode_credit, decode_close_code, decode_clock):
            with contextlib.suppress(RemoteProtocolError):
                decode(payload)


def test_an_unknown_close_code_counts_as_protocol() -> None:
    assert decode_close_code(memoryview(b"\x7f")) is CloseCode.PROTOCOL


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\x01\x00", b"\x80\x00"])
def test_credit_is_one_number_above_zero(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_credit(memoryview(payload))
    assert caught.value.close_code is CloseCode.MALFORMED


@pytest.mark.parametrize("length_bytes", [0, 15, 17])
def test_a_ping_has_16_bytes(length_bytes: int) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_clock(memoryview(bytes(length_bytes)))


def test_a_payload_above_16_kib_is_our_fault() -> None:
    with pytest.raises(LocalProtocolError):
        encode_frame(FrameType.DATA, 1, bytes(FRAME_PAYLOAD_BYTES_MAX + 1))
