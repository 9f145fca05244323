"""Which link to a remote device stays: at most one each, the same one on both sides (SPEC: L, DESIGN 5).

The two sides decide apart and may see links come up in different orders, so the decision uses only what both know: who dialled,
the boot ids, and which link a dialler said it closed.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from peersd_protocol.constants import DEVICES_REMEMBERED_MAX, PAST_BOOT_IDS_MAX
from peersd_protocol.errors import CloseCode, LocalProtocolError

ALARM_CLONED: Final = "cloned"
"""Two processes hold one device key: a copied key, or a machine set back to a snapshot."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link whose handshake is done at this side.

    Attributes:
        link_id: this side's own number for it, never used twice: one whose connection began later has a greater one.
        remote_device: 32 bytes.
        is_dialled_by_us: which side dialled.
        remote_boot_id: 16 bytes.
        handshake_hash: names the link on both sides, 32 bytes.
        remote_replaces: handshake hash of the link that the remote side, having dialled, states it closed; else empty.
    """

    link_id: int
    remote_device: bytes
    is_dialled_by_us: bool
    remote_boot_id: bytes
    handshake_hash: bytes
    remote_replaces: bytes = b""


@dataclass(frozen=True, slots=True)
class Keep:
    """The link may carry channels from now on."""

    link_id: int


@dataclass(frozen=True, slots=True)
class Close:
    """The link must end, and not carry channels any more when the next effect is performed."""

    link_id: int
    close_code: CloseCode


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something the user of this device should look into."""

    name: str
    device: bytes


Effect: TypeAlias = Keep | Close | Alarm


@dataclass(slots=True)
class _Remote:
    """What is known of one remote device.

    Attributes:
        current: the link that stays, if there is one.
        boot_id: of the newest process met.
        boot_link_id: of the link that brought it.
        past_boot_ids: of the processes before it, oldest first.
        last_link_from_remote: handshake hash of the last link that the remote side dialled and that stayed here.
    """

    boot_id: bytes
    boot_link_id: int
    current: Link | None = None
    past_boot_ids: list[bytes] = field(default_factory=list[bytes])
    last_link_from_remote: bytes = b""


class LinkTable:
    """The links of this device. Effects are performed in the order returned, each finished before the next begins.

    Args:
        device: this device's own id, 32 bytes.
    """

    def __init__(self, device: bytes) -> None:
        self._device = device
        self._remotes: OrderedDict[bytes, _Remote] = OrderedDict()
        self._links: dict[int, Link] = {}

    def link_to(self, remote_device: bytes) -> Link | None:
        """The one link to a device, if there is any."""
        remote = self._remotes.get(remote_device)
        return remote.current if remote else None

    @property
    def links(self) -> tuple[Link, ...]:
        """All links that stay."""
        return tuple(self._links.values())

    def replaces(self, remote_device: bytes) -> bytes:
        """What a dialler states in message 3: handshake hash of the link from that device that it no longer has, or empty.

        It names the last link that the remote side dialled: one that this side dialled is replaced by a new dial anyway (L-16),
        and may never have come up over there, while the remote side still holds on to its own.
        """
        remote = self._remotes.get(remote_device)
        if remote is None or (remote.current and not remote.current.is_dialled_by_us):
            return b""
        return remote.last_link_from_remote

    def link_up(self, link: Link) -> list[Effect]:
        """Takes a link whose handshake is done.

        A dialler asks before it sends message 3 and, told to close, does not send it: then the other side never has the link.

        Raises:
            LocalProtocolError: the link id is in use, or the remote device is this one.
        """
        if link.link_id in self._links or link.remote_device == self._device:
            raise LocalProtocolError("a link reported twice, or to this device itself")
        remote = self._remember(link)
        effects: list[Effect] = []
        if link.remote_boot_id != remote.boot_id:
            if link.link_id < remote.boot_link_id:
                return [Close(link.link_id, CloseCode.REPLACED)]  # the end of its handshake was long under way
            if link.remote_boot_id in remote.past_boot_ids:
                effects.append(Alarm(ALARM_CLONED, link.remote_device))
                if remote.current:
                    # Were it to replace the other clone's link, the two would throw each other out for ever.
                    return [*effects, Close(link.link_id, CloseCode.REPLACED)]
                remote.past_boot_ids.remove(link.remote_boot_id)
            remote.past_boot_ids = [*remote.past_boot_ids, remote.boot_id][-PAST_BOOT_IDS_MAX:]
            remote.boot_id, remote.boot_link_id = link.remote_boot_id, link.link_id
            remote.last_link_from_remote = b""
        if old := remote.current:
            if not self._takes_over(link, old):
                return [*effects, Close(link.link_id, CloseCode.REPLACED)]
            del self._links[old.link_id]
            effects.append(Close(old.link_id, CloseCode.REPLACED))
        remote.current = link
        self._links[link.link_id] = link
        if not link.is_dialled_by_us:
            remote.last_link_from_remote = link.handshake_hash
        return [*effects, Keep(link.link_id)]

    def link_down(self, link_id: int) -> list[Effect]:
        """Takes the end of a link, for whatever reason; one that the table closed itself is ignored."""
        link = self._links.pop(link_id, None)
        if link:
            self._remotes[link.remote_device].current = None
        return []

    def _takes_over(self, new: Link, old: Link) -> bool:
        """Whether `new` replaces `old` (SPEC: L-14 to L-17, in this order)."""
        if new.remote_boot_id != old.remote_boot_id:
            return True
        if new.remote_replaces == old.handshake_hash:
            return True
        if new.is_dialled_by_us == old.is_dialled_by_us:
            # The remote side dials again only when it has lost the old link. If both dials are ours, the old link is alive and
            # the other side need never hear of the new one.
            return not new.is_dialled_by_us
        return new.is_dialled_by_us == (self._device < new.remote_device)

    def _remember(self, link: Link) -> _Remote:
        """The record of the link's device, made if there is none; the longest unused without a link give way."""
        remote = self._remotes.setdefault(link.remote_device, _Remote(link.remote_boot_id, link.link_id))
        self._remotes.move_to_end(link.remote_device)
        if len(self._remotes) > DEVICES_REMEMBERED_MAX + len(self._links) + 1:
            idle = next(device for device, remote in self._remotes.items() if not remote.current and device != link.remote_device)
            del self._remotes[idle]
        return remote
