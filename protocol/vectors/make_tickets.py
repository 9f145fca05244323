"""Tokens, digests, redemptions, tickets, and the payloads of OPEN, ACCEPT and REFUSE: SPEC, part O."""

from __future__ import annotations

from typing import Any

from peersd_protocol import canonical, ids
from peersd_protocol.canonical import Value
from peersd_protocol.signing import SigningKey
from peersd_protocol.tickets import Ticket, make_redemption
from peersd_protocol.tokens import (
    NO_DIGEST,
    SIDE_DIALLER,
    SIDE_LISTENER,
    AcceptPayload,
    OpenPayload,
    encode_refusal,
    group_token,
    vector_digest,
)

GROUP, INVITE, SEED, USER, HANDSHAKE, HEAD = (bytes([number]) * 32 for number in range(1, 7))
DEVICE_SEED = b"\x07" * 32
TOKEN, DIGEST, BEACONS = b"\x08" * 16, b"\x09" * 16, b"\x0a" * 8
DEVICE = SigningKey(DEVICE_SEED)
TICKETS = [
    Ticket(GROUP, INVITE, SEED, ("ws://192.0.2.1:7330", "wss://peers.example/x"), "Familie Müller"),
    Ticket(GROUP, INVITE, SEED, (), "g"),
]
REDEMPTION = make_redemption(TICKETS[0], device_key=DEVICE, user=USER, identity_head_hash=HEAD, handshake_hash=HANDSHAKE)


def ticket_text(*fields: Value) -> str:
    return ids.format_id(ids.TICKET, canonical.encode(fields))


GARBLED: dict[str, str] = {
    "nothing": "",
    "an id of something else": ids.format_id(ids.GROUP, GROUP),
    "a character changed": TICKETS[0].format()[:-1] + ("a" if TICKETS[0].format()[-1] != "a" else "b"),
    "the end missing": TICKETS[0].format()[:-8],
    "a later version": ticket_text(2, "anything"),
    "a short key": ticket_text(1, GROUP, INVITE, SEED[:31], [], "g"),
    "no name": ticket_text(1, GROUP, INVITE, SEED, [], ""),
    "nine addresses": ticket_text(1, GROUP, INVITE, SEED, ("ws://a",) * 9, "g"),
    "a long address": ticket_text(1, GROUP, INVITE, SEED, ["ws://" + "a" * 196], "g"),
    "an address of another scheme": ticket_text(1, GROUP, INVITE, SEED, ["http://a"], "g"),
    "an address with a space": ticket_text(1, GROUP, INVITE, SEED, ["ws://a b"], "g"),
}
BAD_OPENS: dict[str, list[Value]] = {
    "three elements": [TOKEN, DIGEST, BEACONS],
    "five elements": [TOKEN, DIGEST, BEACONS, None, None],
    "a short token": [TOKEN[:15], DIGEST, BEACONS, None],
    "a long digest": [TOKEN, DIGEST + b"\0", BEACONS, None],
    "no beacons": [TOKEN, DIGEST, b"", None],
    "a proof that is false": [TOKEN, DIGEST, BEACONS, False],
    "a proof that is a number": [TOKEN, DIGEST, BEACONS, 1],
    "a redemption of five elements": [TOKEN, DIGEST, BEACONS, REDEMPTION.value[:5]],
    "a redemption with a short signature": [TOKEN, DIGEST, BEACONS, [*REDEMPTION.value[:5], REDEMPTION.device_signature[:63]]],
}
OPEN = OpenPayload(TOKEN, DIGEST, BEACONS)
ANSWERS = {
    "of who holds the same": AcceptPayload(DIGEST, BEACONS),
    "of who holds something else": AcceptPayload(bytes(16), BEACONS),
    "of who has other beacons": AcceptPayload(DIGEST),
}
BAD_ACCEPTS: dict[str, list[Value]] = {
    "one element": [DIGEST],
    "three elements": [DIGEST, BEACONS, None],
    "short beacons": [DIGEST, BEACONS[:7]],
}


def ticket_case(number: int, ticket: Ticket) -> dict[str, Any]:
    return {
        "what": "ticket",
        "name": f"ticket {number}",
        "group": ticket.group_id.hex(),
        "invite": ticket.invite_hash.hex(),
        "invite_seed": ticket.invite_seed.hex(),
        "addresses": list(ticket.addresses),
        "group_name": ticket.group_name,
        "text": ticket.format(),
    }


