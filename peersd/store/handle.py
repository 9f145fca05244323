"""The seam between the event loop and a store: SQLite is touched in threads only, one at a time a connection (DESIGN 2, 8)."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import TypeVar

import apsw
import trio

from peersd.crash_points import CrashPoint, reach
from peersd.errors import PeersdError
from peersd.store import limits
from peersd.store.batch import Success
from peersd.store.client_sql import QueryResult
from peersd.store.cutting import VoidedEntry
from peersd.store.reader import Reader
from peersd.store.sql_errors import convert_sqlite_error
from peersd.store.statements import Params
from peersd.store.store import Commit, FindCuts, Store, Write
from peersd.store.threads import Called, Threads, WorkerThreads
from peersd_protocol.admission import Presented
from peersd_protocol.canonical import Value
from peersd_protocol.entries import Header, Kind, LogKey
from peersd_protocol.messages import Block, Runs, Want
from peersd_protocol.replication import Chunk, Comparison, Cursor, Ingested, Read, SessionId
from peersd_protocol.runs import Run
from peersd_protocol.vectors import Vector

T = TypeVar("T")

_log = logging.getLogger("peersd.store")

READERS_MAX = 4
"""Queries of a group that run at once: a slow one must not hold up the others (guess)."""

CLASSIFY_S = 30.0
"""How long telling a statement's kind may wait for a reader (guess): as long as a query by default."""

QUEUED_REQUESTS_MAX = 4096
"""Writes that may wait for a group's committer before clients are told `busy` (guess: 16 full batches)."""


def _never(_: object) -> trio.lowlevel.Abort:
    """Of a wait that cancelling does not end."""
    return trio.lowlevel.Abort.FAILED


def _failed_inside() -> PeersdError:
    return PeersdError("store_corrupt", "The write failed inside.", hint="The daemon's log says more; please report it.")


def _closing() -> PeersdError:
    return PeersdError("busy", "The group is being closed.", hint="Try again once the daemon runs.", retry=True)


@dataclass(slots=True)
class _Waiting:
    """A write, and the task that waits for what became of it."""

    write: Write
    task: trio.lowlevel.Task
    outcome: Success | PeersdError | None = None

    def answer(self, outcome: Success | PeersdError) -> None:
        """The task goes on; the second time nothing happens."""
        if self.outcome is None:
            self.outcome = outcome
            trio.lowlevel.reschedule(self.task)


def _answer(batch: Sequence[_Waiting], outcomes: Sequence[Success | PeersdError], failure: PeersdError) -> None:
    """Answers a whole batch, what has no outcome with a failure."""
    for waiting, outcome in zip_longest(batch, outcomes, fillvalue=failure):
        assert isinstance(waiting, _Waiting) and not isinstance(outcome, _Waiting)
        waiting.answer(outcome)


