"""node.db with real files: when a summary counts as current, and what becomes of a file that is damaged."""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import apsw
import pytest

from peersd.errors import PeersdError
from peersd.store.database import open_reader, open_writer
from peersd.store.local_state import FORMAT, LocalState, Summary
from peersd_protocol.beacon_messages import Beacon, sign_beacon
from peersd_protocol.signing import SigningKey

GROUP, OTHER = b"g" * 32, b"o" * 32
DEVICE = b"d" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.db"


@pytest.fixture
def local(path: Path) -> Iterator[LocalState]:
    state = LocalState(path)
    yield state
    state.close()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A group's file, closed in good order."""
    file = tmp_path / "group-x.db"
    writer = open_writer(file)
    writer.execute("CREATE TABLE t (a)")
    writer.close()
    return file


def reopened(local: LocalState, path: Path) -> LocalState:
    local.close()
    return LocalState(path)


def is_current(local: LocalState, store: Path) -> bool:
    return local.load_summaries(lambda group_id: store)[GROUP].is_current


def insert(store: Path) -> None:
    writer = open_writer(store)
    writer.execute("INSERT INTO t VALUES (1)")
    writer.close()


# --- Summaries ------------------------------------------------------------------------------------------------------------------


def test_a_summary_of_a_file_that_was_closed_and_not_touched_is_current(local: LocalState, path: Path, store: Path) -> None:
    local.save_summary(GROUP, b"body", store)
    again = reopened(local, path)
    assert again.load_summaries(lambda group_id: store) == {GROUP: Summary(b"body", is_current=True)}
    again.close()


def test_after_a_crash_the_mark_is_missing(local: LocalState, path: Path, store: Path) -> None:
    local.save_summary(GROUP, b"body", store)
    local.clear_mark(GROUP)
    # As a crash leaves it: neither file was closed, and only what is on disk counts.
    crashed = path.with_name("crashed.db")
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{path}{suffix}", f"{crashed}{suffix}")
    after = LocalState(crashed)
    assert after.load_summaries(lambda group_id: store) == {GROUP: Summary(b"body", is_current=False)}
    after.save_summary(GROUP, b"later", store)
    assert after.load_summaries(lambda group_id: store) == {GROUP: Summary(b"later", is_current=True)}
    after.close()


def test_clearing_the_mark_of_one_group_leaves_others_current(local: LocalState, store: Path) -> None:
    local.save_summary(GROUP, b"body", store)
    local.save_summary(OTHER, b"other", store)
    local.clear_mark(OTHER)
    local.clear_mark(b"unknown")
    summaries = local.load_summaries(lambda group_id: store)
    assert {group_id: summary.is_current for group_id, summary in summaries.items()} == {GROUP: True, OTHER: False}


def test_a_file_that_was_written_since_is_not_current(local: LocalState, store: Path) -> None:
    local.save_summary(GROUP, b"body", store)
    insert(store)
    assert not is_current(local, store)


