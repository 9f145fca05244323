"""Admitting who redeems a ticket: any member's device may (SPEC: O-11, DESIGN 10)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from peersd.net.channels import IncomingOpen
from peersd.node.group import Group
from peersd_protocol import ids
from peersd_protocol.admission import NotAdmitted, Presented, find_admitting
from peersd_protocol.constants import HANDSHAKE_TIMEOUT_MS

_log = logging.getLogger("peersd.node")

PROOF_TIMEOUT_S: Final = HANDSHAKE_TIMEOUT_MS / 1000


async def receive_proof(wish: IncomingOpen) -> bytes:
    """The message that follows an OPEN before its answer; empty if none comes in time.

    Raises:
        ChannelIsClosed: the other side left.
    """
    with trio.move_on_after(PROOF_TIMEOUT_S):
        return await wish.receive_proof() if wish.proof_follows else b""
    return b""


async def admit(group: Group, presented: Presented, wish: IncomingOpen, device: bytes, wall_ms: Callable[[], int]) -> None:
    """Makes the user of a redemption a member. A member who redeems again is just let in.

    Args:
        group: the group that the OPEN's token named.
        presented: the redemption in the OPEN.
        wish: the OPEN; the identity log follows on it.
        device: this device, one of whose users admits.
        wall_ms: the clock that the invite's expiry is judged by.

    Raises:
        NotAdmitted: as the rules say.
        ChannelIsClosed: the other side left.
        PeersdError: the group's file cannot be used now.
    """
    shown = {"group": group.text_id, "user": ids.format_id(ids.USER, presented.redemption.user)}
    async with group.use() as opened:
        find_admitting(opened.state, presented, device)
        message = await receive_proof(wish)
        try:
            await opened.store.admit(presented, message, wall_ms())
        except NotAdmitted as refusal:
            if refusal.fault is not None:
                _log.warning("redemption_refused", extra={"fields": {**shown, "detail": refusal.fault.detail}})
            raise
    _log.info("member_admitted", extra={"fields": shown})
