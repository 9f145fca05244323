"""A network in memory under virtual time: hosts that dial each other, and whatever can happen between them.

Every host has an address and one path to each other host. The seed decides what happens, and whoever calls the faults here.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import combinations, permutations
from typing import Final

import trio

from peersd.errors import PeersdError
from peersd.net.listener import Opening
from peersd.net.transport import Transport, parse_link_url
from peersd.testing.swarm.listening import SPEAKER
from peersd.testing.swarm.naming import check_known, check_sides
from peersd.testing.swarm.tapping import Tap
from peersd.testing.swarm.wires import Conditions, Path, Wire
from peersd.testing.transports import MemoryTransport, open_memory

PORT: Final = 7330
"""What port 0 becomes."""

TRACE_LINES_MAX: Final = 2000
"""Lines of what happened that are kept to be shown; the hash is over all."""

_HINT: Final = "The network of the swarm says so."

Serve = Callable[[Opening], Awaitable[None]]


class Trace:
    """What happened, as a hash over all and as text of the last: two runs that did the same have the same hash."""

    def __init__(self) -> None:
        self._start_s = trio.current_time()
        self._hash = hashlib.sha256()
        self._lines: deque[str] = deque(maxlen=TRACE_LINES_MAX)

    def note(self, line: str) -> None:
        """Something happened now that is worth showing."""
        line = f"{self.now_ms():12.3f} {line}"
        self._lines.append(line)
        self._hash.update(line.encode())

    def note_message(self, wire: str, size: int) -> None:
        """A message was read: it counts, and is not shown."""
        self._hash.update(f"{self.now_ms():.3f} {wire} {size}".encode())

    def now_ms(self) -> float:
        """Virtual milliseconds since the beginning."""
        return (trio.current_time() - self._start_s) * 1000

    def digest(self) -> str:
        """The hash so far."""
        return self._hash.hexdigest()

    def lines(self) -> list[str]:
        """The last of what happened, each with its virtual time in ms."""
        return list(self._lines)


@dataclass(eq=False)
class Connection:
    """A connection.

    Attributes:
        dialler, listener: the hosts' sockets.
        wires: from the dialler to the listener, and back.
        ends_closed: how many of the two ends are closed.
        is_dead: nothing passes any more, and who has not closed its end does not know.
    """

    dialler: Sockets
    listener: Sockets
    wires: tuple[Wire, Wire]
    ends_closed: int = 0
    is_dead: bool = False

    def joins(self, one: str, other: str) -> bool:
        """Whether it is one between these two hosts."""
        return {self.dialler.host, self.listener.host} == {one, other}


@dataclass(frozen=True)
class _Listening:
    """A host's listener: who serves, and where."""

    sockets: Sockets
    serve: Serve
    nursery: trio.Nursery


class Sockets:
    """The network as one process on a host has it; see peersd.node.environment.Network. It ends with the process.

    Args:
        network: the whole.
        host: the host's name.
    """

    def __init__(self, network: VirtualNetwork, host: str) -> None:
        self.host = host
        self.is_dead = False
        self._network = network

    @asynccontextmanager
    async def dial(self, url: str, timeout_s: float) -> AsyncGenerator[Transport]:
        """See Network."""
        parts = parse_link_url(url)
        network, transport = self._network, None
        with trio.move_on_after(timeout_s):
            listening = await network.reach(self, parts.hostname or "", parts.port or 0)
            if listening is None:
                message = f"cannot reach {url}: Connection refused"
                raise PeersdError("unreachable", message, hint=_HINT, retry=True)
            transport = network.connect(self, listening, url)
        if transport is None:
            raise PeersdError("timeout", f"{url} did not answer within {timeout_s:g} s", hint=_HINT, retry=True)
        async with open_memory(transport):
            yield transport

    @asynccontextmanager
    async def listen(self, urls: Sequence[str], serve: Serve) -> AsyncGenerator[tuple[str, ...]]:
        """See Network. Whatever address is asked for, the host's own is listened on."""
        ports = {parse_link_url(url).port or PORT for url in urls}
        address = self._network.address_of(self.host)
        async with trio.open_nursery() as nursery:
            for port in ports:
                self._network.listening[address, port] = _Listening(self, serve, nursery)
            try:
                yield tuple(f"ws://{address}:{port}" for port in sorted(ports))
            finally:
                for port in ports:
                    if self._network.listening.get((address, port), None) is not None and not self.is_dead:
                        del self._network.listening[address, port]
                nursery.cancel_scope.cancel()

    def reachable_at(self, listen_urls: Iterable[str]) -> list[str]:
        """See Network."""
        return list(listen_urls)


