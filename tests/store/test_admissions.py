"""Taking in who redeems an invite: one call of the store, which keeps nothing of whom it refuses (SPEC: O-11)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from peersd.errors import PeersdError
from peersd.store.handle import StoreHandle, open_store
from peersd.store.store import Commit
from peersd.store.store import open_store as open_file
from peersd.testing.simulator.founding import make_people
from peersd_protocol import canonical
from peersd_protocol.acts import Invite, Remove, RevokeInvite, encode_body
from peersd_protocol.admission import NotAdmitted, Presented
from peersd_protocol.blocks import split_body
from peersd_protocol.entries import Kind
from peersd_protocol.messages import encode_runs
from peersd_protocol.redemption import sign_redemption
from peersd_protocol.roles import Role
from peersd_protocol.runs import Body, Entry, Run
from peersd_protocol.signing import SigningKey
from tests.store.stores import FIRST_MS, Meeting, Replica, fetch, no_room

INVITE_KEY = SigningKey(b"\x0a" * 32)
EXPIRES_MS = FIRST_MS + 10**9
NOW_MS = EXPIRES_MS - 1
LINK = b"\x0b" * 32


@pytest.fixture
def meeting(tmp_path: Path) -> Meeting:
    return Meeting(tmp_path)


def invite(by: Replica, *, max_uses: int = 1, role: Role = Role.WRITER) -> bytes:
    header, _ = by.store.act(by.user, Kind.CONTROL, encode_body(Invite(role, EXPIRES_MS, max_uses, INVITE_KEY.public)))
    return header.hash


def presented(invite_hash: bytes, newcomer: Replica, group: bytes, identity: Sequence[Run] | None = None) -> Presented:
    redemption = sign_redemption(
        group_id=group,
        invite_hash=invite_hash,
        invite_key=INVITE_KEY,
        user=newcomer.user,
        identity_head_hash=(identity or newcomer.person.identity_runs)[-1].last.hash,
        device_key=newcomer.person.keys.signing,
        handshake_hash=LINK,
    )
    return Presented(redemption, newcomer.person.keys.device, LINK)


class Door:
    """A member's store where somebody redeems an invite."""

    def __init__(self, replica: Replica, invite_hash: bytes) -> None:
        self.replica = replica
        self.invite = invite_hash
        self.commits: list[Commit] = []

    def knock(self, newcomer: Replica, identity: Sequence[Run] | None = None, wall_ms: int = NOW_MS) -> bool:
        """Returns whether an act was written."""
        shown = presented(self.invite, newcomer, self.replica.store.group, identity)
        message = encode_runs(newcomer.person.identity_runs if identity is None else identity)
        return self.replica.store.admit(shown, message, wall_ms, self.commits.append)

    def refuses(self, newcomer: Replica, identity: Sequence[Run] | None = None, wall_ms: int = NOW_MS) -> str | None:
        """The reason; nothing was kept, in the file or in memory."""
        before, vector = state_of(self.replica), self.replica.store.vector()
        with pytest.raises(NotAdmitted) as caught:
            self.knock(newcomer, identity, wall_ms)
        assert self.commits == []
        assert (state_of(self.replica), self.replica.store.vector()) == (before, vector)
        self.replica.reopen()
        assert (state_of(self.replica), self.replica.store.vector()) == (before, vector)
        return caught.value.reason


def state_of(replica: Replica) -> tuple[object, ...]:
    state = replica.store.state
    return replica.store.log.position, state.standing, state.void, sorted(state.users), replica.store.identity_runs(b"") == []


def test_who_redeems_becomes_a_member_and_both_commits_are_told_in_order(meeting: Meeting) -> None:
    founder, guest = meeting.founder, meeting.stranger("guest")
    door = Door(founder, invite(founder, role=Role.READER))
    assert door.knock(guest)
    assert [[entry.log.kind for entry in commit.entries] for commit in door.commits] == [[Kind.IDENTITY], [Kind.CONTROL]]
    assert [commit.state and commit.state.role_of(guest.user) for commit in door.commits] == [Role.NONE, Role.READER]
    assert founder.store.state.role_of(guest.user) is Role.READER
    fetch(guest.store, founder.store)
    assert guest.store.state.role_of(guest.user) is Role.READER


