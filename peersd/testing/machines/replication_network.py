"""Replication machines joined by links with delays, over stores that keep sets: a mesh in one process, in virtual time."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from random import Random
from typing import NamedTuple

from peersd.testing.machines.replication_stores import FakeEntry, FakeStore, encode_entries
from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.messages import Runs, Want, decode_message
from peersd_protocol.replication import (
    BecameEqual,
    Committed,
    Compare,
    Due,
    Effect,
    Ingest,
    Locate,
    LookUp,
    ParkingLot,
    Read,
    Readable,
    Replication,
    Send,
    SetTimer,
)
from peersd_protocol.vectors import Vector

STORE_MS = 2
BODY_BYTES = 200
IDLE_MS = 600_000
"""After so long a network that still talks will never stop."""

Job = Ingest | Compare | Locate | LookUp


class Arrival(NamedTuple):
    """How an entry came to be at a node.

    Attributes:
        at_ms: when it was durable there.
        hops: links that it came over; 0 where it was written.
    """

    at_ms: int
    hops: int


@dataclass
class End:
    """One side of a link's session."""

    id: int
    node: Node
    delay_ms: int
    peer: End | None = None
    inbox: deque[bytes] = field(default_factory=deque)
    outbox: deque[bytes] = field(default_factory=deque)
    jobs: deque[Job] = field(default_factory=deque)
    is_open: bool = False
    is_over: bool = False
    is_busy: bool = False
    is_due: bool = False
    is_readable: bool = False
    is_stuck: bool = False
    """Whether the other side gives no credit."""
    asked: set[LogKey] = field(default_factory=set)
    """The logs that were asked for here."""

    def flush(self) -> None:
        """Sends what is to be sent, as the runner of a session does."""
        machine = self.node.machine
        while not (self.is_over or self.is_stuck) and (self.outbox or self.is_due):
            if self.is_due and not self.outbox:
                self.is_due = False
                self.outbox.extend(machine.take_due(self.id))
                continue
            self.node.network.carry(self, self.outbox.popleft())
        if self.is_readable and not (self.is_over or self.is_stuck):
            self.is_readable = False
            read = machine.next_read(self.id)
            if read is not None:
                self.node.network.after(STORE_MS, partial(self._read, read))

    def _read(self, read: Read) -> None:
        self.node.perform(self.node.machine.read_done(self.id, self.node.store.read(read)))

    def take(self) -> None:
        """Takes the next message, unless the store still works for the one before."""
        if self.is_busy or self.is_over or not self.is_open:
            return
        if self.jobs:
            self.is_busy = True
            self.node.network.after(STORE_MS, self._work)
        elif self.inbox:
            self.node.perform(self.node.machine.receive(self.id, self.inbox.popleft(), self.node.network.now_ms))
            self.take()

    def _work(self) -> None:
        self.is_busy = False
        if not self.is_over:
            self.node.do(self, self.jobs.popleft())
            self.take()


class Node:
    """One device's copy of the group.

    Attributes:
        arrivals: of each entry that is here, by its hash.
    """

    def __init__(self, network: Network, name: int, store: FakeStore) -> None:
        self.network = network
        self.name = name
        self.store = store
        self.machine = Replication(self.store.vector())
        self.log = LogKey(Kind.DATA, b"", name.to_bytes(4, "big") * 8, b"e" * 16)
        self.ends: dict[int, End] = {}
        self.links: dict[Node, End] = {}
        self.arrivals: dict[bytes, Arrival] = {}
        self.entry_bytes_received = 0

    def write(self, body_bytes: int = BODY_BYTES) -> FakeEntry:
        """Writes one entry that follows all that is here."""
        tips = self.store.tips.get(self.log, {})
        if len(tips) > 1:  # the log has forked, so its author goes on in another
            self.log = LogKey(Kind.DATA, b"", self.log.device, self.network.random.randbytes(16))
            tips = {}
        prev = max(tips, key=lambda tip: tips[tip], default=b"")
        deps = tuple(sorted(self.store.heads - {prev}))
        entry = FakeEntry(self.log, tips.get(prev, 0) + 1, prev, deps, self.network.random.randbytes(body_bytes))
        self.commit([self.store.add(entry)], None, encode_entries([entry]))
        return entry

    def commit(self, entries: list[Committed], origin: int | None, message: bytes | None) -> None:
        """Tells the machine what is durable."""
        end = None if origin is None else self.ends[origin]
        for entry in entries:
            # Where it came from holds it: what is sent was durable there before.
            hops = 0 if end is None or end.peer is None else end.peer.node.arrivals[entry.hash].hops + 1
            self.arrivals[entry.hash] = Arrival(self.network.now_ms, hops)
        forked = any(len(self.store.tips[entry.log]) > 1 for entry in entries)
        vector = self.store.vector() if forked else None
        congested = {end.id for end in self.ends.values() if len(end.outbox) >= 64}
        self.perform(self.machine.committed(entries, self.network.now_ms, origin, message, vector, congested))

    def do(self, end: End, job: Job) -> None:
        """Does what a session needs of the store."""
        now_ms = self.network.now_ms
        if isinstance(job, Ingest):
            ingested, committed = self.store.take(job.packed)
            if committed:
                message = encode_entries([self.store.entries[entry.hash] for entry in committed])
                self.commit(committed, end.id, message)
            self.perform(self.machine.ingested(end.id, ingested, now_ms))
        elif isinstance(job, Compare):
            self.perform(self.machine.compared(end.id, self.store.compare(job.vector), now_ms))
        elif isinstance(job, Locate):
            found = self.store.locate(job.want)
            if found is not None:
                self.perform(self.machine.located(end.id, *found, {}))
        else:
            self.perform(self.machine.looked_up(end.id, self.store.look_up(job.hashes)))

    def perform(self, effects: Iterable[Effect]) -> None:
        """Performs effects as the runner of a group does."""
        for effect in effects:
            if isinstance(effect, SetTimer):
                wait_ms = max(0, effect.at_ms - self.network.now_ms)
                self.network.after(wait_ms, partial(self._expire, effect.timer))
                continue
            end = self.ends.get(effect.session)
            if end is None:
                continue
            if isinstance(effect, Send):
                end.outbox.append(effect.message)
            elif isinstance(effect, Due):
                end.is_due = True
            elif isinstance(effect, Readable):
                end.is_readable = True
            elif not isinstance(effect, BecameEqual):
                end.jobs.append(effect)
                end.take()
            end.flush()

    def _expire(self, timer: str) -> None:
        self.perform(self.machine.timer_expired(timer, self.network.now_ms))

    def eager(self) -> set[int]:
        """The names of the nodes that this one pushes to."""
        return {node.name for node, end in self.links.items() if self.machine.is_eager(end.id)}


