"""What the layer above a link holds: the link's handle, channels, and the remote side's wishes for channels.

All methods run in the one thread of trio, and the machine underneath never waits, so nothing here needs a lock.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

import trio

from peersd.errors import PeersdError
from peersd_protocol.errors import CloseCode, LocalProtocolError
from peersd_protocol.link import Effect, Link

_numbers = itertools.count(1)


class OpenRefused(Exception):
    """The remote side refused a channel.

    Args:
        payload: what its REFUSE carried, mostly nothing.
    """

    def __init__(self, payload: bytes) -> None:
        super().__init__("the remote side refused the channel")
        self.payload = payload


class ChannelIsClosed(Exception):
    """The channel was closed, by either side or with its link.

    Args:
        code: why.
    """

    def __init__(self, code: CloseCode) -> None:
        super().__init__(f"the channel is closed: {code.name.lower()}")
        self.code = code


class _Inbox:
    """The messages of a channel that came and were not taken. Credit bounds their bytes, so their number needs no bound.

    Args:
        handle: the link.
        number: the channel.
    """

    def __init__(self, handle: LinkHandle, number: int) -> None:
        self._handle = handle
        self.number = number
        self.closed: CloseCode | None = None
        self._messages: deque[bytes] = deque()
        self._changed = trio.Event()
        self._is_receiving = False

    def push(self, message: bytes) -> None:
        """Takes a message that the link received."""
        self._messages.append(message)
        self._changed.set()

    def mark_closed(self, code: CloseCode) -> None:
        """Notes the end; messages that came before it can still be taken."""
        if self.closed is None:
            self.closed = code
        self._changed.set()

    def drop_messages(self) -> None:
        """Frees what nobody will take."""
        while self._messages:
            self._handle.consumed(self.number, len(self._messages.popleft()))

    async def take(self) -> bytes:
        """Waits for the next message and takes it, which frees its credit.

        Raises:
            ChannelIsClosed: the channel is closed and all that came before was taken.
        """
        if self._messages:
            await trio.lowlevel.checkpoint()  # others have a turn between messages that came at once
        if not self._messages:
            await self._await_message()
        message = self.take_nowait()
        if message is None:
            assert self.closed is not None
            raise ChannelIsClosed(self.closed)
        return message

    def take_nowait(self) -> bytes | None:
        """Takes the next message if it is here; None if it is not."""
        if not self._messages:
            return None
        message = self._messages.popleft()
        self._handle.consumed(self.number, len(message))
        return message

    async def _await_message(self) -> None:
        if self._is_receiving:
            raise LocalProtocolError("two tasks receive from one channel")
        self._is_receiving = True
        try:
            while not self._messages and self.closed is None:
                # Said only by who really waits: messages beyond the first credit come only to those (SPEC: M-10).
                self._handle.want(self.number, wanted=True)
                self._changed = trio.Event()
                await self._changed.wait()
        finally:
            self._is_receiving = False
            if not self._messages and self.closed is None:
                self._handle.want(self.number, wanted=False)


class Channel:
    """An open channel. It ends with `close`, when the remote side closes it, or with its link.

    Args:
        handle: its link.
        inbox: its receiving half.
        accept_payload: of the ACCEPT that the remote side sent; empty if this side accepted.
    """

    def __init__(self, handle: LinkHandle, inbox: _Inbox, accept_payload: bytes = b"") -> None:
        self._handle = handle
        self._inbox = inbox
        self._writable = trio.Event()
        self.accept_payload = accept_payload

    @property
    def number(self) -> int:
        """The channel's number on its link."""
        return self._inbox.number

    @property
    def closed(self) -> CloseCode | None:
        """Why the channel is closed; None while it is open."""
        return self._inbox.closed

    async def send(self, message: bytes, *, bulk: bool = False, in_order: bool = False) -> None:
        """Queues a message; waits while the channel's queue is full (512 KiB).

        Args:
            message: 1 to MESSAGE_BYTES_MAX bytes.
            bulk: whether it may wait for live messages, of any channel.
            in_order: whether a live one stays behind the bulk messages that wait on this channel.

        Raises:
            ChannelIsClosed: nothing of the message was or will be sent.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self.send_nowait(message, bulk=bulk, in_order=in_order):
            if self.closed is not None:
                raise ChannelIsClosed(self.closed)
            await self._writable.wait()

    def send_nowait(self, message: bytes, *, bulk: bool = False, in_order: bool = False) -> bool:
        """Queues a message as `send` does if the channel is open and its queue is not full; whether it did."""
        handle = self._handle
        if self.closed is not None or handle.link.is_full(self.number):
            return False
        handle.perform(handle.link.send(self.number, message, handle.now_ms(), bulk=bulk, in_order=in_order))
        return True

    async def flush(self) -> None:
        """Waits until all queued messages were handed to the network. It says nothing of their arrival.

        Raises:
            ChannelIsClosed: some were dropped.
        """
        await trio.lowlevel.checkpoint()
        while self.closed is None and not self._handle.link.flush(self.number):
            await self._writable.wait()
        if self.closed is not None:
            raise ChannelIsClosed(self.closed)

    async def receive(self) -> bytes:
        """Waits for the next message. Its credit is freed only now: a slow taker slows the sender of this channel, and no other.

        Raises:
            ChannelIsClosed: the channel is closed and all messages that came before were taken.
        """
        return await self._inbox.take()

    def receive_nowait(self) -> bytes | None:
        """As `receive`, of what is here already; None where nothing is."""
        return self._inbox.take_nowait()

    def close(self, code: CloseCode = CloseCode.NORMAL) -> None:
        """Closes the channel at once, without waiting: queued and untaken messages are dropped. May be called again."""
        if self.closed is None:
            self._handle.close_channel(self.number, code)
            self.mark_closed(code)
        self._inbox.drop_messages()

    def push(self, message: bytes) -> None:
        """For the link's runner: a message came."""
        self._inbox.push(message)

    def mark_closed(self, code: CloseCode) -> None:
        """For the link's runner: the channel is gone."""
        self._inbox.mark_closed(code)
        self._writable.set()

    def mark_writable(self) -> None:
        """For the link's runner: the queue has room again, or is empty."""
        self._writable.set()
        self._writable = trio.Event()


