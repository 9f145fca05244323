"""The commands but `sql`: each calls the API and puts the answer into words."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

import trio

from peersd.cli.output import Output, UsageError
from peersd.cli.process_end import ProcessEnd
from peersd.cli.tables import escape, format_cell, format_facts, format_records
from peersd.client import Peers

TICKET_BYTES_MAX: Final = 65_536

STOP_WAIT_S: Final = 60.0
"""Longer than the daemon ever takes to stop; after that `peers stop` says so."""

ROLE_NAMES: Final = ("owner", "admin", "moderator", "writer", "reader")

_GROUP_COLUMNS: Final = {
    "name": "name",
    "group_id": "id",
    "kind": "kind",
    "role": "role",
    "members": "members",
    "active": "active",
    "in_sync": "in sync",
    "state": "state",
}


def read_input(what: str, bytes_max: int) -> str:
    """Standard input as text.

    Raises:
        UsageError: too long, or not UTF-8.
    """
    content = sys.stdin.buffer.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise UsageError(f"the {what} on standard input is longer than {bytes_max} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"the {what} on standard input is not UTF-8") from None


async def status(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers status`."""
    answer = await peers.status()
    users = [f"{user['name']} ({user['user_id']})" for user in answer["users"]]
    facts = {
        "version": answer["version"],
        "process": answer["pid"],
        "device": f"{answer['device_name']} ({answer['device_id']})" if answer["device_id"] else None,
        "users": users,
        "listens on": answer["listen"],
        "advertises": answer["advertise"],
        "links": answer["links"],
        "groups": answer["groups"],
        "up for": f"{answer['uptime_s']:.0f} s",
    }
    note = "" if answer["users"] else "no user yet; make one: peers init --user NAME\n"
    return Output(answer, format_facts(facts), note)


async def links(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers links`."""
    answer = await peers.links()
    shown = [{**link, "channels": len(link["channels"])} for link in answer]
    columns = {
        "device_name": "device",
        "user_names": "users",
        "direction": "direction",
        "url": "url",
        "channels": "groups",
        "rtt_ms": "rtt ms",
        "bytes_in": "bytes in",
        "bytes_out": "bytes out",
        "since": "since",
    }
    return Output(answer, format_records(shown, columns, "no links"))


async def groups(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers groups`."""
    answer = await peers.groups(include_hidden=arguments.all)
    return Output(answer, format_records(answer, _GROUP_COLUMNS, "no groups"))


async def init(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers init`."""
    answer = await peers.init(arguments.user, arguments.device)
    facts = {
        "user": answer["user_id"],
        "device": answer["device_id"],
        "personal group": answer["personal_group_id"],
        "recovery phrase": answer["recovery_phrase"],
    }
    note = "Write the recovery phrase down and keep it safe: it is shown this once and stored nowhere.\n"
    return Output(answer, format_facts(facts), note)


async def group_create(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers group create`."""
    answer = await peers.call("group.create", name=arguments.name, description=arguments.description)
    return Output(answer, f"created {escape(arguments.name)}: {answer['group_id']}\n")


async def group_show(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers group show`."""
    answer = await peers.show_group(arguments.name or arguments.group)
    return Output(answer, _group_facts(answer))


async def group_switch(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers group switch`."""
    answer = await peers.switch_group(arguments.group)
    return Output(answer, f"active group: {escape(answer['name'])} ({answer['group_id']})\n")


async def invite_create(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers invite create`: the ticket alone goes to standard output."""
    answer = await peers.create_invite(
        arguments.group, role=arguments.role, expires_in_s=arguments.expires, max_uses=arguments.uses
    )
    uses = "once" if arguments.uses == 1 else f"{arguments.uses} times"
    note = (
        f"invite {answer['invite_id']}: joins as {arguments.role}, {uses}, until {answer['expires_at']}\n"
        "Whoever holds the ticket can join: pass it on privately. The other side runs: peers join TICKET\n"
    )
    return Output(answer, f"{answer['ticket']}\n", note)


async def invite_list(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers invite list`."""
    answer = await peers.invites(arguments.group)
    columns = {
        "invite_id": "id",
        "role": "role",
        "expires_at": "expires",
        "uses": "uses",
        "max_uses": "of",
        "revoked": "revoked",
        "created_by": "by",
    }
    return Output(answer, format_records(answer, columns, "no invites"))


async def invite_revoke(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers invite revoke`."""
    answer = await peers.call("invite.revoke", group=arguments.group, invite_id=arguments.id)
    return Output(answer, f"revoked {escape(arguments.id)}\n")


async def join(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers join`."""
    ticket = arguments.ticket
    if ticket == "-":
        ticket = read_input("ticket", TICKET_BYTES_MAX)
    answer = await peers.join("".join(ticket.split()), timeout_s=arguments.timeout)
    return Output(answer, f"joined {escape(answer['name'])} as {answer['role']} ({answer['group_id']})\n")


async def members(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers members`."""
    answer = await peers.members(arguments.group, include_left=arguments.left)
    shown = [{**member, "devices": [_device_words(device) for device in member["devices"]]} for member in answer]
    columns = {"name": "name", "user_id": "id", "role": "role", "joined_at": "joined", "devices": "devices"}
    if arguments.left:
        columns["left_at"] = "left"
    return Output(answer, format_records(shown, columns, "no members"))


async def connect(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers connect`."""
    answer = await peers.call("link.connect", url=arguments.url)
    return Output(answer, f"connected to {answer['device_id']}\n")


async def sync(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers sync`."""
    if arguments.wait:
        answer = await peers.call(
            "sync.wait", group=arguments.group, devices=arguments.devices or None, timeout_s=arguments.timeout
        )
        return Output(answer, "the other devices hold everything\n")
    answer = await peers.sync_status(arguments.group)
    names = {group["group_id"]: group["name"] for group in await peers.groups(include_hidden=True)}
    rows = [
        {"group": names.get(group["group_id"], group["group_id"]), **device} for group in answer for device in group["devices"]
    ]
    columns = {
        "group": "group",
        "name": "device",
        "online": "online",
        "equal": "equal",
        "lag_entries": "entries behind",
        "lag_bytes": "bytes behind",
        "last_equal_at": "last equal",
    }
    return Output(answer, format_records(rows, columns, "no other devices"))


async def stop(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers stop`: returns when the process has ended, so that another may start on its folder."""
    pid = (await peers.status())["pid"]
    end = ProcessEnd(pid)
    try:
        await peers.stop()
        with trio.move_on_after(STOP_WAIT_S):
            await end.wait()
            return Output({}, "stopped\n")
    finally:
        end.close()
    return Output({}, "", f"told to stop, but process {pid} still runs\n")


def _group_facts(group: dict[str, Any]) -> str:
    facts = {name.replace("_", " "): value for name, value in group.items() if name != "avatar"}
    avatar = group.get("avatar")
    if avatar is not None:
        facts["avatar"] = f"{len(avatar)} bytes"
    return format_facts(facts)


def _device_words(device: dict[str, Any]) -> str:
    seen = "online" if device["online"] else f"seen {device['last_seen'] or 'never'}"
    return f"{format_cell(device['name'])} ({seen})"
