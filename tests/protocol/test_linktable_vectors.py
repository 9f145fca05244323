"""The implementation against protocol/vectors/linktable.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peersd_protocol.linktable import Alarm, Close, Effect, Keep, Link, LinkTable

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "protocol" / "vectors" / "linktable.json").read_text())


def perform(table: LinkTable, step: dict[str, Any]) -> list[Effect]:
    if "down" in step:
        return table.link_down(step["down"])
    return table.link_up(
        Link(
            link_id=step["link"],
            remote_device=bytes.fromhex(step["remote_device"]),
            is_dialled_by_us=step["dialler"] == "local",
            remote_boot_id=bytes.fromhex(step["remote_boot_id"]),
            handshake_hash=bytes.fromhex(step["handshake_hash"]),
            remote_replaces=bytes.fromhex(step["remote_replaces"]),
        )
    )


def described(effect: Effect) -> list[Any]:
    if isinstance(effect, Keep):
        return ["keep", effect.link_id]
    if isinstance(effect, Close):
        return ["close", effect.link_id, effect.close_code.name]
    assert isinstance(effect, Alarm)
    return ["alarm", effect.name, effect.device.hex()]


@pytest.mark.parametrize("case", VECTORS["valid"] + VECTORS["invalid"], ids=lambda case: case["name"])
def test_each_report_has_the_stated_effects(case: dict[str, Any]) -> None:
    table = LinkTable(bytes.fromhex(case["device"]))
    for step, effects in zip(case["steps"], case["effects"], strict=True):
        assert [described(effect) for effect in perform(table, step)] == effects


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_in_the_invalid_cases_the_last_link_is_closed(case: dict[str, Any]) -> None:
    assert ["close", case["steps"][-1]["link"], case["error"]] in case["effects"][-1]
