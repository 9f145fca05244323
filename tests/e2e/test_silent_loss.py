"""Daemons in networks of their own that lose each other without a word: no connection ends, packets just vanish."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from peersd.testing.namespaces import open_hosts, refusal
from peersd.testing.observing import tcp_connections
from peersd.testing.pairs import GROUP, join, until
from peersd.testing.processes import HANG_S, DaemonProcess, open_daemon

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(refusal() is not None, reason=str(refusal()))]

NAMES = ("ada", "ben", "cem")


async def write(daemon: DaemonProcess, text: str) -> None:
    await daemon.call("sql.execute", group=GROUP, sql="INSERT INTO note VALUES (?)", params=[text])


async def holds(daemon: DaemonProcess, texts: set[str]) -> bool:
    rows = (await daemon.call("sql.query", group=GROUP, sql="SELECT id FROM note"))["rows"]
    return {text for (text,) in rows} == texts


async def test_a_device_that_vanishes_silently_disturbs_nobody_and_catches_up_over_one_link_each(tmp_path: Path) -> None:
    async with open_hosts(*NAMES) as hosts, AsyncExitStack() as stack:
        daemons: dict[str, DaemonProcess] = {}
        for name in NAMES:
            opened = open_daemon(tmp_path, name, listen=[hosts[name].url], within=hosts[name].within)
            daemons[name] = await stack.enter_async_context(opened)
            await daemons[name].call("init", user_name=name, device_name=name)
        ada, ben, cem = daemons.values()
        await ada.call("group.create", name=GROUP)
        await ada.call("sql.execute", sql="CREATE TABLE note (id TEXT PRIMARY KEY)")
        await join(ada, ben)
        await join(ada, cem)
        await write(ben, "together")
        for daemon in daemons.values():
            await until(lambda daemon=daemon: holds(daemon, {"together"}))  # type: ignore[misc]

        await hosts["ben"].unplug()
        await write(ada, "by ada")
        await write(ben, "by ben")
        await until(lambda: holds(cem, {"together", "by ada"}))
        assert await holds(ben, {"together", "by ben"})
        # Nobody was told of anything: the sockets are as they were.
        assert len(tcp_connections(ben.pid)) == 2

        await hosts["ben"].plug_in()
        everything = {"together", "by ada", "by ben"}
        for daemon in daemons.values():
            await until(lambda daemon=daemon: holds(daemon, everything))  # type: ignore[misc]
            await daemon.call("sync.wait", group=GROUP, timeout_s=HANG_S)
            links = [link["device_name"] for link in await daemon.links()]
            assert sorted(links) == sorted(set(NAMES) - {daemon.folder.name})


async def test_two_hosts_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a name of its own, .*: 'ada', 'ben', 'ada'"):
        async with open_hosts("ada", "ben", "ada"):
            pass
