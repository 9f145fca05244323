"""Runs as some stores know them, or as a changed one could make them, taken in by another store in any order."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from peersd.store.log import State
from peersd.store.mark import Mark
from peersd.store.store import Store, open_store
from peersd.testing.simulator.disk import DiskMark
from peersd_protocol import canonical, hlc
from peersd_protocol.blocks import split_body
from peersd_protocol.entries import Header, Kind
from peersd_protocol.messages import Block, Runs
from peersd_protocol.runs import Body, BodyForm, Entry, Run, run_value
from tests.store.stores import FIRST_MS, Replica, fetch

COUNTED = frozenset([State.APPLIED, State.ASIDE, State.MISSING])


def packed(*runs: Run) -> Runs:
    """A message of these runs."""
    return Runs(0, canonical.encode([run_value(run) for run in runs]))


def runs_of(*stores: Store) -> list[Run]:
    """All runs of these stores with the bodies that are there, each once."""
    runs: dict[bytes, Run] = {}
    for store in stores:
        entries: list[Entry] = []
        for _, entry, _, signature in store.log.all_entries():
            entries.append(entry)
            if signature is not None:
                run = Run(tuple(entries), signature)
                known = runs.get(run.last.hash)
                if known is None or any(entry.body.form is BodyForm.WITHHELD for entry in known.entries):
                    runs[run.last.hash] = run
                entries = []
    return list(runs.values())


def blocks_of(store: Store, hash_: bytes) -> list[Block]:
    """The messages that bring a detached body."""
    return [Block(hash_, index, data) for index, data in enumerate(store.log.detached_blocks(hash_))]


def by_hand(
    author: Replica,
    kind: Kind,
    *bodies: bytes,
    after: Header | None = None,
    epoch: bytes = b"e" * 16,
    heads: Iterable[bytes] = (),
    last_heads: Iterable[bytes] = (),
) -> Run:
    """A run that a changed store could make: what its author says of itself need not be so.

    Args:
        author: whose device signs it.
        kind: of log.
        bodies: the raw body of each entry.
        after: the header that it follows; None for a log's first entry.
        epoch: of a new log.
        heads: what its first entry names as `control_heads`. Its stamp is as early as can be.
        last_heads: the same for its last entry, if it has several.
    """
    entries: list[Entry] = []
    for number, raw in enumerate(bodies):
        body = Body.of_blocks(split_body(raw))
        header = Header(
            author.store.group,
            kind,
            author.user,
            author.person.keys.device,
            after.epoch if after else epoch,
            after.seq + 1 if after else 1,
            after.hash if after else b"",
            after.hlc + 1 if after else hlc.pack(FIRST_MS, 0),
            (),
            tuple(sorted(heads if not number else last_heads if number == len(bodies) - 1 else ())),
            body.hash,
        )
        entries.append(Entry(header, body))
        after = header
    return Run(tuple(entries), entries[-1].header.sign(author.person.keys.signing))


def entry_of(store: Store, hash_: bytes) -> Entry:
    """An entry that is here."""
    found = store.log.find(hash_)
    assert found is not None
    return store.log.entry(found)


def header_of(store: Store, hash_: bytes) -> Header:
    """The header of an entry that is here."""
    return entry_of(store, hash_).header


def deliver(store: Store, runs: Iterable[Run]) -> None:
    """Takes runs in, one a message, in this order; those that have to wait are tried again."""
    waiting = list(runs)
    while waiting:
        parked = [run for run in waiting if store.take(packed(run))[0].parked]
        assert len(parked) < len(waiting), "these rest on what nobody has"
        waiting = parked


def shuffled(runs: Sequence[Run], seed: int) -> list[Run]:
    """The runs in another order."""
    mixed = list(runs)
    Random(seed).shuffle(mixed)
    return mixed


def verdicts(store: Store) -> dict[bytes, tuple[bool, bool]]:
    """By hash of each data entry here: whether it counts, and whether it is held."""
    return {
        entry.header.hash: (state in COUNTED, state is not State.VOID)
        for _, entry, state, _ in store.log.all_entries()
        if entry.header.kind is Kind.DATA
    }


def seqs(store: Store, epoch: bytes, states: Iterable[State] = COUNTED, kind: Kind = Kind.DATA) -> list[int]:
    """The sequences of the entries of an epoch that are in these states, ascending."""
    wanted = set(states)
    return sorted(
        entry.header.seq
        for _, entry, state, _ in store.log.all_entries()
        if state in wanted and entry.header.epoch == epoch and entry.header.kind is kind
    )


def in_step(target: Store, source: Store) -> None:
    """Brings `target` what it lacks, bodies too, and compares all that two replicas must have alike."""
    fetch(target, source)
    fetch(source, target)
    assert target.vector() == source.vector()
    assert replace(target.state, void=frozenset()) == replace(source.state, void=frozenset())
    assert target.dump() == source.dump()
    assert target.dump_clocks() == source.dump_clocks()


def clone(original: Replica, folder: Path) -> Replica:
    """A second process with the same key, file and mark: what nothing but a copied disk, or malice, can bring about."""
    original.store.close()
    folder.mkdir()
    twin = Replica(folder, original.person, original.context.wall_ms)
    twin.entropy_used = original.entropy_used + 1000  # what each draws from now on differs
    shutil.copy(original.path, twin.path)
    original.store = open_store(original.path, original.context, original.mark)
    mark = original.mark.load()
    assert mark is not None
    moved = DiskMark()
    moved.save(Mark(mark.epoch, mark.control, mark.data, mark.machine, twin.path.stat().st_ino))
    twin.mark = moved
    twin.store = open_store(twin.path, twin.context, twin.mark)
    assert twin.store.epoch == original.store.epoch
    return twin
