"""Hosts with a network each, on one switch: daemons that lose each other silently, as when a cable is drawn. Linux only.

    async with open_hosts("ada", "ben") as hosts:
        async with open_daemon(tmp_path, "ada", listen=[hosts["ada"].url], within=hosts["ada"].within) as ada:
            …
            await hosts["ada"].unplug()

The networks are namespaces of the kernel's, made without rights of root where the machine lets users do that. They are joined to
nothing else: no packet leaves them. They end with the processes in them, and those with ours, so nothing is left behind however
it ends.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from typing import Final

import trio

PORT: Final = 7331

NETWORK: Final = "192.0.2"
"""TEST-NET-1 (RFC 5737), which is nobody's."""

OWN_USER: Final = ("unshare", "--user", "--map-root-user", "--net", "--")
STAY: Final = ("sh", "-c", "echo ready && exec cat")
"""Ends with its standard input, which is ours."""


@cache
def refusal() -> str | None:
    """Why there can be no such hosts on this machine; None if there can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    for tool in ("unshare", "nsenter", "ip"):
        if shutil.which(tool) is None:
            return f"network namespaces need the command {tool}"
    # All that is needed once it is tried, in a network that is gone at once.
    tried = "ip link add name switch type bridge && ip link add name one type veth peer name other && unshare --net true"
    done = subprocess.run([*OWN_USER, "sh", "-c", tried], capture_output=True, text=True, check=False, timeout=60)
    return None if done.returncode == 0 else f"this machine allows no network namespaces: {done.stderr.strip()}"


class Host:
    """A network with one interface. Made by `open_hosts`.

    Attributes:
        address: its IP address.
        url: where a daemon in it listens.
        within: the command that runs another command in it, in the same process.
    """

    def __init__(self, number: int, pid: int, switch: Host | None) -> None:
        self.address = f"{NETWORK}.{number}"
        self.url = f"ws://{self.address}:{PORT}"
        self.within = ("nsenter", "--target", str(pid), "--user", "--net", "--preserve-credentials", "--")
        self.pid = pid
        self._number = number
        self._switch = switch

    async def run(self, *command: str) -> None:
        """Runs a command in it to its end.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        await trio.run_process([*self.within, *command], capture_stdout=True, capture_stderr=True)

    async def plug_in(self) -> None:
        """Connects it to the switch, after `unplug` or for the first time."""
        assert self._switch is not None
        await self._switch.run("ip", "link", "set", f"port{self._number}", "up")

    async def unplug(self) -> None:
        """Takes it off the switch: packets vanish both ways, its own interface stays up, and no connection is told."""
        assert self._switch is not None
        await self._switch.run("ip", "link", "set", f"port{self._number}", "down")


@asynccontextmanager
async def open_hosts(*names: str) -> AsyncGenerator[dict[str, Host]]:
    """Hosts that reach each other, and nothing else.

    Args:
        names: at most 254, no two alike.

    Raises:
        ValueError: two are.
        AssertionError: this machine allows none; ask `refusal` first.
    """
    if len(set(names)) < len(names):
        raise ValueError(f"Each host needs a name of its own, which not all of these are: {', '.join(map(repr, names))}.")
    assert refusal() is None, refusal()
    async with AsyncExitStack() as stack:
        switch = Host(0, await stack.enter_async_context(_staying(*OWN_USER)), None)
        await switch.run("ip", "link", "add", "name", "switch", "type", "bridge")
        await switch.run("ip", "link", "set", "switch", "up")
        hosts: dict[str, Host] = {}
        for number, name in enumerate(names, 1):
            pid = await stack.enter_async_context(_staying(*switch.within, "unshare", "--net", "--"))
            host = hosts[name] = Host(number, pid, switch)
            port = f"port{number}"
            await switch.run("ip", "link", "add", "name", port, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
            await switch.run("ip", "link", "set", port, "master", "switch")
            await host.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
            await host.run("ip", "link", "set", "lo", "up")
            await host.run("ip", "link", "set", "eth0", "up")
            await host.plug_in()
        yield hosts


@asynccontextmanager
async def _staying(*command: str) -> AsyncGenerator[int]:
    """The process of a command that keeps a namespace, until the context ends."""
    process = await trio.lowlevel.open_process([*command, *STAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
    try:
        assert process.stdout is not None
        assert await process.stdout.receive_some() == b"ready\n", "the namespace was not made"
        yield process.pid
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
