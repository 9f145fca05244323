"""Changesets as bytes: SPEC, D-1 to D-12."""

from __future__ import annotations

import struct
from typing import Any, cast

import msgpack

from peersd_protocol import changesets
from peersd_protocol.changesets import Changeset, TableChangeset, Updates

A, B = b"a" * 16, b"b" * 16


def tagged(value: Any) -> Any:
    """A value for JSON: {"bytes": hex}, {"real": hexadecimal double}, all else as it is."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, float):
        return {"real": value.hex()}
    if isinstance(value, list | tuple):
        return [tagged(item) for item in value]
    return value


def described(table: TableChangeset) -> dict[str, Any]:
    return {
        "table": tagged(table.table),
        "added": tagged(table.added),
        "inserts": tagged(table.inserts),
        "updates": [
            {"positions": list(group.positions), "keys": tagged(group.keys), "columns": tagged(group.columns)}
            for group in table.updates
        ],
        "deletes": tagged(table.deletes),
    }


def valid(name: str, *tables: TableChangeset) -> dict[str, Any]:
    changeset = Changeset(tables)
    return {"name": name, "body": changesets.encode(changeset).hex(), "tables": [described(table) for table in tables]}


def body(*tables: Any, acts: Any = (A,), kind: int = 1) -> bytes:
    return cast(bytes, msgpack.packb([kind, acts, tables], use_bin_type=True))


def invalid(name: str, packed: bytes, error: str = "MALFORMED") -> dict[str, Any]:
    return {"name": name, "error": error, "body": packed.hex()}


VALUES = [None, 0, -1, 127, 128, -(2**63), 2**63 - 1, 0.5, -0.0, float("inf"), "", "é", "a\x00b", b"", b"\x00\xff"]


PACKED: dict[str, list[Any]] = {
    "integers of one byte": list(range(-128, -112)),
    "integers of three bytes": [32_768 * sign for sign in (1, -1)] * 8,
    "integers of eight bytes": [-(2**63), 2**63 - 1] * 8,
    "the least integers": [-(2**63)] * 16,
    "integers between two widths": [-(2**31), 2**31 - 1] * 8,
    "doubles": [0.5, -0.0, float("-inf"), 1e-320] * 4,
    "bytes": [bytes((number, 255)) for number in range(16)],
    "text": [f"{number:03}" for number in range(16)],
}
NOT_PACKED: dict[str, list[Any]] = {
    "too few": list(range(15)),
    "of two types": [0, 0.0] * 8,
    "bytes of two lengths": [b"a", b"bb"] * 8,
    "empty text": [""] * 16,
    "not ASCII": ["é"] * 16,
    "longer than a length can say": [bytes(256)] * 16,
}
BAD_PACKED: dict[str, bytes] = {
    "nothing": b"",
    "no values": b"\x01",
    "a kind of nobody": b"\x00" + bytes(16),
    "another kind of nobody": b"\x0c\x01" + bytes(16),
    "too few": b"\x01" + bytes(15),
    "cut off": b"\x02" + bytes(33),
    "of no length": b"\x0a\x00" + bytes(16),
    "text that is not ASCII": b"\x0b\x01" + bytes(15) + b"\x80",
    "not a number": b"\x09" + b"\x7f" * 16 + b"\xf8" * 16 + bytes(96),
}


def make() -> dict[str, Any]:
    """All cases. A case with "unknown" is of a later version: it is held, and neither refused nor understood."""
    insert = [0, 0, [], [[1]], [], []]
    real_half = b"\xcb" + struct.pack(">d", 0.5)
    return {
        "description": "Bodies of data entries (SPEC: D-1 to D-12): `body` is the raw body, `tables` what it says.",
        "valid": [
            valid("one row", TableChangeset((A, 0), (), [["k"], [None]])),
            valid("every kind of value", TableChangeset((A, 3), (), [list(range(len(VALUES))), VALUES])),
            valid("an added column", TableChangeset((A, 0), ((B, 2), (A, 1)), [["k"], [1], [2]])),
            valid("updates", TableChangeset((A, 0), updates=(Updates((1, 3), [["k", "l"]], [[1, 2], [None, b""]]),))),
            valid(
                "updates of two kinds by a key of two columns",
                TableChangeset((A, 0), updates=(Updates((2,), [["k"], [7]], [[1]]), Updates((2, 3), [["l"], [8]], [[1], [2]]))),
            ),
            valid("deletes", TableChangeset((A, 0), deletes=[["k", b"k", 5]])),
            valid(
                "all at once in two tables",
                TableChangeset((B, 1), (), [["k"]], (Updates((1,), [["l"]], [[0.5]]),), [["m"]]),
                TableChangeset((A, 0), ((B, 4),), [[1], [2]]),
            ),
            *(
                valid(f"a packed column of {name}", TableChangeset((A, 0), (), [list(range(len(column))), column]))
                for name, column in PACKED.items()
            ),
            *(
                valid(f"a column that is not packed: {name}", TableChangeset((A, 0), (), [list(range(len(column))), column]))
                for name, column in NOT_PACKED.items()
            ),
            {"name": "another type of body", "unknown": True, "body": body(kind=2).hex()},
            {
                "name": "another operation",
                "unknown": True,
                "body": body([0, 0, [], [], [[[1], [1], [["k"], [[2, 3]]]]], []]).hex(),
            },
        ],
        "invalid": [
            *(invalid(f"a packed column: {name}", body([0, 0, [], [packed], [], []])) for name, packed in BAD_PACKED.items()),
            invalid("packed columns of two lengths", body([0, 0, [], [b"\x01" + bytes(16), b"\x01" + bytes(17)], [], []])),
            invalid("keys that are packed doubles", body([0, 0, [], [], [], [b"\x09" + bytes(128)]])),
            invalid("empty", b""),
            invalid("no array", b"\x01"),
            invalid("trailing byte", body(insert) + b"\x00"),
            invalid("integer not in its shortest form", body(insert).replace(b"\x91\x91\x01\x90", b"\x91\x91\xcc\x01\x90")),
            invalid("float of 32 bits", body([0, 0, [], [["k"], [0.5]], [], []]).replace(real_half, b"\xca\x3f\x00\x00\x00")),
            invalid("text that is not UTF-8", body([0, 0, [], [["k"]], [], []]).replace(b"\xa1k", b"\xa1\xff")),
            invalid("a map", body([0, 0, [], [["k"]], [], []]).replace(b"\xa1k", b"\x80")),
            invalid("no tables", body(acts=[])),
            invalid("a table without changes", body([0, 0, [], [], [], []])),
            invalid("one table twice", body(insert, insert)),
            invalid("an act that is not used", body(insert, acts=(A, B))),
            invalid("acts in another order", body([1, 0, [], [[1]], [], []], [0, 0, [], [[1]], [], []], acts=(A, B))),
            invalid("an act id of another length", body(insert, acts=(A[:15],))),
            invalid("an act beyond the list", body([1, 0, [], [[1]], [], []])),
            invalid("one column added twice", body([0, 0, [[0, 1], [0, 1]], [[1]], [], []])),
            invalid("columns of different length", body([0, 0, [], [[1, 2], [1]], [], []])),
            invalid("columns without rows", body([0, 0, [], [[], []], [], []])),
            invalid("a boolean", body([0, 0, [], [[1], [True]], [], []])),
            invalid("an array as value", body([0, 0, [], [[1], [[]]], [], []])),
            invalid("NaN", body([0, 0, [], [[1], [float("nan")]], [], []])),
            invalid("an integer above 64 bits signed", body([0, 0, [], [[1], [2**63]], [], []])),
            invalid("a key that is NULL", body([0, 0, [], [], [], [[None]]])),
            invalid("a key that is REAL", body([0, 0, [], [], [[[1], [0], [[0.5], [1]]]], []])),
            invalid("updates without keys", body([0, 0, [], [], [[[1], [0], [[1]]]], []])),
            invalid("updates of no column", body([0, 0, [], [], [[[], [], [[1]]]], []])),
            invalid("positions that descend", body([0, 0, [], [], [[[2, 1], [0, 0], [[1], [1], [1]]]], []])),
            invalid("groups that descend", body([0, 0, [], [], [[[2], [0], [[1], [1]]], [[1], [0], [[2], [1]]]], []])),
            invalid("fewer operations than positions", body([0, 0, [], [], [[[1, 2], [0], [[1], [1], [1]]]], []])),
        ],
    }
