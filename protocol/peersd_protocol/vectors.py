"""Version vectors: for each log, the tips held; several after a fork (SPEC: R-1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, cast

from peersd_protocol import canonical
from peersd_protocol.canonical import Value
from peersd_protocol.constants import BRANCHES_MAX, SEQ_MAX
from peersd_protocol.entries import DEVICE_BYTES, EPOCH_BYTES, Kind, LogKey
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.signing import HASH_BYTES

Tip: TypeAlias = tuple[int, bytes]
"""(sequence, hash) of the last entry of a branch."""

Vector: TypeAlias = dict[LogKey, tuple[Tip, ...]]
"""The tips of each log, ascending; a log without entries is not named."""


def log_value(log: LogKey) -> list[Value]:
    """The log's name as a value: [kind, user, device, epoch]."""
    return [int(log.kind), log.user, log.device, log.epoch]


def parse_log(value: Value) -> LogKey:
    """Reads a log's name.

    Raises:
        RemoteProtocolError: MALFORMED.
    """
    if isinstance(value, list) and len(value) == 4 and type(value[0]) is int and value[0] in (1, 2, 3):
        kind = Kind(value[0])
        user, device, epoch = value[1:]
        user_bytes = HASH_BYTES if kind is Kind.IDENTITY else 0
        if (
            isinstance(user, bytes)
            and isinstance(device, bytes)
            and isinstance(epoch, bytes)
            and (len(user), len(device), len(epoch)) == (user_bytes, DEVICE_BYTES, EPOCH_BYTES)
        ):
            return LogKey(kind, user, device, epoch)
    raise RemoteProtocolError(CloseCode.MALFORMED, "name of a log")


def parse_tip(value: Value) -> Tip:
    """Reads a (sequence, hash) pair.

    Raises:
        RemoteProtocolError: MALFORMED.
    """
    if isinstance(value, list) and len(value) == 2 and type(value[0]) is int and 1 <= value[0] <= SEQ_MAX:
        tip_hash = value[1]
        if isinstance(tip_hash, bytes) and len(tip_hash) == HASH_BYTES:
            return value[0], tip_hash
    raise RemoteProtocolError(CloseCode.MALFORMED, "tip of a log")


def vector_value(vector: Mapping[LogKey, tuple[Tip, ...]]) -> list[Value]:
    """The vector as a value: [[kind, user, device, epoch, [[seq, hash], …]], …], logs ascending, tips ascending."""
    return [[*log_value(log), [[seq, tip_hash] for seq, tip_hash in sorted(vector[log])]] for log in sorted(vector)]


def parse_vector(value: Value) -> Vector:
    """Reads (a part of) a vector.

    Raises:
        RemoteProtocolError: MALFORMED if it is none, or logs or tips are not ascending.
    """
    if not isinstance(value, list):
        raise RemoteProtocolError(CloseCode.MALFORMED, "vector")
    vector: Vector = {}
    last: LogKey | None = None
    for item in value:
        if not isinstance(item, list) or len(item) != 5 or not isinstance(item[4], list):
            raise RemoteProtocolError(CloseCode.MALFORMED, "vector")
        log = parse_log(item[:4])
        tips = tuple(parse_tip(tip) for tip in item[4])
        if not 1 <= len(tips) <= BRANCHES_MAX or list(tips) != sorted(set(tips)) or (last is not None and log <= last):
            raise RemoteProtocolError(CloseCode.MALFORMED, "vector not ascending")
        vector[log] = tips
        last = log
    return vector


def encode_vector(vector: Mapping[LogKey, tuple[Tip, ...]]) -> bytes:
    """The canonical bytes that the digest is made over."""
    return canonical.encode(cast(Value, vector_value(vector)))
