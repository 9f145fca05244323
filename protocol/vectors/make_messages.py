"""Vectors and the messages of a session: SPEC, part R."""

from __future__ import annotations

from typing import Any

from peersd.testing.packed_hex import packed_hex
from peersd_protocol import canonical
from peersd_protocol.blocks import compress, split_body
from peersd_protocol.canonical import Value
from peersd_protocol.constants import (
    ASK_HASHES_MAX,
    BLOCK_BYTES_MAX,
    BLOCKS_PER_BODY_MAX,
    BRANCHES_MAX,
    MESSAGE_BYTES_MAX,
    SEQ_MAX,
    STAGED_BODIES_MAX,
    WANT_ITEMS_MAX,
    WANT_SAMPLES_MAX,
)
from peersd_protocol.entries import Header, Kind, LogKey
from peersd_protocol.messages import (
    Block,
    Want,
    WantItem,
    encode_ask,
    encode_block,
    encode_have,
    encode_prune,
    encode_runs,
    encode_vector_parts,
    encode_want,
)
from peersd_protocol.runs import Body, Entry, Run, run_value
from peersd_protocol.signing import SigningKey
from peersd_protocol.vectors import Tip, Vector

KEY = SigningKey(b"\x01" * 32)
GROUP = b"\x0f" * 32
HASHES = [bytes([number]) * 32 for number in range(1, 5)]
IDENTITY = LogKey(Kind.IDENTITY, b"\x0a" * 32, b"\x0b" * 32, b"\x0c" * 16)
CONTROL = LogKey(Kind.CONTROL, b"", b"\x0b" * 32, b"\x0d" * 16)
DATA = LogKey(Kind.DATA, b"", b"\x0b" * 32, b"\x0d" * 16)


def tip(seq: int, branch: int = 0) -> Tip:
    return seq, HASHES[branch]


VECTOR: Vector = {IDENTITY: (tip(2),), CONTROL: (tip(1),), DATA: (tip(3, 1), tip(9))}
ITEM = WantItem(DATA, tip(9), (tip(7), tip(6), tip(4)))


def run(epoch: bytes, raw_bodies: list[bytes]) -> Run:
    """A signed run of data entries."""
    entries: list[Entry] = []
    prev = b""
    for index, raw in enumerate(raw_bodies):
        body = Body.of_blocks(split_body(raw))
        stamp = 1_700_000_000_000 + index << 16
        header = Header(GROUP, Kind.DATA, b"\x02" * 32, KEY.public, epoch, index + 1, prev, stamp, (), (HASHES[0],), body.hash)
        entries.append(Entry(header, body))
        prev = header.hash
    return Run(tuple(entries), entries[-1].header.sign(KEY))


def valid() -> dict[str, bytes]:
    first, last = encode_vector_parts(VECTOR, logs_per_part=2)
    runs = [run(b"\x03" * 16, [b"one", b"", b"three"]), run(b"\x04" * 16, [b"other"])]
    return {
        "VECTOR, empty": encode_vector_parts({})[0],
        "VECTOR, first part": first,
        "VECTOR, last part": last,
        "WANT": encode_want(Want((ITEM, WantItem(CONTROL, tip(1), ())))),
        "WANT, with a staged body": encode_want(Want((ITEM,), ((HASHES[2], 5),))),
        "WANT, for nothing": encode_want(Want(())),
        "RUNS, none": encode_runs([]),
        "RUNS": encode_runs(runs),
        "RUNS, compressed": canonical.encode([3, 1, compress(canonical.encode([run_value(each) for each in runs]))]),
        "BLOCK": encode_block(Block(HASHES[0], BLOCKS_PER_BODY_MAX - 1, b"\x00data")),
        "HAVE": encode_have(VECTOR),
        "ASK": encode_ask(HASHES),
        "PRUNE": encode_prune(),
    }


def log(**changes: Value) -> list[Value]:
    """The DATA log of a vector with some fields changed."""
    tips: Value = [list(tip(9))]
    fields: dict[str, Value] = {"kind": 3, "user": b"", "device": DATA.device, "epoch": DATA.epoch, "tips": tips}
    return list((fields | changes).values())


def want(**changes: Value) -> list[Value]:
    """A WANT with some fields of its item changed."""
    names = ("kind", "user", "device", "epoch", "seq", "hash", "have")
    fields: dict[str, Value] = dict(zip(names, (3, b"", DATA.device, DATA.epoch, 9, HASHES[0], []), strict=True))
    return [2, [list((fields | changes).values())], []]


