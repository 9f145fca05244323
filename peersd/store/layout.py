"""One application table as the merge sees it: its SQL texts, its key, and which values its columns can hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import apsw

from peersd.store.changes import Row, SQLValue
from peersd.store.ddl import column_sql, quote_name
from peersd_protocol import canonical
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.names import fold
from peersd_protocol.schema import Column, Table

ROWID_NAMES: Final = ("rowid", "_rowid_", "oid")

_NONE: Final = type(None)
_STRICT_TYPES: Final[dict[str, frozenset[type]]] = {
    "INT": frozenset((int, _NONE)),
    "INTEGER": frozenset((int, _NONE)),
    "REAL": frozenset((float, _NONE)),
    "TEXT": frozenset((str, _NONE)),
    "BLOB": frozenset((bytes, _NONE)),
}
_ZERO: Final[dict[str, SQLValue]] = {"INT": 0, "INTEGER": 0, "REAL": 0.0, "BLOB": b""}
_ALL: Final[frozenset[type]] = frozenset((_NONE, int, float, str, bytes))
_NUMBER: Final = re.compile(
    r"[ \t\n\v\f\r]*[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[ \t\n\v\f\r]*(?:\x00.*)?", re.DOTALL
)
"""Text that a column of INTEGER affinity stores as a number (SQLite, "Datatypes", 3). What follows a NUL is lost then (measured
with 3.54; tests/store/test_layout.py compares)."""

_DEFAULT_LITERAL: Final = 1


class Layout:
    """SQL and checks for one projected table. Immutable once made.

    Columns are named by their position in the table; a row is a tuple of all its values in that order.

    Attributes:
        number: the table's local number, `_peers_table.id`.
        table: its definition.
        original_columns: how many columns the operation that created the table made; the others were added.
        full_mask: the bit mask of all columns.
        has_locator: whether rows are known by numbers of ours, in a locator table, and not by SQLite's row ids.
        missing: what each column shows that was never written, or not since the row's delete.
    """

    def __init__(self, number: int, table: Table) -> None:
        self.number = number
        self.table = table
        self.key = table.key
        self.width = len(table.columns)
        self.original_columns = sum(column.id[:2] == table.id for column in table.columns)
        self.full_mask = (1 << self.width) - 1
        rowid = rowid_name(table)
        self.has_locator = rowid is None
        self.missing = tuple(missing_value(column, strict=table.strict) for column in table.columns)
        self.locator = f"_peers_rid_{number}"
        self._name = quote_name(table.name)
        self._columns = [quote_name(column.name) for column in table.columns]
        key_match = " AND ".join(f"{self._columns[position]} = ?" for position in self.key)
        self._where = key_match if rowid is None else f"{rowid} = ?"
        self._updates: dict[tuple[int, ...], str] = {}
        columns = ", ".join(self._columns)
        holes = ", ".join("?" * self.width)
        self.insert_sql = f"INSERT INTO {self._name} ({columns}) VALUES ({holes})"
        self.delete_sql = f"DELETE FROM {self._name} WHERE {self._where}"
        self.read_sql = f"SELECT {columns} FROM {self._name} WHERE {self._where}"
        self.dump_sql = f"SELECT {columns} FROM {self._name} ORDER BY " + ", ".join(
            self._columns[position] for position in self.key
        )
        if rowid is None:
            names = [f"k{index}" for index in range(len(self.key))]
            key_match = " AND ".join(f"{name} = ?" for name in names)
            # ANY in a STRICT table stores and compares values as they are, with no affinity.
            self.create_locator_sql = (
                f"CREATE TABLE {self.locator} ({', '.join(f'{name} ANY NOT NULL' for name in names)}, rid INTEGER NOT NULL, "
                f"PRIMARY KEY ({', '.join(names)})) STRICT, WITHOUT ROWID"
            )
            self.locate_sql = f"SELECT rid FROM {self.locator} WHERE {key_match}"
            self.insert_locator_sql = f"INSERT INTO {self.locator} VALUES ({', '.join('?' * (len(names) + 1))})"
            self.delete_locator_sql = f"DELETE FROM {self.locator} WHERE {key_match}"
            self.last_rid_sql = f"SELECT last FROM _peers_span WHERE tbl = {number} ORDER BY first DESC LIMIT 1"
        else:
            self.locate_sql = f"SELECT {rowid} FROM {self._name} WHERE {key_match}"
            self.last_rid_sql = f"SELECT max({rowid}) FROM {self._name}"
        self._cell_types = [self._allowed_types(position) for position in range(self.width)]
        self._numeric_keys = frozenset(p for p in self.key if not table.strict and affinity(table.columns[p].type) == "INTEGER")

    def update_sql(self, positions: tuple[int, ...]) -> str:
        """UPDATE of these columns of one row; takes the values and then the row's address."""
        sql = self._updates.get(positions)
        if sql is None:
            assignments = ", ".join(f"{self._columns[position]} = ?" for position in positions)
            sql = self._updates[positions] = f"UPDATE {self._name} SET {assignments} WHERE {self._where}"
        return sql

    def address(self, rid: int, key: Row) -> Row:
        """What finds a row in the application's table."""
        return key if self.has_locator else (rid,)

    def key_of(self, row: Sequence[SQLValue]) -> Row:
        """The key's values, in key order, of a whole row."""
        return tuple([row[position] for position in self.key])

    def pack_key(self, key: Row) -> bytes:
        """The key as _peers_delete and _peers_aside hold it."""
        return canonical.encode(list(key))

    def check_cells(self, position: int, cells: Iterable[SQLValue]) -> None:
        """Checks that a column can hold these values and, in a key column, that it stores them unchanged.

        What a change cannot write may lose against another change and never be written: so this is judged for each value by
        itself, or replicas would judge by the order of arrival.

        Raises:
            RemoteProtocolError: BAD_BODY.
        """
        allowed = self._cell_types[position]
        if allowed is _ALL:
            return
        if not set(map(type, cells)) <= allowed:
            raise bad_body("a value that its column cannot hold")
        if position in self._numeric_keys and any(type(cell) is str and _NUMBER.fullmatch(cell) for cell in cells):
            raise bad_body("a key that its column would change")

    def _allowed_types(self, position: int) -> frozenset[type]:
        column = self.table.columns[position]
        allowed = _STRICT_TYPES.get(column.type.upper(), _ALL) if self.table.strict else _ALL
        if position in self.key:
            allowed -= {_NONE, float}
            if not self.table.strict and affinity(column.type) == "TEXT":
                allowed -= {int}
        elif column.not_null:
            allowed -= {_NONE}
        return _ALL if allowed == _ALL else allowed


