"""One run: a crowd chooses its links by the machines that ship, then entries spread in each of its groups.

The devices know the addresses of all they share a group with from the start, so no beacons are sent. The entries of a group have
the links to themselves: one small entry at a time would wait for nobody, so neither bandwidth nor lanes are simulated.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from peersd.testing.machines.crowds import Crowd
from peersd.testing.machines.mesh_network import Network
from peersd.testing.machines.spreading import (
    Links,
    Spread,
    breaches_of_first,
    breaches_of_later,
    fastest_ms,
    spread_entries,
)

LATENCY_MS: Final = (5, 50)
"""From and to, one way, as drawn for each pair of devices."""

LATER_ENTRIES: Final = 5
"""Entries after a group's first one, each by another writer where there are so many."""

Latencies = Mapping[tuple[bytes, bytes], int]


@dataclass(frozen=True)
class GroupRun:
    """What came of one group.

    Attributes:
        members: users.
        links: its links.
        spreads: of each entry, the first one first; none if the links do not join all.
        breaches: what is not as the topology allows; empty if all is.
    """

    members: int
    links: Links
    spreads: tuple[Spread, ...]
    breaches: tuple[str, ...]


SETTLED_WITHIN_MS: Final = 60_000
"""So long it is waited for links to settle; 500 devices with enough of them take half of it."""


def link_crowd(seed: int, crowd: Crowd, links_max: int) -> tuple[Network, int]:
    """Starts all devices within a second and waits until no link changes any more, up to SETTLED_WITHIN_MS.

    Args:
        seed: of delays and orders.
        crowd: who.
        links_max: links that a device may have.

    Returns:
        The network, and the virtual time in ms until the last change.
    """
    network = Network(seed, {**crowd.groups, **crowd.personal}, links_max=links_max)
    network.start(crowd.devices)
    return network, network.settle(SETTLED_WITHIN_MS)


def draw_latencies(seed: int, network: Network) -> Latencies:
    """The latency of each link there is, by the ids of its ends, the lesser first."""
    rng = random.Random(f"latencies {seed}")
    pairs = sorted((one, other) for one, device in network.devices.items() for other in device.links if one < other)
    return {pair: rng.randint(*LATENCY_MS) for pair in pairs}


def run_group(seed: int, network: Network, latencies: Latencies, group: bytes) -> GroupRun:
    """Lets drawn devices of a group write, and looks at how that spread.

    Args:
        seed: of who writes.
        network: with the links as they are.
        latencies: of all links.
        group: one of its groups.
    """
    members = network.groups[group]
    inside = {device for devices in members.values() for device in devices}
    links = {
        device: {
            other: latencies[min(device, other), max(device, other)] for other in network.devices[device].links if other in inside
        }
        for device in sorted(inside)
    }
    reached = fastest_ms(links, min(inside))
    if len(reached) < len(inside):
        return GroupRun(len(members), links, (), (f"in pieces: {len(inside) - len(reached)} of {len(inside)} devices cut off",))
    rng = random.Random(f"writers {seed} {group.hex()}")
    writers = rng.sample(sorted(inside), min(1 + LATER_ENTRIES, len(inside)))
    first, *later = spread_entries(seed, links, writers)
    breaches = breaches_of_first(links, first) + breaches_of_later(links, first, later)
    return GroupRun(len(members), links, (first, *later), tuple(breaches))
