"""Handshake messages as somebody without any key may send them: each of the three whole, and changed inside and outside."""

from __future__ import annotations

from random import Random
from typing import Final

from peersd.testing.fuzzing.forgeries import FORGED
from peersd.testing.fuzzing.frames import GOOD, Change
from peersd.testing.fuzzing.mutation import mutate_bytes, mutate_encoding, mutate_value, pack
from peersd.testing.fuzzing.victim import Victim
from peersd.testing.fuzzing.world import World
from peersd_protocol.canonical import Value
from peersd_protocol.constants import BOOT_ID_BYTES, TRANSPORT_MESSAGE_BYTES_MAX
from peersd_protocol.handshake import PROLOGUE, Role
from peersd_protocol.noise import HandshakeState, X25519Key
from peersd_protocol.signing import PURPOSE_NOISE_KEY, PURPOSE_SEALING_KEY

KINDS: Final = ("noise 1", "noise 2", "noise 3")

_LOW_ORDER: Final = (
    bytes(32),
    b"\x01" + bytes(31),
    b"\xec" + b"\xff" * 30 + b"\x7f",
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
)
"""Points with which every exchange gives the same secret (RFC 7748, 6.1)."""


class Handshakes:
    """Begins links, and ends some of them before there is one.

    Args:
        world: whose keys are used.
        victim: who is sent to.
    """

    def __init__(self, world: World, victim: Victim) -> None:
        self._world = world
        self._victim = victim

    def send(self, random: Random, kind: str) -> Change:
        """Sends one case; what was done to it."""
        if kind == "noise 1":
            return self._first(random)
        return self._statement(random, is_second=kind == "noise 2")

    def _connect(self, role: Role, random: Random) -> None:
        self._victim.connect(role, self._victim.make_handshake(role, random.randbytes(32)))

    def _noise(self, random: Random, *, is_initiator: bool, prologue: bytes = PROLOGUE) -> HandshakeState:
        return HandshakeState(
            is_initiator=is_initiator,
            prologue=prologue,
            static=self._world.hostile.keys.noise,
            ephemeral=X25519Key(random.randbytes(32)),
        )

    def _first(self, random: Random) -> Change:
        self._connect(Role.LISTENER, random)
        step = random.random()
        if step < 0.3:
            self._send(self._noise(random, is_initiator=True).write_message(b""))
            return GOOD
        if step < 0.5:
            self._send(random.choice(_LOW_ORDER) + random.choice((b"", b"payload")))
            return "low order"
        message = self._noise(random, is_initiator=True).write_message(random.choice((b"", b"payload")))
        return self._send_changed(random, message)

    def _statement(self, random: Random, *, is_second: bool) -> Change:
        """Message 2 or 3, which carry who speaks."""
        victim = self._victim
        self._connect(Role.DIALLER if is_second else Role.LISTENER, random)
        prologue = PROLOGUE if random.random() < 0.95 else b"peersd/2"
        noise = self._noise(random, is_initiator=not is_second, prologue=prologue)
        if not is_second:
            self._send(noise.write_message(b""))
        (heard,) = victim.pull()
        if prologue == PROLOGUE or is_second:
            noise.read_message(heard[2:])
        else:
            self._send(random.randbytes(64 + 200))  # the other prologue cannot even read message 2
            return "prologue"
        keys = self._world.hostile.keys
        replaces = b"" if is_second else random.choice((b"", random.randbytes(32)))
        is_alone = not is_second and random.random() < 0.5
        value: Value = [1, keys.device, keys.noise_signature, random.randbytes(BOOT_ID_BYTES), replaces, is_alone]
        step = random.random()
        if step < 0.35:
            self._send(noise.write_message(pack(value)))
            return GOOD if prologue == PROLOGUE else "prologue"
        if step < 0.5:
            self._send_changed(random, noise.write_message(pack(value)))
            return "message"
        if step < 0.65:
            another = random.choice((self._world.victim, self._world.bystander)).keys
            own = keys.signing.sign(PURPOSE_NOISE_KEY, keys.noise.public)
            elsewhere = keys.signing.sign(PURPOSE_SEALING_KEY, keys.noise.public)
            device, signature = random.choice(
                ((another.device, another.noise_signature), (another.device, own), (keys.device, elsewhere))
            )
            self._send(noise.write_message(pack([1, device, signature, bytes(BOOT_ID_BYTES), replaces, is_alone])))
            return FORGED
        payload = pack(mutate_value(random, value)) if step < 0.9 else mutate_encoding(random, value)
        self._send(noise.write_message(payload[:60_000]))
        return "payload"

    def _send_changed(self, random: Random, message: bytes) -> Change:
        step = random.randrange(6)
        prefixed = len(message).to_bytes(2, "big") + message
        if step == 0:
            self._victim.receive(b"")
        elif step == 1:
            self._victim.receive(prefixed * 2)
        elif step == 2:
            self._victim.receive(mutate_bytes(random, prefixed))
        elif step == 3:
            self._victim.receive(random.randbytes(random.choice((1, 2, 34, 700, TRANSPORT_MESSAGE_BYTES_MAX + 1))))
        else:
            self._send(mutate_bytes(random, message))
        return "message"

    def _send(self, message: bytes) -> None:
        self._victim.receive(len(message).to_bytes(2, "big") + message)
