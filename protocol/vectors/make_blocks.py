"""Blocks and bodies: SPEC, E-13 ff. Frames are written by hand: what a compressor makes changes with its version."""

from __future__ import annotations

from typing import Any

from peersd_protocol import blocks, entries
from peersd_protocol.constants import BLOCK_BYTES_MAX

MAGIC = b"\x28\xb5\x2f\xfd"
SINGLE_SEGMENT_1 = b"\x20"
SINGLE_SEGMENT_4 = b"\xa0"


def raw(content: bytes, *, last: bool = True) -> bytes:
    """A raw block of zstd."""
    return (len(content) << 3 | last).to_bytes(3, "little") + content


def repeated(byte: bytes, count: int, *, last: bool = True) -> bytes:
    """An RLE block of zstd."""
    return (count << 3 | 2 | last).to_bytes(3, "little") + byte


def frame(content: bytes, size: int | None = None) -> bytes:
    """A frame of one raw block that states a size."""
    return MAGIC + SINGLE_SEGMENT_1 + bytes([len(content) if size is None else size]) + raw(content)


def stating(size: int, *parts: bytes) -> bytes:
    return MAGIC + SINGLE_SEGMENT_4 + size.to_bytes(4, "little") + b"".join(parts)


SKIPPABLE = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"abcd"


def valid(name: str, encoded: list[bytes], body: bytes) -> dict[str, Any]:
    hashes = [blocks.block_hash(block) for block in encoded]
    return {
        "name": name,
        "blocks": [block.hex() for block in encoded],
        "body": body.hex(),
        "block_hashes": [value.hex() for value in hashes],
        "body_hash": entries.body_hash(hashes).hex(),
    }


def invalid(name: str, error: str, *encoded: bytes) -> dict[str, Any]:
    return {"name": name, "error": error, "blocks": [block.hex() for block in encoded]}


def make() -> dict[str, Any]:
    """All cases. A case with "unknown" is of a later version: it is held, and neither refused nor understood."""
    two_runs = stating(1000, repeated(b"x", 600, last=False), repeated(b"y", 400))
    return {
        "description": "Bodies from their blocks (SPEC: E-13 to E-19). `blocks` are encoded blocks, `body` the raw body.",
        "valid": [
            valid("empty body", [], b""),
            valid("one raw block", [b"\x00abc"], b"abc"),
            valid("one zstd block", [b"\x01" + frame(b"abcd")], b"abcd"),
            valid("zstd with runs", [b"\x01" + two_runs], b"x" * 600 + b"y" * 400),
            valid("zstd with a window", [b"\x01" + MAGIC + b"\x80\x00" + (3).to_bytes(4, "little") + raw(b"abc")], b"abc"),
            valid("blocks of both codecs", [b"\x00a", b"\x01" + frame(b"b"), b"\x00c"], b"abc"),
            {"name": "sealed", "unknown": True, "blocks": [b"\x02sealed".hex()]},
            {"name": "codec of a later version", "unknown": True, "blocks": [b"\x00a".hex(), b"\xff??".hex()]},
        ],
        "invalid": [
            invalid("no codec", "MALFORMED", b""),
            invalid("raw block without content", "MALFORMED", b"\x00"),
            invalid("zstd block without a frame", "MALFORMED", b"\x01"),
            invalid("no zstd frame", "MALFORMED", b"\x01abcdefgh"),
            invalid("skippable frame", "MALFORMED", b"\x01" + SKIPPABLE),
            invalid("skippable frame before", "MALFORMED", b"\x01" + SKIPPABLE + frame(b"abcd")),
            invalid("skippable frame after", "MALFORMED", b"\x01" + frame(b"abcd") + SKIPPABLE),
            invalid("two frames", "MALFORMED", b"\x01" + frame(b"abcd") + frame(b"abcd")),
            invalid("trailing byte", "MALFORMED", b"\x01" + frame(b"abcd") + b"\x00"),
            invalid("truncated", "MALFORMED", b"\x01" + frame(b"abcd")[:-1]),
            invalid("states too much", "MALFORMED", b"\x01" + frame(b"abcd", 5)),
            invalid("states too little", "MALFORMED", b"\x01" + frame(b"abcd", 3)),
            invalid("states nothing", "MALFORMED", b"\x01" + MAGIC + b"\x00\x00" + raw(b"abcd")),
            invalid("states zero", "MALFORMED", b"\x01" + frame(b"")),
            invalid("needs a dictionary", "MALFORMED", b"\x01" + MAGIC + b"\x21\x07\x04" + raw(b"abcd")),
            invalid("reserved bit", "MALFORMED", b"\x01" + MAGIC + b"\x28\x04" + raw(b"abcd")),
            invalid("content above the bound", "TOO_LARGE", b"\x01" + stating(BLOCK_BYTES_MAX + 1, repeated(b"x", 5))),
            invalid(
                "window above the bound", "TOO_LARGE", b"\x01" + MAGIC + b"\x80\x48" + (4).to_bytes(4, "little") + raw(b"abcd")
            ),
            invalid("second block is bad", "MALFORMED", b"\x00a", b"\x01"),
        ],
    }
