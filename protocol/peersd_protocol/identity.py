"""A user's identity: live devices, name and recovery keys, evaluated from the user's identity log (SPEC: U-5 to U-8, DESIGN 4).

The log is a DAG over the user's devices. What it amounts to is a function of the set of acts alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from peersd_protocol.act_index import ActIndex
from peersd_protocol.acts import AddDevice, DecodedBody, Profile, UnknownAct, UserGenesis, decode_act
from peersd_protocol.constants import IDENTITY_ACTS_MAX, USER_DEVICES_MAX
from peersd_protocol.devicekeys import DeviceCert, verify_consent
from peersd_protocol.entries import Act, Kind
from peersd_protocol.errors import RemoteProtocolError


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A live device of a user. `added_hlc` is the stamp and `added_by` the hash of the act that made it one."""

    cert: DeviceCert
    added_hlc: int
    added_by: bytes


@dataclass(frozen=True)
class UserState:
    """The evaluated user.

    Attributes:
        user: the user's id.
        name: what the user is called now; empty until the genesis is known.
        devices: live devices by public key, in the order they were added.
        recovery_keys: ascending.
        recovery_threshold: how many of them a recovery takes.
        standing: hashes of the identity acts that stand.
        void: hashes of the others.
        needs_upgrade: whether an act that stands is of a later version.
    """

    user: bytes
    name: str = ""
    devices: Mapping[bytes, DeviceState] = field(default_factory=dict)
    recovery_keys: tuple[bytes, ...] = ()
    recovery_threshold: int = 0
    standing: frozenset[bytes] = frozenset()
    void: frozenset[bytes] = frozenset()
    needs_upgrade: bool = False


def decode_or_none(act: Act) -> DecodedBody | None:
    """The act's typed body, or None if it is malformed: such an act is void, and no reason to stop.

    It is kept with the act: all acts of a group are evaluated anew whenever one comes.
    """
    kept = act.__dict__
    if "decoded" not in kept:
        try:
            kept["decoded"] = decode_act(act.header.kind, act.body)
        except RemoteProtocolError:
            kept["decoded"] = None
    decoded: DecodedBody | None = kept["decoded"]
    return decoded


def evaluate_user(user: bytes, acts: Iterable[Act]) -> UserState:
    """Evaluates one user's identity log.

    Args:
        user: the user's id, 32 bytes.
        acts: acts of that user in any order, all of whose parents are among them; others are passed over.

    Raises:
        LocalProtocolError: a parent is missing.
    """
    index = ActIndex(acts)
    return Identities(index, [decode_or_none(act) for act in index.acts]).users.get(user, UserState(user))


class Identities:
    """The identities of all users of whom a set of acts holds any.

    Args:
        index: the acts.
        bodies: their decoded bodies by position, None for malformed ones.

    Attributes:
        users: by user id.
        standing: bit set of the identity acts that stand.
    """

    def __init__(self, index: ActIndex, bodies: Sequence[DecodedBody | None]) -> None:
        self._index = index
        self._bodies = bodies
        self._granting: dict[tuple[bytes, bytes], int] = {}
        """Per (user, device) the bit set of the standing acts that make it a live device."""
        self.standing = 0
        by_user: dict[bytes, list[int]] = {}
        for position, act in enumerate(index.acts):
            if act.header.kind is Kind.IDENTITY:
                by_user.setdefault(act.header.acting_user, []).append(position)
        self.users: dict[bytes, UserState] = {user: self._evaluate(user, positions) for user, positions in by_user.items()}

    def is_live(self, user: bytes, device: bytes, past: int) -> bool:
        """Whether the device is a live one of the user by the identity acts in a past (a bit set)."""
        return bool(self._granting.get((user, device), 0) & past)

    def _evaluate(self, user: bytes, positions: Sequence[int]) -> UserState:
        """One pass in the order (depth, hash): as no act takes a device away, causes decide, and the order settles the bounds."""
        index = self._index
        devices: dict[bytes, DeviceState] = {}
        own: set[bytes] = set()
        name, genesis, needs_upgrade = "", None, False
        standing: set[bytes] = set()
        for position in positions:
            act, body = index.acts[position], self._bodies[position]
            # An identity travels with every group of its user, so it can build on nothing but itself.
            if act.header.group or not own.issuperset(act.parents):
                continue
            own.add(act.hash)
            if body is None or len(standing) >= IDENTITY_ACTS_MAX or not self._is_permitted(user, position, body, devices):
                continue
            standing.add(act.hash)
            self.standing |= 1 << position
            match body:
                case UserGenesis():
                    name, genesis = body.name, body
                    self._add(user, position, body.cert, devices)
                case AddDevice():
                    self._add(user, position, body.cert, devices)
                case Profile():
                    name = body.name
                case UnknownAct():
                    needs_upgrade = True
                case _:
                    pass
        return UserState(
            user=user,
            name=name,
            devices=devices,
            recovery_keys=genesis.recovery_keys if genesis else (),
            recovery_threshold=genesis.recovery_threshold if genesis else 0,
            standing=frozenset(standing),
            void=frozenset(index.acts[position].hash for position in positions) - standing,
            needs_upgrade=needs_upgrade,
        )

    def _is_permitted(self, user: bytes, position: int, body: DecodedBody, devices: Mapping[bytes, DeviceState]) -> bool:
        act = self._index.acts[position]
        if isinstance(body, UserGenesis):
            return act.hash == user and act.header.seq == 1 and not act.parents and body.cert.device == act.header.device
        if not act.header.user or not self.is_live(user, act.header.device, self._index.past[position]):
            return False
        if isinstance(body, AddDevice):
            fits = body.cert.device in devices or len(devices) < USER_DEVICES_MAX
            return fits and _verify_consent(body.cert.device, user, body.consent_signature)
        return True

    def _add(self, user: bytes, position: int, cert: DeviceCert, devices: dict[bytes, DeviceState]) -> None:
        act = self._index.acts[position]
        self._granting[user, cert.device] = self._granting.get((user, cert.device), 0) | 1 << position
        # Added twice, the first certificate stays.
        devices.setdefault(cert.device, DeviceState(cert, act.header.hlc, act.hash))


_verify_consent = lru_cache(maxsize=4096)(verify_consent)
"""A group is evaluated whenever an act arrives; its old signatures are not checked each time."""
