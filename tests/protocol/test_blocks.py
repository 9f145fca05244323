from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard

from peersd_protocol import blocks
from peersd_protocol.constants import BLOCK_BYTES_MAX, BLOCKS_PER_BODY_MAX, BODY_BYTES_MAX, COMPRESS_BYTES_MIN
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError

TEXT = b"one row, much like the others; " * 20


def refused(block: bytes) -> CloseCode:
    with pytest.raises(RemoteProtocolError) as caught:
        blocks.decode_block(block)
    return caught.value.close_code


def frame_of(raw: bytes, **options: object) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(raw)  # type: ignore[arg-type]


def test_a_body_comes_back_from_its_blocks() -> None:
    noise = random.Random(1).randbytes(700_000)
    for body in (b"", b"x", TEXT, noise, b"\x00" * 600_000, TEXT + noise):
        assert blocks.join_blocks(blocks.split_body(body)) == body


def test_an_empty_body_has_no_blocks() -> None:
    assert blocks.split_body(b"") == []
    assert blocks.join_blocks([]) == b""


def test_short_and_incompressible_bodies_stay_raw() -> None:
    assert blocks.split_body(b"a" * (COMPRESS_BYTES_MIN - 1)) == [b"\x00" + b"a" * (COMPRESS_BYTES_MIN - 1)]
    noise = random.Random(1).randbytes(10_000)
    assert blocks.split_body(noise) == [b"\x00" + noise]


def test_a_compressible_body_becomes_one_zstd_frame() -> None:
    (block,) = blocks.split_body(TEXT)
    assert block[0] == 1
    assert len(block) < 70
    assert zstandard.ZstdDecompressor().decompress(block[1:]) == TEXT


def test_no_block_of_ours_is_above_the_bound() -> None:
    noise = random.Random(2).randbytes(3 * BLOCK_BYTES_MAX)
    made = blocks.split_body(noise)
    assert [len(block) for block in made] == [BLOCK_BYTES_MAX] * 3 + [4]
    assert blocks.join_blocks(made) == noise


def test_a_block_hash_covers_the_codec_byte() -> None:
    assert blocks.block_hash(b"\x00a") != blocks.block_hash(b"\x01a")


@pytest.mark.parametrize("raw", [1, 255, 256, BLOCK_BYTES_MAX])
def test_a_block_may_hold_up_to_the_bound(raw: int) -> None:
    assert blocks.decode_block(b"\x01" + frame_of(b"a" * raw)) == b"a" * raw


def test_a_frame_with_a_checksum_is_read() -> None:
    assert blocks.decode_block(b"\x01" + frame_of(TEXT, write_checksum=True)) == TEXT


@pytest.mark.parametrize("block", [b"", b"\x00", b"\x01", b"\x02", b"\x01abc", b"\x01" + b"\x28\xb5\x2f\xfd"])
def test_an_empty_or_garbled_block_is_refused(block: bytes) -> None:
    assert refused(block) is CloseCode.MALFORMED


def test_a_frame_is_refused_unless_it_is_one_whole_frame_of_stated_size() -> None:
    good = frame_of(TEXT)
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"abcd"
    for frame in (
        good + b"\x00",
        good + good,
        good + skippable,
        skippable + good,
        good[:-1],
        frame_of(TEXT, write_content_size=False),
        frame_of(b""),
        good[:4] + bytes([good[4] | 8]) + good[5:],
    ):
        assert refused(b"\x01" + frame) is CloseCode.MALFORMED


def test_a_frame_that_needs_a_dictionary_is_refused() -> None:
    dictionary = zstandard.ZstdCompressionDict(
        zstandard.train_dictionary(4096, [TEXT[n:] + bytes([n]) * n for n in range(200)]).as_bytes()
    )
    assert refused(b"\x01" + frame_of(TEXT, dict_data=dictionary)) is CloseCode.MALFORMED


