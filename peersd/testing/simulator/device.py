"""A device: what it keeps on disk, and the process that runs until it crashes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

from peersd.store.store import StoreContext
from peersd.store.uuid7 import Uuid7
from peersd.testing.simulator.disk import DiskFile
from peersd.testing.simulator.founding import Person
from peersd.testing.simulator.link_end import LinkEnd, LinkEvents
from peersd.testing.simulator.replica import Replica
from peersd.testing.simulator.schedule import FIRST_WALL_MS, Schedule
from peersd.testing.simulator.sharing import Sharing
from peersd.testing.simulator.wire import WireEnd
from peersd_protocol.entries import EPOCH_BYTES
from peersd_protocol.handshake import Handshake, Role

CLOCK_STEP_MS = 250
"""Clocks are coarse and differ by whole steps, so that devices often stamp alike and the tie-break has work."""

CLOCK_SKEW_STEPS_MAX = 8


class SimulatedDevice:
    """One device of one user.

    Args:
        schedule: of the simulation.
        person: whose device it is.
        folder: for its files.

    Attributes:
        process: what runs, or None between a crash and a restart.
    """

    def __init__(self, schedule: Schedule, person: Person, folder: Path) -> None:
        self._schedule = schedule
        self.person = person
        self.name = person.name
        self.folder = folder
        self.files: dict[str, DiskFile] = {}
        self.process: Process | None = None
        self.skew_ms = CLOCK_STEP_MS * schedule.random.randint(-CLOCK_SKEW_STEPS_MAX, CLOCK_SKEW_STEPS_MAX)
        # Its own source, so that what one device draws does not depend on how often another one does.
        entropy = Random(schedule.random.getrandbits(64)).randbytes
        self.context = StoreContext(
            person.keys.signing, self.wall_ms, entropy, b"machine of " + person.name.encode(), Uuid7(self.wall_ms, entropy)
        )
        self.entropy = entropy

    def wall_ms(self) -> int:
        """The device's own idea of the time, milliseconds since 1970."""
        return FIRST_WALL_MS + self._schedule.now_ms // CLOCK_STEP_MS * CLOCK_STEP_MS + self.skew_ms

    def add_file(self, name: str, group: bytes) -> DiskFile:
        """A place for a group's store."""
        file = self.files[name] = DiskFile(self.folder / f"{self.name}-{name}.db", group)
        return file

    def start(self) -> Process:
        """Starts the device's process on what is on its disk."""
        assert self.process is None
        self._schedule.note(self.name, "starts")
        self.process = Process(self._schedule, self)
        return self.process

    def crash(self) -> None:
        """Ends the process without a word."""
        process = self.process
        assert process is not None
        self._schedule.note(self.name, "crashes")
        self.process = None
        process.is_alive = False
        for end in list(process.links.values()):
            end.abandon()
        for name, file in self.files.items():
            file.crash(process.replicas[file.group].store, self._schedule.random)
            assert name == process.replicas[file.group].name


class Process:
    """A running device: its replicas and links."""

    def __init__(self, schedule: Schedule, device: SimulatedDevice) -> None:
        self._schedule = schedule
        self._device = device
        self.is_alive = True
        self.boot_id = device.entropy(EPOCH_BYTES)
        self.links: dict[str, LinkEnd] = {}
        self._sharings: dict[str, Sharing] = {}
        self.replicas = {
            file.group: Replica(schedule, device.name, name, file.open(device.context), lambda: self.is_alive, self.wake)
            for name, file in device.files.items()
        }

    def wake(self) -> None:
        """Memberships may have changed."""
        for sharing in list(self._sharings.values()):
            sharing.wake()

    def _later(self, wait_ms: int, event: Callable[[], None]) -> None:
        self._schedule.at(self._schedule.now_ms + wait_ms, lambda: event() if self.is_alive else None)

    def add_link(self, remote: SimulatedDevice, role: Role, wire: WireEnd) -> None:
        """Runs one end of a new link."""
        handshake = Handshake(role, self._device.person.keys, boot_id=self.boot_id, ephemeral_private=self._device.entropy(32))

        def come_up(end: LinkEnd) -> None:
            sharing = Sharing(end, self.replicas, self._device.person.user, remote.person.keys.device, self._later)
            self._sharings[remote.name] = sharing

        def go_down(end: LinkEnd) -> None:
            if self.links.get(remote.name) is end:
                del self.links[remote.name]
                sharing = self._sharings.pop(remote.name, None)
                if sharing is not None:
                    sharing.link_down()

        events = LinkEvents(
            come_up,
            lambda _, channel, payload: self._sharings[remote.name].requested(channel, payload),
            lambda _, channel, payload: self._sharings[remote.name].accepted(channel, payload),
            lambda _, channel: self._sharings[remote.name].refused(channel),
            go_down,
        )
        end = LinkEnd(self._schedule, self._device.name, remote.name, handshake, role, wire, events)
        self.links[remote.name] = end
        end.start()

    def close(self) -> None:
        """Ends the process in good order."""
        self.is_alive = False
        for replica in self.replicas.values():
            replica.store.close()
