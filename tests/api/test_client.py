from __future__ import annotations

import json
import math
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from peersd.client import NoDaemon, PeersError, open_client, resolve_data_folder, resolve_socket_path
from peersd.client.connection import Connection

if TYPE_CHECKING:
    from tests.api.conftest import Served

HANG_S = 60


async def test_values_arrive_in_the_daemon_and_come_back_as_they_were(served: Served) -> None:
    values = [None, 1, -(2**63), 2**63 - 1, 1.5, -0.0, math.inf, -math.inf, "a\x00é", b"", b"\x00\xff"]
    async with open_client(served.path) as peers:
        answer = await peers.query("echo", values)
    assert repr(served.node.calls[0][1]["params"]) == repr(values)
    assert repr([row[0] for row in answer.rows]) == repr(values)
    assert (answer.columns, answer.truncated) == (["v"], False)


async def test_each_typed_method_calls_its_own(served: Served) -> None:
    async with open_client(served.path) as peers:
        assert (await peers.status())["device_name"] == "laptop"
        assert (await peers.init("ada"))["user_id"] == "usr-aaaa"
        assert await peers.create_group("team", "words") == "grp-aaaa"
        assert (await peers.groups(include_hidden=True))[0]["group_id"] == "grp-aaaa"
        assert (await peers.show_group("team"))["avatar"] == b"\x89PNG"
        assert (await peers.switch_group("team"))["group_id"] == "grp-aaaa"
        assert (await peers.active_group())["group_id"] == "grp-aaaa"
        assert (await peers.create_invite("team", role="reader", expires_in_s=60, max_uses=2))["ticket"] == "ticket-aaaa"
        assert (await peers.invites())[0]["uses"] == 0
        await peers.revoke_invite("inv-aaaa")
        assert (await peers.join("ticket-aaaa", timeout_s=5))["name"] == "team"
        assert (await peers.members(include_left=True))[0]["name"] == "ada"
        assert (await peers.execute("INSERT", [b"x"]))["last_entry"] == {"writer": "w", "seq": 1, "hlc": 2**62 + 1}
        assert (await peers.transaction([{"sql": "A", "params_seq": [[b"x"]]}]))["changes"] == [1, 2]
        assert (await peers.schema())["schema_version"] == 1
        assert (await peers.update_group("team", name="house", avatar=b"x"))["name"] == "house"
        await peers.hide_group("team")
        await peers.leave_group()
        await peers.forget_group("team")
        await peers.set_role("ben", "reader", "team")
        await peers.remove_member("ben")
        await peers.ban("ben", "team", reason="why")
        await peers.lift_ban("ben")
        assert (await peers.bans("team"))[0]["user_id"] == "usr-cccc"
        assert (await peers.devices())[0]["this"]
        await peers.disconnect("phone")
        assert await peers.links() == []
        assert await peers.connect("ws://x") == "dev-bbbb"
        assert (await peers.sync_status("team"))[0]["devices"][0]["equal"]
        await peers.wait_synced("team", devices=["dev-bbbb"], timeout_s=1)
        await peers.stop()
    assert [name for name, _ in served.node.calls] == [
        "status", "init", "group_create", "group_list", "group_show", "group_switch", "group_active", "invite_create",
        "invite_list", "invite_revoke", "invite_accept", "member_list", "sql_execute", "sql_transaction", "schema_show",
        "group_update", "group_hide", "group_leave", "group_forget", "member_set_role", "member_remove", "ban_add", "ban_remove",
        "ban_list", "device_list", "link_disconnect", "link_list", "link_connect", "sync_status", "sync_wait",
    ]  # fmt: skip
    given = dict(served.node.calls)
    assert given["sql_transaction"]["statements"] == [("A", [(b"x",)])]
    assert given["group_update"] == {"user": None, "group": "team", "name": "house", "description": None, "avatar": b"x"}
    assert given["group_hide"] == {"user": None, "group": "team", "hidden": True}
    assert given["member_set_role"] == {"user": None, "group": "team", "member": "ben", "role": "reader"}
    assert given["ban_add"] == {"user": None, "group": "team", "member": "ben", "reason": "why"}


async def test_calls_run_side_by_side_on_one_connection(served: Served) -> None:
    async with open_client(served.path) as peers, trio.open_nursery() as nursery:
        nursery.start_soon(peers.query, "wait")
        assert (await peers.query("SELECT")).truncated
        served.node.gate.set()


async def test_an_error_answer_is_raised_as_itself_out_of_the_context(served: Served) -> None:
    with pytest.raises(PeersError) as caught:
        async with open_client(served.path) as peers:
            await peers.query("INSERT")
    assert (caught.value.code, caught.value.message, caught.value.hint) == (
        "sql_refused",
        "a query cannot write",
        "use sql.execute",
    )
    assert caught.value.data["kind"] == "write"


