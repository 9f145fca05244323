"""Admitting who redeems a ticket: any member's device may (DESIGN 10)."""

from __future__ import annotations

import logging
from typing import Final

import trio

from peersd.crash_points import CrashPoint, reach
from peersd.errors import PeersdError
from peersd.net.channels import IncomingOpen, LinkHandle
from peersd.node.group import Group
from peersd.node.kept_store import Opened
from peersd_protocol import ids
from peersd_protocol.act_bodies import decode_acts
from peersd_protocol.acts import encode_body
from peersd_protocol.constants import HANDSHAKE_TIMEOUT_MS
from peersd_protocol.entries import Kind
from peersd_protocol.errors import LocalProtocolError, RemoteProtocolError
from peersd_protocol.identity import evaluate_user
from peersd_protocol.messages import Runs, decode_message, decode_runs
from peersd_protocol.redemption import Redemption, verify_redemption
from peersd_protocol.runs import Run

_log = logging.getLogger("peersd.node")

PROOF_TIMEOUT_S: Final = HANDSHAKE_TIMEOUT_MS / 1000


class Refusal(Exception):
    """The OPEN is refused; with a reason only for who proved to hold the ticket."""

    def __init__(self, reason: str | None) -> None:
        super().__init__(reason)
        self.reason = reason


async def admit(
    group: Group, proof: Redemption, wish: IncomingOpen, handle: LinkHandle, own_users: list[bytes], wall_ms: int
) -> None:
    """Verifies a redemption and makes its user a member. A member who redeems again is just let in.

    Args:
        group: the group that the OPEN's token named.
        proof: the redemption in the OPEN.
        wish: the OPEN; the identity log follows on it.
        handle: its link.
        own_users: this device's users, one of whom admits.
        wall_ms: the clock that the invite's expiry is judged by.

    Raises:
        Refusal: as the rules say; without a reason until the invite key's signature proved good.
        ChannelIsClosed: the other side left.
    """
    if not verify_redemption(proof, group_id=group.id, device=handle.remote_device, handshake_hash=handle.handshake_hash):
        raise Refusal(None)
    async with group.use() as opened:
        await _admit(group, opened, proof, wish, handle, own_users, wall_ms)
    _log.info("member_admitted", extra={"fields": {"group": group.text_id, "user": ids.format_id(ids.USER, proof.user)}})


async def _admit(
    group: Group, opened: Opened, proof: Redemption, wish: IncomingOpen, handle: LinkHandle, own_users: list[bytes], wall_ms: int
) -> None:
    invite = opened.state.invites.get(proof.invite_hash)
    if invite is None or invite.public_key != proof.invite_public_key:
        raise Refusal(None)
    admitting = next((user for user in own_users if opened.state.role_of(user)), None)
    if admitting is None or opened.state.personal:
        raise Refusal(None)
    runs = await _receive_identity(wish, group, proof)
    async with group.admitting:
        refusal = opened.state.invite_refusal(proof.invite_hash, proof.user, wall_ms)
        if refusal is not None:
            raise Refusal(refusal)
        if not _owns(runs, proof.user, handle.remote_device):
            raise Refusal("invite_invalid")  # before anything of it is kept
        try:
            await opened.store.take_runs(runs)
        except PeersdError as error:
            raise Refusal(None) from error  # this group's file cannot be written now
        except RemoteProtocolError as error:
            _log.warning("redemption_refused", extra={"fields": {"group": group.text_id, "detail": error.detail}})
            raise Refusal("invite_invalid") from error
        if opened.state.role_of(proof.user):
            return
        reach(CrashPoint.ADMISSION_BEGUN)
        act = proof.admit(handle.remote_device, handle.handshake_hash)
        try:
            await opened.store.act(admitting, Kind.CONTROL, encode_body(act))
        except PeersdError as error:
            raise Refusal("invite_invalid") from error


def _owns(runs: list[Run], user: bytes, device: bytes) -> bool:
    """Whether these identity acts, by themselves, make the device one of the user's."""
    try:
        acts = decode_acts(entry for run in runs for entry in run.entries)
        return device in evaluate_user(user, acts).devices
    except (RemoteProtocolError, LocalProtocolError):
        return False  # its bodies do not decode, or it names acts that are not among them


async def _receive_identity(wish: IncomingOpen, group: Group, proof: Redemption) -> list[Run]:
    """The joining user's identity log, as it follows the OPEN; verified as far as form and owner go."""
    if not wish.proof_follows:
        raise Refusal("invite_invalid")
    message = b""
    with trio.move_on_after(PROOF_TIMEOUT_S):
        message = await wish.receive_proof()
    try:
        packed = decode_message(message)
        runs = decode_runs(packed, group.id) if isinstance(packed, Runs) else []
    except RemoteProtocolError as error:
        raise Refusal("invite_invalid") from error
    is_own = all(run.log.kind is Kind.IDENTITY and run.log.user == proof.user for run in runs)
    if not is_own or all(entry.header.hash != proof.identity_head_hash for run in runs for entry in run.entries):
        raise Refusal("invite_invalid")
    return runs
