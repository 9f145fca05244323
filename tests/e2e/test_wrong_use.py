"""Wrong use of every command, and of every method that names a group, against a real daemon: the status, the code, the hint."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio

from peersd.api.methods import METHODS
from peersd.cli.arguments import make_parser
from peersd.cli.main import main
from peersd.testing.pairs import free_url
from peersd.testing.processes import DaemonProcess, open_daemon, plain_environment
from peersd.testing.teams import refused

pytestmark = pytest.mark.e2e

RunPeers = Callable[..., Awaitable[tuple[int, str, str]]]

RIGHT = {
    "init": ["--user", "ada"],
    "status": [],
    "links": [],
    "connect": ["ws://127.0.0.1:9"],
    "devices": [],
    "disconnect": ["laptop"],
    "events": ["--count", "1"],
    "stop": [],
    "groups": [],
    "group create": ["team"],
    "group show": [],
    "group active": [],
    "group switch": ["team"],
    "group update": ["--name", "team"],
    "group hide": ["team"],
    "group leave": ["team"],
    "group forget": ["team"],
    "schema": [],
    "members": [],
    "member set-role": ["ben", "reader"],
    "member remove": ["ben"],
    "ban add": ["ben"],
    "ban remove": ["ben"],
    "ban list": [],
    "invite create": [],
    "invite list": [],
    "invite revoke": ["inv-aaaaaaaa"],
    "join": ["ticket-aaaa"],
    "sql": ["SELECT 1"],
    "sync": [],
}
"""How each command may be used."""

NOT_UNDERSTOOD = [
    "",
    "nonsense",
    "group",
    "group nonsense",
    "member",
    "ban",
    "invite",
    "init",
    "init --user",
    "connect",
    "disconnect",
    "events --kind nonsense",
    "events --count 0",
    "events --count many",
    "group create",
    "group switch",
    "group update --avatar x --no-avatar",
    "member set-role ben",
    "member set-role ben king",
    "member set-role ben founder",
    "member remove",
    "ban add",
    "ban remove",
    "invite create --role founder",
    "invite create --expires soon",
    "invite create --expires 100000d",
    "invite create --uses 0",
    "sql x --limit 0",
    "invite create --uses few",
    "invite revoke",
    "join",
    "join x --timeout soon",
    "sync --wait --timeout -5s",
    "sync --wait --timeout 61m",
]
"""What argparse refuses by itself."""

MEANT_WRONG = {
    "sql": "give SQL, or -f FILE",
    "sql x -f y": "give SQL, or -f FILE",
    "sql -f /nowhere/at/all": "/nowhere/at/all: ",
    "sql ;;": "no SQL statement",
    "sql x --param 1 --param :a=2": "param",
    "group show one -g two": "give the group once",
    "group update one --avatar /nowhere/at/all": "/nowhere/at/all: ",
    "group update": "at least one of --name, --description, --avatar",
    "group create a\u202eb": "the name must be",
    f"group create {'x' * 129}": "the name must be",
    "group create personal": "the name must be another one",
    "group update personal --name personal": "the name must be another one",
    f"group update personal --description {'x' * 5000}": "the description must be",
    f"init --user ada --device {'x' * 65}": "the device's name must be",
    "ban add ada --reason \u202e": "the reason must be",
    "sync --device x": "go with --wait",
    "sync --timeout 5s": "go with --wait",
}
"""What is seen to be wrong later, by the command or by the daemon."""

REFUSED = {
    "init --user eve": "already_initialised",
    "connect ws://127.0.0.1:9": "unreachable",
    "connect http://127.0.0.1:9": "unreachable",
    "connect nonsense": "unreachable",
    "disconnect nobodys": "unreachable",
    "group show absent": "group_not_found",
    "group switch absent": "group_not_found",
    "group update absent --name x": "group_not_found",
    "group hide absent": "group_not_found",
    "group hide personal": "not_allowed",
    "group leave absent": "group_not_found",
    "group leave personal": "not_allowed",
    "group forget absent": "group_not_found",
    "group forget personal": "not_allowed",
    "group forget team": "not_allowed",
    "group show twin": "name_ambiguous",
    "schema -g absent": "group_not_found",
    "members -g absent": "group_not_found",
    "member set-role absent reader -g team": "user_not_found",
    "member set-role ada reader -g absent": "group_not_found",
    "member remove absent -g team": "user_not_found",
    "member remove ada -g team": "not_allowed",
    "ban add absent -g team": "user_not_found",
    "ban add ada -g team": "not_allowed",
    "ban add usr-mistyped -g team": "user_not_found",
    "ban remove ada -g team": "user_not_found",
    "ban list -g absent": "group_not_found",
    "invite create -g absent": "group_not_found",
    "invite create -g personal": "not_allowed",
    "invite list -g absent": "group_not_found",
    "invite revoke inv-nonsense -g team": "invite_invalid",
    "invite revoke inv-nonsense -g absent": "group_not_found",
    "join nonsense": "invite_invalid",
    "join grp-aaaaaaaa": "invite_invalid",
    "sql SELECT -g team": "sql_error",
    "sql SELECT_1 -g absent": "group_not_found",
    "sql ATTACH_':memory:'_AS_x -g team": "sql_refused",
    "sql CREATE_TABLE_x(y) -g team": "schema_refused",
    "sql --transaction BEGIN -g team": "sql_refused",
    "sql --transaction CREATE_TABLE_x(y) -g team": "schema_refused",
    "sync -g absent": "group_not_found",
    "sync --wait -g team --device absent": "user_not_found",
}
"""What the daemon says no to; `_` stands for a blank within an argument."""


def commands(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[str]:
    """All commands, families and their members by the words that call them."""
    families = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for family in families:
        for name, inner in family.choices.items():
            yield from commands(inner, (*path, name))
    if not families:
        yield " ".join(path)


@pytest.fixture
def peers(capsys: pytest.CaptureFixture[str]) -> RunPeers:
    """Runs `peers` in this process, which is a hundred times as fast; status, standard output, standard error."""

    async def run(socket: Path, *arguments: str) -> tuple[int, str, str]:
        def call() -> int:
            try:
                return main(["--socket", str(socket), *arguments])
            except SystemExit as ended:
                return int(ended.code or 0)

        status = await trio.to_thread.run_sync(call)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
async def ada(tmp_path: Path) -> AsyncGenerator[DaemonProcess]:
    async with open_daemon(tmp_path, "ada") as daemon:
        yield daemon


def test_every_command_stands_in_these_lists() -> None:
    known = set(commands(make_parser()))
    assert set(RIGHT) == known
    never_refused = {"status", "links", "devices", "events", "stop", "groups", "group create", "group active"}
    assert {name for name in known if any(line.startswith(name) for line in REFUSED)} == known - never_refused


async def test_without_a_daemon_every_command_ends_with_3_and_says_how_to_start_one(peers: RunPeers, tmp_path: Path) -> None:
    for command, arguments in RIGHT.items():
        status, out, err = await peers(tmp_path / "nowhere.sock", *command.split(), *arguments)
        assert (status, out) == (3, ""), command
        assert "(no_daemon)" in err and "hint: " in err and "peersd run" in err, command
    command_line = [sys.executable, "-m", "peersd.cli.main", "--data", str(tmp_path), "groups"]
    ended = subprocess.run(command_line, capture_output=True, text=True, env=plain_environment(), check=False)
    assert (ended.returncode, ended.stdout, "peersd run" in ended.stderr) == (3, "", True)


async def test_what_cannot_be_meant_ends_every_command_with_2(peers: RunPeers, ada: DaemonProcess) -> None:
    lines = [(line.split(), "peers") for line in NOT_UNDERSTOOD]
    for command, arguments in RIGHT.items():
        lines.append(([*command.split(), *arguments, "--nonsense"], f"peers {command} ["))
        lines.append(([*command.split(), *arguments, "one", "too", "many"], f"peers {command} ["))
    for arguments, usage in lines:
        status, out, err = await peers(ada.socket, *arguments)
        assert (status, out) == (2, ""), arguments
        assert err.startswith(f"usage: {usage}"), arguments
        assert "peers" in err.splitlines()[-1] and "error: " in err.splitlines()[-1], arguments
    assert (await ada.call("init", user_name="ada"))["user_id"]  # nothing of all that has made a user
    for line, said in MEANT_WRONG.items():
        status, out, err = await peers(ada.socket, *line.split())
        assert (status, out) == (2, ""), line
        assert said in err, (line, err)
    # Bytes that are no text at all cannot be given in this process.
    command_line = [
        sys.executable,
        "-m",
        "peersd.cli.main",
        "--socket",
        str(ada.socket),
        "group",
        "create",
        os.fsdecode(b"caf\xe9"),
    ]
    ended = subprocess.run(command_line, capture_output=True, text=True, env=plain_environment(), check=False)
    assert (ended.returncode, ended.stdout, "(invalid_params)" in ended.stderr) == (2, "", True)
    assert [group["kind"] for group in await ada.call("group.list")] == ["personal"]


async def test_before_there_is_a_user_every_command_and_method_says_what_to_do_first(peers: RunPeers, ada: DaemonProcess) -> None:
    for command, arguments in RIGHT.items():
        if command in ("init", "status", "stop", "events"):
            continue
        status, out, err = await peers(ada.socket, *command.split(), *arguments)
        assert (status, out) == (1, ""), command
        assert "(not_initialised)" in err and "hint: " in err and "peers init" in err, command
    for method, needed in needed_parameters().items():
        if method not in ("init", "daemon.status", "daemon.stop", "events.subscribe", "events.unsubscribe"):
            assert (await refused(ada, method, **needed)).code == "not_initialised", method


def needed_parameters() -> dict[str, dict[str, object]]:
    """For each method parameters with which it does something."""
    values: dict[str, object] = {
        "user_name": "x",
        "sql": "SELECT 1",
        "statements": [{"sql": "DELETE FROM x"}],
        "timeout_s": 5,
        "ticket": "ticket-x",
        "invite_id": "inv-x",
        "url": free_url(),
        "device": "x",
        "subscription": 1,
        "hidden": True,
        "role": "reader",
        "name": "x",
    }
    needed = {name: {key: values[key] for key in method.names if key in values} for name, method in METHODS.items()}
    for name in ("group.switch", "group.hide", "group.forget"):
        needed[name]["group"] = "x"
    for name in ("member.set_role", "member.remove", "ban.add", "ban.remove"):
        needed[name]["user"] = "x"
    return needed


async def test_what_the_daemon_refuses_ends_each_command_with_1_a_code_and_a_hint(peers: RunPeers, ada: DaemonProcess) -> None:
    await ada.call("init", user_name="ada", device_name="laptop")
    for name in ("team", "twin", "twin"):
        await ada.call("group.create", name=name)
    before = await ada.call("group.list")
    for line, code in REFUSED.items():
        arguments = [word.replace("_", " ") for word in line.split()]
        status, out, err = await peers(ada.socket, *arguments)
        told_status, told_out, told_err = await peers(ada.socket, "--json", *arguments)
        assert (out, told_out) == ("", ""), line
        told = json.loads(told_err)["error"]
        assert (status, told_status, told["code"]) == (1, 1, code), (line, told)
        first, second, *more = err.splitlines()
        assert first == f"peers: {told['message']} ({code})", line
        assert second.startswith("  hint: ") and told["message"] and told["hint"], line
        # In the words of the command line; only programs are told of methods.
        assert not [method for method in METHODS if "." in method and method in second], (line, second)
        assert more == [f"    {one['id']}  {one['name']}" for one in told.get("candidates", [])], line
    # Every method that takes a group says of one that is not here that it is not here; so it is with users.
    for method, needed in needed_parameters().items():
        takes = METHODS[method].names
        if "group" in takes:
            assert (await refused(ada, method, **{**needed, "group": "absent"})).code == "group_not_found", method
        if method not in ("init", "daemon.status", "daemon.stop", "events.subscribe", "events.unsubscribe"):
            error = await refused(ada, method, **{**needed, takes[-1]: "absent"})
            assert error.code == "user_not_found", method
    assert await ada.call("group.list") == before
