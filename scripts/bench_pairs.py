"""Daemons of the bench on loopback, driven through their sockets: set up, written to, looked at."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import trio

from peersd.client import Peers, SqlParams
from peersd.testing.processes import DaemonProcess
from scripts.bench_limits import BATCH_ROWS, INSERT_SQL, TABLE_SQL, UPDATE_SQL, Row
from scripts.daemon_process import open_daemon
from scripts.machine_view import open_read_only

GROUP: Final = "bench"
WAIT_S: Final = 900.0
"""A hang guard."""
PIPELINED: Final = 64
"""Requests under way on one connection where single-row transactions are only the material of a figure."""

Write: TypeAlias = Callable[[Peers, str, Sequence[Row]], Awaitable[None]]
"""Writes rows into a group."""


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


async def create_ticket(member: DaemonProcess, group: str) -> str:
    """An invite into a group."""
    async with member.client() as peers:
        return str((await peers.create_invite(group))["ticket"])


async def accept(fresh: DaemonProcess, ticket: str, group: str) -> str:
    """Brings a device into a group by a ticket; returns the group's SQLite file there."""
    async with fresh.client() as peers:
        await peers.join(ticket, timeout_s=WAIT_S)
        return str((await peers.show_group(group))["path"])


async def join(member: DaemonProcess, fresh: DaemonProcess, group: str) -> str:
    """Invites a device into a group; returns the group's SQLite file there once the table is in it."""
    path = await accept(fresh, await create_ticket(member, group), group)
    await wait_for(partial(has_table, path))
    return path


@asynccontextmanager
async def open_pair(place: Path) -> AsyncGenerator[tuple[DaemonProcess, DaemonProcess, str]]:
    """Two linked daemons that share the group GROUP; the third value is its file at the second."""
    place.mkdir()
    async with open_daemon(place, "a") as a, open_daemon(place, "b") as b:
        await init(a)
        await init(b)
        await make_group(a, GROUP)
        yield a, b, await join(a, b, GROUP)


async def wait_for(holds: Callable[[], bool], poll_s: float = 0.01) -> None:
    """Waits until something holds.

    Raises:
        trio.TooSlowError: it does not within the hang guard.
    """
    with trio.fail_after(WAIT_S):
        while not holds():
            await trio.sleep(poll_s)


async def wait_until(holds: Callable[[], Awaitable[bool]], poll_s: float = 0.001) -> None:
    """The same for what has to be asked for."""
    with trio.fail_after(WAIT_S):
        while not await holds():
            await trio.sleep(poll_s)


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


def has_table(path: str) -> bool:
    """Whether the file shows the table."""
    return look(path, "SELECT count(*) FROM sqlite_master WHERE name = 'item'") == 1


def has_rows(path: str, rows: int) -> bool:
    """Whether the file shows so many rows. Counting reads the whole table, so the greatest rowid is asked first."""
    return look(path, "SELECT max(rowid) FROM item") >= rows and look(path, "SELECT count(*) FROM item") >= rows


def group_bytes(path: str) -> int:
    """What all files of a group take: SQLite's own and those that lie beside it."""
    file = Path(path)
    return sum(one.stat().st_size for one in file.parent.glob(f"{file.stem}*") if one.is_file())


async def write_batches(peers: Peers, group: str, rows: Sequence[Row]) -> None:
    """Writes rows in transactions of BATCH_ROWS, one after the other."""
    for first in range(0, len(rows), BATCH_ROWS):
        params: list[SqlParams] = list(rows[first : first + BATCH_ROWS])
        await peers.transaction([{"sql": INSERT_SQL, "params_seq": params}], group=group)


async def write_singles(
    peers: Peers, group: str, rows: Sequence[Row], at_once: int = 1, changed_every: int | None = None
) -> None:
    """Writes each row in a transaction of its own, so many requests under way at once.

    Args:
        peers: to a daemon that has the group.
        group: which.
        rows: to write.
        at_once: requests under way.
        changed_every: the first of so many rows is changed in another transaction once it is there; None for no row.
    """
    remaining = iter(enumerate(rows))

    async def write_some() -> None:
        for number, row in remaining:
            await peers.execute(INSERT_SQL, row, group=group)
            if changed_every is not None and number % changed_every == 0:
                await peers.execute(UPDATE_SQL, [number, row[0]], group=group)

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(write_some)


async def wait_synced(daemon: DaemonProcess, group: str) -> None:
    """Returns when the other side durably holds everything."""
    async with daemon.client() as peers:
        await peers.wait_synced(group, timeout_s=WAIT_S)


async def wait_equal(peers: Peers, groups: int = 1) -> None:
    """Returns when so many groups with other members are known to be equal on all linked devices; looks into no store."""

    async def are_equal() -> bool:
        shared = [group for group in await peers.groups() if group["kind"] == "group"]
        return len([group for group in shared if group["in_sync"]]) >= groups

    # An answer about 300 groups is some work itself.
    await wait_until(are_equal, poll_s=0.001 if groups < 10 else 0.005)
