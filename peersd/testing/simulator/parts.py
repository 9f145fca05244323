"""What a simulated device is made of and a simulation may replace: its disk, its clock, its entropy, all of it.

    class Deaf:
        def serve(self, remote, wire): ...

    run_seed(7, parts=Parts(peers={"c": lambda schedule, device: Deaf()}))

Here device c runs other code than the product's: it answers every dial, and never says a word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Protocol, TypeAlias

from peersd.testing.disks import FaultyDisk
from peersd.testing.simulator.disk import Disk
from peersd.testing.simulator.wall_clocks import SimulatedWallClock, WallClock
from peersd.testing.simulator.wire import WireEnd

if TYPE_CHECKING:
    from peersd.testing.simulator.device import SimulatedDevice
    from peersd.testing.simulator.schedule import Schedule

Entropy: TypeAlias = Callable[[int], bytes]


class Peer(Protocol):
    """What runs on a device and speaks frames: the product's code (`Process`), or anybody else's."""

    def serve(self, remote: SimulatedDevice, wire: WireEnd) -> None:
        """A device has dialled this one; `wire` is this one's end. It dials by `Network.reach`."""
        ...


MakePeer: TypeAlias = Callable[["Schedule", "SimulatedDevice"], Peer]


def _make_disk(name: str, folder: Path) -> Disk:
    return Disk(name, folder, FaultyDisk())


def _make_entropy(name: str, random: Random) -> Entropy:
    return random.randbytes


def _make_clock(name: str, now_ms: Callable[[], int], random: Random) -> WallClock:
    return SimulatedWallClock(now_ms, random)


@dataclass(frozen=True)
class Parts:
    """How the parts of devices are made. Each maker gets the device's name first.

    Attributes:
        disk: where its stores are opened, in a folder.
        clock: its wall clock, from virtual time and a source of randomness.
        entropy: what it draws keys, ids and nonces from.
        peers: devices by name that run other code than the product's. They have keys and an address, and are in no group.
    """

    disk: Callable[[str, Path], Disk] = _make_disk
    clock: Callable[[str, Callable[[], int], Random], WallClock] = _make_clock
    entropy: Callable[[str, Random], Entropy] = _make_entropy
    peers: Mapping[str, MakePeer] = field(default_factory=dict[str, MakePeer])
