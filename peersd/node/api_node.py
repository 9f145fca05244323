"""The node as the local API calls it: one method for each of API.md, asking the modules beside it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio

from peersd.crash_points import CrashPoint, reach
from peersd.errors import PeersdError
from peersd.node import answers, groups, invites, joining, members, queries
from peersd.node.device_file import create_device
from peersd.node.environment import Environment
from peersd.node.events import EventStream
from peersd.node.genesis import make_user
from peersd.node.group import Group
from peersd.node.kept_store import Keeping
from peersd.node.node import Node
from peersd.node.users import User
from peersd.store.statements import Bound, Params
from peersd_protocol.acts import NONCE_BYTES
from peersd_protocol.constants import NAME_CHARS_MAX
from peersd_protocol.devicekeys import is_device_name
from peersd_protocol.dialing import Patience
from peersd_protocol.entries import EPOCH_BYTES
from peersd_protocol.signing import SEED_BYTES

CLOSE_TIMEOUT_S: Final = 10.0
"""Closing all stores in good order may take so long; a store that is cut off is only looked into at the next start (guess)."""


class ApiNode(Node):
    """A node with the methods of the local API. Made by `open_node`."""

    def __init__(
        self, data_dir: Path, advertise: Sequence[str], patience: Patience | None, keeping: Keeping, environment: Environment
    ) -> None:
        super().__init__(data_dir, advertise, patience, keeping, environment)
        self._init_lock = trio.Lock()

    def cut_off(self) -> None:
        """Ends the clients' statements that still run."""
        for group in self.groups.values():
            if group.opened is not None:
                group.opened.store.store.is_closing = True

    # --- Node and users ------------------------------------------------------------------------------------------------

    async def status(self) -> Mapping[str, Any]:
        """daemon.status."""
        return answers.status(self)

    async def init(self, *, user_name: str, device_name: str | None) -> Mapping[str, Any]:
        """Makes this device's keys, its first user, and the personal group."""
        async with self._init_lock:
            if self.users:
                raise PeersdError("already_initialised", "This device has a user already.", hint="`peers status` shows it.")
            groups.check_name(user_name)
            # Before the key is made: it would keep the name, and no user could ever be made with it.
            if device_name is not None and not is_device_name(device_name):
                raise PeersdError(
                    "too_large",
                    "That device name cannot be used.",
                    hint=f"1 to {NAME_CHARS_MAX} characters, no control characters.",
                )
            if self.device is None:
                self.device = create_device(
                    self.data_dir, device_name or answers.host_name(), self.entropy, self.environment.disk
                )
                reach(CrashPoint.KEY_SAVED)
            epoch = self.entropy(EPOCH_BYTES)
            new = make_user(
                self.device,
                user_name,
                epoch=epoch,
                nonce=self.entropy(NONCE_BYTES),
                recovery_seed=self.entropy(SEED_BYTES),
                wall_ms=self.wall_ms(),
            )
            personal = await self.add_new_user(new, epoch)
            reach(CrashPoint.USER_REGISTERED)
            return answers.initialised(self.device, new, personal)

    # --- Groups --------------------------------------------------------------------------------------------------------

    async def group_create(self, *, user: str | None, name: str, description: str | None) -> Mapping[str, Any]:
        """group.create."""
        acting = self.user(user)
        group = await groups.create(self, acting, name, description)
        return {"group_id": group.text_id}

    async def group_list(self, *, user: str | None, include_hidden: bool) -> Sequence[Mapping[str, Any]]:
        """group.list."""
        acting = self.user(user)
        shown = [
            group
            for group, registration in acting.group_ids.items()
            if include_hidden or (not registration.hidden and registration.left_at_ms is None)
        ]
        return [answers.group(self, acting, group) for group in (acting.personal.id, *shown)]

    async def group_show(self, *, user: str | None, group: str | None) -> Mapping[str, Any]:
        """group.show."""
        acting = self.user(user)
        return await answers.group_in_full(self, acting, self.group(acting, group))

    async def group_update(
        self, *, user: str | None, group: str | None, name: str | None, description: str | None, avatar: bytes | None
    ) -> Mapping[str, Any]:
        """group.update."""
        acting = self.user(user)
        found = self.group(acting, group)
        await groups.update(acting, found, name, description, avatar)
        return await answers.group_in_full(self, acting, found)

    async def group_switch(self, *, user: str | None, group: str) -> Mapping[str, Any]:
        """group.switch."""
        acting = self.user(user)
        found = self.group(acting, group)
        await acting.activate(found.id)
        return answers.group(self, acting, found.id)

    async def group_active(self, *, user: str | None) -> Mapping[str, Any]:
        """group.active."""
        acting = self.user(user)
        return answers.group(self, acting, self.group(acting, None).id)

    async def group_hide(self, *, user: str | None, group: str | None, hidden: bool) -> None:
        """group.hide."""
        acting = self.user(user)
        await groups.hide(acting, self.group(acting, group), hidden=hidden)

    async def group_leave(self, *, user: str | None, group: str | None) -> None:
        """group.leave."""
        acting = self.user(user)
        await members.leave(self, acting, self.group(acting, group))

    async def group_forget(self, *, user: str | None, group: str | None) -> None:
        """group.forget."""
        acting = self.user(user)
        await groups.forget(self, acting, self.group(acting, group))

    # --- Members -------------------------------------------------------------------------------------------------------

    async def member_list(self, *, user: str | None, group: str | None, include_left: bool) -> Sequence[Mapping[str, Any]]:
        """member.list."""
        acting = self.user(user)
        return await answers.members(self, self.group(acting, group), include_left=include_left)

    async def member_set_role(self, *, user: str | None, group: str | None, member: str, role: str) -> None:
        """member.set_role."""
        acting = self.user(user)
        await members.set_role(acting, self.group(acting, group), member, role)

    async def member_remove(self, *, user: str | None, group: str | None, member: str) -> None:
        """member.remove."""
        acting = self.user(user)
        await members.remove(acting, self.group(acting, group), member)

    async def ban_add(self, *, user: str | None, group: str | None, member: str, reason: str | None) -> None:
        """ban.add."""
        acting = self.user(user)
        await members.ban(acting, self.group(acting, group), member, reason or "")

    async def ban_remove(self, *, user: str | None, group: str | None, member: str) -> None:
        """ban.remove."""
        acting = self.user(user)
        await members.unban(acting, self.group(acting, group), member)

    async def ban_list(self, *, user: str | None, group: str | None) -> Sequence[Mapping[str, Any]]:
        """ban.list."""
        return await answers.bans(self.group(self.user(user), group))

    async def device_list(self, *, user: str | None) -> Sequence[Mapping[str, Any]]:
        """device.list."""
        return await answers.devices(self, self.user(user))

    # --- Invites -------------------------------------------------------------------------------------------------------

    async def invite_create(
        self, *, user: str | None, group: str | None, role: str, expires_in_s: int, max_uses: int
    ) -> Mapping[str, Any]:
        """invite.create."""
        acting = self.user(user)
        return await invites.create(self, acting, self.group(acting, group), role, expires_in_s, max_uses)

    async def invite_list(self, *, user: str | None, group: str | None) -> Sequence[Mapping[str, Any]]:
        """invite.list."""
        return await invites.list_all(self, self.group(self.user(user), group))

    async def invite_revoke(self, *, user: str | None, group: str | None, invite_id: str) -> None:
        """invite.revoke."""
        acting = self.user(user)
        await invites.revoke(acting, self.group(acting, group), invite_id)

    async def invite_accept(self, *, user: str | None, ticket: str, timeout_s: float) -> Mapping[str, Any]:
        """invite.accept."""
        return await joining.accept(self, self.user(user), ticket, timeout_s)

    # --- SQL -----------------------------------------------------------------------------------------------------------

    async def sql_query(
        self, *, user: str | None, group: str | None, sql: str, params: Params, limit: int, timeout_s: float
    ) -> Mapping[str, Any]:
        """sql.query."""
        async with self.group(self.user(user), group).use() as opened:
            return await queries.query(opened, sql, params, limit, timeout_s)

    async def sql_execute(
        self, *, user: str | None, group: str | None, sql: str, params: Params, timeout_s: float
    ) -> Mapping[str, Any]:
        """sql.execute."""
        acting = self.user(user)
        async with self.group(acting, group).use() as opened:
            return await queries.execute(acting.id, opened, sql, params, timeout_s)

    async def sql_transaction(
        self, *, user: str | None, group: str | None, statements: Sequence[tuple[str, Sequence[Bound]]], timeout_s: float
    ) -> Mapping[str, Any]:
        """sql.transaction."""
        acting = self.user(user)
        async with self.group(acting, group).use() as opened:
            return await queries.transaction(acting.id, opened, statements, timeout_s)

    async def schema_show(self, *, user: str | None, group: str | None) -> Mapping[str, Any]:
        """schema.show."""
        async with self.group(self.user(user), group).use() as opened:
            return queries.schema(opened.state.schema)

    # --- Links, sync, events -------------------------------------------------------------------------------------------

    async def link_list(self, *, user: str | None) -> Sequence[Mapping[str, Any]]:
        """link.list."""
        self.user(user)
        return answers.links(self)

    async def link_connect(self, *, user: str | None, url: str, device_id: str | None, timeout_s: float) -> Mapping[str, Any]:
        """link.connect."""
        self.user(user)
        return await answers.connect(self, url, device_id, timeout_s)

    async def link_disconnect(self, *, user: str | None, device: str) -> None:
        """link.disconnect."""
        self.user(user)
        answers.disconnect(self, device)

    async def sync_status(self, *, user: str | None, group: str | None) -> Sequence[Mapping[str, Any]]:
        """sync.status."""
        acting = self.user(user)
        return [
            await answers.sync(self, one) for one in self._some(acting, group) if group is not None or one.store.failure is None
        ]

    async def sync_wait(
        self, *, user: str | None, group: str | None, devices: Sequence[str] | None, timeout_s: float
    ) -> Mapping[str, Any]:
        """sync.wait."""
        meant = self._some(self.user(user), group)
        with trio.move_on_after(timeout_s):
            return await answers.wait_synced(self, meant, devices)
        if not any(one.lanes() for one in meant):
            message, hint = "No other device is linked here.", "`peers links` shows links; `peers connect URL` makes one."
            raise PeersdError("timeout", message, hint=hint, retry=True)
        raise PeersdError("timeout", "Not all devices hold everything yet.", hint="`peers sync` shows which.", retry=True)

    async def events_open(self, *, kinds: frozenset[str] | None) -> EventStream:
        """events.subscribe."""
        return self.events.open(kinds)

    def _some(self, user: User, group: str | None) -> list[Group]:
        """The group named, else all that the user is in."""
        if group is not None:
            return [self.group(user, group)]
        return [user.personal, *(self.groups[one] for one, entry in user.group_ids.items() if entry.left_at_ms is None)]


