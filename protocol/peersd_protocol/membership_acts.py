"""The bodies of acts that give roles and take rights: types 6 and 8 to 12, with their cuts (SPEC: A-3, A-8).

An act that takes a right names the tips of the logs that still count, its cuts. Its body reserves a mode; what has another one
than MODE_REVOKE is of a later version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from peersd_protocol.canonical import Value
from peersd_protocol.constants import BAN_REASON_BYTES_MAX, CUT_LOGS_MAX, CUT_USERS_MAX, SEQ_MAX
from peersd_protocol.entries import DEVICE_BYTES, EPOCH_BYTES, Kind
from peersd_protocol.fields import check_ascending, malformed, read_array, read_bytes, read_int
from peersd_protocol.names import is_reason
from peersd_protocol.roles import Role
from peersd_protocol.signing import HASH_BYTES

MODE_REVOKE: Final = 0
"""The one mode of cuts: all beyond the cut is void."""

GRANTED_ROLES: Final = frozenset([Role.READER, Role.WRITER, Role.MODERATOR, Role.ADMIN, Role.OWNER])
"""What an invite or a set_role may grant; founder is who wrote the genesis."""


@dataclass(frozen=True, slots=True)
class UnknownAct:
    """An act of a later version of peersd."""

    type: int


@dataclass(frozen=True, slots=True, order=True)
class Cut:
    """One tip, known to the author of an act that takes a right: the (sequence, hash) up to which a log still counts."""

    kind: Kind
    device: bytes
    epoch: bytes
    seq: int
    hash: bytes


Cuts: TypeAlias = tuple[tuple[bytes, tuple[Cut, ...]], ...]
"""Per user, ascending, the tips of that user's logs, ascending."""


@dataclass(frozen=True, slots=True)
class Leave:
    """The author leaves the group; `cuts` name all logs of the author that still count."""

    cuts: Cuts


@dataclass(frozen=True, slots=True)
class SetRole:
    """Gives a member another role.

    Attributes:
        user: whose role it is.
        role: reader to owner.
        cuts: None for a promotion, which grants and takes nothing. With cuts it is a demotion: whatever the user was granted
            before, or apart from it, counts for no more than `role`, and `role` is granted.
    """

    user: bytes
    role: int
    cuts: Cuts | None = None


@dataclass(frozen=True, slots=True)
class Remove:
    """Ends a user's membership. Invites that had not seen it bring the user in no more."""

    user: bytes
    cuts: Cuts


@dataclass(frozen=True, slots=True)
class Ban:
    """Ends a user's membership, if there is one, and keeps the user out until an unban.

    Attributes:
        user: who is banned.
        reason: text for people, maybe empty.
        cuts: as in a removal.
    """

    user: bytes
    reason: str
    cuts: Cuts


@dataclass(frozen=True, slots=True)
class Unban:
    """Lifts the bans of a user that its author had seen and is not outranked by. It makes nobody a member."""

    user: bytes


@dataclass(frozen=True, slots=True)
class DropDevice:
    """Takes a device from a member, who stays one; `cuts` name the logs of that device that still count."""

    user: bytes
    device: bytes
    cuts: Cuts


MembershipBody: TypeAlias = Leave | SetRole | Remove | Ban | Unban | DropDevice


def membership_value(act: MembershipBody) -> list[Value]:
    """The array that travels."""
    match act:
        case Leave():
            return [6, MODE_REVOKE, _cuts_value(act.cuts)]
        case SetRole():
            taking: list[Value] = [None, None] if act.cuts is None else [MODE_REVOKE, _cuts_value(act.cuts)]
            return [8, act.user, act.role, *taking]
        case Remove():
            return [9, MODE_REVOKE, act.user, _cuts_value(act.cuts)]
        case Ban():
            return [10, MODE_REVOKE, act.user, act.reason, _cuts_value(act.cuts)]
        case Unban():
            return [11, act.user]
        case DropDevice():
            return [12, MODE_REVOKE, act.user, act.device, _cuts_value(act.cuts)]


def _cuts_value(cuts: Cuts) -> list[Value]:
    return [[user, [[int(cut.kind), cut.device, cut.epoch, cut.seq, cut.hash] for cut in logs]] for user, logs in cuts]


