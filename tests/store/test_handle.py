"""A store as tasks use it: what they are told of a commit, and in which order."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from peersd.errors import PeersdError
from peersd.store.batch import Request
from peersd.store.client_sql import Statement
from peersd.store.handle import open_store
from peersd.store.mark import Mark
from peersd.store.recorder import LastEntry
from peersd.store.store import Write
from peersd.store.store import open_store as open_file
from peersd.testing.simulator.disk import DiskMark
from peersd_protocol.acts import Remove, Settings, encode_body
from peersd_protocol.entries import Kind
from peersd_protocol.roles import Role
from tests.store.pools import packed, runs_of
from tests.store.stores import Meeting

HANG_S = 60.0


class SlowMark(DiskMark):
    """A mark on a disk that takes its time, once told so."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.saved: list[int] = []

    def save(self, mark: Mark) -> None:
        assert self.may_go_on.wait(HANG_S)
        super().save(mark)
        self.saved.append(mark.data[0])


@pytest.fixture
def meeting(tmp_path: Path) -> Meeting:
    return Meeting(tmp_path)


async def test_of_acts_the_group_is_told_before_anything_is_pushed(meeting: Meeting) -> None:
    founder, member = meeting.founder, meeting.join("member")
    member.note("1", "known")
    data = [run for run in runs_of(member.store) if run.log.kind is Kind.DATA]
    founder.store.close()
    told: list[str] = []
    async with open_store(lambda: open_file(founder.path, founder.context, founder.mark), founder.path) as handle:
        handle.on_acts = lambda: told.append(f"acts: {handle.store.state.role_of(member.user).name}")
        handle.on_commit = lambda commit, origin: told.append(f"commit of {len(commit.entries)} by {origin}")
        await handle.act(founder.user, Kind.CONTROL, encode_body(Settings(name="renamed")))
        await handle.take([(packed(*data), b"")], 7, lambda ingested: told.append(f"{len(ingested.held)} held"))
        header = await handle.take_right(founder.user, lambda cuts: encode_body(Remove(member.user, cuts(member.user))))
        assert header.hash in handle.store.state.standing
        assert handle.store.state.role_of(member.user) is Role.NONE
        assert len(await handle.farewell(member.person.keys.device)) == 1
        assert await handle.voided(founder.user) == []
    assert told == [
        "acts: WRITER",
        "commit of 1 by None",
        "commit of 1 by 7",
        "1 held",
        "acts: NONE",
        "commit of 1 by None",
    ]
    founder.store = open_file(founder.path, founder.context, founder.mark)


def note(user: bytes, id_: str) -> Write:
    return Write(user, Request([Statement("INSERT INTO note (id) VALUES (?)", (id_,))], math.inf))


async def test_writes_that_come_together_are_one_commit(meeting: Meeting) -> None:
    founder = meeting.founder
    founder.store.close()
    told: list[int] = []
    async with open_store(lambda: open_file(founder.path, founder.context, founder.mark), founder.path) as handle:
        handle.on_commit = lambda commit, origin: told.append(len(commit.entries))
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(handle.write, note(founder.user, f"{len(told)} {number}"))
            await handle.wait_told()
        assert handle.queued == 0
    assert told == [10, 10]
    founder.store = open_file(founder.path, founder.context, founder.mark)
    assert len(founder.notes()) == 20


async def test_a_write_whose_client_has_gone_is_committed_and_so_are_those_that_wait_behind_it(meeting: Meeting) -> None:
    founder = meeting.founder
    founder.store.close()
    async with open_store(lambda: open_file(founder.path, founder.context, founder.mark), founder.path) as handle:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(handle.write, note(founder.user, "1"))
                nursery.start_soon(handle.write, note(founder.user, "2"))
                await trio.lowlevel.checkpoint()
                scope.cancel()
        await handle.write(note(founder.user, "3"))
    founder.store = open_file(founder.path, founder.context, founder.mark)
    assert [row[0] for row in founder.notes()] == ["1", "2", "3"]


async def test_what_waits_for_a_commit_when_the_store_closes_is_told_so_and_what_is_under_way_ends(meeting: Meeting) -> None:
    founder = meeting.founder
    founder.store.close()
    outcomes: dict[str, str] = {}
    async with trio.open_nursery() as nursery:
        async with open_store(lambda: open_file(founder.path, founder.context, founder.mark), founder.path) as handle:

            async def write(id_: str) -> None:
                try:
                    await handle.write(note(founder.user, id_))
                    outcomes[id_] = "done"
                except PeersdError as error:
                    outcomes[id_] = error.code

            for id_ in "123":
                nursery.start_soon(write, id_)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(write, "4")
    founder.store = open_file(founder.path, founder.context, founder.mark)
    done = [id_ for id_, outcome in sorted(outcomes.items()) if outcome == "done"]
    assert [row[0] for row in founder.notes()] == done
    assert set(outcomes.values()) <= {"done", "busy", "timeout"}
    assert (len(outcomes), outcomes["4"]) == (4, "busy")


async def test_a_client_is_answered_when_its_write_is_durable_and_peers_are_told_when_the_mark_is(meeting: Meeting) -> None:
    founder = meeting.founder
    mark = SlowMark()
    founder.store.close()
    before = founder.mark.load()
    assert before is not None
    mark.save(before)
    told: list[tuple[int, int]] = []
    async with open_store(lambda: open_file(founder.path, founder.context, mark), founder.path) as handle:
        handle.on_commit = lambda commit, origin: told.append((commit.entries[-1].seq, mark.saved[-1]))
        handle.listen(1)
        mark.may_go_on.clear()
        with trio.fail_after(HANG_S):
            first = await handle.write(note(founder.user, "1"))
            assert (await handle.query("SELECT id FROM note", (), 10, HANG_S)).rows == [("1",)]
            assert (told, handle.is_ahead) == ([], True)
            mark.may_go_on.set()
            await handle.wait_told()
            assert isinstance(first.recorded, LastEntry)
            assert (told, handle.is_ahead) == ([(first.recorded.seq, first.recorded.seq)], False)
    founder.store = open_file(founder.path, founder.context, mark)


async def test_each_write_of_a_batch_gets_its_own_answer(meeting: Meeting) -> None:
    founder = meeting.founder
    founder.store.close()
    answers: dict[str, str] = {}
    async with open_store(lambda: open_file(founder.path, founder.context, founder.mark), founder.path) as handle:

        async def write(id_: str) -> None:
            try:
                await handle.write(note(founder.user, id_))
            except PeersdError as error:
                answers[id_] = error.code
            else:
                answers[id_] = "done"

        await write("twice")
        with trio.fail_after(HANG_S):
            async with trio.open_nursery() as nursery:
                for id_ in ("one", "twice", "two"):
                    nursery.start_soon(write, id_)
    assert answers == {"one": "done", "twice": "sql_error", "two": "done"}
    founder.store = open_file(founder.path, founder.context, founder.mark)
