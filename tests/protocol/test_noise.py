"""Noise against published vectors, another implementation, and hostile input (SPEC: N)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from noise.connection import Keypair, NoiseConnection

from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.noise import (
    IK,
    NONCE_END,
    PLAINTEXT_BYTES_MAX,
    XX,
    XX_PSK3,
    CipherState,
    HandshakeState,
    Pattern,
    X25519Key,
)
from peersd_protocol.signing import verify_bytes

VECTORS = Path(__file__).resolve().parents[2].parent / "shared" / "vectors"
PATTERNS: dict[str, Pattern] = {pattern.protocol_name.decode(): pattern for pattern in (XX, IK, XX_PSK3)}


def load_external(name: str) -> Any:
    path = VECTORS / name
    if not path.exists():
        pytest.skip(f"the external vectors are not beside the checkout: {path.name}")
    return json.loads(path.read_text())


def x25519_pair(seed: int) -> X25519Key:
    return X25519Key(bytes([seed]) * 32)


def xx_pair(prologue: bytes = b"peersd/1") -> tuple[HandshakeState, HandshakeState]:
    return (
        HandshakeState(is_initiator=True, prologue=prologue, static=x25519_pair(1), ephemeral=x25519_pair(2)),
        HandshakeState(is_initiator=False, prologue=prologue, static=x25519_pair(3), ephemeral=x25519_pair(4)),
    )


def run_published(vector: dict[str, Any]) -> None:
    pattern = PATTERNS[vector["protocol_name"]]

    def side(prefix: str, *, is_initiator: bool) -> HandshakeState:
        psks = vector.get(f"{prefix}_psks") or [""]
        return HandshakeState(
            is_initiator=is_initiator,
            prologue=bytes.fromhex(vector[f"{prefix}_prologue"]),
            static=X25519Key(bytes.fromhex(vector[f"{prefix}_static"])),
            ephemeral=X25519Key(bytes.fromhex(vector[f"{prefix}_ephemeral"])),
            pattern=pattern,
            remote_static=bytes.fromhex(vector.get(f"{prefix}_remote_static", "")),
            psk=bytes.fromhex(psks[0]),
        )

    initiator, responder = side("init", is_initiator=True), side("resp", is_initiator=False)
    handshake_count = len(pattern.messages)
    for index, message in enumerate(vector["messages"][:handshake_count]):
        writer, reader = (initiator, responder) if index % 2 == 0 else (responder, initiator)
        payload, ciphertext = bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"])
        assert writer.write_message(payload) == ciphertext
        assert reader.read_message(ciphertext) == payload
    if "handshake_hash" in vector:
        assert initiator.handshake_hash.hex() == responder.handshake_hash.hex() == vector["handshake_hash"]
    ciphers = [initiator.split(), responder.split()]
    for index, message in enumerate(vector["messages"][handshake_count:], start=handshake_count):
        payload, ciphertext = bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"])
        assert ciphers[index % 2][0].encrypt(payload) == ciphertext
        assert ciphers[1 - index % 2][1].decrypt(ciphertext) == payload


def test_published_noise_vectors_come_out_byte_for_byte() -> None:
    vectors = load_external("noise_25519_chachapoly_sha256.json")["vectors"]
    for vector in vectors:
        run_published(vector)
    names = [vector["protocol_name"] for vector in vectors]
    assert (len(names), names.count(XX.protocol_name.decode())) == (5, 2)


@pytest.mark.parametrize("ours_initiates", [True, False])
def test_another_implementation_understands_ours(ours_initiates: bool) -> None:
    ours = xx_pair()[0 if ours_initiates else 1]
    theirs = NoiseConnection.from_name(b"Noise_XX_25519_ChaChaPoly_SHA256")
    theirs.set_prologue(b"peersd/1")
    theirs.set_keypair_from_private_bytes(Keypair.STATIC, bytes([9]) * 32)
    (theirs.set_as_responder if ours_initiates else theirs.set_as_initiator)()
    theirs.start_handshake()
    for index in range(3):
        if (index % 2 == 0) == ours_initiates:
            assert theirs.read_message(ours.write_message(b"from ours %d" % index)) == b"from ours %d" % index
        else:
            assert ours.read_message(bytes(theirs.write_message(b"from theirs %d" % index))) == b"from theirs %d" % index
    assert ours.is_finished
    assert ours.remote_static == x25519_pair(9).public
    assert ours.handshake_hash == theirs.get_handshake_hash()
    send, receive = ours.split()
    for size in (0, 1, 1000, PLAINTEXT_BYTES_MAX):
        assert theirs.decrypt(send.encrypt(b"x" * size)) == b"x" * size
        assert receive.decrypt(theirs.encrypt(b"y" * size)) == b"y" * size


def test_x25519_agrees_with_wycheproof_and_refuses_every_all_zero_secret() -> None:
    zero = agreed = 0
    for group in load_external("wycheproof_x25519.json")["testGroups"]:
        for case in group["tests"]:
            key, public = X25519Key(bytes.fromhex(case["private"])), bytes.fromhex(case["public"])
            if case["shared"] == "00" * 32:
                zero += 1
                with pytest.raises(RemoteProtocolError) as caught:
                    key.exchange(public)
                assert caught.value.close_code is CloseCode.PROTOCOL
            else:
                agreed += 1
                assert key.exchange(public).hex() == case["shared"], case["tcId"]
    assert zero >= 30
    assert zero + agreed == 518


def test_ed25519_agrees_with_wycheproof() -> None:
    results = {"valid": 0, "invalid": 0}
    for group in load_external("wycheproof_ed25519.json")["testGroups"]:
        public = bytes.fromhex(group["publicKey"]["pk"])
        for case in group["tests"]:
            good = verify_bytes(public, bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"]))
            assert good == (case["result"] == "valid"), case["tcId"]
            results[case["result"]] += 1
    assert min(results.values()) > 50


def test_of_the_ed25519_edge_cases_only_case_3_is_accepted() -> None:
    accepted = [
        index
        for index, case in enumerate(load_external("ed25519_speccheck.json"))
        if verify_bytes(*(bytes.fromhex(case[field]) for field in ("pub_key", "message", "signature")))
    ]
    assert accepted == [3]


@pytest.mark.parametrize("public", [bytes(32), b"\1" + bytes(31), b"", bytes(31), bytes(33)])
def test_a_low_order_or_misshapen_public_key_is_refused(public: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        x25519_pair(1).exchange(public)
    assert caught.value.close_code is CloseCode.PROTOCOL


def test_a_private_key_of_another_length_is_our_own_fault() -> None:
    with pytest.raises(LocalProtocolError):
        X25519Key(bytes(31))


def test_a_low_order_ephemeral_key_fails_the_handshake_like_a_bad_mac() -> None:
    _, responder = xx_pair()
    assert responder.read_message(bytes(32)) == b""
    with pytest.raises(RemoteProtocolError):
        responder.write_message(b"")


def test_every_cut_of_message_2_is_refused() -> None:
    initiator, responder = xx_pair()
    responder.read_message(initiator.write_message(b""))
    message = responder.write_message(b"payload")
    for length in range(len(message)):
        reader = xx_pair()[0]
        reader.write_message(b"")
        with pytest.raises(RemoteProtocolError):
            reader.read_message(message[:length])


def test_every_flipped_byte_of_message_2_is_refused() -> None:
    initiator, responder = xx_pair()
    responder.read_message(initiator.write_message(b""))
    message = responder.write_message(b"payload")
    for at in range(len(message)):
        reader = xx_pair()[0]
        reader.write_message(b"")
        with pytest.raises(RemoteProtocolError):
            reader.read_message(message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :])


def test_sides_must_take_turns() -> None:
    initiator, responder = xx_pair()
    with pytest.raises(LocalProtocolError):
        initiator.read_message(bytes(32))
    with pytest.raises(LocalProtocolError):
        responder.write_message(b"")
    with pytest.raises(LocalProtocolError):
        initiator.split()


def test_a_finished_handshake_takes_no_more_messages() -> None:
    initiator, responder = xx_pair()
    responder.read_message(initiator.write_message(b""))
    initiator.read_message(responder.write_message(b""))
    responder.read_message(initiator.write_message(b""))
    assert initiator.is_finished and responder.is_finished
    with pytest.raises(LocalProtocolError):
        responder.write_message(b"")
    with pytest.raises(LocalProtocolError):
        initiator.write_message(b"")


def test_a_cipher_refuses_what_is_replayed_swapped_or_damaged_and_keeps_its_nonce() -> None:
    send, receive = CipherState(bytes(32)), CipherState(bytes(32))
    first, second = send.encrypt(b"one"), send.encrypt(b"two")
    for wrong in (second, b"", first[:-1], first[:15], first + b"\0", bytes([first[0] ^ 1]) + first[1:]):
        with pytest.raises(RemoteProtocolError) as caught:
            receive.decrypt(wrong)
        assert caught.value.close_code is CloseCode.PROTOCOL
        assert receive.nonce == 0
    assert receive.decrypt(first) == b"one"
    with pytest.raises(RemoteProtocolError):
        receive.decrypt(first)
    assert receive.decrypt(second) == b"two"


def test_a_cipher_has_a_greatest_message() -> None:
    send, receive = CipherState(bytes(32)), CipherState(bytes(32))
    assert len(send.encrypt(bytes(65_519))) == 65_535
    with pytest.raises(LocalProtocolError):
        send.encrypt(bytes(65_520))
    with pytest.raises(RemoteProtocolError) as caught:
        receive.decrypt(bytes(65_536))
    assert caught.value.close_code is CloseCode.TOO_LARGE


def test_a_cipher_uses_its_last_nonce_and_then_no_other() -> None:
    send, receive = CipherState(bytes(32), NONCE_END - 1), CipherState(bytes(32), NONCE_END - 1)
    last = send.encrypt(b"last")
    assert receive.decrypt(last) == b"last"
    with pytest.raises(LocalProtocolError):
        send.encrypt(b"beyond")
    with pytest.raises(RemoteProtocolError) as caught:
        receive.decrypt(last)
    assert caught.value.close_code is CloseCode.PROTOCOL


def test_the_nonce_counts_little_endian_after_four_zero_bytes() -> None:
    """RFC 8439, A.5 would need another nonce; this pins position 1 against ChaCha20-Poly1305 itself."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    cipher = CipherState(bytes(32), 258)
    assert cipher.encrypt(b"x") == ChaCha20Poly1305(bytes(32)).encrypt(bytes.fromhex("000000000201000000000000"), b"x", b"")
