"""The application's tables and indexes, made from the evaluated schema (DESIGN 8).

What only appends (a table, a column, an index) is done in place. Anything else needs a rebuild from the logs, since the rows
that stand in the tables may then mean something else.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import apsw

from peersd.store import ddl
from peersd.store.layout import Layout, rowid_name
from peersd_protocol import canonical
from peersd_protocol.canonical import Value
from peersd_protocol.schema import Column, Index, Schema, Table, TableId


class _NotAppendable(Exception):
    """SQLite looks at the rows there are when a column is added, and refuses a default that they could not hold."""


class Projection:
    """Makes the tables and remembers from what. Transactions are the caller's; after a rollback the caller calls `reload`.

    Args:
        connection: the writer of the group's file; its _peers_ tables are made if need be.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection: Any = connection
        self._connection.execute(resources.files("peersd.store").joinpath("clocks.sql").read_text("utf-8")).fetchall()
        self.layouts: dict[TableId, Layout] = {}
        self.reload()

    def reload(self) -> None:
        """Reads anew what is in the file. The layouts are those of before until the next `update`."""
        rows = self._connection.execute("SELECT id, act, op, definition FROM _peers_table").fetchall()
        self._tables: dict[TableId, tuple[int, bytes]] = {(act, op): (number, definition) for number, act, op, definition in rows}
        rows = self._connection.execute("SELECT act, op, definition FROM _peers_index").fetchall()
        self._indexes: dict[TableId, bytes] = {(act, op): definition for act, op, definition in rows}

    def update(self, schema: Schema) -> bool:
        """Brings the tables in line with a schema, in place.

        Returns:
            Whether that was possible. If not, nothing was changed: `drop` makes room for any schema.
        """
        if not self._only_appends(schema):
            return False
        self._connection.execute("SAVEPOINT _peers_projection")
        try:
            self._change(schema)
        except _NotAppendable:
            self._connection.execute("ROLLBACK TO _peers_projection")
            self._connection.execute("RELEASE _peers_projection")
            self.reload()
            return False
        self._connection.execute("RELEASE _peers_projection")
        self._make_layouts(schema)
        return True

    def drop(self) -> None:
        """Drops all tables, indexes and clocks."""
        locators = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB '_peers_rid_*'"
        tables = f"SELECT name FROM _peers_table UNION ALL {locators}"
        for (name,) in self._connection.execute(tables).fetchall():
            self._connection.execute(f"DROP TABLE {ddl.quote_name(name)}")
        for name in ("table", "index", "shape", "span", "cell", "delete", "aside"):
            self._connection.execute(f"DELETE FROM _peers_{name}")
        self.reload()

    def _only_appends(self, schema: Schema) -> bool:
        for id_, (_, old) in self._tables.items():
            table = schema.tables_by_id.get(id_)
            if table is None:
                return False
            old_fixed, old_columns = _read_definition(old)
            new_fixed, new_columns = _define(table)
            if old_fixed != new_fixed or old_columns != new_columns[: len(old_columns)]:
                return False
        return True

    def _append_table(self, table: Table) -> None:
        definition = canonical.encode(list(_define(table)))
        known = self._tables.get(table.id)
        if known is None:
            self._connection.execute(ddl.create_table_sql(table))
            self._connection.execute(
                "INSERT INTO _peers_table (act, op, name, definition) VALUES (?, ?, ?, ?)", (*table.id, table.name, definition)
            )
            number: int = self._connection.last_insert_rowid()
            if rowid_name(table) is None:
                self._connection.execute(Layout(number, table).create_locator_sql)
        else:
            number, old = known
            if old == definition:
                return
            for position in range(len(_read_definition(old)[1]), len(table.columns)):
                try:
                    self._connection.execute(ddl.add_column_sql(table, position))
                except (apsw.SQLError, apsw.ConstraintError) as error:
                    raise _NotAppendable from error
            self._connection.execute("UPDATE _peers_table SET definition = ? WHERE id = ?", (definition, number))
        self._tables[table.id] = (number, definition)

    def _change(self, schema: Schema) -> None:
        # Indexes hold nothing of their own, so one that changed is made anew; tables and indexes share one space of names.
        wanted = {index.id: (index, canonical.encode(_define_index(index))) for index in schema.indexes}
        for id_ in [id_ for id_, old in self._indexes.items() if id_ not in wanted or wanted[id_][1] != old]:
            name = self._connection.execute("SELECT name FROM _peers_index WHERE act = ? AND op = ?", id_).get
            self._connection.execute(f"DROP INDEX {ddl.quote_name(name)}")
            self._connection.execute("DELETE FROM _peers_index WHERE act = ? AND op = ?", id_)
            del self._indexes[id_]
        for table in schema.tables:
            self._append_table(table)
        for id_, (index, definition) in wanted.items():
            if id_ not in self._indexes:
                self._connection.execute(ddl.create_index_sql(index, schema.tables_by_id[index.table]))
                self._connection.execute("INSERT INTO _peers_index VALUES (?, ?, ?, ?)", (*id_, index.name, definition))
                self._indexes[id_] = definition

    def _make_layouts(self, schema: Schema) -> None:
        old = self.layouts
        self.layouts = {}
        for table in schema.tables:
            number = self._tables[table.id][0]
            known = old.get(table.id)
            self.layouts[table.id] = known if known and known.number == number and known.table == table else Layout(number, table)


def _define(table: Table) -> tuple[list[Value], list[Value]]:
    """A table's definition in two parts: what never changes in place, and its columns, which may be appended to."""
    # A column that takes the last name of the row id moves the table to a locator.
    has_locator = rowid_name(table) is None
    fixed: list[Value] = [table.name, list(table.key), table.without_rowid, table.strict, has_locator]
    return fixed, [_define_column(column) for column in table.columns]


def _define_column(column: Column) -> Value:
    default: list[Value] = [column.default.kind, column.default.value]
    return [list(column.id), column.name, column.type, default, column.not_null, column.references]


def _define_index(index: Index) -> list[Value]:
    return [index.name, list(index.table), [[list(column), descending] for column, descending in index.columns]]


def _read_definition(packed: bytes) -> tuple[Value, list[Value]]:
    fixed, columns = canonical.decode(packed, bytes_max=len(packed))
    assert isinstance(columns, list)
    return fixed, columns
