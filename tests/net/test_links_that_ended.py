"""What is asked of links once they have ended, as by whoever is cancelled a moment later."""

from __future__ import annotations

import pytest

from peersd.errors import PeersdError
from tests.net.link_peers import HANG_S, open_peer


async def test_whoever_wants_links_after_they_ended_gets_none_and_no_failure() -> None:
    async with open_peer() as other:
        async with open_peer() as ended:
            pass
        ended.links.want({other.device: [other.url]})
        ended.links.want_device(other.device, [other.url])
        with pytest.raises(PeersdError) as failed:
            await ended.links.connect(other.url, None, HANG_S)
        assert (failed.value.code, failed.value.retry) == ("busy", True)
        assert ended.links.handles() == [] and other.served == []
