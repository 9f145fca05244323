"""Where devices were reached before, kept in a file, so that links come back after a restart without anybody's act (DESIGN 5)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from peersd.node.device_file import write_durably
from peersd_protocol import canonical
from peersd_protocol.constants import ADDRESSES_PER_DEVICE_MAX
from peersd_protocol.errors import RemoteProtocolError

FILE_NAME: Final = "addresses"
FILE_BYTES_MAX: Final = 4 * 1024 * 1024
DEVICES_MAX: Final = 4096
"""Devices remembered; the longest unused fall out (guess)."""


class Addresses:
    """The address book of this device. A file that cannot be read counts as empty: links can be made again by hand."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE_NAME
        self._urls: dict[bytes, list[str]] = {}
        try:
            entries = canonical.decode(self._path.read_bytes(), bytes_max=FILE_BYTES_MAX)
        except (OSError, RemoteProtocolError):
            return
        for entry in entries:
            if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], bytes) and isinstance(entry[1], list):
                self._urls[entry[0]] = [url for url in entry[1] if isinstance(url, str)]

    def of(self, device: bytes) -> list[str]:
        """The addresses of a device, the one that answered last first."""
        return list(self._urls.get(device, ()))

    def answered(self, device: bytes, url: str) -> None:
        """A device proved to be at an address."""
        known = self._urls.pop(device, [])
        urls = [url, *(other for other in known if other != url)][:ADDRESSES_PER_DEVICE_MAX]
        self._urls[device] = urls
        if urls != known:
            newest = list(self._urls.items())[-DEVICES_MAX:]
            write_durably(self._path, canonical.encode([[device_, list(urls_)] for device_, urls_ in newest]))
