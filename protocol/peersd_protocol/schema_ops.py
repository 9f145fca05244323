"""The operations of a schema act: create table, add column, create index; structured, never SQL text (SPEC: A, DESIGN 8).

Whatever decodes here can be made into a table by every replica's SQLite, so the rules of form are part of the protocol: two
replicas that judged differently would have different tables.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from peersd_protocol.canonical import Value
from peersd_protocol.constants import (
    COLUMNS_MAX,
    LITERAL_BYTES_MAX,
    REFERENCES_CHARS_MAX,
    SCHEMA_OPS_MAX,
    TYPE_CHARS_MAX,
)
from peersd_protocol.fields import malformed, read_array, read_bool, read_bytes, read_int, read_text
from peersd_protocol.names import fold, is_identifier
from peersd_protocol.schema import ColumnId, Default, TableId

ACT_ID_BYTES: Final = 16
"""An act's id is this much of its hash."""

DEFAULT_NONE: Final = 0
DEFAULT_LITERAL: Final = 1
DEFAULT_UUID7: Final = 2

_CREATE_TABLE: Final = 1
_ADD_COLUMN: Final = 2
_CREATE_INDEX: Final = 3

# The types and clauses that a table can be written with. Any admin may write acts by hand, and what passes ends up in SQL text.
_WORD: Final = "[A-Za-z_][A-Za-z0-9_]*"
_NUMBER: Final = "[+-]?[0-9]{1,9}"
_TYPE: Final = re.compile(rf"{_WORD}(?: {_WORD}){{0,7}}(?: ?\( ?{_NUMBER}(?: ?, ?{_NUMBER})? ?\))?")
_TYPE_WORD: Final = re.compile(_WORD)
_QUOTED: Final = r'"(?:[^"\x00]|"")+"'
_ACTION: Final = r"(?:SET NULL|SET DEFAULT|CASCADE|RESTRICT)"
_REFERENCES: Final = re.compile(rf"REFERENCES {_QUOTED}(?:\({_QUOTED}\))?(?: ON UPDATE {_ACTION})?(?: ON DELETE {_ACTION})?")
_STRICT_TYPES: Final = frozenset(["INT", "INTEGER", "REAL", "TEXT", "BLOB", "ANY"])

SQL_KEYWORDS: Final = frozenset(
    "ABORT ACTION ADD AFTER ALL ALTER ALWAYS ANALYZE AND AS ASC ATTACH AUTOINCREMENT BEFORE BEGIN BETWEEN BY CASCADE "
    "CASE CAST CHECK COLLATE COLUMN COMMIT CONFLICT CONSTRAINT CREATE CROSS CURRENT CURRENT_DATE CURRENT_TIME "
    "CURRENT_TIMESTAMP DATABASE DEFAULT DEFERRABLE DEFERRED DELETE DESC DETACH DISTINCT DO DROP EACH ELSE END ESCAPE "
    "EXCEPT EXCLUDE EXCLUSIVE EXISTS EXPLAIN FAIL FILTER FIRST FOLLOWING FOR FOREIGN FROM FULL GENERATED GLOB GROUP "
    "GROUPS HAVING IF IGNORE IMMEDIATE IN INDEX INDEXED INITIALLY INNER INSERT INSTEAD INTERSECT INTO IS ISNULL JOIN "
    "KEY LAST LEFT LIKE LIMIT MATCH MATERIALIZED NATURAL NO NOT NOTHING NOTNULL NULL NULLS OF OFFSET ON OR ORDER "
    "OTHERS OUTER OVER PARTITION PLAN PRAGMA PRECEDING PRIMARY QUERY RAISE RANGE RECURSIVE REFERENCES REGEXP REINDEX "
    "RELEASE RENAME REPLACE RESTRICT RETURNING RIGHT ROLLBACK ROW ROWS SAVEPOINT SELECT SET TABLE TEMP TEMPORARY "
    "THEN TIES TO TRANSACTION TRIGGER UNBOUNDED UNION UNIQUE UPDATE USING VACUUM VALUES VIEW VIRTUAL WHEN WHERE "
    "WINDOW WITH WITHOUT".split()
)
"""SQLite's keywords as of 3.54. The list is fixed here, since a newer SQLite must not judge an old act anew."""


@dataclass(frozen=True, slots=True)
class ColumnDef:
    """A column as its author defined it. `references` is a REFERENCES clause of the form that `is_references` admits, or None."""

    name: str
    type: str
    default: Default = Default(DEFAULT_NONE)
    not_null: bool = False
    references: str | None = None


