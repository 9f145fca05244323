"""Runs the machine of a link over a transport: one task reads, one writes, one keeps the timers (SPEC: L).

The runner performs effects and decides nothing. The reader never waits for the layer above: what it reads goes into queues that
the channels' credit bounds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal

import trio

from peersd.errors import PeersdError
from peersd.monotonic import monotonic_ms
from peersd.net.channels import LinkHandle
from peersd.net.listener import Opening
from peersd.net.transport import Transport, TransportClosed
from peersd_protocol import ids
from peersd_protocol.errors import CloseCode
from peersd_protocol.link import (
    Accepted,
    CancelTimer,
    ChannelClosed,
    Down,
    Effect,
    Link,
    MessageReceived,
    OpenRequested,
    PeerClock,
    Refused,
    RttMeasured,
    SetTimer,
    Up,
    Wake,
    Writable,
)

_log = logging.getLogger("peersd.net")

_FAREWELL_TIMEOUT_S: Final = 1.0
"""How long the last GOAWAY may take to be written (guess)."""


def wall_clock_ms() -> int:
    """The machine's wall clock, ms since 1970."""
    return time.time_ns() // 1_000_000


async def run_link(
    opening: Opening,
    link: Link,
    on_up: Callable[[LinkHandle], Awaitable[None]],
    *,
    direction: Literal["in", "out"],
    wall_ms: Callable[[], int] = wall_clock_ms,
) -> Down:
    """Opens a transport and runs a link over it until it is down.

    This is the guard of a link: nothing that the remote side sends, and no fault of this link's own code, gets out.

    Args:
        opening: open_websocket(…), accept_websocket(…), or another that gives a transport.
        link: a new machine.
        on_up: runs in a task of the link's once the handshake is done. It asks the table of links, calls `release` or `close`,
            and serves the link; it is cancelled when the link is down, and the link closes when it returns.
        direction: "out" if this side dials.
        wall_ms: the wall clock.

    Returns:
        Why the link is down.

    Raises:
        PeersdError: the transport could not be opened (a dialler's `unreachable` or `timeout`).
    """
    runner = _LinkRunner(link, on_up, direction, wall_ms)
    try:
        async with opening as transport:
            await runner.run(transport)
    except PeersdError:
        raise
    except TransportClosed as error:  # a WebSocket that never came up, or was misused
        runner.stop(CloseCode.HANDSHAKE, str(error))
    except Exception as error:  # noqa: BLE001 - the guard of a link
        _log.error("link_failed", exc_info=error, extra={"fields": runner.fields})
        runner.stop(CloseCode.INTERNAL, "a fault of this side")
    down = runner.down
    assert down is not None
    _log.info("link_down", extra={"fields": {**runner.fields, "code": down.code.name.lower(), "detail": down.detail}})
    return down


