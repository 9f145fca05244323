"""Admitting who redeems a ticket over a channel, as peersd.node.admission does (SPEC: O-11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from peersd.store.store import Commit
from peersd.testing.checkers import Checker
from peersd.testing.simulator.admitted import find_hindrance
from peersd.testing.simulator.entries import acts_of
from peersd.testing.simulator.link_end import LinkEnd
from peersd.testing.simulator.proving import Proving
from peersd.testing.simulator.replica import Replica
from peersd.testing.simulator.schedule import Schedule
from peersd_protocol.admission import NotAdmitted, Presented, find_admitting
from peersd_protocol.redemption import Redemption

if TYPE_CHECKING:
    from peersd.testing.simulator.device import Process

Verdict: TypeAlias = tuple[bool, str | None]
"""Whether the user is in, and else the reason that may be told, or None."""


class Admission(Proving[Verdict]):
    """One redemption that this side looks at.

    Args:
        schedule: of the simulation.
        end: the link.
        channel: the OPEN.
        process: who admits.
        replica: of the group.
        redemption: what OPEN carried.
    """

    def __init__(
        self, schedule: Schedule, end: LinkEnd, channel: int, process: Process, replica: Replica, redemption: Redemption
    ) -> None:
        super().__init__(end, channel, process, replica, withdrawn=(False, None))
        self._schedule = schedule
        self._presented = Presented(redemption, end.remote_device, end.handshake_hash)
        self._hindrance: str | None = None

    def begin(self, decided: Callable[[Verdict], None]) -> None:
        """Looks at the redemption; `decided` is told once."""
        try:
            find_admitting(self._replica.store.state, self._presented, self._process.device_id)
        except NotAdmitted as refusal:
            reason = refusal.reason
            self._decided = decided
            self._process.later(0, lambda: self._decide((False, reason)))  # the group may be gone by then
        else:
            super().begin(decided)

    def _look_at(self, message: bytes) -> None:
        self._replica.call("admit", lambda: self._admit(message), self._admitted)

    def _admit(self, message: bytes) -> tuple[list[Commit], NotAdmitted | None]:
        """What the store made durable, and why it let nobody in, unless it did."""
        store, wall_ms = self._replica.store, self._process.wall_ms()
        invite, user = self._presented.redemption.invite_hash, self._presented.redemption.user
        if not store.state.role_of(user):
            self._hindrance = find_hindrance(acts_of(store), store.state.standing, invite, user, wall_ms)
        commits: list[Commit] = []
        try:
            store.admit(self._presented, message, wall_ms, commits.append)
        except NotAdmitted as refusal:
            if refusal.fault is not None:
                raise refusal.fault from refusal  # of an honest device
            return commits, refusal
        return commits, None

    def _admitted(self, outcome: tuple[list[Commit], NotAdmitted | None]) -> None:
        commits, refusal = outcome
        if refusal is None and self._hindrance is not None:
            text = f"{self._process.name}: {self._end.remote} is let in by an invite to {self._replica.name}: {self._hindrance}"
            raise self._schedule.fail(Checker.AUTHORITY, text)
        for commit in commits:
            self._process.acknowledge(self._replica, commit)
        if refusal is not None:
            self._decide((False, refusal.reason))
            return
        self._schedule.note(self._process.name, f"{self._replica.name} admits {self._end.remote}")
        self._decide((True, None))
