"""Who has which role, device and bar by a set of standing acts: appointments, and what ends, caps and lifts them (SPEC: A).

Questions take `seen`, the bit set of the acts that stand in some past; nothing else is looked at, so that the answer is the same
wherever that past is known.
"""

from __future__ import annotations

from typing import Final, TypeVar

from peersd_protocol.act_index import ActIndex, bits_of
from peersd_protocol.roles import Role, may_lift_ban

_Key = TypeVar("_Key")


class Roster:
    """The well-made acts that give and take roles and devices.

    Args:
        index: the acts.

    Attributes:
        appointments: per user, from the highest role down, the bit set of the acts that would grant it.
        grants: per user the bit set of all of these.
        endings: per user the bit set of the acts that end the membership: leaves, removals and bans.
        removals: of these the removals and bans.
        unfounded: bit set of demotions that were decided, and that their own past does not allow any more: they cap what others
            granted, and grant nothing themselves.
    """

    def __init__(self, index: ActIndex) -> None:
        self._index: Final = index
        self.appointments: Final[dict[bytes, list[tuple[Role, int]]]] = {}
        self.grants: Final[dict[bytes, int]] = {}
        self.endings: Final[dict[bytes, int]] = {}
        self.removals: Final[dict[bytes, int]] = {}
        self.unfounded = 0
        self._demotions: Final[dict[bytes, int]] = {}
        self._caps: Final[dict[bytes, list[tuple[Role, int]]]] = {}
        """Per user, from the lowest role up, the bit set of the demotions to it."""
        self._bans: Final[dict[bytes, int]] = {}
        self._unbans: Final[dict[bytes, int]] = {}
        self._drops: Final[dict[tuple[bytes, bytes], int]] = {}
        """Per (user, device) the bit set of the acts that drop it."""

    # --- Taking acts in ---

    def appoint(self, user: bytes, role: Role, position: int) -> None:
        """Takes in an act that grants a role."""
        _add(self.grants, user, position)
        self.appointments[user] = sorted(_with(self.appointments.get(user, []), role, position), reverse=True)

    def demote(self, user: bytes, role: Role, position: int) -> None:
        """Takes in an act that caps the roles granted before it or apart from it, and grants the lesser one."""
        self.appoint(user, role, position)
        _add(self._demotions, user, position)
        self._caps[user] = sorted(_with(self._caps.get(user, []), role, position))

    def end(self, user: bytes, position: int, *, removed: bool) -> None:
        """Takes in an act that ends a membership; `removed` unless the user left."""
        _add(self.endings, user, position)
        if removed:
            _add(self.removals, user, position)

    def ban(self, user: bytes, position: int) -> None:
        """Takes in a ban."""
        self.end(user, position, removed=True)
        _add(self._bans, user, position)

    def unban(self, user: bytes, position: int) -> None:
        """Takes in an unban."""
        _add(self._unbans, user, position)

    def drop(self, user: bytes, device: bytes, position: int) -> None:
        """Takes in an act that drops a device."""
        _add(self._drops, (user, device), position)

    # --- Questions ---

    def role(self, user: bytes, seen: int) -> Role:
        """A user's role: that of the appointment that counts for most, Role.NONE without one that counts."""
        ended, capped = self.endings.get(user, 0) & seen, self._demotions.get(user, 0) & seen
        best = Role.NONE
        for granted, bits in self.appointments.get(user, ()):
            held = bits & seen & ~self.unfounded
            if granted <= best:
                break
            if held and not ended and not capped:
                return granted
            # The newest first: what has seen all that was taken counts in full, and the older ones need no look.
            while held and best < granted:
                grant = held.bit_length() - 1
                held ^= 1 << grant
                best = max(best, self._counts_for(user, granted, grant, ended, capped))
        return best

    def rank(self, user: bytes, seen: int) -> tuple[int, int]:
        """The rank a user acts under, (-role, position of the first appointment that counts for that role): lower is senior."""
        role = self.role(user, seen)
        ended, capped = self.endings.get(user, 0) & seen, self._demotions.get(user, 0) & seen
        senior = len(self._index.acts)
        for granted, bits in self.appointments.get(user, ()):
            if granted < role:
                break
            for grant in bits_of(bits & seen & ~self.unfounded):
                if grant < senior and self._counts_for(user, granted, grant, ended, capped) == role:
                    senior = grant
                    break
        return -role, senior

    def _counts_for(self, user: bytes, granted: Role, grant: int, ended: int, capped: int) -> Role:
        """What an appointment counts for: nothing if it has not seen an end, and no more than each cap that it has not seen."""
        not_seen = ~self._index.past[grant]
        if ended & not_seen:
            return Role.NONE
        capped &= not_seen
        for cap, bits in self._caps.get(user, ()) if capped else ():
            if bits & capped:
                return min(granted, cap)
        return granted

    def bans(self, user: bytes, seen: int) -> int:
        """The bit set of the bans of a user that nothing has lifted."""
        bans = self._bans.get(user, 0) & seen
        for unban in bits_of(self._unbans.get(user, 0) & seen) if bans else ():
            past = self._index.past[unban]
            role = self._author_role(unban, seen)
            for ban in bits_of(bans & past):
                if may_lift_ban(role, self._author_role(ban, seen)):
                    bans ^= 1 << ban
        return bans

    def _author_role(self, position: int, seen: int) -> Role:
        return self.role(self._index.acts[position].header.acting_user, self._index.past[position] & seen)

    @property
    def banned(self) -> frozenset[bytes]:
        """The users of whom there is any ban, lifted or not, standing or not."""
        return frozenset(self._bans)

    def is_dropped(self, user: bytes, device: bytes, seen: int) -> bool:
        """Whether a device was dropped and no appointment of its user has seen that."""
        return bool(self.drops(user, device, seen))

    def drops(self, user: bytes, device: bytes, seen: int) -> int:
        """The bit set of the acts that dropped a device and that no appointment of its user has seen."""
        drops = self._drops.get((user, device), 0) & seen
        for grant in bits_of(self.grants.get(user, 0) & seen & ~self.unfounded) if drops else ():
            drops &= ~self._index.past[grant]
        return drops


def _add(bits: dict[_Key, int], key: _Key, position: int) -> None:
    bits[key] = bits.get(key, 0) | 1 << position


def _with(roles: list[tuple[Role, int]], role: Role, position: int) -> list[tuple[Role, int]]:
    by_role = dict(roles)
    by_role[role] = by_role.get(role, 0) | 1 << position
    return list(by_role.items())
