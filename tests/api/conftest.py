"""Fixtures of the API's tests: a node that answers from a table, a server over it, a raw connection to that."""

from __future__ import annotations

import json
import math
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from peersd.api.jsonrpc import method_not_found
from peersd.api.line_reader import LineReader
from peersd.api.methods import Api, Methods
from peersd.api.server import ApiServer, open_api_server
from peersd.api.socket_path import listen_on
from peersd.cli.main import main
from peersd.errors import PeersdError

PeersRun = Callable[..., Awaitable[tuple[int, str, str]]]

GROUP: dict[str, Any] = {
    "group_id": "grp-aaaa",
    "name": "team\x1b[31m\u202e",
    "kind": "group",
    "role": "founder",
    "members": 1,
    "active": True,
    "hidden": False,
    "state": "ok",
    "in_sync": True,
    "path": "/nowhere/group-aaaa.db",
}

ROWS: list[tuple[Any, ...]] = [
    (1, "plain", 4.5, b"\x00\xff", None),
    (2**63 - 1, "zwei\x00\x1b[2J", -math.inf, b"", -(2**63)),
]

ANSWERS: dict[str, Any] = {
    "status": {
        "device_id": "dev-aaaa",
        "device_name": "laptop",
        "users": [{"user_id": "usr-aaaa", "name": "ada"}],
        "listen": ["ws://127.0.0.1:1"],
        "advertise": [],
        "links": 0,
        "groups": 2,
    },
    "init": {
        "user_id": "usr-aaaa",
        "device_id": "dev-aaaa",
        "personal_group_id": "grp-bbbb",
        "recovery_phrase": "one two three",
    },
    "group_create": {"group_id": "grp-aaaa"},
    "group_list": [GROUP],
    "group_show": {
        **GROUP,
        "description": "",
        "avatar": b"\x89PNG",
        "created_at": "2026-01-01T00:00:00.000Z",
        "schema_version": 1,
    },
    "group_update": {**GROUP, "name": "house", "description": "line\nline", "avatar": None},
    "group_hide": None,
    "group_leave": None,
    "group_forget": None,
    "group_switch": GROUP,
    "group_active": GROUP,
    "invite_create": {"invite_id": "inv-aaaa", "ticket": "ticket-aaaa", "expires_at": "2026-01-08T00:00:00.000Z"},
    "invite_list": [
        {
            "invite_id": "inv-aaaa",
            "role": "writer",
            "expires_at": "2026-01-08T00:00:00.000Z",
            "max_uses": 1,
            "uses": 0,
            "revoked": False,
            "created_by": "usr-aaaa",
            "created_by_name": "ada\x1b",
            "state": "used_up",
        }
    ],
    "invite_revoke": None,
    "invite_accept": {"group_id": "grp-aaaa", "name": "team", "role": "writer"},
    "member_list": [
        {
            "user_id": "usr-aaaa",
            "name": "ada",
            "role": "founder",
            "joined_at": "2026-01-01T00:00:00.000Z",
            "devices": [{"device_id": "dev-aaaa", "name": "laptop", "online": True, "last_seen": None}],
        }
    ],
    "member_set_role": None,
    "member_remove": None,
    "ban_add": None,
    "ban_remove": None,
    "ban_list": [
        {
            "user_id": "usr-cccc",
            "name": "mal\u202elory",
            "reason": "line\n\x1b[31mline",
            "banned_by": "usr-aaaa",
            "banned_at": "2026-01-02T00:00:00.000Z",
        }
    ],
    "device_list": [
        {
            "device_id": "dev-aaaa",
            "name": "lap\x07top",
            "this": True,
            "online": True,
            "last_seen": None,
            "added_at": "2026-01-01T00:00:00.000Z",
        }
    ],
    "link_disconnect": None,
    "sql_execute": {"changes": 1, "columns": [], "rows": [], "last_entry": {"writer": "w", "seq": 1, "hlc": 2**62 + 1}},
    "sql_transaction": {"changes": [1, 2], "last_entry": None},
    "schema_show": {
        "schema_version": 1,
        "tables": [
            {
                "name": "note\u202e",
                "columns": [
                    {"name": "id", "type": "TEXT", "key": 1, "default": "uuid7()", "not_null": True},
                    {"name": "t\x1b", "type": "", "key": 0, "default": None, "not_null": False},
                ],
                "indexes": [{"name": "by_t", "columns": [{"name": "t\x1b", "desc": True}]}],
                "sql": "CREATE TABLE …",
            }
        ],
    },
    "link_list": [],
    "link_connect": {"device_id": "dev-bbbb"},
    "sync_status": [
        {
            "group_id": "grp-aaaa",
            "name": "team\x1b[31m\u202e",
            "devices": [
                {
                    "device_id": "dev-bbbb",
                    "name": "phone\r",
                    "user_names": ["ben\u202e"],
                    "online": True,
                    "equal": True,
                    "last_equal_at": "2026-01-03T00:00:00.000Z",
                    "lag_entries": 0,
                    "lag_bytes": 0,
                },
                {
                    "device_id": "dev-cccc",
                    "name": "",
                    "user_names": [],
                    "online": False,
                    "equal": False,
                    "last_equal_at": None,
                    "lag_entries": 1,
                    "lag_bytes": 77,
                },
            ],
        }
    ],
    "sync_wait": {
        "devices": [
            {"device_id": "dev-bbbb", "name": "phone\r", "user_names": ["ben"], "group_ids": ["grp-aaaa"]},
            {"device_id": "dev-cccc", "name": "", "user_names": [], "group_ids": ["grp-aaaa"]},
        ],
        "passed_over": [{"group_id": "grp-bbbb", "name": "trip"}],
    },
}


