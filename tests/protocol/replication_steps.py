"""Short names for what the tests of the replication machine tell it and read from it."""

from __future__ import annotations

from collections.abc import Iterable

from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.messages import Message, Runs, WantItem, decode_message, encode_have
from peersd_protocol.replication import (
    Committed,
    Compare,
    Comparison,
    Due,
    Effect,
    Parked,
    ParkingLot,
    Replication,
    Send,
)
from peersd_protocol.vectors import Tip, Vector

CONTROL = LogKey(Kind.CONTROL, b"", b"c" * 32, b"c" * 16)
MINE = LogKey(Kind.DATA, b"", b"m" * 32, b"m" * 16)
THEIRS = LogKey(Kind.DATA, b"", b"t" * 32, b"t" * 16)

START: Vector = {MINE: ((5, b"5".ljust(32, b".")),)}


def tip(seq: int, branch: str = "") -> Tip:
    return seq, f"{seq}{branch}".encode().ljust(32, b".")


def committed(position: int, log: LogKey, seq: int, *requires: tuple[LogKey, int], branch: str = "") -> Committed:
    return Committed(position, log, *tip(seq, branch), requires)


def want_item(log: LogKey, seq: int, branch: str = "") -> WantItem:
    return WantItem(log, tip(seq, branch), ())


def lacks(*items: WantItem) -> Comparison:
    return Comparison(items)


def parked(size: int, *missing: bytes, brings: tuple[LogKey, Tip] | None = None) -> Parked:
    return Parked(Runs(0, bytes(size)), frozenset(missing), brings)


def have(log: LogKey, *tips: Tip) -> bytes:
    return encode_have({log: tips})


def sent(effects: Iterable[Effect]) -> list[tuple[int, bytes]]:
    return [(effect.session, effect.message) for effect in effects if isinstance(effect, Send)]


def said(machine: Replication, effects: Iterable[Effect]) -> list[tuple[int, Message]]:
    """What is told and asked on the sessions for which something is due."""
    due = [effect.session for effect in effects if isinstance(effect, Due)]
    return [(session, decode_message(message)) for session in due for message in machine.take_due(session)]


def comparisons(effects: Iterable[Effect]) -> list[Compare]:
    return [effect for effect in effects if isinstance(effect, Compare)]


def opened(*sessions: int, at: Vector | None = START, own: Vector | None = None) -> Replication:
    """A machine with sessions whose other sides hold the same."""
    machine = Replication(START if own is None else own)
    for session in sessions:
        machine.session_opened(session, ParkingLot(), at, 0, is_told=True)
        machine.take_due(session)
    return machine