class VirtualNetwork:
    """All hosts and what is between them.

    Args:
        seed: of all delays.
        conditions: of every path until `set_conditions`.

    Attributes:
        trace: what happened.
        listening: by address and port.
        connections: those that have not ended.
        open_tap: called with the host that dialled and the other one for each connection; None where nobody reads along.
        noticed_s: the virtual time at which a dead connection was last noticed by whoever still held it.
    """

    def __init__(self, seed: int, conditions: Conditions | None = None) -> None:
        self.trace = Trace()
        self.listening: dict[tuple[str, int], _Listening] = {}
        self.connections: dict[Connection, None] = {}
        self.open_tap: Callable[[str, str], Tap] | None = None
        self.noticed_s = 0.0
        self._seed = seed
        self._conditions = conditions or Conditions()
        self._paths: dict[tuple[str, str], Path] = {}
        self._addresses: dict[str, str] = {}
        self._hosts: dict[str, str] = {}
        self._refusing: set[str] = set()
        self._gone: set[str] = set()
        self._returned = trio.Event()

    # --- Hosts ------------------------------------------------------------------------------------------------------------------

    def open_sockets(self, host: str) -> Sockets:
        """The network for a new process on a host; a host that was not there is put up."""
        if host not in self._addresses:
            number = len(self._addresses) + 1
            self._addresses[host] = f"10.0.{number // 250}.{number % 250 + 1}"
            self._hosts[self._addresses[host]] = host
        self._gone.discard(host)
        self._returned.set()
        self._returned = trio.Event()
        return Sockets(self, host)

    def address_of(self, host: str) -> str:
        """A host's address."""
        return self._addresses[host]

    def url_of(self, host: str) -> str:
        """Where a host is listened on by default."""
        return f"ws://{self.address_of(host)}:{PORT}"

    def path(self, start: str, end: str) -> Path:
        """The path from one host to another."""
        if (start, end) not in self._paths:
            self._paths[start, end] = Path(self._conditions, f"{self._seed} {start} {end}")
        return self._paths[start, end]

    # --- Dials ------------------------------------------------------------------------------------------------------------------

    async def reach(self, dialler: Sockets, address: str, port: int) -> _Listening | None:
        """Finds who listens at an address, in one round trip; None if nobody does."""
        host = self._hosts.get(address)
        self.trace.note(f"{dialler.host} dials {host or address}")
        if host is None or dialler.is_dead or host == dialler.host:
            await trio.sleep(self._conditions.latency_ms[1] / 1000)
            return None
        await self.path(dialler.host, host).cross()
        while host in self._gone:  # what asks for a connection is sent again, until the dial's time is over
            await self._returned.wait()
        listening = None if host in self._refusing else self.listening.get((address, port))
        await self.path(host, dialler.host).cross()
        return None if listening is None or listening.sockets.is_dead or dialler.is_dead else listening

    def connect(self, dialler: Sockets, listening: _Listening, url: str) -> MemoryTransport:
        """Makes a connection and has it served; returns the dialler's end."""
        start, end = dialler.host, listening.sockets.host
        there, back = self.path(start, end), self.path(end, start)
        wires = (
            Wire(there, back, lambda size: self.trace.note_message(f"{start}>{end}", size)),
            Wire(back, there, lambda size: self.trace.note_message(f"{end}>{start}", size)),
        )
        connection = Connection(dialler, listening.sockets, wires)
        self.connections[connection] = None
        self.trace.note(f"{start} is connected with {end}")
        tap = self.open_tap(start, end) if self.open_tap is not None else None
        near, far = (_Receiving(wire, partial(self._note_closed, connection)) for wire in reversed(wires))
        listening.nursery.start_soon(
            self._serve, listening, MemoryTransport(_Sending(wires[1], tap, by_dialler=False), far, self.url_of(start))
        )
        return MemoryTransport(_Sending(wires[0], tap, by_dialler=True), near, url)

    async def _serve(self, listening: _Listening, transport: MemoryTransport) -> None:
        SPEAKER.set(listening.sockets.host)  # it was the dialler's task that came here
        try:
            await listening.serve(open_memory(transport))
        finally:
            await transport.aclose()  # it need not have been opened

    def _note_closed(self, connection: Connection) -> None:
        """One of the ends of a connection was closed."""
        connection.ends_closed += 1
        if connection.ends_closed == 1:
            self.trace.note(f"{connection.dialler.host}-{connection.listener.host} is closed")
            return
        self.connections.pop(connection, None)
        if connection.is_dead:
            self.noticed_s = trio.current_time()
        for wire in connection.wires:
            wire.close()

    # --- Faults -----------------------------------------------------------------------------------------------------------------

    def set_conditions(self, conditions: Conditions, *, hosts: Collection[str] | None = None) -> None:
        """Sets what the paths are like between all hosts, or those between these and the rest of them all."""
        check_known("device", [] if hosts is None else hosts, self._addresses)
        for start, end in permutations(self._addresses, 2):
            if hosts is None or start in hosts or end in hosts:
                self.path(start, end).conditions = conditions
        if hosts is None:
            self._conditions = conditions

    def partition(self, *sides: Collection[str], one_way: bool = False) -> None:
        """Cuts the hosts of each side off from those of the others; connections stay and carry nothing until `heal`.

        Args:
            sides: hosts that are in none reach everybody.
            one_way: packets from an earlier side do not reach a later one; those in the other direction arrive.

        Raises:
            ValueError: it separates nobody, or a name is unknown; so it is with the other faults.
        """
        check_sides(sides, self._addresses)
        self.trace.note(f"partition{' one way' * one_way}: {' | '.join(','.join(side) for side in sides)}")
        for one, other in combinations(sides, 2):
            for start in one:
                for end in other:
                    self._block(start, end)
                    if not one_way:
                        self._block(end, start)

    def _block(self, start: str, end: str) -> None:
        path = self.path(start, end)
        path.is_blocked = True
        path.tell_changed()

    def clog(self, host: str, *, from_: Collection[str] | None = None) -> None:
        """A host reads nothing of what reaches it, from these others or from all, until `heal`."""
        check_known("device", [host], self._addresses)
        check_known("device", [] if from_ is None else from_, self._addresses)
        self.trace.note(f"{host} is clogged")
        for start in self._addresses if from_ is None else from_:
            if start != host:
                path = self.path(start, host)
                path.is_clogged = True
                path.tell_changed()

    def refuse(self, host: str) -> None:
        """Dials of a host are refused until `heal`; connections stay."""
        check_known("device", [host], self._addresses)
        self.trace.note(f"{host} refuses")
        self._refusing.add(host)

    def heal(self) -> None:
        """Ends all partitions, clogging and refusals. What was held back arrives."""
        self.trace.note("heal")
        self._refusing.clear()
        for path in self._paths.values():
            if not path.is_open:
                path.is_blocked = path.is_clogged = False
                path.tell_changed()

    def break_links(self, one: str, other: str) -> int:
        """Breaks all connections between two hosts, of which both learn; returns how many there were."""
        return self._break(one, other, Wire.break_, is_dead=False)

    def sever_links(self, one: str, other: str) -> int:
        """The same without anybody's learning of it: only their pings tell. New dials succeed."""
        return self._break(one, other, Wire.sever, is_dead=True)

    def _break(self, one: str, other: str, how: Callable[[Wire], None], *, is_dead: bool) -> int:
        check_known("device", [one, other], self._addresses)
        if one == other:
            raise ValueError(f"{one!r} has no links to itself: two devices are needed.")
        found = [connection for connection in self.connections if connection.joins(one, other)]
        self.trace.note(f"{how.__name__.strip('_')} {one}-{other}: {len(found)}")
        for connection in found:
            connection.is_dead |= is_dead
            for wire in connection.wires:
                how(wire)
        return len(found)

    def end_process(self, sockets: Sockets, *, silently: bool) -> None:
        """A process is gone: nothing that it still does reaches anybody.

        Args:
            sockets: its network.
            silently: with its machine, so that others hear nothing; else its connections are closed by the system.
        """
        self.trace.note(f"{sockets.host} is gone{' silently' * silently}")
        sockets.is_dead = True
        if silently:
            self._gone.add(sockets.host)
        for key in [key for key, listening in self.listening.items() if listening.sockets is sockets]:
            del self.listening[key]
        for connection in [one for one in self.connections if sockets in (one.dialler, one.listener)]:
            outgoing, incoming = connection.wires if connection.dialler is sockets else reversed(connection.wires)
            incoming.stop_reading()
            connection.is_dead |= silently
            if silently:
                incoming.sever()
                outgoing.sever()
            else:
                incoming.break_()
            outgoing.end()

    # --- Looking ----------------------------------------------------------------------------------------------------------------

    @property
    def has_dead_links(self) -> bool:
        """Whether anybody still takes a connection for alive that is not: until its pings were missed, or a new one came."""
        return any(connection.is_dead for connection in self.connections)

    def connected(self, one: str, other: str) -> int:
        """How many connections there are between two hosts."""
        return sum(connection.joins(one, other) for connection in self.connections)

    def wires(self) -> Iterator[Wire]:
        """All wires of all connections."""
        for connection in self.connections:
            yield from connection.wires


class _Sending:
    """A wire's sending end."""

    def __init__(self, wire: Wire, tap: Tap | None, *, by_dialler: bool) -> None:
        self._wire = wire
        self._tap = tap
        self._by_dialler = by_dialler
        self.close = wire.end

    async def send(self, message: bytes, /) -> None:
        """See Wire."""
        if self._tap is not None:
            self._tap.note(message, by_dialler=self._by_dialler)
        await self._wire.send(message)


class _Receiving:
    """A wire's receiving end."""

    def __init__(self, wire: Wire, closed: Callable[[], None]) -> None:
        self.receive = wire.receive
        self._wire = wire
        self._closed = closed
        self._is_closed = False

    def close(self) -> None:
        """Nothing more is read."""
        if not self._is_closed:
            self._is_closed = True
            self._wire.stop_reading()
            self._closed()
