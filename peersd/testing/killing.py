"""Daemons that write into one group, are killed at drawn moments and started again, and must have lost nothing that they told.

    async with open_killing(tmp_path, seed=7) as killing:
        await killing.kill_at_a_moment()
        await killing.kill_at("batch_committed:3", "mark_due")
        await killing.meet()

Each kill is followed by a look into the files that it left, before anything is started that could mend them: what a client was
told is there on the very device that told it. `meet` compares all devices. peersd.testing.crash_cases reaches every crash point.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Final

import trio

from peersd.crash_points import CrashPoint
from peersd.testing.authors import SCHEMA, Author
from peersd.testing.file_copies import check_copy, copy_alive, copy_dead
from peersd.testing.pairs import GROUP, join
from peersd.testing.processes import HANG_S, DaemonProcess, open_daemon

NAMES: Final = ("ada", "ben", "cem")

OPERATIONS_MAX: Final = 20
"""What each author does at most while another daemon is being killed (guess: a third of a second of work, and of syncing)."""

OPERATIONS_TO_POINT_MAX: Final = 5_000
"""What each author does at most until a crash point is reached, a bound against a point that never is."""

MOMENT_S: Final = 0.02
"""A kill comes so long at most after the write it was drawn for: some writes, or one bulk write, last as long (measured)."""


class Killing:
    """Three daemons of three users with a group in common, and who writes on each. Made by `open_killing`.

    Attributes:
        daemons: by name.
        authors: by name.
        folder: of the daemons.
        kills: how many daemons were killed.
        reached: how many of them at each crash point.
    """

    def __init__(self, folder: Path, seed: int, daemons: Mapping[str, DaemonProcess], path: Mapping[str, Path]) -> None:
        self.daemons = daemons
        self.authors = {name: Author(name, daemon, Random(f"{seed} {name}")) for name, daemon in daemons.items()}
        self.folder = folder
        self.kills = 0
        self.reached: Counter[CrashPoint] = Counter()
        self._seed = seed
        self._random = Random(seed)
        self._paths = path
        self._copies = folder / "copies"
        self._copies.mkdir()

    def draw(self, count: int) -> list[str]:
        """So many different daemons' names."""
        return self._random.sample(sorted(self.daemons), count)

    # --- Kills ------------------------------------------------------------------------------------------------------------------

    async def kill_at_a_moment(self) -> None:
        """Kills one daemon, or two at once, while all write and sync, and starts them again.

        Raises:
            AssertionError: something that was acknowledged is not in the file that is left, or that is not sound.
        """
        victims = self.draw(self._random.choice((1, 1, 1, 2)))
        async with trio.open_nursery() as nursery:
            for author in self.authors.values():
                await nursery.start(author.write, OPERATIONS_MAX)
            for name in victims:
                nursery.start_soon(self._kill_during, name, self._random.randrange(OPERATIONS_MAX), self._random.random())
        for name in victims:
            await self.start_again(name)

    async def _kill_during(self, name: str, operations: int, moment: float) -> None:
        await self.authors[name].wait_for(operations)
        # Not a wait for anything: the moment itself is what is drawn, and no event of ours is near it.
        await trio.sleep(moment * MOMENT_S)
        await self.daemons[name].kill()

    async def kill_at(self, *points: str, while_stopping: bool = False) -> None:
        """Has one daemon, a drawn one, die at crash points while all write and sync, and starts it again after each.

        Args:
            points: of peersd.crash_points, as `NAME` or `NAME:COUNT`; such as writing and syncing reach, or ending in order.
            while_stopping: whether the daemon is told to end in order once it has written something.

        Raises:
            AssertionError: it did not die there; or see `kill_at_a_moment`.
        """
        (name,) = self.draw(1)
        daemon = self.daemons[name]
        await daemon.terminate()
        await daemon.start(crash_at=points[0])
        for point, following in zip(points, (*points[1:], None), strict=True):
            is_dead = trio.Event()
            async with trio.open_nursery() as nursery:
                if while_stopping:
                    await self.authors[name].write(3)
                    daemon.send_signal(signal.SIGTERM)
                else:
                    for author in self.authors.values():
                        nursery.start_soon(author.write, OPERATIONS_TO_POINT_MAX, is_dead)
                reached = CrashPoint(point.partition(":")[0])
                await daemon.wait_crashed(reached)
                is_dead.set()
            await self.start_again(name, reached, crash_at=following)

    def note_kill(self, point: CrashPoint | None) -> None:
        """Counts a kill, at a crash point or at a moment."""
        self.kills += 1
        if point is not None:
            self.reached[point] += 1

    async def start_again(self, name: str, point: CrashPoint | None = None, *, crash_at: str | None = None) -> None:
        """Counts a kill, looks at what it has left of the common group, and starts the daemon again.

        Args:
            name: who was killed.
            point: where, if at a crash point.
            crash_at: see DaemonProcess.start.

        Raises:
            AssertionError: something that was acknowledged is not in the file, or that is not sound.
        """
        self.note_kill(point)
        copy = await self._copy_dead(self._paths[name])
        await self._check(name, copy)
        await self.daemons[name].start(crash_at=crash_at)

    async def check_left(self, path: Path) -> None:
        """Looks at what a kill has left of another group's file.

        Raises:
            AssertionError: it is not sound, or not what its logs amount to.
        """
        _, wrong = await trio.to_thread.run_sync(check_copy, await self._copy_dead(path))
        assert wrong is None, f"seed {self._seed}, after {self.kills} kills, {path}: {wrong}"

    async def _copy_dead(self, path: Path) -> Path:
        return await trio.to_thread.run_sync(copy_dead, path, self._copies)

    async def _check(self, name: str, copy: Path) -> None:
        """Looks at what a kill has left of the common group's file."""

        def look() -> list[str]:
            missing = [f"lacks what was acknowledged: {one}" for one in self.authors[name].missing_in(copy)]
            for author in self.authors.values():
                missing += author.torn_in(copy)
            _, wrong = check_copy(copy)
            return missing + ([wrong] if wrong else [])

        found = await trio.to_thread.run_sync(look)
        assert not found, f"seed {self._seed}, kill {self.kills}, {name}: {'; '.join(found)}"

    # --- All together -----------------------------------------------------------------------------------------------------------

    async def meet(self, *, from_scratch: bool = False) -> None:
        """Waits until all hold the same, and compares what they hold.

        Args:
            from_scratch: see check_copy.

        Raises:
            AssertionError: they differ, or lack something that any of them acknowledged, or a pair has more than one link, or a
                log has an error.
        """
        for _ in range(2):
            for daemon in self.daemons.values():
                await daemon.call("sync.wait", group=GROUP, timeout_s=HANG_S)
        where = f"seed {self._seed}, after {self.kills} kills"
        for name, daemon in self.daemons.items():
            linked = [link["device_id"] for link in await daemon.links()]
            assert len(linked) == len(set(linked)) <= len(self.daemons) - 1, f"{where}, {name}: links to {linked}"
            assert not daemon.errors(), f"{where}, {name}: {daemon.errors()}"
        found = await trio.to_thread.run_sync(self._compare, from_scratch)
        assert not found, f"{where}: {'; '.join(found)}"

    def _compare(self, from_scratch: bool) -> list[str]:
        found: list[str] = []
        first = None
        for name, path in self._paths.items():
            copy = copy_alive(path, self._copies)
            for author in self.authors.values():
                found += [f"{name} lacks what was acknowledged: {one}" for one in author.missing_in(copy)]
                found += [f"{name} has {one}" for one in author.torn_in(copy)]
            held, wrong = check_copy(copy, from_scratch=from_scratch and first is None)
            if wrong is not None:
                found.append(f"{name}: {wrong}")
            if first is not None and (difference := first.difference(held)) is not None:
                found.append(f"{name} differs: {difference}")
            first = first or held
        return found


@asynccontextmanager
async def open_killing(base: Path, *, seed: int) -> AsyncGenerator[Killing]:
    """Three running daemons, linked and in sync, in a group with a table for the authors.

    Args:
        base: a folder of the test's own; on failure the daemons' folders and the ends of their logs are printed.
        seed: of all that is drawn: who writes what, who is killed, and at which write.
    """
    async with AsyncExitStack() as stack:
        daemons = {name: await stack.enter_async_context(open_daemon(base, name)) for name in NAMES}
        for name, daemon in daemons.items():
            await daemon.call("init", user_name=name, device_name=f"{name}-laptop")
        founder, *others = daemons.values()
        await founder.call("group.create", name=GROUP)
        await founder.call("sql.execute", sql=SCHEMA, group=GROUP)
        for other in others:
            await join(founder, other, role="admin")
        paths = {name: Path((await daemon.call("group.show", group=GROUP))["path"]) for name, daemon in daemons.items()}
        killing = Killing(base, seed, daemons, paths)
        await killing.meet()
        yield killing
        await killing.meet(from_scratch=True)
