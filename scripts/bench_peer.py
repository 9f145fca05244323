"""The other process of the figures that need no daemon: echoes and bulk over a Unix socket, a WebSocket and a link of peersd.

It prints where it listens as one line of JSON and goes when its standard input ends.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Final

import trio
import trio_websocket

from peersd.net.channels import Channel, ChannelIsClosed, IncomingOpen, LinkHandle
from peersd.net.listener import Opening, open_listener
from peersd.net.runner import run_link
from peersd_protocol.constants import STREAM_MESSAGE_BYTES
from peersd_protocol.devicekeys import DeviceKeys
from peersd_protocol.handshake import Handshake, Role
from peersd_protocol.link import Link

BULK_MESSAGE_BYTES: Final = STREAM_MESSAGE_BYTES
"""As catch-up sends them."""

WEBSOCKET_BUFFER_BYTES: Final = 1 << 20
"""Of a plain WebSocket: with trio-websocket's own 4 KiB it moves a tenth of what it can."""

DONE: Final = b"done"
"""Answers a bulk transfer once all of it has arrived."""

ECHO, SINK, SOURCE = "echo", "sink", "source"
"""What the other process does with a WebSocket or a channel. It sends back what comes; it takes messages until an empty text or
one byte comes, and answers DONE; it sends as many bulk messages as the number says that comes."""


def new_link(role: Role) -> Link:
    """The machine of a link of a device that nobody knows."""
    keys = DeviceKeys(os.urandom(32), os.urandom(32), os.urandom(32))
    return Link(role, Handshake(role, keys, boot_id=os.urandom(16), ephemeral_private=os.urandom(32)))


async def answer_lines(stream: trio.SocketStream) -> None:
    """Answers each line of JSON with one, as the least that any local daemon does."""
    buffer = bytearray()
    while received := await stream.receive_some(65_536):
        buffer += received
        while (end := buffer.find(b"\n")) >= 0:
            request = json.loads(buffer[:end])
            del buffer[: end + 1]
            await stream.send_all(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": {"rows": 1}}).encode() + b"\n")


async def answer_websocket(request: trio_websocket.WebSocketRequest) -> None:
    """Serves one WebSocket; its path says what to do."""
    purpose = request.path.strip("/")
    socket = await request.accept()
    try:
        while True:
            message = await socket.get_message()
            if purpose == ECHO:
                await socket.send_message(message)
            elif purpose == SINK and len(message) == 1:
                await socket.send_message(DONE)
            elif purpose == SOURCE:
                bulk = bytes(BULK_MESSAGE_BYTES)
                for _ in range(int(message)):
                    await socket.send_message(bulk)
    except trio_websocket.ConnectionClosed:
        return


async def answer_channel(opening: IncomingOpen) -> None:
    """Serves one channel; what it was opened with says what to do."""
    purpose, channel = opening.payload.decode(), opening.accept()
    try:
        while True:
            message = await channel.receive()
            if purpose == ECHO:
                await channel.send(message)
            elif purpose == SINK and len(message) == 1:
                await channel.send(DONE)
            elif purpose == SOURCE:
                await send_bulk(channel, int(message))
    except ChannelIsClosed:
        return


async def send_bulk(channel: Channel, messages: int) -> None:
    """Sends so many bulk messages."""
    bulk = bytes(BULK_MESSAGE_BYTES)
    for _ in range(messages):
        await channel.send(bulk, bulk=True)


async def serve_link(handle: LinkHandle) -> None:
    """Accepts every channel, each in a task of its own."""
    handle.release()
    async with trio.open_nursery() as nursery:
        async for opening in handle.incoming:
            nursery.start_soon(answer_channel, opening)


async def serve_socket(opening: Opening) -> None:
    """Serves one link."""
    await run_link(opening, new_link(Role.LISTENER), serve_link, direction="in")


async def serve(socket_path: Path) -> None:
    """Listens until standard input ends."""
    local = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await local.bind(os.fspath(socket_path))
    local.listen()
    async with open_listener(["ws://127.0.0.1:0"], serve_socket) as listener, trio.open_nursery() as nursery:
        server = await nursery.start(
            lambda task_status: trio_websocket.serve_websocket(
                answer_websocket,
                "127.0.0.1",
                0,
                ssl_context=None,
                receive_buffer_size=WEBSOCKET_BUFFER_BYTES,
                task_status=task_status,
            )
        )
        nursery.start_soon(trio.serve_listeners, answer_lines, [trio.SocketListener(local)])
        print(json.dumps({"websocket": server.port, "link": listener.urls[0]}), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(serve, Path(sys.argv[1]))
