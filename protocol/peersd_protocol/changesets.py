"""Changesets: the net row changes of one transaction, the body of a data entry (SPEC: D, DESIGN 7).

Tables and columns are named by the schema operations that made them. Values stand in columns, because that compresses better and
because one type check then covers a whole column; long columns of alike values are packed (peersd_protocol.columns).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, cast

import msgpack

from peersd_protocol import canonical
from peersd_protocol.columns import Column, pack_column, packed_cells, unpack_column
from peersd_protocol.constants import (
    BODY_BYTES_MAX,
    CHANGESET_ARRAYS_MAX,
    CHANGESET_CELLS_MAX,
    COLUMNS_MAX,
    SCHEMA_OPS_MAX,
    TABLES_MAX,
)
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.fields import check_ascending, malformed, read_array, read_bytes, read_int
from peersd_protocol.schema import TableId
from peersd_protocol.schema_ops import ACT_ID_BYTES

TYPE: Final = 1
"""The body's first element."""

OP_SET: Final = 0
"""The only operation on a cell that this version knows."""

_SCALARS: Final[frozenset[type]] = frozenset((type(None), int, float, str, bytes))
_KEYS: Final[frozenset[type]] = frozenset((int, str, bytes))
_ACTS_MAX: Final = TABLES_MAX * COLUMNS_MAX
_INT_MAX: Final = 2**63 - 1

_NOTHING: Final = b"\x90\x90\x90"
"""How a body ends whose last table has neither inserts nor updates nor deletes."""

_NO_MORE: Final = b"\x90\x90"
"""How it ends without the latter two."""


@dataclass(frozen=True, slots=True)
class Updates:
    """Updates that set the same columns, of rows that were there before and after.

    Attributes:
        positions: the columns set, ascending, as positions in the table's column list.
        keys: the rows' keys: one list for each key column, in key order.
        columns: the values: one list for each of `positions`.
    """

    positions: tuple[int, ...]
    keys: Sequence[Column]
    columns: Sequence[Column]


@dataclass(frozen=True, slots=True)
class TableChangeset:
    """The changes in one table.

    Attributes:
        table: the operation that created it. With `added` it gives the column list that positions and `inserts` refer to: the
            columns of that operation in order, then the column of each operation in `added`.
        added: the ADD COLUMN operations that the author had.
        inserts: one list for each column of the column list, all of one length; no list if nothing was inserted.
        updates: ascending by positions.
        deletes: one list for each key column, in key order; no list if nothing was deleted.
    """

    table: TableId
    added: tuple[TableId, ...] = ()
    inserts: Sequence[Column] = ()
    updates: tuple[Updates, ...] = ()
    deletes: Sequence[Column] = ()


@dataclass(frozen=True, slots=True)
class Changeset:
    """The net changes of one transaction, at most one element a table."""

    tables: tuple[TableChangeset, ...]

    @property
    def acts(self) -> list[bytes]:
        """Ids of the schema acts that it refers to, in the order of their first use."""
        ids: dict[bytes, None] = {}
        for table in self.tables:
            ids[table.table[0]] = None
            for act, _ in table.added:
                ids[act] = None
        return list(ids)


EMPTY: Final = Changeset(())
"""What an entry without a body changes."""


@dataclass(frozen=True, slots=True)
class UnknownBody:
    """A body that a later version understands: of another type, or with another operation on cells. It is held and forwarded."""

    reason: str


def encode(changeset: Changeset) -> bytes:
    """The raw body. The caller vouches for the rules that `decode` checks."""
    numbers = {act: number for number, act in enumerate(changeset.acts)}
    tables: list[Any] = [
        [
            numbers[table.table[0]],
            table.table[1],
            [[numbers[act], op] for act, op in table.added],
            _packed(table.inserts),
            [
                [group.positions, [OP_SET] * len(group.positions), _packed([*group.keys, *group.columns])]
                for group in table.updates
            ],
            _packed(table.deletes),
        ]
        for table in changeset.tables
    ]
    return canonical.encode([TYPE, list(numbers), tables])


def _packed(columns: Sequence[Column]) -> list[Column | bytes]:
    return [pack_column(column) for column in columns]


def fits(changeset: Changeset) -> bool:
    """Whether a changeset is within CHANGESET_CELLS_MAX and CHANGESET_ARRAYS_MAX, which every receiver checks.

    A body of at most CHANGESET_ARRAYS_MAX bytes always is.
    """
    # The body itself, its list of acts and its list of tables; each reference in `added` is an array of two.
    arrays, elements = 3, 3 + len(changeset.acts) + len(changeset.tables)
    for table in changeset.tables:
        sides = (table.inserts, table.deletes, *(side for group in table.updates for side in (group.keys, group.columns)))
        arrays += 5 + len(table.added) + 4 * len(table.updates) + sum(map(len, sides))
        elements += 6 + 3 * len(table.added) + sum(4 + 2 * len(group.positions) for group in table.updates)
        elements += sum(map(len, sides)) + sum(sum(map(len, side)) for side in sides)
    return arrays <= CHANGESET_ARRAYS_MAX and elements <= CHANGESET_CELLS_MAX


