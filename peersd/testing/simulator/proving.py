"""What follows an OPEN and is looked at before that is answered: awaited, and decided once (SPEC: O-11, O-16)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from peersd.testing.simulator.link_end import LinkEnd
from peersd.testing.simulator.replica import Replica
from peersd_protocol.constants import HANDSHAKE_TIMEOUT_MS
from peersd_protocol.errors import CloseCode

if TYPE_CHECKING:
    from peersd.testing.simulator.device import Process

T = TypeVar("T")


class Proving(ABC, Generic[T]):
    """One such message that this side looks at.

    Args:
        end: the link.
        channel: the OPEN.
        process: who looks.
        replica: of the group.
        withdrawn: what is decided where the remote side withdraws the OPEN before anything came.
    """

    def __init__(self, end: LinkEnd, channel: int, process: Process, replica: Replica, *, withdrawn: T) -> None:
        self._end = end
        self._channel = channel
        self._process = process
        self._replica = replica
        self._withdrawn = withdrawn
        self._message: bytes | None = None
        self._decided: Callable[[T], None] | None = None

    @property
    def group_name(self) -> str:
        """See ChannelUser."""
        return self._replica.name

    def push(self, message: bytes) -> None:
        """The message came."""
        self._end.perform(self._end.machine.consumed(self._channel, len(message), self._end.now_ms))
        self._message = message
        self._look()

    def send_soon(self) -> None:
        """Nothing is sent before the answer."""

    def note_closed(self, code: CloseCode) -> None:
        """The remote side withdrew. What came is looked at all the same."""
        if self._message is None:
            self._decide(self._withdrawn)

    def end(self, code: CloseCode) -> None:
        """The link is over."""
        self._decided = None

    def begin(self, decided: Callable[[T], None]) -> None:
        """Looks at what comes; `decided` is told once."""
        self._decided = decided
        self._end.perform(self._end.machine.want(self._channel, self._end.now_ms))
        self._process.later(HANDSHAKE_TIMEOUT_MS, self._wait_no_more)
        self._look()

    def _wait_no_more(self) -> None:
        if self._message is None:
            self._message = b""
            self._look()

    def _look(self) -> None:
        if self._message is not None and self._decided is not None:
            self._look_at(self._message)

    @abstractmethod
    def _look_at(self, message: bytes) -> None:
        """Has the store decide about the message; an empty one if none came in time."""

    def _decide(self, verdict: T) -> None:
        decided, self._decided = self._decided, None
        if decided is not None:
            decided(verdict)
