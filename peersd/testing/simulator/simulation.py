"""A whole simulation: three devices of three users found groups, write, lose links, crash, heal, and are compared."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Any

from peersd.errors import PeersdError
from peersd.store.batch import Success
from peersd.store.store import Commit
from peersd.testing.simulator import checks
from peersd.testing.simulator.clients import LATER_SCHEMA, SCHEMA, make_write
from peersd.testing.simulator.device import SimulatedDevice
from peersd.testing.simulator.founding import admit, make_genesis, make_person
from peersd.testing.simulator.replica import Replica
from peersd.testing.simulator.schedule import Schedule, Trace
from peersd.testing.simulator.wire import make_wire
from peersd_protocol.acts import SchemaAct, Settings, encode_body
from peersd_protocol.entries import Kind
from peersd_protocol.handshake import Role
from peersd_protocol.roles import Deed
from peersd_protocol.roles import Role as Membership
from peersd_protocol.schema_ops import SchemaOp

DEVICE_NAMES = ("a", "b", "c")
POLL_MS = 100
QUIET_MS = 2_000
"""After all are equal, nobody may have anything left to say for so long."""


@dataclass(frozen=True)
class Plan:
    """How much happens.

    Attributes:
        groups: founded by the first devices in turn; all devices are members of all.
        trouble_ms: how long there are writes and faults.
        heal_ms: by when after that all replicas are equal.
        write_every_ms: mean time between two writes of a device to a group.
        fault_every_ms: mean time between two faults.
    """

    groups: int = 2
    trouble_ms: int = 4_000
    heal_ms: int = 30_000
    write_every_ms: int = 250
    fault_every_ms: int = 400

    @property
    def flags(self) -> str:
        """What scripts/sim needs to be told beside the seed."""
        changed = [field for field in fields(self) if getattr(self, field.name) != field.default]
        return "".join(f" --{field.name.replace('_', '-')} {getattr(self, field.name)}" for field in changed)


class Simulation:
    """One simulation.

    Args:
        seed: of all that is random.
        folder: for the devices' files.
        plan: how much happens.
    """

    def __init__(self, seed: int, folder: Path, plan: Plan | None = None) -> None:
        self.plan = plan or Plan()
        self._schedule = Schedule(seed, f"scripts/sim --seed {seed}{self.plan.flags} --trace")
        people = [make_person(seed, name) for name in DEVICE_NAMES]
        self.devices = [SimulatedDevice(self._schedule, person, folder) for person in people]
        self._acknowledged: dict[str, list[checks.Acknowledged]] = {}
        self._is_healing = False
        self._found_groups(seed)

    @property
    def trace(self) -> Trace:
        """What happened."""
        return self._schedule.trace

    def run(self) -> None:
        """Runs to the end.

        Raises:
            SimulationFailed: something that must hold did not.
        """
        for device in self.devices:
            device.start()
        for one, other in combinations(self.devices, 2):
            self._connect_later(one, other)
            self._write_later(one)
            self._write_later(other)
        self._fault_later()
        self._schedule.run_until(self.plan.trouble_ms)
        self._heal()
        self._await_equal()
        self._check()

    # --- The start --------------------------------------------------------------------------------------------------------------

    def _found_groups(self, seed: int) -> None:
        for number in range(self.plan.groups):
            name = f"g{number}"
            founder = self.devices[number % len(self.devices)]
            genesis = make_genesis(seed, founder.person, name)
            group = genesis.last.hash
            runs = (founder.person.identity, genesis)
            store = founder.add_file(name, group).create(founder.context, runs, genesis.last.epoch)
            roles = iter((Membership.ADMIN, Membership.WRITER))
            commits: list[Commit] = []
            for device in self.devices:
                if device is not founder:
                    commits += admit(store, founder.person, device.person, next(roles))
                    device.add_file(name, group).create(device.context).close()
            for sql in SCHEMA:
                ops = tuple(store.plan_schema(founder.person.user, sql))
                _, commit = store.act(founder.person.user, Kind.CONTROL, encode_body(SchemaAct(ops)))
                commits += [commit] if commit else []
            store.close()
            self._acknowledged[name] = [checks.Acknowledged.of(entry) for commit in commits for entry in commit.entries]

    # --- Clients ----------------------------------------------------------------------------------------------------------------

    def _write_later(self, device: SimulatedDevice) -> None:
        def write() -> None:
            if self._is_healing:
                return
            if device.process is not None:
                replica = self._schedule.random.choice(list(device.process.replicas.values()))
                self._act(device, replica)
            self._write_later(device)

        self._schedule.after(1, 2 * self.plan.write_every_ms // self.plan.groups, write)

    def _act(self, device: SimulatedDevice, replica: Replica) -> None:
        random, store, user = self._schedule.random, replica.store, device.person.user
        kind = random.random()
        state = store.state
        if kind < 0.03 and state.may(user, Deed.CHANGE_SCHEMA):
            sql = random.choice(LATER_SCHEMA)
            self._call(device, replica, f"plans {sql}", lambda: store.plan_schema(user, sql), self._schema_act(device, replica))
        elif kind < 0.06 and state.may(user, Deed.CHANGE_SETTINGS):
            body = encode_body(Settings(name=f"named by {device.name} at {self._schedule.now_ms}"))
            self._call(device, replica, "renames", lambda: store.act(user, Kind.CONTROL, body)[1], self._acted(replica))
        elif state.may(user, Deed.WRITE) and state.schema.tables:
            writes = [make_write(random, user) for _ in range(random.choice((1, 1, 1, 2, 6)))]
            self._call(device, replica, f"writes {len(writes)}", lambda: store.write(writes), self._wrote(device, replica))

    def _call(
        self, device: SimulatedDevice, replica: Replica, label: str, call: Callable[[], Any], then: Callable[[Any], None]
    ) -> None:
        def refusable() -> Any:
            try:
                return call()
            except PeersdError as error:
                return error

        def finish(result: Any) -> None:
            if isinstance(result, PeersdError):
                self._schedule.note(device.name, f"{replica.name} refuses: {result.code}")
            else:
                then(result)

        replica.call(label, refusable, finish)

    def _schema_act(self, device: SimulatedDevice, replica: Replica) -> Callable[[list[SchemaOp]], None]:
        def act(ops: list[SchemaOp]) -> None:
            if ops:
                body = encode_body(SchemaAct(tuple(ops)))
                user = device.person.user
                self._call(
                    device, replica, "defines", lambda: replica.store.act(user, Kind.CONTROL, body)[1], self._acted(replica)
                )

        return act

    def _acted(self, replica: Replica) -> Callable[[Commit | None], None]:
        return lambda commit: self._acknowledge(replica, commit)

    def _wrote(
        self, device: SimulatedDevice, replica: Replica
    ) -> Callable[[tuple[list[Success | PeersdError], Commit | None]], None]:
        def wrote(result: tuple[list[Success | PeersdError], Commit | None]) -> None:
            outcomes, commit = result
            codes = [outcome.code if isinstance(outcome, PeersdError) else "done" for outcome in outcomes]
            self._schedule.note(device.name, f"{replica.name} wrote: {' '.join(codes)}")
            self._acknowledge(replica, commit)

        return wrote

    def _acknowledge(self, replica: Replica, commit: Commit | None) -> None:
        replica.tell(commit)
        for entry in commit.entries if commit else ():
            self._acknowledged[replica.name].append(checks.Acknowledged.of(entry))

    # --- Faults -----------------------------------------------------------------------------------------------------------------

    def _fault_later(self) -> None:
        def fault() -> None:
            if self._is_healing:
                return
            if self._schedule.random.random() < 0.6:
                self._cut_some_link()
            else:
                self._crash_some_device()
            self._fault_later()

        self._schedule.after(1, 2 * self.plan.fault_every_ms, fault)

    def _cut_some_link(self) -> None:
        one, other = self._schedule.random.sample(self.devices, 2)
        end = one.process.links.get(other.name) if one.process else None
        if end is not None:
            self._schedule.note(one.name, f"loses its link to {other.name}")
            end.lose_wire()

    def _crash_some_device(self) -> None:
        device = self._schedule.random.choice(self.devices)
        if device.process is None:
            return
        device.crash()

        def restart() -> None:
            if device.process is None:
                device.start()

        self._schedule.after(1, 3_000, restart)

    def _connect_later(self, one: SimulatedDevice, other: SimulatedDevice) -> None:
        """Links two devices again and again: who dials is chance, as is how long it takes after a link was lost."""
        self._schedule.after(1, 200 if self._is_healing else 1_500, lambda: self._connect(one, other))

    def _connect(self, one: SimulatedDevice, other: SimulatedDevice) -> None:
        dialler, listener = self._schedule.random.sample((one, other), 2)
        calling, called = dialler.process, listener.process
        if calling and called and listener.name not in calling.links and dialler.name not in called.links:
            near, far = make_wire(self._schedule)
            called.add_link(dialler, Role.LISTENER, far)
            calling.add_link(listener, Role.DIALLER, near)
        self._connect_later(one, other)

    # --- The end ----------------------------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        self._schedule.note("", "heals: no more writes and faults")
        self._is_healing = True
        for device in self.devices:
            if device.process is None:
                device.start()

    def _replicas(self) -> list[tuple[SimulatedDevice, Replica]]:
        processes = [(device, device.process) for device in self.devices]
        return [(device, replica) for device, process in processes if process for replica in process.replicas.values()]

    def _await_equal(self) -> None:
        end_ms = self._schedule.now_ms + self.plan.heal_ms
        while waiting := self._waiting():
            if self._schedule.now_ms >= end_ms:
                raise self._schedule.fail(f"not equal {self.plan.heal_ms} ms after healing: {'; '.join(waiting)}")
            self._schedule.run_until(self._schedule.now_ms + POLL_MS)
        self._schedule.note("", "all devices know each other to be equal")
        sent = [replica.messages_sent for _, replica in self._replicas()]
        self._schedule.run_until(self._schedule.now_ms + QUIET_MS)
        if sent != [replica.messages_sent for _, replica in self._replicas()] or self._waiting():
            raise self._schedule.fail("devices that are equal still talk")

    def _waiting(self) -> list[str]:
        waiting: list[str] = []
        for device, replica in self._replicas():
            others = [other.name for other in self.devices if other is not device]
            unequal = replica.unequal(others)
            if unequal or not replica.is_idle:
                waiting.append(f"{device.name} {replica.name} {'waits for ' + ' '.join(unequal) if unequal else 'is busy'}")
        return waiting

    def _check(self) -> None:
        first = {
            replica.name: checks.Replicated.of(replica.store) for device, replica in self._replicas() if device is self.devices[0]
        }
        for device, replica in self._replicas():
            where = f"{device.name} {replica.name}"
            replicated = checks.Replicated.of(replica.store)
            self._must_not(where, first[replica.name].difference(replicated))
            self._must_not(where, checks.check_oracle(replica.store))
            self._must_not(where, checks.check_acknowledged(replica.store, self._acknowledged[replica.name]))
            file = device.files[replica.name]
            self._must_not(where, checks.check_file(file))
            replica.store, wrong = checks.check_rebuilt(replica.store, file, device.context)
            self._must_not(where, wrong)
        rows = sum(len(rows) for seen in first.values() for rows in seen.rows.values())
        entries = sum(map(len, self._acknowledged.values()))
        self._schedule.note("", f"equal: {rows} rows, {entries} acknowledged entries")

    def _must_not(self, where: str, wrong: str | None) -> None:
        if wrong is not None:
            raise self._schedule.fail(f"{where}: {wrong}")

    def close(self) -> None:
        """Closes the files."""
        for device in self.devices:
            if device.process is not None:
                device.process.close()


def run_seed(seed: int, plan: Plan | None = None) -> Simulation:
    """Runs one seed to its end in a temporary folder.

    Raises:
        SimulationFailed: something that must hold did not.
    """
    with tempfile.TemporaryDirectory(prefix="peersd-sim-") as folder:
        simulation = Simulation(seed, Path(folder), plan)
        try:
            simulation.run()
        finally:
            simulation.close()
    return simulation
