"""SQL of applications: queries, writes, transactions, schema (API: sql.*, schema.show)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from peersd.errors import PeersdError
from peersd.node.kept_store import Opened
from peersd.store.batch import Request, Success
from peersd.store.client_sql import Statement
from peersd.store.ddl import create_table_sql, default_sql
from peersd.store.recorder import LastEntry
from peersd.store.statements import Bound, Params
from peersd.store.store import Write
from peersd_protocol import ids
from peersd_protocol.acts import SchemaAct, encode_body
from peersd_protocol.entries import Kind
from peersd_protocol.schema import Schema


async def query(group: Opened, sql: str, params: Params, limit: int, timeout_s: float) -> Mapping[str, Any]:
    """sql.query."""
    answer = await group.store.query(sql, params, limit, timeout_s)
    return {"columns": answer.columns, "rows": answer.rows, "truncated": answer.truncated}


async def execute(user: bytes, group: Opened, sql: str, params: Params, timeout_s: float) -> Mapping[str, Any]:
    """sql.execute: one write, or one schema statement.

    Tried as a write first, since that is what it is nearly always: the sandbox tells the other kind apart before anything runs.
    """
    request = Request([Statement(sql, params)], group.store.deadline_s(timeout_s))
    try:
        done = await group.store.write(Write(user, request))
    except PeersdError as error:
        # SQLite fails some of them in its own words before the sandbox is asked, such as VACUUM within a transaction; and who
        # may not write at all must be told the role that changes the schema, not the one that writes.
        is_unclear = error.code in ("sql_error", "not_allowed")
        about_schema = error.code == "schema_refused" or (is_unclear and await group.store.is_schema(sql, params))
        if not about_schema:
            raise
        return await _change_schema(user, group, sql)
    result = done.results[0]
    answer = {"changes": result.changes, "columns": result.columns, "rows": result.rows, "last_entry": _last_entry(done)}
    if done.recorded is None and await group.store.is_schema(sql, params):
        return {**answer, "schema_version": group.state.schema.version}  # such as CREATE TABLE IF NOT EXISTS of one that exists
    return answer


async def _change_schema(user: bytes, group: Opened, sql: str) -> Mapping[str, Any]:
    ops = await group.store.call(group.store.store.plan_schema, user, sql)
    last_entry = None
    if ops:
        header = await group.store.act(user, Kind.CONTROL, encode_body(SchemaAct(tuple(ops))))
        last_entry = _entry(header.device, header.epoch, header.seq, header.hlc)
    return {
        "changes": 0,
        "columns": [],
        "rows": [],
        "last_entry": last_entry,
        "schema_version": group.state.schema.version,
    }


async def transaction(
    user: bytes, group: Opened, statements: Sequence[tuple[str, Sequence[Bound]]], timeout_s: float
) -> Mapping[str, Any]:
    """sql.transaction: all or nothing, one entry."""
    listed = [
        Statement(sql, param_sets[0]) if len(param_sets) == 1 else Statement(sql, params_seq=param_sets)
        for sql, param_sets in statements
    ]
    done = await group.store.write(Write(user, Request(listed, group.store.deadline_s(timeout_s))))
    return {"changes": [result.changes for result in done.results], "last_entry": _last_entry(done)}


def _last_entry(done: Success) -> Mapping[str, Any] | None:
    if not isinstance(done.recorded, LastEntry):
        return None
    last = done.recorded
    return _entry(last.device, last.epoch, last.seq, last.hlc)


def _entry(device: bytes, epoch: bytes, seq: int, hlc: int) -> Mapping[str, Any]:
    return {"writer": _writer_name(device, epoch), "seq": seq, "hlc": hlc}


@lru_cache(maxsize=256)  # one for each group that is written in
def _writer_name(device: bytes, epoch: bytes) -> str:
    return f"{ids.format_id(ids.DEVICE, device)}/{epoch.hex()}"


def schema(evaluated: Schema) -> Mapping[str, Any]:
    """schema.show."""
    tables = []
    for table in evaluated.tables:
        columns = [
            {
                "name": column.name,
                "type": column.type,
                "key": table.key.index(position) + 1 if position in table.key else 0,
                "default": default_sql(column.default).removeprefix(" DEFAULT ") or None,
                "not_null": column.not_null or position in table.key,
            }
            for position, column in enumerate(table.columns)
        ]
        names = {column.id: column.name for column in table.columns}
        indexes = [
            {"name": index.name, "columns": [{"name": names[column], "desc": desc} for column, desc in index.columns]}
            for index in evaluated.indexes
            if index.table == table.id
        ]
        tables.append({"name": table.name, "columns": columns, "indexes": indexes, "sql": create_table_sql(table)})
    return {"schema_version": evaluated.version, "tables": tables}
