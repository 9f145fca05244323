"""node.db: what this device remembers beside the groups' files, so that it need not open them all (DESIGN 8).

A cache: it is never replicated, and a file that is lost or damaged is made anew.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import apsw

from peersd.crash_points import CrashPoint, reach
from peersd.store.database import open_writer
from peersd.store.sql_errors import convert_sqlite_error
from peersd_protocol.beacon_messages import Beacon, decode_beacon
from peersd_protocol.errors import RemoteProtocolError

_log = logging.getLogger("peersd.store")

T = TypeVar("T")

FORMAT: Final = 1
"""Another number in a file's user_version: it was made by another version, and is made anew."""

_DAMAGE: Final = (apsw.CorruptError, apsw.NotADBError)

_INTEGER_MASK: Final = 2**63 - 1
"""Inodes may have 64 bits; SQLite's integers have a sign. To tell files apart the lower 63 are as good."""

Stamp: TypeAlias = tuple[int, int, int]
"""(inode, size in bytes, time of the last change in ns) of a file that was closed in good order."""

StoredAddress: TypeAlias = tuple[str, int | None]
"""(url, when the device proved to be there in ms, or None if it only says so)."""

View: TypeAlias = tuple[int | None, int | None]
"""(when a copy was last known to be equal, when a session with it last ran), ms since 1970, None for never."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What is known of a group without its file.

    Attributes:
        body: as it was given to save_summary last.
        is_current: whether the file is the one that `body` was saved for, unchanged since; else `body` may be out of date.
    """

    body: bytes
    is_current: bool


