"""A scratch copy of a group's schema in memory: what a client's schema statement does to it, and what SQLite makes of that.

The pragmas tell what a table is; the bytecode that SQLite compiles for writing to it tells the rest (CHECK, ON CONFLICT).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import apsw

from peersd.errors import PeersdError
from peersd.store import ddl, limits
from peersd.store.changes import SQLValue
from peersd.store.database import open_scratch
from peersd.store.sql_errors import SQLITE_FAILURES, convert_sqlite_error, schema_refused, sql_refused
from peersd.store.statements import execute_single
from peersd_protocol.schema import Schema

_SENTINEL: Final = "00000000-0000-7000-8000-000000000000"
"""What uuid7() gives on a scratch copy."""

_REFUSED_ACTIONS: Final[dict[int, tuple[str, str]]] = {
    **dict.fromkeys(
        (
            apsw.SQLITE_CREATE_TEMP_TABLE,
            apsw.SQLITE_CREATE_TEMP_INDEX,
            apsw.SQLITE_CREATE_TEMP_TRIGGER,
            apsw.SQLITE_CREATE_TEMP_VIEW,
        ),
        ("Temporary tables, indexes, triggers and views are not shared.", "Create an ordinary table, or use WITH in the query."),
    ),
    apsw.SQLITE_CREATE_VIEW: ("Views are not supported yet.", "Send the SELECT itself as a query."),
    **dict.fromkeys(
        (apsw.SQLITE_CREATE_TRIGGER, apsw.SQLITE_DROP_TRIGGER, apsw.SQLITE_DROP_TEMP_TRIGGER),
        ("Triggers are not supported yet.", "Write what the trigger would do in the same sql.transaction."),
    ),
    **dict.fromkeys(
        (apsw.SQLITE_CREATE_VTABLE, apsw.SQLITE_DROP_VTABLE),
        ("Virtual tables are not supported yet.", "Create an ordinary table."),
    ),
    **dict.fromkeys(
        (
            apsw.SQLITE_DROP_TABLE,
            apsw.SQLITE_DROP_INDEX,
            apsw.SQLITE_DROP_VIEW,
            apsw.SQLITE_DROP_TEMP_TABLE,
            apsw.SQLITE_DROP_TEMP_INDEX,
            apsw.SQLITE_DROP_TEMP_VIEW,
        ),
        (
            "DROP is not supported: other devices may still write to what it names.",
            "Leave it in place; DELETE FROM empties a table.",
        ),
    ),
}

_ADMITTED_ACTIONS: Final = frozenset(
    {
        apsw.SQLITE_CREATE_TABLE,
        apsw.SQLITE_CREATE_INDEX,
        apsw.SQLITE_ALTER_TABLE,
        apsw.SQLITE_INSERT,
        apsw.SQLITE_UPDATE,
        apsw.SQLITE_DELETE,
        apsw.SQLITE_READ,
        apsw.SQLITE_SELECT,
        apsw.SQLITE_FUNCTION,
        apsw.SQLITE_REINDEX,
    }
)

_DEFINING_ACTIONS: Final = frozenset({apsw.SQLITE_CREATE_TABLE, apsw.SQLITE_CREATE_INDEX, apsw.SQLITE_ALTER_TABLE})


@dataclass(frozen=True)
class ColumnInfo:
    """A row of PRAGMA table_xinfo, with the collation."""

    name: str
    type: str
    not_null: bool
    has_default: bool
    hidden: int
    """0 for an ordinary column, 2 and 3 for generated ones."""
    collation: str
    autoincrement: bool


@dataclass(frozen=True)
class ReferencesInfo:
    """A foreign key: positions of its columns, the table and columns referred to, its actions."""

    columns: tuple[int, ...]
    table: str
    targets: tuple[str | None, ...]
    on_update: str
    on_delete: str


@dataclass(frozen=True)
class TableInfo:
    """What the pragmas say of a table."""

    columns: tuple[ColumnInfo, ...]
    key: tuple[tuple[int, bool, str], ...]
    """(column position, descending, collation) for each column of the key, in order."""
    without_rowid: bool
    strict: bool
    unique: bool
    """Whether a UNIQUE constraint made an index beside the key's."""
    references: tuple[ReferencesInfo, ...]

    @property
    def names(self) -> list[str]:
        """The columns' names."""
        return [column.name for column in self.columns]


