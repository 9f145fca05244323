"""Vectors of the replication machine: what it is told, and what it then does; SPEC, part R."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from peersd_protocol import canonical
from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.errors import RemoteProtocolError
from peersd_protocol.messages import Runs, Want, WantItem, encode_have, encode_prune, encode_vector_parts, encode_want
from peersd_protocol.replication import (
    Committed,
    Comparison,
    Effect,
    Ingested,
    Parked,
    ParkingLot,
    Replication,
)
from peersd_protocol.vectors import Vector, encode_vector

MINE = LogKey(Kind.DATA, b"", b"m" * 32, b"m" * 16)
THEIRS = LogKey(Kind.DATA, b"", b"t" * 32, b"t" * 16)


def entry_hash(log: LogKey, seq: int) -> bytes:
    return log.device[:1] * 31 + bytes([seq])


def vector(**lengths: int) -> Vector:
    logs = {"mine": MINE, "theirs": THEIRS}
    return {logs[name]: ((length, entry_hash(logs[name], length)),) for name, length in lengths.items()}


def committed(log: LogKey, seq: int, *requires: tuple[LogKey, int]) -> Committed:
    return Committed(100 + seq, log, seq, entry_hash(log, seq), requires)


def plain(value: Any) -> Any:
    """A value of an effect as JSON: bytes as hex, a vector as its canonical bytes in hex, a log by its device's first byte."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, LogKey):
        return value.device[:1].decode()
    if isinstance(value, Mapping):
        return encode_vector(value).hex()
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def effects_of(effects: list[Effect]) -> list[Any]:
    return [{"effect": type(effect).__name__, **plain(effect)} for effect in effects]


class Script:
    """Steps taken with one machine, as they are written down."""

    def __init__(self, what: str, own: Vector) -> None:
        self.what, self.own = what, own
        self.machine = Replication(own)
        self.steps: list[Any] = []

    def step(self, do: str, run: Callable[[], list[Effect]], **arguments: Any) -> Script:
        self.steps.append({"do": do, **arguments, "effects": effects_of(run())})
        return self

    def open(self, session: int, *, equal: bool) -> Script:
        at = self.own if equal else None
        return self.step(
            "open", lambda: self.machine.session_opened(session, ParkingLot(), at, 0, is_told=True), session=session, equal=equal
        )

    def receive(self, session: int, message: bytes) -> Script:
        return self.step("receive", lambda: self.machine.receive(session, message, 10), session=session, message=message.hex())

    def compared(self, session: int, *items: WantItem) -> Script:
        run = lambda: self.machine.compared(session, Comparison(items), 20)  # noqa: E731
        return self.step("compared", run, session=session, lacks=[[plain(item.log), *plain(item.tip)] for item in items])

    def due(self, session: int) -> Script:
        """What is said on a session once its channel has room."""
        messages = [message.hex() for message in self.machine.take_due(session)]
        self.steps.append({"do": "due", "session": session, "messages": messages})
        return self

    def committed(self, *entries: Committed, message: bytes | None = None, origin: int | None = None) -> Script:
        written = [[plain(entry.log), entry.seq, entry.hash.hex(), plain(entry.requires)] for entry in entries]
        run = lambda: self.machine.committed(entries, 30, origin, message)  # noqa: E731
        return self.step("committed", run, entries=written, message=message.hex() if message else None, origin=origin)

    def known(self, session: int, log: LogKey, seq: int) -> Script:
        """A session brought an entry that was here."""
        outcome = Ingested({log: (seq, entry_hash(log, seq))})
        run = lambda: self.machine.ingested(session, outcome, 40)  # noqa: E731
        return self.step("known", run, session=session, log=plain(log), seq=seq, hash=entry_hash(log, seq).hex())

    def parked(self, session: int, missing: bytes) -> Script:
        parked = Parked(Runs(0, b"\x90"), frozenset([missing]))
        run = lambda: self.machine.ingested(session, Ingested({}, (parked,)), 40)  # noqa: E731
        return self.step("parked", run, session=session, payload="90", missing=missing.hex())

    def timer(self, name: str, now_ms: int) -> Script:
        return self.step("timer", lambda: self.machine.timer_expired(name, now_ms), timer=name, now_ms=now_ms)

    def close(self, session: int) -> Script:
        return self.step("close", lambda: self.machine.session_closed(session, 50), session=session)

    @property
    def value(self) -> dict[str, Any]:
        return {"what": self.what, "own": encode_vector(self.own).hex(), "steps": self.steps}


