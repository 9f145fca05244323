"""What of a device outlives a crash: its stores' files and their marks, and what it has learned of other devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from peersd.store.mark import Mark
from peersd.store.store import Store, StoreContext, create_store, open_store
from peersd.testing.disks import FaultyDisk
from peersd_protocol.beacons import Beacon
from peersd_protocol.runs import Run


class DiskMark:
    """A mark that is on disk once `save` has returned."""

    def __init__(self) -> None:
        self._mark: Mark | None = None

    def load(self) -> Mark | None:
        """See MarkKeeper."""
        return self._mark

    def save(self, mark: Mark) -> None:
        """See MarkKeeper."""
        self._mark = mark


@dataclass
class DeviceNotes:
    """What a device keeps beside its stores.

    Attributes:
        addresses: of other devices, where known.
        reached: devices that were linked.
        beacons: per group the latest of each device.
        untold: groups that its user left and that no other member has heard of.
    """

    addresses: dict[bytes, str] = field(default_factory=dict[bytes, str])
    reached: set[bytes] = field(default_factory=set[bytes])
    beacons: dict[bytes, dict[bytes, Beacon]] = field(default_factory=dict[bytes, dict[bytes, Beacon]])
    untold: set[bytes] = field(default_factory=set[bytes])


class Disk:
    """Where a device keeps its stores. Another kind of disk makes other files.

    Args:
        name: of the device.
        folder: of all devices.
        faults: loses what was not synced, with its power; None for one that forgets nothing, and is read and written faster.

    Attributes:
        vfs: the SQLite VFS that stores are opened through.
    """

    def __init__(self, name: str, folder: Path, faults: FaultyDisk | None = None) -> None:
        self.name = name
        self.folder = folder
        self.vfs = "" if faults is None else faults.vfs
        self._faults = faults

    def file(self, name: str, group: bytes) -> DiskFile:
        """A place for the store of a group."""
        return DiskFile(self.folder / f"{self.name}-{name}.db", name, group)

    def crash(self, stores: Iterable[tuple[DiskFile, Store]], random: Random, *, is_power_lost: bool) -> None:
        """The process dies, or the machine with it: see DiskFile.crash."""
        faults = self._faults
        if faults is not None:
            faults.switch_off()
        for file, store in stores:
            file.crash(store, random, faults.left_of if faults is not None and is_power_lost else None)
        if faults is not None:
            faults.switch_on(has_lost_power=is_power_lost)

    def close(self) -> None:
        """Nothing is open any more."""
        if self._faults is not None:
            self._faults.unregister()


class DiskFile:
    """The files of one group's store.

    Args:
        path: of the database.
        name: the group's name.
        group: the group's id.

    Attributes:
        is_registered: whether the user is or was in the group; else its joining is under way.
    """

    def __init__(self, path: Path, name: str, group: bytes) -> None:
        self.path = path
        self.name = name
        self.group = group
        self.mark = DiskMark()
        self.is_registered = True

    def create(self, context: StoreContext, runs: Sequence[Run] = (), epoch: bytes | None = None) -> Store:
        """Makes the store."""
        return create_store(self.path, context, self.mark, self.group, runs, epoch)

    def open(self, context: StoreContext) -> Store:
        """Opens the store after a crash or a clean end."""
        return open_store(self.path, context, self.mark)

    def crash(self, store: Store, random: Random, left_of: Callable[[Path, bytes], bytes | None] | None = None) -> None:
        """The process dies: what SQLite had written is there, its own last words are not.

        Args:
            store: that it had open.
            random: of how a commit was cut short.
            left_of: what a loss of power leaves of a file with this content, None for nothing; None if the power is not lost.

        The object still lets go of its connection, which would put the files in order; so they are put back as they were, in
        place, because a store in a new file opens a new epoch. Half a frame at the end of the WAL is a commit that was cut short.
        """
        wal = self._wal
        database, log = self.path.read_bytes(), wal.read_bytes() if wal.exists() else b""
        if left_of is not None:
            database, log = left_of(self.path, database) or b"", left_of(wal, log) or b""
        mark = self.mark.load()
        store.close()
        if mark is not None:
            self.mark.save(mark)
        with self.path.open("r+b") as file:
            file.write(database)
            file.truncate()
        torn = random.randbytes(random.randrange(4096)) if log and random.random() < 0.5 else b""
        wal.write_bytes(log + torn)

    def delete(self) -> None:
        """Removes the files; the store is closed."""
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def read_bytes(self) -> bytes:
        """All bytes of the database and its log as they are on disk."""
        return self.path.read_bytes() + (self._wal.read_bytes() if self._wal.exists() else b"")

    @property
    def _wal(self) -> Path:
        return self.path.with_name(self.path.name + "-wal")
