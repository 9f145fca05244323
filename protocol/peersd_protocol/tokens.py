"""What OPEN and ACCEPT carry: blinded group tokens, digests of vectors, beacons and proofs (SPEC: O, DESIGN 5)."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from peersd_protocol import canonical
from peersd_protocol.constants import OPEN_BYTES_MAX
from peersd_protocol.errors import LocalProtocolError
from peersd_protocol.fields import read_array, read_bytes
from peersd_protocol.redemption import Redemption, decode_redemption
from peersd_protocol.signing import HASH_BYTES

TOKEN_BYTES: Final = 16
DIGEST_BYTES: Final = 16
BEACONS_BYTES: Final = 8

SIDE_DIALLER: Final = b"\x00"
SIDE_LISTENER: Final = b"\x01"

NO_BEACONS: Final = bytes(BEACONS_BYTES)

NO_DIGEST: Final = bytes(DIGEST_BYTES)
"""In ACCEPT that of a farewell. In OPEN: no session is expected, since its sender holds the receiver for a former member's."""

_VECTOR_LABEL: Final = b"peersd/1 vector digest\0"


def group_token(group_id: bytes, handshake_hash: bytes, side: bytes) -> bytes:
    """The token by which OPEN names a group to those who know it and to nobody else, 16 bytes.

    Args:
        group_id: 32 bytes, the key.
        handshake_hash: of the link, 32 bytes; it makes the token worthless on any other link.
        side: SIDE_DIALLER or SIDE_LISTENER, of the side that sends the OPEN; a token sent back proves nothing.
    """
    if len(group_id) != HASH_BYTES or len(handshake_hash) != HASH_BYTES or side not in (SIDE_DIALLER, SIDE_LISTENER):
        raise LocalProtocolError("a token is made of a group id, a handshake hash and a side")
    return hmac.digest(group_id, handshake_hash + side, hashlib.sha256)[:TOKEN_BYTES]


def vector_digest(group_id: bytes, canonical_vector: bytes) -> bytes:
    """The digest by which two replicas see that they hold the same entries, 16 bytes.

    Keyed by the group id, so that it tells a stranger nothing, not even that two links are about the same group at the same
    state.

    Args:
        group_id: 32 bytes.
        canonical_vector: the vector's canonical bytes.
    """
    if len(group_id) != HASH_BYTES:
        raise LocalProtocolError("not a group id")
    return hmac.digest(group_id, _VECTOR_LABEL + canonical_vector, hashlib.sha256)[:DIGEST_BYTES]


@dataclass(frozen=True, slots=True)
class OpenPayload:
    """The payload of OPEN.

    Attributes:
        token: of the group, see group_token.
        digest: of the sender's vector, see vector_digest; NO_DIGEST from who expects no session, or redeems.
        beacons: 8 bytes over all beacon counters; NO_BEACONS from these.
        proof: a redemption, from who is not a member yet; else None.
        pleads: whether it is followed by a plea instead.
    """

    token: bytes
    digest: bytes
    beacons: bytes = NO_BEACONS
    proof: Redemption | None = None
    pleads: bool = False

    @property
    def expects_session(self) -> bool:
        """Whether its sender holds the receiver for a member's device, or has something to ask."""
        return self.digest != NO_DIGEST or self.proof is not None

    @property
    def may_be_asked_back(self) -> bool:
        """Whether its sender would answer an OPEN: who redeems knows nothing yet, and who expects no session has said all."""
        return self.expects_session and self.proof is None

    def encode(self) -> bytes:
        """The canonical bytes."""
        proof = self.proof.value if self.proof else True if self.pleads else None
        return canonical.encode([self.token, self.digest, self.beacons, proof])


def decode_open(data: bytes) -> OpenPayload:
    """Reads the payload of OPEN.

    Raises:
        RemoteProtocolError: TOO_LARGE or MALFORMED.
    """
    token, digest, beacons, proof = read_array(canonical.decode(data, bytes_max=OPEN_BYTES_MAX), "OPEN", length=4)
    return OpenPayload(
        read_bytes(token, "token", TOKEN_BYTES),
        read_bytes(digest, "digest", DIGEST_BYTES),
        read_bytes(beacons, "beacons", BEACONS_BYTES),
        None if proof is None or proof is True else decode_redemption(proof),
        proof is True,
    )


@dataclass(frozen=True, slots=True)
class AcceptPayload:
    """The payload of ACCEPT: the accepting side's digest and beacons."""

    digest: bytes
    beacons: bytes = NO_BEACONS

    def encode(self, asked: OpenPayload) -> bytes:
        """The canonical bytes of the answer to an OPEN: none where both are what it says itself, as between devices in sync."""
        if self.digest == asked.digest and self.beacons == asked.beacons:
            return b""
        return canonical.encode([self.digest, self.beacons])


def decode_accept(data: bytes, asked: OpenPayload) -> AcceptPayload:
    """Reads the payload of ACCEPT.

    Args:
        data: the payload.
        asked: the OPEN that it answers.

    Raises:
        RemoteProtocolError: TOO_LARGE or MALFORMED.
    """
    if not data:
        return AcceptPayload(asked.digest, asked.beacons)
    digest, beacons = read_array(canonical.decode(data, bytes_max=OPEN_BYTES_MAX), "ACCEPT", length=2)
    return AcceptPayload(read_bytes(digest, "digest", DIGEST_BYTES), read_bytes(beacons, "beacons", BEACONS_BYTES))


REFUSAL_REASONS: Final = frozenset(
    ["invite_invalid", "invite_expired", "invite_used_up", "invite_revoked", "banned", "too_large"]
)
"""What REFUSE may say, and only to who proved to hold the ticket."""

NO_REASON: Final = b""
"""The payload of the one constant REFUSE for everything a stranger could ask."""


def encode_refusal(reason: str | None) -> bytes:
    """The payload of REFUSE.

    Args:
        reason: one of REFUSAL_REASONS, only after the invite key's signature proved good; None to anyone else.
    """
    if reason is None:
        return NO_REASON
    if reason not in REFUSAL_REASONS:
        raise LocalProtocolError(f"not a reason: {reason}")
    return canonical.encode([reason])


def decode_refusal(data: bytes) -> str | None:
    """The reason that a REFUSE gives; None without one, and for a reason that this version does not know.

    Raises:
        RemoteProtocolError: TOO_LARGE or MALFORMED.
    """
    if not data:
        return None
    (reason,) = read_array(canonical.decode(data, bytes_max=OPEN_BYTES_MAX), "REFUSE", length=1)
    return reason if isinstance(reason, str) and reason in REFUSAL_REASONS else None
