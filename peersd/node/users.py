"""The users of this device, each with the personal group and with the groups that are registered there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

import trio

from peersd.crash_points import CrashPoint, reach
from peersd.errors import PeersdError
from peersd.node import registry
from peersd.node.device_file import Device
from peersd.node.events import Events
from peersd.node.files import GroupFiles
from peersd.node.genesis import NewUser, make_group
from peersd.node.group import Group
from peersd.node.registry import Registration
from peersd.store.local_state import LocalState
from peersd.store.threads import Threads
from peersd_protocol import canonical, ids
from peersd_protocol.acts import Genesis
from peersd_protocol.runs import Run

_log = logging.getLogger("peersd.node")

ACTIVE: Final = "active"
"""Under this key the personal store keeps the active group, which is this device's own affair."""

UNTOLD: Final = "untold"
"""Under this key it keeps the groups that the user left and that no other member has heard of yet."""


class User:
    """A user of this device.

    Args:
        id_: the user's id.
        personal: the personal group, which keeps all that is said here of the user's groups.
        group_ids: see below.
        active: see below.
        untold: see below.
        events: told of groups that are joined and left.
        wall_ms: the wall clock.

    Attributes:
        id: the user's id.
        personal: the personal group.
        group_ids: the groups that the user is or was in, oldest first, each as it is registered.
        active: the group that a missing `group` means.
        untold: groups that the user left and that no other member has heard of yet.
    """

    def __init__(
        self,
        id_: bytes,
        personal: Group,
        group_ids: dict[bytes, Registration],
        active: bytes,
        untold: set[bytes],
        events: Events,
        wall_ms: Callable[[], int],
    ) -> None:
        self.id = id_
        self.personal = personal
        self.group_ids = group_ids
        self.active = active
        self.untold = untold
        self._events = events
        self._wall_ms = wall_ms
        self._noting = trio.Lock()
        """Held while the registry is brought in line with what a group says."""

    @property
    def name(self) -> str:
        """What the user is called."""
        member = self.personal.summary.members.get(self.id)
        return member.name if member else ""

    async def identity_runs(self) -> list[Run]:
        """The user's identity log, to be carried into a group."""
        async with self.personal.use() as opened:
            return await opened.store.call(opened.store.store.identity_runs, self.id)

    # --- The registry -----------------------------------------------------------------------------------------------------------

    async def register(self, group: Group) -> None:
        """Enters a group that was made or joined; the first one becomes the active one."""
        is_first = all(registration.left_at_ms is not None for registration in self.group_ids.values())
        async with self.personal.use() as opened:
            await registry.register(opened.store, self.id, group.text_id, group.name, self._wall_ms())
        reach(CrashPoint.GROUP_REGISTERED)
        self.group_ids[group.id] = Registration(group.name)
        if is_first and self.active == self.personal.id:
            await self.activate(group.id)
        self._events.publish("group_joined", group_id=group.text_id, name=group.name)

    async def note_registration(self, group: Group) -> None:
        """Brings the registry in line with what the group's acts say of its name and of the user's membership."""
        if group.id not in self.group_ids:
            return
        # One at a time: who returns has it noted, whoever noted it.
        async with self._noting, self.personal.use() as opened:
            # Looked at again after each wait: the group may be forgotten meanwhile.
            registration = self.group_ids.get(group.id)
            if registration is not None and group.name and registration.name != group.name:
                self.group_ids[group.id] = replace(registration, name=group.name)
                await registry.rename(opened.store, self.id, group.text_id, group.name)
            registration = self.group_ids.get(group.id)
            has_left = self.id in group.summary.members and not group.summary.role_of(self.id)
            if registration is not None and has_left and registration.left_at_ms is None:
                self.group_ids[group.id] = replace(registration, left_at_ms=self._wall_ms())
                await registry.note_left(opened.store, self.id, group.text_id, self._wall_ms())
                member = group.summary.members.get(self.id)
                reason = member.ended if member else None
                self._events.publish("group_left", group_id=group.text_id, name=group.name, reason=reason)
                if self.active == group.id:
                    await self._activate_oldest()

    async def hide(self, group: Group, *, hidden: bool) -> None:
        """Hides a group from lists, or shows it again."""
        async with self.personal.use() as opened:
            await registry.hide(opened.store, self.id, group.text_id, hidden=hidden)
        if group.id in self.group_ids:  # it may have been forgotten meanwhile
            self.group_ids[group.id] = replace(self.group_ids[group.id], hidden=hidden)

    async def forget(self, group: Group) -> None:
        """Takes a group out of the registry."""
        async with self.personal.use() as opened:
            await registry.forget(opened.store, self.id, group.text_id)
        reach(CrashPoint.GROUP_UNREGISTERED)
        del self.group_ids[group.id]
        if self.active == group.id:
            await self._activate_oldest()

    # --- What this device alone keeps -------------------------------------------------------------------------------------------

    async def activate(self, group_id: bytes) -> None:
        """Makes a group the one that a missing `group` means."""
        async with self.personal.use() as opened:
            await opened.store.call(opened.store.store.save_local, ACTIVE, group_id)
        self.active = group_id

    async def _activate_oldest(self) -> None:
        """The active group is gone: the oldest that the user is in takes its place, else the personal one."""
        left = [other for other, entry in self.group_ids.items() if entry.left_at_ms is None]
        await self.activate(left[0] if left else self.personal.id)

    async def save_untold(self) -> None:
        """Keeps the groups that were left and where nobody has heard of it."""
        async with self.personal.use() as opened:
            packed = canonical.encode(sorted(self.untold))
            await opened.store.call(opened.store.store.save_local, UNTOLD, packed)


