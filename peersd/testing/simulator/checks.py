"""What must be true of a group's files when all have met: alike, as the rules and the oracle say, nothing acknowledged lost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Final

import apsw

from peersd.store.database import open_reader
from peersd.store.log import State
from peersd.store.merge import exact
from peersd.store.store import Store, StoreContext, create_store
from peersd.testing.checkers import Checker
from peersd.testing.oracle import ExpectedRow, Key, Rank, expect_rows
from peersd.testing.simulator.admitted import Admitted
from peersd.testing.simulator.disk import DiskFile, DiskMark
from peersd.testing.simulator.entries import Holding, acts_of, feed, is_data, pieces_of, shuffled
from peersd.testing.simulator.telling import tell_value
from peersd_protocol import changesets
from peersd_protocol.canonical import Value
from peersd_protocol.changesets import Changeset
from peersd_protocol.entries import Act, LogKey
from peersd_protocol.errors import RemoteProtocolError
from peersd_protocol.group_state import GroupState
from peersd_protocol.membership import evaluate
from peersd_protocol.replication import Committed
from peersd_protocol.schema import Schema

Dump = dict[str, list[tuple[Value, ...]]]
ExpectedRows = dict[str, dict[Key, ExpectedRow]]


@dataclass(frozen=True)
class Acknowledged:
    """An entry that a client was told of.

    Attributes:
        device: the name of the device that told it.
        log, seq, hash: which.
    """

    device: str
    log: LogKey
    seq: int
    hash: bytes

    @classmethod
    def of(cls, device: str, entry: Committed) -> Acknowledged:
        """From what a store committed."""
        return cls(device, entry.log, entry.seq, entry.hash)


@dataclass(frozen=True)
class Replicated:
    """All of a store that two replicas must have alike. Void acts are not passed on, so they are left out.

    Attributes:
        vector: which entries are held.
        membership: the acts, evaluated.
        rows: of all tables.
        clocks: of all cells.
    """

    vector: object
    membership: object
    rows: Dump
    clocks: object

    @classmethod
    def of(cls, store: Store) -> Replicated:
        """As it is now."""
        users = {id_: replace(user, void=frozenset()) for id_, user in store.state.users.items()}
        return cls(store.vector(), replace(store.state, void=frozenset(), users=users), store.dump(), store.dump_clocks())

    def difference(self, other: Replicated) -> tuple[Checker, str] | None:
        """What differs, in words, and which check that is between two members; None if nothing does."""
        for name, checker in _PARTS.items():
            mine, others = getattr(self, name), getattr(other, name)
            if mine != others:
                return checker, f"{name}: {_first_difference(mine, others)}"
        return None


_PARTS: Final = {
    "membership": Checker.MEMBERSHIP,
    "vector": Checker.VECTORS,
    "rows": Checker.EQUAL_DUMPS,
    "clocks": Checker.EQUAL_DUMPS,
}
"""Who is a member decides what counts, and so what is held: in this order a difference is told by its cause."""


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
    text = tell_value(value)
    return text if len(text) < 600 else f"{text[:600]}…"


# --- One file -------------------------------------------------------------------------------------------------------------------


def entries_of(holdings: Mapping[bytes, Holding]) -> list[tuple[Rank, Changeset]]:
    """The changesets that a file shows as applied, each with the rank of its writes."""
    found: list[tuple[Rank, Changeset]] = []
    for hash_, held in holdings.items():
        if not is_data(held.header) or held.state is not State.APPLIED:
            continue
        changeset = changesets.decode(held.body) if held.body else changesets.EMPTY
        assert isinstance(changeset, Changeset)
        found.append(((held.header.hlc, held.header.device, hash_), changeset))
    return found


class Amounts:
    """What acts and changesets amount to by the rules, worked out once for all files that hold the same ones."""

    def __init__(self) -> None:
        self._states: dict[frozenset[bytes], GroupState] = {}
        self._rows: list[tuple[Schema, frozenset[bytes], ExpectedRows]] = []

    def state(self, group: bytes, acts: Sequence[Act]) -> GroupState:
        """What a group is by these acts."""
        known = frozenset(act.hash for act in acts)
        if known not in self._states:
            self._states[known] = evaluate(group, acts)
        return self._states[known]

    def rows(self, holdings: Mapping[bytes, Holding], schema: Schema) -> ExpectedRows:
        """The rows that the changesets which a file shows as applied amount to by the plain reading of DESIGN 7."""
        applied = frozenset(hash_ for hash_, held in holdings.items() if held.state is State.APPLIED)
        for known, hashes, expected in self._rows:
            if hashes == applied and known == schema:
                return expected
        expected = expect_rows(entries_of(holdings), schema)
        self._rows.append((schema, applied, expected))
        return expected


def check_rows(store: Store, holdings: Mapping[bytes, Holding], amounts: Amounts) -> str | None:
    """Compares the rows with what the entries amount to."""
    expected = amounts.rows(holdings, store.state.schema)
    for name, rows in store.dump().items():
        wanted = {tuple(map(exact, row.values)) for row in expected[name].values() if row.values is not None}
        if set(rows) != wanted or len(rows) != len(wanted):
            only = sorted(set(rows) - wanted, key=repr), sorted(wanted - set(rows), key=repr)
            return f"rows of {name}: only in the table {_short(only[0])}, only in the oracle {_short(only[1])}"
    return None


def check_state(store: Store, amounts: Amounts) -> str | None:
    """Evaluates the acts in a file anew."""
    evaluated = amounts.state(store.group, acts_of(store))
    return None if evaluated == store.state else f"state: {_short(store.state)} by the store, {_short(evaluated)} evaluated anew"


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


def check_markers(file: DiskFile, holdings: Mapping[bytes, Holding], markers: Mapping[str, Iterable[str]]) -> str | None:
    """Looks for what was written in another group, in the file's bytes and in the bodies that are compressed there.

    Args:
        file: of one group.
        holdings: what it holds.
        markers: by group, texts that are written only there.
    """
    kept = [file.read_bytes(), *(held.body for held in holdings.values() if held.body)]
    for group, texts in markers.items():
        for text in (text.encode() for text in texts if group != file.name):
            if any(text in part for part in kept):
                return f"holds something of {group}"
    return None


def check_rebuilt(store: Store, before: Replicated, file: DiskFile, context: StoreContext) -> tuple[Store, str | None]:
    """Rebuilds the store from its logs, and opens it anew; both must give what was there before.

    Returns:
        The store that is open now, and what is wrong.
    """
    store.rebuild()
    difference = before.difference(Replicated.of(store))
    if difference is not None:
        return store, f"after a rebuild, {difference[1]}"
    store.close()
    opened = file.open(context)
    difference = before.difference(Replicated.of(opened))
    return opened, None if difference is None else f"after opening it anew, {difference[1]}"


def check_from_scratch(store: Store, held: Replicated, context: StoreContext, folder: Path, random: Random) -> str | None:
    """Feeds all that a file holds to an empty store in another order; it must come to the same, void acts included."""
    path = folder / "from-scratch.db"
    fed = create_store(path, replace(context, vfs=""), DiskMark(), store.group)  # it is on no device's disk
    try:
        feed(fed, shuffled(pieces_of(store), random))
        difference = held.difference(Replicated.of(fed))
        if difference is not None:
            return f"against a store fed in another order, {difference[1]}"
        void = store.state.void, fed.state.void
        return None if void[0] == void[1] else f"against a store fed in another order, void: {_first_difference(*void)}"
    except RemoteProtocolError as error:
        return f"a store fed in another order refuses it: {error}"
    finally:
        fed.close()
        DiskFile(path, "", store.group).delete()


# --- A group's files ------------------------------------------------------------------------------------------------------------


def check_counting(
    holdings: Mapping[bytes, Holding], rules: Admitted, everything: Mapping[bytes, Holding], members: Collection[bytes]
) -> str | None:
    """Compares what counts in a member's file with what the rules say of every data entry that any device has.

    What a device wrote that then left, or was dropped, by an act of its own user, may have gone with it: acts travel first, and
    nobody takes anything from it after that one.

    Args:
        holdings: what the file holds.
        rules: over the acts in it.
        everything: what all files hold.
        members: the devices that hold the same.
    """
    for hash_, held in everything.items():
        header = held.header
        if not is_data(header) or not rules.is_known(header):
            continue
        here, which = holdings.get(hash_), f"entry {header.seq} of {header.device[:4].hex()}"
        is_admitted, is_counted = rules.admits(header), here is not None and here.state in (State.APPLIED, State.ASIDE)
        if is_counted and not is_admitted:
            return f"{which} counts, which the rules do not admit"
        if is_admitted and here is None and header.device in members:
            return f"{which} is not here, which the rules admit"
        if is_admitted and here is not None and not is_counted:
            if here.state is State.MISSING:
                continue  # for want of a body: see check_bodies
            return f"{which} counts as {here.state.name}, which the rules admit"
    return None


def check_bodies(holdings: Mapping[bytes, Holding], of_members: Sequence[Mapping[bytes, Holding]]) -> str | None:
    """An entry may lack its body only if no member has it."""
    for hash_, held in holdings.items():
        if held.state is not State.MISSING or held.body is not None:
            continue
        if any(hash_ in other and other[hash_].body is not None for other in of_members):
            return f"entry {held.header.seq} of {held.header.device[:4].hex()} lacks its body, which another member has"
    return None


def check_acknowledged(acknowledged: Iterable[Acknowledged], holdings: Mapping[bytes, Holding]) -> str | None:
    """Looks in the file of the device that told a client of entries for each of them. Whether they count, the rules say."""
    for entry in acknowledged:
        held = holdings.get(entry.hash)
        if held is None or held.header.seq != entry.seq or held.header.log != entry.log:
            return f"the acknowledged entry {entry.seq} of {entry.log.kind.name.lower()} is gone"
    return None


def check_removed(device: bytes, holdings: Mapping[bytes, Holding], rules: Admitted) -> str | None:
    """What others wrote after they knew that a device is no member's must not be in its file.

    Args:
        device: its id.
        holdings: what its file holds.
        rules: over all that any device has.
    """
    endings = rules.endings_of(device)
    for held in holdings.values():
        header = held.header
        if is_data(header) and header.device != device and endings & rules.control_past(header):
            return f"holds entry {header.seq} of {header.device[:4].hex()}, written by who knew that it is no member's device"
    return None
