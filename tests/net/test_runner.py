from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from typing import Literal

import pytest
import trio
import trio.testing

from peersd.errors import PeersdError
from peersd.net.channels import ChannelIsClosed, LinkHandle
from peersd.net.runner import run_link
from peersd.net.transport import open_websocket
from peersd.testing.transports import MemoryTransport, memory_transports, open_memory
from peersd_protocol.errors import CloseCode
from peersd_protocol.handshake import Role
from peersd_protocol.link import Down
from tests.net.links import Ends, new_link


class MemoryLink:
    """Both ends of a link in memory, with the reasons of their ends."""

    def __init__(self, messages_max: float = 1000) -> None:
        self.transports = memory_transports(messages_max)
        self.ends = Ends()
        self.downs: dict[str, Down] = {}
        self.handles: dict[str, LinkHandle] = {}

    async def run(self, role: Role, transport: MemoryTransport) -> None:
        direction: Literal["in", "out"] = "out" if role is Role.DIALLER else "in"
        self.downs[direction] = await run_link(open_memory(transport), new_link(role), self.ends.on_up, direction=direction)

    async def start(self, nursery: trio.Nursery) -> None:
        nursery.start_soon(self.run, Role.DIALLER, self.transports[0])
        nursery.start_soon(self.run, Role.LISTENER, self.transports[1])
        for _ in range(2):
            handle = await self.ends.receive.receive()
            self.handles[handle.direction] = handle


async def test_an_idle_link_stays_up_for_an_hour(autojump_clock: trio.testing.MockClock) -> None:
    link = MemoryLink()
    async with trio.open_nursery() as nursery:
        await link.start(nursery)
        await trio.sleep(3600)
        assert link.downs == {}
        # A ping and its answer every 15 s, each in a transport message of its own at most.
        assert link.handles["out"].bytes_out < 3600 / 15 * 2 * 40 + 600
        nursery.cancel_scope.cancel()


async def test_a_network_that_goes_away_is_found_dead_within_a_minute(autojump_clock: trio.testing.MockClock) -> None:
    link = MemoryLink()
    async with trio.open_nursery() as nursery:
        await link.start(nursery)
        await trio.sleep(100)
        for transport in link.transports:
            transport.is_cut = True
        cut_at = trio.current_time()
        while len(link.downs) < 2:
            await trio.sleep(1)
    assert 30 < trio.current_time() - cut_at <= 62
    assert {down.code for down in link.downs.values()} == {CloseCode.TIMEOUT}


async def test_a_transport_that_takes_nothing_more_ends_the_link(autojump_clock: trio.testing.MockClock) -> None:
    link = MemoryLink(messages_max=0)
    async with trio.open_nursery() as nursery:
        await link.start(nursery)
        await trio.sleep(1)
        link.transports[0].is_stuck = True  # the other side still sends: only our writer is stuck
        while "out" not in link.downs:
            await trio.sleep(1)
            assert trio.current_time() < 120
        nursery.cancel_scope.cancel()
    assert link.downs["out"].code is CloseCode.TIMEOUT


async def test_a_link_is_authenticated_when_its_handshake_is_done(autojump_clock: trio.testing.MockClock) -> None:
    link = MemoryLink()
    async with trio.open_nursery() as nursery:
        assert not link.transports[1].is_authenticated
        await link.start(nursery)
        assert link.transports[1].is_authenticated
        nursery.cancel_scope.cancel()


async def test_cancelling_a_link_says_goaway_to_the_other_side(autojump_clock: trio.testing.MockClock) -> None:
    link = MemoryLink()
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def dial() -> None:
            with scope:
                await link.run(Role.DIALLER, link.transports[0])

        nursery.start_soon(dial)
        nursery.start_soon(link.run, Role.LISTENER, link.transports[1])
        for _ in range(2):
            await link.ends.receive.receive()
        scope.cancel()
    assert link.downs == {"in": Down(CloseCode.GOING_AWAY, "the remote side closed the link", by_remote=True)}


