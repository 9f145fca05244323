"""Two nodes of two users in one trio loop, linked over loopback: real stores and links, seen from inside; stores idle soon."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from peersd.node import open_node
from peersd.node.api_node import ApiNode
from peersd.node.group import Group
from peersd.node.kept_store import Keeping, Opened
from peersd.testing.pairs import NOWHERE, free_url
from peersd.testing.processes import HANG_S, LOOK_AGAIN_S
from peersd_protocol import ids
from peersd_protocol.dialing import Patience

NOTE = "CREATE TABLE note (id TEXT PRIMARY KEY DEFAULT (uuid7()), text TEXT)"
INSERT = "INSERT INTO note (text) VALUES (?)"

SOON = Keeping(idle_s=0.05)
"""A store is closed about when everything is said, so that a test sees it happen."""

IMPATIENT = Patience(delay_ms=100, delay_ms_max=500, refused_ms=100)


@dataclass
class Two:
    """Two linked nodes.

    Attributes:
        ada: listens.
        ben: dials ada, and cannot be dialled.
    """

    ada: ApiNode
    ben: ApiNode

    @property
    def nodes(self) -> tuple[ApiNode, ApiNode]:
        """Both."""
        return self.ada, self.ben

    async def link(self) -> None:
        """Let ben dial, and return when both know of the link."""
        await self.ben.link_connect(user=None, url=self.ada.listen_urls[0], device_id=None, timeout_s=HANG_S)
        await until(lambda: all(node.links is not None and len(node.links.handles()) == 1 for node in self.nodes))

    async def share(self, *names: str) -> None:
        """Make groups with the table `note`, which ada founds and ben joins as an admin."""
        for name in names:
            await self.ada.group_create(user=None, name=name, description=None)
            await self.ada.sql_execute(user=None, group=name, sql=NOTE, params=(), timeout_s=HANG_S)
            made = await self.ada.invite_create(user=None, group=name, role="admin", expires_in_s=3600, max_uses=1)
            await self.ben.invite_accept(user=None, ticket=made["ticket"], timeout_s=HANG_S)

    def both(self, name: str) -> tuple[Group, Group]:
        """A group on both sides."""
        return group_of(self.ada, name), group_of(self.ben, name)

    def channels(self) -> list[set[int]]:
        """The numbers of the channels on the one link, as either side has them."""
        return [set(handle.channels) for node in self.nodes for handle in node.sharings]

    async def rest(self, *names: str) -> None:
        """Return when both hold the same of these groups, or of all that they share, know it, and have closed the stores."""
        await until(lambda: self.is_at_rest(*names))

    def is_at_rest(self, *names: str) -> bool:
        """See rest."""
        shared = [self.ada.groups[id_].name for id_ in self.ada.groups.keys() & self.ben.groups.keys()]
        return all(self._is_dormant(name) for name in names or shared)

    def _is_dormant(self, name: str) -> bool:
        groups = self.both(name)
        # A lane is dormant only when nothing opens or closes the store.
        is_equal = all(group.opened is None and list(group.lanes().values()) == [True] for group in groups)
        return is_equal and groups[0].summary.digest == groups[1].summary.digest


@asynccontextmanager
async def open_ada(base: Path, *, keeping: Keeping = SOON, listen: str = "ws://127.0.0.1:0") -> AsyncGenerator[ApiNode]:
    """The node that listens; its user is made where there is none."""
    async with _open(base, "ada", keeping, [listen], []) as node:
        yield node


@asynccontextmanager
async def open_ben(base: Path, *, keeping: Keeping = SOON, advertise: str = NOWHERE) -> AsyncGenerator[ApiNode]:
    """The node that dials."""
    async with _open(base, "ben", keeping, [], [advertise]) as node:
        yield node


@asynccontextmanager
async def open_cara(base: Path) -> AsyncGenerator[ApiNode]:
    """A third node, which dials."""
    async with _open(base, "cara", SOON, [], [NOWHERE]) as node:
        yield node


@asynccontextmanager
async def _open(base: Path, name: str, keeping: Keeping, listen: list[str], advertise: list[str]) -> AsyncGenerator[ApiNode]:
    folder = base / name
    folder.mkdir(mode=0o700, exist_ok=True)
    async with open_node(folder, listen=listen, advertise=advertise, patience=IMPATIENT, keeping=keeping) as node:
        if not node.users:
            await node.init(user_name=name, device_name=f"{name}-laptop")
        yield node


@asynccontextmanager
async def open_two(base: Path, *groups: str, keeping: Keeping = SOON) -> AsyncGenerator[Two]:
    """Two linked nodes that share groups.

    Args:
        base: gets a folder for each.
        groups: names.
        keeping: of both.
    """
    async with open_ada(base, keeping=keeping, listen=free_url()) as ada, open_ben(base, keeping=keeping) as ben:
        two = Two(ada, ben)
        await two.link()
        await two.share(*groups)
        yield two


def group_of(node: ApiNode, name: str) -> Group:
    """A group by its name."""
    return node.group(node.user(None), name)


async def write(node: ApiNode, group: str, text: str) -> None:
    """Write a row."""
    await node.sql_execute(user=None, group=group, sql=INSERT, params=(text,), timeout_s=HANG_S)


async def texts(node: ApiNode, group: str) -> list[str]:
    """The rows' texts, sorted."""
    sql = "SELECT text FROM note ORDER BY text"
    answer = await node.sql_query(user=None, group=group, sql=sql, params=(), limit=100_000, timeout_s=HANG_S)
    return [row[0] for row in answer["rows"]]


async def until(is_so: Callable[[], bool]) -> None:
    """Look again and again until it is so."""
    with trio.fail_after(HANG_S):
        while not is_so():  # no event tells of what is looked at
            await trio.sleep(LOOK_AGAIN_S / 2)


async def at_once(*calls: Callable[[], Awaitable[object]]) -> None:
    """Do all of them at the same time."""
    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(call)


@asynccontextmanager
async def held_up(opened: Opened) -> AsyncGenerator[Callable[[], None]]:
    """Within, a store's writing thread is busy until what is given is called: what comes to it waits in a row."""
    is_begun, go_on = threading.Event(), threading.Event()

    def hold_up() -> None:
        is_begun.set()
        assert go_on.wait(HANG_S)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(opened.store.call, hold_up)
        try:
            await until(is_begun.is_set)
            yield go_on.set
        finally:
            go_on.set()


def device_of(node: ApiNode) -> bytes:
    """The device's id."""
    return node.own_device()


def spoil(group: Group) -> bytes:
    """Overwrite a closed store with zeros so that nothing in the folder tells of it; returns what it was."""
    before, found = group.path.read_bytes(), os.stat(group.path)
    assert group.opened is None
    with group.path.open("r+b") as file:
        file.write(bytes(len(before)))
    os.utime(group.path, ns=(found.st_atime_ns, found.st_mtime_ns))
    return before


def text_id(group: Group) -> str:
    """The group's id as text."""
    return ids.format_id(ids.GROUP, group.id)
