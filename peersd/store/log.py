"""The logs of one group in its SQLite file: rows of entries in, headers, tips and runs out (DESIGN 6)."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import cast

import apsw

from peersd_protocol import canonical
from peersd_protocol.canonical import Value
from peersd_protocol.constants import BODY_BYTES_MAX, WANT_SAMPLES_MAX
from peersd_protocol.entries import Header, Kind, LogKey
from peersd_protocol.runs import Body, BodyForm, Entry, parse_body
from peersd_protocol.vectors import Tip, Vector


class State(enum.IntEnum):
    """What an entry counts for."""

    VOID = 0
    APPLIED = 1
    ASIDE = 2
    """It counts, but its rows are not shown: of a later version, or made under schema acts that do not stand."""
    ANCESTOR = 3
    """It does not count and is held all the same, because something that counts rests on it."""


@dataclass(slots=True)
class TipRow:
    """The last held entry of a branch."""

    id: int
    seq: int
    hash: bytes
    hlc: int


@dataclass(slots=True)
class LogRow:
    """One log as it is known here. `tips` holds one element a branch, none while nothing of the log is held."""

    id: int
    key: LogKey
    forked: bool
    tips: list[TipRow] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class EntryRow:
    """What most decisions need to know of a stored entry."""

    id: int
    log: int
    seq: int
    hlc: int
    state: State


_ENTRY_COLUMNS = "id, log, seq, prev, author, state, hlc, hash, deps, heads, ext, signature, body"


def _pack(links: Sequence[Value]) -> bytes | None:
    return canonical.encode(list(links)) if links else None


def _unpack(packed: bytes | None) -> list[Value]:
    return [] if packed is None else canonical.decode(packed, bytes_max=BODY_BYTES_MAX)


class Log:
    """Rows of the tables in log.sql, with what is small kept in memory. Transactions are the caller's.

    After a rollback the caller calls `reload`, because memory may be ahead of the file.

    Args:
        connection: the writer of the group's file.
        group: the group's id.
    """

    def __init__(self, connection: apsw.Connection, group: bytes) -> None:
        self._connection = connection
        self.group = group
        connection.execute(resources.files("peersd.store").joinpath("log.sql").read_text("utf-8"))
        self.rank = lru_cache(maxsize=4096)(self._read_rank)
        self.reload()

    def reload(self) -> None:
        """Reads what is kept in memory anew."""
        self._logs: dict[LogKey, LogRow] = {}
        self._by_id: dict[int, LogRow] = {}
        self._authors: dict[bytes, int] = {}
        self._author_users: dict[int, bytes] = {}
        self.rank.cache_clear()
        for id_, user in self._connection.execute("SELECT id, user FROM _peers_author"):
            self._authors[user] = id_
            self._author_users[id_] = user
        for id_, kind, user, device, epoch, forked in self._connection.execute(
            "SELECT id, kind, user, device, epoch, forked FROM _peers_log"
        ):
            row = LogRow(id_, LogKey(Kind(kind), user, device, epoch), bool(forked))
            self._logs[row.key] = self._by_id[id_] = row
            self.refresh_tips(row)
        self.data_heads = self._load_hashes("data_heads")
        self.act_heads = self._load_hashes("act_heads")
        self.position = cast(int, self._connection.execute("SELECT coalesce(max(id), 0) FROM _peers_entry").get)

    # --- Small facts ------------------------------------------------------------------------------------------------------------

    def load_meta(self, key: str) -> Value:
        """A value of _peers_meta, or None."""
        return cast(Value, self._connection.execute("SELECT value FROM _peers_meta WHERE key = ?", (key,)).get)

    def save_meta(self, key: str, value: Value) -> None:
        """Sets a value of _peers_meta."""
        self._connection.execute(
            "INSERT INTO _peers_meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (key, cast("bytes", value))
        )

    def _load_hashes(self, key: str) -> set[bytes]:
        return set(cast("list[bytes]", _unpack(cast("bytes | None", self.load_meta(key)))))

    def save_heads(self) -> None:
        """Writes the heads; part of every transaction that adds entries."""
        self.save_meta("data_heads", canonical.encode(sorted(self.data_heads)))
        self.save_meta("act_heads", canonical.encode(sorted(self.act_heads)))

    def author_user(self, author: int) -> bytes:
        """The user behind an author's number."""
        return self._author_users[author]

    def refresh_heads(self) -> None:
        """Works the heads out anew from the tips: the held tips that no held entry names."""
        for heads, kinds, column in (
            (self.data_heads, (Kind.DATA,), "deps"),
            (self.act_heads, (Kind.IDENTITY, Kind.CONTROL), "heads"),
        ):
            tips = {tip.hash for row in self._logs.values() if row.key.kind in kinds for tip in row.tips}
            query = f"""SELECT e.{column} FROM _peers_entry e JOIN _peers_log l ON l.id = e.log
                WHERE e.{column} IS NOT NULL AND e.state > 0 AND (l.kind = 3) = ?"""
            for (packed,) in self._connection.execute(query, (Kind.DATA in kinds,)):
                tips.difference_update(cast("list[bytes]", _unpack(packed)))
            heads.clear()
            heads.update(tips)

    # --- Logs and tips ----------------------------------------------------------------------------------------------------------

    def logs(self) -> Iterable[LogRow]:
        """All logs that have entries here."""
        return self._logs.values()

    def log(self, key: LogKey) -> LogRow | None:
        """One log, or None if nothing of it is here."""
        return self._logs.get(key)

    def log_by_id(self, id_: int) -> LogRow:
        """The log with this number."""
        return self._by_id[id_]

    def open_log(self, key: LogKey) -> LogRow:
        """The log, made if need be."""
        row = self._logs.get(key)
        if row is None:
            self._connection.execute(
                "INSERT INTO _peers_log (kind, user, device, epoch) VALUES (?, ?, ?, ?)",
                (int(key.kind), key.user, key.device, key.epoch),
            )
            row = LogRow(self._connection.last_insert_rowid(), key, False)
            self._logs[key] = self._by_id[row.id] = row
        return row

    def refresh_tips(self, row: LogRow) -> None:
        """Reads a log's tips from its entries: the held ones that no held entry follows."""
        query = "SELECT id, seq, hash, hlc FROM _peers_entry e WHERE log = ? AND state > 0 ORDER BY seq DESC LIMIT 1"
        if row.forked:
            query = """SELECT id, seq, hash, hlc FROM _peers_entry e WHERE log = ? AND state > 0 AND NOT EXISTS
                (SELECT 1 FROM _peers_entry n WHERE n.log = e.log AND n.seq = e.seq + 1 AND n.prev = e.id AND n.state > 0)"""
        row.tips = [TipRow(*tip) for tip in self._connection.execute(query, (row.id,))]

    def vector(self) -> Vector:
        """The tips of all logs of which something is held."""
        return {key: tuple(sorted((tip.seq, tip.hash) for tip in row.tips)) for key, row in self._logs.items() if row.tips}

    # --- Entries ----------------------------------------------------------------------------------------------------------------

    def append(self, entry: Entry, signature: bytes | None, state: State, prev: EntryRow | None) -> int:
        """Adds an entry behind `prev` and returns its position. Tips, forks and heads are kept in step."""
        header = entry.header
        row = self.open_log(header.log)
        author = self._authors.get(header.user)
        if author is None:
            self._connection.execute("INSERT INTO _peers_author (user) VALUES (?)", (header.user,))
            author = self._authors[header.user] = self._connection.last_insert_rowid()
            self._author_users[author] = header.user
        self.position += 1
        self._connection.execute(
            f"INSERT INTO _peers_entry ({_ENTRY_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.position,
                row.id,
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
        if state is not State.VOID:
            self._advance(row, header, prev)
        return self.position

    def _advance(self, row: LogRow, header: Header, prev: EntryRow | None) -> None:
        tip = TipRow(self.position, header.seq, header.hash, header.hlc)
        follows = next((index for index, old in enumerate(row.tips) if prev is not None and old.id == prev.id), None)
        if follows is not None:
            row.tips[follows] = tip
        else:
            if row.tips:
                row.forked = True
                self._connection.execute("UPDATE _peers_log SET forked = 1 WHERE id = ?", (row.id,))
            row.tips.append(tip)
        heads = self.data_heads if header.kind is Kind.DATA else self.act_heads
        heads.difference_update(header.deps if header.kind is Kind.DATA else header.control_heads)
        heads.discard(header.prev)
        heads.add(header.hash)

    def find(self, hash_: bytes) -> EntryRow | None:
        """The entry with this hash, held or void, or None."""
        found = self._connection.execute("SELECT id, log, seq, hlc, state FROM _peers_entry WHERE hash = ?", (hash_,)).fetchone()
        return EntryRow(found[0], found[1], found[2], found[3], State(found[4])) if found else None

    def tip_row(self, key: LogKey, hash_: bytes) -> EntryRow | None:
        """Like `find`, without a query when the entry is a tip of this log."""
        row = self._logs.get(key)
        for tip in row.tips if row else ():
            if tip.hash == hash_ and row is not None:
                return EntryRow(tip.id, row.id, tip.seq, tip.hlc, State.APPLIED)
        return self.find(hash_)

    def _read_rank(self, id_: int) -> tuple[int, bytes, bytes]:
        """What orders the writes of an entry: (hlc, device, hash)."""
        hlc, log, hash_ = cast(
            "tuple[int, int, bytes]", self._connection.execute("SELECT hlc, log, hash FROM _peers_entry WHERE id = ?", (id_,)).get
        )
        return hlc, self._by_id[log].key.device, hash_

    def set_state(self, ids: Iterable[int], state: State) -> None:
        """Changes what entries count for. Tips and heads of the logs concerned are the caller's to refresh."""
        self._connection.executemany("UPDATE _peers_entry SET state = ? WHERE id = ?", [(int(state), id_) for id_ in ids])

    def save_signature(self, id_: int, signature: bytes) -> None:
        """Stores the signature that ends a run at this entry."""
        self._connection.execute("UPDATE _peers_entry SET signature = ? WHERE id = ?", (signature, id_))

    def save_blocks(self, hash_: bytes, blocks: Sequence[bytes]) -> None:
        """Stores the blocks of a detached body."""
        self._connection.executemany(
            "INSERT OR IGNORE INTO _peers_block VALUES (?, ?, ?)", [(hash_, index, block) for index, block in enumerate(blocks)]
        )

    def drop_blocks(self, hash_: bytes) -> None:
        """Forgets the blocks of a body and what was staged of it."""
        self._connection.execute("DELETE FROM _peers_block WHERE entry = ?", (hash_,))
        self._connection.execute("DELETE FROM _peers_staged WHERE entry = ?", (hash_,))

    def detached_blocks(self, hash_: bytes) -> list[bytes]:
        """The blocks of a detached body that are here, in order."""
        return [
            data for (data,) in self._connection.execute("SELECT data FROM _peers_block WHERE entry = ? ORDER BY idx", (hash_,))
        ]

    def blocks(self, hash_: bytes, body: Body) -> list[bytes] | None:
        """All blocks of an entry's body, or None where it is withheld."""
        if body.form is BodyForm.WITHHELD:
            return None
        return list(body.blocks) if body.form is BodyForm.INLINE else self.detached_blocks(hash_)

    def entries(self, where: str, bindings: Sequence[object] = ()) -> Iterator[tuple[int, Entry, State, bytes | None]]:
        """Entries as (position, entry, state, signature) for a constant condition `where` (which may order and limit)."""
        cursor = self._connection.execute(f"SELECT {_ENTRY_COLUMNS} FROM _peers_entry WHERE {where}", tuple(bindings))
        for id_, log, seq, prev, author, state, hlc, hash_, deps, heads, ext, signature, body in cursor:
            yield id_, self._entry(log, seq, prev, author, hlc, hash_, deps, heads, ext, body), State(state), signature

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
            self._hash_of(prev) if prev else b"",
            hlc,
            tuple(cast("list[bytes]", _unpack(deps))),
            tuple(cast("list[bytes]", _unpack(heads))),
            parsed.hash,
            tuple((cast("int", number), value) for number, value in cast("list[list[Value]]", _unpack(ext))),
        )
        header.__dict__["hash"] = hash_  # computed when it was taken in; the row is trusted from then on
        return Entry(header, parsed)

    def _hash_of(self, id_: int) -> bytes:
        return cast(bytes, self._connection.execute("SELECT hash FROM _peers_entry WHERE id = ?", (id_,)).get)

    # --- Catch-up ---------------------------------------------------------------------------------------------------------------

    def samples(self, key: LogKey) -> tuple[Tip, ...]:
        """(sequence, hash) of held entries, from each tip back at doubling distances; at most WANT_SAMPLES_MAX, descending."""
        row = self._logs.get(key)
        if row is None or not row.tips:
            return ()
        positions: set[int] = set()
        for tip in row.tips:
            seq, step = tip.seq, 1
            while seq >= 1:
                positions.add(seq)
                seq -= step
                step *= 2
        found: set[Tip] = set()
        for seq in sorted(positions, reverse=True):
            found.update(
                self._connection.execute(
                    "SELECT seq, hash FROM _peers_entry WHERE log = ? AND seq = ? AND state > 0", (row.id, seq)
                )
            )
        return tuple(sorted(found, reverse=True)[:WANT_SAMPLES_MAX])

    def first_wanted(self, key: LogKey, tip: Tip, have: Collection[Tip]) -> tuple[int, int, int] | None:
        """Where serving a branch begins: (first sequence, last sequence, the position before the first entry), or None.

        Walks back from the greatest sample that this replica holds too and that lies on the branch; without forks every sample
        that is known does.
        """
        row = self._logs.get(key)
        target = self.find(tip[1])
        if row is None or target is None or target.log != row.id or target.state is State.VOID:
            return None
        first = 1
        for seq, hash_ in sorted(have, reverse=True):
            known = self.find(hash_) if seq <= target.seq else None
            if (
                known is not None
                and known.log == row.id
                and known.seq == seq
                and (not row.forked or self._is_ancestor(known, target))
            ):
                first = seq + 1
                break
        if first > target.seq:
            return None
        position = self._connection.execute("SELECT min(id) FROM _peers_entry WHERE log = ? AND seq = ?", (row.id, first)).get
        return first, target.seq, cast(int, position) - 1

    def has_beyond(self, row: LogRow, first: int, last: int, position: int) -> bool:
        """Whether a log has entries of these sequences (both included) after a position."""
        query = "SELECT EXISTS (SELECT 1 FROM _peers_entry WHERE log = ? AND seq BETWEEN ? AND ? AND id > ?)"
        return bool(self._connection.execute(query, (row.id, first, last, position)).get)

    def _is_ancestor(self, known: EntryRow, target: EntryRow) -> bool:
        id_, seq = target.id, target.seq
        while seq > known.seq:
            id_ = cast(int, self._connection.execute("SELECT prev FROM _peers_entry WHERE id = ?", (id_,)).get)
            seq -= 1
        return id_ == known.id
