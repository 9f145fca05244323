"""Commands of groups: each calls the API and puts the answer into words."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, Final

from peersd.cli.input import read_file
from peersd.cli.output import Output, UsageError
from peersd.cli.tables import escape, format_facts, format_records
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
    shown = [{**group, "devices": _copies_words(copies.get(group["group_id"], ()))} for group in answer]
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


async def group_switch(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers group switch`."""
    answer = await peers.switch_group(arguments.group)
    return Output(answer, f"active group: {escape(answer['name'])} ({escape(answer['group_id'])})\n")


async def group_update(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers group update`."""
    avatar = None
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
    answer = await peers.call("group.hide", group=arguments.group, hidden=not arguments.show)
    if arguments.show:
        return Output(answer, f"{escape(arguments.group)} is listed again\n")
    return Output(answer, f"{escape(arguments.group)} is hidden; it syncs on, and `peers groups --all` shows it\n")


async def group_leave(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers group leave`."""
    group = name = chosen_group(arguments)
    if group is None:
        # Asked first and then named, so that what is reported as left is what was left.
        active = await peers.active_group()
        group, name = active["group_id"], f"{active['name']} ({active['group_id']})"
    answer = await peers.call("group.leave", group=group)
    note = "its file stays here, read-only; peers group forget deletes it\n"
    return Output(answer, f"left {escape(name or group)}\n", note)


async def group_forget(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers group forget`."""
    answer = await peers.call("group.forget", group=arguments.group)
    return Output(answer, f"forgot {escape(arguments.group)}: its file is deleted\n")


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


def _copy_words(device: Mapping[str, Any]) -> str:
    """What is known of another device's copy of a group."""
    if device["equal"]:
        return "equal"
    entries = device["lag_entries"]
    last = device["last_equal_at"]
    return f"{entries} {'entry' if entries == 1 else 'entries'} behind, " + (f"last equal {last}" if last else "never seen equal")


def _copies_words(devices: Sequence[Mapping[str, Any]]) -> list[str]:
    if len(devices) <= DEVICES_NAMED_MAX:
        return [f"{device['name'] or device['device_id']}: {_copy_words(device)}" for device in devices]
    equal = sum(1 for device in devices if device["equal"])
    return [f"{equal} of {len(devices)} equal"]


def _index_words(index: Mapping[str, Any]) -> str:
    columns = ", ".join(escape(column["name"]) + (" desc" if column["desc"] else "") for column in index["columns"])
    return f"{escape(index['name'])} ({columns})"


def _group_facts(group: dict[str, Any]) -> str:
    facts = {name.replace("_", " "): value for name, value in group.items() if name != "avatar"}
    avatar = group.get("avatar")
    if avatar is not None:
        facts["avatar"] = f"{len(avatar)} bytes"
    return format_facts(facts)
