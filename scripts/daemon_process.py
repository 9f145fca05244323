"""`peersd run` as a process of its own, for the demo and the bench."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import trio

from peersd.client import NoDaemon, Peers, open_client

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
POLL_S = 0.01


def pick_port() -> int:
    """A port that is free now. Chosen beforehand, since a daemon that is started again must listen where it did."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Daemon:
    """One daemon on loopback with a data folder of its own.

    Args:
        name: what it is called in messages and the name of its log.
        place: the folder that holds its data folder and its log.
    """

    def __init__(self, name: str, place: Path) -> None:
        self.name = name
        self.data = place / name
        self.log = place / f"{name}.log"
        self.url = f"ws://127.0.0.1:{pick_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id while it runs."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Starts it and returns when its socket answers.

        Raises:
            RuntimeError: it ended instead; the message holds the end of its log.
            trio.TooSlowError: it does not answer.
        """
        self.data.mkdir(mode=0o700, exist_ok=True)
        command: list[str | Path] = [Path(sys.executable).parent / "peersd", "run", "--data", self.data, "--listen", self.url]
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C at the terminal reaches us alone, and we end it in order.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(), start_new_session=True
            )
        with trio.fail_after(START_TIMEOUT_S):
            while True:
                if (status := self._process.poll()) is not None:
                    raise RuntimeError(f"{self.name} ended with status {status} at its start:\n{self.log_tail()}")
                try:
                    async with self.client() as peers:
                        await peers.status()
                    return
                except NoDaemon:
                    await trio.sleep(POLL_S)

    def client(self) -> AbstractAsyncContextManager[Peers]:
        """A connection to its socket."""
        return open_client(data=self.data)

    def kill(self) -> None:
        """SIGKILL, and waits until the process is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    async def stop(self) -> int:
        """SIGTERM; returns the exit status, -9 if it had to be killed, 0 if it does not run."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_TIMEOUT_S):
            while self._process.poll() is None:
                await trio.sleep(POLL_S)
        if self._process.poll() is None:
            self.kill()
            return -signal.SIGKILL
        status = self._process.returncode
        self._process = None
        return status

    def log_tail(self, lines: int = 15) -> str:
        """The end of its log."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


def clean_environment() -> dict[str, str]:
    """This process's environment without what would lead a daemon or `peers` to the user's own daemon."""
    ours = ("PEERSD_DATA", "PEERSD_SOCKET", "XDG_RUNTIME_DIR", "NOTIFY_SOCKET")
    return {name: value for name, value in os.environ.items() if name not in ours}


@asynccontextmanager
async def open_daemon(name: str, place: Path) -> AsyncGenerator[Daemon]:
    """A running daemon that is stopped at the end, however that comes."""
    daemon = Daemon(name, place)
    try:
        await daemon.start()
        yield daemon
    finally:
        with trio.CancelScope(shield=True):
            await daemon.stop()
