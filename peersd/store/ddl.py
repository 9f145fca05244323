"""SQL text for the evaluated schema: CREATE TABLE, ALTER TABLE ADD COLUMN and CREATE INDEX from structured definitions.

What comes in may have been written by a hostile admin on another device. Names are quoted, literals are encoded, and the two
texts a definition carries (a type, a REFERENCES clause) are refused unless they have the fixed form that schema acts admit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from peersd_protocol.canonical import Value
from peersd_protocol.schema import Column, Default, Index, Schema, Table
from peersd_protocol.schema_ops import is_references, is_type


def quote_name(name: str) -> str:
    """A name as an SQL identifier in double quotes.

    Raises:
        ValueError: the name is empty, has a NUL, or is not encodable as UTF-8.
    """
    if not name or "\x00" in name:
        raise ValueError(f"not a name for SQLite: {name!r}")
    name.encode("utf-8")
    return '"' + name.replace('"', '""') + '"'


def references_sql(table: str, column: str | None, on_update: str, on_delete: str) -> str:
    """A REFERENCES clause in the one form that schema acts carry.

    Args:
        table: the table referred to.
        column: the column referred to, or None for the other table's key.
        on_update: as `PRAGMA foreign_key_list` gives it; "NO ACTION" is left out.
        on_delete: likewise.
    """
    text = f"REFERENCES {quote_name(table)}" + (f"({quote_name(column)})" if column is not None else "")
    for event, action in (("UPDATE", on_update), ("DELETE", on_delete)):
        if action != "NO ACTION":
            text += f" ON {event} {action}"
    return text


def literal_sql(value: Value) -> str:
    """A value as an SQL literal that SQLite reads back bit for bit; usable after DEFAULT.

    Raises:
        ValueError: the value is NaN, or an integer outside 64 bits.
        TypeError: it is none of None, int, float, str, bytes.
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        raise TypeError("SQLite has no booleans")
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"{value} does not fit 64 bits")
        return str(value)
    if isinstance(value, float):
        if math.isnan(value):
            raise ValueError("SQLite has no NaN")
        if math.isinf(value):
            return "9e999" if value > 0 else "-9e999"
        return repr(value)
    if isinstance(value, str):
        if "\x00" in value:
            # A literal would end at the NUL.
            return f"(CAST(x'{value.encode().hex()}' AS TEXT))"
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    raise TypeError(f"not an SQLite value: {type(value).__name__}")


def default_sql(default: Default) -> str:
    """A DEFAULT clause with a space before it, or nothing.

    Raises:
        ValueError: the kind is unknown, or the literal impossible.
    """
    if default.kind == 0:
        return ""
    if default.kind == 1:
        return f" DEFAULT {literal_sql(default.value)}"
    if default.kind == 2:
        return " DEFAULT (uuid7())"
    raise ValueError(f"unknown kind of default: {default.kind}")


def column_sql(column: Column, *, not_null: bool) -> str:
    """One column's definition.

    Raises:
        ValueError: the type or the REFERENCES clause is not of the harmless form, or a name or literal is impossible.
    """
    if not is_type(column.type):
        raise ValueError(f"not a type: {column.type!r}")
    text = quote_name(column.name)
    if column.type:
        text += f" {column.type}"
    if not_null:
        text += " NOT NULL"
    text += default_sql(column.default)
    if column.references is not None:
        if not is_references(column.references):
            raise ValueError(f"not a REFERENCES clause: {column.references!r}")
        text += f" {column.references}"
    return text


def create_table_sql(table: Table, *, key_not_null: Iterable[int] | None = None) -> str:
    """CREATE TABLE for an evaluated table, added columns included.

    Args:
        table: the definition.
        key_not_null: positions of the key columns that say NOT NULL; by default all of them, as DESIGN 8 asks. Only the
            planner, which compares with what a client wrote, passes fewer.

    Raises:
        ValueError: the definition cannot be written as SQL, or has a key that SQLite would number by itself.
    """
    if not table.key or len(set(table.key)) != len(table.key):
        raise ValueError(f"table {table.name!r} has no proper key")
    if not table.without_rowid and len(table.key) == 1 and table.columns[table.key[0]].type.upper() == "INTEGER":
        raise ValueError(f"SQLite would number the key of table {table.name!r} by itself")
    said = set(table.key if key_not_null is None else key_not_null)
    parts = [
        column_sql(column, not_null=position in said or (column.not_null and position not in table.key))
        for position, column in enumerate(table.columns)
    ]
    parts.append("PRIMARY KEY (" + ", ".join(quote_name(table.columns[position].name) for position in table.key) + ")")
    options = [word for word, on in (("STRICT", table.strict), ("WITHOUT ROWID", table.without_rowid)) if on]
    return f"CREATE TABLE {quote_name(table.name)} (" + ", ".join(parts) + ")" + (" " + ", ".join(options) if options else "")


def add_column_sql(table: Table, position: int) -> str:
    """ALTER TABLE … ADD COLUMN for the column at a position of the table.

    Raises:
        ValueError: the column cannot be written as SQL.
    """
    column = table.columns[position]
    return f"ALTER TABLE {quote_name(table.name)} ADD COLUMN {column_sql(column, not_null=column.not_null)}"


def create_index_sql(index: Index, table: Table) -> str:
    """CREATE INDEX for an evaluated index on its evaluated table.

    Raises:
        ValueError: a name is impossible, or there are no columns.
        KeyError: a column is not in the table.
    """
    if not index.columns:
        raise ValueError(f"index {index.name!r} has no columns")
    columns = ", ".join(
        quote_name(table.columns[table.positions[column]].name) + (" DESC" if descending else "")
        for column, descending in index.columns
    )
    return f"CREATE INDEX {quote_name(index.name)} ON {quote_name(table.name)} ({columns})"


def create_schema_sql(schema: Schema) -> list[str]:
    """One statement per table and then per index of a schema, in its order."""
    tables = schema.tables_by_id
    return [create_table_sql(table) for table in schema.tables] + [
        create_index_sql(index, tables[index.table]) for index in schema.indexes if index.table in tables
    ]
