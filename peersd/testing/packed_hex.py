"""Long bytes in a vector file: counts of repeated pieces instead of all of it."""

from __future__ import annotations

from typing import Any


def packed_hex(data: bytes) -> str | list[list[Any]]:
    """Bytes as hex; where they are long, as counts of repeated pieces, so that the file stays small."""
    if len(data) <= 2_000:
        return data.hex()
    pieces: list[list[Any]] = []
    at = 0
    while at < len(data):
        size = next((size for size in range(1, 400) if data[at : at + size] * 4 == data[at : at + 4 * size]), None)
        if size is None:
            if pieces and pieces[-1][0] == 1:
                pieces[-1][1] += data[at : at + 1].hex()
            else:
                pieces.append([1, data[at : at + 1].hex()])
            at += 1
            continue
        piece, count = data[at : at + size], 0
        while data[at : at + size] == piece:
            count, at = count + 1, at + size
        pieces.append([count, piece.hex()])
    return pieces
