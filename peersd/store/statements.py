"""Exactly one client statement per text: prepared, checked that nothing follows it, and only then run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import apsw

from peersd.store.sql_errors import sql_refused
from peersd_protocol.canonical import Value

Bound = Sequence[Value] | Mapping[str, Value]
"""A list for `?`, an object for `:name`."""

Params = Bound | None
"""The same, or None for none."""

_BLANK: Final = " \t\r\n\f;"
_ONE_STATEMENT: Final = "Send one statement per sql; sql.transaction takes several."


def execute_single(
    connection: apsw.Connection, sql: str, params: Params, before_run: Callable[[apsw.Cursor], None] | None = None
) -> apsw.Cursor:
    """Prepares one statement and runs it up to its first row.

    Args:
        connection: where it runs.
        sql: the client's text.
        params: what its parameters are bound to.
        before_run: called when the statement is prepared and bound, before its first step; what it raises stops it.

    Returns:
        A cursor on the rows.

    Raises:
        PeersdError: `sql_refused` for no statement, or more than one.
        apsw.Error, TypeError, ValueError, KeyError, OverflowError: what APSW raises for a wrong statement or params.
    """
    started = False

    def trace(cursor: apsw.Cursor, text: str, _bindings: object) -> bool:
        nonlocal started
        if started:
            # Comments after the statement come here too, as a statement without code; check_rest has seen all of it.
            return True
        started = True
        if not cursor.has_vdbe:
            raise sql_refused("There is no statement in sql.", "Send one SQL statement.")
        _check_rest(connection, sql[len(text) :])
        if before_run is not None:
            before_run(cursor)
        return True

    cursor = connection.cursor()
    cursor.set_exec_trace(trace)
    # Not from the cache: it is keyed by text, and would hand out a statement that was authorized in another mode.
    cursor.execute(sql, _bindings(params), can_cache=False)
    return cursor


def find_single(connection: apsw.Connection, sql: str, params: Params, look: Callable[[apsw.Cursor], None] | None = None) -> str:
    """Prepares one statement without running it and returns its text, without what follows it.

    Args:
        connection: where it is prepared.
        sql: the client's text.
        params: what its parameters are bound to.
        look: called with the prepared statement.

    Raises:
        as `execute_single`.
    """
    found: list[str] = []

    def trace(cursor: apsw.Cursor, text: str, _bindings: object) -> bool:
        if not cursor.has_vdbe:
            raise sql_refused("There is no statement in sql.", "Send one SQL statement.")
        _check_rest(connection, sql[len(text) :])
        if look is not None:
            look(cursor)
        found.append(text)
        return False

    cursor = connection.cursor()
    cursor.set_exec_trace(trace)
    with contextlib.suppress(apsw.ExecTraceAbort):
        cursor.execute(sql, _bindings(params), can_cache=False)
    return found[0].rstrip(_BLANK)


def _bindings(params: Params) -> Any:
    """The parameters; APSW checks their types, and its declared type is none that a checker can see through."""
    return () if params is None else params


def _check_rest(connection: apsw.Connection, rest: str) -> None:
    """Refuses text after the statement unless it is blank or comments; SQLite itself says which."""
    if not rest.strip(_BLANK):
        return

    def trace(cursor: apsw.Cursor, _text: str, _bindings: object) -> bool:
        if cursor.has_vdbe:
            raise sql_refused("There is more than one statement in sql.", _ONE_STATEMENT)
        return True

    cursor = connection.cursor()
    cursor.set_exec_trace(trace)
    try:
        cursor.execute(rest, None, can_cache=False)
    except apsw.Error as error:
        raise sql_refused("There is more text after the statement.", _ONE_STATEMENT) from error