def scripts() -> list[Script]:
    push = canonical.encode([3, 0, b"\x90"])
    lacking = WantItem(THEIRS, (3, entry_hash(THEIRS, 3)), ())
    theirs_longer = encode_vector_parts(vector(theirs=3))[0]
    return [
        Script("digests that agree ask for nothing", vector(mine=2)).open(1, equal=True),
        Script("digests that differ: vectors, a comparison, a WANT", vector(mine=2))
        .open(1, equal=False)
        .due(1)
        .receive(1, theirs_longer)
        .compared(1, lacking)
        .due(1),
        Script("what is asked of one session is not asked of another, until that ends", vector(mine=2))
        .open(1, equal=False)
        .open(2, equal=False)
        .receive(1, theirs_longer)
        .receive(2, theirs_longer)
        .compared(1, lacking)
        .due(1)
        .compared(2, lacking)
        .due(2)
        .close(1)
        .compared(2, lacking)
        .due(2),
        Script("a new entry that the other side can apply is pushed at once", vector(mine=2))
        .open(1, equal=True)
        .committed(committed(MINE, 3), message=push),
        Script("one that rests on what the other side lacks is announced", vector(mine=2, theirs=1))
        .open(1, equal=True)
        .committed(committed(MINE, 3, (THEIRS, 2)), message=push)
        .timer("have", 80)
        .due(1),
        Script("a HAVE of something unknown is asked for after 200 ms", vector(mine=2))
        .open(1, equal=True)
        .receive(1, encode_have(vector(theirs=1)))
        .timer("gaps", 210),
        Script("who is pushed what another pushed before says PRUNE, and then only announces", vector(mine=2))
        .open(1, equal=True)
        .open(2, equal=True)
        .committed(committed(THEIRS, 1), message=push, origin=1)
        .known(2, THEIRS, 1)
        .due(2)
        .committed(committed(MINE, 3), message=push)
        .timer("have", 80)
        .due(2),
        Script("who receives PRUNE only announces, until a WANT comes", vector(mine=2))
        .open(1, equal=True)
        .receive(1, encode_prune())
        .committed(committed(MINE, 3), message=push)
        .timer("have", 80)
        .due(1)
        .receive(1, encode_have(vector(mine=3)))
        .receive(1, encode_want(Want((WantItem(MINE, (3, entry_hash(MINE, 3)), ()),))))
        .committed(committed(MINE, 4), message=push),
        Script("an answer to a WANT prunes nothing", vector(mine=2))
        .open(1, equal=True)
        .open(2, equal=True)
        .compared(2, WantItem(THEIRS, (1, entry_hash(THEIRS, 1)), ()))
        .committed(committed(THEIRS, 1), message=push, origin=1)
        .known(2, THEIRS, 1)
        .committed(committed(MINE, 3), message=push),
        Script("a parked run is taken up when what it lacks is here", vector(mine=2))
        .open(1, equal=True)
        .receive(1, push)
        .parked(1, entry_hash(THEIRS, 1))
        .committed(committed(THEIRS, 1)),
    ]


def invalid() -> list[dict[str, Any]]:
    cases = {
        "a message of no known type": canonical.encode([99, []]),
        "a WANT without staged bodies": canonical.encode([2, []]),
        "a vector that is not ascending": canonical.encode([1, False, [[3, b"", b"z" * 32, b"z" * 16, [[1, b"h" * 32]]]] * 2]),
        "a hash that is too short": canonical.encode([6, [b"short"]]),
        "bytes that are not canonical": b"\x93\x01\xc2\xdc\x00\x00",
    }
    found = []
    for what, message in cases.items():
        machine = Replication({})
        machine.session_opened(1, ParkingLot(), {}, 0, is_told=True)
        try:
            machine.receive(1, message, 10)
        except RemoteProtocolError as error:
            found.append({"what": what, "message": message.hex(), "error": error.close_code.name})
    assert len(found) == len(cases)
    return found


def make() -> dict[str, Any]:
    return {
        "description": (
            "Steps with the replication machine of one group: `own` is its vector at the start (canonical, hex), each "
            "step what it is told and the effects that follow; `due` is what it says once a session's channel has room. "
            "Logs are named by the first byte of their device. Invalid: messages that end the session."
        ),
        "valid": [script.value for script in scripts()],
        "invalid": invalid(),
    }