class OpeningChannel:
    """For the link's runner: a channel that this side asked for and that is not answered yet."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.channel: Channel | None = None
        self.refuse_payload: bytes | None = None
        self.closed: CloseCode | None = None

    def push(self, message: bytes) -> None:
        """Cannot happen: the machine takes no message before ACCEPT."""
        raise LocalProtocolError(f"{len(message)} bytes before ACCEPT")

    def mark_closed(self, code: CloseCode) -> None:
        """The link went down before the answer."""
        self.closed = code
        self.answered.set()

    def mark_writable(self) -> None:
        """Nobody waits: a proof always fits the queue."""


class IncomingOpen:
    """The remote side asks for a channel: answer by `accept` or `refuse`.

    Attributes:
        payload: of its OPEN.
        proof_follows: whether messages can be had from `receive_proof` before the answer.
    """

    def __init__(self, handle: LinkHandle, number: int, payload: bytes, *, proof_follows: bool) -> None:
        self._handle = handle
        self._inbox = _Inbox(handle, number)
        self._is_answered = False
        self.payload = payload
        self.proof_follows = proof_follows

    @property
    def closed(self) -> CloseCode | None:
        """Why the wish is void, if the remote side withdrew it or the link is down."""
        return self._inbox.closed

    async def receive_proof(self) -> bytes:
        """The next message that was sent before the answer; of all together PROOF_BYTES_MAX at most.

        Raises:
            ChannelIsClosed: the wish is void.
        """
        return await self._inbox.take()

    def accept(self, payload: bytes = b"") -> Channel:
        """Opens the channel. Proof messages not taken yet come out of its `receive`.

        Args:
            payload: of ACCEPT, at most OPEN_PAYLOAD_BYTES_MAX.

        Raises:
            ChannelIsClosed: the wish is void.
        """
        self._answer()
        if self.closed is not None:
            raise ChannelIsClosed(self.closed)
        return self._handle.accept_channel(self._inbox, payload)

    def refuse(self, payload: bytes = b"") -> None:
        """Refuses. Harmless if the wish is void."""
        self._answer()
        if self.closed is None:
            self._handle.refuse_channel(self._inbox.number, payload)
            self.mark_closed(CloseCode.NORMAL)
        self._inbox.drop_messages()

    @property
    def is_answered(self) -> bool:
        """Whether it was accepted or refused."""
        return self._is_answered

    def _answer(self) -> None:
        if self._is_answered:
            raise LocalProtocolError("an open answered twice")
        self._is_answered = True

    def push(self, message: bytes) -> None:
        """For the link's runner: a proof message came."""
        self._inbox.push(message)

    def mark_closed(self, code: CloseCode) -> None:
        """For the link's runner: the channel is gone."""
        self._inbox.mark_closed(code)

    def mark_writable(self) -> None:
        """Nobody waits: nothing is sent before the answer."""


