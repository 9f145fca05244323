"""Generated histories: any order of delivery gives the same rows, which are those of the oracle and of a rebuild (DESIGN 7)."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from peersd_protocol.changesets import Changeset, TableChangeset, Updates, encode
from peersd_protocol.schema import Column, Schema, Table
from tests.store.merge_replica import Entry, Replica, added, schema_of, table, with_columns

HISTORIES = 600
CLASHES = 400
BATCHES = 20

PLAIN = table("plain", ("id", "BLOB"), ("a", "TEXT"), ("b", ""))
PAIRS = table("pairs", ("a", "TEXT"), ("k", "TEXT"), ("n", "INTEGER"), ("b", "REAL"), key=(2, 1), op=1, without_rowid=True)
RIGID = table("rigid", ("m", "TEXT"), ("n", "INTEGER"), ("a", "ANY"), ("b", "BLOB"), key=(0, 1), op=2, strict=True)
NAMED = table("named", ("id", "TEXT"), ("rowid", ""), ("_rowid_", ""), ("oid", ""), op=3)
BASE = (PLAIN, PAIRS, RIGID, NAMED)

BLOBS = [b"", b"\x00", b"key"]
TEXTS = ["", "x", "x\x00y", "é"]
NUMBERS = [0, -1, 2**63 - 1]
ANY = [None, 0, 1, 1.0, "1", b"1", "", -(2**63), 2.5, float("inf"), "text"]
KEYS: dict[str, list[tuple[Any, ...]]] = {
    "plain": [*((value,) for value in BLOBS), ("key",), (1,), ("1",)],
    "pairs": [(number, text) for number in NUMBERS for text in TEXTS[:2]],
    "rigid": [(text, number) for text in TEXTS[:2] for number in NUMBERS],
    "named": [(text,) for text in TEXTS],
}
VALUES: dict[str, dict[str, list[Any]]] = {
    "plain": {"a": [None, "", "x", b"x"], "b": ANY},
    "pairs": {"a": [None, "t", ""], "b": [None, 0.0, 1.5, "z"]},
    "rigid": {"a": ANY, "b": [None, b"", b"\xff"]},
    "named": {"rowid": ANY, "_rowid_": ANY, "oid": ANY},
}
ADDED: list[tuple[str, Any, bool, list[Any]]] = [("c", None, False, ANY), ("d", 7, True, [0, 7, "s"]), ("e", "dflt", False, ANY)]


def schema_with(columns: set[tuple[str, Column]]) -> Schema:
    """The schema of these added columns, the same for every order: added columns stand in the order of their acts."""
    tables: list[Table] = []
    for base in BASE:
        more = sorted((added_column for name, added_column in columns if name == base.name), key=lambda one: one.id)
        tables.append(with_columns(base, *more))
    return schema_of(*tables)


class History:
    """Three replicas of one group, written to and delivered to at random."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        # Now and then two devices share a key: a clone writes entries that differ in their hash alone.
        devices = [b"a" * 32, b"b" * 32, self.random.choice([b"c" * 32, b"c" * 32, b"a" * 32])]
        self.columns: list[set[tuple[str, Column]]] = [set(), set(), set()]
        self.replicas = [Replica(schema_with(set()), device) for device in devices]
        self.entries: list[tuple[Entry, frozenset[tuple[str, Column]]]] = []
        self.tables = self.random.sample(BASE, self.random.choice([1, 1, 2]))

    def run(self) -> None:
        for _ in range(self.random.randint(12, 36)):
            step = self.random.random()
            at = self.random.randrange(3)
            if step < 0.6:
                self.write(at)
            elif step < 0.66:
                self.add_column(at)
            elif self.entries:
                self.deliver(at, self.random.choice(self.entries))
        for at in range(3):
            missing = list(self.entries)
            self.random.shuffle(missing)
            for entry in missing:
                self.deliver(at, entry)
        every = set[tuple[str, Column]]().union(*self.columns)
        for at in range(3):
            self.learn(at, every)

    def deliver(self, at: int, sent: tuple[Entry, frozenset[tuple[str, Column]]]) -> None:
        entry, needed = sent
        self.learn(at, needed)
        self.replicas[at].take(entry)

    def learn(self, at: int, columns: frozenset[tuple[str, Column]] | set[tuple[str, Column]]) -> None:
        if not columns <= self.columns[at]:
            self.columns[at] |= columns
            self.replicas[at].set_schema(schema_with(self.columns[at]), self.random.shuffle)

    def add_column(self, at: int) -> None:
        name, literal, not_null, _ = self.random.choice(ADDED)
        on = self.random.choice(self.tables)
        default = b"\x07" if on.strict and literal is not None else literal
        act = self.random.randbytes(16)
        type_ = "BLOB" if on.strict else ""
        if not any(has.name == name and table_name == on.name for table_name, has in self.columns[at]):
            # Others may add the same name at once, and evaluation would rename one; here names differ from the start.
            self.learn(at, {(on.name, added(f"{name}{act.hex()[:4]}", type_, act, default=default, not_null=not_null))})

    def write(self, at: int) -> None:
        statements = [self.statement(at) for _ in range(self.random.choice([1, 1, 1, 2, 5]))]
        entry = self.replicas[at].write(*statements, ticks=self.random.choice([1, 1, 2, 5]))
        if entry is not None:
            self.entries.append((entry, frozenset(self.columns[at])))

    def statement(self, at: int) -> tuple[str, tuple[Any, ...]]:
        choose = self.random.choice
        name = choose(self.tables).name
        on = next(made for made in self.replicas[at].schema.tables if made.name == name)
        key_names = [on.columns[position].name for position in on.key]
        where = " AND ".join(f'"{name}" = ?' for name in key_names)
        key, other = choose(KEYS[on.name]), choose(KEYS[on.name])
        cells = {column.name: self.value(on, column) for column in on.columns if column.name not in key_names}
        some = {name: cells[name] for name in self.random.sample(sorted(cells), self.random.randint(1, len(cells)))}
        row = dict(zip(key_names, key, strict=True)) | (cells if self.random.random() < 0.5 else some)
        names = ", ".join(f'"{name}"' for name in row)
        holes = ", ".join("?" * len(row))
        sets = ", ".join(f'"{name}" = ?' for name in some)
        kind = self.random.random()
        if kind < 0.25:
            return f"INSERT INTO {on.name} ({names}) VALUES ({holes})", tuple(row.values())
        if kind < 0.4:
            return f"INSERT OR REPLACE INTO {on.name} ({names}) VALUES ({holes})", tuple(row.values())
        if kind < 0.5:
            first = next(iter(some))
            conflict = ", ".join(f'"{name}"' for name in key_names)
            update = f'DO UPDATE SET "{first}" = excluded."{first}"'
            return f"INSERT INTO {on.name} ({names}) VALUES ({holes}) ON CONFLICT ({conflict}) {update}", tuple(row.values())
        if kind < 0.65:
            return f"UPDATE {on.name} SET {sets} WHERE {where}", (*some.values(), *key)
        if kind < 0.7:
            return f"UPDATE {on.name} SET {sets}", tuple(some.values())
        if kind < 0.8:
            key_sets = ", ".join(f'"{name}" = ?' for name in key_names)
            return f"UPDATE {choose(['', 'OR REPLACE'])} {on.name} SET {key_sets} WHERE {where}", (*other, *key)
        if kind < 0.84 and not on.without_rowid and on.name != "named":
            # Row ids are a local matter: a client may choose them, and no clock may go astray.
            rid = choose([-(2**63), -1, 0, 1, 3, 2**63 - 1])
            return f"INSERT OR REPLACE INTO {on.name} (rowid, {names}) VALUES (?, {holes})", (rid, *row.values())
        if kind < 0.85:
            return f"DELETE FROM {on.name}", ()
        return f"DELETE FROM {on.name} WHERE {where}", key

    def value(self, on: Table, column: Column) -> Any:
        return self.random.choice(values_of(on, column))


