"""SIGKILL while daemons write and sync, and in the middle of a bulk sync: what was acknowledged is there, and all end equal."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from peersd.client import NoDaemon, PeersError
from peersd.testing.authors import SCHEMA, Author
from peersd.testing.file_copies import check_copy, copy_dead
from peersd.testing.killing import open_killing
from peersd.testing.observing import read_file
from peersd.testing.pairs import GROUP, open_pair, until
from peersd.testing.processes import HANG_S, DaemonProcess, open_daemon

pytestmark = pytest.mark.e2e

ROW = "CREATE TABLE row (id TEXT PRIMARY KEY, body TEXT)"
MARK = "CREATE TABLE mark (n INTEGER, side TEXT, PRIMARY KEY (side, n))"

TRANSACTIONS = 60
ROWS_EACH = 200
BYTES_LET_THROUGH = 800_000
"""Of some 3 MB; the network stalls there, so that however fast the machines are the kill comes before the end."""

KILLS = 12


def bulk(transaction: int) -> list[dict[str, Any]]:
    # Random text hardly compresses, so the bytes on the wire are known to some degree.
    rows = [[f"{transaction}-{n}", os.urandom(128).hex()] for n in range(ROWS_EACH)]
    return [{"sql": "INSERT INTO row VALUES (?, ?)", "params_seq": rows}]


async def write_marks(daemon: DaemonProcess, side: str, acknowledged: list[tuple[str, int]]) -> None:
    """Write single rows one after another until the daemon is gone; note those that were acknowledged."""
    try:
        async with daemon.client() as peers:
            for n in range(1_000_000):
                await peers.execute("INSERT INTO mark (side, n) VALUES (?, ?)", [side, n], group=GROUP)
                acknowledged.append((side, n))
    except (NoDaemon, PeersError):
        return


@pytest.mark.parametrize("victim_name", ["sender", "receiver", "both"])
async def test_after_a_kill_in_the_middle_of_a_bulk_sync_nothing_acknowledged_is_lost_and_both_become_equal(
    tmp_path: Path, victim_name: str
) -> None:
    async with open_pair(tmp_path, ROW, MARK) as pair:
        sender, receiver = pair.ada, pair.ben
        received_path = await pair.path(receiver)
        await pair.part()
        async with sender.client() as peers:
            for transaction in range(TRANSACTIONS):
                await peers.transaction(bulk(transaction), group=GROUP)  # type: ignore[arg-type]
        everything = TRANSACTIONS * ROWS_EACH
        victims = {"sender": [sender], "receiver": [receiver], "both": [sender, receiver]}[victim_name]
        acknowledged: list[tuple[str, int]] = []
        async with trio.open_nursery() as nursery:
            for victim in victims:
                nursery.start_soon(write_marks, victim, victim.folder.name, acknowledged)
            await until(lambda: _is(len(acknowledged) > 10))
            pair.network.mend()
            pair.network.stall_after(BYTES_LET_THROUGH)
            await pair.ben.call("link.connect", url=pair.network.url)
            await until(lambda: _is(_count(received_path) > 0))
            for victim in victims:
                await victim.kill()
        at_kill = _count(received_path)
        assert 0 < at_kill < everything
        # Only whole transactions are there, even in the file that the kill left behind.
        assert at_kill % ROWS_EACH == 0
        for victim in victims:
            await victim.start()
        pair.network.mend()
        await pair.sync()
        for daemon in (sender, receiver):
            path = await pair.path(daemon)
            assert read_file(path, "SELECT count(*), count(DISTINCT body) FROM row") == [(everything, everything)]
            assert set(acknowledged) <= set(read_file(path, "SELECT side, n FROM mark"))
            assert read_file(path, "PRAGMA integrity_check") == [("ok",)]
        await pair.rows("SELECT side, n FROM mark ORDER BY side, n")
        assert await pair.rows("SELECT count(*) FROM row") == [[everything]]


async def test_a_receiver_that_is_killed_again_and_again_gets_everything_in_the_end(tmp_path: Path) -> None:
    async with open_pair(tmp_path, ROW, MARK) as pair:
        path = await pair.path(pair.ben)
        await pair.part()
        for transaction in range(TRANSACTIONS):
            await pair.ada.call("sql.transaction", statements=bulk(transaction), group=GROUP, timeout_s=HANG_S)
        seen = [0]
        for _ in range(3):
            pair.network.mend()
            pair.network.stall_after(BYTES_LET_THROUGH)
            await until(lambda: _is(_count(path) > seen[-1]))
            await pair.ben.kill()
            seen.append(_count(path))
            await pair.ben.start()
        # Each time it went on where it had got to.
        assert 0 < seen[1] < seen[2] < seen[3] < TRANSACTIONS * ROWS_EACH
        pair.network.mend()
        await pair.sync()
        assert await pair.rows("SELECT count(*), count(DISTINCT body) FROM row") == [[TRANSACTIONS * ROWS_EACH] * 2]


@pytest.mark.slow
async def test_whenever_daemons_are_killed_nothing_acknowledged_is_lost_and_all_hold_what_their_logs_amount_to(
    tmp_path: Path,
) -> None:
    async with open_killing(tmp_path, seed=1) as killing:
        while killing.kills < KILLS:
            await killing.kill_at_a_moment()
            if killing.kills in (KILLS // 2, KILLS // 2 + 1):
                await killing.meet()


async def test_a_file_that_lacks_something_acknowledged_or_differs_from_its_logs_is_found_out(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "ada") as ada:
        await ada.call("init", user_name="ada")
        await ada.call("group.create", name=GROUP)
        await ada.call("sql.execute", sql=SCHEMA)
        path = Path((await ada.call("group.show"))["path"])
        author = Author("ada", ada, Random(3))
        await author.write(60)
        copies = tmp_path / "copies"
        copies.mkdir()
        await ada.kill()
        copy = copy_dead(path, copies)
        assert (author.missing_in(copy), author.torn_in(copy), check_copy(copy)[1]) == ([], [], None)
        with closing(sqlite3.connect(copy)) as connection, connection:
            (key,) = connection.execute("SELECT id FROM item WHERE batch IS NULL").fetchone()
            ((batch, held),) = connection.execute("SELECT batch, count(*) FROM item WHERE batch IS NOT NULL GROUP BY 1 LIMIT 1")
            connection.execute("DELETE FROM item WHERE id IN (?, ?)", (key, f"{batch}:0"))
        found = author.missing_in(copy)
        assert {one.partition(" with ")[0] for one in found} == {f"row {key}", f"row {batch}:0"}
        assert author.torn_in(copy) == [f"{held - 1} of {held} rows of {batch}"]
        assert str(check_copy(copy)[1]).startswith("rows of item: only in the table")


async def _is(value: bool) -> bool:
    return value


def _count(path: str) -> int:
    return int(read_file(path, "SELECT count(*) FROM row")[0][0])
