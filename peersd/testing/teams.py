"""A few daemons of as many users who share one group, each linked with each: where tests of membership begin.

async with open_team(tmp_path, ben="writer", cem="reader") as team:
    await team["ada"].call("member.remove", user="ben")
    await team.sync("ada", "cem")
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio

from peersd.client import PeersError
from peersd.testing.pairs import GROUP, join
from peersd.testing.processes import HANG_S, DaemonProcess, open_daemon
from peersd_protocol import ids

FOUNDER: Final = "ada"

NOTE: Final = "CREATE TABLE note (id TEXT PRIMARY KEY, text TEXT)"


class Team:
    """Daemons of users who are called as their daemons are; their devices are called `NAME-laptop`. Made by `open_team`.

    Attributes:
        daemons: by name, the founder first.
        group_id: of the group.
    """

    def __init__(self, daemons: Mapping[str, DaemonProcess], group_id: bytes, device_ids: Mapping[str, str]) -> None:
        self.daemons = daemons
        self.group_id = group_id
        self._device_ids = device_ids

    def __getitem__(self, name: str) -> DaemonProcess:
        """The daemon of a user."""
        return self.daemons[name]

    def path(self, name: str) -> Path:
        """The group's file on a device."""
        return self[name].data / f"group-{ids.format_id(ids.GROUP, self.group_id).removeprefix('grp-')}.db"

    async def sync(self, *names: str) -> None:
        """Return when each of these, or of all, durably holds what all of them had at the call."""
        chosen = names or tuple(self.daemons)
        for name in chosen:
            others = [self._device_ids[other] for other in chosen if other != name]
            if not others:
                return
            await self[name].call("sync.wait", group=GROUP, devices=others, timeout_s=HANG_S)

    async def write(self, name: str, text: str) -> dict[str, Any]:
        """Write a row with this text, which is its key too; the answer's `last_entry`."""
        written = await self[name].call("sql.execute", sql="INSERT INTO note VALUES (?1, ?1)", params=[text], group=GROUP)
        entry: dict[str, Any] = written["last_entry"]
        return entry

    async def notes(self, name: str) -> list[str]:
        """The texts of all rows, sorted."""
        return [
            text
            for (text,) in (await self[name].call("sql.query", sql="SELECT text FROM note ORDER BY text", group=GROUP))["rows"]
        ]

    async def group(self, name: str) -> dict[str, Any]:
        """The group as group.list with `include_hidden` shows it to a user."""
        listed = await self[name].call("group.list", include_hidden=True)
        (found,) = [group for group in listed if group["group_id"] == ids.format_id(ids.GROUP, self.group_id)]
        return dict(found)

    async def members(self, name: str) -> dict[str, dict[str, Any]]:
        """What member.list with `include_left` tells a user, by the members' names."""
        return {member["name"]: member for member in await self[name].call("member.list", group=GROUP, include_left=True)}


@asynccontextmanager
async def open_team(base: Path, **roles: str) -> AsyncGenerator[Team]:
    """Running daemons that share the group `team` with the table `note`, linked and in sync.

    Args:
        base: a folder of the test's own.
        roles: what each member but the founder, ada, joins as, by name.
    """
    async with AsyncExitStack() as stack:
        started: dict[str, DaemonProcess] = {}
        device_ids: dict[str, str] = {}

        async def start(name: str) -> None:
            started[name] = await stack.enter_async_context(open_daemon(base, name))
            made = await started[name].call("init", user_name=name, device_name=f"{name}-laptop")
            device_ids[name] = made["device_id"]

        async with trio.open_nursery() as nursery:
            for name in (FOUNDER, *roles):
                nursery.start_soon(start, name)
        daemons = {name: started[name] for name in (FOUNDER, *roles)}
        founder = daemons[FOUNDER]
        group_id = ids.parse_id(ids.GROUP, (await founder.call("group.create", name=GROUP))["group_id"])
        await founder.call("sql.execute", sql=NOTE, group=GROUP)
        for name, role in roles.items():
            await join(founder, daemons[name], role=role)
        team = Team(daemons, group_id, device_ids)
        await team.sync()
        yield team


async def refused(daemon: DaemonProcess, method: str, **params: Any) -> PeersError:
    """The error that a call is answered with; it says what to do about it."""
    error = await _error_of(daemon, method, params)
    assert isinstance(error, PeersError), f"{method} answered {error}"
    return error


async def redeem(daemon: DaemonProcess, ticket: str) -> str:
    """The role that a ticket gives, or the code of the error that says why it gives none."""
    answer = await _error_of(daemon, "invite.accept", {"ticket": ticket, "timeout_s": HANG_S})
    return answer.code if isinstance(answer, PeersError) else str(answer["role"])


async def _error_of(daemon: DaemonProcess, method: str, params: Mapping[str, Any]) -> Any:
    """The error of a call, which must have a message and a hint; or the answer if there is none."""
    failure: PeersError | None = None
    try:
        return await daemon.call(method, **params)
    except PeersError as error:
        failure = error
    assert failure.message and failure.hint, f"{method} says too little: {failure.data}"
    return failure
