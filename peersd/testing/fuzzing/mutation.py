"""Changes to values and bytes that a hostile device may make: of one bit, one field, one length, or of everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

import msgpack

from peersd_protocol.canonical import Value
from peersd_protocol.constants import MESSAGE_BYTES_MAX

BOUNDARIES: Final = (
    *(0, 1, -1, -32, -33, 23, 24, 127, 128, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**32),
    *(2**48, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**31), -(2**63)),
)
"""Integers at which a width, a sign or a bound ends."""

GROWN_ITEMS_MAX: Final = 5_000
"""Elements that a list grows to: above most bounds of lists."""

_NESTING: Final = (2, 40, 500, 1_023, 1_025, 3_000)
_NEST: Final = "nested"
"""Stands for a value in so many lists until one is wanted: they are slow to make."""


# --- Values ---------------------------------------------------------------------------------------------------------------------


def mutate_value(random: Random, value: Value) -> Value:
    """The same value but for one node, anywhere in it."""
    paths = _paths(value)
    return _replace(value, random.choice(paths), lambda node: _mutate_node(random, node))


def _paths(value: Value) -> list[tuple[int, ...]]:
    """Where the nodes of a value stand; at most some 200 of them."""
    found: list[tuple[int, ...]] = [()]
    at = 0
    while at < len(found) < 200:
        node = _node(value, found[at])
        if isinstance(node, list | tuple):
            found += [(*found[at], index) for index in range(min(len(node), 16))]
        at += 1
    return found


def _node(value: Value, path: Sequence[int]) -> Value:
    for index in path:
        assert isinstance(value, list | tuple)
        value = value[index]
    return value


def _replace(value: Value, path: Sequence[int], change: Callable[[Value], Value]) -> Value:
    if not path:
        return change(value)
    assert isinstance(value, list | tuple)
    return [_replace(item, path[1:], change) if index == path[0] else item for index, item in enumerate(value)]


def _mutate_node(random: Random, node: Value) -> Value:
    if random.random() < 0.2:
        return _other_type(random, node)
    if isinstance(node, bool) or node is None:
        plain: list[Value] = [not node, 0, 1, b""]
        return random.choice(plain)
    if isinstance(node, int):
        near = node + random.choice((-1, 1, 2, 1 << random.randrange(64)))
        return random.choice((*BOUNDARIES, *([near] * 8 if -(2**63) <= near < 2**64 else [])))
    if isinstance(node, bytes):
        return mutate_bytes(random, node)
    if isinstance(node, str):
        longer = node * min(300, 1 + MESSAGE_BYTES_MAX // max(1, len(node)))
        return random.choice([node + "\u202e", longer, "", node[:-1], "\0" + node, " " + node])
    if isinstance(node, list | tuple):
        return _mutate_list(random, list(node))
    return random.choice([float("nan"), float("inf"), -0.0, 0])


def _other_type(random: Random, node: Value) -> Value:
    depth = random.choice(_NESTING)
    other: Value = random.choice([None, True, False, 0, -1, 1.5, "text", b"", bytes(32), [], [[]], [node], _NEST])
    if other is _NEST:
        other = node
        for _ in range(depth):
            other = [other]
    return other


def _mutate_list(random: Random, items: list[Value]) -> Value:
    at = random.randrange(len(items)) if items else 0
    step = random.randrange(7)
    if step == 0:
        return [*items[:at], *items[at + 1 :]]
    if step == 1 and items:
        return [*items[:at], items[at], *items[at:]]
    if step == 2 and len(items) > 1:
        other = random.randrange(len(items))
        items[at], items[other] = items[other], items[at]
        return items
    if step == 3:
        return items[::-1]
    if step == 4 and items:
        count = random.choice((8, 64, 256, 257, GROWN_ITEMS_MAX))
        # Above the longest message it is cut off anyway; made, it would take more memory here than the device may take there.
        return [*items, *[items[at]] * min(count, MESSAGE_BYTES_MAX // len(pack(items[at])) + 1)]
    if step == 5:
        return []
    return [*items, random.choice([None, 0, b"", [], "more"])]


# --- Bytes ----------------------------------------------------------------------------------------------------------------------


def mutate_bytes(random: Random, data: bytes) -> bytes:
    """Other bytes: bits flipped, cut, grown, overwritten."""
    step = random.randrange(7)
    at = random.randrange(len(data)) if data else 0
    if step <= 1 and data:
        flipped = bytearray(data)
        for _ in range(random.choice((1, 1, 1, 2, 8))):
            flipped[random.randrange(len(flipped))] ^= 1 << random.randrange(8)
        return bytes(flipped)
    if step == 2:
        return data[:at]
    if step == 3:
        return data[:at] + random.randbytes(random.choice((1, 2, 4, 40, 400))) + data[at:]
    if step == 4:
        return random.randbytes(len(data))
    if step == 5:
        return data[:at] + b"\xff" * min(8, len(data) - at) + data[at + 8 :]
    return data + bytes(random.choice((1, 3, 31, 600)))


# --- Encodings ------------------------------------------------------------------------------------------------------------------


def mutate_encoding(random: Random, value: Value) -> bytes:
    """Bytes that say the value, or nearly, and are not its canonical encoding."""
    encoded = pack(value)
    step = random.randrange(5)
    if step == 0:
        return mutate_bytes(random, encoded)
    if step == 1:
        return encoded + random.choice((b"\xc0", b"\x90", encoded))
    if step == 2:
        return _with_odd_node(random, value, _longer)
    if step == 3:
        return _with_odd_node(random, value, lambda _: random.choice(_FOREIGN))
    return _with_odd_node(random, value, lambda _: random.choice(_HUGE_LENGTHS))


_FOREIGN: Final = (
    *(b"\x80", b"\x82\x01\x02\x01\x03", b"\xde\x00\x01\x01\x01", b"\xdf\x00\x00\x00\x00"),  # maps; one has a key twice
    *(b"\xd4\x01\x00", b"\xc7\x00\x05", b"\xd6\xff\x00\x00\x00\x00", b"\xc1", b"\xca\x00\x00\x00\x00"),  # extensions, float 32
    *(b"\xa2\xc3\x28", b"\xa3\xed\xa0\x80"),  # text that is no UTF-8, and a surrogate
)

_HUGE_LENGTHS: Final = (
    *(b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\x7f\xff\xff\xff", b"\xdf\xff\xff\xff\xff"),
    *(b"\xdc\xff\xff", b"\xc5\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xdd\x00\x10\x00\x00"),
)


def _with_odd_node(random: Random, value: Value, oddly: Callable[[Value], bytes]) -> bytes:
    """The encoding of a value in which one node is encoded by `oddly`."""
    return _encode_along(value, random.choice(_paths(value)), oddly)


def _encode_along(value: Value, path: Sequence[int], oddly: Callable[[Value], bytes]) -> bytes:
    if not path:
        return oddly(value)
    assert isinstance(value, list | tuple)
    items = [_encode_along(item, path[1:], oddly) if index == path[0] else pack(item) for index, item in enumerate(value)]
    return _array_header(len(items)) + b"".join(items)


def pack(value: Value) -> bytes:
    """The canonical encoding of a value, however deep it is."""
    try:
        packed = msgpack.packb(value, use_bin_type=True)
    except ValueError:  # nested deeper than msgpack packs
        return _pack_deep(value)
    assert isinstance(packed, bytes)
    return packed


def _array_header(length: int) -> bytes:
    header = msgpack.Packer().pack_array_header(length)
    assert isinstance(header, bytes)
    return header


def _pack_deep(value: Value) -> bytes:
    packed = bytearray()  # a list of the parts would take some fifty times as much, more than the device may
    left: list[Value] = [value]
    while left:
        node = left.pop()
        if isinstance(node, list | tuple):
            packed += _array_header(len(node))
            left += reversed(node)
        else:
            packed += pack(node)
    return bytes(packed)


def _longer(value: Value) -> bytes:
    """A value in a longer form than it needs."""
    if isinstance(value, bool) or value is None or isinstance(value, float):
        return pack(value)
    if isinstance(value, int):
        return b"\xd3" + value.to_bytes(8, "big", signed=True) if value < 2**63 else b"\xcf" + value.to_bytes(8, "big")
    if isinstance(value, bytes):
        return b"\xc6" + len(value).to_bytes(4, "big") + value
    if isinstance(value, str):
        text = value.encode()
        return b"\xdb" + len(text).to_bytes(4, "big") + text
    return b"\xdd" + len(value).to_bytes(4, "big") + b"".join(map(pack, value))
