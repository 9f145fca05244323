"""The messages of a session as a hostile member sends them: each type whole, changed in its values, and changed in its bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from peersd.testing.fuzzing.author import Author, Written
from peersd.testing.fuzzing.forgeries import ABOVE, ABOVE_KINDS, FORGED, VOID, Forgeries, Turns
from peersd.testing.fuzzing.mutation import mutate_bytes, mutate_encoding, mutate_value, pack
from peersd.testing.fuzzing.world import World
from peersd_protocol import blocks as block_codec
from peersd_protocol import canonical
from peersd_protocol.beacon_messages import sign_beacon
from peersd_protocol.beacons import Beacon, compact_holdings
from peersd_protocol.canonical import Value
from peersd_protocol.constants import MESSAGE_BYTES_MAX
from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.messages import MessageType
from peersd_protocol.runs import Run, run_value
from peersd_protocol.signing import PURPOSE_BEACON
from peersd_protocol.vectors import Vector, log_value, vector_value

KINDS: Final = (
    *("VECTOR", "WANT", "RUNS identity", "RUNS control", "RUNS data", "RUNS relayed", "BLOCK", "HAVE", "ASK", "PRUNE"),
    *("COUNTERS", "BEACONS", "unknown message"),
)

_KIND_OF_RUNS: Final = {"RUNS identity": Kind.IDENTITY, "RUNS control": Kind.CONTROL, "RUNS data": Kind.DATA}


@dataclass(frozen=True, slots=True)
class Said:
    """What is said in one case.

    Attributes:
        messages: of a session, sent in this order; empty ones are not sent.
        is_good: whether all of them keep the rules, so that none may be refused.
        change: what was done to them.
        run: the run that becomes part of the group if they are taken in.
        void: the hash of an entry among them that may never count.
    """

    messages: tuple[bytes, ...]
    is_good: bool
    change: str
    run: Run | None = None
    void: bytes = b""


class Messages:
    """Makes the messages of one episode.

    Args:
        world: the group.
        author: writes entries.
        turns: of what is forged.
    """

    def __init__(self, world: World, author: Author, turns: Turns) -> None:
        self._world = world
        self._author = author
        self._forgeries = Forgeries(world, author, turns)
        self._counter = 1
        self._relayed = 0
        vector: Vector = dict(world.vector)
        self._hashes = [tip for tips in vector.values() for _, tip in tips]
        self._good: dict[str, Callable[[Random], Value]] = {
            "VECTOR": self._vector,
            "WANT": self._want,
            "HAVE": lambda random: [MessageType.HAVE, vector_value(self._some_logs(random))],
            "ASK": lambda random: [MessageType.ASK, list(self._some_hashes(random))],
            "PRUNE": lambda random: [MessageType.PRUNE],
            "COUNTERS": self._counters,
        }

    def make(self, random: Random, kind: str) -> Said:
        """One case of a kind of KINDS."""
        if kind in ABOVE_KINDS and random.random() < 0.04:
            return Said((pack(self._forgeries.above(random, kind)),), False, ABOVE)
        if kind in _KIND_OF_RUNS:
            return self._runs(random, _KIND_OF_RUNS[kind])
        if kind == "RUNS relayed":
            return self._relay(random)
        if kind == "BLOCK":
            return self._blocks(random)
        if kind == "BEACONS":
            return self._beacons(random)
        if kind == "unknown message":
            return self._unknown(random)
        return self._said(random, self._good[kind](random))

    def _said(self, random: Random, value: Value, run: Run | None = None) -> Said:
        """A message, whole or changed."""
        step = random.random()
        if step < 0.4:
            return Said((pack(value),), True, "good", run)
        if step < 0.8:
            for _ in range(random.choice((1, 1, 1, 3))):
                value = mutate_value(random, value)
            return Said((_cut(pack(value)),), False, "value")
        return Said((_cut(mutate_encoding(random, value)),), False, "bytes")

    # --- What is held -----------------------------------------------------------------------------------------------------------

    def _some_logs(self, random: Random) -> Vector:
        """Part of what the bystander holds, and logs that nobody has."""
        logs = list(self._world.vector)
        vector = {log: self._world.vector[log] for log in random.sample(logs, random.randint(0, len(logs)))}
        for _ in range(random.choice((0, 0, 1, 3))):
            kind = random.choice((Kind.CONTROL, Kind.DATA))
            log = LogKey(kind, b"", random.choice((self._world.hostile.keys.device, random.randbytes(32))), random.randbytes(16))
            tips = {(random.choice((1, 2, 700, 2**31, 2**53)), random.randbytes(32)) for _ in range(random.choice((1, 1, 2, 8)))}
            vector[log] = tuple(sorted(tips))
        return vector

    def _vector(self, random: Random) -> Value:
        vector = self._world.vector if random.random() < 0.3 else self._some_logs(random)
        return [MessageType.VECTOR, random.random() < 0.1, vector_value(vector)]

    def _want(self, random: Random) -> Value:
        items: list[Value] = []
        for log, tips in self._some_logs(random).items():
            have: list[Value] = [[seq, tip] for seq, tip in tips[: random.choice((0, 1))]]
            items.append([*log_value(log), *random.choice(tips), have])
        staged: list[Value] = [
            [tip, random.choice((0, 1, 264))] for tip in random.sample(self._hashes, random.choice((0, 0, 1, 4)))
        ]
        return [MessageType.WANT, items, staged]

    def _some_hashes(self, random: Random) -> list[bytes]:
        known = random.sample(self._hashes, random.randint(0, len(self._hashes)))
        return [*known, *(random.randbytes(32) for _ in range(random.choice((0, 2, 200))))]

    # --- Entries ----------------------------------------------------------------------------------------------------------------

    def _runs(self, random: Random, kind: Kind) -> Said:
        step = random.random()
        if step < 0.18:
            return self._forged(random, kind)
        if step < 0.4:
            bad = self._author.bad(random, kind)
            if random.random() < 0.5:
                return self._sent(random, [run_value(bad.run)], None, change="signed")
            before = self._author.good(
                random, kind
            ).run  # whatever is wrong with the second, nothing of the first may stay (SPEC: E-30)
            self._author.note_followed(before)
            return self._sent(random, [run_value(before), run_value(bad.run)], None, change="signed, behind")
        return self._changed_runs(random, self._author.good(random, kind).run)

    def _forged(self, random: Random, kind: Kind, *, of_others: bool = False) -> Said:
        """A run that is sound but for who signed it, where it stands, or what it does; maybe behind one that is good."""
        if not of_others and random.random() < 0.5:
            run = self._forgeries.void(random, kind)
            return Said((pack([MessageType.RUNS, 0, pack([run_value(run)])]),), False, VOID, void=run.last.hash)
        runs = self._forgeries.runs(random, kind, of_others=of_others)
        values: Value = [run_value(run) for run in runs]
        return Said((pack([MessageType.RUNS, 0, pack(values)]),), False, FORGED, void=runs[-1].last.hash)

    def _relay(self, random: Random) -> Said:
        """What another wrote, in the order in which it rests on each other or in any; or did not write."""
        if random.random() < 0.1:
            return self._forged(random, random.choice(list(Kind)), of_others=True)
        pieces = self._world.pieces
        if random.random() < 0.7:
            piece = pieces[self._relayed % len(pieces)]
            self._relayed += 1
        else:
            piece = random.choice((*pieces, *self._world.held))
        if piece.blocks and random.random() < 0.5:
            return self._with_blocks(random, Written(piece.run, piece.blocks))
        return self._changed_runs(random, piece.run, may_follow=False)

    def _changed_runs(self, random: Random, run: Run, *, may_follow: bool = True) -> Said:
        """A RUNS message of a good run, or of one that was changed after it was signed."""
        values = [run_value(run)]
        if random.random() < 0.5:
            return self._sent(random, values, run if may_follow else None, change="good")
        self._author.note_followed(run)
        changed: Value = mutate_value(random, values)
        return self._sent(random, changed, None, change="run")

    def _sent(self, random: Random, runs: Value, run: Run | None, *, change: str) -> Said:
        """Packs runs as a RUNS message, or nearly."""
        packed = pack(runs)
        is_good = change == "good"
        codec: Value = 0
        if random.random() < 0.1 and not is_good:
            packed, change = mutate_encoding(random, runs), "packed"
        if random.random() < 0.3:
            codec, packed = 1, block_codec.compress(packed)
            if random.random() < 0.2 and not is_good:
                packed, change = mutate_bytes(random, packed), "zstd"
        value: Value = [MessageType.RUNS, codec, packed]
        if not is_good and random.random() < 0.1:
            return Said((_cut(mutate_encoding(random, value)),), False, "bytes")
        return Said((_cut(pack(value)),), is_good, change, run if is_good else None)

    def _blocks(self, random: Random) -> Said:
        if random.random() < 0.3:
            value: Value = [MessageType.BLOCK, random.choice(self._hashes), random.choice((0, 1, 263)), random.randbytes(50)]
            return self._said(random, value)
        written = self._author.large_data(random)
        return self._with_blocks(random, written)

    def _with_blocks(self, random: Random, written: Written) -> Said:
        """A run with the blocks of its body, of which one may be another, be lacking, or come too early."""
        first = pack([MessageType.RUNS, 0, pack([run_value(written.run)])])
        blocks: list[bytes] = [pack([MessageType.BLOCK, one.entry_hash, one.index, one.data]) for one in written.blocks]
        step = random.random()
        if step < 0.4:
            return Said((first, *blocks), True, "good")
        at = random.randrange(len(blocks))
        block = written.blocks[at]
        if step < 0.7:
            spoilt: Value = [MessageType.BLOCK, block.entry_hash, block.index, mutate_bytes(random, block.data)]
            blocks[at] = _cut(pack(spoilt))
        elif step < 0.8:
            other: Value = [MessageType.BLOCK, block.entry_hash, block.index, block.data]
            blocks[at] = _cut(pack(mutate_value(random, other)))
        elif step < 0.9:
            random.shuffle(blocks)
        else:
            blocks = blocks[:at]
        return Said((first, *blocks), False, "blocks")

    # --- Beacons ----------------------------------------------------------------------------------------------------------------

    def _counters(self, random: Random) -> Value:
        devices = sorted((self._world.victim.keys.device, self._world.bystander.keys.device, self._world.hostile.keys.device))
        chosen = [device for device in devices if random.random() < 0.7] + [b"\xff" * 32] * random.randrange(2)
        return [MessageType.COUNTERS, [[device, random.choice((1, 5, 2**31, 2**53 - 1))] for device in chosen]]

    def _beacons(self, random: Random) -> Said:
        if random.random() < 0.1:
            return Said((pack([MessageType.BEACONS, [self._forgeries.beacon(random)]]),), False, FORGED)
        value = self._beacon(random).value
        change = "good"
        if random.random() < 0.5:
            change = "signed"
            value = self._signed_anyhow(random, value)
        beacons: list[Value] = [value]
        if change == "signed":
            return Said((_cut(pack([MessageType.BEACONS, beacons])),), False, change)
        return self._said(random, [MessageType.BEACONS, beacons])

    def _beacon(self, random: Random) -> Beacon:
        self._counter += random.choice((1, 1, 1, 1_000))
        addresses = random.choice(([], ["ws://127.0.0.1:1"], [f"wss://device-{at}.example/x" for at in range(8)]))
        holdings = compact_holdings(self._some_logs(random))
        key = self._world.hostile.keys.signing
        return sign_beacon(self._world.group, key, self._counter, addresses, random.randbytes(16), holdings)

    def _signed_anyhow(self, random: Random, value: list[Value]) -> list[Value]:
        """A beacon that was changed and then signed by the hostile device."""
        changed = mutate_value(random, value[:-1])
        fields = list(changed) if isinstance(changed, list) else [changed]
        try:
            message = canonical.encode([self._world.group, *fields])
        except Exception:  # noqa: BLE001 - what nobody can encode is signed as something else
            message = b""
        return [*fields, self._world.hostile.keys.signing.sign(PURPOSE_BEACON, message)]

    # --- Others -----------------------------------------------------------------------------------------------------------------

    def _unknown(self, random: Random) -> Said:
        types: list[Value] = [0, -1, 10, 11, 2**31, 2**63, None, True, 1.0, "3", b"\x03", []]
        value: Value = [random.choice(types), *random.choice(([], [[]], [0, b""], [1, 2, 3, 4]))]
        data = random.choice((pack(value), b"\x90", b"\xc0", b"\x00", b"\x80", random.randbytes(random.randint(1, 300))))
        return Said((data,), False, "unknown")


def _cut(data: bytes) -> bytes:
    """What a channel can carry at all."""
    return data[:MESSAGE_BYTES_MAX] or b"\xc0"
