"""The sending half of the multiplexer: queues, credit, and the order in which channels have their turn (SPEC: M-16, M-17).

Live messages go before bulk; within each of the two, channels take turns by bytes. A channel has one message open at a time, so
a live message behind a half-sent bulk message lends that message its own class until it is through. A live message that is to
keep its place goes as bulk itself while bulk messages of its channel wait.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from peersd_protocol.constants import (
    CREDIT_FIRST_BYTES,
    CREDIT_IDLE_MS,
    FRAME_PAYLOAD_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    MESSAGE_COST_BYTES,
)
from peersd_protocol.errors import LocalProtocolError
from peersd_protocol.frames import DATA_HEADER_BYTES_MAX, FrameType, encode_varint

QUANTUM_BYTES: Final = FRAME_PAYLOAD_BYTES_MAX
"""What a channel may send before the next one has its turn."""

QUEUE_HIGH_BYTES: Final = 512 * 1024
QUEUE_LOW_BYTES: Final = 256 * 1024
"""A channel's queue is full at the first mark and has room again below the second: enough for a window of credit (guess)."""

_FRAGMENT_BYTES_MIN: Final = 512
"""No message is begun, and no frame cut, for less than this (guess): a header of up to 12 bytes should stay a few per cent."""


class Outflow:
    """The sending half of one channel.

    Attributes:
        channel: its number.
        credit_bytes: what may still be sent.
        queued_bytes: queued or half sent.
        may_send: whether the channel's state allows DATA.
    """

    __slots__ = (
        "bulk",
        "channel",
        "credit_bytes",
        "current",
        "current_at",
        "current_is_live",
        "flush_asked",
        "head",
        "head_end",
        "last_sent_ms",
        "live",
        "may_send",
        "queued_bytes",
        "ring",
        "spent_bytes",
        "was_full",
    )

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.credit_bytes = CREDIT_FIRST_BYTES
        self.queued_bytes = 0
        self.may_send = False
        self.live: deque[bytes] = deque()
        self.bulk: deque[bytes] = deque()
        self.current: memoryview | None = None
        self.current_at = 0
        self.current_is_live = False
        self.flush_asked = False
        self.was_full = False
        self.spent_bytes = 0
        self.last_sent_ms = 0
        self.ring: OrderedDict[int, Outflow] | None = None
        number = encode_varint(channel)
        self.head = bytes((FrameType.DATA,)) + number
        self.head_end = bytes((FrameType.DATA_END,)) + number

    @property
    def next_message_bytes(self) -> int:
        """Length of the message whose turn is next; 0 if none waits."""
        queue = self.live or self.bulk
        return len(queue[0]) if queue else 0


