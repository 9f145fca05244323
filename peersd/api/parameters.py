"""Reading the parameters of one request: names, types, ranges, each mistake told with a hint."""

from __future__ import annotations

import difflib
import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from peersd.api.jsonrpc import RpcError, invalid_params
from peersd.api.values import SqlParams, decode_params, decode_value
from peersd_protocol.constants import BAN_REASON_BYTES_MAX, DESCRIPTION_BYTES_MAX, TITLE_CHARS_MAX
from peersd_protocol.names import is_description, is_name, is_reason

TEXT_CHARACTERS_MAX: Final = 4096
"""Ids, names that choose something, URLs (guess)."""

TICKET_CHARACTERS_MAX: Final = 16384
"""A ticket names several members' addresses; far below this (guess)."""

TIMEOUT_S_MIN: Final = 0.001
TIMEOUT_S_MAX: Final = 3600.0

_ABSENT: Final = object()


def suggest(word: str, known: Iterable[str]) -> str:
    """`did you mean "x"? ` when a known word is close, else empty."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f'did you mean "{close[0]}"? ' if close else ""


class Parameters:
    """The parameters of one request against the names that its method takes.

    Args:
        method: for hints.
        names: the names that the method takes, in the order that positions count.
        given: as it came: a list by position, an object by name, or None.

    Raises:
        RpcError: -32602 for a name that the method does not take, or too many positions.
    """

    def __init__(self, method: str, names: Sequence[str], given: list[object] | dict[str, object] | None) -> None:
        self._method = method
        self._names = names
        if isinstance(given, list):
            if len(given) > len(names):
                raise invalid_params(f"{len(given)} positions", self._takes)
            given = dict(zip(names, given, strict=False))
        for name in given or ():
            if name not in names:
                raise invalid_params(f'unknown parameter "{name[:64]}"', suggest(name, names) + self._takes, parameter=name[:64])
        self._given = given or {}

    @property
    def _takes(self) -> str:
        """For hints."""
        names = self._names
        return f"{self._method} takes {', '.join(names)}" if names else f"{self._method} takes no parameters"

    def text(self, name: str, *, characters_max: int = TEXT_CHARACTERS_MAX) -> str:
        """A text that must be there and not be empty."""
        value = self._required(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a text")
        if not value:
            raise self._wrong(name, "a text that is not empty")
        return self._bounded(name, value, characters_max)

    def label(self, name: str, *, characters_max: int = TITLE_CHARS_MAX) -> str:
        """A name that people will see, in normal form (NFC): what the protocol admits as one, without blanks at its ends."""
        value = unicodedata.normalize("NFC", self.text(name, characters_max=characters_max))
        if value != value.strip() or not is_name(value) or len(value) > characters_max:
            raise self._wrong(
                name,
                f"a name of at most {characters_max} characters on one line, without control or direction characters, and "
                "without blanks at its ends",
            )
        return value

    def optional_label(self, name: str, *, characters_max: int = TITLE_CHARS_MAX) -> str | None:
        """As `label`, or None when absent or null."""
        return None if self._get(name) is None else self.label(name, characters_max=characters_max)

    def description(self, name: str = "description") -> str | None:
        """A text of any number of lines that describes something; empty is one, too; None when absent or null."""
        return self._prose(name, is_description, DESCRIPTION_BYTES_MAX)

    def reason(self, name: str = "reason") -> str | None:
        """As `description`, and shorter."""
        return self._prose(name, is_reason, BAN_REASON_BYTES_MAX)

    def blob(self, name: str, bytes_max: int) -> bytes | None:
        """Bytes, written `{"$blob": "<base64>"}`; None when absent or null."""
        value = self._get(name)
        if value is None:
            return None
        try:
            decoded = decode_value(value)
        except ValueError as error:
            raise self._wrong(name, f'{{"$blob": "<base64>"}}: {error}') from None
        if not isinstance(decoded, bytes):
            raise self._wrong(name, '{"$blob": "<base64>"}')
        if len(decoded) > bytes_max:
            raise self._wrong(name, f"at most {bytes_max} bytes")
        return decoded

    def selector(self, name: str) -> str | None:
        """An id, prefix or name that chooses a group, user or device; None when absent or null."""
        return None if self._get(name) is None else self.text(name)

    def selectors(self, name: str) -> list[str] | None:
        """A list of ids, prefixes or names; None when absent or null."""
        value = self._get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
            raise self._wrong(name, "a list of texts, not empty")
        return [self._bounded(name, item, TEXT_CHARACTERS_MAX) for item in value]

    def choice(self, name: str, choices: Sequence[str], default: str | None) -> str:
        """One of a few words; it must be there when there is no default."""
        value = self._required(name) if default is None else self._get(name)
        if value is None and default is not None:
            return default
        return self._one_of(name, value, choices)

    def choices(self, name: str, choices: Sequence[str]) -> frozenset[str] | None:
        """Some of a few words, at least one; None when absent or null."""
        value = self._get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not value:
            raise self._wrong(name, "a list, not empty, of " + ", ".join(choices))
        return frozenset(self._one_of(name, item, choices) for item in value)

    def flag(self, name: str, *, default: bool | None = False) -> bool:
        """True or false; the default when absent or null, and it must be there when there is none."""
        value = self._required(name) if default is None else self._get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def integer(self, name: str, *, default: int | None, least: int, most: int) -> int:
        """A whole number within `least..most`, and 5.0 is not one; it must be there when there is no default."""
        value = self._required(name) if default is None else self._get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self._wrong(name, f"a whole number from {least} to {most}")
        return value

    def timeout_s(self, default: float | None) -> float:
        """The parameter `timeout_s`, 0.001 to 3600 seconds; it must be there when there is no default."""
        value = self._required("timeout_s") if default is None else self._get("timeout_s")
        if value is None and default is not None:
            return default
        number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
        if not TIMEOUT_S_MIN <= number <= TIMEOUT_S_MAX:
            raise self._wrong("timeout_s", f"a number of seconds from {TIMEOUT_S_MIN} to {TIMEOUT_S_MAX:.0f}")
        return float(number)

    def sql(self, name: str = "sql") -> str:
        """A statement; its length is bounded by the line."""
        return checked_sql(self._required(name), name)

    def sql_params(self, name: str = "params") -> SqlParams:
        """The parameters of a statement; empty when absent or null."""
        return checked_sql_params(self._get(name), name)

    def array(self, name: str) -> list[object]:
        """A list that must be there; what it holds is the caller's to check."""
        value = self._required(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        return value

    def _get(self, name: str) -> object:
        assert name in self._names, f"{name} is read but not declared"
        return self._given.get(name)

    def _required(self, name: str) -> object:
        value = self._given.get(name, _ABSENT)
        assert name in self._names, f"{name} is read but not declared"
        if value is _ABSENT:
            raise invalid_params(f"{name} is missing", self._takes, parameter=name)
        return value

    def _wrong(self, name: str, expected: str) -> RpcError:
        return invalid_params(f"{name} must be {expected}", self._takes, parameter=name)

    def _one_of(self, name: str, value: object, choices: Sequence[str]) -> str:
        if isinstance(value, str) and value in choices:
            return value
        detail = f"{name} must be one of {', '.join(choices)}"
        near = suggest(value[:64], choices) if isinstance(value, str) else ""
        raise invalid_params(detail, near + self._takes, parameter=name)

    def _prose(self, name: str, is_admitted: Callable[[str], bool], bytes_max: int) -> str | None:
        value = self._get(name)
        if value is None:
            return None
        if not isinstance(value, str) or not is_admitted(value):
            raise self._wrong(name, f"a text of at most {bytes_max} bytes without control or direction characters")
        return value

    def _bounded(self, name: str, value: str, characters_max: int) -> str:
        if len(value) > characters_max:
            raise self._wrong(name, f"at most {characters_max} characters")
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise self._wrong(name, "text that has a UTF-8 form")
        return value


def checked_sql(value: object, name: str) -> str:
    """A statement: a text that is not blank and has a UTF-8 form.

    Raises:
        RpcError: -32602.
    """
    if not isinstance(value, str) or not value.strip():
        raise invalid_params(f"{name} must be one SQL statement, as text", parameter=name)
    if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        raise invalid_params(f"{name} must be text that has a UTF-8 form", parameter=name)
    return value


def checked_sql_params(value: object, name: str) -> SqlParams:
    """The parameters of a statement; empty when None.

    Raises:
        RpcError: -32602, with what was wrong about which value.
    """
    try:
        return decode_params(value)
    except ValueError as error:
        hint = 'a list for ?, an object for :name; a blob is {"$blob": "<base64>"}'
        raise invalid_params(f"{name}: {error}", hint, parameter=name) from None
