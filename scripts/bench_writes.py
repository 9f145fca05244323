"""Writes through the socket of one daemon while another is linked, beside a plain file that is given the same rows."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import trio

from peersd.testing.processes import DaemonProcess
from scripts.bench_limits import BATCH_ROWS, PlainWriter, Row, make_rows
from scripts.bench_pairs import GROUP, open_pair, wait_synced, write_batches, write_singles
from scripts.bench_run import Run

CLIENTS = 32


async def measure_single(run: Run) -> None:
    """Single-row transactions, by one client and by CLIENTS at once."""
    one: list[float] = []
    one_limits: list[float] = []
    many: list[float] = []
    many_limits: list[float] = []
    async with open_pair(run.folder / "single") as (a, _, _):
        plain = PlainWriter(run.folder / "single" / "plain.db")
        for number in range(run.sizes.rounds):
            rows = make_rows(run.sizes.single_rows + run.sizes.parallel_rows, seed=100 + number)
            first, rest = rows[: run.sizes.single_rows], rows[run.sizes.single_rows :]
            one_limits.append(1000 / (await run.limits.measure_durations()).one_transaction_ms)
            one.append(await _measure_clients(a, first, 1))
            await wait_synced(a, GROUP)
            many_limits.append(plain.measure_singles(rest))
            many.append(await _measure_clients(a, rest, CLIENTS))
            await wait_synced(a, GROUP)
        plain.close()
    run.add("single_1_client", "rows/s", one, one_limits)
    run.add("single_32_clients", "rows/s", many, many_limits)


async def measure_batch(run: Run) -> None:
    """Transactions of BATCH_ROWS rows, one after the other."""
    rates: list[float] = []
    limits: list[float] = []
    async with open_pair(run.folder / "batch") as (a, _, _):
        plain = PlainWriter(run.folder / "batch" / "plain.db")
        for number in range(run.sizes.rounds):
            rows = make_rows(run.sizes.batches * BATCH_ROWS, seed=200 + number)
            limits.append(plain.measure_batches(rows))
            async with a.client() as peers:
                began = time.perf_counter()
                await write_batches(peers, GROUP, rows)
                rates.append(len(rows) / (time.perf_counter() - began))
            await wait_synced(a, GROUP)
        plain.close()
    run.add("batch_1000", "rows/s", rates, limits)


async def _measure_clients(daemon: DaemonProcess, rows: Sequence[Row], clients: int) -> float:
    """Rows a second from so many connections that each wait for their answer."""
    share = math.ceil(len(rows) / clients)

    async def write_share(number: int, connected: trio.Event, go: trio.Event) -> None:
        async with daemon.client() as peers:
            await peers.status()
            connected.set()
            await go.wait()
            await write_singles(peers, GROUP, rows[number * share : (number + 1) * share])

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
