"""The registry of a user's groups: a table of the personal group, so that it syncs to the user's devices like anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from peersd.store.handle import StoreHandle
from peersd_protocol.acts import SchemaAct, encode_body
from peersd_protocol.entries import Kind
from peersd_protocol.schema import Default, Schema
from peersd_protocol.schema_ops import DEFAULT_LITERAL, DEFAULT_NONE, ColumnDef, CreateTable

TABLE: Final = "peers_groups"

_NO_DEFAULT: Final = Default(DEFAULT_NONE)

_COLUMNS: Final = (
    ColumnDef("group_id", "TEXT", _NO_DEFAULT, True, None),
    ColumnDef("name", "TEXT", _NO_DEFAULT, False, None),
    ColumnDef("joined_at_ms", "INTEGER", _NO_DEFAULT, False, None),
    ColumnDef("hidden", "INTEGER", Default(DEFAULT_LITERAL, 0), True, None),
    ColumnDef("left_at_ms", "INTEGER", _NO_DEFAULT, False, None),
)
"""`name` is what it was when the row was written; times are milliseconds since 1970; `hidden` is 0 or 1."""


def is_created(schema: Schema) -> bool:
    """Whether the table is there."""
    return any(table.name == TABLE for table in schema.tables)


async def create_registry(personal: StoreHandle, user: bytes) -> None:
    """Makes the table; the personal group's first schema act."""
    act = SchemaAct((CreateTable(TABLE, _COLUMNS, (0,), False, False),))
    await personal.act(user, Kind.CONTROL, encode_body(act))


async def register(personal: StoreHandle, user: bytes, group_id: str, name: str, joined_at_ms: int) -> None:
    """Enters a group that was made or joined, or enters it again, which shows it if it was hidden."""
    sql = f"""INSERT INTO {TABLE} (group_id, name, joined_at_ms) VALUES (?, ?, ?)
        ON CONFLICT DO UPDATE SET name = excluded.name, joined_at_ms = excluded.joined_at_ms, hidden = 0, left_at_ms = NULL"""
    await personal.write_own(user, [(sql, (group_id, name, joined_at_ms))])


async def rename(personal: StoreHandle, user: bytes, group_id: str, name: str) -> None:
    """Notes what a group is called now."""
    await personal.write_own(user, [(f"UPDATE {TABLE} SET name = ? WHERE group_id = ?", (name, group_id))])


async def hide(personal: StoreHandle, user: bytes, group_id: str, *, hidden: bool) -> None:
    """Hides a group from lists, or shows it again."""
    await personal.write_own(user, [(f"UPDATE {TABLE} SET hidden = ? WHERE group_id = ?", (int(hidden), group_id))])


async def note_left(personal: StoreHandle, user: bytes, group_id: str, left_at_ms: int) -> None:
    """Notes that the user is no member any more; the row stays."""
    sql = f"UPDATE {TABLE} SET left_at_ms = ? WHERE group_id = ? AND left_at_ms IS NULL"
    await personal.write_own(user, [(sql, (left_at_ms, group_id))])


async def forget(personal: StoreHandle, user: bytes, group_id: str) -> None:
    """Takes a group out of the registry."""
    await personal.write_own(user, [(f"DELETE FROM {TABLE} WHERE group_id = ?", (group_id,))])


@dataclass(frozen=True, slots=True)
class Registration:
    """What the registry says of a group.

    Attributes:
        name: what it was called when the row was written last.
        hidden: whether it is left out of lists.
        left_at_ms: when the user ceased to be a member, milliseconds since 1970, or None.
    """

    name: str
    hidden: bool = False
    left_at_ms: int | None = None


async def registered(personal: StoreHandle) -> dict[str, Registration]:
    """The groups that the user is or was in, by their ids as text; oldest first."""
    sql = f"SELECT group_id, name, hidden, left_at_ms FROM {TABLE} ORDER BY joined_at_ms, group_id"
    answer = await personal.query(sql, None, rows_max=100_000, timeout_s=30.0)
    return {
        str(group_id): Registration(str(name), bool(hidden), left_at_ms if isinstance(left_at_ms, int) else None)
        for group_id, name, hidden, left_at_ms in answer.rows
    }
