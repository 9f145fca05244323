"""Joining where not all goes well: devices that say nothing, and a user who was let in before without hearing of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from secrets import token_bytes

import pytest
import trio

from peersd.errors import PeersdError
from peersd.net.channels import ChannelIsClosed, IncomingOpen, LinkHandle
from peersd.node import joining
from peersd.testing.processes import HANG_S
from peersd_protocol.constants import AVATAR_BYTES_MAX
from peersd_protocol.entries import Kind
from peersd_protocol.errors import CloseCode
from peersd_protocol.messages import Runs, Want, WantItem, decode_message, encode_vector_parts
from peersd_protocol.tickets import parse_ticket
from peersd_protocol.tokens import BEACONS_BYTES, DIGEST_BYTES, NO_BEACONS, NO_DIGEST, AcceptPayload, OpenPayload, decode_open
from peersd_protocol.vectors import Vector
from tests.net.link_peers import Peer, running
from tests.node.two_nodes import group_of, open_ada, open_ben, open_cara, open_two, until, write

ATTEMPT_S = 2.0


class Mute(Peer):
    """A device that is asked and does not answer, or accepts and is silent then."""

    def __init__(self, *, accepts: bool) -> None:
        super().__init__()
        self._accepts = accepts
        self.asked: list[IncomingOpen] = []

    async def serve(self, handle: LinkHandle) -> None:
        """See Links."""
        handle.serving.set()
        async for wish in handle.incoming:
            self.asked.append(wish)
            if self._accepts:
                wish.accept(AcceptPayload(bytes(DIGEST_BYTES), bytes(BEACONS_BYTES)).encode(decode_open(wish.payload)))


@pytest.mark.parametrize("accepts", [False, True])
async def test_a_device_that_says_nothing_is_passed_over_for_the_next_address(tmp_path: Path, accepts: bool) -> None:
    async with open_ada(tmp_path) as ada, open_ben(tmp_path) as ben, running(Mute(accepts=accepts)) as mute:
        assert isinstance(mute, Mute)
        await ada.group_create(user=None, name="one", description=None)
        made = await ada.invite_create(user=None, group="one", role="writer", expires_in_s=3600, max_uses=1)
        ticket = replace(parse_ticket(made["ticket"]), addresses=(mute.url, ada.listen_urls[0]))
        joined = await joining.accept(ben, ben.user(None), ticket.format(), HANG_S, attempt_timeout_s=ATTEMPT_S)
        assert joined["role"] == "writer"
        assert len(mute.asked) == 1


async def test_a_linked_device_that_says_nothing_is_asked_after_all_addresses_and_passed_over_too(tmp_path: Path) -> None:
    async with open_ada(tmp_path) as ada, open_ben(tmp_path) as ben, running(Mute(accepts=False)) as mute:
        assert isinstance(mute, Mute)
        await ada.group_create(user=None, name="one", description=None)
        made = await ada.invite_create(user=None, group="one", role="writer", expires_in_s=3600, max_uses=1)
        ticket = replace(parse_ticket(made["ticket"]), addresses=())
        # Linked in this order, so that the member is asked last.
        for url in (mute.url, ada.listen_urls[0]):
            await ben.link_connect(user=None, url=url, device_id=None, timeout_s=HANG_S)
        joined = await joining.accept(ben, ben.user(None), ticket.format(), HANG_S, attempt_timeout_s=ATTEMPT_S)
        assert joined["role"] == "writer"
        assert len(mute.asked) == 1


class Curious(Peer):
    """A device that lets everybody in and states that it holds `vector`; it keeps what it is sent."""

    def __init__(self, vector: Vector) -> None:
        super().__init__()
        self._vector = vector
        self.asked: list[OpenPayload] = []
        self.heard: list[bytes] = []
        self.closed: list[CloseCode | None] = []

    async def serve(self, handle: LinkHandle) -> None:
        """See Links."""
        handle.serving.set()
        async for wish in handle.incoming:
            self.asked.append(decode_open(wish.payload))
            channel = wish.accept(AcceptPayload(bytes(DIGEST_BYTES), bytes(BEACONS_BYTES)).encode(self.asked[-1]))
            with suppress(ChannelIsClosed):
                for message in encode_vector_parts(self._vector):
                    await channel.send(message)
                while True:
                    self.heard.append(await channel.receive())
            self.closed.append(channel.closed)


async def test_who_redeems_a_ticket_at_a_stranger_shows_who_it_is_and_nothing_that_it_holds(tmp_path: Path) -> None:
    async with open_two(tmp_path, "one") as two:
        await write(two.ben, "one", "not for strangers")
        async with group_of(two.ben, "one").use() as opened:
            # A former member knows the logs: who is asked for what follows in them would hear how far they are known.
            vector: Vector = {log: ((1000, bytes(32)),) for log in opened.sync.vector()}
        async with running(Curious(vector)) as stranger:
            assert isinstance(stranger, Curious)
            made = await two.ada.invite_create(user=None, group="one", role="writer", expires_in_s=3600, max_uses=1)
            # An invite that ben has not heard of, as after a removal that it has not heard of either.
            ticket = replace(parse_ticket(made["ticket"]), invite_hash=bytes(32), addresses=(stranger.url,))
            with pytest.raises(PeersdError, match="answered"):
                await joining.accept(two.ben, two.ben.user(None), ticket.format(), HANG_S, attempt_timeout_s=ATTEMPT_S)
            assert [(asked.digest, asked.beacons) for asked in stranger.asked] == [(NO_DIGEST, NO_BEACONS)]
            identity, want = map(decode_message, stranger.heard)
            assert isinstance(identity, Runs)
            acts = sorted(log for log in vector if log.kind is not Kind.DATA)
            assert want == Want(tuple(WantItem(log, (1000, bytes(32)), ()) for log in acts))
            await until(lambda: stranger.closed == [CloseCode.NORMAL])  # ben waits no more


async def test_who_hears_from_others_that_it_is_in_leaves_a_stranger_that_let_it_in(tmp_path: Path) -> None:
    async with open_two(tmp_path, "one") as two, running(Curious({})) as stranger, trio.open_nursery() as nursery:
        assert isinstance(stranger, Curious)
        await two.ben.link_disconnect(user=None, device="ada-laptop")
        made = await two.ada.invite_create(user=None, group="one", role="writer", expires_in_s=3600, max_uses=1)
        ticket = replace(parse_ticket(made["ticket"]), addresses=(stranger.url,))
        accept = partial(joining.accept, attempt_timeout_s=ATTEMPT_S)
        nursery.start_soon(accept, two.ben, two.ben.user(None), ticket.format(), HANG_S)
        await until(lambda: bool(stranger.heard))
        await two.ben.link_connect(user=None, url=two.ada.listen_urls[0], device_id=None, timeout_s=HANG_S)
        await until(lambda: stranger.closed == [CloseCode.NORMAL])
        await until(lambda: group_of(two.ben, "one").opened is None)


async def test_who_came_after_many_acts_lets_others_in_though_what_shows_that_it_is_a_member_comes_late(tmp_path: Path) -> None:
    async with open_two(tmp_path) as two, open_cara(tmp_path) as cara:
        await two.ben.group_create(user=None, name="one", description=None)
        for _ in range(20):  # 1.3 MB, which are streamed in seven messages
            avatar = token_bytes(AVATAR_BYTES_MAX)
            await two.ben.group_update(user=None, group="one", name=None, description=None, avatar=avatar)
        made = await two.ben.invite_create(user=None, group="one", role="admin", expires_in_s=3600, max_uses=1)
        await two.ada.invite_accept(user=None, ticket=made["ticket"], timeout_s=HANG_S)
        made = await two.ada.invite_create(user=None, group="one", role="writer", expires_in_s=3600, max_uses=1)
        ticket = replace(parse_ticket(made["ticket"]), addresses=(two.ada.listen_urls[0],))
        joined = await joining.accept(cara, cara.user(None), ticket.format(), HANG_S)
        assert joined["role"] == "writer"


async def test_who_hears_while_it_redeems_a_bad_ticket_that_it_was_let_in_before_is_in(tmp_path: Path) -> None:
    async with open_ada(tmp_path) as ada, open_ben(tmp_path) as ben, running(Mute(accepts=False)) as mute:
        assert isinstance(mute, Mute)
        await ada.group_create(user=None, name="one", description=None)
        made = await ada.invite_create(user=None, group="one", role="writer", expires_in_s=3600, max_uses=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: ben.invite_accept(user=None, ticket=made["ticket"], timeout_s=HANG_S))
            while group_of(ada, "one").summary.members_count < 2:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()  # before what makes it a member has come
        ticket = parse_ticket(made["ticket"])
        assert ticket.group_id not in ben.groups
        bad = replace(ticket, invite_hash=bytes(32), addresses=(mute.url,))
        joined = await joining.accept(ben, ben.user(None), bad.format(), HANG_S, attempt_timeout_s=ATTEMPT_S)
        assert joined["role"] == "writer"
        assert [group["name"] for group in await ben.group_list(user=None, include_hidden=False)] == ["ben", "one"]
