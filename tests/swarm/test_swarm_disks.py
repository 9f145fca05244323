"""Real nodes on disks that fill up, fail and lose their power: clients are told, nothing acknowledged is lost, and all heals."""

from __future__ import annotations

import pytest
import trio

from peersd.client import NoDaemon, PeersError
from peersd.testing.swarm import open_swarm

SCHEMA = ["CREATE TABLE note (id TEXT PRIMARY KEY DEFAULT (uuid7()), text TEXT)"]
INSERT = "INSERT INTO note (text) VALUES (?)"
LARGE = "x" * 100_000

pytestmark = pytest.mark.sim


@pytest.mark.parametrize("fault", ["is_full", "is_failing"])
async def test_a_disk_that_takes_nothing_for_a_while_is_told_of_and_loses_nothing(
    fault: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_swarm(devices=3, schema=SCHEMA, seed=1) as swarm:
        for name in swarm.devices:
            await swarm.execute(name, INSERT, [f"before {name}"])
        await swarm.converged()
        setattr(swarm.devices["ben"].disk, fault, True)
        for number in range(5):
            await swarm.execute("ada", INSERT, [f"{number} meanwhile {LARGE}"])
            with pytest.raises(PeersError) as refused:
                await swarm.execute("ben", INSERT, [f"{number} at ben {LARGE}"])
            assert (refused.value.code, refused.value.data["retry"]) == ("store_full", True)
        await trio.sleep(120)
        assert len(await swarm.query("cem", "SELECT 1 FROM note")) == 3 + 5  # nobody else is held up
        assert len(await swarm.query("ben", "SELECT 1 FROM note")) == 3  # it can still be read
        swarm.devices["ben"].disk.mend()
        await swarm.execute("ben", INSERT, ["after"])
        await swarm.converged(within_s=60)  # a session that failed by its own file is begun again after a while
        assert len(await swarm.query("ben", "SELECT 1 FROM note")) == 3 + 5 + 1


async def test_a_loss_of_power_takes_what_was_not_synced_and_nothing_that_was_acknowledged(
    autojump_clock: trio.testing.MockClock,
) -> None:
    acknowledged: list[str] = []
    async with open_swarm(devices=3, schema=SCHEMA, seed=3) as swarm:

        async def write(first: int) -> None:
            for number in range(first, 10_000, 3):
                try:
                    await swarm.execute("ada", INSERT, [f"{number:05}"])
                except NoDaemon:
                    return
                acknowledged.append(f"{number:05}")

        for _ in range(4):
            async with trio.open_nursery() as nursery:
                for first in range(3):
                    nursery.start_soon(write, first + len(acknowledged))
                await trio.sleep(0.03)
                swarm.isolate("ada")  # only ada's own disk has what is written from here on
                await trio.sleep(0.02)
                await swarm.crash("ada", silently=True)
            swarm.heal()
            await swarm.restart("ada")
        await swarm.converged()
        assert len(acknowledged) > 40
        held = {text for (text,) in await swarm.query("cem", "SELECT text FROM note")}
        assert set(acknowledged) <= held
