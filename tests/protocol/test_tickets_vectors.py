"""The implementation against protocol/vectors/tickets.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peersd_protocol import canonical
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.redemption import decode_redemption, verify_redemption
from peersd_protocol.signing import SigningKey
from peersd_protocol.tickets import Ticket, make_redemption, parse_ticket
from peersd_protocol.tokens import AcceptPayload, decode_accept, decode_open, decode_refusal, group_token, vector_digest

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "protocol" / "vectors" / "tickets.json").read_text())


def cases(part: str, *what: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in VECTORS[part] if case["what"] in what]


def unhex(case: dict[str, Any], *names: str) -> list[bytes]:
    return [bytes.fromhex(case[name]) for name in names]


@pytest.mark.parametrize("case", cases("valid", "token"))
def test_tokens(case: dict[str, Any]) -> None:
    assert group_token(*unhex(case, "group", "handshake_hash", "side")).hex() == case["token"]


@pytest.mark.parametrize("case", cases("valid", "digest"))
def test_digests(case: dict[str, Any]) -> None:
    assert vector_digest(*unhex(case, "group", "vector")).hex() == case["digest"]


@pytest.mark.parametrize("case", cases("valid", "ticket"))
def test_tickets(case: dict[str, Any]) -> None:
    group, invite, seed = unhex(case, "group", "invite", "invite_seed")
    ticket = Ticket(group, invite, seed, tuple(case["addresses"]), case["group_name"])
    assert ticket.format() == case["text"]
    assert parse_ticket(case["text"]) == ticket


@pytest.mark.parametrize("case", cases("valid", "redemption"))
def test_redemptions(case: dict[str, Any]) -> None:
    ticket = parse_ticket(case["ticket"])
    device_seed, user, head, handshake_hash, encoded = unhex(
        case, "device_seed", "user", "identity_head", "handshake_hash", "redemption"
    )
    device = SigningKey(device_seed)
    made = make_redemption(ticket, device_key=device, user=user, identity_head_hash=head, handshake_hash=handshake_hash)
    assert canonical.encode(made.value) == encoded
    read = decode_redemption(canonical.decode(encoded, bytes_max=1000))
    assert verify_redemption(read, group_id=ticket.group_id, device=device.public, handshake_hash=handshake_hash)


@pytest.mark.parametrize("case", cases("valid", "open"))
def test_the_payload_of_open_survives(case: dict[str, Any]) -> None:
    assert decode_open(bytes.fromhex(case["payload"])).encode().hex() == case["payload"]


@pytest.mark.parametrize("case", cases("valid", "open"))
def test_who_redeems_or_expects_no_session_is_not_asked_back(case: dict[str, Any]) -> None:
    payload = decode_open(bytes.fromhex(case["payload"]))
    assert payload.may_be_asked_back is (case["name"] in ("open", "open with a plea"))


@pytest.mark.parametrize("case", cases("valid", "accept"))
def test_the_payload_of_accept_says_what_differs_from_open(case: dict[str, Any]) -> None:
    payload, asked = bytes.fromhex(case["payload"]), decode_open(bytes.fromhex(case["open"]))
    answer = decode_accept(payload, asked)
    assert answer == AcceptPayload(*unhex(case, "digest", "beacons"))
    assert answer.encode(asked) == payload


@pytest.mark.parametrize("case", cases("valid", "refuse"))
def test_refusals(case: dict[str, Any]) -> None:
    assert decode_refusal(bytes.fromhex(case["payload"])) == case["reason"]


@pytest.mark.parametrize("case", cases("invalid", "open", "accept"))
def test_invalid_payloads_are_refused_with_the_stated_code(case: dict[str, Any]) -> None:
    payload = bytes.fromhex(case["payload"])
    with pytest.raises(RemoteProtocolError) as caught:
        if case["what"] == "open":
            decode_open(payload)
        else:
            decode_accept(payload, decode_open(bytes.fromhex(case["open"])))
    assert caught.value.close_code is CloseCode[case["error"]]


@pytest.mark.parametrize("case", cases("invalid", "ticket"))
def test_garbled_tickets_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a ticket: "):
        parse_ticket(case["text"])
