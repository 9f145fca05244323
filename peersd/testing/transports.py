"""Transports in memory: for links without sockets and under virtual time."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from peersd.net.transport import Transport, TransportClosed
from peersd_protocol.constants import TRANSPORT_MESSAGE_BYTES_MAX


class Outgoing(Protocol):
    """Where an end puts its messages: a memory channel, or a wire of the virtual network."""

    async def send(self, value: bytes, /) -> None:
        """Raises trio.BrokenResourceError or trio.ClosedResourceError when nothing can be sent any more."""
        ...

    def close(self) -> None:
        """Nothing more is sent; the other end reads what was sent before."""
        ...


class Incoming(Protocol):
    """Where an end takes messages from."""

    async def receive(self) -> bytes:
        """Raises trio.EndOfChannel or trio.ClosedResourceError when nothing will come any more."""
        ...

    def close(self) -> None:
        """Nothing more is read."""
        ...


class MemoryTransport:
    """One end of a pair.

    Args:
        sender: takes what this end sends.
        receiver: gives what the other end sent.
        url: the other end, for people.

    Attributes:
        is_cut: when true, what this end sends vanishes without an error, as on a network that went away.
        is_stuck: when true, this end's `send` never returns, as on a socket whose other end does not read.
        is_authenticated: whether the link on top said so.
    """

    def __init__(self, sender: Outgoing, receiver: Incoming, url: str) -> None:
        self._sender = sender
        self._receiver = receiver
        self._url = url
        self._bytes_in = 0
        self._bytes_out = 0
        self.is_cut = False
        self.is_stuck = False
        self.is_authenticated = False

    @property
    def url(self) -> str:
        """See Transport."""
        return self._url

    @property
    def bytes_in(self) -> int:
        """See Transport."""
        return self._bytes_in

    @property
    def bytes_out(self) -> int:
        """See Transport."""
        return self._bytes_out

    async def send(self, message: bytes) -> None:
        """See Transport."""
        assert len(message) <= TRANSPORT_MESSAGE_BYTES_MAX
        if self.is_stuck:
            await trio.sleep_forever()
        self._bytes_out += len(message)
        if self.is_cut:
            await trio.lowlevel.checkpoint()
            return
        try:
            await self._sender.send(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise TransportClosed("closed") from error

    async def receive(self) -> bytes:
        """See Transport."""
        try:
            message = await self._receiver.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError) as error:
            raise TransportClosed("closed") from error
        self._bytes_in += len(message)
        return message

    async def aclose(self) -> None:
        """See Transport. A cut pair does not hear of it."""
        if not self.is_cut:
            self._sender.close()
        self._receiver.close()

    def authenticated(self) -> None:
        """See Transport."""
        self.is_authenticated = True


def memory_transports(messages_max: float = math.inf) -> tuple[MemoryTransport, MemoryTransport]:
    """Makes two ends.

    Args:
        messages_max: messages under way in each direction before `send` waits.
    """
    first_send, second_receive = trio.open_memory_channel[bytes](messages_max)
    second_send, first_receive = trio.open_memory_channel[bytes](messages_max)
    return MemoryTransport(first_send, first_receive, "memory:1"), MemoryTransport(second_send, second_receive, "memory:2")


@asynccontextmanager
async def open_memory(transport: MemoryTransport) -> AsyncGenerator[Transport, None]:
    """Gives an end to `run_link` and closes it afterwards."""
    try:
        yield transport
    finally:
        await transport.aclose()
