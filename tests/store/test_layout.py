from __future__ import annotations

from typing import Any

import apsw
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from peersd.store.ddl import column_sql
from peersd.store.layout import Layout, affinity, missing_value, rowid_name
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from tests.store.merge_replica import column, table

TYPES = [
    "",
    "TEXT",
    "BLOB",
    "INTEGER",
    "INT",
    "BIGINT",
    "VARCHAR(10)",
    "CHARINT",
    "NUMERIC",
    "DECIMAL(10, 2)",
    "REAL",
    "DOUBLE",
    "BLOBBY",
]


def stored(type_: str, value: Any) -> Any:
    connection: Any = apsw.Connection(":memory:")
    connection.execute(f"CREATE TABLE t (v {type_})")
    connection.execute("INSERT INTO t VALUES (?)", (value,))
    return connection.execute("SELECT v FROM t").fetchone()[0]


def holds(layout: Layout, position: int, value: Any) -> bool:
    try:
        layout.check_cells(position, [value])
    except RemoteProtocolError as error:
        return error.close_code is not CloseCode.BAD_BODY
    return True


@pytest.mark.parametrize("type_", TYPES)
def test_affinity_is_sqlites(type_: str) -> None:
    seen = {value: stored(type_, value) for value in (1, "1", "1.5", 1.5, "x")}
    tables: dict[str, dict[Any, Any]] = {
        "TEXT": {1: "1", "1": "1", "1.5": "1.5", 1.5: "1.5", "x": "x"},
        "BLOB": {1: 1, "1": "1", "1.5": "1.5", 1.5: 1.5, "x": "x"},
        "INTEGER": {1: 1, "1": 1, "1.5": 1.5, 1.5: 1.5, "x": "x"},
        "NUMERIC": {1: 1, "1": 1, "1.5": 1.5, 1.5: 1.5, "x": "x"},
        "REAL": {1: 1.0, "1": 1.0, "1.5": 1.5, 1.5: 1.5, "x": "x"},
    }
    expected = tables[affinity(type_)]
    assert {key: repr(value) for key, value in seen.items()} == {key: repr(value) for key, value in expected.items()}


number_like = st.from_regex(r"\A[ \t\n\x0b\x0c\r]{0,2}[+-]?[0-9]{0,22}\.?[0-9]{0,3}([eE][+-]?[0-9]{0,3})?[ \t\x00]{0,2}\Z")


@given(number_like | st.text(alphabet="0123456789+-.eExX_ \t\v\x00infa", max_size=8))
@example("1")
@example("0x10")
@example("1_000")
@example(" 1")
@example("1\x00")
@example("1.5\x00x")
@example("\x001")
@example("\xa01")
@example("9223372036854775808")
@example("1e999")
@example(".5")
@example("5.")
@example(".")
@example("1e")
@example("+")
@example("inf")
@example("nan")
@example("١")
def test_a_text_key_is_refused_in_an_integer_column_exactly_if_sqlite_would_change_it(text: str) -> None:
    layout = Layout(1, table("t", ("a", "INTEGER"), ("b", ""), key=(0, 1)))
    assert holds(layout, 0, text) == (stored("INTEGER", text) == text)


@pytest.mark.parametrize(
    ("type_", "strict", "good", "bad"),
    [
        ("TEXT", False, ["1", b"1"], [1]),
        ("BLOB", False, ["1", b"1", 1], []),
        ("INTEGER", False, ["x", b"1", 1], ["1"]),
        ("TEXT", True, ["1"], [1, b"1"]),
        ("BLOB", True, [b"1"], [1, "1"]),
        ("INTEGER", True, [1], ["x", b"1"]),
    ],
)
def test_a_key_column_holds_what_it_stores_unchanged(type_: str, strict: bool, good: list[Any], bad: list[Any]) -> None:
    layout = Layout(1, table("t", ("k", type_), ("l", "BLOB"), key=(0, 1), strict=strict))
    for value in good:
        assert holds(layout, 0, value), value
        assert stored(type_, value) == value
    for value in [*bad, None, 1.5]:
        assert not holds(layout, 0, value), value


