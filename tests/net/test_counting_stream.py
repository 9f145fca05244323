"""A TCP stream beneath a link: what is sent goes at once."""

from __future__ import annotations

import socket

import pytest
import trio

from peersd.net.transport import LONG_BYTES, CountingStream
from tests.turns import counted_turns


def connected() -> tuple[trio.SocketStream, trio.SocketStream]:
    one, other = trio.socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return trio.SocketStream(one), trio.SocketStream(other)


@pytest.mark.parametrize(("length", "turns"), [(LONG_BYTES - 1, 0), (LONG_BYTES, 1)])
async def test_only_what_is_long_gives_others_a_turn_where_there_is_room(length: int, turns: int) -> None:
    here, there = connected()
    counter = CountingStream(here)
    async with counted_turns() as turns_so_far:
        await trio.lowlevel.checkpoint()
        before = turns_so_far()
        for _ in range(4):
            await counter.send_all(bytes(length))
        assert abs(turns_so_far() - before - 4 * turns) <= turns  # which of two tasks is first in a turn is chance
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
