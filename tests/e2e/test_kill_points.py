"""SIGKILL at every named crash point: the daemon dies there, and what was acknowledged, and all else, is in order again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from peersd.crash_points import VARIABLE, CrashPoint, arm
from peersd.testing.crash_cases import CASES, During, cases_of, cut_off
from peersd.testing.killing import Killing, open_killing
from peersd.testing.processes import open_daemon
from scripts.sim_kills import CASES_EACH, Ran, cases_for, find_missed

pytestmark = pytest.mark.e2e

SEED = 20


def test_there_is_a_way_to_every_crash_point_and_seeds_that_follow_each_other_take_them_all() -> None:
    assert points_of(*During) == set(CrashPoint)
    enough = -(-len(CASES) // CASES_EACH)
    for first in (0, 7):
        dealt = [case for seed in range(first, first + enough) for case in cases_for(seed)]
        assert {(case.during, case.point) for case in dealt} == {(case.during, case.point) for case in CASES}


def test_a_run_that_is_long_enough_and_reaches_a_crash_point_never_names_it() -> None:
    ran = Ran(whole_seeds=3, reached=Counter({point: 1 for point in CrashPoint if point is not CrashPoint.LEAVE_NOTED}))
    assert find_missed(ran) == []
    ran.whole_seeds = 4
    assert find_missed(ran) == [CrashPoint.LEAVE_NOTED]
    ran.reached[CrashPoint.LEAVE_NOTED] += 1
    assert find_missed(ran) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("batch_comitted", "there is no crash point 'batch_comitted'; there are file_created, "),
        ("batch_committed:0", "'0' is no count"),
        ("batch_committed:", "'' is no count"),
        ("batch_committed:x", "'x' is no count"),
    ],
)
async def test_a_crash_point_that_does_not_exist_is_refused_at_the_start(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{VARIABLE}: {said}"):
        arm(text)
    with pytest.raises(AssertionError, match="the daemon ended with 2"):
        async with open_daemon(tmp_path, "a", environment={VARIABLE: text}):
            raise AssertionError("it started")


@pytest.mark.slow
async def test_nothing_acknowledged_is_lost_wherever_a_write_or_what_others_wrote_is_cut_off(tmp_path: Path) -> None:
    async with open_killing(tmp_path, seed=SEED) as killing:
        # One after the other at one daemon, so that starts after a kill are cut off as well.
        points = [case.armed for case in cases_of(During.WRITING)]
        await killing.kill_at(*points[: len(points) // 2])
        await killing.kill_at(*points[len(points) // 2 :])
        assert set(killing.reached) == points_of(During.WRITING)
        await cut_off_all(killing, During.SEALING, During.RECEIVE, During.STOPPING)


@pytest.mark.slow
async def test_a_user_a_group_or_a_table_whose_making_is_cut_off_is_there_or_can_be_made_again(tmp_path: Path) -> None:
    async with open_killing(tmp_path, seed=SEED) as killing:
        await cut_off_all(killing, During.INIT, During.CREATE, During.SCHEMA)


@pytest.mark.slow
async def test_a_join_a_leave_or_a_forgetting_that_is_cut_off_can_be_done_again(tmp_path: Path) -> None:
    async with open_killing(tmp_path, seed=SEED) as killing:
        await cut_off_all(killing, During.JOIN, During.ADMIT, During.LEAVE, During.FORGET)


async def cut_off_all(killing: Killing, *during: During) -> None:
    for one in during:
        for case in cases_of(one):
            await cut_off(killing, case)
    assert points_of(*during) <= set(killing.reached)


def points_of(*during: During) -> set[CrashPoint]:
    return {case.point for case in CASES if case.during in during}
