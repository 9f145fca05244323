"""What the node tells of itself, its groups, links and copies, in the words of API.md."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import trio

from peersd.errors import PeersdError
from peersd.node.device_file import Device
from peersd.node.genesis import NewUser
from peersd.node.group import Group
from peersd.node.naming import find, format_stamp, format_time
from peersd_protocol import ids
from peersd_protocol.acts import Settings, encode_body
from peersd_protocol.devicekeys import is_device_name
from peersd_protocol.entries import Kind
from peersd_protocol.roles import format_role

if TYPE_CHECKING:
    from peersd.node.node import Node, User


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
    return {
        "device_id": device_text(device.keys.device) if device else None,
        "device_name": device.name if device else None,
        "users": [{"user_id": user_text(user.id), "name": user.name} for user in node.users.values()],
        "listen": list(node.listen_urls),
        "advertise": node.advertised(),
        "links": len(node.links.handles()) if node.links else 0,
        "groups": len(node.groups),
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
    text = ids.format_id(ids.GROUP, group_id)
    shared = {
        "group_id": text,
        "kind": "personal" if group_id == user.personal.id else "group",
        "active": group_id == user.active,
        "hidden": group_id in user.group_ids and user.group_ids[group_id].hidden,
    }
    opened = node.groups.get(group_id)
    if opened is None:
        state = node.failed.get(group_id, "corrupt")
        return {
            **shared,
            "name": node.name_of(user, group_id),
            "role": "none",
            "members": 0,
            "state": state,
            "in_sync": False,
            "path": str(node.group_path(text)),
        }
    members = [member for member in opened.state.members.values() if member.role]
    return {
        **shared,
        "name": opened.state.name,
        "role": format_role(opened.state.role_of(user.id)),
        "members": len(members),
        "state": _state(opened),
        "in_sync": _is_in_sync(node, opened),
        "path": str(opened.path),
    }


def _state(opened: Group) -> str:
    if opened.store.is_damaged:
        return "corrupt"
    if opened.state.needs_upgrade:
        return "needs_upgrade"
    return "stalled" if opened.sync.stalled else "ok"


def group_in_full(node: Node, user: User, opened: Group) -> Mapping[str, Any]:
    """group.show."""
    state = opened.state
    return {
        **group(node, user, opened.id),
        "description": state.description,
        "avatar": state.avatar or None,
        "created_at": format_stamp(state.created_at_hlc),
        "schema_version": state.schema.version,
    }


async def describe(opened: Group, user: bytes, description: str) -> None:
    """Sets a group's description."""
    await opened.store.act(user, Kind.CONTROL, encode_body(Settings(description=description)))


def _other_devices(node: Node, opened: Group) -> Iterator[bytes]:
    own = node.device.keys.device if node.device else b""
    return (device for device in sorted(opened.state.member_devices) if device != own)


def _is_in_sync(node: Node, opened: Group) -> bool:
    """Whether every device with a session holds exactly what this one holds, and there is one, or nobody else to sync with."""
    sessions = opened.sync.devices()
    others = set(_other_devices(node, opened))
    if not others:
        return True
    return bool(sessions) and all(opened.sync.is_equal(session) for session in sessions.values())


def members(node: Node, opened: Group, *, include_left: bool) -> Sequence[Mapping[str, Any]]:
    """member.list: seniors first."""
    listed = []
    state = opened.state
    for user, member in sorted(state.members.items(), key=lambda item: (-item[1].role, item[1].joined_hlc)):
        if not member.role and not include_left:
            continue
        answer = {
            "user_id": user_text(user),
            "name": member.name,
            "role": format_role(member.role),
            "joined_at": format_stamp(member.joined_hlc),
            "devices": [_device(node, opened, user, device) for device in member.devices],
        }
        if member.left_hlc is not None:
            answer["left_at"] = format_stamp(member.left_hlc)
        listed.append(answer)
    return listed


def _device_name(opened: Group, device: bytes) -> str:
    for user in opened.state.users.values():
        known = user.devices.get(device)
        if known is not None:
            return known.cert.name
    return ""