class _LinkRunner:
    """One run of one link."""

    def __init__(
        self,
        link: Link,
        on_up: Callable[[LinkHandle], Awaitable[None]],
        direction: Literal["in", "out"],
        wall_ms: Callable[[], int],
    ) -> None:
        self._link = link
        self._on_up = on_up
        self._wall_ms = wall_ms
        self._handle = LinkHandle(link, self.perform, monotonic_ms, direction=direction, url="")
        self._timers_at_ms: dict[str, int] = {}
        self._timers_changed = trio.Event()
        self._wake = trio.Event()
        self._up = trio.Event()
        self._ended = trio.Event()
        self._transport: Transport | None = None
        self.down: Down | None = None

    @property
    def fields(self) -> dict[str, str]:
        """What a log line says of this link."""
        device = self._handle.remote_device  # empty until the handshake is done
        fields = {"url": self._handle.url, "direction": self._handle.direction}
        return {**fields, "device": ids.format_id(ids.DEVICE, device) if device else ""}

    def stop(self, code: CloseCode, detail: str) -> None:
        """Ends the link if it is not over."""
        self.perform(self._link.close(code, monotonic_ms(), detail))

    async def run(self, transport: Transport) -> None:
        """Runs until the link is down and its last word is written."""
        self._transport = transport
        self._handle.url = transport.url
        self._handle.count_bytes = lambda: (transport.bytes_in, transport.bytes_out)
        self._set_wall_clock()
        try:
            self.perform(self._link.start(monotonic_ms()))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, transport)
                nursery.start_soon(self._keep_timers)
                nursery.start_soon(self._serve)
                nursery.start_soon(self._write, transport)
                await self._ended.wait()
                nursery.cancel_scope.cancel()
        finally:
            # However it ended, those above learn it, and the remote side if it still listens.
            self.stop(CloseCode.GOING_AWAY, "cancelled")
            with trio.CancelScope(deadline=trio.current_time() + _FAREWELL_TIMEOUT_S, shield=True):
                await self._say_farewell(transport)

    async def _say_farewell(self, transport: Transport) -> None:
        try:
            farewell = self._link.pull(monotonic_ms())
            if farewell is not None:
                await transport.send(farewell)
        except TransportClosed:
            pass

    async def _read(self, transport: Transport) -> None:
        receive = self._link.receive
        try:
            while self.down is None:
                data = await transport.receive()
                self.perform(receive(data, monotonic_ms()))
        except TransportClosed as error:
            self.stop(CloseCode.GOING_AWAY, f"the transport ended: {error}")

    async def _write(self, transport: Transport) -> None:
        pull, take_effects = self._link.pull, self._link.take_effects
        try:
            while self.down is None:
                data = pull(monotonic_ms())
                self.perform(take_effects(monotonic_ms()))
                if data is not None:
                    await transport.send(data)
                elif not self._wake.is_set():
                    await self._wake.wait()
                    self._wake = trio.Event()
                else:
                    self._wake = trio.Event()
        except TransportClosed as error:
            self.stop(CloseCode.GOING_AWAY, f"the transport ended: {error}")

    async def _serve(self) -> None:
        await self._up.wait()
        await self._on_up(self._handle)
        self.stop(CloseCode.NORMAL, "served")

    async def _keep_timers(self) -> None:
        while True:
            self._timers_changed = trio.Event()
            next_ms = min(self._timers_at_ms.values(), default=None)
            with trio.move_on_at(float("inf") if next_ms is None else next_ms / 1000):
                await self._timers_changed.wait()
            now_ms = monotonic_ms()
            for name in [name for name, at_ms in self._timers_at_ms.items() if at_ms <= now_ms]:
                if self._timers_at_ms.pop(name, None) is not None:
                    self._set_wall_clock()
                    self.perform(self._link.timer_expired(name, now_ms))

    def _set_wall_clock(self) -> None:
        self._link.wall_offset_ms = self._wall_ms() - monotonic_ms()

    def perform(self, effects: Sequence[Effect]) -> None:
        """Performs effects in their order."""
        for effect in effects:
            self._perform_one(effect)

    def _perform_one(self, effect: Effect) -> None:
        handle = self._handle
        match effect:
            case MessageReceived(channel, message):
                receiver = handle.channels.get(channel)
                if receiver is not None:
                    receiver.push(message)
            case Wake():
                self._wake.set()
            case Writable(channel):
                sender = handle.channels.get(channel)
                if sender is not None:
                    sender.mark_writable()
            case SetTimer(name, at_ms):
                self._timers_at_ms[name] = at_ms
                self._timers_changed.set()
            case CancelTimer(name):
                self._timers_at_ms.pop(name, None)
            case OpenRequested(channel, payload, proof_follows):
                handle.note_requested(channel, payload, proof_follows=proof_follows)
            case Accepted(channel, payload):
                handle.note_accepted(channel, payload)
            case Refused(channel, payload):
                handle.note_refused(channel, payload)
            case ChannelClosed(channel, code):
                handle.note_closed(channel, code)
            case RttMeasured(ms):
                handle.note_rtt(ms)
            case PeerClock(offset_ms):
                handle.clock_offset_ms = offset_ms
            case Up():
                self._note_up(effect)
            case Down():
                self._note_down(effect)

    def _note_up(self, up: Up) -> None:
        handle = self._handle
        handle.remote_device = up.remote_device
        handle.remote_boot_id = up.remote_boot_id
        handle.remote_replaces = up.remote_replaces
        handle.is_alone = up.is_alone
        handle.handshake_hash = up.handshake_hash
        handle.since_ms = self._wall_ms()
        if self._transport is not None:
            self._transport.authenticated()
        self._up.set()

    def _note_down(self, down: Down) -> None:
        self.down = down
        self._handle.note_down(down.code)
        self._ended.set()
