"""Cuts: what an act that takes a right leaves of its target's logs (SPEC: A, DESIGN 10).

Such an act names the tips that its author knew. What lies beyond is void on every replica, whatever it claims to have seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from peersd_protocol.act_index import ActIndex, bits_of
from peersd_protocol.acts import Ban, Cut, Cuts, DropDevice, Leave, Remove, SetRole
from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.roles import Deed, Role, may

Ending: TypeAlias = Literal["left", "removed", "banned"]
"""How a membership ends."""

CONTROL_ONLY: Final = frozenset([Kind.CONTROL])
CONTROL_AND_DATA: Final = frozenset([Kind.CONTROL, Kind.DATA])


@dataclass(frozen=True, slots=True)
class Take:
    """An act that takes a right from a user.

    Attributes:
        position: of the act in the index.
        maker: the user who wrote it.
        target: the user it takes from.
        tips: per log the tips that still count; a log not named counts for nothing.
        kinds: the kinds of log it cuts.
        device: the device whose logs alone it cuts, None for all of the target's.
        ends: how it ends the membership, None if it does not.
        lowers_to: the role that a demotion leaves, None for the others.
    """

    position: int
    maker: bytes
    target: bytes
    tips: Mapping[LogKey, tuple[Cut, ...]]
    kinds: frozenset[Kind] = CONTROL_AND_DATA
    device: bytes | None = None
    ends: Ending | None = None
    lowers_to: Role | None = None

    @property
    def is_own(self) -> bool:
        """Whether it takes from its maker only; that needs no rank."""
        return self.maker == self.target

    def cuts_log(self, log: LogKey) -> bool:
        """Whether entries of the target in a log can lie beyond its cuts."""
        return log.kind in self.kinds and self.device in (None, log.device)


def take_of(position: int, maker: bytes, body: Leave | SetRole | Remove | Ban | DropDevice) -> Take:
    """What an act takes, and from whom; of a SetRole only a demotion takes."""
    target = maker if isinstance(body, Leave) else body.user
    tips = tips_of(body.cuts or (), target)
    match body:
        case Leave():
            return Take(position, maker, target, tips, ends="left")
        case Remove():
            return Take(position, maker, target, tips, ends="removed")
        case Ban():
            return Take(position, maker, target, tips, ends="banned")
        case DropDevice():
            return Take(position, maker, target, tips, device=body.device)
        case SetRole():
            kinds = CONTROL_ONLY if may(body.role, Deed.WRITE) else CONTROL_AND_DATA
            return Take(position, maker, target, tips, kinds, lowers_to=Role(body.role))


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
    """Whether a past holds a grant to the target that had seen the take. A demotion is itself such a grant.

    Args:
        take: the act that takes.
        grants: bit set of the appointments of the target. They need not stand: what such a past allows has the take in it
            anyway.
        past: the past of a log's first entry.
        index: the acts.
    """
    if take.lowers_to is not None and past >> take.position & 1:
        return True
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
    killed = 0
    for position in bits_of(control_acts & ~index.past[take.position] & ~(1 << take.position)):
        log = index.acts[position].header.log
        if not take.cuts_log(log):
            continue
        tips = take.tips.get(log)
        if tips is not None:
            spared = any(_is_within(position, tip, index) for tip in tips)
        else:
            spared = has_later_grant(take, grants, index.past[index.first_of_log[position]], index)
        if not spared:
            killed |= 1 << position
    return killed


def _is_within(position: int, tip: Cut, index: ActIndex) -> bool:
    """Whether an act is the tip or before it on its branch. A tip that is not known yet counts by its sequence alone."""
    tip_position = index.position.get(tip.hash)
    if tip_position is None:
        return index.acts[position].header.seq <= tip.seq
    return position == tip_position or bool(index.past[tip_position] >> position & 1)
