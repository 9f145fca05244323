"""The node: this device's users and groups, their links and replication, in one nursery (DESIGN 2)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Container, Mapping, Sequence
from pathlib import Path
from typing import Final

import trio

from peersd.errors import PeersdError
from peersd.net.channels import ChannelIsClosed, LinkHandle
from peersd.net.listener import Opening
from peersd.node.addresses import Addresses
from peersd.node.clock import WATCH_INTERVAL_S, PeerClock
from peersd.node.device_file import Device, load_device
from peersd.node.environment import Environment
from peersd.node.events import Events
from peersd.node.files import GroupFiles
from peersd.node.genesis import NewUser
from peersd.node.group import Group
from peersd.node.kept_store import Keeping
from peersd.node.links import Links
from peersd.node.meshing import Meshing, Shared
from peersd.node.naming import find
from peersd.node.places import Places
from peersd.node.sharing import Sharing
from peersd.node.summary import Summary
from peersd.node.users import User, Users
from peersd.store.local_state import LocalState
from peersd.store.uuid7 import Uuid7
from peersd_protocol import ids
from peersd_protocol.acts import NONCE_BYTES
from peersd_protocol.constants import LINKS_MAX, TICKET_ADDRESSES_MAX
from peersd_protocol.dialing import Patience
from peersd_protocol.errors import CloseCode
from peersd_protocol.lanes import Standing
from peersd_protocol.link_standings import Known
from peersd_protocol.roles import format_role
from peersd_protocol.signing import SigningKey

_log = logging.getLogger("peersd.node")

PERSONAL: Final = "personal"
"""What names a user's personal group."""

SAVE_INTERVAL_S: Final = 2.0
"""How long beacons and what was seen of other copies may wait to be written to node.db (guess: both come again)."""


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
        self.files = GroupFiles(self)
        self.local = LocalState(data_dir / "node.db", environment.disk.vfs)
        self.events = Events(self.wall_ms)
        self.users = Users(self.files, self.local, environment.threads, self.events, self.wall_ms)
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
            await self.users.find_all(self.own_device())
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
        unannounced: set[bytes] = set()
        for group in self.groups.values():
            # Who has to tell of a leave needs a link like a member until then.
            leaving = {user: (self.own_device(),) for user, one in self.users.items() if group.id in one.untold}
            if leaving or any(map(group.summary.role_of, users)):
                groups[group.id] = {**group.summary.devices_by_user, **leaving}
                unannounced |= group.summary.member_devices.keys() - group.copies.book.devices
        return Shared(users, groups, unannounced)

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

    async def add_new_user(self, new: NewUser, epoch: bytes) -> Group:
        """Makes the personal group of a user who has just come to be, and begins to link.

        Args:
            new: the user's genesis.
            epoch: the epoch it was written in.
        """
        assert self.device is not None
        personal = await self.users.make(self.device, new, epoch, self.entropy(NONCE_BYTES))
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
                self._nursery_start(user.note_registration, group)
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

    def known(self, group: Group, device: bytes, *, has_asked: bool = False) -> Known:
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
        )

    def may_be_told(self, group: Group, device: bytes) -> bool:
        """Whether a remote device may be told what this one holds of a group."""
        return self.known(group, device).may_be_told

    def asks_back(self, group: Group, device: bytes) -> bool:
        """Whether to ask back a remote device that opens a group in which this one is no member's."""
        return self.known(group, device, has_asked=True).standing is Standing.LEAVING

    def standings(self, device: bytes, asked: Container[bytes]) -> dict[bytes, Standing]:
        """What a remote device is in each group, some of which it opened on its link."""
        return {id_: self.known(group, device, has_asked=id_ in asked).standing for id_, group in self.groups.items()}

    def note_not_member(self, group: Group, device: bytes) -> None:
        """A remote device closed a channel because this one is no member's: it has heard of a leave."""
        if self.known(group, device).standing is Standing.LEAVING:
            for user in self.users.values():
                user.untold.discard(group.id)
                self._nursery_start(user.save_untold)
            self.leave_heard.set()
            self.leave_heard = trio.Event()
            self._wake_sharings()

    def _wake_sharings(self) -> None:
        for sharing in self.sharings.values():
            sharing.wake()

    # --- Devices ----------------------------------------------------------------------------------------------------------------

    def device_name(self, device: bytes) -> str:
        """What a device is called; empty for one that no group knows."""
        return next((name for group in self.groups.values() if (name := group.summary.device_name(device))), "")

    def last_seen_ms(self, device: bytes) -> int | None:
        """When a device was last linked, milliseconds since 1970."""
        if device == self.own_device() or (self.links is not None and self.links.to_device(device) is not None):
            return self.wall_ms()
        seen = [group.copies.views[device].last_seen_ms for group in self.groups.values() if device in group.copies.views]
        return max((at for at in seen if at is not None), default=None)

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
