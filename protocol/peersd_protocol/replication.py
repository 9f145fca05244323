"""The replication of one group over its sessions: what to ask for, what to push, what is acknowledged (SPEC: R-5 ff., DESIGN 9).

A machine: messages, commands and timers go in, effects come out. It never sees a row: runs pass through it packed, and the store
verifies them. One machine serves all sessions of a group, because what is asked of one must not be asked of another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from peersd_protocol.constants import (
    ASK_HASHES_MAX,
    ASKED_MAX,
    GAP_DELAY_MS,
    HAVE_DELAY_MS,
    PARKED_BYTES_MAX,
    PARKED_RUNS_MAX,
    STREAM_MESSAGE_BYTES,
    VECTOR_LOGS_MAX,
    WANT_ITEMS_MAX,
    WANT_TIMEOUT_MS,
)
from peersd_protocol.entries import LogKey
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.messages import (
    Block,
    Have,
    Runs,
    VectorPart,
    Want,
    decode_message,
    encode_ask,
    encode_have,
    encode_vector_parts,
    encode_want,
)
from peersd_protocol.replication_effects import (
    BecameEqual,
    Chunk,
    Committed,
    Compare,
    Comparison,
    Cursor,
    Effect,
    Ingest,
    Ingested,
    Locate,
    LookUp,
    Parked,
    Read,
    Readable,
    Send,
    SessionId,
    SetTimer,
)
from peersd_protocol.vectors import Tip, Vector

__all__ = [
    "TIMER_GAPS",
    "TIMER_HAVE",
    "TIMER_WANTS",
    "BecameEqual",
    "Chunk",
    "Committed",
    "Compare",
    "Comparison",
    "Cursor",
    "Effect",
    "Ingest",
    "Ingested",
    "Locate",
    "LookUp",
    "Parked",
    "ParkingLot",
    "Read",
    "Readable",
    "Replication",
    "Send",
    "SessionId",
    "SetTimer",
]

TIMER_HAVE = "have"
TIMER_GAPS = "gaps"
TIMER_WANTS = "wants"


@dataclass(slots=True)
class ParkingLot:
    """The bytes parked by all sessions of one link."""

    bytes_parked: int = 0
    bytes_max: int = PARKED_BYTES_MAX


@dataclass(slots=True)
class _Session:
    lot: ParkingLot
    durable: dict[LogKey, dict[bytes, int]] = field(default_factory=dict)
    """What the remote side said it holds: per log, hash and sequence of the branches' tips."""
    view: dict[LogKey, int] = field(default_factory=dict)
    """The greatest sequence per log that the remote side holds or is being sent."""
    vector_parts: Vector = field(default_factory=dict)
    ranges: dict[LogKey, tuple[int, int]] = field(default_factory=dict)
    cursor: Cursor | None = None
    staged: dict[bytes, int] = field(default_factory=dict)
    reading: bool = False
    pushed: Cursor | None = None
    """Before what was added to `ranges` since the read under way began: that read may have gone past it already."""
    relocated: list[tuple[Mapping[LogKey, tuple[int, int]], Cursor, Mapping[bytes, int]]] = field(default_factory=list)
    """WANTs located while a read is under way: they may rewind the cursor, so they wait for its end."""
    announce: set[LogKey] = field(default_factory=set)
    parked: list[Parked] = field(default_factory=list)
    progress_ms: int = 0
    equal: bool = False


def _size(packed: Runs | Block) -> int:
    return len(packed.payload) if isinstance(packed, Runs) else len(packed.data)


