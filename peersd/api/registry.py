"""What a method is: its handler, its parameters' names, and the tables in which the modules beside this one list theirs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from peersd.api.node_api import Events, NodeApi
from peersd.api.parameters import Parameters


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


class Caller(Protocol):
    """The connection that a call came by, as far as handlers know it."""

    def subscribe(self, events: Events) -> int:
        """Send these events as notifications, from after this call's answer on; the subscription's id on this connection.

        Raises:
            RpcError: the connection has as many as it may have, or ends. The events are closed.
        """
        ...

    def unsubscribe(self, subscription: int) -> bool:
        """End a subscription: none of its notifications follows this call's answer. Whether there was one."""
        ...


Handler: TypeAlias = Callable[[Api, Parameters], Awaitable[object]]
CallerHandler: TypeAlias = Callable[[Api, Parameters, Caller], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Method:
    """A method: its handler, its parameters' names in order, and whether it changes something.

    What changes something is finished even when its client has gone.
    """

    handler: CallerHandler
    names: tuple[str, ...]
    changes: bool


class MethodTable:
    """The methods that one module has."""

    def __init__(self) -> None:
        self.methods: dict[str, Method] = {}

    def method(self, name: str, *names: str, changes: bool = False, acting: str = "user") -> Callable[[Handler], Handler]:
        """Lists the decorated handler.

        Args:
            name: of the method.
            names: of its parameters.
            changes: whether it must finish although its client has gone.
            acting: the parameter, added as the last, that says which of the daemon's users acts.
        """

        def register(handler: Handler) -> Handler:
            async def without_caller(api: Api, given: Parameters, _caller: Caller) -> object:
                return await handler(api, given)

            self.methods[name] = Method(without_caller, (*names, acting), changes)
            return handler

        return register

    def caller_method(self, name: str, *names: str) -> Callable[[CallerHandler], CallerHandler]:
        """Lists the decorated handler, which works on its caller's connection."""

        def register(handler: CallerHandler) -> CallerHandler:
            self.methods[name] = Method(handler, (*names, "user"), changes=False)
            return handler

        return register
