"""Transports: pipes of whole messages beneath a link, and the WebSocket that is one (DESIGN 5).

A transport neither authenticates nor hides anything; the link on top of it does both.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol
from urllib.parse import SplitResult, urlsplit

import trio

from peersd.errors import PeersdError
from peersd.net.websocket_frames import FrameError, FrameReader, Ping, encode_close, encode_message, encode_pong
from peersd.net.websocket_upgrade import NONCE_BYTES, ClientUpgrade, ServerUpgrade, UpgradeFailed
from peersd.prompt_socket import PromptSocket
from peersd_protocol.constants import HANDSHAKE_TIMEOUT_MS, TRANSPORT_MESSAGE_BYTES_MAX

RECEIVE_BYTES_MIN: Final = 16 * 1024
RECEIVE_BYTES_MAX: Final = 256 * 1024
"""Asked from the socket at a time. Four times as much where the last was used up, half where a quarter was not: a short message
does not take a buffer for bulk (measured: with 1 MiB the socket takes twice as long, since each buffer's memory is new)."""

LONG_BYTES: Final = 16 * 1024
"""After a message of so many bytes others have a turn: where more waits a link sends twice as much at least."""

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

    async def receive(self) -> bytes | memoryview:
        """Returns the next message, perhaps as a view of more that was received with it.

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
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._socket = PromptSocket(stream)
        self.bytes_in = 0
        self.bytes_out = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio.abc.SendStream; what is short gives nobody a turn unless it has to wait for room."""
        sent = self._socket.send_now(data)
        if sent < len(data):
            await self._stream.send_all(memoryview(data)[sent:])
        elif sent >= LONG_BYTES:
            await trio.lowlevel.checkpoint()
        self.bytes_out += len(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See trio.abc.ReceiveStream."""
        received = await self._socket.receive_some(max_bytes)
        self.bytes_in += len(received)
        return received

    async def aclose(self) -> None:
        """See trio.abc.AsyncResource."""
        await self._stream.aclose()


class Place:
    """A place among the unauthenticated sockets of a listener; a dialler has none."""

    def leave(self) -> None:
        """Gives the place up."""


class WebSocketTransport:
    """A WebSocket of binary messages.

    Reading and writing are done by the tasks that call, with no task or queue of its own between them and the socket.

    Args:
        stream: what the WebSocket was opened on.
        counter: the TCP stream beneath it.
        url: the other end.
        place: given up by `authenticated`.
        received: what came after the opening.
        is_dialler: whether this side dialled.
    """

    def __init__(
        self, stream: trio.abc.Stream, counter: CountingStream, url: str, place: Place, received: bytes, *, is_dialler: bool
    ) -> None:
        self._stream = stream
        self._counter = counter
        self._url = url
        self._place = place
        self._is_dialler = is_dialler
        self._reader = FrameReader(is_dialler=is_dialler, message_bytes_max=TRANSPORT_MESSAGE_BYTES_MAX)
        self._reader.feed(received)
        self._receive_bytes = RECEIVE_BYTES_MIN
        self._is_sending = False
        self._sent = trio.lowlevel.ParkingLot()
        self._pong: bytes | None = None
        self._is_over = False

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
        frame = encode_message(message, is_dialler=self._is_dialler)
        while self._is_sending:  # whoever receives answers a ping or a close
            await self._sent.park()
        await self._send_frame(frame)
        await self._send_pong()

    async def receive(self) -> bytes | memoryview:
        """See Transport."""
        has_waited = False
        while True:
            try:
                event = self._reader.next_event()
            except FrameError as error:
                self._is_over = True
                raise TransportClosed(f"the other end misused the WebSocket: {error}") from error
            if isinstance(event, bytes | memoryview):
                if not has_waited:
                    await trio.lowlevel.checkpoint()  # many short messages may have come at once
                return event
            if event is None:
                self._reader.feed(await self._receive_some())
                has_waited = True
            elif isinstance(event, Ping):
                self._pong = event.payload  # the newest is answered: who pings without reading must not pile answers up
                if not self._is_sending:
                    await self._send_pong()
            else:
                await self._answer_close()
                raise TransportClosed(f"closed with {event.code}" if event.code else "closed")

    async def _receive_some(self) -> bytes | bytearray:
        asked_bytes = self._receive_bytes
        try:
            received = await self._stream.receive_some(asked_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._is_over = True
            raise TransportClosed("the connection broke") from error
        if not received:
            self._is_over = True
            raise TransportClosed("the connection ended")
        if len(received) == asked_bytes:
            self._receive_bytes = min(RECEIVE_BYTES_MAX, asked_bytes * 4)
        elif len(received) < asked_bytes // 4:
            self._receive_bytes = max(RECEIVE_BYTES_MIN, asked_bytes // 2)
        return received

    async def _send_frame(self, frame: bytes) -> None:
        """Sends a frame; nobody else may be sending."""
        if self._is_over:
            raise TransportClosed("the connection is over")
        self._is_sending = True
        is_whole = False
        try:
            await self._stream.send_all(frame)
            is_whole = True
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise TransportClosed("the connection broke") from error
        finally:
            self._is_sending = False
            self._is_over |= not is_whole  # part of a frame may have gone out, and nothing can come after it
            self._sent.unpark_all()

    async def _send_pong(self) -> None:
        while self._pong is not None and not self._is_over:
            payload, self._pong = self._pong, None
            await self._send_frame(encode_pong(payload, is_dialler=self._is_dialler))

    async def _answer_close(self) -> None:
        if not self._is_sending and not self._is_over:
            with suppress(TransportClosed):
                await self._send_frame(encode_close(is_dialler=self._is_dialler))
        self._is_over = True

    async def aclose(self) -> None:
        """See Transport."""
        try:
            if not self._is_over:
                with trio.CancelScope(deadline=trio.current_time() + CLOSE_TIMEOUT_S, shield=True), suppress(TransportClosed):
                    while self._is_sending:
                        await self._sent.park()
                    await self._send_frame(encode_close(is_dialler=self._is_dialler))
                    while True:  # until the other end has answered: a socket closed on unread bytes takes back what was sent
                        await self.receive()
        finally:
            self._is_over = True
            await trio.aclose_forcefully(self._counter)

    def authenticated(self) -> None:
        """See Transport."""
        self._place.leave()


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
    try:
        with trio.fail_after(timeout_s):
            transport = await _connect(url, parts, ssl_context)
    except trio.TooSlowError as error:
        raise PeersdError("timeout", f"{url} did not answer within {timeout_s:g} s", hint=_HINT_DIAL, retry=True) from error
    # UnicodeError: what stands there can be no host's name.
    except (OSError, trio.BrokenResourceError, UnicodeError, UpgradeFailed) as error:
        raise PeersdError("unreachable", f"cannot reach {url}: {_describe(error)}", hint=_HINT_DIAL, retry=True) from error
    try:
        yield transport
    finally:
        await transport.aclose()


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


async def _connect(url: str, parts: SplitResult, ssl_context: ssl.SSLContext | None) -> WebSocketTransport:
    assert parts.hostname is not None and parts.port is not None
    counter = CountingStream(await trio.open_tcp_stream(parts.hostname, parts.port))
    stream: trio.abc.Stream = counter
    try:
        if parts.scheme == "wss":
            context = ssl_context or ssl.create_default_context()
            stream = trio.SSLStream(counter, context, server_hostname=parts.hostname, https_compatible=True)
        resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        upgrade = ClientUpgrade(parts.netloc, resource, os.urandom(NONCE_BYTES))
        await stream.send_all(upgrade.request)
        while (rest := upgrade.receive(await stream.receive_some(RECEIVE_BYTES_MIN))) is None:
            pass
    except BaseException:
        await trio.aclose_forcefully(counter)
        raise
    return WebSocketTransport(stream, counter, url, Place(), rest, is_dialler=True)


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
    try:
        with trio.fail_after(HANDSHAKE_TIMEOUT_MS / 1000):
            rest = await _accept(counter)
    except trio.TooSlowError as error:
        raise TransportClosed("no WebSocket handshake in time") from error
    except trio.BrokenResourceError as error:
        raise TransportClosed("left in the WebSocket handshake") from error
    except UpgradeFailed as error:
        raise TransportClosed(f"the other end speaks no WebSocket: {error}") from error
    transport = WebSocketTransport(counter, counter, url, place, rest, is_dialler=False)
    try:
        yield transport
    finally:
        await transport.aclose()


async def _accept(stream: CountingStream) -> bytes:
    """Answers the request for a WebSocket; returns what came after it."""
    upgrade = ServerUpgrade()
    try:
        while (done := upgrade.receive(await stream.receive_some(RECEIVE_BYTES_MIN))) is None:
            pass
    except UpgradeFailed as error:
        if error.answer:
            await stream.send_all(error.answer)
        raise
    answer, rest = done
    await stream.send_all(answer)
    return rest
