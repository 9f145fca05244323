"""From a client's CREATE TABLE, ALTER TABLE ADD COLUMN or CREATE INDEX to schema operations, or a refusal with its remedy.

No SQL text is parsed here (DESIGN 8). The statement runs on a scratch copy of the schema in memory; what it made is read from
the pragmas. The pragmas do not tell everything (CHECK, ON CONFLICT, DEFERRABLE are not in them), so the operations are then
written as SQL again and run on a second scratch copy, and the bytecode that SQLite compiles for writing to the table must be
the same in both. Whatever the operations would silently drop therefore ends in a refusal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import apsw

from peersd.errors import PeersdError
from peersd.store import ddl, limits
from peersd.store.changes import SQLValue
from peersd.store.sandbox import RESERVED_PREFIXES
from peersd.store.schema_scratch import ColumnInfo, Scratch, TableInfo, insert_sql, key_sample
from peersd.store.sql_errors import SQLITE_FAILURES, schema_refused
from peersd_protocol.constants import COLUMNS_MAX, IDENTIFIER_CHARS_MAX, LITERAL_BYTES_MAX, TABLES_MAX
from peersd_protocol.errors import RemoteProtocolError
from peersd_protocol.names import fold, is_identifier
from peersd_protocol.schema import Column, Default, Index, Schema, Table
from peersd_protocol.schema_ops import (
    DEFAULT_LITERAL,
    DEFAULT_NONE,
    DEFAULT_UUID7,
    AddColumn,
    ColumnDef,
    CreateIndex,
    CreateTable,
    SchemaOp,
    decode_ops,
    is_references,
    is_type,
    op_value,
)

UUID7_REMEDY: Final = "Write the key as: id TEXT PRIMARY KEY DEFAULT (uuid7())"
_KEY_REMEDY: Final = "A key column is TEXT, BLOB or INTEGER; the simplest key is: id TEXT PRIMARY KEY DEFAULT (uuid7())"
_HERE: Final = (b"", 0)
"""A reference to the first operation of the act that is being made."""


def plan_schema(sql: str, schema: Schema) -> list[SchemaOp]:
    """The operations of a schema act that mean what one client statement says.

    Args:
        sql: one CREATE TABLE, CREATE INDEX or ALTER TABLE … ADD COLUMN.
        schema: the evaluated schema that the statement builds on.

    Returns:
        One operation, or none when IF NOT EXISTS finds the name taken.

    Raises:
        PeersdError: `schema_refused` with the remedy, `sql_refused` when it is no schema statement, `sql_error`, `too_large`.
    """
    if len(sql.encode("utf-8", "replace")) > limits.SCHEMA_SQL_BYTES_MAX:
        raise PeersdError("too_large", "The statement's text is too long.", hint=f"At most {limits.SCHEMA_SQL_BYTES_MAX} bytes.")
    try:
        op = _plan(sql, schema)
    except UnicodeError as error:
        raise schema_refused("The definition has text that is not UTF-8.", "Write such bytes as a blob: x'00ff'.") from error
    if op is None:
        return []
    try:
        # The rules of form that every replica checks; what they refuse here is a gap in the refusals above.
        decode_ops([op_value(op)])
    except RemoteProtocolError as error:
        raise schema_refused(f"The definition cannot be shared: {error.detail}.", "Write it more plainly.") from error
    return [op]


def _plan(sql: str, schema: Schema) -> SchemaOp | None:
    """The operation, or None when nothing changes."""
    with Scratch(schema) as scratch:
        before = scratch.objects()
        actions = scratch.run_client(sql)
        after = scratch.objects()
        if apsw.SQLITE_ALTER_TABLE in actions:
            return _plan_added_column(scratch, schema)
        if before == after:
            return None
        # A key's own index has no SQL text, and AUTOINCREMENT brings a table of SQLite's own.
        made = [key for key, text in after.items() if key not in before and text is not None and key[1] != "sqlite_sequence"]
        assert len(made) == 1, made
        kind, name = made[0]
        _check_identifier(name, kind, RESERVED_PREFIXES)
        return _plan_table(scratch, schema, name) if kind == "table" else _plan_index(scratch, schema, name)


def _plan_table(scratch: Scratch, schema: Schema, name: str) -> CreateTable:
    """The operation for the table that the client's statement made."""
    info = scratch.describe(name)
    if len(schema.tables) >= TABLES_MAX:
        raise PeersdError(
            "too_large", f"A group has at most {TABLES_MAX} tables.", hint="Use a column instead of a table for each kind."
        )
    if len(info.columns) > COLUMNS_MAX:
        raise PeersdError("too_large", f"A table has at most {COLUMNS_MAX} columns.", hint="Keep the rest as JSON in one column.")
    _check_key(info)
    for position, column in enumerate(info.columns):
        _check_column(column, in_key=position in {at for at, _, _ in info.key})
    if info.unique:
        raise schema_refused(
            "UNIQUE beside the primary key cannot be kept when devices write while apart.",
            "Make those columns the primary key, or check in a query.",
        )
    references = _references_by_column(info)
    plain = [
        ColumnDef(column.name, _type_text(column.type), Default(DEFAULT_NONE), column.not_null, references.get(position))
        for position, column in enumerate(info.columns)
    ]
    key = tuple(position for position, _, _ in info.key)

    # As the client wrote it: NOT NULL that the key columns get anyway must not look like a difference.
    said_not_null = [at for at in key if info.columns[at].not_null]

    def rebuild(columns: list[ColumnDef], key_not_null: Sequence[int]) -> Scratch:
        copy = Scratch(schema)
        table = _evaluated_table(CreateTable(name, tuple(columns), key, info.without_rowid, info.strict))
        copy.connection.execute(ddl.create_table_sql(table, key_not_null=key_not_null))
        return copy

    try:
        with rebuild(plain, said_not_null) as copy:
            _compare(scratch, copy, name, info)
    except PeersdError:
        # In a STRICT table the pragma says NOT NULL of every key column, while the key's index is compiled by what was written.
        if not info.strict:
            raise
        with rebuild(plain, ()) as copy:
            _compare(scratch, copy, name, info)
    defaults = _find_defaults(scratch, name, info, range(len(info.columns)))
    columns = [replace(column, default=defaults.get(column.name, column.default)) for column in plain]
    with rebuild(columns, said_not_null) as copy:
        _compare_defaults(scratch, copy, name, info, defaults)
    for position, defined in enumerate(columns):
        if position not in key:
            _check_not_null(defined)
    final = [replace(defined, not_null=defined.not_null or position in key) for position, defined in enumerate(columns)]
    return CreateTable(name, tuple(final), key, info.without_rowid, info.strict)


