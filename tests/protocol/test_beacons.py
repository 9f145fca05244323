"""The book of a group's beacons: what is exchanged when, what is passed on, what a hostile side cannot do (SPEC: B-3 to B-10)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from peersd_protocol.beacon_messages import (
    Counters,
    decode_beacon_message,
    encode_beacons,
    encode_counters,
    sign_beacon,
)
from peersd_protocol.beacons import Beacon, BeaconBook, Effect, Holding, Keep, Send, SetTimer, counters_summary
from peersd_protocol.constants import (
    BEACON_ADDRESSES_MAX,
    BEACON_COUNTER_MAX,
    BEACON_INTERVAL_MS,
    BEACONS_MAX,
    COUNTERS_INTERVAL_MS,
    HOLDINGS_MAX,
    SMALL_MESSAGE_BYTES,
)
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.signing import SigningKey
from peersd_protocol.tokens import NO_BEACONS

GROUP = b"g" * 32
KEYS = sorted((SigningKey(bytes([number]) * 32) for number in range(1, 9)), key=lambda key: key.public)
A, B, C, D, *_ = IDS = [key.public for key in KEYS]
DIGEST = b"d" * 16
HOLDINGS: tuple[Holding, ...] = ((b"l" * 8, 3),)
OTHER = bytes([1]) * 8
"""A summary that is nobody's."""

EMPTY_COUNTERS = encode_counters({})


def beacon(device: bytes, counter: int, url: str = "ws://a", holdings: Sequence[Holding] = HOLDINGS) -> Beacon:
    return sign_beacon(GROUP, KEYS[IDS.index(device)], counter, [url], DIGEST, holdings)


def book(own: bytes, *known: Beacon, members: Iterable[bytes] = (A, B, C, D)) -> BeaconBook:
    made = BeaconBook(GROUP, own, known)
    made.set_members(list(members), 0)
    return made


def said(effects: Iterable[Effect]) -> list[tuple[int, object]]:
    """What is sent: (session, {device: counter} of COUNTERS or [(device, counter)] of BEACONS)."""
    found: list[tuple[int, object]] = []
    for effect in effects:
        if isinstance(effect, Send):
            message = decode_beacon_message(effect.message)
            if isinstance(message, Counters):
                found.append((effect.session, dict(message.counters)))
            else:
                found.append((effect.session, [(one.device, one.counter) for one in message.beacons]))
    return found


def kept(effects: Iterable[Effect]) -> list[tuple[bytes, int]]:
    return [(effect.beacon.device, effect.beacon.counter) for effect in effects if isinstance(effect, Keep)]


def timers(effects: Iterable[Effect]) -> list[int]:
    return [effect.at_ms for effect in effects if isinstance(effect, SetTimer)]


def counter_of(made: BeaconBook, device: bytes) -> int:
    latest = made.latest(device)
    return latest.counter if latest else 0


def publish(made: BeaconBook, own: bytes, now_ms: int, url: str = "ws://a", wall_ms: int = 1_000) -> list[Effect]:
    return made.publish([url], DIGEST, HOLDINGS, now_ms, wall_ms, KEYS[IDS.index(own)])


# --- Opening --------------------------------------------------------------------------------------------------------------------


def test_nothing_is_said_where_both_sides_have_the_same_beacons() -> None:
    first, second = book(A, beacon(A, 1), beacon(B, 2)), book(B, beacon(B, 2), beacon(A, 1))
    assert first.summary() == second.summary() == counters_summary(GROUP, {A: 1, B: 2})
    assert first.session_opened(1, B, second.summary(), 0) == []
    assert second.session_opened(1, A, first.summary(), 0) == []
    # And each knows that the other has them.
    assert said(first.receive(1, encode_counters({A: 1, B: 2}), 0)) == []


def test_the_summary_is_over_members_alone_and_empty_without_beacons() -> None:
    made = BeaconBook(GROUP, A, [beacon(A, 1), beacon(B, 1)])
    assert made.summary() == NO_BEACONS
    made.set_members([A], 0)
    assert made.summary() == counters_summary(GROUP, {A: 1})
    assert book(A).summary() == NO_BEACONS


