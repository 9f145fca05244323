"""What a node tells its users of who they are, what they may, whom it waited for and which group they meant."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from peersd.errors import PeersdError
from peersd.node.api_node import ApiNode
from peersd.testing.processes import HANG_S
from peersd_protocol import ids
from tests.node.two_nodes import Two, group_of, open_ada, open_two, spoil, until, write


async def refusal(call: Awaitable[object]) -> PeersdError:
    """The error of a call."""
    with pytest.raises(PeersdError) as failed:
        await call
    return failed.value


async def execute(node: ApiNode, sql: str) -> PeersdError:
    """The error of a statement in the group `shared`."""
    return await refusal(node.sql_execute(user=None, group="shared", sql=sql, params=(), timeout_s=HANG_S))


async def ticket(node: ApiNode, role: str = "writer") -> str:
    """A ticket for the group `shared`."""
    return str((await node.invite_create(user=None, group="shared", role=role, expires_in_s=60, max_uses=1))["ticket"])


async def until_ben_is(two: Two, role: str) -> None:
    """Return when ben's node knows of ben's role in the group `shared`."""
    group, ben = group_of(two.ben, "shared"), two.ben.user(None)
    await until(lambda: group.summary.role_of(ben.id).name.lower() == role)


def told(error: PeersdError) -> tuple[str, str, object]:
    """What happened, what to do, and the role needed."""
    assert error.code == "not_allowed"
    return error.message, error.hint, error.extra.get("role_needed")


async def test_a_group_that_others_call_personal_is_chosen_by_its_id_alone(tmp_path: Path) -> None:
    async with open_ada(tmp_path) as ada:
        made = await ada.group_create(user=None, name="personal", description=None)
        shown = await ada.group_show(user=None, group="personal")
        assert (shown["kind"], shown["name"]) == ("personal", "ada")
        assert (await ada.group_show(user=None, group=made["group_id"]))["name"] == "personal"
        assert (await ada.group_show(user=None, group=made["group_id"][:12]))["name"] == "personal"


async def test_a_name_that_is_the_beginning_of_an_id_is_ambiguous_and_the_candidates_are_named(tmp_path: Path) -> None:
    async with open_ada(tmp_path) as ada:
        first = (await ada.group_create(user=None, name="first", description=None))["group_id"]
        second = (await ada.group_create(user=None, name=first[:12], description=None))["group_id"]
        error = await refusal(ada.group_show(user=None, group=first[:12]))
        named = sorted([{"id": first, "name": "first"}, {"id": second, "name": first[:12]}], key=lambda one: one["id"])
        assert (error.code, error.extra["candidates"], error.extra["ids"]) == (
            "name_ambiguous",
            named,
            [one["id"] for one in named],
        )
        assert (await ada.group_show(user=None, group=first))["name"] == "first"


async def test_what_is_not_here_is_told_with_where_to_look(tmp_path: Path) -> None:
    async with open_ada(tmp_path) as ada:
        await ada.group_create(user=None, name="shared", description=None)
        calls: dict[str, Awaitable[Any]] = {
            "`peers groups --all`": ada.group_show(user=None, group="absent"),
            "`peers status`": ada.group_show(user="absent", group=None),
            "`peers members --left`": ada.member_remove(user=None, group=None, member="absent"),
            "`peers ban list`": ada.ban_remove(user=None, group=None, member="absent"),
            "`peers invite list`": ada.invite_revoke(user=None, group=None, invite_id="inv-absent"),
            "`peers links`": ada.link_disconnect(user=None, device="absent"),
            "`peers sync`": ada.sync_wait(user=None, group=None, devices=["absent"], timeout_s=HANG_S),
            "by the whole id": ada.ban_add(user=None, group=None, member="absent", reason=None),
        }
        for where, call in calls.items():
            assert where in (await refusal(call)).hint
        text = (await ada.status())["users"][0]["user_id"]
        error = await refusal(ada.ban_add(user=None, group=None, member=text[:-1] + "z", reason=None))
        assert error.code == "user_not_found"
        assert "is no user's id: checksum does not match" in error.message and "whole id" in error.hint


async def test_the_personal_group_is_not_said_to_be_left_first(tmp_path: Path) -> None:
    async with open_ada(tmp_path) as ada:
        for call in (ada.group_forget(user=None, group="personal"), ada.group_leave(user=None, group="personal")):
            message, hint, _ = told(await refusal(call))
            assert "The personal group cannot be" in message and "Leave it" not in hint


async def test_a_reader_is_told_the_role_that_a_statement_needs_and_who_can_help(tmp_path: Path) -> None:
    async with open_two(tmp_path, "shared") as two:
        await two.ada.member_set_role(user=None, group="shared", member="ben", role="reader")
        await until_ben_is(two, "reader")
        helped = "Ask ada (founder) for that role, or to do it."
        for sql, needed in (
            ("CREATE TABLE more (id TEXT PRIMARY KEY)", "admin"),
            ("ALTER TABLE note ADD COLUMN more TEXT", "admin"),
            ("INSERT INTO note (text) VALUES ('x')", "writer"),
        ):
            assert told(await execute(two.ben, sql)) == (f"This needs the role {needed}; yours is reader.", helped, needed)
        raised = two.ben.member_set_role(user=None, group="shared", member="ben", role="owner")
        assert told(await refusal(raised)) == ("Nobody can give themselves a higher role.", "Ask ada (founder) for it.", "none")
        renamed = two.ben.group_update(user=None, group="shared", name="x", description=None, avatar=None)
        assert told(await refusal(renamed))[1:] == (helped, "admin")
        invited = two.ben.invite_create(user=None, group="shared", role="owner", expires_in_s=60, max_uses=1)
        assert told(await refusal(invited))[1:] == ("Only ada (founder) can do it.", "founder")


async def test_an_admin_who_is_the_last_is_not_told_to_make_another(tmp_path: Path) -> None:
    async with open_two(tmp_path, "shared") as two:
        message, hint, _ = told(await refusal(_leave_beside_others(two.ada)))
        assert message == "The last admin cannot leave while others are members."
        assert hint == "Make somebody else an admin first."  # as a founder can
        await two.ada.member_set_role(user=None, group="shared", member="ben", role="admin")
        await until_ben_is(two, "admin")
        await two.ada.member_set_role(user=None, group="shared", member="ada", role="reader")
        ada = two.ada.user(None)
        await until(lambda: group_of(two.ben, "shared").summary.role_of(ada.id).name == "READER")
        message, hint, _ = told(await refusal(two.ben.group_leave(user=None, group="shared")))
        assert message == "The last admin cannot leave while others are members."
        assert hint == "An admin can make nobody an admin: it can be done when the others have left, or were removed."


async def _leave_beside_others(ada: ApiNode) -> None:
    """The founder leaves ben, who is none of those who could go on without her."""
    await ada.member_set_role(user=None, group="shared", member="ben", role="writer")
    await ada.group_leave(user=None, group="shared")


async def test_who_was_removed_is_told_so_and_not_to_ask_for_a_role(tmp_path: Path) -> None:
    async with open_two(tmp_path, "shared") as two:
        await two.ada.member_remove(user=None, group="shared", member="ben")
        await until_ben_is(two, "none")
        expected = ("You were removed from shared.", "Ask ada (founder) for a ticket.")
        assert told(await execute(two.ben, "INSERT INTO note (text) VALUES ('x')"))[:2] == expected
        assert told(await refusal(two.ben.group_leave(user=None, group="shared")))[:2] == expected
        assert told(await refusal(two.ben.member_remove(user=None, group="shared", member="ada")))[:2] == expected
        lowered = two.ben.member_set_role(user=None, group="shared", member="ada", role="reader")
        assert told(await refusal(lowered))[:2] == expected
        assert told(await refusal(two.ben.ban_add(user=None, group="shared", member="ada", reason=None)))[:2] == expected
        renamed = two.ben.group_update(user=None, group="shared", name="x", description=None, avatar=None)
        assert told(await refusal(renamed))[:2] == expected


async def test_who_left_may_leave_again_and_is_told_so_when_writing(tmp_path: Path) -> None:
    async with open_two(tmp_path, "shared") as two:
        await two.ben.group_leave(user=None, group="shared")
        await two.ben.group_leave(user=None, group="shared")
        assert told(await execute(two.ben, "INSERT INTO note (text) VALUES ('x')"))[0] == "You have left shared."


async def test_who_is_banned_is_told_who_can_lift_it(tmp_path: Path) -> None:
    async with open_two(tmp_path, "shared") as two:
        await two.ada.ban_add(user=None, group="shared", member="ben", reason=None)
        await until_ben_is(two, "none")
        expected = ("You were banned from shared.", "Only ada (founder) can lift the ban.")
        assert told(await refusal(two.ben.group_leave(user=None, group="shared")))[:2] == expected
        accepted = two.ben.invite_accept(user=None, ticket=await ticket(two.ada), timeout_s=HANG_S)
        error = await refusal(accepted)
        assert (error.code, error.hint) == ("banned", expected[1])
        (ban,) = await two.ada.ban_list(user=None, group="shared")
        assert ban["banned_by_name"] == "ada"


async def test_who_joins_where_they_are_keeps_the_role_and_takes_no_use_of_the_invite(tmp_path: Path) -> None:
    async with open_two(tmp_path, "shared") as two:
        made = await ticket(two.ada)
        await two.ada.sync_wait(user=None, group="shared", devices=None, timeout_s=HANG_S)
        answer = await two.ben.invite_accept(user=None, ticket=made, timeout_s=HANG_S)
        assert (answer["name"], answer["role"]) == ("shared", "admin")
        (_, invite) = await two.ada.invite_list(user=None, group="shared")
        assert invite["uses"] == 0


async def test_the_state_of_an_invite_says_whether_one_joins_by_it(tmp_path: Path) -> None:
    async with open_two(tmp_path, "shared") as two:
        first = await two.ada.invite_create(user=None, group="shared", role="reader", expires_in_s=60, max_uses=1)
        await two.ada.invite_create(user=None, group="shared", role="reader", expires_in_s=60, max_uses=1)
        await two.ada.invite_create(user=None, group="shared", role="reader", expires_in_s=-1, max_uses=1)
        await two.ada.invite_revoke(user=None, group="shared", invite_id=first["invite_id"])
        listed = await two.ada.invite_list(user=None, group="shared")
        assert sorted(invite["state"] for invite in listed) == ["expired", "open", "revoked", "used_up"]
        assert {invite["created_by_name"] for invite in listed} == {"ada"}


async def test_a_wait_answers_for_whom_it_waited_and_which_groups_it_passed_over(tmp_path: Path) -> None:
    async with open_two(tmp_path, "shared", "other") as two:
        await write(two.ada, "shared", "row")
        ben = {"device_id": (await two.ben.status())["device_id"], "name": "ben-laptop", "user_names": ["ben"]}
        shared, other = (group_of(two.ada, name) for name in ("shared", "other"))
        waited = await two.ada.sync_wait(user=None, group="shared", devices=["ben-laptop"], timeout_s=HANG_S)
        assert waited == {"devices": [{**ben, "group_ids": [shared.text_id]}], "passed_over": []}
        (device,) = (await two.ada.sync_status(user=None, group="shared"))[0]["devices"]
        assert device["user_names"] == ["ben"]
        await two.ben.group_leave(user=None, group="other")
        await until(lambda: not other.lanes())
        waited = await two.ada.sync_wait(user=None, group=None, devices=None, timeout_s=HANG_S)
        assert [one["group_ids"] for one in waited["devices"]] == [[shared.text_id]]
        assert await two.ada.sync_wait(user=None, group="personal", devices=None, timeout_s=HANG_S) == {
            "devices": [],
            "passed_over": [],
        }
        error = await refusal(two.ada.sync_wait(user=None, group="shared", devices=["ada-laptop"], timeout_s=HANG_S))
        assert error.code == "user_not_found" and "no other device 'ada-laptop'" in error.message


async def test_who_is_turned_away_by_a_device_that_was_told_to_disconnect_hears_of_that_cause(tmp_path: Path) -> None:
    async with open_two(tmp_path, "shared") as two:
        ben = (await two.ben.status())["device_id"]
        await two.ada.link_disconnect(user=None, device=ben)
        await until(lambda: two.ben.links is not None and not two.ben.links.handles())
        url = two.ada.listen_urls[0]
        error = await refusal(two.ben.link_connect(user=None, url=url, device_id=None, timeout_s=HANG_S))
        assert (error.code, error.retry) == ("unreachable", True)
        assert "wants no link with this one now" in error.message and "to disconnect from it" in error.hint


async def test_a_wait_in_vain_says_whether_anybody_was_linked(tmp_path: Path) -> None:
    async with open_two(tmp_path, "shared") as two:
        await two.ada.link_disconnect(user=None, device=(await two.ben.status())["device_id"])
        await until(lambda: not group_of(two.ada, "shared").lanes())
        for group in (None, "shared"):
            error = await refusal(two.ada.sync_wait(user=None, group=group, devices=None, timeout_s=0.01))
            assert (error.code, error.message) == ("timeout", "No other device is linked here.")
            assert "`peers connect URL`" in error.hint


async def test_log_lines_name_devices_groups_and_users_as_commands_take_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_two(tmp_path, "shared") as two:
        await two.ada.member_remove(user=None, group="shared", member="ben")
        await until_ben_is(two, "none")
    named: dict[str, set[str]] = {}
    for record in caplog.records:
        fields = getattr(record, "fields", {})
        for kind in {"device", "group", "user"} & fields.keys():
            named.setdefault(kind, set()).add(record.getMessage())
            assert ids.parse_id({"device": ids.DEVICE, "group": ids.GROUP, "user": ids.USER}[kind], fields[kind])
    assert {"link_up", "link_down"} <= named["device"]
    assert "member_admitted" in named["group"] & named["user"]


async def test_a_wait_names_the_groups_in_which_nobody_is_linked(tmp_path: Path, errors: set[str]) -> None:
    async with open_two(tmp_path, "shared", "away") as two:
        errors.add("group_not_opened")
        await two.rest()
        spoil(group_of(two.ben, "away"))
        away = group_of(two.ada, "away")
        await write(two.ada, "away", "row")
        await until(lambda: group_of(two.ben, "away").store.failure is not None and not away.lanes())
        waited = await two.ada.sync_wait(user=None, group=None, devices=None, timeout_s=HANG_S)
        assert waited["passed_over"] == [{"group_id": away.text_id, "name": "away"}]
        assert [one["group_ids"] for one in waited["devices"]] == [[group_of(two.ada, "shared").text_id]]
