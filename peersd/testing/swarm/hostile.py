"""A device of a swarm that other code than the product's speaks for: it has a member's keys, and says what a test wants.

async with swarm.hostile("mal") as mal, mal.link("ada") as link:
    channel = await link.open(swarm.group_id(), [b"rubbish"])
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from random import Random
from typing import Final

from peersd.testing.forging import Rogue, open_rogue
from peersd.testing.swarm.device import Device
from peersd.testing.swarm.naming import check_known
from peersd.testing.swarm.network import VirtualNetwork
from peersd_protocol.devicekeys import DeviceKeys


class Hostile:
    """A device whose node has stopped. Made by `Swarm.hostile`.

    Args:
        device: which.
        names: of all devices.
        network: of the swarm.
        seed: of its chance.

    Attributes:
        device: see above; its folder has what the node left.
        keys: the device's.
        network: as a process on the device has it, for whoever wants to speak before the handshake.
    """

    def __init__(self, device: Device, names: Collection[str], network: VirtualNetwork, seed: int) -> None:
        keys = device.keys
        assert keys is not None, "a device of a swarm has a user"
        self.device: Final = device
        self.keys: Final[DeviceKeys] = keys
        self.network: Final = network.open_sockets(device.name)
        self._others = [name for name in names if name != device.name]
        self._url_of = network.url_of
        self._random = Random(f"{seed} hostile {device.name}")

    @asynccontextmanager
    async def link(self, name: str) -> AsyncGenerator[Rogue]:
        """A link to another device by this one's keys, after a good handshake.

        Raises:
            ValueError: there is no other device of that name.
            PeersdError, trio.TooSlowError: see open_rogue.
        """
        check_known("device", [name], self._others)
        async with open_rogue(self._url_of(name), self.keys, network=self.network, entropy=self._random.randbytes) as rogue:
            yield rogue