def test_where_the_summaries_differ_counters_are_told_and_newer_beacons_sent_one_message_at_a_time() -> None:
    made = book(A, beacon(A, 5), beacon(B, 2), beacon(C, 9))
    assert said(made.session_opened(1, B, OTHER, 0)) == [(1, {A: 5, B: 2, C: 9})]
    assert said(made.receive(1, encode_counters({B: 3, C: 8}), 0)) == []
    assert said(made.message_sent(1, 0)) == [(1, [(A, 5), (C, 9)])]
    assert said(made.message_sent(1, 0)) == []


def test_counters_are_told_once_in_return_if_the_other_side_has_newer_ones() -> None:
    made = book(A, beacon(A, 5))
    made.session_opened(1, B, made.summary(), 0)
    assert said(made.receive(1, encode_counters({A: 5, B: 1}), 0)) == [(1, {A: 5})]
    made.message_sent(1, 0)
    assert said(made.receive(1, encode_counters({A: 5, B: 2}), COUNTERS_INTERVAL_MS)) == []


def test_counters_are_not_told_in_return_if_nothing_newer_is_there() -> None:
    made = book(A, beacon(A, 5), beacon(B, 1))
    made.session_opened(1, B, made.summary(), 0)
    assert said(made.receive(1, encode_counters({A: 4, B: 1}), 0)) == [(1, [(A, 5)])]


def test_nothing_goes_to_a_device_that_is_no_members() -> None:
    made = book(A, beacon(A, 5), members=[A, B])
    assert made.session_opened(1, C, OTHER, 0) == []
    assert said(made.receive(1, EMPTY_COUNTERS, 0)) == []
    assert said(publish(made, A, 0, "ws://new")) == []
    # As soon as it is one, it is asked, and gets what it lacked.
    assert said(made.set_members([A, B, C], 0)) == [(1, {A: 1_000})]
    assert said(made.message_sent(1, 0)) == [(1, [(A, 1_000)])]


def test_this_devices_beacon_goes_to_all_when_it_becomes_a_members() -> None:
    made = book(A, beacon(A, 5), members=[B])
    made.session_opened(1, B, NO_BEACONS, 0)
    assert publish(made, A, 0, "ws://new") == [Keep(made.beacons()[0])]
    assert said(made.set_members([A, B], 0)) == [(1, [(A, 1_000)])]


def test_counters_of_strangers_lead_to_no_question() -> None:
    made = book(A, members=[A, B])
    made.session_opened(1, B, NO_BEACONS, 0)
    assert made.receive(1, encode_counters({C: 7}), 0) == []


def test_a_session_is_opened_once() -> None:
    made = book(A)
    made.session_opened(1, B, NO_BEACONS, 0)
    with pytest.raises(LocalProtocolError):
        made.session_opened(1, B, NO_BEACONS, 0)
    made.session_closed(1)
    assert made.message_sent(1, 0) == []
    assert said(publish(made, A, 0)) == []


# --- Passing on -----------------------------------------------------------------------------------------------------------------


def test_a_newer_beacon_is_kept_and_passed_on_to_those_that_lack_it() -> None:
    made = book(A, beacon(D, 1))
    for session, device in ((1, B), (2, C), (3, D)):
        made.session_opened(session, device, made.summary(), 0)
    made.receive(3, encode_counters({D: 2}), 0)
    made.message_sent(3, 0)
    effects = made.receive(1, encode_beacons([beacon(D, 2)]), 0)
    assert kept(effects) == [(D, 2)]
    assert said(effects) == [(2, [(D, 2)])]
    assert [one.counter for one in made.beacons()] == [2]


def test_an_older_or_equal_beacon_changes_nothing_and_is_answered_by_the_newer_one() -> None:
    made = book(A, beacon(B, 5))
    made.session_opened(1, C, made.summary(), 0)
    assert made.receive(1, encode_beacons([replace(beacon(B, 5), addresses=())]), 0) == []
    other = book(A, beacon(B, 5))
    other.session_opened(1, C, OTHER, 0)
    other.message_sent(1, 0)
    effects = other.receive(1, encode_beacons([beacon(B, 4)]), 0)
    assert kept(effects) == []
    assert said(effects) == [(1, [(B, 5)])]
    assert counter_of(other, B) == 5


