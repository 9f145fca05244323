"""Frames: the unit of the multiplexer, many of them packed whole into one Noise message (SPEC: F).

A frame is its type (one byte), its channel and its payload's length (varints in their shortest form), and the payload.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

from peersd_protocol.constants import FRAME_PAYLOAD_BYTES_MAX, OPEN_PAYLOAD_BYTES_MAX, VARINT_BYTES_MAX
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError

VARINT_MAX: Final = (1 << (7 * VARINT_BYTES_MAX)) - 1
LINK_CHANNEL: Final = 0
"""The channel number of frames that concern the whole link."""

DATA_HEADER_BYTES_MAX: Final = 1 + VARINT_BYTES_MAX + 3
"""Type, channel, and the length of a payload of up to FRAME_PAYLOAD_BYTES_MAX."""

CLOCK_PAYLOAD_BYTES: Final = 16
_clock: Final = struct.Struct(">QQ")


class FrameType(enum.IntEnum):
    """The first byte of a frame (SPEC: F-3)."""

    OPEN = 1
    OPEN_WITH_PROOF = 2
    """An OPEN after which DATA follows before ACCEPT."""
    ACCEPT = 3
    REFUSE = 4
    DATA = 5
    DATA_END = 6
    """DATA that ends a message."""
    CREDIT = 7
    RETURN = 8
    """A sender gives back credit that it has no use for."""
    CLOSE = 9
    PING = 10
    PONG = 11
    GOAWAY = 12


_OPEN: Final = int(FrameType.OPEN)
_REFUSE: Final = int(FrameType.REFUSE)
_DATA: Final = int(FrameType.DATA)
_DATA_END: Final = int(FrameType.DATA_END)
_PING: Final = int(FrameType.PING)
_GOAWAY: Final = int(FrameType.GOAWAY)


def encode_varint(value: int) -> bytes:
    """Encodes 0 to VARINT_MAX as LEB128: seven bits a byte, the lowest first, the top bit set on all bytes but the last.

    Raises:
        LocalProtocolError: the value is out of range.
    """
    if 0 <= value < 0x80:
        return bytes((value,))
    if not 0 <= value <= VARINT_MAX:
        raise LocalProtocolError(f"{value} is no varint")
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def decode_varint(buffer: bytes | memoryview, at: int) -> tuple[int, int]:
    """Decodes the varint at offset `at`.

    Returns:
        The value, and the offset after it.

    Raises:
        RemoteProtocolError: MALFORMED if it is cut off, not in its shortest form, or longer than VARINT_BYTES_MAX.
    """
    value = shift = 0
    end = min(len(buffer), at + VARINT_BYTES_MAX)
    for offset in range(at, end):
        byte = buffer[offset]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                raise RemoteProtocolError(CloseCode.MALFORMED, "a varint is not in its shortest form")
            return value, offset + 1
        shift += 7
    raise RemoteProtocolError(CloseCode.MALFORMED, "a varint is cut off or too long")


def encode_frame(frame_type: FrameType, channel: int, payload: bytes = b"") -> bytes:
    """Encodes one frame.

    Args:
        frame_type: its type.
        channel: LINK_CHANNEL for PING, PONG and GOAWAY, else a channel's number.
        payload: at most FRAME_PAYLOAD_BYTES_MAX.

    Raises:
        LocalProtocolError: the payload is too long.
    """
    if len(payload) > FRAME_PAYLOAD_BYTES_MAX:
        raise LocalProtocolError(f"a frame's payload of {len(payload)} bytes")
    return b"".join((bytes((frame_type,)), encode_varint(channel), encode_varint(len(payload)), payload))


def encode_number_frame(frame_type: FrameType, channel: int, number: int) -> bytes:
    """Encodes a CREDIT, RETURN, CLOSE or GOAWAY frame: its payload is one varint."""
    return encode_frame(frame_type, channel, encode_varint(number))


def encode_clock_frame(frame_type: FrameType, nonce: int, wall_ms: int) -> bytes:
    """Encodes a PING or PONG: a 64-bit nonce and the sender's wall clock in ms since 1970, both big-endian."""
    return encode_frame(frame_type, LINK_CHANNEL, _clock.pack(nonce, max(wall_ms, 0)))


