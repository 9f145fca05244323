"""Positions used twice, epochs that keep that from happening, and the mark that notices when it might (DESIGN 6)."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest

from peersd.errors import PeersdError
from peersd.store.mark import Mark, MarkFile
from peersd.store.store import open_store
from peersd.testing.simulator.disk import DiskMark
from peersd_protocol.constants import BRANCHES_MAX
from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from tests.store.pools import clone
from tests.store.stores import Meeting, Replica, assert_alike, fetch, meet, missing, take_all


def data_log(replica: Replica) -> LogKey:
    return LogKey(Kind.DATA, b"", replica.person.keys.device, replica.store.epoch)


def tips(replica: Replica, log: LogKey) -> list[int]:
    return [seq for seq, _ in replica.store.vector().get(log, ())]


def test_two_branches_of_one_log_are_exchanged_and_both_merge(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    writer = meeting.join("writer")
    writer.note("both", "before")
    twin = clone(writer, tmp_path / "twin")
    writer.note("one", "here")
    writer.note("both", "here")
    twin.note("other", "there")
    other = meeting.join("other")
    fetch(meeting.founder.store, writer.store)
    fetch(other.store, twin.store)
    log = data_log(writer)
    assert tips(meeting.founder, log) == [3] and tips(other, log) == [2]
    meet(meeting.founder, other)
    assert tips(meeting.founder, log) == tips(other, log) == [2, 3]
    assert_alike(meeting.founder, other)
    assert [row[:2] for row in other.notes()] == [("both", "here"), ("one", "here"), ("other", "there")]


def test_a_replica_with_one_branch_never_looks_equal_to_one_with_the_other(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    writer = meeting.join("writer")
    twin = clone(writer, tmp_path / "twin")
    writer.note("a", "here")
    twin.note("b", "there")
    assert tips(writer, data_log(writer)) == tips(twin, data_log(twin)) == [1]
    assert writer.store.vector() != twin.store.vector()


def test_a_long_branch_and_a_short_one_are_both_served_in_small_messages(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    writer = meeting.join("writer")
    twin = clone(writer, tmp_path / "twin")
    for number in range(6):
        writer.note(f"here{number}", None, Random(number).randbytes(60_000))
    for number in range(3):
        twin.note(f"there{number}", None, Random(-number).randbytes(60_000))
    meet(meeting.founder, writer)
    meet(meeting.founder, twin)
    late = meeting.join("late")
    assert_alike(meeting.founder, late)
    assert tips(late, data_log(writer)) == [3, 6]
    assert len(late.notes()) == 9


def test_more_branches_than_are_kept_are_refused(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    writer = meeting.join("writer")
    twins = [clone(writer, tmp_path / str(number)) for number in range(BRANCHES_MAX)]
    writer.note("0", "first")
    fetch(meeting.founder.store, writer.store)
    for number, twin in enumerate(twins[:-1]):
        twin.note("x", f"branch {number}")
        fetch(meeting.founder.store, twin.store)
    twins[-1].note("x", "one too many")
    before = meeting.founder.store.vector()
    with pytest.raises(RemoteProtocolError) as refused:
        fetch(meeting.founder.store, twins[-1].store)
    assert refused.value.close_code is CloseCode.BAD_CHAIN
    assert meeting.founder.store.vector() == before
    assert len(meeting.founder.notes()) == 2


def test_a_store_goes_on_in_its_epoch_when_it_is_opened_again(tmp_path: Path) -> None:
    founder = Meeting(tmp_path).founder
    founder.note("a")
    epoch = founder.store.epoch
    assert founder.reopen().epoch == epoch
    founder.note("b")
    assert tips(founder, data_log(founder)) == [2]


def test_a_store_restored_from_an_older_copy_opens_a_new_epoch_and_uses_no_position_twice(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    writer, reader = meeting.join("writer"), meeting.founder
    writer.note("a", "kept")
    writer.store.close()
    shutil.copy(writer.path, tmp_path / "backup.db")
    writer.store = open_store(writer.path, writer.context, writer.mark)
    old = data_log(writer)
    writer.note("b", "after the backup")
    fetch(reader.store, writer.store)
    writer.store.close()
    writer.path.write_bytes((tmp_path / "backup.db").read_bytes())  # in place: the inode stays
    writer.store = open_store(writer.path, writer.context, writer.mark)
    assert writer.store.epoch != old.epoch
    writer.note("c", "after the restore")
    meet(writer, reader)
    assert_alike(writer, reader)
    assert tips(reader, old) == [2] and tips(reader, data_log(writer)) == [1]
    assert [row[0] for row in writer.notes()] == ["a", "b", "c"]


def test_a_file_that_was_moved_opens_a_new_epoch(tmp_path: Path) -> None:
    founder = Meeting(tmp_path).founder
    founder.note("a")
    epoch = founder.store.epoch
    founder.store.close()
    shutil.copy(founder.path, tmp_path / "copy.db")
    founder.store = open_store(tmp_path / "copy.db", founder.context, founder.mark)
    assert founder.store.epoch != epoch
    assert [row[0] for row in founder.notes()] == ["a"]


def test_a_store_without_its_mark_opens_a_new_epoch(tmp_path: Path) -> None:
    founder = Meeting(tmp_path).founder
    founder.note("a")
    epoch = founder.store.epoch
    founder.mark, old_mark = DiskMark(), founder.mark
    founder.store.close()
    assert old_mark.load() is not None
    founder.store = open_store(founder.path, founder.context, founder.mark)
    assert founder.store.epoch != epoch


def test_the_mark_is_on_disk_before_a_peer_is_told(tmp_path: Path) -> None:
    founder = Meeting(tmp_path).founder
    founder.note("a")
    founder.store.vector()
    mark = founder.mark.load()
    assert mark is not None and mark.data[0] == 1
    founder.note("b")
    behind = founder.mark.load()
    assert behind is not None and behind.data[0] == 1  # nobody listens, so nobody was told
    founder.store.listeners = 1
    commit = founder.note("c")
    ahead = founder.mark.load()
    assert commit.message is not None and ahead is not None and ahead.data[0] == 3


def test_a_mark_survives_its_file_and_a_torn_one_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "group.mark"
    mark = Mark(b"e" * 16, (0, b""), (7, b"h" * 32), b"machine", 42)
    keeper = MarkFile(path)
    assert keeper.load() is None
    keeper.save(Mark(b"e" * 16, (0, b""), (6, b"g" * 32), b"machine", 42))
    keeper.save(mark)
    assert MarkFile(path).load() == mark
    assert path.stat().st_mode & 0o777 == 0o600
    record = bytearray(path.read_bytes())
    for position in (0, 3, 10, 40):
        torn = bytearray(record)
        torn[position] ^= 1
        path.write_bytes(torn)
        assert MarkFile(path).load() is None
    path.write_bytes(b"")
    assert MarkFile(path).load() is None


def test_a_file_of_another_kind_is_told_apart(tmp_path: Path) -> None:
    founder = Meeting(tmp_path).founder
    founder.store.close()
    with pytest.raises(PeersdError) as corrupt:
        open_store(tmp_path / "new.db", founder.context, DiskMark())
    assert corrupt.value.code == "store_corrupt"
    founder.store = open_store(founder.path, founder.context, founder.mark)
    assert take_all(founder.store, missing(founder.store, founder.store)) == []
