from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from itertools import permutations
from typing import Any

import pytest

from peersd.errors import PeersdError
from peersd.store.changes import TableChanges
from peersd.store.merge import Merge
from peersd_protocol import changesets
from peersd_protocol.changesets import Changeset, TableChangeset, Updates, encode
from peersd_protocol.constants import CHANGESET_CELLS_MAX
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.schema import Schema, Table
from tests.store.merge_replica import ACT, NOTES, Entry, Replica, added, schema_of, table, with_columns

PLAIN = schema_of(NOTES)
WITHOUT_ROWID = table("notes", ("id", "TEXT"), ("title", "TEXT"), ("body", "TEXT"), without_rowid=True)
RATED = with_columns(NOTES, added("rating", "INTEGER", b"r" * 16, default=3, not_null=True))


def at(rank: int, *changes: TableChangeset) -> Entry:
    return Entry((rank, b"x" * 32, b""), encode(Changeset(changes)))


def insert(key: Any, title: Any = "t", body: Any = "b", *more: Any) -> TableChangeset:
    return TableChangeset(NOTES.id, ((b"r" * 16, 0),) if more else (), [[key], [title], [body], *([value] for value in more)])


def update(key: Any, **cells: Any) -> TableChangeset:
    positions = {"title": 1, "body": 2, "rating": 3}
    where = tuple(positions[name] for name in cells)
    return TableChangeset(
        NOTES.id, ((b"r" * 16, 0),) if 3 in where else (), updates=(Updates(where, [[key]], [[v] for v in cells.values()]),)
    )


def delete(key: Any) -> TableChangeset:
    return TableChangeset(NOTES.id, deletes=[[key]])


def merged(*entries: Entry, schema: Schema = PLAIN) -> list[tuple[Any, ...]]:
    """The rows after these entries, the same in every order of arrival and in both kinds of table."""
    found: list[tuple[Any, ...]] | None = None
    for variant in (schema, *([schema_of(WITHOUT_ROWID)] if schema == PLAIN else [])):
        for order in permutations(entries):
            replica = Replica(variant)
            replica.take_all(order)
            replica.check()
            assert found is None or replica.rows() == found, order
            found = replica.rows()
    assert found is not None
    return found


def test_different_columns_of_one_row_both_keep_their_edit() -> None:
    assert merged(at(1, insert("k")), at(2, update("k", title="mine")), at(3, update("k", body="yours"))) == [
        ("k", "mine", "yours")
    ]


def test_the_later_edit_of_one_column_wins() -> None:
    assert merged(at(1, insert("k")), at(2, update("k", title="mine")), at(3, update("k", title="yours"))) == [
        ("k", "yours", "b")
    ]


def test_equal_stamps_are_ordered_by_device_and_then_by_hash() -> None:
    one = Entry((5, b"a" * 32, b"\xff"), encode(Changeset((update("k", title="a"),))))
    two = Entry((5, b"b" * 32, b"\x00"), encode(Changeset((update("k", title="b"),))))
    three = Entry((5, b"b" * 32, b"\x01"), encode(Changeset((update("k", title="c"),))))
    assert merged(at(1, insert("k")), one, two) == [("k", "b", "b")]
    assert merged(at(1, insert("k")), one, two, three) == [("k", "c", "b")]


def test_a_delete_hides_an_older_and_a_newer_update_alike() -> None:
    assert merged(at(1, insert("k")), at(2, update("k", title="old")), at(3, delete("k"))) == []
    assert merged(at(1, insert("k")), at(2, delete("k")), at(3, update("k", title="new"))) == []


def test_an_insert_after_the_delete_shows_also_the_update_that_was_kept_aside() -> None:
    entries = at(1, insert("k")), at(2, delete("k")), at(3, insert("k", "again", "again")), at(4, update("k", title="new"))
    assert merged(*entries) == [("k", "new", "again")]


def test_an_insert_below_the_delete_changes_nothing() -> None:
    assert merged(at(3, delete("k")), at(2, insert("k"))) == []


def test_two_inserts_of_one_key_merge_into_the_later_one() -> None:
    assert merged(at(1, insert("k", "mine", "mine")), at(2, insert("k", "yours", "yours"))) == [("k", "yours", "yours")]


def test_an_update_between_two_inserts_is_written_over_by_the_later_one() -> None:
    assert merged(at(1, insert("k")), at(2, update("k", title="mid")), at(3, insert("k", "last", "last"))) == [
        ("k", "last", "last")
    ]


