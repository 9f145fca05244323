"""Running one client statement: a write on the writer, a query on a reader (DESIGN 8)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, cast

import apsw

from peersd.errors import PeersdError
from peersd.store import limits
from peersd.store.changes import Row
from peersd.store.sandbox import Mode, Sandbox
from peersd.store.sql_errors import SQLITE_FAILURES, convert_sqlite_error, sql_refused
from peersd.store.statements import Bound, Params, execute_single, find_single
from peersd.store.watch import Clock, watch_statement
from peersd_protocol.constants import KIB

REMEMBERED_WRITES_MAX: Final = 100
"""Texts of writes that need not be looked at again; APSW's cache holds as many statements."""

REMEMBERED_CHARACTERS_MAX: Final = 16 * KIB
"""A text that is remembered; longer ones APSW does not keep either."""


@dataclass(frozen=True)
class Statement:
    """One statement of a client.

    Attributes:
        sql: its text; exactly one statement.
        params: what its parameters are bound to; None for none.
        params_seq: in place of `params`: the statement runs once for each.
    """

    sql: str
    params: Params = None
    params_seq: Sequence[Bound] | None = None


@dataclass(frozen=True)
class WriteResult:
    """What a write answers: the number of rows inserted, updated or deleted, and what RETURNING gave."""

    changes: int
    columns: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class QueryResult:
    """What a query answers. `truncated` tells that there were more rows than the limit, or than fit one answer."""

    columns: list[str]
    rows: list[Row]
    truncated: bool


def classify(
    connection: apsw.Connection, sandbox: Sandbox, sql: str, params: Params = None
) -> Literal["read", "write", "schema"]:
    """What kind of statement a text is, by what SQLite asks the authorizer while it compiles it. Nothing is run.

    Args:
        connection: a reader or the writer, with the sandbox's authorizer.
        sandbox: its tables admitted.
        sql: the client's text.
        params: the client's parameters.

    Returns:
        "schema" for whatever defines or drops tables, indexes, views or triggers, to be judged by `plan_schema`.

    Raises:
        PeersdError: `sql_error` or `sql_refused`: it would not run as any of the three.
    """
    readonly: list[bool] = []
    try:
        with sandbox.enter(Mode.CLASSIFY):
            find_single(connection, sql, params, lambda cursor: readonly.append(cursor.is_readonly))
    except PeersdError:
        if not sandbox.changes_schema:
            raise
    except SQLITE_FAILURES as error:
        if not sandbox.changes_schema:
            raise convert_sqlite_error(error) from error
    if sandbox.changes_schema:
        return "schema"
    if sandbox.changes_rows:
        return "write"
    # CREATE INDEX IF NOT EXISTS of a taken name, and DROP … IF EXISTS of nothing, ask for nothing.
    return "read" if sandbox.reads or readonly == [True] else "schema"


def run_write(connection: apsw.Connection, sandbox: Sandbox, statement: Statement) -> WriteResult:
    """Runs one client statement on the writer, inside the transaction and the savepoint that the caller opened, under its watch.

    Raises:
        PeersdError: `sql_error`, `sql_refused`, `schema_refused` (a schema statement), `too_large`, `store_full` …; after any of
            them the caller rolls back, and looks whether the transaction is still there.
    """
    changes_before = connection.total_changes()
    columns: list[str] = []
    rows: list[Row] = []
    try:
        with sandbox.enter(Mode.WRITE):
            cursor = connection.cursor()
            if statement.params_seq is None:
                text, names = _find_write(connection, sandbox, statement.sql, statement.params)
                columns = list(names)
                cursor.execute(text, cast("apsw.Bindings", statement.params or ()))
                rows, more = _fetch(cursor, limits.RETURNING_ROWS_MAX, limits.ANSWER_BYTES_MAX)
                if more:
                    cursor.close()
                    raise PeersdError(
                        "too_large",
                        "The statement returns too many rows.",
                        hint="Write fewer rows at a time, or leave RETURNING out.",
                    )
            elif statement.params_seq:
                text, _ = _find_write(connection, sandbox, statement.sql, statement.params_seq[0])
                for _ in cursor.executemany(text, cast("Iterable[apsw.Bindings]", statement.params_seq)):
                    pass  # what RETURNING gives is dropped
    except apsw.InterruptError:
        raise  # The watch knows why.
    except SQLITE_FAILURES as error:
        raise convert_sqlite_error(error) from error
    return WriteResult(connection.total_changes() - changes_before, columns, rows)


def _find_write(connection: apsw.Connection, sandbox: Sandbox, sql: str, params: Params) -> tuple[str, tuple[str, ...]]:
    """The one statement in a client's text, and the names of its result columns, after the sandbox admitted it.

    A text is prepared for this once and remembered, or every statement would be compiled anew; what is returned may be run from
    APSW's cache. A statement of ours with this very text may be in there, but the client was found to be allowed just that.
    """
    found = sandbox.admitted_writes.get(sql)
    if found is None:
        names: list[str] = []
        text = find_single(connection, sql, params, lambda prepared: names.extend(_columns(prepared)))
        found = text, tuple(names)
        if len(sql) <= REMEMBERED_CHARACTERS_MAX:
            if len(sandbox.admitted_writes) >= REMEMBERED_WRITES_MAX:
                sandbox.admitted_writes.clear()
            sandbox.admitted_writes[sql] = found
    return found


def run_query(
    reader: apsw.Connection,
    sandbox: Sandbox,
    sql: str,
    params: Params = None,
    *,
    rows_max: int = 10_000,
    deadline_s: float,
    clock: Clock = time.monotonic,
) -> QueryResult:
    """Runs one client query on a reader.

    Args:
        reader: a read-only connection with the sandbox's authorizer.
        sandbox: its tables admitted.
        sql: one SELECT, VALUES, WITH … SELECT or EXPLAIN.
        params: its parameters.
        rows_max: rows to answer at most.
        deadline_s: on `clock`.
        clock: injected in simulations.

    Raises:
        PeersdError: `sql_refused` for writes and what else the sandbox does not admit, `sql_error`, `timeout`, `too_large` …
    """
    try:
        with watch_statement(reader, deadline_s, clock=clock), sandbox.enter(Mode.READ):
            columns: list[str] = []

            def before_run(prepared: apsw.Cursor) -> None:
                if not prepared.is_readonly:
                    raise sql_refused("A query cannot write.", "Send it with sql.execute or sql.transaction.")
                columns.extend(_columns(prepared))

            cursor = execute_single(reader, sql, params, before_run)
            try:
                rows, more = _fetch(cursor, rows_max, limits.ANSWER_BYTES_MAX)
            finally:
                # An unfinished SELECT would hold its snapshot, and the WAL could not shrink.
                cursor.close(force=True)
    except SQLITE_FAILURES as error:
        raise convert_sqlite_error(error) from error
    return QueryResult(columns, rows, more)


def _columns(cursor: apsw.Cursor) -> list[str]:
    """Names of a prepared statement's result columns; asked for before it runs, since APSW forgets them at the last row."""
    return [str(column[0]) for column in cursor.get_description()]


def _fetch(cursor: apsw.Cursor, rows_max: int, bytes_max: int) -> tuple[list[Row], bool]:
    """Rows until there are no more, or a bound is met; and whether there were more."""
    rows: list[Row] = []
    size = 0
    for row in cursor:
        size += sum(len(value) if isinstance(value, str | bytes) else 8 for value in row)
        if len(rows) >= rows_max or size > bytes_max:
            return rows, True
        rows.append(row)
    return rows, False
