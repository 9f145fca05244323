"""Tasks that nothing gives a node reason for are found, whatever they are called and wherever they run."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from peersd.testing.checkers import Checker
from peersd.testing.swarm import SwarmFailed, open_swarm

pytestmark = pytest.mark.sim


async def test_a_task_too_many_of_a_kind_is_found(autojump_clock: trio.testing.MockClock) -> None:
    async with open_swarm(devices=2, seed=41) as swarm:
        await swarm.converged()
        node = swarm.devices["ada"].node
        group = next(one for one in node.groups.values() if one.name == "g1")
        async with group.use() as opened:
            node.nursery().start_soon(opened.sync.run_timers)
            with pytest.raises(SwarmFailed) as failed:
                await swarm.converged()
    assert [finding.checker for finding in failed.value.findings] == [Checker.TASKS]
    assert "tasks GroupSync.run_timers run, 2 were expected" in str(failed.value)


async def test_a_task_that_nobody_knows_is_found(autojump_clock: trio.testing.MockClock) -> None:
    async with open_swarm(devices=2, seed=42) as swarm:
        await swarm.converged()
        swarm.devices["ben"].node.nursery().start_soon(trio.sleep_forever)
        with pytest.raises(SwarmFailed, match=r"tasks: ben: 1 tasks trio.sleep_forever run, 0 were expected"):
            await swarm.converged()


async def test_a_task_that_outlives_its_node_is_found(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(SwarmFailed, match=r"tasks: a task GroupSync.run_timers runs beneath no node"):
        async with open_swarm(devices=2, seed=43) as swarm:
            await swarm.converged()
            group = next(one for one in swarm.devices["ada"].node.groups.values() if one.name == "g1")
            async with group.use() as opened:
                trio.lowlevel.spawn_system_task(opened.sync.run_timers)
