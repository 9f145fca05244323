"""The links of this device: dials, and the table that keeps one link per remote device (DESIGN 5)."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final, TypeAlias

import trio

from peersd.errors import PeersdError
from peersd.net.channels import LinkHandle
from peersd.net.listener import Opening
from peersd.net.runner import run_link
from peersd.net.transport import open_websocket, parse_link_url
from peersd_protocol.devicekeys import DeviceKeys
from peersd_protocol.dialing import CancelTimer, Dial, Dialing, Patience, SetTimer, TargetKey
from peersd_protocol.dialing import Effect as DialingEffect
from peersd_protocol.errors import CloseCode
from peersd_protocol.handshake import Handshake, Role
from peersd_protocol.link import Link
from peersd_protocol.linktable import Alarm, Close, LinkTable
from peersd_protocol.linktable import Link as TableLink

_log = logging.getLogger("peersd.node")

Entropy: TypeAlias = Callable[[int], bytes]

KEY_BYTES: Final = 32
BOOT_ID_BYTES: Final = 16

DIAL_TIMEOUT_S: Final = 10.0
"""For name resolution, TCP, TLS and the WebSocket handshake of one dial (DESIGN 5: 10 s to finish)."""


class _Found:
    """What became of a dial that somebody waits for."""

    def __init__(self) -> None:
        self.settled = trio.Event()
        self.handle: LinkHandle | None = None
        self.error: PeersdError | None = None

    def settle(self, handle: LinkHandle | None, error: PeersdError | None = None) -> None:
        """The first answer counts."""
        if not self.settled.is_set():
            self.handle, self.error = handle, error
            self.settled.set()


class Links:
    """All links of one device.

    Args:
        keys: the device's keys.
        serve: runs for each link that stays, in a task of the link's, until the link is down.
        changed: called when a link came up or went down.
        entropy: makes random bytes.
        patience: the waits between dials.
    """

    def __init__(
        self,
        keys: DeviceKeys,
        serve: Callable[[LinkHandle], Awaitable[None]],
        changed: Callable[[], None],
        entropy: Entropy,
        patience: Patience | None = None,
    ) -> None:
        self._keys = keys
        self._serve = serve
        self._changed = changed
        self._entropy = entropy
        self._boot_id = entropy(BOOT_ID_BYTES)
        self._table = LinkTable(keys.device)
        self._dialing = Dialing(patience)
        self._handles: dict[int, LinkHandle] = {}
        self._ids = itertools.count(1)
        self._timers: dict[TargetKey, float] = {}
        self._timers_changed = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._alarmed: set[bytes] = set()

    def handles(self) -> list[LinkHandle]:
        """The links that stay."""
        return [self._handles[link.link_id] for link in self._table.links]

    def to_device(self, device: bytes) -> LinkHandle | None:
        """The link to a device."""
        link = self._table.link_to(device)
        return self._handles.get(link.link_id) if link else None

    # --- Life -------------------------------------------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Dials until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._run_timers)
            task_status.started()
            await trio.sleep_forever()

    async def serve_socket(self, opening: Opening) -> None:
        """Runs the link on a socket that was accepted; lets no exception out."""
        with suppress(PeersdError):
            await run_link(opening, self._link(Role.LISTENER), self._on_up, direction="in")

    def _link(self, role: Role, expected_device: bytes | None = None) -> Link:
        handshake = Handshake(
            role,
            self._keys,
            boot_id=self._boot_id,
            ephemeral_private=self._entropy(KEY_BYTES),
            replaces=self._table.replaces if role is Role.DIALLER else b"",
            expected_device=expected_device,
        )
        return Link(role, handshake)

    async def _on_up(self, handle: LinkHandle) -> None:
        await self._carry(handle, None, None)

    async def _carry(self, handle: LinkHandle, target: TargetKey | None, found: _Found | None) -> None:
        """Asks the table; serves the link while it stays.

        Args:
            handle: a link whose handshake is done.
            target: what the dial was for that made it, if the dialing machine asked for one.
            found: told which link there is to the remote device: this one, or the one that stays in its place.
        """
        existing = self.to_device(handle.remote_device)
        if found is not None and existing is not None and not existing.is_down:
            # Somebody asked for a link that there is: the new one is dropped before the other side hears of it.
            handle.close(CloseCode.REPLACED)
            found.settle(existing)
            return
        link_id = next(self._ids)
        self._handles[link_id] = handle
        link = TableLink(
            link_id,
            handle.remote_device,
            handle.direction == "out",
            handle.remote_boot_id,
            handle.handshake_hash,
            handle.remote_replaces,
        )
        stays = False
        try:
            for effect in self._table.link_up(link):
                if isinstance(effect, Close):
                    self._handles[effect.link_id].close(effect.close_code)
                elif isinstance(effect, Alarm):
                    self._raise_alarm(effect)
                else:
                    handle.release()
                    stays = True
            if found is not None:
                found.settle(self.to_device(handle.remote_device))
            if not stays:
                return
            self._perform(self._dialing.linked(handle.remote_device, self._now_ms(), dialled=target))
            _log.info("link_up", extra={"fields": self._fields(handle)})
            self._changed()
            await self._serve(handle)
        finally:
            del self._handles[link_id]
            self._table.link_down(link_id)
            if stays and self._table.link_to(handle.remote_device) is None:
                self._perform(self._dialing.unlinked(handle.remote_device, self._now_ms(), random.random()))
            elif target is not None and not stays:
                self._perform(self._dialing.dial_ended(target, self._now_ms(), random.random()))
            self._changed()

    def _raise_alarm(self, alarm: Alarm) -> None:
        if alarm.device not in self._alarmed:
            self._alarmed.add(alarm.device)
            _log.warning("alarm", extra={"fields": {"alarm": alarm.name, "device": alarm.device[:4].hex()}})

    def _fields(self, handle: LinkHandle) -> dict[str, str]:
        return {"device": handle.remote_device[:4].hex(), "url": handle.url, "direction": handle.direction}

    # --- Dials ------------------------------------------------------------------------------------------------------------------

    def want_device(self, device: bytes, urls: Iterable[str]) -> None:
        """A link to this device is wanted from now on, and these are addresses of it."""
        if device != self._keys.device:
            self._perform(self._dialing.want_device(device, urls))

    async def connect(self, url: str, device: bytes | None, timeout_s: float) -> LinkHandle:
        """Returns the link to whoever answers at `url`: the one there is, or one dialled now.

        Args:
            url: ws:// or wss://.
            device: who has to answer, or None for anybody.
            timeout_s: how long to try.

        Raises:
            PeersdError: `unreachable`, `timeout`.
        """
        parse_link_url(url)
        for handle in self.handles():
            if handle.direction == "out" and handle.url == url and device in (None, handle.remote_device):
                return handle
        assert self._nursery is not None
        found = _Found()
        self._nursery.start_soon(self._dial, url, device, None, found, timeout_s)
        await found.settled.wait()
        if found.handle is not None:
            return found.handle
        assert found.error is not None
        raise found.error

    def _perform(self, effects: Iterable[DialingEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Dial):
                assert self._nursery is not None
                self._nursery.start_soon(self._dial, effect.url, effect.device, effect.target, None, DIAL_TIMEOUT_S)
            elif isinstance(effect, SetTimer):
                self._timers[effect.timer] = effect.at_ms / 1000
                self._timers_changed.set()
            elif isinstance(effect, CancelTimer):
                self._timers.pop(effect.timer, None)

    async def _dial(
        self, url: str, device: bytes | None, target: TargetKey | None, found: _Found | None, timeout_s: float
    ) -> None:
        """Dials once and runs the link that comes of it."""
        is_up = False

        async def on_up(handle: LinkHandle) -> None:
            nonlocal is_up
            is_up = True
            await self._carry(handle, target, found)

        error: PeersdError | None = None
        try:
            opening = open_websocket(url, timeout_s=timeout_s)
            down = await run_link(opening, self._link(Role.DIALLER, device), on_up, direction="out")
            error = PeersdError("unreachable", f"no link to {url}: {down.detail}", hint="Check the address.", retry=True)
        except PeersdError as failure:
            error = failure
            _log.info("dial_failed", extra={"fields": {"url": url, "reason": failure.message}})
        finally:
            if found is not None:
                found.settle(None, error)
            if target is not None and not is_up:
                self._perform(self._dialing.dial_ended(target, self._now_ms(), random.random()))

    async def _run_timers(self) -> None:
        while True:
            self._timers_changed = trio.Event()
            with trio.move_on_at(min(self._timers.values(), default=float("inf"))):
                await self._timers_changed.wait()
            now = trio.current_time()
            for timer in [timer for timer, at in self._timers.items() if at <= now]:
                if self._timers.pop(timer, None) is not None:
                    self._perform(self._dialing.timer_expired(timer, self._now_ms()))

    def _now_ms(self) -> int:
        return int(trio.current_time() * 1000)
