"""Brings the states of stored entries in line with what the acts amount to now, in both directions (SPEC: A-28, DESIGN 6)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from operator import attrgetter
from typing import NamedTuple, TypeAlias, cast

import apsw

from peersd.store.authority import Authority, Limit, Past
from peersd.store.log import Log, LogRow, State, unpack_links
from peersd.store.segments import Segment
from peersd_protocol.act_index import control_past
from peersd_protocol.entries import Kind

_SHOWN = (State.APPLIED, State.ASIDE)

_ENTRIES = """SELECT seq, seq, id, author, state, heads, substr(body, 1, 2) = x'9202' FROM _peers_entry
    WHERE log = ? AND branch = ? ORDER BY seq"""
"""Of a branch; the last column tells whether the body is withheld (an array of two, the first 2)."""

_HELD_HEADS = f"""SELECT heads FROM _peers_entry
    WHERE heads IS NOT NULL AND state > 0 AND log IN (SELECT id FROM _peers_log WHERE kind = {Kind.DATA.value})"""
"""What held data names. Acts that are held for the sake of others until now are no reason to hold what they name."""
_HELD_DEPS = "SELECT deps FROM _peers_entry WHERE deps IS NOT NULL AND state > 0"
_ANY_VOID = "SELECT EXISTS (SELECT 1 FROM _peers_entry WHERE state IN (0, 3, 4) AND state IN (0, 3))"
_VOID_ACTS = "SELECT id, hash, state FROM _peers_entry WHERE log = ? AND state IN (0, 3, 4) AND state IN (0, 3)"

_LOGS_WITH_ANCESTORS = "SELECT DISTINCT log FROM _peers_entry WHERE state IN (0, 3, 4) AND state = 3"
_RELEASE = "UPDATE _peers_entry SET state = 0 WHERE log = ? AND state IN (0, 3, 4) AND state = 3"

_HOLD = """UPDATE _peers_entry SET state = 3
    WHERE log = ? AND branch = ? AND state IN (0, 3, 4) AND state = 0 AND seq <= ?"""


_EntryFields: TypeAlias = tuple[int, int, int, int, int, "bytes | None", bool]


class _Stored(NamedTuple):
    """An entry of a branch, or a segment of entries.

    Attributes:
        first, seq: sequences of its first and last entry.
        id: position of its last one.
        author, state: of all of them.
        heads: what an entry names, packed.
        lacks_body: whether an entry is kept as a header.
        segment: None for an entry.
    """

    first: int
    seq: int
    id: int
    author: int
    state: int
    heads: bytes | None
    lacks_body: bool
    segment: Segment | None


class Restating:
    """Re-evaluates stored entries, inside the caller's transaction.

    Args:
        connection: the writer of the group's file.
        log, authority: of the group.
    """

    def __init__(self, connection: apsw.Connection, log: Log, authority: Authority) -> None:
        self._connection = connection
        self._log = log
        self._authority = authority
        self._has_flipped_data = False
        self._has_changed_rows = False

    def restate(self) -> bool:
        """Brings the states of all stored entries in line with the evaluation.

        Returns:
            Whether any data entry began or ceased to be shown, so that the tables have to be rebuilt.
        """
        authority = self._authority
        flipped = self._restate_acts()
        stale, authority.stale = authority.stale, set()
        if not (flipped or authority.may_have_fallen or stale):
            return False
        self._has_flipped_data = self._has_changed_rows = False
        if authority.may_have_fallen or stale:
            self._release_ancestors()
        for row in self._log.logs():
            if row.key.kind is Kind.DATA and (authority.may_have_fallen or row.id in stale):
                self._restate_data(row)
        authority.may_have_fallen = False
        self.hold_ancestors()
        return self._has_changed_rows

    def _restate_acts(self) -> bool:
        """Brings the states of acts in line; whether a void one is held all the same is seen afterwards."""
        flipped = False
        for row in self._log.logs():
            if row.key.kind is Kind.DATA:
                continue
            flips: dict[State, list[int]] = {State.APPLIED: [], State.VOID: []}
            query = "SELECT id, hash, state FROM _peers_entry WHERE log = ?"
            for id_, hash_, state in self._connection.execute(query, (row.id,)):
                stands = hash_ in self._authority.state.standing
                if stands != (state == State.APPLIED) and (stands or state != State.ANCESTOR):
                    flips[State.APPLIED if stands else State.VOID].append(id_)
            self._flip(row, flips)
            flipped |= any(flips.values())
        return flipped

    def _flip(self, row: LogRow, flips: Mapping[State, Sequence[int]]) -> None:
        for state, ids in flips.items():
            self._log.set_state(ids, state)
        if any(flips.values()):
            self._log.refresh_tips(row)

    def _restate_data(self, row: LogRow) -> None:
        """Re-evaluates one data log."""
        while True:
            flips: dict[State, list[int]] = {state: [] for state in State}
            segments = self._judge(row, flips)
            if not segments:
                break
            for segment in segments:
                self._log.take_apart(segment)
        self._flip(row, flips)
        self._has_flipped_data |= any(flips.values())

    def _judge(self, row: LogRow, flips: Mapping[State, list[int]]) -> list[Segment]:
        """Finds which entries of a data log change their state. Neighbours by one author with one control past share a verdict.

        Args:
            row: the log.
            flips: gets the entries by their new states.

        Returns:
            The segments of which some entries would: each of them has to be taken apart, and the log judged again.
        """
        apart: list[Segment] = []
        # What is so after the entry where a branch forks off: the control past, and whether a body is missing up to it.
        forks: dict[tuple[int | None, int], tuple[Past, bool]] = {
            (branch.parent, branch.first - 1): (frozenset(), False) for branch in row.branches
        }
        for number, branch in enumerate(row.branches):
            past, is_blocked = forks[branch.parent, branch.first - 1]
            judged: tuple[int, Past] | None = None
            limits: tuple[Limit, ...] | None = None
            for first, seq, id_, author, state, packed, lacks_body, segment in self._stored(row, number):
                if packed is not None:
                    past = past.union(unpack_links(packed))
                if judged is None or judged[0] != author or judged[1] is not past:
                    judged, limits = (author, past), self._limits(row, number, author, past)
                counts = limits is not None and all(limit.admits(number, seq) for limit in limits)
                is_blocked |= counts and bool(lacks_body)
                for place in forks if len(forks) > 1 else ():
                    if place[0] == number and first <= place[1] <= seq:
                        forks[place] = past, is_blocked
                if segment is not None:
                    if not counts or is_blocked:
                        apart.append(segment)
                    continue
                is_shown = state in _SHOWN
                if counts and is_blocked and state != State.MISSING:
                    flips[State.MISSING].append(id_)
                elif counts and not is_blocked and not is_shown:
                    flips[State.APPLIED].append(id_)  # the rebuild finds out which of them are kept aside
                elif not counts and state != State.VOID:
                    flips[State.VOID].append(id_)  # whether it is held as an ancestor is seen below
                self._has_changed_rows |= is_shown != (counts and not is_blocked)
        return apart

    def _stored(self, row: LogRow, branch: int) -> Iterator[_Stored]:
        """What is stored of a branch, in order."""
        found = self._connection.execute(_ENTRIES, (row.id, branch))
        entries = (_Stored(*cast("_EntryFields", entry), None) for entry in found)
        segments = (
            _Stored(segment.first_seq, segment.seq, segment.id, segment.author, State.APPLIED, None, False, segment)
            for segment in self._log.segments.of_branch(row.id, branch)
        )
        return merge(entries, segments, key=attrgetter("first"))

    def _limits(self, row: LogRow, branch: int, author: int, past: Past) -> tuple[Limit, ...] | None:
        """What limits an author's entries with this control past on a branch; None where they do not count at all."""
        user = self._log.author_user(author)
        if not self._authority.may_write(user, row.key.device, past):
            return None
        return self._authority.limits(user, row.key, self._authority.first_past(row, branch))

    def _release_ancestors(self) -> None:
        """Holds no data entry for the sake of others any more: what those count for, in whatever log, is to be judged anew."""
        found = cast("list[tuple[int]]", self._connection.execute(_LOGS_WITH_ANCESTORS).fetchall())
        for (log,) in found:
            row = self._log.log_by_id(log)
            if row.key.kind is Kind.DATA:
                self._connection.execute(_RELEASE, (row.id,))
                self._log.refresh_tips(row)
                self._has_flipped_data = True

    # --- What is held for the sake of others ------------------------------------------------------------------------------------

    def hold_ancestors(self) -> None:
        """Holds void entries too that one which counts rests on, or that a cut names, without their rows.

        Whoever gets what rests on them asks for them, and all replicas judge by the same branches.
        """
        if self._connection.execute(_ANY_VOID).get:
            self._hold_data()
            self._hold_acts()
        if self._has_flipped_data:
            self._has_flipped_data = False
            self._log.refresh_heads(of_data=True)
        self._log.refresh_heads(of_data=False)

    def _hold_data(self) -> None:
        named: dict[int, list[tuple[int, int]]] = {}
        for tip in self._authority.named_tips():
            found = self._log.find(tip.hash)
            if found is not None:
                named.setdefault(found.log, []).append((found.branch, found.seq))
        for row in self._log.logs():
            if row.key.kind is Kind.DATA:
                self._hold(row, [*((tip.branch, tip.seq) for tip in self._log.ends(row)), *named.get(row.id, ())])
        while True:
            links = {dep for (packed,) in self._connection.execute(_HELD_DEPS) for dep in unpack_links(packed)}
            void = [found for found in map(self._log.find, links) if found is not None and found.state is State.VOID]
            if not void:
                return
            for found in void:
                self._hold(self._log.log_by_id(found.log), [(found.branch, found.seq)])

    def _hold(self, row: LogRow, places: Iterable[tuple[int, int]]) -> None:
        """Holds the entries at these places of a log, and all before them."""
        before = self._connection.total_changes()
        for branch, seq in {part for place in places for part in row.path(*place).items()}:
            self._connection.execute(_HOLD, (row.id, branch, seq))
        if self._connection.total_changes() != before:
            self._log.refresh_tips(row)
            self._has_flipped_data = True

    def _hold_acts(self) -> None:
        evaluation = self._authority.state.evaluation
        if evaluation is None:
            return
        named = [head for (packed,) in self._connection.execute(_HELD_HEADS) for head in unpack_links(packed)]
        named += [tip.hash for tip in self._authority.named_tips()]
        held = control_past([*self._authority.state.standing, *named], evaluation.index)
        for row in self._log.logs():
            if row.key.kind is Kind.DATA:
                continue
            flips: dict[State, list[int]] = {State.ANCESTOR: [], State.VOID: []}
            for id_, hash_, state in self._connection.execute(_VOID_ACTS, (row.id,)):
                wanted = State.ANCESTOR if hash_ in held else State.VOID
                if state != wanted:
                    flips[wanted].append(id_)
            self._flip(row, flips)
