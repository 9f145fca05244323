"""A disk that fills up, fails, or loses its power: real files, with faults between them and whoever writes them.

    disk = FaultyDisk()
    open_writer(path, vfs=disk.vfs)
    disk.is_full = True          # from here on no file grows
    disk.left_of(path, content)  # of what the file holds, what is there after a loss of power

Databases are written through a VFS that SQLite is told of, and small files by the calls of `peersd.store.disk.Disk`; all
is passed on to the system. What was written since the last sync of a file is remembered, so that it can be taken back.
"""

from __future__ import annotations

import errno
import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import apsw

_NUMBERS: Final = itertools.count(1)


@dataclass
class _Unsynced:
    """What has been done to a file since it was last synced.

    Attributes:
        is_new: it was made since.
        undo: how to take back each write, the last one last: where, what stood there, and the size before.
    """

    is_new: bool = False
    undo: list[tuple[int, bytes, int]] = field(default_factory=list[tuple[int, bytes, int]])

    def take_back(self, content: bytes) -> bytes | None:
        """What is left of a file; None if it is not there at all."""
        if self.is_new:
            return None
        left = bytearray(content)
        for offset, before, size in reversed(self.undo):
            left[offset : offset + len(before)] = before
            del left[size:]
        return bytes(left)


class FaultyDisk:
    """A disk of one machine. It outlives the processes that write to it. An attribute that it does not have cannot be set.

    A file counts as found in its folder once it has been synced itself (SQLite syncs the folder with a new log), or, where it was
    written by the calls of Disk, once its folder has. A deletion holds at once.

    Attributes:
        vfs: the name of the VFS, of this disk alone.
        is_full: files cannot grow; what is in them may still be overwritten.
        is_failing: nothing can be written, synced, shortened, renamed or deleted.
        has_failed: whether anything was ever refused.
    """

    __slots__ = ("_is_down", "_open", "_replaced", "_sqlite", "_unsynced", "has_failed", "is_failing", "is_full", "vfs")

    def __init__(self) -> None:
        self.vfs = f"peersd-disk-{next(_NUMBERS)}"
        self.is_full = False
        self.is_failing = False
        self.has_failed = False
        self._is_down = False
        self._unsynced: dict[str, _Unsynced] = {}
        self._replaced: dict[str, bytes | None] = {}
        self._open: dict[int, Path] = {}
        self._sqlite = _DiskVfs(self)

    def unregister(self) -> None:
        """SQLite forgets the VFS; no file may be open any more."""
        self._sqlite.unregister()

    # --- Faults -----------------------------------------------------------------------------------------------------------------

    def mend(self) -> None:
        """There is room again, and writing works."""
        self.is_full = self.is_failing = False

    def switch_off(self) -> None:
        """Who writes from here on is dead and does not know it: nothing of it is remembered, until `switch_on`."""
        self._is_down = True

    def switch_on(self, *, has_lost_power: bool) -> None:
        """The machine runs again; the files are what `left_of` said.

        Args:
            has_lost_power: whether what the system had not written yet is gone; else it still may go.
        """
        self._is_down = False
        if has_lost_power:
            self._unsynced.clear()
            self._replaced.clear()

    def left_of(self, path: Path, content: bytes) -> bytes | None:
        """What a loss of power leaves of a file with this content; None if it is not there then."""
        name = str(path)
        if name in self._replaced:
            return self._replaced[name]
        return self._unsynced[name].take_back(content) if name in self._unsynced else content

    # --- Small files ------------------------------------------------------------------------------------------------------------

    def open(self, path: Path, flags: int, mode: int) -> int:
        """See Disk."""
        if flags & os.O_CREAT and not path.exists():
            self.note_made(str(path))
        descriptor = os.open(path, flags, mode)
        self._open[descriptor] = path
        return descriptor

    def write(self, descriptor: int, content: bytes) -> None:
        """See Disk."""
        size = os.fstat(descriptor).st_size
        if self.refuses(grows=len(content) > size):
            code = errno.EIO if self.is_failing else errno.ENOSPC
            raise OSError(code, os.strerror(code), str(self._open[descriptor]))
        path = self._open[descriptor]
        self.note_write(str(path), 0, path.read_bytes()[: len(content)], size)  # a descriptor may be for writing only
        os.pwrite(descriptor, content, 0)

    def sync(self, descriptor: int) -> None:
        """See Disk."""
        if self.refuses(grows=False):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self._open[descriptor]))
        if self._is_down:
            return  # what a dead process still does makes nothing durable
        os.fsync(descriptor)
        path = self._open[descriptor]
        if path.is_dir():
            self._note_folder_synced(path)
        elif str(path) in self._unsynced:
            self._unsynced[str(path)].undo.clear()

    def close(self, descriptor: int) -> None:
        """See Disk."""
        del self._open[descriptor]
        os.close(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """See Disk."""
        if self.refuses(grows=False):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(target))
        if not self._is_down:
            self._replaced.setdefault(str(target), target.read_bytes() if target.exists() else None)
            # The name is not on disk before the folder is synced, and what stands there not before the file was.
            self._unsynced[str(target)] = _Unsynced(undo=self._unsynced.pop(str(source), _Unsynced()).undo)
        os.replace(source, target)

    def _note_folder_synced(self, folder: Path) -> None:
        if self._is_down:
            return
        for name, unsynced in self._unsynced.items():
            if Path(name).parent == folder:
                unsynced.is_new = False
        for name in [name for name in self._replaced if Path(name).parent == folder]:
            del self._replaced[name]

    # --- For the VFS ------------------------------------------------------------------------------------------------------------

    def refuses(self, *, grows: bool) -> bool:
        """Whether a change is refused."""
        if self._is_down or not (self.is_failing or (grows and self.is_full)):
            return False
        self.has_failed = True
        return True

    def note_made(self, name: str) -> None:
        """A file is made."""
        if not self._is_down:
            self._unsynced[name] = _Unsynced(is_new=True)

    def note_write(self, name: str, offset: int, before: bytes, size: int) -> None:
        """A file is about to be written to.

        Args:
            name: its path.
            offset: where.
            before: what stands there.
            size: of the file, until then.
        """
        if not self._is_down:
            self._unsynced.setdefault(name, _Unsynced()).undo.append((offset, before, size))

    def note_synced(self, name: str) -> None:
        """A file of SQLite's is on disk."""
        if not self._is_down:
            self._unsynced.pop(name, None)


