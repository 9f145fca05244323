"""Two daemons far apart on a narrow line: it takes its time, and nothing else is different."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import trio

from peersd.testing.observing import read_file
from peersd.testing.pairs import GROUP, open_pair, until
from peersd.testing.processes import DaemonProcess

pytestmark = pytest.mark.e2e

ROW = "CREATE TABLE row (id TEXT PRIMARY KEY, body TEXT)"
MARK = "CREATE TABLE mark (n INTEGER, side TEXT, PRIMARY KEY (side, n))"

TRANSACTIONS = 30
ROWS_EACH = 20
MARKS = 10

DELAY_S = 0.1
BYTES_PER_S = 200_000
"""The bulk is some 160 kB, so that the marks are written while it is on its way."""


def bulk(transaction: int) -> list[dict[str, Any]]:
    rows = [[f"{transaction}-{n}", os.urandom(256).hex()] for n in range(ROWS_EACH)]
    return [{"sql": "INSERT INTO row VALUES (?, ?)", "params_seq": rows}]


async def write_marks(daemon: DaemonProcess) -> None:
    async with daemon.client() as peers:
        for n in range(MARKS):
            await peers.execute("INSERT INTO mark (side, n) VALUES (?, ?)", [daemon.folder.name, n], group=GROUP)


async def test_over_a_slow_and_distant_line_whole_transactions_arrive_in_order_and_the_link_stays(tmp_path: Path) -> None:
    async with open_pair(tmp_path, ROW, MARK) as pair:
        path = await pair.path(pair.ben)
        accepted = pair.network.accepted
        pair.network.delay(DELAY_S)
        pair.network.limit(BYTES_PER_S)
        async with pair.ada.client() as peers:
            for transaction in range(TRANSACTIONS):
                await peers.transaction(bulk(transaction), group=GROUP)  # type: ignore[arg-type]
        seen: list[list[str]] = []

        async def look() -> bool:
            rows = read_file(path, "SELECT id FROM row")
            seen.append(sorted({str(key).partition("-")[0] for (key,) in rows}, key=int))
            assert len(rows) == ROWS_EACH * len(seen[-1])
            return len(seen[-1]) == TRANSACTIONS

        async with trio.open_nursery() as nursery:
            for daemon in (pair.ada, pair.ben):
                nursery.start_soon(write_marks, daemon)
            await until(look)
        # One after the other, as they were written, and more than one look was needed to see them all.
        assert all(numbers == [str(n) for n in range(len(numbers))] for numbers in seen)
        assert len({len(numbers) for numbers in seen}) > 2
        await pair.sync()
        assert await pair.rows("SELECT side, count(*) FROM mark GROUP BY side ORDER BY side") == [["ada", MARKS], ["ben", MARKS]]
        assert (pair.network.accepted, pair.network.connections) == (accepted, 1)
