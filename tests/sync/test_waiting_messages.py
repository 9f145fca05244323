"""Messages that wait are taken in together, and what is wrong in one of them is its own fault alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random

import trio

from peersd.sync.group_sync import INTAKE_BYTES_MAX, INTAKE_MESSAGES_MAX
from peersd_protocol.acts import Remove, encode_body
from peersd_protocol.errors import CloseCode
from peersd_protocol.messages import encode_prune, encode_runs
from peersd_protocol.replication import ParkingLot
from peersd_protocol.runs import Run
from tests.store.pools import runs_of
from tests.store.stores import Meeting, Replica, fetch
from tests.sync.pipes import PipeEnd, open_pipe, until
from tests.sync.test_group_sync import Side, linked, syncing

NOTES = 2 * INTAKE_MESSAGES_MAX


def written(replica: Replica, count: int = NOTES, body_bytes: int = 0) -> list[Run]:
    """Runs of single notes, of which the founder has none yet."""
    known = len(runs_of(replica.store))
    for number in range(count):
        replica.note(f"{number:03}", body=Random(number).randbytes(body_bytes))
    return runs_of(replica.store)[known:]


def count_commits(replica: Replica) -> list[None]:
    """Grows by one with each transaction of a store."""
    commits: list[None] = []

    def committing() -> bool:
        commits.append(None)
        return False

    replica.store._connection.set_commit_hook(committing)
    return commits


def forged(run: Run) -> Run:
    return replace(run, signature=bytes(64))


async def take_in(side: Side, remote: Replica, messages: Sequence[bytes], notes: int) -> PipeEnd:
    """Has a session find these messages waiting, and returns its end of the pipe once it has so many notes."""
    near, _ = open_pipe()
    near._inbox.extend(messages)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.run, Side(remote, side.handle), near)
        await until(lambda: len(side.notes()) == notes, side.sync.wait_progress)
        nursery.cancel_scope.cancel()
    return near


async def test_messages_that_wait_are_taken_in_together(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    bob = meeting.join("bob")
    messages = [encode_runs([run]) for run in written(bob)]
    commits = count_commits(meeting.founder)
    async with syncing(meeting.founder) as side:
        await take_in(side, bob, messages, NOTES)
    assert len(commits) == NOTES // INTAKE_MESSAGES_MAX


async def test_of_large_messages_fewer_are_taken_in_together(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    bob = meeting.join("bob")
    at_once = INTAKE_MESSAGES_MAX - 2
    messages = [encode_runs([run]) for run in written(bob, 4 * at_once, INTAKE_BYTES_MAX // at_once)]
    commits = count_commits(meeting.founder)
    async with syncing(meeting.founder) as side:
        await take_in(side, bob, messages, 4 * at_once)
    assert len(commits) == 4


async def test_what_came_before_a_message_at_fault_is_kept(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    bob = meeting.join("bob")
    *good, last, never = written(bob, 6)
    messages = [*(encode_runs([run]) for run in good), encode_runs([forged(last)]), encode_runs([never])]
    async with syncing(meeting.founder) as side:
        near = await take_in(side, bob, messages, len(good))
        assert [len(side.notes()), near.closed] == [len(good), CloseCode.BAD_SIGNATURE]


async def test_what_came_before_a_message_that_is_none_is_kept(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    bob = meeting.join("bob")
    messages = [*(encode_runs([run]) for run in written(bob, 3)), encode_prune(), b"\xc0"]
    async with syncing(meeting.founder) as side:
        near = await take_in(side, bob, messages, 3)
        assert near.closed is CloseCode.MALFORMED


async def test_others_have_a_turn_between_messages_that_give_the_store_nothing_to_do(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    bob = meeting.join("bob")
    near, _ = open_pipe()
    near._inbox.extend([encode_prune()] * 100 * INTAKE_MESSAGES_MAX)
    at_turns = [len(near._inbox)]
    async with syncing(meeting.founder) as side, trio.open_nursery() as nursery:
        nursery.start_soon(side.run, Side(bob, side.handle), near)
        while at_turns[-1]:
            await trio.lowlevel.checkpoint()
            at_turns.append(len(near._inbox))
        nursery.cancel_scope.cancel()
    assert max(before - after for before, after in pairwise(at_turns)) <= 2 * INTAKE_MESSAGES_MAX


async def test_what_waits_together_with_a_removal_is_not_pushed_to_who_was_removed(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    bob, carol, dora = (meeting.join(name) for name in ("bob", "carol", "dora"))
    for replica in (bob, carol):
        fetch(replica.store, meeting.founder.store)
    (row,) = written(bob, 1)
    header, _ = meeting.founder.store.take_right(
        meeting.founder.user, lambda cuts: encode_body(Remove(carol.user, cuts(carol.user)))
    )
    (removal,) = (run for run in runs_of(meeting.founder.store) if header.hash in run.hashes)
    async with syncing(dora) as side, syncing(carol) as removed, linked(side, removed) as (near, _):
        side.handle.on_acts = lambda: side.sync.drop_outsiders(lambda device: bool(side.handle.state.is_member_device(device)))
        said, (from_bob, _) = len(near.sent), open_pipe()
        from_bob._inbox.extend([encode_runs([row]), encode_runs([removal])])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(side.sync.run_session, bob.person.keys.device, from_bob, ParkingLot(), None, is_told=True))
            await until(lambda: near.closed is not None, trio.lowlevel.checkpoint)
            nursery.cancel_scope.cancel()
        assert (near.closed, near.sent[said:], len(side.notes())) == (CloseCode.NOT_MEMBER, [], 1)
