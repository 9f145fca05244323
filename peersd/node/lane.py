"""A linked device's channel of a group: beacons are taken out of it, the rest is for a session once the store is open."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress

import trio

from peersd.sync.group_sync import Channel, ChannelClosed
from peersd_protocol.beacons import is_beacon_message
from peersd_protocol.errors import CloseCode


class Lane:
    """One channel of a group.

    Args:
        number: names it within its group, never used twice.
        device: the remote device's id.
        channel: the accepted channel.
        take_beacons: called with `number` and each message about beacons; may raise RemoteProtocolError.
        beacons_sent: called with `number` whenever the channel has taken what `post` gave.

    Attributes:
        is_dormant: whether both sides hold the same and the store need not be open for it.
    """

    def __init__(
        self,
        number: int,
        device: bytes,
        channel: Channel,
        take_beacons: Callable[[int, bytes], None],
        beacons_sent: Callable[[int], None],
    ) -> None:
        self.number = number
        self.device = device
        self.is_dormant = False
        self._channel = channel
        self._take_beacons = take_beacons
        self._beacons_sent = beacons_sent
        self._kept: deque[bytes] = deque()
        self._posted: bytes | None = None
        self._has_posted = trio.Event()

    async def send(self, message: bytes, *, bulk: bool = False, in_order: bool = False) -> None:
        """See GroupSync."""
        await self._channel.send(message, bulk=bulk, in_order=in_order)

    def send_nowait(self, message: bytes, *, bulk: bool = False, in_order: bool = False) -> bool:
        """See GroupSync."""
        return self._channel.send_nowait(message, bulk=bulk, in_order=in_order)

    async def receive(self) -> bytes:
        """The next message that is not about beacons; see GroupSync."""
        while True:
            if not self._kept:
                self._kept.append(await self._channel.receive())
            # A message that came in the moment in which its session is suspended is kept for the next one.
            await trio.lowlevel.checkpoint_if_cancelled()
            message = self.receive_nowait()
            if message is not None:
                return message

    def receive_nowait(self) -> bytes | None:
        """The same, if it is here and none about beacons before it, which is taken first; see GroupSync."""
        message = self._kept.popleft() if self._kept else self._channel.receive_nowait()
        if message is None or not is_beacon_message(message):
            return message
        self._take_beacons(self.number, message)
        return None

    def close(self, code: CloseCode) -> None:
        """See GroupSync."""
        self._channel.close(code)

    async def wait_message(self) -> None:
        """Returns when a message for the session is there."""
        self._kept.append(await self.receive())

    def post(self, message: bytes) -> None:
        """Sends a message about beacons; the next only after `beacons_sent`."""
        assert self._posted is None
        self._posted = message
        self._has_posted.set()

    async def run_beacons(self) -> None:
        """Sends what is posted, until the channel is closed."""
        with suppress(ChannelClosed):
            while True:
                await self._has_posted.wait()
                self._has_posted = trio.Event()
                message, self._posted = self._posted, None
                assert message is not None
                await self._channel.send(message, bulk=False)
                self._beacons_sent(self.number)
