"""What a node takes from the machine that it runs on: the network, threads, the wall clock, chance and the disk.

The daemon's node runs in the machine's own. Another can be given to `open_node`, such as that of the swarm under virtual time
(`peersd.testing`): the node and all beneath it are the same code in either.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

from peersd.net.listener import Opening, open_listener
from peersd.net.transport import open_websocket
from peersd.node.advertise import OwnAddresses
from peersd.node.clock import wall_clock_ms
from peersd.store.disk import SYSTEM_DISK, Disk
from peersd.store.threads import Threads, WorkerThreads

_DRAW_BYTES: Final = 7
"""Bits of a draw: no more than a float has."""


class Network(Protocol):
    """How other devices are reached, and how they reach this one."""

    def dial(self, url: str, timeout_s: float) -> Opening:
        """A transport to whoever listens at an address; opened when entered.

        Args:
            url: ws:// or wss://.
            timeout_s: for the opening.

        Raises:
            PeersdError: `unreachable` or `timeout`, when entered.
        """
        ...

    def listen(
        self, urls: Sequence[str], serve: Callable[[Opening], Awaitable[None]]
    ) -> AbstractAsyncContextManager[tuple[str, ...]]:
        """Listens while the context is entered, and gives what it listens on; leaving it ends all that it served.

        Args:
            urls: ws://address:port; port 0 for any. Empty: listens on nothing.
            serve: called for each that dials, in a task of its own; lets no exception out.

        Raises:
            PeersdError: `unreachable`, when entered: an address cannot be listened on.
        """
        ...

    def reachable_at(self, listen_urls: Iterable[str]) -> list[str]:
        """The addresses at which others may reach what listens there; asked every few seconds, so it must be quick."""
        ...


class WebSockets:
    """The machine's own network."""

    def __init__(self) -> None:
        self._own_addresses = OwnAddresses()

    def dial(self, url: str, timeout_s: float) -> Opening:
        """See Network."""
        return open_websocket(url, timeout_s=timeout_s)

    @asynccontextmanager
    async def listen(self, urls: Sequence[str], serve: Callable[[Opening], Awaitable[None]]) -> AsyncGenerator[tuple[str, ...]]:
        """See Network."""
        async with open_listener(urls, serve) as listener:
            yield listener.urls

    def reachable_at(self, listen_urls: Iterable[str]) -> list[str]:
        """See Network."""
        return self._own_addresses.behind(listen_urls)


@dataclass(frozen=True)
class Environment:
    """What a node runs in; by default the machine's own.

    Attributes:
        network: how others are reached.
        threads: where what blocks runs.
        wall_ms: the wall clock, milliseconds since 1970; called in any thread.
        entropy: makes random bytes of a length; called in any thread.
        disk: what files are written through; called in any thread.
    """

    network: Network = field(default_factory=WebSockets)
    threads: Threads = field(default_factory=WorkerThreads)
    wall_ms: Callable[[], int] = wall_clock_ms
    entropy: Callable[[int], bytes] = secrets.token_bytes
    disk: Disk = SYSTEM_DISK

    def draw(self) -> float:
        """A random number from 0 to below 1."""
        return (int.from_bytes(self.entropy(_DRAW_BYTES), "big") >> 3) / (1 << 53)
