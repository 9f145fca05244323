"""Noise_XX_25519_ChaChaPoly_SHA256 without I/O (SPEC: N; the Noise Protocol Framework, revision 34).

The ephemeral private key is an argument, so a handshake is a function of its inputs and the same machine runs in production, in
the simulator and against published vectors. Production uses the pattern XX alone; IK and XXpsk3 stand in the table because the
published vectors for them exercise the same code.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from peersd_protocol.constants import NOISE_MESSAGE_BYTES_MAX, NOISE_TAG_BYTES
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.signing import sha256

KEY_BYTES: Final = 32
"""Private keys, public keys, shared secrets and cipher keys alike."""

PLAINTEXT_BYTES_MAX: Final = NOISE_MESSAGE_BYTES_MAX - NOISE_TAG_BYTES
"""The most that one transport message carries."""

NONCE_END: Final = 2**64 - 1
"""Noise reserves the last nonce; a cipher that has counted up to it is spent."""

_pack_nonce: Final = struct.Struct("<4xQ").pack


class X25519Key:
    """An X25519 private key with its public half.

    Args:
        private: 32 bytes; any 32 bytes are a key (RFC 7748, 5).
    """

    def __init__(self, private: bytes) -> None:
        if len(private) != KEY_BYTES:
            raise LocalProtocolError(f"an X25519 private key has {KEY_BYTES} bytes")
        self._key = X25519PrivateKey.from_private_bytes(private)
        self.public: Final = self._key.public_key().public_bytes_raw()

    def exchange(self, remote_public: bytes) -> bytes:
        """Returns the shared secret, 32 bytes.

        Raises:
            RemoteProtocolError: PROTOCOL if the remote key has another length or makes an all-zero secret. Such a point of low
                order would let a third party know the secret, so it counts like a bad MAC (RFC 7748, 6.1).
        """
        if len(remote_public) != KEY_BYTES:
            raise RemoteProtocolError(CloseCode.PROTOCOL, "an X25519 public key of another length")
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(remote_public))
        except ValueError as error:  # OpenSSL refuses an all-zero secret
            raise RemoteProtocolError(CloseCode.PROTOCOL, "the X25519 shared secret is all zero") from error


class CipherState:
    """One direction of a link: ChaCha20-Poly1305 with a counting nonce.

    Args:
        key: 32 bytes.
        nonce: the first nonce, 0 to NONCE_END.
    """

    __slots__ = ("_cipher", "_decrypt", "_encrypt", "nonce")

    def __init__(self, key: bytes, nonce: int = 0) -> None:
        # One cipher object and bound methods: building them for each message would cost more than a short message's encryption.
        self._cipher = ChaCha20Poly1305(key)
        self._encrypt = self._cipher.encrypt
        self._decrypt = self._cipher.decrypt
        self.nonce = nonce

    def encrypt(self, plaintext: bytes, associated_data: bytes = b"") -> bytes:
        """Encrypts one message of at most PLAINTEXT_BYTES_MAX bytes; the result is NOISE_TAG_BYTES longer.

        Raises:
            LocalProtocolError: the message is too long, or all nonces are used. The link must end then: there is no rekeying.
        """
        if len(plaintext) > PLAINTEXT_BYTES_MAX:
            raise LocalProtocolError(f"{len(plaintext)} bytes do not fit in one Noise message")
        if self.nonce >= NONCE_END:
            raise LocalProtocolError("all nonces of this cipher are used")
        ciphertext = self._encrypt(_pack_nonce(self.nonce), plaintext, associated_data)
        self.nonce += 1
        return ciphertext

    def decrypt(self, ciphertext: bytes | memoryview, associated_data: bytes = b"") -> bytes:
        """Decrypts the next message. A failure leaves the nonce as it was, and the link must end.

        Raises:
            RemoteProtocolError: TOO_LARGE above NOISE_MESSAGE_BYTES_MAX; PROTOCOL if it was not made by the other end as its next
                message, or the other end has used all nonces.
        """
        if len(ciphertext) > NOISE_MESSAGE_BYTES_MAX:
            raise RemoteProtocolError(CloseCode.TOO_LARGE, f"a Noise message of {len(ciphertext)} bytes")
        if self.nonce >= NONCE_END:
            raise RemoteProtocolError(CloseCode.PROTOCOL, "all nonces of this cipher are used")
        try:
            plaintext = self._decrypt(_pack_nonce(self.nonce), ciphertext, associated_data)
        except InvalidTag as error:
            raise RemoteProtocolError(CloseCode.PROTOCOL, "a Noise message does not decrypt") from error
        self.nonce += 1
        return plaintext


def _derive(chaining_key: bytes, secret: bytes, outputs: int) -> list[bytes]:
    """Noise's HKDF: RFC 5869 with the chaining key as salt and empty info, cut into `outputs` pieces of 32 bytes."""
    material = HKDF(SHA256(), outputs * KEY_BYTES, salt=chaining_key, info=b"").derive(secret)
    return [material[at : at + KEY_BYTES] for at in range(0, len(material), KEY_BYTES)]


