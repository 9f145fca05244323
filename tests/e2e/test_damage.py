"""Damaged files: what is damaged says so, and nothing else is touched by it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from peersd.client import PeersError
from peersd.testing.pairs import GROUP, open_pair
from peersd.testing.processes import open_daemon

pytestmark = pytest.mark.e2e

PAGE_BYTES = 4096


def spoil(path: str, first_page: int, pages: int) -> None:
    """Overwrites pages of a file with noise."""
    with open(path, "r+b") as file:
        file.seek(first_page * PAGE_BYTES)
        file.write(os.urandom(pages * PAGE_BYTES))


async def test_a_write_into_a_damaged_group_leaves_the_daemon_and_the_other_groups_as_they_were(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "ada", errors_allowed=True) as ada:
        await ada.call("init", user_name="ada")
        for name in ("spoilt", "sound"):
            await ada.call("group.create", name=name)
            await ada.call("sql.execute", group=name, sql="CREATE TABLE t (id TEXT PRIMARY KEY DEFAULT (uuid7()), a, b)")
            rows = [[str(number), "x" * 80] for number in range(2000)]
            statements = [{"sql": "INSERT INTO t (a, b) VALUES (?, ?)", "params_seq": rows}]
            await ada.call("sql.transaction", group=name, statements=statements)
        path = (await ada.call("group.show", group="spoilt"))["path"]
        await ada.terminate()
        size = os.path.getsize(path)
        spoil(path, size // PAGE_BYTES // 2, 8)
        await ada.start()
        with pytest.raises(PeersError) as caught:
            for _ in range(3):
                await ada.call("sql.execute", group="spoilt", sql="UPDATE t SET a = a || 'y'")
        assert caught.value.code == "store_corrupt"
        assert caught.value.hint
        assert (await ada.call("sql.execute", group="sound", sql="INSERT INTO t (a) VALUES (1)"))["changes"] == 1
        states = {group["name"]: group["state"] for group in await ada.call("group.list")}
        assert states == {"ada": "ok", "spoilt": "corrupt", "sound": "ok"}


async def test_a_group_whose_file_cannot_be_opened_is_named_and_stops_no_other(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "ada", errors_allowed=True) as ada:
        await ada.call("init", user_name="ada")
        for name in ("spoilt", "sound"):
            await ada.call("group.create", name=name)
        path = (await ada.call("group.show", group="spoilt"))["path"]
        await ada.terminate()
        spoil(path, 0, 4)
        await ada.start()
        states = {group["name"]: group["state"] for group in await ada.call("group.list")}
        assert states == {"ada": "ok", "spoilt": "corrupt", "sound": "ok"}
        with pytest.raises(PeersError) as caught:
            await ada.call("sql.query", group="spoilt", sql="SELECT 1")
        assert caught.value.code == "store_corrupt"
        assert (await ada.call("sql.query", group="sound", sql="SELECT 1"))["rows"] == [[1]]


@pytest.mark.parametrize("offset", [3, 20, 60, 100])
async def test_a_device_key_with_one_wrong_bit_is_not_used(tmp_path: Path, offset: int) -> None:
    async with open_daemon(tmp_path, "ada") as ada:
        await ada.call("init", user_name="ada")
        await ada.terminate()
        key = ada.data / "device.key"
        content = bytearray(key.read_bytes())
        content[offset] ^= 1
        key.write_bytes(content)
        with pytest.raises(AssertionError, match=r"device\.key cannot be used"):
            await ada.start()
        assert await ada.wait_ended() == 1
        content[offset] ^= 1
        key.write_bytes(content)
        await ada.start()
        assert (await ada.call("daemon.status"))["users"]


async def test_a_user_without_the_device_key_is_not_replaced_by_a_new_one(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "ada") as ada:
        await ada.call("init", user_name="ada")
        await ada.terminate()
        key = ada.data / "device.key"
        key.rename(ada.data / "aside")
        with pytest.raises(AssertionError, match=r"device\.key is missing"):
            await ada.start()
        assert await ada.wait_ended() == 1
        (ada.data / "aside").rename(key)
        await ada.start()


async def test_two_joins_by_one_ticket_at_once_end_in_one_group_with_its_file(tmp_path: Path) -> None:
    async with open_pair(tmp_path, "CREATE TABLE note (id TEXT PRIMARY KEY)") as pair, open_daemon(tmp_path, "eve") as eve:
        await eve.call("init", user_name="eve")
        ticket = (await pair.ada.call("invite.create", group=GROUP))["ticket"]
        answers: list[str] = []

        async def join() -> None:
            answers.append((await eve.call("invite.accept", ticket=ticket))["group_id"])

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(join)
        assert len(set(answers)) == 1 and len(answers) == 3
        assert len(list(eve.data.glob("group-*.db"))) == 1
        await eve.call("sql.execute", group=GROUP, sql="INSERT INTO note VALUES ('eve')")
        await eve.call("sync.wait", group=GROUP, timeout_s=60)
        rows = (await pair.ada.call("sql.query", group=GROUP, sql="SELECT id FROM note"))["rows"]
        assert rows == [["eve"]]
