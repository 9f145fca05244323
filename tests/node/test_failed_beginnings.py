"""A user, a group or a membership that could not be entered where it belongs leaves nothing, and can be made again."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from peersd.errors import PeersdError
from peersd.node import open_node
from peersd.node.api_node import ApiNode
from peersd.node.environment import Environment
from peersd.testing.processes import HANG_S
from tests.node.full_disk import FullDisk
from tests.node.two_nodes import NOTE, group_of, open_ada, texts, write

LOOPBACK = ["ws://127.0.0.1:0"]


@asynccontextmanager
async def open_on(disk: FullDisk, folder: Path) -> AsyncGenerator[ApiNode]:
    folder.mkdir(mode=0o700, exist_ok=True)
    async with open_node(folder, listen=LOOPBACK, environment=Environment(threads=disk)) as node:
        yield node


def files(node: ApiNode) -> list[str]:
    """What the data folder has of users and groups, marks included."""
    paths = (path.relative_to(node.data_dir) for path in node.data_dir.rglob("*") if path.stem.startswith(("user-", "group-")))
    return sorted(map(str, paths))


async def names(node: ApiNode) -> list[str]:
    return [group["name"] for group in await node.group_list(user=None, include_hidden=True)]


@pytest.mark.parametrize(("sqlite", "system"), [("act", ""), ("", "vector"), ("load_local", "")])
async def test_an_init_that_fails_after_the_file_was_made_leaves_no_user(tmp_path: Path, sqlite: str, system: str) -> None:
    disk = FullDisk()
    async with open_on(disk, tmp_path / "ada") as ada:
        disk.sqlite, disk.system = {sqlite}, {system}
        with pytest.raises(PeersdError) as failed:
            await ada.init(user_name="ghost", device_name="laptop")
        assert failed.value.code == "store_full" and disk.refused == [sqlite or system]
        assert (files(ada), ada.users, list(ada.groups)) == ([], {}, [])
        disk.sqlite, disk.system = set(), set()
        made = await ada.init(user_name="ada", device_name="laptop")
    async with open_on(disk, tmp_path / "ada") as ada:
        assert [(user["user_id"], user["name"]) for user in (await ada.status())["users"]] == [(made["user_id"], "ada")]
        assert await names(ada) == ["ada"]


@pytest.mark.parametrize(("sqlite", "system"), [("write_own", ""), ("", "vector")])
async def test_a_group_that_could_not_be_registered_leaves_nothing(tmp_path: Path, sqlite: str, system: str) -> None:
    disk = FullDisk()
    async with open_on(disk, tmp_path / "ada") as ada:
        await ada.init(user_name="ada", device_name="laptop")
        before = files(ada)
        disk.sqlite, disk.system = {sqlite}, {system}
        with pytest.raises(PeersdError) as failed:
            await ada.group_create(user=None, name="one", description=None)
        assert failed.value.code == "store_full" and disk.refused == [sqlite or system]
        assert files(ada) == before and await names(ada) == ["ada"] and len(ada.groups) == 1
        disk.sqlite, disk.system = set(), set()
        await ada.group_create(user=None, name="one", description=None)
    async with open_on(disk, tmp_path / "ada") as ada:
        assert await names(ada) == ["ada", "one"] and len(ada.groups) == 2


async def test_a_group_that_was_registered_stays_though_it_could_not_be_made_the_active_one(tmp_path: Path) -> None:
    disk = FullDisk()
    async with open_on(disk, tmp_path / "ada") as ada:
        await ada.init(user_name="ada", device_name="laptop")
        disk.sqlite = {"save_local"}
        with pytest.raises(PeersdError):
            await ada.group_create(user=None, name="one", description=None)
        disk.sqlite = set()
        await ada.sql_execute(user=None, group="one", sql=NOTE, params=(), timeout_s=HANG_S)
    async with open_on(disk, tmp_path / "ada") as ada:
        assert [(group["name"], group["state"]) for group in await ada.group_list(user=None, include_hidden=True)] == [
            ("ada", "ok"),
            ("one", "ok"),
        ]


async def test_a_join_that_could_not_be_registered_leaves_nothing_and_can_be_done_again(tmp_path: Path) -> None:
    disk = FullDisk()
    async with open_ada(tmp_path) as ada, open_on(disk, tmp_path / "ben") as ben:
        await ben.init(user_name="ben", device_name="laptop")
        await ada.group_create(user=None, name="one", description=None)
        await ada.sql_execute(user=None, group="one", sql=NOTE, params=(), timeout_s=HANG_S)
        await write(ada, "one", "by ada")
        made = await ada.invite_create(user=None, group="one", role="writer", expires_in_s=3600, max_uses=1)
        before = files(ben)
        disk.sqlite = {"write_own"}
        with pytest.raises(PeersdError) as failed:
            await ben.invite_accept(user=None, ticket=made["ticket"], timeout_s=HANG_S)
        assert failed.value.code == "store_full"
        assert files(ben) == before and await names(ben) == ["ben"]
        disk.sqlite = set()
        joined = await ben.invite_accept(user=None, ticket=made["ticket"], timeout_s=HANG_S)
        assert joined["role"] == "writer"
        await ada.sync_wait(user=None, group="one", devices=["laptop"], timeout_s=HANG_S)
        assert await texts(ben, "one") == ["by ada"]
        assert group_of(ben, "one").path.exists()
