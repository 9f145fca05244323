"""SQLite values as JSON and back: blobs, infinities, exact 64-bit integers (API.md, Socket)."""

from __future__ import annotations

import binascii
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

SqlValue: TypeAlias = None | int | float | str | bytes
SqlParams: TypeAlias = Sequence[SqlValue] | Mapping[str, SqlValue]

INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**63 - 1


def decode_value(value: object) -> SqlValue:
    """The SQLite value that a JSON value stands for; true and false are 1 and 0, as in SQL.

    Raises:
        ValueError: an integer beyond 64 bits, a double beyond range, text that is not Unicode, an array, or an object
            that is neither `$blob` nor `$real`. The message says which, for the client.
    """
    return _FORMS[value.__class__](value)


def decode_params(params: object) -> SqlParams:
    """The parameters of a statement: a list for `?`, an object for `:name` (a leading colon in a name is dropped).

    Raises:
        ValueError: as `decode_value`, or neither a list nor an object.
    """
    if params is None:
        return ()
    if isinstance(params, list):
        try:
            return [_FORMS[value.__class__](value) for value in params]
        except ValueError as error:
            raise ValueError(f"value {_first_undecodable(params) + 1}: {error}") from None
    if isinstance(params, dict):
        return {_checked_text(name).removeprefix(":"): _decode_named(name, value) for name, value in params.items()}
    raise ValueError("expected a list for ? or an object for :name")


def decode_rows(rows: Sequence[object]) -> list[SqlParams]:
    """As `decode_params` of each: of rows that are lists of one length a column at a time, at half the cost.

    Raises:
        ValueError: as `decode_params`, but without the value's place.
    """
    if {row.__class__ for row in rows} == {list}:
        lists = cast("Sequence[list[object]]", rows)
        if len(set(map(len, lists))) == 1 and lists[0]:
            return list(zip(*map(_decode_column, zip(*lists, strict=True)), strict=True))
    return [decode_params(row) for row in rows]


def encode_json(answer: object) -> bytes:
    """Compact JSON of an answer whose leaves may be SQLite values; without a newline, in UTF-8.

    Raises:
        ValueError: a NaN, which SQLite never returns.
    """
    try:
        text = _ANSWERS.encode(answer)
    except ValueError:
        # Infinities are rare, and json offers no hook for them: only an answer that holds one is walked.
        text = _ANSWERS.encode(_replace_infinities(answer))
    # A lone surrogate has no UTF-8; the JSON escape that backslashreplace happens to make is what it needs.
    return text.encode("utf-8", "backslashreplace")


def _encode_blob(value: object) -> object:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$blob": binascii.b2a_base64(value, newline=False).decode("ascii")}
    raise TypeError(f"{type(value).__name__} has no JSON form")


_ANSWERS: Final = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"), default=_encode_blob
)
"""Made once, and without the look for a value that holds itself: no answer does."""


def _replace_infinities(value: object) -> object:
    if isinstance(value, float) and math.isinf(value):
        return {"$real": "inf" if value > 0 else "-inf"}
    if isinstance(value, Mapping):
        return {name: _replace_infinities(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace_infinities(inner) for inner in value]
    return value


def _first_undecodable(params: Sequence[object]) -> int:
    for index, value in enumerate(params):
        try:
            decode_value(value)
        except ValueError:
            return index
    raise AssertionError("every value decodes")


def _decode_named(name: str, value: object) -> SqlValue:
    try:
        return decode_value(value)
    except ValueError as error:
        raise ValueError(f"value {name[:64]}: {error}") from None


def _decode_column(column: Sequence[Any]) -> Sequence[SqlValue]:
    kinds = set(map(type, column))
    if len(kinds) > 1:
        return [_FORMS[value.__class__](value) for value in column]
    (kind,) = kinds
    if kind is str and all(map(str.isascii, column)):
        return column
    if kind is int and min(column) >= INTEGER_MIN and max(column) <= INTEGER_MAX:
        return column
    if kind is float and all(map(math.isfinite, column)):
        return column
    return list(map(_FORMS[kind], column))


def _as_it_is(value: SqlValue) -> SqlValue:
    return value


def _checked_integer(value: int) -> int:
    if not INTEGER_MIN <= value <= INTEGER_MAX:
        raise ValueError("an integer does not fit into 64 bits; send it as text or as a double")
    return value


def _checked_real(value: float) -> float:
    # The JSON number 1e999 arrives as an infinity that nobody asked for.
    if not math.isfinite(value):
        raise ValueError('a number is beyond the range of a double; an infinity is written {"$real": "inf"}')
    return value


def _checked_text(text: str) -> str:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("a text holds half of a surrogate pair, which has no UTF-8") from None
    return text


def _decode_tagged(tagged: Mapping[str, object]) -> bytes | float:
    if len(tagged) == 1:
        ((tag, inner),) = tagged.items()
        if tag == "$blob" and isinstance(inner, str):
            try:
                return binascii.a2b_base64(inner, strict_mode=True)
            except ValueError:
                raise ValueError("$blob is not base64 (standard alphabet, with padding)") from None
        if tag == "$real" and inner in ("inf", "-inf"):
            return math.inf if inner == "inf" else -math.inf
    raise ValueError('an object as a value must be {"$blob": "<base64>"} or {"$real": "inf"} or {"$real": "-inf"}')


def _refuse_array(_: object) -> SqlValue:
    raise ValueError("an array is not an SQL value")


_FORMS: Final[dict[type, Callable[[Any], SqlValue]]] = {
    type(None): _as_it_is,
    bool: int,
    int: _checked_integer,
    float: _checked_real,
    str: _checked_text,
    dict: _decode_tagged,
    list: _refuse_array,
}
"""What reads each kind of JSON value: a table, since a great insert has millions of them (half the time of asking one by one)."""
