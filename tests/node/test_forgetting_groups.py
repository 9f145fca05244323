"""Forgetting a group beside whatever else is done with it, and only once what was written in it is elsewhere too."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from peersd.errors import PeersdError
from peersd.node.api_node import ApiNode
from peersd.node.group import Group
from peersd.node.kept_store import Keeping
from peersd.testing.processes import HANG_S
from tests.node.two_nodes import Two, group_of, held_up, open_ada, open_ben, open_two, texts, until, write


async def forget(node: ApiNode, group: Group) -> str:
    """The code of the error, or "" if there is none."""
    try:
        await node.group_forget(user=None, group=group.text_id)
    except PeersdError as error:
        return error.code
    return ""


async def leave(two: Two, name: str) -> Group:
    """Let ben leave a group; returns once ada has heard, and ben of that."""
    group = group_of(two.ben, name)
    await two.ben.group_leave(user=None, group=name)
    await until(lambda: not two.ben.user(None).untold)
    return group


async def ticket_of(two: Two, name: str) -> str:
    made = await two.ada.invite_create(user=None, group=name, role="writer", expires_in_s=3600, max_uses=1)
    return str(made["ticket"])


async def test_a_join_while_the_group_is_forgotten_goes_on_in_a_file_that_stays(tmp_path: Path) -> None:
    async with open_ada(tmp_path) as ada:
        async with open_ben(tmp_path, keeping=Keeping()) as ben:
            two = Two(ada, ben)
            await two.link()
            await two.share("one")
            await write(ada, "one", "by ada")
            group, ticket = await leave(two, "one"), await ticket_of(two, "one")
            opened = await group.store.open()
            # Closing the store takes as long as the test wants.
            async with trio.open_nursery() as nursery, held_up(opened) as go_on:
                nursery.start_soon(forget, ben, group)
                await until(lambda: not ben.user(None).group_ids)
                answer: dict[str, Any] = {}

                async def join() -> None:
                    answer.update(await ben.invite_accept(user=None, ticket=ticket, timeout_s=HANG_S))

                nursery.start_soon(join)
                await trio.testing.wait_all_tasks_blocked()
                go_on()
            assert answer["role"] == "writer"
            await write(ben, "one", "by ben")
            assert group_of(ben, "one").path.exists()
        async with open_ben(tmp_path) as ben:
            listed = await ben.group_list(user=None, include_hidden=True)
            assert [(one["name"], one["state"]) for one in listed] == [("ben", "ok"), ("one", "ok")]
            await until(lambda: group_of(ben, "one").summary.digest == group_of(ada, "one").summary.digest)
            assert await texts(ben, "one") == ["by ada", "by ben"]


async def test_of_two_who_forget_a_group_at_once_one_is_told_that_it_is_gone(tmp_path: Path) -> None:
    async with open_two(tmp_path, "one") as two:
        group = await leave(two, "one")
        codes: list[str] = []

        async def forget_it() -> None:
            codes.append(await forget(two.ben, group))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(forget_it)
            nursery.start_soon(forget_it)
        assert sorted(codes) == ["", "group_not_found"]
        assert not group.path.exists() and group.id not in two.ben.groups


async def test_hiding_a_group_while_it_is_forgotten_does_no_harm(tmp_path: Path) -> None:
    async with open_two(tmp_path, "one") as two:
        group = await leave(two, "one")

        async def hide() -> None:
            await two.ben.group_hide(user=None, group=group.text_id, hidden=True)

        async with two.ben.user(None).personal.use() as opened, trio.open_nursery() as nursery, held_up(opened) as go_on:
            for task in (partial(forget, two.ben, group), hide):  # the registry is written to in this order
                nursery.start_soon(task)
                await trio.testing.wait_all_tasks_blocked()
            go_on()
        assert not group.path.exists() and not two.ben.user(None).group_ids


async def test_who_gives_up_while_a_group_is_forgotten_leaves_no_half_of_it(tmp_path: Path) -> None:
    async with open_two(tmp_path, "one") as two:
        group = await leave(two, "one")
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(forget, two.ben, group)
                await until(lambda: not two.ben.user(None).group_ids)
                scope.cancel()
        assert not group.path.exists() and group.id not in two.ben.groups
        await two.ben.invite_accept(user=None, ticket=await ticket_of(two, "one"), timeout_s=HANG_S)
        await two.rest()


async def test_a_group_is_not_forgotten_before_another_member_has_heard_of_the_leave(tmp_path: Path) -> None:
    async with open_two(tmp_path, "one") as two:
        await two.rest()
        await two.ben.link_disconnect(user=None, device="ada-laptop")
        await until(lambda: not any(node.sharings for node in two.nodes))
        group = group_of(two.ben, "one")
        await write(two.ben, "one", "the last")
        await two.ben.group_leave(user=None, group="one")
        with pytest.raises(PeersdError) as failed:
            await two.ben.group_forget(user=None, group="one")
        assert (failed.value.code, failed.value.retry) == ("not_allowed", True)
        assert "Link to one" in failed.value.hint and group.path.exists()
        assert await texts(two.ben, "one") == ["the last"]
        await two.link()
        # At once: that the leave is being told is waited for.
        assert await forget(two.ben, group) == ""
        assert not group.path.exists()
        assert await texts(two.ada, "one") == ["the last"]
        members = await two.ada.member_list(user=None, group="one", include_left=True)
        assert [(member["name"], member["role"]) for member in members] == [("ada", "founder"), ("ben", "none")]


async def test_a_group_without_other_members_is_left_and_forgotten_at_once(tmp_path: Path) -> None:
    async with open_ada(tmp_path) as ada:
        await ada.group_create(user=None, name="one", description=None)
        group = group_of(ada, "one")
        await ada.group_leave(user=None, group="one")
        assert await forget(ada, group) == ""
        assert not group.path.exists()


async def test_leaving_is_told_and_registered_once(tmp_path: Path) -> None:
    async with open_ada(tmp_path) as ada:
        for name in ("one", "two", "three"):
            await ada.group_create(user=None, name=name, description=None)
        personal = ada.user(None).personal
        for name in ("one", "two", "three"):
            # Both who note it wait for the personal store to be opened.
            await until(lambda: personal.opened is None and personal.is_current)
            async with personal.use() as opened:
                before = sum(seq for tips in opened.sync.vector().values() for seq, _ in tips)
            await until(lambda: personal.opened is None and personal.is_current)
            stream = ada.events.open(frozenset(["group_left", "alarm"]))
            await ada.group_leave(user=None, group=name)
            async with personal.use() as opened:
                await trio.testing.wait_all_tasks_blocked()
                after = sum(seq for tips in opened.sync.vector().values() for seq, _ in tips)
            assert after - before == 1
            ada.events.publish("alarm")  # the last one
            assert [(await stream.receive())["kind"] for _ in range(2)] == ["group_left", "alarm"]
