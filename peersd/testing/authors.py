"""Who writes on a daemon that is being killed, and remembers what it was told, and what may or may not have happened."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any, Final

import trio

from peersd.client import Peers, PeersError
from peersd.testing.pairs import GROUP
from peersd.testing.processes import DaemonProcess

SCHEMA: Final = "CREATE TABLE item (id TEXT PRIMARY KEY, author TEXT, batch TEXT, n INTEGER, body TEXT)"

INSERT: Final = "INSERT INTO item (id, author, batch, n, body) VALUES (?, ?, ?, ?, ?)"

ENDING: Final = ("no_daemon", "busy")
"""Codes of what a daemon that dies or stops answers, or does not."""

LARGE_BYTES: Final = 400_000
"""A value whose entry travels in blocks of its own, being above 256 KiB."""

COLUMNS_MAX: Final = 12


class Author:
    """Writes on one daemon: single rows, whole batches, updates, deletes, large values, columns. Only its own rows.

    Args:
        name: stands in its rows.
        daemon: where it writes.
        random: draws what.
    """

    def __init__(self, name: str, daemon: DaemonProcess, random: Random) -> None:
        self.name = name
        self._daemon = daemon
        self._random = random
        self._told: dict[str, int] = {}
        """The rows that are there, by key, with the least `n` that they must have."""
        self._gone: set[str] = set()
        """Rows whose deletion was acknowledged."""
        self._unsure: set[str] = set()
        """Rows that were being deleted when the daemon died."""
        self._batches: dict[str, int] = {}
        """Rows of each batch that was sent, whether or not acknowledged."""
        self._columns: set[str] = set()
        self._number = 0
        self._done = 0
        self._is_resting = True
        self._progress = trio.Event()

    # --- Writing ----------------------------------------------------------------------------------------------------------------

    async def write(
        self,
        operations: int,
        until: trio.Event | None = None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Writes until the daemon is gone, or so much is done, or something has happened.

        Args:
            operations: how much.
            until: what may happen.
            task_status: told at once, so that `wait_for` does not come before.
        """
        self._is_resting = False
        task_status.started()
        first = self._done
        try:
            async with self._daemon.client() as peers:
                while self._done - first < operations and not (until is not None and until.is_set()):
                    await self._write_one(peers)
                    self._note_progress()
        except PeersError as error:
            if error.code not in ENDING:
                raise
        finally:
            self._is_resting = True
            self._note_progress(0)

    async def wait_for(self, operations: int) -> None:
        """Returns once so much more is done, or the `write` that is under way is over."""
        goal = self._done + operations
        while self._done < goal and not self._is_resting:
            await self._progress.wait()

    def _note_progress(self, operations: int = 1) -> None:
        self._done += operations
        self._progress.set()
        self._progress = trio.Event()

    async def _write_one(self, peers: Peers) -> None:
        draw = self._random.random()
        alone = [key for key in self._told if key not in self._unsure and ":" not in key]
        if draw < 0.12 and alone:
            await self._update(peers, self._random.choice(alone))
        elif draw < 0.22 and alone:
            await self._delete(peers, self._random.choice(alone))
        elif draw < 0.34:
            await self._insert_batch(peers, self._random.randint(2, 60))
        elif draw < 0.35:
            await self._insert(peers, self._random.randbytes(LARGE_BYTES // 2).hex())
        elif draw < 0.37 and len(self._columns) < COLUMNS_MAX:
            await self._add_column(peers)
        else:
            await self._insert(peers, self._random.randbytes(40).hex())

    def _next(self) -> int:
        self._number += 1
        return self._number

    async def _insert(self, peers: Peers, body: str) -> None:
        n = self._next()
        key = f"{self.name}-{n}"
        await peers.execute(INSERT, [key, self.name, None, n, body], group=GROUP)
        self._told[key] = n

    async def _insert_batch(self, peers: Peers, size: int) -> None:
        batch = f"{self.name}-{self._next()}"
        self._batches[batch] = size
        rows: list[Sequence[Any]] = [[f"{batch}:{index}", self.name, batch, index, "x" * 20] for index in range(size)]
        await peers.transaction([{"sql": INSERT, "params_seq": rows}], group=GROUP)
        self._told.update({f"{batch}:{index}": index for index in range(size)})

    async def _update(self, peers: Peers, key: str) -> None:
        n = self._next()
        await peers.execute("UPDATE item SET n = ? WHERE id = ?", [n, key], group=GROUP)
        self._told[key] = n

    async def _delete(self, peers: Peers, key: str) -> None:
        self._unsure.add(key)
        await peers.execute("DELETE FROM item WHERE id = ?", [key], group=GROUP)
        self._unsure.discard(key)
        del self._told[key]
        self._gone.add(key)

    async def _add_column(self, peers: Peers) -> None:
        column = f"{self.name}_{self._next()}"
        await peers.execute(f"ALTER TABLE item ADD COLUMN {column} TEXT", group=GROUP)
        self._columns.add(column)

    # --- Looking ----------------------------------------------------------------------------------------------------------------

    def missing_in(self, copy: Path) -> list[str]:
        """What this author was told and a file does not show, in words."""
        rows = self._rows(copy)
        missing = [
            f"row {key} with n={least} ({rows.get(key)})"
            for key, least in self._told.items()
            if rows.get(key, -1) < least and (key in rows or key not in self._unsure)
        ]
        missing += [f"the deletion of row {key}" for key in self._gone if key in rows]
        with closing(sqlite3.connect(copy)) as connection:
            columns = {str(row[1]) for row in connection.execute("PRAGMA table_info(item)")}
        missing += [f"column {column}" for column in self._columns - columns]
        return missing

    def torn_in(self, copy: Path) -> list[str]:
        """The batches of this author that are there in part, in words."""
        with closing(sqlite3.connect(copy)) as connection:
            query = "SELECT batch, count(*) FROM item WHERE author = ? AND batch IS NOT NULL GROUP BY batch"
            held = connection.execute(query, (self.name,)).fetchall()
        return [f"{number} of {self._batches[batch]} rows of {batch}" for batch, number in held if number != self._batches[batch]]

    def _rows(self, copy: Path) -> dict[str, int]:
        with closing(sqlite3.connect(copy)) as connection:
            return dict(connection.execute("SELECT id, n FROM item WHERE author = ?", (self.name,)).fetchall())
