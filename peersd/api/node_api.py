"""What the API asks of a node: every method that a handler calls, with its types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

from peersd.api.values import SqlParams

Answer: TypeAlias = Mapping[str, Any]
"""Keys as the operations page names them; leaves are JSON values, or SQL values in rows."""


EVENT_KINDS: Final = ("link_up", "link_down", "group_joined", "group_left", "member_changed", "rows_changed", "alarm")


class Events(Protocol):
    """The node's events from one `events_open` on. Bounded inside the node: who does not receive holds up nothing.

    After an overflow comes `{"kind": "alarm", "at": …, "alarm": "events_lost", "lost": n}` in the place of what was lost,
    whatever kinds were asked for.
    """

    async def receive(self) -> Answer:
        """The next event: `kind`, `at`, and what its kind carries; waits while there is none."""
        ...

    def close(self) -> None:
        """No more events are wanted; idempotent."""
        ...


class NodeApi(Protocol):
    """A node as the API sees it. `user` and `group` are as the client gave them; the node resolves them.

    `member` and `device` are ids, unambiguous prefixes or names, which the node resolves too.

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

    async def group_update(
        self, *, user: str | None, group: str | None, name: str | None, description: str | None, avatar: bytes | None
    ) -> Answer:
        """Change what is given (never all None; an empty description or avatar removes it); the group as in `group_show`."""
        ...

    async def group_hide(self, *, user: str | None, group: str | None, hidden: bool) -> None:
        """Hide a group from this user's list, or show it again."""
        ...

    async def group_leave(self, *, user: str | None, group: str | None) -> None:
        """Leave a group; its file stays, read-only."""
        ...

    async def group_forget(self, *, user: str | None, group: str | None) -> None:
        """Delete the file of a group that was left."""
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

    async def member_set_role(self, *, user: str | None, group: str | None, member: str, role: str) -> None:
        """Give a member a role: one of the names of roles, checked before."""
        ...

    async def member_remove(self, *, user: str | None, group: str | None, member: str) -> None:
        """Remove a member from a group."""
        ...

    async def ban_add(self, *, user: str | None, group: str | None, member: str, reason: str | None) -> None:
        """Ban a user, member or not."""
        ...

    async def ban_remove(self, *, user: str | None, group: str | None, member: str) -> None:
        """Lift a ban."""
        ...

    async def ban_list(self, *, user: str | None, group: str | None) -> Sequence[Answer]:
        """The bans of a group."""
        ...

    async def device_list(self, *, user: str | None) -> Sequence[Answer]:
        """The devices of the user."""
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

    async def link_disconnect(self, *, user: str | None, device: str) -> None:
        """End the link to a device."""
        ...

    async def sync_status(self, *, user: str | None, group: str | None) -> Sequence[Answer]:
        """How far other devices are, by group; all groups when `group` is None."""
        ...

    async def sync_wait(
        self, *, user: str | None, group: str | None, devices: list[str] | None, timeout_s: float
    ) -> Answer | None:
        """Return when the devices durably hold all that this one held at the call."""
        ...

    async def events_open(self, *, kinds: frozenset[str] | None) -> Events:
        """The node's events from now on, of these kinds (never empty, all known) or of all."""
        ...
