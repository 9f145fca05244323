"""Seeds of the simulator, and that a seed is a whole description of what happens."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from peersd.testing.simulator import Plan, SimulationFailed, run_seed
from peersd.testing.simulator.schedule import Trace

ROOT = Path(__file__).resolve().parent.parent.parent
FIXED_SEEDS = 60
FRESH_SEEDS = 20
SHORT = Plan(devices=4, groups=1, trouble_ms=2_000)
CHEAP_SEEDS = (1, 3, 13, 31)
"""Whole ones of the fixed seeds: twelve devices, three and four, a mesh and links by chance."""

HASHES = """
import sys
from peersd.testing.simulator import run_seed
print(*(run_seed(int(seed)).trace.hash for seed in sys.argv[1:]))
"""


def fresh_seeds() -> list[int]:
    """Other ones with each commit, the same ones in every process that tests it."""
    try:
        command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "no commit"
    digests = [hashlib.sha256(f"{commit} {number}".encode()).digest() for number in range(FRESH_SEEDS)]
    return [1_000_000 + int.from_bytes(digest[:4]) for digest in digests]


@functools.cache
def trace_of(seed: int) -> Trace:
    return run_seed(seed).trace


@pytest.mark.sim
@pytest.mark.parametrize("seed", [*range(FIXED_SEEDS), *fresh_seeds()])
def test_all_members_end_equal_as_the_rules_say_and_who_is_out_knows_it(seed: int) -> None:
    assert " equal: " in trace_of(seed).lines[-1]


def hashes_in_a_process_of_its_own(hash_seed: str) -> list[str]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", HASHES, *map(str, CHEAP_SEEDS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.sim
def test_a_seed_gives_the_same_trace_whatever_the_order_of_sets_and_whatever_ran_before() -> None:
    one, other = hashes_in_a_process_of_its_own("1"), hashes_in_a_process_of_its_own("2")
    assert one == other
    assert len({*one}) == len(CHEAP_SEEDS)
    assert one == [trace_of(seed).hash for seed in CHEAP_SEEDS]


@pytest.mark.sim
def test_members_whose_only_acquaintance_left_before_it_told_them_of_each_other_are_two_parts() -> None:
    """Neither c nor d was ever told where the other is, and who could tell has left."""
    lines = run_seed(20284, only=(15, 25)).trace.lines
    assert [line.split(None, 1)[1] for line in lines if " in parts: " in line] == ["x is in parts: c | d"]


@pytest.mark.sim
def test_another_seed_gives_another_trace() -> None:
    assert run_seed(3, SHORT).trace.hash != run_seed(4, SHORT).trace.hash


@pytest.mark.sim
def test_a_failure_names_its_check_its_seed_and_the_command_that_replays_it() -> None:
    with pytest.raises(SimulationFailed) as failed:
        run_seed(1, Plan(devices=4, groups=1, trouble_ms=2_000, converge_ms=-1))
    text = str(failed.value)
    assert failed.value.name == "converged"
    assert text.startswith("seed 1 at 2000 ms: converged: not equal")
    replay = "scripts/sim --seed 1 --devices 4 --groups 1 --trouble-ms 2000 --converge-ms -1 --trace"
    assert text.endswith(f"replay: {replay}")
    assert failed.value.trace.lines[1].split()[1:] == ["a", "starts"]


def seen(lines: Sequence[str], wanted: dict[str, int]) -> dict[str, int]:
    return {word: sum(word in line for line in lines) for word in wanted}


@pytest.mark.sim
def test_the_seeds_of_the_suite_reach_the_cases_that_matter() -> None:
    """Simulations in which nothing goes wrong would prove nothing."""
    lines = [line for seed in range(FIXED_SEEDS) for line in trace_of(seed).lines]
    wanted = {
        "crashes": 60,
        "loses its power": 15,
        "loses its link": 50,
        "loses unnoticed": 10,
        " | ": 30,
        "unheard by": 30,
        "messages to and from": 30,
        "clock jumps": 10,
        "clock stands still": 10,
        "years off": 5,
        " Block ": 100,
        " Have ": 300,
        " Want ": 90,
        " Prune ": 5,
        "sql_error": 30,
        "defines": 5,
        " deals": 1_000,
    }
    counted = seen(lines, wanted)
    assert all(counted[word] >= least for word, least in wanted.items()), counted
