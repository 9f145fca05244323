"""The links of this device: dials, and the table that keeps one link per remote device (DESIGN 5).

Which links are wanted is decided elsewhere (`meshing`); here they are made and ended.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import trio

from peersd.errors import PeersdError
from peersd.monotonic import monotonic_ms
from peersd.net.channels import LinkHandle
from peersd.net.listener import Opening
from peersd.net.runner import run_link
from peersd.net.transport import parse_link_url
from peersd.node.dialer import Dialer
from peersd.node.environment import Environment
from peersd_protocol import ids
from peersd_protocol.constants import BOOT_ID_BYTES, LINKS_MAX
from peersd_protocol.devicekeys import DeviceKeys
from peersd_protocol.dialing import Dial, Patience
from peersd_protocol.errors import CloseCode
from peersd_protocol.handshake import Handshake, Role
from peersd_protocol.link import Link
from peersd_protocol.linktable import Alarm, Close, LinkTable
from peersd_protocol.linktable import Link as TableLink
from peersd_protocol.mesh import LinkView

_log = logging.getLogger("peersd.node")

KEY_BYTES: Final = 32

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
        changed: called when a link came up, was confirmed or went down, and when dials told who answers and who does not.
        environment: how others are reached, the clock and chance.
        patience: the waits between dials.
        on_link: called with True when a link came up and with False when it went down; of two links to one device that follow
            each other, the end of the first is told before the second.
        on_alarm: called with the name of an alarm and the device, once a device.
        addresses: the machine's own addresses; when they change, all that waits is dialled at once.

    Attributes:
        admits: whether a new link to a device, whoever dialled it, may stay, and whether its dialler is alone (SPEC: L-34). It is
            not asked about one in an old one's place.
        is_alone: whether to state so to a device that was dialled.
        links_max: how many links are wanted at most, for those who decide.
    """

    def __init__(
        self,
        keys: DeviceKeys,
        serve: Callable[[LinkHandle], Awaitable[None]],
        changed: Callable[[], None],
        environment: Environment,
        patience: Patience | None = None,
        *,
        on_link: Callable[[LinkHandle, bool], None] | None = None,
        on_alarm: Callable[[str, bytes], None] | None = None,
        addresses: Callable[[], Iterable[str]] | None = None,
    ) -> None:
        self.admits: Callable[[bytes, bool], bool] = lambda _device, _is_alone: True
        self.is_alone: Callable[[bytes], bool] = lambda _device: False
        self.links_max: int = LINKS_MAX
        self._keys = keys
        self._serve = serve
        self._changed = changed
        self._on_link = on_link
        self._on_alarm = on_alarm
        self._addresses = addresses
        self._environment = environment
        self._boot_id = environment.entropy(BOOT_ID_BYTES)
        self._table = LinkTable(keys.device)
        self._dialer = Dialer(self._start_dial, changed, patience, environment.draw)
        self._handles: dict[int, LinkHandle] = {}
        self._up_ms: dict[LinkHandle, int] = {}
        self._denied: frozenset[bytes] = frozenset()
        self._parted: set[bytes] = set()
        self._pinned: dict[bytes, tuple[str, ...]] = {}
        self._nursery: trio.Nursery | None = None
        self._alarmed: set[bytes] = set()
        self._bytes_of_ended = 0, 0

    # --- Looking ----------------------------------------------------------------------------------------------------------------

    def handles(self) -> list[LinkHandle]:
        """The links that stay. One that is down is none of them, though its task may still be ending."""
        handles = [self._handles[link.link_id] for link in self._table.links]
        return [handle for handle in handles if not handle.is_down]

    def bytes_carried(self) -> tuple[int, int]:
        """Bytes received and sent on all links since the start, those that are over included; as on the TCP sockets."""
        received, sent = self._bytes_of_ended
        handles = self._handles.values()
        return received + sum(handle.bytes_in for handle in handles), sent + sum(handle.bytes_out for handle in handles)

    def to_device(self, device: bytes) -> LinkHandle | None:
        """The link to a device."""
        return next((handle for handle in self.handles() if handle.remote_device == device), None)

    def views(self) -> dict[bytes, LinkView]:
        """The links that stay, as the choice of links looks at them."""
        return {
            handle.remote_device: LinkView(
                self._up_ms[handle],
                is_confirmed=handle.direction == "in" or handle.answered.is_set(),
                has_channels=bool(handle.channels),
            )
            for handle in self.handles()
        }

    @property
    def failing(self) -> frozenset[bytes]:
        """Devices that did not answer the last round of dials."""
        return self._dialer.failing

    @property
    def refused(self) -> frozenset[bytes]:
        """Devices that answered, but one of the two sides wanted no link."""
        return self._dialer.refused

    @property
    def pinned(self) -> Mapping[bytes, Sequence[str]]:
        """Devices that were asked for, with the addresses given."""
        return self._pinned

    @property
    def denied(self) -> frozenset[bytes]:
        """Devices that get no link: by the configuration, or because they were disconnected."""
        return self._denied | self._parted

    # --- Life -------------------------------------------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Dials until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._dialer.run_timers)
            if self._addresses is not None:
                nursery.start_soon(self._dialer.run_network_watch, self._addresses)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None  # others may decide on links once more before their own end reaches them

    async def serve_socket(self, opening: Opening) -> None:
        """Runs the link on a socket that was accepted; lets no exception out."""
        with suppress(PeersdError):
            wall_ms = self._environment.wall_ms
            await run_link(opening, self._link(Role.LISTENER), self._on_up, direction="in", wall_ms=wall_ms)

    def _link(self, role: Role, expected_device: bytes | None = None, *, is_asked_for: bool = False) -> Link:
        handshake = Handshake(
            role,
            self._keys,
            boot_id=self._boot_id,
            ephemeral_private=self._environment.entropy(KEY_BYTES),
            replaces=self._table.replaces if role is Role.DIALLER else b"",
            is_alone=(lambda other: is_asked_for or self.is_alone(other)) if role is Role.DIALLER else None,
            expected_device=expected_device,
        )
        return Link(role, handshake)

    async def _on_up(self, handle: LinkHandle) -> None:
        await self._carry(handle, None, None)

    async def _carry(self, handle: LinkHandle, target: bytes | None, found: _Found | None) -> None:
        """Asks whether the link may stay; serves it while it does.

        Args:
            handle: a link whose handshake is done.
            target: the device that the dialing machine had dialled for it, if it had.
            found: told which link there is to the remote device: this one, or the one that stays in its place.
        """
        if handle.is_down or self._turn_away(handle, found):
            if target is not None:
                self._dialer.dial_ended(target, is_refused=handle.down_code is CloseCode.REFUSED)
            return
        link_id = handle.number
        self._handles[link_id], self._up_ms[handle] = handle, monotonic_ms()
        stays = False
        try:
            stays = self._take_in(link_id, handle)
            if found is not None:
                found.settle(self.to_device(handle.remote_device))
            if not stays:
                return
            self._dialer.linked(handle.remote_device, is_dialled=target is not None)
            self._tell(handle, is_up=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell_answered, handle)
                await self._serve(handle)
                nursery.cancel_scope.cancel()
        finally:
            if stays:
                self._note_end(link_id)
            elif target is not None:
                self._dialer.dial_ended(target)
            del self._handles[link_id], self._up_ms[handle]
            received, sent = self._bytes_of_ended
            self._bytes_of_ended = received + handle.bytes_in, sent + handle.bytes_out

    def _note_end(self, link_id: int) -> None:
        """A link ended by itself. One that was replaced is not in the table any more, and its end was told then."""
        if any(link.link_id == link_id for link in self._table.links):
            handle = self._handles[link_id]
            self._table.link_down(link_id)
            is_refused = handle.down_code in (CloseCode.REFUSED, CloseCode.NORMAL)
            self._dialer.unlinked(handle.remote_device, is_refused=is_refused)
            self._tell(handle, is_up=False)

    def _turn_away(self, handle: LinkHandle, found: _Found | None) -> bool:
        """Ends a link that is not wanted before it carries anything; whether it did."""
        device = handle.remote_device
        existing = self.to_device(device)
        if found is not None:
            self._parted.discard(device)
        if device in self.denied:
            handle.close(CloseCode.REFUSED)
            error = PeersdError("unreachable", f"{handle.url} is a device that gets no link", hint="links.deny names it.")
            if found is not None:
                found.settle(None, error)
        elif found is not None and existing is not None and existing.remote_boot_id == handle.remote_boot_id:
            # Somebody asked for a link that there is: the new one is dropped before the other side hears of it.
            handle.close(CloseCode.REPLACED)
            found.settle(existing)
        elif found is None and existing is None and not self.admits(device, handle.is_alone):
            handle.close(CloseCode.REFUSED)
        return handle.is_down

    def _take_in(self, link_id: int, handle: LinkHandle) -> bool:
        """Asks the table; whether the link stays. One whose place it takes has ceased to carry anything before it begins."""
        link = TableLink(
            link_id,
            handle.remote_device,
            handle.direction == "out",
            handle.remote_boot_id,
            handle.handshake_hash,
            handle.remote_replaces,
        )
        for old in self._table.links:
            if self._handles[old.link_id].is_down:  # its task is still ending
                self._note_end(old.link_id)
        stays = False
        for effect in self._table.link_up(link):
            if isinstance(effect, Close):
                closed = self._handles[effect.link_id]
                closed.close(effect.close_code)
                if closed is not handle:
                    self._tell(closed, is_up=False)
            elif isinstance(effect, Alarm):
                self._raise_alarm(effect)
            else:
                handle.release()
                stays = True
        return stays

    def _tell(self, handle: LinkHandle, *, is_up: bool) -> None:
        if is_up:
            fields = {"device": ids.format_id(ids.DEVICE, handle.remote_device), "url": handle.url, "direction": handle.direction}
            _log.info("link_up", extra={"fields": fields})
        if self._on_link is not None:
            self._on_link(handle, is_up)
        self._changed()

    async def _tell_answered(self, handle: LinkHandle) -> None:
        await handle.answered.wait()
        self._changed()

    def _raise_alarm(self, alarm: Alarm) -> None:
        if alarm.device not in self._alarmed:
            self._alarmed.add(alarm.device)
            fields = {"alarm": alarm.name, "device": ids.format_id(ids.DEVICE, alarm.device)}
            _log.warning("alarm", extra={"fields": fields})
            if self._on_alarm is not None:
                self._on_alarm(alarm.name, alarm.device)

    # --- What is wanted ---------------------------------------------------------------------------------------------------------

    def want(self, devices: Mapping[bytes, Sequence[str]]) -> None:
        """Links to these devices are wanted, at these addresses, and to no others but pinned ones. Links there are stay."""
        wanted = {device: urls for device, urls in devices.items() if device != self._keys.device}
        for device, urls in self._pinned.items():
            wanted[device] = [*wanted.get(device, ()), *urls]
        for device in self.denied:
            wanted.pop(device, None)
        self._dialer.want_only(wanted)

    def close(self, device: bytes, code: CloseCode) -> None:
        """Ends the link to a device, if there is one."""
        handle = self.to_device(device)
        if handle is not None:
            handle.close(code)

    def set_limits(self, links_max: int, deny: Iterable[bytes]) -> None:
        """Sets how many links are wanted, and who gets none. Links to those end at once, and so do dials."""
        self.links_max = links_max
        self._denied = frozenset(deny)
        for device in self._denied:
            self._end(device)
        self._changed()

    def pin(self, device: bytes, urls: Iterable[str] = ()) -> None:
        """A link to this device is wanted until `disconnect`, whatever groups are shared."""
        self._parted.discard(device)
        self._pinned[device] = tuple(dict.fromkeys((*urls, *self._pinned.get(device, ()))))
        self._dialer.want_device(device, self._pinned[device])
        self._changed()

    def disconnect(self, device: bytes) -> None:
        """Ends the link to a device; there is none, whoever dials, until `connect` or `pin` asks for one or a restart."""
        self._parted.add(device)
        self._pinned.pop(device, None)
        self._end(device)
        self._changed()

    def _end(self, device: bytes) -> None:
        self._dialer.unwant(device)
        self.close(device, CloseCode.REFUSED)

    # --- Dials ------------------------------------------------------------------------------------------------------------------

    def want_device(self, device: bytes, urls: Iterable[str]) -> None:
        """A link to this device is wanted from now on, and these are addresses of it."""
        if device != self._keys.device and device not in self.denied:
            self._dialer.want_device(device, urls)

    async def connect(self, url: str, device: bytes | None, timeout_s: float) -> LinkHandle:
        """Returns the link to whoever answers at `url`: the one there is, or one dialled now, which both sides keep.

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
        if self._nursery is None:
            raise PeersdError("busy", "The links are being closed.", hint="Try again once the daemon runs.", retry=True)
        found = _Found()
        self._nursery.start_soon(self._dial, url, device, None, found, timeout_s)
        await found.settled.wait()
        if found.handle is None:
            assert found.error is not None
            raise found.error
        return await self._await_kept(found.handle, url)

    async def _await_kept(self, handle: LinkHandle, url: str) -> LinkHandle:
        """The link, or the one that took its place, once the other side keeps it, too."""
        await handle.answered.wait()
        if not handle.is_down:
            return handle
        other = self.to_device(handle.remote_device)
        if other is not None:
            return await self._await_kept(other, url)
        if handle.down_code is CloseCode.REFUSED:
            hint = "It has as many links as it may, or was told there to deny this device or to disconnect from it."
            raise PeersdError("unreachable", f"the device at {url} wants no link with this one now", hint=hint, retry=True)
        raise PeersdError("unreachable", f"the link to {url} ended at once", hint="Try again.", retry=True)

    def _start_dial(self, dial: Dial) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._dial, dial.url, dial.device, dial.device, None, DIAL_TIMEOUT_S)

    async def _dial(self, url: str, device: bytes | None, target: bytes | None, found: _Found | None, timeout_s: float) -> None:
        """Dials once and runs the link that comes of it."""
        is_up = False

        async def on_up(handle: LinkHandle) -> None:
            nonlocal is_up
            is_up = True
            await self._carry(handle, target, found)

        error: PeersdError | None = None
        try:
            opening = self._environment.network.dial(url, timeout_s)
            link, wall_ms = self._link(Role.DIALLER, device, is_asked_for=found is not None), self._environment.wall_ms
            down = await run_link(opening, link, on_up, direction="out", wall_ms=wall_ms)
            error = PeersdError("unreachable", f"no link to {url}: {down.detail}", hint="Check the address.", retry=True)
        except PeersdError as failure:
            error = failure
            _log.info("dial_failed", extra={"fields": {"url": url, "reason": failure.message}})
        finally:
            if found is not None:
                found.settle(None, error)
            if target is not None and not is_up:
                self._dialer.dial_ended(target)
