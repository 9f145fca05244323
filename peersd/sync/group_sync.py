"""Runs the replication machine of one group: performs its effects on channels, store and timers; decides nothing (DESIGN 9)."""

from __future__ import annotations

import itertools
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final, Protocol, TypeAlias

import trio

from peersd.errors import PeersdError
from peersd.monotonic import monotonic_ms
from peersd.store.handle import StoreHandle
from peersd.store.store import Commit
from peersd_protocol import ids
from peersd_protocol.constants import KIB
from peersd_protocol.entries import LogKey
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.messages import Runs
from peersd_protocol.replication import (
    BecameEqual,
    Compare,
    Due,
    Effect,
    Ingest,
    Ingested,
    Locate,
    LookUp,
    ParkingLot,
    Readable,
    Replication,
    Send,
    SessionId,
    SetTimer,
)
from peersd_protocol.replication_asking import TIMER_WANTS
from peersd_protocol.vectors import Vector

logger = logging.getLogger("peersd.sync")

StoreJob: TypeAlias = Ingest | Compare | Locate | LookUp

OUTBOX_MESSAGES_MAX = 64
"""Messages that wait for a session's channel before pushes are served from the store instead (guess)."""

TAKE_AGAIN_S: Final = 1.0
"""Between two tries to write what came into a file that another program holds (guess; each waits for a lock itself)."""

INTAKE_MESSAGES_MAX: Final = 8
INTAKE_BYTES_MAX: Final = 256 * KIB
"""Messages that are taken in together where so many wait, and their bytes, but for the last one's: each transaction writes every
page that it touches, and those of the keys' indexes are touched at random. Messages of 100 KiB take a fifth less time four at a
time than one by one (measured), and a client's write into the same group waits for so many, some 50 ms (a guess)."""

_session_ids = itertools.count(1)


class Channel(Protocol):
    """What a session needs of a virtual connection."""

    async def send(self, message: bytes, *, bulk: bool = False, in_order: bool = False) -> None:
        """Queues a message; waits while the channel's queue is above its high-water mark.

        Args:
            message: the message.
            bulk: whether it may wait for live messages, of any channel.
            in_order: whether a live one stays behind the bulk messages that wait on this channel.
        """
        ...

    def send_nowait(self, message: bytes, *, bulk: bool = False, in_order: bool = False) -> bool:
        """As `send`, where that need not wait; whether it did. A channel that is closed takes nothing."""
        ...

    async def receive(self) -> bytes:
        """The next message; raises when the channel is closed."""
        ...

    def receive_nowait(self) -> bytes | None:
        """The next message if it is here already, else None."""
        ...

    def close(self, code: CloseCode) -> None:
        """Closes the channel."""
        ...


class ChannelClosed(Exception):
    """The channel ended: by the other side, with its link, or by us."""


class Session:
    """One session: a channel, what is to be sent on it, and what the store is to do for it."""

    def __init__(self, device: bytes, channel: Channel) -> None:
        self.id: SessionId = next(_session_ids)
        self.device = device
        self.channel = channel
        self.outbox: deque[tuple[bytes, bool]] = deque()
        self.jobs: deque[StoreJob] = deque()
        self.is_due = False
        self.readable = False
        self.is_sending = False
        self.closed_with: CloseCode | None = None
        self.is_suspended = False
        self.has_output = trio.Event()
        self.has_jobs = trio.Event()
        self.is_working = False
        self.worked = trio.lowlevel.ParkingLot()
        self.cancel_scope = trio.CancelScope()


