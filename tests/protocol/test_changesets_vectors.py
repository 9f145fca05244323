"""The implementation against protocol/vectors/changesets.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peersd_protocol import changesets
from peersd_protocol.changesets import Changeset, TableChangeset, UnknownBody, Updates
from peersd_protocol.errors import CloseCode, RemoteProtocolError

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "protocol" / "vectors" / "changesets.json").read_text())


def untagged(value: Any) -> Any:
    if isinstance(value, dict):
        return bytes.fromhex(value["bytes"]) if "bytes" in value else float.fromhex(value["real"])
    return [untagged(item) for item in value] if isinstance(value, list) else value


def table(case: dict[str, Any]) -> TableChangeset:
    updates = tuple(
        Updates(tuple(group["positions"]), untagged(group["keys"]), untagged(group["columns"])) for group in case["updates"]
    )
    act, op = untagged(case["table"])
    added = tuple((act, op) for act, op in untagged(case["added"]))
    # What is absent is encoded as an empty array, and decoded as an empty list.
    return TableChangeset((act, op), added, untagged(case["inserts"]), updates, untagged(case["deletes"]))


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])
def test_valid_bodies_say_what_they_say_and_encode_to_the_same_bytes(case: dict[str, Any]) -> None:
    body = bytes.fromhex(case["body"])
    decoded = changesets.decode(body)
    if case.get("unknown"):
        assert isinstance(decoded, UnknownBody)
        return
    expected = Changeset(tuple(table(part) for part in case["tables"]))
    assert repr(decoded) == repr(expected)
    assert changesets.encode(expected) == body


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_invalid_bodies_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        changesets.decode(bytes.fromhex(case["body"]))
    assert caught.value.close_code is CloseCode[case["error"]]
