"""The API's server: accepts connections on the Unix socket and ends them in order."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import trio

from peersd.api.connection import Connection, Dispatcher, busy, caller_refused, guarded
from peersd.api.socket_path import Listening, caller_uid

_log = logging.getLogger("peersd.api")

CONNECTIONS_MAX: Final = 128
"""Connections at once; one more is told `busy` and closed (guess: every application of a desktop holds a few)."""

READS_GRACE_S: Final = 1.0
"""When draining, queries and waits that take longer are answered with an error; writes have the whole grace (guess)."""


class ApiServer:
    """The server while it runs; made by `open_api_server`."""

    def __init__(self, dispatcher: Dispatcher, uid: int) -> None:
        self._dispatcher = dispatcher
        self._uid = uid
        self._connections: set[Connection] = set()
        self._accepting = trio.CancelScope()
        self._changed = trio.lowlevel.ParkingLot()

    async def drain(self, grace_s: float) -> bool:
        """Accept no more connections and requests, answer what is under way for at most `grace_s`, close everything.

        Returns:
            Whether all that was under way came to its end; otherwise the rest was cancelled.
        """
        self._accepting.cancel()
        for connection in self._connections:
            connection.stop_reading()
        with trio.move_on_after(min(grace_s, READS_GRACE_S)):
            await self._wait_empty()
        for connection in self._connections:
            connection.interrupt()
        with trio.move_on_after(max(0.0, grace_s - READS_GRACE_S)):
            await self._wait_empty()
        finished = not self._connections
        self.abort()
        return finished

    async def _wait_empty(self) -> None:
        while self._connections:
            await self._changed.park()

    async def accept(self, listener: trio.SocketListener, connections: trio.Nursery) -> None:
        """Accept connections into `connections` until `drain`."""
        with self._accepting:
            await trio.serve_listeners(self._serve, [listener], handler_nursery=connections)

    async def _serve(self, stream: trio.SocketStream) -> None:
        connection = Connection(stream, self._dispatcher)
        self._connections.add(connection)
        try:
            with guarded("connection"):
                uid = caller_uid(stream.socket)
                if uid != self._uid:
                    _log.warning("caller refused", extra={"fields": {"uid": uid}})
                    await connection.refuse(caller_refused())
                elif len(self._connections) > CONNECTIONS_MAX:
                    _log.warning("too many connections", extra={"fields": {"limit": CONNECTIONS_MAX}})
                    await connection.refuse(busy())
                else:
                    await connection.run()
        finally:
            stream.socket.close()
            self._connections.discard(connection)
            self._changed.unpark_all()

    def abort(self) -> None:
        """Cancel every connection, also what would otherwise finish."""
        for connection in self._connections:
            connection.abort()


@asynccontextmanager
async def open_api_server(listening: Listening, dispatcher: Dispatcher, *, uid: int | None = None) -> AsyncGenerator[ApiServer]:
    """Answer on a socket of `listen_on` while the context lasts, and close it.

    The end of the context cancels what `drain` has not seen finish.

    Args:
        listening: closed at the end.
        dispatcher: answers the requests.
        uid: the user whose processes are answered; this process's when None.
    """
    server = ApiServer(dispatcher, os.geteuid() if uid is None else uid)
    try:
        async with trio.open_nursery() as nursery:
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening.socket))
            nursery.start_soon(server.accept, listener, nursery)
            try:
                yield server
            finally:
                server.abort()
                nursery.cancel_scope.cancel()
    finally:
        listening.close()
