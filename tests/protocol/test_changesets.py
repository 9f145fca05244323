from __future__ import annotations

import contextlib
import math
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peersd_protocol import canonical, changesets
from peersd_protocol.changesets import Changeset, TableChangeset, UnknownBody, Updates
from peersd_protocol.columns import Scalar
from peersd_protocol.constants import BODY_BYTES_MAX, CHANGESET_ARRAYS_MAX, CHANGESET_CELLS_MAX, PACKED_CELLS_MIN
from peersd_protocol.errors import CloseCode, RemoteProtocolError

A, B = b"a" * 16, b"b" * 16

FULL = [1, [A, B], [[0, 3, [[1, 0]], [[1, 2], ["x", None], [1.5, b""]], [[[1], [0], [[7, 8], ["p", "q"]]]], [[9]]]]]


def pack(value: Any) -> bytes:
    return msgpack.packb(value, use_bin_type=True)  # type: ignore[no-any-return]


def table_body(inserts: Any = (), updates: Any = (), deletes: Any = (), added: Any = ()) -> bytes:
    return pack([1, [A], [[0, 0, added, inserts, updates, deletes]]])


def refused(body: bytes) -> CloseCode:
    with pytest.raises(RemoteProtocolError) as caught:
        changesets.decode(body)
    return caught.value.close_code


def test_a_changeset_has_exactly_these_bytes() -> None:
    changeset = Changeset(
        (
            TableChangeset(
                (A, 3), ((B, 0),), ((1, 2), ("x", None), (1.5, b"")), (Updates((1,), ((7, 8),), (("p", "q"),)),), ((9,),)
            ),
        )
    )
    assert changesets.encode(changeset) == pack(FULL)
    assert changeset.acts == [A, B]


def test_a_decoded_changeset_says_what_was_encoded() -> None:
    changeset = changesets.decode(pack(FULL))
    assert changeset == Changeset(
        (TableChangeset((A, 3), ((B, 0),), [[1, 2], ["x", None], [1.5, b""]], (Updates((1,), [[7, 8]], [["p", "q"]]),), [[9]]),)
    )
    assert isinstance(changeset, Changeset)
    assert changesets.encode(changeset) == pack(FULL)


@pytest.mark.parametrize("value", [None, 0, -(2**63), 2**63 - 1, 0.5, -0.0, math.inf, -math.inf, "", "a\x00b", "é", b"", b"\xff"])
def test_every_value_of_sqlite_travels_unchanged(value: Any) -> None:
    changeset = changesets.decode(table_body([["k"], [value]]))
    assert isinstance(changeset, Changeset)
    (back,) = changeset.tables[0].inserts[1]
    assert type(back) is type(value)
    assert repr(back) == repr(value)


@pytest.mark.parametrize("value", [True, 2**63, math.nan, [], [1]])
def test_a_value_that_sqlite_does_not_have_is_refused(value: Any) -> None:
    assert refused(table_body([["k"], [value]])) is CloseCode.MALFORMED
    assert refused(table_body([["k", "l"], [value, "x"]])) is CloseCode.MALFORMED
    assert refused(table_body(updates=[[[1], [0], [["k"], [value]]]])) is CloseCode.MALFORMED


@pytest.mark.parametrize("key", [None, 1.0, True, 2**63, [1]])
def test_a_key_that_cannot_be_one_is_refused(key: Any) -> None:
    assert refused(table_body(updates=[[[1], [0], [[key], ["x"]]]])) is CloseCode.MALFORMED
    assert refused(table_body(deletes=[[key]])) is CloseCode.MALFORMED


