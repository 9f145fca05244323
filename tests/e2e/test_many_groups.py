"""Many groups between two devices: one link for all, none held up by another, and next to nothing in use while they are idle."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from peersd.client import PeersError
from peersd.node.kept_store import Keeping
from peersd.testing.observing import tcp_connections
from peersd.testing.pairs import GROUP, Pair, open_pair, until
from peersd.testing.processes import HANG_S, DaemonProcess

pytestmark = pytest.mark.e2e

NOTE = "CREATE TABLE note (id TEXT PRIMARY KEY DEFAULT (uuid7()), text TEXT)"
INSERT = "INSERT INTO note (text) VALUES (?)"

HOLD_LOCK = """import sys, apsw
connection = apsw.Connection(sys.argv[1])
connection.execute("BEGIN IMMEDIATE")
sys.stdout.write("locked")
sys.stdout.flush()
sys.stdin.read()
"""
"""Holds the write lock of a file until its standard input is closed."""

AT_ONCE = 4
"""Groups that are made at once: more are no faster on two cores."""

GROUPS = 300
HANDLES_MAX = 40
"""Of an idle daemon: what it has open without any group, and a store or two."""

MEMORY_BYTES_MAX = 150 * 2**20
GROUP_BYTES_MAX = 100
"""What a group that is in sync costs when a link comes up, in both directions together."""

HANDSHAKE_BYTES_MAX = 3072
"""What a link costs whose devices share nothing, with room."""


async def share(pair: Pair, names: Sequence[str], *schema: str) -> None:
    """Make groups that ada founds and ben joins, each by a ticket."""
    limiter = trio.CapacityLimiter(AT_ONCE)
    async with pair.ada.client() as ada, pair.ben.client() as ben, trio.open_nursery() as nursery:

        async def share_one(name: str) -> None:
            async with limiter:
                await ada.call("group.create", name=name)
                for sql in schema:
                    await ada.call("sql.execute", group=name, sql=sql)
                ticket = (await ada.call("invite.create", group=name))["ticket"]
                await ben.call("invite.accept", ticket=ticket, timeout_s=HANG_S)

        for name in names:
            nursery.start_soon(share_one, name)


async def write(daemon: DaemonProcess, groups: Sequence[str], text: str) -> None:
    """Write a row into each group."""
    async with daemon.client() as peers:
        for group in groups:
            await peers.call("sql.execute", group=group, sql=INSERT, params=[text])


async def groups_with(daemon: DaemonProcess, groups: Sequence[str], text: str) -> set[str]:
    """The groups in which a row with this text has arrived."""
    sql = "SELECT 1 FROM note WHERE text = ?"
    async with daemon.client() as peers:
        return {group for group in groups if (await peers.call("sql.query", group=group, sql=sql, params=[text]))["rows"]}


async def channels(daemon: DaemonProcess) -> dict[str, str]:
    """The channels of the one link by the names of their groups, and their states."""
    links = await daemon.call("link.list")
    assert len(links) <= 1
    return {channel["name"]: channel["state"] for link in links for channel in link["channels"]}


@asynccontextmanager
async def locked(path: str) -> AsyncGenerator[None]:
    """The file's write lock is held by another process."""
    async with trio.open_nursery() as nursery:
        command = [sys.executable, "-c", HOLD_LOCK, path]
        holder: trio.Process = await nursery.start(
            lambda task_status: trio.run_process(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, capture_stdout=False, task_status=task_status
            )
        )
        assert holder.stdin is not None and holder.stdout is not None
        try:
            assert await holder.stdout.receive_some() == b"locked"
            yield
        finally:
            await holder.stdin.aclose()


async def test_a_fourth_group_opens_a_channel_on_the_same_link_and_leaving_one_closes_its_channel_alone(tmp_path: Path) -> None:
    async with open_pair(tmp_path, NOTE) as pair:
        await share(pair, ["second", "third"], NOTE)
        connections = tcp_connections(pair.ada.pid), tcp_connections(pair.ben.pid)
        assert [len(one) for one in connections] == [1, 1]
        accepted = pair.network.accepted

        async def have_channels(names: set[str]) -> bool:
            return all([await channels(daemon) == dict.fromkeys(names, "open") for daemon in (pair.ada, pair.ben)])

        await until(lambda: have_channels({GROUP, "second", "third"}))
        # By either side's ticket: who listens redeems over the link that there is, too.
        await share(pair, ["fourth"], NOTE)
        await until(lambda: have_channels({GROUP, "second", "third", "fourth"}))
        await pair.ben.call("group.create", name="fifth")
        ticket = (await pair.ben.call("invite.create", group="fifth"))["ticket"]
        await pair.ada.call("invite.accept", ticket=ticket, timeout_s=HANG_S)
        await until(lambda: have_channels({GROUP, "second", "third", "fourth", "fifth"}))

        since = [link["since"] for daemon in (pair.ada, pair.ben) for link in await daemon.call("link.list")]
        await pair.ben.call("group.leave", group="second")
        await until(lambda: have_channels({GROUP, "third", "fourth", "fifth"}))
        await pair.ada.call("group.leave", group="fifth")
        await until(lambda: have_channels({GROUP, "third", "fourth"}))

        assert (tcp_connections(pair.ada.pid), tcp_connections(pair.ben.pid)) == connections
        assert pair.network.accepted == accepted
        assert [link["since"] for daemon in (pair.ada, pair.ben) for link in await daemon.call("link.list")] == since
        await write(pair.ada, ["third", "fourth", GROUP], "afterwards")
        await until(lambda: _arrived(pair.ben, ["third", "fourth", GROUP], "afterwards"))


