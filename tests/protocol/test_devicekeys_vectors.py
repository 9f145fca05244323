"""The implementation against protocol/vectors/devicekeys.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peersd_protocol import canonical
from peersd_protocol.devicekeys import DeviceKeys, verify_consent, verify_device_cert
from peersd_protocol.errors import CloseCode, RemoteProtocolError

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "protocol" / "vectors" / "devicekeys.json").read_text())


def decoded(certificate: str) -> list[canonical.Value]:
    return canonical.decode(bytes.fromhex(certificate), bytes_max=1000)


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])
def test_valid_certificates_are_made_and_verified(case: dict[str, Any]) -> None:
    keys = DeviceKeys(*(bytes.fromhex(case[name]) for name in ("signing_seed", "noise_private", "sealing_private")))
    assert canonical.encode(keys.device_cert(case["name"])).hex() == case["certificate"]
    assert verify_device_cert(decoded(case["certificate"])).name == case["name"]
    assert keys.sign_consent(bytes.fromhex(case["user"])).hex() == case["consent"]
    assert verify_consent(keys.device, bytes.fromhex(case["user"]), bytes.fromhex(case["consent"]))


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_invalid_certificates_are_refused_with_the_stated_code(case: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        verify_device_cert(decoded(case["certificate"]))
    assert caught.value.close_code is CloseCode[case["error"]]
