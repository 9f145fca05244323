"""Links for the tests of the network layer: two machines with keys of their own, and what runs them."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from peersd.net.channels import ChannelIsClosed, IncomingOpen, LinkHandle
from peersd.net.listener import Listener, Opening, open_listener
from peersd.net.runner import run_link
from peersd.net.transport import open_websocket
from peersd_protocol.devicekeys import DeviceKeys
from peersd_protocol.handshake import Handshake, Role
from peersd_protocol.link import Link


def new_keys() -> DeviceKeys:
    return DeviceKeys(os.urandom(32), os.urandom(32), os.urandom(32))


def new_link(role: Role, keys: DeviceKeys | None = None) -> Link:
    handshake = Handshake(role, keys or new_keys(), boot_id=os.urandom(16), ephemeral_private=os.urandom(32))
    return Link(role, handshake)


class Ends:
    """Collects the two handles of a pair of links and keeps them up."""

    def __init__(self) -> None:
        self.send, self.receive = trio.open_memory_channel[LinkHandle](100)

    async def on_up(self, handle: LinkHandle) -> None:
        handle.release()
        self.send.send_nowait(handle)
        await trio.sleep_forever()


async def echo_all(handle: LinkHandle) -> None:
    """Takes the link; accepts every channel and sends back what comes, each in a task of its own."""
    handle.release()
    await echo_channels(handle)


async def echo_channels(handle: LinkHandle) -> None:
    """The same on a link that was taken."""

    async def echo(channel_opening: IncomingOpen) -> None:
        channel = channel_opening.accept(b"welcome " + channel_opening.payload)
        try:
            while True:
                await channel.send(await channel.receive())
        except ChannelIsClosed:
            channel.close()

    async with trio.open_nursery() as nursery:
        async for opening in handle.incoming:
            nursery.start_soon(echo, opening)


@asynccontextmanager
async def serving(on_up: Callable[[LinkHandle], Awaitable[None]]) -> AsyncGenerator[Listener, None]:
    keys = new_keys()

    async def serve(opening: Opening) -> None:
        await run_link(opening, new_link(Role.LISTENER, keys), on_up, direction="in")

    async with open_listener(["ws://127.0.0.1:0"], serve) as listener:
        yield listener


@asynccontextmanager
async def dialled(url: str) -> AsyncGenerator[LinkHandle, None]:
    ends = Ends()
    async with trio.open_nursery() as nursery:

        async def dial() -> None:
            await run_link(open_websocket(url, timeout_s=10), new_link(Role.DIALLER), ends.on_up, direction="out")

        nursery.start_soon(dial)
        yield await ends.receive.receive()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def linked() -> AsyncGenerator[tuple[LinkHandle, LinkHandle], None]:
    """Two ends of one link over a loopback socket: (dialler, listener)."""
    ends = Ends()
    async with AsyncExitStack() as stack:
        listener = await stack.enter_async_context(serving(ends.on_up))
        dialler = await stack.enter_async_context(dialled(listener.urls[0]))
        yield dialler, await ends.receive.receive()
