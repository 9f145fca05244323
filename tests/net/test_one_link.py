"""Two devices have one link, whatever happens (SPEC: L-11 to L-20)."""

from __future__ import annotations

from typing import Literal

import pytest
import trio

from peersd.testing.proxies import open_proxy
from peersd_protocol.errors import CloseCode
from peersd_protocol.linktable import ALARM_CLONED
from tests.net.link_peers import HANG_S, Peer, Process, are_linked, echo_over, open_gate, open_peer, until


@pytest.mark.parametrize("hold", ["message 2", "message 3"])
@pytest.mark.parametrize("first", ["lower", "higher"])
async def test_of_two_dials_whose_handshakes_are_both_under_way_the_lower_device_s_stays(
    hold: Literal["message 2", "message 3"], first: str
) -> None:
    async with open_peer() as one, open_peer() as other:
        lower, higher = sorted((one, other), key=lambda peer: peer.device)
        async with open_gate(higher, hold) as to_higher, open_gate(lower, hold) as to_lower:
            lower.links.want_device(higher.device, [to_higher.url])
            higher.links.want_device(lower.device, [to_lower.url])
            with trio.fail_after(HANG_S):
                await to_higher.arrived.wait()
                await to_lower.arrived.wait()
            # Both handshakes wait in the middle. With message 3 held each side has a link of its own and not the other's.
            assert (to_higher.open_count, to_lower.open_count) == (1, 1)
            own = [[handle.direction for handle in peer.links.handles()] for peer in (lower, higher)]
            assert own == ([["out"], ["out"]] if hold == "message 3" else [[], []])
            gates = (to_higher, to_lower) if first == "lower" else (to_lower, to_higher)
            gates[0].release()
            await until(lambda: gates[0].open_count == 0 or are_linked(lower, higher))
            gates[1].release()
            await until(lambda: are_linked(lower, higher) and to_lower.open_count == 0)
            link = lower.to(higher)
            assert link is not None
            assert link.direction == "out"
            assert (to_higher.accepted, to_lower.accepted) == (1, 1)
            await echo_over(higher, lower)
            assert (lower.carrying_max, higher.carrying_max) == (1, 1)
            assert [sum(1 if told[0] == "+" else -1 for told in peer.told) for peer in (lower, higher)] == [1, 1]


async def test_many_dials_at_once_from_both_sides_leave_one_link() -> None:
    async with open_peer() as one, open_peer() as other, trio.open_nursery() as nursery:

        async def connect(peer: Peer, url: str) -> None:
            await peer.links.connect(url, None, HANG_S)

        for _ in range(5):
            nursery.start_soon(connect, one, other.url)
            nursery.start_soon(connect, other, one.url)
        one.links.want_device(other.device, [other.url])
        other.links.want_device(one.device, [one.url])
        await until(lambda: are_linked(one, other) and not nursery.child_tasks)
        await echo_over(one, other)
        assert (one.carrying_max, other.carrying_max) == (1, 1)


@pytest.mark.parametrize("dialler", ["restarted", "old"])
async def test_a_restarted_device_is_let_in_at_once_though_its_old_link_never_ended(dialler: str) -> None:
    async with open_peer() as old, trio.open_nursery() as nursery:
        process = Process(Peer())
        await nursery.start(process.run)
        async with open_proxy(process.peer.url) as proxy, open_peer(process.peer.keys) as restarted:
            old.links.want_device(process.peer.device, [proxy.url])
            await until(lambda: are_linked(old, process.peer))
            half_open = old.to(process.peer)
            assert half_open is not None
            proxy.stall_after(0)  # neither GOAWAY nor the end of the socket comes through
            await process.end()
            assert not half_open.is_down
            if dialler == "restarted":
                restarted.links.want_device(old.device, [old.url])
            else:
                assert await old.links.connect(restarted.url, restarted.device, HANG_S) is old.to(restarted)
            await until(lambda: are_linked(old, restarted))
            assert half_open.down_code is CloseCode.REPLACED
            assert old.told == ["+out", "-out", "+in" if dialler == "restarted" else "+out"]
            assert old.alarms == []
            await echo_over(old, restarted)
            assert old.carrying_max == 1


async def test_a_device_that_changed_networks_replaces_the_link_that_the_other_side_still_has() -> None:
    async with open_peer() as mobile, open_peer() as home, open_proxy(home.url) as proxy:
        mobile.links.want_device(home.device, [proxy.url])
        await until(lambda: are_linked(mobile, home))
        left = home.to(mobile)
        proxy.stall_after(0)
        mobile.links.want_device(home.device, [home.url])
        mobile.links.close(home.device, CloseCode.GOING_AWAY)
        await until(lambda: are_linked(mobile, home))
        assert left is not None
        assert left.down_code is CloseCode.REPLACED
        assert home.told == ["+in", "-in", "+in"]
        assert home.carrying_max == 1


async def test_a_link_dialled_by_the_side_that_lost_it_names_the_one_that_the_other_side_still_has() -> None:
    """The dialler has the higher id, so that only `replaces` lets its link in."""
    async with open_peer() as one, open_peer() as other:
        lower, higher = sorted((one, other), key=lambda peer: peer.device)
        async with open_proxy(higher.url) as proxy:
            lower.links.want_device(higher.device, [proxy.url])
            await until(lambda: are_linked(lower, higher))
            left = lower.to(higher)
            proxy.stall_after(0)
            higher.links.close(lower.device, CloseCode.TIMEOUT)
            higher.links.want_device(lower.device, [lower.url])
            await until(lambda: are_linked(lower, higher))
            assert left is not None
            assert left.down_code is CloseCode.REPLACED
            assert lower.carrying_max == 1


async def test_two_processes_with_one_key_raise_the_alarm_once_and_have_one_link_at_a_time() -> None:
    async with open_peer() as home, open_peer() as first, open_peer(first.keys) as clone:
        first.links.want_device(home.device, [home.url])
        await until(lambda: are_linked(home, first))
        clone.links.want_device(home.device, [home.url])
        # The first one is replaced, dials again, and is refused while its clone is linked.
        await until(lambda: home.alarms and are_linked(home, clone))
        dials = len(first.served)
        await until(lambda: len(first.served) >= dials + 3)
        assert home.alarms == [(ALARM_CLONED, first.device)]
        assert home.carrying_max == 1
        await echo_over(home, clone)


async def test_an_explicit_connect_finds_the_link_there_is_and_does_not_replace_it() -> None:
    async with open_peer() as one, open_peer() as other:
        lower, higher = sorted((one, other), key=lambda peer: peer.device)
        first = await higher.links.connect(lower.url, None, HANG_S)
        await until(lambda: are_linked(lower, higher))
        # By L-17 the lower device's new link would replace the old one, and all its sessions would start again.
        found = await lower.links.connect(higher.url, None, HANG_S)
        assert found.handshake_hash == first.handshake_hash
        assert await higher.links.connect(lower.url, lower.device, HANG_S) is first
        assert first.serving.is_set()
        assert not first.is_down
