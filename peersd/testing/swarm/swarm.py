"""A swarm: many real nodes in one process under virtual time, on a network in memory that can be disturbed at will."""

from __future__ import annotations

import random
import tempfile
from collections.abc import AsyncGenerator, Collection, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import trio

from peersd.client import Peers, PeersError, SqlParams
from peersd.testing.checkers import Checker, Finding
from peersd.testing.swarm import checks
from peersd.testing.swarm.device import Device, Settings
from peersd.testing.swarm.hostile import Hostile
from peersd.testing.swarm.listening import SPEAKER, errors_noted
from peersd.testing.swarm.naming import check_known, check_schema, name_devices, name_groups
from peersd.testing.swarm.network import VirtualNetwork
from peersd.testing.swarm.running import check_clock, schedule_by_seed
from peersd.testing.swarm.tapping import Sightings, Tap
from peersd.testing.swarm.tasks import leaked_tasks
from peersd.testing.swarm.verdicts import Judge
from peersd.testing.swarm.wires import Conditions
from peersd_protocol import ids

CALL_TIMEOUT_S: Final = 600.0
"""Of virtual time: as long as anybody would wait for a statement or to be let in."""

ROWS_MAX: Final = 1_000_000

INVITE_S: Final = 86_400
"""How long a ticket is valid."""

GROUPS_AT_ONCE: Final = 8
"""Groups that are founded and joined at the same time: each has its stores open."""

CONVERGED_S: Final = 10.0
"""Within so long all members must hold the same, once all is well and nobody takes a dead link for one that lives."""

DEAD_LINK_S_MAX: Final = 90.0
"""By when a dead link is noticed: three pings missed, and a fourth, and then some; each takes PING_INTERVAL_MS."""

LOOK_S: Final = 0.25
"""Virtual time between two looks at whether the swarm has converged."""

TRACE_SHOWN: Final = 40
"""Lines of what happened last that a failure shows."""

MEMORY_FOLDER: Final = Path("/dev/shm")
"""Where files cost no wait for a disk, on systems that have it: nothing that a swarm writes has to outlive it."""


class SwarmFailed(AssertionError):
    """Something that must be true of a swarm is not. The message says what, the seed, and what happened last.

    Args:
        what: what is wrong, in short.
        text: the message.
        findings: what was found, by which checks; the first one first.

    Attributes:
        what: see above.
        findings: see above.
    """

    def __init__(self, what: str, text: str, findings: Sequence[Finding]) -> None:
        super().__init__(text)
        self.what = what
        self.findings = tuple(findings)


