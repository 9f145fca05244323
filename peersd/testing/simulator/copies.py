"""What is known of the other devices' copies of a group: performs the effects of the book of beacons (see peersd.node.copies)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from peersd.testing.simulator.schedule import Schedule
from peersd_protocol.beacons import BeaconBook, Effect, Keep, Send, compact_holdings
from peersd_protocol.tokens import vector_digest
from peersd_protocol.vectors import Vector, encode_vector

if TYPE_CHECKING:
    from peersd.testing.simulator.device import Process
    from peersd.testing.simulator.replica import Replica
    from peersd.testing.simulator.session import Session


def digest_of(group: bytes, vector: Vector) -> bytes:
    """The digest of a vector, as OPEN, ACCEPT and beacons state it."""
    return vector_digest(group, encode_vector(vector))


class Copies:
    """The beacons of one group.

    Args:
        schedule: of the simulation.
        process: whose replica it is.
        replica: the group on this device.

    Attributes:
        book: the machine.
    """

    def __init__(self, schedule: Schedule, process: Process, replica: Replica) -> None:
        self._schedule = schedule
        self._process = process
        self._replica = replica
        self._kept = process.notes.beacons.setdefault(replica.group, {})
        self._is_due = False
        self._timer_ms = 0
        self.book = BeaconBook(replica.group, process.device_id, self._kept.values())
        self.set_members()

    def set_members(self) -> None:
        """The members may have changed."""
        self._perform(self.book.set_members(self._replica.state.member_devices, self._schedule.now_ms))
        self.publish_soon()

    # --- Sessions ---------------------------------------------------------------------------------------------------------------

    def session_opened(self, session: Session, remote_summary: bytes) -> None:
        """A channel was accepted; `remote_summary` are the 8 bytes that its other side stated."""
        self._perform(self.book.session_opened(session.id, session.device, remote_summary, self._schedule.now_ms))

    def session_closed(self, session: Session) -> None:
        """A channel is over."""
        self.book.session_closed(session.id)

    def receive(self, session: Session, message: bytes) -> None:
        """Takes a message about beacons."""
        self._schedule.note(self._process.name, f"{self._replica.name} session {session.id} beacons {len(message)} bytes")
        self._perform(self.book.receive(session.id, message, self._schedule.now_ms))

    def message_sent(self, session: Session) -> None:
        """The channel has taken what was posted."""
        self._perform(self.book.message_sent(session.id, self._schedule.now_ms))

    # --- This device's own ------------------------------------------------------------------------------------------------------

    def publish_soon(self) -> None:
        """This device's beacon may have something new to say."""
        if not self._is_due:
            self._is_due = True
            self._replica.soon(self._publish)

    def _publish(self) -> None:
        self._is_due = False
        members, process = self._replica.state.member_devices, self._process
        if process.device_id not in members or len(members) < 2:
            return
        vector = self._replica.vector()
        digest, holdings = digest_of(self._replica.group, vector), compact_holdings(vector)
        key = process.keys.signing
        self._perform(self.book.publish([process.url], digest, holdings, self._schedule.now_ms, process.wall_ms(), key))

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                session = self._replica.find_session(effect.session)
                if session is not None:
                    session.post_beacons(effect.message)
            elif isinstance(effect, Keep):
                self._kept[effect.beacon.device] = effect.beacon
                self._process.addresses_learned(effect.beacon.device, effect.beacon.addresses)
            else:
                self._set_timer(effect.at_ms)

    def _set_timer(self, at_ms: int) -> None:
        self._timer_ms = at_ms

        def expire() -> None:
            if self._replica.is_alive and self._timer_ms == at_ms:
                self._perform(self.book.timer_expired(self._schedule.now_ms))
                self.publish_soon()

        self._schedule.at(at_ms, expire)

    # --- For the checks ---------------------------------------------------------------------------------------------------------

    def wrong_about(self, devices: Iterable[bytes], digest: bytes) -> bool:
        """Whether of any of these devices something else is known than that it holds what has this digest."""
        return any(self.book.digest_of(device) != digest for device in devices)
