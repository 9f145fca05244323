"""What stands in one file of the data folder, whatever it is, ends neither the daemon nor any other group."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest

from peersd.errors import PeersdError
from peersd.node.api_node import ApiNode
from peersd.node.group import Group
from peersd.store.mark import MarkFile
from tests.node.two_nodes import NOTE, group_of, open_ada, texts, until, write

DAMAGES = {
    "the group's id is too short": ("UPDATE _peers_meta SET value = zeroblob(3) WHERE key = 'group'", set[str]()),
    "a body is no act": ("UPDATE _peers_entry SET body = zeroblob(5)", set[str]()),
    "all logs are gone": ("DELETE FROM _peers_log", {"file_unreadable"}),
}
"""What is done to a closed file, and what is logged beside that the group was not opened."""


@asynccontextmanager
async def open_with_two_groups(base: Path) -> AsyncGenerator[tuple[ApiNode, Group, Group]]:
    """A node with the groups `one` and `other`, each with a row; their stores are closed."""
    async with open_ada(base) as ada:
        for name in ("one", "other"):
            await ada.group_create(user=None, name=name, description=None)
            await ada.sql_execute(user=None, group=name, sql=NOTE, params=(), timeout_s=60)
            await write(ada, name, f"in {name}")
        one, other = group_of(ada, "one"), group_of(ada, "other")
        await until(lambda: one.is_current and other.is_current)
        yield ada, one, other


def put(content: bytes, path: Path) -> None:
    """Put a file with this content in another's place."""
    path.unlink()
    path.write_bytes(content)
    os.utime(path, (1, 1))  # the clock of files may not have ticked since it was closed


async def states(node: ApiNode) -> dict[str, str]:
    return {group["name"]: group["state"] for group in await node.group_list(user=None, include_hidden=True)}


async def error_of_reading(node: ApiNode, group: str) -> str:
    with pytest.raises(PeersdError) as failed:
        await texts(node, group)
    return failed.value.code


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_file_that_makes_no_sense_is_corrupt_and_everything_else_goes_on(
    tmp_path: Path, damage: str, errors: set[str]
) -> None:
    sql, logged = DAMAGES[damage]
    errors |= {"group_not_opened", *logged}
    async with open_with_two_groups(tmp_path) as (ada, one, _):
        connection = apsw.Connection(str(one.path))
        connection.execute(sql)
        connection.close()
        assert await error_of_reading(ada, "one") == "store_corrupt"
        assert await texts(ada, "other") == ["in other"]
        assert await states(ada) == {"ada": "ok", "one": "corrupt", "other": "ok"}
    async with open_ada(tmp_path) as ada:
        assert await states(ada) == {"ada": "ok", "one": "corrupt", "other": "ok"}
        assert await texts(ada, "other") == ["in other"]


async def test_a_file_in_the_place_of_another_groups_is_corrupt_and_the_group_it_holds_goes_on(
    tmp_path: Path, errors: set[str]
) -> None:
    errors.add("group_not_opened")
    async with open_with_two_groups(tmp_path) as (_, one, other):
        original = other.path.read_bytes()
    copied = one.path.read_bytes()
    put(copied, other.path)
    async with open_ada(tmp_path) as ada:
        assert await states(ada) == {"ada": "ok", "one": "ok", "other": "corrupt"}
        assert await error_of_reading(ada, "other") == "store_corrupt"
        assert group_of(ada, "one").path == one.path
        assert await texts(ada, "one") == ["in one"]
    assert other.path.read_bytes() == copied  # nothing was written to what is not this group's
    put(original, other.path)
    async with open_ada(tmp_path) as ada:
        assert await states(ada) == {"ada": "ok", "one": "ok", "other": "ok"}
        assert await texts(ada, "other") == ["in other"]


async def test_a_file_in_the_place_of_another_groups_is_found_while_the_daemon_runs_too(tmp_path: Path, errors: set[str]) -> None:
    errors.add("group_not_opened")
    async with open_with_two_groups(tmp_path) as (ada, one, other):
        put(one.path.read_bytes(), other.path)
        assert await error_of_reading(ada, "other") == "store_corrupt"
        assert await texts(ada, "one") == ["in one"]


async def test_a_copy_of_a_groups_file_under_a_name_of_its_own_is_left_alone(tmp_path: Path) -> None:
    async with open_with_two_groups(tmp_path) as (_, one, other):
        pass
    copies = [one.path.with_name(f"{one.path.stem}-copy.db"), other.path.with_name("group-.db")]
    for group, copy in zip((one, other), copies, strict=True):
        shutil.copy(group.path, copy)
    async with open_ada(tmp_path) as ada:
        assert [group_of(ada, group.name).path for group in (one, other)] == [one.path, other.path]
        assert await texts(ada, "one") == ["in one"]
    assert all(copy.exists() for copy in copies)


async def test_a_personal_groups_file_under_another_users_name_is_refused_at_the_start(tmp_path: Path) -> None:
    async with open_ada(tmp_path) as ada:
        personal = ada.user(None).personal
    (tmp_path / "elsewhere").mkdir()
    async with open_ada(tmp_path / "elsewhere") as other:
        foreign = other.user(None).personal
    shutil.copy(foreign.path, personal.path)
    with pytest.raises(BaseExceptionGroup) as failed:
        async with open_ada(tmp_path):
            pass
    (error,) = failed.value.exceptions
    assert isinstance(error, PeersdError) and error.code == "store_corrupt"


async def test_a_mark_that_cannot_be_read_harms_its_group_only_and_that_only_until_it_can_be_written(tmp_path: Path) -> None:
    async with open_with_two_groups(tmp_path) as (ada, one, _):
        mark = tmp_path / "ada" / "marks" / f"{one.path.stem}.mark"
        mark.unlink()
        mark.mkdir()
        assert MarkFile(mark).load() is None
        assert await error_of_reading(ada, "one") == "busy"
        assert await texts(ada, "other") == ["in other"]
        mark.rmdir()
        assert await texts(ada, "one") == ["in one"]
