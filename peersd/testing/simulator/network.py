"""The network between the devices: addresses that are dialled, and the count of links that a pair has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from peersd.testing.simulator.schedule import Schedule

if TYPE_CHECKING:
    from peersd.testing.simulator.device import SimulatedDevice


class Network:
    """Where devices are reached.

    Args:
        schedule: of the simulation.

    Attributes:
        is_troubled: whether dials fail now and then though the device is up.
        links_max: what each device is configured with; 0 where links come about by chance.
        has_grown: whether that was raised.
    """

    def __init__(self, schedule: Schedule, links_max: int) -> None:
        self._schedule = schedule
        self._devices: dict[str, SimulatedDevice] = {}
        self._links: dict[tuple[str, str], int] = {}
        self.is_troubled = True
        self.links_max = links_max
        self.has_grown = False

    def grow(self, links_max: int) -> None:
        """All devices may have more links."""
        self.links_max, self.has_grown = links_max, True

    @property
    def is_mesh(self) -> bool:
        """Whether the devices choose their links themselves."""
        return self.links_max > 0

    def add(self, devices: Iterable[SimulatedDevice]) -> None:
        """The devices that there are."""
        self._devices.update({device.url: device for device in devices})

    def find(self, url: str) -> SimulatedDevice:
        """Whose address it is."""
        return self._devices[url]

    def url_of(self, device: bytes) -> str:
        """Where a device is."""
        return next(url for url, known in self._devices.items() if known.device_id == device)

    def is_answered(self, url: str) -> bool:
        """Whether a dial comes to a transport now."""
        is_lost = self.is_troubled and self._schedule.random.random() < 0.1
        return self._devices[url].process is not None and not is_lost

    def note_link(self, device: str, remote: str, change: int) -> None:
        """A device has one link more, or less, that may carry channels.

        Raises:
            SimulationFailed: it has two to the same device.
        """
        count = self._links[device, remote] = self._links.get((device, remote), 0) + change
        if not 0 <= count <= 1:
            raise self._schedule.fail(f"{device} has {count} links to {remote}")
