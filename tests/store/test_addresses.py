"""Which addresses of devices are kept, in which order, and for how long."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import apsw
import pytest
import trio
import trio.testing

from peersd.errors import PeersdError
from peersd.node.addresses import Addresses
from peersd.store.local_state import LocalState
from peersd.store.threads import WorkerThreads
from peersd_protocol.constants import ADDRESSES_PER_DEVICE_MAX, BEACON_ADDRESSES_MAX

T = TypeVar("T")

A, B, C, D = (bytes([number]) * 32 for number in range(1, 5))


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalState]:
    state = LocalState(tmp_path / "node.db")
    yield state
    state.close()


@pytest.fixture
def book(local: LocalState) -> Addresses:
    return Addresses(local, WorkerThreads(), itertools.count(1_000).__next__)


async def kept(book: Addresses, local: LocalState) -> Addresses:
    """The book as a restart finds it once it was saved."""
    await book.save()
    return Addresses(local, WorkerThreads())


async def test_the_address_that_answered_last_comes_first_also_after_a_restart(book: Addresses, local: LocalState) -> None:
    for url in ("ws://1", "ws://2", "ws://3", "ws://1"):
        book.answered(A, url)
    assert book.of(A) == (await kept(book, local)).of(A) == ["ws://1", "ws://3", "ws://2"]
    assert book.of(B) == []


async def test_addresses_that_answered_come_before_those_that_are_only_stated(book: Addresses, local: LocalState) -> None:
    book.learned(A, ["ws://said", "ws://both"])
    assert book.of(A) == ["ws://said", "ws://both"]
    book.answered(A, "ws://both")
    book.learned(A, ["ws://new", "ws://said", "ws://both"])
    assert book.of(A) == (await kept(book, local)).of(A) == ["ws://both", "ws://new", "ws://said"]


def test_what_is_stated_last_comes_before_what_was_stated_earlier(book: Addresses) -> None:
    book.learned(A, ["ws://1", "ws://2"])
    book.learned(A, ["ws://3", "ws://2"])
    assert book.of(A) == ["ws://3", "ws://2", "ws://1"]


async def test_a_device_was_reached_once_it_has_answered(book: Addresses, local: LocalState) -> None:
    book.learned(A, ["ws://1"])
    assert not book.was_reached(A)
    book.answered(A, "ws://1")
    assert book.was_reached(A)
    book.learned(A, ["ws://2"])
    assert book.was_reached(A)
    assert (await kept(book, local)).was_reached(A)
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


async def test_devices_beyond_the_bound_fall_out_first_those_that_never_answered(local: LocalState) -> None:
    book = Addresses(local, WorkerThreads(), lambda: 1, devices_max=2)
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
    restarted = await kept(book, local)
    assert [restarted.of(device) for device in (A, B, C, D)] == [["ws://a2", "ws://a"], [], [], ["ws://d"]]


async def test_nothing_is_written_while_nothing_changes(book: Addresses, tmp_path: Path) -> None:
    book.answered(A, "ws://1")
    book.learned(A, ["ws://2"])
    await book.save()
    observer = apsw.Connection(str(tmp_path / "node.db"))
    before = observer.pragma("data_version")
    book.answered(A, "ws://1")
    book.learned(A, ["ws://2"])
    book.learned(A, ["ws://2", "ws://1", "ws://2"])
    await book.save()
    assert observer.pragma("data_version") == before
    book.answered(A, "ws://2")
    await book.save()
    assert observer.pragma("data_version") != before
    observer.close()


class Refusing(WorkerThreads):
    """Worker threads whose calls find node.db locked for a while."""

    is_locked = True

    async def run(self, call: Callable[..., T], *args: object, limiter: trio.CapacityLimiter | None = None) -> T:
        """See Threads."""
        if self.is_locked:
            raise PeersdError("busy", "The file is locked.", retry=True)
        return await super().run(call, *args, limiter=limiter)


async def test_what_cannot_be_written_now_is_written_later_in_its_order(
    local: LocalState, caplog: pytest.LogCaptureFixture
) -> None:
    threads = Refusing()
    book = Addresses(local, threads)
    book.answered(A, "ws://a")
    book.answered(B, "ws://b")
    await book.save()
    assert caplog.messages == ["addresses_not_saved"]
    assert local.load_addresses() == {}
    book.answered(C, "ws://c")
    book.answered(A, "ws://a2")
    threads.is_locked = False
    await book.save()
    assert [(device, [url for url, _ in urls]) for device, urls in local.load_addresses().items()] == [
        (B, ["ws://b"]),
        (C, ["ws://c"]),
        (A, ["ws://a2", "ws://a"]),
    ]


class FirstWaits(WorkerThreads):
    """Worker threads whose first call begins only when it is let go."""

    def __init__(self) -> None:
        self.calls = 0
        self.go_on = trio.Event()

    async def run(self, call: Callable[..., T], *args: object, limiter: trio.CapacityLimiter | None = None) -> T:
        """See Threads."""
        self.calls += 1
        if self.calls == 1:
            await self.go_on.wait()
        return await super().run(call, *args, limiter=limiter)


async def test_two_who_save_at_once_write_what_is_newer_last(local: LocalState) -> None:
    threads = FirstWaits()
    book = Addresses(local, threads)
    async with trio.open_nursery() as nursery:
        for url in ("ws://1", "ws://2"):
            book.answered(A, url)
            nursery.start_soon(book.save)
            await trio.testing.wait_all_tasks_blocked(0.05)  # a write that had begun would be done
        threads.go_on.set()
    assert threads.calls == 2
    assert [url for url, _ in local.load_addresses()[A]] == ["ws://2", "ws://1"]
