"""The store and the oracle against protocol/vectors/merge.json."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from peersd_protocol import changesets
from peersd_protocol.changesets import Changeset
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.schema import Column, Default, Schema, Table
from tests.store.merge_replica import Entry, Replica

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "protocol" / "vectors" / "merge.json").read_text())


def read_schema() -> Schema:
    tables: list[Table] = []
    for made in VECTORS["schema"]:
        columns = tuple(
            Column((bytes.fromhex(one["id"][0]), *one["id"][1:]), one["name"], one["type"], read_default(one["default"]), False)
            for one in made["columns"]
        )
        act, op = made["id"]
        tables.append(Table((bytes.fromhex(act), op), made["name"], columns, tuple(made["key"]), False, False))
    return Schema(len(tables), tuple(tables), ())


def read_default(value: Any) -> Default:
    return Default(0) if value is None else Default(1, value)


def read_entry(made: dict[str, Any]) -> Entry:
    return Entry((made["hlc"], bytes.fromhex(made["device"]), bytes.fromhex(made["hash"])), bytes.fromhex(made["body"]))


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])
def test_every_order_of_arrival_leads_to_the_rows(case: dict[str, Any]) -> None:
    for order in permutations(map(read_entry, case["entries"])):
        replica = Replica(read_schema())
        replica.take_all(order)
        replica.check()  # which compares with the oracle
        assert {name: [list(row) for row in rows] for name, rows in replica.merge.dump().items()} == case["rows"]


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_what_the_schema_cannot_take_is_refused(case: dict[str, Any]) -> None:
    replica = Replica(read_schema())
    changeset = changesets.decode(bytes.fromhex(case["body"]))
    assert isinstance(changeset, Changeset)
    replica.held.append(Entry((1, b"", b""), b""))
    with pytest.raises(RemoteProtocolError) as caught:
        replica.merge.apply(1, changeset)
    assert caught.value.close_code is CloseCode[case["error"]]
