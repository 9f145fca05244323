from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from peersd.errors import PeersdError
from peersd.net.admission import Admission, NoPlace
from peersd.net.channels import LinkHandle
from peersd.net.listener import Opening, open_listener
from peersd.net.runner import run_link
from peersd.net.transport import open_websocket
from peersd_protocol.constants import SOCKETS_PER_ADDRESS_MAX, SOCKETS_UNAUTHENTICATED_MAX
from peersd_protocol.handshake import Role
from tests.net.links import dialled, echo_all, new_link, serving


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def never(handle: LinkHandle) -> None:
    raise AssertionError("no link comes up here")


async def unused(opening: Opening) -> None:
    raise AssertionError("nobody dials here")


async def test_port_0_gives_one_real_port_on_all_addresses() -> None:
    async with open_listener(["ws://127.0.0.1:0", "ws://[::1]:0"], unused) as listener:
        ports = {port_of(url) for url in listener.urls}
        assert len(ports) == 1
        assert ports != {0}


async def test_no_address_listens_on_nothing() -> None:
    async with open_listener([], unused) as listener:
        assert listener.urls == ()


async def test_an_address_in_use_is_said_so_with_a_hint() -> None:
    async with open_listener(["ws://127.0.0.1:0"], unused) as listener:
        with pytest.raises(PeersdError) as caught:
            async with open_listener([listener.urls[0]], unused):
                pass
        assert caught.value.code == "unreachable"
        assert caught.value.message == f"cannot listen on {listener.urls[0]}: address in use"
        assert caught.value.hint


async def test_an_address_of_another_machine_is_refused_alone_and_skipped_beside_a_good_one() -> None:
    with pytest.raises(PeersdError) as caught:
        async with open_listener(["ws://192.0.2.1:0"], unused):
            pass
    assert caught.value.code == "unreachable"
    async with open_listener(["ws://192.0.2.1:0", "ws://127.0.0.1:0"], unused) as listener:
        assert len(listener.urls) == 1


@pytest.mark.parametrize("url", ["http://h:1", "ws://", "ws://h:99999", "h:1", "ws://u@h:1", ""])
async def test_an_address_of_another_form_cannot_be_dialled_or_listened_on(url: str) -> None:
    for context in (open_websocket(url, timeout_s=1), open_listener([url], unused)):
        with pytest.raises(PeersdError) as caught:
            async with context:
                pass
        assert caught.value.code == "unreachable"


async def test_a_closed_port_is_unreachable_and_a_retry_may_help() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(PeersdError) as caught:
            async with open_websocket(f"ws://127.0.0.1:{bound.getsockname()[1]}", timeout_s=10):
                pass
    assert caught.value.code == "unreachable"
    assert caught.value.retry


async def answer(stream: trio.SocketStream, reply: bytes) -> None:
    await stream.receive_some()
    await stream.send_all(reply)
    await stream.aclose()


@pytest.mark.parametrize("reply", [b"", b"SSH-2.0-OpenSSH_9.9\r\n\r\n", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"])
async def test_what_answers_without_a_websocket_is_unreachable(reply: bytes) -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, lambda stream: answer(stream, reply), 0)
        with trio.fail_after(30), pytest.raises(PeersdError) as caught:
            async with open_websocket(f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}", timeout_s=20):
                pass
        assert caught.value.code == "unreachable"
        nursery.cancel_scope.cancel()


async def test_a_port_that_never_answers_times_out() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, lambda stream: trio.sleep_forever(), 0)
        with pytest.raises(PeersdError) as caught:
            async with open_websocket(f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}", timeout_s=0.05):
                pass
        assert caught.value.code == "timeout"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 100,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\xff" * 100_000,
        b"\r\n\r\n",
    ],
    ids=["zeros", "plain HTTP", "much", "empty lines"],
)
async def test_garbage_ends_its_own_socket_and_nothing_else(garbage: bytes) -> None:
    async with serving(echo_all) as listener:
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(listener.urls[0]))
        try:
            await stream.send_all(garbage)
        except trio.BrokenResourceError:
            pass
        with trio.fail_after(30):
            try:
                while await stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
            await stream.aclose()
            while listener.admission.taken:
                await trio.lowlevel.checkpoint()
        async with dialled(listener.urls[0]) as handle:
            channel = await handle.open(b"x")
            assert channel.accept_payload == b"welcome x"


async def test_a_websocket_that_speaks_no_noise_is_closed_and_frees_its_place() -> None:
    async with serving(never) as listener:
        for message in (b"\x00\x04junk", b"", b"\xff\xff", b"\x00\x00", bytes(200_000)):
            async with open_websocket(listener.urls[0], timeout_s=10) as transport:
                await transport.send(message)
                with trio.fail_after(30):
                    while listener.admission.taken:
                        await trio.lowlevel.checkpoint()


