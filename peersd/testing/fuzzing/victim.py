"""The device that is attacked, without sockets and tasks: the machines and the store that ship, performed inline (DESIGN 5, 9).

It has one link to the hostile device, and a session with a bystander that must not notice any of it. Its driver decides nothing;
whatever it raises but PeersdError of a full disk is a fault of the code under test.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from peersd.store.store import Commit, Store
from peersd.sync.group_sync import OUTBOX_MESSAGES_MAX
from peersd.testing.fuzzing.repeating import KeptHandshake
from peersd.testing.fuzzing.sharing import Refusal, Sharing
from peersd.testing.fuzzing.world import Clock, World
from peersd_protocol import beacons as beacon_machine
from peersd_protocol import link_effects as le
from peersd_protocol import replication as rep
from peersd_protocol.beacons import BeaconBook, compact_holdings, is_beacon_message
from peersd_protocol.constants import PARKED_BYTES_MAX
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.handshake import Handshake, Role
from peersd_protocol.link import Link
from peersd_protocol.replication import ParkingLot, Replication
from peersd_protocol.tokens import vector_digest
from peersd_protocol.vectors import Vector, encode_vector

BYSTANDER: Final = 1
"""The number of the bystander's session."""

ADDRESS: Final = "ws://127.0.0.1:7330"


class Stated(NamedTuple):
    """What is held: its digest, and the vector that the digest is of."""

    digest: bytes
    vector: Vector


class BystanderHurt(AssertionError):
    """What one link did was felt by another."""


@dataclass
class Session:
    """A session of the group.

    Attributes:
        number: of the machines'.
        channel: on the hostile link; None for the bystander's, of which `sent` keeps what it is sent.
    """

    number: int
    device: bytes
    channel: int | None
    outbox: deque[tuple[bytes, bool]] = field(default_factory=deque[tuple[bytes, bool]])
    beacons: bytes | None = None
    is_due: bool = False
    is_readable: bool = False
    sent: list[bytes] = field(default_factory=list[bytes])