@dataclass(frozen=True, slots=True)
class CreateTable:
    """CREATE TABLE. `key` holds the positions of the primary key's columns, in key order."""

    name: str
    columns: tuple[ColumnDef, ...]
    key: tuple[int, ...]
    without_rowid: bool = False
    strict: bool = False


@dataclass(frozen=True, slots=True)
class AddColumn:
    """ALTER TABLE ADD COLUMN. `table` names the operation that created the table; an empty act id means this same act."""

    table: TableId
    column: ColumnDef


@dataclass(frozen=True, slots=True)
class CreateIndex:
    """CREATE INDEX over columns, each with whether it is descending."""

    name: str
    table: TableId
    columns: tuple[tuple[ColumnId, bool], ...]


SchemaOp: TypeAlias = CreateTable | AddColumn | CreateIndex


def is_type(text: str) -> bool:
    """Whether a declared type is words, none a keyword of SQL, with at most two numbers in parentheses; or is empty."""
    if not text:
        return True
    return (
        len(text) <= TYPE_CHARS_MAX
        and _TYPE.fullmatch(text) is not None
        and SQL_KEYWORDS.isdisjoint(word.upper() for word in _TYPE_WORD.findall(text))
    )


def is_references(text: str) -> bool:
    """Whether a REFERENCES clause has quoted names and known actions, in the fixed order, and nothing else."""
    return len(text) <= REFERENCES_CHARS_MAX and _REFERENCES.fullmatch(text) is not None


def is_literal(value: Value) -> bool:
    """Whether a value can be a literal default: NULL, 64-bit integer, double but no NaN, text or blob of at most 4 KiB."""
    if value is None:
        return True
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, float):
        return not math.isnan(value)
    if isinstance(value, str):
        return len(value.encode()) <= LITERAL_BYTES_MAX
    return isinstance(value, bytes) and len(value) <= LITERAL_BYTES_MAX


def op_value(op: SchemaOp) -> list[Value]:
    """The array that travels."""
    match op:
        case CreateTable():
            columns: list[Value] = [_column_value(column) for column in op.columns]
            return [_CREATE_TABLE, op.name, columns, list(op.key), op.without_rowid, op.strict]
        case AddColumn():
            return [_ADD_COLUMN, list(op.table), _column_value(op.column)]
        case CreateIndex():
            indexed: list[Value] = [[list(column), descending] for column, descending in op.columns]
            return [_CREATE_INDEX, op.name, list(op.table), indexed]


def decode_ops(value: Value) -> tuple[SchemaOp, ...] | None:
    """The operations of a schema act.

    Returns:
        The operations; None if one is of a type that this version does not know.

    Raises:
        RemoteProtocolError: MALFORMED.
    """
    ops: list[SchemaOp] = []
    for position, fields in enumerate(read_array(value, "ops", items_max=SCHEMA_OPS_MAX)):
        op = _decode_op(read_array(fields, "op"), position)
        if op is None:
            return None
        ops.append(op)
    if not ops:
        raise malformed("a schema act without operations")
    return tuple(ops)


def _decode_op(fields: Sequence[Value], position: int) -> SchemaOp | None:
    number = read_int(fields[0] if fields else None, "type of op", 1, 2**31)
    if number == _CREATE_TABLE:
        return _decode_create_table(read_array(fields, "create table", length=6))
    if number == _ADD_COLUMN:
        _, table, column = read_array(fields, "add column", length=3)
        added = _decode_column(column)
        _check_not_null(added)
        if added.default.kind == DEFAULT_UUID7:
            raise malformed("an added column needs a constant default")
        return AddColumn(_decode_table_ref(table, position), added)
    if number == _CREATE_INDEX:
        _, name, table, columns = read_array(fields, "create index", length=4)
        indexed = tuple(
            _decode_index_column(column, position) for column in read_array(columns, "indexed", items_max=COLUMNS_MAX)
        )
        if not indexed or len({column for column, _ in indexed}) != len(indexed):
            raise malformed("indexed columns")
        return CreateIndex(_decode_identifier(name), _decode_table_ref(table, position), indexed)
    return None


