"""Each named crash point with what a daemon must be doing to reach it, and what must be so when it has been started again.

    async with open_killing(tmp_path, seed=7) as killing:
        for case in CASES:
            await cut_off(killing, case)

Groups are made, joined, left and forgotten beside the one that all write into, so a kill there finds that one at rest and must
leave it alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final

import trio

from peersd.client import NoDaemon, PeersError
from peersd.crash_points import CrashPoint
from peersd.store.sealing import SEALED_EVERY
from peersd.testing.killing import Killing
from peersd.testing.observing import read_file
from peersd.testing.pairs import until
from peersd.testing.processes import HANG_S, LOOK_AGAIN_S, DaemonProcess, open_daemon

SCHEMA: Final = "CREATE TABLE t (id TEXT PRIMARY KEY)"
ROW: Final = "INSERT INTO t VALUES ('a')"
TABLES: Final = "SELECT name FROM sqlite_schema WHERE name = 't'"


class During(Enum):
    """What a daemon does when it dies at a crash point."""

    WRITING = auto()
    """It writes and syncs, as the two others do."""
    SEALING = auto()
    """It writes alone, so much that a log is sealed."""
    STOPPING = auto()
    """It ends in order, or starts again after that."""
    INIT = auto()
    """It makes its device and its user."""
    CREATE = auto()
    """It makes a group, or starts before that."""
    SCHEMA = auto()
    """It makes a table in a group of its own."""
    RECEIVE = auto()
    """It receives columns that another added while the two were apart, as it did itself."""
    JOIN = auto()
    """It joins a group by another's ticket."""
    ADMIT = auto()
    """It lets another into a group."""
    LEAVE = auto()
    """It leaves a group."""
    FORGET = auto()
    """It forgets a group that it has left."""


@dataclass(frozen=True, slots=True)
class Case:
    """One way to a crash point.

    Attributes:
        during: what is done.
        point: where the daemon dies.
        passes: at which time that it comes there.
        is_done: whether what was done counts when it starts again; else it can be done once more. Says nothing of WRITING,
            SEALING and STOPPING, where every write is looked at by itself.
    """

    during: During
    point: CrashPoint
    passes: int = 1
    is_done: bool = False

    @property
    def armed(self) -> str:
        """What PEERSD_CRASH_AT is set to."""
        return f"{self.point}:{self.passes}"


def _cases(during: During, points: str, *, is_done: bool = False) -> tuple[Case, ...]:
    split = (text.partition(":") for text in points.split())
    return tuple(Case(during, CrashPoint(name), int(passes or 1), is_done) for name, _, passes in split)


CASES: Final = (
    *_cases(During.WRITING, "batch_recorded:3 batch_committed:3 batch_fenced:3 batch_told:3"),
    *_cases(During.WRITING, "intake_applied:3 intake_committed:3 intake_fenced:3 intake_told:3"),
    *_cases(During.WRITING, "mark_due:4 mark_opened:4 mark_written:4 mark_saved:4 local_recorded:9"),
    *_cases(During.SEALING, "log_sealed"),
    *_cases(During.STOPPING, "store_fenced store_closed summary_saved"),
    # The first file of a device is node.db.
    *_cases(During.INIT, "file_created:2 store_created key_written key_saved"),
    *_cases(During.INIT, "store_filled user_created user_registered", is_done=True),
    *_cases(During.CREATE, "summary_cleared local_committed file_created epoch_renewed store_created"),
    *_cases(During.CREATE, "store_filled group_created own_recorded own_committed group_registered", is_done=True),
    *_cases(During.SCHEMA, "act_recorded"),
    *_cases(During.SCHEMA, "act_committed act_told", is_done=True),
    *_cases(During.RECEIVE, "tables_rebuilt"),
    *_cases(During.JOIN, "join_begun"),
    *_cases(During.JOIN, "join_redeemed", is_done=True),
    *_cases(During.ADMIT, "admission_begun act_recorded act_committed act_told"),
    *_cases(During.LEAVE, "leave_noted"),
    *_cases(During.LEAVE, "leave_written", is_done=True),
    *_cases(During.FORGET, "group_unregistered group_dropped group_deleted", is_done=True),
)
"""All of them; each crash point is in one at least (tests/e2e/test_kill_points.py)."""


