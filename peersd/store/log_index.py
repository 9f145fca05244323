"""What is small of the logs of one group, kept in memory: logs, branches, tips, heads, authors (DESIGN 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Final, cast

import apsw

from peersd.store.branches import Branch, EntryRow, LogRow, State, TipRow
from peersd.store.segments import Segments
from peersd_protocol import canonical
from peersd_protocol.canonical import Value
from peersd_protocol.constants import BODY_BYTES_MAX, BRANCHES_MAX, LINKS_PER_ENTRY_MAX
from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.signing import HASH_BYTES
from peersd_protocol.vectors import Vector

_NEWEST: Final = b""
"""Heads in the file that are the newest entry alone."""

_LINKS_BYTES_MAX: Final = LINKS_PER_ENTRY_MAX * (HASH_BYTES + 2) + 8

_LAST_HELD: Final = """SELECT id, branch, seq, hash, hlc FROM _peers_entry
    WHERE log = ? AND branch = ? AND seq < ? AND state > 0 ORDER BY seq DESC LIMIT 1"""

_LAST_COUNTED: Final = _LAST_HELD.replace("state > 0", "state IN (1, 2)")


def unpack_values(packed: bytes | None) -> list[Value]:
    """The values in a column that is NULL where there are none."""
    return [] if packed is None else canonical.decode(packed, bytes_max=BODY_BYTES_MAX)


def unpack_links(packed: bytes | None) -> list[bytes]:
    """The hashes in a column of links."""
    return [] if packed is None else cast("list[bytes]", canonical.decode(packed, bytes_max=_LINKS_BYTES_MAX))


class LogIndex:
    """The logs of a group by their keys, with how far each goes, in step with the tables of log.sql.

    Args:
        connection: the writer of the group's file.
        group: the group's id.

    Attributes:
        connection, group: these.
        segments: many small entries in one row.
        data_heads, act_heads: hashes of the entries that no other names yet.
        position: of the last entry here.
        newest: that entry's hash; empty without any.
    """

    def __init__(self, connection: apsw.Connection, group: bytes) -> None:
        self.connection = connection
        self.group = group
        connection.execute(resources.files("peersd.store").joinpath("log.sql").read_text("utf-8"))
        self.segments = Segments(connection)

    def reload(self) -> None:
        """Reads what is kept in memory anew."""
        self._logs: dict[LogKey, LogRow] = {}
        self._by_id: dict[int, LogRow] = {}
        self._authors: dict[bytes, int] = {}
        self._author_users: dict[int, bytes] = {}
        self.segments.reload()
        for id_, user in self.connection.execute("SELECT id, user FROM _peers_author"):
            self._authors[user] = id_
            self._author_users[id_] = user
        for id_, kind, user, device, epoch in self.connection.execute("SELECT id, kind, user, device, epoch FROM _peers_log"):
            row = LogRow(id_, LogKey(Kind(kind), user, device, epoch))
            self._logs[row.key] = self._by_id[id_] = row
            row.branches.append(Branch(None, 1, self._last_seq(id_, 0)))
        for id_, branch, parent, first in self.connection.execute(
            "SELECT log, branch, parent, first FROM _peers_branch ORDER BY log, branch"
        ):
            self._by_id[id_].branches.append(Branch(parent, first, self._last_seq(id_, branch)))
        for id_, author in self.connection.execute("SELECT log, author FROM _peers_log_author"):
            self._by_id[id_].authors.add(author)
        for row in self._logs.values():
            self.refresh_tips(row)
        self.position = max(self._greatest(f"SELECT max(id) FROM {table}") for table in ("_peers_entry", "_peers_segment"))
        self.newest = self._hash_of_last(self.position)
        self._saved_heads: dict[str, Value] = {key: self.load_meta(key) for key in ("data_heads", "act_heads")}
        self.data_heads = self._load_heads("data_heads")
        self.act_heads = self._load_heads("act_heads")

    def _greatest(self, query: str, *bindings: int) -> int:
        return cast(int, self.connection.execute(query, bindings).get or 0)

    def _last_seq(self, log: int, branch: int) -> int:
        where = "WHERE log = ? AND branch = ?"
        tables = ("_peers_entry", "_peers_segment")
        return max(self._greatest(f"SELECT max(seq) FROM {table} {where}", log, branch) for table in tables)

    # --- Small facts ----------------------------------------------------------------------------------------------------------

    def load_meta(self, key: str) -> Value:
        """A value of _peers_meta, or None."""
        return cast(Value, self.connection.execute("SELECT value FROM _peers_meta WHERE key = ?", (key,)).get)

    def save_meta(self, key: str, value: Value) -> None:
        """Sets a value of _peers_meta."""
        self.connection.execute(
            "INSERT INTO _peers_meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (key, cast("bytes", value))
        )

    def _hash_of_last(self, position: int) -> bytes:
        found = self.connection.execute("SELECT hash FROM _peers_entry WHERE id = ?", (position,)).get
        if found is not None:
            return cast(bytes, found)
        segment = self.segments.at(position)
        return b"" if segment is None else segment.hash

    def _load_heads(self, key: str) -> set[bytes]:
        saved = self._saved_heads[key]
        return {self.newest} if saved == _NEWEST else set(cast("list[bytes]", unpack_values(cast("bytes | None", saved))))

    def author_user(self, author: int) -> bytes:
        """The user behind an author's number."""
        return self._author_users[author]

    def author_of(self, user: bytes) -> int | None:
        """A user's number as an author, or None for who has no entry here."""
        return self._authors.get(user)

    def _open_author(self, user: bytes) -> int:
        author = self._authors.get(user)
        if author is None:
            self.connection.execute("INSERT INTO _peers_author (user) VALUES (?)", (user,))
            author = self._authors[user] = self.connection.last_insert_rowid()
            self._author_users[author] = user
        return author

    def _save_heads(self) -> None:
        """Writes heads that are others than the file says: mostly the newest entry is the only one, as it was before."""
        for key, heads in (("data_heads", self.data_heads), ("act_heads", self.act_heads)):
            value = _NEWEST if len(heads) == 1 and self.newest in heads else canonical.encode(sorted(heads))
            if value != self._saved_heads[key]:
                self.save_meta(key, value)
                self._saved_heads[key] = value

    def refresh_heads(self, *, of_data: bool) -> None:
        """Works the heads out anew: the last entries that count of all branches, but for those that another such entry names.

        Void entries that are held are no heads: what is written next needs neither their rows nor their stamps. So what only they
        name stays a head, or it would be in nobody's past.
        """
        heads, column = (self.data_heads, "deps") if of_data else (self.act_heads, "heads")
        rows = [row for row in self._logs.values() if (row.key.kind is Kind.DATA) == of_data]
        tips = {tip.hash for row in rows for tip in self._tips(row, row.missing, _LAST_COUNTED)}
        for row in rows:
            query = f"SELECT branch, seq, {column} FROM _peers_entry WHERE log = ? AND {column} IS NOT NULL AND state IN (1, 2)"
            for branch, seq, packed in self.connection.execute(query, (row.id,)):
                if not row.is_blocked(branch, seq):
                    tips.difference_update(unpack_links(packed))
        heads.clear()
        heads.update(tips)

    # --- Logs and tips --------------------------------------------------------------------------------------------------------

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
            self.connection.execute(
                "INSERT INTO _peers_log (kind, user, device, epoch) VALUES (?, ?, ?, ?)",
                (int(key.kind), key.user, key.device, key.epoch),
            )
            row = LogRow(self.connection.last_insert_rowid(), key)
            self._logs[key] = self._by_id[row.id] = row
        return row

    def refresh_tips(self, row: LogRow) -> None:
        """Reads anew from the entries of a log how far each of its branches may be told of."""
        query = """SELECT branch, min(seq) FROM _peers_entry
            WHERE log = ? AND state IN (0, 3, 4) AND state = 4 GROUP BY branch"""
        row.missing = dict(self.connection.execute(query, (row.id,)))
        row.tips = self._tips(row, row.missing, _LAST_HELD)

    def ends(self, row: LogRow) -> list[TipRow]:
        """The last held entry of each branch, that of which no vector tells included."""
        return self._tips(row, {}, _LAST_HELD) if row.missing else row.tips

    def _tips(self, row: LogRow, missing: Mapping[int, int], last: str) -> list[TipRow]:
        """What `last` finds before `missing` on each branch, but for where another branch goes on."""
        tips: list[TipRow] = []
        followed: set[tuple[int, int]] = set()
        for number, branch in enumerate(row.branches):
            if missing and branch.parent is not None and row.is_blocked(branch.parent, branch.first - 1):
                continue
            end = missing.get(number, branch.last + 1)
            found = self.connection.execute(last, (row.id, number, end)).fetchone()
            tip = None if found is None else TipRow(*cast("tuple[int, int, int, bytes, int]", found))
            segment = self.segments.last_before(row.id, number, end)
            if segment is not None and (tip is None or segment.seq > tip.seq):
                tip = TipRow(segment.id, number, segment.seq, segment.hash, segment.hlc)
            if tip is not None:
                tips.append(tip)
                if branch.parent is not None:
                    followed.add((branch.parent, branch.first - 1))
        return [tip for tip in tips if (tip.branch, tip.seq) not in followed]

    def vector(self) -> Vector:
        """The tips of all logs of which something is held, the first BRANCHES_MAX of each."""
        return {
            key: tuple(sorted((tip.seq, tip.hash) for tip in row.tips)[:BRANCHES_MAX])
            for key, row in self._logs.items()
            if row.tips
        }

    def is_told(self, found: EntryRow) -> bool:
        """Whether an entry is held and a vector may tell of it."""
        return found.state is not State.VOID and not self._by_id[found.log].is_blocked(found.branch, found.seq)

    def is_end(self, key: LogKey, hash_: bytes) -> bool:
        """Whether an entry is held and the last one of a branch, so that nothing that follows it in its log is here."""
        row = self._logs.get(key)
        return row is not None and any(tip.hash == hash_ and row.branches[tip.branch].last == tip.seq for tip in row.tips)

    def show(self, row: LogRow, names: Iterable[bytes]) -> None:
        """Brings a data log's tips and the heads in line after entries that name `names` in `deps` have ceased to be MISSING."""
        before = {tip.hash for tip in row.tips}
        self.refresh_tips(row)
        after = {tip.hash for tip in self._tips(row, row.missing, _LAST_COUNTED)}
        self.data_heads.difference_update(before - after, names)
        self.data_heads.update(after - before)

    # --- As entries are added -------------------------------------------------------------------------------------------------

    def _note_author(self, row: LogRow, user: bytes) -> int:
        """The number of a user, who has entries in this log from now on."""
        author = self._open_author(user)
        if author not in row.authors:
            row.authors.add(author)
            self.connection.execute("INSERT INTO _peers_log_author VALUES (?, ?)", (row.id, author))
        return author

    def _branch_after(self, row: LogRow, prev: EntryRow | None) -> int:
        """The branch that an entry behind `prev` stands on: that of `prev`, or a new one if something follows that already."""
        if prev is not None and row.branches[prev.branch].last == prev.seq:
            return prev.branch
        branch = Branch(prev.branch, prev.seq + 1, prev.seq) if prev is not None else Branch(None, 1, 0)
        row.branches.append(branch)
        number = len(row.branches) - 1
        if number > 0:
            self.connection.execute(
                "INSERT INTO _peers_branch VALUES (?, ?, ?, ?)", (row.id, number, branch.parent, branch.first)
            )
        return number

    def _advance(self, row: LogRow, tip: TipRow, prev: EntryRow | None, prev_hash: bytes, named: Iterable[bytes]) -> None:
        """Brings tips and heads in line with a new last entry of a branch, which names these others."""
        follows = next((index for index, old in enumerate(row.tips) if prev is not None and old.id == prev.id), None)
        if follows is not None:
            row.tips[follows] = tip
        else:
            row.tips.append(tip)
        heads = self.data_heads if row.key.kind is Kind.DATA else self.act_heads
        heads.difference_update(named)
        heads.discard(prev_hash)
        heads.add(tip.hash)
