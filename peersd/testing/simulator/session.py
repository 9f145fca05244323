"""One session of a replica over a channel, as peersd.sync runs it: one message at a time, credit only when the store kept up."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from peersd_protocol.errors import CloseCode
from peersd_protocol.replication import Compare, Ingest, Locate, LookUp, SessionId

if TYPE_CHECKING:
    from peersd.testing.simulator.replica import Replica

StoreJob = Ingest | Compare | Locate | LookUp


class SessionChannel(Protocol):
    """What a session needs of a channel."""

    remote: str

    def send(self, message: bytes, *, bulk: bool) -> None:
        """Queues a message."""

    def is_full(self) -> bool:
        """Whether `send` has to wait for Writable."""
        ...

    def want(self) -> None:
        """The session waits for a message."""

    def consumed(self, message: bytes) -> None:
        """The session took a message."""

    def close(self, code: CloseCode) -> None:
        """Closes the channel."""


class Session:
    """A session. Everything it does is an event of its own, so that sessions overtake each other."""

    def __init__(self, replica: Replica, channel: SessionChannel, number: SessionId) -> None:
        self.id = number
        self.channel = channel
        self.outbox: deque[tuple[bytes, bool]] = deque()
        self.jobs: deque[StoreJob] = deque()
        self.is_due = False
        self.readable = False
        self.is_over = False
        self._replica = replica
        self._inbox: deque[bytes] = deque()
        self._is_working = False
        self._is_sending = False
        self._is_taking = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued here."""
        return not (self.jobs or self.outbox or self.is_due or self.readable or self._inbox)

    # --- Receiving --------------------------------------------------------------------------------------------------------------

    def push(self, message: bytes) -> None:
        """A message came over the channel."""
        self._inbox.append(message)
        self.take_soon()

    def take_soon(self) -> None:
        """Takes the next message in a moment, unless one is being worked on."""
        if self._is_taking or self.is_over or self.jobs:
            return
        if not self._inbox:
            self.channel.want()
            return
        self._is_taking = True
        self._replica.soon(self._take, slow=0.05)

    def _take(self) -> None:
        self._is_taking = False
        if self.is_over:
            return
        message = self._inbox.popleft()
        self.channel.consumed(message)
        self._replica.receive(self, message)
        self.take_soon()

    # --- What the store does for it ---------------------------------------------------------------------------------------------

    def add_job(self, job: StoreJob) -> None:
        """Queues something for the store."""
        self.jobs.append(job)
        self._work()

    def _work(self) -> None:
        if self._is_working or not self.jobs or self.is_over:
            return
        self._is_working = True
        self._replica.run_job(self, self.jobs[0], self._worked)

    def _worked(self) -> None:
        self._is_working = False
        if self.is_over:
            return
        self.jobs.popleft()
        self._work()
        self.take_soon()

    # --- Sending ----------------------------------------------------------------------------------------------------------------

    def send_soon(self) -> None:
        """Sends what is queued, and reads more if there is more."""
        if not self._is_sending and not self.is_over:
            self._is_sending = True
            self._replica.soon(self._send)

    def _send(self) -> None:
        self._is_sending = False
        if self.is_over:
            return
        while self.outbox or self.is_due:
            if self.channel.is_full():
                return  # Writable calls again
            if not self.outbox:
                self.is_due = False
                self.outbox.extend((message, False) for message in self._replica.take_due(self))
                continue
            message, bulk = self.outbox.popleft()
            self.channel.send(message, bulk=bulk)
        if self.readable:
            self.readable = False
            self._is_sending = self._replica.read_for(self, self._read_done)

    def _read_done(self) -> None:
        self._is_sending = False
        self.send_soon()

    def end(self, code: CloseCode = CloseCode.NORMAL) -> None:
        """Ends the session."""
        if not self.is_over:
            self.is_over = True
            self.channel.close(code)
            self._replica.session_over(self)
