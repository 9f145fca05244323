"""The network between the devices: addresses that are dialled, partitions and delays, and the count of links that a pair has."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from peersd.testing.checkers import Checker
from peersd.testing.simulator.frames import Frames
from peersd.testing.simulator.schedule import Schedule
from peersd.testing.simulator.wire import WireEnd, make_wire

if TYPE_CHECKING:
    from peersd.testing.simulator.device import SimulatedDevice


class Network:
    """Where devices are reached.

    Args:
        schedule: of the simulation.
        links_max: what each device is configured with; 0 where links come about by chance.
        groups: the names of all groups.

    Attributes:
        frames: what is looked for in what is sent.
        is_troubled: whether dials fail now and then though the device is up.
        links_max: see above.
        grown_ms: when that was raised; 0 if it was not.
        noticed_ms: when a device last noticed that a link was dead.
    """

    def __init__(self, schedule: Schedule, links_max: int, groups: Iterable[str]) -> None:
        self._schedule = schedule
        self.frames = Frames(schedule, groups)
        self._devices: dict[str, SimulatedDevice] = {}
        self._links: dict[tuple[str, str], int] = {}
        self._wires: list[WireEnd] = []
        self._blocked: dict[tuple[str, str], int] = {}
        self._slowed: dict[tuple[str, str], tuple[int, int]] = {}
        self._held_up: list[Callable[[], None]] = []
        self._dials = schedule.stream("dials")
        self.is_troubled = True
        self.links_max = links_max
        self.grown_ms = 0
        self.noticed_ms = 0

    def grow(self, links_max: int) -> None:
        """All devices may have more links."""
        self.links_max, self.grown_ms = links_max, self._schedule.now_ms

    @property
    def is_mesh(self) -> bool:
        """Whether the devices choose their links themselves."""
        return self.links_max > 0

    # --- Who is where -----------------------------------------------------------------------------------------------------------

    def add(self, devices: Iterable[SimulatedDevice]) -> None:
        """The devices that there are."""
        self._devices.update({device.url: device for device in devices})

    def find(self, url: str) -> SimulatedDevice:
        """Whose address it is."""
        return self._devices[url]

    def url_of(self, device: bytes) -> str:
        """Where a device is."""
        return next(url for url, known in self._devices.items() if known.device_id == device)

    def reach(self, dialler: SimulatedDevice, url: str) -> WireEnd | None:
        """Makes a wire to whoever is at an address, and has it served there; None if nobody answers now."""
        remote = self._devices[url]
        names = dialler.name, remote.name
        is_lost = self.is_troubled and self._dials.random() < 0.1
        if remote.peer is None or is_lost or self.is_blocked(*names) or self.is_blocked(*reversed(names)):
            return None
        wire_number = self._schedule.next_number("wire", *names)
        near, far = make_wire(self._schedule, self, self._schedule.stream("wire", *names, wire_number), names)
        self._wires = [wire for wire in self._wires if not wire.is_over] + [near, far]
        remote.peer.serve(dialler, far)
        return near

    # --- What goes wrong --------------------------------------------------------------------------------------------------------

    def block(self, senders: Collection[str], receivers: Collection[str], for_ms: int) -> None:
        """Nothing comes through from some devices to others for a while."""
        until_ms = self._schedule.now_ms + for_ms
        for pair in ((sender, receiver) for sender in senders for receiver in receivers if sender != receiver):
            self._blocked[pair] = max(until_ms, self._blocked.get(pair, 0))
        self._schedule.at(until_ms, self._let_through)

    def slow_down(self, pair: tuple[str, str], delay_ms: int, for_ms: int) -> None:
        """Messages between two devices are slower for a while, both ways."""
        for names in (pair, pair[::-1]):
            self._slowed[names[0], names[1]] = delay_ms, self._schedule.now_ms + for_ms

    def heal(self) -> None:
        """Nothing fails any more, and everything comes through."""
        self.is_troubled = False
        self._blocked.clear()
        self._slowed.clear()
        self._let_through()

    def _let_through(self) -> None:
        events, self._held_up = self._held_up, []
        for event in events:
            event()

    def delay_ms(self, sender: str, receiver: str) -> int:
        """See Ether."""
        delay_ms, until_ms = self._slowed.get((sender, receiver), (0, 0))
        return delay_ms if self._schedule.now_ms < until_ms else 0

    def is_blocked(self, sender: str, receiver: str) -> bool:
        """See Ether."""
        return self._schedule.now_ms < self._blocked.get((sender, receiver), 0)

    def when_open(self, event: Callable[[], None]) -> None:
        """See Ether."""
        self._held_up.append(event)

    def note_sent(self, sender: str, receiver: str, sent: bytes) -> None:
        """See Ether."""
        self.frames.check_wire(sender, receiver, sent)

    def note_noticed(self) -> None:
        """See Ether."""
        self.noticed_ms = self._schedule.now_ms

    @property
    def has_dead_links(self) -> bool:
        """Whether some device has a link that is dead and that it has not noticed yet."""
        return any(wire.is_dead for wire in self._wires)

    # --- For the checks ---------------------------------------------------------------------------------------------------------

    def note_link(self, device: str, remote: str, change: int) -> None:
        """A device has one link more, or less, that may carry channels.

        Raises:
            SimulationFailed: it has two to the same device.
        """
        count = self._links[device, remote] = self._links.get((device, remote), 0) + change
        if not 0 <= count <= 1:
            raise self._schedule.fail(Checker.ONE_LINK, f"{device} has {count} links to {remote}")