def test_an_update_of_a_row_that_never_was_shows_once_the_row_is_there() -> None:
    assert merged(at(2, update("k", title="early"))) == []
    assert merged(at(2, update("k", title="early")), at(1, insert("k"))) == [("k", "early", "b")]


def test_an_insert_under_an_older_schema_leaves_a_later_column_as_it_is() -> None:
    schema = schema_of(RATED)
    assert merged(at(1, insert("k", "a", "a", 5)), at(2, insert("k", "b", "b")), schema=schema) == [("k", "b", "b", 5)]
    assert merged(at(2, insert("k", "b", "b")), at(1, update("k", rating=4)), schema=schema) == [("k", "b", "b", 4)]
    assert merged(at(2, insert("k", "b", "b")), schema=schema) == [("k", "b", "b", 3)]


def test_a_delete_between_sets_a_column_that_the_insert_did_not_write_to_its_default() -> None:
    entries = at(1, insert("k", "a", "a", 5)), at(2, delete("k")), at(3, insert("k", "b", "b"))
    assert merged(*entries, schema=schema_of(RATED)) == [("k", "b", "b", 3)]


def test_a_change_of_key_is_a_delete_and_an_insert() -> None:
    replica = Replica(schema_of(NOTES))
    replica.write("INSERT INTO notes VALUES ('k', 't', 'b')")
    entry = replica.write("UPDATE notes SET id = 'l'")
    assert entry is not None
    (made,) = entry.changeset.tables
    assert (made.inserts, made.updates, made.deletes) == ([["l"], ["t"], ["b"]], (), [["k"]])


def test_replace_and_upsert_of_a_row_are_updates_of_what_differs() -> None:
    replica = Replica(schema_of(NOTES))
    replica.write("INSERT INTO notes VALUES ('k', 't', 'b')")
    for sql in (
        "INSERT OR REPLACE INTO notes VALUES ('k', 't', 'c')",
        "INSERT INTO notes VALUES ('k', 0, 0) ON CONFLICT DO UPDATE SET body = 'd'",
    ):
        entry = replica.write(sql)
        assert entry is not None
        (made,) = entry.changeset.tables
        assert (made.inserts, made.deletes) == ([], [])
        assert [(group.positions, group.keys) for group in made.updates] == [((2,), [["k"]])]


def test_rows_that_only_moved_tell_nothing_and_keep_their_clocks() -> None:
    replica = Replica(schema_of(NOTES))
    replica.write("INSERT INTO notes VALUES ('k', 't', 'b'), ('l', 't', 'b')")
    replica.write("UPDATE notes SET title = 'u' WHERE id = 'k'")
    before = replica.state()
    assert replica.write("UPDATE notes SET rowid = rowid + 10") is None
    assert replica.write("UPDATE notes SET rowid = CASE rowid WHEN 11 THEN 0 ELSE rowid END") is None
    assert replica.connection.execute("SELECT rowid FROM notes ORDER BY 1").fetchall() == [(0,), (12,)]
    assert replica.state() == before
    replica.take(at(1, update("k", title="older")))
    assert replica.rows()[0] == ("k", "u", "b")


def test_rows_that_change_places_change_clocks() -> None:
    replica = Replica(schema_of(NOTES))
    replica.write("INSERT INTO notes VALUES ('k', 't', 'b')")
    replica.write("INSERT INTO notes VALUES ('l', 't', 'b')")
    before = replica.state()
    assert (
        replica.write(
            "UPDATE notes SET rowid = 9 WHERE id = 'k'",
            "UPDATE notes SET rowid = 1 WHERE id = 'l'",
            "UPDATE notes SET rowid = 2 WHERE id = 'k'",
        )
        is None
    )
    assert replica.state() == before
    replica.check()


@pytest.mark.parametrize("base", [NOTES, WITHOUT_ROWID])
def test_a_block_of_fresh_rows_costs_one_span(base: Table) -> None:
    rows = [[f"{n:04}" for n in range(1000)], ["t"] * 1000, ["b"] * 1000]
    replica = Replica(schema_of(base))
    replica.take_all([at(1, TableChangeset(NOTES.id, (), rows)), at(2, insert("zzzz"))])
    assert replica.connection.execute("SELECT first, last FROM _peers_span").fetchall() == [(1, 1000), (1001, 1001)]
    assert replica.connection.execute("SELECT count(*) FROM _peers_cell").get == 0
    assert len(replica.rows()) == 1001


