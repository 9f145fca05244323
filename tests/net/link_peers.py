"""Devices with all their links over real sockets, and relays that hold handshakes up."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Literal
from urllib.parse import urlsplit

import trio

from peersd.net.channels import LinkHandle
from peersd.net.listener import open_listener
from peersd.node.environment import Environment
from peersd.node.links import Links
from peersd_protocol.devicekeys import DeviceKeys
from peersd_protocol.dialing import Patience
from tests.net.links import echo_channels, new_keys

HANG_S = 60

QUICK = Patience(delay_ms=20, delay_ms_max=100, refused_ms=200)


class Peer:
    """One device: its links, and what they told.

    Attributes:
        carrying_max: the most links to one device that ever carried channels at once.
        told: the directions of links that came up ("+out") and went down ("-in"), in their order.
        alarms: names and devices.
    """

    def __init__(self, keys: DeviceKeys | None = None, patience: Patience = QUICK) -> None:
        self.keys = keys or new_keys()
        self.url = ""
        self.served: list[LinkHandle] = []
        self.carrying_max = 0
        self.told: list[str] = []
        self.alarms: list[tuple[str, bytes]] = []
        self.changes = 0
        self.links = Links(
            self.keys, self.serve, self._changed, Environment(), patience, on_link=self._on_link, on_alarm=self._on_alarm
        )

    @property
    def device(self) -> bytes:
        return self.keys.device

    async def serve(self, handle: LinkHandle) -> None:
        self.served.append(handle)
        handle.serving.set()
        alike = [other for other in self.served if other.remote_device == handle.remote_device and not other.is_down]
        self.carrying_max = max(self.carrying_max, len(alike))
        await echo_channels(handle)

    def to(self, other: Peer) -> LinkHandle | None:
        handle = self.links.to_device(other.device)
        return None if handle is None or handle.is_down else handle

    def _changed(self) -> None:
        self.changes += 1

    def _on_link(self, handle: LinkHandle, is_up: bool) -> None:
        self.told.append(("+" if is_up else "-") + handle.direction)

    def _on_alarm(self, name: str, device: bytes) -> None:
        self.alarms.append((name, device))


@asynccontextmanager
async def running(peer: Peer) -> AsyncGenerator[Peer]:
    """Lets a device dial and listen; leaving it is its process's end."""
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.links.run)
        async with open_listener(["ws://127.0.0.1:0"], peer.links.serve_socket) as listener:
            peer.url = listener.urls[0]
            yield peer
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_peer(keys: DeviceKeys | None = None, patience: Patience = QUICK) -> AsyncGenerator[Peer]:
    async with running(Peer(keys, patience)) as peer:
        yield peer


class Process:
    """A device whose process can end in the middle of a test."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self._scope:
            async with running(self.peer):
                task_status.started()
                await trio.sleep_forever()
        self._ended.set()

    async def end(self) -> None:
        self._scope.cancel()
        await self._ended.wait()


async def until(condition: Callable[[], object]) -> None:
    """Returns when the condition holds."""
    with trio.fail_after(HANG_S):
        while not condition():
            await trio.sleep(0.002)


def are_linked(one: Peer, other: Peer) -> bool:
    """Whether both have the same link."""
    ours, theirs = one.to(other), other.to(one)
    return ours is not None and theirs is not None and ours.handshake_hash == theirs.handshake_hash


async def echo_over(one: Peer, other: Peer) -> None:
    """Shows that the link carries."""
    handle = one.to(other)
    assert handle is not None
    with trio.fail_after(HANG_S):
        channel = await handle.open(b"x")
        await channel.send(b"hello")
        assert await channel.receive() == b"hello"
        channel.close()


class Gate:
    """A relay before a listener that holds one message of a handshake up until `release`.

    Attributes:
        arrived: set when the message is here.
        accepted: connections taken.
        open_count: connections that are open.
    """

    def __init__(self, hold: Literal["message 2", "message 3"]) -> None:
        self.hold = hold
        self.url = ""
        self.target_url = ""
        self.arrived = trio.Event()
        self.accepted = 0
        self.open_count = 0
        self._released = trio.Event()

    def release(self) -> None:
        self._released.set()

    async def serve(self, stream: trio.SocketStream) -> None:
        self.accepted += 1
        self.open_count += 1
        try:
            target = await trio.open_tcp_stream("127.0.0.1", urlsplit(self.target_url).port or 0)
            async with target, trio.open_nursery() as nursery:
                # Besides HTTP's heads, message 1 is let through: a frame of the dialler's.
                from_dialler, from_listener = (1, None) if self.hold == "message 3" else (None, 0)
                nursery.start_soon(self._pass, stream, target, from_dialler, nursery.cancel_scope)
                nursery.start_soon(self._pass, target, stream, from_listener, nursery.cancel_scope)
        finally:
            self.open_count -= 1
            await trio.aclose_forcefully(stream)

    async def _pass(
        self, source: trio.SocketStream, sink: trio.SocketStream, frames_free: int | None, scope: trio.CancelScope
    ) -> None:
        seen, sent_bytes = b"", 0
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while chunk := await source.receive_some(65_536):
                seen += chunk
                free_bytes = len(seen) if frames_free is None else _prefix_bytes(seen, frames_free)
                await sink.send_all(seen[sent_bytes:free_bytes])
                sent_bytes = min(free_bytes, len(seen))
                if sent_bytes < len(seen):
                    self.arrived.set()
                    await self._released.wait()
                    frames_free = None
                    await sink.send_all(seen[sent_bytes:])
                    sent_bytes = len(seen)
        scope.cancel()


def _prefix_bytes(data: bytes, frames: int) -> int:
    """How many of these bytes are an HTTP head and the given number of WebSocket frames after it."""
    at = data.find(b"\r\n\r\n") + 4
    if at < 4:
        return len(data)
    for _ in range(frames):
        if at + 8 > len(data):
            return len(data)
        length, masked, at = data[at + 1] & 0x7F, data[at + 1] & 0x80, at + 2
        if length == 126:
            length, at = int.from_bytes(data[at : at + 2], "big"), at + 2
        at += length + (4 if masked else 0)
    return at


@asynccontextmanager
async def open_gate(target: Peer, hold: Literal["message 2", "message 3"]) -> AsyncGenerator[Gate]:
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        gate = Gate(hold)
        gate.url, gate.target_url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}", target.url
        nursery.start_soon(trio.serve_listeners, gate.serve, [listener])
        yield gate
        nursery.cancel_scope.cancel()