def _plan_added_column(scratch: Scratch, schema: Schema) -> AddColumn:
    """The operation for the one column that ALTER TABLE added; refused when it did anything else."""
    only_added = schema_refused(
        "Of ALTER TABLE, only ADD COLUMN is supported.", "Add a column; RENAME and DROP are not supported."
    )
    with Scratch(schema) as untouched:
        now, then = scratch.objects(), untouched.objects()
        changed = [table for table in schema.tables if now.get(("table", table.name)) != then["table", table.name]]
        if now.keys() != then.keys() or len(changed) != 1:
            raise only_added
        (table,) = changed
        info, old = scratch.describe(table.name), untouched.describe(table.name)
        if replace(info, columns=info.columns[:-1], references=()) != replace(old, references=()):
            raise only_added
    position = len(info.columns) - 1
    if position >= COLUMNS_MAX:
        raise PeersdError("too_large", f"A table has at most {COLUMNS_MAX} columns.", hint="Keep the rest as JSON in one column.")
    added = info.columns[position]
    _check_column(added, in_key=False)
    references = _references_by_column(info)
    column = ColumnDef(added.name, _type_text(added.type), Default(DEFAULT_NONE), added.not_null, references.get(position))

    def rebuild(definition: ColumnDef, default: Default) -> Scratch:
        copy = Scratch(schema)
        evaluated = Column((b"", 0, 0), definition.name, definition.type, default, definition.not_null, definition.references)
        copy.connection.execute(ddl.add_column_sql(replace(table, columns=(*table.columns, evaluated)), position))
        return copy

    # SQLite does not take NOT NULL without a default here; any default will do for comparing the rest.
    with rebuild(column, Default(DEFAULT_LITERAL, 0) if added.not_null else Default(DEFAULT_NONE)) as copy:
        _compare(scratch, copy, table.name, info)
    defaults = _find_defaults(scratch, table.name, info, range(position, position + 1))
    default = defaults.get(added.name, Default(DEFAULT_NONE))
    if default.kind == DEFAULT_UUID7:
        raise schema_refused(
            "An added column cannot have uuid7() as its default: rows exist already.", "Add it without a default."
        )
    with rebuild(column, default) as copy:
        _compare_defaults(scratch, copy, table.name, info, defaults)
    column = replace(column, default=default)
    _check_not_null(column)
    return AddColumn(table.id, column)


