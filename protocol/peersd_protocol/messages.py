"""The messages of a session: what two devices say about one group over one channel (SPEC: R-3)."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from peersd_protocol import blocks as block_codec
from peersd_protocol import canonical
from peersd_protocol.canonical import Value
from peersd_protocol.constants import (
    ASK_HASHES_MAX,
    BLOCK_BYTES_MAX,
    BLOCKS_PER_BODY_MAX,
    MESSAGE_ARRAYS_MAX,
    MESSAGE_BYTES_MAX,
    RUN_BYTES_MAX,
    RUNS_COMPRESS_BYTES_MIN,
    STAGED_BODIES_MAX,
    WANT_ITEMS_MAX,
    WANT_SAMPLES_MAX,
)
from peersd_protocol.entries import LogKey
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.runs import Run, parse_run, run_value
from peersd_protocol.signing import HASH_BYTES
from peersd_protocol.vectors import Tip, Vector, log_value, parse_log, parse_tip, parse_vector, vector_value


class MessageType(enum.IntEnum):
    """The first element of every message."""

    VECTOR = 1
    WANT = 2
    RUNS = 3
    BLOCK = 4
    HAVE = 5
    ASK = 6
    PRUNE = 7
    COUNTERS = 8
    BEACONS = 9


_BEACON_PREFIXES: Final = tuple(bytes([0x92, kind]) for kind in (MessageType.COUNTERS, MessageType.BEACONS))


def is_beacon_message(data: bytes) -> bool:
    """Whether a message is one of those about beacons, for the book of beacons, by its first two bytes.

    They say array of two elements and the type. What is no canonical message of those types is refused by either decoder.
    """
    return data[:2] in _BEACON_PREFIXES


@dataclass(frozen=True, slots=True)
class VectorPart:
    """Part of the sender's vector; `more` is true for all but the last part."""

    vector: Vector
    more: bool


@dataclass(frozen=True, slots=True)
class WantItem:
    """One branch that the sender of a WANT lacks.

    Attributes:
        log: the log.
        tip: (sequence, hash) of the branch's last entry wanted.
        have: what the asker holds of that log: (sequence, hash), descending, thinning out towards the log's beginning. The server
            starts after the first of them that lies on the branch: one rule for plain catch-up and for forks.
    """

    log: LogKey
    tip: Tip
    have: tuple[Tip, ...]


