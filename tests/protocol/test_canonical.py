"""Canonical msgpack: one encoding for each value, and everything else refused (SPEC: E-1 to E-3)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peersd_protocol import canonical
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError

SUITE = Path(__file__).parents[2].parent / "shared" / "vectors" / "msgpack-test-suite.json"
IN_AN_ARRAY = b"\x91"
OUTSIDE = ("map", "timestamp", "ext")


def load_suite() -> list[tuple[str, dict[str, Any]]]:
    if not SUITE.exists():
        return []
    return [(name, case) for name, cases in json.loads(SUITE.read_text()).items() for case in cases]


def decode(encoded: bytes) -> Any:
    (value,) = canonical.decode(IN_AN_ARRAY + encoded, bytes_max=10_000)
    return value


def expected(case: dict[str, Any]) -> Any:
    if "binary" in case:
        return bytes.fromhex(case["binary"].replace("-", ""))
    if "bignum" in case:
        return int(case["bignum"])
    return next(value for kind, value in case.items() if kind != "msgpack")


def the_canonical(encodings: list[bytes]) -> set[bytes]:
    """Of a value: the shortest encoding that is no float, unsigned where two are as short; and the double."""
    floats = {encoding for encoding in encodings if encoding[0] in (0xCA, 0xCB)}
    doubles = {encoding for encoding in floats if encoding[0] == 0xCB}
    others = [encoding for encoding in encodings if encoding not in floats]
    shortest = min(others, key=lambda encoding: (len(encoding), 0xD0 <= encoding[0] <= 0xD3), default=None)
    return doubles | ({shortest} if shortest else set())


@pytest.mark.skipif(not SUITE.exists(), reason="the msgpack test suite is not there (../shared/vectors)")
@pytest.mark.parametrize(("name", "case"), load_suite() or [("", {})])
def test_of_every_value_of_the_suite_only_the_canonical_encoding_is_taken(name: str, case: dict[str, Any]) -> None:
    encodings = [bytes.fromhex(encoding.replace("-", "")) for encoding in case["msgpack"]]
    is_outside = any(kind in case for kind in OUTSIDE) or ("array" in case and "{" in json.dumps(case["array"]))
    taken = set() if is_outside else the_canonical(encodings)
    for encoding in encodings:
        if encoding in taken:
            assert decode(encoding) == expected(case)
            assert canonical.encode([decode(encoding)]) == IN_AN_ARRAY + encoding
        else:
            with pytest.raises(RemoteProtocolError) as refused:
                decode(encoding)
            assert refused.value.close_code is CloseCode.MALFORMED


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary() | st.text(),
    lambda inner: st.lists(inner, max_size=5),
)


@given(st.lists(values))
def test_what_is_encoded_decodes_to_itself(value: list[Any]) -> None:
    encoded = canonical.encode(value)
    again = canonical.decode(encoded, bytes_max=len(encoded))
    assert canonical.encode(again) == encoded
    assert repr(again) == repr(value)  # also where NaN and -0.0 are concerned


@given(st.binary(max_size=40))
def test_any_bytes_are_refused_or_are_their_own_encoding(data: bytes) -> None:
    try:
        value = canonical.decode(data, bytes_max=40)
    except RemoteProtocolError:
        return
    assert canonical.encode(value) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",  # nil instead of an array
        b"\x91",  # cut off
        b"\x91\xc0\xc0",  # something after
        b"\xdc\x00\x01\xc0",  # length of the array not in its shortest form
        b"\x91\xc4\x01",  # bytes cut off
        b"\x91\xa1\xff",  # not UTF-8
        b"\x91\xa3\xed\xa0\x80",  # a surrogate
        b"\x91\x80",  # an empty map
        b"\x91\x81\xa1a\x01",  # a map
        b"\x91\xc7\x00\x01",  # an empty extension
        b"\x91\xd4\x01\x00",  # an extension
        b"\x91\xc1",  # a byte without a meaning
        b"\x91" * 2000 + b"\xc0",  # too deep
    ],
)
def test_what_is_not_canonical_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        canonical.decode(data, bytes_max=10_000)
    assert refused.value.close_code is CloseCode.MALFORMED


def test_the_length_is_looked_at_before_the_bytes() -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        canonical.decode(b"\xc1" * 11, bytes_max=10)
    assert refused.value.close_code is CloseCode.TOO_LARGE


@pytest.mark.parametrize("value", [[object()], [2**64], [-(2**63) - 1], ["\ud800"]])
def test_values_outside_the_subset_are_a_fault_of_ours(value: Any) -> None:
    with pytest.raises(LocalProtocolError):
        canonical.encode(value)
