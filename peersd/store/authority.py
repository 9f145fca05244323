"""Which entries of a group count now: the acts held here, evaluated, and what that means for each data log (DESIGN 6 and 10)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias, cast

import apsw

from peersd.store.log import EntryRow, Log, LogRow, State
from peersd_protocol import blocks as block_codec
from peersd_protocol import canonical
from peersd_protocol.act_index import control_past
from peersd_protocol.acts import Leave, UnknownAct, decode_act
from peersd_protocol.canonical import Value
from peersd_protocol.constants import ACT_BYTES_MAX, BLOCK_BYTES_MAX, LINKS_PER_ENTRY_MAX
from peersd_protocol.entries import Act, Header, Kind
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.membership import GroupState, evaluate
from peersd_protocol.runs import BodyForm
from peersd_protocol.signing import HASH_BYTES

Past: TypeAlias = frozenset[bytes]
"""A control past, by the heads that a log has named up to an entry; evaluation takes all acts before them as named too."""

_TYPE_OF_UNREADABLE = 2**31 - 1
"""A type of act that no version has: what cannot be read is held and forwarded like an act of a later version."""

ACT_BLOCKS_MAX = ACT_BYTES_MAX // BLOCK_BYTES_MAX + 1
"""Blocks of an act's body: they are not decoded together before their number is known."""

_LINKS_BYTES_MAX = LINKS_PER_ENTRY_MAX * (HASH_BYTES + 2) + 8


def decode_body(blocks: list[bytes] | None) -> list[Value]:
    """The body of an act from its blocks; an empty one for an empty body, and an unknown type for blocks of a later version.

    Raises:
        RemoteProtocolError: the blocks do not decode.
    """
    if not blocks:
        return []
    if len(blocks) > ACT_BLOCKS_MAX:
        raise RemoteProtocolError(CloseCode.TOO_LARGE, "body of an act")
    try:
        return canonical.decode(block_codec.join_blocks(blocks), bytes_max=ACT_BYTES_MAX)
    except block_codec.UnknownCodec:
        return [_TYPE_OF_UNREADABLE]