def values_of(on: Table, column: Column) -> list[Any]:
    choices = VALUES[on.name].get(column.name)
    if choices is None:
        choices = (
            [None, b"", b"\x07"] if on.strict else next((each for name, *_, each in ADDED if column.name.startswith(name)), ANY)
        )
    return [value for value in choices if value is not None or not column.not_null]


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_order_of_delivery_gives_the_rows_of_the_oracle_and_of_a_rebuild(batch: int) -> None:
    each = HISTORIES // BATCHES
    for seed in range(batch * each, (batch + 1) * each):
        history = History(seed)
        try:
            history.run()
            first, *others = history.replicas
            for replica in history.replicas:
                replica.check()
            state = first.state()
            for other in others:
                assert other.state() == state
            first.rebuild(history.random.shuffle)
            assert first.state() == state
            first.check()
        except BaseException:
            print(f"seed {seed}")
            raise


def random_changeset(random: Random, columns: list[tuple[str, Column]]) -> Changeset:
    """A valid changeset that no replica needs to have had a reason for: updates of rows that never were, deletes of dead ones."""
    tables: list[TableChangeset] = []
    for base in random.sample(BASE, random.choice([1, 1, 2])):
        more = [column for name, column in columns if name == base.name and random.random() < 0.6]
        on = with_columns(base, *more)
        keys = random.sample(KEYS[on.name][:3], random.randint(1, 3))
        cells = [position for position in range(len(on.columns)) if position not in on.key]
        value = lambda position: random.choice(values_of(on, on.columns[position]))  # noqa: B023, E731
        split = sorted(random.choices(range(len(keys) + 1), k=2))
        inserted, updated, deleted = keys[: split[0]], keys[split[0] : split[1]], keys[split[1] :]
        rows = [[key[on.key.index(at)] if at in on.key else value(at) for at in range(len(on.columns))] for key in inserted]
        positions = tuple(sorted(random.sample(cells, random.randint(1, len(cells)))))
        set_columns = [[value(position) for _ in updated] for position in positions]
        updates = (Updates(positions, list(zip(*updated, strict=True)), set_columns),) if updated else ()
        added_ids = tuple(column.id[:2] for column in more)
        tables.append(TableChangeset(on.id, added_ids, list(zip(*rows, strict=True)), updates, list(zip(*deleted, strict=True))))
    return Changeset(tuple(tables))


