"""Handshakes of links: SPEC, part N."""

from __future__ import annotations

from typing import Any

from peersd_protocol import canonical
from peersd_protocol.devicekeys import DeviceKeys
from peersd_protocol.handshake import PROLOGUE, Established, Handshake, Role
from peersd_protocol.noise import HandshakeState, X25519Key

EPHEMERAL = {"dialler": b"\x11" * 32, "listener": b"\x22" * 32}
BOOT_ID = {"dialler": b"\x33" * 16, "listener": b"\x44" * 16}
SECRETS = {
    "dialler": (b"\x51" * 32, b"\x52" * 32, b"\x53" * 32),
    "listener": (b"\x61" * 32, b"\x62" * 32, b"\x63" * 32),
    "third": (b"\x71" * 32, b"\x72" * 32, b"\x73" * 32),
}
KEYS = {name: DeviceKeys(*secrets) for name, secrets in SECRETS.items()}
REPLACES = b"\x77" * 32
TRANSPORT = (("dialler", b""), ("listener", b"first"), ("dialler", b"second"), ("dialler", bytes(range(256))), ("listener", b"x"))


def side_of(name: str, replaces: bytes = b"", *, is_alone: bool = False) -> Handshake:
    alone = (lambda _device: True) if is_alone else None
    return Handshake(
        Role(name), KEYS[name], boot_id=BOOT_ID[name], ephemeral_private=EPHEMERAL[name], replaces=replaces, is_alone=alone
    )


def described(name: str) -> dict[str, str]:
    signing_seed, noise_private, sealing_private = SECRETS[name]
    return {
        "signing_seed": signing_seed.hex(),
        "noise_private": noise_private.hex(),
        "sealing_private": sealing_private.hex(),
        "boot_id": BOOT_ID[name].hex(),
        "ephemeral_private": EPHEMERAL[name].hex(),
    }


def run(replaces: bytes, *, is_alone: bool = False) -> tuple[list[bytes], dict[str, Established]]:
    """An honest handshake: its three messages and what each side has from it."""
    dialler, listener = side_of("dialler", replaces, is_alone=is_alone), side_of("listener")
    first = dialler.start()
    assert first is not None
    second = listener.receive(first).reply
    assert second is not None
    third = dialler.receive(second)
    assert third.reply is not None and third.result is not None
    result = listener.receive(third.reply).result
    assert result is not None
    return [first, second, third.reply], {"dialler": third.result, "listener": result}


def valid(name: str, replaces: bytes, *, is_alone: bool = False) -> dict[str, Any]:
    messages, sides = run(replaces, is_alone=is_alone)
    return {
        "name": name,
        "dialler": described("dialler")
        | {"device": KEYS["dialler"].device.hex(), "replaces": replaces.hex(), "is_alone": is_alone},
        "listener": described("listener") | {"device": KEYS["listener"].device.hex()},
        "messages": [message.hex() for message in messages],
        "handshake_hash": sides["dialler"].handshake_hash.hex(),
        "transport": [
            {"sender": sender, "plaintext": plaintext.hex(), "ciphertext": sides[sender].send.encrypt(plaintext).hex()}
            for sender, plaintext in TRANSPORT
        ],
    }


def statement(keys: DeviceKeys, **changed: canonical.Value) -> bytes:
    fields: dict[str, canonical.Value] = {
        "version": 1,
        "device": keys.device,
        "signature": keys.noise_signature,
        "boot_id": b"\x55" * 16,
        "replaces": b"",
        "is_alone": False,
    }
    return canonical.encode(list((fields | changed).values()))


def message_3(payload: bytes, *, prologue: bytes = PROLOGUE, first_payload: bytes = b"") -> list[bytes]:
    """What a dialler with the third device's Noise key sends to the listener, saying `payload`."""
    third = HandshakeState(is_initiator=True, prologue=prologue, static=KEYS["third"].noise, ephemeral=X25519Key(b"\x88" * 32))
    first = third.write_message(first_payload)
    if first_payload or prologue != PROLOGUE:
        return [first]
    reply = side_of("listener").receive(first).reply
    assert reply is not None
    third.read_message(reply)
    return [first, third.write_message(payload)]


