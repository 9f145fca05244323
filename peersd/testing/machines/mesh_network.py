"""Many devices that decide on their links by the machines that ship, under virtual time and with seeded delays."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

from peersd_protocol.dialing import CancelTimer, Dial, Dialing, Effect, SetTimer
from peersd_protocol.errors import CloseCode
from peersd_protocol.mesh import LinkView, Mesh, MeshView

Members = Mapping[bytes, Collection[bytes]]

QUIET_MS = 180_000
"""A network in which no link changed for three times the longest wait between dials has settled."""

STEPS_MAX = 2_000_000


def device_id(number: int) -> bytes:
    """A device's id: 32 bytes."""
    return number.to_bytes(4, "big") * 8


def user_id(number: int) -> bytes:
    """A user's id: 32 bytes."""
    return b"user" + number.to_bytes(28, "big")


class Device:
    """One device: its mesh, its dials, its links."""

    def __init__(self, network: Network, device: bytes, links_max: int) -> None:
        self.network = network
        self.id = device
        self.links_max = links_max
        self.mesh = Mesh(device)
        self.dialing = Dialing()
        self.links: dict[bytes, LinkView] = {}
        self.timers: dict[bytes, int] = {}
        self.reached: set[bytes] = set()
        self.pinned: tuple[bytes, ...] = ()
        self.denied: frozenset[bytes] = frozenset()
        self.is_up = True
        self.decides_at_ms: int | None = None

    def view(self) -> MeshView:
        """What the device knows now."""
        network = self.network
        groups = network.groups_of(self.id)
        known = {device for members in groups.values() for devices in members.values() for device in devices} | {*self.pinned}
        return MeshView(
            own_users=network.users_of(self.id),
            groups=groups,
            links=dict(self.links),
            reachable=known - {self.id},
            reached=self.reached,
            failing=self.dialing.failing,
            refused=self.dialing.refused,
            pinned=self.pinned,
            denied=self.denied,
            links_max=self.links_max,
        )

    def decide(self) -> None:
        """Asks the mesh, ends links and dials as it says."""
        self.decides_at_ms = None
        decision = self.mesh.decide(self.view(), self.network.now_ms)
        for device, code in decision.close:
            self.network.close(self, device, code)
        reachable = self.view().reachable
        self.perform(self.dialing.want_only({device: ["ws://x"] for device in decision.wanted if device in reachable}))
        if decision.again_at_ms is not None:
            self.wake(at_ms=decision.again_at_ms)

    def wake(self, at_ms: int | None = None) -> None:
        """Something changed: a decision follows soon."""
        at = self.network.now_ms + self.network.random.randint(1, 50) if at_ms is None else at_ms
        if self.decides_at_ms is None or at < self.decides_at_ms:
            self.decides_at_ms = at
            self.network.at(at, partial(self.decide_at, at))

    def decide_at(self, at_ms: int) -> None:
        """Decides, unless another time was set meanwhile."""
        if self.is_up and self.decides_at_ms == at_ms:
            self.decide()

    def perform(self, effects: Iterable[Effect]) -> None:
        """Performs what the dialing asks for."""
        for effect in effects:
            match effect:
                case Dial(target, _):
                    self.network.after(self.network.random.randint(5, 50), partial(self.network.finish_dial, self, target))
                case SetTimer(timer, at_ms):
                    self.timers[timer] = at_ms
                    self.network.at(at_ms, partial(self.expire, timer, at_ms))
                case CancelTimer(timer):
                    self.timers.pop(timer, None)

    def expire(self, timer: bytes, at_ms: int) -> None:
        """A timer has run out, unless it was cancelled or set anew."""
        if self.is_up and self.timers.get(timer) == at_ms:
            del self.timers[timer]
            self.perform(self.dialing.timer_expired(timer, self.network.now_ms))


