"""How store files are opened, and what uuid7() gives."""

from __future__ import annotations

import os
import stat
import uuid
from functools import partial
from pathlib import Path

import apsw
import pytest

from peersd.store.database import SQLITE_VERSION_MIN, assert_sqlite_version, open_reader, open_scratch, open_writer
from peersd.store.uuid7 import Uuid7


@pytest.mark.parametrize("version", ["3.7.0", "3.40.1", "3.51.2", "3.51.2.9"])
def test_a_sqlite_with_the_wal_reset_bug_is_refused(version: str) -> None:
    with pytest.raises(RuntimeError, match=r"3\.51\.3 or later"):
        assert_sqlite_version(version)


@pytest.mark.parametrize("version", ["3.51.3", "3.54.1.0", "3.100.0", "4.0.0", None])
def test_later_versions_pass(version: str | None) -> None:
    assert_sqlite_version(version)
    assert SQLITE_VERSION_MIN == (3, 51, 3)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_files_are_the_users_own(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        writer = open_writer(tmp_path / "a.db")
        writer.execute("CREATE TABLE t (a)")
    finally:
        os.umask(old)
    assert modes(tmp_path) == {"a.db": 0o600, "a.db-wal": 0o600, "a.db-shm": 0o600}
    writer.close()


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    open_writer(path).close()
    path.chmod(0o644)
    open_writer(path).close()
    assert modes(tmp_path) == {"a.db": 0o600}


def test_the_writer_is_durable_and_bounded(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "a.db")
    expected = {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 0,
        "recursive_triggers": 0,
        "trusted_schema": 0,
        "cell_size_check": 1,
        "temp_store": 2,
    }
    assert {name: writer.pragma(name) for name in expected} == expected
    assert writer.limit(apsw.SQLITE_LIMIT_ATTACHED) == 0
    assert writer.limit(apsw.SQLITE_LIMIT_LENGTH) == 64 << 20
    assert writer.limit(apsw.SQLITE_LIMIT_SQL_LENGTH) == 1 << 20
    assert writer.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, -1) == 0
    assert writer.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, -1) == 1
    writer.close()


def test_a_reader_cannot_write_and_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(apsw.CantOpenError):
        open_reader(tmp_path / "a.db")
    writer = open_writer(tmp_path / "a.db")
    writer.execute("CREATE TABLE t (a)")
    reader = open_reader(tmp_path / "a.db")
    with pytest.raises(apsw.ReadOnlyError):
        reader.execute("INSERT INTO t VALUES (1)")
    reader.close()
    writer.close()


def test_a_file_that_is_no_database_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"no database at all, but long enough" * 100)
    with pytest.raises(apsw.NotADBError):
        open_writer(tmp_path / "a.db")


def test_uuid7_works_as_a_default_though_the_schema_is_not_trusted() -> None:
    scratch = open_scratch(uuid7=iter(["first", "second"]).__next__)
    scratch.execute("CREATE TABLE t (id TEXT PRIMARY KEY DEFAULT (uuid7()))")
    scratch.execute("INSERT INTO t DEFAULT VALUES")
    scratch.execute("INSERT INTO t DEFAULT VALUES")
    assert scratch.execute("SELECT id FROM t").fetchall() == [("first",), ("second",)]


def test_a_uuid7_says_its_time_and_version() -> None:
    source = Uuid7(lambda: 0x017F22E279B0, lambda count: bytes(range(count)))
    # The layout of RFC 9562, appendix A.6, with our counter and entropy.
    assert source() == "017f22e2-79b0-7001-8203-040506070809"
    assert source() == "017f22e2-79b0-7002-8203-040506070809"


def test_uuid7s_ascend_within_a_millisecond_past_the_counter_and_when_the_clock_steps_back() -> None:
    times = iter([1000] * 5000 + [900] * 100 + [5000])
    source = Uuid7(lambda: next(times), os.urandom)
    ids = [source() for _ in range(5101)]
    assert ids == sorted(set(ids))
    parsed = [uuid.UUID(one) for one in ids]
    assert {one.version for one in parsed} == {7}
    assert {one.variant for one in parsed} == {uuid.RFC_4122}
    assert parsed[-1].int >> 80 == 5000
    assert parsed[0].int >> 80 == 1000
    assert parsed[5099].int >> 80 < 1010


def test_uuid7_texts_sort_as_their_bytes() -> None:
    ids = [Uuid7(partial(int, at))() for at in (0, 15, 16, 255, 2**40, 2**47)]
    assert sorted(ids) == ids
    assert [uuid.UUID(one).bytes for one in ids] == sorted(uuid.UUID(one).bytes for one in ids)
