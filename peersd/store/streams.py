"""Serving catch-up: what a remote vector shows to be missing, where a WANT begins, the next messages of a stream (SPEC: R-7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import apsw

from peersd.store.log import Log, State
from peersd_protocol.constants import STREAM_MESSAGE_BYTES
from peersd_protocol.entries import Kind, LogKey
from peersd_protocol.messages import Block, Want, WantItem, encode_block, encode_runs
from peersd_protocol.replication import Chunk, Comparison, Cursor, Read
from peersd_protocol.runs import Body, BodyForm, Entry, Run
from peersd_protocol.vectors import Vector

_ENTRY_OVERHEAD_BYTES = 96
"""What an entry takes in a run beside its body, about: stamp, links, framing (for choosing where a message ends, not a bound)."""

ROWS_PER_READ = 4096
"""Rows fetched for one message at most; a message of single-row entries holds some 2,000."""


def compare(log: Log, connection: apsw.Connection, vector: Vector) -> Comparison:
    """What the remote side holds and this replica has not seen, identity logs first, then control, then data."""
    wants = [
        WantItem(key, tip, log.samples(key))
        for key, tips in sorted(vector.items(), key=lambda item: item[0].kind)
        for tip in tips
        if log.tip_row(key, tip[1]) is None
    ]
    query = "SELECT entry, (SELECT count(*) FROM _peers_block b WHERE b.entry = s.entry) FROM _peers_staged s"
    staged = tuple(cast("list[tuple[bytes, int]]", connection.execute(query).fetchall()))
    return Comparison(tuple(wants), staged)


def locate(log: Log, want: Want) -> tuple[dict[LogKey, tuple[int, int]], Cursor] | None:
    """The ranges that a WANT asks for and the position before the first of them, or None if nothing of it is here."""
    ranges: dict[LogKey, tuple[int, int]] = {}
    start: int | None = None
    for item in want.items:
        found = log.first_wanted(item.log, item.tip, item.have)
        if found is None:
            continue
        first, last, position = found
        before = ranges.get(item.log)
        ranges[item.log] = (min(first, before[0]), max(last, before[1])) if before else (first, last)
        start = position if start is None else min(start, position)
    return None if start is None else (ranges, Cursor(start, start))


def look_up(log: Log, hashes: tuple[bytes, ...]) -> Vector:
    """The tips of the logs in which these entries stand."""
    rows = [row for row in map(log.find, hashes) if row is not None]
    keys = {log.log_by_id(row.log).key for row in rows}
    vector = log.vector()
    return {key: vector[key] for key in keys if key in vector}


class _Message:
    """Runs gathered for the next message of a stream."""

    def __init__(self, read: Read) -> None:
        self._wanted = read.ranges
        self.runs: list[Run] = []
        self.open: list[Entry] = []
        self.bytes_estimated = 0
        self.brings: dict[LogKey, int] = {}

    def takes(self, entry: Entry) -> bool:
        """Whether the entry belongs to the stream: it is asked for, or the run it stands in is not signed yet."""
        if self.open:
            return True
        wanted = self._wanted.get(entry.header.log)
        return wanted is not None and wanted[0] <= entry.header.seq <= wanted[1]

    def add(self, entry: Entry, signature: bytes | None) -> None:
        """Adds an entry; a signature ends its run."""
        self.open.append(entry)
        self.bytes_estimated += _ENTRY_OVERHEAD_BYTES + sum(map(len, entry.body.blocks)) + 32 * len(entry.body.block_hashes)
        if signature is not None:
            self.runs.append(Run(tuple(self.open), signature))
            self.open = []
            self.brings[entry.header.log] = entry.header.seq


def read_stream(log: Log, read: Read) -> Chunk:
    """The next messages of a stream: whole runs up to about `read.bytes_max` bytes.

    Acts come before data, each in the order in which this replica took them in, which is causal.
    """
    if read.cursor.body:
        return _read_blocks(log, read)
    act_logs = [key for key in read.ranges if key.kind is not Kind.DATA]
    if act_logs:
        ids = [row.id for row in map(log.log, act_logs) if row is not None]
        # The plus keeps SQLite from walking all positions: there are far more data entries than acts.
        where = f"log IN ({','.join(map(str, ids))}) AND +id > ? ORDER BY id LIMIT ?"
        chunk = _read_runs(log, read, where, read.cursor.acts, lambda position: replace(read.cursor, acts=position))
        if chunk.exhausted:  # what else was asked of these logs is not here
            return replace(chunk, brings={**chunk.brings, **{key: read.ranges[key][1] for key in act_logs}}, exhausted=False)
        return chunk
    where = "id > ? ORDER BY id LIMIT ?"
    return _read_runs(log, read, where, read.cursor.data, lambda position: replace(read.cursor, data=position))


def _read_runs(log: Log, read: Read, where: str, position: int, cursor_at: Callable[[int], Cursor]) -> Chunk:
    """The next runs among the entries that `where` (with a position and a limit to bind) gives."""
    message = _Message(read)
    rows = 0
    exhausted = True
    for id_, entry, state, signature in log.entries(where, (position, ROWS_PER_READ)):
        rows += 1
        if not message.takes(entry):
            position = id_
            continue
        is_detached = entry.body.form is BodyForm.DETACHED
        if (
            message.runs
            and not message.open
            and (is_detached or message.bytes_estimated >= min(read.bytes_max, STREAM_MESSAGE_BYTES))
        ):
            exhausted = False
            break
        if state is State.VOID and entry.header.kind is Kind.DATA and entry.body.form is not BodyForm.WITHHELD:
            entry = Entry(entry.header, Body.withheld(entry.header.body_hash))
            is_detached = False
        message.add(entry, signature)
        if is_detached:
            block = min(read.staged.get(entry.header.hash, 0), len(entry.body.block_hashes))
            cursor = replace(cursor_at(position), body=entry.header.hash, block=block)
            return Chunk((encode_runs(message.runs),), {}, cursor, exhausted=False)
        if not message.open:
            position = id_
    else:
        exhausted = rows < ROWS_PER_READ
    messages = (encode_runs(message.runs),) if message.runs else ()
    return Chunk(messages, _brings(log, read, message.brings, position), cursor_at(position), exhausted)


def _brings(log: Log, read: Read, sent: dict[LogKey, int], position: int) -> dict[LogKey, int]:
    """The greatest sequences that the receiver has now. Of a forked log nothing is said while another branch is still to come."""
    brings: dict[LogKey, int] = {}
    for key, seq in sent.items():
        row = log.log(key)
        first, last = read.ranges.get(key, (seq, seq))
        if row is None or not row.forked:
            brings[key] = seq
        elif not log.has_beyond(row, first, last, position):
            brings[key] = max(seq, last)
    return brings


def _read_blocks(log: Log, read: Read) -> Chunk:
    """The next blocks of the detached body that the cursor stands in."""
    position, entry, _, _ = next(iter(log.entries("hash = ?", (read.cursor.body,))))
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
    is_data = entry.header.kind is Kind.DATA
    cursor = Cursor(read.cursor.acts, position) if is_data else Cursor(position, read.cursor.data)
    brings = _brings(log, read, {entry.header.log: entry.header.seq}, position)
    return Chunk(tuple(messages), brings, cursor, exhausted=False)
