"""A disk that is full when SQLite commits: nothing is acknowledged, nothing is told, and the logs go on unbroken."""

from __future__ import annotations

import errno
import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from peersd.errors import PeersdError
from peersd.store.mark import Mark, MarkKeeper
from peersd.store.sql_errors import convert_sqlite_error
from peersd.testing.disks import FaultyDisk
from tests.store.stores import Meeting, assert_alike, fetch, no_room

apsw = pytest.importorskip("apsw")


def test_a_write_that_cannot_be_committed_leaves_no_trace_in_the_log(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    founder, reader = meeting.founder, meeting.join("reader")
    founder.note("before")
    vector = founder.store.vector()
    with no_room(founder), pytest.raises(PeersdError) as caught:
        founder.note("lost")
    assert caught.value.code == "store_full"
    assert founder.store.vector() == vector
    assert [row[0] for row in founder.notes()] == ["before"]
    founder.note("after")
    fetch(reader.store, founder.store)
    assert [row[0] for row in reader.notes()] == ["after", "before"]
    assert reader.store.vector() == founder.store.vector()


def test_what_cannot_be_taken_in_for_want_of_room_is_taken_in_later(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    founder, reader = meeting.founder, meeting.join("reader")
    founder.note("one")
    vector = reader.store.vector()
    with no_room(reader), pytest.raises(apsw.Error) as caught:
        fetch(reader.store, founder.store)
    assert convert_sqlite_error(caught.value).code == "store_full"
    assert reader.store.vector() == vector
    fetch(reader.store, founder.store)
    assert [row[0] for row in reader.notes()] == ["one"]


class FailsLater(FaultyDisk):
    """A disk that refuses one write, after so many that it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.left: float = math.inf

    def refuses(self, *, grows: bool) -> bool:
        self.left -= 1
        return self.left == -1 and super().refuses(grows=grows)


def test_a_first_write_that_fails_at_whatever_page_leaves_no_trace_in_memory(tmp_path: Path) -> None:
    disk, taken = FailsLater(), 0
    while not taken or disk.has_failed:
        folder = tmp_path / str(taken)
        folder.mkdir()
        meeting = Meeting(folder)
        founder, writer = meeting.founder, meeting.join("writer")
        writer.context = replace(writer.context, vfs=disk.vfs)
        writer.reopen().log.connection.pragma("cache_size", 1)  # pages are written as they change, and not with COMMIT alone
        disk.left, disk.is_failing, disk.has_failed = taken, True, False
        with suppress(PeersdError):
            writer.note("lost", body=bytes(3000))
        disk.left, disk.is_failing = math.inf, False
        writer.note("kept")
        fetch(founder.store, writer.store)
        writer.reopen()
        assert_alike(founder, writer)
        assert ("lost" in [row[0] for row in writer.notes()]) is not disk.has_failed
        writer.store.close()
        founder.store.close()
        taken += 1
    disk.unregister()
    assert taken > 10


class FullMark:
    """A mark on a disk without room."""

    def __init__(self, kept: MarkKeeper) -> None:
        self.kept = kept
        self.is_full = True

    def load(self) -> Mark | None:
        return self.kept.load()

    def save(self, mark: Mark) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.kept.save(mark)


def test_a_write_whose_mark_cannot_be_kept_stands_and_is_told_to_nobody_before_it_can(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    founder, reader = meeting.founder, meeting.join("reader")
    founder.store.vector()
    mark = founder.mark = FullMark(founder.mark)
    founder.reopen()
    founder.store.listeners = 1
    assert founder.note("kept").message is None
    with pytest.raises(OSError, match="No space"):
        founder.store.vector()
    mark.is_full = False
    fetch(reader.store, founder.store)
    assert [row[0] for row in reader.notes()] == ["kept"]
