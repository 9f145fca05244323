"""Channels without a link, for the tests of sessions: whole messages over a pipe that may be stopped."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import trio

from peersd.sync.group_sync import ChannelClosed
from peersd_protocol.errors import CloseCode
from peersd_protocol.messages import Message, decode_message


class PipeEnd:
    """One side of a pipe.

    Attributes:
        sent: what left on this side.
        in_order: those of it that stay behind the bulk of the channel, or are bulk.
        closed: the code that this side closed with.
        takes: set while `send` returns at once; replaced, it holds everything up.
    """

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.in_order: list[Message] = []
        self.closed: CloseCode | None = None
        self.takes = trio.Event()
        self.takes.set()
        self.peer: PipeEnd
        self._inbox: deque[bytes] = deque()
        self._changed = trio.Event()
        self._is_over = False

    async def send(self, message: bytes, *, bulk: bool = False, in_order: bool = False) -> None:
        await trio.lowlevel.checkpoint()
        await self.takes.wait()
        if not self.send_nowait(message, bulk=bulk, in_order=in_order):
            raise ChannelClosed

    def send_nowait(self, message: bytes, *, bulk: bool = False, in_order: bool = False) -> bool:
        if self._is_over or not self.takes.is_set():
            return False
        self.sent.append(decode_message(message))
        if bulk or in_order:
            self.in_order.append(self.sent[-1])
        self.peer._inbox.append(message)
        self.peer._wake()
        return True

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._inbox:
            if self._is_over:
                raise ChannelClosed
            self._changed = trio.Event()
            await self._changed.wait()
        return self._inbox.popleft()

    def receive_nowait(self) -> bytes | None:
        return self._inbox.popleft() if self._inbox else None

    def close(self, code: CloseCode) -> None:
        self.closed = self.closed or code
        self._is_over = self.peer._is_over = True
        self._inbox.clear()
        for end in (self, self.peer):
            end._wake()
            end.takes.set()

    def _wake(self) -> None:
        self._changed.set()


def open_pipe() -> tuple[PipeEnd, PipeEnd]:
    one, other = PipeEnd(), PipeEnd()
    one.peer, other.peer = other, one
    return one, other


async def until(is_so: Callable[[], bool], changed: Callable[[], Awaitable[None]]) -> None:
    """Returns once something is so; looks whenever `changed` returns."""
    with trio.fail_after(30):
        while not is_so():
            await changed()
