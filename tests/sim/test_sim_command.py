"""The command that runs simulations: by seeds, in processes, and one again with a trace."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SHORT = ("--devices", "3", "--groups", "2", "--trouble-ms", "500")


def run_sim(*arguments: str) -> tuple[int, list[str]]:
    command = [sys.executable, "-m", "scripts.sim", *SHORT, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def hashes(lines: list[str]) -> dict[str, str]:
    return dict(re.findall(r"^seed (\d+): ([0-9a-f]{64}) ", "\n".join(lines), re.MULTILINE))


@pytest.mark.sim
def test_processes_at_once_give_what_one_gives() -> None:
    alone, together = run_sim("--seeds", "0-3", "--jobs", "1"), run_sim("--seeds", "0-3", "--jobs", "2")
    assert alone[0] == together[0] == 0
    assert set(hashes(alone[1])) == {"0", "1", "2", "3"}
    assert hashes(alone[1]) == hashes(together[1])
    assert re.fullmatch(r"4 seeds in \d+ s, 0 failed", together[1][-1])


@pytest.mark.sim
def test_a_trace_has_a_line_for_each_event_of_devices_and_groups_by_letters() -> None:
    status, lines = run_sim("--seed", "2", "--only", "none", "--trace")
    assert status == 0
    events = [line for line in lines if re.match(r" +\d+ ", line)]
    assert len(events) > 20
    assert all(re.match(r" +\d+ [abc ] \S", line) for line in events)
    assert any(re.match(r" +\d+ [abc] [xy] ", line) for line in events)


@pytest.mark.sim
def test_the_first_failure_ends_the_run_if_that_is_wanted() -> None:
    wanted = ("--seeds", "0-9", "--converge-ms", "-1", "--until-failure", "--jobs", "1", "--shrink", "3")
    status, lines = run_sim(*wanted)
    assert status == 1
    failed = [line for line in lines if re.fullmatch(r"seed \d+: FAILED: (converged|quiet)", line)]
    assert len(failed) == 1
    assert any(line.startswith("shortest schedule found: ") for line in lines)
    assert lines[-2].startswith("replay: scripts/sim --seed ")
    assert [line for line in lines if line.startswith("replay: ")] == [lines[-2]]
    assert [line for line in lines if line.startswith("to be shortened; all of it is replayed by: scripts/sim --seed ")]
    shortest = next(place for place, line in enumerate(lines) if line.startswith("shortest schedule found: "))
    events = [place for place, line in enumerate(lines) if re.match(r" +\d+ ", line)]
    assert min(events) > shortest, "the trace is that of the shortest schedule alone"
    assert re.search(r" seeds in \d+ s, 1 failed: \d+$", lines[-1])
