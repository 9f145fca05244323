"""What members do about memberships: random deeds, mostly such as they may, sometimes others, which the store must refuse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Final

from peersd.errors import PeersdError
from peersd.store.store import Commit, FindCuts
from peersd.testing.simulator.device import Process
from peersd.testing.simulator.founding import NEVER_MS, Person
from peersd.testing.simulator.replica import Replica
from peersd.testing.simulator.schedule import Schedule
from peersd_protocol.acts import Ban, Body, DropDevice, Invite, Leave, Remove, RevokeInvite, SetRole, Unban, encode_body
from peersd_protocol.constants import TICKET_ADDRESSES_MAX
from peersd_protocol.entries import Header, Kind
from peersd_protocol.membership_acts import GRANTED_ROLES
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
from peersd_protocol.signing import SEED_BYTES, SigningKey
from peersd_protocol.tickets import Ticket

HandOver = Callable[[Replica, Ticket, int, Random], None]
"""Gets a ticket that a member made, how many users it may bring in, and what decides on who gets it."""

BOLD: Final = 0.1
"""How often somebody tries what may not be allowed."""

SOON_MS: Final = 3_000

_WEIGHTS: Final = {
    "invite": 30,
    "revoke": 4,
    "promote": 10,
    "demote": 8,
    "lower": 4,
    "remove": 12,
    "ban": 7,
    "unban": 8,
    "drop": 5,
    "leave": 5,
}


class Members:
    """The members of all groups, as far as they change who is one.

    Args:
        schedule: of the simulation.
        people: the honest devices' users.
        hand_over: gets the tickets.
    """

    def __init__(self, schedule: Schedule, people: Sequence[Person], hand_over: HandOver) -> None:
        self._schedule = schedule
        self._people = people
        self._users = list(dict.fromkeys(person.user for person in people))
        self._hand_over = hand_over
        self._random = schedule.stream("members")

    def act(self, process: Process, replica: Replica, random: Random) -> None:
        """The device's user does something that `random` decides."""
        self._random = random
        (kind,) = random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
        is_bold = random.random() < BOLD
        if not is_bold and not replica.state.role_of(process.user):
            return
        deed: Callable[[Process, Replica, bool], None] = getattr(self, f"_{kind}")
        deed(process, replica, is_bold)

    # --- Who and what -----------------------------------------------------------------------------------------------------------

    def _pick(self, candidates: list[bytes]) -> bytes | None:
        return self._random.choice(candidates) if candidates else None

    def _others(self, process: Process) -> list[bytes]:
        return [user for user in self._users if user != process.user]

    def _pick_role(self, allowed: Callable[[int], bool], *, is_bold: bool) -> Role | None:
        roles = [Role(role) for role in sorted(GRANTED_ROLES) if is_bold or allowed(role)]
        # Writers are what most members are.
        return self._random.choice([*roles, *(role for role in roles if role == Role.WRITER)]) if roles else None

    def _write(self, process: Process, replica: Replica, label: str, body: Body) -> None:
        store, user = replica.store, process.user
        replica.ask(label, lambda: store.act(user, Kind.CONTROL, encode_body(body))[1], process.acknowledging(replica))

    def _take(self, process: Process, replica: Replica, label: str, make: Callable[[FindCuts], Body]) -> None:
        store, user = replica.store, process.user
        call = partial(store.take_right, user, lambda cuts: encode_body(make(cuts)))
        replica.ask(label, lambda: call()[1], process.acknowledging(replica))

    def _name(self, user: bytes) -> str:
        """A user is called by its devices."""
        return "+".join(person.name for person in self._people if person.user == user)

    # --- Deeds ------------------------------------------------------------------------------------------------------------------

    def _invite(self, process: Process, replica: Replica, is_bold: bool) -> None:
        random, state = self._random, replica.state
        held = state.role_of(process.user)
        role = self._pick_role(lambda role: may_grant(held, role), is_bold=is_bold)
        if role is None or (not is_bold and all(state.role_of(user) for user in self._users)):
            return
        seed = process.device.entropy(SEED_BYTES)
        max_uses = random.choice((1, 1, 2))
        expires_ms = process.wall_ms() + random.randint(0, SOON_MS) if random.random() < 0.1 else NEVER_MS
        body = encode_body(Invite(role, expires_ms, max_uses, SigningKey(seed).public))
        known = process.notes.addresses
        members = [known[device] for device in sorted(state.member_devices) if device in known]
        random.shuffle(members)
        addresses = tuple(dict.fromkeys((process.url, *members)))[:TICKET_ADDRESSES_MAX]

        def invited(result: tuple[Header, Commit | None]) -> None:
            header, commit = result
            process.acknowledge(replica, commit)
            self._hand_over(replica, Ticket(replica.group, header.hash, seed, addresses, replica.name), max_uses, random)

        replica.ask(f"invites a {role.name}", lambda: replica.store.act(process.user, Kind.CONTROL, body), invited)

    def _revoke(self, process: Process, replica: Replica, is_bold: bool) -> None:
        state = replica.state
        held = state.role_of(process.user)
        invite = self._pick([hash_ for hash_, one in state.invites.items() if is_bold or may_grant(held, one.role)])
        if invite is not None:
            self._write(process, replica, "revokes an invite", RevokeInvite(invite))

    def _promote(self, process: Process, replica: Replica, is_bold: bool) -> None:
        self._set_role(process, replica, is_bold, is_up=True)

    def _demote(self, process: Process, replica: Replica, is_bold: bool) -> None:
        self._set_role(process, replica, is_bold, is_up=False)

    def _set_role(self, process: Process, replica: Replica, is_bold: bool, *, is_up: bool) -> None:
        state = replica.state
        held = state.role_of(process.user)
        lowest = Role.READER
        user = self._pick([user for user in self._others(process) if is_bold or may_set_role(held, state.role_of(user), lowest)])
        if user is None:
            return
        old = state.role_of(user)
        role = self._pick_role(
            lambda role: may_set_role(held, old, role) and (role > old if is_up else role < old), is_bold=is_bold
        )
        if role is None:
            return
        label = f"{'promotes' if is_up else 'demotes'} {self._name(user)} to {role.name}"
        if is_up:
            self._write(process, replica, label, SetRole(user, role))
        else:
            kinds = (Kind.CONTROL,) if may(role, Deed.WRITE) else (Kind.CONTROL, Kind.DATA)
            self._take(process, replica, label, lambda cuts: SetRole(user, role, cuts(user, kinds)))

    def _lower(self, process: Process, replica: Replica, is_bold: bool) -> None:
        state, user = replica.state, process.user
        held = state.role_of(user)
        role = self._pick_role(
            lambda role: may_lower_oneself(held, role) and state.may_lower_oneself(user, role), is_bold=is_bold
        )
        if role is not None:
            kinds = (Kind.CONTROL,) if may(role, Deed.WRITE) else (Kind.CONTROL, Kind.DATA)
            label = f"lowers itself to {role.name}"
            self._take(process, replica, label, lambda cuts: SetRole(user, role, cuts(user, kinds)))

    def _remove(self, process: Process, replica: Replica, is_bold: bool) -> None:
        state = replica.state
        held = state.role_of(process.user)
        user = self._pick([user for user in self._others(process) if is_bold or may_remove(held, state.role_of(user))])
        if user is not None:
            self._take(process, replica, f"removes {self._name(user)}", lambda cuts: Remove(user, cuts(user)))

    def _ban(self, process: Process, replica: Replica, is_bold: bool) -> None:
        state = replica.state
        held = state.role_of(process.user)
        candidates = [
            user for user in self._others(process) if is_bold or (may_ban(held, state.role_of(user)) and user not in state.bans)
        ]
        user = self._pick(candidates)
        if user is not None:
            reason = self._random.choice(("", "spam"))
            self._take(process, replica, f"bans {self._name(user)}", lambda cuts: Ban(user, reason, cuts(user)))

    def _unban(self, process: Process, replica: Replica, is_bold: bool) -> None:
        state = replica.state
        user = self._pick(self._others(process) if is_bold else sorted(state.bans))
        if user is not None and (is_bold or state.may(process.user, Deed.UNBAN)):
            self._write(process, replica, f"unbans {self._name(user)}", Unban(user))

    def _drop(self, process: Process, replica: Replica, is_bold: bool) -> None:
        state, user = replica.state, process.user
        held = state.role_of(user)
        candidates = [
            (other, device)
            for other, member in sorted(state.members.items())
            for device in member.devices
            if is_bold or (may_drop_device(held, member.role) if other != user else len(member.devices) > 1)
        ]
        if candidates:
            target, device = self._random.choice(candidates)
            name = next((person.name for person in self._people if person.keys.device == device), "a stranger")
            label = f"drops {name} of {self._name(target)}"
            self._take(process, replica, label, lambda cuts: DropDevice(target, device, cuts(target, device=device)))

    def _leave(self, process: Process, replica: Replica, is_bold: bool) -> None:
        state, user, notes = replica.state, process.user, process.notes
        if not state.role_of(user) or not (is_bold or state.may_leave(user)):
            return
        if any(member.role for other, member in state.members.items() if other != user):
            notes.untold.add(replica.group)

        def leave() -> Commit | None:
            try:
                return replica.store.take_right(user, lambda cuts: encode_body(Leave(cuts(user))))[1]
            except PeersdError:
                notes.untold.discard(replica.group)
                raise

        replica.ask("leaves", leave, process.acknowledging(replica))
