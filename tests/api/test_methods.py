from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from peersd.api.methods import METHODS, RESERVED

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
        {"user": None, "group": None, "statements": [("A", [()]), ("B", [[1]]), ("C", [[1], [2]]), ("D", [])], "timeout_s": 30.0},
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
    assert set(METHODS) == {method for method, *_ in CALLS} | {"daemon.status", "daemon.stop"}
    assert set(METHODS) & RESERVED == set()


async def test_methods_that_answer_nothing_answer_an_empty_object(served: Served) -> None:
    raw = await served.connect()
    assert (await raw.call("sync.wait", timeout_s=1))["result"] == {}
    assert (await raw.call("invite.revoke", invite_id="i"))["result"] == {}


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
