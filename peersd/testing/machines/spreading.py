"""How entries spread in one group over given links: by how many of them, how soon, and in how many bytes; and what may be asked.

What the topology allows follows from Plumtree (SPEC: R-10, R-16). While all sessions are eager, an entry takes every way at once:
it is everywhere as soon as the fastest ways allow, and crosses each link at most twice, but once where it was first. What
came second is pruned; left is the tree of the fastest ways from who wrote. So the next entry, whoever wrote it, crosses the links
of a tree, as many as it has to be delivered to, and takes at most the way to that first writer and from there on.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Final

from peersd.testing.machines.replication_network import STORE_MS, Network, Node
from peersd.testing.machines.replication_stores import encode_entries
from peersd_protocol.constants import GAP_DELAY_MS, HAVE_DELAY_MS

COPIES_MAX: Final = 2.5
"""Bytes of entries on a tree, in multiples of what the deliveries need. A tree takes 1; where it is so slow that HAVE and WANT
overtake it, another link joins it until the next duplicate (precedent: tests/protocol/test_replication_mesh.py)."""

Links = Mapping[bytes, Mapping[bytes, int]]
"""Of each device of a group its links inside the group, with their latency in ms, the same both ways."""


@dataclass(frozen=True)
class Spread:
    """How one entry spread.

    Attributes:
        writer: the device that wrote it.
        hops: links on the way by which each other device that it reached came to have it.
        took_ms: virtual time until each of these had it, since it was written.
        entry_bytes: sent in messages with entries.
        all_bytes: sent in messages of any kind, until all was at rest.
        needed_bytes: what one delivery to each other device takes.
        unsure_count: ends of sessions that did not know, when all was at rest, that the other side holds the same.
    """

    writer: bytes
    hops: Mapping[bytes, int]
    took_ms: Mapping[bytes, int]
    entry_bytes: int
    all_bytes: int
    needed_bytes: int
    unsure_count: int

    @property
    def hops_median(self) -> float:
        """Over all that it reached; 0 if there are none."""
        return median(self.hops.values()) if self.hops else 0

    @property
    def hops_max(self) -> int:
        """Over all that it reached; 0 if there are none."""
        return max(self.hops.values(), default=0)

    @property
    def took_ms_max(self) -> int:
        """Until the last one that it reached had it; 0 if there are none."""
        return max(self.took_ms.values(), default=0)

    @property
    def copies(self) -> float:
        """Bytes of entries sent per byte that had to be delivered."""
        return self.entry_bytes / self.needed_bytes

    @property
    def copies_of_all(self) -> float:
        """Bytes of all messages sent per byte that had to be delivered."""
        return self.all_bytes / self.needed_bytes


def fastest_ms(links: Links, start: bytes) -> dict[bytes, int]:
    """When each device that can be reached holds an entry at the earliest: latencies, and the store's work at each step."""
    held: dict[bytes, int] = {}
    waiting = [(0, start)]
    while waiting:
        at_ms, device = heapq.heappop(waiting)
        if device not in held:
            held[device] = at_ms
            for other, latency_ms in links[device].items():
                heapq.heappush(waiting, (at_ms + latency_ms + STORE_MS, other))
    return held


def hops_at_least(links: Links, start: bytes) -> int:
    """How many links away the device is that is farthest from another one: that many hops nobody can save."""
    seen, edge, steps = {start}, [start], 0
    while edge := [other for other in dict.fromkeys(other for device in edge for other in links[device]) if other not in seen]:
        seen.update(edge)
        steps += 1
    return steps


def link_count(links: Links) -> int:
    """How many links there are."""
    return sum(map(len, links.values())) // 2


def copies_of_first_max(links: Links) -> float:
    """How often an entry that is pushed on all links may be sent, in multiples of what the deliveries need."""
    return (2 * link_count(links) - (len(links) - 1)) / (len(links) - 1)


