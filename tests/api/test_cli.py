from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from peersd.cli.arguments import make_parser
from peersd.cli.durations import parse_duration_s
from peersd.cli.main import main
from peersd.cli.sql_text import parse_param, parse_params, split_statements
from peersd.cli.tables import escape, format_records, format_table

if TYPE_CHECKING:
    from tests.api.conftest import Served


PeersRun = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def peers(served: Served, capsys: pytest.CaptureFixture[str]) -> PeersRun:
    """Runs `peers` on the fake node; status, standard output, standard error."""

    async def run(*arguments: str) -> tuple[int, str, str]:
        status = await trio.to_thread.run_sync(main, ["--socket", str(served.path), *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


COMMANDS = [
    (["status"], "laptop (dev-aaaa)", "status", {}),
    (["links"], "no links", "link_list", {}),
    (["groups"], "grp-aaaa", "group_list", {"include_hidden": False}),
    (["groups", "--all"], "grp-aaaa", "group_list", {"include_hidden": True}),
    (["init", "--user", "ada", "--device", "d"], "one two three", "init", {"user_name": "ada", "device_name": "d"}),
    (["group", "create", "team"], "grp-aaaa", "group_create", {"name": "team"}),
    (["group", "show"], "4 bytes", "group_show", {"group": None}),
    (["group", "show", "team"], "grp-aaaa", "group_show", {"group": "team"}),
    (["group", "show", "-g", "team"], "grp-aaaa", "group_show", {"group": "team"}),
    (["group", "switch", "team"], "grp-aaaa", "group_switch", {"group": "team"}),
    (
        ["invite", "create"],
        "ticket-aaaa\n",
        "invite_create",
        {"group": None, "role": "writer", "expires_in_s": 604800, "max_uses": 1},
    ),
    (
        ["invite", "create", "-g", "team", "--role", "reader", "--expires", "12h", "--uses", "5"],
        "ticket-aaaa\n",
        "invite_create",
        {"group": "team", "role": "reader", "expires_in_s": 43200, "max_uses": 5},
    ),
    (["invite", "list"], "inv-aaaa", "invite_list", {}),
    (["invite", "revoke", "inv-aaaa", "-g", "team"], "revoked", "invite_revoke", {"invite_id": "inv-aaaa", "group": "team"}),
    (["join", "tick\n et", "--timeout", "5s"], "joined team as writer", "invite_accept", {"ticket": "ticket", "timeout_s": 5.0}),
    (["members"], "laptop (online)", "member_list", {"include_left": False}),
    (["members", "-g", "team", "--left"], "left", "member_list", {"group": "team", "include_left": True}),
    (["sql", "SELECT"], "plain", "sql_query", {"sql": "SELECT", "group": None, "timeout_s": 30.0}),
    (["connect", "ws://x"], "connected to dev-bbbb", "link_connect", {"url": "ws://x"}),
    (["sync"], "no other devices", "sync_status", {"group": None}),
    (["sync", "--wait", "-g", "team"], "hold everything", "sync_wait", {"group": "team", "timeout_s": 60.0, "devices": None}),
]


@pytest.mark.parametrize(("arguments", "shown", "called", "expected"), COMMANDS)
async def test_each_command_calls_its_method_and_shows_the_answer(
    peers: PeersRun, served: Served, arguments: list[str], shown: str, called: str, expected: Any
) -> None:
    status, out, _err = await peers(*arguments)
    assert status == 0
    assert shown in out
    given = dict(served.node.calls)[called]
    assert {name: given[name] for name in expected} == expected


@pytest.mark.parametrize("arguments", [command[0] for command in COMMANDS])
async def test_each_command_gives_json_and_nothing_else_when_asked_before_or_after_it(
    peers: PeersRun, arguments: list[str]
) -> None:
    for written in (["--json", *arguments], [*arguments, "--json"]):
        status, out, err = await peers(*written)
        assert (status, err) == (0, "")
        assert out.isascii()
        assert out.count("\n") == 1
        json.loads(out)


async def test_names_that_could_speak_to_a_terminal_are_escaped_everywhere(peers: PeersRun) -> None:
    for arguments in (["groups"], ["group", "show"], ["group", "switch", "x"], ["sql", "SELECT"]):
        _status, out, err = await peers(*arguments)
        assert not {"\x1b", "\u202e", "\x00"} & set(out + err)
        assert "\\x1b[" in out


async def test_a_ticket_goes_alone_to_standard_output(peers: PeersRun) -> None:
    _status, out, err = await peers("invite", "create")
    assert out == "ticket-aaaa\n"
    assert "peers join" in err


async def test_errors_go_to_standard_error_with_code_and_hint_and_status_1(peers: PeersRun) -> None:
    status, out, err = await peers("sql", "ATTACH")
    assert (status, out) == (1, "")
    assert err == "peers: ATTACH is not admitted (sql_refused)\n  hint: each group is a file of its own\n"
    status, out, err = await peers("sql", "ATTACH", "--json")
    assert (status, out) == (1, "")
    assert json.loads(err) == {
        "error": {
            "code": "sql_refused",
            "hint": "each group is a file of its own",
            "message": "ATTACH is not admitted",
            "retry": False,
        }
    }


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["group"],
        ["init"],
        ["invite", "create", "--expires", "soon"],
        ["invite", "create", "--role", "king"],
        ["join"],
    ],
)
def test_a_command_line_that_cannot_be_parsed_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: peers" in capsys.readouterr().err


