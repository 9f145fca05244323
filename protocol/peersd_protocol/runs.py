"""Runs: consecutive entries of one log up to a signature, as they travel (SPEC: E-20 to E-25, DESIGN 6).

A run states once what its headers share; the receiver rebuilds the canonical headers, and the one signature at the end vouches
for them all, because each names the one before.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, cast

from peersd_protocol import blocks as block_codec
from peersd_protocol.canonical import Value
from peersd_protocol.constants import (
    BLOCKS_PER_BODY_MAX,
    INLINE_BODY_BYTES_MAX,
    LINKS_PER_ENTRY_MAX,
    RUN_ENTRIES_MAX,
    SEQ_MAX,
)
from peersd_protocol.entries import DEVICE_BYTES, EPOCH_BYTES, Header, Kind, LogKey, body_hash
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.signing import HASH_BYTES, SIGNATURE_BYTES

HLC_MAX: Final = 2**63 - 1


class BodyForm(enum.IntEnum):
    """How an entry's body travels."""

    INLINE = 0
    """The blocks themselves; none at all is an empty body."""
    DETACHED = 1
    """The blocks' hashes; the blocks follow in BLOCK messages."""
    WITHHELD = 2
    """The body's hash alone: the entry is void and its body is kept by nobody who sends it."""


@dataclass(frozen=True, slots=True)
class Body:
    """An entry's body as a run states it.

    Attributes:
        form: how it travels.
        blocks: the encoded blocks, for INLINE.
        block_hashes: 32 bytes each, for INLINE and DETACHED.
        hash: the body's hash.
    """

    form: BodyForm
    blocks: tuple[bytes, ...]
    block_hashes: tuple[bytes, ...]
    hash: bytes

    @classmethod
    def of_blocks(cls, blocks: Sequence[bytes]) -> Body:
        """The body made of these encoded blocks, inline if they are small enough in sum and detached otherwise."""
        hashes = tuple(block_codec.block_hash(block) for block in blocks)
        inline = sum(map(len, blocks)) <= INLINE_BODY_BYTES_MAX
        form = BodyForm.INLINE if inline else BodyForm.DETACHED
        return cls(form, tuple(blocks) if inline else (), hashes, body_hash(list(hashes)))

    @classmethod
    def detached(cls, block_hashes: Sequence[bytes]) -> Body:
        """A body whose blocks travel apart."""
        return cls(BodyForm.DETACHED, (), tuple(block_hashes), body_hash(list(block_hashes)))

    @classmethod
    def withheld(cls, hash: bytes) -> Body:
        """A body that is not sent."""
        return cls(BodyForm.WITHHELD, (), (), hash)

    @property
    def value(self) -> Value:
        """The encoded form's value."""
        if self.form is BodyForm.INLINE:
            return [0, *self.blocks]
        if self.form is BodyForm.DETACHED:
            return [1, *self.block_hashes]
        return [2, self.hash]


@dataclass(frozen=True, slots=True)
class Entry:
    """A header with its body."""

    header: Header
    body: Body


@dataclass(frozen=True)
class Run:
    """Consecutive entries of one log, by one user, ending at an entry whose signature is `signature` (64 bytes)."""

    entries: tuple[Entry, ...]
    signature: bytes

    @property
    def log(self) -> LogKey:
        """The log that the entries stand in."""
        return self.entries[0].header.log

    @property
    def first(self) -> Header:
        """The first header."""
        return self.entries[0].header

    @property
    def last(self) -> Header:
        """The signed header."""
        return self.entries[-1].header

    def check_signature(self) -> None:
        """Raises RemoteProtocolError BAD_SIGNATURE unless the device signed the last entry."""
        if not self.last.is_signed_by_device(self.signature):
            raise RemoteProtocolError(
                CloseCode.BAD_SIGNATURE, f"run ending at {self.last.seq} of device {self.last.device[:4].hex()}"
            )


def run_value(run: Run) -> list[Value]:
    """The run as a value for canonical encoding."""
    first = run.first
    hlc_before = 0
    deltas: list[Value] = []
    for entry in run.entries:
        header = entry.header
        deltas.append([header.hlc - hlc_before, header.deps, header.control_heads, entry.body.value, header.ext])
        hlc_before = header.hlc
    return [int(first.kind), first.user, first.device, first.epoch, first.seq, first.prev, run.signature, deltas]


def _refuse(detail: str) -> RemoteProtocolError:
    return RemoteProtocolError(CloseCode.MALFORMED, detail)


def _bytes(value: Value, sizes: tuple[int, ...], what: str) -> bytes:
    if not isinstance(value, bytes) or len(value) not in sizes:
        raise _refuse(what)
    return value


