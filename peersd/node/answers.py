"""What the node tells of itself, its groups, links and copies, in the words of API.md."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import trio

from peersd.errors import PeersdError
from peersd.node.device_file import Device
from peersd.node.genesis import NewUser
from peersd.node.group import Group
from peersd.node.naming import find, format_stamp, format_time
from peersd.node.users import User
from peersd_protocol import ids
from peersd_protocol.devicekeys import is_device_name
from peersd_protocol.roles import format_role
from peersd_protocol.vectors import Vector

if TYPE_CHECKING:
    from peersd.node.node import Node

_LOOK_S: Final = 0.2
"""Between two looks at whether any of several groups has a session: nothing tells of all at once."""


def host_name() -> str:
    """What a device is called by default."""
    name = os.uname().nodename.split(".")[0]
    return name if is_device_name(name) else "device"


def user_text(user: bytes) -> str:
    """A user's id as text."""
    return ids.format_id(ids.USER, user)


def device_text(device: bytes) -> str:
    """A device's id as text."""
    return ids.format_id(ids.DEVICE, device)


def status(node: Node) -> Mapping[str, Any]:
    """daemon.status, as far as the node knows it."""
    device = node.device if node.users else None
    received, sent = node.links.bytes_carried() if node.links else (0, 0)
    return {
        "device_id": device_text(device.keys.device) if device else None,
        "device_name": device.name if device else None,
        "users": [{"user_id": user_text(user.id), "name": user.name} for user in node.users.values()],
        "listen": list(node.listen_urls),
        "advertise": node.advertised(),
        "links": len(node.links.handles()) if node.links else 0,
        "groups": len(node.groups),
        "open_stores": node.open_stores(),
        "bytes_in": received,
        "bytes_out": sent,
    }


def initialised(device: Device, new: NewUser, personal: Group) -> Mapping[str, Any]:
    """What init answers. The phrase is shown this once."""
    return {
        "user_id": user_text(new.user),
        "device_id": device_text(device.keys.device),
        "personal_group_id": personal.text_id,
        "recovery_phrase": new.recovery_phrase,
    }


# --- Groups ---------------------------------------------------------------------------------------------------------------------


def group(node: Node, user: User, group_id: bytes) -> Mapping[str, Any]:
    """One element of group.list."""
    known = node.groups[group_id]
    registration = user.group_ids.get(group_id)
    return {
        "group_id": known.text_id,
        "name": node.name_of(user, group_id),
        "kind": "personal" if group_id == user.personal.id else "group",
        "role": format_role(known.summary.role_of(user.id)),
        "members": known.summary.members_count,
        "active": group_id == user.active,
        "hidden": registration is not None and registration.hidden,
        "state": state_of(known, user),
        "in_sync": _is_in_sync(node, known),
        "path": str(known.path),
    }


def state_of(known: Group, user: User) -> str:
    """ok, or what is the matter with a group."""
    opened = known.opened
    if known.store.failure == "store_corrupt" or (opened is not None and opened.store.is_damaged):
        return "corrupt"
    if known.store.failure is not None:
        return "needs_upgrade" if known.store.failure == "needs_upgrade" else "stalled"
    member = known.summary.members.get(user.id)
    if member is not None and not member.role and member.ended:
        return member.ended
    if known.summary.needs_upgrade:
        return "needs_upgrade"
    return "stalled" if opened is not None and opened.sync.stalled else "ok"


async def group_in_full(node: Node, user: User, known: Group) -> Mapping[str, Any]:
    """group.show."""
    async with known.use() as opened:
        state = opened.state
        voided = await opened.store.voided(user.id)
        return {
            **group(node, user, known.id),
            "description": state.description,
            "avatar": state.avatar or None,
            "created_at": format_stamp(state.created_at_hlc),
            "schema_version": state.schema.version,
            "voided_entries": len(voided),
        }


def _other_devices(node: Node, known: Group) -> list[bytes]:
    return [device for device in sorted(known.summary.member_devices) if device != node.own_device()]


def _is_in_sync(node: Node, known: Group) -> bool:
    """Whether every device with a channel holds exactly what this one holds, and there is one, or nobody else to sync with."""
    if not _other_devices(node, known):
        return True
    lanes = known.lanes()
    return bool(lanes) and all(lanes.values())