def _plan_index(scratch: Scratch, schema: Schema, name: str) -> CreateIndex:
    """The operation for the index that the client's statement made."""
    table_name, unique, partial = scratch.connection.execute(
        'SELECT m.tbl_name, i."unique", i.partial FROM sqlite_schema AS m, pragma_index_list(m.tbl_name) AS i'
        " WHERE m.type = 'index' AND m.name = ?1 AND i.name = m.name",
        (name,),
    ).fetchall()[0]
    if unique:
        raise schema_refused(
            "Unique indexes cannot be kept when devices write while apart.", "Create it without UNIQUE, or use a key."
        )
    if partial:
        raise schema_refused("Partial indexes are not supported.", "Leave WHERE out of CREATE INDEX.")
    table = next(table for table in schema.tables if table.name == table_name)
    columns = scratch.index_columns(name)
    for position, _, collation in columns:
        if position < 0:
            raise schema_refused("Indexes on expressions or the rowid are not supported.", "Index columns of the table.")
        if collation.upper() != "BINARY":
            raise schema_refused(f"The collation {collation} is not supported.", "Leave COLLATE out of CREATE INDEX.")
    if len({position for position, _, _ in columns}) != len(columns):
        raise schema_refused("The index names a column twice.", "Name each column once.")
    indexed = tuple((table.columns[position].id, descending) for position, descending, _ in columns)
    with Scratch(schema) as copy:
        copy.connection.execute(ddl.create_index_sql(Index(_HERE, name, table.id, indexed), table))
        if copy.index_columns(name) != columns:
            raise schema_refused("The index has parts that cannot be shared.", "Write: CREATE INDEX name ON table (column, …).")
    return CreateIndex(name, table.id, indexed)


def _check_identifier(name: str, what: str, reserved: tuple[str, ...]) -> None:
    """Refuses names of ours and of SQLite's, and those that no act can carry."""
    if fold(name).startswith(reserved):
        raise schema_refused(
            f"The {what} name {name!r} is reserved.", f"Use a name that does not begin with {', '.join(reserved)}."
        )
    if not is_identifier(name):
        raise schema_refused(
            f"{name!r} cannot name a {what}.", f"Use 1 to {IDENTIFIER_CHARS_MAX} characters, none a control character."
        )


def _check_key(info: TableInfo) -> None:
    if not info.key:
        raise schema_refused("The table has no primary key.", UUID7_REMEDY)
    if any(column.autoincrement for column in info.columns):
        raise schema_refused("AUTOINCREMENT gives different rows the same key on different devices.", UUID7_REMEDY)
    positions = [position for position, _, _ in info.key]
    if len(set(positions)) != len(positions):
        raise schema_refused("The primary key names a column twice.", "Name each column once.")
    if len(positions) == 1 and not info.without_rowid and info.columns[positions[0]].type.upper() == "INTEGER":
        raise schema_refused(
            "SQLite numbers an INTEGER PRIMARY KEY by itself, so different rows would get the same key on different devices.",
            UUID7_REMEDY,
        )
    for position, descending, collation in info.key:
        column = info.columns[position]
        if descending:
            raise schema_refused("A descending primary key is not supported.", "Leave DESC out of the key, and add an index.")
        if collation.upper() != "BINARY" or column.collation.upper() != "BINARY":
            raise schema_refused(
                f"The key column {column.name} has a collation.", "Leave COLLATE out: keys compare byte by byte."
            )
        if key_sample(column.type) is None:
            raise schema_refused(f"The key column {column.name} has the type {column.type or '(none)'}.", _KEY_REMEDY)


def _check_column(column: ColumnInfo, *, in_key: bool) -> None:
    """Refuses what a column's pragmas show that a group cannot share."""
    _check_identifier(column.name, "column", ("_peers_", "sqlite_"))
    if fold(column.name) in ("rowid", "_rowid_"):
        raise schema_refused(f"A column cannot be named {column.name}: it hides the rowid.", "Use another name.")
    if column.hidden:
        raise schema_refused(
            f"Generated columns ({column.name}) are not supported.", "Compute it in the query, or write it with the row."
        )
    if column.collation.upper() != "BINARY":
        raise schema_refused(f"The collation of {column.name} is not supported.", "Leave it out here; use COLLATE in the query.")
    if not is_type(_type_text(column.type)):
        raise schema_refused(f"The type {column.type!r} of {column.name} is not supported.", "Use TEXT, BLOB, INTEGER or REAL.")
    if column.not_null and not column.has_default and not in_key:
        raise _not_null_without_default(column.name)


def _check_not_null(column: ColumnDef) -> None:
    if column.not_null and column.default.kind != DEFAULT_UUID7 and column.default.value is None:
        raise _not_null_without_default(column.name)


def _not_null_without_default(column: str) -> PeersdError:
    return schema_refused(
        f"The column {column} is NOT NULL without a default, so a row whose write to it is voided could not exist.",
        f"Give it a default, such as: {column} TEXT NOT NULL DEFAULT ''",
    )


def _type_text(text: str) -> str:
    """A declared type with its white space made single."""
    return " ".join(text.split())