@pytest.mark.parametrize(
    "tables",
    [
        [],
        [[]],
        [[0, 0, [], [[1]], []]],
        [[0, 0, [], [], [], []]],
        [[1, 0, [], [[1]], [], []]],
        [[-1, 0, [], [[1]], [], []]],
        [[0, -1, [], [[1]], [], []]],
        [[0, 1000, [], [[1]], [], []]],
        [[True, 0, [], [[1]], [], []]],
        [[0, 0, [], [[1]], [], []], [0, 0, [], [[2]], [], []]],
        [[0, 0, [[0, 1], [0, 1]], [[1]], [], []]],
        [[0, 0, [[0]], [[1]], [], []]],
        [[0, 0, [], [[]], [], []]],
        [[0, 0, [], [[1], [1, 2]], [], []]],
        [[0, 0, [], [1], [], []]],
        [[0, 0, [], ["ab"], [], []]],
        [[0, 0, [], "", [], []]],
        [[0, 0, [], None, [], []]],
        [[0, 0, [], [], [[[], [], [[1]]]], []]],
        [[0, 0, [], [], [[[1], [], [[1], [1]]]], []]],
        [[0, 0, [], [], [[[1], [0, 0], [[1], [1]]]], []]],
        [[0, 0, [], [], [[[1], [0], [[1]]]], []]],
        [[0, 0, [], [], [[[2, 1], [0, 0], [[1], [1], [1]]]], []]],
        [[0, 0, [], [], [[[1, 1], [0, 0], [[1], [1], [1]]]], []]],
        [[0, 0, [], [], [[[-1], [0], [[1], [1]]]], []]],
        [[0, 0, [], [], [[[200], [0], [[1], [1]]]], []]],
        [[0, 0, [], [], [[[2], [0], [[1], [1]]], [[1], [0], [[2], [1]]]], []]],
        [[0, 0, [], [], [[[1], [0], [[1], [1]]], [[1], [0], [[2], [1]]]], []]],
        [[0, 0, [], [], [[[1], [-1], [[1], [1]]]], []]],
        [[0, 0, [], [], [[[1], [0], []]], []]],
    ],
)
def test_a_wrong_shape_is_refused(tables: Any) -> None:
    assert refused(pack([1, [A], tables])) is CloseCode.MALFORMED


@pytest.mark.parametrize("acts", [[], [A, B], [A, A], [b"short"], ["a" * 16], [B, A]])
def test_acts_are_those_used_in_the_order_of_their_first_use(acts: Any) -> None:
    used = 1 if acts == [B, A] else 0
    assert refused(pack([1, acts, [[used, 0, [], [[1]], [], []]]])) is CloseCode.MALFORMED


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x00", b"\x80", pack([]), pack([1]), pack(["1"]), pack([True]), pack(FULL) + b"\x00", b"\x91" * 2000]
)
def test_what_is_no_changeset_is_refused(body: bytes) -> None:
    assert refused(body) is CloseCode.MALFORMED


def test_bytes_that_are_not_canonical_are_refused() -> None:
    good = table_body([[1]])
    assert isinstance(changesets.decode(good), Changeset)
    assert good.endswith(b"\x91\x91\x01\x90\x90")
    assert refused(good.replace(b"\x91\x91\x01\x90\x90", b"\x91\x91\xcc\x01\x90\x90")) is CloseCode.MALFORMED
    assert refused(good.replace(b"\x91\x91\x01\x90\x90", b"\x91\x91\xca\x3f\x00\x00\x00\x90\x90")) is CloseCode.MALFORMED


@pytest.mark.parametrize("operand", [b"\x80", b"\xc7\x00\x05", b"\x81\x01\x01", b"\xd4\x05\x00"])
def test_maps_and_extensions_are_refused_everywhere(operand: bytes) -> None:
    body = table_body(updates=[[[1], [9], [["k"], ["HERE"]]]])
    assert isinstance(changesets.decode(body), UnknownBody)
    assert refused(body.replace(b"\xa4HERE", operand)) is CloseCode.MALFORMED


def test_another_type_of_body_is_unknown_and_not_refused() -> None:
    assert changesets.decode(pack([2, "whatever", [1]])) == UnknownBody("body of type 2")


def test_another_operation_on_a_cell_is_unknown_and_not_refused() -> None:
    body = table_body(updates=[[[1, 2], [0, 7], [["k"], ["x"], [[1, 2]]]]])
    assert changesets.decode(body) == UnknownBody("cell operation 7")


def test_a_malformed_part_is_refused_even_beside_an_unknown_operation() -> None:
    body = table_body(updates=[[[1], [7], [["k"], [[1]]]]], deletes=[[None]])
    assert refused(body) is CloseCode.MALFORMED


def test_a_body_above_the_bound_is_refused() -> None:
    assert refused(bytes(BODY_BYTES_MAX + 1)) is CloseCode.TOO_LARGE


