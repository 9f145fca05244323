"""What a member wrote within all bounds can be passed on within all bounds: no entry can make an honest device look guilty."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from peersd_protocol import canonical, hlc
from peersd_protocol.blocks import decompress
from peersd_protocol.canonical import Value
from peersd_protocol.constants import LINKS_PER_ENTRY_MAX, MESSAGE_ARRAYS_MAX, MESSAGE_BYTES_MAX
from peersd_protocol.entries import NO_BODY_HASH, Header, Kind
from peersd_protocol.messages import Runs, Want, decode_message, decode_runs, encode_runs
from peersd_protocol.replication import Cursor, Read
from peersd_protocol.runs import Body, Entry, Run, run_value
from tests.store.stores import FIRST_MS, Meeting, Replica, assert_alike, fetch

NO_BODY = Body.of_blocks([])


@pytest.fixture
def meeting(tmp_path: Path) -> Meeting:
    return Meeting(tmp_path)


def runs_of(author: Replica, count: int, **fields: object) -> list[Run]:
    """Runs of one empty entry each, in a log of their own."""
    heads = tuple(sorted(author.store.log.act_heads))
    header = Header(
        author.store.group, Kind.DATA, author.user, author.person.keys.device, b"e" * 16, 1, b"", 1, (), heads, NO_BODY_HASH
    )
    runs: list[Run] = []
    for number in range(count):
        stamp = hlc.pack(FIRST_MS + 10**6 + number, 0)
        header = replace(header, seq=number + 1, prev=header.hash if number else b"", hlc=stamp, **fields)  # type: ignore[arg-type]
        runs.append(Run((Entry(header, NO_BODY),), header.sign(author.person.keys.signing)))
    return runs


def take(replica: Replica, runs: list[Run]) -> None:
    for run in runs:
        ingested, _ = replica.store.take(Runs(0, canonical.encode([run_value(run)])))
        assert not ingested.parked


def unpacked_bytes(message: bytes) -> int:
    """What a RUNS message packs; same links compress well, and random ones would not."""
    packed = decode_message(message)
    assert isinstance(packed, Runs)
    return len(packed.payload) if packed.codec == 0 else len(decompress(packed.payload, bytes_max=64 * MESSAGE_BYTES_MAX))


def streamed(source: Replica, target: Replica) -> list[bytes]:
    """All messages with which one store answers another's WANT."""
    located = source.store.locate(Want(target.store.compare(source.store.vector()).wants))
    assert located is not None
    ranges, cursor = dict(located[0]), located[1]
    messages: list[bytes] = []
    for _ in range(1_000):
        chunk = source.store.read(Read(ranges, cursor, MESSAGE_BYTES_MAX, {}))
        messages += chunk.messages
        if chunk.exhausted:
            return messages
        cursor = chunk.cursor
    raise AssertionError(f"a stream without an end: {Cursor}")


def test_entries_with_many_links_are_not_gathered_into_a_message_that_no_channel_takes(meeting: Meeting) -> None:
    """Where a message ends was estimated from bodies alone; two hundred entries of nothing but links came to 1.6 MiB."""
    writer, reader = meeting.join("writer"), meeting.join("reader")
    notes = [meeting.founder.note(f"n{number}").entries[-1].hash for number in range(LINKS_PER_ENTRY_MAX)]
    fetch(writer.store, meeting.founder.store)
    take(meeting.founder, runs_of(writer, 200, deps=tuple(sorted(notes))))
    messages = streamed(meeting.founder, reader)
    assert len(messages) > 5
    assert max(map(unpacked_bytes, messages)) <= MESSAGE_BYTES_MAX // 2
    fetch(reader.store, meeting.founder.store)
    assert_alike(meeting.founder, reader)


def test_fields_of_later_versions_are_passed_on_one_run_a_message(meeting: Meeting) -> None:
    """Two runs that each fill a message with arrays are refused when they come together."""
    writer, reader = meeting.join("writer"), meeting.join("reader")
    many: Value = [[]] * (MESSAGE_ARRAYS_MAX - 100)
    runs = runs_of(writer, 3, ext=((1, many),))
    take(meeting.founder, runs)
    messages = streamed(meeting.founder, reader)
    counts = [len(decode_runs(packed, meeting.group)) for packed in map(decode_message, messages) if isinstance(packed, Runs)]
    assert counts == [1, 1, 1]
    fetch(reader.store, meeting.founder.store)
    assert_alike(meeting.founder, reader)


def test_a_commit_is_not_handed_on_as_one_message_when_its_links_make_it_large(meeting: Meeting) -> None:
    writer = meeting.join("writer")
    notes = [meeting.founder.note(f"n{number}").entries[-1].hash for number in range(LINKS_PER_ENTRY_MAX)]
    fetch(writer.store, meeting.founder.store)
    runs = runs_of(writer, 20, deps=tuple(sorted(notes)))
    meeting.founder.store.listeners = 2
    _, commit = meeting.founder.store.take(Runs(0, canonical.encode([run_value(run) for run in runs])))
    assert commit is not None and len(commit.entries) == 20
    assert unpacked_bytes(encode_runs(runs)) > 100_000
    assert commit.message is None


@pytest.mark.parametrize(("listeners", "is_made"), [(1, False), (2, True)])
def test_what_one_session_brought_is_made_a_message_for_others_alone(meeting: Meeting, *, listeners: int, is_made: bool) -> None:
    runs = runs_of(meeting.join("writer"), 1)
    meeting.founder.store.listeners = listeners
    _, commit = meeting.founder.store.take(Runs(0, canonical.encode([run_value(run) for run in runs])))
    assert commit is not None and [entry.hash for entry in commit.entries] == [runs[0].last.hash]
    assert (commit.message is not None) == is_made
