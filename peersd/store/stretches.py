"""Many small entries of one run taken in as one: what is alike in them is looked at once (SPEC: E-26 to E-30)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

from peersd.store.authority import Authority
from peersd.store.log import EntryRow, Log, State
from peersd.store.rows import Rows
from peersd_protocol import hlc
from peersd_protocol.entries import Kind
from peersd_protocol.errors import CloseCode, RemoteProtocolError
from peersd_protocol.replication import Committed
from peersd_protocol.runs import ParsedEntries, Run

STRETCH_ENTRIES_MIN: Final = 2
"""Fewer are taken one by one."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Entries that were taken in together: the last one, what is told of all of them, and how many they are."""

    last: EntryRow
    committed: Committed
    count: int


class Stretches:
    """Takes stretches in, inside the caller's transaction.

    A stretch is consecutive data entries of one run that name nothing but the one before, that all count and are all shown.
    Whatever differs is taken one by one, which is the rule, and this the same made short; shortest where all insert rows into one
    table and do nothing else.

    Args:
        log, authority, rows: of the group.
    """

    def __init__(self, log: Log, authority: Authority, rows: Rows) -> None:
        self._log = log
        self._authority = authority
        self._rows = rows

    def take(self, run: Run, start: int, prev: EntryRow) -> Stretch | None:
        """Takes in the entries of a run from an index on, as many as make a stretch.

        Args:
            run: its signature is good, and all that it rests on is here.
            start: index of an entry that is not here.
            prev: the entry before that one, of the same log.

        Returns:
            What was taken in; None, and nothing was done, where the entry there begins no stretch.

        Raises:
            RemoteProtocolError: a stamp is not valid.
        """
        entries = run.entries
        if not isinstance(entries, ParsedEntries) or entries.log.kind is not Kind.DATA or prev.state is State.VOID:
            return None
        end = _end(entries, start)
        if end - start < STRETCH_ENTRIES_MIN or self._log.log_by_id(prev.log).is_blocked(prev.branch, prev.seq):
            return None
        hashes = entries.hashes[start:end]
        past = self._authority.past_after(prev, ())
        # Where the last one counts, all before it do: they have its control past, and no limit ends before it.
        if self._authority.names_any(hashes) or not self._authority.counts(entries[end - 1].header, prev, past):
            return None
        planned = self._rows.plan(cast("list[bytes]", entries.bodies[start:end]), past)
        if len(planned) < STRETCH_ENTRIES_MIN:
            return None
        end = start + len(planned)
        hashes = hashes[: len(planned)]
        if not hlc.are_valid_successors(entries.stamps[start:end], prev.hlc):
            raise RemoteProtocolError(CloseCode.BAD_CHAIN, "stamp does not follow from prev and deps")
        last = self._log.append_stretch(entries, start, end, run.signature if end == len(entries) else None, prev)
        first_id = last.id - (end - start) + 1
        self._authority.remember_past(last.id, past, prev)
        self._rows.apply_planned(first_id, planned)
        log = self._log.log_by_id(last.log).key
        committed = Committed(last.id, log, last.seq, hashes[-1], before=tuple(hashes[:-1]))
        return Stretch(last, committed, end - start)


def _end(entries: ParsedEntries, start: int) -> int:
    """The index after the last of the entries from `start` on that have one inline block and neither links nor fields unknown."""
    if not entries.links and not entries.exts and set(map(type, entries.bodies)) == {bytes}:
        return len(entries)
    for index in range(start, len(entries)):
        if index in entries.links or index in entries.exts or not isinstance(entries.bodies[index], bytes):
            return index
    return len(entries)