def test_a_frame_that_states_a_wrong_size_is_refused() -> None:
    # Single segment, one byte of size, one raw block.
    stated = lambda size: b"\x01\x28\xb5\x2f\xfd\x20" + bytes([size]) + bytes([4 << 3 | 1, 0, 0]) + b"abcd"  # noqa: E731
    assert blocks.decode_block(stated(4)) == b"abcd"
    assert refused(stated(3)) is CloseCode.MALFORMED
    assert refused(stated(5)) is CloseCode.MALFORMED


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    assert refused(b"\x01" + frame_of(b"a" * (BLOCK_BYTES_MAX + 1))) is CloseCode.TOO_LARGE
    assert refused(b"\x01" + frame_of(b"a" * (64 << 20))) is CloseCode.TOO_LARGE


def test_a_window_beyond_the_bound_is_refused() -> None:
    # A window descriptor of 2**27 bytes, a stated size of 4 bytes.
    frame = b"\x28\xb5\x2f\xfd" + bytes([0x80, (27 - 10) << 3]) + (4).to_bytes(4, "little") + bytes([4 << 3 | 1, 0, 0]) + b"abcd"
    assert refused(b"\x01" + frame) is CloseCode.TOO_LARGE


def test_an_encoded_block_beyond_the_bound_is_refused() -> None:
    assert refused(b"\x00" + b"a" * BLOCK_BYTES_MAX) is CloseCode.TOO_LARGE
    assert blocks.decode_block(b"\x00" + b"a" * (BLOCK_BYTES_MAX - 1)) == b"a" * (BLOCK_BYTES_MAX - 1)


@pytest.mark.parametrize("codec", [2, 3, 255])
def test_a_codec_of_a_later_version_is_unknown_and_not_refused(codec: int) -> None:
    with pytest.raises(blocks.UnknownCodec):
        blocks.join_blocks([b"\x00a", bytes([codec]) + b"sealed"])


def test_a_body_of_too_many_blocks_or_bytes_is_refused() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        blocks.join_blocks([b"\x00a"] * (BLOCKS_PER_BODY_MAX + 1))
    assert caught.value.close_code is CloseCode.TOO_LARGE
    full = b"\x01" + frame_of(b"a" * BLOCK_BYTES_MAX)
    count = BODY_BYTES_MAX // BLOCK_BYTES_MAX
    assert len(blocks.join_blocks([full] * count)) == BODY_BYTES_MAX
    with pytest.raises(RemoteProtocolError) as caught:
        blocks.join_blocks([full] * count + [b"\x00a"])
    assert caught.value.close_code is CloseCode.TOO_LARGE


def test_our_own_mistakes_are_ours() -> None:
    with pytest.raises(LocalProtocolError):
        blocks.encode_block(b"")
    with pytest.raises(LocalProtocolError):
        blocks.encode_block(b"a" * BLOCK_BYTES_MAX)
    with pytest.raises(LocalProtocolError):
        blocks.split_body(bytes(BODY_BYTES_MAX + 1))


def test_threads_do_not_share_a_compressor_at_once() -> None:
    bodies = [random.Random(seed).randbytes(50) * 2000 for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for body, made in zip(bodies * 5, pool.map(blocks.split_body, bodies * 5), strict=True):
            assert blocks.join_blocks(made) == body


def test_small_blocks_are_decoded_together_to_what_each_is_by_itself() -> None:
    bodies = [b"one", b"another", TEXT]
    small = [blocks.encode_block(body) for body in bodies]
    assert small[2][0] == blocks.ZSTD
    assert blocks.decode_small_blocks(small, 10_000) == bodies
    assert blocks.decode_small_blocks(small[:2], 10_000) == bodies[:2]
    assert blocks.decode_small_blocks(small, len(b"".join(bodies)) - 1) == bodies[:2]
    assert blocks.decode_small_blocks(small[:2], len(b"".join(bodies[:2]))) == bodies[:2]
    assert blocks.decode_small_blocks(small[:2], len(b"".join(bodies[:2])) - 1) == bodies[:1]


@pytest.mark.parametrize("bad", [b"", b"\x00", b"\x01", b"\x01x", b"\x02sealed"])
def test_of_small_blocks_those_before_one_that_is_not_as_it_has_to_be_are_decoded_together(bad: bytes) -> None:
    assert blocks.decode_small_blocks([b"\x00one", bad, b"\x00three"], 10_000) == [b"one"]
    assert blocks.decode_small_blocks([bad, b"\x00two"], 10_000) == []
