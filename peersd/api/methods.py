"""The methods of the API: per method one handler, which checks the parameters and calls one method of the node."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final, TypeAlias

from peersd.api.jsonrpc import OUR_ERROR, RpcError, invalid_params, method_not_found
from peersd.api.node_api import NodeApi
from peersd.api.parameters import (
    TICKET_CHARACTERS_MAX,
    Parameters,
    checked_sql,
    checked_sql_params,
    suggest,
)
from peersd.api.values import SqlParams
from peersd.errors import PeersdError

INVITE_ROLES: Final = ("owner", "admin", "moderator", "writer", "reader")
INVITE_EXPIRES_IN_S: Final = 604_800
INVITE_EXPIRES_IN_S_MAX: Final = 10 * 365 * 86_400
INVITE_USES_MAX: Final = 1_000_000
QUERY_ROWS: Final = 10_000
QUERY_ROWS_MAX: Final = 1_000_000
SQL_TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 30.0

STATEMENTS_MAX: Final = 10_000
"""Statements of one sql.transaction; rows in bulk go into params_seq (guess)."""

RESERVED: Final = frozenset(
    "group.update group.hide group.leave group.forget group.import member.set_role member.remove ban.add ban.remove ban.list "
    "device.list device.revoke pair.start pair.join pair.confirm sql.subscribe sql.unsubscribe link.disconnect "
    "events.subscribe doctor backup restore service".split()
)
"""Names of API.md that a later version answers."""


@dataclass(frozen=True, slots=True)
class Api:
    """What handlers work on.

    Args:
        node: the node behind the API.
        stop: begins the daemon's orderly end and returns at once.
        started_s: `time.monotonic()` at the daemon's start.
    """

    node: NodeApi
    stop: Callable[[], None]
    started_s: float


Handler: TypeAlias = Callable[[Api, Parameters], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Method:
    """A method: its handler, its parameters' names in order, and whether it changes something.

    What changes something is finished even when its client has gone.
    """

    handler: Handler
    names: tuple[str, ...]
    changes: bool


METHODS: Final[dict[str, Method]] = {}


def _method(name: str, *names: str, changes: bool = False) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        METHODS[name] = Method(handler, (*names, "user"), changes)
        return handler

    return register


class Methods:
    """The dispatcher that the server calls."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def changes(self, method: str) -> bool:
        """Whether a call of this method must finish although its client has gone."""
        known = METHODS.get(method)
        return known is not None and known.changes

    async def call(self, method: str, params: list[object] | dict[str, object] | None) -> object:
        """The result of one call.

        Raises:
            RpcError: what is to be answered instead; a PeersdError of the node becomes -32000 here, its cause chained.
        """
        known = METHODS.get(method)
        if known is None:
            detail = f'no method "{method[:64]}"'
            raise method_not_found(detail, "not in this version" if method in RESERVED else _near(method))
        parameters = Parameters(method, known.names, params)
        try:
            return await known.handler(self._api, parameters)
        except PeersdError as error:
            raise rpc_error(error) from error


def rpc_error(error: PeersdError) -> RpcError:
    """The answer that a PeersdError becomes: -32000 with code, hint, retry and the error's own keys."""
    return RpcError(OUR_ERROR, error.message, {**error.extra, "code": error.code, "hint": error.hint, "retry": error.retry})


def _near(method: str) -> str:
    return suggest(method, METHODS) + "see the methods in docs/operations.md"


@_method("daemon.status")
async def _daemon_status(api: Api, given: Parameters) -> object:
    return {
        "version": version("peersd"),
        "pid": os.getpid(),
        **await api.node.status(),
        "uptime_s": round(time.monotonic() - api.started_s, 3),
    }


@_method("daemon.stop")
async def _daemon_stop(api: Api, given: Parameters) -> object:
    api.stop()
    return {}


@_method("init", "user_name", "device_name", changes=True)
async def _init(api: Api, given: Parameters) -> object:
    return await api.node.init(user_name=given.label("user_name"), device_name=given.optional_label("device_name"))


@_method("group.create", "name", "description", changes=True)
async def _group_create(api: Api, given: Parameters) -> object:
    return await api.node.group_create(
        user=given.selector("user"), name=given.label("name"), description=given.optional_text("description")
    )


@_method("group.list", "include_hidden")
async def _group_list(api: Api, given: Parameters) -> object:
    return await api.node.group_list(user=given.selector("user"), include_hidden=given.flag("include_hidden"))