class Scratch:
    """A copy of the schema in memory, the authorizer on it, and what it saw."""

    def __init__(self, schema: Schema) -> None:
        self.connection = open_scratch(uuid7=lambda: _SENTINEL)
        self.connection.limit(apsw.SQLITE_LIMIT_SQL_LENGTH, limits.SCHEMA_SQL_BYTES_MAX * 4)
        self._recorded: list[tuple[int, str | None, str | None]] | None = None
        self._refusal: PeersdError | None = None
        self.connection.set_authorizer(self._authorize)
        try:
            for sql in ddl.create_schema_sql(schema):
                self.connection.execute(sql)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the copy. The authorizer is a method of this object, so it is taken off to break the cycle."""
        self.connection.set_authorizer(None)
        self.connection.close(force=True)

    def _authorize(self, action: int, third: str | None, fourth: str | None, database: str | None, trigger: str | None) -> int:
        if self._recorded is None:
            return apsw.SQLITE_OK
        self._recorded.append((action, third, fourth))
        refusal = _REFUSED_ACTIONS.get(action)
        if refusal is not None:
            self._refusal = self._refusal or schema_refused(*refusal)
            return apsw.SQLITE_DENY
        if action in _ADMITTED_ACTIONS or (action == apsw.SQLITE_PRAGMA and third == "quick_check" and self._is_altering()):
            return apsw.SQLITE_OK
        self._refusal = self._refusal or _no_schema_statement()
        return apsw.SQLITE_DENY

    def _is_altering(self) -> bool:
        """Whether ALTER TABLE is being compiled, which looks by itself whether existing rows meet a new column's rules."""
        return any(action == apsw.SQLITE_ALTER_TABLE for action, _, _ in self._recorded or ())

    def run_client(self, sql: str) -> frozenset[int]:
        """Runs the client's statement, once it is known to be one about the schema, and returns the authorizer's actions."""
        self._recorded, self._refusal = [], None
        try:
            execute_single(self.connection, sql, (), self._check_kind).fetchall()
            return frozenset(action for action, _, _ in self._recorded)
        except SQLITE_FAILURES as error:
            raise self._explain(error) from error
        finally:
            self._recorded = None

    def _explain(self, error: Exception) -> PeersdError:
        """Why a statement did not run: our refusal, a rule of SQLite's for what was to be made, or SQLite's error."""
        assert self._recorded is not None
        if self._refusal is not None:
            return self._refusal
        if isinstance(error, apsw.SQLError) and self._is_altering():
            # SQLite found the table and then objected to the column: UNIQUE, PRIMARY KEY, a default that is no constant.
            return schema_refused(f"{error}.", "Add a column that is no key, not UNIQUE, and NULL or with a literal default.")
        return convert_sqlite_error(error)

    def _check_kind(self, cursor: apsw.Cursor) -> None:
        """Refuses what is not about the schema, after it was prepared and before it runs."""
        assert self._recorded is not None
        actions = {action for action, _, _ in self._recorded}
        if apsw.SQLITE_CREATE_TABLE in actions and apsw.SQLITE_SELECT in actions:
            raise schema_refused(
                "CREATE TABLE … AS SELECT is not supported.", "Create the table with a key, then INSERT … SELECT."
            )
        if cursor.is_explain or (actions and not actions & _DEFINING_ACTIONS):
            # CREATE INDEX IF NOT EXISTS of a taken name asks for nothing at all.
            raise _no_schema_statement()

    def objects(self) -> dict[tuple[str, str], str | None]:
        """(kind, name) -> SQL text as SQLite keeps it, of everything in the scratch database."""
        return {
            (str(kind), str(name)): sql
            for kind, name, sql in self.connection.execute("SELECT type, name, sql FROM sqlite_schema")
        }

    def describe(self, table: str) -> TableInfo:
        """Reads a table's definition from the pragmas."""
        execute = self.connection.execute
        columns = []
        for name, type_text, not_null, default, hidden in execute(
            'SELECT name, type, "notnull", dflt_value, hidden FROM pragma_table_xinfo(?) ORDER BY cid', (table,)
        ):
            _, collation, _, _, autoincrement = self.connection.column_metadata("main", table, name)
            columns.append(ColumnInfo(name, type_text, bool(not_null), default is not None, hidden, collation, autoincrement))
        kind, without_rowid, strict = execute(
            "SELECT type, wr, strict FROM pragma_table_list WHERE schema = 'main' AND name = ? COLLATE NOCASE", (table,)
        ).fetchall()[0]
        if kind != "table":
            raise schema_refused("Only ordinary tables are supported.", "Create an ordinary table.")
        key: tuple[tuple[int, bool, str], ...] = ()
        unique = False
        for index, origin in execute("SELECT name, origin FROM pragma_index_list(?)", (table,)).fetchall():
            if origin == "pk":
                key = self.index_columns(str(index))
            unique = unique or origin == "u"
        if not key:
            # The key of a rowid table that is its rowid has no index.
            key = tuple(
                (position, False, "BINARY")
                for (position,) in execute("SELECT cid FROM pragma_table_xinfo(?) WHERE pk > 0 ORDER BY pk", (table,))
            )
        return TableInfo(tuple(columns), key, bool(without_rowid), bool(strict), unique, self._references(table))

    def index_columns(self, index: str) -> tuple[tuple[int, bool, str], ...]:
        """(column position, -1 for the rowid, -2 for an expression; descending; collation) of an index's key columns."""
        rows = self.connection.execute('SELECT cid, "desc", coll FROM pragma_index_xinfo(?) WHERE key ORDER BY seqno', (index,))
        return tuple((cid, bool(descending), collation) for cid, descending, collation in rows)

    def _references(self, table: str) -> tuple[ReferencesInfo, ...]:
        positions = {
            name.lower(): cid for cid, name in self.connection.execute("SELECT cid, name FROM pragma_table_xinfo(?)", (table,))
        }
        found: dict[int, list[tuple[str, str, str | None, str, str]]] = {}
        for number, *rest in self.connection.execute(
            'SELECT id, "table", "from", "to", on_update, on_delete FROM pragma_foreign_key_list(?) ORDER BY id, seq', (table,)
        ):
            found.setdefault(number, []).append(tuple(rest))
        return tuple(
            ReferencesInfo(
                tuple(positions[row[1].lower()] for row in rows),
                rows[0][0],
                tuple(row[2] for row in rows),
                rows[0][3],
                rows[0][4],
            )
            for rows in found.values()
        )

    def functions_in_default(self, table: str, column: str, columns: list[str]) -> frozenset[str]:
        """The SQL functions that a column's default calls: those that an INSERT leaving out this column alone asks for."""
        self._recorded = []
        try:
            # Preparing is enough; the bytecode is not read, since it could hold text that is not UTF-8.
            sql = insert_sql(table, [name for name in columns if name != column])
            self.connection.execute(sql, (None,) if len(columns) > 1 else (), can_cache=False, explain=1).close(force=True)
            return frozenset((name or "").lower() for action, _, name in self._recorded if action == apsw.SQLITE_FUNCTION)
        finally:
            self._recorded = None

    def bytecode(self, sql: str, *, binds: bool) -> list[tuple[object, ...]]:
        """What SQLite compiles a statement to; `binds` if it has a parameter 1, as a name may look like one, too."""
        rows = self.connection.execute(sql, (None,) if binds else (), can_cache=False, explain=1)
        # addr, opcode, p1 to p5. Transaction carries the schema's change counter in p3. Column has in p4 the default of a column
        # that an old row may lack; defaults are compared by themselves.
        masked = {"Transaction": 4, "Column": 5}
        return [tuple(None if at == masked.get(str(row[1])) else part for at, part in enumerate(row[:7])) for row in rows]

    def behaviour(self, table: str, columns: list[str]) -> list[list[tuple[object, ...]]]:
        """The bytecode of writing to the table with every column given, and of dropping it.

        CHECK, NOT NULL, ON CONFLICT, the key, collations and affinities are all in the first two. Deferred references show in
        the third alone, since the tables referred to need not exist.

        Raises:
            PeersdError: `schema_refused`: the table cascades to itself and refers to what is absent, so the third cannot be had.
        """
        assignments = ", ".join(f"{ddl.quote_name(name)} = ?1" for name in columns)
        found = [
            self.bytecode(insert_sql(table, columns), binds=True),
            self.bytecode(f"UPDATE {ddl.quote_name(table)} SET {assignments}", binds=True),
        ]
        self.connection.pragma("foreign_keys", True)
        try:
            found.append(self.bytecode(f"DROP TABLE {ddl.quote_name(table)}", binds=False))
        except apsw.SQLError as error:
            raise schema_refused(
                f"SQLite cannot resolve the references: {error}.",
                "Create the tables referred to first, or leave REFERENCES out: it is not enforced.",
            ) from error
        finally:
            self.connection.pragma("foreign_keys", False)
        return found

    def default_values(self, table: str, info: TableInfo) -> dict[str, SQLValue]:
        """Every column's default as SQLite stores it, found by inserting a row that gives the key columns only."""
        given = {
            info.columns[position].name: key_sample(info.columns[position].type)
            for position, _, _ in info.key
            if not info.columns[position].has_default
        }
        names = ", ".join(ddl.quote_name(name) for name in given)
        values = ", ".join(ddl.literal_sql(value) for value in given.values())
        into = f"({names}) VALUES ({values})" if given else "DEFAULT VALUES"
        cursor = self.connection.execute(f"INSERT INTO {ddl.quote_name(table)} {into}")
        row = cursor.execute(f"SELECT * FROM {ddl.quote_name(table)}").fetchall()[0]
        self.connection.execute(f"DELETE FROM {ddl.quote_name(table)}")
        return {column.name: value for column, value in zip(info.columns, row, strict=True)}


def insert_sql(table: str, columns: list[str]) -> str:
    """INSERT that gives the named columns parameter 1 and leaves the others to their defaults."""
    if not columns:
        return f"INSERT INTO {ddl.quote_name(table)} DEFAULT VALUES"
    names = ", ".join(ddl.quote_name(name) for name in columns)
    return f"INSERT INTO {ddl.quote_name(table)} ({names}) VALUES ({', '.join(['?1'] * len(columns))})"


def _no_schema_statement() -> PeersdError:
    return sql_refused("This is not a schema statement.", "Send one CREATE TABLE, CREATE INDEX or ALTER TABLE … ADD COLUMN.")


def key_sample(type_text: str) -> SQLValue:
    """A value that a key column of this type takes, or None when it can be no key: by SQLite's affinity of the type."""
    upper = type_text.upper()
    if "INT" in upper:
        return 0
    if any(part in upper for part in ("CHAR", "CLOB", "TEXT")):
        return ""
    return b"" if "BLOB" in upper else None
