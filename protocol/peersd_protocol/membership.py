"""The one function from a set of acts to the state of a group (SPEC: A, DESIGN 10)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from peersd_protocol.act_index import ActIndex, bits_of
from peersd_protocol.acts import Ban, SchemaAct, Settings, UnknownAct
from peersd_protocol.constants import LEAVE_ROUNDS_MAX
from peersd_protocol.cuts import Take
from peersd_protocol.entries import Act, Kind
from peersd_protocol.group_state import BanState, GroupState, InviteState, Member
from peersd_protocol.identity import Identities, decode_or_none
from peersd_protocol.roles import Role
from peersd_protocol.schema import Schema
from peersd_protocol.schema_eval import evaluate_schema
from peersd_protocol.standing import Standing

__all__ = ["BanState", "GroupState", "InviteState", "Member", "evaluate"]


def evaluate(group_id: bytes, acts: Iterable[Act]) -> GroupState:
    """Evaluates a group.

    Args:
        group_id: the group's id, 32 bytes: the hash of its genesis.
        acts: the control acts of the group and the identity acts of its members, in any order, all of whose parents are among
            them.

    Returns:
        The state; one without members while the genesis is not among the acts. Equal sets give equal states.

    Raises:
        LocalProtocolError: a parent is missing.
    """
    index = ActIndex(acts)
    bodies = [decode_or_none(act) if act.header.kind is not Kind.DATA else None for act in index.acts]
    identities = Identities(index, bodies)
    standing = Standing(group_id, index, bodies, identities)
    standing.decide(0)
    _let_last_admins_stay(standing)
    name, description, avatar = _settings(standing)
    genesis = index.position.get(group_id)
    is_known = standing.genesis is not None and genesis is not None
    return GroupState(
        group_id=group_id,
        name=name,
        description=description,
        avatar=avatar,
        personal=standing.genesis.personal if standing.genesis else False,
        created_at_hlc=index.acts[genesis].header.hlc if is_known and genesis is not None else 0,
        members=_members(standing),
        bans=_bans(standing),
        invites=_invites(standing),
        schema=_schema(standing),
        standing=index.hashes(standing.stands),
        void=index.hashes(index.everything & ~standing.stands),
        needs_upgrade=any(
            isinstance(bodies[position], UnknownAct) and index.acts[position].header.kind is Kind.CONTROL
            for position in bits_of(standing.stands)
        ),
        users=identities.users,
        evaluation=standing,
    )


def _let_last_admins_stay(standing: Standing) -> None:
    """Lets the acts fall by which a group would lose its last admin while it has members, and decides anew without them."""
    fallen, rounds = 0, 0
    while falling := _falling(standing):
        rounds += 1
        if rounds > LEAVE_ROUNDS_MAX:
            makers = {standing.takes[position].maker for position in bits_of(falling)}
            falling |= sum(1 << position for position, take in standing.takes.items() if _resigns(take) and take.maker in makers)
        fallen |= falling
        standing.decide(fallen)


def _resigns(take: Take) -> bool:
    """Whether by an act its author gives up being an admin: by leaving, or by lowering itself."""
    return take.is_own and (take.ends is not None or (take.lowers_to is not None and take.lowers_to < Role.ADMIN))


def _falling(standing: Standing) -> int:
    """The resignations that stand and may not: the last admin's by its own past, else the most senior of those made apart."""
    index = standing.index
    resignations = [
        position
        for position, take in sorted(standing.takes.items())
        if standing.stands >> position & 1 and _resigns(take) and standing.role_in(take.maker, index.past[position]) >= Role.ADMIN
    ]
    falling = 0
    for position in resignations:
        take, roles = standing.takes[position], _roles(standing, index.past[position] & ~falling)
        roles[take.maker] = take.lowers_to or Role.NONE
        if _lacks_an_admin(roles):
            falling |= 1 << position
    if falling or not resignations or not _lacks_an_admin(_roles(standing, index.everything)):
        return falling
    # An admin who left long ago does not come back because the last two left at once: only what no other has seen competes.
    last = [position for position in resignations if not any(index.past[other] >> position & 1 for other in resignations)]
    return 1 << min(last, key=lambda position: standing.rank_in(standing.takes[position].maker, index.past[position]))


