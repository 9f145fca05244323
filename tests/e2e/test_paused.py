"""A daemon that stands still: nobody else is disturbed, and it goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from peersd.testing.observing import tcp_connections
from peersd.testing.teams import open_team

pytestmark = pytest.mark.e2e


async def test_while_one_stands_still_the_others_sync_and_it_catches_up_over_the_same_links(tmp_path: Path) -> None:
    async with open_team(tmp_path, ben="writer", cem="writer") as team:
        before = {name: tcp_connections(daemon.pid) for name, daemon in team.daemons.items()}
        team["ben"].pause()
        expected = []
        for n in range(8):
            for name in ("ada", "cem"):
                await team.write(name, f"{n:02} by {name}")
                expected.append(f"{n:02} by {name}")
            await team.sync("ada", "cem")
            assert await team.notes("ada") == await team.notes("cem") == expected
        team["ben"].resume()
        await team.sync()
        assert await team.notes("ben") == expected
        assert {name: tcp_connections(daemon.pid) for name, daemon in team.daemons.items()} == before


async def test_a_daemon_that_stands_still_is_ended_all_the_same(tmp_path: Path) -> None:
    async with open_team(tmp_path, ben="writer") as team:
        team["ben"].pause()
        await team["ben"].kill()
        await team["ben"].start()
        team["ben"].pause()  # and left so: the context ends it
