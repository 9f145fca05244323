"""Which data entries count, and whom an invite may bring in: SPEC A-17, A-20, A-27, A-35, O-11 read literally, over sets.

Slow, and apart from peersd.store. Which acts stand is the one thing taken from `evaluate`; its tests have a reference of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

from peersd_protocol.acts import (
    Admit,
    Ban,
    Cut,
    DecodedBody,
    DropDevice,
    Genesis,
    Invite,
    Leave,
    Remove,
    RevokeInvite,
    SetRole,
    decode_act,
)
from peersd_protocol.entries import Act, Header, Kind
from peersd_protocol.errors import RemoteProtocolError
from peersd_protocol.membership import evaluate
from peersd_protocol.roles import Role

Past = frozenset[bytes]

_TAKING = (Leave, Remove, Ban, SetRole, DropDevice)


class Admitted:
    """The rules, over the acts of one group and any data entries that rest on them.

    Args:
        group: the group's id.
        acts: all acts that are known, parents included.
        data: headers of data entries by hash, with those before them in their logs.
    """

    def __init__(self, group: bytes, acts: Iterable[Act], data: Mapping[bytes, Header]) -> None:
        self._acts = {act.hash: act for act in acts}
        self._data = data
        self.state = evaluate(group, self._acts.values())
        self._bodies = {hash_: _body_of(act) for hash_, act in self._acts.items()}
        self._pasts: dict[bytes, Past] = {}
        self._data_pasts: dict[bytes, Past] = {}
        self._may_write = lru_cache(maxsize=None)(self._judge)
        standing = [hash_ for hash_ in self._acts if hash_ in self.state.standing]
        self._standing = {hash_: self._bodies[hash_] for hash_ in standing if self._acts[hash_].header.kind is Kind.CONTROL}
        self._takes = {hash_: body for hash_, body in self._standing.items() if isinstance(body, _TAKING)}
        unfounded = self.state.evaluation.roster.unfounded if self.state.evaluation else 0
        index = self.state.evaluation.index if self.state.evaluation else None
        self._unfounded = index.hashes(unfounded) if index else frozenset[bytes]()

    def is_known(self, header: Header) -> bool:
        """Whether all acts that an entry and those before it in its log name are among those known."""
        branch = self._branch(header)
        return not branch[-1].prev and all(head in self._acts for before in branch for head in before.control_heads)

    def admits(self, header: Header) -> bool:
        """Whether a data entry counts."""
        user = header.user
        if not self._may_write(user, header.device, self.control_past(header)):
            return False
        return all(self._spares(take, body, header) for take, body in self._takes.items() if self._target(take) == user)

    def overused(self) -> str | None:
        """An admission that stands though its invite had been used up by what it must count (A-20); None if there is none."""
        admits = {act: body for act, body in self._standing.items() if isinstance(body, Admit)}
        for act, admit in admits.items():
            invite = self._bodies[admit.invite_hash]
            assert isinstance(invite, Invite)
            others = {
                body.user
                for other, body in admits.items()
                if body.invite_hash == admit.invite_hash and body.user != admit.user and self._must_count(other, act)
            }
            if len(others) >= invite.max_uses:
                return f"{admit.user[:4].hex()} is let in by an invite of {invite.max_uses} uses after {len(others)} others"
        return None

    def _must_count(self, other: bytes, act: bytes) -> bool:
        """Whether an admission is in another one's past, or comes before it and has the same author."""
        is_same = self._acts[other].header.user == self._acts[act].header.user
        return other in self._past(act) or (is_same and (self._depth(other), other) < (self._depth(act), act))

    def endings_of(self, device: bytes) -> Past:
        """The acts by which a device's users ceased to be members, or were left without it, and that no appointment has seen.

        Whether such an appointment stands does not matter: while it was thought to, the device was a member's. So it was while
        an act was thought to stand by which the ending one falls: there is none that takes from who wrote that, without having
        it in its past, and does not stand.
        """
        found: set[bytes] = set()
        for user in self.state.former_users(device):
            appointments = [act for act, body in self._bodies.items() if isinstance(body, Admit | SetRole) and body.user == user]
            for act, body in self._takes.items():
                ends = isinstance(body, Leave | Remove | Ban) or (isinstance(body, DropDevice) and body.device == device)
                is_seen = any(act in self._past(other) for other in appointments)
                if ends and self._target(act) == user and not is_seen and not self._may_have_fallen(act):
                    found.add(act)
        return frozenset(found)

    def _may_have_fallen(self, act: bytes) -> bool:
        author = self._acts[act].header.user
        void = {take: body for take, body in self._bodies.items() if isinstance(body, _TAKING) and take not in self._standing}
        return any(self._taken_from(take, body) == author and act not in self._past(take) for take, body in void.items())

    def _judge(self, user: bytes, device: bytes, past: Past) -> bool:
        return self._role(user, past) >= Role.WRITER and self._is_live(user, device, past)

    # --- Pasts ------------------------------------------------------------------------------------------------------------------

    def _branch(self, header: Header) -> list[Header]:
        """An entry and all before it in its log, the first one last."""
        found = [header]
        while found[-1].prev and found[-1].prev in self._data:
            found.append(self._data[found[-1].prev])
        return found

    def control_past(self, header: Header) -> Past:
        """SPEC E-9: the acts that an entry or one before it in its log names, and all before these."""
        for before in reversed(self._branch(header)):
            if before.hash not in self._data_pasts:
                earlier = self._data_pasts.get(before.prev, frozenset())
                named = self._closure(before.control_heads)
                self._data_pasts[before.hash] = earlier | named if named else earlier
        return self._data_pasts[header.hash]

    def _closure(self, heads: Iterable[bytes]) -> Past:
        return frozenset[bytes]().union(*(self._past(head) | {head} for head in heads if head in self._acts))

    def _past(self, act: bytes) -> Past:
        missing = [act]
        while missing:
            name = missing[-1]
            parents = self._acts[name].parents
            unknown = [parent for parent in parents if parent not in self._pasts]
            if unknown:
                missing += unknown
                continue
            self._pasts[name] = frozenset[bytes](parents).union(*(self._pasts[parent] for parent in parents))
            missing.pop()
        return self._pasts[act]

    def _depth(self, act: bytes) -> int:
        """How many acts the longest way to one without parents passes."""
        depths: dict[bytes, int] = {}
        for one in sorted((*self._past(act), act), key=lambda one: len(self._past(one))):  # parents come first
            depths[one] = 1 + max((depths[parent] for parent in self._acts[one].parents), default=0)
        return depths[act]

    # --- Roles ------------------------------------------------------------------------------------------------------------------

    def _target(self, act: bytes) -> bytes:
        return self._taken_from(act, self._standing[act])

    def _taken_from(self, act: bytes, body: object) -> bytes:
        return self._acts[act].header.user if isinstance(body, Leave) else getattr(body, "user", b"")

    def _granted(self, act: bytes) -> tuple[bytes, int] | None:
        """Whom an act appoints to what."""
        match self._standing[act]:
            case Genesis():
                return self._acts[act].header.user, Role.FOUNDER
            case Admit() as admit:
                invite = self._bodies[admit.invite_hash]
                assert isinstance(invite, Invite)
                return admit.user, invite.role
            case SetRole() as change if act not in self._unfounded:
                return change.user, change.role
            case _:
                return None

    def _role(self, user: bytes, past: Past) -> int:
        seen = [act for act in self._standing if act in past]
        ends = [act for act in seen if isinstance(self._standing[act], Leave | Remove | Ban) and self._target(act) == user]
        caps = [
            (act, body.role)
            for act in seen
            if isinstance(body := self._standing[act], SetRole) and body.cuts is not None and body.user == user
        ]
        best: int = Role.NONE
        for act in seen:
            granted = self._granted(act)
            if granted is None or granted[0] != user or any(end not in self._past(act) for end in ends):
                continue
            unseen = [role for cap, role in caps if cap != act and cap not in self._past(act)]
            best = max(best, min([granted[1], *unseen]))
        return best

    def _is_live(self, user: bytes, device: bytes, past: Past) -> bool:
        granting = self.state.users[user].devices.get(device) if user in self.state.users else None
        if granting is None or granting.added_by not in past:
            return False
        appointments = [act for act in self._standing if act in past and (self._granted(act) or (b"",))[0] == user]
        drops = (
            act
            for act in past & self._standing.keys()
            if isinstance(body := self._standing[act], DropDevice) and (body.user, body.device) == (user, device)
        )
        return all(any(drop in self._past(other) for other in appointments) for drop in drops)

    # --- Cuts -------------------------------------------------------------------------------------------------------------------

    def _spares(self, take: bytes, body: DecodedBody, header: Header) -> bool:
        """Whether a taking act leaves an entry of the user it takes from."""
        assert isinstance(body, _TAKING)
        if isinstance(body, SetRole) and (body.cuts is None or body.role >= Role.WRITER):
            return True
        if isinstance(body, DropDevice) and body.device != header.device:
            return True
        tips = [
            cut
            for user, cuts in body.cuts or ()
            for cut in cuts
            if (user, cut.kind, cut.device, cut.epoch) == (header.user, Kind.DATA, header.device, header.epoch)
        ]
        if tips:
            return any(self._is_within(header, tip) for tip in tips)
        first_past = self._closure(self._branch(header)[-1].control_heads)
        if isinstance(body, SetRole) and take in first_past:
            return True
        appointing = (
            act
            for act in first_past
            if isinstance(appointment := self._bodies[act], Admit | SetRole) and appointment.user == header.user
        )
        return any(take in self._past(act) for act in appointing)

    def _is_within(self, header: Header, tip: Cut) -> bool:
        if tip.hash not in self._data:
            return header.seq <= tip.seq
        return any(before.hash == header.hash for before in self._branch(self._data[tip.hash]))


def find_hindrance(acts: Iterable[Act], standing: Collection[bytes], invite: bytes, user: bytes, wall_ms: int) -> str | None:
    """What keeps a device from admitting a user by an invite now (O-11), of what the invite says; None if nothing does.

    Args:
        acts: that the device has.
        standing: the hashes of those that stand.
        invite: the hash of its entry.
        user: who is no member.
        wall_ms: the device's clock.
    """
    bodies = {act.hash: _body_of(act) for act in acts if act.hash in standing}
    found = bodies.get(invite)
    if not isinstance(found, Invite):
        return "there is no such invite"
    users = {body.user for body in bodies.values() if isinstance(body, Admit) and body.invite_hash == invite}
    if len(users - {user}) >= found.max_uses:
        return "it is used up"
    if any(isinstance(body, RevokeInvite) and body.invite_hash == invite for body in bodies.values()):
        return "it is revoked"
    return "it has expired" if wall_ms >= found.expires_ms else None


def _body_of(act: Act) -> DecodedBody | None:
    try:
        return decode_act(act.header.kind, act.body)
    except RemoteProtocolError:
        return None
