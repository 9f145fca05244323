"""The implementation against protocol/vectors/mesh.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peersd_protocol.mesh import LinkView, Mesh, MeshView
from peersd_protocol.rings import make_ring, neighbours

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "protocol" / "vectors" / "mesh.json").read_text())
VALID: list[dict[str, Any]] = VECTORS["valid"]


def members(listed: dict[str, list[str]]) -> dict[bytes, tuple[bytes, ...]]:
    return {bytes.fromhex(user): tuple(map(bytes.fromhex, devices)) for user, devices in listed.items()}


def view(case: dict[str, Any]) -> MeshView:
    known = {
        key: tuple(map(bytes.fromhex, case[key]))
        for key in ("reachable", "unannounced", "reached", "failing", "refused", "pinned", "denied")
    }
    return MeshView(
        own_users=tuple(map(bytes.fromhex, case["own_users"])),
        groups={bytes.fromhex(group): members(listed) for group, listed in case["groups"].items()},
        links={bytes.fromhex(device): LinkView(**link) for device, link in case["links"].items()},
        links_max=case["links_max"],
        **known,
    )


@pytest.mark.parametrize("case", [case for case in VALID if "ring" in case], ids=lambda case: case["name"])
def test_rings_and_neighbours_are_as_stated(case: dict[str, Any]) -> None:
    group = bytes.fromhex(case["group"])
    ring = make_ring(group, members(case["members"]))
    assert [device.hex() for device in ring] == case["ring"]
    counts = [{near.device.hex(): near.lesser_count for near in neighbours(group, ring, device)} for device in ring]
    assert counts == case["lesser_counts"]


@pytest.mark.parametrize("case", [case for case in VALID if "wanted" in case], ids=lambda case: case["name"])
def test_what_a_device_knows_leads_to_the_stated_decision(case: dict[str, Any]) -> None:
    decision = Mesh(bytes.fromhex(case["device"])).decide(view(case), case["now_ms"])
    assert [device.hex() for device in decision.wanted] == case["wanted"]
    assert [[device.hex(), code.name] for device, code in decision.close] == case["close"]
    assert [group.hex() for group in decision.left_out] == case["left_out"]
    assert decision.again_at_ms == case["again_at_ms"]


@pytest.mark.parametrize(
    "case", [case for case in [*VALID, *VECTORS["invalid"]] if "admits" in case], ids=lambda case: case["name"]
)
def test_a_new_link_is_let_in_or_refused_as_stated(case: dict[str, Any]) -> None:
    mesh = Mesh(bytes.fromhex(case["device"]))
    is_let_in = mesh.admits(view(case), bytes.fromhex(case["new"]), case["now_ms"], is_guest=case["is_guest"])
    assert is_let_in is case["admits"] is ("error" not in case)
