"""Real nodes under virtual time: whatever the network, the clocks or a crash do, all that was acknowledged is held."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from peersd.client import NoDaemon
from peersd.testing.swarm import Conditions, Swarm, open_swarm

SCHEMA = ["CREATE TABLE note (id TEXT PRIMARY KEY DEFAULT (uuid7()), text TEXT)"]
INSERT = "INSERT INTO note (text) VALUES (?)"
TEXTS = "SELECT text FROM note ORDER BY text"

pytestmark = pytest.mark.sim


async def texts(swarm: Swarm, device: str, group: str | None = None) -> list[str]:
    return [row[0] for row in await swarm.query(device, TEXTS, group=group)]


def inodes(folder: Path) -> dict[str, int]:
    """The files of a folder; of a write-ahead log, which may be made anew, only that it is there."""
    found = {path.relative_to(folder).as_posix(): path.stat().st_ino for path in folder.rglob("*") if path.is_file()}
    return {name: 0 if name.endswith("-wal") else inode for name, inode in found.items() if not name.endswith("-shm")}


async def settle(swarm: Swarm) -> None:
    """Wait until all links that are wanted are there: addresses travel in beacons, which keep a pause of some seconds."""
    await swarm.converged()
    await trio.sleep(20)


async def test_twelve_devices_in_three_groups_meet_again_after_a_partition(autojump_clock: trio.testing.MockClock) -> None:
    names = [f"device{number}" for number in range(12)]
    groups = {"all": names, "even": names[::2], "some": names[3:8]}
    async with open_swarm(devices=names, groups=groups, schema=SCHEMA, seed=1) as swarm:
        swarm.partition(names[:5], names[5:9], names[9:])
        for group, members in groups.items():
            marker = swarm.marker(group)
            for name in members:
                await swarm.execute(name, INSERT, [f"{name} {marker}"], group=group)
        await trio.sleep(100)
        assert len(await texts(swarm, names[0], "all")) == 5
        swarm.heal()
        await swarm.converged()
        for group, members in groups.items():
            for name in members:
                assert len(await texts(swarm, name, group)) == len(members)


async def test_what_is_sent_into_a_partition_of_one_direction_comes_once_it_heals(autojump_clock: trio.testing.MockClock) -> None:
    async with open_swarm(devices=3, schema=SCHEMA, seed=2) as swarm:
        await settle(swarm)
        swarm.partition(["ada"], ["ben", "cem"], one_way=True)
        await swarm.execute("ada", INSERT, ["from ada"])
        await swarm.execute("ben", INSERT, ["from ben"])
        await trio.sleep(5)
        assert await texts(swarm, "ada") == ["from ada", "from ben"]
        assert await texts(swarm, "cem") == ["from ben"]
        swarm.heal()
        assert await swarm.converged() < 5  # no ping was missed: the links of before carry on
        assert await texts(swarm, "cem") == ["from ada", "from ben"]


async def test_a_crash_in_the_middle_of_writing_loses_nothing_that_was_acknowledged(
    autojump_clock: trio.testing.MockClock,
) -> None:
    acknowledged: list[str] = []
    async with open_swarm(devices=3, schema=SCHEMA, seed=3) as swarm:

        async def write(first: int) -> None:
            for number in range(first, 10_000, 5):
                try:
                    await swarm.execute("ada", INSERT, [f"{number:05}"])
                except NoDaemon:
                    return
                acknowledged.append(f"{number:05}")

        async with trio.open_nursery() as nursery:
            for first in range(5):
                nursery.start_soon(write, first)
            await trio.sleep(0.1)
            swarm.isolate("ada")  # the others lack what is written from here on: only ada's own disk has it
            await trio.sleep(0.1)
            await swarm.crash("ada")
        assert 50 < len(acknowledged) < 9_000
        swarm.heal()
        await swarm.restart("ada")
        await swarm.converged()
        held = await texts(swarm, "cem")
        assert set(acknowledged) <= set(held) and len(held) - len(acknowledged) <= 5


async def test_after_a_crash_the_files_are_as_they_were_and_the_device_goes_on_in_its_logs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_swarm(devices=2, schema=SCHEMA, seed=11) as swarm:
        before = await swarm.peers("ada").execute(INSERT, ["before"])
        files = inodes(swarm.devices["ada"].folder)
        await swarm.crash("ada")
        assert (
            inodes(swarm.devices["ada"].folder) == files
        )  # with write-ahead logs, which who closes a store in good order removes
        await swarm.restart("ada")
        after = await swarm.peers("ada").execute(INSERT, ["after"])
        assert before["last_entry"] and after["last_entry"]
        assert after["last_entry"]["writer"] == before["last_entry"]["writer"]
        assert after["last_entry"]["seq"] == before["last_entry"]["seq"] + 1
        await swarm.converged()


async def test_a_device_that_lost_its_power_is_missed_and_its_link_comes_back(autojump_clock: trio.testing.MockClock) -> None:
    async with open_swarm(devices=3, schema=SCHEMA, seed=4) as swarm:
        await settle(swarm)
        await swarm.crash("ben", silently=True)
        await swarm.execute("ada", INSERT, ["meanwhile"])
        assert len(await swarm.peers("ada").links()) == 2  # nobody has told ada
        await trio.sleep(60)
        assert len(await swarm.peers("ada").links()) == 1
        with pytest.raises(NoDaemon):
            swarm.peers("ben")
        await swarm.restart("ben")
        await swarm.converged()
        assert await texts(swarm, "ben") == ["meanwhile"]


async def test_a_clock_ten_years_ahead_and_one_that_jumps_back_keep_nobody_from_converging(
    autojump_clock: trio.testing.MockClock,
) -> None:
    year_ms = 365 * 86_400_000
    async with open_swarm(devices=4, schema=SCHEMA, seed=5) as swarm:
        swarm.set_clock("ben", skew_ms=10 * year_ms)
        for name in swarm.devices:
            await swarm.execute(name, INSERT, [f"1 {name}"])
        await swarm.converged()
        swarm.set_clock("ben", skew_ms=-year_ms)
        await swarm.execute("cem", "UPDATE note SET text = 'changed by cem' WHERE text = '1 ben'")
        await swarm.execute("ben", INSERT, ["2 ben"])
        await swarm.converged()
        assert await texts(swarm, "dan") == ["1 ada", "1 cem", "1 dan", "2 ben", "changed by cem"]


async def test_dials_that_cross_leave_one_link(autojump_clock: trio.testing.MockClock) -> None:
    slow = Conditions(latency_ms=(300.0, 300.0))
    async with open_swarm(devices=2, schema=SCHEMA, seed=6, conditions=slow) as swarm:
        await settle(swarm)
        # Both lose the link at the same moment, and dial each other while the other's dial is under way.
        assert swarm.network.break_links("ada", "ben") == 1
        most = 0
        for _ in range(200):
            await trio.sleep(0.02)
            most = max(most, swarm.network.connected("ada", "ben"))
        assert most == 2
        await swarm.converged()
        assert swarm.network.connected("ada", "ben") == 1


async def test_a_link_that_died_in_silence_is_found_by_its_pings(autojump_clock: trio.testing.MockClock) -> None:
    async with open_swarm(devices=2, schema=SCHEMA, seed=7) as swarm:
        await swarm.converged()
        assert swarm.network.sever_links("ada", "ben") == 1
        await swarm.execute("ada", INSERT, ["into the void"])
        await trio.sleep(10)
        assert await texts(swarm, "ben") == []
        took_s = await swarm.converged()
        assert 10 < took_s < 60 and await texts(swarm, "ben") == ["into the void"]


async def test_for_a_device_that_reads_nothing_little_is_queued_and_others_are_not_held_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_swarm(devices=3, schema=SCHEMA, seed=8) as swarm:
        await settle(swarm)
        swarm.network.clog("cem")
        for number in range(40):
            await swarm.execute("ada", INSERT, [f"{number:02} " + "x" * 50_000])
        await trio.sleep(2)
        assert len(await texts(swarm, "ben")) == 40
        swarm.heal()
        await swarm.converged()


async def test_a_lossy_narrow_path_is_slow_and_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    poor = Conditions(latency_ms=(100.0, 800.0), bytes_per_s=20_000, loss=0.2)
    async with open_swarm(devices=3, schema=SCHEMA, seed=9, conditions=poor) as swarm:
        for name in swarm.devices:
            for number in range(5):
                await swarm.execute(name, INSERT, [f"{name} {number}"])
        await swarm.converged()
        assert len(await texts(swarm, "cem")) == 15


async def test_a_device_that_was_refused_for_an_hour_is_dialled_again(autojump_clock: trio.testing.MockClock) -> None:
    async with open_swarm(devices=2, schema=SCHEMA, seed=10) as swarm:
        await swarm.converged()
        for name in swarm.devices:
            swarm.network.refuse(name)
        swarm.network.break_links("ada", "ben")
        await swarm.execute("ada", INSERT, ["later"])
        await trio.sleep(3600)
        swarm.heal()
        await swarm.converged()
