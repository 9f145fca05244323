"""Two daemons, one link: what syncs, what does not, and what any SQLite sees of it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from peersd.testing.observing import read_file, tcp_connections
from peersd.testing.pairs import GROUP, join, open_pair, until
from peersd.testing.processes import DaemonProcess, open_daemon

pytestmark = pytest.mark.e2e

NOTE = "CREATE TABLE note (id TEXT PRIMARY KEY DEFAULT (uuid7()), text TEXT)"


async def file_of(daemon: DaemonProcess, group: str) -> str:
    return str((await daemon.call("group.show", group=group))["path"])


async def test_a_group_syncs_both_ways_over_the_one_tcp_connection_and_the_personal_groups_do_not(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "ada") as ada, open_daemon(tmp_path, "ben") as ben:
        for daemon, name in ((ada, "ada"), (ben, "ben")):
            await daemon.call("init", user_name=name)
            await daemon.call("sql.execute", sql=NOTE, group="personal")
            await daemon.call("sql.execute", sql="INSERT INTO note (text) VALUES (?)", params=[f"{name}'s own"], group="personal")
        await ada.call("group.create", name=GROUP)
        await ada.call("sql.execute", sql=NOTE)
        await join(ada, ben)
        await ada.call("sql.execute", sql="INSERT INTO note (text) VALUES ('from ada')")
        await ben.call("sql.execute", sql="INSERT INTO note (text) VALUES ('from ben')")
        await ada.call("sync.wait", timeout_s=60)
        await ben.call("sync.wait", timeout_s=60)

        for daemon in (ada, ben):
            rows = (await daemon.call("sql.query", sql="SELECT text FROM note ORDER BY text"))["rows"]
            assert rows == [["from ada"], ["from ben"]]
            assert read_file(await file_of(daemon, GROUP), "SELECT text FROM note ORDER BY text") == [
                ("from ada",),
                ("from ben",),
            ]
        # As the system counts them: each side has one connection, and it is the same one.
        (on_ada,), (on_ben,) = tcp_connections(ada.pid), tcp_connections(ben.pid)
        assert on_ada == tuple(reversed(on_ben))
        assert on_ada[0] == urlsplit(await ada.url()).port
        # One channel, for the shared group. The personal groups have none, and hold what they held.
        for daemon, name in ((ada, "ada"), (ben, "ben")):
            (link,) = await daemon.call("link.list")
            assert [channel["name"] for channel in link["channels"]] == [GROUP]
            groups = await daemon.call("group.list")
            assert [(group["kind"], group["members"]) for group in groups] == [("personal", 1), ("group", 2)]
            assert read_file(await file_of(daemon, "personal"), "SELECT text FROM note") == [(f"{name}'s own",)]


async def test_the_second_shared_group_uses_the_same_tcp_connection_whoever_invited(tmp_path: Path) -> None:
    async with open_pair(tmp_path, NOTE) as pair:
        # This time ben invites, so ada redeems: over the link that ben dialled.
        await pair.ben.call("group.create", name="second")
        await pair.ben.call("sql.execute", sql=NOTE, group="second")
        await pair.ben.call("sql.execute", sql="INSERT INTO note (text) VALUES ('second')", group="second")
        ticket = (await pair.ben.call("invite.create", group="second"))["ticket"]
        assert (await pair.ada.call("invite.accept", ticket=ticket))["name"] == "second"
        await pair.ben.call("sync.wait", timeout_s=60)
        assert (await pair.ada.call("sql.query", sql="SELECT text FROM note", group="second"))["rows"] == [["second"]]
        await pair.ada.call("sql.execute", sql="INSERT INTO note (text) VALUES ('back')", group="second")
        await pair.ada.call("sync.wait", timeout_s=60)
        rows = (await pair.ben.call("sql.query", sql="SELECT text FROM note ORDER BY text", group="second"))["rows"]
        assert rows == [["back"], ["second"]]
        assert await pair.rows("SELECT count(*) FROM note") == [[0]]
        for daemon in (pair.ada, pair.ben):
            await until(lambda daemon=daemon: _has_connections(daemon, 1))  # type: ignore[misc]
            (link,) = await daemon.call("link.list")
            assert sorted(channel["name"] for channel in link["channels"]) == ["second", GROUP]


async def _has_connections(daemon: DaemonProcess, number: int) -> bool:
    return len(tcp_connections(daemon.pid)) == number


async def test_when_both_dial_at_once_one_connection_stays_and_carries_the_group(tmp_path: Path) -> None:
    async with open_pair(tmp_path, NOTE) as pair:
        await pair.part()
        pair.network.mend()
        # Both at the same time, again and again: two dials cross, or one replaces the other; never do two stay.
        for _ in range(5):
            async with trio.open_nursery() as nursery:

                async def dial(daemon: DaemonProcess, url: str) -> None:
                    await daemon.call("link.connect", url=url)

                nursery.start_soon(dial, pair.ada, await pair.ben.url())
                nursery.start_soon(dial, pair.ben, pair.network.url)
        for daemon in (pair.ada, pair.ben):
            await until(lambda daemon=daemon: _has_links_and_connections(daemon))  # type: ignore[misc]
        await pair.ada.call("sql.execute", sql="INSERT INTO note (text) VALUES ('after')", group=GROUP)
        await pair.sync()
        assert await pair.rows("SELECT text FROM note") == [["after"]]


async def _has_links_and_connections(daemon: DaemonProcess) -> bool:
    return len(await daemon.call("link.list")) == 1 and len(tcp_connections(daemon.pid)) == 1


async def test_a_plain_sqlite_reads_ordinary_tables_while_the_daemon_runs(tmp_path: Path) -> None:
    async with open_pair(
        tmp_path, NOTE, "CREATE TABLE point (x INTEGER, y INTEGER, at BLOB, PRIMARY KEY (x, y)) WITHOUT ROWID"
    ) as pair:
        await pair.ada.call("sql.execute", sql="INSERT INTO point VALUES (1, 2, x'00ff')")
        await pair.sync()
        for daemon in (pair.ada, pair.ben):
            path = await pair.path(daemon)
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
                tables = dict(reader.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'"))
                assert {name for name in tables if not name.startswith(("_peers_", "sqlite_"))} == {"note", "point"}
                assert not any("VIRTUAL" in (sql or "") for sql in tables.values())
                assert reader.execute("SELECT x, y, at FROM point").fetchall() == [(1, 2, b"\x00\xff")]
                assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                assert reader.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
                # A reader's snapshot holds while the daemon goes on writing, and the daemon is not held up by it.
                reader.execute("BEGIN")
                before = reader.execute("SELECT count(*) FROM note").fetchone()[0]
                await daemon.call("sql.execute", sql="INSERT INTO note (text) VALUES ('x')", group=GROUP)
                await pair.sync()
                assert reader.execute("SELECT count(*) FROM note").fetchone() == (before,)
                reader.execute("COMMIT")
                assert reader.execute("SELECT count(*) FROM note").fetchone() == (before + 1,)
                with pytest.raises(sqlite3.OperationalError, match="readonly"):
                    reader.execute("DELETE FROM note")
        path = await pair.path(pair.ben)
        program = """import sqlite3, sys
connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
print(connection.execute("SELECT * FROM point").fetchall())"""
        other = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
        assert other.stdout == "[(1, 2, b'\\x00\\xff')]\n"
