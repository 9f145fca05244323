"""Letting in who redeems an invite: what a member's device decides, by bytes and the group's state alone (SPEC: O-11).

First `find_admitting`, when the OPEN has come: only of who passes is more than that read. Then `judge`, when the identity log has
come, by what the group's state is at that moment.
"""

from __future__ import annotations

from dataclasses import dataclass

from peersd_protocol.act_bodies import decode_acts
from peersd_protocol.acts import Admit
from peersd_protocol.entries import Kind
from peersd_protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from peersd_protocol.group_state import GroupState
from peersd_protocol.identity import evaluate_user
from peersd_protocol.messages import Runs, decode_message, decode_runs
from peersd_protocol.redemption import Redemption, verify_redemption
from peersd_protocol.runs import Run


@dataclass(frozen=True, slots=True)
class Presented:
    """A redemption and the link that it came by.

    Attributes:
        redemption: as it came in OPEN.
        device: the device at the other end.
        handshake_hash: of the link.
    """

    redemption: Redemption
    device: bytes
    handshake_hash: bytes

    def act(self) -> Admit:
        """The act that makes the user a member."""
        return self.redemption.admit(self.device, self.handshake_hash)


class NotAdmitted(Exception):
    """Who redeems an invite is not let in.

    Attributes:
        reason: what may be told (O-5); None for who has not shown that it holds a ticket, or where nobody here decides about it.
        fault: what in the identity log is not as SPEC says, if it is that.
    """

    def __init__(self, reason: str | None, fault: RemoteProtocolError | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fault = fault


def find_admitting(state: GroupState, presented: Presented, device: bytes) -> bytes:
    """The member by whom a device admits, if it decides about a redemption at all.

    Args:
        state: of the group.
        presented: the redemption.
        device: the device that decides.

    Raises:
        NotAdmitted: without a reason: the invite does not stand here, its key or a signature is another one, or this device is no
            member's.
    """
    redemption = presented.redemption
    invite, users = state.invites.get(redemption.invite_hash), state.is_member_device(device)
    if invite is None or invite.public_key != redemption.invite_public_key or not users:
        raise NotAdmitted(None)
    link = presented.handshake_hash
    if not verify_redemption(redemption, group_id=state.group_id, device=presented.device, handshake_hash=link):
        raise NotAdmitted(None)
    return users[0]


def judge(state: GroupState, presented: Presented, message: bytes, device: bytes, wall_ms: int) -> tuple[bytes, list[Run]]:
    """Whether to let in who redeems an invite.

    Args:
        state: of the group, now.
        presented: the redemption.
        message: what followed it: the user's identity log. Empty if nothing came in time.
        device: the device that decides.
        wall_ms: its clock, milliseconds since 1970.

    Returns:
        By which member, and the identity log in runs, the signatures of which are still to be verified.

    Raises:
        NotAdmitted: as O-11 says.
    """
    admitting = find_admitting(state, presented, device)
    if not message:
        raise NotAdmitted("invite_invalid")
    redemption = presented.redemption
    try:
        runs = _read_identity(state.group_id, redemption, message)
        # Before anything is evaluated: who may not come in by its ticket can offer it again and again.
        refusal = state.invite_refusal(redemption.invite_hash, redemption.user, wall_ms)
        if refusal is not None:
            raise NotAdmitted(refusal)
        _check_device(redemption.user, presented.device, runs)
    except RemoteProtocolError as error:
        raise NotAdmitted("invite_invalid", error) from error
    return admitting, runs


def _read_identity(group: bytes, redemption: Redemption, message: bytes) -> list[Run]:
    """The identity log of who redeems, as far as form and owner go."""
    packed = decode_message(message)
    if not isinstance(packed, Runs):
        raise RemoteProtocolError(CloseCode.PROTOCOL, "an identity log is one RUNS message")
    runs = decode_runs(packed, group)
    if any(run.log.kind is not Kind.IDENTITY or run.log.user != redemption.user for run in runs):
        raise RemoteProtocolError(CloseCode.PROTOCOL, "more than the identity log of who redeems")
    if all(entry.header.hash != redemption.identity_head_hash for run in runs for entry in run.entries):
        raise RemoteProtocolError(CloseCode.PROTOCOL, "an identity log without the head that the redemption names")
    return runs


def _check_device(user: bytes, device: bytes, runs: list[Run]) -> None:
    """These identity acts, by themselves, make the device one of the user's."""
    acts = decode_acts(entry for run in runs for entry in run.entries)
    try:
        devices = evaluate_user(user, acts).devices
    except LocalProtocolError as error:
        raise RemoteProtocolError(CloseCode.BAD_CHAIN, "an identity log that names acts which are not in it") from error
    if device not in devices:
        raise RemoteProtocolError(CloseCode.PROTOCOL, "an identity log that does not make the device the user's")
