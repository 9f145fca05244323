"""Fresh devices that fetch all of a group: how fast, and what it takes on the wire, on disk and in memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import trio

from peersd.testing.processes import DaemonProcess
from scripts.bench_figures import Spread
from scripts.bench_latency import measure_changes
from scripts.bench_limits import BulkLimit, Row, make_rows, measure_bulk
from scripts.bench_pairs import (
    PIPELINED,
    Write,
    accept,
    create_ticket,
    group_bytes,
    has_rows,
    init,
    join,
    make_group,
    wait_for,
    wait_synced,
    write_batches,
    write_singles,
)
from scripts.bench_run import Run
from scripts.daemon_process import open_daemon
from scripts.machine_view import measure_peak_memory_bytes

BULK, LIVE = "bulk", "live"
CHANGED_EVERY = 10
"""Rows of which one is changed once more, where inserts and updates are mixed."""
MIB = 1 << 20

WRITES: Final[Mapping[str, Write]] = {
    "catch_up_1000": write_batches,
    "catch_up_single": partial(write_singles, at_once=PIPELINED),
    "catch_up_mixed": partial(write_singles, at_once=PIPELINED, changed_every=CHANGED_EVERY),
}
"""How the rows of a figure are written."""


@dataclass(frozen=True)
class CatchUp:
    """What one fresh device's catch-up took.

    Attributes:
        limit: what plain APSW did with the same rows just before.
        rows_per_s: from the call of invite.accept until the file shows all rows.
        wire_bytes_per_row: on the link, both ways, with its handshake and the joining.
        disk_bytes_per_row: all files of the group once the daemon has ended, which checkpoints.
        sender_peak_bytes, receiver_peak_bytes: the most memory that either daemon has had since its start; the sender was
            restarted after it had written.
    """

    limit: BulkLimit
    rows_per_s: float
    wire_bytes_per_row: float
    disk_bytes_per_row: float
    sender_peak_bytes: int
    receiver_peak_bytes: int


async def measure_catch_up(run: Run, name: str) -> None:
    """Rows that were written as WRITES says."""
    rows = make_rows(run.sizes.bulk_rows, seed=3)
    place = run.folder / name
    place.mkdir()
    async with open_daemon(place, "a") as a:
        writer_bytes = await _write(a, rows, WRITES[name])
        rounds = [await measure_one(run, a, place, f"fresh{number}", rows) for number in range(run.sizes.rounds)]
    run.add(name, "rows/s", [one.rows_per_s for one in rounds], [one.limit.rows_per_s for one in rounds])
    run.add(f"{name}_wire", "bytes/row", [one.wire_bytes_per_row for one in rounds])
    plain = [one.limit.bytes_per_row for one in rounds]
    run.add(f"{name}_disk", "bytes/row", [one.disk_bytes_per_row for one in rounds], plain)
    run.add(f"{name}_disk_writer", "bytes/row", [writer_bytes / len(rows)], plain)
    _add_peaks(run, name, rounds)


async def measure_million(run: Run) -> None:
    """Many rows: how much slower they are than fewer, and how they delay a change in another group on the same link."""
    place = run.folder / "million"
    place.mkdir()
    few, many = make_rows(run.sizes.bulk_rows, seed=4), make_rows(run.sizes.large_rows, seed=5)
    async with open_daemon(place, "few") as a:
        await _write(a, few, write_batches)
        small = [await measure_one(run, a, place, f"fresh-few{number}", few) for number in range(run.sizes.rounds)]
    async with open_daemon(place, "many") as a:
        await _write(a, many, write_batches)
        large = [await measure_one(run, a, place, f"fresh-many{number}", many) for number in range(run.sizes.rounds_large)]
        await make_group(a, LIVE)
        beside = [await _measure_beside(run, a, place, number) for number in range(run.sizes.rounds_large)]
    # As fast as with fewer rows, but for what plain APSW loses.
    lost = statistics.median(one.limit.rows_per_s for one in large) / statistics.median(one.limit.rows_per_s for one in small)
    expected = statistics.median(one.rows_per_s for one in small) * lost
    run.add("catch_up_million", "rows/s", [one.rows_per_s for one in large], [expected])
    _add_peaks(run, "catch_up_million", large)
    run.add("beside_idle_p99", "ms", [idle.p99_ms for idle, _ in beside])
    run.add("beside_bulk_p50", "ms", [busy.p50_ms for _, busy in beside], [idle.p50_ms for idle, _ in beside])
    run.add("beside_bulk_p99", "ms", [busy.p99_ms for _, busy in beside], [idle.p99_ms for idle, _ in beside])


def _add_peaks(run: Run, name: str, rounds: Sequence[CatchUp]) -> None:
    run.add(f"{name}_peak_sender", "MiB", [max(one.sender_peak_bytes for one in rounds) / MIB])
    run.add(f"{name}_peak_receiver", "MiB", [one.receiver_peak_bytes / MIB for one in rounds])


async def _write(a: DaemonProcess, rows: Sequence[Row], write: Write) -> int:
    """Makes the group with the rows and restarts the daemon; returns the bytes of the group's files in between."""
    await init(a)
    path = await make_group(a, BULK)
    async with a.client() as peers:
        await write(peers, BULK, rows)
    await a.terminate()
    size_bytes = group_bytes(path)
    await a.start()
    return size_bytes


async def measure_one(run: Run, a: DaemonProcess, place: Path, name: str, rows: Sequence[Row]) -> CatchUp:
    """One fresh device fetches the group BULK of A's, which has these rows and no other device that is there."""
    limit = await trio.to_thread.run_sync(measure_bulk, run.folder, rows)
    async with open_daemon(place, name) as fresh:
        await init(fresh)
        ticket = await create_ticket(a, BULK)
        began = time.perf_counter()
        path = await accept(fresh, ticket, BULK)
        await wait_for(partial(has_rows, path, len(rows)))
        seconds = time.perf_counter() - began
        await wait_synced(a, BULK)
        (link,) = await fresh.links()
        peaks = measure_peak_memory_bytes(a.pid), measure_peak_memory_bytes(fresh.pid)
        await fresh.terminate()
        wire_bytes = (link["bytes_in"] + link["bytes_out"]) / len(rows)
        return CatchUp(limit, len(rows) / seconds, wire_bytes, group_bytes(path) / len(rows), *peaks)


async def _measure_beside(run: Run, a: DaemonProcess, place: Path, number: int) -> tuple[Spread, Spread]:
    """Changes in a group of a fresh device's, first alone and then while the device catches up in the other."""
    async with open_daemon(place, f"beside{number}") as fresh:
        await init(fresh)
        live_path = await join(a, fresh, LIVE)
        await wait_synced(a, LIVE)
        idle_ms = await measure_changes(a, live_path, LIVE, make_rows(run.sizes.changes, seed=400 + number))
        ticket = await create_ticket(a, BULK)
        arrived = trio.Event()

        async def catch_up(task_status: trio.TaskStatus[None]) -> None:
            path = await accept(fresh, ticket, BULK)
            task_status.started()
            await wait_for(partial(has_rows, path, run.sizes.large_rows), poll_s=0.1)
            arrived.set()

        async with trio.open_nursery() as nursery:
            await nursery.start(catch_up)
            busy_ms = await measure_changes(a, live_path, LIVE, make_rows(100_000, seed=500 + number), arrived.is_set)
        return Spread.of(idle_ms), Spread.of(busy_ms)