class Swarm:
    """The devices of a swarm. Made by `open_swarm`.

    Devices are called by the names of their users. Where a method takes a group, None means the first.

    Args:
        folder: gets a folder for each device.
        groups: each group's members, the founder first.
        names: of all devices.
        seed: what everything is drawn from.
        conditions: what the network is like.
        settings: of every node.

    Attributes:
        seed: as given.
        devices: by name.
        groups: each group's members, also those that were.
        network: for what has no method here.
        errors: what was found to be wrong meanwhile, such as errors in logs; a swarm with any has failed.
        record: what clients were told.
        taken_over: the names of devices that other code than the product's has spoken for.
    """

    def __init__(
        self,
        folder: Path,
        groups: Mapping[str, Sequence[str]],
        names: Sequence[str],
        seed: int,
        conditions: Conditions | None,
        settings: Settings,
    ) -> None:
        self.seed = seed
        self.groups = {group: list(members) for group, members in groups.items()}
        self.network = VirtualNetwork(seed, conditions)
        self.devices = {name: Device(name, folder / name, self.network, settings, seed, self._note_answer) for name in names}
        self.errors: list[Finding] = []
        self.record = checks.Record(self.groups)
        self.taken_over: set[str] = set()
        self._sightings = Sightings(self.record.markers)
        self.network.open_tap = lambda dialler, listener: Tap(self.devices[dialler], listener, self._sightings)
        self._draw = random.Random(f"{seed} swarm")
        self._nursery: trio.Nursery | None = None

    # --- Listener ---------------------------------------------------------------------------------------------------------------

    def note(self, finding: Finding) -> None:
        """See Listener."""
        self.errors.append(finding)

    def excuses(self, name: str) -> bool:
        """See Listener."""
        return name in self.taken_over or (name in self.devices and self.devices[name].disk.has_failed)

    def is_hostile(self, device_id: str) -> bool:
        """See Listener."""
        return any(ids.format_id(ids.DEVICE, self.devices[name].id) == device_id for name in self.taken_over)

    # --- Applications' work -----------------------------------------------------------------------------------------------------

    def peers(self, device: str) -> Peers:
        """A client's connection to a device, as `peersd.client.open_client` gives one: what an application is given to work with.

        It ends when the device stops or crashes; after `restart` there is a new one.

        Raises:
            NoDaemon: the device does not run.
            ValueError: there is no device of that name; so it is with all methods here, and with groups.
        """
        return self._device(device).peers

    def _device(self, name: str) -> Device:
        check_known("device", [name], self.devices)
        return self.devices[name]

    async def execute(self, device: str, sql: str, params: SqlParams = (), *, group: str | None = None) -> int:
        """Writes with one statement; returns how many rows it changed. From then on no member may ever lack it.

        Raises:
            NoDaemon: the device does not run, or crashed before it answered: it may have been written or not.
            PeersError: what the node answered.
        """
        answer = await self.peers(device).execute(sql, params, group=self.group_id(group), timeout_s=CALL_TIMEOUT_S)
        return answer["changes"]

    async def query(self, device: str, sql: str, params: SqlParams = (), *, group: str | None = None) -> list[tuple[Any, ...]]:
        """The rows that a query gives on a device.

        Raises:
            NoDaemon, PeersError: as `execute`.
        """
        id_ = self.group_id(group)
        answer = await self.peers(device).query(sql, params, group=id_, limit=ROWS_MAX, timeout_s=CALL_TIMEOUT_S)
        return [tuple(row) for row in answer.rows]

    def marker(self, group: str | None = None) -> str:
        """A text to be written into rows of a group only: `converged` looks for it in the files of others and of other groups."""
        text = f"marker-{self._draw.randbytes(12).hex()}"
        self.record.markers.setdefault(self._name(group), set()).add(text)
        return text

    async def join(self, group: str, device: str, *, inviter: str | None = None, role: str = "writer") -> None:
        """Lets a device's user join a group by a ticket, which the founder or another member makes."""
        host = self.peers(inviter or self.groups[self._name(group)][0])
        made = await host.create_invite(self.group_id(group), role=role, expires_in_s=INVITE_S, max_uses=1)
        await self.peers(device).join(made["ticket"], timeout_s=CALL_TIMEOUT_S)

    def _name(self, group: str | None) -> str:
        name = next(iter(self.groups), "") if group is None else group
        check_known("group", [name], self.groups)
        return name

    def group_id(self, group: str | None = None) -> str:
        """A group's id by its name, as the local API takes it."""
        return ids.format_id(ids.GROUP, self.record.group_ids[self._name(group)])

    def _note_answer(self, device: str, group_id: bytes, answer: Mapping[str, Any]) -> None:
        name = next((name for name, known in self.record.group_ids.items() if known == group_id), group_id.hex()[:8])
        if "last_entry" in answer:
            self.network.trace.note(f"{device} has written in {name}")
            self.record.acknowledged.note_written(group_id, self.devices[device], answer)
        else:
            self.network.trace.note(f"{device} has joined {name}")
            self.record.acknowledged.note_joined(group_id, device)
            if name in self.groups and device not in self.groups[name]:
                self.groups[name].append(device)

    # --- Faults -----------------------------------------------------------------------------------------------------------------

    def partition(self, *sides: Collection[str], one_way: bool = False) -> None:
        """Cuts devices off from each other until `heal`; see VirtualNetwork.partition."""
        self.network.partition(*sides, one_way=one_way)

    def isolate(self, device: str) -> None:
        """Cuts one device off from all others until `heal`."""
        check_known("device", [device], self.devices)
        self.network.partition([device], [other for other in self.devices if other != device])

    def heal(self) -> None:
        """Ends partitions, clogging and refusals. Crashed devices stay down."""
        self.network.heal()

    async def crash(self, device: str, *, silently: bool = False) -> None:
        """Ends a device's node as SIGKILL does, or silently, as when its machine loses power; see Device.crash.

        Raises:
            ValueError: it does not run.
        """
        self._check_runs(device, True, "crash")
        self.network.trace.note(f"{device} crashes")
        await self.devices[device].crash(silently=silently)

    async def stop(self, device: str) -> None:
        """Stops a device's node in good order.

        Raises:
            ValueError: it does not run.
        """
        self._check_runs(device, True, "be stopped")
        await self.devices[device].stop()

    async def restart(self, device: str) -> None:
        """Starts a node that crashed or was stopped, on the files that are there.

        Raises:
            ValueError: it runs.
        """
        self._check_runs(device, False, "be started")
        assert self._nursery is not None
        self.network.trace.note(f"{device} starts")
        await self._nursery.start(self.devices[device].run)

    @asynccontextmanager
    async def hostile(self, device: str) -> AsyncGenerator[Hostile]:
        """Takes a device over: its node is stopped, and the test speaks with its keys from here on.

        It counts as a hostile one until the end: what others say of it is no fault of theirs, and its own entries may be anything
        that others take.

        Raises:
            ValueError: it does not run.
        """
        await self.stop(device)
        self.network.trace.note(f"{device} is hostile")
        self.taken_over.add(device)
        token = SPEAKER.set(device)
        try:
            yield Hostile(self.devices[device], self.devices, self.network, self.seed)
        finally:
            SPEAKER.reset(token)

    def set_clock(self, device: str, *, skew_ms: int) -> None:
        """Sets a device's wall clock so far ahead of the right time, or behind; it jumps there at once."""
        clock = self._device(device).clock
        self.network.trace.note(f"{device} has its clock {skew_ms} ms ahead")
        clock.skew_ms = skew_ms

    def _check_runs(self, device: str, wanted: bool, what: str) -> None:
        if self._device(device).is_running != wanted:
            running = ", ".join(name for name, one in self.devices.items() if one.is_running) or "none"
            raise ValueError(f"{device} cannot {what}: it {'does not run' if wanted else 'runs'}. Running are: {running}.")

    # --- Checks -----------------------------------------------------------------------------------------------------------------

    async def converged(self, within_s: float = CONVERGED_S) -> float:
        """Waits until all running members of every group hold the same, and checks all that must be true then.

        docs/testing-applications.md says what is checked; the checks are named in `peersd.testing.checkers`.

        Args:
            within_s: how long it may take, in virtual time, from now on or from when the last dead link was noticed.

        Returns:
            How long it took from now on.

        Raises:
            SwarmFailed: it took longer, or something is broken for good.
        """
        hostile = [self.devices[name].id for name in self.taken_over]
        judge = Judge(self._honest(), hostile, self.record, self._sightings, self.seed)
        try:
            took_s = await self.met(within_s)
        except SwarmFailed as failure:
            # What is wrong with a file by itself may be the cause.
            found = judge.findings(have_met=False)
            raise self._failure(failure.what, [*failure.findings, *found]) from None
        findings = list(judge.findings(have_met=True))
        if findings:
            raise self._failure("a rule is broken", findings)
        return took_s

    async def met(self, within_s: float = CONVERGED_S) -> float:
        """As `converged`, without a look into the files: for swarms of very many devices or groups."""
        start_s = trio.current_time()
        devices = self._honest()
        while True:
            self._check_rules()
            findings = await checks.unmet(devices, self.network, self.record)
            if not findings:
                findings = await checks.differences(devices, self.record)
            now_s = trio.current_time()
            if not findings:
                return now_s - start_s
            is_dead = self.network.has_dead_links and now_s - start_s < DEAD_LINK_S_MAX
            since_s = now_s - max(start_s, self.network.noticed_s)
            if since_s >= within_s and not is_dead:
                raise self._failure(f"not converged within {within_s:g} s", findings)
            await trio.sleep(LOOK_S)

    def _honest(self) -> list[Device]:
        return [device for name, device in self.devices.items() if name not in self.taken_over]

    @property
    def trace_hash(self) -> str:
        """A hash over all that happened so far: the same for two runs that did the same."""
        return self.network.trace.digest()

    def _check_rules(self) -> None:
        broken = [*checks.broken_rules(list(self.devices.values()), self.network), *self.errors]
        if broken:
            raise self._failure("a rule is broken", broken)

    def _failure(self, what: str, findings: Sequence[Finding]) -> SwarmFailed:
        lines = [f"{what}, seed {self.seed}:", *(f"  {finding}" for finding in findings), self._last_events()]
        return SwarmFailed(what, "\n".join(lines), findings)

    def story(self) -> str:
        """The seed and what happened last, in virtual ms: what a failure of the application's own assertion is shown with."""
        return f"a swarm with seed {self.seed}\n{self._last_events()}"

    def _last_events(self) -> str:
        return "\n".join(
            ["what happened last (virtual ms):", *(f"  {line}" for line in self.network.trace.lines()[-TRACE_SHOWN:])]
        )

    # --- Life -------------------------------------------------------------------------------------------------------------------

    async def start(self, nursery: trio.Nursery, schema: Sequence[str]) -> None:
        """Starts all nodes, makes the users, founds the groups and has everybody join."""
        self._nursery = nursery
        for device in self.devices.values():
            await nursery.start(device.run)
        limiter = trio.CapacityLimiter(GROUPS_AT_ONCE)
        try:
            async with trio.open_nursery() as founding:
                for group in self.groups:
                    founding.start_soon(self._found, group, schema, limiter)
        except ExceptionGroup as failed:
            # The first failure cancels the rest: it comes out as it is, with no nursery's group around it.
            if len(failed.exceptions) != 1:
                raise
            raise failed.exceptions[0] from failed.exceptions[0].__cause__

    async def _found(self, group: str, schema: Sequence[str], limiter: trio.CapacityLimiter) -> None:
        founder, *others = self.groups[group]
        async with limiter:
            made = await self.peers(founder).create_group(group)
            self.record.group_ids[group] = ids.parse_id(ids.GROUP, made)
            for sql in schema:
                try:
                    await self.execute(founder, sql, group=group)
                except PeersError as error:
                    raise ValueError(f"The statement {sql!r} of `schema` failed: {error}") from error
            for device in others:
                await self.join(group, device)

    async def close(self) -> None:
        """Stops all nodes in good order."""
        async with trio.open_nursery() as nursery:
            for device in self.devices.values():
                if device.is_running:
                    nursery.start_soon(device.stop)
        self.errors += [Finding(Checker.TASKS, text) for text in leaked_tasks(self._honest())]
        for device in self.devices.values():
            device.disk.unregister()

    async def watch(self) -> None:
        """Looks every second at what must never be."""
        while True:
            await trio.sleep(1.0)
            broken = checks.broken_rules(list(self.devices.values()), self.network)
            self.errors += [finding for finding in broken if finding not in self.errors]

    def check_end(self) -> None:
        """Raises SwarmFailed if anything was ever wrong."""
        self._check_rules()


