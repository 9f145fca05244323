from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from peersd.store.database import open_scratch
from peersd.store.projection import Projection
from peersd_protocol.schema import Index, Schema, Table
from tests.store.merge_replica import ACT, NOTES, added, schema_of, table, with_columns

OTHER = bytes(16)
WIDER = with_columns(NOTES, added("rating", "INTEGER", OTHER, default=3, not_null=True))
BY_TITLE = Index((ACT, 7), "by_title", NOTES.id, ((NOTES.columns[1].id, False), (NOTES.columns[0].id, True)))


class File:
    def __init__(self) -> None:
        self.connection: Any = open_scratch()
        self.projection = Projection(self.connection)

    def columns(self, name: str) -> list[str]:
        return [row[0] for row in self.connection.execute("SELECT name FROM pragma_table_info(?)", (name,))]

    def names(self) -> list[str]:
        sql = "SELECT name FROM sqlite_schema WHERE name NOT GLOB '_peers_*' AND name NOT GLOB 'sqlite_*' ORDER BY name"
        return [row[0] for row in self.connection.execute(sql)]


@pytest.fixture
def file() -> File:
    return File()


def test_new_tables_columns_and_indexes_are_appended_in_place(file: File) -> None:
    assert file.projection.update(schema_of(NOTES))
    file.connection.execute("INSERT INTO notes VALUES ('k', 't', 'b')")
    tags = table("tags", ("tag", "TEXT"), op=1, without_rowid=True)
    assert file.projection.update(Schema(4, (WIDER, tags), (BY_TITLE,)))
    assert file.names() == ["by_title", "notes", "tags"]
    assert file.connection.execute("SELECT * FROM notes").fetchall() == [("k", "t", "b", 3)]
    assert file.connection.execute("SELECT name FROM _peers_table ORDER BY id").fetchall() == [("notes",), ("tags",)]


def test_what_was_made_is_known_after_a_restart(file: File) -> None:
    assert file.projection.update(Schema(2, (NOTES,), (BY_TITLE,)))
    again = Projection(file.connection)
    assert again.update(Schema(3, (WIDER,), (BY_TITLE,)))
    assert file.columns("notes") == ["id", "title", "body", "rating"]
    assert {layout.number for layout in again.layouts.values()} == {1}


@pytest.mark.parametrize(
    "after",
    [
        (),
        (replace(WIDER, name="notes~abcd"),),
        (with_columns(NOTES, added("sooner", "", ACT), WIDER.columns[3]),),
        (NOTES,),
        (with_columns(NOTES, replace(WIDER.columns[3], name="rating~abcd")),),
        (with_columns(NOTES, added("rating", "INTEGER", ACT, default=3, not_null=True)),),
        (with_columns(NOTES, replace(WIDER.columns[3], type="TEXT")),),
    ],
)
def test_anything_but_appending_needs_a_rebuild_and_changes_nothing(file: File, after: tuple[Table, ...]) -> None:
    assert file.projection.update(schema_of(WIDER))
    file.connection.execute("INSERT INTO notes VALUES ('k', 't', 'b', 1)")
    assert not file.projection.update(schema_of(*after, table("more", ("k", "TEXT"), op=9)))
    assert file.names() == ["notes"]
    assert file.columns("notes") == ["id", "title", "body", "rating"]
    assert file.connection.execute("SELECT * FROM notes").fetchall() == [("k", "t", "b", 1)]


def test_a_column_that_takes_the_last_name_of_the_row_id_needs_a_rebuild(file: File) -> None:
    named = table("named", ("rowid", "TEXT"), ("_rowid_", ""))
    assert file.projection.update(schema_of(named))
    assert file.projection.update(schema_of(with_columns(named, added("more", "", ACT))))
    assert not file.projection.update(schema_of(with_columns(named, added("more", "", ACT), added("oid", "", OTHER))))


def test_a_default_that_the_rows_cannot_hold_needs_a_rebuild_and_then_works(file: File) -> None:
    strict = table("rigid", ("k", "TEXT"), strict=True)
    odd = with_columns(strict, added("n", "INTEGER", OTHER, default="abc", not_null=True))
    assert file.projection.update(schema_of(strict))
    file.connection.execute("INSERT INTO rigid VALUES ('k')")
    assert not file.projection.update(schema_of(odd))
    assert file.columns("rigid") == ["k"]
    assert not file.connection.in_transaction
    file.projection.drop()
    assert file.projection.update(schema_of(odd))
    assert file.projection.layouts[odd.id].missing == (None, 0)


def test_drop_makes_room_for_any_schema(file: File) -> None:
    assert file.projection.update(Schema(3, (NOTES, table("w", ("k", "TEXT"), op=1, without_rowid=True)), (BY_TITLE,)))
    file.projection.drop()
    assert file.names() == []
    assert file.connection.execute("SELECT count(*) FROM sqlite_schema WHERE name GLOB '_peers_rid_*'").get == 0
    assert file.projection.update(schema_of(table("notes", ("other", "BLOB"), op=5)))
    assert file.columns("notes") == ["other"]


def test_an_index_that_changed_is_made_anew_in_place(file: File) -> None:
    assert file.projection.update(Schema(2, (NOTES,), (BY_TITLE,)))
    file.connection.execute("INSERT INTO notes VALUES ('k', 't', 'b')")
    other = Index((OTHER, 0), "by_title", NOTES.id, ((NOTES.columns[2].id, False),))
    assert file.projection.update(Schema(3, (NOTES,), (replace(BY_TITLE, name="by_title~abcd"), other)))
    indexed = {
        name: file.connection.execute("SELECT group_concat(name) FROM pragma_index_info(?)", (name,)).get
        for name in file.names()[:2]
    }
    assert indexed == {"by_title": "body", "by_title~abcd": "title,id"}
    assert file.projection.update(schema_of(NOTES))
    assert file.names() == ["notes"]
    assert file.connection.execute("SELECT count(*) FROM notes").get == 1


def test_a_table_may_take_the_name_of_an_index_that_goes(file: File) -> None:
    assert file.projection.update(Schema(2, (NOTES,), (BY_TITLE,)))
    assert file.projection.update(schema_of(NOTES, table("by_title", ("k", "TEXT"), op=8)))
    assert file.names() == ["by_title", "notes"]


def test_names_need_no_particular_form(file: File) -> None:
    odd = table('sel"ect', ("a b", "TEXT"), ("ünï", ""), op=2)
    assert file.projection.update(schema_of(odd))
    assert file.columns('sel"ect') == ["a b", "ünï"]


def test_a_rollback_is_followed_by_reading_anew(file: File) -> None:
    assert file.projection.update(schema_of(NOTES))
    file.connection.execute("BEGIN")
    assert file.projection.update(schema_of(WIDER))
    file.connection.execute("ROLLBACK")
    file.projection.reload()
    assert file.projection.update(schema_of(WIDER))
    assert file.columns("notes") == ["id", "title", "body", "rating"]


def test_keys_are_not_null_whether_or_not_they_say_so(file: File) -> None:
    assert file.projection.update(schema_of(NOTES))
    assert file.connection.execute("SELECT \"notnull\" FROM pragma_table_info('notes')").fetchall() == [(1,), (0,), (0,)]
