"""Who has the address of a device and nothing else learns nothing from it."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from peersd.net.channels import LinkHandle, OpenRefused
from peersd.net.runner import run_link
from peersd.net.transport import open_websocket
from peersd.testing.pairs import GROUP, open_pair
from peersd.testing.processes import HANG_S
from peersd_protocol import ids
from peersd_protocol.devicekeys import DeviceKeys
from peersd_protocol.handshake import Handshake, Role
from peersd_protocol.link import Link
from peersd_protocol.redemption import sign_redemption
from peersd_protocol.signing import SigningKey
from peersd_protocol.tickets import Ticket, make_redemption, parse_ticket
from peersd_protocol.tokens import SIDE_DIALLER, SIDE_LISTENER, OpenPayload, group_token

pytestmark = pytest.mark.e2e


@asynccontextmanager
async def open_stranger(url: str, keys: DeviceKeys) -> AsyncGenerator[LinkHandle]:
    """A link to a daemon by keys that it has never seen; whatever it opens to us fails the test."""
    send, receive = trio.open_memory_channel[LinkHandle](1)

    async def on_up(handle: LinkHandle) -> None:
        handle.release()
        send.send_nowait(handle)
        async for _ in handle.incoming:
            raise AssertionError("the daemon opened a channel to a stranger")

    handshake = Handshake(Role.DIALLER, keys, boot_id=os.urandom(16), ephemeral_private=os.urandom(32))
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await run_link(open_websocket(url, timeout_s=HANG_S), Link(Role.DIALLER, handshake), on_up, direction="out")

        nursery.start_soon(run)
        yield await receive.receive()
        nursery.cancel_scope.cancel()


def new_keys() -> DeviceKeys:
    return DeviceKeys(os.urandom(32), os.urandom(32), os.urandom(32))


async def refused(handle: LinkHandle, payload: bytes, proof: list[bytes] | None = None) -> tuple[bytes, int]:
    """What REFUSE says, and how many bytes the answer took."""
    before = handle.bytes_in
    with trio.fail_after(HANG_S), pytest.raises(OpenRefused) as caught:
        await handle.open(payload, proof or [])
    return caught.value.payload, handle.bytes_in - before


async def test_a_stranger_with_the_address_alone_gets_one_and_the_same_refusal_whatever_it_asks(tmp_path: Path) -> None:
    async with open_pair(tmp_path, "CREATE TABLE note (id TEXT PRIMARY KEY)") as pair:
        url = await pair.ada.url()
        keys = new_keys()
        group_id = ids.parse_id(ids.GROUP, (await pair.ada.call("group.show", group=GROUP))["group_id"])
        personal_id = ids.parse_id(ids.GROUP, (await pair.ada.call("group.show", group="personal"))["group_id"])
        ticket = parse_ticket((await pair.ada.call("invite.create", group=GROUP))["ticket"])
        async with open_stranger(url, new_keys()) as earlier:
            replayed = group_token(group_id, earlier.handshake_hash, SIDE_DIALLER)
        async with open_stranger(url, keys) as handle:

            def token(group: bytes, side: bytes = SIDE_DIALLER) -> bytes:
                return group_token(group, handle.handshake_hash, side)

            def asked(of: bytes) -> bytes:
                return OpenPayload(of, os.urandom(16)).encode()

            questions: dict[str, Callable[[], bytes]] = {
                "a random token": lambda: asked(os.urandom(16)),
                "a token of another link": lambda: asked(replayed),
                "the other side's token": lambda: asked(token(group_id, SIDE_LISTENER)),
                "the right token of a group that it is not in": lambda: asked(token(group_id)),
                "the right token of a personal group": lambda: asked(token(personal_id)),
                "no payload": lambda: b"",
                "garbage": lambda: os.urandom(60),
            }
            await refused(handle, asked(os.urandom(16)))  # what the daemon says by itself on a new link is in by now
            answers = {what: await refused(handle, question()) for what, question in questions.items()}
            assert {payload for payload, _ in answers.values()} == {b""}, answers
            # Not even the size of the answer tells one question from another.
            assert len({size for _, size in answers.values()}) == 1, answers

            # With a proof, too, unless the invite key itself has signed it: the seed is what the ticket is.
            user = os.urandom(32)
            forged = Ticket(group_id, ticket.invite_hash, os.urandom(32), ticket.addresses, ticket.group_name)
            with_proof = {
                "another invite key": make_redemption(
                    forged,
                    device_key=keys.signing,
                    user=user,
                    identity_head_hash=os.urandom(32),
                    handshake_hash=handle.handshake_hash,
                ),
                "an invite that is none": sign_redemption(
                    group_id=group_id,
                    invite_hash=os.urandom(32),
                    invite_key=SigningKey(os.urandom(32)),
                    user=user,
                    identity_head_hash=os.urandom(32),
                    device_key=keys.signing,
                    handshake_hash=handle.handshake_hash,
                ),
                "a proof seen on another link": make_redemption(
                    ticket,
                    device_key=keys.signing,
                    user=user,
                    identity_head_hash=os.urandom(32),
                    handshake_hash=earlier.handshake_hash,
                ),
                "a proof of another device": make_redemption(
                    ticket,
                    device_key=new_keys().signing,
                    user=user,
                    identity_head_hash=os.urandom(32),
                    handshake_hash=handle.handshake_hash,
                ),
            }
            for what, proof in with_proof.items():
                payload, _ = await refused(handle, OpenPayload(token(group_id), bytes(16), proof=proof).encode(), [b"\x90"])
                assert payload == b"", what

            # The real ticket's holder alone is told a reason.
            true = make_redemption(
                ticket,
                device_key=keys.signing,
                user=user,
                identity_head_hash=os.urandom(32),
                handshake_hash=handle.handshake_hash,
            )
            payload, _ = await refused(handle, OpenPayload(token(group_id), bytes(16), proof=true).encode(), [b"\x90"])
            assert b"invite_invalid" in payload
        members = await pair.ada.call("member.list", group=GROUP)
        assert [one["name"] for one in members] == ["ada", "ben"]
        # Meanwhile the group went on, undisturbed.
        await pair.ben.call("sql.execute", sql="INSERT INTO note VALUES ('x')", group=GROUP)
        await pair.sync()
        assert await pair.rows("SELECT id FROM note") == [["x"]]
