"""The wheel, built and installed into a fresh environment outside the checkout, brings the two packages and nothing else."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HANG_GUARD_S = 600


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=HANG_GUARD_S, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--disable-pip-version-check", "--quiet", "--no-deps", "--no-build-isolation"]
    run(sys.executable, "-m", "pip", "wheel", *options, "-w", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A fresh environment with the wheel; returns it and the names that installing added to its site-packages.

    The dependencies come from this environment by a path file: a path file inside it, such as the one that makes the checkout
    importable, is not followed from there, so what is imported is what the wheel brought.
    """
    place = tmp_path_factory.mktemp("elsewhere") / "venv"
    venv.create(place, with_pip=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(place)}))
    before = {path.name for path in packages.iterdir()}
    run(place / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "-q", "install", "--no-deps", wheel, cwd=place)
    added = {path.name for path in packages.iterdir()} - before
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return place, added


def version() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def test_installing_adds_the_two_packages_and_no_other(installed: tuple[Path, set[str]]) -> None:
    _, added = installed
    assert added == {"peersd", "peersd_protocol", f"peersd-{version()}.dist-info"}


def test_what_is_imported_there_is_what_the_wheel_brought(installed: tuple[Path, set[str]]) -> None:
    place, _ = installed
    code = "import peersd, peersd_protocol; print(peersd.__file__); print(peersd_protocol.__file__)"
    files = run(place / "bin" / "python", "-c", code, cwd=place).split()
    assert [Path(file).is_relative_to(place) for file in files] == [True, True]


@pytest.mark.parametrize("command", ["peersd", "peers"])
def test_both_commands_state_their_version_from_there(installed: tuple[Path, set[str]], command: str) -> None:
    place, _ = installed
    assert run(place / "bin" / command, "--version", cwd=place).split() == [command, version()]


def test_the_wheel_carries_type_markers_and_the_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"peersd/py.typed", "peersd_protocol/py.typed", f"peersd-{version()}.dist-info/licenses/LICENSE"} <= names


def test_importing_the_client_loads_nothing_else_of_ours_but_what_both_ends_of_the_socket_share(
    installed: tuple[Path, set[str]],
) -> None:
    place, _ = installed
    code = (
        "import sys, peersd.client; print(*sorted({'.'.join(n.split('.')[:2]) for n in sys.modules if n.startswith('peersd')}))"
    )
    assert run(place / "bin" / "python", "-c", code, cwd=place).split() == ["peersd", "peersd.client", "peersd.prompt_socket"]