def rowid_name(table: Table) -> str | None:
    """A name for SQLite's row id that no column takes; None if there is none."""
    if table.without_rowid:
        return None
    taken = {fold(column.name) for column in table.columns}
    return next((name for name in ROWID_NAMES if name not in taken), None)


def affinity(type_text: str) -> str:
    """The affinity that SQLite gives a declared type (SQLite, "Datatypes", 3.1)."""
    upper = type_text.upper()
    for name, parts in (("INTEGER", ("INT",)), ("TEXT", ("CHAR", "CLOB", "TEXT")), ("BLOB", ("BLOB",))):
        if any(part in upper for part in parts):
            return name
    if not upper:
        return "BLOB"
    return "REAL" if any(part in upper for part in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def missing_value(column: Column, *, strict: bool) -> SQLValue:
    """What a column shows that was never written: the same on every replica.

    A literal default as SQLite stores it. Where that is not possible (`uuid7()`, which would differ between replicas; a literal
    that a STRICT column cannot hold; no client can add either to a table) NULL, or the type's zero under NOT NULL.
    """
    if column.default.kind == _DEFAULT_LITERAL:
        scratch: Any = apsw.Connection(":memory:")
        try:
            scratch.execute(f"CREATE TABLE t ({column_sql(column, not_null=column.not_null)}){' STRICT' if strict else ''}")
            scratch.execute("INSERT INTO t DEFAULT VALUES")
            value: SQLValue = scratch.execute("SELECT * FROM t").fetchone()[0]
        except apsw.ConstraintError:
            pass
        else:
            return value
        finally:
            scratch.close(force=True)
    return _ZERO.get(column.type.upper() if strict else "", "") if column.not_null else None


def bad_body(detail: str) -> RemoteProtocolError:
    """The error for a changeset that its tables cannot take; `detail` has no row data."""
    return RemoteProtocolError(CloseCode.BAD_BODY, detail)
