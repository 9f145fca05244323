"""What must be true of replicas that have met: alike, as their logs and the oracle say, nothing acknowledged lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import apsw

from peersd.store.database import open_reader
from peersd.store.log import State
from peersd.store.merge import exact
from peersd.store.store import Store, StoreContext
from peersd.testing.oracle import Rank, expect_rows
from peersd.testing.simulator.disk import DiskFile
from peersd_protocol import changesets
from peersd_protocol.blocks import join_blocks
from peersd_protocol.canonical import Value
from peersd_protocol.changesets import Changeset
from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.replication import Committed

Dump = dict[str, list[tuple[Value, ...]]]


@dataclass(frozen=True)
class Acknowledged:
    """An entry that a client was told of."""

    log: LogKey
    seq: int
    hash: bytes

    @classmethod
    def of(cls, entry: Committed) -> Acknowledged:
        """From what a store committed."""
        return cls(entry.log, entry.seq, entry.hash)


@dataclass(frozen=True)
class Replicated:
    """All of a store that two replicas must have alike. Void acts are not passed on, so they are left out."""

    vector: object
    state: object
    rows: Dump
    clocks: object

    @classmethod
    def of(cls, store: Store) -> Replicated:
        """As it is now."""
        return cls(store.vector(), replace(store.state, void=frozenset()), store.dump(), store.dump_clocks())

    def difference(self, other: Replicated) -> str | None:
        """What differs, in words; None if nothing does."""
        for name in ("vector", "state", "rows", "clocks"):
            mine, others = getattr(self, name), getattr(other, name)
            if mine != others:
                return f"{name}: {_first_difference(mine, others)}"
        return None


def _first_difference(one: object, other: object) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted([*one, *(key for key in other if key not in one)], key=repr):
            if one.get(key) != other.get(key):
                return f"{_short(key)}: {_first_difference(one.get(key), other.get(key))}"
    if isinstance(one, list) and isinstance(other, list):
        only = [item for item in one if item not in other], [item for item in other if item not in one]
        return f"only here {_short(only[0])}, only there {_short(only[1])}"
    return f"{_short(one)} here, {_short(other)} there"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 600 else f"{text[:600]}…"


def entries_of(store: Store) -> list[tuple[Rank, Changeset]]:
    """The changesets that a store's logs show as applied, each with the rank of its writes."""
    found: list[tuple[Rank, Changeset]] = []
    for _, entry, state, _ in store.log.entries("log IN (SELECT id FROM _peers_log WHERE kind = 3) ORDER BY id"):
        if state is not State.APPLIED:
            continue
        header = entry.header
        blocks = store.log.blocks(header.hash, entry.body)
        changeset = changesets.decode(join_blocks(blocks)) if blocks else changesets.EMPTY
        assert isinstance(changeset, Changeset)
        found.append(((header.hlc, header.device, header.hash), changeset))
    return found


def check_oracle(store: Store) -> str | None:
    """Compares the rows with what the entries amount to by the plain reading of DESIGN 7."""
    expected = expect_rows(entries_of(store), store.state.schema)
    for name, rows in store.dump().items():
        wanted = {tuple(map(exact, row.values)) for row in expected[name].values() if row.values is not None}
        if set(rows) != wanted or len(rows) != len(wanted):
            only = sorted(set(rows) - wanted, key=repr), sorted(wanted - set(rows), key=repr)
            return f"rows of {name}: only in the table {_short(only[0])}, only in the oracle {_short(only[1])}"
    return None


def check_acknowledged(store: Store, acknowledged: Sequence[Acknowledged]) -> str | None:
    """Looks for every entry that a client was told of; it must count."""
    for entry in acknowledged:
        row = store.log.find(entry.hash)
        if row is None or row.seq != entry.seq or store.log.log_by_id(row.log).key != entry.log:
            return f"the acknowledged entry {entry.seq} of {entry.log.device[:4].hex()} is gone"
        wanted = (State.APPLIED, State.ASIDE) if entry.log.kind is Kind.DATA else (State.APPLIED,)
        if row.state not in wanted:
            return f"the acknowledged entry {entry.seq} of {entry.log.device[:4].hex()} counts as {row.state.name}"
    return None


def check_file(file: DiskFile) -> str | None:
    """SQLite's own check of the file, read as any tool would read it."""
    connection = open_reader(file.path)
    try:
        verdict = connection.execute("PRAGMA integrity_check").get
    except apsw.Error as error:
        verdict = error
    finally:
        connection.close()
    return None if verdict == "ok" else f"integrity_check: {verdict}"


def check_rebuilt(store: Store, file: DiskFile, context: StoreContext) -> tuple[Store, str | None]:
    """Rebuilds the store from its logs, and opens it anew; both must give what was there.

    Returns:
        The store that is open now, and what is wrong.
    """
    before = Replicated.of(store)
    store.rebuild()
    difference = before.difference(Replicated.of(store))
    if difference is not None:
        return store, f"after a rebuild, {difference}"
    store.close()
    opened = file.open(context)
    difference = before.difference(Replicated.of(opened))
    return opened, None if difference is None else f"after opening it anew, {difference}"
