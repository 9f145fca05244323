"""SQL as it comes from the command line: parameters, and files of several statements cut apart."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

_NAMED: Final = re.compile(r":([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)

_QUOTES: Final = {"'": "'", '"': '"', "`": "`", "[": "]"}

_TOKEN: Final = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)|['\"`\[;]", re.DOTALL)
"""Where a statement may end, or what may hide an end: comments, and the start of quoted text."""


def parse_param(text: str) -> Any:
    """The value of one --param: what it stands for as JSON (no arrays; objects only `$blob` and `$real`), else the text itself.

    So `42` is an integer, `4.5` a double, `null` NULL, `"42"` the text 42, and `hello` the text hello. Blanks around a value
    make it a text.
    """
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text
    if text != text.strip() or isinstance(value, list):
        return text
    if isinstance(value, dict) and list(value) not in (["$blob"], ["$real"]):
        return text
    return value


def parse_params(texts: list[str]) -> list[Any] | dict[str, Any] | None:
    """The `params` of a statement: a list for `?`, or an object where each is written `:name=value`.

    Raises:
        ValueError: both kinds together.
    """
    if not texts:
        return None
    named = [_NAMED.fullmatch(text) for text in texts]
    if all(named):
        return {match[1]: parse_param(match[2]) for match in named if match}
    if any(named):
        raise ValueError("--param :name=value and --param value do not mix")
    return [parse_param(text) for text in texts]


def split_statements(text: str) -> list[str]:
    """The statements of a script, each without its semicolon; blank and comment-only pieces are left out.

    Quoted text and comments may hold semicolons. The bodies of triggers are not understood: the daemon admits none.
    """
    statements: list[str] = []
    begin = position = 0
    meaningful = False
    while match := _TOKEN.search(text, position):
        token = match[0]
        meaningful = meaningful or bool(text[position : match.start()].strip())
        position = match.end()
        if token == ";":
            if meaningful:
                statements.append(text[begin : match.start()].strip())
            begin, meaningful = position, False
        elif token in _QUOTES:
            end = text.find(_QUOTES[token], position)
            position = len(text) if end < 0 else end + 1
            meaningful = True
    if meaningful or text[position:].strip():
        statements.append(text[begin:].strip())
    return statements


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)
