from __future__ import annotations

import socket

import pytest
import trio

from peersd.prompt_socket import PromptSocket


async def test_a_socket_that_was_closed_neither_reads_nor_writes_what_has_its_number_now() -> None:
    one, other = trio.socket.socketpair()
    number = one.fileno()
    local = PromptSocket(trio.SocketStream(one))
    await local.aclose()
    later, other_end = socket.socketpair()
    with other, later, other_end:
        assert number in (later.fileno(), other_end.fileno())
        other_end.send(b"not for it")
        with pytest.raises(trio.ClosedResourceError):
            local.send_now(b"of it")
        with pytest.raises(trio.ClosedResourceError):
            await local.receive_some()


async def test_what_arrives_is_read_and_what_finds_room_is_sent() -> None:
    one, other = trio.socket.socketpair()
    with other:
        async with PromptSocket(trio.SocketStream(one)) as local:
            assert local.send_now(b"there") == 5
            assert await other.recv(100) == b"there"
            await other.send(b"back")
            assert await local.receive_some() == b"back"
            sent = 0
            while part := local.send_now(bytes(65_536)):
                sent += part
            assert sent >= 4096
            other.close()
            with pytest.raises(trio.BrokenResourceError):
                local.send_now(b"gone")
