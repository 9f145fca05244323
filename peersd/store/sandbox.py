"""The default-deny authorizer that client SQL runs under: explicit lists of what is admitted, one mode variable (DESIGN 8).

Authorization happens when a statement is prepared. The authorizer is set once per connection, since setting it again
re-prepares every cached statement; `Sandbox.mode` decides what it says. Client SQL must never share a cached statement with
our own SQL (see client_sql.py).
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from types import TracebackType
from typing import Final

import apsw

from peersd.errors import PeersdError
from peersd.store.sql_errors import schema_refused, sql_refused

RESERVED_PREFIXES: Final = ("_peers_", "peers_", "sqlite_")
"""Names that no application table may have."""


class Mode(enum.Enum):
    """Whose SQL is being prepared."""

    INTERNAL = "internal"
    """Ours: everything is admitted."""
    READ = "read"
    """A client's query: SELECT over application tables."""
    WRITE = "write"
    """A client's write: also INSERT, UPDATE, DELETE of application tables."""
    CLASSIFY = "classify"
    """A client's statement that is prepared and never run: as WRITE, and statements that define a schema prepare too."""


TABLE_FUNCTIONS: Final = frozenset({"json_each", "json_tree", "jsonb_each", "jsonb_tree"})
"""Table-valued functions that only read their arguments."""

_SCALAR: Final = """
-> ->> abs acos acosh asin asinh atan atan2 atanh ceil ceiling changes char coalesce concat concat_ws cos cosh current_date
current_time current_timestamp date datetime degrees exp floor format glob hex if ifnull iif instr json json_array
json_array_insert json_array_length json_error_position json_extract json_insert json_object json_patch json_pretty json_quote
json_remove json_replace json_set json_type json_valid jsonb jsonb_array jsonb_array_insert jsonb_extract jsonb_insert
jsonb_object jsonb_patch jsonb_remove jsonb_replace jsonb_set julianday last_insert_rowid length like likelihood likely ln log
log10 log2 lower ltrim max min mod nullif octet_length pi pow power printf quote radians random randomblob replace round rtrim
sign sin sinh soundex sqlite_version sqrt strftime substr substring tan tanh time timediff total_changes trim trunc typeof
unhex unicode unistr unistr_quote unixepoch unlikely upper uuid7 zeroblob
"""
_AGGREGATE: Final = """
avg count cume_dist dense_rank first_value group_concat json_group_array json_group_object jsonb_group_array jsonb_group_object
lag last_value lead max median min nth_value ntile percent_rank percentile percentile_cont percentile_disc rank row_number
string_agg sum total
"""
FUNCTIONS: Final = frozenset((_SCALAR + _AGGREGATE).split())
"""SQL functions that depend on their arguments, the clock, chance or this connection's last change, and touch nothing else.
Left out on purpose: load_extension, fts3_tokenizer, fts5 and rtree internals, sqlite_log, sqlite_compileoption_*."""

_SCHEMA_ACTIONS: Final = frozenset(
    {
        apsw.SQLITE_ALTER_TABLE,
        apsw.SQLITE_CREATE_INDEX,
        apsw.SQLITE_CREATE_TABLE,
        apsw.SQLITE_CREATE_TEMP_INDEX,
        apsw.SQLITE_CREATE_TEMP_TABLE,
        apsw.SQLITE_CREATE_TEMP_TRIGGER,
        apsw.SQLITE_CREATE_TEMP_VIEW,
        apsw.SQLITE_CREATE_TRIGGER,
        apsw.SQLITE_CREATE_VIEW,
        apsw.SQLITE_CREATE_VTABLE,
        apsw.SQLITE_DROP_INDEX,
        apsw.SQLITE_DROP_TABLE,
        apsw.SQLITE_DROP_TEMP_INDEX,
        apsw.SQLITE_DROP_TEMP_TABLE,
        apsw.SQLITE_DROP_TEMP_TRIGGER,
        apsw.SQLITE_DROP_TEMP_VIEW,
        apsw.SQLITE_DROP_TRIGGER,
        apsw.SQLITE_DROP_VIEW,
        apsw.SQLITE_DROP_VTABLE,
    }
)
_ROW_ACTIONS: Final = frozenset({apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE})
_SCHEMA_TABLES: Final = frozenset({"sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"})
_ROWID: Final = "ROWID"
"""What SQLite names any spelling of the rowid to an authorizer."""


