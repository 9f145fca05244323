"""What devices state in their beacons of groups whose stores are closed, under virtual time."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from peersd.node.kept_store import Keeping
from peersd.testing.swarm import Settings, open_swarm
from peersd_protocol import ids

SCHEMA = ["CREATE TABLE note (id TEXT PRIMARY KEY DEFAULT (uuid7()), text TEXT)"]
INSERT = "INSERT INTO note (text) VALUES (?)"

pytestmark = pytest.mark.sim


async def test_what_was_written_since_the_last_beacon_is_in_the_next_though_the_store_has_closed_meanwhile(
    autojump_clock: trio.testing.MockClock,
) -> None:
    soon = Settings(keeping=Keeping(idle_s=0.1))
    async with open_swarm(devices=2, schema=SCHEMA, seed=1, settings=soon) as swarm:
        await swarm.converged()
        await trio.sleep(20)
        nodes = [device.node for device in swarm.devices.values()]
        groups = [node.groups[ids.parse_id(ids.GROUP, swarm.group_id())] for node in nodes]
        before = groups[0].summary.digest
        for text in ("told at once", "held back", "held back as well"):
            await swarm.execute("ada", INSERT, [text])
        await trio.sleep(3)
        assert [group.opened for group in groups] == [None, None]
        after = groups[0].summary.digest
        stated = groups[0].copies.book.digest_of(nodes[0].own_device())
        assert stated not in (before, after)  # that of the first row
        await trio.sleep(10)
        assert [group.opened for group in groups] == [None, None]
        assert [group.copies.book.digest_of(node.own_device()) for group in groups for node in nodes] == [after] * 4