def message_2(payload: bytes, *, prologue: bytes = PROLOGUE) -> list[bytes]:
    """What a listener with the third device's Noise key answers the dialler, saying `payload`."""
    third = HandshakeState(is_initiator=False, prologue=prologue, static=KEYS["third"].noise, ephemeral=X25519Key(b"\x99" * 32))
    first = side_of("dialler").start()
    assert first is not None
    third.read_message(first)
    return [third.write_message(payload)]


def flipped(message: bytes, at: int) -> bytes:
    return message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]


def refused() -> list[tuple[str, str, list[bytes]]]:
    """(name, the side that refuses, what it receives; the last message is refused)."""
    first, second, third = run(b"")[0]
    honest, stolen = KEYS["third"], KEYS["dialler"]
    cases: list[tuple[str, str, list[bytes]]] = [
        ("message 1 is empty", "listener", [b""]),
        ("message 1 is cut short", "listener", [first[:-1]]),
        ("message 1 has a byte more", "listener", [first + b"\0"]),
        ("message 1 carries a payload", "listener", message_3(b"", first_payload=statement(honest))),
        ("the dialler's ephemeral key is of low order", "listener", [bytes(32)]),
        ("message 2 is empty", "dialler", [b""]),
        ("message 2 is cut short", "dialler", [second[:-1]]),
        ("message 2 is above the bound", "dialler", [second + bytes(609 - len(second))]),
        ("a bit of the ephemeral key in message 2 is flipped", "dialler", [flipped(second, 0)]),
        ("a bit of the static key in message 2 is flipped", "dialler", [flipped(second, 32)]),
        ("a bit of the payload in message 2 is flipped", "dialler", [flipped(second, 80)]),
        ("a bit of the last tag in message 2 is flipped", "dialler", [flipped(second, len(second) - 1)]),
        ("the listener's ephemeral key is of low order", "dialler", [bytes(32) + second[32:]]),
        ("the listener has another prologue", "dialler", message_2(statement(honest), prologue=b"peersd/2")),
        ("the listener states that it replaces a link", "dialler", message_2(statement(honest, replaces=REPLACES))),
        ("the listener states that it is alone", "dialler", message_2(statement(honest, is_alone=True))),
        ("message 3 is cut short", "listener", [first, third[:-1]]),
        ("a bit of the static key in message 3 is flipped", "listener", [first, flipped(third, 0)]),
        ("a bit of the payload in message 3 is flipped", "listener", [first, flipped(third, 48)]),
        ("message 1 is sent again as message 3", "listener", [first, first]),
    ]
    for name, payload in {
        "the payload is empty": b"",
        "the payload is not canonical": b"\xdc\x00\x06" + statement(honest)[1:],
        "a byte follows the payload's array": statement(honest) + b"\0",
        "the payload has another version": statement(honest, version=2),
        "the certificate is over another device's Noise key": statement(stolen),
        "the device key is another's": statement(honest, device=stolen.device),
        "the certificate is the sealing key's": statement(honest, signature=honest.sealing_signature),
        "the boot id is short": statement(honest, boot_id=b"\x55" * 15),
        "the replaced link's hash is short": statement(honest, replaces=b"\x77" * 31),
        "is_alone is a number": statement(honest, is_alone=0),
    }.items():
        cases.append((name + " in message 2", "dialler", message_2(payload)))
        cases.append((name + " in message 3", "listener", message_3(payload)))
    for side, make_messages in (("dialler", message_2), ("listener", message_3)):
        own = KEYS[side]
        signature = own.signing.sign(b"peersd/1 noise key", honest.noise.public)
        cases.append((f"the {side} meets its own device key", side, make_messages(statement(own, signature=signature))))
    return cases


def make() -> dict[str, Any]:
    return {
        "description": (
            "valid: two devices' secrets, three messages, then transport messages in the order in which each side sends them. "
            "invalid: `side` uses its secrets from the first valid case, a dialler sends its message 1 first, then receives "
            "`received`; it refuses the last of these."
        ),
        "valid": [
            valid("no link before", b""),
            valid("the dialler closed a link before", REPLACES),
            valid("the dialler is alone", b"", is_alone=True),
        ],
        "invalid": [
            {"name": name, "side": side, "received": [message.hex() for message in received], "error": "HANDSHAKE"}
            for name, side, received in refused()
        ],
    }
