"""Which links a device wants, which of those there are it ends, and which new ones it lets in (SPEC: L-26 to L-34, DESIGN 5).

Every device decides alone, from its own view. What keeps a group in one piece is the ring (rings.py); what brings all changes to
an end is that links are compared only by what both sides see alike (see `_worth`). A device that has no link at all in some
group, or of which it is not known in all of them where it is, is let in as a guest all the same, for a while, and displaces
nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from peersd_protocol.constants import (
    DIAL_DELAY_MS_MAX,
    GUEST_LINKS_MAX,
    IDLE_LINK_MS,
    LINK_AGE_MIN_MS,
    STRANGER_LINKS_MAX,
)
from peersd_protocol.errors import CloseCode
from peersd_protocol.mesh_ranks import Grade, Judgement, LinkView, MeshView, Plan, Rank, Ranks
from peersd_protocol.rings import pair_hash

__all__ = ["Decision", "LinkView", "Mesh", "MeshView"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do.

    Attributes:
        wanted: devices to keep linked or to dial, the most wanted first; those that do not answer last.
        close: links to end, with the codes.
        left_out: groups that get no link but as a guest, though somebody of theirs is there: `links_max` is too small for them.
        again_at_ms: when to decide again though nothing happened, on the clock of `now_ms`.
    """

    wanted: tuple[bytes, ...]
    close: tuple[tuple[bytes, CloseCode], ...] = ()
    left_out: tuple[bytes, ...] = ()
    again_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class _Order:
    """All devices that a link may be had to now, the most wanted first.

    Attributes:
        slots: the first `links_max` of them.
        beyond: those after them that are linked.
        linked_count: linked ones in all.
    """

    slots: list[bytes]
    beyond: list[bytes]
    linked_count: int


