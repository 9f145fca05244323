"""Subscriptions to events: on the wire, and as the Python client gives them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from peersd.api import connection as connection_module
from peersd.api.jsonrpc import RpcError
from peersd.api.outbox import OUTBOX_BYTES_MAX
from peersd.api.subscriptions import SUBSCRIPTIONS_MAX, Subscriptions
from peersd.client import NoDaemon, PeersError, open_client
from peersd.client.events import EVENTS_WAITING_MAX, EventQueue

if TYPE_CHECKING:
    from tests.api.conftest import FakeEvents, Raw, Served

HANG_S = 60


def call(method: str, request_id: Any, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params, "id": request_id}


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(HANG_S):
        while not holds():
            await trio.sleep(0)


async def subscribed(served: Served, **params: Any) -> tuple[Raw, FakeEvents]:
    raw = await served.connect()
    assert (await raw.call("events.subscribe", **params))["result"] == {"subscription": 1}
    return raw, served.node.streams[-1]


async def test_events_come_as_notifications_with_kind_time_and_subscription(served: Served) -> None:
    raw, events = await subscribed(served)
    events.put("link_up", device_id="dev-bbbb", picture=b"\x00")
    events.put("alarm", alarm="clock_differs")
    assert await raw.receive() == {
        "jsonrpc": "2.0",
        "method": "event",
        "params": {
            "kind": "link_up",
            "at": "2026-01-01T00:00:00.000Z",
            "device_id": "dev-bbbb",
            "picture": {"$blob": "AA=="},
            "subscription": 1,
        },
    }
    assert (await raw.receive())["params"]["alarm"] == "clock_differs"


async def test_the_answer_comes_before_the_first_event_alone_and_in_a_batch(served: Served) -> None:
    served.node.happened = [{"kind": "alarm", "at": "", "alarm": "x"}]
    raw = await served.connect()
    await raw.send(call("events.subscribe", 1), [call("events.subscribe", 2), call("sql.query", 3, sql="SELECT")])
    received = [await raw.receive() for _ in range(4)]
    single = next(i for i, one in enumerate(received) if isinstance(one, dict) and one.get("id") == 1)
    batch = next(i for i, one in enumerate(received) if isinstance(one, list))
    numbers = {received[single]["result"]["subscription"], received[batch][0]["result"]["subscription"]}
    told = {one["params"]["subscription"]: i for i, one in enumerate(received) if isinstance(one, dict) and "method" in one}
    assert numbers == told.keys() == {1, 2}
    assert told[received[single]["result"]["subscription"]] > single
    assert told[received[batch][0]["result"]["subscription"]] > batch


async def test_nothing_of_a_subscription_follows_the_answer_that_ends_it(served: Served) -> None:
    raw, events = await subscribed(served)
    for number in range(500):
        events.put("alarm", number=number)
    await raw.send(call("events.unsubscribe", "end", subscription=1), call("daemon.status", "after"))
    before = 0
    while (line := await raw.receive()).get("id") != "end":
        before += 1
    assert line["result"] == {}
    assert (await raw.receive())["id"] == "after"
    await until(lambda: events.closed)
    assert before <= 500
    error = (await raw.call("events.unsubscribe", subscription=1))["error"]
    assert (error["code"], error["data"]["parameter"]) == (-32602, "subscription")


async def test_a_subscription_opened_and_ended_in_one_batch_leaves_nothing_behind(served: Served) -> None:
    raw = await served.connect()
    await raw.send([call("events.subscribe", 1), call("events.unsubscribe", 2, subscription=1)])
    assert [one["result"] for one in await raw.receive()] == [{"subscription": 1}, {}]
    await until(lambda: served.node.streams[0].closed)
    served.node.streams[0].put("alarm")
    assert "id" in await raw.call("daemon.status")


async def test_one_subscription_too_many_is_told_busy_and_closed_until_another_ends(served: Served) -> None:
    raw = await served.connect()
    for number in range(1, SUBSCRIPTIONS_MAX + 1):
        assert (await raw.call("events.subscribe"))["result"]["subscription"] == number
    error = (await raw.call("events.subscribe"))["error"]
    assert (error["code"], error["data"]["code"]) == (-32000, "busy")
    assert "events.unsubscribe" in error["data"]["hint"]
    assert [events.closed for events in served.node.streams] == [False] * SUBSCRIPTIONS_MAX + [True]
    assert "result" in await raw.call("events.unsubscribe", subscription=5)
    assert (await raw.call("events.subscribe"))["result"]["subscription"] == SUBSCRIPTIONS_MAX + 1
    other = await served.connect()
    assert (await other.call("events.subscribe"))["result"]["subscription"] == 1


async def test_a_subscription_is_its_connections_own(served: Served) -> None:
    _raw, events = await subscribed(served)
    other = await served.connect()
    assert (await other.call("events.unsubscribe", subscription=1))["error"]["code"] == -32602
    assert not events.closed


async def test_a_vanished_clients_subscriptions_are_closed(served: Served) -> None:
    raw, events = await subscribed(served)
    await raw.stream.aclose()
    await until(lambda: events.closed)


async def test_a_client_that_closed_its_sending_half_goes_on_hearing_events(served: Served) -> None:
    raw, events = await subscribed(served)
    await raw.stream.send_eof()
    await trio.sleep(connection_module.HANG_UP_LOOK_S * 1.5)
    events.put("alarm")
    assert (await raw.receive())["params"]["kind"] == "alarm"
    await raw.stream.aclose()
    await until(lambda: events.closed)


async def test_draining_ends_subscriptions_at_once(served: Served) -> None:
    raw, events = await subscribed(served)
    with trio.fail_after(HANG_S):
        assert await served.server.drain(HANG_S * 10)
    assert events.closed
    assert await raw.receive() is None


async def test_a_client_that_takes_no_events_holds_up_nobody_and_is_cut_off(
    served: Served, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    _slow, events = await subscribed(served)
    events_bytes = 64 * 1024
    for _ in range(1000):
        events.put("alarm", filling="x" * events_bytes)
    quick, quick_events = await subscribed(served)
    for number in range(20):
        quick_events.put("alarm", number=number)
        assert (await quick.receive())["params"]["number"] == number
    began_s = trio.current_time()
    while not events.closed:
        await trio.sleep(1)
    # The socket and the two turns of the outbox are all that the daemon holds of it; the rest stays, bounded, in the node.
    assert events.taken * events_bytes < 2 * OUTBOX_BYTES_MAX + 4 * 1024 * 1024
    assert "client takes no answers" in caplog.text
    assert trio.current_time() - began_s < connection_module.SEND_STALLED_S + 5
    quick_events.put("alarm", number=-1)
    assert (await quick.receive())["params"]["number"] == -1


async def test_a_subscription_whose_answer_found_no_room_is_closed_with_its_connection(served: Served) -> None:
    raw = await served.connect()
    await raw.send(*[call("sql.query", number, sql=f"long {1024 * 1024}") for number in range(20)])
    await until(lambda: len(served.node.calls) == 20)
    await raw.send(call("events.subscribe", "s"))
    await until(lambda: bool(served.node.streams))
    await raw.stream.aclose()
    await until(lambda: served.node.streams[0].closed)
    assert served.node.streams[0].taken == 0


async def test_after_the_end_of_all_no_subscription_is_admitted(served: Served) -> None:
    async def send(line: bytes) -> None:
        raise AssertionError(line)

    subscriptions = Subscriptions(send)
    subscriptions.end_all()
    events = await served.node.events_open(kinds=None)
    with pytest.raises(RpcError, match="stopping"):
        subscriptions.add(events)
    assert events.closed


async def test_a_program_hears_what_happens_from_when_it_entered(served: Served) -> None:
    async with open_client(served.path) as peers:
        async with peers.events(["link_up", "alarm"]) as events:
            (stream,) = served.node.streams
            assert stream.kinds == frozenset(("link_up", "alarm"))
            stream.put("link_up", device_id="dev-bbbb", picture=b"\xff")
            stream.put("alarm", alarm="x")
            heard = [await anext(events), await anext(events)]
        assert stream.closed
        assert [(one["kind"], one["subscription"]) for one in heard] == [("link_up", 1), ("alarm", 1)]
        assert heard[0]["picture"] == b"\xff"
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        await events.aclose()


async def test_a_loop_alone_subscribes_and_loses_nothing_between_the_answer_and_the_first_event(served: Served) -> None:
    served.node.happened = [{"kind": "alarm", "at": "", "number": number} for number in range(100)]
    async with open_client(served.path) as peers:
        numbers = []
        async for event in peers.events():
            numbers.append(event["number"])
            if len(numbers) == 100:
                break
        assert numbers == list(range(100))
        assert not served.node.streams[0].closed
    await until(lambda: served.node.streams[0].closed)


async def test_each_subscription_of_a_program_hears_its_own(served: Served) -> None:
    async with open_client(served.path) as peers, peers.events(["link_up"]) as ups, peers.events(["alarm"]) as alarms:
        up, alarm = served.node.streams
        alarm.put("alarm", n=1)
        up.put("link_up", n=2)
        assert ((await anext(ups))["n"], (await anext(alarms))["n"]) == (2, 1)


async def test_calls_go_on_while_a_program_takes_no_events_and_what_it_lost_is_told(served: Served) -> None:
    async with open_client(served.path) as peers, peers.events() as events:
        (stream,) = served.node.streams
        for number in range(EVENTS_WAITING_MAX + 50):
            stream.put("alarm", number=number)
        await until(lambda: stream.taken == EVENTS_WAITING_MAX + 50)
        # Its answer comes after all these events, so they have arrived.
        assert await peers.status()
        heard = [await anext(events) for _ in range(EVENTS_WAITING_MAX)]
        assert [one["number"] for one in heard] == list(range(EVENTS_WAITING_MAX))
        lost = await anext(events)
        assert (lost["kind"], lost["alarm"], lost["lost"]) == ("alarm", "events_lost", 50)
        assert lost["at"].endswith("Z")
        stream.put("alarm", number=-1)
        assert (await anext(events))["number"] == -1


async def test_the_end_of_the_daemon_is_told_after_the_last_event(served: Served) -> None:
    async with open_client(served.path) as peers:
        events = peers.events()
        async with events:
            served.node.streams[0].put("alarm", number=1)
            await until(lambda: served.node.streams[0].taken == 1)
            assert await peers.status()
            assert await served.server.drain(HANG_S)
            await peers.wait_closed()
            assert (await anext(events))["number"] == 1
            with pytest.raises(NoDaemon), trio.fail_after(HANG_S):
                await anext(events)
        with pytest.raises(NoDaemon):
            await anext(peers.events())


async def test_a_program_that_asks_for_an_unknown_kind_is_told_which_there_are(served: Served) -> None:
    async with open_client(served.path) as peers:
        with pytest.raises(PeersError, match="one of link_up") as caught:
            await anext(peers.events(["linkup"]))
        assert (caught.value.code, served.node.streams) == ("invalid_params", [])


async def test_who_waits_for_an_event_can_be_cancelled_and_goes_on_later(served: Served) -> None:
    async with open_client(served.path) as peers, peers.events() as events:
        with trio.move_on_after(0.05) as waited:
            await anext(events)
        assert waited.cancelled_caught
        served.node.streams[0].put("alarm", number=1)
        assert (await anext(events))["number"] == 1


async def test_closing_a_subscription_ends_the_loop_that_waits_for_it(served: Served) -> None:
    async with open_client(served.path) as peers:
        events = peers.events()
        heard = []

        async def listen() -> None:
            heard.extend([event["number"] async for event in events])

        with trio.fail_after(HANG_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                await until(lambda: bool(served.node.streams))
                served.node.streams[0].put("alarm", number=1)
                await until(lambda: served.node.streams[0].taken == 1)
                assert await peers.status()
                await trio.testing.wait_all_tasks_blocked()
                await events.aclose()
        assert heard == [1]
        assert served.node.streams[0].closed


async def test_a_queue_keeps_its_gap_where_it_was() -> None:
    queue = EventQueue()
    for number in range(EVENTS_WAITING_MAX + 1):
        queue.put({"number": number})
    assert await queue.take() == {"number": 0}
    queue.put({"number": "also lost, as it came before the gap was told"})
    for _ in range(EVENTS_WAITING_MAX - 1):
        await queue.take()
    assert ((await queue.take()) or {})["lost"] == 2
    waited: list[Any] = []

    async def take(into: Callable[[], Awaitable[Any]]) -> None:
        waited.append(await into())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, queue.take)
        await trio.testing.wait_all_tasks_blocked()
        queue.put({"number": "next"})
    assert waited == [{"number": "next"}]
