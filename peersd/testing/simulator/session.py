"""One session of a replica over a channel, as peersd.sync runs it: one message at a time, credit only when the store kept up."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from peersd.testing.simulator.link_end import ChannelEnd
from peersd_protocol.errors import CloseCode
from peersd_protocol.replication import Compare, Ingest, Locate, LookUp, SessionId

if TYPE_CHECKING:
    from peersd.testing.simulator.replica import Replica

StoreJob = Ingest | Compare | Locate | LookUp


class Session:
    """A session. Everything it does is an event of its own, so that sessions overtake each other."""

    def __init__(self, replica: Replica, channel: ChannelEnd, number: SessionId) -> None:
        self.id = number
        self.channel = channel
        self.device = channel.remote_device
        self.outbox: deque[tuple[bytes, bool, bool]] = deque()
        """Messages; whether they are bulk, and whether they stay behind it."""
        self.inbox: deque[bytes] = deque()
        self.jobs: deque[StoreJob] = deque()
        self.is_due = False
        self.readable = False
        self.is_over = False
        self._beacons: bytes | None = None
        self._replica = replica
        self._is_working = False
        self._is_sending = False
        self._is_taking = False

    @property
    def group_name(self) -> str:
        """See ChannelUser."""
        return self._replica.name

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued here."""
        return not (self.jobs or self.outbox or self.is_due or self.readable or self.inbox)

    # --- Receiving --------------------------------------------------------------------------------------------------------------

    def push(self, message: bytes) -> None:
        """A message came over the channel."""
        self.inbox.append(message)
        self.take_soon()

    def take_soon(self) -> None:
        """Takes the next message in a moment, unless one is being worked on."""
        if self._is_taking or self.is_over or self.jobs:
            return
        if self.inbox:
            self._is_taking = True
            self._replica.soon(self._take, slow=0.05)
        elif self.channel.closed is not None:
            self.end(self.channel.closed)
        else:
            self.channel.want()

    def _take(self) -> None:
        self._is_taking = False
        if self.is_over:
            return
        message = self.inbox.popleft()
        self.channel.consumed(message)
        self._replica.receive(self, message)
        self.take_soon()

    def note_closed(self, code: CloseCode) -> None:
        """The remote side closed the channel: what came before is still taken."""
        self.channel.note_closed(code)
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

    def post_beacons(self, message: bytes) -> None:
        """Sends a message about beacons; the next only when the replica was told that this one is sent."""
        assert self._beacons is None
        self._beacons = message
        self.send_soon()

    def send_soon(self) -> None:
        """Sends what is queued, and reads more if there is more."""
        if not self._is_sending and not self.is_over:
            self._is_sending = True
            self._replica.soon(self._send)

    def _send(self) -> None:
        self._is_sending = False
        if self.is_over:
            return
        while self.outbox or self.is_due or self._beacons is not None:
            if self.channel.closed is not None:
                return  # what came before that is taken all the same: it may be a farewell
            if self.channel.is_full():
                return  # Writable calls again
            if self._beacons is not None:
                message, self._beacons = self._beacons, None
                self._send_one(message, bulk=False)
                self._replica.copies.message_sent(self)
            elif self.outbox:
                message, bulk, in_order = self.outbox.popleft()
                self._send_one(message, bulk=bulk, in_order=in_order)
            else:
                self.is_due = False
                self.outbox.extend((message, False, False) for message in self._replica.take_due(self))
        if self.readable:
            self.readable = False
            self._is_sending = self._replica.read_for(self, self._read_done)

    def _send_one(self, message: bytes, *, bulk: bool, in_order: bool = False) -> None:
        self._replica.check_sending(self, message)
        self.channel.send(message, bulk=bulk, in_order=in_order)

    def _read_done(self) -> None:
        self._is_sending = False
        self.send_soon()

    def end(self, code: CloseCode) -> None:
        """Ends the session; nothing queued is sent."""
        if not self.is_over:
            self.is_over = True
            self.channel.close(code)
            self._replica.session_over(self)
