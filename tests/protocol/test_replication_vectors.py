"""The replication machine against its vectors."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from peersd_protocol import canonical
from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.errors import RemoteProtocolError
from peersd_protocol.messages import Runs, WantItem
from peersd_protocol.replication import Committed, Comparison, Effect, Ingested, Parked, ParkingLot, Replication
from peersd_protocol.vectors import Vector, encode_vector, parse_vector

VECTORS = json.loads((Path(__file__).parents[2] / "protocol" / "vectors" / "replication.json").read_text("utf-8"))


def log_of(letter: str) -> LogKey:
    return LogKey(Kind.DATA, b"", letter.encode() * 32, letter.encode() * 16)


def own_of(case: Any) -> Vector:
    return parse_vector(canonical.decode(bytes.fromhex(case["own"]), bytes_max=10_000))


def written(value: Any) -> Any:
    match value:
        case bytes():
            return value.hex()
        case LogKey():
            return value.device[:1].decode()
        case Mapping():
            return encode_vector(value).hex()
        case tuple() | list():
            return [written(item) for item in value]
        case _ if dataclasses.is_dataclass(value):
            return {field.name: written(getattr(value, field.name)) for field in dataclasses.fields(value)}
        case _:
            return value


def take(machine: Replication, own: Vector, step: Any) -> list[Effect]:
    session = step.get("session", 0)
    match step["do"]:
        case "open":
            return machine.session_opened(session, ParkingLot(), own if step["equal"] else None, 0, is_told=True)
        case "receive":
            return machine.receive(session, bytes.fromhex(step["message"]), 10)
        case "compared":
            items = tuple(WantItem(log_of(log), (seq, bytes.fromhex(tip)), ()) for log, seq, tip in step["lacks"])
            return machine.compared(session, Comparison(items), 20)
        case "committed":
            entries = [
                Committed(100 + seq, log_of(log), seq, bytes.fromhex(name), tuple((log_of(one), upto) for one, upto in requires))
                for log, seq, name, requires in step["entries"]
            ]
            message = bytes.fromhex(step["message"]) if step["message"] else None
            return machine.committed(entries, 30, step["origin"], message)
        case "known":
            held = {log_of(step["log"]): (step["seq"], bytes.fromhex(step["hash"]))}
            return machine.ingested(session, Ingested(held), 40)
        case "parked":
            parked = Parked(Runs(0, bytes.fromhex(step["payload"])), frozenset([bytes.fromhex(step["missing"])]))
            return machine.ingested(session, Ingested({}, (parked,)), 40)
        case "timer":
            return machine.timer_expired(step["timer"], step["now_ms"])
        case "close":
            return machine.session_closed(session, 50)
        case other:
            raise AssertionError(other)


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["what"])
def test_every_step_has_the_effects_and_messages_that_are_written_down(case: Any) -> None:
    own = own_of(case)
    machine = Replication(own)
    for step in case["steps"]:
        if step["do"] == "due":
            assert [message.hex() for message in machine.take_due(step["session"])] == step["messages"]
            continue
        assert [{"effect": type(effect).__name__, **written(effect)} for effect in take(machine, own, step)] == step["effects"]


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["what"])
def test_a_message_that_breaks_a_rule_ends_the_session_with_its_code(case: Any) -> None:
    machine = Replication({})
    machine.session_opened(1, ParkingLot(), {}, 0, is_told=True)
    with pytest.raises(RemoteProtocolError) as refused:
        machine.receive(1, bytes.fromhex(case["message"]), 10)
    assert refused.value.close_code.name == case["error"]
