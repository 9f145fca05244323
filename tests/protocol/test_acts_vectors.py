"""The implementation against protocol/vectors/acts.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peersd_protocol import canonical
from peersd_protocol.acts import DecodedBody, NoAct, UnknownAct, decode_act, encode_body
from peersd_protocol.constants import ACT_BYTES_MAX
from peersd_protocol.entries import Kind
from peersd_protocol.errors import CloseCode, RemoteProtocolError

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "protocol" / "vectors" / "acts.json").read_text())


def decoded(case: dict[str, Any]) -> DecodedBody:
    return decode_act(Kind(case["kind"]), canonical.decode(bytes.fromhex(case["body"]), bytes_max=ACT_BYTES_MAX))


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])
def test_valid_bodies_decode_and_encode_to_the_same_bytes(case: dict[str, Any]) -> None:
    body = decoded(case)
    if "unknown" in case:
        assert body == UnknownAct(case["unknown"])
    else:
        assert not isinstance(body, UnknownAct | NoAct)
        assert encode_body(body).hex() == case["body"]


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_invalid_bodies_are_refused_with_the_stated_code(case: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decoded(case)
    assert caught.value.close_code is CloseCode[case["error"]]
