"""The read-only connection for clients' queries, apart from the writer (DESIGN 8)."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

from peersd.errors import PeersdError
from peersd.store.client_sql import QueryResult, classify, run_query
from peersd.store.database import open_reader
from peersd.store.sandbox import Sandbox
from peersd.store.statements import Params
from peersd_protocol.schema import EMPTY, Schema

OWN_TABLE_PREFIX = "peers_"
"""Tables of ours that clients may read and not write."""


def admit_schema(sandbox: Sandbox, schema: Schema) -> None:
    """Tells a sandbox which tables there are."""
    names = [table.name for table in schema.tables]
    own = [name for name in names if name.lower().startswith(OWN_TABLE_PREFIX)]
    sandbox.admit_tables([name for name in names if name not in own], own)


class Reader:
    """One read-only connection, used by one thread at a time.

    Args:
        path: the store's file.
        clock_s: seconds of the monotonic clock that queries are given time by.
        uuid7: what the SQL function calls, or None for the real one.
        vfs: the SQLite VFS that the file is opened through; empty for SQLite's own.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        clock_s: Callable[[], float] = time.monotonic,
        uuid7: Callable[[], str] | None = None,
        vfs: str = "",
    ) -> None:
        self._connection = open_reader(path, uuid7=uuid7, vfs=vfs)
        self._clock_s = clock_s
        self._sandbox = Sandbox()
        self._sandbox.install(self._connection)
        self._schema = EMPTY

    def query(
        self,
        schema: Schema,
        sql: str,
        params: Params,
        *,
        rows_max: int,
        timeout_s: float,
        is_abandoned: Callable[[], bool] = lambda: False,
    ) -> QueryResult:
        """Runs one query of a client.

        Args:
            schema: the group's schema now.
            sql: see run_query.
            params: see run_query.
            rows_max: see run_query.
            timeout_s: how long it may run.
            is_abandoned: asked while it runs; once nobody waits for the answer any more, its time is up.

        Raises:
            PeersdError: as run_query; a `sql_refused` for a statement that sql.execute would take says which `kind` it is.
        """
        self._admit(schema)
        deadline_s = self._clock_s() + timeout_s

        def clock() -> float:
            return math.inf if is_abandoned() else self._clock_s()

        try:
            return run_query(self._connection, self._sandbox, sql, params, rows_max=rows_max, deadline_s=deadline_s, clock=clock)
        except PeersdError as error:
            if error.code in ("sql_refused", "schema_refused"):
                kind = classify(self._connection, self._sandbox, sql, params)
                if kind != "read":
                    raise PeersdError(
                        "sql_refused", "A query cannot write.", hint="Send it with sql.execute.", kind=kind
                    ) from error
            raise

    def classify(self, schema: Schema, sql: str, params: Params) -> str:
        """What kind of statement a text is; see client_sql.classify."""
        self._admit(schema)
        return classify(self._connection, self._sandbox, sql, params)

    def _admit(self, schema: Schema) -> None:
        if schema is not self._schema:
            admit_schema(self._sandbox, schema)
            self._schema = schema

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()
