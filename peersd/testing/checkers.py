"""The names of all that is checked in a simulation, and in a swarm (`CHECKERS`). A failure tells which check found it.

They are stable: lists of planted faults, tests and notes name them. Where something failed that no check looks for, because the
product itself raised, the failure is called EXCEPTION, which is nobody's catch.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


class Checker(enum.StrEnum):
    """What a check is called, and what it holds against the devices."""

    EQUAL_DUMPS = "equal-dumps"
    """Members of a group have the same rows, cell clocks included."""

    VECTORS = "vectors"
    """Members of a group hold the same logs up to the same entries."""

    MEMBERSHIP = "membership"
    """Members of a group evaluate its acts to the same members, roles, invites, bans and schema."""

    REBUILD = "rebuild"
    """Rows, clocks, vector and membership of a file are what its logs give when it is rebuilt, and when it is opened anew."""

    ANY_ORDER = "any-order"
    """An empty store that takes in the same entries in another order comes to the same."""

    ORACLE = "oracle"
    """Rows are what the plain reading of the merge rules makes of the entries that count (peersd.testing.oracle)."""

    ACKNOWLEDGED = "acknowledged"
    """What a client was told to be written is there: in the device's logs at the end, and in what its clients read meanwhile."""

    WHOLE_TRANSACTIONS = "whole-transactions"
    """Whoever reads sees all rows of a transaction or none."""

    CAUSAL_ORDER = "causal-order"
    """Whoever reads never sees an effect without its cause, and no file has an entry without all that it names."""

    CHAIN = "chain"
    """Every stored entry follows the one before it in its log, has the body that it names, and is signed by its device."""

    SEQUENCE = "sequence"
    """No two entries of honest devices have the same place in a log."""

    AUTHORITY = "authority"
    """An entry counts exactly if the plain reading of the rules about members, roles and cuts says so, and an invite brings in no
    more users than it may, and nobody once it has expired (`admitted`)."""

    BODIES = "bodies"
    """An entry lacks its body only where no member has it."""

    MARKERS = "markers"
    """No byte of a group is in another group's file, in another group's channel, on a device of no member, or on the wire."""

    FRAMES = "frames"
    """What comes out of a channel of a link is what was put into it at its other end, once and whole."""

    OUTSIDERS = "outsiders"
    """Whoever is known to be no member's device is sent nothing but its farewell, and holds nothing written after that."""

    CHANNELS = "channels"
    """A channel ends with the membership that it was opened for."""

    ONE_LINK = "one-link"
    """A pair of devices has at most one link, and both sides take the same one for it."""

    QUEUE_BOUNDS = "queue-bounds"
    """Every queue stays within its bound, and nothing stays in one for good."""

    INTEGRITY = "integrity"
    """SQLite's own integrity_check of every file."""

    CONVERGED = "converged"
    """Members are equal and know it, a while after the network works again."""

    BEACONS = "beacons"
    """What devices tell of each other's copies becomes true a while after they are equal."""

    QUIET = "quiet"
    """Devices that are equal say nothing more."""

    HONEST_REFUSED = "honest-refused"
    """No honest device is refused by another one for breaking a rule, or taken for a clone."""

    TASKS = "tasks"
    """A node has the tasks that its links, channels and open groups give reason for, and no others."""

    LOGS = "logs"
    """No node logs an error."""

    SUMMARIES = "summaries"
    """What a node knows of a group without its store is what the store says."""


class Bench(enum.StrEnum):
    """What a check belongs to; some belong to both."""

    SIMULATOR = "simulator"
    """The machines and the store, without tasks, logs or summaries (`peersd.testing.simulator`)."""

    SWARM = "swarm"
    """Whole nodes (`peersd.testing.swarm`)."""


CHECKERS: Final[Mapping[Bench, frozenset[Checker]]] = {
    Bench.SIMULATOR: frozenset(Checker) - {Checker.TASKS, Checker.LOGS, Checker.SUMMARIES},
    Bench.SWARM: frozenset(
        (
            Checker.EQUAL_DUMPS,
            Checker.VECTORS,
            Checker.MEMBERSHIP,
            Checker.REBUILD,
            Checker.ANY_ORDER,
            Checker.ORACLE,
            Checker.ACKNOWLEDGED,
            Checker.CAUSAL_ORDER,
            Checker.CHAIN,
            Checker.SEQUENCE,
            Checker.AUTHORITY,
            Checker.BODIES,
            Checker.MARKERS,
            Checker.OUTSIDERS,
            Checker.ONE_LINK,
            Checker.QUEUE_BOUNDS,
            Checker.INTEGRITY,
            Checker.CONVERGED,
            Checker.HONEST_REFUSED,
            Checker.TASKS,
            Checker.LOGS,
            Checker.SUMMARIES,
        )
    ),
}


@dataclass(frozen=True)
class Finding:
    """What a check has found.

    Attributes:
        checker: which one.
        text: what is wrong, and where.
        is_raised: whether it is only told of what the product raised by itself, which is nobody's catch.
    """

    checker: Checker
    text: str
    is_raised: bool = False

    def __str__(self) -> str:
        return f"{self.checker}: {self.text}"


EXCEPTION: Final = "exception"
"""What a failure is called when the product raised instead: it may be a fault as well, but no check has found it."""