def test_a_member_is_let_in_without_an_act_even_by_a_ticket_that_is_over_and_its_new_device_is_heard_of(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    founder, guest = meeting.founder, meeting.stranger("guest")
    first, second = make_people(1, ["phone", "laptop"])
    guest.person, guest.user = replace(first, added=()), first.user
    door = Door(founder, invite(founder))
    assert door.knock(guest)
    door.commits.clear()
    assert not door.knock(guest, wall_ms=EXPIRES_MS)
    assert door.commits == []
    guest.person = second
    assert not door.knock(guest, wall_ms=EXPIRES_MS)
    assert [[entry.log.kind for entry in commit.entries] for commit in door.commits] == [[Kind.IDENTITY]]
    assert founder.store.state.is_member_device(second.keys.device) == (guest.user,)


def test_each_refusal_says_why_and_keeps_nothing(meeting: Meeting) -> None:
    founder, guest = meeting.founder, meeting.stranger("guest")
    door = Door(founder, invite(founder))
    own = guest.person.identity
    assert door.refuses(guest, wall_ms=EXPIRES_MS) == "invite_expired"
    assert door.refuses(guest, [own, meeting.stranger("other").person.identity]) == "invite_invalid"
    unsigned = replace(own, signature=bytes(64))
    assert door.refuses(guest, [unsigned]) == "invite_invalid"
    not_its_own = meeting.stranger("not its own")
    not_its_own.person = replace(not_its_own.person, keys=meeting.stranger("third").person.keys)
    assert door.refuses(not_its_own) == "invite_invalid"
    founder.store.act(founder.user, Kind.CONTROL, encode_body(RevokeInvite(door.invite)))
    assert door.refuses(guest) == "invite_revoked"
    door.invite = b"\x0c" * 32
    assert door.refuses(guest) is None


def grown(identity: Run, keys: SigningKey, count: int) -> list[Run]:
    """An identity log that goes on with acts of a later version, a few bytes each that unpack to 250 KB."""
    body = Body.of_blocks(split_body(canonical.encode([200, *[0] * 250_000])))
    user, last, entries = identity.last.hash, identity.last, []
    for _ in range(count):
        last = replace(last, user=user, seq=last.seq + 1, prev=last.hash, hlc=last.hlc + 1, body_hash=body.hash)
        entries.append(Entry(last, body))
    return [identity, Run(tuple(entries), last.sign(keys))]


def test_an_identity_of_a_few_bytes_that_unpack_to_many_is_not_held(meeting: Meeting) -> None:
    founder, guest = meeting.founder, meeting.stranger("guest")
    door = Door(founder, invite(founder))
    for count, is_held in ((6, False), (2, True)):
        identity = grown(guest.person.identity, guest.person.keys.signing, count)
        assert len(encode_runs(identity)) < 2048
        if is_held:
            assert door.knock(guest, identity)
        else:
            assert door.refuses(guest, identity) == "invite_invalid"


def test_what_a_device_knows_when_the_identity_has_come_decides(meeting: Meeting) -> None:
    """Who was removed while it waited for the identity log decides about nobody any more, and tells nothing."""
    founder, member, guest = meeting.founder, meeting.join("member"), meeting.stranger("guest")
    door = Door(member, invite(founder, max_uses=2))
    fetch(member.store, founder.store)
    founder.store.take_right(founder.user, lambda cuts: encode_body(Remove(member.user, cuts(member.user))))
    fetch(member.store, founder.store)
    assert door.refuses(guest) is None


async def redeem(handle: StoreHandle, invite_hash: bytes, guest: Replica) -> str | None:
    """The reason, if the guest is not let in."""
    try:
        shown = presented(invite_hash, guest, handle.store.group)
        await handle.admit(shown, encode_runs(guest.person.identity_runs), NOW_MS)
    except NotAdmitted as refusal:
        return refusal.reason
    return None


def told_by(handle: StoreHandle) -> list[str]:
    """The kinds of entries that are told from now on."""
    told: list[str] = []
    handle.on_commit = lambda commit, origin: told.extend(entry.log.kind.name for entry in commit.entries)
    return told


async def test_of_two_at_once_one_takes_the_last_use_of_an_invite(meeting: Meeting) -> None:
    founder = meeting.founder
    guests = [meeting.stranger("one"), meeting.stranger("two")]
    only = invite(founder)
    founder.store.close()
    reasons: list[str | None] = []

    async def knock(handle: StoreHandle, guest: Replica) -> None:
        reasons.append(await redeem(handle, only, guest))

    async with open_store(lambda: open_file(founder.path, founder.context, founder.mark), founder.path) as handle:
        told = told_by(handle)
        async with trio.open_nursery() as nursery:
            for guest in guests:
                nursery.start_soon(knock, handle, guest)
        roles = sorted(handle.state.role_of(guest.user) for guest in guests)
    assert (roles, sorted(map(str, reasons))) == ([Role.NONE, Role.WRITER], ["None", "invite_used_up"])
    assert told == ["IDENTITY", "CONTROL"]


async def test_an_identity_is_told_of_though_there_is_no_room_for_the_act(meeting: Meeting) -> None:
    founder, guest = meeting.founder, meeting.stranger("guest")
    only = invite(founder)
    founder.store.close()
    with ExitStack() as disk:
        is_roomy = False

        def wall_ms() -> int:
            """The store looks at the clock when it writes the act."""
            if not is_roomy:
                disk.enter_context(no_room(founder))
            return NOW_MS

        context = replace(founder.context, wall_ms=wall_ms)
        async with open_store(lambda: open_file(founder.path, context, founder.mark), founder.path) as handle:
            told = told_by(handle)
            with pytest.raises(PeersdError) as caught:
                await redeem(handle, only, guest)
            disk.close()
            assert (caught.value.code, told) == ("store_full", ["IDENTITY"])
            assert handle.state.role_of(guest.user) is Role.NONE
            is_roomy = True
            assert await redeem(handle, only, guest) is None
            assert (told, handle.state.role_of(guest.user)) == (["IDENTITY", "CONTROL"], Role.WRITER)