class LocalState:
    """The file node.db, open. Calls may come from several threads; each is one transaction and durable when it returns.

    A file that proves to be damaged, at the start or later, is replaced by an empty one, which is logged.

    Args:
        path: the file; made where there is none.
        vfs: the SQLite VFS that it is opened through; empty for SQLite's own.

    Raises:
        PeersdError: `store_full` or `busy`, from every method too: the file cannot be opened, read or written.
    """

    def __init__(self, path: Path, vfs: str = "") -> None:
        self._path = path
        self._vfs = vfs
        self._lock = threading.Lock()
        self._connection: apsw.Connection | None
        try:
            self._connection = self._open()
        except (apsw.Error, OSError) as error:
            raise convert_sqlite_error(error) from error

    def close(self) -> None:
        """Closes the file; nothing may be called afterwards."""
        with self._lock:
            if self._connection is not None:
                try:
                    self._connection.close()
                except apsw.Error as error:  # the disk is full or failing: who opens the file puts it in order
                    _log.warning("local_state_not_closed", extra={"fields": {"file": self._path.name, "reason": str(error)}})

    # --- Summaries --------------------------------------------------------------------------------------------------------------

    def load_summaries(self, path_of: Callable[[bytes], Path]) -> dict[bytes, Summary]:
        """All summaries, by group id.

        Args:
            path_of: a group's file by the group's id. A summary is current if it is still the file that was saved for, as it was
                then, and no write-ahead log is left beside it.
        """
        rows = self._rows("SELECT group_id, body, clean, inode, size, mtime_ns FROM summary")
        return {
            group_id: Summary(body, bool(clean) and read_stamp(path_of(group_id)) == tuple(stamp))
            for group_id, body, clean, *stamp in rows
        }

    def save_summary(self, group_id: bytes, body: bytes, path: Path) -> None:
        """Keeps what is known of a group whose file has been closed, and sets the mark that it is true of the file as it is now.

        Where a write-ahead log is left, because somebody else still reads the file, the mark stays cleared.
        """
        stamp = read_stamp(path)
        inode, size, mtime_ns = stamp or (0, 0, 0)
        row = (group_id, body, stamp is not None, inode, size, mtime_ns)
        self._write("INSERT OR REPLACE INTO summary VALUES (?, ?, ?, ?, ?, ?)", [row])

    def clear_mark(self, group_id: bytes) -> None:
        """Clears the mark; to be called before the first commit to a file that was opened."""
        self._write("UPDATE summary SET clean = 0 WHERE group_id = ? AND clean", [(group_id,)])

    def drop_group(self, group_id: bytes) -> None:
        """Forgets all of a group."""

        def drop(connection: apsw.Connection) -> None:
            for table in ("summary", "beacon", "view"):
                connection.execute(f"DELETE FROM {table} WHERE group_id = ?", (group_id,))

        self._do(drop)

    # --- Beacons ----------------------------------------------------------------------------------------------------------------

    def load_beacons(self, group_id: bytes) -> list[Beacon]:
        """The beacons that were kept of a group's devices."""
        beacons = []
        for (packed,) in self._rows("SELECT packed FROM beacon WHERE group_id = ?", (group_id,)):
            try:
                beacons.append(decode_beacon(packed))
            except RemoteProtocolError:
                continue  # of other bounds than today's; the devices' next ones replace it
        return beacons

    def save_beacons(self, group_id: bytes, beacons: Iterable[Beacon]) -> None:
        """Keeps beacons, each in place of its device's one before."""
        rows = [(group_id, beacon.device, beacon.counter, beacon.encode()) for beacon in beacons]
        self._write("INSERT OR REPLACE INTO beacon VALUES (?, ?, ?, ?)", rows)

    # --- Addresses --------------------------------------------------------------------------------------------------------------

    def load_addresses(self) -> dict[bytes, list[StoredAddress]]:
        """The addresses of each device in the order in which they were saved, the device that was saved last at the end."""
        addresses: dict[bytes, list[StoredAddress]] = {}
        for device, url, answered_ms in self._rows("SELECT device, url, answered_ms FROM address ORDER BY id"):
            addresses.setdefault(device, []).append((url, answered_ms))
        return addresses

    def save_addresses(self, addresses: Mapping[bytes, Sequence[StoredAddress]]) -> None:
        """Replaces all that is kept of these devices; with no addresses a device is forgotten."""

        def save(connection: apsw.Connection) -> None:
            for device, listed in addresses.items():
                connection.execute("DELETE FROM address WHERE device = ?", (device,))
                rows = [(device, *address) for address in listed]
                connection.executemany("INSERT INTO address (device, url, answered_ms) VALUES (?, ?, ?)", rows)

        self._do(save)

    # --- Views ------------------------------------------------------------------------------------------------------------------

    def load_views(self, group_id: bytes) -> dict[bytes, View]:
        """What is known of the copies of a group, by device."""
        rows = self._rows("SELECT device, last_equal_ms, last_seen_ms FROM view WHERE group_id = ?", (group_id,))
        return {device: (last_equal_ms, last_seen_ms) for device, last_equal_ms, last_seen_ms in rows}

    def save_views(self, group_id: bytes, views: Iterable[tuple[bytes, int | None, int | None]]) -> None:
        """Keeps what is known of copies of a group: (device, last_equal_ms, last_seen_ms) of each."""
        self._write("INSERT OR REPLACE INTO view VALUES (?, ?, ?, ?)", [(group_id, *view) for view in views])

    # --- The file ---------------------------------------------------------------------------------------------------------------

    def _rows(self, sql: str, bindings: tuple[bytes, ...] = ()) -> list[tuple[Any, ...]]:
        return self._do(lambda connection: connection.execute(sql, bindings).fetchall())

    def _write(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        def write(connection: apsw.Connection) -> None:
            connection.executemany(sql, rows)

        if rows:
            self._do(write)

    def _do(self, work: Callable[[apsw.Connection], T]) -> T:
        """Does something in one transaction; once more in a new file, if this one proves to be damaged."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._open()
                try:
                    return _transact(self._connection, work)
                except _DAMAGE as error:
                    self._connection.close(force=True)
                    self._connection = None  # until a new file can be made: the disk may be full now
                    self._replace(error)
                    self._connection = self._open()
                    return _transact(self._connection, work)
            except (apsw.Error, OSError) as error:
                raise convert_sqlite_error(error) from error

    def _open(self) -> apsw.Connection:
        try:
            return self._open_sound()
        except _DAMAGE as error:
            self._replace(error)
            return self._open_sound()

    def _open_sound(self) -> apsw.Connection:
        """Opens the file and makes the tables.

        Raises:
            apsw.CorruptError, apsw.NotADBError: it is not to be used.
        """
        connection = open_writer(self._path, vfs=self._vfs)
        try:
            finding = connection.execute("PRAGMA quick_check(1)").fetchone()
            if finding != ("ok",):
                raise apsw.CorruptError(f"quick_check: {finding}")
            version = connection.pragma("user_version")
            is_new = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
            if version != FORMAT and not is_new:
                raise apsw.NotADBError(f"made by another version ({version})")
            connection.execute(resources.files("peersd.store").joinpath("local_state.sql").read_text("utf-8")).fetchall()
            connection.pragma("user_version", FORMAT)
        except BaseException:
            connection.close(force=True)
            raise
        return connection

    def _replace(self, error: Exception) -> None:
        _log.warning("local_state_replaced", extra={"fields": {"file": self._path.name, "reason": str(error)}})
        for suffix in ("-wal", "-shm", ""):  # never a new file beside the log of an old one
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)


def _transact(connection: apsw.Connection, work: Callable[[apsw.Connection], T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        reach(CrashPoint.LOCAL_RECORDED)
        connection.execute("COMMIT")
        reach(CrashPoint.LOCAL_COMMITTED)
    except BaseException:
        if connection.in_transaction:  # a full disk has ended it already
            connection.execute("ROLLBACK")
        raise
    return result


def read_stamp(path: Path) -> Stamp | None:
    """What tells whether a store's file has changed; None if there is none, or it was not closed in good order."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    try:
        if os.stat(f"{path}-wal").st_size:
            return None
    except FileNotFoundError:
        pass
    except OSError:
        return None
    return found.st_ino & _INTEGER_MASK, found.st_size, found.st_mtime_ns
