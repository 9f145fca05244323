"""Telling a former member's device why it gets nothing any more: acts, then CLOSE with NOT_MEMBER (SPEC: O-6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from peersd.testing.checkers import Checker
from peersd.testing.simulator.link_end import ChannelEnd
from peersd.testing.simulator.replica import Replica
from peersd.testing.simulator.schedule import Schedule
from peersd_protocol.entries import Kind
from peersd_protocol.errors import CloseCode
from peersd_protocol.messages import Block, Runs, decode_message, decode_runs

if TYPE_CHECKING:
    from peersd.testing.simulator.device import Process

TIMEOUT_MS: Final = 30_000
"""As in peersd.node.sharing."""


class Farewelling:
    """A farewell under way over an accepted channel.

    Args:
        schedule: of the simulation.
        process: who says it.
        replica: of the group.
        channel: the channel.
        messages: what is to be said.
    """

    def __init__(
        self, schedule: Schedule, process: Process, replica: Replica, channel: ChannelEnd, messages: Sequence[bytes]
    ) -> None:
        self._schedule = schedule
        self._name = process.name
        self._replica = replica
        self._channel = channel
        self._messages = list(messages)
        self._is_over = False
        self._check()
        process.later(TIMEOUT_MS, lambda: self.end(CloseCode.NOT_MEMBER))

    @property
    def group_name(self) -> str:
        """See ChannelUser."""
        return self._replica.name

    def push(self, message: bytes) -> None:
        """What the other side says is not looked at, and not taken."""

    def send_soon(self) -> None:
        """Sends as much as the channel takes, and closes it when all has left."""
        if self._is_over:
            return
        while self._messages:
            if self._channel.is_full():
                return
            self._channel.send(self._messages.pop(0), bulk=True)
        if self._channel.flush():
            self.end(CloseCode.NOT_MEMBER)

    def note_closed(self, code: CloseCode) -> None:
        """The other side does not wait for it."""
        self._channel.note_closed(code)
        self.end(code)

    def end(self, code: CloseCode) -> None:
        """Ends it."""
        if not self._is_over:
            self._is_over = True
            self._channel.close(code)

    def _check(self) -> None:
        """Nothing but acts is said, and they are enough to show who is told that it is over."""
        acts: set[bytes] = set()
        for packed in map(decode_message, self._messages):
            if isinstance(packed, Runs):
                headers = [entry.header for run in decode_runs(packed, self._replica.group) for entry in run.entries]
                if any(header.kind is Kind.DATA for header in headers):
                    raise self._schedule.fail(Checker.OUTSIDERS, f"{self._name}: a farewell of {self._replica.name} holds data")
                acts.update(header.hash for header in headers)
            elif not isinstance(packed, Block) or packed.entry_hash not in acts:
                raise self._schedule.fail(
                    Checker.OUTSIDERS, f"{self._name}: a farewell of {self._replica.name} holds {type(packed).__name__}"
                )
        if not self._replica.store.state.farewell(self._channel.remote_device) <= acts:
            raise self._schedule.fail(Checker.OUTSIDERS, f"{self._name}: a farewell of {self._replica.name} lacks acts")
