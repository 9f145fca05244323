"""The bodies of control and identity acts: typed, bounded, and canonical in both directions (SPEC: A, U).

A body is an array whose first element is its type. Unknown types decode to UnknownAct: they are held and forwarded, and the
group or user shows that it needs an upgrade.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from peersd_protocol import canonical
from peersd_protocol.canonical import Value
from peersd_protocol.constants import (
    ACT_BYTES_MAX,
    AVATAR_BYTES_MAX,
    DESCRIPTION_BYTES_MAX,
    EXPIRES_MS_MAX,
    INVITE_USES_MAX,
    RECOVERY_KEYS_MAX,
    TITLE_CHARS_MAX,
)
from peersd_protocol.devicekeys import DeviceCert, verify_device_cert
from peersd_protocol.entries import DEVICE_BYTES, Kind
from peersd_protocol.errors import LocalProtocolError, RemoteProtocolError
from peersd_protocol.fields import check_ascending, malformed, read_array, read_blob, read_bool, read_bytes, read_int, read_text
from peersd_protocol.membership_acts import (
    MEMBERSHIP_DECODERS,
    Ban,
    Cut,
    Cuts,
    DropDevice,
    Leave,
    MembershipBody,
    Remove,
    SetRole,
    Unban,
    UnknownAct,
    membership_value,
    read_granted_role,
)
from peersd_protocol.names import is_description, is_name
from peersd_protocol.schema_ops import SchemaOp, decode_ops, op_value
from peersd_protocol.signing import PUBLIC_KEY_BYTES, SIGNATURE_BYTES

__all__ = [
    "NONCE_BYTES",
    "RULES_VERSION",
    "TAKING_ACTS",
    "AddDevice",
    "Admit",
    "Ban",
    "Body",
    "ControlBody",
    "Cut",
    "Cuts",
    "DecodedBody",
    "DropDevice",
    "Genesis",
    "IdentityBody",
    "Invite",
    "Leave",
    "NoAct",
    "Profile",
    "Remove",
    "RevokeInvite",
    "SchemaAct",
    "SetRole",
    "Settings",
    "Unban",
    "UnknownAct",
    "UserGenesis",
    "body_value",
    "decode_act",
    "encode_body",
    "kind_of",
]

RULES_VERSION: Final = 1
"""The membership rules of SPEC: A, which a group's genesis names."""

NONCE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class NoAct:
    """An entry without a body: it states heads and nothing else."""


# --- Control acts ---


@dataclass(frozen=True, slots=True)
class Genesis:
    """Begins a group; its author is the founder and its entry's hash the group's id.

    Attributes:
        name: the group's name.
        nonce: 16 random bytes, so that two groups never have one id.
        personal: whether this is its founder's personal group, to which nobody can be invited.
        recovery_keys: public keys that may recover the group, ascending, at most 8.
        recovery_threshold: how many of them it takes; 0 without keys.
    """

    name: str
    nonce: bytes
    personal: bool = False
    recovery_keys: tuple[bytes, ...] = ()
    recovery_threshold: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """Changes what a group shows of itself; None leaves as it is. At least one is given."""

    name: str | None = None
    description: str | None = None
    avatar: bytes | None = None


@dataclass(frozen=True, slots=True)
class Invite:
    """Lets whoever holds the private half of `invite_public_key` join with a role.

    Attributes:
        role: reader to owner.
        expires_ms: milliseconds since 1970; judged by the clock of the device that admits.
        max_uses: how many users it may bring in, from 1.
        invite_public_key: Ed25519, 32 bytes.
    """

    role: int
    expires_ms: int
    max_uses: int
    invite_public_key: bytes


@dataclass(frozen=True, slots=True)
class RevokeInvite:
    """Ends an invite. Admissions by it that this act had not seen are void."""

    invite_hash: bytes


@dataclass(frozen=True, slots=True)
class Admit:
    """Makes the user who redeemed an invite a member. Any member's device writes it.

    Attributes:
        invite_hash: the entry's hash of the invite.
        user: the new member.
        device: the device that redeemed it, one of the user's.
        handshake_hash: of the link that the redemption came on; both signatures cover it.
        invite_signature: by the invite key, PURPOSE_REDEMPTION.
        device_signature: by `device`, PURPOSE_REDEMPTION.
    """

    invite_hash: bytes
    user: bytes
    device: bytes
    handshake_hash: bytes
    invite_signature: bytes
    device_signature: bytes


@dataclass(frozen=True, slots=True)
class SchemaAct:
    """Creates tables, columns and indexes."""

    ops: tuple[SchemaOp, ...]


# --- Identity acts ---


