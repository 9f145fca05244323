"""Makes an entry of each local request, inside the transaction of its batch (DESIGN 6, 8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from peersd.errors import PeersdError
from peersd.store.changes import TableChanges
from peersd.store.log import Log
from peersd.store.merge import Merge
from peersd.store.writer import Writer
from peersd_protocol.constants import BODY_BYTES_MAX, MIB
from peersd_protocol.entries import Kind

NO_ENTRY = 0
"""The entry id under which pure moves are recorded: they change the place of clocks, never their value."""


@dataclass(frozen=True, slots=True)
class LastEntry:
    """The entry that a write made.

    Attributes:
        device, epoch: the writer.
        seq: its position in the writer's data log.
        hlc: its stamp.
    """

    device: bytes
    epoch: bytes
    seq: int
    hlc: int


class EntryRecorder:
    """The Recorder of one batch (see batch.py).

    Args:
        log, merge, writer: of the group.
        users: the acting user of each request.
        reload: brings what is in memory back in line with the file, after a rollback.

    Attributes:
        is_ahead: whether what is in memory is ahead of the file, unless COMMIT succeeds.
    """

    def __init__(self, log: Log, merge: Merge, writer: Writer, users: Sequence[bytes], reload: Callable[[], None]) -> None:
        self._log = log
        self._merge = merge
        self._writer = writer
        self._users = users
        self._reload = reload
        self._is_first = True
        self.is_ahead = False

    def restart(self) -> None:
        """See Recorder."""
        if not self._is_first:
            self._reload()
        self._is_first = False
        self.is_ahead = False
        self._writer.reset()

    def record(self, index: int, changes: list[TableChanges]) -> LastEntry | None:
        """See Recorder.

        Raises:
            PeersdError: `too_large`.
        """
        body = self._merge.encode_local(changes)
        self.is_ahead = True  # from here on, wherever it is cut off
        if body is None:
            self._merge.record_local(NO_ENTRY, changes)
            return None
        if len(body) > BODY_BYTES_MAX:
            raise PeersdError(
                "too_large",
                f"The transaction changes {len(body)} bytes.",
                hint=f"Split it: {BODY_BYTES_MAX // MIB} MiB is the most that one transaction may change.",
            )
        written = self._writer.append(Kind.DATA, self._users[index], body, is_last=index == len(self._users) - 1)
        self._merge.record_local(written.id, changes)
        return LastEntry(written.header.device, written.header.epoch, written.header.seq, written.header.hlc)

    def finish(self) -> None:
        """See Recorder."""
        self._writer.seal()
        if self._writer.committed:
            self._log.settle()
