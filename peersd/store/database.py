"""Opening a store's SQLite file: the one writer, the readers, and scratch databases, all with the same limits (DESIGN 8, 12)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import apsw

from peersd.crash_points import CrashPoint, reach
from peersd.store import limits
from peersd.store.uuid7 import Uuid7

SQLITE_VERSION_MIN: Final = (3, 51, 3)
"""The first release without the WAL-reset bug (3.7.0 to 3.51.2), which can corrupt a database (DESIGN 3)."""

FILE_MODE: Final = 0o600

_WRITER_CACHE_KIB: Final = 4096
"""Twice SQLite's default. Pages of the keys' indexes are touched at random while others' rows are taken in: those of 100,000 rows
fit, which saves a fifteenth of the processor's time (measured; 8 or 16 MiB save no more there)."""

_CHECKPOINT_PAGES: Final = 4000
"""Of the write-ahead log, after which they are copied into the file. With SQLite's default, a fourth of it, that follows each
transaction of a catch-up, and pages that it shares with the next are copied twice. While nobody reads on, the log takes 20 MB so
where it took 8 (measured), until the file is closed, as idle ones are."""


def assert_sqlite_version(version: str | None = None) -> None:
    """Stops the process early on a SQLite that can corrupt a WAL database.

    Args:
        version: "3.54.1" or the like; by default that of the library in use.

    Raises:
        RuntimeError: the version is below `SQLITE_VERSION_MIN`.
    """
    version = version or apsw.sqlite_lib_version()
    if tuple(int(part) for part in version.split(".")[:3]) < SQLITE_VERSION_MIN:
        needed = ".".join(str(part) for part in SQLITE_VERSION_MIN)
        raise RuntimeError(f"SQLite {version} has the WAL-reset bug; {needed} or later is needed: install apsw from PyPI")


def open_writer(path: str | os.PathLike[str], *, uuid7: Callable[[], str] | None = None, vfs: str = "") -> apsw.Connection:
    """Opens a store's file for writing and creates it, mode 0600, when there is none. WAL, synchronous=FULL.

    The caller installs the authorizer and the capture hook before any client's SQL is prepared.

    Args:
        path: the file; SQLite gives -wal and -shm the mode of the file itself.
        uuid7: what the SQL function `uuid7()` calls; injected by simulations.
        vfs: the SQLite VFS that the file is opened through; empty for SQLite's own.

    Raises:
        RuntimeError: SQLite is too old.
        apsw.Error: the file is not a database, or cannot be opened.
    """
    assert_sqlite_version()
    _own_file(Path(path))
    connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, vfs=vfs or None)
    try:
        prepare_connection(connection, uuid7)
        connection.pragma("cache_size", -_WRITER_CACHE_KIB)
        connection.pragma("wal_autocheckpoint", _CHECKPOINT_PAGES)
        if connection.pragma("journal_mode", "wal") != "wal":
            raise RuntimeError(f"{path}: SQLite cannot use a write-ahead log here")
        # FULL: a commit is durable before any client or peer hears of it (DESIGN 6).
        connection.pragma("synchronous", "full")
    except BaseException:
        connection.close(force=True)
        raise
    return connection


def open_reader(path: str | os.PathLike[str], *, uuid7: Callable[[], str] | None = None, vfs: str = "") -> apsw.Connection:
    """Opens a store's file read-only, for queries. The file must exist; in WAL mode it never waits for the writer.

    Args:
        path: the file.
        uuid7: see open_writer.
        vfs: see open_writer.

    Raises:
        RuntimeError: SQLite is too old.
        apsw.Error: the file is missing or not a database.
    """
    assert_sqlite_version()
    connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs or None)
    try:
        prepare_connection(connection, uuid7)
        connection.pragma("query_only", True)
    except BaseException:
        connection.close(force=True)
        raise
    return connection


def is_unwritten(path: str | os.PathLike[str], vfs: str = "") -> bool:
    """Whether a file was made for a store and nothing was ever committed to it: its making was cut off.

    Args:
        path: the file.
        vfs: see open_writer.

    Raises:
        apsw.Error: the file is missing or not a database.
    """
    connection = open_reader(path, vfs=vfs)
    try:
        return bool(connection.execute("SELECT count(*) FROM sqlite_schema").get == 0)
    finally:
        connection.close()


def open_scratch(*, uuid7: Callable[[], str] | None = None) -> apsw.Connection:
    """Opens an empty database in memory with the same limits, on which a client's schema statement is tried."""
    assert_sqlite_version()
    connection = apsw.Connection(":memory:")
    prepare_connection(connection, uuid7)
    return connection


def prepare_connection(connection: apsw.Connection, uuid7: Callable[[], str] | None = None) -> None:
    """Sets what every connection has in common: limits, safety switches, the function `uuid7()`."""
    for limit, value in (
        (apsw.SQLITE_LIMIT_LENGTH, limits.VALUE_BYTES_MAX),
        (apsw.SQLITE_LIMIT_SQL_LENGTH, limits.SQL_BYTES_MAX),
        (apsw.SQLITE_LIMIT_EXPR_DEPTH, limits.EXPRESSION_DEPTH_MAX),
        (apsw.SQLITE_LIMIT_COMPOUND_SELECT, limits.COMPOUND_SELECT_MAX),
        (apsw.SQLITE_LIMIT_FUNCTION_ARG, limits.FUNCTION_ARGUMENTS_MAX),
        (apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, limits.LIKE_PATTERN_BYTES_MAX),
        (apsw.SQLITE_LIMIT_VDBE_OP, limits.VDBE_OPERATIONS_MAX),
        (apsw.SQLITE_LIMIT_ATTACHED, 0),
        (apsw.SQLITE_LIMIT_TRIGGER_DEPTH, 1),
        (apsw.SQLITE_LIMIT_WORKER_THREADS, 0),
    ):
        connection.limit(limit, value)
    for option, on in (
        (apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0),
        (apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0),
        (apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 0),
        (apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0),
        # "text" in double quotes is a name and never a string: a misspelt column is an error.
        (apsw.SQLITE_DBCONFIG_DQS_DML, 0),
        (apsw.SQLITE_DBCONFIG_DQS_DDL, 0),
        (apsw.SQLITE_DBCONFIG_DEFENSIVE, 1),
        (apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0),
        (apsw.SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE, 0),
        (apsw.SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, 0),
    ):
        connection.config(option, on)
    connection.set_busy_timeout(limits.BUSY_TIMEOUT_MS)
    connection.pragma("cell_size_check", True)
    # Off, since no trigger runs; the hook reports the rows that REPLACE deletes either way (tests/store/test_capture.py).
    connection.pragma("recursive_triggers", False)
    # Sorting in memory keeps it under the watch of the memory counter; a temporary file would have no bound of ours.
    connection.pragma("temp_store", "memory")
    # Innocuous, so that DEFAULT (uuid7()) works with trusted_schema off.
    connection.create_scalar_function("uuid7", cast("apsw.ScalarProtocol", uuid7 or Uuid7()), 0, flags=apsw.SQLITE_INNOCUOUS)


def _own_file(path: Path) -> None:
    """Creates the file with mode 0600, or takes other users' rights on it away."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
        reach(CrashPoint.FILE_CREATED)
    except FileExistsError:
        # By name: to open and close an existing file would drop the POSIX locks that this process holds on it through
        # another connection (sqlite.org/howtocorrupt.html 2.2).
        os.chmod(path, FILE_MODE)