def test_a_small_body_cannot_become_large_in_memory() -> None:
    assert refused(table_body([[None] * CHANGESET_CELLS_MAX])) is CloseCode.TOO_LARGE
    assert refused(pack([1, [A], [[]] * (CHANGESET_ARRAYS_MAX + 1)])) is CloseCode.TOO_LARGE


def test_a_packed_column_counts_as_many_elements_as_it_has_values() -> None:
    # Body, acts, tables, table and its columns count too: 3 + 1 + 1 + 6 + 1.
    most = CHANGESET_CELLS_MAX - 12
    assert isinstance(changesets.decode(table_body([b"\x01" + bytes(most)])), Changeset)
    assert refused(table_body([b"\x01" + bytes(most + 1)])) is CloseCode.TOO_LARGE


def test_what_an_author_finds_to_fit_is_taken_and_one_cell_more_is_not() -> None:
    def of(rows: int) -> Changeset:
        return Changeset((TableChangeset((A, 0), (), ([0] * rows, [None] * rows)),))

    # Body, acts, tables, table and its columns count too: 3 + 1 + 1 + 6 + 2.
    most = (CHANGESET_CELLS_MAX - 13) // 2
    assert changesets.fits(of(most))
    assert not changesets.fits(of(most + 1))
    assert isinstance(changesets.decode(changesets.encode(of(most))), Changeset)
    assert refused(changesets.encode(of(most + 1))) is CloseCode.TOO_LARGE


