"""Addresses that members state may name what no host can be called: dialling them fails like any other dial."""

from __future__ import annotations

import pytest
import trio

from peersd.errors import PeersdError
from peersd.net.transport import open_websocket
from tests.net.link_peers import HANG_S, open_peer

IMPOSSIBLE = ["ws://a..b:1", "ws://.:1", f"ws://{'a' * 64}:1", f"ws://{'a' * 300}:5", "ws://é。。:1", "wss://a..b/path"]


@pytest.mark.parametrize("url", IMPOSSIBLE)
async def test_a_name_that_no_host_can_have_is_unreachable(url: str) -> None:
    with pytest.raises(PeersdError) as failed:
        async with open_websocket(url, timeout_s=HANG_S):
            pass
    assert (failed.value.code, failed.value.retry) == ("unreachable", True)


async def test_a_device_that_states_an_impossible_address_is_linked_at_another(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "peersd")
    async with open_peer() as one, open_peer() as other:
        one.links.pin(other.device, ["ws://a..b:1", other.url])
        with trio.fail_after(HANG_S):
            while one.to(other) is None or "dial_failed" not in caplog.messages:
                await trio.sleep(0.01)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
