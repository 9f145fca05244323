"""Which channels a link carries (SPEC: O-6 to O-8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from random import Random
from typing import Final

import pytest

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
from peersd_protocol.lanes import (
    Accept,
    Admit,
    Effect,
    End,
    Farewell,
    Lanes,
    LaneState,
    Open,
    OpenWithProof,
    Refuse,
    SetTimer,
    Standing,
    Tell,
    Turn,
    Weigh,
    turn,
)
from tests.protocol.lanes_pair import Pair, Side

G, H, J = (bytes([number]) * 32 for number in (1, 2, 3))
NOW: Final = 10_000
WISH: Final = 77
MEMBER, FORMER, LEAVING, OUT, NONE = Standing


def lanes(*, is_dialler: bool = True) -> Lanes:
    """A machine whose link is old enough for the listener too."""
    return Lanes(is_dialler=is_dialler, now_ms=0)


# --- The table ------------------------------------------------------------------------------------------------------------------


def in_opening(machine: Lanes) -> int:
    [effect] = machine.set_groups({G: MEMBER}, NOW)
    assert isinstance(effect, Open)
    return effect.lane


def in_none(machine: Lanes) -> int:
    lane = in_opening(machine)
    assert machine.refused(lane, NOW) == [SetTimer(NOW + LANE_RETRY_MS)]
    return lane


def in_proving(machine: Lanes) -> int:
    """A user joins a group that another user of this device is in."""
    in_none(machine)
    lane, effects = machine.join(G, NOW)
    assert effects == [OpenWithProof(lane, G)]
    return lane


def in_redeeming(machine: Lanes) -> int:
    """A user joins a group that nobody of this device is in."""
    machine.set_groups({G: NONE}, NOW)
    return machine.join(G, NOW)[0]


def in_joining(machine: Lanes) -> int:
    lane = in_redeeming(machine)
    assert machine.accepted(lane, NOW) == []
    return lane


def in_open(machine: Lanes) -> int:
    lane = in_opening(machine)
    assert machine.accepted(lane, NOW) == []
    return lane


def in_farewell(machine: Lanes) -> int:
    assert machine.set_groups({G: FORMER}, NOW) == [SetTimer(NOW + LANE_RETRY_MS)]
    [effect] = machine.requested(1, G, NOW, proof=False)
    assert isinstance(effect, Farewell)
    return effect.lane


def in_telling(machine: Lanes) -> int:
    """Nobody opens what this side holds the other for a former member of."""
    machine.set_groups({G: FORMER}, NOW - LANE_RETRY_MS)
    [effect] = machine.timer_expired(NOW)
    assert isinstance(effect, Tell)
    return effect.lane


def in_ending(machine: Lanes) -> int:
    """A user was removed and is back before the lane was over."""
    lane = in_open(machine)
    assert machine.set_groups({G: NONE}, NOW) == [End(lane, CloseCode.NOT_MEMBER)]
    machine.set_groups({G: MEMBER}, NOW)
    return lane


STATES: Final[dict[str, Callable[[Lanes], int]]] = {
    "none": in_none,
    "opening": in_opening,
    "proving": in_proving,
    "redeeming": in_redeeming,
    "joining": in_joining,
    "open": in_open,
    "farewell": in_farewell,
    "telling": in_telling,
    "ending": in_ending,
}


def proved(machine: Lanes, _: int) -> list[Effect]:
    effects = machine.requested(WISH, G, NOW, proof=True)
    assert effects == [Admit(WISH, G)]
    return machine.set_groups({G: MEMBER}, NOW) + machine.admitted(WISH, NOW)


def not_proved(machine: Lanes, _: int) -> list[Effect]:
    effects = machine.requested(WISH, G, NOW, proof=True)
    assert effects == [Admit(WISH, G)]
    return machine.not_admitted(WISH, "banned", NOW)


def pleaded(machine: Lanes, _: int) -> list[Effect]:
    effects = machine.requested(WISH, G, NOW, pleads=True)
    assert effects == [Weigh(WISH, G)]
    return machine.weighed(WISH, NOW, has_changed=False)


def stand(standing: Standing) -> Callable[[Lanes, int], list[Effect]]:
    return lambda machine, _: machine.set_groups({G: standing}, NOW)


COMMANDS: Final[dict[str, Callable[[Lanes, int], list[Effect]]]] = {
    "OPEN": lambda machine, _: machine.requested(WISH, G, NOW, proof=False),
    "told": lambda machine, _: machine.requested(WISH, G, NOW, expects_session=False),
    "plea": pleaded,
    "good-proof": proved,
    "bad-proof": not_proved,
    "accepted": lambda machine, lane: machine.accepted(lane, NOW),
    "refused": lambda machine, lane: machine.refused(lane, NOW),
    "ended": lambda machine, lane: machine.ended(lane, CloseCode.NORMAL, NOW),
    "join": lambda machine, _: machine.join(G, NOW)[1],
    "timer": lambda machine, _: machine.timer_expired(NOW + LANE_RETRY_MS),
    "member": stand(MEMBER),
    "former": stand(FORMER),
    "leaving": stand(LEAVING),
    "stranger": stand(NONE),
    "outside": stand(OUT),
    "dropped": lambda machine, _: machine.set_groups({}, NOW),
}

# A cell holds the effects, and after a colon the state they leave where it is another one; "." is nothing at all. "out" is an End
# with NOT_MEMBER. A row ends with D or L where the dialler and the listener differ.
TABLE: Final = """
              none           opening      proving     redeeming   joining     open         farewell    telling     ending