class _DiskVfs(apsw.VFS):
    """SQLite's own VFS, with a disk's faults."""

    def __init__(self, disk: FaultyDisk) -> None:
        super().__init__(disk.vfs, "")
        self._disk = disk

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        """See apsw.VFS."""
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None:  # a temporary file, which outlives nothing
            return apsw.VFSFile("", name, flags)
        if flags[0] & apsw.SQLITE_OPEN_CREATE and (not os.path.exists(path) or not os.path.getsize(path)):
            self._disk.note_made(path)
        return _DiskFile(self._disk, path, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """See apsw.VFS."""
        if self._disk.refuses(grows=False):
            raise apsw.IOError("disk I/O error")
        super().xDelete(filename, syncdir)
        self._disk.note_synced(filename)


class _DiskFile(apsw.VFSFile):
    """A file of SQLite's."""

    def __init__(self, disk: FaultyDisk, path: str, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk = disk
        self._path = path

    def xWrite(self, data: bytes, offset: int) -> None:
        """See apsw.VFSFile."""
        disk, size = self._disk, self.xFileSize()
        if (disk.is_failing or disk.is_full) and disk.refuses(grows=offset + len(data) > size):
            raise apsw.IOError("disk I/O error") if disk.is_failing else apsw.FullError("database or disk is full")
        before = self.xRead(min(len(data), size - offset), offset) if offset < size else b""
        disk.note_write(self._path, offset, before, size)
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        """See apsw.VFSFile."""
        if self._disk.refuses(grows=False):
            raise apsw.IOError("disk I/O error")
        size = self.xFileSize()
        if newsize < size:
            self._disk.note_write(self._path, newsize, self.xRead(size - newsize, newsize), size)
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        """See apsw.VFSFile."""
        if self._disk.refuses(grows=False):
            raise apsw.IOError("disk I/O error")
        super().xSync(flags)
        self._disk.note_synced(self._path)
