"""What files are written through: the machine's own disk, or another that stands in for it under test (DESIGN 8)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Protocol


class Disk(Protocol):
    """Where files are: databases by a VFS of SQLite's, small files by the calls of the system that they need."""

    @property
    def vfs(self) -> str:
        """The name under which SQLite knows the VFS; empty for SQLite's own."""
        ...

    def open(self, path: Path, flags: int, mode: int) -> int:
        """As os.open, of a file or a folder."""
        ...

    def write(self, descriptor: int, content: bytes) -> None:
        """Writes over the beginning of a file."""
        ...

    def sync(self, descriptor: int) -> None:
        """As os.fsync."""
        ...

    def close(self, descriptor: int) -> None:
        """As os.close."""
        ...

    def replace(self, source: Path, target: Path) -> None:
        """As os.replace."""
        ...


class SystemDisk:
    """The machine's own."""

    def __init__(self) -> None:
        self.vfs = ""

    def open(self, path: Path, flags: int, mode: int) -> int:
        """See Disk."""
        return os.open(path, flags, mode)

    def write(self, descriptor: int, content: bytes) -> None:
        """See Disk."""
        os.pwrite(descriptor, content, 0)

    def sync(self, descriptor: int) -> None:
        """See Disk."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """See Disk."""
        os.close(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """See Disk."""
        os.replace(source, target)


SYSTEM_DISK: Final = SystemDisk()


def sync_folder(disk: Disk, folder: Path) -> None:
    """Makes sure that files which were made or replaced in a folder are found there after a loss of power."""
    descriptor = disk.open(folder, os.O_RDONLY, 0)
    try:
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)