def _references_by_column(info: TableInfo) -> dict[int, str]:
    """REFERENCES clauses by the position of their column."""
    found: dict[int, str] = {}
    for reference in info.references:
        if len(reference.columns) != 1 or reference.columns[0] in found:
            raise schema_refused(
                "A reference of several columns, or two references of one column, are not supported.",
                "Write one REFERENCES after a column, or none.",
            )
        text = ddl.references_sql(reference.table, reference.targets[0], reference.on_update, reference.on_delete)
        if not is_references(text):
            raise schema_refused("The REFERENCES clause is too long.", "Leave it out: references are not enforced.")
        found[reference.columns[0]] = text
    return found


def _compare(scratch: Scratch, copy: Scratch, table: str, info: TableInfo) -> None:
    """Refuses the client's table when the rebuilt one does not behave the same, defaults apart."""
    names = info.names
    if _without_defaults(copy.describe(table)) != _without_defaults(info):
        raise schema_refused(
            "The definition has parts that cannot be shared.", "Write each column as: name TYPE [NOT NULL] [DEFAULT literal]."
        )
    mine, theirs = scratch.behaviour(table, names), copy.behaviour(table, names)
    if mine == theirs:
        return
    # Refused; what follows only finds the clause, for the remedy.
    if mine[:2] == theirs[:2]:
        raise schema_refused("DEFERRABLE references are not supported.", "Leave DEFERRABLE out: references are not enforced.")
    scratch.connection.pragma("ignore_check_constraints", True)
    unchecked = scratch.behaviour(table, names)
    scratch.connection.pragma("ignore_check_constraints", False)
    if unchecked != mine:
        raise schema_refused("CHECK cannot be kept when devices write while apart.", "Leave it out and check before writing.")
    raise schema_refused(
        "The definition has a clause that cannot be shared, such as ON CONFLICT.",
        "Leave it out of the definition; write INSERT OR REPLACE, or INSERT … ON CONFLICT DO ….",
    )


def _without_defaults(info: TableInfo) -> TableInfo:
    columns = tuple(replace(column, has_default=False, type=_type_text(column.type)) for column in info.columns)
    return replace(info, columns=columns, references=tuple(sorted(info.references, key=lambda reference: reference.columns)))


def _find_defaults(scratch: Scratch, table: str, info: TableInfo, positions: range) -> dict[str, Default]:
    """The defaults of columns: a literal as SQLite stores it, or uuid7(); columns without one, or with NULL, are left out."""
    found: dict[str, Default] = {}
    literal = []
    for position in positions:
        column = info.columns[position]
        if not column.has_default:
            continue
        functions = scratch.functions_in_default(table, column.name, info.names)
        if functions == {"uuid7"}:
            found[column.name] = Default(DEFAULT_UUID7)
        elif functions:
            raise schema_refused(
                f"The default of {column.name} calls {', '.join(sorted(functions))}.",
                "A default is a literal or (uuid7()); give the value in the INSERT instead, such as the time.",
            )
        else:
            literal.append(column.name)
    try:
        values = scratch.default_values(table, info) if found or literal else {}
    except SQLITE_FAILURES as error:
        raise schema_refused(
            f"A default cannot be stored in its column: {error}", "Give a literal of the column's type."
        ) from error
    for name in literal:
        value = values[name]
        if isinstance(value, str | bytes) and len(value.encode() if isinstance(value, str) else value) > LITERAL_BYTES_MAX:
            raise PeersdError("too_large", f"The default of {name} is too long.", hint=f"At most {LITERAL_BYTES_MAX} bytes.")
        if value is not None:
            found[name] = Default(DEFAULT_LITERAL, value)
    return found


def _compare_defaults(scratch: Scratch, copy: Scratch, table: str, info: TableInfo, defaults: dict[str, Default]) -> None:
    """Refuses defaults that, rebuilt, give other values, or are computed from uuid7()."""
    mine, theirs = scratch.default_values(table, info), copy.default_values(table, info)
    for name, default in defaults.items():
        same = _exact(mine[name]) == _exact(theirs[name])
        if default.kind == DEFAULT_UUID7:
            others = [other for other in info.names if other != name]
            insert = insert_sql(table, others)
            same = same and scratch.bytecode(insert, binds=bool(others)) == copy.bytecode(insert, binds=bool(others))
        if not same:
            raise schema_refused(f"The default of {name} is not a literal.", "A default is a literal or (uuid7()).")


def _exact(value: SQLValue) -> tuple[str, str]:
    """A value in a form that tells 1 from 1.0 and 0.0 from -0.0."""
    return type(value).__name__, repr(value)


def _evaluated_table(op: CreateTable) -> Table:
    """The table as it would be evaluated, with references to this same act."""
    columns = tuple(
        Column((b"", 0, position), column.name, column.type, column.default, column.not_null, column.references)
        for position, column in enumerate(op.columns)
    )
    return Table(_HERE, op.name, columns, op.key, op.without_rowid, op.strict)
