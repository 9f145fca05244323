"""What is shown on a terminal: tables and lines, with everything escaped that could fool it or its reader.

Names and rows come from other people's devices. A control character could move the cursor or run a terminal's macro, and a
formatting character could reverse or hide text, so both are shown as escapes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

_HIDDEN: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
"""Unicode categories of characters without a shape of their own."""

_BLANK_LETTERS: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and marks that show as nothing all the same: a name of them alone would look like none, or like another's."""


SHORT_ID_CHARS: Final = 12
"""Of an id in a table: `grp-` and 40 bits, which no other group of a user begins with but by a chance of one in millions."""


def escape(text: str) -> str:
    """The text with control and formatting characters as the escapes that Python writes in a string."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape_character(c) if _is_hidden(c) else c for c in text)


def format_cell(value: object) -> str:
    """A value as it stands in a table: NULL, x'00ff', a number, or escaped text; a list's elements by commas."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (bytes, bytearray)):
        return f"x'{value.hex()}'"
    if isinstance(value, list):
        return ", ".join(format_cell(item) for item in value)
    if isinstance(value, dict):
        return " ".join(f"{escape(str(name))}={format_cell(inner)}" for name, inner in value.items())
    return escape(str(value))


def format_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns aligned by blanks under their names, numbers to the right; ends with a newline."""
    titles = [escape(column) for column in columns]
    listed = [list(row) for row in rows]
    cells = [[format_cell(value) for value in row] for row in listed]
    widths = [max([_width(title), *(_width(row[i]) for row in cells)]) for i, title in enumerate(titles)]
    numeric = [bool(listed) and all(_is_number(row[i]) for row in listed) for i in range(len(titles))]
    lines = [_line(titles, widths, numeric), _line(["-" * width for width in widths], widths, numeric)]
    lines += [_line(row, widths, numeric) for row in cells]
    return "\n".join(lines) + "\n"


def format_records(records: Sequence[Mapping[str, Any]], columns: Mapping[str, str], empty: str) -> str:
    """A table of some keys of each record, or the line `empty`.

    Args:
        records: what to show.
        columns: titles by key; a key that is absent shows as a dash.
        empty: what to say when there is nothing.
    """
    if not records:
        return empty + "\n"
    rows = [[_dashed(record.get(key)) for key in columns] for record in records]
    return format_table(list(columns.values()), rows)


def shorten_ids(ids: Iterable[str]) -> dict[str, str]:
    """For each id its beginning, long enough to tell all of these apart; commands take it in the place of the id."""
    known = set(ids)
    length = SHORT_ID_CHARS
    while len({text[:length] for text in known}) < len(known):
        length += 1
    return {text: text[:length] for text in known}


def format_facts(facts: Mapping[str, object]) -> str:
    """One `name: value` a line, the values aligned."""
    width = max(len(name) for name in facts) + 1
    return "".join(f"{name + ':':<{width}} {format_cell(_dashed(value))}\n" for name, value in facts.items())


def _dashed(value: object) -> object:
    return "-" if value is None or value == [] or value == "" else value


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN or character in _BLANK_LETTERS


def _escape_character(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(_character_width(c) for c in text)


def _character_width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded: list[str] = []
    for cell, width, right in zip(cells, widths, numeric, strict=True):
        blanks = " " * (width - _width(cell))
        padded.append(blanks + cell if right else cell + blanks)
    return "  ".join(padded).rstrip()
