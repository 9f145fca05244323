"""Cuts: what an act that takes a right leaves of its target's logs (SPEC: A, DESIGN 10).

Such an act names the tips that its author knew. What lies beyond is void on every replica, whatever it claims to have seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from peersd_protocol.act_index import ActIndex, bits_of
from peersd_protocol.acts import Cut, Cuts
from peersd_protocol.entries import Kind, LogKey


@dataclass(frozen=True, slots=True)
class Take:
    """An act that takes a right from a user.

    Attributes:
        position: of the act in the index.
        maker: the user who wrote it.
        target: the user it takes from.
        tips: per log the tips that still count; a log not named counts for nothing.
        kinds: the kinds of log it cuts.
    """

    position: int
    maker: bytes
    target: bytes
    tips: Mapping[LogKey, tuple[Cut, ...]]
    kinds: frozenset[Kind] = frozenset([Kind.CONTROL, Kind.DATA])

    @property
    def is_own(self) -> bool:
        """Whether it takes from its maker only; that needs no rank."""
        return self.maker == self.target


def tips_of(cuts: Cuts, user: bytes) -> dict[LogKey, tuple[Cut, ...]]:
    """One user's cuts by log."""
    tips: dict[LogKey, tuple[Cut, ...]] = {}
    for named, logs in cuts:
        if named == user:
            for cut in logs:
                log = LogKey(cut.kind, b"", cut.device, cut.epoch)
                tips[log] = (*tips.get(log, ()), cut)
    return tips


def has_later_grant(take: Take, grants: int, past: int, index: ActIndex) -> bool:
    """Whether a past holds a grant to the target that had seen the take.

    Args:
        take: the act that takes.
        grants: bit set of the appointments of the target. They need not stand: without one that does, the user has no role
            anyway.
        past: the past of a log's first entry.
        index: the acts.
    """
    return any(index.past[grant] >> take.position & 1 for grant in bits_of(grants & past))


def killed_by(take: Take, control_acts: int, grants: int, index: ActIndex) -> int:
    """The target's control acts that lie beyond the cuts.

    What is in the act's own past is never beyond: its author had attested it. So no act can cut away what it rests on itself.

    Args:
        take: the act that takes.
        control_acts: bit set of the target's control acts.
        grants: bit set of the appointments of the target.
        index: the acts.
    """
    if Kind.CONTROL not in take.kinds:
        return 0
    killed = 0
    for position in bits_of(control_acts & ~index.past[take.position] & ~(1 << take.position)):
        log = index.acts[position].header.log
        tips = take.tips.get(log)
        if tips is not None:
            spared = any(_is_within(position, tip, index) for tip in tips)
        else:
            spared = has_later_grant(take, grants, _past_of_first(position, log, index), index)
        if not spared:
            killed |= 1 << position
    return killed


def _is_within(position: int, tip: Cut, index: ActIndex) -> bool:
    """Whether an act is the tip or before it on its branch. A tip that is not known yet counts by its sequence alone."""
    tip_position = index.position.get(tip.hash)
    if tip_position is None:
        return index.acts[position].header.seq <= tip.seq
    return position == tip_position or bool(index.past[tip_position] >> position & 1)


def _past_of_first(position: int, log: LogKey, index: ActIndex) -> int:
    """The past of the first entry of an act's log, on the act's own branch."""
    act = index.acts[position]
    while act.header.prev and act.header.seq > 1:
        position = index.position[act.header.prev]
        act = index.acts[position]
        if act.header.log != log:
            break
    return index.past[position]
