"""Everything that must hold before a change lands: format, lint, types, import contracts, vectors, planted bugs, tests.

All steps run even if one fails, so that one run shows all there is to mend. The exit status is 1 if any failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> bool:
    """Runs a command with its output on the terminal; returns whether it succeeded."""
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, check=False).returncode == 0


def check_format() -> bool:
    """Everything is as `ruff format` writes it."""
    return run(BIN / "ruff", "format", "--check", "--quiet", ".")


def check_lint() -> bool:
    """The rules of pyproject.toml."""
    return run(BIN / "ruff", "check", "--quiet", ".")


def check_mypy() -> bool:
    """Types, by mypy --strict."""
    return run(BIN / "mypy")


def check_pyright() -> bool:
    """Types, by the second opinion; its node comes from PyPI with it."""
    return run(BIN / "pyright", "--pythonpath", sys.executable, PYRIGHT_PYTHON_IGNORE_WARNINGS="1")


def check_contracts() -> bool:
    """Who imports whom, judged on the built wheel as a user installs it: an editable install exposes more names than that."""
    with tempfile.TemporaryDirectory(prefix="peersd-contracts-") as folder:
        place = Path(folder)
        venv.create(place / "venv", with_pip=True)
        python = place / "venv" / "bin" / "python"
        pip = (python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-deps")
        build = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "wheel", "--no-build-isolation")
        if not run(*build, "--no-deps", "-w", place, ROOT) or not run(*pip, *place.glob("*.whl")):
            return False
        packages = sysconfig.get_path("purelib", vars={"base": str(place / "venv")})
        # In front of the editable install: the linter runs in .venv, what it reads is the wheel.
        found = "import peersd, peersd_protocol as p, sys; sys.exit(not (peersd.__file__ + p.__file__).count(sys.argv[1]) == 2)"
        if not run(sys.executable, "-c", found, packages, cwd=place, PYTHONPATH=packages):
            print("the wheel is not what would be linted", file=sys.stderr)
            return False
        return run(
            BIN / "lint-imports", "--config", ROOT / "pyproject.toml", "--no-cache", cwd=Path(packages), PYTHONPATH=packages
        )


def check_vectors() -> bool:
    """The vectors are what their makers make."""
    return run(ROOT / "scripts" / "vectors", "--check")


def check_planted() -> bool:
    """Every planted bug can still be planted."""
    return run(sys.executable, "-P", "-m", "scripts.sim_planted", "--check")


def check_tests() -> bool:
    """The whole suite."""
    return run(ROOT / "scripts" / "test")


STEPS: dict[str, Callable[[], bool]] = {
    "format": check_format,
    "lint": check_lint,
    "mypy": check_mypy,
    "pyright": check_pyright,
    "contracts": check_contracts,
    "vectors": check_vectors,
    "planted": check_planted,
    "tests": check_tests,
}


def main() -> int:
    """Runs the steps and prints what each took."""
    parser = argparse.ArgumentParser(prog="scripts/check", description=__doc__)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"only these: {', '.join(STEPS)}")
    chosen: list[str] = parser.parse_args().steps or list(STEPS)
    if unknown := [name for name in chosen if name not in STEPS]:
        parser.error(f"no step {', '.join(unknown)}; there are {', '.join(STEPS)}")
    results: list[tuple[str, bool, float]] = []
    for name in chosen:
        print(f"--- {name}: {STEPS[name].__doc__}", flush=True)
        began = time.monotonic()
        passed = STEPS[name]()
        results.append((name, passed, time.monotonic() - began))
    print()
    for name, passed, seconds in results:
        print(f"{name:<10} {'passed' if passed else 'FAILED'} {seconds:6.1f} s")
    return 0 if all(passed for _, passed, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main())
