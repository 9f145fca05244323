"""Looking at a plea that follows an OPEN, as peersd.node.sharing does (SPEC: O-14)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from peersd.store.store import Commit
from peersd.testing.simulator.link_end import LinkEnd
from peersd.testing.simulator.replica import Replica
from peersd_protocol.constants import HANDSHAKE_TIMEOUT_MS
from peersd_protocol.errors import CloseCode

if TYPE_CHECKING:
    from peersd.testing.simulator.device import Process

Weighed = Callable[[bool, "list[bytes]"], None]
"""Gets whether something of the plea was taken, and else what is to be said against it."""


class Weighing:
    """One plea that this side looks at.

    Args:
        end: the link.
        channel: the OPEN.
        process: who looks.
        replica: of the group.
    """

    def __init__(self, end: LinkEnd, channel: int, process: Process, replica: Replica) -> None:
        self._end = end
        self._channel = channel
        self._process = process
        self._replica = replica
        self._plea: bytes | None = None
        self._weighed: Weighed | None = None

    @property
    def group_name(self) -> str:
        """See ChannelUser."""
        return self._replica.name

    # --- What the link tells ----------------------------------------------------------------------------------------------------

    def push(self, message: bytes) -> None:
        """The plea came."""
        self._end.perform(self._end.machine.consumed(self._channel, len(message), self._end.now_ms))
        self._plea = message
        self._look()

    def send_soon(self) -> None:
        """Nothing is sent before the answer."""

    def note_closed(self, code: CloseCode) -> None:
        """The remote side withdrew."""
        self._tell()

    def end(self, code: CloseCode) -> None:
        """The link is over."""
        self._weighed = None

    # --- The decision -----------------------------------------------------------------------------------------------------------

    def begin(self, weighed: Weighed) -> None:
        """Looks at the plea; `weighed` is told once."""
        self._weighed = weighed
        self._end.perform(self._end.machine.want(self._channel, self._end.now_ms))
        self._process.later(HANDSHAKE_TIMEOUT_MS, self._tell)
        self._look()

    def _look(self) -> None:
        plea, sender = self._plea, self._end.remote_device
        if plea is not None and self._weighed is not None:
            self._replica.call("weigh", lambda: self._replica.store.take_plea(plea, sender), self._taken)

    def _taken(self, taken: tuple[Commit | None, list[bytes]]) -> None:
        commit, rebuttal = taken
        self._replica.tell(commit)
        self._tell(has_changed=commit is not None, rebuttal=rebuttal)

    def _tell(self, *, has_changed: bool = False, rebuttal: Sequence[bytes] = ()) -> None:
        weighed, self._weighed = self._weighed, None
        if weighed is not None:
            weighed(has_changed, list(rebuttal))
