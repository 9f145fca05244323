"""What is known of the other devices' copies of a group: what sessions and beacons state, when they were equal (DESIGN 9)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import trio

from peersd.errors import PeersdError
from peersd.monotonic import monotonic_ms
from peersd.node.environment import Environment
from peersd.node.summary import digest_of
from peersd.store.local_state import LocalState, View
from peersd.sync.group_sync import GroupSync
from peersd_protocol import ids
from peersd_protocol.beacons import Beacon, BeaconBook, Effect, Holding, Keep, Send, compact_holdings, lag
from peersd_protocol.signing import SigningKey
from peersd_protocol.vectors import Vector

_log = logging.getLogger("peersd.node")


@dataclass
class DeviceView:
    """What is known of a device's copy of a group.

    Attributes:
        last_equal_ms: when it was last known to hold exactly what this device held, milliseconds since 1970.
        last_seen_ms: when a session with it last ran.
    """

    last_equal_ms: int | None = None
    last_seen_ms: int | None = None


@dataclass(frozen=True)
class KeptCopies:
    """What node.db keeps of the other devices' copies of a group.

    Attributes:
        beacons: their last ones.
        views: by device id.
    """

    beacons: Sequence[Beacon] = ()
    views: Mapping[bytes, View] = field(default_factory=dict)


def load_copies(local: LocalState, group_id: bytes) -> KeptCopies:
    """Reads what is kept of a group's copies; to be called in a thread."""
    return KeptCopies(local.load_beacons(group_id), local.load_views(group_id))


class CopiesHost(Protocol):
    """What the copies of a group need of the node."""

    environment: Environment
    local: LocalState

    def wall_ms(self) -> int:
        """The wall clock."""
        ...

    def own_device(self) -> bytes:
        """This device's id."""
        ...

    def own_addresses(self) -> tuple[str, ...]:
        """The addresses that this device's beacons state."""
        ...

    def signing_key(self) -> SigningKey:
        """This device's key."""
        ...

    def nursery(self) -> trio.Nursery:
        """Where timers run."""
        ...

    def addresses_learned(self, device: bytes, urls: Sequence[str]) -> None:
        """A beacon stated where a device can be reached."""
        ...


