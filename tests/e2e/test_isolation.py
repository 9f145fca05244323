"""What is written in a group is on no device of anybody else, and on its members' devices in its own file alone."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

import pytest
import trio

from peersd.testing.processes import HANG_S, DaemonProcess, open_daemon

pytestmark = pytest.mark.e2e

TABLE = "CREATE TABLE item (id TEXT PRIMARY KEY, body BLOB)"
INSERT = "INSERT INTO item (id, body) VALUES (?, ?)"

MEMBERS = {"ab": ("ada", "ben"), "ac": ("ada", "cleo"), "abc": ("ada", "ben", "cleo")}
"""Who is in which group; the first member makes it. Every two share a group, so that all of them are linked."""


class Marks:
    """Bytes that occur in the rows of one group and nowhere else: random, so that no compression hides them.

    Attributes:
        group: the group's name.
        written: all of them.
    """

    def __init__(self, group: str) -> None:
        self.group = group
        self.written: list[bytes] = []

    def new(self) -> dict[str, str]:
        """A new one, as the API takes it."""
        self.written.append(secrets.token_bytes(48))
        return {"$blob": base64.b64encode(self.written[-1]).decode("ascii")}


async def write_everywhere(daemons: dict[str, DaemonProcess], marks: Marks) -> None:
    """Have every member write live and in bulk, change a row and delete one."""
    group = marks.group
    for name in MEMBERS[group]:
        async with daemons[name].client() as peers:
            for number in range(3):
                await peers.call("sql.execute", group=group, sql=INSERT, params=[f"{name} {number}", marks.new()])
            await peers.call(
                "sql.execute", group=group, sql="UPDATE item SET body = ? WHERE id = ?", params=[marks.new(), f"{name} 0"]
            )
            await peers.call("sql.execute", group=group, sql="DELETE FROM item WHERE id = ?", params=[f"{name} 1"])
            # Some hundred KiB: several blocks, sent as bulk.
            filler = [[f"{name} bulk {number}", {"$blob": "AAAA" * 2000}] for number in range(60)]
            rows = [*filler, [f"{name} bulk marked", marks.new()]]
            await peers.call("sql.transaction", group=group, statements=[{"sql": INSERT, "params_seq": rows}])


def files_with(daemon: DaemonProcess, marks: Marks) -> dict[str, int]:
    """The files of a daemon's folder that hold any of the marks, and how many of them: data, log and configuration."""
    found: dict[str, int] = {}
    for path in daemon.folder.rglob("*"):
        if path.is_file():
            held = path.read_bytes()
            number = sum(mark in held for mark in marks.written)
            if number:
                found[path.name] = number
    return found


async def test_what_a_group_holds_is_in_its_own_file_on_its_members_devices_and_nowhere_else(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "ada") as ada, open_daemon(tmp_path, "ben") as ben, open_daemon(tmp_path, "cleo") as cleo:
        daemons = {"ada": ada, "ben": ben, "cleo": cleo}
        ids = {}
        for name, daemon in daemons.items():
            await daemon.call("init", user_name=name)
        for group, (founder, *others) in MEMBERS.items():
            ids[group] = (await daemons[founder].call("group.create", name=group))["group_id"]
            await daemons[founder].call("sql.execute", group=group, sql=TABLE)
            for other in others:
                ticket = (await daemons[founder].call("invite.create", group=group))["ticket"]
                await daemons[other].call("invite.accept", ticket=ticket, timeout_s=HANG_S)
        marks = {group: Marks(group) for group in MEMBERS}
        async with trio.open_nursery() as nursery:
            for group in MEMBERS:
                nursery.start_soon(write_everywhere, daemons, marks[group])
        for group, members in MEMBERS.items():
            for name in (*members, *members):
                await daemons[name].call("sync.wait", group=group, timeout_s=HANG_S)

        async def check(*, are_running: bool) -> None:
            for name, daemon in daemons.items():
                for group, members in MEMBERS.items():
                    file = f"{ids[group].replace('grp-', 'group-')}.db"
                    found = files_with(daemon, marks[group])
                    if name not in members:
                        assert not found, f"{name} is not in {group}: {found}"
                        continue
                    assert found.keys() <= ({file, f"{file}-wal"} if are_running else {file}), f"{name}, {group}: {found}"
                    # The search does find what there is: every row that was written, by whomever.
                    assert are_running or found[file] == len(marks[group].written), f"{name}, {group}: {found}"

        await check(are_running=True)
        for daemon in daemons.values():
            await daemon.terminate()
        await check(are_running=False)
        # Nor does a restart, with all it tells and remembers, carry anything over.
        for daemon in daemons.values():
            await daemon.start()
        for group, members in MEMBERS.items():
            await daemons[members[-1]].call("sql.execute", group=group, sql=INSERT, params=["again", marks[group].new()])
            for name in (*members, *members):
                await daemons[name].call("sync.wait", group=group, timeout_s=HANG_S)
        await check(are_running=True)
