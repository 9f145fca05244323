"""How many sockets may be in their handshake at once, and whose (DESIGN 5, SPEC: L-10).

No more than SOCKETS_UNAUTHENTICATED_MAX in all. No more than SOCKETS_PER_ADDRESS_MAX of one address take part in a handshake;
more of it queue. When all places are taken, a queueing socket of the address with the most sockets gives way to one of an
address with fewer, so that one address cannot keep the others out.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Collection

import trio

from peersd.net.transport import Place
from peersd_protocol.constants import SOCKETS_PER_ADDRESS_MAX, SOCKETS_UNAUTHENTICATED_MAX


class NoPlace(Exception):
    """All places are taken by others."""


class _TakenPlace(Place):
    """A place among the unauthenticated sockets.

    Attributes:
        origin: whose it is: an address, or for IPv6 its /64 network, which one machine can use up freely.
        turn: set when the socket may begin its handshake.
        scope: cancelled when the place is taken away.
    """

    def __init__(self, admission: Admission, origin: str) -> None:
        self._admission = admission
        self.origin = origin
        self.turn = trio.Event()
        self.scope = trio.CancelScope()

    def leave(self) -> None:
        """Gives the place up. May be called again."""
        self._admission.leave(self)


class Admission:
    """The places of one listener.

    Args:
        trusted: addresses of proxies, which speak for many devices; like loopback they have no limit of their own.
    """

    def __init__(self, trusted: Collection[str] = ()) -> None:
        self._trusted = frozenset(_origin(address) for address in trusted)
        self._places: dict[str, list[_TakenPlace]] = defaultdict(list)
        self._count = 0

    @property
    def taken(self) -> int:
        """Sockets in their handshake or waiting for it."""
        return self._count

    async def enter(self, address: str) -> Place:
        """Takes a place and waits until the socket may begin its handshake. The caller gives it up by `leave`, however it ends.

        Raises:
            NoPlace: all places are taken, or this one was taken away while it queued.
        """
        place = self._take(_origin(address))
        if not place.turn.is_set():
            try:
                with place.scope:
                    await place.turn.wait()
            finally:
                if not place.turn.is_set():
                    place.leave()
            if not place.turn.is_set():
                raise NoPlace
        return place

    def _take(self, origin: str) -> _TakenPlace:
        if self._count >= SOCKETS_UNAUTHENTICATED_MAX:
            self._make_room(origin)
        place = _TakenPlace(self, origin)
        self._places[origin].append(place)
        self._count += 1
        if self._is_exempt(origin) or len(self._places[origin]) <= SOCKETS_PER_ADDRESS_MAX:
            place.turn.set()
        return place

    def _make_room(self, origin: str) -> None:
        crowd = max(self._places.values(), key=len)
        last = crowd[-1]
        if last.turn.is_set() or len(crowd) <= len(self._places.get(origin, ())) + 1:
            raise NoPlace
        last.scope.cancel()
        self.leave(last)

    def leave(self, place: _TakenPlace) -> None:
        """Frees a place; the next socket of the same address has its turn."""
        places = self._places.get(place.origin, [])
        if place not in places:
            return
        places.remove(place)
        self._count -= 1
        if not places:
            del self._places[place.origin]
        for waiting in places[:SOCKETS_PER_ADDRESS_MAX]:
            waiting.turn.set()

    def _is_exempt(self, origin: str) -> bool:
        return origin in self._trusted or ipaddress.ip_network(origin).is_loopback


def _origin(address: str) -> str:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    prefix_bits = 64 if parsed.version == 6 and not parsed.is_loopback else parsed.max_prefixlen
    return str(ipaddress.ip_network((parsed, prefix_bits), strict=False))
