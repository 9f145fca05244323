"""What one local request changed in one table: captured by capture.py, recorded and encoded by merge.py (DESIGN 7)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

SQLValue: TypeAlias = None | int | float | str | bytes
"""A value as SQLite stores it."""

Row: TypeAlias = tuple[SQLValue, ...]
"""The values of one row, in the order of the projected table's columns."""


@dataclass
class TableChanges:
    """The net changes of one request in one table. A key occurs at most once over all three lists.

    Row ids are None in WITHOUT ROWID tables.

    Attributes:
        table: the table's name in the projection.
        inserts: (row id, values) of rows that were absent before and are present now.
        updates: (row id before, row id now, values before, values now) of rows present before and now under the same key. Equal
            values with different row ids are a pure move (REPLACE with the same content): the clocks move, nothing is sent.
        deletes: (row id before, values before) of rows that were present and are absent now.
    """

    table: str
    inserts: list[tuple[int | None, Row]] = field(default_factory=list)
    updates: list[tuple[int | None, int | None, Row, Row]] = field(default_factory=list)
    deletes: list[tuple[int | None, Row]] = field(default_factory=list)
