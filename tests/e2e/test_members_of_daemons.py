"""Who is in a group and as what: roles, removals and bans, as daemons apart from the one that decided see them."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from peersd.client import Peers, PeersError
from peersd.testing.observing import read_entries, read_file
from peersd.testing.pairs import GROUP, until
from peersd.testing.processes import HANG_S, DaemonProcess, open_daemon
from peersd.testing.teams import Team, open_team, redeem, refused
from peersd_protocol.entries import Kind

pytestmark = pytest.mark.e2e


def beyond_the_last_act(path: Path) -> set[bytes]:
    """The hashes of the entries that came into a file after its last act."""
    entries = read_entries(path)
    last = max(entry.position for entry in entries if entry.kind is Kind.CONTROL)
    return {entry.hash for entry in entries if entry.position > last}


async def not_allowed(daemon: DaemonProcess, method: str, **params: Any) -> tuple[str, str]:
    """The roles needed and held that a refusal names."""
    error = await refused(daemon, method, group=GROUP, **params)
    assert error.code == "not_allowed", (method, error.code)
    return error.data["role_needed"], error.data["role_held"]


async def state_is(team: Team, name: str, state: str) -> None:
    """Return when a user's daemon shows the group in this state."""

    async def is_so() -> bool:
        return bool((await team.group(name))["state"] == state)

    await until(is_so)


async def write_many(peers: Peers, numbers: Iterable[int]) -> None:
    """Write rows one by one."""
    for number in numbers:
        await peers.execute("INSERT INTO note VALUES (?1, ?1)", [f"{number}"], group=GROUP)


async def _no_channel_to(daemon: DaemonProcess, *others: DaemonProcess) -> bool:
    """Whether nothing is shared with a daemon any more, as both ends see it; a link there may be."""
    channels = [link["channels"] for link in await daemon.links()]
    for other in others:
        channels += [link["channels"] for link in await other.links() if link["device_name"] == f"{daemon.folder.name}-laptop"]
    return not any(channels)


