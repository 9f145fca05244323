"""Both sides edit the same rows while apart; when they meet, their tables are equal, and equal to a rebuild from the logs."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest

from peersd.node.device_file import load_device
from peersd.store.mark import MarkFile, read_machine_id
from peersd.store.store import StoreContext, open_store
from peersd.testing.observing import read_file
from peersd.testing.pairs import GROUP, Pair, open_pair
from peersd.testing.processes import DaemonProcess

pytestmark = pytest.mark.e2e

ROW = "CREATE TABLE row (id TEXT PRIMARY KEY, a TEXT DEFAULT 'a0', b TEXT DEFAULT 'b0')"
GRID = "CREATE TABLE grid (x INTEGER, y INTEGER, v TEXT, PRIMARY KEY (x, y)) WITHOUT ROWID"

Row = list[Any]

# What each side does alone to the row (id, 'a', 'b') that both hold; ben always does it later, so that time decides for him.
CASES: dict[str, tuple[list[str], list[str], list[Row]]] = {
    "different columns": (
        ["UPDATE row SET a = 'ada' WHERE id = :id"],
        ["UPDATE row SET b = 'ben' WHERE id = :id"],
        [["ada", "ben"]],
    ),
    "the same column": (
        ["UPDATE row SET a = 'ada' WHERE id = :id"],
        ["UPDATE row SET a = 'ben' WHERE id = :id"],
        [["ben", "b"]],
    ),
    "the same column, often by the earlier": (
        [f"UPDATE row SET a = 'ada {n}' WHERE id = :id" for n in range(5)],
        ["UPDATE row SET a = 'ben' WHERE id = :id"],
        [["ben", "b"]],
    ),
    "a delete against a later update": (
        ["DELETE FROM row WHERE id = :id"],
        ["UPDATE row SET a = 'ben' WHERE id = :id"],
        [],
    ),
    "an update against a later delete": (
        ["UPDATE row SET a = 'ada' WHERE id = :id"],
        ["DELETE FROM row WHERE id = :id"],
        [],
    ),
    "both delete": (
        ["DELETE FROM row WHERE id = :id"],
        ["DELETE FROM row WHERE id = :id"],
        [],
    ),
    "a later insert after a delete": (
        ["UPDATE row SET a = 'ada' WHERE id = :id"],
        ["DELETE FROM row WHERE id = :id", "INSERT INTO row (id, b) VALUES (:id, 'again')"],
        [["a0", "again"]],
    ),
    "a delete against a later replace, which is an update": (
        ["DELETE FROM row WHERE id = :id"],
        ["INSERT OR REPLACE INTO row (id, a) VALUES (:id, 'ben')"],
        [],
    ),
    "an insert after a delete against a later update": (
        ["DELETE FROM row WHERE id = :id", "INSERT INTO row VALUES (:id, 'new', 'new')"],
        ["UPDATE row SET b = 'ben' WHERE id = :id"],
        [["new", "ben"]],
    ),
    "an upsert against a later upsert": (
        ["INSERT INTO row (id, a) VALUES (:id, 'ada') ON CONFLICT DO UPDATE SET a = excluded.a"],
        ["INSERT INTO row (id, b) VALUES (:id, 'ben') ON CONFLICT DO UPDATE SET b = excluded.b"],
        [["ada", "ben"]],
    ),
    "nothing against an edit": ([], ["UPDATE row SET a = NULL WHERE id = :id"], [[None, "b"]]),
}


async def run(daemon: DaemonProcess, *statements: str, **params: Any) -> None:
    for sql in statements:
        await daemon.call("sql.execute", sql=sql, params=params or None, group=GROUP)


def rebuild(daemon: DaemonProcess, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The application's tables of a daemon that has ended, as they stand and after they were made anew from the logs."""
    device = load_device(daemon.data)
    assert device is not None
    context = StoreContext(device.keys.signing, lambda: 0, secrets.token_bytes, read_machine_id())
    store = open_store(path, context, MarkFile(daemon.data / "marks" / f"{Path(path).stem}.mark"))
    try:
        before = store.dump()
        store.rebuild()
        return before, store.dump()
    finally:
        store.close()