@asynccontextmanager
async def open_node(
    data_dir: Path,
    *,
    listen: Sequence[str],
    advertise: Sequence[str] = (),
    links_max: int | None = None,
    links_deny: Sequence[bytes] = (),
    patience: Patience | None = None,
    keeping: Keeping | None = None,
    environment: Environment | None = None,
) -> AsyncGenerator[ApiNode, None]:
    """Runs a node until the context is left.

    Args:
        data_dir: the data folder, 0700 and locked by the caller.
        listen: ws:// URLs to listen on; none: it only dials.
        advertise: addresses for tickets and beacons; by default the machine's own on the listening port.
        links_max: links at once; None for as many as usual.
        links_deny: the devices that get no link.
        patience: the waits between dials.
        keeping: how long stores stay open.
        environment: what it runs in; None for the machine's own.

    Raises:
        PeersdError: `unreachable`, `store_corrupt`.
    """
    node = ApiNode(data_dir, advertise, patience, keeping or Keeping(), environment or Environment())
    node.set_links(links_max, links_deny)
    try:
        async with trio.open_nursery() as nursery:
            try:
                await node.start(nursery, listen)
                yield node
            finally:
                with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                    await node.stop()
                nursery.cancel_scope.cancel()
    finally:
        node.local.close()  # the last tasks have ended
