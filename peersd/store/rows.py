"""Entries become rows: their changesets are decoded, applied one by one as they come, or all anew (DESIGN 7, 8)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from peersd.store.applying import Plan
from peersd.store.authority import Authority, Past
from peersd.store.log import Log, State
from peersd.store.merge import Merge, Planned, PlannedInserts
from peersd.store.segments import Segment
from peersd_protocol import blocks as block_codec
from peersd_protocol import changesets
from peersd_protocol.changesets import Changeset
from peersd_protocol.constants import CHANGESET_ARRAYS_MAX
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.runs import Entry

_AHEAD: Final = 2
"""Entries that are planned by themselves before more are planned together (guess)."""


class Rows:
    """What the data entries of a group amount to, inside the caller's transaction.

    Args:
        log, authority, merge: of the group.
    """

    def __init__(self, log: Log, authority: Authority, merge: Merge) -> None:
        self._log = log
        self._authority = authority
        self._merge = merge

    def decode(self, entry: Entry, past: Past | None) -> Changeset | None:
        """Decodes a data body.

        Args:
            entry: with its body here.
            past: its control past, in which the schema acts that it refers to must be; None for one checked before.

        Returns:
            The changeset (an empty one for an empty body), or None where it has to be kept aside: a body of a later version, or
            one that refers to schema acts that do not stand, or to tables that do not come of them.

        Raises:
            RemoteProtocolError: BAD_BODY or MALFORMED.
        """
        blocks = self._log.blocks(entry.header.hash, entry.body)
        if not blocks:
            return changesets.EMPTY
        try:
            changeset = changesets.decode(block_codec.join_blocks(blocks))
        except block_codec.UnknownCodec:
            return None
        if isinstance(changeset, changesets.UnknownBody):
            return None
        return changeset if self._is_shown(changeset, past) else None

    def _is_shown(self, changeset: Changeset, past: Past | None) -> bool:
        """Whether the schema acts that a changeset refers to stand, and its tables come of them."""
        state = self._authority.state
        acts = [self._authority.act_of(act_id) for act_id in changeset.acts]
        if past is not None and any(act is None or not self._authority.is_in_past(act, past) for act in acts):
            raise RemoteProtocolError(CloseCode.BAD_BODY, "refers to a schema act that is not in its past")
        if any(act not in state.standing for act in acts):
            return False
        return all(state.schema.table(table.table) is not None for table in changeset.tables)

    def plan(self, blocks: Sequence[bytes], past: Past | None) -> Planned:
        """Decodes and checks the bodies of consecutive entries with one control past together.

        Args:
            blocks: of each the one block that its body is.
            past: their control past; None for entries that were checked before.

        Returns:
            What `apply_planned` takes, of the first of them: up to one that has to be kept aside or is not as it has to be, and
            as many as may be in memory together.
        """
        # Each by itself at first: where one in two is at fault, all that follow would be looked at together for each.
        ahead = self._plan_each(block_codec.decode_small_blocks(blocks[:_AHEAD], CHANGESET_ARRAYS_MAX), past)
        if len(ahead) < _AHEAD:
            return ahead
        bodies = block_codec.decode_small_blocks(blocks, CHANGESET_ARRAYS_MAX)
        inserts = self._plan_inserts(bodies, past)
        return self._plan_each(bodies, past) if inserts is None else inserts

    def _plan_inserts(self, bodies: Sequence[bytes], past: Past | None) -> PlannedInserts | None:
        """Plans bodies that all insert into one table and do nothing else, by columns; None for others."""
        found = changesets.decode_inserts(bodies)
        try:
            if found is None or not self._is_shown(found[0], past):
                return None
        except RemoteProtocolError:
            return None
        return self._merge.plan_inserts(*found)

    def _plan_each(self, bodies: Sequence[bytes], past: Past | None) -> list[list[Plan]]:
        """Plans bodies one by one, up to the first that cannot be."""
        plans: list[list[Plan]] = []
        with suppress(RemoteProtocolError):
            for body in bodies:
                changeset = changesets.decode(body)
                if isinstance(changeset, changesets.UnknownBody) or not self._is_shown(changeset, past):
                    break
                plans.append(self._merge.plan(changeset))
        return plans

    def apply(self, id_: int, changeset: Changeset | None) -> State:
        """Applies what `decode` gave for an entry that counts, and returns the entry's state."""
        if changeset is None:
            return State.ASIDE
        try:
            self._merge.apply(id_, changeset)
        except RemoteProtocolError:
            # Under the schema as it stands now it cannot be shown, which is the same on every replica. Its author need not be at
            # fault: acts that it had not seen may have taken a table's or column's place.
            return State.ASIDE
        return State.APPLIED

    def apply_planned(self, first: int, planned: Planned) -> None:
        """Applies what `plan` gave for consecutive entries that count and are in the log, the first of which has this id."""
        self._merge.apply_planned(first, planned)

    def show(self, id_: int, entry: Entry) -> State:
        """Applies an entry that counts and was checked when it came, and returns its state."""
        return self.apply(id_, self.decode(entry, None))

    def rebuild(self) -> None:
        """Makes all tables and clocks anew from the logs, by the schema as it stands."""
        self._merge.clear()
        self._merge.set_schema(self._authority.state.schema)
        query = "state IN (1, 2) AND log IN (SELECT id FROM _peers_log WHERE kind = 3) ORDER BY id"
        for id_, entry, state, _ in self._log.entries(query):
            shown = self.show(id_, entry)
            if state is not shown:
                self._log.set_state([id_], shown)
        for segment in list(self._log.segments.after(0)):
            self._rebuild_segment(segment)

    def _rebuild_segment(self, segment: Segment) -> None:
        """Applies the entries of a segment anew; where one of them is to be kept aside now, each is a row of its own."""
        _, blocks = self._log.segments.unpack(segment)
        planned = self.plan(blocks, None)
        if len(planned) == len(blocks):
            self.apply_planned(segment.first_id, planned)
            return
        states = [self.show(id_, entry) for id_, entry in enumerate(self._log.unpack(segment), segment.first_id)]
        aside = [id_ for id_, state in enumerate(states, segment.first_id) if state is State.ASIDE]
        if aside:
            self._log.take_apart(segment)
            self._log.set_state(aside, State.ASIDE)
