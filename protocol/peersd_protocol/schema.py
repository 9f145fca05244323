"""The evaluated schema of a group: what all schema acts that stand amount to (SPEC: A, DESIGN 8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from peersd_protocol.canonical import Value

TableId = tuple[bytes, int]
"""(act id of 16 bytes, index of the operation within the act): names a table or an index for ever."""

ColumnId = tuple[bytes, int, int]
"""(act id of 16 bytes, index of the operation, index of the column within it): names a column for ever."""


@dataclass(frozen=True)
class Default:
    """A column's default.

    Attributes:
        kind: 0 none (NULL), 1 the literal `value`, 2 `uuid7()` called when a row is inserted.
        value: the literal, for kind 1.
    """

    kind: int
    value: Value = None


@dataclass(frozen=True)
class Column:
    """One column. `type` is its declared type as written, `references` a REFERENCES clause (kept, not enforced) or None."""

    id: ColumnId
    name: str
    type: str
    default: Default
    not_null: bool
    references: str | None = None


@dataclass(frozen=True)
class Table:
    """One table: original columns first, then added ones. `name` is the name it has after evaluation (`name~hash4` for a loser).

    Attributes:
        key: positions in `columns` of the primary key's columns, in key order.
    """

    id: TableId
    name: str
    columns: tuple[Column, ...]
    key: tuple[int, ...]
    without_rowid: bool
    strict: bool

    @cached_property
    def positions(self) -> dict[ColumnId, int]:
        """Where each column stands in `columns`."""
        return {column.id: position for position, column in enumerate(self.columns)}


@dataclass(frozen=True)
class Index:
    """One plain index: columns with whether each is descending."""

    id: TableId
    name: str
    table: TableId
    columns: tuple[tuple[ColumnId, bool], ...]


@dataclass(frozen=True)
class Schema:
    """All tables and indexes, in an order that is the same on every replica.

    Attributes:
        version: counts the operations that took part, those that ended as an alias included.
        tables: in the order they were created.
        indexes: likewise.
        aliases: ids of tables that were defined again alike, each to the id of the table that stands for both.
        column_aliases: likewise for columns: those of alias tables, and columns that were added again alike.
    """

    version: int
    tables: tuple[Table, ...]
    indexes: tuple[Index, ...]
    aliases: Mapping[TableId, TableId] = field(default_factory=dict)
    column_aliases: Mapping[ColumnId, ColumnId] = field(default_factory=dict)

    @cached_property
    def tables_by_id(self) -> dict[TableId, Table]:
        """Tables by their id."""
        return {table.id: table for table in self.tables}

    def table(self, table_id: TableId) -> Table | None:
        """The table that an id means, aliases followed; None if no such table is known."""
        return self.tables_by_id.get(self.aliases.get(table_id, table_id))

    def column_id(self, column_id: ColumnId) -> ColumnId:
        """The id under which a column stands in its table, aliases followed."""
        return self.column_aliases.get(column_id, column_id)


EMPTY = Schema(0, (), ())
