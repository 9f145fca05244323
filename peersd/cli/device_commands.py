"""Commands of the daemon, its user's devices, its links, and how far other devices are."""

from __future__ import annotations

import argparse
from typing import Final

import trio

from peersd.cli.group_commands import device_words, lag_words
from peersd.cli.output import Output, UsageError
from peersd.cli.process_end import ProcessEnd
from peersd.cli.tables import escape, format_cell, format_facts, format_records, shorten_ids
from peersd.client import Peers

SYNC_WAIT_S: Final = 60
"""How long `peers sync --wait` waits unless told otherwise."""

STOP_WAIT_S: Final = 60.0
"""Longer than the daemon ever takes to stop; after that `peers stop` says so."""


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
    short = shorten_ids(link["device_id"] for link in answer)
    shown = [{**link, "channels": len(link["channels"]), "device_id": short[link["device_id"]]} for link in answer]
    columns = {
        "device_name": "device",
        "device_id": "id",
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


async def devices(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers devices`."""
    answer = await peers.devices()
    columns = {
        "name": "name",
        "device_id": "id",
        "this": "this one",
        "online": "online",
        "last_seen": "last seen",
        "added_at": "added",
        "revoked_at": "revoked",
    }
    short = shorten_ids(device["device_id"] for device in answer)
    shown = [{**device, "device_id": short[device["device_id"]]} for device in answer]
    return Output(answer, format_records(shown, columns, "no devices"))


async def connect(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers connect`."""
    answer = await peers.call("link.connect", url=arguments.url)
    return Output(answer, f"connected to {escape(answer['device_id'])}\n")


async def disconnect(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers disconnect`."""
    answer = await peers.call("link.disconnect", device=arguments.device)
    return Output(answer, f"disconnected from {escape(arguments.device)}\n")


async def sync(peers: Peers, arguments: argparse.Namespace) -> Output:
    """`peers sync`."""
    if arguments.wait:
        return await _wait(peers, arguments)
    if arguments.devices or arguments.timeout is not None:
        raise UsageError("--device and --timeout go with --wait")
    answer = await peers.sync_status(arguments.group)
    rows = [
        {
            **device,
            "group": group["name"],
            "name": device["name"] or device["device_id"],
            "lag_entries": lag_words(device, "lag_entries"),
            "lag_bytes": lag_words(device, "lag_bytes"),
        }
        for group in answer
        for device in group["devices"]
    ]
    columns = {
        "group": "group",
        "user_names": "user",
        "name": "device",
        "online": "online",
        "equal": "equal",
        "lag_entries": "entries behind",
        "lag_bytes": "bytes behind",
        "last_equal_at": "last equal",
    }
    return Output(answer, format_records(rows, columns, "no other devices"))


async def _wait(peers: Peers, arguments: argparse.Namespace) -> Output:
    timeout_s = SYNC_WAIT_S if arguments.timeout is None else arguments.timeout
    answer = await peers.call("sync.wait", group=arguments.group, devices=arguments.devices or None, timeout_s=timeout_s)
    devices = [format_cell(device_words(device)) for device in answer.get("devices", ())]
    passed_over = [format_cell(group["name"]) for group in answer.get("passed_over", ())]
    note = f"not waited for, as no other device is linked there: {', '.join(passed_over)}\n" if passed_over else ""
    if not devices:
        return Output(answer, "there is no other device to wait for\n", note)
    if len(devices) == 1:
        return Output(answer, f"{devices[0]} holds everything\n", note)
    return Output(answer, f"{len(devices)} devices hold everything: {', '.join(devices)}\n", note)


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
