"""Where devices can be reached, kept in node.db, so that links come back after a restart without anybody's act (DESIGN 5, 9)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import trio

from peersd.errors import PeersdError
from peersd.node.clock import wall_clock_ms
from peersd.store.local_state import LocalState, StoredAddress
from peersd.store.threads import Threads
from peersd_protocol.constants import ADDRESSES_PER_DEVICE_MAX

_log = logging.getLogger("peersd.node")

DEVICES_MAX: Final = 4096
"""Devices remembered (guess). Beyond, those fall out of which nothing was heard for the longest time, and first among those that
never answered: beacons make up as many devices as a group's members like.
"""

UNSAVED_MAX: Final = 2 * DEVICES_MAX
"""Devices whose addresses wait to be written: all of them, and as many that fell out. It is reached only while nothing can be."""


class Addresses:
    """The address book of this device.

    Addresses at which a device answered come first, the one that answered last before all others; then those that it only states.

    Args:
        local: where they are kept.
        threads: where they are written.
        wall_ms: the wall clock.
        devices_max: devices remembered.
    """

    def __init__(
        self, local: LocalState, threads: Threads, wall_ms: Callable[[], int] = wall_clock_ms, *, devices_max: int = DEVICES_MAX
    ) -> None:
        self._local = local
        self._threads = threads
        self._wall_ms = wall_ms
        self._devices_max = devices_max
        self._known = local.load_addresses()
        self._unsaved: dict[bytes, None] = {}
        """Devices whose addresses have changed since they were written, the one that changed last at the end."""
        self._saving = trio.Lock()

    def of(self, device: bytes) -> list[str]:
        """The addresses of a device, in the order in which to try them."""
        return [url for url, _ in self._known.get(device, ())]

    def was_reached(self, device: bytes) -> bool:
        """Whether the device has ever answered at one of its addresses."""
        return any(answered_ms is not None for _, answered_ms in self._known.get(device, ()))

    def answered(self, device: bytes, url: str) -> None:
        """A device proved to be at an address."""
        known = self._known.get(device, [])
        if known and known[0][0] == url and known[0][1] is not None:
            return  # nothing new but the time, which is not worth a write at each link
        self._set(device, [(url, self._wall_ms()), *(address for address in known if address[0] != url)])

    def learned(self, device: bytes, urls: Sequence[str]) -> None:
        """A device states in a beacon where it can be reached, the best first."""
        known = self._known.get(device, [])
        proved = [address for address in known if address[1] is not None]
        names = {url for url, _ in proved}
        stated: list[StoredAddress] = [(url, None) for url in dict.fromkeys(urls) if url not in names]
        named = names.union(urls)
        earlier = [address for address in known if address[0] not in named]
        # An address that answered years ago may be gone: of many there is still room for what is stated today.
        proved = proved[: max(ADDRESSES_PER_DEVICE_MAX - len(stated), ADDRESSES_PER_DEVICE_MAX // 2)]
        listed = [*proved, *stated, *earlier][:ADDRESSES_PER_DEVICE_MAX]
        if listed != known:
            self._set(device, listed)

    def _set(self, device: bytes, listed: list[StoredAddress]) -> None:
        self._known.pop(device, None)  # so that it stands last, as in the table
        self._known[device] = listed[:ADDRESSES_PER_DEVICE_MAX]
        self._note_unsaved(device)
        if len(self._known) > self._devices_max:
            forgotten = next((known for known in self._known if not self.was_reached(known)), next(iter(self._known)))
            del self._known[forgotten]
            self._note_unsaved(forgotten)

    def _note_unsaved(self, device: bytes) -> None:
        self._unsaved.pop(device, None)
        self._unsaved[device] = None
        if len(self._unsaved) > UNSAVED_MAX:
            del self._unsaved[next(iter(self._unsaved))]

    async def save(self) -> None:
        """Writes what has changed to node.db; what cannot be written now waits for the next time. Durable when it returns."""
        async with self._saving:  # one after the other: what is newer is written later
            unsaved, self._unsaved = self._unsaved, {}
            if not unsaved:
                return
            is_saved = False
            try:
                await self._threads.run(self._local.save_addresses, {device: self._known.get(device, ()) for device in unsaved})
                is_saved = True
            except PeersdError as error:  # they are known until the next start, and come again with the next link
                _log.warning("addresses_not_saved", extra={"fields": {"reason": error.message}})
            finally:
                if not is_saved:
                    self._unsaved = {
                        **dict.fromkeys(device for device in unsaved if device not in self._unsaved),
                        **self._unsaved,
                    }
