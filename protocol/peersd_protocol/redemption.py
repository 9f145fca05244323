"""Redemption of an invite: two signatures that bind invite, user, device and the link they were made on (SPEC: O, DESIGN 10)."""

from __future__ import annotations

from dataclasses import dataclass

from peersd_protocol import canonical
from peersd_protocol.acts import Admit
from peersd_protocol.canonical import Value
from peersd_protocol.entries import DEVICE_BYTES
from peersd_protocol.errors import LocalProtocolError
from peersd_protocol.fields import read_array, read_bytes
from peersd_protocol.signing import HASH_BYTES, PUBLIC_KEY_BYTES, PURPOSE_REDEMPTION, SIGNATURE_BYTES, SigningKey, verify


@dataclass(frozen=True, slots=True)
class Redemption:
    """The proof in OPEN of who redeems an invite.

    Attributes:
        invite_hash: hash of the invite's entry.
        invite_public_key: public half of the invite key.
        user: who redeems.
        identity_head_hash: the newest entry of the user's identity log, which follows on the channel.
        invite_signature: by the invite key.
        device_signature: by the device at the other end of the link.
    """

    invite_hash: bytes
    invite_public_key: bytes
    user: bytes
    identity_head_hash: bytes
    invite_signature: bytes
    device_signature: bytes

    @property
    def value(self) -> list[Value]:
        """The array that travels."""
        head, user = self.identity_head_hash, self.user
        return [self.invite_hash, self.invite_public_key, user, head, self.invite_signature, self.device_signature]

    def admit(self, device: bytes, handshake_hash: bytes) -> Admit:
        """The act that makes the user a member; `device` and `handshake_hash` are those of the link."""
        return Admit(self.invite_hash, self.user, device, handshake_hash, self.invite_signature, self.device_signature)


def decode_redemption(value: Value) -> Redemption:
    """Reads a redemption.

    Raises:
        RemoteProtocolError: MALFORMED.
    """
    invite_hash, invite_key, user, head, invite_signature, device_signature = read_array(value, "redemption", length=6)
    return Redemption(
        read_bytes(invite_hash, "invite"),
        read_bytes(invite_key, "invite key", PUBLIC_KEY_BYTES),
        read_bytes(user, "user"),
        read_bytes(head, "identity head"),
        read_bytes(invite_signature, "signature", SIGNATURE_BYTES),
        read_bytes(device_signature, "signature", SIGNATURE_BYTES),
    )


def redemption_message(group_id: bytes, invite_hash: bytes, user: bytes, device: bytes, handshake_hash: bytes) -> bytes:
    """What both signatures cover.

    Raises:
        LocalProtocolError: an argument has another length than 32 bytes.
    """
    if any(len(part) != HASH_BYTES for part in (group_id, invite_hash, user, handshake_hash)) or len(device) != DEVICE_BYTES:
        raise LocalProtocolError("a redemption is made of five times 32 bytes")
    return canonical.encode([group_id, invite_hash, user, device, handshake_hash])


def sign_redemption(
    *,
    group_id: bytes,
    invite_hash: bytes,
    invite_key: SigningKey,
    user: bytes,
    identity_head_hash: bytes,
    device_key: SigningKey,
    handshake_hash: bytes,
) -> Redemption:
    """Makes the redemption of an invite for one link, named by its handshake hash."""
    message = redemption_message(group_id, invite_hash, user, device_key.public, handshake_hash)
    return Redemption(
        invite_hash,
        invite_key.public,
        user,
        identity_head_hash,
        invite_key.sign(PURPOSE_REDEMPTION, message),
        device_key.sign(PURPOSE_REDEMPTION, message),
    )


def verify_redemption_signatures(
    group_id: bytes,
    invite_hash: bytes,
    invite_public_key: bytes,
    user: bytes,
    device: bytes,
    handshake_hash: bytes,
    invite_signature: bytes,
    device_signature: bytes,
) -> bool:
    """Whether both signatures of a redemption are good."""
    message = redemption_message(group_id, invite_hash, user, device, handshake_hash)
    return verify(invite_public_key, PURPOSE_REDEMPTION, message, invite_signature) and verify(
        device, PURPOSE_REDEMPTION, message, device_signature
    )


def verify_redemption(redemption: Redemption, *, group_id: bytes, device: bytes, handshake_hash: bytes) -> bool:
    """Whether a redemption is good on this link.

    Good signatures prove that whoever sent it holds the ticket and the device's key. Whether the invite may be used, and
    whether the key is the invite's, is for the group's acts to say.

    Args:
        redemption: as it came in OPEN.
        group_id: the group whose token OPEN carried.
        device: the device at the other end.
        handshake_hash: of the link.
    """
    return verify_redemption_signatures(
        group_id,
        redemption.invite_hash,
        redemption.invite_public_key,
        redemption.user,
        device,
        handshake_hash,
        redemption.invite_signature,
        redemption.device_signature,
    )
