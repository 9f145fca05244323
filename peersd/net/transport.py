"""Transports: pipes of whole messages beneath a link, and the WebSocket that is one (DESIGN 5).

A transport neither authenticates nor hides anything; the link on top of it does both.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, Protocol
from urllib.parse import SplitResult, urlsplit

import h11
import trio
import trio_websocket
import wsproto.utilities

from peersd.errors import PeersdError
from peersd_protocol.constants import HANDSHAKE_TIMEOUT_MS, MIB, TRANSPORT_MESSAGE_BYTES_MAX

RECEIVE_BUFFER_BYTES: Final = 1 * MIB
"""Measured: 40 MB/s with trio-websocket's 4 KiB, about 200 with this and messages of 256 KiB (DESIGN 3)."""

MESSAGES_QUEUED_MAX: Final = 1
"""Messages that trio-websocket reads ahead; each is at most TRANSPORT_MESSAGE_BYTES_MAX."""

CLOSE_TIMEOUT_S: Final = 1.0
"""How long a transport waits for the other end when it closes (guess): the link has said its GOAWAY before."""

PORT_DEFAULT: Final = {"ws": 80, "wss": 443}


class TransportClosed(Exception):
    """The pipe is gone: closed by either end, broken, or misused by the other end."""


class Transport(Protocol):
    """A pipe of whole messages. One task sends and one receives."""

    @property
    def url(self) -> str:
        """The other end, for people: what was dialled, or where the dialler's socket is."""
        ...

    @property
    def bytes_in(self) -> int:
        """Bytes received so far, as on the TCP socket."""
        ...

    @property
    def bytes_out(self) -> int:
        """Bytes sent so far, as on the TCP socket."""
        ...

    async def send(self, message: bytes) -> None:
        """Sends one message; returns when it was handed to the network.

        Raises:
            TransportClosed: the pipe is gone. Cancelling may leave it unusable.
        """
        ...

    async def receive(self) -> bytes:
        """Returns the next message.

        Raises:
            TransportClosed: the pipe is gone.
        """
        ...

    async def aclose(self) -> None:
        """Closes the pipe, within about CLOSE_TIMEOUT_S. May be called again."""
        ...

    def authenticated(self) -> None:
        """The other end proved who it is: a listener no longer counts this transport among strangers."""
        ...


