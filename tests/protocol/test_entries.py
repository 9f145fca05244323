"""Headers, runs and vectors of versions, against protocol/vectors/entries.json and by hand (SPEC: E, R-1)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peersd_protocol import canonical
from peersd_protocol.constants import INLINE_BODY_BYTES_MAX, LINKS_PER_ENTRY_MAX, MESSAGE_BYTES_MAX
from peersd_protocol.entries import NO_BODY_HASH, Header, Kind, LogKey, body_hash
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.runs import Body, BodyForm, Run, parse_body, parse_run, run_value
from peersd_protocol.signing import SigningKey, sha256
from peersd_protocol.vectors import Vector, encode_vector, parse_vector, vector_value

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "protocol" / "vectors" / "entries.json").read_text())
GROUP = bytes.fromhex(VECTORS["group"])
KEY = SigningKey(b"\x01" * 32)


def unpacked(packed: str | list[list[Any]]) -> bytes:
    """Bytes from hex, or from [count, hex] pairs."""
    if isinstance(packed, str):
        return bytes.fromhex(packed)
    return b"".join(bytes.fromhex(piece) * count for count, piece in packed)


def parsed(packed: str | list[list[Any]]) -> Run:
    return parse_run(canonical.decode(unpacked(packed), bytes_max=MESSAGE_BYTES_MAX), GROUP)


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["what"])
def test_valid_runs_give_their_headers(case: dict[str, Any]) -> None:
    run = parsed(case["run"])
    run.check_signature()
    assert [entry.header.encoded.hex() for entry in run.entries] == case["headers"]
    assert [entry.header.hash.hex() for entry in run.entries] == case["hashes"]
    assert canonical.encode(run_value(run)).hex() == case["run"]


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["what"])
def test_invalid_runs_are_refused_with_their_code(case: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        parsed(case["run"]).check_signature()
    assert refused.value.close_code is CloseCode[case["error"]]


def header(**changes: Any) -> Header:
    fields: dict[str, Any] = {
        "group": GROUP,
        "kind": Kind.DATA,
        "user": b"u" * 32,
        "device": KEY.public,
        "epoch": b"e" * 16,
        "seq": 1,
        "prev": b"",
        "hlc": 65_536,
        "deps": (),
        "control_heads": (),
        "body_hash": NO_BODY_HASH,
    }
    return Header(**{**fields, **changes})


def test_the_hash_of_an_entry_covers_every_field_of_its_header() -> None:
    changes: list[dict[str, Any]] = [
        {"group": b""},
        {"kind": Kind.CONTROL},
        {"user": b"v" * 32},
        {"device": b"d" * 32},
        {"epoch": b"f" * 16},
        {"seq": 2},
        {"prev": b"p" * 32},
        {"hlc": 65_537},
        {"deps": (b"d" * 32,)},
        {"control_heads": (b"c" * 32,)},
        {"body_hash": b"b" * 32},
        {"ext": ((1, None),)},
    ]
    assert len({header().hash, *(header(**change).hash for change in changes)}) == 13


def test_an_entry_is_signed_by_its_own_device_alone() -> None:
    entry = header()
    assert entry.is_signed_by_device(entry.sign(KEY))
    assert not header(seq=2, prev=b"p" * 32).is_signed_by_device(entry.sign(KEY))
    with pytest.raises(LocalProtocolError):
        entry.sign(SigningKey(b"\x02" * 32))


def test_an_author_cannot_name_more_links_than_the_bound() -> None:
    many = tuple(number.to_bytes(32, "big") for number in range(LINKS_PER_ENTRY_MAX + 1))
    header(deps=many[:-1], control_heads=many[:-1])
    for field in ("deps", "control_heads"):
        with pytest.raises(LocalProtocolError):
            header(**{field: many})


def test_logs_are_named_by_kind_device_and_epoch_and_identity_logs_by_their_user_too() -> None:
    assert header().log == LogKey(Kind.DATA, b"", KEY.public, b"e" * 16)
    assert header(kind=Kind.IDENTITY, group=b"").log == LogKey(Kind.IDENTITY, b"u" * 32, KEY.public, b"e" * 16)
    genesis = header(kind=Kind.IDENTITY, group=b"", user=b"")
    assert genesis.acting_user == genesis.hash and genesis.log.user == genesis.hash


def test_a_body_hash_is_over_the_hashes_of_its_blocks() -> None:
    assert sha256(b"") == NO_BODY_HASH
    assert body_hash([sha256(b"\0a"), sha256(b"\0b")]) == sha256(sha256(b"\0a") + sha256(b"\0b"))


def test_a_body_travels_inline_up_to_its_bound_and_apart_beyond() -> None:
    at_bound, beyond = Body.of_blocks([b"\0" * INLINE_BODY_BYTES_MAX]), Body.of_blocks([b"\0" * INLINE_BODY_BYTES_MAX, b"\0a"])
    assert at_bound.form is BodyForm.INLINE and beyond.form is BodyForm.DETACHED
    assert beyond.blocks == () and len(beyond.block_hashes) == 2
    for body in (at_bound, beyond, Body.withheld(beyond.hash), Body.of_blocks([])):
        again = parse_body(canonical.decode(canonical.encode(body.value), bytes_max=MESSAGE_BYTES_MAX))
        assert again == body
    assert Body.withheld(beyond.hash).hash == Body.detached(beyond.block_hashes).hash == beyond.hash


def test_only_the_genesis_of_this_group_is_read_without_its_group() -> None:
    run = parsed(VECTORS["valid"][0]["run"])
    assert run.last.group == b"" and run.last.hash == GROUP
    value = canonical.decode(bytes.fromhex(VECTORS["valid"][0]["run"]), bytes_max=MESSAGE_BYTES_MAX)
    elsewhere = parse_run(value, b"o" * 32)
    assert elsewhere.last.group == b"o" * 32
    with pytest.raises(RemoteProtocolError):
        elsewhere.check_signature()


logs = st.builds(
    LogKey, st.sampled_from([Kind.CONTROL, Kind.DATA]), st.just(b""), st.binary(min_size=32, max_size=32), st.just(b"e" * 16)
)
tips = st.sets(st.tuples(st.integers(1, 2**53), st.binary(min_size=32, max_size=32)), min_size=1, max_size=8)


def plain_deltas() -> list[list[Any]]:
    return [[step, [], [], [0, b"\0block %d" % step], []] for step in (1 << 40, 1, 70_000)]


def data_run(deltas: Any) -> list[Any]:
    return [3, b"u" * 32, KEY.public, b"e" * 16, 7, b"p" * 32, bytes(64), deltas]


def test_entries_that_are_read_together_have_the_hashes_of_their_headers() -> None:
    entries = parse_run(data_run(plain_deltas()), GROUP).entries
    assert [entry.header.hash for entry in entries] == [sha256(entry.header.encoded) for entry in entries]
    assert [entry.header.prev for entry in entries] == [b"p" * 32, entries[0].header.hash, entries[1].header.hash]
    assert [entry.header.hlc for entry in entries] == [1 << 40, (1 << 40) + 1, (1 << 40) + 70_001]
    assert [entry.body.blocks for entry in entries] == [(block,) for _, _, _, (_, block), _ in plain_deltas()]


BAD_STEPS: list[Any] = [0, -1, True, None, b"", "1", 1.0, [], 2**63 - (1 << 40)]
NO_ARRAYS: list[Any] = [None, False, 0, b"", "", 0.0]
BAD_BODIES: list[Any] = [None, 0, b"", [], [0.0, b"x"], [False, b"x"], [0, "x"], [0, [b"x"]], [None, b"x"], [3, b"x"]]


@pytest.mark.parametrize(
    ("field", "bad"),
    [(field, bad) for field, values in enumerate([BAD_STEPS, NO_ARRAYS, NO_ARRAYS, BAD_BODIES, NO_ARRAYS]) for bad in values],
)
def test_among_entries_that_are_read_together_one_that_is_not_as_it_has_to_be_is_refused(field: int, bad: Any) -> None:
    deltas = plain_deltas()
    deltas[1][field] = bad
    with pytest.raises(RemoteProtocolError) as refused:
        parse_run(data_run(deltas), GROUP)
    assert refused.value.close_code is CloseCode.MALFORMED


@pytest.mark.parametrize("bad", [[], [1, [], [], [0, b"x"]], [1, [], [], [0, b"x"], [], []], None, b"", "12345"])
def test_among_entries_that_are_read_together_one_of_another_shape_is_refused(bad: Any) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        parse_run(data_run([plain_deltas()[0], bad, plain_deltas()[2]]), GROUP)
    assert refused.value.close_code is CloseCode.MALFORMED


def test_a_block_above_the_bound_among_entries_that_are_read_together_is_too_large() -> None:
    deltas = plain_deltas()
    deltas[1][3] = [0, bytes(INLINE_BODY_BYTES_MAX + 1)]
    with pytest.raises(RemoteProtocolError) as refused:
        parse_run(data_run(deltas), GROUP)
    assert refused.value.close_code is CloseCode.TOO_LARGE


@given(st.dictionaries(logs, tips.map(lambda found: tuple(sorted(found))), max_size=5))
def test_a_vector_has_one_encoding_and_reads_as_itself(vector: Vector) -> None:
    backwards = dict(reversed(list(vector.items())))
    assert encode_vector(backwards) == encode_vector(vector)
    value = canonical.decode(encode_vector(vector), bytes_max=100_000)
    assert parse_vector(value) == vector
    assert canonical.encode(vector_value(vector)) == encode_vector(vector)
