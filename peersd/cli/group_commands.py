"""Commands of groups: each calls the API and puts the answer into words."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, Final

from peersd.cli.input import read_file
from peersd.cli.output import Output, UsageError
from peersd.cli.tables import escape, format_facts, format_records, shorten_ids
from peersd.client import NoDaemon, Peers, PeersError

AVATAR_BYTES_MAX: Final = 1024 * 1024
"""Read of a file; what a group takes is the daemon's to say, and far less (guess: enough to say so with the file's length)."""

DEVICES_NAMED_MAX: Final = 3
"""Of a group's devices in one cell of a table; more are counted."""

_GROUP_COLUMNS: Final = {
    "name": "name",
    "group_id": "id",
    "kind": "kind",
    "role": "role",
    "members": "members",
    "active": "active",
    "in_sync": "in sync",
    "devices": "devices",
    "state": "state",
}


async def groups(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers groups`."""
    answer = await peers.groups(include_hidden=arguments.all)
    copies: dict[str, Sequence[Mapping[str, Any]]] = {}
    if not arguments.json:
        try:
            copies = {group["group_id"]: group["devices"] for group in await peers.sync_status()}
        except NoDaemon:
            raise
        except PeersError:
            # One damaged group must not hide all others; `peers sync` says what is wrong.
            pass
    short = shorten_ids(group["group_id"] for group in answer)
    shown = [
        {**group, "group_id": short[group["group_id"]], "devices": _copies_words(copies.get(group["group_id"], ()))}
        for group in answer
    ]
    columns = {**_GROUP_COLUMNS, "hidden": "hidden"} if arguments.all else _GROUP_COLUMNS
    return Output(answer, format_records(shown, columns, "no groups"))


async def group_create(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers group create`."""
    answer = await peers.call("group.create", name=arguments.name, description=arguments.description)
    return Output(answer, f"created {escape(arguments.name)}: {escape(answer['group_id'])}\n")


async def group_show(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers group show`."""
    answer = await peers.show_group(chosen_group(arguments))
    return Output(answer, _group_facts(answer))


async def group_active(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers group active`."""
    answer = await peers.active_group()
    return Output(answer, f"active group: {escape(answer['name'])} ({escape(answer['group_id'])})\n")


async def group_switch(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers group switch`."""
    answer = await peers.switch_group(arguments.group)
    return Output(answer, f"active group: {escape(answer['name'])} ({escape(answer['group_id'])})\n")


async def group_update(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers group update`."""
    avatar = None
    if not arguments.no_avatar and (arguments.name, arguments.description, arguments.avatar) == (None, None, None):
        raise UsageError("give at least one of --name, --description, --avatar and --no-avatar")
    if arguments.no_avatar:
        avatar = b""
    elif arguments.avatar is not None:
        avatar = read_file(arguments.avatar, AVATAR_BYTES_MAX)
        if not avatar:
            raise UsageError(f"{arguments.avatar}: empty; --no-avatar removes the avatar")
    answer = await peers.update_group(
        chosen_group(arguments), name=arguments.name, description=arguments.description, avatar=avatar
    )
    return Output(answer, _group_facts(answer))


async def group_hide(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers group hide`."""
    group, name = await _named(peers, arguments)
    answer = await peers.call("group.hide", group=group, hidden=not arguments.show)
    if arguments.show:
        return Output(answer, f"{escape(name)} is not hidden any more\n")
    return Output(answer, f"{escape(name)} is hidden, and otherwise as it was; `peers groups --all` shows it\n")


async def group_leave(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers group leave`."""
    group, name = await _named(peers, arguments)
    answer = await peers.call("group.leave", group=group)
    return Output(answer, f"left {escape(name)}\n", "its file stays here, read-only; peers group forget deletes it\n")


async def group_forget(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers group forget`."""
    group, name = await _named(peers, arguments)
    answer = await peers.call("group.forget", group=group)
    return Output(answer, f"forgot {escape(name)}: its file is deleted\n")


async def _named(peers: Peers, arguments: argparse.Namespace) -> tuple[str, str]:
    """The group that is meant, and how to call it: asked first where none was named, so that what is told is what was done."""
    group = chosen_group(arguments)
    if group is not None:
        return group, group
    active = await peers.active_group()
    return active["group_id"], f"{active['name']} ({active['group_id']})"


async def schema(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers schema`."""
    answer = await peers.schema(arguments.group)
    parts = [f"schema version {answer['schema_version']}\n"]
    columns = {"name": "column", "type": "type", "key": "key", "default": "default", "not_null": "not null"}
    for table in answer["tables"]:
        listed = [{**column, "key": column["key"] or None} for column in table["columns"]]
        indexes = "".join(f"  index {_index_words(index)}\n" for index in table["indexes"])
        parts.append(f"\n{escape(table['name'])}\n{indexes}{format_records(listed, columns, 'no columns')}")
    return Output(answer, "".join(parts))


def chosen_group(arguments: argparse.Namespace) -> str | None:
    """The group of a command that takes it as GROUP or by -g; None for the active one.

    Raises:
        UsageError: both, and they differ.
    """
    named: str | None = arguments.name_or_id
    flagged: str | None = arguments.group
    if named is not None and flagged is not None and named != flagged:
        raise UsageError("give the group once: as GROUP or by -g")
    return named if named is not None else flagged


def device_words(device: Mapping[str, Any]) -> str:
    """A device by its users and its name, as in `ben's laptop`."""
    users = " and ".join(device.get("user_names", ()))
    name = str(device["name"] or device["device_id"])
    return f"{users}'s {name}" if users else name


def lag_words(device: Mapping[str, Any], key: str) -> object:
    """How far behind a device is, `lag_entries` or `lag_bytes`; without a session only what it last said of itself is known."""
    return f"up to {device[key]}" if device[key] and not device["online"] else device[key]


def _copy_words(device: Mapping[str, Any]) -> str:
    """What is known of another device's copy of a group."""
    if device["equal"]:
        return "equal"
    last = device["last_equal_at"]
    entries = f"{lag_words(device, 'lag_entries')} {'entry' if device['lag_entries'] == 1 else 'entries'}"
    return f"{entries} behind, " + (f"last equal {last}" if last else "never seen equal")


def _copies_words(devices: Sequence[Mapping[str, Any]]) -> list[str]:
    if len(devices) <= DEVICES_NAMED_MAX:
        return [f"{device_words(device)}{'' if device['online'] else ' (offline)'}: {_copy_words(device)}" for device in devices]
    equal = sum(1 for device in devices if device["equal"])
    offline = sum(1 for device in devices if not device["online"])
    return [f"{equal} of {len(devices)} equal" + (f" ({offline} offline)" if offline else "")]


def _index_words(index: Mapping[str, Any]) -> str:
    columns = ", ".join(escape(column["name"]) + (" desc" if column["desc"] else "") for column in index["columns"])
    return f"{escape(index['name'])} ({columns})"


def _group_facts(group: dict[str, Any]) -> str:
    facts = {name.replace("_", " "): value for name, value in group.items() if name not in ("avatar", "voided_entries")}
    voided = group.get("voided_entries")
    if voided:
        entries = "1 entry" if voided == 1 else f"{voided} entries"
        facts["voided"] = f"{entries} written here after your right to write had been taken elsewhere; no device shows them"
    avatar = group.get("avatar")
    if avatar is not None:
        facts["avatar"] = f"{len(avatar)} bytes"
    return format_facts(facts)
