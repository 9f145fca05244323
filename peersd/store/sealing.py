"""The end of a log, where each entry has a row of its own, and what is sealed before it: many of them in one segment (DESIGN 6).

Entries come as rows, one by one, where they are written as at whoever receives them. Whenever a branch has grown by SEALED_EVERY,
those of its last rows that may are put into segments, in the very transaction that made it grow. Nothing else changes by that:
positions, places and hashes stay. Where an entry ceases to be like its neighbours, all of its segment get their rows back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

import apsw

from peersd.crash_points import CrashPoint, reach
from peersd.store.segments import Segment, Segments
from peersd_protocol import canonical
from peersd_protocol.constants import BODY_BYTES_MAX, INLINE_BODY_BYTES_MAX, RUN_ENTRIES_MAX
from peersd_protocol.runs import ParsedEntries

SEALED_EVERY: Final = 128
"""Entries of a branch from one sealing to the next, which takes 1.5 ms (measured): fewer than one write in a hundred takes so
much longer, and all together are no slower."""

_COUNT_PART: Final = 8
"""Fewer entries in a segment than this part of those between two sealings save too little (guess)."""

_BODY_BYTES_MAX: Final = 1024
"""Larger bodies stay in their rows, which are a small part of them (guess); so of what was there before the transaction a sealing
reads less than 256 KiB."""

_ENTRY_BYTES: Final = 16
"""What an entry takes beside its body in a segment or a run, about."""

_ROWS: Final = f"""SELECT id, seq, author, hlc, hash, signature,
        CASE WHEN state = 1 AND coalesce(deps, heads, ext) IS NULL
                AND substr(body, 1, 2) = x'9200' AND length(body) <= {_BODY_BYTES_MAX} THEN body END
    FROM _peers_entry WHERE log = ? AND branch = ? AND seq >= ? ORDER BY seq"""
"""The body is NULL of an entry that has to stay: those in segments are applied, and have a body of one block and nothing else."""

_BEFORE: Final = "SELECT hash, signature IS NOT NULL FROM _peers_entry WHERE log = ? AND branch = ? AND seq = ?"
_DELETE: Final = "DELETE FROM _peers_entry WHERE log = ? AND branch = ? AND seq BETWEEN ? AND ?"
_INSERT: Final = """INSERT INTO _peers_entry (id, log, branch, seq, prev, author, state, hlc, hash, signature, body)
    VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?)"""

_Row: TypeAlias = tuple[int, int, int, int, bytes, "bytes | None", "bytes | None"]


@dataclass(slots=True)
class _Gathered:
    """Rows that follow one another, and the hash before the first."""

    prev: bytes
    rows: list[_Row]
    size: int

    def takes(self, other: _Gathered) -> bool:
        """Whether other rows, which follow in the log, may stand in one segment with these."""
        last, first = self.rows[-1], other.rows[0]
        return (
            (first[0], first[2]) == (last[0] + 1, last[2])
            and len(self.rows) + len(other.rows) <= RUN_ENTRIES_MAX
            and self.size + other.size <= INLINE_BODY_BYTES_MAX
        )


class Sealing:
    """Moves entries from rows to segments and back, inside the caller's transaction.

    Args:
        connection: the writer of the group's file.
        segments: of the same file.
        every: entries of a branch from one sealing to the next.
    """

    def __init__(self, connection: apsw.Connection, segments: Segments, every: int = SEALED_EVERY) -> None:
        self._connection = connection
        self._segments = segments
        self._every = every

    def seal(self, log: int, branch: int, first: int, last: int) -> None:
        """Puts the last rows of a branch into segments if it is time to.

        Args:
            log: number of the log.
            branch: number of the branch.
            first: sequence of the first entry that the transaction has added and that counts.
            last: of the last one that it has added, which ends a run.
        """
        if last // self._every == (first - 1) // self._every:
            return
        # Each row is looked at once, or a second time where it stayed behind; so what this takes does not grow with the log.
        start = max(1, ((first - 1) // self._every - 1) * self._every)
        segment = self._segments.last_before(log, branch, last)
        if segment is not None and segment.seq >= start:
            start = segment.seq + 1
        gathered: _Gathered | None = None
        for run in self._whole_runs(log, branch, start):
            if gathered is not None and gathered.takes(run):
                gathered.rows += run.rows
                gathered.size += run.size
                continue
            self._store(log, branch, gathered)
            gathered = run
        self._store(log, branch, gathered)
        reach(CrashPoint.LOG_SEALED)

    def _whole_runs(self, log: int, branch: int, start: int) -> Iterator[_Gathered]:
        """The runs of a branch of which all entries may stand in a segment, from a sequence on.

        Only whole ones: who sends a segment sends it up to the next signature, and a run has a bound. Where `start` lies within a
        run, the rest of that one stays.
        """
        prev, is_whole = self._before(log, branch, start)
        run = _Gathered(prev, [], 0)
        for row in self._connection.execute(_ROWS, (log, branch, start)).fetchall():
            _, _, author, _, hash_, signature, body = found = cast("_Row", row)
            is_whole &= body is not None and (not run.rows or (found[0], author) == (run.rows[-1][0] + 1, run.rows[-1][2]))
            if is_whole and body is not None:
                run.rows.append(found)
                run.size += len(body) + _ENTRY_BYTES
            if signature is not None:
                if is_whole and len(run.rows) <= RUN_ENTRIES_MAX and run.size <= INLINE_BODY_BYTES_MAX:
                    yield run
                run, is_whole = _Gathered(hash_, [], 0), True

    def _before(self, log: int, branch: int, seq: int) -> tuple[bytes, bool]:
        """The hash of the entry before a sequence on the same branch, and whether a run is known to end there."""
        if seq == 1:
            return b"", True
        found = self._connection.execute(_BEFORE, (log, branch, seq - 1)).fetchone()
        if found is not None:
            return cast(bytes, found[0]), bool(found[1])
        segment = self._segments.last_before(log, branch, seq)
        if segment is None or segment.seq != seq - 1:
            return b"", False  # the branch begins later
        return segment.hash, segment.signature is not None

    def _store(self, log: int, branch: int, gathered: _Gathered | None) -> None:
        if gathered is None or len(gathered.rows) < self._every // _COUNT_PART:
            return
        ids, seqs, authors, stamps, hashes, signatures, bodies = zip(*gathered.rows, strict=True)
        blocks = [cast(bytes, canonical.decode(body, bytes_max=BODY_BYTES_MAX)[1]) for body in bodies]
        segment = Segment(
            ids[-1], log, branch, seqs[-1], len(ids), authors[-1], stamps[-1], hashes[-1], gathered.prev, signatures[-1]
        )
        self._connection.execute(_DELETE, (log, branch, seqs[0], seqs[-1]))
        self._segments.add(segment, stamps, hashes, blocks)

    def take_apart(self, segment: Segment, entries: ParsedEntries, prev: int) -> None:
        """Makes each entry of a segment a row of its own.

        Args:
            segment: which one.
            entries: what is in it.
            prev: the position of the entry before the first.
        """
        self._segments.remove(segment, list(entries.hashes))
        ids, seqs = range(segment.first_id, segment.id + 1), range(segment.first_seq, segment.seq + 1)
        before = (prev, *ids[:-1])
        signatures = (*(None for _ in ids[:-1]), segment.signature)
        bodies = (canonical.encode([0, cast("bytes", body)]) for body in entries.bodies)
        columns = (ids, seqs, before, entries.stamps, entries.hashes, signatures, bodies)
        self._connection.executemany(
            _INSERT,
            [
                (id_, segment.log, segment.branch, seq, prev_id, segment.author, hlc, hash_, signature, body)
                for id_, seq, prev_id, hlc, hash_, signature, body in zip(*columns, strict=True)
            ],
        )