async def _arrived(daemon: DaemonProcess, groups: Sequence[str], text: str) -> bool:
    return await groups_with(daemon, groups, text) == set(groups)


async def test_while_another_process_locks_a_groups_file_the_other_63_go_on_and_it_catches_up_afterwards(tmp_path: Path) -> None:
    async with open_pair(tmp_path, NOTE) as pair:
        others = [f"group {number}" for number in range(63)]
        await share(pair, [*others, "stalled"], NOTE)
        paths = [(await pair.ben.call("group.show", group=group))["path"] for group in (GROUP, "stalled")]
        connections = tcp_connections(pair.ada.pid), tcp_connections(pair.ben.pid)
        writer = LockedWriter(pair.ben)
        async with trio.open_nursery() as nursery, locked(paths[0]), locked(paths[1]):
            # Somebody waits for the lock all the while: whoever had to wait for the same thing would wait on and on.
            nursery.start_soon(writer.run)
            await write(pair.ada, [GROUP, "stalled", *others], "by ada")
            await write(pair.ben, others, "by ben")
            await until(lambda: _arrived(pair.ben, others, "by ada"))
            await until(lambda: _arrived(pair.ada, others, "by ben"))
            # The locked files can be read all the while; who waits too long is told so.
            assert await groups_with(pair.ben, [GROUP, "stalled"], "by ada") == set()
            await until(writer.is_refused)
            await until(lambda: _has_state(pair.ben, "stalled", "stalled"))
        assert {(refusal.code, bool(refusal.hint)) for refusal in writer.refusals} == {("busy", True)}
        await until(lambda: _arrived(pair.ben, [GROUP, "stalled"], "by ada"))
        await pair.sync()
        assert await pair.rows("SELECT text FROM note ORDER BY text") == [["by ada"], ["by ben"]]
        assert set(await channels(pair.ada)) == {GROUP, "stalled", *others}
        assert (tcp_connections(pair.ada.pid), tcp_connections(pair.ben.pid)) == connections
        states = {group["state"] for daemon in (pair.ada, pair.ben) for group in await daemon.call("group.list")}
        assert states == {"ok"}


async def _has_state(daemon: DaemonProcess, group: str, state: str) -> bool:
    return state in [listed["state"] for listed in await daemon.call("group.list") if listed["name"] == group]


class LockedWriter:
    """Writes a row into the group `team`, as often as it is refused."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self._daemon = daemon
        self.refusals: list[PeersError] = []

    async def run(self) -> None:
        """Return when the row is written."""
        while True:
            try:
                await write(self._daemon, [GROUP], "by ben")
                return
            except PeersError as error:
                self.refusals.append(error)

    async def is_refused(self) -> bool:
        """Whether it was told to try again."""
        return bool(self.refusals)


async def test_300_groups_in_sync_cost_little_at_a_start_at_a_reconnect_and_while_idle(tmp_path: Path) -> None:
    async with open_pair(tmp_path, NOTE) as pair:
        names = [f"group {number}" for number in range(GROUPS - 1)]
        await share(pair, names)
        shared = {GROUP, *names}
        await pair.ben.call("sync.wait", timeout_s=HANG_S)  # which needs every store on both sides, in turn
        for daemon in (pair.ada, pair.ben):
            assert (await daemon.call("daemon.status"))["open_stores"] <= Keeping().open_max
            assert daemon.memory_bytes() <= MEMORY_BYTES_MAX, daemon.memory_bytes()

        async def all_in_sync() -> bool:
            for daemon in (pair.ada, pair.ben):
                groups = [group for group in await daemon.call("group.list") if group["kind"] == "group"]
                if {group["name"] for group in groups if group["in_sync"]} != shared:
                    return False
                if await channels(daemon) != dict.fromkeys(shared, "open"):
                    return False
            return True

        for daemon in (pair.ada, pair.ben):
            await daemon.terminate()
        for daemon in (pair.ada, pair.ben):
            await daemon.start()
        await until(all_in_sync)
        await check_use(pair)
        await pair.ada.restart()
        await until(all_in_sync)
        await check_use(pair)
        await pair.part()
        pair.network.mend()
        await until(all_in_sync)
        await check_use(pair)
        # They are not asleep for good.
        await pair.ada.call("sql.execute", group=names[0], sql=NOTE)
        await write(pair.ada, [GROUP, names[0]], "afterwards")
        await until(lambda: _arrived(pair.ben, [GROUP, names[0]], "afterwards"))
        assert (await pair.ben.call("daemon.status"))["open_stores"] <= 3


async def check_use(pair: Pair) -> None:
    """Checks what both sides use, and what has passed since the link came up."""
    for daemon in (pair.ada, pair.ben):
        (link,) = await daemon.call("link.list")
        status = await daemon.call("daemon.status")
        used = {
            "bytes": link["bytes_in"] + link["bytes_out"],
            "open_stores": status["open_stores"],
            "file_handles": daemon.file_handles(),
            "memory_bytes": daemon.memory_bytes(),
        }
        assert used["bytes"] <= GROUPS * GROUP_BYTES_MAX + HANDSHAKE_BYTES_MAX, used
        assert used["open_stores"] <= 1, used  # the personal group's, which the start has looked into
        assert used["file_handles"] <= HANDLES_MAX, used
        assert used["memory_bytes"] <= MEMORY_BYTES_MAX, used