OPEN D        accept:open    refuse       refuse      refuse      refuse      end:ending   refuse      end:ending  .
OPEN L        accept:open    end:ending   refuse      refuse      refuse      end:ending   refuse      end:ending  .
plea D        accept:open    refuse       refuse      refuse      refuse      end:ending   refuse      end:ending  .
plea L        accept:open    end:ending   refuse      refuse      refuse      end:ending   refuse      end:ending  .
told          refuse         refuse       refuse      refuse      refuse      refuse       refuse      refuse      refuse
good-proof D  accept:open    end:ending   refuse      refuse      end:ending  end:ending   end:ending  end:ending  .
good-proof L  accept:open    end:ending   end:ending  end:ending  end:ending  end:ending   end:ending  end:ending  .
bad-proof     banned         banned       banned      banned      banned      banned       banned      banned      banned
accepted      fault          .:open       .:open      .:open      fault       fault        fault       fault       .
refused       fault          timer:none   .:none      .:none      fault       fault        fault       .:none      open:opening
ended         fault          timer:none   .:none      .:none      .:none      timer:none   .:none      .:none      open:opening
join          prove:proving  end:ending   .           .           .           end:ending   end:ending  end:ending  .
timer         open:opening   .            .           .           .           .            .           .           .
member        .              .            .           .           .           .            end:ending  end:ending  .
former        .              out:ending   out:ending  out:ending  out:ending  out:ending   .           .           .
leaving       open:opening   .            .           .           .           .            end:ending  end:ending  .
stranger      .              out:ending   .           .           .           out:ending   .           end:ending  .
outside       .              end:ending   .           .           .           end:ending   .           .           .
dropped       .              end:ending   end:ending  end:ending  end:ending  end:ending   end:ending  end:ending  .
"""


def cells() -> list[tuple[str, bool, str, str]]:
    """Command, whether at the dialler, state, and what the table says."""
    head, *rows = (line.split() for line in TABLE.strip().splitlines())
    found: list[tuple[str, bool, str, str]] = []
    for command, *words in rows:
        sides = {"D": [True], "L": [False]}.get(words[0], [True, False])
        for state, cell in zip(head, words[-len(head) :], strict=True):
            found += [(command, is_dialler, state, cell) for is_dialler in sides]
    return found


def word(effect: Effect) -> str:
    match effect:
        case End(_, code):
            return {CloseCode.NORMAL: "end", CloseCode.NOT_MEMBER: "out"}[code]
        case Refuse(_, reason):
            return reason or "refuse"
        case OpenWithProof():
            return "prove"
        case SetTimer():
            return "timer"
        case _:
            return type(effect).__name__.lower()


def test_the_table_names_every_state_and_command_on_both_sides() -> None:
    named = [cell[:3] for cell in cells()]
    assert len(named) == len(set(named)) == 2 * len(STATES) * len(COMMANDS)


@pytest.mark.parametrize(("command", "is_dialler", "state", "cell"), cells())
def test_every_command_in_every_state_does_what_the_table_says(command: str, is_dialler: bool, state: str, cell: str) -> None:
    machine = lanes(is_dialler=is_dialler)
    lane = STATES[state](machine)
    before = machine.state_of(G)
    if cell == "fault":
        with pytest.raises(LocalProtocolError):
            COMMANDS[command](machine, lane)
        return
    words, _, expected = cell.partition(":")
    effects = COMMANDS[command](machine, lane)
    assert [word(effect) for effect in effects] == ([] if words == "." else [words])
    after = machine.state_of(G)
    assert after == before if not expected else (after.value if after else "none") == expected


@pytest.mark.parametrize(
    ("command", "is_dialler", "state"),
    [cell[:3] for cell in cells() if cell[0] in ("OPEN", "good-proof") and (cell[3] == "end:ending" or cell[2] == "ending")],
)
def test_an_open_that_takes_the_place_of_a_lane_is_accepted_when_that_is_over(command: str, is_dialler: bool, state: str) -> None:
    machine = lanes(is_dialler=is_dialler)
    lane = STATES[state](machine)
    COMMANDS[command](machine, lane)
    answer = Farewell if (command, state) == ("OPEN", "telling") else Accept
    assert machine.ended(lane, None, NOW) == [answer(lane + 1, WISH, G)]


@pytest.mark.parametrize("state", [state for state in STATES if state != "none"])
def test_a_proof_of_this_side_takes_the_place_of_any_lane_when_that_is_over(state: str) -> None:
    machine = lanes()
    lane = STATES[state](machine)
    proving, _ = machine.join(G, NOW)
    assert machine.ended(lane, None, NOW) == [OpenWithProof(proving, G)]


TURNS: Final = {
    # state: without proof at the dialler, at the listener; with one at the dialler, at the listener
    LaneState.OPENING: (Turn.REFUSED, Turn.REPLACES, Turn.REPLACES, Turn.REPLACES),
    LaneState.TELLING: (Turn.REPLACES,) * 4,
    LaneState.PROVING: (Turn.REFUSED, Turn.REFUSED, Turn.REFUSED, Turn.REPLACES),
    LaneState.OPEN: (Turn.REPLACES,) * 4,
    LaneState.FAREWELL: (Turn.REPLACES,) * 4,
    LaneState.ENDING: (Turn.WAITS,) * 4,
}


@pytest.mark.parametrize("state", LaneState)
def test_a_lane_and_an_open_meet_as_the_specification_has_it(state: LaneState) -> None:
    sides = [(is_proved, is_dialler) for is_proved in (False, True) for is_dialler in (True, False)]
    assert tuple(turn(state, is_dialler=is_dialler, is_proved=is_proved) for is_proved, is_dialler in sides) == TURNS[state]


# --- Opening --------------------------------------------------------------------------------------------------------------------


def test_the_dialler_opens_all_that_is_shared_in_one_burst() -> None:
    groups = {bytes([number]) * 32: standing for number, standing in enumerate([*Standing, *Standing])}
    effects = Lanes(is_dialler=True, now_ms=5).set_groups(groups, 5)
    assert effects == [
        Open(1, b"\0" * 32),
        SetTimer(5 + LANE_RETRY_MS),  # to tell a former member so
        Open(2, b"\2" * 32),
        Open(3, b"\5" * 32),
        Open(4, b"\7" * 32),
    ]


def test_the_listener_waits_and_opens_what_is_left() -> None:
    machine = Lanes(is_dialler=False, now_ms=7)
    assert machine.set_groups({G: MEMBER, H: MEMBER}, 7) == [SetTimer(7 + LISTENER_WAIT_MS)]
    assert machine.requested(WISH, G, 8, proof=False) == [Accept(1, WISH, G)]
    assert machine.timer_expired(7 + LISTENER_WAIT_MS) == [Open(2, H)]


def test_a_timer_that_runs_out_early_is_set_again() -> None:
    machine = Lanes(is_dialler=False, now_ms=0)
    machine.set_groups({G: MEMBER}, 0)
    assert machine.timer_expired(1) == [SetTimer(LISTENER_WAIT_MS)]


def test_a_later_time_does_not_push_an_earlier_one_away() -> None:
    machine = lanes()
    machine.set_groups({G: MEMBER, H: MEMBER}, 0)
    assert machine.refused(1, 0) == [SetTimer(LANE_RETRY_MS)]
    assert machine.refused(2, 10) == []
    assert machine.timer_expired(LANE_RETRY_MS) == [Open(3, G, pleads=True), SetTimer(LANE_RETRY_MS + 10)]


def test_a_listener_that_redeems_does_not_wait() -> None:
    machine = Lanes(is_dialler=False, now_ms=0)
    assert machine.join(G, 1) == (1, [OpenWithProof(1, G)])


DOUBLING: Final = [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]


def fail(machine: Lanes, opened: list[Effect], end: Callable[[int, int], list[Effect]], times: int, now_ms: int) -> list[int]:
    """The times from one Open to the next, when so many lanes end in the same way."""
    found: list[int] = []
    for _ in range(times):
        [effect] = opened
        assert isinstance(effect, Open)
        [timer] = end(effect.lane, now_ms)
        assert isinstance(timer, SetTimer)
        found.append(timer.at_ms - now_ms)
        now_ms = timer.at_ms
        opened = machine.timer_expired(now_ms)
    return found


def live(machine: Lanes, lived_ms: int, code: CloseCode | None) -> Callable[[int, int], list[Effect]]:
    """The end of a lane by the end of a session that lived so long."""

    def end(lane: int, now_ms: int) -> list[Effect]:
        machine.accepted(lane, now_ms)
        return machine.ended(lane, code, now_ms + lived_ms)

    return end


def test_waits_after_refusals_double_from_a_second_to_a_minute() -> None:
    machine = lanes()
    assert fail(machine, machine.set_groups({G: MEMBER}, NOW), machine.refused, 8, NOW) == DOUBLING
    assert DOUBLING[0] == LANE_RETRY_MS
    assert DOUBLING[-1] == LANE_RETRY_MS_MAX


@pytest.mark.parametrize("code", [None, CloseCode.NORMAL, CloseCode.BAD_CHAIN])
def test_waits_after_sessions_that_did_not_live_double_too(code: CloseCode | None) -> None:
    machine = lanes()
    end = live(machine, LANE_LIVED_MS - 1, code)
    times = fail(machine, machine.set_groups({G: MEMBER}, NOW), end, 8, NOW)
    assert [time_ms - LANE_LIVED_MS + 1 for time_ms in times] == DOUBLING


@pytest.mark.parametrize("code", [None, CloseCode.NORMAL, CloseCode.BAD_CHAIN])
def test_a_session_that_lived_starts_the_waits_over(code: CloseCode | None) -> None:
    machine = lanes()
    opened = machine.set_groups({G: MEMBER}, NOW)
    assert sum(fail(machine, opened, machine.refused, 5, NOW)) == 31_000
    end = live(machine, LANE_LIVED_MS, code)
    assert fail(machine, [Open(6, G)], end, 2, NOW + 31_000) == [LANE_LIVED_MS + LANE_RETRY_MS] * 2


def test_a_session_lives_from_its_acceptance_on() -> None:
    machine = lanes()
    opened = machine.set_groups({G: MEMBER}, 0)
    fail(machine, opened, machine.refused, 1, 0)
    assert machine.accepted(2, NOW) == []
    assert machine.ended(2, CloseCode.NORMAL, NOW + LANE_LIVED_MS - 1) == [SetTimer(NOW + LANE_LIVED_MS - 1 + 2 * LANE_RETRY_MS)]


def blamed(machine: Lanes, now_ms: int) -> list[Effect]:
    """The remote side opens, and what it sends breaks a rule; then it opens again at once."""
    [accept] = machine.requested(WISH, G, now_ms, proof=False)
    assert isinstance(accept, Accept)
    machine.ended(accept.lane, CloseCode.BAD_SIGNATURE, now_ms, is_remote_fault=True)
    return machine.requested(WISH, G, now_ms, proof=False)


def test_who_broke_a_rule_is_refused_for_waits_that_double() -> None:
    """Else each OPEN would be a session, and a line in the log: thousands a second."""
    machine = lanes(is_dialler=False)
    machine.set_groups({G: MEMBER}, 0)
    now_ms = 1
    for wait_ms in (1, 2, 4, 8, 16, 32, 60, 60):
        assert blamed(machine, now_ms) == [Refuse(WISH)]
        now_ms += wait_ms * LANE_RETRY_MS
        assert machine.requested(WISH, G, now_ms - 1, proof=False) == [Refuse(WISH)]


def test_who_broke_a_rule_is_refused_after_it_opened_again_too() -> None:
    """Its OPEN came before its rubbish was looked at, and waits for the lane's end."""
    machine = lanes(is_dialler=False)
    machine.set_groups({G: MEMBER}, 0)
    [accept] = machine.requested(1, G, 1, proof=False)
    assert isinstance(accept, Accept)
    assert machine.requested(2, G, 1, proof=False) == [End(accept.lane, CloseCode.NORMAL)]
    assert Refuse(2) in machine.ended(accept.lane, CloseCode.BAD_BODY, 2, is_remote_fault=True)


