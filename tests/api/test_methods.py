from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from peersd.api.methods import METHODS, RESERVED
from peersd.api.node_api import EVENT_KINDS
from peersd.cli.arguments import make_parser
from peersd.cli.events_command import EVENT_KINDS as CLI_EVENT_KINDS
from peersd.node.events import KINDS

if TYPE_CHECKING:
    from tests.api.conftest import Served

CALLS: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("init", {"user_name": "ada"}, "init", {"user_name": "ada", "device_name": None}),
    ("group.create", {"name": "Our house"}, "group_create", {"user": None, "name": "Our house", "description": None}),
    ("group.list", {}, "group_list", {"user": None, "include_hidden": False}),
    ("group.list", {"include_hidden": True, "user": "ada"}, "group_list", {"user": "ada", "include_hidden": True}),
    ("group.show", {}, "group_show", {"user": None, "group": None}),
    ("group.switch", {"group": "team"}, "group_switch", {"user": None, "group": "team"}),
    ("group.active", {}, "group_active", {"user": None}),
    (
        "group.update",
        {"group": "team", "name": "house", "description": "a\nb", "avatar": {"$blob": "AP8="}},
        "group_update",
        {"user": None, "group": "team", "name": "house", "description": "a\nb", "avatar": b"\x00\xff"},
    ),
    (
        "group.update",
        {"description": "", "avatar": {"$blob": ""}, "name": None, "user": "ada"},
        "group_update",
        {"user": "ada", "group": None, "name": None, "description": "", "avatar": b""},
    ),
    ("group.hide", {"group": "team", "hidden": True}, "group_hide", {"user": None, "group": "team", "hidden": True}),
    ("group.hide", {"hidden": True}, "group_hide", {"user": None, "group": None, "hidden": True}),
    ("group.hide", {"group": "team", "hidden": False}, "group_hide", {"user": None, "group": "team", "hidden": False}),
    ("group.leave", {}, "group_leave", {"user": None, "group": None}),
    ("group.leave", {"group": "team", "user": "ada"}, "group_leave", {"user": "ada", "group": "team"}),
    ("group.forget", {"group": "team"}, "group_forget", {"user": None, "group": "team"}),
    ("group.forget", {}, "group_forget", {"user": None, "group": None}),
    (
        "member.set_role",
        {"group": "team", "user": "ben", "role": "moderator"},
        "member_set_role",
        {"user": None, "group": "team", "member": "ben", "role": "moderator"},
    ),
    (
        "member.set_role",
        {"user": "ben", "role": "owner", "as_user": "ada"},
        "member_set_role",
        {"user": "ada", "group": None, "member": "ben", "role": "owner"},
    ),
    ("member.remove", {"user": "ben"}, "member_remove", {"user": None, "group": None, "member": "ben"}),
    (
        "ban.add",
        {"group": "team", "user": "ben", "as_user": "ada", "reason": "why\nnot"},
        "ban_add",
        {"user": "ada", "group": "team", "member": "ben", "reason": "why\nnot"},
    ),
    ("ban.add", {"user": "ben"}, "ban_add", {"user": None, "group": None, "member": "ben", "reason": None}),
    ("ban.remove", {"user": "ben", "group": "team"}, "ban_remove", {"user": None, "group": "team", "member": "ben"}),
    ("ban.list", {"user": "ada"}, "ban_list", {"user": "ada", "group": None}),
    ("device.list", {"user": "ada"}, "device_list", {"user": "ada"}),
    ("link.disconnect", {"device": "phone"}, "link_disconnect", {"user": None, "device": "phone"}),
    ("events.subscribe", {}, "events_open", {"kinds": None}),
    (
        "events.subscribe",
        {"kinds": ["alarm", "link_up", "alarm"]},
        "events_open",
        {"kinds": frozenset(("alarm", "link_up"))},
    ),
    (
        "invite.create",
        {},
        "invite_create",
        {"user": None, "group": None, "role": "writer", "expires_in_s": 604800, "max_uses": 1},
    ),
    ("invite.list", {"group": "team"}, "invite_list", {"user": None, "group": "team"}),
    ("invite.revoke", {"invite_id": "i"}, "invite_revoke", {"user": None, "group": None, "invite_id": "i"}),
    ("invite.accept", {"ticket": " t\n"}, "invite_accept", {"user": None, "ticket": "t", "timeout_s": 30.0}),
    ("member.list", {}, "member_list", {"user": None, "group": None, "include_left": False}),
    (
        "sql.query",
        {"sql": "S"},
        "sql_query",
        {"user": None, "group": None, "sql": "S", "params": (), "limit": 10000, "timeout_s": 30.0},
    ),
    (
        "sql.query",
        {"sql": "S", "params": {"a": {"$blob": "AA=="}}, "limit": 1000000, "timeout_s": 3600},
        "sql_query",
        {"user": None, "group": None, "sql": "S", "params": {"a": b"\0"}, "limit": 1000000, "timeout_s": 3600.0},
    ),
    (
        "sql.execute",
        {"sql": "S", "params": [1]},
        "sql_execute",
        {"user": None, "group": None, "sql": "S", "params": [1], "timeout_s": 30.0},
    ),
    (
        "sql.transaction",
        {
            "statements": [
                {"sql": "A"},
                {"sql": "B", "params": [1]},
                {"sql": "C", "params_seq": [[1], [2]]},
                {"sql": "D", "params_seq": []},
            ]
        },
        "sql_transaction",
        {
            "user": None,
            "group": None,
            "statements": [("A", [()]), ("B", [[1]]), ("C", [(1,), (2,)]), ("D", [])],
            "timeout_s": 30.0,
        },
    ),
    ("schema.show", {}, "schema_show", {"user": None, "group": None}),
    ("link.list", {}, "link_list", {"user": None}),
    ("link.connect", {"url": "ws://x"}, "link_connect", {"user": None, "url": "ws://x", "device_id": None, "timeout_s": 30.0}),
    ("sync.status", {"group": None}, "sync_status", {"user": None, "group": None}),
    (
        "sync.wait",
        {"timeout_s": 0.001, "devices": ["d"]},
        "sync_wait",
        {"user": None, "group": None, "devices": ["d"], "timeout_s": 0.001},
    ),
]


