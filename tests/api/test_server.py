from __future__ import annotations

import json
import os
import socket
import stat
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from peersd.api import connection as connection_module
from peersd.api.connection import IN_FLIGHT_MAX
from peersd.api.jsonrpc import LINE_BYTES_MAX
from peersd.api.line_reader import LineReader, LineTooLong
from peersd.api.methods import Api, Methods
from peersd.api.outbox import OUTBOX_BYTES_MAX, Outbox
from peersd.api.server import CONNECTIONS_MAX, open_api_server
from peersd.api.socket_path import PATH_BYTES_MAX, caller_uid, listen_on
from peersd.errors import PeersdError
from tests.turns import counted_turns

if TYPE_CHECKING:
    from tests.api.conftest import Raw, Served

HANG_S = 60


def query(request_id: Any, sql: str, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "sql.query", "params": {"sql": sql, **more}, "id": request_id}


def execute(request_id: Any, sql: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "sql.execute", "params": {"sql": sql}, "id": request_id}


def test_the_socket_is_0600_in_a_0700_folder(tmp_path: Path) -> None:
    listening = listen_on(tmp_path / "a" / "b" / "s.sock")
    assert stat.S_IMODE(listening.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(listening.path.parent.stat().st_mode) == 0o700
    listening.close()
    assert not listening.path.exists()


def test_a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    living = listen_on(path)
    with pytest.raises(PeersdError) as caught:
        listen_on(path)
    assert caught.value.code == "socket_in_use"
    assert caught.value.hint
    living.close()


def test_a_living_daemon_with_a_full_backlog_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    living = socket.socket(socket.AF_UNIX)
    living.bind(str(path))
    living.listen(0)
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for one in waiting:
        one.setblocking(False)
        one.connect_ex(str(path))
    with pytest.raises(PeersdError) as caught:
        listen_on(path)
    assert caught.value.code == "socket_in_use"
    for one in [*waiting, living]:
        one.close()


def test_a_file_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    path.write_text("precious")
    with pytest.raises(PeersdError, match="another kind of file"):
        listen_on(path)
    assert path.read_text() == "precious"


def test_a_path_too_long_for_the_system_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / ("x" * PATH_BYTES_MAX)
    with pytest.raises(PeersdError, match="longer than") as caught:
        listen_on(path)
    assert "--socket" in caught.value.hint


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(PeersdError, match="others can write"):
        listen_on(folder / "s.sock")
    folder.chmod(0o1777)
    listen_on(folder / "s.sock").close()


def test_closing_leaves_a_successors_socket_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    first = listen_on(path)
    path.unlink()
    second = listen_on(path)
    first.close()
    assert path.exists()
    second.close()


async def test_the_callers_uid_comes_from_the_kernel() -> None:
    ours, theirs = trio.socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    assert caller_uid(ours) == os.geteuid()
    ours.close()
    theirs.close()


async def test_a_caller_of_another_user_is_told_so_and_cut_off(
    tmp_path: Path, fake_node: Any, raw_connection: Callable[[Path], Awaitable[Raw]], caplog: pytest.LogCaptureFixture
) -> None:
    listening = listen_on(tmp_path / "s.sock")
    async with open_api_server(listening, Methods(Api(fake_node, lambda: None, 0.0)), uid=os.geteuid() + 1):
        raw = await raw_connection(listening.path)
        answer = await raw.receive()
        assert answer["error"]["data"]["code"] == "not_allowed"
        assert await raw.receive() is None
    assert fake_node.calls == []
    assert "caller refused" in caplog.text


async def test_answers_carry_their_requests_ids_in_whatever_order_they_come(served: Served) -> None:
    raw = await served.connect()
    await raw.send(query(1, "wait"), query("two", "SELECT"), query(3.5, "SELECT"))
    assert [(await raw.receive())["id"] for _ in range(2)] == ["two", 3.5]
    served.node.gate.set()
    assert (await raw.receive())["id"] == 1


async def test_pipelined_requests_begin_in_the_order_of_their_lines(served: Served) -> None:
    raw = await served.connect()
    await raw.send(*[execute(i, f"INSERT {i}") for i in range(300)])
    for _ in range(300):
        await raw.receive()
    assert [arguments["sql"] for _name, arguments in served.node.calls] == [f"INSERT {i}" for i in range(300)]


async def test_lines_beyond_the_bound_in_flight_wait_and_are_then_answered(served: Served) -> None:
    raw = await served.connect()
    await raw.send(*[query(i, "wait") for i in range(IN_FLIGHT_MAX + 6)])
    other = await served.connect()
    await other.call("sql.query", sql="SELECT")
    with trio.fail_after(HANG_S):
        while len(served.node.calls) < IN_FLIGHT_MAX + 1:
            await trio.sleep(0)
    # The other connection went on past the waiting one, which was let no further.
    await other.call("sql.query", sql="SELECT")
    assert len(served.node.calls) == IN_FLIGHT_MAX + 2
    served.node.gate.set()
    assert sorted([(await raw.receive())["id"] for _ in range(IN_FLIGHT_MAX + 6)]) == list(range(IN_FLIGHT_MAX + 6))


async def test_a_connection_at_rest_has_few_tasks_whatever_was_under_way(served: Served) -> None:
    raw = await served.connect()
    await raw.call("sql.query", sql="SELECT")
    at_rest = trio.lowlevel.current_statistics().tasks_living
    await raw.send(*[query(i, "wait") for i in range(IN_FLIGHT_MAX)])
    with trio.fail_after(HANG_S):
        while len(served.node.calls) < IN_FLIGHT_MAX + 1:
            await trio.sleep(0)
        assert trio.lowlevel.current_statistics().tasks_living >= at_rest + IN_FLIGHT_MAX - 2
        served.node.gate.set()
        for _ in range(IN_FLIGHT_MAX):
            await raw.receive()
        while trio.lowlevel.current_statistics().tasks_living > at_rest + 1:
            await trio.sleep(0)
    assert "result" in await raw.call("sql.query", sql="SELECT")


async def test_a_batch_is_answered_in_one_line_and_in_its_order(served: Served) -> None:
    raw = await served.connect()
    await raw.send(
        [execute(1, "CREATE"), execute(2, "INSERT"), {"jsonrpc": "2.0", "method": "daemon.status"}, 7, query(3, "bug")]
    )
    answer = await raw.receive()
    assert [(one["id"], "error" in one) for one in answer] == [(1, False), (2, False), (None, True), (3, True)]


async def test_a_notification_runs_and_is_not_answered(served: Served) -> None:
    raw = await served.connect()
    await raw.send({"jsonrpc": "2.0", "method": "sql.execute", "params": {"sql": "INSERT"}}, query(9, "SELECT"))
    assert (await raw.receive())["id"] == 9
    assert [name for name, _ in served.node.calls] == ["sql_execute", "sql_query"]


async def test_a_fault_of_ours_is_answered_logged_and_stops_nothing_else(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    raw = await served.connect()
    answer = await raw.call("sql.query", sql="bug")
    assert answer["error"]["code"] == -32603
    assert "a fault of ours" not in json.dumps(answer)
    assert "KeyError" in caplog.text
    assert "result" in await raw.call("sql.query", sql="SELECT")


async def test_a_line_of_16_mib_is_taken_and_one_byte_more_is_dropped_and_told(served: Served) -> None:
    raw = await served.connect()
    room = LINE_BYTES_MAX - len(json.dumps(query(1, "SELECT ")))
    await raw.send(query(1, "SELECT " + "x" * room))
    assert (await raw.receive())["id"] == 1
    await raw.send(query(2, "SELECT " + "x" * (room + 1)), query(3, "SELECT"))
    refused, answered = await raw.receive(), await raw.receive()
    assert (refused["id"], refused["error"]["code"], refused["error"]["data"]["code"]) == (None, -32600, "too_large")
    assert answered["id"] == 3


class Endless(trio.abc.ReceiveStream):
    """100 MiB without a newline, and then one more line."""

    def __init__(self) -> None:
        self.chunks = [b"x" * 262_144] * 400 + [b"x\nnext\n"]

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return self.chunks.pop(0) if self.chunks else b""

    async def aclose(self) -> None:
        pass


async def test_a_line_without_end_is_dropped_as_it_comes_and_not_kept() -> None:
    reader = LineReader(Endless(), 1000)
    tracemalloc.start()
    with pytest.raises(LineTooLong):
        await reader.next_line()
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2 * 1024 * 1024
    assert (await reader.next_line(), await reader.next_line()) == (b"next", None)


class AtOnce(trio.abc.ReceiveStream):
    """100 lines in one piece."""

    def __init__(self) -> None:
        self.pieces = [b"x\n" * 100]

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return self.pieces.pop() if self.pieces else b""

    async def aclose(self) -> None:
        pass


async def test_lines_that_came_together_leave_others_a_turn_between_them() -> None:
    reader = LineReader(AtOnce(), 1000)
    async with counted_turns() as turns:
        for _ in range(100):
            assert await reader.next_line() == b"x"
    assert turns() >= 90


async def test_a_client_that_closed_its_sending_half_still_gets_its_answers(served: Served) -> None:
    raw = await served.connect()
    await raw.send(query(1, "wait"))
    await raw.stream.send_eof()
    await trio.sleep(connection_module.HANG_UP_LOOK_S * 1.5)
    served.node.gate.set()
    assert (await raw.receive())["id"] == 1
    assert await raw.receive() is None


async def test_a_vanished_clients_write_finishes_and_its_query_is_cancelled(served: Served) -> None:
    raw = await served.connect()
    await raw.send(execute(1, "wait"), query(2, "wait"))
    with trio.fail_after(HANG_S):
        while len(served.node.calls) < 2:
            await trio.sleep(0)
        await raw.stream.aclose()
        await trio.sleep(connection_module.HANG_UP_LOOK_S * 1.5)
        served.node.gate.set()
        while not served.node.finished:
            await trio.sleep(0)
        assert await served.server.drain(HANG_S)
    assert served.node.finished == ["execute"]


async def test_a_client_that_reads_nothing_stops_nobody_else(served: Served) -> None:
    slow = await served.connect()
    await slow.send(*[query(i, f"long {1024 * 1024}") for i in range(40)])
    quick = await served.connect()
    for _ in range(20):
        assert "result" in await quick.call("sql.query", sql="SELECT")
    assert sorted([(await slow.receive())["id"] for _ in range(40)]) == list(range(40))


async def test_a_client_that_takes_nothing_for_five_minutes_is_cut_off(
    served: Served, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    slow = await served.connect()
    await slow.send(*[query(i, f"long {1024 * 1024}") for i in range(10)])
    began_s = trio.current_time()
    while "client takes no answers" not in caplog.text:
        await trio.sleep(1)
    assert connection_module.SEND_STALLED_S <= trio.current_time() - began_s < connection_module.SEND_STALLED_S + 5
    received = bytearray()
    while chunk := await slow.stream.receive_some():
        received += chunk
    assert received.count(b"\n") < 10


async def test_an_outbox_takes_its_bound_and_lets_a_long_line_keep_its_turn() -> None:
    outbox = Outbox()
    order = []

    async def put(line: bytes) -> None:
        await outbox.put(line)
        order.append(len(line))

    await put(b"a" * OUTBOX_BYTES_MAX)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, b"b" * (OUTBOX_BYTES_MAX + 5))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(put, b"c")
        await trio.testing.wait_all_tasks_blocked()
        assert len(order) == 1
        taken = [await outbox.take()]
        await trio.testing.wait_all_tasks_blocked()
        taken.append(await outbox.take())
        await trio.testing.wait_all_tasks_blocked()
        taken.append(await outbox.take())
    assert list(map(len, taken)) == [OUTBOX_BYTES_MAX, OUTBOX_BYTES_MAX + 5, 1]


async def test_one_connection_too_many_is_told_busy(served: Served) -> None:
    kept = [await served.connect() for _ in range(CONNECTIONS_MAX)]
    assert "result" in await kept[-1].call("sql.query", sql="SELECT")
    extra = await served.connect()
    assert (await extra.receive())["error"]["data"]["code"] == "busy"
    await kept[0].stream.aclose()
    with trio.fail_after(HANG_S):
        while True:
            again = await served.connect()
            try:
                answer = await again.call("sql.query", sql="SELECT")
            except trio.BrokenResourceError:
                continue
            if "result" in answer:
                break


async def test_draining_answers_writes_ends_waits_and_closes_idle_connections(served: Served) -> None:
    idle, busy = await served.connect(), await served.connect()
    await busy.send(execute(1, "wait"), query(2, "wait"))
    with trio.fail_after(HANG_S):
        while len(served.node.calls) < 2:
            await trio.sleep(0)
        async with trio.open_nursery() as nursery:
            drained = []

            async def drain() -> None:
                drained.append(await served.server.drain(HANG_S))

            nursery.start_soon(drain)
            assert await idle.receive() is None
            waited = await busy.receive()
            assert (waited["id"], waited["error"]["data"]["retry"]) == (2, True)
            served.node.gate.set()
            assert (await busy.receive())["result"]["changes"] == 1
            assert await busy.receive() is None
    assert drained == [True]
    with pytest.raises(OSError):
        late = await served.connect()
        await late.call("sql.query", sql="SELECT")
        raise OSError("closed without an answer")


async def test_draining_cuts_off_what_does_not_end_in_time(served: Served) -> None:
    raw = await served.connect()
    await raw.send(execute(1, "wait"))
    with trio.fail_after(HANG_S):
        while not served.node.calls:
            await trio.sleep(0)
        assert not await served.server.drain(0.01)
        assert await raw.receive() is None


async def test_of_a_batch_that_is_cut_off_no_further_request_begins(served: Served) -> None:
    raw = await served.connect()
    await raw.send([execute(number, "commit") for number in range(3)])
    with trio.fail_after(HANG_S):
        while not served.node.calls:
            await trio.sleep(0)
        assert not await served.server.drain(0.01)
        served.node.gate.set()
        while await raw.receive() is not None:
            pass
    assert len(served.node.calls) == 1


async def test_the_end_of_the_server_ends_what_is_shielded(tmp_path: Path, fake_node: Any) -> None:
    path = tmp_path / "s.sock"
    with trio.fail_after(HANG_S):
        async with open_api_server(listen_on(path), Methods(Api(fake_node, lambda: None, 0.0))):
            stream = await trio.open_unix_socket(str(path))
            await stream.send_all(json.dumps(execute(1, "wait")).encode() + b"\n")
            while not fake_node.calls:
                await trio.sleep(0)
    assert not path.exists()
