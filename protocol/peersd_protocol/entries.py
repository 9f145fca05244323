"""Entries: the header that is hashed and signed, and the logs that headers form (SPEC: E-5 to E-12, DESIGN 6)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from peersd_protocol import canonical
from peersd_protocol.constants import LINKS_PER_ENTRY_MAX
from peersd_protocol.errors import LocalProtocolError
from peersd_protocol.signing import HASH_BYTES, PURPOSE_ENTRY, SigningKey, sha256, verify

FORMAT_VERSION: Final = 1
EPOCH_BYTES: Final = 16
DEVICE_BYTES: Final = 32

_HEADER_ARRAY: Final = b"\x9d"
"""The first byte of a header: an array of 13 elements."""


class Kind(enum.IntEnum):
    """The kinds of log. Identity logs belong to a user, the other two to a group."""

    IDENTITY = 1
    CONTROL = 2
    DATA = 3


@dataclass(frozen=True, slots=True, order=True)
class LogKey:
    """Names one log within a group: the log of one writer (device, epoch), of one kind.

    Attributes:
        kind: which kind of log.
        user: for identity logs the user's id, 32 bytes (also where the genesis stands, whose header names none); else empty.
        device: the device's public key, 32 bytes.
        epoch: 16 random bytes.
    """

    kind: Kind
    user: bytes
    device: bytes
    epoch: bytes


def encode_header_start(group: bytes, kind: Kind, user: bytes, device: bytes, epoch: bytes) -> bytes:
    """The beginning of an encoded header, up to the sequence: what all entries share that a user makes in one log."""
    return _HEADER_ARRAY + canonical.encode([FORMAT_VERSION, group, int(kind), user, device, epoch])[1:]


@dataclass(frozen=True)
class Header:
    """The part of an entry that its hash and signature cover.

    Attributes:
        group: the group's id, or empty in identity entries and in the group's own genesis.
        kind: the kind of log the entry stands in.
        user: the acting user's id, or empty in that user's own genesis.
        device: the public key of the device that wrote it.
        epoch: the writer's epoch, 16 bytes.
        seq: position in its log, from 1.
        prev: hash of the entry before it in the same log, empty at seq 1.
        hlc: hybrid logical clock stamp (see hlc.py).
        deps: hashes of data entries seen and not in prev's past, ascending; only data entries have any.
        control_heads: the same for control and identity entries; every kind of entry may have them.
        body_hash: SHA-256 over the concatenated hashes of the body's blocks (of nothing when there is no body).
        ext: room for later fields: (number, value) pairs, ascending, each value canonical.
    """

    group: bytes
    kind: Kind
    user: bytes
    device: bytes
    epoch: bytes
    seq: int
    prev: bytes
    hlc: int
    deps: tuple[bytes, ...]
    control_heads: tuple[bytes, ...]
    body_hash: bytes
    ext: tuple[tuple[int, canonical.Value], ...] = ()

    def __post_init__(self) -> None:
        if len(self.deps) > LINKS_PER_ENTRY_MAX or len(self.control_heads) > LINKS_PER_ENTRY_MAX:
            raise LocalProtocolError("too many links in one entry")

    @cached_property
    def encoded(self) -> bytes:
        """The canonical bytes that are hashed."""
        rest: list[canonical.Value] = [self.seq, self.prev, self.hlc, self.deps, self.control_heads, self.body_hash, self.ext]
        return encode_header_start(self.group, self.kind, self.user, self.device, self.epoch) + canonical.encode(rest)[1:]

    @cached_property
    def hash(self) -> bytes:
        """SHA-256 of the canonical header: the entry's name."""
        return sha256(self.encoded)

    @property
    def acting_user(self) -> bytes:
        """The user who acts; in an identity genesis that is the entry itself."""
        return self.user or self.hash

    @cached_property
    def log(self) -> LogKey:
        """The log this entry stands in."""
        return LogKey(self.kind, self.acting_user if self.kind is Kind.IDENTITY else b"", self.device, self.epoch)

    def sign(self, key: SigningKey) -> bytes:
        """The device's signature over this entry, which vouches for all entries before it in the log too."""
        if key.public != self.device:
            raise LocalProtocolError("an entry is signed by its own device")
        return key.sign(PURPOSE_ENTRY, self.hash)

    def is_signed_by_device(self, signature: bytes) -> bool:
        """Whether `signature` is the device's own over this entry."""
        return verify(self.device, PURPOSE_ENTRY, self.hash, signature)


def body_hash(block_hashes: list[bytes]) -> bytes:
    """The body's hash from the hashes of its blocks, in order."""
    return sha256(b"".join(block_hashes))


NO_BODY_HASH: Final = body_hash([])


@dataclass(frozen=True)
class Act:
    """A decoded entry of an identity or control log, as evaluation sees it.

    Attributes:
        header: its header.
        body: the decoded body: [type, field, …] (see acts.py). Empty if the entry has no body.
    """

    header: Header
    body: list[canonical.Value]

    @property
    def hash(self) -> bytes:
        """The entry's hash."""
        return self.header.hash

    @property
    def parents(self) -> tuple[bytes, ...]:
        """Hashes of the acts it directly follows: prev and control_heads."""
        return ((self.header.prev,) if self.header.prev else ()) + self.header.control_heads


assert len(NO_BODY_HASH) == HASH_BYTES
