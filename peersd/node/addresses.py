"""Where devices can be reached, kept in node.db, so that links come back after a restart without anybody's act (DESIGN 5, 9)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from peersd.errors import PeersdError
from peersd.node.clock import wall_clock_ms
from peersd.store.local_state import LocalState, StoredAddress
from peersd_protocol.constants import ADDRESSES_PER_DEVICE_MAX

_log = logging.getLogger("peersd.node")

DEVICES_MAX: Final = 4096
"""Devices remembered (guess). Beyond, those fall out of which nothing was heard for the longest time, and first among those that
never answered: beacons make up as many devices as a group's members like.
"""


class Addresses:
    """The address book of this device.

    Addresses at which a device answered come first, the one that answered last before all others; then those that it only states.

    Args:
        local: where they are kept.
        wall_ms: the wall clock.
        devices_max: devices remembered.
    """

    def __init__(self, local: LocalState, wall_ms: Callable[[], int] = wall_clock_ms, *, devices_max: int = DEVICES_MAX) -> None:
        self._local = local
        self._wall_ms = wall_ms
        self._devices_max = devices_max
        self._known = local.load_addresses()

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
        self._save(device, [(url, self._wall_ms()), *(address for address in known if address[0] != url)])

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
            self._save(device, listed)

    def _save(self, device: bytes, listed: list[StoredAddress]) -> None:
        self._known.pop(device, None)  # so that it stands last, as in the table
        self._known[device] = listed[:ADDRESSES_PER_DEVICE_MAX]
        changed = {device: self._known[device]}
        if len(self._known) > self._devices_max:
            forgotten = next((known for known in self._known if not self.was_reached(known)), next(iter(self._known)))
            del self._known[forgotten]
            changed[forgotten] = []
        try:
            self._local.save_addresses(changed)
        except PeersdError as error:  # they are known until the next start, and come again with the next link
            _log.warning("addresses_not_saved", extra={"fields": {"reason": error.message}})
