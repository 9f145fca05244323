"""The end of a simulation: it runs until all who should know the same do, and then looks at what everybody holds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Final, Protocol

from peersd.testing.checkers import Checker
from peersd.testing.simulator.beliefs import Beliefs, MayMeet, Placed
from peersd.testing.simulator.checks import Acknowledged
from peersd.testing.simulator.copies import digest_of
from peersd.testing.simulator.device import Process, SimulatedDevice
from peersd.testing.simulator.entries import acts_of
from peersd.testing.simulator.network import Network
from peersd.testing.simulator.replica import Replica
from peersd.testing.simulator.schedule import Schedule
from peersd.testing.simulator.statements import marker_of
from peersd.testing.simulator.verdict import Kept, Verdict
from peersd_protocol.entries import Act
from peersd_protocol.membership import evaluate

POLL_MS: Final = 250
QUIET_MS: Final = 2_000
"""After all are equal, nobody may have anything left to say for so long."""

SETTLED_MS_MAX: Final = 600_000
"""By when links that were lost unnoticed are noticed, and whoever has a ticket is let in or gives up."""

MEND_MS: Final = 30_000
"""By when after that links are settled, and beacons, which wait BEACON_INTERVAL_MS at each device, show all to be equal."""

ROUNDS_MAX: Final = 5
"""How often all is awaited: links come and go in a mesh, and may bring together in the meantime who had not met."""


class Joiners(Protocol):
    """Users with tickets.

    Attributes:
        ended_ms: when the last one was let in, or gave up.
    """

    ended_ms: int

    @property
    def are_joining(self) -> bool:
        """Whether anybody has a ticket to be redeemed."""
        ...

    def try_again(self, device: SimulatedDevice, group: bytes, members: Collection[bytes]) -> bool:
        """A user who was not let in, though some member has admitted it, tries again; False if none of the members is named.

        Then it cannot come in: whoever invited it has left, say, and named nobody else.
        """
        ...


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
        acknowledged: Mapping[bytes, Sequence[Acknowledged]],
    ) -> None:
        self._schedule = schedule
        self._network = network
        self._devices = devices
        self._joiners = joiners
        self._acknowledged = acknowledged

    def run(self, converge_ms: int) -> None:
        """Waits, and checks.

        Raises:
            SimulationFailed: something that must hold did not.
        """
        awaited = {
            Checker.BEACONS: self._wrong_beacons,
            Checker.ONE_LINK: self._wrong_links,
            Checker.CHANNELS: self._asking_channels,
        }
        for _ in range(ROUNDS_MAX):
            self._await_equal(converge_ms)
            for checker, find_wrong in awaited.items():
                self._await(checker, find_wrong)
            if not self._waiting() and not any(find_wrong() for find_wrong in awaited.values()):
                break
        self._check_lanes()
        rows = sum(self._judge(group) for group in self._acknowledged)
        entries = sum(map(len, self._acknowledged.values()))
        marked = self._network.frames.marked
        self._schedule.note("", f"equal: {rows} rows, {entries} acknowledged entries, {marked} marked messages")

    def _judge(self, group: bytes) -> int:
        """Looks at all files of a group; returns the number of rows that its members have."""
        placed, beliefs = self._placed(group), self._beliefs(group)
        if not placed:
            return 0
        files = {
            device.name: Kept(device.name, device.device_id, replica.file, replica.store, device.context)
            for device, replica in placed
        }
        parts = [[files[device.name] for device, _ in part] for part in beliefs.parts()]
        if len(parts) > 1:
            told = " | ".join(" ".join(one.device for one in part) for part in parts)
            self._schedule.note("", f"{parts[0][0].file.name} is in parts: {told}")
        claimants = {device.name for device, _ in beliefs.claimants}
        groups = [replica.name for other in self._acknowledged for _, replica in self._placed(other)[:1]]
        verdict = Verdict(
            list(files.values()),
            parts=parts,
            outsiders=[one for name, one in files.items() if name not in claimants],
            markers={name: [marker_of(name)] for name in groups},
            acknowledged=self._acknowledged[group],
            random=self._schedule.stream("order", placed[0][1].name),
            folder=placed[0][0].folder,
        )
        try:
            for finding in verdict.findings():
                raise self._schedule.fail(finding.checker, finding.text)
        finally:
            for device, replica in placed:
                replica.store = files[device.name].store
        return verdict.rows

    # --- Who is who -------------------------------------------------------------------------------------------------------------

    def _placed(self, group: bytes) -> list[Placed]:
        """The devices that have a file of a group."""
        found: list[Placed] = []
        for device in self._devices:
            replica = running(device).replicas.get(group)
            if replica is not None:
                found.append((device, replica))
        return found

    def _beliefs(self, group: bytes) -> Beliefs:
        """Who takes whom for a member."""
        return Beliefs(self._placed(group), self._meetings())

    def _meetings(self) -> MayMeet:
        """Who may meet: devices that are linked or where one may dial the other, and those whom such ones bring together.

        Members of a group tell each other where all members are. Who never met any of them, nor was told, is found by nobody.
        """
        if not self._network.is_mesh:
            return lambda _one, _other: True
        met = {frozenset((one.name, other.name)) for one, other in combinations(self._devices, 2) if self._know(one, other)}

        def may_meet(one: SimulatedDevice, other: SimulatedDevice) -> bool:
            return frozenset((one.name, other.name)) in met

        while True:
            before = len(met)
            for group in self._acknowledged:
                for part in Beliefs(self._placed(group), may_meet).parts():
                    met.update(frozenset((one.name, other.name)) for (one, _), (other, _) in combinations(part, 2))
            if len(met) == before:
                return may_meet

    def _know(self, one: SimulatedDevice, other: SimulatedDevice) -> bool:
        return self._reaches(one, other) or self._reaches(other, one)

    def _reaches(self, near: SimulatedDevice, far: SimulatedDevice) -> bool:
        """Whether a device is linked to another one, or knows where it is and takes it for a member of a group of its own.

        Others are not dialled, such as who was the only one to be met there and has been removed since.
        """
        process = running(near)
        if process.links.to_device(far.device_id) is not None:
            return True
        groups = process.members_by_group().values()
        is_wanted = any(far.device_id in devices for members in groups for devices in members.values())
        return is_wanted and far.device_id in near.notes.addresses

    def _members(self, group: bytes) -> frozenset[bytes]:
        """The members' devices by all acts that any device has."""
        acts: dict[bytes, Act] = {}
        for _, replica in self._placed(group):
            acts.update((act.hash, act) for act in acts_of(replica.store))
        return evaluate(group, acts.values()).member_devices

    # --- Waiting ----------------------------------------------------------------------------------------------------------------

    def _await_equal(self, converge_ms: int) -> None:
        healed_ms = self._schedule.now_ms
        while True:
            waiting, checker = self._waiting(), Checker.CONVERGED
            if not waiting:
                sent = self._messages_sent()
                self._schedule.run_until(self._schedule.now_ms + QUIET_MS)
                waiting = self._waiting()
                if not waiting and sent == self._messages_sent():
                    break
                checker = Checker.CONVERGED if waiting else Checker.QUIET
                waiting = waiting or ["devices that are equal still talk"]
            passed_ms, settled_ms = self._schedule.now_ms - healed_ms, self._settled_ms(healed_ms)
            is_settled = not self._joiners.are_joining and not self._network.has_dead_links
            is_late = is_settled and self._schedule.now_ms - settled_ms >= converge_ms and not self._grow()
            if is_late or passed_ms >= SETTLED_MS_MAX:
                since = f"{self._schedule.now_ms - settled_ms} ms after all was well again, {passed_ms} ms after healing"
                raise self._schedule.fail(checker, f"not equal {since}: {'; '.join(waiting)}")
            self._schedule.run_until(self._schedule.now_ms + POLL_MS)
        took_ms = self._schedule.now_ms - self._settled_ms(healed_ms)
        self._schedule.note("", f"all members know each other to be equal, {took_ms} ms after all was well again")

    def _settled_ms(self, healed_ms: int) -> int:
        """Since when nothing but the product's own time is needed."""
        return max(healed_ms, self._network.noticed_ms, self._network.grown_ms, self._joiners.ended_ms)

    def _grow(self) -> bool:
        """Devices that may have too few links for the rings of all their groups get more, once; False if they have enough.

        With too few links, groups fall apart into pieces that need not meet: who has none at all in a group is let in as a guest.
        """
        if not self._network.is_mesh or self._network.grown_ms or not self._is_crowded():
            return False
        self._schedule.note("", "links are too few for all groups: all get more")
        self._network.grow(len(self._devices))
        for device in self._devices:
            running(device).links.wake()
        return True

    def _is_crowded(self) -> bool:
        """Whether the rings of some device's groups have more neighbours than it may have links."""
        return any(running(device).links.ring_neighbours() > self._network.links_max for device in self._devices)

    def _messages_sent(self) -> list[int]:
        """Messages of each device in each group."""
        return [replica.messages_sent for group in self._acknowledged for _, replica in self._placed(group)]

    def _waiting(self) -> list[str]:
        """What is still to come, in words."""
        waiting = ["somebody joins"] if self._joiners.are_joining else []
        for group in self._acknowledged:
            waiting += self._unsettled(group)
        return waiting or [text for group in self._acknowledged for text in self._disputed(group)]

    def _unsettled(self, group: bytes) -> list[str]:
        placed, beliefs = self._placed(group), self._beliefs(group)
        busy = [f"{device.name} is busy with {replica.name}" for device, replica in placed if not replica.is_idle]
        if busy:
            return busy
        waiting: list[str] = []
        for device, replica in beliefs.claimants:
            peers = beliefs.peers(device)
            unequal = replica.unequal({other.device_id for other, _ in peers})
            if unequal:
                waiting.append(f"{device.name} waits for {' '.join(unequal)} in {replica.name}")
            for other, its_replica in peers:
                if device.name < other.name and replica.vector() != its_replica.vector():
                    waiting.append(f"{device.name} and {other.name} differ in {replica.name}")
        return waiting

    def _disputed(self, group: bytes) -> list[str]:
        """Where devices do not agree on who is a member, though nothing is under way, and they may meet."""
        beliefs = self._beliefs(group)
        if beliefs.are_one:
            return []
        waiting = beliefs.unheard(self._may_ask)
        members = self._members(group)
        for device, replica in beliefs.claimants:
            is_wrong = device.device_id in members and replica.state.member_devices != members
            if is_wrong and self._may_hear(device, replica):
                waiting.append(f"{device.name} is wrong about the members of {replica.name}")
        ids = {device.device_id for device, _ in beliefs.claimants}
        outside = {device.name for device, _ in self._placed(group) if device.device_id not in ids}
        for device in self._devices:
            if device.device_id not in members - ids:
                continue
            is_outside = device.name in outside
            # Who does not know that it is a member's lets nobody in.
            admits = members & ids
            may_hear = beliefs.may_tell(device, self._reaches) if is_outside else self._joiners.try_again(device, group, admits)
            if may_hear:
                waiting.append(f"{device.name} does not know that it is a member's device")
        return waiting

    def _may_hear(self, device: SimulatedDevice, replica: Replica) -> bool:
        """Whether somebody has acts that a device lacks, and tells it, or somebody who tells it.

        Of who tells and who hears one takes the other for a member's, and they are linked, or it dials the other: that does who
        takes itself for a member. But who knows that it is none asks nobody: those alone tell it who take it for one.
        """
        may_meet, known = self._meetings(), replica.state.standing | replica.state.void
        placed, tellers = self._placed(replica.group), [(device, replica)]

        def may_ask(one: Placed, other: Placed) -> bool:
            is_linked = running(one[0]).links.to_device(other[0].device_id) is not None
            return other[0].device_id in one[1].state.member_devices and (one[1].is_members or is_linked)

        def may_tell(teller: Placed, hearer: Placed) -> bool:
            is_met = may_meet(teller[0], hearer[0]) and (may_ask(teller, hearer) or may_ask(hearer, teller))
            return is_met and (hearer[1].is_members or hearer[0].device_id in teller[1].state.member_devices)

        for hearer in tellers:  # which grows
            tellers += [other for other in placed if other not in tellers and may_tell(other, hearer)]
        return any(not theirs.state.standing | theirs.state.void <= known for _, theirs in tellers)

    def _may_ask(self, device: SimulatedDevice, other: SimulatedDevice) -> bool:
        """Whether a device has a link to another one, or could have: who has as many as it may may refuse who is no member."""
        links = running(device).links
        have_room = not self._network.is_mesh or all(
            len(running(one).links.linked()) < self._network.links_max for one in (device, other)
        )
        return links.to_device(other.device_id) is not None or (have_room and other.device_id in device.notes.addresses)

    def _await(self, checker: Checker, find_wrong: Callable[[], list[str]]) -> None:
        """Waits until nothing is wrong any more that time mends."""
        end_ms = self._schedule.now_ms + MEND_MS
        while wrong := find_wrong():
            if self._network.has_dead_links or (self._schedule.now_ms >= end_ms and self._grow()):
                end_ms = self._schedule.now_ms + MEND_MS
            if self._schedule.now_ms >= end_ms:
                raise self._schedule.fail(checker, f"{MEND_MS} ms after all were equal: {'; '.join(wrong)}")
            self._schedule.run_until(self._schedule.now_ms + POLL_MS)

    def _wrong_beacons(self) -> list[str]:
        wrong: list[str] = []
        for group in self._acknowledged:
            beliefs = self._beliefs(group)
            for device, replica in beliefs.claimants:
                peers = {other.device_id for other, _ in beliefs.peers(device)}
                digest = digest_of(group, replica.vector())
                if peers and replica.copies.wrong_about({*peers, device.device_id}, digest):
                    wrong.append(f"{device.name} has old beacons of {replica.name}")
        return wrong

    def _wrong_links(self) -> list[str]:
        """Where the two sides of a pair do not agree on their link."""
        wrong: list[str] = []
        for device in self._devices:
            for end in running(device).links.linked():
                remote = self._network.find(self._network.url_of(end.remote_device))
                other = running(remote).links.to_device(device.device_id)
                if other is None or other.handshake_hash != end.handshake_hash:
                    wrong.append(f"{remote.name} has another link to {device.name}, or none")
        return wrong or ["a link is dead, and nobody has noticed"] * self._network.has_dead_links

    def _asking_channels(self) -> list[str]:
        """The channels on which who is no member asks one that has opened the group to it (SPEC: O-6)."""
        return [text for text, is_asking in self._channels_without_membership() if is_asking]

    def _check_lanes(self) -> None:
        """No channel outlives a membership, and nothing waits for what will never come."""
        for text, _ in self._channels_without_membership():
            raise self._schedule.fail(Checker.CHANNELS, text)
        for device in self._devices:
            for end, sharing in running(device).links.sharings.items():
                if sharing.bytes_parked:
                    text = f"{sharing.bytes_parked} bytes from {end.remote} are parked for good"
                    raise self._schedule.fail(Checker.QUEUE_BOUNDS, f"{device.name}: {text}")

    def _channels_without_membership(self) -> Iterable[tuple[str, bool]]:
        for device in self._devices:
            for sharing in running(device).links.sharings.values():
                for text, is_asking in sharing.channels_without_membership():
                    yield f"{device.name}: {text}", is_asking
