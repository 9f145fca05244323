"""Schema over two daemons: what is refused and with which remedy, and what becomes of changes that were made apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peersd.client import PeersError
from peersd.testing.observing import read_file
from peersd.testing.pairs import GROUP, Pair, open_pair
from peersd.testing.processes import DaemonProcess, open_daemon

pytestmark = pytest.mark.e2e

NOTE = "CREATE TABLE note (id TEXT PRIMARY KEY DEFAULT (uuid7()), text TEXT)"

REFUSED = {
    # A statement, and a word of the remedy. Every form of each: tests/store/test_schema_plan.py.
    "CREATE TABLE n (a TEXT)": "uuid7()",
    "CREATE TABLE n (id REAL PRIMARY KEY)": "uuid7()",
    "CREATE TABLE n (id PRIMARY KEY)": "uuid7()",
    "CREATE TABLE n (id INTEGER PRIMARY KEY)": "id TEXT PRIMARY KEY DEFAULT (uuid7())",
    "CREATE TABLE n (id INTEGER PRIMARY KEY AUTOINCREMENT)": "id TEXT PRIMARY KEY DEFAULT (uuid7())",
    "CREATE TABLE n (id TEXT COLLATE NOCASE PRIMARY KEY)": "COLLATE",
    "CREATE TABLE n (id TEXT PRIMARY KEY, a UNIQUE)": "primary key",
    "CREATE TABLE n (id TEXT PRIMARY KEY, a CHECK (a > 1))": "check before writing",
    "CREATE TABLE n (id TEXT PRIMARY KEY, a AS (id))": "query",
    "CREATE TABLE n (id TEXT PRIMARY KEY, a NOT NULL)": "NOT NULL DEFAULT",
    "CREATE TABLE n (id TEXT PRIMARY KEY, a DEFAULT CURRENT_TIMESTAMP)": "INSERT",
    "CREATE UNIQUE INDEX i ON note (text)": "UNIQUE",
    "CREATE INDEX i ON note (text) WHERE text > ''": "WHERE",
    "CREATE INDEX i ON note (lower(text))": "columns",
    "DROP TABLE note": "DELETE FROM",
    "ALTER TABLE note RENAME TO n": "column",
    "ALTER TABLE note RENAME COLUMN text TO t": "column",
    "ALTER TABLE note DROP COLUMN text": "column",
    "CREATE TABLE n AS SELECT * FROM note": "INSERT",
    "CREATE VIEW v AS SELECT * FROM note": "query",
    "CREATE TRIGGER g AFTER INSERT ON note BEGIN SELECT 1; END": "sql.transaction",
    "CREATE VIRTUAL TABLE v USING fts5 (a)": "ordinary table",
    "CREATE TEMP TABLE n (id TEXT PRIMARY KEY)": "ordinary table",
}


async def test_each_refusal_names_its_remedy_and_changes_nothing(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "ada") as ada:
        await ada.call("init", user_name="ada")
        await ada.call("group.create", name=GROUP)
        await ada.call("sql.execute", sql=NOTE)
        before = await ada.call("schema.show")
        for sql, remedy in REFUSED.items():
            with pytest.raises(PeersError) as caught:
                await ada.call("sql.execute", sql=sql)
            assert (caught.value.code, remedy in caught.value.hint) == ("schema_refused", True), f"{sql}: {caught.value.hint}"
        shown = await ada.peers("sql", "CREATE TABLE n (id INTEGER PRIMARY KEY)")
        assert (shown.status, "hint:" in shown.err, "uuid7()" in shown.err) == (1, True, True)
        # A key may be declared nullable, but holds no NULL, and no double.
        for table in ("t (k TEXT PRIMARY KEY)", "i (k INTEGER, l INTEGER, PRIMARY KEY (k, l))"):
            await ada.call("sql.execute", sql=f"CREATE TABLE {table}")
        for sql in ("INSERT INTO t VALUES (NULL)", "INSERT INTO i VALUES (1, NULL)", "INSERT INTO i VALUES (1.5, 1)"):
            with pytest.raises(PeersError) as caught:
                await ada.call("sql.execute", sql=sql)
            assert caught.value.code == "sql_error", sql
        assert len((await ada.call("schema.show"))["tables"]) == len(before["tables"]) + 2
        assert (await ada.call("sql.query", sql="SELECT count(*) FROM t"))["rows"] == [[0]]


async def execute(daemon: DaemonProcess, *statements: str) -> None:
    for sql in statements:
        await daemon.call("sql.execute", sql=sql, group=GROUP)


async def schemas(pair: Pair) -> list[dict[str, Any]]:
    """The tables of both sides, which must be alike to the letter, in the API and in the files."""
    on_ada, on_ben = [await daemon.call("schema.show", group=GROUP) for daemon in (pair.ada, pair.ben)]
    assert on_ada == on_ben
    sql = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE '\\_peers\\_%' ESCAPE '\\' ORDER BY 1, 2"
    in_ada, in_ben = [read_file(await pair.path(daemon), sql) for daemon in (pair.ada, pair.ben)]
    assert in_ada == in_ben
    assert sorted(table["name"] for table in on_ada["tables"]) == [name for kind, name, _, _ in in_ada if kind == "table"]
    return list(on_ada["tables"])


async def test_a_column_added_while_the_other_is_apart_loses_nothing(tmp_path: Path) -> None:
    async with open_pair(tmp_path, NOTE) as pair:
        await execute(pair.ada, "INSERT INTO note VALUES ('both', 'old')")
        await pair.sync()
        await pair.part()
        await execute(
            pair.ada,
            "ALTER TABLE note ADD COLUMN stars INTEGER NOT NULL DEFAULT 3",
            "UPDATE note SET stars = 5 WHERE id = 'both'",
            "INSERT INTO note VALUES ('ada', 'a', 1)",
            "CREATE INDEX by_stars ON note (stars DESC, text)",
        )
        # Ben writes rows of the table as he knows it.
        await execute(pair.ben, "UPDATE note SET text = 'new' WHERE id = 'both'", "INSERT INTO note VALUES ('ben', 'b')")
        await pair.meet()
        assert await pair.rows("SELECT id, text, stars FROM note ORDER BY id") == [
            ["ada", "a", 1],
            ["ben", "b", 3],
            ["both", "new", 5],
        ]
        await execute(pair.ben, "UPDATE note SET stars = stars + 1")
        await pair.sync()
        assert await pair.rows("SELECT id, stars FROM note ORDER BY id") == [["ada", 2], ["ben", 4], ["both", 6]]
        (table,) = await schemas(pair)
        assert [column["name"] for column in table["columns"]] == ["id", "text", "stars"]
        assert [index["name"] for index in table["indexes"]] == ["by_stars"]


async def test_both_add_columns_to_one_table_apart(tmp_path: Path) -> None:
    async with open_pair(tmp_path, NOTE) as pair:
        await pair.part()
        await execute(pair.ada, "ALTER TABLE note ADD COLUMN x TEXT DEFAULT 'x'", "ALTER TABLE note ADD COLUMN same INTEGER")
        await execute(pair.ada, "INSERT INTO note (id, x, same) VALUES ('a', 'ax', 1)")
        await execute(pair.ben, "ALTER TABLE note ADD COLUMN same INTEGER", "ALTER TABLE note ADD COLUMN y TEXT DEFAULT 'y'")
        await execute(pair.ben, "INSERT INTO note (id, y, same) VALUES ('b', 'by', 2)")
        await pair.meet()
        (table,) = await schemas(pair)
        assert sorted(column["name"] for column in table["columns"]) == ["id", "same", "text", "x", "y"]
        assert await pair.rows("SELECT id, x, y, same FROM note ORDER BY id") == [["a", "ax", "y", 1], ["b", "x", "by", 2]]
        await execute(pair.ben, "UPDATE note SET same = same * 10, x = 'z'")
        await pair.sync()
        assert await pair.rows("SELECT id, x, y, same FROM note ORDER BY id") == [["a", "z", "y", 10], ["b", "z", "by", 20]]


async def test_the_same_table_made_alike_on_both_sides_apart_is_one_table_with_all_rows(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as pair:
        await pair.part()
        for daemon, name in ((pair.ada, "ada"), (pair.ben, "ben")):
            await execute(daemon, NOTE, f"INSERT INTO note VALUES ('{name}', 'x'), ('shared', '{name}')")
        await pair.meet()
        (table,) = await schemas(pair)
        assert table["name"] == "note"
        assert await pair.rows("SELECT id, text FROM note ORDER BY id") == [["ada", "x"], ["ben", "x"], ["shared", "ben"]]
        for daemon in (pair.ada, pair.ben):
            await execute(daemon, "UPDATE note SET text = text || '!'")
            await pair.sync()
        assert await pair.rows("SELECT id, text FROM note ORDER BY id") == [["ada", "x!!"], ["ben", "x!!"], ["shared", "ben!!"]]


async def test_a_table_made_differently_on_both_sides_apart_is_two_tables_that_keep_their_rows(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as pair:
        await pair.part()
        await execute(pair.ada, NOTE, "INSERT INTO note VALUES ('ada', 'text')")
        await execute(
            pair.ben,
            "CREATE TABLE note (x INTEGER, y INTEGER, PRIMARY KEY (x, y)) WITHOUT ROWID",
            "INSERT INTO note VALUES (1, 2)",
        )
        await pair.meet()
        tables = {table["name"]: [column["name"] for column in table["columns"]] for table in await schemas(pair)}
        other = next(name for name in tables if name != "note")
        assert other.startswith("note~")
        assert len(other) == len("note~") + 4
        assert sorted(tables.values()) == [["id", "text"], ["x", "y"]]
        of_ada, of_ben = ("note", other) if tables["note"] == ["id", "text"] else (other, "note")
        assert await pair.rows(f'SELECT id, text FROM "{of_ada}"') == [["ada", "text"]]
        assert await pair.rows(f'SELECT x, y FROM "{of_ben}"') == [[1, 2]]
        # Both go on under the names that they have now, on both sides.
        for daemon in (pair.ada, pair.ben):
            await execute(daemon, f"INSERT INTO \"{of_ada}\" (text) VALUES ('more')", f'UPDATE "{of_ben}" SET y = y + 1')
            await pair.sync()
        assert await pair.rows(f'SELECT count(*), (SELECT y FROM "{of_ben}") FROM "{of_ada}"') == [[3, 4]]
        for daemon in (pair.ada, pair.ben):
            await daemon.restart()
        await pair.sync()
        assert await pair.rows(f'SELECT count(*), (SELECT y FROM "{of_ben}") FROM "{of_ada}"') == [[3, 4]]
        assert len(await schemas(pair)) == 2


async def test_only_admins_change_the_schema(tmp_path: Path) -> None:
    async with open_pair(tmp_path, NOTE, role="writer") as pair:
        for sql in (
            "CREATE TABLE n (id TEXT PRIMARY KEY)",
            "ALTER TABLE note ADD COLUMN x",
            "CREATE INDEX i ON note (text)",
        ):
            with pytest.raises(PeersError) as caught:
                await execute(pair.ben, sql)
            assert (caught.value.code, caught.value.data["role_needed"], caught.value.data["role_held"]) == (
                "not_allowed",
                "admin",
                "writer",
            )
            assert caught.value.hint
        await execute(pair.ben, "INSERT INTO note (text) VALUES ('a writer writes')")
        await pair.sync()
        assert await pair.rows("SELECT text FROM note") == [["a writer writes"]]
        assert len(await schemas(pair)) == 1
