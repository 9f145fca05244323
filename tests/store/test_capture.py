"""Every kind of statement, and every kind of value, ends as the net changes that stand in the file."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peersd.errors import PeersdError
from peersd.store import ddl
from peersd.store.changes import TableChanges
from peersd.store.client_sql import Statement
from tests.store.rig import Rig, apply_changes, defined, typed

T = "CREATE TABLE t (id TEXT PRIMARY KEY, a, b)"
W = "CREATE TABLE w (a, id TEXT, n INTEGER, PRIMARY KEY (n, id)) WITHOUT ROWID"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    one = Rig(tmp_path, T, W)
    yield one
    one.close()


def only(changes: list[TableChanges]) -> TableChanges:
    (one,) = changes
    return one


def net(changes: list[TableChanges]) -> dict[str, list[Any]]:
    """What the single changed table's rows underwent, without row ids."""
    one = only(changes)
    found: dict[str, list[Any]] = {
        "insert": [row for _, row in one.inserts],
        "update": [(old, new) for _, _, old, new in one.updates],
        "delete": [row for _, row in one.deletes],
    }
    return {kind: rows for kind, rows in found.items() if rows}


@pytest.fixture
def two_rows(rig: Rig) -> Rig:
    rig.run("INSERT INTO t VALUES ('1', 1, 'x'), ('2', 2, 'y')")
    return rig


STATEMENTS: list[tuple[str, dict[str, list[Any]]]] = [
    ("INSERT INTO t VALUES ('3', 3, NULL)", {"insert": [("3", 3, None)]}),
    ("INSERT INTO t VALUES ('3', 3, 3), ('4', 4, 4)", {"insert": [("3", 3, 3), ("4", 4, 4)]}),
    ("INSERT INTO t SELECT id || 'z', a, b FROM t", {"insert": [("1z", 1, "x"), ("2z", 2, "y")]}),
    ("INSERT INTO t (id) VALUES ('3') RETURNING *", {"insert": [("3", None, None)]}),
    ("UPDATE t SET a = 7 WHERE id = '1'", {"update": [(("1", 1, "x"), ("1", 7, "x"))]}),
    ("DELETE FROM t WHERE id = '1'", {"delete": [("1", 1, "x")]}),
    ("DELETE FROM t", {"delete": [("1", 1, "x"), ("2", 2, "y")]}),
    ("INSERT OR REPLACE INTO t VALUES ('1', 1, 'new')", {"update": [(("1", 1, "x"), ("1", 1, "new"))]}),
    (
        "INSERT OR REPLACE INTO t VALUES ('1', 0, 0), ('2', 0, 0), ('3', 0, 0)",
        {"insert": [("3", 0, 0)], "update": [(("1", 1, "x"), ("1", 0, 0)), (("2", 2, "y"), ("2", 0, 0))]},
    ),
    ("UPDATE OR REPLACE t SET id = '2' WHERE id = '1'", {"update": [(("2", 2, "y"), ("2", 1, "x"))], "delete": [("1", 1, "x")]}),
    ("UPDATE OR REPLACE t SET id = '9'", {"insert": [("9", 2, "y")], "delete": [("1", 1, "x"), ("2", 2, "y")]}),
    ("UPDATE t SET id = '3' WHERE id = '1'", {"insert": [("3", 1, "x")], "delete": [("1", 1, "x")]}),
    (
        "INSERT INTO t VALUES ('1', 5, 5), ('3', 3, 3) ON CONFLICT DO UPDATE SET a = excluded.a",
        {"insert": [("3", 3, 3)], "update": [(("1", 1, "x"), ("1", 5, "x"))]},
    ),
    ("INSERT INTO t VALUES ('1', 5, 5), ('3', 3, 3) ON CONFLICT DO NOTHING", {"insert": [("3", 3, 3)]}),
    ("INSERT OR IGNORE INTO t VALUES ('1', 5, 5), ('3', 3, 3)", {"insert": [("3", 3, 3)]}),
    (
        "UPDATE t SET a = s.a + 10 FROM (SELECT id, a FROM t) AS s WHERE s.id = t.id AND t.id = '2'",
        {"update": [(("2", 2, "y"), ("2", 12, "y"))]},
    ),
    ("WITH n(x) AS (VALUES ('5'), ('6')) INSERT INTO t (id) SELECT x FROM n", {"insert": [("5", None, None), ("6", None, None)]}),
    ("INSERT INTO t (rowid, id, a) VALUES (-5, '3', 3)", {"insert": [("3", 3, None)]}),
    (
        "REPLACE INTO t (rowid, id, a) VALUES (2, '1', 3)",
        {"update": [(("1", 1, "x"), ("1", 3, None))], "delete": [("2", 2, "y")]},
    ),
    (
        "INSERT INTO t (rowid, id) VALUES (9223372036854775807, '3'), (NULL, '4')",
        {"insert": [("3", None, None), ("4", None, None)]},
    ),
]


