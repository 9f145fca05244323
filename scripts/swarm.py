"""Runs many real daemons on this machine, joins them in groups by tickets, and shows a live table of them.

Every device is a process of its own (`peersd run`) with one user, in a temporary folder, on a free port of loopback. All of it is
gone at the end, however that comes. The exit status is 0 only if all devices had converged: the same rows in the file of every
member of every group, none lost, and no error in any log.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from peersd.client import PeersError
from peersd.testing.process_swarm import DEVICES_MAX, TOPOLOGIES, Plan, ProcessSwarm, make_plan, open_process_swarm
from peersd.testing.process_swarm_views import SwarmView, Watch
from scripts.swarm_output import Output, open_output

REFRESH_S = 1.0
BUSY_SHARE = 3
"""Looking takes at most a quarter of the time, so that many daemons are watched less often rather than slowed down."""
SETTLE_S = 60.0
"""At the end this long is waited for convergence."""
READ_BYTES = 4096

COMMANDS = "w DEVICE GROUP N writes N rows, kill DEVICE, start DEVICE, q ends"

EXAMPLES = """\
examples:
  scripts/swarm 4                                    four devices in one group, until Ctrl-C
  scripts/swarm 8 --groups 5 --members 3             groups of three, drawn by --seed
  scripts/swarm 5 --topology line --rows 10 --every 2
                                                     rows pass from neighbour to neighbour
  scripts/swarm 6 --topology star                    everybody links to the first device only
  scripts/swarm 12 --links-max 4                     at most four links a device
  scripts/swarm 4 --groups 2 --rows 20 --seconds 10 --json    for programs; the status says whether all converged

while it runs, on standard input:
  w ada g1 500       ada writes 500 rows into g1
  kill ben           SIGKILL, as a power cut
  start ben          start it again
  q                  end: stop writing, wait until all have everything, say how it went

columns:
  g1, g2, …          rows in the group's file on that device; of many groups their sum, rows
  lag                entries that others in its groups hold and this device lacks
  memory, handles    resident memory and open file handles of the process
  bytes in, out      on the sockets of its links
