"""The swarm itself: the same seed gives the same run, and what must be true is checked so that it can fail."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
import trio

from peersd.testing.swarm import SwarmFailed, open_swarm, run_virtually

SCHEMA = ["CREATE TABLE note (id TEXT PRIMARY KEY DEFAULT (uuid7()), text TEXT)"]
INSERT = "INSERT INTO note (text) VALUES (?)"

pytestmark = pytest.mark.sim


async def trace_of_a_run(seed: int) -> tuple[str, list[tuple[object, ...]]]:
    async with open_swarm(devices=4, groups=2, schema=SCHEMA, seed=seed) as swarm:
        swarm.partition(["ada", "ben"], ["cem", "dan"])
        for name in swarm.devices:
            for group in swarm.groups:
                await swarm.execute(name, INSERT, [name], group=group)
        await swarm.crash("dan")
        swarm.heal()
        swarm.network.refuse("ada")
        for other in ("ben", "cem"):
            swarm.network.break_links("ada", other)
            swarm.network.refuse(other)
        await trio.sleep(5)  # dials fail, and are tried again after waits that vary
        swarm.heal()
        await swarm.restart("dan")
        await swarm.converged()
        return swarm.trace_hash, await swarm.query("ben", "SELECT id, text FROM note ORDER BY id")


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    one, again, other = (run_virtually(trace_of_a_run, seed) for seed in (1, 1, 2))
    assert one == again
    assert one[0] != other[0] and one[1] != other[1]


def test_a_run_is_the_same_in_another_process() -> None:
    code = "from tests.swarm.test_swarm_kit import *; print(run_virtually(trace_of_a_run, 1)[0])"
    found = {run_virtually(trace_of_a_run, 1)[0]}
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        ran = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=300
        )
        found.add(ran.stdout.strip())
    assert len(found) == 1


async def test_a_swarm_needs_a_virtual_clock() -> None:
    with pytest.raises(RuntimeError, match="autojump_clock"):
        async with open_swarm():
            pass


async def test_what_the_body_raises_comes_out_as_it_is(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with open_swarm(devices=2):
            raise KeyError("mine")


# --- Every check can fail -------------------------------------------------------------------------------------------------------


async def test_devices_apart_have_not_converged_and_the_failure_says_how_to_repeat_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_swarm(devices=2, schema=SCHEMA, seed=77) as swarm:
        await swarm.converged()
        swarm.isolate("ben")
        await swarm.execute("ada", INSERT, ["x"])
        with pytest.raises(SwarmFailed, match=r"(?s)seed 77:.*g1 differs: ada \| ben.*partition: ben \| ada"):
            await swarm.converged(within_s=20)
        swarm.heal()
        await swarm.converged()


async def test_a_row_that_only_one_device_has_is_found(autojump_clock: trio.testing.MockClock) -> None:
    async with open_swarm(devices=2, schema=SCHEMA, seed=1) as swarm:
        await swarm.execute("ada", INSERT, ["x"])
        await swarm.converged()
        # Changed behind the store's back: vectors are alike, rows are not.
        group = swarm.devices["ben"].node.groups[next(iter(swarm.record.group_ids.values()))]
        async with group.use() as opened:
            await opened.store.call(spoil, opened.store.path)
        with pytest.raises(SwarmFailed, match="g1: ada and ben differ in rows"):
            await swarm.converged(within_s=1)


def spoil(path: str) -> None:
    connection = apsw.Connection(path)
    connection.execute("UPDATE note SET text = 'spoiled'")
    connection.close()


async def test_a_write_that_was_acknowledged_and_is_nowhere_is_missed(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with open_swarm(devices=2, schema=SCHEMA, seed=1, folder=tmp_path) as swarm:
        await swarm.converged()
        swarm.isolate("ada")
        await swarm.stop("ada")
        before = {path: path.read_bytes() for path in (tmp_path / "ada").rglob("*") if path.is_file()}
        await swarm.restart("ada")
        await swarm.execute("ada", INSERT, ["x"])
        await swarm.stop("ada")
        for path, content in before.items():
            path.write_bytes(content)  # a disk that forgot what it was told to keep
        swarm.heal()
        await swarm.restart("ada")
        with pytest.raises(SwarmFailed, match=r"ada: g1: lacks what ada was told is written: 0 of 1 entries"):
            await swarm.converged(within_s=30)


async def test_what_a_stranger_holds_of_a_group_is_found(autojump_clock: trio.testing.MockClock) -> None:
    async with open_swarm(devices=3, groups={"two": ["ada", "ben"]}, schema=SCHEMA, seed=1) as swarm:
        marker = swarm.marker()
        await swarm.execute("ada", INSERT, [marker])
        await swarm.converged()
        (swarm.devices["cem"].folder / "found").write_text(f"…{marker}…")
        with pytest.raises(SwarmFailed, match="cem holds something of two"):
            await swarm.converged(within_s=1)


async def test_a_connection_that_is_no_link_is_found(autojump_clock: trio.testing.MockClock) -> None:
    async with open_swarm(devices=2, seed=1) as swarm:
        await swarm.converged()
        async with swarm.network.open_sockets("ada").dial(swarm.network.url_of("ben"), 10.0):
            with pytest.raises(SwarmFailed, match="ada-ben: 2 connections, 2 ends of a link"):
                await swarm.converged(within_s=5)
        await swarm.converged()


async def test_an_error_that_a_node_logs_fails_the_swarm(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(SwarmFailed, match="logged: broken"):
        async with open_swarm(devices=2):
            logging.getLogger("peersd.node").error("broken")
