"""What the node knows of a group while its store is closed: who is in it, how it is called, and the digest of what it holds.

Made from the evaluated acts whenever these change, and kept in node.db, so that hundreds of groups are listed, linked and found
in sync without opening their files (DESIGN 8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, cast

from peersd_protocol import canonical
from peersd_protocol.canonical import Value
from peersd_protocol.errors import RemoteProtocolError
from peersd_protocol.group_state import GroupState
from peersd_protocol.roles import Role
from peersd_protocol.tokens import vector_digest
from peersd_protocol.vectors import Vector, encode_vector

SUMMARY_BYTES_MAX: Final = 16 * 1024 * 1024
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A device of a member: its name, and whether it is a live one in the group now."""

    name: str
    live: bool


@dataclass(frozen=True, slots=True)
class KnownMember:
    """A user who is or was a member.

    Attributes:
        role: now.
        name: of the user.
        ended: "left", "removed" or "banned" for who is none any more, else None.
        devices: all that ever were the user's, by public key.
    """

    role: Role
    name: str
    ended: str | None
    devices: Mapping[bytes, KnownDevice]


@dataclass(frozen=True)
class Summary:
    """A group in short.

    Attributes:
        group_id: the group's id.
        name: empty until the genesis has arrived.
        personal: whether it is a personal group.
        members: by user id.
        needs_upgrade: whether it holds an act of a later version.
        digest: of the vector, 16 bytes (SPEC: O-2).
        former_devices: devices of no member now, which were a member's, or whose user was admitted in vain.
    """

    group_id: bytes
    name: str
    personal: bool = False
    needs_upgrade: bool = False
    members: Mapping[bytes, KnownMember] = field(default_factory=dict)
    digest: bytes = b""
    former_devices: frozenset[bytes] = frozenset()

    def role_of(self, user: bytes) -> Role:
        """A user's role now."""
        member = self.members.get(user)
        return member.role if member else Role.NONE

    @property
    def members_count(self) -> int:
        """How many users are members now."""
        return sum(1 for member in self.members.values() if member.role)

    @cached_property
    def member_devices(self) -> Mapping[bytes, tuple[bytes, ...]]:
        """The live devices of all members now, with the users they belong to."""
        found: dict[bytes, tuple[bytes, ...]] = {}
        for user, member in sorted(self.members.items()):
            for device, known in member.devices.items() if member.role else ():
                if known.live:
                    found[device] = (*found.get(device, ()), user)
        return found

    @cached_property
    def devices_by_user(self) -> Mapping[bytes, tuple[bytes, ...]]:
        """The live devices of each member now."""
        return {
            user: tuple(device for device, known in member.devices.items() if known.live)
            for user, member in self.members.items()
            if member.role
        }

    def device_name(self, device: bytes) -> str:
        """What a device is called; empty for one that is not known here."""
        return next((member.devices[device].name for member in self.members.values() if device in member.devices), "")

    def encode(self) -> bytes:
        """As node.db keeps it."""
        members: list[Value] = [
            [
                user,
                int(known.role),
                known.name,
                known.ended,
                [[device, one.name, one.live] for device, one in known.devices.items()],
            ]
            for user, known in self.members.items()
        ]
        former: list[Value] = [*sorted(self.former_devices)]
        head: list[Value] = [_VERSION, self.group_id, self.name, self.personal, self.needs_upgrade, self.digest]
        return canonical.encode([*head, members, former])


def digest_of(group_id: bytes, vector: Vector) -> bytes:
    """The digest of a vector."""
    return vector_digest(group_id, encode_vector(vector))


def summarise(state: GroupState, digest: bytes) -> Summary:
    """The summary of an evaluated group."""
    members = {}
    for user, member in state.members.items():
        known = state.users.get(user)
        live = set(member.devices)
        devices = {device: KnownDevice(one.cert.name, device in live) for device, one in (known.devices.items() if known else ())}
        members[user] = KnownMember(member.role, member.name, member.ended, devices)
    return Summary(state.group_id, state.name, state.personal, state.needs_upgrade, members, digest, state.former_devices)


def decode_summary(data: bytes) -> Summary | None:
    """Reads a summary; None for one of another version or a damaged one, which is made anew from the store."""
    try:
        version, group_id, name, personal, needs_upgrade, digest, members, former = canonical.decode(
            data, bytes_max=SUMMARY_BYTES_MAX
        )
        if version != _VERSION:
            return None
        known = {}
        for user, role, user_name, ended, devices in cast("list[tuple[bytes, int, str, str | None, list[list[Value]]]]", members):
            held = {cast(bytes, device): KnownDevice(cast(str, title), bool(live)) for device, title, live in devices}
            known[user] = KnownMember(Role(role), user_name, ended, held)
        outside = frozenset(cast("list[bytes]", former))
    except (RemoteProtocolError, ValueError, TypeError):
        return None
    return Summary(
        cast(bytes, group_id), cast(str, name), bool(personal), bool(needs_upgrade), known, cast(bytes, digest), outside
    )
