"""What is under way in a store while it closes: it comes to its end, and counts in what the node says the group holds."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from peersd.node.api_node import ApiNode
from peersd.node.genesis import make_user
from peersd.node.group import Group
from peersd.node.kept_store import Keeping, Opened
from peersd_protocol.acts import NONCE_BYTES, Settings, encode_body
from peersd_protocol.entries import EPOCH_BYTES, Kind
from peersd_protocol.signing import SEED_BYTES
from tests.node.two_nodes import group_of, held_up, open_ada, open_two, until

ENDS = ["closing the group", "stopping the node"]


async def change_while_it_ends(
    group: Group, change: Callable[[Opened], Awaitable[object]], end: Callable[[], Awaitable[object]]
) -> None:
    """Let a change wait for the writer's thread while the store is closed, and return when both are done."""
    opened = await group.store.open()
    async with trio.open_nursery() as nursery, held_up(opened) as go_on:
        nursery.start_soon(change, opened)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(end)
        await until(lambda: group.opened is None)
        go_on()


async def end_of(node: ApiNode, group: Group, end: str) -> None:
    await (group.store.close() if end == ENDS[0] else node.stop())


@pytest.mark.parametrize("end", ENDS)
async def test_an_act_written_while_the_store_closes_counts_in_what_is_saved(tmp_path: Path, end: str) -> None:
    async with open_ada(tmp_path, keeping=Keeping()) as ada:
        await ada.group_create(user=None, name="old", description=None)
        group, user = group_of(ada, "old"), ada.user(None)

        async def rename(opened: Opened) -> None:
            await opened.store.act(user.id, Kind.CONTROL, encode_body(Settings("new", None, None)))

        await change_while_it_ends(group, rename, lambda: end_of(ada, group, end))
        assert (group.name, group.is_current) == ("new", True)
    async with open_ada(tmp_path) as ada:
        group = group_of(ada, "new")
        assert group.is_current and group.opened is None
        assert (await group.store.open()).first_digest == group.summary.digest


@pytest.mark.parametrize("end", ENDS)
async def test_acts_taken_in_while_the_store_closes_count_in_what_is_saved(tmp_path: Path, end: str) -> None:
    async with open_ada(tmp_path, keeping=Keeping()) as ada:
        await ada.group_create(user=None, name="one", description=None)
        group = group_of(ada, "one")
        assert ada.device is not None
        other = make_user(
            ada.device,
            "ben",
            epoch=secrets.token_bytes(EPOCH_BYTES),
            nonce=secrets.token_bytes(NONCE_BYTES),
            recovery_seed=secrets.token_bytes(SEED_BYTES),
            wall_ms=ada.wall_ms(),
        )
        before = (await group.digest()).digest
        await change_while_it_ends(group, lambda opened: opened.store.take_runs([other.run]), lambda: end_of(ada, group, end))
        assert group.is_current and group.summary.digest != before
    async with open_ada(tmp_path) as ada:
        group = group_of(ada, "one")
        assert group.is_current and group.opened is None
        assert (await group.store.open()).first_digest == group.summary.digest


async def test_what_an_act_changed_while_the_store_closed_reaches_the_other_side(tmp_path: Path) -> None:
    async with open_two(tmp_path, "old") as two:
        await two.rest()
        at_ada, at_ben = two.both("old")
        user = two.ada.user(None)

        async def rename(opened: Opened) -> None:
            await opened.store.act(user.id, Kind.CONTROL, encode_body(Settings("new", None, None)))

        await change_while_it_ends(at_ada, rename, at_ada.store.close)
        assert at_ada.summary.digest != at_ben.summary.digest
        await until(lambda: at_ben.name == "new")
        await two.rest()
