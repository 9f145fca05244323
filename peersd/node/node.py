"""The node: this device's users and groups, their links and replication, in one nursery (DESIGN 2)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, cast

import trio

from peersd.crash_points import CrashPoint, reach
from peersd.errors import PeersdError
from peersd.net.channels import ChannelIsClosed, LinkHandle
from peersd.net.listener import Opening
from peersd.node import registry
from peersd.node.addresses import Addresses
from peersd.node.clock import WATCH_INTERVAL_S, PeerClock
from peersd.node.device_file import Device, load_device
from peersd.node.environment import Environment
from peersd.node.events import Events
from peersd.node.files import GroupFiles
from peersd.node.genesis import NewUser, make_group
from peersd.node.group import Group
from peersd.node.kept_store import Keeping
from peersd.node.links import Links
from peersd.node.meshing import Meshing, Shared
from peersd.node.naming import find
from peersd.node.places import Places
from peersd.node.registry import Registration
from peersd.node.sharing import Sharing
from peersd.node.summary import Summary
from peersd.store.local_state import LocalState
from peersd.store.uuid7 import Uuid7
from peersd_protocol import canonical, ids
from peersd_protocol.acts import NONCE_BYTES, Genesis
from peersd_protocol.constants import LINKS_MAX, TICKET_ADDRESSES_MAX
from peersd_protocol.dialing import Patience
from peersd_protocol.errors import CloseCode
from peersd_protocol.lanes import Standing
from peersd_protocol.link_standings import Known
from peersd_protocol.roles import format_role
from peersd_protocol.runs import Run
from peersd_protocol.signing import SigningKey

_log = logging.getLogger("peersd.node")

PERSONAL: Final = "personal"
ACTIVE: Final = "active"
"""Under this key the personal store keeps the active group, which is this device's own affair."""

UNTOLD: Final = "untold"
"""Under this key it keeps the groups that the user left and that no other member has heard of yet."""

SAVE_INTERVAL_S: Final = 2.0
"""How long beacons and what was seen of other copies may wait to be written to node.db (guess: both come again)."""


@dataclass
class User:
    """A user of this device.

    Attributes:
        id: the user's id.
        personal: the personal group.
        group_ids: the groups that the user is or was in, oldest first, each as it is registered.
        active: the group that a missing `group` means.
        untold: groups that the user left and that no other member has heard of yet.
        noting: held while the registry is brought in line with what a group says.
    """

    id: bytes
    personal: Group
    group_ids: dict[bytes, Registration] = field(default_factory=dict)
    active: bytes = b""
    untold: set[bytes] = field(default_factory=set)
    noting: trio.Lock = field(default_factory=trio.Lock)

    @property
    def name(self) -> str:
        """What the user is called."""
        member = self.personal.summary.members.get(self.id)
        return member.name if member else ""

    def note_hidden(self, group: bytes, *, hidden: bool) -> None:
        """A group is hidden, or shown again, unless it was forgotten meanwhile."""
        if group in self.group_ids:
            self.group_ids[group] = replace(self.group_ids[group], hidden=hidden)


