"""The ring that the devices of a group stand on, the same at every device that knows the same members (SPEC: L-26).

If every device keeps a link to the next and to the previous one, a group is connected however few links each may have. A choice
by each device's own preference alone falls apart: of ten devices with three links each, two fours and a pair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass


def rank_hash(group: bytes, *parts: bytes) -> bytes:
    """SHA-256 over a group's id and further ids: an order that differs from group to group and that nobody chose."""
    return hashlib.sha256(b"".join((group, *parts))).digest()


def pair_hash(group: bytes, one: bytes, other: bytes) -> bytes:
    """The rank of two devices for each other, the same seen from either."""
    return rank_hash(group, min(one, other), max(one, other))


def make_ring(group: bytes, members: Mapping[bytes, Collection[bytes]]) -> tuple[bytes, ...]:
    """All devices of a group in the order of its ring.

    The devices of a user stand together, in an order that is the same in all groups, so that the links between them serve all
    their groups at once; only where a group's ring enters and leaves differs, so that this work is spread over them.

    Args:
        group: the group's id.
        members: the devices of each user. A device of several users stands with the first of them.
    """
    ring: dict[bytes, None] = {}
    for user in sorted(members, key=lambda user: rank_hash(group, user)):
        devices = sorted(members[user])
        if devices:
            first = devices.index(min(devices, key=lambda device: rank_hash(group, device)))
            ring.update(dict.fromkeys(devices[first:] + devices[:first]))
    return tuple(ring)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A device next to this one.

    Attributes:
        device: its id.
        lesser_count: how many of the (at most two) ring links that end at either of the two devices have a lower pair hash than
            theirs. Where links are too few for all rings, those with a low count go first, so that each group gets about as many.
    """

    device: bytes
    lesser_count: int


def neighbours(group: bytes, ring: Sequence[bytes], device: bytes) -> tuple[Neighbour, ...]:
    """The next and the previous device on a ring: none if `device` is alone on it, one if there are two.

    Args:
        group: the group's id.
        ring: the devices that count, `device` among them.
        device: whose neighbours.
    """
    size = len(ring)
    if size < 2:
        return ()
    at = ring.index(device)
    if size == 2:
        return (Neighbour(ring[1 - at], 0),)
    before_last, last, own, after = (
        pair_hash(group, ring[start % size], ring[(start + 1) % size]) for start in (at - 2, at - 1, at, at + 1)
    )
    return (
        Neighbour(ring[(at + 1) % size], (last < own) + (after < own)),
        Neighbour(ring[at - 1], (before_last < last) + (own < last)),
    )


def by_pair_hash(group: bytes, device: bytes, others: Iterable[bytes]) -> list[bytes]:
    """Other devices in the order in which `device` prefers them where nothing else decides: as if drawn by lot, but lasting."""
    return sorted(others, key=lambda other: pair_hash(group, device, other))
