"""Looking at a plea that follows an OPEN, as peersd.node.sharing does (SPEC: O-14)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from peersd.store.store import Commit
from peersd.testing.simulator.link_end import LinkEnd
from peersd.testing.simulator.proving import Proving
from peersd.testing.simulator.replica import Replica

if TYPE_CHECKING:
    from peersd.testing.simulator.device import Process

Weighed: TypeAlias = tuple[bool, list[bytes]]
"""Whether something of a plea was taken, and else what is to be said against it."""


class Weighing(Proving[Weighed]):
    """One plea that this side looks at; see Proving."""

    def __init__(self, end: LinkEnd, channel: int, process: Process, replica: Replica) -> None:
        super().__init__(end, channel, process, replica, withdrawn=(False, []))

    def _look_at(self, message: bytes) -> None:
        if not message:
            self._decide((False, []))
            return
        self._replica.call("weigh", lambda: self._replica.store.take_plea(message, self._end.remote_device), self._taken)

    def _taken(self, taken: tuple[Commit | None, list[bytes]]) -> None:
        commit, rebuttal = taken
        self._replica.tell(commit)
        self._decide((commit is not None, rebuttal))
