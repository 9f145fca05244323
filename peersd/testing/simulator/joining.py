"""Joining a group: a ticket is redeemed at whichever member's device answers, as in peersd.node.joining (SPEC: O-10 to O-12)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from peersd.testing.simulator.link_end import LinkEnd
from peersd.testing.simulator.schedule import Schedule
from peersd.testing.simulator.sharing import Proof, Sharing
from peersd_protocol.constants import HANDSHAKE_TIMEOUT_MS
from peersd_protocol.lane_effects import LaneId
from peersd_protocol.messages import encode_runs
from peersd_protocol.tickets import Ticket, make_redemption

if TYPE_CHECKING:
    from peersd.testing.simulator.device import Process

JOINED = "joined"
"""How an attempt ends well; else it is the reason of a refusal."""

Done = Callable[[str | None], None]
"""Gets JOINED, the reason of a refusal, or None if nobody answered who could tell."""


class Joining:
    """One attempt to redeem a ticket: its addresses are tried in turn.

    Args:
        schedule: of the simulation.
        process: who joins.
        ticket: which.
        done: told how it ended, unless the process dies first.
    """

    def __init__(self, schedule: Schedule, process: Process, ticket: Ticket, done: Done) -> None:
        self._schedule = schedule
        self._process = process
        self._ticket = ticket
        self._done: Done | None = done
        self._left = list(ticket.addresses)
        self._is_new = False
        self._tries = 0
        self._looks = 0
        self._is_open = False
        self._remote = b""
        self._lane: tuple[Sharing, LaneId] | None = None

    def begin(self) -> None:
        """Begins."""
        group = self._ticket.group_id
        known = self._process.replicas.get(group)
        if known is not None and known.store.state.has_joined(self._process.user, self._ticket.invite_hash):
            self._finish(JOINED)
            return
        if known is None:
            self._is_new = True
            self._process.make_replica(self._ticket.group_name, group, is_registered=False)
        self._try_next()

    def look(self) -> None:
        """The group's acts have changed: the membership may have arrived. As long as any come, the attempt goes on."""
        replica = self._process.replicas.get(self._ticket.group_id)
        if not self._is_open or replica is None:
            return
        if self._has_joined() and self._process.known(replica, self._remote).may_be_told:
            self._finish(JOINED)
            return
        self._looks += 1
        now = self._tries, self._looks
        self._process.later(HANDSHAKE_TIMEOUT_MS, lambda: self._give_up() if (self._tries, self._looks) == now else None)

    def _give_up(self) -> None:
        """It was let in, and nothing that shows it, or by whom, has come for long."""
        assert self._lane is not None
        sharing, lane = self._lane
        self._tries += 1
        sharing.give_up(lane)
        self._go_on()

    def _go_on(self) -> None:
        """Nothing comes of this attempt; but others may have shown meanwhile that the user is in."""
        if self._done is not None and self._has_joined():
            self._finish(JOINED)
        else:
            self._try_next()

    def _has_joined(self) -> bool:
        replica = self._process.replicas.get(self._ticket.group_id)
        return replica is not None and replica.state.has_joined(self._process.user, self._ticket.invite_hash)

    def _try_next(self) -> None:
        self._tries += 1
        self._is_open = False
        if self._done is None:
            return
        if not self._left:
            self._finish(None)
            return
        url, attempt = self._left.pop(0), self._tries
        if url == self._process.url:
            self._try_next()
            return

        def found(end: LinkEnd | None) -> None:
            if attempt == self._tries:
                self._redeem(end) if end is not None else self._try_next()

        self._process.links.connect(url, found)

    def _redeem(self, end: LinkEnd) -> None:
        sharing = self._process.links.sharings.get(end)
        attempt, process, group = self._tries, self._process, self._ticket.group_id
        if sharing is None or end.is_over:
            self._try_next()
            return
        self._remote = end.remote_device
        identity = process.device.person.identity_runs
        redemption = make_redemption(
            self._ticket,
            device_key=process.keys.signing,
            user=process.user,
            identity_head_hash=identity[-1].last.hash,
            handshake_hash=end.handshake_hash,
        )
        self._schedule.note(process.name, f"{self._ticket.group_name} redeems a ticket at {end.remote}")

        def accepted() -> None:
            if attempt == self._tries:
                self._is_open = True
                self.look()

        def over(reason: str | None) -> None:
            if attempt != self._tries or self._done is None:
                return
            self._tries += 1
            if reason is not None:
                self._finish(reason)
            else:
                process.later(process.random.randint(0, 20), self._go_on)

        self._lane = sharing, sharing.join(group, Proof(redemption, encode_runs(identity), accepted, over))

    def _finish(self, outcome: str | None) -> None:
        self._tries += 1
        done, self._done = self._done, None
        assert done is not None
        if self._is_new and outcome != JOINED:
            # As in peersd.node.joining: members may have said in the meantime that the user is one of them.
            if self._process.replicas[self._ticket.group_id].state.role_of(self._process.user):
                outcome = JOINED
            else:
                self._process.discard(self._ticket.group_id)
        self._schedule.note(self._process.name, f"{self._ticket.group_name} join: {outcome or 'nobody let it in'}")
        done(outcome)
