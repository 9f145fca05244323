"""Plants bugs, one at a time, into a copy of the product, and tells which check finds each, and what was missed.

The bugs are the patches in tests/sim/planted (see peersd.testing.planting). Each says whether it is looked for in the simulator,
in a swarm of whole nodes, or in both. A bug is caught when a check fires that its patch names: where the product raises, or a run
never ends, nobody has found anything, and what any other check says of it is not what it was planted for.

First the seeds are run without any bug, where nothing may fire: a check that always does would find every bug.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

from peersd.testing.checkers import CHECKERS, Bench
from peersd.testing.planting import PlantedBug, find_unfit, load_bugs, plant
from peersd.testing.simulator import EXCEPTION, SimulationFailed, run_seed
from peersd.testing.swarm import SwarmFailed
from peersd.testing.swarm.fates import run_fate
from scripts.sim_arguments import number
from scripts.sim_interrupts import open_run

ROOT: Final = Path(__file__).resolve().parent.parent
PATCHES: Final = ROOT / "tests" / "sim" / "planted"
COPIED: Final = ("peersd", "protocol/peersd_protocol", "scripts")
"""What a simulation, or a swarm, runs."""

SEEDS_MAX: Final = 20
"""Seeds that are run of one bug at most, beside those that it names."""

RUNS: Final[Mapping[Bench, Callable[[int], object]]] = {Bench.SIMULATOR: run_seed, Bench.SWARM: run_fate}
"""Runs one seed."""

TOLD_CHARS_MAX: Final = 4000
"""Of what was found wrong in one run."""

BUG_S_MAX: Final = 900.0
"""Real seconds that one bug may take: some would keep a simulation busy for good."""


@dataclass(frozen=True)
class Hunted:
    """What came of a bug in one place.

    Attributes:
        bug: which.
        bench: where it was looked for.
        checkers: which checks found it, the first one first; in a swarm several may at the same moment.
        seed: with which it was found, the last one tried if it was not.
        seeds_run: how many were run.
        raised: with how many of them the product raised.
        took_s: real seconds.
        told: what the check said, or what was raised.
    """

    bug: PlantedBug
    bench: Bench
    checkers: tuple[str, ...]
    seed: int
    seeds_run: int
    raised: int
    took_s: float
    told: str

    @property
    def checker(self) -> str:
        """The first check that found it; "" if none did."""
        return self.checkers[0] if self.checkers else ""

    @property
    def is_caught(self) -> bool:
        """Whether a check found it that may."""
        return any(checker in self.bug.by for checker in self.checkers)

    @property
    def line(self) -> str:
        """For the report."""
        name = f"{self.bug.name:<40} {self.bench:<9}"
        if not self.checkers:
            return f"{name} MISSED by {self.seeds_run} seeds, {self.raised} of which raised; {self.took_s:.0f} s"
        more = f", also {', '.join(self.checkers[1:])}" if self.checkers[1:] else ""
        note = "" if self.is_caught else f"; NOT one of: {', '.join(self.bug.by)}"
        return f"{name} {self.checker:<18} seed {self.seed:<3} {self.took_s:5.1f} s, {self.seeds_run} seeds run{more}{note}"


def run_seeds(bench: Bench, seeds: Iterable[int]) -> None:
    """Runs seeds until a check fires, and prints a line of JSON on each: what a copy of the product is told to do."""
    for seed in seeds:
        names, text = list[str](), ""
        try:
            RUNS[bench](seed)
        except SimulationFailed as failure:
            names, text = [failure.name], str(failure).partition("\n")[0]
            if failure.name == EXCEPTION:
                text += f": {failure.__cause__!r}"
        except SwarmFailed as failure:
            names = list(dict.fromkeys(str(found.checker) for found in failure.findings if not found.is_raised)) or [EXCEPTION]
            text = str(failure)
        except Exception as error:  # noqa: BLE001 (what breaks the run itself is no catch, and no reason to end)
            names, text = [EXCEPTION], repr(error)
        print(json.dumps([seed, names, text[:TOLD_CHARS_MAX]]), flush=True)
        if names and names != [EXCEPTION]:
            return


class Children:
    """The processes that run copies of the product, which end when the run does."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._have_ended = False

    def run(self, command: Sequence[str], folder: Path, environment: Mapping[str, str], s_max: float) -> tuple[bytes, bytes]:
        """Runs a command to its end, or to that of all; see subprocess.run.

        Returns:
            What it wrote to standard output and to standard error.

        Raises:
            subprocess.TimeoutExpired: it took longer than `s_max`, in seconds.
        """
        pipe = subprocess.PIPE
        with self._lock:
            if self._have_ended:
                return b"", b""
            # A process group of its own: Ctrl-C in a terminal is for this program alone.
            child = subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, process_group=0)
            self._running.add(child)
        try:
            return child.communicate(timeout=s_max)
        except subprocess.TimeoutExpired as over:
            child.kill()
            over.output, _ = child.communicate()
            raise
        finally:
            if child.poll() is None:  # nobody waits for it any more
                child.kill()
            with self._lock:
                self._running.discard(child)

    def close(self) -> None:
        """Ends all of them, and starts no more."""
        with self._lock:
            self._have_ended = True
            for child in self._running:
                child.kill()


