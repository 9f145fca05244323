"""Certificates of devices, and consent: SPEC, part U, rules on device_cert and consent_signature."""

from __future__ import annotations

from typing import Any

from peersd_protocol import canonical
from peersd_protocol.devicekeys import DeviceKeys

SECRETS = (b"\x01" * 32, b"\x02" * 32, b"\x03" * 32)
KEYS, OTHER = DeviceKeys(*SECRETS), DeviceKeys(b"\x04" * 32, b"\x05" * 32, b"\x06" * 32)
USER = b"\x07" * 32
FIELDS = ("device", "name", "noise_key", "noise_signature", "sealing_key", "sealing_signature")


def changed(**fields: canonical.Value) -> list[canonical.Value]:
    return list((dict(zip(FIELDS, KEYS.device_cert("Laptop"), strict=True)) | fields).values())


def valid(name: str) -> dict[str, Any]:
    names = ("signing_seed", "noise_private", "sealing_private")
    return {
        **{key: secret.hex() for key, secret in zip(names, SECRETS, strict=True)},
        "name": name,
        "certificate": canonical.encode(KEYS.device_cert(name)).hex(),
        "user": USER.hex(),
        "consent": KEYS.sign_consent(USER).hex(),
    }


INVALID: dict[str, tuple[str, list[canonical.Value]]] = {
    "an element less": ("MALFORMED", changed()[:5]),
    "an element more": ("MALFORMED", [*changed(), b""]),
    "a short device key": ("MALFORMED", changed(device=KEYS.device[:31])),
    "a long Noise key": ("MALFORMED", changed(noise_key=KEYS.noise.public + b"\0")),
    "a short signature": ("MALFORMED", changed(sealing_signature=KEYS.sealing_signature[:63])),
    "a name as bytes": ("MALFORMED", changed(name=b"Laptop")),
    "an empty name": ("MALFORMED", changed(name="")),
    "a name of 65 characters": ("MALFORMED", changed(name="n" * 65)),
    "a name that ends in a space": ("MALFORMED", changed(name="Laptop ")),
    "a name with a newline": ("MALFORMED", changed(name="Lap\ntop")),
    "a name that turns the writing direction": ("MALFORMED", changed(name="\u202epotpaL")),
    "a name with a mark of the writing direction": ("MALFORMED", changed(name="Lap\u200ftop")),
    "another device's key": ("BAD_SIGNATURE", changed(device=OTHER.device)),
    "another device's Noise key": ("BAD_SIGNATURE", changed(noise_key=OTHER.noise.public)),
    "another device's sealing key": ("BAD_SIGNATURE", changed(sealing_key=OTHER.sealing.public)),
    "the two keys swapped with their signatures": (
        "BAD_SIGNATURE",
        changed(
            noise_key=KEYS.sealing.public,
            noise_signature=KEYS.sealing_signature,
            sealing_key=KEYS.noise.public,
            sealing_signature=KEYS.noise_signature,
        ),
    ),
}


def make() -> dict[str, Any]:
    return {
        "description": (
            "valid: a device's secrets, its certificate under a name as canonical bytes, its consent to be a device of `user`. "
            "invalid: certificates that are refused with `error`."
        ),
        "valid": [valid(name) for name in ("Laptop", "n" * 64, "Café ☕ 电脑")],
        "invalid": [
            {"name": name, "certificate": canonical.encode(value).hex(), "error": error}
            for name, (error, value) in INVALID.items()
        ],
    }
