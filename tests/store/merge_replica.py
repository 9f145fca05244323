"""A replica for tests of the merge: real SQLite in memory, a log of ranks, and capture by comparing tables before and after."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import apsw

from peersd.store.applying import Rank
from peersd.store.changes import TableChanges
from peersd.store.database import open_scratch
from peersd.store.ddl import quote_name
from peersd.store.layout import rowid_name
from peersd.store.merge import Merge
from peersd.store.recording import changed_positions
from peersd.testing.oracle import expect_rows
from peersd_protocol import canonical, changesets
from peersd_protocol.changesets import Changeset
from peersd_protocol.schema import Column, Default, Schema, Table

ACT = bytes(range(16))


def column(
    name: str, type_: str, position: int, *, op: int = 0, act: bytes = ACT, default: Any = None, not_null: bool = False
) -> Column:
    kind = 0 if default is None else 1
    return Column((act, op, position), name, type_, Default(kind, default), not_null)


def added(name: str, type_: str, act: bytes, *, default: Any = None, not_null: bool = False) -> Column:
    return column(name, type_, 0, act=act, default=default, not_null=not_null)


def table(
    name: str,
    *columns: tuple[str, str],
    key: tuple[int, ...] = (0,),
    op: int = 0,
    without_rowid: bool = False,
    strict: bool = False,
) -> Table:
    made = tuple(column(column_name, type_, position, op=op) for position, (column_name, type_) in enumerate(columns))
    return Table((ACT, op), name, made, key, without_rowid, strict)


def with_columns(base: Table, *more: Column) -> Table:
    return Table(base.id, base.name, (*base.columns, *more), base.key, base.without_rowid, base.strict)


def schema_of(*tables: Table) -> Schema:
    return Schema(len(tables), tables, ())


NOTES = table("notes", ("id", "TEXT"), ("title", "TEXT"), ("body", "TEXT"))


@dataclass(frozen=True)
class Entry:
    rank: Rank
    body: bytes

    @property
    def changeset(self) -> Changeset:
        decoded = changesets.decode(self.body)
        assert isinstance(decoded, Changeset)
        return decoded


@dataclass
class Replica:
    """One device's merge. `held` are its entries in the order of their ids, from 1."""

    schema: Schema
    device: bytes = b"d" * 32
    held: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connection: Any = open_scratch()
        self.merge = Merge(self.connection, self.rank)
        assert not self.merge.set_schema(self.schema)
        self.tick = 0

    def rank(self, entry: int) -> Rank:
        return self.held[entry - 1].rank

    def write(self, *statements: str | tuple[str, tuple[Any, ...]], ticks: int = 1) -> Entry | None:
        """One local transaction. Statements that fail on a constraint change nothing."""
        before = self._rows()
        self.connection.execute("BEGIN")
        for statement in statements:
            sql, bindings = statement if isinstance(statement, tuple) else (statement, ())
            try:
                self.connection.execute(sql, bindings)
            except apsw.ConstraintError:
                pass
        changes = self._changes(before, self._rows())
        body = self.merge.encode_local(changes)
        entry = None
        if body is not None:
            self.tick += ticks
            entry = Entry((self.tick, self.device, hashlib.sha256(body + self.device).digest()), body)
            self.held.append(entry)
        self.merge.record_local(len(self.held) if entry else 0, changes)
        self.connection.execute("COMMIT")
        return entry

    def take(self, entry: Entry) -> None:
        if entry in self.held:
            return
        self.held.append(entry)
        self.tick = max(self.tick, entry.rank[0])
        self._in_transaction(lambda: self.merge.apply(len(self.held), entry.changeset))

    def take_all(self, entries: Iterable[Entry | None]) -> None:
        for entry in entries:
            if entry is not None:
                self.take(entry)

    def set_schema(self, schema: Schema, order: Callable[[list[int]], None] = lambda ids: None) -> bool:
        """Takes a schema; returns whether it needed a rebuild, which applies the entries in the order given."""
        self.schema = schema
        rebuilt = self._in_transaction(lambda: self.merge.set_schema(schema))
        if rebuilt:
            self.rebuild(order)
        return bool(rebuilt)

    def rebuild(self, order: Callable[[list[int]], None] = lambda ids: None) -> None:
        ids = list(range(1, len(self.held) + 1))
        order(ids)

        def redo() -> None:
            self.merge.clear()
            assert not self.merge.set_schema(self.schema)
            for id_ in ids:
                self.merge.apply(id_, self.held[id_ - 1].changeset)

        self._in_transaction(redo)

    def rows(self, name: str = "notes") -> list[tuple[Any, ...]]:
        return self.merge.dump()[name]

    def count(self, clocks: str) -> int:
        counted: int = self.connection.execute(f"SELECT count(*) FROM {clocks}").get
        return counted

    def state(self) -> tuple[Any, Any]:
        return self.merge.dump(), self.merge.dump_clocks()

    def expected(self) -> tuple[Any, Any]:
        """What the oracle says that `state` must be."""
        rows: dict[str, list[Any]] = {}
        clocks: dict[str, dict[bytes, Any]] = {}
        for name, keys in expect_rows([(entry.rank, entry.changeset) for entry in self.held], self.schema).items():
            alive = [(key, row.values) for key, row in keys.items() if row.values is not None]
            rows[name] = [tuple(map(_exact, values)) for _, values in sorted(alive, key=lambda item: _sort_key(item[0]))]
            clocks[name] = {
                canonical.encode(list(key)): (
                    row.inserted,
                    row.deleted,
                    row.written,
                    {column_name: (rank, _exact(value)) for column_name, (rank, value) in row.aside.items()},
                )
                for key, row in keys.items()
            }
        return dict(sorted(rows.items())), dict(sorted(clocks.items()))

    def check(self) -> None:
        """Rows and clocks are what the oracle says, and the clock tables hold nothing that no rule explains."""
        dump, clocks = self.state()
        plain = {
            name: {key: (row.inserted, row.deleted, row.written, row.aside) for key, row in keys.items()}
            for name, keys in clocks.items()
        }
        assert (dump, plain) == self.expected()
        self._check_clock_rows()

    def _check_clock_rows(self) -> None:
        overlapping = """SELECT count(*) FROM _peers_span a JOIN _peers_span b
            ON a.tbl = b.tbl AND a.first < b.first AND b.first <= a.last"""
        assert self.connection.execute(overlapping).get == 0
        for number, name in self.connection.execute("SELECT id, name FROM _peers_table").fetchall():
            found = next(made for made in self.schema.tables if made.name == name)
            alias = rowid_name(found)
            rids = f"SELECT {alias} FROM {quote_name(name)}" if alias else f"SELECT rid FROM _peers_rid_{number}"
            lost = f"SELECT count(*) FROM _peers_cell WHERE tbl = {number} AND rid NOT IN ({rids})"
            assert self.connection.execute(lost).get == 0
            if not alias:
                counts = f"SELECT (SELECT count(*) FROM {quote_name(name)}) - (SELECT count(*) FROM _peers_rid_{number})"
                assert self.connection.execute(counts).get == 0

    def _in_transaction(self, change: Callable[[], Any]) -> Any:
        self.connection.execute("BEGIN")
        result = change()
        self.connection.execute("COMMIT")
        return result

    def _rows(self) -> dict[str, dict[Any, tuple[int | None, tuple[Any, ...]]]]:
        found: dict[str, dict[Any, tuple[int | None, tuple[Any, ...]]]] = {}
        for made in self.schema.tables:
            alias = rowid_name(made)
            rows = self.connection.execute(f"SELECT {alias or 'NULL'}, * FROM {quote_name(made.name)}").fetchall()
            found[made.name] = {tuple(row[1 + position] for position in made.key): (row[0], row[1:]) for row in rows}
        return found

    def _changes(self, before: dict[str, Any], after: dict[str, Any]) -> list[TableChanges]:
        changes: list[TableChanges] = []
        for name, old in before.items():
            new = after[name]
            change = TableChanges(name)
            change.inserts = [row for key, row in new.items() if key not in old]
            change.deletes = [row for key, row in old.items() if key not in new]
            for key in old.keys() & new.keys():
                (old_rid, old_row), (new_rid, new_row) = old[key], new[key]
                if old_rid != new_rid or changed_positions(old_row, new_row):
                    change.updates.append((old_rid, new_rid, old_row, new_row))
            if change.inserts or change.updates or change.deletes:
                changes.append(change)
        return changes


def _exact(value: Any) -> Any:
    return ("real", value.hex()) if isinstance(value, float) else value


def _sort_key(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """SQLite's order of key values: integers, text by its bytes, blobs."""
    order = {int: 0, str: 1, bytes: 2}
    return tuple((order[type(value)], value.encode() if isinstance(value, str) else value) for value in key)
