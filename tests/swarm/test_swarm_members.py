"""Real nodes that change their members while they are cut off from each other."""

from __future__ import annotations

import pytest
import trio

from peersd.testing.swarm import open_swarm

SCHEMA = ["CREATE TABLE note (id TEXT PRIMARY KEY DEFAULT (uuid7()), text TEXT)"]

pytestmark = pytest.mark.sim


async def test_who_was_removed_by_one_who_could_not_hears_so_from_who_takes_it_for_a_member(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It has heard of the removal, and not that the removal fell: it asks back who opens the group."""
    async with open_swarm(devices=3, schema=SCHEMA, seed=5) as swarm:
        group = swarm.group_id("g1")
        await swarm.peers("ada").call("member.set_role", group=group, user="cem", role="admin")
        await swarm.converged()
        await trio.sleep(20)
        swarm.partition(["ada"], ["ben", "cem"])
        await swarm.peers("ada").call("member.remove", group=group, user="cem")
        await swarm.peers("cem").call("member.remove", group=group, user="ben")
        await trio.sleep(5)
        shown = await swarm.peers("ben").call("group.show", group=group)
        assert shown["role"] == "none"
        swarm.heal()
        await trio.sleep(60)
        await swarm.execute("ada", "INSERT INTO note (text) VALUES ('for ben')")
        await swarm.converged()
        assert await swarm.query("ben", "SELECT text FROM note") == [("for ben",)]
