"""The frames of a WebSocket of binary messages, without I/O (RFC 6455, 5).

A dialler must mask what it sends, so that no page's script can choose the bytes that a careless proxy sees. What travels here is
encrypted already, and its bytes are nobody's choice: the mask is zero, which any receiver undoes as it does every mask, and which
costs neither side a look at each byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

CONTROL_BYTES_MAX: Final = 125
"""The payload of a ping, a pong or a close (RFC 6455, 5.5)."""

CLOSE_NORMAL: Final = 1000

_FINAL: Final = 0x80
_RESERVED: Final = 0x70
_MASKED: Final = 0x80
_MASK_BYTES: Final = 4
_NO_MASK: Final = bytes(_MASK_BYTES)

_CONTINUATION: Final = 0x0
_TEXT: Final = 0x1
_BINARY: Final = 0x2
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA

_XOR_TABLES: Final = tuple(bytes(value ^ key for value in range(256)) for key in range(256))


class FrameError(Exception):
    """The other end breaks a rule of WebSocket, or one of ours: a text message, or one that is too long."""


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping, to be answered by a pong with the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The other end closes the WebSocket; it sends nothing more.

    Attributes:
        code: why, or None if it did not say.
    """

    code: int | None


Event: TypeAlias = bytes | memoryview | Ping | Close
"""A whole message, or a control frame that asks for something. A view is of what was received, and keeps it alive."""


def encode_message(message: bytes, *, is_dialler: bool) -> bytes:
    """One binary message in one frame."""
    return _header(_BINARY, len(message), is_dialler=is_dialler) + message


def encode_pong(payload: bytes, *, is_dialler: bool) -> bytes:
    """The answer to a ping."""
    return _header(_PONG, len(payload), is_dialler=is_dialler) + payload


def encode_close(code: int = CLOSE_NORMAL, *, is_dialler: bool) -> bytes:
    """A close, or the answer to one."""
    return _header(_CLOSE, 2, is_dialler=is_dialler) + code.to_bytes(2, "big")


def _header(opcode: int, payload_bytes: int, *, is_dialler: bool) -> bytes:
    masked = _MASKED if is_dialler else 0
    mask = _NO_MASK if is_dialler else b""
    first = _FINAL | opcode
    if payload_bytes < 126:
        return bytes((first, masked | payload_bytes)) + mask
    if payload_bytes < 1 << 16:
        return bytes((first, masked | 126)) + payload_bytes.to_bytes(2, "big") + mask
    return bytes((first, masked | 127)) + payload_bytes.to_bytes(8, "big") + mask


class FrameReader:
    """Makes messages of received bytes.

    Args:
        is_dialler: whether this side dialled; the other side masks its frames if it did.
        message_bytes_max: a longer message is an error before it is received.
    """

    def __init__(self, *, is_dialler: bool, message_bytes_max: int) -> None:
        self._expected_mask = 0 if is_dialler else _MASKED
        self._message_bytes_max = message_bytes_max
        self._data: bytes | bytearray = b""
        self._at = 0
        self._next: bytes | bytearray = b""
        self._next_at = 0
        self._frame_bytes = 0
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._is_open = False

    def feed(self, data: bytes | bytearray) -> None:
        """Takes what was received; the caller empties it by `next_event` before it feeds more.

        A message that lies in one piece of it is never copied, one that lies in two once.
        """
        left_bytes = len(self._data) - self._at
        if not left_bytes:
            self._data, self._at = data, 0
        elif self._frame_bytes and left_bytes + len(data) >= self._frame_bytes:
            self._next, self._next_at = data, self._frame_bytes - left_bytes
            self._data = b"".join((memoryview(self._data)[self._at :], memoryview(data)[: self._next_at]))
            self._at = 0
        else:
            if self._at or not isinstance(self._data, bytearray):
                self._data, self._at = bytearray(memoryview(self._data)[self._at :]), 0
            self._data += data

    def next_event(self) -> Event | None:
        """The next whole message or control frame; None if more bytes are needed.

        Raises:
            FrameError: nothing more can be read.
        """
        while True:
            data, at = self._data, self._at
            if at == len(data):
                self._data, self._at = data, at = self._next, self._next_at
                self._next, self._next_at = b"", 0
            self._frame_bytes = 0
            if len(data) < at + 2:
                return None
            first, length = data[at], data[at + 1] & 0x7F
            if data[at + 1] & _MASKED != self._expected_mask:
                raise FrameError("masked as only the other side may")
            begin = at + 2
            if length > CONTROL_BYTES_MAX:
                begin += 2 if length == 126 else 8
                if len(data) < begin:
                    return None
                length = int.from_bytes(data[at + 2 : begin], "big")
            self._check(first, length)
            mask = b""
            if self._expected_mask:
                mask = bytes(data[begin : begin + _MASK_BYTES])
                begin += _MASK_BYTES
            end = begin + length
            if len(data) < end:
                self._frame_bytes = end - at
                return None
            payload = memoryview(data)[begin:end]
            self._at = end
            event = self._take(first, payload if mask in (b"", _NO_MASK) else _unmask(payload, mask))
            if event is not None:
                return event

    def _check(self, first: int, length: int) -> None:
        """Looks at a frame before its payload is awaited."""
        opcode = first & 0x0F
        if first & _RESERVED:
            raise FrameError("an extension that was not agreed on")
        if opcode >= _CLOSE:
            if opcode > _PONG or length > CONTROL_BYTES_MAX or not first & _FINAL:
                raise FrameError("no control frame")
        elif opcode == _TEXT:
            raise FrameError("a text message")
        elif opcode > _BINARY or (opcode == _CONTINUATION) != self._is_open:
            raise FrameError("a frame out of place")
        elif self._parts_bytes + length > self._message_bytes_max:
            raise FrameError("a message that is too long")

    def _take(self, first: int, payload: bytes | memoryview) -> Event | None:
        opcode = first & 0x0F
        if opcode == _CLOSE:
            return Close(int.from_bytes(payload[:2], "big") if len(payload) >= 2 else None)
        if opcode == _PING:
            return Ping(bytes(payload))
        if opcode == _PONG:
            return None
        if first & _FINAL and not self._is_open:
            return payload
        if payload:  # any number of empty ones costs no memory
            self._parts.append(bytes(payload))
            self._parts_bytes += len(payload)
        self._is_open = not first & _FINAL
        if self._is_open:
            return None
        message = b"".join(self._parts)
        self._parts, self._parts_bytes = [], 0
        return message


def _unmask(payload: memoryview, mask: bytes) -> bytes:
    data = bytearray(payload)
    for offset, key in enumerate(mask):
        data[offset::_MASK_BYTES] = data[offset::_MASK_BYTES].translate(_XOR_TABLES[key])
    return bytes(data)