def invalid() -> dict[str, tuple[str, list[Value]]]:
    one = log()
    tips: Value = [[seq, HASHES[0]] for seq in range(1, BRANCHES_MAX + 2)]
    return {
        "nothing": ("MALFORMED", []),
        "a type that is none": ("MALFORMED", [99, []]),
        "type 0": ("MALFORMED", [0, []]),
        "a type that is a boolean": ("MALFORMED", [True, False, []]),
        "VECTOR with a field less": ("MALFORMED", [1, []]),
        "VECTOR with a number for more": ("MALFORMED", [1, 0, []]),
        "a vector that is text": ("MALFORMED", [5, "text"]),
        "a log with a field less": ("MALFORMED", [5, [one[:4]]]),
        "a kind of log that is none": ("MALFORMED", [5, [log(kind=0)]]),
        "a user in a data log": ("MALFORMED", [5, [log(user=b"\x0a" * 32)]]),
        "no user in an identity log": ("MALFORMED", [5, [log(kind=1)]]),
        "a short device": ("MALFORMED", [5, [log(device=b"\x0b" * 31)]]),
        "a short epoch": ("MALFORMED", [5, [log(epoch=b"\x0d" * 15)]]),
        "a log without tips": ("MALFORMED", [5, [log(tips=[])]]),
        "a log with more tips than branches are kept": ("MALFORMED", [5, [log(tips=tips)]]),
        "tips that do not ascend": ("MALFORMED", [5, [log(tips=[[9, HASHES[0]], [3, HASHES[0]]])]]),
        "a tip named twice": ("MALFORMED", [5, [log(tips=[[9, HASHES[0]], [9, HASHES[0]]])]]),
        "a tip at 0": ("MALFORMED", [5, [log(tips=[[0, HASHES[0]]])]]),
        "a tip beyond the last sequence": ("MALFORMED", [5, [log(tips=[[SEQ_MAX + 1, HASHES[0]]])]]),
        "a tip with a short hash": ("MALFORMED", [5, [log(tips=[[9, HASHES[0][:31]]])]]),
        "logs that do not ascend": ("MALFORMED", [5, [one, log(kind=2)]]),
        "a log named twice": ("MALFORMED", [5, [one, one]]),
        "WANT without staged": ("MALFORMED", [2, []]),
        "WANT with an item too short": ("MALFORMED", [2, [[3, b"", DATA.device, DATA.epoch, 9, HASHES[0]]], []]),
        "WANT with a tip at 0": ("MALFORMED", want(seq=0)),
        "WANT with samples that are none": ("MALFORMED", want(have=[HASHES[0]])),
        "WANT with more samples than the bound": ("TOO_LARGE", want(have=[[1, HASHES[0]]] * (WANT_SAMPLES_MAX + 1))),
        "WANT with more items than the bound": ("TOO_LARGE", [2, [0] * (WANT_ITEMS_MAX + 1), []]),
        "WANT with more staged bodies than are kept": ("TOO_LARGE", [2, [], [[HASHES[0], 1]] * (STAGED_BODIES_MAX + 1)]),
        "WANT with more staged blocks than a body has": ("MALFORMED", [2, [], [[HASHES[0], BLOCKS_PER_BODY_MAX + 1]]]),
        "RUNS of a codec that is none": ("MALFORMED", [3, 2, b""]),
        "RUNS with text": ("MALFORMED", [3, 0, "text"]),
        "BLOCK with an index beyond a body's last": ("MALFORMED", [4, HASHES[0], BLOCKS_PER_BODY_MAX, b"\x00data"]),
        "BLOCK with an index below 0": ("MALFORMED", [4, HASHES[0], -1, b"\x00data"]),
        "BLOCK with a short hash": ("MALFORMED", [4, HASHES[0][:31], 0, b"\x00data"]),
        "BLOCK above its bound": ("TOO_LARGE", [4, HASHES[0], 0, b"\0" * (BLOCK_BYTES_MAX + 2)]),
        "ASK with a short hash": ("MALFORMED", [6, [HASHES[0][:31]]]),
        "ASK for more hashes than the bound": ("TOO_LARGE", [6, [HASHES[0]] * (ASK_HASHES_MAX + 1)]),
        "PRUNE with a field": ("MALFORMED", [7, []]),
        "a message above its bound": ("TOO_LARGE", [3, 0, b"\0" * MESSAGE_BYTES_MAX]),
        "packed runs that are no array": ("MALFORMED", [3, 0, b"\xc0"]),
        "packed runs that are no runs": ("MALFORMED", [3, 0, canonical.encode([1])]),
        "packed runs that do not unpack": ("MALFORMED", [3, 1, b"\x28\xb5\x2f\xfd"]),
        "packed runs above their bound": ("TOO_LARGE", [3, 1, compress(b"\0" * (MESSAGE_BYTES_MAX + 1))]),
    }


def make() -> dict[str, Any]:
    return {
        "description": (
            "Messages of a session of the group `group`, as canonical bytes. Invalid ones "
            "are refused when they are read or, RUNS, when unpacked; a long one is joined from [count, bytes] pairs."
        ),
        "group": GROUP.hex(),
        "valid": [{"what": what, "message": message.hex()} for what, message in valid().items()],
        "invalid": [
            {"what": what, "message": packed_hex(canonical.encode(value)), "error": error}
            for what, (error, value) in invalid().items()
        ],
    }