def columns_for_clashes() -> list[tuple[str, Column]]:
    columns: list[tuple[str, Column]] = []
    for index, base in enumerate(BASE):
        act = bytes([index]) * 15
        columns.append((base.name, added("later", "BLOB", act + b"1")))
        columns.append((base.name, added("latest", "BLOB", act + b"2", default=b"\x07", not_null=True)))
    return columns


@pytest.mark.parametrize("batch", range(BATCHES))
def test_entries_that_clash_everywhere_merge_alike_in_every_order(batch: int) -> None:
    columns = columns_for_clashes()
    schema = schema_with(set(columns))
    each = CLASHES // BATCHES
    for seed in range(batch * each, (batch + 1) * each):
        random = Random(seed)
        entries: list[Entry] = []
        for number in range(random.randint(2, 24)):
            rank = (random.randint(1, 12), random.choice([b"a", b"b"]) * 32, bytes([number]) * 32)
            entries.append(Entry(rank, encode(random_changeset(random, columns))))
        replica = Replica(schema)
        replica.take_all(entries)
        replica.check()
        state = replica.state()
        replica.rebuild(random.shuffle)
        assert replica.state() == state, f"seed {seed}"


def test_the_clashes_reach_the_cases_that_matter() -> None:
    seen = dict.fromkeys(["rows", "asides", "cells", "alive again"], 0)
    columns = columns_for_clashes()
    for seed in range(40):
        random = Random(seed)
        replica = Replica(schema_with(set(columns)))
        ranks = random.sample(range(100), 20)
        replica.take_all(Entry((rank, b"a" * 32, b""), encode(random_changeset(random, columns))) for rank in ranks)
        for keys in replica.merge.dump_clocks().values():
            for row in keys.values():
                seen["rows"] += bool(row.inserted)
                seen["asides"] += bool(row.aside)
                seen["cells"] += len(set(row.written.values())) > 1
                seen["alive again"] += bool(row.inserted and row.deleted)
    assert all(amount >= 40 for amount in seen.values()), seen


def test_the_histories_reach_the_cases_that_matter() -> None:
    """A generator that never lets rows die or clash would prove nothing."""
    wanted = {"rows": 100, "asides": 15, "deletes": 80, "cells": 100, "alive again": 15, "added columns": 40, "entries": 300}
    seen = dict.fromkeys(wanted, 0)
    for seed in range(40):
        history = History(seed)
        history.run()
        seen["entries"] += len(history.entries)
        seen["rows"] += sum(len(rows) for rows in history.replicas[0].merge.dump().values())
        seen["asides"] += history.replicas[0].count("_peers_aside")
        seen["deletes"] += history.replicas[0].count("_peers_delete")
        seen["cells"] += history.replicas[0].count("_peers_cell")
        clocks = history.replicas[0].merge.dump_clocks()
        seen["alive again"] += sum(bool(row.inserted and row.deleted) for keys in clocks.values() for row in keys.values())
        seen["added columns"] += len(history.columns[0])
    assert all(seen[name] >= least for name, least in wanted.items()), seen
