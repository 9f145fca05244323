"""Methods of what happens: subscriptions to the node's events, which then come as notifications."""

from __future__ import annotations

from typing import Final

from peersd.api.jsonrpc import invalid_params
from peersd.api.node_api import EVENT_KINDS
from peersd.api.parameters import Parameters
from peersd.api.registry import Api, Caller, MethodTable

TABLE: Final = MethodTable()


@TABLE.caller_method("events.subscribe", "kinds")
async def _events_subscribe(api: Api, given: Parameters, caller: Caller) -> object:
    kinds = given.choices("kinds", EVENT_KINDS)
    return {"subscription": caller.subscribe(await api.node.events_open(kinds=kinds))}


@TABLE.caller_method("events.unsubscribe", "subscription")
async def _events_unsubscribe(api: Api, given: Parameters, caller: Caller) -> object:
    subscription = given.integer("subscription", default=None, least=1, most=2**53)
    if not caller.unsubscribe(subscription):
        hint = "a subscription belongs to the connection that made it, and ends with it"
        raise invalid_params(f"no subscription {subscription} on this connection", hint, parameter="subscription")
    return {}
