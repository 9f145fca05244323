"""One group's store: its SQLite file, logs, merge and tables behind one face (DESIGN 6 to 8).

Synchronous: the daemon calls it in a worker thread (handle.py), the simulator inline.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast

import apsw

from peersd.crash_points import CrashPoint, reach
from peersd.errors import PeersdError
from peersd.store import database, streams
from peersd.store.authority import Authority
from peersd.store.batch import Request, Success, run_batch
from peersd.store.capture import Capture
from peersd.store.changes import SQLValue
from peersd.store.cutting import VoidedEntry, find_cuts, find_voided
from peersd.store.epochs import Epochs
from peersd.store.intake import Intake, Outcome
from peersd.store.late_bodies import LateBodies
from peersd.store.log import Log
from peersd.store.mark import MarkKeeper
from peersd.store.merge import Merge
from peersd.store.pleas import as_plea, weigh
from peersd.store.reader import admit_schema
from peersd.store.recorder import EntryRecorder
from peersd.store.refusals import not_allowed
from peersd.store.restating import Restating
from peersd.store.rows import Rows
from peersd.store.sandbox import Sandbox
from peersd.store.schema_plan import plan_schema
from peersd.store.sealing import SEALED_EVERY
from peersd.store.sql_errors import CORRUPT_HINT, convert_sqlite_error
from peersd.store.writer import Writer
from peersd_protocol import canonical
from peersd_protocol.acts import Cuts, decode_act, encode_body
from peersd_protocol.admission import NotAdmitted, Presented, judge
from peersd_protocol.canonical import Value
from peersd_protocol.constants import ACT_BYTES_MAX, STREAM_MESSAGE_BYTES
from peersd_protocol.entries import Act, Header, Kind, LogKey
from peersd_protocol.errors import RemoteProtocolError
from peersd_protocol.group_state import GroupState
from peersd_protocol.messages import Block, Runs, Want, decode_runs, encode_runs
from peersd_protocol.replication import Chunk, Committed, Comparison, Cursor, Ingested, Read
from peersd_protocol.roles import ROLE_NEEDED, Deed, may
from peersd_protocol.runs import BodyForm, Entry, Run, run_value
from peersd_protocol.schema_ops import SchemaOp
from peersd_protocol.signing import SigningKey
from peersd_protocol.vectors import Vector

_log = logging.getLogger("peersd.store")

FindCuts: TypeAlias = Callable[..., Cuts]
"""Store.cuts."""

FORMAT: Final = 1

_BEYOND: Final = """SELECT count(*), coalesce(sum(length(body)
      + (SELECT coalesce(sum(length(data)), 0) FROM _peers_block b WHERE b.entry = e.hash)), 0)
    FROM _peers_entry e WHERE log = ? AND seq > ? AND state IN (1, 2, 3)"""

_BEYOND_IN_SEGMENTS: Final = """SELECT coalesce(sum(beyond), 0), coalesce(sum(length(packed) * beyond / count), 0)
    FROM (SELECT min(count, seq - ?2) AS beyond, count, packed FROM _peers_segment WHERE log = ?1 AND seq > ?2)"""
"""Packed as they are, and of a segment that is held in part, in proportion."""


@dataclass(frozen=True)
class StoreContext:
    """What every store of a device has in common.

    Attributes:
        key: the device's signing key.
        wall_ms: the clock, milliseconds since 1970.
        entropy: makes random bytes of a length.
        machine: the machine's id (see mark.py).
        uuid7: what the SQL function calls, or None for the real one.
        clock_s: seconds of the monotonic clock that clients' deadlines are on.
        vfs: the SQLite VFS that files are opened through; empty for SQLite's own.
        sealed_every: entries of a branch from one sealing to the next; few, where logs are short and sealing is to be tested.
    """

    key: SigningKey
    wall_ms: Callable[[], int]
    entropy: Callable[[int], bytes]
    machine: bytes
    uuid7: Callable[[], str] | None = None
    clock_s: Callable[[], float] = time.monotonic
    vfs: str = ""
    sealed_every: int = SEALED_EVERY


@dataclass(frozen=True, slots=True)
class Commit:
    """What one transaction made durable.

    Attributes:
        entries: the entries that count, in order.
        message: a RUNS message of exactly these, where that is small enough to be sent at once.
        vector: what is held now, where it does not follow from `entries`.
        state: the group as it is now, where acts came; else None.
    """

    entries: tuple[Committed, ...]
    message: bytes | None
    vector: Vector | None
    state: GroupState | None


@dataclass(frozen=True, slots=True)
class Write:
    """A client's write: who acts, and the request."""

    user: bytes
    request: Request


