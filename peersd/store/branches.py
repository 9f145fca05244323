"""The branches of a log: where each forks off, which entry lies before which, and how far each may be told of (SPEC: E-12, A-28).

Entries of a log form a tree. It is kept as numbered branches: an entry is on its `prev`'s branch if it was the first here to
follow it, and else begins a branch of its own. So an entry's ancestors are a prefix of each of a few branches, and no question
about them needs a walk along the chain, which is as long as a remote author likes.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from peersd_protocol.entries import LogKey

Path: TypeAlias = dict[int, int]
"""An entry with all before it in its log: per branch, the greatest sequence."""


class State(enum.IntEnum):
    """What an entry counts for."""

    VOID = 0
    APPLIED = 1
    ASIDE = 2
    """It counts, but its rows are not shown: of a later version, or made under schema acts that do not stand."""
    ANCESTOR = 3
    """It does not count and is held all the same, because something that counts rests on it."""
    MISSING = 4
    """It counts, but its body, or that of one before it on its branch that counts, is not here: no vector tells of it."""


@dataclass(slots=True)
class TipRow:
    """The last entry of a branch that is held."""

    id: int
    branch: int
    seq: int
    hash: bytes
    hlc: int


@dataclass(frozen=True, slots=True)
class EntryRow:
    """What most decisions need to know of a stored entry."""

    id: int
    log: int
    branch: int
    seq: int
    hlc: int
    state: State


@dataclass(slots=True)
class Branch:
    """One branch of a log.

    Attributes:
        parent: number of the branch that it forks off, None for one that begins with the log.
        first: sequence of its first entry.
        last: sequence of its last entry here, void ones included.
    """

    parent: int | None
    first: int
    last: int


@dataclass(slots=True)
class LogRow:
    """One log as it is known here.

    Attributes:
        id, key: which log.
        branches: by number; a branch comes after the one it forks off. One without a fork.
        tips: the last held entry of each branch that may be told of; none while there is no such.
        missing: per branch that has any, the sequence of its first MISSING entry.
        authors: numbers of the users who wrote in it, void entries included.
    """

    id: int
    key: LogKey
    branches: list[Branch] = field(default_factory=list)
    tips: list[TipRow] = field(default_factory=list)
    missing: dict[int, int] = field(default_factory=dict)
    authors: set[int] = field(default_factory=set)

    @property
    def forked(self) -> bool:
        """Whether two entries stand at one sequence."""
        return len(self.branches) > 1

    def path(self, branch: int, seq: int) -> Path:
        """The entry at a place, and all before it."""
        path: Path = {}
        at: int | None = branch
        while at is not None:
            path[at] = seq
            seq = self.branches[at].first - 1
            at = self.branches[at].parent
        return path

    def root(self, branch: int) -> int:
        """The branch on which the log begins for an entry on this one."""
        while (parent := self.branches[branch].parent) is not None:
            branch = parent
        return branch

    def branch_at(self, path: Mapping[int, int], seq: int) -> int | None:
        """The branch on which a path has this sequence, None beyond its ends."""
        return next((at for at, last in path.items() if self.branches[at].first <= seq <= last), None)

    def is_blocked(self, branch: int, seq: int) -> bool:
        """Whether the entry at a place, or one before it, is MISSING: it may not be told of."""
        if not self.missing:
            return False
        return any(self.missing.get(at, last + 1) <= last for at, last in self.path(branch, seq).items())
