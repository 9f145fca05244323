"""A group from a member's side: named once and then never again, hidden, renamed, left, forgotten."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from peersd.testing.observing import read_file
from peersd.testing.pairs import GROUP, join, open_pair, until
from peersd.testing.processes import HANG_S, DaemonProcess, open_daemon
from peersd.testing.teams import NOTE, open_team, redeem, refused

pytestmark = pytest.mark.e2e


async def names(daemon: DaemonProcess, **params: Any) -> list[str]:
    """The names of all groups that group.list shows but the personal one."""
    return [group["name"] for group in await daemon.call("group.list", **params) if group["kind"] == "group"]


async def active(daemon: DaemonProcess) -> str:
    """The name of the active group."""
    return str((await daemon.call("group.active"))["name"])


async def ended(daemon: DaemonProcess, member: str) -> dict[str, Any]:
    """A former member, once a daemon's user is told that it is one."""
    found: list[dict[str, Any]] = []

    async def is_told() -> bool:
        listed = await daemon.call("member.list", group=GROUP, include_left=True)
        found[:] = [one for one in listed if one["name"] == member and one["role"] == "none"]
        return bool(found)

    await until(is_told)
    return found[0]


async def test_a_user_with_one_group_never_names_it(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "ada") as ada, open_daemon(tmp_path, "ben") as ben:
        for daemon in (ada, ben):
            await daemon.call("init", user_name=daemon.folder.name)
            assert (await daemon.call("group.active"))["kind"] == "personal"
        await ada.call("group.create", name=GROUP)
        ticket = (await ada.call("invite.create", role="admin"))["ticket"]
        assert await redeem(ben, ticket) == "admin"
        assert await active(ada) == GROUP
        await ben.restart()
        assert await active(ben) == GROUP
        await ben.call("sql.execute", sql=NOTE)
        await ben.call("sql.execute", sql="INSERT INTO note VALUES ('a', 'b')")
        await ben.call("sync.wait", timeout_s=HANG_S)
        assert (await ada.call("sql.query", sql="SELECT * FROM note"))["rows"] == [["a", "b"]]
        assert [table["name"] for table in (await ada.call("schema.show"))["tables"]] == ["note"]
        assert [member["name"] for member in await ben.call("member.list")] == ["ada", "ben"]
        assert (await ben.call("group.show"))["name"] == GROUP
        assert [one["uses"] for one in await ben.call("invite.list")] == [1]
        assert (await ben.call("group.update", description="ours"))["description"] == "ours"
        await ada.call("member.set_role", user="ben", role="moderator")
        await ada.call("ban.add", user="ben")
        assert [ban["name"] for ban in await ada.call("ban.list")] == ["ben"]

        async def is_personal() -> bool:
            return bool((await ben.call("group.active"))["kind"] == "personal")

        await until(is_personal)  # as before there was another
        await ada.call("group.leave")
        assert (await ada.call("group.active"))["kind"] == "personal"


async def test_what_is_switched_to_and_what_is_hidden_outlives_a_restart(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "ada") as ada:
        await ada.call("init", user_name="ada")
        for name in ("one", "two", "three"):
            await ada.call("group.create", name=name)
        assert await active(ada) == "one"
        assert (await ada.call("group.switch", group="two"))["active"] is True
        await ada.call("group.hide", group="two", hidden=True)
        await ada.call("group.hide", group="three", hidden=True)
        for restarts in (False, True):
            if restarts:
                await ada.restart()
            assert await names(ada) == ["one"]
            assert await names(ada, include_hidden=True) == ["one", "two", "three"]
            assert [group["hidden"] for group in await ada.call("group.list", include_hidden=True)] == [False, False, True, True]
            # Hidden is not gone: it is active all the same, and takes rows.
            assert await active(ada) == "two"
            await ada.call("sql.execute", sql="CREATE TABLE IF NOT EXISTS t (id TEXT PRIMARY KEY)")
            assert (await ada.call("group.show", group="three"))["hidden"] is True
        await ada.call("group.hide", group="two", hidden=False)
        assert await names(ada) == ["one", "two"]
        await ada.call("group.switch", group="personal")
        await ada.restart()
        assert (await ada.call("group.active"))["kind"] == "personal"
        assert await names(ada) == ["one", "two"]
        listed = (await ada.peers("groups")).out, (await ada.peers("groups", "--all")).out
        assert ["three" in text for text in listed] == [False, True]
        error = await refused(ada, "group.hide", group="personal", hidden=True)
        assert error.code == "not_allowed"


