"""The life of the daemon's process: up, ready, and down again in order."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final, NoReturn, Protocol

import trio

from peersd.api.methods import Api, Methods
from peersd.api.node_api import NodeApi
from peersd.api.server import open_api_server
from peersd.api.socket_path import Listening, listen_on
from peersd.client.paths import SOCKET_NAME
from peersd.daemon.config import Config, ConfigError, read_again
from peersd.daemon.readiness import notify
from peersd.errors import PeersdError

_log = logging.getLogger("peersd.daemon")

DRAIN_S: Final = 10.0
"""What is under way when the daemon is told to stop gets this long to finish (guess: a commit on a slow disk and more)."""

STOP_S: Final = 30.0
"""After this long the process ends whatever still runs: systemd would kill it at 90 s (guess)."""

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
RELOAD_SIGNAL: Final = signal.SIGHUP


class RunningNode(NodeApi, Protocol):
    """A node as the daemon sees it."""

    def set_links(self, links_max: int | None, deny: Sequence[bytes]) -> None:
        """Sets how many links there are at most, None for as many as usual, and which devices get none; holds at once."""
        ...


class OpenNode(Protocol):
    """`peersd.node.open_node`, or a stand-in."""

    def __call__(
        self,
        data_dir: Path,
        *,
        listen: tuple[str, ...],
        advertise: tuple[str, ...],
        links_max: int | None,
        links_deny: tuple[bytes, ...],
    ) -> AbstractAsyncContextManager[RunningNode]:
        """A running node; it stops at the context's end."""
        ...


class Stopping:
    """Whether and why the daemon stops: a signal, or `daemon.stop`."""

    def __init__(self) -> None:
        self.startup = trio.CancelScope()
        self._ready = False
        self._asked = trio.Event()

    def ask(self, reason: str) -> None:
        """Begin to stop; a daemon that is not ready yet gives up starting."""
        if self._asked.is_set():
            return
        _log.info("stopping", extra={"fields": {"reason": reason}})
        notify("STOPPING=1")
        self._asked.set()
        if not self._ready:
            self.startup.cancel()

    def ready(self) -> None:
        """From now on stopping means draining."""
        self._ready = True

    async def wait(self) -> None:
        """Return once `ask` was called."""
        await self._asked.wait()


async def run_daemon(config: Config, open_node: OpenNode) -> None:
    """Run until a signal or `daemon.stop`; the data folder is locked already and the umask 0077.

    Raises:
        PeersdError: the API's socket or a listener cannot be had (in an ExceptionGroup).
    """
    started_s = time.monotonic()
    stopping = Stopping()
    with trio.open_signal_receiver(*STOP_SIGNALS) as signals, trio.open_signal_receiver(RELOAD_SIGNAL) as reloads:
        await _run(config, open_node, stopping, signals, reloads, started_s)
    _log.info("stopped", extra={"fields": {"uptime_s": round(time.monotonic() - started_s, 3)}})


async def _run(
    config: Config,
    open_node: OpenNode,
    stopping: Stopping,
    signals: AsyncIterator[int],
    reloads: AsyncIterator[int],
    started_s: float,
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_signals, signals, stopping)
        nursery.start_soon(_end_by_force, stopping)
        with stopping.startup:
            async with open_node(
                config.data,
                listen=config.listen,
                advertise=config.advertise,
                links_max=config.links.links_max,
                links_deny=config.links.deny,
            ) as node:
                nursery.start_soon(_watch_reloads, reloads, config, node)
                methods = Methods(Api(node, lambda: stopping.ask("daemon.stop"), started_s))
                listening = _listen(config)
                with _findable(listening.path, config.data):
                    async with open_api_server(listening, methods) as server:
                        stopping.ready()
                        await _tell_ready(node, listening.path, started_s)
                        await stopping.wait()
                        if not await server.drain(DRAIN_S):
                            _log.warning("requests were cut off", extra={"fields": {"drain_s": DRAIN_S}})
                        node.cut_off()
        nursery.cancel_scope.cancel()


def _listen(config: Config) -> Listening:
    in_data = config.data / SOCKET_NAME
    # The lock on the data folder is ours, so a socket or link left in it is a dead daemon's.
    try:
        in_data.unlink(missing_ok=True)
    except OSError as error:
        raise PeersdError("socket_unusable", f"{in_data} is in the way: {error.strerror}", hint="Remove it.") from error
    try:
        return listen_on(config.socket)
    except PeersdError as error:
        # The default place under XDG_RUNTIME_DIR belongs to whichever daemon was first; the data folder is this one's own.
        if error.code != "socket_in_use" or config.socket_chosen:
            raise
        _log.warning("default socket is in use", extra={"fields": {"socket": config.socket, "instead": in_data}})
        return listen_on(in_data)


@contextmanager
def _findable(socket: Path, data_folder: Path) -> Generator[None]:
    """Leave a link to the socket in the data folder, so that `peers --data` finds it wherever it is."""
    link = data_folder / SOCKET_NAME
    if link == socket:
        yield
        return
    with suppress(OSError):
        link.symlink_to(socket)
    try:
        yield
    finally:
        if link.is_symlink():
            link.unlink(missing_ok=True)


async def _tell_ready(node: NodeApi, socket: Path, started_s: float) -> None:
    status = await node.status()
    fields = {
        "version": version("peersd"),
        "pid": os.getpid(),
        "device": status["device_id"] or "none",
        "listen": status["listen"],
        "socket": socket,
        "startup_s": round(time.monotonic() - started_s, 3),
    }
    _log.info("ready", extra={"fields": fields})
    notify("READY=1")


async def _watch_signals(signals: AsyncIterator[int], stopping: Stopping) -> None:
    again = False
    async for number in signals:
        if again:
            end_now("second signal")
        again = True
        stopping.ask(signal.Signals(number).name)


async def _watch_reloads(reloads: AsyncIterator[int], config: Config, node: RunningNode) -> None:
    """Reads the configuration again whenever it is asked for; what it says of links holds at once."""
    async for _ in reloads:
        if config.file is None:
            _log.warning("nothing to read again: the daemon runs without --config")
            continue
        try:
            links, needing_restart = read_again(config, config.file)
        except ConfigError as error:
            _log.error("configuration_refused", extra={"fields": {"reason": str(error)}})  # what held, holds on
            continue
        node.set_links(links.links_max, links.deny)
        fields = {"file": config.file, "links_max": links.links_max or "usual", "links_deny": len(links.deny)}
        _log.info("configuration_read", extra={"fields": fields})
        if needing_restart:
            _log.warning("restart_needed", extra={"fields": {"file": config.file, "changed": needing_restart}})


async def _end_by_force(stopping: Stopping) -> None:
    await stopping.wait()
    await trio.sleep(STOP_S)
    end_now("stopping took too long")


def end_now(reason: str) -> NoReturn:
    """End the process at once, as a kill would: what was acknowledged is durable, the rest is not waited for."""
    _log.warning("ended by force", extra={"fields": {"reason": reason}})
    logging.shutdown()
    os._exit(1)