async def test_a_command_line_that_cannot_be_meant_ends_with_2(peers: PeersRun, tmp_path: Path) -> None:
    (tmp_path / "bytes.sql").write_bytes(b"\xff")
    for arguments, said in (
        (["sql"], "give SQL"),
        (["sql", "SELECT", "-f", "x"], "give SQL"),
        (["sql", "  -- nothing\n;"], "no SQL statement"),
        (["sql", "-f", str(tmp_path / "absent.sql")], "No such file"),
        (["sql", "-f", str(tmp_path / "bytes.sql")], "not UTF-8"),
        (["sql", "A; B", "--param", "1"], "single statement"),
        (["sql", "A", "--param", "1", "--param", ":a=1"], "do not mix"),
        (["sql", "SELECT", "--limit", "0"], "limit must be"),
        (["group", "create", "a\nb"], "name must be"),
        (["invite", "create", "--uses", "0"], "max_uses must be"),
    ):
        status, out, err = await peers(*arguments)
        assert (status, out) == (2, "")
        assert said in err


def test_without_a_daemon_every_command_ends_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, *_ in COMMANDS:
        assert main([*arguments, "--socket", str(tmp_path / "absent.sock")]) == 3
        assert "peersd run" in capsys.readouterr().err


async def test_sql_goes_to_execute_only_where_the_daemon_says_that_it_writes(peers: PeersRun, served: Served) -> None:
    assert (await peers("sql", "INSERT"))[2] == "1 row changed\n"
    assert (await peers("sql", "CREATE"))[2] == "schema version 3\n"
    assert (await peers("sql", "SELECT"))[2] == "only the first 2 rows; more with --limit\n"
    assert (await peers("sql", "ATTACH"))[0] == 1
    assert [(name, given["sql"]) for name, given in served.node.calls] == [
        ("sql_query", "INSERT"),
        ("sql_execute", "INSERT"),
        ("sql_query", "CREATE"),
        ("sql_execute", "CREATE"),
        ("sql_query", "SELECT"),
        ("sql_query", "ATTACH"),
    ]


async def test_rows_are_shown_as_a_table_as_csv_and_as_json(peers: PeersRun) -> None:
    _status, out, _err = await peers("sql", "SELECT")
    assert out == (
        "                  n  t                   r  b        x\n"
        "-------------------  ---------------  ----  -------  --------------------\n"
        "                  1  plain             4.5  x'00ff'  NULL\n"
        "9223372036854775807  zwei\\x00\\x1b[2J  -inf  x''      -9223372036854775808\n"
    )
    _status, out, _err = await peers("sql", "SELECT", "--csv")
    assert out == "n,t,r,b,x\n1,plain,4.5,x'00ff',\n9223372036854775807,zwei\x00\x1b[2J,-inf,x'',-9223372036854775808\n"
    _status, out, _err = await peers("sql", "SELECT", "--json")
    assert json.loads(out) == {
        "columns": ["n", "t", "r", "b", "x"],
        "rows": [
            [1, "plain", 4.5, {"$blob": "AP8="}, None],
            [2**63 - 1, "zwei\x00\x1b[2J", {"$real": "-inf"}, {"$blob": ""}, -(2**63)],
        ],
        "truncated": True,
    }


async def test_parameters_reach_the_statement_in_order_or_by_name(peers: PeersRun, served: Served) -> None:
    await peers(
        "sql", "SELECT", "--param", "42", "--param=-4.5", "--param", '"42"', "--param", "x", "--param", '{"$blob":"AA=="}'
    )
    await peers("sql", "SELECT", "--param", ":a=null", "--param", ":b=true")
    assert [given["params"] for _name, given in served.node.calls] == [[42, -4.5, "42", "x", b"\0"], {"a": None, "b": 1}]


async def test_a_file_and_standard_input_run_statement_by_statement_until_one_fails(
    peers: PeersRun, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "s.sql"
    file.write_text("INSERT -- first;\n';';\nATTACH x; INSERT 2;\n")
    status, out, err = await peers("sql", "-f", str(file))
    assert (status, out) == (1, "")
    assert "statement 2 of 3: ATTACH is not admitted (those before it are done)" in err
    assert [given["sql"] for name, given in served.node.calls if name == "sql_execute"] == ["INSERT -- first;\n';'"]
    for arguments in (["-"], ["-f", "-"]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"SELECT 1; SELECT 2")))
        status, out, _err = await peers("sql", *arguments, "--json")
        assert (status, len(json.loads(out))) == (0, 2)


