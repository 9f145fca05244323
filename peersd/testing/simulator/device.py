"""A device: what it keeps on disk, and the process that runs until it crashes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Final

from peersd.store.store import Commit, StoreContext
from peersd.store.uuid7 import Uuid7
from peersd.testing.simulator.disk import DeviceNotes, DiskFile
from peersd.testing.simulator.founding import Person
from peersd.testing.simulator.joining import JOINED, Done, Joining
from peersd.testing.simulator.links import Links
from peersd.testing.simulator.network import Network
from peersd.testing.simulator.parts import Parts, Peer
from peersd.testing.simulator.replica import Replica
from peersd.testing.simulator.schedule import Schedule
from peersd.testing.simulator.wire import WireEnd
from peersd_protocol.devicekeys import DeviceKeys
from peersd_protocol.entries import EPOCH_BYTES
from peersd_protocol.lanes import Standing
from peersd_protocol.link_standings import Known
from peersd_protocol.tickets import Ticket

Told = Callable[["SimulatedDevice", Replica, Commit], None]
"""Gets what a device's store has committed for somebody who was told so."""


SEALED_EVERY: Final = 16
"""Entries of a branch from one sealing to the next: logs are short here."""


class SimulatedDevice:
    """One device of one user.

    Args:
        schedule: of the simulation.
        network: whom it can reach.
        person: whose device it is.
        folder: for its files.
        told: called with what was acknowledged.
        parts: what it is made of.

    Attributes:
        files: by group.
        notes: what it keeps beside them.
        process: what runs, or None between a crash and a restart.
        peer: what answers at its address, if anything does: the process, or code of another kind.
        disk, clock, entropy: its parts.
    """

    def __init__(
        self, schedule: Schedule, network: Network, person: Person, folder: Path, told: Told, parts: Parts | None = None
    ) -> None:
        parts = parts or Parts()
        self._schedule = schedule
        self.network = network
        self.person = person
        self.name = person.name
        self.device_id = person.keys.device
        self.url = f"ws://{person.name}.example"
        self.folder = folder
        self.told = told
        self.disk = parts.disk(self.name, folder)
        self.clock = parts.clock(self.name, lambda: schedule.now_ms, schedule.stream("clock", self.name))
        self._make_peer = parts.peers.get(self.name)
        self.files: dict[bytes, DiskFile] = {}
        self.notes = DeviceNotes()
        self.process: Process | None = None
        self.peer: Peer | None = None
        entropy = self.entropy = parts.entropy(self.name, schedule.stream("entropy", self.name))
        self.context = StoreContext(
            person.keys.signing,
            self.wall_ms,
            entropy,
            b"machine of " + person.name.encode(),
            Uuid7(self.wall_ms, entropy),
            vfs=self.disk.vfs,
            sealed_every=SEALED_EVERY,
        )

    def wall_ms(self) -> int:
        """The device's own idea of the time, milliseconds since 1970."""
        return self.clock()

    def add_file(self, name: str, group: bytes) -> DiskFile:
        """A place for a group's store."""
        file = self.files[group] = self.disk.file(name, group)
        return file

    @property
    def is_honest(self) -> bool:
        """Whether the product's code runs here."""
        return self._make_peer is None

    def start(self) -> None:
        """Starts the device's process on what is on its disk, or what runs here in its place."""
        assert self.peer is None
        self._schedule.note(self.name, "starts")
        if self._make_peer is not None:
            self.peer = self._make_peer(self._schedule, self)
        else:
            self.peer = self.process = Process(self._schedule, self)

    def crash(self, *, is_power_lost: bool) -> None:
        """Ends the process without a word; with the machine, nobody else says one either."""
        process = self.process
        assert process is not None
        self._schedule.note(self.name, "loses its power" if is_power_lost else "crashes")
        self.peer = self.process = None
        process.die(is_power_lost=is_power_lost)
        random = self._schedule.stream("crash", self.name, self._schedule.next_number("crash", self.name))
        stores = [(file, process.replicas[group].store) for group, file in self.files.items()]
        self.disk.crash(stores, random, is_power_lost=is_power_lost)
        for group, file in list(self.files.items()):
            if not file.is_registered:  # nobody knows of a join that was cut off but who may try again
                file.delete()
                del self.files[group]


