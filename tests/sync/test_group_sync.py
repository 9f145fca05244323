"""Sessions of one group over pipes, with real stores: what is queued for a stuck channel, outsiders, sleep."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from peersd.store.database import open_reader
from peersd.store.handle import StoreHandle
from peersd.store.handle import open_store as open_handle
from peersd.sync.group_sync import OUTBOX_MESSAGES_MAX, GroupSync
from peersd_protocol.acts import Cut, Leave, Settings, encode_body
from peersd_protocol.constants import LEAVE_WAIT_MS
from peersd_protocol.entries import Kind
from peersd_protocol.errors import CloseCode
from peersd_protocol.messages import Block, Have, Runs, encode_runs
from peersd_protocol.replication import TIMER_GAPS, ParkingLot
from tests.store.pools import runs_of
from tests.store.stores import Meeting, Replica, fetch
from tests.sync.pipes import PipeEnd, open_pipe, until


class Side:
    """A device's replica with its sessions."""

    def __init__(self, replica: Replica, handle: StoreHandle) -> None:
        self.replica = replica
        self.handle = handle
        self.sync = GroupSync(handle, replica.store.vector(), "group")
        self.codes: list[CloseCode | None] = []

    @property
    def device(self) -> bytes:
        return self.replica.person.keys.device

    async def run(self, remote: Side, end: PipeEnd) -> None:
        self.codes.append(await self.sync.run_session(remote.device, end, ParkingLot(), None, is_told=True))

    def notes(self) -> list[tuple[object, ...]]:
        # By a connection of its own: the writer's is its thread's.
        reader = open_reader(self.replica.path)
        try:
            return list(reader.execute("SELECT * FROM note ORDER BY id"))
        finally:
            reader.close()

    async def note(self, id_: str, body: bytes | None = None) -> None:
        commit = await self.handle.call(self.replica.note, id_, None, body)
        self.sync._committed(commit, None)

    async def rename(self, name: str) -> None:
        await self.handle.act(self.replica.user, Kind.CONTROL, encode_body(Settings(name=name)))

    def knows_equal(self, remote: Side) -> bool:
        session = self.sync.devices().get(remote.device)
        return session is not None and self.sync.is_equal(session)


@asynccontextmanager
async def syncing(replica: Replica) -> AsyncGenerator[Side, None]:
    async with open_handle(lambda: replica.store, replica.path) as handle, trio.open_nursery() as nursery:
        side = Side(replica, handle)
        nursery.start_soon(side.sync.run_timers)
        yield side
        side.sync.end_sessions()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def linked(one: Side, other: Side) -> AsyncGenerator[tuple[PipeEnd, PipeEnd], None]:
    near, far = open_pipe()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run, other, near)
        nursery.start_soon(other.run, one, far)
        for side, remote in ((one, other), (other, one)):
            await until(partial(side.knows_equal, remote), side.sync.wait_progress)
        await until(lambda: one.sync.may_sleep and other.sync.may_sleep, trio.lowlevel.checkpoint)
        yield near, far
        nursery.cancel_scope.cancel()


