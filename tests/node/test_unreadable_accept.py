"""An ACCEPT that cannot be read leaves no channel behind."""

from __future__ import annotations

from pathlib import Path

from peersd.net.channels import Channel, LinkHandle
from peersd.node.device_file import load_device
from peersd.testing.processes import HANG_S
from peersd_protocol.devicekeys import DeviceKeys
from peersd_protocol.errors import CloseCode
from tests.net.link_peers import Peer, running
from tests.node.two_nodes import Two, open_ada, open_ben, until


class Garbler(Peer):
    """A device that accepts every channel with bytes that are no payload of ACCEPT, and sends nothing on it."""

    def __init__(self, keys: DeviceKeys) -> None:
        super().__init__(keys)
        self.accepted: list[Channel] = []

    async def serve(self, handle: LinkHandle) -> None:
        """See Links."""
        handle.serving.set()
        async for wish in handle.incoming:
            self.accepted.append(wish.accept(b"\xff"))


async def test_a_channel_whose_accept_cannot_be_read_is_closed_on_both_sides(tmp_path: Path) -> None:
    async with open_ada(tmp_path) as ada:
        async with open_ben(tmp_path) as ben:
            two = Two(ada, ben)
            await two.link()
            await two.share("one")
            await two.rest()
        await until(lambda: not ada.sharings)
        device = load_device(tmp_path / "ben")
        assert device is not None
        async with running(Garbler(device.keys)) as garbler:
            assert isinstance(garbler, Garbler)
            await garbler.links.connect(ada.listen_urls[0], None, HANG_S)
            await until(lambda: bool(garbler.accepted))
            (handle,) = ada.sharings
            await until(lambda: garbler.accepted[0].closed is CloseCode.MALFORMED)
            assert garbler.accepted[0].number not in handle.channels
