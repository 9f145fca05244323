"""Devices that decide on their links and make them, over real sockets."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio

from peersd.node.meshing import Meshing, Shared
from peersd_protocol.errors import CloseCode
from tests.net.link_peers import Peer, Process, are_linked, echo_over, until

GROUP = b"g" * 32
NOBODY_URL = "ws://127.0.0.1:1"


class Member(Peer):
    """A device that keeps the links of its groups.

    Attributes:
        everybody: all such devices; those with an address can be dialled.
        groups: the devices of each group, one a user; None for one group of everybody.
    """

    def __init__(self, everybody: dict[bytes, Member], groups: dict[bytes, list[bytes]] | None = None) -> None:
        super().__init__()
        self.everybody = everybody
        self.groups = groups
        everybody[self.device] = self
        self.mesh = Meshing(self.device, self.links, self.shared, self.addresses, lambda _device: False)

    def shared(self) -> Shared:
        groups = {GROUP: list(self.everybody)} if self.groups is None else self.groups
        return Shared(
            {user(self.device)}, {group: {user(each): (each,) for each in listed} for group, listed in groups.items()}, ()
        )

    def addresses(self, device: bytes) -> list[str]:
        return [self.everybody[device].url] if device in self.everybody else [NOBODY_URL]

    def _changed(self) -> None:
        super()._changed()
        self.mesh.wake()


def user(device: bytes) -> bytes:
    return b"user" + device[:28]


@asynccontextmanager
async def open_members(size: int, links_max: int) -> AsyncGenerator[list[tuple[Member, Process]]]:
    """Devices that all listen before the first one decides."""
    everybody: dict[bytes, Member] = {}
    async with trio.open_nursery() as nursery:
        members = [Member(everybody) for _ in range(size)]
        processes = []
        for member in members:
            member.links.set_limits(links_max, ())
            processes.append(Process(member))
            await nursery.start(processes[-1].run)
        for member in members:
            nursery.start_soon(member.mesh.run)
        yield list(zip(members, processes, strict=True))
        nursery.cancel_scope.cancel()


def pieces(members: list[Member]) -> int:
    """Into how many pieces the links divide these."""
    left, count = set(members), 0
    while left:
        queue = [left.pop()]
        count += 1
        while queue:
            one = queue.pop()
            near = {other for other in left if are_linked(one, other)}
            left -= near
            queue += near
    return count


async def test_five_devices_that_may_have_four_links_are_all_linked() -> None:
    async with open_members(5, 4) as opened:
        members = [member for member, _ in opened]
        await until(lambda: all(are_linked(one, other) for one in members for other in members if one is not other))
        for one in members:
            assert one.carrying_max == 1
            await echo_over(one, members[members.index(one) - 1])


async def test_eight_devices_with_four_links_are_one_piece_and_stay_so_when_two_vanish() -> None:
    """How many links there are in the end is seen under virtual time (tests/protocol/test_mesh.py): guests stay for 10 s."""
    async with open_members(8, 4) as opened:
        await until(lambda: pieces([member for member, _ in opened]) == 1)
        gone, left = opened[:2], [member for member, _ in opened[2:]]
        for _, process in gone:
            await process.end()
        await until(lambda: pieces(left) == 1)


async def test_who_is_denied_is_left_out_and_the_group_stays_in_one_piece() -> None:
    async with open_members(4, 4) as opened:
        members = [member for member, _ in opened]
        await until(lambda: all(are_linked(one, other) for one in members for other in members if one is not other))
        strict, denied = members[:2]
        strict.links.set_limits(4, {denied.device})
        await until(lambda: not are_linked(strict, denied))
        await until(lambda: denied.links.refused == {strict.device})
        assert pieces(members) == 1


async def test_a_group_that_gets_no_link_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "peersd.node")
    async with trio.open_nursery() as nursery:
        member = Member({})
        member.groups = {bytes([number]) * 32: [member.device, bytes([number]) * 32] for number in (1, 2)}
        member.links.set_limits(1, ())
        await nursery.start(member.links.run)
        nursery.start_soon(member.mesh.run)
        await until(lambda: caplog.records)
        nursery.cancel_scope.cancel()
    [record] = caplog.records
    assert (record.getMessage(), record.__dict__["fields"]) == ("groups_without_link", {"groups": 1, "links_max": 1})


async def test_a_device_that_was_closed_for_good_is_not_dialled_any_more() -> None:
    async with open_members(2, 4) as opened:
        one, other = [member for member, _ in opened]
        await until(lambda: are_linked(one, other))
        for member in (one, other):
            member.groups = {}
            member.mesh.wake()
        await until(lambda: not one.links._dialer._machine.targets and not other.links._dialer._machine.targets)
        assert are_linked(one, other), "it ends only after a minute without a channel"
        one.links.close(other.device, CloseCode.NORMAL)
        await until(lambda: not are_linked(one, other))
        assert one.links.views() == {}
