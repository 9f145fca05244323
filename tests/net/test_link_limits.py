"""Who gets a link and who does not: denied, disconnected, pinned, and refused devices (SPEC: L-31 to L-33)."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from peersd.errors import PeersdError
from peersd.node.dialer import NETWORK_INTERVAL_S, Dialer
from peersd.testing.proxies import open_proxy
from peersd_protocol.constants import LINKS_MAX
from peersd_protocol.dialing import Dial, Patience
from peersd_protocol.errors import CloseCode
from tests.net.link_peers import HANG_S, Peer, are_linked, echo_over, open_peer, until


async def test_a_denied_device_that_dials_is_closed_before_its_link_carries_anything() -> None:
    async with open_peer() as strict, open_peer(patience=Patience()) as denied, open_proxy(strict.url) as proxy:
        strict.links.set_limits(LINKS_MAX, {denied.device})
        denied.links.want_device(strict.device, [proxy.url])
        await until(lambda: denied.links.refused)
        assert denied.links.refused == {strict.device}
        assert denied.links.failing == set(), "it did answer"
        assert (strict.served, strict.told, strict.links.handles()) == ([], [], [])
        assert [handle.down_code for handle in denied.served] == [CloseCode.REFUSED]
        assert proxy.accepted == 1, "it is not dialled again at once"


async def test_to_deny_a_device_ends_its_link_and_its_dials_at_once() -> None:
    async with open_peer() as strict, open_peer() as other:
        strict.links.want_device(other.device, [other.url])
        await until(lambda: are_linked(strict, other))
        link = strict.to(other)
        changes = strict.changes
        strict.links.set_limits(7, {other.device})
        assert link is not None
        assert link.down_code is CloseCode.REFUSED
        assert (strict.links.links_max, strict.changes) == (7, changes + 1)
        strict.links.want({other.device: [other.url]})
        strict.links.want_device(other.device, [other.url])
        with pytest.raises(PeersdError, match="gets no link") as caught:
            await strict.links.connect(other.url, None, HANG_S)
        assert caught.value.code == "unreachable"
        await until(lambda: other.told == ["+in", "-in"] and strict.told == ["+out", "-out"])
        strict.links.set_limits(7, ())
        strict.links.want({other.device: [other.url]})
        await until(lambda: are_linked(strict, other))


async def test_who_is_disconnected_stays_so_whoever_dials_until_a_link_is_asked_for_again() -> None:
    async with open_peer() as one, open_peer() as other:
        one.links.pin(other.device, [other.url])
        other.links.want_device(one.device, [one.url])
        await until(lambda: are_linked(one, other))
        one.links.disconnect(other.device)
        assert one.to(other) is None
        await until(lambda: other.to(one) is None)
        one.links.want({other.device: [other.url]})
        with pytest.raises(PeersdError, match="wants no link") as caught:
            await other.links.connect(one.url, None, HANG_S)
        assert (caught.value.code, caught.value.retry) == ("unreachable", True)
        assert one.links.denied == {other.device}
        assert one.links.pinned == {}
        link = await one.links.connect(other.url, None, HANG_S)
        assert link is one.to(other)
        await until(lambda: are_linked(one, other))
        await echo_over(other, one)


async def test_a_pinned_device_stays_wanted_when_others_are_wanted_and_comes_back_by_itself() -> None:
    async with open_peer() as one, open_peer() as other, open_peer() as third:
        one.links.pin(other.device, [other.url])
        one.links.want({third.device: [third.url]})
        await until(lambda: are_linked(one, other) and are_linked(one, third))
        one.links.want({})
        for peer in (other, third):
            peer.links.close(one.device, CloseCode.GOING_AWAY)
        await until(lambda: are_linked(one, other) and len(one.served) == 3)
        assert one.to(third) is None


async def test_a_link_that_is_not_let_in_carries_nothing_and_who_dialled_hears_that_it_is_refused() -> None:
    async with open_peer() as full, open_peer(patience=Patience()) as late:
        asked: list[bytes] = []

        def admits(device: bytes, is_alone: bool) -> bool:
            asked.append(device)
            return False

        full.links.admits = admits
        late.links.want_device(full.device, [full.url])
        await until(lambda: late.links.refused)
        assert asked == [late.device]
        assert (full.served, full.told) == ([], [])
        with pytest.raises(PeersdError, match="wants no link"):
            await late.links.connect(full.url, full.device, HANG_S)


async def test_a_link_in_an_old_one_s_place_is_let_in_though_there_is_no_room() -> None:
    async with open_peer() as full, open_peer() as other:
        other.links.want_device(full.device, [full.url])
        await until(lambda: are_linked(full, other))
        full.links.admits = lambda _device, _is_alone: False
        async with open_peer(other.keys) as restarted:
            await restarted.links.connect(full.url, None, HANG_S)
            assert full.told == ["+in", "-in", "+in"]


async def test_a_dial_for_which_there_is_no_room_any_more_ends_before_the_other_side_has_a_link() -> None:
    async with open_peer(patience=Patience()) as full, open_peer() as other:
        full.links.admits = lambda _device, _is_alone: False
        full.links.want_device(other.device, [other.url])
        await until(lambda: full.links.refused == {other.device})
        assert (full.served, other.served, other.told) == ([], [], [])


async def test_the_views_tell_when_a_link_came_up_whether_the_other_side_keeps_it_and_what_it_carries() -> None:
    async with open_peer() as one, open_peer() as other:
        began_ms = int(trio.current_time() * 1000)
        link = await one.links.connect(other.url, None, HANG_S)
        await until(lambda: are_linked(one, other))
        for peer, remote in ((one, other), (other, one)):
            [view] = peer.links.views().values()
            assert peer.links.views().keys() == {remote.device}
            assert began_ms <= view.since_ms <= int(trio.current_time() * 1000)
            assert (view.is_confirmed, view.has_channels) == (True, False)
        channel = await link.open(b"x")
        assert one.links.views()[other.device].has_channels
        channel.close()
        one.links.close(other.device, CloseCode.NORMAL)
        assert one.links.views() == {}


async def test_a_link_to_a_side_that_does_not_answer_is_not_confirmed() -> None:
    async with open_peer() as one, open_peer() as other, open_proxy(other.url) as proxy:
        one.links.want_device(other.device, [proxy.url])
        await until(lambda: one.served)
        # Message 3 was sent; the listener's first frames may be on their way.
        proxy.stall_after(0)
        [view] = one.links.views().values()
        assert view.is_confirmed is one.served[0].answered.is_set()


# --- Dials and the machine's network --------------------------------------------------------------------------------------------


class Dialled:
    """A dialer whose dials are only noted."""

    def __init__(self) -> None:
        self.dials: list[Dial] = []
        self.changes = 0
        self.dialer = Dialer(self.dials.append, self._changed, None, lambda: 0.5)

    def _changed(self) -> None:
        self.changes += 1


async def test_all_that_waits_is_dialled_at_once_when_the_machine_s_addresses_change(
    autojump_clock: trio.testing.MockClock,
) -> None:
    case, addresses = Dialled(), ["10.0.0.1", "fe80::1"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(case.dialer.run_timers)
        nursery.start_soon(case.dialer.run_network_watch, lambda: tuple(addresses))
        case.dialer.want_device(b"x" * 32, ["ws://x"])
        for _ in range(12):
            await trio.sleep(60)
            case.dialer.dial_ended(b"x" * 32)
        assert case.dialer.failing == {b"x" * 32}
        dials, changes = len(case.dials), case.changes
        addresses.reverse()
        await trio.sleep(NETWORK_INTERVAL_S + 1)
        assert len(case.dials) == dials, "the same addresses in another order"
        addresses[0] = "192.168.1.5"
        await trio.sleep(NETWORK_INTERVAL_S + 1)
        assert len(case.dials) == dials + 1
        assert case.dialer.failing == set()
        assert case.changes > changes
        nursery.cancel_scope.cancel()


async def test_a_wait_that_is_over_begins_a_dial(autojump_clock: trio.testing.MockClock) -> None:
    case = Dialled()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(case.dialer.run_timers)
        case.dialer.want_only({b"x" * 32: ["ws://x"], b"y" * 32: ["ws://y"]})
        case.dialer.linked(b"y" * 32, is_dialled=True)
        case.dialer.unlinked(b"y" * 32, is_refused=True)
        case.dialer.dial_ended(b"x" * 32)
        await trio.sleep(1)
        assert [dial.url for dial in case.dials] == ["ws://x", "ws://y", "ws://x"]
        await trio.sleep(10)
        assert [dial.url for dial in case.dials[3:]] == ["ws://y"]
        case.dialer.unwant(b"y" * 32)
        nursery.cancel_scope.cancel()


async def test_a_peer_tells_of_no_change_that_there_is_none_of() -> None:
    peer = Peer()
    assert (peer.links.handles(), peer.links.views()) == ([], {})
    assert peer.links.failing | peer.links.refused | peer.links.denied == set()
    peer.links.close(b"x" * 32, CloseCode.NORMAL)
    assert peer.changes == 0
