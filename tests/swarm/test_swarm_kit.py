"""The swarm itself: the same seed gives the same run, and what must be true is checked so that it can fail."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
import trio

from peersd.testing.checkers import Checker
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
            await opened.store.call(spoil, opened.store.path, "UPDATE note SET text = 'spoiled'")
        with pytest.raises(SwarmFailed, match="g1: ada and ben differ in rows"):
            await swarm.converged(within_s=1)


async def test_rows_that_are_alike_and_do_not_follow_from_the_logs_are_found(autojump_clock: trio.testing.MockClock) -> None:
    async with open_swarm(devices=2, schema=SCHEMA, seed=1) as swarm:
        await swarm.execute("ada", INSERT, ["x"])
        await swarm.converged()
        for device in swarm.devices.values():
            async with device.node.groups[next(iter(swarm.record.group_ids.values()))].use() as opened:
                await opened.store.call(spoil, opened.store.path, "UPDATE note SET text = 'spoiled'")
        with pytest.raises(SwarmFailed, match=r"oracle: ada: g1: rows of note: only in the table .*spoiled") as failed:
            await swarm.converged()
        assert {finding.checker for finding in failed.value.findings} == {Checker.ORACLE, Checker.ANY_ORDER, Checker.REBUILD}


def spoil(path: str, sql: str, *params: int) -> None:
    connection = apsw.Connection(path)
    connection.execute(sql, params)
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


@pytest.mark.parametrize(
    "doctoring",
    [
        "DELETE FROM _peers_entry WHERE log = ? AND seq <= 3",
        "UPDATE _peers_entry SET hash = randomblob(32) WHERE log = ? AND seq <= 3",
    ],
)
async def test_what_a_device_wrote_before_it_lost_the_right_is_missed_though_its_last_write_is_void(
    doctoring: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_swarm(devices=3, schema=SCHEMA, seed=1) as swarm:
        for text in ("one", "two", "three"):
            await swarm.execute("cem", INSERT, [text])
        await swarm.converged()
        swarm.isolate("cem")
        await swarm.execute("cem", INSERT, ["void"])
        await swarm.peers("ada").set_role("cem", "reader", swarm.group_id())
        swarm.heal()
        await swarm.converged()
        assert await swarm.query("ben", "SELECT count(*) FROM note") == [(3,)]
        (group_id,) = swarm.record.group_ids.values()
        assert [entry.seq for entry in swarm.record.acknowledged.of(group_id)] == [1, 2, 3, 4]
        # Behind the store's back: rows, clocks and vectors stay alike.
        async with swarm.devices["ben"].node.groups[group_id].use() as opened:
            row = opened.store.store.log.log(swarm.record.acknowledged.of(group_id)[0].log)
            assert row is not None
            await opened.store.call(spoil, opened.store.path, doctoring, row.id)
        with pytest.raises(
            SwarmFailed, match=r"ben: g1: lacks what cem was told is written: 0 of 3 entries are there, number 1 "
        ):
            await swarm.converged(within_s=1)


async def test_what_a_stranger_holds_of_a_group_is_found(autojump_clock: trio.testing.MockClock) -> None:
    async with open_swarm(devices=3, groups={"two": ["ada", "ben"]}, schema=SCHEMA, seed=1) as swarm:
        marker = swarm.marker()
        await swarm.execute("ada", INSERT, [marker])
        await swarm.converged()
        (swarm.devices["cem"].folder / "found").write_text(f"…{marker}…")
        with pytest.raises(SwarmFailed, match="cem holds something of two"):
            await swarm.converged(within_s=1)


async def test_what_was_written_in_another_group_is_found_in_a_body_that_is_compressed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_swarm(devices=2, groups={"one": ["ada", "ben"], "two": ["ben", "ada"]}, schema=SCHEMA, seed=1) as swarm:
        marker = swarm.marker("two")
        await swarm.execute("ben", INSERT, [marker], group="two")
        await swarm.converged()
        digits = "".join(hashlib.sha256(bytes([number])).hexdigest() for number in range(100))  # no run of bytes stays as it is
        await swarm.execute("ben", INSERT, [digits + marker], group="one")
        await swarm.execute("ben", "UPDATE note SET text = ''", group="one")
        await trio.sleep(20)
        for device in swarm.devices.values():
            async with device.node.groups[swarm.record.group_ids["one"]].use() as opened:
                await opened.store.call(spoil, opened.store.path, "VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")
                assert marker.encode() not in Path(opened.store.path).read_bytes()
        with pytest.raises(SwarmFailed, match=r"(?s)ada: one: holds something of two.*ben: one: holds something of two"):
            await swarm.converged(within_s=10)


async def test_a_file_that_sqlite_finds_wrong_is_found(autojump_clock: trio.testing.MockClock) -> None:
    async with open_swarm(devices=2, schema=SCHEMA, seed=1) as swarm:
        await swarm.converged()
        group = swarm.devices["ben"].node.groups[next(iter(swarm.record.group_ids.values()))]
        async with group.use() as opened:
            # A row that the table's own words do not allow.
            wrong = "UPDATE sqlite_schema SET sql = 'CREATE TABLE t (x NOT NULL)' WHERE name = 't'"
            making = f"CREATE TABLE t (x); INSERT INTO t VALUES (NULL); PRAGMA writable_schema = ON; {wrong}"
            await opened.store.call(spoil, opened.store.path, making)
        with pytest.raises(SwarmFailed, match="ben: g1: integrity_check: NULL value in t"):
            await swarm.converged(within_s=1)


async def test_what_a_stranger_is_sent_or_anybody_can_read_is_found(autojump_clock: trio.testing.MockClock) -> None:
    async with open_swarm(
        devices=3, groups={"two": ["ada", "ben"], "all": ["ben", "cem", "ada"]}, schema=SCHEMA, seed=1
    ) as swarm:
        marker = swarm.marker("two")
        await swarm.execute("ben", INSERT, ["x" * 500 + marker], group="all")  # the test itself says in `all` what is of `two`
        async with swarm.network.open_sockets("ada").dial(swarm.network.url_of("ben"), 10.0) as transport:
            await transport.send(marker.encode())
        await trio.sleep(20)
        with pytest.raises(SwarmFailed) as failed:
            await swarm.converged()
        told = {str(finding) for finding in failed.value.findings}
        assert "markers: something of two goes from ben to cem, which never was in it" in told
        assert "markers: something of two goes from ada to ben unencrypted" in told
        assert "markers: cem: all: holds something of two" in told


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
