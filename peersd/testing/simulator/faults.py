"""What goes wrong in a simulation: links, the network, processes, clocks. Each is drawn by its step, and ends when all heals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from peersd.testing.simulator.device import SimulatedDevice
from peersd.testing.simulator.network import Network
from peersd.testing.simulator.schedule import Schedule
from peersd.testing.simulator.script import StepKind

RESTART_MS_MAX: Final = 3_000
PARTED_MS: Final = (200, 4_000)
SLOW_MS: Final = (200, 5_000)
"""Delay of a message on a pair that is slow."""


class Faults:
    """All that goes wrong.

    Args:
        schedule: of the simulation.
        network: of the devices.
        devices: those that it happens to.
    """

    def __init__(self, schedule: Schedule, network: Network, devices: Sequence[SimulatedDevice]) -> None:
        self._schedule = schedule
        self._network = network
        self._devices = devices
        self._deeds: dict[StepKind, Callable[[Random], None]] = {
            StepKind.CUT: self._cut,
            StepKind.LOSE: self._lose,
            StepKind.CRASH: self._crash,
            StepKind.CRASH_AFTER_CALL: self._crash_after_call,
            StepKind.PART: self._part,
            StepKind.MUTE: self._mute,
            StepKind.SLOW: self._slow,
            StepKind.CLOCK: self._disturb_clock,
        }

    def do(self, deed: StepKind, random: Random) -> None:
        """Does something bad."""
        self._deeds[deed](random)

    # --- Links and the network --------------------------------------------------------------------------------------------------

    def _cut(self, random: Random) -> None:
        self._end_link(random, is_told=True)

    def _lose(self, random: Random) -> None:
        self._end_link(random, is_told=False)

    def _end_link(self, random: Random, *, is_told: bool) -> None:
        device = random.choice(self._devices)
        ends = device.process.links.linked() if device.process else []
        if ends:
            end = random.choice(ends)
            how = "loses its link" if is_told else "loses unnoticed its link"
            self._schedule.note(device.name, f"{how} to {end.remote}")
            end.lose_wire(is_told=is_told)

    def _split(self, random: Random) -> tuple[list[str], list[str]]:
        names = [device.name for device in self._devices]
        some = random.sample(names, random.randint(1, len(names) - 1))
        return sorted(some), [name for name in names if name not in some]

    def _part(self, random: Random) -> None:
        some, others = self._split(random)
        for_ms = random.randint(*PARTED_MS)
        self._schedule.note("", f"{' '.join(some)} | {' '.join(others)} for {for_ms} ms")
        self._network.block(some, others, for_ms)
        self._network.block(others, some, for_ms)

    def _mute(self, random: Random) -> None:
        some, others = self._split(random)
        for_ms = random.randint(*PARTED_MS)
        self._schedule.note("", f"{' '.join(some)} unheard by {' '.join(others)} for {for_ms} ms")
        self._network.block(some, others, for_ms)

    def _slow(self, random: Random) -> None:
        one, other = random.sample(self._devices, 2)
        delay_ms, for_ms = random.randint(*SLOW_MS), random.randint(*PARTED_MS)
        self._schedule.note(one.name, f"messages to and from {other.name} take {delay_ms} ms more for {for_ms} ms")
        self._network.slow_down((one.name, other.name), delay_ms, for_ms)

    # --- Devices ----------------------------------------------------------------------------------------------------------------

    def _crash(self, random: Random) -> None:
        device = random.choice(self._devices)
        wait_ms, is_power_lost = random.randint(1, RESTART_MS_MAX), random.random() < 0.2
        if device.process is not None:
            device.crash(is_power_lost=is_power_lost)
            self._restart_after(device, wait_ms)

    def _crash_after_call(self, random: Random) -> None:
        device = random.choice(self._devices)
        wait_ms = random.randint(1, RESTART_MS_MAX)
        process = device.process
        if process is None:
            return

        def crash() -> None:
            device.crash(is_power_lost=False)
            self._restart_after(device, wait_ms)

        process.before_telling = crash

    def _restart_after(self, device: SimulatedDevice, wait_ms: int) -> None:
        def restart() -> None:
            if device.process is None:
                device.start()

        self._schedule.at(self._schedule.now_ms + wait_ms, restart)

    def _disturb_clock(self, random: Random) -> None:
        device = random.choice(self._devices)
        self._schedule.note(device.name, f"clock {device.clock.disturb(random)}")