class GroupSync:
    """The replication of one group on this device.

    Args:
        store: the group's store; its commits are told to the machine.
        vector: what the store holds at the start.
        name: how log lines call the group.
        on_equal: called with a device's id whenever it becomes known to hold exactly what this side holds.
        clock_ms: monotonic milliseconds.

    Attributes:
        stalled: why this device could not take in what others sent last, an error code such as `store_full`; None if it could.
    """

    def __init__(
        self,
        store: StoreHandle,
        vector: Vector,
        name: str,
        *,
        on_equal: Callable[[bytes], None] = lambda device: None,
        clock_ms: Callable[[], int] = monotonic_ms,
    ) -> None:
        self._store = store
        self._machine = Replication(vector)
        self._name = name
        self._on_equal = on_equal
        self._clock_ms = clock_ms
        self._sessions: dict[SessionId, Session] = {}
        self._running = 0
        self._timers: dict[str, int] = {}
        self._timers_changed = trio.Event()
        self._progress = trio.lowlevel.ParkingLot()
        self.stalled: str | None = None
        self._last_durable: dict[bytes, Vector] = {}
        store.on_commit = self._committed

    # --- Life -------------------------------------------------------------------------------------------------------------------

    async def run_timers(self) -> None:
        """Runs the machine's timers; does not return."""
        while True:
            self._timers_changed = trio.Event()
            now_ms = self._clock_ms()
            for timer in [timer for timer, at_ms in self._timers.items() if at_ms <= now_ms]:
                del self._timers[timer]
                self._perform(self._machine.timer_expired(timer, now_ms))
            next_ms = min(self._timers.values(), default=math.inf)
            with trio.move_on_after(max(0.0, (next_ms - self._clock_ms()) / 1000)):
                await self._timers_changed.wait()

    async def run_session(
        self, device: bytes, channel: Channel, lot: ParkingLot, equal_at: Vector | None, *, is_told: bool
    ) -> CloseCode | None:
        """Runs one session until its channel closes; returns the code it closed with on this side's account.

        Returns None, with the channel still open, if the session was suspended.

        Args:
            device: the remote device's id.
            channel: the accepted channel.
            lot: shared by the sessions of one link.
            equal_at: see Replication.session_opened.
            is_told: see there; later, `drop_outsiders` tells.
        """
        session, device_id = Session(device, channel), ids.format_id(ids.DEVICE, device)
        self._sessions[session.id] = session
        self._store.listen(len(self._sessions))
        self._running += 1
        code = CloseCode.NORMAL
        try:
            self._perform(self._machine.session_opened(session.id, lot, equal_at, self._clock_ms(), is_told=is_told))
            self._note_progress()
            with session.cancel_scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._run_sender, session)
                    nursery.start_soon(self._run_jobs, session)
                    with suppress(ChannelClosed):
                        await self._run_receiver(session)
                    nursery.cancel_scope.cancel()
        except* RemoteProtocolError as group:
            error = next(iter(_leaves(group)))
            assert isinstance(error, RemoteProtocolError)
            code = error.close_code
            fields = {"group": self._name, "device": device_id, "code": code.name.lower(), "detail": error.detail}
            logger.warning("session closed for a fault of the remote side", extra={"fields": fields})
        except* PeersdError as group:
            failure = next(iter(_leaves(group)))
            assert isinstance(failure, PeersdError)
            code = CloseCode.INTERNAL
            self._note_stalled(failure)
        except* Exception:
            # One of the three guards: nothing that a remote party sends can end the daemon.
            code = CloseCode.INTERNAL
            logger.exception("session failed", extra={"fields": {"group": self._name, "device": device_id}})
        finally:
            self._close(session, code)
            self._running -= 1
        return None if session.is_suspended else session.closed_with

    def _close(self, session: Session, code: CloseCode) -> None:
        """Closes a session's channel and has the machine forget it; does nothing the second time."""
        if session.closed_with is not None:
            return
        session.closed_with = code
        self._last_durable[session.device] = self._machine.durable_vector(session.id)
        del self._sessions[session.id]
        self._store.listen(len(self._sessions))
        if not session.is_suspended:
            session.channel.close(code)
        self._perform(self._machine.session_closed(session.id, self._clock_ms()))
        self._note_progress()

    def end_sessions(self, device: bytes | None = None) -> None:
        """Ends all sessions, or those with one device."""
        for session in self._sessions.values():
            if device is None or session.device == device:
                session.cancel_scope.cancel()

    @property
    def may_sleep(self) -> bool:
        """Whether the store may be closed under the sessions: both sides of each hold the same; nothing is queued or awaited."""
        is_quiet = all(
            self.is_equal(session.id)
            and not (session.is_sending or session.outbox or session.jobs or session.is_due or session.readable)
            for session in self._sessions.values()
        )
        # Where all hold the same nothing is asked for any more; the timer that watches over it runs on all the same.
        is_due = bool(self._timers.keys() - {TIMER_WANTS})
        return is_quiet and not is_due and self._running == len(self._sessions)

    def suspend(self) -> None:
        """Ends all sessions and leaves their channels open: they begin anew, as equal, when the store is open again."""
        for session in self._sessions.values():
            session.is_suspended = True
            session.cancel_scope.cancel()

    def drop_outsiders(self, may_be_told: Callable[[bytes], bool]) -> None:
        """Ends the sessions with devices of which `may_be_told` is false: they are sent nothing more, not even what is queued.

        Others are told what is held here from now on. A session with a device that may not be told yet goes on: this side
        redeems a ticket there, and what shows who admits it may still be on its way.

        All is done when this returns, so it may be called as soon as a commit shows a removal, from within the store's callbacks
        too: what that commit had pushed to them has not left yet.
        """
        for session in list(self._sessions.values()):
            if may_be_told(session.device):
                self._perform(self._machine.tell(session.id))
            elif self._machine.is_told(session.id):
                session.is_suspended = False
                self._close(session, CloseCode.NOT_MEMBER)
                session.cancel_scope.cancel()

    # --- What applications ask --------------------------------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """Messages that wait in the fullest outbox of a session."""
        return max((len(session.outbox) for session in self._sessions.values()), default=0)

    def vector(self) -> Vector:
        """What this side holds, as the machine knows it."""
        return self._machine.vector()

    def devices(self) -> Mapping[bytes, SessionId]:
        """The devices with a session now."""
        return {session.device: session.id for session in self._sessions.values()}

    def is_equal(self, session: SessionId) -> bool:
        """Whether the session's device is known to hold exactly what this side holds: what clients were told of included."""
        return not self._store.is_ahead and self._machine.is_equal(session)

    def durable_vector(self, device: bytes) -> Vector:
        """What a device said that it durably holds, in its session now or in its last one; empty if it never had one."""
        session = self.devices().get(device)
        return self._last_durable.get(device, {}) if session is None else self._machine.durable_vector(session)

    async def wait_progress(self) -> None:
        """Returns after anything has changed in what remote devices are known to hold."""
        await self._progress.park()

    def covers(self, session: SessionId, vector: Mapping[LogKey, tuple[tuple[int, bytes], ...]]) -> bool:
        """Whether the session's device durably holds everything that `vector` names."""
        durable = self._machine.durable_vector(session)
        return all(
            any(held_seq > seq or (held_seq, held) == (seq, tip) for held_seq, held in durable.get(log, ()))
            for log, tips in vector.items()
            for seq, tip in tips
        )

    # --- Effects ----------------------------------------------------------------------------------------------------------------

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SetTimer):
                self._timers[effect.timer] = effect.at_ms
                self._timers_changed.set()
                continue
            session = self._sessions.get(effect.session)
            if session is None:
                continue
            if isinstance(effect, Send):
                self._send(session, effect.message, bulk=effect.bulk)
            elif isinstance(effect, Due):
                session.is_due = True
                session.has_output.set()
            elif isinstance(effect, Readable):
                session.readable = True
                session.has_output.set()
            elif isinstance(effect, BecameEqual):
                self._on_equal(session.device)
            else:
                session.jobs.append(effect)
                if not session.is_working:
                    session.has_jobs.set()

    def _send(self, session: Session, message: bytes, *, bulk: bool) -> None:
        """Sends now if nothing waits before it and the channel has room: a push should not wait for another task's turn.

        An entry behind which its predecessors wait as bulk must not overtake them: it would be parked.
        """
        is_first = not (session.outbox or session.is_sending or session.is_due)
        if not (is_first and session.channel.send_nowait(message, bulk=bulk, in_order=True)):
            session.outbox.append((message, bulk))
            session.has_output.set()

    def _committed(self, commit: Commit, origin: SessionId | None) -> None:
        congested = {session.id for session in self._sessions.values() if len(session.outbox) >= OUTBOX_MESSAGES_MAX}
        now_ms = self._clock_ms()
        self._perform(self._machine.committed(commit.entries, now_ms, origin, commit.message, commit.vector, congested))

    def _note_progress(self) -> None:
        self._progress.unpark_all()

    async def _run_receiver(self, session: Session) -> None:
        while True:
            message = await session.channel.receive()
            is_first, session.is_working = not session.is_working, True
            try:
                try:
                    self._receive(session, message)
                finally:  # what came before a message at fault is taken in all the same
                    self._note_progress()
                    if is_first:
                        await self._do_jobs(session)
            finally:
                session.is_working = session.is_working and not is_first
            while session.jobs:  # credit is given back only when the store has kept up
                await session.worked.park()

    def _receive(self, session: Session, message: bytes | None) -> None:
        """Gives the machine a message, and with it those that are here already and may be taken in with it."""
        count = size = 0
        while message is not None:
            count, size = count + 1, size + len(message)
            self._perform(self._machine.receive(session.id, message, self._clock_ms()))
            # Those count, too, that give the store nothing to do: no other task has a turn meanwhile.
            has_room = size < INTAKE_BYTES_MAX and max(count, len(session.jobs)) < INTAKE_MESSAGES_MAX
            message = session.channel.receive_nowait() if has_room else None

    async def _run_jobs(self, session: Session) -> None:
        """Does what other sessions' messages give this one to do; what its own do is the receiver's."""
        while True:
            await session.has_jobs.wait()
            session.has_jobs = trio.Event()
            if not session.is_working:
                session.is_working = True
                try:
                    await self._do_jobs(session)
                finally:
                    session.is_working = False

    async def _do_jobs(self, session: Session) -> None:
        """Does all jobs, those too that arise meanwhile, for who has set `is_working`."""
        while session.jobs:
            job, done = session.jobs[0], 1
            if isinstance(job, Ingest):
                together = _ingests_together(session.jobs)
                await self._ingest(session, together)
                done = len(together)
            else:
                await self._do_job(session, job)
            for _ in range(done):
                session.jobs.popleft()
        session.worked.unpark_all()
        self._note_progress()

    async def _do_job(self, session: Session, job: Compare | Locate | LookUp) -> None:
        now_ms = self._clock_ms
        if isinstance(job, Compare):
            comparison = await self._store.compare(job.vector)
            self._perform(self._machine.compared(session.id, comparison, now_ms()))
        elif isinstance(job, Locate):
            located = await self._store.locate(job.want)
            if located is not None:
                ranges, cursor = located
                self._perform(self._machine.located(session.id, ranges, cursor, dict(job.want.staged)))
        else:
            self._perform(self._machine.looked_up(session.id, *await self._store.look_up(job.hashes)))

    async def _ingest(self, session: Session, jobs: Sequence[Ingest]) -> None:
        """Takes entries in; while another program holds the file they wait, and so does what the other side sends after them."""

        def taken(ingested: Ingested) -> None:
            self.stalled = None
            self._perform(self._machine.ingested(session.id, ingested, self._clock_ms()))

        messages = [(job.packed, b"" if job.is_final else session.device) for job in jobs]
        while True:
            try:
                return await self._store.take(messages, session.id, taken)
            except RemoteProtocolError:
                if len(jobs) == 1:
                    raise
                for job in jobs:  # what came before the one at fault is kept
                    await self._ingest(session, [job])
                return None
            except PeersdError as error:
                if error.code != "busy":
                    raise
                self._note_stalled(error)
            await trio.sleep(TAKE_AGAIN_S)

    def _note_stalled(self, failure: PeersdError) -> None:
        if self.stalled != failure.code:
            fields = {"group": self._name, "code": failure.code, "reason": failure.message}
            logger.warning("session stalled", extra={"fields": fields})
        self.stalled = failure.code

    async def _run_sender(self, session: Session) -> None:
        """Sends until the channel is closed. What came before that is taken in all the same: it may be a farewell."""
        with suppress(ChannelClosed):
            await self._send_all(session)

    async def _send_all(self, session: Session) -> None:
        while True:
            await session.has_output.wait()
            session.has_output = trio.Event()
            session.is_sending = True
            while session.outbox or session.is_due or session.readable:
                while session.outbox:
                    message, bulk = session.outbox.popleft()
                    await session.channel.send(message, bulk=bulk, in_order=True)
                if session.is_due:
                    session.is_due = False
                    for message in self._machine.take_due(session.id):
                        await session.channel.send(message)
                elif session.readable:
                    session.readable = False
                    read = self._machine.next_read(session.id)
                    if read is not None:
                        self._perform(self._machine.read_done(session.id, await self._store.read(read)))
            session.is_sending = False


def _ingests_together(jobs: Iterable[StoreJob]) -> list[Ingest]:
    """The first jobs, as far as they take in messages that go into one transaction."""
    together: list[Ingest] = []
    size = 0
    for job in islice(jobs, INTAKE_MESSAGES_MAX):
        if not isinstance(job, Ingest) or size >= INTAKE_BYTES_MAX:
            break
        together.append(job)
        size += len(job.packed.payload if isinstance(job.packed, Runs) else job.packed.data)
    return together


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterable[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
