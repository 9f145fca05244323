"""The handshake of a link, both sides in memory (SPEC: N)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peersd_protocol import canonical
from peersd_protocol.constants import HANDSHAKE_MESSAGE_BYTES_MAX
from peersd_protocol.devicekeys import DeviceKeys
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.handshake import PROLOGUE, Established, Handshake, Role
from peersd_protocol.noise import HandshakeState, X25519Key
from peersd_protocol.signing import PURPOSE_SEALING_KEY


def device_keys(seed: int) -> DeviceKeys:
    return DeviceKeys(bytes([seed]) * 32, bytes([seed + 1]) * 32, bytes([seed + 2]) * 32)


ALICE, BOB, MALLORY = device_keys(10), device_keys(20), device_keys(30)
ALICE_BOOT, BOB_BOOT = b"a" * 16, b"b" * 16


def dialler(
    replaces: bytes | Callable[[bytes], bytes] = b"",
    expected_device: bytes | None = None,
    is_alone: Callable[[bytes], bool] | None = None,
) -> Handshake:
    return Handshake(
        Role.DIALLER,
        ALICE,
        boot_id=ALICE_BOOT,
        ephemeral_private=b"e" * 32,
        replaces=replaces,
        is_alone=is_alone,
        expected_device=expected_device,
    )


def listener(keys: DeviceKeys = BOB, boot_id: bytes = BOB_BOOT) -> Handshake:
    return Handshake(Role.LISTENER, keys, boot_id=boot_id, ephemeral_private=b"f" * 32)


def first_message(side: Handshake) -> bytes:
    message = side.start()
    assert message is not None
    return message


def establish(dialling: Handshake, listening: Handshake) -> tuple[Established, Established]:
    assert listening.start() is None
    second = listening.receive(first_message(dialling))
    assert second.reply is not None and second.result is None
    third = dialling.receive(second.reply)
    assert third.reply is not None and third.result is not None
    last = listening.receive(third.reply)
    assert last.reply is None and last.result is not None
    return third.result, last.result


class RawSide:
    """A remote side that follows Noise but says what the test wants."""

    def __init__(self, *, is_initiator: bool, keys: DeviceKeys = MALLORY, prologue: bytes = PROLOGUE) -> None:
        self.noise = HandshakeState(
            is_initiator=is_initiator, prologue=prologue, static=keys.noise, ephemeral=X25519Key(b"m" * 32)
        )


def listener_given(payload: bytes, keys: DeviceKeys = MALLORY) -> None:
    """Plays the dialler against our listener with `payload` in message 3."""
    raw, side = RawSide(is_initiator=True, keys=keys), listener()
    reply = side.receive(raw.noise.write_message(b"")).reply
    assert reply is not None
    raw.noise.read_message(reply)
    side.receive(raw.noise.write_message(payload))


def dialler_given(payload: bytes, keys: DeviceKeys = MALLORY) -> None:
    """Plays the listener against our dialler with `payload` in message 2."""
    raw, side = RawSide(is_initiator=False, keys=keys), dialler()
    raw.noise.read_message(first_message(side))
    side.receive(raw.noise.write_message(payload))


def statement(keys: DeviceKeys = MALLORY, **changed: canonical.Value) -> list[canonical.Value]:
    fields: dict[str, canonical.Value] = {
        "version": 1,
        "device": keys.device,
        "signature": keys.noise_signature,
        "boot_id": b"m" * 16,
        "replaces": b"",
        "is_alone": False,
    }
    return list((fields | changed).values())


def test_both_sides_learn_each_other_and_can_talk() -> None:
    ours, theirs = establish(dialler(replaces=b"r" * 32), listener())
    assert (ours.remote_device, ours.remote_boot_id, ours.remote_replaces) == (BOB.device, BOB_BOOT, b"")
    assert (theirs.remote_device, theirs.remote_boot_id, theirs.remote_replaces) == (ALICE.device, ALICE_BOOT, b"r" * 32)
    assert (ours.local_replaces, theirs.local_replaces) == (b"r" * 32, b"")
    assert ours.handshake_hash == theirs.handshake_hash and len(ours.handshake_hash) == 32
    assert theirs.receive.decrypt(ours.send.encrypt(b"to bob")) == b"to bob"
    assert ours.receive.decrypt(theirs.send.encrypt(b"to alice")) == b"to alice"


def test_messages_have_known_lengths() -> None:
    dialling, listening = dialler(replaces=b"r" * 32), listener()
    first = first_message(dialling)
    second = listening.receive(first).reply
    assert second is not None
    third = dialling.receive(second).reply
    assert third is not None
    # Payloads: 1 + 1 + (2 + 32) + (2 + 64) + (2 + 16) + 2 + 1 = 123 bytes, and 32 more for `replaces`.
    assert [len(message) for message in (first, second, third)] == [32, 32 + 48 + 123 + 16, 48 + 155 + 16]


def test_the_dialler_can_name_the_closed_link_once_it_knows_who_answered() -> None:
    asked: list[bytes] = []

    def closed_link(device: bytes) -> bytes:
        asked.append(device)
        return b"c" * 32

    ours, theirs = establish(dialler(replaces=closed_link), listener())
    assert asked == [BOB.device]
    assert theirs.remote_replaces == ours.local_replaces == b"c" * 32


def test_a_dialler_that_is_alone_says_so_once_it_knows_who_answered() -> None:
    asked: list[bytes] = []

    def is_alone(device: bytes) -> bool:
        asked.append(device)
        return True

    ours, theirs = establish(dialler(is_alone=is_alone), listener())
    assert (asked, ours.is_alone, theirs.is_alone) == ([BOB.device], True, True)
    assert [side.is_alone for side in establish(dialler(), listener())] == [False, False]


def test_the_expected_device_is_accepted_and_another_refused_before_message_3() -> None:
    establish(dialler(expected_device=BOB.device), listener())
    dialling, listening = dialler(expected_device=MALLORY.device), listener()
    second = listening.receive(first_message(dialling)).reply
    assert second is not None
    with pytest.raises(RemoteProtocolError, match="another device answers") as caught:
        dialling.receive(second)
    assert caught.value.close_code is CloseCode.HANDSHAKE


@pytest.mark.parametrize(("boot_id", "detail"), [(ALICE_BOOT, "reached itself"), (BOB_BOOT, "same device key")])
def test_a_device_refuses_its_own_key(boot_id: bytes, detail: str) -> None:
    dialling, listening = dialler(), listener(ALICE, boot_id)
    second = listening.receive(first_message(dialling)).reply
    assert second is not None
    with pytest.raises(RemoteProtocolError, match=detail) as caught:
        dialling.receive(second)
    assert caught.value.close_code is CloseCode.HANDSHAKE


def test_a_well_formed_statement_is_accepted_from_either_side() -> None:
    listener_given(canonical.encode(statement(replaces=b"r" * 32, is_alone=True)))
    dialler_given(canonical.encode(statement()))


WRONG_STATEMENTS: dict[str, bytes] = {
    "no payload": b"",
    "not canonical": b"\xdc\x00\x06" + canonical.encode(statement())[1:],
    "not an array": b"\x01",
    "bytes after it": canonical.encode(statement()) + b"\0",
    "version 0": canonical.encode(statement(version=0)),
    "version 2": canonical.encode(statement(version=2)),
    "version true": canonical.encode(statement(version=True)),
    "version 1.0": canonical.encode(statement(version=1.0)),
    "an element less": canonical.encode(statement()[:5]),
    "an element more": canonical.encode([*statement(), b""]),
    "device of 31 bytes": canonical.encode(statement(device=MALLORY.device[:31])),
    "device as text": canonical.encode(statement(device="d" * 32)),
    "signature of 63 bytes": canonical.encode(statement(signature=MALLORY.noise_signature[:63])),
    "no signature": canonical.encode(statement(signature=None)),
    "boot id of 15 bytes": canonical.encode(statement(boot_id=b"m" * 15)),
    "boot id of 17 bytes": canonical.encode(statement(boot_id=b"m" * 17)),
    "replaces of 31 bytes": canonical.encode(statement(replaces=b"r" * 31)),
    "replaces as a number": canonical.encode(statement(replaces=0)),
    "alone as a number": canonical.encode(statement(is_alone=1)),
    "alone as nil": canonical.encode(statement(is_alone=None)),
    "another device's certificate": canonical.encode(statement(ALICE)),
    "another device's key with our certificate": canonical.encode(statement(device=ALICE.device)),
    "the certificate of the sealing key": canonical.encode(statement(signature=MALLORY.sealing_signature)),
    "a signature for another purpose": canonical.encode(
        statement(signature=MALLORY.signing.sign(PURPOSE_SEALING_KEY, MALLORY.noise.public))
    ),
    "513 bytes": canonical.encode([*statement(), bytes(513 - 123 - 3)]),
}


@pytest.mark.parametrize("case", WRONG_STATEMENTS)
@pytest.mark.parametrize("given_to", [listener_given, dialler_given])
def test_a_wrong_statement_fails_the_handshake(given_to: Callable[[bytes], None], case: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        given_to(WRONG_STATEMENTS[case])
    assert caught.value.close_code is CloseCode.HANDSHAKE


def test_a_payload_above_the_bound_is_refused_undecoded() -> None:
    with pytest.raises(RemoteProtocolError, match="513 bytes where 512 are allowed"):
        listener_given(WRONG_STATEMENTS["513 bytes"])


@pytest.mark.parametrize("stated", [statement(replaces=b"r" * 32), statement(is_alone=True)])
def test_a_listener_must_not_state_that_it_replaces_or_is_alone(stated: list[canonical.Value]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        dialler_given(canonical.encode(stated))
    assert caught.value.close_code is CloseCode.HANDSHAKE


def test_a_stolen_certificate_is_worth_nothing_without_the_noise_key() -> None:
    with pytest.raises(RemoteProtocolError, match="not over the Noise key"):
        listener_given(canonical.encode(statement(BOB)), keys=MALLORY)


def test_another_prologue_does_not_get_past_message_2() -> None:
    raw, side = RawSide(is_initiator=False, prologue=b"peersd/2"), dialler()
    raw.noise.read_message(first_message(side))
    with pytest.raises(RemoteProtocolError) as caught:
        side.receive(raw.noise.write_message(canonical.encode(statement())))
    assert caught.value.close_code is CloseCode.HANDSHAKE


@pytest.mark.parametrize(
    "message", [b"", bytes(31), b"\x07" * 31, b"\x07" * 33, bytes(32), b"\x07" * (HANDSHAKE_MESSAGE_BYTES_MAX + 1)]
)
def test_a_wrong_first_message_is_refused(message: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        listener().receive(message)
    assert caught.value.close_code is CloseCode.HANDSHAKE


def test_an_overlong_message_is_refused_unread() -> None:
    side = dialler()
    side.start()
    with pytest.raises(RemoteProtocolError, match="609 bytes"):
        side.receive(bytes(HANDSHAKE_MESSAGE_BYTES_MAX + 1))


def test_nothing_is_received_after_a_failure_or_the_end() -> None:
    failed = listener()
    with pytest.raises(RemoteProtocolError):
        failed.receive(b"")
    with pytest.raises(LocalProtocolError):
        failed.receive(first_message(dialler()))
    dialling, listening = dialler(), listener()
    establish(dialling, listening)
    for side in (dialling, listening):
        with pytest.raises(LocalProtocolError):
            side.receive(bytes(32))


def test_wrong_use_is_told_from_wrong_messages() -> None:
    with pytest.raises(LocalProtocolError):
        dialler().receive(bytes(32))
    started = dialler()
    started.start()
    with pytest.raises(LocalProtocolError):
        started.start()
    with pytest.raises(LocalProtocolError):
        Handshake(Role.LISTENER, BOB, boot_id=BOB_BOOT, ephemeral_private=b"f" * 32, replaces=b"r" * 32)
    with pytest.raises(LocalProtocolError):
        Handshake(Role.LISTENER, BOB, boot_id=b"", ephemeral_private=b"f" * 32)
    with pytest.raises(LocalProtocolError):
        establish(dialler(replaces=b"short"), listener())


@given(message=st.binary(max_size=700))
def test_no_bytes_make_a_side_fail_otherwise(message: bytes) -> None:
    started = dialler()
    started.start()
    with pytest.raises(RemoteProtocolError):
        started.receive(message)
    waiting = listener()
    if len(message) == 32 and any(message):
        return  # almost any 32 bytes are a first message
    with pytest.raises(RemoteProtocolError):
        waiting.receive(message)


@given(index=st.integers(0, 218), bit=st.integers(0, 7))
def test_a_flipped_bit_in_message_3_is_refused(index: int, bit: int) -> None:
    dialling, listening = dialler(replaces=b"r" * 32), listener()
    second = listening.receive(first_message(dialling)).reply
    assert second is not None
    third = dialling.receive(second).reply
    assert third is not None and len(third) == 219
    with pytest.raises(RemoteProtocolError):
        listening.receive(third[:index] + bytes([third[index] ^ (1 << bit)]) + third[index + 1 :])
