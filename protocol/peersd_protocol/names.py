"""Which texts may be names of users, groups and devices, and which may be descriptions (SPEC: A).

Replicas must judge alike for ever, so the rule is a list of code points and no question to `unicodedata`, whose tables grow
with each version of Python. Normalising is therefore the author's duty and never a condition of validity.
"""

from __future__ import annotations

from typing import Final

from peersd_protocol.constants import BAN_REASON_BYTES_MAX, DESCRIPTION_BYTES_MAX, IDENTIFIER_CHARS_MAX, TITLE_CHARS_MAX

_CONTROLS: Final = frozenset(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))
_DIRECTIONS: Final = frozenset(map(chr, [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]))
"""Marks, embeddings, overrides and isolates of the writing direction: they make one name look like another."""

_REFUSED_IN_NAMES: Final = _CONTROLS | _DIRECTIONS | frozenset("\u2028\u2029\ufeff")
_REFUSED_IN_DESCRIPTIONS: Final = (_CONTROLS | _DIRECTIONS) - frozenset("\n\t")


def _is_text(text: str) -> bool:
    """Whether the text has no surrogates, that is, can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_name(text: str) -> bool:
    """Whether a text may name a user or a group, or a device: 1 to 128 code points, none refused, no space at either end."""
    return 1 <= len(text) <= TITLE_CHARS_MAX and text == text.strip(" ") and _REFUSED_IN_NAMES.isdisjoint(text) and _is_text(text)


def is_description(text: str) -> bool:
    """Whether a text may describe a group: at most 4 KiB of UTF-8; of the control characters only newline and tab."""
    return _is_prose(text, DESCRIPTION_BYTES_MAX)


def is_reason(text: str) -> bool:
    """Whether a text may be the reason of a ban: at most 512 bytes of UTF-8, and the characters of a description."""
    return _is_prose(text, BAN_REASON_BYTES_MAX)


def _is_prose(text: str, bytes_max: int) -> bool:
    fits = len(text) <= bytes_max and _REFUSED_IN_DESCRIPTIONS.isdisjoint(text) and _is_text(text)
    return fits and len(text.encode()) <= bytes_max


def is_identifier(text: str) -> bool:
    """Whether a text may name a table, a column or an index: 1 to 128 code points, no control characters, not reserved."""
    if not 1 <= len(text) <= IDENTIFIER_CHARS_MAX or not _CONTROLS.isdisjoint(text) or not _is_text(text):
        return False
    return not fold(text).startswith(("sqlite_", "_peers_"))


def fold(identifier: str) -> str:
    """The form in which SQLite compares identifiers: only the ASCII letters lose their case."""
    return identifier.translate(_FOLDED)


_FOLDED: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
