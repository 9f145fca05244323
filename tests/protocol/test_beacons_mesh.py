"""Books of beacons together: whatever the order of links, losses and memberships, they come to have the same (SPEC: B-7, B-8)."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence

import pytest

from peersd_protocol.beacons import BeaconBook, Effect, Send, SetTimer
from tests.protocol.test_beacons import DIGEST, GROUP, HOLDINGS, IDS, KEYS


class Mesh:
    """Books joined by channels that keep their order and take their time, under a virtual clock."""

    def __init__(self, rng: random.Random, devices: Sequence[bytes]) -> None:
        self.rng = rng
        self.now_ms = 0
        self.devices = list(devices)
        self.books = {device: BeaconBook(GROUP, device) for device in devices}
        self.members = {device: {device} for device in devices}
        self.urls = dict.fromkeys(devices, "ws://0")
        self.pipes: dict[tuple[int, bytes], deque[bytes]] = {}
        self.ends: dict[tuple[int, bytes], bytes] = {}
        self.timers: dict[bytes, int] = {}
        self.sessions = 0
        self.sent = 0

    def perform(self, device: bytes, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self.pipes[effect.session, device].append(effect.message)
                self.sent += 1
            elif isinstance(effect, SetTimer):
                self.timers[device] = effect.at_ms

    def link(self, one: bytes, other: bytes) -> None:
        self.sessions += 1
        for device, remote in ((one, other), (other, one)):
            self.pipes[self.sessions, device] = deque()
            self.ends[self.sessions, device] = remote
        summaries = [self.books[device].summary() for device in (other, one)]
        for device, remote, summary in zip((one, other), (other, one), summaries, strict=True):
            self.perform(device, self.books[device].session_opened(self.sessions, remote, summary, self.now_ms))

    def unlink(self, session: int) -> None:
        for key in [key for key in self.pipes if key[0] == session]:
            self.books[key[1]].session_closed(session)
            del self.pipes[key], self.ends[key]

    def publish(self, device: bytes) -> None:
        key, now_ms = KEYS[IDS.index(device)], self.now_ms
        self.perform(device, self.books[device].publish([self.urls[device]], DIGEST, HOLDINGS, now_ms, now_ms, key))

    def learn(self, device: bytes, members: Iterable[bytes]) -> None:
        self.members[device] = set(members)
        self.perform(device, self.books[device].set_members(self.members[device], self.now_ms))

    def deliver(self) -> bool:
        """One message, of some channel."""
        full = [key for key, pipe in self.pipes.items() if pipe]
        if not full:
            return False
        session, sender = self.rng.choice(full)
        receiver = self.ends[session, sender]
        message = self.pipes[session, sender].popleft()
        assert not self.pipes[session, sender], "a second message was sent before the first was taken"
        self.perform(receiver, self.books[receiver].receive(session, message, self.now_ms))
        self.perform(sender, self.books[sender].message_sent(session, self.now_ms))
        return True

    def pass_time(self, ms: int) -> None:
        self.now_ms += ms
        for device in [device for device, at_ms in self.timers.items() if at_ms <= self.now_ms]:
            del self.timers[device]
            self.perform(device, self.books[device].timer_expired(self.now_ms))
            self.publish(device)

    def settle(self) -> None:
        """Until nothing is under way and no timer runs; a book that never comes to rest fails."""
        for _ in range(2_000):
            while self.deliver():
                pass
            if not self.timers:
                return
            self.pass_time(max(0, min(self.timers.values()) - self.now_ms))
        raise AssertionError("it does not come to rest")

    def step(self) -> None:
        roll, device, other = self.rng.random(), *self.rng.sample(self.devices, 2)
        if roll < 0.5:
            self.deliver()
        elif roll < 0.6:
            self.pass_time(self.rng.choice([1, 300, 1_500, 6_000]))
        elif roll < 0.75:
            self.urls[device] = f"ws://{self.rng.randrange(1_000)}"
            self.publish(device)
        elif roll < 0.85:
            self.link(device, other)
        elif roll < 0.9 and self.ends:
            self.unlink(self.rng.choice(list(self.ends))[0])
        else:
            self.learn(device, {device, *self.rng.sample(self.devices, self.rng.randrange(len(self.devices)))})


@pytest.mark.parametrize("seed", range(60))
def test_linked_devices_come_to_have_the_same_newest_beacons_in_whatever_order_they_learn_of_each_other(seed: int) -> None:
    rng = random.Random(seed)
    mesh = Mesh(rng, IDS[: rng.randrange(3, 7)])
    for _ in range(200):
        mesh.step()
    for device in rng.sample(mesh.devices, len(mesh.devices)):  # a chain, and the members known everywhere
        mesh.learn(device, mesh.devices)
        while rng.random() < 0.7 and mesh.deliver():
            pass
    for one, other in zip(mesh.devices, mesh.devices[1:], strict=False):
        mesh.link(one, other)
    for device in mesh.devices:
        mesh.publish(device)
    mesh.settle()
    for made in mesh.books.values():
        assert {device: made.addresses_of(device) for device in mesh.devices} == {d: (url,) for d, url in mesh.urls.items()}
    assert len({made.summary() for made in mesh.books.values()}) == 1
    sent = mesh.sent
    mesh.link(mesh.devices[0], mesh.devices[-1])
    mesh.settle()
    assert mesh.sent == sent  # in step, so nothing is said


def test_a_beacon_crosses_each_link_of_a_chain_once() -> None:
    mesh = Mesh(random.Random(0), IDS[:6])
    for device in mesh.devices:
        mesh.learn(device, mesh.devices)
    for one, other in zip(mesh.devices, mesh.devices[1:], strict=False):
        mesh.link(one, other)
    mesh.publish(mesh.devices[0])
    mesh.settle()
    assert mesh.sent == 5
    assert all(made.latest(mesh.devices[0]) for made in mesh.books.values())


def test_someone_who_joins_has_all_beacons_after_some_messages() -> None:
    mesh = Mesh(random.Random(0), IDS)
    *old, new = mesh.devices
    for device in old:
        mesh.learn(device, old)
    for device in old[1:]:
        mesh.link(old[0], device)
    for device in old:
        mesh.publish(device)
    mesh.settle()
    for device in old:
        mesh.learn(device, mesh.devices)
    mesh.settle()
    mesh.sent = 0
    mesh.link(old[0], new)
    mesh.settle()
    assert mesh.books[new].beacons() == ()
    for at in range(2, len(mesh.devices) + 1):  # the acts arrive one by one
        mesh.learn(new, {new, *old[:at]})
        mesh.deliver()
    mesh.settle()
    assert {one.device for one in mesh.books[new].beacons()} == set(IDS)
    assert all(made.latest(new) for made in mesh.books.values())
    # Six over the new link, and the new one's beacon over each of the six others.
    assert mesh.sent == 12