async def members(node: Node, known: Group, *, include_left: bool) -> Sequence[Mapping[str, Any]]:
    """member.list: seniors first."""
    async with known.use() as opened:
        state = opened.state
    listed = []
    for user, member in sorted(state.members.items(), key=lambda item: (-item[1].role, item[1].joined_hlc)):
        if not member.role and not include_left:
            continue
        answer = {
            "user_id": user_text(user),
            "name": member.name,
            "role": format_role(member.role),
            "joined_at": format_stamp(member.joined_hlc),
            "devices": [_device(node, known, device) for device in member.devices],
        }
        if member.left_hlc is not None:
            answer["left_at"] = format_stamp(member.left_hlc)
            answer["ended"] = member.ended
        listed.append(answer)
    return listed


async def bans(known: Group) -> Sequence[Mapping[str, Any]]:
    """ban.list: the oldest first."""
    async with known.use() as opened:
        state = opened.state
    return [
        {
            "user_id": user_text(user),
            "name": state.users[user].name if user in state.users else "",
            "reason": ban.reason,
            "banned_by": user_text(ban.banned_by),
            "banned_by_name": state.users[ban.banned_by].name if ban.banned_by in state.users else "",
            "banned_at": format_stamp(ban.banned_hlc),
        }
        for user, ban in sorted(state.bans.items(), key=lambda item: item[1].banned_hlc)
    ]


def _device(node: Node, known: Group, device: bytes) -> Mapping[str, Any]:
    return {
        "device_id": device_text(device),
        "name": known.summary.device_name(device),
        "online": is_online(node, device),
        "last_seen": format_time(node.last_seen_ms(device)),
    }


def is_online(node: Node, device: bytes) -> bool:
    """Whether a device is this one or linked."""
    return device == node.own_device() or (node.links is not None and node.links.to_device(device) is not None)


async def devices(node: Node, user: User) -> Sequence[Mapping[str, Any]]:
    """device.list."""
    async with user.personal.use() as opened:
        known = opened.state.users[user.id].devices
    return [
        {
            "device_id": device_text(device),
            "name": one.cert.name,
            "this": device == node.own_device(),
            "online": is_online(node, device),
            "last_seen": format_time(node.last_seen_ms(device)),
            "added_at": format_stamp(one.added_hlc),
        }
        for device, one in known.items()
    ]


# --- Links ----------------------------------------------------------------------------------------------------------------------


def links(node: Node) -> Sequence[Mapping[str, Any]]:
    """link.list."""
    return [
        {
            "device_id": device_text(handle.remote_device),
            "device_name": node.device_name(handle.remote_device),
            "user_names": sorted(_user_names(node, handle.remote_device)),
            "url": handle.url,
            "direction": handle.direction,
            "since": format_time(handle.since_ms),
            "rtt_ms": handle.rtt_ms,
            "channels": [
                {
                    "group_id": ids.format_id(ids.GROUP, group_id),
                    "name": node.groups[group_id].name if group_id in node.groups else "",
                    "state": state,
                }
                for group_id, state in (node.sharings[handle].channels() if handle in node.sharings else {}).items()
            ],
            "bytes_in": handle.bytes_in,
            "bytes_out": handle.bytes_out,
        }
        for handle in (node.links.handles() if node.links else ())
    ]


def _user_names(node: Node, device: bytes) -> set[str]:
    return {
        known.summary.members[user].name
        for known in node.groups.values()
        for user in known.summary.member_devices.get(device, ())
    }


def parse_device(text: str) -> bytes:
    """A device's id from its text.

    Raises:
        PeersdError: `unreachable`.
    """
    try:
        return ids.parse_id(ids.DEVICE, text)
    except ValueError as error:
        raise PeersdError("unreachable", f"{text!r} is no device's id: {error}.", hint="`peers links` shows ids.") from error


async def connect(node: Node, url: str, device_id: str | None, timeout_s: float) -> Mapping[str, Any]:
    """link.connect."""
    links_ = node.links_or_fail()
    device = parse_device(device_id) if device_id is not None else None
    handle = await links_.connect(url, device, timeout_s)
    links_.pin(handle.remote_device, [url])
    return {"device_id": device_text(handle.remote_device)}


def disconnect(node: Node, text: str) -> None:
    """link.disconnect."""
    links_ = node.links_or_fail()
    known = {handle.remote_device for handle in links_.handles()}
    known.update(*(one.summary.member_devices for one in node.groups.values()))
    known.discard(node.own_device())
    candidates = [(device_text(device), node.device_name(device), device) for device in sorted(known)]
    links_.disconnect(find(text, candidates, code="unreachable", what="device"))


