"""The subscriptions of one connection: events of the node become notifications among the answers.

Bounded at each step: the node keeps so many events for a subscription and then tells that some are lost, a subscription has
one line that waits for the outbox, the outbox has a bound in bytes, and who takes nothing of it for long is cut off.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from peersd.api.jsonrpc import OUR_ERROR, RpcError, encode_notification, stopping
from peersd.api.node_api import Events

SUBSCRIPTIONS_MAX: Final = 16
"""Subscriptions of one connection at once: there are fewer kinds of events (guess)."""


class Subscription:
    """One subscription: its events, and the scope whose end is its end."""

    def __init__(self, number: int, events: Events) -> None:
        self.number = number
        self.events = events
        self.scope = trio.CancelScope()


class Subscriptions:
    """All subscriptions of one connection.

    Args:
        send: takes a notification's line, waiting while there is no room.
    """

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._send = send
        self._last_number = 0
        self._open: dict[int, Subscription] = {}
        self._ended = False

    def add(self, events: Events) -> Subscription:
        """A subscription to these events; `forward` is to run for it, whatever happens meanwhile.

        Raises:
            RpcError: `busy`, there are too many or `end_all` was called; the events are closed.
        """
        if self._ended or len(self._open) >= SUBSCRIPTIONS_MAX:
            events.close()
            raise stopping() if self._ended else too_many_subscriptions()
        self._last_number += 1
        subscription = self._open[self._last_number] = Subscription(self._last_number, events)
        return subscription

    def end(self, number: int) -> bool:
        """End one; whether there was one. It may have handed a line to `send` before, and hands it none after."""
        subscription = self._open.pop(number, None)
        if subscription is None:
            return False
        subscription.scope.cancel()
        return True

    def end_all(self) -> None:
        """End all, and admit no more."""
        self._ended = True
        for number in list(self._open):
            self.end(number)

    async def forward(self, subscription: Subscription) -> None:
        """Send the events as notifications until the subscription's end, and close them."""
        try:
            with subscription.scope:
                while True:
                    event = await subscription.events.receive()
                    params = {**event, "subscription": subscription.number}
                    await self._send(encode_notification("event", params))
        finally:
            self._open.pop(subscription.number, None)
            subscription.events.close()


class RequestCaller:
    """The connection as the handlers of one line's requests see it.

    Its subscriptions are kept in `opened` until the line is answered: a client must know a subscription's number before its
    first notification.
    """

    def __init__(self, subscriptions: Subscriptions) -> None:
        self._subscriptions = subscriptions
        self.opened: list[Subscription] = []

    def subscribe(self, events: Events) -> int:
        """As `Caller.subscribe`."""
        subscription = self._subscriptions.add(events)
        self.opened.append(subscription)
        return subscription.number

    def unsubscribe(self, subscription: int) -> bool:
        """As `Caller.unsubscribe`."""
        return self._subscriptions.end(subscription)


def too_many_subscriptions() -> RpcError:
    """The answer to one subscription too many."""
    hint = "end one with events.unsubscribe; one subscription can have all kinds of events"
    data: dict[str, object] = {"code": "busy", "hint": hint, "retry": False}
    return RpcError(OUR_ERROR, f"a connection has at most {SUBSCRIPTIONS_MAX} subscriptions", data)
