"""What became of all that was sent: per type how much was good, refused and with which code, and what the worst of it cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from peersd_protocol.constants import MIB

GROWTH_BYTES_MAX: Final = 32 * MIB
"""What a link may make a device's memory grow by (DESIGN 12)."""


@dataclass
class Row:
    """The cases of one type.

    Attributes:
        sent: how many.
        good: how many of them kept the rules.
        taken: how many were not refused.
        refused: how many were refused, by scope and code.
        changes: how many, by what was done to them.
        slowest_s: processor time of the slowest.
    """

    sent: int = 0
    good: int = 0
    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter[str])
    changes: Counter[str] = field(default_factory=Counter[str])
    slowest_s: float = 0.0

    def add_all(self, other: Row) -> None:
        """Takes in the cases of another row of the same type."""
        self.sent += other.sent
        self.good += other.good
        self.taken += other.taken
        self.refused.update(other.refused)
        self.changes.update(other.changes)
        self.slowest_s = max(self.slowest_s, other.slowest_s)


@dataclass
class Worst:
    """The greatest value that was met, and where: "episode E" or "episode E, frame N (TYPE)"."""

    value: float = 0.0
    where: str = ""

    def note(self, value: float, where: str) -> None:
        """Keeps the greater one."""
        if value > self.value or not self.where:
            self.value, self.where = value, where

    def note_all(self, other: Worst) -> None:
        """Keeps the greater one of two."""
        if other.where:
            self.note(other.value, other.where)


@dataclass
class Tally:
    """All cases of a campaign.

    Attributes:
        rows: by type.
        slowest_s: processor time of the slowest case.
        growth_bytes: what Python allocated beyond the start of an episode at its peak, where that was measured.
        sqlite_bytes: the same of SQLite.
        process_bytes: how far a process grew in all, whatever it ran, where that was looked at.
    """

    rows: defaultdict[str, Row] = field(default_factory=lambda: defaultdict(Row))
    slowest_s: Worst = field(default_factory=Worst)
    growth_bytes: Worst = field(default_factory=Worst)
    sqlite_bytes: Worst = field(default_factory=Worst)
    process_bytes: Worst = field(default_factory=Worst)

    @property
    def sent(self) -> int:
        """All cases."""
        return sum(row.sent for row in self.rows.values())

    def add(self, kind: str, *, is_good: bool, change: str, refusals: Iterable[str], took_s: float, where: str) -> None:
        """Notes one case."""
        row = self.rows[kind]
        row.sent += 1
        row.good += is_good
        row.changes[change] += 1
        named = list(refusals)
        row.taken += not named
        row.refused.update(named[:1])
        row.slowest_s = max(row.slowest_s, took_s)
        self.slowest_s.note(took_s, f"{where} ({kind}, {change})")

    def add_all(self, other: Tally) -> None:
        """Takes in what became of other cases."""
        for kind, row in other.rows.items():
            self.rows[kind].add_all(row)
        self.slowest_s.note_all(other.slowest_s)
        self.growth_bytes.note_all(other.growth_bytes)
        self.sqlite_bytes.note_all(other.sqlite_bytes)
        self.process_bytes.note_all(other.process_bytes)

    def lines(self) -> list[str]:
        """The table."""
        lines = [f"{'type':16} {'sent':>9} {'good':>8} {'taken':>8} {'refused':>8}  slowest ms  refused with"]
        for kind, row in sorted(self.rows.items()):
            codes = ", ".join(f"{name} {count}" for name, count in row.refused.most_common())
            refused = row.sent - row.taken
            lines.append(f"{kind:16} {row.sent:9} {row.good:8} {row.taken:8} {refused:8}  {row.slowest_s * 1000:10.1f}  {codes}")
        lines.append(f"{self.sent} frames; the slowest took {self.slowest_s.value * 1000:.0f} ms: {self.slowest_s.where}")
        if self.growth_bytes.where:
            lines.append(
                f"memory grew by at most {self.growth_bytes.value / MIB:.1f} MiB ({self.growth_bytes.where}), "
                f"SQLite's by {self.sqlite_bytes.value / MIB:.1f} MiB ({self.sqlite_bytes.where})"
            )
        if self.process_bytes.where:
            lines.append(f"processes grew by at most {self.process_bytes.value / MIB:.1f} MiB ({self.process_bytes.where})")
        return lines
