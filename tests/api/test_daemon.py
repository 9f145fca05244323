from __future__ import annotations

import logging
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from peersd.client import open_client
from peersd.daemon.config import LISTEN, Config, ConfigError, LinksConfig, load_config
from peersd.daemon.lock import lock_data_folder
from peersd.daemon.logs import LogfmtFormatter, format_value
from peersd.daemon.main import main
from peersd.daemon.process import run_daemon
from peersd.daemon.readiness import notify
from peersd.errors import PeersdError
from peersd_protocol import ids

HANG_S = 60


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "peersd.toml"
    file.write_text(text)
    return file


def test_without_flags_and_file_the_defaults_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    config = load_config()
    assert (str(config.data), str(config.socket)) == ("/h/.local/share/peersd", "/h/.local/share/peersd/peersd.sock")
    assert (config.listen, config.advertise, config.links, config.file) == (LISTEN, (), LinksConfig(), None)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/r")
    assert str(load_config(data="/d").socket) == "/r/peersd/peersd.sock"


def test_the_file_says_and_flags_go_before_it(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        'data = "/f"\nsocket = "/f/s"\nlisten = "ws://[::1]"\nadvertise = ["wss://p.example/x"]\n'
        f'[links]\nmax = 5\ndeny = ["{ids.format_id(ids.DEVICE, bytes(32))}"]\n',
    )
    config = load_config(file=file)
    assert (str(config.data), str(config.socket), config.socket_chosen) == ("/f", "/f/s", True)
    assert (config.listen, config.advertise) == (("ws://[::1]:7330",), ("wss://p.example/x",))
    assert (config.links, config.file) == (LinksConfig(5, (bytes(32),)), file)
    config = load_config(file=file, data="/d", socket="/d/s", listen=["ws://h:0"], advertise=["ws://a:1"])
    assert (str(config.data), str(config.socket)) == ("/d", "/d/s")
    assert (config.listen, config.advertise) == (("ws://h:0",), ("ws://a:1",))
    assert load_config(file=write(tmp_path, "listen = []")).listen == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listn = 1", 'unknown key "listn"; did you mean "listen"?'),
        ("[links]\nmaximum = 1", 'unknown key "maximum"'),
        ("listen = 5", "listen must be a text or a list of texts"),
        ("listen = [5]", "listen must be"),
        ('links = "x"', "must be a table"),
        ('[links]\ndeny = ["dev-a"]', "is no device's id"),
        (f'[links]\ndeny = "{ids.format_id(ids.DEVICE, bytes(31))}"', "is no device's id (another length)"),
        (f'[links]\ndeny = ["{ids.format_id(ids.USER, bytes(32))}"]', "does not begin with dev-"),
        ("[links]\nmax = 0", "whole number from 1"),
        ("[links]\nmax = true", "whole number from 1"),
        ("data = 1", "data must be a text"),
        ('data = " "', "data must be a text"),
        ('socket = ""', "socket must be a text"),
        ('socket = "a\\u0000b"', "socket must be a text"),
        ("data = ", "not TOML"),
        ('listen = "wss://h:1"', "listen on ws://"),
        ('listen = "h:1"', "ws://HOST:PORT"),
        ('listen = "ws://h:99999"', "not a URL"),
        ('listen = "ws://u@h:1"', "ws://HOST:PORT"),
        ('listen = ["ws://h:7330", "ws://h"]', "ws://h:7330: stands twice in listen"),
        ('advertise = "http://h"', "advertise ws://"),
        ('advertise = "ws://h:0"', "advertise ws://"),
        (f'advertise = "ws://h/{"x" * 200}"', "at most 200 characters"),
        ('advertise = "ws://bücher.example"', "in ASCII"),
        ('advertise = ["ws://h:1", "ws://h:1"]', "stands twice in advertise"),
        (f"advertise = {[f'ws://h:{port}' for port in range(1, 10)]}", "at most 8 addresses"),
    ],
)
def test_each_mistake_in_the_file_is_told_with_its_place_and_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_config(file=file)
    assert main(["run", "--config", str(file)]) == 2
    assert said in capsys.readouterr().err


def test_a_missing_file_and_a_wrong_flag_end_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--config", str(tmp_path / "absent.toml")]) == 2
    assert main(["run", "--listen", "tcp://h"]) == 2
    assert main(["run", "--data", ""]) == 2
    assert main(["run", "--socket", " "]) == 2
    assert "absent.toml: No such file" in capsys.readouterr().err


