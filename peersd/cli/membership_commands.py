"""Commands of who is in a group and as what: members, roles, bans, invites."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Final

from peersd.cli.input import read_input
from peersd.cli.output import Output, UsageError
from peersd.cli.tables import escape, format_records, shorten_ids
from peersd.client import Peers

TICKET_BYTES_MAX: Final = 65_536

ROLE_NAMES: Final = ("owner", "admin", "moderator", "writer", "reader")


async def members(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers members`."""
    answer = await peers.members(arguments.group, include_left=arguments.left)
    short = shorten_ids(member["user_id"] for member in answer)
    shown = [
        {
            **member,
            "user_id": short[member["user_id"]],
            "devices": [_device_words(device) for device in member["devices"]],
        }
        for member in answer
    ]
    columns = {"name": "name", "user_id": "id", "role": "role", "joined_at": "joined", "devices": "devices"}
    if arguments.left:
        columns |= {"left_at": "left", "ended": "how"}
    return Output(answer, format_records(shown, columns, "no members"))


async def member_set_role(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers member set-role`."""
    answer = await peers.call("member.set_role", group=arguments.group, user=arguments.user, role=arguments.role)
    return Output(answer, f"{escape(arguments.user)} is now {arguments.role}\n")


async def member_remove(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers member remove`."""
    answer = await peers.call("member.remove", group=arguments.group, user=arguments.user)
    return Output(answer, f"removed {escape(arguments.user)}\n")


async def ban_add(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers ban add`."""
    answer = await peers.call("ban.add", group=arguments.group, user=arguments.user, reason=arguments.reason)
    return Output(answer, f"banned {escape(arguments.user)}\n")


async def ban_remove(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers ban remove`."""
    answer = await peers.call("ban.remove", group=arguments.group, user=arguments.user)
    note = "this makes nobody a member again; a ticket does: peers invite create\n"
    return Output(answer, f"the ban of {escape(arguments.user)} is lifted\n", note)


async def ban_list(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers ban list`."""
    answer = await peers.bans(arguments.group)
    columns = {"name": "name", "user_id": "id", "reason": "reason", "banned_by": "by", "banned_at": "at"}
    short = shorten_ids(user for ban in answer for user in (ban["user_id"], ban["banned_by"]))
    shown = [
        {**ban, "user_id": short[ban["user_id"]], "banned_by": ban.get("banned_by_name") or short[ban["banned_by"]]}
        for ban in answer
    ]
    return Output(answer, format_records(shown, columns, "no bans"))


async def invite_create(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers invite create`: the ticket alone goes to standard output."""
    answer = await peers.create_invite(
        arguments.group, role=arguments.role, expires_in_s=arguments.expires, max_uses=arguments.uses
    )
    uses = "once" if arguments.uses == 1 else f"{arguments.uses} times"
    note = (
        f"invite {escape(answer['invite_id'])}: joins as {arguments.role}, {uses}, until {escape(answer['expires_at'])}\n"
        "Whoever holds the ticket can join: pass it on privately. The other side runs: peers join TICKET\n"
    )
    return Output(answer, f"{escape(answer['ticket'])}\n", note)


async def invite_list(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers invite list`."""
    answer = await peers.invites(arguments.group)
    short = shorten_ids(text for invite in answer for text in (invite["invite_id"], invite["created_by"]))
    shown = [
        {
            **invite,
            "invite_id": short[invite["invite_id"]],
            "state": invite["state"].replace("_", " "),
            "uses": f"{invite['uses']} of {invite['max_uses']}",
            "created_by": invite["created_by_name"] or short[invite["created_by"]],
        }
        for invite in answer
    ]
    columns = {
        "invite_id": "id",
        "role": "role",
        "state": "state",
        "uses": "uses",
        "expires_at": "expires",
        "created_by": "by",
    }
    return Output(answer, format_records(shown, columns, "no invites"))


async def invite_revoke(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers invite revoke`."""
    answer = await peers.call("invite.revoke", group=arguments.group, invite_id=arguments.id)
    return Output(answer, f"revoked {escape(arguments.id)}\n")


async def join(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers join`."""
    ticket = arguments.ticket
    if ticket == "-":
        ticket = read_input("ticket", TICKET_BYTES_MAX)
    ticket = "".join(ticket.split())
    if not ticket:
        raise UsageError("there is no ticket: it is what `peers invite create` prints on a member's device")
    before = {group["group_id"]: group["role"] for group in await peers.groups(include_hidden=True)}
    answer = await peers.join(ticket, timeout_s=arguments.timeout)
    if before.get(answer["group_id"], "none") != "none":
        name, role = escape(answer["name"]), escape(answer["role"])
        return Output(answer, f"you are a member of {name} already, as {role} ({escape(answer['group_id'])})\n")
    return Output(answer, f"joined {escape(answer['name'])} as {escape(answer['role'])} ({escape(answer['group_id'])})\n")


def _device_words(device: Mapping[str, Any]) -> str:
    seen = "online" if device["online"] else f"seen {device['last_seen'] or 'never'}"
    return f"{device['name']} ({seen})"
