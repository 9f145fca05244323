"""scripts/demo: it ends well, and whatever ends it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from peersd.testing.processes import HANG_S, plain_environment

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = [sys.executable, "-P", "-m", "scripts.demo"]


async def test_the_demo_tells_its_story_to_the_end() -> None:
    with trio.fail_after(HANG_S):
        ended = await trio.run_process(
            COMMAND, capture_stdout=True, capture_stderr=True, check=False, cwd=ROOT, env=plain_environment()
        )
    told = ended.stdout.decode()
    assert ended.returncode == 0, told + ended.stderr.decode()
    assert told.rstrip().endswith("everything is as it should be")
    assert "WRONG" not in told
    for pair in ("ada's process and bob's", "ada's process and cem's", "bob's process and cem's"):
        assert f"ok     TCP connections between {pair}: 1\n" in told
    # Before the deny was lifted, cem had a link to bob alone, and ada's rows none the less.
    before, after = told.split("nobody tells them where the other is")
    assert "ok     cem has links to: ['Bob']\n" in before
    assert "bulk rows in cem's file: 20,000\n" in before
    assert "ok     cem has links to: ['Ada', 'Bob']\n" in after


def test_the_demo_tells_what_it_does_and_takes_nothing() -> None:
    shown = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, cwd=ROOT, env=plain_environment(), check=False)
    assert (shown.returncode, shown.stdout.startswith("usage: scripts/demo")) == (0, True)
    assert "Three users with a daemon each" in shown.stdout
    for wrong in ("--bogus", "more"):
        ended = subprocess.run([*COMMAND, wrong], capture_output=True, text=True, cwd=ROOT, env=plain_environment(), check=False)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.startswith("usage: scripts/demo") and wrong in ended.stderr


async def test_a_signal_in_the_middle_of_the_demo_leaves_no_daemon_and_no_folder(tmp_path: Path) -> None:
    process = await trio.lowlevel.open_process(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=plain_environment({"TMPDIR": str(tmp_path)})
    )
    told = b""
    with trio.fail_after(HANG_S):
        assert process.stdout is not None
        while b"cem joins through bob" not in told:
            told += await process.stdout.receive_some()
        assert list(tmp_path.iterdir()) != []
        process.send_signal(signal.SIGTERM)
        async for chunk in process.stdout:
            told += chunk
        assert await process.wait() == 130
    assert list(tmp_path.iterdir()) == []
    pids = re.findall(r"\(process (\d+)\)", told.decode())
    assert len(pids) == 3
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
