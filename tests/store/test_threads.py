from __future__ import annotations

import threading

import pytest
import trio

from peersd.store.threads import Called, WorkerThreads

HANG_S = 60.0


def fail(text: str) -> None:
    raise ValueError(text)


async def test_calls_of_one_limiter_run_one_after_the_other_in_threads() -> None:
    threads, limiter, running = WorkerThreads(), trio.CapacityLimiter(1), list[int]()

    def call(number: int) -> int:
        assert threading.get_ident() != own
        running.append(number)
        assert running == [number]
        running.remove(number)
        return number

    own = threading.get_ident()
    results: list[int] = []

    async def run(number: int) -> None:
        results.append(await threads.run(call, number, limiter=limiter))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(run, number)
    assert sorted(results) == list(range(20))


async def test_what_a_call_raises_is_raised_by_who_waits_for_it() -> None:
    with pytest.raises(ValueError, match="so"):
        await WorkerThreads().run(fail, "so")


async def test_a_call_whose_task_was_cancelled_learns_that_it_is_abandoned_and_comes_to_its_end() -> None:
    threads, has_begun, was_abandoned = WorkerThreads(), threading.Event(), list[bool]()

    def call() -> str:
        was_abandoned.append(threads.is_abandoned())
        has_begun.set()
        until_s = threads.clock_s() + HANG_S
        while not threads.is_abandoned() and threads.clock_s() < until_s:
            pass
        was_abandoned.append(threads.is_abandoned())
        return "done"

    with trio.fail_after(2 * HANG_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(threads.run, call)
            await threads.run(has_begun.wait)
            nursery.cancel_scope.cancel()
    assert was_abandoned == [False, True]


async def test_what_came_of_a_call_is_told_on_the_loop() -> None:
    threads, told, own = WorkerThreads(), list[tuple[int, object]](), threading.get_ident()
    all_told = trio.Event()

    def done(called: Called[int]) -> None:
        try:
            told.append((threading.get_ident(), called.result()))
        except ValueError as error:
            told.append((threading.get_ident(), str(error)))
            all_told.set()

    threads.start(done, int, "7")
    with trio.fail_after(HANG_S):
        while not told:
            await trio.sleep(0)
        threads.start(done, int, "seven")
        await all_told.wait()
    assert told[0] == (own, 7)
    assert told[1][0] == own and "seven" in str(told[1][1])


async def test_a_late_call_begins_when_the_loop_has_nothing_else_to_do_and_at_its_second_turn_at_the_latest() -> None:
    threads, began, ended = WorkerThreads(), threading.Event(), trio.Event()
    lines: list[int] = []

    def take() -> list[int]:
        began.set()
        return list(lines)

    taken: list[list[int]] = []

    def done(called: Called[list[int]]) -> None:
        taken.append(called.result())
        ended.set()

    async def add(number: int) -> None:
        lines.append(number)

    with trio.fail_after(HANG_S):
        async with trio.open_nursery() as nursery:
            threads.start_late(done, take)
            for number in range(3):
                nursery.start_soon(add, number)
            await ended.wait()
        assert sorted(taken[0]) == [0, 1, 2]
        began.clear()
        threads.start_late(done, take)
        turns = 0
        while not began.is_set():  # a loop that always has something to do
            await trio.lowlevel.checkpoint()
            turns += 1
            if turns > 2:
                began.wait(HANG_S)
    assert turns <= 3
