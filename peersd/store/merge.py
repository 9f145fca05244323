"""The merge of one store: schema to tables, local changes to changesets, changesets of others to rows (DESIGN 7).

Rows are a function of the set of entries applied, whatever the order. Each column is a register where the last writer wins, by
rank: (HLC, device, entry hash). A row is alive if its greatest insert is above its greatest delete; a column of it shows its
greatest write above the greatest delete, else its default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import apsw

from peersd.store.applying import Applier, Plan, Rank
from peersd.store.changes import Row, SQLValue, TableChanges
from peersd.store.clocks import Clocks
from peersd.store.layout import Layout
from peersd.store.projection import Projection
from peersd.store.recording import Recorder, encode_changes
from peersd_protocol import canonical
from peersd_protocol.canonical import Value
from peersd_protocol.changesets import Changeset
from peersd_protocol.errors import RemoteProtocolError
from peersd_protocol.schema import EMPTY, Schema


@dataclass(frozen=True, slots=True)
class RowClocks:
    """The clocks of one key, independent of local numbers.

    Attributes:
        inserted: rank of the greatest insert of a living row, else None.
        deleted: rank of the greatest delete, or None.
        written: rank by column, for columns of a living row that show a write.
        aside: (rank, value) by column, of a row that is not alive.
    """

    inserted: Rank | None
    deleted: Rank | None
    written: dict[str, Rank]
    aside: dict[str, tuple[Rank, Value]]


@dataclass(frozen=True, slots=True)
class PlannedInserts:
    """Checked inserts of consecutive entries, and how many rows each entry has."""

    plan: Plan
    counts: Sequence[int]

    def __len__(self) -> int:
        """How many entries."""
        return len(self.counts)


Planned: TypeAlias = PlannedInserts | list[list[Plan]]
"""The checked changes of as many consecutive entries as its length says: inserts together, any others those of each."""


class Merge:
    """Rows and clocks of one store. Transactions are the caller's.

    After a rollback that undoes a call of this object the caller calls `set_schema`, since memory may be ahead of the file.

    Args:
        connection: the writer of the group's file; triggers and foreign keys are off.
        rank: the rank of an entry by its id. Entries are known to it before they are applied or recorded.
        applying: opens a context around changes that are not a client's, so that capture leaves them out.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        rank: Callable[[int], Rank],
        applying: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._connection: Any = connection
        self._rank = rank
        self._applying = applying
        self._projection = Projection(connection)
        self._clocks = Clocks(connection)
        self._recorder = Recorder(connection, self._clocks)
        self._applier = Applier(connection, self._clocks, rank)
        self._by_name: dict[str, Layout] = {}
        self.schema = EMPTY

    def set_schema(self, schema: Schema) -> bool:
        """Brings the tables in line with a schema where that only appends to them. Also the way back from a rollback.

        Returns:
            Whether a rebuild is needed instead. Nothing was changed then: the caller calls `clear`, this again, and applies all
            entries anew, in any order.
        """
        self._projection.reload()
        self._clocks.reload()
        with self._applying():
            if not self._projection.update(schema):
                return True
        self.schema = schema
        layouts = self._projection.layouts
        self._by_name = {layout.table.name: layout for layout in layouts.values()}
        self._applier.set_schema(schema, layouts)
        return False

    def clear(self) -> None:
        """Drops all tables, rows and clocks. `set_schema` makes the tables anew, whatever the schema."""
        with self._applying():
            self._projection.drop()
        self._clocks.reload()

    # --- Local changes ----------------------------------------------------------------------------------------------------------

    def encode_local(self, changes: Sequence[TableChanges]) -> bytes | None:
        """The raw body of the entry that local changes become.

        Returns:
            The body; None if nothing changed, or rows only moved. Moves still have to be recorded.

        Raises:
            PeersdError: `sql_refused` for a key value that is NULL or REAL, `too_large`.
        """
        return encode_changes([(self._by_name[change.table], change) for change in changes])

    def record_local(self, entry: int, changes: Sequence[TableChanges]) -> None:
        """Writes the clocks of local changes, whose rows are in the tables already.

        Args:
            entry: id of their entry, whose rank is above every rank seen. Not used where `encode_local` gave None: rows that only
                moved keep their clocks.
            changes: what `encode_local` got.
        """
        with self._applying():
            for change in changes:
                self._recorder.record(entry, self._by_name[change.table], change)

    # --- Remote changes ---------------------------------------------------------------------------------------------------------

    def apply(self, entry: int, changeset: Changeset) -> None:
        """Applies a changeset of another device, or any changeset in a rebuild, once.

        Raises:
            RemoteProtocolError: BAD_BODY if it names tables or columns that are not there, holds a value that its column cannot
                hold, or names a row twice. Nothing was changed then.
        """
        plans = self._applier.plan(changeset)
        with self._applying():
            self._applier.apply(entry, plans)

    def plan(self, changeset: Changeset) -> list[Plan]:
        """Checks a changeset of another device, for `apply_planned`.

        Raises:
            RemoteProtocolError: as of `apply`.
        """
        return self._applier.plan(changeset)

    def plan_inserts(self, changeset: Changeset, counts: Sequence[int]) -> PlannedInserts | None:
        """Checks the inserts of consecutive entries of another device, where nothing else is in them.

        Args:
            changeset: all their rows, of one table.
            counts: how many each entry has.

        Returns:
            What `apply_planned` takes; None where one of them has to be kept aside, or two insert one row.
        """
        try:
            (plan,) = self._applier.plan(changeset)
        except RemoteProtocolError:
            return None
        return PlannedInserts(plan, counts)

    def apply_planned(self, first: int, planned: Planned) -> None:
        """Writes checked changes of consecutive entries, the first of which has this id."""
        with self._applying():
            if isinstance(planned, PlannedInserts):
                self._apply_inserts(first, planned)
                return
            for entry, plans in enumerate(planned, first):
                self._applier.apply(entry, plans)

    def _apply_inserts(self, first: int, planned: PlannedInserts) -> None:
        entries: Sequence[int] = range(first, first + len(planned.counts))
        if len(planned.plan.rows) != len(entries):
            entries = [entry for entry, count in zip(entries, planned.counts, strict=True) for _ in range(count)]
        self._applier.apply_inserts(entries, planned.plan)

    # --- For comparing ----------------------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, list[tuple[Value, ...]]]:
        """All rows of the application's tables by table name, sorted by key. Equal dumps mean equally stored values."""
        return {
            name: [tuple(map(exact, row)) for row in self._connection.execute(layout.dump_sql)]
            for name, layout in sorted(self._by_name.items())
        }

    def dump_clocks(self) -> dict[str, dict[bytes, RowClocks]]:
        """The clocks of each key (its canonical array) by table name."""
        return {name: self._dump_clocks(layout) for name, layout in sorted(self._by_name.items())}

    def _dump_clocks(self, layout: Layout) -> dict[bytes, RowClocks]:
        tbl = layout.number
        names = [column.name for column in layout.table.columns]
        dumped: dict[bytes, RowClocks] = {}
        for row in self._connection.execute(layout.dump_sql).fetchall():
            key: Row = layout.key_of(row)
            rid = self._connection.execute(layout.locate_sql, key).get
            inserted = self._clocks.inserted(tbl, rid)
            entries = {col: inserted.entry for col in range(layout.width) if inserted.mask >> col & 1} | self._clocks.cells(
                tbl, rid
            )
            written = {names[col]: self._rank(entry) for col, entry in entries.items() if col not in layout.key}
            dumped[canonical.encode(list(key))] = RowClocks(self._rank(inserted.entry), None, written, {})
        for packed, entry in self._connection.execute("SELECT key, entry FROM _peers_delete WHERE tbl = ?", (tbl,)).fetchall():
            old = dumped.get(packed, RowClocks(None, None, {}, {}))
            dumped[packed] = RowClocks(old.inserted, self._rank(entry), old.written, old.aside)
        asides = "SELECT key, col, entry, value FROM _peers_aside WHERE tbl = ?"
        for packed, col, entry, value in self._connection.execute(asides, (tbl,)).fetchall():
            old = dumped.setdefault(packed, RowClocks(None, None, {}, {}))
            old.aside[names[col]] = (self._rank(entry), exact(value))
        return dumped


def exact(value: SQLValue) -> Value:
    """A value such that equal ones are stored alike: a double as ("real", its hexadecimal form), all else as it is."""
    return ("real", value.hex()) if isinstance(value, float) else value
