"""Random histories of a group: members and strangers act on what they claim to have seen, honestly or not."""

from __future__ import annotations

import random
from typing import Final

from peersd.testing.worlds import Author, User, World
from peersd_protocol.entries import Act
from peersd_protocol.roles import Role

GRANTED: Final = [Role.READER, Role.WRITER, Role.MODERATOR, Role.ADMIN, Role.OWNER]


class History:
    """A group with one member of each role and two strangers, some with two devices, and then `count` random acts.

    Args:
        seed: what everything depends on.
        count: how many acts are tried.
    """

    def __init__(self, seed: int, count: int) -> None:
        self.chance: Final = random.Random(seed)
        self.world: Final = World(f"history {seed}")
        self.users: Final = [self.world.user(f"user-{number}") for number in range(8)]
        self.group: Final = self.world.group(self.users[0])
        for user, role in zip(self.users[1:6], reversed(GRANTED), strict=True):
            self.group.join(self.users[0], user, role)
        for number in (1, 2, 3):
            self.world.add_device(self.users[number], f"phone-{number}")
        self.invites: Final[list[Act]] = []
        for _ in range(count):
            self._act()

    def _seen(self) -> tuple[Act, ...]:
        """All acts, a prefix, or any part of them."""
        identities = tuple(act for user in self.world.users for act in user.acts)
        control, kind = self.group.control, self.chance.random()
        if kind < 0.5:
            return (*identities, *control)
        if kind < 0.8:
            return (*identities, *control[: self.chance.randrange(11, len(control) + 1)])
        return (*identities, *control[:11], *(act for act in control[11:] if self.chance.random() < 0.5))

    def _act(self) -> None:
        chance, group = self.chance, self.group
        user = chance.choice(self.users)
        author: Author = chance.choice(user.devices)
        target, seen, epoch = chance.choice(self.users), self._seen(), chance.randrange(2)
        left_out = [act for act in seen if chance.random() < 0.1]
        role = chance.choice(GRANTED)
        match chance.randrange(16):
            case 0 | 1:
                self.invites.append(group.invite(author, role, max_uses=chance.randrange(1, 3), seen=seen, epoch=epoch))
            case 2 | 3 | 4 if self.invites:
                invite = chance.choice(self.invites)
                if invite in seen:
                    group.admit(author, invite, chance.choice(target.devices), seen=seen, epoch=epoch)
            case 5 if self.invites:
                group.revoke(author, chance.choice(self.invites), seen=seen, epoch=epoch)
            case 6 if chance.random() < 0.3:
                group.leave(author, seen=seen, epoch=epoch, without=left_out)
            case 7:
                group.demote(author, user, role, seen=seen, epoch=epoch, without=left_out)
            case 8:
                group.promote(author, target, role, seen=seen, epoch=epoch)
            case 9:
                group.demote(author, target, role, seen=seen, epoch=epoch, without=left_out)
            case 10 | 11:
                group.remove(author, target, seen=seen, epoch=epoch, without=left_out)
            case 12:
                group.ban(author, target, "why", seen=seen, epoch=epoch, without=left_out)
            case 13:
                group.unban(author, target, seen=seen, epoch=epoch)
            case 14:
                self._drop(author, user, target, seen, epoch, left_out)
            case 15 if chance.random() < 0.5:
                self._scheme(target)
            case _:
                group.settings(author, name=f"name {len(group.control)}", seen=seen, epoch=epoch)

    def _drop(self, author: Author, user: User, target: User, seen: tuple[Act, ...], epoch: int, left_out: list[Act]) -> None:
        device = self.chance.choice([*user.devices, *target.devices])
        self.group.drop_device(author, device, seen=seen, epoch=epoch, without=left_out)

    def _scheme(self, friend: User) -> None:
        """A friend is given a role, lowers itself or is lowered to another one, and is to keep that when its giver is removed."""
        chance, group = self.chance, self.group
        state, seen = group.state(), group.acts
        others = [user for user in self.users if state.role_of(user.id) and user is not friend]
        if len(others) < 2:
            return
        giver, remover = sorted(chance.sample(others, 2), key=lambda user: state.role_of(user.id))
        gift = group.promote(giver, friend, chance.choice(GRANTED), seen=seen, epoch=2)
        if chance.random() < 0.5:
            gift = group.admit(giver, group.invite(giver, chance.choice(GRANTED), seen=seen, epoch=2), friend, seen=seen, epoch=2)
        lowers = friend if chance.random() < 0.5 else chance.choice(others)
        group.demote(lowers, friend, chance.choice(GRANTED), seen=(*seen, gift), epoch=2)
        group.remove(remover, giver, seen=seen, epoch=3)