def cases_of(during: During) -> tuple[Case, ...]:
    """The cases of one kind, in order."""
    return tuple(case for case in CASES if case.during is during)


async def cut_off(killing: Killing, case: Case) -> None:
    """Has a drawn daemon die in a case, starts it again, and looks whether all is in order.

    Raises:
        AssertionError: something is not, or the daemon did not die there.
    """
    await _CUT[case.during](killing, case)


async def groups_of(daemon: DaemonProcess) -> dict[str, str]:
    """The groups that the user is or was in, with their states.

    Raises:
        AssertionError: there is a file without a group, or a group without one.
    """
    listed = await daemon.call("group.list", include_hidden=True)
    paths = {(await daemon.call("group.show", group=group["group_id"]))["path"] for group in listed}
    files = set(map(str, [*daemon.data.glob("group-*.db"), *daemon.data.glob("user-*.db")]))
    assert paths == files, f"{daemon.folder}: files without a group, or groups without a file: {sorted(paths ^ files)}"
    marks = {path.stem for path in (daemon.data / "marks").iterdir()} - {Path(path).stem for path in paths}
    assert not marks, f"{daemon.folder}: marks without a file: {sorted(marks)}"
    return {group["name"]: group["state"] for group in listed}


# --- The ways -------------------------------------------------------------------------------------------------------------------


async def _cut_writing(killing: Killing, case: Case) -> None:
    await killing.kill_at(case.armed)


async def _cut_sealing(killing: Killing, case: Case) -> None:
    (name,) = killing.draw(1)
    daemon, group = killing.daemons[name], _new_name(killing, case)
    await _arm(daemon, case)
    await daemon.call("group.create", name=group)
    await daemon.call("sql.execute", sql=SCHEMA, group=group)
    path = await _path(daemon, group)
    told = 0
    try:
        for told in range(2 * SEALED_EVERY):
            await daemon.call("sql.execute", sql="INSERT INTO t VALUES (?)", params=[f"{told}"], group=group)
    except NoDaemon:
        await daemon.wait_crashed(case.point)
    else:
        raise AssertionError(f"{case}: {told} writes were answered")
    await killing.check_left(path)
    await killing.start_again(name, case.point)
    await daemon.call("sql.execute", sql=ROW, group=group)
    held = {row[0] for row in read_file(path, "SELECT id FROM t")}
    assert held == {"a", *map(str, range(told))}, (case, told, held)


async def _cut_stopping(killing: Killing, case: Case) -> None:
    await killing.kill_at(case.armed, while_stopping=True)


async def _cut_init(killing: Killing, case: Case) -> None:
    async with open_daemon(killing.folder, f"new-{killing.kills}") as daemon:
        if case.point is CrashPoint.FILE_CREATED:
            (daemon.data / "node.db").unlink()  # made at the start, which is counted from 1 again
        await _die(daemon, case, "init", user_name="dan")
        killing.note_kill(case.point)
        await daemon.start()
        if case.is_done:
            try:
                await daemon.call("init", user_name="dan")
            except PeersError as error:
                if error.code != "already_initialised":
                    raise
            else:
                raise AssertionError(f"{case.point}: there was no user")
        else:
            assert (await daemon.call("init", user_name="dan"))["recovery_phrase"]
        assert await groups_of(daemon) == {"dan": "ok"}, case
        await daemon.call("group.create", name="theirs")
        await daemon.call("sql.execute", sql=SCHEMA, group="theirs")
        assert await groups_of(daemon) == {"dan": "ok", "theirs": "ok"}, case