def decode_frames(plaintext: bytes) -> list[tuple[int, int, memoryview]]:
    """Decodes all frames of one Noise message.

    Args:
        plaintext: the decrypted Noise message; frames never continue in the next one.

    Returns:
        (type, channel, payload) of each, in order. The payloads are views of `plaintext`: a holder keeps all of it alive.

    Raises:
        RemoteProtocolError: MALFORMED if it is empty, a frame is cut off, its type unknown, its DATA empty, or its channel is
            LINK_CHANNEL when it must not be or the reverse; TOO_LARGE if a payload is above its type's bound.
    """
    frames: list[tuple[int, int, memoryview]] = []
    view = memoryview(plaintext)
    end = len(plaintext)
    if not end:
        raise RemoteProtocolError(CloseCode.MALFORMED, "a Noise message without frames")
    at = 0
    while at < end:
        frame_type = plaintext[at]
        if not _OPEN <= frame_type <= _GOAWAY:
            raise RemoteProtocolError(CloseCode.MALFORMED, f"frame type {frame_type}")
        channel, at = decode_varint(plaintext, at + 1)
        payload_bytes, at = decode_varint(plaintext, at)
        if (channel == LINK_CHANNEL) != (frame_type >= _PING):
            raise RemoteProtocolError(CloseCode.MALFORMED, f"frame type {frame_type} on channel {channel}")
        if payload_bytes > (OPEN_PAYLOAD_BYTES_MAX if frame_type <= _REFUSE else FRAME_PAYLOAD_BYTES_MAX):
            raise RemoteProtocolError(CloseCode.TOO_LARGE, f"a frame's payload of {payload_bytes} bytes")
        if payload_bytes == 0 and frame_type in (_DATA, _DATA_END):
            raise RemoteProtocolError(CloseCode.MALFORMED, "DATA without bytes")
        after = at + payload_bytes
        if after > end:
            raise RemoteProtocolError(CloseCode.MALFORMED, "a frame is cut off")
        frames.append((frame_type, channel, view[at:after]))
        at = after
    return frames


def decode_number(payload: memoryview) -> int:
    """The payload of CREDIT, RETURN, CLOSE and GOAWAY: one varint and nothing after it.

    Raises:
        RemoteProtocolError: MALFORMED.
    """
    number, end = decode_varint(payload, 0)
    if end != len(payload):
        raise RemoteProtocolError(CloseCode.MALFORMED, "bytes after a number")
    return number


def decode_credit(payload: memoryview) -> int:
    """The payload of CREDIT and RETURN: as decode_number, and above 0."""
    credit_bytes = decode_number(payload)
    if not credit_bytes:
        raise RemoteProtocolError(CloseCode.MALFORMED, "no credit")
    return credit_bytes


def decode_close_code(payload: memoryview) -> CloseCode:
    """The payload of CLOSE and GOAWAY. A code that this version does not know counts as PROTOCOL: later versions may add some."""
    number = decode_number(payload)
    try:
        return CloseCode(number)
    except ValueError:
        return CloseCode.PROTOCOL


def decode_clock(payload: memoryview) -> tuple[int, int]:
    """The payload of PING and PONG: (nonce, wall clock in ms since 1970).

    Raises:
        RemoteProtocolError: MALFORMED if it is not CLOCK_PAYLOAD_BYTES long.
    """
    if len(payload) != CLOCK_PAYLOAD_BYTES:
        raise RemoteProtocolError(CloseCode.MALFORMED, "a ping of another length")
    nonce, wall_ms = _clock.unpack(payload)
    return nonce, wall_ms
