"""Headers, bodies and runs: SPEC, part E."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peersd.testing.packed_hex import packed_hex
from peersd_protocol import canonical
from peersd_protocol.blocks import block_hash, split_body
from peersd_protocol.canonical import Value
from peersd_protocol.constants import (
    BLOCKS_PER_BODY_MAX,
    INLINE_BODY_BYTES_MAX,
    LINKS_PER_ENTRY_MAX,
    RUN_ENTRIES_MAX,
    SEQ_MAX,
)
from peersd_protocol.entries import Header, Kind
from peersd_protocol.runs import Body, Entry, Run, run_value
from peersd_protocol.signing import SigningKey

KEY = SigningKey(b"\x01" * 32)
USER, EPOCH = b"\x02" * 32, b"\x03" * 16
HASHES = [bytes([number]) * 32 for number in range(1, 5)]
STAMP = 1_700_000_000_000 << 16
EMPTY = Body.of_blocks([])
SMALL = Body.of_blocks(split_body(b"\x93\x01\x90\x90"))
LARGE = Body.detached([block_hash(b"\x00one"), block_hash(b"\x00two")])


def genesis() -> Run:
    header = Header(b"", Kind.CONTROL, USER, KEY.public, EPOCH, 1, b"", STAMP, (), (HASHES[0],), SMALL.hash)
    return Run((Entry(header, SMALL),), header.sign(KEY))


GROUP = genesis().last.hash


def chain(kind: Kind, bodies: Sequence[Body], *, first_seq: int = 1, user: bytes = USER, **changes: Any) -> Run:
    """A signed run with one entry for each body."""
    prev = b"" if first_seq == 1 else HASHES[3]
    entries: list[Entry] = []
    for index, body in enumerate(bodies):
        fields = {"deps": (), "control_heads": (), "ext": ()} | (changes if index == 0 else {})
        group = b"" if kind is Kind.IDENTITY else GROUP
        stamp = STAMP + index * 65_536
        header = Header(
            group,
            kind,
            user,
            KEY.public,
            EPOCH,
            first_seq + index,
            prev,
            stamp,
            fields["deps"],
            fields["control_heads"],
            body.hash,
            fields["ext"],
        )
        entries.append(Entry(header, body))
        prev = header.hash
    return Run(tuple(entries), entries[-1].header.sign(KEY))


VALID: dict[str, Run] = {
    "the genesis of the group": genesis(),
    "a user's genesis": chain(Kind.IDENTITY, [SMALL], user=b""),
    "an identity act": chain(Kind.IDENTITY, [SMALL], first_seq=2),
    "a control entry in a later epoch": chain(Kind.CONTROL, [SMALL], control_heads=(GROUP,)),
    "a data entry without a body": chain(Kind.DATA, [EMPTY]),
    "three data entries": chain(
        Kind.DATA, [SMALL, EMPTY, SMALL], first_seq=7, deps=tuple(HASHES[:2]), control_heads=(HASHES[2],)
    ),
    "a detached body": chain(Kind.DATA, [LARGE]),
    "a withheld body": chain(Kind.DATA, [Body.withheld(HASHES[0]), SMALL]),
    "fields of a later version": chain(Kind.DATA, [SMALL], ext=((1, [None, "later"]), (9, 1.5))),
    "the last sequence": chain(Kind.DATA, [SMALL], first_seq=SEQ_MAX),
}


def changed(index: int, value: Value) -> list[Value]:
    """A good run with one of its fields replaced."""
    fields = run_value(VALID["three data entries"])
    fields[index] = value
    return fields


def entry_changed(index: int, value: Value, run: str = "three data entries") -> list[Value]:
    """A good run with one field of its first entry replaced."""
    fields = run_value(VALID[run])
    deltas = [list(delta) for delta in fields[7]]  # type: ignore[union-attr, arg-type]
    deltas[0][index] = value
    fields[7] = deltas
    return fields


def invalid() -> dict[str, tuple[str, list[Value]]]:
    good = run_value(VALID["three data entries"])
    first = good[7][0]  # type: ignore[index]
    many: list[Value] = [HASHES[0]] * (LINKS_PER_ENTRY_MAX + 1)
    return {
        "a field less": ("MALFORMED", good[:7]),
        "a field more": ("MALFORMED", [*good, None]),
        "a kind of log that is none": ("MALFORMED", changed(0, 4)),
        "a kind of log that is a boolean": ("MALFORMED", changed(0, True)),
        "no user in a data run": ("MALFORMED", changed(1, b"")),
        "a short user": ("MALFORMED", changed(1, USER[:31])),
        "a short device": ("MALFORMED", changed(2, KEY.public[:31])),
        "a long epoch": ("MALFORMED", changed(3, EPOCH + b"\0")),
        "sequence 0": ("MALFORMED", changed(4, 0)),
        "a sequence beyond the last": ("MALFORMED", changed(4, SEQ_MAX + 1)),
        "a sequence that is a boolean": ("MALFORMED", changed(4, True)),
        "a prev at sequence 1": ("MALFORMED", changed(4, 1)),
        "no prev after sequence 1": ("MALFORMED", changed(5, b"")),
        "a short signature": ("MALFORMED", changed(6, b"\0" * 63)),
        "no entries": ("MALFORMED", changed(7, [])),
        "more entries than the bound": ("TOO_LARGE", changed(7, [first] * (RUN_ENTRIES_MAX + 1))),
        "an entry with a field less": ("MALFORMED", changed(7, [first[:4]])),  # type: ignore[index]
        "a stamp that does not grow": ("MALFORMED", entry_changed(0, 0)),
        "a stamp that is a double": ("MALFORMED", entry_changed(0, 1.0)),
        "a stamp of 2^63": ("MALFORMED", entry_changed(0, 2**63)),
        "deps that do not ascend": ("MALFORMED", entry_changed(1, [HASHES[1], HASHES[0]])),
        "deps named twice": ("MALFORMED", entry_changed(1, [HASHES[0], HASHES[0]])),
        "a short hash in deps": ("MALFORMED", entry_changed(1, [HASHES[0][:31]])),
        "more deps than the bound": ("TOO_LARGE", entry_changed(1, many)),
        "deps in an act": ("MALFORMED", entry_changed(1, [HASHES[0]], "a control entry in a later epoch")),
        "control heads that do not ascend": ("MALFORMED", entry_changed(2, [HASHES[1], HASHES[0]])),
        "more control heads than the bound": ("TOO_LARGE", entry_changed(2, many)),
        "a body of another form": ("MALFORMED", entry_changed(3, [3])),
        "a body whose form is a boolean": ("MALFORMED", entry_changed(3, [True, HASHES[0]])),
        "no form of a body": ("MALFORMED", entry_changed(3, [])),
        "a block that is text": ("MALFORMED", entry_changed(3, [0, "text"])),
        "inline blocks above the bound": ("TOO_LARGE", entry_changed(3, [0, b"\0" * (INLINE_BODY_BYTES_MAX + 1)])),
        "more blocks than the bound": (
            "TOO_LARGE",
            entry_changed(3, [1, *[HASHES[0]] * (BLOCKS_PER_BODY_MAX + 1)], "a detached body"),
        ),
        "a detached body without blocks": ("MALFORMED", entry_changed(3, [1], "a detached body")),
        "a short hash of a block": ("MALFORMED", entry_changed(3, [1, b"\0" * 31], "a detached body")),
        "a detached body among other entries": ("MALFORMED", entry_changed(3, [1, HASHES[0]])),
        "a withheld body with two hashes": ("MALFORMED", entry_changed(3, [2, HASHES[0], HASHES[1]])),
        "ext that does not ascend": ("MALFORMED", entry_changed(4, [[2, None], [1, None]])),
        "ext with three parts": ("MALFORMED", entry_changed(4, [[1, None, None]])),
        "ext with a number that is text": ("MALFORMED", entry_changed(4, [["1", None]])),
        "a user's second act without a user": ("MALFORMED", [1, b"", *run_value(VALID["an identity act"])[2:]]),
        "a signature over another entry": ("BAD_SIGNATURE", changed(6, KEY.sign(b"peersd/1 entry", HASHES[0]))),
        "a signature for another purpose": (
            "BAD_SIGNATURE",
            changed(6, KEY.sign(b"peersd/1 noise key", VALID["three data entries"].last.hash)),
        ),
        "a signature by another device": ("BAD_SIGNATURE", changed(2, SigningKey(b"\x09" * 32).public)),
        "an entry altered": ("BAD_SIGNATURE", entry_changed(0, STAMP + 1)),
    }


def make() -> dict[str, Any]:
    return {
        "description": (
            "Runs in the group `group`, as canonical bytes, with the canonical headers that a receiver rebuilds and their "
            "hashes. "
            "Invalid runs are refused when they are read, those with BAD_SIGNATURE when the signature is checked; a long "
            "one is joined from [count, bytes] pairs."
        ),
        "group": GROUP.hex(),
        "valid": [
            {
                "what": what,
                "run": canonical.encode(run_value(run)).hex(),
                "headers": [entry.header.encoded.hex() for entry in run.entries],
                "hashes": [entry.header.hash.hex() for entry in run.entries],
            }
            for what, run in VALID.items()
        ],
        "invalid": [
            {"what": what, "run": packed_hex(canonical.encode(value)), "error": error}
            for what, (error, value) in invalid().items()
        ],
    }