async def test_a_groups_name_description_and_avatar_travel_and_the_old_name_finds_nothing(tmp_path: Path) -> None:
    async with open_team(tmp_path, ben="admin") as team:
        ada, ben = team["ada"], team["ben"]
        avatar = secrets.token_bytes(60_000)
        async with ada.client() as peers, ben.client() as others:
            shown = await peers.update_group(GROUP, name="the house", description="who\ndoes what", avatar=avatar)
            assert (shown["name"], shown["description"]) == ("the house", "who\ndoes what")
            await ada.call("sync.wait", timeout_s=HANG_S)
            seen = await others.show_group("the house")
            assert (seen["description"], hashlib.sha256(seen["avatar"]).digest()) == (
                "who\ndoes what",
                hashlib.sha256(avatar).digest(),
            )
            assert (await refused(ben, "group.show", group=GROUP)).code == "group_not_found"
            # What is not given stays; what is given empty goes.
            await others.update_group(description="")
            await others.update_group(avatar=b"")
            await ben.call("sync.wait", timeout_s=HANG_S)
            after = await peers.show_group()
            assert (after["name"], after["description"], after["avatar"]) == ("the house", "", None)
        registered = "SELECT name FROM peers_groups"
        await ben.restart()
        for daemon in (ada, ben):
            assert await names(daemon) == ["the house"]
            (personal,) = [group for group in await daemon.call("group.list") if group["kind"] == "personal"]
            assert read_file(personal["path"], registered) == [("the house",)]


async def test_who_leaves_keeps_the_file_and_reads_on_until_it_is_forgotten(tmp_path: Path) -> None:
    async with open_team(tmp_path, ben="writer") as team:
        ada, ben = team["ada"], team["ben"]
        await team.write("ben", "by ben")
        await team.sync()
        path = team.path("ben")
        error = await refused(ben, "group.forget", group=GROUP)
        assert (error.code, path.exists()) == ("not_allowed", True)
        before = datetime.now(UTC)
        async with ben.client() as peers, peers.events(["group_left"]) as events:
            told = await ben.peers("group", "leave", GROUP)
            assert (told.status, told.out) == (0, f"left {GROUP}\n")
            with trio.fail_after(HANG_S):
                event = await anext(events)
        assert (event["name"], event["reason"]) == (GROUP, "left")
        gone = await ended(ada, "ben")
        assert gone["ended"] == "left"
        # Stamps go ahead of the clock by the counter's overflow at most, which one second is far beyond.
        assert abs((datetime.fromisoformat(gone["left_at"]) - before).total_seconds()) < HANG_S
        assert [member["name"] for member in await ada.call("member.list", group=GROUP)] == ["ada"]
        shown = (await ada.peers("members", "--left")).out
        assert "left" in shown and gone["left_at"] in shown

        await team.write("ada", "later")
        for restarts in (False, True):
            if restarts:
                await ben.restart()
            assert await names(ben) == []
            seen = await team.group("ben")
            assert (seen["state"], seen["role"], seen["active"]) == ("left", "none", False)
            assert await team.notes("ben") == ["by ben"]
            error = await refused(ben, "sql.execute", group=GROUP, sql="DELETE FROM note")
            assert (error.code, error.data["role_held"]) == ("not_allowed", "none")
            await ben.call("group.leave", group=GROUP)  # again: nothing to do
            assert path.exists()
        told = await ben.peers("group", "forget", GROUP)
        assert (told.status, told.out) == (0, f"forgot {GROUP}: its file is deleted\n")
        for restarts in (False, True):
            if restarts:
                await ben.restart()
            assert [file.name for file in ben.data.rglob("*") if path.stem in file.name] == []
            assert await names(ben, include_hidden=True) == []
            assert (await refused(ben, "group.show", group=GROUP)).code == "group_not_found"
        # Whoever left may come again, and finds it all.
        await join(ada, ben)
        await ada.call("sync.wait", group=GROUP, timeout_s=HANG_S)
        assert await team.notes("ben") == ["by ben", "later"]
        await team.write("ben", "again")


