"""SQL values in JSON and back, for the client: bytes as `$blob`, infinities as `$real` (API.md, Socket)."""

from __future__ import annotations

import binascii
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

SqlValue: TypeAlias = None | int | float | str | bytes
SqlParams: TypeAlias = Sequence[SqlValue] | Mapping[str, SqlValue]


def encode_json(value: object, *, ascii_only: bool = False, indent: int | None = None) -> str:
    """JSON text of a value whose leaves may be bytes or infinities.

    Args:
        value: what to encode.
        ascii_only: escape all other characters, as for a terminal.
        indent: blanks a level, or None for one line.

    Raises:
        ValueError: a NaN.
        TypeError: something without a JSON form.
    """
    encoder = _LINES
    if ascii_only or indent is not None:
        separators = (",", ":") if indent is None else None
        encoder = json.JSONEncoder(
            ensure_ascii=ascii_only, allow_nan=False, separators=separators, indent=indent, default=_encode_blob
        )
    try:
        return encoder.encode(value)
    except ValueError:
        # json has no hook for infinities; only what holds one is walked.
        return encoder.encode(_replace_infinities(value))


def decode_json(line: bytes) -> Any:
    """The value of a line, `$blob` and `$real` objects replaced by bytes and infinities.

    Raises:
        ValueError: not JSON, or not UTF-8.
    """
    return _ANSWERS.decode(line.decode("utf-8"))


def _encode_blob(value: object) -> object:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$blob": binascii.b2a_base64(value, newline=False).decode("ascii")}
    raise TypeError(f"{type(value).__name__} is no SQL value: use None, int, float, str or bytes")


def _replace_infinities(value: object) -> object:
    if isinstance(value, float) and math.isinf(value):
        return {"$real": "inf" if value > 0 else "-inf"}
    if isinstance(value, Mapping):
        return {name: _replace_infinities(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace_infinities(inner) for inner in value]
    return value


def _decode_tagged(tagged: dict[str, Any]) -> Any:
    if len(tagged) == 1:
        ((tag, inner),) = tagged.items()
        if tag == "$blob":
            return binascii.a2b_base64(inner, strict_mode=True)
        if tag == "$real":
            return math.inf if inner == "inf" else -math.inf
    return tagged


# Made once: json.dumps and json.loads make theirs anew in each call with a hook. The look for a value that holds itself is left
# out (a fifth of the time of a great insert); what does ends in a RecursionError.
_LINES: Final = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"), default=_encode_blob
)
_ANSWERS: Final = json.JSONDecoder(object_hook=_decode_tagged)
