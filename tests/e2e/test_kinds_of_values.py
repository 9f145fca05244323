"""Every kind of statement and value arrives on the other side as it was: compared in both files by a plain SQLite."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest

from peersd.client import PeersError
from peersd.testing.observing import read_file
from peersd.testing.pairs import GROUP, Pair, open_pair

pytestmark = pytest.mark.e2e

ITEM = "CREATE TABLE item (id TEXT PRIMARY KEY, name TEXT DEFAULT 'none', n INTEGER, real REAL, any_value)"
POINT = "CREATE TABLE point (x INTEGER, y INTEGER, label TEXT DEFAULT 'p', PRIMARY KEY (x, y))"
PLAIN = "CREATE TABLE plain (k BLOB PRIMARY KEY, v ANY) STRICT, WITHOUT ROWID"
NOTE = "CREATE TABLE note (id TEXT PRIMARY KEY DEFAULT (uuid7()), text TEXT)"
KEEP = "CREATE TABLE keep (id TEXT PRIMARY KEY, v)"

ITEMS = "SELECT id, name, n, real FROM item ORDER BY id"

STATEMENTS: list[tuple[str, Any, str, list[tuple[Any, ...]]]] = [
    ("INSERT INTO item (id, n, real) VALUES ('a', 1, 2.5)", None, ITEMS, [("a", "none", 1, 2.5)]),
    (
        "INSERT INTO item (id, name, n) VALUES ('b', 'x', 2), ('c', NULL, 3), ('d', '', 4)",
        None,
        ITEMS,
        [("a", "none", 1, 2.5), ("b", "x", 2, None), ("c", None, 3, None), ("d", "", 4, None)],
    ),
    (
        "UPDATE item SET n = n + 10, name = coalesce(name, '?') || '!' WHERE n > 1",
        None,
        ITEMS,
        [("a", "none", 1, 2.5), ("b", "x!", 12, None), ("c", "?!", 13, None), ("d", "!", 14, None)],
    ),
    ("DELETE FROM item WHERE id IN ('c', 'd')", None, ITEMS, [("a", "none", 1, 2.5), ("b", "x!", 12, None)]),
    (
        "INSERT INTO item (id, n) VALUES ('a', 100), ('e', 5) ON CONFLICT (id) DO UPDATE SET n = excluded.n, real = NULL",
        None,
        ITEMS,
        [("a", "none", 100, None), ("b", "x!", 12, None), ("e", "none", 5, None)],
    ),
    (
        "INSERT INTO item (id, n) VALUES ('a', 1), ('f', 6) ON CONFLICT DO NOTHING",
        None,
        ITEMS,
        [("a", "none", 100, None), ("b", "x!", 12, None), ("e", "none", 5, None), ("f", "none", 6, None)],
    ),
    (
        # A replaced row starts over: the columns that are not given get their defaults.
        "INSERT OR REPLACE INTO item (id, n) VALUES ('b', 7), ('e', 8), ('g', 9)",
        None,
        ITEMS,
        [
            ("a", "none", 100, None),
            ("b", "none", 7, None),
            ("e", "none", 8, None),
            ("f", "none", 6, None),
            ("g", "none", 9, None),
        ],
    ),
    (
        # Onto an existing key: the row that stood there goes.
        "UPDATE OR REPLACE item SET id = 'a' WHERE id = 'g'",
        None,
        ITEMS,
        [("a", "none", 9, None), ("b", "none", 7, None), ("e", "none", 8, None), ("f", "none", 6, None)],
    ),
    (
        "UPDATE item SET id = id || id WHERE id >= 'e'",
        None,
        "SELECT id FROM item ORDER BY id",
        [("a",), ("b",), ("ee",), ("ff",)],
    ),
    ("DELETE FROM item", None, ITEMS, []),
    (
        """INSERT INTO point (x, y)
        WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 300) SELECT i % 7, i FROM c""",
        None,
        "SELECT count(*), count(DISTINCT x), sum(y), min(label) FROM point",
        [(300, 7, 45150, "p")],
    ),
    (
        "UPDATE point SET y = y + 1000, x = -x WHERE x > 0",
        None,
        "SELECT count(*), sum(y), min(x) FROM point",
        [(300, 303150, -6)],
    ),
    ("DELETE FROM point WHERE x < 0", None, "SELECT count(*), min(x), max(x) FROM point", [(42, 0, 0)]),
    (
        "INSERT INTO plain VALUES (x'', NULL), (x'00', 1), (x'0001', 'text'), (x'ff', x'00')",
        None,
        "SELECT k, typeof(v), v FROM plain ORDER BY k",
        [(b"", "null", None), (b"\x00", "integer", 1), (b"\x00\x01", "text", "text"), (b"\xff", "blob", b"\x00")],
    ),
    (
        "REPLACE INTO plain VALUES (x'00', 2.5), (x'0001', NULL)",
        None,
        "SELECT k, typeof(v), v FROM plain ORDER BY k",
        [(b"", "null", None), (b"\x00", "real", 2.5), (b"\x00\x01", "null", None), (b"\xff", "blob", b"\x00")],
    ),
    (
        "UPDATE plain SET k = CAST(x'aa' || k AS BLOB) WHERE length(k) = 1",
        None,
        "SELECT hex(k) FROM plain ORDER BY k",
        [("",), ("0001",), ("AA00",), ("AAFF",)],
    ),
    (
        "INSERT INTO note (text) SELECT 'n' || x FROM point LIMIT 2",
        None,
        "SELECT count(DISTINCT id), min(length(id)), min(text), max(text) FROM note",
        [(2, 36, "n0", "n0")],
    ),
    # A row that comes back under its key is new: what it was before does not shine through.
    ("INSERT INTO item (id) VALUES ('a')", None, ITEMS, [("a", "none", None, None)]),
]


async def on_both(pair: Pair, sql: str) -> list[tuple[Any, ...]]:
    await pair.sync()
    here, there = [read_file(await pair.path(daemon), sql) for daemon in (pair.ada, pair.ben)]
    assert here == there, sql
    return here


async def test_every_kind_of_statement_gives_the_same_rows_on_both_sides(tmp_path: Path) -> None:
    async with open_pair(tmp_path, ITEM, POINT, PLAIN, NOTE) as pair:
        for number, (sql, params, query, rows) in enumerate(STATEMENTS):
            writer = (pair.ada, pair.ben)[number % 2]  # each side goes on from what the other wrote
            await writer.call("sql.execute", sql=sql, params=params, group=GROUP)
            assert await on_both(pair, query) == rows, sql


async def test_returning_gives_rows_and_last_entry_names_the_entry(tmp_path: Path) -> None:
    async with open_pair(tmp_path, ITEM, NOTE) as pair:
        answer = await pair.ben.call(
            "sql.execute", sql="INSERT INTO note (text) VALUES ('a'), ('b') RETURNING id, text", group=GROUP
        )
        assert (answer["changes"], answer["columns"]) == (2, ["id", "text"])
        await pair.sync()
        assert await pair.rows("SELECT id, text FROM note ORDER BY text") == sorted(answer["rows"], key=lambda row: str(row[1]))
        gone = await pair.ada.call("sql.execute", sql="DELETE FROM note RETURNING text", group=GROUP)
        assert sorted(gone["rows"]) == [["a"], ["b"]]
        first, second = answer["last_entry"], gone["last_entry"]
        assert first["writer"] != second["writer"]
        assert second["hlc"] > first["hlc"]
        more = await pair.ada.call("sql.execute", sql="INSERT INTO note (text) VALUES ('c')", group=GROUP)
        assert (more["last_entry"]["writer"], more["last_entry"]["seq"]) == (second["writer"], second["seq"] + 1)


async def test_an_explicit_rowid_counts_on_its_own_device_only_and_its_rows_arrive_right(tmp_path: Path) -> None:
    async with open_pair(tmp_path, NOTE) as pair:

        async def execute(sql: str) -> None:
            await pair.ada.call("sql.execute", sql=sql, group=GROUP)

        await execute("INSERT INTO note (rowid, id, text) VALUES (77, 'a', 'x'), (5, 'b', 'y')")
        for sql, code in {
            "INSERT INTO note (_rowid_, id, text) VALUES (77, 'c', 'z')": "sql_error",
            "UPDATE note SET rowid = 99 WHERE id = 'a'": "sql_refused",
        }.items():
            with pytest.raises(PeersError) as caught:
                await execute(sql)
            assert (caught.value.code, bool(caught.value.hint)) == (code, True)
        assert await on_both(pair, "SELECT id, text FROM note ORDER BY id") == [("a", "x"), ("b", "y")]
        # A row that goes since another takes its number goes everywhere, whatever number it has there.
        await execute("INSERT OR REPLACE INTO note (rowid, id, text) VALUES (77, 'c', 'z')")
        assert await on_both(pair, "SELECT id, text FROM note ORDER BY id") == [("b", "y"), ("c", "z")]
        assert read_file(await pair.path(pair.ada), "SELECT rowid FROM note WHERE id = 'c'") == [(77,)]
        await pair.ben.call("sql.execute", sql="UPDATE note SET text = id", group=GROUP)
        assert await on_both(pair, "SELECT id, text FROM note ORDER BY id") == [("b", "b"), ("c", "c")]


VALUES: dict[str, Any] = {
    "null": None,
    "zero": 0,
    "minus one": -1,
    "least integer": -(2**63),
    "greatest integer": 2**63 - 1,
    "beyond the exact doubles": 2**53 + 1,
    "empty text": "",
    "text with NULs": "a\0b\0",
    "NUL alone": "\0",
    "umlauts, emoji, combining": "äöü 🦣 e\u0301 \u202e",
    "the last code point": "\U0010ffff",
    "text like a number": "0012",
    "quotes": "'\"`;--",
    "empty blob": b"",
    "blob of all bytes": bytes(range(256)),
    "1 MiB blob": os.urandom(1 << 20),
    "1 MiB text": "é" * (1 << 19),
    "double": 0.1,
    "whole double": 3.0,
    "least double": 5e-324,
    "greatest double": 1.7976931348623157e308,
    "negative double": -2.2250738585072014e-308,
    "infinity": math.inf,
    "minus infinity": -math.inf,
}


async def test_every_value_arrives_as_it_was_in_type_and_bytes(tmp_path: Path) -> None:
    async with open_pair(tmp_path, KEEP) as pair:
        for key, value in VALUES.items():
            await pair.ada.call("sql.execute", sql="INSERT INTO keep VALUES (?, ?)", params=[key, value], group=GROUP)
        answered = await pair.ada.call("sql.query", sql="SELECT id, v FROM keep", group=GROUP)
        await pair.sync()
        received = await pair.ben.call("sql.query", sql="SELECT id, v FROM keep", group=GROUP)
        for rows in (answered["rows"], received["rows"], read_file(await pair.path(pair.ben), "SELECT id, v FROM keep")):
            found = dict(rows)
            for key, value in VALUES.items():
                assert (type(found[key]), found[key]) == (type(value), value), key
        types = await on_both(pair, "SELECT typeof(v), count(*) FROM keep GROUP BY 1 ORDER BY 1")
        assert types == [("blob", 3), ("integer", 5), ("null", 1), ("real", 7), ("text", 8)]
        # Updated, it crosses the other way as well.
        await pair.ben.call("sql.execute", sql="UPDATE keep SET id = 'second ' || id", group=GROUP)
        assert await on_both(pair, "SELECT id, v FROM keep ORDER BY id") == sorted(
            (f"second {key}", value) for key, value in VALUES.items()
        )