async def _cut_create(killing: Killing, case: Case) -> None:
    (name,) = killing.draw(1)
    daemon, group = killing.daemons[name], _new_name(killing, case)
    before = await groups_of(daemon)
    await _die(daemon, case, "group.create", name=group)
    await killing.start_again(name, case.point)
    assert await groups_of(daemon) == {**before, **({group: "ok"} if case.is_done else {})}, case
    if not case.is_done:
        await daemon.call("group.create", name=group)
    await daemon.call("sql.execute", sql=SCHEMA, group=group)
    assert await groups_of(daemon) == {**before, group: "ok"}, case


async def _cut_schema(killing: Killing, case: Case) -> None:
    (name,) = killing.draw(1)
    daemon, group = killing.daemons[name], _new_name(killing, case)
    await daemon.call("group.create", name=group)
    path = await _path(daemon, group)
    await _die(daemon, case, "sql.execute", sql=SCHEMA, group=group)
    await killing.check_left(path)
    await killing.start_again(name, case.point)
    assert bool(read_file(path, TABLES)) is case.is_done, case
    if not case.is_done:
        await daemon.call("sql.execute", sql=SCHEMA, group=group)
    await daemon.call("sql.execute", sql=ROW, group=group)


async def _cut_receive(killing: Killing, case: Case) -> None:
    names = killing.draw(2)
    host, guest = (killing.daemons[name] for name in names)
    group, ticket = await _invite(killing, case, host)
    await host.call("sql.execute", sql=SCHEMA, group=group)
    await _accept(guest, group, ticket)
    paths = [await _path(daemon, group) for daemon in (host, guest)]
    await host.terminate()
    await _add_columns(guest, group, "of_guest")
    await guest.terminate()
    await host.start()
    await _add_columns(host, group, "of_host")
    await guest.start(crash_at=case.armed)
    await guest.wait_crashed(case.point)
    await killing.check_left(paths[1])
    await killing.start_again(names[1], case.point)
    await guest.call("sync.wait", group=group, timeout_s=HANG_S)
    await host.call("sync.wait", group=group, timeout_s=HANG_S)
    held = [[row[1] for row in read_file(path, "PRAGMA table_info(t)")] for path in paths]
    assert held[0] == held[1] and len(held[0]) == 5, (case, held)


async def _add_columns(daemon: DaemonProcess, group: str, name: str) -> None:
    # Of two that each adds, one comes before one of the other's, so that nobody can merely append them.
    for number in range(2):
        await daemon.call("sql.execute", sql=f"ALTER TABLE t ADD COLUMN {name}_{number} TEXT", group=group)


async def _cut_join(killing: Killing, case: Case) -> None:
    names = killing.draw(2)
    host, guest = (killing.daemons[name] for name in names)
    group, ticket = await _invite(killing, case, host)
    await _die(guest, case, "invite.accept", ticket=ticket)
    await killing.start_again(names[1], case.point)
    assert (group in await groups_of(guest)) is case.is_done, case
    await _accept(guest, group, ticket)


async def _cut_admit(killing: Killing, case: Case) -> None:
    names = killing.draw(2)
    host, guest = (killing.daemons[name] for name in names)
    group, ticket = await _invite(killing, case, host)
    path = await _path(host, group)
    await _arm(host, case)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_try_to_accept, guest, ticket)
        await host.wait_crashed(case.point)
        await killing.check_left(path)
        await killing.start_again(names[0], case.point)
    await _accept(guest, group, ticket)


async def _cut_leave(killing: Killing, case: Case) -> None:
    names = killing.draw(2)
    host, guest = (killing.daemons[name] for name in names)
    group, ticket = await _invite(killing, case, host)
    await _accept(guest, group, ticket)
    path = await _path(guest, group)
    await _die(guest, case, "group.leave", group=group)
    await killing.check_left(path)
    await killing.start_again(names[1], case.point)
    assert (names[1] in await _members(guest, group)) is not case.is_done, case
    await guest.call("group.leave", group=group)
    await _wait_gone(host, group, names[1])


