"""One device of a swarm: its folder, its clock, and the real node that runs on it until it stops or crashes."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from peersd.api.connection import Connection as ApiConnection
from peersd.api.methods import Methods
from peersd.api.registry import Api
from peersd.client import NoDaemon, Peers
from peersd.client.connection import Connection
from peersd.errors import PeersdError
from peersd.node import ApiNode, open_node
from peersd.node.device_file import load_device
from peersd.node.environment import Environment
from peersd.node.kept_store import Keeping
from peersd.testing.disks import FaultyDisk
from peersd.testing.swarm.listening import SPEAKER
from peersd.testing.swarm.network import Sockets, VirtualNetwork
from peersd.testing.swarm.running import VirtualClock, VirtualThreads
from peersd.testing.swarm.tapping import Secrets
from peersd_protocol.devicekeys import DeviceKeys
from peersd_protocol.dialing import Patience

NOTED: Final = frozenset(("sql.execute", "sql.transaction", "invite.accept"))
"""Methods whose answers promise something: that rows are kept, that a user is in a group."""


PATIENCE: Final = Patience(delay_ms_max=5_000, refused_ms=5_000, reopen_ms_max=5_000)
"""A device that comes back is met within seconds, and so is a group whose disk was full, where a daemon in the field may wait a
minute before it dials, or opens the group, again."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the nodes of a swarm are set up; None for what is usual in a daemon.

    Attributes:
        patience: the waits between dials; by default those of a bench, at most 5 s.
        keeping: how long stores stay open.
        links_max: links at once of each device.
    """

    patience: Patience | None = PATIENCE
    keeping: Keeping | None = None
    links_max: int | None = None


class Device:
    """A device of a swarm.

    Args:
        name: the device's, its user's and its host's.
        folder: the data folder; made where there is none.
        network: it is a host of it.
        settings: of its node.
        seed: of its chance.
        on_answer: called with the name, a group's id and the answer, when a client was told that a write is kept or a group
            joined.

    Attributes:
        clock: the wall clock.
        disk: what its files are on; it fails, fills up and loses what was not synced as a test wants.
        id: the device's id, once there is a user.
        user_id: the user's id.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        network: VirtualNetwork,
        settings: Settings,
        seed: int,
        on_answer: Callable[[str, bytes, Mapping[str, Any]], None],
    ) -> None:
        self.name = name
        self.folder = folder
        self.clock = VirtualClock()
        self.disk = FaultyDisk()
        self.id = b""
        self.user_id = b""
        self._network = network
        self._settings = settings
        self._random = random.Random(f"{seed} {name}")
        self._secrets = Secrets()
        self._keys: DeviceKeys | None = None
        self._node: ApiNode | None = None
        self._sockets: Sockets | None = None
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._served: trio.socket.SocketType | None = None
        self._peers: Peers | None = None
        self._on_answer = on_answer

    @property
    def is_running(self) -> bool:
        """Whether the node runs."""
        return self._node is not None

    @property
    def node(self) -> ApiNode:
        """The node, for looking into it; applications use `peers`.

        Raises:
            NoDaemon: it does not run.
        """
        if self._node is None:
            raise NoDaemon(f"{self.name} does not run")
        return self._node

    @property
    def peers(self) -> Peers:
        """A client's connection to the node, open while it runs; it ends in a crash as one to a daemon does.

        Raises:
            NoDaemon: it does not run.
        """
        if self._peers is None or not self.is_running:
            raise NoDaemon(f"{self.name} does not run")
        return self._peers

    @property
    def keys(self) -> DeviceKeys | None:
        """The device's keys, once there is a user."""
        if self._keys is None:
            device = load_device(self.folder)
            self._keys = None if device is None else device.keys
        return self._keys

    def secret_of(self, public: bytes) -> bytes | None:
        """The private key of a public one, if the node has drawn it: for reading along on its links."""
        return self._secrets.of(public)

    def _draw(self, size: int) -> bytes:
        drawn = self._random.randbytes(size)
        self._secrets.note(drawn)
        return drawn

    # --- Life -------------------------------------------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Starts the node and runs it until `stop` or `crash`; the user is made the first time."""
        SPEAKER.set(self.name)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._scope, self._ended = trio.CancelScope(), trio.Event()
        self._sockets = self._network.open_sockets(self.name)
        environment = Environment(self._sockets, VirtualThreads(self._random), self.clock.now_ms, self._draw, self.disk)
        settings = self._settings
        try:
            with self._scope:
                async with open_node(
                    self.folder,
                    listen=["ws://0.0.0.0:0"],
                    links_max=settings.links_max,
                    patience=settings.patience,
                    keeping=settings.keeping,
                    environment=environment,
                ) as node:
                    if not node.users:
                        await node.init(user_name=self.name, device_name=self.name)
                    self.id, self.user_id = node.own_device(), next(iter(node.users))
                    async with trio.open_nursery() as nursery:
                        self._node, self._peers = node, await self._connect(node, nursery)
                        task_status.started()
        finally:
            self._node = None
            self._ended.set()

    async def _connect(self, node: ApiNode, nursery: trio.Nursery) -> Peers:
        """Serves the local API on a pair of sockets; what it acknowledges is noted."""
        ours, theirs = trio.socket.socketpair()
        self._served = theirs
        methods = Methods(Api(node, lambda: None, time.monotonic()))
        connection = _NotingConnection(trio.SocketStream(ours), partial(self._note, node))
        nursery.start_soon(ApiConnection(trio.SocketStream(theirs), methods).run)
        nursery.start_soon(connection.run)
        await trio.lowlevel.checkpoint()
        return Peers(connection)

    def _note(self, node: ApiNode, group: str | None, answer: Mapping[str, Any]) -> None:
        with suppress(PeersdError):  # forgotten since
            self._on_answer(self.name, node.group(node.user(None), group).id, answer)

    async def stop(self) -> None:
        """Stops the node in good order."""
        await self._end()

    async def crash(self, *, silently: bool = False) -> None:
        """Ends the node as SIGKILL does: what it would still write, send or answer is lost, what it has written stays.

        Args:
            silently: as when the whole machine loses power: others learn of it by their pings only, and what was written and not
                synced is lost.
        """
        assert self._sockets is not None and self.is_running
        left = _Files(self.folder, self.disk if silently else None)
        self.disk.switch_off()
        self._network.end_process(self._sockets, silently=silently)
        await self._end()
        left.restore()
        self.disk.switch_on(has_lost_power=silently)

    async def _end(self) -> None:
        self._node = None
        if self._served is not None:
            # The client gets what was answered before, and then the end.
            self._served.shutdown(trio.socket.SHUT_RDWR)
        with trio.CancelScope(shield=True):
            self._scope.cancel()
            await self._ended.wait()