class Process:
    """A running device: its replicas and links.

    Attributes:
        replicas: by group.
        links: to other devices.
        random: decides how long things take.
        is_alive: until it is killed or closed.
        before_telling: called between the next commit and whoever is to be told of it; it ends the process.
    """

    def __init__(self, schedule: Schedule, device: SimulatedDevice) -> None:
        self._schedule = schedule
        self.device = device
        self.name = device.name
        self.user = device.person.user
        self.is_alive = True
        self.random = schedule.stream("process", self.name, schedule.next_number("process", self.name))
        self.before_telling: Callable[[], None] | None = None
        self.boot_id = device.entropy(EPOCH_BYTES)
        self._joins: dict[bytes, Joining] = {}
        self.replicas: dict[bytes, Replica] = {}
        self.links = Links(schedule, device.network, self)
        for file in device.files.values():
            replica = self.replicas[file.group] = Replica(schedule, self, file, file.open(device.context))
            device.network.frames.note_members(replica.name, replica.state.member_devices)
        self.links.wake()

    @property
    def device_id(self) -> bytes:
        """The device's id."""
        return self.device.device_id

    @property
    def keys(self) -> DeviceKeys:
        """The device's keys."""
        return self.device.person.keys

    @property
    def url(self) -> str:
        """Where it can be reached."""
        return self.device.url

    @property
    def notes(self) -> DeviceNotes:
        """What is kept beside the stores."""
        return self.device.notes

    def wall_ms(self) -> int:
        """The wall clock."""
        return self.device.wall_ms()

    def later(self, wait_ms: int, event: Callable[[], None]) -> None:
        """Runs an event after some ms, if this process still lives then."""
        self._schedule.at(self._schedule.now_ms + wait_ms, lambda: event() if self.is_alive else None)

    def serve(self, remote: SimulatedDevice, wire: WireEnd) -> None:
        """See Peer."""
        self.links.serve(remote, wire)

    # --- Groups -----------------------------------------------------------------------------------------------------------------

    @property
    def registered(self) -> list[Replica]:
        """The groups that clients see: not those whose joining is under way."""
        return [replica for replica in self.replicas.values() if replica.file.is_registered]

    def make_replica(self, name: str, group: bytes, *, is_registered: bool) -> Replica:
        """Makes the file of a group that is joined, or that another device of the user has joined."""
        file = self.device.add_file(name, group)
        file.is_registered = is_registered
        self._schedule.note(self.name, f"{name} has a file")
        replica = self.replicas[group] = Replica(self._schedule, self, file, file.create(self.device.context))
        self._wake()
        return replica

    def discard(self, group: bytes) -> None:
        """Deletes the file of a group that was not joined after all."""
        replica = self.replicas.pop(group)
        replica.is_discarded = True
        replica.stop_reading()
        replica.store.close()
        self.device.files.pop(group).delete()
        self.notes.beacons.pop(group, None)
        self._wake()

    def acts_changed(self, replica: Replica) -> None:
        """A group's state may have changed. Whoever is no member any more gets nothing from here on."""
        self.device.network.frames.note_members(replica.name, replica.state.member_devices)
        replica.drop_outsiders()
        replica.copies.set_members()
        if replica.group in self._joins:
            self._joins[replica.group].look()
        for sharing in list(self.links.sharings.values()):
            sharing.members_changed(replica.group)
        self._wake()

    def _wake(self) -> None:
        for sharing in list(self.links.sharings.values()):
            sharing.wake()
        self.links.wake()

    def known(self, replica: Replica, device: bytes, *, has_asked: bool = False) -> Known:
        """What a remote device is in a group, as seen from here; `has_asked` if it opened the group on its link."""
        state, own = replica.state, replica.state.members.get(self.user)
        return Known(
            is_own=replica.is_members,
            is_remote=device in state.member_devices,
            was_remote=device in state.former_devices,
            is_empty=not state.members,
            is_same_user=own is not None and device in own.devices,
            is_untold=replica.group in self.notes.untold,
            has_asked=has_asked,
        )

    def asks_back(self, replica: Replica, device: bytes) -> bool:
        """Whether to ask back a remote device that opens a group in which this one is no member's."""
        return self.known(replica, device, has_asked=True).standing is Standing.LEAVING

    def note_not_member(self, replica: Replica, device: bytes) -> None:
        """A remote device closed a channel because this one is no member's: it has heard of a leave."""
        if self.known(replica, device).standing is Standing.LEAVING and replica.group in self.notes.untold:
            self._schedule.note(self.name, f"{replica.name} has told of its leave")
            self.notes.untold.discard(replica.group)
            self._wake()

    def members_by_group(self) -> Mapping[bytes, Mapping[bytes, Sequence[bytes]]]:
        """Per group that this device wants links for, the live devices of each member."""
        found: dict[bytes, Mapping[bytes, Sequence[bytes]]] = {}
        for group, replica in self.replicas.items():
            state = replica.state
            members = {user: member.devices for user, member in state.members.items() if member.role}
            if group in self.notes.untold:
                members[self.user] = (self.device_id,)  # until somebody has heard of the leave
            if self.user in members:
                found[group] = members
        return found

    def unannounced(self) -> Set[bytes]:
        """The devices of which no beacon is here in some group that this device wants links for."""
        shared = [self.replicas[group] for group in self.members_by_group()]
        return {device for replica in shared for device in replica.state.member_devices - replica.copies.book.devices}

    def addresses_learned(self, device: bytes, urls: Sequence[str]) -> None:
        """A beacon stated where a device can be reached."""
        if device != self.device_id and urls and self.notes.addresses.get(device) != urls[0]:
            self.notes.addresses[device] = urls[0]
            self.links.wake()

    def acknowledge(self, replica: Replica, commit: Commit | None) -> None:
        """Tells the links of what was written here, and whoever asked for it that it is durable."""
        replica.tell(commit)
        if commit is not None:
            self.device.told(self.device, replica, commit)

    def acknowledging(self, replica: Replica) -> Callable[[Commit | None], None]:
        """What follows a call of the store that writes."""
        return lambda commit: self.acknowledge(replica, commit)

    # --- Joining ----------------------------------------------------------------------------------------------------------------

    def join(self, ticket: Ticket, done: Done) -> bool:
        """Redeems a ticket; False if another one of the same group is being redeemed here."""
        if ticket.group_id in self._joins:
            return False

        def finished(outcome: str | None) -> None:
            del self._joins[ticket.group_id]
            if outcome == JOINED:
                self.device.files[ticket.group_id].is_registered = True
            done(outcome)

        joining = self._joins[ticket.group_id] = Joining(self._schedule, self, ticket, finished)
        joining.begin()
        return True

    def is_joining(self, group: bytes) -> bool:
        """Whether a ticket of that group is being redeemed here."""
        return group in self._joins

    # --- The end ----------------------------------------------------------------------------------------------------------------

    def die(self, *, is_power_lost: bool) -> None:
        """Is killed."""
        self.is_alive = False
        for replica in self.replicas.values():
            replica.stop_reading()
        for end in list(self.links.ends):
            end.abandon(is_power_lost=is_power_lost)
        for end in self.links.linked():
            self.device.network.note_link(self.name, end.remote, -1)

    def close(self) -> None:
        """Ends the process in good order."""
        self.is_alive = False
        for replica in self.replicas.values():
            replica.stop_reading()
            replica.store.close()
