"""The machine of one link: handshake, multiplexer, pings, and the end (SPEC: L-1 to L-8, DESIGN 5).

A transport message carries one or more Noise messages, each after its length in two bytes. The machine gets whole transport
messages by `receive` and is asked for the next one by `pull`; it never waits and never does I/O.
"""

from __future__ import annotations

import enum
from typing import Final

from peersd_protocol.constants import (
    HANDSHAKE_TIMEOUT_MS,
    KIB,
    NOISE_MESSAGE_BYTES_MAX,
    NOISE_TAG_BYTES,
    PING_INTERVAL_MS,
    PINGS_MISSED_MAX,
    TRANSPORT_MESSAGE_BYTES_MAX,
    UPKEEP_INTERVAL_MS,
)
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.frames import (
    LINK_CHANNEL,
    FrameType,
    decode_clock,
    decode_close_code,
    decode_frames,
    encode_clock_frame,
    encode_number_frame,
)
from peersd_protocol.handshake import Established, Handshake, Role
from peersd_protocol.link_effects import (
    Accepted,
    CancelTimer,
    ChannelClosed,
    Down,
    Effect,
    MessageReceived,
    OpenRequested,
    PeerClock,
    Refused,
    RttMeasured,
    SetTimer,
    Up,
    Wake,
    Writable,
)
from peersd_protocol.mux import Mux

__all__ = [
    "Accepted",
    "CancelTimer",
    "ChannelClosed",
    "Down",
    "Effect",
    "Link",
    "LinkState",
    "MessageReceived",
    "OpenRequested",
    "PeerClock",
    "Refused",
    "RttMeasured",
    "SetTimer",
    "Up",
    "Wake",
    "Writable",
]

TIMER_HANDSHAKE: Final = "handshake"
TIMER_PING: Final = "ping"
TIMER_UPKEEP: Final = "upkeep"

_LENGTH_BYTES: Final = 2
_NOISE_OVERHEAD_BYTES: Final = _LENGTH_BYTES + NOISE_TAG_BYTES
_PLAINTEXT_BYTES_MAX: Final = NOISE_MESSAGE_BYTES_MAX - NOISE_TAG_BYTES
_ROOM_BYTES_MIN: Final = 16 * KIB
"""No Noise message is begun in less room than this, of which its tag and header are 0.2 % (guess)."""

_PULL_BYTES_MIN: Final = 32 * KIB
_PULL_SLOW_MS: Final = 20
_PULL_FAST_MS: Final = 5
"""A transport message that takes longer than the first to be written is halved next time, and doubled if faster than the second:
a live message waits for the one under way, 260 ms on 1 MB/s if that were always TRANSPORT_MESSAGE_BYTES_MAX."""


class LinkState(enum.Enum):
    """What a link may carry.

    HANDSHAKE: handshake messages. HELD: nothing is sent until `release`, and what comes is kept (it can be only what the credit
    at the start allows). CARRYING: frames. DOWN: nothing but a last GOAWAY.
    """

    HANDSHAKE = "handshake"
    HELD = "held"
    CARRYING = "carrying"
    DOWN = "down"