class _NotingConnection(Connection):
    """A client's connection that tells of each promise that it saw made.

    Args:
        stream: to the node.
        note: called with the group as the client named it and the answer.
    """

    def __init__(self, stream: trio.SocketStream, note: Callable[[str | None, Mapping[str, Any]], None]) -> None:
        super().__init__(stream)
        self._note = note

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """See Connection."""
        answer = await super().call(method, params)
        if method in NOTED:
            self._note(answer.get("group_id") or params.get("group"), answer)
        return answer


class _Files:
    """All files of a folder as they are now.

    Files are put back in their place and not replaced: a store notices by its inode that it was copied.

    Args:
        folder: the folder.
        disk: it has lost its power, and what was not synced; None if it has not.
    """

    def __init__(self, folder: Path, disk: FaultyDisk | None) -> None:
        self._folder = folder
        self._kept: dict[Path, tuple[bytes, Any]] = {}
        for path in sorted(folder.rglob("*")):
            # SQLite's index of the write-ahead log is made anew after a crash.
            if path.is_file() and not path.name.endswith("-shm"):
                found, content = path.stat(), path.read_bytes()
                left = content if disk is None else disk.left_of(path, content)
                if left is not None:
                    self._kept[path] = left, (found.st_atime_ns, found.st_mtime_ns)

    def restore(self) -> None:
        """Makes the folder what it was; nothing may have a file of it open."""
        for path in sorted(self._folder.rglob("*")):
            if path.is_file() and path not in self._kept:
                path.unlink()
        for path, (content, times_ns) in self._kept.items():
            if not path.exists():
                path.write_bytes(content)
            elif path.read_bytes() != content:
                with path.open("r+b") as file:
                    file.truncate()
                    file.write(content)
            os.utime(path, ns=times_ns)