def test_a_change_of_standing_forgives_no_broken_rule_and_a_session_that_lived_does() -> None:
    machine = lanes(is_dialler=False)
    machine.set_groups({G: MEMBER}, 0)
    blamed(machine, 1)
    machine.set_groups({G: NONE}, 2)
    machine.set_groups({G: MEMBER}, 3)
    assert machine.requested(WISH, G, 4, proof=False) == [Refuse(WISH)]
    [accept] = machine.requested(WISH, G, 1 + LANE_RETRY_MS, proof=False)
    assert isinstance(accept, Accept)
    lived_ms = 1 + LANE_RETRY_MS + LANE_LIVED_MS
    machine.ended(accept.lane, CloseCode.NORMAL, lived_ms)
    blamed(machine, lived_ms)
    assert machine.requested(WISH, G, lived_ms + LANE_RETRY_MS - 1, proof=False) == [Refuse(WISH)]
    [again] = machine.requested(WISH, G, lived_ms + LANE_RETRY_MS, proof=False)
    assert isinstance(again, Accept)


def test_what_the_remote_side_finds_wrong_here_is_no_reason_to_refuse_it() -> None:
    machine = lanes(is_dialler=False)
    machine.set_groups({G: MEMBER}, 0)
    [accept] = machine.requested(1, G, 1, proof=False)
    assert isinstance(accept, Accept)
    machine.ended(accept.lane, CloseCode.BAD_SIGNATURE, 2)
    [again] = machine.requested(2, G, 2, proof=False)
    assert isinstance(again, Accept)