def test_a_beacon_is_not_sent_again_because_an_older_one_was_under_way() -> None:
    made = book(A)
    made.session_opened(1, B, NO_BEACONS, 0)
    assert said(publish(made, A, 0)) == [(1, [(A, 1_000)])]
    made.message_sent(1, 0)
    assert made.receive(1, encode_beacons([beacon(A, 4)]), 0) == []


def test_who_reads_slowly_gets_the_newest_when_it_is_ready() -> None:
    made = book(A)
    made.session_opened(1, B, NO_BEACONS, 0)
    sent = said(publish(made, A, 0, "ws://0"))
    assert sent == [(1, [(A, 1_000)])]
    for round_ in range(1, 5):
        assert said(publish(made, A, round_ * BEACON_INTERVAL_MS, f"ws://{round_}")) == []
    assert said(made.message_sent(1, 30_000)) == [(1, [(A, 1_004)])]


def test_large_beacons_go_in_several_small_messages() -> None:
    many = [(number.to_bytes(8, "big"), 2**40) for number in range(HOLDINGS_MAX)]
    made = book(A, *(beacon(device, 1, holdings=many) for device in IDS), members=IDS)
    made.session_opened(1, B, OTHER, 0)
    made.receive(1, EMPTY_COUNTERS, 0)
    batches = []
    while sends := [effect for effect in made.message_sent(1, 0) if isinstance(effect, Send)]:
        assert len(sends[0].message) <= SMALL_MESSAGE_BYTES
        batches += said(sends)
    assert batches == [(1, [(IDS[at], 1), (IDS[at + 1], 1)]) for at in (0, 2, 4, 6)]


# --- Who counts -----------------------------------------------------------------------------------------------------------------


def test_beacons_of_strangers_are_passed_over_and_asked_for_when_they_are_members() -> None:
    made = book(A, members=[A, B])
    made.session_opened(1, B, NO_BEACONS, 0)
    assert made.receive(1, encode_beacons([beacon(C, 1)]), 0) == []
    assert made.latest(C) is None
    assert said(made.set_members([A, B, C], 0)) == [(1, {})]
    effects = made.receive(1, encode_beacons([beacon(C, 1)]), 0)
    assert kept(effects) == [(C, 1)]


def test_nothing_is_asked_where_no_member_is_new() -> None:
    made = book(A, members=[A, B, C])
    made.session_opened(1, B, NO_BEACONS, 0)
    assert made.set_members([A, B], 0) == []
    assert made.set_members([A, B], 0) == []


def test_a_former_members_beacon_is_forgotten_and_not_sent() -> None:
    made = book(A, beacon(A, 1), beacon(C, 3), beacon(D, 1))
    made.session_opened(1, B, OTHER, 0)
    made.receive(1, EMPTY_COUNTERS, 0)
    made.set_members([A, B, D], 0)
    assert made.latest(C) is None
    assert said(made.message_sent(1, 0)) == [(1, [(A, 1), (D, 1)])]
    assert made.summary() == counters_summary(GROUP, {A: 1, D: 1})


def test_this_devices_own_beacon_is_kept_although_it_is_no_members() -> None:
    made = book(A, beacon(A, 7), members=[])
    assert counter_of(made, A) == 7
    publish(made, A, 0, "ws://new", wall_ms=0)
    assert counter_of(made, A) == 8


def test_of_two_beacons_kept_from_before_the_greater_counter_counts() -> None:
    assert counter_of(BeaconBook(GROUP, A, [beacon(B, 2), beacon(B, 3), beacon(B, 1)]), B) == 3


def test_in_a_huge_group_all_replicas_count_the_same_devices() -> None:
    devices = [*IDS, *(b"\xff" + number.to_bytes(31, "big") for number in range(BEACONS_MAX))]
    one, other = book(A, beacon(B, 1), members=devices), book(C, beacon(B, 1), members=reversed(devices))
    assert one.summary() == other.summary() == counters_summary(GROUP, {B: 1})
    lower = [number.to_bytes(32, "big") for number in range(BEACONS_MAX)]
    assert book(A, beacon(B, 1), members=[*lower, *IDS]).summary() == NO_BEACONS


def test_what_a_beacon_says_can_be_asked_of_the_book() -> None:
    made = book(A, beacon(B, 2, "ws://b"))
    assert (made.addresses_of(B), made.digest_of(B), made.holdings_of(B)) == (("ws://b",), DIGEST, HOLDINGS)
    assert (made.addresses_of(C), made.digest_of(C), made.holdings_of(C)) == ((), None, ())


