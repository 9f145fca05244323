"""What a request changed: the preupdate hook notes touched rows, their net effect is read before COMMIT (DESIGN 7, 8).

The hook says what was about to happen, not what stands: a statement that fails, and ROLLBACK TO, undo rows without a word. So it
keeps, per touched row, only the state before the request, taken at the first touch; what the row is now is read from the table.
A note of a row that was touched and undone is harmless: before and now are equal. That is why a rollback to within a request
needs no cut, and one to its beginning needs `discard` alone.

`INSERT OR REPLACE`, `UPDATE OR REPLACE` and UPSERT are seen completely, with recursive_triggers on or off; `DELETE` without
WHERE is not shortened while the hook is set, and `INSERT … SELECT` does not copy pages past it (tests/store/test_capture.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, cast

import apsw

from peersd.errors import PeersdError
from peersd.store import ddl, limits
from peersd.store.changes import Row, SQLValue, TableChanges
from peersd.store.layout import rowid_name
from peersd.store.sql_errors import sql_error
from peersd_protocol.constants import BODY_BYTES_MAX
from peersd_protocol.schema import Table

_KEY_HINT: Final = "Give every key column a text, blob or integer value that is not NULL."


@dataclass
class _Touched:
    """What is known of one table's touched rows.

    Attributes:
        table: its definition; its columns are in the order of the file's table.
        rowid: the name that reads its row id; None when rows have no address but their key: in WITHOUT ROWID tables, and in
            those whose columns take all names of the row id.
        before: row id, or key where there is none -> the row before the request, None when there was none.
        any_before: whether one of them is not None.
    """

    table: Table
    rowid: str | None
    before: dict[Any, Row | None] = field(default_factory=dict)
    any_before: bool = False


class Capture:
    """The hook of one writer and what it noted since the last `take` or `discard`.

    Attributes:
        applying: True while entries of other devices, or a rebuild, are written: nothing is noted.
        held_bytes: roughly what the noted rows occupy; grows with updates and deletes, not with inserts.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self.applying = False
        self.held_bytes = 0
        self._connection = connection
        self._tables: dict[str, Table] = {}
        self._touched: dict[str, _Touched] = {}

    def install(self) -> None:
        """Sets the hook, for the life of the connection and before any client statement is prepared.

        A statement that was prepared earlier bypasses it, and attaching an `apsw.Session` silently replaces it.
        """
        self._connection.preupdate_hook(self._note)

    def watch(self, tables: Iterable[Table]) -> None:
        """States which tables are captured, in place of what was stated before. Nothing may be noted at that time.

        Args:
            tables: the projected tables; each one's columns are in the order of the file's table.
        """
        assert not self._touched, "the schema cannot change within a request"
        self._tables = {table.name: table for table in tables}

    def discard(self) -> None:
        """Forgets what was noted: the request, or the whole transaction, was rolled back."""
        self._touched.clear()
        self.held_bytes = 0

    def take(self) -> list[TableChanges]:
        """The net changes since the last `take` or `discard`; what was noted is forgotten, even when this raises.

        Runs SELECTs on the connection, outside a client's authorization. Tables without any difference are left out.

        Raises:
            PeersdError: `sql_error` for a key that is NULL or REAL and for text that is not UTF-8, `too_large`.
        """
        touched, held_bytes = self._touched, self.held_bytes
        self._touched = {}
        self.held_bytes = 0
        if held_bytes > limits.CLIENT_MEMORY_BYTES_MAX:
            raise _too_large()
        found = [self._net(one) for one in touched.values()]
        return [changes for changes in found if changes.inserts or changes.updates or changes.deletes]

    # --- The hook ---

    def _note(self, update: apsw.PreUpdate) -> None:
        if self.applying or self.held_bytes > limits.CLIENT_MEMORY_BYTES_MAX:
            # Too much: `take` refuses the request, so that what is missing is never missed.
            return
        name = update.table_name
        touched = self._touched.get(name)
        if touched is None:
            table = self._tables.get(name)
            if table is None or update.database_name != "main":
                return
            touched = self._touched[name] = _Touched(table, rowid_name(table))
        before = touched.before
        opcode = update.opcode
        if touched.rowid is None:
            self._note_keyed(touched, update, opcode)
        elif opcode == apsw.SQLITE_INSERT:
            rowid = update.rowid_new
            if rowid not in before:
                before[rowid] = None
        else:
            if update.rowid not in before:
                self._keep(touched, update.rowid, update.old)
            if opcode == apsw.SQLITE_UPDATE and update.rowid_new not in before:
                before[update.rowid_new] = None

    def _note_keyed(self, touched: _Touched, update: apsw.PreUpdate, opcode: int) -> None:
        """Notes a row that has no address but its key."""
        positions = touched.table.key
        if opcode != apsw.SQLITE_INSERT:
            old = cast("Row", update.old)
            key = tuple([old[position] for position in positions])
            if key not in touched.before:
                self._keep(touched, key, old)
        if opcode != apsw.SQLITE_DELETE:
            new = cast("Row", update.new)
            key = tuple([new[position] for position in positions])
            if any(value.__class__ is float for value in key):
                # 1 and 1.0 are one key to Python: refused now, before the two are mixed up.
                raise _bad_key(touched.table)
            if key not in touched.before:
                touched.before[key] = None

    def _keep(self, touched: _Touched, address: object, old: Any) -> None:
        row = cast("Row", old)
        touched.before[address] = row
        touched.any_before = True
        self.held_bytes += 100 + sum(len(value) for value in row if isinstance(value, str | bytes))

    # --- The net effect ---

    def _net(self, touched: _Touched) -> TableChanges:
        """Before against now, matched by key: a changed key is a delete and an insert, and REPLACE is an update."""
        table = touched.table
        changes = TableChanges(table.name)
        rows = self._rows_now(touched)
        if not touched.any_before:
            changes.inserts = list(rows)
            return changes
        key_of = _key_reader(table)
        before = {key_of(row): (address, row) for address, row in touched.before.items() if row is not None}
        for rowid, row in rows:
            match = before.pop(key_of(row), None)
            if match is None:
                changes.inserts.append((rowid, row))
                continue
            address, old = match
            old_rowid = None if touched.rowid is None else address
            if old_rowid != rowid or not same_rows(old, row):
                changes.updates.append((old_rowid, rowid, old, row))
        changes.deletes = [(None if touched.rowid is None else address, row) for address, row in before.values()]
        return changes

    def _rows_now(self, touched: _Touched) -> Iterator[tuple[int | None, Row]]:
        """The touched rows that are present now, checked, with their row ids."""
        table = touched.table
        # A body holds every inserted value, so a transaction that inserts more bytes than this could not be sent. Rows that were
        # there before may be large and hardly changed; their bound is what a client may hold in memory.
        bytes_left = limits.CLIENT_MEMORY_BYTES_MAX if touched.any_before else BODY_BYTES_MAX
        checked = _checked_positions(table)
        read = self._read_keyed if touched.rowid is None else self._read_ranges
        try:
            for rows in read(touched):
                for rowid, row in rows:
                    for position in checked:
                        if row[position] is None or row[position].__class__ is float:
                            raise _bad_key(table)
                    for value in row:
                        bytes_left -= len(value) if isinstance(value, (str, bytes)) else 1
                    if bytes_left < 0:
                        raise _too_large()
                    yield rowid, row
        except UnicodeError as error:
            raise sql_error(
                f"Text in {table.name} that is not UTF-8 cannot be shared.", "Store such bytes as a blob, without CAST to TEXT."
            ) from error

    def _read_ranges(self, touched: _Touched) -> Iterator[Iterable[tuple[int, Row]]]:
        name = ddl.quote_name(touched.table.name)
        sql = f"SELECT {touched.rowid}, * FROM {name} WHERE {touched.rowid} BETWEEN ? AND ?"
        for first, last in _ranges(touched.before):
            yield ((cast("int", row[0]), row[1:]) for row in self._connection.execute(sql, (first, last)))

    def _read_keyed(self, touched: _Touched) -> Iterator[Iterable[tuple[None, Row]]]:
        table = touched.table
        where = " AND ".join(f"{ddl.quote_name(table.columns[position].name)} = ?" for position in table.key)
        sql = f"SELECT * FROM {ddl.quote_name(table.name)} WHERE {where}"
        for key in touched.before:
            yield ((None, row) for row in self._connection.execute(sql, key))


