"""The node as the local API calls it: one method for each of API.md, asking the modules beside it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from peersd.errors import PeersdError
from peersd.node import answers, invites, queries
from peersd.node.device_file import create_device
from peersd.node.genesis import make_group, make_user
from peersd.node.group import Group
from peersd.node.node import Node, User
from peersd.store.statements import Params
from peersd_protocol.acts import NONCE_BYTES, Genesis
from peersd_protocol.dialing import Patience
from peersd_protocol.entries import EPOCH_BYTES
from peersd_protocol.names import is_name
from peersd_protocol.signing import SEED_BYTES


class ApiNode(Node):
    """A node with the methods of the local API. Made by `open_node`."""

    def __init__(self, data_dir: Path, advertise: Sequence[str], patience: Patience | None) -> None:
        super().__init__(data_dir, advertise, patience)
        self._init_lock = trio.Lock()

    def cut_off(self) -> None:
        """Ends the clients' statements that still run."""
        for group in self.groups.values():
            group.store.store.is_closing = True

    # --- Node and users ------------------------------------------------------------------------------------------------

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
            personal = await self.add_new_user(new, epoch)
            return answers.initialised(self.device, new, personal)

    # --- Groups --------------------------------------------------------------------------------------------------------

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
        shown = [group for group, registration in acting.group_ids.items() if include_hidden or not registration.hidden]
        return [answers.group(self, acting, group) for group in (acting.personal.id, *shown)]

    async def group_show(self, *, user: str | None, group: str | None) -> Mapping[str, Any]:
        """group.show."""
        acting = self.user(user)
        return answers.group_in_full(self, acting, self.group(acting, group))

    async def group_switch(self, *, user: str | None, group: str) -> Mapping[str, Any]:
        """group.switch."""
        acting = self.user(user)
        found = self.group(acting, group)
        await self.activate(acting, found.id)
        return answers.group(self, acting, found.id)

    async def group_active(self, *, user: str | None) -> Mapping[str, Any]:
        """group.active."""
        acting = self.user(user)
        return answers.group(self, acting, self.group(acting, None).id)

    async def member_list(self, *, user: str | None, group: str | None, include_left: bool) -> Sequence[Mapping[str, Any]]:
        """member.list."""
        acting = self.user(user)
        return answers.members(self, self.group(acting, group), include_left=include_left)

    # --- Invites -------------------------------------------------------------------------------------------------------

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

    # --- SQL -----------------------------------------------------------------------------------------------------------

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

    # --- Links and sync ------------------------------------------------------------------------------------------------

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
) -> AsyncGenerator[ApiNode, None]:
    """Runs a node until the context is left.

    Args:
        data_dir: the data folder, 0700 and locked by the caller.
        listen: ws:// URLs to listen on; none: it only dials.
        advertise: addresses for tickets; by default the machine's own on the listening port.
        patience: the waits between dials.

    Raises:
        PeersdError: `unreachable`, `store_corrupt`.
    """
    node = ApiNode(data_dir, advertise, patience)
    async with trio.open_nursery() as nursery:
        try:
            await node.start(nursery, listen)
            yield node
        finally:
            nursery.cancel_scope.cancel()
