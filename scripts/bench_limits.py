"""What this machine allows, measured in the same run as the figures that stand beside it."""

from __future__ import annotations

import random
import statistics
import string
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw
import trio
import trio_websocket

Row = tuple[bytes, str, str, int, float]
"""What every bulk figure writes: 16 random bytes, a text, a text of 30 characters, an integer, a double."""

TABLE_SQL: Final = "CREATE TABLE item (id BLOB PRIMARY KEY, name TEXT, note TEXT, amount INTEGER, weight REAL)"
INSERT_SQL: Final = "INSERT INTO item (id, name, note, amount, weight) VALUES (?, ?, ?, ?, ?)"

COMMIT_SAMPLES: Final = 300
ROUND_TRIP_SAMPLES: Final = 300
ROUND_TRIP_BYTES: Final = 256
"""About what a change of one row is on the wire."""
WEBSOCKET_BUFFER_BYTES: Final = 1 << 20
"""As the daemons set it; with the library's 4 KiB the limit would be too easy."""


@dataclass(frozen=True)
class Spread:
    """Samples of one duration, in ms: their median and 99th percentile."""

    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, samples_ms: Sequence[float]) -> Spread:
        """From at least two samples."""
        return cls(statistics.median(samples_ms), statistics.quantiles(samples_ms, n=100, method="inclusive")[98])


@dataclass(frozen=True)
class BulkLimit:
    """What plain APSW does with the rows: rows a second, and bytes of the file for each."""

    rows_per_s: float
    bytes_per_row: float


def make_rows(count: int, seed: int) -> list[Row]:
    """The rows of a round; the same seed gives the same rows."""
    rng = random.Random(seed)
    letters = string.ascii_lowercase
    return [
        (rng.randbytes(16), f"item {n}", "".join(rng.choices(letters, k=30)), rng.getrandbits(40), rng.random())
        for n in range(count)
    ]


def open_plain(path: Path) -> apsw.Connection:
    """A new database with the table, in WAL with synchronous=FULL and SQLite's default cache."""
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(TABLE_SQL)
    return connection


def measure_bulk(folder: Path, rows: Sequence[Row], rounds: int) -> BulkLimit:
    """One `executemany`, commit, final checkpoint included; the median of the rounds, each with a file of its own."""
    seconds: list[float] = []
    size_bytes = 0
    for number in range(rounds):
        path = folder / f"bulk-{number}.db"
        connection = open_plain(path)
        began = time.perf_counter()
        with connection:
            connection.executemany(INSERT_SQL, rows)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        seconds.append(time.perf_counter() - began)
        connection.close()
        size_bytes = path.stat().st_size
    return BulkLimit(len(rows) / statistics.median(seconds), size_bytes / len(rows))


def measure_commit(folder: Path) -> Spread:
    """A durable commit of one row."""
    connection = open_plain(folder / "commit.db")
    samples_ms: list[float] = []
    for row in make_rows(COMMIT_SAMPLES, seed=1):
        began = time.perf_counter()
        connection.execute(INSERT_SQL, row)
        samples_ms.append((time.perf_counter() - began) * 1000)
    connection.close()
    return Spread.of(samples_ms)


async def measure_round_trip() -> Spread:
    """A small WebSocket message to another process on loopback and back."""
    echo = subprocess.Popen([sys.executable, "-P", "-m", "scripts.bench_limits"], stdout=subprocess.PIPE, text=True)
    try:
        assert echo.stdout is not None
        port = int(echo.stdout.readline())
        samples_ms: list[float] = []
        message = bytes(ROUND_TRIP_BYTES)
        async with trio_websocket.open_websocket(
            "127.0.0.1", port, "/", use_ssl=False, receive_buffer_size=WEBSOCKET_BUFFER_BYTES
        ) as socket:
            for _ in range(ROUND_TRIP_SAMPLES):
                began = time.perf_counter()
                await socket.send_message(message)
                await socket.get_message()
                samples_ms.append((time.perf_counter() - began) * 1000)
        return Spread.of(samples_ms)
    finally:
        echo.kill()
        echo.wait()


async def serve_echo() -> None:
    """The other process: answers each message with itself, prints its port first."""

    async def answer(request: trio_websocket.WebSocketRequest) -> None:
        socket = await request.accept()
        try:
            while True:
                await socket.send_message(await socket.get_message())
        except trio_websocket.ConnectionClosed:
            return

    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            lambda task_status: trio_websocket.serve_websocket(
                answer, "127.0.0.1", 0, ssl_context=None, receive_buffer_size=WEBSOCKET_BUFFER_BYTES, task_status=task_status
            )
        )
        print(server.port, flush=True)


if __name__ == "__main__":
    trio.run(serve_echo)