class Replication:
    """The machine of one group.

    Args:
        vector: what the store holds at the start.
    """

    def __init__(self, vector: Mapping[LogKey, tuple[Tip, ...]]) -> None:
        self._own: dict[LogKey, dict[bytes, int]] = {log: {tip: seq for seq, tip in tips} for log, tips in vector.items()}
        self._sessions: dict[SessionId, _Session] = {}
        self._asked: dict[tuple[LogKey, Tip], SessionId] = {}
        self._gaps: dict[tuple[LogKey, Tip], tuple[SessionId, int]] = {}
        self._timers: dict[str, int] = {}

    # --- Sessions ---------------------------------------------------------------------------------------------------------------

    def session_opened(self, session: SessionId, lot: ParkingLot, equal_at: Vector | None, now_ms: int) -> list[Effect]:
        """A channel was accepted.

        Args:
            session: a number of the caller's, never used again.
            lot: shared by all sessions of one link.
            equal_at: this side's vector when the digests were made, if they were equal, else None.
            now_ms: monotonic milliseconds.
        """
        if session in self._sessions:
            raise LocalProtocolError("a session is opened once")
        state = self._sessions[session] = _Session(lot, progress_ms=now_ms)
        if equal_at is None:
            return [Send(session, part) for part in encode_vector_parts(self.vector())]
        self._state_durable(state, equal_at)
        return [*self._push_newer(session, state), *self._check_equal(session, state)]

    def session_closed(self, session: SessionId, now_ms: int) -> list[Effect]:
        """A channel closed, for whatever reason. What was asked of it is asked of others."""
        state = self._sessions.pop(session, None)
        if state is None:
            return []
        for parked in state.parked:
            state.lot.bytes_parked -= _size(parked.packed)
        self._gaps = {gap: (asked, at) for gap, (asked, at) in self._gaps.items() if asked != session}
        return self._ask_others(session)

    def vector(self) -> Vector:
        """What this side holds, as the machine knows it."""
        return {log: tuple(sorted((seq, tip) for tip, seq in tips.items())) for log, tips in self._own.items() if tips}

    def durable_vector(self, session: SessionId) -> Vector:
        """What the remote side of a session said that it durably holds."""
        durable = self._sessions[session].durable
        return {log: tuple(sorted((seq, tip) for tip, seq in tips.items())) for log, tips in durable.items()}

    def is_equal(self, session: SessionId) -> bool:
        """Whether the remote side durably holds exactly what this side holds."""
        return self._sessions[session].durable == {log: tips for log, tips in self._own.items() if tips}

    # --- What the remote side says ----------------------------------------------------------------------------------------------

    def receive(self, session: SessionId, data: bytes, now_ms: int) -> list[Effect]:
        """Takes one message.

        Raises:
            RemoteProtocolError: the session is to be closed with its code; no other session is touched.
        """
        state = self._sessions[session]
        message = decode_message(data)
        if isinstance(message, (Runs, Block)):
            return [Ingest(session, message)]
        if isinstance(message, VectorPart):
            state.vector_parts.update(message.vector)
            if len(state.vector_parts) > VECTOR_LOGS_MAX:
                raise RemoteProtocolError(CloseCode.TOO_LARGE, "logs in a vector")
            if message.more:
                return []
            vector, state.vector_parts = state.vector_parts, {}
            state.durable.clear()
            self._state_durable(state, vector)
            return [Compare(session, vector), *self._check_equal(session, state)]
        if isinstance(message, Have):
            return self._receive_have(session, state, message.vector, now_ms)
        if isinstance(message, Want):
            return [Locate(session, message)]
        return [LookUp(session, message.hashes)]

    def _receive_have(self, session: SessionId, state: _Session, vector: Vector, now_ms: int) -> list[Effect]:
        if len(state.durable.keys() | vector.keys()) > VECTOR_LOGS_MAX:
            raise RemoteProtocolError(CloseCode.TOO_LARGE, "logs in a vector")
        self._state_durable(state, vector)
        effects: list[Effect] = []
        for log, tips in vector.items():
            for tip in tips:
                own = self._own.get(log, {})
                # A lone tip below ours is a message that is late; of several any may be the end of an unknown branch.
                is_new = tip[0] >= max(own.values(), default=0) or len(tips) > 1
                if tip[1] not in own and is_new and (log, tip) not in self._gaps and len(self._gaps) < ASKED_MAX:
                    self._gaps[log, tip] = (session, now_ms)
                    effects += self._set_timer(TIMER_GAPS, now_ms + GAP_DELAY_MS)
        return effects + self._check_equal(session, state)

    def _state_durable(self, state: _Session, vector: Mapping[LogKey, Sequence[Tip]]) -> None:
        """The remote side named all tips of these logs."""
        for log, tips in vector.items():
            state.durable[log] = {tip: seq for seq, tip in tips}
            state.view[log] = max(state.view.get(log, 0), *(seq for seq, _ in tips))

    def _prove_durable(self, state: _Session, held: Mapping[LogKey, Tip]) -> None:
        """The remote side sent these entries, so it holds them; its next HAVE names the tips of a forked log in full."""
        for log, (seq, tip) in held.items():
            known = state.durable.get(log, {})
            if seq > max(known.values(), default=0):
                state.durable[log] = {tip: seq} if len(known) <= 1 else {**known, tip: seq}
            state.view[log] = max(state.view.get(log, 0), seq)

    # --- What the store answers -------------------------------------------------------------------------------------------------

    def compared(self, session: SessionId, comparison: Comparison, now_ms: int) -> list[Effect]:
        """The store has compared a remote vector: asks for what is missing and not asked for elsewhere."""
        state = self._sessions.get(session)
        if state is None:
            return []
        items = [item for item in comparison.wants if self._asked.get((item.log, item.tip)) is None]
        items = items[: max(0, ASKED_MAX - len(self._asked))]
        effects: list[Effect] = []
        for start in range(0, len(items), WANT_ITEMS_MAX):
            part = tuple(items[start : start + WANT_ITEMS_MAX])
            effects.append(Send(session, encode_want(Want(part, comparison.staged))))
        for item in items:
            self._asked[item.log, item.tip] = session
        if items:
            state.progress_ms = now_ms
            effects += self._set_timer(TIMER_WANTS, now_ms + WANT_TIMEOUT_MS)
        return effects

    def located(
        self, session: SessionId, ranges: Mapping[LogKey, tuple[int, int]], cursor: Cursor, staged: Mapping[bytes, int]
    ) -> list[Effect]:
        """The store has found what a WANT asks for: `ranges` per log (from, to), none of it at or before `cursor`."""
        state = self._sessions.get(session)
        if state is None or not ranges:
            return []
        if state.reading:
            state.relocated.append((ranges, cursor, staged))
            return []
        self._add_ranges(state, ranges, cursor, staged)
        return [Readable(session)]

    def _add_ranges(
        self, state: _Session, ranges: Mapping[LogKey, tuple[int, int]], cursor: Cursor, staged: Mapping[bytes, int]
    ) -> None:
        for log, (first, last) in ranges.items():
            before = state.ranges.get(log)
            state.ranges[log] = (min(first, before[0]), max(last, before[1])) if before else (first, last)
            state.view[log] = max(state.view.get(log, 0), last)
        if staged:
            state.staged = dict(staged)
        state.cursor = cursor if state.cursor is None else state.cursor.rewound(cursor)

    def looked_up(self, session: SessionId, vector: Vector) -> list[Effect]:
        """The store has found the logs that an ASK asked about."""
        return [Send(session, encode_have(vector))] if session in self._sessions and vector else []

    def ingested(self, session: SessionId, outcome: Ingested, now_ms: int) -> list[Effect]:
        """The store has taken a message of this session in; what became durable was told by `committed` before."""
        state = self._sessions.get(session)
        if state is None:
            return []
        if outcome.is_new:
            state.progress_ms = now_ms
        self._prove_durable(state, outcome.held)
        effects: list[Effect] = self._retry_parked(set(outcome.void), now_ms) if outcome.void else []
        for parked in outcome.parked:
            size = _size(parked.packed)
            if len(state.parked) >= PARKED_RUNS_MAX or state.lot.bytes_parked + size > state.lot.bytes_max:
                continue  # dropped: the tip stays unknown, so the next comparison asks for it again
            state.lot.bytes_parked += size
            state.parked.append(parked)
            effects += self._set_timer(TIMER_GAPS, now_ms + GAP_DELAY_MS)
        return effects + self._check_equal(session, state)

    def committed(
        self,
        entries: Sequence[Committed],
        now_ms: int,
        origin: SessionId | None = None,
        message: bytes | None = None,
        vector: Mapping[LogKey, tuple[Tip, ...]] | None = None,
        congested: Set[SessionId] = frozenset(),
    ) -> list[Effect]:
        """Entries became durable here, in this order.

        Args:
            entries: them.
            now_ms: monotonic milliseconds.
            origin: the session they came by, or None if they were written here.
            message: a RUNS message that holds exactly these, if the caller has one at hand, so that nobody reads them again.
            vector: what the store now holds, where it does not follow from `entries` alone (forks, entries that became void).
            congested: sessions whose channels are slow to take what was sent: they are served from the store as they go on.
        """
        before = self._own
        if vector is not None:
            self._own = {log: {tip: seq for seq, tip in tips} for log, tips in vector.items()}
        else:
            for entry in entries:
                self._own[entry.log] = {entry.hash: entry.seq}
        # What changed in other logs than those of `entries`: acts end or restore what entries count for.
        named = {entry.log for entry in entries}
        restated = {log for log in before.keys() | self._own.keys() if before.get(log) != self._own.get(log)} - named
        effects: list[Effect] = []
        for session, state in self._sessions.items():
            if session == origin:
                for entry in entries:
                    state.view[entry.log] = max(state.view.get(entry.log, 0), entry.seq)
            # Whoever is not sent an entry is told of it, even if it has it: it does not know that this side has it too.
            unsent = (
                entries
                if session == origin
                else self._push(session, state, entries, None if session in congested else message, effects)
            )
            forked = {entry.log for entry in entries if len(self._own.get(entry.log, ())) > 1}  # one entry does not tell all tips
            effects += self._announce(state, {entry.log for entry in unsent} | forked | restated, now_ms)
            state.equal = False  # until it is looked at again
        for entry in entries:
            self._asked.pop((entry.log, (entry.seq, entry.hash)), None)
            self._gaps.pop((entry.log, (entry.seq, entry.hash)), None)
        return effects + self._retry_parked({entry.hash for entry in entries}, now_ms)

    def _push(
        self, session: SessionId, state: _Session, entries: Sequence[Committed], message: bytes | None, effects: list[Effect]
    ) -> Sequence[Committed]:
        """Pushes what the remote side lacks and can apply; returns the others."""
        eager: list[Committed] = []
        unsent: list[Committed] = []
        view = state.view
        for entry in entries:
            if view.get(entry.log, 0) == entry.seq - 1 and all(view.get(log, 0) >= seq for log, seq in entry.requires):
                eager.append(entry)
                view[entry.log] = entry.seq
            else:
                unsent.append(entry)
        if not eager:
            return unsent
        if message is not None and not unsent and state.cursor is None:
            effects.append(Send(session, message))
        else:
            for entry in eager:
                first = state.ranges[entry.log][0] if entry.log in state.ranges else entry.seq
                state.ranges[entry.log] = (first, entry.seq)
            before = Cursor(eager[0].position - 1, eager[0].position - 1)
            state.cursor = before if state.cursor is None else state.cursor.rewound(before)
            if state.reading:
                state.pushed = before if state.pushed is None else state.pushed.rewound(before)
            effects.append(Readable(session))
        return unsent

    def _push_newer(self, session: SessionId, state: _Session) -> list[Effect]:
        """What was committed between the digest and now is announced; the remote side asks for it."""
        newer = {log: tips for log, tips in self.vector().items() if state.durable.get(log) != self._own[log]}
        return [Send(session, encode_have(newer))] if newer else []

    def _announce(self, state: _Session, logs: Set[LogKey], now_ms: int) -> list[Effect]:
        state.announce |= logs
        return self._set_timer(TIMER_HAVE, now_ms + HAVE_DELAY_MS) if logs else []

    def _announcement(self, session: SessionId, state: _Session) -> list[Effect]:
        """A HAVE of the logs that changed; the whole vector where nothing of one is held any more, which no HAVE can say."""
        vector = self.vector()
        logs, state.announce = state.announce, set()
        if logs - vector.keys():
            return [Send(session, part) for part in encode_vector_parts(vector)]
        return [Send(session, encode_have({log: vector[log] for log in logs}))] if logs else []

    def _retry_parked(self, hashes: set[bytes], now_ms: int) -> list[Effect]:
        """Hands what waited for these entries to the store again.

        Blocks of a detached body that came while its run was parked are gone, so a tip that is still missing after GAP_DELAY_MS
        is asked for.
        """
        effects: list[Effect] = []
        for session, state in self._sessions.items():
            ready = [parked for parked in state.parked if parked.missing & hashes]
            if ready:
                state.parked = [parked for parked in state.parked if not parked.missing & hashes]
                for parked in ready:
                    state.lot.bytes_parked -= _size(parked.packed)
                    effects.append(Ingest(session, parked.packed))
                    if parked.tip is not None and len(self._gaps) < ASKED_MAX:
                        self._gaps.setdefault(parked.tip, (session, now_ms))
                        effects += self._set_timer(TIMER_GAPS, now_ms + GAP_DELAY_MS)
        return effects

    def _check_equal(self, session: SessionId, state: _Session) -> list[Effect]:
        equal = self.is_equal(session)
        became, state.equal = equal and not state.equal, equal
        return [BecameEqual(session)] if became else []

    # --- Streams ----------------------------------------------------------------------------------------------------------------

    def next_read(self, session: SessionId) -> Read | None:
        """What to read for this session's stream, or None if there is nothing or a read is under way."""
        state = self._sessions.get(session)
        if state is None or state.cursor is None or state.reading:
            return None
        state.reading = True
        state.pushed = None
        return Read(dict(state.ranges), state.cursor, STREAM_MESSAGE_BYTES, dict(state.staged))

    def read_done(self, session: SessionId, chunk: Chunk) -> list[Effect]:
        """The store has read the next part of a stream."""
        state = self._sessions.get(session)
        if state is None:
            return []
        state.reading = False
        effects: list[Effect] = [Send(session, message, bulk=True) for message in chunk.messages]
        for log, seq in chunk.brings.items():
            state.view[log] = max(state.view.get(log, 0), seq)
            wanted = state.ranges.get(log)
            if wanted is not None and wanted[1] <= seq:
                del state.ranges[log]
        if not state.ranges or (chunk.exhausted and state.pushed is None):
            state.cursor = None
            state.ranges.clear()
            state.staged.clear()
        else:
            state.cursor = chunk.cursor if state.pushed is None else chunk.cursor.rewound(state.pushed)
        relocated, state.relocated = state.relocated, []
        for ranges, cursor, staged in relocated:
            self._add_ranges(state, ranges, cursor, staged)
        return [*effects, Readable(session)] if state.cursor is not None else effects

    # --- Time -------------------------------------------------------------------------------------------------------------------

    def timer_expired(self, timer: str, now_ms: int) -> list[Effect]:
        """A timer that was set has run out."""
        self._timers.pop(timer, None)
        if timer == TIMER_HAVE:
            effects: list[Effect] = []
            for session, state in self._sessions.items():
                effects += self._announcement(session, state)
                effects += self._check_equal(session, state)
            return effects
        if timer == TIMER_GAPS:
            return self._ask_for_gaps(now_ms)
        if timer == TIMER_WANTS:
            return self._check_progress(now_ms)
        raise LocalProtocolError(f"no timer {timer}")

    def _set_timer(self, timer: str, at_ms: int) -> list[Effect]:
        if timer in self._timers:
            return []  # it runs already and will look at everything
        self._timers[timer] = at_ms
        return [SetTimer(timer, at_ms)]

    def _ask_for_gaps(self, now_ms: int) -> list[Effect]:
        compare: dict[SessionId, dict[LogKey, list[Tip]]] = {}
        waiting = False
        for (log, tip), (session, since_ms) in list(self._gaps.items()):
            if tip[1] in self._own.get(log, {}):
                del self._gaps[log, tip]
            elif now_ms - since_ms < GAP_DELAY_MS:
                waiting = True
            else:
                del self._gaps[log, tip]
                compare.setdefault(session, {}).setdefault(log, []).append(tip)
        effects: list[Effect] = [
            Compare(session, {log: tuple(sorted(tips)) for log, tips in vector.items()})
            for session, vector in compare.items()
            if session in self._sessions
        ]
        if not self._asked:
            for session, state in self._sessions.items():
                missing = sorted({missing for parked in state.parked for missing in parked.missing})
                if missing:
                    effects.append(Send(session, encode_ask(missing[:ASK_HASHES_MAX])))
                    waiting = True
        elif any(state.parked for state in self._sessions.values()):
            waiting = True
        if waiting:
            effects += self._set_timer(TIMER_GAPS, now_ms + GAP_DELAY_MS)
        return effects

    def _check_progress(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        for session in sorted(set(self._asked.values())):
            state = self._sessions.get(session)
            if state is None or now_ms - state.progress_ms >= WANT_TIMEOUT_MS:
                effects += self._ask_others(session)
        if self._asked:
            effects += self._set_timer(TIMER_WANTS, now_ms + WANT_TIMEOUT_MS)
        return effects

    def _ask_others(self, session: SessionId) -> list[Effect]:
        """Moves what was asked of a session to others that hold it (or back to itself where nobody else does)."""
        moved = [wanted for wanted, asked in self._asked.items() if asked == session]
        compare: dict[SessionId, dict[LogKey, list[Tip]]] = {}
        for log, tip in moved:
            del self._asked[log, tip]
            if tip[1] in self._own.get(log, {}):
                continue
            holders = [
                other for other, state in self._sessions.items() if max(state.durable.get(log, {}).values(), default=0) >= tip[0]
            ]
            others = [holder for holder in holders if holder != session] or holders
            if others:
                compare.setdefault(others[0], {}).setdefault(log, []).append(tip)
        return [Compare(other, {log: tuple(sorted(tips)) for log, tips in vector.items()}) for other, vector in compare.items()]