@asynccontextmanager
async def open_swarm(
    *,
    devices: int | Sequence[str] = 3,
    groups: int | Mapping[str, Sequence[str]] = 1,
    schema: Sequence[str] = (),
    seed: int = 0,
    folder: Path | None = None,
    conditions: Conditions | None = None,
    settings: Settings | None = None,
) -> AsyncGenerator[Swarm]:
    """A running swarm whose users exist and whose groups are founded and joined, by tickets; it must run under a virtual clock.

    Args:
        devices: how many, called ada, ben, cem, …, or their names.
        groups: how many, called g1, g2, … with all devices, or the members of each, the founder first.
        schema: statements that every founder executes before anybody joins, such as CREATE TABLE.
        seed: what everything is drawn from: keys, delays, the order in which tasks run. The same seed gives the same run.
        folder: where the files are; None for a temporary one.
        conditions: what the network is like.
        settings: of every node.

    Raises:
        RuntimeError: the clock is not a virtual one.
        ValueError: there is no device, a name is there twice, unknown or none, or a statement of the schema fails.
        SwarmFailed: in the end, if a node has logged an error or had two links to another or a queue beyond its bound.
    """
    check_clock()
    names = name_devices(devices)
    members = name_groups(groups, names)
    check_schema(schema)
    failure: Exception | None = None
    with _temporary(folder) as base, schedule_by_seed(seed):
        swarm = Swarm(base, members, names, seed, conditions, settings or Settings())
        with errors_noted(swarm):
            async with trio.open_nursery() as nursery:
                try:
                    await swarm.start(nursery, schema)
                    nursery.start_soon(swarm.watch)
                    yield swarm
                except Exception as error:  # noqa: BLE001 - raised again below, where no nursery wraps it
                    failure = error
                    if not isinstance(error, SwarmFailed):
                        error.add_note(swarm.story())
                with trio.CancelScope(shield=True):
                    await swarm.close()
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        swarm.check_end()


def _temporary(folder: Path | None) -> AbstractContextManager[Path]:
    if folder is not None:
        return nullcontext(folder)
    return _temporary_path()


@contextmanager
def _temporary_path() -> Generator[Path]:
    parent = MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="peersd-swarm-", dir=parent) as name:
        yield Path(name)
