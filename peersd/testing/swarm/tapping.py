"""Reads along on the connections of a swarm, with the devices' own secrets: what may a device get, and what must nobody read.

All that a device draws comes from its seed, the secrets of its handshakes too. With these and its keys the dialler's part of a
handshake is played again, which gives the keys of the link; nothing of the product is there for that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from peersd.testing.checkers import Checker, Finding
from peersd.testing.simulator.frames import readable_parts
from peersd_protocol.constants import BOOT_ID_BYTES
from peersd_protocol.devicekeys import DeviceKeys
from peersd_protocol.errors import RemoteProtocolError
from peersd_protocol.frames import FrameType, decode_frames
from peersd_protocol.handshake import Established, Handshake, Role
from peersd_protocol.noise import KEY_BYTES, CipherState, X25519Key

_PREFIX_BYTES: Final = 2


class Tapped(Protocol):
    """A device whose secrets are known."""

    name: str

    @property
    def keys(self) -> DeviceKeys | None:
        """The device's keys; None before there are any."""
        ...

    def secret_of(self, public: bytes) -> bytes | None:
        """The private key of a public one, if the device's node has drawn it."""
        ...


class Secrets:
    """What a device has drawn that may be the secret of a handshake."""

    def __init__(self) -> None:
        self._drawn: list[bytes] = []
        self._known: dict[bytes, bytes] = {}

    def note(self, drawn: bytes) -> None:
        """Random bytes were drawn."""
        if len(drawn) == KEY_BYTES:
            self._drawn.append(drawn)

    def of(self, public: bytes) -> bytes | None:
        """See Tapped.secret_of."""
        while self._drawn:
            private = self._drawn.pop()
            self._known[X25519Key(private).public] = private
        return self._known.get(public)


@dataclass(frozen=True)
class Sighting:
    """A marker that came to a device, or stood readable on the way.

    Attributes:
        group: the group whose marker it is.
        sender, receiver: the devices.
        others: groups whose markers came over the same channel.
        is_open: whether it stood in what anybody between the two can read.
    """

    group: str
    sender: str
    receiver: str
    others: tuple[str, ...] = ()
    is_open: bool = False


class Sightings:
    """All that was seen, to be judged once it is known who is in which group.

    Args:
        markers: by group; it grows.
    """

    def __init__(self, markers: Mapping[str, Iterable[str]]) -> None:
        self._markers = markers
        self._seen: dict[Sighting, None] = {}

    def find(self, data: bytes) -> list[str]:
        """The groups of which a marker stands in some bytes."""
        return [group for group, texts in self._markers.items() if any(text.encode() in data for text in texts)]

    def note(self, sighting: Sighting) -> None:
        """Something was seen."""
        self._seen[sighting] = None

    def findings(self, group: str, insiders: Collection[str]) -> list[Finding]:
        """What of a group must not have been where it was.

        Args:
            group: its name.
            insiders: the devices that are or were in it.
        """
        found: list[str] = []
        for one in self._seen:
            way = f"something of {group} goes from {one.sender} to {one.receiver}"
            if one.group != group:
                continue
            if one.is_open:
                found.append(f"{way} unencrypted")
            elif one.others:
                found.append(f"{way} in a channel of {', '.join(one.others)}")
            elif one.receiver not in insiders:
                found.append(f"{way}, which never was in it")
        return [Finding(Checker.MARKERS, text) for text in found]


@dataclass
class _Direction:
    """What one side of a connection says.

    Attributes:
        cipher: of this direction, once there is one.
        open_messages: by channel, what has come of a message.
        groups: by channel, those whose markers have come.
    """

    cipher: CipherState | None = None
    open_messages: dict[int, bytearray] = field(default_factory=dict[int, bytearray])
    groups: dict[int, list[str]] = field(default_factory=dict[int, list[str]])


class Tap:
    """Reads along on one connection. One whose secrets are not known, as of a hostile device's, is only looked at from outside.

    Args:
        dialler: who dialled.
        listener: the name of who answered.
        sightings: get what is found.
    """

    def __init__(self, dialler: Tapped, listener: str, sightings: Sightings) -> None:
        self._dialler = dialler
        self._names = dialler.name, listener
        self._sightings = sightings
        self._handshake: Handshake | None = None
        self._messages_awaited = 3
        self._directions = _Direction(), _Direction()

    def note(self, sent: bytes, *, by_dialler: bool) -> None:
        """One side sends something over the transport."""
        sender, receiver = self._names if by_dialler else self._names[::-1]
        for group in self._sightings.find(sent):
            self._sightings.note(Sighting(group, sender, receiver, is_open=True))
        at = 0
        while at + _PREFIX_BYTES <= len(sent):
            begin = at + _PREFIX_BYTES
            at = begin + int.from_bytes(sent[at:begin], "big")
            self._read(sent[begin:at], by_dialler=by_dialler)

    def _read(self, message: bytes, *, by_dialler: bool) -> None:
        if self._messages_awaited:
            self._messages_awaited -= 1
            self._shake_hands(message, by_dialler=by_dialler)
            return
        direction = self._directions[not by_dialler]
        if direction.cipher is None:
            return
        try:
            frames = decode_frames(direction.cipher.decrypt(message))
        except RemoteProtocolError:  # what this side sent is no good, and the other one will say so
            direction.cipher = None
            return
        for frame_type, channel, payload in frames:
            if frame_type in (FrameType.DATA, FrameType.DATA_END):
                direction.open_messages.setdefault(channel, bytearray()).extend(payload)
            if frame_type == FrameType.DATA_END:
                self._look(bytes(direction.open_messages.pop(channel)), channel, direction, by_dialler=by_dialler)

    def _shake_hands(self, message: bytes, *, by_dialler: bool) -> None:
        """Plays the dialler's part up to the keys; what its third message says is not needed for these."""
        if self._messages_awaited == 2 and by_dialler:
            private, keys = self._dialler.secret_of(message[:KEY_BYTES]), self._dialler.keys
            if private is not None and keys is not None:
                self._handshake = Handshake(Role.DIALLER, keys, boot_id=bytes(BOOT_ID_BYTES), ephemeral_private=private)
                self._handshake.start()
        elif self._messages_awaited == 1 and not by_dialler and self._handshake is not None:
            try:
                established: Established | None = self._handshake.receive(message).result
            except RemoteProtocolError:
                return
            if established is not None:
                self._directions[0].cipher, self._directions[1].cipher = established.send, established.receive

    def _look(self, message: bytes, channel: int, direction: _Direction, *, by_dialler: bool) -> None:
        sender, receiver = self._names if by_dialler else self._names[::-1]
        known = direction.groups.setdefault(channel, [])
        for part in readable_parts(message):
            for group in self._sightings.find(part):
                if group not in known:
                    known.append(group)
                self._sightings.note(Sighting(group, sender, receiver, tuple(other for other in known if other != group)))
