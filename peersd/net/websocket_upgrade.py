"""The HTTP request and answer that open a WebSocket, both sides, without I/O (RFC 6455, 4)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

import h11

NONCE_BYTES: Final = 16
"""Of a request's key (RFC 6455, 4.1)."""

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION: Final = b"13"


class UpgradeFailed(Exception):
    """The other end speaks no WebSocket.

    Args:
        detail: what was wrong.
        answer: what a listener should still send before it closes, mostly nothing.
    """

    def __init__(self, detail: str, answer: bytes = b"") -> None:
        super().__init__(detail)
        self.answer = answer


class ClientUpgrade:
    """The dialler's side.

    Args:
        host: of the address, with its port.
        resource: path and query.
        nonce: NONCE_BYTES random bytes.

    Raises:
        UpgradeFailed, UnicodeError: host or resource cannot stand in a request.
    """

    def __init__(self, host: str, resource: str, nonce: bytes) -> None:
        self._key = base64.b64encode(nonce)
        self._http = h11.Connection(h11.CLIENT)
        headers = [
            (b"Host", host.encode("idna")),
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Key", self._key),
            (b"Sec-WebSocket-Version", _VERSION),
        ]
        try:
            request = h11.Request(method="GET", target=resource.encode("ascii"), headers=headers)
            self.request: Final = (self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b"")
        except h11.LocalProtocolError as error:
            raise UpgradeFailed("no address of a WebSocket") from error

    def receive(self, data: bytes | bytearray) -> bytes | None:
        """Takes what was received, empty at the end; returns the bytes after the answer once it is complete, else None.

        Raises:
            UpgradeFailed: the answer is not a WebSocket's.
        """
        event = _next_event(self._http, data)
        if event is None:
            return None
        if not isinstance(event, h11.InformationalResponse) or event.status_code != 101:
            raise UpgradeFailed("refused")
        headers = dict(event.headers)
        if not _is_upgrade(headers) or headers.get(b"sec-websocket-accept") != _accept_token(self._key):
            raise UpgradeFailed("a wrong answer")
        if b"sec-websocket-extensions" in headers or b"sec-websocket-protocol" in headers:
            raise UpgradeFailed("an answer with what was not asked for")
        return self._http.trailing_data[0]


class ServerUpgrade:
    """The listener's side."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.SERVER)

    def receive(self, data: bytes | bytearray) -> tuple[bytes, bytes] | None:
        """Takes what was received, empty at the end.

        Returns:
            The answer to send and the bytes after the request, once that is complete; else None.

        Raises:
            UpgradeFailed: it is no request for a WebSocket.
        """
        event = _next_event(self._http, data)
        if event is None:
            return None
        if not isinstance(event, h11.Request):
            raise UpgradeFailed("no request")
        headers = dict(event.headers)
        key = headers.get(b"sec-websocket-key", b"")
        if event.method != b"GET" or not _is_upgrade(headers) or not _is_nonce(key):
            raise UpgradeFailed("no request for a WebSocket", self._refusal())
        if headers.get(b"sec-websocket-version") != _VERSION:
            raise UpgradeFailed("another version of WebSocket", self._refusal())
        answer = [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), (b"Sec-WebSocket-Accept", _accept_token(key))]
        response = h11.InformationalResponse(status_code=101, headers=answer, reason=b"Switching Protocols")
        try:
            if not isinstance(self._http.next_event(), h11.EndOfMessage):
                raise UpgradeFailed("a request with a body")
            return self._http.send(response) or b"", self._http.trailing_data[0]
        except h11.ProtocolError as error:
            raise UpgradeFailed("a request that no protocol can follow") from error

    def _refusal(self) -> bytes:
        headers = [(b"Sec-WebSocket-Version", _VERSION), (b"Connection", b"close"), (b"Content-Length", b"0")]
        response = self._http.send(h11.Response(status_code=400, headers=headers, reason=b"Bad Request"))
        return (response or b"") + (self._http.send(h11.EndOfMessage()) or b"")


def _next_event(http: h11.Connection, data: bytes | bytearray) -> h11.Event | None:
    """What received bytes, empty at the end, complete; None if more are needed."""
    http.receive_data(bytes(data))
    try:
        event = http.next_event()
    except h11.RemoteProtocolError as error:
        raise UpgradeFailed("no HTTP") from error
    return event if isinstance(event, h11.Event) else None


def _accept_token(key: bytes) -> bytes:
    return base64.b64encode(hashlib.sha1(key + _GUID).digest())


def _is_nonce(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == NONCE_BYTES
    except binascii.Error:
        return False


def _is_upgrade(headers: dict[bytes, bytes]) -> bool:
    tokens = [token.strip().lower() for token in headers.get(b"connection", b"").split(b",")]
    return b"upgrade" in tokens and headers.get(b"upgrade", b"").lower() == b"websocket"
