"""Many daemons in one group on this machine, each linked to a few: how soon a write is everywhere, and how often it is sent."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence

import trio

from peersd.testing.process_swarm import ProcessSwarm, make_plan, open_process_swarm
from scripts.bench_pairs import wait_for, wait_until
from scripts.bench_run import Run
from scripts.machine_view import open_read_only

GROUP = "g1"
TABLE_SQL = "CREATE TABLE note (id BLOB PRIMARY KEY, content BLOB)"
INSERT_SQL = "INSERT INTO note (id, content) VALUES (?, ?)"
SMALL_BYTES, LARGE_BYTES = 16, 96 * 1024
"""Of a row: what the larger one sends more is entries and nothing else; what announces them costs both the same."""
LOOK_S = 1.0
SETTLED_BYTES = LARGE_BYTES // 4
"""A write has settled when all links together send less than this in LOOK_S: no large row is under way, and what announces it all
the time, some 10 KiB a second among 32 devices, need not end."""


async def measure_swarm(run: Run) -> None:
    """One row at a time, on one device after the other."""
    devices = run.sizes.devices
    visible: list[float] = []
    entry_copies: list[float] = []
    async with open_process_swarm(run.folder / "swarm", make_plan(devices)) as swarm:
        await swarm.join()
        await _shape(swarm, run.sizes.neighbours)
        async with swarm.daemons[swarm.plan.devices[0]].client() as peers:
            await peers.execute(TABLE_SQL, group=GROUP)
        watch = _Files(swarm)
        await wait_for(watch.have_table)
        await _write(swarm, watch, 0, SMALL_BYTES)  # the first goes over most links, and leaves a tree for the others
        for number in range(1, run.sizes.rounds_large + 1):
            ms, small = await _write(swarm, watch, number, SMALL_BYTES)
            _, large = await _write(swarm, watch, number, LARGE_BYTES)
            visible.append(ms)
            entry_copies.append((large - small) / ((devices - 1) * (LARGE_BYTES - SMALL_BYTES)))
        watch.close()
    run.add("swarm_visible", "ms", visible)
    run.add("swarm_entry_bytes", "x needed", entry_copies)


def draw_neighbours(names: Sequence[str], each: int, seed: int) -> dict[str, set[str]]:
    """Who is linked to whom: so many others for each, all connected.

    Args:
        names: of the devices, more than `each`.
        each: an even number: as many rings through all devices as half of it.
        seed: of the draw.
    """
    assert each % 2 == 0 and each < len(names)
    rng = random.Random(seed)
    while True:
        found: dict[str, set[str]] = {name: set() for name in names}
        for _ in range(each // 2):
            ring = rng.sample(names, len(names))
            for one, other in zip(ring, [*ring[1:], ring[0]], strict=True):
                found[one].add(other)
                found[other].add(one)
        # Two rings may have a step in common; then they are drawn again.
        if all(len(others) == each for others in found.values()):
            return found


async def _shape(swarm: ProcessSwarm, each: int) -> None:
    """Has every device deny all but its neighbours; returns when the links are as drawn and carry the group."""
    neighbours = draw_neighbours(swarm.plan.devices, each, seed=1)
    for name, daemon in swarm.daemons.items():
        daemon.configure(deny=[id_ for other, id_ in swarm.device_ids.items() if other not in {name, *neighbours[name]}])
        await daemon.reload()

    async def is_shaped() -> bool:
        for name, daemon in swarm.daemons.items():
            carrying = {link["device_id"] for link in await daemon.links() if any(c["state"] == "open" for c in link["channels"])}
            if carrying != {swarm.device_ids[other] for other in neighbours[name]}:
                return False
        return True

    await wait_until(is_shaped, poll_s=0.2)


async def _write(swarm: ProcessSwarm, files: _Files, number: int, size_bytes: int) -> tuple[float, int]:
    """Writes a row on one device.

    Returns:
        Ms from the call until the row is in every file, and bytes sent on all links until it has settled.
    """
    names = swarm.plan.devices
    before = await _sent_bytes(swarm)
    key = os.urandom(16)
    async with swarm.daemons[names[number * 7 % len(names)]].client() as peers:
        began = time.perf_counter()
        await peers.execute(INSERT_SQL, [key, os.urandom(size_bytes)], group=GROUP)
    await wait_for(lambda: files.have_row(key), poll_s=0.001)
    ms = (time.perf_counter() - began) * 1000
    return ms, await _settled_bytes(swarm) - before


async def _settled_bytes(swarm: ProcessSwarm) -> int:
    before, after = 0, await _sent_bytes(swarm)
    while after - before >= SETTLED_BYTES:
        await trio.sleep(LOOK_S)
        before, after = after, await _sent_bytes(swarm)
    return after


async def _sent_bytes(swarm: ProcessSwarm) -> int:
    total = 0
    for daemon in swarm.daemons.values():
        total += (await daemon.call("daemon.status"))["bytes_out"]
    return total


class _Files:
    """The group's file on every device, open to look into."""

    def __init__(self, swarm: ProcessSwarm) -> None:
        self._files = [open_read_only(swarm.file_of(name, GROUP)) for name in swarm.plan.devices]

    def close(self) -> None:
        """Close them."""
        for file in self._files:
            file.close()

    def have_table(self) -> bool:
        """Whether the table is in every file."""
        return all(file.execute("SELECT 1 FROM sqlite_master WHERE name = 'note'").fetchone() for file in self._files)

    def have_row(self, key: bytes) -> bool:
        """Whether a row is in every file."""
        return all(file.execute("SELECT 1 FROM note WHERE id = ?", (key,)).fetchone() for file in self._files)
