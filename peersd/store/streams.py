"""Serving catch-up: what a remote vector shows to be missing, where a WANT begins, the next messages of a stream (SPEC: R-7)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from itertools import islice
from typing import cast

from peersd.store.log import Log, LogRow, State
from peersd.store.pieces import Piece, StoredRun, encode_run, join_runs, pieces_after, pieces_of_acts, runs_around
from peersd_protocol import canonical
from peersd_protocol.constants import STREAM_MESSAGE_BYTES, WANT_SAMPLES_MAX
from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.messages import Block, Want, WantItem, encode_block, encode_packed_runs, encode_runs
from peersd_protocol.replication import Chunk, Comparison, Cursor, Read
from peersd_protocol.runs import BodyForm, Entry, ParsedEntries, Run
from peersd_protocol.signing import HASH_BYTES
from peersd_protocol.vectors import Tip, Vector

_ENTRY_OVERHEAD_BYTES = 96
"""What an entry takes in a run beside its body and links, about: stamp, framing (to choose where a message ends; no bound)."""

PIECES_PER_READ = 4096
"""Pieces looked at for one message at most; a message of single-row entries holds some 2,000."""


def compare(log: Log, vector: Vector) -> Comparison:
    """What the remote side holds and this replica has not seen, or has without a body that it needs, by kind of log."""
    wants = [
        WantItem(key, tip, samples(log, key))
        for key, tips in sorted(vector.items(), key=lambda item: item[0].kind)
        for tip in tips
        if _is_wanted(log, key, tip)
    ]
    query = "SELECT entry, (SELECT count(*) FROM _peers_block b WHERE b.entry = s.entry) FROM _peers_staged s"
    staged = tuple(cast("list[tuple[bytes, int]]", log.connection.execute(query).fetchall()))
    return Comparison(tuple(wants), staged)


def _is_wanted(log: Log, key: LogKey, tip: Tip) -> bool:
    found = log.tip_row(key, tip[1])
    return found is None or log.log_by_id(found.log).is_blocked(found.branch, found.seq)


def samples(log: Log, key: LogKey) -> tuple[Tip, ...]:
    """(sequence, hash) of entries held, from each tip back at doubling distances; at most WANT_SAMPLES_MAX, descending."""
    row = log.log(key)
    found: set[Tip] = set()
    if row is None:
        return ()
    for tip in row.tips:
        path = row.path(tip.branch, tip.seq)
        seq, step = tip.seq, 1
        while seq >= 1:
            place = log.place(row, row.branch_at(path, seq), seq)
            if place is not None:
                found.add((seq, place[1]))
            seq -= step
            step *= 2
    return tuple(sorted(found, reverse=True)[:WANT_SAMPLES_MAX])


def locate(log: Log, want: Want) -> tuple[dict[LogKey, tuple[int, int]], Cursor] | None:
    """The ranges that a WANT asks for and the position before the first of them, or None if nothing of it is here."""
    ranges: dict[LogKey, tuple[int, int]] = {}
    start: int | None = None
    for item in want.items:
        found = _first_wanted(log, item)
        if found is None:
            continue
        first, last, position = found
        before = ranges.get(item.log)
        ranges[item.log] = (min(first, before[0]), max(last, before[1])) if before else (first, last)
        start = position if start is None else min(start, position)
    return None if start is None else (ranges, Cursor(start, start))


def _first_wanted(log: Log, item: WantItem) -> tuple[int, int, int] | None:
    """Where serving a branch begins: (first sequence, last sequence, the position before the first entry), or None.

    It begins after the greatest sample that this replica holds too and that lies on the branch.
    """
    row = log.log(item.log)
    target = log.find(item.tip[1])
    if row is None or target is None or target.log != row.id or not log.is_told(target):
        return None
    path = row.path(target.branch, target.seq)
    first = 1
    for seq, hash_ in sorted(item.have, reverse=True):
        known = log.find(hash_)
        if known is not None and known.log == row.id and known.seq == seq <= path.get(known.branch, 0):
            first = seq + 1
            break
    if first > target.seq:
        return None
    place = log.place(row, row.branch_at(path, first), first)
    assert place is not None, "an entry that others follow is here"
    return first, target.seq, place[0] - 1


def look_up(log: Log, hashes: tuple[bytes, ...]) -> tuple[Vector, tuple[bytes, ...]]:
    """The tips of the logs in which these entries stand, and those of them that are not void and that nobody is told of."""
    rows = [(hash_, row) for hash_, row in zip(hashes, map(log.find, hashes), strict=True) if row is not None]
    keys = {log.log_by_id(row.log).key for _, row in rows}
    vector = log.vector()
    untold = tuple(hash_ for hash_, row in rows if row.state is not State.VOID and not log.is_told(row))
    return {key: vector[key] for key in keys if key in vector}, untold


class _Message:
    """Runs gathered for the next message of a stream."""

    def __init__(self, read: Read) -> None:
        self._wanted = read.ranges
        self.runs: list[StoredRun] = []
        self.open: list[Piece] = []
        self.bytes_estimated = 0
        self.brings: dict[LogKey, int] = {}
        self._before: tuple[LogKey, int | None]

    def takes(self, piece: Piece) -> bool:
        """Whether entries belong to the stream: they are asked for and may be told of, or their run is not signed yet."""
        if self.open:
            return True
        wanted = self._wanted.get(piece.row.key)
        if wanted is None or piece.seq < wanted[0] or piece.first_seq > wanted[1] or piece.state is State.VOID:
            return False
        return not piece.row.is_blocked(piece.branch, piece.seq)

    def add(self, piece: Piece) -> None:
        """Adds entries; a signature ends their run."""
        self.open.append(piece)
        self.bytes_estimated += piece.size
        if piece.signature is not None:
            key = piece.row.key
            self._before = key, self.brings.get(key)
            self.runs.append(StoredRun(tuple(self.open)))
            self.open = []
            self.brings[key] = piece.seq

    def holds_too_much(self) -> bool:
        """Whether the last run belongs in another message than the one before it."""
        return len(self.runs) > 1 and any(run.has_ext for run in self.runs[-2:])

    def drop_last(self) -> None:
        """Leaves the last run to the next message."""
        del self.runs[-1]
        log, seq = self._before
        del self.brings[log]
        if seq is not None:
            self.brings[log] = seq

    def encode(self, log: Log) -> bytes:
        """The message."""
        return encode_packed_runs([encode_run(log, run) for run in join_runs(self.runs)])


def read_stream(log: Log, read: Read, *, acts_first: bool = True) -> Chunk:
    """The next messages of a stream: whole runs up to about `read.bytes_max` bytes.

    Acts come before data, each in the order in which this replica took them in, which is causal.

    Args:
        log: the group's logs.
        read: what is wanted, and where the stream stands.
        acts_first: False for one order of both: who has left sends its leave last, since whoever takes that in takes no more.
    """
    if read.untold:
        return _read_untold(log, read)
    if read.cursor.body:
        return _read_blocks(log, read, acts_first=acts_first)
    act_logs = [key for key in read.ranges if key.kind is not Kind.DATA] if acts_first else []
    if act_logs:
        ids = [row.id for row in map(log.log, act_logs) if row is not None]
        pieces = pieces_of_acts(log, ids, read.cursor.acts)
        chunk = _read_runs(log, read, pieces, read.cursor.acts, lambda position: replace(read.cursor, acts=position))
        if chunk.exhausted:  # what else was asked of these logs is not here
            return replace(chunk, brings={**chunk.brings, **{key: read.ranges[key][1] for key in act_logs}}, exhausted=False)
        return chunk
    pieces = pieces_after(log, read.cursor.data)
    return _read_runs(log, read, pieces, read.cursor.data, lambda position: replace(read.cursor, data=position))


def _read_runs(log: Log, read: Read, pieces: Iterable[Piece], position: int, cursor_at: Callable[[int], Cursor]) -> Chunk:
    """The next runs among what is stored after a position."""
    message = _Message(read)
    seen = 0
    exhausted = True
    for piece in islice(pieces, PIECES_PER_READ):
        seen += 1
        if not message.takes(piece):
            position = piece.id
            continue
        if (
            message.runs
            and not message.open
            and (piece.is_detached or message.bytes_estimated >= min(read.bytes_max, STREAM_MESSAGE_BYTES))
        ):
            exhausted = False
            break
        message.add(piece)
        if not message.open and message.holds_too_much():
            message.drop_last()
            exhausted = False
            break
        if piece.is_detached:
            count = len(log.detached_blocks(piece.hash))
            cursor = replace(cursor_at(position), body=piece.hash, block=min(read.staged.get(piece.hash, 0), count))
            return Chunk((message.encode(log),), {}, cursor, exhausted=False)
        if not message.open:
            position = piece.id
    else:
        exhausted = seen < PIECES_PER_READ
    messages = (message.encode(log),) if message.runs else ()
    return Chunk(messages, _brings(log, read, message.brings, position), cursor_at(position), exhausted)


def _read_untold(log: Log, read: Read) -> Chunk:
    """One message of entries that nobody is told of, for want of a body, and on which others rest; what does not fit is left out.

    Of each its run, and as many before it of which nobody is told either: what is still before them is asked for next.
    """
    runs: list[StoredRun] = []
    size = 0
    for found in map(log.find, read.untold):
        if found is None or found.state is State.VOID or log.is_told(found) or any(run.has_row(found.id) for run in runs):
            continue
        found_runs = runs_around(log, found)
        added = sum(run.size for run in found_runs)
        if runs and (size + added > read.bytes_max or any(run.has_ext for run in (*runs, *found_runs))):
            continue
        runs += found_runs
        size += added
    messages = (encode_packed_runs([encode_run(log, run) for run in join_runs(runs)]),) if runs else ()
    return Chunk(messages, {}, read.cursor, exhausted=False)


def _brings(log: Log, read: Read, sent: dict[LogKey, int], position: int) -> dict[LogKey, int]:
    """The greatest sequences that the receiver has now. Of a forked log nothing is said while another branch is still to come."""
    brings: dict[LogKey, int] = {}
    for key, seq in sent.items():
        row = log.log(key)
        first, last = read.ranges.get(key, (seq, seq))
        if row is None or not row.forked:
            brings[key] = seq
        elif not _has_more(log, row, first, last, position):
            brings[key] = max(seq, last)
    return brings


def _has_more(log: Log, row: LogRow, first: int, last: int, position: int) -> bool:
    """Whether a log has held entries of these sequences (both included) after a position."""
    query = """SELECT EXISTS (SELECT 1 FROM _peers_entry
            WHERE log = ?1 AND branch = ?2 AND seq BETWEEN ?3 AND ?4 AND id > ?5 AND state IN (1, 2, 3))
        OR EXISTS (SELECT 1 FROM _peers_segment
            WHERE log = ?1 AND branch = ?2 AND seq >= ?3 AND seq - count < ?4 AND id > ?5)"""
    return any(
        log.connection.execute(query, (row.id, number, first, last, position)).get
        for number, branch in enumerate(row.branches)
        if branch.first <= last and branch.last >= first
    )


def _read_blocks(log: Log, read: Read, *, acts_first: bool) -> Chunk:
    """The next blocks of the detached body that the cursor stands in."""
    position, entry, _, _ = next(iter(log.entries("hash = ?", (read.cursor.body,))))  # which is in no segment
    blocks = log.detached_blocks(entry.header.hash)
    index = read.cursor.block
    messages: list[bytes] = []
    size = 0
    while index < len(blocks) and size < read.bytes_max:
        messages.append(encode_block(Block(entry.header.hash, index, blocks[index])))
        size += len(blocks[index])
        index += 1
    if index < len(blocks):
        return Chunk(tuple(messages), {}, replace(read.cursor, block=index), exhausted=False)
    goes_with_data = entry.header.kind is Kind.DATA or not acts_first
    cursor = Cursor(read.cursor.acts, position) if goes_with_data else Cursor(position, read.cursor.data)
    brings = _brings(log, read, {entry.header.log: entry.header.seq}, position)
    return Chunk(tuple(messages), brings, cursor, exhausted=False)


def read_farewell(log: Log, wanted: Collection[bytes]) -> list[bytes]:
    """The messages of a farewell (SPEC: O-6): runs of acts, whole, in the order in which this replica took them in.

    Args:
        log: the group's logs.
        wanted: hashes of acts. A run that has one is sent up to its signature, and with it all that its acts rest on.
    """
    runs = _runs_of_acts(log)
    run_of = {entry.header.hash: index for index, run in enumerate(runs) for entry in run.entries}
    chosen: set[int] = set()
    left = [hash_ for hash_ in wanted if hash_ in run_of]
    while left:
        index = run_of[left.pop()]
        if index not in chosen:
            chosen.add(index)
            left += [
                hash_ for entry in runs[index].entries for hash_ in (entry.header.prev, *entry.header.control_heads) if hash_
            ]
    messages: list[bytes] = []
    gathered: list[Run] = []
    size = 0
    for index in sorted(chosen):
        run = runs[index]
        detached = [entry for entry in run.entries if entry.body.form is BodyForm.DETACHED]
        run_bytes = run_bytes_estimated(run)
        is_alone = bool(detached) or _has_ext(run)
        if gathered and (is_alone or _has_ext(gathered[-1]) or size + run_bytes > STREAM_MESSAGE_BYTES):
            messages.append(encode_runs(gathered))
            gathered, size = [], 0
        gathered.append(run)
        size += run_bytes
        if detached:
            messages.append(encode_runs(gathered))
            gathered, size = [], 0
            hash_ = detached[0].header.hash
            messages += [encode_block(Block(hash_, at, block)) for at, block in enumerate(log.detached_blocks(hash_))]
    return [*messages, encode_runs(gathered)] if gathered else messages


def _runs_of_acts(log: Log) -> list[Run]:
    """All acts in the order of their positions, in runs up to the signatures that are here."""
    runs: list[Run] = []
    entries: list[Entry] = []
    for _, entry, _, signature in log.entries("log IN (SELECT id FROM _peers_log WHERE kind <> 3) ORDER BY id"):
        entries.append(entry)
        if signature is not None:
            runs.append(Run(tuple(entries), signature))
            entries = []
    return runs


def _has_ext(run: Run) -> bool:
    """Whether a run goes alone: its fields of later versions may be made of as many arrays as a message may hold."""
    return any(entry.header.ext for entry in run.entries)


def run_bytes_estimated(run: Run) -> int:
    """What a run takes in a message, about."""
    entries = run.entries
    if isinstance(entries, ParsedEntries) and not entries.links and not entries.exts:
        blocks = [body for body in entries.bodies if isinstance(body, bytes)]
        if len(blocks) == len(entries):
            return _ENTRY_OVERHEAD_BYTES * len(blocks) + sum(map(len, blocks))
    return sum(map(bytes_estimated, entries))


def bytes_estimated(entry: Entry) -> int:
    """What an entry takes in a message, about."""
    header, body = entry.header, entry.body
    hashes = len(header.deps) + len(header.control_heads) + len(body.block_hashes)
    ext = len(canonical.encode(header.ext)) if header.ext else 0
    return _ENTRY_OVERHEAD_BYTES + sum(map(len, body.blocks)) + HASH_BYTES * hashes + ext
