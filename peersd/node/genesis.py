"""The first entries of users and groups: made before there is a store for them, because their hashes name it (DESIGN 4, 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mnemonic import Mnemonic

from peersd.node.device_file import Device
from peersd_protocol import blocks as block_codec
from peersd_protocol import hlc
from peersd_protocol.acts import Genesis, UserGenesis, encode_body
from peersd_protocol.devicekeys import verify_device_cert
from peersd_protocol.entries import Header, Kind
from peersd_protocol.runs import Body, Entry, Run
from peersd_protocol.signing import SEED_BYTES, SigningKey

PHRASE_LANGUAGE: Final = "english"


@dataclass(frozen=True)
class NewUser:
    """A user's genesis.

    Attributes:
        user: the new id.
        name: what the user is called.
        run: the signed genesis.
        recovery_phrase: 24 words (BIP 39) that hold the private recovery key; kept nowhere else.
    """

    user: bytes
    name: str
    run: Run
    recovery_phrase: str


def _first_entry(
    device: Device, kind: Kind, user: bytes, epoch: bytes, heads: tuple[bytes, ...], raw_body: bytes, wall_ms: int
) -> Run:
    body = Body.of_blocks(block_codec.split_body(raw_body))
    stamp = hlc.next_stamp(0, wall_ms)
    header = Header(b"", kind, user, device.keys.device, epoch, 1, b"", stamp, (), heads, body.hash)
    return Run((Entry(header, body),), header.sign(device.keys.signing))


def make_user(device: Device, name: str, *, epoch: bytes, nonce: bytes, recovery_seed: bytes, wall_ms: int) -> NewUser:
    """A new user with this device as its first.

    Args:
        device: this device.
        name: what the user is called.
        epoch: 16 random bytes: the epoch that the device goes on in.
        nonce: 16 random bytes.
        recovery_seed: 32 random bytes: the private recovery key.
        wall_ms: milliseconds since 1970.
    """
    assert len(recovery_seed) == SEED_BYTES
    cert = verify_device_cert(device.keys.device_cert(device.name))
    act = UserGenesis(name, nonce, cert, (SigningKey(recovery_seed).public,), 1)
    run = _first_entry(device, Kind.IDENTITY, b"", epoch, (), encode_body(act), wall_ms)
    return NewUser(run.last.hash, name, run, Mnemonic(PHRASE_LANGUAGE).to_mnemonic(recovery_seed))


def make_group(
    device: Device, user: bytes, identity_heads: tuple[bytes, ...], genesis: Genesis, *, epoch: bytes, wall_ms: int
) -> Run:
    """The signed genesis of a new group; its hash is the group's id.

    Args:
        device: this device.
        user: the founder.
        identity_heads: the newest entries of the founder's identity log, ascending.
        genesis: the act.
        epoch: 16 random bytes: the epoch that the device goes on in.
        wall_ms: milliseconds since 1970.
    """
    return _first_entry(device, Kind.CONTROL, user, epoch, identity_heads, encode_body(genesis), wall_ms)
