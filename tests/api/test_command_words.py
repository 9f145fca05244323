"""How the command line puts things: help, usage, errors in its own words, and what it says of answers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from peersd.api.methods import METHODS
from peersd.cli.arguments import make_parser
from peersd.cli.errors import COMMANDS, PARAMETERS
from peersd.cli.main import main
from peersd.cli.tables import shorten_ids
from peersd.errors import PeersdError
from peersd_protocol.roles import Role

if TYPE_CHECKING:
    from tests.api.conftest import PeersRun, Served


def leaf_parsers() -> list[argparse.ArgumentParser]:
    """The parsers of all commands."""
    parsers, leaves = [make_parser()], []
    while parsers:
        parser = parsers.pop()
        families = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        parsers += [inner for family in families for inner in family.choices.values()]
        if not families:
            leaves.append(parser)
    return leaves


def test_every_command_has_help_with_examples() -> None:
    leaves = 0
    for parser in leaf_parsers():
        leaves += 1
        assert "examples:\n  " in parser.format_help(), parser.prog
        assert "--json" in parser.format_help()
    assert leaves == 30


async def test_what_a_command_does_not_take_is_told_with_its_own_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, usage in ((["group", "show", "a", "b"], "peers group show"), (["status", "--nonsense"], "peers status")):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        err = capsys.readouterr().err
        assert err.startswith(f"usage: {usage} ")
        assert f"{usage}: error: unrecognized arguments: {arguments[-1]}" in err


async def test_errors_speak_of_commands_and_flags_and_only_as_json_of_methods_and_parameters(
    peers: PeersRun, served: Served
) -> None:
    hint = "See schema.show, or sql.transaction."
    served.node.refusals["group_show"] = PeersdError("sql_error", "schema.show failed", hint=hint)
    _status, _out, err = await peers("group", "show")
    assert err == "peers: schema.show failed (sql_error)\n  hint: See `peers schema`, or `peers sql --transaction`.\n"
    assert json.loads((await peers("group", "show", "--json"))[2])["error"]["hint"] == hint
    _status, _out, err = await peers("group", "create", "x" * 129)
    assert err.startswith("peers: the name must be at most 128 characters (invalid_params)\n")
    assert err.endswith("  hint: see: peers group create --help\n")


def test_the_command_line_knows_the_command_of_every_method_and_a_word_for_every_parameter() -> None:
    assert set(METHODS) - set(COMMANDS) == {"events.unsubscribe"}
    words = {" ".join(parser.prog.split()) for parser in leaf_parsers()}
    assert {command.partition(" --")[0] for command in COMMANDS.values()} <= words
    unnamed = {"include_hidden", "include_left", "hidden", "kinds", "subscription", "statements", "params", "as_user"}
    assert {name for method in METHODS.values() for name in method.names} - set(PARAMETERS) <= unnamed


async def test_what_a_name_may_have_meant_is_listed_with_the_ids_to_choose_by(peers: PeersRun, served: Served) -> None:
    candidates = [{"id": "grp-aaaa", "name": "team"}, {"id": "grp-bbbb", "name": "te\u202eam"}]
    served.node.refusals["group_show"] = PeersdError("name_ambiguous", "two", hint="Use an id.", ids=[], candidates=candidates)
    assert (await peers("group", "show", "team"))[2] == (
        "peers: two (name_ambiguous)\n  hint: Use an id.\n    grp-aaaa  team\n    grp-bbbb  te\\u202eam\n"
    )
    served.node.refusals["group_show"].extra["candidates"] = candidates * 11
    assert (await peers("group", "show", "team"))[2].endswith("\n    and 2 more\n")


def test_without_a_daemon_the_hint_starts_the_one_that_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "two words")
    assert main(["status", "--data", folder]) == 3
    assert f"hint: start one: peersd run --data '{folder}'\n" in capsys.readouterr().err
    assert main(["status", "--data", folder, "--socket", "/nowhere"]) == 3
    assert f"hint: start one: peersd run --data '{folder}' --socket /nowhere\n" in capsys.readouterr().err


async def test_a_wait_says_for_whom_and_for_whom_not(peers: PeersRun, served: Served) -> None:
    _status, out, err = await peers("sync", "--wait")
    assert (out, err) == (
        "2 devices hold everything: ben's phone\\r, dev-cccc\n",
        "not waited for, as no other device is linked there: trip\n",
    )
    answer = served.node.answers["sync_wait"]
    served.node.answers["sync_wait"] = {"devices": answer["devices"][:1], "passed_over": []}
    assert await peers("sync", "--wait") == (0, "ben's phone\\r holds everything\n", "")
    served.node.answers["sync_wait"] = {"devices": [], "passed_over": []}
    assert await peers("sync", "--wait") == (0, "there is no other device to wait for\n", "")


async def test_what_was_so_before_is_told_as_such(peers: PeersRun, served: Served) -> None:
    joined = served.node.answers["invite_accept"]
    assert await peers("join", "ticket-a") == (0, "you are a member of team already, as writer (grp-aaaa)\n", "")
    served.node.answers["invite_accept"] = {**joined, "group_id": "grp-cccc"}
    assert await peers("join", "ticket-a") == (0, "joined team as writer (grp-cccc)\n", "")


async def test_voided_entries_are_told_only_where_there_are_some(peers: PeersRun, served: Served) -> None:
    shown = served.node.answers["group_show"]
    served.node.answers["group_show"] = {**shown, "voided_entries": 0}
    assert "voided" not in (await peers("group", "show"))[1]
    served.node.answers["group_show"] = {**shown, "voided_entries": 1}
    assert "1 entry written here after your right to write had been taken" in (await peers("group", "show"))[1]


def test_ids_are_shortened_only_as_far_as_they_differ() -> None:
    first, second = "usr-aaaaaaaaaaaaaaab", "usr-aaaaaaaaaaaaaaac"
    assert shorten_ids([first, "usr-bbbbbbbbbbbbbbbb", first]) == {
        first: "usr-aaaaaaaa",
        "usr-bbbbbbbbbbbbbbbb": "usr-bbbbbbbb",
    }
    assert shorten_ids([first, second]) == {first: first, second: second}
    assert shorten_ids([]) == {}


def test_roles_and_what_in_sync_means_are_told_by_help() -> None:
    helps = {parser.prog: parser.format_help() for parser in leaf_parsers()}
    for role in Role:
        assert role is Role.NONE or f"  {role.name.lower()} " in helps["peers member set-role"]
    assert "In sync is" in helps["peers groups"]
    assert "else all your groups" in " ".join(helps["peers sync"].split())
    assert "64 KiB" in helps["peers group update"]
