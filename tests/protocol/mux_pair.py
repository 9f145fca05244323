"""Two multiplexers back to back, without the link around them."""

from __future__ import annotations

from collections.abc import Callable

from peersd_protocol.constants import POOL_BYTES
from peersd_protocol.frames import FrameType, decode_frames, encode_frame
from peersd_protocol.link_effects import Effect, MessageReceived, OpenRequested
from peersd_protocol.mux import Mux

PLAINTEXT_BYTES = 65_519


class MuxPair:
    """A dialler's and a listener's multiplexer; `now_ms` is theirs."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.dialler = Mux(is_dialler=True, now_ms=0)
        self.listener = Mux(is_dialler=False, now_ms=0)

    def take(self, mux: Mux) -> list[Effect]:
        effects = list(mux.effects)
        mux.effects.clear()
        return effects

    def move_one(self, sender: Mux, receiver: Mux) -> bool:
        plaintext = sender.pull(PLAINTEXT_BYTES, self.now_ms)
        if plaintext:
            feed(receiver, plaintext, self.now_ms)
            assert 0 <= receiver.pool_used_bytes <= POOL_BYTES
        return bool(plaintext)

    def settle(self, on_effect: Callable[[Mux, Effect], None] | None = None) -> list[tuple[str, Effect]]:
        """Moves frames both ways until nothing is left, and returns all effects, with the side that saw each."""
        seen: list[tuple[str, Effect]] = []
        moved = True
        while moved:
            moved = self.move_one(self.dialler, self.listener)
            moved = self.move_one(self.listener, self.dialler) or moved
            for name, mux in (("dialler", self.dialler), ("listener", self.listener)):
                for effect in self.take(mux):
                    seen.append((name, effect))
                    if on_effect is not None:
                        on_effect(mux, effect)
                        moved = True
        return seen

    def open(self, *, proof: bool = False) -> int:
        """Opens and accepts a channel of the dialler's."""
        number = self.dialler.open_channel(b"o", proof_follows=proof, now_ms=self.now_ms)
        self.settle()
        self.listener.accept(number, b"a")
        self.settle()
        return number


def feed(mux: Mux, plaintext: bytes, now_ms: int = 0) -> None:
    for frame_type, channel, payload in decode_frames(plaintext):
        mux.receive(frame_type, channel, payload, now_ms)


def frame(frame_type: FrameType, channel: int, payload: bytes = b"") -> bytes:
    return encode_frame(frame_type, channel, payload)


def take_at_once(mux: Mux, effect: Effect) -> None:
    """An application that keeps up: consumes each message and waits for the next."""
    if isinstance(effect, OpenRequested):
        mux.accept(effect.channel, b"")
        mux.want(effect.channel, wanted=True)
    elif isinstance(effect, MessageReceived):
        mux.consumed(effect.channel, len(effect.message))
        mux.want(effect.channel, wanted=True)
