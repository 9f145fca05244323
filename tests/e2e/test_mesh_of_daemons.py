"""Links of several daemons: one for each pair whatever happens, members who find each other, entries that pass through others."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from peersd.testing.pairs import free_url, until
from peersd.testing.processes import HANG_S, DaemonProcess, open_daemon
from peersd.testing.proxies import Proxy, open_proxy

pytestmark = pytest.mark.e2e

GROUP = "team"
NOTE = "CREATE TABLE note (id TEXT PRIMARY KEY DEFAULT (uuid7()), text TEXT)"


@asynccontextmanager
async def open_daemons(base: Path, *names: str) -> AsyncGenerator[list[DaemonProcess]]:
    """Daemons of as many users, called as these, who know nobody yet."""
    async with AsyncExitStack() as stack:
        daemons = [await stack.enter_async_context(open_daemon(base, name)) for name in names]
        for daemon, name in zip(daemons, names, strict=True):
            await daemon.call("init", user_name=name, device_name=name)
        yield daemons


async def invite(inviter: DaemonProcess, joiner: DaemonProcess, role: str = "writer") -> None:
    made = await inviter.call("invite.create", group=GROUP, role=role)
    await joiner.call("invite.accept", ticket=made["ticket"], timeout_s=HANG_S)


async def linked_with(daemon: DaemonProcess) -> set[str]:
    return {link["device_name"] for link in await daemon.links()}


async def write(daemon: DaemonProcess, text: str) -> None:
    await daemon.call("sql.execute", group=GROUP, sql="INSERT INTO note (text) VALUES (?)", params=[text])


async def texts(daemon: DaemonProcess) -> set[str]:
    rows = (await daemon.call("sql.query", group=GROUP, sql="SELECT text FROM note"))["rows"]
    return {str(text) for (text,) in rows}


async def device_id(daemon: DaemonProcess) -> str:
    return str((await daemon.call("daemon.status"))["device_id"])


async def test_in_a_line_rows_pass_both_ways_through_the_middle_and_the_ends_link_by_themselves_once_they_may(
    tmp_path: Path,
) -> None:
    async with open_daemons(tmp_path, "ada", "ben", "cem") as (ada, ben, cem):
        ada.configure(deny=[await device_id(cem)])
        await ada.reload()
        await ada.call("group.create", name=GROUP)
        await ada.call("sql.execute", sql=NOTE)
        await invite(ada, ben, "moderator")
        await invite(ben, cem)
        await write(ada, "from the one end")
        await write(cem, "from the other end")
        both = {"from the one end", "from the other end"}
        for daemon in (ada, ben, cem):
            await until(lambda daemon=daemon: _holds(daemon, both))  # type: ignore[misc]
        assert (await linked_with(ada), await linked_with(ben), await linked_with(cem)) == ({"ben"}, {"ada", "cem"}, {"ben"})
        status = (await cem.call("sync.status", group=GROUP))[0]["devices"]
        assert {device["name"]: device["online"] for device in status} == {"ada": False, "ben": True}

        ada.configure()
        await ada.reload()
        await until(lambda: _is_linked_with(ada, {"ben", "cem"}))
        await until(lambda: _is_linked_with(cem, {"ada", "ben"}))
        await write(cem, "over the new link")
        await until(lambda: _holds(ada, both | {"over the new link"}))


async def _holds(daemon: DaemonProcess, wanted: set[str]) -> bool:
    return await texts(daemon) == wanted


async def _is_linked_with(daemon: DaemonProcess, names: set[str]) -> bool:
    return await linked_with(daemon) == names


async def test_ten_devices_with_at_most_three_links_each_all_get_every_row_and_few_of_them_twice(tmp_path: Path) -> None:
    names = [f"user{number}" for number in range(10)]
    async with open_daemons(tmp_path, *names) as daemons:
        founder = daemons[0]
        for daemon in daemons:
            daemon.configure(links_max=3)
            await daemon.reload()
        await founder.call("group.create", name=GROUP)
        await founder.call("sql.execute", sql=NOTE)
        ticket = (await founder.call("invite.create", group=GROUP, max_uses=9))["ticket"]
        for daemon in daemons[1:]:
            await daemon.call("invite.accept", ticket=ticket, timeout_s=HANG_S)
        await until(lambda: _is_settled(daemons))
        for daemon in daemons:
            await write(daemon, f"first of {daemon.folder.name}")
        wanted = {f"first of {name}" for name in names}
        for daemon in daemons:
            await until(lambda daemon=daemon: _holds(daemon, wanted))  # type: ignore[misc]

        before = [await entry_bytes(daemon) for daemon in daemons]
        size = 20_000
        for number, daemon in enumerate(daemons):
            sql = "INSERT INTO note (text) VALUES (hex(randomblob(?)) || ?)"
            await daemon.call("sql.execute", group=GROUP, sql=sql, params=[size // 2, str(number)])
            await until(lambda number=number: _all_count(daemons, 11 + number))  # type: ignore[misc]
        sent = sum([await entry_bytes(daemon) for daemon in daemons]) - sum(before)
        # Random hexadecimal digits compress to half: `size` characters are `size / 2` bytes in an entry.
        needed = 9 * len(daemons) * size // 2
        assert needed <= sent <= 2.5 * needed, f"{sent / needed:.2f} times what nine deliveries of each row need"


async def entry_bytes(daemon: DaemonProcess) -> int:
    """What the daemon has sent on all links, those that are over included; entries of some 10 kB each are nearly all of it."""
    return int((await daemon.call("daemon.status"))["bytes_out"])


async def _is_settled(daemons: list[DaemonProcess]) -> bool:
    """Whether everybody has a link and nobody more than three."""
    counts = [len(await daemon.links()) for daemon in daemons]
    return all(1 <= count <= 3 for count in counts)


async def _all_count(daemons: list[DaemonProcess], count: int) -> bool:
    for daemon in daemons:
        rows = (await daemon.call("sql.query", group=GROUP, sql="SELECT count(*) FROM note"))["rows"]
        if rows != [[count]]:
            return False
    return True


async def test_two_devices_that_dial_each_other_at_once_and_restart_keep_one_link_for_three_groups(tmp_path: Path) -> None:
    async with open_daemons(tmp_path, "ada", "ben") as (ada, ben):
        for name in (GROUP, "second", "third"):
            await ada.call("group.create", name=name)
            made = await ada.call("invite.create", group=name)
            await ben.call("invite.accept", ticket=made["ticket"], timeout_s=HANG_S)
        await until(lambda: _carries(ada, {GROUP, "second", "third"}))
        for daemon in (ada, ben):
            await daemon.restart()  # both know each other's address, and dial at once
            await until(lambda: _carries(ada, {GROUP, "second", "third"}))
            await until(lambda: _carries(ben, {GROUP, "second", "third"}))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ada.restart)
            nursery.start_soon(ben.restart)
        await until(lambda: _carries(ada, {GROUP, "second", "third"}))
        await until(lambda: _carries(ben, {GROUP, "second", "third"}))


async def _carries(daemon: DaemonProcess, groups: set[str]) -> bool:
    """Whether there is one link, and it carries a channel of each group."""
    links = await daemon.links()
    assert len(links) <= 1
    return [{channel["name"] for channel in link["channels"] if channel["state"] == "open"} for link in links] == [groups]


async def test_two_handshakes_in_flight_at_once_leave_one_link_and_one_tcp_connection(tmp_path: Path) -> None:
    groups = {GROUP, "second", "third"}
    urls = free_url(), free_url()
    async with (
        open_proxy(urls[0]) as to_ada,
        open_proxy(urls[1]) as to_ben,
        open_daemon(tmp_path, "ada", listen=[urls[0]], arguments=["--advertise", to_ada.url]) as ada,
        open_daemon(tmp_path, "ben", listen=[urls[1]], arguments=["--advertise", to_ben.url]) as ben,
    ):
        proxies = to_ada, to_ben
        await ada.call("init", user_name="ada")
        await ben.call("init", user_name="ben")
        for name in groups:
            await ada.call("group.create", name=name)
            made = await ada.call("invite.create", group=name)
            await ben.call("invite.accept", ticket=made["ticket"], timeout_s=HANG_S)
        await until(lambda: _carries(ada, groups))
        await until(lambda: _knows_by_beacon(ada))
        for proxy in proxies:
            proxy.cut()
        for daemon in (ada, ben):
            await until(lambda daemon=daemon: _is_linked_with(daemon, set()))  # type: ignore[misc]
        before = [(proxy.accepted, proxy.bytes_passed) for proxy in proxies]
        for proxy in proxies:
            proxy.mend()
            proxy.stall_after(HANDSHAKE_BEGUN_BYTES)

        async def are_in_flight() -> bool:
            return all(
                proxy.accepted > accepted and proxy.bytes_passed - passed >= HANDSHAKE_BEGUN_BYTES
                for proxy, (accepted, passed) in zip(proxies, before, strict=True)
            )

        await until(are_in_flight)
        assert await linked_with(ada) == await linked_with(ben) == set()
        for proxy in proxies:
            proxy.mend()
        for daemon in (ada, ben):
            await until(lambda daemon=daemon: _carries(daemon, groups))  # type: ignore[misc]
        assert len(await ada.links()) == len(await ben.links()) == 1
        await until(lambda: _one_connection(proxies))


HANDSHAKE_BEGUN_BYTES = 320
"""The WebSocket's opening, both ways together, takes about as much; what is passed beyond is the link's handshake."""


async def _knows_by_beacon(daemon: DaemonProcess) -> bool:
    """Whether another device's copy is known to be equal."""
    devices = (await daemon.call("sync.status", group=GROUP))[0]["devices"]
    return all(device["equal"] for device in devices)


async def _one_connection(proxies: tuple[Proxy, Proxy]) -> bool:
    assert all(proxy.connections <= 1 for proxy in proxies)
    return sum(proxy.connections for proxy in proxies) == 1
