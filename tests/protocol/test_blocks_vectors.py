"""The implementation against protocol/vectors/blocks.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peersd_protocol import blocks
from peersd_protocol.entries import body_hash
from peersd_protocol.errors import CloseCode, RemoteProtocolError

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "protocol" / "vectors" / "blocks.json").read_text())


def encoded(case: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(block) for block in case["blocks"]]


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])
def test_valid_blocks_join_to_the_body(case: dict[str, Any]) -> None:
    if case.get("unknown"):
        with pytest.raises(blocks.UnknownCodec):
            blocks.join_blocks(encoded(case))
        return
    assert blocks.join_blocks(encoded(case)).hex() == case["body"]
    hashes = [blocks.block_hash(block) for block in encoded(case)]
    assert [value.hex() for value in hashes] == case["block_hashes"]
    assert body_hash(hashes).hex() == case["body_hash"]


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_invalid_blocks_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        blocks.join_blocks(encoded(case))
    assert caught.value.close_code is CloseCode[case["error"]]