def _decode_create_table(fields: Sequence[Value]) -> CreateTable:
    _, name, column_fields, key_fields, without_rowid, strict = fields
    columns = tuple(_decode_column(column) for column in read_array(column_fields, "columns", items_max=COLUMNS_MAX))
    key = tuple(read_int(item, "key", 0, len(columns) - 1) for item in read_array(key_fields, "key", items_max=len(columns)))
    table = CreateTable(_decode_identifier(name), columns, key, read_bool(without_rowid, "rowid"), read_bool(strict, "strict"))
    check_table(table)
    return table


def check_table(table: CreateTable) -> None:
    """Checks what a table's parts must be together.

    Raises:
        RemoteProtocolError: MALFORMED.
    """
    if len({fold(column.name) for column in table.columns}) != len(table.columns):
        raise malformed("two columns of one name")
    if not table.key or len(set(table.key)) != len(table.key):
        raise malformed("no proper key")
    for position, column in enumerate(table.columns):
        if position not in table.key:
            _check_not_null(column)
        elif _affinity(column.type) not in ("TEXT", "BLOB", "INTEGER"):
            raise malformed("a key column that is not TEXT, BLOB or INTEGER")
        if table.strict and column.type.upper() not in _STRICT_TYPES:
            raise malformed("a type that STRICT does not allow")
    if not table.without_rowid and len(table.key) == 1 and table.columns[table.key[0]].type.upper() == "INTEGER":
        raise malformed("a key that SQLite numbers by itself")


def _affinity(type_text: str) -> str:
    """The affinity that SQLite gives a declared type (SQLite, "Datatypes", 3.1)."""
    upper = type_text.upper()
    for affinity, parts in (("INTEGER", ("INT",)), ("TEXT", ("CHAR", "CLOB", "TEXT")), ("BLOB", ("BLOB",))):
        if any(part in upper for part in parts):
            return affinity
    if not upper:
        return "BLOB"
    return "REAL" if any(part in upper for part in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def _check_not_null(column: ColumnDef) -> None:
    has_default = column.default.kind == DEFAULT_UUID7 or column.default.value is not None
    if column.not_null and not has_default:
        raise malformed("NOT NULL without a default")


def _decode_column(value: Value) -> ColumnDef:
    name, type_text, default, not_null, references = read_array(value, "column", length=5)
    declared = read_text(type_text, "type", TYPE_CHARS_MAX)
    if not is_type(declared):
        raise malformed("not a type")
    if references is not None:
        references = read_text(references, "references", REFERENCES_CHARS_MAX)
        if not is_references(references):
            raise malformed("not a REFERENCES clause")
    return ColumnDef(_decode_identifier(name), declared, _decode_default(default), read_bool(not_null, "not null"), references)


def _decode_default(value: Value) -> Default:
    fields = read_array(value, "default", items_max=2)
    kind = read_int(fields[0] if fields else None, "kind of default", DEFAULT_NONE, DEFAULT_UUID7)
    if len(fields) != (2 if kind == DEFAULT_LITERAL else 1):
        raise malformed("default")
    if kind != DEFAULT_LITERAL:
        return Default(kind)
    if not is_literal(fields[1]):
        raise malformed("literal default")
    return Default(kind, fields[1])


def _decode_identifier(value: Value) -> str:
    if not isinstance(value, str) or not is_identifier(value):
        raise malformed("not a name for a table, column or index")
    return value


def _decode_table_ref(value: Value, position: int) -> TableId:
    act_id, op = read_array(value, "table reference", length=2)
    return _decode_ref(act_id, op, position)


def _decode_index_column(value: Value, position: int) -> tuple[ColumnId, bool]:
    reference, descending = read_array(value, "indexed column", length=2)
    act_id, op, column = read_array(reference, "column reference", length=3)
    column_id = (*_decode_ref(act_id, op, position), read_int(column, "column", 0, COLUMNS_MAX - 1))
    return column_id, read_bool(descending, "descending")


def _decode_ref(act_id: Value, op: Value, position: int) -> TableId:
    if act_id == b"" and isinstance(act_id, bytes):
        # A reference into the same act looks back only, so that one pass in order resolves all.
        return b"", read_int(op, "op", 0, position - 1)
    return read_bytes(act_id, "act id", ACT_ID_BYTES), read_int(op, "op", 0, SCHEMA_OPS_MAX - 1)


def _column_value(column: ColumnDef) -> list[Value]:
    default: list[Value] = [column.default.kind]
    if column.default.kind == DEFAULT_LITERAL:
        default.append(column.default.value)
    return [column.name, column.type, default, column.not_null, column.references]