def test_a_change_of_standing_starts_the_waits_over_and_opens_at_once() -> None:
    machine = lanes()
    opened = machine.set_groups({G: MEMBER}, NOW)
    fail(machine, opened, machine.refused, 5, NOW)
    machine.refused(6, NOW)
    assert machine.set_groups({G: MEMBER}, NOW) == []
    assert machine.set_groups({G: NONE}, NOW) == []
    assert machine.set_groups({G: MEMBER}, NOW) == [Open(7, G)]
    assert machine.refused(7, NOW) == [SetTimer(NOW + LANE_RETRY_MS)]


def test_a_group_that_waits_is_accepted_when_the_remote_side_opens_it() -> None:
    machine = lanes()
    in_none(machine)
    assert machine.requested(WISH, G, NOW, proof=False) == [Accept(2, WISH, G)]
    assert machine.timer_expired(NOW + LANE_RETRY_MS) == []


# --- Answering ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_proved", [False, True])
@pytest.mark.parametrize("group", [None, H])
def test_an_open_for_no_group_here_is_refused_like_any_other(group: bytes | None, is_proved: bool) -> None:
    machine = lanes()
    machine.set_groups({G: MEMBER}, NOW)
    assert machine.requested(WISH, group, NOW, proof=is_proved) == [Refuse(WISH)]


@pytest.mark.parametrize("standing", [LEAVING, OUT, NONE])
def test_who_is_no_member_answers_nothing(standing: Standing) -> None:
    machine = Lanes(is_dialler=False, now_ms=NOW)
    machine.set_groups({G: standing}, NOW)
    assert machine.requested(WISH, G, NOW, proof=False) == [Refuse(WISH)]


def test_an_open_that_waits_is_judged_again_when_the_lane_is_over() -> None:
    machine = lanes()
    lane = in_ending(machine)
    assert machine.requested(WISH, G, NOW, proof=False) == []
    machine.set_groups({G: NONE}, NOW)
    assert machine.ended(lane, None, NOW) == [Refuse(WISH)]


def test_an_open_that_waits_gets_a_farewell_when_its_device_is_no_members_by_then() -> None:
    machine = lanes()
    lane = in_ending(machine)
    machine.requested(WISH, G, NOW, proof=False)
    machine.set_groups({G: FORMER}, NOW)
    assert machine.ended(lane, None, NOW) == [Farewell(lane + 1, WISH, G)]


def test_of_two_opens_that_wait_the_newer_one_stays() -> None:
    machine = lanes()
    lane = in_ending(machine)
    assert machine.requested(1, G, NOW, proof=False) == []
    assert machine.requested(2, G, NOW, proof=False) == [Refuse(1)]
    assert machine.ended(lane, None, NOW) == [Accept(lane + 1, 2, G)]


def test_a_lane_that_is_told_to_end_may_still_be_accepted_or_refused() -> None:
    machine = lanes(is_dialler=False)
    lane = in_opening(machine)
    assert machine.requested(WISH, G, NOW, proof=False) == [End(lane, CloseCode.NORMAL)]
    assert machine.accepted(lane, NOW) == []
    assert machine.refused(lane, NOW) == [Accept(lane + 1, WISH, G)]


# --- Farewells ------------------------------------------------------------------------------------------------------------------


def test_a_former_member_gets_one_farewell_in_each_wait() -> None:
    machine = lanes()
    machine.set_groups({G: FORMER}, NOW)
    given: list[int] = []
    for at_ms in range(0, 130_000, 250):
        [effect] = machine.requested(at_ms, G, NOW + at_ms, proof=False)
        if isinstance(effect, Farewell):
            given.append(at_ms)
            machine.ended(effect.lane, CloseCode.NOT_MEMBER, NOW + at_ms)
        else:
            assert effect == Refuse(at_ms)
    assert [later - earlier for earlier, later in pairwise(given)] == DOUBLING[:7]


def test_a_farewell_that_is_not_read_makes_room_for_the_next() -> None:
    machine = lanes()
    lane = in_farewell(machine)
    assert machine.requested(WISH, G, NOW + LANE_RETRY_MS, proof=False) == [End(lane, CloseCode.NORMAL)]
    assert machine.ended(lane, None, NOW + LANE_RETRY_MS) == [Farewell(lane + 1, WISH, G)]


def test_a_former_member_that_says_nothing_is_told_once() -> None:
    machine = lanes()
    assert machine.set_groups({G: FORMER}, NOW) == [SetTimer(NOW + LANE_RETRY_MS)]
    assert machine.timer_expired(NOW + LANE_RETRY_MS) == [Tell(1, G)]
    assert machine.refused(1, NOW + LANE_RETRY_MS) == []
    assert machine.timer_expired(NOW + 10**9) == []


def test_a_former_member_that_opened_the_group_need_not_be_told() -> None:
    machine = lanes()
    lane = in_farewell(machine)
    assert machine.ended(lane, CloseCode.NOT_MEMBER, NOW) == []
    assert machine.timer_expired(NOW + 10**9) == []


def test_a_farewell_that_ends_because_its_device_is_a_members_again_is_followed_by_an_open() -> None:
    machine = lanes()
    lane = in_farewell(machine)
    assert machine.set_groups({G: MEMBER}, NOW) == [End(lane, CloseCode.NORMAL)]
    assert machine.ended(lane, None, NOW) == [Open(lane + 1, G)]


def test_who_is_told_to_be_no_member_soon_asks_why_once() -> None:
    machine = lanes()
    end = live(machine, 0, CloseCode.NOT_MEMBER)
    times = fail(machine, machine.set_groups({G: MEMBER}, NOW), end, 4, NOW)
    assert times == [LANE_ASK_WHY_MS, 1_000, 2_000, 4_000]


def test_who_was_told_of_its_own_leave_says_no_more() -> None:
    machine = lanes()
    lane = in_open(machine)
    assert machine.set_groups({G: LEAVING}, NOW) == []
    assert machine.ended(lane, CloseCode.NOT_MEMBER, NOW) == []
    assert machine.timer_expired(NOW + 10**9) == []
    assert machine.set_groups({G: MEMBER}, NOW + 10**9) == [Open(lane + 1, G)]


