"""The figures of a device with many groups: what a start, a reconnect in sync and the idle daemon cost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import trio

from peersd.client import Peers
from peersd.testing.processes import DaemonProcess
from scripts.bench_daemons import WAIT_S, init
from scripts.daemon_process import open_daemon

AT_ONCE = 4
"""Groups that are made at once: more are no faster on two cores."""


@dataclass(frozen=True)
class Groups:
    """What it costs a device to share so many groups with another, while all of them are in sync.

    Attributes:
        join_ms: to create one, invite into it and join it, while so many are made.
        ready_ms: from the start of the process until its API answers.
        in_sync_ms: from then until every group is known to be in sync.
        link_bytes: on the new link, both ways, with the handshake.
        memory_bytes, file_handles: of the daemon then.
    """

    join_ms: float
    ready_ms: float
    in_sync_ms: float
    link_bytes: int
    memory_bytes: int
    file_handles: int


async def measure_groups(place: Path, number: int, rounds: int) -> list[Groups]:
    """Two daemons share so many groups; then one of them restarts, `rounds` times."""
    place.mkdir()
    async with open_daemon(place, "a") as a, open_daemon(place, "b") as b:
        await init(a)
        await init(b)
        began = time.perf_counter()
        await share_groups(a, b, number)
        join_ms = (time.perf_counter() - began) * 1000 / number
        async with b.client() as peers:
            await wait_in_sync(peers, number)
        return [await measure_restart(b, number, join_ms) for _ in range(rounds)]


async def share_groups(a: DaemonProcess, b: DaemonProcess, number: int) -> None:
    """Has B join groups of A's by tickets."""
    limiter = trio.CapacityLimiter(AT_ONCE)
    async with a.client() as inviter, b.client() as joiner, trio.open_nursery() as nursery:

        async def share(name: str) -> None:
            async with limiter:
                await inviter.create_group(name)
                ticket = str((await inviter.create_invite(name))["ticket"])
                await joiner.join(ticket, timeout_s=WAIT_S)

        for index in range(number):
            nursery.start_soon(share, f"group {index}")


async def measure_restart(daemon: DaemonProcess, number: int, join_ms: float) -> Groups:
    """Restarts a daemon that is in sync."""
    await daemon.terminate()
    began = time.perf_counter()
    await daemon.start()
    ready = time.perf_counter()
    async with daemon.client() as peers:
        await wait_in_sync(peers, number)
        in_sync = time.perf_counter()
        (link,) = await peers.links()
    sent_bytes = link["bytes_in"] + link["bytes_out"]
    ready_ms, in_sync_ms = (ready - began) * 1000, (in_sync - ready) * 1000
    return Groups(join_ms, ready_ms, in_sync_ms, sent_bytes, daemon.memory_bytes(), daemon.file_handles())


async def wait_in_sync(peers: Peers, number: int) -> None:
    """Returns when so many groups with another member are in sync."""
    with trio.fail_after(WAIT_S):
        while sum(group["in_sync"] for group in await peers.groups() if group["kind"] == "group") < number:
            await trio.sleep(0.01)