class Sandbox:
    """The authorizer of one connection. `install` it before any client's SQL is prepared, for the connection's life.

    Attributes:
        mode: whose SQL is prepared now; INTERNAL except within `enter`.
        changes_rows: whether what was prepared since `enter` writes rows.
        changes_schema: whether it defines or drops tables, indexes, views or triggers.
        reads: whether it has a SELECT.
        admitted_writes: texts that were prepared as WRITE since the tables were stated, each with the one statement in it and the
            names of its result columns (see client_sql.py).
    """

    def __init__(self) -> None:
        self.mode = Mode.INTERNAL
        self.changes_rows = False
        self.changes_schema = False
        self.reads = False
        self.admitted_writes: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._refusal: PeersdError | None = None
        self._writable: frozenset[str] = frozenset()
        self._readable: frozenset[str] = TABLE_FUNCTIONS
        self._modules: frozenset[str] = frozenset()

    def install(self, connection: apsw.Connection) -> None:
        """Sets the authorizer on the connection."""
        modules = {str(name).lower() for (name,) in connection.execute("SELECT name FROM pragma_module_list")}
        self._modules = frozenset(modules) - TABLE_FUNCTIONS
        connection.set_authorizer(self._authorize)

    def admit_tables(self, tables: Collection[str], read_only: Collection[str] = ()) -> None:
        """States which tables exist for clients, in place of what was stated before.

        Args:
            tables: application tables, that may be read and written. The projection calls this when the schema changed.
            read_only: further tables of ours that may be read, such as `peers_groups`.
        """
        self.admitted_writes.clear()
        self._writable = frozenset(name.lower() for name in tables)
        self._readable = self._writable | {name.lower() for name in read_only} | TABLE_FUNCTIONS

    def enter(self, mode: Mode) -> Sandbox:
        """Prepares what runs within the context that this returns under a client's mode.

        Raises:
            PeersdError: on leaving; the refusal, in place of SQLite's bare "not authorized", when a statement within was denied.
        """
        assert self.mode is Mode.INTERNAL, "a client's statement is running already"
        self.mode = mode
        self.changes_rows = self.changes_schema = self.reads = False
        self._refusal = None
        return self

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.mode = Mode.INTERNAL
        # Not AuthError alone: where SQLite finds the denied thing while it compiles, it can word the error differently.
        if self._refusal is not None and isinstance(error, apsw.Error):
            raise self._refusal from error

    def _deny(self, refusal: PeersdError) -> int:
        self._refusal = self._refusal or refusal
        return apsw.SQLITE_DENY

    def _authorize(self, action: int, third: str | None, fourth: str | None, database: str | None, source: str | None) -> int:
        """SQLite's callback; `third` and `fourth` depend on the action (sqlite.org/c3ref/c_alter_table.html)."""
        if self.mode is Mode.INTERNAL:
            return apsw.SQLITE_OK
        if action == apsw.SQLITE_READ:
            return self._authorize_read(third or "", fourth or "", database)
        if action == apsw.SQLITE_SELECT:
            self.reads = True
            return apsw.SQLITE_OK
        if action == apsw.SQLITE_RECURSIVE:
            return apsw.SQLITE_OK
        if action == apsw.SQLITE_FUNCTION:
            name = (fourth or "").lower()
            if name in FUNCTIONS or self.changes_schema:
                # What a schema statement calls is judged by the planner.
                return apsw.SQLITE_OK
            return self._deny(sql_refused(f"The function {name} is not admitted.", "Use SQLite's ordinary functions."))
        if action in _ROW_ACTIONS:
            return self._authorize_write(action, third or "", fourth or "", database)
        if action in _SCHEMA_ACTIONS or action == apsw.SQLITE_REINDEX:
            return self._authorize_schema(action)
        return self._deny(_refusal_of_other(action, third))

    def _authorize_read(self, table: str, column: str, database: str | None) -> int:
        name = table.lower()
        if self.changes_schema and name in _SCHEMA_TABLES:
            return apsw.SQLITE_OK  # ALTER TABLE and CREATE INDEX read it by themselves; only CLASSIFY comes this far.
        if database in ("main", None) and name in self._readable:
            return apsw.SQLITE_OK
        # 'No column read' comes without a database, for the name of a CTE as well as for a table's. Every table that is
        # not an application's has a reserved prefix or is a module, so what is neither can only be a CTE.
        if not column and database is None and name not in self._modules and not name.startswith((*RESERVED_PREFIXES, "pragma_")):
            return apsw.SQLITE_OK
        return self._deny(sql_refused(f"{table} is not one of the group's tables.", "schema.show lists the tables."))

    def _authorize_write(self, action: int, table: str, column: str, database: str | None) -> int:
        name = table.lower()
        if self.mode is Mode.CLASSIFY and name in _SCHEMA_TABLES:
            # SQLite asks for this before it says CREATE or ALTER; a direct write to it is an error of SQLite's own.
            return apsw.SQLITE_OK
        self.changes_rows = True
        if self.mode is Mode.READ:
            return self._deny(sql_refused("A query cannot write.", "Send it with sql.execute or sql.transaction."))
        if name in _SCHEMA_TABLES:
            return self._deny(schema_refused("A schema statement cannot run here.", "Send it alone, with sql.execute."))
        if database != "main" or name not in self._writable:
            return self._deny(
                sql_refused(f"{table} cannot be written.", "Write to the group's own tables; schema.show lists them.")
            )
        if action == apsw.SQLITE_UPDATE and column == _ROWID:
            return self._deny(sql_refused("The rowid cannot be updated.", "It is this device's own; use the primary key."))
        return apsw.SQLITE_OK

    def _authorize_schema(self, action: int) -> int:
        if action != apsw.SQLITE_REINDEX:
            self.changes_schema = True
        elif not self.changes_schema:
            return self._deny(_refusal_of_other(action, None))
        if self.mode is Mode.CLASSIFY:
            return apsw.SQLITE_OK
        if self.mode is Mode.READ:
            return self._deny(sql_refused("A query cannot change the schema.", "Send it with sql.execute."))
        return self._deny(
            schema_refused(
                "A schema statement cannot be part of a transaction.", "Send it alone, with sql.execute, before the transaction."
            )
        )


def _refusal_of_other(action: int, third: str | None) -> PeersdError:
    """Why an action is refused that clients never need."""
    if action in (apsw.SQLITE_TRANSACTION, apsw.SQLITE_SAVEPOINT):
        return sql_refused(
            "Transaction and savepoint statements are not admitted.", "Send the statements together, with sql.transaction."
        )
    if action == apsw.SQLITE_PRAGMA:
        return sql_refused(f"PRAGMA {third} is not admitted.", "schema.show describes tables and columns.")
    if action in (apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH):
        return sql_refused(
            "ATTACH, DETACH and VACUUM are not admitted.", "Each group is a file of its own; read them one by one."
        )
    return sql_refused("This statement is not admitted.", "Send a SELECT, INSERT, UPDATE or DELETE on the group's tables.")
