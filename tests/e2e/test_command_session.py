"""A session of two people at their command lines, from the first `init` to `stop`: every command, its statuses, and the logs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from peersd.testing.processes import DaemonProcess, open_daemon, run_peers

pytestmark = pytest.mark.e2e


async def run(daemon: DaemonProcess, *arguments: str, status: int = 0, stdin: bytes = b"") -> str:
    """Run a command; what it printed where people look: standard output, or standard error when it was refused."""
    ended = await daemon.peers(*arguments, stdin=stdin)
    assert ended.status == status, f"peers {' '.join(arguments)}: {ended.status}\n{ended.out}\n{ended.err}"
    if status == 0:
        return ended.out
    assert ended.out == ""
    return ended.err


async def test_two_people_share_a_table_with_nothing_but_the_command_line(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "ada") as ada, open_daemon(tmp_path, "ben") as ben:
        initialised = await ada.answer("init", "--user", "ada", "--device", "laptop")
        assert "recovery phrase" in await run(ben, "init", "--user", "ben", "--device", "desktop")
        await run(ada, "group", "create", "Our team")
        await run(ada, "sql", "CREATE TABLE note (id TEXT PRIMARY KEY DEFAULT (uuid7()), text TEXT)")
        await run(ada, "sql", "INSERT INTO note (text) VALUES (?)", "--param", "a secret note")
        ticket = (await run(ada, "invite", "create", "--uses", "2", "--expires", "1d")).strip()
        assert "joined Our team as writer" in await run(ben, "join", "-", stdin=f"{ticket}\n".encode())
        assert "a secret note" in await run(ben, "sql", "SELECT text FROM note")
        assert "1 row changed" in (await ben.peers("sql", "INSERT INTO note (text) VALUES ('back')")).err
        assert await run(ben, "sync", "--wait", "-g", "Our team") == "ada's laptop holds everything\n"
        assert "you are a member of Our team already, as writer" in await run(ben, "join", ticket)
        assert json.loads(await run(ada, "sql", "SELECT text FROM note ORDER BY id", "--json"))["rows"] == [
            ["a secret note"],
            ["back"],
        ]

        # What people see, and the same as JSON for programs.
        shown = {
            ("status",): "laptop",
            ("links",): "in",
            ("groups",): "Our team",
            ("groups", "--all"): "Our team",
            ("group", "show"): "Our team",
            ("group", "show", "-g", "personal"): "personal",
            ("group", "switch", "Our team"): "Our team",
            ("group", "active"): "active group: ",
            ("members",): "ben",
            ("members", "--left"): "founder",
            ("invite", "list"): "writer",
            ("sync",): "desktop",
            ("sync", "--wait"): "ben's desktop holds everything",
            ("sql", "SELECT count(*) AS number FROM note"): "number",
            ("sql", "SELECT text FROM note", "--csv"): "text\n",
        }

        async def show(command: tuple[str, ...], words: str) -> None:
            assert words in await run(ada, *command), command
            assert json.loads(await run(ada, *command, "--json")) is not None, command

        async with trio.open_nursery() as nursery:
            for command, words in shown.items():
                nursery.start_soon(show, command, words)
        connected = json.loads(await run(ada, "connect", await ben.url(), "--json"))
        assert connected["device_id"] == (await ben.answer("status"))["device_id"]
        invite = (await ada.answer("invite", "list"))[0]["invite_id"]
        assert (await ada.answer("invite", "list"))[0]["uses"] == 1
        await run(ada, "invite", "revoke", invite)

        # Told no: status 1, the code and a hint on standard error.
        refused = {
            ("group", "show", "absent"): "group_not_found",
            ("sql", "SELECT * FROM absent"): "sql_error",
            ("sql", "DROP TABLE note"): "schema_refused",
            ("sql", "PRAGMA user_version"): "sql_refused",
            ("join", "ticket-nonsense"): "invite_invalid",
            ("invite", "revoke", "inv-nonsense"): "invite_invalid",
            ("invite", "create", "-g", "personal"): "not_allowed",
            ("connect", "ws://127.0.0.1:1"): "unreachable",
            ("init", "--user", "eve"): "already_initialised",
            ("members", "-g", "absent"): "group_not_found",
            ("sync", "-g", "absent"): "group_not_found",
        }

        async def refuse(command: tuple[str, ...], code: str) -> None:
            told = await run(ada, *command, status=1)
            assert code in told, told
            assert "hint: " in told, told

        async with trio.open_nursery() as nursery:
            for command, code in refused.items():
                nursery.start_soon(refuse, command, code)
        for command in (("invite", "create"), ("sql", "CREATE TABLE n (id TEXT PRIMARY KEY)")):
            told = await run(ben, *command, status=1)
            assert "not_allowed" in told and "hint: Ask ada (founder) for that role, or to do it." in told
        # Not understood: status 2.
        for command in (
            (),
            ("nonsense",),
            ("init",),
            ("sql",),
            ("invite", "create", "--expires", "soon"),
            ("sync", "--wait", "--timeout", "x"),
        ):
            assert "usage:" in await run(ada, *command, status=2) or command == ("sql",), command

        # Nobody there: status 3, and what to do about it.
        socket = ben.socket
        assert await run(ben, "stop") == "stopped\n"
        await ben.wait_ended()
        gone = await run_peers("--socket", str(socket), "status")
        assert (gone.status, gone.out) == (3, "")
        assert "peersd run" in gone.err

        # One line an event, and none of them tells what is nobody's business.
        phrase = initialised["recovery_phrase"]
        for daemon in (ada, ben):
            log = daemon.log()
            assert all(line[:4].isdigit() for line in log.splitlines()), log
            for secret in (
                ticket,
                ticket.removeprefix("ticket-")[:40],
                phrase,
                phrase.split()[0] + " ",
                "secret note",
                "INSERT",
                "SELECT",
                "CREATE TABLE",
            ):
                assert secret not in log, secret
            for event in ("ready", "link_up"):
                assert f" info {event} " in log