def test_a_leave_is_not_taken_for_heard_because_who_is_told_hears_of_its_own_removal_before() -> None:
    """What it is sent comes in pieces: one ended its membership, a later one would have restored it, and held the leave."""
    leaver, hearer = lanes(), lanes(is_dialler=False)
    lane, heard = in_open(leaver), in_open(hearer)
    leaver.set_groups({G: LEAVING}, NOW)
    effects = hearer.set_groups({G: OUT}, NOW)
    assert effects == [End(heard, CloseCode.NORMAL)]
    assert leaver.ended(lane, CloseCode.NORMAL, NOW) == [SetTimer(NOW + LANE_RETRY_MS)]
    assert leaver.timer_expired(NOW + LANE_RETRY_MS) == [Open(lane + 1, G)]
    assert leaver.refused(lane + 1, NOW + LANE_RETRY_MS) == [SetTimer(NOW + 3 * LANE_RETRY_MS)]
    assert leaver.timer_expired(NOW + 3 * LANE_RETRY_MS) == [Open(lane + 2, G, pleads=True)]


def test_who_was_not_heard_tells_its_leave_again() -> None:
    machine = lanes()
    opened = machine.set_groups({G: LEAVING}, NOW)
    assert fail(machine, opened, live(machine, 0, CloseCode.NORMAL), 3, NOW) == DOUBLING[:3]


# --- Pleas ----------------------------------------------------------------------------------------------------------------------


def pleas_of(machine: Lanes, opened: list[Effect], end: Callable[[int, int], list[Effect]], times: int) -> list[bool]:
    """Which of so many lanes that follow each other are opened with a plea."""
    now_ms, found = NOW, list[bool]()
    for _ in range(times):
        [effect] = opened
        assert isinstance(effect, Open | Tell)
        found.append(effect.pleads)
        [timer] = end(effect.lane, now_ms)
        assert isinstance(timer, SetTimer)
        now_ms = timer.at_ms
        opened = machine.timer_expired(now_ms)
    return found


@pytest.mark.parametrize("standing", [MEMBER, LEAVING])
def test_who_is_refused_pleads_a_few_times(standing: Standing) -> None:
    machine = lanes()
    pleas = pleas_of(machine, machine.set_groups({G: standing}, NOW), machine.refused, 8)
    assert pleas == [False, *[True] * PLEAS_MAX, False, False, False, False]


def test_who_has_heard_why_and_holds_otherwise_pleads() -> None:
    machine = lanes()
    end = live(machine, 0, CloseCode.NOT_MEMBER)
    assert pleas_of(machine, machine.set_groups({G: MEMBER}, NOW), end, 4) == [False, False, True, True]


def test_who_lost_a_session_does_not_plead() -> None:
    for code in (None, CloseCode.NORMAL, CloseCode.BAD_CHAIN):
        machine = lanes()
        opened = machine.set_groups({G: MEMBER}, NOW)
        assert pleas_of(machine, opened, live(machine, 0, code), 4) == [False] * 4


def test_what_is_learnt_of_the_members_is_worth_another_plea() -> None:
    machine = lanes()
    machine.set_groups({G: MEMBER}, NOW)
    opened: list[Effect] = []
    for lane in range(1, 3 + PLEAS_MAX):
        machine.refused(lane, NOW)
        opened = machine.timer_expired(NOW + LANE_RETRY_MS_MAX)
    assert opened == [Open(3 + PLEAS_MAX, G)]
    machine.members_changed(G)
    machine.members_changed(H)
    machine.refused(3 + PLEAS_MAX, NOW)
    assert machine.timer_expired(NOW + LANE_RETRY_MS_MAX) == [Open(4 + PLEAS_MAX, G, pleads=True)]


def test_who_is_told_to_be_a_former_member_pleads_if_it_holds_the_other_for_one() -> None:
    machine = lanes()
    lane = in_telling(machine)
    assert machine.requested(WISH, G, NOW, expects_session=False) == [Refuse(WISH)]
    assert machine.refused(lane, NOW) == [SetTimer(NOW + LANE_RETRY_MS)]
    assert machine.timer_expired(NOW + LANE_RETRY_MS) == [Tell(lane + 1, G, pleads=True)]


def test_who_is_let_in_by_a_former_members_device_sends_it_nothing() -> None:
    """The acts that say so came by another link, while the ticket was under way."""
    machine = lanes()
    machine.set_groups({G: FORMER}, NOW)
    lane, effects = machine.join(G, NOW)
    assert effects == [OpenWithProof(lane, G)]
    assert machine.accepted(lane, NOW) == [End(lane, CloseCode.NOT_MEMBER)]


def test_who_hears_that_it_is_a_member_no_more_shows_once_what_it_knows() -> None:
    machine = lanes()
    lane = in_open(machine)
    assert machine.set_groups({G: OUT}, NOW) == [End(lane, CloseCode.NORMAL)]
    assert machine.ended(lane, CloseCode.NORMAL, NOW) == [SetTimer(NOW + LANE_RETRY_MS)]
    machine.members_changed(G)
    at_ms = NOW + LANE_RETRY_MS
    assert machine.timer_expired(at_ms) == [Tell(lane + 1, G, pleads=True, is_last=True)]
    assert machine.set_groups({G: OUT}, at_ms) == []
    assert machine.refused(lane + 1, at_ms) == []
    assert machine.timer_expired(at_ms + 10**9) == []


def out_since(machine: Lanes, before: Standing) -> None:
    """This device is no member's, and the remote one is one's; before it stood otherwise."""
    machine.set_groups({G: before}, NOW)
    [*ends] = machine.set_groups({G: OUT}, NOW)
    for effect in ends:
        assert isinstance(effect, End)
        machine.ended(effect.lane, None, NOW)


@pytest.mark.parametrize("before", [FORMER, LEAVING, NONE])
def test_who_was_no_member_with_the_other_before_shows_nothing(before: Standing) -> None:
    machine = lanes()
    out_since(machine, before)
    assert machine.timer_expired(NOW + 10**9) == []


