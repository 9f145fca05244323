"""When to dial which address (SPEC: L)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peersd_protocol.constants import ADDRESSES_PER_DEVICE_MAX, DEVICES_REMEMBERED_MAX, DIAL_REFUSED_MS
from peersd_protocol.dialing import CancelTimer, Dial, Dialing, Effect, Patience, SetTimer
from peersd_protocol.errors import LocalProtocolError

BOB, CAROL = b"\x0b" * 32, b"\x0c" * 32
HOME, WORK, CAFE = "ws://one:1", "ws://two:2", "ws://three:3"


def at(url: str, device: bytes = BOB) -> Dial:
    return Dial(device, url)


def fail(dialing: Dialing, key: bytes = BOB, now_ms: int = 0, jitter: float = 1.0) -> list[Effect]:
    return dialing.dial_ended(key, now_ms, jitter)


def test_a_wanted_device_with_an_address_is_dialled_at_once() -> None:
    assert Dialing().want_device(BOB, [HOME]) == [at(HOME)]


def test_a_wanted_device_without_an_address_is_dialled_when_one_is_known() -> None:
    dialing = Dialing()
    assert dialing.want_device(BOB, []) == []
    assert dialing.network_changed() == []
    assert dialing.want_device(BOB, [HOME]) == [at(HOME)]


def test_wanting_again_with_nothing_new_changes_nothing() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME])
    assert dialing.want_device(BOB, [HOME]) == []
    assert fail(dialing) == [SetTimer(BOB, 500)]
    assert dialing.want_device(BOB, [HOME]) == []


def test_waits_double_from_half_a_second_to_a_minute() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME])
    waits: list[int] = []
    for _ in range(10):
        [timer] = fail(dialing, now_ms=7_000)
        assert isinstance(timer, SetTimer)
        waits.append(timer.at_ms - 7_000)
        assert dialing.timer_expired(BOB, timer.at_ms) == [at(HOME)]
    assert waits == [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]


@pytest.mark.parametrize(("jitter", "wait_ms"), [(0.0, 4_000), (0.25, 5_000), (0.5, 6_000), (1.0, 8_000)])
def test_jitter_takes_away_up_to_half(jitter: float, wait_ms: int) -> None:
    assert Patience().wait_ms(5, jitter) == wait_ms


def test_a_device_absent_for_years_is_still_dialled_every_minute() -> None:
    assert Patience().wait_ms(10**6, 1.0) == 60_000


def test_all_addresses_are_tried_before_the_wait_and_the_next_round_begins_where_the_last_ended() -> None:
    dialing = Dialing()
    assert dialing.want_device(BOB, [HOME, WORK, CAFE]) == [at(HOME)]
    assert fail(dialing) == [at(WORK)]
    assert fail(dialing) == [at(CAFE)]
    assert fail(dialing) == [SetTimer(BOB, 500)]
    assert dialing.timer_expired(BOB, 500) == [at(HOME)]


def test_a_new_address_ends_the_wait_and_only_it_is_tried() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME, WORK])
    fail(dialing)
    fail(dialing)
    assert dialing.want_device(BOB, [CAFE]) == [CancelTimer(BOB), at(CAFE)]
    assert fail(dialing, now_ms=100) == [SetTimer(BOB, 1_100)]
    assert dialing.timer_expired(BOB, 1_100) == [at(HOME)]


def test_a_new_address_during_a_dial_is_tried_next() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME, WORK])
    assert dialing.want_device(BOB, [CAFE]) == []
    assert fail(dialing) == [at(CAFE)]
    assert fail(dialing) == [at(WORK)]
    assert fail(dialing) == [SetTimer(BOB, 500)]


def test_a_changed_network_ends_all_waits_and_starts_them_over() -> None:
    dialing = Dialing()
    for device in (BOB, CAROL):
        dialing.want_device(device, [HOME])
        for _ in range(3):
            fail(dialing, device)
            dialing.timer_expired(device, 0)
        fail(dialing, device)
    assert dialing.network_changed() == [CancelTimer(BOB), CancelTimer(CAROL), at(HOME), at(HOME, CAROL)]
    assert fail(dialing) == [SetTimer(BOB, 500)]


def test_a_changed_network_during_a_dial_tries_all_again_after_it() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME])
    assert dialing.network_changed() == []
    assert fail(dialing) == [at(HOME)]
    assert fail(dialing) == [SetTimer(BOB, 500)]


def test_a_linked_device_is_not_dialled() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME])
    assert dialing.linked(BOB, 0, is_dialled=True) == []
    assert dialing.network_changed() == []
    assert dialing.want_device(BOB, [WORK]) == []
    assert dialing.timer_expired(BOB, 10) == []


def test_a_link_that_the_other_side_dialled_ends_the_wait() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME])
    fail(dialing)
    assert dialing.linked(BOB, 0) == [CancelTimer(BOB)]
    assert dialing.timer_expired(BOB, 500) == [], "a timer that expires all the same"


def test_a_device_that_dialled_us_before_it_was_wanted_is_not_dialled() -> None:
    dialing = Dialing()
    assert dialing.linked(BOB, 0) == []
    assert dialing.want_device(BOB, [HOME]) == []
    assert dialing.unlinked(BOB, 0, 1.0) == [SetTimer(BOB, 500)]


def test_a_dial_that_ends_while_linked_is_not_repeated() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME, WORK])
    dialing.linked(BOB, 0)
    assert fail(dialing) == []


def test_after_a_link_that_lived_the_waits_start_over() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME])
    for _ in range(5):
        fail(dialing)
        dialing.timer_expired(BOB, 0)
    dialing.linked(BOB, 1_000, is_dialled=True)
    assert dialing.unlinked(BOB, 31_000, 1.0) == [SetTimer(BOB, 31_500)]


def test_after_a_link_that_did_not_live_they_grow() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME])
    for now_ms, wait_ms in ((0, 500), (10_000, 1_000), (20_000, 2_000)):
        dialing.linked(BOB, now_ms, is_dialled=True)
        assert dialing.unlinked(BOB, now_ms + 999, 1.0) == [SetTimer(BOB, now_ms + 999 + wait_ms)]
        assert dialing.timer_expired(BOB, 0) == [at(HOME)]


def test_a_link_reported_again_keeps_its_age() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME])
    fail(dialing)
    dialing.linked(BOB, 0)
    dialing.linked(BOB, 29_999)
    assert dialing.unlinked(BOB, 30_000, 1.0) == [SetTimer(BOB, 30_500)]


def test_a_link_lost_during_a_dial_waits_for_that_dial() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME])
    dialing.linked(BOB, 0)
    assert dialing.unlinked(BOB, 100, 1.0) == []
    assert fail(dialing, now_ms=200) == [SetTimer(BOB, 700)]


def test_what_is_not_wanted_is_neither_dialled_nor_waited_for() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME])
    assert dialing.unwant(BOB) == []
    assert fail(dialing) == []
    dialing.want_device(CAROL, [HOME])
    fail(dialing, CAROL)
    assert dialing.unwant(CAROL) == [CancelTimer(CAROL)]
    assert dialing.unwant(CAROL) == []
    assert dialing.unlinked(CAROL, 0, 1.0) == []
    assert dialing.linked(CAROL, 0) == []
    assert dialing.targets == ()


def test_wanted_again_during_the_old_dial_there_is_still_one() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME])
    dialing.unwant(BOB)
    assert dialing.want_device(BOB, [HOME]) == [], "the old dial is still under way"
    assert fail(dialing) == [SetTimer(BOB, 500)]


def test_the_newest_addresses_push_out_the_oldest() -> None:
    dialing = Dialing()
    urls = [f"ws://host:{port}" for port in range(ADDRESSES_PER_DEVICE_MAX + 5)]
    dialing.want_device(BOB, urls[5:])
    assert dialing.want_device(BOB, urls[:5]) == []
    tried: list[str] = []
    while isinstance(effect := fail(dialing)[0], Dial):
        tried.append(effect.url)
    assert tried == [*urls[:5], *urls[6:16], urls[5]], "the last was under way before"


def test_dials_beyond_the_bound_queue_and_take_turns() -> None:
    dialing = Dialing(in_flight_max=2)
    devices = [bytes([number]) * 32 for number in range(4)]
    effects = [effect for device in devices for effect in dialing.want_device(device, [HOME, WORK])]
    assert effects == [at(HOME, devices[0]), at(HOME, devices[1])]
    assert fail(dialing, devices[0]) == [at(HOME, devices[2])]
    assert dialing.unwant(devices[3]) == []
    assert fail(dialing, devices[1]) == [at(WORK, devices[0])]
    assert dialing.linked(devices[1], 0) == []
    assert fail(dialing, devices[2]) == [at(WORK, devices[2])]
    assert dialing.linked(devices[0], 0, is_dialled=True) == []


def test_the_end_of_a_dial_that_nobody_began_is_our_own_fault() -> None:
    with pytest.raises(LocalProtocolError):
        fail(Dialing())
    with pytest.raises(LocalProtocolError):
        Dialing().linked(BOB, 0, is_dialled=True)


def test_only_what_is_wanted_is_dialled() -> None:
    dialing = Dialing()
    assert dialing.want_only({BOB: [HOME], CAROL: [WORK]}) == [at(HOME), at(WORK, CAROL)]
    assert dialing.want_only({CAROL: [WORK]}) == []
    assert dialing.targets == (CAROL,)


def test_a_device_that_is_wanted_again_waits_on_where_it_left_off() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME])
    assert fail(dialing, now_ms=1_000) == [SetTimer(BOB, 1_500)]
    assert dialing.want_only({}) == [CancelTimer(BOB)]
    assert dialing.failing == {BOB}
    assert dialing.want_only({BOB: [HOME]}) == [SetTimer(BOB, 1_500)]
    assert dialing.want_only({BOB: [HOME]}) == []
    assert dialing.timer_expired(BOB, 1_500) == [at(HOME)]
    assert fail(dialing, now_ms=1_500) == [SetTimer(BOB, 2_500)]


def test_a_new_address_of_a_device_that_is_wanted_again_is_tried_at_once_alone() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME])
    assert fail(dialing, now_ms=1_000) == [SetTimer(BOB, 1_500)]
    dialing.timer_expired(BOB, 1_500)
    assert fail(dialing, now_ms=1_500) == [SetTimer(BOB, 2_500)]
    dialing.unwant(BOB)
    assert dialing.want_only({BOB: [WORK, HOME]}) == [at(WORK)]
    assert fail(dialing, now_ms=1_600) == [SetTimer(BOB, 3_600)], "the waits do not start over"


def test_a_dial_that_fails_after_its_target_was_unwanted_counts() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME])
    dialing.unwant(BOB)
    assert fail(dialing, now_ms=1_000) == []
    assert dialing.failing == {BOB}
    assert dialing.want_device(BOB, [HOME]) == [SetTimer(BOB, 1_500)]


def test_who_did_not_answer_is_failing_until_a_link_or_another_network() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME, WORK])
    assert dialing.failing == set()
    fail(dialing)
    assert dialing.failing == set(), "an address is left"
    fail(dialing)
    assert dialing.failing == {BOB}
    dialing.linked(BOB, 0)
    assert dialing.failing == set()
    dialing.unlinked(BOB, 0, 1.0)
    assert dialing.failing == set(), "it was there a moment ago"
    dialing.timer_expired(BOB, 0)
    fail(dialing)
    fail(dialing)
    assert dialing.failing == {BOB}
    dialing.network_changed()
    assert dialing.failing == set()


@pytest.mark.parametrize(("jitter", "wait_ms"), [(0.0, DIAL_REFUSED_MS // 2), (1.0, DIAL_REFUSED_MS)])
def test_who_wants_no_link_is_not_dialled_again_at_once_even_after_a_link_that_lived(jitter: float, wait_ms: int) -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME, WORK])
    dialing.linked(BOB, 0, is_dialled=True)
    assert dialing.unlinked(BOB, 100_000, jitter, is_refused=True) == [SetTimer(BOB, 100_000 + wait_ms)]
    assert (set(dialing.refused), set(dialing.failing)) == ({BOB}, set())
    assert dialing.timer_expired(BOB, 200_000) == [at(HOME)]
    dialing.linked(BOB, 200_000, is_dialled=True)
    assert dialing.refused == set()


def test_the_waits_for_who_refuses_again_and_again_grow() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME])
    waits = []
    for _ in range(9):
        dialing.linked(BOB, 0, is_dialled=True)
        [timer] = dialing.unlinked(BOB, 40_000, 1.0, is_refused=True)
        assert isinstance(timer, SetTimer)
        waits.append(timer.at_ms - 40_000)
        dialing.timer_expired(BOB, timer.at_ms)
    assert waits == [10_000] * 5 + [16_000, 32_000, 60_000, 60_000]


def test_a_dial_whose_link_this_side_dropped_counts_as_refused_and_tries_no_other_address() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME, WORK])
    assert dialing.dial_ended(BOB, 0, 1.0, is_refused=True) == [SetTimer(BOB, DIAL_REFUSED_MS)]
    assert (set(dialing.refused), set(dialing.failing)) == ({BOB}, set())
    dialing.timer_expired(BOB, DIAL_REFUSED_MS)
    fail(dialing)
    fail(dialing)
    assert (set(dialing.refused), set(dialing.failing)) == (set(), {BOB})


def test_who_ended_a_link_that_it_dialled_is_waited_for_when_it_becomes_wanted() -> None:
    dialing = Dialing()
    dialing.linked(BOB, 0)
    assert dialing.unlinked(BOB, 1_000, 1.0, is_refused=True) == []
    assert dialing.refused == {BOB}
    assert dialing.want_device(BOB, [HOME]) == [SetTimer(BOB, 1_000 + DIAL_REFUSED_MS)]


def test_a_refusal_while_a_dial_is_under_way_is_waited_for_when_that_ends() -> None:
    dialing = Dialing()
    dialing.want_device(BOB, [HOME, WORK])
    dialing.linked(BOB, 0)
    assert dialing.unlinked(BOB, 1_000, 1.0, is_refused=True) == []
    assert fail(dialing, now_ms=2_000) == [SetTimer(BOB, 1_000 + DIAL_REFUSED_MS)]


def test_unwanted_devices_are_remembered_up_to_a_bound() -> None:
    dialing = Dialing()
    for number in range(DEVICES_REMEMBERED_MAX + 1):
        device = number.to_bytes(32, "big")
        dialing.want_device(device, [HOME])
        fail(dialing, device)
        dialing.unwant(device)
    assert len(dialing.failing) == DEVICES_REMEMBERED_MAX
    assert bytes(32) not in dialing.failing


class Driver:
    """Performs a Dialing's effects and checks what must always hold."""

    def __init__(self) -> None:
        self.in_flight: set[bytes] = set()
        self.timers: set[bytes] = set()
        self.linked: set[bytes] = set()
        self.with_urls: set[bytes] = set()
        self.dialing = Dialing(in_flight_max=2)

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Dial):
                assert effect.device not in self.in_flight, "two dials for one device"
                assert effect.device not in self.linked, "a dial although linked"
                self.in_flight.add(effect.device)
            elif isinstance(effect, SetTimer):
                self.timers.add(effect.device)
            else:
                assert effect.device in self.timers, "nothing to cancel"
                self.timers.remove(effect.device)

    def step(self, what: int, device: bytes, url: str) -> None:
        dialing, key = self.dialing, min(self.in_flight, key=str, default=None)
        if what == 0:
            self.with_urls.add(device)
            self.perform(dialing.want_device(device, [url]))
        elif what == 2:
            self.with_urls.discard(device)
            self.perform(dialing.unwant(device))
        elif what == 3:
            self.perform(dialing.network_changed())
        elif what == 4 and key is not None:
            self.in_flight.remove(key)
            self.perform(dialing.dial_ended(key, 0, 0.5))
        elif what == 5 and key is not None:
            self.in_flight.remove(key)
            self.linked.add(key)
            self.perform(dialing.linked(key, 0, is_dialled=True))
        elif what == 6:
            self.linked.add(device)
            self.perform(dialing.linked(device, 0))
        elif what == 7:
            self.linked.discard(device)
            self.perform(dialing.unlinked(device, 0, 0.5))
        elif what == 9:
            self.linked.discard(device)
            self.perform(dialing.unlinked(device, 0, 0.5, is_refused=True))
        elif what == 10 and key is not None:
            self.in_flight.remove(key)
            self.perform(dialing.dial_ended(key, 0, 0.5, is_refused=True))
        elif what == 11:
            self.with_urls = {device}
            self.perform(dialing.want_only({device: [url]}))
        elif what == 8 and self.timers:
            timer = min(self.timers, key=str)
            self.timers.remove(timer)
            self.perform(dialing.timer_expired(timer, 0))

    def check(self) -> None:
        assert len(self.in_flight) <= 2
        assert not self.timers & (self.in_flight | self.linked)
        if len(self.in_flight) < 2:  # else it may be queued
            idle = self.with_urls - self.linked - self.in_flight - self.timers
            assert not idle, "wanted, reachable, and nothing will happen"


@settings(max_examples=500)
@given(
    st.lists(
        st.tuples(st.integers(0, 11), st.sampled_from([BOB, CAROL, b"d" * 32]), st.sampled_from([HOME, WORK, CAFE])), max_size=60
    )
)
def test_whatever_happens_each_wanted_device_is_linked_dialled_or_waited_for(steps: list[tuple[int, bytes, str]]) -> None:
    driver = Driver()
    for what, device, url in steps:
        driver.step(what, device, url)
        driver.check()
