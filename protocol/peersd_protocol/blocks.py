"""Blocks: the pieces that a body is stored and sent in, each encoded and hashed by itself (SPEC: E-13 to E-19, DESIGN 6).

A block is a codec byte and then bytes: 0 raw, 1 one zstd frame, 2 sealed (a later version). Only the author compresses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import zstandard

from peersd_protocol.constants import (
    BLOCK_BYTES_MAX,
    BLOCKS_PER_BODY_MAX,
    BODY_BYTES_MAX,
    COMPRESS_BYTES_MIN,
    KIB,
)
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.signing import sha256

RAW: Final = 0
ZSTD: Final = 1
SEALED: Final = 2

CHUNK_BYTES: Final = BLOCK_BYTES_MAX - 1
"""What an author puts into one block: with its codec byte an incompressible chunk is still within BLOCK_BYTES_MAX."""

_RAW_START: Final = bytes([RAW])

_LEVEL: Final = 1
_BODY_LEVEL: Final = 3
_STEP_BYTES: Final = 8 * KIB
"""Columns differ in what bytes they are made of, and zstd has one code for all of one of its blocks, which it makes 128 KiB long
where it may. So an author ends them sooner: of 1,000 rows of 70 bytes (a random key, 30 random letters, an integer, a double)
it leaves 47.5 bytes a row where it left 53.5, and of rows with alike texts 30.8 where it left 32.7, in half as much time again
(measured; 4 KiB: 47.0, 16 KiB: 48.9; level 1: 47.3)."""

_FRAME_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_WINDOW_BYTES_MIN: Final = 1 * KIB
"""The smallest window that zstd has (RFC 8878, 3.1.1.1.2)."""

# zstd's objects must not be shared by two threads at once, and cost more to make than a small block costs to compress. Popping
# and appending are atomic, so each caller has the one it took for itself. Empty or full, the pool only costs time.
_compressors: deque[zstandard.ZstdCompressor] = deque(maxlen=16)
_body_compressors: deque[zstandard.ZstdCompressor] = deque(maxlen=16)
_decompressors: deque[zstandard.ZstdDecompressor] = deque(maxlen=16)


class UnknownCodec(Exception):
    """A block of a codec that a later version knows: the body is held and forwarded, and not understood."""


def compress(raw: bytes) -> bytes:
    """One zstd frame that states its content's size.

    Args:
        raw: at least one byte.
    """
    try:
        compressor = _compressors.pop()
    except IndexError:
        compressor = zstandard.ZstdCompressor(level=_LEVEL)
    frame = compressor.compress(raw)
    _compressors.append(compressor)
    return frame


def _compress_body(raw: bytes) -> bytes:
    """The same for a part of a body, whose columns are coded apart."""
    try:
        compressor = _body_compressors.pop()
    except IndexError:
        compressor = zstandard.ZstdCompressor(level=_BODY_LEVEL)
    if len(raw) <= 2 * _STEP_BYTES:
        frame = compressor.compress(raw)
    else:
        stream = compressor.compressobj(size=len(raw))
        parts: list[bytes] = []
        for start in range(0, len(raw), _STEP_BYTES):
            parts += [stream.compress(raw[start : start + _STEP_BYTES]), stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)]
        frame = b"".join((*parts, stream.flush()))
    _body_compressors.append(compressor)
    return frame


def decompress(frame: bytes, *, bytes_max: int) -> bytes:
    """The content of one zstd frame.

    Args:
        frame: the frame and nothing else.
        bytes_max: bound on the content and on the window, in bytes.

    Raises:
        RemoteProtocolError: TOO_LARGE if the content or the window is above the bound; MALFORMED if it is no single whole frame,
            does not state its content's size, states 0, or needs a dictionary.
    """
    if frame[:4] != _FRAME_MAGIC:
        raise _malformed("no zstd frame")
    try:
        parameters = zstandard.get_frame_parameters(frame)
    except zstandard.ZstdError as error:
        raise _malformed("header of a zstd frame") from error
    # The library allocates what the frame states and would ignore a bound of ours there; an absent size reads as 2**64 - 1.
    if parameters.content_size in (0, zstandard.CONTENTSIZE_UNKNOWN) or parameters.dict_id:
        raise _malformed("a zstd frame without a size, or with a dictionary")
    if parameters.content_size > bytes_max or parameters.window_size > max(bytes_max, _WINDOW_BYTES_MIN):
        raise RemoteProtocolError(CloseCode.TOO_LARGE, "zstd frame")
    try:
        decompressor = _decompressors.pop()
    except IndexError:
        decompressor = zstandard.ZstdDecompressor()
    try:
        raw = decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise _malformed("zstd frame") from error
    _decompressors.append(decompressor)
    if len(raw) != parameters.content_size:
        raise _malformed("size of a zstd frame")
    return raw


def encode_block(raw: bytes) -> bytes:
    """One block: compressed where that saves at least a sixteenth.

    Args:
        raw: 1 to CHUNK_BYTES bytes.
    """
    if not 1 <= len(raw) <= CHUNK_BYTES:
        raise LocalProtocolError(f"{len(raw)} bytes in one block")
    if len(raw) >= COMPRESS_BYTES_MIN:
        frame = _compress_body(raw)
        if len(frame) <= len(raw) - len(raw) // 16:
            return b"\x01" + frame
    return b"\x00" + raw


def decode_block(block: bytes) -> bytes:
    """The raw bytes of one block, 1 to BLOCK_BYTES_MAX.

    Raises:
        RemoteProtocolError: TOO_LARGE, MALFORMED.
        UnknownCodec: it is sealed, or of a later version.
    """
    if len(block) > BLOCK_BYTES_MAX:
        raise RemoteProtocolError(CloseCode.TOO_LARGE, "block")
    if len(block) < 2:
        raise _malformed("empty block")
    codec = block[0]
    if codec == ZSTD:
        return decompress(block[1:], bytes_max=BLOCK_BYTES_MAX)
    if codec == RAW:
        return block[1:]
    raise UnknownCodec(f"codec {codec}")


def decode_small_blocks(blocks: Sequence[bytes], bytes_max: int) -> list[bytes]:
    """The raw bytes of many blocks, each that of another body.

    Args:
        blocks: not empty.
        bytes_max: bound on all raw bytes together.

    Returns:
        The bodies of the first of them: of all within the bound, up to one that is not as it has to be or of an unknown codec.
    """
    if {block[:1] for block in blocks} == {_RAW_START} and min(map(len, blocks)) >= 2 and sum(map(len, blocks)) <= bytes_max:
        return [block[1:] for block in blocks]
    bodies: list[bytes] = []
    for block in blocks:
        try:
            body = decode_block(block)
        except (RemoteProtocolError, UnknownCodec):
            break
        bytes_max -= len(body)
        if bytes_max < 0:
            break
        bodies.append(body)
    return bodies


def block_hash(block: bytes) -> bytes:
    """SHA-256 of the encoded block."""
    return sha256(block)


def split_body(body: bytes) -> list[bytes]:
    """The encoded blocks of a raw body; none for an empty one.

    Raises:
        LocalProtocolError: above BODY_BYTES_MAX; the caller refuses such a transaction before.
    """
    if len(body) > BODY_BYTES_MAX:
        raise LocalProtocolError(f"a body of {len(body)} bytes")
    return [encode_block(body[start : start + CHUNK_BYTES]) for start in range(0, len(body), CHUNK_BYTES)]


def join_blocks(blocks: Sequence[bytes]) -> bytes:
    """The raw body from its encoded blocks.

    Raises:
        RemoteProtocolError: TOO_LARGE, MALFORMED.
        UnknownCodec: some block is sealed or of a later version, and those before it are sound.
    """
    if len(blocks) == 1:
        return decode_block(blocks[0])
    if len(blocks) > BLOCKS_PER_BODY_MAX:
        raise RemoteProtocolError(CloseCode.TOO_LARGE, "blocks of a body")
    parts: list[bytes] = []
    room_bytes = BODY_BYTES_MAX
    for block in blocks:
        part = decode_block(block)
        room_bytes -= len(part)
        if room_bytes < 0:
            raise RemoteProtocolError(CloseCode.TOO_LARGE, "body")
        parts.append(part)
    return b"".join(parts)


def _malformed(detail: str) -> RemoteProtocolError:
    return RemoteProtocolError(CloseCode.MALFORMED, detail)