def same_rows(one: Row, other: Row) -> bool:
    """Whether two rows hold the same stored values: 1, 1.0 and '1' differ, and so do 0.0 and -0.0."""
    return one == other and all(map(_same_value, one, other))


def _same_value(one: SQLValue, other: SQLValue) -> bool:
    """Whether two values that compare equal are of one type, and of one sign when they are zero."""
    if one.__class__ is not other.__class__:
        return False
    return not isinstance(one, float) or not isinstance(other, float) or math.copysign(1, one) == math.copysign(1, other)


def _key_reader(table: Table) -> Callable[[Row], object]:
    """A function from a row to its key."""
    if len(table.key) == 1:
        (only,) = table.key
        return lambda row: row[only]
    return lambda row: tuple([row[position] for position in table.key])


def _checked_positions(table: Table) -> tuple[int, ...]:
    """Key columns in which SQLite could hold a REAL: not those of TEXT affinity, nor any of a STRICT table but ANY."""
    return tuple(position for position in table.key if table.columns[position].type.upper() != "TEXT")


def _ranges(rowids: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Row ids as ranges without gaps, ascending."""
    ordered = sorted(rowids)
    start = 0
    for index in range(1, len(ordered) + 1):
        if index == len(ordered) or ordered[index] != ordered[index - 1] + 1:
            yield ordered[start], ordered[index - 1]
            start = index


def _too_large() -> PeersdError:
    return PeersdError(
        "too_large", "The transaction changes more than fits one entry.", hint="Split it into transactions of at most 64 MiB."
    )


def _bad_key(table: Table) -> PeersdError:
    return sql_error(f"A key of {table.name} is NULL or a REAL.", _KEY_HINT)