@_method("group.show", "group")
async def _group_show(api: Api, given: Parameters) -> object:
    return await api.node.group_show(user=given.selector("user"), group=given.selector("group"))


@_method("group.switch", "group", changes=True)
async def _group_switch(api: Api, given: Parameters) -> object:
    return await api.node.group_switch(user=given.selector("user"), group=given.text("group"))


@_method("group.active")
async def _group_active(api: Api, given: Parameters) -> object:
    return await api.node.group_active(user=given.selector("user"))


@_method("invite.create", "group", "role", "expires_in_s", "max_uses", changes=True)
async def _invite_create(api: Api, given: Parameters) -> object:
    return await api.node.invite_create(
        user=given.selector("user"),
        group=given.selector("group"),
        role=given.choice("role", INVITE_ROLES, "writer"),
        expires_in_s=given.integer("expires_in_s", default=INVITE_EXPIRES_IN_S, least=1, most=INVITE_EXPIRES_IN_S_MAX),
        max_uses=given.integer("max_uses", default=1, least=1, most=INVITE_USES_MAX),
    )


@_method("invite.list", "group")
async def _invite_list(api: Api, given: Parameters) -> object:
    return await api.node.invite_list(user=given.selector("user"), group=given.selector("group"))


@_method("invite.revoke", "group", "invite_id", changes=True)
async def _invite_revoke(api: Api, given: Parameters) -> object:
    await api.node.invite_revoke(user=given.selector("user"), group=given.selector("group"), invite_id=given.text("invite_id"))
    return {}


@_method("invite.accept", "ticket", "timeout_s", changes=True)
async def _invite_accept(api: Api, given: Parameters) -> object:
    # Blanks at the ends come from copying out of a chat or a mail.
    ticket = given.text("ticket", characters_max=TICKET_CHARACTERS_MAX).strip()
    return await api.node.invite_accept(user=given.selector("user"), ticket=ticket, timeout_s=given.timeout_s(CONNECT_TIMEOUT_S))


@_method("member.list", "group", "include_left")
async def _member_list(api: Api, given: Parameters) -> object:
    return await api.node.member_list(
        user=given.selector("user"), group=given.selector("group"), include_left=given.flag("include_left")
    )


@_method("sql.query", "group", "sql", "params", "limit", "timeout_s")
async def _sql_query(api: Api, given: Parameters) -> object:
    return await api.node.sql_query(
        user=given.selector("user"),
        group=given.selector("group"),
        sql=given.sql(),
        params=given.sql_params(),
        limit=given.integer("limit", default=QUERY_ROWS, least=1, most=QUERY_ROWS_MAX),
        timeout_s=given.timeout_s(SQL_TIMEOUT_S),
    )


@_method("sql.execute", "group", "sql", "params", "timeout_s", changes=True)
async def _sql_execute(api: Api, given: Parameters) -> object:
    return await api.node.sql_execute(
        user=given.selector("user"),
        group=given.selector("group"),
        sql=given.sql(),
        params=given.sql_params(),
        timeout_s=given.timeout_s(SQL_TIMEOUT_S),
    )


@_method("sql.transaction", "group", "statements", "timeout_s", changes=True)
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
    return sql, [checked_sql_params(one, f"{where}.params_seq[{index}]") for index, one in enumerate(sets)]


@_method("schema.show", "group")
async def _schema_show(api: Api, given: Parameters) -> object:
    return await api.node.schema_show(user=given.selector("user"), group=given.selector("group"))


@_method("link.list")
async def _link_list(api: Api, given: Parameters) -> object:
    return await api.node.link_list(user=given.selector("user"))


@_method("link.connect", "url", "device_id", "timeout_s")
async def _link_connect(api: Api, given: Parameters) -> object:
    return await api.node.link_connect(
        user=given.selector("user"),
        url=given.text("url"),
        device_id=given.selector("device_id"),
        timeout_s=given.timeout_s(CONNECT_TIMEOUT_S),
    )


@_method("sync.status", "group")
async def _sync_status(api: Api, given: Parameters) -> object:
    return await api.node.sync_status(user=given.selector("user"), group=given.selector("group"))


@_method("sync.wait", "group", "devices", "timeout_s")
async def _sync_wait(api: Api, given: Parameters) -> object:
    answer = await api.node.sync_wait(
        user=given.selector("user"),
        group=given.selector("group"),
        devices=given.selectors("devices"),
        timeout_s=given.timeout_s(None),
    )
    return answer or {}
