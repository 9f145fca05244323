"""Local changes: their changeset, and their clocks once they are an entry (DESIGN 7).

A local entry outranks everything this replica has seen, since its stamp is greater than all of them. So nothing is compared here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from math import copysign
from typing import Any

import apsw

from peersd.errors import PeersdError
from peersd.store.changes import Row, SQLValue, TableChanges
from peersd.store.clocks import Clocks, Inserted, runs_of
from peersd.store.layout import Layout
from peersd_protocol import changesets
from peersd_protocol.changesets import Changeset, TableChangeset, Updates
from peersd_protocol.constants import BODY_BYTES_MAX, CHANGESET_ARRAYS_MAX
from peersd_protocol.errors import RemoteProtocolError

_Update = tuple[int | None, int | None, Row, Row]


def encode_changes(changes: Sequence[tuple[Layout, TableChanges]]) -> bytes | None:
    """The body of the entry that these changes become.

    Returns:
        The raw body, or None if there is nothing to tell: no changes, or only rows that moved.

    Raises:
        PeersdError: `sql_refused` for a key value that is NULL or REAL, `too_large`.
    """
    tables: list[TableChangeset] = []
    for layout, change in changes:
        inserts = list(zip(*[row for _, row in change.inserts], strict=True))
        deletes = list(zip(*[layout.key_of(row) for _, row in change.deletes], strict=True))
        updates = _group_updates(layout, change.updates)
        if inserts or deletes or updates:
            if inserts:
                _check_keys(layout, [inserts[position] for position in layout.key])
            added = tuple(column.id[:2] for column in layout.table.columns[layout.original_columns :])
            tables.append(TableChangeset(layout.table.id, added, inserts, updates, deletes))
    if not tables:
        return None
    changeset = Changeset(tuple(tables))
    body = changesets.encode(changeset)
    if len(body) > BODY_BYTES_MAX or (len(body) > CHANGESET_ARRAYS_MAX and not changesets.fits(changeset)):
        raise PeersdError("too_large", "The transaction changes too much to travel as one.", hint="Split it into smaller ones.")
    return body


def _group_updates(layout: Layout, updates: Sequence[_Update]) -> tuple[Updates, ...]:
    groups: dict[tuple[int, ...], list[Row]] = {}
    for _, _, old, new in updates:
        positions = changed_positions(old, new)
        if positions:
            cells = (*layout.key_of(new), *(new[position] for position in positions))
            groups.setdefault(positions, []).append(cells)
    key_columns = len(layout.key)
    return tuple(
        Updates(positions, columns[:key_columns], columns[key_columns:])
        for positions, rows in sorted(groups.items())
        for columns in [list(zip(*rows, strict=True))]
    )


def _check_keys(layout: Layout, columns: Sequence[Sequence[SQLValue]]) -> None:
    """Refuses here what every receiver would refuse."""
    for position, column in zip(layout.key, columns, strict=True):
        try:
            layout.check_cells(position, column)
        except RemoteProtocolError as error:
            name = layout.table.columns[position].name
            raise PeersdError(
                "sql_refused",
                f"Column {name!r} got a key value that cannot be shared.",
                hint="Key values are text, blobs or integers, and not NULL.",
            ) from error


def changed_positions(old: Row, new: Row) -> tuple[int, ...]:
    """Positions of the values that are stored differently: 1, 1.0 and '1' differ, and so do 0.0 and -0.0."""
    return tuple(
        position
        for position, (before, after) in enumerate(zip(old, new, strict=True))
        if before is not after and not _same(before, after)
    )


def _same(one: SQLValue, other: SQLValue) -> bool:
    if type(one) is not type(other) or one != other:
        return False
    return one != 0 or not isinstance(one, float) or not isinstance(other, float) or copysign(1, one) == copysign(1, other)


class Recorder:
    """Writes the clocks of local changes, inside the transaction that made them.

    Args:
        connection: the writer.
        clocks: of the same file.
    """

    def __init__(self, connection: apsw.Connection, clocks: Clocks) -> None:
        self._cursor: Any = connection.cursor()
        self._clocks = clocks

    def record(self, entry: int, layout: Layout, change: TableChanges) -> None:
        """Records the changes of one table.

        Args:
            entry: id of the entry that they became; not used if rows only moved.
            layout: of the table.
            change: what changed; the rows are in the table already.
        """
        tbl = layout.number
        moves = [] if layout.has_locator else [(old, new) for old, new, _, _ in change.updates if old != new]
        # All clocks that move are read before any is written: two rows may have changed places.
        moved = [
            (new, self._clocks.inserted(tbl, old), self._clocks.cells(tbl, old))
            for old, new in moves
            if old is not None and new is not None
        ]
        gone = [old for old, _ in moves if old is not None]
        if change.deletes:
            keys = [layout.key_of(row) for _, row in change.deletes]
            gone += self._unlocate(layout, keys) if layout.has_locator else [rid for rid, _ in change.deletes if rid is not None]
            self._clocks.set_deleted(tbl, map(layout.pack_key, keys), entry)
        if gone:
            self._clocks.forget_rows(tbl, gone)
        if change.inserts:
            self._record_inserts(entry, layout, change.inserts)
        for rid, inserted, cells in moved:
            self._clocks.set_inserted(tbl, rid, rid, inserted)
            self._clocks.set_cells(tbl, [(rid, col, cell_entry) for col, cell_entry in cells.items()])
        if change.updates:
            self._record_updates(entry, layout, change.updates)

    def _record_inserts(self, entry: int, layout: Layout, inserts: Sequence[tuple[int | None, Row]]) -> None:
        tbl = layout.number
        if layout.has_locator:
            first = self.next_rid(layout)
            keys = [layout.key_of(row) for _, row in inserts]
            self._cursor.executemany(layout.insert_locator_sql, [(*key, first + index) for index, key in enumerate(keys)])
            ranges = [(first, first + len(keys) - 1)]
        else:
            ranges = runs_of(rid for rid, _ in inserts if rid is not None)
        if self._clocks.any_rows("aside", tbl):
            # The insert writes every column, above all that was kept for the row.
            self._clocks.remove_asides(tbl, [layout.pack_key(layout.key_of(row)) for _, row in inserts])
        for first, last in ranges:
            self._clocks.set_inserted(tbl, first, last, Inserted(entry, layout.full_mask))

    def _record_updates(self, entry: int, layout: Layout, updates: Sequence[_Update]) -> None:
        cells = [
            (self._locate(layout, new) if rid is None or layout.has_locator else rid, changed_positions(old, new))
            for _, rid, old, new in updates
        ]
        self._clocks.set_cells(layout.number, [(rid, position, entry) for rid, positions in cells for position in positions])

    def next_rid(self, layout: Layout) -> int:
        """The number of the next row of a table with a locator."""
        return (self._cursor.execute(layout.last_rid_sql).get or 0) + 1

    def _locate(self, layout: Layout, row: Row) -> int:
        rid: int = self._cursor.execute(layout.locate_sql, layout.key_of(row)).get
        return rid

    def _unlocate(self, layout: Layout, keys: Sequence[Row]) -> list[int]:
        found = self._cursor.executemany(layout.locate_sql, keys).fetchall()
        self._cursor.executemany(layout.delete_locator_sql, keys)
        return list(chain.from_iterable(found))
