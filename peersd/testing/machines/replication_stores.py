"""A store that keeps sets of entries instead of rows, for networks of replication machines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from peersd_protocol import canonical
from peersd_protocol.canonical import Value
from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.messages import Block, Runs, Want, WantItem, decode_message
from peersd_protocol.replication import Chunk, Committed, Comparison, Cursor, Ingested, Parked, Read
from peersd_protocol.signing import sha256
from peersd_protocol.vectors import Tip, Vector


@dataclass(frozen=True)
class FakeEntry:
    """An entry, a run of its own."""

    log: LogKey
    seq: int
    prev: bytes
    deps: tuple[bytes, ...]
    body: bytes

    @property
    def value(self) -> list[Value]:
        """What is encoded."""
        return [self.log.device, self.log.epoch, self.seq, self.prev, list(self.deps), self.body]

    @property
    def hash(self) -> bytes:
        """The entry's name."""
        return sha256(canonical.encode(self.value))

    @property
    def tip(self) -> Tip:
        """The entry as the end of a branch."""
        return self.seq, self.hash


def encode_entries(entries: Iterable[FakeEntry]) -> bytes:
    """A RUNS message of entries."""
    return canonical.encode([3, 0, canonical.encode([entry.value for entry in entries])])


def decode_entries(packed: Runs | Block) -> list[FakeEntry]:
    """The entries of a RUNS message."""
    assert isinstance(packed, Runs)
    found: list[FakeEntry] = []
    values = canonical.decode(packed.payload, bytes_max=len(packed.payload))
    assert isinstance(values, list)
    for value in values:
        assert isinstance(value, list)
        device, epoch, seq, prev, deps, body = value
        assert isinstance(device, bytes) and isinstance(epoch, bytes) and isinstance(seq, int) and isinstance(prev, bytes)
        assert isinstance(deps, list) and isinstance(body, bytes)
        named = tuple(dep for dep in deps if isinstance(dep, bytes))
        found.append(FakeEntry(LogKey(Kind.DATA, b"", device, epoch), seq, prev, named, body))
    return found


class FakeStore:
    """Entries in the order in which they came, and what the real store answers about them."""

    def __init__(self) -> None:
        self.entries: dict[bytes, FakeEntry] = {}
        self.positions: dict[bytes, int] = {}
        self.order: list[bytes] = []
        self.heads: set[bytes] = set()
        self.tips: dict[LogKey, dict[bytes, int]] = {}

    def vector(self) -> Vector:
        """The tips of all logs."""
        return {log: tuple(sorted((seq, tip) for tip, seq in tips.items())) for log, tips in self.tips.items()}

    def add(self, entry: FakeEntry) -> Committed:
        """Takes in an entry whose dependencies are here."""
        name = entry.hash
        self.entries[name] = entry
        self.order.append(name)
        self.positions[name] = len(self.order)
        self.heads -= {entry.prev, *entry.deps}
        self.heads.add(name)
        tips = self.tips.setdefault(entry.log, {})
        tips.pop(entry.prev, None)
        tips[name] = entry.seq
        requires = tuple((self.entries[dep].log, self.entries[dep].seq) for dep in entry.deps)
        return Committed(len(self.order), entry.log, entry.seq, name, requires)

    def take(self, packed: Runs | Block) -> tuple[Ingested, list[Committed]]:
        """Takes in a message: what is told of it, and what is new."""
        held: dict[LogKey, Tip] = {}
        parked: list[Parked] = []
        committed: list[Committed] = []
        for entry in decode_entries(packed):
            missing = frozenset({entry.prev, *entry.deps} - {b""} - self.entries.keys())
            if missing and entry.hash not in self.entries:
                alone = decode_message(encode_entries([entry]))
                assert isinstance(alone, Runs)
                parked.append(Parked(alone, missing, (entry.log, entry.tip)))
                continue
            if entry.hash not in self.entries:
                committed.append(self.add(entry))
            held[entry.log] = entry.tip
        new = frozenset(entry.log for entry in committed)
        return Ingested(held, tuple(parked), new=new), committed

    def compare(self, vector: Vector) -> Comparison:
        """What is missing of a vector."""
        return Comparison(
            tuple(
                WantItem(log, tip, self._samples(log))
                for log, tips in vector.items()
                for tip in tips
                if tip[1] not in self.entries
            )
        )

    def _samples(self, log: LogKey) -> tuple[Tip, ...]:
        found: set[Tip] = set()
        for tip in self.tips.get(log, {}):
            branch = self._branch(tip)
            step = 1
            index = len(branch) - 1
            while index >= 0:
                found.add(branch[index])
                index -= step
                step *= 2
        return tuple(sorted(found, reverse=True)[:64])

    def _branch(self, name: bytes) -> list[Tip]:
        branch: list[Tip] = []
        while name:
            entry = self.entries[name]
            branch.append(entry.tip)
            name = entry.prev
        return branch[::-1]

    def locate(self, want: Want) -> tuple[dict[LogKey, tuple[int, int]], Cursor] | None:
        """Where what is wanted stands; None if nothing of it is here."""
        ranges: dict[LogKey, tuple[int, int]] = {}
        before: list[int] = []
        for item in want.items:
            if item.tip[1] not in self.entries:
                continue
            first = 1 + max((seq for seq, name in self._branch(item.tip[1]) if (seq, name) in item.have), default=0)
            if first > item.tip[0]:
                continue
            known = ranges.get(item.log, (first, item.tip[0]))
            ranges[item.log] = (min(first, known[0]), max(item.tip[0], known[1]))
            before += [
                self.positions[name] - 1 for name, entry in self.entries.items() if entry.log == item.log and entry.seq == first
            ]
        return (ranges, Cursor(min(before), min(before))) if ranges else None

    def look_up(self, hashes: Iterable[bytes]) -> Vector:
        """The logs in which these entries stand."""
        logs = {self.entries[name].log for name in hashes if name in self.entries}
        vector = self.vector()
        return {log: vector[log] for log in logs}

    def read(self, read: Read) -> Chunk:
        """The next part of a stream."""
        found: list[FakeEntry] = []
        brings: dict[LogKey, int] = {}
        position = read.cursor.data
        size = 0
        for name in self.order[read.cursor.data :]:
            if size >= read.bytes_max:
                break
            position += 1
            entry = self.entries[name]
            first, last = read.ranges.get(entry.log, (1, 0))
            if first <= entry.seq <= last:
                found.append(entry)
                size += len(entry.body)
                beyond = [later for later in self.order[position:] if self.entries[later].log == entry.log]
                if len(self.tips[entry.log]) == 1 or not beyond:
                    brings[entry.log] = entry.seq if len(self.tips[entry.log]) == 1 else last
        exhausted = position == len(self.order)
        messages = (encode_entries(found),) if found else ()
        return Chunk(messages, brings, Cursor(read.cursor.acts, position), exhausted)