@pytest.mark.parametrize(("sql", "expected"), STATEMENTS, ids=[sql for sql, _ in STATEMENTS])
def test_a_statement_gives_its_net_changes(two_rows: Rig, sql: str, expected: dict[str, list[Any]]) -> None:
    _, changes = two_rows.run(sql)
    assert {kind: sorted(rows, key=repr) for kind, rows in net(changes).items()} == {
        kind: sorted(rows, key=repr) for kind, rows in expected.items()
    }


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE t SET a = a",
        "UPDATE t SET a = 1 WHERE id = '1'",
        "DELETE FROM t WHERE id = 'none'",
        "SELECT * FROM t",
        "INSERT OR IGNORE INTO t (id) VALUES ('1')",
    ],
)
def test_no_difference_is_no_change(two_rows: Rig, sql: str) -> None:
    success, changes = two_rows.run(sql)
    assert changes == []
    assert success.recorded is None


def test_statements_of_one_request_net_out(two_rows: Rig) -> None:
    _, changes = two_rows.run(
        "INSERT INTO t VALUES ('3', 3, 3)",
        "DELETE FROM t WHERE id = '3'",
        "UPDATE t SET a = 9 WHERE id = '1'",
        "UPDATE t SET a = 1 WHERE id = '1'",
        "DELETE FROM t WHERE id = '2'",
        "INSERT INTO t VALUES ('2', 2, 'other')",
        "UPDATE t SET id = 'k' WHERE id = '1'",
        "UPDATE t SET id = '1' WHERE id = 'k'",
    )
    assert net(changes) == {"update": [(("2", 2, "y"), ("2", 2, "other"))]}


def test_two_rows_may_swap_their_keys(two_rows: Rig) -> None:
    _, changes = two_rows.run(
        "UPDATE t SET id = 'k' WHERE id = '1'", "UPDATE t SET id = '1' WHERE id = '2'", "UPDATE t SET id = '2' WHERE id = 'k'"
    )
    assert net(changes) == {"update": [(("2", 2, "y"), ("2", 1, "x")), (("1", 1, "x"), ("1", 2, "y"))]}


def test_replacing_a_row_by_the_same_content_is_a_pure_move(two_rows: Rig) -> None:
    _, changes = two_rows.run("REPLACE INTO t VALUES ('1', 1, 'x')")
    assert only(changes).updates == [(1, 3, ("1", 1, "x"), ("1", 1, "x"))]
    assert only(changes).inserts == only(changes).deletes == []


def test_row_ids_are_those_before_and_now(two_rows: Rig) -> None:
    _, changes = two_rows.run(
        "REPLACE INTO t VALUES ('1', 1, 'n')", "DELETE FROM t WHERE id = '2'", "INSERT INTO t VALUES ('3', 0, 0)"
    )
    assert only(changes) == TableChanges("t", [(4, ("3", 0, 0))], [(1, 3, ("1", 1, "x"), ("1", 1, "n"))], [(2, ("2", 2, "y"))])


