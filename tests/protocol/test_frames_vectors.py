"""The implementation against protocol/vectors/frames.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.frames import FrameType, decode_frames, encode_frame

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "protocol" / "vectors" / "frames.json").read_text())


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: "+".join(frame["type"] for frame in case["frames"]))
def test_valid_plaintexts_hold_these_frames(case: dict[str, Any]) -> None:
    frames = [(FrameType[frame["type"]], frame["channel"], bytes.fromhex(frame["payload"])) for frame in case["frames"]]
    decoded = decode_frames(bytes.fromhex(case["plaintext"]))
    assert [(kind, channel, bytes(payload)) for kind, channel, payload in decoded] == frames
    assert b"".join(encode_frame(*frame) for frame in frames).hex() == case["plaintext"]


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["why"])
def test_invalid_plaintexts_are_refused_with_their_code(case: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_frames(bytes.fromhex(case["plaintext"]))
    assert caught.value.close_code is CloseCode[case["error"]]
