"""The implementation against protocol/vectors/handshake.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peersd_protocol.devicekeys import DeviceKeys
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.handshake import Established, Handshake, Role

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "protocol" / "vectors" / "handshake.json").read_text())


def side_of(role: Role, case: dict[str, Any], *, replaces: str = "", is_alone: bool = False) -> Handshake:
    described = case[role.value]
    keys = DeviceKeys(*(bytes.fromhex(described[name]) for name in ("signing_seed", "noise_private", "sealing_private")))
    return Handshake(
        role,
        keys,
        boot_id=bytes.fromhex(described["boot_id"]),
        ephemeral_private=bytes.fromhex(described["ephemeral_private"]),
        replaces=bytes.fromhex(replaces),
        is_alone=(lambda _device: True) if is_alone else None,
    )


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])
def test_valid_handshakes_come_out_byte_for_byte(case: dict[str, Any]) -> None:
    stated = case["dialler"]
    dialler = side_of(Role.DIALLER, case, replaces=stated["replaces"], is_alone=stated["is_alone"])
    listener = side_of(Role.LISTENER, case)
    first, second, third = (bytes.fromhex(message) for message in case["messages"])
    assert dialler.start() == first
    assert listener.receive(first).reply == second
    step = dialler.receive(second)
    assert step.reply == third
    sides: dict[str, Established | None] = {"dialler": step.result, "listener": listener.receive(third).result}
    for name, other in (("dialler", "listener"), ("listener", "dialler")):
        established = sides[name]
        assert established is not None
        assert established.handshake_hash.hex() == case["handshake_hash"]
        assert established.remote_device.hex() == case[other]["device"]
        assert established.is_alone is stated["is_alone"]
        assert established.remote_boot_id.hex() == case[other]["boot_id"]
        assert established.remote_replaces.hex() == case[other].get("replaces", "")
    for message in case["transport"]:
        sender, receiver = sides[message["sender"]], sides["listener" if message["sender"] == "dialler" else "dialler"]
        assert sender is not None and receiver is not None
        assert sender.send.encrypt(bytes.fromhex(message["plaintext"])).hex() == message["ciphertext"]
        assert receiver.receive.decrypt(bytes.fromhex(message["ciphertext"])).hex() == message["plaintext"]


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_invalid_messages_are_refused_with_the_stated_code(case: dict[str, Any]) -> None:
    side = side_of(Role(case["side"]), VECTORS["valid"][0])
    side.start()
    *before, last = (bytes.fromhex(message) for message in case["received"])
    for message in before:
        side.receive(message)
    with pytest.raises(RemoteProtocolError) as caught:
        side.receive(last)
    assert caught.value.close_code is CloseCode[case["error"]]