class SymmetricState:
    """The running hash and keys of a handshake (Noise, 5.2)."""

    def __init__(self, protocol_name: bytes) -> None:
        self.handshake_hash = protocol_name.ljust(KEY_BYTES, b"\0") if len(protocol_name) <= KEY_BYTES else sha256(protocol_name)
        self._chaining_key = self.handshake_hash
        self._cipher: CipherState | None = None

    def mix_hash(self, data: bytes) -> None:
        """Binds `data` into the handshake hash."""
        self.handshake_hash = sha256(self.handshake_hash + data)

    def mix_key(self, secret: bytes) -> None:
        """Makes all later keys depend on `secret`."""
        self._chaining_key, key = _derive(self._chaining_key, secret, 2)
        self._cipher = CipherState(key)

    def mix_key_and_hash(self, secret: bytes) -> None:
        """Does both with a pre-shared key."""
        self._chaining_key, hashed, key = _derive(self._chaining_key, secret, 3)
        self.mix_hash(hashed)
        self._cipher = CipherState(key)

    @property
    def overhead_bytes(self) -> int:
        """What encryption adds to a part of a message now: nothing before the first key."""
        return NOISE_TAG_BYTES if self._cipher else 0

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Encrypts a part of a message, or passes it in clear before the first key."""
        part = self._cipher.encrypt(plaintext, self.handshake_hash) if self._cipher else plaintext
        self.mix_hash(part)
        return part

    def decrypt_and_hash(self, part: bytes) -> bytes:
        """Undoes encrypt_and_hash; raises as CipherState.decrypt."""
        plaintext = self._cipher.decrypt(part, self.handshake_hash) if self._cipher else part
        self.mix_hash(part)
        return plaintext

    def split(self) -> tuple[CipherState, CipherState]:
        """The transport ciphers: the initiator's sending one first."""
        first, second = _derive(self._chaining_key, b"", 2)
        return CipherState(first), CipherState(second)


@dataclass(frozen=True)
class Pattern:
    """A handshake pattern.

    Attributes:
        name: as it stands in the protocol name.
        messages: the tokens of each message; the initiator sends the first, then sides alternate.
        responder_static_known: whether the initiator has the responder's static key beforehand.
    """

    name: str
    messages: tuple[tuple[str, ...], ...]
    responder_static_known: bool = False

    @property
    def protocol_name(self) -> bytes:
        """The full name, which is hashed first."""
        return f"Noise_{self.name}_25519_ChaChaPoly_SHA256".encode()

    @property
    def uses_psk(self) -> bool:
        """Whether a pre-shared key takes part. Ephemeral keys are then mixed into the keys too (Noise, 9.2)."""
        return any("psk" in tokens for tokens in self.messages)


XX: Final = Pattern("XX", (("e",), ("e", "ee", "s", "es"), ("s", "se")))
IK: Final = Pattern("IK", (("e", "es", "s", "ss"), ("e", "ee", "se")), responder_static_known=True)
XX_PSK3: Final = Pattern("XXpsk3", (("e",), ("e", "ee", "s", "es"), ("s", "se", "psk")))