class FakeEvents:
    """Events as a node gives them; `put` makes one happen."""

    def __init__(self, kinds: frozenset[str] | None, happened: list[dict[str, Any]]) -> None:
        self.kinds = kinds
        self.taken = 0
        self.closed = False
        self._waiting = list(happened)
        self._changed = trio.lowlevel.ParkingLot()

    def put(self, kind: str, **fields: Any) -> None:
        self._waiting.append({"kind": kind, "at": "2026-01-01T00:00:00.000Z", **fields})
        self._changed.unpark_all()

    async def receive(self) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            await self._changed.park()
        self.taken += 1
        return self._waiting.pop(0)

    def close(self) -> None:
        self.closed = True


class FakeNode:
    """Each method records (name, keyword arguments) in `calls`; subscriptions to its events begin with `happened`."""

    def __init__(self) -> None:
        self.answers = dict(ANSWERS)
        self.refusals: dict[str, PeersdError] = {}
        self.streams: list[FakeEvents] = []
        self.happened: list[dict[str, Any]] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.gate = trio.Event()
        self.finished: list[str] = []
        self.links: list[tuple[int | None, tuple[bytes, ...]]] = []

    def set_links(self, links_max: int | None, deny: tuple[bytes, ...]) -> None:
        self.links.append((links_max, deny))

    def __getattr__(self, name: str) -> Any:
        if name not in ANSWERS:
            raise AttributeError(name)

        async def answer(**arguments: Any) -> Any:
            self.calls.append((name, arguments))
            await trio.lowlevel.checkpoint()
            if name in self.refusals:
                raise self.refusals[name]
            return self.answers[name]

        return answer

    def cut_off(self) -> None:
        self.finished.append("cut_off")

    async def events_open(self, **arguments: Any) -> FakeEvents:
        self.calls.append(("events_open", arguments))
        await trio.lowlevel.checkpoint()
        self.streams.append(FakeEvents(arguments["kinds"], self.happened))
        return self.streams[-1]

    async def sql_query(self, **arguments: Any) -> Any:
        self.calls.append(("sql_query", arguments))
        sql = arguments["sql"]
        if sql == "wait":
            await self.gate.wait()
            self.finished.append(sql)
        if sql == "bug":
            raise KeyError("a fault of ours")
        if sql.startswith("INSERT"):
            raise PeersdError("sql_refused", "a query cannot write", hint="use sql.execute", kind="write")
        if sql.startswith("CREATE"):
            raise PeersdError("sql_refused", "a query cannot change the schema", hint="use sql.execute", kind="schema")
        if sql.startswith("ATTACH"):
            raise PeersdError("sql_refused", "ATTACH is not admitted", hint="each group is a file of its own")
        if sql.startswith("long "):
            return {"columns": ["x"], "rows": [["y" * int(sql[5:])]], "truncated": False}
        if sql == "echo":
            return {"columns": ["v"], "rows": [[value] for value in arguments["params"]], "truncated": False}
        return {"columns": ["n", "t", "r", "b", "x"], "rows": ROWS, "truncated": True}

    async def sql_execute(self, **arguments: Any) -> Any:
        self.calls.append(("sql_execute", arguments))
        if arguments["sql"] == "wait":
            await self.gate.wait()
            self.finished.append("execute")
        if arguments["sql"] == "commit":  # which no cancelling ends
            with trio.CancelScope(shield=True):
                await self.gate.wait()
        if arguments["sql"].startswith("CREATE"):
            return {"changes": 0, "columns": [], "rows": [], "last_entry": None, "schema_version": 3}
        return ANSWERS["sql_execute"]