@pytest.mark.parametrize("base", [NOTES, WITHOUT_ROWID])
def test_rows_that_are_there_already_are_merged_among_fresh_ones(base: Table) -> None:
    replica = Replica(schema_of(base))
    replica.take(at(5, TableChangeset(NOTES.id, (), [["b", "d", "e"], ["5"] * 3, ["5"] * 3])))
    replica.take(at(3, TableChangeset(NOTES.id, (), [["a", "b", "c", "d", "e", "f"], ["3"] * 6, ["3"] * 6])))
    replica.take(at(7, TableChangeset(NOTES.id, (), [["f", "g"], ["7"] * 2, ["7"] * 2])))
    assert [row[:2] for row in replica.rows()] == [
        ("a", "3"),
        ("b", "5"),
        ("c", "3"),
        ("d", "5"),
        ("e", "5"),
        ("f", "7"),
        ("g", "7"),
    ]
    replica.check()


@pytest.mark.parametrize("highest", [2**63 - 1, 2**62, -5, 0])
def test_fresh_rows_find_their_row_ids_whatever_a_client_chose(highest: int) -> None:
    replica = Replica(schema_of(NOTES))
    replica.write((f"INSERT INTO notes (rowid, id, title, body) VALUES ({highest}, 'k', 't', 'b')", ()))
    replica.take(at(1, TableChangeset(NOTES.id, (), [["a", "b"], ["t"] * 2, ["b"] * 2])))
    replica.take(at(9, update("a", title="u")))
    replica.check()
    assert replica.rows() == [("a", "u", "b"), ("b", "t", "b"), ("k", "t", "b")]


def test_every_kind_of_value_arrives_as_it_was() -> None:
    one, two = (Replica(schema_of(table("v", ("id", "TEXT"), ("a", ""), ("b", "")))) for _ in range(2))
    values = [
        None,
        0,
        -(2**63),
        2**63 - 1,
        0.0,
        -0.0,
        1e308,
        5e-324,
        float("inf"),
        "",
        "a\x00b",
        "\U0001f600",
        b"",
        b"\x00" * (1 << 20),
    ]
    rows = [(str(number), value, value) for number, value in enumerate(values)]
    entry = one.write(*(("INSERT INTO v VALUES (?, ?, ?)", row) for row in rows))
    assert entry is not None
    two.take(entry)
    assert two.merge.dump() == one.merge.dump()
    stored = {row[0]: row[1] for row in two.merge.dump()["v"]}
    assert stored["5"] == ("real", "-0x0.0p+0")
    assert stored["13"] == b"\x00" * (1 << 20)


def test_values_that_python_finds_equal_are_changes_when_sqlite_stores_them_differently() -> None:
    one, two = (Replica(schema_of(table("v", ("id", "TEXT"), ("a", "")))) for _ in range(2))
    two.take_all([one.write("INSERT INTO v VALUES ('k', 1)")])
    for sql in ("1.0", "'1'", "x'31'", "0.0", "-0.0", "0", "NULL"):
        entry = one.write(f"UPDATE v SET a = {sql}")
        assert entry is not None, sql
        two.take(entry)
        assert two.merge.dump() == one.merge.dump()
    assert one.write("UPDATE v SET a = NULL") is None


CHANGES_REFUSED = {
    "unknown table": TableChangeset((b"z" * 16, 0), (), [["k"]]),
    "unknown operation": TableChangeset((ACT, 9), (), [["k"]]),
    "unknown column": TableChangeset(NOTES.id, ((b"z" * 16, 0),), [["k"], ["t"], ["b"], [1]]),
    "too few columns": TableChangeset(NOTES.id, (), [["k"], ["t"]]),
    "too many columns": TableChangeset(NOTES.id, (), [["k"], ["t"], ["b"], ["c"]]),
    "null key": TableChangeset(NOTES.id, (), [[None], ["t"], ["b"]]),
    "real key": TableChangeset(NOTES.id, (), [[1.5], ["t"], ["b"]]),
    "key that TEXT would change": TableChangeset(NOTES.id, (), [[1], ["t"], ["b"]]),
    "update of a key": TableChangeset(NOTES.id, updates=(Updates((0,), [["k"]], [["l"]]),)),
    "update of a column beyond": TableChangeset(NOTES.id, updates=(Updates((3,), [["k"]], [["l"]]),)),
    "update by two keys": TableChangeset(NOTES.id, updates=(Updates((1,), [["k"], ["k"]], [["l"]]),)),
    "delete by two keys": TableChangeset(NOTES.id, deletes=[["k"], ["k"]]),
    "one key twice": TableChangeset(NOTES.id, (), [["k", "k"], ["t", "t"], ["b", "b"]]),
    "inserted and deleted": TableChangeset(NOTES.id, (), [["k"], ["t"], ["b"]], (), [["k"]]),
    "updated twice": TableChangeset(NOTES.id, updates=(Updates((1,), [["k"]], [["l"]]), Updates((2,), [["k"]], [["l"]]))),
    "null where there is none": TableChangeset((ACT, 1), (), [["k"], [None]]),
    "null in a losing update": TableChangeset((ACT, 1), updates=(Updates((1,), [["k"]], [[None]]),)),
    "wrong type in a STRICT table": TableChangeset((ACT, 2), (), [["k"], ["5"]]),
    "wrong type in a losing update": TableChangeset((ACT, 2), updates=(Updates((1,), [["k"]], [["5"]]),)),
}