async def test_errors_of_the_protocol_have_codes_and_details_too(served: Served) -> None:
    async with open_client(served.path) as peers:
        with pytest.raises(PeersError, match="Method not found: no method") as caught:
            await peers.call("nonsense")
        assert caught.value.code == "method_not_found"
        with pytest.raises(PeersError, match="limit must be") as caught:
            await peers.query("S", limit=0)
        assert caught.value.code == "invalid_params"


async def test_a_request_beyond_a_line_is_refused_before_it_is_sent(served: Served) -> None:
    async with open_client(served.path) as peers:
        with pytest.raises(PeersError) as caught:
            await peers.query("x" * (16 * 1024 * 1024))
        assert caught.value.code == "too_large"
        assert await peers.status()
    assert len(served.node.calls) == 1


async def test_a_cancelled_call_leaves_the_connection_usable(served: Served) -> None:
    async with open_client(served.path) as peers:
        with trio.move_on_after(0.05):
            await peers.query("wait")
        served.node.gate.set()
        assert (await peers.query("SELECT")).columns == ["n", "t", "r", "b", "x"]


async def test_who_calls_after_the_context_hears_that_the_client_is_closed_and_nothing_of_the_daemon(served: Served) -> None:
    async with open_client(served.path) as peers:
        await peers.status()
    with pytest.raises(NoDaemon) as caught:
        await peers.status()
    assert str(caught.value).startswith("this client is closed")


async def test_where_nothing_listens_the_error_names_the_socket_and_the_remedy(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.sock", tmp_path / ("x" * 200)):
        with pytest.raises(NoDaemon) as caught:
            async with open_client(path):
                pass
        assert str(path) in caught.value.message
        assert "peersd run" in caught.value.hint
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(dead))
    with pytest.raises(NoDaemon):
        async with open_client(dead):
            pass


async def test_a_connection_that_breaks_fails_every_call_under_way_and_after(served: Served) -> None:
    with trio.fail_after(HANG_S):
        async with open_client(served.path) as peers:
            outcomes = []

            async def ask() -> None:
                try:
                    await peers.execute("wait")
                except NoDaemon as error:
                    outcomes.append(error.code)

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(ask)
                while len(served.node.calls) < 3:
                    await trio.sleep(0)
                await served.server.drain(0)
            await peers.wait_closed()
            await ask()
    assert outcomes == ["no_daemon"] * 4


def test_the_socket_is_found_by_flag_then_environment_then_data_folder_then_runtime_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", "/h")
    assert str(resolve_data_folder()) == "/h/.local/share/peersd"
    assert str(resolve_socket_path()) == "/h/.local/share/peersd/peersd.sock"
    monkeypatch.setenv("XDG_DATA_HOME", "/x")
    assert str(resolve_socket_path()) == "/x/peersd/peersd.sock"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/r")
    assert str(resolve_socket_path()) == "/r/peersd/peersd.sock"
    assert str(resolve_socket_path(data="/d")) == "/d/peersd.sock"
    monkeypatch.setenv("PEERSD_DATA", "/e")
    assert str(resolve_socket_path()) == "/e/peersd.sock"
    assert str(resolve_data_folder("/d")) == "/d"
    monkeypatch.setenv("PEERSD_SOCKET", "/s.sock")
    assert str(resolve_socket_path(data="/d")) == "/s.sock"
    assert str(resolve_socket_path("/t.sock")) == "/t.sock"
    monkeypatch.setenv("PEERSD_SOCKET", "")
    assert str(resolve_socket_path()) == "/e/peersd.sock"


async def test_a_call_that_is_cancelled_while_its_line_finds_no_room_leaves_a_whole_line_and_the_next_is_answered(
    served: Served,
) -> None:
    async with open_client(served.path) as peers:
        with trio.move_on_after(0):
            await peers.query("never sent")  # who is cancelled already asks for nothing
        calls = [f"SELECT {'x' * 1024 * 1024} {number}" for number in range(4)]
        with trio.fail_after(HANG_S):
            async with trio.open_nursery() as nursery:
                for sql in calls:
                    nursery.start_soon(peers.query, sql)
                for _ in range(2):  # the first may come before they have begun
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            assert (await peers.query("SELECT")).columns
    asked = [arguments["sql"] for _name, arguments in served.node.calls]
    assert asked[-1] == "SELECT" and "never sent" not in asked
    assert set(asked[:-1]) <= set(calls) and len(asked) >= 2


async def test_no_line_comes_between_the_parts_of_another() -> None:
    near, far = trio.socket.socketpair()
    connection, received = Connection(trio.SocketStream(near)), b""
    with far, trio.fail_after(HANG_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run)
            nursery.start_soon(connection.call, "long", {"sql": "x" * 4 * 1024 * 1024})
            await trio.testing.wait_all_tasks_blocked()
            for number in range(20):
                nursery.start_soon(connection.call, "short", {"number": number})
                received += await far.recv(65_536)  # there is room for a short line now, and the long one goes on
            while received.count(b"\n") < 21:
                received += await far.recv(65_536)
            nursery.cancel_scope.cancel()
    assert sorted(json.loads(line)["id"] for line in received.splitlines()) == list(range(1, 22))
