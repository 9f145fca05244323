"""What happens to a swarm, drawn by a seed: partitions, crashes, dead links, wrong clocks, who is removed, leaves and comes back.

Once all is well again, all members must hold all that was acknowledged, and every check must hold.
"""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Final

import trio

from peersd.client import Peers, PeersError
from peersd.testing.swarm.running import run_virtually
from peersd.testing.swarm.swarm import Swarm, open_swarm
from peersd.testing.swarm.wires import Conditions

SCHEMA: Final = ["CREATE TABLE note (id TEXT PRIMARY KEY, text TEXT, n INTEGER)"]
PUT: Final = "INSERT INTO note VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET text = excluded.text, n = n + 1"
GROUPS: Final = {"all": ["ada", "ben", "cem", "dan", "eve"], "three": ["ben", "dan", "eve"], "two": ["cem", "ada"]}
DELETE: Final = "DELETE FROM note WHERE id = ?"
STEPS: Final = 40

BURST: Final = 300
BURST_BYTES: Final = 12_000
"""Writes one upon the other: more than a session's credit and what may be queued for a device that reads nothing."""


class Fate:
    """Draws what happens next to a swarm.

    Args:
        swarm: with GROUPS and SCHEMA.
    """

    def __init__(self, swarm: Swarm) -> None:
        self.swarm = swarm
        self.draw = random.Random(swarm.seed)
        self.names = list(swarm.devices)
        self.markers = {group: swarm.marker(group) for group in swarm.groups}

    async def step(self) -> None:
        """One thing happens, or cannot, and some time passes."""
        often = [self.heal, self.restart, self.join] * 2
        once = [
            self.partition,
            self.crash,
            self.links,
            self.clock,
            self.remove,
            self.leave,
            self.set_role,
            self.describe,
            self.disk,
        ]
        with suppress(PeersError):  # also NoDaemon: whoever is down or outside cannot do it
            await self.draw.choice([*[self.write] * 8, *often, *once])()
        await trio.sleep(self.draw.choice([0.0, 0.01, 0.1, 1.0, 10.0, 60.0]))

    async def write(self) -> None:
        """Somebody writes."""
        await self._write_at(self.draw.choice(self.names))

    async def _write_at(self, name: str) -> None:
        group = self.draw.choice([group for group, members in self.swarm.groups.items() if name in members])
        for _ in range(self.draw.choice([1, 1, 5])):
            if self.draw.random() < 0.1:
                await self.swarm.execute(name, DELETE, [f"row {self.draw.randrange(10)}"], group=group)
            text = f"{name} {self.markers[group]} " + self.draw.randbytes(self.draw.choice([0, 50, 50, 140_000])).hex()
            await self.swarm.execute(name, PUT, [f"row {self.draw.randrange(10)}", text], group=group)

    async def partition(self) -> None:
        """Two sides are parted."""
        shuffled = self.draw.sample(self.names, len(self.names))
        cut = self.draw.randrange(1, len(shuffled))
        self.swarm.partition(shuffled[:cut], shuffled[cut:], one_way=self.draw.random() < 0.3)

    async def heal(self) -> None:
        """All paths are open again, and disks have room."""
        self.swarm.heal()
        for device in self.swarm.devices.values():
            device.disk.mend()

    async def crash(self) -> None:
        """A node ends, in order or not."""
        running = [name for name in self.names if self.swarm.devices[name].is_running]
        if len(running) > 1:
            name = self.draw.choice(running)
            how = self.draw.choice([self.swarm.stop, self.swarm.crash, self._lose_power])
            await how(name)

    async def _lose_power(self, name: str) -> None:
        """What a device wrote last, before anybody has heard of it, is on its own disk alone."""
        self.swarm.isolate(name)
        with suppress(PeersError):
            await self._write_at(name)
        await self.swarm.crash(name, silently=True)

    async def restart(self) -> None:
        """One that ended starts again."""
        for name in self.names:
            if not self.swarm.devices[name].is_running:
                self.swarm.devices[name].disk.mend()  # a node does not start on one that cannot be written
                await self.swarm.restart(name)
                return

    async def links(self) -> None:
        """Something is wrong with a link or a path."""
        one, other = self.draw.sample(self.names, 2)
        network = self.swarm.network
        kind = self.draw.randrange(5)
        if kind == 0:
            network.break_links(one, other)
        elif kind == 1:
            network.sever_links(one, other)
        elif kind == 2:
            network.clog(one)
            for number in range(BURST):
                await self.swarm.execute(
                    other, PUT, [f"burst {number % 10}", self.draw.randbytes(BURST_BYTES).hex()], group="all"
                )
        elif kind == 3:
            network.refuse(one)
        else:
            network.set_conditions(Conditions(latency_ms=(50.0, 1500.0), loss=0.1), hosts=[one])

    def _member(self) -> tuple[str, Peers, str]:
        """A group's id, its founder's client and another who is or was in it."""
        group, (founder, *others) = self.draw.choice(list(self.swarm.groups.items()))
        return self.swarm.group_id(group), self.swarm.peers(founder), self.draw.choice(others)

    async def remove(self) -> None:
        """A founder removes somebody."""
        group, founder, member = self._member()
        await founder.remove_member(member, group)

    async def set_role(self) -> None:
        """A founder changes a role."""
        group, founder, member = self._member()
        await founder.set_role(member, self.draw.choice(["reader", "writer", "admin"]), group)

    async def describe(self) -> None:
        """A founder says what a group is about."""
        await self._describe(self.draw.choice(list(self.swarm.groups)))

    async def _describe(self, group: str) -> None:
        founder = self.swarm.peers(self.swarm.groups[group][0])
        about = f"about {self.draw.randrange(100)}"
        await founder.update_group(self.swarm.group_id(group), name=f"{group} {about}", description=about)

    async def mend(self) -> None:
        """All is well again, and the founders have a last word."""
        await self.heal()
        self.swarm.network.set_conditions(Conditions())
        for name, device in self.swarm.devices.items():
            if not device.is_running:
                await self.swarm.restart(name)
        for group in self.swarm.groups:
            with suppress(PeersError):
                await self._describe(group)

    async def disk(self) -> None:
        """A disk is full, or fails."""
        disk = self.swarm.devices[self.draw.choice(self.names)].disk
        disk.is_full, disk.is_failing = self.draw.choice([(True, False), (False, True)])

    async def leave(self) -> None:
        """Somebody leaves."""
        group, _, member = self._member()
        await self.swarm.peers(member).leave_group(group)

    async def join(self) -> None:
        """A founder invites somebody, who joins, perhaps again."""
        group, founder, member = self._member()
        made = await founder.create_invite(group, role="writer")
        await self.swarm.peers(member).join(made["ticket"], timeout_s=15)

    async def clock(self) -> None:
        """A wall clock jumps."""
        self.swarm.set_clock(self.draw.choice(self.names), skew_ms=self.draw.choice([0, 3_600_000, -86_400_000, 10**11]))


async def live(seed: int) -> None:
    """Lets a swarm live through what the seed draws, and mends all.

    Raises:
        SwarmFailed: a check has found something.
    """
    async with open_swarm(devices=5, groups=GROUPS, schema=SCHEMA, seed=seed) as swarm:
        fate = Fate(swarm)
        for _ in range(STEPS):
            await fate.step()
        await fate.mend()
        await swarm.converged()


def run_fate(seed: int) -> None:
    """Runs `live` under a virtual clock."""
    run_virtually(live, seed)