class Node:
    """This device in the network.

    Args:
        data_dir: the data folder, locked by the caller.
        advertise: addresses to put into tickets and beacons instead of the machine's own.
        patience: the waits between dials, and before a group is opened again.
        keeping: how long stores stay open.
        environment: what it runs in.
    """

    def __init__(
        self, data_dir: Path, advertise: Sequence[str], patience: Patience | None, keeping: Keeping, environment: Environment
    ) -> None:
        self.data_dir = data_dir
        self.environment = environment
        self.wall_ms = environment.wall_ms
        self.clock = PeerClock(environment.wall_ms)
        self.entropy = environment.entropy
        self.uuid7 = Uuid7(environment.wall_ms, environment.entropy)
        self.device: Device | None = None
        self.users: dict[bytes, User] = {}
        self.files = GroupFiles(self)
        self.local = LocalState(data_dir / "node.db", environment.disk.vfs)
        self.events = Events(self.wall_ms)
        self.links: Links | None = None
        self.sharings: dict[LinkHandle, Sharing] = {}
        self.addresses = Addresses(self.local, environment.threads, environment.wall_ms)
        self.joining: dict[bytes, trio.Lock] = {}
        self.leave_heard = trio.Event()
        self.listen_urls: tuple[str, ...] = ()
        self.is_stopping = False
        self.keeping = keeping
        self.places = Places(lambda: (group.store for group in self.groups.values()), keeping.open_max, keeping.patience_s)
        self._advertise = tuple(advertise)
        self.patience = patience or Patience()
        self._nursery: trio.Nursery | None = None
        self._mesh: Meshing | None = None
        self._limits: tuple[int, frozenset[bytes]] = LINKS_MAX, frozenset()
        self._stated_addresses: tuple[str, ...] = ()

    # --- Life -------------------------------------------------------------------------------------------------------------------

    async def start(self, nursery: trio.Nursery, listen: Sequence[str]) -> None:
        """Finds out what there is, and begins to listen and to link.

        Raises:
            PeersdError: `unreachable` if it cannot listen, `store_corrupt` if the device's key cannot be used.
        """
        self._nursery = nursery
        self.device = load_device(self.data_dir)
        if self.device is None and self.files.user_paths():
            raise PeersdError("store_corrupt", "device.key is missing.", hint="Restore it from a backup of the data folder.")
        if self.device is not None:
            for path in self.files.user_paths():
                await self._open_user(path)
            await self._settle_unregistered()
        self.listen_urls = await nursery.start(self._listen, listen)
        nursery.start_soon(self._run_saving)
        if self.users:
            await self._start_links()

    async def stop(self) -> None:
        """Closes the stores in good order, so that the next start finds them unchanged."""
        self.is_stopping = True
        async with trio.open_nursery() as nursery:
            for group in self.groups.values():
                nursery.start_soon(group.store.close)
        await self._save()

    async def _listen(
        self, urls: Sequence[str], task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Listens from the start, so that an address in use shows at once; before `init` sockets are closed again."""
        async with self.environment.network.listen(urls, self._serve_socket) as listening:
            task_status.started(listening)
            await trio.sleep_forever()

    async def _serve_socket(self, opening: Opening) -> None:
        if self.links is not None:
            await self.links.serve_socket(opening)

    async def _start_links(self) -> None:
        assert self.device is not None
        nursery = self.nursery()
        self.links = Links(
            self.device.keys,
            self._serve_link,
            self._wake_mesh,
            self.environment,
            self.patience,
            on_link=self._note_link,
            on_alarm=self._note_alarm,
            addresses=self._look_for_addresses,
        )
        self._mesh = Meshing(self.own_device(), self.links, self._shared, self.addresses.of, self.addresses.was_reached)
        self.links.set_limits(*self._limits)
        self._look_for_addresses()
        await nursery.start(self.links.run)
        nursery.start_soon(self._mesh.run)
        nursery.start_soon(self._watch_clocks)

    def _look_for_addresses(self) -> tuple[str, ...]:
        """This device's addresses now; where they have changed, its beacons are to say so."""
        found = tuple(self.advertised())
        if found != self._stated_addresses:
            self._stated_addresses = found
            for group in self.groups.values():
                group.copies.beacon_due()
        return found

    def set_links(self, links_max: int | None, deny: Sequence[bytes]) -> None:
        """Sets how many links there are at most, None for as many as usual, and which devices get none; holds at once."""
        self._limits = links_max or LINKS_MAX, frozenset(deny)
        if self.links is not None:
            self.links.set_limits(*self._limits)

    def _shared(self) -> Shared:
        """What this device shares with others: the groups that one of its users is in, or has to tell of a leave."""
        users = frozenset(self.users)
        groups: dict[bytes, Mapping[bytes, Collection[bytes]]] = {}
        for group in self.groups.values():
            # Who has to tell of a leave needs a link like a member until then.
            leaving = {user: (self.own_device(),) for user, one in self.users.items() if group.id in one.untold}
            if leaving or any(map(group.summary.role_of, users)):
                groups[group.id] = {**group.summary.devices_by_user, **leaving}
        return Shared(users, groups)

    def _wake_mesh(self) -> None:
        if self._mesh is not None:
            self._mesh.wake()

    def _note_link(self, handle: LinkHandle, is_up: bool) -> None:
        device = handle.remote_device
        self.events.publish(
            "link_up" if is_up else "link_down",
            device_id=ids.format_id(ids.DEVICE, device),
            device_name=self.device_name(device),
        )

    def _note_alarm(self, name: str, device: bytes) -> None:
        self.events.publish(
            "alarm", alarm=name, device_id=ids.format_id(ids.DEVICE, device), device_name=self.device_name(device)
        )

    async def _watch_clocks(self) -> None:
        while True:
            handles = self.links.handles() if self.links else []
            self.clock.note_peers(handle.clock_offset_ms for handle in handles if handle.clock_offset_ms is not None)
            await trio.sleep(WATCH_INTERVAL_S)

    async def _run_saving(self) -> None:
        while True:
            await trio.sleep(SAVE_INTERVAL_S)
            await self._save()

    async def _save(self) -> None:
        """Writes to node.db where devices can be reached, and what groups have learned of other copies."""
        await self.addresses.save()
        for group in list(self.groups.values()):
            await group.copies.save()

    # --- Users and groups -------------------------------------------------------------------------------------------------------

    async def _open_user(self, path: Path) -> None:
        """Takes up a user's personal group and the groups of its registry."""
        user = self.files.user_of(path)
        if user is None:
            return
        if await self.files.drop_unwritten(path):
            return  # `init` was cut off, as below
        personal = await self.files.find_personal(path)
        if personal.summary.role_of(user):
            await self._add_user(user, personal)
        elif personal.summary.members_count:
            raise PeersdError(
                "store_corrupt", f"{path.name} is another user's.", hint="Restore it from a backup of the data folder."
            )
        else:
            # `init` was cut off before the user existed; it has told nobody of it and can be run again.
            await self.files.delete(personal)

    async def _add_user(self, user: bytes, personal: Group) -> None:
        async with personal.use() as opened:
            if not registry.is_created(opened.state.schema):
                await registry.create_registry(opened.store, user)
            active = await opened.store.call(opened.store.store.load_local, ACTIVE)
            untold = await opened.store.call(opened.store.store.load_local, UNTOLD)
            registered = await registry.registered(opened.store)
        left = cast("list[bytes]", canonical.decode(untold, bytes_max=len(untold))) if isinstance(untold, bytes) else []
        added = User(user, personal, {}, active if isinstance(active, bytes) else personal.id, set(left))
        kept = await self.environment.threads.run(self.local.load_summaries, self.files.group_path)
        for text, registration in registered.items():
            group_id = ids.parse_id(ids.GROUP, text)
            added.group_ids[group_id] = registration
            if group_id not in self.groups:
                await self.files.find_group(group_id, registration, kept.get(group_id))
        self.users[user] = added
        for group_id in added.group_ids:
            await self.note_registration(added, self.groups[group_id])

    async def _settle_unregistered(self) -> None:
        """Ends what was cut off while a group was made, joined or forgotten.

        Where this device is a member's, as after a join that the other side knows of, the group is registered; where it is none,
        nothing in the file was ever acknowledged, or it was to be forgotten, so it is deleted.
        """
        for group in await self.files.find_unregistered() if self.users else ():
            members = group.summary.member_devices.get(self.own_device(), ())
            known = [self.users[user] for user in members if user in self.users]
            for user in known:
                await self.add_group(user, group)
            if not members:
                await self.files.delete(group)
            elif not known:
                self.groups.pop(group.id)  # of a user whose personal group is not here
            _log.info("group_settled", extra={"fields": {"group": group.text_id, "registered": len(known)}})

    async def add_new_user(self, new: NewUser, epoch: bytes) -> Group:
        """Makes the personal group of a user who has just come to be, and begins to link.

        Args:
            new: the user's genesis.
            epoch: the epoch it was written in.
        """
        assert self.device is not None
        genesis = Genesis(new.name, self.entropy(NONCE_BYTES), personal=True)
        run = make_group(self.device, new.user, (new.user,), genesis, epoch=epoch, wall_ms=self.wall_ms())
        personal = await self.files.make(self.files.user_path(new.user), run.last.hash, [new.run, run], epoch)
        reach(CrashPoint.USER_CREATED)
        try:
            await self._add_user(new.user, personal)
        except BaseException:
            # Who is told of a failure makes another user; the next start must not find this one.
            self.users.pop(new.user, None)
            await self.files.delete(personal)
            raise
        with trio.CancelScope(shield=True):  # from here on there is a user: not one without links
            if self.links is None:
                await self._start_links()
        return personal

    async def discard_group(self, group: Group) -> None:
        """Closes a group for good and deletes its file: one that was not joined after all, or that is forgotten."""
        await self.files.delete(group)
        self._wake_sharings()

    @property
    def groups(self) -> dict[bytes, Group]:
        """All groups that have a file here, by id."""
        return self.files.groups

    # --- What groups tell and ask (see group.Host) ------------------------------------------------------------------------------

    def own_addresses(self) -> tuple[str, ...]:
        """What beacons and tickets state: as of the last look, since to ask the system takes a while."""
        return self._stated_addresses[:TICKET_ADDRESSES_MAX]

    def signing_key(self) -> SigningKey:
        """This device's key."""
        assert self.device is not None
        return self.device.keys.signing

    def own_device(self) -> bytes:
        """This device's id."""
        assert self.device is not None
        return self.device.keys.device

    def nursery(self) -> trio.Nursery:
        """Where open stores run."""
        assert self._nursery is not None
        return self._nursery

    def open_stores(self) -> int:
        """How many stores are open."""
        return sum(1 for group in self.groups.values() if group.opened is not None)

    def summary_changed(self, group: Group, before: Summary) -> None:
        """Members, names or roles of a group have changed."""
        for sharing in self.sharings.values():
            sharing.members_changed(group.id)
        self._wake_mesh()
        for user in self.users.values():
            if group.id in user.group_ids:
                self._nursery_start(self.note_registration, user, group)
        for member in before.members.keys() | group.summary.members.keys():
            old, new = before.members.get(member), group.summary.members.get(member)
            if new is not None and (old is None or (old.role, old.ended, old.name) != (new.role, new.ended, new.name)):
                self.events.publish(
                    "member_changed",
                    group_id=group.text_id,
                    user_id=ids.format_id(ids.USER, member),
                    name=new.name,
                    role=format_role(new.role),
                )

    def rows_changed(self, group: Group) -> None:
        """Entries with rows were committed."""
        self.events.publish("rows_changed", merge_key=group.id, group_id=group.text_id)

    def addresses_learned(self, device: bytes, urls: Sequence[str]) -> None:
        """A beacon stated where a device can be reached."""
        self.addresses.learned(device, urls)
        self._wake_mesh()

    def _nursery_start(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        """Starts something that a failing file may keep from happening; it is tried again at the next change."""

        async def attempt() -> None:
            try:
                await task(*args)
            except PeersdError as error:
                if self.is_stopping:
                    return  # the next start looks at it again
                _log.error("not_noted", extra={"fields": {"code": error.code, "reason": error.message}})

        if not self.is_stopping:
            self.nursery().start_soon(attempt)

    async def note_registration(self, user: User, group: Group) -> None:
        """Brings the registry in line with what the group's acts say of its name and of the user's membership."""
        if group.id not in user.group_ids:
            return
        # One at a time: who returns has it noted, whoever noted it.
        async with user.noting, user.personal.use() as opened:
            # Looked at again after each wait: the group may be forgotten meanwhile.
            registration = user.group_ids.get(group.id)
            if registration is not None and group.name and registration.name != group.name:
                user.group_ids[group.id] = replace(registration, name=group.name)
                await registry.rename(opened.store, user.id, group.text_id, group.name)
            registration = user.group_ids.get(group.id)
            has_left = user.id in group.summary.members and not group.summary.role_of(user.id)
            if registration is not None and has_left and registration.left_at_ms is None:
                user.group_ids[group.id] = replace(registration, left_at_ms=self.wall_ms())
                await registry.note_left(opened.store, user.id, group.text_id, self.wall_ms())
                member = group.summary.members.get(user.id)
                reason = member.ended if member else None
                self.events.publish("group_left", group_id=group.text_id, name=group.name, reason=reason)
                if user.active == group.id:
                    await self.activate(user, self.fallback(user))

    def fallback(self, user: User) -> bytes:
        """What a missing `group` means when the active one is gone: the oldest that the user is in."""
        left = [other for other, entry in user.group_ids.items() if entry.left_at_ms is None]
        return left[0] if left else user.personal.id

    # --- Links ------------------------------------------------------------------------------------------------------------------

    async def _serve_link(self, handle: LinkHandle) -> None:
        sharing = self.sharings[handle] = Sharing(handle, self)
        handle.serving.set()
        if handle.direction == "out":
            self.addresses.answered(handle.remote_device, handle.url)
            self.nursery().start_soon(self.addresses.save)
        try:
            await sharing.run()
        finally:
            del self.sharings[handle]

    def standing(self, group: Group, device: bytes, *, has_asked: bool = False) -> Standing:
        """What a remote device is in a group, as seen from here; `has_asked` if it opened the group on its link."""
        summary = group.summary
        own = [summary.members[user] for user in self.users if user in summary.members]
        return Known(
            is_own=self.own_device() in summary.member_devices,
            is_remote=device in summary.member_devices,
            was_remote=device in summary.former_devices,
            is_empty=not summary.members,
            is_same_user=any(device in member.devices and member.devices[device].live for member in own),
            is_untold=any(group.id in user.untold for user in self.users.values()),
            has_asked=has_asked,
        ).standing

    def asks_back(self, group: Group, device: bytes) -> bool:
        """Whether to ask back a remote device that opens a group in which this one is no member's."""
        return self.standing(group, device, has_asked=True) is Standing.LEAVING

    def standings(self, device: bytes, asked: Container[bytes]) -> dict[bytes, Standing]:
        """What a remote device is in each group, some of which it opened on its link."""
        return {id_: self.standing(group, device, has_asked=id_ in asked) for id_, group in self.groups.items()}

    def note_not_member(self, group: Group, device: bytes) -> None:
        """A remote device closed a channel because this one is no member's: it has heard of a leave."""
        if self.standing(group, device) is Standing.LEAVING:
            for user in self.users.values():
                user.untold.discard(group.id)
                self._nursery_start(self.save_untold, user)
            self.leave_heard.set()
            self.leave_heard = trio.Event()
            self._wake_sharings()

    async def save_untold(self, user: User) -> None:
        """Keeps the groups that were left and where nobody has heard of it."""
        async with user.personal.use() as opened:
            packed = canonical.encode(sorted(user.untold))
            await opened.store.call(opened.store.store.save_local, UNTOLD, packed)

    def _wake_sharings(self) -> None:
        for sharing in self.sharings.values():
            sharing.wake()

    # --- Devices ----------------------------------------------------------------------------------------------------------------

    def known_devices(self) -> set[bytes]:
        """The devices of all members of all groups, this one included."""
        return {device for group in self.groups.values() for device in group.summary.member_devices}

    def device_name(self, device: bytes) -> str:
        """What a device is called; empty for one that no group knows."""
        return next((name for group in self.groups.values() if (name := group.summary.device_name(device))), "")

    def last_seen_ms(self, device: bytes) -> int | None:
        """When a device was last linked, milliseconds since 1970."""
        if device == self.own_device() or (self.links is not None and self.links.to_device(device) is not None):
            return self.wall_ms()
        seen = [group.copies.views[device].last_seen_ms for group in self.groups.values() if device in group.copies.views]
        return max((at for at in seen if at is not None), default=None)

    def by_last_seen(self, group: Group) -> list[bytes]:
        """The members' devices of a group, the one that was linked last first."""
        return sorted(group.summary.member_devices, key=lambda device: self.last_seen_ms(device) or 0, reverse=True)

    def links_or_fail(self) -> Links:
        """The links; there are some as soon as there is a user."""
        if self.links is None:
            raise PeersdError("not_initialised", "This device has no user yet.", hint="Run `peers init --user NAME`.")
        return self.links

    async def sharing_of(self, handle: LinkHandle) -> Sharing:
        """What is shared over a link; waits for the moment until its task has begun.

        Raises:
            ChannelIsClosed: the link is down.
        """
        await handle.serving.wait()
        if handle not in self.sharings:
            raise ChannelIsClosed(handle.down_code or CloseCode.GOING_AWAY)
        return self.sharings[handle]

    def advertised(self) -> list[str]:
        """The addresses that others may reach this device at."""
        return list(self._advertise) or self.environment.network.reachable_at(self.listen_urls)

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
            PeersdError: `group_not_found`, `name_ambiguous`.
        """
        if text == PERSONAL:
            return user.personal
        if text is None:
            return self.groups.get(user.active, user.personal)
        known = [(self.groups[group].text_id, self.name_of(user, group), group) for group in (user.personal.id, *user.group_ids)]
        return self.groups[find(text, known, code="group_not_found", what="group")]

    def name_of(self, user: User, group: bytes) -> str:
        """A group's name; of one that cannot be opened, the name that it was registered with."""
        return self.groups[group].name or user.group_ids[group].name

    async def add_group(self, user: User, group: Group) -> None:
        """Enters a group that was made or joined into the registry; the first one becomes the active one."""
        is_first = all(registration.left_at_ms is not None for registration in user.group_ids.values())
        async with user.personal.use() as opened:
            await registry.register(opened.store, user.id, group.text_id, group.name, self.wall_ms())
        reach(CrashPoint.GROUP_REGISTERED)
        user.group_ids[group.id] = Registration(group.name)
        if is_first and user.active == user.personal.id:
            await self.activate(user, group.id)
        self.events.publish("group_joined", group_id=group.text_id, name=group.name)

    async def activate(self, user: User, group_id: bytes) -> None:
        """Makes a group the one that a missing `group` means."""
        async with user.personal.use() as opened:
            await opened.store.call(opened.store.store.save_local, ACTIVE, group_id)
        user.active = group_id

    async def identity_runs(self, user: User) -> list[Run]:
        """The user's identity log, to be carried into a group."""
        async with user.personal.use() as opened:
            return await opened.store.call(opened.store.store.identity_runs, user.id)
