"""A TCP proxy between two daemons that can be cut, stalled, slowed down and mended: a network that has its days."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import trio

from peersd.testing.nurseries import open_beside

CHUNK_BYTES: Final = 16 * 1024

UNDERWAY_CHUNKS_MAX: Final = 4096
"""What is under way at most in one direction of a connection (guess: a gigabit a second for half of one)."""


@dataclass(frozen=True, slots=True)
class _Underway:
    """A chunk on its way: when it arrives, unless the network is mended before, and how often that had been when it set out."""

    arrival_s: float
    mended: int
    chunk: bytes


class Proxy:
    """Passes connections on to one port of loopback. Made by `open_proxy`.

    Attributes:
        url: what to dial instead of the target.
        accepted: connections taken so far, those refused while cut not among them.
        bytes_passed: payload passed on so far, both ways.
    """

    def __init__(self, port: int, target_port: int) -> None:
        self.url = f"ws://127.0.0.1:{port}"
        self.accepted = 0
        self.bytes_passed = 0
        self._target_port = target_port
        self._is_cut = False
        self._bytes_left: int | None = None
        self._open_again = trio.Event()
        self._mended = 0
        self._delay_s = 0.0
        self._bytes_per_s: float | None = None
        self._free_at_s = 0.0
        self._connections: set[trio.CancelScope] = set()

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._connections)

    def cut(self) -> None:
        """End all connections and refuse new ones until `mend`."""
        self._is_cut = True
        for scope in self._connections:
            scope.cancel()

    def stall_after(self, payload_bytes: int) -> None:
        """Pass this much more, both ways together, and then nothing until `mend`; connections stay open."""
        self._bytes_left = payload_bytes

    def delay(self, delay_s: float) -> None:
        """Deliver what is sent from now on so much later, each way; in order, and as much at a time as before."""
        self._delay_s = delay_s

    def limit(self, bytes_per_s: float | None) -> None:
        """Pass no more than this in a second, both ways and all connections together; None for no limit.

        Raises:
            ValueError: it is not more than 0.
        """
        if bytes_per_s is not None and not bytes_per_s > 0:
            raise ValueError(f"`bytes_per_s` is {bytes_per_s}; give more than 0, or let nothing pass by stall_after(0).")
        self._bytes_per_s = bytes_per_s
        self._free_at_s = 0.0

    def mend(self) -> None:
        """Let everything through again, at once."""
        self._delay_s = 0.0
        self.limit(None)
        self._is_cut = False
        self._bytes_left = None
        self._mended += 1
        self._open_again.set()
        self._open_again = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Pass one connection on until either side ends it."""
        if self._is_cut:
            await trio.aclose_forcefully(stream)
            return
        with trio.CancelScope() as scope:
            self._connections.add(scope)
            try:
                await self._join(stream, scope)
            finally:
                self._connections.discard(scope)
                await trio.aclose_forcefully(stream)

    async def _join(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            target = await trio.open_tcp_stream("127.0.0.1", self._target_port)
        except OSError:
            return
        self.accepted += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pass, stream, target, scope)
                nursery.start_soon(self._pass, target, stream, scope)
        finally:
            await trio.aclose_forcefully(target)

    async def _pass(self, source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope) -> None:
        underway_in, underway_out = trio.open_memory_channel[_Underway](UNDERWAY_CHUNKS_MAX)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deliver, underway_out, target, scope)
            async with underway_in:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    while chunk := await source.receive_some(CHUNK_BYTES):
                        await self._until_open()
                        if self._bytes_left is not None:
                            self._bytes_left -= len(chunk)
                        await underway_in.send(_Underway(self._arrival_s(len(chunk)), self._mended, chunk))
                await self._until_open()  # that a side ended its connection does not come through either

    async def _until_open(self) -> None:
        while self._bytes_left is not None and self._bytes_left <= 0:
            await self._open_again.wait()

    def _arrival_s(self, chunk_bytes: int) -> float:
        """When a chunk that is sent now arrives: after those before it, as fast as the limit lets them through, and the delay."""
        now_s = trio.current_time()
        if self._bytes_per_s is None:
            return now_s + self._delay_s
        self._free_at_s = max(self._free_at_s, now_s) + chunk_bytes / self._bytes_per_s
        return self._free_at_s + self._delay_s

    async def _deliver(
        self, underway: trio.MemoryReceiveChannel[_Underway], target: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for one in underway:
                while one.mended == self._mended and one.arrival_s > trio.current_time():
                    with trio.move_on_at(one.arrival_s):
                        await self._open_again.wait()
                await target.send_all(one.chunk)
                self.bytes_passed += len(one.chunk)
        scope.cancel()


@asynccontextmanager
async def open_proxy(target_url: str) -> AsyncGenerator[Proxy]:
    """A proxy in front of a daemon that listens on loopback.

    Args:
        target_url: ws://127.0.0.1:PORT; nobody has to listen there yet.

    Raises:
        ValueError: it names no port.
    """
    target_port = urlsplit(target_url).port
    if not target_port:
        raise ValueError(f"A proxy needs an address such as ws://127.0.0.1:7330, not {target_url!r}.")
    async with open_beside() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy = Proxy(listener.socket.getsockname()[1], target_port)
        nursery.start_soon(trio.serve_listeners, proxy.serve, [listener])
        yield proxy
