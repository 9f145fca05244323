"""The rows of the clock tables (clocks.sql): which write each cell shows. Decides nothing; merge rules are elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import apsw

from peersd.store.changes import SQLValue

_GREATEST_SPAN = (
    "SELECT first, last, entry, step, shape FROM _peers_span WHERE tbl = ? AND first <= ? ORDER BY first DESC LIMIT 1"
)
_LAST_SPAN = "SELECT first, last, entry, step, shape FROM _peers_span WHERE tbl = ? ORDER BY first DESC LIMIT 1"
_INSERT_SPAN = "INSERT INTO _peers_span VALUES (?, ?, ?, ?, ?, ?)"
_EXTEND_SPAN = "UPDATE _peers_span SET last = ?, step = 1 WHERE tbl = ? AND first = ?"
_SET_DELETE = "INSERT INTO _peers_delete VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET entry = excluded.entry"
_SET_CELL = "INSERT INTO _peers_cell VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET entry = excluded.entry"
_SET_ASIDE = (
    "INSERT INTO _peers_aside VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET entry = excluded.entry, value = excluded.value"
)

_RID_MIN = -(2**63)

_Span: TypeAlias = tuple[int, int, int, int, int]
"""first, last, entry, step, shape: as in clocks.sql."""


@dataclass(frozen=True, slots=True)
class Inserted:
    """A living row's greatest insert.

    Attributes:
        entry: id of the entry.
        mask: bit mask of the columns that it wrote.
    """

    entry: int
    mask: int


def runs_of(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Numbers as (first, last) ranges, ascending."""
    ordered = sorted(numbers)
    if not ordered:
        return []
    if ordered[-1] - ordered[0] == len(ordered) - 1:
        return [(ordered[0], ordered[-1])]
    breaks = [(before, after) for before, after in pairwise(ordered) if after != before + 1]
    return list(zip([ordered[0], *(after for _, after in breaks)], [*(before for before, _ in breaks), ordered[-1]], strict=True))


