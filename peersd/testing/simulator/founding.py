"""Users and groups for simulations, with keys that depend on the seed alone."""

from __future__ import annotations

from dataclasses import dataclass

from peersd.store.store import Commit, Store
from peersd.testing.simulator.schedule import FIRST_WALL_MS
from peersd_protocol import blocks as block_codec
from peersd_protocol import hlc
from peersd_protocol.acts import Genesis, Invite, UserGenesis, encode_body
from peersd_protocol.devicekeys import DeviceKeys, verify_device_cert
from peersd_protocol.entries import EPOCH_BYTES, Header, Kind
from peersd_protocol.redemption import sign_redemption
from peersd_protocol.roles import Role
from peersd_protocol.runs import Body, Entry, Run
from peersd_protocol.signing import SigningKey, sha256

_NEVER_MS = FIRST_WALL_MS + 10**9


def secret(*parts: object) -> bytes:
    """32 bytes that depend on the parts alone."""
    return sha256("/".join(["peersd simulator", *map(str, parts)]).encode())


@dataclass(frozen=True)
class Person:
    """A user with one device.

    Attributes:
        name: of the device; the user is called the same.
        keys: the device's.
        user: the user's id.
        identity: the identity log.
    """

    name: str
    keys: DeviceKeys
    user: bytes
    identity: Run


def _first_entry(keys: DeviceKeys, kind: Kind, user: bytes, epoch: bytes, heads: tuple[bytes, ...], raw_body: bytes) -> Run:
    body = Body.of_blocks(block_codec.split_body(raw_body))
    stamp = hlc.pack(FIRST_WALL_MS, 0)
    header = Header(b"", kind, user, keys.device, epoch, 1, b"", stamp, (), heads, body.hash)
    return Run((Entry(header, body),), header.sign(keys.signing))


def make_person(seed: int, name: str) -> Person:
    """A new user."""
    keys = DeviceKeys(*(secret(seed, name, purpose) for purpose in ("signing", "noise", "sealing")))
    act = UserGenesis(name, secret(seed, name, "nonce")[:16], verify_device_cert(keys.device_cert(name)))
    identity = _first_entry(keys, Kind.IDENTITY, b"", secret(seed, name, "epoch")[:EPOCH_BYTES], (), encode_body(act))
    return Person(name, keys, identity.last.hash, identity)


def make_genesis(seed: int, founder: Person, name: str) -> Run:
    """The signed genesis of a new group; its hash is the group's id and its epoch the one that the founder goes on in."""
    act = Genesis(name, secret(seed, name, "nonce")[:16], personal=False)
    epoch = secret(seed, name, "epoch")[:EPOCH_BYTES]
    return _first_entry(founder.keys, Kind.CONTROL, founder.user, epoch, (founder.identity.last.hash,), encode_body(act))


def admit(store: Store, founder: Person, newcomer: Person, role: Role) -> list[Commit]:
    """Makes a user a member by an invite made for it; returns what the founder's store committed."""
    invite_key = SigningKey(secret(store.group.hex(), newcomer.name, "invite"))
    invite, invited = store.act(founder.user, Kind.CONTROL, encode_body(Invite(role, _NEVER_MS, 1, invite_key.public)))
    known = store.take_runs([newcomer.identity])
    redemption = sign_redemption(
        group_id=store.group,
        invite_hash=invite.hash,
        invite_key=invite_key,
        user=newcomer.user,
        identity_head_hash=newcomer.identity.last.hash,
        device_key=newcomer.keys.signing,
        handshake_hash=bytes(32),
    )
    act = redemption.admit(newcomer.keys.device, bytes(32))
    _, admitted = store.act(founder.user, Kind.CONTROL, encode_body(act))
    return [commit for commit in (invited, known, admitted) if commit is not None]
