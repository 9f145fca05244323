"""One group on one device: its store, one call at a time, and its replication machine (see peersd.sync.group_sync)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from peersd.errors import PeersdError
from peersd.store.changes import Row
from peersd.store.reader import Reader
from peersd.store.store import Commit, Store
from peersd.testing.checkers import Checker
from peersd.testing.simulator.copies import Copies
from peersd.testing.simulator.disk import DiskFile
from peersd.testing.simulator.link_end import ChannelEnd
from peersd.testing.simulator.schedule import Schedule
from peersd.testing.simulator.session import Session, StoreJob
from peersd.testing.simulator.stored import check_causes
from peersd_protocol.constants import CREDIT_WINDOW_BYTES_MAX, MESSAGE_BYTES_MAX
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.messages import Ask, Want, decode_message, is_beacon_message
from peersd_protocol.replication import (
    BecameEqual,
    Chunk,
    Compare,
    Comparison,
    Cursor,
    Due,
    Effect,
    Ingest,
    Ingested,
    Locate,
    ParkingLot,
    Readable,
    Replication,
    Send,
    SessionId,
    SetTimer,
)
from peersd_protocol.signing import sha256
from peersd_protocol.vectors import Vector

if TYPE_CHECKING:
    from peersd.testing.simulator.device import Process

OUTBOX_MESSAGES_MAX: Final = 64
"""As in peersd.sync: a session with more is not pushed to."""

READ_ROWS_MAX: Final = 100_000
READ_TIMEOUT_S: Final = 600.0
"""In real time: nothing that a simulation reads takes so long."""

OUTBOX_SLACK_MESSAGES: Final = 64
"""What one effect may add on top: the messages of a commit, or of one read."""


class Replica:
    """One group on one running device.

    Args:
        schedule: of the simulation.
        process: whose replica it is.
        file: of the group.
        store: opened from it.

    Attributes:
        state: the group's acts, evaluated, as the process was told: its store may be ahead by a commit that is about to be told.
        deals_read: the deals that a client has read last.
    """

    def __init__(self, schedule: Schedule, process: Process, file: DiskFile, store: Store) -> None:
        self._schedule = schedule
        self._process = process
        self._device = process.name
        self.file = file
        self.name = file.name
        self.group = file.group
        self.store = store
        self.state = store.state
        self.is_discarded = False
        self._machine = Replication(store.vector())
        self._sessions: dict[SessionId, Session] = {}
        self._session_count = 0
        self._timers: dict[str, int] = {}
        self._calls: deque[tuple[str, Callable[[], Any], Callable[[Any], None]]] = deque()
        self._is_busy = False
        self.messages_sent = 0
        self.copies = Copies(schedule, process, self)
        self._reader: Reader | None = None
        self.deals_read: dict[str, object] = {}

    # --- Time -------------------------------------------------------------------------------------------------------------------

    @property
    def is_alive(self) -> bool:
        """Whether its process still runs, and the group is still there."""
        return self._process.is_alive and not self.is_discarded

    def soon(self, event: Callable[[], None], slow: float = 0.0) -> None:
        """Runs an event of this process after a moment; with a probability of `slow` after a long one."""
        random = self._process.random
        wait_ms = random.randint(20, 400) if random.random() < slow else random.choice((0, 0, 1, 2, 5))
        self._schedule.at(self._schedule.now_ms + wait_ms, lambda: event() if self.is_alive else None)

    def _set_timer(self, timer: str, at_ms: int) -> None:
        self._timers[timer] = at_ms

        def expire() -> None:
            if self.is_alive and self._timers.get(timer) == at_ms:
                del self._timers[timer]
                self._perform(self._machine.timer_expired(timer, self._schedule.now_ms))

        self._schedule.at(at_ms, expire)

    # --- The store --------------------------------------------------------------------------------------------------------------

    def call(self, label: str, call: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Queues a call of the store; its result is told a moment after it is durable, and a crash may come between.

        Args:
            label: for the trace.
            call: what to do.
            then: gets what it returned.
        """
        self._calls.append((label, call, then))
        if not self._is_busy:
            self._is_busy = True
            self.soon(self._run_call)

    def _run_call(self) -> None:
        label, call, then = self._calls.popleft()
        position = self.store.log.position
        result: Any
        try:
            result = call()
        except RemoteProtocolError as error:
            raise self._schedule.fail(
                Checker.HONEST_REFUSED, f"{self._device}: an honest device was refused at {label} in {self.name}", error
            ) from error
        except Exception as error:
            raise self._schedule.fail(None, f"{self._device}: {label} in {self.name} failed", error) from error
        self._schedule.note(self._device, f"{self.name} {label}")
        if self.store.log.position > position:
            self._check_causes(position)
            if self._process.before_telling is not None:
                self._process.before_telling()
                return

        def finish() -> None:
            then(result)
            if self._calls:
                self.soon(self._run_call)
            else:
                self._is_busy = False

        self.soon(finish, slow=0.02)

    def _check_causes(self, position: int) -> None:
        """Whoever reads from here on must find all that the new entries name."""
        wrong = check_causes(self.store, position)
        if wrong is not None:
            raise self._schedule.fail(Checker.CAUSAL_ORDER, f"{self._device} {self.name}: {wrong}")

    def ask(self, label: str, call: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Like `call`, for what may be refused; then only the trace is told."""

        def refusable() -> Any:
            try:
                return call()
            except PeersdError as error:
                return error

        def finish(result: Any) -> None:
            if isinstance(result, PeersdError):
                self._schedule.note(self._device, f"{self.name} refuses {label}: {result.code}")
            else:
                then(result)

        self.call(label, refusable, finish)

    def tell(self, commit: Commit | None, origin: SessionId | None = None) -> None:
        """What a call of the store has committed."""
        if commit is None:
            return
        if commit.entries or commit.vector is not None:
            now_ms = self._schedule.now_ms
            congested = {id_ for id_, session in self._sessions.items() if len(session.outbox) >= OUTBOX_MESSAGES_MAX}
            self._perform(self._machine.committed(commit.entries, now_ms, origin, commit.message, commit.vector, congested))
            self.copies.publish_soon()
        if commit.state is not None:
            self.state = self.store.state
            self._process.acts_changed(self)

    # --- Reading ----------------------------------------------------------------------------------------------------------------

    def read(self, sql: str) -> list[Row]:
        """What a client reads now, over a connection of its own: what is durable, whoever was told of it."""
        if self._reader is None:
            self._reader = Reader(self.file.path)
        return self._reader.query(self.state.schema, sql, None, rows_max=READ_ROWS_MAX, timeout_s=READ_TIMEOUT_S).rows

    def stop_reading(self) -> None:
        """Closes the clients' connection."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    # --- Sessions ---------------------------------------------------------------------------------------------------------------

    def open_session(self, channel: ChannelEnd, lot: ParkingLot, equal_at: Vector | None, remote_beacons: bytes) -> Session:
        """Begins a session over an accepted channel."""
        self._session_count += 1
        session = self._sessions[self._session_count] = Session(self, channel, self._session_count)
        self.store.listeners = len(self._sessions)
        state = "equal" if equal_at is not None else "different"
        self._schedule.note(self._device, f"{self.name} session {session.id} with {channel.remote}: {state}")
        is_told = self._may_be_told(session)
        self._perform(self._machine.session_opened(session.id, lot, equal_at, self._schedule.now_ms, is_told=is_told))
        self.copies.session_opened(session, remote_beacons)
        return session

    def session_over(self, session: Session) -> None:
        """A session ended."""
        del self._sessions[session.id]
        self.store.listeners = len(self._sessions)
        code = session.channel.closed
        self._schedule.note(self._device, f"{self.name} session {session.id} over: {code.name if code is not None else ''}")
        self.copies.session_closed(session)
        self._perform(self._machine.session_closed(session.id, self._schedule.now_ms))

    def find_session(self, number: SessionId) -> Session | None:
        """A session that runs."""
        return self._sessions.get(number)

    def _may_be_told(self, session: Session) -> bool:
        return self._process.known(self, session.device).may_be_told

    def drop_outsiders(self) -> None:
        """Ends the sessions with devices that may not be told any more: what is queued for them is not sent.

        As in peersd.sync: others are told, and who may not be told yet stays.
        """
        for session in list(self._sessions.values()):
            if self._may_be_told(session):
                self._perform(self._machine.tell(session.id))
            elif self._machine.is_told(session.id):
                session.end(CloseCode.NOT_MEMBER)

    def receive(self, session: Session, message: bytes) -> None:
        """A session takes a message."""
        try:
            if is_beacon_message(message):
                self.copies.receive(session, message)
                return
            kind = type(decode_message(message)).__name__
            digest = sha256(message)[:4].hex()
            self._schedule.note(self._device, f"{self.name} session {session.id} {kind} {len(message)} bytes {digest}")
            self._perform(self._machine.receive(session.id, message, self._schedule.now_ms))
        except RemoteProtocolError as error:
            raise self._schedule.fail(
                Checker.HONEST_REFUSED, f"{self._device}: an honest device broke a rule in {self.name}", error
            ) from error

    def run_job(self, session: Session, job: StoreJob, done: Callable[[], None]) -> None:
        """Has the store do what a session needs, and tells the machine."""
        machine, store, schedule = self._machine, self.store, self._schedule

        def taken(result: tuple[Ingested, Commit | None]) -> None:
            self.tell(result[1], session.id)
            self._perform(machine.ingested(session.id, result[0], schedule.now_ms))
            done()

        def compared(comparison: Comparison) -> None:
            self._perform(machine.compared(session.id, comparison, schedule.now_ms))
            done()

        if isinstance(job, Ingest):
            packed, sender = job.packed, b"" if job.is_final else session.device
            self.call(f"take for {session.id}", lambda: store.take(packed, sender), taken)
        elif isinstance(job, Compare):
            vector = job.vector
            self.call(f"compare for {session.id}", lambda: store.compare(vector), compared)
        elif isinstance(job, Locate):
            want = job.want

            def located(found: tuple[dict[Any, tuple[int, int]], Cursor] | None) -> None:
                if found is not None:
                    self._perform(machine.located(session.id, *found, dict(want.staged)))
                done()

            self.call(f"locate for {session.id}", lambda: store.locate(want), located)
        else:
            hashes = job.hashes

            def looked_up(found: tuple[Vector, tuple[bytes, ...]]) -> None:
                self._perform(machine.looked_up(session.id, *found))
                done()

            self.call(f"look up for {session.id}", lambda: store.look_up(hashes), looked_up)

    def take_due(self, session: Session) -> list[bytes]:
        """What a session is to be told and asked now."""
        messages = self._machine.take_due(session.id)
        self.messages_sent += len(messages)
        return messages

    def read_for(self, session: Session, done: Callable[[], None]) -> bool:
        """Reads the next part of a session's stream; returns whether there is one."""
        read = self._machine.next_read(session.id)
        if read is None:
            return False

        def finished(chunk: Chunk) -> None:
            self._perform(self._machine.read_done(session.id, chunk))
            done()

        self.call(f"read for {session.id}", lambda: self.store.read(read), finished)
        return True

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SetTimer):
                self._set_timer(effect.timer, effect.at_ms)
                continue
            session = self._sessions.get(effect.session)
            if session is None:
                continue
            if isinstance(effect, Send):
                self.messages_sent += 1
                session.outbox.append((effect.message, effect.bulk, True))
                session.send_soon()
            elif isinstance(effect, Due):
                session.is_due = True
                session.send_soon()
            elif isinstance(effect, Readable):
                session.readable = True
                session.send_soon()
            elif isinstance(effect, BecameEqual):
                self._schedule.note(self._device, f"{self.name} session {session.id} equal")
            else:
                session.add_job(effect)

    # --- For the checks ---------------------------------------------------------------------------------------------------------

    def vector(self) -> Vector:
        """What this side holds, as the machine knows it."""
        return self._machine.vector()

    @property
    def is_members(self) -> bool:
        """Whether this device is a member's, by what it knows."""
        return bool(self.state.is_member_device(self._process.device_id))

    def check_sending(self, session: Session, message: bytes) -> None:
        """Whoever is not known to be a member's device is sent nothing but questions, and queues stay within their bounds."""
        if not self._may_be_told(session):
            said = None if is_beacon_message(message) else decode_message(message)
            names_own = isinstance(said, Want) and bool(said.staged or any(item.have for item in said.items))
            if names_own or not isinstance(said, Want | Ask):
                kind = type(said).__name__ if said else "beacons"
                text = f"{self._device} sends {kind} of {self.name} to {session.channel.remote}"
                raise self._schedule.fail(Checker.OUTSIDERS, f"{text}, which it does not know for a member's device")
        inbox_bytes = sum(map(len, session.inbox))
        if inbox_bytes > CREDIT_WINDOW_BYTES_MAX + MESSAGE_BYTES_MAX:
            raise self._schedule.fail(
                Checker.QUEUE_BOUNDS, f"{self._device}: {inbox_bytes} bytes wait in a session of {self.name}"
            )
        if len(session.outbox) > OUTBOX_MESSAGES_MAX + OUTBOX_SLACK_MESSAGES:
            raise self._schedule.fail(
                Checker.QUEUE_BOUNDS, f"{self._device}: {len(session.outbox)} messages wait to be sent in {self.name}"
            )

    def unequal(self, devices: Iterable[bytes]) -> list[str]:
        """Of the sessions with these devices, the remote sides that are not known to hold exactly what this one holds."""
        found = [session for session in self._sessions.values() if session.device in devices]
        return [session.channel.remote for session in found if not self._machine.is_equal(session.id)]

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued here."""
        return not self._is_busy and all(session.is_idle for session in self._sessions.values())
