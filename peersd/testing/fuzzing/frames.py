"""Frames as a hostile device sends them once the link is up: each type whole, changed in its fields, and changed in its bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Final, TypeAlias

from peersd.testing.fuzzing.forgeries import FORGED, Turns, flipped
from peersd.testing.fuzzing.hostile import Hostile
from peersd.testing.fuzzing.mutation import BOUNDARIES, mutate_bytes, mutate_encoding, mutate_value, pack
from peersd.testing.fuzzing.victim import Victim
from peersd.testing.fuzzing.world import World
from peersd_protocol.canonical import Value
from peersd_protocol.constants import OPEN_PAYLOAD_BYTES_MAX, TRANSPORT_MESSAGE_BYTES_MAX
from peersd_protocol.errors import CloseCode
from peersd_protocol.frames import VARINT_MAX, FrameType, encode_frame, encode_number_frame, encode_varint
from peersd_protocol.messages import MessageType, encode_prune
from peersd_protocol.redemption import Redemption, sign_redemption
from peersd_protocol.runs import run_value
from peersd_protocol.signing import SigningKey

KINDS: Final = (
    *("OPEN", "OPEN_WITH_PROOF", "ACCEPT", "REFUSE", "DATA", "CREDIT", "RETURN", "CLOSE", "PING", "PONG", "GOAWAY"),
    *("unknown frame", "ciphertext", "transport"),
)

Change: TypeAlias = str
"""What was done to a case; GOOD if it keeps the rules."""

GOOD: Final = "good"

_NUMBERS: Final = tuple(number for number in BOUNDARIES if 0 <= number <= VARINT_MAX)


class Frames:
    """Sends the frames of one episode. After a case that is not good the link's state is known to nobody: it is to be dropped.

    Args:
        world: the group.
        hostile: who sends.
        victim: who is sent to.
        turns: of what is forged.
    """

    def __init__(self, world: World, hostile: Hostile, victim: Victim, turns: Turns) -> None:
        self._turns = turns
        self._world = world
        self._hostile = hostile
        self._victim = victim
        self._sends: dict[str, Callable[[Random], Change]] = {
            "OPEN": self._open,
            "OPEN_WITH_PROOF": self._open_with_proof,
            "ACCEPT": lambda random: self._answer(random, FrameType.ACCEPT),
            "REFUSE": lambda random: self._answer(random, FrameType.REFUSE),
            "DATA": self._data,
            "CREDIT": lambda random: self._number(random, FrameType.CREDIT, random.choice((1, 100, 10**6, VARINT_MAX))),
            "RETURN": lambda random: self._number(random, FrameType.RETURN, 1),
            "CLOSE": self._close,
            "PING": lambda random: self._clock(random, FrameType.PING),
            "PONG": lambda random: self._clock(random, FrameType.PONG),
            "GOAWAY": self._goaway,
            "unknown frame": self._unknown,
            "ciphertext": self._ciphertext,
            "transport": self._transport,
        }

    def prepare(self, kind: str) -> None:
        """Brings the link to where a frame of that kind can be good."""
        if kind not in ("ACCEPT", "REFUSE"):
            self._hostile.open_channel()
            return
        self._hostile.connect()
        for _ in range(4):
            if self._hostile.requests:
                return
            self._victim.advance(600)
            self._hostile.pump()
        raise AssertionError("the victim opens no channel by itself")

    def send(self, random: Random, kind: str) -> Change:
        """Sends one case; what was done to it."""
        return self._sends[kind](random)

    # --- Opening ----------------------------------------------------------------------------------------------------------------

    def _open(self, random: Random) -> Change:
        hostile = self._hostile
        payload = hostile.open_payload()
        step = random.random()
        if step < 0.35:
            self._say_open(payload.encode())
            return GOOD
        value: Value = [payload.token, payload.digest, payload.beacons, None]
        if step < 0.7:
            data = pack(mutate_value(random, value)) if random.random() < 0.7 else mutate_encoding(random, value)
            self._say_open(data[:OPEN_PAYLOAD_BYTES_MAX])
            return "value"
        return self._changed(random, encode_frame(FrameType.OPEN, self._free_number, payload.encode()))

    def _say_open(self, payload: bytes, messages: tuple[bytes, ...] = ()) -> None:
        hostile = self._hostile
        number = hostile.mux.open_channel(payload, proof_follows=bool(messages), now_ms=self._victim.now_ms)
        for message in messages:
            hostile.mux.send(number, message, bulk=False)
        hostile.pump()

    @property
    def _free_number(self) -> int:
        return max(self._hostile.opened, default=0) + 2

    def _open_with_proof(self, random: Random) -> Change:
        world, hostile = self._world, self._hostile
        _, key = world.invite
        device = world.hostile.keys.signing
        proof = self._proof(key, device, world.group, hostile.handshake_hash)
        runs: Value = [run_value(run) for run in world.hostile.identity_runs]
        message: Value = [MessageType.RUNS, 0, pack(runs)]
        step = random.random()
        if step < 0.3:
            self._say_proof(proof.value, pack(message))
            return GOOD
        if step < 0.4:
            self._say_proof(True, pack(message) if random.random() < 0.5 else pack(mutate_value(random, message))[:200_000])
            return "plea"
        if step < 0.62:
            other = world.bystander.keys.signing
            forged = (
                replace(self._proof(other, device, world.group, hostile.handshake_hash), invite_public_key=key.public),
                self._proof(other, device, world.group, hostile.handshake_hash),
                replace(proof, device_signature=self._proof(key, other, world.group, hostile.handshake_hash).device_signature),
                replace(proof, device_signature=flipped(random, proof.device_signature)),
                self._proof(key, device, world.group, random.randbytes(32)),
                self._proof(key, device, random.randbytes(32), hostile.handshake_hash),
                replace(proof, invite_signature=flipped(random, proof.invite_signature)),
                replace(proof, invite_hash=world.group),
            )
            self._say_proof(self._turns.pick("proof", forged).value, pack(message))
            return FORGED
        if step < 0.7:
            self._say_proof(mutate_value(random, proof.value), pack(message))
            return "proof"
        if step < 0.84:
            bad: Value = [MessageType.RUNS, 0, pack(mutate_value(random, runs))]
            if random.random() < 0.5:
                bad = mutate_value(random, message)
            self._say_proof(proof.value, pack(bad)[:200_000])
            return "identity"
        opened = [self._hostile.open_payload().token, bytes(16), bytes(8), proof.value]
        return self._changed(random, encode_frame(FrameType.OPEN_WITH_PROOF, self._free_number, pack(opened)[:512]))

    def _say_proof(self, proof: Value, message: bytes) -> None:
        payload = self._hostile.open_payload()
        data = pack([payload.token, payload.digest, payload.beacons, proof])
        self._say_open(data[:OPEN_PAYLOAD_BYTES_MAX], (message,))

    def _proof(self, invite_key: SigningKey, device_key: SigningKey, group: bytes, handshake_hash: bytes) -> Redemption:
        return sign_redemption(
            group_id=group,
            invite_hash=self._world.invite[0],
            invite_key=invite_key,
            user=self._world.hostile.user,
            identity_head_hash=self._world.hostile.identity.last.hash,
            device_key=device_key,
            handshake_hash=handshake_hash,
        )

    def _answer(self, random: Random, frame_type: FrameType) -> Change:
        hostile = self._hostile
        request = hostile.requests.popleft()
        is_accept = frame_type is FrameType.ACCEPT
        value: Value = [random.randbytes(16), random.randbytes(8)] if is_accept else ["invite_used_up"]
        good = pack(value) if is_accept else random.choice((b"", pack(value)))
        step = random.random()
        if step >= 0.7:
            return self._changed(random, encode_frame(frame_type, request.channel, good))
        payload, change = good, GOOD
        if step >= 0.35:
            payload = pack(mutate_value(random, value)) if random.random() < 0.7 else mutate_encoding(random, value)
            payload, change = payload[:OPEN_PAYLOAD_BYTES_MAX], "value"
        if is_accept:
            hostile.mux.accept(request.channel, payload)
        else:
            hostile.mux.refuse(request.channel, payload, self._victim.now_ms)
        hostile.pump()
        return change

    # --- On a channel -----------------------------------------------------------------------------------------------------------

    @property
    def _channel(self) -> int:
        channel = self._hostile.channel
        assert channel is not None
        return channel

    def _data(self, random: Random) -> Change:
        message = encode_prune()
        whole = encode_varint(len(message)) + message
        if random.random() < 0.4:
            at = random.randint(1, len(whole) - 1)
            parts = (
                encode_frame(FrameType.DATA, self._channel, whole[:at]),
                encode_frame(FrameType.DATA_END, self._channel, whole[at:]),
            )
            self._inject(b"".join(parts) if random.random() < 0.5 else encode_frame(FrameType.DATA_END, self._channel, whole))
            return GOOD if len(whole[:at]) else "split"
        length = random.choice((*_NUMBERS, len(message)))
        payload = encode_varint(length) + random.choice((message, bytes(2_200), bytes(random.randrange(64)), b""))
        frame_type = random.choice((FrameType.DATA, FrameType.DATA_END))
        frames = encode_frame(frame_type, self._channel, payload)
        if random.random() < 0.3:
            return self._changed(random, frames)
        self._inject(frames)
        return "length"

    def _number(self, random: Random, frame_type: FrameType, number: int) -> Change:
        frame = encode_number_frame(frame_type, self._channel, number)
        if random.random() < 0.4:
            self._inject(frame)
            return GOOD
        if random.random() < 0.4:
            self._inject(encode_number_frame(frame_type, self._channel, random.choice(_NUMBERS)))
            return "number"
        return self._changed(random, frame)

    def _close(self, random: Random) -> Change:
        if random.random() < 0.4:
            self._hostile.close_channel()
            return GOOD
        code = random.choice((*CloseCode, *_NUMBERS))
        return self._changed(random, encode_number_frame(FrameType.CLOSE, self._channel, code))

    # --- On the link ------------------------------------------------------------------------------------------------------------

    def _clock(self, random: Random, frame_type: FrameType) -> Change:
        nonce = random.choice((*self._hostile.nonces, random.getrandbits(64)))
        frame = encode_frame(
            frame_type, 0, nonce.to_bytes(8, "big") + random.choice((bytes(8), random.randbytes(8), b"\xff" * 8))
        )
        if random.random() < 0.5:
            self._inject(frame * random.choice((1, 1, 1, 500)))
            return GOOD
        return self._changed(random, frame)

    def _goaway(self, random: Random) -> Change:
        frame = encode_number_frame(FrameType.GOAWAY, 0, random.choice((*CloseCode, *_NUMBERS)))
        if random.random() < 0.5:
            self._inject(frame)
            return "ends the link"
        return self._changed(random, frame)

    def _unknown(self, random: Random) -> Change:
        frame_type = random.choice((0, 13, 14, 127, 128, 255, random.randrange(256)))
        payload = random.randbytes(random.choice((0, 1, 30)))
        channel = random.choice((0, self._channel, random.choice(_NUMBERS)))
        self._inject(bytes([frame_type]) + encode_varint(channel) + encode_varint(len(payload)) + payload)
        return "unknown"

    def _changed(self, random: Random, frame: bytes) -> Change:
        """Sends a frame with other bytes, another header, or in bad company."""
        step = random.randrange(5)
        ping = encode_frame(FrameType.PING, 0, bytes(16))
        if step == 0:
            self._inject(mutate_bytes(random, frame))
        elif step == 1:
            self._inject(ping + mutate_bytes(random, frame) + ping)
        elif step == 2:
            self._inject(frame[:1] + encode_varint(random.choice(_NUMBERS)) + frame[2:])
        elif step == 3:
            self._inject(frame[:2] + encode_varint(random.choice(_NUMBERS)) + frame[3:])
        else:
            self._inject(bytes([random.randrange(1, 13)]) + frame[1:])
        return "frame"

    def _inject(self, frames: bytes) -> None:
        self._hostile.inject(frames)

    # --- Below the frames -------------------------------------------------------------------------------------------------------

    def _ciphertext(self, random: Random) -> Change:
        hostile = self._hostile
        ping = encode_frame(FrameType.PING, 0, bytes(16))
        message = hostile.sending.encrypt(ping)
        step = random.randrange(4)
        if step == 0:
            message = mutate_bytes(random, message)[:65_535] or b"\0"
        elif step == 1:
            hostile.send_raw(_prefixed(message))  # and then the same once more
        elif step == 2:
            message = hostile.sending.encrypt(ping)  # the one before it is left out
        else:
            message = random.randbytes(random.choice((1, 15, 16, 17, 65_535)))
        hostile.send_raw(_prefixed(message))
        return "ciphertext"

    def _transport(self, random: Random) -> Change:
        hostile = self._hostile
        one = hostile.encrypt(encode_frame(FrameType.PING, 0, bytes(16)))
        two = hostile.encrypt(encode_frame(FrameType.PONG, 0, bytes(16)))
        step = random.randrange(8)
        if step < 3:
            hostile.send_raw(one + two)
            return GOOD
        bad = {
            3: b"",
            4: one + bytes(TRANSPORT_MESSAGE_BYTES_MAX),
            5: one + two[: random.randrange(1, len(two))],
            6: one + b"\0\0" + two,
            7: mutate_bytes(random, one[:2]) + one[2:] + two,
        }
        hostile.send_raw(bad[step])
        return "transport"


def _prefixed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message