def test_a_composite_key_without_rowid_is_matched_in_key_order(rig: Rig) -> None:
    _, changes = rig.run("INSERT INTO w VALUES ('v', 'x', 1), ('u', 'x', 2)")
    assert only(changes).inserts == [(None, ("v", "x", 1)), (None, ("u", "x", 2))]
    _, changes = rig.run(
        "REPLACE INTO w VALUES ('new', 'x', 1)", "UPDATE w SET n = 3 WHERE n = 2", "INSERT INTO w VALUES (NULL, 'y', -1)"
    )
    assert net(changes) == {
        "insert": [("u", "x", 3), (None, "y", -1)],
        "update": [(("v", "x", 1), ("new", "x", 1))],
        "delete": [("u", "x", 2)],
    }
    _, changes = rig.run("REPLACE INTO w VALUES ('new', 'x', 1)")
    assert changes == []
    _, changes = rig.run("UPDATE OR REPLACE w SET n = 1 WHERE n = 3")
    assert net(changes) == {"update": [(("new", "x", 1), ("u", "x", 1))], "delete": [("u", "x", 3)]}
    _, changes = rig.run("DELETE FROM w")
    assert net(changes) == {"delete": [(None, "y", -1), ("u", "x", 1)]}


def test_a_statement_that_failed_within_another_leaves_no_trace(two_rows: Rig) -> None:
    with pytest.raises(PeersdError, match="UNIQUE constraint failed"):
        two_rows.run("INSERT INTO t VALUES ('8', 8, 8), ('1', 0, 0)")
    _, changes = two_rows.run("INSERT OR FAIL INTO t SELECT '7', 7, 7 WHERE NOT EXISTS (SELECT 1 FROM t WHERE id = '8')")
    assert net(changes) == {"insert": [("7", 7, 7)]}


def test_several_tables_are_captured_apart(rig: Rig) -> None:
    _, changes = rig.run(
        "INSERT INTO t (id) VALUES ('1')", "INSERT INTO w (id, n) VALUES ('1', 1)", "INSERT INTO t (id) VALUES ('2')"
    )
    assert [(one.table, len(one.inserts)) for one in changes] == [("t", 2), ("w", 1)]


def test_nothing_is_noted_while_entries_are_applied(rig: Rig) -> None:
    with rig.capture.paused():
        with rig.capture.paused():
            rig.writer.execute("INSERT INTO t (id) VALUES ('1')")
        rig.writer.execute("INSERT INTO t (id) VALUES ('0')")
    assert rig.capture.take() == []
    rig.writer.execute("INSERT INTO t (id) VALUES ('2')")
    assert net(rig.capture.take()) == {"insert": [("2", None, None)]}
    assert rig.capture.take() == []


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t (id) VALUES ('3')",
        "UPDATE t SET a = 7 WHERE id = '1'",
        "DELETE FROM t WHERE id = '1'",
        "INSERT OR REPLACE INTO t (id, a) VALUES ('1', 7)",
    ],
)
def test_what_was_prepared_while_nothing_was_noted_is_noted_when_it_runs_again(two_rows: Rig, sql: str) -> None:
    with two_rows.capture.paused():
        two_rows.writer.execute("SAVEPOINT undone")
        two_rows.writer.execute(sql)  # stays prepared in the connection's cache
        two_rows.writer.execute("ROLLBACK TO undone")
        two_rows.writer.execute("RELEASE undone")
    two_rows.writer.execute(sql)
    assert two_rows.capture.take() != []


def test_a_row_that_is_given_another_rowid_is_a_pure_move(two_rows: Rig) -> None:
    # Clients cannot; the hook must not lose the row all the same.
    two_rows.writer.execute("UPDATE t SET rowid = 7 WHERE id = '1'")
    assert only(two_rows.capture.take()).updates == [(1, 7, ("1", 1, "x"), ("1", 1, "x"))]


def test_our_own_tables_are_not_captured(rig: Rig) -> None:
    rig.writer.execute("INSERT INTO _peers_secret VALUES (1, 'x')")
    assert rig.capture.take() == []


