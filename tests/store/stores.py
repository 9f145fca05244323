"""Whole stores of one group, and the shortest way to bring one up to another: compare, locate, read, take."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from peersd.errors import PeersdError
from peersd.store.batch import Request, Success
from peersd.store.client_sql import Statement
from peersd.store.mark import MarkKeeper
from peersd.store.store import Commit, Store, StoreContext, Write, create_store, open_store
from peersd.testing.simulator.disk import DiskMark
from peersd.testing.simulator.founding import Person, admit, make_genesis, make_person, secret
from peersd_protocol.acts import SchemaAct, encode_body
from peersd_protocol.entries import Kind
from peersd_protocol.messages import Block, Runs, Want, decode_message
from peersd_protocol.replication import Cursor, Parked, Read
from peersd_protocol.roles import Role

SEED = 0
FIRST_MS = 1_700_000_000_000
NOTE = "CREATE TABLE note (id TEXT PRIMARY KEY, title TEXT, body BLOB)"


class Clock:
    """A wall clock that goes on by 1 ms whenever it is looked at."""

    def __init__(self) -> None:
        self.now_ms = FIRST_MS

    def __call__(self) -> int:
        self.now_ms += 1
        return self.now_ms


class Replica:
    """One user's device with its store of the group."""

    def __init__(self, folder: Path, person: Person, wall_ms: Callable[[], int]) -> None:
        self.person = person
        self.user = person.user
        self.path = folder / f"{person.name}.db"
        self.mark: MarkKeeper = DiskMark()
        self._wall_ms = wall_ms
        self.entropy_used = 0
        self.context = StoreContext(person.keys.signing, wall_ms, self._entropy, b"machine", lambda: "no-uuid")
        self.store: Store

    def _entropy(self, length: int) -> bytes:
        self.entropy_used += 1
        return secret(self.person.name, "entropy", self.entropy_used)[:length]

    def create(self, group: bytes, *args: object) -> None:
        self.store = create_store(self.path, self.context, self.mark, group, *args)  # type: ignore[arg-type]

    def reopen(self, path: Path | None = None) -> Store:
        self.store.close()
        self.path = path or self.path
        self.store = open_store(self.path, self.context, self.mark)
        return self.store

    def sql(self, sql: str, *params: object) -> Commit:
        outcomes, commit = self.store.write([Write(self.user, Request([Statement(sql, params)], math.inf))])  # type: ignore[arg-type]
        (outcome,) = outcomes
        if isinstance(outcome, PeersdError):
            raise outcome
        assert isinstance(outcome, Success)
        assert commit is not None
        return commit

    def note(self, id_: str, title: str | None = None, body: bytes | None = None) -> Commit:
        return self.sql("INSERT OR REPLACE INTO note VALUES (?, ?, ?)", id_, title, body)

    def notes(self) -> list[tuple[object, ...]]:
        return self.store.dump()["note"]  # type: ignore[return-value]


@contextmanager
def no_room(replica: Replica) -> Generator[None, None, None]:
    """Within, no file of this process can grow beyond what the store's write-ahead log has now."""
    limit = os.path.getsize(f"{replica.path}-wal")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Meeting:
    """A group with its founder, and others who join."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.clock = Clock()
        self.founder = self._replica("founder")
        genesis = make_genesis(SEED, self.founder.person, "group")
        self.group = genesis.last.hash
        self.founder.create(self.group, (self.founder.person.identity, genesis), genesis.last.epoch)
        ops = tuple(self.founder.store.plan_schema(self.founder.user, NOTE))
        self.founder.store.act(self.founder.user, Kind.CONTROL, encode_body(SchemaAct(ops)))

    def _replica(self, name: str) -> Replica:
        return Replica(self._folder, make_person(SEED, name), self.clock)

    def join(self, name: str, role: Role = Role.WRITER) -> Replica:
        """A new member with a store that holds all that the founder's does."""
        newcomer = self.stranger(name)
        admit(self.founder.store, self.founder.person, newcomer.person, role)
        fetch(newcomer.store, self.founder.store)
        return newcomer

    def stranger(self, name: str) -> Replica:
        """Somebody with an empty store of the group."""
        newcomer = self._replica(name)
        newcomer.create(self.group)
        return newcomer


def stream(source: Store, want: Want) -> list[Runs | Block]:
    """All messages that serve a WANT."""
    located = source.locate(want)
    if located is None:
        return []
    ranges, cursor = located
    messages: list[Runs | Block] = []
    for _ in range(10_000):
        chunk = source.read(Read(dict(ranges), cursor, 100_000, dict(want.staged)))
        for encoded in chunk.messages:
            message = decode_message(encoded)
            assert isinstance(message, Runs | Block)
            messages.append(message)
        for log, seq in chunk.brings.items():
            if log in ranges and ranges[log][1] <= seq:
                del ranges[log]
        if chunk.exhausted or not ranges:
            return messages
        cursor = chunk.cursor
    raise AssertionError("a stream without an end")


def missing(target: Store, source: Store) -> list[Runs | Block]:
    """The messages that bring `target` what `source` holds and it lacks."""
    comparison = target.compare(source.vector())
    return stream(source, Want(comparison.wants, comparison.staged))


def take_all(target: Store, messages: Sequence[Runs | Block]) -> list[Parked]:
    """Takes messages in, in order; returns what had to be parked."""
    parked: list[Parked] = []
    for message in messages:
        ingested, _ = target.take(message)
        parked += ingested.parked
    return parked


def fetch(target: Store, source: Store) -> None:
    """Brings `target` all that `source` holds."""
    assert take_all(target, missing(target, source)) == []


def meet(*replicas: Replica) -> None:
    """Brings all replicas to the same."""
    for _ in range(2):
        for target in replicas:
            for source in replicas:
                if target is not source:
                    fetch(target.store, source.store)


def assert_alike(*replicas: Replica) -> None:
    """All replicas are alike, and each is what its own logs say."""
    first = replicas[0].store
    for replica in replicas:
        store = replica.store
        assert store.vector() == first.vector()
        assert replace(store.state, void=frozenset()) == replace(first.state, void=frozenset())  # void acts are not passed on
        assert store.dump() == first.dump()
        assert store.dump_clocks() == first.dump_clocks()
        before = store.dump(), store.dump_clocks()
        store.rebuild()
        assert (store.dump(), store.dump_clocks()) == before


__all__ = ["Cursor", "Meeting", "Replica", "assert_alike", "fetch", "meet", "missing", "stream", "take_all"]
