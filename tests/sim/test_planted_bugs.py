"""The planted bugs: all can be planted, a patch that does not apply is named, and some that are found at once are found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from peersd.testing.checkers import CHECKERS, Bench, Checker
from peersd.testing.planting import PatchFailed, apply_patch, find_unfit, load_bugs, parse_patch, plant
from scripts.sim_planted import COPIED, Hunted, find_changes

ROOT = Path(__file__).resolve().parent.parent.parent
PATCHES = Path(__file__).resolve().parent / "planted"

PATCH = """Two and two are five.

by: oracle, equal-dumps
simulator: 3,5-6
swarm: 1
--- a/sums.py
+++ b/sums.py
@@ -40,3 +40,3 @@ def add():

-    return 4
+    return 5
"""


def test_there_are_enough_planted_bugs_and_all_can_be_planted() -> None:
    bugs = load_bugs(PATCHES)
    assert len(bugs) >= 24
    assert find_unfit(bugs, ROOT) == []


def test_a_patch_tells_what_it_does_by_what_it_may_be_found_and_with_which_seeds() -> None:
    bug = parse_patch("wrong-sum", PATCH)
    assert (bug.name, bug.does) == ("wrong-sum", "Two and two are five.")
    assert bug.by == (Checker.ORACLE, Checker.EQUAL_DUMPS)
    assert bug.seeds == {Bench.SIMULATOR: (3, 5, 6), Bench.SWARM: (1,)}
    assert not bug.is_missed
    assert parse_patch("wrong-sum", PATCH.replace("5-6\n", "5-6\nmissed: yes\n")).is_missed


def test_a_patch_applies_wherever_its_text_has_moved_to(tmp_path: Path) -> None:
    (tmp_path / "sums.py").write_text("def add():\n\n    return 4\n")
    assert apply_patch(parse_patch("wrong-sum", PATCH), tmp_path) == {"sums.py": "def add():\n\n    return 5\n"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def add():\n\n    return 2 + 2\n", "0 times in sums.py"),
        ("def add():\n\n    return 4\n\ndef multiply():\n\n    return 4\n", "2 times in sums.py"),
        ("def add(:\n\n    return 4\n", "invalid syntax"),
    ],
)
def test_a_patch_that_does_not_apply_is_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "sums.py").write_text(text)
    (told,) = find_unfit([parse_patch("wrong-sum", PATCH)], tmp_path)
    assert told.startswith("wrong-sum: ")
    assert said in told


def test_a_patch_that_imports_what_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "sums.py").write_text("from terms import four, five\nimport os\n\ndef add():\n\n    return 4\n")
    (tmp_path / "terms.py").write_text("four = 4\n")
    (told,) = find_unfit([parse_patch("wrong-sum", PATCH)], tmp_path)
    assert told == "wrong-sum: sums.py imports what is not there: five of terms"


def test_a_patch_of_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    assert find_unfit([parse_patch("wrong-sum", PATCH)], tmp_path) == ["wrong-sum: sums.py cannot be read"]


@pytest.mark.parametrize(
    "text",
    [
        PATCH.replace("oracle, ", "a good look, "),
        PATCH.replace("simulator: 3,5-6\nswarm: 1\n", ""),
        PATCH.replace("swarm: 1", "swarm: one"),
        PATCH.replace("oracle, equal-dumps", "quiet"),
        PATCH.replace("5-6\n", "5-6\nmissed: perhaps\n"),
        PATCH.replace("-    return 4", "*    return 4"),
        PATCH.partition("--- a/")[0],
    ],
)
def test_a_patch_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(PatchFailed, match="wrong-sum"):
        parse_patch("wrong-sum", text)


def test_a_bug_is_planted_in_a_copy_alone(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "package").mkdir(parents=True)
    (tree / "package" / "sums.py").write_text("def add():\n\n    return 4\n")
    bug = parse_patch("wrong-sum", PATCH.replace("/sums.py", "/package/sums.py"))
    plant(bug, tree, ["package"], tmp_path / "copy")
    assert "return 5" in (tmp_path / "copy" / "package" / "sums.py").read_text()
    assert "return 4" in (tree / "package" / "sums.py").read_text()


def hunted(
    name: str, checker: str, *, is_missed: bool, bench: Bench = Bench.SIMULATOR, by: str = "oracle, equal-dumps"
) -> Hunted:
    patch = PATCH.replace("oracle, equal-dumps", by)
    bug = parse_patch(name, patch.replace("5-6\n", f"5-6\nmissed: {'yes' if is_missed else 'no'}\n"))
    return Hunted(bug, bench, (checker,) if checker else (), 0, 1, 0, 1.0, "")


def test_what_is_caught_or_missed_otherwise_than_the_patches_say_is_a_change() -> None:
    as_ever = [hunted("a", "oracle", is_missed=False), hunted("b", "", is_missed=True)]
    assert find_changes(as_ever, is_whole=False) == []
    lost, found = hunted("c", "", is_missed=False), hunted("d", "oracle", is_missed=True)
    assert find_changes([*as_ever, lost, found], is_whole=False) == [
        "c is no longer caught in the simulator",
        "d is caught, and its patch says `missed: yes`",
    ]


def test_what_another_check_finds_than_the_patch_names_is_no_catch_and_a_change() -> None:
    found = [hunted("a", "markers", is_missed=False), hunted("b", "markers", is_missed=True)]
    assert not any(one.is_caught for one in found)
    assert find_changes(found, is_whole=False) == [
        "a is found in the simulator by markers, which its patch does not name",
        "b is found in the simulator by markers, which its patch does not name",
    ]


def test_a_check_that_no_planted_bug_fires_is_a_change_where_all_were_planted() -> None:
    all_but_one = [
        hunted(checker, checker, is_missed=False, bench=bench, by=f"oracle, {checker}")
        for bench, checkers in CHECKERS.items()
        for checker in checkers
        if (bench, checker) != (Bench.SWARM, Checker.CHAIN)
    ]
    assert find_changes(all_but_one, is_whole=True) == ["chain of the swarm was fired by no planted bug"]


RAISES = """Every file of a group is damaged.

