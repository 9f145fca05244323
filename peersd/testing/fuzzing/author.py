"""Entries that the hostile device signs with its own key: good ones, and such as no daemon would write."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random
from typing import Final

from peersd.testing.fuzzing.mutation import BOUNDARIES, mutate_bytes, mutate_encoding, mutate_value, pack
from peersd.testing.fuzzing.world import FIRST_MS, World
from peersd.testing.simulator.founding import Person, secret
from peersd_protocol import blocks as block_codec
from peersd_protocol import canonical, hlc
from peersd_protocol.acts import AddDevice, Invite, Profile, SchemaAct, SetRole, Settings, body_value
from peersd_protocol.canonical import Value
from peersd_protocol.changesets import Changeset, TableChangeset, Updates
from peersd_protocol.changesets import encode as encode_changeset
from peersd_protocol.columns import Scalar
from peersd_protocol.devicekeys import DeviceCert, DeviceKeys, verify_device_cert
from peersd_protocol.entries import Header, Kind
from peersd_protocol.messages import Block
from peersd_protocol.roles import Role
from peersd_protocol.runs import Body, BodyForm, Entry, Run
from peersd_protocol.schema import TableId
from peersd_protocol.schema_ops import AddColumn, ColumnDef, CreateIndex, CreateTable
from peersd_protocol.signing import PURPOSE_ENTRY, SigningKey

ENTRIES_MAX: Final = 6
LARGE_BODY_BYTES: Final = 140_000
"""Above INLINE_BODY_BYTES_MAX even when compressed, as it is random."""

LARGE_BODIES: Final = 8
"""How many large rows are written again and again: to make one costs more than to take it in."""


@dataclass(frozen=True, slots=True)
class Written:
    """A run and the blocks of its body, if that is detached."""

    run: Run
    blocks: tuple[Block, ...] = ()


class Author:
    """Writes for one device. Every good run begins a log of its own or follows one that was taken in.

    Args:
        world: the group.
        writer: whose device it is; the hostile one's by default.

    Attributes:
        writer: the same.
    """

    def __init__(self, world: World, writer: Person | None = None) -> None:
        self._world = world
        self.writer = writer or world.hostile
        self._keys = self.writer.keys
        self._count = 0
        self._tips: list[Header] = []

    @property
    def tip(self) -> Header | None:
        """The end of a log of rows that was taken in."""
        return self._tips[-1] if self._tips else None

    # --- Good ones --------------------------------------------------------------------------------------------------------------

    def data(self, random: Random) -> Written:
        """Rows."""
        tip = random.choice(self._tips) if self._tips and random.random() < 0.3 else None
        count = random.randint(1, ENTRIES_MAX)
        return self.write(Kind.DATA, [self._changeset(random) for _ in range(count)], tip)

    def large_data(self, random: Random) -> Written:
        """A row that does not fit into its run."""
        pieces, body = _large_body(self._world.table, random.randrange(LARGE_BODIES))
        header = self._header(Kind.DATA, None, body)
        blocks = tuple(Block(header.hash, index, piece) for index, piece in enumerate(pieces))
        return Written(Run((Entry(header, body),), header.sign(self._keys.signing)), blocks)

    def control(self, random: Random) -> Written:
        """An act that an admin may do."""
        return self.write(Kind.CONTROL, [pack(self._act(random))])

    def identity(self, random: Random) -> Written:
        """An act of the hostile user's identity."""
        return self.write(Kind.IDENTITY, [pack(self._identity_act(random))])

    def good(self, random: Random, kind: Kind) -> Written:
        """A run of a kind that no rule forbids."""
        return {Kind.DATA: self.data, Kind.CONTROL: self.control, Kind.IDENTITY: self.identity}[kind](random)

    def further_device(self) -> tuple[DeviceCert, DeviceKeys]:
        """A device that the user does not have yet."""
        self._count += 1
        return _added_device(self._count)

    def note_taken(self, run: Run) -> None:
        """The victim has taken a run in, so the next may follow it."""
        if run.log.kind is Kind.DATA and len(self._tips) < 8:
            self._tips.append(run.last)

    def note_followed(self, run: Run) -> None:
        """Its log has another end now, or may have."""
        self._tips = [tip for tip in self._tips if tip.log != run.log]

    def _changeset(self, random: Random) -> bytes:
        self._count += 1
        ids = [f"hostile {self._count} {at}" for at in range(random.randint(1, 4))]
        values: list[Value] = [random.choice((None, "text", 7, 2.5, b"bytes")) for _ in ids]
        some = [f"victim {random.randrange(12)}"]
        change = random.randrange(4)
        if change == 0:
            table = TableChangeset(self._world.table, updates=(Updates((1,), [some], [["updated"]]),))
        elif change == 1:
            table = TableChangeset(self._world.table, deletes=[some])
        else:
            table = TableChangeset(self._world.table, inserts=[ids, values, [None] * len(ids)])  # type: ignore[list-item]
        return encode_changeset(Changeset((table,)))

    def _act(self, random: Random) -> Value:
        self._count += 1
        column = ColumnDef("extra", "TEXT")
        choice = random.randrange(6)
        if choice == 0:
            return body_value(Settings(name=f"fuzzed {self._count}", description="said\nin two lines"))
        if choice == 1:
            return body_value(Invite(Role.WRITER, FIRST_MS * 2, 3, _invite_key(self._count)))
        if choice == 2:
            table = CreateTable(f"table {self._count}", (replace(column, name="id", not_null=True), column), (0,), True, False)
            return body_value(SchemaAct((table,)))
        if choice == 3:
            return body_value(SchemaAct((AddColumn(self._world.table, column),)))
        if choice == 4:
            title = (*self._world.table, 1)
            return body_value(SchemaAct((CreateIndex(f"index {self._count}", self._world.table, ((title, False),)),)))
        return body_value(SetRole(self._world.hostile.user, Role.READER))  # nobody promotes itself: it is void, and no fault

    def _identity_act(self, random: Random) -> Value:
        if random.random() < 0.5:
            self._count += 1
            return body_value(Profile(f"hostile {self._count}"))
        cert, keys = self.further_device()
        return body_value(AddDevice(cert, keys.sign_consent(self.writer.user)))

    def write(self, kind: Kind, bodies: list[bytes], tip: Header | None = None) -> Written:
        """A run of these raw bodies, which may be good or not, in a new log or after an entry."""
        entries: list[Entry] = []
        blocks: list[Block] = []
        for raw in bodies:
            pieces = block_codec.split_body(raw)
            body = Body.of_blocks(pieces)
            tip = self._header(kind, tip, body)
            entries.append(Entry(tip, body))
            if body.form is BodyForm.DETACHED:
                blocks = [Block(tip.hash, index, piece) for index, piece in enumerate(pieces)]
        return Written(Run(tuple(entries), entries[-1].header.sign(self._keys.signing)), tuple(blocks))

    def _header(self, kind: Kind, tip: Header | None, body: Body) -> Header:
        self._count += 1
        identity = self.writer.identity.last.hash
        if tip is not None:
            return replace(tip, seq=tip.seq + 1, prev=tip.hash, hlc=tip.hlc + 1, control_heads=(), body_hash=body.hash)
        return Header(
            b"" if kind is Kind.IDENTITY else self._world.group,
            kind,
            self.writer.user,
            self._keys.device,
            secret("epoch", self._count)[:16],
            1,
            b"",
            hlc.pack(FIRST_MS + 50_000 + self._count, 0),
            (),
            (identity,) if kind is Kind.IDENTITY else self._world.heads,
            body.hash,
        )

    # --- Bad ones, with good signatures -----------------------------------------------------------------------------------------

    def bad(self, random: Random, kind: Kind) -> Written:
        """A run in whose body or headers something was changed before they were signed."""
        if random.random() < 0.5:
            return self.write(kind, [self._bad_body(random, kind)])
        good = self.good(random, kind)
        self.note_followed(good.run)
        entries = list(good.run.entries)
        at = random.randrange(len(entries))
        entries[at] = self._bad_entry(random, entries[at])
        for follower in range(at + 1, len(entries)):  # a run states no more of them than this
            before, entry = entries[follower - 1].header, entries[follower]
            stamp = min(before.hlc + 1, 2**63 - 1)
            header = replace(entry.header, seq=before.seq + 1, prev=before.hash, hlc=stamp, user=before.user, epoch=before.epoch)
            entries[follower] = Entry(header, entry.body)
        last = entries[-1].header
        return Written(Run(tuple(entries), self._keys.signing.sign(PURPOSE_ENTRY, last.hash)), good.blocks)

    def _bad_body(self, random: Random, kind: Kind) -> bytes:
        if kind is Kind.DATA and random.random() < 0.5:
            return encode_changeset(Changeset(self._odd_tables(random)))
        if kind is Kind.DATA:
            value: Value = canonical.decode(self._changeset(random), bytes_max=2**20)
        else:
            value = self._act(random) if kind is Kind.CONTROL else self._identity_act(random)
        for _ in range(random.choice((1, 1, 2, 4))):
            value = mutate_value(random, value)
        raw = mutate_encoding(random, value) if random.random() < 0.2 else pack(value)
        return raw[:400_000] or b"\xc0"

    def _odd_tables(self, random: Random) -> tuple[TableChangeset, ...]:
        """What is a changeset by its form, and none of this schema, or none that fits the rows."""
        table = self._world.table
        keys = random.choice(
            ([None], [1.5], ["twice", "twice"], [b"blob"], [True], [2**64 - 1], ["victim 1"], [float("nan")], [])
        )
        some = ["x"] * len(keys)
        one = TableChangeset(table, inserts=[keys, some, some])
        odd: list[tuple[TableChangeset, ...]] = [
            (one,),
            (one, one),
            (TableChangeset((bytes(16), 0), inserts=[["k"], ["x"], [None]]),),
            (TableChangeset((table[0], random.choice((1, 999, 1_000))), inserts=[["k"], ["x"], [None]]),),
            (TableChangeset(table, added=((table[0], 0),), inserts=[["k"], ["x"], [None], [1]]),),
            (TableChangeset(table, inserts=[["k"], ["x"]]),),
            (TableChangeset(table, inserts=[["k"], ["x"], [None], ["more"]]),),
            (TableChangeset(table, updates=(Updates((0,), [keys], [some]),)),),
            (TableChangeset(table, updates=(Updates((1, 2, 199), [["k"]], [["x"], [1], [2]]),)),),
            (TableChangeset(table, updates=(Updates((1,), [["k"], ["k"]], [["x"]]),)),),
            (TableChangeset(table, deletes=[keys]),),
            (TableChangeset(table, inserts=[["k"], ["x"], [None]], deletes=[["k"]]),),
            (),
        ]
        return random.choice(odd)

    def _bad_entry(self, random: Random, entry: Entry) -> Entry:
        header, body = entry.header, entry.body
        known = self._world.held if random.random() < 0.7 else (*self._world.held, *self._world.pieces)
        hashes = [piece.run.last.hash for piece in known]
        links = tuple(sorted(random.sample(hashes, random.randint(1, 5))))
        unknown = tuple(sorted(random.randbytes(32) for _ in range(random.choice((1, 3, 256)))))
        seq = random.choice([number for number in BOUNDARIES if 1 <= number <= 2**53])
        stamp = random.choice([number for number in BOUNDARIES if 1 <= number < 2**63])
        nested: Value = random.choice([0, None, [[[]]], [[]] * 300, b"x" * 5_000])
        choices: list[Entry] = [
            Entry(replace(header, seq=seq, prev=b"" if seq == 1 else random.choice(hashes)), body),
            Entry(replace(header, hlc=stamp), body),
            Entry(replace(header, seq=2, prev=random.choice(hashes), hlc=header.hlc + 2**20), body),
            Entry(replace(header, seq=header.seq + 1, prev=random.choice(hashes)), body),
            Entry(replace(header, control_heads=links), body),
            Entry(replace(header, control_heads=unknown), body),
            Entry(replace(header, deps=links), body),
            Entry(replace(header, control_heads=()), body),
            Entry(replace(header, user=self._world.bystander.user), body),
            Entry(replace(header, epoch=self._world.held[0].run.first.epoch), body),
            Entry(replace(header, ext=tuple((number, nested) for number in range(random.choice((1, 2, 256))))), body),
            Entry(replace(header, body_hash=bytes(32)), Body.withheld(bytes(32))),
            Entry(header, Body.withheld(header.body_hash)),
            self._with_blocks(header, [mutate_bytes(random, block) or b"\0" for block in body.blocks]),
            self._with_blocks(header, [b"\x02sealed"]),
            self._with_blocks(header, [*body.blocks, b"\x01" + random.randbytes(40)]),
            self._with_blocks(header, [bytes([random.randrange(256)]) + random.randbytes(random.randrange(60))] * 264),
        ]
        return random.choice(choices)

    @staticmethod
    def _with_blocks(header: Header, blocks: list[bytes]) -> Entry:
        body = Body.of_blocks(blocks)
        return Entry(replace(header, body_hash=body.hash), body)


# --- What is dear to make and may be used again ---------------------------------------------------------------------------------


@lru_cache(maxsize=LARGE_BODIES)
def _large_body(table: TableId, number: int) -> tuple[list[bytes], Body]:
    """A row that does not fit into its run: the blocks, and the body that they make."""
    row: list[list[Scalar]] = [[f"large {number}"], ["t"], [Random(number).randbytes(LARGE_BODY_BYTES)]]
    pieces = block_codec.split_body(encode_changeset(Changeset((TableChangeset(table, inserts=row),))))
    return pieces, Body.of_blocks(pieces)


@lru_cache(maxsize=1_024)
def _added_device(number: int) -> tuple[DeviceCert, DeviceKeys]:
    """A further device of a user's."""
    keys = DeviceKeys(*(secret("added", number, purpose) for purpose in ("signing", "noise", "sealing")))
    return verify_device_cert(keys.device_cert(f"added {number}")), keys


@lru_cache(maxsize=1_024)
def _invite_key(number: int) -> bytes:
    """The public half of an invite's key."""
    return SigningKey(secret("spare invite", number)).public
