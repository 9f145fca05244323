"""What clients write: random statements over a few tables, some with a blob so large that its entry's body travels apart."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from random import Random
from typing import Final

from peersd.store.batch import Request
from peersd.store.client_sql import Statement
from peersd.store.store import Write
from peersd_protocol.canonical import Value

SCHEMA: Final = (
    "CREATE TABLE note (id TEXT PRIMARY KEY DEFAULT (uuid7()), title TEXT, body TEXT, stars INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE pair (one TEXT, two INTEGER, label TEXT DEFAULT 'none', weight REAL, PRIMARY KEY (one, two)) WITHOUT ROWID",
    "CREATE TABLE file (name TEXT PRIMARY KEY, content BLOB)",
)

LATER_SCHEMA: Final = (
    "ALTER TABLE note ADD COLUMN done INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE note ADD COLUMN done TEXT",
    "ALTER TABLE pair ADD COLUMN seen TEXT DEFAULT 'no'",
    "CREATE TABLE tag (name TEXT PRIMARY KEY, colour TEXT)",
    "CREATE TABLE tag (name TEXT PRIMARY KEY, colour INTEGER NOT NULL DEFAULT 3)",
    "CREATE INDEX note_title ON note (title)",
)

_NOTE_KEYS: Final = tuple(f"n{number}" for number in range(8))
_PAIR_KEYS: Final = tuple((one, two) for one in ("x", "") for two in (-1, 2**63 - 1, -(2**63)))
_FILE_KEYS: Final[Sequence[Value]] = ("f0", "", b"")
_TEXTS: Final[Sequence[Value]] = (None, "", b"", "a", "b\0c", "ünïcode", "x" * 300)
_NUMBERS: Final = (0, 1, -5, 2**63 - 1, -(2**63))
_REALS: Final = (None, 0.0, -0.0, 1.5, -2.25, 3, sys.float_info.max, 5e-324, -math.inf, math.nan, 2**63 - 1)
_ALIKE: Final[Sequence[Value]] = (
    None,
    "",
    b"",
    math.nan,
    0,
    0.0,
    -0.0,
    "0",
    1,
    1.0,
    b"1",
    2**53 + 1,
    2.0**53,
    2**63 - 1,
    2.0**63,
)
"""Values that are easily taken for each other, for a column that keeps them all apart; NaN is NULL to SQLite."""

_RETYPE: Final = (
    "UPDATE file SET content = CASE typeof(content) WHEN 'integer' THEN content * 1.0 WHEN 'real' THEN -content ELSE ? END"
)
"""Changes nothing of a number but its type or its sign, so that zeros and ones compare equal before and after."""

DETACHED_BYTES: Final = 400_000
"""A blob of random bytes that is two blocks long, so that its entry's body travels apart."""


def marker_of(group: str) -> str:
    """The text by which what is written in a group of that name is told from what is written in others."""
    return f"<only in {group}>"


def make_write(random: Random, user: bytes, group: str) -> Write:
    """A client's request of one to three statements, in a group of that name."""
    texts = (*_TEXTS, marker_of(group), marker_of(group))
    count = random.choice((1, 1, 2, 3))
    return Write(user, Request([_statement(random, texts) for _ in range(count)], math.inf))


def _statement(random: Random, texts: Sequence[Value]) -> Statement:
    table = random.random()
    if table < 0.55:
        return _note(random, texts)
    return _pair(random, texts) if table < 0.8 else _file(random)


def _note(random: Random, texts: Sequence[Value]) -> Statement:
    choose = random.choice
    key, title, body, stars = choose(_NOTE_KEYS), choose(texts), choose(texts), choose(_NUMBERS)
    kind = random.random()
    if kind < 0.15:
        return Statement("INSERT INTO note (title, stars) VALUES (?, ?)", (title, stars))
    if kind < 0.17:
        return Statement("INSERT OR ROLLBACK INTO note (id, title) VALUES (?, ?)", (key, title))  # ends the batch, if it is there
    if kind < 0.3:
        return (
            Statement("INSERT INTO note VALUES (?, ?, ?, ?)", (key, title, body, stars))
            if kind < 0.2
            else Statement("INSERT INTO note (id, title, body, stars) VALUES (?, ?, ?, ?)", (key, title, body, stars))
        )
    if kind < 0.4:
        return Statement("INSERT OR REPLACE INTO note (id, title) VALUES (?, ?)", (key, title))
    if kind < 0.55:
        upsert = (
            "INSERT INTO note (id, body) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body, stars = stars + 1"
        )
        return Statement(upsert, (key, body))
    if kind < 0.7:
        return Statement("UPDATE note SET title = ? WHERE id = ?", (title, key))
    if kind < 0.75:
        return Statement("UPDATE note SET stars = ?", (stars,))
    if kind < 0.8:
        return Statement("UPDATE OR REPLACE note SET id = ? WHERE id = ?", (choose(_NOTE_KEYS), key))
    if kind < 0.83:
        rows: list[tuple[Value, ...]] = [(f"m{random.randrange(200)}", choose(texts)) for _ in range(60)]
        return Statement("INSERT OR REPLACE INTO note (id, title) VALUES (?, ?)", params_seq=rows)
    if kind < 0.85:
        return Statement("DELETE FROM note WHERE id LIKE 'm%'")
    return Statement("DELETE FROM note WHERE id = ?", (key,))


def _pair(random: Random, texts: Sequence[Value]) -> Statement:
    choose = random.choice
    (one, two), label, weight = choose(_PAIR_KEYS), choose(texts), choose(_REALS)
    kind = random.random()
    if kind < 0.4:
        return Statement("INSERT OR REPLACE INTO pair (one, two, label, weight) VALUES (?, ?, ?, ?)", (one, two, label, weight))
    if kind < 0.6:
        return Statement("UPDATE pair SET weight = ? WHERE one = ?", (weight, one))
    if kind < 0.7:
        return Statement("UPDATE pair SET label = ? WHERE one = ? AND two = ?", (label, one, two))
    if kind < 0.8:
        return Statement("UPDATE OR REPLACE pair SET two = ? WHERE one = ? AND two = ?", (choose(_PAIR_KEYS)[1], one, two))
    return Statement("DELETE FROM pair WHERE one = ? AND two = ?", (one, two))


def _file(random: Random) -> Statement:
    choose = random.choice
    name, kind = choose(_FILE_KEYS), random.random()
    if kind < 0.1:
        return Statement("INSERT OR REPLACE INTO file VALUES (?, ?)", (name, random.randbytes(DETACHED_BYTES)))
    if kind < 0.3:
        return Statement("INSERT OR REPLACE INTO file VALUES (?, ?)", (name, random.randbytes(choose((1, 5_000)))))
    if kind < 0.5:
        return Statement("INSERT OR REPLACE INTO file VALUES (?, ?)", (name, choose(_ALIKE)))
    if kind < 0.65:
        return Statement("UPDATE file SET content = ? WHERE name = ?", (choose(_ALIKE), name))
    if kind < 0.9:
        return Statement(_RETYPE, (choose(_ALIKE),))
    return Statement("DELETE FROM file WHERE name = ?", (name,))
