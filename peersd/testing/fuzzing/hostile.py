"""The hostile device's end of the link: it keeps to the rules below the sessions as far as a case does not break them."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Final

from peersd.testing.fuzzing.repeating import KeptHandshake
from peersd.testing.fuzzing.victim import Victim
from peersd.testing.fuzzing.world import World
from peersd_protocol.constants import LANE_RETRY_MS, TRANSPORT_MESSAGE_BYTES_MAX
from peersd_protocol.errors import CloseCode
from peersd_protocol.frames import FrameType, decode_clock, decode_frames
from peersd_protocol.handshake import Established, Handshake, Role
from peersd_protocol.link_effects import Accepted, ChannelClosed, MessageReceived, OpenRequested, Refused
from peersd_protocol.mux import Mux
from peersd_protocol.noise import CipherState
from peersd_protocol.signing import HASH_BYTES
from peersd_protocol.tokens import DIGEST_BYTES, SIDE_DIALLER, SIDE_LISTENER, AcceptPayload, OpenPayload, decode_open, group_token

PLAINTEXT_BYTES_MAX: Final = 65_519
ROUNDS_MAX: Final = 10_000
FAULTS_MAX: Final = 3
"""Of a session's faults on one link: the time that it has to wait doubles each time."""


class NotConnected(AssertionError):
    """The hostile device kept to the rules and does not get on: a fault of the case, or of the victim."""


