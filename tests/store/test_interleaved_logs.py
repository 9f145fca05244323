"""Two writers who answer each other: each log is taken in from whomever it was asked of, however they are told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from peersd.store.store import Store
from peersd_protocol.entries import Kind
from peersd_protocol.messages import Runs, Want, decode_runs
from peersd_protocol.replication import Parked
from tests.store.stores import Meeting, Replica, assert_alike, fetch, stream

ROUNDS = 10


@pytest.fixture
def writers(tmp_path: Path) -> tuple[Meeting, Replica, Replica, Replica]:
    """Two who have written in turn, each with all that the other wrote before, and a reader who has none of it."""
    meeting = Meeting(tmp_path)
    one, other, reader = meeting.join("one"), meeting.join("other"), meeting.join("reader")
    fetch(one.store, meeting.founder.store)
    for number in range(ROUNDS):
        for at, (author, answers) in enumerate(((one, other), (other, one))):
            author.note(f"{number}.{at}a")
            author.note(f"{number}.{at}b")
            fetch(answers.store, author.store)
    fetch(reader.store, meeting.founder.store)
    return meeting, one, other, reader


def own_log(source: Replica, target: Store) -> list[Runs]:
    """What a device answers to who asks it for its own data log alone."""
    wanted = [
        item
        for item in target.compare(source.store.vector()).wants
        if item.log.kind is Kind.DATA and item.log.device == source.person.keys.device
    ]
    return [message for message in stream(source.store, Want(tuple(wanted))) if isinstance(message, Runs)]


def test_logs_that_rest_on_each_other_are_taken_in_though_each_is_asked_of_another(
    writers: tuple[Meeting, Replica, Replica, Replica],
) -> None:
    """A run is taken in as a whole: one of all that a log holds would wait for the other's, and that one for this."""
    meeting, one, other, reader = writers
    waiting: list[Parked] = []
    for message in (*own_log(one, reader.store), *own_log(other, reader.store)):
        waiting += reader.store.take(message)[0].parked
    while waiting:
        again = [parked for old in waiting for parked in reader.store.take(old.packed)[0].parked]
        assert len(again) < len(waiting), "what waits is taken in one after the other"
        waiting = again
    assert len(reader.notes()) == 4 * ROUNDS
    fetch(meeting.founder.store, one.store)
    assert_alike(meeting.founder, one, other, reader)


def test_only_the_first_entry_of_a_run_that_was_put_together_names_other_logs(
    writers: tuple[Meeting, Replica, Replica, Replica],
) -> None:
    meeting, one, _, reader = writers
    runs = [run for message in own_log(one, reader.store) for run in decode_runs(message, meeting.group)]
    assert [len(run.entries) for run in runs] == [2] * ROUNDS
    assert all(set(run.links) <= {0} for run in runs)
