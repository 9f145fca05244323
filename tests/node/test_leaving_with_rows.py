"""Who writes and leaves at once: the rows are with those who stay (SPEC: E-26)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from peersd.node.api_node import ApiNode
from peersd.testing.pairs import free_url
from tests.node.two_nodes import Two, device_of, group_of, open_ada, open_ben, texts, until, write

ROWS = 120
ROW_BYTES = 20_000  # in all several times what a channel queues, and more than its first credit


async def write_rows(node: ApiNode) -> list[str]:
    """Rows that compress badly, an entry each."""
    rows = sorted(os.urandom(ROW_BYTES // 2).hex() for _ in range(ROWS))
    for text in rows:
        await write(node, "shared", text)
    return rows


@pytest.mark.parametrize("held", [0, 1, 40], ids=["before any row came", "after the first", "in the midst"])
async def test_rows_written_apart_arrive_though_their_writer_leaves_as_soon_as_it_is_linked(tmp_path: Path, held: int) -> None:
    listen = free_url()
    async with open_ada(tmp_path, listen=listen) as ada, open_ben(tmp_path) as ben:
        two = Two(ada, ben)
        await two.link()
        await two.share("shared")
    async with open_ben(tmp_path) as ben:
        rows = await write_rows(ben)
        async with open_ada(tmp_path, listen=listen) as ada:
            await until(lambda: bool(group_of(ada, "shared").lanes()))
            while len(await texts(ada, "shared")) < held:
                pass
            await ben.group_leave(user=None, group="shared")
            await until(lambda: device_of(ben) not in group_of(ada, "shared").summary.member_devices)
            assert await texts(ada, "shared") == rows


async def test_who_writes_and_leaves_at_once_loses_nothing(tmp_path: Path) -> None:
    async with open_ada(tmp_path, listen=free_url()) as ada, open_ben(tmp_path) as ben:
        two = Two(ada, ben)
        await two.link()
        await two.share("shared")
        rows = await write_rows(ben)
        await ben.group_leave(user=None, group="shared")
        await until(lambda: device_of(ben) not in group_of(ada, "shared").summary.member_devices)
        assert await texts(ada, "shared") == rows
        with_nobody = next(iter(ben.users.values()))
        await until(lambda: not with_nobody.untold)
