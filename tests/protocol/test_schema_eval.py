"""From schema acts to one schema: names, aliases, losers, and what is passed over (SPEC: A, DESIGN 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peersd_protocol.constants import COLUMNS_MAX, TABLES_MAX
from peersd_protocol.schema import EMPTY, Default, Schema
from peersd_protocol.schema_eval import evaluate_schema
from peersd_protocol.schema_ops import AddColumn, ColumnDef, CreateIndex, CreateTable, SchemaOp

A, B, C, E = b"\xaa" * 32, b"\xbb" * 32, b"\xcc" * 32, b"\xee" * 32
ID, X, Y = ColumnDef("id", "TEXT"), ColumnDef("x", "TEXT"), ColumnDef("y", "INTEGER")


def short(act_hash: bytes, op: int = 0) -> tuple[bytes, int]:
    return act_hash[:16], op


def t(*columns: ColumnDef, name: str = "t") -> CreateTable:
    return CreateTable(name, (ID, *columns), (0,))


def build(*acts: tuple[bytes, Sequence[SchemaOp]]) -> Schema:
    return evaluate_schema(acts)


def names(schema: Schema) -> list[str]:
    return [table.name for table in schema.tables]


def columns(schema: Schema, table: int = 0) -> list[str]:
    return [column.name for column in schema.tables[table].columns]


def test_no_acts_make_the_empty_schema() -> None:
    assert build() == EMPTY


def test_a_table_has_the_ids_of_its_act_and_a_key_that_is_not_null() -> None:
    schema = build((A, [t(X)]))
    table = schema.tables[0]
    assert (table.id, table.name, table.key, table.without_rowid, table.strict) == (short(A), "t", (0,), False, False)
    assert [(column.id, column.name, column.type, column.not_null) for column in table.columns] == [
        ((A[:16], 0, 0), "id", "TEXT", True),
        ((A[:16], 0, 1), "x", "TEXT", False),
    ]
    assert schema.version == 1


def test_operations_of_one_act_refer_to_each_other() -> None:
    schema = build((A, [t(X), AddColumn((b"", 0), Y), CreateIndex("i", (b"", 0), (((b"", 1, 0), True), ((b"", 0, 1), False)))]))
    assert columns(schema) == ["id", "x", "y"]
    assert schema.tables[0].columns[2].id == (A[:16], 1, 0)
    assert schema.indexes[0].columns == (((A[:16], 1, 0), True), ((A[:16], 0, 1), False))
    assert schema.version == 3


def test_the_same_table_made_twice_alike_is_one_table_and_an_alias() -> None:
    schema = build((A, [t(X)]), (B, [t(X)]))
    assert names(schema) == ["t"]
    assert schema.aliases == {short(B): short(A)}
    assert schema.column_aliases == {(B[:16], 0, 0): (A[:16], 0, 0), (B[:16], 0, 1): (A[:16], 0, 1)}
    assert schema.table(short(B)) is schema.table(short(A)) is schema.tables[0]
    assert schema.column_id((B[:16], 0, 1)) == (A[:16], 0, 1)
    assert schema.version == 2


@pytest.mark.parametrize(
    "other",
    [
        CreateTable("T", (ColumnDef("ID", "text", not_null=True), ColumnDef("X", "Text")), (0,)),
        CreateTable("t", (ColumnDef("id", "TEXT", not_null=True), X), (0,)),
    ],
)
def test_alike_means_alike_for_sqlite(other: CreateTable) -> None:
    assert names(build((A, [t(X)]), (B, [other]))) == ["t"]


@pytest.mark.parametrize(
    "other",
    [
        t(Y),
        t(),
        t(X, Y),
        t(ColumnDef("x", "BLOB")),
        t(ColumnDef("x", "TEXT", Default(1, 0))),
        t(ColumnDef("x", "TEXT", Default(1, None))),
        t(ColumnDef("x", "TEXT", Default(2))),
        t(ColumnDef("x", "TEXT", references='REFERENCES "o"')),
        CreateTable("t", (ID, X), (0, 1)),
        CreateTable("t", (ID, X), (1,)),
        CreateTable("t", (ID, X), (0,), without_rowid=True),
        CreateTable("t", (ID, X), (0,), strict=True),
        CreateTable("T", (ID, Y), (0,)),
    ],
)
def test_unlike_tables_of_one_name_are_two_and_the_first_keeps_it(other: CreateTable) -> None:
    schema = build((A, [t(X)]), (B, [other]))
    assert names(schema) == ["t", f"{other.name}~bbbb"]
    assert schema.aliases == {}
    assert schema.table(short(B)) == schema.tables[1]


@pytest.mark.parametrize(("first", "second"), [(0, 0.0), (1, 1.0), ("", b""), (0.0, -0.0)])
def test_defaults_that_python_calls_equal_are_not_alike(first: object, second: object) -> None:
    one, two = (t(ColumnDef("x", "ANY", Default(1, value))) for value in (first, second))  # type: ignore[arg-type]
    assert names(build((A, [one]), (B, [two]))) == ["t", "t~bbbb"]


def test_a_third_table_alike_the_second_is_an_alias_of_the_second() -> None:
    schema = build((A, [t(X)]), (B, [t(Y)]), (C, [t(Y)]))
    assert names(schema) == ["t", "t~bbbb"]
    assert schema.aliases == {short(C): short(B)}


def test_a_suffix_that_is_taken_is_lengthened() -> None:
    schema = build((A, [t(X, name="t~bbbb"), t(X)]), (B, [t(Y)]))
    assert names(schema) == ["t~bbbb", "t", "t~bbbbb"]


def test_a_column_added_twice_alike_is_one_column() -> None:
    schema = build((A, [t()]), (B, [AddColumn(short(A), X)]), (C, [AddColumn(short(A), ColumnDef("X", "text"))]))
    assert columns(schema) == ["id", "x"]
    assert schema.column_aliases == {(C[:16], 0, 0): (B[:16], 0, 0)}


def test_a_column_added_twice_unlike_is_two_and_the_first_keeps_the_name() -> None:
    schema = build((A, [t()]), (B, [AddColumn(short(A), X)]), (C, [AddColumn(short(A), ColumnDef("x", "BLOB"))]))
    assert columns(schema) == ["id", "x", "x~cccc"]
    assert schema.tables[0].positions[C[:16], 0, 0] == 2


def test_a_column_added_to_an_alias_lands_in_the_table_that_stands_for_both() -> None:
    schema = build((A, [t(X)]), (B, [t(X)]), (C, [AddColumn(short(B), Y)]))
    assert names(schema) == ["t"]
    assert columns(schema) == ["id", "x", "y"]


def test_indexes_alike_are_one_and_unlike_are_two() -> None:
    one = CreateIndex("i", short(A), (((A[:16], 0, 1), False),))
    through_alias = CreateIndex("I", short(B), (((B[:16], 0, 1), False),))
    unlike = CreateIndex("i", short(A), (((A[:16], 0, 1), True),))
    schema = build((A, [t(X)]), (B, [t(X), through_alias]), (C, [one]), (E, [unlike]))
    assert [(index.name, index.id) for index in schema.indexes] == [("I", short(B, 1)), ("i~eeee", short(E))]
    assert schema.indexes[0].columns == (((A[:16], 0, 1), False),)


def test_tables_and_indexes_share_their_names() -> None:
    index = CreateIndex("u", short(A), (((A[:16], 0, 1), False),))
    other = CreateIndex("T", short(A), (((A[:16], 0, 0), False),))
    schema = build((A, [t(X)]), (B, [index]), (C, [t(X, name="u")]), (E, [other]))
    assert names(schema) == ["t", "u~cccc"]
    assert [index.name for index in schema.indexes] == ["u", "T~eeee"]


def test_operations_on_what_is_not_there_are_passed_over() -> None:
    missing_column = CreateIndex("i", short(A), (((C[:16], 0, 0), False),))
    missing_table = CreateIndex("i", short(C), (((A[:16], 0, 0), False),))
    schema = build((A, [t()]), (B, [AddColumn(short(C), X), missing_table, missing_column]))
    assert (names(schema), columns(schema), schema.indexes, schema.version) == (["t"], ["id"], (), 1)


def test_a_reference_to_an_index_is_no_table() -> None:
    index = CreateIndex("i", short(A), (((A[:16], 0, 0), False),))
    assert columns(build((A, [t()]), (B, [index]), (C, [AddColumn(short(B), X)]))) == ["id"]


def test_of_two_acts_with_one_id_the_first_has_it() -> None:
    twin = A[:16] + b"\x00" * 16
    schema = build((A, [t(X)]), (twin, [t(Y), t(name="u")]))
    assert names(schema) == ["t", "u"]


def test_tables_and_columns_beyond_the_bounds_are_passed_over() -> None:
    many = [t(name=f"t{number}") for number in range(TABLES_MAX)]
    schema = build((A, many), (B, [t(name="one more")]))
    assert len(schema.tables) == TABLES_MAX
    wide = build((A, [t()]), (B, [AddColumn(short(A), ColumnDef(f"c{number}", "")) for number in range(COLUMNS_MAX)]))
    assert len(wide.tables[0].columns) == COLUMNS_MAX


OPS: list[SchemaOp] = [
    t(X),
    t(Y),
    t(X, name="T"),
    t(X, name="u"),
    *(AddColumn(short(act, op), column) for act in (A, B) for op in (0, 1) for column in (X, Y, ColumnDef("X", "BLOB"))),
    *(CreateIndex(name, short(A), (((A[:16], 0, 0), False),)) for name in ("i", "u")),
]


SOME_OPS = st.lists(st.sampled_from(OPS), max_size=6)


@given(SOME_OPS, SOME_OPS, SOME_OPS)
def test_names_are_always_distinct_and_every_alias_leads_to_a_table(
    one: list[SchemaOp], two: list[SchemaOp], three: list[SchemaOp]
) -> None:
    schema = build((A, one), (B, two), (C, three))
    every = [*names(schema), *(index.name for index in schema.indexes)]
    assert len({name.lower() for name in every}) == len(every)
    assert set(schema.aliases.values()) <= set(schema.tables_by_id)
    for position, table in enumerate(schema.tables):
        assert len({name.lower() for name in columns(schema, position)}) == len(table.columns)
        assert len(table.positions) == len(table.columns)
    for alias, column in schema.column_aliases.items():
        assert any(column in table.positions for table in schema.tables)
        assert not any(alias in table.positions for table in schema.tables)
    assert build((A, one), (B, two), (C, three)) == schema


# --- Bounds ---


def test_operations_beyond_the_bounds_are_passed_over() -> None:
    full = build((A, [t(name=f"t{number}") for number in range(TABLES_MAX + 1)]))
    assert len(full.tables) == TABLES_MAX
    columns = [ColumnDef(f"c{number}", "") for number in range(COLUMNS_MAX - 1)]
    wide = build((A, [t(*columns)]), (B, [AddColumn(short(A), ColumnDef("more", ""))]))
    assert wide == replace(build((A, [t(*columns)])), version=wide.version)
