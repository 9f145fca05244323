"""The multiplexer: the channels of one link, their states, and what is sent next (SPEC: M).

States of a channel, seen from one side, and what each frame does in it; an empty cell is a fault of the remote side (PROTOCOL):

| frame        | OPENING (we asked)   | REQUESTED (they asked) | OPEN               | CLOSING (we sent CLOSE or REFUSE) |
| ------------ | -------------------- | ---------------------- | ------------------ | --------------------------------- |
| ACCEPT       | OPEN, Accepted       |                        |                    | dropped, if our OPEN is unanswered |
| REFUSE       | gone, Refused, CLOSE |                        |                    | gone, if our OPEN is unanswered    |
| DATA         |                      | message, if a proof    | message            | dropped, charged                   |
| CREDIT       | added, if a proof    |                        | added              | dropped                            |
| RETURN       |                      | taken, if a proof      | taken              | dropped                            |
| CLOSE        |                      | gone, ChannelClosed    | gone, ChannelClosed | gone                              |

CLOSE is answered by CLOSE and REFUSE is answered by CLOSE, so that a number is forgotten by both sides only when no frame of it
can be under way any more. OPEN makes a channel; its numbers have no gaps.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import Final

from peersd_protocol.constants import (
    CHANNELS_MAX,
    CLOSE_ANSWER_MS,
    CONTROL_QUEUE_BYTES_MAX,
    OPEN_PAYLOAD_BYTES_MAX,
    OPENS_BURST,
    OPENS_PER_S,
    PROOF_BYTES_MAX,
)
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.frames import FrameType, decode_close_code, decode_credit, encode_frame, encode_number_frame
from peersd_protocol.incoming import CreditPool, Inflow
from peersd_protocol.link_effects import Accepted, ChannelClosed, Effect, MessageReceived, OpenRequested, Refused, Writable
from peersd_protocol.outgoing import QUEUE_HIGH_BYTES, Outflow, Scheduler

_LOCAL_OPENS_BURST: Final = OPENS_BURST - 96
_LOCAL_OPENS_PER_S: Final = OPENS_PER_S - 5
"""This side stays below the limits it enforces: the network may bring frames closer together than they were sent."""


class ChannelState(enum.Enum):
    """See the table above."""

    OPENING = "opening"
    REQUESTED = "requested"
    OPEN = "open"
    CLOSING = "closing"


@dataclass(slots=True)
class _Channel:
    """One channel.

    Attributes:
        number: odd if the dialler opened it, else even.
        is_local: whether this side opened it.
        has_proof: whether its OPEN announced DATA before ACCEPT.
        state: see ChannelState.
        inflow: the receiving half.
        outflow: the sending half.
        proof_bytes: what this side queued before ACCEPT.
        unanswered: in CLOSING: whether our OPEN was still without an answer.
        closing_since_ms: in CLOSING: since when.
    """

    number: int
    is_local: bool
    has_proof: bool
    state: ChannelState
    inflow: Inflow
    outflow: Outflow
    proof_bytes: int = 0
    unanswered: bool = False
    closing_since_ms: int = 0


class _OpenRate:
    """A bucket of permissions to open: full at the start, refilled by the second."""

    def __init__(self, burst: int, per_s: int, now_ms: int) -> None:
        self._per_s = per_s
        self._full = self._left = burst * 1000  # in thousandths
        self._burst = burst
        self._at_ms = now_ms

    def wait_ms(self, now_ms: int) -> int:
        """Ms until one more is allowed; 0 means now."""
        self._left = min(self._full, self._left + max(0, now_ms - self._at_ms) * self._per_s)
        self._at_ms = max(now_ms, self._at_ms)
        return 0 if self._left >= 1000 else -((self._left - 1000) // self._per_s)

    def take(self, now_ms: int) -> bool:
        """Uses one up; False if none is left."""
        if self.wait_ms(now_ms):
            return False
        self._left -= 1000
        return True


class Mux:
    """The channels of one link.

    Effects gather in `effects`, which the link takes after each call.

    Args:
        is_dialler: whether this side dialled the link and so opens odd numbers.
        now_ms: when the link came up.
    """

    def __init__(self, *, is_dialler: bool, now_ms: int) -> None:
        self.effects: list[Effect] = []
        self._next_local = 1 if is_dialler else 2
        self._next_remote = 2 if is_dialler else 1
        self._channels: dict[int, _Channel] = {}
        self._closing: dict[int, _Channel] = {}
        self._remote_count = 0
        self._remote_opens = _OpenRate(OPENS_BURST, OPENS_PER_S, now_ms)
        self._local_opens = _OpenRate(_LOCAL_OPENS_BURST, _LOCAL_OPENS_PER_S, now_ms)
        self._control: deque[bytes] = deque()
        self._control_bytes = 0
        self._scheduler = Scheduler()
        self._pool = CreditPool(self._send_credit)

    # --- What the link asks ---

    @property
    def has_output(self) -> bool:
        """Whether `pull` would return bytes."""
        return bool(self._control) or self._scheduler.has_data

    @property
    def is_overrun(self) -> bool:
        """Whether more answers wait than a remote side that reads would ever leave; the link must end (TOO_MANY)."""
        return self._control_bytes > CONTROL_QUEUE_BYTES_MAX

    @property
    def needs_upkeep(self) -> bool:
        """Whether `upkeep` has anything to look after."""
        return bool(self._closing) or self._pool.has_open_messages or self._scheduler.has_unused_credit

    @property
    def pool_used_bytes(self) -> int:
        """What of the pool is granted or held."""
        return self._pool.used_bytes

    def queued_bytes(self, channel: int) -> int:
        """What is queued on a channel, each message with its cost; 0 if the channel is gone."""
        found = self._channels.get(channel)
        return found.outflow.queued_bytes if found else 0

    def is_full(self, channel: int) -> bool:
        """Whether `send` would be refused until Writable."""
        return self.queued_bytes(channel) >= QUEUE_HIGH_BYTES

    def open_wait_ms(self, now_ms: int) -> int | None:
        """Ms until `open_channel` is allowed; 0 means now, None that a channel has to be closed first."""
        if len(self._channels) + self._pool.lingering_channels >= CHANNELS_MAX:
            return None
        return self._local_opens.wait_ms(now_ms)

    # --- Commands ---

    def open_channel(self, payload: bytes, *, proof_follows: bool, now_ms: int) -> int:
        """Asks the remote side for a channel; answered by Accepted, Refused or ChannelClosed. Returns its number."""
        _check_payload(payload)
        if self.open_wait_ms(now_ms) != 0:
            raise LocalProtocolError("too many channels or opens: ask open_wait_ms first")
        self._local_opens.take(now_ms)
        number = self._next_local
        self._next_local += 2
        channel = self._add(number, is_local=True, has_proof=proof_follows)
        channel.outflow.may_send = proof_follows
        self._send_control(encode_frame(FrameType.OPEN_WITH_PROOF if proof_follows else FrameType.OPEN, number, payload))
        return number

    def accept(self, number: int, payload: bytes) -> None:
        """Accepts a channel that the remote side asked for."""
        _check_payload(payload)
        channel = self._local_use(number, ChannelState.REQUESTED)
        channel.state = ChannelState.OPEN
        channel.outflow.may_send = True
        self._pool.accept(channel.inflow)
        self._send_control(encode_frame(FrameType.ACCEPT, number, payload))

    def refuse(self, number: int, payload: bytes, now_ms: int) -> None:
        """Refuses a channel that the remote side asked for."""
        _check_payload(payload)
        channel = self._local_use(number, ChannelState.REQUESTED)
        self._send_control(encode_frame(FrameType.REFUSE, number, payload))
        self._start_closing(channel, now_ms, keep_waiting=False)

    def send(self, number: int, message: bytes, *, bulk: bool, in_order: bool = False) -> None:
        """Queues a message of 1 to MESSAGE_BYTES_MAX bytes; see Scheduler.enqueue."""
        channel = self._local_use(number, ChannelState.OPEN, ChannelState.OPENING)
        if channel.state is ChannelState.OPENING:
            if not channel.has_proof:
                raise LocalProtocolError("only a proof is sent before ACCEPT")
            if channel.proof_bytes + len(message) > PROOF_BYTES_MAX:
                raise LocalProtocolError(f"a proof of more than {PROOF_BYTES_MAX} bytes")
            channel.proof_bytes += len(message)
        self._scheduler.enqueue(channel.outflow, message, bulk=bulk, in_order=in_order)

    def want(self, number: int, *, wanted: bool) -> None:
        """The application waits for this channel's next message, or no longer does. Harmless on a channel that is gone."""
        channel = self._channels.get(number)
        if channel is not None and channel.state is not ChannelState.CLOSING:
            self._pool.want(channel.inflow, wanted=wanted)

    def consumed(self, number: int, message_bytes: int) -> None:
        """The application took a message of so many bytes. Harmless on a channel that this side closed."""
        channel = self._channels.get(number)
        flow = channel.inflow if channel and channel.state is not ChannelState.CLOSING else None
        if not self._pool.consume(number, flow, message_bytes) and flow is not None:
            raise LocalProtocolError(f"channel {number} has no message of {message_bytes} bytes waiting")

    def flush(self, number: int) -> bool:
        """Asks for Writable once the channel's queue is empty. Returns True, and does not report, if it is empty now."""
        channel = self._channels.get(number)
        if channel is None or not channel.outflow.queued_bytes:
            return True
        channel.outflow.flush_asked = True
        return False

    def close_channel(self, number: int, code: CloseCode, now_ms: int) -> None:
        """Closes a channel at once; what is queued is dropped. Harmless on a channel that is closing or gone."""
        channel = self._channels.get(number)
        if channel is None or channel.state is ChannelState.CLOSING:
            return
        if channel.state is ChannelState.REQUESTED:
            raise LocalProtocolError("a channel that was asked for is accepted or refused")
        self._send_control(encode_number_frame(FrameType.CLOSE, number, code))
        self._start_closing(channel, now_ms, keep_waiting=False)

    # --- Frames ---

    def receive(self, frame_type: int, number: int, payload: memoryview, now_ms: int) -> None:
        """Takes one frame of a channel.

        Raises:
            RemoteProtocolError: the remote side broke a rule; the link must end.
        """
        if frame_type == FrameType.DATA or frame_type == FrameType.DATA_END:
            self._on_data(self._remote_use(number), payload, is_end=frame_type == FrameType.DATA_END)
        elif frame_type == FrameType.CREDIT:
            self._on_credit(self._remote_use(number), decode_credit(payload))
        elif frame_type <= FrameType.OPEN_WITH_PROOF:
            self._on_open(number, bytes(payload), has_proof=frame_type == FrameType.OPEN_WITH_PROOF, now_ms=now_ms)
        elif frame_type == FrameType.ACCEPT:
            self._on_accept(self._remote_use(number), bytes(payload))
        elif frame_type == FrameType.REFUSE:
            self._on_refuse(self._remote_use(number), bytes(payload))
        elif frame_type == FrameType.RETURN:
            self._on_return(self._remote_use(number), decode_credit(payload))
        else:
            self._on_close(self._remote_use(number), decode_close_code(payload))

    def _on_open(self, number: int, payload: bytes, *, has_proof: bool, now_ms: int) -> None:
        if number != self._next_remote:
            raise RemoteProtocolError(CloseCode.PROTOCOL, f"OPEN of channel {number} instead of {self._next_remote}")
        if not self._remote_opens.take(now_ms):
            raise RemoteProtocolError(CloseCode.TOO_MANY, "opens too fast")
        if self._remote_count >= CHANNELS_MAX:
            raise RemoteProtocolError(CloseCode.TOO_MANY, f"more than {CHANNELS_MAX} channels")
        is_room = len(self._channels) + self._pool.lingering_channels < CHANNELS_MAX
        self._next_remote += 2
        self._add(number, is_local=False, has_proof=has_proof)
        if is_room:
            self.effects.append(OpenRequested(number, payload, has_proof))
        else:
            # Both sides' opens crossed; nobody is at fault.
            self.refuse(number, b"", now_ms)

    def _on_accept(self, channel: _Channel, payload: bytes) -> None:
        if channel.state is ChannelState.OPENING:
            channel.state = ChannelState.OPEN
            channel.outflow.may_send = True
            self._scheduler.place(channel.outflow)
            self.effects.append(Accepted(channel.number, payload))
        elif channel.unanswered:
            channel.unanswered = False
        else:
            raise _misplaced("ACCEPT", channel)

    def _on_refuse(self, channel: _Channel, payload: bytes) -> None:
        if channel.state is ChannelState.OPENING:
            self._send_control(encode_number_frame(FrameType.CLOSE, channel.number, CloseCode.NORMAL))
            self.effects.append(Refused(channel.number, payload))
        elif not channel.unanswered:
            raise _misplaced("REFUSE", channel)
        self._forget(channel, keep_waiting=False)

    def _on_data(self, channel: _Channel, payload: memoryview, *, is_end: bool) -> None:
        state = channel.state
        if state is ChannelState.CLOSING:
            cost_bytes = len(payload)
            if channel.unanswered or cost_bytes > channel.inflow.credit_bytes:
                raise _misplaced("DATA", channel)
            channel.inflow.credit_bytes -= cost_bytes
            return
        if state is not ChannelState.OPEN and not (state is ChannelState.REQUESTED and channel.has_proof):
            raise _misplaced("DATA", channel)
        message = self._pool.receive(channel.inflow, payload, is_end=is_end)
        if message is not None:
            self.effects.append(MessageReceived(channel.number, message))

    def _on_credit(self, channel: _Channel, credit_bytes: int) -> None:
        state = channel.state
        if state is ChannelState.OPEN or (state is ChannelState.OPENING and channel.has_proof):
            self._scheduler.add_credit(channel.outflow, credit_bytes)
        elif state is not ChannelState.CLOSING:
            raise _misplaced("CREDIT", channel)

    def _on_return(self, channel: _Channel, credit_bytes: int) -> None:
        state = channel.state
        if state is ChannelState.OPEN or (state is ChannelState.REQUESTED and channel.has_proof):
            self._pool.take_back(channel.inflow, credit_bytes)
        elif state is not ChannelState.CLOSING:
            raise _misplaced("RETURN", channel)

    def _on_close(self, channel: _Channel, code: CloseCode) -> None:
        if channel.state is ChannelState.OPENING:
            raise _misplaced("CLOSE", channel)
        if channel.state is not ChannelState.CLOSING:
            self._send_control(encode_number_frame(FrameType.CLOSE, channel.number, CloseCode.NORMAL))
            self.effects.append(ChannelClosed(channel.number, code))
        self._forget(channel, keep_waiting=True)

    # --- Output and time ---

    def pull(self, bytes_max: int, now_ms: int, first: bytes = b"") -> bytes:
        """Packs the next frames: control frames, then live messages, then bulk.

        Args:
            bytes_max: room in the Noise message, enough for any control frame.
            now_ms: now.
            first: frames of the link's own that go before all others.

        Returns:
            Whole frames; empty if there is nothing to send.
        """
        parts: list[bytes | memoryview] = [first]
        left_bytes = bytes_max - len(first)
        while self._control and len(self._control[0]) <= left_bytes:
            frame = self._control.popleft()
            self._control_bytes -= len(frame)
            left_bytes -= len(frame)
            parts.append(frame)
        self._scheduler.pack(parts, left_bytes, now_ms)
        if self._scheduler.drained:
            self.effects.extend(Writable(number) for number in self._scheduler.drained)
            self._scheduler.drained.clear()
        return b"".join(parts)

    def upkeep(self, now_ms: int, elapsed_ms: int) -> None:
        """Looks for what time alone brings; called about every UPKEEP_INTERVAL_MS while `needs_upkeep`.

        Args:
            now_ms: now.
            elapsed_ms: since the last call, or since `needs_upkeep` became true.

        Raises:
            RemoteProtocolError: TIMEOUT if a CLOSE or REFUSE stays unanswered; the link must end.
        """
        for number, credit_bytes in self._scheduler.take_unused_credit(now_ms):
            self._send_control(encode_number_frame(FrameType.RETURN, number, credit_bytes))
        for channel in self._closing.values():
            if now_ms - channel.closing_since_ms > CLOSE_ANSWER_MS:
                raise RemoteProtocolError(CloseCode.TIMEOUT, f"channel {channel.number} was closed and no answer came")
            break  # they are in the order of their closing
        for number in self._pool.slow_channels(elapsed_ms):
            channel = self._channels[number]
            if channel.state is ChannelState.REQUESTED:
                self.refuse(number, b"", now_ms)
            else:
                self._send_control(encode_number_frame(FrameType.CLOSE, number, CloseCode.TIMEOUT))
                self._start_closing(channel, now_ms, keep_waiting=True)
            self.effects.append(ChannelClosed(number, CloseCode.TIMEOUT))

    # --- Within ---

    def _add(self, number: int, *, is_local: bool, has_proof: bool) -> _Channel:
        proof_bytes_left = PROOF_BYTES_MAX if has_proof and not is_local else None
        channel = _Channel(
            number,
            is_local,
            has_proof,
            ChannelState.OPENING if is_local else ChannelState.REQUESTED,
            Inflow(number, proof_bytes_left=proof_bytes_left),
            Outflow(number),
        )
        self._channels[number] = channel
        self._remote_count += not is_local
        return channel

    def _start_closing(self, channel: _Channel, now_ms: int, *, keep_waiting: bool) -> None:
        """Frees what the channel holds and waits for the remote side's CLOSE. Its credit stays, for frames still under way."""
        channel.unanswered = channel.state is ChannelState.OPENING
        channel.state = ChannelState.CLOSING
        channel.closing_since_ms = now_ms
        self._closing[channel.number] = channel
        credit_bytes = channel.inflow.credit_bytes
        self._scheduler.forget(channel.outflow)
        self._pool.forget(channel.inflow, keep_waiting=keep_waiting)
        # A second half carries the credit on, so that what stays charged in the pool is not touched by it.
        channel.inflow = Inflow(channel.number, proof_bytes_left=None)
        channel.inflow.credit_bytes = credit_bytes

    def _forget(self, channel: _Channel, *, keep_waiting: bool) -> None:
        """The number is gone."""
        if channel.state is ChannelState.CLOSING:
            del self._closing[channel.number]
        else:
            self._scheduler.forget(channel.outflow)
            self._pool.forget(channel.inflow, keep_waiting=keep_waiting)
        del self._channels[channel.number]
        self._remote_count -= not channel.is_local

    def _local_use(self, number: int, *states: ChannelState) -> _Channel:
        channel = self._channels.get(number)
        if channel is None or channel.state not in states:
            raise LocalProtocolError(f"channel {number} is {channel.state.value if channel else 'not there'}")
        return channel

    def _remote_use(self, number: int) -> _Channel:
        channel = self._channels.get(number)
        if channel is None:
            raise RemoteProtocolError(CloseCode.PROTOCOL, f"a frame of channel {number}, which is not there")
        return channel

    def _send_credit(self, number: int, credit_bytes: int) -> None:
        self._send_control(encode_number_frame(FrameType.CREDIT, number, credit_bytes))

    def _send_control(self, frame: bytes) -> None:
        self._control.append(frame)
        self._control_bytes += len(frame)


def _check_payload(payload: bytes) -> None:
    if len(payload) > OPEN_PAYLOAD_BYTES_MAX:
        raise LocalProtocolError(f"a payload of {len(payload)} bytes")


def _misplaced(frame: str, channel: _Channel) -> RemoteProtocolError:
    return RemoteProtocolError(CloseCode.PROTOCOL, f"{frame} while channel {channel.number} is {channel.state.value}")
