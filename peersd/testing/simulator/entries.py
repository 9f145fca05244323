"""What the file of a group holds, as the checks look at it, and how it is fed into another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from peersd.store.log import State
from peersd.store.store import Store
from peersd_protocol import canonical
from peersd_protocol.act_bodies import decode_body
from peersd_protocol.blocks import join_blocks
from peersd_protocol.entries import Act, Header, Kind
from peersd_protocol.messages import Block, Runs
from peersd_protocol.runs import BodyForm, Entry, Run, run_value

MESSAGE_RUNS: Final = 6
"""How many runs a file is fed at once, where their order matters."""


@dataclass(frozen=True)
class Holding:
    """An entry as one file holds it.

    Attributes:
        header: the entry's.
        state: what it counts for there.
        body: the raw body, b"" for an empty one; None where the file has none.
    """

    header: Header
    state: State
    body: bytes | None


def holdings_of(store: Store) -> dict[bytes, Holding]:
    """All entries in a file by hash, void ones included, causes before what rests on them."""
    found: dict[bytes, Holding] = {}
    for _, entry, state, _ in store.log.all_entries():
        header = entry.header
        blocks = store.log.blocks(header.hash, entry.body)
        body = None if blocks is None else join_blocks(blocks) if blocks else b""
        found[header.hash] = Holding(header, state, body)
    return found


def acts_of(store: Store) -> list[Act]:
    """All acts in a file, void ones included."""
    acts: list[Act] = []
    for _, entry, _, _ in store.log.entries("log IN (SELECT id FROM _peers_log WHERE kind <> 3) ORDER BY id"):
        acts.append(Act(entry.header, decode_body(store.log.blocks(entry.header.hash, entry.body))))
    return acts


@dataclass(frozen=True)
class Piece:
    """A run as it travels, with the blocks of its body if that is detached."""

    run: Run
    blocks: tuple[Block, ...]


def pieces_of(store: Store) -> list[Piece]:
    """All that a file holds, in the order in which it came there, void entries included."""
    pieces: list[Piece] = []
    open_: list[Entry] = []
    for _, entry, _, signature in store.log.all_entries():
        open_.append(entry)
        if signature is not None:
            detached = entry.body.form is BodyForm.DETACHED
            blocks = store.log.detached_blocks(entry.header.hash) if detached else []
            named = tuple(Block(entry.header.hash, index, block) for index, block in enumerate(blocks))
            pieces.append(Piece(Run(tuple(open_), signature), named))
            open_ = []
    assert not open_
    return pieces


def feed(store: Store, pieces: Sequence[Piece], runs_max: int = MESSAGE_RUNS) -> None:
    """Takes everything in; what comes too early is tried again when all that it waited for has come.

    What was void when it came, and counts by acts that came later, lacks its body and is given again, as others would be asked
    for it.

    Args:
        store: what takes it in.
        pieces: what it is given.
        runs_max: how many of them at once.
    """
    early: dict[bytes, frozenset[bytes]] = {}
    ready = list(pieces)
    for _ in range(len(pieces) + 1):
        for some in _in_messages(ready, runs_max):
            early |= _take(store, some)[0]
        ready = [piece for piece in pieces if _has_come(store, early.get(piece.run.last.hash))]
        for piece in ready:
            del early[piece.run.last.hash]
    assert not early, "a file holds all that its entries rest on"
    while True:
        without = _without_body(store)
        again = [piece for piece in pieces if not without.isdisjoint(entry.header.hash for entry in piece.run.entries)]
        if not sum(_take(store, some)[1] for some in _in_messages(again, runs_max)):
            break


def _has_come(store: Store, missing: frozenset[bytes] | None) -> bool:
    """Whether what a piece waits for is here; False for one that waits for nothing."""
    return missing is not None and all(store.log.find(hash_) is not None for hash_ in missing)


def _without_body(store: Store) -> set[bytes]:
    entries = store.log.entries("id > 0")
    return {entry.header.hash for _, entry, state, _ in entries if state is State.MISSING or entry.body.form is BodyForm.WITHHELD}


def _in_messages(pieces: Sequence[Piece], runs_max: int) -> list[Sequence[Piece]]:
    return [pieces[start : start + runs_max] for start in range(0, len(pieces), runs_max)]


def _take(store: Store, pieces: Sequence[Piece]) -> tuple[dict[bytes, frozenset[bytes]], bool]:
    """Takes in a message; returns what runs that came too early wait for, by their last entry, and whether anything was new."""
    ingested, _ = store.take(Runs(0, canonical.encode([run_value(piece.run) for piece in pieces])))
    early = {parked.tip[1][1]: parked.missing for parked in ingested.parked if parked.tip is not None}
    is_new = bool(ingested.new)
    for piece in pieces:
        for block in () if piece.run.last.hash in early else piece.blocks:
            is_new |= bool(store.take(block)[0].new)
    return early, is_new


def shuffled(pieces: Sequence[Piece], random: Random) -> list[Piece]:
    """The same in another order."""
    return random.sample(pieces, len(pieces))


def is_data(header: Header) -> bool:
    """Whether an entry holds rows."""
    return header.kind is Kind.DATA