VALUES: list[Any] = [
    None,
    0,
    1,
    -1,
    2**63 - 1,
    -(2**63),
    0.5,
    1.0,
    5e-324,
    1.7976931348623157e308,
    math.inf,
    -math.inf,
    "",
    "text",
    "nul\0within",
    "\0",
    "ünïcode 🙂",
    "1",
    b"",
    b"\x00\xff",
    b"x" * 2**20,
    "x" * 2**20,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:30])
@pytest.mark.parametrize("table", ["t", "w"])
def test_a_value_is_captured_as_it_is_stored(rig: Rig, table: str, value: Any) -> None:
    key = "'k'" if table == "t" else "'k', 1"
    columns = "id" if table == "t" else "id, n"
    position = 1 if table == "t" else 0
    _, changes = rig.run(Statement(f"INSERT INTO {table} ({columns}, a) VALUES ({key}, ?)", [value]))
    assert typed(only(changes).inserts[0][1][position]) == typed(value)
    _, changes = rig.run(f"DELETE FROM {table}")
    assert typed(only(changes).deletes[0][1][position]) == typed(value)


@pytest.mark.parametrize(("old", "new"), [(1, 1.0), (1.0, 1), (1, "1"), ("a", b"a"), (None, 0), ("", None), ("a", "a\0")])
def test_values_of_different_types_differ(rig: Rig, old: Any, new: Any) -> None:
    rig.run(Statement("INSERT INTO t VALUES ('k', ?, 0)", [old]))
    _, changes = rig.run(Statement("UPDATE t SET a = :a", {"a": new}))
    ((_, _, before, now),) = only(changes).updates
    assert (typed(before[1]), typed(now[1])) == (typed(old), typed(new))


def test_a_real_column_keeps_whole_numbers_real(tmp_path: Path) -> None:
    # SQLite stores 1.0 in a REAL column as an integer and gives a double back; the hook and SELECT must agree.
    rig = Rig(tmp_path, "CREATE TABLE r (id TEXT PRIMARY KEY, x REAL, y)")
    rig.run("INSERT INTO r VALUES ('1', 1, 1)")
    _, changes = rig.run("UPDATE r SET y = 2")
    assert [tuple(map(typed, row)) for row in only(changes).updates[0][2:]] == [
        (typed("1"), typed(1.0), typed(1)),
        (typed("1"), typed(1.0), typed(2)),
    ]
    _, changes = rig.run("UPDATE r SET x = 1.0")
    assert changes == []
    rig.close()


def test_a_column_added_later_is_captured_with_its_default(tmp_path: Path) -> None:
    rig = Rig(tmp_path, T, W)
    rig.run("INSERT INTO t VALUES ('1', 1, 1), ('2', 2, 2)", "INSERT INTO w VALUES (1, 'x', 1)")
    rig.define("ALTER TABLE t ADD COLUMN c TEXT NOT NULL DEFAULT 'later'")
    rig.define("ALTER TABLE w ADD COLUMN c REAL DEFAULT 7")
    _, changes = rig.run("UPDATE t SET a = 5 WHERE id = '1'", "DELETE FROM t WHERE id = '2'", "UPDATE w SET a = 5")
    assert changes == [
        TableChanges("t", [], [(1, 1, ("1", 1, 1, "later"), ("1", 5, 1, "later"))], [(2, ("2", 2, 2, "later"))]),
        TableChanges("w", [], [(None, None, (1, "x", 1, 7.0), (5, "x", 1, 7.0))], []),
    ]
    rig.close()


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES ('k', CAST(x'ff' AS TEXT), 0)",
        "INSERT INTO t VALUES (CAST(x'ff' AS TEXT), 0, 0)",
        "INSERT INTO w VALUES (CAST(x'ff' AS TEXT), 'k', 0)",
        "INSERT INTO w VALUES (0, CAST(x'ff' AS TEXT), 0)",
    ],
)
def test_text_that_is_not_utf8_is_refused_before_commit(rig: Rig, sql: str) -> None:
    error = rig.fail(sql)
    assert (error.code, "blob" in error.hint) == ("sql_error", True)
    assert rig.dump("t") == rig.dump("w") == []
    rig.run("INSERT INTO t (id) VALUES ('fine')")


