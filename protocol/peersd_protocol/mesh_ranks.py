"""How much a link to each device is wanted, as this device sees its groups now (SPEC: L-27, L-28)."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from typing import Final

from peersd_protocol.constants import GROUP_LINKS_MAX, LINKS_MAX, OWN_LINKS_MAX
from peersd_protocol.rings import by_pair_hash, make_ring, neighbours


@dataclass(frozen=True, slots=True)
class LinkView:
    """A link there is.

    Attributes:
        since_ms: when it came up.
        is_confirmed: whether the other side is known to keep it, too.
        has_channels: whether it carries any.
    """

    since_ms: int
    is_confirmed: bool = True
    has_channels: bool = False


@dataclass(frozen=True, slots=True)
class MeshView:
    """What a device knows when it decides which links it wants.

    Attributes:
        own_users: the users of this device.
        groups: per group in which one of them has a role, the live devices of each member, own ones included.
        links: the links there are.
        reachable: devices with a known address.
        unannounced: devices of which no beacon is here in some group that is shared with them.
        reached: devices that were linked or answered a dial before.
        failing: devices that did not answer the last round of dials.
        refused: devices that ended the last link because they want none.
        pinned: devices that the user of this device asked for, the first asked for first.
        denied: devices that get no link.
        links_max: links with devices of shared groups, and pinned ones.
    """

    own_users: Collection[bytes]
    groups: Mapping[bytes, Mapping[bytes, Collection[bytes]]]
    links: Mapping[bytes, LinkView] = field(default_factory=dict[bytes, LinkView])
    reachable: Collection[bytes] = frozenset()
    unannounced: Collection[bytes] = frozenset()
    reached: Collection[bytes] = frozenset()
    failing: Collection[bytes] = frozenset()
    refused: Collection[bytes] = frozenset()
    pinned: Collection[bytes] = ()
    denied: Collection[bytes] = frozenset()
    links_max: int = LINKS_MAX


class Rank(enum.IntEnum):
    """Why a link is wanted, the best reason first."""

    PINNED = 0
    """The user of this device asked for it."""
    RING = 1
    """A neighbour on the ring of a group."""
    OWN = 2
    """Another device of a user of this one."""
    USER = 3
    """One of GROUP_LINKS_MAX devices of a group, of as many users as it has."""
    REST = 4
    """It shares a group, and wants the link itself."""


@dataclass(frozen=True, slots=True, order=True)
class Grade:
    """How much a link to a device is wanted; the lesser, the more.

    Attributes:
        rank: why.
        lesser_count: of a neighbour, see there; else 0.
    """

    rank: Rank
    lesser_count: int = 0


@dataclass(frozen=True, slots=True)
class Judgement:
    """The grades of all devices that a view tells of.

    Attributes:
        present: of those that are linked, or have an address and did not fail to answer; denied ones and strangers never.
        absent: of those that would be wanted if they answered.
    """

    present: dict[bytes, Grade]
    absent: dict[bytes, Grade]


@dataclass(frozen=True, slots=True)
class Plan:
    """What follows from the members of a group alone.

    Attributes:
        members: the members it was made from.
        own_users: the users of this device, when it was made.
        ring: all devices, this one included.
        own: other devices of own users.
        others: the user of each device of others, the preferred ones first.
    """

    members: Mapping[bytes, Collection[bytes]]
    own_users: Collection[bytes]
    ring: tuple[bytes, ...]
    own: tuple[bytes, ...]
    others: Mapping[bytes, bytes]


class Ranks:
    """Judges views of one device; keeps what does not change with links and addresses.

    Args:
        device: this device's id.
    """

    def __init__(self, device: bytes) -> None:
        self._device: Final = device
        self._plans: dict[bytes, Plan] = {}

    def plans(self, view: MeshView) -> dict[bytes, Plan]:
        """The plan of each group that an own user is in."""
        self._plans = {
            group: self._plan(group, members, view.own_users)
            for group, members in view.groups.items()
            if any(user in members for user in view.own_users)
        }
        return self._plans

    def judge(self, view: MeshView) -> Judgement:
        """The grades of all devices in a view."""
        plans = self.plans(view)
        picks = _Picks(view, self._device)
        for device in view.pinned:
            picks.add([device], Rank.PINNED)
        for group, plan in plans.items():
            self._pick_neighbours(picks, group, plan)
        own = list(dict.fromkeys(device for plan in plans.values() for device in plan.own))
        picks.add(picks.by_standing(by_pair_hash(b"", self._device, own))[:OWN_LINKS_MAX], Rank.OWN)
        for plan in plans.values():
            _pick_users(picks, plan)
        members = {device for plan in plans.values() for device in plan.ring}
        picks.add((device for device in view.links if device in members), Rank.REST)
        picks.add((device for device in own if device in view.links), Rank.OWN)
        return Judgement(picks.present, picks.absent)

    def _plan(self, group: bytes, members: Mapping[bytes, Collection[bytes]], own_users: Collection[bytes]) -> Plan:
        plan = self._plans.get(group)
        if plan is not None and plan.members == members and plan.own_users == own_users:
            return plan
        own = [user for user in members if user in own_users]
        listed = dict(members)
        if not any(self._device in members[user] for user in own):  # the act that adds it may still be on its way to the group
            listed[min(own)] = (*members[min(own)], self._device)
        of_own = {device for user in own for device in listed[user]}
        user_of = {
            device: user for user, devices in members.items() if user not in own for device in devices if device not in of_own
        }
        return Plan(
            dict(members),
            own_users,
            make_ring(group, listed),
            tuple(sorted(of_own - {self._device})),
            {device: user_of[device] for device in by_pair_hash(group, self._device, user_of)},
        )

    def _pick_neighbours(self, picks: _Picks, group: bytes, plan: Plan) -> None:
        """The ring closes over those who do not answer, and they are tried where they stand.

        It does not close over those who refuse: they are alive, and hold the ring together by their own neighbours.
        """
        closed = [device for device in plan.ring if device in picks.alive or device == self._device]
        full = [device for device in plan.ring if device in picks.known or device == self._device]
        for neighbour in neighbours(group, closed, self._device):
            picks.add([neighbour.device], Rank.RING, neighbour.lesser_count)
        for neighbour in neighbours(group, full, self._device):
            if neighbour.device not in picks.alive:
                picks.add([neighbour.device], Rank.RING, neighbour.lesser_count)


class _Picks:
    """The grades given so far: each device has the best that it got.

    Args:
        view: what is known.
        device: this device, which gets none.

    Attributes:
        known: devices that are linked or may be dialled.
        alive: those of them that are linked, or are not known not to answer.
        at_hand: those of them that are linked, or did not refuse either.
        present: the grades of devices at hand.
        absent: the grades of others.
    """

    def __init__(self, view: MeshView, device: bytes) -> None:
        linked = view.links.keys()
        nobody = {device, *view.denied}
        self.known: Final = {*linked, *view.reachable} - nobody
        self.alive: Final = self.known - (set(view.failing) - linked)
        self.at_hand: Final = self.alive - (set(view.refused) - linked)
        self.present: dict[bytes, Grade] = {}
        self.absent: dict[bytes, Grade] = {}
        self.linked: Final = linked
        self._reached: Final = view.reached
        self._nobody: Final = nobody

    def by_standing(self, devices: Iterable[bytes]) -> list[bytes]:
        """Known devices of some, those first that cost no new link or likely answer; else in the same order."""
        return sorted((device for device in devices if device in self.known), key=self._standing)

    def _standing(self, device: bytes) -> int:
        if device in self.present:
            return 0
        if device in self.linked:
            return 1
        if device not in self.at_hand:
            return 4
        return 2 if device in self._reached else 3

    def add(self, devices: Iterable[bytes], rank: Rank, lesser_count: int = 0) -> None:
        """Gives devices a grade, where they have none that is better."""
        grade = Grade(rank, lesser_count)
        for device in devices:
            if device not in self._nobody:
                grades = self.present if device in self.at_hand else self.absent
                grades[device] = min(grade, grades.get(device, grade))


def _pick_users(picks: _Picks, plan: Plan) -> None:
    """GROUP_LINKS_MAX users of a group by one device each, then further devices of theirs; absent ones where some are missing.

    Where no device of a group is linked, as many more are tried at once as failed: those that live are found in few rounds.
    """
    at_hand: dict[bytes, list[bytes]] = {}
    absent: dict[bytes, list[bytes]] = {}
    for device in picks.by_standing(plan.others):
        (at_hand if device in picks.at_hand else absent).setdefault(plan.others[device], []).append(device)
    wanted_max = GROUP_LINKS_MAX if any(device in picks.linked for device in plan.ring) else GROUP_LINKS_MAX + len(absent)
    rows = zip_longest(*at_hand.values())  # the first device of each user, the second of each, …
    present = [device for row in rows for device in row if device is not None][:wanted_max]
    picks.add(present, Rank.USER)
    missing = [devices[0] for user, devices in absent.items() if user not in at_hand][: max(0, wanted_max - len(at_hand))]
    picks.add(missing, Rank.USER)
    further = (device for devices in absent.values() for device in devices if device not in missing)
    picks.add(islice(further, max(0, wanted_max - len(present) - len(missing))), Rank.USER)
