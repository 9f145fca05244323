"""One writer with sandbox and capture, and a schema evaluated in the simplest way, for the tests of client SQL."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from peersd.errors import PeersdError
from peersd.store import ddl
from peersd.store.batch import Request, Success, run_batch
from peersd.store.capture import Capture
from peersd.store.changes import Row, TableChanges
from peersd.store.client_sql import Statement
from peersd.store.database import open_reader, open_writer
from peersd.store.sandbox import Sandbox
from peersd.store.schema_plan import plan_schema
from peersd_protocol.schema import EMPTY, Column, Index, Schema, Table
from peersd_protocol.schema_ops import AddColumn, ColumnDef, CreateIndex, CreateTable, SchemaOp


def evaluate(schema: Schema, ops: Sequence[SchemaOp]) -> Schema:
    """The schema after one act's operations, without any of the rules for conflicts."""
    act = hashlib.sha256(bytes([schema.version])).digest()[:16]

    def column(definition: ColumnDef, op: int, position: int) -> Column:
        d = definition
        return Column((act, op, position), d.name, d.type, d.default, d.not_null, d.references)

    for number, op in enumerate(ops):
        tables, indexes = schema.tables, schema.indexes
        if isinstance(op, CreateTable):
            columns = tuple(column(definition, number, at) for at, definition in enumerate(op.columns))
            tables = (*tables, Table((act, number), op.name, columns, op.key, op.without_rowid, op.strict))
        elif isinstance(op, AddColumn):
            added = column(op.column, number, 0)
            tables = tuple(replace(table, columns=(*table.columns, added)) if table.id == op.table else table for table in tables)
        else:
            assert isinstance(op, CreateIndex)
            indexes = (*indexes, Index((act, number), op.name, op.table, op.columns))
        schema = Schema(schema.version + 1, tables, indexes)
    return schema


def defined(*statements: str) -> Schema:
    """The schema that client statements amount to."""
    schema = EMPTY
    for sql in statements:
        schema = evaluate(schema, plan_schema(sql, schema))
    return schema


@dataclass
class Recorded:
    """A Recorder that keeps what it was given."""

    changes: dict[int, list[TableChanges]] = field(default_factory=dict)
    restarts: int = 0
    finishes: int = 0
    refuse: Callable[[int], Exception | None] = lambda index: None

    def restart(self) -> None:
        self.restarts += 1
        self.changes = {}

    def record(self, index: int, changes: list[TableChanges]) -> object:
        error = self.refuse(index)
        if error is not None:
            raise error
        self.changes[index] = changes
        return ("entry", index)

    def finish(self) -> None:
        self.finishes += 1


class Rig:
    """A store's file with its writer, a reader, and a schema made by client statements."""

    def __init__(self, folder: Path, *statements: str) -> None:
        self.path = folder / "store.db"
        self.writer = open_writer(self.path)
        self.sandbox = Sandbox()
        self.sandbox.install(self.writer)
        self.capture = Capture(self.writer)
        self.capture.install()
        self.schema = EMPTY
        self.writer.execute("CREATE TABLE _peers_secret (id INTEGER PRIMARY KEY, text TEXT)")
        self.writer.execute("CREATE TABLE peers_groups (group_id TEXT PRIMARY KEY)")
        for sql in statements:
            self.define(sql)
        self.reader = open_reader(self.path)
        self.reader_sandbox = Sandbox()
        self.reader_sandbox.install(self.reader)
        self.reader_sandbox.admit_tables([table.name for table in self.schema.tables], ["peers_groups"])

    def close(self) -> None:
        self.reader.close(force=True)
        self.writer.close(force=True)

    def define(self, sql: str) -> None:
        ops = plan_schema(sql, self.schema)
        self.schema = evaluate(self.schema, ops)
        for op in ops:
            if isinstance(op, CreateTable):
                self.writer.execute(ddl.create_table_sql(self.schema.tables[-1]))
            elif isinstance(op, AddColumn):
                table = self.schema.tables_by_id[op.table]
                self.writer.execute(ddl.add_column_sql(table, len(table.columns) - 1))
            else:
                self.writer.execute(ddl.create_index_sql(self.schema.indexes[-1], self.schema.tables_by_id[op.table]))
        self.capture.watch(self.schema.tables)
        self.sandbox.admit_tables([table.name for table in self.schema.tables], ["peers_groups"])

    def batch(
        self, *requests: Sequence[Statement | str], recorder: Recorded | None = None, timeout_s: float = 60
    ) -> tuple[list[Success | PeersdError], Recorded]:
        """Runs requests in one batch."""
        recorder = recorder or Recorded()
        deadline_s = time.monotonic() + timeout_s
        made = [Request([Statement(one) if isinstance(one, str) else one for one in request], deadline_s) for request in requests]
        return run_batch(self.writer, self.sandbox, self.capture, made, recorder), recorder

    def run(self, *statements: Statement | str) -> tuple[Success, list[TableChanges]]:
        """Runs one request that succeeds, and returns what was captured."""
        (outcome,), recorded = self.batch(statements)
        if isinstance(outcome, PeersdError):
            raise outcome
        return outcome, recorded.changes.get(0, [])

    def fail(self, *statements: Statement | str) -> PeersdError:
        """Runs one request that fails, and returns the error."""
        (outcome,), recorded = self.batch(statements)
        assert isinstance(outcome, PeersdError)
        assert recorded.changes == {}
        return outcome

    def dump(self, table: str) -> list[Row]:
        """A table's rows as they are in the file."""
        return list(self.reader.execute(f'SELECT * FROM "{table}" ORDER BY 1, 2'))


def apply_changes(rows: dict[object, Row], table: Table, changes: TableChanges) -> None:
    """Applies net changes to a table that is a mapping from key to row; fails when they do not fit it."""

    def key(row: Row) -> object:
        return tuple(row[position] for position in table.key)

    for _, old in changes.deletes:
        assert rows.pop(key(old)) == old
    for _, _, old, new in changes.updates:
        assert key(old) == key(new)
        assert rows[key(new)] == old
        rows[key(new)] = new
    for _, new in changes.inserts:
        assert key(new) not in rows
        rows[key(new)] = new


def typed(value: object) -> tuple[str, str]:
    """A value in a form that tells 1 from 1.0 and 0.0 from -0.0."""
    return type(value).__name__, repr(value)
