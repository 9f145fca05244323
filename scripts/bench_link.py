"""The link alone, between two processes that have nothing but the network layer, beside plain trio-websocket."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import trio

from peersd.net.channels import Channel, LinkHandle
from peersd.net.runner import run_link
from peersd.net.transport import open_websocket
from peersd_protocol.handshake import Role
from peersd_protocol.noise import KEY_BYTES, PLAINTEXT_BYTES_MAX, CipherState
from scripts.bench_figures import Spread
from scripts.bench_limits import MESSAGE_BYTES, SAMPLES, Limits, sample
from scripts.bench_peer import BULK_MESSAGE_BYTES, DONE, ECHO, SINK, SOURCE, new_link, send_bulk
from scripts.bench_run import Run

DIAL_TIMEOUT_S = 10
MEGABYTE = 1_000_000

FAR_S = 0.025
"""One way of a network that is not loopback: what the window of credit is for."""
FAR_PART = 10
"""Over that, so much less is moved."""


async def measure_link(run: Run) -> None:
    """Echoes on one channel while the link is idle and while another moves bulk, and bulk alone, each way."""
    messages = run.sizes.link_megabytes * MEGABYTE // BULK_MESSAGE_BYTES
    idle: list[Spread] = []
    busy: list[Spread] = []
    plain: list[Spread] = []
    ciphers: list[float] = []
    rates: dict[str, list[float]] = {SINK: [], SOURCE: []}
    plain_rates: dict[str, list[float]] = {SINK: [], SOURCE: []}
    async with open_link(run.limits.link_url) as link:
        echo = await link.open(ECHO.encode())
        for _ in range(run.sizes.rounds):
            plain.append(await _measure_plain_echo(run.limits))
            idle.append(await _measure_echo(echo))
            busy.append(await _measure_echo_beside_bulk(link, echo))
            ciphers.append(_measure_cipher(run.sizes.link_megabytes * MEGABYTE))
            for purpose in (SINK, SOURCE):
                plain_rates[purpose].append(await _measure_plain_bulk(run.limits, purpose, messages))
                rates[purpose].append(await _measure_bulk(link, purpose, messages))
    run.add("link_echo_p50", "ms", [one.p50_ms for one in idle], [one.p50_ms for one in plain])
    run.add("link_echo_p99", "ms", [one.p99_ms for one in idle], [one.p99_ms for one in plain])
    run.add("link_echo_beside_bulk_p50", "ms", [one.p50_ms for one in busy], [one.p50_ms for one in idle])
    run.add("link_echo_beside_bulk_p99", "ms", [one.p99_ms for one in busy], [one.p99_ms for one in idle])
    run.add("link_bulk_out", "MB/s", rates[SINK], plain_rates[SINK])
    run.add("link_bulk_in", "MB/s", rates[SOURCE], plain_rates[SOURCE])
    run.add("link_cipher", "MB/s", ciphers)
    async with _open_detour(run.limits.link_url) as url, open_link(url) as link:
        far = [await _measure_bulk(link, SINK, max(1, messages // FAR_PART)) for _ in range(run.sizes.rounds)]
    run.add("link_bulk_far", "MB/s", far)


@asynccontextmanager
async def open_link(url: str) -> AsyncGenerator[LinkHandle]:
    """A link to the other process."""
    up, ups = trio.open_memory_channel[LinkHandle](1)

    async def keep(handle: LinkHandle) -> None:
        handle.release()
        up.send_nowait(handle)
        await trio.sleep_forever()

    async def dial() -> None:
        await run_link(open_websocket(url, timeout_s=DIAL_TIMEOUT_S), new_link(Role.DIALLER), keep, direction="out")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        yield await ups.receive()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _open_detour(url: str) -> AsyncGenerator[str]:
    """An address that leads to `url` over a network of any bandwidth, FAR_S long either way."""
    port = urlsplit(url).port
    assert port is not None

    async def lead(near: trio.SocketStream) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as far, trio.open_nursery() as nursery:
            nursery.start_soon(_delay, near, far)
            nursery.start_soon(_delay, far, near)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, lead, 0, host="127.0.0.1"))
        yield f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def _delay(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    late, lates = trio.open_memory_channel[tuple[float, bytes | bytearray]](math.inf)  # credit bounds it

    async def pass_on() -> None:
        async for at_s, data in lates:
            await trio.sleep_until(at_s)
            await sink.send_all(data)

    async with trio.open_nursery() as nursery, late:
        nursery.start_soon(pass_on)
        while data := await source.receive_some(1 << 20):
            late.send_nowait((trio.current_time() + FAR_S, data))


async def _measure_plain_echo(limits: Limits) -> Spread:
    async with limits.open_websocket(ECHO) as connection:
        message = bytes(MESSAGE_BYTES)

        async def echo() -> None:
            await connection.send_message(message)
            await connection.get_message()

        return await sample(echo)


async def _measure_echo(channel: Channel, count: int = SAMPLES) -> Spread:
    message = bytes(MESSAGE_BYTES)

    async def echo() -> None:
        await channel.send(message)
        await channel.receive()

    return await sample(echo, count)


async def _measure_echo_beside_bulk(link: LinkHandle, echo: Channel) -> Spread:
    """While another channel sends as much as it can to the other process."""
    bulk = await link.open(SINK.encode())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_bulk, bulk, 1 << 30)
        await _measure_echo(echo, count=20)  # until the bulk is under way
        spread = await _measure_echo(echo)
        nursery.cancel_scope.cancel()
    bulk.close()
    await _measure_echo(echo, count=20)
    return spread


async def _measure_plain_bulk(limits: Limits, purpose: str, messages: int) -> float:
    """MB/s over a plain WebSocket, from this process or to it."""
    async with limits.open_websocket(purpose) as connection:

        async def sink() -> None:
            bulk = bytes(BULK_MESSAGE_BYTES)
            for _ in range(messages):
                await connection.send_message(bulk)
            await connection.send_message(b"\n")
            assert await connection.get_message() == DONE

        async def source() -> None:
            await connection.send_message(str(messages).encode())
            for _ in range(messages):
                await connection.get_message()

        return await _measure_rate(sink if purpose == SINK else source, messages)


async def _measure_bulk(link: LinkHandle, purpose: str, messages: int) -> float:
    """MB/s over a channel, from this process or to it."""
    channel = await link.open(purpose.encode())

    async def sink() -> None:
        await send_bulk(channel, messages)
        await channel.send(b"\n", bulk=True)
        assert await channel.receive() == DONE

    async def source() -> None:
        await channel.send(str(messages).encode())
        for _ in range(messages):
            await channel.receive()

    rate = await _measure_rate(sink if purpose == SINK else source, messages)
    channel.close()
    return rate


def _measure_cipher(total_bytes: int) -> float:
    """MB/s of a link's cipher alone, in Noise messages as long as may be: each side does this with every byte, and more."""
    cipher, message = CipherState(bytes(KEY_BYTES)), bytes(PLAINTEXT_BYTES_MAX)
    messages = total_bytes // len(message)
    began = time.perf_counter()
    for _ in range(messages):
        cipher.encrypt(message)
    return messages * len(message) / MEGABYTE / (time.perf_counter() - began)


async def _measure_rate(transfer: Callable[[], Awaitable[None]], messages: int) -> float:
    began = time.perf_counter()
    await transfer()
    return messages * BULK_MESSAGE_BYTES / MEGABYTE / (time.perf_counter() - began)