async def test_a_store_knows_how_many_sessions_there_are(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    bob, carol = meeting.join("bob"), meeting.join("carol")
    async with syncing(meeting.founder) as one, syncing(bob) as other, syncing(carol) as third:
        store = one.replica.store
        assert store.listeners == 0
        async with linked(one, other):
            assert store.listeners == 1
            async with linked(one, third):
                assert store.listeners == 2
            assert store.listeners == 1
        assert store.listeners == 0


# --- What may overtake what -----------------------------------------------------------------------------------------------------


async def test_entries_keep_their_order_on_a_channel_and_what_is_said_of_them_may_overtake(tmp_path: Path) -> None:
    """A push that overtook the bulk it follows would be parked, where there is room for it."""
    meeting = Meeting(tmp_path)
    bob = meeting.join("bob")
    async with syncing(meeting.founder) as one, syncing(bob) as other, linked(one, other) as (near, far):
        for number in range(3):
            await one.note(f"n{number}", b"body")
        await until(lambda: len(other.notes()) == 3, other.sync.wait_progress)
        await until(lambda: one.knows_equal(other), one.sync.wait_progress)
        for end in (near, far):
            assert end.in_order == [message for message in end.sent if isinstance(message, Runs | Block)]
        assert near.in_order and any(isinstance(message, Have) for message in far.sent)


async def test_a_leave_that_names_what_never_comes_is_taken_in_when_it_has_waited_long_enough(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    bob = meeting.join("bob")
    ghost = Cut(Kind.DATA, bob.person.keys.device, b"e" * 16, 7, b"g" * 32)
    body = encode_body(Leave(((bob.user, (ghost,)),)))
    async with syncing(meeting.founder) as one, syncing(bob) as other, linked(one, other):
        await other.handle.act(bob.user, Kind.CONTROL, body)
        (session,) = one.sync._sessions.values()
        parked = one.sync._machine._sessions[session.id].parked
        await until(lambda: bool(parked), one.sync.wait_progress)
        assert other.device in one.handle.state.member_devices
        later_ms = one.sync._clock_ms() + LEAVE_WAIT_MS
        one.sync._perform(one.sync._machine.timer_expired(TIMER_GAPS, later_ms))
        await until(lambda: other.device not in one.handle.state.member_devices, one.sync.wait_progress)


# --- A channel that takes nothing -----------------------------------------------------------------------------------------------


async def test_for_a_channel_that_is_stuck_little_is_queued_and_nothing_is_lost(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    bob = meeting.join("bob")
    async with syncing(meeting.founder) as one, syncing(bob) as other, linked(one, other) as (near, _):
        near.takes = trio.Event()
        (session,) = one.sync._sessions.values()
        for number in range(3 * OUTBOX_MESSAGES_MAX):
            await one.note(f"n{number}", b"body")
            assert len(session.outbox) <= OUTBOX_MESSAGES_MAX
        before = len(near.sent)
        near.takes.set()
        await until(lambda: len(other.notes()) == 3 * OUTBOX_MESSAGES_MAX, other.sync.wait_progress)
        await until(lambda: one.knows_equal(other), one.sync.wait_progress)
        runs = [message for message in near.sent[before:] if isinstance(message, Runs)]
        assert len(runs) <= OUTBOX_MESSAGES_MAX + 3  # what was queued, and the rest in one go


async def test_for_a_channel_that_is_stuck_no_announcements_are_queued(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    bob = meeting.join("bob")
    async with syncing(meeting.founder) as one, syncing(bob) as other, linked(one, other) as (near, _):
        near.takes = trio.Event()
        for number in range(6):
            await other.note(f"n{number}", b"body")
            await until(lambda: one.sync.vector() == other.sync.vector(), one.sync.wait_progress)
            await until(lambda: not one.sync._timers, trio.lowlevel.checkpoint)
        before = len(near.sent)
        near.takes.set()
        await until(lambda: other.knows_equal(one), other.sync.wait_progress)
        assert [type(message) for message in near.sent[before:]] == [Have, Have]  # the first had reached the channel


# --- A channel that is closed soon ----------------------------------------------------------------------------------------------


async def test_what_was_said_before_the_channel_was_closed_is_taken_in_though_nothing_can_be_answered(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    bob = meeting.join("bob")
    known = {run.last.hash for run in runs_of(bob.store)}
    async with syncing(meeting.founder) as one, syncing(bob) as other:
        for name in ("one", "two", "three"):
            await one.rename(name)
        near, far = open_pipe()
        for run in runs_of(meeting.founder.store):
            if run.last.hash not in known:
                await near.send(encode_runs([run]))
        assert len(near.sent) == 3
        near.close(CloseCode.NOT_MEMBER)
        with trio.fail_after(30):
            await other.run(one, far)
        assert far.sent == []  # its vector found the channel closed
        assert bob.store.state.name == "three"


# --- Outsiders ------------------------------------------------------------------------------------------------------------------


async def test_outsiders_are_dropped_before_what_shows_that_they_are_is_sent(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    bob, carol = meeting.join("bob"), meeting.join("carol")
    fetch(bob.store, meeting.founder.store)
    async with (
        syncing(meeting.founder) as one,
        syncing(bob) as stays,
        syncing(carol) as goes,
        linked(one, stays),
        linked(one, goes) as (near, _),
    ):
        before = len(near.sent)
        one.handle.on_acts = lambda: one.sync.drop_outsiders(lambda device: device != goes.device)
        await one.rename("without them")
        assert near.closed is CloseCode.NOT_MEMBER
        assert set(one.sync.devices()) == {stays.device}
        await until(lambda: stays.replica.store.state.name == "without them", stays.sync.wait_progress)
        await until(lambda: one.codes == [CloseCode.NOT_MEMBER], one.sync.wait_progress)
        assert near.sent[before:] == []
        assert goes.replica.store.state.name == "group"


async def test_a_device_whose_own_message_shows_that_it_is_an_outsider_is_dropped_in_the_middle_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meeting = Meeting(tmp_path)
    bob = meeting.join("bob")
    async with syncing(meeting.founder) as one, syncing(bob) as other, linked(one, other) as (_, far):
        other.handle.on_acts = lambda: other.sync.drop_outsiders(lambda device: False)
        await one.rename("farewell")
        await until(lambda: bool(other.codes), one.sync.wait_progress)
        assert other.codes == [CloseCode.NOT_MEMBER]
        assert far.closed is CloseCode.NOT_MEMBER
        assert other.replica.store.state.name == "farewell"
        assert other.sync.devices() == {}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# --- Sleep ----------------------------------------------------------------------------------------------------------------------


async def test_a_store_may_be_closed_when_all_is_said_to_all_and_not_before(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    bob = meeting.join("bob")
    async with syncing(meeting.founder) as one, syncing(bob) as other:
        assert one.sync.may_sleep
        async with linked(one, other) as (_, far):
            far.takes = trio.Event()
            await one.note("n", b"body")
            await until(lambda: other.sync.vector() == one.sync.vector(), other.sync.wait_progress)
            await until(lambda: other.knows_equal(one), other.sync.wait_progress)
            (session,) = other.sync._sessions.values()
            await until(lambda: not (other.sync._timers or session.jobs or session.is_due), trio.lowlevel.checkpoint)
            assert not other.sync.may_sleep  # its acknowledgement is on its way into the channel
            assert not one.sync.may_sleep  # and awaited
            far.takes.set()
            await until(lambda: one.knows_equal(other), one.sync.wait_progress)
            await until(lambda: one.sync.may_sleep and other.sync.may_sleep, trio.lowlevel.checkpoint)
        assert one.sync.devices() == {}
        assert one.sync.may_sleep
