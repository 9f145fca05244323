"""Strict readers of the fields of decoded arrays: each returns the field in its type and bounds, or raises MALFORMED."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from peersd_protocol.canonical import Value
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.signing import HASH_BYTES


def malformed(detail: str) -> RemoteProtocolError:
    """The error to raise; `detail` names the field and never its content."""
    return RemoteProtocolError(CloseCode.MALFORMED, detail)


def read_array(
    value: Value | Sequence[Value], what: str, *, length: int | None = None, items_max: int | None = None
) -> Sequence[Value]:
    """An array, of exactly `length` or at most `items_max` elements."""
    if not isinstance(value, list | tuple):
        raise malformed(f"{what} is no array")
    if (length is not None and len(value) != length) or (items_max is not None and len(value) > items_max):
        raise malformed(f"{what} has {len(value)} elements")
    return value


def read_int(value: Value, what: str, lowest: int, highest: int) -> int:
    """An integer from `lowest` to `highest`, both included. Booleans are no integers."""
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise malformed(f"{what} is no integer from {lowest} to {highest}")
    return value


def read_bool(value: Value, what: str) -> bool:
    """A boolean."""
    if not isinstance(value, bool):
        raise malformed(f"{what} is no boolean")
    return value


def read_bytes(value: Value, what: str, length: int = HASH_BYTES) -> bytes:
    """Bytes of exactly `length`."""
    if not isinstance(value, bytes) or len(value) != length:
        raise malformed(f"{what} is not {length} bytes")
    return value


def read_blob(value: Value, what: str, bytes_max: int) -> bytes:
    """Bytes of at most `bytes_max`."""
    if not isinstance(value, bytes) or len(value) > bytes_max:
        raise malformed(f"{what} is not at most {bytes_max} bytes")
    return value


def read_text(value: Value, what: str, chars_max: int) -> str:
    """Text of at most `chars_max` code points."""
    if not isinstance(value, str) or len(value) > chars_max:
        raise malformed(f"{what} is no text of at most {chars_max} characters")
    return value


def check_ascending(items: Sequence[Any], what: str) -> None:
    """Refuses a list whose items are not strictly ascending: one set has one encoding."""
    if any(not first < second for first, second in pairwise(items)):
        raise malformed(f"{what} are not ascending")