def test_the_data_folder_becomes_0700_and_has_one_holder_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "data"
    with lock_data_folder(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "lock").stat().st_mode) == 0o600
        with pytest.raises(PeersdError, match=f"process {os.getpid()}") as caught, lock_data_folder(folder):
            pass
        assert caught.value.code == "data_in_use"
    folder.chmod(0o755)
    with lock_data_folder(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(PeersdError) as caught, lock_data_folder(tmp_path / "f"):
        pass
    assert caught.value.code == "data_unusable"


def record(message: str, fields: Any = None, exc_info: Any = None) -> str:
    made = logging.LogRecord("peersd.x", logging.WARNING, "f", 1, message, (), exc_info)
    made.created, made.msecs = 1_700_000_000.25, 250.0
    if fields is not None:
        made.fields = fields
    return LogfmtFormatter().format(made)


def test_an_event_is_one_line_with_its_values_escaped() -> None:
    assert record("link up", {"device": "dev-a", "name": "x\ny \x1b[2J\u202e", "n": 3, "urls": ["ws://a:1", "b"], "e": ""}) == (
        '2023-11-14T22:13:20.250Z warning link up device=dev-a name="x\\ny \\u001b[2J\\u202e" n=3 urls=ws://a:1,b e=""'
    )
    assert "\n" not in record("a\nb")


def test_a_traceback_is_a_value_of_the_same_line() -> None:
    try:
        raise KeyError("x\ny")
    except KeyError:
        line = record("failed", exc_info=sys.exc_info())
    assert "\n" not in line
    assert "KeyError" in line


def test_a_long_value_is_cut() -> None:
    assert len(format_value("x" * 10_000)) < 600


def test_readiness_reaches_the_service_manager_and_its_absence_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notify("READY=1")
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        notify("READY=1")
        assert manager.recv(100) == b"READY=1"
    notify("STOPPING=1")


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_readiness_reaches_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + manager.getsockname()[1:].decode())
        notify("READY=1")
        assert manager.recv(100) == b"READY=1"


async def running(config: Config, open_node: Any, act: Callable[[], Awaitable[None]]) -> None:
    """Run a daemon in this process, `act` on it once it answers, and return when it has ended."""
    with trio.fail_after(HANG_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_daemon, config, open_node)
            while not config.socket.exists():
                await trio.sleep(0.001)
            await act()


async def test_sigterm_ends_the_daemon_after_what_is_under_way(
    tmp_path: Path, open_fake_node: Any, fake_node: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "peersd")
    config = load_config(data=str(tmp_path), listen=["ws://127.0.0.1:0"])

    async def act() -> None:
        async with open_client(data=tmp_path) as peers, trio.open_nursery() as nursery:

            async def write() -> None:
                assert (await peers.execute("wait"))["changes"] == 1

            nursery.start_soon(write)
            while not fake_node.finished and "sql_execute" not in [name for name, _ in fake_node.calls]:
                await trio.sleep(0)
            os.kill(os.getpid(), signal.SIGTERM)
            while "stopping" not in caplog.text:
                await trio.sleep(0.001)
            fake_node.gate.set()

    await running(config, open_fake_node, act)
    assert [record.getMessage() for record in caplog.records] == ["ready", "stopping", "stopped"]
    assert not config.socket.exists()


async def test_at_sighup_the_file_is_read_again_and_a_broken_one_changes_nothing(
    tmp_path: Path, open_fake_node: Any, fake_node: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "peersd")
    file = write(tmp_path, "[links]\nmax = 7\n")
    config = load_config(file=file, data=str(tmp_path), listen=["ws://127.0.0.1:0"])
    device = ids.format_id(ids.DEVICE, bytes(32))

    async def act() -> None:
        async with open_client(data=tmp_path) as peers:
            for text, said in (
                (f'[links]\nmax = 3\ndeny = ["{device}"]\n', "configuration_read"),
                ("[links]\nmax = none\n", "configuration_refused"),
                ("", "configuration_read"),
            ):
                caplog.clear()
                file.write_text(text)
                os.kill(os.getpid(), signal.SIGHUP)
                while said not in caplog.text:
                    await trio.sleep(0.001)
            await peers.stop()

    await running(config, open_fake_node, act)
    assert fake_node.links == [(7, ()), (3, (bytes(32),)), (None, ())]


