"""The high-water mark: how far this device has spoken in a group, kept apart from the store (DESIGN 6).

A store that is behind its mark, or is not the file the mark was made for, has been copied, restored or moved: what it writes
next must not stand at a position that a peer has already seen filled, so it opens a new epoch.
"""

from __future__ import annotations

import errno
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from peersd.crash_points import CrashPoint, reach
from peersd.store.disk import SYSTEM_DISK, Disk, sync_folder
from peersd_protocol import canonical
from peersd_protocol.entries import EPOCH_BYTES
from peersd_protocol.errors import RemoteProtocolError
from peersd_protocol.vectors import Tip

RECORD_BYTES_MAX = 512


@dataclass(frozen=True, slots=True)
class Mark:
    """What the mark states.

    Attributes:
        epoch: the writer's epoch, 16 bytes.
        control, data: the last own entry of either log that may have been sent, (0, b"") for none.
        machine: the machine's id.
        inode: the inode of the store's file.
    """

    epoch: bytes
    control: Tip
    data: Tip
    machine: bytes
    inode: int


class MarkKeeper(Protocol):
    """Where a store's mark is kept."""

    def load(self) -> Mark | None:
        """The mark, or None if there is none or it is not readable (which counts as none: a new epoch is always safe)."""

    def save(self, mark: Mark) -> None:
        """Replaces the mark; when this returns it is on disk."""


class MarkFile:
    """A mark in a small file beside the device's key.

    The record has a fixed length and a checksum and is overwritten in place: a torn write is unreadable and means a new epoch.

    Args:
        path: the file; its folder is made where there is none.
        disk: what it is written through.
    """

    def __init__(self, path: Path, disk: Disk = SYSTEM_DISK) -> None:
        self._path = path
        self._disk = disk

    def load(self) -> Mark | None:
        """See MarkKeeper.

        Raises:
            OSError: too many files are open.
        """
        try:
            record = self._path.read_bytes()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise  # it may be readable in a moment, and a new epoch is there for ever
            return None
        length, checksum = int.from_bytes(record[:2], "big"), int.from_bytes(record[2:6], "big")
        packed = record[6 : 6 + length]
        if len(packed) != length or zlib.crc32(packed) != checksum:
            return None
        try:
            epoch, control, data, machine, inode = canonical.decode(packed, bytes_max=RECORD_BYTES_MAX)
        except (RemoteProtocolError, ValueError):
            return None
        if (
            not isinstance(epoch, bytes)
            or len(epoch) != EPOCH_BYTES
            or not isinstance(machine, bytes)
            or not isinstance(inode, int)
        ):
            return None
        return Mark(epoch, _tip(control), _tip(data), machine, inode)

    def save(self, mark: Mark) -> None:
        """See MarkKeeper."""
        packed = canonical.encode([mark.epoch, list(mark.control), list(mark.data), mark.machine, mark.inode])
        record = len(packed).to_bytes(2, "big") + zlib.crc32(packed).to_bytes(4, "big") + packed
        is_new = False
        # Opened each time: a descriptor kept for every group would cost hundreds, and opening takes some 10 us of a fsync's 200.
        try:
            descriptor = self._disk.open(self._path, os.O_RDWR | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            is_new = True
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = self._disk.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            reach(CrashPoint.MARK_OPENED)
            self._disk.write(descriptor, record.ljust(RECORD_BYTES_MAX, b"\0"))
            reach(CrashPoint.MARK_WRITTEN)
            self._disk.sync(descriptor)
        finally:
            self._disk.close(descriptor)
        if is_new:
            sync_folder(self._disk, self._path.parent)


def _tip(value: canonical.Value) -> Tip:
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], int) and isinstance(value[1], bytes):
        return value[0], value[1]
    return 0, b""


def read_machine_id() -> bytes:
    """The machine's own id where the system has one, else its host name: it only has to differ after a move."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            return Path(path).read_bytes().strip()[:64]
        except OSError:
            continue
    return os.uname().nodename.encode()[:64]
