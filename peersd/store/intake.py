"""Taking in what others send: runs and blocks are verified, staged, applied or kept aside (SPEC: E-26 to E-30, DESIGN 6, 9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import apsw

from peersd.store.authority import Authority, Past, decode_body
from peersd.store.log import EntryRow, Log, State
from peersd.store.merge import Merge
from peersd_protocol import blocks as block_codec
from peersd_protocol import canonical, changesets, hlc
from peersd_protocol.acts import decode_act
from peersd_protocol.constants import BODY_BYTES_MAX, BRANCHES_MAX, MESSAGE_BYTES_MAX, STAGED_BODIES_MAX
from peersd_protocol.entries import NO_BODY_HASH, Act, Header, Kind, LogKey
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.messages import Block, Runs, decode_runs
from peersd_protocol.replication import Committed, Ingested, Parked
from peersd_protocol.runs import Body, BodyForm, Entry, Run, parse_run, run_value
from peersd_protocol.vectors import Tip


@dataclass(slots=True)
class Outcome:
    """What one message brought.

    Attributes:
        ingested: for the replication machine.
        committed: entries that are durable now and count.
        runs: the runs they came in, to be passed on.
        void: hashes of entries that were taken in and do not count.
        is_new: whether anything was taken in that was not here.
        rests_on_void: whether an entry that counts rests on one that does not, which then is held for its sake.
        irregular: whether the vector does not follow from `committed` alone (forks, entries that became void or valid).
    """

    held: dict[LogKey, Tip] = field(default_factory=dict)
    parked: list[Parked] = field(default_factory=list)
    committed: list[Committed] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    irregular: bool = False
    rests_on_void: bool = False
    void: list[bytes] = field(default_factory=list)
    is_new: bool = False

    @property
    def ingested(self) -> Ingested:
        """For the replication machine."""
        return Ingested(self.held, tuple(self.parked), tuple(self.void), self.is_new)


class Intake:
    """Takes messages in, inside the caller's transaction.

    Args:
        connection: the writer of the group's file.
        log, authority, merge: of the group.
        restate: called when acts have arrived: evaluates them, brings entries' states and tables in line, and returns whether
            any entry began or ceased to count.
    """

    def __init__(
        self, connection: apsw.Connection, log: Log, authority: Authority, merge: Merge, restate: Callable[[list[Act]], bool]
    ) -> None:
        self._connection = connection
        self._log = log
        self._authority = authority
        self._merge = merge
        self._restate = restate
        self._new_acts: list[Act] = []

    def take(self, packed: Runs | Block) -> Outcome:
        """Verifies and applies one message.

        Raises:
            RemoteProtocolError: something in it is not as SPEC says; the caller rolls back, nothing of it is kept.
        """
        outcome = Outcome()
        self._new_acts = []
        if isinstance(packed, Runs):
            for run in decode_runs(packed, self._log.group):
                self._take_run(run, outcome)
        else:
            self._take_block(packed, outcome)
        self._settle_acts(outcome)
        if outcome.rests_on_void:
            self._authority.hold_ancestors()
            outcome.irregular = True
        if outcome.committed:
            self._log.save_heads()
        return outcome

    def _settle_acts(self, outcome: Outcome) -> None:
        if self._new_acts:
            acts, self._new_acts = self._new_acts, []
            outcome.irregular |= self._restate(acts)

    # --- Runs -------------------------------------------------------------------------------------------------------------------

    def _take_run(self, run: Run, outcome: Outcome) -> None:
        last = run.last
        if self._log.tip_row(run.log, last.hash) is not None:
            outcome.held[run.log] = (last.seq, last.hash)
            return
        new = list(run.entries)
        while self._log.find(new[0].header.hash) is not None:  # what follows an unknown entry is unknown too
            del new[0]
        missing = self._missing(new)
        if missing:
            outcome.parked.append(
                Parked(Runs(0, canonical.encode([run_value(run)])), frozenset(missing), (run.log, (last.seq, last.hash)))
            )
            return
        run.check_signature()
        if new[-1].body.form is BodyForm.DETACHED and not self._is_complete(new[-1]):
            self._stage(run)
            outcome.is_new = True
            return
        self._apply_run(run, new, outcome)

    def _missing(self, new: list[Entry]) -> set[bytes]:
        """Hashes that these entries rest on and that are not here."""
        inside = {entry.header.hash for entry in new}
        first = new[0].header
        named = {first.prev} if first.prev else set()
        for entry in new:
            named.update(entry.header.deps, entry.header.control_heads)
        return {hash_ for hash_ in named - inside if self._log.find(hash_) is None}

    def _apply_run(self, run: Run, new: list[Entry], outcome: Outcome) -> None:
        first = new[0].header
        prev = self._log.tip_row(run.log, first.prev) if first.prev else None
        if (prev.seq if prev else 0) != first.seq - 1:
            raise RemoteProtocolError(CloseCode.BAD_CHAIN, "sequence does not follow from prev")
        if prev is not None and self._log.log_by_id(prev.log).key != run.log:
            raise RemoteProtocolError(CloseCode.BAD_CHAIN, "prev stands in another log")
        if first.kind is Kind.DATA:
            self._settle_acts(outcome)
        row = self._log.log(run.log)
        forked_before = row.forked if row else False
        counted = False
        outcome.is_new = True
        for index, entry in enumerate(new):
            signature = run.signature if index == len(new) - 1 else None
            header = entry.header
            requires, is_sound = self._check_links(header, prev)
            if header.kind is Kind.DATA:
                id_, state = self._take_data(entry, signature, prev)
            else:
                id_, state = self._take_act(entry, signature, prev)
            if state is not State.VOID:
                counted = True
                outcome.rests_on_void |= not is_sound
                outcome.committed.append(Committed(id_, header.log, header.seq, header.hash, requires))
            else:
                outcome.void.append(header.hash)
            prev = EntryRow(id_, self._log.open_log(header.log).id, header.seq, header.hlc, state)
        row = self._log.open_log(run.log)
        if len(row.tips) > BRANCHES_MAX:
            raise RemoteProtocolError(CloseCode.BAD_CHAIN, "more branches of one epoch than are kept")
        outcome.irregular |= row.forked or forked_before or not counted
        outcome.held[run.log] = (run.last.seq, run.last.hash)
        if counted:
            outcome.runs.append(run)

    def _check_links(self, header: Header, prev: EntryRow | None) -> tuple[tuple[tuple[LogKey, int], ...], bool]:
        """Checks kinds of links and the stamp.

        Returns:
            What the entry directly requires of other logs, and whether all that it rests on is held.
        """
        deps = [row for row in map(self._log.find, header.deps) if row is not None]
        heads = [row for row in map(self._log.find, header.control_heads) if row is not None]
        if any(self._log.log_by_id(row.log).key.kind is not Kind.DATA for row in deps):
            raise RemoteProtocolError(CloseCode.BAD_CHAIN, "deps name something other than data")
        if any(self._log.log_by_id(row.log).key.kind is Kind.DATA for row in heads):
            raise RemoteProtocolError(CloseCode.BAD_CHAIN, "control_heads name data")
        if header.kind is Kind.IDENTITY and any(self._log.log_by_id(row.log).key.user != header.acting_user for row in heads):
            raise RemoteProtocolError(CloseCode.BAD_CHAIN, "an identity act names something of another log than its user's")
        greatest = max([prev.hlc if prev else 0, *(row.hlc for row in deps)])
        if not hlc.is_valid_successor(header.hlc, greatest):
            raise RemoteProtocolError(CloseCode.BAD_CHAIN, "stamp does not follow from prev and deps")
        linked = (*deps, *heads)
        is_sound = all(row.state is not State.VOID for row in (*linked, *([prev] if prev else ())))
        return tuple((self._log.log_by_id(row.log).key, row.seq) for row in linked), is_sound

    def _take_act(self, entry: Entry, signature: bytes | None, prev: EntryRow | None) -> tuple[int, State]:
        header = entry.header
        body = decode_body(self._log.blocks(header.hash, entry.body))
        if entry.body.form is BodyForm.WITHHELD:
            raise RemoteProtocolError(CloseCode.BAD_BODY, "the body of an act is withheld")
        if body:
            decode_act(header.kind, body)  # refuses what is malformed; unknown types are held
        id_ = self._log.append(entry, signature, State.APPLIED, prev)
        self._new_acts.append(Act(header, body))
        return id_, State.APPLIED

    def _take_data(self, entry: Entry, signature: bytes | None, prev: EntryRow | None) -> tuple[int, State]:
        header = entry.header
        past: Past = self._authority.past_after(prev, header.control_heads)
        counts = self._authority.counts(header, past)
        if counts and entry.body.form is BodyForm.WITHHELD and header.body_hash != NO_BODY_HASH:
            # Acts travel before data, so the sender has none by which the entry would be void: kept like this it would be lost.
            raise RemoteProtocolError(CloseCode.BAD_BODY, "the body of an entry that counts is withheld")
        if not counts:
            bare = Entry(header, Body.withheld(header.body_hash))
            id_ = self._log.append(bare, signature, State.VOID, prev)
            self._log.drop_blocks(header.hash)
            self._authority.remember_past(id_, past, prev)
            return id_, State.VOID
        changeset = decode_changeset(self._log.blocks(header.hash, entry.body) or [], self._authority, past)
        state = State.APPLIED if changeset is not None else State.ASIDE
        id_ = self._log.append(entry, signature, state, prev)
        self._authority.remember_past(id_, past, prev)
        if changeset is not None:
            self._merge.apply(id_, changeset)
        return id_, state

    # --- Detached bodies --------------------------------------------------------------------------------------------------------

    def _is_complete(self, entry: Entry) -> bool:
        count = self._connection.execute("SELECT count(*) FROM _peers_block WHERE entry = ?", (entry.header.hash,)).get
        return bool(count == len(entry.body.block_hashes))

    def _stage(self, run: Run) -> None:
        hash_ = run.last.hash
        count = self._connection.execute("SELECT count(*) FROM _peers_staged WHERE entry <> ?", (hash_,)).get
        if isinstance(count, int) and count >= STAGED_BODIES_MAX:
            oldest = self._connection.execute("SELECT entry FROM _peers_staged ORDER BY at LIMIT 1").get
            assert isinstance(oldest, bytes)
            self._log.drop_blocks(oldest)
        self._connection.execute(
            "INSERT OR REPLACE INTO _peers_staged (entry, run) VALUES (?, ?)", (hash_, canonical.encode(run_value(run)))
        )

    def _take_block(self, block: Block, outcome: Outcome) -> None:
        packed = self._connection.execute("SELECT run FROM _peers_staged WHERE entry = ?", (block.entry_hash,)).get
        if not isinstance(packed, bytes):
            # Its run was parked or dropped, and is sent again with its blocks; or another session has completed it.
            known = self._log.find(block.entry_hash)
            if known is not None:
                outcome.held[self._log.log_by_id(known.log).key] = (known.seq, block.entry_hash)
            return
        run = parse_run(canonical.decode(packed, bytes_max=MESSAGE_BYTES_MAX), self._log.group)
        entry = run.entries[-1]
        hashes = entry.body.block_hashes
        if block.index >= len(hashes) or block_codec.block_hash(block.data) != hashes[block.index]:
            raise RemoteProtocolError(CloseCode.BAD_BODY, "block does not match its hash")
        held = self._connection.execute(
            "SELECT count(*), coalesce(sum(length(data)), 0) FROM _peers_block WHERE entry = ?", (block.entry_hash,)
        ).fetchone()
        assert held is not None
        if block.index > held[0]:
            return  # blocks come in order; a hole means that some were dropped here, and they are asked for again
        if held[1] + len(block.data) > BODY_BYTES_MAX + len(hashes):
            raise RemoteProtocolError(CloseCode.TOO_LARGE, "body")
        self._connection.execute(
            "INSERT OR IGNORE INTO _peers_block VALUES (?, ?, ?)", (block.entry_hash, block.index, block.data)
        )
        outcome.is_new = True
        if self._is_complete(entry):
            self._connection.execute("DELETE FROM _peers_staged WHERE entry = ?", (block.entry_hash,))
            self._apply_run(run, [entry], outcome)


def decode_changeset(blocks: list[bytes], authority: Authority, past: Past | None) -> changesets.Changeset | None:
    """Decodes a data body.

    Args:
        blocks: all of them, none for an empty body.
        authority: of the group.
        past: the entry's control past, in which the schema acts that it refers to must be; None for one judged before.

    Returns:
        The changeset (an empty one for an empty body), or None where it has to be kept aside: a body of a later version, or
        one that refers to schema acts that do not stand, or to tables that do not come of them.

    Raises:
        RemoteProtocolError: BAD_BODY or MALFORMED.
    """
    if not blocks:
        return changesets.EMPTY
    try:
        changeset = changesets.decode(block_codec.join_blocks(blocks))
    except block_codec.UnknownCodec:
        return None
    if isinstance(changeset, changesets.UnknownBody):
        return None
    acts = [authority.act_of(act_id) for act_id in changeset.acts]
    if past is not None and any(act is None or not authority.is_in_past(act, past) for act in acts):
        raise RemoteProtocolError(CloseCode.BAD_BODY, "refers to a schema act that is not in its past")
    if any(act not in authority.state.standing for act in acts):
        return None
    if any(authority.state.schema.table(table.table) is None for table in changeset.tables):
        return None
    return changeset