class Scheduler:
    """All channels of a link that have something to send."""

    def __init__(self) -> None:
        self._live: OrderedDict[int, Outflow] = OrderedDict()
        self._bulk: OrderedDict[int, Outflow] = OrderedDict()
        self._rich: dict[int, Outflow] = {}
        self.drained: list[int] = []
        """Channels to report as writable."""

    @property
    def has_data(self) -> bool:
        """Whether some channel has both a message and the credit for a part of it."""
        return bool(self._live or self._bulk)

    @property
    def has_unused_credit(self) -> bool:
        """Whether some channel may hold more credit than an idle one should."""
        return bool(self._rich)

    def enqueue(self, flow: Outflow, message: bytes, *, bulk: bool, in_order: bool = False) -> None:
        """Queues a message.

        Args:
            flow: the channel's.
            message: 1 to MESSAGE_BYTES_MAX bytes.
            bulk: whether it may wait for live messages, of any channel.
            in_order: whether a live one stays behind the bulk messages that wait on its channel.

        Raises:
            LocalProtocolError: it is empty, above MESSAGE_BYTES_MAX, or the queue was full (QUEUE_HIGH_BYTES) already.
        """
        if not 1 <= len(message) <= MESSAGE_BYTES_MAX:
            raise LocalProtocolError(f"a message of {len(message)} bytes")
        if flow.queued_bytes >= QUEUE_HIGH_BYTES:
            raise LocalProtocolError("the channel's queue is full: wait for Writable")
        (flow.bulk if bulk or (in_order and flow.bulk) else flow.live).append(message)
        # Counted with its cost, so that very short messages fill the queue too.
        flow.queued_bytes += len(message) + MESSAGE_COST_BYTES
        # Until it has drained: somebody else may put something short into the room that there is meanwhile.
        flow.was_full |= flow.queued_bytes >= QUEUE_HIGH_BYTES
        self.place(flow)

    def add_credit(self, flow: Outflow, credit_bytes: int) -> None:
        """Takes what a CREDIT frame grants."""
        flow.credit_bytes += credit_bytes
        if flow.credit_bytes > CREDIT_FIRST_BYTES:
            self._rich[flow.channel] = flow
        self.place(flow)

    def place(self, flow: Outflow) -> None:
        """Puts a channel into the ring where it belongs now, at the end if it is new there, or takes it out."""
        ring = self._ring_of(flow)
        if ring is flow.ring:
            return
        if flow.ring is not None:
            del flow.ring[flow.channel]
        flow.ring = ring
        if ring is not None:
            ring[flow.channel] = flow

    def _ring_of(self, flow: Outflow) -> OrderedDict[int, Outflow] | None:
        if not flow.may_send:
            return None
        if flow.current is not None:
            if not flow.credit_bytes:
                return None
            return self._live if flow.current_is_live or flow.live else self._bulk
        waiting_bytes = flow.next_message_bytes
        if not waiting_bytes or flow.credit_bytes < MESSAGE_COST_BYTES + min(waiting_bytes, _FRAGMENT_BYTES_MIN):
            return None
        return self._live if flow.live else self._bulk

    def forget(self, flow: Outflow) -> None:
        """Drops a channel and all it has queued."""
        flow.may_send = False
        flow.live.clear()
        flow.bulk.clear()
        flow.current = None
        flow.queued_bytes = 0
        self.place(flow)
        self._rich.pop(flow.channel, None)

    def pack(self, parts: list[bytes | memoryview], room_bytes: int, now_ms: int) -> int:
        """Appends DATA frames to `parts` until the room or what may be sent is used up.

        Returns:
            The bytes appended.
        """
        left_bytes = room_bytes
        while ring := self._live or self._bulk:
            flow = next(iter(ring.values()))
            payload_room_bytes = left_bytes - DATA_HEADER_BYTES_MAX
            if payload_room_bytes < _FRAGMENT_BYTES_MIN:
                break
            left_bytes -= self._emit(flow, parts, payload_room_bytes)
            flow.last_sent_ms = now_ms
            self.place(flow)
            if flow.spent_bytes >= QUANTUM_BYTES:
                flow.spent_bytes -= QUANTUM_BYTES
                if flow.ring is not None:
                    flow.ring.move_to_end(flow.channel)
            self._note_drained(flow)
        return room_bytes - left_bytes

    def _emit(self, flow: Outflow, parts: list[bytes | memoryview], payload_room_bytes: int) -> int:
        """Appends one DATA frame of a channel; the ring vouches that it has a message and credit. Returns the frame's size."""
        prefix = b""
        if flow.current is None:
            flow.current_is_live = bool(flow.live)
            message = (flow.live or flow.bulk).popleft()
            flow.current, flow.current_at = memoryview(message), 0
            prefix = encode_varint(len(message))
            flow.credit_bytes -= MESSAGE_COST_BYTES
            flow.queued_bytes -= MESSAGE_COST_BYTES
        current, at = flow.current, flow.current_at
        room_bytes = min(FRAME_PAYLOAD_BYTES_MAX, payload_room_bytes) - len(prefix)
        part_bytes = min(len(current) - at, flow.credit_bytes, room_bytes)
        payload_bytes = part_bytes + len(prefix)
        is_end = at + part_bytes == len(current)
        header = (flow.head_end if is_end else flow.head) + encode_varint(payload_bytes) + prefix
        parts.append(header)
        parts.append(current[at : at + part_bytes])
        flow.credit_bytes -= part_bytes
        flow.queued_bytes -= part_bytes
        flow.spent_bytes += part_bytes + MESSAGE_COST_BYTES  # a turn of very short messages is bounded too
        flow.current_at = at + part_bytes
        if is_end:
            flow.current = None
        return len(header) + part_bytes

    def _note_drained(self, flow: Outflow) -> None:
        if flow.was_full and flow.queued_bytes < QUEUE_LOW_BYTES:
            flow.was_full = False
            self.drained.append(flow.channel)
        elif flow.flush_asked and not flow.queued_bytes:
            self.drained.append(flow.channel)
        if not flow.queued_bytes:
            flow.flush_asked = False
            if flow.ring is None:
                flow.spent_bytes = 0

    def take_unused_credit(self, now_ms: int) -> list[tuple[int, int]]:
        """Takes back the credit of channels that had nothing to send for CREDIT_IDLE_MS, down to CREDIT_FIRST_BYTES.

        Returns:
            (channel, bytes to return) of each.
        """
        returned: list[tuple[int, int]] = []
        for flow in list(self._rich.values()):
            surplus_bytes = flow.credit_bytes - CREDIT_FIRST_BYTES
            if surplus_bytes > 0 and (flow.queued_bytes or now_ms - flow.last_sent_ms < CREDIT_IDLE_MS):
                continue
            del self._rich[flow.channel]
            if surplus_bytes > 0:
                flow.credit_bytes = CREDIT_FIRST_BYTES
                returned.append((flow.channel, surplus_bytes))
        return returned
