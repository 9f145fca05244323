"""No byte of a group on a device of no member, in another group's channel, or readable on the wire: a search for markers.

All that is written in a group holds the group's marker (`statements.marker_of`). Bodies are compressed where that saves enough,
so what looks like a frame of zstd is looked into as well, whatever message it stands in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Final

import zstandard

from peersd.testing.checkers import Checker
from peersd.testing.simulator.schedule import Schedule
from peersd.testing.simulator.statements import marker_of
from peersd_protocol.signing import sha256

_ZSTD: Final = b"\x28\xb5\x2f\xfd"


class Frames:
    """What goes over links.

    Args:
        schedule: of the simulation.
        groups: the names of all groups.

    Attributes:
        marked: how many messages held a marker.
    """

    def __init__(self, schedule: Schedule, groups: Iterable[str]) -> None:
        self._schedule = schedule
        self._markers = {group: marker_of(group).encode() for group in groups}
        self._members: dict[str, set[bytes]] = {group: set() for group in self._markers}
        self._under_way: dict[tuple[bytes, int, str], Counter[bytes]] = {}
        self.marked = 0

    def note_members(self, group: str, devices: Collection[bytes]) -> None:
        """Somebody takes these devices for members', and may tell them what it knows; who ceases to be one keeps what it has."""
        self._members[group].update(devices)

    def note_put(self, link: bytes, channel: int, sender: str, message: bytes) -> None:
        """A device puts a message into a channel; live ones may overtake others there.

        Args:
            link: the hash of its handshake.
            channel: the number.
            sender: the device.
            message: what is put.
        """
        self._under_way.setdefault((link, channel, sender), Counter())[sha256(message)] += 1

    def check_taken(self, link: bytes, channel: int, device: str, sender: str, message: bytes) -> None:
        """Looks whether a message that a device gets was put into that channel.

        Raises:
            SimulationFailed: it was not.
        """
        left = self._under_way.get((link, channel, sender), Counter())
        left[sha256(message)] -= 1
        if left[sha256(message)] < 0:
            text = f"{device} gets {len(message)} bytes in channel {channel} that {sender} has not put there"
            raise self._schedule.fail(Checker.FRAMES, text)

    def check_message(self, device: str, device_id: bytes, remote: str, group: str, message: bytes) -> None:
        """Looks at a message that a device gets over a channel of a group.

        Raises:
            SimulationFailed: it holds something of another group, or is not for this device.
        """
        found = self._find(message)
        self.marked += bool(found)
        for other in found:
            if other != group:
                text = f"{device} gets something of {other} from {remote} in a channel of {group}"
                raise self._schedule.fail(Checker.MARKERS, text)
            if device_id not in self._members[group]:
                text = f"{device}, which nobody takes for a member's device, gets something of {group} from {remote}"
                raise self._schedule.fail(Checker.MARKERS, text)

    def check_wire(self, sender: str, receiver: str, sent: bytes) -> None:
        """Looks at what leaves a device.

        Raises:
            SimulationFailed: anybody between the two could read it.
        """
        for group, marker in self._markers.items():
            if marker in sent:
                raise self._schedule.fail(Checker.MARKERS, f"{sender} sends something of {group} to {receiver} unencrypted")

    def _find(self, message: bytes) -> set[str]:
        return {group for part in readable_parts(message) for group, marker in self._markers.items() if marker in part}


def readable_parts(message: bytes) -> Iterator[bytes]:
    """The message, and what may be compressed in it."""
    yield message
    at = message.find(_ZSTD)
    while at >= 0:
        try:
            yield zstandard.ZstdDecompressor().decompressobj().decompress(message[at:])
        except zstandard.ZstdError:
            pass  # random bytes may look like the head of a frame
        at = message.find(_ZSTD, at + 1)
