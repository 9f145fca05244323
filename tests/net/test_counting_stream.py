"""A TCP stream beneath a link: what is sent goes at once."""

from __future__ import annotations

import socket

import pytest
import trio

from peersd.net.transport import LONG_BYTES, CountingStream


def connected() -> tuple[trio.SocketStream, trio.SocketStream]:
    one, other = trio.socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return trio.SocketStream(one), trio.SocketStream(other)


@pytest.mark.parametrize(("length", "turns"), [(LONG_BYTES - 1, 0), (LONG_BYTES, 1)])
async def test_only_what_is_long_gives_others_a_turn_where_there_is_room(length: int, turns: int) -> None:
    here, there = connected()
    counter, taken = CountingStream(here), 0

    async def count() -> None:
        nonlocal taken
        while True:
            await trio.lowlevel.checkpoint()
            taken += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await trio.lowlevel.checkpoint()
        before = taken
        for _ in range(4):
            await counter.send_all(bytes(length))
        assert abs(taken - before - 4 * turns) <= turns  # which of two tasks is first in a turn is chance
        nursery.cancel_scope.cancel()
    assert counter.bytes_out == 4 * length
    await here.aclose()
    await there.aclose()


async def test_all_of_what_finds_no_room_is_sent_as_it_is_taken() -> None:
    here, there = connected()
    message = bytes(range(256)) * 20_000
    counter, received = CountingStream(here), bytearray()

    async def send() -> None:
        await counter.send_all(message)
        await here.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while part := await there.receive_some():
            received += part
    assert received == message and counter.bytes_out == len(message)
    await there.aclose()
