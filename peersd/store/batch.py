"""Group commit: many clients' requests in one SQLite transaction, each alone in what fails (DESIGN 8)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import apsw

from peersd.crash_points import CrashPoint, reach
from peersd.errors import PeersdError
from peersd.store import limits
from peersd.store.capture import Capture
from peersd.store.changes import TableChanges
from peersd.store.client_sql import Statement, WriteResult, run_write
from peersd.store.sandbox import Sandbox
from peersd.store.sql_errors import convert_sqlite_error
from peersd.store.watch import Clock, watch_statement

_SAVEPOINT: Final = "SAVEPOINT _peers_request"
_RELEASE: Final = "RELEASE _peers_request"
_UNDO: Final = ("ROLLBACK TO _peers_request", _RELEASE)
_BEGIN_ANEW: Final = ("ROLLBACK", "BEGIN IMMEDIATE")


@dataclass(frozen=True)
class Request:
    """One client's call: its statements stand or fall together.

    Attributes:
        statements: run in order.
        deadline_s: on the clock of `run_batch`.
    """

    statements: Sequence[Statement]
    deadline_s: float


@dataclass(frozen=True)
class Success:
    """A request that is committed: what each statement answered, and what the recorder made of it (None: nothing changed)."""

    results: list[WriteResult]
    recorded: object | None


class Recorder(Protocol):
    """Makes entries of requests, inside the transaction. Whatever it keeps in memory counts only after COMMIT."""

    def restart(self) -> None:
        """The transaction begins, perhaps again: forget what this batch recorded before."""

    def record(self, index: int, changes: list[TableChanges]) -> object | None:
        """A request succeeded and changed something.

        Args:
            index: of the request in the batch.
            changes: its net changes, never empty; they may be pure moves alone.

        Raises:
            PeersdError: this request alone fails and is rolled back, with whatever was written here.
        """

    def finish(self) -> None:
        """All requests are through; COMMIT follows. Called also when nothing was recorded."""


class _TransactionGone(Exception):
    """A request ended the whole transaction, those before it in the batch included."""

    def __init__(self, index: int, error: PeersdError) -> None:
        super().__init__(index)
        self.index = index
        self.error = error


class _RequestFailed(Exception):
    """A request failed alone."""

    def __init__(self, error: PeersdError) -> None:
        super().__init__(error.message)
        self.error = error


def run_batch(
    connection: apsw.Connection,
    sandbox: Sandbox,
    capture: Capture,
    requests: Sequence[Request],
    recorder: Recorder,
    *,
    clock: Clock = time.monotonic,
) -> list[Success | PeersdError]:
    """Runs requests in one transaction and commits it. When this returns, every Success is durable.

    INSERT OR ROLLBACK, a deadline that hits a write, and a full disk end the whole transaction. The batch then runs again
    without the request that did it, so that the others' writes stand.

    Args:
        connection: the writer, outside any transaction.
        sandbox: installed on it.
        capture: installed on it.
        requests: at most 256.
        recorder: makes the entries.
        clock: that of the deadlines.

    Returns:
        An outcome for each request, in order.

    Raises:
        Exception: what `finish`, or a fault of ours, raised; the transaction is rolled back and nothing of it stands.
    """
    assert len(requests) <= limits.BATCH_REQUESTS_MAX, len(requests)
    assert not connection.in_transaction
    offenders: dict[int, PeersdError] = {}
    # Each round ends or has one offender more.
    for _ in range(len(requests) + 1):
        recorder.restart()
        try:
            return _attempt(connection, sandbox, capture, requests, recorder, clock, offenders)
        except _TransactionGone as gone:
            offenders[gone.index] = gone.error
        except (apsw.FullError, apsw.BusyError, apsw.IOError) as error:
            # BEGIN, finish or COMMIT: nobody's fault alone.
            return [offenders.get(index, convert_sqlite_error(error)) for index in range(len(requests))]
        finally:
            capture.discard()
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    raise AssertionError("a request without a transaction ended one")


def _attempt(
    connection: apsw.Connection,
    sandbox: Sandbox,
    capture: Capture,
    requests: Sequence[Request],
    recorder: Recorder,
    clock: Clock,
    offenders: dict[int, PeersdError],
) -> list[Success | PeersdError]:
    """One round of `run_batch`, from BEGIN to COMMIT."""
    outcomes: list[Success | PeersdError] = []
    connection.execute("BEGIN IMMEDIATE")
    has_done = False  # a request before which nothing was done needs no savepoint: all that it takes along is its own
    for index, request in enumerate(requests):
        if index in offenders:
            outcomes.append(offenders[index])
            continue
        if has_done:
            connection.execute(_SAVEPOINT)
        try:
            outcomes.append(_run_request(connection, sandbox, capture, index, request, recorder, clock))
        except _RequestFailed as failed:
            capture.discard()
            if not connection.in_transaction:
                raise _TransactionGone(index, failed.error) from failed
            for sql in _UNDO if has_done else _BEGIN_ANEW:
                connection.execute(sql)
            outcomes.append(failed.error)
            continue
        if has_done:
            connection.execute(_RELEASE)
        has_done = True
    recorder.finish()
    reach(CrashPoint.BATCH_RECORDED)
    connection.execute("COMMIT")
    reach(CrashPoint.BATCH_COMMITTED)
    return outcomes


def _run_request(
    connection: apsw.Connection,
    sandbox: Sandbox,
    capture: Capture,
    index: int,
    request: Request,
    recorder: Recorder,
    clock: Clock,
) -> Success:
    """Runs one request within its savepoint and has it recorded.

    Raises:
        _RequestFailed: with the error for the client.
    """
    try:
        with watch_statement(connection, request.deadline_s, clock=clock, held_bytes=lambda: capture.held_bytes):
            results = [run_write(connection, sandbox, statement) for statement in request.statements]
        # Not under the watch: what a client asked for is done, and our own reading and writing must not be cut short.
        changes = capture.take()
        return Success(results, recorder.record(index, changes) if changes else None)
    except PeersdError as error:
        raise _RequestFailed(error) from error
    except (apsw.FullError, apsw.InterruptError) as error:
        raise _RequestFailed(convert_sqlite_error(error)) from error
