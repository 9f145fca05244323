"""What a reader may see at any moment: whole transactions only, and no row without those its author had seen."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from peersd.testing.observing import read_file
from peersd.testing.pairs import GROUP, join, open_pair, until
from peersd.testing.processes import HANG_S, open_daemon

pytestmark = pytest.mark.e2e


async def read_while(path: str, sql: str, seen: list[Any], is_running: Callable[[], bool]) -> None:
    """Adds the one row that a plain SQLite reads, again and again as long as it is to go on; every distinct one, in order."""

    def read() -> None:
        # One connection: each SELECT takes a new snapshot of whatever the daemon has committed.
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as reader:
            while True:
                going_on = is_running()
                (row,) = reader.execute(sql).fetchall()
                if not seen or seen[-1] != row:
                    seen.append(row)
                if not going_on:
                    return

    await trio.to_thread.run_sync(read)


async def test_a_transaction_over_several_tables_is_never_seen_half_applied(tmp_path: Path) -> None:
    tables = (
        "CREATE TABLE account (id INTEGER, owner TEXT, amount INTEGER, PRIMARY KEY (owner, id))",
        "CREATE TABLE transfer (id TEXT PRIMARY KEY DEFAULT (uuid7()), amount INTEGER)",
        "CREATE TABLE audit (id TEXT PRIMARY KEY DEFAULT (uuid7()), amount INTEGER) WITHOUT ROWID",
    )
    moves = 100
    async with open_pair(tmp_path, *tables) as pair:
        await pair.ada.call("sql.execute", sql="INSERT INTO account VALUES (1, 'a', 1000), (1, 'b', 1000)", group=GROUP)
        await pair.sync()
        path = await pair.path(pair.ben)
        done = False
        sql = """SELECT (SELECT sum(amount) FROM account), (SELECT count(*) FROM transfer), (SELECT count(*) FROM audit),
            (SELECT coalesce(sum(amount), 0) FROM transfer) - (SELECT amount - 1000 FROM account WHERE owner = 'b')"""
        found: list[Any] = []

        async def watch() -> None:
            await read_while(path, sql, found, lambda: not done)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            async with pair.ada.client() as peers:
                for amount in range(moves):
                    answer = await peers.transaction(
                        [
                            {"sql": "UPDATE account SET amount = amount - ? WHERE owner = 'a'", "params": [amount]},
                            {"sql": "INSERT INTO transfer (amount) VALUES (?)", "params": [amount]},
                            {"sql": "INSERT INTO audit (amount) VALUES (?)", "params": [amount]},
                            {"sql": "UPDATE account SET amount = amount + ? WHERE owner = 'b'", "params": [amount]},
                        ],
                        group=GROUP,
                    )
                    assert sum(answer["changes"]) == 4
            await pair.sync()
            done = True
        assert found[-1] == (2000, moves, moves, 0)
        assert len(found) > 2, "the reader saw the middle of it"
        assert all((total, transfers, difference) == (2000, audits, 0) for total, transfers, audits, difference in found), found


async def test_a_failed_statement_takes_the_whole_transaction_with_it_everywhere(tmp_path: Path) -> None:
    async with open_pair(tmp_path, "CREATE TABLE t (id TEXT PRIMARY KEY)", "CREATE TABLE u (id TEXT PRIMARY KEY)") as pair:
        await pair.ada.call("sql.execute", sql="INSERT INTO u VALUES ('taken')", group=GROUP)
        async with pair.ada.client() as peers:
            with pytest.raises(Exception, match="UNIQUE") as caught:
                await peers.transaction(
                    [{"sql": "INSERT INTO t VALUES ('x')"}, {"sql": "INSERT INTO u VALUES ('taken')"}], group=GROUP
                )
            assert getattr(caught.value, "code", None) == "sql_error"
        await pair.sync()
        assert await pair.rows("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM u)") == [[0, 1]]


async def test_a_reply_is_nowhere_visible_without_the_note_that_its_author_had_seen(tmp_path: Path) -> None:
    tables = (
        "CREATE TABLE note (id INTEGER, by TEXT, PRIMARY KEY (by, id))",
        "CREATE TABLE reply (id INTEGER, by TEXT, PRIMARY KEY (by, id))",
    )
    notes = math.inf
    async with open_pair(tmp_path, *tables) as pair, open_daemon(tmp_path, "cem") as cem:
        # Ada writes notes, ben replies to each as soon as he sees it, and cem hears of both over links of their own:
        # the reply may well be there before the note.
        await cem.call("init", user_name="cem")
        await join(pair.ada, cem)
        await cem.call("link.connect", url=await pair.ben.url())
        path = str((await cem.call("group.show", group=GROUP))["path"])
        done = False
        found: list[Any] = []

        async def watch() -> None:
            sql = (
                "SELECT count(*), (SELECT count(*) FROM note), count(*) FILTER (WHERE id NOT IN (SELECT id FROM note)) FROM reply"
            )
            await read_while(path, sql, found, lambda: not done)

        async def reply() -> None:
            replied = 0
            with trio.fail_after(HANG_S):
                async with pair.ben.client() as peers:
                    while replied < notes:
                        rows = (await peers.query("SELECT id FROM note WHERE id >= ? ORDER BY id", [replied], group=GROUP)).rows
                        for (number,) in rows:
                            await peers.execute("INSERT INTO reply VALUES (?, 'ben')", [number], group=GROUP)
                            replied += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            async with trio.open_nursery() as writers:
                writers.start_soon(reply)
                async with pair.ada.client() as peers:
                    number = 0
                    while number < 60 or len(found) <= 10:  # until the reader has seen it grow
                        await peers.execute("INSERT INTO note VALUES (?, 'ada')", [number], group=GROUP)
                        number += 1
                    notes = number
            await pair.sync()
            done = True
        assert found[-1] == (notes, notes, 0)
        assert {orphans for _, _, orphans in found} == {0}


async def test_replies_that_arrive_long_before_their_notes_wait_for_them_unseen(tmp_path: Path) -> None:
    tables = ("CREATE TABLE note (id TEXT PRIMARY KEY, text TEXT)", "CREATE TABLE reply (id TEXT PRIMARY KEY, text TEXT)")
    count = 100
    async with open_pair(tmp_path, *tables) as pair, open_daemon(tmp_path, "cem") as cem:
        await cem.call("init", user_name="cem")
        await join(pair.ada, cem)
        await cem.call("link.connect", url=await pair.ben.url())
        path = str((await cem.call("group.show", group=GROUP))["path"])
        ben_id = (await pair.ben.call("daemon.status"))["device_id"]
        await cem.terminate()
        # Random texts, so that it is known to some degree how many bytes they take on the wire.
        statement = "INSERT INTO {} VALUES (?, ?)"
        async with pair.ada.client() as peers:
            for number in range(count):
                await peers.execute(statement.format("note"), [str(number), os.urandom(512).hex()], group=GROUP)
        await pair.sync()
        await pair.part()
        async with pair.ben.client() as peers:
            for number in range(count):
                await peers.execute(statement.format("reply"), [str(number), os.urandom(512).hex()], group=GROUP)
        await pair.ben.terminate()

        # Cem asks ada, who alone is there, for her notes; the network stalls amid them. Then ben comes with his replies.
        pair.network.mend()
        pair.network.stall_after(16_000)
        passed = pair.network.bytes_passed
        await cem.start()

        async def has_stalled() -> bool:
            return pair.network.bytes_passed - passed >= 16_000

        await until(has_stalled)
        await pair.ben.start()
        await cem.call("link.connect", url=await pair.ben.url())

        async def has_replies() -> bool:
            links = await cem.call("link.list")
            return any(link["device_id"] == ben_id and link["bytes_in"] > 40_000 for link in links)

        await until(has_replies)
        assert read_file(path, "SELECT (SELECT count(*) FROM note), (SELECT count(*) FROM reply)") == [(0, 0)]
        done = False
        found: list[Any] = []

        async def watch() -> None:
            sql = "SELECT count(*), count(*) FILTER (WHERE (SELECT count(*) FROM note) < ?1) FROM reply".replace("?1", str(count))
            await read_while(path, sql, found, lambda: not done)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            pair.network.mend()
            await pair.ada.call("sync.wait", group=GROUP, timeout_s=HANG_S)
            await pair.ben.call("sync.wait", group=GROUP, timeout_s=HANG_S)
            done = True
        assert found[-1] == (count, 0)
        # They waited: nothing was thrown away, no session ended over it.
        assert " warning " not in cem.log()
        assert {early for _, early in found} == {0}