def _links(value: Value, what: str) -> tuple[bytes, ...]:
    if not isinstance(value, list):
        raise _refuse(what)
    if not value:
        return ()
    if len(value) > LINKS_PER_ENTRY_MAX:
        raise RemoteProtocolError(CloseCode.TOO_LARGE, what)
    links = tuple(_bytes(link, (HASH_BYTES,), what) for link in value)
    if any(before >= after for before, after in pairwise(links)):
        raise _refuse(f"{what} not ascending")
    return links


def _ext(value: Value) -> tuple[tuple[int, Value], ...]:
    if not isinstance(value, list) or len(value) > LINKS_PER_ENTRY_MAX:
        raise _refuse("ext")
    pairs: list[tuple[int, Value]] = []
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2 or type(pair[0]) is not int or (pairs and pairs[-1][0] >= pair[0]):
            raise _refuse("ext")
        pairs.append((pair[0], pair[1]))
    return tuple(pairs)


def parse_body(value: Value) -> Body:
    """Reads the form of a body that a run states.

    Raises:
        RemoteProtocolError: MALFORMED, TOO_LARGE.
    """
    if not isinstance(value, list) or not value or value[0] not in (0, 1, 2) or isinstance(value[0], bool):
        raise _refuse("body")
    parts = value[1:]
    if len(parts) > BLOCKS_PER_BODY_MAX:
        raise RemoteProtocolError(CloseCode.TOO_LARGE, "blocks of a body")
    if any(not isinstance(part, bytes) for part in parts):
        raise _refuse("body")
    octets = cast("list[bytes]", parts)
    if value[0] == BodyForm.INLINE:
        body = Body.of_blocks(octets)
        if body.form is not BodyForm.INLINE:
            raise RemoteProtocolError(CloseCode.TOO_LARGE, "inline body")
        return body
    if any(len(part) != HASH_BYTES for part in octets):
        raise _refuse("block hash")
    if value[0] == BodyForm.DETACHED:
        if not octets:
            raise _refuse("a detached body has blocks")
        return Body.detached(octets)
    if len(octets) != 1:
        raise _refuse("withheld body")
    return Body.withheld(octets[0])


def parse_run(value: Value, group: bytes) -> Run:
    """Rebuilds a run's headers from its value. The signature is not checked: see Run.check_signature.

    Args:
        value: a decoded canonical array.
        group: the id of the group of this session, which control and data headers carry; all but the group's genesis, which
            names no group and is recognised by its hash being the group id.

    Raises:
        RemoteProtocolError: MALFORMED or TOO_LARGE.
    """
    if not isinstance(value, list) or len(value) != 8:
        raise _refuse("run")
    kind_value, user, device, epoch, first_seq, prev, signature, deltas = value
    if kind_value not in (1, 2, 3) or isinstance(kind_value, bool):
        raise _refuse("kind of log")
    kind = Kind(cast(int, kind_value))
    user = _bytes(user, (0, HASH_BYTES) if kind is Kind.IDENTITY else (HASH_BYTES,), "user")
    device = _bytes(device, (DEVICE_BYTES,), "device")
    epoch = _bytes(epoch, (EPOCH_BYTES,), "epoch")
    signature = _bytes(signature, (SIGNATURE_BYTES,), "signature")
    if type(first_seq) is not int or not 1 <= first_seq <= SEQ_MAX:
        raise _refuse("sequence")
    prev = _bytes(prev, (0,) if first_seq == 1 else (HASH_BYTES,), "prev")
    if not isinstance(deltas, list) or not deltas:
        raise _refuse("run without entries")
    if len(deltas) > RUN_ENTRIES_MAX:
        raise RemoteProtocolError(CloseCode.TOO_LARGE, "entries of a run")
    entries: list[Entry] = []
    hlc = 0
    is_single = len(deltas) == 1
    for index, delta in enumerate(deltas):
        if not isinstance(delta, list) or len(delta) != 5 or type(delta[0]) is not int or not 0 < delta[0] <= HLC_MAX - hlc:
            raise _refuse("entry")
        hlc += delta[0]
        deps = _links(delta[1], "deps")
        if deps and kind is not Kind.DATA:
            raise _refuse("deps in an act")
        heads = _links(delta[2], "control_heads")
        body = parse_body(delta[3])
        if body.form is BodyForm.DETACHED and not is_single:
            raise _refuse("an entry with a detached body is a run of its own")
        seq = first_seq + index
        if kind is Kind.IDENTITY and not user and seq > 1:
            raise _refuse("only a genesis has no user")
        group_field = b"" if kind is Kind.IDENTITY else group
        header = Header(group_field, kind, user, device, epoch, seq, prev, hlc, deps, heads, body.hash, _ext(delta[4]))
        if kind is Kind.CONTROL and seq == 1:
            genesis = Header(b"", kind, user, device, epoch, seq, prev, hlc, deps, heads, body.hash, header.ext)
            if genesis.hash == group:
                header = genesis
        entries.append(Entry(header, body))
        prev = header.hash
    return Run(tuple(entries), signature)