def run_copy(
    bug: PlantedBug | None, bench: Bench, seeds: Iterable[int], children: Children, s_max: float
) -> tuple[list[tuple[int, list[str], str]], str]:
    """Runs seeds of a copy of the product until a check fires.

    Args:
        bug: what is planted there; None for nothing.
        bench: where the seeds are run.
        seeds: in this order.
        children: where the copy runs.
        s_max: real seconds after which it is ended.

    Returns:
        For each seed that ended, in order: which, what found something, and what that said. And why the copy ended before the
        last seed, if it did.
    """
    with tempfile.TemporaryDirectory(prefix="peersd-planted-") as name:
        plant(bug, ROOT, COPIED, Path(name))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([name, str(Path(name, "protocol"))])}
        command = [sys.executable, "-P", "-m", "scripts.sim_planted", "--in", bench, "--run", *map(str, seeds)]
        try:
            printed, errors = children.run(command, Path(name), environment, s_max)
        except subprocess.TimeoutExpired as over:
            printed, errors = over.stdout or b"", b"it took too long"
    return [tuple(json.loads(line)) for line in printed.splitlines()], errors.decode(errors="replace")[-2000:]


def hunt(bug: PlantedBug, bench: Bench, children: Children, seeds_max: int = SEEDS_MAX, bug_s_max: float = BUG_S_MAX) -> Hunted:
    """Plants a bug, and runs seeds until a check finds it.

    Args:
        bug: which.
        bench: where it is looked for.
        children: where the copy runs.
        seeds_max: how many seeds are run beside those that it names.
        bug_s_max: real seconds after which it counts as missed.
    """
    seeds = list(dict.fromkeys([*bug.seeds.get(bench, ()), *range(seeds_max)]))
    began_s = time.monotonic()
    found, errors = run_copy(bug, bench, seeds, children, bug_s_max)
    raised = sum(names == [EXCEPTION] for _, names, _ in found)
    seed, names, told = found[-1] if found else (seeds[0], [], errors)
    if names in ([], [EXCEPTION]):
        names, told = [], next((text for _, _, text in reversed(found) if text), told)
    return Hunted(bug, bench, tuple(names), seed, len(found), raised, time.monotonic() - began_s, told)


def find_false_alarms(wanted: Iterable[tuple[Bench, int]]) -> list[str]:
    """Runs seeds of the product as it is; tells what was found all the same, by the first seeds that found something.

    Args:
        wanted: the seeds and where they are run; each is run once.
    """
    alarms: list[str] = []
    seeds_by_bench = {bench: sorted({seed for place, seed in wanted if place is bench}) for bench in Bench}
    with closing(Children()) as children:
        for bench, seeds in seeds_by_bench.items():
            found, errors = run_copy(None, bench, seeds, children, BUG_S_MAX) if seeds else ([], "")
            fired = [(seed, names, text) for seed, names, text in found if names]
            alarms += [
                f"{', '.join(names)} fired without any bug in the {bench}, seed {seed}: {text}" for seed, names, text in fired
            ]
            if not fired and len(found) < len(seeds):
                alarms.append(f"only {len(found)} of {len(seeds)} seeds ended without any bug in the {bench}: {errors}")
    return alarms


def hunt_all(bugs: Iterable[PlantedBug], bench: Bench | None, jobs: int, seeds_max: int) -> Generator[Hunted]:
    """Hunts bugs where they say, or in one place only, so many at once; each is told of when it has ended."""
    children = Children()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            places = [(bug, place) for bug in bugs for place in ([bench] if bench else bug.seeds)]
            for future in as_completed([pool.submit(hunt, bug, place, children, seeds_max) for bug, place in places]):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            children.close()


def report(hunted: Sequence[Hunted], *, is_whole: bool) -> str:
    """What was found by which check, what was missed, and, if these were all bugs, which checks nothing has fired."""
    bugs, caught = {one.bug.name for one in hunted}, {one.bug.name for one in hunted if one.is_caught}
    lines = [f"{len(caught)} of {len(bugs)} planted bugs were caught by a check that its patch names"]
    lines += [
        f"missed{' as always' if one.bug.is_missed else ''} in the {one.bench}: {one.bug.name}: {one.bug.does}"
        for one in hunted
        if not one.is_caught
    ]
    for bench in Bench:
        fired = Counter(name for one in hunted if one.bench is bench for name in one.checkers)
        lines.append(f"fired in the {bench}: " + ", ".join(f"{name} {count}" for name, count in fired.most_common()))
    if is_whole:
        lines.append(
            "fired by no planted bug: " + (", ".join(f"{name} of the {bench}" for bench, name in _silent(hunted)) or "none")
        )
    return "\n".join(lines)


