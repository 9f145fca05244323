"""How far a swarm of real nodes goes in one process under virtual time: many devices in one group, many groups on one link.

    scripts/sim --scale                               # 64 devices in one group, two with 1,000 groups, 500 in 40 groups
    scripts/sim --scale --devices 24 --groups 300

Everybody writes, all converge, a link stays one link; then nothing is done for some minutes. Told are the seconds of the
processor and of virtual time, links, memory, and what idling costs. The third run is of bare machines (scripts/sim_hops.py).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

import trio

from peersd.testing.observing import file_handles, memory_bytes
from peersd.testing.swarm import Swarm, SwarmFailed, open_swarm, run_virtually
from scripts import sim_hops
from scripts.sim_arguments import number
from scripts.sim_interrupts import cancel_if_interrupted, open_run

SCHEMA = ("CREATE TABLE note (id TEXT PRIMARY KEY DEFAULT (uuid7()), text TEXT)",)
INSERT = "INSERT INTO note (text) VALUES (?)"

IDLE_S = 300.0
"""Virtual time of idling that is looked at; stores are closed after 20 s."""

SETTLE_S = 120.0
"""Virtual time before that: until addresses have travelled, all links that are wanted are there and stores are closed."""


class Run:
    """One run: prints a line for each step, with what it cost.

    Args:
        title: of the run.
    """

    def __init__(self, title: str) -> None:
        print(title, flush=True)
        self._base_bytes = memory_bytes(os.getpid())
        self._began()

    def _began(self) -> None:
        self._cpu_s, self._virtual_s = time.process_time(), 0.0

    def step(self, what: str, virtual_s: float, also: str = "") -> None:
        """A step is done: prints its cost since the last one.

        Args:
            what: the step.
            virtual_s: the virtual time it took.
            also: more to say of it.
        """
        cpu_s = time.process_time() - self._cpu_s
        used = (memory_bytes(os.getpid()) - self._base_bytes) / 2**20
        print(f"  {what:<42} {cpu_s:7.1f} s CPU  {virtual_s:8.1f} s virtual  {used:6.0f} MiB  {also}", flush=True)
        self._began()


async def run_swarm(title: str, devices: int, groups: int, seed: int) -> None:
    """One swarm: founded, written to by everybody, left idle.

    Raises:
        SwarmFailed: it did not converge, or a rule was broken.
    """
    run = Run(title)
    began_s = trio.current_time()
    async with open_swarm(devices=devices, groups=groups, schema=SCHEMA, seed=seed) as swarm:
        run.step("founded and joined", trio.current_time() - began_s)
        await trio.sleep(SETTLE_S)
        run.step("settled", SETTLE_S, _links(swarm))
        began_s = trio.current_time()
        for number, group in enumerate(swarm.groups):
            # In one group everybody writes; of many, each is written to by one.
            writers = list(swarm.devices) if groups == 1 else [list(swarm.devices)[number % devices]]
            for name in writers:
                await swarm.execute(name, INSERT, [name], group=group)
        wrote_s = trio.current_time() - began_s
        run.step("written", wrote_s, f"{groups * (devices if groups == 1 else 1)} rows")
        took_s = await swarm.met(within_s=600)
        run.step("converged and compared", took_s, _links(swarm))
        await trio.sleep(SETTLE_S)
        run.step("at rest", SETTLE_S, f"{file_handles(os.getpid())} handles, {_open_stores(swarm)} open stores")
        before = _carried(swarm)
        await trio.sleep(IDLE_S)
        rate = (_carried(swarm) - before) / len(swarm.network.connections or [0]) / IDLE_S
        run.step("idle", IDLE_S, f"{rate:.1f} bytes a second and link")
    run.step("stopped", 0.0)


def _links(swarm: Swarm) -> str:
    links = [len(node.links.handles()) if (node := device.node).links else 0 for device in swarm.devices.values()]
    return f"{sum(links) // 2} links, {min(links)} to {max(links)} a device, {len(swarm.network.connections)} connections"


def _open_stores(swarm: Swarm) -> int:
    return sum(device.node.open_stores() for device in swarm.devices.values())


def _carried(swarm: Swarm) -> int:
    return sum(device.node.links.bytes_carried()[1] for device in swarm.devices.values() if device.node.links)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs both swarms, then the bare machines, and returns the exit status: 0 if all converged and no rule was broken."""
    parser = argparse.ArgumentParser(prog="scripts/sim --scale", description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--devices", type=number(0), default=64, help="devices of the one group; 0 leaves that run out")
    parser.add_argument("--groups", type=number(0), default=1000, help="groups that two devices share; 0 leaves that run out")
    parser.add_argument("--machines", type=number(0), default=500, help="bare machines in 40 groups; 0 leaves that run out")
    parser.add_argument("--seed", type=number(0), default=1, help="of all that is drawn (default 1)")
    options = parser.parse_args(arguments)
    if 0 < options.devices < 2:
        parser.error("argument --devices: one device has nobody; valid are 2 or more, or 0 to leave that run out")
    if 0 < options.machines < 20:
        parser.error("argument --machines: too few for 40 groups; valid are 20 or more, or 0 to leave that run out")
    ended: list[str] = []
    status = 0
    with open_run() as interruption:
        try:
            if options.devices:
                title = f"{options.devices} devices in one group"
                run_virtually(cancel_if_interrupted, run_swarm, title, options.devices, 1, options.seed)
                ended.append("devices")
            if options.groups:
                title = f"two devices with {options.groups} groups"
                run_virtually(cancel_if_interrupted, run_swarm, title, 2, options.groups, options.seed)
                ended.append("groups")
        except* SwarmFailed as failures:
            print(*failures.exceptions, sep="\n", file=sys.stderr)
            status = 1
        if options.machines and not status:
            status = sim_hops.main(["--devices", str(options.machines), "--seed", str(options.seed)])
            ended.append("machines")
    return interruption.end(status, f"runs that ended: {', '.join(ended) or 'none'}")


if __name__ == "__main__":
    sys.exit(main())
