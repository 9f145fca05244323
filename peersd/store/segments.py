"""Stretches of small entries as rows of one each: a segment holds many entries as a run states them (DESIGN 6).

Entries in segments are data entries that count and are shown, have one inline block each and name nothing but the one before.
Whatever else becomes of one of them, its segment is taken apart first: then each of its entries is a row of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final, TypeAlias, cast

import apsw

from peersd_protocol import blocks as block_codec
from peersd_protocol import canonical
from peersd_protocol.constants import MESSAGE_BYTES_MAX

_COLUMNS: Final = "id, log, branch, seq, count, author, hlc, hash, prev, signature"
_INSERT: Final = f"INSERT INTO _peers_segment ({_COLUMNS}, packed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_PREFIX: Final = "INSERT INTO _peers_segment_hash VALUES (?, ?)"
_DROP_PREFIX: Final = "DELETE FROM _peers_segment_hash WHERE prefix = ? AND id = ?"

_UNPACKED_MAX: Final = 8
"""Segments kept unpacked (guess): some 30 KiB each, for changes that look up the clocks of neighbours."""

SEGMENT_BYTES_MAX: Final = MESSAGE_BYTES_MAX
"""Unpacked; what is in one came in one message, or fits one run."""

_PREFIX_BYTES: Final = 6
"""Of a hash, as the index of entries in segments has it: of a million entries, one in a few hundred has a namesake."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A row of _peers_segment without what is packed in it.

    Attributes:
        id: position of its last entry.
        log, branch: where its entries stand.
        seq: of its last entry.
        count: how many it holds.
        author: number of who acts.
        hlc, hash: of its last entry.
        prev: hash of the entry before its first.
        signature: over its last entry, where a run ends there.
    """

    id: int
    log: int
    branch: int
    seq: int
    count: int
    author: int
    hlc: int
    hash: bytes
    prev: bytes
    signature: bytes | None

    @property
    def first_id(self) -> int:
        """Position of its first entry."""
        return self.id - self.count + 1

    @property
    def first_seq(self) -> int:
        """Sequence of its first entry."""
        return self.seq - self.count + 1


_Row: TypeAlias = tuple[int, int, int, int, int, int, int, bytes, bytes, "bytes | None"]


class Segments:
    """Rows of _peers_segment. Transactions are the caller's; after a rollback the caller calls `reload`.

    Args:
        connection: the writer of the group's file, with the tables of log.sql.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.reload()

    def reload(self) -> None:
        """Forgets what is kept in memory."""
        self._unpacked: OrderedDict[int, tuple[list[int], list[bytes]]] = OrderedDict()

    def add(self, segment: Segment, stamps: Sequence[int], hashes: Sequence[bytes], blocks: Sequence[bytes]) -> None:
        """Stores a segment.

        Args:
            segment: its row.
            stamps: of each entry.
            hashes: of each.
            blocks: of each the one that its body is.
        """
        steps = [stamps[0], *(after - before for before, after in pairwise(stamps))]
        packed = block_codec.compress(canonical.encode([steps, blocks]))
        s = segment
        row = (s.id, s.log, s.branch, s.seq, s.count, s.author, s.hlc, s.hash, s.prev, s.signature, packed)
        self._connection.execute(_INSERT, row)
        self._connection.executemany(_INSERT_PREFIX, sorted(_places(segment, hashes)))

    def remove(self, segment: Segment, hashes: list[bytes]) -> None:
        """Removes a segment whose entries, with these hashes, become rows of their own."""
        self._connection.execute("DELETE FROM _peers_segment WHERE id = ?", (segment.id,))
        self._connection.executemany(_DROP_PREFIX, _places(segment, hashes))
        self._unpacked.pop(segment.id, None)

    def unpack(self, segment: Segment) -> tuple[list[int], list[bytes]]:
        """The stamps and blocks of its entries."""
        found = self._unpacked.get(segment.id)
        if found is None:
            packed = self._connection.execute("SELECT packed FROM _peers_segment WHERE id = ?", (segment.id,)).get
            raw = block_codec.decompress(cast("bytes", packed), bytes_max=SEGMENT_BYTES_MAX)
            steps, blocks = canonical.decode(raw, bytes_max=SEGMENT_BYTES_MAX)
            found = list(accumulate(cast("list[int]", steps))), cast("list[bytes]", blocks)
            self._unpacked[segment.id] = found
            while len(self._unpacked) > _UNPACKED_MAX:
                self._unpacked.popitem(last=False)
        return found

    def at(self, position: int) -> Segment | None:
        """The segment that holds the entry at this position."""
        found = self._one("id >= ? ORDER BY id LIMIT 1", position)
        return found if found is not None and found.first_id <= position else None

    def at_seq(self, log: int, branch: int, seq: int) -> Segment | None:
        """The segment that holds this entry of a log."""
        found = self._one("log = ? AND branch = ? AND seq >= ? ORDER BY seq LIMIT 1", log, branch, seq)
        return found if found is not None and found.first_seq <= seq else None

    def last_before(self, log: int, branch: int, seq: int) -> Segment | None:
        """The last segment of a branch that ends before this sequence."""
        return self._one("log = ? AND branch = ? AND seq < ? ORDER BY seq DESC LIMIT 1", log, branch, seq)

    def positions(self, hash_: bytes) -> list[int]:
        """Where an entry with this hash may stand."""
        query = "SELECT id FROM _peers_segment_hash WHERE prefix = ?"
        return [cast(int, id_) for (id_,) in self._connection.execute(query, (_prefix(hash_),))]

    def of_branch(self, log: int, branch: int) -> list[Segment]:
        """The segments of a branch, in order."""
        return list(self._select("log = ? AND branch = ? ORDER BY seq", log, branch))

    def after(self, position: int) -> Iterator[Segment]:
        """The segments that hold an entry after this position, in order."""
        return self._select("id > ? ORDER BY id", position)

    def _one(self, where: str, *bindings: int) -> Segment | None:
        return next(self._select(where, *bindings), None)

    def _select(self, where: str, *bindings: int) -> Iterator[Segment]:
        for row in self._connection.execute(f"SELECT {_COLUMNS} FROM _peers_segment WHERE {where}", bindings):
            yield Segment(*cast("_Row", row))


def _places(segment: Segment, hashes: Sequence[bytes]) -> list[tuple[int, int]]:
    """The rows of the index of a segment's entries."""
    prefixes = [int.from_bytes(hash_[:_PREFIX_BYTES], "big") for hash_ in hashes]
    return list(zip(prefixes, range(segment.first_id, segment.id + 1), strict=True))


def _prefix(hash_: bytes) -> int:
    return int.from_bytes(hash_[:_PREFIX_BYTES], "big")
