"""SIGKILL at every named crash point: the daemon dies there, and what was acknowledged, and all else, is in order again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from peersd.client import NoDaemon, PeersError
from peersd.crash_points import VARIABLE, CrashPoint, arm
from peersd.testing.killing import open_killing
from peersd.testing.pairs import until
from peersd.testing.processes import HANG_S, LOOK_AGAIN_S, DaemonProcess, open_daemon

pytestmark = pytest.mark.e2e

SEED = 20

WRITING = (
    "batch_recorded:3 batch_committed:3 batch_fenced:3 batch_told:3 intake_applied:3 intake_committed:3 intake_fenced:3 "
    "intake_told:3 mark_due:4 mark_opened:4 mark_written:4 mark_saved:4 act_committed:1 tables_rebuilt:1 local_recorded:9"
).split()
"""Reached while all write and sync."""

STOPPING = ["store_fenced:1", "store_closed:3", "summary_saved:1"]
"""Reached when a daemon ends in order; twice before by the start after a kill, which looks into both files."""

INIT = {
    "file_created:2": False,
    "store_created:1": False,
    "key_written:1": False,
    "key_saved:1": False,
    "store_filled:1": True,
    "user_created:1": True,
    "user_registered:1": True,
}
"""Reached by `init`, and whether there is a user then. The first new file is node.db."""

CREATE = {
    "summary_cleared:1": False,
    "local_committed:1": False,
    "file_created:1": False,
    "epoch_renewed:1": False,
    "store_created:1": False,
    "store_filled:1": True,
    "group_created:1": True,
    "own_recorded:1": True,
    "own_committed:1": True,
    "group_registered:1": True,
}
"""Reached by group.create or by the start before it, and whether there is the group then."""

JOIN_OWN = ["join_begun", "join_redeemed"]
JOIN_OTHER = ["admission_begun", "act_recorded", "act_told"]
LEAVE = {"leave_noted": False, "leave_written": True}
FORGET = ["group_unregistered", "group_dropped", "group_deleted"]


async def arm_at(daemon: DaemonProcess, point: str) -> None:
    await daemon.terminate()
    await daemon.start(crash_at=point)


async def crash(daemon: DaemonProcess, point: str, method: str, **params: Any) -> None:
    """Has the daemon die at the point during a call, or while starting, and starts it again."""
    await arm_at(daemon, point)
    with pytest.raises(NoDaemon):
        await call_until_done(daemon, method, **params)
    await daemon.wait_crashed(point.partition(":")[0])
    await daemon.start()


async def call_until_done(daemon: DaemonProcess, method: str, **params: Any) -> None:
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


async def groups(daemon: DaemonProcess) -> dict[str, str]:
    """The groups that the user is or was in, with their states. There is a file for each and no other."""
    listed = await daemon.call("group.list", include_hidden=True)
    paths = {(await daemon.call("group.show", group=group["group_id"]))["path"] for group in listed}
    assert paths == set(map(str, [*daemon.data.glob("group-*.db"), *daemon.data.glob("user-*.db")]))
    assert {path.stem for path in (daemon.data / "marks").iterdir()} <= {Path(path).stem for path in paths}
    return {group["name"]: group["state"] for group in listed}


def test_every_crash_point_is_reached_by_a_test_here() -> None:
    reached = [*WRITING, *STOPPING, *INIT, *CREATE, *JOIN_OWN, *JOIN_OTHER, *LEAVE, *FORGET]
    assert {point.partition(":")[0] for point in reached} == set(CrashPoint)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("batch_comitted", "there is no crash point 'batch_comitted'; there are file_created, "),
        ("batch_committed:0", "'0' is no count"),
        ("batch_committed:", "'' is no count"),
        ("batch_committed:x", "'x' is no count"),
    ],
)
async def test_a_crash_point_that_does_not_exist_is_refused_at_the_start(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{VARIABLE}: {said}"):
        arm(text)
    with pytest.raises(AssertionError, match="the daemon ended with 2"):
        async with open_daemon(tmp_path, "a", environment={VARIABLE: text}):
            raise AssertionError("it started")


@pytest.mark.slow
async def test_nothing_acknowledged_is_lost_wherever_a_write_or_what_others_wrote_is_cut_off(tmp_path: Path) -> None:
    async with open_killing(tmp_path, seed=SEED) as killing:
        await killing.kill_at(*WRITING[: len(WRITING) // 2])
        await killing.kill_at(*WRITING[len(WRITING) // 2 :])
        await killing.kill_at(*STOPPING, while_stopping=True)
        assert killing.kills == len(WRITING) + len(STOPPING)


@pytest.mark.slow
async def test_an_init_that_is_cut_off_has_made_a_user_or_can_be_run_again(tmp_path: Path) -> None:
    for point, is_there in INIT.items():
        async with open_daemon(tmp_path, point.partition(":")[0]) as daemon:
            if point.startswith("file_created"):
                (daemon.data / "node.db").unlink()  # made at the start, which is counted from 1 again
            await crash(daemon, point, "init", user_name="ada")
            if is_there:
                with pytest.raises(PeersError) as caught:
                    await daemon.call("init", user_name="ada")
                assert caught.value.code == "already_initialised"
            else:
                assert (await daemon.call("init", user_name="ada"))["recovery_phrase"]
            assert await groups(daemon) == {"ada": "ok"}
            await daemon.call("group.create", name="team")
            await daemon.call("sql.execute", sql="CREATE TABLE t (id TEXT PRIMARY KEY)", group="team")
            assert await groups(daemon) == {"ada": "ok", "team": "ok"}


@pytest.mark.slow
async def test_making_a_group_that_is_cut_off_leaves_the_group_or_nothing(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "ada") as ada:
        await ada.call("init", user_name="ada")
        there = {"ada": "ok"}
        for point, is_there in CREATE.items():
            name = point.partition(":")[0]
            await crash(ada, point, "group.create", name=name)
            assert await groups(ada) == {**there, **({name: "ok"} if is_there else {})}, point
            if not is_there:
                await ada.call("group.create", name=name)
            await ada.call("sql.execute", sql="CREATE TABLE t (id TEXT PRIMARY KEY)", group=name)
            there[name] = "ok"
        assert await groups(ada) == there


@pytest.mark.slow
async def test_a_join_a_leave_or_a_forgetting_that_is_cut_off_can_be_done_again(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "ada") as ada, open_daemon(tmp_path, "ben") as ben:
        for daemon in (ada, ben):
            await daemon.call("init", user_name=daemon.folder.name)
        for point in (*JOIN_OWN, *JOIN_OTHER):
            await ada.call("group.create", name=point)
            ticket = (await ada.call("invite.create", group=point, role="writer", max_uses=1))["ticket"]
            if point in JOIN_OWN:
                await crash(ben, point, "invite.accept", ticket=ticket)
            else:
                await arm_at(ada, point)
                with pytest.raises(PeersError):
                    await ben.call("invite.accept", ticket=ticket, timeout_s=5)
                await ada.wait_crashed(point)
                await ada.start()
            assert (point in await groups(ben)) == (point == "join_redeemed")
            assert (await ben.call("invite.accept", ticket=ticket, timeout_s=HANG_S))["role"] == "writer"
            await ben.call("sync.wait", group=point, timeout_s=HANG_S)
        assert await groups(ben) == {"ben": "ok", **dict.fromkeys([*JOIN_OWN, *JOIN_OTHER], "ok")}
        left = iter((*JOIN_OWN, *JOIN_OTHER))
        for point, has_left in LEAVE.items():
            group = next(left)
            await crash(ben, point, "group.leave", group=group)
            assert await _is_member(ben, group, "ben") is not has_left
            await ben.call("group.leave", group=group)
            await until(lambda group=group: _is_no_member(ada, group, "ben"))  # type: ignore[misc]
        for point in FORGET:
            group = next(left)
            await ben.call("group.leave", group=group)
            await until(lambda group=group: _is_no_member(ada, group, "ben"))  # type: ignore[misc]
            await crash(ben, point, "group.forget", group=group)
            assert group not in await groups(ben)


async def _is_member(daemon: DaemonProcess, group: str, name: str) -> bool:
    return name in {member["name"] for member in await daemon.call("member.list", group=group)}


async def _is_no_member(daemon: DaemonProcess, group: str, name: str) -> bool:
    return not await _is_member(daemon, group, name)