class Link:
    """One link, from the first byte to the last.

    Every command returns effects, to be performed in their order. On a link that is down all commands but `open_channel` do
    nothing: it can go down at any time, and who uses it hears of it a moment later.

    Args:
        role: who dialled.
        handshake: one made for this link with the same role.
        wall_offset_ms: what to add to `now_ms` to get the wall clock in ms since 1970; may be set again at any time.
    """

    def __init__(self, role: Role, handshake: Handshake, *, wall_offset_ms: int = 0) -> None:
        self.wall_offset_ms = wall_offset_ms
        self.state = LinkState.HANDSHAKE
        self._role = role
        self._handshake = handshake
        self._established: Established | None = None
        self._outbox: list[bytes] = []
        self._mux = Mux(is_dialler=role is Role.DIALLER, now_ms=0)
        self._effects: list[Effect] = []
        self._held: list[Effect] = []
        self._is_woken = False
        self._upkeep_since_ms: int | None = None
        self._farewell: bytes | None = None
        self._ping_nonce = 0
        self._ping_due = False
        self._ping_sent_ms: int | None = None
        self._pong_nonce: int | None = None
        self._heard = False
        self._is_confirmed = False
        self._silent_pings = 0
        self._unsent_pings = 0
        self._pull_bytes_max = TRANSPORT_MESSAGE_BYTES_MAX
        self._pulled_ms: int | None = None

    # --- Life ---

    def start(self, now_ms: int) -> list[Effect]:
        """Begins the handshake, which has HANDSHAKE_TIMEOUT_MS from here to `release`."""
        self._effects.append(SetTimer(TIMER_HANDSHAKE, now_ms + HANDSHAKE_TIMEOUT_MS))
        first = self._handshake.start()
        if first is not None:
            self._outbox.append(first)
        return self._finish(now_ms)

    def release(self, now_ms: int) -> list[Effect]:
        """The link stays: it may carry channels. A dialler sends the last message of the handshake only now.

        Raises:
            LocalProtocolError: the handshake is not over, or the link was released before.
        """
        if self.state is LinkState.DOWN:
            return []
        if self.state is not LinkState.HELD:
            raise LocalProtocolError(f"released while {self.state.value}")
        self.state = LinkState.CARRYING
        self._ping_due = True
        self._effects += [SetTimer(TIMER_PING, now_ms + PING_INTERVAL_MS), *self._held]
        if self._role is Role.LISTENER:
            self._confirm()
        self._held.clear()
        return self._finish(now_ms)

    def _confirm(self) -> None:
        """The remote side has the link too: a listener knows by message 3, a dialler by the first frames (SPEC: N-12)."""
        self._is_confirmed = True
        self._effects.append(CancelTimer(TIMER_HANDSHAKE))

    def close(self, code: CloseCode, now_ms: int, detail: str = "closed here") -> list[Effect]:
        """Ends the link: GOAWAY if the remote side can read it, and Down."""
        if self.state is not LinkState.DOWN:
            self._end(code, detail, by_remote=False)
        return self._finish(now_ms)

    def receive(self, data: bytes | memoryview, now_ms: int) -> list[Effect]:
        """Takes one transport message. Whatever is wrong with it ends the link; nothing is raised."""
        if self.state is LinkState.DOWN:
            return []
        try:
            self._receive(data, now_ms)
        except RemoteProtocolError as error:
            self._end(error.close_code, error.detail, by_remote=False)
        return self._finish(now_ms)

    def timer_expired(self, timer: str, now_ms: int) -> list[Effect]:
        """A timer that SetTimer asked for ran out."""
        if self.state is LinkState.DOWN:
            return []
        try:
            if timer == TIMER_PING:
                self._on_ping_timer(now_ms)
            elif timer == TIMER_UPKEEP:
                since_ms = now_ms if self._upkeep_since_ms is None else self._upkeep_since_ms
                self._upkeep_since_ms = None
                self._mux.upkeep(now_ms, now_ms - since_ms)
            elif not self._is_confirmed:
                raise RemoteProtocolError(CloseCode.TIMEOUT, "the handshake took too long")
        except RemoteProtocolError as error:
            self._end(error.close_code, error.detail, by_remote=False)
        return self._finish(now_ms)

    def pull(self, now_ms: int) -> bytes | None:
        """The next transport message to write, of at most TRANSPORT_MESSAGE_BYTES_MAX; None if there is nothing now.

        To be called again as soon as the transport has taken the last one, and after each Wake; `take_effects` follows.
        """
        if self.state is LinkState.DOWN:
            farewell, self._farewell = self._farewell, None
            return farewell
        if self._outbox and self._may_send_handshake:
            message = self._outbox.pop(0)
            return len(message).to_bytes(_LENGTH_BYTES, "big") + message
        parts: list[bytes] = []
        if self.state is LinkState.CARRYING:
            self._note_pace(now_ms)
            self._pull_frames(parts, now_ms)
        if not parts:
            self._is_woken = False
            self._pulled_ms = None
            return None
        return b"".join(parts)

    def take_effects(self, now_ms: int) -> list[Effect]:
        """Effects that arose from `pull`."""
        return self._finish(now_ms)

    # --- Channels ---

    def open_wait_ms(self, now_ms: int) -> int | None:
        """Ms until `open_channel` is allowed; 0 means now, None that it is not before some channel closes."""
        return self._mux.open_wait_ms(now_ms)

    def open_channel(self, payload: bytes, now_ms: int, *, proof_follows: bool = False) -> tuple[int, list[Effect]]:
        """Asks for a channel; Accepted, Refused or, when the remote side is too slow, ChannelClosed follows.

        Args:
            payload: of OPEN, at most OPEN_PAYLOAD_BYTES_MAX.
            now_ms: now.
            proof_follows: whether messages of at most PROOF_BYTES_MAX in sum are sent before the answer.

        Returns:
            The channel's number, and effects.

        Raises:
            LocalProtocolError: the link does not carry channels, or `open_wait_ms` is not 0.
        """
        if self.state is not LinkState.CARRYING:
            raise LocalProtocolError(f"open_channel while {self.state.value}")
        number = self._mux.open_channel(payload, proof_follows=proof_follows, now_ms=now_ms)
        return number, self._finish(now_ms)

    def accept(self, channel: int, payload: bytes, now_ms: int) -> list[Effect]:
        """Answers OpenRequested: the channel is open."""
        if self.state is LinkState.CARRYING:
            self._mux.accept(channel, payload)
        return self._finish(now_ms)

    def refuse(self, channel: int, now_ms: int, payload: bytes = b"") -> list[Effect]:
        """Answers OpenRequested: the channel is gone."""
        if self.state is LinkState.CARRYING:
            self._mux.refuse(channel, payload, now_ms)
        return self._finish(now_ms)

    def send(self, channel: int, message: bytes, now_ms: int, *, bulk: bool, in_order: bool = False) -> list[Effect]:
        """Queues a message of 1 to MESSAGE_BYTES_MAX bytes; see Scheduler.enqueue.

        Raises:
            LocalProtocolError: the channel may not send, or `is_full`.
        """
        if self.state is LinkState.CARRYING:
            self._mux.send(channel, message, bulk=bulk, in_order=in_order)
        return self._finish(now_ms)

    def is_full(self, channel: int) -> bool:
        """Whether `send` has to wait for Writable."""
        return self._mux.is_full(channel)

    def flush(self, channel: int) -> bool:
        """Asks for Writable once all queued on the channel was pulled; True, without a report, if there is nothing."""
        return self._mux.flush(channel)

    def want(self, channel: int, now_ms: int, *, wanted: bool = True) -> list[Effect]:
        """The application waits for the channel's next message. A message of more than the first credit comes only then.

        The end of each message ends the wish. An application that gives up waiting says so with `wanted=False`.
        """
        if self.state is LinkState.CARRYING:
            self._mux.want(channel, wanted=wanted)
        return self._finish(now_ms)

    def consumed(self, channel: int, message_bytes: int, now_ms: int) -> list[Effect]:
        """The application has taken a message of that length, which frees its room."""
        if self.state is LinkState.CARRYING:
            self._mux.consumed(channel, message_bytes)
        return self._finish(now_ms)

    def close_channel(self, channel: int, code: CloseCode, now_ms: int) -> list[Effect]:
        """Closes a channel at once: what is queued is dropped, what was received counts as consumed."""
        if self.state is LinkState.CARRYING:
            self._mux.close_channel(channel, code, now_ms)
        return self._finish(now_ms)

    # --- Within ---

    @property
    def _may_send_handshake(self) -> bool:
        # A dialler's last message waits for `release`: without it the other side never has the link (SPEC: L-13).
        return self.state is not LinkState.HELD

    def _finish(self, now_ms: int) -> list[Effect]:
        """Ends a call: gathers the effects, asks for upkeep, wakes the writer."""
        if self._mux.is_overrun and self.state is not LinkState.DOWN:
            self._end(CloseCode.TOO_MANY, "the remote side asks for answers and does not read them", by_remote=False)
        effects, self._effects = self._effects, []
        if self.state is LinkState.DOWN:
            self._mux.effects.clear()
            return effects
        if self._mux.effects:
            (effects if self.state is LinkState.CARRYING else self._held).extend(self._mux.effects)
            self._mux.effects.clear()
        if self._upkeep_since_ms is None and self._mux.needs_upkeep:
            self._upkeep_since_ms = now_ms
            effects.append(SetTimer(TIMER_UPKEEP, now_ms + UPKEEP_INTERVAL_MS))
        if not self._is_woken and self._has_output:
            self._is_woken = True
            effects.append(Wake())
        return effects

    @property
    def _has_output(self) -> bool:
        if self._outbox and self._may_send_handshake:
            return True
        if self.state is not LinkState.CARRYING:
            return False
        return self._ping_due or self._pong_nonce is not None or self._mux.has_output

    def _end(self, code: CloseCode, detail: str, *, by_remote: bool) -> None:
        # A dialler whose last message has not left keeps silent: the other side has no keys yet, and now never will.
        if self._established is not None and not by_remote and not self._outbox:
            goaway = self._established.send.encrypt(encode_number_frame(FrameType.GOAWAY, LINK_CHANNEL, code))
            self._farewell = len(goaway).to_bytes(_LENGTH_BYTES, "big") + goaway
        self.state = LinkState.DOWN
        self._outbox.clear()
        self._held.clear()
        self._effects += [CancelTimer(timer) for timer in (TIMER_HANDSHAKE, TIMER_PING, TIMER_UPKEEP)]
        self._effects.append(Down(code, detail, by_remote))

    def _receive(self, data: bytes | memoryview, now_ms: int) -> None:
        end = len(data)
        if not end:
            raise RemoteProtocolError(CloseCode.MALFORMED, "an empty transport message")
        if end > TRANSPORT_MESSAGE_BYTES_MAX:
            raise RemoteProtocolError(CloseCode.TOO_LARGE, f"a transport message of {end} bytes")
        at = 0
        view = memoryview(data)  # slices of it copy nothing
        while at < end and self.state is not LinkState.DOWN:
            begin = at + _LENGTH_BYTES
            at = begin + int.from_bytes(view[at:begin], "big")
            if at > end or at == begin:
                raise RemoteProtocolError(CloseCode.MALFORMED, "a Noise message is cut off or empty")
            if self._established is None:
                if begin != _LENGTH_BYTES or at != end:
                    raise RemoteProtocolError(CloseCode.HANDSHAKE, "a handshake message does not stand alone")
                self._on_handshake_message(bytes(view[begin:at]), now_ms)
            else:
                self._on_frames(self._established.receive.decrypt(view[begin:at]), now_ms)

    def _on_handshake_message(self, message: bytes, now_ms: int) -> None:
        step = self._handshake.receive(message)
        if step.reply is not None:
            self._outbox.append(step.reply)
        if step.result is not None:
            self._established = done = step.result
            self.state = LinkState.HELD
            self._mux = Mux(is_dialler=self._role is Role.DIALLER, now_ms=now_ms)
            self._effects.append(
                Up(done.remote_device, done.remote_boot_id, done.remote_replaces, done.is_alone, done.handshake_hash)
            )

    def _on_frames(self, plaintext: bytes, now_ms: int) -> None:
        self._heard = True
        if not self._is_confirmed:
            self._confirm()
        mux_receive = self._mux.receive
        for frame_type, channel, payload in decode_frames(plaintext):
            if frame_type < FrameType.PING:
                mux_receive(frame_type, channel, payload, now_ms)
            elif frame_type == FrameType.PING:
                # Only the newest is answered: a remote side that does not read cannot pile up answers.
                self._pong_nonce, _ = decode_clock(payload)
            elif frame_type == FrameType.PONG:
                self._on_pong(*decode_clock(payload), now_ms)
            else:
                self._end(decode_close_code(payload), "the remote side closed the link", by_remote=True)
                return

    def _on_pong(self, nonce: int, remote_wall_ms: int, now_ms: int) -> None:
        if nonce != self._ping_nonce or self._ping_sent_ms is None:
            return  # late, and its ping was already followed by another
        rtt_ms = max(0, now_ms - self._ping_sent_ms)
        local_wall_ms = self._ping_sent_ms + rtt_ms // 2 + self.wall_offset_ms
        self._ping_sent_ms = None
        self._effects += [RttMeasured(rtt_ms), PeerClock(remote_wall_ms - local_wall_ms)]

    def _on_ping_timer(self, now_ms: int) -> None:
        """Counts pings after which nothing at all was heard, and pings that the transport did not even take.

        Any authentic message shows life, not a PONG alone: on a slow network a PONG can stand behind a long message.
        """
        self._silent_pings = 0 if self._heard else self._silent_pings + 1
        self._unsent_pings = self._unsent_pings + 1 if self._ping_due else 0
        self._heard = False
        if max(self._silent_pings, self._unsent_pings) >= PINGS_MISSED_MAX:
            raise RemoteProtocolError(CloseCode.TIMEOUT, f"{PINGS_MISSED_MAX} pings without an answer")
        self._ping_due = True
        self._effects.append(SetTimer(TIMER_PING, now_ms + PING_INTERVAL_MS))

    def _note_pace(self, now_ms: int) -> None:
        """Fits the size of transport messages to how long the last one took to be written."""
        if self._pulled_ms is not None:
            took_ms = now_ms - self._pulled_ms
            if took_ms > _PULL_SLOW_MS:
                self._pull_bytes_max = max(_PULL_BYTES_MIN, self._pull_bytes_max // 2)
            elif took_ms < _PULL_FAST_MS:
                self._pull_bytes_max = min(TRANSPORT_MESSAGE_BYTES_MAX, self._pull_bytes_max * 2)
        self._pulled_ms = now_ms

    def _pull_frames(self, parts: list[bytes], now_ms: int) -> None:
        assert self._established is not None
        encrypt = self._established.send.encrypt
        left_bytes = self._pull_bytes_max - _NOISE_OVERHEAD_BYTES
        first = self._clock_frames(now_ms)
        while left_bytes >= _ROOM_BYTES_MIN:
            plaintext = self._mux.pull(min(_PLAINTEXT_BYTES_MAX, left_bytes), now_ms, first)
            if not plaintext:
                return
            first = b""
            message = encrypt(plaintext)
            parts += (len(message).to_bytes(_LENGTH_BYTES, "big"), message)
            left_bytes -= len(message) + _LENGTH_BYTES

    def _clock_frames(self, now_ms: int) -> bytes:
        """The PING and PONG that are due, with the clock as it is when they leave."""
        wall_ms = now_ms + self.wall_offset_ms
        frames = b""
        if self._pong_nonce is not None:
            frames = encode_clock_frame(FrameType.PONG, self._pong_nonce, wall_ms)
            self._pong_nonce = None
        if self._ping_due:
            self._ping_due = False
            self._ping_nonce += 1
            self._ping_sent_ms = now_ms
            frames += encode_clock_frame(FrameType.PING, self._ping_nonce, wall_ms)
        return frames
