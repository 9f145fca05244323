"""What is asked of whom: a log of one session at a time, and what does not come by itself (SPEC: R-6, R-11, R-13)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from peersd_protocol.constants import ASKED_MAX, GAP_DELAY_MS, LEAVE_WAIT_MS, WANT_TIMEOUT_MS
from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.replication_effects import Committed, Compare, Comparison, Due, Effect, Ingest, Ingested, SessionId
from peersd_protocol.replication_session import Gap, Holdings, SessionState, Timers, lacks
from peersd_protocol.vectors import Tip, Vector

TIMER_GAPS: Final = "gaps"
TIMER_WANTS: Final = "wants"


class Asking:
    """The WANTs under way, and the gaps that may become some.

    Of each session, for each log of which it holds something that is not here, one of these is true: it is asked for it; one of
    its gaps notes the log; or the store is comparing. So nothing is forgotten when another session, that was asked first, ends.

    Args:
        own: what this side holds.
        sessions: those of the machine.
        timers: of the machine.
    """

    def __init__(self, own: Holdings, sessions: Mapping[SessionId, SessionState], timers: Timers) -> None:
        self._own = own
        self._sessions = sessions
        self._timers = timers
        self._asked: dict[LogKey, SessionId] = {}
        self._progress_ms = 0
        """When any session last brought something that it was asked for."""

    # --- What sessions hold -----------------------------------------------------------------------------------------------------

    def note_named(self, session: SessionState, logs: Iterable[LogKey], now_ms: int) -> list[Effect]:
        """The remote side named its tips of these logs; what is new among them is left GAP_DELAY_MS to come by itself."""
        effects: list[Effect] = []
        for log in logs:
            own_seq = max(self._own.get(log, {}).values(), default=0)
            # A lone tip below ours is a message that is late; of several any may be the end of an unknown branch.
            is_forked = len(session.durable.get(log, {})) > 1
            tip = next((tip for tip in session.unknown_tips(self._own, log) if is_forked or tip[0] >= own_seq), None)
            if tip is not None:
                effects += self.note_gap(session, log, tip, now_ms)
        return effects

    def note_gap(self, session: SessionState, log: LogKey, tip: Tip, now_ms: int) -> list[Effect]:
        """The remote side holds this tip, and it is not here."""
        if log in session.gaps or len(session.gaps) >= ASKED_MAX:
            return []
        session.gaps[log] = Gap(tip, now_ms)
        return [*self._timers.set(TIMER_GAPS, now_ms + GAP_DELAY_MS)]

    # --- Asking -----------------------------------------------------------------------------------------------------------------

    def compared(self, id_: SessionId, comparison: Comparison, now_ms: int) -> list[Effect]:
        """The store has compared what a session holds: asks it for the logs that no session is being asked for.

        What it holds of the others has to wait: what comes of them meanwhile would come twice. Who may not be told what is held
        here is not told by what it is asked either, so it sends those logs from their beginnings.
        """
        session = self._sessions[id_]
        session.wants = session.open_wants()
        effects: list[Effect] = []
        begun: set[LogKey] = set()
        for item in comparison.wants:
            if item.log not in self._asked and len(session.asks) < ASKED_MAX and self._may_ask(session, item.log):
                self._asked[item.log] = id_
                session.asks[item.log] = set()
                begun.add(item.log)
            if item.log in begun:
                session.asks[item.log].add(item.tip)
                session.answers[item.log] = max(session.answers.get(item.log, 0), item.tip[0])
                session.wants.append(item if session.is_told else replace(item, have=()))
            else:
                effects += self.note_gap(session, item.log, item.tip, now_ms)
        if begun:
            session.graft()
            session.staged = comparison.staged if session.is_told else ()
            session.progress_ms = now_ms
            effects += [Due(id_), *self._timers.set(TIMER_WANTS, now_ms + WANT_TIMEOUT_MS)]
        return effects

    def _may_ask(self, session: SessionState, log: LogKey) -> bool:
        """Whether a session may be asked for a log now.

        Rows that are here would all come again by one that may not be told of them, and do not say who is a member.
        """
        return session.is_told or log.kind is not Kind.DATA or log not in self._own

    def took(self, session: SessionState, outcome: Ingested, now_ms: int) -> None:
        """A session brought a message. What it was not asked for is no progress, however much it brings of it."""
        if outcome.new:
            session.news_ms = now_ms
        if not outcome.new.isdisjoint(session.asks):
            session.progress_ms = self._progress_ms = now_ms

    def arrived(self, entries: Iterable[Committed], now_ms: int, *, are_held: bool) -> list[Effect]:
        """These entries are here, all held or all void."""
        effects: list[Effect] = []
        for entry in entries:
            log = entry.log
            if log in self._asked:
                asks = self._sessions[self._asked[log]].asks
                asks[log].difference_update([tip for tip in asks[log] if entry.has(tip)])
                if not asks[log]:
                    del asks[log], self._asked[log]
            for session in self._sessions.values():
                session.note_arrived(entry, is_held=are_held)
                gap = session.gaps.get(log)
                if gap is not None and entry.has(gap.tip):
                    del session.gaps[log]
                    effects += self.note_named(session, (log,), now_ms)
        return effects

    # --- When it does not come --------------------------------------------------------------------------------------------------

    def restated(self, id_: SessionId, session: SessionState, logs: Iterable[LogKey], now_ms: int) -> list[Effect]:
        """A session said what it holds of logs that it is asked for: what it holds no more is asked of others at once."""
        moved: dict[LogKey, SessionId] = {}
        for log in list(logs):
            tips = session.durable.get(log, {})
            session.asks[log] = {tip for tip in session.asks[log] if not lacks(tips, tip)}
            if not session.asks[log]:
                del session.asks[log], self._asked[log]
                moved[log] = id_
        return self._ask_for_gaps(now_ms, moved) if moved else []

    def ask_again(self, session: SessionState, log: LogKey, now_ms: int) -> list[Effect]:
        """What a session was asked for of this log has come, and could not be kept."""
        tips = session.asks.pop(log, None)
        if tips is None:
            return []
        del self._asked[log]
        return self.note_gap(session, log, max(tips), now_ms)

    def session_closed(self, id_: SessionId, session: SessionState, now_ms: int) -> list[Effect]:
        """A session has ended: what it was asked for is asked of others now."""
        for log in session.asks:
            del self._asked[log]
        return self._ask_for_gaps(now_ms, dict.fromkeys(session.asks, id_))

    def gaps_expired(self, now_ms: int) -> list[Effect]:
        """Asks for the gaps that have been open for GAP_DELAY_MS, and after what parked runs lack."""
        effects = self._ask_for_gaps(now_ms, {})
        for id_, session in self._sessions.items():
            if self._parts_ms(session) <= now_ms:
                effects += [Ingest(id_, parting.packed, is_final=True) for parting in session.unpark_partings()]
        parked = {id_: session for id_, session in self._sessions.items() if session.parked}
        # What WANTs bring may be what is lacking. Once they bring nothing they may wait for that, moved from session to session.
        if not any(session.asks and now_ms - session.progress_ms < GAP_DELAY_MS for session in self._sessions.values()):
            for id_, session in parked.items():
                if session.may_ask(now_ms):
                    session.owes_ask = True
                    effects.append(Due(id_))
        if parked:
            due_ms = [session.asks_from_ms for session in parked.values()]
            due_ms += [self._parts_ms(session) for session in parked.values() if session.has_partings]
            effects += self._timers.set(TIMER_GAPS, max(min(due_ms), now_ms + GAP_DELAY_MS))
        return effects

    def _parts_ms(self, session: SessionState) -> int:
        """When the partings that a session brought have waited for long enough."""
        return max(session.news_ms, self._progress_ms) + LEAVE_WAIT_MS

    def _ask_for_gaps(self, now_ms: int, moved: Mapping[LogKey, SessionId]) -> list[Effect]:
        """Has the store compare what sessions hold of the logs whose gaps are due.

        Args:
            now_ms: monotonic milliseconds.
            moved: logs that are asked of others now, whatever the age of their gaps, with the session that did not bring them.
        """
        best: dict[LogKey, tuple[tuple[bool, int], SessionId]] = {}
        for id_, session in self._sessions.items():
            for log, gap in list(session.gaps.items()):
                is_due = now_ms - gap.since_ms >= GAP_DELAY_MS or moved.get(log, id_) != id_
                if log in self._asked or not is_due or not self._may_ask(session, log):
                    continue
                unknown = session.unknown_tips(self._own, log)
                if not unknown:
                    del session.gaps[log]
                    continue
                # Of a lazy session only where no eager one has it: asking makes it eager, and so changes the tree.
                rank = (session.is_eager, unknown[-1][0])
                if log not in best or rank > best[log][0]:
                    best[log] = (rank, id_)
        compare: dict[SessionId, Vector] = {}
        for log, (_, id_) in best.items():
            session = self._sessions[id_]
            del session.gaps[log]
            compare.setdefault(id_, {})[log] = tuple(session.unknown_tips(self._own, log))
        effects: list[Effect] = [Compare(id_, vector) for id_, vector in compare.items()]
        due_ms = [gap.since_ms + GAP_DELAY_MS for session in self._sessions.values() for gap in session.gaps.values()]
        if due_ms:
            effects += self._timers.set(TIMER_GAPS, min((at for at in due_ms if at > now_ms), default=now_ms + GAP_DELAY_MS))
        return effects

    def wants_expired(self, now_ms: int) -> list[Effect]:
        """Moves what was asked of sessions that bring nothing to others, or in time back to them where nobody else has it."""
        moved: dict[LogKey, SessionId] = {}
        for id_, session in self._sessions.items():
            if not session.asks or now_ms - session.progress_ms < WANT_TIMEOUT_MS:
                continue
            for log, tips in session.asks.items():
                del self._asked[log]
                session.gaps[log] = Gap(max(tips), now_ms)
                moved[log] = id_
            session.asks.clear()
        effects = self._ask_for_gaps(now_ms, moved) if moved else []
        if self._asked:
            least_ms = min(session.progress_ms for session in self._sessions.values() if session.asks)
            effects += self._timers.set(TIMER_WANTS, least_ms + WANT_TIMEOUT_MS)
        return effects
