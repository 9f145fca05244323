"""What is read from the store for one session: the answer to its WANTs, and new entries that join it (SPEC: R-7 to R-10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from peersd_protocol.constants import STREAM_MESSAGE_BYTES
from peersd_protocol.entries import LogKey
from peersd_protocol.replication_effects import Chunk, Committed, Cursor, Read


@dataclass(frozen=True, slots=True)
class Located:
    """Where the store found what a WANT asks for: `ranges` per log (from, to), none of it at or before `cursor`."""

    ranges: Mapping[LogKey, tuple[int, int]]
    cursor: Cursor
    staged: Mapping[bytes, int]


@dataclass(slots=True)
class Stream:
    """The stream of one session.

    Attributes:
        ranges: per log, the first and last sequence wanted.
        cursor: where it stands; None while there is nothing to read.
        staged: blocks of detached bodies that the remote side has already.
        is_reading: whether a read is under way.
        pushed: before what was added to `ranges` since that read began: it may have gone past it already.
        waiting: WANTs located while a read is under way: they may rewind the cursor, so they wait for its end.
        untold: what the last ASK named of the entries that nobody is told of: they are read next.
        is_aside: whether the read under way is of these.
    """

    ranges: dict[LogKey, tuple[int, int]] = field(default_factory=dict)
    cursor: Cursor | None = None
    staged: dict[bytes, int] = field(default_factory=dict)
    is_reading: bool = False
    pushed: Cursor | None = None
    waiting: list[Located] = field(default_factory=list)
    untold: tuple[bytes, ...] = ()
    is_aside: bool = False

    @property
    def has_more(self) -> bool:
        """Whether there is anything to read."""
        return self.cursor is not None or bool(self.untold)

    def serve(self, wanted: Located) -> None:
        """Adds what a WANT asks for. No read is under way."""
        for log, (first, last) in wanted.ranges.items():
            before = self.ranges.get(log)
            self.ranges[log] = (min(first, before[0]), max(last, before[1])) if before else (first, last)
        if wanted.staged:
            self.staged = dict(wanted.staged)
        self.cursor = wanted.cursor if self.cursor is None else self.cursor.rewound(wanted.cursor)

    def join(self, entries: Sequence[Committed]) -> None:
        """Adds new entries, one at least, in the order in which the store took them in."""
        for entry in entries:
            first = self.ranges[entry.log][0] if entry.log in self.ranges else entry.first_seq
            self.ranges[entry.log] = (first, entry.seq)
        start = entries[0].position - len(entries[0].before) - 1
        before = Cursor(start, start)
        self.cursor = before if self.cursor is None else self.cursor.rewound(before)
        if self.is_reading:
            self.pushed = before if self.pushed is None else self.pushed.rewound(before)

    def next_read(self) -> Read | None:
        """What to read now; None if there is nothing or a read is under way."""
        if self.is_reading:
            return None
        if self.untold and (self.cursor is None or not self.cursor.body):  # nothing comes amid the blocks of a body
            untold, self.untold = self.untold, ()
            self.is_reading = self.is_aside = True
            return Read({}, Cursor(0, 0), STREAM_MESSAGE_BYTES, {}, untold)
        if self.cursor is None:
            return None
        self.is_reading = True
        self.pushed = None
        return Read(dict(self.ranges), self.cursor, STREAM_MESSAGE_BYTES, dict(self.staged))

    def read_done(self, chunk: Chunk) -> None:
        """A read has ended."""
        self.is_reading = False
        if self.is_aside:
            self.is_aside = False
            return
        for log, seq in chunk.brings.items():
            wanted = self.ranges.get(log)
            if wanted is not None and wanted[1] <= seq:
                del self.ranges[log]
        if not self.ranges or (chunk.exhausted and self.pushed is None):
            self.cursor = None
            self.ranges.clear()
            self.staged.clear()
        else:
            self.cursor = chunk.cursor if self.pushed is None else chunk.cursor.rewound(self.pushed)