class HandshakeState:
    """One side of a handshake: write_message and read_message by turns until is_finished, then split.

    Args:
        is_initiator: whether this side sends the first message.
        prologue: bytes that both sides must have equal.
        static: this side's static key.
        ephemeral: this side's ephemeral key, from fresh entropy: two handshakes with one ephemeral key lose forward secrecy.
        pattern: which handshake.
        remote_static: the responder's public key, for an initiator whose pattern knows it beforehand.
        psk: the pre-shared key, 32 bytes, for patterns that use one.
    """

    def __init__(
        self,
        *,
        is_initiator: bool,
        prologue: bytes,
        static: X25519Key,
        ephemeral: X25519Key,
        pattern: Pattern = XX,
        remote_static: bytes = b"",
        psk: bytes = b"",
    ) -> None:
        self.remote_static = remote_static
        self._is_initiator = is_initiator
        self._static = static
        self._ephemeral = ephemeral
        self._remote_ephemeral = b""
        self._pattern = pattern
        self._psk = psk
        self._messages_done = 0
        self._symmetric = SymmetricState(pattern.protocol_name)
        self._symmetric.mix_hash(prologue)
        if pattern.responder_static_known:
            self._symmetric.mix_hash(remote_static if is_initiator else static.public)

    @property
    def is_finished(self) -> bool:
        """Whether all messages of the pattern are written and read."""
        return self._messages_done == len(self._pattern.messages)

    @property
    def handshake_hash(self) -> bytes:
        """What both sides saw, as 32 bytes; after the last message it names this handshake alone."""
        return self._symmetric.handshake_hash

    def _next_tokens(self, *, writing: bool) -> tuple[str, ...]:
        if self.is_finished:
            raise LocalProtocolError("the handshake is finished")
        if (self._messages_done % 2 == 0) != (self._is_initiator == writing):
            raise LocalProtocolError("not this side's turn")
        tokens = self._pattern.messages[self._messages_done]
        self._messages_done += 1
        return tokens

    def write_message(self, payload: bytes) -> bytes:
        """Makes this side's next message around `payload`.

        Raises:
            RemoteProtocolError: PROTOCOL if a key of the other side makes an all-zero secret.
            LocalProtocolError: not this side's turn.
        """
        parts: list[bytes] = []
        for token in self._next_tokens(writing=True):
            if token == "e":
                parts.append(self._ephemeral.public)
                self._mix_ephemeral(self._ephemeral.public)
            elif token == "s":
                parts.append(self._symmetric.encrypt_and_hash(self._static.public))
            else:
                self._mix_secret(token)
        parts.append(self._symmetric.encrypt_and_hash(payload))
        return b"".join(parts)

    def read_message(self, message: bytes) -> bytes:
        """Reads the other side's next message and returns its payload. After an error the handshake must be dropped.

        Raises:
            RemoteProtocolError: PROTOCOL if it is cut short, does not decrypt, or its keys make an all-zero secret; TOO_LARGE.
            LocalProtocolError: not the other side's turn.
        """
        at = 0
        for token in self._next_tokens(writing=False):
            if token == "e":
                self._remote_ephemeral = self._take(message, at, KEY_BYTES)
                at += KEY_BYTES
                self._mix_ephemeral(self._remote_ephemeral)
            elif token == "s":
                part_bytes = KEY_BYTES + self._symmetric.overhead_bytes
                self.remote_static = self._symmetric.decrypt_and_hash(self._take(message, at, part_bytes))
                at += part_bytes
            else:
                self._mix_secret(token)
        return self._symmetric.decrypt_and_hash(message[at:])

    @staticmethod
    def _take(message: bytes, at: int, part_bytes: int) -> bytes:
        part = message[at : at + part_bytes]
        if len(part) != part_bytes:
            raise RemoteProtocolError(CloseCode.PROTOCOL, "a handshake message is cut short")
        return part

    def _mix_ephemeral(self, public: bytes) -> None:
        self._symmetric.mix_hash(public)
        if self._pattern.uses_psk:
            self._symmetric.mix_key(public)

    def _mix_secret(self, token: str) -> None:
        """Mixes the secret a token names: its first letter is the initiator's key, its second the responder's."""
        if token == "psk":
            self._symmetric.mix_key_and_hash(self._psk)
            return
        local, remote = (token[0], token[1]) if self._is_initiator else (token[1], token[0])
        key = self._ephemeral if local == "e" else self._static
        self._symmetric.mix_key(key.exchange(self._remote_ephemeral if remote == "e" else self.remote_static))

    def split(self) -> tuple[CipherState, CipherState]:
        """The ciphers of the finished handshake: (send, receive).

        Raises:
            LocalProtocolError: the handshake is not finished.
        """
        if not self.is_finished:
            raise LocalProtocolError("the handshake is not finished")
        first, second = self._symmetric.split()
        return (first, second) if self._is_initiator else (second, first)