def test_updates_of_very_many_kinds_do_not_fit() -> None:
    def of(groups: int) -> Changeset:
        updates = tuple(Updates((n % 100, 100 + n // 100), ((n,),), (("x",), ("x",))) for n in range(groups))
        return Changeset((TableChangeset((A, 0), (), (), tuple(sorted(updates, key=lambda group: group.positions))),))

    # Each group has seven arrays: itself, positions, operations, columns, and three columns.
    most = (CHANGESET_ARRAYS_MAX - 8) // 7
    assert changesets.fits(of(most))
    assert not changesets.fits(of(most + 1))
    assert isinstance(changesets.decode(changesets.encode(of(most))), Changeset)
    assert refused(changesets.encode(of(most + 1))) is CloseCode.TOO_LARGE


scalars = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
keys = st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary()


alike = st.sampled_from(
    [
        st.integers(-(2**63), 2**63 - 1),
        st.integers(-129, 128),
        st.integers(-(2**63), -(2**62)),
        st.sampled_from(
            [-1, 0, *(sign * 2**bits + off for bits in (7, 8, 15, 31, 62) for sign in (1, -1) for off in (-1, 0, 1))]
        ),
        st.floats(allow_nan=False),
        st.binary(min_size=3, max_size=3),
        st.text(st.characters(max_codepoint=128), min_size=2, max_size=2),
        st.sampled_from([0, 0.0, None, "", b""]),
    ]
)


@given(alike.flatmap(lambda cells: st.lists(cells, min_size=14, max_size=40)))
def test_a_long_column_comes_back_from_its_bytes_whatever_its_values_are(column: list[Scalar]) -> None:
    decoded = changesets.decode(changesets.encode(Changeset((TableChangeset((A, 0), (), [column]),))))
    assert isinstance(decoded, Changeset)
    assert repr(decoded.tables[0].inserts) == repr([column])


@given(st.binary(max_size=60))
def test_any_packed_column_is_decoded_or_refused_and_nothing_else(packed: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert isinstance(changesets.decode(table_body([packed])), Changeset)


@st.composite
def table_changesets(draw: st.DrawFn, act: bytes) -> TableChangeset:
    width, count = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    column = lambda cells: draw(st.lists(cells, min_size=count, max_size=count))  # noqa: E731
    inserts = [column(scalars) for _ in range(width)]
    groups = [Updates(positions, [column(keys)], [column(scalars) for _ in positions]) for positions in ((0, 2), (1,))]
    return TableChangeset((act, draw(st.integers(0, 999))), ((act, 5),), inserts, tuple(groups), [column(keys)])


@given(st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=3, unique=True), st.data())
def test_any_changeset_comes_back_from_its_bytes(acts: list[bytes], data: st.DataObject) -> None:
    changeset = Changeset(tuple(data.draw(table_changesets(act)) for act in acts))
    body = changesets.encode(changeset)
    decoded = changesets.decode(body)
    assert isinstance(decoded, Changeset)
    assert repr(decoded) == repr(changeset)
    assert changesets.encode(decoded) == body


@given(st.recursive(scalars | st.booleans(), lambda inner: st.lists(inner, max_size=6), max_leaves=40))
def test_arbitrary_arrays_are_decoded_or_refused_and_nothing_else(value: Any) -> None:
    body = canonical.encode([1, [A], [[0, 0, [], value, [], []]]])
    with contextlib.suppress(RemoteProtocolError):
        assert isinstance(changesets.decode(body), Changeset)


def rows_together(*bodies: bytes) -> tuple[Any, Any] | None:
    found = changesets.decode_inserts(bodies)
    if found is None:
        return None
    (table,) = found[0].tables
    return table.inserts, found[1]


def test_inserts_of_many_bodies_are_read_as_one() -> None:
    assert rows_together(table_body([[1], ["x"]]), table_body([[2, 3], ["y", None]])) == ([[1, 2, 3], ["x", "y", None]], [1, 2])


@pytest.mark.parametrize(
    "other",
    [
        table_body([[2], ["y"]], deletes=[[9]]),
        table_body([[2], ["y"]], updates=[[[1], [0], [[7], ["p"]]]]),
        table_body([[2], ["y"]], deletes=0),
        table_body([[2], ["y"]], added=[[0, 1]]),
        table_body(deletes=[[9]]),
        table_body([[2], ["y"]])[:-1],
        table_body([[2], ["y"]]) + b"\x90\x90",
        table_body([[2], ["y"], ["z"]]),
        table_body([[2], ["y", "z"]]),
        table_body([[], []]),
        table_body([[2], [[]]]),
        table_body([[2], [True]]),
        table_body([[2], [math.nan]]),
        table_body([2, "y"]),
        table_body("no array"),
        table_body([[2], ["y"]]).replace(b"\x91\x02", b"\x91\xcc\x02"),
        pack([1, [B], [[0, 0, [], [[2], ["y"]], [], []]]]),
    ],
)
def test_bodies_of_which_one_is_not_like_the_others_are_not_read_as_one(other: bytes) -> None:
    like = table_body([[1], ["x"]])
    assert rows_together(like, like) is not None
    assert rows_together(like, other, like) is None
    assert rows_together(other, like) is None


def test_bodies_whose_bounds_do_not_lie_between_their_rows_are_not_read_as_one() -> None:
    whole = table_body([[1], ["x"]])
    start, row = whole[: -len(b"\x92\x91\x01\x91\xa1x\x90\x90")], b"\x92\x91\x01\x91\xa1x"
    assert start + row + b"\x90\x90" == whole
    assert rows_together(whole, start + row + row + b"\x90\x90", start + b"\x90\x90") is None
    assert rows_together(whole, start + row[:3] + b"\x90\x90", start + row[3:] + b"\x90\x90") is None


cells = st.one_of(
    st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(max_size=3), st.binary(max_size=3)
)


@given(st.lists(st.tuples(st.integers(1, 40), cells, st.sampled_from([b"key", 7, "text"])), min_size=1, max_size=5))
def test_what_is_read_as_one_is_what_each_body_says(written: list[tuple[int, Any, Any]]) -> None:
    # Long columns of alike values are packed, in one body and not in the next.
    bodies = [
        changesets.encode(Changeset((TableChangeset((A, 0), (), [[key] * count, [cell] * count]),)))
        for count, cell, key in written
    ]
    found = rows_together(*bodies)
    each = [changesets.decode(body) for body in bodies]
    assert all(isinstance(one, Changeset) for one in each)
    if found is not None:
        inserts = [one.tables[0].inserts for one in each if isinstance(one, Changeset)]
        assert found == (
            [[value for columns in inserts for value in columns[at]] for at in (0, 1)],
            [count for count, _, _ in written],
        )
    elif max(count for count, _, _ in written) < PACKED_CELLS_MIN:
        raise AssertionError("short columns are read as one")