def decode(body: bytes) -> Changeset | UnknownBody:
    """Reads a raw body of a data entry that is not empty.

    Whether the tables and columns exist and can hold the values is judged against the schema, where the changeset is applied.

    Raises:
        RemoteProtocolError: TOO_LARGE above a bound; MALFORMED if shape, types or order are wrong, or it is not canonical.
    """
    room = _Room()
    fields = _unpack(body, room)
    if read_int(fields[0] if fields else None, "type of body", 0, 2**31) != TYPE:
        return UnknownBody(f"body of type {fields[0]}")
    _, act_fields, table_fields = read_array(fields, "changeset", length=3)
    acts = [read_bytes(act, "act id", ACT_ID_BYTES) for act in read_array(act_fields, "acts", items_max=_ACTS_MAX)]
    tables: list[TableChangeset] = []
    unknown: set[int] = set()
    for table in read_array(table_fields, "tables", items_max=TABLES_MAX):
        tables.append(_decode_table(table, acts, unknown, room))
    if not tables:
        raise malformed("a changeset without tables")
    if len({table.table for table in tables}) != len(tables):
        raise malformed("one table twice")
    changeset = Changeset(tuple(tables))
    if changeset.acts != acts:
        # Also when acts are named twice or not used: there is one order to write them in.
        raise malformed("acts are not in the order of their first use")
    if unknown:
        return UnknownBody(f"cell operation {min(unknown)}")
    return changeset


def decode_inserts(bodies: Sequence[bytes]) -> tuple[Changeset, Sequence[int]] | None:
    """Reads many small raw bodies together, if each of them inserts rows into the same table and does nothing else.

    Args:
        bodies: not empty.

    Returns:
        The changeset of all their rows, in order, and how many rows each body has. None where they do not fit together, and where
        one is not as it has to be: then each is decoded by itself.
    """
    if sum(map(len, bodies)) > CHANGESET_ARRAYS_MAX:
        return None  # a bound on what they become in memory
    try:
        return _join_inserts(bodies)
    except RemoteProtocolError:
        return None


def _join_inserts(bodies: Sequence[bytes]) -> tuple[Changeset, Sequence[int]] | None:
    """What `decode_inserts` gives.

    Raises:
        RemoteProtocolError: one is not as it has to be.
    """
    first = decode(bodies[0])
    if isinstance(first, UnknownBody) or len(first.tables) != 1 or not first.tables[0].inserts:
        return None
    (table,) = first.tables
    pack = canonical.make_encoder()
    # Made from what the body says, and not cut out of it, where a length would have to be believed.
    start = encode(Changeset((TableChangeset(table.table, table.added),)))[: -len(_NOTHING)]
    if {body[: len(start)] for body in bodies} != {start} or {body[-len(_NO_MORE) :] for body in bodies} != {_NO_MORE}:
        return None
    # What is alike in all of them was read in the first; only what differs is unpacked.
    inserts = _unpack_all([body[len(start) : -len(_NO_MORE)] for body in bodies], pack)
    if set(map(type, inserts)) != {list} or set(map(len, inserts)) != {len(table.inserts)}:
        return None
    parts = list(zip(*inserts, strict=True))
    if any(set(map(type, column)) != {list} for column in parts):
        return None
    counts = list(map(len, parts[0]))
    if 0 in counts or any(list(map(len, column)) != counts for column in parts):
        return None
    columns: list[Column] = [list(chain.from_iterable(column)) for column in parts]
    _check_cells(columns, _SCALARS)
    return Changeset((TableChangeset(table.table, table.added, columns),)), counts


def _unpack_all(packed: Sequence[bytes], pack: Callable[[Any], bytes]) -> list[Any]:
    """Unpacks canonical values in one go; what each packs to again shows that it is canonical and where it ends."""
    joined = b"\xdd" + len(packed).to_bytes(4, "big") + b"".join(packed)
    try:
        fields: list[Any] = canonical.unpack(joined)
        is_canonical = list(map(pack, fields)) == list(packed)
    except Exception as error:
        raise malformed(f"msgpack: {type(error).__name__}") from error
    if not is_canonical:
        raise malformed("not canonical")
    return fields


class _Room:
    """Counts what a body becomes in memory."""

    def __init__(self) -> None:
        self._arrays_left = CHANGESET_ARRAYS_MAX
        self._cells_left = CHANGESET_CELLS_MAX

    def take_array(self, array: list[Any]) -> list[Any]:
        """Counts an array and its elements."""
        self._arrays_left -= 1
        self.take_cells(len(array))
        return array

    def take_cells(self, cells: int) -> None:
        """Counts the values of a packed column, before they are unpacked."""
        self._cells_left -= cells
        if self._arrays_left < 0 or self._cells_left < 0:
            raise RemoteProtocolError(CloseCode.TOO_LARGE, "cells of a changeset")


