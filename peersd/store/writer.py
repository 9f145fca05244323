"""New entries of this device: their place in the logs, their links, their signatures (DESIGN 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from peersd.store.authority import NO_PAST, Authority, Past
from peersd.store.epochs import Epochs
from peersd.store.log import EntryRow, Log, State
from peersd_protocol import blocks as block_codec
from peersd_protocol import hlc
from peersd_protocol.constants import INLINE_BODY_BYTES_MAX, LINKS_PER_ENTRY_MAX, RUN_ENTRIES_MAX
from peersd_protocol.entries import Header, Kind, LogKey
from peersd_protocol.replication import Committed
from peersd_protocol.runs import Body, BodyForm, Entry, Run
from peersd_protocol.signing import HASH_BYTES, SigningKey


@dataclass(frozen=True, slots=True)
class Written:
    """A local entry as it was appended."""

    id: int
    header: Header


class Writer:
    """Appends this device's entries inside the caller's transaction.

    A run is what one signature covers: it ends with the batch, and before that where the acting user or the kind changes, where
    it grows past what fits a message, and around an entry whose body travels apart.

    Args:
        log, authority: of the group.
        key: the device's signing key.
        epochs: knows the epoch to write in.
        wall_ms: this device's clock, milliseconds since 1970.
    """

    def __init__(self, log: Log, authority: Authority, key: SigningKey, epochs: Epochs, wall_ms: Callable[[], int]) -> None:
        self._log = log
        self._authority = authority
        self._key = key
        self._epochs = epochs
        self._wall_ms = wall_ms
        self._open: list[tuple[int, Entry]] = []
        self._open_bytes = 0
        self.runs: list[Run] = []
        self.committed: list[Committed] = []

    def reset(self) -> None:
        """Forgets what was appended; after a rollback and after each commit."""
        self._open = []
        self._open_bytes = 0
        self.runs = []
        self.committed = []

    def log_key(self, kind: Kind, user: bytes) -> LogKey:
        """This device's own log of a kind."""
        return LogKey(kind, user if kind is Kind.IDENTITY else b"", self._key.public, self._epochs.current)

    def append(self, kind: Kind, user: bytes, raw_body: bytes, *, is_last: bool = False) -> Written:
        """Appends one entry.

        Args:
            kind: which log.
            user: the acting user's id.
            raw_body: the encoded body, empty for none.
            is_last: whether it is known to end the batch: then it is signed as it is stored, and not in a second step that writes
                its row with its whole body again.
        """
        key = self.log_key(kind, user)
        if not self._goes_on(key, user):
            self._epochs.renew()
            key = self.log_key(kind, user)
        blocks = block_codec.split_body(raw_body)
        body = Body.of_blocks(blocks)
        while self._heads_left(kind) > LINKS_PER_ENTRY_MAX:
            self._append(key, user, Body.of_blocks([]))
        written = self._append(key, user, body, is_last=is_last)
        if body.form is BodyForm.DETACHED:
            self._log.save_blocks(written.header.hash, blocks)
        return written

    def _goes_on(self, key: LogKey, user: bytes) -> bool:
        """Whether a user's next entry may stand in this log.

        A log is gone on with from its one end alone: where that is void, another entry stands at the next position already. And
        where an act that takes a right has cut the log, all that comes after is void.
        """
        row = self._log.log(key)
        if row is not None and (row.forked or len(row.tips) != 1 or row.tips[0].seq != row.branches[0].last):
            return False
        if key.kind is Kind.IDENTITY:
            return True
        first_past = frozenset(self._log.act_heads) if row is None else self._authority.first_past(row, 0)
        return not self._authority.limits(user, key, first_past)

    def _heads_left(self, kind: Kind) -> int:
        """How many heads the next entry would have to name; beyond the bound, empty entries go before."""
        return max(len(self._log.data_heads) if kind is Kind.DATA else 0, len(self._log.act_heads))

    def _append(self, key: LogKey, user: bytes, body: Body, *, is_last: bool = False) -> Written:
        row = self._log.log(key)
        tip = row.tips[-1] if row and row.tips else None
        prev = EntryRow(tip.id, row.id, tip.branch, tip.seq, tip.hlc, State.APPLIED) if row and tip else None
        prev_hash = tip.hash if tip else b""
        deps = self._name(self._log.data_heads, prev_hash) if key.kind is Kind.DATA else []
        named = self._authority.past_after(prev, ()) if key.kind is Kind.DATA else NO_PAST
        heads = self._name(self._identity_tips(user) if key.kind is Kind.IDENTITY else self._log.act_heads - named, prev_hash)
        dep_rows = [found for found in map(self._log.find, deps) if found is not None]
        head_rows = [found for found in map(self._log.find, heads) if found is not None]
        greatest = max([prev.hlc if prev else 0, *(found.hlc for found in dep_rows)])
        header = Header(
            b"" if key.kind is Kind.IDENTITY else self._log.group,
            key.kind,
            user,
            key.device,
            key.epoch,
            tip.seq + 1 if tip else 1,
            prev_hash,
            hlc.next_stamp(greatest, self._wall_ms()),
            tuple(sorted(deps)),
            tuple(sorted(heads)),
            body.hash,
        )
        self._close_run_before(header, body)
        entry = Entry(header, body)
        past = self._authority.past_after(prev, heads) if key.kind is Kind.DATA else NO_PAST
        self._check_own(header, body, prev, past)
        signature = header.sign(self._key) if is_last else None
        id_ = self._log.append(entry, signature, State.APPLIED, prev).id
        if key.kind is Kind.DATA:
            self._authority.remember_past(id_, past, prev)
        self._open.append((id_, entry))
        self._open_bytes += _run_bytes(header, body)
        requires = tuple((self._log.log_by_id(found.log).key, found.seq) for found in (*dep_rows, *head_rows))
        self.committed.append(Committed(id_, header.log, header.seq, header.hash, requires))
        if signature is not None:
            self._end_run(signature)
        return Written(id_, header)

    def _check_own(self, header: Header, body: Body, prev: EntryRow | None, past: Past) -> None:
        """Who may write was asked before; only an empty entry may be the first of more than one that names all heads."""
        assert header.kind is not Kind.DATA or not body.block_hashes or self._authority.counts(header, prev, past)

    def _identity_tips(self, user: bytes) -> set[bytes]:
        """The newest entries of a user's identity logs: all that an identity act may name, since it travels to every group."""
        rows = [row for row in self._log.logs() if row.key.kind is Kind.IDENTITY and row.key.user == user]
        return {tip.hash for row in rows for tip in row.tips}

    def _name(self, heads: set[bytes], prev_hash: bytes) -> list[bytes]:
        """The heads that the next entry names: all but its prev, up to the bound, the one with the greatest stamp among them."""
        names = [head for head in heads if head != prev_hash]
        if len(names) <= LINKS_PER_ENTRY_MAX:
            return names
        by_stamp = sorted(names, key=lambda head: found.hlc if (found := self._log.find(head)) else 0, reverse=True)
        return by_stamp[:LINKS_PER_ENTRY_MAX]

    def _close_run_before(self, header: Header, body: Body) -> None:
        if not self._open:
            return
        last = self._open[-1][1]
        if (
            last.header.log != header.log
            or last.header.user != header.user
            or len(self._open) >= RUN_ENTRIES_MAX
            or self._open_bytes + _run_bytes(header, body) > INLINE_BODY_BYTES_MAX
            or BodyForm.DETACHED in (last.body.form, body.form)
        ):
            self.seal()

    def seal(self) -> None:
        """Signs the last entry appended; the end of a run."""
        if not self._open:
            return
        id_, entry = self._open[-1]
        signature = entry.header.sign(self._key)
        self._log.save_signature(id_, signature)
        self._end_run(signature)

    def _end_run(self, signature: bytes) -> None:
        self.runs.append(Run(tuple(entry for _, entry in self._open), signature))
        self._open = []
        self._open_bytes = 0


def _run_bytes(header: Header, body: Body) -> int:
    """What an entry adds to its run, about: its inline blocks and its links."""
    return sum(map(len, body.blocks)) + HASH_BYTES * (len(header.deps) + len(header.control_heads) + len(body.block_hashes))
