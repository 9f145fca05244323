"""The figures that need daemons: two processes on loopback, driven through their sockets."""

from __future__ import annotations

import math
import sqlite3
import statistics
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from peersd.client import Peers, SqlParams
from peersd.testing.processes import DaemonProcess
from scripts.bench_limits import INSERT_SQL, TABLE_SQL, Row, Spread, make_rows
from scripts.daemon_process import open_daemon
from scripts.machine_view import measure_memory_bytes, open_read_only

WAIT_S = 600.0
"""A hang guard."""
PIPELINED = 64
"""Requests under way on one connection where single-row transactions are only the material of a figure."""
POLL_S = 0.0001
"""Between two looks into a file: small beside every figure measured in this way."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything is measured."""

    rounds: int
    bulk_rows: int
    changes: int
    single_rows: int
    parallel_rows: int
    batches: int
    groups: int


FULL = Sizes(rounds=5, bulk_rows=100_000, changes=300, single_rows=500, parallel_rows=3_200, batches=20, groups=300)
QUICK = Sizes(rounds=1, bulk_rows=5_000, changes=30, single_rows=50, parallel_rows=320, batches=2, groups=20)
BATCH_ROWS = 1_000
CLIENTS = 32


@dataclass(frozen=True)
class CatchUp:
    """What one fresh device's catch-up took."""

    seconds: float
    sender_bytes: int
    receiver_bytes: int
    bytes_per_row: float


async def init(daemon: DaemonProcess) -> None:
    """Makes the daemon's user."""
    async with daemon.client() as peers:
        await peers.init(daemon.folder.name)


async def make_group(daemon: DaemonProcess, name: str) -> str:
    """A group with the table of the bulk rows; returns its SQLite file."""
    async with daemon.client() as peers:
        await peers.create_group(name)
        await peers.execute(TABLE_SQL, group=name)
        return str((await peers.show_group(name))["path"])


async def join(member: DaemonProcess, fresh: DaemonProcess, group: str) -> str:
    """Brings a fresh device into a group; returns the group's SQLite file there."""
    async with member.client() as inviter, fresh.client() as joiner:
        ticket = str((await inviter.create_invite(group))["ticket"])
        await joiner.join(ticket, timeout_s=WAIT_S)
        return str((await joiner.show_group(group))["path"])


@asynccontextmanager
async def open_pair(place: Path, group: str) -> AsyncGenerator[tuple[DaemonProcess, DaemonProcess, str]]:
    """Two linked daemons that share a group; the third value is the group's file at the second."""
    place.mkdir()
    async with open_daemon(place, "a") as a, open_daemon(place, "b") as b:
        await init(a)
        await init(b)
        await make_group(a, group)
        path_b = await join(a, b, group)
        await wait_for(partial(has_table, path_b))
        yield a, b, path_b


async def wait_for(holds: Callable[[], bool], poll_s: float = 0.005) -> None:
    """Waits until something holds.

    Raises:
        trio.TooSlowError: it does not within the hang guard.
    """
    with trio.fail_after(WAIT_S):
        while not holds():
            await trio.sleep(poll_s)


def has_table(path: str) -> bool:
    """Whether the file shows the table."""
    return look(path, "SELECT count(*) FROM sqlite_master WHERE name = 'item'") == 1


def look(path: str, sql: str) -> int:
    """One number out of the file by plain SQLite; 0 while there is no file or table yet."""
    if not Path(path).exists():
        return 0
    connection = open_read_only(path)
    try:
        return int(connection.execute(sql).fetchone()[0] or 0)
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


def has_rows(path: str, rows: int) -> bool:
    """Whether the file shows so many rows. Counting reads the whole table, so the greatest rowid is asked first."""
    return look(path, "SELECT max(rowid) FROM item") >= rows and look(path, "SELECT count(*) FROM item") >= rows


async def write_batches(peers: Peers, group: str, rows: Sequence[Row]) -> None:
    """Writes rows in transactions of BATCH_ROWS, one after the other."""
    for first in range(0, len(rows), BATCH_ROWS):
        params: list[SqlParams] = list(rows[first : first + BATCH_ROWS])
        await peers.transaction([{"sql": INSERT_SQL, "params_seq": params}], group=group)


async def write_singles(peers: Peers, group: str, rows: Sequence[Row], at_once: int = 1) -> None:
    """Writes each row in a transaction of its own, so many requests under way at once."""
    remaining = iter(rows)

    async def write_some() -> None:
        for row in remaining:
            await peers.execute(INSERT_SQL, row, group=group)

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(write_some)


def see_row(path: str, key: bytes, began: list[float], seen_s: list[float], ready: threading.Event) -> None:
    """In a thread: looks into the file until the row is there and notes the seconds since `began[0]`."""
    connection = open_read_only(path)
    try:
        deadline = time.perf_counter() + WAIT_S
        sql = "SELECT 1 FROM item WHERE id = ?"
        while not connection.execute(sql, (key,)).fetchone():
            ready.set()
            if time.perf_counter() > deadline:
                raise TimeoutError("the row did not arrive")
            time.sleep(POLL_S)
        seen_s.append(time.perf_counter() - began[0])
    finally:
        ready.set()
        connection.close()


