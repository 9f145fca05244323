"""What the rows must be: DESIGN 7 read literally, as a function of the set of entries. Slow, and independent of peersd.store.

It sees all writes of a cell at once and takes the greatest; the store sees them one at a time and keeps the greatest so far.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from peersd_protocol.changesets import Changeset, TableChangeset
from peersd_protocol.columns import Scalar
from peersd_protocol.schema import Column, ColumnId, Schema, Table

Rank = tuple[int, bytes, bytes]
Key = tuple[Scalar, ...]


@dataclass
class ExpectedRow:
    """One key.

    Attributes:
        inserted: rank of the greatest insert, None unless the row is alive.
        deleted: rank of the greatest delete.
        values: all values of a living row in the table's column order, None of a dead one.
        written: rank of the write that each non-key column of a living row shows, by name; columns at their default are left out.
        aside: (rank, value) of the greatest write above the delete, by column name, of a dead row.
    """

    inserted: Rank | None = None
    deleted: Rank | None = None
    values: tuple[Scalar, ...] | None = None
    written: dict[str, Rank] = field(default_factory=dict)
    aside: dict[str, tuple[Rank, Scalar]] = field(default_factory=dict)


@dataclass
class _History:
    """All that was ever done to one key. `writes` are (rank, value) by column."""

    inserts: list[Rank] = field(default_factory=list)
    deletes: list[Rank] = field(default_factory=list)
    writes: dict[ColumnId, list[tuple[Rank, Scalar]]] = field(default_factory=dict)

    def write(self, column: ColumnId, rank: Rank, value: Scalar) -> None:
        self.writes.setdefault(column, []).append((rank, value))


def expect_rows(entries: Iterable[tuple[Rank, Changeset]], schema: Schema) -> dict[str, dict[Key, ExpectedRow]]:
    """The rows of each table by name and key, dead rows with a delete or kept writes included.

    Args:
        entries: the admitted entries, in any order, each with the rank of its writes.
        schema: the evaluated schema; every table and column of the entries is in it.
    """
    histories: dict[str, dict[Key, _History]] = {table.name: {} for table in schema.tables}
    for rank, changeset in entries:
        for changes in changeset.tables:
            table = schema.table(changes.table)
            assert table is not None
            _note(histories[table.name], rank, changes, table, schema)
    expected: dict[str, dict[Key, ExpectedRow]] = {}
    for table in schema.tables:
        rows = {key: _settle(key, history, table) for key, history in histories[table.name].items()}
        expected[table.name] = {key: row for key, row in rows.items() if row.values is not None or row.deleted or row.aside}
    return expected


def _note(histories: dict[Key, _History], rank: Rank, changes: TableChangeset, table: Table, schema: Schema) -> None:
    act, op = changes.table
    created = [column for column in table.columns if column.id[:2] == table.id]
    ids = [(act, op, index) for index in range(len(created))] + [(*added, 0) for added in changes.added]
    columns = [schema.column_id(id_) for id_ in ids]
    key_ids = [table.columns[position].id for position in table.key]
    for row in zip(*changes.inserts, strict=True):
        values = dict(zip(columns, row, strict=True))
        history = histories.setdefault(tuple(values[id_] for id_ in key_ids), _History())
        history.inserts.append(rank)
        for column, value in values.items():
            if column not in key_ids:
                history.write(column, rank, value)
    for group in changes.updates:
        for *cells, key in zip(*group.columns, zip(*group.keys, strict=True), strict=True):
            history = histories.setdefault(key, _History())
            for position, value in zip(group.positions, cells, strict=True):
                history.write(columns[position], rank, value)
    for key in zip(*changes.deletes, strict=True):
        histories.setdefault(key, _History()).deletes.append(rank)


def _settle(key: Key, history: _History, table: Table) -> ExpectedRow:
    deleted = max(history.deletes, default=None)
    inserted = max(history.inserts, default=None)
    alive = inserted is not None and (deleted is None or inserted > deleted)
    greatest: dict[ColumnId, tuple[Rank, Scalar]] = {}
    for column_id, writes in history.writes.items():
        above = [write for write in writes if deleted is None or write[0] > deleted]
        if above:
            greatest[column_id] = max(above, key=lambda write: write[0])
    names = {column.id: column.name for column in table.columns}
    if not alive:
        return ExpectedRow(deleted=deleted, aside={names[id_]: write for id_, write in greatest.items()})
    values: list[Scalar] = []
    for position, column in enumerate(table.columns):
        if position in table.key:
            values.append(key[table.key.index(position)])
        else:
            values.append(greatest[column.id][1] if column.id in greatest else _default(column))
    return ExpectedRow(inserted, deleted, tuple(values), {names[id_]: rank for id_, (rank, _) in greatest.items()})


def _default(column: Column) -> Scalar:
    value = column.default.value if column.default.kind == 1 else None
    assert value is None or isinstance(value, int | float | str | bytes)
    return value
