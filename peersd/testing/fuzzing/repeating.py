"""Handshakes that were made once and are had again: another link costs none of the curves, and is a link like any other.

The keys of the link are the same each time, and its nonces begin anew. What a handshake can be made to do is shown by the cases
of handshakes, which are all real.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace

from peersd_protocol.handshake import Handshake, HandshakeStep


class KeptHandshake(Handshake):
    """A real one that keeps what it said and heard; arguments as for Handshake."""

    first: bytes | None = None
    steps: tuple[tuple[bytes, HandshakeStep], ...] = ()

    def start(self) -> bytes | None:
        """As Handshake's."""
        self.first = super().start()
        return self.first

    def receive(self, message: bytes) -> HandshakeStep:
        """As Handshake's."""
        step = super().receive(message)
        self.steps += ((bytes(message), _copied(step)),)
        return step

    def again(self) -> RepeatedHandshake:
        """This side of the same handshake once more."""
        return RepeatedHandshake(self)


class RepeatedHandshake(Handshake):
    """Says and hears the very messages of one that was kept.

    Args:
        kept: which.
    """

    def __init__(self, kept: KeptHandshake) -> None:  # the state of a real one is what is saved
        self._first = kept.first
        self._left = iter(kept.steps)

    def start(self) -> bytes | None:
        """The message of then."""
        return self._first

    def receive(self, message: bytes) -> HandshakeStep:
        """The step of then; only the message of then may come."""
        heard, step = next(self._left)
        assert message == heard, "a repeated handshake goes another way"
        return _copied(step)


def _copied(step: HandshakeStep) -> HandshakeStep:
    """The step with ciphers of its own, whose nonces have not moved."""
    done = step.result
    if done is None:
        return step
    return HandshakeStep(step.reply, replace(done, send=copy(done.send), receive=copy(done.receive)))
