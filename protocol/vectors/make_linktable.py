"""Decisions between links: SPEC, part L, rules L-12 to L-19."""

from __future__ import annotations

from typing import Any

from peersd_protocol.errors import CloseCode
from peersd_protocol.linktable import Alarm, Close, Effect, Keep, Link, LinkTable

DEVICE, LOWER, HIGHER = b"\x20" * 32, b"\x10" * 32, b"\x30" * 32


def up(link_id: int, remote: bytes, dialler: str, boot: int, replaces: int = 0) -> dict[str, Any]:
    return {
        "link": link_id,
        "remote_device": remote.hex(),
        "dialler": dialler,
        "remote_boot_id": bytes([boot] * 16).hex(),
        "handshake_hash": bytes([link_id] * 32).hex(),
        "remote_replaces": bytes([replaces] * 32).hex() if replaces else "",
    }


def down(link_id: int) -> dict[str, Any]:
    return {"down": link_id}


def perform(table: LinkTable, step: dict[str, Any]) -> list[Effect]:
    if "down" in step:
        return table.link_down(step["down"])
    names = ("remote_device", "remote_boot_id", "handshake_hash", "remote_replaces")
    remote, boot_id, handshake_hash, replaces = (bytes.fromhex(step[name]) for name in names)
    return table.link_up(Link(step["link"], remote, step["dialler"] == "local", boot_id, handshake_hash, replaces))


def described(effect: Effect) -> list[Any]:
    match effect:
        case Keep(link_id):
            return ["keep", link_id]
        case Close(link_id, close_code):
            return ["close", link_id, close_code.name]
        case Alarm(name, device):
            return ["alarm", name, device.hex()]


SEQUENCES: dict[str, list[dict[str, Any]]] = {
    "the first link stays": [up(1, HIGHER, "local", 1)],
    "links to two devices": [up(1, HIGHER, "local", 1), up(2, LOWER, "remote", 1)],
    "dials cross, ours is the lower device's, ours is first": [up(1, HIGHER, "local", 1), up(2, HIGHER, "remote", 1)],
    "dials cross, ours is the lower device's, theirs is first": [up(1, HIGHER, "remote", 1), up(2, HIGHER, "local", 1)],
    "dials cross, theirs is the lower device's, ours is first": [up(1, LOWER, "local", 1), up(2, LOWER, "remote", 1)],
    "dials cross, theirs is the lower device's, theirs is first": [up(1, LOWER, "remote", 1), up(2, LOWER, "local", 1)],
    "the remote side dials again": [up(1, HIGHER, "remote", 1), up(2, HIGHER, "remote", 1)],
    "two dials of ours reach one device": [up(1, HIGHER, "local", 1), up(2, HIGHER, "local", 1)],
    "the remote side names the link that it closed": [up(1, HIGHER, "local", 1), up(2, HIGHER, "remote", 1, replaces=1)],
    "the remote side names another link": [up(1, HIGHER, "local", 1), up(2, HIGHER, "remote", 1, replaces=9)],
    "the remote process is a new one": [up(1, HIGHER, "local", 1), up(2, HIGHER, "remote", 2)],
    "we dial and meet a new process": [up(1, HIGHER, "local", 1), up(2, HIGHER, "local", 2)],
    "a link follows one that ended": [up(1, HIGHER, "local", 1), down(1), up(2, HIGHER, "remote", 1)],
    "an old process comes back while its successor is linked": [
        up(1, HIGHER, "remote", 1),
        up(2, HIGHER, "remote", 2),
        up(3, HIGHER, "remote", 1),
    ],
    "an old process comes back when its successor is gone": [
        up(1, HIGHER, "remote", 1),
        up(2, HIGHER, "remote", 2),
        down(2),
        up(3, HIGHER, "remote", 1),
    ],
    "the handshake of a process that ended is done when its successor is linked": [
        up(2, HIGHER, "remote", 2),
        up(1, HIGHER, "remote", 1),
    ],
    "the replaced link's end changes nothing": [
        up(1, LOWER, "remote", 1),
        up(2, LOWER, "remote", 1),
        down(1),
        up(3, LOWER, "local", 1),
    ],
}


def make() -> dict[str, Any]:
    valid: list[dict[str, Any]] = []
    invalid: list[dict[str, Any]] = []
    for name, steps in SEQUENCES.items():
        table = LinkTable(DEVICE)
        effects = [perform(table, step) for step in steps]
        case = {
            "name": name,
            "device": DEVICE.hex(),
            "steps": steps,
            "effects": [[described(e) for e in each] for each in effects],
        }
        if Close(steps[-1].get("link", 0), CloseCode.REPLACED) in effects[-1]:
            invalid.append(case | {"error": CloseCode.REPLACED.name})
        else:
            valid.append(case)
    return {
        "description": (
            "Links reported to the table of `device`, and the effects of each report in order. "
            "valid: the last link stays. invalid: the last link is the one that is closed, with the code `error`."
        ),
        "valid": valid,
        "invalid": invalid,
    }
