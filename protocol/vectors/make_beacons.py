"""Beacons, the messages that carry them, and the 8 bytes over their counters: SPEC, part B."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from peersd.testing.packed_hex import packed_hex
from peersd_protocol import canonical
from peersd_protocol.beacon_messages import (
    Beacon,
    Holding,
    compact_holdings,
    counters_summary,
    encode_beacons,
    encode_counters,
    log_name,
    sign_beacon,
)
from peersd_protocol.canonical import Value
from peersd_protocol.constants import BEACON_COUNTER_MAX, BEACONS_MAX, HOLDINGS_MAX, MESSAGE_BYTES_MAX, SEQ_MAX
from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.signing import SigningKey
from peersd_protocol.vectors import Vector, vector_value

GROUP = b"\x0f" * 32
SEEDS = (b"\x01" * 32, b"\x02" * 32)
KEYS = sorted((SigningKey(seed) for seed in SEEDS), key=lambda key: key.public)
DEVICE = KEYS[0].public
DIGEST = b"\x0a" * 16
ADDRESSES = ("ws://192.0.2.1:7330", "wss://peers.example/x")
HASHES = [bytes([number]) * 32 for number in range(1, 4)]
VECTOR: Vector = {
    LogKey(Kind.IDENTITY, b"\x0b" * 32, DEVICE, b"\x0c" * 16): ((2, HASHES[0]),),
    LogKey(Kind.CONTROL, b"", DEVICE, b"\x0d" * 16): ((1, HASHES[1]),),
    LogKey(Kind.DATA, b"", DEVICE, b"\x0d" * 16): ((3, HASHES[1]), (70_000, HASHES[2])),
}
HOLDINGS = compact_holdings(VECTOR)
LOG: Holding = (b"\x01" * 8, 1)

FULL = sign_beacon(GROUP, KEYS[0], 1_700_000_000_000, ADDRESSES, DIGEST, HOLDINGS)
EMPTY = sign_beacon(GROUP, KEYS[1], 1, (), bytes(16), ())
LAST = sign_beacon(GROUP, KEYS[0], BEACON_COUNTER_MAX, ADDRESSES[:1] * 8, DIGEST, [(b"\x00" * 8, 1), (b"\xff" * 8, SEQ_MAX)])


def changed(place: int, value: Value) -> list[Value]:
    fields = FULL.value
    fields[place] = value
    return fields


BAD_BEACONS: dict[str, Value] = {
    "five elements": FULL.value[:5],
    "seven elements": [*FULL.value, None],
    "no array": None,
    "a device of 31 bytes": changed(0, DEVICE[:31]),
    "counter 0": changed(1, 0),
    "a counter above the greatest": changed(1, BEACON_COUNTER_MAX + 1),
    "a counter that is true": changed(1, True),
    "an address of another scheme": changed(2, ["http://a"]),
    "a long address": changed(2, ["ws://" + "a" * 196]),
    "addresses that are text": changed(2, "ws://a"),
    "a digest of 15 bytes": changed(3, DIGEST[:15]),
    "holdings that do not ascend": changed(4, [[b"\x02" * 8, 1], [b"\x01" * 8, 1]]),
    "a log held twice": changed(4, [list(LOG), [LOG[0], 2]]),
    "a log's name of 7 bytes": changed(4, [[b"\x01" * 7, 1]]),
    "sequence 0": changed(4, [[LOG[0], 0]]),
    "a sequence above the greatest": changed(4, [[LOG[0], SEQ_MAX + 1]]),
    "a holding with a hash": changed(4, [[*LOG, HASHES[0]]]),
    "a signature of 63 bytes": changed(5, FULL.signature[:63]),
}
BAD_MESSAGES: dict[str, Value] = {
    "COUNTERS that do not ascend": [8, [[KEYS[1].public, 1], [DEVICE, 1]]],
    "a device's counter twice": [8, [[DEVICE, 1], [DEVICE, 2]]],
    "counter 0": [8, [[DEVICE, 0]]],
    "a counter above the greatest": [8, [[DEVICE, BEACON_COUNTER_MAX + 1]]],
    "a counter that is a double": [8, [[DEVICE, 1.0]]],
    "a pair of three": [8, [[DEVICE, 1, None]]],
    "COUNTERS with two fields": [8, [], []],
    "COUNTERS of nothing": [8, None],
    "BEACONS that do not ascend": [9, [EMPTY.value, FULL.value]],
    "two beacons of a device": [9, [FULL.value, LAST.value]],
    "BEACONS of nothing": [9, None],
    "another type": [7, []],
    "a type that is true": [True, []],
    **{f"a beacon with {name}": [9, [value]] for name, value in BAD_BEACONS.items()},
}
LARGE: dict[str, list[Value]] = {
    "nine addresses": [9, [changed(2, ["ws://a"] * 9)]],
    "too many holdings": [9, [changed(4, [list(LOG)] * (HOLDINGS_MAX + 1))]],
    "too many counters": [8, [[DEVICE, 1]] * (BEACONS_MAX + 1)],
    "too many beacons": [9, [None] * (BEACONS_MAX + 1)],
    "a message above its bound": [9, bytes(MESSAGE_BYTES_MAX)],
}
FORGED: dict[str, tuple[bytes, Beacon]] = {
    "another counter": (GROUP, replace(FULL, counter=FULL.counter + 1)),
    "another device": (GROUP, replace(FULL, device=KEYS[1].public)),
    "another address": (GROUP, replace(FULL, addresses=ADDRESSES[:1])),
    "another digest": (GROUP, replace(FULL, digest=bytes(16))),
    "other holdings": (GROUP, replace(FULL, holdings=())),
    "another group": (bytes(32), FULL),
}


def beacon_case(name: str, key: SigningKey, beacon: Beacon) -> dict[str, Any]:
    return {
        "what": "beacon",
        "name": name,
        "group": GROUP.hex(),
        "seed": key.seed.hex(),
        "counter": beacon.counter,
        "addresses": list(beacon.addresses),
        "digest": beacon.digest.hex(),
        "holdings": [[log.hex(), seq] for log, seq in beacon.holdings],
        "beacon": beacon.encode().hex(),
    }


def make() -> dict[str, Any]:
    counters = {DEVICE: 5, KEYS[1].public: BEACON_COUNTER_MAX}
    summaries: dict[str, dict[bytes, int]] = {"none": {}, "one": {DEVICE: 1}, "two": counters}
    return {
        "description": (
            "`beacon`: made by the device of `seed`. `counters`, `beacons`: messages of a session. `summary`: the 8 bytes in "
            "OPEN and ACCEPT. `holdings`: what a beacon says of a vector, and the names of that vector's logs in it. Invalid "
            "messages are refused with `error`; `forged` beacons are well formed and their signatures are not good."
        ),
        "valid": [
            beacon_case("beacon", KEYS[0], FULL),
            beacon_case("beacon of a device that holds nothing and cannot be reached", KEYS[1], EMPTY),
            beacon_case("beacon with the greatest numbers", KEYS[0], LAST),
            {"what": "counters", "name": "COUNTERS", "message": encode_counters(counters).hex()},
            {"what": "counters", "name": "COUNTERS of none", "message": encode_counters({}).hex()},
            {"what": "beacons", "name": "BEACONS", "message": encode_beacons([EMPTY, FULL]).hex()},
            {"what": "beacons", "name": "BEACONS without any", "message": encode_beacons([]).hex()},
            *(
                {
                    "what": "summary",
                    "name": f"summary over {name}",
                    "group": GROUP.hex(),
                    "counters": [[device.hex(), counter] for device, counter in sorted(stated.items())],
                    "summary": counters_summary(GROUP, stated).hex(),
                }
                for name, stated in summaries.items()
            ),
            {
                "what": "holdings",
                "name": "holdings of a vector",
                "vector": canonical.encode(vector_value(VECTOR)).hex(),
                "logs": [log_name(log).hex() for log in sorted(VECTOR)],
                "holdings": [[log.hex(), seq] for log, seq in HOLDINGS],
            },
        ],
        "invalid": [
            *(
                {"what": "message", "name": name, "message": canonical.encode(value).hex(), "error": "MALFORMED"}
                for name, value in BAD_MESSAGES.items()
            ),
            *(
                {"what": "message", "name": name, "message": packed_hex(canonical.encode(value)), "error": "TOO_LARGE"}
                for name, value in LARGE.items()
            ),
            *(
                {
                    "what": "forged",
                    "name": f"signed for {name}",
                    "group": group.hex(),
                    "beacon": beacon.encode().hex(),
                    "error": "BAD_SIGNATURE",
                }
                for name, (group, beacon) in FORGED.items()
            ),
        ],
    }