def read_granted_role(value: Value) -> int:
    """A role that an act may grant: reader to owner.

    Raises:
        RemoteProtocolError: MALFORMED.
    """
    granted = read_int(value, "role", Role.READER, Role.OWNER)
    if granted not in GRANTED_ROLES:
        raise malformed("no such role")
    return granted


def _decode_leave(value: Sequence[Value]) -> Leave | UnknownAct:
    _, mode, cuts = read_array(value, "leave", length=3)
    return Leave(_read_cuts(cuts)) if _is_revoking(mode) else UnknownAct(6)


def _decode_set_role(value: Sequence[Value]) -> SetRole | UnknownAct:
    _, user, role, mode, cuts = read_array(value, "set role", length=5)
    if mode is None:
        if cuts is not None:
            raise malformed("cuts without a mode")
        return SetRole(read_bytes(user, "user", HASH_BYTES), read_granted_role(role))
    if not _is_revoking(mode):
        return UnknownAct(8)
    return SetRole(read_bytes(user, "user", HASH_BYTES), read_granted_role(role), _read_cuts(cuts))


def _decode_remove(value: Sequence[Value]) -> Remove | UnknownAct:
    _, mode, user, cuts = read_array(value, "remove", length=4)
    return Remove(read_bytes(user, "user", HASH_BYTES), _read_cuts(cuts)) if _is_revoking(mode) else UnknownAct(9)


def _decode_ban(value: Sequence[Value]) -> Ban | UnknownAct:
    _, mode, user, reason, cuts = read_array(value, "ban", length=5)
    if not _is_revoking(mode):
        return UnknownAct(10)
    if not isinstance(reason, str) or not is_reason(reason):
        raise malformed(f"not a reason of at most {BAN_REASON_BYTES_MAX} bytes")
    return Ban(read_bytes(user, "user", HASH_BYTES), reason, _read_cuts(cuts))


def _decode_unban(value: Sequence[Value]) -> Unban:
    _, user = read_array(value, "unban", length=2)
    return Unban(read_bytes(user, "user", HASH_BYTES))


def _decode_drop_device(value: Sequence[Value]) -> DropDevice | UnknownAct:
    _, mode, user, device, cuts = read_array(value, "drop device", length=5)
    if not _is_revoking(mode):
        return UnknownAct(12)
    return DropDevice(read_bytes(user, "user", HASH_BYTES), read_bytes(device, "device", DEVICE_BYTES), _read_cuts(cuts))


MEMBERSHIP_DECODERS: Final[Mapping[int, Callable[[Sequence[Value]], MembershipBody | UnknownAct]]] = {
    6: _decode_leave,
    8: _decode_set_role,
    9: _decode_remove,
    10: _decode_ban,
    11: _decode_unban,
    12: _decode_drop_device,
}
"""By type of act. Each raises MALFORMED for wrong types, lengths, bounds or order."""


def _is_revoking(mode: Value) -> bool:
    return read_int(mode, "mode", 0, 2**31) == MODE_REVOKE


def _read_cuts(value: Value) -> Cuts:
    cuts: list[tuple[bytes, tuple[Cut, ...]]] = []
    total = 0
    for item in read_array(value, "cuts", items_max=CUT_USERS_MAX):
        user, logs = read_array(item, "cuts of a user", length=2)
        tips = tuple(_read_cut(cut) for cut in read_array(logs, "logs", items_max=CUT_LOGS_MAX))
        check_ascending(tips, "logs")
        total += len(tips)
        cuts.append((read_bytes(user, "user", HASH_BYTES), tips))
    check_ascending([user for user, _ in cuts], "users")
    if total > CUT_LOGS_MAX:
        raise malformed("too many cuts")
    return tuple(cuts)


def _read_cut(value: Value) -> Cut:
    kind, device, epoch, seq, tip = read_array(value, "cut", length=5)
    return Cut(
        Kind(read_int(kind, "kind", Kind.CONTROL, Kind.DATA)),
        read_bytes(device, "device", DEVICE_BYTES),
        read_bytes(epoch, "epoch", EPOCH_BYTES),
        read_int(seq, "seq", 1, SEQ_MAX),
        read_bytes(tip, "tip"),
    )
