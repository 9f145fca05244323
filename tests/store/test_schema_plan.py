"""From client statements to schema operations: what is kept, what is refused and with which remedy, and back to SQL."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peersd.errors import PeersdError
from peersd.store import ddl
from peersd.store.database import open_scratch
from peersd.store.schema_plan import plan_schema
from peersd_protocol.schema import EMPTY, Column, Default, Index, Schema, Table
from peersd_protocol.schema_ops import AddColumn, ColumnDef, CreateIndex, CreateTable, SchemaOp, decode_ops, op_value
from tests.store.rig import defined, evaluate, typed

BASE = defined("CREATE TABLE t (id TEXT PRIMARY KEY, a, b TEXT)", "CREATE TABLE p (x INTEGER, y TEXT, PRIMARY KEY (x, y))")
KEY = ColumnDef("id", "TEXT", not_null=True)


def plan(sql: str, schema: Schema = BASE) -> SchemaOp:
    (op,) = plan_schema(sql, schema)
    assert decode_ops([op_value(op)]) == (op,)
    return op


def refused(sql: str, schema: Schema = BASE) -> PeersdError:
    with pytest.raises(PeersdError) as caught:
        plan_schema(sql, schema)
    assert caught.value.hint
    assert caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("sql", "op"),
    [
        ("CREATE TABLE n (id TEXT PRIMARY KEY)", CreateTable("n", (KEY,), (0,))),
        ('CREATE TABLE "?1" (id TEXT PRIMARY KEY)', CreateTable("?1", (KEY,), (0,))),
        (
            'CREATE TABLE main."N 1" (id TEXT PRIMARY KEY DEFAULT (uuid7()), a INT NOT NULL DEFAULT -5, b) -- a comment',
            CreateTable(
                "N 1",
                (ColumnDef("id", "TEXT", Default(2), True), ColumnDef("a", "INT", Default(1, -5), True), ColumnDef("b", "")),
                (0,),
            ),
        ),
        (
            "CREATE TABLE n (b, a INTEGER, c BLOB NOT NULL, PRIMARY KEY (c, a)) WITHOUT ROWID",
            CreateTable(
                "n",
                (ColumnDef("b", ""), ColumnDef("a", "INTEGER", not_null=True), ColumnDef("c", "BLOB", not_null=True)),
                (2, 1),
                True,
            ),
        ),
        (
            "CREATE TABLE n (id TEXT PRIMARY KEY, a ANY, b REAL DEFAULT 1) STRICT",
            CreateTable("n", (KEY, ColumnDef("a", "ANY"), ColumnDef("b", "REAL", Default(1, 1.0))), (0,), strict=True),
        ),
        (
            "CREATE TABLE n (id TEXT NOT NULL PRIMARY KEY, a TEXT NOT NULL DEFAULT '') WITHOUT ROWID, STRICT",
            CreateTable("n", (KEY, ColumnDef("a", "TEXT", Default(1, ""), True)), (0,), True, True),
        ),
        (
            "CREATE TABLE n (id INTEGER PRIMARY KEY) WITHOUT ROWID",
            CreateTable("n", (ColumnDef("id", "INTEGER", not_null=True),), (0,), True),
        ),
        ("CREATE TABLE n (id INT PRIMARY KEY)", CreateTable("n", (ColumnDef("id", "INT", not_null=True),), (0,))),
        ("CREATE TABLE n (id varchar(36) PRIMARY KEY)", CreateTable("n", (ColumnDef("id", "varchar(36)", not_null=True),), (0,))),
        (
            "CREATE TABLE n (id TEXT PRIMARY KEY, a DOUBLE   PRECISION, b DECIMAL(10,2), c UNSIGNED BIG INT)",
            CreateTable(
                "n",
                (KEY, ColumnDef("a", "DOUBLE PRECISION"), ColumnDef("b", "DECIMAL(10,2)"), ColumnDef("c", "UNSIGNED BIG INT")),
                (0,),
            ),
        ),
        (
            "CREATE TABLE n (id TEXT PRIMARY KEY, a REFERENCES t, b TEXT REFERENCES p (x) ON DELETE CASCADE ON UPDATE SET NULL,"
            ' d REFERENCES n (id), c, FOREIGN KEY (c) REFERENCES "absent ""one" (z))',
            CreateTable(
                "n",
                (
                    KEY,
                    ColumnDef("a", "", references='REFERENCES "t"'),
                    ColumnDef("b", "TEXT", references='REFERENCES "p"("x") ON UPDATE SET NULL ON DELETE CASCADE'),
                    ColumnDef("d", "", references='REFERENCES "n"("id")'),
                    ColumnDef("c", "", references='REFERENCES "absent ""one"("z")'),
                ),
                (0,),
            ),
        ),
        ("CREATE TABLE n (id TEXT CONSTRAINT k PRIMARY KEY UNIQUE)", CreateTable("n", (KEY,), (0,))),
        ("ALTER TABLE t ADD COLUMN c", AddColumn(BASE.tables[0].id, ColumnDef("c", ""))),
        (
            "ALTER TABLE t ADD c TEXT NOT NULL DEFAULT 'x'",
            AddColumn(BASE.tables[0].id, ColumnDef("c", "TEXT", Default(1, "x"), True)),
        ),
        (
            "ALTER TABLE p ADD c REFERENCES t (id)",
            AddColumn(BASE.tables[1].id, ColumnDef("c", "", references='REFERENCES "t"("id")')),
        ),
        (
            "CREATE INDEX i ON t (b DESC, a)",
            CreateIndex("i", BASE.tables[0].id, ((BASE.tables[0].columns[2].id, True), (BASE.tables[0].columns[1].id, False))),
        ),
    ],
)
def test_a_statement_becomes_one_operation(sql: str, op: SchemaOp) -> None:
    assert plan(sql) == op


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("NULL", None),
        ("5", 5),
        ("-9223372036854775808", -(2**63)),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", 2.0**63),
        ("0x10", 16),
        ("+1.5", 1.5),
        ("-1e-300", -1e-300),
        ("9e999", math.inf),
        ("(-9e999)", -math.inf),
        ("TRUE", 1),
        ("'it''s'", "it's"),
        ("word", "word"),
        ("''", ""),
        ("x''", b""),
        ("x'00ff'", b"\x00\xff"),
        ("(CAST(x'610062' AS TEXT))", "a\0b"),
        ("(1 + 2 * 3)", 7),
        ("('a' || 'b')", "ab"),
        ("(CASE WHEN 1 THEN 'y' END)", "y"),
        ("(1.0)", 1.0),
    ],
)
def test_a_default_is_the_literal_that_sqlite_makes_of_it(literal: str, value: Any) -> None:
    expected = Default(0) if value is None else Default(1, value)
    created = plan(f"CREATE TABLE n (id TEXT PRIMARY KEY, a DEFAULT {literal})")
    assert isinstance(created, CreateTable)
    assert typed(created.columns[1].default.value) == typed(value)
    assert created.columns[1].default == expected
    added = plan(f"ALTER TABLE t ADD COLUMN c DEFAULT {literal}")
    assert isinstance(added, AddColumn)
    assert added.column.default == expected


def test_a_default_is_kept_as_its_column_stores_it() -> None:
    op = plan(
        "CREATE TABLE n (id TEXT PRIMARY KEY, a TEXT DEFAULT 5, b INTEGER DEFAULT '7', c REAL DEFAULT 1, d INTEGER DEFAULT 2.0)"
    )
    assert isinstance(op, CreateTable)
    assert [typed(column.default.value) for column in op.columns[1:]] == [typed(value) for value in ("5", 7, 1.0, 2)]


def test_if_not_exists_of_a_taken_name_changes_nothing() -> None:
    schema = evaluate(BASE, plan_schema("CREATE INDEX i ON t (a)", BASE))
    for sql in (
        "CREATE TABLE IF NOT EXISTS t (other)",
        "CREATE TABLE IF NOT EXISTS T (id INTEGER PRIMARY KEY)",
        "CREATE INDEX IF NOT EXISTS i ON t (b)",
    ):
        assert plan_schema(sql, schema) == []


CHECK, CONFLICT, CLOCK, NOT_NULL, KEY_REMEDY, ONE = (
    "check before writing",
    "INSERT OR REPLACE",
    "INSERT instead",
    "NOT NULL DEFAULT",
    "uuid7()",
    "alone",
)
REFUSED: list[tuple[str, str]] = [
    ("CREATE TABLE n (a)", KEY_REMEDY),
    ("CREATE TABLE n (id INTEGER PRIMARY KEY)", KEY_REMEDY),
    ("CREATE TABLE n (id integer, PRIMARY KEY (id))", KEY_REMEDY),
    ("CREATE TABLE n (id INTEGER PRIMARY KEY DESC)", KEY_REMEDY),
    ("CREATE TABLE n (id INTEGER PRIMARY KEY AUTOINCREMENT)", KEY_REMEDY),
    ("CREATE TABLE n (id INTEGER PRIMARY KEY) STRICT", KEY_REMEDY),
    ("CREATE TABLE n (id REAL PRIMARY KEY)", KEY_REMEDY),
    ("CREATE TABLE n (id NUMERIC PRIMARY KEY)", KEY_REMEDY),
    ("CREATE TABLE n (id PRIMARY KEY)", KEY_REMEDY),
    ("CREATE TABLE n (id TEXT, x DATETIME, PRIMARY KEY (id, x))", KEY_REMEDY),
    ("CREATE TABLE n (id ANY PRIMARY KEY) STRICT", KEY_REMEDY),
    ("CREATE TABLE n (id TEXT COLLATE NOCASE PRIMARY KEY)", "COLLATE"),
    ("CREATE TABLE n (id TEXT, PRIMARY KEY (id COLLATE NOCASE))", "COLLATE"),
    ("CREATE TABLE n (id TEXT, PRIMARY KEY (id COLLATE RTRIM)) WITHOUT ROWID", "COLLATE"),
    ("CREATE TABLE n (id TEXT PRIMARY KEY DESC)", "DESC"),
    ("CREATE TABLE n (id TEXT, b TEXT, PRIMARY KEY (b, id DESC))", "DESC"),
    ("CREATE TABLE n (id TEXT, PRIMARY KEY (id, id))", "once"),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a UNIQUE)", "primary key"),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a, UNIQUE (a, id))", "primary key"),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a CHECK (a > 1))", CHECK),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a, CHECK (1))", CHECK),
    ("CREATE TABLE n (id TEXT PRIMARY KEY CHECK (length(id) = 36))", CHECK),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a TEXT DEFAULT 'x' CHECK (a <> CAST(x'ff' AS TEXT))) STRICT", "blob"),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a DEFAULT 5 CHECK (NULL)) WITHOUT ROWID", CHECK),
    ("ALTER TABLE t ADD COLUMN c CHECK (c > 1)", CHECK),
    ("ALTER TABLE t ADD COLUMN c TEXT NOT NULL DEFAULT 'x' CHECK (c > '')", CHECK),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a AS (id))", "query"),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a TEXT GENERATED ALWAYS AS (id) STORED)", "query"),
    ("ALTER TABLE t ADD COLUMN c AS (a)", "query"),
    ("CREATE TABLE n (id TEXT PRIMARY KEY ON CONFLICT REPLACE)", CONFLICT),
    ("CREATE TABLE n (id TEXT PRIMARY KEY ON CONFLICT IGNORE) WITHOUT ROWID", CONFLICT),
    ("CREATE TABLE n (id TEXT, PRIMARY KEY (id) ON CONFLICT ROLLBACK)", CONFLICT),
    ("CREATE TABLE n (id TEXT PRIMARY KEY ON CONFLICT FAIL)", CONFLICT),
    ("CREATE TABLE n (id TEXT NOT NULL ON CONFLICT IGNORE PRIMARY KEY)", CONFLICT),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a NOT NULL ON CONFLICT REPLACE DEFAULT 3)", CONFLICT),
    ("CREATE TABLE n (id TEXT PRIMARY KEY UNIQUE ON CONFLICT IGNORE)", CONFLICT),
    ("ALTER TABLE t ADD COLUMN c NOT NULL ON CONFLICT IGNORE DEFAULT 3", CONFLICT),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a NOT NULL)", NOT_NULL),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a NOT NULL DEFAULT NULL)", "literal"),
    ("ALTER TABLE t ADD COLUMN c NOT NULL", NOT_NULL),
    ("ALTER TABLE t ADD COLUMN c NOT NULL DEFAULT NULL", "literal"),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a COLLATE NOCASE)", "COLLATE"),
    ("ALTER TABLE t ADD COLUMN c COLLATE NOCASE", "COLLATE"),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a DEFAULT CURRENT_TIMESTAMP)", CLOCK),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a DEFAULT (datetime('now')))", CLOCK),
    ("CREATE TABLE n (id TEXT PRIMARY KEY DEFAULT (hex(randomblob(16))))", CLOCK),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a DEFAULT (zeroblob(1000000000)))", CLOCK),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a DEFAULT (uuid7() || ''))", "literal or (uuid7())"),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a DEFAULT (CASE WHEN uuid7() > 'z' THEN 1 ELSE uuid7() END))", "literal or (uuid7())"),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a DEFAULT (CAST(x'ff' AS TEXT)))", "literal"),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a INTEGER DEFAULT 'x') STRICT", "column's type"),
    ("ALTER TABLE t ADD COLUMN c DEFAULT CURRENT_DATE", CLOCK),
    ("ALTER TABLE t ADD COLUMN c DEFAULT (uuid7())", "without a default"),
    ("ALTER TABLE t ADD COLUMN c UNIQUE", "not UNIQUE"),
    ("ALTER TABLE t ADD COLUMN c PRIMARY KEY", "no key"),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a REFERENCES t DEFERRABLE INITIALLY DEFERRED)", "not enforced"),
    ("ALTER TABLE t ADD COLUMN c REFERENCES t DEFERRABLE INITIALLY DEFERRED", "not enforced"),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a REFERENCES n ON DELETE CASCADE, b REFERENCES absent)", "not enforced"),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a, b, FOREIGN KEY (a, b) REFERENCES p (x, y))", "REFERENCES"),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a REFERENCES t REFERENCES p (x))", "REFERENCES"),
    ('CREATE TABLE n (id TEXT PRIMARY KEY, a "CHECK (1)")', "TEXT, BLOB"),
    ('CREATE TABLE n (id TEXT PRIMARY KEY, a "TEXT); DROP TABLE t")', "TEXT, BLOB"),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, a /* odd */ TEXT /* type */ x)", "TEXT, BLOB"),
    ("CREATE TABLE _peers_n (id TEXT PRIMARY KEY)", "_peers_"),
    ("CREATE TABLE _PEERS_n (id TEXT PRIMARY KEY)", "_peers_"),
    ("CREATE TABLE peers_n (id TEXT PRIMARY KEY)", "peers_"),
    ("CREATE INDEX _peers_i ON t (a)", "_peers_"),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, _peers_a)", "_peers_"),
    ("CREATE TABLE n (id TEXT PRIMARY KEY, rowid)", "another name"),
    ('CREATE TABLE "a\nb" (id TEXT PRIMARY KEY)', "characters"),
    (f"CREATE TABLE {'n' * 129} (id TEXT PRIMARY KEY)", "128"),
    ("CREATE UNIQUE INDEX i ON t (a)", "UNIQUE"),
    ("CREATE INDEX i ON t (a) WHERE a > 1", "WHERE"),
    ("CREATE INDEX i ON t (a + 1)", "columns"),
    ("CREATE INDEX i ON t (a, lower(b))", "columns"),
    ("CREATE INDEX i ON t (a COLLATE NOCASE)", "COLLATE"),
    ("CREATE INDEX i ON t (a, b, a)", "once"),
    ("DROP TABLE t", "DELETE FROM"),
    ("DROP INDEX IF EXISTS i", "DELETE FROM"),
    ("ALTER TABLE t RENAME TO u", "Add a column"),
    ("ALTER TABLE t RENAME COLUMN a TO z", "Add a column"),
    ("ALTER TABLE t DROP COLUMN a", "Add a column"),
    ("ALTER TABLE t ALTER COLUMN a SET NOT NULL", "Add a column"),
    ("ALTER TABLE t ADD CONSTRAINT c CHECK (a > 1)", "Add a column"),
    ("CREATE TABLE n AS SELECT 1 AS id", "INSERT … SELECT"),
    ("CREATE TABLE n AS SELECT * FROM t", "INSERT … SELECT"),
    ("CREATE VIEW v AS SELECT 1", "query"),
    ("CREATE TEMP VIEW v AS SELECT 1", "WITH"),
    ("CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END", "sql.transaction"),
    ("CREATE TEMP TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END", "WITH"),
    ("CREATE VIRTUAL TABLE v USING fts5 (a)", "ordinary table"),
    ("CREATE TEMP TABLE n (id TEXT PRIMARY KEY)", "ordinary table"),
    ("CREATE TABLE temp.n (id TEXT PRIMARY KEY)", "ordinary table"),
]


@pytest.mark.parametrize(("sql", "remedy"), REFUSED, ids=[sql[:60] for sql, _ in REFUSED])
def test_what_groups_cannot_share_is_refused_with_a_remedy(sql: str, remedy: str) -> None:
    schema = evaluate(BASE, plan_schema("CREATE INDEX i ON t (a)", BASE)) if sql.startswith("DROP INDEX") else BASE
    error = refused(sql, schema)
    assert (error.code, remedy in error.hint) == ("schema_refused", True), error.hint


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("CREATE TABLE t (id TEXT PRIMARY KEY)", "sql_error"),
        ("CREATE TABLE n (id TEXT PRIMARY KEY, ID)", "sql_error"),
        ("CREATE TABLE sqlite_n (id TEXT PRIMARY KEY)", "sql_error"),
        ("CREATE INDEX i ON absent (a)", "sql_error"),
        ("CREATE INDEX i ON t (absent)", "sql_error"),
        ("CREATE INDEX i ON t (rowid)", "sql_error"),
        ("ALTER TABLE absent ADD COLUMN a", "sql_error"),
        ("ALTER TABLE t ADD COLUMN a", "sql_error"),
        ("CREATE TABLE n (id TEXT PRIMARY KEY", "sql_error"),
        ("CREATE TABLE n (id TEXT PRIMARY KEY, a DEFAULT (SELECT 1))", "sql_error"),
        ("CREATE TABLE n (id TEXT PRIMARY KEY, a DEFAULT (?))", "sql_error"),
        ("CREATE TABLE n (id TEXT PRIMARY KEY); CREATE TABLE m (id TEXT PRIMARY KEY)", "sql_refused"),
        ("CREATE TABLE n (id TEXT PRIMARY KEY) nonsense", "sql_error"),
        ("CREATE TABLE n (id TEXT PRIMARY KEY); nonsense", "sql_refused"),
        ("", "sql_refused"),
        ("SELECT 1", "sql_refused"),
        ("INSERT INTO t (id) VALUES (1)", "sql_refused"),
        ("UPDATE sqlite_schema SET sql = ''", "sql_error"),
        ("EXPLAIN CREATE TABLE n (id TEXT PRIMARY KEY)", "sql_refused"),
        ("PRAGMA writable_schema = 1", "sql_refused"),
        ("BEGIN", "sql_refused"),
        ("VACUUM", "sql_refused"),
        ("ANALYZE", "sql_refused"),
        ("ATTACH ':memory:' AS x", "sql_refused"),
        (f"CREATE TABLE n (id TEXT PRIMARY KEY, a DEFAULT '{'x' * 5000}')", "too_large"),
        (f"CREATE TABLE n (id TEXT PRIMARY KEY) -- {'x' * 70_000}", "too_large"),
        (f"CREATE TABLE n (id TEXT PRIMARY KEY, {', '.join(f'c{i}' for i in range(200))})", "too_large"),
    ],
)
def test_what_is_no_valid_schema_statement_gets_its_own_error(sql: str, code: str) -> None:
    assert refused(sql).code == code


def test_a_column_refused_for_its_number_is_refused_when_added_too() -> None:
    schema = defined(f"CREATE TABLE n (id TEXT PRIMARY KEY, {', '.join(f'c{i}' for i in range(199))})")
    assert refused("ALTER TABLE n ADD COLUMN c", schema).code == "too_large"


# --- And back to SQL ---

VALUES = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.binary(max_size=20),
)


@settings(deadline=None)
@given(VALUES)
def test_a_literal_is_read_back_bit_for_bit(value: Any) -> None:
    connection = open_scratch()
    assert typed(connection.execute(f"SELECT {ddl.literal_sql(value)}").get) == typed(value)
    connection.execute("CREATE TABLE t (a)")
    connection.execute("INSERT INTO t VALUES (1)")
    connection.execute(f"ALTER TABLE t ADD COLUMN b{ddl.default_sql(Default(1, value))}")
    connection.execute("INSERT INTO t (a) VALUES (2)")
    assert [typed(b) for (b,) in connection.execute("SELECT b FROM t")] == [typed(value)] * 2
    connection.close()


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12).filter(
    lambda name: not name.lower().startswith(("_peers_", "peers_", "sqlite_")) and name.lower() not in ("rowid", "_rowid_")
)
TYPES = st.sampled_from(["", "TEXT", "BLOB", "INTEGER", "REAL", "VARCHAR(20)", "DOUBLE PRECISION", "ANY"])
DEFAULTS = st.one_of(st.just(Default(0)), st.just(Default(2)), VALUES.map(lambda value: Default(1, value)))


@st.composite
def tables(draw: st.DrawFn) -> Table:
    count = draw(st.integers(1, 5))
    names = draw(st.lists(NAMES, min_size=count, max_size=count, unique_by=str.lower))
    key = draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=count, unique=True))
    columns = []
    for position, name in enumerate(names):
        type_text = draw(st.sampled_from(["TEXT", "BLOB"])) if position in key else draw(TYPES)
        default = draw(DEFAULTS)
        not_null = position in key or (default.kind != 0 and draw(st.booleans()))
        references = draw(st.sampled_from([None, 'REFERENCES "o""ther"("x") ON DELETE CASCADE']))
        columns.append(Column((b"", 0, position), name, type_text, default, not_null, references))
    return Table((b"", 0), draw(NAMES), tuple(columns), tuple(key), draw(st.booleans()), False)


@settings(max_examples=60, deadline=None)
@given(tables())
def test_a_table_written_as_sql_plans_to_the_same_table(table: Table) -> None:
    op = plan(ddl.create_table_sql(table), EMPTY)
    assert isinstance(op, CreateTable)
    planned = evaluate(EMPTY, [op]).tables[0]
    assert planned.name == table.name
    assert (planned.key, planned.without_rowid, planned.strict) == (table.key, table.without_rowid, table.strict)
    for mine, theirs in zip(planned.columns, table.columns, strict=True):
        assert (mine.name, mine.type, mine.not_null, mine.references) == (
            theirs.name,
            theirs.type,
            theirs.not_null,
            theirs.references,
        )
    again = plan(ddl.create_table_sql(planned), EMPTY)
    assert again == op


def test_an_index_written_as_sql_plans_to_the_same_index() -> None:
    table = BASE.tables[0]
    index = Index((b"", 0), 'a "name"', table.id, ((table.columns[2].id, True), (table.columns[0].id, False)))
    assert plan(ddl.create_index_sql(index, table)) == CreateIndex('a "name"', table.id, index.columns)


@pytest.mark.parametrize(
    "column",
    [
        Column((b"", 0, 0), "id", "TEXT CHECK (1)", Default(0), True),
        Column((b"", 0, 0), "id", "TEXT); DROP TABLE t; --", Default(0), True),
        Column((b"", 0, 0), "id", "TEXT", Default(0), True, "REFERENCES t"),
        Column((b"", 0, 0), "id", "TEXT", Default(0), True, 'REFERENCES "t" CHECK (1)'),
        Column((b"", 0, 0), "id", "TEXT", Default(3), True),
        Column((b"", 0, 0), "id", "TEXT", Default(1, math.nan), True),
        Column((b"", 0, 0), "id", "TEXT", Default(1, 2**63), True),
        Column((b"", 0, 0), "", "TEXT", Default(0), True),
        Column((b"", 0, 0), "a\0b", "TEXT", Default(0), True),
        Column((b"", 0, 0), "\ud800", "TEXT", Default(0), True),
        Column((b"", 0, 0), "id", "INTEGER", Default(0), True),
    ],
)
def test_a_hostile_definition_never_becomes_sql(column: Column) -> None:
    with pytest.raises(ValueError):
        ddl.create_table_sql(Table((b"", 0), "t", (column,), (0,), False, False))


@pytest.mark.parametrize("key", [(), (0, 0)])
def test_a_table_without_a_proper_key_never_becomes_sql(key: tuple[int, ...]) -> None:
    with pytest.raises(ValueError):
        ddl.create_table_sql(Table((b"", 0), "t", (Column((b"", 0, 0), "id", "TEXT", Default(0), True),), key, False, False))
