"""Bodies that come apart from their entries, or after them: staged block by block, filled in, shown (SPEC: E-22, E-29, R-9)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import apsw

from peersd.store.authority import Authority
from peersd.store.log import Log, LogRow, State
from peersd.store.rows import Rows
from peersd_protocol import blocks as block_codec
from peersd_protocol import canonical
from peersd_protocol.constants import BODY_BYTES_MAX, MESSAGE_BYTES_MAX, STAGED_BODIES_MAX
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.messages import Block
from peersd_protocol.replication import Committed
from peersd_protocol.runs import BodyForm, Entry, Run, parse_run, run_value


@dataclass(slots=True)
class Filled:
    """What bodies for entries that were here without came to.

    Attributes:
        is_new: whether anything was stored.
        committed: the entries that may be told of now, in the order of their positions.
    """

    is_new: bool = False
    committed: list[Committed] = field(default_factory=list)


class LateBodies:
    """Stages and fills in bodies, inside the caller's transaction.

    Args:
        connection: the writer of the group's file.
        log, authority, rows: of the group.
    """

    def __init__(self, connection: apsw.Connection, log: Log, authority: Authority, rows: Rows) -> None:
        self._connection = connection
        self._log = log
        self._authority = authority
        self._rows = rows

    # --- Detached bodies --------------------------------------------------------------------------------------------------------

    def is_complete(self, entry: Entry) -> bool:
        """Whether all blocks of a detached body are here."""
        count = self._connection.execute("SELECT count(*) FROM _peers_block WHERE entry = ?", (entry.header.hash,)).get
        return bool(count == len(entry.body.block_hashes))

    def stage(self, run: Run) -> None:
        """Keeps a run whose one entry's detached body is under way; where too many are, the oldest gives way."""
        hash_ = run.last.hash
        count = self._connection.execute("SELECT count(*) FROM _peers_staged WHERE entry <> ?", (hash_,)).get
        if isinstance(count, int) and count >= STAGED_BODIES_MAX:
            oldest = self._connection.execute("SELECT entry FROM _peers_staged ORDER BY at LIMIT 1").get
            assert isinstance(oldest, bytes)
            self._log.drop_blocks(oldest)
        self._connection.execute(
            "INSERT OR REPLACE INTO _peers_staged (entry, run) VALUES (?, ?)", (hash_, canonical.encode(run_value(run)))
        )

    def unstage(self, hash_: bytes) -> None:
        """The entry of a staged run is taken in now."""
        self._connection.execute("DELETE FROM _peers_staged WHERE entry = ?", (hash_,))

    def is_staged(self, hash_: bytes) -> bool:
        """Whether blocks of this entry's body are waited for."""
        return bool(self._connection.execute("SELECT EXISTS (SELECT 1 FROM _peers_staged WHERE entry = ?)", (hash_,)).get)

    def take_block(self, block: Block) -> tuple[Run, bool] | None:
        """Takes a block of a staged body in.

        Returns:
            The staged run, and whether its body is complete now; None for a block that is here, or leaves a hole.

        Raises:
            RemoteProtocolError: BAD_BODY, TOO_LARGE.
        """
        packed = self._connection.execute("SELECT run FROM _peers_staged WHERE entry = ?", (block.entry_hash,)).get
        assert isinstance(packed, bytes)
        run = parse_run(canonical.decode(packed, bytes_max=MESSAGE_BYTES_MAX), self._log.group)
        entry = run.entries[-1]
        hashes = entry.body.block_hashes
        if block.index >= len(hashes) or block_codec.block_hash(block.data) != hashes[block.index]:
            raise RemoteProtocolError(CloseCode.BAD_BODY, "block does not match its hash")
        held = self._connection.execute(
            "SELECT count(*), coalesce(sum(length(data)), 0) FROM _peers_block WHERE entry = ?", (block.entry_hash,)
        ).fetchone()
        assert held is not None
        if block.index != held[0]:
            return None  # blocks come in order; a hole means that some were dropped here, and they are asked for again
        if held[1] + len(block.data) > BODY_BYTES_MAX + len(hashes):
            raise RemoteProtocolError(CloseCode.TOO_LARGE, "body")
        self._connection.execute("INSERT INTO _peers_block VALUES (?, ?, ?)", (block.entry_hash, block.index, block.data))
        is_complete = self.is_complete(entry)
        if is_complete:
            self.unstage(block.entry_hash)
        return run, is_complete

    # --- Bodies of entries that are here ----------------------------------------------------------------------------------------

    def fill(self, run: Run, known: int) -> Filled:
        """Gives entries that count and are here as headers the bodies that a run brings them, and shows what waited for them.

        Args:
            run: a run.
            known: how many of its entries, from the first on, are here. Their hashes vouch for their bodies, whatever the run's
                signature.

        Raises:
            RemoteProtocolError: a body is not as it has to be.
        """
        row = self._log.log(run.log)
        if row is None or not row.missing:
            return Filled()
        filled = Filled()
        for entry in run.entries[:known]:
            header = entry.header
            found = self._log.find(header.hash)
            if found is None or found.state is not State.MISSING or self._log.has_body(found.id):
                continue
            if entry.body.form is BodyForm.WITHHELD:
                continue
            filled.is_new = True
            if entry.body.form is BodyForm.DETACHED and not self.is_complete(entry):
                self.stage(run)  # which has no other entry
                return filled
            prev = self._log.find(header.prev) if header.prev else None
            past = self._authority.past_after(prev, header.control_heads)
            self._authority.remember_past(found.id, past, prev)
            self._rows.decode(entry, past)
            self._log.save_body(found.id, entry.body)
        if filled.is_new:
            filled.committed = self._show(row)
        return filled

    def _show(self, row: LogRow) -> list[Committed]:
        """Shows the entries of a log that have waited for a body, on each branch up to the next that still lacks one."""
        shown: list[Committed] = []
        names: set[bytes] = set()
        query = """SELECT id, seq FROM _peers_entry
            WHERE log = ? AND branch = ? AND state IN (0, 3, 4) AND state = 4 AND seq >= ? ORDER BY seq"""
        for number, branch in enumerate(row.branches):
            first = row.missing.get(number)
            if first is None or (branch.parent is not None and row.is_blocked(branch.parent, branch.first - 1)):
                continue
            del row.missing[number]
            waiting = cast("list[tuple[int, int]]", self._connection.execute(query, (row.id, number, first)).fetchall())
            for id_, seq in waiting:
                if not self._log.has_body(id_):
                    row.missing[number] = seq
                    break
                ((_, entry, _, _),) = self._log.entries("id = ?", (id_,))  # what is missing is in no segment
                header = entry.header
                self._log.set_state([id_], self._rows.show(id_, entry))
                names.update(header.deps)
                requires = self._log.positions((*header.deps, *header.control_heads))
                shown.append(Committed(id_, row.key, seq, header.hash, requires))
        self._log.show(row, names)
        return sorted(shown, key=lambda entry: entry.position)
