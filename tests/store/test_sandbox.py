"""What client SQL may and may not do, on the writer and on a reader."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from peersd.errors import PeersdError
from peersd.store.client_sql import QueryResult, Statement, classify, run_query
from peersd.store.sandbox import FUNCTIONS
from peersd.store.schema_plan import plan_schema
from tests.store.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    one = Rig(tmp_path, "CREATE TABLE t (id TEXT PRIMARY KEY DEFAULT (uuid7()), a, b)", "CREATE INDEX i ON t (a)")
    one.run("INSERT INTO t VALUES ('1', 1, 'x'), ('2', 2, 'y')")
    one.writer.execute("INSERT INTO _peers_secret VALUES (1, 'secret')")
    one.writer.execute("INSERT INTO peers_groups VALUES ('g')")
    yield one
    one.close()


def query(rig: Rig, sql: str, params: Any = None, **bounds: Any) -> QueryResult:
    bounds.setdefault("deadline_s", time.monotonic() + 60)
    return run_query(rig.reader, rig.reader_sandbox, sql, params, **bounds)


def refused(rig: Rig, sql: str) -> PeersdError:
    with pytest.raises(PeersdError) as caught:
        query(rig, sql)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT id, a FROM t ORDER BY 1", [("1", 1), ("2", 2)]),
        ("SELECT count(*) FROM t", [(2,)]),
        ("SELECT 1 FROM t", [(1,), (1,)]),
        ("VALUES (1), ('a')", [(1,), ("a",)]),
        ("WITH x AS MATERIALIZED (SELECT a FROM t) SELECT count(*) FROM x", [(2,)]),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT i FROM n", [(1,), (2,), (3,)]),
        ("WITH t2(v) AS (SELECT 7) SELECT t.a, t2.v FROM t JOIN t2 ORDER BY 1 LIMIT 1", [(1, 7)]),
        ("SELECT value FROM json_each('[1,2]')", [(1,), (2,)]),
        ("SELECT count(*) FROM json_tree('{\"a\":[1]}')", [(3,)]),
        ("SELECT x.value FROM t, json_each('[5]') AS x WHERE t.id = '1'", [(5,)]),
        ("SELECT group_concat(a, '+'), upper('a'), json('[1]') -> 0, 'a' LIKE 'A' FROM t", [("1+2", "A", "1", 1)]),
        ("SELECT sum(a) OVER (ORDER BY id) FROM t", [(1,), (3,)]),
        ('SELECT a FROM T AS "Z" WHERE "Z".ID = \'2\'', [(2,)]),
        ("SELECT main.t.a FROM main.t WHERE rowid = 1", [(1,)]),
        ("SELECT * FROM peers_groups", [("g",)]),
        ("SELECT count(*) FROM peers_groups", [(1,)]),
        ("SELECT length(uuid7())", [(36,)]),
        ("SELECT :a || ?2", [("pq",)]),
        ("/* a */ SELECT 1; -- b", [(1,)]),
        (";;SELECT 1;;", [(1,)]),
    ],
)
def test_a_query_over_the_groups_tables_answers(rig: Rig, sql: str, rows: list[Any]) -> None:
    assert query(rig, sql, ["p", "q"] if "?2" in sql else None).rows == rows


HIDDEN = [
    "SELECT * FROM _peers_secret",
    "SELECT count(*) FROM _peers_secret",
    "SELECT 1 FROM _peers_secret",
    "SELECT count(*) FROM main._PEERS_secret AS x",
    "SELECT EXISTS (SELECT 1 FROM _peers_secret)",
    "SELECT 1 FROM t WHERE a IN (SELECT id FROM _peers_secret)",
    "WITH x AS (SELECT text FROM _peers_secret) SELECT * FROM x",
    "SELECT * FROM t JOIN _peers_secret USING (id)",
    "SELECT * FROM sqlite_schema",
    "SELECT count(*) FROM sqlite_schema",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM sqlite_temp_master",
    "SELECT * FROM dbstat",
    "SELECT count(*) FROM dbstat",
    "SELECT * FROM pragma_table_info('_peers_secret')",
    "SELECT count(*) FROM pragma_table_list",
    "SELECT * FROM pragma_database_list",
    "SELECT * FROM fts5vocab",
    "SELECT load_extension('x')",
    "SELECT fts3_tokenizer('x')",
    "SELECT fts3_tokenizer('x', x'00')",
    "SELECT sqlite_compileoption_get(1)",
    "SELECT sqlite_log(1, 'x')",
    "PRAGMA journal_mode = delete",
    "PRAGMA query_only = 0",
    "PRAGMA table_info(t)",
    "PRAGMA data_version",
    "ATTACH ':memory:' AS x",
    "ATTACH '{folder}/new.db' AS x",
    "DETACH main",
    "VACUUM",
    "VACUUM INTO '{folder}/new.db'",
    "ANALYZE",
    "REINDEX",
    "REINDEX i",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "RELEASE _peers_request",
    "ROLLBACK TO _peers_request",
    "END",
]


@pytest.mark.parametrize("sql", HIDDEN)
def test_what_is_not_the_groups_own_is_refused_to_reader_and_writer(rig: Rig, tmp_path: Path, sql: str) -> None:
    sql = sql.replace("{folder}", str(tmp_path))
    assert refused(rig, sql).code in ("sql_refused", "sql_error")
    error = rig.fail(sql)
    # ANALYZE would make a table of SQLite's own.
    assert error.code in ("sql_refused", "sql_error", "schema_refused" if sql == "ANALYZE" else "sql_error")
    assert error.hint
    with pytest.raises(PeersdError) as caught:
        # VACUUM and ANALYZE look like statements about the schema, until the planner tries them.
        assert classify(rig.reader, rig.reader_sandbox, sql) == "schema"
        plan_schema(sql, rig.schema)
    assert caught.value.code in ("sql_refused", "sql_error")
    assert not (tmp_path / "new.db").exists()
    assert rig.dump("_peers_secret") == [(1, "secret")]
    assert rig.writer.pragma("journal_mode") == "wal"


def test_most_of_what_is_refused_is_named_by_the_sandbox(rig: Rig) -> None:
    # SQLite's own errors come first for what does not even compile, such as a table that needs arguments.
    own = [sql for sql in HIDDEN if refused(rig, sql).code == "sql_error"]
    assert own == ["SELECT * FROM fts5vocab"]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t (a) VALUES (1)",
        "UPDATE t SET a = 1",
        "DELETE FROM t",
        "WITH x AS (SELECT 1) DELETE FROM t",
        "INSERT INTO t (a) VALUES (1) RETURNING *",
        "CREATE TABLE z (id TEXT PRIMARY KEY)",
        "CREATE INDEX j ON t (b)",
        "ALTER TABLE t ADD COLUMN c",
        "DROP TABLE t",
        "CREATE TABLE IF NOT EXISTS t (id)",
        "CREATE INDEX IF NOT EXISTS i ON t (b)",
        "DROP TABLE IF EXISTS absent",
    ],
)
def test_a_query_that_writes_is_refused_with_where_to_send_it(rig: Rig, sql: str) -> None:
    error = refused(rig, sql)
    assert (error.code, "sql.execute" in error.hint) == ("sql_refused", True)


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("INSERT INTO _peers_secret VALUES (2, 'x')", "sql_refused"),
        ("UPDATE _peers_secret SET text = 'x'", "sql_refused"),
        ("DELETE FROM _peers_secret", "sql_refused"),
        ("INSERT INTO peers_groups VALUES ('h')", "sql_refused"),
        ("INSERT INTO t SELECT text, 1, 1 FROM _peers_secret", "sql_refused"),
        ("INSERT INTO t (id) VALUES ('9') RETURNING (SELECT text FROM _peers_secret)", "sql_refused"),
        ("UPDATE t SET a = 1 FROM _peers_secret", "sql_refused"),
        ("UPDATE t SET rowid = 7", "sql_refused"),
        ("UPDATE t SET oid = 7", "sql_refused"),
        ("INSERT INTO t (id) VALUES ('1') ON CONFLICT DO UPDATE SET _rowid_ = 9", "sql_refused"),
        ("INSERT INTO sqlite_schema VALUES (1, 2, 3, 4, 5)", "schema_refused"),
        ("CREATE TABLE z (id TEXT PRIMARY KEY)", "schema_refused"),
        ("CREATE TABLE IF NOT EXISTS t (id)", "schema_refused"),
        ("CREATE TEMP TABLE z (id TEXT PRIMARY KEY)", "schema_refused"),
        ("CREATE INDEX j ON t (b)", "schema_refused"),
        ("CREATE VIEW v AS SELECT 1", "schema_refused"),
        ("CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END", "schema_refused"),
        ("CREATE VIRTUAL TABLE v USING fts5 (a)", "schema_refused"),
        ("ALTER TABLE t ADD COLUMN c", "schema_refused"),
        ("ALTER TABLE t RENAME TO u", "schema_refused"),
        ("DROP TABLE t", "schema_refused"),
        ("DROP INDEX i", "schema_refused"),
        ("", "sql_refused"),
        ("  -- nothing", "sql_refused"),
        ("SELECT 1; SELECT 2", "sql_refused"),
        ("INSERT INTO t (id) VALUES ('8'); DELETE FROM t", "sql_refused"),
        ("INSERT INTO t (id) VALUES ('8'); nonsense", "sql_refused"),
        ("INSERT INTO t (id) VALUES ('8'); COMMIT", "sql_refused"),
        ("INSERT INTO t (id) VALUES (?)", "sql_error"),
        ("INSERT INTO t (id) VALUES ('a\0b')", "sql_error"),
        ('SELECT "no such column" FROM t', "sql_error"),
        ("SELECT '\ud800'", "sql_error"),
    ],
)
def test_a_write_beyond_the_groups_tables_is_refused(rig: Rig, sql: str, code: str) -> None:
    error = rig.fail(sql)
    assert error.code == code
    assert error.hint
    assert rig.dump("t") == [("1", 1, "x"), ("2", 2, "y")]
    assert rig.dump("_peers_secret") == [(1, "secret")]


@pytest.mark.parametrize("params", [[], ["a", "b"], {"id": 1}, [["nested"]], [2**63], [object()], ["\ud800"], "text"])
def test_wrong_params_are_the_clients_error(rig: Rig, params: Any) -> None:
    assert rig.fail(Statement("INSERT INTO t (id) VALUES (?)", params)).code == "sql_error"
    with pytest.raises(PeersdError) as caught:
        query(rig, "SELECT ?", params)
    assert caught.value.code == "sql_error"


def test_a_missing_named_parameter_is_an_error_and_no_null(rig: Rig) -> None:
    assert rig.fail(Statement("INSERT INTO t (id) VALUES (:id)", {"di": 1})).code == "sql_error"


def test_a_statement_of_ours_in_the_cache_does_not_serve_a_client(rig: Rig) -> None:
    sql = "DELETE FROM _peers_secret WHERE id = ?"
    for _ in range(3):
        rig.writer.execute(sql, (99,))
        assert rig.fail(Statement(sql, [1])).code == "sql_refused"
        assert rig.fail(Statement(sql, params_seq=[[1], [1]])).code == "sql_refused"
    assert rig.dump("_peers_secret") == [(1, "secret")]


@pytest.mark.parametrize("how", [{"params": [1]}, {"params_seq": [[1], [2]]}])
def test_a_clients_statement_in_the_cache_does_not_serve_a_table_that_is_no_more_admitted(rig: Rig, how: Any) -> None:
    statement = Statement("INSERT INTO t (a) VALUES (?)", **how)
    rig.run(statement)
    rig.run(statement)
    rig.sandbox.admit_tables([])
    assert rig.fail(statement).code == "sql_refused"


def test_a_write_that_is_sent_again_answers_as_the_first_time(rig: Rig) -> None:
    insert = ";; INSERT INTO t (id, a) VALUES (?, 'x') RETURNING id, a AS \"of it\"; -- a remark"
    update = Statement("UPDATE t SET a = 'y' WHERE id = 'none' RETURNING a")
    for id_ in ("8", "9"):
        first, second = rig.run(Statement(insert, [id_]), update)[0].results
        assert (first.changes, first.columns, first.rows) == (1, ["id", "of it"], [(id_, "x")])
        assert (second.changes, second.columns, second.rows) == (0, ["a"], [])


def test_few_and_short_texts_of_writes_are_remembered(rig: Rig) -> None:
    for number in range(250):
        rig.run(Statement(f"INSERT INTO t (id) VALUES ('n{number}')"))
    assert 0 < len(rig.sandbox.admitted_writes) <= 100
    before = set(rig.sandbox.admitted_writes)
    rig.run(Statement(f"INSERT INTO t (id) VALUES ('{'long' * 5000}')"))
    assert set(rig.sandbox.admitted_writes) == before


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT 1", "read"),
        ("VALUES (1)", "read"),
        ("WITH x AS (SELECT 1) SELECT * FROM x", "read"),
        ("EXPLAIN QUERY PLAN SELECT * FROM t", "read"),
        ("SELECT ?", "read"),
        ("INSERT INTO t (id) VALUES (1)", "write"),
        ("REPLACE INTO t (id) SELECT 1", "write"),
        ("WITH x AS (SELECT 1) UPDATE t SET a = 1", "write"),
        ("DELETE FROM t RETURNING *", "write"),
        ("CREATE TABLE z (id TEXT PRIMARY KEY)", "schema"),
        ("CREATE TABLE z AS SELECT * FROM t", "schema"),
        ("CREATE TABLE IF NOT EXISTS t (id)", "schema"),
        ("CREATE INDEX j ON t (b)", "schema"),
        ("CREATE INDEX j ON t (abs(b))", "schema"),
        ("CREATE INDEX IF NOT EXISTS i ON t (b)", "schema"),
        ("ALTER TABLE t ADD COLUMN c", "schema"),
        ("ALTER TABLE t ADD COLUMN c TEXT NOT NULL DEFAULT 'x' CHECK (c > '')", "schema"),
        ("ALTER TABLE t RENAME TO u", "schema"),
        ("ALTER TABLE t RENAME COLUMN a TO z", "schema"),
        ("ALTER TABLE t DROP COLUMN b", "schema"),
        ("DROP TABLE t", "schema"),
        ("DROP TABLE IF EXISTS absent", "schema"),
        ("DROP INDEX i", "schema"),
        ("CREATE VIEW v AS SELECT 1", "schema"),
        ("CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END", "schema"),
        ("CREATE TEMP TABLE z (id)", "schema"),
        ("CREATE VIRTUAL TABLE v USING fts5 (a)", "schema"),
    ],
)
def test_sqlite_itself_tells_what_kind_a_statement_is(rig: Rig, sql: str, kind: str) -> None:
    for connection, sandbox in ((rig.reader, rig.reader_sandbox), (rig.writer, rig.sandbox)):
        assert classify(connection, sandbox, sql, [1] if "?" in sql else None) == kind
    assert rig.dump("t") == [("1", 1, "x"), ("2", 2, "y")]
    assert [row[0] for row in rig.writer.execute("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY 1")] == [
        "_peers_secret",
        "i",
        "peers_groups",
        "t",
    ]


def test_a_query_is_cut_at_its_limit_and_says_so(rig: Rig) -> None:
    assert query(rig, "SELECT a FROM t ORDER BY a", rows_max=1) == QueryResult(["a"], [(1,)], True)
    assert query(rig, "SELECT a FROM t ORDER BY a", rows_max=2) == QueryResult(["a"], [(1,), (2,)], False)
    assert query(rig, 'SELECT a AS "x y" FROM t WHERE 0') == QueryResult(["x y"], [], False)
    great = query(
        rig, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100) SELECT zeroblob(1000000) FROM n"
    )
    assert (len(great.rows), great.truncated) == (10, True)


def test_a_query_beyond_its_deadline_is_stopped(rig: Rig) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with pytest.raises(PeersdError) as caught:
        query(rig, endless, deadline_s=time.monotonic() + 0.05)
    assert (caught.value.code, caught.value.retry) == ("timeout", True)
    assert query(rig, "SELECT 1").rows == [(1,)]


def test_a_query_that_eats_memory_is_stopped(rig: Rig) -> None:
    before = apsw.memory_used()
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000000)"
    eater = f"{endless} SELECT i, randomblob(5000) AS r FROM n ORDER BY r"
    with pytest.raises(PeersdError) as caught:
        query(rig, eater)
    assert caught.value.code == "too_large"
    assert apsw.memory_used() - before < 16 << 20


def test_a_value_above_the_limit_is_refused(rig: Rig) -> None:
    assert rig.fail("INSERT INTO t VALUES ('big', zeroblob(1 << 27), 0)").code == "too_large"
    assert rig.fail(Statement("INSERT INTO t VALUES ('big', ?, 0)", [b"x" * ((64 << 20) + 1)])).code == "too_large"


def test_an_unfinished_query_leaves_no_snapshot_behind(rig: Rig) -> None:
    query(rig, "SELECT a FROM t", rows_max=1)
    rig.run("INSERT INTO t (id) VALUES ('3')")
    busy, _ = rig.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    assert query(rig, "SELECT count(*) FROM t").rows == [(3,)]
    assert busy == 0


def test_invalid_text_in_a_result_is_an_error_with_a_way_out(rig: Rig) -> None:
    with pytest.raises(PeersdError) as caught:
        query(rig, "SELECT CAST(x'ff' AS TEXT)")
    assert (caught.value.code, "BLOB" in caught.value.hint) == ("sql_error", True)


def test_every_admitted_function_exists_but_one_that_is_optional() -> None:
    connection = apsw.Connection(":memory:")
    existing = {name for (name,) in connection.execute("SELECT DISTINCT name FROM pragma_function_list")}
    assert FUNCTIONS - existing == {"soundex", "uuid7"}
    dangerous = {"load_extension", "fts3_tokenizer", "sqlite_log", "rtreecheck", "fts5", "subtype", "optimize", "matchinfo"}
    assert not FUNCTIONS & dangerous
