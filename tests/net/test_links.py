from __future__ import annotations

import os

import pytest
import trio

from peersd.net.channels import Channel, ChannelIsClosed, LinkHandle, OpenRefused
from peersd_protocol.constants import MIB
from peersd_protocol.errors import CloseCode
from tests.net.links import dialled, echo_all, linked, serving
from tests.turns import counted_turns


async def test_two_diallers_get_their_own_echoes_over_two_links() -> None:
    async with serving(echo_all) as listener, dialled(listener.urls[0]) as one, dialled(listener.urls[0]) as two:
        assert one.remote_device == two.remote_device
        assert one.handshake_hash != two.handshake_hash
        for handle, word in ((one, b"one"), (two, b"two")):
            channel = await handle.open(word)
            assert channel.accept_payload == b"welcome " + word
            await channel.send(word * 1000)
            assert await channel.receive() == word * 1000


async def test_three_hundred_channels_echo_a_message_each() -> None:
    echoed = []

    async def ask(handle: LinkHandle, number: int) -> None:
        channel = await handle.open(b"%d" % number)
        await channel.send(b"%d" % number * 500)
        echoed.append(await channel.receive() == b"%d" % number * 500)
        channel.close()

    async with serving(echo_all) as listener, dialled(listener.urls[0]) as handle:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(300):
                    nursery.start_soon(ask, handle, number)
    assert echoed == [True] * 300


async def pair_of_channels(dialler: LinkHandle, listener: LinkHandle) -> tuple[Channel, Channel]:
    opened: list[Channel] = []

    async def ask() -> None:
        opened.append(await dialler.open(b""))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        wish = await anext(aiter(listener.incoming))
        answered = wish.accept()
    return opened[0], answered


async def test_messages_that_came_at_once_leave_others_a_turn_between_them() -> None:
    async with linked() as (dialler, listener):
        many_out, many_in = await pair_of_channels(dialler, listener)
        last_out, last_in = await pair_of_channels(dialler, listener)
        for _ in range(20):
            await many_out.send(b"x")
        await last_out.send(b"behind them")
        await last_in.receive()
        async with counted_turns() as turns:
            for _ in range(20):
                await many_in.receive()
        assert turns() >= 15


async def test_a_live_echo_goes_between_bulk_and_not_after_it() -> None:
    async with linked() as (dialler, listener):
        bulk_out, bulk_in = await pair_of_channels(dialler, listener)
        live_out, live_in = await pair_of_channels(dialler, listener)
        bulk_left = 100

        async def send_bulk() -> None:
            message = os.urandom(MIB)
            for _ in range(100):
                await bulk_out.send(message, bulk=True)

        async def take_bulk() -> None:
            nonlocal bulk_left
            while bulk_left:
                await bulk_in.receive()
                bulk_left -= 1

        async def echo() -> None:
            while True:
                await live_in.send(await live_in.receive())

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_bulk)
                nursery.start_soon(take_bulk)
                nursery.start_soon(echo)
                left_at_echo = []
                for _ in range(5):
                    await live_out.send(b"x" * 300)
                    await live_out.receive()
                    left_at_echo.append(bulk_left)
                assert left_at_echo[-1] > 0  # all five came back while bulk was under way
                while bulk_left:
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()


async def test_bytes_are_counted_as_on_the_socket_on_both_sides() -> None:
    async with linked() as (dialler, listener):
        out, answered = await pair_of_channels(dialler, listener)
        before = dialler.bytes_out
        await out.send(b"x" * 100_000, bulk=True)
        await answered.receive()
        sent = dialler.bytes_out - before
        # 100,000 bytes, a 3-byte length, 7 frame headers, 2 Noise messages, WebSocket headers, and a ping's answer
        assert 100_000 + 40 < sent < 100_000 + 400
        assert listener.bytes_in >= before + sent


async def test_a_proof_is_read_before_the_answer_and_a_refusal_carries_its_reason() -> None:
    async with linked() as (dialler, listener), trio.open_nursery() as nursery:
        reasons = []

        async def ask() -> None:
            with pytest.raises(OpenRefused) as caught:
                await dialler.open(b"token", [b"identity" * 10_000, b"end"])
            reasons.append(caught.value.payload)

        nursery.start_soon(ask)
        wish = await anext(aiter(listener.incoming))
        assert wish.payload == b"token"
        assert wish.proof_follows
        assert await wish.receive_proof() == b"identity" * 10_000
        assert await wish.receive_proof() == b"end"
        wish.refuse(b"invite_expired")
    assert reasons == [b"invite_expired"]


async def test_messages_before_a_close_are_still_received_and_then_the_code() -> None:
    async with linked() as (dialler, listener):
        out, answered = await pair_of_channels(dialler, listener)
        await out.send(b"last")
        await out.flush()
        out.close(CloseCode.NOT_MEMBER)
        assert await answered.receive() == b"last"
        with pytest.raises(ChannelIsClosed) as caught:
            await answered.receive()
        assert caught.value.code is CloseCode.NOT_MEMBER
        with pytest.raises(ChannelIsClosed):
            await answered.send(b"too late")


async def test_closing_a_link_closes_its_channels_on_the_other_side_with_the_code() -> None:
    async with linked() as (dialler, listener):
        out, answered = await pair_of_channels(dialler, listener)
        listener.close(CloseCode.REPLACED)
        assert listener.is_down
        assert answered.closed is CloseCode.REPLACED
        with pytest.raises(ChannelIsClosed) as caught:
            await out.receive()
        assert caught.value.code is CloseCode.REPLACED
        with pytest.raises(ChannelIsClosed):
            await dialler.open(b"")


async def test_a_stalled_receiver_stops_its_sender_and_no_other_channel() -> None:
    async with linked() as (dialler, listener):
        stalled, _ = await pair_of_channels(dialler, listener)
        out, answered = await pair_of_channels(dialler, listener)
        with trio.move_on_after(0.2) as scope:
            while True:
                await stalled.send(os.urandom(100_000), bulk=True)
        assert scope.cancelled_caught
        with trio.fail_after(30):
            for _ in range(20):
                await out.send(b"y" * 100_000, bulk=True)
                assert await answered.receive() == b"y" * 100_000


async def test_the_round_trip_and_the_clock_offset_are_known_soon() -> None:
    async with linked() as (dialler, listener):
        with trio.fail_after(30):
            while dialler.rtt_ms is None or listener.rtt_ms is None:
                await trio.lowlevel.checkpoint()
        assert dialler.clock_offset_ms is not None
        assert abs(dialler.clock_offset_ms) < 1000
        assert (dialler.direction, listener.direction) == ("out", "in")
