"""Columns of a changeset as they travel: an array of values, or packed where all are alike (SPEC: D-20).

What tells values apart stands once, and the bytes of numbers stand by their places, the highest first: alike bytes lie together,
and zstd finds in each part the bytes of one kind.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, TypeAlias, cast

from peersd_protocol.constants import PACKED_CELLS_MIN
from peersd_protocol.fields import malformed

Scalar: TypeAlias = None | int | float | str | bytes
"""A value as SQLite stores it."""

Column: TypeAlias = Sequence[Scalar]

_NUMBER_BYTES: Final = 8
_DOUBLES: Final = 9
_BLOBS: Final = 10
_TEXTS: Final = 11
"""The first byte of a packed column; below are integers of so many bytes."""

_LENGTH_MAX: Final = 255

_SIGN: Final = bytes(0xFF if byte & 0x80 else 0 for byte in range(256))
"""The bytes above the highest that travels, by that one."""


def pack_column(column: Column) -> Column | bytes:
    """A column as it travels: packed if it has PACKED_CELLS_MIN values and they are alike, else as it is."""
    if len(column) < PACKED_CELLS_MIN:
        return column
    types = set(map(type, column))
    if types == {int}:
        integers = cast("Sequence[int]", column)
        highest, lowest = max(integers), min(integers)
        width = max(highest, ~lowest).bit_length() // 8 + 1  # with a bit for the sign
        return bytes((width,)) + _take_apart(struct.pack(f">{len(column)}q", *integers), width)
    if types == {float}:
        return bytes((_DOUBLES,)) + _take_apart(struct.pack(f">{len(column)}d", *column), _NUMBER_BYTES)
    if types == {bytes}:
        blobs = cast("Sequence[bytes]", column)
        length = len(blobs[0])
        return bytes((_BLOBS, length)) + b"".join(blobs) if _are_long(blobs, length) else column
    if types == {str}:
        texts = cast("Sequence[str]", column)
        length, joined = len(texts[0]), "".join(texts)
        return bytes((_TEXTS, length)) + joined.encode() if _are_long(texts, length) and joined.isascii() else column
    return column


def packed_cells(packed: bytes) -> int:
    """How many values a packed column has, at least PACKED_CELLS_MIN.

    Raises:
        RemoteProtocolError: MALFORMED if it is of no known kind, cut off, or too short.
    """
    if len(packed) < 2:
        raise malformed("a packed column is cut off")
    kind = packed[0]
    if not 1 <= kind <= _TEXTS:
        raise malformed(f"a packed column of kind {kind}")
    stride, data_bytes = min(kind, _NUMBER_BYTES), len(packed) - 1
    if kind >= _BLOBS:
        stride, data_bytes = packed[1], data_bytes - 1
    if not stride or data_bytes % stride or data_bytes // stride < PACKED_CELLS_MIN:
        raise malformed("the length of a packed column")
    return data_bytes // stride


def unpack_column(packed: bytes) -> list[Scalar]:
    """The values of a packed column.

    Raises:
        RemoteProtocolError: MALFORMED.
    """
    count, kind = packed_cells(packed), packed[0]
    if kind <= _DOUBLES:
        return list(struct.unpack(f">{count}{'d' if kind == _DOUBLES else 'q'}", _put_together(packed, count)))
    length = packed[1]
    if kind == _BLOBS:
        return [blob for (blob,) in struct.iter_unpack(f"{length}s", memoryview(packed)[2:])]
    try:
        joined = packed[2:].decode("ascii")
    except UnicodeDecodeError as error:
        raise malformed("a packed column of texts") from error
    return [joined[at : at + length] for at in range(0, len(joined), length)]


def _are_long(values: Sequence[bytes | str], length: int) -> bool:
    """Whether all have this length, and it is one that is worth stating once."""
    return 1 <= length <= _LENGTH_MAX and set(map(len, values)) == {length}


def _take_apart(numbers: bytes, width: int) -> bytes:
    """The first bytes of all numbers, then the second ones and so on, only the last `width` of each."""
    return b"".join([numbers[at::_NUMBER_BYTES] for at in range(_NUMBER_BYTES - width, _NUMBER_BYTES)])


def _put_together(packed: bytes, count: int) -> bytearray:
    """Undoes `_take_apart` for what stands behind a packed column's first byte."""
    numbers = bytearray(_NUMBER_BYTES * count)
    missing = _NUMBER_BYTES - min(packed[0], _NUMBER_BYTES)
    if missing:
        sign = packed[1 : 1 + count].translate(_SIGN)
        for at in range(missing):
            numbers[at::_NUMBER_BYTES] = sign
    for at in range(missing, _NUMBER_BYTES):
        begin = 1 + (at - missing) * count
        numbers[at::_NUMBER_BYTES] = packed[begin : begin + count]
    return numbers
