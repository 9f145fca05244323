"""Forty seeds of the simulator, and that a seed is a whole description of what happens."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

import pytest

from peersd.testing.simulator import Plan, SimulationFailed, run_seed
from peersd.testing.simulator.schedule import Trace

SEEDS = 40
SHORT = Plan(groups=1, trouble_ms=2_000)
HASH_OF_A_SHORT_RUN = """
from peersd.testing.simulator import Plan, run_seed
print(run_seed(3, Plan(groups=1, trouble_ms=2_000)).trace.hash)
"""


@functools.cache
def trace_of(seed: int) -> Trace:
    return run_seed(seed).trace


@pytest.mark.sim
@pytest.mark.parametrize("seed", range(SEEDS))
def test_all_members_end_equal_as_the_rules_say_and_who_is_out_knows_it(seed: int) -> None:
    assert " equal: " in trace_of(seed).lines[-1]


def hash_in_a_process_of_its_own(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", HASH_OF_A_SHORT_RUN]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.sim
def test_a_seed_gives_the_same_trace_whatever_the_order_of_sets() -> None:
    here = run_seed(3, SHORT).trace.hash
    assert hash_in_a_process_of_its_own("1") == here
    assert hash_in_a_process_of_its_own("2") == here


@pytest.mark.sim
def test_another_seed_gives_another_trace() -> None:
    assert run_seed(3, SHORT).trace.hash != run_seed(4, SHORT).trace.hash


@pytest.mark.sim
def test_a_failure_names_its_seed_and_the_command_that_replays_it() -> None:
    with pytest.raises(SimulationFailed) as failed:
        run_seed(8, Plan(groups=1, trouble_ms=2_000, heal_ms=0))
    text = str(failed.value)
    assert text.startswith("seed 8 at 2000 ms: not equal 0 ms after healing")
    assert text.endswith("replay: scripts/sim --seed 8 --groups 1 --trouble-ms 2000 --heal-ms 0 --trace")
    assert failed.value.trace.lines[1].split()[1:] == ["a1", "starts"]


@pytest.mark.sim
def test_the_seeds_of_the_suite_reach_the_cases_that_matter() -> None:
    """Simulations in which nothing goes wrong would prove nothing."""
    lines = [line for seed in range(SEEDS) for line in trace_of(seed).lines]
    wanted = {
        "crashes": 30,
        "loses its link": 20,
        " Block ": 100,
        " Have ": 300,
        " Want ": 90,
        " Prune ": 5,
        "sql_error": 30,
        "defines": 5,
    }
    seen = {word: sum(word in line for line in lines) for word in wanted}
    assert all(seen[word] >= least for word, least in wanted.items()), seen
