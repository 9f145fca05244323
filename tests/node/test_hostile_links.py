"""A hostile member against a running node: its links and channels end, a bystander's go on, other groups hear nothing of it."""

from __future__ import annotations

import logging
import tracemalloc
from functools import partial
from pathlib import Path

import pytest
import trio

from peersd.node import open_node
from peersd.testing.forging import open_rogue
from peersd.testing.fuzzing.live import send_frames, send_messages, world_of
from peersd.testing.fuzzing.tally import GROWTH_BYTES_MAX
from peersd.testing.pairs import NOWHERE
from peersd.testing.processes import HANG_S
from peersd_protocol.ids import GROUP, format_id
from tests.node.two_nodes import Two, device_of, group_of, open_two, texts, until, write

MESSAGES = 100
LINKS = 40


async def join(two: Two, folder: Path, name: str) -> None:
    """A third device joins a group as an admin, and its node ends."""
    folder.mkdir(mode=0o700)
    made = await two.ada.invite_create(user=None, group=name, role="admin", expires_in_s=3600, max_uses=1)
    async with open_node(folder, listen=[], advertise=[NOWHERE]) as node:
        await node.init(user_name="mal", device_name="mal")
        await node.invite_accept(user=None, ticket=made["ticket"], timeout_s=HANG_S)
        await until(lambda: group_of(node, name).summary.digest == group_of(two.ada, name).summary.digest)
    await until(lambda: two.ada.links is not None and len(two.ada.links.handles()) == 1)


def bystanders_link(two: Two) -> tuple[bytes, set[int]]:
    """What the link to ben is, and the channels on it: they would have other numbers if any had been opened anew."""
    assert two.ada.links is not None
    (handle,) = [handle for handle in two.ada.links.handles() if handle.remote_device == device_of(two.ben)]
    return handle.handshake_hash, set(handle.channels)


async def test_a_bystander_and_another_group_feel_nothing_of_a_hostile_member(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_two(tmp_path, "team", "private") as two:
        await join(two, tmp_path / "mal", "team")
        await write(two.ben, "team", "before")
        await two.rest("team", "private")
        private, link = group_of(two.ada, "private").summary.digest, bystanders_link(two)
        folders = {"victim": tmp_path / "ada", "bystander": tmp_path / "ben", "hostile": tmp_path / "mal"}
        world = await world_of(group_of(two.ada, "team"), tmp_path, **folders)
        url = two.ada.listen_urls[0]
        tracemalloc.start()
        said = await send_messages(partial(open_rogue, url, world.hostile.keys), world, 1, MESSAGES)
        broken = await send_frames(url, world, 1, LINKS)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert said.taken >= 20 and broken.taken >= 5
        assert {"MALFORMED", "BAD_SIGNATURE"} <= set(said.refused), said
        assert {"MALFORMED", "PROTOCOL", "closed"} <= set(broken.refused), broken
        assert peak < GROWTH_BYTES_MAX
        assert bystanders_link(two) == link
        assert group_of(two.ada, "private").summary.digest == private
        team = format_id(GROUP, world.group)  # an admin may have renamed it
        for name in (team, "private"):
            await write(two.ben, name, "after")
            await write(two.ada, name, "after too")
        await two.rest("private")
        with trio.fail_after(HANG_S):
            while group_of(two.ada, team).summary.digest != group_of(two.ben, team).summary.digest:
                await trio.sleep(0.05)
        assert {"before", "after", "after too"} <= set(await texts(two.ada, team))
        assert bystanders_link(two) == link
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