def _lacks_an_admin(roles: Mapping[bytes, Role]) -> bool:
    """Whether there are members, and none of them is an admin or above."""
    return Role.NONE < max(roles.values(), default=Role.NONE) < Role.ADMIN


def _roles(standing: Standing, past: int) -> dict[bytes, Role]:
    """The roles by a past of all who were ever appointed."""
    return {user: standing.role_in(user, past) for user in standing.roster.appointments}


def _members(standing: Standing) -> dict[bytes, Member]:
    index, roster = standing.index, standing.roster
    members: dict[bytes, Member] = {}
    for user in sorted(roster.appointments):
        grants = roster.grants[user] & standing.stands & ~roster.unfounded
        if not grants:
            continue
        ended_by = roster.endings.get(user, 0) & standing.stands
        # Of a user who came back, the membership that counts is the one after all that the latest grant had seen.
        current = [grant for grant in bits_of(grants) if not ended_by & ~index.past[grant]]
        latest = current[-1] if current else max(bits_of(grants))
        seen, unseen = ended_by & index.past[latest], ended_by & ~index.past[latest]
        joined = min(grant for grant in bits_of(grants) if not seen & ~index.past[grant])
        end = next(bits_of(unseen), None)
        identity = standing.identities.users[user]
        dropped = {device for device in identity.devices if roster.is_dropped(user, device, standing.stands)}
        members[user] = Member(
            role=standing.role_in(user, index.everything),
            joined_hlc=index.acts[joined].header.hlc,
            left_hlc=None if end is None else index.acts[end].header.hlc,
            ended=None if end is None else standing.takes[end].ends,
            name=identity.name,
            devices=tuple(sorted(identity.devices.keys() - dropped)),
        )
    return members


def _bans(standing: Standing) -> dict[bytes, BanState]:
    bans: dict[bytes, BanState] = {}
    for user in sorted(standing.roster.banned):
        for position in bits_of(standing.roster.bans(user, standing.stands)):
            body, header = standing.bodies[position], standing.index.acts[position].header
            assert isinstance(body, Ban)
            bans[user] = BanState(body.reason, header.user, header.hlc)  # of several the last in order
    return bans


def _invites(standing: Standing) -> dict[bytes, InviteState]:
    index = standing.index
    invites: dict[bytes, InviteState] = {}
    for position in bits_of(standing.invites & standing.stands):
        invite, act = standing.invite_at(position), index.acts[position]
        used_by = standing.users_admitted(standing.admissions.get(position, 0) & standing.stands)
        invites[act.hash] = InviteState(
            role=Role(invite.role),
            expires_ms=invite.expires_ms,
            max_uses=invite.max_uses,
            used_by=tuple(sorted(used_by)),
            revoked=bool(standing.revocations.get(position, 0) & standing.stands),
            withdrawn=standing.is_withdrawn(position, index.everything),
            created_by=act.header.user,
            public_key=invite.invite_public_key,
        )
    return invites


def _settings(standing: Standing) -> tuple[str, str, bytes]:
    """Name, description and avatar: of each the last by (depth, hash), so that whoever had seen a setting overrides it."""
    name, description, avatar = standing.genesis.name if standing.genesis else "", "", b""
    for position in bits_of(standing.stands):
        body = standing.bodies[position]
        if isinstance(body, Settings):
            name = body.name if body.name is not None else name
            description = body.description if body.description is not None else description
            avatar = body.avatar if body.avatar is not None else avatar
    return name, description, avatar


def _schema(standing: Standing) -> Schema:
    acts = []
    for position in bits_of(standing.stands):
        body = standing.bodies[position]
        if isinstance(body, SchemaAct):
            acts.append((standing.index.acts[position].hash, body.ops))
    return evaluate_schema(acts)