class CountingStream(trio.abc.Stream):
    """A TCP stream that counts its bytes, beneath TLS and WebSocket.

    Attributes:
        bytes_in: received so far.
        bytes_out: sent so far.
        ended: set once nothing more is read. trio-websocket waits for its handshakes for ever on a stream that nobody reads.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.bytes_in = 0
        self.bytes_out = 0
        self.ended = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio.abc.SendStream."""
        await self._stream.send_all(data)
        self.bytes_out += len(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See trio.abc.ReceiveStream."""
        try:
            received = await self._stream.receive_some(max_bytes)
        except BaseException:  # cancelled too: its reader goes with it
            self.ended.set()
            raise
        if not received:
            self.ended.set()
        self.bytes_in += len(received)
        return received

    async def aclose(self) -> None:
        """See trio.abc.AsyncResource."""
        self.ended.set()
        await self._stream.aclose()


class Place:
    """A place among the unauthenticated sockets of a listener; a dialler has none."""

    def leave(self) -> None:
        """Gives the place up."""


class WebSocketTransport:
    """A WebSocket of binary messages.

    Args:
        connection: an open WebSocket.
        counter: the TCP stream beneath it.
        url: the other end.
        place: given up by `authenticated`.
    """

    def __init__(self, connection: trio_websocket.WebSocketConnection, counter: CountingStream, url: str, place: Place) -> None:
        self._connection = connection
        self._counter = counter
        self._url = url
        self._place = place

    @property
    def url(self) -> str:
        """See Transport."""
        return self._url

    @property
    def bytes_in(self) -> int:
        """See Transport."""
        return self._counter.bytes_in

    @property
    def bytes_out(self) -> int:
        """See Transport."""
        return self._counter.bytes_out

    async def send(self, message: bytes) -> None:
        """See Transport."""
        try:
            await self._connection.send_message(message)
        except trio_websocket.ConnectionClosed as error:
            raise TransportClosed(_reason(error)) from error

    async def receive(self) -> bytes:
        """See Transport."""
        try:
            message = await self._connection.get_message()
        except trio_websocket.ConnectionClosed as error:
            raise TransportClosed(_reason(error)) from error
        if isinstance(message, str):
            raise TransportClosed("a text message")
        return message

    async def aclose(self) -> None:
        """See Transport."""
        if not self._counter.ended.is_set():
            with trio.CancelScope(deadline=trio.current_time() + CLOSE_TIMEOUT_S, shield=True):
                await self._connection.aclose()
        # The other end may not have answered the closing handshake; the socket goes all the same.
        await trio.aclose_forcefully(self._counter)

    def authenticated(self) -> None:
        """See Transport."""
        self._place.leave()


def _reason(error: trio_websocket.ConnectionClosed) -> str:
    reason = error.reason
    if reason is None:
        return "closed"
    return f"closed with {reason.code} {reason.reason or ''}".rstrip()


def parse_link_url(url: str) -> SplitResult:
    """Checks an address of the form ws://host[:port][/path] or wss://….

    Raises:
        PeersdError: `unreachable` if it has another form.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _bad_url(url) from error
    if parts.scheme not in PORT_DEFAULT or not parts.hostname or parts.username is not None or parts.fragment:
        raise _bad_url(url)
    # Port 0 is for listening: the system chooses.
    return parts._replace(netloc=parts.netloc if port is not None else f"{parts.netloc}:{PORT_DEFAULT[parts.scheme]}")


def _bad_url(url: str) -> PeersdError:
    return PeersdError(
        "unreachable", f"{url!r} is no address of a peer", hint="Addresses look like ws://host:7330 or wss://host/path."
    )


@asynccontextmanager
async def open_websocket(
    url: str, *, timeout_s: float, ssl_context: ssl.SSLContext | None = None
) -> AsyncGenerator[Transport, None]:
    """Dials a listener and gives the open transport; leaving the context closes it.

    Args:
        url: ws:// or wss://.
        timeout_s: for name resolution, TCP, TLS and the WebSocket's own handshake together.
        ssl_context: for wss://, instead of the system's default.

    Raises:
        PeersdError: `unreachable`, or `timeout`; a retry may help.
    """
    parts = parse_link_url(url)
    failure: Exception | None = None
    is_open = False
    try:
        async with trio.open_nursery() as nursery:
            try:
                with trio.fail_after(timeout_s):
                    transport = await _connect(nursery, url, parts, ssl_context)
            except (trio.TooSlowError, OSError, trio.BrokenResourceError, UnicodeError) as error:
                failure = error  # UnicodeError: what stands there can be no host's name
            else:
                is_open = True
                try:
                    yield transport
                finally:
                    await transport.aclose()
            nursery.cancel_scope.cancel()
    except* _READER_ERRORS as group:
        failure = group
    # Raised out here: the nursery would wrap it into an exception group.
    if failure is not None and is_open:
        raise TransportClosed("the other end misused the WebSocket") from failure
    if isinstance(failure, trio.TooSlowError):
        raise PeersdError("timeout", f"{url} did not answer within {timeout_s:g} s", hint=_HINT_DIAL, retry=True) from failure
    if failure is not None:
        raise PeersdError("unreachable", f"cannot reach {url}: {_describe(failure)}", hint=_HINT_DIAL, retry=True) from failure


_READER_ERRORS: Final = (trio_websocket.HandshakeError, wsproto.utilities.ProtocolError, h11.ProtocolError)
"""What trio-websocket's reader task dies of when the other end speaks no WebSocket, or breaks its rules while it closes."""

_HINT_DIAL: Final = "Check the address, that the other daemon runs and listens there, and that no firewall stands between."


def _describe(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason})"
    if isinstance(error, OSError):
        causes = error.__cause__.exceptions if isinstance(error.__cause__, ExceptionGroup) else ()
        inner = next((cause for cause in causes if isinstance(cause, OSError)), error)
        return inner.strerror or str(inner)
    if isinstance(error, UnicodeError):
        return "its host's name cannot be one"
    return "something answers there, but no WebSocket"


