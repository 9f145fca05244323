"""Whose fault a protocol error is: ours (LocalProtocolError) or theirs (RemoteProtocolError)."""

from __future__ import annotations

import enum


class CloseCode(enum.IntEnum):
    """Why a link, a channel or a session was closed. Travels in CLOSE and GOAWAY frames (SPEC: C-1)."""

    NORMAL = 0
    GOING_AWAY = 1
    """The process is stopping."""
    REPLACED = 2
    """A newer link to the same device took this one's place."""
    PROTOCOL = 3
    """A rule of SPEC.md was broken that has no code of its own."""
    MALFORMED = 4
    """Bytes that do not decode, or are not canonical."""
    HANDSHAKE = 5
    """The handshake failed: decryption, certificate, version."""
    TIMEOUT = 6
    """No answer to pings, a handshake not finished, or a message that came too slowly."""
    TOO_LARGE = 7
    """A frame, message, entry or list above its bound."""
    TOO_MANY = 8
    """More channels, opens, parked entries or sockets than the bound."""
    CREDIT = 9
    """The remote side sent more bytes than it had credit for."""
    BAD_SIGNATURE = 10
    BAD_CHAIN = 11
    """An entry whose prev, sequence, HLC or deps do not fit its log."""
    BAD_BODY = 12
    """A block or body that does not match its hash or cannot be what its schema says."""
    NOT_MEMBER = 13
    """The remote device stopped being a device of a standing member."""
    INTERNAL = 14
    """A fault of the side that closes."""
    REFUSED = 15
    """The side that closes wants no link with the other side, or none now."""

    @property
    def is_fault_of_other(self) -> bool:
        """Whether the side that closes with it says that the other side broke a rule."""
        return self in _FAULTS_OF_OTHER


_FAULTS_OF_OTHER = frozenset(
    {
        CloseCode.PROTOCOL,
        CloseCode.MALFORMED,
        CloseCode.HANDSHAKE,
        CloseCode.TOO_LARGE,
        CloseCode.TOO_MANY,
        CloseCode.CREDIT,
        CloseCode.BAD_SIGNATURE,
        CloseCode.BAD_CHAIN,
        CloseCode.BAD_BODY,
    }
)


class LocalProtocolError(Exception):
    """A fault of our own: a machine was used against its contract. Ends the task, fails any test."""


class RemoteProtocolError(Exception):
    """The remote party broke a rule. The link or session closes with `close_code` and backs off.

    Args:
        close_code: what the remote side is told.
        detail: one line for the log; never contains secrets or row data.
    """

    def __init__(self, close_code: CloseCode, detail: str) -> None:
        super().__init__(f"{close_code.name.lower()}: {detail}")
        self.close_code = close_code
        self.detail = detail
