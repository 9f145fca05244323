"""The methods of the API all together, and the dispatcher: from a request's name to its handler and back with its errors."""

from __future__ import annotations

from typing import Final

from peersd.api import device_methods, event_methods, group_methods, membership_methods, sql_methods
from peersd.api.jsonrpc import OUR_ERROR, RpcError, method_not_found
from peersd.api.parameters import Parameters, suggest
from peersd.api.registry import Api, Caller, Method
from peersd.errors import PeersdError

__all__ = ["METHODS", "RESERVED", "Api", "Methods", "rpc_error"]

RESERVED: Final = frozenset(
    "group.import device.revoke pair.start pair.join pair.confirm sql.subscribe sql.unsubscribe doctor backup restore "
    "service".split()
)
"""Names that a later version answers."""

METHODS: Final[dict[str, Method]] = {
    **device_methods.TABLE.methods,
    **group_methods.TABLE.methods,
    **membership_methods.TABLE.methods,
    **sql_methods.TABLE.methods,
    **event_methods.TABLE.methods,
}


class Methods:
    """The dispatcher that the server calls."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def changes(self, method: str) -> bool:
        """Whether a call of this method must finish although its client has gone."""
        known = METHODS.get(method)
        return known is not None and known.changes

    async def call(self, method: str, params: list[object] | dict[str, object] | None, caller: Caller) -> object:
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
            return await known.handler(self._api, parameters, caller)
        except PeersdError as error:
            raise rpc_error(error) from error


def rpc_error(error: PeersdError) -> RpcError:
    """The answer that a PeersdError becomes: -32000 with code, hint, retry and the error's own keys."""
    return RpcError(OUR_ERROR, error.message, {**error.extra, "code": error.code, "hint": error.hint, "retry": error.retry})


def _near(method: str) -> str:
    return suggest(method, METHODS) + "see the methods in docs/operations.md"