# --- Copies ---------------------------------------------------------------------------------------------------------------------


async def sync(node: Node, known: Group) -> Mapping[str, Any]:
    """One element of sync.status: what each other device is known to hold, by its session now, else by its beacon."""
    lanes = known.lanes()
    return {
        "group_id": known.text_id,
        "name": known.name,
        "devices": [await _copy(known, device, lanes, node) for device in _other_devices(node, known)],
    }


async def _copy(known: Group, device: bytes, lanes: Mapping[bytes, bool], node: Node) -> Mapping[str, Any]:
    is_equal = lanes[device] if device in lanes else await _is_equal_by_beacon(known, device)
    lag = (0, 0) if is_equal else await _lag(known, device)
    view = known.copies.view(device)
    return {
        "device_id": device_text(device),
        "name": known.summary.device_name(device),
        "user_names": _user_names_in(known, device),
        "online": device in lanes,
        "equal": is_equal,
        "last_equal_at": format_time(node.wall_ms() if device in lanes and is_equal else view.last_equal_ms),
        "lag_entries": lag[0],
        "lag_bytes": lag[1],
    }


async def _is_equal_by_beacon(known: Group, device: bytes) -> bool:
    """Whether a device last said of itself to hold exactly what this device holds."""
    stated = known.copies.book.digest_of(device)
    return stated is not None and stated == (await known.digest()).digest


async def _lag(known: Group, device: bytes) -> tuple[int, int]:
    """How much of what is held here a device is not known to hold: entries, and bytes of their bodies."""
    async with known.use() as opened:
        return await opened.store.call(opened.store.store.lag, known.copies.durable_vector(device, opened.sync))


def _user_names_in(known: Group, device: bytes) -> list[str]:
    return [known.summary.members[user].name for user in known.summary.member_devices.get(device, ())]


async def wait_synced(node: Node, groups: Sequence[Group], devices: Sequence[str] | None) -> Mapping[str, Any]:
    """Returns once devices durably hold all that this one holds now.

    Args:
        node: this one.
        groups: which groups are meant.
        devices: the named devices, each in the groups in which it is a member's; None for all with a session when their turn
            comes. Of several groups those without any are passed over, once there is one with a session.

    Returns:
        The devices that hold everything, each with the groups in which it was waited for; and the groups passed over.

    Raises:
        PeersdError: `user_not_found` for a device that is none of a member in any of the groups; why a file cannot be opened.
    """
    named = None if devices is None else _named_devices(node, groups, devices)
    awaited: list[tuple[Group, frozenset[bytes] | None, Vector]] = []
    for group in groups:
        others = frozenset(_other_devices(node, group))
        chosen = None if named is None else named & others
        if others if chosen is None else chosen:
            async with group.use() as opened:
                await opened.store.wait_told()
                awaited.append((group, chosen, opened.sync.vector()))
    if named is None and len(groups) > 1:
        while awaited and not any(group.lanes() for group, _, _ in awaited):  # noqa: ASYNC110 - no event tells of all groups
            await trio.sleep(_LOOK_S)
    passed_over = [group for group, chosen, _ in awaited if chosen is None and len(groups) > 1 and not group.lanes()]
    waited: dict[bytes, list[Group]] = {}
    for group, chosen, vector in awaited:
        if group in passed_over:
            continue
        async with group.use() as opened:
            while True:
                wanted = group.lanes().keys() if chosen is None else chosen
                if wanted and all(group.copies.covers(device, vector, opened.sync) for device in wanted):
                    for device in wanted:
                        waited.setdefault(device, []).append(group)
                    break
                with trio.move_on_after(1.0):  # a session that begins is no progress of another
                    await opened.sync.wait_progress()
    return {
        "devices": [
            {
                "device_id": device_text(device),
                "name": where[0].summary.device_name(device),
                "user_names": _user_names_in(where[0], device),
                "group_ids": [group.text_id for group in where],
            }
            for device, where in waited.items()
        ],
        "passed_over": [{"group_id": group.text_id, "name": group.name} for group in passed_over],
    }


def _named_devices(node: Node, groups: Sequence[Group], devices: Sequence[str]) -> frozenset[bytes]:
    candidates = {
        device: (device_text(device), group.summary.device_name(device), device)
        for group in groups
        for device in _other_devices(node, group)
    }
    return frozenset(find(text, candidates.values(), code="user_not_found", what="other device") for text in devices)
