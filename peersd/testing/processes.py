"""Real daemons as processes: started in folders of a test's own, driven through socket and command line, killed, restarted.

    async with open_daemon(tmp_path, "ada") as ada, open_daemon(tmp_path, "ben") as ben:
        await ada.peers("init", "--user", "ada")
        async with ada.client() as peers:
            …
        await ada.kill()
        await ada.start(crash_at="batch_committed:3")
        …
        await ada.wait_crashed("batch_committed")

A daemon counts as ready when its API answers; nothing is waited out. When the body fails, the folders and the ends of the
logs go to standard error. A line of level `error` in a log fails the context.

Each daemon runs with a configuration file of its own, empty at first: `configure` writes it, `reload` has it read again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from peersd import crash_points
from peersd.client import NoDaemon, Peers, open_client
from peersd.testing import observing

HANG_S: Final = 120.0
"""A guard against hanging, far above what anything here takes; no measure of speed."""

LOOK_AGAIN_S: Final = 0.01

RELOADED: Final = " configuration_read "
REFUSED: Final = " configuration_refused "
"""In the line that the daemon logs once what its file says holds, or when it cannot be meant."""

LOG_LINES_SHOWN: Final = 40

SOCKET_PATH_BYTES_MAX: Final = 100
"""Below what macOS and Linux allow; in a folder deeper than this the socket lies in a short one."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