class Victim:
    """The device under attack.

    Args:
        world: its group.
        store: of the group, closed by the caller.
        clock: the wall.
        boot_id: 16 bytes.

    Attributes:
        now_ms: the clock of the machines.
        refusals: what it refused since they were last taken.
        down: how the link ended; None while it lives.
        busy_s: processor time that what it received has taken.
    """

    def __init__(self, world: World, store: Store, clock: Clock, boot_id: bytes) -> None:
        self.world = world
        self.store = store
        self.now_ms = 1_000_000
        self.refusals: list[Refusal] = []
        self.down: le.Down | None = None
        self.handshake_hash = b""
        self.busy_s = 0.0
        self.lot = ParkingLot()
        self._stated: Stated | None = None
        self._is_woken = False
        self._clock = clock
        self._boot_id = boot_id
        self._sessions: dict[int, Session] = {}
        self._numbers = BYSTANDER
        self._timers: dict[tuple[str, str], int] = {}
        self.sharing: Sharing | None = None
        self.link: Link | None = None
        self._replication = Replication(store.vector())
        self._brought: list[rep.Effect] = []
        self.book = BeaconBook(world.group, world.victim.keys.device)
        self._perform_beacons(self.book.set_members(store.state.member_devices, self.now_ms))
        self.bystander = Session(BYSTANDER, world.bystander.keys.device, None)
        self._begin(self.bystander, ParkingLot(), None, bytes(8))
        self.publish()

    # --- The link ---------------------------------------------------------------------------------------------------------------

    def make_handshake(self, role: Role, ephemeral: bytes) -> KeptHandshake:
        """This side of a handshake."""
        return KeptHandshake(role, self.world.victim.keys, boot_id=self._boot_id, ephemeral_private=ephemeral)

    def connect(self, role: Role, handshake: Handshake) -> None:
        """A new transport is open; the link before it, if any, ends with its transport."""
        self.disconnect()
        self.down, self.lot = None, ParkingLot()
        self.sharing = Sharing(self, is_dialler=role is Role.DIALLER)
        self.link = Link(role, handshake, wall_offset_ms=0)
        self._is_woken = False
        self.perform(self.link.start(self.now_ms))

    def disconnect(self) -> None:
        """The transport is gone."""
        if self.link is not None and self.down is None:
            self.perform(self.link.close(CloseCode.GOING_AWAY, self.now_ms, "the transport ended"))

    def receive(self, message: bytes) -> None:
        """A transport message came."""
        if self.link is not None and self.down is None:
            began_s = time.process_time()
            self.perform(self.link.receive(message, self.now_ms))
            self.pump()
            self.busy_s += time.process_time() - began_s

    def pull(self) -> list[bytes]:
        """The transport messages that it writes now."""
        messages: list[bytes] = []
        if self.link is None or not self._is_woken:
            return messages
        while (message := self.link.pull(self.now_ms)) is not None:
            messages.append(message)
            self.perform(self.link.take_effects(self.now_ms))
            self.pump()
        self._is_woken = False
        return messages

    def advance(self, ms: int) -> None:
        """Time passes."""
        self.now_ms += ms
        for _ in range(1_000):
            due = [name for name, at_ms in self._timers.items() if at_ms <= self.now_ms]
            if not due:
                break
            for name in due:
                if self._timers.pop(name, None) is not None:
                    self._expire(*name)
        else:
            raise AssertionError("timers that are set again at once")
        self.pump()

    def _expire(self, owner: str, name: str) -> None:
        if owner == "link" and self.link is not None:
            self.perform(self.link.timer_expired(name, self.now_ms))
        elif owner == "lanes" and self.sharing is not None:
            self.sharing.timer_expired()
        elif owner == "replication":
            self._perform(self._replication.timer_expired(name, self.now_ms))
        elif owner == "beacons":
            self._perform_beacons(self.book.timer_expired(self.now_ms))
            self.publish()

    def set_timer(self, owner: str, name: str, at_ms: int) -> None:
        """Replaces a timer."""
        self._timers[owner, name] = at_ms

    def perform(self, effects: Iterable[le.Effect]) -> None:
        """Performs what the link wants, as peersd.net.runner does."""
        assert self.link is not None and self.sharing is not None
        for effect in effects:
            match effect:
                case le.Up():
                    self.handshake_hash = effect.handshake_hash
                    self.perform(self.link.release(self.now_ms))
                    self.sharing.begin(effect.remote_device)
                case le.Down():
                    self._note_down(effect)
                case le.SetTimer(name, at_ms):
                    self.set_timer("link", name, at_ms)
                case le.CancelTimer(name):
                    self._timers.pop(("link", name), None)
                case le.Wake():
                    self._is_woken = True
                case _:
                    self.sharing.perform_link(effect)

    def _note_down(self, down: le.Down) -> None:
        assert self.sharing is not None
        self.down = down
        self._is_woken = True
        if not down.by_remote and down.detail != "the transport ended":
            self.refusals.append(Refusal("link", down.code, down.detail))
        self._timers = {name: at_ms for name, at_ms in self._timers.items() if name[0] not in ("link", "lanes")}
        self.sharing.link_down()
        assert set(self._sessions) <= {BYSTANDER}
        if self.lot.bytes_parked:
            raise AssertionError(f"{self.lot.bytes_parked} bytes stay parked for a link that is gone")

    def wall_ms(self) -> int:
        """The wall clock."""
        return self._clock()

    # --- Sessions ---------------------------------------------------------------------------------------------------------------

    def open_session(self, channel: int, device: bytes, equal_at: Vector | None, remote_beacons: bytes) -> Session:
        """A channel of the group was accepted by either side."""
        self._numbers += 1
        session = Session(self._numbers, device, channel)
        self._begin(session, self.lot, equal_at, remote_beacons)
        return session

    def _begin(self, session: Session, lot: ParkingLot, equal_at: Vector | None, remote_beacons: bytes) -> None:
        self._sessions[session.number] = session
        self.store.listeners = 2
        self._perform_beacons(self.book.session_opened(session.number, session.device, remote_beacons, self.now_ms))
        self._perform(self._replication.session_opened(session.number, lot, equal_at, self.now_ms, is_told=True))

    def close_session(self, session: Session) -> None:
        """A session is over."""
        if self._sessions.pop(session.number, None) is not None:
            self.book.session_closed(session.number)
            self._perform(self._replication.session_closed(session.number, self.now_ms))

    def take(self, session: Session, message: bytes) -> None:
        """A session's message.

        Raises:
            RemoteProtocolError: its channel is to be closed.
        """
        if is_beacon_message(message):
            self._perform_beacons(self.book.receive(session.number, message, self.now_ms))
        else:
            self._brought = self._replication.receive(session.number, message, self.now_ms)
            self._perform(self._brought)
            self._brought = []
        assert 0 <= self.lot.bytes_parked <= PARKED_BYTES_MAX

    def state_held(self) -> Stated:
        """What is held, worked out once for each commit, as a node does."""
        if self._stated is None:
            vector = self.store.vector()
            self._stated = Stated(vector_digest(self.world.group, encode_vector(vector)), vector)
        return self._stated

    def tell(self, commit: Commit | None, origin: int | None = None) -> None:
        """What the store has committed."""
        if commit is None:
            return
        self._stated = None
        congested = {number for number, session in self._sessions.items() if len(session.outbox) >= OUTBOX_MESSAGES_MAX}
        told = self._replication.committed(commit.entries, self.now_ms, origin, commit.message, commit.vector, congested)
        self._perform(told)
        self.publish()
        if commit.state is None:
            return
        self._perform_beacons(self.book.set_members(commit.state.member_devices, self.now_ms))
        if self.bystander.device not in commit.state.member_devices:
            raise BystanderHurt("the bystander is a member no more")
        if self.sharing is not None:
            self.sharing.state_groups()

    def publish(self) -> None:
        """States what is held, if that is something new."""
        stated = self.state_held()
        held = compact_holdings(stated.vector)
        key = self.world.victim.keys.signing
        self._perform_beacons(self.book.publish([ADDRESS], stated.digest, held, self.now_ms, self._clock(), key))

    # --- Effects of the group's machines ----------------------------------------------------------------------------------------

    def _perform(self, effects: Iterable[rep.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, rep.SetTimer):
                self.set_timer("replication", effect.timer, effect.at_ms)
                continue
            session = self._sessions.get(effect.session)
            if session is None:
                continue
            match effect:
                case rep.Send(_, message, bulk):
                    session.outbox.append((message, bulk))
                case rep.Due():
                    session.is_due = True
                case rep.Readable():
                    session.is_readable = True
                case rep.BecameEqual():
                    pass
                case _:
                    self._run_job(session, effect)

    def _run_job(self, session: Session, job: rep.Ingest | rep.Compare | rep.Locate | rep.LookUp) -> None:
        """Has the store do what a session needs. A fault of a session other than the one that speaks is caught by nobody."""
        machine, number, now_ms = self._replication, session.number, self.now_ms
        if isinstance(job, rep.Ingest):
            self._ingest(session, job)
        elif isinstance(job, rep.Compare):
            self._perform(machine.compared(number, self.store.compare(job.vector), now_ms))
        elif isinstance(job, rep.Locate):
            located = self.store.locate(job.want)
            if located is not None:
                self._perform(machine.located(number, *located, dict(job.want.staged)))
        else:
            self._perform(machine.looked_up(number, *self.store.look_up(job.hashes)))

    def _ingest(self, session: Session, job: rep.Ingest) -> None:
        before = self.state_held().vector, self.store.log.position
        try:
            ingested, commit = self.store.take(job.packed, b"" if job.is_final else session.device)
        except RemoteProtocolError as error:
            assert (self.store.vector(), self.store.log.position) == before, "something of a refused message is kept"
            if session.number == BYSTANDER:
                raise BystanderHurt(f"what the bystander brought is refused: {error}") from error
            if self.sharing is not None:
                self.sharing.fail(session, error, None if job in self._brought else job.packed)
            return
        self.tell(commit, session.number)
        self._perform(self._replication.ingested(session.number, ingested, self.now_ms))

    def _perform_beacons(self, effects: Iterable[beacon_machine.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, beacon_machine.SetTimer):
                self.set_timer("beacons", "", effect.at_ms)
            elif isinstance(effect, beacon_machine.Send):
                session = self._sessions.get(effect.session)
                if session is not None:
                    assert session.beacons is None, "two messages about beacons are under way"
                    session.beacons = effect.message

    # --- Sending ----------------------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Sends what the sessions have to say, as far as their channels take it."""
        for session in list(self._sessions.values()):
            if session.outbox or session.is_due or session.is_readable or session.beacons is not None:
                self._pump_session(session)

    def _pump_session(self, session: Session) -> None:
        while session.number in self._sessions and not self._is_full(session):
            if session.beacons is not None:
                message, session.beacons = session.beacons, None
                self._send(session, message, bulk=False)
                self._perform_beacons(self.book.message_sent(session.number, self.now_ms))
            elif session.outbox:
                self._send(session, *session.outbox.popleft())
            elif session.is_due:
                session.is_due = False
                session.outbox.extend((message, False) for message in self._replication.take_due(session.number))
            elif session.is_readable:
                session.is_readable = False
                read = self._replication.next_read(session.number)
                if read is not None:
                    self._perform(self._replication.read_done(session.number, self.store.read(read)))
            else:
                return

    def _is_full(self, session: Session) -> bool:
        return session.channel is not None and (self.link is None or self.link.is_full(session.channel))

    def _send(self, session: Session, message: bytes, bulk: bool) -> None:
        if session.channel is None:
            session.sent.append(message)
        elif self.link is not None and self.down is None:
            self.perform(self.link.send(session.channel, message, self.now_ms, bulk=bulk, in_order=True))

    # --- The bystander ----------------------------------------------------------------------------------------------------------

    def check_bystander(self, write: Callable[[], Commit], message: bytes) -> None:
        """The bystander's session runs as ever: it is sent what is written here, and what it brings is taken in.

        Args:
            write: writes an entry here.
            message: a RUNS message of the bystander's with an entry that is not here yet.
        """
        session = self.bystander
        session.sent.clear()
        commit = write()
        self.tell(commit)
        self.advance(1_000)
        if not session.sent:
            raise BystanderHurt("the bystander is told nothing of what is written here")
        position = self.store.log.position
        try:
            self.take(session, message)
        except RemoteProtocolError as error:
            raise BystanderHurt(f"what the bystander brought is refused: {error}") from error
        if self.store.log.position == position:
            raise BystanderHurt("what the bystander brought is not taken in")
        if BYSTANDER not in self._sessions:
            raise BystanderHurt("the bystander's session is gone")
