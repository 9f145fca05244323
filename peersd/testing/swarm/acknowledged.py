"""What clients of a swarm were told is written, and whether every member holds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from peersd.store.branches import State
from peersd.store.store import Store
from peersd.testing.simulator.checks import Acknowledged
from peersd.testing.swarm.device import Device
from peersd_protocol import ids
from peersd_protocol.entries import Kind, LogKey

Place = tuple[LogKey, int]
"""A log and a sequence number in it."""

Held = Mapping[Place, Mapping[bytes, State]]
"""What a store has at places, by hash, and what each counts for."""

_COUNTING: Final = (State.APPLIED, State.ASIDE)


class Promises:
    """All entries that clients were told of, by group: each one, since of those in one log some may be void and others not."""

    def __init__(self) -> None:
        self._entries: dict[bytes, dict[Place, Acknowledged]] = {}
        self._left: dict[bytes, set[Place]] = {}

    def note_written(self, group: bytes, device: Device, answer: Mapping[str, Any]) -> None:
        """A write was acknowledged to a client of a device; `answer` is that of sql.execute or sql.transaction."""
        last = answer["last_entry"]
        if last is None or "schema_version" in answer:
            return
        writer, _, epoch = str(last["writer"]).partition("/")
        log, seq = LogKey(Kind.DATA, b"", ids.parse_id(ids.DEVICE, writer), bytes.fromhex(epoch)), int(last["seq"])
        hash_ = _hash_at(device, group, log, seq, int(last["hlc"]))
        self._entries.setdefault(group, {})[log, seq] = Acknowledged(device.name, log, seq, hash_)

    def note_joined(self, group: bytes, device: str) -> None:
        """A device has joined: had it been in the group and left, what it wrote then may have gone with it."""
        places = [place for place, entry in self._entries.get(group, {}).items() if entry.device == device]
        self._left.setdefault(group, set()).update(places)

    def of(self, group: bytes) -> Sequence[Acknowledged]:
        """What was acknowledged in a group."""
        return list(self._entries.get(group, {}).values())

    async def expected(self, group: bytes, devices: Iterable[Device]) -> list[Acknowledged]:
        """What every member of a group must hold: see `counting`.

        What a device wrote that does not run now is left out, since it need not have sent it.
        """
        found: list[Acknowledged] = []
        for device in devices:
            if device.is_running and group in device.node.groups:
                written = [entry for entry in self.of(group) if entry.log.device == device.id]
                async with device.node.groups[group].use() as opened:
                    held = await opened.store.call(held_at, opened.store.store, written)
                found += counting(written, held, self._left.get(group, ()))
        return found


def _hash_at(device: Device, group: bytes, log: LogKey, seq: int, hlc: int) -> bytes:
    """The hash of an entry that a store has just written, which an answer does not tell; b"" if the store is closed again."""
    opened = device.node.groups[group].opened
    row = None if opened is None else opened.store.store.log.log(log)
    if opened is None or row is None:
        return b""
    stored = opened.store.store.log
    places = [stored.place(row, branch, seq) for branch in range(len(row.branches))]
    hashes = [place[1] for place in places if place is not None]
    return next((hash_ for hash_ in hashes if (found := stored.find(hash_)) is not None and found.hlc == hlc), b"")


def held_at(store: Store, entries: Iterable[Acknowledged]) -> Held:
    """What a store has in the logs of these entries."""
    held: dict[Place, dict[bytes, State]] = {}
    for key in dict.fromkeys(entry.log for entry in entries):
        row = store.log.log(key)
        query = "SELECT seq, hash, state FROM _peers_entry WHERE log = ?"
        for seq, hash_, state in store.log.connection.execute(query, (row.id,)) if row else ():
            held.setdefault((key, cast(int, seq)), {})[cast(bytes, hash_)] = State(cast(int, state))
        for branch in range(len(row.branches)) if row else ():
            for segment in store.log.segments.of_branch(row.id, branch) if row else ():
                for seq, hash_ in enumerate(store.log.unpack(segment).hashes, segment.first_seq):
                    held.setdefault((key, seq), {})[hash_] = State.APPLIED
    return held


def _states(entry: Acknowledged, held: Held) -> list[State]:
    """What an entry counts for: nothing if it is not there. Without a hash whatever is in its place will do."""
    there = held.get((entry.log, entry.seq), {})
    return [state for hash_, state in there.items() if entry.hash in (hash_, b"")]


def counting(written: Iterable[Acknowledged], held: Held, left: Collection[Place]) -> list[Acknowledged]:
    """Which of a device's entries must be held by all: all but those that the device itself shows as void.

    These are void since an act that took a right did not name them. What is not even there was lost, unless the device joined
    again since.

    Args:
        written: what the device acknowledged.
        held: by its own store.
        left: what it wrote before it joined again.
    """
    expected: list[Acknowledged] = []
    for entry in written:
        states = _states(entry, held)
        is_void = states and not any(state in (*_COUNTING, State.MISSING) for state in states)
        is_excused = not states and (entry.log, entry.seq) in left
        if not is_void and not is_excused:
            expected.append(entry)
    return expected


def lacking(expected: Sequence[Acknowledged], held: Held, members: Collection[bytes]) -> Iterator[str]:
    """Says what a member's store lacks, in a line for each writer.

    Args:
        expected: what it must hold.
        held: what it holds.
        members: the devices that hold the same acts. What another one wrote may be void by acts that it never got.
    """
    total = Counter(entry.device for entry in expected)
    lost: dict[str, list[Acknowledged]] = {}
    for entry in expected:
        states = _states(entry, held)
        if not any(state in _COUNTING for state in states) and (not states or entry.log.device in members):
            lost.setdefault(entry.device, []).append(entry)
    for writer, entries in lost.items():
        told = f"{total[writer] - len(entries)} of {total[writer]} entries are there"
        yield f"lacks what {writer} was told is written: {told}, number {entries[0].seq} of its log is not"
