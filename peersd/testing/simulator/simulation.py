"""A whole simulation: devices join groups, write, leave, are removed, lose links, crash, heal, and are compared."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Collection
from functools import cache
from itertools import combinations, permutations
from pathlib import Path
from random import Random
from typing import Final

from peersd.store.schema_plan import plan_schema
from peersd.store.store import Commit
from peersd.testing.simulator.checks import Acknowledged
from peersd.testing.simulator.clients import Clients
from peersd.testing.simulator.deals import SCHEMA as DEALS
from peersd.testing.simulator.device import SimulatedDevice
from peersd.testing.simulator.ending import Ending
from peersd.testing.simulator.entries import feed, pieces_of
from peersd.testing.simulator.faults import Faults
from peersd.testing.simulator.founding import Person, admit, make_genesis, make_people
from peersd.testing.simulator.membership import Members
from peersd.testing.simulator.network import Network
from peersd.testing.simulator.parts import Parts
from peersd.testing.simulator.plan import Plan
from peersd.testing.simulator.replica import Replica
from peersd.testing.simulator.schedule import Schedule, SimulationFailed, Trace
from peersd.testing.simulator.script import Step, StepKind, draw_script, format_numbers
from peersd.testing.simulator.statements import SCHEMA
from peersd.testing.simulator.wishes import Wishes
from peersd_protocol.acts import SchemaAct, encode_body
from peersd_protocol.entries import Kind
from peersd_protocol.roles import Role
from peersd_protocol.schema import EMPTY

DEVICE_NAMES: Final = "abcdefghijkl"
"""How devices are called in a trace."""

GROUP_NAMES: Final = "xyzw"
"""How groups are called there."""

MEMBERS_MAX: Final = 2
"""Beside its founder, whom a group begins with."""

_MEMORY: Final = "/dev/shm"

FOLDER_VARIABLE: Final = "PEERSD_SIM_FOLDER"
"""The environment variable that says where simulations keep their files instead: who sets it takes them away."""


class Simulation:
    """One simulation.

    Args:
        seed: of all that is random.
        folder: for the devices' files.
        plan: how much happens.
        only: the numbers of the steps that are done; None for all.
        parts: what the devices are made of.

    Attributes:
        plan: with all that the seed decides.
        script: the steps that are done.
        devices: those that run the product's code.
    """

    def __init__(
        self,
        seed: int,
        folder: Path,
        plan: Plan | None = None,
        only: Collection[int] | None = None,
        parts: Parts | None = None,
    ) -> None:
        plan = plan or Plan()
        steps = "" if only is None else f" --only {format_numbers(only)}"
        schedule = self._schedule = Schedule(seed, f"scripts/sim --seed {seed}{plan.flags}{steps} --trace")
        self.plan = plan.draw(schedule.stream("plan"))
        self.script = [step for step in steps_of(seed, plan) if only is None or step.number in only]
        self._network = Network(schedule, self.plan.links_max, GROUP_NAMES[: self.plan.groups])
        people = _people(seed, self.plan.devices)
        devices = [SimulatedDevice(schedule, self._network, person, folder, self._told, parts) for person in people]
        self._network.add(devices)
        self.devices = [device for device in devices if device.is_honest]
        self._others = [device for device in devices if not device.is_honest]
        self.acknowledged: dict[bytes, list[Acknowledged]] = {}
        self._is_healing = False
        self._clients = Clients(schedule)
        self._faults = Faults(schedule, self._network, self.devices)
        self._wishes = Wishes(schedule, self.devices)
        schedule.names.update((device.device_id[:4].hex(), device.name) for device in devices)
        self._members = Members(schedule, [device.person for device in self.devices], self._wishes.hand_over)
        for one, other in permutations(self.devices, 2):
            if one.person.user == other.person.user:
                one.notes.addresses[other.device_id] = other.url  # by the personal group
        founding = schedule.stream("founding")
        for name in GROUP_NAMES[: self.plan.groups]:
            self._found_group(seed, name, founding)

    @property
    def trace(self) -> Trace:
        """What happened."""
        return self._schedule.trace

    def run(self) -> None:
        """Runs to the end.

        Raises:
            SimulationFailed: something that must hold did not.
        """
        try:
            self._run()
        except SimulationFailed:
            raise
        except Exception as error:
            raise self._schedule.fail(None, "the product raised", error) from error

    def _run(self) -> None:
        kind = f"at most {self.plan.links_max} links each" if self._network.is_mesh else "links by chance"
        devices = [*self.devices, *self._others]
        self._schedule.note("", f"{len(devices)} devices, {self.plan.groups} groups, {kind}, {len(self.script)} steps")
        for device in devices:
            device.start()
        for one, other in combinations(self.devices, 2) if not self._network.is_mesh else ():
            self._connect_later(one, other, self._schedule.stream("links", one.name, other.name))
        for step in self.script:
            self._schedule.run_until(step.at_ms)
            self._do(step)
        self._schedule.run_until(self.plan.trouble_ms)
        self._heal()
        ending = Ending(self._schedule, self._network, self.devices, self._wishes, self.acknowledged)
        ending.run(self.plan.converge_ms)

    # --- The start --------------------------------------------------------------------------------------------------------------

    def _found_group(self, seed: int, name: str, random: Random) -> None:
        """A founder and a few members who have met; a device of each knows where another one is."""
        founder = random.choice(self.devices)
        genesis = make_genesis(seed, founder.person, name)
        group = genesis.last.hash
        runs = (*founder.person.identity_runs, genesis)
        store = founder.add_file(name, group).create(founder.context, runs, genesis.last.epoch)
        commits: list[Commit] = []
        others = [device for device in self.devices if device.person.user != founder.person.user]
        met = {founder.person.user}
        for device in random.sample(others, min(len(others), random.randint(0, MEMBERS_MAX))):
            if device.person.user not in met:
                met.add(device.person.user)
                role = random.choice((Role.OWNER, Role.ADMIN, Role.MODERATOR, Role.WRITER, Role.READER))
                commits += admit(store, founder.person, device.person, role)
        for sql in (*SCHEMA, *DEALS):
            _, commit = store.act(founder.person.user, Kind.CONTROL, _schema_body(sql))
            commits += [commit] if commit else []
        pieces = pieces_of(store)
        store.close()
        for device in self.devices:
            if device.person.user in met and device is not founder:
                copy = device.add_file(name, group).create(device.context)
                feed(copy, pieces, runs_max=len(pieces))
                copy.close()
                self._introduce(device, founder, random)
        self.acknowledged[group] = [Acknowledged.of(founder.name, entry) for commit in commits for entry in commit.entries]

    def _introduce(self, one: SimulatedDevice, other: SimulatedDevice, random: Random) -> None:
        """One device dialled the other once, which may have heard since where that one is."""
        for device, known in random.choice((((one, other),), ((one, other), (other, one)))):
            device.notes.addresses[known.device_id] = known.url
            device.notes.reached.add(known.device_id)

    def _told(self, device: SimulatedDevice, replica: Replica, commit: Commit) -> None:
        own = [entry for one in commit.entries for entry in one.each() if entry.log.device == device.device_id]
        self.acknowledged[replica.group] += [Acknowledged.of(device.name, entry) for entry in own]

    # --- Steps ------------------------------------------------------------------------------------------------------------------

    def _do(self, step: Step) -> None:
        random = self._schedule.stream("step", step.number)
        self._schedule.note("", f"step {step.number}: {step.kind}")
        if step.kind not in (StepKind.WRITE, StepKind.READ, StepKind.GOVERN):
            self._faults.do(step.kind, random)
            return
        process = random.choice(self.devices).process
        if process is None or not process.registered:
            return
        if step.kind is StepKind.WRITE:
            self._clients.act(process, random)
        elif step.kind is StepKind.READ:
            self._clients.read(process, random.choice(process.registered))
        else:
            self._members.act(process, random.choice(process.registered), random)

    def _connect_later(self, one: SimulatedDevice, other: SimulatedDevice, random: Random) -> None:
        """Links two devices again and again: who dials is chance, as is how long it takes after a link was lost."""

        def connect() -> None:
            pairs = random.sample(((one, other), (other, one)), random.choice((1, 1, 2)))  # both at once, now and then
            for dialler, listener in pairs:
                if dialler.process is not None and dialler.process.links.to_device(listener.device_id) is None:
                    dialler.process.links.dial(listener.url, listener.device_id)
            self._connect_later(one, other, random)

        self._schedule.at(self._schedule.now_ms + random.randint(1, 200 if self._is_healing else 1_500), connect)

    def _heal(self) -> None:
        self._schedule.note("", "heals: nobody does anything more, and nothing fails")
        self._is_healing = self._wishes.is_healing = True
        self._network.heal()
        for device in self.devices:
            if device.process is None:
                device.start()
            if device.process is not None:
                device.process.before_telling = None
                for replica in device.process.registered:
                    self._clients.read(device.process, replica)

    def close(self) -> None:
        """Closes the files."""
        for device in self.devices:
            if device.process is not None:
                device.process.close()
        for device in (*self.devices, *self._others):
            device.disk.close()


@cache
def _schema_body(sql: str) -> bytes:
    """The act by which a table is made that no other one matters to."""
    return encode_body(SchemaAct(tuple(plan_schema(sql, EMPTY))))


def _people(seed: int, devices: int) -> list[Person]:
    """As many devices, of one user each but for the first, who has two: a and b."""
    names = DEVICE_NAMES[:devices]
    first = names[:2] if devices > 3 else names[:1]
    return [*make_people(seed, first), *(person for name in names[len(first) :] for person in make_people(seed, [name]))]


def steps_of(seed: int, plan: Plan | None = None) -> list[Step]:
    """All steps of a seed."""
    return draw_script(Schedule(seed, "").stream("steps"), plan or Plan())


def memory_folder() -> str | None:
    """Where files are in memory, on systems that have it: most of what a simulation costs elsewhere is waiting for a disk."""
    return _MEMORY if os.access(_MEMORY, os.W_OK) else None


def run_seed(seed: int, plan: Plan | None = None, only: Collection[int] | None = None, parts: Parts | None = None) -> Simulation:
    """Runs one seed to its end in a temporary folder.

    Args:
        seed: see Simulation, as for all.
        plan: how much happens.
        only: the steps that are done.
        parts: of the devices.

    Raises:
        SimulationFailed: something that must hold did not.
    """
    with tempfile.TemporaryDirectory(prefix="peersd-sim-", dir=os.environ.get(FOLDER_VARIABLE) or memory_folder()) as folder:
        is_collecting = gc.isenabled()
        gc.disable()  # while it runs next to nothing of it is garbage, and all of it would be looked through again and again
        simulation = Simulation(seed, Path(folder), plan, only, parts)
        try:
            simulation.run()
        finally:
            simulation.close()
            if is_collecting:
                gc.enable()
    return simulation
