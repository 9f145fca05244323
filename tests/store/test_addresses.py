"""Which addresses of devices are kept, in which order, and for how long."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from peersd.node.addresses import Addresses
from peersd.store.local_state import LocalState
from peersd_protocol.constants import ADDRESSES_PER_DEVICE_MAX, BEACON_ADDRESSES_MAX

A, B, C, D = (bytes([number]) * 32 for number in range(1, 5))


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalState]:
    state = LocalState(tmp_path / "node.db")
    yield state
    state.close()


@pytest.fixture
def book(local: LocalState) -> Addresses:
    return Addresses(local, itertools.count(1_000).__next__)


def kept(local: LocalState) -> Addresses:
    """The book as a restart finds it."""
    return Addresses(local)


def test_the_address_that_answered_last_comes_first_also_after_a_restart(book: Addresses, local: LocalState) -> None:
    for url in ("ws://1", "ws://2", "ws://3", "ws://1"):
        book.answered(A, url)
    assert book.of(A) == kept(local).of(A) == ["ws://1", "ws://3", "ws://2"]
    assert book.of(B) == []


def test_addresses_that_answered_come_before_those_that_are_only_stated(book: Addresses, local: LocalState) -> None:
    book.learned(A, ["ws://said", "ws://both"])
    assert book.of(A) == ["ws://said", "ws://both"]
    book.answered(A, "ws://both")
    book.learned(A, ["ws://new", "ws://said", "ws://both"])
    assert book.of(A) == kept(local).of(A) == ["ws://both", "ws://new", "ws://said"]


def test_what_is_stated_last_comes_before_what_was_stated_earlier(book: Addresses) -> None:
    book.learned(A, ["ws://1", "ws://2"])
    book.learned(A, ["ws://3", "ws://2"])
    assert book.of(A) == ["ws://3", "ws://2", "ws://1"]


def test_a_device_was_reached_once_it_has_answered(book: Addresses, local: LocalState) -> None:
    book.learned(A, ["ws://1"])
    assert not book.was_reached(A)
    book.answered(A, "ws://1")
    assert book.was_reached(A)
    book.learned(A, ["ws://2"])
    assert book.was_reached(A)
    assert kept(local).was_reached(A)
    assert not book.was_reached(B)


def test_the_oldest_addresses_fall_out(book: Addresses) -> None:
    for number in range(ADDRESSES_PER_DEVICE_MAX + 5):
        book.answered(A, f"ws://{number}")
    assert book.of(A) == [f"ws://{number}" for number in range(ADDRESSES_PER_DEVICE_MAX + 4, 4, -1)]
    for number in range(50):
        book.learned(B, [f"ws://{number}"])
    assert book.of(B) == [f"ws://{number}" for number in range(49, 49 - ADDRESSES_PER_DEVICE_MAX, -1)]


def test_there_is_room_for_what_a_device_states_though_many_addresses_answered(book: Addresses) -> None:
    for number in range(ADDRESSES_PER_DEVICE_MAX):
        book.answered(A, f"ws://{number}")
    stated = [f"ws://new-{number}" for number in range(BEACON_ADDRESSES_MAX)]
    book.learned(A, stated)
    assert book.of(A) == [*(f"ws://{number}" for number in range(15, 7, -1)), *stated]


def test_a_device_that_states_many_addresses_drives_out_none_that_answered_last(book: Addresses) -> None:
    book.answered(A, "ws://real")
    book.learned(A, [f"ws://{number}" for number in range(100)])
    assert book.of(A)[0] == "ws://real"
    assert len(book.of(A)) == ADDRESSES_PER_DEVICE_MAX


def test_devices_beyond_the_bound_fall_out_first_those_that_never_answered(local: LocalState) -> None:
    book = Addresses(local, lambda: 1, devices_max=2)
    book.answered(A, "ws://a")
    book.learned(B, ["ws://b"])
    book.learned(C, ["ws://c"])
    assert (book.of(A), book.of(B), book.of(C)) == (["ws://a"], [], ["ws://c"])
    book.answered(C, "ws://c")
    book.learned(D, ["ws://d"])
    assert book.of(D) == []
    book.answered(A, "ws://a2")
    book.answered(D, "ws://d")
    assert [book.of(device) for device in (A, B, C, D)] == [["ws://a2", "ws://a"], [], [], ["ws://d"]]
    assert [kept(local).of(device) for device in (A, B, C, D)] == [["ws://a2", "ws://a"], [], [], ["ws://d"]]


def test_nothing_is_written_while_nothing_changes(book: Addresses, local: LocalState, tmp_path: Path) -> None:
    book.answered(A, "ws://1")
    book.learned(A, ["ws://2"])
    observer = apsw.Connection(str(tmp_path / "node.db"))
    before = observer.pragma("data_version")
    book.answered(A, "ws://1")
    book.learned(A, ["ws://2"])
    book.learned(A, ["ws://2", "ws://1", "ws://2"])
    assert observer.pragma("data_version") == before
    book.answered(A, "ws://2")
    assert observer.pragma("data_version") != before
    observer.close()
