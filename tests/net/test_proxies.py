"""The proxy that stands for a network: what it delays, limits, stalls and cuts, under a virtual clock and over real sockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
import trio
import trio.testing

from peersd.testing.proxies import CHUNK_BYTES, Proxy, open_proxy


@pytest.fixture
def clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """Jumps when nothing happens; bytes on loopback take a moment of real time, in which something does."""
    autojump_clock.autojump_threshold = 0.02
    return autojump_clock


class Ends:
    """Both ends of connections through one proxy."""

    def __init__(self, proxy: Proxy, accepted: trio.MemoryReceiveChannel[trio.SocketStream]) -> None:
        self.proxy = proxy
        self._accepted = accepted

    async def connect(self) -> tuple[trio.SocketStream, trio.SocketStream]:
        """The dialler's end and the listener's."""
        dialled = await trio.open_tcp_stream("127.0.0.1", urlsplit(self.proxy.url).port or 0)
        return dialled, await self._accepted.receive()


@asynccontextmanager
async def open_ends() -> AsyncGenerator[Ends]:
    accepted_in, accepted = trio.open_memory_channel[trio.SocketStream](10)

    async def keep(stream: trio.SocketStream) -> None:
        await accepted_in.send(stream)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, keep, [listener])
        async with open_proxy(f"ws://127.0.0.1:{listener.socket.getsockname()[1]}") as proxy:
            yield Ends(proxy, accepted)
        nursery.cancel_scope.cancel()


async def receive(stream: trio.SocketStream, wanted_bytes: int) -> bytes:
    received = b""
    while len(received) < wanted_bytes:
        chunk = await stream.receive_some()
        assert chunk, "the connection ended"
        received += chunk
    return received


async def has_ended(stream: trio.SocketStream) -> bool:
    try:
        return await stream.receive_some() == b""
    except trio.BrokenResourceError:
        return True


async def test_what_is_delayed_arrives_in_order_each_way_and_later_by_just_that_much(clock: trio.testing.MockClock) -> None:
    async with open_ends() as ends:
        here, there = await ends.connect()
        ends.proxy.delay(5.0)
        await here.send_all(b"first")
        await trio.sleep(2.0)
        await here.send_all(b"second")
        assert await receive(there, 5) == b"first"
        assert trio.current_time() == pytest.approx(5.0)
        assert await receive(there, 6) == b"second"
        assert trio.current_time() == pytest.approx(7.0)
        await there.send_all(b"back")
        assert await receive(here, 4) == b"back"
        assert trio.current_time() == pytest.approx(12.0)


async def test_a_shorter_delay_lets_nothing_overtake(clock: trio.testing.MockClock) -> None:
    async with open_ends() as ends:
        here, there = await ends.connect()
        ends.proxy.delay(5.0)
        await here.send_all(b"first")
        await trio.sleep(1.0)
        ends.proxy.delay(0.0)
        await here.send_all(b"second")
        assert await receive(there, 11) == b"firstsecond"
        assert trio.current_time() == pytest.approx(5.0)


async def test_a_limit_holds_for_both_ways_and_all_connections_together(clock: trio.testing.MockClock) -> None:
    async with open_ends() as ends:
        one, of_one = await ends.connect()
        other, of_other = await ends.connect()
        ends.proxy.limit(1_000)
        for stream in (one, of_one, other):
            await stream.send_all(bytes(2_000))
        for stream in (of_one, one, of_other):
            assert await receive(stream, 2_000) == bytes(2_000)
        assert trio.current_time() == pytest.approx(6.0)
        await trio.testing.wait_all_tasks_blocked()
        assert ends.proxy.bytes_passed == 6_000


async def test_mending_lets_what_is_under_way_through_at_once(clock: trio.testing.MockClock) -> None:
    async with open_ends() as ends:
        here, there = await ends.connect()
        ends.proxy.delay(1_000.0)
        ends.proxy.limit(1)
        await here.send_all(bytes(500))
        await trio.sleep(3.0)
        assert ends.proxy.bytes_passed == 0
        ends.proxy.mend()
        assert await receive(there, 500) == bytes(500)
        assert trio.current_time() == pytest.approx(3.0)


async def test_a_stalled_network_keeps_connections_and_passes_nothing_until_it_is_mended(clock: trio.testing.MockClock) -> None:
    async with open_ends() as ends:
        here, there = await ends.connect()
        ends.proxy.stall_after(CHUNK_BYTES)
        await here.send_all(bytes(3 * CHUNK_BYTES))
        await receive(there, CHUNK_BYTES)
        with trio.move_on_after(1_000.0) as waited:
            await there.receive_some()
        assert waited.cancelled_caught and ends.proxy.connections == 1
        ends.proxy.mend()
        await receive(there, CHUNK_BYTES)


async def test_a_cut_network_ends_connections_with_what_is_under_way_and_takes_no_new_ones(clock: trio.testing.MockClock) -> None:
    async with open_ends() as ends:
        here, there = await ends.connect()
        ends.proxy.delay(10.0)
        await here.send_all(b"lost")
        await trio.sleep(1.0)
        ends.proxy.cut()
        assert await has_ended(there) and await has_ended(here)
        refused = await trio.open_tcp_stream("127.0.0.1", urlsplit(ends.proxy.url).port or 0)
        assert await has_ended(refused)
        ends.proxy.mend()
        here, there = await ends.connect()
        await here.send_all(b"again")
        assert await receive(there, 5) == b"again"
        assert (ends.proxy.accepted, ends.proxy.connections) == (2, 1)


async def test_a_network_that_stalls_does_not_tell_that_a_side_has_ended_its_connection(clock: trio.testing.MockClock) -> None:
    async with open_ends() as ends:
        dialled, listened = await ends.connect()
        await dialled.send_all(b"x")
        assert await receive(listened, 1) == b"x"
        ends.proxy.stall_after(0)
        await dialled.aclose()
        with trio.move_on_after(60) as waited:
            await listened.receive_some()
        assert waited.cancelled_caught
        ends.proxy.mend()
        assert await listened.receive_some() == b""


async def test_a_limit_that_lets_nothing_pass_and_an_address_without_a_port_are_refused() -> None:
    async with open_ends() as ends:
        for limit in (0, -1):
            with pytest.raises(ValueError, match=f"`bytes_per_s` is {limit}; give more than 0"):
                ends.proxy.limit(limit)
    for address in ("ws://127.0.0.1", "127.0.0.1:7330"):
        with pytest.raises(ValueError, match=f"not '{address}'"):
            async with open_proxy(address):
                pytest.fail("there is a proxy")