@dataclass(frozen=True, slots=True)
class UserGenesis:
    """Begins a user; its entry's hash is the user's id, and its device the first.

    Attributes:
        name: what the user is called.
        nonce: 16 random bytes.
        cert: the certificate of the device that wrote it.
        recovery_keys: public keys that may recover the user, ascending, at most 8.
        recovery_threshold: how many of them it takes; 0 without keys.
    """

    name: str
    nonce: bytes
    cert: DeviceCert
    recovery_keys: tuple[bytes, ...] = ()
    recovery_threshold: int = 0


@dataclass(frozen=True, slots=True)
class AddDevice:
    """Adds a device to a user. `consent_signature` is the added device's own over the user's id."""

    cert: DeviceCert
    consent_signature: bytes


@dataclass(frozen=True, slots=True)
class Profile:
    """Renames the user."""

    name: str


ControlBody: TypeAlias = Genesis | Settings | Invite | RevokeInvite | Admit | SchemaAct | MembershipBody
IdentityBody: TypeAlias = UserGenesis | AddDevice | Profile
Body: TypeAlias = ControlBody | IdentityBody
DecodedBody: TypeAlias = Body | UnknownAct | NoAct

TAKING_ACTS: Final = (RevokeInvite, Leave, SetRole, Remove, Ban, DropDevice)
"""The acts by which what stood before, or was made apart, may count no more. A promotion takes nothing, but is a SetRole too."""


# --- Encoding ---


def body_value(act: Body) -> list[Value]:
    """The array that travels."""
    match act:
        case Genesis():
            return [1, RULES_VERSION, act.name, act.nonce, act.personal, list(act.recovery_keys), act.recovery_threshold]
        case Settings():
            pairs = (("avatar", act.avatar), ("description", act.description), ("name", act.name))
            return [2, [[key, value] for key, value in pairs if value is not None]]
        case Invite():
            return [3, act.role, act.expires_ms, act.max_uses, act.invite_public_key]
        case RevokeInvite():
            return [4, act.invite_hash]
        case Admit():
            return [5, act.invite_hash, act.user, act.device, act.handshake_hash, act.invite_signature, act.device_signature]
        case SchemaAct():
            return [7, [op_value(op) for op in act.ops]]
        case UserGenesis():
            return [1, act.name, act.nonce, act.cert.value, list(act.recovery_keys), act.recovery_threshold]
        case AddDevice():
            return [2, act.cert.value, act.consent_signature]
        case Profile():
            return [3, act.name]
        case _:
            return membership_value(act)


def kind_of(act: Body) -> Kind:
    """The kind of log that an act stands in."""
    return Kind.IDENTITY if isinstance(act, UserGenesis | AddDevice | Profile) else Kind.CONTROL


def encode_body(act: Body) -> bytes:
    """The canonical bytes of an act's body: what its one block holds.

    Raises:
        LocalProtocolError: the act breaks a bound or rule that every receiver checks.
    """
    encoded = canonical.encode(body_value(act))
    try:
        if decode_act(kind_of(act), canonical.decode(encoded, bytes_max=ACT_BYTES_MAX)) != act:
            raise LocalProtocolError("the act does not survive its encoding")
    except RemoteProtocolError as error:
        raise LocalProtocolError(f"an act that nobody would accept: {error.detail}") from error
    return encoded


# --- Decoding ---


def decode_act(kind: Kind, value: Sequence[Value]) -> DecodedBody:
    """The act of a decoded body.

    Args:
        kind: CONTROL or IDENTITY.
        value: the body as `canonical.decode` gives it, or empty for an entry without body.

    Raises:
        RemoteProtocolError: MALFORMED for wrong types, lengths, bounds or order; BAD_SIGNATURE for a device certificate.
        LocalProtocolError: `kind` is DATA.
    """
    if kind is Kind.DATA:
        raise LocalProtocolError("data entries hold no acts")
    if not value:
        return NoAct()
    number = read_int(value[0], "type of act", 1, 2**31)
    decoders = _CONTROL_DECODERS if kind is Kind.CONTROL else _IDENTITY_DECODERS
    decoder = decoders.get(number)
    return decoder(value) if decoder else UnknownAct(number)


def _decode_genesis(value: Sequence[Value]) -> Genesis | UnknownAct:
    version = read_int(value[1] if len(value) > 1 else None, "rules version", 1, 2**31)
    if version != RULES_VERSION:
        return UnknownAct(1)
    _, _, name, nonce, personal, keys, threshold = read_array(value, "genesis", length=7)
    recovery_keys, recovery_threshold = _read_recovery(keys, threshold)
    is_personal = read_bool(personal, "personal")
    return Genesis(_read_name(name), read_bytes(nonce, "nonce", NONCE_BYTES), is_personal, recovery_keys, recovery_threshold)