@pytest.mark.parametrize("what", CHANGES_REFUSED)
def test_what_its_tables_cannot_take_is_refused_whole(what: str) -> None:
    never_null = table("never", ("id", "TEXT"), ("v", ""), op=1)
    columns = (
        never_null.columns[0],
        type(never_null.columns[1])(never_null.columns[1].id, "v", "", never_null.columns[1].default, True),
    )
    never_null = type(never_null)(never_null.id, "never", columns, (0,), False, False)
    rigid = table("rigid", ("id", "TEXT"), ("n", "INTEGER"), op=2, strict=True)
    replica = Replica(schema_of(NOTES, never_null, rigid, table("other", ("id", "TEXT"), op=3)))
    good = TableChangeset((ACT, 3), (), [["fine"]])
    before = replica.state()
    replica.held.append(at(1))
    for changes in ((good, CHANGES_REFUSED[what]), (CHANGES_REFUSED[what], good)):
        with pytest.raises(RemoteProtocolError) as caught:
            replica.merge.apply(1, Changeset(changes))
        assert caught.value.close_code is CloseCode.BAD_BODY
        assert replica.state() == before


def test_an_alias_of_a_table_and_of_a_column_lands_in_the_one_that_stands() -> None:
    base = schema_of(RATED)
    aliases = {(b"o" * 16, 4): NOTES.id}
    column_aliases = {(b"o" * 16, 4, index): (ACT, 0, index) for index in range(3)} | {(b"p" * 16, 1, 0): (b"r" * 16, 0, 0)}
    replica = Replica(Schema(4, base.tables, (), aliases, column_aliases))
    other = TableChangeset((b"o" * 16, 4), ((b"p" * 16, 1),), [["k"], ["t"], ["b"], [9]])
    replica.take(at(1, other))
    replica.take(at(2, TableChangeset((b"o" * 16, 4), ((b"p" * 16, 1),), updates=(Updates((3,), [["k"]], [[8]]),))))
    assert replica.rows() == [("k", "t", "b", 8)]
    replica.held.append(at(3))
    for twice in (
        (insert("a"), TableChangeset((b"o" * 16, 4), (), [["b"], ["t"], ["b"]])),
        (TableChangeset(NOTES.id, ((b"r" * 16, 0), (b"p" * 16, 1)), [["c"], ["t"], ["b"], [1], [2]]),),
    ):
        with pytest.raises(RemoteProtocolError):
            replica.merge.apply(3, Changeset(twice))


def test_a_column_added_while_rows_stand_keeps_them_and_is_merged() -> None:
    one, two = (Replica(schema_of(NOTES)) for _ in range(2))
    two.device = b"e" * 32
    two.take_all([one.write("INSERT INTO notes VALUES ('k', 't', 'b')")])
    assert not one.set_schema(schema_of(RATED))
    wider = one.write("UPDATE notes SET rating = 9")
    narrow = two.write("INSERT INTO notes VALUES ('l', 't', 'b')", "UPDATE notes SET title = 'u' WHERE id = 'k'")
    assert not two.set_schema(schema_of(RATED))
    one.take_all([narrow])
    two.take_all([wider])
    assert one.rows() == two.rows() == [("k", "u", "b", 9), ("l", "t", "b", 3)]
    one.check()
    two.check()