class Store:
    """A group's store. Made by `create_store` or `open_store`.

    Attributes:
        group: the group's id.
        log: its logs.
        listeners: how many sessions want commits as messages; one of them brought what is taken in, and does not want it back.
        is_closing: set from outside when no client's statement is to go on.
        uuid7: what the SQL function calls, or None for the real one.
        vfs: the SQLite VFS that the file is opened through; empty for SQLite's own.
    """

    listeners = 0
    is_closing = False

    def __init__(
        self, path: str | os.PathLike[str], context: StoreContext, mark: MarkKeeper, group: bytes | None, *, is_new: bool
    ) -> None:
        self.uuid7 = context.uuid7
        self.vfs = context.vfs
        self._context = context
        self._path = os.fspath(path)
        self._connection = _open_file(path, context)
        try:
            self._sandbox = Sandbox()
            self._sandbox.install(self._connection)
            self._capture = Capture(self._connection)
            self._capture.install()
            # Deferred: what finds nothing to change needs no lock, and can be read while another program holds the file's.
            with _Transaction(self._connection, "DEFERRED"):
                self.log = Log(self._connection, group or b"", context.sealed_every)
                self._open_meta(group, is_new=is_new)
                self._authority = Authority(self._connection, self.log)
                self._restating = Restating(self._connection, self.log, self._authority)
                self._merge = Merge(self._connection, self.log.rank, self._capture.paused)
                self._rows = Rows(self.log, self._authority, self._merge)
                if self._merge.set_schema(self.state.schema):
                    self._rows.rebuild()
                device = context.key.public
                self._epochs = Epochs(self.log, mark, device, context.machine, self._path, context.entropy)
                self._writer = Writer(self.log, self._authority, context.key, self._epochs, context.wall_ms)
            self._admit_tables()
            bodies = LateBodies(self._connection, self.log, self._authority, self._rows)
            hold = self._restating.hold_ancestors
            self._intake = Intake(self.log, self._authority, self._rows, bodies, self._restate, hold)
        except BaseException as error:
            self._connection.close(force=True)
            if isinstance(error, PeersdError) or not isinstance(error, Exception):
                raise
            # Whatever stands in one group's file, and however it came there, must not end what the daemon does for the others.
            if not isinstance(error, (apsw.Error, OSError, RemoteProtocolError)):
                _log.exception("file_unreadable", extra={"fields": {"file": os.path.basename(self._path)}})
            raise _unusable(self._path, error) from error

    def _open_meta(self, group: bytes | None, *, is_new: bool) -> None:
        stored = self.log.load_meta("group")
        if stored is None:
            if group is None or not is_new:
                raise PeersdError("store_corrupt", f"{self._path} holds no group", hint=CORRUPT_HINT)
            self.log.save_meta("format", FORMAT)
            self.log.save_meta("group", group)
            stored = group
        if self.log.load_meta("format") != FORMAT:
            raise PeersdError("needs_upgrade", f"{self._path} was written by a later version", hint="upgrade peersd")
        if group is not None and stored != group:
            raise PeersdError("store_corrupt", f"{self._path} holds another group", hint=CORRUPT_HINT)
        assert isinstance(stored, bytes)
        self.group = self.log.group = stored

    # --- What the store is ------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> GroupState:
        """The group's acts, evaluated."""
        return self._authority.state

    @property
    def epoch(self) -> bytes:
        """The epoch this device writes in."""
        return self._epochs.current

    def vector(self) -> Vector:
        """What is held, safe to be told: the mark is beyond it."""
        self.fence()
        return self.log.vector()

    def identity_runs(self, user: bytes) -> list[Run]:
        """The whole identity log of a user, as far as it is held here."""
        return self._runs("log IN (SELECT id FROM _peers_log WHERE kind = 1 AND user = ?) AND state > 0 ORDER BY id", (user,))

    def _runs(self, where: str, bindings: Sequence[object]) -> list[Run]:
        runs: list[Run] = []
        open_: list[Entry] = []
        for _, entry, _, signature in self.log.entries(where, bindings):
            open_.append(entry)
            if signature is not None:
                runs.append(Run(tuple(open_), signature))
                open_ = []
        return runs

    def lag(self, durable: Vector) -> tuple[int, int]:
        """How much of what is held here lies beyond a vector: entries, and bytes of their bodies."""
        entries = size = 0
        for row in self.log.logs():
            held = max((seq for seq, _ in durable.get(row.key, ())), default=0)
            for query in (_BEYOND, _BEYOND_IN_SEGMENTS):
                beyond = self._connection.execute(query, (row.id, held)).fetchone()
                assert beyond is not None
                entries += cast(int, beyond[0])
                size += cast(int, beyond[1])
        return entries, size

    def load_local(self, key: str) -> Value:
        """A value that this device keeps with the store and shares with nobody."""
        return self.log.load_meta(f"local_{key}")

    def save_local(self, key: str, value: Value) -> None:
        """Sets such a value, durably."""
        with self._transaction():
            self.log.save_meta(f"local_{key}", value)

    # --- Transactions and the mark ----------------------------------------------------------------------------------------------

    def _transaction(self) -> _Transaction:
        return _Transaction(self._connection)

    def _reload(self) -> None:
        """After a rollback: memory may be ahead of the file."""
        self._writer.reset()
        self.log.reload()
        self._epochs.reload()
        self._authority.reload()
        if self._merge.set_schema(self.state.schema):
            raise AssertionError("a rollback leaves the tables as they were")

    def adopt_epoch(self, epoch: bytes) -> None:
        """Goes on in the epoch that a genesis was written in, before anything else is."""
        with self._transaction():
            self._epochs.adopt(epoch)

    def fence(self) -> None:
        """Makes sure that the mark is on disk before an entry that it covers is first sent; HAVE may tell of it ahead."""
        self._epochs.fence()

    # --- Writing here -----------------------------------------------------------------------------------------------------------

    def write(
        self, writes: Sequence[Write], committed: Callable[[list[Success | PeersdError]], None] = lambda outcomes: None
    ) -> tuple[list[Success | PeersdError], Commit | None]:
        """Runs clients' writes in one transaction; each that changes rows becomes an entry of its own.

        Args:
            writes: at most BATCH_REQUESTS_MAX.
            committed: called with the outcomes once they are durable, before the mark is written and anything made for peers.

        Returns:
            An outcome for each, and what was committed, or None if nothing was.
        """
        refusals = {index: refusal for index, write in enumerate(writes) if (refusal := self._refusal(write.user, Deed.WRITE))}
        admitted = [write for index, write in enumerate(writes) if index not in refusals]
        recorder = EntryRecorder(self.log, self._merge, self._writer, [write.user for write in admitted], self._reload)
        requests = [write.request for write in admitted]
        self._writer.reset()
        try:
            outcomes = self._run_batch(requests, recorder) if requests else []
        except BaseException:
            self._reload()
            raise
        if recorder.is_ahead and not any(isinstance(outcome, Success) for outcome in outcomes):
            self._reload()  # COMMIT, or a statement of ours before it: what was recorded does not exist
        done = iter(outcomes)
        all_outcomes = [refusals.get(index) or next(done) for index in range(len(writes))]
        committed(all_outcomes)
        return all_outcomes, self._take_commit()

    def _run_batch(self, requests: Sequence[Request], recorder: EntryRecorder) -> list[Success | PeersdError]:
        def clock() -> float:
            return math.inf if self.is_closing else self._context.clock_s()

        return run_batch(self._connection, self._sandbox, self._capture, requests, recorder, clock=clock)

    def write_own(self, user: bytes, statements: Sequence[tuple[str, tuple[Value, ...]]]) -> Commit | None:
        """Runs statements of the daemon itself on its own tables (`peers_…`), as one entry, without the clients' sandbox."""
        recorder = EntryRecorder(self.log, self._merge, self._writer, [user], self._reload)
        recorder.restart()
        try:
            with self._transaction():
                for sql, params in statements:
                    self._connection.execute(sql, cast("tuple[SQLValue, ...]", params))
                changes = self._capture.take()
                if changes:
                    recorder.record(0, changes)
                recorder.finish()
                reach(CrashPoint.OWN_RECORDED)
        except BaseException:
            self._capture.discard()
            self._reload()
            raise
        reach(CrashPoint.OWN_COMMITTED)
        return self._take_commit()

    def _refusal(self, user: bytes, deed: Deed) -> PeersdError | None:
        if may(self.state.role_of(user), deed):
            device = self._context.key.public
            if deed is not Deed.WRITE or self._authority.may_write_now(user, device):
                return None
            return PeersdError("not_allowed", "This device may not write here for that user any more.", hint="Join again.")
        return not_allowed(self.state, user, ROLE_NEEDED[deed], self.state.bans)

    def plan_schema(self, user: bytes, sql: str) -> list[SchemaOp]:
        """The operations that a client's schema statement comes to; none where it changes nothing.

        Raises:
            PeersdError: `schema_refused`, `sql_error`, `not_allowed`.
        """
        if refusal := self._refusal(user, Deed.CHANGE_SCHEMA):
            raise refusal
        return plan_schema(sql, self.state.schema)

    def act(self, user: bytes, kind: Kind, raw_body: bytes) -> tuple[Header, Commit | None]:
        """Writes one act of this device. Whether the user may do it is the caller's to check first: an act that does not stand is
        refused here.

        Raises:
            PeersdError: `not_allowed` if it would not stand.
        """
        return self._act(user, kind, lambda: raw_body)

    def take_right(self, user: bytes, make_body: Callable[[FindCuts], bytes]) -> tuple[Header, Commit | None]:
        """Writes an act that takes a right, with cuts at what is here now: nothing comes between them and the act.

        Args:
            user: who acts.
            make_body: gets `cuts` and returns the act's encoded body.

        Raises:
            PeersdError: `not_allowed` if it would not stand.
        """
        return self._act(user, Kind.CONTROL, lambda: make_body(self.cuts))

    def cuts(self, user: bytes, kinds: Collection[Kind] | None = None, device: bytes | None = None) -> Cuts:
        """See find_cuts."""
        return find_cuts(self.log, user, kinds, device)

    def _act(self, user: bytes, kind: Kind, make_body: Callable[[], bytes]) -> tuple[Header, Commit | None]:
        self._writer.reset()
        try:
            with self._transaction():
                raw_body = make_body()
                written = self._writer.append(kind, user, raw_body, is_last=True)
                self._restate([Act(written.header, canonical.decode(raw_body, bytes_max=ACT_BYTES_MAX))])
                if written.header.hash not in self.state.standing:
                    raise PeersdError(
                        "not_allowed", "the group's rules do not allow this", hint="see `peers members` for your role"
                    )
                self.log.settle()
                reach(CrashPoint.ACT_RECORDED)
        except BaseException:
            self._reload()
            raise
        reach(CrashPoint.ACT_COMMITTED)
        self._admit_tables()
        return written.header, self._take_commit(self.state)

    def _take_commit(self, state: GroupState | None = None) -> Commit | None:
        committed, runs = tuple(self._writer.committed), self._writer.runs
        self._writer.reset()
        if not committed:
            return None
        self._epochs.note_written()
        vector = self.log.vector() if state is not None or self._is_forked(committed) else None
        return Commit(committed, self._encode_small(runs), vector, state)

    def _encode_small(self, runs: Sequence[Run]) -> bytes | None:
        """The runs as one message, if that is small and complete in itself; then it may be sent as it is, so the mark is set."""
        if not self.listeners or not runs or not self._are_small(runs):
            return None
        bodies = [entry.body for run in runs for entry in run.entries]
        if any(body.form is not BodyForm.INLINE for body in bodies):
            return None
        try:
            self.fence()
        except OSError:
            return None  # the entries are durable all the same; a stream tells of them once the mark can be written
        return encode_runs(runs)

    def _are_small(self, runs: Sequence[Run]) -> bool:
        """Whether runs are few enough bytes to be sent at once."""
        return sum(map(streams.run_bytes_estimated, runs)) <= STREAM_MESSAGE_BYTES // 2

    def _is_forked(self, committed: Iterable[Committed]) -> bool:
        rows = [self.log.log(entry.log) for entry in committed]
        return any(row is not None and row.forked for row in rows)

    # --- Taking in --------------------------------------------------------------------------------------------------------------

    def take(self, packed: Runs | Block, sender: bytes = b"") -> tuple[Ingested, Commit | None]:
        """Takes in a message of another device; see `take_all`."""
        (taken,) = self.take_all([(packed, sender)])
        return taken

    def take_all(self, messages: Sequence[tuple[Runs | Block, bytes]]) -> list[tuple[Ingested, Commit | None]]:
        """Takes in messages of other devices, one after the other and in one transaction.

        Args:
            messages: each with the device that sent it: an act by which that goes waits for what it wrote before. Empty where
                nothing waits.

        Returns:
            What each has brought, to be told in this order.

        Raises:
            RemoteProtocolError: something in one of them is not as SPEC says; nothing of any of them was kept.
        """
        rows_changed = self._connection.total_changes()
        outcomes: list[Outcome] = []
        try:
            with self._transaction(), self._capture.paused():
                for packed, sender in messages:
                    # One by one: what a message becomes in memory has a bound for one of them.
                    received = packed if isinstance(packed, Block) else decode_runs(packed, self.group)
                    outcome = self._intake.take(received, sender)
                    if self.listeners < 2 or not self._are_small(outcome.runs):
                        outcome.runs = []
                    outcomes.append(outcome)
                reach(CrashPoint.INTAKE_APPLIED)
        except BaseException as error:
            # What is kept in memory changes with the rows alone, so before those it is still what the file says.
            if not isinstance(error, RemoteProtocolError) or self._connection.total_changes() != rows_changed:
                self._reload()
            raise
        reach(CrashPoint.INTAKE_COMMITTED)
        return [self._taken(outcome) for outcome in outcomes]

    def _taken(self, outcome: Outcome) -> tuple[Ingested, Commit | None]:
        """What is told of a message that was taken in, by what the store holds now."""
        if not outcome.committed and not outcome.irregular:
            return outcome.ingested, None
        acts_changed = any(entry.log.kind is not Kind.DATA for entry in outcome.committed)
        if acts_changed:
            self._admit_tables()
        if not acts_changed and not outcome.irregular:
            message = self._encode_small(outcome.runs) if outcome.is_whole else None
            return outcome.ingested, Commit(tuple(outcome.committed), message, None, None)
        # Acts may have ended what other entries of this message, or they themselves, count for: void ones are not passed on.
        each = [one for entry in outcome.committed for one in entry.each()]
        rows = [(entry, self.log.find(entry.hash)) for entry in each]
        held = tuple(entry for entry, row in rows if row is not None and self.log.is_told(row))
        # What came as something that counts, and does not any more, may be waited for all the same.
        outcome.void += [entry.hash for entry, row in rows if row is None or not self.log.is_told(row)]
        # Its sender, who sent those acts, does not hold it either.
        for log, (_, hash_) in list(outcome.held.items()):
            found = self.log.find(hash_)
            if found is None or not self.log.is_told(found):
                outcome.void_tips.append((log, outcome.held.pop(log)))
        is_whole = outcome.is_whole and len(held) == len(each)
        message = self._encode_small(outcome.runs) if is_whole else None
        return outcome.ingested, Commit(held, message, self.log.vector(), self.state if acts_changed else None)

    def take_runs(self, runs: Sequence[Run]) -> Commit | None:
        """Takes in runs that this device already has at hand, such as an identity log from another of its stores."""
        return self.take(Runs(0, canonical.encode([run_value(run) for run in runs])))[1]

    def _restate(self, acts: list[Act]) -> bool:
        for act in acts:
            decode_act(act.header.kind, act.body)
        before = self.state.standing
        if acts:
            self._authority.add(acts)
        changed = self._restating.restate()
        # Entries that refer to an act are shown while it stands, and kept aside while it does not, though another one may have
        # defined the same table or column alike.
        turned = (self.state.standing ^ before) - {act.hash for act in acts}
        if self._merge.set_schema(self.state.schema) or changed or turned:
            self._rows.rebuild()
            reach(CrashPoint.TABLES_REBUILT)
        return changed

    def _admit_tables(self) -> None:
        self._capture.watch(self.state.schema.tables)
        admit_schema(self._sandbox, self.state.schema)

    def rebuild(self) -> None:
        """Makes all tables and clocks anew from the logs."""
        with self._transaction():
            self._rows.rebuild()

    # --- Serving ----------------------------------------------------------------------------------------------------------------

    def compare(self, vector: Vector) -> Comparison:
        """What a remote vector shows to be missing here."""
        return streams.compare(self.log, vector)

    def locate(self, want: Want) -> tuple[dict[LogKey, tuple[int, int]], Cursor] | None:
        """Where what a WANT asks for begins."""
        return streams.locate(self.log, want)

    def look_up(self, hashes: tuple[bytes, ...]) -> tuple[Vector, tuple[bytes, ...]]:
        """The logs in which these entries stand, and those of them that are not void and that nobody is told of."""
        return streams.look_up(self.log, hashes)

    def read(self, read: Read) -> Chunk:
        """The next messages of a stream."""
        self.fence()
        device = self._context.key.public
        is_members = any(device in member.devices for member in self.state.members.values() if member.role)
        return streams.read_stream(self.log, read, acts_first=is_members)

    def farewell(self, device: bytes) -> list[bytes]:
        """The messages from which a device that is no member's any more learns why: acts in order, nothing of anybody's data.

        Returns:
            RUNS messages, each of at most about STREAM_MESSAGE_BYTES; BLOCK messages follow an act with a large body. Empty for a
            device of a member, and for one that never was.
        """
        self.fence()
        return streams.read_farewell(self.log, self.state.farewell(device))

    def plea(self, device: bytes, *, is_last: bool = False) -> bytes | None:
        """The message that shows a device, which holds it or this one for no member's, what the acts here say of the two.

        Args:
            device: to a member's device all acts that stand are shown, to any other its farewell.
            is_last: whether it is for what is known here and may not be there: this device was told that it is no member's.

        Returns:
            None if there is nothing to show, or more than fits.
        """
        self.fence()
        state = self.state
        is_members = bool(state.is_member_device(device))
        if is_last and not (is_members and state.has_news(self._context.key.public)):
            return None
        return as_plea(self.log.group, streams.read_farewell(self.log, state.standing if is_members else state.farewell(device)))

    def take_plea(self, message: bytes, sender: bytes) -> tuple[Commit | None, list[bytes]]:
        """Takes of a plea what changes who is a member.

        Args:
            message: the plea.
            sender: the device that sent it. One of a member's need not plead with another: a session of the two brings all, and
                what its user wrote before it left before the leave.

        Returns:
            What was committed, None if that is nothing; and then the messages from which who pleaded in vain learns what it had
            not heard of, as a farewell's, which they hold. None of these if there is nothing to be said beside its farewell.

        Raises:
            RemoteProtocolError: it is none, or a signature in it is not good; nothing was kept.
        """
        state, device = self.state, self._context.key.public
        if state.is_member_device(sender) and state.is_member_device(device):
            return None, []
        runs, said = weigh(state, message, sender)
        if runs:
            return self.take_runs(runs), []
        if not said:
            return None, []
        self.fence()
        return None, streams.read_farewell(self.log, said)

    def admit(self, presented: Presented, message: bytes, wall_ms: int, committed: Callable[[Commit], None]) -> bool:
        """Lets in who redeems an invite: takes in its identity log and makes its user a member.

        Args:
            presented: the redemption.
            message: what followed it, see `judge`.
            wall_ms: the clock by which the invite expires, milliseconds since 1970.
            committed: called with what has become durable; with the identity log, too, where the act cannot be written then.

        Returns:
            Whether the user was made a member: one who is a member already is let in as it is.

        Raises:
            NotAdmitted: as O-11 says; nothing was kept, but the identity log where it was good and only the act does not stand.
        """
        admitting, runs = judge(self.state, presented, message, self._context.key.public, wall_ms)
        try:
            known = self.take_runs(runs)
        except RemoteProtocolError as error:
            raise NotAdmitted("invite_invalid", error) from error
        if known is not None:
            committed(known)
        if self.state.role_of(presented.redemption.user):
            return False
        reach(CrashPoint.ADMISSION_BEGUN)
        try:
            _, commit = self.act(admitting, Kind.CONTROL, encode_body(presented.act()))
        except PeersdError as error:
            raise NotAdmitted("invite_invalid") from error
        assert commit is not None
        committed(commit)
        return True

    # --- Looking ----------------------------------------------------------------------------------------------------------------

    def voided(self, user: bytes) -> list[VoidedEntry]:
        """What a user wrote on this device and does not count: voided by an act that takes a right."""
        return find_voided(self.log, user, self._context.key.public)

    def dump(self) -> dict[str, list[tuple[Value, ...]]]:
        """The application tables, rows sorted by key."""
        return self._merge.dump()

    def dump_clocks(self) -> object:
        """The clocks of all rows, comparable between replicas."""
        return self._merge.dump_clocks()

    def close(self) -> None:
        """Closes the file. A mark that cannot be written means a new epoch when the store is opened again, and no harm."""
        with suppress(OSError):
            self.fence()
        reach(CrashPoint.STORE_FENCED)
        self._connection.close()
        reach(CrashPoint.STORE_CLOSED)


