"""Two daemons of two users who share a group by a ticket: where most end-to-end tests begin.

The second dials the first through a proxy, so that a test can part them and bring them together again.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from peersd.testing.processes import HANG_S, LOOK_AGAIN_S, DaemonProcess, open_daemon
from peersd.testing.proxies import Proxy, open_proxy

GROUP: Final = "team"

NOWHERE: Final = "ws://127.0.0.1:9"
"""Where nobody listens (the discard port): what a daemon advertises that others are not to dial, as behind a firewall."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two daemons with a group in common.

    Attributes:
        ada: made the group and is its founder.
        ben: joined it by a ticket, as an admin; dials ada through `network`.
        network: what lies between them.
    """

    ada: DaemonProcess
    ben: DaemonProcess
    network: Proxy

    async def part(self) -> None:
        """Cut the network and return when both know."""
        self.network.cut()
        for daemon in (self.ada, self.ben):
            await until(lambda daemon=daemon: _has_links(daemon, 0))  # type: ignore[misc]

    async def meet(self) -> None:
        """Mend the network and return when both hold the same."""
        self.network.mend()
        # The dialer would come back by itself; a test need not wait for it.
        await self.ben.call("link.connect", url=self.network.url)
        await self.sync()

    async def sync(self) -> None:
        """Return when each durably holds what the other had at the call."""
        for daemon in (self.ada, self.ben, self.ada):
            await daemon.call("sync.wait", group=GROUP, timeout_s=HANG_S)

    async def rows(self, sql: str) -> list[list[Any]]:
        """The rows of a query, which must be the same on both sides."""
        on_ada, on_ben = [(await daemon.call("sql.query", sql=sql, group=GROUP))["rows"] for daemon in (self.ada, self.ben)]
        assert on_ada == on_ben, f"{sql}:\n{on_ada}\n{on_ben}"
        return list(on_ada)

    async def path(self, daemon: DaemonProcess) -> str:
        """The file of the group on one side."""
        return str((await daemon.call("group.show", group=GROUP))["path"])


async def _has_links(daemon: DaemonProcess, number: int) -> bool:
    return len(await daemon.call("link.list")) == number


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again until it is so."""
    with trio.fail_after(HANG_S):
        while not await is_so():  # noqa: ASYNC110 - what is asked lives in other processes, and wakes nobody here
            await trio.sleep(LOOK_AGAIN_S)


def free_url() -> str:
    """A ws:// URL on loopback with a port that is free now: for a daemon whose address others are told before it listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"ws://127.0.0.1:{listener.getsockname()[1]}"


@asynccontextmanager
async def open_pair(base: Path, *schema: str, role: str = "admin") -> AsyncGenerator[Pair]:
    """Two running daemons that share the group `team`, linked and in sync.

    Args:
        base: a folder of the test's own.
        schema: statements that make the group's tables.
        role: what ben joins as.
    """
    url = free_url()
    async with (
        open_proxy(url) as network,
        open_daemon(base, "ada", listen=[url], arguments=["--advertise", network.url]) as ada,
        open_daemon(base, "ben", arguments=["--advertise", NOWHERE]) as ben,
    ):
        await ada.call("init", user_name="ada", device_name="ada-laptop")
        await ben.call("init", user_name="ben", device_name="ben-laptop")
        await ada.call("group.create", name=GROUP)
        for sql in schema:
            await ada.call("sql.execute", sql=sql)
        await join(ada, ben, role=role)
        pair = Pair(ada, ben, network)
        await pair.sync()
        yield pair


async def join(inviter: DaemonProcess, joiner: DaemonProcess, *, role: str = "writer") -> None:
    """Let one daemon's user into the group of another's by a ticket."""
    made = await inviter.call("invite.create", group=GROUP, role=role)
    joined = await joiner.call("invite.accept", ticket=made["ticket"], timeout_s=HANG_S)
    assert (joined["name"], joined["role"]) == (GROUP, role)
