"""What the replication machine and the store tell each other, and what the machine tells its runner to do (SPEC: R-5 ff.)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from peersd_protocol.entries import LogKey
from peersd_protocol.messages import Block, Runs, Want, WantItem
from peersd_protocol.vectors import Tip, Vector

SessionId: TypeAlias = int


# --- What the store tells -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Committed:
    """An entry that has become durable here and counts (is held), with those directly before it that became so together with it.

    Attributes:
        position: where it stands in the order in which this store applied entries, ascending.
        log, seq, hash: which entry.
        requires: the greatest positions of other logs that it directly follows: whoever lacks one of them cannot apply it yet.
        before: hashes of the entries at the positions and sequences directly before, which require nothing of other logs.
    """

    position: int
    log: LogKey
    seq: int
    hash: bytes
    requires: tuple[tuple[LogKey, int], ...] = ()
    before: tuple[bytes, ...] = ()

    @property
    def first_seq(self) -> int:
        """The sequence of the first of these entries."""
        return self.seq - len(self.before)

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """Of these entries, in order."""
        return (*self.before, self.hash)

    def has(self, tip: Tip) -> bool:
        """Whether one of these entries has this sequence and hash."""
        seq, hash_ = tip
        return (
            hash_ == self.hash if seq == self.seq else self.first_seq <= seq < self.seq and self.before[seq - self.seq] == hash_
        )

    def each(self) -> list[Committed]:
        """Each of these entries by itself."""
        if not self.before:
            return [self]
        first = self.position - len(self.before)
        return [Committed(first + at, self.log, self.first_seq + at, name) for at, name in enumerate(self.hashes)]


@dataclass(frozen=True, slots=True)
class Parked:
    """Runs that cannot be applied before other entries are here.

    Attributes:
        packed: what to hand to the store again.
        missing: hashes of the entries.
        tip: (log, tip) that it brings.
        is_parting: whether it ends its sender's membership, and waits only for what the sender had written before. Then it is
            taken in without that in the end.
        is_detached: whether its last body travels apart: blocks that come while it waits are dropped.
    """

    packed: Runs | Block
    missing: frozenset[bytes]
    tip: tuple[LogKey, Tip] | None = None
    is_parting: bool = False
    is_detached: bool = False


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of one RUNS or BLOCK message.

    Attributes:
        held: tips that the message proves the sender to hold.
        parked: what has to wait.
        void: hashes of entries that were taken in and are not told of, which others may wait for all the same.
        void_tips: ends of runs that it brought and that are here and void, so that they need not be asked for.
        blocked_tips: ends of runs that it brought and that are here, and count once a body before them has come.
        new: the logs of what it brought and that was not here.
    """

    held: Mapping[LogKey, Tip]
    parked: tuple[Parked, ...] = ()
    void: tuple[bytes, ...] = ()
    void_tips: tuple[tuple[LogKey, Tip], ...] = ()
    blocked_tips: tuple[tuple[LogKey, Tip], ...] = ()
    new: frozenset[LogKey] = frozenset()


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a remote vector compares with the store: `wants` are the branches that are not here."""

    wants: tuple[WantItem, ...]
    staged: tuple[tuple[bytes, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a stream stands. It sends what is wanted of identity and control logs first, then data (DESIGN 9).

    Attributes:
        acts: the position after which it goes on in identity and control logs.
        data: the same for data logs.
        body: hash of the entry whose detached body is being sent, which comes next in its stream; empty outside of one.
        block: index of the block to go on with there.
    """

    acts: int
    data: int
    body: bytes = b""
    block: int = 0

    def rewound(self, other: Cursor) -> Cursor:
        """The cursor that leaves out nothing of either stream."""
        if other.acts >= self.acts and other.data >= self.data:
            return self
        return Cursor(min(self.acts, other.acts), min(self.data, other.data))


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next part of a stream.

    Attributes:
        messages: encoded RUNS and BLOCK messages.
        brings: the greatest sequence per log that the receiver has with them.
        cursor: where to go on.
        exhausted: whether the store held nothing further at the time of reading.
    """

    messages: tuple[bytes, ...]
    brings: Mapping[LogKey, int]
    cursor: Cursor
    exhausted: bool


# --- Effects --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Send an encoded message of entries. `bulk` is the multiplexer's third class, else its second."""

    session: SessionId
    message: bytes
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class Due:
    """There is something to be told or asked on this session: call `take_due` when its channel has room.

    It is made only then, so a remote side that reads nothing makes nothing pile up.
    """

    session: SessionId


@dataclass(frozen=True, slots=True)
class Ingest:
    """Hand these to the store in one go, then call `ingested` with what came of them.

    Attributes:
        session: whose they are.
        packed: them.
        is_final: whether a parting (see Parked) waits for nothing of its sender's any more.
    """

    session: SessionId
    packed: Runs | Block
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Compare:
    """Ask the store what it lacks of this vector, then call `compared`."""

    session: SessionId
    vector: Vector


@dataclass(frozen=True, slots=True)
class Locate:
    """Ask the store where the items of a WANT begin, then call `located`."""

    session: SessionId
    want: Want


@dataclass(frozen=True, slots=True)
class LookUp:
    """Ask the store for the logs of these hashes, and which of them nobody is told of here, then call `looked_up`."""

    session: SessionId
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Readable:
    """There is something to stream to this session: call `next_read` when its channel has room."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class BecameEqual:
    """The remote side durably holds exactly what this side holds."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Call `timer_expired(timer)` at `at_ms`; a timer set again moves."""

    timer: str
    at_ms: int


Effect: TypeAlias = Send | Due | Ingest | Compare | Locate | LookUp | Readable | BecameEqual | SetTimer


@dataclass(frozen=True, slots=True)
class Read:
    """What to read next for a session's stream: entries of `ranges` (from, to; both included) after `cursor`.

    Or, where `untold` names any, these entries alone, of which nobody is told, without bodies; the stream stays where it stands.
    """

    ranges: Mapping[LogKey, tuple[int, int]]
    cursor: Cursor
    bytes_max: int
    staged: Mapping[bytes, int]
    untold: tuple[bytes, ...] = ()
