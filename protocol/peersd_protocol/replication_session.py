"""What the replication machine knows of one session: what its other side holds, is sent, is to be told and is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TypeAlias

from peersd_protocol.constants import (
    ASK_WAIT_MS_MAX,
    ASKED_MAX,
    GAP_DELAY_MS,
    PARKED_BYTES_MAX,
    PARKED_HASH_BYTES,
    PARKED_RUNS_MAX,
)
from peersd_protocol.entries import LogKey
from peersd_protocol.messages import Runs, WantItem
from peersd_protocol.replication_effects import Committed, Parked, SetTimer
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


def lacks(tips: Mapping[bytes, int], entry: Tip) -> bool:
    """Whether who has these tips of a log (sequence by hash) cannot hold this entry of it: none of them is it, or beyond it."""
    seq, name = entry
    return name not in tips and all(end <= seq for end in tips.values())


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
        is_told: whether it may be told what is held here.
        news_ms: when it last brought anything that was not here, or a parting (see Parked).
        durable: what the remote side said, or showed by sending it, that it holds.
        proved: per log, the greatest tip of it that the remote side only showed to hold.
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
        blockless: logs with a detached body among that, whose blocks came too early as well and were dropped.
        ask_wait_ms, asks_from_ms: how long after the last ASK the next may be said, and when.
        brought: per log, the greatest end of a run that it brought and that could not be taken in. Whether the remote side holds
            it is not known: runs end at entries that are void at their sender, too.
        not_held: per log, the end of the last run that it brought and that is here, though not held: it is void, or lacks a body
            before it. Until the sender names its tips of that log.
    """

    lot: ParkingLot
    progress_ms: int
    is_told: bool
    durable: Holdings = field(default_factory=dict)
    proved: dict[LogKey, Tip] = field(default_factory=dict)
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
    blockless: set[LogKey] = field(default_factory=set)
    news_ms: int = 0
    ask_wait_ms: int = 0
    asks_from_ms: int = 0
    brought: dict[LogKey, Tip] = field(default_factory=dict)
    not_held: dict[LogKey, Tip] = field(default_factory=dict)

    def graft(self) -> None:
        """A WANT came or is sent: the session is part of the tree again."""
        self.is_eager = True
        self.owes_prune = False

    # --- What the other side holds ----------------------------------------------------------------------------------------------

    def state_vector(self, vector: Mapping[LogKey, Sequence[Tip]]) -> None:
        """The remote side named all that it holds."""
        self.durable.clear()
        self.proved.clear()
        self.brought.clear()
        self.not_held.clear()
        self.state_durable(vector)
        self.answers = {log: seq for log, seq in self.answers.items() if log in vector}

    def state_durable(self, vector: Mapping[LogKey, Sequence[Tip]]) -> None:
        """The remote side named all tips of these logs."""
        for log, tips in vector.items():
            self.durable[log] = {tip: seq for seq, tip in tips}
            self.proved.pop(log, None)
            self.brought.pop(log, None)
            self.not_held.pop(log, None)
            self.raise_view(log, max(seq for seq, _ in tips))

    def prove_durable(self, log: LogKey, tip: Tip) -> None:
        """The remote side sent this entry, so it holds it; its next HAVE names the tips of a forked log in full."""
        seq, name = tip
        known = self.durable.get(log, {})
        if seq > max(known.values(), default=0):
            self.durable[log] = {name: seq} if len(known) <= 1 else {**known, name: seq}
            self.proved[log] = tip
        self.raise_view(log, seq)

    def note_brought(self, log: LogKey, tip: Tip) -> None:
        """The remote side sent a run that ends here, and it could not be taken in yet; in at most ASKED_MAX logs.

        It may have waited before, and others of the log may have come after it.
        """
        known = self.brought.get(log)
        if known is not None or len(self.brought) < ASKED_MAX:
            if known is None or tip[0] >= known[0]:
                self.brought[log] = tip
            self.raise_view(log, tip[0])

    def note_arrived(self, entry: Committed, *, is_held: bool) -> None:
        """This entry is here, held or void, by whomever: who brought it too does not say again that it holds it."""
        tip = self.brought.get(entry.log)
        if tip is not None and entry.has(tip):
            del self.brought[entry.log]
            if is_held:
                self.prove_durable(entry.log, tip)
            else:
                self.not_held[entry.log] = tip

    def note_held(self, own: Holdings, restated: Set[LogKey]) -> None:
        """What this side holds of these logs has changed otherwise than by more entries.

        What the remote side brought when it was void here may be held now; it does not say again that it holds what it sent. And
        what it brought may have become void here. It was so at the remote side before, which then never held it, or will be,
        which it then says: so it counts as holding what is left here. Or it never was void there, since what restores it came
        along with what ends it: then it is held here, too, once that has come.
        """
        for log in restated & self.not_held.keys():
            tip = self.not_held[log]
            if tip[1] in own.get(log, {}):
                self.prove_durable(log, tip)
                del self.not_held[log]
        for log in restated & self.proved.keys():
            left = own.get(log, {})
            if self.proved[log][0] > max(left.values(), default=0):
                self.not_held[log] = self.proved.pop(log)
                self.durable[log] = dict(left)
                if not left:
                    del self.durable[log]

    def raise_view(self, log: LogKey, seq: int) -> None:
        """The remote side holds the log up to there, or is being sent it."""
        self.view[log] = max(self.view.get(log, 0), seq)

    def unknown_tips(self, own: Holdings, log: LogKey) -> list[Tip]:
        """What the remote side holds of a log, or has brought of it, and is no tip here; ascending."""
        known = own.get(log, {})
        named = {(seq, tip) for tip, seq in self.durable.get(log, {}).items()}
        named.update(tips[log] for tips in (self.brought, self.not_held) if log in tips)
        return sorted(tip for tip in named if tip[1] not in known)

    def open_wants(self) -> list[WantItem]:
        """Of what is to be asked for, what has neither come nor been asked of others meanwhile."""
        return [item for item in self.wants if item.tip in self.asks.get(item.log, ())]

    # --- What came too early ----------------------------------------------------------------------------------------------------

    def park(self, parked: Parked, now_ms: int) -> bool:
        """Keeps a run for later; False where there is no room."""
        if parked in self.parked:
            return True  # what was asked for again has come again
        size = _size(parked)
        if len(self.parked) >= PARKED_RUNS_MAX or self.lot.bytes_parked + size > self.lot.bytes_max:
            return False
        self.lot.bytes_parked += size
        self.parked.append(parked)
        if parked.is_detached and parked.tip is not None:
            self.blockless.add(parked.tip[0])
        self.ask_wait_ms, self.asks_from_ms = 0, min(self.asks_from_ms, now_ms + GAP_DELAY_MS)
        if parked.is_parting:
            self.news_ms = now_ms
        return True

    def unpark(self, hashes: set[bytes] | None = None) -> list[Parked]:
        """Takes out what waits for one of these entries, or everything."""
        return self._take_out([parked for parked in self.parked if hashes is None or parked.missing & hashes])

    @property
    def has_partings(self) -> bool:
        """Whether it brought a parting that waits."""
        return any(parked.is_parting for parked in self.parked)

    def unpark_partings(self) -> list[Parked]:
        """Takes out the partings."""
        return self._take_out([parked for parked in self.parked if parked.is_parting])

    def drop_not_held(self) -> None:
        """Drops what came too early, when the remote side is known to hold what this side holds, and so nothing of that.

        It is void there, and what it waits for may be held by nobody: it would be asked after for good.
        """
        self._take_out([parked for parked in self.parked if parked.tip is not None])

    def _take_out(self, ready: list[Parked]) -> list[Parked]:
        if ready:
            taken = set(map(id, ready))
            self.parked = [parked for parked in self.parked if id(parked) not in taken]
            self.lot.bytes_parked -= sum(map(_size, ready))
        return ready

    def may_ask(self, now_ms: int) -> bool:
        """Whether the time for the next ASK has come; then the one after it waits twice as long."""
        if now_ms < self.asks_from_ms:
            return False
        self.ask_wait_ms = min(ASK_WAIT_MS_MAX, max(GAP_DELAY_MS, 2 * self.ask_wait_ms))
        self.asks_from_ms = now_ms + self.ask_wait_ms
        return True


def _size(parked: Parked) -> int:
    packed = parked.packed
    size = len(packed.payload) if isinstance(packed, Runs) else len(packed.data)
    return size + PARKED_HASH_BYTES * (1 + len(parked.missing))
