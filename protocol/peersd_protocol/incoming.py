"""The receiving half of the multiplexer: messages put together, and credit granted out of one pool a link (SPEC: M-5 to M-15).

Every byte that the remote side may still send, and every byte that it sent and the application has not consumed, is charged to
its channel. What a channel is charged above CREDIT_FIRST_BYTES comes out of the pool. Three rules keep the pool turning over,
however many channels wait and however many applications stall:

- A message is granted whole or not at all, and only while the application waits for it (`want`): what is granted so is soon
  consumed.
- Credit beyond the open message, which keeps a fast channel busy and may sit unused with a stalled one, is granted below
  POOL_WINDOWS_BYTES only. So the rest of the pool is always whole messages that somebody waits for.
- The last POOL_SMALL_MESSAGES_BYTES are for small messages, so that live ones need not queue behind bulk.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from peersd_protocol.constants import (
    CREDIT_FIRST_BYTES,
    CREDIT_WINDOW_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    MESSAGE_COST_BYTES,
    POOL_BYTES,
    POOL_SMALL_MESSAGES_BYTES,
    POOL_WINDOWS_BYTES,
    PROOF_BYTES_MAX,
    SLOW_MESSAGE_BYTES_PER_S,
    SLOW_MESSAGE_SLACK_MS,
    SMALL_MESSAGE_BYTES,
)
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.frames import decode_varint

GRANT_BYTES_MIN: Final = 1024
"""Window credit is granted in pieces of at least this: a nearly used up pool must not cause a stream of CREDIT frames (guess)."""


class Inflow:
    """The receiving half of one channel.

    Attributes:
        channel: its number.
        credit_bytes: granted and not used yet.
        held_bytes: received and not consumed, each message with its MESSAGE_COST_BYTES.
        waiting_bytes: the part of `held_bytes` that belongs to whole messages.
        window_bytes: credit that the channel should have beyond the open message; grows while it is used up.
        topped_bytes: the window when it was last topped up.
        wanted: whether the application waits for the next message.
        message_bytes: length of the open message, 0 if none is open.
        proof_bytes_left: what may still come before ACCEPT; None afterwards.
        slack_ms: how much longer the open message may stand still while it is the sender's turn.
    """

    __slots__ = (
        "buffer",
        "channel",
        "credit_bytes",
        "held_bytes",
        "message_bytes",
        "proof_bytes_left",
        "queue",
        "received_bytes",
        "slack_ms",
        "topped_bytes",
        "waiting_bytes",
        "wanted",
        "window_bytes",
    )

    def __init__(self, channel: int, *, proof_bytes_left: int | None) -> None:
        self.channel = channel
        self.credit_bytes = CREDIT_FIRST_BYTES
        self.held_bytes = 0
        self.waiting_bytes = 0
        self.window_bytes = CREDIT_FIRST_BYTES
        self.topped_bytes = CREDIT_FIRST_BYTES
        self.wanted = False
        self.message_bytes = 0
        self.received_bytes = 0
        self.buffer = bytearray()
        self.proof_bytes_left = proof_bytes_left
        self.slack_ms = 0
        self.queue: OrderedDict[int, Inflow] | None = None

    @property
    def remaining_bytes(self) -> int:
        """What the open message still lacks."""
        return self.message_bytes - self.received_bytes

    @property
    def pooled_bytes(self) -> int:
        """What the channel takes out of the pool."""
        return max(0, self.held_bytes + self.credit_bytes - CREDIT_FIRST_BYTES)


class CreditPool:
    """The receiving halves of a link's channels and the pool they share.

    Args:
        grant: is called with (channel, bytes) to send a CREDIT frame.
    """

    def __init__(self, grant: Callable[[int, int], None]) -> None:
        self._grant = grant
        self.used_bytes = 0
        self._small: OrderedDict[int, Inflow] = OrderedDict()
        self._large: OrderedDict[int, Inflow] = OrderedDict()
        self._hungry: OrderedDict[int, Inflow] = OrderedDict()
        self._lingering: dict[int, Inflow] = {}
        self._open_messages: dict[int, Inflow] = {}
        self._tick_bytes = 0

    @property
    def lingering_channels(self) -> int:
        """Closed channels with messages that the application has not consumed yet."""
        return len(self._lingering)

    @property
    def has_open_messages(self) -> bool:
        """Whether the rule against slow messages has anything to watch."""
        return bool(self._open_messages)

    def receive(self, flow: Inflow, payload: memoryview, *, is_end: bool) -> bytes | None:
        """Takes the payload of a DATA frame.

        Returns:
            The message, if this frame ended one.

        Raises:
            RemoteProtocolError: CREDIT if the frame is beyond the credit; TOO_LARGE or MALFORMED if the message's length is
                wrong or does not agree with where it ends.
        """
        at = 0
        cost_bytes = len(payload)
        is_first = not flow.message_bytes
        if is_first:
            at = self._begin(flow, payload)
            cost_bytes += MESSAGE_COST_BYTES - at
        if cost_bytes > flow.credit_bytes:
            raise RemoteProtocolError(CloseCode.CREDIT, f"{cost_bytes} bytes with a credit of {flow.credit_bytes}")
        flow.credit_bytes -= cost_bytes
        flow.held_bytes += cost_bytes
        self._tick_bytes += cost_bytes
        flow.received_bytes += len(payload) - at
        if (flow.received_bytes >= flow.message_bytes) != is_end or flow.received_bytes > flow.message_bytes:
            raise RemoteProtocolError(CloseCode.MALFORMED, "a message does not end where its length says")
        if not is_end:
            # Copied: a kept view would keep the whole Noise message alive for one byte of it.
            flow.buffer += payload[at:]
            if is_first:
                flow.slack_ms = SLOW_MESSAGE_SLACK_MS
                self._open_messages[flow.channel] = flow
                if flow.wanted:
                    self._review(flow)
            return None
        if is_first:
            message = bytes(payload[at:])
        else:
            message, flow.buffer = b"".join((flow.buffer, payload)), bytearray()
            self._open_messages.pop(flow.channel, None)
            self._leave_queue(flow)
        flow.waiting_bytes += flow.message_bytes + MESSAGE_COST_BYTES
        flow.message_bytes = flow.received_bytes = 0
        flow.wanted = False
        return message

    def _begin(self, flow: Inflow, payload: memoryview) -> int:
        """Reads the length that a message begins with; returns the offset of its first byte."""
        message_bytes, at = decode_varint(payload, 0)
        if not message_bytes:
            raise RemoteProtocolError(CloseCode.MALFORMED, "an empty message")
        if message_bytes > MESSAGE_BYTES_MAX:
            raise RemoteProtocolError(CloseCode.TOO_LARGE, f"a message of {message_bytes} bytes")
        if flow.proof_bytes_left is not None:
            flow.proof_bytes_left -= message_bytes
            if flow.proof_bytes_left < 0:
                raise RemoteProtocolError(CloseCode.TOO_LARGE, f"a proof of more than {PROOF_BYTES_MAX} bytes")
        else:
            # Room for the message after this one too: it can be on its way while the application works on this one.
            flow.window_bytes = max(flow.window_bytes, min(CREDIT_WINDOW_BYTES_MAX, 2 * (message_bytes + MESSAGE_COST_BYTES)))
        flow.message_bytes = message_bytes
        return at

    def want(self, flow: Inflow, *, wanted: bool) -> None:
        """The application waits for this channel's next message, or no longer does."""
        flow.wanted = wanted
        if wanted:
            self._review(flow)
        else:
            self._leave_queue(flow)

    def accept(self, flow: Inflow) -> None:
        """The channel is open: the bounds of a proof no longer hold."""
        flow.proof_bytes_left = None

    def consume(self, channel: int, flow: Inflow | None, message_bytes: int) -> bool:
        """The application took a message of `message_bytes` off its hands.

        Args:
            channel: the channel's number.
            flow: its receiving half; None if the channel is closing or gone.
            message_bytes: the message's length.

        Returns:
            Whether the channel had so much waiting.
        """
        flow = flow or self._lingering.get(channel)
        cost_bytes = message_bytes + MESSAGE_COST_BYTES
        if flow is None or cost_bytes > flow.waiting_bytes:
            return False
        before_bytes = flow.pooled_bytes
        flow.held_bytes -= cost_bytes
        flow.waiting_bytes -= cost_bytes
        self.used_bytes -= before_bytes - flow.pooled_bytes
        if channel in self._lingering:
            if not flow.waiting_bytes:
                del self._lingering[channel]
        else:
            self._review(flow)
        self._serve_queues()
        return True

    def take_back(self, flow: Inflow, credit_bytes: int) -> None:
        """Takes what a RETURN frame gives back.

        Raises:
            RemoteProtocolError: CREDIT if the channel does not have so much.
        """
        if credit_bytes > flow.credit_bytes:
            raise RemoteProtocolError(CloseCode.CREDIT, f"{credit_bytes} bytes returned of a credit of {flow.credit_bytes}")
        before_bytes = flow.pooled_bytes
        flow.credit_bytes -= credit_bytes
        flow.window_bytes = flow.topped_bytes = CREDIT_FIRST_BYTES
        self.used_bytes -= before_bytes - flow.pooled_bytes
        # Not reviewed: a sender must not turn RETURN frames into CREDIT frames without sending anything.
        self._hungry.pop(flow.channel, None)
        self._serve_queues()

    def forget(self, flow: Inflow, *, keep_waiting: bool) -> None:
        """Drops a channel.

        Args:
            flow: its receiving half.
            keep_waiting: whether the application still holds the messages reported and not consumed; they stay charged.
        """
        self._leave_queue(flow)
        self._hungry.pop(flow.channel, None)
        self._open_messages.pop(flow.channel, None)
        self.used_bytes -= flow.pooled_bytes
        flow.buffer = bytearray()
        flow.credit_bytes = 0
        flow.held_bytes = flow.waiting_bytes = flow.waiting_bytes if keep_waiting else 0
        self.used_bytes += flow.pooled_bytes
        if flow.waiting_bytes:
            self._lingering[flow.channel] = flow
        self._serve_queues()

    def slow_channels(self, elapsed_ms: int) -> list[int]:
        """Judges the open messages since the last call (SPEC: M-15).

        A message is owed SLOW_MESSAGE_BYTES_PER_S while it has credit and the link was not busy with other channels' bytes.

        Returns:
            The channels whose message stood still for too long.
        """
        owing = [flow for flow in self._open_messages.values() if flow.credit_bytes]
        busy = self._tick_bytes >= len(owing) * SLOW_MESSAGE_BYTES_PER_S * elapsed_ms // 1000
        self._tick_bytes = 0
        if busy:
            return []
        slow: list[int] = []
        for flow in owing:
            # What came since the message began earns time at the rate demanded.
            flow.slack_ms -= elapsed_ms
            earned_ms = flow.received_bytes * 1000 // SLOW_MESSAGE_BYTES_PER_S
            if flow.slack_ms + earned_ms < 0:
                slow.append(flow.channel)
        return slow

    def _review(self, flow: Inflow) -> None:
        """Grants a channel what it should have, as far as the pool allows; else puts it where it waits for the pool."""
        target_bytes = flow.window_bytes
        if flow.wanted and flow.message_bytes:
            lack_bytes = flow.remaining_bytes - flow.credit_bytes
            if lack_bytes > 0 and not self._grant_message(flow, lack_bytes):
                return
            target_bytes += flow.message_bytes + MESSAGE_COST_BYTES
        self._grant_window(flow, target_bytes - flow.held_bytes - flow.credit_bytes)

    def _grant_message(self, flow: Inflow, lack_bytes: int) -> bool:
        """Grants what completes the open message, in its turn. Returns False if it has to wait."""
        is_small = flow.message_bytes <= SMALL_MESSAGE_BYTES
        queue = self._small if is_small else self._large
        limit_bytes = POOL_BYTES if is_small else POOL_BYTES - POOL_SMALL_MESSAGES_BYTES
        need_bytes = max(0, flow.held_bytes + flow.credit_bytes + lack_bytes - CREDIT_FIRST_BYTES) - flow.pooled_bytes
        is_first = not queue or next(iter(queue)) == flow.channel
        if need_bytes and (not is_first or self.used_bytes + need_bytes > limit_bytes):
            if flow.queue is None:
                queue[flow.channel] = flow
                flow.queue = queue
            return False
        self._leave_queue(flow)
        self._give(flow, lack_bytes)
        return True

    def _grant_window(self, flow: Inflow, lack_bytes: int) -> None:
        """Tops up the credit beyond the open message once half the window is used, and doubles a window that was used up so."""
        if lack_bytes * 2 < flow.window_bytes:
            return
        window_bytes = flow.window_bytes
        if flow.proof_bytes_left is None and window_bytes == flow.topped_bytes:
            window_bytes = min(CREDIT_WINDOW_BYTES_MAX, 2 * window_bytes)
            lack_bytes += window_bytes - flow.window_bytes
        free_bytes = max(0, POOL_WINDOWS_BYTES - self.used_bytes)
        unpooled_bytes = max(0, CREDIT_FIRST_BYTES - flow.held_bytes - flow.credit_bytes)
        grant_bytes = min(lack_bytes, unpooled_bytes + free_bytes)
        if grant_bytes < min(lack_bytes, GRANT_BYTES_MIN):
            self._hungry[flow.channel] = flow
            return
        self._hungry.pop(flow.channel, None)
        self._give(flow, grant_bytes)
        flow.window_bytes = flow.topped_bytes = window_bytes

    def _give(self, flow: Inflow, credit_bytes: int) -> None:
        before_bytes = flow.pooled_bytes
        flow.credit_bytes += credit_bytes
        self.used_bytes += flow.pooled_bytes - before_bytes
        assert self.used_bytes <= POOL_BYTES
        self._grant(flow.channel, credit_bytes)

    def _serve_queues(self) -> None:
        """Hands out what the pool has free again: small messages, then large ones in their order, then windows."""
        for queue in (self._small, self._large):
            while queue:
                flow = next(iter(queue.values()))
                self._review(flow)
                if flow.queue is queue:
                    break
        for flow in list(self._hungry.values()) if self.used_bytes + GRANT_BYTES_MIN <= POOL_WINDOWS_BYTES else ():
            if self.used_bytes + GRANT_BYTES_MIN > POOL_WINDOWS_BYTES:
                break
            del self._hungry[flow.channel]
            self._review(flow)

    def _leave_queue(self, flow: Inflow) -> None:
        if flow.queue is not None:
            del flow.queue[flow.channel]
            flow.queue = None
