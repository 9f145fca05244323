"""Whatever scripts/sim runs ends soon when it is interrupted: with its processes, its folders, and a line on how far it came."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from peersd.testing.simulator.simulation import FOLDER_VARIABLE

ROOT = Path(__file__).resolve().parent.parent.parent

HANG_S = 120.0
"""A guard against hanging; all of these take a second or two to get going, and less to end."""


def processes_of(folder: Path) -> list[int]:
    """The processes that have a folder for their temporary files."""
    wanted = f"TMPDIR={folder}".encode()
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


def wait_for(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + HANG_S
    while not holds():
        assert time.monotonic() < end_s, "it never came to that"
        time.sleep(0.05)


@pytest.mark.sim
@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
@pytest.mark.parametrize(
    ("arguments", "number", "processes", "begun", "said"),
    [
        ("--seeds 0-9999 --jobs 1", signal.SIGINT, 1, "peersd-sim-*/*/*", "interrupted: "),
        ("--seeds 0-9999 --jobs 2", signal.SIGTERM, 3, "peersd-sim-*/*/*", "interrupted: "),
        (
            "--planted goes-on-in-a-restored-copy parks-without-bound --jobs 2 --seeds-max 9999",
            signal.SIGINT,
            3,
            "peersd-sim-*/*/*",
            "interrupted: ",
        ),
        ("--planted skips-the-cut", signal.SIGTERM, 2, "peersd-sim-*/*/*", "interrupted: 0 of 1 bugs in "),
        ("--kills 50", signal.SIGTERM, 4, "peersd-kills-*/copies", "interrupted: 0 of 50 kills, 0 seeds failed"),
        ("--kills 0", signal.SIGINT, 2, "peersd-kills-*/ada/data/peersd.sock", "interrupted: 0 of 0 kills, 0 seeds failed; the "),
        ("--frames 1000000 --jobs 2", signal.SIGTERM, 3, "peersd-sim-*/frames-*/*", "interrupted: "),
        ("--scale", signal.SIGTERM, 1, "peersd-sim-*", "interrupted: runs that ended: none"),
    ],
)
def test_an_interrupted_run_leaves_nothing(
    arguments: str, number: signal.Signals, processes: int, begun: str, said: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "scripts.sim", *arguments.split()]
    assert interrupt(command, number, processes, begun, tmp_path / "t").splitlines()[-1].startswith(said)


@pytest.mark.sim
@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
def test_a_run_in_the_background_of_a_shell_that_has_it_ignore_ctrl_c_is_ended_by_sigterm(tmp_path: Path) -> None:
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, *"-m scripts.sim --seeds 0-9999 --jobs 1".split()]
    assert "interrupted: " in interrupt(command, signal.SIGTERM, 1, "peersd-sim-*/*/*", tmp_path / "t")


def start(command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Starts a command that SIGINT interrupts, whatever who runs the tests ignores, such as a shell in the background."""
    pipe = subprocess.PIPE
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True, process_group=0)
    finally:
        signal.signal(signal.SIGINT, before)


def interrupt(command: list[str], number: signal.Signals, processes: int, begun: str, folder: Path) -> str:
    """Interrupts a command once it has begun; returns what it said."""
    folder.mkdir()
    child = start(command, {**os.environ, "TMPDIR": str(folder), FOLDER_VARIABLE: str(folder)})
    try:
        wait_for(lambda: len(processes_of(folder)) >= processes and any(folder.glob(begun)))
        child.send_signal(number)
        out, errors = child.communicate(timeout=HANG_S)
    finally:
        child.kill()
        child.wait()
    assert errors == ""
    assert child.returncode == 130
    assert processes_of(folder) == []
    assert list(folder.iterdir()) == []
    return out


@pytest.mark.sim
def test_seeds_that_failed_are_told_though_they_are_not_shortened() -> None:
    command = [sys.executable, "-m", "scripts.sim", *"--devices 3 --groups 2 --converge-ms -1 --seeds 0-9 --jobs 2".split()]
    with start(command, os.environ) as child:
        assert child.stdout is not None
        assert any(line.startswith("to be shortened; ") for line in child.stdout)
        child.send_signal(signal.SIGINT)
        last = list(child.stdout)[-1]
    assert child.returncode == 130
    assert re.fullmatch(r"interrupted: \d+ seeds in \d+ s, [1-9] failed: [\d ]+\n", last)
