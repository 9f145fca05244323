"""Vectors of frames (SPEC: F)."""

from __future__ import annotations

from typing import Any

from peersd_protocol.constants import FRAME_PAYLOAD_BYTES_MAX, OPEN_PAYLOAD_BYTES_MAX
from peersd_protocol.errors import CloseCode
from peersd_protocol.frames import VARINT_MAX, FrameType, encode_clock_frame, encode_frame, encode_number_frame, encode_varint


def _valid(*frames: tuple[FrameType, int, bytes]) -> dict[str, Any]:
    return {
        "plaintext": b"".join(encode_frame(*frame) for frame in frames).hex(),
        "frames": [{"type": kind.name, "channel": channel, "payload": payload.hex()} for kind, channel, payload in frames],
    }


def _invalid(why: str, plaintext: bytes, code: CloseCode = CloseCode.MALFORMED) -> dict[str, str]:
    return {"why": why, "plaintext": plaintext.hex(), "error": code.name}


def make() -> dict[str, Any]:
    clock = encode_clock_frame(FrameType.PING, 1, 1_700_000_000_000)[3:]
    return {
        "description": "The plaintext of one Noise message and the frames in it.",
        "valid": [
            _valid((FrameType.OPEN, 1, b"\x94" + bytes(3))),
            _valid((FrameType.OPEN_WITH_PROOF, 3, bytes(OPEN_PAYLOAD_BYTES_MAX))),
            _valid((FrameType.ACCEPT, 127, b""), (FrameType.REFUSE, 128, b"")),
            _valid((FrameType.DATA, 16_384, b"\x05ab"), (FrameType.DATA, 2, b"\x01"), (FrameType.DATA_END, 16_384, b"cde")),
            _valid((FrameType.DATA, 1, bytes(FRAME_PAYLOAD_BYTES_MAX))),
            _valid((FrameType.CREDIT, 1, encode_varint(524_288)), (FrameType.RETURN, 1, encode_varint(1))),
            _valid((FrameType.CLOSE, VARINT_MAX, encode_varint(CloseCode.TIMEOUT))),
            _valid((FrameType.PING, 0, clock), (FrameType.PONG, 0, clock)),
            _valid((FrameType.GOAWAY, 0, encode_varint(CloseCode.GOING_AWAY))),
        ],
        "invalid": [
            _invalid("no frame", b""),
            _invalid("type 0", encode_frame(FrameType.OPEN, 1).replace(b"\x01", b"\x00", 1)),
            _invalid("type 13", b"\x0d\x00\x00"),
            _invalid("no channel", b"\x01"),
            _invalid("no length", b"\x01\x01"),
            _invalid("payload cut off", b"\x01\x01\x02a"),
            _invalid("channel not in its shortest form", b"\x01\x81\x00\x00"),
            _invalid("length not in its shortest form", b"\x01\x01\x81\x00a"),
            _invalid("channel of nine bytes", b"\x01" + b"\x80" * 8 + b"\x01\x00"),
            _invalid("OPEN on channel 0", encode_frame(FrameType.OPEN, 0)),
            _invalid("PING on channel 1", encode_frame(FrameType.PING, 1, clock)),
            _invalid("GOAWAY on channel 1", encode_number_frame(FrameType.GOAWAY, 1, 0)),
            _invalid("empty DATA", encode_frame(FrameType.DATA, 1)),
            _invalid("empty DATA_END", encode_frame(FrameType.DATA_END, 1)),
            _invalid("a second frame cut off", encode_frame(FrameType.CLOSE, 1, b"\x00") + b"\x05"),
            _invalid("OPEN too long", b"\x01\x01" + encode_varint(OPEN_PAYLOAD_BYTES_MAX + 1) + bytes(513), CloseCode.TOO_LARGE),
            _invalid("DATA too long", b"\x05\x01" + encode_varint(FRAME_PAYLOAD_BYTES_MAX + 1), CloseCode.TOO_LARGE),
        ],
    }
