"""Tickets, redemptions, tokens and digests, and what OPEN, ACCEPT and REFUSE carry (SPEC: O)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peersd_protocol import canonical, ids
from peersd_protocol.acts import Admit
from peersd_protocol.constants import OPEN_BYTES_MAX
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.redemption import Redemption, verify_redemption
from peersd_protocol.signing import SigningKey
from peersd_protocol.tickets import Ticket, make_redemption, parse_ticket
from peersd_protocol.tokens import (
    SIDE_DIALLER,
    SIDE_LISTENER,
    AcceptPayload,
    OpenPayload,
    decode_accept,
    decode_open,
    decode_refusal,
    encode_refusal,
    group_token,
    vector_digest,
)

G, INVITE, S, U, H = b"g" * 32, b"i" * 32, b"s" * 32, b"u" * 32, b"h" * 32
DEVICE = SigningKey(b"d" * 32)
TICKET = Ticket(G, INVITE, S, ("ws://192.0.2.1:7330", "wss://peers.example/x"), "the group")
REDEMPTION = make_redemption(TICKET, device_key=DEVICE, user=U, identity_head_hash=b"n" * 32, handshake_hash=H)


def ticket_text(fields: list[Any]) -> str:
    return ids.format_id(ids.TICKET, canonical.encode(fields))


# --- Tickets ---


def test_a_ticket_survives_its_text() -> None:
    text = TICKET.format()
    assert text.startswith("ticket-")
    assert text == text.lower()
    assert parse_ticket(text) == TICKET


def test_a_ticket_that_mail_broke_into_lines_is_read() -> None:
    text = TICKET.format()
    assert parse_ticket(f"  {text[:60]}\r\n {text[60:]}\n") == TICKET
    assert parse_ticket(text.upper()) == TICKET


@given(st.integers(0, 400), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_a_ticket_with_any_character_changed_is_refused(position: int, character: str) -> None:
    text = TICKET.format()
    position %= len(text)
    changed = text[:position] + character + text[position + 1 :]
    if changed != text:
        with pytest.raises(ValueError, match="not a ticket: "):
            parse_ticket(changed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not begin with ticket-"),
        ("hello", "does not begin with ticket-"),
        (ids.format_id(ids.GROUP, G), "does not begin with ticket-"),
        ("ticket-", "checksum does not match"),
        ("ticket-8", "not base32"),
        ("ticket-ö", "not lower-case base32"),
        (TICKET.format()[:-3], "not base32|checksum does not match"),
        (TICKET.format() + "aa", "not base32|checksum does not match"),
        ("ticket-" + "a" * 100_000, "it is too long"),
        (ids.format_id(ids.TICKET, b"garbage"), "malformed|msgpack"),
        (ticket_text([2, "later"]), "later version of peersd"),
        (ticket_text([1, G, INVITE, S, [], "g", 0]), "7 elements"),
        (ticket_text([1, G, INVITE, S[:31], [], "g"]), "invite key is not 32 bytes"),
        (ticket_text([1, G, INVITE, S, [], ""]), "the group's name"),
        (ticket_text([1, G, INVITE, S, ["ws://a"] * 9, "g"]), "addresses has 9 elements"),
        (ticket_text([1, G, INVITE, S, ["ws://" + "a" * 196], "g"]), "address is no text"),
        (ticket_text([1, G, INVITE, S, ["file:///etc"], "g"]), "no ws://"),
        (ticket_text([1, G, INVITE, S, ["ws://a b"], "g"]), "no ws://"),
        (ticket_text([]), "version of the ticket"),
    ],
)
def test_garbled_tickets_are_refused_with_a_clear_message(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_ticket(text)


@given(st.text(max_size=80))
def test_any_text_is_a_ticket_or_a_value_error(text: str) -> None:
    for candidate in (text, "ticket-" + text):
        with pytest.raises(ValueError, match="not a ticket: "):
            parse_ticket(candidate)


def test_a_ticket_of_ours_that_breaks_a_bound_is_our_own_fault() -> None:
    for ticket in (replace(TICKET, group_name=""), replace(TICKET, addresses=("ws://a",) * 9), replace(TICKET, invite_seed=b"")):
        with pytest.raises(LocalProtocolError):
            ticket.format()


def test_a_ticket_in_a_log_does_not_show_its_secret() -> None:
    assert S.hex() not in repr(TICKET)
    assert "sss" not in repr(TICKET)


# --- Redemptions ---


def test_a_redemption_is_good_on_its_own_link_and_by_its_own_device() -> None:
    assert verify_redemption(REDEMPTION, group_id=G, device=DEVICE.public, handshake_hash=H)
    assert REDEMPTION.invite_public_key == SigningKey(S).public


@pytest.mark.parametrize(
    ("group_id", "device", "handshake_hash"),
    [(b"x" * 32, DEVICE.public, H), (G, SigningKey(b"x" * 32).public, H), (G, DEVICE.public, b"x" * 32)],
)
def test_a_redemption_is_bad_for_another_group_device_or_link(group_id: bytes, device: bytes, handshake_hash: bytes) -> None:
    assert not verify_redemption(REDEMPTION, group_id=group_id, device=device, handshake_hash=handshake_hash)


@pytest.mark.parametrize("field", ["invite_hash", "invite_public_key", "user", "invite_signature", "device_signature"])
def test_a_redemption_with_anything_signed_changed_is_bad(field: str) -> None:
    changed = replace(REDEMPTION, **{field: bytes(len(getattr(REDEMPTION, field)))})
    assert not verify_redemption(changed, group_id=G, device=DEVICE.public, handshake_hash=H)


def test_a_redemption_becomes_the_admission_it_asks_for() -> None:
    admit = REDEMPTION.admit(DEVICE.public, H)
    assert admit == Admit(INVITE, U, DEVICE.public, H, REDEMPTION.invite_signature, REDEMPTION.device_signature)


def test_a_redemption_of_wrong_lengths_is_our_own_fault() -> None:
    with pytest.raises(LocalProtocolError):
        make_redemption(TICKET, device_key=DEVICE, user=b"short", identity_head_hash=H, handshake_hash=H)


# --- Tokens and digests ---


def test_tokens_and_digests_are_these_bytes() -> None:
    assert group_token(G, H, SIDE_DIALLER).hex() == "feda6abb7336228a4588b3829d527549"
    assert group_token(G, H, SIDE_LISTENER).hex() == "65fb747c932c67fde22e126bc0ab3823"
    assert vector_digest(G, b"").hex() == "0aa644d1181212ca5cc578b0daf7dbb4"


def test_tokens_differ_by_group_link_and_side() -> None:
    tokens = {
        group_token(group, link, side) for group in (G, U) for link in (H, INVITE) for side in (SIDE_DIALLER, SIDE_LISTENER)
    }
    assert len(tokens) == 8


def test_digests_differ_by_group_and_vector_and_are_no_tokens() -> None:
    digests = {vector_digest(group, vector) for group in (G, U) for vector in (b"", b"a", H + SIDE_DIALLER)}
    assert len(digests) == 6
    assert group_token(G, H, SIDE_DIALLER) not in digests


def test_tokens_of_wrong_lengths_are_our_own_fault() -> None:
    for group, link, side in ((b"", H, SIDE_DIALLER), (G, b"", SIDE_DIALLER), (G, H, b"\x02"), (G, H, b"")):
        with pytest.raises(LocalProtocolError):
            group_token(group, link, side)
    with pytest.raises(LocalProtocolError):
        vector_digest(b"", b"")


# --- OPEN, ACCEPT, REFUSE ---

TOKEN, DIGEST, BEACONS = b"t" * 16, b"d" * 16, b"b" * 8
ASKED = OpenPayload(TOKEN, DIGEST, BEACONS)


def decode_asked(data: bytes) -> AcceptPayload:
    return decode_accept(data, ASKED)


def test_open_without_proof_is_these_bytes() -> None:
    payload = OpenPayload(TOKEN, DIGEST, BEACONS)
    assert payload.encode() == b"\x94\xc4\x10" + TOKEN + b"\xc4\x10" + DIGEST + b"\xc4\x08" + BEACONS + b"\xc0"
    assert len(payload.encode()) == 48
    assert decode_open(payload.encode()) == payload


def test_open_with_a_redemption_survives_and_fits() -> None:
    payload = OpenPayload(TOKEN, DIGEST, BEACONS, REDEMPTION)
    assert decode_open(payload.encode()) == payload
    assert len(payload.encode()) == 316 <= OPEN_BYTES_MAX


def test_accept_survives_and_has_beacons_of_zeros_without_any() -> None:
    assert decode_accept(AcceptPayload(DIGEST).encode(ASKED), ASKED) == AcceptPayload(DIGEST, bytes(8))


def test_accept_is_empty_only_where_it_would_repeat_all_that_open_said() -> None:
    assert AcceptPayload(DIGEST, BEACONS).encode(ASKED) == b""
    assert decode_accept(b"", ASKED) == AcceptPayload(DIGEST, BEACONS)
    for other in (AcceptPayload(DIGEST), AcceptPayload(bytes(16), BEACONS)):
        assert len(other.encode(ASKED)) == 29
        assert decode_accept(other.encode(ASKED), ASKED) == other


@pytest.mark.parametrize(
    "value",
    [
        [],
        [TOKEN, DIGEST, BEACONS],
        [TOKEN, DIGEST, BEACONS, None, None],
        [TOKEN[:15], DIGEST, BEACONS, None],
        [TOKEN, DIGEST + b"x", BEACONS, None],
        [TOKEN, DIGEST, b"", None],
        [TOKEN, DIGEST, BEACONS, False],
        [TOKEN, DIGEST, BEACONS, []],
        [TOKEN, DIGEST, BEACONS, REDEMPTION.value[:5]],
        [TOKEN, DIGEST, BEACONS, [*REDEMPTION.value[:5], b""]],
        ["t" * 16, DIGEST, BEACONS, None],
    ],
)
def test_a_malformed_open_is_refused(value: list[canonical.Value]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_open(canonical.encode(value))
    assert caught.value.close_code is CloseCode.MALFORMED


def test_an_open_or_accept_above_the_bound_is_too_large() -> None:
    for decode in (decode_open, decode_asked, decode_refusal):
        with pytest.raises(RemoteProtocolError) as caught:
            decode(bytes(OPEN_BYTES_MAX + 1))
        assert caught.value.close_code is CloseCode.TOO_LARGE


def test_a_malformed_accept_is_refused() -> None:
    values: list[list[canonical.Value]] = [[DIGEST], [DIGEST, BEACONS, None], [DIGEST, BEACONS[:7]]]
    for value in values:
        with pytest.raises(RemoteProtocolError):
            decode_asked(canonical.encode(value))


def test_a_refusal_says_nothing_or_a_known_reason() -> None:
    assert encode_refusal(None) == b""
    assert decode_refusal(b"") is None
    assert decode_refusal(encode_refusal("invite_expired")) == "invite_expired"
    assert decode_refusal(canonical.encode(["a reason of later"])) is None
    with pytest.raises(LocalProtocolError):
        encode_refusal("because")
    with pytest.raises(RemoteProtocolError):
        decode_refusal(b"\xc0")


@given(st.binary(max_size=80))
def test_any_bytes_decode_or_are_refused_and_nothing_else(data: bytes) -> None:
    for decode in (decode_open, decode_asked, decode_refusal):
        try:
            decode(data)
        except RemoteProtocolError:
            pass


def test_the_admission_of_a_redemption_names_what_was_signed() -> None:
    assert isinstance(decode_open(OpenPayload(TOKEN, DIGEST, BEACONS, REDEMPTION).encode()).proof, Redemption)
