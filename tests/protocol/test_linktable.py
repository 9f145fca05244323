"""One link per remote device, and the same one on both sides (SPEC: L)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peersd_protocol.constants import DEVICES_REMEMBERED_MAX, PAST_BOOT_IDS_MAX
from peersd_protocol.errors import CloseCode, LocalProtocolError
from peersd_protocol.linktable import ALARM_CLONED, Alarm, Close, Keep, Link, LinkTable

LOW, MIDDLE, HIGH = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32


def link(link_id: int, *, remote: bytes = HIGH, ours: bool = False, boot: int = 1, replaces: int = 0) -> Link:
    """A link whose handshake hash is its id."""
    named = replaces.to_bytes(32, "big") if replaces else b""
    return Link(link_id, remote, ours, bytes([boot]) * 16, link_id.to_bytes(32, "big"), named)


def table_with(*links: Link) -> LinkTable:
    table = LinkTable(MIDDLE)
    for each in links:
        table.link_up(each)
    return table


OLD_STAYS = [Close(2, CloseCode.REPLACED)]
NEW_STAYS = [Close(1, CloseCode.REPLACED), Keep(2)]
CLONED = Alarm(ALARM_CLONED, HIGH)


def test_the_first_link_stays() -> None:
    table = LinkTable(MIDDLE)
    assert table.link_up(link(1)) == [Keep(1)]
    assert table.link_to(HIGH) == link(1)
    assert table.link_to(LOW) is None
    assert table.links == (link(1),)


# Every cell: who dialled the old link, who the new one, whether the remote device's id is lower, same boot or another, named or
# not.
CELLS = [
    (old_ours, new_ours, remote, new_boot, named)
    for old_ours in (False, True)
    for new_ours in (False, True)
    for remote in (LOW, HIGH)
    for new_boot in (False, True)
    for named in (False, True)
    if not (named and new_ours)  # only the side that dialled names a link
]


@pytest.mark.parametrize(("old_ours", "new_ours", "remote", "new_boot", "named"), CELLS)
def test_which_of_two_links_stays(old_ours: bool, new_ours: bool, remote: bytes, new_boot: bool, named: bool) -> None:
    table = table_with(link(1, remote=remote, ours=old_ours))
    effects = table.link_up(link(2, remote=remote, ours=new_ours, boot=2 if new_boot else 1, replaces=1 if named else 0))
    new_stays = {
        # (dialled old, dialled new, remote is lower), when the boot id is the same and the old link is not named
        (False, False, True): True,
        (False, False, False): True,
        (True, True, True): False,
        (True, True, False): False,
        (False, True, True): False,
        (False, True, False): True,
        (True, False, True): True,
        (True, False, False): False,
    }[old_ours, new_ours, remote == LOW]
    assert effects == (NEW_STAYS if new_boot or named or new_stays else OLD_STAYS)
    assert table.link_to(remote) == table.links[0]
    assert table.links[0].link_id == (2 if effects == NEW_STAYS else 1)


def test_naming_another_link_replaces_nothing() -> None:
    table = table_with(link(1, ours=True))
    assert table.link_up(link(2, replaces=77)) == OLD_STAYS


def test_devices_do_not_disturb_each_other() -> None:
    table = table_with(link(1, remote=LOW), link(2, remote=HIGH))
    assert table.link_up(link(3, remote=HIGH)) == [Close(2, CloseCode.REPLACED), Keep(3)]
    assert table.link_to(LOW) == link(1, remote=LOW)


def test_a_link_that_ended_makes_room_for_any_other() -> None:
    table = table_with(link(1, ours=True))
    assert table.link_down(1) == []
    assert table.link_to(HIGH) is None
    assert table.link_up(link(2)) == [Keep(2)]


def test_the_end_of_a_replaced_link_does_not_end_its_successor() -> None:
    table = table_with(link(1), link(2))
    assert table.link_down(1) == []
    assert table.link_to(HIGH) == link(2)
    assert table.link_down(99) == []


def test_a_boot_id_that_returns_while_its_successor_lives_is_alarming_and_refused() -> None:
    table = table_with(link(1, boot=1), link(2, boot=2))
    assert table.link_up(link(3, boot=1)) == [CLONED, Close(3, CloseCode.REPLACED)]
    assert table.link_to(HIGH) == link(2, boot=2)


def test_a_boot_id_that_returns_when_no_link_lives_is_alarming_and_stays() -> None:
    table = table_with(link(1, boot=1), link(2, boot=2))
    table.link_down(2)
    assert table.link_up(link(3, boot=1)) == [CLONED, Keep(3)]
    assert table.link_up(link(4, boot=2)) == [CLONED, Close(4, CloseCode.REPLACED)]


@pytest.mark.parametrize("late", [1, 2], ids=["a boot id met before", "a new one"])
@pytest.mark.parametrize("is_linked", [True, False])
def test_a_link_that_began_before_its_devices_newest_process_did_is_closed_and_not_alarming(late: int, is_linked: bool) -> None:
    """Its process ended with the handshake under way; kept, it would throw out the newer one's, which then looks like a clone."""
    table = table_with(link(1, boot=1), link(3, boot=3))
    if not is_linked:
        table.link_down(3)
    assert table.link_up(link(2, boot=late)) == [Close(2, CloseCode.REPLACED)]
    assert table.link_up(link(4, boot=3))[-1] == Keep(4)


