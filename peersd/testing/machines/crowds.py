"""A crowd: users with one device or a few, in many groups of mixed size, as drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from peersd.testing.machines.mesh_network import Members, device_id, user_id

SMALL_GROUP_MEMBERS: Final = (3, 15)
"""From and to; most groups are such."""

GROUPS_PER_USER_MAX: Final = 14
"""Half of LINKS_MAX, less one for the own devices: with less than two links a group nothing promises one piece (ADR 0018)."""

USERS_PER_BUSY_USER: Final = 20
"""One user in so many is in many groups; the devices of those run into the limit of links."""


@dataclass(frozen=True)
class Crowd:
    """Who has which devices and is in which group.

    Attributes:
        groups: the members of each group, with their devices.
        personal: the personal groups of users with several devices, which take links, too.
    """

    groups: dict[bytes, Members]
    personal: dict[bytes, Members]

    @property
    def devices(self) -> list[bytes]:
        """All devices, in an order that is the same in each run."""
        return sorted({device for members in self.groups.values() for devices in members.values() for device in devices})


def draw_crowd(seed: int, devices: int, groups: int) -> Crowd:
    """Draws a crowd in which every user is in some group.

    Args:
        seed: of all that is drawn.
        devices: how many in all, at least 20; four in five users have one, the others two or three.
        groups: how many, at least 4: one of half of the users, one in 13 of an eighth, the others small.
    """
    rng = random.Random(f"crowd {seed}")
    owned = _deal_devices(rng, devices)
    users = list(owned)
    rng.shuffle(users)
    busy = users[: max(2, len(users) // USERS_PER_BUSY_USER)]
    unplaced = users[::-1]
    placed = dict.fromkeys(users, 0)
    drawn: dict[bytes, Members] = {}
    for number, size in enumerate(_sizes(rng, len(users), groups)):
        members = _draw_members(rng, size, unplaced, busy, placed)
        drawn[b"group" + number.to_bytes(27, "big")] = {user: owned[user] for user in members}
    last = list(drawn)[-1]
    drawn[last] = {**drawn[last], **{user: owned[user] for user in unplaced}}
    personal: dict[bytes, Members] = {
        b"p" + user[1:]: {user: devices_} for user, devices_ in sorted(owned.items()) if len(devices_) > 1
    }
    return Crowd(drawn, personal)


def _deal_devices(rng: random.Random, devices: int) -> dict[bytes, tuple[bytes, ...]]:
    """Of each user: a fifth of the devices are second and third ones, a fifth of their users have three."""
    users = devices - devices // 5
    beyond = devices - users
    threes = beyond // 5
    counts = [3] * threes + [2] * (beyond - 2 * threes)
    counts += [1] * (users - len(counts))
    rng.shuffle(counts)
    ids = [device_id(number) for number in range(1, devices + 1)]
    rng.shuffle(ids)
    left = iter(ids)
    return {user_id(number): tuple(next(left) for _ in range(count)) for number, count in enumerate(counts, 1)}


def _sizes(rng: random.Random, users: int, groups: int) -> list[int]:
    middle = max(1, groups // 13)
    small = [rng.randint(*SMALL_GROUP_MEMBERS) for _ in range(groups - 1 - middle)]
    return [users // 2, *[max(users // 8, SMALL_GROUP_MEMBERS[0])] * middle, *small]


def _draw_members(
    rng: random.Random, size: int, unplaced: list[bytes], busy: Sequence[bytes], placed: dict[bytes, int]
) -> list[bytes]:
    """Half are users who are in no group yet, as long as there are any; the others are by turns a busy one and anyone."""
    members: dict[bytes, None] = {}
    while unplaced and 2 * len(members) < size:
        members[unplaced.pop()] = None
    anyone = rng.sample(list(placed), len(placed))
    turns = zip_longest(rng.sample(busy, len(busy)), anyone)
    for user in (user for turn in turns for user in turn if user is not None):
        if len(members) < size and placed[user] < GROUPS_PER_USER_MAX:
            members[user] = None
    for user in members:
        placed[user] += 1
    unplaced[:] = [user for user in unplaced if user not in members]
    return list(members)
