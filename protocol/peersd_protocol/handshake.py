"""The handshake of a link: Noise XX with both devices' certificates in its encrypted payloads (SPEC: N, DESIGN 5).

The dialler sends messages 1 and 3, the listener message 2. Message 1 has no payload: nothing is said before there is a key. Each
side's payload states its device and proves that the Noise key it just used is that device's.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from peersd_protocol import canonical
from peersd_protocol.constants import BOOT_ID_BYTES, HANDSHAKE_MESSAGE_BYTES_MAX, HANDSHAKE_PAYLOAD_BYTES_MAX
from peersd_protocol.devicekeys import DeviceKeys
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.noise import KEY_BYTES, CipherState, HandshakeState, X25519Key
from peersd_protocol.signing import HASH_BYTES, PUBLIC_KEY_BYTES, PURPOSE_NOISE_KEY, SIGNATURE_BYTES, verify

PROLOGUE: Final = b"peersd/1"
PAYLOAD_VERSION: Final = 1


class Role(enum.Enum):
    """Which side of a link this is."""

    DIALLER = "dialler"
    LISTENER = "listener"


@dataclass(frozen=True, slots=True)
class Established:
    """What a finished handshake proved.

    Attributes:
        remote_device: the remote side's Ed25519 public key, 32 bytes.
        remote_boot_id: 16 bytes; another one means another process.
        remote_replaces: handshake hash of the link that a dialler states it closed, 32 bytes; empty if none, and from a listener.
        local_replaces: what this side stated so.
        is_alone: whether the dialler stated that it has no other link in some group that it takes the listener to be in.
        handshake_hash: names this link, 32 bytes; both sides have the same.
        send: encrypts what this side sends.
        receive: decrypts what the remote side sends.
    """

    remote_device: bytes
    remote_boot_id: bytes
    remote_replaces: bytes
    local_replaces: bytes
    is_alone: bool
    handshake_hash: bytes
    send: CipherState
    receive: CipherState


@dataclass(frozen=True, slots=True)
class HandshakeStep:
    """What follows from a received message.

    Attributes:
        reply: the message to send now, if any.
        result: set once this side is done. A dialler has both: it may still decide against the link by not sending `reply`, and
            then the listener never has it (SPEC: L-13).
    """

    reply: bytes | None
    result: Established | None


@dataclass(frozen=True, slots=True)
class _Statement:
    """A payload that was checked."""

    device: bytes
    boot_id: bytes
    replaces: bytes
    is_alone: bool


class Handshake:
    """One side of one handshake. After an error, and after the result, it is spent.

    Args:
        role: dialler or listener.
        keys: this device's keys.
        boot_id: 16 random bytes, the same in all handshakes of this process.
        ephemeral_private: 32 random bytes, never used before.
        replaces: for a dialler, the handshake hash of the old link to that device that it closed, or empty; or a function from
            the remote device to that, asked when message 2 shows who answered (an address from a ticket does not tell
            beforehand).
        is_alone: for a dialler, whether to state that it is alone (see Established), asked for the remote device then, too.
        expected_device: for a dialler that knows whom it dials: another device is refused before it learns who asked.
    """

    def __init__(
        self,
        role: Role,
        keys: DeviceKeys,
        *,
        boot_id: bytes,
        ephemeral_private: bytes,
        replaces: bytes | Callable[[bytes], bytes] = b"",
        is_alone: Callable[[bytes], bool] | None = None,
        expected_device: bytes | None = None,
    ) -> None:
        if len(boot_id) != BOOT_ID_BYTES:
            raise LocalProtocolError(f"a boot id has {BOOT_ID_BYTES} bytes")
        if role is Role.LISTENER and (replaces or is_alone or expected_device):
            raise LocalProtocolError("only a dialler replaces a link, is alone or expects a device")
        self._role = role
        self._keys = keys
        self._boot_id = boot_id
        self._replaces = replaces
        self._is_alone = is_alone
        self._expected_device = expected_device
        self._awaits = 2 if role is Role.DIALLER else 1
        self._is_started = role is Role.LISTENER
        self._noise = HandshakeState(
            is_initiator=role is Role.DIALLER,
            prologue=PROLOGUE,
            static=keys.noise,
            ephemeral=X25519Key(ephemeral_private),
        )

    def start(self) -> bytes | None:
        """The dialler's first message; None for a listener, which waits for it."""
        if self._role is Role.LISTENER:
            return None
        if self._is_started:
            raise LocalProtocolError("the handshake was started before")
        self._is_started = True
        return self._noise.write_message(b"")

    def receive(self, message: bytes) -> HandshakeStep:
        """Takes the remote side's next message.

        Raises:
            RemoteProtocolError: HANDSHAKE, whatever was wrong: the code tells a stranger nothing, the detail is for the log.
            LocalProtocolError: the dialler has not started, or the handshake is over.
        """
        awaited, self._awaits = self._awaits, 0  # put back only on success, so that nothing follows a failure
        if not self._is_started or not awaited:
            raise LocalProtocolError("no handshake message is awaited")
        try:
            if len(message) > HANDSHAKE_MESSAGE_BYTES_MAX:
                raise RemoteProtocolError(CloseCode.TOO_LARGE, f"a handshake message of {len(message)} bytes")
            if awaited == 1:
                return self._receive_first(message)
            return self._receive_statement(message)
        except RemoteProtocolError as error:
            raise RemoteProtocolError(CloseCode.HANDSHAKE, error.detail) from error

    def _receive_first(self, message: bytes) -> HandshakeStep:
        if self._noise.read_message(message):
            raise RemoteProtocolError(CloseCode.HANDSHAKE, "message 1 carries a payload")
        self._awaits = 3
        return HandshakeStep(self._noise.write_message(self._payload(b"", is_alone=False)), None)

    def _receive_statement(self, message: bytes) -> HandshakeStep:
        """Message 2 at the dialler, message 3 at the listener: the remote side's statement, and the end for this side."""
        remote = self._check_payload(self._noise.read_message(message))
        replaces, is_alone, reply = b"", remote.is_alone, None
        if self._role is Role.DIALLER:
            replaces = self._replaces if isinstance(self._replaces, bytes) else self._replaces(remote.device)
            is_alone = self._is_alone is not None and self._is_alone(remote.device)
            reply = self._noise.write_message(self._payload(replaces, is_alone=is_alone))
        send, receive = self._noise.split()
        result = Established(
            remote_device=remote.device,
            remote_boot_id=remote.boot_id,
            remote_replaces=remote.replaces,
            local_replaces=replaces,
            is_alone=is_alone,
            handshake_hash=self._noise.handshake_hash,
            send=send,
            receive=receive,
        )
        return HandshakeStep(reply, result)

    def _payload(self, replaces: bytes, *, is_alone: bool) -> bytes:
        if len(replaces) not in (0, HASH_BYTES):
            raise LocalProtocolError(f"a handshake hash has {HASH_BYTES} bytes")
        keys = self._keys
        return canonical.encode([PAYLOAD_VERSION, keys.device, keys.noise_signature, self._boot_id, replaces, is_alone])

    def _check_payload(self, payload: bytes) -> _Statement:
        """Checks the remote side's payload against the static key that the handshake just proved (SPEC: N-5)."""
        value = canonical.decode(payload, bytes_max=HANDSHAKE_PAYLOAD_BYTES_MAX)
        if len(value) != 6 or type(value[0]) is not int or value[0] != PAYLOAD_VERSION:
            raise RemoteProtocolError(CloseCode.HANDSHAKE, "a payload of another version")
        _, device, signature, boot_id, replaces, is_alone = value
        if not isinstance(is_alone, bool) or (is_alone and self._role is Role.DIALLER):
            raise RemoteProtocolError(CloseCode.HANDSHAKE, "a payload that does not say whether the dialler is alone")
        replaces_lengths = (0,) if self._role is Role.DIALLER else (0, HASH_BYTES)
        statement = _Statement(
            _bytes_of(device, PUBLIC_KEY_BYTES),
            _bytes_of(boot_id, BOOT_ID_BYTES),
            _bytes_of(replaces, *replaces_lengths),
            is_alone,
        )
        if not verify(statement.device, PURPOSE_NOISE_KEY, self._noise.remote_static, _bytes_of(signature, SIGNATURE_BYTES)):
            raise RemoteProtocolError(CloseCode.HANDSHAKE, "the certificate is not over the Noise key that was proved")
        if statement.device == self._keys.device:
            which = "itself" if statement.boot_id == self._boot_id else "another process that holds the same device key"
            raise RemoteProtocolError(CloseCode.HANDSHAKE, f"the device reached {which}")
        if self._expected_device is not None and statement.device != self._expected_device:
            raise RemoteProtocolError(CloseCode.HANDSHAKE, "another device answers at that address")
        return statement


def _bytes_of(value: canonical.Value, *lengths_bytes: int) -> bytes:
    if not isinstance(value, bytes) or len(value) not in lengths_bytes:
        raise RemoteProtocolError(CloseCode.HANDSHAKE, "a payload with a field of another type or length")
    return value


assert KEY_BYTES == PUBLIC_KEY_BYTES == HASH_BYTES