async def test_a_link_that_is_up_gives_its_place_back() -> None:
    async with serving(echo_all) as listener, dialled(listener.urls[0]):
        with trio.fail_after(30):
            while listener.admission.taken:
                await trio.lowlevel.checkpoint()


async def test_more_than_32_strangers_are_turned_away_and_links_that_are_up_go_on() -> None:
    async with serving(echo_all) as listener, dialled(listener.urls[0]) as handle:
        strangers = [
            await trio.open_tcp_stream("127.0.0.1", port_of(listener.urls[0])) for _ in range(SOCKETS_UNAUTHENTICATED_MAX + 1)
        ]
        with trio.fail_after(30):
            while listener.admission.taken < SOCKETS_UNAUTHENTICATED_MAX:
                await trio.lowlevel.checkpoint()
            assert await strangers[-1].receive_some() == b""
            channel = await handle.open(b"y")
            assert channel.accept_payload == b"welcome y"
        for stranger in strangers:
            await stranger.aclose()


async def test_a_socket_that_sends_a_byte_now_and_then_is_closed_after_10_s(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(never) as listener:
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(listener.urls[0]))
        began = trio.current_time()
        closed = trio.Event()

        async def drip() -> None:
            for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\n" * 10:
                try:
                    await stream.send_all(bytes((byte,)))
                except trio.BrokenResourceError:
                    return
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            try:
                assert await stream.receive_some() == b""
            except trio.BrokenResourceError:
                pass
            closed.set()
            nursery.cancel_scope.cancel()
        assert 9 < trio.current_time() - began < 15


async def test_a_websocket_that_says_nothing_is_closed_after_10_s(autojump_clock: trio.testing.MockClock) -> None:
    details = []

    async def serve(opening: Opening) -> None:
        details.append(await run_link(opening, new_link(Role.LISTENER), never, direction="in"))

    async with open_listener(["ws://127.0.0.1:0"], serve) as listener, open_websocket(listener.urls[0], timeout_s=10):
        began = trio.current_time()
        while not details:
            await trio.sleep(0.5)
    assert details[0].detail == "the handshake took too long"
    assert 9 < trio.current_time() - began < 15


async def test_a_fifth_socket_of_one_address_waits_for_one_of_the_four() -> None:
    admission = Admission()
    places = [await admission.enter("198.51.100.7") for _ in range(SOCKETS_PER_ADDRESS_MAX)]
    entered = trio.Event()

    async def fifth() -> None:
        (await admission.enter("198.51.100.7")).leave()
        entered.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fifth)
        await trio.testing.wait_all_tasks_blocked()
        assert not entered.is_set()
        other = await admission.enter("198.51.100.8")
        places[0].leave()
        places[0].leave()
    assert entered.is_set()
    other.leave()
    for place in places:
        place.leave()
    assert admission.taken == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.5", "::ffff:10.0.0.5"])
async def test_loopback_and_proxies_have_no_limit_of_their_own(address: str) -> None:
    admission = Admission(["10.0.0.5"])
    places = [await admission.enter(address) for _ in range(SOCKETS_UNAUTHENTICATED_MAX)]
    with pytest.raises(NoPlace):
        await admission.enter(address)
    assert admission.taken == len(places)


async def test_addresses_of_one_ipv6_network_count_as_one() -> None:
    admission = Admission()
    for host in range(SOCKETS_PER_ADDRESS_MAX):
        await admission.enter(f"2001:db8::{host:x}")
    with trio.move_on_after(0) as scope:
        await admission.enter("2001:db8::ffff")
    assert scope.cancelled_caught
    assert admission.taken == SOCKETS_PER_ADDRESS_MAX
    await admission.enter("2001:db8:0:1::1")


async def test_one_address_that_fills_the_queue_gives_way_to_another() -> None:
    admission = Admission()
    turned_away = []

    async def crowd() -> None:
        try:
            await admission.enter("198.51.100.7")
        except NoPlace:
            turned_away.append(1)

    async with trio.open_nursery() as nursery:
        for _ in range(SOCKETS_UNAUTHENTICATED_MAX):
            nursery.start_soon(crowd)
        await trio.testing.wait_all_tasks_blocked()
        assert admission.taken == SOCKETS_UNAUTHENTICATED_MAX
        with pytest.raises(NoPlace):
            await admission.enter("198.51.100.7")
        await admission.enter("198.51.100.8")
        await trio.testing.wait_all_tasks_blocked()
        assert turned_away == [1]
        assert admission.taken == SOCKETS_UNAUTHENTICATED_MAX
        nursery.cancel_scope.cancel()
    assert admission.taken == SOCKETS_PER_ADDRESS_MAX + 1
