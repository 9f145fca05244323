"""Canonical msgpack: the one encoding of a value, used for everything that is hashed, signed or sent (SPEC: E-1).

The subset is nil, booleans, integers of 64 bits, doubles, UTF-8 text, bytes and arrays; no maps, no extension types. Integers and
lengths take their shortest form. Bytes that decode but would encode otherwise are refused, so equal values have equal hashes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, cast

import msgpack

from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError

_NO_ARRAY_STARTS: Final = bytes(byte for byte in range(256) if not (0x90 <= byte <= 0x9F or byte in (0xDC, 0xDD)))
"""All bytes but those that an array begins with."""

Value: TypeAlias = None | bool | int | float | str | bytes | Sequence["Value"]


def encode(value: Value) -> bytes:
    """Encodes a value canonically.

    Raises:
        LocalProtocolError: the value holds a type outside the subset.
    """
    try:
        packed = msgpack.packb(value, use_bin_type=True, strict_types=False)
    except (TypeError, ValueError, OverflowError, UnicodeEncodeError) as error:
        raise LocalProtocolError(f"not encodable: {error}") from error
    assert isinstance(packed, bytes)
    return packed


def encode_array(items: Sequence[bytes]) -> bytes:
    """The array of items that are encoded already."""
    return cast("bytes", msgpack.Packer().pack_array_header(len(items))) + b"".join(items)


def make_encoder() -> Callable[[Value], bytes]:
    """What encodes many values, each canonically, and faster than `encode`; for values of the subset, in one thread."""
    return cast("Callable[[Value], bytes]", msgpack.Packer(use_bin_type=True, strict_types=False).pack)


def _refuse(*_: object) -> None:
    raise ValueError("a map or an extension")


def unpack(data: bytes, *, list_hook: Callable[[list[Any]], object] | None = None, array_max: int | None = None) -> Any:
    """Unpacks one msgpack value of the subset, canonical or not.

    msgpack makes an array as long as it says, in version 1.2 for up to 10,000 elements, before it looks at them. So it is looked
    first, without making anything, whether all are there: else a thousand within each other, 10 kB in all, take 80 MB.

    Args:
        data: of the value.
        list_hook: gets each array when it is complete, and returns what takes its place.
        array_max: bound on the elements of one array; None for none but that of the bytes.

    Raises:
        Exception: it does not unpack, there is more, it nests deeper than msgpack's own bound, or holds a map or an extension:
            ValueError, msgpack's own classes and, on surrogates, UnicodeError; and whatever `list_hook` raises.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))
    unpacker.feed(data)
    unpacker.skip()
    # The bounds of 0 alone would let empty maps and extensions through.
    return msgpack.unpackb(
        data,
        raw=False,
        list_hook=list_hook,
        object_hook=_refuse,
        ext_hook=_refuse,
        max_map_len=0,
        max_ext_len=0,
        max_array_len=len(data) if array_max is None else min(len(data), array_max),
    )


def decode(data: bytes, *, bytes_max: int, arrays_max: int | None = None) -> list[Value]:
    """Decodes one canonical array that fills `data` exactly. Arrays come back as lists.

    Args:
        data: the encoded array.
        bytes_max: bound on len(data), in bytes.
        arrays_max: bound on the arrays in it, itself included; None for none but that of the bytes.

    Raises:
        RemoteProtocolError: TOO_LARGE above a bound; MALFORMED if it does not decode, is no array, nests deeper than msgpack's
            own bound, holds a map or an extension, or is not canonical.
    """
    arrays_left = arrays_max or 0

    def count(array: list[Value]) -> list[Value]:
        nonlocal arrays_left
        arrays_left -= 1
        if arrays_left < 0:
            raise RemoteProtocolError(CloseCode.TOO_LARGE, f"more than {arrays_max} arrays")
        return array

    if len(data) > bytes_max:
        raise RemoteProtocolError(CloseCode.TOO_LARGE, f"{len(data)} bytes where {bytes_max} are allowed")
    # Fewer bytes, or fewer that an array begins with, cannot hold more arrays; then the count, a call for each, is left out.
    is_few = arrays_max is None or len(data) <= arrays_max or len(data.translate(None, _NO_ARRAY_STARTS)) <= arrays_max
    hook = None if is_few else count
    try:
        value = unpack(data, list_hook=hook)
        canonical = msgpack.packb(value, use_bin_type=True) == data
    except RemoteProtocolError:
        raise
    except Exception as error:
        raise RemoteProtocolError(CloseCode.MALFORMED, f"msgpack: {type(error).__name__}") from error
    if not isinstance(value, list):
        raise RemoteProtocolError(CloseCode.MALFORMED, "not an array")
    if not canonical:
        raise RemoteProtocolError(CloseCode.MALFORMED, "not canonical")
    return value
