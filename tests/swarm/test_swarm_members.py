"""Real nodes that change their members while they are cut off from each other."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from peersd.testing.swarm import Swarm, open_swarm

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


async def open_to(swarm: Swarm, device: str, group: str) -> dict[str, Any]:
    """The members of a group as a device has them, by name; those who were with what their membership ended by."""
    members = await swarm.peers(device).call("member.list", group=group, include_left=True)
    return {member["name"]: member.get("ended") for member in members}


async def test_who_was_removed_by_one_who_could_not_shows_so_to_who_heard_of_the_removal_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nobody is there who could tell: whom both took for members are gone."""
    async with open_swarm(devices=["ada", "ben", "cem", "dan"], schema=SCHEMA, seed=6) as swarm:
        group = swarm.group_id("g1")
        await swarm.peers("ada").call("member.set_role", group=group, user="cem", role="admin")
        await swarm.converged()
        await trio.sleep(20)
        swarm.partition(["ada", "ben"], ["cem", "dan"])
        await trio.sleep(60)  # till the links are known to be dead: what was sent on them would arrive yet
        await swarm.peers("cem").call("member.remove", group=group, user="ben")
        await swarm.peers("ada").call("member.remove", group=group, user="cem")
        await trio.sleep(5)
        assert (await open_to(swarm, "dan", group))["ben"] == "removed"
        for gone in ("ada", "cem"):
            await swarm.stop(gone)
        swarm.heal()
        await swarm.execute("ben", "INSERT INTO note (text) VALUES ('from ben')")
        await trio.sleep(60)
        assert await swarm.query("dan", "SELECT text FROM note") == [("from ben",)]
        assert await open_to(swarm, "dan", group) == await open_to(swarm, "ben", group)
        assert (await open_to(swarm, "dan", group))["cem"] == "removed"
        for gone in ("ada", "cem"):
            await swarm.restart(gone)
        await swarm.converged()


async def test_of_two_who_removed_each_other_who_could_not_hears_so_from_the_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Each holds the other for a former member, so neither would open the group with the other."""
    async with open_swarm(devices=["ada", "ben", "cem"], schema=SCHEMA, seed=7) as swarm:
        group = swarm.group_id("g1")
        await swarm.peers("ada").call("member.set_role", group=group, user="cem", role="admin")
        await swarm.converged()
        await trio.sleep(20)
        swarm.partition(["ada", "ben"], ["cem"])
        await trio.sleep(60)
        await swarm.peers("cem").call("member.remove", group=group, user="ben")
        await swarm.peers("ada").call("member.remove", group=group, user="cem")
        await trio.sleep(5)
        await swarm.stop("ada")
        assert (await open_to(swarm, "ben", group))["cem"] == "removed"
        assert (await open_to(swarm, "cem", group))["ben"] == "removed"
        swarm.heal()
        await swarm.peers("ben").call("link.connect", url=swarm.devices["cem"].node.listen_urls[0])
        await trio.sleep(60)
        assert (await swarm.peers("cem").call("group.show", group=group))["role"] == "none"
        assert await open_to(swarm, "cem", group) == await open_to(swarm, "ben", group)
        await swarm.restart("ada")
        await swarm.converged()


async def test_a_leave_is_heard_by_who_came_when_all_had_left_whom_the_leaver_knew(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_swarm(devices=["ada", "ben", "cem"], groups={"g1": ["ada", "ben"]}, schema=SCHEMA, seed=8) as swarm:
        group = swarm.group_id("g1")
        await swarm.converged()
        await trio.sleep(20)
        swarm.isolate("ben")
        await swarm.join("g1", "cem", inviter="ada", role="owner")
        await trio.sleep(20)
        await swarm.peers("ada").call("group.leave", group=group)
        await trio.sleep(20)
        await swarm.stop("ada")
        await swarm.execute("ben", "INSERT INTO note (text) VALUES ('the last one')")
        await swarm.peers("ben").call("group.leave", group=group)
        assert await open_to(swarm, "ben", group) == {"ada": None, "ben": "left"}
        assert await open_to(swarm, "cem", group) == {"ada": "left", "ben": None, "cem": None}
        swarm.heal()
        await trio.sleep(120)
        assert await open_to(swarm, "cem", group) == {"ada": "left", "ben": "left", "cem": None}
        assert await swarm.query("cem", "SELECT text FROM note") == [("the last one",)]
        assert not next(iter(swarm.devices["ben"].node.users.values())).untold
        await swarm.restart("ada")
        await swarm.converged()


async def test_a_leave_that_was_told_to_a_removed_member_alone_is_heard_of_from_that_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The leaver was heard, as far as it knows, and says no more; who heard it is no member any more when it meets one."""
    async with open_swarm(devices=["ada", "ben", "cem"], schema=SCHEMA, seed=9) as swarm:
        group = swarm.group_id("g1")
        await swarm.converged()
        await trio.sleep(20)
        swarm.partition(["ada"], ["ben", "cem"])
        await trio.sleep(60)
        await swarm.peers("ada").call("member.remove", group=group, user="cem")
        await swarm.peers("ben").call("group.leave", group=group)
        await trio.sleep(5)
        assert not next(iter(swarm.devices["ben"].node.users.values())).untold
        await swarm.stop("ben")
        swarm.heal()
        await trio.sleep(60)
        assert await open_to(swarm, "ada", group) == {"ada": None, "ben": "left", "cem": "removed"}
        await swarm.restart("ben")
        await swarm.converged()
