"""Stored entries as they go into runs: what is on disk is put together, and not decoded (SPEC: E-20 to E-24)."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import pairwise
from operator import attrgetter
from typing import Final, TypeAlias, cast

from peersd.store.branches import EntryRow, LogRow, State
from peersd.store.log import Log
from peersd.store.segments import Segment
from peersd_protocol import canonical
from peersd_protocol.constants import BODY_BYTES_MAX, INLINE_BODY_BYTES_MAX, RUN_ENTRIES_MAX, STREAM_MESSAGE_BYTES
from peersd_protocol.entries import Kind
from peersd_protocol.runs import Body, BodyForm, parse_body

_ROWS: Final = "SELECT id, log, branch, seq, prev, author, state, hlc, hash, deps, heads, ext, signature, body FROM _peers_entry"

_Bytes: TypeAlias = "bytes | None"
_Row: TypeAlias = tuple[int, int, int, int, int, int, int, int, bytes, _Bytes, _Bytes, _Bytes, _Bytes, bytes]

_NOTHING: Final = b"\x90"
"""An empty array: no links, no further fields."""

_NO_LINKS: Final = _NOTHING + _NOTHING
"""Neither `deps` nor `control_heads`."""

_UNTOLD: Final = (State.VOID, State.ANCESTOR, State.MISSING)
"""What entries count for of which nobody is told."""

_STAMP_BYTES: Final = 9
"""The most that the rest of an entry's array takes: what precedes its links (to choose where a message ends; no bound)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive entries of one log by one user: one with a row of its own, or those of a segment.

    Attributes:
        id: position of the last one.
        row, branch, seq: the place of the last one.
        author: number of who acts.
        state: of all of them.
        prev: hash of the entry before the first; its position where that has to be looked up.
        hash: of the last one.
        stamps: of each.
        rests: of each what a run states after the stamp, encoded.
        signature: over the last one, where a run ends there.
        is_detached: whether the body travels in messages of its own.
        has_ext: whether there are fields of later versions.
    """

    id: int
    row: LogRow
    branch: int
    seq: int
    author: int
    state: State
    prev: int | bytes
    hash: bytes
    stamps: Sequence[int]
    rests: Sequence[bytes]
    signature: bytes | None
    is_detached: bool = False
    has_ext: bool = False

    @property
    def first_seq(self) -> int:
        """The sequence of the first one."""
        return self.seq - len(self.stamps) + 1

    @property
    def size(self) -> int:
        """Bytes in a run, about."""
        return sum(map(len, self.rests)) + _STAMP_BYTES * len(self.rests)


def pieces_after(log: Log, position: int) -> Iterator[Piece]:
    """All that is stored after a position, in order."""
    rows = _pieces(log, "id > ? ORDER BY id", (position,))
    return merge(rows, (_of_segment(log, segment, position) for segment in log.segments.after(position)), key=attrgetter("id"))


def pieces_of_acts(log: Log, logs: Sequence[int], position: int) -> Iterator[Piece]:
    """What is stored of some control and identity logs after a position, in order."""
    # The plus keeps SQLite from walking all positions: there are far more data entries than acts.
    return _pieces(log, f"log IN ({','.join(map(str, logs))}) AND +id > ? ORDER BY id", (position,))


def runs_around(log: Log, found: EntryRow) -> list[StoredRun]:
    """The run of an entry that nobody is told of, and those right before it as far as nobody is told of them either.

    Such entries are in no segment, and are given without bodies. Of long runs before it only the end is given, of at most about
    STREAM_MESSAGE_BYTES.
    """
    row, place = log.log_by_id(found.log), (found.log, found.branch, found.seq)
    pieces: list[Piece] = []
    size = 0
    for piece in _pieces(log, "log = ? AND branch = ? AND seq <= ? ORDER BY seq DESC", place, _UNTOLD):
        if size > STREAM_MESSAGE_BYTES or not row.is_blocked(piece.branch, piece.seq):
            break
        pieces.append(piece)
        size += piece.size
    pieces.reverse()
    if pieces[-1].signature is None:
        for piece in _pieces(log, "log = ? AND branch = ? AND seq > ? ORDER BY seq", place, _UNTOLD):
            pieces.append(piece)
            if piece.signature is not None:
                break
    ends = [at for at, piece in enumerate(pieces, 1) if piece.signature is not None]
    return [StoredRun(tuple(pieces[first:end])) for first, end in pairwise([0, *ends])]


def _pieces(log: Log, where: str, bindings: Sequence[int], withheld: Container[int] = (State.VOID,)) -> Iterator[Piece]:
    for found in log.connection.execute(f"{_ROWS} WHERE {where}", bindings):
        id_, log_id, branch, seq, prev, author, state, hlc, hash_, deps, heads, ext, signature, body = cast("_Row", found)
        row = log.log_by_id(log_id)
        # An array of more than 15 elements has three bytes before the first.
        form = body[3] if body[0] == 0xDC else body[1]
        if state in withheld and row.key.kind is Kind.DATA and form != BodyForm.WITHHELD:
            form = BodyForm.WITHHELD
            hash_of_body = parse_body(canonical.decode(body, bytes_max=BODY_BYTES_MAX)).hash
            body = canonical.encode(Body.withheld(hash_of_body).value)
        rest = b"".join((deps or _NOTHING, heads or _NOTHING, body, ext or _NOTHING))
        is_detached, has_ext = form == BodyForm.DETACHED, ext is not None
        place = (id_, row, branch, seq, author, State(state))
        yield Piece(*place, prev, hash_, (hlc,), (rest,), signature, is_detached, has_ext)


def _of_segment(log: Log, segment: Segment, after: int) -> Piece:
    """The entries of a segment that stand after a position."""
    stamps, blocks = log.segments.unpack(segment)
    prev: int | bytes = segment.prev
    left_out = after - segment.first_id + 1
    if left_out > 0:
        stamps, blocks, prev = stamps[left_out:], blocks[left_out:], after
    pack = canonical.make_encoder()
    rests = [_NO_LINKS + pack((0, block)) + _NOTHING for block in blocks]
    row = log.log_by_id(segment.log)
    place = (segment.id, row, segment.branch, segment.seq, segment.author, State.APPLIED)
    return Piece(*place, prev, segment.hash, stamps, rests, segment.signature)


@dataclass(frozen=True, slots=True)
class StoredRun:
    """Pieces up to a signature."""

    pieces: tuple[Piece, ...]

    @property
    def has_ext(self) -> bool:
        """Whether it goes alone: its fields of later versions may be made of as many arrays as a message may hold."""
        return any(piece.has_ext for piece in self.pieces)

    @property
    def is_detached(self) -> bool:
        """Whether its one entry's body travels in messages of its own."""
        return self.pieces[-1].is_detached

    def has_row(self, id_: int) -> bool:
        """Whether it has the entry at a position, which has a row of its own."""
        return any(piece.id == id_ for piece in self.pieces)

    @property
    def count(self) -> int:
        """How many entries it has."""
        return sum(len(piece.stamps) for piece in self.pieces)

    @property
    def size(self) -> int:
        """Bytes, about."""
        return sum(piece.size for piece in self.pieces)

    def follows(self, other: StoredRun) -> bool:
        """Whether its first entry follows the last one of another, on the same branch and by the same user."""
        first, last = self.pieces[0], other.pieces[-1]
        same = (first.row, first.branch, first.author) == (last.row, last.branch, last.author)
        return same and first.first_seq == last.seq + 1


