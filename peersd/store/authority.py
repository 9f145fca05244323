"""What the acts held here amount to, and which entries count by them (DESIGN 6 and 10)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import apsw

from peersd.store.branches import EntryRow, LogRow, Path
from peersd.store.log import Log, unpack_links
from peersd_protocol.act_bodies import decode_body
from peersd_protocol.acts import TAKING_ACTS, Cut, RevokeInvite, UnknownAct
from peersd_protocol.cuts import take_of
from peersd_protocol.entries import Act, Header, Kind, LogKey
from peersd_protocol.identity import decode_or_none
from peersd_protocol.membership import GroupState, evaluate

Past: TypeAlias = frozenset[bytes]
"""A control past, by the heads that a log has named up to an entry; evaluation takes all acts before them as named too."""

NO_PAST: Past = frozenset()

NO_EPOCH = b""
"""An epoch that no log has."""

_VERDICTS_MAX = 4096
"""Verdicts remembered of each kind (guess): one for each author's past and log in use."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What one act that takes a right leaves of a log.

    Attributes:
        known: the tips it names that are here, and all before them.
        unknown: the greatest sequence of the others, 0 without any: as long as a tip is not here, it counts by its sequence.
    """

    known: Path
    unknown: int

    def admits(self, branch: int | None, seq: int) -> bool:
        """Whether the entry at a place is left; `branch` is None for one that is not here yet, so that no tip here follows it."""
        return seq <= self.unknown or (branch is not None and seq <= self.known.get(branch, 0))


class Authority:
    """The acts of a group and what they amount to.

    Args:
        connection: the writer of the group's file.
        log: the group's logs.

    Attributes:
        state: the group, evaluated.
        may_have_fallen: whether, since it was last reset, acts came that may end what other entries count for.
        stale: numbers of logs whose verdicts by sequence alone may have changed, because a tip that a cut names has come.
    """

    def __init__(self, connection: apsw.Connection, log: Log) -> None:
        self._connection = connection
        self._log = log
        self.reload()

    def reload(self) -> None:
        """Reads all acts anew and evaluates them; after a rollback too."""
        self._acts: dict[bytes, Act] = {}
        self._past_at: dict[int, Past] = {}
        self._first_past: dict[tuple[int, int], Past] = {}
        self._act_ids: dict[bytes, bytes] = {}
        self._cuts: dict[bytes, tuple[Cut, ...]] = {}
        self._named: set[bytes] = set()
        self.may_have_fallen = False
        self.stale: set[int] = set()
        for row in self._log.logs():
            if row.key.kind is Kind.DATA:
                continue
            for _, entry, _, _ in self._log.entries("log = ? ORDER BY id", (row.id,)):
                self._note(Act(entry.header, decode_body(self._log.blocks(entry.header.hash, entry.body))))
        self._evaluate()

    def add(self, acts: Iterable[Act]) -> None:
        """Takes acts in and evaluates them all anew."""
        before = self.state
        for act in acts:
            self._note(act)
            # Only what takes a right, or is not understood, can end what other entries count for.
            if isinstance(decode_or_none(act), (*TAKING_ACTS, UnknownAct)):
                self.may_have_fallen = True
        self._evaluate()
        if not before.standing <= self.state.standing or before.void & self.state.standing:
            self.may_have_fallen = True

    def _note(self, act: Act) -> None:
        self._acts[act.hash] = act
        # Of two acts with one id, which somebody made on purpose, the lower hash has it on every replica.
        self._act_ids[act.hash[:16]] = min(act.hash, self._act_ids.get(act.hash[:16], act.hash))
        cuts = _cuts_of(act)
        if cuts:
            self._cuts[act.hash] = cuts
            self._named.update(cut.hash for cut in cuts)

    def _evaluate(self) -> None:
        self.state: GroupState = evaluate(self._log.group, self._acts.values())
        self._taken_from = self.state.evaluation.takes_on.keys() if self.state.evaluation else ()
        self._may_write: Callable[[bytes, bytes, Past], bool] = lru_cache(_VERDICTS_MAX)(self.state.may_write)
        self._limits: Callable[[bytes, LogKey, Past], tuple[Limit, ...]] = lru_cache(_VERDICTS_MAX)(self._find_limits)

    def is_in_past(self, act: bytes, past: Past) -> bool:
        """Whether an act is among those that a control past consists of."""
        evaluation = self.state.evaluation
        if evaluation is None or act not in evaluation.index.position:
            return False
        return bool(evaluation.index.closure(past) >> evaluation.index.position[act] & 1)

    def act_of(self, act_id: bytes) -> bytes | None:
        """The hash of the act with this 16-byte act id, or None if it is not here."""
        return self._act_ids.get(act_id)

    # --- The control past of data entries ---------------------------------------------------------------------------------------

    def past_after(self, prev: EntryRow | None, heads: Iterable[bytes]) -> Past:
        """The control past of an entry that follows `prev` and names `heads`."""
        before = NO_PAST if prev is None else self._past_of(prev)
        named = frozenset(heads)
        return before | named if named else before

    def remember_past(self, id_: int, past: Past, prev: EntryRow | None) -> None:
        """Keeps the past of a log's newest entry, so that the next one need not be worked out from the start."""
        if prev is not None:
            self._past_at.pop(prev.id, None)
        self._past_at[id_] = past

    def _past_of(self, row: EntryRow) -> Past:
        past = self._past_at.get(row.id)
        if past is not None:
            return past
        heads: set[bytes] = set()
        query = "SELECT heads FROM _peers_entry WHERE log = ? AND branch = ? AND seq <= ? AND heads IS NOT NULL"
        for branch, seq in self._log.log_by_id(row.log).path(row.branch, row.seq).items():
            for (packed,) in self._connection.execute(query, (row.log, branch, seq)):
                heads.update(unpack_links(packed))
        self._past_at[row.id] = frozenset(heads)
        return self._past_at[row.id]

    def first_past(self, row: LogRow, branch: int) -> Past:
        """The control past of a log's first entry, as an entry on this branch has it."""
        root = row.root(branch)
        if (row.id, root) not in self._first_past:
            query = "SELECT heads FROM _peers_entry WHERE log = ? AND branch = ? AND seq = 1"
            packed = self._connection.execute(query, (row.id, root)).get
            self._first_past[row.id, root] = frozenset(unpack_links(packed if isinstance(packed, bytes) else None))
        return self._first_past[row.id, root]

    # --- Who may write, and how far ---------------------------------------------------------------------------------------------

    def may_write(self, user: bytes, device: bytes, past: Past) -> bool:
        """Whether a data entry with this control past has the role, by the acts that stand now, whatever the cuts."""
        return self._may_write(user, device, past)

    def limits(self, user: bytes, log: LogKey, first_past: Past) -> tuple[Limit, ...]:
        """What each act that takes a right leaves of a user's entries in a log; nothing where none takes any."""
        return self._limits(user, log, first_past) if user in self._taken_from else ()

    def counts(self, header: Header, prev: EntryRow | None, past: Past) -> bool:
        """Whether a data entry that is not here yet, with this control past, is admitted by the acts that stand now."""
        if not self._may_write(header.user, header.device, past):
            return False
        first_past = past if prev is None else self.first_past(self._log.log_by_id(prev.log), prev.branch)
        return all(limit.admits(None, header.seq) for limit in self.limits(header.user, header.log, first_past))

    def may_write_now(self, user: bytes, device: bytes) -> bool:
        """Whether a data entry that a device wrote for a user now, in a new epoch if need be, would count."""
        heads = frozenset(self._log.act_heads)
        return self._may_write(user, device, heads) and not self.limits(user, LogKey(Kind.DATA, b"", device, NO_EPOCH), heads)

    def _find_limits(self, user: bytes, key: LogKey, first_past: Past) -> tuple[Limit, ...]:
        row = self._log.log(key)
        limits: list[Limit] = []
        for tips in self.state.limits(user, key, first_past):
            known: Path = {}
            unknown = 0
            for tip in tips:
                found = self._log.find(tip.hash) if row is not None else None
                if found is None or row is None or found.log != row.id or found.seq != tip.seq:
                    unknown = max(unknown, tip.seq)
                    continue
                for branch, seq in row.path(found.branch, found.seq).items():
                    known[branch] = max(seq, known.get(branch, 0))
            limits.append(Limit(known, unknown))
        return tuple(limits)

    # --- Tips that cuts name ----------------------------------------------------------------------------------------------------

    def is_named(self, hash_: bytes) -> bool:
        """Whether a cut names this entry. Then it has to be held, and `note_named` be called when it comes."""
        return hash_ in self._named

    def names_any(self, hashes: Iterable[bytes]) -> bool:
        """Whether a cut names one of these entries."""
        return not self._named.isdisjoint(hashes)

    def note_named(self, row: LogRow) -> None:
        """A tip that a cut names has come: who counted by its sequence alone is judged by the branch it is on now."""
        self._limits = lru_cache(_VERDICTS_MAX)(self._find_limits)
        if row.forked:
            self.stale.add(row.id)

    def named_tips(self) -> list[Cut]:
        """The tips that the cuts of standing acts name."""
        return [cut for act, cuts in self._cuts.items() if act in self.state.standing for cut in cuts]


def _cuts_of(act: Act) -> tuple[Cut, ...]:
    """The tips that an act's cuts name of the user it takes from."""
    body = decode_or_none(act)
    if not isinstance(body, TAKING_ACTS) or isinstance(body, RevokeInvite):
        return ()
    return tuple(tip for tips in take_of(0, act.header.acting_user, body).tips.values() for tip in tips)
