"""The life of the daemon's process: locks, signals, stops, kills, restarts."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from peersd.client import NoDaemon, Peers
from peersd.testing.processes import HANG_S, open_daemon, plain_environment, run_peers

pytestmark = pytest.mark.e2e

TABLE = "CREATE TABLE note (id TEXT PRIMARY KEY, text TEXT)"


async def run_peersd(*arguments: str) -> tuple[int, str]:
    with trio.fail_after(HANG_S):
        ended = await trio.run_process(
            [sys.executable, "-m", "peersd.daemon.main", "run", *arguments],
            capture_stderr=True,
            check=False,
            env=plain_environment(),
        )
    return ended.returncode, ended.stderr.decode()


async def test_a_second_daemon_on_the_same_folder_says_so_and_exits_1(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "a") as daemon:
        status, err = await run_peersd("--data", str(daemon.data), "--socket", str(tmp_path / "other.sock"))
        assert status == 1
        assert f"another daemon (process {daemon.pid}) uses" in err
        assert "hint:" in err
        assert (await daemon.peers("status")).status == 0


async def test_a_second_daemon_on_the_same_socket_says_so_and_exits_1(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "a") as daemon:
        status, err = await run_peersd(
            "--data", str(tmp_path / "other"), "--socket", str(daemon.socket), "--listen", "ws://127.0.0.1:0"
        )
        assert status == 1
        assert "another daemon listens at" in err
        assert (await daemon.peers("status")).status == 0


async def test_a_port_that_is_taken_is_told_and_exits_1(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "a") as daemon, open_daemon(tmp_path, "b") as other:
        await daemon.answer("init", "--user", "ada")
        await other.answer("init", "--user", "ben")
        assert await other.terminate() == 0
        status, err = await run_peersd("--data", str(other.data), "--listen", await daemon.url())
        assert status == 1
        assert "peersd: " in err
        assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_daemon_in_order_with_status_0(tmp_path: Path, number: signal.Signals) -> None:
    async with open_daemon(tmp_path, "a") as daemon:
        assert await daemon.terminate(number) == 0
        assert not daemon.socket.exists()
        assert f"stopping reason={number.name}" in daemon.log()


async def test_a_sighup_has_the_configuration_read_again_and_a_file_that_cannot_be_meant_changes_nothing(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "a", errors_allowed=True) as daemon:
        pid = daemon.pid
        daemon.configure(links_max=7)
        await daemon.reload()
        assert " links_max=7 links_deny=0\n" in daemon.log()
        daemon.configure(deny=["nobody"])
        with pytest.raises(AssertionError, match="configuration_refused"):
            await daemon.reload()
        assert (daemon.pid, (await daemon.peers("status")).status) == (pid, 0)
        (error,) = daemon.errors()
        assert "deny" in error


async def test_after_peers_stop_returns_the_folder_is_free_again(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "a") as daemon:
        for _ in range(3):
            stopped = await daemon.peers("stop")
            assert (stopped.status, stopped.out) == (0, "stopped\n")
            assert await daemon.wait_ended() == 0
            assert (await daemon.peers("status")).status == 3
            await daemon.start()


async def test_what_was_acknowledged_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "a") as daemon:
        await daemon.answer("init", "--user", "ada")
        await daemon.answer("sql", TABLE)
        acknowledged: list[int] = []

        async def write() -> None:
            with pytest.raises(NoDaemon):
                async with daemon.client() as peers:
                    for number in range(1_000_000):
                        await peers.execute("INSERT INTO note VALUES (?, ?)", [f"{number}", "x"])
                        acknowledged.append(number)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            with trio.fail_after(HANG_S):
                while len(acknowledged) < 50:
                    await trio.sleep(0.001)
            await daemon.kill()
        # Its socket's file is still there, and is no hindrance.
        assert daemon.socket.exists()
        await daemon.start()
        rows = (await daemon.answer("sql", "SELECT count(*) FROM note"))["rows"][0][0]
        assert len(acknowledged) <= rows <= len(acknowledged) + 1


async def test_stopping_finishes_and_answers_the_write_under_way(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "a") as daemon:
        await daemon.answer("init", "--user", "ada")
        await daemon.answer("sql", TABLE)
        statement = {"sql": "INSERT INTO note VALUES (?, ?)", "params_seq": [[f"{n}", "x"] for n in range(50_000)]}
        answers: list[int] = []

        async def write(peers: Peers) -> None:
            answers.extend((await peers.call("sql.transaction", statements=[statement]))["changes"])

        async with daemon.client() as peers, trio.open_nursery() as nursery:
            nursery.start_soon(write, peers)
            # The order goes out on the same connection, behind the write: it has begun by then, and is not over.
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(peers.stop)
        assert answers == [50_000]
        assert await daemon.wait_ended() == 0
        await daemon.start()
        assert (await daemon.answer("sql", "SELECT count(*) FROM note"))["rows"] == [[50_000]]


async def test_the_data_folder_alone_finds_its_daemon(tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    async with open_daemon(tmp_path, "a") as daemon:
        environment = plain_environment({"XDG_RUNTIME_DIR": str(runtime)})
        assert (await run_peers("status", "--data", str(daemon.data), environment=environment)).status == 0
        assert (await run_peers("status", environment=environment)).status == 3


async def test_a_daemon_of_a_test_that_does_not_start_says_why_and_can_be_started_again(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "a") as daemon:
        await daemon.kill()
        with pytest.raises(AssertionError, match=r"(?s)the daemon ended with 2:.*no_such_place"):
            await daemon.start(crash_at="no_such_place")
        await daemon.start()
        assert (await daemon.peers("status")).status == 0
