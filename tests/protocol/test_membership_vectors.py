"""The implementation against protocol/vectors/membership.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peersd_protocol import canonical
from peersd_protocol.constants import ACT_BYTES_MAX
from peersd_protocol.entries import Act, Header, Kind
from peersd_protocol.membership import evaluate
from peersd_protocol.roles import format_role

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "protocol" / "vectors" / "membership.json").read_text())


def act(entry: dict[str, str]) -> Act:
    fields: list[Any] = canonical.decode(bytes.fromhex(entry["header"]), bytes_max=ACT_BYTES_MAX)
    version, group, kind, user, device, epoch, seq, prev, hlc, deps, heads, body_hash, ext = fields
    assert version == 1
    header = Header(group, Kind(kind), user, device, epoch, seq, prev, hlc, tuple(deps), tuple(heads), body_hash, tuple(ext))
    assert header.encoded.hex() == entry["header"]
    return Act(header, canonical.decode(bytes.fromhex(entry["body"]), bytes_max=ACT_BYTES_MAX) if entry["body"] else [])


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])
def test_a_set_of_acts_amounts_to_what_is_stated(case: dict[str, Any]) -> None:
    acts = [act(entry) for entry in case["acts"]]
    expected = case["expected"]
    for order in (acts, acts[::-1]):
        state = evaluate(bytes.fromhex(case["group"]), order)
        assert (state.name, state.description, state.needs_upgrade) == tuple(
            expected[key] for key in ("name", "description", "needs_upgrade")
        )
        assert {user.hex(): format_role(member.role) for user, member in state.members.items()} == expected["members"]
        assert {
            name.hex(): {"uses": it.uses, "overused": it.overused, "revoked": it.revoked, "withdrawn": it.withdrawn}
            for name, it in state.invites.items()
        } == expected["invites"]
        assert {user.hex(): [device.hex() for device in member.devices] for user, member in state.members.items()} == (
            expected["devices"]
        )
        assert {user.hex(): member.ended for user, member in state.members.items() if member.ended} == expected["ended"]
        assert {
            user.hex(): {"reason": ban.reason, "by": ban.banned_by.hex(), "hlc": ban.banned_hlc}
            for user, ban in state.bans.items()
        } == expected["bans"]
        assert sorted(name.hex() for name in state.void) == expected["void"]
        assert {table.name: [column.name for column in table.columns] for table in state.schema.tables} == expected["tables"]