async def assert_equal_to_a_rebuild(pair: Pair) -> None:
    paths = {daemon: await pair.path(daemon) for daemon in (pair.ada, pair.ben)}
    dumps = []
    for daemon, path in paths.items():
        assert await daemon.terminate() == 0
        before, after = rebuild(daemon, path)
        assert before == after
        dumps.append(before)
    assert dumps[0] == dumps[1]
    assert any(dumps[0].values())


async def test_edits_of_one_row_made_apart_end_equal_and_as_the_rules_say(tmp_path: Path) -> None:
    async with open_pair(tmp_path, ROW) as pair:
        for case in CASES:
            await run(pair.ada, "INSERT INTO row VALUES (:id, 'a', 'b')", id=case)
        await pair.sync()
        await pair.part()
        for case, (by_ada, _, _) in CASES.items():
            await run(pair.ada, *by_ada, id=case)
        for case, (_, by_ben, _) in CASES.items():
            await run(pair.ben, *by_ben, id=case)
        await pair.meet()
        for daemon in (pair.ada, pair.ben):
            path = await pair.path(daemon)
            found = {case: [list(row) for row in read_file(path, "SELECT a, b FROM row WHERE id = ?", [case])] for case in CASES}
            assert found == {case: expected for case, (_, _, expected) in CASES.items()}
        await assert_equal_to_a_rebuild(pair)


async def test_the_same_key_made_on_both_sides_apart_becomes_one_row(tmp_path: Path) -> None:
    async with open_pair(tmp_path, ROW, GRID) as pair:
        await run(pair.ada, "INSERT INTO grid VALUES (9, 9, 'old')")
        await pair.sync()
        await pair.part()
        await run(
            pair.ada,
            "INSERT INTO row VALUES ('k', 'ada', 'ada')",
            "INSERT INTO grid VALUES (1, 1, 'ada'), (1, 2, 'ada')",
            "UPDATE grid SET x = 5 WHERE x = 9",
        )
        await run(
            pair.ben,
            "INSERT INTO row (id, b) VALUES ('k', 'ben')",
            "INSERT INTO grid VALUES (1, 1, 'ben'), (2, 1, 'ben')",
            "UPDATE grid SET y = 6 WHERE x = 9",
        )
        await pair.meet()
        # An insert writes all columns, so the later one stands as a whole.
        assert await pair.rows("SELECT id, a, b FROM row") == [["k", "a0", "ben"]]
        # A changed key is a delete and an insert: both new keys stand, the old one is gone.
        assert await pair.rows("SELECT x, y, v FROM grid ORDER BY x, y") == [
            [1, 1, "ben"],
            [1, 2, "ada"],
            [2, 1, "ben"],
            [5, 9, "old"],
            [9, 6, "old"],
        ]
        await assert_equal_to_a_rebuild(pair)


async def test_a_change_of_key_against_an_edit_of_the_same_row(tmp_path: Path) -> None:
    async with open_pair(tmp_path, ROW) as pair:
        await run(pair.ada, "INSERT INTO row VALUES ('old', 'a', 'b'), ('other', 'a', 'b')")
        await pair.sync()
        await pair.part()
        await run(
            pair.ada, "UPDATE row SET id = 'new' WHERE id = 'old'", "UPDATE OR REPLACE row SET id = 'other' WHERE id = 'new'"
        )
        await run(pair.ben, "UPDATE row SET a = 'ben' WHERE id = 'old'", "UPDATE row SET b = 'ben' WHERE id = 'other'")
        await pair.meet()
        # The edit of the old key found it deleted; the later edit of the other one merges into what replaced it.
        assert await pair.rows("SELECT id, a, b FROM row") == [["other", "a", "ben"]]
        await assert_equal_to_a_rebuild(pair)