async def test_at_sighup_a_changed_key_that_needs_a_restart_is_named_and_one_that_a_flag_overrides_is_not(
    tmp_path: Path, open_fake_node: Any, fake_node: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "peersd")
    file = write(tmp_path, 'advertise = "ws://a:1"\n')
    config = load_config(file=file, data=str(tmp_path), listen=["ws://127.0.0.1:0"])

    async def act() -> None:
        async with open_client(data=tmp_path) as peers:
            file.write_text('data = "/elsewhere"\nlisten = "ws://h:1"\nadvertise = "ws://b:1"\nlinks = { max = 4 }\n')
            os.kill(os.getpid(), signal.SIGHUP)
            while "restart_needed" not in caplog.text:
                await trio.sleep(0.001)
            await peers.stop()

    await running(config, open_fake_node, act)
    (record,) = [record for record in caplog.records if record.getMessage() == "restart_needed"]
    assert record.__dict__["fields"]["changed"] == ("advertise",)
    assert fake_node.links == [(None, ()), (4, ())]


async def test_sighup_without_a_file_is_logged_and_changes_and_stops_nothing(
    tmp_path: Path, open_fake_node: Any, fake_node: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "peersd")

    async def act() -> None:
        async with open_client(data=tmp_path) as peers:
            os.kill(os.getpid(), signal.SIGHUP)
            while "without --config" not in caplog.text:
                await trio.sleep(0.001)
            assert await peers.status()
            await peers.stop()

    await running(load_config(data=str(tmp_path), listen=["ws://127.0.0.1:0"]), open_fake_node, act)
    assert fake_node.links == [(None, ())]


async def test_daemon_stop_answers_before_the_daemon_ends(
    tmp_path: Path, open_fake_node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

    async def act() -> None:
        async with open_client(data=tmp_path) as peers:
            await peers.stop()
            await peers.wait_closed()

    await running(load_config(data=str(tmp_path)), open_fake_node, act)
    assert [manager.recv(100), manager.recv(100)] == [b"READY=1", b"STOPPING=1"]
    manager.close()


async def test_the_data_folder_leads_to_a_socket_elsewhere_while_the_daemon_runs(
    tmp_path: Path, open_fake_node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, runtime = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    (data / "peersd.sock").symlink_to(tmp_path / "long gone")
    config = load_config(data=str(data))
    assert config.socket == runtime / "peersd" / "peersd.sock"

    async def act() -> None:
        async with open_client() as by_default, open_client(data=data) as by_data:
            assert await by_default.status()
            await by_data.stop()

    await running(config, open_fake_node, act)
    assert not (data / "peersd.sock").is_symlink()


async def test_a_second_daemon_leaves_the_default_socket_to_the_first_and_uses_its_own_folder(
    tmp_path: Path, open_fake_node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()

    async def act() -> None:
        with trio.fail_after(HANG_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_daemon, load_config(data=str(second)), open_fake_node)
                while not (second / "peersd.sock").exists():
                    await trio.sleep(0.001)
                async with open_client(data=second) as peers:
                    await peers.stop()
        async with open_client(data=first) as peers:
            await peers.stop()

    await running(load_config(data=str(first)), open_fake_node, act)


async def test_a_chosen_socket_that_is_in_use_is_an_error(tmp_path: Path, open_fake_node: Any) -> None:
    config = load_config(data=str(tmp_path / "a"), socket=str(tmp_path / "s.sock"))
    config.data.mkdir()

    async def act() -> None:
        with pytest.RaisesGroup(PeersdError, flatten_subgroups=True, allow_unwrapped=True):
            await run_daemon(config, open_fake_node)
        async with open_client(config.socket) as peers:
            await peers.stop()

    await running(config, open_fake_node, act)


def test_both_commands_tell_version_and_usage() -> None:
    for module, name in (("peersd.daemon.main", "peersd"), ("peersd.cli.main", "peers")):
        told = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True).stdout
        assert re.fullmatch(name + r" \d+\.\d+\.\d+\S*\n", told)
        told = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True).stdout
        assert "examples:" in told
        assert subprocess.run([sys.executable, "-m", module, "nonsense"], capture_output=True, check=False).returncode == 2
