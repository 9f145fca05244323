"""Who breaks a rule in a group's channel: that side waits, and so does who would accept its next (SPEC: O-7, O-8)."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from peersd.net.channels import Channel
from peersd.node.api_node import ApiNode
from peersd.node.sharing import Sharing
from peersd_protocol.constants import LANE_RETRY_MS
from tests.node.two_nodes import group_of, open_two, until, write


def sharing_of(node: ApiNode) -> Sharing:
    return next(iter(node.sharings.values()))


def open_channels(node: ApiNode, group_id: bytes) -> list[Channel]:
    sharing = sharing_of(node)
    lanes = [lane for lane, place in sharing._machine._lanes.items() if place.group == group_id]
    return [sharing._channels[lane] for lane in lanes if lane in sharing._channels]


def refuses_for_ms(node: ApiNode, group_id: bytes) -> int:
    return sharing_of(node)._machine._places[group_id].blame.wait_ms


async def test_only_the_side_that_found_a_rule_broken_refuses_the_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_two(tmp_path, "shared", "other") as two:
        group = group_of(two.ben, "shared")
        await until(lambda: len(open_channels(two.ben, group.id)) == 1)
        (channel,) = open_channels(two.ben, group.id)
        with caplog.at_level(logging.WARNING):
            await channel.send(b"\xff")
            await until(lambda: refuses_for_ms(two.ada, group.id) == LANE_RETRY_MS)
        assert refuses_for_ms(two.ben, group.id) == 0
        assert refuses_for_ms(two.ada, group_of(two.ada, "other").id) == 0
        said = [record for record in caplog.records if record.getMessage() == "session closed for a fault of the remote side"]
        assert len(said) == 1
        await write(two.ben, "shared", "row")
        await until(lambda: list(group_of(two.ada, "shared").lanes().values()) == [True])  # it goes on after the wait
