"""Text forms of ids: SPEC, part I."""

from __future__ import annotations

from typing import Any

from peersd_protocol import ids

RAW = bytes(range(32))
GROUP = ids.format_id(ids.GROUP, RAW)


def invalid() -> dict[str, tuple[str, str, str]]:
    return {
        "another prefix": (ids.USER, GROUP, "does not begin"),
        "no prefix": (ids.GROUP, GROUP.removeprefix("grp-"), "does not begin"),
        "upper case": (ids.GROUP, "grp-" + GROUP[4:].upper(), "lower-case"),
        "a character that base32 has not": (ids.GROUP, GROUP[:-1] + "1", "base32"),
        "letters of another script": (ids.GROUP, GROUP[:-1] + "а", "base32"),
        "two characters swapped": (ids.GROUP, GROUP[:10] + GROUP[11] + GROUP[10] + GROUP[12:], "checksum"),
        "cut off": (ids.GROUP, GROUP[:-8], "base32|checksum"),
        "the checksum of another prefix": (ids.GROUP, "grp-" + ids.format_id(ids.USER, RAW)[4:], "checksum"),
        "another form of the last character": (ids.GROUP, GROUP[:-1] + chr(ord(GROUP[-1]) + 1), "checksum"),
        "padding": (ids.GROUP, GROUP + "======", "base32|checksum"),
        "nothing": (ids.GROUP, "grp-", "checksum"),
    }


def make() -> dict[str, Any]:
    prefixes = (ids.USER, ids.DEVICE, ids.GROUP, ids.INVITE)
    return {
        "description": "The text form of bytes under a prefix; invalid: texts that are refused. `detail` is for readers.",
        "valid": [
            *({"prefix": prefix, "bytes": RAW.hex(), "text": ids.format_id(prefix, RAW)} for prefix in prefixes),
            {"prefix": ids.TICKET, "bytes": "00", "text": ids.format_id(ids.TICKET, b"\0")},
        ],
        "invalid": [
            {"why": why, "prefix": prefix, "text": text, "detail": detail, "error": "MALFORMED"}
            for why, (prefix, text, detail) in invalid().items()
        ],
    }
