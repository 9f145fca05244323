"""The disk that tests put under stores: what was synced outlives a loss of power, and no file grows on a full one."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import apsw
import pytest

from peersd.store.database import open_reader, open_writer
from peersd.store.disk import sync_folder
from peersd.store.mark import Mark, MarkFile
from peersd.testing.disks import FaultyDisk


@pytest.fixture
def disk() -> Generator[FaultyDisk]:
    made = FaultyDisk()
    yield made
    made.unregister()


def lose_power(disk: FaultyDisk, folder: Path) -> Path:
    """The files as a loss of power leaves them, in another folder."""
    copy = folder / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        if path.is_file() and not path.name.endswith("-shm"):
            left = disk.left_of(path, path.read_bytes())
            if left is not None:
                (copy / path.name).write_bytes(left)
    return copy


@pytest.mark.parametrize(("synchronous", "rows"), [("full", 2), ("off", 1)])
def test_of_what_was_committed_a_loss_of_power_leaves_what_sqlite_has_synced(
    synchronous: str, rows: int, disk: FaultyDisk, tmp_path: Path
) -> None:
    writer = open_writer(tmp_path / "a.db", vfs=disk.vfs)
    writer.execute("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    writer.pragma("synchronous", synchronous)
    writer.execute("INSERT INTO t VALUES (2)")
    copy = lose_power(disk, tmp_path)
    writer.close()
    reader = open_reader(copy / "a.db")
    assert reader.execute("SELECT count(*) FROM t").get == rows
    assert reader.execute("PRAGMA integrity_check").get == "ok"
    reader.close()


def test_a_full_disk_refuses_what_makes_a_file_grow_and_takes_it_when_it_is_mended(disk: FaultyDisk, tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "a.db", vfs=disk.vfs)
    writer.execute("CREATE TABLE t (x)")
    disk.is_full = True
    with pytest.raises(apsw.FullError):
        writer.execute("INSERT INTO t VALUES (zeroblob(100000))")
    assert disk.has_failed
    disk.mend()
    writer.execute("INSERT INTO t VALUES (zeroblob(100000))")
    assert writer.execute("SELECT count(*) FROM t").get == 1
    writer.close()


def test_a_failing_disk_fails_what_is_to_be_written_and_what_was_written_can_be_read(disk: FaultyDisk, tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "a.db", vfs=disk.vfs)
    writer.execute("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    disk.is_failing = True
    with pytest.raises(apsw.IOError):
        writer.execute("INSERT INTO t VALUES (2)")
    reader = open_reader(tmp_path / "a.db", vfs=disk.vfs)
    assert reader.execute("SELECT x FROM t").get == 1
    reader.close()
    disk.mend()
    writer.close()


def test_a_failing_disk_neither_shortens_nor_deletes_nor_renames(disk: FaultyDisk, tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "a.db", vfs=disk.vfs)
    writer.execute("CREATE TABLE t (x)")
    write(disk, tmp_path / "new", b"new", is_synced=True)
    disk.is_failing = True
    with pytest.raises(OSError, match="Input/output error"):
        disk.replace(tmp_path / "new", tmp_path / "mark")
    with pytest.raises(apsw.IOError):
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with pytest.raises(apsw.IOError):
        writer.close()
    assert {path.name for path in tmp_path.iterdir()} >= {"a.db-wal", "new"}  # the last one to close deletes it, where it can


def test_a_mark_that_was_saved_outlives_a_loss_of_power_the_first_one_too(disk: FaultyDisk, tmp_path: Path) -> None:
    keeper = MarkFile(tmp_path / "a.mark", disk)
    for seq in (1, 2):
        mark = Mark(bytes(16), (seq, bytes(32)), (0, b""), b"machine", 7)
        keeper.save(mark)
        left = disk.left_of(tmp_path / "a.mark", (tmp_path / "a.mark").read_bytes())
        assert left is not None
        (tmp_path / f"{seq}.mark").write_bytes(left)
        assert MarkFile(tmp_path / f"{seq}.mark").load() == mark


def test_a_fault_that_a_disk_does_not_have_cannot_be_set(disk: FaultyDisk) -> None:
    with pytest.raises(AttributeError):
        disk.is_ful = True  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def write(disk: FaultyDisk, path: Path, content: bytes, *, is_synced: bool) -> None:
    descriptor = disk.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    disk.write(descriptor, content)
    if is_synced:
        disk.sync(descriptor)
    disk.close(descriptor)


def test_a_small_file_is_there_once_it_and_its_folder_are_synced(disk: FaultyDisk, tmp_path: Path) -> None:
    path = tmp_path / "mark"
    write(disk, path, b"one", is_synced=True)
    assert disk.left_of(path, b"one") is None
    sync_folder(disk, tmp_path)
    assert disk.left_of(path, b"one") == b"one"
    write(disk, path, b"three", is_synced=False)
    write(disk, path, b"fo", is_synced=False)
    assert disk.left_of(path, path.read_bytes()) == b"one"
    write(disk, path, b"five!", is_synced=True)
    assert disk.left_of(path, path.read_bytes()) == b"five!"


def test_what_a_dead_process_still_syncs_is_not_on_disk_for_that(disk: FaultyDisk, tmp_path: Path) -> None:
    path = tmp_path / "mark"
    write(disk, path, b"old", is_synced=True)
    sync_folder(disk, tmp_path)
    write(disk, path, b"new", is_synced=False)
    disk.switch_off()
    write(disk, path, b"dead", is_synced=True)
    assert disk.left_of(path, path.read_bytes()[:3]) == b"old"


@pytest.mark.parametrize(("is_synced", "left"), [(True, b"new"), (False, b"")])
def test_a_file_that_takes_another_s_place_counts_once_the_folder_is_synced(
    is_synced: bool, left: bytes, disk: FaultyDisk, tmp_path: Path
) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    write(disk, tmp_path / "key.new", b"new", is_synced=is_synced)
    disk.replace(tmp_path / "key.new", path)
    assert disk.left_of(path, path.read_bytes()) == b"old"
    sync_folder(disk, tmp_path)
    assert disk.left_of(path, path.read_bytes()) == left
