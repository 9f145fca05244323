"""Small histories and the rows that they lead to: SPEC, D-13 ff. Rows are written here by hand, not computed."""

from __future__ import annotations

from typing import Any

from peersd_protocol import changesets
from peersd_protocol.changesets import Changeset, TableChangeset, Updates

NOTES = (b"n" * 16, 0)
RATING = (b"r" * 16, 0)
DEVICE = b"d" * 32

SCHEMA = [
    {
        "id": [NOTES[0].hex(), NOTES[1]],
        "name": "notes",
        "columns": [
            {"id": [NOTES[0].hex(), 0, 0], "name": "id", "type": "TEXT", "default": None},
            {"id": [NOTES[0].hex(), 0, 1], "name": "title", "type": "TEXT", "default": None},
            {"id": [NOTES[0].hex(), 0, 2], "name": "body", "type": "TEXT", "default": None},
            {"id": [RATING[0].hex(), 0, 0], "name": "rating", "type": "INTEGER", "default": 3},
        ],
        "key": [0],
    }
]


def entry(hlc: int, *changes: TableChangeset, device: bytes = DEVICE, number: int = 0) -> dict[str, Any]:
    return {
        "hlc": hlc,
        "device": device.hex(),
        "hash": (bytes([number]) * 32).hex(),
        "body": changesets.encode(Changeset(changes)).hex(),
    }


def insert(title: str, body: str, rating: int | None = None) -> TableChangeset:
    cells: list[list[Any]] = [["k"], [title], [body]]
    return TableChangeset(NOTES, (RATING,), [*cells, [rating]]) if rating is not None else TableChangeset(NOTES, (), cells)


def update(position: int, value: Any) -> TableChangeset:
    return TableChangeset(NOTES, (RATING,) if position == 3 else (), updates=(Updates((position,), [["k"]], [[value]]),))


DELETE = TableChangeset(NOTES, deletes=[["k"]])


def case(name: str, rows: list[list[Any]], *entries: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "entries": list(entries), "rows": {"notes": rows}}


def refused(name: str, *changes: TableChangeset) -> dict[str, Any]:
    return {"name": name, "error": "BAD_BODY", "body": changesets.encode(Changeset(changes)).hex()}


def make() -> dict[str, Any]:
    """All cases."""
    old, new = b"a" * 32, b"b" * 32
    stranger = (b"z" * 16, 0)
    return {
        "description": "Histories (SPEC: D-13 ff.): these entries, in every order of arrival, lead to these rows. The "
        "invalid ones are changesets that the schema cannot take.",
        "schema": SCHEMA,
        "valid": [
            case("an insert", [["k", "t", "b", 3]], entry(1, insert("t", "b"))),
            case(
                "edits of two columns",
                [["k", "u", "c", 3]],
                entry(1, insert("t", "b")),
                entry(2, update(1, "u")),
                entry(3, update(2, "c")),
            ),
            case(
                "edits of one column",
                [["k", "v", "b", 3]],
                entry(1, insert("t", "b")),
                entry(2, update(1, "u")),
                entry(3, update(1, "v")),
            ),
            case(
                "equal stamps: the device decides",
                [["k", "new", "b", 3]],
                entry(1, insert("t", "b")),
                entry(2, update(1, "old"), device=old, number=9),
                entry(2, update(1, "new"), device=new),
            ),
            case(
                "equal stamps of one device: the hash decides",
                [["k", "new", "b", 3]],
                entry(1, insert("t", "b")),
                entry(2, update(1, "old"), number=1),
                entry(2, update(1, "new"), number=2),
            ),
            case("a delete", [], entry(1, insert("t", "b")), entry(2, DELETE)),
            case("a later update does not revive", [], entry(1, insert("t", "b")), entry(2, DELETE), entry(3, update(1, "u"))),
            case(
                "an insert after the delete",
                [["k", "v", "c", 3]],
                entry(1, insert("t", "b")),
                entry(2, DELETE),
                entry(3, insert("v", "c")),
            ),
            case(
                "an update above the delete shows after the insert",
                [["k", "u", "c", 3]],
                entry(1, insert("t", "b")),
                entry(2, DELETE),
                entry(3, insert("v", "c")),
                entry(4, update(1, "u")),
            ),
            case(
                "an update below the last insert does not",
                [["k", "v", "c", 3]],
                entry(1, DELETE),
                entry(2, update(1, "u")),
                entry(3, insert("v", "c")),
            ),
            case("an insert below the delete", [], entry(2, DELETE), entry(1, insert("t", "b"))),
            case("two inserts", [["k", "v", "c", 3]], entry(1, insert("t", "b")), entry(2, insert("v", "c"))),
            case("an update of what never was", [], entry(1, update(1, "u"))),
            case(
                "an insert that did not know a column keeps its value",
                [["k", "v", "c", 5]],
                entry(1, insert("t", "b", 5)),
                entry(2, insert("v", "c")),
            ),
            case(
                "a delete between takes it to its default",
                [["k", "v", "c", 3]],
                entry(1, insert("t", "b", 5)),
                entry(2, DELETE),
                entry(3, insert("v", "c")),
            ),
        ],
        "invalid": [
            refused("a table that is not there", TableChangeset(stranger, (), [["k"]])),
            refused("a column that is not there", TableChangeset(NOTES, (stranger,), [["k"], ["t"], ["b"], [1]])),
            refused("too few columns", TableChangeset(NOTES, (), [["k"], ["t"]])),
            refused("a position beyond", TableChangeset(NOTES, updates=(Updates((3,), [["k"]], [[1]]),))),
            refused("an update of the key", TableChangeset(NOTES, updates=(Updates((0,), [["k"]], [["l"]]),))),
            refused("keys of another length", TableChangeset(NOTES, deletes=[["k"], ["k"]])),
            refused("a key that its column would change", TableChangeset(NOTES, (), [[1], ["t"], ["b"]])),
            refused("a key that is NULL", TableChangeset(NOTES, (), [[None], ["t"], ["b"]])),
            refused("one row twice", TableChangeset(NOTES, (), [["k"], ["t"], ["b"]], (), [["k"]])),
        ],
    }
