"""The listening port: one, on several addresses (DESIGN 5)."""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

import trio

from peersd.errors import PeersdError
from peersd.net.admission import Admission, NoPlace
from peersd.net.transport import Transport, accept_websocket, parse_link_url

_log = logging.getLogger("peersd.net")

Opening: TypeAlias = AbstractAsyncContextManager[Transport]
"""A transport that opens when entered and closes when left."""

_PORT_ATTEMPTS: Final = 8
"""Tries to find a port that is free on all addresses, when the system chooses it for the first."""


@dataclass(frozen=True)
class Listener:
    """An open listener.

    Attributes:
        urls: what it listens on, with the actual port.
        admission: who is in the handshake now.
    """

    urls: tuple[str, ...]
    admission: Admission


@asynccontextmanager
async def open_listener(
    urls: Sequence[str], serve: Callable[[Opening], Awaitable[None]], *, proxies: Collection[str] = ()
) -> AsyncGenerator[Listener, None]:
    """Listens while the context is entered; leaving it ends all it served.

    Args:
        urls: ws://address:port, with one port for all; port 0 lets the system choose one. Empty: listens on nothing.
        serve: is called for each socket, in a task of its own, with its transport still to be opened. It must let no exception
            out: `run_link` does not.
        proxies: addresses whose sockets are not limited per address.

    Raises:
        PeersdError: `unreachable` if an address cannot be listened on. One that the machine does not have is only logged if
            another works.
    """
    for url in urls:
        if parse_link_url(url).scheme != "ws":
            raise PeersdError("unreachable", f"cannot listen on {url}", hint="Listen on ws:// and let a proxy speak wss://.")
    sockets = await _bind(urls)
    admission = Admission(proxies)

    async def serve_stream(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                address, port = stream.socket.getpeername()[:2]
            except OSError:
                return  # gone already
            try:
                place = await admission.enter(address)
            except NoPlace:
                _log.warning("socket_refused", extra={"fields": {"address": address, "reason": "too many in their handshake"}})
                return
            try:
                await serve(accept_websocket(stream, f"ws://{_bracketed(address)}:{port}", place))
            finally:
                place.leave()

    async with trio.open_nursery() as nursery:
        if sockets:
            await nursery.start(trio.serve_listeners, serve_stream, [listener for _, listener in sockets])
        yield Listener(tuple(url for url, _ in sockets), admission)
        nursery.cancel_scope.cancel()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _bind(urls: Sequence[str]) -> list[tuple[str, trio.SocketListener]]:
    for attempt in range(_PORT_ATTEMPTS):
        try:
            return await _bind_once(urls)
        except PeersdError:
            # With a port of the system's choosing, another program may have it on the second address.
            if attempt == _PORT_ATTEMPTS - 1 or len(urls) < 2 or any(parse_link_url(url).port for url in urls):
                raise
    raise AssertionError("unreachable")


async def _bind_once(urls: Sequence[str]) -> list[tuple[str, trio.SocketListener]]:
    bound: list[tuple[str, trio.SocketListener]] = []
    missing: list[PeersdError] = []
    chosen_port = 0
    try:
        for url in urls:
            parts = parse_link_url(url)
            assert parts.hostname is not None
            try:
                listeners = await trio.open_tcp_listeners(parts.port or chosen_port, host=parts.hostname)
            except OSError as error:
                failure = _listen_error(url, error)
                failure.__cause__ = error
                if not _is_missing_address(error):
                    raise failure from error
                missing.append(failure)
                continue
            for listener in listeners:
                host, port = listener.socket.getsockname()[:2]
                chosen_port = port
                bound.append((f"ws://{_bracketed(host)}:{port}", listener))
        if urls and not bound:
            raise missing[0]
    except BaseException:
        for _, listener in bound:
            await trio.aclose_forcefully(listener)
        raise
    for failure in missing:
        _log.warning("listen_skipped", extra={"fields": {"reason": failure.message}})
    return bound


def _is_missing_address(error: OSError) -> bool:
    """Whether the machine lacks the address or the family, such as IPv6."""
    return error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def _listen_error(url: str, error: OSError) -> PeersdError:
    if error.errno == errno.EADDRINUSE:
        return PeersdError(
            "unreachable",
            f"cannot listen on {url}: address in use",
            hint="Another program, or another daemon, has this port. Choose one with --listen.",
        )
    hint = "Choose an address of this machine and a port that this user may use with --listen."
    return PeersdError("unreachable", f"cannot listen on {url}: {error.strerror or error}", hint=hint)