by: integrity
simulator: 0
--- a/peersd/store/store.py
+++ b/peersd/store/store.py
@@ -1,1 +1,2 @@
     def fence(self) -> None:
+        raise OSError("nobody's catch")
"""


def hunt_for(*arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "scripts.sim_planted", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "protocol")])}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.sim
def test_planted_bugs_are_found_by_the_checks_that_are_for_them() -> None:
    """Those that show within the first virtual second, with one seed; `scripts/sim --planted` plants all."""
    wanted = {
        "applies-half-a-changeset": Checker.WHOLE_TRANSACTIONS,
        "leaks-a-frame-into-another-channel": Checker.FRAMES,
        "sends-in-the-clear": Checker.MARKERS,
        "stamps-by-the-clock-alone": Checker.HONEST_REFUSED,
    }
    done = hunt_for(*wanted, "--in", "simulator", "--seeds-max", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    found = dict(line.split()[:3:2] for line in done.stdout.splitlines()[: len(wanted)])
    assert found == wanted


@pytest.mark.sim
def test_a_planted_bug_that_whole_nodes_show_is_found_in_a_swarm() -> None:
    done = hunt_for("leaves-a-task-behind", "--seeds-max", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split()[:3] == ["leaves-a-task-behind", "swarm", "tasks"]


@pytest.mark.sim
def test_a_bug_by_which_the_product_raises_is_not_caught(tmp_path: Path) -> None:
    (tmp_path / "raises.patch").write_text(RAISES)
    done = hunt_for("--patches", str(tmp_path), "--seeds-max", "0")
    assert done.returncode == 1
    assert done.stdout.startswith("raises")
    assert "MISSED by 1 seeds, 1 of which raised" in done.stdout
    assert "nobody's catch" in done.stdout


@pytest.mark.sim
def test_no_bug_is_planted_where_a_check_fires_without_any(tmp_path: Path) -> None:
    bugs = {bug.name: bug for bug in load_bugs(PATCHES)}
    plant(bugs["sends-in-the-clear"], ROOT, COPIED, tmp_path)
    shutil.copytree(PATCHES, tmp_path / "tests" / "sim" / "planted")
    done = hunt_for("stamps-by-the-clock-alone", "--in", "simulator", "--seeds-max", "0", root=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0 of 0 planted bugs" in done.stdout
    assert "FAILED: markers fired without any bug in the simulator, seed 0: " in done.stdout
