"""The replication of one group over its sessions: what to ask for, what to push, what is acknowledged (SPEC: R-5 ff., DESIGN 9).

A machine: messages, commands and timers go in, effects come out. It never sees a row: runs pass through it packed, and the store
verifies them. One machine serves all sessions of a group, because what is asked of one must not be asked of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from peersd_protocol.constants import ASK_HASHES_MAX, GAP_DELAY_MS, HAVE_DELAY_MS, VECTOR_LOGS_MAX, VECTOR_TIPS_MAX
from peersd_protocol.entries import LogKey
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.messages import (
    Ask,
    Block,
    Have,
    Prune,
    Runs,
    VectorPart,
    Want,
    decode_message,
    encode_ask,
    encode_have_parts,
    encode_prune,
    encode_vector_parts,
    encode_wants,
)
from peersd_protocol.replication_asking import TIMER_GAPS, TIMER_WANTS, Asking
from peersd_protocol.replication_effects import (
    BecameEqual,
    Chunk,
    Committed,
    Compare,
    Comparison,
    Cursor,
    Due,
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
from peersd_protocol.replication_pushing import Pushing
from peersd_protocol.replication_session import Holdings, ParkingLot, SessionState, Timers, holdings_of, lacks, vector_of
from peersd_protocol.replication_stream import Located
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
    "Due",
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


class Replication:
    """The machine of one group. What is told of a session that was closed, or asked about one, is passed over.

    Args:
        vector: what the store holds at the start.
    """

    def __init__(self, vector: Mapping[LogKey, tuple[Tip, ...]]) -> None:
        self._own: Holdings = holdings_of(vector)
        self._sessions: dict[SessionId, SessionState] = {}
        self._timers = Timers()
        self._asking = Asking(self._own, self._sessions, self._timers)
        self._pushing = Pushing(self._sessions)

    # --- Sessions ---------------------------------------------------------------------------------------------------------------

    def session_opened(
        self, session: SessionId, lot: ParkingLot, equal_at: Vector | None, now_ms: int, *, is_told: bool
    ) -> list[Effect]:
        """A channel was accepted.

        Args:
            session: a number of the caller's, never used again.
            lot: shared by all sessions of one link.
            equal_at: this side's vector when the digests were made, if they were equal, else None.
            now_ms: monotonic milliseconds.
            is_told: whether the remote side may be told what is held here. Else it is asked, and told nothing before `tell`.
        """
        if session in self._sessions:
            raise LocalProtocolError("a session is opened once")
        state = self._sessions[session] = SessionState(lot, now_ms, is_told=is_told)
        if not is_told:
            return []
        if equal_at is None:
            state.owes_vector = True
            return [Due(session)]
        # What has changed between the digest and now is announced; the remote side asks for it.
        state.state_durable(equal_at)
        both = state.durable.keys() | self._own.keys()
        state.announce = {log for log in both if state.durable.get(log) != self._own.get(log)}
        return [Due(session)] if state.announce else self._check_equal(session, state)

    def is_told(self, session: SessionId) -> bool:
        """Whether the remote side of an open session may be told what is held here."""
        return self._sessions[session].is_told

    def tell(self, session: SessionId) -> list[Effect]:
        """The remote side may be told what is held here from now on."""
        state = self._sessions.get(session)
        if state is None or state.is_told:
            return []
        state.is_told = state.owes_vector = True
        return [Due(session), *self._check_equal(session, state)]

    def session_closed(self, session: SessionId, now_ms: int) -> list[Effect]:
        """A channel closed, for whatever reason. What was asked of it is asked of others."""
        state = self._sessions.pop(session, None)
        if state is None:
            return []
        state.unpark()
        return self._asking.session_closed(session, state, now_ms)

    def vector(self) -> Vector:
        """What this side holds, as the machine knows it."""
        return vector_of(self._own)

    def durable_vector(self, session: SessionId) -> Vector:
        """What the remote side of an open session said that it durably holds."""
        return vector_of(self._sessions[session].durable)

    def is_equal(self, session: SessionId) -> bool:
        """Whether the remote side of an open session, a member's device, durably holds exactly what this side holds."""
        state = self._sessions[session]
        return state.is_told and state.durable == self._own and not state.brought

    def is_eager(self, session: SessionId) -> bool:
        """Whether new entries are pushed on an open session; if not, they are only announced."""
        return self._sessions[session].is_eager

    # --- What the remote side says ----------------------------------------------------------------------------------------------

    def receive(self, session: SessionId, data: bytes, now_ms: int) -> list[Effect]:
        """Takes one message.

        Raises:
            RemoteProtocolError: the session is to be closed with its code; no other session is touched.
        """
        state = self._sessions.get(session)
        if state is None:
            return []
        message = decode_message(data)
        match message:
            case Runs() | Block():
                return [Ingest(session, message)]
            case VectorPart():
                return self._receive_vector(session, state, message, now_ms)
            case Have():
                return self._receive_have(session, state, message.vector, now_ms)
            case Want() | Ask() if not state.is_told:
                return []  # who was told of nothing has nothing to ask for
            case Want():
                state.graft()
                # Who asks for what is held no more is told what is held, or would wait for it.
                gone = {item.log for item in message.items if lacks(self._own.get(item.log, {}), item.tip)}
                state.announce |= gone & self._own.keys()
                state.owes_vector |= not gone <= self._own.keys()  # and whoever invents logs has none of them kept
                return [Locate(session, message), *([Due(session)] if gone else [])]
            case Ask():
                return [LookUp(session, message.hashes)]
            case Prune():
                state.is_eager = False  # it has another way to what is pushed here
                return []

    def _receive_vector(self, session: SessionId, state: SessionState, part: VectorPart, now_ms: int) -> list[Effect]:
        state.vector_parts.update(part.vector)
        if len(state.vector_parts) > VECTOR_LOGS_MAX or sum(map(len, state.vector_parts.values())) > VECTOR_TIPS_MAX:
            raise RemoteProtocolError(CloseCode.TOO_LARGE, "logs or tips in a vector")
        if part.more:
            return []
        vector, state.vector_parts = state.vector_parts, {}
        state.state_vector(vector)
        effects = self._asking.restated(session, state, state.asks.keys(), now_ms)
        return [*effects, Compare(session, vector), *self._check_equal(session, state)]

    def _receive_have(self, session: SessionId, state: SessionState, vector: Vector, now_ms: int) -> list[Effect]:
        tips = sum(len(tips) for log, tips in state.durable.items() if log not in vector) + sum(map(len, vector.values()))
        if len(state.durable.keys() | vector.keys()) > VECTOR_LOGS_MAX or tips > VECTOR_TIPS_MAX:
            raise RemoteProtocolError(CloseCode.TOO_LARGE, "logs or tips in a vector")
        state.state_durable(vector)
        effects = self._asking.restated(session, state, vector.keys() & state.asks.keys(), now_ms)
        return effects + self._asking.note_named(state, vector, now_ms) + self._check_equal(session, state)

    # --- What the store answers -------------------------------------------------------------------------------------------------

    def compared(self, session: SessionId, comparison: Comparison, now_ms: int) -> list[Effect]:
        """The store has compared a remote vector: asks for what is missing and not asked for elsewhere."""
        if session not in self._sessions:
            return []
        return self._asking.compared(session, comparison, now_ms)

    def located(
        self, session: SessionId, ranges: Mapping[LogKey, tuple[int, int]], cursor: Cursor, staged: Mapping[bytes, int]
    ) -> list[Effect]:
        """The store has found what a WANT asks for: `ranges` per log (from, to), none of it at or before `cursor`."""
        state = self._sessions.get(session)
        if state is None or not ranges:
            return []
        if state.stream.is_reading:
            state.stream.waiting.append(Located(ranges, cursor, staged))
            return []
        self._serve(state, Located(ranges, cursor, staged))
        return [Readable(session)]

    def _serve(self, state: SessionState, wanted: Located) -> None:
        """Answers a WANT up to what this side holds now, so that what comes next can be pushed: who asks was behind."""
        ranges: dict[LogKey, tuple[int, int]] = {}
        for log, (first, last) in wanted.ranges.items():
            tips = self._own.get(log, {})
            ranges[log] = (first, max(last, *tips.values()) if len(tips) == 1 else last)
            state.raise_view(log, ranges[log][1])
        state.stream.serve(Located(ranges, wanted.cursor, wanted.staged))

    def looked_up(self, session: SessionId, vector: Vector, untold: Sequence[bytes] = ()) -> list[Effect]:
        """The store has found the logs that an ASK asked about, and those of its entries that count and nobody is told of."""
        state = self._sessions.get(session)
        if state is None:
            return []
        logs = vector.keys() & self._own.keys()
        state.announce |= logs
        state.stream.untold = tuple(untold)
        return [*([Due(session)] if logs else []), *([Readable(session)] if untold else [])]

    def ingested(self, session: SessionId, outcome: Ingested, now_ms: int) -> list[Effect]:
        """The store has taken a message of this session in; what became durable was told by `committed` before."""
        state = self._sessions.get(session)
        if state is None:
            return []
        self._asking.took(state, outcome, now_ms)
        effects = self._pushing.took(session, outcome, now_ms)
        for log, tip in outcome.held.items():
            state.prove_durable(log, tip)
        not_held = dict((*outcome.void_tips, *outcome.blocked_tips))
        state.not_held.update(not_held)
        state.note_held(self._own, not_held.keys())
        for are_held, tips in ((True, outcome.held.items()), (False, outcome.void_tips)):
            effects += self._asking.arrived([Committed(0, log, *tip) for log, tip in tips], now_ms, are_held=are_held)
        if outcome.void:
            effects += self._retry_parked(outcome.void, now_ms)
        for log in outcome.new & state.blockless:
            state.blockless.discard(log)
            effects += self._asking.ask_again(state, log, now_ms)
        for parked in outcome.parked:
            if parked.tip is not None:
                state.note_brought(*parked.tip)
            if state.park(parked, now_ms):
                effects += self._timers.set(TIMER_GAPS, now_ms + GAP_DELAY_MS)
            elif parked.tip is not None:
                effects += self._asking.note_gap(state, *parked.tip, now_ms)
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
        named = {entry.log for entry in entries}
        changed = self._hold(entries, vector)
        # One entry does not tell all tips, nor what came with it, void, and is held since; and acts end or restore what entries
        # of other logs count for.
        last = {entry.log: entry.hash for entry in entries}
        restated = {log for log in named if self._own.get(log, {}).keys() != {last[log]}} | changed - named
        self._pushing.note_origin((name for entry in entries for name in entry.hashes), origin)
        effects: list[Effect] = []
        for session, state in self._sessions.items():
            unsent = entries
            if session == origin:
                for entry in entries:
                    state.raise_view(entry.log, entry.seq)
            elif state.is_told:
                done, unsent = self._pushing.push(session, entries, None if session in congested else message)
                effects += done
            state.note_held(self._own, restated | changed)
            if state.is_told:
                # Whoever is not sent an entry is told of it, even if it has it: it does not know that this side has it too.
                effects += self._announce(state, {entry.log for entry in unsent} | restated, now_ms)
            state.equal = False  # until it is looked at again
        effects += self._asking.arrived(entries, now_ms, are_held=True)
        # What was here and void, and so not asked for, may count by the acts that came, and lack its body (SPEC: E-29).
        for state in self._sessions.values() if vector is not None else ():
            effects += self._asking.note_named(state, [*{**state.durable, **state.not_held}], now_ms)
        return effects + self._retry_parked((name for entry in entries for name in entry.hashes), now_ms)

    def _hold(self, entries: Sequence[Committed], vector: Mapping[LogKey, tuple[Tip, ...]] | None) -> Set[LogKey]:
        """Notes what this side holds now; returns the logs whose tips changed, where `entries` alone do not tell that."""
        if vector is None:
            for entry in entries:
                self._own[entry.log] = {entry.hash: entry.seq}
            return frozenset()
        before = dict(self._own)
        self._own.clear()
        self._own.update(holdings_of(vector))
        return {log for log in before.keys() | self._own.keys() if before.get(log) != self._own.get(log)}

    def _announce(self, state: SessionState, logs: Set[LogKey], now_ms: int) -> list[Effect]:
        state.announce |= logs
        return [*self._timers.set(TIMER_HAVE, now_ms + HAVE_DELAY_MS)] if logs else []

    def _retry_parked(self, arrived: Iterable[bytes], now_ms: int) -> list[Effect]:
        """Hands what waited for these entries to the store again.

        A tip that is still missing after GAP_DELAY_MS is asked for.
        """
        effects: list[Effect] = []
        if not any(state.parked for state in self._sessions.values()):
            return effects
        hashes = set(arrived)
        for session, state in self._sessions.items():
            for parked in state.unpark(hashes):
                effects.append(Ingest(session, parked.packed))
                if parked.tip is not None:
                    effects += self._asking.note_gap(state, *parked.tip, now_ms)
        return effects

    def _check_equal(self, session: SessionId, state: SessionState) -> list[Effect]:
        equal = self.is_equal(session)
        if equal:
            state.drop_not_held()
        became, state.equal = equal and not state.equal, equal
        return [BecameEqual(session)] if became else []

    # --- What is said and sent --------------------------------------------------------------------------------------------------

    def take_due(self, session: SessionId) -> list[bytes]:
        """What is to be told and asked on this session now, as messages to be sent in this order; see Due."""
        state = self._sessions.get(session)
        if state is None:
            return []
        messages: list[bytes] = []
        logs, state.announce = state.announce, set()
        if state.owes_vector or logs - self._own.keys():  # no HAVE can say that nothing of a log is held any more
            messages += encode_vector_parts(self.vector())
        else:
            messages += encode_have_parts(vector_of(self._own, logs))
        if state.owes_prune:
            messages.append(encode_prune())
        wants, state.wants = state.open_wants(), []
        messages += encode_wants(wants, state.staged)
        if state.owes_ask:
            here = {parked.tip[1][1] for parked in state.parked if parked.tip is not None}
            missing = sorted({name for parked in state.parked for name in parked.missing} - here)[:ASK_HASHES_MAX]
            messages += [encode_ask(missing)] if missing else []
        state.owes_vector = state.owes_prune = state.owes_ask = False
        return messages

    def next_read(self, session: SessionId) -> Read | None:
        """What to read for this session's stream, or None if there is nothing or a read is under way."""
        state = self._sessions.get(session)
        return None if state is None else state.stream.next_read()

    def read_done(self, session: SessionId, chunk: Chunk) -> list[Effect]:
        """The store has read the next part of a stream."""
        state = self._sessions.get(session)
        if state is None:
            return []
        state.stream.read_done(chunk)
        for log, seq in chunk.brings.items():
            state.raise_view(log, seq)
        waiting, state.stream.waiting = state.stream.waiting, []
        for wanted in waiting:
            self._serve(state, wanted)
        effects: list[Effect] = [Send(session, message, bulk=True) for message in chunk.messages]
        return [*effects, Readable(session)] if state.stream.has_more else effects

    # --- Time -------------------------------------------------------------------------------------------------------------------

    def timer_expired(self, timer: str, now_ms: int) -> list[Effect]:
        """A timer that was set has run out."""
        self._timers.expired(timer)
        if timer == TIMER_HAVE:
            effects: list[Effect] = []
            for session, state in self._sessions.items():
                effects += [Due(session)] if state.announce else []
                effects += self._check_equal(session, state)
            return effects
        if timer == TIMER_GAPS:
            return self._asking.gaps_expired(now_ms)
        if timer == TIMER_WANTS:
            return self._asking.wants_expired(now_ms)
        raise LocalProtocolError(f"no timer {timer}")
