"""The end of a simulation: it runs until all who should know the same do, and then looks at what everybody holds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Protocol

from peersd.testing.simulator import checks
from peersd.testing.simulator.admitted import Admitted
from peersd.testing.simulator.copies import digest_of
from peersd.testing.simulator.device import Process, SimulatedDevice
from peersd.testing.simulator.entries import Holding, acts_of, holdings_of, is_data
from peersd.testing.simulator.network import Network
from peersd.testing.simulator.replica import Replica
from peersd.testing.simulator.schedule import Schedule
from peersd_protocol.entries import Act
from peersd_protocol.membership import evaluate

POLL_MS: Final = 250
QUIET_MS: Final = 2_000
"""After all are equal, nobody may have anything left to say for so long."""

MEND_MS: Final = 30_000
"""By when after that links are settled, and beacons, which wait BEACON_INTERVAL_MS at each device, show all to be equal."""

CROWDED_MS: Final = 180_000
"""How long devices that may have too few links for all their groups are waited for before they get more."""


class Joiners(Protocol):
    """Users with tickets."""

    @property
    def are_joining(self) -> bool:
        """Whether anybody has a ticket to be redeemed."""
        ...

    def try_again(self, device: SimulatedDevice, group: bytes, members: Collection[bytes]) -> bool:
        """A user who was not let in, though some member has admitted it, tries again; False if nobody of the members is named.

        Then it cannot come in: whoever invited it has left, say, and named nobody else.
        """
        ...


Placed = tuple[SimulatedDevice, Replica]


def running(device: SimulatedDevice) -> Process:
    """Its process; at the end all run."""
    assert device.process is not None
    return device.process


class Ending:
    """What is waited for and looked at.

    Args:
        schedule: of the simulation.
        network: of the devices.
        devices: all of them, running.
        joiners: those who have tickets.
        acknowledged: what clients were told of, by group.
    """

    def __init__(
        self,
        schedule: Schedule,
        network: Network,
        devices: Sequence[SimulatedDevice],
        joiners: Joiners,
        acknowledged: Mapping[bytes, Sequence[checks.Acknowledged]],
    ) -> None:
        self._schedule = schedule
        self._network = network
        self._devices = devices
        self._joiners = joiners
        self._acknowledged = acknowledged

    def run(self, heal_ms: int) -> None:
        """Waits, and checks.

        Raises:
            SimulationFailed: something that must hold did not.
        """
        self._await_equal(heal_ms)
        self._await(self._wrong_beacons)
        self._await(self._wrong_links)
        self._check_lanes()
        rows = sum(self._check_group(group) for group in self._acknowledged)
        entries = sum(map(len, self._acknowledged.values()))
        self._schedule.note("", f"equal: {rows} rows, {entries} acknowledged entries")

    # --- Who is who -------------------------------------------------------------------------------------------------------------

    def _placed(self, group: bytes) -> list[Placed]:
        """The devices that have a file of a group."""
        found: list[Placed] = []
        for device in self._devices:
            replica = running(device).replicas.get(group)
            if replica is not None:
                found.append((device, replica))
        return found

    def _claimants(self, group: bytes) -> list[Placed]:
        """Of these, those that are members' devices by what they know."""
        return [(device, replica) for device, replica in self._placed(group) if replica.is_members]

    def _members(self, group: bytes) -> frozenset[bytes]:
        """The members' devices by all acts that any device has."""
        acts: dict[bytes, Act] = {}
        for _, replica in self._placed(group):
            acts.update((act.hash, act) for act in acts_of(replica.store))
        return evaluate(group, acts.values()).member_devices

    # --- Waiting ----------------------------------------------------------------------------------------------------------------

    def _await_equal(self, heal_ms: int) -> None:
        began_ms = self._schedule.now_ms
        while True:
            waiting = self._waiting()
            if not waiting:
                sent = self._messages_sent()
                self._schedule.run_until(self._schedule.now_ms + QUIET_MS)
                waiting = self._waiting() or ["devices that are equal still talk"] * (sent != self._messages_sent())
                if not waiting:
                    break
            passed_ms = self._schedule.now_ms - began_ms
            if passed_ms >= heal_ms:
                raise self._schedule.fail(f"not equal {heal_ms} ms after healing: {'; '.join(waiting)}")
            if passed_ms >= CROWDED_MS and self._network.is_mesh and self._is_crowded() and not self._network.has_grown:
                self._schedule.note("", "links are too few for all groups: all get more")
                self._network.grow(len(self._devices))
                for device in self._devices:
                    running(device).links.wake()
            self._schedule.run_until(self._schedule.now_ms + POLL_MS)
        self._schedule.note("", "all members know each other to be equal")

    def _is_crowded(self) -> bool:
        """Whether the rings of some device's groups have more neighbours than it may have links."""
        links_max = self._network.links_max
        return any(running(device).links.ring_neighbours() > links_max for device in self._devices)

    def _messages_sent(self) -> list[int]:
        return [replica.messages_sent for group in self._acknowledged for _, replica in self._placed(group)]

    def _waiting(self) -> list[str]:
        """What is still to come, in words."""
        waiting = ["somebody joins"] if self._joiners.are_joining else []
        for group in self._acknowledged:
            waiting += self._unsettled(group)
        return waiting or [text for group in self._acknowledged for text in self._disputed(group)]

    def _unsettled(self, group: bytes) -> list[str]:
        placed, claimants = self._placed(group), self._claimants(group)
        busy = [f"{device.name} is busy with {replica.name}" for device, replica in placed if not replica.is_idle]
        if busy:
            return busy
        ids = {device.device_id for device, _ in claimants}
        waiting: list[str] = []
        for device, replica in claimants:
            believed = replica.state.member_devices & ids
            unequal = replica.unequal(believed)
            if unequal:
                waiting.append(f"{device.name} waits for {' '.join(unequal)} in {replica.name}")
            for other, its_replica in claimants:
                is_mutual = other.device_id in believed and device.device_id in its_replica.state.member_devices
                if is_mutual and device.name < other.name and replica.vector() != its_replica.vector():
                    waiting.append(f"{device.name} and {other.name} differ in {replica.name}")
        return waiting

    def _disputed(self, group: bytes) -> list[str]:
        """Where devices do not agree on who is a member, though nothing is under way."""
        claimants = self._claimants(group)
        views = {replica.state.member_devices for _, replica in claimants}
        ids = frozenset(device.device_id for device, _ in claimants)
        if not claimants or views == {ids}:
            return []
        members, waiting = self._members(group), list[str]()
        for device, replica in claimants:
            if device.device_id not in members and self._may_learn(device, group):
                waiting.append(f"{device.name} does not know that it is no member's device in {replica.name}")
            if device.device_id in members and replica.state.member_devices != members:
                waiting.append(f"{device.name} is wrong about the members of {replica.name}")
        for device in self._devices:
            if device.device_id not in members - ids:
                continue
            if group in device.files or self._joiners.try_again(device, group, members):
                waiting.append(f"{device.name} does not know that it is a member's device")
        return waiting

    def _may_learn(self, device: SimulatedDevice, group: bytes) -> bool:
        """Whether a device that is no member's can meet one that knows why."""
        links = running(device).links
        has_room = not self._network.is_mesh or len(links.linked()) < self._network.links_max
        for other, replica in self._placed(group):
            is_reached = links.to_device(other.device_id) or (has_room and other.device_id in device.notes.addresses)
            if is_reached and replica.state.farewell(device.device_id):
                return True
        return False

    def _await(self, find_wrong: Callable[[], list[str]]) -> None:
        """Waits until nothing is wrong any more that time mends."""
        end_ms = self._schedule.now_ms + MEND_MS
        while wrong := find_wrong():
            if self._schedule.now_ms >= end_ms:
                raise self._schedule.fail(f"{MEND_MS} ms after all were equal: {'; '.join(wrong)}")
            self._schedule.run_until(self._schedule.now_ms + POLL_MS)

    def _wrong_beacons(self) -> list[str]:
        wrong: list[str] = []
        for group in self._acknowledged:
            claimants = self._claimants(group)
            for device, replica in claimants:
                believed = replica.state.member_devices - {device.device_id}
                others = {
                    other.device_id
                    for other, its_replica in claimants
                    if other.device_id in believed and device.device_id in its_replica.state.member_devices
                }
                digest = digest_of(group, replica.vector())
                if others and replica.copies.wrong_about({*others, device.device_id}, digest):
                    wrong.append(f"{device.name} has old beacons of {replica.name}")
        return wrong

    # --- Checks -----------------------------------------------------------------------------------------------------------------

    def _must_not(self, where: str, wrong: str | None) -> None:
        if wrong is not None:
            raise self._schedule.fail(f"{where}: {wrong}")

    def _wrong_links(self) -> list[str]:
        """Where the two sides of a pair do not agree on their link."""
        wrong: list[str] = []
        for device in self._devices:
            for end in running(device).links.linked():
                remote = self._network.find(self._network.url_of(end.remote_device))
                other = running(remote).links.to_device(device.device_id)
                if other is None or other.handshake_hash != end.handshake_hash:
                    wrong.append(f"{remote.name} has another link to {device.name}, or none")
        return wrong

    def _check_lanes(self) -> None:
        """No channel outlives a membership, and nothing waits for what will never come."""
        for device in self._devices:
            for end, sharing in running(device).links.sharings.items():
                self._must_not(device.name, sharing.check())
                if sharing.bytes_parked:
                    self._must_not(device.name, f"{sharing.bytes_parked} bytes from {end.remote} are parked for good")

    def _check_group(self, group: bytes) -> int:
        """Looks at all files of a group; returns the number of its rows."""
        placed = self._placed(group)
        holdings = {device.name: holdings_of(replica.store) for device, replica in placed}
        everything: dict[bytes, Holding] = {hash_: held for held_by in holdings.values() for hash_, held in held_by.items()}
        data = {hash_: held.header for hash_, held in everything.items() if is_data(held.header)}
        acts = {act.hash: act for _, replica in placed for act in acts_of(replica.store)}
        all_rules = Admitted(group, acts.values(), data)
        members = [(device, replica) for device, replica in placed if device.device_id in all_rules.state.member_devices]
        member_rules: Admitted | None = None
        first: checks.Replicated | None = None
        for device, replica in placed:
            where, held = f"{device.name} {replica.name}", holdings[device.name]
            own = [entry for entry in self._acknowledged[group] if entry.device == device.name]
            self._must_not(where, checks.check_acknowledged(own, held))
            self._must_not(where, checks.check_state(replica.store))
            self._must_not(where, checks.check_rows(replica.store, held))
            self._must_not(where, checks.check_markers(device.files[group], held, self._group_names()))
            self._must_not(where, checks.check_file(device.files[group]))
            if device.device_id not in all_rules.state.member_devices:
                self._must_not(where, checks.check_removed(device.device_id, held, all_rules))
            else:
                replicated = checks.Replicated.of(replica.store)
                first = first or replicated
                member_rules = member_rules or Admitted(group, acts_of(replica.store), data)
                self._must_not(where, first.difference(replicated))
                self._must_not(where, checks.check_counting(held, member_rules, everything))
                self._must_not(where, checks.check_bodies(held, [holdings[other.name] for other, _ in members]))
            replica.store, wrong = checks.check_rebuilt(replica.store, device.files[group], device.context)
            self._must_not(where, wrong)
        if members:
            device, replica = members[0]
            random = self._schedule.random
            wrong = checks.check_from_scratch(replica.store, device.context, device.folder, random)
            self._must_not(f"{device.name} {replica.name}", wrong)
        return sum(map(len, first.rows.values())) if first else 0

    def _group_names(self) -> list[str]:
        return sorted({replica.name for group in self._acknowledged for _, replica in self._placed(group)})
