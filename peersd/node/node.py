"""The node: this device's users and groups, their stores, links and replication, in one nursery (DESIGN 2)."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from peersd.errors import PeersdError
from peersd.net.channels import ChannelIsClosed, LinkHandle
from peersd.node import answers, invites, queries, registry
from peersd.node.addresses import Addresses
from peersd.node.advertise import advertised_urls
from peersd.node.clock import WATCH_INTERVAL_S, PeerClock, wall_clock_ms
from peersd.node.device_file import Device, create_device, load_device
from peersd.node.genesis import make_group, make_user
from peersd.node.group import Group, open_group
from peersd.node.links import Links
from peersd.node.naming import find
from peersd.node.sharing import Sharing
from peersd.store.mark import MarkFile, read_machine_id
from peersd.store.statements import Params
from peersd.store.store import Store, StoreContext, create_store, open_store
from peersd_protocol import ids
from peersd_protocol.acts import NONCE_BYTES, Genesis
from peersd_protocol.dialing import Patience
from peersd_protocol.entries import EPOCH_BYTES
from peersd_protocol.errors import CloseCode
from peersd_protocol.names import is_name
from peersd_protocol.runs import Run
from peersd_protocol.signing import SEED_BYTES

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
        group_ids: the groups that the user is in, oldest first, each with whether it is hidden.
        active: the group that a missing `group` means.
    """

    id: bytes
    personal: Group
    group_ids: dict[bytes, bool]
    active: bytes

    @property
    def name(self) -> str:
        """What the user is called."""
        user = self.personal.state.users.get(self.id)
        return user.name if user else ""