class Clocks:
    """Reads and writes clock rows. Transactions are the caller's; after a rollback the caller calls `reload`.

    `tbl` is a table's local number, `rid` a row's, `entry` the id of an entry, `col` a column's position.

    Args:
        connection: the writer, with the tables of clocks.sql.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._cursor: Any = connection.cursor()
        self._connection = connection
        self.reload()

    def reload(self) -> None:
        """Forgets what is kept in memory."""
        self._shapes: dict[tuple[int, int], int] = {}
        self._masks: dict[int, int] = {}
        self._in_use: dict[tuple[str, int], bool] = {}
        self._last_spans: dict[int, _Span | None] = {}

    def any_rows(self, name: str, tbl: int) -> bool:
        """Whether a table may have cells, deletes or asides (`name`: "cell", "delete" or "aside"). A False is certain."""
        in_use = self._in_use.get((name, tbl))
        if in_use is None:
            found = self._cursor.execute(f"SELECT 1 FROM _peers_{name} WHERE tbl = ? LIMIT 1", (tbl,)).get
            in_use = self._in_use[name, tbl] = found is not None
        return in_use

    # --- Inserts ----------------------------------------------------------------------------------------------------------------

    def shape(self, tbl: int, mask: int) -> int:
        """The id of a shape, made if need be."""
        id_ = self._shapes.get((tbl, mask))
        if id_ is None:
            columns = mask.to_bytes((mask.bit_length() + 7) // 8, "little")
            id_ = self._cursor.execute("SELECT id FROM _peers_shape WHERE tbl = ? AND columns = ?", (tbl, columns)).get
            if id_ is None:
                self._cursor.execute("INSERT INTO _peers_shape (tbl, columns) VALUES (?, ?)", (tbl, columns))
                id_ = self._connection.last_insert_rowid()
            self._shapes[tbl, mask] = id_
            self._masks[id_] = mask
        return id_

    def _mask(self, shape: int) -> int:
        mask = self._masks.get(shape)
        if mask is None:
            columns = self._cursor.execute("SELECT columns FROM _peers_shape WHERE id = ?", (shape,)).get
            mask = self._masks[shape] = int.from_bytes(columns, "little")
        return mask

    def inserted(self, tbl: int, rid: int) -> Inserted:
        """The greatest insert of a living row."""
        span = self._span_before(tbl, rid)
        assert span is not None and span[1] >= rid, "a living row has a span"
        first, _, entry, step, shape = span
        return Inserted(entry + step * (rid - first), self._mask(shape))

    def _span_before(self, tbl: int, rid: int) -> _Span | None:
        """The last span that begins at a row or before it; no query where that is the table's last one, as for new rows."""
        if tbl not in self._last_spans:
            self._last_spans[tbl] = self._cursor.execute(_LAST_SPAN, (tbl,)).get
        last = self._last_spans[tbl]
        if last is None or last[0] <= rid:
            return last
        found: _Span | None = self._cursor.execute(_GREATEST_SPAN, (tbl, rid)).get
        return found

    def set_inserted(self, tbl: int, first: int, last: int, inserted: Inserted, step: int = 0) -> None:
        """Sets the greatest insert of the rows first..last; what older spans said of them is cut out.

        Args:
            tbl: which table.
            first: the first row.
            last: the last row, included.
            inserted: that of the first row.
            step: 0 where one entry inserted them all, 1 where each was inserted by the entry after the one before.
        """
        shape = self.shape(tbl, inserted.mask)
        found = self._span_before(tbl, last)
        is_last = found == self._last_spans[tbl]
        if found is not None and found[1] >= first:
            self._carve(tbl, first, last, found)
            is_last = False
        elif found is not None and found[1] == first - 1 and (step == 1 or first == last) and found[4] == shape:
            goes_on = found[3] == 1 or found[0] == found[1]
            if goes_on and found[2] + first - found[0] == inserted.entry:
                self._cursor.execute(_EXTEND_SPAN, (last, tbl, found[0]))
                if is_last:
                    self._last_spans[tbl] = (found[0], last, found[2], 1, shape)
                return
        self._cursor.execute(_INSERT_SPAN, (tbl, first, last, inserted.entry, step, shape))
        if is_last:
            self._last_spans[tbl] = (first, last, inserted.entry, step, shape)

    def _carve(self, tbl: int, first: int, last: int, greatest: _Span) -> None:
        self._last_spans.pop(tbl, None)
        rest: list[tuple[int, int, int, int, int, int]] = []
        if greatest[1] > last:
            begin, end, entry, step, shape = greatest
            rest.append((tbl, last + 1, end, entry + step * (last + 1 - begin), step, shape))
        lowest: _Span | None = self._cursor.execute(_GREATEST_SPAN, (tbl, first - 1)).get if first > _RID_MIN else None
        if lowest is not None and lowest[1] >= first:
            rest.append((tbl, lowest[0], first - 1, *lowest[2:]))
            self._cursor.execute("DELETE FROM _peers_span WHERE tbl = ? AND first = ?", (tbl, lowest[0]))
        self._cursor.execute("DELETE FROM _peers_span WHERE tbl = ? AND first BETWEEN ? AND ?", (tbl, first, last))
        self._cursor.executemany(_INSERT_SPAN, rest)

    # --- Cells ------------------------------------------------------------------------------------------------------------------

    def cells(self, tbl: int, rid: int) -> dict[int, int]:
        """Column to entry, for the cells of a row that have a clock of their own."""
        if not self.any_rows("cell", tbl):
            return {}
        return dict(self._cursor.execute("SELECT col, entry FROM _peers_cell WHERE tbl = ? AND rid = ?", (tbl, rid)))

    def set_cells(self, tbl: int, cells: Sequence[tuple[int, int, int]]) -> None:
        """Sets (rid, col, entry)."""
        if cells:
            self._in_use["cell", tbl] = True
            self._cursor.executemany(_SET_CELL, [(tbl, *cell) for cell in cells])

    def remove_cells(self, tbl: int, rid: int, cols: Iterable[int]) -> None:
        """Removes the clocks of some cells of a row."""
        self._cursor.executemany(
            "DELETE FROM _peers_cell WHERE tbl = ? AND rid = ? AND col = ?", [(tbl, rid, col) for col in cols]
        )

    def forget_rows(self, tbl: int, rids: Iterable[int]) -> None:
        """Removes the clocks of rows that are gone from these ids."""
        ranges = [(tbl, first, last) for first, last in runs_of(rids)]
        if self.any_rows("cell", tbl):
            self._cursor.executemany("DELETE FROM _peers_cell WHERE tbl = ? AND rid BETWEEN ? AND ?", ranges)
        self._last_spans.pop(tbl, None)
        # Spans that reach beyond a range stay: nobody asks them for rows that are gone, and `set_inserted` cuts them then.
        self._cursor.executemany("DELETE FROM _peers_span WHERE tbl = ?1 AND first BETWEEN ?2 AND ?3 AND last <= ?3", ranges)

    # --- Deletes and asides -----------------------------------------------------------------------------------------------------

    def deleted(self, tbl: int, key: bytes) -> int | None:
        """The entry of a key's greatest delete."""
        if not self.any_rows("delete", tbl):
            return None
        entry: int | None = self._cursor.execute("SELECT entry FROM _peers_delete WHERE tbl = ? AND key = ?", (tbl, key)).get
        return entry

    def set_deleted(self, tbl: int, keys: Iterable[bytes], entry: int) -> None:
        """Sets the greatest delete of keys."""
        self._in_use["delete", tbl] = True
        self._cursor.executemany(_SET_DELETE, [(tbl, key, entry) for key in keys])

    def asides(self, tbl: int, key: bytes) -> dict[int, tuple[int, SQLValue]]:
        """Column to (entry, value), for the writes kept for a row that is not alive."""
        if not self.any_rows("aside", tbl):
            return {}
        rows = self._cursor.execute("SELECT col, entry, value FROM _peers_aside WHERE tbl = ? AND key = ?", (tbl, key))
        return {col: (entry, value) for col, entry, value in rows}

    def set_asides(self, tbl: int, key: bytes, asides: Iterable[tuple[int, int, SQLValue]]) -> None:
        """Keeps (col, entry, value) for a row that is not alive."""
        rows = [(tbl, key, *aside) for aside in asides]
        if rows:
            self._in_use["aside", tbl] = True
            self._cursor.executemany(_SET_ASIDE, rows)

    def remove_asides(self, tbl: int, keys: Iterable[bytes]) -> None:
        """Drops all that is kept for these keys."""
        if self.any_rows("aside", tbl):
            self._cursor.executemany("DELETE FROM _peers_aside WHERE tbl = ? AND key = ?", [(tbl, key) for key in keys])

    def remove_aside(self, tbl: int, key: bytes, col: int) -> None:
        """Drops one write kept."""
        self._cursor.execute("DELETE FROM _peers_aside WHERE tbl = ? AND key = ? AND col = ?", (tbl, key, col))

    def keys_with_history(self, tbl: int, keys: Iterable[bytes]) -> set[bytes]:
        """Those of the keys that have a delete or an aside."""
        found: set[bytes] = set()
        for name in ("delete", "aside"):
            if self.any_rows(name, tbl):
                sql = f"SELECT key FROM _peers_{name} WHERE tbl = ? AND key = ?"
                found.update(row[0] for row in self._cursor.executemany(sql, [(tbl, key) for key in keys]))
        return found