class Authority:
    """The acts of a group and what they amount to.

    Args:
        connection: the writer of the group's file.
        log: the group's logs.

    Attributes:
        state: the group, evaluated.
    """

    def __init__(self, connection: apsw.Connection, log: Log) -> None:
        self._connection = connection
        self._log = log
        self.reload()

    def reload(self) -> None:
        """Reads all acts anew and evaluates them; after a rollback too."""
        self._acts: dict[bytes, Act] = {}
        self._past_at: dict[int, Past] = {}
        self._first_past: dict[int, Past] = {}
        self._may_have_fallen = False
        for row in self._log.logs():
            if row.key.kind is Kind.DATA:
                continue
            for _, entry, _, _ in self._log.entries("log = ? ORDER BY id", (row.id,)):
                self._acts[entry.header.hash] = Act(entry.header, decode_body(self._log.blocks(entry.header.hash, entry.body)))
        self._act_ids: dict[bytes, bytes] = {}
        for act in self._acts:
            self._note_id(act)
        self.state: GroupState = evaluate(self._log.group, self._acts.values())

    def add(self, acts: Iterable[Act]) -> None:
        """Takes acts in and evaluates them all anew."""
        before = self.state
        for act in acts:
            self._acts[act.hash] = act
            self._note_id(act.hash)
            # Only what takes a right, or is not understood, can end what other entries count for.
            if isinstance(decode_act(act.header.kind, act.body), Leave | UnknownAct):
                self._may_have_fallen = True
        self.state = evaluate(self._log.group, self._acts.values())
        if not before.standing <= self.state.standing or before.void & self.state.standing:
            self._may_have_fallen = True

    def _note_id(self, act: bytes) -> None:
        """Of two acts with one id, which somebody made on purpose, the lower hash has it on every replica."""
        self._act_ids[act[:16]] = min(act, self._act_ids.get(act[:16], act))

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
        before: Past = frozenset() if prev is None else self._past_of(prev)
        return before.union(heads)

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
        if self._log.log_by_id(row.log).forked:
            id_ = row.id
            while id_:
                found = self._connection.execute("SELECT prev, heads FROM _peers_entry WHERE id = ?", (id_,)).fetchone()
                assert found is not None
                id_, packed = cast("tuple[int, bytes | None]", found)
                heads.update(_links(packed))
        else:
            query = "SELECT heads FROM _peers_entry WHERE log = ? AND seq <= ? AND heads IS NOT NULL"
            for (packed,) in self._connection.execute(query, (row.log, row.seq)):
                heads.update(_links(packed))
        self._past_at[row.id] = frozenset(heads)
        return self._past_at[row.id]

    def _first_past_of(self, log: int) -> Past:
        """The control past of a log's first entry, if that is here."""
        if log not in self._first_past:
            packed = self._connection.execute("SELECT heads FROM _peers_entry WHERE log = ? AND seq = 1", (log,)).get
            self._first_past[log] = frozenset(_links(packed if isinstance(packed, bytes) else None))
        return self._first_past[log]

    def counts(self, header: Header, past: Past) -> bool:
        """Whether a data entry with this control past is admitted by the acts that stand now."""
        row = self._log.log(header.log)
        first_past = past if header.seq == 1 or row is None else self._first_past_of(row.id)
        last = self._last_counted(header.user, header, past, first_past)
        return last is None or header.seq <= last

    def _last_counted(self, user: bytes, writer: Header | LogRow, past: Past, first_past: Past) -> int | None:
        """The greatest sequence up to which entries of a user with this past count: 0 for none, None for all."""
        key = writer.key if isinstance(writer, LogRow) else writer.log
        if not self.state.may_write(user, key.device, past):
            return 0
        return self.state.cut(user, key, first_past)

    # --- Standing, re-evaluated -------------------------------------------------------------------------------------------------

    def restate(self) -> bool:
        """Brings the states of all stored entries in line with the evaluation.

        Returns:
            Whether any data entry began or ceased to count, so that the tables have to be rebuilt.
        """
        flipped = self._restate_acts()
        if not (flipped or self._may_have_fallen or self.state.void):
            return False
        changed = False
        if self._may_have_fallen:
            self._may_have_fallen = False
            for row in list(self._log.logs()):
                changed |= row.key.kind is Kind.DATA and self._restate_data(row)
        self.hold_ancestors()
        return changed

    def _restate_acts(self) -> bool:
        """Brings the states of acts in line; whether a void one is held all the same is seen afterwards."""
        flipped = False
        for row in list(self._log.logs()):
            if row.key.kind is Kind.DATA:
                continue
            flips: dict[State, list[int]] = {State.APPLIED: [], State.VOID: []}
            query = "SELECT id, hash, state FROM _peers_entry WHERE log = ?"
            for id_, hash_, state in self._connection.execute(query, (row.id,)):
                stands = hash_ in self.state.standing
                if stands != (state == State.APPLIED) and (stands or state != State.ANCESTOR):
                    flips[State.APPLIED if stands else State.VOID].append(id_)
            self._flip(row, flips)
            flipped |= any(flips.values())
        return flipped

    def _flip(self, row: LogRow, flips: Mapping[State, list[int]]) -> None:
        for state, ids in flips.items():
            self._log.set_state(ids, state)
        if any(flips.values()):
            self._log.refresh_tips(row)

    def _restate_data(self, row: LogRow) -> bool:
        """Re-evaluates one data log; entries of one author with one control past share a verdict."""
        flips: dict[State, list[int]] = {state: [] for state in State}
        pasts: dict[int, Past] = {0: frozenset()}
        verdicts: dict[tuple[int, Past], int | None] = {}
        changed = False
        last_id = 0
        last_past: Past = frozenset()
        query = "SELECT id, seq, prev, author, state, heads, substr(body, 2, 1) FROM _peers_entry WHERE log = ? ORDER BY id"
        for id_, seq, prev, author, state, packed, form in self._connection.execute(query, (row.id,)):
            past = last_past if prev == last_id else pasts.get(prev, frozenset())
            if packed is not None:
                past = past.union(_links(packed))
            if row.forked:
                pasts[id_] = past
            last_id, last_past = id_, past
            if (author, past) not in verdicts:
                user = self._log.author_user(author)
                verdicts[author, past] = self._last_counted(user, row, past, self._first_past_of(row.id))
            last = verdicts[author, past]
            counts = last is None or seq <= last
            if counts and state in (State.VOID, State.ANCESTOR) and form[0] != BodyForm.WITHHELD:
                flips[State.APPLIED].append(id_)
                changed = True
            elif not counts and state != State.VOID:
                flips[State.VOID].append(id_)
                changed |= state != State.ANCESTOR  # whether it stays one is seen below
        self._flip(row, flips)
        return changed

    def hold_ancestors(self) -> None:
        """Void entries that one which counts rests on are held too, without their rows: whoever gets it asks for them."""
        if self._connection.execute("SELECT EXISTS (SELECT 1 FROM _peers_entry WHERE state IN (0, 3))").get:
            self._hold_data()
            self._hold_acts()
        self._log.refresh_heads()

    def _hold_data(self) -> None:
        for row in self._log.logs():
            if row.key.kind is Kind.DATA and row.tips:
                for tip in row.tips:
                    self._hold_branch(row, tip.id, tip.seq)
                self._log.refresh_tips(row)
        query = "SELECT deps FROM _peers_entry WHERE state > 0 AND deps IS NOT NULL"
        while True:
            named = {dep for (packed,) in self._connection.execute(query) for dep in _links(packed)}
            void = [found for found in map(self._log.find, named) if found is not None and found.state is State.VOID]
            if not void:
                return
            for found in void:
                row = self._log.log_by_id(found.log)
                self._hold_branch(row, found.id, found.seq)
                self._log.refresh_tips(row)

    def _hold_branch(self, row: LogRow, id_: int, seq: int) -> None:
        """Holds an entry and all before it on its branch."""
        if row.forked:
            self._connection.execute(_HOLD_BRANCH, (id_,))
        else:
            query = "UPDATE _peers_entry SET state = 3 WHERE log = ? AND seq <= ? AND state = 0"
            self._connection.execute(query, (row.id, seq))

    def _hold_acts(self) -> None:
        evaluation = self.state.evaluation
        if evaluation is None:
            return
        named = [head for (packed,) in self._connection.execute(_HELD_HEADS) for head in _links(packed)]
        held = control_past([*self.state.standing, *named], evaluation.index)
        for row in list(self._log.logs()):
            if row.key.kind is Kind.DATA:
                continue
            flips: dict[State, list[int]] = {State.ANCESTOR: [], State.VOID: []}
            query = "SELECT id, hash, state FROM _peers_entry WHERE log = ? AND state IN (0, 3)"
            for id_, hash_, state in self._connection.execute(query, (row.id,)):
                wanted = State.ANCESTOR if hash_ in held else State.VOID
                if state != wanted:
                    flips[wanted].append(id_)
            self._flip(row, flips)


_HELD_HEADS = "SELECT heads FROM _peers_entry WHERE heads IS NOT NULL AND state > 0"

_HOLD_BRANCH = """WITH RECURSIVE branch(id) AS
  (SELECT ? UNION ALL SELECT e.prev FROM _peers_entry e JOIN branch b ON e.id = b.id WHERE e.prev > 0)
UPDATE _peers_entry SET state = 3 WHERE state = 0 AND id IN branch"""


def _links(packed: bytes | None) -> list[bytes]:
    return [] if packed is None else cast("list[bytes]", canonical.decode(packed, bytes_max=_LINKS_BYTES_MAX))
