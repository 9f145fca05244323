"""Looking at pleas (SPEC: O-16): what it costs is bounded for each group, however many links somebody makes for it."""

from __future__ import annotations

from typing import Final

import trio

from peersd.node.group import Group
from peersd_protocol.constants import LANE_RETRY_MS

REST_PARTS: Final = 9
"""After a plea in vain a group's rest, as often as long as the plea took: so they take a tenth of a processor (guess)."""

REST_S_MAX: Final = 10.0
"""The longest rest (guess): a plea may have taken long because others used the file, and those of who is a member wait, too."""


async def weigh(group: Group, message: bytes, device: bytes) -> tuple[bool, list[bytes]]:
    """Takes of a plea what changes who is a member, when it is its turn among those in this group.

    Args:
        group: whose acts they are.
        message: the plea.
        device: who sent it.

    Returns:
        Whether anything was taken; and, if not, the messages that are to be said against it, none if there is nothing to say.

    Raises:
        RemoteProtocolError: it is none.
        PeersdError: the group's file cannot be used.
    """
    async with group.weighing:
        await trio.sleep_until(group.weighs_from_s)
        began_s, has_changed = trio.current_time(), False
        try:
            async with group.use() as opened:
                has_changed, rebuttal = await opened.store.take_plea(message, device)
                return has_changed, rebuttal
        finally:
            if not has_changed:
                now_s = trio.current_time()
                group.weighs_from_s = now_s + min(REST_S_MAX, max(LANE_RETRY_MS / 1000, REST_PARTS * (now_s - began_s)))