@pytest.mark.parametrize(("method", "given", "called", "arguments"), CALLS)
async def test_each_method_calls_the_node_with_its_parameters_and_defaults(
    served: Served, method: str, given: Any, called: str, arguments: dict[str, Any]
) -> None:
    raw = await served.connect()
    answer = await raw.call(method, **given)
    assert "result" in answer
    assert served.node.calls == [(called, arguments)]


def test_every_method_of_this_version_is_called_above_or_is_the_daemons_own() -> None:
    assert set(METHODS) == {method for method, *_ in CALLS} | {"daemon.status", "daemon.stop", "events.unsubscribe"}
    assert set(METHODS) & RESERVED == set()


def documented_methods() -> dict[str, tuple[str, str]]:
    """Method → parameters and command, from the table of the operations page."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text("utf-8")
    section = page.split("## Methods")[1].split("## Errors")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| (?:`([^|]*)`)? *\| (?:`peers ([^|]*)`)? *\|$", section, re.MULTILINE)
    return {method: (parameters, command) for method, parameters, command in rows}


def test_the_operations_page_lists_every_method_with_its_parameters_in_their_order() -> None:
    documented = {name: tuple(re.findall(r"\w+", parameters)) for name, (parameters, _command) in documented_methods().items()}
    assert documented == {name: method.names[:-1] for name, method in METHODS.items()}
    assert {name for name, method in METHODS.items() if method.names[-1] == "as_user"} == {
        "member.set_role", "member.remove", "ban.add", "ban.remove",
    }  # fmt: skip


def test_the_commands_on_the_operations_page_exist() -> None:
    for _parameters, command in documented_methods().values():
        if command:
            with pytest.raises(SystemExit) as caught:
                make_parser().parse_args([*command.split(), "--help"])
            assert caught.value.code == 0


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("invite.revoke", {"invite_id": "i"}),
        ("group.hide", {"group": "g", "hidden": True}),
        ("group.leave", {}),
        ("group.forget", {"group": "g"}),
        ("member.set_role", {"user": "u", "role": "reader"}),
        ("member.remove", {"user": "u"}),
        ("ban.add", {"user": "u"}),
        ("ban.remove", {"user": "u"}),
        ("link.disconnect", {"device": "d"}),
    ],
)
async def test_methods_that_answer_nothing_answer_an_empty_object(served: Served, method: str, given: Any) -> None:
    assert (await (await served.connect()).call(method, **given))["result"] == {}


def test_the_kinds_of_events_are_the_nodes_and_the_command_line_offers_them_all() -> None:
    assert set(EVENT_KINDS) == KINDS
    assert CLI_EVENT_KINDS == EVENT_KINDS


def test_what_changes_something_is_finished_although_its_client_has_gone() -> None:
    assert {name for name, method in METHODS.items() if method.changes} == {
        "init", "group.create", "group.update", "group.switch", "group.hide", "group.leave", "group.forget", "member.set_role",
        "member.remove", "ban.add", "ban.remove", "invite.create", "invite.revoke", "invite.accept", "sql.execute",
        "sql.transaction",
    }  # fmt: skip


NASTY_NAMES = [
    "null",
    "undefined",
    "-1/2",
    "../../../etc/passwd",
    "'; DROP TABLE users; --",
    "<script>alert(1)</script>",
    "$(touch x) `ls`",
    "%s%n{0}",
    "Ω≈ç√∫˜µ≤≥÷",
    "田中さんにあげて下さい",
    "הָיְתָהtestالصفحات التّحول",
    "👩‍👩‍👧 🇺🇸 \u2764\ufe0f",
    "zero\u200bwidth soft\u00adhyphen",
    "Z̮̞̠͙͔ͅA̗̻L̖̠̮͔G̗O̗",
    "\\u202e \\x1b[31m",
    "Personal",
]
"""Names that have broken programs before, all of which people may use."""


async def test_no_group_gets_the_name_that_always_means_the_personal_one(served: Served) -> None:
    raw = await served.connect()
    for method in ("group.create", "group.update"):
        error = (await raw.call(method, name="personal"))["error"]
        assert (error["code"], error["data"]["parameter"]) == (-32602, "name")
        assert "always means the personal group" in error["data"]["detail"] and error["data"]["hint"]
    assert served.node.calls == []
    assert "result" in await raw.call("group.show", group="personal")


async def test_a_wait_answers_what_the_node_says_of_it(served: Served) -> None:
    raw = await served.connect()
    assert (await raw.call("sync.wait", timeout_s=1))["result"] == served.node.answers["sync_wait"]


@pytest.mark.parametrize("name", NASTY_NAMES)
async def test_any_name_that_the_protocol_admits_reaches_the_node_as_it_was(served: Served, name: str) -> None:
    raw = await served.connect()
    for method, given in (
        ("group.create", {"name": name}),
        ("group.update", {"name": name}),
        ("member.remove", {"user": name}),
        ("ban.add", {"user": name, "reason": name}),
        ("group.forget", {"group": name}),
        ("link.disconnect", {"device": name}),
    ):
        assert "result" in await raw.call(method, **given)
    values = [value for _method, arguments in served.node.calls for value in arguments.values() if value is not None]
    assert values == [name] * 7


async def test_names_are_brought_into_one_normal_form(served: Served) -> None:
    await (await served.connect()).call("group.create", name="cafe\u0301")
    assert served.node.calls[0][1]["name"] == "caf\u00e9"


@pytest.mark.parametrize("name", ["\ufeff", "a\u2028b", "a\u2066b", "\x00", "a\x85", "\u3000a", "a\t", "a" * 129, "\ud800"])
async def test_a_name_that_the_protocol_does_not_admit_never_reaches_the_node(served: Served, name: str) -> None:
    raw = await served.connect()
    for method, parameter in (("init", "user_name"), ("group.create", "name"), ("group.update", "name")):
        error = (await raw.call(method, **{parameter: name}))["error"]
        assert (error["code"], error["data"]["parameter"]) == (-32602, parameter)
    assert served.node.calls == []


async def test_a_name_that_no_device_may_have_never_reaches_the_node(served: Served) -> None:
    raw = await served.connect()
    for name in ("a" * 65, "\ufb2c" * 22, "a\u202eb"):  # the second has 66 characters in its normal form
        error = (await raw.call("init", user_name="ada", device_name=name))["error"]
        assert (error["code"], error["data"]["parameter"]) == (-32602, "device_name")
    assert served.node.calls == []
    assert "result" in await raw.call("init", user_name="a" * 128, device_name="a" * 64)


async def test_status_adds_version_process_and_uptime(served: Served) -> None:
    raw = await served.connect()
    answer = (await raw.call("daemon.status"))["result"]
    assert set(answer) == {
        "version", "pid", "device_id", "device_name", "users", "listen", "advertise", "links", "groups", "uptime_s",
    }  # fmt: skip


async def test_stop_answers_and_asks_the_daemon_to_stop(served: Served) -> None:
    raw = await served.connect()
    assert (await raw.call("daemon.stop"))["result"] == {}
    assert served.stopped.is_set()


async def test_positions_count_in_the_listed_order(served: Served) -> None:
    raw = await served.connect()
    await raw.send({"jsonrpc": "2.0", "method": "sql.query", "params": ["team", "SELECT ?", [7], 5], "id": 1})
    await raw.receive()
    assert served.node.calls[0][1] == {
        "user": None,
        "group": "team",
        "sql": "SELECT ?",
        "params": [7],
        "limit": 5,
        "timeout_s": 30.0,
    }
    await raw.send({"jsonrpc": "2.0", "method": "group.active", "params": [None, 1], "id": 1})
    assert (await raw.receive())["error"]["code"] == -32602


@pytest.mark.parametrize(
    ("method", "given", "parameter", "said"),
    [
        ("sql.query", {"sql": "S", "grup": 1}, "grup", 'unknown parameter "grup"'),
        ("daemon.status", {"x": 1}, "x", "unknown parameter"),
        ("sql.query", {}, "sql", "missing"),
        ("sql.query", {"sql": None}, "sql", "one SQL statement"),
        ("sql.query", {"sql": " \n"}, "sql", "one SQL statement"),
        ("sql.query", {"sql": ["S"]}, "sql", "one SQL statement"),
        ("sql.query", {"sql": "\ud800"}, "sql", "UTF-8"),
        ("sql.query", {"sql": "S", "params": 1}, "params", "a list for ?"),
        ("sql.query", {"sql": "S", "params": [2**63]}, "params", "value 1: an integer does not fit"),
        ("sql.query", {"sql": "S", "limit": 0}, "limit", "from 1 to 1000000"),
        ("sql.query", {"sql": "S", "limit": 1_000_001}, "limit", "from 1 to 1000000"),
        ("sql.query", {"sql": "S", "limit": 5.0}, "limit", "whole number"),
        ("sql.query", {"sql": "S", "limit": True}, "limit", "whole number"),
        ("sql.query", {"sql": "S", "timeout_s": 0}, "timeout_s", "from 0.001 to 3600"),
        ("sql.query", {"sql": "S", "timeout_s": 3600.1}, "timeout_s", "from 0.001 to 3600"),
        ("sql.query", {"sql": "S", "timeout_s": "1"}, "timeout_s", "from 0.001 to 3600"),
        ("sync.wait", {}, "timeout_s", "missing"),
        ("sync.wait", {"timeout_s": None}, "timeout_s", "from 0.001"),
        ("sync.wait", {"timeout_s": 1, "devices": []}, "devices", "not empty"),
        ("sync.wait", {"timeout_s": 1, "devices": [1]}, "devices", "list of texts"),
        ("group.create", {"name": ""}, "name", "not empty"),
        ("group.create", {"name": "a\nb"}, "name", "one line"),
        ("group.create", {"name": " a"}, "name", "blanks"),
        ("group.create", {"name": "a\u202eb"}, "name", "control"),
        ("group.create", {"name": "a" * 129}, "name", "at most 128"),
        ("group.create", {"name": 5}, "name", "a text"),
        ("group.create", {"name": "a", "description": "x" * 4097}, "description", "at most 4096"),
        ("group.create", {"name": "a", "description": "a\u202eb"}, "description", "control or direction"),
        ("group.create", {"name": "a", "description": "\x1b"}, "description", "control or direction"),
        ("group.create", {"name": "a", "description": "é" * 2049}, "description", "at most 4096 bytes"),
        ("group.update", {"name": ""}, "name", "not empty"),
        ("group.update", {"name": "a\nb"}, "name", "one line"),
        ("group.update", {"descripton": "a"}, "descripton", "unknown parameter"),
        ("group.update", {"description": 5}, "description", "a text"),
        ("group.update", {"avatar": "AA=="}, "avatar", "$blob"),
        ("group.update", {"avatar": {"$blob": "A"}}, "avatar", "base64"),
        ("group.update", {"avatar": [1]}, "avatar", "$blob"),
        ("group.update", {"avatar": {"$blob": "AAAA" * 21846}}, "avatar", "at most 65536 bytes"),
        ("group.hide", {"group": "g"}, "hidden", "missing"),
        ("group.hide", {"group": "g", "hidden": None}, "hidden", "true or false"),
        ("group.hide", {"group": "g", "hidden": "yes"}, "hidden", "true or false"),
        ("group.leave", {"group": 1}, "group", "a text"),
        ("group.forget", {"group": ""}, "group", "not empty"),
        ("member.set_role", {"role": "reader"}, "user", "missing"),
        ("member.set_role", {"user": "u"}, "role", "missing"),
        ("member.set_role", {"user": "u", "role": None}, "role", "one of owner, admin, moderator, writer, reader"),
        ("member.set_role", {"user": "u", "role": "king"}, "role", "one of owner, admin, moderator, writer, reader"),
        ("member.set_role", {"user": "u", "role": "founder"}, "role", "one of owner, admin, moderator, writer, reader"),
        ("member.set_role", {"user": "u", "role": "none"}, "role", "one of owner, admin, moderator, writer, reader"),
        ("member.set_role", {"user": "u", "role": ["reader"]}, "role", "one of owner, admin, moderator, writer, reader"),
        ("member.remove", {}, "user", "missing"),
        ("member.remove", {"member": "u"}, "member", "unknown parameter"),
        ("ban.add", {"user": None}, "user", "a text"),
        ("ban.add", {"user": "u", "reason": "x" * 513}, "reason", "at most 512 bytes"),
        ("ban.add", {"user": "u", "reason": "\x1b[31m"}, "reason", "control"),
        ("ban.add", {"user": "u", "reason": 1}, "reason", "a text"),
        ("ban.remove", {}, "user", "missing"),
        ("ban.list", {"as_user": "ada"}, "as_user", "unknown parameter"),
        ("device.list", {"device": "d"}, "device", "unknown parameter"),
        ("link.disconnect", {}, "device", "missing"),
        ("link.disconnect", {"device": 5}, "device", "a text"),
        ("events.subscribe", {"kinds": []}, "kinds", "not empty, of link_up, link_down"),
        ("events.subscribe", {"kinds": "alarm"}, "kinds", "a list"),
        ("events.subscribe", {"kinds": ["alarm", "alarms"]}, "kinds", "one of link_up, link_down, group_joined"),
        ("events.subscribe", {"kinds": [{}]}, "kinds", "one of link_up"),
        ("events.unsubscribe", {}, "subscription", "missing"),
        ("events.unsubscribe", {"subscription": 1}, "subscription", "no subscription 1"),
        ("events.unsubscribe", {"subscription": "1"}, "subscription", "whole number"),
        ("group.switch", {}, "group", "missing"),
        ("group.list", {"include_hidden": 1}, "include_hidden", "true or false"),
        ("invite.create", {"role": "founder"}, "role", "one of owner, admin"),
        ("invite.create", {"expires_in_s": 0}, "expires_in_s", "from 1 to"),
        ("invite.create", {"max_uses": 0}, "max_uses", "from 1 to"),
        ("invite.accept", {"ticket": "x" * 16385}, "ticket", "at most"),
        ("sql.transaction", {"statements": []}, "statements", "1 to 10000"),
        ("sql.transaction", {"statements": {}}, "statements", "a list"),
        ("sql.transaction", {"statements": ["S"]}, "statements", "statements[0] must be an object"),
        ("sql.transaction", {"statements": [{"sql": "S", "parms": []}]}, "statements", 'unknown key "parms"'),
        ("sql.transaction", {"statements": [{"sql": "S"}, {}]}, "statements[1].sql", "one SQL statement"),
        ("sql.transaction", {"statements": [{"sql": "S", "params": [], "params_seq": []}]}, "statements", "both"),
        ("sql.transaction", {"statements": [{"sql": "S", "params_seq": 1}]}, "statements", "list of lists"),
        (
            "sql.transaction",
            {"statements": [{"sql": "S", "params_seq": [[1], [{}]]}]},
            "statements[0].params_seq[1]",
            "value 1: an object",
        ),
    ],
)
async def test_each_wrong_parameter_is_refused_by_name_and_never_reaches_the_node(
    served: Served, method: str, given: Any, parameter: str, said: str
) -> None:
    raw = await served.connect()
    error = (await raw.call(method, **given))["error"]
    assert error["code"] == -32602
    assert error["data"]["code"] == "invalid_params"
    assert error["data"]["parameter"] == parameter
    assert said in error["message"]
    assert served.node.calls == []


async def test_an_update_of_nothing_is_refused(served: Served) -> None:
    error = (await (await served.connect()).call("group.update", group="team", name=None))["error"]
    assert (error["code"], error["data"]["code"]) == (-32602, "invalid_params")
    assert "at least one of name, description and avatar" in error["message"]
    assert served.node.calls == []


async def test_a_misspelt_word_of_a_list_gets_the_likely_one_as_a_hint(served: Served) -> None:
    raw = await served.connect()
    error = (await raw.call("member.set_role", user="ben", role="moderater"))["error"]
    assert error["data"]["hint"].startswith('did you mean "moderator"? member.set_role takes group, user, role, as_user')
    error = (await raw.call("events.subscribe", kinds=["row_changed"]))["error"]
    assert error["data"]["hint"].startswith('did you mean "rows_changed"? ')


async def test_a_misspelt_parameter_or_method_gets_the_likely_one_as_a_hint(served: Served) -> None:
    raw = await served.connect()
    assert 'did you mean "group"?' in (await raw.call("sql.query", sql="S", grup="x"))["error"]["data"]["hint"]
    error = (await raw.call("sql.qurey"))["error"]
    assert (error["code"], error["message"]) == (-32601, "Method not found")
    assert 'did you mean "sql.query"?' in error["data"]["hint"]


@pytest.mark.parametrize("method", sorted(RESERVED))
async def test_a_reserved_method_says_that_it_is_not_in_this_version(served: Served, method: str) -> None:
    error = (await (await served.connect()).call(method))["error"]
    assert (error["code"], error["data"]["hint"]) == (-32601, "not in this version")


async def test_an_error_of_the_node_carries_its_code_hint_and_further_keys(served: Served) -> None:
    error = (await (await served.connect()).call("sql.query", sql="INSERT"))["error"]
    assert error == {
        "code": -32000,
        "message": "a query cannot write",
        "data": {"code": "sql_refused", "hint": "use sql.execute", "kind": "write", "retry": False},
    }


async def test_rows_travel_with_blobs_infinities_and_whole_integers(served: Served) -> None:
    raw = await served.connect()
    rows = (await raw.call("sql.query", sql="SELECT"))["result"]["rows"]
    assert rows == [
        [1, "plain", 4.5, {"$blob": "AP8="}, None],
        [2**63 - 1, "zwei\x00\x1b[2J", {"$real": "-inf"}, {"$blob": ""}, -(2**63)],
    ]
