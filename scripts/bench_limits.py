"""What this machine allows, measured in the same run as the figures that stand beside it."""

from __future__ import annotations

import json
import random
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw
import trio
import trio_websocket

from scripts.bench_figures import Spread
from scripts.bench_peer import ECHO, WEBSOCKET_BUFFER_BYTES

Row = tuple[bytes, str, str, int, float]
"""What every bulk figure writes: 16 random bytes, a text, a text of 30 characters, an integer, a double."""

TABLE_SQL: Final = "CREATE TABLE item (id BLOB PRIMARY KEY, name TEXT, note TEXT, amount INTEGER, weight REAL)"
INSERT_SQL: Final = "INSERT INTO item (id, name, note, amount, weight) VALUES (?, ?, ?, ?, ?)"
UPDATE_SQL: Final = "UPDATE item SET amount = ? WHERE id = ?"
BATCH_ROWS: Final = 1_000

SAMPLES: Final = 300
"""Of each duration; the 99th percentile is the third greatest."""
MESSAGE_BYTES: Final = 256
"""Of an echo: about what a change of one row is on the wire."""


@dataclass(frozen=True)
class BulkLimit:
    """What plain APSW does with the rows: rows a second, and bytes of the file for each."""

    rows_per_s: float
    bytes_per_row: float


@dataclass(frozen=True)
class Durations:
    """What one change is made of, measured one after the other.

    Attributes:
        commit: of one row by plain APSW, WAL and FULL.
        websocket: a small message to another process and back, over plain trio-websocket on loopback.
        socket: a line of JSON to another process and back, over a local socket.
        hop: a call in a thread of trio's and back.
    """

    commit: Spread
    websocket: Spread
    socket: Spread
    hop: Spread

    @property
    def one_change_ms(self) -> float:
        """Two commits, a WebSocket round trip, two of the local socket and two hops, by their medians."""
        return 2 * self.commit.p50_ms + self.websocket.p50_ms + 2 * self.socket.p50_ms + 2 * self.hop.p50_ms

    @property
    def one_transaction_ms(self) -> float:
        """A commit, a hop and a round trip of the local socket, by their medians."""
        return self.commit.p50_ms + self.hop.p50_ms + self.socket.p50_ms


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


def measure_bulk(folder: Path, rows: Sequence[Row]) -> BulkLimit:
    """One `executemany` into a new file, commit, final checkpoint included."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "bulk.db"
        connection = open_plain(path)
        began = time.perf_counter()
        with connection:
            connection.executemany(INSERT_SQL, rows)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        seconds = time.perf_counter() - began
        connection.close()
        return BulkLimit(len(rows) / seconds, path.stat().st_size / len(rows))


class PlainWriter:
    """A plain file that is given the same rows as the group, in the same transactions."""

    def __init__(self, path: Path) -> None:
        self._connection = open_plain(path)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def measure_batches(self, rows: Sequence[Row]) -> float:
        """Rows a second in transactions of BATCH_ROWS."""
        began = time.perf_counter()
        for first in range(0, len(rows), BATCH_ROWS):
            with self._connection:
                self._connection.executemany(INSERT_SQL, rows[first : first + BATCH_ROWS])
        return len(rows) / (time.perf_counter() - began)

    def measure_singles(self, rows: Sequence[Row]) -> float:
        """Rows a second, each in a transaction of its own."""
        began = time.perf_counter()
        for row in rows:
            self._connection.execute(INSERT_SQL, row)
        return len(rows) / (time.perf_counter() - began)


def measure_commit(folder: Path) -> Spread:
    """A durable commit of one row into a new file."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        connection = open_plain(Path(place) / "commit.db")
        samples_ms: list[float] = []
        for row in make_rows(SAMPLES, seed=1):
            began = time.perf_counter()
            connection.execute(INSERT_SQL, row)
            samples_ms.append((time.perf_counter() - began) * 1000)
        connection.close()
        return Spread.of(samples_ms)


async def sample(call: Callable[[], Awaitable[object]], count: int = SAMPLES) -> Spread:
    """How long a call takes, one after the other."""
    samples_ms: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        await call()
        samples_ms.append((time.perf_counter() - began) * 1000)
    return Spread.of(samples_ms)


class Limits:
    """Measures durations with the help of another process. Made by `open_limits`.

    Attributes:
        link_url: where that process answers links of peersd (scripts.bench_peer).
        websocket_url: where it answers plain WebSockets; what they are for is the path.
    """

    def __init__(self, folder: Path, echo: trio.SocketStream, websocket_url: str, link_url: str) -> None:
        self._folder = folder
        self._echo = echo
        self.websocket_url = websocket_url
        self.link_url = link_url

    async def measure_durations(self) -> Durations:
        """All of them, now."""
        commit = measure_commit(self._folder)
        hop = await sample(_hop)
        socket = await sample(self._ask)
        async with self.open_websocket(ECHO) as connection:
            message = bytes(MESSAGE_BYTES)

            async def echo() -> None:
                await connection.send_message(message)
                await connection.get_message()

            return Durations(commit, await sample(echo), socket, hop)

    @asynccontextmanager
    async def open_websocket(self, purpose: str) -> AsyncGenerator[trio_websocket.WebSocketConnection]:
        """A plain WebSocket to the other process, with the receive buffer that the daemons have."""
        async with trio_websocket.open_websocket_url(
            f"{self.websocket_url}/{purpose}", receive_buffer_size=WEBSOCKET_BUFFER_BYTES
        ) as connection:
            yield connection

    async def _ask(self) -> None:
        params = {
            "group": "bench",
            "sql": INSERT_SQL,
            "params": [{"$blob": "AAECAwQFBgcICQoLDA0ODw=="}, "item 1", "x" * 30, 1, 0.5],
        }
        request = {"jsonrpc": "2.0", "id": 1, "method": "sql.execute", "params": params}
        await self._echo.send_all(json.dumps(request).encode() + b"\n")
        answer = bytearray()
        while not answer.endswith(b"\n"):
            answer += await self._echo.receive_some(65_536)
        json.loads(answer)


async def _hop() -> None:
    await trio.to_thread.run_sync(int)


@asynccontextmanager
async def open_limits(folder: Path) -> AsyncGenerator[Limits]:
    """The limits of the machine, files in `folder`; the other process ends with the context."""
    async with AsyncExitStack() as stack:
        # A name of its own: a socket's path may be no longer than 100 bytes or so.
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peersd-"))) / "s"
        command = [sys.executable, "-P", "-m", "scripts.bench_peer", str(path)]
        peer = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
        try:
            assert peer.stdout is not None
            told = bytearray()
            while not told.endswith(b"\n"):
                received = await peer.stdout.receive_some(4_096)
                assert received, "the other process did not start"
                told += received
            where = json.loads(told)
            echo = await stack.enter_async_context(await trio.open_unix_socket(path))
            yield Limits(folder, echo, f"ws://127.0.0.1:{where['websocket']}", where["link"])
        finally:
            peer.kill()
            with trio.CancelScope(shield=True):
                await peer.wait()
