"""Bodies of acts, out of the blocks that they travel and are kept in (SPEC: E-13, E-18)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from peersd_protocol import blocks as block_codec
from peersd_protocol import canonical
from peersd_protocol.canonical import Value
from peersd_protocol.constants import ACT_BYTES_MAX, BLOCK_BYTES_MAX, MESSAGE_BYTES_MAX
from peersd_protocol.entries import Act
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.runs import Entry

_TYPE_OF_UNREADABLE: Final = 2**31 - 1
"""A type of act that no version has: what cannot be read is held and forwarded like an act of a later version."""

ACT_BLOCKS_MAX: Final = ACT_BYTES_MAX // BLOCK_BYTES_MAX + 1
"""Blocks of an act's body: they are not decoded together before their number is known."""


def decode_body(blocks: list[bytes] | None) -> list[Value]:
    """The body of an act from its blocks; an empty one for an empty body, and an unknown type for blocks of a later version.

    Raises:
        RemoteProtocolError: the blocks do not decode.
    """
    return _decode(_unpack(blocks or ()))


def decode_acts(entries: Iterable[Entry]) -> list[Act]:
    """The acts in what came before the answer to an OPEN, whose bodies are inline.

    All are held at once, and a few bytes may state a block of 256 KiB: of anybody's, as many are as one message may unpack to.

    Raises:
        RemoteProtocolError: TOO_LARGE where the bodies have more than MESSAGE_BYTES_MAX in sum, unpacked; as `decode_body`.
    """
    acts: list[Act] = []
    room_bytes = MESSAGE_BYTES_MAX
    for entry in entries:
        parts = list(_unpack(entry.body.blocks))
        # What cannot be unpacked counts as it is.
        room_bytes -= sum(len(block if part is None else part) for block, part in zip(entry.body.blocks, parts, strict=True))
        if room_bytes < 0:
            raise RemoteProtocolError(CloseCode.TOO_LARGE, "bodies of acts")
        acts.append(Act(entry.header, _decode(parts)))
    return acts


def _unpack(blocks: Sequence[bytes]) -> Iterator[bytes | None]:
    """The blocks of an act's body one after the other, unpacked; None in the place of one of a later version."""
    if len(blocks) > ACT_BLOCKS_MAX:
        raise RemoteProtocolError(CloseCode.TOO_LARGE, "body of an act")
    for block in blocks:
        try:
            yield block_codec.decode_block(block)
        except block_codec.UnknownCodec:
            yield None


def _decode(parts: Iterable[bytes | None]) -> list[Value]:
    """A body from its unpacked blocks; those behind one of a later version are not looked at."""
    known: list[bytes] = []
    for part in parts:
        if part is None:
            return [_TYPE_OF_UNREADABLE]
        known.append(part)
    return canonical.decode(b"".join(known), bytes_max=ACT_BYTES_MAX) if known else []
