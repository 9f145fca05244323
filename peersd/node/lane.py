"""A linked device's channel of a group: it sleeps while both sides hold the same, else has sessions; beacons are taken out."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from peersd.errors import PeersdError
from peersd.node.copies import Copies
from peersd.node.kept_store import KeptStore
from peersd.node.summary import Summary
from peersd.sync.group_sync import Channel, ChannelClosed
from peersd_protocol import ids
from peersd_protocol.beacons import is_beacon_message
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.replication import ParkingLot
from peersd_protocol.vectors import Vector

_log = logging.getLogger("peersd.node")

OPEN_AGAIN_S: Final = 1.0
"""Between two tries to open a file that another program holds, or that has no room (guess; each waits for a lock itself)."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What both sides of a channel stated to hold when it was opened: the same.

    Attributes:
        digest: of it.
        vector: it, where the store was open.
    """

    digest: bytes
    vector: Vector | None


class LaneGroup(Protocol):
    """What a lane needs of its group."""

    store: KeptStore
    copies: Copies
    summary: Summary

    def may_be_told(self, device: bytes) -> bool:
        """Whether a remote device may be told what is held here."""
        ...


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

    # --- Asleep, or in a session ------------------------------------------------------------------------------------------------

    async def serve(self, group: LaneGroup, lot: ParkingLot, stated: Stated | None) -> CloseCode:
        """Sleeps while both sides hold the same, and runs sessions else, until the channel closes.

        Args:
            group: its group.
            lot: shared by the sessions of one link.
            stated: what both sides stated to hold, if it was the same, else None.

        Returns:
            The code it closed with on this side's account.
        """
        has_failed = False
        while True:
            try:
                if not has_failed and stated is not None and group.store.is_at_rest and stated.digest == group.summary.digest:
                    await self._sleep(group)
                code = await self._run_session(group, lot, stated)
            except ChannelClosed:
                return CloseCode.NORMAL
            except RemoteProtocolError as error:
                group_text, device_text = ids.format_id(ids.GROUP, group.summary.group_id), ids.format_id(ids.DEVICE, self.device)
                fields = {"group": group_text, "device": device_text, "detail": error.detail}
                _log.warning("session closed for a fault of the remote side", extra={"fields": fields})
                return error.close_code
            except PeersdError as error:
                if not error.retry or group.store.is_ending:
                    return CloseCode.INTERNAL  # this group's file: other groups on the link go on
                has_failed = True
                await trio.sleep(OPEN_AGAIN_S)  # what the other side sent waits in the channel
                continue
            if code is not None:
                return code
            has_failed = False
            await group.store.settled()
            stated = Stated(group.summary.digest, None)

    async def _run_session(self, group: LaneGroup, lot: ParkingLot, stated: Stated | None) -> CloseCode | None:
        """Opens the store and runs a session; None if it was suspended.

        Not part of `serve`, which would keep the last store in memory while the lane sleeps.
        """
        opened = await group.store.open()
        equal_at = stated.vector if stated else None
        if stated is not None and stated.vector is None and stated.digest == opened.first_digest:
            equal_at = opened.first_vector
        is_told = group.may_be_told(self.device)
        return await opened.sync.run_session(self.device, self, lot, equal_at, is_told=is_told)

    async def _sleep(self, group: LaneGroup) -> None:
        """Returns when the other side has something to say, or the store was opened for another reason.

        Raises:
            ChannelClosed, RemoteProtocolError: the lane is over.
        """
        error: BaseException | None = None
        opened = group.store.next_opening  # of now: the store may be opened before `wake` runs for the first time
        self.is_dormant = True
        group.copies.note_equal(self.device)
        try:
            async with trio.open_nursery() as nursery:

                async def wake() -> None:
                    await opened.wait()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(wake)
                await self.wait_message()
                nursery.cancel_scope.cancel()
        except* (ChannelClosed, RemoteProtocolError) as errors:
            error = _only(errors)
        finally:
            self.is_dormant = False
            group.copies.note_equal(self.device)
        if error is not None:
            raise error


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error in a group, however deep."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
