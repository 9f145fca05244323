from __future__ import annotations

import trio
import trio.testing

from peersd.store.threads import Turns, WorkerThreads


async def test_turns_are_taken_one_at_a_time_in_the_order_of_asking() -> None:
    turns, seen = Turns(), list[str]()

    async def take(name: str) -> None:
        async with turns:
            seen.append(f"+{name}")
            await trio.testing.wait_all_tasks_blocked()
            seen.append(f"-{name}")

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(take, name)
            await trio.testing.wait_all_tasks_blocked(0.001)
    assert seen == ["+a", "-a", "+b", "-b", "+c", "-c"]


async def test_who_gives_up_waiting_has_no_turn_and_a_free_one_is_taken_at_once() -> None:
    turns = Turns()
    async with turns:
        with trio.move_on_after(0) as scope:
            await turns.acquire_on_behalf_of("late")
        assert scope.cancelled_caught
    with trio.CancelScope() as scope:
        scope.cancel()
        async with turns:  # nothing to wait for, so nothing to be cancelled in
            pass
    assert not scope.cancelled_caught


async def test_calls_of_one_limiter_run_one_after_the_other_in_threads() -> None:
    threads, turns, running = WorkerThreads(), Turns(), list[int]()

    def call(number: int) -> int:
        running.append(number)
        assert running == [number]
        running.remove(number)
        return number

    results: list[int] = []

    async def run(number: int) -> None:
        results.append(await threads.run(call, number, limiter=turns))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(run, number)
    assert sorted(results) == list(range(20))