class Network:
    """All devices of some groups.

    Args:
        seed: of delays, jitter and orders.
        groups: who is in which group.
        links_max: of each device.
        unreachable: devices that nobody can dial.
    """

    def __init__(
        self, seed: int, groups: Mapping[bytes, Members], *, links_max: int, unreachable: Collection[bytes] = frozenset()
    ) -> None:
        self.random = random.Random(seed)
        self.groups: dict[bytes, Members] = {}
        self._groups_of: dict[bytes, dict[bytes, Members]] = {}
        self._users_of: dict[bytes, frozenset[bytes]] = {}
        self._set_groups(groups)
        self.links_max = links_max
        self.unreachable = frozenset(unreachable)
        self.devices: dict[bytes, Device] = {}
        self.now_ms = 0
        self.changed_ms = 0
        self.link_changes = 0
        self.refusals = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def users_of(self, device: bytes) -> frozenset[bytes]:
        """The users that have this device, in any group."""
        return self._users_of.get(device, frozenset())

    def groups_of(self, device: bytes) -> dict[bytes, Members]:
        """The groups that a device is in."""
        return self._groups_of.get(device, {})

    def _set_groups(self, groups: Mapping[bytes, Members]) -> None:
        """Views are made at every change of a link: who is where is looked up, not searched for."""
        self.groups = dict(groups)
        self._groups_of = {}
        users: dict[bytes, set[bytes]] = {}
        for group, members in groups.items():
            for user, devices in members.items():
                for device in devices:
                    self._groups_of.setdefault(device, {})[group] = members
                    users.setdefault(device, set()).add(user)
        self._users_of = {device: frozenset(named) for device, named in users.items()}

    def at(self, at_ms: int, run: Callable[[], None]) -> None:
        """Runs something at a time, not before now."""
        heapq.heappush(self._events, (max(at_ms, self.now_ms), next(self._numbers), run))

    def after(self, delay_ms: int, run: Callable[[], None]) -> None:
        """Runs something later."""
        self.at(self.now_ms + delay_ms, run)

    # --- What happens -----------------------------------------------------------------------------------------------------------

    def start(self, devices: Iterable[bytes], *, within_ms: int = 1_000) -> None:
        """Devices come up, in random order."""
        for device in devices:
            started = self.devices[device] = Device(self, device, self.links_max)
            started.wake(at_ms=self.now_ms + self.random.randint(0, within_ms))
        self.changed_ms = self.now_ms

    def stop(self, devices: Iterable[bytes]) -> None:
        """Devices vanish: their links end, and nobody can reach them."""
        for device in devices:
            gone = self.devices.pop(device)
            gone.is_up = False
            for other in list(gone.links):
                self.unlink(self.devices[other], gone, None)
        self.changed_ms = self.now_ms

    def change_groups(self, groups: Mapping[bytes, Members]) -> None:
        """All devices learn of it at once."""
        self._set_groups(groups)
        for device in self.devices.values():
            device.wake()
        self.changed_ms = self.now_ms

    def finish_dial(self, dialler: Device, target: bytes) -> None:
        """A dial has come to its end: nobody is there, the dialler wants the link no more, or the listener is asked."""
        if not dialler.is_up:
            return
        assert isinstance(target, bytes)
        listener = self.devices.get(target)
        if listener is None or target in self.unreachable or target in dialler.links:
            dialler.perform(dialler.dialing.dial_ended(target, self.now_ms, self.random.random()))
        else:
            view = dialler.view()
            is_alone = dialler.mesh.is_alone(view, target)
            if dialler.mesh.admits(view, target, self.now_ms, is_guest=is_alone):
                self.link(dialler, listener, is_guest=is_alone)
            else:
                dialler.perform(dialler.dialing.dial_ended(target, self.now_ms, self.random.random(), is_refused=True))
        dialler.wake()

    def link(self, dialler: Device, listener: Device, *, is_guest: bool) -> None:
        """Message 3 arrives: now the listener has its say."""
        dialler.reached.add(listener.id)
        dialler.perform(dialler.dialing.linked(listener.id, self.now_ms, is_dialled=True))
        if listener.mesh.admits(listener.view(), dialler.id, self.now_ms, is_guest=is_guest):
            listener.reached.add(dialler.id)
            listener.perform(listener.dialing.linked(dialler.id, self.now_ms))
            dialler.links[listener.id] = listener.links[dialler.id] = LinkView(self.now_ms)
            listener.wake()
            self.note_change()
        else:
            self.refusals += 1
            dialler.perform(dialler.dialing.unlinked(listener.id, self.now_ms, self.random.random(), is_refused=True))

    def link_by_ticket(self, dialler: Device, listener: Device) -> None:
        """Somebody who shares no group yet comes with a ticket."""
        assert listener.mesh.admits(listener.view(), dialler.id, self.now_ms)
        for device, remote in ((dialler, listener), (listener, dialler)):
            device.perform(device.dialing.linked(remote.id, self.now_ms))
            device.links[remote.id] = LinkView(self.now_ms)
            device.reached.add(remote.id)
            device.wake()
        self.note_change()

    def close(self, device: Device, remote: bytes, code: CloseCode) -> None:
        """One side ends a link."""
        del device.links[remote]
        device.perform(device.dialing.unlinked(remote, self.now_ms, self.random.random(), is_refused=True))
        self.unlink(self.devices[remote], device, code)
        device.wake()

    def unlink(self, device: Device, remote: Device, code: CloseCode | None) -> None:
        """The other side learns it."""
        del device.links[remote.id]
        is_refused = code in (CloseCode.REFUSED, CloseCode.NORMAL)
        device.perform(device.dialing.unlinked(remote.id, self.now_ms, self.random.random(), is_refused=is_refused))
        device.wake()
        self.note_change()

    def note_change(self) -> None:
        """A link came or went."""
        self.changed_ms = self.now_ms
        self.link_changes += 1

    # --- Looking ----------------------------------------------------------------------------------------------------------------

    def run_ms(self, duration_ms: int) -> None:
        """Lets so much time pass."""
        end_ms = self.now_ms + duration_ms
        while self._events and self._events[0][0] <= end_ms:
            self.now_ms, _, run = heapq.heappop(self._events)
            run()
        self.now_ms = end_ms

    def settle(self, within_ms: int | None = None) -> int:
        """Runs until no link has changed for QUIET_MS; the time of the last change after the call, in ms.

        Args:
            within_ms: ends then at the latest. Where there are too few links, guests come and go for ever.
        """
        began_ms = self.now_ms
        self.changed_ms = self.now_ms
        for _ in range(STEPS_MAX):
            if within_ms is not None and self.now_ms - began_ms >= within_ms:
                return self.changed_ms - began_ms
            if not self._events or self._events[0][0] - self.changed_ms > QUIET_MS:
                self.now_ms = self.changed_ms + QUIET_MS
                return self.changed_ms - began_ms
            self.now_ms, _, run = heapq.heappop(self._events)
            run()
        raise AssertionError("links change for ever")

    def degree_max(self) -> int:
        """The most links that a device has."""
        return max(len(device.links) for device in self.devices.values())

    def link_count(self) -> int:
        """All links."""
        return sum(len(device.links) for device in self.devices.values()) // 2

    def parts(self, group: bytes) -> list[set[bytes]]:
        """The pieces of a group: its devices that are up and can reach each other over links between its members."""
        left = {device for devices in self.groups[group].values() for device in devices} & self.devices.keys()
        parts: list[set[bytes]] = []
        while left:
            part = self.distances(group, next(iter(left))).keys()
            parts.append(set(part))
            left -= part
        return parts

    def diameter(self, group: bytes) -> int:
        """The longest way between two devices of a group, in links."""
        devices = {device for devices in self.groups[group].values() for device in devices} & self.devices.keys()
        return max(max(self.distances(group, device).values()) for device in devices)

    def distances(self, group: bytes, start: bytes) -> dict[bytes, int]:
        """How many links away each device of a group is that can be reached from `start` inside the group."""
        inside = {device for devices in self.groups[group].values() for device in devices}
        steps = {start: 0}
        queue = deque([start])
        while queue:
            device = queue.popleft()
            for other in self.devices[device].links:
                if other in inside and other not in steps:
                    steps[other] = steps[device] + 1
                    queue.append(other)
        return steps
