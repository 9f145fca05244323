"""The logs of one group in its SQLite file: entries go in and are found, wherever they stand (DESIGN 6).

Each has a row of its own or stands in a segment with others (segments.py, sealing.py); nobody who asks here need know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from heapq import merge
from operator import itemgetter
from typing import Final, cast

import apsw

from peersd.store.branches import EntryRow, LogRow, Path, State, TipRow
from peersd.store.log_index import LogIndex, unpack_links, unpack_values
from peersd.store.sealing import SEALED_EVERY, Sealing
from peersd.store.segments import Segment
from peersd_protocol import canonical
from peersd_protocol.canonical import Value
from peersd_protocol.constants import BODY_BYTES_MAX
from peersd_protocol.entries import Header, Kind, LogKey
from peersd_protocol.runs import Body, BodyForm, Entry, ParsedEntries, chain_entries, parse_body
from peersd_protocol.vectors import Tip

__all__ = ["EntryRow", "Log", "LogRow", "Path", "State", "TipRow", "unpack_links"]

_CHAINED_MAX: Final = 16
"""Segments kept with the hashes of their entries (guess): some 50 KiB each, for looks at neighbours one after the other."""

_ENTRY_COLUMNS = "id, log, branch, seq, prev, author, state, hlc, hash, deps, heads, ext, signature, body"


def _pack(links: Sequence[Value]) -> bytes | None:
    return canonical.encode(list(links)) if links else None


class Log(LogIndex):
    """Rows of the tables in log.sql, with what is small kept in memory. Transactions are the caller's.

    After a rollback the caller calls `reload`, because memory may be ahead of the file.

    Args:
        connection: the writer of the group's file.
        group: the group's id.
        sealed_every: see Sealing.
    """

    def __init__(self, connection: apsw.Connection, group: bytes, sealed_every: int = SEALED_EVERY) -> None:
        super().__init__(connection, group)
        self._sealing = Sealing(connection, self.segments, sealed_every)
        self.rank = lru_cache(maxsize=4096)(self._read_rank)
        self.reload()

    def reload(self) -> None:
        """Reads what is kept in memory anew."""
        super().reload()
        self.rank.cache_clear()
        self._chained: dict[int, ParsedEntries] = {}
        self._grown: dict[tuple[int, int], int] = {}

    # --- Adding ---------------------------------------------------------------------------------------------------------------

    def append(self, entry: Entry, signature: bytes | None, state: State, prev: EntryRow | None) -> EntryRow:
        """Adds an entry behind `prev`. Branches, tips and heads are kept in step."""
        header = entry.header
        row = self.open_log(header.log)
        author = self._note_author(row, header.user)
        branch = self._branch_after(row, prev)
        self.position += 1
        self.newest = header.hash
        self.connection.execute(
            f"INSERT INTO _peers_entry ({_ENTRY_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.position,
                row.id,
                branch,
                header.seq,
                prev.id if prev else 0,
                author,
                int(state),
                header.hlc,
                header.hash,
                _pack(header.deps),
                _pack(header.control_heads),
                _pack([list(pair) for pair in header.ext]),
                signature,
                canonical.encode(entry.body.value),
            ),
        )
        row.branches[branch].last = header.seq
        if header.kind is Kind.DATA and state is State.APPLIED:
            self._grown.setdefault((row.id, branch), header.seq)
        if state is State.MISSING:
            row.missing.setdefault(branch, header.seq)
        elif state is not State.VOID:
            tip = TipRow(self.position, branch, header.seq, header.hash, header.hlc)
            named = header.deps if header.kind is Kind.DATA else header.control_heads
            self._advance(row, tip, prev, header.prev, named)
        return EntryRow(self.position, row.id, branch, header.seq, header.hlc, state)

    def append_stretch(self, entries: ParsedEntries, start: int, end: int, signature: bytes | None, prev: EntryRow) -> EntryRow:
        """Adds consecutive entries of a run that count, have one inline block each and name nothing but the one before.

        Args:
            entries: of the run.
            start: index of the first one.
            end: index after the last one.
            signature: over the last one, where the run ends there.
            prev: the entry before the first.

        Returns:
            The last one.
        """
        row = self.open_log(entries.log)
        author = self._note_author(row, entries.user)
        branch = self._branch_after(row, prev)
        self.position += end - start
        seq = row.branches[branch].last = entries.first_seq + end - 1
        tip = TipRow(self.position, branch, seq, entries.hashes[end - 1], entries.stamps[end - 1])
        self.newest = tip.hash
        prev_hash = entries.hashes[start - 1] if start else entries.prev
        segment = Segment(tip.id, row.id, branch, seq, end - start, author, tip.hlc, tip.hash, prev_hash, signature)
        self.segments.add(
            segment, entries.stamps[start:end], entries.hashes[start:end], cast("Sequence[bytes]", entries.bodies[start:end])
        )
        self._advance(row, tip, prev, prev_hash, ())
        return EntryRow(tip.id, row.id, branch, seq, tip.hlc, State.APPLIED)

    def settle(self) -> None:
        """Writes the heads, and seals what has grown long enough; the end of every transaction that adds entries."""
        self._save_heads()
        for (log, branch), first in self._grown.items():
            self._sealing.seal(log, branch, first, self._by_id[log].branches[branch].last)
        self._grown = {}

    def set_state(self, ids: Iterable[int], state: State) -> None:
        """Changes what entries count for. Tips and heads of the logs concerned are the caller's to refresh."""
        self.connection.executemany("UPDATE _peers_entry SET state = ? WHERE id = ?", [(int(state), id_) for id_ in ids])

    def save_body(self, id_: int, body: Body) -> None:
        """Stores the body of an entry that was kept as a header."""
        self.connection.execute("UPDATE _peers_entry SET body = ? WHERE id = ?", (canonical.encode(body.value), id_))

    def save_signature(self, id_: int, signature: bytes) -> None:
        """Stores the signature that ends a run at this entry."""
        self.connection.execute("UPDATE _peers_entry SET signature = ? WHERE id = ?", (signature, id_))

    def take_apart(self, segment: Segment) -> None:
        """Makes each entry of a segment a row of its own."""
        prev = self.find(segment.prev)
        self._sealing.take_apart(segment, self.unpack(segment), 0 if prev is None else prev.id)
        self._chained.pop(segment.id, None)

    # --- Finding --------------------------------------------------------------------------------------------------------------

    def find(self, hash_: bytes) -> EntryRow | None:
        """The entry with this hash, held or void, or None."""
        query = "SELECT id, log, branch, seq, hlc, state FROM _peers_entry WHERE hash = ?"
        found = self.connection.execute(query, (hash_,)).fetchone()
        if found is None:
            return self._find_in_segment(hash_)
        id_, log, branch, seq, hlc, state = cast("tuple[int, int, int, int, int, int]", found)
        return EntryRow(id_, log, branch, seq, hlc, State(state))

    def _find_in_segment(self, hash_: bytes) -> EntryRow | None:
        for position in self.segments.positions(hash_):
            segment = self.segments.at(position)
            assert segment is not None
            if position == segment.id:
                name, hlc = segment.hash, segment.hlc
            else:
                entries, index = self.unpack(segment), position - segment.first_id
                name, hlc = entries.hashes[index], entries.stamps[index]
            if name == hash_:
                seq = segment.seq - (segment.id - position)
                return EntryRow(position, segment.log, segment.branch, seq, hlc, State.APPLIED)
        return None

    def tip_row(self, key: LogKey, hash_: bytes) -> EntryRow | None:
        """Like `find`, without a query when the entry is a tip of this log."""
        row = self._logs.get(key)
        for tip in row.tips if row else ():
            if tip.hash == hash_ and row is not None:
                return EntryRow(tip.id, row.id, tip.branch, tip.seq, tip.hlc, State.APPLIED)
        return self.find(hash_)

    def place(self, row: LogRow, branch: int | None, seq: int) -> tuple[int, bytes] | None:
        """The (position, hash) of the entry at a place of a log, None if there is none."""
        query = "SELECT id, hash FROM _peers_entry WHERE log = ? AND branch = ? AND seq = ?"
        found = self.connection.execute(query, (row.id, branch, seq)).fetchone()
        if found is not None:
            return cast("tuple[int, bytes]", found)
        segment = None if branch is None else self.segments.at_seq(row.id, branch, seq)
        if segment is None:
            return None
        index = seq - segment.first_seq
        return segment.first_id + index, segment.hash if seq == segment.seq else self.unpack(segment).hashes[index]

    def last_entry(self, row: LogRow) -> Tip:
        """The (sequence, hash) of a log's last entry here, void or not; (0, b"") without any."""
        seq = max((branch.last for branch in row.branches), default=0)
        if len(row.tips) == 1 and row.tips[0].seq == seq:
            return seq, row.tips[0].hash
        branch = next((number for number, branch in enumerate(row.branches) if branch.last == seq), 0)
        found = self.place(row, branch, seq)
        return (0, b"") if found is None else (seq, found[1])

    def positions(self, hashes: Iterable[bytes]) -> tuple[tuple[LogKey, int], ...]:
        """The (log, sequence) of those of these entries that are here."""
        rows = [row for row in map(self.find, hashes) if row is not None]
        return tuple((self._by_id[row.log].key, row.seq) for row in rows)

    def hash_at(self, id_: int) -> bytes:
        """The hash of the entry at a position; b"" for 0."""
        if not id_:
            return b""
        found = self.connection.execute("SELECT hash FROM _peers_entry WHERE id = ?", (id_,)).get
        if found is not None:
            return cast(bytes, found)
        segment = self.segments.at(id_)
        assert segment is not None, "an entry that another follows is here"
        return segment.hash if id_ == segment.id else self.unpack(segment).hashes[id_ - segment.first_id]

    def _read_rank(self, id_: int) -> tuple[int, bytes, bytes]:
        """What orders the writes of an entry: (hlc, device, hash)."""
        found = self.connection.execute("SELECT hlc, log, hash FROM _peers_entry WHERE id = ?", (id_,)).get
        if found is not None:
            hlc, log, hash_ = cast("tuple[int, int, bytes]", found)
            return hlc, self._by_id[log].key.device, hash_
        segment = self.segments.at(id_)
        assert segment is not None, "an entry that wrote a row is here"
        entries, index = self.unpack(segment), id_ - segment.first_id
        return entries.stamps[index], entries.log.device, entries.hashes[index]

    # --- Reading --------------------------------------------------------------------------------------------------------------

    def entry(self, found: EntryRow) -> Entry:
        """An entry that is here."""
        segment = self.segments.at(found.id)
        if segment is not None:
            return self.unpack(segment)[found.id - segment.first_id]
        ((_, entry, _, _),) = self.entries("id = ?", (found.id,))
        return entry

    def entries(self, where: str, bindings: Sequence[object] = ()) -> Iterator[tuple[int, Entry, State, bytes | None]]:
        """Entries in rows of their own, as (position, entry, state, signature).

        Acts, and whatever does not count or is not shown, have such rows. For all entries there is `all_entries`.

        Args:
            where: a constant condition, which may order and limit.
            bindings: for it.
        """
        cursor = self.connection.execute(f"SELECT {_ENTRY_COLUMNS} FROM _peers_entry WHERE {where}", tuple(bindings))
        for id_, log, _, seq, prev, author, state, hlc, hash_, deps, heads, ext, signature, body in cursor:
            yield id_, self._entry(log, seq, prev, author, hlc, hash_, deps, heads, ext, body), State(state), signature

    def all_entries(self, after: int = 0) -> Iterator[tuple[int, Entry, State, bytes | None]]:
        """All entries after a position, in order, as (position, entry, state, signature)."""
        rows = self.entries("id > ? ORDER BY id", (after,))
        return merge(rows, self.entries_in_segments(after), key=itemgetter(0))

    def entries_in_segments(self, after: int = 0) -> Iterator[tuple[int, Entry, State, bytes | None]]:
        """The same of entries in segments alone."""
        for segment in self.segments.after(after):
            for position, entry in enumerate(self.unpack(segment), segment.first_id):
                if position > after:
                    yield position, entry, State.APPLIED, segment.signature if position == segment.id else None

    def _entry(
        self,
        log: int,
        seq: int,
        prev: int,
        author: int,
        hlc: int,
        hash_: bytes,
        deps: bytes | None,
        heads: bytes | None,
        ext: bytes | None,
        body: bytes,
    ) -> Entry:
        key = self._by_id[log].key
        parsed = parse_body(canonical.decode(body, bytes_max=BODY_BYTES_MAX))
        user = self._author_users[author]
        is_genesis = key.kind is Kind.CONTROL and seq == 1 and hash_ == self.group
        header = Header(
            b"" if key.kind is Kind.IDENTITY or is_genesis else self.group,
            key.kind,
            user,
            key.device,
            key.epoch,
            seq,
            self.hash_at(prev),
            hlc,
            tuple(unpack_links(deps)),
            tuple(unpack_links(heads)),
            parsed.hash,
            tuple((cast("int", number), value) for number, value in cast("list[list[Value]]", unpack_values(ext))),
        )
        header.__dict__["hash"] = hash_  # computed when it was taken in; the row is trusted from then on
        return Entry(header, parsed)

    def unpack(self, segment: Segment) -> ParsedEntries:
        """The entries in a segment; the last few that were asked for are kept, since to chain them is to hash them all."""
        chained = self._chained.pop(segment.id, None) or self._chain(segment)
        self._chained[segment.id] = chained  # the newest last
        while len(self._chained) > _CHAINED_MAX:
            del self._chained[next(iter(self._chained))]
        return chained

    def _chain(self, segment: Segment) -> ParsedEntries:
        user, key = self._author_users[segment.author], self._by_id[segment.log].key
        return chain_entries(key, self.group, user, segment.first_seq, segment.prev, *self.segments.unpack(segment))

    # --- Bodies ---------------------------------------------------------------------------------------------------------------

    def has_body(self, id_: int) -> bool:
        """Whether an entry is kept with its body, and not as a header alone."""
        return bool(self.connection.execute("SELECT substr(body, 1, 2) <> x'9202' FROM _peers_entry WHERE id = ?", (id_,)).get)

    def save_blocks(self, hash_: bytes, blocks: Sequence[bytes]) -> None:
        """Stores the blocks of a detached body."""
        self.connection.executemany(
            "INSERT OR IGNORE INTO _peers_block VALUES (?, ?, ?)", [(hash_, index, block) for index, block in enumerate(blocks)]
        )

    def drop_blocks(self, hash_: bytes) -> None:
        """Forgets the blocks of a body and what was staged of it."""
        self.connection.execute("DELETE FROM _peers_block WHERE entry = ?", (hash_,))
        self.connection.execute("DELETE FROM _peers_staged WHERE entry = ?", (hash_,))

    def detached_blocks(self, hash_: bytes) -> list[bytes]:
        """The blocks of a detached body that are here, in order."""
        return [
            data for (data,) in self.connection.execute("SELECT data FROM _peers_block WHERE entry = ? ORDER BY idx", (hash_,))
        ]

    def blocks(self, hash_: bytes, body: Body) -> list[bytes] | None:
        """All blocks of an entry's body, or None where it is withheld."""
        if body.form is BodyForm.WITHHELD:
            return None
        return list(body.blocks) if body.form is BodyForm.INLINE else self.detached_blocks(hash_)
