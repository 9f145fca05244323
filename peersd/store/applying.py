"""Remote changesets become rows: last writer wins, for each column of each row (SPEC: D-13 ff., DESIGN 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, repeat
from typing import Any, TypeAlias

import apsw

from peersd.store.changes import Row, SQLValue
from peersd.store.clocks import Clocks, Inserted
from peersd.store.layout import Layout, bad_body
from peersd_protocol.changesets import Changeset, TableChangeset
from peersd_protocol.schema import Schema, TableId

Rank: TypeAlias = tuple[int, bytes, bytes]
"""(HLC, device, entry hash): writes are ordered by it."""

_FRESH_RID_MAX = 2**62
"""Above this, row ids are taken one by one: SQLite picks them at random once 2**63 - 1 is used."""

_READINGS_MAX = 1024
"""Column lists remembered; an author has one for each table and schema (guess)."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """How one column list reads in a table here.

    Attributes:
        layout: of the table.
        positions: for each column of the list, its position in the table.
        mask: those positions as bits.
        is_whole: whether the list has all columns of the table in its own order.
    """

    layout: Layout
    positions: tuple[int, ...]
    mask: int
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The checked changes of one table: inserted rows and their keys, updates as (key, positions, values), deleted keys."""

    reading: _Reading
    keys: list[Row]
    rows: list[Row]
    updates: list[tuple[Row, tuple[int, ...], Row]]
    deletes: list[Row]


