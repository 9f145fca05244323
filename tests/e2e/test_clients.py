"""Many clients write at once, some of them badly: each write stands or falls alone, in an entry of its own."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from peersd.client import PeersError
from peersd.testing.observing import read_file
from peersd.testing.pairs import GROUP, open_pair, until
from peersd.testing.processes import HANG_S, DaemonProcess, open_daemon

pytestmark = pytest.mark.e2e

ENDLESS = "WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) SELECT count(*) FROM c"

ROW = "CREATE TABLE row (id TEXT PRIMARY KEY, writer TEXT)"

WRITERS = 6
ROWS_EACH = 25

LONG = """INSERT INTO row (id) WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c)
    SELECT 'endless ' || i FROM c WHERE i % 1000 = 0"""
"""It would never end, and writes as it goes."""


async def write_well(daemon: DaemonProcess, writer: int, entries: list[tuple[str, int]], started: trio.Event) -> None:
    async with daemon.client() as peers:
        for number in range(ROWS_EACH):
            answer = await peers.execute("INSERT INTO row VALUES (?, ?)", [f"{writer}-{number}", str(writer)], group=GROUP)
            assert answer["last_entry"] is not None
            entries.append((answer["last_entry"]["writer"], answer["last_entry"]["seq"]))
            started.set()


async def write_badly(daemon: DaemonProcess, sql: str, code: str, *, times: int = 10, timeout_s: float = HANG_S) -> None:
    async with daemon.client() as peers:
        for _ in range(times):
            with pytest.raises(PeersError) as caught:
                await peers.execute(sql, group=GROUP, timeout_s=timeout_s)
            assert caught.value.code == code, caught.value


async def vanish(daemon: DaemonProcess) -> None:
    """Clients that send a write and are gone before its answer, one of them in the middle of a line."""

    def send(text: str) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(daemon.socket))
            connection.sendall(text.encode())

    for number in range(10):
        params = {"group": GROUP, "sql": "INSERT INTO row VALUES (?, 'vanished')", "params": [f"vanished-{number}"]}
        line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "sql.execute", "params": params})
        await trio.to_thread.run_sync(send, line + "\n" if number else line[:-10])


async def test_the_writes_of_others_stand_each_in_an_entry_of_its_own(tmp_path: Path) -> None:
    async with open_pair(tmp_path, ROW) as pair:
        entries: list[tuple[str, int]] = []
        await pair.ada.call("sql.execute", sql="INSERT INTO row VALUES ('taken', 'ada')", group=GROUP)
        async with trio.open_nursery() as nursery:
            started = trio.Event()
            for writer in range(WRITERS):
                nursery.start_soon(write_well, pair.ada, writer, entries, started)
            await started.wait()
            nursery.start_soon(
                write_badly, pair.ada, "INSERT OR ROLLBACK INTO row VALUES ('fresh', ''), ('taken', '')", "sql_error"
            )
            nursery.start_soon(write_badly, pair.ada, "INSERT INTO row VALUES ('fresh', ''), ('taken', '')", "sql_error")
            nursery.start_soon(write_badly, pair.ada, "INSERT OR FAIL INTO row VALUES ('fresh', ''), ('taken', '')", "sql_error")
            nursery.start_soon(write_badly, pair.ada, "INSERT INTO absent VALUES (1)", "sql_error")

            async def write_too_long() -> None:
                await write_badly(pair.ada, LONG, "timeout", times=3, timeout_s=0.2)

            nursery.start_soon(write_too_long)
            nursery.start_soon(vanish, pair.ada)
        expected = {f"{writer}-{number}" for writer in range(WRITERS) for number in range(ROWS_EACH)} | {"taken"}
        # Each acknowledged write has its own place in ada's log.
        assert len(set(entries)) == len(entries) == WRITERS * ROWS_EACH
        assert len({writer for writer, _ in entries}) == 1

        # What the vanished clients had sent whole is finished all the same; they are nobody's entries but their own.
        vanished = {f"vanished-{number}" for number in range(1, 10)}

        async def has_all() -> bool:
            rows = (await pair.ada.call("sql.query", sql="SELECT id FROM row WHERE writer = 'vanished'", group=GROUP))["rows"]
            return {row[0] for row in rows} == vanished

        await until(has_all)
        await pair.sync()
        for daemon in (pair.ada, pair.ben):
            rows = read_file(await pair.path(daemon), "SELECT id FROM row")
            assert {row[0] for row in rows} == expected | vanished
        sequence = (await pair.ada.call("sql.execute", sql="DELETE FROM row WHERE id = 'taken'", group=GROUP))["last_entry"][
            "seq"
        ]
        # One entry a write and nothing between: 'taken' first, the writers' and the vanished ones', and this delete last.
        assert sequence - min(seq for _, seq in entries) <= WRITERS * ROWS_EACH + len(vanished)
        assert sequence == 1 + WRITERS * ROWS_EACH + len(vanished) + 1


async def test_a_write_beyond_its_deadline_leaves_nothing_and_the_next_one_works(tmp_path: Path) -> None:
    async with open_pair(tmp_path, ROW) as pair:
        await write_badly(pair.ada, LONG, "timeout", times=1, timeout_s=0.1)
        answer: dict[str, Any] = await pair.ada.call("sql.execute", sql="INSERT INTO row VALUES ('next', '')", group=GROUP)
        assert answer["changes"] == 1
        await pair.sync()
        assert await pair.rows("SELECT id FROM row") == [["next"]]


async def test_an_endless_query_is_stopped_at_its_deadline_and_holds_up_neither_writes_nor_other_queries(tmp_path: Path) -> None:
    async with open_pair(tmp_path, ROW) as pair:
        is_stopped = False
        async with pair.ada.client() as peers, trio.open_nursery() as nursery:

            async def ask_too_much() -> None:
                nonlocal is_stopped
                with pytest.raises(PeersError) as caught:
                    await peers.query(ENDLESS, group=GROUP, timeout_s=3.0)
                assert caught.value.code == "timeout"
                is_stopped = True

            nursery.start_soon(ask_too_much)
            # On the very connection that waits: requests on it are pipelined.
            for number in range(10):
                await peers.execute("INSERT INTO row VALUES (?, '')", [str(number)], group=GROUP)
                assert (await peers.query("SELECT count(*) FROM row", group=GROUP)).rows == [[number + 1]]
            await pair.sync()
            assert await pair.rows("SELECT count(*) FROM row") == [[10]]
            assert not is_stopped


async def test_the_query_of_a_client_that_is_gone_ends_with_it(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "ada") as ada:
        await ada.call("init", user_name="ada")

        async def ask_and_vanish() -> None:
            async with ada.client() as peers, trio.open_nursery() as nursery:

                async def ask() -> None:
                    await peers.query(ENDLESS, timeout_s=10 * HANG_S)

                nursery.start_soon(ask)
                await peers.status()  # answered after the query has begun
                nursery.cancel_scope.cancel()

        for _ in range(20):  # more than are run at once
            await ask_and_vanish()
        # Were they running on, this would wait for their deadlines.
        with trio.fail_after(HANG_S):
            assert (await ada.call("sql.query", sql="SELECT 1"))["rows"] == [[1]]
            assert await ada.terminate() == 0
