"""What the machine of a link tells its runner to do, or to tell the layer above (SPEC: L)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from peersd_protocol.errors import CloseCode


@dataclass(frozen=True, slots=True)
class Up:
    """The handshake is over. The link carries nothing until `release()`: a duplicate may be closed instead.

    Attributes:
        remote_device: the remote device's public key, 32 bytes.
        remote_boot_id: 16 bytes.
        remote_replaces: handshake hash of the link that the dialler closed for this one, or empty.
        is_alone: whether the dialler, whichever side that is, stated that it has no other link in some group.
        handshake_hash: names this link, 32 bytes.
    """

    remote_device: bytes
    remote_boot_id: bytes
    remote_replaces: bytes
    is_alone: bool
    handshake_hash: bytes


@dataclass(frozen=True, slots=True)
class OpenRequested:
    """The remote side wants a channel: answer with `accept` or `refuse`.

    Attributes:
        channel: its number.
        payload: of the OPEN frame, at most OPEN_PAYLOAD_BYTES_MAX.
        proof_follows: whether messages follow that may be read before the answer.
    """

    channel: int
    payload: bytes
    proof_follows: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """The remote side accepted a channel that this side opened."""

    channel: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """The remote side refused a channel that this side opened. Its number is gone."""

    channel: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A whole message. Its bytes stay charged until `consumed`."""

    channel: int
    message: bytes


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    """The remote side, or this machine for the remote side's fault, closed the channel. What was queued to be sent is dropped."""

    channel: int
    code: CloseCode


@dataclass(frozen=True, slots=True)
class Writable:
    """The queue of a channel fell below the low-water mark after it had been full, or ran empty after `flush`."""

    channel: int


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Call `timer_expired(name)` at `at_ms`; replaces an earlier timer of this name."""

    name: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Forget the timer; harmless when there is none."""

    name: str


@dataclass(frozen=True, slots=True)
class RttMeasured:
    """A PONG came back after so many ms."""

    ms: int


@dataclass(frozen=True, slots=True)
class PeerClock:
    """The remote wall clock minus ours, in ms, exact to half a round trip."""

    offset_ms: int


@dataclass(frozen=True, slots=True)
class Wake:
    """There is something to pull. Not repeated until a pull returned None."""


@dataclass(frozen=True, slots=True)
class Down:
    """The link is over. Pull once more for what is still to be said, then close the transport.

    Attributes:
        code: why.
        detail: one line for the log.
        by_remote: whether the remote side said so.
    """

    code: CloseCode
    detail: str
    by_remote: bool = False


Effect: TypeAlias = (
    Up
    | OpenRequested
    | Accepted
    | Refused
    | MessageReceived
    | ChannelClosed
    | Writable
    | SetTimer
    | CancelTimer
    | RttMeasured
    | PeerClock
    | Wake
    | Down
)
