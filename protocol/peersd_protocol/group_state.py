"""What a group's acts amount to: members, invites, settings, schema, and who may write (SPEC: A, DESIGN 10)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from peersd_protocol.act_index import bits_of
from peersd_protocol.acts import Admit, Cut
from peersd_protocol.cuts import Ending, has_later_grant
from peersd_protocol.entries import LogKey
from peersd_protocol.identity import UserState
from peersd_protocol.roles import Deed, Role, may, may_lower_oneself
from peersd_protocol.schema import EMPTY, Schema
from peersd_protocol.standing import Standing


@dataclass(frozen=True, slots=True)
class Member:
    """A user who is or was a member.

    Attributes:
        role: now; Role.NONE for who left, was removed or was banned.
        joined_hlc: stamp of the act that made the user a member (the last time, for who came back).
        left_hlc: stamp of the act that ended the membership (the first in order, of several), or None.
        ended: what that act was, or None.
        name: the user's name now.
        devices: public keys of the user's live devices now, ascending, without those dropped from this group.
    """

    role: Role
    joined_hlc: int
    left_hlc: int | None
    ended: Ending | None
    name: str
    devices: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class BanState:
    """A ban that nothing has lifted (of several, the last in order).

    Attributes:
        reason: text for people, maybe empty.
        banned_by: the author's user id.
        banned_hlc: stamp of the ban.
    """

    reason: str
    banned_by: bytes
    banned_hlc: int


@dataclass(frozen=True, slots=True)
class InviteState:
    """An invite that stands.

    Attributes:
        role: what it grants.
        expires_ms: milliseconds since 1970.
        max_uses: users it may bring in.
        used_by: the users whom it brought in, ascending, those who left since included.
        revoked: whether an act revoked it.
        withdrawn: whether its author may no longer grant the role (left, lowered) or was removed since: nobody is admitted by
            it any more.
        created_by: the author's user id.
        public_key: of the invite key.
    """

    role: Role
    expires_ms: int
    max_uses: int
    used_by: tuple[bytes, ...]
    revoked: bool
    withdrawn: bool
    created_by: bytes
    public_key: bytes

    @property
    def uses(self) -> int:
        """How many users it brought in."""
        return len(self.used_by)

    @property
    def overused(self) -> bool:
        """Whether admissions made apart from each other brought in more users than it should."""
        return self.uses > self.max_uses


@dataclass(frozen=True)
class GroupState:
    """The evaluated group. Equal sets of acts give equal states, whatever the order they came in.

    Attributes:
        group_id: the hash of the genesis.
        name, description, avatar: what the group shows of itself; empty until the genesis is known.
        personal: whether it is a personal group.
        created_at_hlc: stamp of the genesis, 0 until it is known.
        members: all who are or were members, by user id.
        bans: the bans that hold, by user id; of users who never were members too.
        invites: all invites that stand, by the hash of their entry.
        schema: tables and indexes.
        standing: hashes of the acts that stand (control and identity).
        void: hashes of the others.
        needs_upgrade: whether an act that stands is of a later version.
        users: the evaluated identities of all users whose acts are known.
    """

    group_id: bytes
    name: str = ""
    description: str = ""
    avatar: bytes = b""
    personal: bool = False
    created_at_hlc: int = 0
    members: Mapping[bytes, Member] = field(default_factory=dict)
    bans: Mapping[bytes, BanState] = field(default_factory=dict)
    invites: Mapping[bytes, InviteState] = field(default_factory=dict)
    schema: Schema = EMPTY
    standing: frozenset[bytes] = frozenset()
    void: frozenset[bytes] = frozenset()
    needs_upgrade: bool = False
    users: Mapping[bytes, UserState] = field(default_factory=dict)
    evaluation: Standing | None = field(default=None, compare=False, repr=False)
    """What the questions below are answered from."""

    # --- Members ---

    def role_of(self, user: bytes) -> Role:
        """A user's role now; Role.NONE for who is no member."""
        member = self.members.get(user)
        return member.role if member else Role.NONE

    def is_member_device(self, device: bytes) -> tuple[bytes, ...]:
        """The members, by user id, of whom a device is a live one: empty for a device that gets nothing of this group."""
        return self._members_by_device.get(device, ())

    @cached_property
    def member_devices(self) -> frozenset[bytes]:
        """The live devices of all members now."""
        return frozenset(self._members_by_device)

    @cached_property
    def _members_by_device(self) -> dict[bytes, tuple[bytes, ...]]:
        users: dict[bytes, tuple[bytes, ...]] = {}
        for user, member in sorted(self.members.items()):
            for device in member.devices if member.role else ():
                users[device] = (*users.get(device, ()), user)
        return users

    def may(self, user: bytes, deed: Deed) -> bool:
        """Whether a user's role now allows a deed (apart from whom it is done to)."""
        return may(self.role_of(user), deed)

    def may_leave(self, user: bytes) -> bool:
        """Whether a leave would stand: not for the last admin while others are members."""
        roles = self._roles_of_others(user)
        return may(self.role_of(user), Deed.LEAVE) and (not roles or self._keeps_an_admin(user, roles))

    def may_lower_oneself(self, user: bytes, role: int) -> bool:
        """Whether lowering oneself to a role would stand: not to below admin for the last one."""
        lowers = may_lower_oneself(self.role_of(user), role)
        return lowers and (role >= Role.ADMIN or self._keeps_an_admin(user, self._roles_of_others(user)))

    def _roles_of_others(self, user: bytes) -> list[Role]:
        return [member.role for other, member in self.members.items() if other != user and member.role]

    def _keeps_an_admin(self, user: bytes, others: list[Role]) -> bool:
        """Whether there is an admin still when a user is none any more, if there was to be one."""
        return self.role_of(user) < Role.ADMIN or max(others, default=Role.NONE) >= Role.ADMIN

    @property
    def membership(self) -> Mapping[bytes, tuple[Role, tuple[bytes, ...]]]:
        """The members now: of each the role, and the devices that are one's."""
        return {user: (member.role, member.devices) for user, member in self.members.items() if member.role}

    # --- Who was one ---

    def former_users(self, device: bytes) -> tuple[bytes, ...]:
        """The users, by id, who are members no more, or not with this device, and of whom it is or was one.

        Also those whom an admission named that does not stand: on the device that redeemed it, it may do so still.
        """
        appointed = self.evaluation.roster.appointments if self.evaluation else {}
        return tuple(
            user
            for user in sorted(appointed)
            if user in self.users and device in self.users[user].devices and user not in self.is_member_device(device)
        )

    @cached_property
    def former_devices(self) -> frozenset[bytes]:
        """The devices of no member now that have a user among `former_users`."""
        appointed = self.evaluation.roster.appointments if self.evaluation else {}
        everyone = {device for user in appointed if user in self.users for device in self.users[user].devices}
        return frozenset(everyone - self.member_devices)

    def farewell(self, device: bytes) -> frozenset[bytes]:
        """The acts that show a device's users why it gets nothing any more.

        Args:
            device: any device.

        Returns:
            The hashes of the acts that ended its users' membership, or dropped it, or by which their admission may have come to
            stand no more, and of all acts before these; empty for a device of members, and for one that never was.
        """
        evaluation, users = self.evaluation, self.former_users(device)
        if evaluation is None or self.is_member_device(device):
            return frozenset()
        taken = 0
        for user in users:
            if self.role_of(user):
                taken |= evaluation.roster.drops(user, device, evaluation.stands)
            else:
                taken |= evaluation.roster.endings.get(user, 0) & evaluation.stands
            for fallen in bits_of(evaluation.roster.grants[user] & ~evaluation.stands):
                taken |= evaluation.taking & evaluation.stands & ~evaluation.index.past[fallen]
        return evaluation.index.hashes(evaluation.index.closure([evaluation.index.acts[it].hash for it in bits_of(taken)]))

    def has_news(self, device: bytes) -> bool:
        """Whether acts stand that took rights and of which a device's farewell says nothing: who sent it may not know them."""
        evaluation = self.evaluation
        if evaluation is None:
            return False
        shown = self.farewell(device)
        return any(evaluation.index.acts[act].hash not in shown for act in bits_of(evaluation.taking & evaluation.stands))

    def rebuttal(self, claim: GroupState) -> frozenset[bytes]:
        """The acts by which what stands by some acts alone does not stand by all of them.

        Args:
            claim: what some of the acts of this state amount to by themselves.

        Returns:
            The hashes of the acts that took the rights of those who wrote what fell, or who invited whom it admits, or revoked
            the invite, without being in its past; and of all acts before these.
        """
        evaluation = self.evaluation
        if evaluation is None:
            return frozenset()
        index, taken = evaluation.index, 0
        for fallen in (index.position[hash_] for hash_ in claim.standing - self.standing):
            took, body = evaluation.takes_on.get(index.acts[fallen].header.acting_user, 0), evaluation.bodies[fallen]
            if isinstance(body, Admit):
                invite = index.position[body.invite_hash]
                took |= evaluation.takes_on.get(index.acts[invite].header.acting_user, 0) | evaluation.revocations.get(invite, 0)
            taken |= took & evaluation.stands & ~index.past[fallen]
        return index.hashes(index.closure([index.acts[position].hash for position in bits_of(taken)]))

    # --- Invites ---

    def invite_refusal(self, invite_hash: bytes, user: bytes, now_ms: int) -> str | None:
        """Why a user may not be admitted by an invite now, as an error code of the API; None if nothing stands against it.

        A user who was removed needs an invite that had seen the removal: to that user an older one is as good as revoked.

        Args:
            invite_hash: hash of the invite's entry.
            user: who redeems it. For a member there is nothing to refuse, and nothing to write either.
            now_ms: the admitting device's clock.
        """
        invite = self.invites.get(invite_hash)
        if invite is None:
            return "invite_invalid"
        if self.role_of(user):
            return None
        if user in self.bans:
            return "banned"
        if invite.revoked or invite.withdrawn or self._is_barred(user, invite_hash):
            return "invite_revoked"
        if now_ms >= invite.expires_ms:
            return "invite_expired"
        if len(set(invite.used_by) - {user}) >= invite.max_uses:
            return "invite_used_up"
        return None

    def has_joined(self, user: bytes, invite_hash: bytes) -> bool:
        """Whether who redeems an invite is in: a member, by acts among which the invite is, and so all that came before it.

        Without that it may be one only as far as is known here: it was removed, has not heard of it, and got a new ticket.
        """
        return bool(self.role_of(user)) and invite_hash in self.invites

    def _is_barred(self, user: bytes, invite_hash: bytes) -> bool:
        evaluation = self.evaluation
        if evaluation is None:
            return False
        return evaluation.is_barred(user, evaluation.index.position[invite_hash], evaluation.index.everything)

    # --- Data entries ---

    def role_in(self, user: bytes, past: Collection[bytes]) -> Role:
        """A user's role by the acts of a control past that stand now.

        Args:
            user: the user's id.
            past: hashes of acts; the heads are enough, as all before them counts too. Unknown hashes count for nothing.
        """
        if self.evaluation is None:
            return Role.NONE
        return self.evaluation.role_in(user, self.evaluation.index.closure(past))

    def may_write(self, user: bytes, device: bytes, past: Collection[bytes]) -> bool:
        """Whether a data entry's author had writer role by its control past, and its device was the author's and not dropped.

        Whether the entry lies beyond a cut is another question, see `cut`.

        Args:
            user: the author.
            device: the device that wrote it.
            past: hashes of acts in the entry's control past; the heads are enough.
        """
        if self.evaluation is None:
            return False
        bits = self.evaluation.index.closure(past)
        return may(self.evaluation.role_in(user, bits), Deed.WRITE) and self.evaluation.is_live_in(user, device, bits)

    def limits(self, user: bytes, log: LogKey, first_past: Collection[bytes] = ()) -> tuple[tuple[Cut, ...], ...]:
        """What each act that took a right from a user leaves of a log: the tips up to which the user's entries count.

        Args:
            user: whose entries.
            log: a control or data log.
            first_past: hashes (the heads are enough) of the control past of the log's first entry.

        Returns:
            One tuple for each act that cuts this log; an empty one leaves nothing. An entry stands if each has a tip that the
            entry is, or is before on its branch.
        """
        if self.evaluation is None:
            return ()
        evaluation = self.evaluation
        past = evaluation.index.closure(first_past)
        limits = []
        for position in bits_of(evaluation.takes_on.get(user, 0) & evaluation.stands):
            take = evaluation.takes[position]
            if not take.cuts_log(log):
                continue
            tips = take.tips.get(log)
            if tips is not None:
                limits.append(tips)
            elif not has_later_grant(take, evaluation.roster.grants.get(user, 0), past, evaluation.index):
                limits.append(())
        return tuple(limits)
