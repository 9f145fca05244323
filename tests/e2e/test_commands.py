"""Every method and command of this version, against a real daemon: the keys of API.md, exit statuses, errors with hints."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from peersd.client import PeersError
from peersd.testing.pairs import GROUP, open_pair
from peersd.testing.processes import DaemonProcess, open_daemon

pytestmark = pytest.mark.e2e

GROUP_KEYS = {"group_id", "name", "kind", "role", "members", "active", "hidden", "state", "in_sync", "path"}
TABLE = "CREATE TABLE note (id TEXT PRIMARY KEY DEFAULT (uuid7()), text TEXT, n INTEGER)"


@pytest.fixture
async def ada(tmp_path: Path) -> AsyncGenerator[DaemonProcess]:
    async with open_daemon(tmp_path, "ada") as daemon:
        await daemon.answer("init", "--user", "ada", "--device", "laptop")
        yield daemon


async def refused(daemon: DaemonProcess, method: str, **params: Any) -> PeersError:
    async with daemon.client() as peers:
        with pytest.raises(PeersError) as caught:
            await peers.call(method, **params)
    assert caught.value.hint, f"{caught.value.code} has no hint"
    return caught.value


async def test_before_init_the_daemon_answers_status_and_says_what_is_missing(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "a") as daemon:
        status = await daemon.answer("status")
        assert {"version", "pid", "users", "listen", "advertise", "links", "groups", "uptime_s"} <= set(status)
        assert (status["device_id"], status["device_name"], status["users"], status["groups"]) == (None, None, [], 0)
        assert status["pid"] == daemon.pid
        for method, params in (
            ("group.list", {}),
            ("group.create", {"name": "x"}),
            ("group.show", {}),
            ("group.switch", {"group": "x"}),
            ("group.active", {}),
            ("invite.create", {}),
            ("invite.list", {}),
            ("invite.revoke", {"invite_id": "x"}),
            ("invite.accept", {"ticket": "x"}),
            ("member.list", {}),
            ("sql.query", {"sql": "SELECT 1"}),
            ("sql.execute", {"sql": "DELETE FROM x"}),
            ("sql.transaction", {"statements": [{"sql": "DELETE FROM x"}]}),
            ("schema.show", {}),
            ("link.list", {}),
            ("link.connect", {"url": "ws://127.0.0.1:1"}),
            ("sync.status", {}),
            ("sync.wait", {"timeout_s": 1}),
        ):
            assert (await refused(daemon, method, **params)).code == "not_initialised", method


async def test_init_works_once_and_survives_a_restart(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "a") as daemon:
        made = await daemon.answer("init", "--user", "ada", "--device", "laptop")
        assert {"user_id", "device_id", "personal_group_id", "recovery_phrase"} <= set(made)
        prefixes = [made[key][:4] for key in ("user_id", "device_id", "personal_group_id")]
        assert prefixes == ["usr-", "dev-", "grp-"]
        again = await daemon.peers("init", "--user", "eve")
        assert again.status == 1
        assert "already_initialised" in again.err
        before = await daemon.answer("status")
        assert (before["device_id"], before["device_name"]) == (made["device_id"], "laptop")
        assert before["users"] == [{"user_id": made["user_id"], "name": "ada"}]
        await daemon.restart()
        after = await daemon.answer("status")
        for key in ("device_id", "device_name", "users", "groups", "listen"):
            assert after[key] == before[key], key
        assert made["recovery_phrase"] not in daemon.log()


async def test_groups_are_made_listed_shown_and_switched(ada: DaemonProcess) -> None:
    personal = await ada.answer("group", "show")
    assert GROUP_KEYS | {"description", "avatar", "created_at", "schema_version"} <= set(personal)
    assert (personal["kind"], personal["active"], personal["members"], personal["state"]) == ("personal", True, 1, "ok")
    first = (await ada.answer("group", "create", "Our house"))["group_id"]
    second = (await ada.answer("group", "create", "team"))["group_id"]
    groups = await ada.answer("groups")
    assert {group["group_id"] for group in groups} == {personal["group_id"], first, second}
    for group in groups:
        assert set(group) >= GROUP_KEYS
        # The first group that was made takes over from the personal group, a later one does not.
        assert group["active"] == (group["group_id"] == first)
        assert Path(group["path"]).is_file()
    async with ada.client() as peers:
        for chosen in ("team", second, second[:12]):
            assert (await peers.show_group(chosen))["group_id"] == second
        assert (await peers.show_group("personal"))["kind"] == "personal"
        assert (await peers.active_group())["group_id"] == first
    assert (await ada.answer("group", "switch", "team"))["group_id"] == second
    await ada.restart()
    async with ada.client() as peers:
        assert (await peers.active_group())["group_id"] == second
    assert (await refused(ada, "group.show", group="nonsense")).code == "group_not_found"
    await ada.answer("group", "create", "team")
    ambiguous = await refused(ada, "group.show", group="team")
    assert ambiguous.code == "name_ambiguous"
    assert (await refused(ada, "group.show", user="nobody")).code == "user_not_found"


async def test_sql_reads_writes_and_changes_the_schema_from_the_command_line(ada: DaemonProcess) -> None:
    await ada.answer("group", "create", "team")
    made = await ada.answer("sql", TABLE)
    assert {"changes", "columns", "rows", "last_entry", "schema_version"} <= set(made)
    written = await ada.answer(
        "sql", "INSERT INTO note (text, n) VALUES (?, ?) RETURNING text, n", "--param", "hello", "--param", "7"
    )
    assert (written["changes"], written["columns"], written["rows"]) == (1, ["text", "n"], [["hello", 7]])
    assert set(written["last_entry"]) >= {"writer", "seq", "hlc"}
    nothing = await ada.answer("sql", "DELETE FROM note WHERE n = 8")
    assert (nothing["changes"], nothing["last_entry"]) == (0, None)
    read = await ada.answer("sql", "SELECT text, n FROM note WHERE n = :n", "--param", ":n=7")
    assert (read["columns"], read["rows"], read["truncated"]) == (["text", "n"], [["hello", 7]], False)
    many = await ada.answer("sql", "--transaction", "INSERT INTO note (n) VALUES (1); INSERT INTO note (n) VALUES (2), (3)")
    assert many["changes"] == [1, 2]
    cut = await ada.answer("sql", "SELECT n FROM note", "--limit", "2")
    assert (len(cut["rows"]), cut["truncated"]) == (2, True)
    assert (await ada.peers("sql", "SELECT n FROM note WHERE n = 7", "--csv")).out == "n\n7\n"
    schema = await refused(ada, "sql.transaction", statements=[{"sql": "CREATE TABLE x (a TEXT PRIMARY KEY)"}])
    assert schema.code == "schema_refused"
    async with ada.client() as peers:
        shown = await peers.schema()
    table = next(table for table in shown["tables"] if table["name"] == "note")
    assert {"name", "columns", "indexes", "sql"} <= set(table)
    assert [column["name"] for column in table["columns"]] == ["id", "text", "n"]
    assert all({"name", "type", "key", "default", "not_null"} <= set(column) for column in table["columns"])


@pytest.mark.parametrize(
    ("method", "sql", "code"),
    [
        ("sql.query", "SELEKT 1", "sql_error"),
        ("sql.query", "SELECT * FROM absent", "sql_error"),
        ("sql.query", "INSERT INTO note (n) VALUES (1)", "sql_refused"),
        ("sql.query", "ATTACH 'x' AS y", "sql_refused"),
        ("sql.query", "PRAGMA journal_mode = DELETE", "sql_refused"),
        ("sql.execute", "BEGIN", "sql_refused"),
        ("sql.execute", "CREATE TABLE bad (a TEXT)", "schema_refused"),
        ("sql.execute", "INSERT INTO absent VALUES (1)", "sql_error"),
    ],
)
async def test_each_wrong_use_of_sql_has_its_error(ada: DaemonProcess, method: str, sql: str, code: str) -> None:
    await ada.answer("sql", TABLE)
    assert (await refused(ada, method, sql=sql)).code == code


async def test_invites_are_made_listed_and_revoked(ada: DaemonProcess) -> None:
    await ada.answer("group", "create", "team")
    made = await ada.answer("invite", "create", "--role", "reader", "--expires", "12h", "--uses", "3")
    assert {"invite_id", "ticket", "expires_at"} <= set(made)
    assert made["ticket"].startswith("ticket-")
    (listed,) = await ada.answer("invite", "list")
    expected = {"invite_id": made["invite_id"], "role": "reader", "max_uses": 3, "uses": 0, "revoked": False}
    assert {key: listed[key] for key in expected} == expected
    assert {"expires_at", "created_by"} <= set(listed)
    assert (await ada.peers("invite", "revoke", made["invite_id"])).status == 0
    assert (await ada.answer("invite", "list"))[0]["revoked"] is True
    assert (await refused(ada, "invite.revoke", invite_id="inv-nonsense")).code == "invite_invalid"
    assert (await refused(ada, "invite.accept", ticket="ticket-garbled")).code == "invite_invalid"
    garbled = await ada.peers("join", "ticket-garbled")
    assert garbled.status == 1
    assert "hint:" in garbled.err
    assert made["ticket"] not in ada.log()


async def test_members_links_and_sync_answer_for_a_device_alone(ada: DaemonProcess) -> None:
    await ada.answer("group", "create", "team")
    (member,) = await ada.answer("members")
    assert {"user_id", "name", "role", "joined_at", "devices"} <= set(member)
    assert (member["name"], member["role"]) == ("ada", "founder")
    (device,) = member["devices"]
    assert {"device_id", "name", "online", "last_seen"} <= set(device)
    assert (device["name"], device["online"]) == ("laptop", True)
    assert await ada.answer("links") == []
    (group,) = await ada.answer("sync", "-g", "team")
    assert {"group_id", "devices"} <= set(group)
    assert (await ada.peers("sync", "--wait", "--timeout", "30s")).status == 0
    assert (await refused(ada, "link.connect", url="ws://127.0.0.1:1", timeout_s=5)).code in ("unreachable", "timeout")
    assert (await refused(ada, "link.connect", url="http://x")).code in ("unreachable", "invalid_params")


async def test_folders_are_0700_files_0600_and_any_sqlite_reads_the_group_while_the_daemon_runs(ada: DaemonProcess) -> None:
    await ada.answer("group", "create", "team")
    await ada.answer("sql", TABLE)
    await ada.answer("sql", "INSERT INTO note (n) VALUES (5)")
    assert stat.S_IMODE(ada.data.stat().st_mode) == 0o700
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in ada.data.rglob("*")}
    assert {path: mode for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}
    path = (await ada.answer("group", "show"))["path"]
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        assert connection.execute("SELECT n FROM note").fetchall() == [(5,)]
    connection.close()


async def test_what_this_version_does_not_have_is_said_so(ada: DaemonProcess) -> None:
    for method in ("device.revoke", "pair.start", "sql.subscribe", "doctor"):
        error = await refused(ada, method)
        assert (error.code, error.hint) == ("method_not_found", "not in this version")


async def test_links_members_and_sync_of_two_devices_have_their_keys_on_both_sides(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as pair:
        ids = {daemon: (await daemon.answer("status"))["device_id"] for daemon in (pair.ada, pair.ben)}
        directions = set()
        for here, there in ((pair.ada, pair.ben), (pair.ben, pair.ada)):
            (link,) = await here.answer("links")
            assert set(link) >= {
                "device_id", "device_name", "user_names", "url", "direction", "since", "rtt_ms", "channels", "bytes_in",
                "bytes_out",
            }  # fmt: skip
            assert link["device_id"] == ids[there]
            directions.add(link["direction"])
            assert [set(channel) >= {"group_id", "name", "state"} for channel in link["channels"]] == [True]
            assert min(link["bytes_in"], link["bytes_out"]) > 0
            members = {member["name"]: member for member in await here.answer("members", "-g", GROUP)}
            assert {name: member["role"] for name, member in members.items()} == {"ada": "founder", "ben": "admin"}
            assert [device["online"] for member in members.values() for device in member["devices"]] == [True, True]
            (group,) = await here.answer("sync", "-g", GROUP)
            (device,) = group["devices"]
            assert set(device) >= {"device_id", "name", "online", "equal", "last_equal_at", "lag_entries", "lag_bytes"}
            assert (device["device_id"], device["online"], device["equal"]) == (ids[there], True, True)
            for command in (["links"], ["members", "-g", GROUP], ["sync"], ["sync", "-g", GROUP, "--wait"]):
                assert (await here.peers(*command)).status == 0
        assert directions == {"in", "out"}
        connected = await pair.ben.answer("connect", pair.network.url)
        assert connected["device_id"] == ids[pair.ada]
        assert len(await pair.ada.answer("links")) == 1
