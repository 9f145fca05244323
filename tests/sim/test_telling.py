"""What a trace and a failure say of rows is what a person reads: tables, keys, names of devices."""

from __future__ import annotations

import math
from random import Random

from peersd.store.batch import Request
from peersd.store.client_sql import Statement
from peersd.store.store import Write
from peersd.testing.checkers import Checker
from peersd.testing.simulator.schedule import Schedule
from peersd.testing.simulator.statements import make_write
from peersd.testing.simulator.telling import tell_value, tell_writes
from peersd_protocol.canonical import encode

DEVICE = bytes(range(200, 232))


def write(*statements: Statement) -> Write:
    return Write(b"", Request(statements, math.inf))


def test_a_write_is_told_by_its_tables_and_keys() -> None:
    first = write(
        Statement("INSERT OR REPLACE INTO note (id, title) VALUES (?, ?)", ("n4", "x")),
        Statement("UPDATE note SET title = ? WHERE id = ?", ("y", "n7")),
        Statement("DELETE FROM pair WHERE one = ? AND two = ?", ("x", -1)),
    )
    second = write(Statement("UPDATE OR REPLACE note SET id = ? WHERE id = ?", ("n1", "n2")))
    third = write(Statement("INSERT INTO note (id, title) VALUES (?, ?)", params_seq=[(f"m{n}", None) for n in range(60)]))
    told = "writes note n4, n7; deletes pair x -1 | writes note n2 as n1 | writes note 60 rows"
    assert tell_writes([first, second, third]) == told


def test_whatever_a_simulation_writes_is_told_by_rows() -> None:
    random = Random(1)
    told = [tell_writes([make_write(random, b"", "x")]) for _ in range(500)]
    assert all(part.split(" ")[:2] in kinds() for line in told for part in line.split("; "))
    assert max(map(len, told)) < 200


def kinds() -> list[list[str]]:
    return [[verb, table] for verb in ("writes", "deletes") for table in ("note", "pair", "file")]


def test_a_key_is_told_as_text_and_a_device_by_its_name() -> None:
    schedule = Schedule(0, "scripts/sim")
    schedule.names[DEVICE[:4].hex()] = "b"
    text = tell_value({("note", encode(["it's", 3])): {DEVICE: 7}, "blob": b"\xc1'\""})
    told = str(schedule.fail(Checker.EQUAL_DUMPS, text)).partition("\n")[0]
    assert told == """seed 0 at 0 ms: equal-dumps: {('note', key it's 3): {b: 7}, 'blob': b'\\xc1\\'"'}"""