@dataclass(frozen=True, slots=True)
class Want:
    """A request for entries. `staged` tells, per entry hash, how many blocks of a detached body are here already."""

    items: tuple[WantItem, ...]
    staged: tuple[tuple[bytes, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Runs:
    """Encoded runs, still packed: `codec` as for blocks (0 raw, 1 zstd), `payload` the packed bytes."""

    codec: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a detached body."""

    entry_hash: bytes
    index: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Have:
    """Tips that the sender holds durably."""

    vector: Vector


@dataclass(frozen=True, slots=True)
class Ask:
    """Hashes of entries whose log is not known; the answer is a HAVE that names it."""

    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Prune:
    """New entries need not be pushed to the sender any more, only announced."""


Message: TypeAlias = VectorPart | Want | Runs | Block | Have | Ask | Prune

LOGS_PER_PART: Final = 2048
"""Logs of a vector in one message: 441 bytes at most each, so that they fit MESSAGE_BYTES_MAX whatever they are."""

_WANT_ITEM_BYTES: Final = 134
_WANT_SAMPLE_BYTES: Final = 44
_WANT_STAGED_BYTES: Final = 1024
"""The most that an item of a WANT takes without its samples, that a sample takes, and all staged bodies with the rest."""


def _vector_parts(vector: Mapping[LogKey, tuple[Tip, ...]], logs_per_part: int) -> list[Vector]:
    logs = sorted(vector)
    return [{log: vector[log] for log in logs[start : start + logs_per_part]} for start in range(0, len(logs), logs_per_part)]


def encode_vector_parts(vector: Mapping[LogKey, tuple[Tip, ...]], logs_per_part: int = LOGS_PER_PART) -> list[bytes]:
    """The VECTOR messages for a vector; one at least."""
    parts = _vector_parts(vector, logs_per_part) or [{}]
    return [
        canonical.encode([MessageType.VECTOR, index < len(parts) - 1, vector_value(part)]) for index, part in enumerate(parts)
    ]


def encode_want(want: Want) -> bytes:
    """A WANT message."""
    items: list[Value] = [[*log_value(item.log), *item.tip, [list(tip) for tip in item.have]] for item in want.items]
    return canonical.encode([MessageType.WANT, items, [list(pair) for pair in want.staged]])


def encode_wants(items: Sequence[WantItem], staged: tuple[tuple[bytes, int], ...] = ()) -> list[bytes]:
    """The WANT messages for these items, each within the bounds of a WANT; none for no item."""
    parts: list[list[WantItem]] = []
    left = 0
    for item in items:
        size = _WANT_ITEM_BYTES + _WANT_SAMPLE_BYTES * len(item.have)
        if left < size or len(parts[-1]) == WANT_ITEMS_MAX:
            parts.append([])
            left = MESSAGE_BYTES_MAX - _WANT_STAGED_BYTES
        parts[-1].append(item)
        left -= size
    return [encode_want(Want(tuple(part), staged)) for part in parts]


def encode_runs(runs: Sequence[Run]) -> bytes:
    """A RUNS message, compressed where that pays."""
    return encode_packed_runs([canonical.encode(run_value(run)) for run in runs])


def encode_packed_runs(runs: Sequence[bytes]) -> bytes:
    """The same of runs that are encoded already."""
    packed = canonical.encode_array(runs)
    codec, payload = 0, packed
    if len(packed) >= RUNS_COMPRESS_BYTES_MIN:
        compressed = block_codec.compress(packed)
        if len(compressed) < len(packed) * 15 // 16:
            codec, payload = 1, compressed
    return canonical.encode([MessageType.RUNS, codec, payload])


def decode_runs(runs: Runs, group: bytes) -> list[Run]:
    """Unpacks and parses the runs of a message. Signatures are not checked.

    Raises:
        RemoteProtocolError: MALFORMED, TOO_LARGE.
    """
    packed = runs.payload if runs.codec == 0 else block_codec.decompress(runs.payload, bytes_max=MESSAGE_BYTES_MAX)
    values = canonical.decode(packed, bytes_max=MESSAGE_BYTES_MAX, arrays_max=MESSAGE_ARRAYS_MAX)
    if len(packed) > RUN_BYTES_MAX and any(len(canonical.encode(value)) > RUN_BYTES_MAX for value in values):
        raise RemoteProtocolError(CloseCode.TOO_LARGE, "a run")
    return [parse_run(value, group) for value in values]


def encode_block(block: Block) -> bytes:
    """A BLOCK message."""
    return canonical.encode([MessageType.BLOCK, block.entry_hash, block.index, block.data])


def encode_have(vector: Mapping[LogKey, tuple[Tip, ...]]) -> bytes:
    """A HAVE message."""
    return canonical.encode([MessageType.HAVE, vector_value(vector)])


def encode_have_parts(vector: Mapping[LogKey, tuple[Tip, ...]], logs_per_part: int = LOGS_PER_PART) -> list[bytes]:
    """The HAVE messages for these logs; none for no log."""
    return [encode_have(part) for part in _vector_parts(vector, logs_per_part)]


def encode_ask(hashes: Sequence[bytes]) -> bytes:
    """An ASK message."""
    return canonical.encode([MessageType.ASK, list(hashes)])


def encode_prune() -> bytes:
    """A PRUNE message."""
    return canonical.encode([MessageType.PRUNE])


def _refuse(detail: str) -> RemoteProtocolError:
    return RemoteProtocolError(CloseCode.MALFORMED, detail)


def _want_item(value: Value) -> WantItem:
    if not isinstance(value, list) or len(value) != 7 or not isinstance(value[6], list):
        raise _refuse("WANT item")
    if len(value[6]) > WANT_SAMPLES_MAX:
        raise RemoteProtocolError(CloseCode.TOO_LARGE, "samples in a WANT item")
    return WantItem(parse_log(value[:4]), parse_tip(value[4:6]), tuple(parse_tip(tip) for tip in value[6]))


def _staged(value: Value) -> tuple[bytes, int]:
    if isinstance(value, list) and len(value) == 2 and type(value[1]) is int and 0 <= value[1] <= BLOCKS_PER_BODY_MAX:
        return _hash(value[0]), value[1]
    raise _refuse("staged body in a WANT")


def _hash(value: Value) -> bytes:
    if not isinstance(value, bytes) or len(value) != HASH_BYTES:
        raise _refuse("hash")
    return value


def _list(value: Value, length_max: int, what: str) -> list[Value]:
    if not isinstance(value, list):
        raise _refuse(what)
    if len(value) > length_max:
        raise RemoteProtocolError(CloseCode.TOO_LARGE, what)
    return value


def decode_message(data: bytes) -> Message:
    """Decodes one message of a session.

    Raises:
        RemoteProtocolError: MALFORMED if it is none of those of SPEC R, TOO_LARGE above a bound.
    """
    value = canonical.decode(data, bytes_max=MESSAGE_BYTES_MAX, arrays_max=MESSAGE_ARRAYS_MAX)
    kind, *fields = value or [None]
    if type(kind) is not int:
        raise _refuse("type of a message")
    match kind, len(fields):
        case MessageType.VECTOR, 2:
            if not isinstance(fields[0], bool):
                raise _refuse("VECTOR")
            return VectorPart(parse_vector(fields[1]), fields[0])
        case MessageType.WANT, 2:
            items = tuple(_want_item(item) for item in _list(fields[0], WANT_ITEMS_MAX, "WANT"))
            return Want(items, tuple(_staged(item) for item in _list(fields[1], STAGED_BODIES_MAX, "WANT")))
        case MessageType.RUNS, 2:
            if type(fields[0]) is not int or fields[0] not in (0, 1) or not isinstance(fields[1], bytes):
                raise _refuse("RUNS")
            return Runs(fields[0], fields[1])
        case MessageType.BLOCK, 3:
            index, block = fields[1:]
            if type(index) is not int or not 0 <= index < BLOCKS_PER_BODY_MAX or not isinstance(block, bytes):
                raise _refuse("BLOCK")
            if len(block) > BLOCK_BYTES_MAX:
                raise RemoteProtocolError(CloseCode.TOO_LARGE, "BLOCK")
            return Block(_hash(fields[0]), index, block)
        case MessageType.HAVE, 1:
            return Have(parse_vector(fields[0]))
        case MessageType.ASK, 1:
            return Ask(tuple(_hash(item) for item in _list(fields[0], ASK_HASHES_MAX, "ASK")))
        case MessageType.PRUNE, 0:
            return Prune()
        case _:
            raise _refuse(f"message of type {kind} with {len(fields)} fields")