class StoreHandle:
    """A store as tasks use it. Made by `open_store`.

    Attributes:
        on_acts: called on the event loop after a commit that changed the group's state, before `on_commit`.
        on_commit: called after every commit with what it added and the session it came by.
        state: the group's acts, evaluated; of what is durable, while the writer's thread may be further on.
        is_damaged: whether SQLite has found the file damaged.
        is_ahead: whether clients were answered of whose writes `on_commit` has not been told yet.
    """

    def __init__(self, store: Store, path: str | os.PathLike[str], threads: Threads) -> None:
        self.store = store
        self.state = store.state
        self._threads = threads
        self.path = os.fspath(path)
        self.on_commit: Callable[[Commit, SessionId | None], None] = lambda commit, origin: None
        self.on_acts: Callable[[], None] = lambda: None
        self._is_working = False
        self._is_committing = False
        self._turns: deque[Callable[[], None]] = deque()
        self._query_threads = trio.CapacityLimiter(READERS_MAX)
        self._idle_readers: deque[Reader] = deque()
        self._queue: deque[_Waiting] = deque()
        self._failed = trio.Event()
        self._failure: BaseException | None = None
        self.is_damaged = False
        self.is_ahead = False
        self._told = trio.Event()
        self._is_closed = False

    async def call(self, call: Callable[..., T], *args: object) -> T:
        """Runs `call(*args)` on the writer's thread; waits for its end even when cancelled, since the thread goes on.

        Raises:
            PeersdError: what SQLite raised, such as `store_full`; or what the call itself raises.
        """
        task = trio.lowlevel.current_task()
        ended: list[Called[T]] = []

        def done(called: Called[T]) -> None:
            ended.append(called)
            self._next_turn()
            trio.lowlevel.reschedule(task)

        self._take_turn(lambda: self._threads.start(done, call, *args))
        # As an Event in a shielded scope would, at a fourth of its cost.
        await trio.lowlevel.wait_task_rescheduled(_never)
        return self._result(ended[0])

    def _result(self, called: Called[T]) -> T:
        """What a call on the writer's thread returned.

        Raises:
            PeersdError: what SQLite raised, such as `store_full`; or what the call itself raised.
        """
        try:
            return called.result()
        except apsw.Error as error:
            failure = convert_sqlite_error(error)
            self._note_failure(failure)
            raise failure from error
        except OSError as error:  # the mark
            raise convert_sqlite_error(error) from error

    def _note_failure(self, failure: PeersdError) -> None:
        """Something could not be done with the file."""
        if failure.code == "store_corrupt" and not self.is_damaged:
            self.is_damaged = True
            _log.error("file_damaged", extra={"fields": {"file": os.path.basename(self.path), "reason": failure.message}})

    def _take_turn(self, start: Callable[[], None]) -> None:
        """Has `start` called when the writer's thread is free, now or after all that asked before: to begin a call there.

        Who is called back at that call's end calls `_next_turn`.
        """
        if self._is_working:
            self._turns.append(start)
        else:
            self._is_working = True
            start()

    def _next_turn(self) -> None:
        if self._turns:
            self._turns.popleft()()
        else:
            self._is_working = False

    def listen(self, sessions: int) -> None:
        """How many sessions want commits as messages: without any, none are made, and the mark waits too."""
        self.store.listeners = sessions

    @property
    def queued(self) -> int:
        """Writes that wait for the committer, at most QUEUED_REQUESTS_MAX."""
        return len(self._queue)

    def deadline_s(self, timeout_s: float) -> float:
        """The end of a time that begins now, on the clock that statements are given time by."""
        return self._threads.clock_s() + timeout_s

    # --- Writing ----------------------------------------------------------------------------------------------------------------

    async def write(self, write: Write) -> Success:
        """Queues a client's write for the next commit and returns what it did, after it is durable.

        Raises:
            PeersdError: `busy` if too many wait, or why the request failed.
        """
        if self._is_closed:
            raise _closing()
        if len(self._queue) >= QUEUED_REQUESTS_MAX:
            raise PeersdError("busy", "too many writes are waiting for this group", hint="try again", retry=True)
        waiting = _Waiting(write, trio.lowlevel.current_task())
        self._queue.append(waiting)
        if not self._is_committing:
            self._is_committing = True
            self._take_turn(self._start_batch)
        await trio.lowlevel.wait_task_rescheduled(_never)
        assert waiting.outcome is not None
        if isinstance(waiting.outcome, PeersdError):
            raise waiting.outcome
        return waiting.outcome

    async def run_committer(self) -> None:
        """Keeps the queue of writes open, which are committed batch by batch without waiting on a timer; does not return.

        Raises:
            Exception: a fault of ours, in telling of what was committed.
        """
        try:
            await self._failed.wait()
            assert self._failure is not None
            raise self._failure
        finally:
            self._is_closed = True
            while self._queue:
                self._queue.popleft().answer(_closing())

    def _start_batch(self) -> None:
        """It is the queue's turn: a batch of what waits in it will be committed."""
        batch: list[_Waiting] = []
        token = trio.lowlevel.current_trio_token()

        def answer_ahead(durable: Sequence[Success | PeersdError]) -> None:
            if batch[0].outcome is None:
                self.is_ahead = True
                _answer(batch, durable, _failed_inside())
            for outcome in durable:
                if isinstance(outcome, PeersdError):
                    self._note_failure(outcome)

        def write() -> Commit | None:
            # What came since is taken along.
            while self._queue and len(batch) < limits.BATCH_REQUESTS_MAX:
                batch.append(self._queue.popleft())
            if not batch:  # told that the group is being closed
                return None
            # The mark, a second fsync, is due before anything is sent to a peer: clients need not wait for it.
            writes = [waiting.write for waiting in batch]
            _, commit = self.store.write(writes, lambda durable: token.run_sync_soon(answer_ahead, durable))
            return commit

        self._threads.start_late(partial(self._end_batch, batch), write)

    def _end_batch(self, batch: Sequence[_Waiting], called: Called[Commit | None]) -> None:
        """A batch was committed, or could not be: tells of it, answers it whatever happens, and gives the turn on."""
        failure = _failed_inside()
        try:
            commit = self._result(called)
            reach(CrashPoint.BATCH_FENCED)
            self._tell(commit, None)
            reach(CrashPoint.BATCH_TOLD)
        except PeersdError as error:
            failure = error  # of this group's file: it fails the batch and nothing else
        except BaseException as error:  # noqa: BLE001 - nobody is told what is raised here: the committer raises it
            self._failure = error
            self._failed.set()
        finally:
            _answer(batch, (), failure)
            self.is_ahead = False
            self._told.set()
            self._told = trio.Event()
            self._is_committing = bool(self._queue)
            if self._is_committing:
                self._turns.append(self._start_batch)
            self._next_turn()

    async def wait_told(self) -> None:
        """Returns once `on_commit` has been told of whatever clients were answered before this call."""
        if self.is_ahead:
            await self._told.wait()

    async def act(self, user: bytes, kind: Kind, body: bytes) -> Header:
        """Writes one act; durable when it returns."""
        header, commit = await self.call(self.store.act, user, kind, body)
        self._tell(commit, None)
        reach(CrashPoint.ACT_TOLD)
        return header

    async def take_right(self, user: bytes, make_body: Callable[[FindCuts], bytes]) -> Header:
        """Writes an act that takes a right, see Store.take_right; durable when it returns.

        Args:
            user: who acts.
            make_body: runs on the writer's thread; gets Store.cuts and returns the act's encoded body.
        """
        header, commit = await self.call(self.store.take_right, user, make_body)
        self._tell(commit, None)
        return header

    async def write_own(self, user: bytes, statements: Sequence[tuple[str, tuple[Value, ...]]]) -> None:
        """See Store.write_own."""
        self._tell(await self.call(self.store.write_own, user, statements), None)

    def _tell(self, commit: Commit | None, origin: SessionId | None) -> None:
        self._tell_acts([commit])
        self._tell_entries(commit, origin)

    def _tell_acts(self, commits: Iterable[Commit | None]) -> None:
        """Tells of the acts of one transaction, before anything else of it is told.

        A session with a device that has ceased to be a member's ends before anything is pushed to it.
        """
        states = [commit.state for commit in commits if commit is not None and commit.state is not None]
        if states:
            self.state = states[-1]
            self.on_acts()

    def _tell_entries(self, commit: Commit | None, origin: SessionId | None) -> None:
        if commit is not None and (commit.entries or commit.vector is not None):
            self.on_commit(commit, origin)

    # --- Replication ------------------------------------------------------------------------------------------------------------

    async def take(
        self, messages: Sequence[tuple[Runs | Block, bytes]], origin: SessionId | None, taken: Callable[[Ingested], None]
    ) -> None:
        """Takes messages in, in one transaction.

        Args:
            messages: see Store.take_all.
            origin: the session they came by.
            taken: called of each, once `on_commit` has been told what it committed.

        Raises:
            RemoteProtocolError: nothing of the messages was kept.
        """
        outcomes = await self.call(self.store.take_all, messages)
        reach(CrashPoint.INTAKE_FENCED)
        self._tell_acts(commit for _, commit in outcomes)
        for ingested, commit in outcomes:
            self._tell_entries(commit, origin)
            taken(ingested)
        reach(CrashPoint.INTAKE_TOLD)

    async def take_runs(self, runs: Sequence[Run]) -> None:
        """Takes in runs that are at hand, such as a joining user's identity log.

        Raises:
            RemoteProtocolError: nothing of them was kept.
        """
        self._tell(await self.call(self.store.take_runs, runs), None)

    async def compare(self, vector: Vector) -> Comparison:
        """See streams.compare."""
        return await self.call(self.store.compare, vector)

    async def locate(self, want: Want) -> tuple[dict[LogKey, tuple[int, int]], Cursor] | None:
        """See streams.locate."""
        return await self.call(self.store.locate, want)

    async def look_up(self, hashes: tuple[bytes, ...]) -> tuple[Vector, tuple[bytes, ...]]:
        """See streams.look_up."""
        return await self.call(self.store.look_up, hashes)

    async def read(self, read: Read) -> Chunk:
        """See streams.read_stream."""
        return await self.call(self.store.read, read)

    async def farewell(self, device: bytes) -> list[bytes]:
        """See Store.farewell."""
        return await self.call(self.store.farewell, device)

    async def plea(self, device: bytes, *, is_last: bool = False) -> bytes | None:
        """See Store.plea."""
        return await self.call(lambda: self.store.plea(device, is_last=is_last))

    async def take_plea(self, message: bytes, sender: bytes) -> tuple[bool, list[bytes]]:
        """Whether something of a plea was taken, and else what is to be said against it, see Store.take_plea.

        Raises:
            RemoteProtocolError: it is none; nothing was kept.
        """
        commit, rebuttal = await self.call(self.store.take_plea, message, sender)
        self._tell(commit, None)
        return commit is not None, rebuttal

    async def admit(self, presented: Presented, message: bytes, wall_ms: int) -> None:
        """Lets in who redeems an invite, see Store.admit; durable when it returns.

        Raises:
            NotAdmitted: it is not let in.
        """
        commits: list[Commit] = []
        try:
            is_new = await self.call(self.store.admit, presented, message, wall_ms, commits.append)
        finally:
            for commit in commits:
                self._tell(commit, None)
        if is_new:
            reach(CrashPoint.ACT_TOLD)

    async def voided(self, user: bytes) -> list[VoidedEntry]:
        """See Store.voided."""
        return await self.call(self.store.voided, user)

    # --- Reading ----------------------------------------------------------------------------------------------------------------

    async def query(self, sql: str, params: Params, rows_max: int, timeout_s: float) -> QueryResult:
        """Runs one read-only statement of a client on a connection apart from the writer.

        Raises:
            PeersdError: `sql_refused`, with `kind` for what sql.execute would take; `sql_error`, `timeout`, `too_large`.
        """
        deadline_s = self.deadline_s(timeout_s)

        def run(reader: Reader) -> QueryResult:
            schema = self.state.schema
            left_s = max(0.0, deadline_s - self._threads.clock_s())

            def is_abandoned() -> bool:
                return self.store.is_closing or self._threads.is_abandoned()

            try:
                return reader.query(schema, sql, params, rows_max=rows_max, timeout_s=left_s, is_abandoned=is_abandoned)
            except PeersdError as error:
                raise _closing() if self.store.is_closing else error from None

        return await self._read_only(run, timeout_s)

    async def is_schema(self, sql: str, params: Params) -> bool:
        """Whether a client's statement is about tables and indexes, as SQLite sees it.

        Raises:
            PeersdError: `sql_error`, `sql_refused`: it would not run at all.
        """
        return await self._read_only(lambda reader: reader.classify(self.state.schema, sql, params) == "schema", CLASSIFY_S)

    async def _read_only(self, call: Callable[[Reader], T], wait_s: float) -> T:
        """Runs `call` in a thread with a reader that nobody else uses meanwhile.

        Raises:
            PeersdError: `busy` if no reader became free in `wait_s`; what `call` raises.
        """

        def run() -> T:
            try:
                reader = self._idle_readers.pop()
            except IndexError:
                try:
                    reader = Reader(self.path, self._threads.clock_s, self.store.uuid7, self.store.vfs)
                except apsw.Error as error:
                    raise convert_sqlite_error(error) from error
            try:
                return call(reader)
            finally:
                self._idle_readers.append(reader)

        # A thread that runs is not called back by this; only waiting for one is.
        with trio.move_on_after(wait_s):
            return await self._threads.run(run, limiter=self._query_threads)
        raise PeersdError("busy", "Too many queries of this group are running.", hint="Try again in a moment.", retry=True)

    async def aclose(self) -> None:
        """Closes the connections."""
        with trio.CancelScope(shield=True):
            for _ in range(READERS_MAX):  # until no query runs any more
                await self._query_threads.acquire_on_behalf_of(object())
            for reader in self._idle_readers:
                reader.close()
            await self.call(self.store.close)


@asynccontextmanager
async def open_store(
    open_: Callable[[], Store], path: str | os.PathLike[str], threads: Threads | None = None
) -> AsyncGenerator[StoreHandle, None]:
    """Opens a store in a thread, runs its committer, and closes it in the end.

    Args:
        open_: opens or makes the store.
        path: its file.
        threads: where calls run; None for worker threads.
    """
    threads = threads or WorkerThreads()
    store = await threads.run(open_)
    handle = StoreHandle(store, path, threads)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.run_committer)
            try:
                yield handle
            finally:
                store.is_closing = True  # a client's statement that still runs comes to its end now
                nursery.cancel_scope.cancel()
    finally:
        await handle.aclose()
