"""The links of one running device: dials, the table that keeps one link a pair, the choice of the mesh (peersd.node.links)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from peersd.testing.checkers import Checker
from peersd.testing.simulator.link_end import LinkEnd, LinkEvents
from peersd.testing.simulator.network import Network
from peersd.testing.simulator.plan import BACK_OFF_MS_MAX
from peersd.testing.simulator.schedule import Schedule
from peersd.testing.simulator.sharing import Sharing
from peersd.testing.simulator.wire import WireEnd
from peersd_protocol.dialing import CancelTimer, Dial, Dialing, Patience, SetTimer
from peersd_protocol.dialing import Effect as DialingEffect
from peersd_protocol.errors import CloseCode
from peersd_protocol.handshake import Handshake, Role
from peersd_protocol.link import Down, Up
from peersd_protocol.linktable import Alarm, Close, LinkTable
from peersd_protocol.linktable import Link as TableLink
from peersd_protocol.mesh import LinkView, Mesh, MeshView
from peersd_protocol.mesh_ranks import Ranks

if TYPE_CHECKING:
    from peersd.testing.simulator.device import Process, SimulatedDevice

Found = Callable[[LinkEnd | None], None]
"""Gets the link that a dial came to, or that there is in its place; None if there is none."""


@dataclass
class _Attempt:
    """A link from the dial on.

    Attributes:
        target: what the dial was for that made it, if the dialing machine asked for one.
        found: who waits for it.
        link_id: its number, once the connection has begun.
        stays: whether the table kept it.
    """

    target: bytes | None = None
    found: Found | None = None
    link_id: int = 0
    stays: bool = False

    def settle(self, end: LinkEnd | None) -> None:
        """The first answer counts."""
        found, self.found = self.found, None
        if found is not None:
            found(end)


class Links:
    """All links of one process.

    Args:
        schedule: of the simulation.
        network: whom it dials.
        process: whose links they are.

    Attributes:
        ends: all that are not over, also those that are not up yet.
        sharings: what is shared over those that carry channels.
    """

    def __init__(self, schedule: Schedule, network: Network, process: Process) -> None:
        self._schedule = schedule
        self._network = network
        self._process = process
        self._table = LinkTable(process.device_id)
        self._dialing = Dialing(Patience(delay_ms_max=BACK_OFF_MS_MAX, refused_ms=BACK_OFF_MS_MAX))
        self._mesh = Mesh(process.device_id)
        self._link_ids = count(1)
        self._carried: dict[int, LinkEnd] = {}
        self._since_ms: dict[bytes, int] = {}
        self._timers: dict[bytes, int] = {}
        self._decides_at_ms: int | None = None
        self.ends: list[LinkEnd] = []
        self.sharings: dict[LinkEnd, Sharing] = {}
        self.left_out: tuple[bytes, ...] = ()

    def to_device(self, device: bytes) -> LinkEnd | None:
        """The link to a device."""
        link = self._table.link_to(device)
        return self._carried.get(link.link_id) if link else None

    def linked(self) -> list[LinkEnd]:
        """The links that stay."""
        return [self._carried[link.link_id] for link in self._table.links]

    # --- Life of a link ---------------------------------------------------------------------------------------------------------

    def serve(self, remote: SimulatedDevice, wire: WireEnd) -> None:
        """Runs the listener's end of a new link."""
        self._run(remote, Role.LISTENER, wire, _Attempt(), None)

    def dial(self, url: str, device: bytes | None, found: Found | None = None, target: bytes | None = None) -> None:
        """Dials an address; a link, or its failure, comes of it after a while.

        Args:
            url: where.
            device: who has to answer; None for anybody.
            found: told what came of it.
            target: see Dial.
        """
        remote, attempt = self._network.find(url), _Attempt(target, found)

        def fail() -> None:
            attempt.settle(None)
            if target is not None:
                self._perform(self._dialing.dial_ended(target, self._schedule.now_ms, self._process.random.random()))
                self.wake()

        def reach() -> None:
            wire = self._network.reach(self._process.device, url)
            if wire is not None:
                self._run(remote, Role.DIALLER, wire, attempt, device)
            else:
                self._process.later(self._process.random.choice((0, 50, 500)), fail)

        self._process.later(self._process.random.randint(1, 50), reach)

    def connect(self, url: str, found: Found) -> None:
        """Finds the link that this device dialled at an address, or dials one."""
        for end in self.linked():
            if end.role is Role.DIALLER and self._network.find(url).device_id == end.remote_device:
                found(end)
                return
        self.dial(url, None, found)

    def _run(self, remote: SimulatedDevice, role: Role, wire: WireEnd, attempt: _Attempt, expected: bytes | None) -> None:
        attempt.link_id = next(self._link_ids)
        is_asked_for = attempt.found is not None
        is_dialler, process, frames = role is Role.DIALLER, self._process, self._network.frames
        handshake = Handshake(
            role,
            process.keys,
            boot_id=process.boot_id,
            ephemeral_private=process.device.entropy(32),
            replaces=self._table.replaces if is_dialler else b"",
            is_alone=(lambda other: is_asked_for or self._mesh.is_alone(self.view(), other)) if is_dialler else None,
            expected_device=expected if is_dialler else None,
        )
        events = LinkEvents(
            lambda end, up: self._carry(end, up, attempt),
            lambda end, channel, payload: self.sharings[end].requested(channel, payload),
            lambda end, channel, payload: self.sharings[end].accepted(channel, payload),
            lambda end, channel, payload: self.sharings[end].refused(channel, payload),
            lambda end, channel: self.sharings[end].gone(channel),
            lambda end, channel, message: frames.note_put(end.handshake_hash, channel, process.name, message),
            self._check_message,
            lambda end, down: self._note_down(end, down, attempt),
        )
        end = LinkEnd(self._schedule, process.random, process.name, remote.name, handshake, role, wire, events)
        end.is_remote_honest = remote.is_honest
        self.ends.append(end)
        end.start()

    def _check_message(self, end: LinkEnd, channel: int, message: bytes) -> None:
        frames, name = self._network.frames, self._process.name
        frames.check_taken(end.handshake_hash, channel, name, end.remote, message)
        frames.check_message(name, self._process.device_id, end.remote, end.users[channel].group_name, message)

    def _carry(self, end: LinkEnd, up: Up, attempt: _Attempt) -> None:
        """The handshake is done: the link stays, or is closed."""
        now_ms, existing = self._schedule.now_ms, self.to_device(up.remote_device)
        if attempt.found is not None and existing is not None:
            found, attempt.found = attempt.found, None
            end.close(CloseCode.REPLACED)  # before the other side hears of it
            found(existing)
            return
        is_chosen = self._network.is_mesh and attempt.found is None and existing is None
        if is_chosen and not self._mesh.admits(self.view(), up.remote_device, now_ms, is_guest=up.is_alone):
            end.close(CloseCode.REFUSED)
            return
        self._carried[attempt.link_id] = end
        link = TableLink(
            attempt.link_id,
            up.remote_device,
            end.role is Role.DIALLER,
            up.remote_boot_id,
            up.handshake_hash,
            up.remote_replaces,
        )
        for effect in self._table.link_up(link):
            if isinstance(effect, Close):
                self._carried[effect.link_id].close(effect.close_code)
            elif isinstance(effect, Alarm):
                raise self._schedule.fail(Checker.HONEST_REFUSED, f"{self._process.name}: alarm {effect.name} for {end.remote}")
            else:
                self._keep(end, attempt)
        attempt.settle(self.to_device(up.remote_device))

    def _keep(self, end: LinkEnd, attempt: _Attempt) -> None:
        device, now_ms = end.remote_device, self._schedule.now_ms
        self._schedule.note(self._process.name, f"link to {end.remote} up as {end.role.value}")
        self._network.note_link(self._process.name, end.remote, +1)
        attempt.stays = True
        self._since_ms[device] = now_ms
        self._process.notes.reached.add(device)
        if end.role is Role.DIALLER:
            self._process.notes.addresses[device] = self._network.url_of(device)
        self._perform(self._dialing.linked(device, now_ms, is_dialled=attempt.target is not None))
        self.sharings[end] = Sharing(self._schedule, end, self._process)
        self.sharings[end].begin()
        end.release()
        self.wake()

    def _note_down(self, end: LinkEnd, down: Down, attempt: _Attempt) -> None:
        self.ends.remove(end)
        sharing = self.sharings.pop(end, None)
        if sharing is not None:
            sharing.link_down()
        now_ms, jitter = self._schedule.now_ms, self._process.random.random()
        if self._carried.pop(attempt.link_id, None) is not None:
            self._table.link_down(attempt.link_id)
        if attempt.stays:
            self._network.note_link(self._process.name, end.remote, -1)
        if attempt.stays and self._table.link_to(end.remote_device) is None:
            is_refused = down.code in (CloseCode.REFUSED, CloseCode.NORMAL)
            self._perform(self._dialing.unlinked(end.remote_device, now_ms, jitter, is_refused=is_refused))
        elif attempt.target is not None and not attempt.stays:
            self._perform(self._dialing.dial_ended(attempt.target, now_ms, jitter))
        attempt.settle(None)
        self.wake()

    # --- Which links there are to be --------------------------------------------------------------------------------------------

    def _perform(self, effects: Iterable[DialingEffect]) -> None:
        for effect in effects:
            match effect:
                case Dial(device, url):
                    self.dial(url, device, None, device)
                case SetTimer(timer, at_ms):
                    self._set_timer(timer, at_ms)
                case CancelTimer(timer):
                    self._timers.pop(timer, None)

    def _set_timer(self, timer: bytes, at_ms: int) -> None:
        self._timers[timer] = at_ms

        def expire() -> None:
            if self._timers.get(timer) == at_ms:
                del self._timers[timer]
                self._perform(self._dialing.timer_expired(timer, self._schedule.now_ms))

        self._process.later(at_ms - self._schedule.now_ms, expire)

    def wake(self, at_ms: int | None = None) -> None:
        """Something changed: where links are chosen, a choice follows soon."""
        if not self._network.is_mesh:
            return
        at = self._schedule.now_ms + self._process.random.randint(1, 50) if at_ms is None else at_ms
        if self._decides_at_ms is None or at < self._decides_at_ms:
            self._decides_at_ms = at
            self._process.later(at - self._schedule.now_ms, lambda: self._decide_at(at))

    def _decide_at(self, at_ms: int) -> None:
        if self._decides_at_ms != at_ms:
            return
        self._decides_at_ms = None
        decision = self._mesh.decide(self.view(), self._schedule.now_ms)
        self.left_out = decision.left_out
        for device, code in decision.close:
            end = self.to_device(device)
            assert end is not None
            self._schedule.note(self._process.name, f"gives up its link to {end.remote}")
            end.close(code)
        addresses = self._process.notes.addresses
        self._perform(self._dialing.want_only({device: [addresses[device]] for device in decision.wanted if device in addresses}))
        if decision.again_at_ms is not None:
            self.wake(max(decision.again_at_ms, self._schedule.now_ms + 1))

    def view(self) -> MeshView:
        """What the choice is made from."""
        process = self._process
        links = {
            end.remote_device: LinkView(
                self._since_ms[end.remote_device],
                end.is_confirmed or end.role is Role.LISTENER,
                bool(self.sharings[end].groups),
            )
            for end in self.linked()
            if end in self.sharings
        }
        return MeshView(
            own_users=[process.user],
            groups=process.members_by_group(),
            links=links,
            reachable=process.notes.addresses.keys(),
            unannounced=process.unannounced(),
            reached=process.notes.reached,
            failing=self._dialing.failing,
            refused=self._dialing.refused,
            links_max=self._network.links_max,
        )

    def ring_neighbours(self) -> int:
        """How many devices the mesh wants links to for the rings of its groups alone, were all up and known."""
        view = self.view()
        reachable = {device for members in view.groups.values() for devices in members.values() for device in devices}
        full = MeshView(view.own_users, view.groups, reachable=reachable, links_max=len(reachable))
        return sum(grade.rank <= 1 for grade in Ranks(self._process.device_id).judge(full).present.values())