# --- Publishing -----------------------------------------------------------------------------------------------------------------


def test_a_beacon_is_published_when_what_it_says_has_changed_and_only_then() -> None:
    made = book(A)
    made.session_opened(1, B, NO_BEACONS, 0)
    effects = publish(made, A, 0, wall_ms=50)
    assert kept(effects) == [(A, 50)]
    assert said(effects) == [(1, [(A, 50)])]
    assert made.beacons()[0].is_signed(GROUP)
    assert publish(made, A, 60_000) == []
    key = KEYS[0]
    for number, (addresses, digest, holdings) in enumerate(
        ((["ws://b"], DIGEST, HOLDINGS), (["ws://b"], bytes(16), HOLDINGS), (["ws://b"], bytes(16), ()))
    ):
        now_ms = (number + 1) * BEACON_INTERVAL_MS
        assert kept(made.publish(addresses, digest, holdings, now_ms, 0, key)) == [(A, 51 + number)]
        assert made.publish(addresses, digest, holdings, 2 * now_ms, 0, key) == []


def test_changes_within_the_interval_are_published_at_its_end_as_they_stand_then() -> None:
    made = book(A)
    publish(made, A, 1_000)
    assert publish(made, A, 2_000, "ws://b") == [SetTimer(1_000 + BEACON_INTERVAL_MS)]
    assert publish(made, A, 3_000, "ws://c") == []
    assert made.timer_expired(5_999) == [SetTimer(1_000 + BEACON_INTERVAL_MS)]
    assert made.timer_expired(6_000) == []
    effects = publish(made, A, 6_000, "ws://d")
    assert kept(effects) == [(A, 1_001)]
    assert made.addresses_of(A) == ("ws://d",)


def test_a_change_that_is_taken_back_within_the_interval_publishes_nothing() -> None:
    made = book(A)
    publish(made, A, 0)
    publish(made, A, 1_000, "ws://b")
    assert publish(made, A, 2_000) == []
    assert made.timer_expired(BEACON_INTERVAL_MS) == []
    assert publish(made, A, BEACON_INTERVAL_MS) == []


def test_the_counter_goes_up_though_the_clock_went_back_and_after_the_counter_was_lost() -> None:
    made = book(A, beacon(A, 900, "ws://old"))
    assert kept(publish(made, A, 0, wall_ms=5)) == [(A, 901)]
    assert kept(publish(book(A), A, 0, wall_ms=2_000)) == [(A, 2_000)]


def test_only_so_many_addresses_are_published_and_only_with_the_own_key() -> None:
    made = book(A)
    made.publish([f"ws://{number}" for number in range(12)], DIGEST, (), 0, 1, KEYS[0])
    assert made.addresses_of(A) == tuple(f"ws://{number}" for number in range(BEACON_ADDRESSES_MAX))
    with pytest.raises(LocalProtocolError):
        made.publish([], DIGEST, (), 0, 1, KEYS[1])


def test_a_restored_device_takes_its_own_later_counter_and_goes_on_above_it() -> None:
    made = book(A, beacon(A, 5, "ws://now"))
    made.session_opened(1, B, OTHER, 0)
    made.message_sent(1, 0)
    made.session_opened(2, C, made.summary(), 0)
    effects = made.receive(1, encode_beacons([beacon(A, 700, "ws://then")]), 0)
    assert kept(effects) == [(A, 700)]
    assert said(effects) == [(2, [(A, 700)])]
    assert timers(effects) == [BEACON_INTERVAL_MS]
    made.message_sent(2, 0)
    made.timer_expired(BEACON_INTERVAL_MS)
    effects = publish(made, A, BEACON_INTERVAL_MS, "ws://now", wall_ms=6)
    assert kept(effects) == [(A, 701)]
    assert said(effects) == [(1, [(A, 701)]), (2, [(A, 701)])]


def test_used_up_counters_end_publishing_and_nothing_else() -> None:
    made = book(A, beacon(A, BEACON_COUNTER_MAX))
    assert publish(made, A, 0, "ws://new") == []
    assert kept(publish(book(A, beacon(A, 1)), A, 0, "ws://b", wall_ms=2**60)) == [(A, BEACON_COUNTER_MAX)]


