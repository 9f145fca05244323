"""A whole simulation: devices join groups, write, leave, are removed, lose links, crash, heal, and are compared."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path

from peersd.store.store import Commit
from peersd.testing.simulator.checks import Acknowledged
from peersd.testing.simulator.clients import Clients
from peersd.testing.simulator.device import SimulatedDevice
from peersd.testing.simulator.ending import Ending
from peersd.testing.simulator.entries import feed, pieces_of
from peersd.testing.simulator.founding import Person, admit, make_genesis, make_people
from peersd.testing.simulator.joining import JOINED
from peersd.testing.simulator.membership import Members
from peersd.testing.simulator.network import Network
from peersd.testing.simulator.plan import Plan
from peersd.testing.simulator.replica import Replica
from peersd.testing.simulator.schedule import Schedule, SimulationFailed, Trace
from peersd.testing.simulator.statements import SCHEMA
from peersd_protocol.acts import SchemaAct, encode_body
from peersd_protocol.entries import Kind
from peersd_protocol.roles import Role
from peersd_protocol.tickets import Ticket, parse_ticket

MEMBERS_MAX = 2
"""Beside its founder, whom a group begins with."""

TRIES_HEALED = 8
"""How often somebody who is not let in tries again when nothing else goes wrong any more."""


@dataclass(eq=False)
class Wish:
    """A ticket that a user wants to redeem at a device.

    Attributes:
        device, ticket: these.
        tries_left: how often it is tried once nothing else goes wrong.
        tries: how often it was tried.
    """

    device: SimulatedDevice
    ticket: Ticket
    tries_left: int = TRIES_HEALED
    tries: int = 0


class Simulation:
    """One simulation.

    Args:
        seed: of all that is random.
        folder: for the devices' files.
        plan: how much happens.
    """

    def __init__(self, seed: int, folder: Path, plan: Plan | None = None) -> None:
        plan = plan or Plan()
        self._schedule = Schedule(seed, f"scripts/sim --seed {seed}{plan.flags} --trace")
        self.plan = plan.draw(self._schedule.random)
        self._network = Network(self._schedule, self.plan.links_max)
        people = _people(seed, self.plan.devices)
        self.devices = [SimulatedDevice(self._schedule, self._network, person, folder, self._told) for person in people]
        self._network.add(self.devices)
        self.acknowledged: dict[bytes, list[Acknowledged]] = {}
        self.wishes: list[Wish] = []
        self._given_up: list[Wish] = []
        self._is_healing = False
        self._clients = Clients(self._schedule)
        users = list(dict.fromkeys(person.user for person in people))
        self._members = Members(self._schedule, users, self._hand_over)
        for one, other in permutations(self.devices, 2):
            if one.person.user == other.person.user:
                one.notes.addresses[other.device_id] = other.url  # by the personal group
        for number in range(self.plan.groups):
            self._found_group(seed, f"g{number}")

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
            raise self._schedule.fail("an exception", error) from error

    def _run(self) -> None:
        kind = f"at most {self.plan.links_max} links each" if self._network.is_mesh else "links by chance"
        self._schedule.note("", f"{len(self.devices)} devices, {self.plan.groups} groups, {kind}")
        for device in self.devices:
            device.start()
            self._write_later(device)
        for one, other in combinations(self.devices, 2) if not self._network.is_mesh else ():
            self._connect_later(one, other)
        self._deed_later()
        self._fault_later()
        self._schedule.run_until(self.plan.trouble_ms)
        self._heal()
        Ending(self._schedule, self._network, self.devices, self, self.acknowledged).run(self.plan.heal_ms)

    # --- The start --------------------------------------------------------------------------------------------------------------

    def _found_group(self, seed: int, name: str) -> None:
        """A founder and a few members who have met; a device of each knows where another one is."""
        random = self._schedule.random
        founder = random.choice(self.devices)
        genesis = make_genesis(seed, founder.person, name)
        group = genesis.last.hash
        runs = (*founder.person.identity_runs, genesis)
        store = founder.add_file(name, group).create(founder.context, runs, genesis.last.epoch)
        commits: list[Commit] = []
        others = [device for device in self.devices if device.person.user != founder.person.user]
        met = {founder.person.user}
        for device in random.sample(others, random.randint(0, MEMBERS_MAX)):
            if device.person.user not in met:
                met.add(device.person.user)
                role = random.choice((Role.OWNER, Role.ADMIN, Role.MODERATOR, Role.WRITER, Role.READER))
                commits += admit(store, founder.person, device.person, role)
        for sql in SCHEMA:
            ops = tuple(store.plan_schema(founder.person.user, sql))
            _, commit = store.act(founder.person.user, Kind.CONTROL, encode_body(SchemaAct(ops)))
            commits += [commit] if commit else []
        pieces = pieces_of(store)
        store.close()
        for device in self.devices:
            if device.person.user in met and device is not founder:
                copy = device.add_file(name, group).create(device.context)
                feed(copy, pieces)
                copy.close()
                self._introduce(device, founder)
        self.acknowledged[group] = [Acknowledged.of(founder.name, entry) for commit in commits for entry in commit.entries]

    def _introduce(self, one: SimulatedDevice, other: SimulatedDevice) -> None:
        """One device dialled the other once, which may have heard since where that one is."""
        for device, known in self._schedule.random.choice((((one, other),), ((one, other), (other, one)))):
            device.notes.addresses[known.device_id] = known.url
            device.notes.reached.add(known.device_id)

    def _told(self, device: SimulatedDevice, replica: Replica, commit: Commit) -> None:
        own = [entry for entry in commit.entries if entry.log.device == device.device_id]
        self.acknowledged[replica.group] += [Acknowledged.of(device.name, entry) for entry in own]

    # --- What users do ----------------------------------------------------------------------------------------------------------

    def _write_later(self, device: SimulatedDevice) -> None:
        def write() -> None:
            if self._is_healing:
                return
            if device.process is not None:
                self._clients.act(device.process)
            self._write_later(device)

        self._schedule.after(1, 2 * self.plan.write_every_ms, write)

    def _deed_later(self) -> None:
        def do() -> None:
            if self._is_healing:
                return
            process = self._schedule.random.choice(self.devices).process
            if process is not None and process.registered:
                self._members.act(process, self._schedule.random.choice(process.registered))
            self._deed_later()

        self._schedule.after(1, 2 * self.plan.deed_every_ms, do)

    # --- Joining ----------------------------------------------------------------------------------------------------------------

    def _hand_over(self, replica: Replica, ticket: Ticket, users_max: int) -> None:
        """Gives a ticket to users who are no members, each at one of its devices."""
        random, state = self._schedule.random, replica.state
        outside = [device for device in self.devices if not state.role_of(device.person.user)]
        welcome = [device for device in outside if device.person.user not in state.bans or random.random() < 0.2]
        for device in random.sample(welcome, min(users_max, len(welcome))):
            self._schedule.note(device.name, f"{replica.name} gets a ticket")
            wish = Wish(device, parse_ticket(ticket.format()))
            self.wishes.append(wish)
            self._try_later(wish)

    def _try_later(self, wish: Wish) -> None:
        def redeem() -> None:
            process = wish.device.process
            wish.tries += 1
            tries = wish.tries
            if process is None or not process.join(wish.ticket, finished):
                self._try_later(wish)
            else:
                self._watch(wish, process.boot_id, tries)

        def finished(outcome: str | None) -> None:
            wish.tries_left -= self._is_healing
            wish.tries += 1
            if outcome is None and wish.tries_left > 0:
                self._try_later(wish)
                return
            self.wishes.remove(wish)
            if outcome is None:
                self._given_up.append(wish)
            if outcome == JOINED:
                self._tell_siblings(wish.device, wish.ticket)
            else:
                self._ask_siblings(wish.device, wish.ticket)

        self._schedule.after(50, 1_500, redeem)

    @property
    def are_joining(self) -> bool:
        """Whether anybody has a ticket to be redeemed."""
        return bool(self.wishes)

    def try_again(self, device: SimulatedDevice, group: bytes, members: Collection[bytes]) -> bool:
        """A user who was not let in tries again after all; False if its tickets name nobody of the members."""
        urls = {other.url for other in self.devices if other.device_id in members}
        for wish in self._given_up:
            if wish.device is device and wish.ticket.group_id == group and urls.intersection(wish.ticket.addresses):
                self._given_up.remove(wish)
                self.wishes.append(wish)
                self._try_later(wish)
                return True
        return False

    def _watch(self, wish: Wish, boot_id: bytes, tries: int) -> None:
        """A crash leaves the wish, and nobody who tells of the end of its attempt."""

        def look() -> None:
            if wish.tries != tries or wish not in self.wishes:
                return
            if wish.device.process is None or wish.device.process.boot_id != boot_id:
                self._try_later(wish)
            else:
                self._watch(wish, boot_id, tries)

        self._schedule.after(300, 600, look)

    def _tell_siblings(self, device: SimulatedDevice, ticket: Ticket) -> None:
        """The user's other devices learn of the group, as they do by the personal group, and wait for what it holds."""
        for sibling in self.devices:
            if sibling.person.user == device.person.user and sibling is not device:
                self._register_later(sibling, ticket)

    def _ask_siblings(self, device: SimulatedDevice, ticket: Ticket) -> None:
        """A device that was not let in learns of the group from another one that was."""
        for sibling in self.devices:
            file = sibling.files.get(ticket.group_id)
            if sibling.person.user == device.person.user and sibling is not device and file is not None and file.is_registered:
                self._register_later(device, ticket)

    def _register_later(self, device: SimulatedDevice, ticket: Ticket) -> None:
        def register() -> None:
            if ticket.group_id in device.files:
                return
            if device.process is None:
                self._register_later(device, ticket)
            else:
                device.process.make_replica(ticket.group_name, ticket.group_id, is_registered=True)

        self._schedule.after(50, 1_500, register)

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
        device = self._schedule.random.choice(self.devices)
        ends = device.process.links.linked() if device.process else []
        if ends:
            end = self._schedule.random.choice(ends)
            self._schedule.note(device.name, f"loses its link to {end.remote}")
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
        random = self._schedule.random
        pairs = random.sample(((one, other), (other, one)), random.choice((1, 1, 2)))  # both at once, now and then
        for dialler, listener in pairs:
            if dialler.process is not None and dialler.process.links.to_device(listener.device_id) is None:
                dialler.process.links.dial(listener.url, listener.device_id)
        self._connect_later(one, other)

    def _heal(self) -> None:
        self._schedule.note("", "heals: nobody does anything more, and nothing fails")
        self._is_healing = True
        self._network.is_troubled = False
        for device in self.devices:
            if device.process is None:
                device.start()

    def close(self) -> None:
        """Closes the files."""
        for device in self.devices:
            if device.process is not None:
                device.process.close()


def _people(seed: int, devices: int) -> list[Person]:
    """As many devices, of one user each but for the first, who has two."""
    names = ["a1", "a2", "b", "c", "d", "e", "f", "g", "h"][:devices]
    first = names[:2] if devices > 3 else names[:1]
    return [*make_people(seed, first), *(person for name in names[len(first) :] for person in make_people(seed, [name]))]


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
