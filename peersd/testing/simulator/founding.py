"""Users and groups for simulations, with keys that depend on the seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peersd.store.store import Commit, Store
from peersd.testing.simulator.wall_clocks import FIRST_WALL_MS
from peersd_protocol import blocks as block_codec
from peersd_protocol import hlc
from peersd_protocol.acts import AddDevice, Body, Genesis, Invite, UserGenesis, encode_body
from peersd_protocol.devicekeys import DeviceKeys, verify_device_cert
from peersd_protocol.entries import EPOCH_BYTES, Header, Kind
from peersd_protocol.redemption import sign_redemption
from peersd_protocol.roles import Role
from peersd_protocol.runs import Body as EntryBody
from peersd_protocol.runs import Entry, Run
from peersd_protocol.signing import SigningKey, sha256

NEVER_MS = FIRST_WALL_MS + 10**9
"""No simulation lasts until then."""


def secret(*parts: object) -> bytes:
    """32 bytes that depend on the parts alone."""
    return sha256("/".join(["peersd simulator", *map(str, parts)]).encode())


@dataclass(frozen=True)
class Person:
    """A user at one of its devices.

    Attributes:
        name: of the device; a user is called like its first one.
        keys: the device's.
        user: the user's id.
        identity: the user's genesis.
        added: the acts that added further devices.
    """

    name: str
    keys: DeviceKeys
    user: bytes
    identity: Run
    added: tuple[Run, ...] = ()

    @property
    def identity_runs(self) -> tuple[Run, ...]:
        """The whole identity log."""
        return (self.identity, *self.added)


def _entry(
    keys: DeviceKeys, kind: Kind, user: bytes, epoch: bytes, after: Run | None, heads: tuple[bytes, ...], act: Body
) -> Run:
    body = EntryBody.of_blocks(block_codec.split_body(encode_body(act)))
    seq, prev, stamp = (
        (after.last.seq + 1, after.last.hash, after.last.hlc + 1) if after else (1, b"", hlc.pack(FIRST_WALL_MS, 0))
    )
    header = Header(b"", kind, user, keys.device, epoch, seq, prev, stamp, (), heads, body.hash)
    return Run((Entry(header, body),), header.sign(keys.signing))


def _keys(seed: int, name: str) -> DeviceKeys:
    return DeviceKeys(*(secret(seed, name, purpose) for purpose in ("signing", "noise", "sealing")))


def make_person(seed: int, name: str) -> Person:
    """A new user with one device."""
    return make_people(seed, [name])[0]


def make_people(seed: int, names: Sequence[str]) -> list[Person]:
    """A new user with devices of these names, at each of them; the first one added the others."""
    keys, *others = [_keys(seed, name) for name in names]
    epoch = secret(seed, names[0], "epoch")[:EPOCH_BYTES]
    genesis = UserGenesis(names[0], secret(seed, names[0], "nonce")[:16], verify_device_cert(keys.device_cert(names[0])))
    identity = last = _entry(keys, Kind.IDENTITY, b"", epoch, None, (), genesis)
    user = identity.last.hash
    added: list[Run] = []
    for name, device in zip(names[1:], others, strict=True):
        act = AddDevice(verify_device_cert(device.device_cert(name)), device.sign_consent(user))
        last = _entry(keys, Kind.IDENTITY, user, epoch, last, (), act)
        added.append(last)
    return [Person(name, device, user, identity, tuple(added)) for name, device in zip(names, (keys, *others), strict=True)]


def make_genesis(seed: int, founder: Person, name: str) -> Run:
    """The signed genesis of a new group; its hash is the group's id and its epoch the one that the founder goes on in."""
    act = Genesis(name, secret(seed, name, "nonce")[:16], personal=False)
    epoch = secret(seed, name, "epoch")[:EPOCH_BYTES]
    return _entry(founder.keys, Kind.CONTROL, founder.user, epoch, None, (founder.identity_runs[-1].last.hash,), act)


def admit(store: Store, founder: Person, newcomer: Person, role: Role) -> list[Commit]:
    """Makes a user a member by an invite made for it; returns what the founder's store committed."""
    invite_key = SigningKey(secret(store.group.hex(), newcomer.name, "invite"))
    invite, invited = store.act(founder.user, Kind.CONTROL, encode_body(Invite(role, NEVER_MS, 1, invite_key.public)))
    known = store.take_runs(newcomer.identity_runs)
    redemption = sign_redemption(
        group_id=store.group,
        invite_hash=invite.hash,
        invite_key=invite_key,
        user=newcomer.user,
        identity_head_hash=newcomer.identity_runs[-1].last.hash,
        device_key=newcomer.keys.signing,
        handshake_hash=bytes(32),
    )
    act = redemption.admit(newcomer.keys.device, bytes(32))
    _, admitted = store.act(founder.user, Kind.CONTROL, encode_body(act))
    return [commit for commit in (invited, known, admitted) if commit is not None]