class Node:
    """This device in the network. Made by `open_node`; its public methods are what the local API calls.

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
        self._advertise = tuple(advertise)
        self._patience = patience
        self._listen: tuple[str, ...] = ()
        self._nursery: trio.Nursery | None = None
        self._stops: dict[bytes, tuple[trio.CancelScope, trio.Event]] = {}
        self._init_lock = trio.Lock()

    # --- Life -------------------------------------------------------------------------------------------------------------------

    async def start(self, nursery: trio.Nursery, listen: Sequence[str]) -> None:
        """Opens everything that there is.

        Raises:
            PeersdError: `unreachable` if it cannot listen, `store_corrupt` if the device's key cannot be used.
        """
        self._nursery = nursery
        self._listen = tuple(listen)
        self.device = load_device(self.data_dir)
        if self.device is None:
            return
        for path in sorted(self.data_dir.glob(f"{USER_PREFIX}*.db")):
            await self._open_user(ids.parse_id(ids.USER, f"{ids.USER}-{path.stem.removeprefix(USER_PREFIX)}"), path)
        await self._start_links()

    async def _start_links(self) -> None:
        assert self.device is not None and self._nursery is not None
        self.links = Links(self.device.keys, self._serve_link, self._links_changed, self.entropy, self._patience)
        await self._nursery.start(self.links.run, self._listen)
        self._nursery.start_soon(self._watch_clocks)
        self._want_links()

    async def _watch_clocks(self) -> None:
        while True:
            handles = self.links.handles() if self.links else []
            self.clock.note_peers(handle.clock_offset_ms for handle in handles if handle.clock_offset_ms is not None)
            await trio.sleep(WATCH_INTERVAL_S)

    async def _open_user(self, user: bytes, path: Path) -> User:
        """Opens a user's personal group and the groups of its registry. A group that cannot be opened stops no other."""
        personal = await self._open_group(path, partial(open_store, path, self._context(), self._mark(path)))
        active = await personal.store.call(personal.store.store.load_local, ACTIVE)
        opened = self.users[user] = User(user, personal, {}, active if isinstance(active, bytes) else personal.id)
        for text, hidden in (await registry.registered(personal.store)).items():
            group = ids.parse_id(ids.GROUP, text)
            opened.group_ids[group] = hidden
            if group in self.groups:
                continue
            group_path = self.group_path(text)
            try:
                await self._open_group(group_path, partial(open_store, group_path, self._context(), self._mark(group_path)))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a file, the other groups go on
                _log.error("group_not_opened", exc_info=error, extra={"fields": {"group": text}})
                self.failed[group] = "corrupt"
        return opened

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
        return list(self._advertise) or advertised_urls(self.links.listen_urls if self.links else ())

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
            (ids.format_id(ids.GROUP, group), self.groups[group].state.name if group in self.groups else "", group)
            for group in (user.personal.id, *user.group_ids)
        ]
        found = find(text, known, code="group_not_found", what="group")
        if found not in self.groups:
            raise PeersdError(
                "store_corrupt", "The group's file cannot be opened.", hint="See the daemon's log; restore the file."
            )
        return self.groups[found]

    async def add_group(self, user: User, group: Group) -> None:
        """Enters a group that was made or joined into the registry; the first one becomes the active one."""
        await registry.register(user.personal.store, user.id, group.text_id, group.state.name, self.wall_ms())
        is_first = not user.group_ids
        user.group_ids[group.id] = False
        if is_first:
            await self._activate(user, group.id)

    async def _activate(self, user: User, group_id: bytes) -> None:
        await user.personal.store.call(user.personal.store.store.save_local, ACTIVE, group_id)
        user.active = group_id

    async def identity_runs(self, user: User) -> list[Run]:
        """The user's identity log, to be carried into a group."""
        return await user.personal.store.call(user.personal.store.store.identity_runs, user.id)

    async def make_group_store(self, group_id: bytes, runs: Sequence[Run], epoch: bytes | None) -> Group:
        """Makes a group's file and opens it."""
        path = self.group_path(ids.format_id(ids.GROUP, group_id))
        return await self._open_group(path, partial(create_store, path, self._context(), self._mark(path), group_id, runs, epoch))

    # --- The API: node and users ------------------------------------------------------------------------------------------------

    async def status(self) -> Mapping[str, Any]:
        """daemon.status."""
        return answers.status(self)

    async def init(self, *, user_name: str, device_name: str | None) -> Mapping[str, Any]:
        """Makes this device's keys, its first user, and the personal group."""
        async with self._init_lock:
            if self.users:
                raise PeersdError("already_initialised", "This device has a user already.", hint="`peers status` shows it.")
            check_name(user_name)
            if self.device is None:
                self.device = create_device(self.data_dir, device_name or answers.host_name(), self.entropy)
            epoch = self.entropy(EPOCH_BYTES)
            new = make_user(
                self.device,
                user_name,
                epoch=epoch,
                nonce=self.entropy(NONCE_BYTES),
                recovery_seed=self.entropy(SEED_BYTES),
                wall_ms=self.wall_ms(),
            )
            genesis = Genesis(user_name, self.entropy(NONCE_BYTES), personal=True)
            run = make_group(self.device, new.user, (new.user,), genesis, epoch=epoch, wall_ms=self.wall_ms())
            text = ids.format_id(ids.USER, new.user)
            path = self.data_dir / f"{USER_PREFIX}{text.removeprefix(ids.USER + '-')}.db"
            opener = partial(create_store, path, self._context(), self._mark(path), run.last.hash, [new.run, run], epoch)
            personal = await self._open_group(path, opener)
            await registry.create_registry(personal.store, new.user)
            self.users[new.user] = User(new.user, personal, {}, personal.id)
            await self._start_links()
            return answers.initialised(self.device, new, personal)

    # --- The API: groups --------------------------------------------------------------------------------------------------------

    async def group_create(self, *, user: str | None, name: str, description: str | None) -> Mapping[str, Any]:
        """group.create."""
        acting = self.user(user)
        check_name(name)
        assert self.device is not None
        identity = await self.identity_runs(acting)
        epoch = self.entropy(EPOCH_BYTES)
        heads = (identity[-1].last.hash,)
        run = make_group(
            self.device, acting.id, heads, Genesis(name, self.entropy(NONCE_BYTES)), epoch=epoch, wall_ms=self.wall_ms()
        )
        group = await self.make_group_store(run.last.hash, [*identity, run], epoch)
        await self.add_group(acting, group)
        if description:
            await answers.describe(group, acting.id, description)
        return {"group_id": group.text_id}

    async def group_list(self, *, user: str | None, include_hidden: bool) -> Sequence[Mapping[str, Any]]:
        """group.list."""
        acting = self.user(user)
        shown = [group for group, hidden in acting.group_ids.items() if include_hidden or not hidden]
        return [answers.group(self, acting, group) for group in (acting.personal.id, *shown)]

    async def group_show(self, *, user: str | None, group: str | None) -> Mapping[str, Any]:
        """group.show."""
        acting = self.user(user)
        return answers.group_in_full(self, acting, self.group(acting, group))

    async def group_switch(self, *, user: str | None, group: str) -> Mapping[str, Any]:
        """group.switch."""
        acting = self.user(user)
        found = self.group(acting, group)
        await self._activate(acting, found.id)
        return answers.group(self, acting, found.id)

    async def group_active(self, *, user: str | None) -> Mapping[str, Any]:
        """group.active."""
        acting = self.user(user)
        return answers.group(self, acting, self.group(acting, None).id)

    async def member_list(self, *, user: str | None, group: str | None, include_left: bool) -> Sequence[Mapping[str, Any]]:
        """member.list."""
        acting = self.user(user)
        return answers.members(self, self.group(acting, group), include_left=include_left)

    # --- The API: invites -------------------------------------------------------------------------------------------------------

    async def invite_create(
        self, *, user: str | None, group: str | None, role: str, expires_in_s: int, max_uses: int
    ) -> Mapping[str, Any]:
        """invite.create."""
        acting = self.user(user)
        return await invites.create(self, acting, self.group(acting, group), role, expires_in_s, max_uses)

    async def invite_list(self, *, user: str | None, group: str | None) -> Sequence[Mapping[str, Any]]:
        """invite.list."""
        return invites.list_all(self.group(self.user(user), group))

    async def invite_revoke(self, *, user: str | None, group: str | None, invite_id: str) -> None:
        """invite.revoke."""
        acting = self.user(user)
        await invites.revoke(acting, self.group(acting, group), invite_id)

    async def invite_accept(self, *, user: str | None, ticket: str, timeout_s: float) -> Mapping[str, Any]:
        """invite.accept."""
        return await invites.accept(self, self.user(user), ticket, timeout_s)

    # --- The API: SQL -----------------------------------------------------------------------------------------------------------

    async def sql_query(
        self, *, user: str | None, group: str | None, sql: str, params: Params, limit: int, timeout_s: float
    ) -> Mapping[str, Any]:
        """sql.query."""
        return await queries.query(self.group(self.user(user), group), sql, params, limit, timeout_s)

    async def sql_execute(
        self, *, user: str | None, group: str | None, sql: str, params: Params, timeout_s: float
    ) -> Mapping[str, Any]:
        """sql.execute."""
        acting = self.user(user)
        return await queries.execute(acting.id, self.group(acting, group), sql, params, timeout_s)

    async def sql_transaction(
        self, *, user: str | None, group: str | None, statements: Sequence[tuple[str, Sequence[Params]]], timeout_s: float
    ) -> Mapping[str, Any]:
        """sql.transaction."""
        acting = self.user(user)
        return await queries.transaction(acting.id, self.group(acting, group), statements, timeout_s)

    async def schema_show(self, *, user: str | None, group: str | None) -> Mapping[str, Any]:
        """schema.show."""
        return queries.schema(self.group(self.user(user), group).state.schema)

    # --- The API: links and sync ------------------------------------------------------------------------------------------------

    async def link_list(self, *, user: str | None) -> Sequence[Mapping[str, Any]]:
        """link.list."""
        self.user(user)
        return answers.links(self)

    async def link_connect(self, *, user: str | None, url: str, device_id: str | None, timeout_s: float) -> Mapping[str, Any]:
        """link.connect."""
        self.user(user)
        return await answers.connect(self, url, device_id, timeout_s)

    async def sync_status(self, *, user: str | None, group: str | None) -> Sequence[Mapping[str, Any]]:
        """sync.status."""
        acting = self.user(user)
        return [await answers.sync(self, one) for one in self._some(acting, group)]

    async def sync_wait(self, *, user: str | None, group: str | None, devices: Sequence[str] | None, timeout_s: float) -> None:
        """sync.wait."""
        acting = self.user(user)
        with trio.move_on_after(timeout_s) as scope:
            for one in self._some(acting, group):
                await answers.wait_synced(self, one, devices)
        if scope.cancelled_caught:
            raise PeersdError("timeout", "Not all devices hold everything yet.", hint="`peers sync` shows which.", retry=True)

    def _some(self, user: User, group: str | None) -> list[Group]:
        if group is not None:
            return [self.group(user, group)]
        return [self.groups[one] for one in (user.personal.id, *user.group_ids) if one in self.groups]


def check_name(name: str) -> None:
    """Refuses names that no replica would accept.

    Raises:
        PeersdError: `too_large`.
    """
    if not is_name(name):
        raise PeersdError(
            "too_large", "That name cannot be used.", hint="1 to 128 characters, no control characters, no invisible ones."
        )


@asynccontextmanager
async def open_node(
    data_dir: Path, *, listen: Sequence[str], advertise: Sequence[str] = (), patience: Patience | None = None
) -> AsyncIterator[Node]:
    """Runs a node until the context is left.

    Args:
        data_dir: the data folder, 0700 and locked by the caller.
        listen: ws:// URLs to listen on; none: it only dials.
        advertise: addresses for tickets; by default the machine's own on the listening port.
        patience: the waits between dials.

    Raises:
        PeersdError: `unreachable`, `store_corrupt`.
    """
    node = Node(data_dir, advertise, patience)
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        try:
            await node.start(nursery, listen)
            yield node
        finally:
            nursery.cancel_scope.cancel()
