"""The node: this device's users and groups, their stores, links and replication, in one nursery (DESIGN 2)."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import trio

from peersd.errors import PeersdError
from peersd.net.channels import ChannelIsClosed, LinkHandle
from peersd.net.listener import Opening, open_listener
from peersd.node import registry
from peersd.node.addresses import Addresses
from peersd.node.advertise import advertised_urls
from peersd.node.clock import WATCH_INTERVAL_S, PeerClock, wall_clock_ms
from peersd.node.device_file import Device, load_device
from peersd.node.genesis import NewUser, make_group
from peersd.node.group import Group, open_group
from peersd.node.links import Links
from peersd.node.naming import find
from peersd.node.registry import Registration
from peersd.node.sharing import Sharing
from peersd.store.mark import MarkFile, read_machine_id
from peersd.store.sql_errors import CORRUPT_HINT
from peersd.store.store import Store, StoreContext, create_store, open_store
from peersd_protocol import ids
from peersd_protocol.acts import NONCE_BYTES, Genesis
from peersd_protocol.dialing import Patience
from peersd_protocol.errors import CloseCode
from peersd_protocol.runs import Run

_log = logging.getLogger("peersd.node")

PERSONAL: Final = "personal"
ACTIVE: Final = "active"
"""Under this key the personal store keeps the active group, which is this device's own affair."""

USER_PREFIX: Final = "user-"
GROUP_PREFIX: Final = "group-"


@dataclass
class User:
    """A user of this device.

    Attributes:
        id: the user's id.
        personal: the personal group.
        group_ids: the groups that the user is in, oldest first, each as it is registered.
        active: the group that a missing `group` means.
    """

    id: bytes
    personal: Group
    group_ids: dict[bytes, Registration]
    active: bytes

    @property
    def name(self) -> str:
        """What the user is called."""
        user = self.personal.state.users.get(self.id)
        return user.name if user else ""


