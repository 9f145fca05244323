"""The processes that scripts/sim gives its work to."""

from __future__ import annotations

import os

import pytest

from scripts.sim_pool import run_each


def process_of(_task: int) -> int:
    return os.getpid()


@pytest.mark.parametrize(("jobs", "processes"), [(1, 3), (2, 4)])
def test_a_process_ends_after_so_many_tasks_and_another_takes_its_place(jobs: int, processes: int) -> None:
    used = list(run_each(process_of, range(5), jobs, tasks_per_process=2))
    assert len(used) == 5
    assert os.getpid() not in used
    assert 1 < len(set(used)) <= processes


def test_one_process_without_an_end_is_this_one() -> None:
    assert list(run_each(process_of, range(3), 1)) == [os.getpid()] * 3