async def test_a_transaction_sends_all_statements_at_once(peers: PeersRun, served: Served) -> None:
    status, out, err = await peers("sql", "--transaction", "INSERT 1; INSERT 2")
    assert (status, out, err) == (0, "", "3 rows changed by 2 statements\n")
    assert served.node.calls[0][1]["statements"] == [("INSERT 1", [()]), ("INSERT 2", [()])]


async def test_a_ticket_comes_from_standard_input_too(peers: PeersRun, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"  ticket-\n  aaaa\n")))
    assert (await peers("join", "-"))[0] == 0
    assert served.node.calls[0][1]["ticket"] == "ticket-aaaa"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7d", 604800), ("12h", 43200), ("30m", 1800), ("45s", 45), ("90", 90), ("1h30m", 5400), ("2W", 1209600), (" 1d ", 86400)],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: int) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-1d", "1.5h", "d", "1 d", "1y", "soon", "١d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("-0", 0),
        ("4.5", 4.5),
        ("1e3", 1000.0),
        ("null", None),
        ("true", True),
        ('"42"', "42"),
        ('{"$blob":"AA=="}', {"$blob": "AA=="}),
        ('{"$real":"inf"}', {"$real": "inf"}),
        ("hello", "hello"),
        ("", ""),
        ("007", "007"),
        (" 42", " 42"),
        ("NaN", "NaN"),
        ("Infinity", "Infinity"),
        ("[1]", "[1]"),
        ('{"a":1}', '{"a":1}'),
        ("None", "None"),
        (":a", ":a"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_a_parameter_is_what_it_says_as_json_and_else_text(text: str, value: Any) -> None:
    parsed = parse_param(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_named_parameters_keep_equal_signs_in_their_values() -> None:
    assert parse_params([":a=x=y", ":b_2="]) == {"a": "x=y", "b_2": ""}
    assert parse_params([]) is None
    assert parse_params(["a=1"]) == ["a=1"]


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1;;; SELECT 2 ;", ["SELECT 1", "SELECT 2"]),
        ("SELECT ';', \";\", `;`, [;]; x", ["SELECT ';', \";\", `;`, [;]", "x"]),
        ("SELECT 'it''s; one'; y", ["SELECT 'it''s; one'", "y"]),
        ("-- a; b\nSELECT 1; /* ; */ -- c", ["-- a; b\nSELECT 1"]),
        ("/* a; */ SELECT /* ;' */ 1; z", ["/* a; */ SELECT /* ;' */ 1", "z"]),
        ("SELECT 'unclosed; x", ["SELECT 'unclosed; x"]),
        ("SELECT 1 /* unclosed; x", ["SELECT 1 /* unclosed; x"]),
        (" ;\n; ", []),
        ("SELECT 1 - 2; SELECT 3 / 4", ["SELECT 1 - 2", "SELECT 3 / 4"]),
    ],
)
def test_scripts_are_cut_at_semicolons_outside_of_quotes_and_comments(text: str, statements: list[str]) -> None:
    assert split_statements(text) == statements


def test_escaping_keeps_letters_of_all_scripts_and_shows_what_has_no_shape() -> None:
    assert escape("Ünïcödé 漢字 👍") == "Ünïcödé 漢字 👍"
    assert (
        escape("a\tb\n\x1b\x7f\x9b\u200b\u202e\u2028\ufeff\ud800") == "a\\tb\\n\\x1b\\x7f\\x9b\\u200b\\u202e\\u2028\\ufeff\\ud800"
    )


def test_columns_align_with_wide_and_combining_characters() -> None:
    assert format_table(["name", "n"], [["漢字", 1], ["e\u0301", 22], ["abc", 333]]) == (
        "name    n\n----  ---\n漢字    1\ne\u0301      22\nabc   333\n"
    )
    assert format_table(["a"], []) == "a\n-\n"
    assert format_records([], {"a": "a"}, "nothing") == "nothing\n"
    assert format_records([{"a": None, "b": True}], {"a": "A", "b": "B", "c": "C"}, "") == "A  B    C\n-  ---  -\n-  yes  -\n"


def test_every_command_has_help_with_examples() -> None:
    parsers = [make_parser()]
    leaves = 0
    while parsers:
        parser = parsers.pop()
        families = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        parsers += [inner for family in families for inner in family.choices.values()]
        if not families:
            leaves += 1
            assert "examples:\n  " in parser.format_help(), parser.prog
            assert "--json" in parser.format_help()
    assert leaves == 16
