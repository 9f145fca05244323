"""`open_client` and the methods of the API with their types."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Any, NotRequired, TypedDict

import trio

from peersd.client.connection import Connection, connect
from peersd.client.events import EventStream
from peersd.client.paths import resolve_socket_path
from peersd.client.values import SqlParams, SqlValue

__all__ = ["Peers", "QueryResult", "SqlParams", "SqlValue", "Statement", "open_client"]

Row = list[SqlValue]


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The rows of a query; `truncated` when there were more than the limit."""

    columns: list[str]
    rows: list[Row]
    truncated: bool


class LastEntry(TypedDict):
    """The entry that a write became."""

    writer: str
    seq: int
    hlc: int


class ExecuteResult(TypedDict):
    """The answer of sql.execute; columns and rows are those of RETURNING, `last_entry` is None when nothing changed."""

    changes: int
    columns: list[str]
    rows: list[Row]
    last_entry: LastEntry | None
    schema_version: NotRequired[int | str]


class TransactionResult(TypedDict):
    """The answer of sql.transaction: one number of changes a statement."""

    changes: list[int]
    last_entry: LastEntry | None


class Statement(TypedDict):
    """A statement of a transaction: run once with `params`, or once for each set in `params_seq`."""

    sql: str
    params: NotRequired[SqlParams]
    params_seq: NotRequired[Sequence[SqlParams]]