async def _connect(nursery: trio.Nursery, url: str, parts: SplitResult, ssl_context: ssl.SSLContext | None) -> WebSocketTransport:
    assert parts.hostname is not None and parts.port is not None
    counter = CountingStream(await trio.open_tcp_stream(parts.hostname, parts.port))
    stream: trio.abc.Stream = counter
    try:
        if parts.scheme == "wss":
            context = ssl_context or ssl.create_default_context()
            secured = trio.SSLStream(counter, context, server_hostname=parts.hostname, https_compatible=True)
            await secured.do_handshake()
            stream = secured
        resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        async with _until_end_of(counter):
            connection = await trio_websocket.wrap_client_stream(
                nursery,
                stream,  # type: ignore[arg-type]  # any stream does; its own docs say "an arbitrary stream"
                host=parts.netloc,
                resource=resource,
                message_queue_size=MESSAGES_QUEUED_MAX,
                max_message_size=TRANSPORT_MESSAGE_BYTES_MAX,
                receive_buffer_size=RECEIVE_BUFFER_BYTES,
            )
    except BaseException:
        await trio.aclose_forcefully(counter)
        raise
    return WebSocketTransport(connection, counter, url, Place())


@asynccontextmanager
async def accept_websocket(stream: trio.SocketStream, url: str, place: Place) -> AsyncGenerator[Transport, None]:
    """Answers the WebSocket handshake on an accepted socket and gives the transport; leaving the context closes it.

    Args:
        stream: the socket.
        url: where the dialler's socket is.
        place: given up once the link is authenticated.

    Raises:
        TransportClosed: the dialler speaks no WebSocket, or did not finish its handshake in HANDSHAKE_TIMEOUT_MS.
    """
    counter = CountingStream(stream)
    failure: TransportClosed | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                with trio.fail_after(HANDSHAKE_TIMEOUT_MS / 1000):
                    async with _until_end_of(counter):
                        request = await _await_request(nursery, counter)
                        connection = await request.accept()
            except trio.TooSlowError:
                failure = TransportClosed("no WebSocket handshake in time")
            except trio.BrokenResourceError:
                failure = TransportClosed("left in the WebSocket handshake")
            else:
                transport = WebSocketTransport(connection, counter, url, place)
                try:
                    yield transport
                finally:
                    await transport.aclose()
            nursery.cancel_scope.cancel()
    except* _READER_ERRORS:
        failure = TransportClosed("the other end misused the WebSocket")
    finally:
        await trio.aclose_forcefully(counter)
    if failure is not None:
        raise failure


@asynccontextmanager
async def _until_end_of(counter: CountingStream) -> AsyncGenerator[None, None]:
    """Gives up what is awaited inside when the stream ends.

    Raises:
        trio.BrokenResourceError: it ended.
    """
    is_done = False
    closed: trio_websocket.ConnectionClosed | None = None

    async def cancel_at_end() -> None:
        await counter.ended.wait()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_at_end)
        try:
            yield
            is_done = True
        except trio_websocket.ConnectionClosed as error:
            closed = error
        nursery.cancel_scope.cancel()
    if not is_done:
        raise trio.BrokenResourceError("the stream ended") from closed


async def _await_request(nursery: trio.Nursery, counter: CountingStream) -> trio_websocket.WebSocketRequest:
    return await trio_websocket.wrap_server_stream(
        nursery,
        counter,
        message_queue_size=MESSAGES_QUEUED_MAX,
        max_message_size=TRANSPORT_MESSAGE_BYTES_MAX,
        receive_buffer_size=RECEIVE_BUFFER_BYTES,
    )
