"""A lane on a channel that is fed by hand: what is kept for the next session, and what goes to the beacons."""

from __future__ import annotations

from collections import deque

import pytest
import trio

from peersd.node.lane import Lane
from peersd.sync.group_sync import ChannelClosed
from peersd_protocol.beacon_messages import encode_counters
from peersd_protocol.errors import CloseCode

BEACONS = encode_counters({})


class FedChannel:
    """A channel whose messages a test puts in; as that of a link, it gives a message up only to who takes it."""

    def __init__(self) -> None:
        self.messages: deque[bytes] = deque()
        self.sent: list[bytes] = []
        self._changed = trio.Event()
        self._is_closed = False

    def push(self, *messages: bytes) -> None:
        self.messages.extend(messages)
        self._changed.set()
        self._changed = trio.Event()

    async def send(self, message: bytes, *, bulk: bool = False, in_order: bool = False) -> None:
        await trio.lowlevel.checkpoint()
        self.send_nowait(message, bulk=bulk, in_order=in_order)

    def send_nowait(self, message: bytes, *, bulk: bool = False, in_order: bool = False) -> bool:
        self.sent.append(message)
        return True

    async def receive(self) -> bytes:
        while not self.messages:
            if self._is_closed:
                raise ChannelClosed
            await self._changed.wait()
        return self.messages.popleft()

    def receive_nowait(self) -> bytes | None:
        return self.messages.popleft() if self.messages else None

    def close(self, code: CloseCode) -> None:
        self._is_closed = True
        self.push()


def make_lane(channel: FedChannel, taken: list[bytes] | None = None) -> Lane:
    return Lane(
        7, bytes(32), channel, lambda lane, message: (taken if taken is not None else []).append(message), lambda lane: None
    )


async def test_a_message_that_comes_in_the_moment_in_which_its_session_is_suspended_is_kept_for_the_next() -> None:
    channel = FedChannel()
    lane = make_lane(channel)
    received: list[bytes] = []
    scope = trio.CancelScope()

    async def receive() -> None:
        with scope:
            received.append(await lane.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        channel.push(b"first", b"second")
        scope.cancel()  # before the receiver has run: it wakes with a message in hand
    assert received == []
    with trio.fail_after(10):
        assert [await lane.receive(), await lane.receive()] == [b"first", b"second"]


async def test_what_wakes_a_lane_is_the_first_that_its_session_receives() -> None:
    channel, taken = FedChannel(), list[bytes]()
    lane = make_lane(channel, taken)
    channel.push(BEACONS, b"first", b"second")
    await lane.wait_message()
    assert taken == [BEACONS]
    assert [await lane.receive(), await lane.receive()] == [b"first", b"second"]
    channel.close(CloseCode.NORMAL)
    with pytest.raises(ChannelClosed):
        await lane.receive()


async def test_messages_about_beacons_are_sent_one_at_a_time_while_nothing_else_is() -> None:
    channel = FedChannel()
    sent: list[int] = []
    lane = Lane(7, bytes(32), channel, lambda number, message: None, sent.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lane.run_beacons)
        for number in range(1, 4):
            lane.post(BEACONS)
            await trio.testing.wait_all_tasks_blocked()
            assert (channel.sent, sent) == ([BEACONS] * number, [7] * number)
        nursery.cancel_scope.cancel()


async def test_of_beacons_that_wait_one_is_taken_at_a_time() -> None:
    channel, taken = FedChannel(), list[bytes]()
    lane = make_lane(channel, taken)
    channel.push(*[BEACONS] * 100, b"a message")
    assert lane.receive_nowait() is None
    assert (len(taken), len(channel.messages)) == (1, 100), "who takes no message gives others a turn"
    assert await lane.receive() == b"a message"
    assert len(taken) == 100
