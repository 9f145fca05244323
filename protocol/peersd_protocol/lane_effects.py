"""What the machine of the lanes is told of groups, and what it has done (see lanes.py)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

from peersd_protocol.errors import CloseCode

GroupId: TypeAlias = bytes
LaneId: TypeAlias = int
"""Given out by the machine, never twice. Each ends by one call of `refused` or `ended`."""
WishId: TypeAlias = int
"""An OPEN of the remote side: any number of the runner's, other than those of the OPENs that wait for their answer."""


class Standing(enum.Enum):
    """What the acts known here say of a group and the two devices of a link.

    MEMBER: both are devices of standing members; data may flow.
    FORMER: the remote device was a member's and is no more; it is told why and gets nothing else. It may hold otherwise: it is
        told so, and pleaded with if it does.
    LEAVING: this device's user is no member, by its own leave or as far as it has heard yet, and the remote device is one's, or
        may be: this side asks and tells, and answers nothing.
    OUT: this device's user is no member and has nothing to ask, and the remote device is one's. If this side has just heard of
        it, or of something since, it shows once what it knows that others may not.
    NONE: anything else.
    """

    MEMBER = "member"
    FORMER = "former"
    LEAVING = "leaving"
    OUT = "out"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Open:
    """Send OPEN, with a plea if `pleads` and there is one that fits. `accepted`, `refused` or `ended` follows."""

    lane: LaneId
    group: GroupId
    pleads: bool = False


@dataclass(frozen=True, slots=True)
class Tell:
    """Send an OPEN that expects no session, with a plea if `pleads` and there is one that fits. `refused` or `ended` follows.

    Where `is_last`, it is sent only with a plea, of acts that others may not know.
    """

    lane: LaneId
    group: GroupId
    pleads: bool = False
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class OpenWithProof:
    """Send OPEN_WITH_PROOF for who called `join`. `accepted`, `refused` or `ended` follows."""

    lane: LaneId
    group: GroupId


@dataclass(frozen=True, slots=True)
class Admit:
    """Look at the proof, and commit the admission. `admitted` or `not_admitted` follows."""

    wish: WishId
    group: GroupId


@dataclass(frozen=True, slots=True)
class Weigh:
    """Read the plea, and take of it what changes who is a member. `weighed` follows."""

    wish: WishId
    group: GroupId


@dataclass(frozen=True, slots=True)
class Accept:
    """Send ACCEPT and run a session. `ended` follows."""

    lane: LaneId
    wish: WishId
    group: GroupId


@dataclass(frozen=True, slots=True)
class Farewell:
    """Send ACCEPT, the farewell and nothing else, and close with NOT_MEMBER. `ended` follows."""

    lane: LaneId
    wish: WishId
    group: GroupId


@dataclass(frozen=True, slots=True)
class Refuse:
    """Send REFUSE; harmless if the wish is void. `reason` is for who proved to hold a ticket."""

    wish: WishId
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class End:
    """Close the lane's channel with this code, withdraw its OPEN, or give up a proof whose turn had not come. `ended` follows."""

    lane: LaneId
    code: CloseCode


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Call `timer_expired` at this time on the clock of the calls' `now_ms`; it replaces the earlier one."""

    at_ms: int


Effect: TypeAlias = Open | Tell | OpenWithProof | Admit | Weigh | Accept | Farewell | Refuse | End | SetTimer