class Mesh:
    """The choice of links of one device.

    Args:
        device: its id.
    """

    def __init__(self, device: bytes) -> None:
        self._device: Final = device
        self._ranks: Final = Ranks(device)
        self._idle_since_ms: dict[bytes, int] = {}

    def decide(self, view: MeshView, now_ms: int) -> Decision:
        """What follows from a view; to be asked again whenever it changed.

        Args:
            view: what is known now.
            now_ms: monotonic time in milliseconds.
        """
        judged = self._ranks.judge(view)
        order = self._order(view, judged)
        young = [device for device in order.beyond if not _is_old(view.links[device], now_ms)]
        room = view.links_max - order.linked_count
        new = [device for device in order.slots if device not in view.links]
        # A link is dialled only when there is room for it, or another one may give way. Guests take no room.
        dialled = new[: max(0, room + min(len(young), max(0, -room)) + len(order.beyond) - len(young))]
        # But both sides let a neighbour in beside links that are too young to give way to it.
        near = [device for device in new[len(dialled) :] if judged.present[device].rank < Rank.USER]
        dialled += near[: max(0, GUEST_LINKS_MAX + room)]
        excess = sum(view.links[device].is_confirmed for device in judged.present if device in view.links) - view.links_max
        losers = [device for device in reversed(order.beyond) if device not in young and view.links[device].is_confirmed]
        again = [view.links[device].since_ms + LINK_AGE_MIN_MS for device in young if excess > 0 or len(dialled) < len(new)]
        close = [(device, CloseCode.REFUSED) for device in view.links if device in view.denied]
        # Young links without a place, such as guests, go by themselves: none goes for them.
        close += [(device, CloseCode.REFUSED) for device in losers[: max(0, excess - len(young))]]
        close += self._close_strangers(view, judged, now_ms, again)
        kept = [
            device
            for device in order.slots
            if judged.present[device].rank < Rank.REST and (device in view.links or device in dialled)
        ]
        plans = self._ranks.plans(view)
        left_out = self._left_out(view, plans, {*order.slots, *view.links})
        visited = self._visited(judged, plans, left_out, now_ms)
        if len(left_out) > GUEST_LINKS_MAX:
            again.append((now_ms // DIAL_DELAY_MS_MAX + 1) * DIAL_DELAY_MS_MAX)
        has_room = len(dialled) < room
        tried = [device for device in self._sorted(judged.absent) if has_room or judged.absent[device].rank < Rank.USER]
        return Decision(
            tuple(dict.fromkeys((*kept, *visited, *tried[: view.links_max]))),
            tuple(close),
            left_out,
            min(again, default=None),
        )

    def is_alone(self, view: MeshView, device: bytes) -> bool:
        """Whether this device has no link in some group that another one is in, but for one to that device itself."""
        others = view.links.keys() - {device}
        return any(device in plan.ring and others.isdisjoint(plan.ring) for plan in self._ranks.plans(view).values())

    def admits(self, view: MeshView, device: bytes, now_ms: int, *, is_guest: bool = False) -> bool:
        """Whether a new link, whoever dialled it, may stay.

        There is room for it, or it is worth more than another one that may give way; which of them does, `decide` says then.
        Else it may be a guest's (SPEC: L-34), of which there are a few beyond the limit, for one of three reasons: its dialler is
        alone in a group; its device has no address here, or no beacon in some group, so that nobody dials it, or others of that
        group do not, and rings do not count it, before it has told where it is; or it has a place for a better reason than that
        it shares a group, and the link that is to give way to it is too young now. Without a place it ends as others without one
        do.

        Args:
            view: what is known, without the link.
            device: the remote device.
            now_ms: monotonic time in milliseconds.
            is_guest: whether its dialler stated that it has no other link in some group.
        """
        if device in view.denied:
            return False
        trial = replace(view, links={**view.links, device: LinkView(now_ms)})
        judged = self._ranks.judge(trial)
        if device not in judged.present:
            strangers = [link for other, link in view.links.items() if other not in judged.present]
            return len(strangers) < STRANGER_LINKS_MAX or not all(link.has_channels for link in strangers)
        order = self._order(trial, judged)
        losers = [other for other in order.beyond if _is_old(trial.links[other], now_ms)]
        excess = order.linked_count - view.links_max
        leaving = min(max(0, excess - 1), GUEST_LINKS_MAX)  # without the new one there are too many already: guests, who go
        if device in order.slots and excess - leaving <= len(losers):
            return True
        is_near = device in order.slots and judged.present[device].rank < Rank.USER
        is_unheard = device not in view.reachable or device in view.unannounced
        return (is_guest or is_near or is_unheard) and excess <= GUEST_LINKS_MAX

    def _order(self, view: MeshView, judged: Judgement) -> _Order:
        ordered = self._sorted(judged.present)
        beyond = [device for device in ordered[view.links_max :] if device in view.links]
        return _Order(ordered[: view.links_max], beyond, sum(device in view.links for device in ordered))

    def _sorted(self, grades: Mapping[bytes, Grade]) -> list[bytes]:
        return sorted(grades, key=lambda device: self._worth(device, grades[device]))

    def _worth(self, device: bytes, grade: Grade) -> tuple[int, int, bytes]:
        """What decides which of two links stays where there are too many; the lesser, the more it is worth.

        Both sides see it alike (but for pinned ones, a user's word), so a change for the better at one side is one at the other,
        and changes come to an end. Were USER put above REST, three devices of which each prefers the next would replace their
        links for ever. The lot at the end lets a late comer in where all are full, and favours nobody.
        """
        return min(grade.rank, Rank.USER), grade.lesser_count, pair_hash(b"", self._device, device)

    def _close_strangers(
        self, view: MeshView, judged: Judgement, now_ms: int, again: list[int]
    ) -> Iterable[tuple[bytes, CloseCode]]:
        """Ends links to devices that no group is shared with, if they have been idle for long or there are too many."""
        strangers = [device for device in view.links if device not in judged.present and device not in view.denied]
        self._idle_since_ms = {
            device: self._idle_since_ms.get(device, now_ms) for device in strangers if not view.links[device].has_channels
        }
        excess = max(0, len(strangers) - STRANGER_LINKS_MAX)
        longest_idle = sorted(self._idle_since_ms, key=lambda device: self._idle_since_ms[device])
        for place, device in enumerate(longest_idle):
            ends_at_ms = self._idle_since_ms[device] + IDLE_LINK_MS
            if ends_at_ms <= now_ms:
                yield device, CloseCode.NORMAL
            elif place < excess:
                yield device, CloseCode.REFUSED
            else:
                again.append(ends_at_ms)
        if len(longest_idle) < len(strangers):
            again.append(now_ms + IDLE_LINK_MS)

    def _visited(self, judged: Judgement, plans: Mapping[bytes, Plan], left_out: Sequence[bytes], now_ms: int) -> list[bytes]:
        """The device to be dialled as a guest for each group that gets no link: GUEST_LINKS_MAX of them, and others in turn."""
        start = now_ms // DIAL_DELAY_MS_MAX * GUEST_LINKS_MAX % max(1, len(left_out))
        visited: list[bytes] = []
        for group in (*left_out[start:], *left_out[:start])[:GUEST_LINKS_MAX]:
            for grades in (judged.present, judged.absent):
                candidates = {device: grades[device] for device in plans[group].ring if device in grades}
                if candidates:
                    visited.append(self._sorted(candidates)[0])
                    break
        return visited

    def _left_out(self, view: MeshView, plans: Mapping[bytes, Plan], served: set[bytes]) -> tuple[bytes, ...]:
        unserved = [(group, plan) for group, plan in plans.items() if served.isdisjoint(plan.ring)]
        dead = {self._device, *view.failing, *view.denied}
        return tuple(
            group for group, plan in unserved if any(device in view.reachable and device not in dead for device in plan.ring)
        )


def _is_old(link: LinkView, now_ms: int) -> bool:
    return now_ms - link.since_ms >= LINK_AGE_MIN_MS