def make() -> dict[str, Any]:
    tokens: list[dict[str, Any]] = [
        {
            "what": "token",
            "name": f"token of the {name}",
            "group": GROUP.hex(),
            "handshake_hash": HANDSHAKE.hex(),
            "side": side.hex(),
            "token": group_token(GROUP, HANDSHAKE, side).hex(),
        }
        for name, side in (("dialler", SIDE_DIALLER), ("listener", SIDE_LISTENER))
    ]
    digests: list[dict[str, Any]] = [
        {
            "what": "digest",
            "name": f"digest of {len(vector)} bytes",
            "group": GROUP.hex(),
            "vector": vector.hex(),
            "digest": vector_digest(GROUP, vector).hex(),
        }
        for vector in (b"", b"\x90", bytes(range(200)))
    ]
    redemption = {
        "what": "redemption",
        "name": "redemption",
        "ticket": TICKETS[0].format(),
        "device_seed": DEVICE_SEED.hex(),
        "user": USER.hex(),
        "identity_head": HEAD.hex(),
        "handshake_hash": HANDSHAKE.hex(),
        "redemption": canonical.encode(REDEMPTION.value).hex(),
    }
    payloads: list[dict[str, Any]] = [
        {"what": "open", "name": "open", "payload": OPEN.encode().hex()},
        {
            "what": "open",
            "name": "open with redemption",
            "payload": OpenPayload(TOKEN, DIGEST, BEACONS, REDEMPTION).encode().hex(),
        },
        {"what": "open", "name": "open with a plea", "payload": OpenPayload(TOKEN, DIGEST, BEACONS, pleads=True).encode().hex()},
        {"what": "open", "name": "open that expects no session", "payload": OpenPayload(TOKEN, NO_DIGEST).encode().hex()},
        {
            "what": "open",
            "name": "open with a plea that expects no session",
            "payload": OpenPayload(TOKEN, NO_DIGEST, pleads=True).encode().hex(),
        },
        *(
            {
                "what": "accept",
                "name": f"accept {name}",
                "open": OPEN.encode().hex(),
                "digest": answer.digest.hex(),
                "beacons": answer.beacons.hex(),
                "payload": answer.encode(OPEN).hex(),
            }
            for name, answer in ANSWERS.items()
        ),
        {"what": "refuse", "name": "refuse", "payload": encode_refusal(None).hex(), "reason": None},
        {
            "what": "refuse",
            "name": "refuse with reason",
            "payload": encode_refusal("invite_expired").hex(),
            "reason": "invite_expired",
        },
        {"what": "refuse", "name": "refuse of a later version", "payload": canonical.encode(["too_rainy"]).hex(), "reason": None},
    ]
    malformed: list[dict[str, Any]] = [
        {
            "what": what,
            "name": f"{what}: {name}",
            "open": OPEN.encode().hex(),
            "payload": canonical.encode(value).hex(),
            "error": "MALFORMED",
        }
        for what, bad in (("open", BAD_OPENS), ("accept", BAD_ACCEPTS))
        for name, value in bad.items()
    ]
    return {
        "description": (
            "`token`: HMAC-SHA256 keyed by the group's id over handshake hash and side, cut to 16 bytes. `digest`: likewise over "
            "the label and the canonical vector. `redemption`: the proof made with a ticket for one link. `ticket`: text form. "
            "`open`, `accept`, `refuse`: payloads of frames; an accept answers the `open` that stands with it. Garbled tickets "
            "are refused by the reader, before any link."
        ),
        "valid": [
            *tokens,
            *digests,
            redemption,
            *(ticket_case(number, ticket) for number, ticket in enumerate(TICKETS)),
            *payloads,
        ],
        "invalid": [
            *(
                {"what": "ticket", "name": f"ticket: {name}", "text": text, "error": "MALFORMED"}
                for name, text in GARBLED.items()
            ),
            *malformed,
            {"what": "open", "name": "open: above the bound", "payload": bytes(513).hex(), "error": "TOO_LARGE"},
        ],
    }
