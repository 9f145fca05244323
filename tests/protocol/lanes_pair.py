"""Two machines of the lanes of one link, a wire that keeps the order, and runners that are as slow as chance has it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TypeAlias

from peersd_protocol.errors import CloseCode
from peersd_protocol.lanes import (
    Accept,
    Admit,
    Effect,
    End,
    Farewell,
    GroupId,
    LaneId,
    Lanes,
    Open,
    OpenWithProof,
    Refuse,
    SetTimer,
    Standing,
    Tell,
    Weigh,
)

Frame: TypeAlias = tuple[str, int, GroupId | None, CloseCode]
"""OPEN, TELL, PROOF, ACCEPT, REFUSE or CLOSE; the channel; the group of an OPEN; the code of a CLOSE. PLEA-OPEN and PLEA-TELL are
OPENs with a plea."""


@dataclass
class Run:
    """What a runner does for a lane.

    Attributes:
        channel: its number.
        is_proved: whether this side opened it with a proof.
        reports: what it has to tell its machine, in this order.
    """

    group: GroupId
    channel: int
    is_proved: bool = False
    reports: deque[Callable[[], list[Effect]]] = field(default_factory=deque[Callable[[], list[Effect]]])
    is_closed: bool = False


class Side:
    """One side.

    Attributes:
        open: the channels that this side believes to carry a session, by group.
        farewells: groups that this side said farewell for.
        opens: OPENs that it sent, and of these those that expect no session, and those with a plea.
        convinced: what a side stands as once it has looked at a plea, for pleas that change anything.
        admitted_count: proofs of it that were accepted.
        refusals: the probability that it admits somebody not.
    """

    def __init__(self, number: int, random: Random) -> None:
        self.random = random
        self.now_ms = 0
        self.lanes = Lanes(is_dialler=number == 0, now_ms=0)
        self.standings: dict[GroupId, Standing] = {}
        self.runs: dict[LaneId, Run] = {}
        self.open: dict[GroupId, int] = {}
        self.wishes: dict[int, bool] = {}
        self.admissions: deque[tuple[int, GroupId, bool]] = deque()
        self.outbox: deque[Frame] = deque()
        self.timer_ms: int | None = None
        self.farewells = 0
        self.opens = self.tells = self.pleas = 0
        self.convinced: Standing | None = None
        self.admitted_count = 0
        self.refusals = 0.0
        self._next_channel = 1 + number

    def set(self, group: GroupId, standing: Standing | None) -> None:
        """A group's standing changes; None drops it."""
        if standing is None:
            self.standings.pop(group, None)
        else:
            self.standings[group] = standing
        self.perform(self.lanes.set_groups(self.standings, self.now_ms))

    def join(self, group: GroupId) -> None:
        """A user of this side redeems a ticket."""
        self.perform(self.lanes.join(group, self.now_ms)[1])

    def fault(self, group: GroupId) -> None:
        """Something in the group's session is wrong, and this side closes it."""
        for lane, run in list(self.runs.items()):
            if run.group == group and not run.is_closed and self.open.get(group) == run.channel:
                self.outbox.append(("CLOSE", run.channel, None, CloseCode.BAD_CHAIN))
                self._over(lane, CloseCode.BAD_CHAIN)

    # --- Effects ----------------------------------------------------------------------------------------------------------------

    def perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case OpenWithProof(lane, group):
                    self._open(lane, group, "PROOF").is_proved = True
                case Open(lane, group, pleads) | Tell(lane, group, pleads, _):
                    kind = "TELL" if isinstance(effect, Tell) else "OPEN"
                    self._open(lane, group, f"PLEA-{kind}" if pleads else kind)
                    self.tells += isinstance(effect, Tell)
                    self.pleas += pleads
                case Admit(wish, group) | Weigh(wish, group):
                    self.admissions.append((wish, group, isinstance(effect, Weigh)))
                case Accept(lane, wish, group) | Farewell(lane, wish, group):
                    self._accept(lane, wish, group, is_farewell=isinstance(effect, Farewell))
                case Refuse(wish, _):
                    if self.wishes.pop(wish):
                        self.outbox.append(("REFUSE", wish, None, CloseCode.NORMAL))
                case End(lane, code):
                    self._end(lane, code)
                case SetTimer(at_ms):
                    assert at_ms > self.now_ms
                    self.timer_ms = at_ms

    def _open(self, lane: LaneId, group: GroupId, kind: str) -> Run:
        run = self._begin(lane, group, self._next_channel)
        self.opens += 1
        self.outbox.append((kind, self._next_channel, group, CloseCode.NORMAL))
        self._next_channel += 2
        return run

    def _begin(self, lane: LaneId, group: GroupId, channel: int) -> Run:
        assert all(run.group != group for run in self.runs.values()), "two channels of one group"
        run = self.runs[lane] = Run(group, channel)
        return run

    def _accept(self, lane: LaneId, wish: int, group: GroupId, *, is_farewell: bool) -> None:
        run = self._begin(lane, group, wish)
        if not self.wishes.pop(wish):  # withdrawn
            self._over(lane, None)
            return
        self.outbox.append(("ACCEPT", wish, None, CloseCode.NORMAL))
        if is_farewell:
            assert self.standings[group] is Standing.FORMER
            self.farewells += 1
            self.outbox.append(("CLOSE", run.channel, None, CloseCode.NOT_MEMBER))
            self._over(lane, CloseCode.NOT_MEMBER)
        else:
            assert self.standings[group] is Standing.MEMBER
            self.open[group] = wish

    def _end(self, lane: LaneId, code: CloseCode) -> None:
        run = self.runs.get(lane)
        if run is None:  # a proof whose turn never came
            self.perform(self.lanes.ended(lane, None, self.now_ms))
        elif not run.is_closed:
            self.outbox.append(("CLOSE", run.channel, None, code))
            self._over(lane, None)

    def _over(self, lane: LaneId, code: CloseCode | None) -> None:
        run = self.runs[lane]
        run.is_closed = True
        if self.open.get(run.group) == run.channel:
            del self.open[run.group]

        def over() -> list[Effect]:
            del self.runs[lane]
            return self.lanes.ended(lane, code, self.now_ms)

        run.reports.append(over)

    # --- What comes -------------------------------------------------------------------------------------------------------------

    def receive_from(self, remote: Side) -> None:
        """Takes the next frame off the wire."""
        kind, channel, group, code = remote.outbox.popleft()
        if group is not None:
            self.wishes[channel] = True
            known = group if group in self.standings else None
            pleads, expects_session = kind.startswith("PLEA"), not kind.endswith("TELL")
            asked = partial(self.lanes.requested, channel, known, self.now_ms, proof=kind == "PROOF")
            self.perform(asked(pleads=pleads, expects_session=expects_session))
            return
        if channel in self.wishes:
            self.wishes[channel] = False
            return
        lane = next((lane for lane, run in self.runs.items() if run.channel == channel and not run.is_closed), None)
        if lane is None:
            return  # closed by this side at the same time
        run = self.runs[lane]
        if kind == "ACCEPT":
            self.open[run.group] = channel
            self.admitted_count += run.is_proved
            run.reports.append(lambda: self.lanes.accepted(lane, self.now_ms))
        elif kind == "CLOSE":
            self._over(lane, code)
        else:
            run.is_closed = True

            def refused() -> list[Effect]:
                del self.runs[lane]
                return self.lanes.refused(lane, self.now_ms)

            run.reports.append(refused)

    def report(self) -> bool:
        """Some task of the runner comes to its turn; returns whether there was one."""
        waiting = [run.reports for run in self.runs.values() if run.reports]
        if self.admissions and (not waiting or self.random.random() < 0.3):
            wish, group, is_plea = self.admissions.popleft()
            if is_plea:
                has_changed = self.convinced is not None and group in self.standings
                if has_changed:
                    self.set(group, self.convinced)
                self.perform(self.lanes.weighed(wish, self.now_ms, has_changed=has_changed))
            elif group not in self.standings or self.random.random() < self.refusals:
                self.perform(self.lanes.not_admitted(wish, "banned", self.now_ms))
            else:
                self.set(group, Standing.MEMBER)
                self.perform(self.lanes.admitted(wish, self.now_ms))
            return True
        if not waiting:
            return False
        self.perform(self.random.choice(waiting).popleft()())
        return True

    def expire(self) -> None:
        """The timer, if it is due."""
        if self.timer_ms is not None and self.timer_ms <= self.now_ms:
            self.timer_ms = None
            self.perform(self.lanes.timer_expired(self.now_ms))


class Pair:
    """A link: side 0 dialled."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now_ms = 0
        self.sides = (Side(0, random), Side(1, random))

    def step(self) -> bool:
        """A frame arrives or a task gets its turn; returns whether there was anything."""
        moves: list[Callable[[], object]] = []
        for near, far in (self.sides, self.sides[::-1]):
            if near.outbox:
                moves.append(partial(far.receive_from, near))
            if near.admissions or any(run.reports for run in near.runs.values()):
                moves.append(near.report)
        if moves:
            self.random.choice(moves)()
        return bool(moves)

    def settle(self) -> None:
        """Until nothing moves."""
        while self.step():
            pass

    def advance(self, ms: int) -> None:
        """Time passes."""
        self.now_ms += ms
        for side in self.sides:
            side.now_ms = self.now_ms
            side.expire()

    def run(self, ms: int) -> None:
        """So much time passes, and everything moves as soon as it can."""
        end_ms = self.now_ms + ms
        self.settle()
        while True:
            due_ms = [side.timer_ms for side in self.sides if side.timer_ms is not None and side.timer_ms <= end_ms]
            self.advance(max(self.now_ms, min(due_ms, default=end_ms)) - self.now_ms)
            self.settle()
            if not due_ms:
                return
