"""The keys of a device, and the certificate that binds them together (SPEC: U-1 to U-4, DESIGN 4).

A device has an Ed25519 key, which is its id, an X25519 key for the Noise handshake and an X25519 key that secrets are sealed to.
The first signs the other two, each for its own purpose, so that neither can be passed off as the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from peersd_protocol import canonical
from peersd_protocol.constants import NAME_CHARS_MAX
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.names import is_name
from peersd_protocol.noise import KEY_BYTES, X25519Key
from peersd_protocol.signing import (
    HASH_BYTES,
    PURPOSE_DEVICE_CONSENT,
    PURPOSE_NOISE_KEY,
    PURPOSE_SEALING_KEY,
    SEED_BYTES,
    SIGNATURE_BYTES,
    SigningKey,
    verify,
)


def is_device_name(name: str) -> bool:
    """Whether `name` may stand in a certificate: a name of at most NAME_CHARS_MAX characters."""
    return len(name) <= NAME_CHARS_MAX and is_name(name)


@dataclass(frozen=True, slots=True)
class DeviceCert:
    """What a device states of itself in an identity log.

    Attributes:
        device: the Ed25519 public key, 32 bytes; the device's id.
        name: what people call it, 1 to 64 characters. It is not signed here: the entry that carries the certificate is.
        noise_key: the X25519 public key of its handshakes.
        noise_signature: by `device` over `noise_key`.
        sealing_key: the X25519 public key that secrets are sealed to.
        sealing_signature: by `device` over `sealing_key`.
    """

    device: bytes
    name: str
    noise_key: bytes
    noise_signature: bytes
    sealing_key: bytes
    sealing_signature: bytes

    @property
    def value(self) -> list[canonical.Value]:
        """The array that travels."""
        return [self.device, self.name, self.noise_key, self.noise_signature, self.sealing_key, self.sealing_signature]


class DeviceKeys:
    """The private keys of this device, made from three secrets that never leave it.

    Args:
        signing_seed: 32 bytes for the Ed25519 key.
        noise_private: 32 bytes, the X25519 key of the handshake.
        sealing_private: 32 bytes, the X25519 key that secrets are sealed to; another one than `noise_private`.
    """

    def __init__(self, signing_seed: bytes, noise_private: bytes, sealing_private: bytes) -> None:
        if len(signing_seed) != SEED_BYTES:
            raise LocalProtocolError(f"a signing seed has {SEED_BYTES} bytes")
        if noise_private == sealing_private:
            raise LocalProtocolError("one key for two purposes")
        self.signing: Final = SigningKey(signing_seed)
        self.noise: Final = X25519Key(noise_private)
        self.sealing: Final = X25519Key(sealing_private)
        self.noise_signature: Final = self.signing.sign(PURPOSE_NOISE_KEY, self.noise.public)
        self.sealing_signature: Final = self.signing.sign(PURPOSE_SEALING_KEY, self.sealing.public)

    @property
    def device(self) -> bytes:
        """The device's id: its Ed25519 public key, 32 bytes."""
        return self.signing.public

    def device_cert(self, name: str) -> list[canonical.Value]:
        """The certificate as the array that travels.

        Raises:
            LocalProtocolError: the name may not stand in a certificate (see is_device_name).
        """
        if not is_device_name(name):
            raise LocalProtocolError("not a device name")
        signing, noise, sealing = self.signing.public, self.noise.public, self.sealing.public
        return DeviceCert(signing, name, noise, self.noise_signature, sealing, self.sealing_signature).value

    def sign_consent(self, user: bytes) -> bytes:
        """This device's consent to become a device of `user` (32 bytes), 64 bytes. Without it anyone could claim any device."""
        if len(user) != HASH_BYTES:
            raise LocalProtocolError(f"a user id has {HASH_BYTES} bytes")
        return self.signing.sign(PURPOSE_DEVICE_CONSENT, user)


def verify_consent(device: bytes, user: bytes, signature: bytes) -> bool:
    """Whether `device` agreed to become a device of `user`."""
    return len(user) == HASH_BYTES and verify(device, PURPOSE_DEVICE_CONSENT, user, signature)


def verify_device_cert(value: canonical.Value) -> DeviceCert:
    """Checks a certificate's form and both of its signatures.

    Raises:
        RemoteProtocolError: MALFORMED if it is not six elements of the right types and lengths, or the name is none;
            BAD_SIGNATURE.
    """
    if not isinstance(value, list | tuple) or len(value) != 6:
        raise RemoteProtocolError(CloseCode.MALFORMED, "a device certificate has six elements")
    device, name, noise_key, noise_signature, sealing_key, sealing_signature = value
    if not isinstance(name, str) or not is_device_name(name):
        raise RemoteProtocolError(CloseCode.MALFORMED, "not a device name")
    cert = DeviceCert(
        _exactly(device, KEY_BYTES),
        name,
        _exactly(noise_key, KEY_BYTES),
        _exactly(noise_signature, SIGNATURE_BYTES),
        _exactly(sealing_key, KEY_BYTES),
        _exactly(sealing_signature, SIGNATURE_BYTES),
    )
    if not verify(cert.device, PURPOSE_NOISE_KEY, cert.noise_key, cert.noise_signature):
        raise RemoteProtocolError(CloseCode.BAD_SIGNATURE, "the certificate of a Noise key")
    if not verify(cert.device, PURPOSE_SEALING_KEY, cert.sealing_key, cert.sealing_signature):
        raise RemoteProtocolError(CloseCode.BAD_SIGNATURE, "the certificate of a sealing key")
    return cert


def _exactly(value: canonical.Value, length_bytes: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != length_bytes:
        raise RemoteProtocolError(CloseCode.MALFORMED, f"not {length_bytes} bytes in a device certificate")
    return value