def _unpack(body: bytes, room: _Room) -> Sequence[Any]:
    """Unpacks canonical msgpack. What it becomes in memory has a bound, which canonical.decode leaves to the input's size."""
    if len(body) > BODY_BYTES_MAX:
        raise RemoteProtocolError(CloseCode.TOO_LARGE, f"{len(body)} bytes in a body")
    # Fewer bytes than CHANGESET_ARRAYS_MAX cannot hold too much; then the count, a call for each array, is left out.
    is_small = len(body) <= CHANGESET_ARRAYS_MAX
    try:
        fields = canonical.unpack(body, list_hook=None if is_small else room.take_array, array_max=CHANGESET_CELLS_MAX)
        is_canonical = msgpack.packb(fields, use_bin_type=True) == body
    except RemoteProtocolError:
        raise
    except Exception as error:
        raise malformed(f"msgpack: {type(error).__name__}") from error
    if not isinstance(fields, list):
        raise malformed("body is no array")
    if not is_canonical:
        raise malformed("not canonical")
    return fields


def _decode_table(value: Any, acts: Sequence[bytes], unknown: set[int], room: _Room) -> TableChangeset:
    act, op, added_fields, insert_fields, update_fields, delete_fields = read_array(value, "table", length=6)
    table = _decode_ref(act, op, acts)
    pairs = [read_array(pair, "added column", length=2) for pair in read_array(added_fields, "added", items_max=COLUMNS_MAX)]
    added = tuple(_decode_ref(added_act, added_op, acts) for added_act, added_op in pairs)
    if len(set(added)) != len(added):
        raise malformed("one column added twice")
    inserts = _read_columns(insert_fields, "inserts", room)
    deletes = _read_columns(delete_fields, "deletes", room)
    _check_cells(inserts, _SCALARS)
    _check_cells(deletes, _KEYS)
    groups = [_decode_updates(group, unknown, room) for group in read_array(update_fields, "updates")]
    check_ascending([group.positions for group in groups], "groups of updates")
    if not (inserts or groups or deletes):
        raise malformed("a table without changes")
    return TableChangeset(table, added, inserts, tuple(groups), deletes)


def _decode_ref(act: Any, op: Any, acts: Sequence[bytes]) -> TableId:
    return acts[read_int(act, "index of an act", 0, len(acts) - 1)], read_int(op, "op", 0, SCHEMA_OPS_MAX - 1)


def _decode_updates(value: Any, unknown: set[int], room: _Room) -> Updates:
    position_fields, op_fields, column_fields = read_array(value, "group of updates", length=3)
    positions = tuple(
        read_int(position, "position", 0, COLUMNS_MAX - 1)
        for position in read_array(position_fields, "positions", items_max=COLUMNS_MAX)
    )
    if not positions:
        raise malformed("updates of no column")
    check_ascending(positions, "positions")
    ops = [read_int(op, "cell operation", 0, 2**31) for op in read_array(op_fields, "cell operations", length=len(positions))]
    columns = _read_columns(column_fields, "updates", room)
    key_columns = len(columns) - len(positions)
    if key_columns < 1:
        raise malformed("updates without keys")
    keys, values = columns[:key_columns], columns[key_columns:]
    _check_cells(keys, _KEYS)
    # The operands of an unknown operation may be of any form.
    _check_cells([column for column, op in zip(values, ops, strict=True) if op == OP_SET], _SCALARS)
    unknown.update(op for op in ops if op != OP_SET)
    return Updates(positions, keys, values)


def _read_columns(value: Any, what: str, room: _Room) -> Sequence[Column]:
    columns = cast("Sequence[Any]", read_array(value, what, items_max=2 * COLUMNS_MAX))
    if columns:
        if bytes in set(map(type, columns)):
            for column in columns:
                if type(column) is bytes:
                    room.take_cells(packed_cells(column))
            columns = [unpack_column(column) if type(column) is bytes else column for column in columns]
        if set(map(type, columns)) != {list}:
            raise malformed(f"a column of {what} is none")
        lengths = set(map(len, cast("Iterable[Column]", columns)))
        if len(lengths) != 1 or 0 in lengths:
            raise malformed(f"columns of {what} are empty or differ in length")
    return cast("Sequence[Column]", columns)


def _check_cells(columns: Iterable[Column], allowed: frozenset[type]) -> None:
    """Checks types and ranges a column at a time. `type` tells booleans from integers, which isinstance would not."""
    for column in columns:
        types = set(map(type, column))
        if not types <= allowed:
            raise malformed("a cell of a type that has no place there")
        if types == {int}:
            too_large = max(cast("Sequence[int]", column)) > _INT_MAX
        else:
            too_large = int in types and any(type(cell) is int and cell > _INT_MAX for cell in column)
        if too_large:
            raise malformed("an integer above 64 bits signed")
        if float in types and any(cell != cell for cell in column):
            raise malformed("NaN")