class Served:
    """A server over a fake node."""

    def __init__(self, path: Path, node: Any, server: ApiServer, stopped: trio.Event) -> None:
        self.path = path
        self.node = node
        self.server = server
        self.stopped = stopped

    async def connect(self) -> Raw:
        return Raw(await trio.open_unix_socket(str(self.path)))


class Raw:
    """A connection that sends lines as they are given."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._reader = LineReader(stream, 64 * 1024 * 1024)

    async def send(self, *requests: object) -> None:
        lines = [request if isinstance(request, bytes) else json.dumps(request).encode() for request in requests]
        await self.stream.send_all(b"".join(line + b"\n" for line in lines))

    async def receive(self) -> Any:
        with trio.fail_after(60):
            line = await self._reader.next_line()
        return None if line is None else json.loads(line)

    async def call(self, method: str, **params: object) -> Any:
        await self.send(request(method, 1, **params))
        return await self.receive()


def request(method: str, request_id: object, **params: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params, "id": request_id}


class Examples:
    """The methods of the specification's examples."""

    def changes(self, method: str) -> bool:
        return False

    async def call(self, method: str, params: Any, caller: Any) -> object:
        if method == "subtract":
            return params["minuend"] - params["subtrahend"] if isinstance(params, dict) else params[0] - params[1]
        if method == "sum":
            return sum(params)
        if method == "get_data":
            return ["hello", 5]
        raise method_not_found(method, "")


@pytest.fixture
def fake_node() -> Any:
    return FakeNode()


@pytest.fixture
async def served(tmp_path: Path, fake_node: Any) -> AsyncGenerator[Served]:
    stopped = trio.Event()
    path = tmp_path / "run" / "peersd.sock"
    async with open_api_server(listen_on(path), Methods(Api(fake_node, stopped.set, 0.0))) as server:
        yield Served(path, fake_node, server, stopped)


@pytest.fixture
def peers(served: Served, capsys: pytest.CaptureFixture[str]) -> PeersRun:
    """Runs `peers` on the fake node; status, standard output, standard error."""

    async def run(*arguments: str) -> tuple[int, str, str]:
        status = await trio.to_thread.run_sync(main, ["--socket", str(served.path), *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
async def talk(tmp_path: Path) -> AsyncGenerator[Callable[[str], Awaitable[Any]]]:
    """Sends one line to the examples' methods; its answer, or None when there is none."""
    path = tmp_path / "peersd.sock"
    async with open_api_server(listen_on(path), Examples()):

        async def exchange(line: str) -> Any:
            raw = Raw(await trio.open_unix_socket(str(path)))
            await raw.send(line.encode())
            # With its sending half closed the connection ends after the answer, which shows the absence of one.
            await raw.stream.send_eof()
            answer = await raw.receive()
            assert answer is None or await raw.receive() is None
            return answer

        yield exchange


@pytest.fixture
def raw_connection() -> Callable[[Path], Awaitable[Raw]]:
    async def connect(path: Path) -> Raw:
        return Raw(await trio.open_unix_socket(str(path)))

    return connect


@pytest.fixture
def open_fake_node(fake_node: Any) -> Any:
    @asynccontextmanager
    async def opened(
        data_dir: Path,
        *,
        listen: tuple[str, ...],
        advertise: tuple[str, ...],
        links_max: int | None,
        links_deny: tuple[bytes, ...],
    ) -> AsyncGenerator[FakeNode]:
        fake_node.set_links(links_max, links_deny)
        yield fake_node

    return opened


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PEERSD_DATA", "PEERSD_SOCKET", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "NOTIFY_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    os.umask(0o077)