def test_restarts_and_reconnections_raise_no_alarm() -> None:
    table = LinkTable(MIDDLE)
    link_id = 0
    for boot in range(1, 40):
        for _ in range(3):
            link_id += 1
            assert table.link_up(link(link_id, boot=boot))[-1] == Keep(link_id)
            assert all(not isinstance(effect, Alarm) for effect in table.link_up(link(1000 + link_id, boot=boot)))


def test_as_many_boot_ids_are_remembered_as_the_bound_says() -> None:
    boots = list(range(1, PAST_BOOT_IDS_MAX + 3))
    table = table_with(*(link(boot, boot=boot) for boot in boots))
    assert table.link_up(link(100, boot=2)) == [CLONED, Close(100, CloseCode.REPLACED)]
    assert table.link_up(link(101, boot=1)) == [Close(boots[-1], CloseCode.REPLACED), Keep(101)], "forgotten, so it counts as new"


def test_devices_without_a_link_are_forgotten_beyond_the_bound_and_linked_ones_never() -> None:
    table = table_with(link(1, boot=1), link(2, boot=2))
    for number in range(DEVICES_REMEMBERED_MAX + 50):
        link_id = 10 + number
        table.link_up(link(link_id, remote=b"stranger" + number.to_bytes(24, "big")))
        table.link_down(link_id)
    assert table.link_to(HIGH) == link(2, boot=2)
    assert table.link_up(link(5, boot=1))[0] == CLONED
    assert len(table._remotes) <= DEVICES_REMEMBERED_MAX + 2


def test_a_dialler_names_the_last_link_that_the_remote_side_dialled_once_it_is_gone() -> None:
    table = LinkTable(MIDDLE)
    assert table.replaces(HIGH) == b""
    table.link_up(link(1))
    assert table.replaces(HIGH) == b"", "it is not closed"
    table.link_down(1)
    assert table.replaces(HIGH) == link(1).handshake_hash
    table.link_up(link(2, ours=True))
    table.link_down(2)
    assert table.replaces(HIGH) == link(1).handshake_hash, "the other side may never have had link 2"
    table.link_up(link(3, boot=2, ours=True))
    table.link_down(3)
    assert table.replaces(HIGH) == b"", "the process that had link 1 is gone"


def test_wrong_use_is_refused() -> None:
    table = table_with(link(1))
    with pytest.raises(LocalProtocolError):
        table.link_up(link(1))
    with pytest.raises(LocalProtocolError):
        table.link_up(link(2, remote=MIDDLE))


# --- Two tables against each other --------------------------------------------------------------------------------------


@dataclass
class ModelLink:
    """A link between the two sides: what is under way to each, in order, and which ends are open."""

    number: int
    dialler: int
    boots: tuple[int, int]
    replaces: bytes
    under_way: tuple[deque[str], deque[str]] = field(default_factory=lambda: (deque(), deque()))
    is_open: list[bool] = field(default_factory=lambda: [False, False])


class Pair:
    """Two devices, their tables, and every link there ever was. Side 0 has the lower id."""

    DEVICES = (LOW, HIGH)
    DIALS_MAX = 3

    def __init__(self) -> None:
        self.tables = [LinkTable(device) for device in self.DEVICES]
        self.boots = [1, 101]
        self.dials: list[tuple[int, tuple[int, int]]] = []
        self.links: list[ModelLink] = []
        self.alarms = 0

    def dial(self, side: int) -> None:
        self.dials.append((side, (self.boots[0], self.boots[1])))

    def finish(self, dial: tuple[int, tuple[int, int]]) -> None:
        """Message 2 reaches the dialler."""
        self.dials.remove(dial)
        side, boots = dial
        other = self.DEVICES[1 - side]
        made = ModelLink(len(self.links) + 1, side, boots, self.tables[side].replaces(other))
        self.links.append(made)
        self.report(side, made)
        if made.is_open[side]:
            made.under_way[1 - side].append("message 3")

    def report(self, side: int, made: ModelLink) -> None:
        made.is_open[side] = True  # until told otherwise
        ours = made.dialler == side
        named = b"" if ours else made.replaces
        boot_id, handshake_hash = bytes([made.boots[1 - side]]) * 16, made.number.to_bytes(32, "big")
        up = Link(made.number, self.DEVICES[1 - side], ours, boot_id, handshake_hash, named)
        for effect in self.tables[side].link_up(up):
            if isinstance(effect, Close):
                closed = self.links[effect.link_id - 1]
                closed.is_open[side] = False
                if closed is not made or not ours:  # a dial that is dropped before message 3 leaves nothing to close over there
                    closed.under_way[1 - side].append("closed")
            elif isinstance(effect, Keep):
                assert [each.number for each in self.links if each.is_open[side]] == [effect.link_id], "two carry channels"
            else:
                self.alarms += 1

    def deliver(self, made: ModelLink, side: int) -> None:
        """What is first under way to `side` arrives."""
        if made.under_way[side].popleft() == "message 3":
            self.report(side, made)
        elif made.is_open[side]:
            made.is_open[side] = False
            self.tables[side].link_down(made.number)

    def break_link(self, made: ModelLink) -> None:
        """What was under way is lost; each side notices in its own time."""
        for side in (0, 1):
            made.under_way[side].clear()
            if made.is_open[side]:
                made.under_way[side].append("broken")

    def restart(self, side: int) -> None:
        self.tables[side] = LinkTable(self.DEVICES[side])
        self.boots[side] += 1
        self.dials.clear()
        for made in self.links:
            made.is_open[side] = False
            self.break_link(made)

    def current(self, side: int) -> int:
        found = self.tables[side].link_to(self.DEVICES[1 - side])
        return found.link_id if found else 0

    def moves(self) -> list[Callable[[], None]]:
        """What can happen by itself now: a dial reaches message 2, something under way arrives."""
        finishing: list[Callable[[], None]] = [partial(self.finish, dial) for dial in self.dials]
        return finishing + [partial(self.deliver, made, side) for made in self.links for side in (0, 1) if made.under_way[side]]

    def settle(self, choices: list[int]) -> None:
        """Everything under way arrives, in an order that `choices` gives."""
        turn = iter(choices)
        while moves := self.moves():
            moves[next(turn, 0) % len(moves)]()