@pytest.mark.parametrize(
    ("type_", "good", "bad"),
    [
        ("INT", [1, None], [1.5, "1", b"1"]),
        ("INTEGER", [1, None], [1.5, "1", b"1"]),
        ("REAL", [1.5, None], [1, "1", b"1"]),
        ("TEXT", ["1", None], [1.5, 1, b"1"]),
        ("BLOB", [b"1", None], [1.5, 1, "1"]),
        ("ANY", [1, 1.5, "1", b"1", None], []),
    ],
)
def test_a_strict_column_holds_its_type(type_: str, good: list[Any], bad: list[Any]) -> None:
    layout = Layout(1, table("t", ("k", "TEXT"), ("v", type_), strict=True))
    assert [value for value in [*good, *bad] if holds(layout, 1, value)] == good


def test_a_not_null_column_holds_no_null_and_another_holds_all() -> None:
    base = table("t", ("k", "TEXT"), ("v", "INTEGER"))
    never_null = column("v", "INTEGER", 1, default=1, not_null=True)
    changed = type(base)(base.id, base.name, (base.columns[0], never_null), base.key, False, False)
    assert not holds(Layout(1, changed), 1, None)
    for value in (1, 1.5, "1", "x", b""):
        assert holds(Layout(1, changed), 1, value)
        assert holds(Layout(1, base), 1, value)


@pytest.mark.parametrize(
    ("type_", "default", "strict", "shown"),
    [
        ("INTEGER", "5", False, 5),
        ("TEXT", 5, False, "5"),
        ("REAL", 5, False, 5.0),
        ("", "5", False, "5"),
        ("REAL", 5, True, 5.0),
        ("INTEGER", "5", True, 5),
        ("TEXT", "a\x00b", False, "a\x00b"),
        ("BLOB", b"", False, b""),
    ],
)
def test_a_missing_value_is_what_sqlite_shows_in_rows_that_are_older_than_the_column(
    type_: str, default: Any, strict: bool, shown: Any
) -> None:
    made = column("v", type_, 1, default=default)
    connection: Any = apsw.Connection(":memory:")
    connection.execute(f"CREATE TABLE t (k TEXT){' STRICT' if strict else ''}")
    connection.execute("INSERT INTO t VALUES ('k')")
    connection.execute("ALTER TABLE t ADD COLUMN " + column_sql(made, not_null=False))
    assert repr(connection.execute("SELECT v FROM t").fetchone()[0]) == repr(shown)
    assert repr(missing_value(made, strict=strict)) == repr(shown)


@pytest.mark.parametrize(
    ("type_", "strict", "not_null", "shown"),
    [("INTEGER", True, True, 0), ("REAL", True, True, 0.0), ("BLOB", True, True, b""), ("INTEGER", True, False, None)],
)
def test_a_default_that_its_strict_column_cannot_hold_shows_the_same_everywhere(
    type_: str, strict: bool, not_null: bool, shown: Any
) -> None:
    made = column("v", type_, 1, default="abc", not_null=not_null)
    assert repr(missing_value(made, strict=strict)) == repr(shown)


def test_a_name_for_the_row_id_is_one_that_no_column_has() -> None:
    assert rowid_name(table("t", ("k", "TEXT"))) == "rowid"
    assert rowid_name(table("t", ("ROWID", "TEXT"))) == "_rowid_"
    assert rowid_name(table("t", ("rowid", "TEXT"), ("_ROWID_", ""))) == "oid"
    assert rowid_name(table("t", ("rowid", "TEXT"), ("_rowid_", ""), ("Oid", ""))) is None
    assert rowid_name(table("t", ("k", "TEXT"), without_rowid=True)) is None
