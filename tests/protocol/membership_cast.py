"""A group with a member of each role, and its state as every order of arrival gives it."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Final

from peersd.testing.worlds import Group, User, World, secret
from peersd_protocol.acts import Cut
from peersd_protocol.entries import Act, Kind, LogKey
from peersd_protocol.group_state import GroupState
from peersd_protocol.roles import Role


class Cast:
    """A group of alice (founder), olga (owner), adam and abel (admins), mona and mark (moderators), will (writer) and rita
    (reader); zoe is outside.
    """

    def __init__(self) -> None:
        self.world: Final = World()
        user = self.world.user
        self.alice, self.olga, self.adam, self.abel = user("alice"), user("olga"), user("adam"), user("abel")
        self.mona, self.mark, self.will, self.rita, self.zoe = user("mona"), user("mark"), user("will"), user("rita"), user("zoe")
        self.group: Final = self.world.group(self.alice, "the group")
        for member, role in (
            (self.olga, Role.OWNER),
            (self.adam, Role.ADMIN),
            (self.abel, Role.ADMIN),
            (self.mona, Role.MODERATOR),
            (self.mark, Role.MODERATOR),
            (self.will, Role.WRITER),
            (self.rita, Role.READER),
        ):
            self.group.join(self.alice, member, role)

    def by_role(self) -> dict[Role, User]:
        """One user of each role."""
        return {
            Role.FOUNDER: self.alice,
            Role.OWNER: self.olga,
            Role.ADMIN: self.adam,
            Role.MODERATOR: self.mona,
            Role.WRITER: self.will,
            Role.READER: self.rita,
            Role.NONE: self.zoe,
        }

    def role(self, user: User) -> Role:
        """The user's role now, on every replica."""
        return agreed(self.group).role_of(user.id)

    def stands(self, *acts: Act) -> list[bool]:
        """Whether each act stands now, on every replica."""
        standing = agreed(self.group).standing
        return [act.hash in standing for act in acts]


def agreed(group: Group) -> GroupState:
    """The state of a group, which several orders of arrival must agree on."""
    acts = list(group.acts)
    state, chance = group.state(acts), random.Random(len(acts))
    for _ in range(3):
        chance.shuffle(acts)
        assert group.state([*acts, *acts[:3]]) == state
    return state


def data_log(user: User, epoch: int = 0) -> LogKey:
    """A data log of a user's first device."""
    return LogKey(Kind.DATA, b"", user.device.id, secret("data", epoch)[:16])


def tip(log: LogKey, seq: int) -> Cut:
    """A tip of a data log."""
    return Cut(log.kind, log.device, log.epoch, seq, secret("entry", seq))


def cut_at(state: GroupState, user: User, log: LogKey, first_past: Collection[bytes] = ()) -> int | None:
    """The greatest sequence of a log up to which a user's entries may stand: 0 for nothing, None where there is no cut."""
    limits = state.limits(user.id, log, first_past)
    return min(max((tip.seq for tip in tips), default=0) for tips in limits) if limits else None


def hashes(acts: tuple[Act, ...]) -> list[bytes]:
    """The hashes of acts, as a control past."""
    return [act.hash for act in acts]
