"""Users who have tickets: they try again and again, and tell their other devices."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from peersd.testing.simulator.device import SimulatedDevice
from peersd.testing.simulator.joining import JOINED
from peersd.testing.simulator.replica import Replica
from peersd.testing.simulator.schedule import Schedule
from peersd_protocol.tickets import Ticket, parse_ticket

TRIES_HEALED: Final = 8
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


class Wishes:
    """All who want to join.

    Args:
        schedule: of the simulation.
        devices: all of them.

    Attributes:
        is_healing: whether nothing goes wrong any more, and tries are counted.
        ended_ms: when the last wish came to an end.
    """

    def __init__(self, schedule: Schedule, devices: Sequence[SimulatedDevice]) -> None:
        self._schedule = schedule
        self._random = schedule.stream("wishes")
        self._devices = devices
        self._wishes: list[Wish] = []
        self._given_up: list[Wish] = []
        self.is_healing = False
        self.ended_ms = 0

    @property
    def are_joining(self) -> bool:
        """Whether anybody has a ticket to be redeemed."""
        return bool(self._wishes)

    def hand_over(self, replica: Replica, ticket: Ticket, users_max: int, random: Random) -> None:
        """Gives a ticket to users who are no members, each at one of its devices; now and then to one too many."""
        state = replica.state
        outside = [device for device in self._devices if not state.role_of(device.person.user)]
        welcome = [device for device in outside if device.person.user not in state.bans or random.random() < 0.2]
        for device in random.sample(welcome, min(users_max + (random.random() < 0.3), len(welcome))):
            self._schedule.note(device.name, f"{replica.name} gets a ticket")
            wish = Wish(device, parse_ticket(ticket.format()))
            self._wishes.append(wish)
            self._try_later(wish)

    def try_again(self, device: SimulatedDevice, group: bytes, members: Collection[bytes]) -> bool:
        """A user who was not let in tries again after all; False if its tickets name nobody of the members."""
        urls = {other.url for other in self._devices if other.device_id in members}
        for wish in self._given_up:
            if wish.device is device and wish.ticket.group_id == group and urls.intersection(wish.ticket.addresses):
                self._given_up.remove(wish)
                self._wishes.append(wish)
                self._try_later(wish)
                return True
        return False

    def _after(self, least_ms: int, most_ms: int) -> int:
        return self._schedule.now_ms + self._random.randint(least_ms, most_ms)

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
            wish.tries_left -= self.is_healing
            wish.tries += 1
            if outcome is None and wish.tries_left > 0:
                self._try_later(wish)
                return
            self._wishes.remove(wish)
            self.ended_ms = self._schedule.now_ms
            if outcome is None:
                self._given_up.append(wish)
            if outcome == JOINED:
                self._tell_siblings(wish.device, wish.ticket)
            else:
                self._ask_siblings(wish.device, wish.ticket)

        self._schedule.at(self._after(50, 1_500), redeem)

    def _watch(self, wish: Wish, boot_id: bytes, tries: int) -> None:
        """A crash leaves the wish, and nobody who tells of the end of its attempt."""

        def look() -> None:
            if wish.tries != tries or wish not in self._wishes:
                return
            if wish.device.process is None or wish.device.process.boot_id != boot_id:
                self._try_later(wish)
            else:
                self._watch(wish, boot_id, tries)

        self._schedule.at(self._after(300, 600), look)

    # --- A user's other devices -------------------------------------------------------------------------------------------------

    def _tell_siblings(self, device: SimulatedDevice, ticket: Ticket) -> None:
        """The user's other devices learn of the group, as they do by the personal group, and wait for what it holds."""
        for sibling in self._devices:
            if sibling.person.user == device.person.user and sibling is not device:
                self._register_later(sibling, ticket)

    def _ask_siblings(self, device: SimulatedDevice, ticket: Ticket) -> None:
        """A device that was not let in learns of the group from another one that was."""
        for sibling in self._devices:
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
                self.ended_ms = self._schedule.now_ms

        self._schedule.at(self._after(50, 1_500), register)
