"""Runs: consecutive entries of one log up to a signature, as they travel (SPEC: E-20 to E-25, DESIGN 6).

A run states once what its headers share; the receiver rebuilds the canonical headers, and the one signature at the end vouches
for them all, because each names the one before.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Final, TypeAlias, cast, overload

from peersd_protocol import blocks as block_codec
from peersd_protocol import canonical
from peersd_protocol.canonical import Value
from peersd_protocol.constants import (
    BLOCKS_PER_BODY_MAX,
    INLINE_BODY_BYTES_MAX,
    LINKS_PER_ENTRY_MAX,
    RUN_ENTRIES_MAX,
    SEQ_MAX,
)
from peersd_protocol.entries import DEVICE_BYTES, EPOCH_BYTES, Header, Kind, LogKey, body_hash, encode_header_start
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.signing import HASH_BYTES, SIGNATURE_BYTES, sha256

HLC_MAX: Final = 2**63 - 1

Links: TypeAlias = tuple[tuple[bytes, ...], tuple[bytes, ...]]
"""The `deps` and `control_heads` of an entry."""

NO_LINKS: Final[Links] = ((), ())

Ext: TypeAlias = tuple[tuple[int, Value], ...]
"""What later versions add to a header."""


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


class ParsedEntries(Sequence[Entry]):
    """The entries of a run as it came, in plain lists; what headers and bodies they have as objects is made when it is asked for.

    Objects for each entry of a run of small ones cost more than all that is done with them.

    Attributes:
        log: that they stand in.
        user: who acts.
        first_seq: position of the first entry.
        prev: hash of the entry before it.
        stamps, hashes: of each entry.
        bodies: of each entry; bytes where it is one inline block, as nearly all are.
        links, exts: by index, of those entries that have any.
    """

    def __init__(
        self,
        log: LogKey,
        groups: tuple[bytes, bytes],
        user: bytes,
        first_seq: int,
        prev: bytes,
        stamps: Sequence[int],
        hashes: Sequence[bytes],
        bodies: Sequence[bytes | Body],
        links: Mapping[int, Links],
        exts: Mapping[int, Ext],
    ) -> None:
        self.log = log
        self._groups = groups
        self.user = user
        self.first_seq = first_seq
        self.prev = prev
        self.stamps = stamps
        self.hashes = hashes
        self.bodies = bodies
        self.links = links
        self.exts = exts
        self._made: dict[int, Entry] = {}

    def __len__(self) -> int:
        return len(self.hashes)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Entry, ...]: ...
    def __getitem__(self, index: int | slice) -> Entry | tuple[Entry, ...]:
        if isinstance(index, slice):
            return tuple(self[at] for at in range(*index.indices(len(self))))
        found = self._made.get(index)
        if found is None:
            at = range(len(self))[index]
            found = self._made[at] = self._made[index] = self._made.get(at) or self._make(at)
        return found

    def __iter__(self) -> Iterator[Entry]:
        # Sequence's own goes on until an index is refused.
        return map(self.__getitem__, range(len(self.hashes)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(cast("Sequence[object]", other))

    def __hash__(self) -> int:
        return hash(self.hashes[-1])

    def _make(self, at: int) -> Entry:
        stated = self.bodies[at]
        body = stated if isinstance(stated, Body) else Body.of_blocks([stated])
        log, seq = self.log, self.first_seq + at
        prev, group = (self.hashes[at - 1], self._groups[1]) if at else (self.prev, self._groups[0])
        deps, heads = self.links.get(at, NO_LINKS)
        ext = self.exts.get(at, ())
        header = Header(
            group, log.kind, self.user, log.device, log.epoch, seq, prev, self.stamps[at], deps, heads, body.hash, ext
        )
        header.__dict__["hash"] = self.hashes[at]
        return Entry(header, body)


def chain_entries(
    log: LogKey, group: bytes, user: bytes, first_seq: int, prev: bytes, stamps: Sequence[int], blocks: Sequence[bytes]
) -> ParsedEntries:
    """Consecutive data entries that have one inline block each and name nothing but the one before.

    Args:
        log: that they stand in.
        group: the group's id.
        user: who acts.
        first_seq: position of the first one.
        prev: hash of the entry before it.
        stamps: of each.
        blocks: of each.
    """
    pack = canonical.make_encoder()
    start = encode_header_start(group, log.kind, user, log.device, log.epoch)
    body_hashes = [sha256(sha256(block)) for block in blocks]
    hashes: list[bytes] = []
    before = prev
    for seq, (stamp, hash_of_body) in enumerate(zip(stamps, body_hashes, strict=True), first_seq):
        before = sha256(start + pack((seq, before, stamp, (), (), hash_of_body, ()))[1:])
        hashes.append(before)
    return ParsedEntries(log, (group, group), user, first_seq, prev, stamps, hashes, blocks, {}, {})


@dataclass(frozen=True)
class Run:
    """Consecutive entries of one log, by one user, ending at an entry whose signature is `signature` (64 bytes)."""

    entries: Sequence[Entry]
    signature: bytes

    @cached_property
    def log(self) -> LogKey:
        """The log that the entries stand in."""
        return self.entries[0].header.log

    @cached_property
    def first(self) -> Header:
        """The first header."""
        return self.entries[0].header

    @cached_property
    def last(self) -> Header:
        """The signed header."""
        return self.entries[-1].header

    @property
    def hashes(self) -> Sequence[bytes]:
        """The hash of each entry."""
        return self.entries.hashes if isinstance(self.entries, ParsedEntries) else [entry.header.hash for entry in self.entries]

    @property
    def links(self) -> Mapping[int, Links]:
        """What the entries name in `deps` and `control_heads`, by index, of those that name anything."""
        if isinstance(self.entries, ParsedEntries):
            return self.entries.links
        headers = [entry.header for entry in self.entries]
        return {
            at: (header.deps, header.control_heads) for at, header in enumerate(headers) if header.deps or header.control_heads
        }

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


def _ext(value: Value) -> Ext:
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
    if not isinstance(value, list) or not value or type(value[0]) is not int or value[0] not in (0, 1, 2):
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
    if type(kind_value) is not int or kind_value not in (1, 2, 3):
        raise _refuse("kind of log")
    kind = Kind(kind_value)
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
    if kind is Kind.IDENTITY and not user and first_seq + len(deltas) > 2:
        raise _refuse("only a genesis has no user")
    return Run(_parse_entries(kind, group, user, device, epoch, first_seq, prev, deltas), signature)


def _parse_entries(
    kind: Kind, group: bytes, user: bytes, device: bytes, epoch: bytes, first_seq: int, prev: bytes, deltas: list[Value]
) -> ParsedEntries:
    """Reads the entries of a run and works out their hashes, each of which the next one names."""
    if kind is Kind.DATA and (plain := _read_plain(deltas)) is not None:
        return chain_entries(LogKey(kind, b"", device, epoch), group, user, first_seq, prev, *plain)
    groups = (b"", b"") if kind is Kind.IDENTITY else (group, group)
    pack = canonical.make_encoder()
    start = encode_header_start(groups[1], kind, user, device, epoch)
    stamps: list[int] = []
    hashes: list[bytes] = []
    bodies: list[bytes | Body] = []
    links: dict[int, Links] = {}
    exts: dict[int, Ext] = {}
    hlc = 0
    before = prev
    for index, delta in enumerate(deltas):
        if not isinstance(delta, list) or len(delta) != 5 or type(delta[0]) is not int or not 0 < delta[0] <= HLC_MAX - hlc:
            raise _refuse("entry")
        hlc += delta[0]
        _, deps_value, heads_value, body_value, ext_value = delta
        deps: tuple[bytes, ...] = ()
        heads: tuple[bytes, ...] = ()
        if deps_value != [] or heads_value != []:
            deps, heads = _links(deps_value, "deps"), _links(heads_value, "control_heads")
            if deps and kind is not Kind.DATA:
                raise _refuse("deps in an act")
            links[index] = (deps, heads)
        body: bytes | Body
        if (block := _only_block(body_value)) is not None:
            body, hash_of_body = block, sha256(sha256(block))
        else:
            body = parse_body(body_value)
            hash_of_body = body.hash
            if body.form is BodyForm.DETACHED and len(deltas) > 1:
                raise _refuse("an entry with a detached body is a run of its own")
        ext = () if ext_value == [] else _ext(ext_value)
        if ext:
            exts[index] = ext
        rest = pack((first_seq + index, before, hlc, deps, heads, hash_of_body, ext))
        before = sha256(start + rest[1:])
        if kind is Kind.CONTROL and first_seq + index == 1:
            genesis = sha256(encode_header_start(b"", kind, user, device, epoch) + rest[1:])
            if genesis == group:
                groups, before = (b"", group), genesis
        stamps.append(hlc)
        hashes.append(before)
        bodies.append(body)
    log = LogKey(kind, (user or hashes[0]) if kind is Kind.IDENTITY else b"", device, epoch)
    return ParsedEntries(log, groups, user, first_seq, prev, stamps, hashes, bodies, links, exts)


def _read_plain(deltas: list[Value]) -> tuple[list[int], Sequence[bytes]] | None:
    """The stamps and blocks of entries that have one inline block each and name nothing but the one before, a column at a time.

    None where one of them is something else, or not as it has to be: then each is read by itself.
    """
    if not (_are_lists(deltas) and set(map(len, cast("list[list[Value]]", deltas))) == {5}):
        return None
    steps, deps, heads, bodies, exts = zip(*cast("list[list[Value]]", deltas), strict=True)
    if not all(_are_lists(column) and not any(column) for column in (deps, heads, exts)):
        return None
    if not (_are_lists(bodies) and set(map(len, bodies)) == {2}):
        return None
    forms, blocks = zip(*bodies, strict=True)
    if set(map(type, forms)) != {int} or any(forms) or set(map(type, blocks)) != {bytes}:
        return None
    if set(map(type, steps)) != {int} or min(steps) < 1 or max(map(len, blocks)) > INLINE_BODY_BYTES_MAX:
        return None
    stamps = list(accumulate(steps))
    return (stamps, blocks) if stamps[-1] <= HLC_MAX else None


def _are_lists(values: Iterable[Value]) -> bool:
    return set(map(type, values)) == {list}


def _only_block(value: Value) -> bytes | None:
    """The block of a body that is one inline block; None for any other form."""
    if isinstance(value, list) and len(value) == 2 and type(value[0]) is int and value[0] == BodyForm.INLINE:
        block = value[1]
        return block if isinstance(block, bytes) and len(block) <= INLINE_BODY_BYTES_MAX else None
    return None
