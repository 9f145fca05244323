"""Which channels a link carries: one lane a group, opened, answered, ended and opened again (SPEC: O-6 to O-8, DESIGN 5).

A lane is a group's place on the link. A channel takes it from the OPEN on, and gives it back when it is over; only then does the
next one get it, so that no two sessions of one group ever run over one link.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from peersd_protocol.constants import (
    ADMISSIONS_MAX,
    LANE_ASK_WHY_MS,
    LANE_LIVED_MS,
    LANE_RETRY_MS,
    LANE_RETRY_MS_MAX,
    LISTENER_WAIT_MS,
    PLEAS_MAX,
)
from peersd_protocol.errors import CloseCode, LocalProtocolError
from peersd_protocol.lane_effects import (
    Accept,
    Admit,
    Effect,
    End,
    Farewell,
    GroupId,
    LaneId,
    Open,
    OpenWithProof,
    Refuse,
    SetTimer,
    Standing,
    Tell,
    Weigh,
    WishId,
)

__all__ = [
    "Accept",
    "Admit",
    "Effect",
    "End",
    "Farewell",
    "GroupId",
    "LaneId",
    "LaneState",
    "Lanes",
    "Open",
    "OpenWithProof",
    "Refuse",
    "SetTimer",
    "Standing",
    "Tell",
    "Turn",
    "Weigh",
    "WishId",
    "turn",
]

_OPENS: Final = (Standing.MEMBER, Standing.LEAVING)
"""In which this side opens, and a lane may stay."""

_APART: Final = (Standing.OUT, Standing.NONE)
"""In which no lane stays but one that shows or proves something."""


class LaneState(enum.Enum):
    """What a lane is doing.

    OPENING: this side's OPEN is not answered. TELLING: nor is one that expects no session. PROVING: nor is one with a redemption.
    OPEN: accepted, by whichever side. FAREWELL: accepted to say why there will be nothing. ENDING: told to end, and not over.
    """

    OPENING = "opening"
    TELLING = "telling"
    PROVING = "proving"
    OPEN = "open"
    FAREWELL = "farewell"
    ENDING = "ending"


class Turn(enum.Enum):
    """What happens to an OPEN of the remote side that may be accepted, when the group has a lane."""

    REFUSED = "refused"
    REPLACES = "replaces"
    """The lane is ended and the OPEN waits for that."""
    WAITS = "waits"


def turn(state: LaneState, *, is_dialler: bool, is_proved: bool) -> Turn:
    """Decides between a lane and an OPEN of the remote side (SPEC: O-8).

    Where both sides open at once, a proof goes before none, and among equals the dialler's goes first; both sides see that alike.
    Who opens a group that has a lane here already has ended that lane, and this side has not heard of it or not finished yet.
    What expects no session goes before nothing.

    Args:
        state: of the lane.
        is_dialler: whether this side dialled.
        is_proved: whether the OPEN came with a proof that was found good.
    """
    if state is LaneState.ENDING:
        return Turn.WAITS
    is_crossing = state is LaneState.PROVING if is_proved else state is LaneState.OPENING
    if (is_crossing and is_dialler) or (state is LaneState.PROVING and not is_proved):
        return Turn.REFUSED
    return Turn.REPLACES


@dataclass(slots=True)
class _Lane:
    """A group's lane.

    Attributes:
        since_ms: when it became open.
        is_joining: it was accepted for a proof, and the acts that came over it do not make the group shared yet.
    """

    id: LaneId
    state: LaneState
    since_ms: int
    is_joining: bool = False


@dataclass(slots=True)
class _Patience:
    """When this side opens again; to a former member, when it says farewell again; to who broke a rule, when it accepts again.

    Attributes:
        wait_ms: the last wait; 0 if there was none since the standing changed or a session lived.
        not_before_ms: infinite if there is nothing left to be said.
    """

    wait_ms: int = 0
    not_before_ms: float = -math.inf

    def back_off(self, now_ms: int, wait_ms_max: int) -> None:
        self.wait_ms = min(wait_ms_max, max(LANE_RETRY_MS, 2 * self.wait_ms))
        self.not_before_ms = now_ms + self.wait_ms


@dataclass(slots=True)
class _Dispute:
    """Whether the two sides are known to hold different things of who is a member, since the standing changed.

    Attributes:
        has_asked_why: the remote side closed a lane with NOT_MEMBER, and was asked for its farewell.
        has_told: the remote side was told that it is held for a former member's device, or has opened as a member's would; or was
            shown what this device knows, which is no member's.
        is_on: what the remote side did is not what it would do if it knew what this side knows; or may not be, if this device is
            no member's any more, or has heard of something since.
        pleas: how often this side has pleaded.
    """

    has_asked_why: bool = False
    has_told: bool = False
    is_on: bool = False
    pleas: int = 0

    @property
    def pleads(self) -> bool:
        return self.is_on and self.pleas < PLEAS_MAX


@dataclass(slots=True)
class _Place:
    """A group on this link.

    Attributes:
        is_known: it was in the last map of standings.
        lane: the one it has.
        joins: lanes with a proof of this side that wait until the group has none.
        waiting: an OPEN of the remote side that waits for the same, and whether it was proved.
        admissions: OPENs whose proof or plea is being looked at.
        blame: before when nothing is accepted, because the remote side broke a rule in the last lane.
        telling: when this side may open again expecting no session.
        pleas: before when no plea is looked at, because the last one changed nothing; infinite while one is looked at.
    """

    group: GroupId
    standing: Standing = Standing.NONE
    is_known: bool = False
    lane: _Lane | None = None
    joins: deque[LaneId] = field(default_factory=deque[LaneId])
    waiting: tuple[WishId, bool] | None = None
    admissions: int = 0
    patience: _Patience = field(default_factory=_Patience)
    blame: _Patience = field(default_factory=_Patience)
    dispute: _Dispute = field(default_factory=_Dispute)
    telling: _Patience = field(default_factory=_Patience)
    pleas: _Patience = field(default_factory=_Patience)

    @property
    def has_to_open(self) -> bool:
        if self.standing is Standing.FORMER:
            return self.dispute.pleads or not self.dispute.has_told
        if self.standing is Standing.OUT:
            return self.dispute.pleads and not self.dispute.has_told
        return self.standing in _OPENS

    @property
    def is_idle(self) -> bool:
        return self.lane is None and not self.joins and not self.admissions


class Lanes:
    """Decides what is opened, accepted, refused and ended on one link.

    Effects are to be performed in their order. After `link_down` all commands do nothing.

    Args:
        is_dialler: whether this side dialled the link.
        now_ms: monotonic time in milliseconds, as in all calls.
        retry_ms_max: the longest wait before a lane is opened again.
    """

    def __init__(self, *, is_dialler: bool, now_ms: int, retry_ms_max: int = LANE_RETRY_MS_MAX) -> None:
        self._is_dialler: Final = is_dialler
        self._retry_ms_max: Final = retry_ms_max
        self._opens_from_ms: Final = now_ms if is_dialler else now_ms + LISTENER_WAIT_MS
        self._places: dict[GroupId, _Place] = {}
        self._lanes: dict[LaneId, _Place] = {}
        self._admissions: dict[WishId, _Place] = {}
        self._pleas: dict[WishId, bool] = {}
        """The wishes among these that plead, and whether each expects a session."""
        self._lane_ids = count(1)
        self._timer_ms = math.inf
        self._is_down = False
        self._effects: list[Effect] = []

    @property
    def groups(self) -> tuple[GroupId, ...]:
        """The groups that have a lane, whatever it is doing, or wait for one with a proof."""
        return tuple(place.group for place in self._places.values() if place.lane or place.joins)

    def state_of(self, group: GroupId) -> LaneState | None:
        """What a group's lane is doing; None if it has none."""
        place = self._places.get(group)
        return place.lane.state if place and place.lane else None

    # --- What changes on this side ----------------------------------------------------------------------------------------------

    def set_groups(self, standings: Mapping[GroupId, Standing], now_ms: int) -> list[Effect]:
        """Says how all groups of this device stand: at the start, and whenever groups or memberships may have changed.

        A group that is not named any more is closed here. One that nothing is known of but its id, because somebody redeems a
        ticket for it, may be named with NONE or be missing until then.
        """
        for group, standing in standings.items():
            place = self._place(group)
            place.is_known = True
            self._set_standing(place, standing, now_ms)
            self._settle(place, now_ms)
        for group in [group for group in self._places if group not in standings]:
            place = self._places[group]
            if place.is_known:
                place.is_known = False
                self._end(place, CloseCode.NORMAL)
            self._set_standing(place, Standing.NONE, now_ms)
            if place.is_idle:
                del self._places[group]
        return self._finish()

    def members_changed(self, group: GroupId) -> None:
        """What is known of a group's members has changed, maybe not for the two devices: a plea may say something new."""
        place = self._places.get(group)
        if place is not None:
            place.dispute.pleas = 0
            if place.standing is Standing.OUT:  # what it has heard of since may have been told to it alone
                place.dispute.is_on, place.dispute.has_told = True, False

    def join(self, group: GroupId, now_ms: int) -> tuple[LaneId, list[Effect]]:
        """Opens a lane with a proof, after ending the one that there is; several joins of one group follow each other.

        OpenWithProof comes when it is its turn. Who gives up before that, or before the answer, calls `ended`.
        """
        lane = next(self._lane_ids)
        if self._is_down:
            return lane, [End(lane, CloseCode.GOING_AWAY)]
        place = self._place(group)
        self._lanes[lane] = place
        place.joins.append(lane)
        self._settle(place, now_ms)
        return lane, self._finish()

    def timer_expired(self, now_ms: int) -> list[Effect]:
        """The time of the last SetTimer has come. An early expiry does no harm."""
        self._timer_ms = math.inf
        for place in self._places.values():
            self._settle(place, now_ms)
        return self._finish()

    def link_down(self) -> None:
        """The link is over, and everything on it."""
        self._is_down = True

    # --- What the remote side asks for ------------------------------------------------------------------------------------------

    def requested(
        self,
        wish: WishId,
        group: GroupId | None,
        now_ms: int,
        *,
        proof: bool = False,
        pleads: bool = False,
        expects_session: bool = True,
    ) -> list[Effect]:
        """Takes an OPEN.

        Args:
            wish: names it.
            group: the one that its token names; None if it names none of this device's.
            now_ms: now.
            proof: whether it holds a redemption.
            pleads: whether it holds a plea instead.
            expects_session: whether its sender holds this device for a member's, or has something to ask.
        """
        place = None if group is None else self._places.get(group)
        is_too_much = (proof or pleads) and len(self._admissions) >= ADMISSIONS_MAX
        if place is None or is_too_much or (pleads and place.pleas.not_before_ms > now_ms):
            self._effects.append(Refuse(wish))
        elif proof or pleads:
            place.admissions += 1
            self._admissions[wish] = place
            if pleads:
                place.pleas.not_before_ms = math.inf
                self._pleas[wish] = expects_session
            self._effects.append(Weigh(wish, place.group) if pleads else Admit(wish, place.group))
        elif not expects_session:
            self._note_told(place, wish, now_ms)
        else:
            self._judge(place, wish, now_ms, is_proved=False)
        return self._finish()

    def admitted(self, wish: WishId, now_ms: int) -> list[Effect]:
        """The proof is good, and its user is a member: `set_groups` has said so before, else this OPEN is like any other."""
        place = self._end_admission(wish)
        if place is not None:
            self._judge(place, wish, now_ms, is_proved=True)
            self._settle(place, now_ms)
        return self._finish()

    def not_admitted(self, wish: WishId, reason: str | None, now_ms: int) -> list[Effect]:
        """The proof is not good, its user may not come in, or the remote side has withdrawn."""
        place = self._end_admission(wish)
        if place is not None:
            self._effects.append(Refuse(wish, reason))
            self._settle(place, now_ms)
        return self._finish()

    def weighed(self, wish: WishId, now_ms: int, *, has_changed: bool, is_rebutted: bool = False) -> list[Effect]:
        """A plea was looked at; its OPEN is like any other from here on, or answered by why the plea is in vain.

        Args:
            wish: whose it is.
            now_ms: now.
            has_changed: whether something of it was taken, in which case `set_groups` has said before what follows from it.
            is_rebutted: whether there is something to be said against it.
        """
        place = self._end_admission(wish)
        if place is not None:
            place.pleas.not_before_ms = now_ms
            if has_changed:
                place.pleas = _Patience()
            else:
                place.pleas.back_off(now_ms, self._retry_ms_max)
            if not self._pleas.pop(wish):
                self._note_told(place, wish, now_ms)
            elif is_rebutted and place.lane is None and place.blame.not_before_ms <= now_ms:
                self._bid_farewell(place, wish, now_ms)
            else:
                self._judge(place, wish, now_ms, is_proved=False)
                self._settle(place, now_ms)
        return self._finish()

    # --- What becomes of lanes --------------------------------------------------------------------------------------------------

    def accepted(self, lane: LaneId, now_ms: int) -> list[Effect]:
        """The remote side has accepted a lane that this side opens."""
        place, current = self._find(lane)
        if place is None or current is None or current.state is LaneState.ENDING:
            return []  # a lane that is told to end may still be answered
        if current.state not in (LaneState.OPENING, LaneState.PROVING):
            raise LocalProtocolError(f"accepted while {current.state.value}")
        current.is_joining = current.state is LaneState.PROVING and place.standing is not Standing.MEMBER
        current.state = LaneState.OPEN
        current.since_ms = now_ms
        if place.standing is Standing.FORMER:  # it redeemed there, and knows better by now than who let it in
            self._end(place, CloseCode.NOT_MEMBER)
        self._settle(place, now_ms)
        return self._finish()

    def refused(self, lane: LaneId, now_ms: int) -> list[Effect]:
        """The remote side has refused a lane that this side opens."""
        _, current = self._find(lane)
        if current is not None and current.state in (LaneState.OPEN, LaneState.FAREWELL):
            raise LocalProtocolError(f"refused while {current.state.value}")
        return self.ended(lane, None, now_ms)

    def ended(self, lane: LaneId, code: CloseCode | None, now_ms: int, *, is_remote_fault: bool = False) -> list[Effect]:
        """A lane is over, and nothing of it runs any more.

        Args:
            lane: also one that `join` gave and whose turn had not come.
            code: how its channel was closed, by either side; None if it was none yet, or something of this side's was wrong.
            now_ms: now.
            is_remote_fault: whether this side closed it because the remote side broke a rule.
        """
        place, current = self._find(lane)
        if place is None:
            return []
        del self._lanes[lane]
        if current is None:
            if lane in place.joins:
                place.joins.remove(lane)
        else:
            place.lane = None
            self._note_end(place, current, code, now_ms)
            if is_remote_fault:
                place.blame.back_off(now_ms, self._retry_ms_max)
        self._settle(place, now_ms)
        return self._finish()

    # --- Within -----------------------------------------------------------------------------------------------------------------

    def _finish(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return [] if self._is_down else effects

    def _place(self, group: GroupId) -> _Place:
        place = self._places.get(group)
        if place is None:
            place = self._places[group] = _Place(group)
        return place

    def _find(self, lane: LaneId) -> tuple[_Place | None, _Lane | None]:
        """A lane's place, and the lane if it is its turn."""
        if self._is_down:
            return None, None
        place = self._lanes.get(lane)
        if place is None:
            raise LocalProtocolError(f"there is no lane {lane}")
        return place, place.lane if place.lane and place.lane.id == lane else None

    def _set_standing(self, place: _Place, standing: Standing, now_ms: int) -> None:
        if standing is not place.standing:
            was_member, place.standing = place.standing is Standing.MEMBER, standing
            place.patience, place.telling = _Patience(), _Patience()
            place.dispute = _Dispute(is_on=was_member and standing is Standing.OUT)
            # Who takes itself for a member opens by then, and need not be told what its own OPEN is answered with.
            place.telling.not_before_ms = now_ms + LANE_RETRY_MS
        lane = place.lane
        if lane is None:
            return
        if standing is Standing.MEMBER:
            lane.is_joining = False
        is_joining = lane.is_joining or lane.state is LaneState.PROVING
        if lane.state in (LaneState.FAREWELL, LaneState.TELLING):
            # A farewell may be a stranger's, too, who pleaded in vain.
            stays = _APART if lane.state is LaneState.FAREWELL else (Standing.OUT,)
            if standing is not Standing.FORMER and standing not in stays:
                self._end(place, CloseCode.NORMAL)
        elif standing is Standing.FORMER or (standing in _APART and not is_joining):
            # Who knows of its own membership by now, and that the remote device is no member's, must not send it anything.
            # And who is none itself must not say that the other is none: it would take a leave for heard.
            self._end(place, CloseCode.NORMAL if standing is Standing.OUT else CloseCode.NOT_MEMBER)

    def _end_admission(self, wish: WishId) -> _Place | None:
        if self._is_down:
            return None
        place = self._admissions.pop(wish, None)
        if place is None:
            raise LocalProtocolError("an answer to an OPEN that asked for none")
        place.admissions -= 1
        return place

    def _judge(self, place: _Place, wish: WishId, now_ms: int, *, is_proved: bool) -> None:
        """Refuses an OPEN, or has it wait for the end of the lane that there is."""
        lane = place.lane
        step = turn(lane.state, is_dialler=self._is_dialler, is_proved=is_proved) if lane else Turn.WAITS
        if step is Turn.REFUSED or not self._may_answer(place, now_ms):
            self._effects.append(Refuse(wish))
            return
        if place.waiting is not None:
            self._effects.append(Refuse(place.waiting[0]))  # who opens again has given that one up
        place.waiting = wish, is_proved
        if step is Turn.REPLACES:
            self._end(place, CloseCode.NORMAL)
        self._settle(place, now_ms)

    def _note_told(self, place: _Place, wish: WishId, now_ms: int) -> None:
        """The remote side holds this device for a former member's. If it is itself held for one, it is to know why."""
        self._effects.append(Refuse(wish))
        place.dispute.is_on |= place.standing is Standing.FORMER
        self._settle(place, now_ms)

    def _may_answer(self, place: _Place, now_ms: int) -> bool:
        if place.blame.not_before_ms > now_ms:
            return False
        if place.standing is Standing.FORMER:
            return place.patience.not_before_ms <= now_ms
        return place.standing is Standing.MEMBER

    def _end(self, place: _Place, code: CloseCode) -> None:
        if place.lane is not None and place.lane.state is not LaneState.ENDING:
            place.lane.state = LaneState.ENDING
            self._effects.append(End(place.lane.id, code))

    def _note_end(self, place: _Place, lane: _Lane, code: CloseCode | None, now_ms: int) -> None:
        """Decides how long to wait. A lane that this side ended, or proved for, or a farewell, costs nothing."""
        if lane.state is LaneState.TELLING:
            place.telling.back_off(now_ms, self._retry_ms_max)
        if lane.state not in (LaneState.OPENING, LaneState.OPEN):
            return
        if lane.state is LaneState.OPEN and now_ms - lane.since_ms >= LANE_LIVED_MS:
            place.patience, place.blame, place.dispute = _Patience(), _Patience(), _Dispute()
        patience, dispute = place.patience, place.dispute
        if code is not CloseCode.NOT_MEMBER or dispute.has_asked_why:
            patience.back_off(now_ms, self._retry_ms_max)
            dispute.is_on |= lane.state is LaneState.OPENING or code is CloseCode.NOT_MEMBER
        else:
            dispute.has_asked_why = True
            patience.not_before_ms = now_ms + LANE_ASK_WHY_MS
        if code is CloseCode.NOT_MEMBER and place.standing is Standing.LEAVING:
            patience.not_before_ms = math.inf  # the remote side has heard of it

    def _settle(self, place: _Place, now_ms: int) -> None:
        """Gives a free place to who has a claim to it; frees it for a proof of this side."""
        lane = place.lane
        if lane is not None:
            if place.joins and lane.state is not LaneState.PROVING and not lane.is_joining:
                self._end(place, CloseCode.NORMAL)
            return
        waiting, place.waiting = place.waiting, None
        if waiting is not None:
            wish, is_proved = waiting
            goes_first = not place.joins or (is_proved and not self._is_dialler)
            if goes_first and self._may_answer(place, now_ms):
                self._answer(place, wish, now_ms)
                return
            self._effects.append(Refuse(wish))
        if place.joins:
            self._effects.append(OpenWithProof(self._take(place, LaneState.PROVING, now_ms, place.joins.popleft()), place.group))
        else:
            self._open_if_due(place, now_ms)

    def _answer(self, place: _Place, wish: WishId, now_ms: int) -> None:
        """Accepts an OPEN. Proofs of this side that waited have met the dialler's, which goes first, and are given up."""
        while place.joins:
            self._effects.append(End(place.joins.popleft(), CloseCode.NORMAL))
        if place.standing is Standing.MEMBER:
            self._effects.append(Accept(self._take(place, LaneState.OPEN, now_ms), wish, place.group))
        else:
            self._bid_farewell(place, wish, now_ms)

    def _bid_farewell(self, place: _Place, wish: WishId, now_ms: int) -> None:
        place.patience.back_off(now_ms, self._retry_ms_max)
        place.dispute.has_told = True  # it is no former member in its own eyes, and pleads itself
        self._effects.append(Farewell(self._take(place, LaneState.FAREWELL, now_ms), wish, place.group))

    def _open_if_due(self, place: _Place, now_ms: int) -> None:
        if not place.has_to_open or place.admissions:
            return
        dispute, is_last = place.dispute, place.standing is Standing.OUT
        is_telling = is_last or place.standing is Standing.FORMER
        at_ms = max(self._opens_from_ms, (place.telling if is_telling else place.patience).not_before_ms)
        if at_ms > now_ms:
            if at_ms < self._timer_ms:
                self._timer_ms = at_ms
                self._effects.append(SetTimer(int(at_ms)))
            return
        pleads = dispute.pleads
        dispute.pleas += pleads
        dispute.has_told |= is_telling
        lane = self._take(place, LaneState.TELLING if is_telling else LaneState.OPENING, now_ms)
        self._effects.append(Tell(lane, place.group, pleads, is_last) if is_telling else Open(lane, place.group, pleads))

    def _take(self, place: _Place, state: LaneState, now_ms: int, lane: LaneId | None = None) -> LaneId:
        assert place.lane is None
        lane = next(self._lane_ids) if lane is None else lane
        place.lane = _Lane(lane, state, now_ms)
        self._lanes[lane] = place
        return lane
