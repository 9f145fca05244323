"""A hostile member against a node that runs: messages over a link that is kept to the rules, and links that are not (SPEC: L, N).

Between cases the node is asked for something, so that what a case brought about is known before the next one: no waiting by time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

import trio

from peersd.net.channels import Channel, ChannelIsClosed
from peersd.net.transport import Transport, TransportClosed, open_websocket
from peersd.node.device_file import load_device
from peersd.node.group import Group
from peersd.store.store import Store
from peersd.testing.forging import Rogue
from peersd.testing.fuzzing.author import Author
from peersd.testing.fuzzing.forgeries import Turns
from peersd.testing.fuzzing.messages import KINDS, Messages
from peersd.testing.fuzzing.mutation import mutate_bytes
from peersd.testing.fuzzing.world import World
from peersd.testing.processes import HANG_S
from peersd.testing.simulator.entries import Piece, pieces_of
from peersd.testing.simulator.founding import Person
from peersd_protocol.constants import BOOT_ID_BYTES
from peersd_protocol.entries import Kind
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.frames import FrameType, decode_clock, decode_close_code, decode_frames, encode_frame, encode_number_frame
from peersd_protocol.handshake import Established, Handshake, Role
from peersd_protocol.messages import Have, decode_message, encode_ask, is_beacon_message
from peersd_protocol.signing import SigningKey
from peersd_protocol.tokens import DIGEST_BYTES, SIDE_DIALLER, OpenPayload, group_token

PLAIN_FRAMES: Final = (
    *(encode_number_frame(kind, 1, 1) for kind in (FrameType.CREDIT, FrameType.RETURN, FrameType.CLOSE)),
    *(encode_frame(kind, 1, b"\x02\x91\x07") for kind in (FrameType.DATA, FrameType.DATA_END)),
    *(encode_frame(kind, 2, b"") for kind in (FrameType.ACCEPT, FrameType.REFUSE, FrameType.OPEN)),
    *(encode_frame(kind, 0, bytes(16)) for kind in (FrameType.PING, FrameType.PONG)),
    encode_number_frame(FrameType.GOAWAY, 0, CloseCode.NORMAL),
)


@dataclass
class Outcome:
    """What became of the cases: how many were taken, and with which codes the others were closed."""

    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter[str])


# --- The group as it is ---------------------------------------------------------------------------------------------------------


def person_of(folder: Path, store: Store) -> Person:
    """The user of the device whose data folder this is, as a store knows it."""
    device = load_device(folder)
    assert device is not None
    user = next(user for user, known in store.state.users.items() if device.keys.device in known.devices)
    identity = store.identity_runs(user)
    return Person(device.name, device.keys, user, identity[0], tuple(identity[1:]))


async def world_of(group: Group, folder: Path, *, victim: Path, bystander: Path, hostile: Path) -> World:
    """A running node's group, as the grammar wants it.

    Args:
        group: on the node that is attacked.
        folder: any.
        victim: the data folder of that node.
        bystander: that of a member's.
        hostile: that of the member who attacks.
    """

    def read(store: Store) -> World:
        held: tuple[Piece, ...] = tuple(pieces_of(store))
        attacked, honest, other = (person_of(data, store) for data in (victim, bystander, hostile))
        (table,) = store.state.schema.tables
        heads = tuple(sorted(store.log.act_heads))
        spare = b"", SigningKey(bytes(32))
        return World(folder, group.id, attacked, honest, other, held, held, store.vector(), spare, heads, table.id)

    async with group.use() as opened:
        return await opened.store.call(lambda: read(opened.store.store))


# --- Messages over a good link --------------------------------------------------------------------------------------------------


async def send_messages(link: Callable[[], AbstractAsyncContextManager[Rogue]], world: World, seed: int, count: int) -> Outcome:
    """Sends cases of the grammar over channels, each channel on a link of its own: who broke a rule on a link has to wait there.

    Args:
        link: makes a link by the hostile device's key.
        world: the group.
        seed: of the cases.
        count: how many.

    Raises:
        AssertionError: a good one was refused.
    """
    random = Random(f"live/{seed}")
    messages = Messages(world, Author(world), Turns(seed))
    outcome = Outcome()
    known = next(piece.run.last for piece in world.held if piece.run.log.kind is Kind.DATA)
    left = count
    while left:
        async with link() as rogue:
            channel = await rogue.open(world.group)
            code: CloseCode | None = None
            is_good = True
            while left and code is None:
                left -= 1
                kind = random.choice(KINDS)
                said = messages.make(random, kind)
                code = await _say(channel, (*said.messages, encode_ask([known.hash])))
                is_good = is_good and said.is_good  # an answer may be to what came before, so that the next one is blamed
                assert code is None or not is_good, f"a good {kind} was refused with {code}"
            if code is not None:
                outcome.refused[code.name] += 1
    outcome.taken = count - outcome.refused.total()
    return outcome


async def _say(channel: Channel, messages: Sequence[bytes]) -> CloseCode | None:
    """Sends messages, the last of which is an ASK; None when that is answered, else the code that the channel was closed with."""
    with trio.fail_after(HANG_S):
        try:
            for message in messages:
                await channel.send(message)
            while True:
                heard = await channel.receive()
                if not is_beacon_message(heard) and isinstance(decode_message(heard), Have):
                    return None
        except ChannelIsClosed as closed:
            return closed.code


# --- Links that break the rules -------------------------------------------------------------------------------------------------


async def send_frames(url: str, world: World, seed: int, count: int) -> Outcome:
    """Makes one link after another and breaks it, in the handshake or after it."""
    random = Random(f"links/{seed}")
    outcome = Outcome()
    for _ in range(count):
        with trio.fail_after(HANG_S):
            async with open_websocket(url, timeout_s=HANG_S) as transport:
                code = await _break(random, transport, world)
        if code is None:
            outcome.taken += 1
        else:
            outcome.refused[code] += 1
    return outcome


async def _break(random: Random, transport: Transport, world: World) -> str | None:
    """One link; the code that it was ended with, "closed" without any, or None if it stood."""
    spoils = random.choice((1, 3, None, None, None))
    try:
        established = await _shake_hands(random, transport, world, spoils)
        frames = _frames(random, world, established)
        for plaintext in frames:
            await transport.send(_prefixed(established.send.encrypt(plaintext)))
        nonce = random.getrandbits(64)
        ping = encode_frame(FrameType.PING, 0, nonce.to_bytes(8, "big") + bytes(8))
        await transport.send(_prefixed(established.send.encrypt(ping)))
        return await _answer(transport, established, nonce)
    except TransportClosed:
        return "closed"
    except RemoteProtocolError:
        return "given up here"  # it answered a first message that says another key than this side's


async def _shake_hands(random: Random, transport: Transport, world: World, spoils: int | None) -> Established:
    keys = world.hostile.keys
    own = Handshake(
        Role.DIALLER, keys, boot_id=random.randbytes(BOOT_ID_BYTES), ephemeral_private=random.randbytes(32)
    )  # another process each time: the newest link stays
    first = own.start()
    assert first is not None
    await transport.send(_prefixed(mutate_bytes(random, first) if spoils == 1 else first) or b"\0")
    step = own.receive(bytes((await transport.receive())[2:]))
    assert step.reply is not None and step.result is not None
    await transport.send(_prefixed(mutate_bytes(random, step.reply) if spoils == 3 else step.reply) or b"\0")
    return step.result


def _frames(random: Random, world: World, established: Established) -> list[bytes]:
    """Plaintexts of Noise messages: an OPEN of the group, and frames of which some are changed."""
    token = group_token(world.group, established.handshake_hash, SIDE_DIALLER)
    opens = encode_frame(FrameType.OPEN, 1, OpenPayload(token, random.randbytes(DIGEST_BYTES)).encode())
    frames = [opens if random.random() < 0.8 else mutate_bytes(random, opens)]
    for _ in range(random.randint(0, 3)):
        frame = random.choice(PLAIN_FRAMES)
        frames.append(frame if random.random() < 0.3 else mutate_bytes(random, frame))
    return frames


async def _answer(transport: Transport, established: Established, nonce: int) -> str | None:
    """Reads until a PING is answered, or the link ends."""
    while True:
        message = await transport.receive()
        at = 0
        while at < len(message):
            begin = at + 2
            at = begin + int.from_bytes(message[at:begin], "big")
            for frame_type, _, payload in decode_frames(established.receive.decrypt(message[begin:at])):
                if frame_type == FrameType.PONG and decode_clock(payload)[0] == nonce:
                    return None
                if frame_type == FrameType.GOAWAY:
                    return decode_close_code(payload).name


def _prefixed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message
