"""Stores joined by sessions: the replication machine with nothing between, under a clock of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from peersd.store.store import Commit
from peersd_protocol.replication import (
    Compare,
    Due,
    Effect,
    Ingest,
    Locate,
    LookUp,
    ParkingLot,
    Readable,
    Replication,
    Send,
    SetTimer,
)
from tests.store.stores import Replica


class Node:
    """A replica with its machine; sessions are numbered by the other side's place in the network."""

    def __init__(self, network: Network, number: int, replica: Replica) -> None:
        self._network = network
        self.number = number
        self.device = replica.person.keys.device
        self.store = replica.store
        self.store.listeners = 2
        self.machine = Replication(self.store.vector())
        self.timers: dict[str, int] = {}

    def tell(self, commit: Commit | None, origin: int | None = None) -> None:
        """What the store has committed."""
        if commit is not None:
            if commit.state is not None:
                self._network.drop_outsiders(self)
            now_ms = self._network.now_ms
            self.perform(self.machine.committed(commit.entries, now_ms, origin, commit.message, commit.vector))

    def perform(self, effects: Iterable[Effect]) -> None:
        """Does what the machine says, at once."""
        for effect in effects:
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        now_ms = self._network.now_ms
        if not isinstance(effect, SetTimer) and not self._network.is_joined(self.number, effect.session):
            return
        match effect:
            case Send(session, message, is_bulk):
                queue = self._network.held_bulk if is_bulk and self._network.holds_bulk else self._network.messages
                queue.append((self.number, session, message))
            case Due(session):
                for message in self.machine.take_due(session):
                    self._network.messages.append((self.number, session, message))
            case Readable(session):
                while (read := self.machine.next_read(session)) is not None:
                    self.perform(self.machine.read_done(session, self.store.read(read)))
            case Ingest(session, packed, is_final):
                ingested, commit = self.store.take(packed, b"" if is_final else self._network.nodes[session].device)
                self.tell(commit, session)
                self.perform(self.machine.ingested(session, ingested, now_ms))
            case Compare(session, vector):
                self.perform(self.machine.compared(session, self.store.compare(vector), now_ms))
            case Locate(session, want):
                found = self.store.locate(want)
                if found is not None:
                    self.perform(self.machine.located(session, *found, dict(want.staged)))
            case LookUp(session, hashes):
                self.perform(self.machine.looked_up(session, *self.store.look_up(hashes)))
            case SetTimer(timer, at_ms):
                self.timers[timer] = at_ms
            case _:
                pass


class Network:
    """Replicas that can have sessions with each other.

    Args:
        replicas: them.
        drops_outsiders: whether sessions end as soon as one side knows the other for no member's device, as the daemon's do.

    Attributes:
        holds_bulk: whether channels have no room for bulk; what is live passes.
        held_bulk: what waits for that.
    """

    def __init__(self, *replicas: Replica, drops_outsiders: bool = False) -> None:
        self._drops_outsiders = drops_outsiders
        self.replicas = replicas
        self.holds_bulk = False
        self.held_bulk: deque[tuple[int, int, bytes]] = deque()
        self.now_ms = 0
        self.messages: deque[tuple[int, int, bytes]] = deque()
        self._joined: set[frozenset[int]] = set()
        self.nodes = [Node(self, number, replica) for number, replica in enumerate(replicas)]

    def join(self, one: int, other: int) -> None:
        """Opens a session between two of them, as after a digest that differed."""
        self._joined.add(frozenset((one, other)))
        for number, remote in ((one, other), (other, one)):
            node = self.nodes[number]
            node.perform(node.machine.session_opened(remote, ParkingLot(), None, self.now_ms, is_told=True))

    def release_bulk(self) -> None:
        """The channels have room for bulk again."""
        self.holds_bulk = False
        self.messages.extend(self.held_bulk)
        self.held_bulk.clear()

    def is_joined(self, one: int, other: int) -> bool:
        """Whether the two have a session."""
        return frozenset((one, other)) in self._joined

    def part(self, one: int, other: int) -> None:
        """Ends the session of two; what is under way between them is lost."""
        self._joined.remove(frozenset((one, other)))
        self.messages = deque(message for message in self.messages if {message[0], message[1]} != {one, other})
        for number, remote in ((one, other), (other, one)):
            node = self.nodes[number]
            node.perform(node.machine.session_closed(remote, self.now_ms))

    def drop_outsiders(self, node: Node) -> None:
        """Ends the sessions of one with devices that are no member's any more."""
        for remote in self.nodes if self._drops_outsiders else ():
            if self.is_joined(node.number, remote.number) and remote.device not in node.store.state.member_devices:
                self.part(node.number, remote.number)

    def carry(self, message: tuple[int, int, bytes]) -> None:
        """A message arrives."""
        sender, receiver, data = message
        node = self.nodes[receiver]
        node.perform(node.machine.receive(sender, data, self.now_ms))

    def run(self, ms: int = 20_000) -> None:
        """Carries messages, and lets time pass."""
        end_ms = self.now_ms + ms
        while True:
            while self.messages:
                self.carry(self.messages.popleft())
            due = min(((at_ms, node.number, timer) for node in self.nodes for timer, at_ms in node.timers.items()), default=None)
            if due is None or due[0] > end_ms:
                self.now_ms = end_ms
                return
            self.now_ms, number, timer = max(self.now_ms, due[0]), due[1], due[2]
            node = self.nodes[number]
            del node.timers[timer]
            node.perform(node.machine.timer_expired(timer, self.now_ms))