class Users(dict[bytes, User]):
    """The users of this device, by id; with each come the groups of the registry.

    Args:
        files: the groups.
        local: what is known of them without their files.
        threads: where it is read.
        events: told of groups that are joined and left.
        wall_ms: the wall clock.
    """

    def __init__(
        self, files: GroupFiles, local: LocalState, threads: Threads, events: Events, wall_ms: Callable[[], int]
    ) -> None:
        super().__init__()
        self._files = files
        self._local = local
        self._threads = threads
        self._events = events
        self._wall_ms = wall_ms

    async def find_all(self, own_device: bytes) -> None:
        """Takes up all who have a personal group here, and ends what was cut off while a group was made, joined or forgotten.

        Args:
            own_device: this device's id.

        Raises:
            PeersdError: `store_corrupt` and others: a personal group cannot be used.
        """
        for path in self._files.user_paths():
            await self._find(path)
        if self:
            await self._settle_unregistered(own_device)

    async def make(self, device: Device, new: NewUser, epoch: bytes, nonce: bytes) -> Group:
        """Makes the personal group of a user who has just come to be.

        Args:
            device: this device.
            new: the user's genesis.
            epoch: the epoch it was written in.
            nonce: random, of the group's genesis.

        Raises:
            PeersdError: `store_full` and others; then there is no user.
        """
        genesis = Genesis(new.name, nonce, personal=True)
        run = make_group(device, new.user, (new.user,), genesis, epoch=epoch, wall_ms=self._wall_ms())
        personal = await self._files.make(self._files.user_path(new.user), run.last.hash, [new.run, run], epoch)
        reach(CrashPoint.USER_CREATED)
        try:
            await self._add(new.user, personal)
        except BaseException:
            # Who is told of a failure makes another user; the next start must not find this one.
            self.pop(new.user, None)
            await self._files.delete(personal)
            raise
        return personal

    async def _find(self, path: Path) -> None:
        """Takes up a user's personal group and the groups of its registry."""
        user = self._files.user_of(path)
        if user is None:
            return
        if await self._files.drop_unwritten(path):
            return  # `init` was cut off, as below
        personal = await self._files.find_personal(path)
        if personal.summary.role_of(user):
            await self._add(user, personal)
        elif personal.summary.members_count:
            raise PeersdError(
                "store_corrupt", f"{path.name} is another user's.", hint="Restore it from a backup of the data folder."
            )
        else:
            # `init` was cut off before the user existed; it has told nobody of it and can be run again.
            await self._files.delete(personal)

    async def _add(self, user: bytes, personal: Group) -> None:
        added = await self._load(user, personal)
        kept = await self._threads.run(self._local.load_summaries, self._files.group_path)
        for group_id, registration in added.group_ids.items():
            if group_id not in self._files.groups:
                await self._files.find_group(group_id, registration, kept.get(group_id))
        self[user] = added
        for group_id in added.group_ids:
            await added.note_registration(self._files.groups[group_id])

    async def _load(self, user: bytes, personal: Group) -> User:
        """Reads what the personal group keeps; makes the registry where there is none yet."""
        async with personal.use() as opened:
            if not registry.is_created(opened.state.schema):
                await registry.create_registry(opened.store, user)
            active = await opened.store.call(opened.store.store.load_local, ACTIVE)
            untold = await opened.store.call(opened.store.store.load_local, UNTOLD)
            registered = await registry.registered(opened.store)
        left = cast("list[bytes]", canonical.decode(untold, bytes_max=len(untold))) if isinstance(untold, bytes) else []
        group_ids = {ids.parse_id(ids.GROUP, text): registration for text, registration in registered.items()}
        group = active if isinstance(active, bytes) else personal.id
        return User(user, personal, group_ids, group, set(left), self._events, self._wall_ms)

    async def _settle_unregistered(self, own_device: bytes) -> None:
        """Ends what was cut off while a group was made, joined or forgotten.

        Where this device is a member's, as after a join that the other side knows of, the group is registered; where it is none,
        nothing in the file was ever acknowledged, or it was to be forgotten, so it is deleted.
        """
        for group in await self._files.find_unregistered():
            members = group.summary.member_devices.get(own_device, ())
            known = [self[user] for user in members if user in self]
            for user in known:
                await user.register(group)
            if not members:
                await self._files.delete(group)
            elif not known:
                self._files.groups.pop(group.id)  # of a user whose personal group is not here
            _log.info("group_settled", extra={"fields": {"group": group.text_id, "registered": len(known)}})