def _silent(hunted: Iterable[Hunted]) -> list[tuple[Bench, str]]:
    """The checks that nothing has fired."""
    fired = {(one.bench, name) for one in hunted for name in one.checkers}
    return [(bench, name) for bench in Bench for name in sorted(CHECKERS[bench]) if (bench, name) not in fired]


def find_changes(hunted: Iterable[Hunted], *, is_whole: bool) -> list[str]:
    """What is not as the patches say: a sentence each.

    Args:
        hunted: what came of the bugs.
        is_whole: whether these were all bugs, so that each check should have fired.
    """
    hunted = list(hunted)
    changes: list[str] = []
    for one in hunted:
        if one.is_caught and one.bug.is_missed:
            changes.append(f"{one.bug.name} is caught, and its patch says `missed: yes`")
        elif one.checkers and not one.is_caught:
            changes.append(f"{one.bug.name} is found in the {one.bench} by {one.checker}, which its patch does not name")
        elif not one.checkers and not one.bug.is_missed:
            changes.append(f"{one.bug.name} is no longer caught in the {one.bench}")
    silent = _silent(hunted) if is_whole else []
    return changes + [f"{checker} of the {bench} was fired by no planted bug" for bench, checker in silent]


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/sim --planted", description=__doc__, allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="BUG", help="only these (default: all)")
    parser.add_argument("--jobs", type=number(1), default=os.cpu_count() or 1, help="bugs at once (default: one a processor)")
    parser.add_argument("--seeds-max", type=number(0), default=SEEDS_MAX, help=f"seeds to run of each (default {SEEDS_MAX})")
    parser.add_argument("--patches", type=Path, default=PATCHES, help="the folder of the bugs (default tests/sim/planted)")
    parser.add_argument("--check", action="store_true", help="only tell whether all patches apply to the tree as it is")
    parser.add_argument("--verbose", action="store_true", help="print what each check said")
    parser.add_argument("--in", dest="bench", choices=list(map(str, Bench)), help="look there (default: where they say)")
    parser.add_argument("--run", nargs="+", type=int, metavar="SEED", help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    chosen.bench = Bench(chosen.bench) if chosen.bench else None
    if chosen.run:
        return chosen
    known = load_bugs(chosen.patches)
    if not known:
        parser.error(f"argument --patches: no planted bug is in {chosen.patches}")
    unknown = sorted(set(chosen.names) - {bug.name for bug in known})
    if unknown:
        parser.error(
            f"argument BUG: no planted bug is called {', '.join(unknown)}; there are {' '.join(bug.name for bug in known)}"
        )
    chosen.bugs = [bug for bug in known if not chosen.names or bug.name in chosen.names]
    return chosen


def main(argv: Sequence[str] | None = None) -> int:
    """Plants each bug in turn; exit status 1 if what is caught is not what the patches say, or one does not apply."""
    chosen = parse_arguments(argv)
    if chosen.run:
        run_seeds(chosen.bench, chosen.run)
        return 0
    bugs: list[PlantedBug] = chosen.bugs
    unfit = find_unfit(bugs, ROOT)
    for line in unfit:
        print(line)
    if unfit or chosen.check:
        return 1 if unfit else 0
    began_s = time.monotonic()
    hunted: list[Hunted] = []
    alarms: list[str] = []
    with open_run() as interruption, closing(hunt_all(bugs, chosen.bench, chosen.jobs, chosen.seeds_max)) as hunts:
        named = {(bench, seed) for bug in bugs for bench, seeds in bug.seeds.items() for seed in seeds}
        places = {(bench, seed) for bench, seed in named if chosen.bench in (None, bench)}
        alarms += find_false_alarms(places)
        for one in hunts if not alarms else ():
            hunted.append(one)
            print(one.line, flush=True)
            if chosen.verbose or not one.is_caught:
                print(f"    {one.told}", flush=True)
        # Those that found something, and that no patch names.
        alarms += find_false_alarms({(one.bench, one.seed) for one in hunted if one.checkers} - places)
    # With other patches, or some of them, or fewer than all because it was interrupted, a check may well find nothing to fire at.
    is_whole = not chosen.names and chosen.patches == PATCHES and not chosen.bench and not interruption.has_come
    hunted.sort(key=lambda one: (one.bug.name, one.bench))
    print(report(hunted, is_whole=is_whole))
    changes = [*alarms, *find_changes(hunted, is_whole=is_whole and not alarms)]
    for change in changes:
        print(f"FAILED: {change}")
    status = 1 if changes else 0
    ended = len({one.bug.name for one in hunted})
    told = f"{ended} of {len(bugs)} bugs in {time.monotonic() - began_s:.0f} s, {chosen.jobs} at once"
    return interruption.end(status, told)


if __name__ == "__main__":
    sys.exit(main())
