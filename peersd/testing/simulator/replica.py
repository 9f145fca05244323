"""One group on one device: its store, one call at a time, and its replication machine (see peersd.sync.group_sync)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from peersd.store.store import Commit, Store
from peersd.testing.simulator.schedule import Schedule
from peersd.testing.simulator.session import Session, SessionChannel, StoreJob
from peersd_protocol.errors import RemoteProtocolError
from peersd_protocol.messages import decode_message
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


class Replica:
    """One group on one running device.

    Args:
        schedule: of the simulation.
        device: the device's name.
        name: the group's name.
        store: the group's store.
        is_alive: whether the device's process still runs.
        on_acts: called when the group's state may have changed.
    """

    def __init__(
        self,
        schedule: Schedule,
        device: str,
        name: str,
        store: Store,
        is_alive: Callable[[], bool],
        on_acts: Callable[[], None],
    ) -> None:
        self._schedule = schedule
        self._device = device
        self.name = name
        self.store = store
        self._is_alive = is_alive
        self._on_acts = on_acts
        self._machine = Replication(store.vector())
        self._sessions: dict[SessionId, Session] = {}
        self._session_count = 0
        self._timers: dict[str, int] = {}
        self._calls: deque[tuple[str, Callable[[], Any], Callable[[Any], None]]] = deque()
        self._is_busy = False
        self.messages_sent = 0

    # --- Time -------------------------------------------------------------------------------------------------------------------

    def soon(self, event: Callable[[], None], slow: float = 0.0) -> None:
        """Runs an event of this process after a moment; with a probability of `slow` after a long one."""
        random = self._schedule.random
        wait_ms = random.randint(20, 400) if random.random() < slow else random.choice((0, 0, 1, 2, 5))
        self._schedule.at(self._schedule.now_ms + wait_ms, lambda: event() if self._is_alive() else None)

    def _set_timer(self, timer: str, at_ms: int) -> None:
        self._timers[timer] = at_ms

        def expire() -> None:
            if self._is_alive() and self._timers.get(timer) == at_ms:
                del self._timers[timer]
                self._perform(self._machine.timer_expired(timer, self._schedule.now_ms))

        self._schedule.at(at_ms, expire)

    # --- The store --------------------------------------------------------------------------------------------------------------

    def call(self, label: str, call: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Queues a call of the store; its result is told a moment after it is durable, and a crash may come between.

        Args:
            label: for the trace.
            call: what to do.
            then: gets what it returned, or the RemoteProtocolError that it raised.
        """
        self._calls.append((label, call, then))
        if not self._is_busy:
            self._is_busy = True
            self.soon(self._run_call)

    def _run_call(self) -> None:
        label, call, then = self._calls.popleft()
        result: Any
        try:
            result = call()
        except RemoteProtocolError as error:
            raise self._schedule.fail(f"{self._device}: an honest device was refused at {label} in {self.name}", error) from error
        except Exception as error:
            raise self._schedule.fail(f"{self._device}: {label} in {self.name} failed", error) from error
        self._schedule.note(self._device, f"{self.name} {label}")

        def finish() -> None:
            then(result)
            if self._calls:
                self.soon(self._run_call)
            else:
                self._is_busy = False

        self.soon(finish, slow=0.02)

    def tell(self, commit: Commit | None, origin: SessionId | None = None) -> None:
        """What a call of the store has committed."""
        if commit is None:
            return
        if commit.entries or commit.vector is not None:
            now_ms = self._schedule.now_ms
            self._perform(self._machine.committed(commit.entries, now_ms, origin, commit.message, commit.vector))
        if commit.acts_changed:
            self._on_acts()

    # --- Sessions ---------------------------------------------------------------------------------------------------------------

    def open_session(self, channel: SessionChannel, lot: ParkingLot, equal_at: Vector | None) -> Session:
        """Begins a session over an accepted channel."""
        self._session_count += 1
        session = self._sessions[self._session_count] = Session(self, channel, self._session_count)
        self.store.is_listening = True
        state = "equal" if equal_at is not None else "different"
        self._schedule.note(self._device, f"{self.name} session {session.id} with {channel.remote}: {state}")
        self._perform(self._machine.session_opened(session.id, lot, equal_at, self._schedule.now_ms))
        return session

    def session_over(self, session: Session) -> None:
        """A session ended."""
        del self._sessions[session.id]
        self.store.is_listening = bool(self._sessions)
        self._schedule.note(self._device, f"{self.name} session {session.id} over")
        self._perform(self._machine.session_closed(session.id, self._schedule.now_ms))

    def receive(self, session: Session, message: bytes) -> None:
        """A session takes a message."""
        kind = type(decode_message(message)).__name__
        digest = sha256(message)[:4].hex()
        self._schedule.note(self._device, f"{self.name} session {session.id} {kind} {len(message)} bytes {digest}")
        try:
            self._perform(self._machine.receive(session.id, message, self._schedule.now_ms))
        except RemoteProtocolError as error:
            raise self._schedule.fail(f"{self._device}: an honest device broke a rule in {self.name}", error) from error

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
            packed = job.packed
            self.call(f"take for {session.id}", lambda: store.take(packed), taken)
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

            def looked_up(vector: Vector) -> None:
                self._perform(machine.looked_up(session.id, vector))
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
                session.outbox.append((effect.message, effect.bulk))
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

    def unequal(self, remotes: Iterable[str]) -> list[str]:
        """Of these devices, those that are not known to hold exactly what this one holds."""
        equal = {session.channel.remote for session in self._sessions.values() if self._machine.is_equal(session.id)}
        return [remote for remote in remotes if remote not in equal]

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued here."""
        return not self._is_busy and all(session.is_idle for session in self._sessions.values())
