"""What the replication machine knows of one session: what its other side holds, is sent, is to be told and is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TypeAlias

from peersd_protocol.constants import PARKED_BYTES_MAX, PARKED_RUNS_MAX
from peersd_protocol.entries import LogKey
from peersd_protocol.messages import Block, Runs, WantItem
from peersd_protocol.replication_effects import Parked, SetTimer
from peersd_protocol.replication_stream import Stream
from peersd_protocol.vectors import Tip, Vector

Holdings: TypeAlias = dict[LogKey, dict[bytes, int]]
"""Per log, hash and sequence of the tips of its branches; a log without tips is not named."""


def holdings_of(vector: Mapping[LogKey, tuple[Tip, ...]]) -> Holdings:
    """A vector as holdings."""
    return {log: {tip: seq for seq, tip in tips} for log, tips in vector.items() if tips}


def vector_of(holdings: Holdings, logs: Iterable[LogKey] | None = None) -> Vector:
    """The vector of these logs, or of all."""
    chosen = holdings if logs is None else logs
    return {log: tuple(sorted((seq, tip) for tip, seq in holdings[log].items())) for log in chosen}


@dataclass(slots=True)
class ParkingLot:
    """The bytes parked by all sessions of one link."""

    bytes_parked: int = 0
    bytes_max: int = PARKED_BYTES_MAX


class Timers:
    """The machine's timers that run."""

    def __init__(self) -> None:
        self._running: set[str] = set()

    def set(self, timer: str, at_ms: int) -> list[SetTimer]:
        """Sets a timer, unless it runs already: when it expires, everything is looked at."""
        if timer in self._running:
            return []
        self._running.add(timer)
        return [SetTimer(timer, at_ms)]

    def expired(self, timer: str) -> None:
        """A timer has run out."""
        self._running.discard(timer)


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that the other side said it holds and that is not here.

    Attributes:
        tip: what is waited for.
        since_ms: when that was noticed.
    """

    tip: Tip
    since_ms: int


@dataclass(slots=True)
class SessionState:
    """One session.

    Attributes:
        lot: shared by all sessions of the link.
        progress_ms: when it last brought something that it was asked for, or was asked.
        durable: what the remote side said it holds.
        view: the greatest sequence per log that the remote side holds or is being sent.
        vector_parts: of a vector that is still coming.
        equal: whether the remote side was known to hold exactly what this side holds when that was last looked at.
        is_eager: whether new entries are pushed, not only announced.
        pruned_ms: when PRUNE was last said.
        stream: what is read for it from the store.
        announce: logs whose tips are to be told.
        owes_vector, owes_prune, owes_ask: what else is to be said as soon as the channel has room.
        wants: what is to be asked for then.
        staged: the detached bodies to be named with it.
        asks: per log, the tips that it is asked for and that have not come.
        answers: per log, the greatest sequence that it was ever asked for.
        gaps: per log, what it was not asked for yet.
        parked: what it brought too early.
        brought_void: per log, the last run's end that it brought and that is not held here.
    """

    lot: ParkingLot
    progress_ms: int
    durable: Holdings = field(default_factory=dict)
    view: dict[LogKey, int] = field(default_factory=dict)
    vector_parts: Vector = field(default_factory=dict)
    equal: bool = False
    is_eager: bool = True
    pruned_ms: int | None = None
    stream: Stream = field(default_factory=Stream)
    announce: set[LogKey] = field(default_factory=set)
    owes_vector: bool = False
    owes_prune: bool = False
    owes_ask: bool = False
    wants: list[WantItem] = field(default_factory=list)
    staged: tuple[tuple[bytes, int], ...] = ()
    asks: dict[LogKey, set[Tip]] = field(default_factory=dict)
    answers: dict[LogKey, int] = field(default_factory=dict)
    gaps: dict[LogKey, Gap] = field(default_factory=dict)
    parked: list[Parked] = field(default_factory=list)
    brought_void: dict[LogKey, Tip] = field(default_factory=dict)

    def graft(self) -> None:
        """A WANT came or is sent: the session is part of the tree again."""
        self.is_eager = True
        self.owes_prune = False

    # --- What the other side holds ----------------------------------------------------------------------------------------------

    def state_vector(self, vector: Mapping[LogKey, Sequence[Tip]]) -> None:
        """The remote side named all that it holds."""
        self.durable.clear()
        self.state_durable(vector)
        self.answers = {log: seq for log, seq in self.answers.items() if log in vector}

    def state_durable(self, vector: Mapping[LogKey, Sequence[Tip]]) -> None:
        """The remote side named all tips of these logs."""
        for log, tips in vector.items():
            self.durable[log] = {tip: seq for seq, tip in tips}
            self.raise_view(log, max(seq for seq, _ in tips))

    def prove_durable(self, log: LogKey, tip: Tip) -> None:
        """The remote side sent this entry, so it holds it; its next HAVE names the tips of a forked log in full."""
        seq, name = tip
        known = self.durable.get(log, {})
        if seq > max(known.values(), default=0):
            self.durable[log] = {name: seq} if len(known) <= 1 else {**known, name: seq}
        self.raise_view(log, seq)

    def note_held(self, own: Holdings, restated: Set[LogKey]) -> None:
        """What this side holds of these logs has changed: what the remote side brought when it was void here may be held now.

        The remote side does not say again that it holds what it sent.
        """
        for log in restated & self.brought_void.keys():
            tip = self.brought_void[log]
            if tip[1] in own.get(log, {}):
                self.prove_durable(log, tip)
                del self.brought_void[log]

    def raise_view(self, log: LogKey, seq: int) -> None:
        """The remote side holds the log up to there, or is being sent it."""
        self.view[log] = max(self.view.get(log, 0), seq)

    def unknown_tips(self, own: Holdings, log: LogKey) -> list[Tip]:
        """What the remote side holds of a log and is no tip here; ascending."""
        known = own.get(log, {})
        return sorted((seq, tip) for tip, seq in self.durable.get(log, {}).items() if tip not in known)

    def open_wants(self) -> list[WantItem]:
        """Of what is to be asked for, what has neither come nor been asked of others meanwhile."""
        return [item for item in self.wants if item.tip in self.asks.get(item.log, ())]

    # --- What came too early ----------------------------------------------------------------------------------------------------

    def park(self, parked: Parked) -> bool:
        """Keeps a run for later; False where there is no room."""
        size = _size(parked.packed)
        if len(self.parked) >= PARKED_RUNS_MAX or self.lot.bytes_parked + size > self.lot.bytes_max:
            return False
        self.lot.bytes_parked += size
        self.parked.append(parked)
        return True

    def unpark(self, hashes: set[bytes] | None = None) -> list[Parked]:
        """Takes out what waits for one of these entries, or everything."""
        ready = [parked for parked in self.parked if hashes is None or parked.missing & hashes]
        if ready:
            self.parked = [parked for parked in self.parked if hashes is not None and not parked.missing & hashes]
            self.lot.bytes_parked -= sum(_size(parked.packed) for parked in ready)
        return ready


def _size(packed: Runs | Block) -> int:
    return len(packed.payload) if isinstance(packed, Runs) else len(packed.data)