Devices are called ada, ben, cem, …, groups g1, g2, …
Ctrl-C once ends as q does, twice at once.
"""


@dataclass(frozen=True)
class Options:
    """What was asked for.

    Attributes:
        plan: who takes part.
        rows: rows in each turn of writing, of each group; 0 for none.
        every_s: seconds between two turns; None for one turn.
        seconds: ends by itself after so long; None to go on.
        as_json: whether programs read the output.
        keep: whether the folder stays.
    """

    plan: Plan
    rows: int
    every_s: float | None
    seconds: float | None
    as_json: bool
    keep: bool


def parse(arguments: Sequence[str] | None) -> Options:
    """Reads the command line; wrong usage ends the program with status 2."""
    parser = argparse.ArgumentParser(
        prog="scripts/swarm", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("devices", metavar="N", type=int, help=f"how many daemons, from 1 to {DEVICES_MAX}; each takes some 60 MB")
    add("--groups", metavar="G", type=int, default=1, help="how many groups (1)")
    add("--members", metavar="M", type=int, help="members of each group, drawn by --seed (all devices)")
    add(
        "--links-max",
        metavar="L",
        type=int,
        help="links at once of each device, [links] max (no limit); what joining made beyond goes after 10 s",
    )
    add("--topology", choices=TOPOLOGIES, default="mesh", help="who may link to whom, by [links] deny (mesh: everybody)")
    add("--rows", metavar="R", type=int, default=0, help="write R rows into each group, on a member drawn by --seed (0)")
    add("--every", metavar="S", type=float, help="write so again every S seconds (once only)")
    add("--seconds", metavar="T", type=float, help="end after T seconds (at q or Ctrl-C)")
    add("--seed", metavar="X", type=int, default=0, help="of everything that is drawn (0)")
    add("--json", action="store_true", help="a JSON object a line, told by its kind: start, view at each refresh, summary")
    add("--keep", action="store_true", help="keep the folder with the data and the logs")
    given = parser.parse_args(arguments)
    if given.rows < 0:
        parser.error("--rows must not be negative")
    if given.every is not None and (given.every <= 0 or not given.rows):
        parser.error("--every is a number of seconds above 0 and goes with --rows")
    if given.seconds is not None and given.seconds <= 0:
        parser.error("--seconds must be above 0")
    try:
        plan = make_plan(
            given.devices,
            groups=given.groups,
            members=given.members,
            topology=given.topology,
            links_max=given.links_max,
            seed=given.seed,
        )
    except ValueError as error:
        parser.error(str(error))
    return Options(plan, given.rows, given.every, given.seconds, given.json, given.keep)


class CommandError(Exception):
    """A line on standard input that says nothing that can be done; the message says what can."""


class Session:
    """The life of a swarm whose groups exist: writes, commands and views, until something ends it.

    Args:
        swarm: a running one.
        options: what was asked for.
        output: where it is shown.
    """

    def __init__(self, swarm: ProcessSwarm, options: Options, output: Output) -> None:
        self.view: SwarmView | None = None
        self.failures: list[str] = []
        self.groups: dict[str, Any] = {}
        self._swarm = swarm
        self._options = options
        self._output = output
        self._watch = Watch(swarm)
        self._news = trio.Event()
        self._settles_until_s = float("inf")

    def stop(self) -> None:
        """Begin to end: no more writes, and out as soon as all have converged."""
        if not self._swarm.is_ending:
            self._swarm.is_ending = True
            self._settles_until_s = trio.current_time() + SETTLE_S
            self._news.set()

    async def run(self) -> None:
        """Returns at the end; `failures` then says what is not as it should be."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_commands, nursery)
            nursery.start_soon(self._stop_in_time)
            if self._options.rows:
                nursery.start_soon(self._write_turns)
            await self._watch_until_over()
            nursery.cancel_scope.cancel()
        self.groups = await trio.to_thread.run_sync(self._compare)

    async def _watch_until_over(self) -> None:
        while True:
            was_ending = self._swarm.is_ending
            began_s = trio.current_time()
            view = self.view = await self._watch.look()
            self._output.show(self._options.plan, view, "settling" if was_ending else "running")
            if was_ending and self._is_over(view):
                return
            now_s = trio.current_time()
            with trio.move_on_after(max(REFRESH_S * (0.2 if was_ending else 1), BUSY_SHARE * (now_s - began_s))):
                await self._news.wait()
            self._news = trio.Event()

    def _is_over(self, view: SwarmView) -> bool:
        if view.converged_s is not None:
            return True
        # Who is down gets nothing any more, so there is nothing to wait for.
        is_hopeless = any(device.state in ("down", "ended") for device in view.devices) and not self._swarm.writes_under_way
        if not is_hopeless and trio.current_time() < self._settles_until_s:
            return False
        self.failures += view.waiting_for
        return True

    def _compare(self) -> dict[str, Any]:
        """The rows of all files at the end, each group's members against each other."""
        compared: dict[str, Any] = {}
        for group, digests in self._watch.digests().items():
            rows = (
                {device.name: device.rows.get(group, 0) for device in self.view.devices if device.name in digests}
                if self.view
                else {}
            )
            is_equal = len(set(digests.values())) == 1
            compared[group] = {"members": list(digests), "rows": rows, "digests": digests, "equal": is_equal}
            if not is_equal:
                self.failures.append(f"{group}: the members' rows differ")
        if self.view is not None and self.view.doubled:
            self.failures.append(f"more than one link between {', '.join('-'.join(pair) for pair in sorted(self.view.doubled))}")
        return compared

    async def _stop_in_time(self) -> None:
        if self._options.seconds is not None:
            await trio.sleep(self._options.seconds)
            self.stop()

    async def _write_turns(self) -> None:
        draw = random.Random(self._options.plan.seed)
        while not self._swarm.is_ending:
            async with trio.open_nursery() as nursery:
                for group, members in self._options.plan.groups.items():
                    running = [name for name in members if self._swarm.is_running(name)]
                    if running:
                        nursery.start_soon(self._write, draw.choice(running), group, self._options.rows)
            if self._options.every_s is None:
                return
            await trio.sleep(self._options.every_s)

    async def _write(self, name: str, group: str, rows: int) -> None:
        try:
            await self._swarm.write(name, group, rows)
        except (PeersError, OSError) as error:
            self._output.tell(f"writing on {name} into {group} failed: {error}")

    # --- Commands on standard input -----------------------------------------------------------------------------------------

    async def _read_commands(self, nursery: trio.Nursery) -> None:
        # In the background of a terminal, reading would stop the whole program instead of failing.
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)
        while True:
            try:
                # In a thread, since an event loop cannot wait for a file or /dev/null.
                chunk = await trio.to_thread.run_sync(os.read, 0, READ_BYTES, abandon_on_cancel=True)
            except OSError:
                return
            if not chunk:
                return
            for line in self._output.typed(chunk.decode("utf-8", "replace")):
                if line.split()[:1] == ["w"]:
                    nursery.start_soon(self._obey, line)  # a long one is no reason to wait with a kill
                elif line.strip():
                    await self._obey(line)

    async def _obey(self, line: str) -> None:
        try:
            await self._do(line.split())
        except (CommandError, PeersError, AssertionError, OSError) as error:
            self._output.tell(f"{line.strip()}: {error}")
        self._news.set()

    async def _do(self, words: Sequence[str]) -> None:
        match words:
            case ["w", name, group, number]:
                self._check_device(name, is_running=True)
                if group not in self._options.plan.groups_of(name):
                    raise CommandError(f"{name} is in {', '.join(self._options.plan.groups_of(name)) or 'no group'}")
                if not number.isdecimal() or not int(number):
                    raise CommandError("how many rows?")
                began_s = trio.current_time()
                await self._swarm.write(name, group, int(number))
                self._output.tell(f"{name} wrote {int(number):,} rows into {group} in {trio.current_time() - began_s:.1f} s")
            case ["kill", name]:
                self._check_device(name, is_running=True)
                await self._swarm.kill(name)
                self._output.tell(f"{name} is killed")
            case ["start", name]:
                self._check_device(name, is_running=False)
                await self._swarm.restart(name)
                self._output.tell(f"{name} runs again: process {self._swarm.daemons[name].pid}")
            case ["q"]:
                self.stop()
            case _:
                raise CommandError(COMMANDS)

    def _check_device(self, name: str, *, is_running: bool) -> None:
        if name not in self._options.plan.devices:
            raise CommandError(f"there are {', '.join(self._options.plan.devices)}")
        if self._swarm.is_running(name) != is_running:
            raise CommandError(f"{name} {'is down' if is_running else 'runs already'}")


