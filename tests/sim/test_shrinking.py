"""A failure is told with the shortest schedule that still fails, and a command that replays exactly that."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from peersd.testing.simulator import Plan, SimulationFailed, run_seed
from peersd.testing.simulator.script import format_numbers, parse_numbers
from peersd.testing.simulator.shrinking import shrink
from peersd.testing.simulator.simulation import steps_of

ROOT = Path(__file__).resolve().parent.parent.parent
IMPATIENT = Plan(devices=4, groups=1, links_max=0, trouble_ms=2_000, converge_ms=-1)
"""Whoever is not equal at once fails, which needs no fault in the product."""


@pytest.mark.parametrize("numbers", [(), (0,), (3, 4, 5), (0, 2, 3, 9)])
def test_numbers_of_steps_are_read_as_they_are_written(numbers: tuple[int, ...]) -> None:
    assert parse_numbers(format_numbers(numbers)) == set(numbers)


def test_numbers_of_steps_are_written_in_short() -> None:
    assert [format_numbers(numbers) for numbers in ((), (4,), (5, 3, 4, 9))] == ["none", "4", "3-5,9"]


def first_failure() -> tuple[int, SimulationFailed]:
    for seed in range(20):
        try:
            run_seed(seed, IMPATIENT)
        except SimulationFailed as failure:
            return seed, failure
    raise AssertionError("all of them are equal at once")


@pytest.mark.sim
def test_a_failure_shrinks_to_few_steps_that_fail_the_same_check_and_are_replayed_by_one_command() -> None:
    seed, failure = first_failure()
    found = shrink(seed, IMPATIENT, failure, runs_max=60)
    assert found.steps_before == len(steps_of(seed, IMPATIENT))
    assert len(found.steps) <= found.steps_before // 4
    assert found.failure.name == failure.name == "converged"
    assert found.runs <= 60
    assert found.summary.endswith(f"replay: {found.command}")

    program, *arguments = shlex.split(found.command)
    assert program == "scripts/sim"
    command = [sys.executable, "-m", "scripts.sim", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    trace = found.failure.trace.lines
    assert done.stdout.splitlines()[1 : len(trace) + 1] == trace


@pytest.mark.sim
def test_shortening_ends_when_its_time_is_up() -> None:
    seed, failure = first_failure()
    found = shrink(seed, IMPATIENT, failure, s_max=0.0)
    assert (found.runs, len(found.steps)) == (0, found.steps_before)
    assert found.failure is failure


@pytest.mark.sim
def test_a_step_that_is_left_out_does_not_change_what_the_others_are() -> None:
    plan = Plan(devices=4, groups=1, trouble_ms=1_000)
    steps = [step.number for step in steps_of(5, plan)]
    whole, part = run_seed(5, plan), run_seed(5, plan, steps[1:])
    assert [step.number for step in whole.script] == steps
    assert part.script == whole.script[1:]