class Hostile:
    """One end, over one link after another.

    Args:
        world: the group.
        victim: the other end.
        role: of this end.
        random: draws keys.

    Attributes:
        channel: the group's, while one is open.
        requests: what the victim wants to open and was not answered.
        is_reading: whether it takes what it is sent; else the victim's queues fill.
        nonces: of the victim's pings.
        refused_opens: how many of its own OPENs were refused on this link.
    """

    def __init__(self, world: World, victim: Victim, role: Role, random: Random) -> None:
        self._world = world
        self._victim = victim
        self.role = role
        self._random = random
        self._kept: tuple[KeptHandshake, KeptHandshake] | None = None
        self._established: Established | None = None
        self.mux = Mux(is_dialler=role is Role.DIALLER, now_ms=0)
        self.channel: int | None = None
        self.requests: deque[OpenRequested] = deque()
        self.opened: set[int] = set()
        self.is_reading = True
        self.nonces: list[int] = []
        self.refused_opens = 0
        self._faults = 0

    # --- The link ---------------------------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether there is a link."""
        return self._established is not None and self._victim.down is None

    def connect(self) -> None:
        """Makes a new link by a good handshake: a real one at first, and then the same again."""
        self.forget()
        victim, random = self._victim, self._random
        victim_role = Role.LISTENER if self.role is Role.DIALLER else Role.DIALLER
        if self._kept is None:
            keys, boot_id, ephemeral = self._world.hostile.keys, random.randbytes(16), random.randbytes(32)
            local = KeptHandshake(self.role, keys, boot_id=boot_id, ephemeral_private=ephemeral)
            self._kept = local, victim.make_handshake(victim_role, random.randbytes(32))
            sides: tuple[Handshake, Handshake] = self._kept
        else:
            sides = self._kept[0].again(), self._kept[1].again()
        own, theirs = sides
        victim.connect(victim_role, theirs)
        message = own.start()
        established: Established | None = None
        early: list[bytes] = []
        for _ in range(3):
            if message is not None:
                victim.receive(len(message).to_bytes(2, "big") + message)
                message = None
            if established is not None:
                break
            for answer in victim.pull():
                if established is not None:
                    early.append(answer)  # a dialler's frames follow its last message
                    continue
                step = own.receive(answer[2:])
                message, established = step.reply, step.result
        if established is None or victim.down is not None:
            raise NotConnected(f"a good handshake fails: {victim.down}")
        self._established = established
        self.mux = Mux(is_dialler=self.role is Role.DIALLER, now_ms=victim.now_ms)
        for answer in early:
            self._read(answer)
        self.pump()

    def forget(self) -> None:
        """The link is over, or dropped."""
        self._victim.disconnect()
        self._established = None
        self.channel = None
        self.requests.clear()
        self.opened.clear()
        self.nonces.clear()
        self.refused_opens = 0
        self._faults = 0

    @property
    def handshake_hash(self) -> bytes:
        """Of the link."""
        assert self._established is not None
        return self._established.handshake_hash

    @property
    def sending(self) -> CipherState:
        """What encrypts."""
        assert self._established is not None
        return self._established.send

    def encrypt(self, plaintext: bytes) -> bytes:
        """A transport message of one Noise message."""
        message = self.sending.encrypt(plaintext)
        return len(message).to_bytes(2, "big") + message

    def inject(self, frames: bytes) -> None:
        """Sends frames as they are, past the own multiplexer."""
        self._victim.receive(self.encrypt(frames))

    def send_raw(self, message: bytes) -> None:
        """Sends a transport message as it is."""
        self._victim.receive(message)

    # --- Frames -----------------------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Sends what the own multiplexer has, and takes what the victim says, until neither has more."""
        for _ in range(ROUNDS_MAX):
            if not self.is_up:
                return
            plaintext = self.mux.pull(PLAINTEXT_BYTES_MAX, self._victim.now_ms) if self.mux.has_output else b""
            if plaintext:
                self.inject(plaintext)
            heard = self._victim.pull()
            for message in heard:
                self._read(message)
            if not plaintext and not heard:
                return
        raise AssertionError("the two never end talking")

    def _read(self, message: bytes) -> None:
        assert self._established is not None and len(message) <= TRANSPORT_MESSAGE_BYTES_MAX
        at = 0
        while at < len(message):
            begin = at + 2
            at = begin + int.from_bytes(message[at:begin], "big")
            for frame_type, channel, payload in decode_frames(self._established.receive.decrypt(message[begin:at])):
                if frame_type < FrameType.PING:
                    self.mux.receive(frame_type, channel, payload, self._victim.now_ms)
                elif frame_type == FrameType.PING:
                    self.nonces.append(decode_clock(payload)[0])
        self._take_effects()

    def _take_effects(self) -> None:
        while self.mux.effects:
            effects = list(self.mux.effects)
            self.mux.effects.clear()
            for effect in effects:
                match effect:
                    case OpenRequested():
                        self.requests.append(effect)
                    case Accepted(channel, _):
                        self._use(channel)
                    case Refused():
                        self.refused_opens += 1
                    case ChannelClosed(channel, _):
                        self._lose(channel)
                    case MessageReceived(channel, message):
                        self._heard(channel, len(message))
                    case _:
                        pass

    def _use(self, channel: int) -> None:
        self.channel = channel
        self.opened.add(channel)
        if self.is_reading:
            self.mux.want(channel, wanted=True)

    def _lose(self, channel: int) -> None:
        self.opened.discard(channel)
        if self.channel == channel:
            self.channel = None
        self.requests = deque(request for request in self.requests if request.channel != channel)

    def _heard(self, channel: int, message_bytes: int) -> None:
        if self.is_reading:
            self.mux.consumed(channel, message_bytes)
            self.mux.want(channel, wanted=True)

    # --- Channels ---------------------------------------------------------------------------------------------------------------

    def open_payload(self) -> OpenPayload:
        """A good OPEN of the group."""
        side = SIDE_DIALLER if self.role is Role.DIALLER else SIDE_LISTENER
        token = group_token(self._world.group, self.handshake_hash, side)
        return OpenPayload(token, self._random.randbytes(DIGEST_BYTES), self._random.randbytes(8))

    def accept_payload(self) -> AcceptPayload:
        """A good ACCEPT."""
        return AcceptPayload(self._random.randbytes(DIGEST_BYTES), self._random.randbytes(8))

    def open_channel(self) -> None:
        """Makes sure that a session runs, by good frames alone."""
        for _ in range(8):
            if not self.is_up:
                self.connect()
            self.pump()
            if self.channel is not None:
                return
            if self.requests:
                request = self.requests.popleft()
                self.mux.accept(request.channel, self.accept_payload().encode(decode_open(request.payload)))
                self._use(request.channel)
            else:
                self.mux.open_channel(self.open_payload().encode(), proof_follows=False, now_ms=self._victim.now_ms)
            self.pump()
            if self.channel is not None:
                return
            if self.refused_opens:
                self.connect()  # who broke a rule is refused for a while; on another link there is nothing to be held against it
            self._victim.advance(200)
        raise NotConnected(f"no channel comes up: {self._victim.refusals[-3:]}")

    def wait_out(self) -> None:
        """Lets the time pass for which the victim refuses the channel after a fault; a new link where that has grown long."""
        self._faults += 1
        if self._faults > FAULTS_MAX:
            self.forget()
        else:
            self._victim.advance(LANE_RETRY_MS << self._faults)

    def send(self, message: bytes) -> None:
        """Sends a message of the session."""
        if self.channel is not None and self.is_up:
            self.mux.send(self.channel, message, bulk=False)
            self.pump()

    def close_channel(self) -> None:
        """Closes the session's channel."""
        if self.channel is not None:
            self.mux.close_channel(self.channel, CloseCode.NORMAL, self._victim.now_ms)
            self._lose(self.channel)
            self.pump()


assert HASH_BYTES == 32
