"""An error as the command line tells it: in commands and flags, where the daemon speaks of methods and parameters."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from typing import Any, Final

from peersd.cli.tables import escape
from peersd.client import NoDaemon, PeersError
from peersd.client.values import encode_json

COMMANDS: Final = {
    "daemon.status": "peers status",
    "daemon.stop": "peers stop",
    "init": "peers init",
    "group.create": "peers group create",
    "group.list": "peers groups",
    "group.show": "peers group show",
    "group.update": "peers group update",
    "group.switch": "peers group switch",
    "group.active": "peers group active",
    "group.hide": "peers group hide",
    "group.leave": "peers group leave",
    "group.forget": "peers group forget",
    "member.list": "peers members",
    "member.set_role": "peers member set-role",
    "member.remove": "peers member remove",
    "ban.add": "peers ban add",
    "ban.remove": "peers ban remove",
    "ban.list": "peers ban list",
    "invite.create": "peers invite create",
    "invite.list": "peers invite list",
    "invite.revoke": "peers invite revoke",
    "invite.accept": "peers join",
    "device.list": "peers devices",
    "sql.query": "peers sql",
    "sql.execute": "peers sql",
    "sql.transaction": "peers sql --transaction",
    "schema.show": "peers schema",
    "link.list": "peers links",
    "link.connect": "peers connect",
    "link.disconnect": "peers disconnect",
    "sync.status": "peers sync",
    "sync.wait": "peers sync --wait",
    "events.subscribe": "peers events",
}
"""The command for each method, as on the operations page."""

PARAMETERS: Final = {
    "avatar": "the avatar",
    "description": "the description",
    "device": "the device",
    "device_id": "the device",
    "device_name": "the device's name",
    "devices": "the device",
    "expires_in_s": "--expires",
    "group": "the group",
    "invite_id": "the invite's id",
    "limit": "--limit",
    "max_uses": "--uses",
    "name": "the name",
    "reason": "the reason",
    "role": "the role",
    "sql": "the SQL",
    "ticket": "the ticket",
    "timeout_s": "--timeout",
    "url": "the URL",
    "user": "the user",
    "user_name": "the user's name",
}
"""What the command line calls a method's parameter."""

CANDIDATES_SHOWN_MAX: Final = 20

_METHOD: Final = re.compile("`?\\b(" + "|".join(re.escape(name) for name in COMMANDS if "." in name) + ")\\b`?")


def print_error(error: PeersError, *, as_json: bool, command: str, data: str | None, socket: str | None) -> None:
    """Write an error to standard error.

    Args:
        error: of the daemon, or that there is none.
        as_json: as the daemon gave it.
        command: the one that was run, such as `peers group show`.
        data: the flag that chose the daemon's folder.
        socket: the flag that chose its socket.
    """
    if as_json:
        told = {"error": {**error.data, "code": error.code, "message": error.message, "hint": error.hint}}
        print(encode_json(told, ascii_only=True), file=sys.stderr)
        return
    message, hint = error.message, _METHOD.sub(lambda found: f"`{COMMANDS[found[1]]}`", error.hint)
    if error.code == "invalid_params":
        message, hint = _parameter_words(error), f"see: {command} --help"
    elif isinstance(error, NoDaemon):
        hint = _start_words(error.hint, data, socket)
    print(f"peers: {escape(message)} ({escape(error.code)})", file=sys.stderr)
    if hint:
        print(f"  hint: {escape(hint)}", file=sys.stderr)
    for line in _candidate_lines(error.data):
        print(f"    {line}", file=sys.stderr)


def _parameter_words(error: PeersError) -> str:
    detail, parameter = str(error.data.get("detail") or error.message), error.data.get("parameter")
    words = PARAMETERS.get(parameter) if isinstance(parameter, str) else None
    if words is None or not detail.startswith(f"{parameter} "):
        return detail
    return words + detail[len(str(parameter)) :]


def _start_words(hint: str, data: str | None, socket: str | None) -> str:
    """The hint with the flags that were given, without which another daemon would be started."""
    flags = [word for flag, value in (("--data", data), ("--socket", socket)) if value for word in (flag, value)]
    return f"start one: {shlex.join(['peersd', 'run', *flags])}" if flags and "peersd run" in hint else hint


def _candidate_lines(data: Mapping[str, Any]) -> list[str]:
    """What a text may have meant, an id and a name a line."""
    candidates = data.get("candidates") or []
    lines = [f"{escape(one['id'])}  {escape(one['name'])}".rstrip() for one in candidates[:CANDIDATES_SHOWN_MAX]]
    more = len(candidates) - len(lines)
    return [*lines, f"and {more} more"] if more else lines
