from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from peersd.cli.durations import parse_duration_s
from peersd.cli.main import main
from peersd.cli.sql_text import parse_param, parse_params, split_statements
from peersd.cli.tables import escape, format_records, format_table
from peersd.errors import PeersdError

if TYPE_CHECKING:
    from tests.api.conftest import PeersRun, Served


HANG_S = 60

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
    (
        ["groups"],
        "ben\\u202e's phone\\r: equal, dev-cccc (offline): up to 1 entry behind, never seen equal",
        "sync_status",
        {"group": None},
    ),
    (["groups", "--all"], "hidden", "sync_status", {"group": None}),
    (
        ["group", "update", "team", "--name", "house", "--description", "a\nb"],
        "line\\nline",
        "group_update",
        {"group": "team", "name": "house", "description": "a\nb", "avatar": None},
    ),
    (["group", "update", "--no-avatar"], "house", "group_update", {"group": None, "name": None, "avatar": b""}),
    (["group", "update", "-g", "team", "--description", ""], "house", "group_update", {"group": "team", "description": ""}),
    (["group", "hide", "team"], "hidden", "group_hide", {"group": "team", "hidden": True}),
    (["group", "active"], "(grp-aaaa)", "group_active", {}),
    (["group", "hide", "team", "--show"], "not hidden", "group_hide", {"group": "team", "hidden": False}),
    (["group", "leave", "team"], "left team", "group_leave", {"group": "team"}),
    (["group", "leave", "-g", "team"], "left team", "group_leave", {"group": "team"}),
    (["group", "leave"], "(grp-aaaa)", "group_leave", {"group": "grp-aaaa"}),
    (["group", "forget", "team"], "forgot team", "group_forget", {"group": "team"}),
    (["schema"], "schema version 1\n\nnote\\u202e\n  index by_t (t\\x1b desc)\n", "schema_show", {"group": None}),
    (["schema", "-g", "team"], "uuid7()", "schema_show", {"group": "team"}),
    (
        ["member", "set-role", "ben", "moderator", "-g", "team"],
        "ben is now moderator",
        "member_set_role",
        {"group": "team", "member": "ben", "role": "moderator"},
    ),
    (["member", "remove", "ben"], "removed ben", "member_remove", {"group": None, "member": "ben"}),
    (
        ["ban", "add", "mal", "--reason", "why"],
        "banned mal",
        "ban_add",
        {"group": None, "member": "mal", "reason": "why"},
    ),
    (["ban", "remove", "mal", "-g", "team"], "lifted", "ban_remove", {"group": "team", "member": "mal"}),
    (["ban", "list", "-g", "team"], "mal\\u202elory", "ban_list", {"group": "team"}),
    (["devices"], "lap\\x07top", "device_list", {}),
    (["disconnect", "phone"], "disconnected from phone", "link_disconnect", {"device": "phone"}),
    (["invite", "list"], "inv-aaaa  writer  used up  0 of 1", "invite_list", {}),
    (["invite", "revoke", "inv-aaaa", "-g", "team"], "revoked", "invite_revoke", {"invite_id": "inv-aaaa", "group": "team"}),
    (
        ["join", "tick\n et", "--timeout", "5s"],
        "you are a member of team already, as writer",
        "invite_accept",
        {"ticket": "ticket", "timeout_s": 5.0},
    ),
    (["members"], "laptop (online)", "member_list", {"include_left": False}),
    (["members", "-g", "team", "--left"], "left", "member_list", {"group": "team", "include_left": True}),
    (["sql", "SELECT"], "plain", "sql_query", {"sql": "SELECT", "group": None, "timeout_s": 30.0}),
    (["connect", "ws://x"], "connected to dev-bbbb", "link_connect", {"url": "ws://x"}),
    (["sync"], "phone\\r   yes", "sync_status", {"group": None}),
    (["sync", "-g", "team"], "dev-cccc  no      no ", "sync_status", {"group": "team"}),
    (["sync", "-g", "team"], "up to 1", "sync_status", {"group": "team"}),
    (
        ["sync", "--wait", "-g", "team"],
        "2 devices hold everything: ben's phone\\r, dev-cccc\n",
        "sync_wait",
        {"group": "team", "timeout_s": 60.0, "devices": None},
    ),
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