def _decode_settings(value: Sequence[Value]) -> Settings | UnknownAct:
    _, pairs = read_array(value, "settings", length=2)
    found: dict[str, Value] = {}
    for pair in read_array(pairs, "settings", items_max=16):
        key, setting = read_array(pair, "setting", length=2)
        found[read_text(key, "key of a setting", 64)] = setting
    keys = list(found)
    check_ascending(keys, "settings")
    if not found or len(found) != len(read_array(pairs, "settings")):
        raise malformed("settings")
    if not found.keys() <= {"avatar", "description", "name"}:
        return UnknownAct(2)
    description = found.get("description")
    if "description" in found and (not isinstance(description, str) or not is_description(description)):
        raise malformed(f"not a description of at most {DESCRIPTION_BYTES_MAX} bytes")
    return Settings(
        name=_read_name(found["name"]) if "name" in found else None,
        description=description if isinstance(description, str) else None,
        avatar=read_blob(found["avatar"], "avatar", AVATAR_BYTES_MAX) if "avatar" in found else None,
    )


def _decode_invite(value: Sequence[Value]) -> Invite:
    _, role, expires_ms, max_uses, public_key = read_array(value, "invite", length=5)
    return Invite(
        read_granted_role(role),
        read_int(expires_ms, "expiry", 0, EXPIRES_MS_MAX),
        read_int(max_uses, "maximum of uses", 1, INVITE_USES_MAX),
        read_bytes(public_key, "invite key", PUBLIC_KEY_BYTES),
    )


def _decode_revoke_invite(value: Sequence[Value]) -> RevokeInvite:
    _, invite_hash = read_array(value, "revoke invite", length=2)
    return RevokeInvite(read_bytes(invite_hash, "invite"))


def _decode_admit(value: Sequence[Value]) -> Admit:
    _, invite_hash, user, device, handshake_hash, invite_signature, device_signature = read_array(value, "admit", length=7)
    return Admit(
        read_bytes(invite_hash, "invite"),
        read_bytes(user, "user"),
        read_bytes(device, "device", DEVICE_BYTES),
        read_bytes(handshake_hash, "handshake hash"),
        read_bytes(invite_signature, "signature", SIGNATURE_BYTES),
        read_bytes(device_signature, "signature", SIGNATURE_BYTES),
    )


def _decode_schema(value: Sequence[Value]) -> SchemaAct | UnknownAct:
    _, fields = read_array(value, "schema", length=2)
    ops = decode_ops(fields)
    return UnknownAct(7) if ops is None else SchemaAct(ops)


def _decode_user_genesis(value: Sequence[Value]) -> UserGenesis:
    _, name, nonce, cert, keys, threshold = read_array(value, "user genesis", length=6)
    recovery_keys, recovery_threshold = _read_recovery(keys, threshold)
    title, salt = _read_name(name), read_bytes(nonce, "nonce", NONCE_BYTES)
    return UserGenesis(title, salt, _verify_cert(cert), recovery_keys, recovery_threshold)


def _decode_add_device(value: Sequence[Value]) -> AddDevice:
    _, cert, consent = read_array(value, "add device", length=3)
    return AddDevice(_verify_cert(cert), read_bytes(consent, "consent", SIGNATURE_BYTES))


def _decode_profile(value: Sequence[Value]) -> Profile:
    _, name = read_array(value, "profile", length=2)
    return Profile(_read_name(name))


_Decoder: TypeAlias = Callable[[Sequence[Value]], Body | UnknownAct]
_CONTROL_DECODERS: Final[dict[int, _Decoder]] = {
    1: _decode_genesis,
    2: _decode_settings,
    3: _decode_invite,
    4: _decode_revoke_invite,
    5: _decode_admit,
    7: _decode_schema,
    **MEMBERSHIP_DECODERS,
}
_IDENTITY_DECODERS: Final[dict[int, _Decoder]] = {1: _decode_user_genesis, 2: _decode_add_device, 3: _decode_profile}


def _verify_cert(value: Value) -> DeviceCert:
    fields = tuple(read_array(value, "device certificate", length=6))
    if not all(isinstance(field, bytes | str) for field in fields):
        raise malformed("a device certificate holds bytes and a name")
    return _verify_cert_fields(fields)


@lru_cache(maxsize=4096)
def _verify_cert_fields(fields: tuple[Value, ...]) -> DeviceCert:
    """An identity is decoded whenever a group is evaluated; the signatures of its old certificates are not checked each time."""
    return verify_device_cert(fields)


def _read_name(value: Value) -> str:
    if not isinstance(value, str) or not is_name(value):
        raise malformed(f"not a name of 1 to {TITLE_CHARS_MAX} characters")
    return value


def _read_recovery(keys: Value, threshold: Value) -> tuple[tuple[bytes, ...], int]:
    recovery_keys = tuple(
        read_bytes(key, "recovery key", PUBLIC_KEY_BYTES)
        for key in read_array(keys, "recovery keys", items_max=RECOVERY_KEYS_MAX)
    )
    check_ascending(recovery_keys, "recovery keys")
    return recovery_keys, read_int(threshold, "threshold", 1 if recovery_keys else 0, len(recovery_keys))
