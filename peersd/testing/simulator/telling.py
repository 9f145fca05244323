"""Rows and values in words: what a client writes, for the trace, and what differs between devices, for who reads a failure."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

from peersd.store.client_sql import Statement
from peersd.store.statements import Params
from peersd.store.store import Write
from peersd_protocol.canonical import decode
from peersd_protocol.errors import RemoteProtocolError

_KEYS: Final[Mapping[str, Sequence[str]]] = {"pair": ("one", "two"), "file": ("name",)}
"""The columns of a table's key, where that is not `id`."""

_COLUMNS: Final[Mapping[str, Sequence[str]]] = {"note": ("id", "title", "body", "stars"), "file": ("name", "content")}
"""Of the tables that rows are inserted into without a list of columns."""

_TABLE: Final = re.compile(r"(?:INTO|UPDATE(?: OR \w+)?|FROM) (\w+)")
_LISTED: Final = re.compile(r"INTO \w+ \(([^)]*)\)")
_BOUND: Final = re.compile(r"(\w+) = \?")

ROWS_TOLD_MAX: Final = 4
"""Of one statement; of more, only how many."""


def tell_writes(writes: Iterable[Write]) -> str:
    """What requests write, such as `writes note n4, n7; deletes pair x -1 | writes file f0`: a bar is between two requests."""
    return " | ".join(_tell_request(write.request.statements) for write in writes)


def _tell_request(statements: Sequence[Statement]) -> str:
    told: list[str] = []
    for (verb, table), group in groupby(map(_tell, statements), key=lambda one: one[:2]):
        rows = dict.fromkeys(row for _, _, rows in group for row in rows)
        told.append(f"{verb} {table} {', '.join(rows)}")
    return "; ".join(told)


def _tell(statement: Statement) -> tuple[str, str, list[str]]:
    """A verb, a table, and the rows."""
    verb = "deletes" if statement.sql.startswith("DELETE") else "writes"
    found = _TABLE.search(statement.sql)
    table = found[1] if found else statement.sql
    if statement.params_seq is not None and len(statement.params_seq) > ROWS_TOLD_MAX:
        return verb, table, [f"{len(statement.params_seq)} rows"]
    bound: Sequence[Params] = statement.params_seq or [statement.params]
    rows = [row for params in bound for row in _rows(statement.sql, table, params)]
    return verb, table, rows


def _rows(sql: str, table: str, params: Params) -> Iterator[str]:
    keys = _KEYS.get(table, ("id",))
    values = [params[place] for place in range(len(params))] if isinstance(params, Sequence) else []
    if sql.startswith("INSERT"):
        listed = _LISTED.search(sql)
        row = dict(zip(listed[1].split(", ") if listed else _COLUMNS[table], values, strict=False))
        yield " ".join(str(row[key]) for key in keys if key in row) or "a new one"
        return
    bound = list(zip(_BOUND.findall(sql), values, strict=False))
    where = [str(value) for place, (column, value) in enumerate(bound) if column in keys and not _is_set(sql, place)]
    new = [str(value) for place, (column, value) in enumerate(bound) if column in keys and _is_set(sql, place)]
    told = " ".join(where) or ("those like 'm%'" if "LIKE" in sql else "all")
    yield f"{told} as {' '.join(new)}" if new else told


def _is_set(sql: str, place: int) -> bool:
    """Whether a parameter is in SET, not in WHERE."""
    return sql.startswith("UPDATE") and place < sql.partition(" WHERE ")[0].count("?")


_BYTES: Final = re.compile(r"""b'(?:[^'\\]|\\.)*'|b"(?:[^"\\]|\\.)*\"""")
"""How repr writes bytes, wherever in a value they are."""

_ID_BYTES: Final = (16, 32)
"""How long ids and hashes are."""


def tell_value(value: object) -> str:
    """A value as repr has it, but keys of rows as what is in them, and ids and hashes by their first 8 hexadecimal digits.

    A failure puts the names of devices in the place of these (Schedule.fail).
    """
    return _BYTES.sub(lambda found: _tell_bytes(ast.literal_eval(found[0])), repr(value))


def _tell_bytes(data: bytes) -> str:
    try:
        return f"key {' '.join(map(str, decode(data, bytes_max=len(data))))}"
    except RemoteProtocolError:
        return data[:4].hex() if len(data) in _ID_BYTES else repr(data)
