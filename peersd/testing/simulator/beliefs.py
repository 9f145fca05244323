"""Who takes whom for a member of a group, device by device: what the devices' own acts say, and where they cannot agree.

Whoever is removed is told why, and pleads with those it takes for members if it knows better. So those who may meet come to
agree. A group has several parts where whoever knew two members left before it could tell either where the other is: nobody is
there who could.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from peersd.testing.simulator.device import SimulatedDevice
from peersd.testing.simulator.replica import Replica

Placed = tuple[SimulatedDevice, Replica]
"""A device with its replica of a group."""

MayMeet = Callable[[SimulatedDevice, SimulatedDevice], bool]
"""Whether two devices are linked, or one of them knows where the other is or may yet be told."""


class Beliefs:
    """The beliefs in one group, now.

    Args:
        placed: the devices that have a file of it.
        may_meet: whether two devices may.

    Attributes:
        claimants: those that are members' devices by what they know.
    """

    def __init__(self, placed: Sequence[Placed], may_meet: MayMeet) -> None:
        self._may_meet = may_meet
        self.claimants = [(device, replica) for device, replica in placed if replica.is_members]

    @property
    def are_one(self) -> bool:
        """Whether all claimants take exactly each other for the members."""
        ids = frozenset(device.device_id for device, _ in self.claimants)
        return all(replica.state.member_devices == ids for _, replica in self.claimants)

    def peers(self, device: SimulatedDevice) -> list[Placed]:
        """The claimants that a claimant takes for members, and that take it for one."""
        own = next(replica for other, replica in self.claimants if other is device)
        return [
            (other, replica)
            for other, replica in self.claimants
            if other is not device
            and self._may_meet(device, other)
            and other.device_id in own.state.member_devices
            and device.device_id in replica.state.member_devices
        ]

    def parts(self) -> list[list[Placed]]:
        """The claimants, those together that agree on each other, directly or by others in between."""
        left, parts = list(self.claimants), list[list[Placed]]()
        while left:
            part = [left.pop(0)]
            for member, _ in part:  # it grows on the way
                found = [placed for placed in self.peers(member) if placed in left]
                part += found
                left = [placed for placed in left if placed not in found]
            parts.append(part)
        return parts

    def unheard(self, may_ask: Callable[[SimulatedDevice, SimulatedDevice], bool]) -> list[str]:
        """Who takes itself for a member's device, could be told why it is none, and has not been.

        Args:
            may_ask: whether the first device has or can have a link to the second.
        """
        return [
            f"{device.name} has not heard why it is no member's device in {replica.name}"
            for device, replica in self.claimants
            for other, its_replica in self.claimants
            if other.device_id in replica.state.member_devices
            and device.device_id not in its_replica.state.member_devices
            and its_replica.state.farewell(device.device_id) - replica.state.standing - replica.state.void
            and may_ask(device, other)
        ]

    def may_tell(self, device: SimulatedDevice, may_reach: MayMeet) -> bool:
        """Whether a claimant that takes a device for a member's is linked to it, or may dial it.

        Args:
            device: one that does not take itself for a member's, and so dials nobody for this group.
            may_reach: whether the first device has a link to the second, or its address.
        """
        return any(
            device.device_id in replica.state.member_devices and may_reach(other, device) for other, replica in self.claimants
        )
