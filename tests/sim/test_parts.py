"""What a simulated device is made of can be replaced: its disk, its clock, its entropy, the code that answers for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from peersd.testing.simulator import Parts, Plan, run_seed
from peersd.testing.simulator.device import SimulatedDevice
from peersd.testing.simulator.disk import Disk, DiskFile
from peersd.testing.simulator.parts import Entropy
from peersd.testing.simulator.schedule import Schedule
from peersd.testing.simulator.wall_clocks import FIRST_WALL_MS, WallClock
from peersd.testing.simulator.wire import WireEnd

PLAN = Plan(devices=4, groups=1, links_max=0, trouble_ms=1_500)


@pytest.mark.sim
def test_all_stores_are_opened_by_the_disk_that_is_given() -> None:
    made: list[tuple[str, str]] = []

    class NotingDisk(Disk):
        def file(self, name: str, group: bytes) -> DiskFile:
            made.append((self.name, name))
            return super().file(name, group)

    def make_disk(name: str, folder: Path) -> Disk:
        return NotingDisk(name, folder)

    simulation = run_seed(5, PLAN, parts=Parts(disk=make_disk))
    placed = {(device.name, file.name) for device in simulation.devices for file in device.files.values()}
    assert len(placed) >= 2
    assert placed <= set(made)


@pytest.mark.sim
def test_all_stamps_come_from_the_clock_that_is_given() -> None:
    asked: list[str] = []

    class StoppedClock:
        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self) -> int:
            asked.append(self.name)
            return FIRST_WALL_MS

        def disturb(self, random: Random) -> str:
            return "does not care"

    def make_clock(name: str, now_ms: Callable[[], int], random: Random) -> WallClock:
        return StoppedClock(name)

    simulation = run_seed(5, PLAN, parts=Parts(clock=make_clock))
    assert set(asked) == {device.name for device in simulation.devices if device.files}
    assert len(set(asked)) >= 2
    assert " equal: " in simulation.trace.lines[-1]


@pytest.mark.sim
def test_all_that_is_drawn_comes_from_the_entropy_that_is_given() -> None:
    drawn = {"a": 0, "b": 0, "c": 0, "d": 0}

    def make_entropy(name: str, random: Random) -> Entropy:
        def draw(size: int) -> bytes:
            drawn[name] += size
            return random.randbytes(size)

        return draw

    with_parts = run_seed(5, PLAN, parts=Parts(entropy=make_entropy))
    assert min(drawn.values()) > 0
    assert with_parts.trace.hash == run_seed(5, PLAN).trace.hash


class Babbler:
    """Code of another kind: it dials everybody, says what no peer says, and answers nobody."""

    def __init__(self, schedule: Schedule, device: SimulatedDevice) -> None:
        self.served = 0
        self.ended = 0
        self._schedule = schedule
        self._device = device
        self._dial()

    def serve(self, remote: SimulatedDevice, wire: WireEnd) -> None:
        """See Peer."""
        self.served += 1

    def _dial(self) -> None:
        def note_end() -> None:
            self.ended += 1

        for name in "abc":
            wire = self._device.network.reach(self._device, f"ws://{name}.example")
            if wire is not None:
                wire.on_end = note_end
                wire.send(bytes(100))
        if self._schedule.now_ms < PLAN.trouble_ms:
            self._schedule.at(self._schedule.now_ms + 200, self._dial)


@pytest.mark.sim
def test_a_device_that_speaks_by_its_own_code_is_hung_up_on_and_disturbs_nobody() -> None:
    made: list[Babbler] = []

    def make(schedule: Schedule, device: SimulatedDevice) -> Babbler:
        made.append(Babbler(schedule, device))
        return made[0]

    simulation = run_seed(5, PLAN, parts=Parts(peers={"d": make}))
    assert [device.name for device in simulation.devices] == ["a", "b", "c"]
    assert made[0].ended > 10
    assert " equal: " in simulation.trace.lines[-1]
