"""Admitting who redeems a ticket over a channel, as peersd.node.admission does (SPEC: O-11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from peersd.errors import PeersdError
from peersd.store.store import Commit
from peersd.testing.checkers import Checker
from peersd.testing.simulator.admitted import find_hindrance
from peersd.testing.simulator.entries import acts_of
from peersd.testing.simulator.link_end import LinkEnd
from peersd.testing.simulator.proving import Proving
from peersd.testing.simulator.replica import Replica
from peersd.testing.simulator.schedule import Schedule
from peersd_protocol.acts import encode_body
from peersd_protocol.entries import Kind
from peersd_protocol.messages import Runs, decode_message, decode_runs
from peersd_protocol.redemption import Redemption, verify_redemption
from peersd_protocol.runs import Run

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
        proof: what OPEN carried.
    """

    def __init__(
        self, schedule: Schedule, end: LinkEnd, channel: int, process: Process, replica: Replica, proof: Redemption
    ) -> None:
        super().__init__(end, channel, process, replica, withdrawn=(False, None), late=(False, "invite_invalid"))
        self._schedule = schedule
        self._proof = proof
        self._hindrance: str | None = None

    def begin(self, decided: Callable[[Verdict], None]) -> None:
        """Looks at the redemption; `decided` is told once."""
        proof, end, state = self._proof, self._end, self._replica.store.state
        invite = state.invites.get(proof.invite_hash)
        device, handshake_hash = end.remote_device, end.handshake_hash
        is_good = verify_redemption(proof, group_id=self._replica.group, device=device, handshake_hash=handshake_hash)
        is_known = invite is not None and invite.public_key == proof.invite_public_key
        if not is_good or not is_known or not state.role_of(self._process.user):
            self._decided = decided
            self._process.later(0, lambda: self._decide((False, None)))  # the group may be gone by then
        else:
            super().begin(decided)

    def _look_at(self, message: bytes) -> None:
        packed = decode_message(message)
        runs = decode_runs(packed, self._replica.group) if isinstance(packed, Runs) else []
        self._replica.call("admit", lambda: self._admit(runs), self._admitted)

    def _admit(self, runs: list[Run]) -> str | list[Commit]:
        """Makes the user a member unless the rules forbid it; the reason if they do."""
        store, proof, end, wall_ms = self._replica.store, self._proof, self._end, self._process.wall_ms()
        refusal = store.state.invite_refusal(proof.invite_hash, proof.user, wall_ms)
        if refusal is not None:
            return refusal
        if not store.state.role_of(proof.user):
            self._hindrance = find_hindrance(acts_of(store), store.state.standing, proof.invite_hash, proof.user, wall_ms)
        commits = [store.take_runs(runs)]
        if not store.state.role_of(proof.user):
            act = proof.admit(end.remote_device, end.handshake_hash)
            try:
                commits.append(store.act(self._process.user, Kind.CONTROL, encode_body(act))[1])
            except PeersdError:
                return "invite_invalid"
        return [commit for commit in commits if commit is not None]

    def _admitted(self, outcome: str | list[Commit]) -> None:
        if isinstance(outcome, str):
            self._decide((False, outcome))
            return
        if self._hindrance is not None:
            text = f"{self._process.name}: {self._end.remote} is let in by an invite to {self._replica.name}: {self._hindrance}"
            raise self._schedule.fail(Checker.AUTHORITY, text)
        for commit in outcome:
            self._process.acknowledge(self._replica, commit)
        self._schedule.note(self._process.name, f"{self._replica.name} admits {self._end.remote}")
        self._decide((True, None))