class Node:
    """This device in the network.

    Args:
        data_dir: the data folder, locked by the caller.
        advertise: addresses to put into tickets instead of the machine's own.
        patience: the waits between dials.
    """

    def __init__(self, data_dir: Path, advertise: Sequence[str], patience: Patience | None) -> None:
        self.data_dir = data_dir
        self.wall_ms: Callable[[], int] = wall_clock_ms
        self.clock = PeerClock()
        self.entropy: Callable[[int], bytes] = secrets.token_bytes
        self.device: Device | None = None
        self.users: dict[bytes, User] = {}
        self.groups: dict[bytes, Group] = {}
        self.failed: dict[bytes, str] = {}
        self.links: Links | None = None
        self.sharings: dict[LinkHandle, Sharing] = {}
        self.addresses = Addresses(data_dir)
        self.joining: dict[bytes, trio.Lock] = {}
        self._advertise = tuple(advertise)
        self._patience = patience
        self.listen_urls: tuple[str, ...] = ()
        self._nursery: trio.Nursery | None = None
        self._stops: dict[bytes, tuple[trio.CancelScope, trio.Event]] = {}

    # --- Life -------------------------------------------------------------------------------------------------------------------

    async def start(self, nursery: trio.Nursery, listen: Sequence[str]) -> None:
        """Opens everything that there is.

        Raises:
            PeersdError: `unreachable` if it cannot listen, `store_corrupt` if the device's key cannot be used.
        """
        self._nursery = nursery
        self.device = load_device(self.data_dir)
        if self.device is None and any(self.data_dir.glob(f"{USER_PREFIX}*.db")):
            raise PeersdError("store_corrupt", "device.key is missing.", hint="Restore it from a backup of the data folder.")
        if self.device is not None:
            for path in sorted(self.data_dir.glob(f"{USER_PREFIX}*.db")):
                await self._open_user(path)
        self.listen_urls = await nursery.start(self._listen, listen)
        if self.users:
            await self._start_links()

    async def _listen(
        self, urls: Sequence[str], task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Listens from the start, so that an address in use shows at once; before `init` sockets are closed again."""
        async with open_listener(urls, self._serve_socket) as listener:
            task_status.started(listener.urls)
            await trio.sleep_forever()

    async def _serve_socket(self, opening: Opening) -> None:
        if self.links is not None:
            await self.links.serve_socket(opening)

    async def _start_links(self) -> None:
        assert self.device is not None and self._nursery is not None
        self.links = Links(self.device.keys, self._serve_link, self._links_changed, self.entropy, self._patience)
        await self._nursery.start(self.links.run)
        self._nursery.start_soon(self._watch_clocks)
        self._want_links()

    async def _watch_clocks(self) -> None:
        while True:
            handles = self.links.handles() if self.links else []
            self.clock.note_peers(handle.clock_offset_ms for handle in handles if handle.clock_offset_ms is not None)
            await trio.sleep(WATCH_INTERVAL_S)

    async def _open_user(self, path: Path) -> None:
        """Opens a user's personal group and the groups of its registry. A group that cannot be opened stops no other."""
        try:
            user = ids.parse_id(ids.USER, f"{ids.USER}-{path.stem.removeprefix(USER_PREFIX)}")
        except ValueError:
            _log.warning("file_ignored", extra={"fields": {"file": path.name}})
            return
        personal = await self._open_group(path, partial(open_store, path, self._context(), self._mark(path)))
        if not personal.state.members:
            # `init` was cut off before the user existed; it has told nobody of it and can be run again.
            await self.discard_group(personal)
            return
        await self._add_user(user, personal)

    async def _add_user(self, user: bytes, personal: Group) -> None:
        if not registry.is_created(personal.state.schema):
            await registry.create_registry(personal.store, user)
        active = await personal.store.call(personal.store.store.load_local, ACTIVE)
        added = self.users[user] = User(user, personal, {}, active if isinstance(active, bytes) else personal.id)
        for text, registration in (await registry.registered(personal.store)).items():
            group = ids.parse_id(ids.GROUP, text)
            added.group_ids[group] = registration
            if group in self.groups:
                continue
            path = self.group_path(text)
            try:
                await self._open_group(path, partial(open_store, path, self._context(), self._mark(path)))
            except PeersdError as error:
                _log.error("group_not_opened", extra={"fields": {"group": text, "reason": error.message}})
                self.failed[group] = "corrupt"

    async def add_new_user(self, new: NewUser, epoch: bytes) -> Group:
        """Makes and opens the personal group of a user who has just come to be, and begins to link.

        Args:
            new: the user's genesis.
            epoch: the epoch it was written in.
        """
        assert self.device is not None
        genesis = Genesis(new.name, self.entropy(NONCE_BYTES), personal=True)
        run = make_group(self.device, new.user, (new.user,), genesis, epoch=epoch, wall_ms=self.wall_ms())
        text = ids.format_id(ids.USER, new.user)
        path = self.data_dir / f"{USER_PREFIX}{text.removeprefix(ids.USER + '-')}.db"
        opener = partial(create_store, path, self._context(), self._mark(path), run.last.hash, [new.run, run], epoch)
        personal = await self._open_group(path, opener)
        await self._add_user(new.user, personal)
        if self.links is None:
            await self._start_links()
        return personal

    async def _open_group(self, path: Path, open_: Callable[[], Store]) -> Group:
        assert self._nursery is not None
        group: Group = await self._nursery.start(self._run_group, path, open_)
        return group

    async def _run_group(
        self, path: Path, open_: Callable[[], Store], task_status: trio.TaskStatus[Group] = trio.TASK_STATUS_IGNORED
    ) -> None:
        scope, closed = trio.CancelScope(), trio.Event()
        group_id: bytes | None = None
        try:
            with scope:
                async with open_group(open_, path, self._groups_changed) as group:
                    group_id = group.id
                    self.groups[group_id] = group
                    self._stops[group_id] = scope, closed
                    task_status.started(group)
                    self._groups_changed()
                    await trio.sleep_forever()
        finally:
            if group_id is not None:
                self.groups.pop(group_id, None)
                self._stops.pop(group_id, None)
            closed.set()

    async def close_group(self, group_id: bytes) -> None:
        """Ends a group's sessions and closes its store."""
        if group_id in self._stops:
            scope, closed = self._stops[group_id]
            scope.cancel()
            await closed.wait()
            self._groups_changed()

    def _context(self) -> StoreContext:
        assert self.device is not None
        return StoreContext(self.device.keys.signing, self.clock.now_ms, self.entropy, read_machine_id())

    def _mark(self, path: Path) -> MarkFile:
        return MarkFile(self.data_dir / "marks" / f"{path.stem}.mark")

    def group_path(self, group: str) -> Path:
        """The file of a group, by its id as text."""
        return self.data_dir / f"{GROUP_PREFIX}{group.removeprefix(ids.GROUP + '-')}.db"

    # --- Links ------------------------------------------------------------------------------------------------------------------

    async def _serve_link(self, handle: LinkHandle) -> None:
        sharing = self.sharings[handle] = Sharing(handle, self.groups, lambda: list(self.users), self.wall_ms)
        if handle.direction == "out":
            self.addresses.answered(handle.remote_device, handle.url)
        try:
            await sharing.run()
        finally:
            del self.sharings[handle]

    def _links_changed(self) -> None:
        for group in self.groups.values():
            group.note_views()

    def _groups_changed(self) -> None:
        for sharing in self.sharings.values():
            sharing.wake()
        self._want_links()

    def _want_links(self) -> None:
        """Every device of a member whose address is known is dialled; those of the user's own first."""
        if self.links is None:
            return
        devices = {device for group in self.groups.values() for device in group.state.member_devices}
        for device in sorted(devices):
            urls = self.addresses.of(device)
            if urls:
                self.links.want_device(device, urls)

    def links_or_fail(self) -> Links:
        """The links; there are some as soon as there is a user."""
        if self.links is None:
            raise PeersdError("not_initialised", "This device has no user yet.", hint="Run `peers init --user NAME`.")
        return self.links

    async def sharing_of(self, handle: LinkHandle) -> Sharing:
        """What is shared over a link that is up; waits for the moment until its task has begun."""
        while handle not in self.sharings:
            if handle.is_down:
                raise ChannelIsClosed(handle.down_code or CloseCode.GOING_AWAY)
            await trio.sleep(0.001)
        return self.sharings[handle]

    async def discard_group(self, group: Group) -> None:
        """Closes a group that was not joined after all, and deletes its file."""
        await self.close_group(group.id)
        for suffix in ("", "-wal", "-shm"):
            await trio.Path(f"{group.path}{suffix}").unlink(missing_ok=True)

    def advertised(self) -> list[str]:
        """The addresses that others may reach this device at."""
        return list(self._advertise) or advertised_urls(self.listen_urls)

    # --- Who and which ----------------------------------------------------------------------------------------------------------

    def user(self, text: str | None) -> User:
        """The user meant.

        Raises:
            PeersdError: `not_initialised`, `user_not_found`, `name_ambiguous`.
        """
        if not self.users:
            raise PeersdError("not_initialised", "This device has no user yet.", hint="Run `peers init --user NAME`.")
        if text is None:
            return next(iter(self.users.values()))
        known = [(ids.format_id(ids.USER, user.id), user.name, user) for user in self.users.values()]
        return find(text, known, code="user_not_found", what="user")

    def group(self, user: User, text: str | None) -> Group:
        """The group meant; None is the active one.

        Raises:
            PeersdError: `group_not_found`, `name_ambiguous`, `store_corrupt`.
        """
        if text == PERSONAL:
            return user.personal
        if text is None:
            return self.groups.get(user.active, user.personal)
        known = [
            (ids.format_id(ids.GROUP, group), self.name_of(user, group), group) for group in (user.personal.id, *user.group_ids)
        ]
        found = find(text, known, code="group_not_found", what="group")
        if found not in self.groups:
            raise PeersdError("store_corrupt", "The group's file cannot be opened.", hint=CORRUPT_HINT)
        return self.groups[found]

    def name_of(self, user: User, group: bytes) -> str:
        """A group's name; of one that cannot be opened, the name that it was registered with."""
        return self.groups[group].state.name if group in self.groups else user.group_ids[group].name

    async def add_group(self, user: User, group: Group) -> None:
        """Enters a group that was made or joined into the registry; the first one becomes the active one."""
        await registry.register(user.personal.store, user.id, group.text_id, group.state.name, self.wall_ms())
        is_first = not user.group_ids
        user.group_ids[group.id] = Registration(group.state.name)
        if is_first:
            await self.activate(user, group.id)

    async def activate(self, user: User, group_id: bytes) -> None:
        """Makes a group the one that a missing `group` means."""
        await user.personal.store.call(user.personal.store.store.save_local, ACTIVE, group_id)
        user.active = group_id

    async def identity_runs(self, user: User) -> list[Run]:
        """The user's identity log, to be carried into a group."""
        return await user.personal.store.call(user.personal.store.store.identity_runs, user.id)

    async def make_group_store(self, group_id: bytes, runs: Sequence[Run], epoch: bytes | None) -> Group:
        """Makes a group's file and opens it."""
        path = self.group_path(ids.format_id(ids.GROUP, group_id))
        return await self._open_group(path, partial(create_store, path, self._context(), self._mark(path), group_id, runs, epoch))
