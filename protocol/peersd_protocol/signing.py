"""Ed25519 by libsodium, the one verifier of the protocol, and SHA-256 (SPEC: S-1, S-2).

Every signature names its purpose: it is made over `purpose ‖ 0x00 ‖ message`.
"""

from __future__ import annotations

import hashlib
from typing import Final

import nacl.bindings
import nacl.exceptions

PURPOSE_ENTRY: Final = b"peersd/1 entry"
PURPOSE_NOISE_KEY: Final = b"peersd/1 noise key"
PURPOSE_SEALING_KEY: Final = b"peersd/1 sealing key"
PURPOSE_REDEMPTION: Final = b"peersd/1 redemption"
PURPOSE_DEVICE_CONSENT: Final = b"peersd/1 device consent"
PURPOSE_BEACON: Final = b"peersd/1 beacon"

SEED_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
HASH_BYTES: Final = 32

_sha256: Final = hashlib.sha256


def sha256(data: bytes) -> bytes:
    """The SHA-256 digest, 32 bytes."""
    return _sha256(data).digest()


class SigningKey:
    """An Ed25519 private key made from a 32-byte seed."""

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        self.public, self._secret = nacl.bindings.crypto_sign_seed_keypair(seed)

    def sign(self, purpose: bytes, message: bytes) -> bytes:
        """Returns the 64-byte signature over `purpose ‖ 0 ‖ message`."""
        signed: bytes = nacl.bindings.crypto_sign(purpose + b"\0" + message, self._secret)
        return signed[:SIGNATURE_BYTES]


def verify(public: bytes, purpose: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) by `public` (32 bytes) is good for this purpose and message."""
    return verify_bytes(public, purpose + b"\0" + message, signature)


def verify_bytes(public: bytes, signed: bytes, signature: bytes) -> bool:
    """The same over `signed` as it is, without a purpose: plain Ed25519, which published vectors can be held against."""
    if len(public) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        nacl.bindings.crypto_sign_open(signature + signed, public)
    except nacl.exceptions.BadSignatureError:
        return False
    return True