async def test_a_fault_above_the_link_ends_that_link_alone_and_is_logged(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = memory_transports()
    downs = []

    async def faulty(handle: LinkHandle) -> None:
        handle.release()
        await trio.sleep(1)
        raise ZeroDivisionError

    async def listen() -> None:
        downs.append(await run_link(open_memory(second), new_link(Role.LISTENER), Ends().on_up, direction="in"))

    with caplog.at_level(logging.ERROR, "peersd.net"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            down = await run_link(open_memory(first), new_link(Role.DIALLER), faulty, direction="out")
    assert (down.code, down.by_remote) == (CloseCode.GOING_AWAY, False)
    assert downs[0].by_remote
    assert [record.message for record in caplog.records] == ["link_failed"]
    caplog.clear()


async def test_a_served_link_closes_normally(autojump_clock: trio.testing.MockClock) -> None:
    first, second = memory_transports()
    downs = []

    async def done(handle: LinkHandle) -> None:
        handle.release()
        await trio.sleep(1)

    async def listen() -> None:
        downs.append(await run_link(open_memory(second), new_link(Role.LISTENER), Ends().on_up, direction="in"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        down = await run_link(open_memory(first), new_link(Role.DIALLER), done, direction="out")
    assert down.code is CloseCode.NORMAL
    assert downs == [Down(CloseCode.NORMAL, "the remote side closed the link", by_remote=True)]


async def test_a_dialler_that_reaches_nobody_gets_the_error_itself() -> None:
    with pytest.raises(PeersdError) as caught:
        await run_link(open_websocket("ws://127.0.0.1:1", timeout_s=10), new_link(Role.DIALLER), Ends().on_up, direction="out")
    assert caught.value.code == "unreachable"


async def test_a_dialler_that_closes_before_release_never_has_a_link_over_there(autojump_clock: trio.testing.MockClock) -> None:
    first, second = memory_transports()
    downs = []

    async def duplicate(handle: LinkHandle) -> None:
        handle.close(CloseCode.REPLACED)
        await trio.sleep_forever()

    async def never(handle: LinkHandle) -> None:
        raise AssertionError("the listener has no link")

    async def listen() -> None:
        downs.append(await run_link(open_memory(second), new_link(Role.LISTENER), never, direction="in"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        down = await run_link(open_memory(first), new_link(Role.DIALLER), duplicate, direction="out")
    assert down.code is CloseCode.REPLACED
    assert downs[0].detail == "the transport ended: closed"


class LateTransport(MemoryTransport):
    """An end whose messages all come at once, when they are let through, with no turn for another task in between."""

    def __init__(self, sender: trio.MemorySendChannel[bytes], receiver: trio.MemoryReceiveChannel[bytes]) -> None:
        super().__init__(sender, receiver, "memory:late")
        self._late = receiver
        self.come = trio.Event()
        self.come.set()
        self._waiting: deque[bytes] = deque()

    async def receive(self) -> bytes:
        if not self._waiting:
            self._waiting.append(await super().receive())
            await self.come.wait()
            with suppress(trio.WouldBlock):
                while True:
                    self._waiting.append(self._late.receive_nowait())
        return self._waiting.popleft()


async def test_what_is_said_on_a_channel_arrives_though_its_end_comes_in_the_same_breath_as_its_beginning() -> None:
    link = MemoryLink()
    to_late, late_receive = trio.open_memory_channel[bytes](1000)
    late_send, from_late = trio.open_memory_channel[bytes](1000)
    late = LateTransport(late_send, late_receive)
    link.transports = (late, MemoryTransport(to_late, from_late, "memory:1"))
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await link.start(nursery)

            async def say_and_close() -> None:
                wish = await anext(aiter(link.handles["in"].incoming))
                late.come = trio.Event()
                channel = wish.accept(b"welcome")
                await channel.send(b"farewell")
                await channel.flush()
                channel.close(CloseCode.NOT_MEMBER)
                await trio.testing.wait_all_tasks_blocked()
                late.come.set()

            nursery.start_soon(say_and_close)
            channel = await link.handles["out"].open(b"")
            assert (channel.accept_payload, channel.closed) == (b"welcome", CloseCode.NOT_MEMBER)
            assert await channel.receive() == b"farewell"
            with pytest.raises(ChannelIsClosed) as caught:
                await channel.receive()
            assert caught.value.code is CloseCode.NOT_MEMBER
            nursery.cancel_scope.cancel()
