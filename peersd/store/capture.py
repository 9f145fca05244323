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
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final, cast

import apsw

from peersd.errors import PeersdError
from peersd.store import ddl, limits
from peersd.store.changes import Row, SQLValue, TableChanges
from peersd.store.clocks import runs_of
from peersd.store.layout import rowid_name
from peersd.store.sql_errors import sql_error
from peersd_protocol.constants import BODY_BYTES_MAX
from peersd_protocol.schema import Table

_NOT_IN_KEYS: Final[frozenset[type]] = frozenset((type(None), float))

_KEY_HINT: Final = "Give every key column a text, blob or integer value that is not NULL."


class _Watched:
    """A table whose changes are captured.

    Attributes:
        table: its definition; its columns are in the order of the file's table.
        has_rowid: False when rows have no address but their key: in WITHOUT ROWID tables, and in those whose columns take all
            names of the row id.
        read_sql: reads row id (NULL without) and values: of a range of row ids, or of one key.
        checked: key columns in which SQLite could hold NULL or a REAL: not those of TEXT affinity.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        rowid = rowid_name(table)
        self.has_rowid = rowid is not None
        columns = [ddl.quote_name(table.columns[position].name) for position in table.key]
        where = f"{rowid} BETWEEN ? AND ?" if rowid else " AND ".join(f"{column} = ?" for column in columns)
        self.read_sql = f"SELECT {rowid or 'NULL'}, * FROM {ddl.quote_name(table.name)} WHERE {where}"
        self.checked = tuple(position for position in table.key if table.columns[position].type.upper() != "TEXT")


class _Touched:
    """What is known of one table's touched rows.

    Attributes:
        watched: the table.
        before: row id, or key where there is none -> the row before the request, None when there was none.
        any_before: whether one of them is not None.
    """

    def __init__(self, watched: _Watched) -> None:
        self.watched = watched
        self.before: dict[Any, Row | None] = {}
        self.any_before = False


class _Pause(AbstractContextManager[None]):
    """Says +1 when it is entered and -1 when it is left."""

    def __init__(self, change: Callable[[int], None]) -> None:
        self._change = change

    def __enter__(self) -> None:
        self._change(1)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._change(-1)


class Capture:
    """The hook of one writer and what it noted since the last `take` or `discard`.

    Attributes:
        held_bytes: roughly what the noted rows occupy; grows with updates and deletes, not with inserts.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._pauses = 0
        self.held_bytes = 0
        self._connection = connection
        self._tables: dict[str, _Watched] = {}
        self._touched: dict[str, _Touched] = {}
        self._pause = _Pause(self._change_pauses)

    def install(self) -> None:
        """Sets the hook, before any client statement is prepared.

        Some statements that were prepared earlier bypass it, and attaching an `apsw.Session` silently replaces it.
        """
        self._connection.preupdate_hook(self._note)

    def paused(self) -> AbstractContextManager[None]:
        """While entries of other devices, or a rebuild, are written nothing is noted: within this context. May be nested.

        The hook is taken off, for it costs each row of any table half a microsecond or more. A `DELETE` without WHERE or an
        `INSERT … SELECT` on a watched table must not be prepared meanwhile: kept, it would bypass the hook afterwards.
        """
        return self._pause

    def _change_pauses(self, by: int) -> None:
        before, self._pauses = self._pauses, self._pauses + by
        if not before:
            self._connection.preupdate_hook(None)
        elif not self._pauses:
            self.install()

    def watch(self, tables: Iterable[Table]) -> None:
        """States which tables are captured, in place of what was stated before. Nothing may be noted at that time.

        Args:
            tables: the projected tables; each one's columns are in the order of the file's table.
        """
        assert not self._touched, "the schema cannot change within a request"
        self._tables = {table.name: _Watched(table) for table in tables}

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
        if self.held_bytes > limits.CLIENT_MEMORY_BYTES_MAX:
            # Too much: `take` refuses the request, so that what is missing is never missed.
            return
        name = update.table_name
        touched = self._touched.get(name)
        if touched is None:
            watched = self._tables.get(name)
            if watched is None or update.database_name != "main":
                return
            touched = self._touched[name] = _Touched(watched)
        before = touched.before
        opcode = update.opcode
        if not touched.watched.has_rowid:
            self._note_keyed(touched, update, opcode)
        elif opcode == apsw.SQLITE_INSERT:
            before.setdefault(update.rowid_new)
        else:
            if update.rowid not in before:
                self._keep(touched, update.rowid, update.old)
            if opcode == apsw.SQLITE_UPDATE:
                before.setdefault(update.rowid_new)

    def _note_keyed(self, touched: _Touched, update: apsw.PreUpdate, opcode: int) -> None:
        """Notes a row that has no address but its key."""
        positions = touched.watched.table.key
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
                raise _bad_key(touched.watched.table)
            touched.before.setdefault(key)

    def _keep(self, touched: _Touched, address: object, old: Any) -> None:
        row = cast("Row", old)
        touched.before[address] = row
        touched.any_before = True
        self.held_bytes += 100 + sum(len(value) for value in row if isinstance(value, str | bytes))

    # --- The net effect ---

    def _net(self, touched: _Touched) -> TableChanges:
        """Before against now, matched by key: a changed key is a delete and an insert, and REPLACE is an update."""
        table, has_rowid = touched.watched.table, touched.watched.has_rowid
        changes = TableChanges(table.name)
        rows = self._rows_now(touched)
        if not touched.any_before:
            changes.inserts = rows
            return changes
        key_of = _key_reader(table)
        before = {key_of(row): (address, row) for address, row in touched.before.items() if row is not None}
        for rowid, row in rows:
            match = before.pop(key_of(row), None)
            if match is None:
                changes.inserts.append((rowid, row))
                continue
            address, old = match
            old_rowid = address if has_rowid else None
            if old_rowid != rowid or not same_rows(old, row):
                changes.updates.append((old_rowid, rowid, old, row))
        changes.deletes = [(address if has_rowid else None, row) for address, row in before.values()]
        return changes

    def _rows_now(self, touched: _Touched) -> list[tuple[int | None, Row]]:
        """The touched rows that are present now, checked, with their row ids."""
        watched = touched.watched
        # A body holds every inserted value, so a transaction that inserts more bytes than this could not be sent. Rows that were
        # there before may be large and hardly changed; their bound is what a client may hold in memory.
        bytes_left = limits.CLIENT_MEMORY_BYTES_MAX if touched.any_before else BODY_BYTES_MAX
        rows: list[tuple[int | None, Row]] = []
        cursor: Any = self._connection.cursor()
        try:
            for address in runs_of(touched.before) if watched.has_rowid else touched.before:
                for row in cursor.execute(watched.read_sql, address):
                    bytes_left -= len(row)
                    for value in row:
                        kind = value.__class__
                        if kind is str or kind is bytes:
                            bytes_left -= len(value)
                    if bytes_left < 0:
                        raise _too_large()
                    rows.append((row[0], row[1:]))
        except UnicodeError as error:
            raise sql_error(
                f"Text in {watched.table.name} that is not UTF-8 cannot be shared.",
                "Store such bytes as a blob, without CAST to TEXT.",
            ) from error
        finally:
            cursor.close()
        for position in watched.checked:
            if not _NOT_IN_KEYS.isdisjoint([row[position].__class__ for _, row in rows]):
                raise _bad_key(watched.table)
        return rows


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


def _too_large() -> PeersdError:
    return PeersdError(
        "too_large", "The transaction changes more than fits one entry.", hint="Split it into transactions of at most 64 MiB."
    )


def _bad_key(table: Table) -> PeersdError:
    return sql_error(f"A key of {table.name} is NULL or a REAL.", _KEY_HINT)