def join_runs(runs: Iterable[StoredRun]) -> list[StoredRun]:
    """Runs that go on where the one before ends become one with it, as far as the bounds of a run allow.

    The last signature vouches for all of them; the others need not be sent, checked or kept. What names entries of other logs
    begins a run all the same: a run is taken in as a whole, so two that each name an entry amid the other would never be.
    """
    joined: list[StoredRun] = []
    for run in runs:
        if joined and _may_join(joined[-1], run):
            joined[-1] = StoredRun((*joined[-1].pieces, *run.pieces))
        else:
            joined.append(run)
    return joined


def _may_join(before: StoredRun, run: StoredRun) -> bool:
    if run.pieces[0].row.key.kind is not Kind.DATA:
        return False  # a farewell consists of some acts, and not of all that were sent with them
    if not run.follows(before) or before.has_ext or run.has_ext or before.is_detached or run.is_detached:
        return False
    if not run.pieces[0].rests[0].startswith(_NO_LINKS):
        return False
    return before.count + run.count <= RUN_ENTRIES_MAX and before.size + run.size <= INLINE_BODY_BYTES_MAX


def encode_run(log: Log, run: StoredRun) -> bytes:
    """A run as it travels."""
    first = run.pieces[0]
    key = first.row.key
    prev = first.prev if isinstance(first.prev, bytes) else log.hash_at(first.prev)
    user = log.author_user(first.author)
    head = canonical.encode(
        [int(key.kind), user, key.device, key.epoch, first.first_seq, prev, run.pieces[-1].signature, [0] * run.count]
    )
    pack = canonical.make_encoder()
    stamps = [0, *(stamp for piece in run.pieces for stamp in piece.stamps)]
    deltas = (after - before for before, after in pairwise(stamps))
    rests = (rest for piece in run.pieces for rest in piece.rests)
    return head[: len(head) - run.count] + b"".join(
        b"\x95" + pack(delta) + rest for delta, rest in zip(deltas, rests, strict=True)
    )
