"""Which acts of a group stand (SPEC: A, DESIGN 10).

Two steps alternate. The causal pass goes through the acts in the order (depth, hash) and lets each stand that its author had
the right to, by the acts of its own past that stand, and that nothing decided so far has voided. Then the acts that take a
right are decided one by one, those that need no rank first, then from high rank to low; each voids what lies beyond its cuts,
and where that changes anything the pass is made again. Only higher rank takes from lower, so mutual and circular removals
cannot both stand.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from peersd_protocol.act_index import ActIndex, bits_of
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
from peersd_protocol.cuts import Take, killed_by, take_of
from peersd_protocol.entries import Kind
from peersd_protocol.identity import Identities
from peersd_protocol.redemption import verify_redemption_signatures
from peersd_protocol.roles import (
    Deed,
    Role,
    may,
    may_ban,
    may_drop_device,
    may_grant,
    may_lower_oneself,
    may_remove,
    may_set_role,
)
from peersd_protocol.roster import Roster


class Standing:
    """The acts of one group with what stands of them.

    Args:
        group_id: the group's id, 32 bytes.
        index: control and identity acts.
        bodies: decoded bodies by position, None for malformed ones.
        identities: the users that the acts know.

    Attributes:
        stands: bit set of the acts that stand.
        genesis: the genesis, or None while it is not known or not understood.
        roster: the well-made acts that give and take roles and devices.
        takes: well-made acts that take a right from a user, by position.
        takes_on: per user the bit set of these.
    """

    def __init__(self, group_id: bytes, index: ActIndex, bodies: Sequence[DecodedBody | None], identities: Identities) -> None:
        self.index: Final = index
        self.bodies: Final = bodies
        self.identities: Final = identities
        self.group_id: Final = group_id
        self.genesis: Genesis | None = None
        self.stands = 0
        self.takes: Final[dict[int, Take]] = {}
        self.takes_on: Final[dict[bytes, int]] = {}
        self.roster: Final = Roster(index)
        self.admissions: Final[dict[int, int]] = {}
        """Per invite (its position) the bit set of the admissions by it."""
        self.revocations: Final[dict[int, int]] = {}
        """Per invite the bit set of the acts that revoke it."""
        self.invites = 0
        """The bit set of the well-made invites."""
        self._acts_of: Final[dict[bytes, int]] = {}
        self._taking = 0
        """The bit set of the acts that take something: those on users, and revocations."""
        self._demotions = 0
        self._candidates: Final[list[int]] = []
        for position in range(len(index.acts)):
            if self._is_well_made(position):
                self._register(position)
        self._rests_on: Final = list(index.past)
        """What the judgement of an act may look at: its past, and of an admission the others by the same invite."""
        for admissions in self.admissions.values():
            for position in bits_of(admissions):
                self._rests_on[position] |= admissions

    # --- Questions ---

    def role_in(self, user: bytes, past: int) -> Role:
        """A user's role by the acts of a past (bit set) that stand now."""
        return self.roster.role(user, past & self.stands)

    def rank_in(self, user: bytes, past: int) -> tuple[int, int]:
        """The rank of the appointment a user acts under, (-role, position): lower is senior. Positions go by (depth, hash)."""
        return self.roster.rank(user, past & self.stands)

    def is_live_in(self, user: bytes, device: bytes, past: int) -> bool:
        """Whether a device is one of the user's by the acts of a past that stand now, and was not dropped from the group."""
        return self.identities.is_live(user, device, past) and not self.roster.is_dropped(user, device, past & self.stands)

    def is_withdrawn(self, invite: int, past: int) -> bool:
        """Whether, by a past, an invite's author may grant its role no more, or was removed by an act that it had not seen."""
        author, seen = self.index.acts[invite].header.user, past & self.stands
        removed = self.roster.removals.get(author, 0) & seen & ~self.index.past[invite]
        return bool(removed) or not may_grant(self.role_in(author, past), self.invite_at(invite).role)

    def invite_at(self, position: int) -> Invite:
        """The invite at a position that holds one."""
        body = self.bodies[position]
        assert isinstance(body, Invite)
        return body

    @property
    def taking(self) -> int:
        """The bit set of the well-made acts that take something: those on users, and revocations."""
        return self._taking

    # --- Deciding ---

    def decide(self, fallen: int) -> None:
        """Sets `stands`.

        Args:
            fallen: bit set of the acts that may not stand whatever else does.
        """
        voided, decided = fallen, 0
        self.stands, self.roster.unfounded = self.identities.standing, 0
        self.judge(self.index.everything, voided, decided)
        pending = self._pending(decided)
        while pending:
            position = pending.pop()
            decided |= 1 << position
            killed = self._killed_by(position) & ~decided
            voided |= killed
            if killed & self.stands:
                # What was decided stays; everything else, the order of what is pending included, is judged again.
                changed = self.judge(killed, voided, decided)
                if changed & self._taking or any(self.index.past[other] & changed for other in pending):
                    pending = self._pending(decided)

    def _pending(self, decided: int) -> list[int]:
        """The acts that take something, stand and are not decided; the next to decide comes last."""

        def order(position: int) -> tuple[int, int, int, int]:
            take = self.takes.get(position)
            if take is not None and take.is_own:
                return 0, 0, 0, position
            role, senior = self.rank_in(self.index.acts[position].header.acting_user, self.index.past[position])
            return 1, role, senior, position

        return sorted(bits_of(self._taking & self.stands & ~decided), key=order, reverse=True)

    def _killed_by(self, position: int) -> int:
        index = self.index
        take = self.takes.get(position)
        if take is None:
            body = self.bodies[position]
            assert isinstance(body, RevokeInvite)
            return self.admissions.get(index.position[body.invite_hash], 0) & ~index.past[position]
        killed = killed_by(take, self._acts_of.get(take.target, 0), self.roster.grants.get(take.target, 0), index)
        if take.is_own:
            return killed
        if take.ends:
            killed |= self._admissions_that_fall_with(take)
        rank = self.rank_in(take.maker, index.past[position])
        return sum(1 << victim for victim in bits_of(killed) if self._rank_of_act(victim) > rank)

    def _admissions_that_fall_with(self, take: Take) -> int:
        """The admissions that a removal had not seen by invites of its target that had not seen it either."""
        admissions = 0
        for invite in bits_of(self.invites & self._acts_of.get(take.target, 0)):
            if not self.index.past[invite] >> take.position & 1:
                admissions |= self.admissions.get(invite, 0)
        return admissions & ~self.index.past[take.position]

    def _rank_of_act(self, position: int) -> tuple[int, int]:
        """An appointment has the rank of the role it grants, any other act that of its author."""
        body, act = self.bodies[position], self.index.acts[position]
        if isinstance(body, Admit):
            return -self.invite_at(self.index.position[body.invite_hash]).role, position
        return self.rank_in(act.header.acting_user, self.index.past[position])

    def judge(self, again: int, voided: int, decided: int) -> int:
        """The causal pass over some acts and over all that rests on what it changes.

        The past of an act has lower positions, so what it rests on is settled when its turn comes.

        Args:
            again: bit set of the acts to judge in any case.
            voided: bit set of the acts that may not stand.
            decided: bit set of the acts that stand, having been decided.

        Returns:
            The bit set of the acts that stood before and do not now, or the other way round, and of the demotions that granted
            before and do not now, or the other way round.
        """
        changed = 0
        for position in self._candidates[bisect_left(self._candidates, next(bits_of(again), 0)) :]:
            bit = 1 << position
            if not again & bit and not changed & self._rests_on[position]:
                continue
            stands = bool(decided & bit) or (not voided & bit and self._is_permitted(position))
            if decided & self._demotions & bit and self._is_permitted(position) == bool(self.roster.unfounded & bit):
                self.roster.unfounded ^= bit
                changed |= bit
            if stands != bool(self.stands & bit):
                self.stands ^= bit
                changed |= bit
        return changed

    # --- What holds for ever ---

    def _is_well_made(self, position: int) -> bool:
        """What follows from the act and the identities in its past, whatever else is known of the group."""
        act, body, past = self.index.acts[position], self.bodies[position], self.index.past[position]
        header = act.header
        if header.kind is not Kind.CONTROL or body is None:
            return False
        if not self.identities.is_live(header.user, header.device, past):
            return False
        is_genesis = act.hash == self.group_id
        if is_genesis or isinstance(body, Genesis):
            return is_genesis and not header.group and header.seq == 1 and isinstance(body, Genesis | UnknownAct)
        if header.group != self.group_id:
            return False
        if isinstance(body, Admit | RevokeInvite):
            invite = self.index.position.get(body.invite_hash)
            if invite is None or not past >> invite & 1 or not isinstance(self.bodies[invite], Invite):
                return False
        if isinstance(body, Admit):
            return self.identities.is_live(body.user, body.device, past) and self._is_redeemed(body)
        return not isinstance(body, DropDevice) or self.identities.is_live(body.user, body.device, past)

    def _is_redeemed(self, admit: Admit) -> bool:
        invite = self.invite_at(self.index.position[admit.invite_hash])
        return _verify_redemption(
            self.group_id,
            admit.invite_hash,
            invite.invite_public_key,
            admit.user,
            admit.device,
            admit.handshake_hash,
            admit.invite_signature,
            admit.device_signature,
        )

    def _register(self, position: int) -> None:
        body, header = self.bodies[position], self.index.acts[position].header
        user, bit = header.acting_user, 1 << position
        self._candidates.append(position)
        self._acts_of[user] = self._acts_of.get(user, 0) | bit
        match body:
            case Genesis():
                self.genesis = body
                self.roster.appoint(user, Role.FOUNDER, position)
            case Admit():
                invite = self.index.position[body.invite_hash]
                self.admissions[invite] = self.admissions.get(invite, 0) | bit
                self.roster.appoint(body.user, Role(self.invite_at(invite).role), position)
            case Invite():
                self.invites |= bit
            case RevokeInvite():
                invite = self.index.position[body.invite_hash]
                self.revocations[invite] = self.revocations.get(invite, 0) | bit
                self._taking |= bit
            case SetRole(cuts=None):
                self.roster.appoint(body.user, Role(body.role), position)
            case Unban():
                self.roster.unban(body.user, position)
            case Leave() | SetRole() | Remove() | Ban() | DropDevice():
                self._register_take(position, body)
            case _:
                pass

    def _register_take(self, position: int, body: Leave | SetRole | Remove | Ban | DropDevice) -> None:
        take = take_of(position, self.index.acts[position].header.acting_user, body)
        bit = 1 << position
        self.takes[position] = take
        self.takes_on[take.target] = self.takes_on.get(take.target, 0) | bit
        self._taking |= bit
        match body:
            case SetRole():
                self.roster.demote(take.target, Role(body.role), position)
                self._demotions |= bit
            case Ban():
                self.roster.ban(take.target, position)
            case DropDevice():
                self.roster.drop(take.target, body.device, position)
            case _:
                self.roster.end(take.target, position, removed=not isinstance(body, Leave))

    # --- What holds by the acts that stand ---

    def _is_permitted(self, position: int) -> bool:
        body, act, past = self.bodies[position], self.index.acts[position], self.index.past[position]
        if act.hash == self.group_id:
            return True
        author = act.header.user
        if self.roster.is_dropped(author, act.header.device, past & self.stands):
            return False
        role = self.role_in(author, past)
        match body:
            case Settings():
                return may(role, Deed.CHANGE_SETTINGS)
            case SchemaAct():
                return may(role, Deed.CHANGE_SCHEMA)
            case Invite():
                return self.genesis is not None and not self.genesis.personal and may_grant(role, body.role)
            case RevokeInvite():
                return may_grant(role, self.invite_at(self.index.position[body.invite_hash]).role)
            case Admit():
                return may(role, Deed.ADMIT) and self._is_admissible(position, body)
            case Leave():
                return may(role, Deed.LEAVE)
            case Unban():
                return may(role, Deed.UNBAN)
            case SetRole() | Remove() | Ban() | DropDevice():
                return self._is_permitted_on(body, author == body.user, role, self.role_in(body.user, past))
            case NoAct() | UnknownAct():
                return role > Role.NONE
            case _:
                return False

    @staticmethod
    def _is_permitted_on(body: SetRole | Remove | Ban | DropDevice, is_own: bool, role: Role, target_role: Role) -> bool:
        """Whether a role allows an act on a user of `target_role`; `is_own` if that is the author."""
        match body:
            case SetRole() if is_own:
                return body.cuts is not None and may_lower_oneself(role, body.role)
            case SetRole():
                return may_set_role(role, target_role, body.role)
            case Remove():
                return may_remove(role, target_role)
            case Ban():
                return may_ban(role, target_role)
            case DropDevice():
                return may(role, Deed.DROP_OWN_DEVICE) if is_own else may_drop_device(role, target_role)

    def _is_admissible(self, position: int, admit: Admit) -> bool:
        """Whether the invite stands, still may be used by the user, and is not used up, by what the admission had seen.

        Revocations are not looked for here: deciding one voids all admissions that are not in its past.
        """
        past = self.index.past[position]
        invite = self.index.position[admit.invite_hash]
        if not self.stands >> invite & 1 or self.is_withdrawn(invite, past) or self.is_barred(admit.user, invite, past):
            return False
        admitter, max_uses = self.index.acts[position].header.user, self.invite_at(invite).max_uses
        # Admissions that stand and come before: those it had seen, and its author's own. The latter keep one member from
        # admitting any number of users side by side; other members' admissions cannot displace it.
        before = self.admissions[invite] & self.stands & ((1 << position) - 1)
        counted = (before & past) | (before & self._acts_of[admitter])
        if counted.bit_count() < max_uses:
            return True
        return len(self.users_admitted(counted) - {admit.user}) < max_uses

    def is_barred(self, user: bytes, invite: int, past: int) -> bool:
        """Whether, by a past, a user is banned, or was removed by an act that the invite had not seen."""
        seen = past & self.stands
        return bool(self.roster.removals.get(user, 0) & seen & ~self.index.past[invite] or self.roster.bans(user, seen))

    def users_admitted(self, admissions: int) -> set[bytes]:
        """The users that a bit set of admissions names."""
        bodies = [self.bodies[position] for position in bits_of(admissions)]
        return {body.user for body in bodies if isinstance(body, Admit)}


_verify_redemption: Callable[[bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes], bool] = lru_cache(maxsize=4096)(
    verify_redemption_signatures
)
"""A group is evaluated whenever an act arrives; its old signatures are not checked each time."""
