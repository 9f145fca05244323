"""Keeps the links that this device should have: asks the mesh whenever something changed, and does what it says (DESIGN 5)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from peersd.monotonic import monotonic_ms
from peersd.node.links import Links
from peersd_protocol.mesh import Decision, Mesh, MeshView

_log = logging.getLogger("peersd.node")

DECIDE_INTERVAL_S: Final = 0.1
"""The shortest time between two decisions: what changes in bursts is looked at once. A decision over 300 groups of 50 users takes
25 ms (measured)."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What this device shares with others.

    Attributes:
        own_users: the users of this device.
        groups: per group that one of them is in, personal ones included, the live devices of each member.
        unannounced: devices of which no beacon is here in some of these groups.
    """

    own_users: Collection[bytes]
    groups: Mapping[bytes, Mapping[bytes, Collection[bytes]]]
    unannounced: Collection[bytes]


class Meshing:
    """Decides on the links of one device.

    Args:
        device: its id.
        links: its links; they ask here which new ones may stay.
        shared: what it shares now.
        addresses: where a device may be dialled, the best first.
        was_reached: whether a device ever answered.
    """

    def __init__(
        self,
        device: bytes,
        links: Links,
        shared: Callable[[], Shared],
        addresses: Callable[[bytes], Sequence[str]],
        was_reached: Callable[[bytes], bool],
    ) -> None:
        self._links = links
        self._shared = shared
        self._addresses = addresses
        self._was_reached = was_reached
        self._mesh = Mesh(device)
        self._changed = trio.Event()
        self._left_out: tuple[bytes, ...] = ()
        links.admits = self._admits
        links.is_alone = lambda other: self._mesh.is_alone(self._view(), other)

    def wake(self) -> None:
        """Links, groups, members, addresses or limits have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Decides until cancelled."""
        while True:
            self._changed = trio.Event()
            decision = self._mesh.decide(self._view(), monotonic_ms())
            self._apply(decision)
            await trio.sleep(DECIDE_INTERVAL_S)
            again_at_ms = decision.again_at_ms
            with trio.move_on_at(float("inf") if again_at_ms is None else again_at_ms / 1000):
                await self._changed.wait()

    def _admits(self, device: bytes, is_alone: bool) -> bool:
        return self._mesh.admits(self._view(), device, monotonic_ms(), is_guest=is_alone)

    def _view(self) -> MeshView:
        shared, links = self._shared(), self._links
        members = {device for users in shared.groups.values() for devices in users.values() for device in devices}
        return MeshView(
            own_users=shared.own_users,
            groups=shared.groups,
            links=links.views(),
            reachable={device for device in members if self._addresses(device)}.union(links.pinned),
            unannounced=shared.unannounced,
            reached={device for device in members if self._was_reached(device)},
            failing=links.failing,
            refused=links.refused,
            pinned=tuple(links.pinned),
            denied=links.denied,
            links_max=links.links_max,
        )

    def _apply(self, decision: Decision) -> None:
        for device, code in decision.close:
            self._links.close(device, code)
        self._links.want({device: self._addresses(device) for device in decision.wanted})
        if decision.left_out != self._left_out:
            self._left_out = decision.left_out
            if decision.left_out:
                fields = {"groups": len(decision.left_out), "links_max": self._links.links_max}
                _log.warning("groups_without_link", extra={"fields": fields})
