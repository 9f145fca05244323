"""Makes the checkout's own environment, .venv, or reuses it while the pins are unchanged. Standard library only.

A stamp is written last, so an environment whose making was interrupted is made again; a lock keeps two scripts started at
once from making it twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "peersd-stamp.json"
LOG = VENV / "install.log"
PINS = ROOT / "requirements-dev.txt"
LOG_TAIL_LINES = 15


def fingerprint() -> str:
    """What the environment is made from: the pins, what pyproject.toml says about installing, and the checkout's own path."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    installing = [project["build-system"], project["project"], project["tool"]["hatch"]]
    text = json.dumps([PINS.read_text(encoding="utf-8"), installing, str(ROOT)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def is_ready() -> bool:
    """Whether .venv was finished from the same pins, still has its interpreter, and is of the version that PYTHON asks for."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if "PYTHON" in os.environ and stamp["python"] != platform.python_version():
        return False
    return bool(stamp["fingerprint"] == fingerprint()) and (VENV / "bin" / "python").exists()


def say(line: str) -> None:
    """Prints one progress line to standard error, so that a script's own output stays clean."""
    print(f"environment: {line}", file=sys.stderr, flush=True)


def require_venv_module() -> None:
    """Some systems ship Python without venv or ensurepip; says what to install."""
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        say(f"Python {platform.python_version()} ({sys.executable}) comes without the venv module.")
        sys.exit("On Debian and Ubuntu: apt install python3-venv. Or choose another one: PYTHON=/path/to/python3.12")


def run_logged(command: list[str | Path]) -> None:
    """Runs a command with its output in the log; on failure shows the log's end and exits."""
    with LOG.open("ab") as log:
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
    if done.returncode != 0:
        tail = LOG.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
        print(*tail, sep="\n", file=sys.stderr)
        sys.exit(f"environment: installing failed; the whole log is in {LOG}")


def make() -> None:
    """Makes .venv from nothing: a reused one could hold packages that the pins no longer name."""
    require_venv_module()
    began = time.monotonic()
    say(f"making .venv with Python {platform.python_version()}")
    STAMP.unlink(missing_ok=True)
    shutil.rmtree(VENV, ignore_errors=True)
    created = subprocess.run([sys.executable, "-m", "venv", VENV], capture_output=True, text=True, check=False)
    if created.returncode != 0:
        print(created.stdout + created.stderr, file=sys.stderr)
        sys.exit("environment: `python -m venv` failed. On Debian and Ubuntu: apt install python3-venv")
    count = sum(1 for line in PINS.read_text(encoding="utf-8").splitlines() if "==" in line)
    say(f"installing {count} pinned packages")
    pip: list[str | Path] = [VENV / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    run_logged([*pip, "--no-deps", "-r", PINS])
    say("installing peersd itself")
    run_logged([*pip, "--no-deps", "--no-build-isolation", "-e", ROOT])
    STAMP.write_text(json.dumps({"fingerprint": fingerprint(), "python": platform.python_version()}), encoding="utf-8")
    say(f"ready after {time.monotonic() - began:.0f} s")


def main() -> None:
    """Makes the environment unless it is there already."""
    if is_ready():
        return
    with (ROOT / ".venv.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another script that is making it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_ready():
            make()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("environment: interrupted; the next run starts it afresh")
