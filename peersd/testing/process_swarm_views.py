"""What a swarm looks like at a moment, and whether it has converged: rows are counted in the files, the rest is asked for."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import trio

from peersd.client import PeersError
from peersd.testing.process_swarm import TABLE, ProcessSwarm

SILENT_S: Final = 10.0
"""A daemon that does not answer for so long is shown as silent (guess: a busy machine takes a tenth of it)."""

TICK_NS: Final = 1_000_000_000
"""Above what any file system's clock needs to go on: Linux's takes 4 ms, others' up to a second."""


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One device at a moment.

    Attributes:
        name: the device's.
        state: `runs`, `down` after a kill, `ended` by itself, or `silent`.
        pid: its process; None unless it runs.
        links: the devices it has links to.
        rows: rows in the file of each of its groups, by name; also while it is down. A missing one has no file yet.
        lag_entries: entries that another device holds in a group of both and this one lacks, as far as the others know; None
            where nobody knows.
        memory_bytes: resident memory.
        file_handles: files, sockets and pipes that it has open.
        bytes_in: received on the sockets of all links so far, also of those that have ended.
        bytes_out: sent on them.
        troubles: groups whose state is another than ok, with it.
    """

    name: str
    state: str
    pid: int | None = None
    links: tuple[str, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    lag_entries: int | None = None
    memory_bytes: int = 0
    file_handles: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    troubles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SwarmView:
    """A swarm at a moment.

    Attributes:
        devices: each device, in the plan's order.
        links: pairs of devices that have a link.
        doubled: pairs between which some device has more than one link; there must be none.
        written: rows acknowledged by group.
        waiting_for: why it has not converged, a line for each reason; empty when it has.
        converged_s: for how long it has been converged; None if it is not.
    """

    devices: tuple[DeviceView, ...]
    links: frozenset[tuple[str, str]]
    doubled: frozenset[tuple[str, str]]
    written: Mapping[str, int]
    waiting_for: tuple[str, ...]
    converged_s: float | None


@dataclass(frozen=True, slots=True)
class _Answers:
    """What one daemon said of itself, its links and its groups."""

    links: list[dict[str, Any]]
    groups: list[dict[str, Any]]
    syncs: list[dict[str, Any]]
    memory_bytes: int
    file_handles: int


class Watch:
    """Looks at a swarm again and again.

    Args:
        swarm: the one to look at; its groups exist.
    """

    def __init__(self, swarm: ProcessSwarm) -> None:
        self._swarm = swarm
        self._names = {device_id: name for name, device_id in swarm.device_ids.items()}
        self._group_names = {group_id: name for name, group_id in swarm.group_ids.items()}
        self._counts: dict[Path, tuple[list[tuple[int, int]], int]] = {}
        self._traffic: dict[str, dict[tuple[str, str], tuple[int, int]]] = defaultdict(dict)
        self._converged_at: float | None = None
        self._written: Mapping[str, int] = {}

    async def look(self) -> SwarmView:
        """Asks every daemon, counts the rows in every file, and compares."""
        swarm = self._swarm
        # Rows first: what is acknowledged meanwhile is then missing at worst, and never missed.
        written, is_writing = dict(swarm.written), swarm.writes_under_way > 0
        rows = await trio.to_thread.run_sync(self._count_all)
        answers: dict[str, _Answers | None] = {}
        async with trio.open_nursery() as nursery:
            for name in swarm.plan.devices:
                nursery.start_soon(self._ask, name, answers)
        lags = self._lags(answers)
        devices = tuple(self._view(name, answers[name], rows[name], lags.get(name)) for name in swarm.plan.devices)
        pairs: dict[tuple[str, str], int] = {}
        for device in devices:
            for other in device.links:
                pair = (min(device.name, other), max(device.name, other))
                pairs[pair] = max(pairs.get(pair, 0), device.links.count(other))
        reasons = tuple(self._reasons(devices, written, is_writing))
        now = time.monotonic()
        if reasons or written != self._written:
            self._converged_at = None
        if not reasons and self._converged_at is None:
            self._converged_at = now
        self._written = written
        return SwarmView(
            devices,
            frozenset(pairs),
            frozenset(pair for pair, number in pairs.items() if number > 1),
            written,
            reasons,
            None if self._converged_at is None else now - self._converged_at,
        )

    async def _ask(self, name: str, answers: dict[str, _Answers | None]) -> None:
        answers[name] = None
        if not self._swarm.is_running(name):
            return
        daemon = self._swarm.daemons[name]
        try:
            with trio.move_on_after(SILENT_S):
                async with daemon.client() as peers:
                    links, groups, syncs = await peers.links(), await peers.groups(), await peers.sync_status()
                answers[name] = _Answers(links, groups, syncs, daemon.memory_bytes(), daemon.file_handles())
        except (PeersError, OSError, AssertionError):
            return  # it was killed meanwhile

    def _lags(self, answers: Mapping[str, _Answers | None]) -> dict[str, int]:
        """Of each device, the entries that it lacks; who has a session with it knows exactly, others by what they heard."""
        views: dict[tuple[str, str], list[tuple[bool, int]]] = defaultdict(list)
        for answer in answers.values():
            for sync in answer.syncs if answer else ():
                group = self._group_names.get(sync["group_id"])
                for device in sync["devices"] if group else ():
                    name = self._names.get(device["device_id"])
                    if name is not None and group is not None:
                        views[name, group].append((device["online"], device["lag_entries"]))
        lags: dict[str, int] = defaultdict(int)
        for (name, _), seen in views.items():
            exact = [lag for is_online, lag in seen if is_online]
            lags[name] += max(exact or [lag for _, lag in seen])
        return lags

    def _view(self, name: str, answer: _Answers | None, rows: Mapping[str, int], lag: int | None) -> DeviceView:
        traffic = self._traffic[name]
        for link in answer.links if answer else ():
            traffic[link["device_id"], link["since"]] = (link["bytes_in"], link["bytes_out"])
        process = self._swarm.daemons[name].process
        view = DeviceView(
            name,
            "down" if process is None else "silent" if process.poll() is None else "ended",
            rows=rows,
            lag_entries=lag,
            bytes_in=sum(bytes_in for bytes_in, _ in traffic.values()),
            bytes_out=sum(bytes_out for _, bytes_out in traffic.values()),
        )
        if answer is None or process is None:
            return view
        return replace(
            view,
            state="runs",
            pid=process.pid,
            links=tuple(sorted(self._names.get(str(link["device_id"]), "?") for link in answer.links)),
            memory_bytes=answer.memory_bytes,
            file_handles=answer.file_handles,
            troubles={group["name"]: group["state"] for group in answer.groups if group["state"] != "ok"},
        )

    def _reasons(self, devices: tuple[DeviceView, ...], written: Mapping[str, int], is_writing: bool) -> Iterator[str]:
        """Why it has not converged: all files of a group show the same rows, none is lost, nobody is known to lack an entry."""
        if is_writing:
            yield "rows are being written"
        for device in devices:
            if device.state != "runs":
                yield f"{device.name}: {device.state}"
            for group, state in device.troubles.items():
                yield f"{device.name}: {group} is {state}"
            if device.state == "runs" and device.lag_entries:
                yield f"{device.name}: lacks {device.lag_entries} entries"
        views = {device.name: device for device in devices}
        for group, members in self._swarm.plan.groups.items():
            counts = {name: views[name].rows.get(group, -1) for name in members}
            most = max(written[group], *counts.values())
            for name, count in counts.items():
                if count < most:
                    yield f"{name}: {max(count, 0)} of {most} rows of {group}"

    # --- Rows, from the files -----------------------------------------------------------------------------------------------

    def _count_all(self) -> dict[str, dict[str, int]]:
        counted: dict[str, dict[str, int]] = {name: {} for name in self._swarm.plan.devices}
        for name, group, path in self._files():
            number = self._count(path)
            if number is not None:
                counted[name][group] = number
        return counted

    def _files(self) -> Iterator[tuple[str, str, Path]]:
        for group, members in self._swarm.plan.groups.items():
            for name in members:
                yield name, group, self._swarm.file_of(name, group)

    def _count(self, path: Path) -> int | None:
        """Rows in a file; counted again only when the file has changed, so that who is idle is left in peace."""
        marks, now_ns = _marks(path), time.time_ns()
        known = self._counts.get(path)
        if known is not None and known[0] == marks:
            return known[1]
        try:
            with closing(_open(path)) as connection:
                number = int(connection.execute(f"SELECT count(*) FROM {TABLE}").fetchone()[0])
        except sqlite3.Error:
            return known[1] if known else None  # no file or table yet, or it changes under us: the next look sees more
        # The clock of a file system has ticks: what was written just before it was counted may change again within one, unseen.
        if now_ns - max(at for _, at in marks) > TICK_NS:
            self._counts[path] = (marks, number)
        else:
            self._counts.pop(path, None)
        return number

    def digests(self) -> dict[str, dict[str, str]]:
        """By group and member, a hash over all rows in the file: equal digests, equal rows. For the end, since it reads all."""
        found: dict[str, dict[str, str]] = {group: {} for group in self._swarm.plan.groups}
        for name, group, path in self._files():
            try:
                with closing(_open(path)) as connection:
                    digest = hashlib.sha256()
                    for row in connection.execute(f"SELECT id, device, n FROM {TABLE} ORDER BY id"):
                        digest.update(repr(row).encode())
                    found[group][name] = digest.hexdigest()[:12]
            except sqlite3.Error as error:
                found[group][name] = str(error)
        return found


def _marks(path: Path) -> list[tuple[int, int]]:
    """Size and time of the last change of a store's file and of its WAL."""
    marks: list[tuple[int, int]] = []
    for part in (path, path.with_name(path.name + "-wal")):
        try:
            stat = part.stat()
            marks.append((stat.st_size, stat.st_mtime_ns))
        except FileNotFoundError:
            marks.append((-1, -1))
    return marks


def _open(path: Path) -> sqlite3.Connection:
    # A store that the daemon has closed has no WAL; opened in the ordinary way, a reader would leave an empty one behind.
    is_closed = not path.with_name(path.name + "-wal").exists()
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' * is_closed}", uri=True, timeout=1)