async def measure_one_change(a: DaemonProcess, path_b: str, group: str, count: int) -> Spread:
    """From the call of sql.execute on A until a reader of B's file sees the row."""
    seen_s: list[float] = []
    async with a.client() as peers:
        for row in make_rows(count, seed=2):
            began = [math.inf]
            ready = threading.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, see_row, path_b, row[0], began, seen_s, ready)
                await trio.to_thread.run_sync(ready.wait)
                began[0] = time.perf_counter()
                await peers.execute(INSERT_SQL, row, group=group)
    return Spread.of([seconds * 1000 for seconds in seen_s])


async def measure_singles(daemon: DaemonProcess, group: str, rows: Sequence[Row], clients: int) -> float:
    """Single-row transactions a second, from so many connections that each wait for their answer."""
    share = math.ceil(len(rows) / clients)

    async def write_share(number: int, connected: trio.Event, go: trio.Event) -> None:
        async with daemon.client() as peers:
            await peers.status()
            connected.set()
            await go.wait()
            await write_singles(peers, group, rows[number * share : (number + 1) * share])

    go = trio.Event()
    async with trio.open_nursery() as nursery:
        waiting = [trio.Event() for _ in range(clients)]
        for number, connected in enumerate(waiting):
            nursery.start_soon(write_share, number, connected, go)
        for connected in waiting:
            await connected.wait()
        began = time.perf_counter()
        go.set()
    return len(rows) / (time.perf_counter() - began)


async def measure_batches(daemon: DaemonProcess, group: str, rows: Sequence[Row]) -> float:
    """Rows a second through the socket in transactions of BATCH_ROWS."""
    async with daemon.client() as peers:
        began = time.perf_counter()
        await write_batches(peers, group, rows)
        return len(rows) / (time.perf_counter() - began)


async def wait_synced(daemon: DaemonProcess, group: str) -> None:
    """Returns when the other side durably holds everything."""
    async with daemon.client() as peers:
        await peers.wait_synced(group, timeout_s=WAIT_S)


@dataclass(frozen=True)
class Reconnect:
    """What coming back cost while both sides held the same: bytes both ways with the handshake, and ms."""

    bytes_total: int
    handshake_bytes: int | None
    ms: float


async def measure_reconnect(a: DaemonProcess, b: DaemonProcess, group: str) -> Reconnect:
    """B stops and starts; from its socket's first answer until its group is in sync with A, by sync.status."""
    await wait_synced(a, group)
    await wait_synced(b, group)
    await b.restart()
    began = time.perf_counter()
    async with b.client() as peers:
        with trio.fail_after(WAIT_S):
            while not await is_equal(peers, group):
                await trio.sleep(0.001)
        ms = (time.perf_counter() - began) * 1000
        (link,) = await peers.links()
    handshake = link.get("handshake_bytes")
    return Reconnect(link["bytes_in"] + link["bytes_out"], None if handshake is None else int(handshake), ms)


async def is_equal(peers: Peers, group: str) -> bool:
    """Whether a device is online and holds the same as this one."""
    return any(device["online"] and device["equal"] for shown in await peers.sync_status(group) for device in shown["devices"])


async def measure_catch_up(place: Path, rows: Sequence[Row], single: bool, rounds: int) -> list[CatchUp]:
    """Fresh devices join a group that one daemon wrote, one after the other; each round is one of them."""
    place.mkdir()
    results: list[CatchUp] = []
    async with open_daemon(place, "a") as a:
        await init(a)
        await make_group(a, "bulk")
        async with a.client() as peers:
            await (write_singles(peers, "bulk", rows, PIPELINED) if single else write_batches(peers, "bulk", rows))
        for number in range(rounds):
            results.append(await measure_one_catch_up(place, a, f"fresh{number}", len(rows)))
    return results


async def measure_one_catch_up(place: Path, a: DaemonProcess, name: str, rows: int) -> CatchUp:
    """From the call of invite.accept until the fresh device's file shows all rows."""
    async with open_daemon(place, name) as fresh:
        await init(fresh)
        began = time.perf_counter()
        path = await join(a, fresh, "bulk")
        await wait_for(partial(has_rows, path, rows))
        seconds = time.perf_counter() - began
        memory = measure_memory_bytes(a.pid), measure_memory_bytes(fresh.pid)
        await wait_synced(a, "bulk")
        await fresh.terminate()  # which checkpoints, so that the file holds everything
        return CatchUp(seconds, *memory, Path(path).stat().st_size / rows)


def median_catch_up(results: Sequence[CatchUp]) -> CatchUp:
    """The median of each number."""
    return CatchUp(
        statistics.median(one.seconds for one in results),
        round(statistics.median(one.sender_bytes for one in results)),
        round(statistics.median(one.receiver_bytes for one in results)),
        statistics.median(one.bytes_per_row for one in results),
    )