def holds(folder: Path, marker: str) -> bool:
    """Whether these bytes are anywhere in a folder."""
    return any(marker.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_a_role_given_on_one_device_holds_on_the_others(tmp_path: Path) -> None:
    async with open_team(tmp_path, ben="writer", cem="writer") as team:
        ada, ben = team["ada"], team["ben"]

        async def set_role(role: str) -> None:
            await ada.call("member.set_role", group=GROUP, user="ben", role=role)
            await team.sync()
            assert (await team.group("ben"))["role"] == role

        create = {"sql": "CREATE TABLE more (id TEXT PRIMARY KEY)"}
        first = await team.write("ben", "as writer")
        assert await not_allowed(ben, "sql.execute", **create) == ("admin", "writer")
        assert await not_allowed(ben, "group.update", name="x") == ("admin", "writer")
        assert await not_allowed(ben, "invite.create", role="reader") == ("moderator", "writer")
        assert await not_allowed(ben, "member.set_role", user="ben", role="admin") == ("none", "writer")
        assert await not_allowed(ben, "member.set_role", user="cem", role="reader") == ("admin", "writer")

        await set_role("moderator")
        assert (await ben.call("invite.create", group=GROUP, role="writer"))["ticket"]
        assert await not_allowed(ben, "invite.create", role="moderator") == ("admin", "moderator")
        assert await not_allowed(ben, "sql.execute", **create) == ("admin", "moderator")
        for method in ("member.remove", "ban.add"):
            assert await not_allowed(ben, method, user="ada") == ("none", "moderator")

        await set_role("admin")
        assert (await ben.call("sql.execute", group=GROUP, **create))["schema_version"]
        as_admin = await team.write("ben", "as admin")
        assert await not_allowed(ben, "member.set_role", user="ben", role="owner") == ("none", "admin")
        assert await not_allowed(ben, "member.set_role", user="ada", role="reader") == ("none", "admin")
        assert await not_allowed(ben, "member.set_role", user="cem", role="admin") == ("owner", "admin")

        # A demoted admin goes on as a writer, where it was: only what admins do is over.
        await set_role("writer")
        assert await not_allowed(ben, "sql.execute", sql="CREATE TABLE yet (id TEXT PRIMARY KEY)") == ("admin", "writer")
        again = await team.write("ben", "as writer again")
        await team.sync()  # what ada does not know yet when she takes the right is void
        assert {entry["writer"] for entry in (first, as_admin, again)} == {first["writer"]}

        await set_role("reader")
        write = {"sql": "INSERT INTO note VALUES ('as reader', 'as reader')"}
        assert await not_allowed(ben, "sql.execute", **write) == ("writer", "reader")
        assert await not_allowed(ben, "sql.transaction", statements=[write]) == ("writer", "reader")
        await team.write("ada", "meanwhile")

        await set_role("writer")
        back = await team.write("ben", "as writer at last")
        assert back["writer"].partition("/")[0] == first["writer"].partition("/")[0]
        assert back["writer"] != first["writer"]  # the old log is cut
        await ben.call("member.set_role", group=GROUP, user="ben", role="reader")  # oneself anybody may lower
        assert await not_allowed(ben, "member.set_role", user="ben", role="writer") == ("none", "reader")
        await team.sync()
        for name in ("ada", "ben"):
            assert (await team.members(name))["ben"]["role"] == "reader"
            assert await team.notes(name) == ["as admin", "as writer", "as writer again", "as writer at last", "meanwhile"]
            assert read_file(team.path(name), "SELECT count(*) FROM more") == [(0,)]


async def test_a_removed_member_gets_nothing_more_and_is_told_so_and_keeps_what_it_had(tmp_path: Path) -> None:
    async with open_team(tmp_path, ben="writer", cem="writer") as team:
        ada, ben, cem = team["ada"], team["ben"], team["cem"]
        await team.write("ben", "by ben")
        await team.sync()
        marker = secrets.token_hex(24)
        async with (
            ben.client() as of_ben,
            of_ben.events(["group_left"]) as on_ben,
            cem.client() as of_cem,
            of_cem.events(["member_changed"]) as on_cem,
            ada.client() as remover,
        ):
            # In the midst of writes: what is committed after the removal is on its way to everybody at that very moment.
            async with trio.open_nursery() as nursery:
                for first in range(8):
                    nursery.start_soon(write_many, remover, range(first, 200, 8))
                await remover.remove_member("ben", GROUP)
            beyond = beyond_the_last_act(team.path("ada"))
            assert len(beyond) > 50
            await remover.execute("INSERT INTO note VALUES ('after', ?)", [marker], group=GROUP)
            await remover.update_group(GROUP, name="renamed", description=marker)
            with trio.fail_after(HANG_S):
                left, changed = await anext(on_ben), await anext(on_cem)
        assert (left["kind"], left["name"], left["reason"]) == ("group_left", GROUP, "removed")
        assert (changed["name"], changed["role"]) == ("ben", "none")
        await ada.call("sync.wait", group="renamed", timeout_s=HANG_S)
        assert (await refused(cem, "group.show", group=GROUP)).code == "group_not_found"

        assert read_entries(team.path("ben"))[-1].hash not in beyond
        had = await team.notes("ben")
        assert "by ben" in had and len(had) < 201

        # Gone from the list, but for who looks for it; readable, and no more.
        assert [group["kind"] for group in await ben.call("group.list")] == ["personal"]
        for restarts in (False, True):
            if restarts:
                await ben.restart()  # it is the same for one that begins anew, and asks
            seen = await team.group("ben")
            expected = {"name": GROUP, "role": "none", "state": "removed", "active": False, "in_sync": False}
            assert {key: seen[key] for key in expected} == expected
            assert await team.notes("ben") == had
            assert not {entry.hash for entry in read_entries(team.path("ben"))} & beyond
            for method, params in {
                "sql.execute": {"sql": "INSERT INTO note VALUES ('x', 'x')"},
                "invite.create": {},
                "group.update": {"name": "mine"},
                "member.remove": {"user": "ada"},
            }.items():
                assert (await not_allowed(ben, method, **params))[1] == "none", method
            told = await ben.peers("sql", "-g", GROUP, "DELETE FROM note")
            assert (told.status, "(not_allowed)" in told.err, "hint: " in told.err) == (1, True, True)
            assert not holds(ben.data, marker)
            await until(lambda: _no_channel_to(ben, ada, cem))
        assert holds(ada.data, marker) and holds(cem.data, marker)

        listed = {member["name"]: member for member in await cem.call("member.list", group="renamed", include_left=True)}
        assert {name: member["role"] for name, member in listed.items()} == {"ada": "founder", "cem": "writer", "ben": "none"}
        assert (listed["ben"]["ended"], "ended" in listed["ada"]) == ("removed", False)
        joined, ended = (datetime.fromisoformat(listed["ben"][key]) for key in ("joined_at", "left_at"))
        assert joined < ended
        assert [member["name"] for member in await cem.call("member.list", group="renamed")] == ["ada", "cem"]


async def test_who_was_removed_and_is_invited_again_goes_on_in_a_new_epoch_with_history_intact(tmp_path: Path) -> None:
    async with open_team(tmp_path, ben="writer") as team:
        ada, ben = team["ada"], team["ben"]
        first = await team.write("ben", "one")
        await team.write("ben", "two")
        await team.sync()
        early = await ada.call("invite.create", group=GROUP, max_uses=5)
        await ada.call("member.remove", group=GROUP, user="ben")
        await team.write("ada", "while ben was away")
        await state_is(team, "ben", "removed")
        await ben.call("group.hide", group=GROUP, hidden=True)
        # To who was removed, a ticket from before is as good as revoked.
        assert await redeem(ben, early["ticket"]) == "invite_revoked"
        await state_is(team, "ben", "removed")
        late = await ada.call("invite.create", group=GROUP, role="writer")
        assert await redeem(ben, late["ticket"]) == "writer"
        seen = await team.group("ben")
        assert (seen["state"], seen["role"], seen["active"], seen["hidden"]) == ("ok", "writer", True, False)
        again = await team.write("ben", "three")
        assert again["writer"].partition("/")[0] == first["writer"].partition("/")[0]
        assert (again["writer"] == first["writer"], again["seq"]) == (False, 1)
        await ben.call("sql.execute", group=GROUP, sql="UPDATE note SET text = 'two, corrected' WHERE id = 'two'")
        await team.sync()
        await ben.restart()
        await team.sync()
        assert (await team.group("ben"))["hidden"] is False  # what somebody joins they want to see
        for name in ("ada", "ben"):
            assert await team.notes(name) == ["one", "three", "two, corrected", "while ben was away"]
            assert (await team.members(name))["ben"]["role"] == "writer"
            assert "ended" not in (await team.members(name))["ben"]
        assert (await ben.call("group.show", group=GROUP))["voided_entries"] == 0
        (invite,) = [one for one in await ada.call("invite.list", group=GROUP) if one["invite_id"] == late["invite_id"]]
        assert (invite["uses"], invite["revoked"]) == (1, False)


async def test_who_was_removed_while_off_comes_back_by_a_ticket_before_it_knows_that_it_was_gone(tmp_path: Path) -> None:
    async with open_team(tmp_path, ben="writer") as team:
        ada, ben = team["ada"], team["ben"]
        await team.write("ben", "before")
        await team.sync()
        await ben.terminate()
        await ada.call("member.remove", group=GROUP, user="ben")
        ticket = (await ada.call("invite.create", group=GROUP, role="moderator"))["ticket"]
        await ben.start()
        assert await redeem(ben, ticket) == "moderator"
        await team.write("ben", "after")
        await team.sync()
        for name in ("ada", "ben"):
            assert await team.notes(name) == ["after", "before"]
        assert [(group["name"], group["state"], group["role"]) for group in await ben.call("group.list")][1:] == [
            (GROUP, "ok", "moderator")
        ]


async def test_a_banned_user_is_out_until_the_ban_is_lifted_and_a_new_ticket_given(tmp_path: Path) -> None:
    async with open_team(tmp_path, ben="writer", cem="moderator") as team, open_daemon(tmp_path, "eve") as eve:
        ada, ben, cem = team["ada"], team["ben"], team["cem"]
        eve_id = (await eve.call("init", user_name="eve"))["user_id"]
        await team.write("ben", "by ben")
        await team.sync()
        ticket = (await ada.call("invite.create", group=GROUP, max_uses=9))["ticket"]
        await team.sync("ada", "cem")
        # Of a member by name, and of somebody who never came by the whole id.
        await cem.call("ban.add", group=GROUP, user="ben", reason="sends\nadvertisements")
        await cem.call("ban.add", group=GROUP, user=eve_id)
        await cem.call("ban.add", group=GROUP, user=eve_id)  # again: nothing to do
        await state_is(team, "ben", "banned")
        await team.sync("ada", "cem")
        ben_id = (await team.members("ada"))["ben"]["user_id"]
        cem_id = (await team.members("ada"))["cem"]["user_id"]
        for daemon in (ada, cem):
            bans = {ban["user_id"]: ban for ban in await daemon.call("ban.list", group=GROUP)}
            assert {user: (ban["name"], ban["reason"]) for user, ban in bans.items()} == {
                ben_id: ("ben", "sends\nadvertisements"),
                eve_id: ("", ""),
            }
            assert {ban["banned_by"] for ban in bans.values()} == {cem_id}
            assert all(datetime.fromisoformat(ban["banned_at"]) for ban in bans.values())
        assert (await team.members("ada"))["ben"]["ended"] == "banned"
        assert "sends\\nadvertisements" in (await ada.peers("ban", "list")).out
        for daemon in (ben, eve):
            assert await redeem(daemon, ticket) == "banned"
        assert (await not_allowed(ben, "ban.remove", user="ben"))[1] == "none"
        assert await not_allowed(cem, "ban.add", user="ada") == ("none", "moderator")
        assert (await refused(ada, "ban.remove", group=GROUP, user="cem")).code == "user_not_found"

        for user in (ben_id, eve_id):
            await ada.call("ban.remove", group=GROUP, user=user)
        assert await ada.call("ban.list", group=GROUP) == []
        assert (await team.members("ada"))["ben"]["role"] == "none"  # nobody is a member again by that alone
        # The ticket from before the ban stays dead to who was a member then, and is good for who was none.
        assert await redeem(ben, ticket) == "invite_revoked"
        new = (await ada.call("invite.create", group=GROUP, max_uses=9))["ticket"]
        assert await redeem(ben, new) == "writer"
        assert await redeem(eve, new) == "writer"
        await team.write("ben", "by ben, later")
        await team.sync()
        for name in ("ada", "ben", "cem"):
            assert await team.notes(name) == ["by ben", "by ben, later"]


async def test_a_name_that_two_members_have_is_no_way_to_remove_one(tmp_path: Path) -> None:
    async with open_team(tmp_path, ben="writer") as team, open_daemon(tmp_path, "twin") as twin:
        ada = team["ada"]
        twin_id = (await twin.call("init", user_name="ben"))["user_id"]
        ticket = (await ada.call("invite.create", group=GROUP))["ticket"]
        assert await redeem(twin, ticket) == "writer"
        error = await refused(ada, "member.remove", group=GROUP, user="ben")
        assert error.code == "name_ambiguous"
        assert twin_id in error.data["ids"] and len(error.data["ids"]) == 2
        await ada.call("member.remove", group=GROUP, user=twin_id[:16])
        with pytest.raises(PeersError, match="no member"):
            await ada.call("member.remove", group=GROUP, user="nobody")
        left = [member["user_id"] for member in await ada.call("member.list", group=GROUP)]
        assert twin_id not in left and len(left) == 2
