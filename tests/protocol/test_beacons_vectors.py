"""Beacons and their messages, against protocol/vectors/beacons.json and by hand (SPEC: B-1 to B-6)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peersd_protocol import canonical
from peersd_protocol.beacon_messages import (
    Beacon,
    Beacons,
    Counters,
    compact_holdings,
    counters_summary,
    decode_beacon,
    decode_beacon_message,
    encode_beacons,
    encode_counters,
    lag,
    log_name,
    sign_beacon,
)
from peersd_protocol.constants import (
    ADDRESS_CHARS_MAX,
    BEACON_ADDRESSES_MAX,
    BEACON_BYTES_MAX,
    BEACON_COUNTER_MAX,
    BEACONS_MAX,
    HOLDINGS_MAX,
    MESSAGE_BYTES_MAX,
    SEQ_MAX,
)
from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.messages import decode_message, encode_ask, encode_have, is_beacon_message
from peersd_protocol.signing import SigningKey
from peersd_protocol.tokens import NO_BEACONS
from peersd_protocol.vectors import Vector, parse_vector
from tests.protocol.test_entries import unpacked

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "protocol" / "vectors" / "beacons.json").read_text())
KEY = SigningKey(b"k" * 32)
GROUP, DIGEST, HASH = b"g" * 32, b"d" * 16, b"h" * 32


def cases(part: str, *what: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in VECTORS[part] if case["what"] in what]


def pairs(listed: list[list[Any]]) -> tuple[tuple[bytes, int], ...]:
    return tuple((bytes.fromhex(name), number) for name, number in listed)


@pytest.mark.parametrize("case", cases("valid", "beacon"))
def test_beacons_are_made_and_read_alike(case: dict[str, Any]) -> None:
    group, digest = bytes.fromhex(case["group"]), bytes.fromhex(case["digest"])
    key = SigningKey(bytes.fromhex(case["seed"]))
    made = sign_beacon(group, key, case["counter"], case["addresses"], digest, pairs(case["holdings"]))
    assert made.encode().hex() == case["beacon"]
    read = decode_beacon(bytes.fromhex(case["beacon"]))
    assert read == made
    assert read.is_signed(group)


@pytest.mark.parametrize("case", cases("invalid", "forged"))
def test_a_beacon_is_good_only_as_it_was_signed_and_for_that_group(case: dict[str, Any]) -> None:
    assert not decode_beacon(bytes.fromhex(case["beacon"])).is_signed(bytes.fromhex(case["group"]))


@pytest.mark.parametrize("case", cases("valid", "counters", "beacons"))
def test_valid_messages_are_read_and_written_alike(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["message"])
    message = decode_beacon_message(data)
    assert type(message).__name__.lower() == case["what"]
    encoded = encode_counters(dict(message.counters)) if isinstance(message, Counters) else encode_beacons(message.beacons)
    assert encoded == data
    assert is_beacon_message(data)


@pytest.mark.parametrize("case", cases("invalid", "message"))
def test_invalid_messages_are_refused_with_their_code(case: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        decode_beacon_message(unpacked(case["message"]))
    assert refused.value.close_code is CloseCode[case["error"]]


@pytest.mark.parametrize("case", cases("valid", "summary"))
def test_summaries(case: dict[str, Any]) -> None:
    assert counters_summary(bytes.fromhex(case["group"]), dict(pairs(case["counters"]))).hex() == case["summary"]


@pytest.mark.parametrize("case", cases("valid", "holdings"))
def test_holdings(case: dict[str, Any]) -> None:
    vector = parse_vector(canonical.decode(bytes.fromhex(case["vector"]), bytes_max=MESSAGE_BYTES_MAX))
    assert [log_name(log).hex() for log in vector] == case["logs"]
    assert compact_holdings(vector) == pairs(case["holdings"])


def test_only_messages_of_types_8_and_9_are_about_beacons() -> None:
    others = [encode_have({}), encode_ask([]), b"", b"\x92", b"\x91\x08", b"\x93\x08\x90\x90", b"\x92\x07\x90", b"\x92\x0a\x90"]
    assert [is_beacon_message(data) for data in others] == [False] * len(others)


@pytest.mark.parametrize("data", [encode_counters({}), encode_beacons([])])
def test_the_decoder_of_the_other_messages_refuses_them(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        decode_message(data)
    assert refused.value.close_code is CloseCode.MALFORMED


def test_the_largest_beacon_and_the_longest_counters_fit_their_bounds() -> None:
    largest = sign_beacon(
        GROUP,
        KEY,
        BEACON_COUNTER_MAX,
        ["ws://" + "a" * (ADDRESS_CHARS_MAX - 5)] * BEACON_ADDRESSES_MAX,
        DIGEST,
        [(number.to_bytes(8, "big"), SEQ_MAX) for number in range(HOLDINGS_MAX)],
    )
    assert len(largest.encode()) == 31_748 <= BEACON_BYTES_MAX
    longest = encode_counters({number.to_bytes(32, "big"): BEACON_COUNTER_MAX for number in range(BEACONS_MAX)})
    message = decode_beacon_message(longest)
    assert isinstance(message, Counters)
    assert len(message.counters) == BEACONS_MAX
    read = decode_beacon_message(encode_beacons([largest]))
    assert isinstance(read, Beacons)
    assert read.beacons == (largest,)


@pytest.mark.parametrize(
    "wrong",
    [
        {"counter": 0},
        {"counter": BEACON_COUNTER_MAX + 1},
        {"addresses": ("http://a",)},
        {"addresses": ("ws://a",) * 9},
        {"digest": b""},
        {"holdings": ((b"b" * 8, 1), (b"a" * 8, 1))},
    ],
    ids=str,
)
def test_a_beacon_that_nobody_would_take_is_not_made(wrong: dict[str, Any]) -> None:
    beacon = replace(Beacon(KEY.public, 1, (), DIGEST, (), b""), **wrong)
    with pytest.raises(LocalProtocolError, match="nobody would take"):
        sign_beacon(GROUP, KEY, beacon.counter, beacon.addresses, beacon.digest, beacon.holdings)


def test_a_summary_depends_on_group_devices_and_counters() -> None:
    summaries = {
        counters_summary(group, counters)
        for group in (GROUP, bytes(32))
        for counters in ({b"a" * 32: 1}, {b"a" * 32: 2}, {b"b" * 32: 1}, {b"a" * 32: 1, b"b" * 32: 1})
    }
    assert len(summaries) == 8
    assert {len(summary) for summary in summaries} == {8}
    assert counters_summary(GROUP, {}) == NO_BEACONS == bytes(8)


def data_log(number: int) -> LogKey:
    return LogKey(Kind.DATA, b"", number.to_bytes(32, "big"), b"e" * 16)


def test_lag_names_what_lies_beyond_per_log() -> None:
    vector: Vector = {data_log(1): ((5, HASH),), data_log(2): ((2, HASH), (7, HASH)), data_log(3): ((1, HASH),)}
    holdings = compact_holdings(vector)
    assert lag(holdings, vector) == []
    behind = compact_holdings({data_log(1): ((5, HASH),), data_log(2): ((3, HASH),)})
    assert lag(behind, vector) == [(data_log(2), 4), (data_log(3), 1)]
    assert lag(holdings, {data_log(1): ((4, HASH),)}) == []
    assert lag((), {}) == []


def test_holdings_of_too_many_logs_name_those_that_began_last() -> None:
    vector: Vector = {data_log(number): ((1, HASH),) for number in range(HOLDINGS_MAX + 3, 0, -1)}
    holdings = compact_holdings(vector)
    assert len(holdings) == HOLDINGS_MAX
    assert [log for log, _ in lag(holdings, vector)] == [data_log(number) for number in range(HOLDINGS_MAX + 3, HOLDINGS_MAX, -1)]
