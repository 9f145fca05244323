"""The group that is attacked: its members, what each of them holds, and a file of it for each episode.

The device under attack is the founder's. A bystander holds more than it does, so that what others wrote can be relayed to it; the
hostile device is an admin's, so that what it signs gets as far as its rank allows and takes nothing from the two others.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from peersd.errors import PeersdError
from peersd.store.batch import Request
from peersd.store.client_sql import Statement
from peersd.store.store import Commit, Store, StoreContext, Write, create_store, open_store
from peersd.testing.simulator.disk import DiskMark
from peersd.testing.simulator.entries import Piece, feed, pieces_of
from peersd.testing.simulator.founding import NEVER_MS, Person, admit, make_genesis, make_person, secret
from peersd_protocol.acts import Invite, SchemaAct, encode_body
from peersd_protocol.entries import Kind
from peersd_protocol.roles import Role
from peersd_protocol.schema import TableId
from peersd_protocol.signing import SigningKey
from peersd_protocol.vectors import Vector

NOTE: Final = "CREATE TABLE note (id TEXT PRIMARY KEY, title TEXT, body BLOB)"
INSERT: Final = "INSERT OR REPLACE INTO note (id, title, body) VALUES (?, ?, ?)"
LARGE_BYTES: Final = 300_000
"""A body that travels in blocks of its own."""

FIRST_MS: Final = 1_700_000_000_000
"""The clock when the group was founded, milliseconds since 1970."""

_SEED: Final = 0


class Clock:
    """A wall clock that goes on by 1 ms whenever it is looked at."""

    def __init__(self) -> None:
        self._now_ms = FIRST_MS + 60_000

    def __call__(self) -> int:
        """Milliseconds since 1970."""
        self._now_ms += 1
        return self._now_ms


def context_of(person: Person, clock: Callable[[], int]) -> StoreContext:
    """What a store of this person's device is opened with; its entropy depends on the person alone."""
    count = 0

    def entropy(length: int) -> bytes:
        nonlocal count
        count += 1
        return secret(person.name, "entropy", count)[:length]

    return StoreContext(person.keys.signing, clock, entropy, b"machine", lambda: "no-uuid")


def write_note(store: Store, user: bytes, id_: str, body: bytes | None = None) -> Commit:
    """Writes one row as a client would; what was committed."""
    (outcome,), commit = store.write([Write(user, Request([Statement(INSERT, (id_, f"title of {id_}", body))], math.inf))])
    if isinstance(outcome, PeersdError):
        raise outcome
    assert commit is not None
    return commit


@dataclass(frozen=True)
class World:
    """What all episodes begin with.

    Attributes:
        folder: holds the file.
        group: the group's id.
        victim: whose device is attacked, the founder.
        bystander: an owner, with whom the victim's session must go on.
        hostile: an admin.
        pieces: what the bystander holds and the victim does not, causes first.
        held: what the victim holds, causes first.
        vector: of the bystander.
        invite: hash of an invite that anyone may use, and its key.
        heads: the acts that entries of the hostile device name.
        table: the operation that made the table.
    """

    folder: Path
    group: bytes
    victim: Person
    bystander: Person
    hostile: Person
    pieces: tuple[Piece, ...]
    held: tuple[Piece, ...]
    vector: Vector
    invite: tuple[bytes, SigningKey]
    heads: tuple[bytes, ...]
    table: TableId

    def open_victim(self, path: Path, clock: Clock) -> Store:
        """A store of the victim's, fresh as at the beginning, in a file of its own."""
        shutil.copyfile(self._template, path)
        return open_store(path, context_of(self.victim, clock), DiskMark())

    @property
    def _template(self) -> Path:
        return self.folder / "template.db"

    def open_fresh(self, path: Path, clock: Clock) -> Store:
        """An empty store of the group at the bystander's."""
        return create_store(path, context_of(self.bystander, clock), DiskMark(), self.group)


def make_world(folder: Path) -> World:
    """Makes the group; always the same one.

    Args:
        folder: a folder of its own, which has to stay.
    """
    clock = Clock()
    victim, bystander, hostile = (make_person(_SEED, name) for name in ("victim", "bystander", "hostile"))
    genesis = make_genesis(_SEED, victim, "fuzzed")
    group = genesis.last.hash
    template = folder / "template.db"
    store = create_store(
        template, context_of(victim, clock), DiskMark(), group, (*victim.identity_runs, genesis), genesis.last.epoch
    )
    store.act(victim.user, Kind.CONTROL, encode_body(SchemaAct(tuple(store.plan_schema(victim.user, NOTE)))))
    admit(store, victim, bystander, Role.OWNER)
    admit(store, victim, hostile, Role.ADMIN)
    key = SigningKey(secret("fuzzed", "invite"))
    invite, _ = store.act(victim.user, Kind.CONTROL, encode_body(Invite(Role.WRITER, NEVER_MS, 1_000, key.public)))
    for number in range(12):
        write_note(store, victim.user, f"victim {number}")
    heads = tuple(sorted(store.log.act_heads))
    (table,) = store.state.schema.tables
    held = tuple(pieces_of(store))
    other = create_store(folder / "bystander.db", context_of(bystander, clock), DiskMark(), group)
    feed(other, held)
    other.act(bystander.user, Kind.CONTROL, encode_body(Invite(Role.READER, NEVER_MS, 1, SigningKey(secret("spare")).public)))
    for number in range(24):
        write_note(other, bystander.user, f"bystander {number}", secret(number) * (number + 1))
    write_note(other, bystander.user, "large", b"".join(secret("large", at) for at in range(LARGE_BYTES // 32)))
    write_note(other, bystander.user, "after the large one")
    known = {entry.header.hash for piece in held for entry in piece.run.entries}
    pieces = tuple(piece for piece in pieces_of(other) if piece.run.last.hash not in known)
    vector = other.vector()
    other.close()
    store.close()
    return World(folder, group, victim, bystander, hostile, pieces, held, vector, (invite.hash, key), heads, table.id)
