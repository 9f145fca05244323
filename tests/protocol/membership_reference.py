"""Part A of SPEC once more, as its rules read: sets of hashes, everything judged anew at each step. Slow, and only for tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from peersd_protocol.act_index import ActIndex, depths
from peersd_protocol.acts import (
    Admit,
    Ban,
    DecodedBody,
    DropDevice,
    Genesis,
    Invite,
    Leave,
    NoAct,
    Remove,
    RevokeInvite,
    SchemaAct,
    SetRole,
    Settings,
    Unban,
    UnknownAct,
)
from peersd_protocol.constants import LEAVE_ROUNDS_MAX
from peersd_protocol.entries import Act, Kind
from peersd_protocol.identity import Identities, decode_or_none

Hashes = frozenset[bytes]
Order = tuple[int, bytes]

ENDING = (Leave, Remove, Ban)
TAKING = (Leave, Remove, Ban, SetRole, DropDevice, RevokeInvite)


class Reference:
    """A group evaluated slowly. Signatures of redemptions are taken to be good, and so are all headers.

    Attributes:
        stands: the hashes of the acts that stand.
    """

    def __init__(self, group: bytes, acts: Iterable[Act]) -> None:
        self.group = group
        self.acts = {act.hash: act for act in acts}
        depth = depths(self.acts)
        self.order: dict[bytes, Order] = {name: (depth[name], name) for name in self.acts}
        self.body: dict[bytes, DecodedBody | None] = {name: decode_or_none(act) for name, act in self.acts.items()}
        self.past: dict[bytes, Hashes] = {}
        for name in sorted(self.acts, key=self.order.__getitem__):
            parents = frozenset(self.acts[name].parents)
            self.past[name] = parents.union(*(self.past[parent] for parent in parents))
        self.index = ActIndex(self.acts.values())
        self.identities = Identities(self.index, [self.body[act.hash] for act in self.index.acts])
        self.control = [
            name
            for name in sorted(self.acts, key=self.order.__getitem__)
            if self.acts[name].header.kind is Kind.CONTROL and self.is_well_made(name)
        ]
        self.stands: set[bytes] = set()
        self.unfounded: set[bytes] = set()
        self.decide_all()

    def user(self, name: bytes) -> bytes:
        return self.acts[name].header.acting_user

    def target(self, name: bytes) -> bytes:
        body = self.body[name]
        return self.user(name) if isinstance(body, Leave) else getattr(body, "user", b"")

    def is_own(self, name: bytes) -> bool:
        return not isinstance(self.body[name], RevokeInvite) and self.target(name) == self.user(name)

    def is_taking(self, name: bytes) -> bool:
        body = self.body[name]
        return isinstance(body, TAKING) and not (isinstance(body, SetRole) and body.cuts is None)

    def is_live(self, user: bytes, device: bytes, past: Hashes) -> bool:
        return self.identities.is_live(user, device, self.index.closure(past))

    def is_well_made(self, name: bytes) -> bool:
        header, body, past = self.acts[name].header, self.body[name], self.past[name]
        if body is None or not self.is_live(header.user, header.device, past):
            return False
        if name == self.group or isinstance(body, Genesis):
            return name == self.group
        if isinstance(body, Admit | RevokeInvite) and body.invite_hash not in past:
            return False
        return not isinstance(body, Admit | DropDevice) or self.is_live(body.user, body.device, past)

    # --- Roles in a past ---

    def standing_in(self, past: Hashes, *types: type) -> Iterator[bytes]:
        return (name for name in self.control if name in past and name in self.stands and isinstance(self.body[name], types))

    def granted(self, name: bytes) -> tuple[bytes, int] | None:
        """Whom an act appoints to what."""
        match self.body[name]:
            case Genesis():
                return self.user(name), 100
            case Admit() as admit:
                invite = self.body[admit.invite_hash]
                assert isinstance(invite, Invite)
                return admit.user, invite.role
            case SetRole() as change if name not in self.unfounded:
                return change.user, change.role
            case _:
                return None

    def counting(self, user: bytes, past: Hashes) -> dict[bytes, int]:
        """The appointments of a user in a past with what each counts for."""
        found = {}
        ends = [name for name in self.standing_in(past, *ENDING) if self.target(name) == user]
        lowering = [
            (name, body.role)
            for name in self.standing_in(past, SetRole)
            if isinstance(body := self.body[name], SetRole) and body.user == user and body.cuts is not None
        ]
        for name in self.standing_in(past, Genesis, Admit, SetRole):
            granted = self.granted(name)
            if granted is not None and granted[0] == user and all(end in self.past[name] for end in ends):
                caps = [role for other, role in lowering if other != name and other not in self.past[name]]
                found[name] = min([granted[1], *caps])
        return found

    def role(self, user: bytes, past: Hashes) -> int:
        return max(self.counting(user, past).values(), default=0)

    def rank(self, user: bytes, past: Hashes) -> tuple[int, Order]:
        """Lower is senior."""
        role = self.role(user, past)
        first = min((self.order[name] for name, counts in self.counting(user, past).items() if counts == role), default=None)
        return -role, first or (2**31, b"")

    def author_role(self, name: bytes) -> int:
        return self.role(self.user(name), self.past[name])

    def holding_bans(self, user: bytes, past: Hashes) -> list[bytes]:
        bans = [name for name in self.standing_in(past, Ban) if self.target(name) == user]
        unbans = [name for name in self.standing_in(past, Unban) if self.target(name) == user]
        return [
            ban
            for ban in bans
            if not any(ban in self.past[unban] and self.author_role(unban) >= self.author_role(ban) for unban in unbans)
        ]

    def is_dropped(self, user: bytes, device: bytes, past: Hashes) -> bool:
        grants = [name for name in self.standing_in(past, Genesis, Admit, SetRole) if (self.granted(name) or (b"",))[0] == user]
        for name in self.standing_in(past, DropDevice):
            body = self.body[name]
            assert isinstance(body, DropDevice)
            if (body.user, body.device) == (user, device) and not any(name in self.past[grant] for grant in grants):
                return True
        return False

    def removals(self, user: bytes, past: Hashes) -> list[bytes]:
        return [name for name in self.standing_in(past, Remove, Ban) if self.target(name) == user]

    def is_withdrawn(self, invite: bytes, past: Hashes) -> bool:
        author, body = self.user(invite), self.body[invite]
        assert isinstance(body, Invite)
        role = self.role(author, past)
        return not (role >= 50 and body.role < role) or any(it not in self.past[invite] for it in self.removals(author, past))

    # --- Deciding ---

    def is_permitted(self, name: bytes) -> bool:
        past, body, user = self.past[name], self.body[name], self.user(name)
        if name == self.group:
            return True
        if self.is_dropped(user, self.acts[name].header.device, past):
            return False
        role = self.role(user, past)
        target = self.role(self.target(name), past)
        own = self.is_own(name)
        match body:
            case Settings() | SchemaAct():
                return role >= 60
            case Invite():
                return role >= 50 and body.role < role
            case RevokeInvite():
                invite = self.body[body.invite_hash]
                return isinstance(invite, Invite) and role >= 50 and invite.role < role
            case Admit():
                return role > 0 and self.is_admissible(name, body)
            case SetRole():
                if own:
                    return body.cuts is not None and body.role < role
                return role >= 60 and 0 < target < role and body.role < role
            case Remove():
                return role >= 50 and 0 < target < role
            case Ban():
                return role >= 50 and target < role and not own
            case Unban():
                return role >= 50
            case DropDevice():
                return role > 0 if own else role >= 60 and 0 < target < role
            case Leave() | NoAct() | UnknownAct():
                return role > 0
            case _:
                return False

    def is_admissible(self, name: bytes, admit: Admit) -> bool:
        past, invite = self.past[name], self.body[admit.invite_hash]
        assert isinstance(invite, Invite)
        if admit.invite_hash not in self.stands or self.is_withdrawn(admit.invite_hash, past):
            return False
        if self.holding_bans(admit.user, past):
            return False
        if any(it not in self.past[admit.invite_hash] for it in self.removals(admit.user, past)):
            return False
        used = set()
        for other in self.control:
            body = self.body[other]
            if isinstance(body, Admit) and body.invite_hash == admit.invite_hash and other in self.stands:
                before = self.order[other] < self.order[name] and self.user(other) == self.user(name)
                if other in past or before:
                    used.add(body.user)
        return len(used - {admit.user}) < invite.max_uses

    def causal_pass(self, voided: set[bytes], decided: set[bytes]) -> None:
        self.stands, self.unfounded = set(self.index.hashes(self.identities.standing)), set()
        for name in self.control:
            permitted = self.is_permitted(name)
            if name in decided or (permitted and name not in voided):
                self.stands.add(name)
                if isinstance(self.body[name], SetRole) and not permitted:
                    self.unfounded.add(name)

    def decide(self, fallen: set[bytes]) -> None:
        voided, decided = set(fallen), set[bytes]()
        while True:
            self.causal_pass(voided, decided)
            pending = [name for name in self.control if name in self.stands and name not in decided and self.is_taking(name)]
            if not pending:
                return
            name = min(pending, key=self.turn)
            decided.add(name)
            voided |= self.killed_by(name) - decided

    def turn(self, name: bytes) -> tuple[int, tuple[int, Order], Order]:
        if self.is_own(name):
            return 0, (0, (0, b"")), self.order[name]
        return 1, self.rank(self.user(name), self.past[name]), self.order[name]

    def killed_by(self, name: bytes) -> set[bytes]:
        body = self.body[name]
        unseen = [other for other in self.control if other != name and other not in self.past[name]]
        if isinstance(body, RevokeInvite):
            return {other for other in unseen if self.is_admission_by(other, [body.invite_hash])}
        user = self.target(name)
        killed = {other for other in unseen if self.user(other) == user and self.is_beyond(name, other)}
        if self.is_own(name):
            return killed
        if isinstance(body, Remove | Ban):
            invites = [it for it in self.control if isinstance(self.body[it], Invite) and self.user(it) == user]
            killed |= {
                other for other in unseen if self.is_admission_by(other, [it for it in invites if name not in self.past[it]])
            }
        rank = self.rank(self.user(name), self.past[name])
        return {other for other in killed if self.rank_of_act(other) > rank}

    def is_admission_by(self, name: bytes, invites: list[bytes]) -> bool:
        body = self.body[name]
        return isinstance(body, Admit) and body.invite_hash in invites

    def rank_of_act(self, name: bytes) -> tuple[int, Order]:
        body, granted = self.body[name], self.granted(name)
        if isinstance(body, Admit) and granted is not None:
            return -granted[1], self.order[name]
        return self.rank(self.user(name), self.past[name])

    def is_beyond(self, take: bytes, name: bytes) -> bool:
        body = self.body[take]
        assert isinstance(body, Leave | Remove | Ban | SetRole | DropDevice)
        log, user = self.acts[name].header.log, self.target(take)
        if isinstance(body, DropDevice) and log.device != body.device:
            return False
        tips = [
            cut
            for named, cuts in body.cuts or ()
            for cut in cuts
            if named == user and (cut.kind, cut.device, cut.epoch) == (Kind.CONTROL, log.device, log.epoch)
        ]
        if tips:
            return not any(
                (name == tip.hash or name in self.past[tip.hash])
                if tip.hash in self.acts
                else self.acts[name].header.seq <= tip.seq
                for tip in tips
            )
        first = name
        while self.acts[first].header.prev:
            first = self.acts[first].header.prev
        if isinstance(body, SetRole) and take in self.past[first]:
            return False
        for other in self.control:
            appoints = isinstance(self.body[other], Admit | SetRole) and self.target(other) == user
            if appoints and other in self.past[first] and take in self.past[other]:
                return False
        return True

    # --- Last admins ---

    def is_resignation(self, name: bytes) -> bool:
        body = self.body[name]
        lowers = isinstance(body, SetRole) and body.cuts is not None and body.role < 60
        return isinstance(body, Leave) or (lowers and self.is_own(name))

    def falling(self) -> set[bytes]:
        resignations = [
            name for name in self.control if name in self.stands and self.is_resignation(name) and self.author_role(name) >= 60
        ]
        falling = set[bytes]()
        for name in resignations:
            roles = self.roles(self.past[name] - falling)
            body = self.body[name]
            roles[self.user(name)] = body.role if isinstance(body, SetRole) else 0
            if 0 < max(roles.values()) < 60:
                falling.add(name)
        roles = self.roles(frozenset(self.acts))
        if falling or not resignations or not 0 < max(roles.values()) < 60:
            return falling
        last = [name for name in resignations if not any(name in self.past[other] for other in resignations)]
        return {min(last, key=lambda name: self.rank(self.user(name), self.past[name]))}

    def roles(self, past: Hashes) -> dict[bytes, int]:
        users = {self.user(name) for name in self.acts}
        return {user: self.role(user, past) for user in users}

    def decide_all(self) -> None:
        fallen, rounds = set[bytes](), 0
        self.decide(fallen)
        while falling := self.falling():
            rounds += 1
            if rounds > LEAVE_ROUNDS_MAX:
                makers = {self.user(name) for name in falling}
                falling |= {name for name in self.control if self.is_resignation(name) and self.user(name) in makers}
            fallen |= falling
            self.decide(fallen)