async def test_a_leave_that_nobody_could_hear_is_told_by_the_leavers_device_when_they_meet(tmp_path: Path) -> None:
    async with open_pair(tmp_path, NOTE, role="writer") as pair:
        await pair.part()
        await pair.ben.call("sql.execute", sql="INSERT INTO note VALUES ('x', 'the last')")
        await pair.ben.call("group.leave", group=GROUP)
        assert await names(pair.ben) == []
        assert [member["role"] for member in await pair.ada.call("member.list", group=GROUP)] == ["founder", "writer"]
        await pair.ben.restart()
        pair.network.mend()
        gone = await ended(pair.ada, "ben")
        assert gone["ended"] == "left"

        # What was written before the leave and reached nobody comes along with it.
        async def has_come() -> bool:
            return bool((await pair.ada.call("sql.query", sql="SELECT text FROM note"))["rows"] == [["the last"]])

        await until(has_come)
        await pair.ada.call("sql.execute", sql="INSERT INTO note VALUES ('y', 'not for ben')")

        async def has_no_channel() -> bool:
            links = [*await pair.ada.links(), *await pair.ben.links()]
            return not any(link["channels"] for link in links)

        await until(has_no_channel)
        assert (await pair.ben.call("sql.query", sql="SELECT text FROM note", group=GROUP))["rows"] == [["the last"]]


async def test_who_left_unheard_and_comes_back_by_a_ticket_first_says_so_and_then_is_let_in(tmp_path: Path) -> None:
    async with open_pair(tmp_path, NOTE, role="writer") as pair:
        await pair.part()
        await pair.ben.call("sql.execute", sql="INSERT INTO note VALUES ('x', 'the last')")
        await pair.ben.call("group.leave", group=GROUP)
        ticket = (await pair.ada.call("invite.create", group=GROUP, role="moderator"))["ticket"]
        pair.network.mend()
        assert await redeem(pair.ben, ticket) == "moderator"
        await pair.ben.call("sql.execute", sql="INSERT INTO note VALUES ('y', 'the first')")
        await pair.sync()
        assert await pair.rows("SELECT text FROM note ORDER BY id") == [["the last"], ["the first"]]
        assert await names(pair.ben) == [GROUP]


async def test_the_last_admin_leaves_only_when_alone_or_when_another_is_one(tmp_path: Path) -> None:
    async with open_team(tmp_path, ben="writer") as team:
        ada, ben = team["ada"], team["ben"]
        for method, params in (("group.leave", {}), ("member.set_role", {"user": "ada", "role": "writer"})):
            error = await refused(ada, method, group=GROUP, **params)
            assert error.code == "not_allowed", method
            assert "admin" in error.message and "else" in error.hint
        told = await ada.peers("group", "leave")
        assert (told.status, "(not_allowed)" in told.err) == (1, True)
        assert (await team.group("ada"))["state"] == "ok"
        await ada.call("member.set_role", group=GROUP, user="ben", role="admin")
        await ada.call("group.leave", group=GROUP)
        assert (await ended(ben, "ada"))["ended"] == "left"
        assert (await refused(ben, "member.set_role", group=GROUP, user="ada", role="reader")).code == "user_not_found"
        # Alone, the last admin may go.
        await ben.call("group.leave", group=GROUP)
        assert (await team.group("ben"))["state"] == "left"
