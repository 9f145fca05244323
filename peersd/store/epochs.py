"""The epoch that this device writes a group in, and the mark that fences what it tells of it (DESIGN 6)."""

from __future__ import annotations

import os
from collections.abc import Callable

from peersd.crash_points import CrashPoint, reach
from peersd.store.log import Log
from peersd.store.mark import Mark, MarkKeeper
from peersd_protocol.entries import EPOCH_BYTES, Kind, LogKey
from peersd_protocol.vectors import Tip

NOTHING: Tip = (0, b"")


class Epochs:
    """Chooses the epoch when the store opens, renews it, and keeps the mark ahead of what is told.

    Args:
        log: the group's logs; the caller has a transaction open when this is made.
        keeper: where the mark is kept.
        device: this device's id.
        machine: the machine's id.
        path: the store's file.
        entropy: makes random bytes.

    Attributes:
        current: the epoch to write in, 16 bytes.
    """

    def __init__(
        self, log: Log, keeper: MarkKeeper, device: bytes, machine: bytes, path: str, entropy: Callable[[int], bytes]
    ) -> None:
        self._log = log
        self._keeper = keeper
        self._device = device
        self._machine = machine
        # Of the file that is open, whatever may lie at its path later.
        self._inode = os.stat(path).st_ino if path != ":memory:" else 0
        stored = log.load_meta("epoch")
        mark = keeper.load()
        self._entropy = entropy
        if isinstance(stored, bytes) and self._may_go_on(stored, mark):
            self.current = stored
            self._is_fenced = mark is not None and self._tips(stored) == (mark.control, mark.data)
        else:
            self.renew()

    def renew(self) -> None:
        """Opens a new epoch: what is written next stands in logs that nothing is known of anywhere; inside a transaction."""
        self.adopt(self._entropy(EPOCH_BYTES))
        reach(CrashPoint.EPOCH_RENEWED)
        self._is_fenced = False

    def reload(self) -> None:
        """After a rollback: the epoch is the one in the file."""
        stored = self._log.load_meta("epoch")
        assert isinstance(stored, bytes)
        self.current = stored
        self._is_fenced = False

    def adopt(self, epoch: bytes) -> None:
        """Goes on in the epoch that a genesis was written in, before anything else is; inside a transaction."""
        self._log.save_meta("epoch", epoch)
        self.current = epoch

    def note_written(self) -> None:
        """This device has written entries: the mark is behind."""
        self._is_fenced = False

    def fence(self) -> None:
        """Makes sure that the mark is on disk before an entry that it covers is first sent; HAVE may tell of it ahead."""
        if self._is_fenced:
            return
        control, data = self._tips(self.current)
        reach(CrashPoint.MARK_DUE)
        self._keeper.save(Mark(self.current, control, data, self._machine, self._inode))
        reach(CrashPoint.MARK_SAVED)
        self._is_fenced = True

    def _may_go_on(self, epoch: bytes, mark: Mark | None) -> bool:
        """Whether this is the file that the mark was made for, and not behind it; without a mark, whether it is unwritten."""
        control, data = self._tips(epoch)
        if mark is None:
            return (control, data) == (NOTHING, NOTHING)
        if (mark.epoch, mark.machine, mark.inode) != (epoch, self._machine, self._inode):
            return False
        return self._reaches(control, mark.control) and self._reaches(data, mark.data)

    def _reaches(self, tip: Tip, marked: Tip) -> bool:
        if marked == NOTHING or tip == marked:
            return True
        found = self._log.find(marked[1])
        return tip[0] > marked[0] and found is not None and found.seq == marked[0]

    def _tips(self, epoch: bytes) -> tuple[Tip, Tip]:
        """The last own entries in the control and the data log of an epoch, void ones included: others may have seen them."""
        rows = [self._log.log(LogKey(kind, b"", self._device, epoch)) for kind in (Kind.CONTROL, Kind.DATA)]
        control, data = [self._log.last_entry(row) if row else NOTHING for row in rows]
        return control, data
