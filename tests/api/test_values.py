from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peersd.api.values import decode_params, decode_rows, decode_value, encode_json
from peersd.client import values as client_values

SQL_VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None),
        ("true", 1),
        ("false", 0),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("1.0", 1.0),
        ("4.5e-324", 5e-324),
        ('"a\\u0000b"', "a\x00b"),
        ('{"$blob": "AP8="}', b"\x00\xff"),
        ('{"$blob": ""}', b""),
        ('{"$real": "inf"}', math.inf),
        ('{"$real": "-inf"}', -math.inf),
    ],
)
def test_each_json_form_stands_for_its_sql_value(text: str, value: Any) -> None:
    decoded = decode_value(json.loads(text))
    assert decoded == value
    assert type(decoded) is type(value)


def test_the_sign_of_zero_survives_both_ways() -> None:
    assert repr(decode_value(json.loads("-0.0"))) == "-0.0"
    assert encode_json([-0.0, 0.0]) == b"[-0.0,0.0]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("9223372036854775808", "64 bits"),
        ("-9223372036854775809", "64 bits"),
        ("1e999", "range of a double"),
        ("[1]", "array"),
        ("{}", "$blob"),
        ('{"$blob": "AP8"}', "base64"),
        ('{"$blob": "A P8="}', "base64"),
        ('{"$blob": "é"}', "base64"),
        ('{"$blob": 1}', "$blob"),
        ('{"$blob": "", "x": 1}', "$blob"),
        ('{"$real": "nan"}', "$real"),
        ('{"$real": 1}', "$real"),
        ('"\\ud800"', "surrogate"),
    ],
)
def test_each_value_without_an_sql_form_is_refused_by_its_reason(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("$", r"\$")):
        decode_value(json.loads(text))


def test_the_refused_value_is_named_by_position_or_name() -> None:
    with pytest.raises(ValueError, match="value 2: an array"):
        decode_params([1, []])
    with pytest.raises(ValueError, match="value x: an array"):
        decode_params({"x": []})
    with pytest.raises(ValueError, match="a list for"):
        decode_params("x")


def test_names_of_parameters_go_without_their_colon() -> None:
    assert decode_params({":a": 1, "b": {"$blob": ""}}) == {"a": 1, "b": b""}
    assert decode_params(None) == ()


def test_infinities_blobs_and_text_have_one_literal_form() -> None:
    assert encode_json({"r": (math.inf, -math.inf, b"\x00\xff", "é\n\x00", 2**63 - 1)}) == (
        '{"r":[{"$real":"inf"},{"$real":"-inf"},{"$blob":"AP8="},"é\\n\\u0000",9223372036854775807]}'.encode()
    )


def test_a_nan_is_never_sent() -> None:
    with pytest.raises(ValueError):
        encode_json([math.nan])


def test_half_a_surrogate_pair_leaves_as_an_escape() -> None:
    assert json.loads(encode_json(["\ud800"])) == ["\ud800"]


@given(st.lists(SQL_VALUES))
def test_values_arrive_as_they_were_from_client_to_daemon_and_back(values: Any) -> None:
    sent = json.loads(client_values.encode_json(values))
    received = decode_params(sent)
    assert repr(received) == repr(values)
    assert repr(client_values.decode_json(encode_json(received))) == repr(values)


JSON_VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        [None, True, False, 0, 1.5, "a", "é", "\ud800", 2**63 - 1, 2**63, -(2**63) - 1, math.inf, [], {}, {"$blob": "?"}]
    ),
    st.binary().map(lambda value: json.loads(client_values.encode_json(value))),
)


def outcome(decode: Any, given: Any) -> str:
    try:
        return repr([list(row) if isinstance(row, tuple) else row for row in decode(given)])
    except ValueError:
        return "refused"


EVEN_ROWS = st.integers(0, 3).flatmap(lambda width: st.lists(st.lists(JSON_VALUES, min_size=width, max_size=width)))
ANY_ROWS = st.lists(st.one_of(st.none(), st.lists(JSON_VALUES), st.dictionaries(st.sampled_from("ab"), JSON_VALUES)))


@given(st.one_of(EVEN_ROWS, ANY_ROWS))
def test_rows_in_bulk_are_read_as_each_alone(rows: Any) -> None:
    def each(rows: Any) -> list[Any]:
        return [decode_params(row) for row in rows]

    assert outcome(decode_rows, rows) == outcome(each, rows).replace("()", "[]")


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, math.inf, "\ud800", [], {}])
def test_a_bad_value_anywhere_in_rows_is_refused(value: Any) -> None:
    for row, column in ((0, 0), (1, 1), (2, 0)):
        rows: list[list[Any]] = [[1, 2.5], [3, 4.5], [5, 6.5]]
        rows[row][column] = value
        with pytest.raises(ValueError, match=r"value|integer|number|text|array"):
            decode_rows(rows)
    with pytest.raises(ValueError, match=r"value|integer|number|text|array"):
        decode_rows([[value], [value]])
