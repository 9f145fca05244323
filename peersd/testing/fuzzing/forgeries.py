"""What is well made and a lie: runs that another signed, acts of who may not, others' names, one more than a bound allows.

Nothing is wrong with the form of these, so no reader of bytes refuses them: each is caught by one check, or by none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Final, TypeVar

from peersd.testing.fuzzing.author import Author
from peersd.testing.fuzzing.mutation import pack
from peersd.testing.fuzzing.world import FIRST_MS, World
from peersd.testing.simulator.founding import Person, secret
from peersd_protocol.acts import AddDevice, Admit, Ban, DropDevice, Invite, Remove, SetRole, body_value
from peersd_protocol.acts import Body as ActBody
from peersd_protocol.canonical import Value
from peersd_protocol.constants import (
    ASK_HASHES_MAX,
    BEACON_ADDRESSES_MAX,
    BEACONS_MAX,
    BLOCKS_PER_BODY_MAX,
    HOLDINGS_MAX,
    LINKS_PER_ENTRY_MAX,
    RUN_ENTRIES_MAX,
    STAGED_BODIES_MAX,
    WANT_ITEMS_MAX,
    WANT_SAMPLES_MAX,
)
from peersd_protocol.entries import Header, Kind
from peersd_protocol.messages import MessageType
from peersd_protocol.roles import Role
from peersd_protocol.runs import Body, Entry, Run, chain_entries, run_value
from peersd_protocol.signing import PURPOSE_BEACON, PURPOSE_ENTRY, SigningKey

T = TypeVar("T")

FORGED: Final = "forged"
ABOVE: Final = "above a bound"
VOID: Final = "void"

REFUSED: Final = frozenset((FORGED, ABOVE))
"""What was done to cases that have to be refused."""

COUNTER_MIN: Final = 2**52
"""Of forged beacons: no device has come so far, so that they are looked at."""

_SPARE: Final = SigningKey(secret("nobody's"))


class Turns:
    """Chooses in turn, so that few cases come to all that there is to choose from.

    Args:
        first: where all turns begin; another for each episode.
    """

    def __init__(self, first: int) -> None:
        self._first = first
        self._taken = Counter[str]()

    def pick(self, what: str, options: Sequence[T]) -> T:
        """The next of some options, of which there are always as many."""
        self._taken[what] += 1
        return options[(self._first + self._taken[what]) % len(options)]


class Forgeries:
    """Forges for one episode.

    Args:
        world: the group.
        author: writes for the hostile device.
        turns: of the episode.
    """

    def __init__(self, world: World, author: Author, turns: Turns) -> None:
        self._world = world
        self._turns = turns
        self._author = author
        self._others = (Author(world, world.victim), Author(world, world.bystander))
        self._held = {piece.run.log.kind: piece.run for piece in world.held if piece.run.log.device != world.hostile.keys.device}
        for other in self._others:
            if other.writer.keys.device == self._held[Kind.DATA].log.device:
                other.note_taken(self._held[Kind.DATA])

    # --- Runs that have to be refused -------------------------------------------------------------------------------------------

    def runs(self, random: Random, kind: Kind, *, of_others: bool = False) -> list[Run]:
        """Runs that are good but for the last one's signature, or for its place in its log."""
        author = random.choice(self._others) if of_others else random.choice((self._author, *self._others))
        if not of_others and random.random() < 0.6:
            return self._misplaced(random, kind)
        run = author.good(random, kind).run
        if author is self._author:
            author.note_followed(run)
        before = [self._fresh(random)] if random.random() < 0.3 else []  # of which nothing may stay either
        return [*before, replace(run, signature=self._signature(random, run, author.writer))]

    def _fresh(self, random: Random) -> Run:
        run = self._author.data(random).run
        self._author.note_followed(run)
        return run

    def _signature(self, random: Random, run: Run, writer: Person) -> bytes:
        key = writer.keys.signing
        another = self._world.hostile.keys.signing if writer is not self._world.hostile else _SPARE
        return self._turns.pick(
            "signature",
            (
                another.sign(PURPOSE_ENTRY, run.last.hash),
                key.sign(PURPOSE_ENTRY, run.last.prev or random.choice(self._world.heads)),  # good, and of another run
                key.sign(PURPOSE_BEACON, run.last.hash),
                flipped(random, run.signature),
            ),
        )

    def _misplaced(self, random: Random, kind: Kind) -> list[Run]:
        """A good run, and an entry after it that does not follow from what it names."""
        run = self._author.good(random, kind).run
        self._author.note_followed(run)
        tip, held, rows, act = run.last, self._held[kind].last, self._held[Kind.DATA].last, self._world.heads[0]
        header = replace(tip, seq=tip.seq + 1, prev=tip.hash, hlc=max(tip.hlc, held.hlc) + 1, control_heads=(), deps=())
        choices = [
            replace(header, seq=held.seq + 1, prev=held.hash),  # that stands in another log
            replace(header, control_heads=(rows.hash,)),
        ]
        if kind is Kind.DATA:
            choices += [replace(header, deps=(rows.hash,), hlc=rows.hlc), replace(header, deps=(act,))]
        else:
            choices += [replace(header, seq=tip.seq + 2), replace(header, hlc=tip.hlc)]
        return [run, self._signed(self._turns.pick(f"place {kind is Kind.DATA}", choices), run.entries[-1].body)]

    def _signed(self, header: Header, body: Body) -> Run:
        return Run((Entry(header, body),), header.sign(self._world.hostile.keys.signing))

    # --- Runs that may be kept and may not count --------------------------------------------------------------------------------

    def void(self, random: Random, kind: Kind) -> Run:
        """A run of one entry, sound, signed by its device, and beyond what that may do."""
        entry = self._author.good(random, kind).run.entries[0]
        own, bystander = self._world.hostile, self._world.bystander
        header = replace(entry.header, seq=1, prev=b"", control_heads=self._world.heads)
        self._author.note_followed(Run((entry,), b""))
        if kind is Kind.IDENTITY:
            header = replace(header, control_heads=entry.header.control_heads)
        if random.random() < (0.6 if kind is Kind.DATA else 0.3):
            return self._signed(replace(header, user=bystander.user), entry.body)
        if kind is Kind.DATA:  # by nothing that it has seen is it a member; and no schema is asked for
            body = Body.of_blocks([])
            return self._signed(replace(header, control_heads=(own.identity.last.hash,), body_hash=body.hash), body)
        act = self._presumed(random) if kind is Kind.CONTROL else self._unasked(random)
        return self._author.write(kind, [pack(act)]).run

    def _presumed(self, random: Random) -> Value:
        """An act for which an admin's rank does not do."""
        world = self._world
        founder, owner, own = world.victim, world.bystander, world.hostile
        role = random.choice((Role.READER, Role.OWNER))
        signature = _SPARE.sign(PURPOSE_ENTRY, bytes(32))
        acts: tuple[ActBody, ...] = (
            Remove(owner.user, ()),
            Ban(founder.user, "", ()),
            SetRole(owner.user, Role.READER, ()),
            SetRole(own.user, Role.OWNER),
            DropDevice(founder.user, founder.keys.device, ()),
            Invite(Role.OWNER, FIRST_MS * 2, 3, _SPARE.public),
            SetRole(founder.user, role, () if role is Role.READER else None),
            Admit(world.invite[0], own.user, own.keys.device, bytes(32), signature, signature),
        )
        return body_value(self._turns.pick("act", acts))

    def _unasked(self, random: Random) -> Value:
        """The hostile user takes a device that has not agreed to it."""
        cert, keys = self._author.further_device()
        own = flipped(random, keys.sign_consent(self._world.hostile.user))
        other = keys.sign_consent(self._world.bystander.user)
        return body_value(AddDevice(cert, self._turns.pick("consent", (other, own))))

    # --- Beacons ----------------------------------------------------------------------------------------------------------------

    def beacon(self, random: Random) -> Value:
        """A beacon of a device that did not sign it."""
        claimed = random.choice((self._world.victim, self._world.bystander)).keys
        fields: list[Value] = [claimed.device, COUNTER_MIN + random.randrange(2**40), [], random.randbytes(16), []]
        good = claimed.signing.sign(PURPOSE_BEACON, pack([self._world.group, *fields]))
        hostile = self._world.hostile.keys.signing.sign(PURPOSE_BEACON, pack([self._world.group, *fields]))
        elsewhere = claimed.signing.sign(PURPOSE_BEACON, pack([bytes(32), *fields]))
        return [*fields, self._turns.pick("beacon", (flipped(random, good), hostile, elsewhere))]

    def _large_beacon(self, random: Random) -> Value:
        key = self._world.hostile.keys.signing
        addresses: list[Value] = [f"ws://127.0.0.1:{at + 1}" for at in range(BEACON_ADDRESSES_MAX + 1)]
        holdings: list[Value] = [[at.to_bytes(16, "big"), 1] for at in range(HOLDINGS_MAX + 1)]
        some: list[list[Value]] = [[addresses, bytes(16), []], [[], bytes(16), holdings]]
        fields: list[Value] = [key.public, COUNTER_MIN + random.randrange(2**40), *self._turns.pick("large beacon", some)]
        return [*fields, key.sign(PURPOSE_BEACON, pack([self._world.group, *fields]))]

    # --- One more than a bound allows -------------------------------------------------------------------------------------------

    def above(self, random: Random, kind: str) -> Value:
        """A message of a session that is good but for being one too many; of a kind of ABOVE_KINDS."""
        if kind == "ASK":
            return [MessageType.ASK, [random.randbytes(32) for _ in range(ASK_HASHES_MAX + 1)]]
        if kind == "COUNTERS":
            return [MessageType.COUNTERS, [[at.to_bytes(32, "big"), 1] for at in range(BEACONS_MAX + 1)]]
        if kind == "BEACONS":
            return [MessageType.BEACONS, [self._large_beacon(random)]]
        if kind == "WANT":
            return self._large_want(random)
        return [MessageType.RUNS, 0, pack(self._large_runs(random))]

    def _large_want(self, random: Random) -> Value:
        one: list[Value] = [int(Kind.DATA), b"", bytes(32), bytes(16), 1_000, bytes(32)]
        samples: Value = [[999 - at, bytes(32)] for at in range(WANT_SAMPLES_MAX + 1)]
        staged: Value = [[bytes([at]) * 32, 0] for at in range(STAGED_BODIES_MAX + 1)]
        choices: tuple[tuple[Value, Value], ...] = (
            ([[*one, []]] * (WANT_ITEMS_MAX + 1), []),
            ([[*one, samples]], []),
            ([], staged),
        )
        return [MessageType.WANT, *self._turns.pick("large want", choices)]

    def _large_runs(self, random: Random) -> Value:
        run = self._fresh(random)
        step = self._turns.pick("large run", (0, 1, 2))
        if step == 0:
            kind, *fields, deltas = run_value(run)
            many: Value = sorted(random.randbytes(32) for _ in range(LINKS_PER_ENTRY_MAX + 1))
            assert isinstance(deltas, list)
            return [[kind, *fields, [[1, [], many, [0], []], *deltas[1:]]]]  # before those come nobody looks at the signature
        if step == 1:
            body = Body.detached([random.randbytes(32) for _ in range(BLOCKS_PER_BODY_MAX + 1)])
            header = replace(run.first, seq=1, prev=b"", control_heads=self._world.heads, body_hash=body.hash)
            return [run_value(self._signed(header, body))]
        tip, count = run.last, RUN_ENTRIES_MAX + 1
        stamps, blocks = range(tip.hlc + 1, tip.hlc + 1 + count), [run.entries[0].body.blocks[0]] * count
        long = Run(chain_entries(tip.log, tip.group, tip.user, tip.seq + 1, tip.hash, stamps, blocks), b"")
        return [run_value(run), run_value(replace(long, signature=long.last.sign(self._world.hostile.keys.signing)))]


ABOVE_KINDS: Final = frozenset(("ASK", "COUNTERS", "BEACONS", "WANT", "RUNS data"))


def flipped(random: Random, signature: bytes) -> bytes:
    """A signature with another bit."""
    changed = bytearray(signature)
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)
