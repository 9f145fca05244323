"""Group commit: requests stand or fall each for itself, and nothing counts before COMMIT."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import apsw.aio
import pytest

from peersd.errors import PeersdError
from peersd.store.batch import Request, Success, run_batch
from peersd.store.client_sql import Statement, WriteResult
from tests.store.rig import Recorded, Rig

SLOW = (
    "INSERT INTO t (id) WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n) SELECT 'slow' || i FROM n LIMIT 100000000"
)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    one = Rig(tmp_path, "CREATE TABLE t (id TEXT PRIMARY KEY, a)", "CREATE TABLE u (id TEXT PRIMARY KEY, a)")
    one.run("INSERT INTO t VALUES ('0', 'old')")
    yield one
    one.close()


def codes(outcomes: list[Success | PeersdError]) -> list[str]:
    return [outcome.code if isinstance(outcome, PeersdError) else "ok" for outcome in outcomes]


def ids(rig: Rig) -> list[object]:
    return [row[0] for row in rig.dump("t")]


def test_each_request_answers_its_own_rows_changes_and_entry(rig: Rig) -> None:
    outcomes, recorded = rig.batch(
        ["INSERT INTO t VALUES ('1', 1), ('2', 2) RETURNING id, a AS x"],
        [Statement("UPDATE t SET a = ?", ["n"]), Statement("DELETE FROM t WHERE id = :id", {"id": "0"})],
        ["SELECT count(*) FROM t"],
    )
    assert outcomes == [
        Success([WriteResult(2, ["id", "x"], [("1", 1), ("2", 2)])], ("entry", 0)),
        Success([WriteResult(3), WriteResult(1)], ("entry", 1)),
        Success([WriteResult(0, ["count(*)"], [(2,)])], None),
    ]
    assert sorted(recorded.changes) == [0, 1]
    assert (recorded.restarts, recorded.finishes) == (1, 1)


BAD = pytest.mark.parametrize(
    "bad",
    [
        "INSERT INTO t VALUES ('x', 1), ('0', 2)",
        "INSERT OR ABORT INTO t VALUES ('x', 1), ('0', 2)",
        "INSERT OR FAIL INTO t VALUES ('x', 1), ('0', 2)",
        "INSERT OR ROLLBACK INTO t VALUES ('x', 1), ('0', 2)",
        "INSERT INTO nowhere VALUES (1)",
        "CREATE TABLE z (id TEXT PRIMARY KEY)",
        "nonsense",
    ],
)


@BAD
def test_a_failing_request_takes_no_other_with_it(rig: Rig, bad: str) -> None:
    outcomes, recorded = rig.batch(
        ["INSERT INTO t VALUES ('1', 1)"],
        ["INSERT INTO t VALUES ('gone', 1)", bad, "INSERT INTO t VALUES ('never', 1)"],
        ["INSERT INTO t VALUES ('2', 2)"],
    )
    assert [code == "ok" for code in codes(outcomes)] == [True, False, True]
    assert ids(rig) == ["0", "1", "2"]
    assert {index: [row for one in changes for row in one.inserts] for index, changes in recorded.changes.items()} == {
        0: [(2, ("1", 1))],
        2: [(3, ("2", 2))],
    }


@BAD
def test_a_request_that_fails_before_any_was_done_leaves_nothing(rig: Rig, bad: str) -> None:
    outcomes, recorded = rig.batch(
        *[["INSERT INTO t VALUES ('gone', 1)", bad]] * 2, ["INSERT INTO t VALUES ('1', 1)"], ["INSERT INTO t VALUES ('2', 2)"]
    )
    assert [code == "ok" for code in codes(outcomes)] == [False, False, True, True]
    assert ids(rig) == ["0", "1", "2"]
    assert sorted(recorded.changes) == [2, 3]


def test_or_rollback_runs_the_batch_again_without_the_offender(rig: Rig) -> None:
    outcomes, recorded = rig.batch(
        ["INSERT INTO t VALUES ('1', 1)"],
        ["INSERT OR ROLLBACK INTO t VALUES ('0', 2)"],
        ["INSERT INTO t VALUES ('2', 2)"],
        ["UPDATE OR ROLLBACK t SET id = '0' WHERE id = '2'"],
        ["INSERT INTO t VALUES ('3', 3)"],
    )
    assert codes(outcomes) == ["ok", "sql_error", "ok", "sql_error", "ok"]
    assert (recorded.restarts, recorded.finishes, sorted(recorded.changes)) == (3, 1, [0, 2, 4])
    assert ids(rig) == ["0", "1", "2", "3"]


def test_a_batch_of_offenders_alone_ends(rig: Rig) -> None:
    outcomes, recorded = rig.batch(*[["INSERT OR ROLLBACK INTO t VALUES ('0', 2)"]] * 5)
    assert codes(outcomes) == ["sql_error"] * 5
    assert recorded.changes == {}
    assert ids(rig) == ["0"]


def test_a_deadline_that_hits_a_write_fails_that_request_alone(rig: Rig) -> None:
    now = time.monotonic()
    recorder = Recorded()
    outcomes = run_batch(
        rig.writer,
        rig.sandbox,
        rig.capture,
        [
            Request([Statement("INSERT INTO t VALUES ('1', 1)")], now + 60),
            Request([Statement(SLOW)], now + 0.05),
            Request([Statement("INSERT INTO t VALUES ('2', 2)")], now + 60),
        ],
        recorder,
    )
    assert codes(outcomes) == ["ok", "timeout", "ok"]
    assert isinstance(outcomes[1], PeersdError)
    assert outcomes[1].hint
    assert ids(rig) == ["0", "1", "2"]
    assert sorted(recorder.changes) == [0, 2]


def test_a_request_whose_deadline_has_passed_is_not_run(rig: Rig) -> None:
    outcomes, _ = rig.batch(["INSERT INTO t VALUES ('1', 1)"], timeout_s=0)
    assert codes(outcomes) == ["timeout"]
    assert ids(rig) == ["0"]


def test_memory_is_bounded_while_writing(rig: Rig) -> None:
    rows = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n LIMIT 100000) SELECT i, randomblob(10000) AS x FROM n"
    bomb = f"INSERT INTO t SELECT i, 1 FROM ({rows}) ORDER BY x"
    outcomes, _ = rig.batch([bomb], ["INSERT INTO t VALUES ('2', 2)"])
    assert codes(outcomes) == ["too_large", "ok"]


def test_what_capture_holds_is_bounded(rig: Rig) -> None:
    for part in range(5):
        rig.run(f"WITH n(i) AS (VALUES (1), (2), (3), (4)) INSERT INTO t SELECT '{part}-' || i, zeroblob(12 << 20) FROM n")
    outcomes, _ = rig.batch(["DELETE FROM t"], ["INSERT INTO t VALUES ('2', 2)"])
    assert codes(outcomes) == ["too_large", "ok"]
    assert len(ids(rig)) == 22


def test_a_recorder_that_refuses_fails_that_request_alone(rig: Rig) -> None:
    recorder = Recorded(refuse=lambda index: PeersdError("too_large", "no") if index == 1 else None)
    outcomes, _ = rig.batch(
        ["INSERT INTO t VALUES ('1', 1)"], ["INSERT INTO t VALUES ('2', 2)"], ["INSERT INTO t VALUES ('3', 3)"], recorder=recorder
    )
    assert codes(outcomes) == ["ok", "too_large", "ok"]
    assert ids(rig) == ["0", "1", "3"]


def test_what_the_recorder_writes_is_rolled_back_with_its_request(rig: Rig) -> None:
    class Writing(Recorded):
        def record(self, index: int, changes: object) -> object:
            rig.writer.execute("INSERT INTO _peers_secret (text) VALUES (?)", (str(index),))
            if index == 1:
                raise PeersdError("too_large", "no")
            return index

    rig.batch(*[[f"INSERT INTO t VALUES ('{i}', 1)"] for i in range(1, 4)], recorder=Writing())
    assert rig.dump("_peers_secret") == [(1, "0"), (2, "2")]


def test_a_fault_of_ours_rolls_everything_back_and_leaves_the_writer_usable(rig: Rig) -> None:
    recorder = Recorded(refuse=lambda index: RuntimeError("a fault") if index == 1 else None)
    with pytest.raises(RuntimeError, match="a fault"):
        rig.batch(["INSERT INTO t VALUES ('1', 1)"], ["INSERT INTO t VALUES ('2', 2)"], recorder=recorder)
    assert not rig.writer.in_transaction
    assert ids(rig) == ["0"]
    rig.run("INSERT INTO t VALUES ('3', 3)")
    assert ids(rig) == ["0", "3"]


def test_a_full_disk_fails_the_request_that_met_it_and_the_others_stand(rig: Rig) -> None:
    pages = rig.writer.pragma("page_count")
    rig.writer.pragma("max_page_count", pages + 20)
    outcomes, _ = rig.batch(
        ["INSERT INTO t VALUES ('1', 1)"], ["INSERT INTO t VALUES ('big', zeroblob(1 << 20))"], ["INSERT INTO t VALUES ('2', 2)"]
    )
    assert codes(outcomes) == ["ok", "store_full", "ok"]
    assert ids(rig) == ["0", "1", "2"]


def test_a_locked_file_answers_busy_to_all(rig: Rig) -> None:
    rig.writer.set_busy_timeout(0)
    other = apsw.Connection(str(rig.path))
    other.execute("BEGIN IMMEDIATE")
    outcomes, _ = rig.batch(["INSERT INTO t VALUES ('1', 1)"], ["INSERT INTO t VALUES ('2', 2)"])
    assert codes(outcomes) == ["busy", "busy"]
    other.execute("ROLLBACK")
    other.close()
    rig.run("INSERT INTO t VALUES ('3', 3)")


def test_nothing_is_seen_before_all_is(rig: Rig) -> None:
    seen: list[list[object]] = []
    recorder = Recorded()
    recorder.finish = lambda: seen.append(ids(rig))  # type: ignore[method-assign]
    rig.batch(["INSERT INTO t VALUES ('1', 1)"], ["INSERT INTO t VALUES ('2', 2)"], recorder=recorder)
    assert seen == [["0"]]
    assert ids(rig) == ["0", "1", "2"]


def test_params_seq_runs_once_for_each_and_counts_all(rig: Rig) -> None:
    statement = Statement("INSERT INTO t VALUES (:id, :a);", params_seq=[{"id": f"k{i}", "a": i} for i in range(100)])
    success, _ = rig.run(statement, Statement("DELETE FROM t WHERE id = ?", params_seq=[["k1"], ["k2"], ["none"]]))
    assert [result.changes for result in success.results] == [100, 2]
    assert rig.run(Statement("INSERT INTO t VALUES (?, 1)", params_seq=[]))[0].results == [WriteResult(0)]
    error = rig.fail(Statement("INSERT INTO t VALUES (?, 1)", params_seq=[["new"], ["0"]]))
    assert error.code == "sql_error"
    assert "new" not in ids(rig)


def test_too_many_rows_of_returning_fail_the_request(rig: Rig) -> None:
    rig.run(Statement("INSERT INTO t VALUES (?, 0)", params_seq=[[f"k{i:05}"] for i in range(10_000)]))
    assert rig.fail("UPDATE t SET a = 1 RETURNING id").code == "too_large"
    assert rig.run("SELECT count(*) FROM t WHERE a = 1")[0].results[0].rows == [(0,)]


async def test_a_batch_runs_in_the_worker_thread_of_an_async_connection(rig: Rig) -> None:
    apsw.async_controller.set(apsw.aio.Trio)  # type: ignore[arg-type]  # its stubs name the parameters otherwise
    connection = await apsw.Connection.as_async(str(rig.path))
    try:

        def work() -> tuple[list[Success | PeersdError], Recorded]:
            from peersd.store.capture import Capture
            from peersd.store.database import prepare_connection
            from peersd.store.sandbox import Sandbox

            prepare_connection(connection)  # type: ignore[arg-type]  # inside the worker it is used as a plain one
            sandbox, capture, recorder = Sandbox(), Capture(connection), Recorded()  # type: ignore[arg-type]
            sandbox.install(connection)  # type: ignore[arg-type]
            capture.install()
            capture.watch(rig.schema.tables)
            sandbox.admit_tables(["t"])
            deadline_s = time.monotonic() + 60
            requests = [
                Request([Statement(sql)], deadline_s) for sql in ("INSERT INTO t VALUES ('1', 1)", "DELETE FROM _peers_secret")
            ]
            return run_batch(connection, sandbox, capture, requests, recorder), recorder  # type: ignore[arg-type]

        outcomes, recorded = await connection.async_run(work)
    finally:
        await connection.aclose()
    assert codes(outcomes) == ["ok", "sql_refused"]
    assert recorded.changes[0][0].inserts == [(2, ("1", 1))]
