"""Whatever happens to a swarm, drawn by a seed: once all is well again, all members hold all that was acknowledged."""

from __future__ import annotations

import pytest
import trio

from peersd.testing.swarm.fates import live

pytestmark = pytest.mark.sim


@pytest.mark.parametrize("seed", range(3))
async def test_all_that_was_acknowledged_is_held_by_all_once_all_is_well(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    await live(seed)