def _unusable(path: str, error: Exception) -> PeersdError:
    """Why a file cannot be opened: SQLite's own reason where it has one, else that what stands in it makes no sense."""
    if isinstance(error, (apsw.Error, OSError)):
        failure = convert_sqlite_error(error)
        return PeersdError(failure.code, f"{os.path.basename(path)}: {failure.message}", hint=failure.hint, retry=failure.retry)
    reason = str(error) if isinstance(error, RemoteProtocolError) else repr(error)
    return PeersdError("store_corrupt", f"{os.path.basename(path)} cannot be used: {reason}.", hint=CORRUPT_HINT)


def _open_file(path: str | os.PathLike[str], context: StoreContext) -> apsw.Connection:
    try:
        return database.open_writer(path, uuid7=context.uuid7, vfs=context.vfs)
    except (apsw.Error, OSError) as error:
        raise _unusable(os.fspath(path), error) from error


class _Transaction:
    """BEGIN … COMMIT, or ROLLBACK when the body raises."""

    def __init__(self, connection: apsw.Connection, mode: Literal["IMMEDIATE", "DEFERRED"] = "IMMEDIATE") -> None:
        self._connection = connection
        self._mode = mode

    def __enter__(self) -> None:
        self._connection.execute(f"BEGIN {self._mode}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if kind is not None:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            return
        self._connection.execute("COMMIT")


def create_store(
    path: str | os.PathLike[str],
    context: StoreContext,
    mark: MarkKeeper,
    group: bytes,
    runs: Sequence[Run] = (),
    epoch: bytes | None = None,
) -> Store:
    """Makes a store for a group.

    Args:
        path: its file.
        context: see Store.
        mark: see Store.
        group: the group's id.
        runs: what it begins with: the founder's identity log and the genesis, or nothing before a join.
        epoch: the epoch that the genesis was written in, so that this device's logs go on from it.
    """
    is_new = not os.path.exists(path)
    store: Store | None = None
    try:
        store = Store(path, context, mark, group, is_new=True)
        reach(CrashPoint.STORE_CREATED)
        if epoch is not None:
            store.adopt_epoch(epoch)
        if runs:
            store.take_runs(runs)
        reach(CrashPoint.STORE_FILLED)
    except BaseException:
        if store is not None:
            store.close()
        for suffix in ("-wal", "-shm", "") if is_new else ():
            with suppress(FileNotFoundError):
                os.unlink(f"{os.fspath(path)}{suffix}")
        raise
    return store


def open_store(path: str | os.PathLike[str], context: StoreContext, mark: MarkKeeper, group: bytes | None = None) -> Store:
    """Opens the store in a file.

    Args:
        path: its file.
        context: see Store.
        mark: see Store.
        group: the id of the group that the file has to hold; None for any.

    Raises:
        PeersdError: `store_corrupt`, also where it holds another group, or none; `needs_upgrade`.
    """
    return Store(path, context, mark, group, is_new=False)
