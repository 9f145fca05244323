"""A set of acts as a graph: order, depths and pasts, the pasts as bit sets in Python integers (SPEC: A, DESIGN 6).

Bit i of a past stands for the i-th act in the order (depth, hash). That order is the same on every replica and puts causes
first. With 1,000 acts a past takes 125 bytes, and union, intersection and inclusion are one machine loop each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Final

from peersd_protocol.entries import Act
from peersd_protocol.errors import LocalProtocolError


def bits_of(bits: int) -> Iterator[int]:
    """The positions of the bits that are set, ascending."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def depths(acts: Mapping[bytes, Act]) -> dict[bytes, int]:
    """The depth of each act: 1 + the greatest depth of its parents, 1 without any.

    Args:
        acts: acts by hash, all of whose parents are among them.

    Raises:
        LocalProtocolError: a parent is missing.
    """
    missing: dict[bytes, int] = {}
    children: dict[bytes, list[bytes]] = {}
    ready: list[bytes] = []
    for name, act in acts.items():
        parents = set(act.parents)
        for parent in parents:
            if parent not in acts:
                raise LocalProtocolError("an act whose parent is not among the acts")
            children.setdefault(parent, []).append(name)
        missing[name] = len(parents)
        if not parents:
            ready.append(name)
    depth: dict[bytes, int] = dict.fromkeys(ready, 1)
    # A stack, not recursion: the chain is as long as a remote author likes.
    while ready:
        name = ready.pop()
        for child in children.get(name, ()):
            depth[child] = max(depth.get(child, 0), depth[name] + 1)
            missing[child] -= 1
            if not missing[child]:
                ready.append(child)
    return depth


class ActIndex:
    """Acts in the order (depth, hash), with the past of each.

    Args:
        acts: any number of acts in any order, repeats allowed, all of whose parents are among them.

    Attributes:
        acts: the acts in order.
        position: where each hash stands in `acts`.
        past: per position, the bit set of all acts before it, itself not included.
        everything: the bit set of all acts.

    Raises:
        LocalProtocolError: a parent is missing.
    """

    def __init__(self, acts: Iterable[Act]) -> None:
        by_hash = {act.hash: act for act in acts}
        depth = depths(by_hash)
        order = sorted(by_hash, key=lambda name: (depth[name], name))
        self.acts: Final = [by_hash[name] for name in order]
        self.position: Final = {name: position for position, name in enumerate(order)}
        self.past: Final[list[int]] = []
        self.everything: Final = (1 << len(order)) - 1
        for act in self.acts:
            self.past.append(self.closure(act.parents))

    def closure(self, heads: Collection[bytes]) -> int:
        """The bit set of the acts named and of all before them; hashes that are no act here count for nothing."""
        bits = 0
        for head in heads:
            position = self.position.get(head)
            if position is not None:
                bits |= self.past[position] | (1 << position)
        return bits

    @cached_property
    def first_of_log(self) -> list[int]:
        """Per position, where the first entry of the act's log stands, on the act's own branch."""
        first: list[int] = []
        for position, act in enumerate(self.acts):
            prev = self.position[act.header.prev] if act.header.prev and act.header.seq > 1 else None
            follows = prev is not None and self.acts[prev].header.log == act.header.log
            first.append(first[prev] if prev is not None and follows else position)
        return first

    def hashes(self, bits: int) -> frozenset[bytes]:
        """The hashes behind a bit set."""
        return frozenset(self.acts[position].hash for position in bits_of(bits))


def control_past(heads: Collection[bytes], index: ActIndex) -> frozenset[bytes]:
    """The hashes of `heads` and of all acts before them: what an entry with these heads was made under."""
    return index.hashes(index.closure(heads))