class Applier:
    """Applies changesets of other devices.

    Args:
        connection: the writer.
        clocks: of the same file.
        rank: the rank of an entry by its id.
    """

    def __init__(self, connection: apsw.Connection, clocks: Clocks, rank: Callable[[int], Rank]) -> None:
        self._connection = connection
        self._cursor: Any = connection.cursor()
        self._clocks = clocks
        self._rank = rank
        self.set_schema(Schema(0, (), ()), {})

    def set_schema(self, schema: Schema, layouts: Mapping[TableId, Layout]) -> None:
        """Changes what tables and columns mean."""
        self._schema = schema
        self._layouts = layouts
        self._readings: dict[tuple[TableId, tuple[TableId, ...]], _Reading] = {}

    # --- Checks: all before the first change, so that a changeset is applied whole or not at all --------------------------------

    def plan(self, changeset: Changeset) -> list[Plan]:
        """Checks a changeset against the schema.

        Raises:
            RemoteProtocolError: BAD_BODY.
        """
        plans = [self._plan_table(table) for table in changeset.tables]
        if len({plan.reading.layout.number for plan in plans}) != len(plans):
            raise bad_body("one table under two names")
        return plans

    def _read(self, table: TableChangeset) -> _Reading:
        reading = self._readings.get((table.table, table.added))
        if reading is not None:
            return reading
        found = self._schema.table(table.table)
        layout = self._layouts.get(found.id) if found else None
        if layout is None:
            raise bad_body("a table that is not there")
        own = [self._schema.column_id((*table.table, index)) for index in range(layout.original_columns)]
        added = [self._schema.column_id((*op, 0)) for op in table.added]
        known = layout.table.positions
        if not all(id_ in known for id_ in chain(own, added)):
            raise bad_body("a column that is not there")
        positions = tuple(known[id_] for id_ in chain(own, added))
        if len(set(positions)) != len(positions):
            raise bad_body("one column under two names")
        if len(self._readings) >= _READINGS_MAX:
            self._readings.clear()
        is_whole = positions == tuple(range(layout.width))
        reading = _Reading(layout, positions, sum(1 << position for position in positions), is_whole)
        self._readings[table.table, table.added] = reading
        return reading

    def _plan_table(self, table: TableChangeset) -> Plan:
        reading = self._read(table)
        layout = reading.layout
        rows, keys = _read_inserts(reading, table.inserts)
        deletes = _read_keys(layout, table.deletes) if table.deletes else []
        updates: list[tuple[Row, tuple[int, ...], Row]] = []
        for group in table.updates:
            if group.positions[-1] >= len(reading.positions):
                raise bad_body("a column that is not there")
            positions = tuple(reading.positions[position] for position in group.positions)
            if not set(positions).isdisjoint(layout.key):
                raise bad_body("an update of a key")
            for position, column in zip(positions, group.columns, strict=True):
                layout.check_cells(position, column)
            updates += zip(_read_keys(layout, group.keys), repeat(positions), zip(*group.columns, strict=True), strict=False)
        named = len(keys) + len(updates) + len(deletes)
        if len(set(chain(keys, (key for key, _, _ in updates), deletes))) != named:
            raise bad_body("one row twice")
        return Plan(reading, keys, rows, updates, deletes)

    # --- Changes ----------------------------------------------------------------------------------------------------------------

    def apply(self, entry: int, plans: Iterable[Plan]) -> None:
        """Writes checked changes as those of an entry."""
        for plan in plans:
            layout = plan.reading.layout
            if plan.rows:
                self._insert([entry] * len(plan.rows), plan)
            if not (plan.updates or plan.deletes):
                continue
            rank = self._rank(entry)
            for key, positions, cells in plan.updates:
                self._update(entry, rank, layout, key, zip(positions, cells, strict=True))
            for key in plan.deletes:
                self._delete(entry, rank, layout, key)

    def apply_inserts(self, entries: Sequence[int], plan: Plan) -> None:
        """Writes checked inserts of many entries.

        Args:
            entries: that of each row.
            plan: all their rows, of different keys, and nothing else.
        """
        self._insert(entries, plan)

    def _insert(self, entries: Sequence[int], plan: Plan) -> None:
        layout = plan.reading.layout
        tbl = layout.number
        if self._clocks.any_rows("delete", tbl) or self._clocks.any_rows("aside", tbl):
            packed = list(map(layout.pack_key, plan.keys))
            history = self._clocks.keys_with_history(tbl, packed)
            if history:
                rows = list(zip(entries, plan.keys, plan.rows, strict=True))
                fresh = [row for row, key in zip(rows, packed, strict=True) if key not in history]
                self._insert_fresh([one[0] for one in fresh], plan.reading, [one[1] for one in fresh], [one[2] for one in fresh])
                for (entry, key, row), packed_key in zip(rows, packed, strict=True):
                    if packed_key in history:
                        self._insert_one(entry, self._rank(entry), plan.reading, key, row)
                return
        self._insert_fresh(entries, plan.reading, plan.keys, plan.rows)

    def _insert_fresh(self, entries: Sequence[int], reading: _Reading, keys: Sequence[Row], rows: Sequence[Row]) -> None:
        """Inserts rows without deletes or asides; those that turn out to be there already are merged one by one."""
        layout = reading.layout
        first = (self._cursor.execute(layout.last_rid_sql).get or 0) + 1
        done = 0
        if first > _FRESH_RID_MAX:
            for entry, key, row in zip(entries, keys, rows, strict=True):
                self._insert_one(entry, self._rank(entry), reading, key, row)
            return
        left = iter(rows)
        while done < len(rows):
            before = self._connection.total_changes()
            taken = False
            try:
                self._cursor.executemany(layout.insert_sql, left)
            except apsw.ConstraintError:
                # Only the key can be violated: all else was checked. SQLite undoes the one row and keeps those before it.
                taken = True
            inserted = self._connection.total_changes() - before
            if inserted:
                if layout.has_locator:
                    numbered = zip(keys[done : done + inserted], range(first, first + inserted), strict=True)
                    self._cursor.executemany(layout.insert_locator_sql, [(*key, rid) for key, rid in numbered])
                self._note_inserted(layout.number, first, entries[done : done + inserted], reading.mask)
                first += inserted
                done += inserted
            if taken:
                self._insert_one(entries[done], self._rank(entries[done]), reading, keys[done], rows[done])
                done += 1

    def _note_inserted(self, tbl: int, first: int, entries: Sequence[int], mask: int) -> None:
        """Writes the clocks of new rows from `first` on, of which each has one of these entries, ascending."""
        if len(set(entries)) == len(entries) == entries[-1] - entries[0] + 1:
            self._clocks.set_inserted(tbl, first, first + len(entries) - 1, Inserted(entries[0], mask), step=1)
            return
        for entry, rows in groupby(entries):
            last = first + len(list(rows)) - 1
            self._clocks.set_inserted(tbl, first, last, Inserted(entry, mask))
            first = last + 1

    def _insert_one(self, entry: int, rank: Rank, reading: _Reading, key: Row, row: Row) -> None:
        layout = reading.layout
        tbl = layout.number
        packed = layout.pack_key(key)
        deleted = self._clocks.deleted(tbl, packed)
        if deleted is not None and self._rank(deleted) > rank:
            return
        rid: int | None = self._cursor.execute(layout.locate_sql, key).get
        if rid is None:
            self._revive(entry, rank, reading, key, row)
            return
        old = self._clocks.inserted(tbl, rid)
        cells = self._clocks.cells(tbl, rid)
        is_greatest = rank > self._rank(old.entry)
        new_cells: dict[int, int] = {}
        freed: list[int] = []
        sets: list[tuple[int, SQLValue]] = []
        for position in range(layout.width):
            if position in layout.key:
                continue
            bit = 1 << position
            shown = cells.get(position, old.entry if old.mask & bit else None)
            if reading.mask & bit and (shown is None or rank > self._rank(shown)):
                sets.append((position, row[position]))
                if is_greatest:
                    if position in cells:
                        freed.append(position)
                else:
                    new_cells[position] = entry
            elif is_greatest and shown is not None:
                new_cells[position] = shown
        self._write(layout, rid, key, sets)
        if is_greatest:
            self._clocks.set_inserted(tbl, rid, rid, Inserted(entry, reading.mask))
        self._clocks.remove_cells(tbl, rid, freed)
        self._clocks.set_cells(tbl, [(rid, col, cell_entry) for col, cell_entry in new_cells.items()])

    def _revive(self, entry: int, rank: Rank, reading: _Reading, key: Row, row: Row) -> None:
        """Inserts a row that is not alive, with what was kept aside for it."""
        layout = reading.layout
        tbl = layout.number
        packed = layout.pack_key(key)
        asides = self._clocks.asides(tbl, packed)
        values = list(row)
        cells: list[tuple[int, int]] = []
        for col, (aside_entry, value) in asides.items():
            if not reading.mask >> col & 1 or self._rank(aside_entry) > rank:
                values[col] = value
                cells.append((col, aside_entry))
        if asides:
            self._clocks.remove_asides(tbl, [packed])
        if layout.has_locator:
            rid = (self._cursor.execute(layout.last_rid_sql).get or 0) + 1
            self._cursor.execute(layout.insert_sql, values)
            self._cursor.execute(layout.insert_locator_sql, (*key, rid))
        else:
            self._cursor.execute(layout.insert_sql, values)
            rid = self._connection.last_insert_rowid()
        self._clocks.set_inserted(tbl, rid, rid, Inserted(entry, reading.mask))
        self._clocks.set_cells(tbl, [(rid, col, cell_entry) for col, cell_entry in cells])

    def _update(self, entry: int, rank: Rank, layout: Layout, key: Row, sets: Iterable[tuple[int, SQLValue]]) -> None:
        tbl = layout.number
        deleted = self._clocks.deleted(tbl, layout.pack_key(key)) if self._clocks.any_rows("delete", tbl) else None
        if deleted is not None and self._rank(deleted) > rank:
            return
        rid: int | None = self._cursor.execute(layout.locate_sql, key).get
        if rid is None:
            packed = layout.pack_key(key)
            asides = self._clocks.asides(tbl, packed)
            kept = [(col, entry, value) for col, value in sets if col not in asides or rank > self._rank(asides[col][0])]
            self._clocks.set_asides(tbl, packed, kept)
            return
        inserted = self._clocks.inserted(tbl, rid)
        cells = self._clocks.cells(tbl, rid)
        winning: list[tuple[int, SQLValue]] = []
        for col, value in sets:
            shown = cells.get(col, inserted.entry if inserted.mask >> col & 1 else None)
            if shown is None or rank > self._rank(shown):
                winning.append((col, value))
        self._write(layout, rid, key, winning)
        self._clocks.set_cells(tbl, [(rid, col, entry) for col, _ in winning])

    def _delete(self, entry: int, rank: Rank, layout: Layout, key: Row) -> None:
        tbl = layout.number
        packed = layout.pack_key(key)
        deleted = self._clocks.deleted(tbl, packed)
        if deleted is not None and self._rank(deleted) > rank:
            return
        self._clocks.set_deleted(tbl, [packed], entry)
        rid: int | None = self._cursor.execute(layout.locate_sql, key).get
        if rid is None:
            for col, (aside_entry, _) in self._clocks.asides(tbl, packed).items():
                if rank > self._rank(aside_entry):
                    self._clocks.remove_aside(tbl, packed, col)
            return
        inserted = self._clocks.inserted(tbl, rid)
        cells = self._clocks.cells(tbl, rid)
        if self._rank(inserted.entry) > rank:
            # It stays alive. Only columns that its insert did not write can show something older than this delete.
            lost = [col for col, cell_entry in cells.items() if rank > self._rank(cell_entry)]
            self._write(layout, rid, key, [(col, layout.missing[col]) for col in lost])
            self._clocks.remove_cells(tbl, rid, lost)
            return
        later = [col for col, cell_entry in cells.items() if self._rank(cell_entry) > rank]
        address = layout.address(rid, key)
        if later:
            values = self._cursor.execute(layout.read_sql, address).fetchone()
            self._clocks.set_asides(tbl, packed, [(col, cells[col], values[col]) for col in later])
        self._cursor.execute(layout.delete_sql, address)
        if layout.has_locator:
            self._cursor.execute(layout.delete_locator_sql, key)
        self._clocks.forget_rows(tbl, [rid])

    def _write(self, layout: Layout, rid: int, key: Row, sets: Sequence[tuple[int, SQLValue]]) -> None:
        if sets:
            sql = layout.update_sql(tuple(position for position, _ in sets))
            self._cursor.execute(sql, (*(value for _, value in sets), *layout.address(rid, key)))


def _read_keys(layout: Layout, columns: Sequence[Sequence[SQLValue]]) -> list[Row]:
    if len(columns) != len(layout.key):
        raise bad_body("keys of another length")
    for position, column in zip(layout.key, columns, strict=True):
        layout.check_cells(position, column)
    return list(zip(*columns, strict=True))


def _read_inserts(reading: _Reading, columns: Sequence[Sequence[SQLValue]]) -> tuple[list[Row], list[Row]]:
    """Inserted rows in the table's own column order, and their keys."""
    if not columns:
        return [], []
    if len(columns) != len(reading.positions):
        raise bad_body("rows of another length")
    layout = reading.layout
    for position, column in zip(reading.positions, columns, strict=True):
        layout.check_cells(position, column)
    if not reading.is_whole:
        given = dict(zip(reading.positions, columns, strict=True))
        count = len(columns[0])
        columns = [given.get(position) or [layout.missing[position]] * count for position in range(layout.width)]
    return list(zip(*columns, strict=True)), list(zip(*[columns[position] for position in layout.key], strict=True))
