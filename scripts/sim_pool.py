"""Work of scripts/sim in as many processes as are wanted, which end when nobody waits for what they find."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from typing import TypeVar

from scripts.sim_interrupts import end_processes, ignore_interrupts

T = TypeVar("T")
R = TypeVar("R")


def run_each(function: Callable[[T], R], tasks: Iterable[T], jobs: int, *, tasks_per_process: int | None = None) -> Generator[R]:
    """Calls a function with each task; each is told of when it has ended.

    Args:
        function: can be pickled, as what it returns and the tasks can, where there is more than one process.
        tasks: as many as one likes; no more than twice `jobs` are taken in advance, or what as many processes are given in all.
        jobs: processes at once; with 1 it is this one, unless `tasks_per_process` says that it is not to be.
        tasks_per_process: after so many on average all processes end and others take their place; None for never.
    """
    if tasks_per_process:
        left = iter(tasks)
        while part := list(islice(left, jobs * tasks_per_process)):
            yield from _run_in_pool(function, part, jobs)
    elif jobs == 1:
        yield from map(function, tasks)
    else:
        yield from _run_in_pool(function, tasks, jobs)


def _run_in_pool(function: Callable[[T], R], tasks: Iterable[T], jobs: int) -> Generator[R]:
    left = iter(tasks)
    with ProcessPoolExecutor(jobs, initializer=ignore_interrupts) as pool:
        running: set[Future[R]] = set()
        try:
            while True:
                for task in islice(left, 2 * jobs - len(running)):
                    running.add(pool.submit(function, task))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BaseException:  # nobody waits for what runs; and an interrupt may come while they are started
            end_processes()
            raise