NASTY = "é\u202e\u2066\x1b[2J\x9b31m\x07\r\n\u2028\u200b\u00ad\ufeff\u3164\x00\U000e0001"
SHOWN = "é\\u202e\\u2066\\x1b[2J\\x9b31m\\x07\\r\\n\\u2028\\u200b\\xad\\ufeff\\u3164\\x00\\U000e0001"


def poisoned(value: Any) -> Any:
    """The same, with hostile characters at the end of every text."""
    if isinstance(value, str):
        return value + NASTY
    if isinstance(value, dict):
        return {name: poisoned(inner) for name, inner in value.items()}
    return [poisoned(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("arguments", [command[0] for command in COMMANDS if command[0] != ["sql", "SELECT"]])
async def test_whatever_text_the_daemon_answers_each_command_shows_it_escaped_and_on_its_line(
    peers: PeersRun, served: Served, arguments: list[str]
) -> None:
    _status, clean, clean_note = await peers(*arguments)
    served.node.answers = poisoned(served.node.answers)
    status, out, err = await peers(*arguments)
    assert status == 0
    assert [c for c in (out + err).replace("\n", "") if escape(c) != c] == []
    assert (out.count("\n"), err.count("\n")) == (clean.count("\n"), clean_note.count("\n"))
    if out != clean:
        assert SHOWN in out


async def test_errors_of_the_daemon_are_shown_escaped_too(peers: PeersRun, served: Served) -> None:
    served.node.refusals["group_forget"] = PeersdError("group_not_found" + NASTY, "no group " + NASTY, hint="try " + NASTY)
    status, out, err = await peers("group", "forget", "x")
    assert (status, out) == (1, "")
    assert err == f"peers: no group {SHOWN} (group_not_found{SHOWN})\n  hint: try {SHOWN}\n"


async def test_json_is_json_whatever_a_name_holds(peers: PeersRun, served: Served) -> None:
    served.node.answers = poisoned(served.node.answers)
    _status, out, _err = await peers("groups", "--json")
    assert out.isascii()
    assert json.loads(out)[0]["name"].endswith(NASTY)


async def test_a_row_that_could_speak_to_a_terminal_is_escaped(peers: PeersRun) -> None:
    _status, out, err = await peers("sql", "SELECT")
    assert not {"\x1b", "\x00"} & set(out + err)
    assert "\\x1b[" in out


async def test_events_are_told_line_by_line_as_words_and_as_json(peers: PeersRun, served: Served) -> None:
    first = {"kind": "link_up", "at": "2026-01-01T00:00:00.000Z", "device_id": "dev-bbbb", "name": "phone\n\u202e"}
    served.node.happened = [first, {"kind": "rows_changed", "at": "2026-01-02T00:00:00.000Z", "group_id": "grp-aaaa"}]
    status, out, err = await peers("events", "--kind", "link_up", "--kind", "rows_changed", "--count", "2")
    assert status == 0
    assert out == (
        "2026-01-01T00:00:00.000Z  link_up  device_id=dev-bbbb  name=phone\\n\\u202e\n"
        "2026-01-02T00:00:00.000Z  rows_changed  group_id=grp-aaaa\n"
    )
    assert err == "waiting for events; interrupt to end\n"
    assert served.node.streams[-1].kinds == frozenset(("link_up", "rows_changed"))
    status, out, err = await peers("events", "--json", "--count", "1")
    assert (status, err) == (0, "")
    assert json.loads(out) == {**first, "subscription": 1}
    assert served.node.streams[-1].kinds is None


async def test_events_end_with_3_when_the_daemon_ends(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    async with trio.open_nursery() as nursery:
        statuses: list[int] = []

        async def run() -> None:
            statuses.append(await trio.to_thread.run_sync(main, ["--socket", str(served.path), "events"]))

        nursery.start_soon(run)
        with trio.fail_after(HANG_S):
            while not served.node.streams:
                await trio.sleep(0)
            assert await served.server.drain(HANG_S)
    assert statuses == [3]
    assert "closed the connection" in capsys.readouterr().err


async def test_an_avatar_comes_from_a_file_or_standard_input(
    peers: PeersRun, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\xff")
    assert (await peers("group", "update", "--avatar", str(tmp_path / "a.png")))[0] == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\x00")))
    assert (await peers("group", "update", "--avatar", "-"))[0] == 0
    assert [given["avatar"] for _name, given in served.node.calls] == [b"\x89PNG\xff", b"\x00"]


async def test_one_damaged_group_hides_no_other_in_the_list(peers: PeersRun, served: Served) -> None:
    served.node.refusals["sync_status"] = PeersdError("store_corrupt", "a file is damaged")
    status, out, err = await peers("groups")
    assert (status, err) == (0, "")
    assert "grp-aaaa" in out


async def test_many_devices_of_a_group_are_counted_in_the_list(peers: PeersRun, served: Served) -> None:
    (status,) = served.node.answers["sync_status"]
    equal, behind = status["devices"]
    served.node.answers["sync_status"] = [{**status, "devices": [equal] * 5 + [behind] * 3}]
    assert "5 of 8 equal" in (await peers("groups"))[1]


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
        ["member", "set-role", "ben", "king"],
        ["member", "set-role", "ben"],
        ["member", "remove"],
        ["group", "switch"],
        ["group", "update", "--avatar", "x", "--no-avatar"],
        ["ban", "add"],
        ["disconnect"],
        ["events", "--kind", "nonsense"],
        ["events", "--count", "0"],
        ["invite", "create", "--uses", "0"],
        ["invite", "create", "--uses", "1000001"],
        ["invite", "create", "--expires", "3651d"],
        ["sync", "--wait", "--timeout", "61m"],
        ["sql", "SELECT", "--limit", "0"],
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
    for name, length in (("empty", 0), ("large", 65537), ("huge", 1024 * 1024 + 1)):
        (tmp_path / f"{name}.png").write_bytes(bytes(length))
    for arguments, said in (
        (["sql"], "give SQL"),
        (["sql", "SELECT", "-f", "x"], "give SQL"),
        (["sql", "  -- nothing\n;"], "no SQL statement"),
        (["sql", "-f", str(tmp_path / "absent.sql")], "No such file"),
        (["sql", "-f", str(tmp_path / "bytes.sql")], "not UTF-8"),
        (["sql", "A; B", "--param", "1"], "single statement"),
        (["sql", "A", "--param", "1", "--param", ":a=1"], "do not mix"),
        (["group", "create", "a\nb"], "the name must be"),
        (["group", "create", ""], "the name must be a text that is not empty"),
        (["group", "create", "personal"], "the name must be another one"),
        (["group", "update", "--name", "personal"], "the name must be another one"),
        (["init", "--user", ""], "the user's name must be"),
        (["group", "show", ""], "the group must be"),
        (["join", " "], "there is no ticket"),
        (["sync", "--device", "x"], "--device and --timeout go with --wait"),
        (["sync", "--timeout", "5s"], "--device and --timeout go with --wait"),
        (["group", "update"], "at least one of --name"),
        (["group", "update", "a", "-g", "b", "--name", "c"], "give the group once"),
        (["group", "update", "--name", "a\u202eb"], "name must be"),
        (["group", "update", "--avatar", str(tmp_path / "absent.png")], "No such file"),
        (["group", "update", "--avatar", str(tmp_path / "empty.png")], "--no-avatar removes"),
        (["group", "update", "--avatar", str(tmp_path / "large.png")], "avatar must be at most 65536 bytes"),
        (["group", "update", "--avatar", str(tmp_path / "huge.png")], "longer than"),
        (["ban", "add", "ben", "--reason", "x" * 513], "reason must be"),
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
    assert served.node.calls[-1][1]["ticket"] == "ticket-aaaa"


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
