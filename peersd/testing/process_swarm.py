"""A swarm of processes: many real daemons of as many users on loopback, in groups as planned; written to, killed and started.

    async with open_process_swarm(folder, make_plan(4, groups=2)) as swarm:
        await swarm.join()
        await swarm.write("ada", "g1", 20)
        …

`peersd.testing.process_swarm_views` looks at one while it runs.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, get_args

import trio

from peersd.client import SqlParams
from peersd.testing.processes import HANG_S, DaemonProcess

Topology = Literal["mesh", "line", "star"]
TOPOLOGIES: Final = get_args(Topology)

DEVICES_MAX: Final = 100
"""Devices of one swarm: each is a process of some 60 MB (guess: what a workstation bears)."""

NAMES: Final = tuple(
    "ada ben cem dan eve fay gus hal ida jan kai lea max nia ole pia quin rex sue tom uma vic wim xia yan zoe".split()
)

TABLE: Final = "item"
TABLE_SQL: Final = f"CREATE TABLE {TABLE} (id TEXT PRIMARY KEY DEFAULT (uuid7()), device TEXT, n INTEGER)"
INSERT_SQL: Final = f"INSERT INTO {TABLE} (device, n) VALUES (?, ?)"

TRANSACTIONS_MAX: Final = 100
"""Transactions that one write is spread over: few rows go one by one, many in bulk."""

AT_ONCE: Final = max(2, os.cpu_count() or 2)
"""Daemons that start, and groups that are joined, at the same time: starting one is half a second of work for a processor."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Who takes part and in what.

    Attributes:
        devices: the names of the devices; each user is called as the only device is.
        groups: the members of each group, its founder first.
        topology: who may link to whom: everybody, the neighbours in the order of `devices`, or the first and each other.
        links_max: `max` of [links] in each daemon's configuration.
        seed: of whatever is drawn.
    """

    devices: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    topology: Topology = "mesh"
    links_max: int | None = None
    seed: int = 0

    def may_link(self, one: str, other: str) -> bool:
        """Whether the topology lets two devices link."""
        here, there = sorted((self.devices.index(one), self.devices.index(other)))
        return here != there and (self.topology == "mesh" or (there - here == 1 if self.topology == "line" else here == 0))

    def groups_of(self, device: str) -> list[str]:
        """The groups that a device is in."""
        return [group for group, members in self.groups.items() if device in members]

    def pairs(self) -> int:
        """Pairs of devices that share a group and may link: as many links there are at most."""
        together = {(a, b) for members in self.groups.values() for a in members for b in members if a < b}
        return sum(self.may_link(a, b) for a, b in together)


def make_plan(
    devices: int,
    *,
    groups: int = 1,
    members: int | None = None,
    topology: Topology = "mesh",
    links_max: int | None = None,
    seed: int = 0,
) -> Plan:
    """Draws who is in which group.

    Args:
        devices: from 1 to DEVICES_MAX.
        groups: how many, called g1, g2, …
        members: of each group; None for all devices. In a line they are neighbours and in a star the centre is among them,
            since what a member wrote reaches the others over members only.
        topology: who may link to whom.
        links_max: links at once of each device.
        seed: of the draw.

    Raises:
        ValueError: these numbers do not fit together; the message says why.
    """
    if not 1 <= devices <= DEVICES_MAX:
        raise ValueError(f"a swarm has from 1 to {DEVICES_MAX} devices")
    if groups < 1:
        raise ValueError("there must be one group at least")
    if members is not None and not 1 <= members <= devices:
        count = "1 device" if devices == 1 else f"{devices} devices"
        raise ValueError(f"a swarm of {count} has no group of {members} members; from 1 to {devices} can be")
    if links_max is not None and links_max < 1:
        raise ValueError("a device that may have no link at all takes part in nothing")
    names = tuple(name if not lap else f"{name}{lap + 1}" for lap in range(math.ceil(devices / len(NAMES))) for name in NAMES)
    names = names[:devices]
    draw = random.Random(seed)
    size = devices if members is None else members
    chosen = {f"g{number + 1}": _choose(draw, names, size, topology) for number in range(groups)}
    return Plan(names, chosen, topology, links_max, seed)


def _choose(draw: random.Random, names: tuple[str, ...], size: int, topology: Topology) -> tuple[str, ...]:
    if size == len(names):
        return names
    if topology == "line":
        start = draw.randrange(len(names) - size + 1)
        return names[start : start + size]
    if topology == "star":
        return (names[0], *sorted(draw.sample(names[1:], size - 1), key=names.index))
    return tuple(sorted(draw.sample(names, size), key=names.index))


class ProcessSwarm:
    """The daemons of a plan. Made by `open_process_swarm`.

    Attributes:
        plan: who takes part.
        daemons: the processes by name; one that was killed or has ended has no process until it is started again.
        device_ids: the devices' ids by name.
        group_ids: the groups' ids by name, once `join` has made them.
        written: rows acknowledged by group.
        writes_under_way: calls of `write` that have not returned.
        is_ending: set to make every `write` end with the transaction under way.
    """

    def __init__(self, folder: Path, plan: Plan, tell: Callable[[str], None]) -> None:
        self.plan = plan
        self.daemons = {name: DaemonProcess(folder / name, ["ws://127.0.0.1:0"]) for name in plan.devices}
        self.device_ids: dict[str, str] = {}
        self.group_ids: dict[str, str] = {}
        self.written = dict.fromkeys(plan.groups, 0)
        self.writes_under_way = 0
        self.is_ending = False
        self._tell = tell

    def is_running(self, name: str) -> bool:
        """Whether the device's process is there; one that has ended by itself is noticed here."""
        process = self.daemons[name].process
        return process is not None and process.poll() is None

    def file_of(self, name: str, group: str) -> Path:
        """The SQLite file of a group on a device; it need not be there."""
        return self.daemons[name].data / f"{self.group_ids[group].replace('grp-', 'group-')}.db"

    async def start(self) -> None:
        """Starts all daemons and makes their users."""
        await _each(self.plan.devices, self._start_new)

    async def _start_new(self, name: str) -> None:
        daemon = self.daemons[name]
        daemon.configure(links_max=self.plan.links_max)
        await daemon.start()
        made = await daemon.call("init", user_name=name, device_name=name)
        self.device_ids[name] = made["device_id"]
        self._tell(f"{name} runs: process {daemon.pid}, {await daemon.url()}")

    async def join(self) -> None:
        """Makes the groups: the first member creates each and invites the others, who join by tickets. Then shapes the links.

        The topology is set afterwards: until then everybody may reach the founder, and a denied link is seen to end.
        """
        await _each(self.plan.groups, self._join_group)
        if self.plan.topology != "mesh":
            await _each(self.plan.devices, self._shape)
            self._tell(f"links are shaped as a {self.plan.topology}: every device denies all others")

    async def _join_group(self, group: str) -> None:
        founder, *others = self.plan.groups[group]
        async with self.daemons[founder].client() as inviter:
            self.group_ids[group] = await inviter.create_group(group)
            await inviter.execute(TABLE_SQL, group=group)
            for name in others:
                # A ticket for each: the later ones name more members to dial, which matters where links are few.
                ticket = (await inviter.create_invite(group))["ticket"]
                await self.daemons[name].call("invite.accept", ticket=ticket, timeout_s=HANG_S)
        self._tell(f"{group} is there: {founder} made it" + (f", {', '.join(others)} joined by tickets" if others else ""))

    async def _shape(self, name: str) -> None:
        denied = [self.device_ids[other] for other in self.plan.devices if other != name and not self.plan.may_link(name, other)]
        self.daemons[name].configure(links_max=self.plan.links_max, deny=denied)
        await self.daemons[name].reload()

    async def write(self, name: str, group: str, rows: int) -> None:
        """Writes rows on one device, in at most TRANSACTIONS_MAX transactions one after the other.

        Raises:
            PeersError: the daemon refused one, or was lost.
        """
        self.writes_under_way += 1
        try:
            size = math.ceil(rows / TRANSACTIONS_MAX)
            async with self.daemons[name].client() as peers:
                for first in range(0, rows, size):
                    if self.is_ending:
                        return
                    params: list[SqlParams] = [[name, n] for n in range(first, min(first + size, rows))]
                    await peers.transaction([{"sql": INSERT_SQL, "params_seq": params}], group=group)
                    self.written[group] += len(params)
        finally:
            self.writes_under_way -= 1

    async def kill(self, name: str) -> None:
        """Ends a daemon as a power cut would."""
        await self.daemons[name].kill()

    async def restart(self, name: str) -> None:
        """Starts a daemon that was killed, with the folder and the port that it had."""
        if self.daemons[name].process is not None:
            await self.daemons[name].wait_ended()  # it had ended by itself
        await self.daemons[name].start()

    async def close(self) -> None:
        """Ends all processes that still run; returns when they are gone, whatever cancels."""
        with trio.CancelScope(shield=True):
            # All at once and not AT_ONCE of them: where one fails to end, the others must have been told to.
            async with trio.open_nursery() as nursery:
                for daemon in self.daemons.values():
                    nursery.start_soon(daemon.close)


@asynccontextmanager
async def open_process_swarm(
    folder: Path, plan: Plan, tell: Callable[[str], None] = lambda line: None
) -> AsyncGenerator[ProcessSwarm]:
    """A running swarm whose users exist and have no group yet; its processes end with the context.

    Args:
        folder: gets a folder for each daemon.
        plan: who takes part.
        tell: is told what happens, a line each.
    """
    swarm = ProcessSwarm(folder, plan, tell)
    try:
        await swarm.start()
        yield swarm
    finally:
        await swarm.close()


async def _each(names: Iterable[str], work: Callable[[str], Awaitable[None]]) -> None:
    """Does something for each name, AT_ONCE of them at a time."""
    limiter = trio.CapacityLimiter(AT_ONCE)

    async def work_limited(name: str) -> None:
        async with limiter:
            await work(name)

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(partial(work_limited, name))