class Copies:
    """The other devices' copies of one group, and what this one states of its own; runs the machine of its beacons.

    Args:
        host: the node.
        group_id: of the group.
        members: the live devices of its members.
        kept: what was kept of them.
        post: called with a lane's number and a message about beacons for it.
        is_open: whether the group's store is open, so that `run_publishing` runs.

    Attributes:
        book: the beacons.
        views: by device id.
    """

    def __init__(
        self,
        host: CopiesHost,
        group_id: bytes,
        members: Collection[bytes],
        kept: KeptCopies,
        post: Callable[[int, bytes], None],
        is_open: Callable[[], bool],
    ) -> None:
        self._host = host
        self._group_id = group_id
        self._members = members
        self._post = post
        self._is_open = is_open
        self._publish_due = trio.Event()
        self._timer_ms: int | None = None
        self._timer_changed = trio.Event()
        self._is_timing = False
        self._held: tuple[bytes, Sequence[Holding]] | None = None
        self.book = BeaconBook(group_id, host.own_device(), kept.beacons)
        self.views = {device: DeviceView(*view) for device, view in kept.views.items()}
        self._unsaved_beacons: dict[bytes, Beacon] = {}
        self._unsaved_views: set[bytes] = set()
        self.set_members(members)

    def view(self, device: bytes) -> DeviceView:
        """What is known of a device's copy."""
        return self.views.setdefault(device, DeviceView())

    def note_equal(self, device: bytes) -> None:
        """A device is known to hold exactly what this one holds."""
        view = self.view(device)
        view.last_equal_ms = view.last_seen_ms = self._host.wall_ms()
        self._unsaved_views.add(device)

    def note_seen(self, device: bytes) -> None:
        """A session with a device runs, or has just ended."""
        self.view(device).last_seen_ms = self._host.wall_ms()
        self._unsaved_views.add(device)

    async def save(self) -> None:
        """Writes what was learned since the last time to node.db; what cannot be written now waits for the next time."""
        beacons, self._unsaved_beacons = self._unsaved_beacons, {}
        seen, self._unsaved_views = self._unsaved_views, set()
        views = [(device, self.view(device).last_equal_ms, self.view(device).last_seen_ms) for device in seen]
        try:
            if beacons:
                await self._host.environment.threads.run(self._host.local.save_beacons, self._group_id, list(beacons.values()))
            if views:
                await self._host.environment.threads.run(self._host.local.save_views, self._group_id, views)
        except PeersdError as error:
            fields = {"group": ids.format_id(ids.GROUP, self._group_id), "reason": error.message}
            _log.warning("copies_not_saved", extra={"fields": fields})
            self._unsaved_beacons = {**beacons, **self._unsaved_beacons}
            self._unsaved_views |= seen

    # --- What others hold -------------------------------------------------------------------------------------------------------

    def covers(self, device: bytes, vector: Vector, sync: GroupSync) -> bool:
        """Whether a device is known to hold durably all that `vector` names."""
        session = sync.devices().get(device)
        if session is not None:
            return sync.covers(session, vector)
        return not lag(self.book.holdings_of(device), vector)

    def durable_vector(self, device: bytes, sync: GroupSync) -> Vector:
        """What a device is known to hold durably.

        What it said in its session counts, and what it stated in its beacon where it has none.
        """
        durable = sync.durable_vector(device)
        if device not in sync.devices():
            beyond = dict(lag(self.book.holdings_of(device), sync.vector()))
            stated = {log: ((beyond[log] - 1, b""),) if log in beyond else tips for log, tips in sync.vector().items()}
            durable = {log: max(tips, durable.get(log, ())) for log, tips in stated.items()}
        return durable

    # --- Beacons ----------------------------------------------------------------------------------------------------------------

    def set_members(self, devices: Collection[bytes]) -> None:
        """The members' devices are these from now on."""
        self._members = devices
        self._perform(self.book.set_members(devices, monotonic_ms()))

    def lane_opened(self, lane: int, device: bytes, remote_summary: bytes) -> None:
        """A channel of the group was opened; `remote_summary` are the 8 bytes that its other side stated."""
        self._perform(self.book.session_opened(lane, device, remote_summary, monotonic_ms()))

    def lane_closed(self, lane: int) -> None:
        """A channel of the group is over."""
        self.book.session_closed(lane)

    def receive(self, lane: int, message: bytes) -> None:
        """Takes a message about beacons.

        Raises:
            RemoteProtocolError: the channel is to be closed with its code.
        """
        self._perform(self.book.receive(lane, message, monotonic_ms()))

    def message_sent(self, lane: int) -> None:
        """A lane has taken what was posted to it."""
        self._perform(self.book.message_sent(lane, monotonic_ms()))

    def beacon_due(self) -> None:
        """This device's beacon may have something new to say, such as where the device can be reached."""
        self._publish_due.set()
        if not self._is_open() and self._has_others():
            self._publish(None)

    def note_commit(self) -> None:
        """What is held may have changed."""
        # A beacon goes out once in seconds at most: most commits need not even wake who makes it.
        if not self.book.waits_to_publish:
            self._publish_due.set()

    def note_closed(self, vector: Vector) -> None:
        """The store was closed and holds `vector`: what a beacon says until it is opened again."""
        if self._has_others():
            self._publish(vector)

    async def run_publishing(self, sync: GroupSync) -> None:
        """Publishes this device's beacon whenever what it says may have changed, while the store is open."""
        self._publish_due.set()
        while True:
            await self._publish_due.wait()
            self._publish_due = trio.Event()
            if self._has_others() and not self.book.waits_to_publish:
                self._publish(sync.vector())

    def _has_others(self) -> bool:
        """Whether there is anybody to publish for, and this device is a member's."""
        return self._host.own_device() in self._members and len(self._members) > 1

    def _publish(self, vector: Vector | None) -> None:
        """Publishes this device's beacon if it has something new to say.

        Args:
            vector: what is held; None while the store is closed: what was held when it was closed, or what the last beacon says.
        """
        last = self.book.latest(self._host.own_device())
        if vector is not None:
            self._held = digest_of(self._group_id, vector), compact_holdings(vector)
        elif self._held is None and last is not None:
            self._held = last.digest, last.holdings
        if self._held is None:
            return
        host = self._host
        self._perform(self.book.publish(host.own_addresses(), *self._held, monotonic_ms(), host.wall_ms(), host.signing_key()))

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._post(effect.session, effect.message)
            elif isinstance(effect, Keep):
                self._keep(effect.beacon)
            else:
                self._timer_ms = effect.at_ms
                self._timer_changed.set()
                if not self._is_timing:
                    self._is_timing = True
                    self._host.nursery().start_soon(self._run_timer)

    def _keep(self, beacon: Beacon) -> None:
        self._unsaved_beacons[beacon.device] = beacon
        if beacon.device == self._host.own_device():
            return
        self._host.addresses_learned(beacon.device, beacon.addresses)
        if self.book.digest_of(self._host.own_device()) == beacon.digest:
            self.note_equal(beacon.device)

    async def _run_timer(self) -> None:
        """Waits while a timer is set."""
        while self._timer_ms is not None:
            self._timer_changed = trio.Event()
            with trio.move_on_at(self._timer_ms / 1000):
                await self._timer_changed.wait()
            now_ms = monotonic_ms()
            if self._timer_ms <= now_ms:
                self._timer_ms = None
                self._perform(self.book.timer_expired(now_ms))
                self.beacon_due()
        self._is_timing = False