@pytest.mark.parametrize("before", [MEMBER, FORMER, LEAVING, NONE])
def test_who_is_no_member_shows_what_it_has_heard_since(before: Standing) -> None:
    """It left, say, and was told so; and then one pleads with it that had left as well, and reaches nobody else."""
    machine = lanes()
    out_since(machine, before)
    assert not any(isinstance(effect, Tell) for effect in machine.timer_expired(NOW))
    at_ms = NOW + LANE_RETRY_MS
    machine.members_changed(G)
    [effect] = machine.set_groups({G: OUT}, at_ms)
    assert isinstance(effect, Tell)
    assert effect == Tell(effect.lane, G, pleads=True, is_last=True)
    machine.members_changed(G)
    again_ms = at_ms + LANE_RETRY_MS
    machine.refused(effect.lane, at_ms)
    assert machine.timer_expired(again_ms - 1) == [SetTimer(again_ms)]
    assert machine.timer_expired(again_ms) == [Tell(effect.lane + 1, G, pleads=True, is_last=True)]
    assert machine.refused(effect.lane + 1, again_ms) == []
    assert machine.timer_expired(again_ms + 10**9) == []


@pytest.mark.parametrize("standing", [MEMBER, LEAVING, OUT, NONE])
def test_who_is_told_to_be_a_former_member_has_nothing_to_say_else(standing: Standing) -> None:
    machine = lanes()
    machine.set_groups({G: standing}, NOW)
    before = machine.state_of(G)
    assert machine.requested(WISH, G, NOW, expects_session=False) == [Refuse(WISH)]
    assert machine.state_of(G) is before


def test_a_plea_that_makes_its_sender_a_members_device_is_accepted_like_any_open() -> None:
    machine = lanes()
    machine.set_groups({G: FORMER}, NOW)
    assert machine.requested(WISH, G, NOW, pleads=True) == [Weigh(WISH, G)]
    assert machine.set_groups({G: MEMBER}, NOW) == []
    assert machine.weighed(WISH, NOW, has_changed=True) == [Accept(1, WISH, G)]


def test_a_plea_that_expects_no_session_gets_none() -> None:
    machine = lanes()
    machine.set_groups({G: FORMER}, NOW)
    assert machine.requested(WISH, G, NOW, pleads=True, expects_session=False) == [Weigh(WISH, G)]
    assert machine.set_groups({G: MEMBER}, NOW) == []
    assert machine.weighed(WISH, NOW, has_changed=True) == [Refuse(WISH), Open(1, G)]


def test_a_plea_is_weighed_whatever_the_standing_and_a_strangers_is_refused() -> None:
    for standing in Standing:
        machine = lanes(is_dialler=False)
        machine.set_groups({G: standing}, NOW)
        assert machine.requested(WISH, G, NOW, pleads=True) == [Weigh(WISH, G)]
        if standing in (NONE, LEAVING):
            assert machine.weighed(WISH, NOW, has_changed=False)[0] == Refuse(WISH)


@pytest.mark.parametrize("standing", [FORMER, NONE])
def test_a_plea_against_which_something_is_to_be_said_is_answered_by_that_even_a_strangers(standing: Standing) -> None:
    machine = lanes()
    machine.set_groups({G: standing}, NOW)
    assert machine.requested(WISH, G, NOW, pleads=True) == [Weigh(WISH, G)]
    assert machine.weighed(WISH, NOW, has_changed=False, is_rebutted=True) == [Farewell(1, WISH, G)]
    assert machine.set_groups({G: standing}, NOW) == []
    assert machine.ended(1, CloseCode.NOT_MEMBER, NOW) == []
    assert machine.requested(WISH + 1, G, NOW, pleads=True) == [Refuse(WISH + 1)], "not at once again"


def test_a_plea_that_expects_no_session_is_refused_whatever_is_to_be_said_against_it() -> None:
    machine = lanes()
    machine.set_groups({G: FORMER}, NOW)
    machine.requested(WISH, G, NOW, pleads=True, expects_session=False)
    assert machine.weighed(WISH, NOW, has_changed=False, is_rebutted=True)[0] == Refuse(WISH)


def test_of_one_group_one_plea_is_weighed_at_a_time_and_after_one_in_vain_none_for_a_while() -> None:
    machine = lanes()
    machine.set_groups({G: NONE, H: NONE}, NOW)
    given: list[int] = []
    for at_ms in range(0, 130_000, 250):
        if machine.requested(at_ms, G, NOW + at_ms, pleads=True) == [Weigh(at_ms, G)]:
            given.append(at_ms)
            assert machine.requested(WISH, G, NOW + at_ms, pleads=True) == [Refuse(WISH)]
            assert machine.requested(WISH, H, NOW + at_ms, pleads=True) == [Weigh(WISH, H)]
            machine.weighed(WISH, NOW + at_ms, has_changed=True)  # what was of use starts the waits over
            assert machine.weighed(at_ms, NOW + at_ms, has_changed=False) == [Refuse(at_ms)]
    assert [later - earlier for earlier, later in pairwise(given)] == DOUBLING[:7]


# --- Proofs ---------------------------------------------------------------------------------------------------------------------


def test_while_a_proof_is_looked_at_the_group_is_not_opened() -> None:
    machine = lanes()
    in_none(machine)
    machine.requested(WISH, G, NOW, proof=True)
    assert machine.timer_expired(NOW + LANE_RETRY_MS) == []
    assert machine.not_admitted(WISH, None, NOW + LANE_RETRY_MS) == [Refuse(WISH), Open(2, G, pleads=True)]


def test_who_is_admitted_and_removed_before_the_answer_is_no_member() -> None:
    machine = lanes()
    machine.set_groups({G: NONE}, NOW)
    machine.requested(1, G, NOW, proof=True)
    assert machine.admitted(1, NOW) == [Refuse(1)]
    machine.requested(2, G, NOW, proof=True)
    machine.set_groups({G: FORMER}, NOW)
    assert machine.admitted(2, NOW) == [Farewell(1, 2, G)]


def test_a_proof_is_looked_at_whatever_the_standing() -> None:
    for standing in Standing:
        machine = lanes()
        machine.set_groups({G: standing}, NOW)
        assert machine.requested(WISH, G, NOW, proof=True) == [Admit(WISH, G)]


