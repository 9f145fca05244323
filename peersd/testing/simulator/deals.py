"""Transactions of several rows that rest on each other, and what a client that reads them must never see."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from peersd.store.batch import Request
from peersd.store.changes import Row
from peersd.store.client_sql import Statement
from peersd.store.log import State
from peersd.store.store import Store, Write
from peersd.testing.checkers import Checker

SCHEMA: Final = (
    "CREATE TABLE deal (id TEXT PRIMARY KEY, name TEXT, size INTEGER, rests TEXT)",
    "CREATE TABLE deal_part (id TEXT PRIMARY KEY, name TEXT, size INTEGER, rests TEXT)",
)

QUERY: Final = "SELECT name, size, rests FROM deal UNION ALL SELECT name, size, rests FROM deal_part"

_INSERT: Final = "INSERT INTO {} (id, name, size, rests) VALUES (?, ?, ?, ?)"


@dataclass
class Deal:
    """A transaction.

    Attributes:
        entry: the hash of its entry.
        device: the name of the one that wrote it.
        has_cause: whether what it rests on counted on that device then. Its client may have read something that has become void
            since: that is no cause of the entry, and others need not have it.
        is_acknowledged: whether the client was told.
    """

    entry: bytes
    device: str
    has_cause: bool
    is_acknowledged: bool = False


@dataclass
class Deals:
    """All deals that any device of a group has committed, by name."""

    known: dict[str, Deal] = field(default_factory=dict[str, Deal])

    def check(self, device: str, store: Store, rows: Sequence[Row]) -> tuple[Checker, str] | None:
        """Looks at what a client read.

        Args:
            device: where.
            store: what the device has.
            rows: the answer to QUERY.
        """
        counts = Counter(rows)
        shown: dict[str, str] = {}
        for (name, size, rests), count in counts.items():
            assert isinstance(name, str)
            assert rests is None or isinstance(rests, str)
            if count != size:
                return Checker.WHOLE_TRANSACTIONS, f"{device} reads {count} of {size!r} rows of {name}"
            shown[name] = rests or ""
        for name, rests in shown.items():
            if rests and self.known[name].has_cause and rests not in shown and not self._is_excused(store, rests):
                return Checker.CAUSAL_ORDER, f"{device} reads {name} and not {rests}, which it rests on"
        for name, deal in self.known.items():
            if deal.device == device and deal.is_acknowledged and name not in shown and not self._is_excused(store, name):
                return Checker.ACKNOWLEDGED, f"{device} does not read {name}, which it has acknowledged"
        return None

    def is_counted(self, store: Store, name: str) -> bool:
        """Whether a deal counts on a device now, and so is a cause of what is written there."""
        row = store.log.find(self.known[name].entry)
        return row is not None and row.state is State.APPLIED

    def _is_excused(self, store: Store, name: str) -> bool:
        """Whether a deal is not shown because it does not count: by an act that takes it from its writer, say."""
        row = store.log.find(self.known[name].entry)
        return row is not None and row.state is not State.APPLIED


def make_deal(random: Random, user: bytes, name: str, shown: Mapping[str, object]) -> tuple[Write, str | None]:
    """A transaction over two tables that rests on one of those that its client has read, and that one.

    Args:
        random: decides.
        user: who writes.
        name: of the deal.
        shown: what the client has read.
    """
    in_two = random.randint(1, 4), random.randint(1, 4)
    rests = random.choice(sorted(shown)) if shown else None
    statements = [
        Statement(_INSERT.format(table), (f"{name}.{number}", name, sum(in_two), rests))
        for table, count in zip(("deal", "deal_part"), in_two, strict=True)
        for number in range(count)
    ]
    return Write(user, Request(statements, math.inf)), rests