def _device(node: Node, opened: Group, user: bytes, device: bytes) -> Mapping[str, Any]:
    is_self = node.device is not None and device == node.device.keys.device
    is_linked = node.links is not None and node.links.to_device(device) is not None
    return {
        "device_id": device_text(device),
        "name": _device_name(opened, device),
        "online": is_self or is_linked,
        "last_seen": format_time(node.wall_ms() if is_self or is_linked else opened.view(device).last_seen_ms),
    }


# --- Links ----------------------------------------------------------------------------------------------------------------------


def links(node: Node) -> Sequence[Mapping[str, Any]]:
    """link.list."""
    return [
        {
            "device_id": device_text(handle.remote_device),
            "device_name": next(
                (name for opened in node.groups.values() if (name := _device_name(opened, handle.remote_device))), ""
            ),
            "user_names": sorted(_user_names(node, handle.remote_device)),
            "url": handle.url,
            "direction": handle.direction,
            "since": format_time(handle.since_ms),
            "rtt_ms": handle.rtt_ms,
            "channels": [
                {
                    "group_id": ids.format_id(ids.GROUP, group_id),
                    "name": node.groups[group_id].state.name if group_id in node.groups else "",
                    "state": "open" if _has_session(node, group_id, handle.remote_device) else "opening",
                }
                for group_id in (node.sharings[handle].channels() if handle in node.sharings else ())
            ],
            "bytes_in": handle.bytes_in,
            "bytes_out": handle.bytes_out,
        }
        for handle in (node.links.handles() if node.links else ())
    ]


def _has_session(node: Node, group_id: bytes, device: bytes) -> bool:
    return group_id in node.groups and device in node.groups[group_id].sync.devices()


def _user_names(node: Node, device: bytes) -> set[str]:
    return {opened.state.members[user].name for opened in node.groups.values() for user in opened.state.is_member_device(device)}


async def connect(node: Node, url: str, device_id: str | None, timeout_s: float) -> Mapping[str, Any]:
    """link.connect."""
    assert node.links is not None
    try:
        device = ids.parse_id(ids.DEVICE, device_id) if device_id is not None else None
    except ValueError as error:
        raise PeersdError("unreachable", f"{device_id!r} is no device's id: {error}.", hint="`peers links` shows ids.") from error
    handle = await node.links.connect(url, device, timeout_s)
    node.links.want_device(handle.remote_device, [url])
    return {"device_id": device_text(handle.remote_device)}


# --- Copies ---------------------------------------------------------------------------------------------------------------------


async def sync(node: Node, opened: Group) -> Mapping[str, Any]:
    """One element of sync.status: what each other device is known to hold."""
    opened.note_views()
    sessions = opened.sync.devices()
    devices = []
    for device in _other_devices(node, opened):
        view = opened.view(device)
        equal = device in sessions and opened.sync.is_equal(sessions[device])
        lag = (0, 0) if equal else await opened.store.call(opened.store.store.lag, opened.sync.durable_vector(device))
        devices.append(
            {
                "device_id": device_text(device),
                "name": _device_name(opened, device),
                "online": device in sessions,
                "equal": equal,
                "last_equal_at": format_time(view.last_equal_ms),
                "lag_entries": lag[0],
                "lag_bytes": lag[1],
            }
        )
    return {"group_id": opened.text_id, "devices": devices}


async def wait_synced(node: Node, opened: Group, devices: Sequence[str] | None) -> None:
    """Returns once the named devices, or all with a session at the time, durably hold all that this one holds now.

    Raises:
        PeersdError: `user_not_found` for a device that is none of a member.
    """
    vector = opened.sync.vector()
    wanted: set[bytes] | None = None
    if devices is not None:
        known = [(device_text(device), _device_name(opened, device), device) for device in opened.state.member_devices]
        wanted = {find(text, known, code="user_not_found", what="device") for text in devices}
    elif not set(_other_devices(node, opened)):
        return
    while True:
        sessions = opened.sync.devices()
        named = wanted if wanted is not None else set(sessions)
        if (wanted is not None or sessions) and all(
            device in sessions and opened.sync.covers(sessions[device], vector) for device in named
        ):
            return
        with trio.move_on_after(1.0):  # a session that begins is no progress of another
            await opened.sync.wait_progress()