@pytest.mark.parametrize(
    ("table", "value"), [("i", 1.5), ("i", None), ("b", 1.0), ("b", None), ("j", 1.5), ("j", None), ("c", 1.0)]
)
def test_a_key_that_is_null_or_real_is_refused(tmp_path: Path, table: str, value: Any) -> None:
    rig = Rig(
        tmp_path,
        "CREATE TABLE i (x TEXT, k INTEGER, PRIMARY KEY (x, k))",
        "CREATE TABLE b (x TEXT, k BLOB PRIMARY KEY)",
        "CREATE TABLE j (x TEXT, k INTEGER PRIMARY KEY) WITHOUT ROWID",
        "CREATE TABLE c (x TEXT, k BLOB, PRIMARY KEY (k, x)) WITHOUT ROWID",
    )
    error = rig.fail(Statement(f"INSERT INTO {table} (x, k) VALUES ('x', ?)", [value]))
    assert error.code == "sql_error"
    assert error.hint
    assert rig.dump(table) == []
    rig.run(Statement(f"INSERT INTO {table} (x, k) VALUES ('x', ?)", [7]))
    assert rig.fail(Statement(f"UPDATE {table} SET k = ?", [value])).code == "sql_error"
    assert rig.dump(table) == [("x", 7)]
    rig.close()


def test_a_whole_double_becomes_an_integer_key(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "CREATE TABLE j (k INTEGER PRIMARY KEY, a) WITHOUT ROWID")
    rig.run("INSERT INTO j VALUES (1, 'a')")
    _, changes = rig.run(Statement("REPLACE INTO j VALUES (?, 'b')", [1]), Statement("UPDATE j SET k = ? WHERE k = 1", [1]))
    assert [tuple(map(typed, row)) for row in only(changes).updates[0][2:]] == [
        (typed(1), typed("a")),
        (typed(1), typed("b")),
    ]
    rig.close()


def test_a_transaction_above_the_bound_of_a_body_is_refused(rig: Rig) -> None:
    error = rig.fail("WITH n(i) AS (VALUES (1), (2), (3), (4), (5)) INSERT INTO t SELECT i, zeroblob(14 << 20), 0 FROM n")
    assert error.code == "too_large"
    assert rig.dump("t") == []


def test_a_great_insert_is_captured_whole(rig: Rig) -> None:
    rows = [[f"k{i:05}", i, None] for i in range(5000)]
    _, changes = rig.run(Statement("INSERT INTO t VALUES (?, ?, ?)", params_seq=rows))
    assert only(changes).inserts == [(i + 1, tuple(row)) for i, row in enumerate(rows)]
    _, changes = rig.run("UPDATE t SET a = a + 1 WHERE a % 2")
    assert len(only(changes).updates) == 2500
    _, changes = rig.run("DELETE FROM t")
    assert len(only(changes).deletes) == 5000


def test_columns_that_take_every_name_of_the_rowid_do_not_mislead(tmp_path: Path) -> None:
    # No client of ours can define such a table; an act written by hand could.
    schema = defined("CREATE TABLE q (id TEXT PRIMARY KEY, x1, x2, oid)")
    (table,) = schema.tables
    names = ["id", "rowid", "_rowid_", "oid"]
    table = replace(table, columns=tuple(replace(c, name=n) for c, n in zip(table.columns, names, strict=True)))
    rig = Rig(tmp_path)
    rig.writer.execute(ddl.create_table_sql(table))
    rig.capture.watch([table])
    rig.sandbox.admit_tables(["q"])
    rig.run("INSERT INTO q VALUES ('1', 100, 200, 300)", "INSERT INTO q VALUES ('2', 1, 1, 1)")
    _, changes = rig.run("REPLACE INTO q VALUES ('1', 101, 200, 300)", "DELETE FROM q WHERE id = '2'")
    assert only(changes) == TableChanges(
        "q", [], [(None, None, ("1", 100, 200, 300), ("1", 101, 200, 300))], [(None, ("2", 1, 1, 1))]
    )
    rig.close()


# --- Random histories against a dump before and after ---