def spread_entries(seed: int, links: Links, writers: Iterable[bytes]) -> list[Spread]:
    """Opens a session on each link, all with empty stores, and lets one device after another write one small entry.

    Args:
        seed: of bodies.
        links: of the group.
        writers: who writes; each when the entry before has come to rest.

    Returns:
        How each of the entries spread.
    """
    network = Network(seed)
    nodes = {device: network.add_node() for device in sorted(links)}
    for one, its_links in links.items():
        for other, latency_ms in its_links.items():
            if one < other:
                network.connect(nodes[one], nodes[other], latency_ms)
    network.run()
    return [_spread(network, nodes, writer) for writer in writers]


def _spread(network: Network, nodes: Mapping[bytes, Node], writer: bytes) -> Spread:
    began_ms, entry_bytes, all_bytes = network.now_ms, network.entry_bytes, network.all_bytes
    entry = nodes[writer].write()
    network.run()
    arrivals = {
        device: node.arrivals[entry.hash] for device, node in nodes.items() if device != writer and entry.hash in node.arrivals
    }
    return Spread(
        writer,
        {device: arrival.hops for device, arrival in arrivals.items()},
        {device: arrival.at_ms - began_ms for device, arrival in arrivals.items()},
        network.entry_bytes - entry_bytes,
        network.all_bytes - all_bytes,
        len(encode_entries([entry])) * (len(nodes) - 1),
        sum(not node.machine.is_equal(end.id) for node in nodes.values() for end in node.ends.values()),
    )


# --- What may be asked ----------------------------------------------------------------------------------------------------------


def breaches_of_first(links: Links, first: Spread) -> list[str]:
    """What is wrong with the entry that was pushed on all links: it took not the fastest ways, or crossed links too often."""
    least_ms = fastest_ms(links, first.writer)
    found = _not_delivered(links, first)
    slow = [device for device, took_ms in first.took_ms.items() if took_ms > least_ms[device]]
    if slow:
        found.append(f"first entry: {len(slow)} devices reached later than by the fastest way")
    if first.copies > copies_of_first_max(links):
        found.append(f"first entry: {first.copies:.2f} copies where links allow {copies_of_first_max(links):.2f}")
    return found


def breaches_of_later(links: Links, first: Spread, later: Collection[Spread]) -> list[str]:
    """What is wrong with the entries after the first one: they went farther, took longer or cost more than a tree does.

    On the tree that the first one left no way is longer than the one by its writer. Where that is so slow that HAVE and WANT
    overtake it, a branch hangs elsewhere from then on; of such a tree nothing exact is promised, and the limits are wide.
    """
    found: list[str] = []
    least_ms = fastest_ms(links, first.writer)
    is_first_tree = True
    for number, spread in enumerate(later, 2):
        found += _not_delivered(links, spread)
        is_first_tree = is_first_tree and spread.entry_bytes == spread.needed_bytes
        if is_first_tree:
            up_ms, up_hops = least_ms[spread.writer], first.hops.get(spread.writer, 0)
            slow = [device for device, took_ms in spread.took_ms.items() if took_ms > up_ms + least_ms[device]]
            far = [device for device, hops in spread.hops.items() if hops > up_hops + first.hops.get(device, 0)]
        else:
            took_ms_max = 2 * max(least_ms.values()) + HAVE_DELAY_MS + GAP_DELAY_MS
            slow = [device for device, took_ms in spread.took_ms.items() if took_ms > took_ms_max]
            far = [device for device, hops in spread.hops.items() if hops > 4 * first.hops_max]
        if slow:
            found.append(f"entry {number}: {len(slow)} devices reached later than a tree allows")
        if far:
            found.append(f"entry {number}: {len(far)} devices reached by more links than a tree allows")
        if spread.copies > COPIES_MAX:
            found.append(f"entry {number}: {spread.copies:.2f} copies, more than {COPIES_MAX}")
    return found


def _not_delivered(links: Links, spread: Spread) -> list[str]:
    missed = links.keys() - spread.hops.keys() - {spread.writer}
    found = [f"{len(missed)} of {len(links)} devices not reached"] if missed else []
    return [*found, f"{spread.unsure_count} ends do not know that all is there"] if spread.unsure_count else found
