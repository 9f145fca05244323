"""The messages of a session, against protocol/vectors/messages.json and by hand (SPEC: R-3, R-4)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peersd_protocol.constants import RUNS_COMPRESS_BYTES_MIN
from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.messages import (
    Ask,
    Block,
    Have,
    Prune,
    Runs,
    VectorPart,
    Want,
    decode_message,
    decode_runs,
    encode_ask,
    encode_block,
    encode_have,
    encode_prune,
    encode_runs,
    encode_vector_parts,
    encode_want,
)
from peersd_protocol.runs import Body, Entry, Run
from peersd_protocol.signing import SigningKey
from tests.protocol.test_entries import KEY, header, unpacked

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "protocol" / "vectors" / "messages.json").read_text())
GROUP = bytes.fromhex(VECTORS["group"])


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["what"])
def test_valid_messages_are_read_and_written_alike(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["message"])
    message = decode_message(data)
    assert type(message).__name__.upper().removesuffix("PART") == case["what"].split(",")[0]
    match message:
        case VectorPart(vector, more):
            parts = encode_vector_parts(vector)
            assert data == (parts[0].replace(b"\x93\x01\xc2", b"\x93\x01\xc3") if more else parts[0])
        case Want():
            assert encode_want(message) == data
        case Runs(codec):
            runs = decode_runs(message, GROUP)
            for run in runs:
                run.check_signature()
            assert codec or encode_runs(runs) == data
        case Block():
            assert encode_block(message) == data
        case Have(vector):
            assert encode_have(vector) == data
        case Ask(hashes):
            assert encode_ask(hashes) == data
        case Prune():
            assert encode_prune() == data


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["what"])
def test_invalid_messages_are_refused_with_their_code(case: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        message = decode_message(unpacked(case["message"]))
        assert isinstance(message, Runs)
        decode_runs(message, GROUP)
    assert refused.value.close_code is CloseCode[case["error"]]


def test_a_vector_comes_in_as_many_parts_as_it_needs() -> None:
    vector = {LogKey(Kind.DATA, b"", bytes([number]) * 32, b"e" * 16): ((1, b"h" * 32),) for number in range(5)}
    parts = [decode_message(part) for part in encode_vector_parts(vector, logs_per_part=2)]
    assert [(len(part.vector), part.more) for part in parts if isinstance(part, VectorPart)] == [(2, True), (2, True), (1, False)]


def run_of(raw: bytes) -> Run:
    body = Body.of_blocks([b"\0" + raw])
    entry = header(body_hash=body.hash)
    return Run((Entry(entry, body),), entry.sign(KEY))


def test_runs_are_compressed_where_that_pays() -> None:
    plain, even = (
        decode_message(encode_runs([run_of(b"a")])),
        decode_message(encode_runs([run_of(b"a" * RUNS_COMPRESS_BYTES_MIN)])),
    )
    noise = b"".join(SigningKey(bytes([number]) * 32).public for number in range(40))
    uneven = decode_message(encode_runs([run_of(noise)]))
    assert [message.codec for message in (plain, even, uneven) if isinstance(message, Runs)] == [0, 1, 0]