def test_a_bounded_number_of_proofs_is_looked_at() -> None:
    machine = lanes()
    machine.set_groups({G: NONE, H: NONE}, NOW)
    for wish in range(ADMISSIONS_MAX):
        assert machine.requested(wish, G, NOW, proof=True) == [Admit(wish, G)]
    assert machine.requested(WISH, H, NOW, proof=True) == [Refuse(WISH)]
    machine.not_admitted(0, None, NOW)
    assert machine.requested(WISH, H, NOW, proof=True) == [Admit(WISH, H)]


def test_a_proof_is_answered_once() -> None:
    machine = lanes()
    machine.set_groups({G: NONE}, NOW)
    machine.requested(WISH, G, NOW, proof=True)
    machine.not_admitted(WISH, None, NOW)
    with pytest.raises(LocalProtocolError):
        machine.admitted(WISH, NOW)


def test_a_lane_of_who_is_joining_stays_until_the_group_is_shared_and_ends_when_it_is_no_more() -> None:
    machine = lanes()
    lane = in_joining(machine)
    for standing in (NONE, MEMBER):
        assert machine.set_groups({G: standing}, NOW) == []
    assert machine.set_groups({G: NONE}, NOW) == [End(lane, CloseCode.NOT_MEMBER)]


def test_who_came_in_by_another_device_ends_a_lane_of_its_joining_with_who_is_no_member_any_more() -> None:
    machine = lanes()
    lane = in_joining(machine)
    assert machine.set_groups({G: FORMER}, NOW) == [End(lane, CloseCode.NOT_MEMBER)]
    machine = lanes()
    lane, _ = machine.join(G, NOW)
    assert machine.set_groups({G: FORMER}, NOW) == [End(lane, CloseCode.NOT_MEMBER)]
    assert machine.accepted(lane, NOW) == []


def test_a_group_may_be_joined_before_it_is_one_of_this_device() -> None:
    machine = lanes()
    lane, effects = machine.join(G, NOW)
    assert effects == [OpenWithProof(lane, G)]
    assert machine.set_groups({H: NONE}, NOW) == []
    assert G in machine.groups
    assert machine.accepted(lane, NOW) == []
    assert machine.set_groups({G: NONE}, NOW) == []
    assert machine.set_groups({}, NOW) == [End(lane, CloseCode.NORMAL)]


def test_joins_of_one_group_follow_each_other() -> None:
    machine = lanes()
    machine.set_groups({G: MEMBER}, NOW)
    machine.accepted(1, NOW)
    assert machine.join(G, NOW) == (2, [End(1, CloseCode.NORMAL)])
    assert machine.join(G, NOW) == (3, [])
    assert machine.ended(1, None, NOW) == [OpenWithProof(2, G)]
    assert machine.accepted(2, NOW) == [End(2, CloseCode.NORMAL)]
    assert machine.ended(2, None, NOW) == [OpenWithProof(3, G)]
    assert machine.refused(3, NOW) == [Open(4, G)]


def test_a_join_waits_until_the_one_before_it_has_made_the_group_shared() -> None:
    machine = lanes()
    lane = in_joining(machine)
    second, effects = machine.join(G, NOW)
    assert effects == []
    assert machine.set_groups({G: MEMBER}, NOW) == [End(lane, CloseCode.NORMAL)]
    assert machine.ended(lane, None, NOW) == [OpenWithProof(second, G)]


def test_who_gives_up_before_its_turn_is_forgotten() -> None:
    machine = lanes()
    lane = in_proving(machine)
    second, _ = machine.join(G, NOW)
    assert machine.ended(second, None, NOW) == []
    assert machine.ended(lane, None, NOW + LANE_RETRY_MS) == [Open(second + 1, G, pleads=True)]


def test_the_listeners_proofs_are_given_up_when_the_dialler_proves_too() -> None:
    machine = lanes(is_dialler=False)
    lane = in_proving(machine)
    second, _ = machine.join(G, NOW)
    assert proved(machine, lane) == [End(lane, CloseCode.NORMAL)]
    assert machine.ended(lane, None, NOW) == [End(second, CloseCode.NORMAL), Accept(second + 1, WISH, G)]
    assert machine.ended(second, None, NOW) == []
    assert machine.state_of(G) is LaneState.OPEN


def test_the_diallers_proof_goes_before_one_that_waits() -> None:
    machine = lanes()
    lane = in_open(machine)
    assert proved(machine, lane) == [End(lane, CloseCode.NORMAL)]
    proving, _ = machine.join(G, NOW)
    assert machine.ended(lane, None, NOW) == [Refuse(WISH), OpenWithProof(proving, G)]


@pytest.mark.parametrize("is_dialler", [True, False])
def test_a_proof_goes_before_an_open_that_waits(is_dialler: bool) -> None:
    machine = lanes(is_dialler=is_dialler)
    lane = in_open(machine)
    assert machine.requested(WISH, G, NOW, proof=False) == [End(lane, CloseCode.NORMAL)]
    proving, _ = machine.join(G, NOW)
    assert machine.ended(lane, None, NOW) == [Refuse(WISH), OpenWithProof(proving, G)]


def test_who_leaves_while_it_admits_refuses_and_tells_of_its_leave() -> None:
    machine = lanes()
    in_none(machine)
    machine.requested(WISH, G, NOW, proof=True)
    assert machine.set_groups({G: LEAVING}, NOW) == []
    assert machine.admitted(WISH, NOW) == [Refuse(WISH), Open(2, G)]


# --- The end --------------------------------------------------------------------------------------------------------------------


def test_groups_do_not_disturb_each_other() -> None:
    machine = lanes()
    machine.set_groups({G: MEMBER, H: MEMBER, J: MEMBER}, NOW)
    for lane in (1, 2, 3):
        machine.accepted(lane, NOW)
    assert machine.set_groups({H: FORMER, J: MEMBER}, NOW) == [End(2, CloseCode.NOT_MEMBER), End(1, CloseCode.NORMAL)]
    assert set(machine.groups) == {G, H, J}
    machine.ended(1, None, NOW)
    machine.ended(2, None, NOW)
    assert machine.groups == (J,)


def test_a_dropped_group_that_is_back_is_opened_when_its_old_lane_is_over() -> None:
    machine = lanes()
    lane = in_open(machine)
    machine.set_groups({}, NOW)
    assert machine.set_groups({G: MEMBER}, NOW) == []
    assert machine.ended(lane, None, NOW) == [Open(lane + 1, G)]