async def _cut_forget(killing: Killing, case: Case) -> None:
    names = killing.draw(2)
    host, guest = (killing.daemons[name] for name in names)
    group, ticket = await _invite(killing, case, host)
    await _accept(guest, group, ticket)
    await guest.call("group.leave", group=group)
    await _wait_gone(host, group, names[1])
    await _die(guest, case, "group.forget", group=group)
    await killing.start_again(names[1], case.point)
    assert group not in await groups_of(guest)


_CUT: Final[Mapping[During, Callable[[Killing, Case], Awaitable[None]]]] = {
    During.WRITING: _cut_writing,
    During.SEALING: _cut_sealing,
    During.STOPPING: _cut_stopping,
    During.INIT: _cut_init,
    During.CREATE: _cut_create,
    During.SCHEMA: _cut_schema,
    During.RECEIVE: _cut_receive,
    During.JOIN: _cut_join,
    During.ADMIT: _cut_admit,
    During.LEAVE: _cut_leave,
    During.FORGET: _cut_forget,
}


# --- Steps of theirs ------------------------------------------------------------------------------------------------------------


async def _arm(daemon: DaemonProcess, case: Case) -> None:
    await daemon.terminate()
    await daemon.start(crash_at=case.armed)


async def _die(daemon: DaemonProcess, case: Case, method: str, **params: Any) -> None:
    """Has the daemon die during a call, or while starting."""
    await _arm(daemon, case)
    try:
        await _call_until_done(daemon, method, **params)
    except NoDaemon:
        await daemon.wait_crashed(case.point)
    else:
        raise AssertionError(f"{case}: {method} was answered")


async def _call_until_done(daemon: DaemonProcess, method: str, **params: Any) -> None:
    """Calls again where it is said to help: a group is forgotten only once somebody has heard of the leave."""
    with trio.fail_after(HANG_S):
        while True:
            try:
                await daemon.call(method, **params)
                return
            except PeersError as error:
                if not error.data.get("retry"):
                    raise
                await trio.sleep(LOOK_AGAIN_S)


def _new_name(killing: Killing, case: Case) -> str:
    return f"{case.during.name.lower()}-{killing.kills}"


async def _invite(killing: Killing, case: Case, host: DaemonProcess) -> tuple[str, str]:
    """A new group of the host's: its name, and a ticket for one."""
    group = _new_name(killing, case)
    await host.call("group.create", name=group)
    return group, (await host.call("invite.create", group=group, role="admin", max_uses=1))["ticket"]


async def _path(daemon: DaemonProcess, group: str) -> Path:
    return Path((await daemon.call("group.show", group=group))["path"])


async def _accept(guest: DaemonProcess, group: str, ticket: str) -> None:
    """Joins, as often as one likes, and has all that the group holds."""
    assert (await guest.call("invite.accept", ticket=ticket, timeout_s=HANG_S))["role"] == "admin"
    await guest.call("sync.wait", group=group, timeout_s=HANG_S)
    assert (await groups_of(guest))[group] == "ok"


async def _try_to_accept(guest: DaemonProcess, ticket: str) -> None:
    """Joins while the host dies: it may come to its end with the host that is started again, or be told to try once more."""
    try:
        await guest.call("invite.accept", ticket=ticket, timeout_s=HANG_S)
    except PeersError as error:
        if not error.data.get("retry"):
            raise


async def _members(daemon: DaemonProcess, group: str) -> set[str]:
    return {member["name"] for member in await daemon.call("member.list", group=group)}


async def _wait_gone(daemon: DaemonProcess, group: str, name: str) -> None:
    async def is_gone() -> bool:
        return name not in await _members(daemon, group)

    await until(is_gone)