class DaemonProcess:
    """A daemon of its own folder; made by `open_daemon`.

    Args:
        folder: holds `data`, `log` and `peersd.toml`.
        listen: what it listens on at first; afterwards always what it then got.
        arguments: more flags of `peersd run`.
        environment: more variables.
        within: a command that runs the daemon's command in its own process, such as `nsenter` into a network.
    """

    def __init__(
        self,
        folder: Path,
        listen: Sequence[str],
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        within: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log_path = folder / "log"
        self.config_path = folder / "peersd.toml"
        self.arguments = list(arguments)
        self._listen = list(listen)
        self._within = list(within)
        self._short_folder: tempfile.TemporaryDirectory[str] | None = None
        self.socket = self.data / "peersd.sock"
        if len(os.fsencode(self.socket)) > SOCKET_PATH_BYTES_MAX:
            self._short_folder = tempfile.TemporaryDirectory(prefix="peersd-")
            self.socket = Path(self._short_folder.name) / "s"
        self._environment = plain_environment(environment)
        self.process: trio.Process | None = None

    @property
    def pid(self) -> int:
        """The process id of the running daemon."""
        assert self.process is not None, "the daemon is not running"
        return self.process.pid

    async def url(self) -> str:
        """Where others dial this daemon, which answers them from its first user on."""
        async with self.client() as peers:
            listen: list[str] = (await peers.status())["listen"]
        return listen[0]

    def configure(self, *, links_max: int | None = None, deny: Sequence[str] = ()) -> None:
        """Write the configuration file, which the daemon reads when it starts and at `reload`.

        Args:
            links_max: `max` of [links]; None for no limit.
            deny: `deny` of [links]: ids of the devices that get no link.
        """
        lines = ["[links]", *([] if links_max is None else [f"max = {links_max}"]), f"deny = {json.dumps(list(deny))}", ""]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config_path.write_text("\n".join(lines), "utf-8")

    async def reload(self) -> None:
        """Let the daemon read its configuration file again, by SIGHUP; return when what it says holds.

        Raises:
            AssertionError: the daemon refused the file, or ended.
        """
        process = self.process
        assert process is not None, "the daemon is not running"
        known = len(self.log())
        process.send_signal(signal.SIGHUP)
        with trio.fail_after(HANG_S):
            while RELOADED not in (news := self.log()[known:]):
                assert process.poll() is None and REFUSED not in news, f"the configuration was not read:\n{news}"
                await trio.sleep(LOOK_AGAIN_S)

    async def start(self, *, crash_at: str | None = None) -> None:
        """Start the process and return when its API answers.

        Args:
            crash_at: a crash point to arm, `NAME` or `NAME:COUNT` (peersd.crash_points). Where it is reached before the API
                answers, this returns too; `wait_crashed` tells either way.

        Raises:
            AssertionError: it ended instead.
        """
        assert self.process is None or self.process.poll() is not None, "the daemon runs already"
        if not self.config_path.exists():
            self.configure()
        command = [
            *self._within,
            sys.executable,
            "-m",
            "peersd.daemon.main",
            "run",
            "--data",
            str(self.data),
            "--socket",
            str(self.socket),
        ]
        command += ["--config", str(self.config_path)]
        for url in self._listen:
            command += ["--listen", url]
        with self.log_path.open("ab") as log:
            # A process group of its own: Ctrl-C in a terminal is for the program that drives the daemon, which then ends it
            # in order; a daemon that the terminal told as well would be told twice, and end by force.
            self.process = await trio.lowlevel.open_process(
                [*command, *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self._environment, **({crash_points.VARIABLE: crash_at} if crash_at else {})},
                process_group=0,
            )
        await self._wait_ready(may_crash=crash_at is not None)

    async def terminate(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit status once the process has ended."""
        self.send_signal(number)
        return await self.wait_ended()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; one that has ended meanwhile does not hear of it."""
        assert self.process is not None, "the daemon is not running"
        self.process.send_signal(number)

    async def kill(self) -> None:
        """End it as a power cut would: SIGKILL."""
        await self.terminate(signal.SIGKILL)

    async def wait_crashed(self, point: str) -> None:
        """Return once the process has died at the crash point that it was started with.

        Raises:
            AssertionError: it ended in another way.
        """
        status = await self.wait_ended()
        # Not the very last line: a thread may have logged one more before the signal came.
        last = self.log().splitlines()[-3:]
        assert status == -signal.SIGKILL and f"{crash_points.LOGGED} {point}" in last, f"ended with {status}: {last}"

    def pause(self) -> None:
        """Stop the process where it is, by SIGSTOP: a machine that sleeps, or hangs. Its sockets stay open."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on, by SIGCONT."""
        self.send_signal(signal.SIGCONT)

    async def wait_ended(self) -> int:
        """The exit status, once the process has ended by itself or by a signal (negative)."""
        assert self.process is not None, "the daemon is not running"
        with trio.fail_after(HANG_S):
            status = await self.process.wait()
        self.process = None
        return status

    async def restart(self) -> None:
        """Terminate it if it runs, and start it again on the same port."""
        if self.process is not None:
            await self.terminate()
        await self.start()

    def client(self) -> AbstractAsyncContextManager[Peers]:
        """A connection of the Python client."""
        return open_client(self.socket)

    async def call(self, method: str, /, **params: Any) -> Any:
        """One call of the API on a connection of its own."""
        async with self.client() as peers:
            return await peers.call(method, **params)

    async def peers(self, *arguments: str, stdin: bytes = b"") -> Finished:
        """Run `peers` against this daemon."""
        return await run_peers("--socket", str(self.socket), *arguments, stdin=stdin, environment=self._environment)

    async def answer(self, *arguments: str, stdin: bytes = b"") -> Any:
        """Run `peers … --json`, which must succeed, and return its answer."""
        finished = await self.peers(*arguments, "--json", stdin=stdin)
        assert finished.status == 0, f"peers {' '.join(arguments)}: {finished.err}"
        return finished.json()

    async def links(self) -> list[dict[str, Any]]:
        """link.list."""
        async with self.client() as peers:
            return await peers.links()

    def memory_bytes(self) -> int:
        """Its resident memory, as the system counts it."""
        return observing.memory_bytes(self.pid)

    def file_handles(self) -> int:
        """The file handles that it has open, sockets among them."""
        return observing.file_handles(self.pid)

    def log(self) -> str:
        """All that it has logged, over restarts."""
        return self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""

    def errors(self) -> list[str]:
        """The log's lines of level error, and of tracebacks outside of the log."""
        return [line for line in self.log().splitlines() if " error " in line[:32] or line.startswith("Traceback")]

    def show(self) -> None:
        """Print the folder and the end of the log to standard error, for who looks into a failure."""
        lines = self.log().splitlines()[-LOG_LINES_SHOWN:]
        sys.stderr.write("\n".join([f"--- {self.folder}", *lines, ""]))

    async def close(self) -> None:
        """End the process if it still runs, by force if need be."""
        process = self.process
        if process is not None:
            try:
                self.resume()  # a paused one would never hear of it
                await self.terminate()
            finally:
                if self.process is not None:
                    process.kill()
                    with trio.CancelScope(shield=True):
                        await process.wait()
                    self.process = None
        if self._short_folder is not None:
            self._short_folder.cleanup()

    async def _wait_ready(self, *, may_crash: bool) -> None:
        with trio.fail_after(HANG_S):
            while True:
                assert self.process is not None
                ended = self.process.poll()
                if may_crash and ended == -signal.SIGKILL:
                    return
                if ended is not None:
                    raise AssertionError(f"the daemon ended with {ended}:\n{self.log()[-4000:]}")
                try:
                    async with self.client() as peers:
                        # The port that it was given, to have the same again after a restart: others know it by then.
                        self._listen = (await peers.status())["listen"] or self._listen
                        return
                except NoDaemon:
                    await trio.sleep(LOOK_AGAIN_S)


@asynccontextmanager
async def open_daemon(
    base: Path,
    name: str,
    *,
    listen: Sequence[str] = ("ws://127.0.0.1:0",),
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    within: Sequence[str] = (),
    errors_allowed: bool = False,
) -> AsyncGenerator[DaemonProcess]:
    """A running daemon in the folder `base/name`, ended with the context.

    Args:
        base: a folder of the test's own.
        name: of the daemon's folder there.
        listen: URLs; port 0 takes a free one, kept over restarts.
        arguments: more flags of `peersd run`.
        environment: more variables.
        within: a command that runs the daemon's command in its own process.
        errors_allowed: whether lines of level error in the log are what the test is about.

    Raises:
        AssertionError: it did not start, or logged an error.
    """
    daemon = DaemonProcess(base / name, listen, arguments, environment, within)
    try:
        await daemon.start()
        yield daemon
    except BaseException as error:
        if _is_failure(error):
            daemon.show()
        raise
    finally:
        with trio.CancelScope() as closing:
            closing.shield = True
            await daemon.close()
    assert errors_allowed or not daemon.errors(), "\n".join(daemon.errors())


def _is_failure(error: BaseException) -> bool:
    """Whether something is to be looked into: not if all was cancelled, or somebody wants it to end."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(KeyboardInterrupt) is None and error.subgroup(Exception) is not None
    return isinstance(error, Exception)


async def run_peers(*arguments: str, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> Finished:
    """Run `peers` to its end."""
    command = [sys.executable, "-m", "peersd.cli.main", *arguments]
    with trio.fail_after(HANG_S):
        ended = await trio.run_process(
            command,
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=dict(environment or plain_environment()),
        )
    return Finished(ended.returncode, ended.stdout.decode("utf-8", "replace"), ended.stderr.decode("utf-8", "replace"))


def plain_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would lead to another daemon."""
    hidden = ("PEERSD_DATA", "PEERSD_SOCKET", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "NOTIFY_SOCKET", crash_points.VARIABLE)
    return {**{name: value for name, value in os.environ.items() if name not in hidden}, **(more or {})}
