"""From the schema acts that stand to the one Schema that every replica has (SPEC: A, DESIGN 8).

Members who are apart may define the same name twice. Alike, the definitions become one table (or column, or index) and the
later one an alias, so that changesets of both authors land in it. Unlike, the first keeps the name and the other appears as
`name~hash4`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from peersd_protocol import canonical
from peersd_protocol.constants import COLUMNS_MAX, TABLES_MAX
from peersd_protocol.names import fold
from peersd_protocol.schema import Column, ColumnId, Index, Schema, Table, TableId
from peersd_protocol.schema_ops import (
    ACT_ID_BYTES,
    AddColumn,
    ColumnDef,
    CreateIndex,
    CreateTable,
    SchemaOp,
)

HASH_SUFFIX_CHARS = 4
"""Hexadecimal digits of the act's hash after the tilde; more where these are taken too."""


def evaluate_schema(acts: Iterable[tuple[bytes, Sequence[SchemaOp]]]) -> Schema:
    """The schema that schema acts amount to.

    Operations that refer to what is not there, or go beyond a bound, are passed over.

    Args:
        acts: (entry's hash, operations) of the acts that stand, in the order (depth, hash).
    """
    builder = _Builder()
    for act_hash, ops in acts:
        for position, op in enumerate(ops):
            builder.apply(act_hash, position, op)
    return builder.schema()


class _Builder:
    """The schema while it grows, operation by operation."""

    def __init__(self) -> None:
        self.version = 0
        self.tables: dict[TableId, Table] = {}
        self.indexes: dict[TableId, Index] = {}
        self.aliases: dict[TableId, TableId] = {}
        self.column_aliases: dict[ColumnId, ColumnId] = {}
        self.names: set[str] = set()
        """Names taken, folded: tables and indexes share one space in SQLite."""
        self._by_definition: dict[bytes, TableId] = {}
        self._columns_by_definition: dict[tuple[TableId, bytes], ColumnId] = {}

    def schema(self) -> Schema:
        """What it has become."""
        return Schema(self.version, tuple(self.tables.values()), tuple(self.indexes.values()), self.aliases, self.column_aliases)

    def find_table(self, act_id: bytes, reference: TableId) -> Table | None:
        """The table that a reference in an act means, aliases followed."""
        table_id = (reference[0] or act_id, reference[1])
        return self.tables.get(self.aliases.get(table_id, table_id))

    def find_columns(
        self, act_id: bytes, table: Table, references: Sequence[tuple[ColumnId, bool]]
    ) -> tuple[tuple[ColumnId, bool], ...] | None:
        """The columns that references mean, each once, or None if one is not in the table."""
        columns: dict[ColumnId, bool] = {}
        for (act, op, position), descending in references:
            column_id = (act or act_id, op, position)
            column_id = self.column_aliases.get(column_id, column_id)
            if column_id not in table.positions:
                return None
            columns.setdefault(column_id, descending)
        return tuple(columns.items())

    def apply(self, act_hash: bytes, position: int, op: SchemaOp) -> None:
        """Adds one operation, the `position`-th of the act."""
        op_id = (act_hash[:ACT_ID_BYTES], position)
        if op_id in self.tables or op_id in self.indexes or op_id in self.aliases:
            return
        match op:
            case CreateTable():
                self._create_table(act_hash, op_id, op)
            case AddColumn():
                self._add_column(act_hash, op_id, op)
            case CreateIndex():
                self._create_index(act_hash, op_id, op)

    def _create_table(self, act_hash: bytes, table_id: TableId, op: CreateTable) -> None:
        definition = _table_definition(op)
        alike = self._by_definition.get(definition)
        if alike is not None:
            self.version += 1
            self.aliases[table_id] = alike
            for position in range(len(op.columns)):
                self.column_aliases[*table_id, position] = (*alike, position)
            return
        if len(self.tables) >= TABLES_MAX:
            return
        self.version += 1
        # A key column is never NULL, whether or not its definition says so (DESIGN 8).
        columns = tuple(
            _column((*table_id, position), column, column.name, not_null=column.not_null or position in op.key)
            for position, column in enumerate(op.columns)
        )
        name = _free_name(op.name, act_hash, lambda folded: folded in self.names)
        self.names.add(fold(name))
        self.tables[table_id] = Table(table_id, name, columns, op.key, op.without_rowid, op.strict)
        self._by_definition[definition] = table_id
        for column, column_def in zip(columns, op.columns, strict=True):
            self._columns_by_definition[table_id, _column_definition(column_def)] = column.id

    def _add_column(self, act_hash: bytes, op_id: TableId, op: AddColumn) -> None:
        table = self.find_table(act_hash[:ACT_ID_BYTES], op.table)
        if table is None:
            return
        column_id, definition = (*op_id, 0), _column_definition(op.column)
        alike = self._columns_by_definition.get((table.id, definition))
        if alike is not None:
            self.version += 1
            self.column_aliases[column_id] = alike
            return
        if len(table.columns) >= COLUMNS_MAX:
            return
        self.version += 1
        taken = {fold(column.name) for column in table.columns}
        name = _free_name(op.column.name, act_hash, taken.__contains__)
        column = _column(column_id, op.column, name, not_null=op.column.not_null)
        self.tables[table.id] = replace(table, columns=(*table.columns, column))
        self._columns_by_definition[table.id, definition] = column_id

    def _create_index(self, act_hash: bytes, index_id: TableId, op: CreateIndex) -> None:
        act_id = act_hash[:ACT_ID_BYTES]
        table = self.find_table(act_id, op.table)
        columns = self.find_columns(act_id, table, op.columns) if table else None
        if table is None or columns is None or len(self.indexes) >= TABLES_MAX:
            return
        self.version += 1
        definition = canonical.encode(["index", fold(op.name), table.id, columns])
        # Nothing refers to an index, so one that was defined again alike needs no alias.
        if definition not in self._by_definition:
            name = _free_name(op.name, act_hash, lambda folded: folded in self.names)
            self.names.add(fold(name))
            self.indexes[index_id] = Index(index_id, name, table.id, columns)
            self._by_definition[definition] = index_id


def _column(column_id: ColumnId, column: ColumnDef, name: str, *, not_null: bool) -> Column:
    return Column(column_id, name, column.type, column.default, not_null, column.references)


def _free_name(name: str, act_hash: bytes, is_taken: Callable[[str], bool]) -> str:
    """The name itself if it is free, else `name~hash4`, with more of the hash and at last a number while that is taken too."""
    if not is_taken(fold(name)):
        return name
    digits = act_hash.hex()
    for chars in range(HASH_SUFFIX_CHARS, len(digits) + 1):
        if not is_taken(fold(f"{name}~{digits[:chars]}")):
            return f"{name}~{digits[:chars]}"
    number = 2
    while is_taken(fold(f"{name}~{digits}~{number}")):
        number += 1
    return f"{name}~{digits}~{number}"


def _table_definition(op: CreateTable) -> bytes:
    """What two tables must share to be alike. Canonical bytes, since 1, 1.0 and True are equal in Python and no one default."""
    columns: list[canonical.Value] = [
        _column_definition(column, is_key=position in op.key) for position, column in enumerate(op.columns)
    ]
    return canonical.encode(["table", fold(op.name), columns, op.key, op.without_rowid, op.strict])


def _column_definition(column: ColumnDef, *, is_key: bool = False) -> bytes:
    default = column.default
    return canonical.encode(
        [fold(column.name), fold(column.type), default.kind, default.value, column.not_null or is_key, column.references]
    )
