"""scripts/swarm: what it shows, what it obeys, what it leaves behind, which is nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import trio

from peersd.testing.process_swarm import make_plan
from peersd.testing.processes import HANG_S, plain_environment

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = [sys.executable, "-P", "-m", "scripts.swarm"]


@dataclass
class Running:
    """The script as a process, in a group of its own as a shell makes one, with its JSON lines."""

    process: trio.Process
    rest: bytes = b""

    async def line(self) -> dict[str, Any]:
        """The next line."""
        assert self.process.stdout is not None
        while b"\n" not in self.rest:
            chunk = await self.process.stdout.receive_some()
            assert chunk, "it ended"
            self.rest += chunk
        line, _, self.rest = self.rest.partition(b"\n")
        return dict(json.loads(line))

    async def until(self, **wanted: Any) -> dict[str, Any]:
        """The next line that has these values."""
        while True:
            line = await self.line()
            if wanted.items() <= line.items():
                return line

    async def type(self, text: str) -> None:
        """Write to its standard input."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(text.encode())

    async def end(self) -> tuple[dict[str, Any], int]:
        """The summary and the exit status."""
        summary = await self.until(kind="summary")
        return summary, await self.process.wait()


@asynccontextmanager
async def open_swarm_script(*arguments: str) -> AsyncGenerator[Running]:
    """The running script; afterwards neither its folder nor a process that it started must be there."""
    process = await trio.lowlevel.open_process(
        [*COMMAND, *arguments, "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=plain_environment(),
        cwd=ROOT,
        process_group=0,
    )
    try:
        with trio.fail_after(HANG_S):
            yield Running(process)
            await process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            with trio.CancelScope(shield=True):
                await process.wait()


def assert_gone(start: dict[str, Any]) -> None:
    assert not Path(start["folder"]).exists()
    for device in start["devices"].values():
        with pytest.raises(ProcessLookupError):
            os.kill(device["process"], 0)


async def test_a_swarm_converges_with_one_link_for_each_pair_and_leaves_nothing_behind() -> None:
    async with open_swarm_script("4", "--groups", "2", "--rows", "20", "--seconds", "3") as swarm:
        start = await swarm.until(kind="start")
        assert list(start["devices"]) == ["ada", "ben", "cem", "dan"]
        assert start["groups"] == {group: ["ada", "ben", "cem", "dan"] for group in ("g1", "g2")}
        pairs = [list(pair) for pair in combinations(start["devices"], 2)]
        view = await swarm.until(kind="view", converged=True, written={"g1": 20, "g2": 20}, links=pairs)
        for device in view["devices"]:
            assert (device["state"], device["process"]) == ("runs", start["devices"][device["name"]]["process"])
            assert device["rows"] == {"g1": 20, "g2": 20}
            assert device["lag_entries"] == 0
            assert device["memory_bytes"] > 10_000_000
            assert device["file_handles"] > 10
            assert device["bytes_in"] > 500 < device["bytes_out"]
            assert device["links"] == [name for name in start["devices"] if name != device["name"]]
        assert view["doubled"] == []
        summary, status = await swarm.end()
    assert (summary["converged"], summary["failures"], status) == (True, [], 0)
    for group in ("g1", "g2"):
        assert summary["groups"][group]["equal"]
        assert summary["groups"][group]["rows"] == dict.fromkeys(start["devices"], 20)
        assert len(set(summary["groups"][group]["digests"].values())) == 1
    assert_gone(start)


async def test_only_the_members_of_a_group_hold_its_rows_and_who_shares_none_has_no_link() -> None:
    async with open_swarm_script("3", "--members", "2", "--seed", "1", "--rows", "5", "--seconds", "1") as swarm:
        start = await swarm.until(kind="start")
        members = start["groups"]["g1"]
        assert len(members) == 2
        view = await swarm.until(kind="view", converged=True, phase="settling")
        for device in view["devices"]:
            assert device["rows"] == ({"g1": 5} if device["name"] in members else {})
            assert device["links"] == [name for name in members if device["name"] in members and name != device["name"]]
        assert view["links"] == [sorted(members)]
        assert (await swarm.end())[1] == 0


@pytest.mark.parametrize(
    ("topology", "links"),
    [("line", [["ada", "ben"], ["ben", "cem"]]), ("star", [["ada", "ben"], ["ada", "cem"]])],
)
async def test_rows_reach_everybody_though_only_some_may_link(topology: str, links: list[list[str]]) -> None:
    async with open_swarm_script("3", "--topology", topology, "--seconds", "600") as swarm:
        start = await swarm.until(kind="start")
        await swarm.until(kind="view", converged=True, links=links)
        await swarm.type("w cem g1 30\n")
        view = await swarm.until(kind="view", converged=True, written={"g1": 30})
        assert view["links"] == links
        assert [device["rows"] for device in view["devices"]] == [{"g1": 30}] * 3
        await swarm.type("q\n")
        assert (await swarm.end())[1] == 0
    assert_gone(start)


async def test_it_obeys_commands_and_says_what_cannot_be_done() -> None:
    async with open_swarm_script("2") as swarm:
        start = await swarm.until(kind="start")
        await swarm.until(kind="view", converged=True)
        await swarm.type("kill ben\nw ada g1 250\n")
        view = await swarm.until(kind="view", converged=False, written={"g1": 250})
        (ben,) = [device for device in view["devices"] if device["name"] == "ben"]
        assert (ben["state"], ben["process"]) == ("down", None)
        assert {"ben: down", "ben: 0 of 250 rows of g1"} <= set(view["waiting_for"])
        # None of these can be done, and none ends it.
        await swarm.type("w ben g1 5\nkill ben\nkill zoe\nw ada g9 1\nw ada g1 many\nstart ada\nfly\n\nstart ben\n")
        view = await swarm.until(kind="view", converged=True)
        (ben,) = [device for device in view["devices"] if device["name"] == "ben"]
        assert ben["process"] not in (None, start["devices"]["ben"]["process"])
        assert ben["rows"] == {"g1": 250}
        await swarm.type("q\n")
        summary, status = await swarm.end()
        assert (summary["converged"], status) == (True, 0)
    assert_gone(start)


async def test_with_a_device_down_at_the_end_it_has_not_converged_and_the_status_says_so() -> None:
    async with open_swarm_script("2") as swarm:
        start = await swarm.until(kind="start")
        await swarm.until(kind="view", converged=True)
        await swarm.type("kill ben\nq\n")
        summary, status = await swarm.end()
    assert (summary["converged"], status) == (False, 1)
    assert "ben: down" in summary["failures"]
    assert_gone(start)


async def test_ctrl_c_in_the_terminal_ends_it_in_order() -> None:
    async with open_swarm_script("2") as swarm:
        start = await swarm.until(kind="start")
        await swarm.until(kind="view", converged=True)
        # A terminal signals the whole foreground group; the daemons are in groups of their own.
        os.killpg(swarm.process.pid, signal.SIGINT)
        summary, status = await swarm.end()
    assert (summary["converged"], summary["ended_by"], status) == (True, None, 0)
    assert_gone(start)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("while_joining", [True, False])
async def test_other_signals_end_it_at_once_and_leave_nothing_behind(number: signal.Signals, while_joining: bool) -> None:
    async with open_swarm_script("3") as swarm:
        start = await swarm.until(kind="start")
        if not while_joining:
            await swarm.until(kind="view")
        swarm.process.send_signal(number)
        summary, status = await swarm.end()
    assert (summary["converged"], summary["ended_by"], status) == (False, number.name, 128 + number)
    assert_gone(start)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "the following arguments are required: N"),
        ("0", "a swarm has from 1 to 100 devices"),
        ("101", "a swarm has from 1 to 100 devices"),
        ("many", "invalid int value: 'many'"),
        ("4 --groups 0", "one group at least"),
        ("4 --members 5", "a swarm of 4 devices has no group of 5 members; from 1 to 4 can be"),
        ("4 --links-max 0", "no link at all"),
        ("4 --topology ring", "invalid choice: 'ring'"),
        ("4 --rows -1", "--rows must not be negative"),
        ("4 --every 2", "goes with --rows"),
        ("4 --rows 1 --every 0", "above 0"),
        ("4 --seconds 0", "--seconds must be above 0"),
        ("4 --colour", "unrecognized arguments: --colour"),
    ],
)
def test_wrong_arguments_are_told_with_status_2(arguments: str, said: str) -> None:
    ended = subprocess.run([*COMMAND, *arguments.split()], capture_output=True, text=True, cwd=ROOT, timeout=HANG_S, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert ended.stderr.startswith("usage: scripts/swarm")


def test_help_shows_examples_and_every_command() -> None:
    ended = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, cwd=ROOT, timeout=HANG_S, check=True)
    for part in ("scripts/swarm 4 ", "--topology", "w ada g1", "kill ben", "start ben", "lag"):
        assert part in ended.stdout


def test_a_seed_always_draws_the_same_members_and_another_one_others() -> None:
    plans = [make_plan(20, groups=6, members=5, seed=seed) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]
    assert all(len(set(members)) == 5 for plan in plans for members in plan.groups.values())
    assert len(set(make_plan(60).devices)) == 60


def test_in_a_line_and_in_a_star_the_members_of_a_group_can_reach_each_other() -> None:
    line = make_plan(8, groups=10, members=3, topology="line")
    for members in line.groups.values():
        first = line.devices.index(members[0])
        assert members == line.devices[first : first + 3]
    assert [line.may_link("ada", other) for other in line.devices] == [False, True, False, False, False, False, False, False]
    star = make_plan(8, groups=10, members=3, topology="star")
    assert all(members[0] == "ada" and len(set(members)) == 3 for members in star.groups.values())
    assert [star.may_link("ben", other) for other in star.devices] == [True, False, False, False, False, False, False, False]
    assert [make_plan(4, topology=topology).pairs() for topology in ("mesh", "line", "star")] == [6, 3, 3]
