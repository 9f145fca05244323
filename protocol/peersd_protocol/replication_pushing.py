"""Whom new entries are pushed to: along a tree that duplicates prune and WANTs mend (SPEC: R-10, R-16, R-17).

Plumtree: Leitão, Pereira and Rodrigues, "Epidemic Broadcast Trees", 2007.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from peersd_protocol.constants import ORIGINS_MAX, PRUNE_INTERVAL_MS
from peersd_protocol.replication_effects import Committed, Due, Effect, Ingested, Readable, Send, SessionId
from peersd_protocol.replication_session import SessionState


class Pushing:
    """Pushes, and which sessions are eager.

    Args:
        sessions: those of the machine; looked at, and their `is_eager` changed.
    """

    def __init__(self, sessions: Mapping[SessionId, SessionState]) -> None:
        self._sessions = sessions
        self._origins: OrderedDict[bytes, SessionId | None] = OrderedDict()

    def note_origin(self, hashes: Iterable[bytes], origin: SessionId | None) -> None:
        """Remembers where entries came from first; None is this device."""
        for name in hashes:
            self._origins.setdefault(name, origin)
        while len(self._origins) > ORIGINS_MAX:
            self._origins.popitem(last=False)

    def push(
        self, id_: SessionId, entries: Sequence[Committed], message: bytes | None
    ) -> tuple[list[Effect], Sequence[Committed]]:
        """Pushes what the remote side lacks and can apply.

        Args:
            id_: the session.
            entries: new ones, in the order in which the store took them in.
            message: a RUNS message of exactly these, or None where they have to be read.

        Returns:
            What to do, and the entries that were not pushed: they are to be announced.
        """
        session = self._sessions[id_]
        if not session.is_eager:
            return [], entries
        view = session.view
        pushed: list[Committed] = []
        unsent: list[Committed] = []
        for entry in entries:
            if entry.first_seq - 1 <= view.get(entry.log, 0) < entry.seq and all(
                view.get(log, 0) >= seq for log, seq in entry.requires
            ):
                pushed.append(entry)
                view[entry.log] = entry.seq
            else:
                unsent.append(entry)
        if not pushed:
            return [], unsent
        if message is not None and not unsent and session.stream.cursor is None:
            return [Send(id_, message)], unsent
        session.stream.join(pushed)
        return [Readable(id_)], unsent

    def took(self, id_: SessionId, outcome: Ingested, now_ms: int) -> list[Effect]:
        """A session brought a message. If all of it was here before, from elsewhere, the session's pushes are not needed.

        Answers to WANTs show nothing, and the other way has to be one that goes on pushing: else this side could be cut off. Who
        may not be told what is held here is not told that either.
        """
        session = self._sessions[id_]
        if outcome.new or session.asks or not session.is_told:
            return []
        if not any(
            tip[0] > session.answers.get(log, 0) and self._has_other_way(id_, tip[1]) for log, tip in outcome.held.items()
        ):
            return []
        was_just_said = session.pruned_ms is not None and now_ms - session.pruned_ms < PRUNE_INTERVAL_MS
        if not session.is_eager and was_just_said:
            return []  # it was sent before the other side heard of that
        session.is_eager = False
        session.pruned_ms = now_ms
        session.owes_prune = True
        return [Due(id_)]

    def _has_other_way(self, id_: SessionId, name: bytes) -> bool:
        if name not in self._origins:
            return False
        origin = self._origins[name]
        if origin is None:
            return True  # it was written here: the remote side got it from others
        return origin != id_ and origin in self._sessions and self._sessions[origin].is_eager