def run_events(pair: Pair, choices: list[int], *, with_faults: bool) -> None:
    for choice in choices:
        moves = pair.moves()
        moves += [partial(pair.dial, side) for side in (0, 1) if [dial[0] for dial in pair.dials].count(side) < pair.DIALS_MAX]
        if with_faults:
            moves += [partial(pair.break_link, made) for made in pair.links if any(made.is_open)]
            moves += [partial(pair.restart, side) for side in (0, 1)]
        moves[choice % len(moves)]()


orders = st.lists(st.integers(0, 63), max_size=60)


@settings(max_examples=600)
@given(events=orders, rest=orders)
def test_any_interleaving_of_dials_settles_on_one_link_that_both_sides_have(events: list[int], rest: list[int]) -> None:
    pair = Pair()
    pair.dial(0)
    run_events(pair, events, with_faults=False)
    pair.settle(rest)
    assert pair.current(0) == pair.current(1) != 0
    assert [made.number for made in pair.links if any(made.is_open)] == [pair.current(0)]
    assert pair.alarms == 0


@settings(max_examples=600)
@given(events=orders, rest=orders, again=orders)
def test_after_breaks_and_restarts_the_next_dials_settle_on_one_link(
    events: list[int], rest: list[int], again: list[int]
) -> None:
    pair = Pair()
    run_events(pair, events, with_faults=True)
    pair.settle(rest)
    assert pair.current(0) == pair.current(1)
    if not pair.current(0):
        pair.dial(0)
        pair.dial(1)
        pair.settle(again)
    assert pair.current(0) == pair.current(1) != 0


@settings(max_examples=600)
@given(events=orders, rest=orders, noticing=st.integers(0, 1), restarts=st.booleans(), dials_lost=st.integers(0, 2))
def test_the_side_that_noticed_a_break_is_let_in_again_at_once(
    events: list[int], rest: list[int], noticing: int, restarts: bool, dials_lost: int
) -> None:
    """A laptop that changed networks redials; the other side, which still holds the old link, lets the new one replace it."""
    pair = Pair()
    pair.dial(0)
    run_events(pair, events, with_faults=False)
    pair.settle(rest)
    broken = pair.links[pair.current(0) - 1]
    if restarts:
        pair.restart(noticing)
    else:
        pair.break_link(broken)
        pair.deliver(broken, noticing)
    for _ in range(dials_lost):  # links whose message 3 never arrives
        pair.dial(noticing)
        pair.finish(pair.dials[0])
        pair.break_link(pair.links[-1])
        pair.deliver(pair.links[-1], noticing)
    pair.dial(noticing)
    pair.finish(pair.dials[0])
    fresh = pair.links[-1]
    pair.deliver(fresh, 1 - noticing)
    assert pair.current(0) == pair.current(1) == fresh.number
    pair.settle(rest)
    assert pair.current(0) == pair.current(1) == fresh.number


@pytest.mark.parametrize("first_to_arrive", [0, 1])
def test_of_two_dials_that_cross_the_lower_devices_stays_on_both_sides(first_to_arrive: int) -> None:
    pair = Pair()
    for side in (0, 1):
        pair.dial(side)
    while pair.dials:
        pair.finish(pair.dials[0])
    low, high = pair.links
    for made, side in ((low, 1), (high, 0)) if first_to_arrive == 0 else ((high, 0), (low, 1)):
        pair.deliver(made, side)
    assert pair.current(0) == pair.current(1) == low.number
    assert high.is_open == [False, False]
