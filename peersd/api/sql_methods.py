"""Methods of a group's rows and tables: SQL, and the schema."""

from __future__ import annotations

from typing import Final

from peersd.api.jsonrpc import invalid_params
from peersd.api.parameters import Parameters, checked_sql, checked_sql_params, suggest
from peersd.api.registry import Api, MethodTable
from peersd.api.values import SqlParams, decode_rows

TABLE: Final = MethodTable()

QUERY_ROWS: Final = 10_000
QUERY_ROWS_MAX: Final = 1_000_000
SQL_TIMEOUT_S: Final = 30.0

STATEMENTS_MAX: Final = 10_000
"""Statements of one sql.transaction; rows in bulk go into params_seq (guess)."""


@TABLE.method("sql.query", "group", "sql", "params", "limit", "timeout_s")
async def _sql_query(api: Api, given: Parameters) -> object:
    return await api.node.sql_query(
        user=given.selector("user"),
        group=given.selector("group"),
        sql=given.sql(),
        params=given.sql_params(),
        limit=given.integer("limit", default=QUERY_ROWS, least=1, most=QUERY_ROWS_MAX),
        timeout_s=given.timeout_s(SQL_TIMEOUT_S),
    )


@TABLE.method("sql.execute", "group", "sql", "params", "timeout_s", changes=True)
async def _sql_execute(api: Api, given: Parameters) -> object:
    return await api.node.sql_execute(
        user=given.selector("user"),
        group=given.selector("group"),
        sql=given.sql(),
        params=given.sql_params(),
        timeout_s=given.timeout_s(SQL_TIMEOUT_S),
    )


@TABLE.method("sql.transaction", "group", "statements", "timeout_s", changes=True)
async def _sql_transaction(api: Api, given: Parameters) -> object:
    return await api.node.sql_transaction(
        user=given.selector("user"),
        group=given.selector("group"),
        statements=_statements(given.array("statements")),
        timeout_s=given.timeout_s(SQL_TIMEOUT_S),
    )


def _statements(listed: list[object]) -> list[tuple[str, list[SqlParams]]]:
    if not 1 <= len(listed) <= STATEMENTS_MAX:
        hint = "rows in bulk go into params_seq of one statement"
        raise invalid_params(f"statements must be 1 to {STATEMENTS_MAX} in number", hint, parameter="statements")
    return [_statement(item, f"statements[{index}]") for index, item in enumerate(listed)]


def _statement(item: object, where: str) -> tuple[str, list[SqlParams]]:
    takes = 'a statement is {"sql": "…", "params": […]} or {"sql": "…", "params_seq": [[…], …]}'
    if not isinstance(item, dict):
        raise invalid_params(f"{where} must be an object", takes, parameter="statements")
    for name in item:
        if name not in ("sql", "params", "params_seq"):
            detail = f'{where} has an unknown key "{name[:64]}"'
            raise invalid_params(detail, suggest(name, ("sql", "params", "params_seq")) + takes, parameter="statements")
    sql = checked_sql(item.get("sql"), f"{where}.sql")
    sets = item.get("params_seq")
    if sets is None:
        return sql, [checked_sql_params(item.get("params"), f"{where}.params")]
    if item.get("params") is not None:
        raise invalid_params(f"{where} has both params and params_seq", takes, parameter="statements")
    if not isinstance(sets, list):
        raise invalid_params(f"{where}.params_seq must be a list of lists", takes, parameter="statements")
    try:
        return sql, decode_rows(sets)
    except ValueError:
        # Once more, to say which was wrong.
        return sql, [checked_sql_params(one, f"{where}.params_seq[{index}]") for index, one in enumerate(sets)]


@TABLE.method("schema.show", "group")
async def _schema_show(api: Api, given: Parameters) -> object:
    return await api.node.schema_show(user=given.selector("user"), group=given.selector("group"))