class LinkHandle:
    """A link that is up, as the layer above sees it.

    Attributes:
        number: of its own in this process; one whose connection began later has a greater one.
        remote_device: the remote device's public key, 32 bytes.
        remote_boot_id: 16 bytes.
        remote_replaces: handshake hash of the link that the remote side, having dialled, closed for this one, or empty.
        is_alone: whether the dialler, whichever side that is, stated that it has no other link in some group.
        handshake_hash: names the link, 32 bytes.
        direction: "out" if this side dialled, else "in".
        url: what was dialled, or where the dialler's socket is.
        since_ms: wall clock at which the handshake was done, ms since 1970.
        rtt_ms: round trip of the last ping, None before the first.
        clock_offset_ms: the remote wall clock minus ours, None before the first pong.
        answered: set when the remote side answered a ping, so that it keeps the link too, or when the link is down.
        serving: set by whoever serves the link, when that can be used; and when the link is down.
        link: for Channel and the runner: the machine.
        perform: for Channel and the runner: performs effects.
        now_ms: for Channel and the runner: the machine's clock.
    """

    def __init__(
        self, link: Link, perform: Callable[[Sequence[Effect]], None], now_ms: Callable[[], int], *, direction: str, url: str
    ) -> None:
        self.number = next(_numbers)
        self.link = link
        self.perform = perform
        self.now_ms = now_ms
        self.direction = direction
        self.url = url
        self.remote_device = b""
        self.remote_boot_id = b""
        self.remote_replaces = b""
        self.is_alone = False
        self.handshake_hash = b""
        self.since_ms = 0
        self.rtt_ms: int | None = None
        self.clock_offset_ms: int | None = None
        self.answered = trio.Event()
        self.serving = trio.Event()
        self.count_bytes: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self.channels: dict[int, Channel | OpeningChannel | IncomingOpen] = {}
        self.down_code: CloseCode | None = None
        self._incoming: deque[IncomingOpen] = deque()
        self._incoming_changed = trio.Event()

    @property
    def bytes_in(self) -> int:
        """Bytes received, as on the TCP socket."""
        return self.count_bytes()[0]

    @property
    def bytes_out(self) -> int:
        """Bytes sent, as on the TCP socket."""
        return self.count_bytes()[1]

    @property
    def is_down(self) -> bool:
        """Whether the link is over."""
        return self.down_code is not None

    def release(self) -> None:
        """The link stays: it carries channels from now on. To be called once, at most 10 s after the link came up."""
        self.perform(self.link.release(self.now_ms()))

    def close(self, code: CloseCode = CloseCode.NORMAL) -> None:
        """Ends the link. It carries nothing more when this returns; the socket closes soon after. May be called again."""
        self.perform(self.link.close(code, self.now_ms()))

    async def open(self, payload: bytes, proof_messages: Sequence[bytes] = ()) -> Channel:
        """Asks for a channel and waits for the answer. Cancelling withdraws the wish.

        Args:
            payload: of OPEN, at most OPEN_PAYLOAD_BYTES_MAX.
            proof_messages: sent before the answer, in sum at most PROOF_BYTES_MAX.

        Returns:
            The channel, with the payload of ACCEPT in `accept_payload`.

        Raises:
            OpenRefused: the remote side refused.
            ChannelIsClosed: the link is down.
            PeersdError: `busy` if the link has as many channels as it may.
        """
        await self._await_open_allowed()
        number, effects = self.link.open_channel(payload, self.now_ms(), proof_follows=bool(proof_messages))
        opening = OpeningChannel()
        self.channels[number] = opening
        self.perform(effects)
        try:
            for message in proof_messages:
                self.perform(self.link.send(number, message, self.now_ms(), bulk=False))
            await opening.answered.wait()
        finally:
            if not opening.answered.is_set():
                self.channels.pop(number, None)
                self.close_channel(number, CloseCode.NORMAL)
        if opening.refuse_payload is not None:
            raise OpenRefused(opening.refuse_payload)
        if opening.channel is None:
            raise ChannelIsClosed(opening.closed or self.down_code or CloseCode.NORMAL)
        # It may be closed again by now: what came before that, such as a farewell, is to be had from it all the same.
        return opening.channel

    async def _await_open_allowed(self) -> None:
        await trio.lowlevel.checkpoint()
        while self.down_code is None:
            wait_ms = self.link.open_wait_ms(self.now_ms())
            if wait_ms is None:
                raise PeersdError("busy", "the link has as many channels as it may", hint="Try again later.", retry=True)
            if not wait_ms:
                return
            await trio.sleep(wait_ms / 1000)
        raise ChannelIsClosed(self.down_code)

    @property
    def incoming(self) -> AsyncIterator[IncomingOpen]:
        """The remote side's wishes for channels, as they come, for one task; ends with the link."""
        return self._iterate_incoming()

    async def _iterate_incoming(self) -> AsyncIterator[IncomingOpen]:
        while True:
            while self._incoming:
                wish = self._incoming.popleft()
                if wish.closed is None:
                    yield wish
                else:
                    wish.refuse()
            if self.down_code is not None:
                return
            self._incoming_changed = trio.Event()
            await self._incoming_changed.wait()

    # --- For Channel, IncomingOpen and the runner ---

    def want(self, number: int, *, wanted: bool) -> None:
        """A receiver waits, or gave up."""
        self.perform(self.link.want(number, self.now_ms(), wanted=wanted))

    def consumed(self, number: int, message_bytes: int) -> None:
        """A message was taken."""
        self.perform(self.link.consumed(number, message_bytes, self.now_ms()))

    def close_channel(self, number: int, code: CloseCode) -> None:
        """Closes a channel in the machine."""
        self.channels.pop(number, None)
        self.perform(self.link.close_channel(number, code, self.now_ms()))

    def accept_channel(self, inbox: _Inbox, payload: bytes) -> Channel:
        """Makes a channel of a wish."""
        channel = Channel(self, inbox)
        self.channels[inbox.number] = channel
        self.perform(self.link.accept(inbox.number, payload, self.now_ms()))
        return channel

    def refuse_channel(self, number: int, payload: bytes) -> None:
        """Refuses a wish in the machine."""
        self.channels.pop(number, None)
        self.perform(self.link.refuse(number, self.now_ms(), payload))

    def note_requested(self, number: int, payload: bytes, *, proof_follows: bool) -> None:
        """A wish came."""
        wish = IncomingOpen(self, number, payload, proof_follows=proof_follows)
        self.channels[number] = wish
        self._incoming.append(wish)
        self._incoming_changed.set()

    def note_accepted(self, number: int, payload: bytes) -> None:
        """A channel that this side asked for is open."""
        opening = self.channels.get(number)
        if isinstance(opening, OpeningChannel):
            self.channels[number] = opening.channel = Channel(self, _Inbox(self, number), payload)
            opening.answered.set()

    def note_refused(self, number: int, payload: bytes) -> None:
        """A channel that this side asked for is refused."""
        opening = self.channels.pop(number, None)
        if isinstance(opening, OpeningChannel):
            opening.refuse_payload = payload
            opening.answered.set()

    def note_closed(self, number: int, code: CloseCode) -> None:
        """A channel is gone."""
        channel = self.channels.pop(number, None)
        if channel is not None:
            channel.mark_closed(code)

    def note_rtt(self, rtt_ms: int) -> None:
        """The remote side answered a ping."""
        self.rtt_ms = rtt_ms
        self.answered.set()

    def note_down(self, code: CloseCode) -> None:
        """The link is over, and all it carried."""
        self.down_code = code
        self.answered.set()
        self.serving.set()
        for channel in list(self.channels.values()):
            channel.mark_closed(code)
        self.channels.clear()
        self._incoming_changed.set()
