"""What a link carries on the channel of a group is of that group: every message is recorded where it enters the multiplexer."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from peersd.net.channels import LinkHandle
from peersd.node.api_node import ApiNode
from peersd.testing.processes import HANG_S
from peersd_protocol import blocks
from peersd_protocol.link import Link
from peersd_protocol.messages import Block, Runs, decode_message, decode_runs, is_beacon_message
from peersd_protocol.tokens import SIDE_DIALLER, SIDE_LISTENER, decode_open, group_token
from tests.node.two_nodes import Two, group_of, open_two

TABLE = "CREATE TABLE item (id TEXT PRIMARY KEY, body BLOB)"
INSERT = "INSERT INTO item (id, body) VALUES (?, ?)"
NAMES = ("first", "second", "third")


class Recorder:
    """A link's machine that keeps what it is given to send; everything else it is asked is asked of the machine itself.

    Attributes:
        opened: the payload of OPEN by the channel's number, of those that this side opened.
        sent: the messages by the channel's number.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self.opened: dict[int, bytes] = {}
        self.sent: dict[int, list[bytes]] = defaultdict(list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def open_channel(self, payload: bytes, now_ms: int, **options: Any) -> Any:
        """See Link."""
        number, effects = self._link.open_channel(payload, now_ms, **options)
        self.opened[number] = payload
        return number, effects

    def send(self, channel: int, message: bytes, now_ms: int, **options: Any) -> Any:
        """See Link."""
        self.sent[channel].append(message)
        return self._link.send(channel, message, now_ms, **options)


def record(node: ApiNode) -> tuple[LinkHandle, Recorder]:
    """Begin to record on a node's only link, which carries no channel yet."""
    assert node.links is not None
    (handle,) = node.links.handles()
    assert not handle.channels
    recorder = Recorder(handle.link)
    handle.link = cast(Link, recorder)
    return handle, recorder


def in_plain(message: bytes, group: bytes) -> Iterator[bytes]:
    """The bytes of a message, and those of what is packed in it, read as what the group's members read it as."""
    yield message
    if is_beacon_message(message):
        return
    packed = decode_message(message)
    if isinstance(packed, Block):
        yield blocks.decode_block(packed.data)
    elif isinstance(packed, Runs):
        for run in decode_runs(packed, group):
            run.check_signature()  # it names the group: none of another would pass
            for entry in run.entries:
                for block in entry.body.blocks or ():
                    yield blocks.decode_block(block)


async def write_marked(two: Two, marks: dict[str, list[bytes]]) -> None:
    """Write marked rows into all groups from both sides, small ones and one in a bulk, and return when all have crossed."""
    for name in NAMES:
        for node in two.nodes:
            for rows in (1, 1, 200):
                mark = secrets.token_bytes(48)
                marks[name].append(mark)
                params = [
                    (f"{mark.hex()} {number}", mark if number == 0 else secrets.token_bytes(4096)) for number in range(rows)
                ]
                await node.sql_transaction(user=None, group=name, statements=[(INSERT, params)], timeout_s=HANG_S)
    await two.rest()


async def test_a_row_of_one_group_is_in_no_message_on_the_channel_of_another(tmp_path: Path) -> None:
    async with open_two(tmp_path) as two:
        recorded = [record(node) for node in two.nodes]
        await two.share(*NAMES)
        for name in NAMES:
            await two.ada.sql_execute(user=None, group=name, sql=TABLE, params=(), timeout_s=HANG_S)
        await two.rest()
        marks: dict[str, list[bytes]] = {name: [] for name in NAMES}
        await write_marked(two, marks)
        # Also by stores that were closed meanwhile, and over channels that were opened again.
        await two.rest()
        await write_marked(two, marks)

        group_ids = {group_of(two.ada, name).id: name for name in NAMES}
        found: dict[str, set[bytes]] = {name: set() for name in NAMES}
        messages = 0
        by_number = {number: (handle, payload) for handle, recorder in recorded for number, payload in recorder.opened.items()}
        for _, recorder in recorded:
            for number, sent in recorder.sent.items():
                opener, payload = by_number[number]
                side = SIDE_DIALLER if opener.direction == "out" else SIDE_LISTENER
                token = decode_open(payload).token
                (group,) = [id_ for id_ in group_ids if group_token(id_, opener.handshake_hash, side) == token]
                for message in sent:
                    messages += 1
                    for part in in_plain(message, group):
                        for name, written in marks.items():
                            held = {mark for mark in written if mark in part}
                            assert not held or name == group_ids[group], f"a row of {name} on the channel of {group_ids[group]}"
                            found[name] |= held
        # The search does find what is there: each row crossed, on its group's channel.
        assert found == {name: set(written) for name, written in marks.items()}
        assert messages > sum(map(len, marks.values()))
