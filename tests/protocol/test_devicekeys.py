"""A device's keys and certificate (SPEC: U)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peersd_protocol import canonical
from peersd_protocol.devicekeys import DeviceKeys, is_device_name, verify_consent, verify_device_cert
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.signing import PURPOSE_NOISE_KEY, PURPOSE_SEALING_KEY

NAUGHTY_STRINGS = Path(__file__).resolve().parents[2].parent / "shared" / "vectors" / "blns.json"
KEYS = DeviceKeys(b"\x01" * 32, b"\x02" * 32, b"\x03" * 32)
OTHER = DeviceKeys(b"\x04" * 32, b"\x05" * 32, b"\x06" * 32)


def changed(**fields: canonical.Value) -> list[canonical.Value]:
    names = ("device", "name", "noise_key", "noise_signature", "sealing_key", "sealing_signature")
    return list((dict(zip(names, KEYS.device_cert("Laptop"), strict=True)) | fields).values())


def test_keys_follow_from_the_secrets() -> None:
    assert KEYS.device.hex() == "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"
    assert KEYS.noise.public.hex() == "ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745ba05870e587d59"
    assert KEYS.sealing.public.hex() == "5dfedd3b6bd47f6fa28ee15d969d5bb0ea53774d488bdaf9df1c6e0124b3ef22"


def test_a_certificate_verifies_also_after_it_travelled() -> None:
    value = KEYS.device_cert("Anna's laptop")
    cert = verify_device_cert(canonical.decode(canonical.encode(value), bytes_max=1000))
    assert cert == verify_device_cert(value)
    assert (cert.device, cert.name) == (KEYS.device, "Anna's laptop")
    assert (cert.noise_key, cert.sealing_key) == (KEYS.noise.public, KEYS.sealing.public)
    assert cert.value == value


MALFORMED: dict[str, canonical.Value] = {
    "nil": None,
    "text": "certificate",
    "no elements": [],
    "five elements": changed()[:5],
    "seven elements": [*changed(), b""],
    "a short device": changed(device=KEYS.device[:31]),
    "a device as text": changed(device="d" * 32),
    "a long Noise key": changed(noise_key=KEYS.noise.public + b"\0"),
    "a short signature": changed(noise_signature=KEYS.noise_signature[:63]),
    "no sealing key": changed(sealing_key=None),
    "a sealing signature as a list": changed(sealing_signature=[1]),
    "a name as bytes": changed(name=b"Laptop"),
    "an empty name": changed(name=""),
    "a name of 65 characters": changed(name="n" * 65),
    "a name with a newline": changed(name="Lap\ntop"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_misshapen_certificate_is_refused(case: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        verify_device_cert(MALFORMED[case])
    assert caught.value.close_code is CloseCode.MALFORMED


WRONGLY_SIGNED: dict[str, list[canonical.Value]] = {
    "another device": changed(device=OTHER.device),
    "another Noise key": changed(noise_key=OTHER.noise.public),
    "another sealing key": changed(sealing_key=OTHER.sealing.public),
    "the Noise key's signature by another device": changed(
        noise_signature=OTHER.signing.sign(PURPOSE_NOISE_KEY, KEYS.noise.public)
    ),
    "the two keys swapped with their signatures": changed(
        noise_key=KEYS.sealing.public,
        noise_signature=KEYS.sealing_signature,
        sealing_key=KEYS.noise.public,
        sealing_signature=KEYS.noise_signature,
    ),
    "a Noise signature for the purpose of sealing": changed(
        noise_signature=KEYS.signing.sign(PURPOSE_SEALING_KEY, KEYS.noise.public)
    ),
    "a sealing signature for the purpose of Noise": changed(
        sealing_signature=KEYS.signing.sign(PURPOSE_NOISE_KEY, KEYS.sealing.public)
    ),
}


@pytest.mark.parametrize("case", WRONGLY_SIGNED)
def test_a_wrongly_signed_certificate_is_refused(case: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        verify_device_cert(WRONGLY_SIGNED[case])
    assert caught.value.close_code is CloseCode.BAD_SIGNATURE


@pytest.mark.parametrize(
    "name", ["a", "n" * 64, "Café ☕", "电脑", "👩‍💻 laptop", "a  b", "'; DROP TABLE devices; --", "../../etc"]
)
def test_names_people_use_are_accepted(name: str) -> None:
    assert is_device_name(name)
    assert verify_device_cert(KEYS.device_cert(name)).name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        " a",
        "a ",
        "n" * 65,
        "a\nb",
        "\t",
        "a\0",
        "\x7f",
        "\x85",
        "a\u2028b",
        "\u202egpj.exe",
        "a\u2066b",
        "a\u061cb",
        "\u200ea",
        "a\u200fb",
        "\ud800",
        "\ufeffa",
    ],
)
def test_names_that_would_break_a_line_or_deceive_are_refused(name: str) -> None:
    assert not is_device_name(name)
    with pytest.raises(LocalProtocolError):
        KEYS.device_cert(name)


def test_naughty_strings_are_accepted_or_refused_and_survive_the_journey() -> None:
    if not NAUGHTY_STRINGS.exists():
        pytest.skip("the external vectors are not beside the checkout: blns.json")
    accepted = [name for name in json.loads(NAUGHTY_STRINGS.read_text()) if is_device_name(name)]
    assert len(accepted) > 200
    for name in accepted:
        value = canonical.decode(canonical.encode(KEYS.device_cert(name)), bytes_max=1000)
        assert verify_device_cert(value).name == name


@given(st.recursive(st.none() | st.integers() | st.text() | st.binary(), lambda inner: st.lists(inner, max_size=8)))
def test_no_value_makes_verification_fail_otherwise(value: canonical.Value) -> None:
    with pytest.raises(RemoteProtocolError):
        verify_device_cert(value)


def test_consent_is_by_the_device_and_for_one_user() -> None:
    user, other_user = b"\x07" * 32, b"\x08" * 32
    consent = KEYS.sign_consent(user)
    assert verify_consent(KEYS.device, user, consent)
    assert not verify_consent(OTHER.device, user, consent)
    assert not verify_consent(KEYS.device, other_user, consent)
    assert not verify_consent(KEYS.device, user[:31], consent)
    assert not verify_consent(KEYS.device, user, consent[:63])
    assert not verify_consent(KEYS.device, KEYS.noise.public, KEYS.noise_signature)


def test_wrong_secrets_are_our_own_fault() -> None:
    for secrets in (
        (b"", b"\x02" * 32, b"\x03" * 32),
        (b"\x01" * 32, b"", b"\x03" * 32),
        (b"\x01" * 32, b"\x02" * 32, b"\x02" * 32),
    ):
        with pytest.raises(LocalProtocolError):
            DeviceKeys(*secrets)
    with pytest.raises(LocalProtocolError):
        KEYS.sign_consent(b"")
