"""Taking in what others send: runs and blocks are verified, staged, applied or kept aside (SPEC: E-26 to E-30, DESIGN 6, 9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from peersd.store.authority import Authority, Past
from peersd.store.late_bodies import LateBodies
from peersd.store.log import EntryRow, Log, State
from peersd.store.parting import Partings
from peersd.store.rows import Rows
from peersd.store.stretches import Stretches
from peersd_protocol import canonical, hlc
from peersd_protocol.act_bodies import decode_body
from peersd_protocol.acts import decode_act
from peersd_protocol.constants import BRANCHES_MAX
from peersd_protocol.entries import NO_BODY_HASH, Act, Header, Kind, LogKey
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.messages import Block, Runs, decode_runs
from peersd_protocol.replication import Committed, Ingested, Parked
from peersd_protocol.runs import Body, BodyForm, Entry, Run, run_value
from peersd_protocol.vectors import Tip


@dataclass(slots=True)
class Outcome:
    """What one message brought.

    Attributes:
        held: tips that it shows its sender to hold.
        parked: runs that have to wait.
        committed: entries that are durable now and may be told of.
        runs: the runs they came in, to be passed on.
        void: hashes of entries that were taken in and may not be told of.
        void_tips: ends of runs that are here and void.
        blocked_tips: ends of runs that are here, and count once a body before them has come.
        new: the logs of what was taken in and was not here.
        rests_on_void: whether an entry that is void has to be held for the sake of one that came, or came and is named by a cut.
        irregular: whether the vector does not follow from `committed` alone (forks, entries that became void or valid).
        is_whole: whether all that came in `runs` may be passed on as it is.
    """

    held: dict[LogKey, Tip] = field(default_factory=dict)
    parked: list[Parked] = field(default_factory=list)
    committed: list[Committed] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    void: list[bytes] = field(default_factory=list)
    void_tips: list[tuple[LogKey, Tip]] = field(default_factory=list)
    blocked_tips: list[tuple[LogKey, Tip]] = field(default_factory=list)
    new: set[LogKey] = field(default_factory=set)
    rests_on_void: bool = False
    irregular: bool = False
    is_whole: bool = True

    @property
    def ingested(self) -> Ingested:
        """For the replication machine."""
        void, tips, blocked = tuple(self.void), tuple(self.void_tips), tuple(self.blocked_tips)
        return Ingested(self.held, tuple(self.parked), void, tips, blocked, frozenset(self.new))


class Intake:
    """Takes messages in, inside the caller's transaction.

    Args:
        log, authority, rows, bodies: of the group.
        restate: called when acts have arrived, or a tip that a cut names: evaluates them, brings entries' states and tables in
            line, and returns whether any entry began or ceased to count.
        hold_ancestors: called where void entries may have to be held.
    """

    def __init__(
        self,
        log: Log,
        authority: Authority,
        rows: Rows,
        bodies: LateBodies,
        restate: Callable[[list[Act]], bool],
        hold_ancestors: Callable[[], None],
    ) -> None:
        self._log = log
        self._authority = authority
        self._rows = rows
        self._bodies = bodies
        self._restate = restate
        self._hold_ancestors = hold_ancestors
        self._stretches = Stretches(log, authority, rows)
        self._new_acts: list[Act] = []
        self._partings = Partings(log, authority)

    def take(self, received: Sequence[Run] | Block, sender: bytes = b"") -> Outcome:
        """Verifies and applies one message.

        Args:
            received: what the message carries.
            sender: the device that sent it; empty if what it wrote before need not be waited for.

        Raises:
            RemoteProtocolError: something in it is not as SPEC says; the caller rolls back, nothing of it is kept.
        """
        outcome = Outcome()
        self._new_acts = []
        if isinstance(received, Block):
            self._take_block(received, sender, outcome)
        else:
            partings = self._partings.among(received, sender)
            # No act rests on data: taken first, all acts of a message are evaluated once, however it mixes them.
            for run in sorted(received, key=lambda run: run.log.kind is Kind.DATA):
                if run not in partings:
                    self._take_run(run, outcome)
            if partings:
                self._take_partings(partings, outcome)
        self._settle_acts(outcome)
        if self._authority.stale:
            outcome.irregular |= self._restate([])
        if outcome.rests_on_void:
            self._hold_ancestors()
            outcome.irregular = True
        self._log.settle()
        return outcome

    def _settle_acts(self, outcome: Outcome) -> None:
        if self._new_acts:
            acts, self._new_acts = self._new_acts, []
            outcome.irregular |= self._restate(acts)

    # --- Runs -------------------------------------------------------------------------------------------------------------------

    def _take_partings(self, partings: Sequence[Run], outcome: Outcome) -> None:
        """Takes in the acts by which the sender itself goes, after all that it wrote before and that is in the same message."""
        waiting, outcome.parked = outcome.parked, []
        for run in partings:
            awaited = self._partings.awaited(run)
            if awaited:
                outcome.parked.append(_park(run, awaited | self._missing(run, 0), is_parting=True))
            else:
                self._take_run(run, outcome)
        for parked in waiting:
            assert isinstance(parked.packed, Runs)
            for run in decode_runs(parked.packed, self._log.group):
                self._take_run(run, outcome)

    def _take_run(self, run: Run, outcome: Outcome) -> None:
        hashes = run.hashes
        known = self._count_known(run)
        self._fill(run, known, outcome)
        if known == len(hashes):
            return
        missing = self._missing(run, known)
        if missing:
            outcome.parked.append(_park(run, missing))
            return
        run.check_signature()
        last = run.entries[-1]
        if last.body.form is BodyForm.DETACHED:
            if not self._bodies.is_complete(last):
                self._bodies.stage(run)
                outcome.new.add(run.log)
                return
            self._bodies.unstage(last.header.hash)
        self._apply_run(run, known, outcome)

    def _count_known(self, run: Run) -> int:
        """How many entries of a run, from its first on, are here: what follows an unknown one is unknown too."""
        if self._log.is_end(run.log, run.first.prev):
            return 0
        hashes = run.hashes
        if self._log.tip_row(run.log, hashes[-1]) is not None:
            return len(hashes)
        return next((at for at, hash_ in enumerate(hashes) if self._log.find(hash_) is None), len(hashes))

    def _fill(self, run: Run, known: int, outcome: Outcome) -> None:
        """Takes from a run what entries of it lack that are here, and notes how much of it its sender is shown to hold."""
        if not known:
            return
        filled = self._bodies.fill(run, known)
        if filled.is_new:
            outcome.new.add(run.log)
        if filled.committed:
            outcome.committed += filled.committed
            outcome.irregular = True
            outcome.is_whole = False
        self._note_held(run, outcome)

    def _note_held(self, run: Run, outcome: Outcome) -> None:
        """Notes how much of a run its sender is shown to hold, or that the rest of it need not be asked for."""
        for entry in reversed(run.entries):
            found = self._log.tip_row(run.log, entry.header.hash)
            if found is None:
                continue
            tip = (entry.header.seq, entry.header.hash)
            if self._log.is_told(found):
                outcome.held[run.log] = tip
                return
            if entry is run.entries[-1]:
                is_blocked = self._log.log_by_id(found.log).is_blocked(found.branch, found.seq)
                (outcome.blocked_tips if is_blocked else outcome.void_tips).append((run.log, tip))

    def _missing(self, run: Run, start: int) -> set[bytes]:
        """Hashes that the entries of a run from an index on rest on, and that are not here."""
        prev = run.entries[start].header.prev
        named = {prev} if prev else set()
        for at, links in run.links.items():
            if at >= start:
                named.update(*links)
        return {hash_ for hash_ in named.difference(run.hashes[start:]) if self._log.tip_row(run.log, hash_) is None}

    def _apply_run(self, run: Run, start: int, outcome: Outcome) -> None:
        """Takes the entries of a run from an index on in."""
        first = run.entries[start].header
        prev = self._log.tip_row(run.log, first.prev) if first.prev else None
        if (prev.seq if prev else 0) != first.seq - 1:
            raise RemoteProtocolError(CloseCode.BAD_CHAIN, "sequence does not follow from prev")
        if prev is not None and self._log.log_by_id(prev.log).key != run.log:
            raise RemoteProtocolError(CloseCode.BAD_CHAIN, "prev stands in another log")
        if first.kind is Kind.DATA:
            self._settle_acts(outcome)
        outcome.new.add(run.log)
        known = self._log.log(run.log)
        tips_before = len(known.tips) if known is not None else 0
        at = start
        while at < len(run.entries):
            stretch = self._stretches.take(run, at, prev) if prev is not None else None
            if stretch is None:
                prev = self._take_one(run, at, prev, outcome)
                at += 1
            else:
                prev = stretch.last
                outcome.committed.append(stretch.committed)
                at += stretch.count
        assert prev is not None
        is_told = prev.state is not State.VOID and prev.state is not State.MISSING
        row = self._log.open_log(run.log)
        if len(row.tips) > max(BRANCHES_MAX, tips_before):  # cuts may have made them more: that is nobody's fault who sends now
            raise RemoteProtocolError(CloseCode.BAD_CHAIN, "more branches of one epoch than are kept")
        outcome.irregular |= row.forked
        outcome.is_whole &= is_told
        outcome.runs.append(run)
        self._note_held(run, outcome)

    def _take_one(self, run: Run, at: int, prev: EntryRow | None, outcome: Outcome) -> EntryRow:
        """Takes one entry of a run in."""
        entry = run.entries[at]
        header = entry.header
        requires, is_sound = self._check_links(header, prev)
        row = self._take_entry(entry, run.signature if at == len(run.entries) - 1 else None, prev)
        if row.state is State.VOID or row.state is State.MISSING:
            outcome.void.append(header.hash)
        else:
            outcome.committed.append(Committed(row.id, header.log, header.seq, header.hash, requires))
        outcome.rests_on_void |= row.state is not State.VOID and not is_sound
        if self._authority.is_named(header.hash):
            self._authority.note_named(self._log.log_by_id(row.log))
            outcome.rests_on_void |= row.state is State.VOID
        return row

    def _take_entry(self, entry: Entry, signature: bytes | None, prev: EntryRow | None) -> EntryRow:
        return (self._take_data if entry.header.kind is Kind.DATA else self._take_act)(entry, signature, prev)

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

    def _take_act(self, entry: Entry, signature: bytes | None, prev: EntryRow | None) -> EntryRow:
        header = entry.header
        body = decode_body(self._log.blocks(header.hash, entry.body))
        if entry.body.form is BodyForm.WITHHELD:
            raise RemoteProtocolError(CloseCode.BAD_BODY, "the body of an act is withheld")
        if body:
            decode_act(header.kind, body)  # refuses what is malformed; unknown types are held
        self._new_acts.append(Act(header, body))
        return self._log.append(entry, signature, State.APPLIED, prev)

    def _take_data(self, entry: Entry, signature: bytes | None, prev: EntryRow | None) -> EntryRow:
        header = entry.header
        past: Past = self._authority.past_after(prev, header.control_heads)
        is_blocked = prev is not None and self._log.log_by_id(prev.log).is_blocked(prev.branch, prev.seq)
        changeset = None
        if header.body_hash == NO_BODY_HASH:
            entry = Entry(header, Body.of_blocks([]))  # an empty body is never missing
        if not self._authority.counts(header, prev, past):
            state = State.VOID
            self._log.drop_blocks(header.hash)
            if header.body_hash != NO_BODY_HASH:
                entry = Entry(header, Body.withheld(header.body_hash))
        elif entry.body.form is BodyForm.WITHHELD:
            state = State.MISSING  # by the acts that its sender knows it is void
        elif is_blocked:
            state = State.MISSING
            self._rows.decode(entry, past)
        else:
            changeset = self._rows.decode(entry, past)
            state = State.APPLIED if changeset is not None else State.ASIDE
        row = self._log.append(entry, signature, state, prev)
        self._authority.remember_past(row.id, past, prev)
        if changeset is not None and self._rows.apply(row.id, changeset) is State.ASIDE:
            self._log.set_state([row.id], State.ASIDE)
        return row

    # --- Detached bodies --------------------------------------------------------------------------------------------------------

    def _take_block(self, block: Block, sender: bytes, outcome: Outcome) -> None:
        if not self._bodies.is_staged(block.entry_hash):
            # Its run was parked or dropped, and is sent again with its blocks; or another session has completed it.
            known = self._log.find(block.entry_hash)
            if known is not None and self._log.is_told(known):
                outcome.held[self._log.log_by_id(known.log).key] = (known.seq, block.entry_hash)
            return
        taken = self._bodies.take_block(block)
        if taken is None:
            return
        run, is_complete = taken
        outcome.new.add(run.log)
        if not is_complete:
            return
        known = self._log.find(block.entry_hash)
        if known is None:
            awaited = self._partings.awaited(run) if self._partings.among([run], sender) else set()
            if awaited:
                self._bodies.stage(run)  # its blocks are kept, and counted, as long as it waits
                outcome.parked.append(_park(run, awaited, is_parting=True))
            else:
                self._apply_run(run, 0, outcome)
            return
        self._fill(run, 1, outcome)
        if not self._log.has_body(known.id):
            self._log.drop_blocks(block.entry_hash)  # it has become void while they came


def _park(run: Run, missing: set[bytes], *, is_parting: bool = False) -> Parked:
    last = run.last
    packed = Runs(0, canonical.encode([run_value(run)]))
    is_detached = run.entries[-1].body.form is BodyForm.DETACHED
    return Parked(packed, frozenset(missing), (run.log, (last.seq, last.hash)), is_parting, is_detached)