# --- A hostile side -------------------------------------------------------------------------------------------------------------


def test_a_beacon_that_its_device_did_not_sign_closes_the_session_and_nothing_of_the_message_is_kept() -> None:
    made = book(A)
    made.session_opened(1, B, NO_BEACONS, 0)
    forged = replace(beacon(C, 5), addresses=("ws://evil",))
    with pytest.raises(RemoteProtocolError) as refused:
        made.receive(1, encode_beacons([beacon(B, 1), forged]), 0)
    assert refused.value.close_code is CloseCode.BAD_SIGNATURE
    assert made.beacons() == ()


def test_a_beacon_of_another_group_is_refused() -> None:
    made = book(A)
    made.session_opened(1, B, NO_BEACONS, 0)
    with pytest.raises(RemoteProtocolError) as refused:
        made.receive(1, encode_beacons([sign_beacon(b"x" * 32, KEYS[1], 1, [], DIGEST, [])]), 0)
    assert refused.value.close_code is CloseCode.BAD_SIGNATURE


def test_a_flood_of_newer_beacons_is_kept_and_passed_on_once_in_the_interval() -> None:
    made = book(A)
    for session, device in ((1, B), (2, C)):
        made.session_opened(session, device, NO_BEACONS, 0)
    assert kept(made.receive(1, encode_beacons([beacon(B, 1)]), 0)) == [(B, 1)]
    made.message_sent(2, 0)
    first = made.receive(1, encode_beacons([beacon(B, 2)]), 10)
    assert first == [SetTimer(BEACON_INTERVAL_MS)]
    for counter in range(3, 200):
        assert made.receive(1, encode_beacons([beacon(B, counter)]), counter) == []
    assert made.receive(1, encode_beacons([beacon(B, 100)]), 300) == []
    assert counter_of(made, B) == 1
    effects = made.timer_expired(BEACON_INTERVAL_MS)
    assert kept(effects) == [(B, 199)]
    assert said(effects) == [(2, [(B, 199)])]
    assert timers(made.receive(1, encode_beacons([beacon(B, 200)]), 5_001)) == [2 * BEACON_INTERVAL_MS]


def test_a_flood_of_one_device_does_not_delay_the_beacons_of_others() -> None:
    made = book(A)
    made.session_opened(1, B, NO_BEACONS, 0)
    made.receive(1, encode_beacons([beacon(B, 1)]), 0)
    made.receive(1, encode_beacons([beacon(B, 2)]), 1)
    assert kept(made.receive(1, encode_beacons([beacon(C, 1)]), 2)) == [(C, 1)]


def test_a_flood_of_counters_is_answered_once_in_the_interval() -> None:
    made = book(A, beacon(A, 5))
    made.session_opened(1, B, made.summary(), 0)
    assert said(made.receive(1, EMPTY_COUNTERS, 0)) == [(1, [(A, 5)])]
    made.message_sent(1, 0)
    assert made.receive(1, EMPTY_COUNTERS, 1) == [SetTimer(COUNTERS_INTERVAL_MS)]
    assert [made.receive(1, EMPTY_COUNTERS, now_ms) for now_ms in range(2, 500)] == [[]] * 498
    assert said(made.timer_expired(COUNTERS_INTERVAL_MS)) == [(1, [(A, 5)])]
    made.message_sent(1, COUNTERS_INTERVAL_MS)
    assert made.timer_expired(2 * COUNTERS_INTERVAL_MS) == []


def test_counters_are_asked_at_most_once_in_the_interval_however_often_members_change() -> None:
    made = book(A, members=[A, B])
    made.session_opened(1, B, OTHER, 0)
    made.message_sent(1, 0)
    assert made.set_members([A, B, C], 10) == [SetTimer(COUNTERS_INTERVAL_MS)]
    assert made.set_members([A, B, C, D], 20) == []
    assert said(made.timer_expired(COUNTERS_INTERVAL_MS)) == [(1, {})]


def test_a_message_that_is_not_about_beacons_is_refused() -> None:
    made = book(A)
    made.session_opened(1, B, NO_BEACONS, 0)
    with pytest.raises(RemoteProtocolError) as refused:
        made.receive(1, b"\x92\x05\x90", 0)
    assert refused.value.close_code is CloseCode.MALFORMED