class Ending:
    """What signals do: the first Ctrl-C stops the session, a second one or any other signal ends everything at once."""

    def __init__(self, output: Output) -> None:
        self.number: int | None = None
        self.session: Session | None = None
        self._output = output

    async def watch(self, scope: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs beside everything; cancels `scope` when all is to end at once, `number` is then the signal's."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                session, self.session = self.session, None
                if number == signal.SIGINT and session is not None:
                    self._output.tell("ending; Ctrl-C again ends at once")
                    session.stop()
                elif self.number is None:
                    self.number = number
                    scope.cancel()


async def run(options: Options, output: Output) -> int:
    """Runs the swarm in a temporary folder; the exit status."""
    ending = Ending(output)
    folder = Path(tempfile.mkdtemp(prefix="peersd-swarm-"))
    began_s = time.monotonic()
    session: Session | None = None
    failures: list[str] = []
    try:
        async with trio.open_nursery() as nursery:
            # A scope that the watch is not in: a second signal while things close has to find it there.
            scope = trio.CancelScope()
            await nursery.start(ending.watch, scope)
            with scope:
                async with open_process_swarm(folder, options.plan, output.tell) as swarm:
                    output.start(describe(swarm, folder, options))
                    await swarm.join()
                    session = ending.session = Session(swarm, options, output)
                    output.tell(COMMANDS)
                    await session.run()
            nursery.cancel_scope.cancel()
    except* (PeersError, AssertionError, OSError, trio.TooSlowError) as group:
        failures += [f"{type(error).__name__}: {error}" for error in leaves(group)]
    finally:
        failures += find_errors(folder)
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    view = session.view if session else None
    groups = session.groups if session else {}
    failures = [*(session.failures if session else ()), *failures]
    ended_by = None if ending.number is None else signal.Signals(ending.number).name
    facts = {
        "converged": not failures and ended_by is None,
        "groups": groups,
        "failures": failures,
        "ended_by": ended_by,
        "lasted_s": round(time.monotonic() - began_s, 1),
    }
    output.end(options.plan, view, summarise(options, folder, facts), facts)
    return 128 + ending.number if ending.number is not None else 1 if failures else 0


def describe(swarm: ProcessSwarm, folder: Path, options: Options) -> dict[str, Any]:
    """What programs may want to know once all daemons run."""
    devices = {name: {"process": daemon.pid, "device_id": swarm.device_ids[name]} for name, daemon in swarm.daemons.items()}
    groups = {group: list(members) for group, members in options.plan.groups.items()}
    return {"folder": str(folder), "devices": devices, "groups": groups, "topology": options.plan.topology}


def find_errors(folder: Path) -> list[str]:
    """Lines of level error in the daemons' logs."""
    found = []
    for log in sorted(folder.glob("*/log")):
        lines = log.read_text("utf-8", "replace").splitlines()
        found += [
            f"{log.parent.name}'s log: {line[:300]}" for line in lines if " error " in line[:32] or line.startswith("Traceback")
        ]
    return found


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The errors inside of a group of groups."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def summarise(options: Options, folder: Path, facts: Mapping[str, Any]) -> list[str]:
    """The summary for people."""
    lines = [""]
    for group, compared in facts["groups"].items():
        rows, digests = max(compared["rows"].values(), default=0), compared["digests"]
        found = f"equal in the files of {len(digests)} members" if compared["equal"] else f"NOT equal: {digests}"
        lines.append(f"{group}: {rows:,} rows, {found}")
    if options.keep:
        lines.append(f"kept: {folder} (a device again: peersd run --data {folder}/ada/data --config {folder}/ada/peersd.toml)")
    outcome = "NOT as it should be" if facts["failures"] else "all converged"
    if facts["ended_by"]:
        outcome = f"ended at once by {facts['ended_by']}"
    return [*lines, f"{outcome}; {facts['lasted_s']} s", *(f"  {failure}" for failure in facts["failures"])]


def main() -> int:
    """The command; its exit status: 0 all converged, 1 not, 2 wrong usage, 128 and a signal's number when that ended it."""
    options = parse(None)
    with suppress(BrokenPipeError), open_output(as_json=options.as_json) as output:
        return trio.run(run, options, output)
    return 1


if __name__ == "__main__":
    sys.exit(main())