def test_after_the_links_end_nothing_is_decided() -> None:
    machine = lanes()
    lane = in_open(machine)
    machine.requested(1, G, NOW, proof=True)
    machine.link_down()
    assert machine.ended(lane, CloseCode.GOING_AWAY, NOW) == []
    assert machine.accepted(lane, NOW) == []
    assert machine.refused(lane, NOW) == []
    assert machine.admitted(1, NOW) == []
    assert machine.not_admitted(1, None, NOW) == []
    assert machine.weighed(1, NOW, has_changed=True) == []
    assert machine.requested(2, G, NOW, proof=False) == []
    assert machine.set_groups({G: MEMBER, H: MEMBER}, NOW) == []
    assert machine.timer_expired(NOW) == []
    joining, effects = machine.join(G, NOW)
    assert effects == [End(joining, CloseCode.GOING_AWAY)]


# --- Both sides -----------------------------------------------------------------------------------------------------------------


def share(pair: Pair, group: bytes = G, *, one: Standing = MEMBER, other: Standing = MEMBER) -> None:
    for side, standing in zip(pair.sides, (one, other), strict=True):
        side.set(group, standing)


def test_300_groups_come_up_with_one_open_each_by_the_dialler() -> None:
    pair = Pair(Random(1))
    standings = {number.to_bytes(32, "big"): MEMBER for number in range(300)}
    for side in pair.sides:
        side.standings = dict(standings)
        side.set(G, NONE)
    pair.settle()
    assert [side.opens for side in pair.sides] == [300, 0]
    assert pair.sides[0].open == pair.sides[1].open
    assert len(pair.sides[0].open) == 300


def test_a_removed_device_learns_why_and_is_left_in_peace() -> None:
    pair = Pair(Random(1))
    share(pair)
    pair.run(LISTENER_WAIT_MS)
    pair.sides[0].set(G, FORMER)
    pair.settle()
    assert pair.sides[0].farewells == 0
    pair.advance(LANE_ASK_WHY_MS)
    pair.settle()
    assert pair.sides[0].farewells == 1
    pair.sides[1].set(G, NONE)
    pair.run(600_000)
    assert pair.sides[0].farewells == 1
    assert pair.sides[1].opens == 1


def test_a_removed_device_that_does_not_hear_is_told_ever_more_rarely() -> None:
    pair = Pair(Random(1))
    share(pair, one=FORMER)
    pair.run(3_600_000)
    assert 60 <= pair.sides[0].farewells <= 66


def test_two_who_hold_each_other_for_former_members_tell_and_plead_and_come_together() -> None:
    pair = Pair(Random(1))
    share(pair, one=FORMER, other=FORMER)
    pair.sides[1].convinced = MEMBER
    pair.run(2 * LANE_RETRY_MS)
    assert pair.sides[1].standings == {G: MEMBER}
    pair.sides[0].convinced = MEMBER
    pair.run(10 * LANE_RETRY_MS)
    assert pair.sides[0].open == pair.sides[1].open != {}


@pytest.mark.parametrize(("one", "other"), [(FORMER, NONE), (NONE, FORMER), (FORMER, FORMER)])
def test_what_no_plea_changes_is_left_alone(one: Standing, other: Standing) -> None:
    pair = Pair(Random(1))
    share(pair, one=one, other=other)
    pair.run(3_600_000)
    is_mutual = one is other
    assert [side.tells for side in pair.sides] == ([1 + PLEAS_MAX] * 2 if is_mutual else [one is FORMER, other is FORMER])
    assert [side.pleas for side in pair.sides] == ([PLEAS_MAX] * 2 if is_mutual else [0, 0])
    assert [side.opens for side in pair.sides] == [side.tells for side in pair.sides]


@pytest.mark.parametrize("leaver", [0, 1])
def test_a_leave_is_told_where_it_is_not_known(leaver: int) -> None:
    pair = Pair(Random(1))
    side, other = pair.sides[leaver], pair.sides[1 - leaver]
    side.set(G, LEAVING)
    other.set(G, MEMBER)
    pair.run(LISTENER_WAIT_MS)
    assert G in side.open
    other.set(G, FORMER)  # it has heard
    opens = side.opens
    pair.run(600_000)
    assert side.opens == opens
    assert side.open == other.open == {}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("joiner", [0, 1])
def test_a_second_user_joins_over_a_link_that_carries_the_group_already(joiner: int, seed: int) -> None:
    pair = Pair(Random(seed))
    share(pair)
    pair.run(LISTENER_WAIT_MS)
    old = pair.sides[0].open[G]
    pair.sides[joiner].join(G)
    pair.settle()
    assert pair.sides[joiner].admitted_count == 1
    assert pair.sides[0].open[G] == pair.sides[1].open[G] != old


@pytest.mark.parametrize("seed", range(20))
def test_two_users_that_join_each_from_the_other_leave_one_channel(seed: int) -> None:
    pair = Pair(Random(seed))
    share(pair)
    pair.run(LISTENER_WAIT_MS)
    for side in pair.sides:
        side.join(G)
    pair.run(LANE_RETRY_MS)
    assert pair.sides[0].admitted_count == 1
    assert pair.sides[0].open == pair.sides[1].open != {}


def trouble(pair: Pair, side: Side) -> Iterable[Callable[[], None]]:
    """What may happen at a side at any time."""
    for group in (G, H):
        yield partial(side.join, group)
        yield partial(side.set, group, None)
        yield partial(side.fault, group)
        for standing in Standing:
            yield partial(side.set, group, standing)
    yield partial(pair.advance, pair.random.choice((1, 100, 1_000, 60_000)))


@pytest.mark.parametrize("seed", range(300))
def test_after_any_trouble_both_sides_have_one_and_the_same_channel_of_each_group(seed: int) -> None:
    random = Random(seed)
    pair = Pair(random)
    for side in pair.sides:
        side.refusals = 0.2
    share(pair)
    for _ in range(random.choice((3, 30, 200))):
        if random.random() < 0.3 or not pair.step():
            random.choice(list(trouble(pair, random.choice(pair.sides))))()
    for group in (G, H):
        share(pair, group)
    pair.run(2 * LANE_RETRY_MS_MAX)
    assert set(pair.sides[0].open) == {G, H}
    assert pair.sides[0].open == pair.sides[1].open
    for side in pair.sides:
        assert all(side.lanes.state_of(group) is LaneState.OPEN for group in (G, H))
        assert side.wishes == {}
