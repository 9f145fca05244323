"""A device with many groups, all shared with one other: what a start, a reconnect in sync and doing nothing cost."""

from __future__ import annotations

import time

import trio

from peersd.testing.processes import DaemonProcess
from scripts.bench_limits import TABLE_SQL, make_rows
from scripts.bench_pairs import WAIT_S, init, wait_equal, write_batches
from scripts.bench_reconnect import measure_handshake, reconnect
from scripts.bench_run import Run
from scripts.daemon_process import open_daemon
from scripts.machine_view import measure_cpu_s

AT_ONCE = 4
"""Groups that are made at once: more are no faster on two cores."""
MIB = 1 << 20


async def measure_groups(run: Run) -> None:
    """The one that does not listen for the other is restarted, watched while idle, and dials anew."""
    place = run.folder / "groups"
    number = run.sizes.groups
    ready: list[float] = []
    in_sync: list[float] = []
    memory: list[float] = []
    handles: list[float] = []
    idle: list[float] = []
    place.mkdir()
    async with open_daemon(place, "a") as a, open_daemon(place, "b") as b, open_daemon(place, "stranger") as stranger:
        for daemon in (a, b, stranger):
            await init(daemon)
        handshake = await measure_handshake(a, stranger)
        await stranger.terminate()
        began = time.perf_counter()
        await _share(a, b, number, run.sizes.group_rows)
        for daemon in (a, b):
            async with daemon.client() as peers:
                await wait_equal(peers, number)
        run.add("groups_join", "ms/group", [(time.perf_counter() - began) * 1000 / number])
        for _ in range(run.sizes.rounds_large):
            await b.terminate()
            began = time.perf_counter()
            await b.start()
            async with b.client() as peers:
                listed = await peers.groups()
                ready.append((time.perf_counter() - began) * 1000)
                assert len(listed) > number
                await wait_equal(peers, number)
                in_sync.append((time.perf_counter() - began) * 1000)
            cpu_s = measure_cpu_s(b.pid)
            await trio.sleep(run.sizes.idle_s)
            idle.append(100 * (measure_cpu_s(b.pid) - cpu_s) / run.sizes.idle_s)
            memory.append(b.memory_bytes() / MIB)
            handles.append(b.file_handles())
        rounds = [await reconnect(a, b, number) for _ in range(run.sizes.rounds_large)]
    run.add("groups_ready", "ms", ready)
    run.add("groups_start_to_sync", "ms", in_sync)
    run.add("groups_memory", "MiB", memory)
    run.add("groups_handles", "files", handles)
    run.add("groups_idle", "% of core", idle)
    run.add("groups_reconnect_time", "ms", [one.ms for one in rounds])
    run.add("groups_reconnect_bytes", "bytes", [one.link_bytes for one in rounds])
    run.add("groups_reconnect_group_bytes", "bytes", [(one.link_bytes - handshake) / number for one in rounds])


async def _share(a: DaemonProcess, b: DaemonProcess, number: int, rows: int) -> None:
    """Has B join groups of A's by tickets, each with a table and so many rows."""
    limiter = trio.CapacityLimiter(AT_ONCE)
    async with a.client() as inviter, b.client() as joiner, trio.open_nursery() as nursery:

        async def share(name: str, seed: int) -> None:
            async with limiter:
                await inviter.create_group(name)
                await inviter.execute(TABLE_SQL, group=name)
                await write_batches(inviter, name, make_rows(rows, seed))
                ticket = str((await inviter.create_invite(name))["ticket"])
                await joiner.join(ticket, timeout_s=WAIT_S)

        for index in range(number):
            nursery.start_soon(share, f"group {index}", index)