KEYS = st.sampled_from(["1", "2", "3", "4"])
NUMBERS = st.sampled_from([0, 1, 2])
CELLS = st.sampled_from([None, 0, 1, 1.0, -0.0, 0.0, "", "1", b"", b"1"])


def _statement(table: str) -> st.SearchStrategy[Statement]:
    where = "id = ?" if table == "t" else "id = ? AND n = ?"
    key = st.tuples(KEYS) if table == "t" else st.tuples(KEYS, NUMBERS)
    columns = "id" if table == "t" else "id, n"
    marks = "?" if table == "t" else "?, ?"
    other = "b" if table == "t" else "a"

    def made(sql: str, *parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Statement]:
        def build(drawn: tuple[Any, ...]) -> Statement:
            params: list[Any] = []
            for part in drawn:
                params.extend(part if isinstance(part, tuple) else [part])
            return Statement(sql, params)

        return st.tuples(*parts).map(build)

    verbs = st.sampled_from(["INSERT", "INSERT OR REPLACE", "INSERT OR IGNORE", "INSERT OR FAIL", "INSERT OR ABORT"])
    updates = st.sampled_from(["UPDATE", "UPDATE OR REPLACE", "UPDATE OR IGNORE", "UPDATE OR FAIL"])
    inserts = verbs.flatmap(lambda verb: made(f"{verb} INTO {table} ({columns}, a) VALUES ({marks}, ?)", key, CELLS))
    pairs = verbs.flatmap(
        lambda verb: made(f"{verb} INTO {table} ({columns}, a) VALUES ({marks}, ?), ({marks}, ?)", key, CELLS, key, CELLS)
    )
    upserts = made(f"INSERT INTO {table} ({columns}, a) VALUES ({marks}, ?) ON CONFLICT DO UPDATE SET a = excluded.a", key, CELLS)
    sets = updates.flatmap(lambda verb: made(f"{verb} {table} SET a = ?, {other} = ? WHERE {where}", CELLS, CELLS, key))
    moves = updates.flatmap(lambda verb: made(f"{verb} {table} SET id = ? WHERE {where}", KEYS, key))
    all_moves = updates.flatmap(lambda verb: made(f"{verb} {table} SET id = ? WHERE id > ?", KEYS, KEYS))
    deletes = made(f"DELETE FROM {table} WHERE {where}", key)
    clears = st.just(Statement(f"DELETE FROM {table}"))
    copies = verbs.flatmap(
        lambda verb: made(f"{verb} INTO {table} ({columns}, a) SELECT {columns}, ? FROM {table} WHERE {where}", CELLS, key)
    )
    kinds = [inserts, pairs, upserts, sets, moves, all_moves, deletes, clears, copies]
    if table == "t":
        rowids = st.integers(-1, 6)
        kinds.append(verbs.flatmap(lambda verb: made(f"{verb} INTO t (rowid, id, a) VALUES (?, ?, ?)", rowids, KEYS, CELLS)))
    return st.one_of(kinds)


REQUESTS = st.lists(st.one_of(_statement("t"), _statement("w")), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(st.lists(REQUESTS, min_size=1, max_size=6))
def test_net_changes_are_the_difference_of_the_tables_before_and_after(requests: list[list[Statement]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), T, W)
        tables = {table.name: table for table in rig.schema.tables}
        shadow: dict[str, dict[object, Any]] = {name: {} for name in tables}
        try:
            # Half of the requests share a batch, so that one's rollback stands beside another's rows.
            for start in range(0, len(requests), 2):
                _, recorded = rig.batch(*requests[start : start + 2])
                for index in sorted(recorded.changes):
                    for one in recorded.changes[index]:
                        apply_changes(shadow[one.table], tables[one.table], one)
                        for _, _, old, new in one.updates:
                            moved = [typed(value) for value in old] == [typed(value) for value in new]
                            assert not moved or one.table == "t"
                for name in tables:
                    stored = sorted([typed(value) for value in row] for row in rig.dump(name))
                    assert stored == sorted([typed(value) for value in row] for row in shadow[name].values())
        finally:
            rig.close()