def test_columns_that_come_in_another_order_need_a_rebuild_that_loses_nothing() -> None:
    first, second = added("a1", "", b"1" * 16), added("a2", "", b"2" * 16, default="d")
    one, two = (Replica(schema_of(with_columns(NOTES, column))) for column in (first, second))
    two.device = b"e" * 32
    entries = [
        one.write("INSERT INTO notes VALUES ('k', 't', 'b', 'one')"),
        two.write("INSERT INTO notes VALUES ('l', 't', 'b', 'two')"),
    ]
    both = schema_of(with_columns(NOTES, first, second))
    assert not one.set_schema(both)
    assert two.set_schema(both)
    one.take_all(entries)
    two.take_all(entries)
    assert one.rows() == two.rows() == [("k", "t", "b", "one", "d"), ("l", "t", "b", None, "two")]


def test_deleting_many_rows_leaves_no_clocks_of_them_behind() -> None:
    replica = Replica(schema_of(NOTES))
    replica.write("INSERT INTO notes SELECT value, 't', 'b' FROM json_each('" + str(list(range(500))) + "')")
    replica.write("UPDATE notes SET title = 'u' WHERE rowid % 2")
    replica.write("DELETE FROM notes")
    for name in ("span", "cell", "aside"):
        assert replica.connection.execute(f"SELECT count(*) FROM _peers_{name}").get == 0
    replica.write("INSERT INTO notes VALUES ('k', 't', 'b')")
    replica.check()


def test_clear_drops_everything_and_the_schema_can_then_be_any() -> None:
    replica = Replica(schema_of(NOTES))
    replica.write("INSERT INTO notes VALUES ('k', 't', 'b')")
    replica.merge.clear()
    other = table("notes", ("n", "INTEGER"), ("m", "INTEGER"), key=(0, 1), op=6, without_rowid=True)
    assert not replica.merge.set_schema(schema_of(other))
    assert replica.merge.dump() == {"notes": []}
    assert replica.merge.dump_clocks() == {"notes": {}}


def test_after_a_rollback_setting_the_schema_brings_memory_back_in_line() -> None:
    replica = Replica(schema_of(NOTES))
    replica.take(at(1, insert("k")))
    before = replica.state()
    replica.held += [at(2, delete("k")), at(3, update("l", title="x"))]
    replica.connection.execute("BEGIN")
    replica.merge.apply(2, replica.held[1].changeset)
    replica.merge.apply(3, replica.held[2].changeset)
    replica.merge.clear()
    assert not replica.merge.set_schema(schema_of(RATED))
    replica.connection.execute("ROLLBACK")
    assert not replica.merge.set_schema(schema_of(NOTES))
    assert replica.state() == before
    del replica.held[1:]
    replica.take_all([at(2, delete("k")), at(4, insert("k", "again"))])
    assert replica.rows() == [("k", "again", "b")]
    replica.check()


@pytest.mark.parametrize("key", [None, 1.5])
def test_a_local_key_that_cannot_travel_is_refused(key: Any) -> None:
    replica = Replica(schema_of(table("v", ("id", ""), ("a", ""))))
    with pytest.raises(PeersdError) as caught:
        replica.merge.encode_local([TableChanges("v", [(1, (key, 1))])])
    assert caught.value.code == "sql_refused"


def test_a_local_transaction_with_too_many_values_is_refused() -> None:
    replica = Replica(schema_of(table("v", ("id", "BLOB"), ("a", ""))))
    rows = [(number, (number, None)) for number in range(CHANGESET_CELLS_MAX // 2)]
    with pytest.raises(PeersdError) as caught:
        replica.merge.encode_local([TableChanges("v", list(rows))])
    assert caught.value.code == "too_large"


def test_changes_that_are_no_clients_are_made_within_the_context_given() -> None:
    depth: list[str] = []

    @contextmanager
    def applying() -> Generator[None]:
        depth.append("in")
        yield
        depth.append("out")

    replica = Replica(schema_of(NOTES))
    merge = Merge(replica.connection, replica.rank, applying)
    replica.held.append(at(1, insert("k")))
    merge.set_schema(schema_of(NOTES))
    merge.apply(1, replica.held[0].changeset)
    merge.record_local(0, [])
    merge.clear()
    assert depth == ["in", "out"] * 4


def test_an_entry_without_a_body_changes_nothing() -> None:
    replica = Replica(schema_of(NOTES))
    replica.held.append(at(1))
    replica.merge.apply(1, changesets.EMPTY)
    assert replica.merge.encode_local([]) is None
