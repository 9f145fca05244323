"""One change: from the call of sql.execute on one daemon until the row is in the other's file."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence

import trio

from peersd.testing.processes import DaemonProcess
from scripts.bench_figures import Spread
from scripts.bench_limits import INSERT_SQL, Row, make_rows
from scripts.bench_pairs import GROUP, WAIT_S, open_pair
from scripts.bench_run import Run
from scripts.machine_view import open_read_only

POLL_S = 0.0001
"""Between two looks into a file: small beside every figure measured in this way."""


async def measure_one_change(run: Run) -> None:
    """Changes one after the other while nothing else happens."""
    spreads: list[Spread] = []
    limits: list[float] = []
    async with open_pair(run.folder / "one_change") as (a, _, path):
        for number in range(run.sizes.rounds):
            limits.append((await run.limits.measure_durations()).one_change_ms)
            samples_ms = await measure_changes(a, path, GROUP, make_rows(run.sizes.changes, seed=300 + number))
            spreads.append(Spread.of(samples_ms))
    run.add("one_change_p50", "ms", [one.p50_ms for one in spreads], limits)
    run.add("one_change_p99", "ms", [one.p99_ms for one in spreads], limits)


async def measure_changes(
    a: DaemonProcess, path: str, group: str, rows: Sequence[Row], is_over: Callable[[], bool] = lambda: False
) -> list[float]:
    """Writes one row after the other on A, each once the last is known to be durable at the other side.

    Args:
        a: who writes.
        path: the group's file at the other.
        group: which.
        rows: to write.
        is_over: asked after each; once it says so the rest is left.

    Returns:
        How long each took until a reader of the other's file saw it, in ms.
    """
    samples_ms: list[float] = []
    async with a.client() as peers:
        for row in rows:
            sight = _Sight(path, row[0])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, sight.look)
                await trio.to_thread.run_sync(sight.ready.wait)
                began = time.perf_counter()
                await peers.execute(INSERT_SQL, row, group=group)
            samples_ms.append((sight.seen_at - began) * 1000)
            await peers.wait_synced(group, timeout_s=WAIT_S)
            if is_over():
                break
    return samples_ms


class _Sight:
    """Looks out for a row in a thread.

    Attributes:
        ready: set once it looks.
        seen_at: when the row was there, by time.perf_counter.
    """

    def __init__(self, path: str, key: bytes) -> None:
        self._path = path
        self._key = key
        self.ready = threading.Event()
        self.seen_at = math.inf

    def look(self) -> None:
        """Returns when the row is there."""
        connection = open_read_only(self._path)
        try:
            deadline = time.perf_counter() + WAIT_S
            while not connection.execute("SELECT 1 FROM item WHERE id = ?", (self._key,)).fetchone():
                self.ready.set()
                if time.perf_counter() > deadline:
                    raise TimeoutError("the row did not arrive")
                time.sleep(POLL_S)
            self.seen_at = time.perf_counter()
        finally:
            self.ready.set()
            connection.close()