class Peers:
    """The daemon's methods. Every one raises PeersError or NoDaemon; any number may be under way at once.

    `group` is an id, an unambiguous prefix of one, a name, or `personal`; None means the active group. Calls that return
    `dict` answer the keys that API.md lists.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def call(self, method: str, /, **params: Any) -> Any:
        """Any method by its name; parameters that are None are left out. Bytes and infinities may stand in values."""
        return await self._connection.call(method, {name: value for name, value in params.items() if value is not None})

    async def wait_closed(self) -> None:
        """Return once the daemon has closed the connection."""
        await self._connection.wait_closed()

    async def _object(self, method: str, /, **params: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await self.call(method, **params)
        return answer

    async def _objects(self, method: str, /, **params: Any) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = await self.call(method, **params)
        return answer

    async def status(self) -> dict[str, Any]:
        """daemon.status."""
        return await self._object("daemon.status")

    async def stop(self) -> None:
        """daemon.stop: returns when the daemon has begun to stop."""
        await self.call("daemon.stop")

    async def init(self, user_name: str, device_name: str | None = None) -> dict[str, Any]:
        """Make the first user; the answer holds the recovery phrase, which is never shown again."""
        return await self._object("init", user_name=user_name, device_name=device_name)

    async def create_group(self, name: str, description: str | None = None) -> str:
        """Make a group; its id."""
        return str((await self._object("group.create", name=name, description=description))["group_id"])

    async def groups(self, *, include_hidden: bool = False) -> list[dict[str, Any]]:
        """group.list."""
        return await self._objects("group.list", include_hidden=include_hidden)

    async def show_group(self, group: str | None = None) -> dict[str, Any]:
        """group.show."""
        return await self._object("group.show", group=group)

    async def switch_group(self, group: str) -> dict[str, Any]:
        """Make a group the active one."""
        return await self._object("group.switch", group=group)

    async def active_group(self) -> dict[str, Any]:
        """The group that a missing `group` means."""
        return await self._object("group.active")

    async def update_group(
        self,
        group: str | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        avatar: bytes | None = None,
    ) -> dict[str, Any]:
        """Change a group's name, description or avatar (admins); empty removes the last two. The group as in `show_group`."""
        return await self._object("group.update", group=group, name=name, description=description, avatar=avatar)

    async def hide_group(self, group: str, *, hidden: bool = True) -> None:
        """Hide a group from the list on this user's devices, or show it again; it syncs on."""
        await self.call("group.hide", group=group, hidden=hidden)

    async def leave_group(self, group: str | None = None) -> None:
        """Leave a group; its file stays, read-only."""
        await self.call("group.leave", group=group)

    async def forget_group(self, group: str) -> None:
        """Delete the file of a group that was left."""
        await self.call("group.forget", group=group)

    async def create_invite(
        self,
        group: str | None = None,
        *,
        role: str | None = None,
        expires_in_s: int | None = None,
        max_uses: int | None = None,
    ) -> dict[str, Any]:
        """Make an invite; the answer's `ticket` is what the other side joins with."""
        return await self._object("invite.create", group=group, role=role, expires_in_s=expires_in_s, max_uses=max_uses)

    async def invites(self, group: str | None = None) -> list[dict[str, Any]]:
        """invite.list."""
        return await self._objects("invite.list", group=group)

    async def revoke_invite(self, invite_id: str, group: str | None = None) -> None:
        """invite.revoke."""
        await self.call("invite.revoke", group=group, invite_id=invite_id)

    async def join(self, ticket: str, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Join the group that a ticket is for."""
        return await self._object("invite.accept", ticket=ticket, timeout_s=timeout_s)

    async def members(self, group: str | None = None, *, include_left: bool = False) -> list[dict[str, Any]]:
        """member.list."""
        return await self._objects("member.list", group=group, include_left=include_left)

    async def set_role(self, member: str, role: str, group: str | None = None) -> None:
        """Give a member the role owner, admin, moderator, writer or reader. `member` is an id, a prefix of one, or a name."""
        await self.call("member.set_role", group=group, user=member, role=role)

    async def remove_member(self, member: str, group: str | None = None) -> None:
        """Remove a member; what they write afterwards counts nowhere."""
        await self.call("member.remove", group=group, user=member)

    async def ban(self, member: str, group: str | None = None, *, reason: str | None = None) -> None:
        """Remove a user, member or not, and let no invite bring them back."""
        await self.call("ban.add", group=group, user=member, reason=reason)

    async def lift_ban(self, member: str, group: str | None = None) -> None:
        """ban.remove."""
        await self.call("ban.remove", group=group, user=member)

    async def bans(self, group: str | None = None) -> list[dict[str, Any]]:
        """ban.list."""
        return await self._objects("ban.list", group=group)

    async def devices(self) -> list[dict[str, Any]]:
        """The devices of this daemon's user."""
        return await self._objects("device.list")

    async def query(
        self,
        sql: str,
        params: SqlParams | None = None,
        *,
        group: str | None = None,
        limit: int | None = None,
        timeout_s: float | None = None,
    ) -> QueryResult:
        """Run a statement that only reads."""
        answer = await self.call("sql.query", group=group, sql=sql, params=params, limit=limit, timeout_s=timeout_s)
        return QueryResult(answer["columns"], answer["rows"], answer["truncated"])

    async def execute(
        self, sql: str, params: SqlParams | None = None, *, group: str | None = None, timeout_s: float | None = None
    ) -> ExecuteResult:
        """Run a statement that writes, or CREATE TABLE, CREATE INDEX, ALTER TABLE … ADD COLUMN; durable when this returns."""
        answer: ExecuteResult = await self.call("sql.execute", group=group, sql=sql, params=params, timeout_s=timeout_s)
        return answer

    async def transaction(
        self, statements: Sequence[Statement], *, group: str | None = None, timeout_s: float | None = None
    ) -> TransactionResult:
        """Run statements as one transaction: all or nothing, here and on every member's devices."""
        answer: TransactionResult = await self.call("sql.transaction", group=group, statements=statements, timeout_s=timeout_s)
        return answer

    async def schema(self, group: str | None = None) -> dict[str, Any]:
        """schema.show."""
        return await self._object("schema.show", group=group)

    async def links(self) -> list[dict[str, Any]]:
        """link.list."""
        return await self._objects("link.list")

    async def connect(self, url: str, device_id: str | None = None) -> str:
        """Dial an address; the id of the device that answered."""
        return str((await self._object("link.connect", url=url, device_id=device_id))["device_id"])

    async def disconnect(self, device: str) -> None:
        """End the link to a device."""
        await self.call("link.disconnect", device=device)

    async def sync_status(self, group: str | None = None) -> list[dict[str, Any]]:
        """sync.status."""
        return await self._objects("sync.status", group=group)

    async def wait_synced(
        self, group: str | None = None, *, devices: Sequence[str] | None = None, timeout_s: float = 30.0
    ) -> None:
        """Return once the named (or all linked) devices durably hold all that this one holds now."""
        await self.call("sync.wait", group=group, devices=devices, timeout_s=timeout_s)

    def events(self, kinds: Iterable[str] | None = None) -> EventStream:
        """What happens on the daemon: `async for event in peers.events(kinds=["rows_changed"])`; all kinds when None.

        Entered by `async with` it subscribes at once and ends with the context, which a loop alone does not (EventStream).
        """
        return EventStream(self._connection, None if kinds is None else list(kinds))


@asynccontextmanager
async def open_client(
    socket: str | PathLike[str] | None = None, *, data: str | PathLike[str] | None = None
) -> AsyncGenerator[Peers]:
    """A connection to the daemon, closed at the context's end.

    Args:
        socket: the path of its socket; found as API.md says when None.
        data: the daemon's data folder, where `socket` is None.

    Raises:
        NoDaemon: nothing listens there.
    """
    stream = await connect(resolve_socket_path(socket, data))
    try:
        async with stream, trio.open_nursery() as nursery:
            connection = Connection(stream)
            nursery.start_soon(connection.run)
            try:
                yield Peers(connection)
            finally:
                connection.close()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The nursery is ours and no business of the caller's, who expects the PeersError that the body raised.
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise
