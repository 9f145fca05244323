"""Tickets: what a person hands to another so that they can join a group (SPEC: O, DESIGN 10)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from peersd_protocol import canonical, ids
from peersd_protocol.constants import ADDRESS_CHARS_MAX, TICKET_ADDRESSES_MAX, TICKET_BYTES_MAX
from peersd_protocol.errors import LocalProtocolError, RemoteProtocolError
from peersd_protocol.fields import malformed, read_array, read_bytes, read_int, read_text
from peersd_protocol.names import is_name
from peersd_protocol.redemption import Redemption, sign_redemption
from peersd_protocol.signing import SEED_BYTES, SigningKey

TICKET_VERSION: Final = 1

_SCHEMES: Final = ("ws://", "wss://")


@dataclass(frozen=True)
class Ticket:
    """The private half of an invite, and where to redeem it. Whoever holds it can join: it is a secret.

    Attributes:
        group_id: 32 bytes.
        invite_hash: hash of the invite's entry.
        invite_seed: the invite key's 32-byte seed.
        addresses: URLs of devices of several members, at most 8; printable ASCII, at most 200 characters each.
        group_name: what the group was called, for people; nothing vouches for it.
    """

    group_id: bytes
    invite_hash: bytes
    invite_seed: bytes
    addresses: tuple[str, ...]
    group_name: str

    @cached_property
    def invite_key(self) -> SigningKey:
        """The invite key."""
        return SigningKey(self.invite_seed)

    def format(self) -> str:
        """The text form, `ticket-…`.

        Raises:
            LocalProtocolError: the ticket breaks a bound that every reader checks.
        """
        fields: list[canonical.Value] = [
            TICKET_VERSION,
            self.group_id,
            self.invite_hash,
            self.invite_seed,
            self.addresses,
            self.group_name,
        ]
        try:
            raw = canonical.encode(fields)
            _decode(raw)
        except RemoteProtocolError as error:
            raise LocalProtocolError(f"a ticket that nobody would accept: {error.detail}") from error
        return ids.format_id(ids.TICKET, raw)

    def __repr__(self) -> str:
        """Without the seed: a ticket may end up in a log."""
        return f"Ticket(group_id={self.group_id.hex()}, invite_hash={self.invite_hash.hex()}, addresses={self.addresses})"


def parse_ticket(text: str) -> Ticket:
    """The ticket of a text form; space around it and line breaks within it are passed over, as mail programs add them.

    Raises:
        ValueError: it is none, was mistyped or cut off, or is of a later version; the message is fit for people.
    """
    joined = "".join(text.split())
    # Base32 turns 5 bytes into 8 characters; a bound here keeps a pasted file from being decoded.
    if len(joined) > len(ids.TICKET) + 1 + (TICKET_BYTES_MAX + ids.CHECKSUM_BYTES) * 2:
        raise ValueError("not a ticket: it is too long")
    try:
        raw = ids.parse_id(ids.TICKET, joined.lower())
    except ValueError as error:
        raise ValueError(f"not a ticket: {error}") from error
    try:
        return _decode(raw)
    except RemoteProtocolError as error:
        raise ValueError(f"not a ticket: {error.detail}") from error


def _decode(raw: bytes) -> Ticket:
    fields = canonical.decode(raw, bytes_max=TICKET_BYTES_MAX)
    version = read_int(fields[0] if fields else None, "version of the ticket", 1, 2**31)
    if version != TICKET_VERSION:
        raise malformed("it was made by a later version of peersd")
    _, group_id, invite_hash, invite_seed, addresses, group_name = read_array(fields, "ticket", length=6)
    if not isinstance(group_name, str) or not is_name(group_name):
        raise malformed("the group's name")
    listed = read_array(addresses, "addresses", items_max=TICKET_ADDRESSES_MAX)
    return Ticket(
        read_bytes(group_id, "group id"),
        read_bytes(invite_hash, "invite"),
        read_bytes(invite_seed, "invite key", SEED_BYTES),
        tuple(read_address(address) for address in listed),
        group_name,
    )


def read_address(value: canonical.Value) -> str:
    """An address of a device: a ws:// or wss:// URL of printable ASCII, at most ADDRESS_CHARS_MAX characters.

    Raises:
        RemoteProtocolError: MALFORMED.
    """
    address = read_text(value, "address", ADDRESS_CHARS_MAX)
    if not address.startswith(_SCHEMES) or not all("!" <= character <= "~" for character in address):
        raise malformed("an address that is no ws:// or wss:// URL")
    return address


def make_redemption(
    ticket: Ticket, *, device_key: SigningKey, user: bytes, identity_head_hash: bytes, handshake_hash: bytes
) -> Redemption:
    """Signs the redemption of a ticket for one link.

    Args:
        ticket: the ticket.
        device_key: of this device, one of the user's.
        user: who joins, 32 bytes.
        identity_head_hash: the newest entry of the user's identity log.
        handshake_hash: of the link on which OPEN will carry it.
    """
    return sign_redemption(
        group_id=ticket.group_id,
        invite_hash=ticket.invite_hash,
        invite_key=ticket.invite_key,
        user=user,
        identity_head_hash=identity_head_hash,
        device_key=device_key,
        handshake_hash=handshake_hash,
    )