def test_a_file_of_another_size_is_not_current_though_its_time_is_the_same(local: LocalState, store: Path) -> None:
    local.save_summary(GROUP, b"body", store)
    before = store.stat()
    with store.open("ab") as file:
        file.write(bytes(4096))
    os.utime(store, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not is_current(local, store)


def test_a_file_with_another_time_is_not_current_though_its_bytes_are_the_same(local: LocalState, store: Path) -> None:
    local.save_summary(GROUP, b"body", store)
    before = store.stat()
    os.utime(store, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert not is_current(local, store)


def test_a_copy_in_the_files_place_is_not_current_though_size_and_time_are_the_same(local: LocalState, store: Path) -> None:
    local.save_summary(GROUP, b"body", store)
    shutil.copy2(store, store.with_name("copy"))
    os.replace(store.with_name("copy"), store)
    assert not is_current(local, store)


def test_a_file_with_a_write_ahead_log_left_is_not_current(local: LocalState, store: Path) -> None:
    local.save_summary(GROUP, b"body", store)
    log = Path(f"{store}-wal")
    log.write_bytes(b"")
    assert is_current(local, store)
    log.write_bytes(b"frames")
    assert not is_current(local, store)


def test_a_file_that_somebody_else_still_reads_gets_no_mark(local: LocalState, store: Path) -> None:
    writer = open_writer(store)
    reader = open_reader(store)
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,)
    writer.execute("INSERT INTO t VALUES (1)")
    writer.close()
    assert Path(f"{store}-wal").stat().st_size > 0
    local.save_summary(GROUP, b"body", store)
    assert not is_current(local, store)
    reader.close()
    assert not is_current(local, store)


def test_a_file_that_is_gone_is_not_current(local: LocalState, store: Path) -> None:
    local.save_summary(GROUP, b"body", store)
    store.unlink()
    assert not is_current(local, store)
    local.save_summary(GROUP, b"body", store)
    assert not is_current(local, store)


# --- The rest -------------------------------------------------------------------------------------------------------------------


def beacon(number: int, counter: int, group_id: bytes = GROUP) -> Beacon:
    return sign_beacon(group_id, SigningKey(bytes([number]) * 32), counter, ["ws://a"], b"d" * 16, [(b"l" * 8, 2**53)])


def test_beacons_of_each_group_and_device_are_kept_the_last_in_place_of_those_before(local: LocalState, path: Path) -> None:
    local.save_beacons(GROUP, [beacon(1, 5), beacon(2, 7)])
    local.save_beacons(OTHER, [beacon(1, 3)])
    local.save_beacons(GROUP, [beacon(1, 6)])
    local.save_beacons(GROUP, [])
    again = reopened(local, path)
    assert sorted(again.load_beacons(GROUP), key=lambda one: one.counter) == [beacon(1, 6), beacon(2, 7)]
    assert again.load_beacons(OTHER) == [beacon(1, 3)]
    assert again.load_beacons(b"unknown") == []
    again.close()


def test_a_beacon_that_cannot_be_read_is_left_out(local: LocalState, path: Path) -> None:
    local.save_beacons(GROUP, [beacon(1, 5), beacon(2, 7)])
    writer = apsw.Connection(str(path))
    writer.execute("UPDATE beacon SET packed = x'91c0' WHERE counter = 5")
    writer.close()
    assert local.load_beacons(GROUP) == [beacon(2, 7)]


def test_views_are_kept(local: LocalState, path: Path) -> None:
    local.save_views(GROUP, [(DEVICE, 1, 2), (b"e" * 32, None, 2**42)])
    local.save_views(GROUP, [(DEVICE, None, 3)])
    again = reopened(local, path)
    assert again.load_views(GROUP) == {DEVICE: (None, 3), b"e" * 32: (None, 2**42)}
    assert again.load_views(OTHER) == {}
    again.close()


def test_addresses_keep_their_order_and_that_of_their_devices(local: LocalState, path: Path) -> None:
    local.save_addresses({DEVICE: [("ws://b", 5), ("ws://a", None)], b"e" * 32: [("ws://a", None)]})
    local.save_addresses({DEVICE: [("ws://a", 9), ("ws://b", 5)]})
    again = reopened(local, path)
    assert list(again.load_addresses().items()) == [(b"e" * 32, [("ws://a", None)]), (DEVICE, [("ws://a", 9), ("ws://b", 5)])]
    again.save_addresses({DEVICE: []})
    assert list(again.load_addresses()) == [b"e" * 32]
    again.close()


def test_a_group_that_is_dropped_leaves_nothing(local: LocalState, store: Path) -> None:
    for group_id in (GROUP, OTHER):
        local.save_summary(group_id, b"body", store)
        local.save_beacons(group_id, [beacon(1, 5)])
        local.save_views(group_id, [(DEVICE, 1, 2)])
    local.drop_group(GROUP)
    assert list(local.load_summaries(lambda group_id: store)) == [OTHER]
    assert (local.load_beacons(GROUP), local.load_views(GROUP)) == ([], {})
    assert (len(local.load_beacons(OTHER)), len(local.load_views(OTHER))) == (1, 1)


# --- The file -------------------------------------------------------------------------------------------------------------------


def filled(path: Path) -> None:
    local = LocalState(path)
    local.save_views(GROUP, [(number.to_bytes(32, "big"), number, None) for number in range(2_000)])
    local.close()


def replacements(caplog: pytest.LogCaptureFixture) -> int:
    return [record.message for record in caplog.records].count("local_state_replaced")


def test_the_file_is_the_users_own_and_durable(local: LocalState, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    observer = apsw.Connection(str(path))
    assert observer.pragma("journal_mode") == "wal"
    assert observer.pragma("user_version") == FORMAT
    observer.close()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(b"no database at all, but long enough" * 200), id="no database"),
        pytest.param(lambda path: os.truncate(path, 3 * 4096), id="cut off"),
        pytest.param(
            lambda path: path.write_bytes(path.read_bytes()[:4096] + b"\x55" * (path.stat().st_size - 4096)), id="bad pages"
        ),
        pytest.param(lambda path: apsw.Connection(str(path)).execute("PRAGMA user_version = 99"), id="another version"),
    ],
)
def test_a_file_that_cannot_be_used_is_replaced_and_said_so_once(
    damage: Callable[[Path], object], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled(path)
    damage(path)
    with caplog.at_level(logging.WARNING):
        local = LocalState(path)
    assert replacements(caplog) == 1
    assert local.load_views(GROUP) == {}
    local.save_views(GROUP, [(DEVICE, 1, 2)])
    again = reopened(local, path)
    assert again.load_views(GROUP) == {DEVICE: (1, 2)}
    assert replacements(caplog) == 1
    again.close()


def test_damage_that_shows_later_replaces_the_file_and_the_call_succeeds(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(path)
    local = LocalState(path)
    other = apsw.Connection(str(path))
    other.execute("DELETE FROM address")
    other.execute("INSERT INTO address (device, url) VALUES (x'00', 'ws://a')")  # so that what is cached is read again
    size = path.stat().st_size
    with path.open("r+b") as file:  # in place, under the open connection
        file.seek(4096)
        file.write(b"\x55" * (size - 4096))
    with caplog.at_level(logging.WARNING):
        local.save_views(GROUP, [(DEVICE, None, 1)])
    assert replacements(caplog) == 1
    assert local.load_views(GROUP) == {DEVICE: (None, 1)}
    other.close()
    again = LocalState(path)
    assert again.load_views(GROUP) == {DEVICE: (None, 1)}
    again.close()
    assert replacements(caplog) == 1
    local.close()


def test_damage_that_shows_while_no_file_can_be_made_ends_once_one_can(path: Path) -> None:
    filled(path)
    local = LocalState(path)
    with apsw.Connection(str(path)) as other:
        other.execute("DELETE FROM address")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\x55" * (path.stat().st_size - 4096))
    folder = path.parent.rename(path.parent.with_name("elsewhere"))
    with pytest.raises(PeersdError):
        local.save_views(GROUP, [(DEVICE, 1, 2)])
    folder.rename(path.parent)
    local.save_views(GROUP, [(DEVICE, 1, 2)])
    assert local.load_views(GROUP) == {DEVICE: (1, 2)}
    local.close()


@pytest.mark.parametrize("suffixes", [[""], ["", "-wal"], ["", "-wal", "-shm"]])
def test_the_file_may_be_deleted_at_any_time(path: Path, suffixes: list[str], caplog: pytest.LogCaptureFixture) -> None:
    local = LocalState(path)
    local.save_views(GROUP, [(DEVICE, 1, 2)])
    copy = path.with_name("copy.db")  # as a killed process leaves it, its log beside it
    for suffix in ("", "-wal", "-shm"):
        shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
    local.close()
    for suffix in suffixes:
        Path(f"{copy}{suffix}").unlink()
    with caplog.at_level(logging.WARNING):
        anew = LocalState(copy)
    assert anew.load_views(GROUP) == {}
    assert replacements(caplog) == 0
    anew.close()


def test_a_write_without_room_says_so_and_changes_nothing(local: LocalState, path: Path) -> None:
    local.save_views(GROUP, [(DEVICE, 1, 2)])
    assert local._connection is not None
    local._connection.pragma("max_page_count", local._connection.pragma("page_count"))
    with pytest.raises(PeersdError) as failed:
        local.save_views(GROUP, [(DEVICE, 3, 4), *((number.to_bytes(32, "big"), 1, 2) for number in range(5_000))])
    assert failed.value.code == "store_full"
    assert local.load_views(GROUP) == {DEVICE: (1, 2)}


def test_a_call_that_fails_in_the_middle_changes_nothing(local: LocalState) -> None:
    with pytest.raises(PeersdError):
        local.save_views(GROUP, [(DEVICE, 1, 2), (b"e" * 32, cast("int", "no time"), None)])
    assert local.load_views(GROUP) == {}
    local.save_views(GROUP, [(DEVICE, 3, 4)])
    assert local.load_views(GROUP) == {DEVICE: (3, 4)}


def test_a_folder_that_is_not_there_is_an_error_of_the_world(tmp_path: Path) -> None:
    with pytest.raises(PeersdError):
        LocalState(tmp_path / "absent" / "node.db")


def test_calls_may_come_from_several_threads(local: LocalState) -> None:
    def write(number: int) -> None:
        for at in range(30):
            local.save_beacons(bytes([number]) * 32, many)
            local.save_views(GROUP, [(bytes([number]) * 32, at, None)])
            local.load_views(GROUP)

    many = [beacon(number, 1) for number in range(100)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4), timeout=60))
    assert local.load_views(GROUP) == {bytes([number]) * 32: (29, None) for number in range(4)}
