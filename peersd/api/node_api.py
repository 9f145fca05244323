"""What the API asks of a node: every method that a handler calls, with its types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from peersd.api.values import SqlParams

Answer: TypeAlias = Mapping[str, Any]
"""Keys as API.md names them; leaves are JSON values, or SQL values in rows."""


class NodeApi(Protocol):
    """A node as the API sees it. `user` and `group` are as the client gave them; the node resolves them.

    Every method raises PeersdError; all but `status` and `init` raise it with `not_initialised` before `init`.
    """

    def cut_off(self) -> None:
        """End the clients' statements that still run; the node is about to close."""
        ...

    async def status(self) -> Answer:
        """What `daemon.status` tells of the node."""
        ...

    async def init(self, *, user_name: str, device_name: str | None) -> Answer:
        """Make the first user, this device and the personal group."""
        ...

    async def group_create(self, *, user: str | None, name: str, description: str | None) -> Answer:
        """Make a group; its id."""
        ...

    async def group_list(self, *, user: str | None, include_hidden: bool) -> Sequence[Answer]:
        """All groups of the user."""
        ...

    async def group_show(self, *, user: str | None, group: str | None) -> Answer:
        """One group in full."""
        ...

    async def group_switch(self, *, user: str | None, group: str) -> Answer:
        """Make a group the active one; the group."""
        ...

    async def group_active(self, *, user: str | None) -> Answer:
        """The group that a missing `group` means."""
        ...

    async def invite_create(self, *, user: str | None, group: str | None, role: str, expires_in_s: int, max_uses: int) -> Answer:
        """Make an invite; its id and ticket."""
        ...

    async def invite_list(self, *, user: str | None, group: str | None) -> Sequence[Answer]:
        """All invites of a group."""
        ...

    async def invite_revoke(self, *, user: str | None, group: str | None, invite_id: str) -> None:
        """Revoke an invite."""
        ...

    async def invite_accept(self, *, user: str | None, ticket: str, timeout_s: float) -> Answer:
        """Join a group by its ticket."""
        ...

    async def member_list(self, *, user: str | None, group: str | None, include_left: bool) -> Sequence[Answer]:
        """The members of a group and their devices."""
        ...

    async def sql_query(
        self, *, user: str | None, group: str | None, sql: str, params: SqlParams, limit: int, timeout_s: float
    ) -> Answer:
        """Run one statement that only reads; rows hold raw SQL values."""
        ...

    async def sql_execute(self, *, user: str | None, group: str | None, sql: str, params: SqlParams, timeout_s: float) -> Answer:
        """Run one statement that writes, or that changes the schema."""
        ...

    async def sql_transaction(
        self, *, user: str | None, group: str | None, statements: list[tuple[str, list[SqlParams]]], timeout_s: float
    ) -> Answer:
        """Run statements, each once per set of parameters, all or nothing."""
        ...

    async def schema_show(self, *, user: str | None, group: str | None) -> Answer:
        """The tables of a group."""
        ...

    async def link_list(self, *, user: str | None) -> Sequence[Answer]:
        """The links that are up."""
        ...

    async def link_connect(self, *, user: str | None, url: str, device_id: str | None, timeout_s: float) -> Answer:
        """Dial an address; the device that answered."""
        ...

    async def sync_status(self, *, user: str | None, group: str | None) -> Sequence[Answer]:
        """How far other devices are, by group; all groups when `group` is None."""
        ...

    async def sync_wait(
        self, *, user: str | None, group: str | None, devices: list[str] | None, timeout_s: float
    ) -> Answer | None:
        """Return when the devices durably hold all that this one held at the call."""
        ...
