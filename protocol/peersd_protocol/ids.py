"""Text forms of ids: a prefix, then lower-case base32 of the bytes and a 4-byte checksum (SPEC: I-1)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

USER: Final = "usr"
DEVICE: Final = "dev"
GROUP: Final = "grp"
INVITE: Final = "inv"
TICKET: Final = "ticket"

CHECKSUM_BYTES: Final = 4


def _checksum(prefix: str, raw: bytes) -> bytes:
    return hashlib.sha256(prefix.encode() + b"\0" + raw).digest()[:CHECKSUM_BYTES]


def format_id(prefix: str, raw: bytes) -> str:
    """The text form, such as `grp-mfrgg…`: prefix, dash, base32 without padding."""
    return prefix + "-" + base64.b32encode(raw + _checksum(prefix, raw)).decode().rstrip("=").lower()


def parse_id(prefix: str, text: str) -> bytes:
    """The bytes behind a text form.

    Raises:
        ValueError: another prefix, characters outside base32, or a wrong checksum.
    """
    start = prefix + "-"
    if not text.startswith(start):
        raise ValueError(f"does not begin with {start}")
    body = text[len(start) :]
    if body != body.lower() or not body.isascii():
        raise ValueError("not lower-case base32")
    try:
        raw = base64.b32decode(body.upper() + "=" * (-len(body) % 8))
    except binascii.Error as error:
        raise ValueError("not base32") from error
    payload, checksum = raw[:-CHECKSUM_BYTES], raw[-CHECKSUM_BYTES:]
    if _checksum(prefix, payload) != checksum or format_id(prefix, payload) != text:
        raise ValueError("checksum does not match; it was mistyped or cut off")
    return payload
