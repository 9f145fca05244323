"""What of a device outlives a crash: its stores' files and their marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from peersd.store.mark import Mark
from peersd.store.store import Store, StoreContext, create_store, open_store
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


class DiskFile:
    """The files of one group's store.

    Args:
        path: of the database.
        group: the group's id.
    """

    def __init__(self, path: Path, group: bytes) -> None:
        self.path = path
        self.group = group
        self.mark = DiskMark()

    def create(self, context: StoreContext, runs: Sequence[Run] = (), epoch: bytes | None = None) -> Store:
        """Makes the store."""
        return create_store(self.path, context, self.mark, self.group, runs, epoch)

    def open(self, context: StoreContext) -> Store:
        """Opens the store after a crash or a clean end."""
        return open_store(self.path, context, self.mark)

    def crash(self, store: Store, random: Random) -> None:
        """The process dies: what SQLite had written is there, its own last words are not.

        The object still lets go of its connection, which would put the files in order; so they are put back as they were, in
        place, because a store in a new file opens a new epoch. Half a frame at the end of the WAL is a commit that was cut short.
        """
        wal = self.path.with_name(self.path.name + "-wal")
        database, log = self.path.read_bytes(), wal.read_bytes() if wal.exists() else b""
        mark = self.mark.load()
        store.close()
        if mark is not None:
            self.mark.save(mark)
        with self.path.open("r+b") as file:
            file.write(database)
            file.truncate()
        torn = random.randbytes(random.randrange(4096)) if log and random.random() < 0.5 else b""
        wal.write_bytes(log + torn)
