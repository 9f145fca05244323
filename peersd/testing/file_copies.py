"""What the files of a daemon hold, dead or alive: copied as they are, opened apart from it, and checked against themselves."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from peersd.store.store import Store, StoreContext, open_store
from peersd.testing.observing import read_file
from peersd.testing.simulator.checks import Amounts, Replicated, check_from_scratch, check_rows, check_state
from peersd.testing.simulator.disk import DiskMark
from peersd.testing.simulator.entries import holdings_of
from peersd_protocol.signing import SEED_BYTES, SigningKey


def copy_dead(path: Path, folder: Path) -> Path:
    """Copies a group's file and its write-ahead log byte by byte, as a daemon left them that was killed.

    SQLite's own recovery runs on the copy alone; the daemon's next start finds what the kill left behind.

    Args:
        path: the group's file.
        folder: gets the copy, in place of an earlier one of the same file.

    Returns:
        The copy's path.
    """
    copy = folder / path.name
    for suffix in ("", "-wal", "-shm"):
        copy.with_name(copy.name + suffix).unlink(missing_ok=True)
    shutil.copyfile(path, copy)
    log = path.with_name(path.name + "-wal")
    if log.exists():
        shutil.copyfile(log, copy.with_name(copy.name + "-wal"))
    return copy


def copy_alive(path: Path, folder: Path) -> Path:
    """Copies a group's file as it is at one moment, while a daemon may be writing it; see `copy_dead`."""
    copy = folder / path.name
    for suffix in ("", "-wal", "-shm"):
        copy.with_name(copy.name + suffix).unlink(missing_ok=True)
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=30)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


@contextmanager
def open_copied(copy: Path) -> Generator[Store]:
    """The store in a copy, as some other device would open it; what is written to it reaches nobody."""
    context = other_device()
    store = open_store(copy, context, DiskMark())
    try:
        yield store
    finally:
        store.close()


def other_device() -> StoreContext:
    """A device that is none of the swarm's, for looking into files."""
    key = SigningKey(random.Random(0).randbytes(SEED_BYTES))
    return StoreContext(key, lambda: time.time_ns() // 1_000_000, os.urandom, b"copy")


def check_copy(copy: Path, *, from_scratch: bool = False) -> tuple[Replicated, str | None]:
    """Looks whether a copied file is sound, and whether its tables and state are what its logs amount to.

    Args:
        copy: from `copy_dead` or `copy_alive`; its tables are rebuilt by this.
        from_scratch: whether to feed its logs to an empty store in another order too, which takes as long as replicating them.

    Returns:
        What it holds, to be compared with other devices', and what is wrong, in words; None if nothing is.
    """
    with open_copied(copy) as store:
        held = Replicated.of(store)
        wrong = check_state(store, Amounts()) or check_rows(store, holdings_of(store), Amounts())
        store.rebuild()
        if wrong is None and (difference := held.difference(Replicated.of(store))) is not None:
            wrong = f"against a rebuild from its logs, {difference[1]}"
        if wrong is None and from_scratch:
            wrong = check_from_scratch(store, held, other_device(), copy.parent, random.Random(0))
    verdict = read_file(copy, "PRAGMA integrity_check")
    if verdict != [("ok",)]:
        wrong = f"integrity_check: {verdict}"
    return held, wrong