class Network:
    """Nodes and links in virtual time.

    Attributes:
        entry_bytes: bytes of RUNS messages sent so far.
        all_bytes: bytes of messages of any type sent so far.
        messages: messages of any type sent so far.
    """

    def __init__(self, seed: int, delay_ms: tuple[int, int] = (1, 30)) -> None:
        self.random = Random(seed)
        self.now_ms = 0
        self.nodes: list[Node] = []
        self.entry_bytes = 0
        self.all_bytes = 0
        self.messages = 0
        self._delay_ms = delay_ms
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count(1)

    def after(self, wait_ms: int, event: Callable[[], None]) -> None:
        """Runs something later."""
        heapq.heappush(self._events, (self.now_ms + wait_ms, next(self._numbers), event))

    def run(self, for_ms: int | None = None) -> None:
        """Runs for so long, or until nothing happens any more."""
        end_ms = self.now_ms + (IDLE_MS if for_ms is None else for_ms)
        while self._events and self._events[0][0] <= end_ms:
            self.now_ms, _, event = heapq.heappop(self._events)
            event()
        assert for_ms is not None or not self._events, "the network does not come to rest"
        if for_ms is not None:
            self.now_ms = end_ms

    def add_node(self) -> Node:
        """A new device with an empty store."""
        self.nodes.append(Node(self, len(self.nodes) + 1, FakeStore()))
        return self.nodes[-1]

    def add_clone(self, node: Node) -> Node:
        """A copy of a device, key and files: it writes to the same log, which forks."""
        clone = Node(self, len(self.nodes) + 1, deepcopy(node.store))
        clone.log = node.log
        clone.arrivals = dict(node.arrivals)
        self.nodes.append(clone)
        return clone

    def connect(self, one: Node, other: Node, delay_ms: int | None = None) -> None:
        """Opens a session: `one` asks, `other` accepts, each with the vector that it has then.

        Args:
            one: a node.
            other: another one.
            delay_ms: of the link, each way; None draws one.
        """
        delay_ms = self.random.randint(*self._delay_ms) if delay_ms is None else delay_ms
        near, far = End(next(self._numbers), one, delay_ms), End(next(self._numbers), other, delay_ms)
        near.peer, far.peer = far, near
        one.links[other], other.links[one] = near, far
        asked = one.store.vector()

        def accept() -> None:
            answered = other.store.vector()
            is_equal = asked == answered
            self._open(far, answered if is_equal else None)
            self.after(delay_ms, lambda: self._open(near, asked if is_equal else None))

        self.after(delay_ms, accept)

    def _open(self, end: End, equal_at: Vector | None) -> None:
        if end.is_over:
            return
        end.is_open = True
        end.node.ends[end.id] = end
        end.node.perform(end.node.machine.session_opened(end.id, ParkingLot(), equal_at, self.now_ms, is_told=True))
        end.take()

    def cut(self, one: Node, other: Node) -> None:
        """Loses a link with all that is under way on it."""
        for end in (one.links.pop(other), other.links.pop(one)):
            end.is_over = True
            if end.node.ends.pop(end.id, None) is not None:
                end.node.perform(end.node.machine.session_closed(end.id, self.now_ms))

    def carry(self, end: End, message: bytes) -> None:
        """Takes a message to the other side."""
        self.messages += 1
        peer = end.peer
        assert peer is not None
        decoded = decode_message(message)
        size = len(message) if isinstance(decoded, Runs) else 0
        self.entry_bytes += size
        self.all_bytes += len(message)
        if isinstance(decoded, Want):
            end.asked |= {item.log for item in decoded.items}

        def arrive() -> None:
            if not peer.is_over:
                peer.node.entry_bytes_received += size
                peer.inbox.append(message)
                peer.take()

        self.after(end.delay_ms, arrive)

    # --- Checks -----------------------------------------------------------------------------------------------------------------

    def check_equal(self) -> None:
        """All nodes hold the same, and know it of all they have a session with."""
        first = self.nodes[0]
        for node in self.nodes:
            assert node.store.entries.keys() == first.store.entries.keys(), (first.name, node.name)
            assert node.machine.vector() == node.store.vector()
            for other, end in node.links.items():
                assert node.machine.is_equal(end.id), (node.name, other.name)
