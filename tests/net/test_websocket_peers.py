"""Our WebSocket against another implementation's, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio_websocket

from peersd.net.listener import Opening, open_listener
from peersd.net.transport import Transport, TransportClosed, open_websocket
from peersd_protocol.constants import TRANSPORT_MESSAGE_BYTES_MAX
from tests.turns import counted_turns

HANG_S = 60

LENGTHS = (1, 125, 126, 65_535, 65_536, TRANSPORT_MESSAGE_BYTES_MAX)


@asynccontextmanager
async def accepted() -> AsyncGenerator[tuple[trio_websocket.WebSocketConnection, Transport]]:
    """Another's dialler and our listener's end."""
    ends, taken = trio.open_memory_channel[Transport](1)

    async def serve(opening: Opening) -> None:
        async with opening as transport:
            ends.send_nowait(transport)
            await trio.sleep_forever()

    async with open_listener(["ws://127.0.0.1:0"], serve) as listener:
        with trio.fail_after(HANG_S):
            async with trio_websocket.open_websocket_url(listener.urls[0]) as dialler:
                transport = await taken.receive()
                yield dialler, transport
                await transport.aclose()  # the other waits for it when it closes


@asynccontextmanager
async def dialled() -> AsyncGenerator[tuple[Transport, trio_websocket.WebSocketConnection]]:
    """Our dialler's end and another's listener."""
    ends, taken = trio.open_memory_channel[trio_websocket.WebSocketConnection](1)

    async def serve(request: trio_websocket.WebSocketRequest) -> None:
        connection = await request.accept()
        ends.send_nowait(connection)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            lambda task_status: trio_websocket.serve_websocket(
                serve, "127.0.0.1", 0, ssl_context=None, task_status=task_status, max_message_size=TRANSPORT_MESSAGE_BYTES_MAX
            )
        )
        with trio.fail_after(HANG_S):
            async with open_websocket(f"ws://127.0.0.1:{server.port}/path", timeout_s=HANG_S) as transport:
                yield transport, await taken.receive()
        nursery.cancel_scope.cancel()


async def test_another_dialler_is_understood_both_ways() -> None:
    async with accepted() as (dialler, transport):
        for length in LENGTHS:
            message = bytes(range(256)) * (length // 256) + bytes(length % 256)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(dialler.send_message, message)
                assert await transport.receive() == message
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.send, message)
                assert await dialler.get_message() == message


async def test_another_listener_is_understood_both_ways() -> None:
    async with dialled() as (transport, listener):
        for length in LENGTHS:
            message = bytes(range(256)) * (length // 256) + bytes(length % 256)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listener.send_message, message)
                assert await transport.receive() == message
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.send, message)
                assert await listener.get_message() == message


async def test_a_ping_is_answered_while_the_next_message_is_awaited() -> None:
    async with accepted() as (dialler, transport), trio.open_nursery() as nursery:
        got: list[bytes] = []

        async def receive() -> None:
            got.append(bytes(await transport.receive()))

        nursery.start_soon(receive)
        await dialler.ping(b"there?")  # returns when the pong has come
        await dialler.send_message(b"yes")
        while not got:
            await trio.lowlevel.checkpoint()
        assert got == [b"yes"]


async def test_a_close_is_answered_and_told() -> None:
    async with accepted() as (dialler, transport), trio.open_nursery() as nursery:
        nursery.start_soon(dialler.aclose, 4000)
        with pytest.raises(TransportClosed, match="4000"):
            await transport.receive()
    async with dialled() as (transport, listener):
        await transport.aclose()
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await listener.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1000


async def test_what_was_sent_before_a_close_arrives_although_the_closing_side_never_read() -> None:
    async with accepted() as (dialler, transport):
        await dialler.send_message(bytes(100_000))
        await transport.send(b"last words")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.aclose)
            assert await dialler.get_message() == b"last words"


async def test_a_text_message_and_a_long_one_end_the_transport() -> None:
    for message in ("text", bytes(TRANSPORT_MESSAGE_BYTES_MAX + 1)):
        async with accepted() as (dialler, transport), trio.open_nursery() as nursery:

            async def send(dialler: trio_websocket.WebSocketConnection = dialler, message: str | bytes = message) -> None:
                try:
                    await dialler.send_message(message)
                except trio_websocket.ConnectionClosed:
                    return

            nursery.start_soon(send)
            with pytest.raises(TransportClosed, match="misused"):
                await transport.receive()
            await transport.aclose()


async def test_many_short_messages_that_came_at_once_let_others_run_between() -> None:
    async with accepted() as (dialler, transport):
        for _ in range(20):
            await dialler.send_message(b"x")
        await transport.receive()
        async with counted_turns() as turns:
            for _ in range(19):
                await transport.receive()
        assert turns() >= 15
