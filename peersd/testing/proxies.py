"""A TCP proxy between two daemons that can be cut, stalled and mended: a network that goes away and comes back."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import urlsplit

import trio

CHUNK_BYTES: Final = 16 * 1024


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

    def mend(self) -> None:
        """Let everything through again."""
        self._is_cut = False
        self._bytes_left = None
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
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while chunk := await source.receive_some(CHUNK_BYTES):
                while self._bytes_left is not None and self._bytes_left <= 0:
                    await self._open_again.wait()
                if self._bytes_left is not None:
                    self._bytes_left -= len(chunk)
                await target.send_all(chunk)
                self.bytes_passed += len(chunk)
        scope.cancel()


@asynccontextmanager
async def open_proxy(target_url: str) -> AsyncGenerator[Proxy]:
    """A proxy in front of a daemon that listens on loopback.

    Args:
        target_url: ws://127.0.0.1:PORT; nobody has to listen there yet.
    """
    target_port = urlsplit(target_url).port
    assert target_port, target_url
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy = Proxy(listener.socket.getsockname()[1], target_port)
        nursery.start_soon(trio.serve_listeners, proxy.serve, [listener])
        yield proxy
        nursery.cancel_scope.cancel()
