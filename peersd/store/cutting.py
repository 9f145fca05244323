"""What an act that takes a right names of the logs here, and what such acts have made void of this device's own (SPEC: A-8)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from peersd.store.log import Log
from peersd_protocol.acts import Cut, Cuts
from peersd_protocol.constants import CUT_LOGS_MAX
from peersd_protocol.entries import Kind, LogKey

GROUP_KINDS = frozenset([Kind.CONTROL, Kind.DATA])
"""The logs of a group: identity logs belong to their users, and nothing cuts them."""


@dataclass(frozen=True, slots=True)
class VoidedEntry:
    """An entry of this device that does not count any more.

    Attributes:
        log, seq, hash: which.
        hlc: its stamp.
    """

    log: LogKey
    seq: int
    hash: bytes
    hlc: int


def find_cuts(log: Log, user: bytes, kinds: Collection[Kind] | None = None, device: bytes | None = None) -> Cuts:
    """The tips of all logs here in which a user has entries, in the order that cuts have.

    What counts and lacks its body here is named too: its author made it known before.

    Args:
        log: the group's logs.
        user: whose entries.
        kinds: which logs, None for all that there are cuts of: control and data.
        device: of which device; None for all.

    Returns:
        The cuts; none at all where nothing is held of such a log. Of more tips than an act can name the shortest logs are left
        out, and so cut at their beginning: nobody escapes a removal by opening logs.
    """
    author = log.author_of(user)
    wanted = GROUP_KINDS if kinds is None else GROUP_KINDS.intersection(kinds)
    rows = [row for row in log.logs() if author in row.authors and row.key.kind in wanted]
    tips = [
        Cut(row.key.kind, row.key.device, row.key.epoch, tip.seq, tip.hash)
        for row in rows
        if device in (None, row.key.device)
        for tip in log.ends(row)
    ]
    longest = sorted(tips, key=lambda cut: (-cut.seq, cut))[:CUT_LOGS_MAX]
    return ((user, tuple(sorted(longest))),) if longest else ()


def find_voided(log: Log, user: bytes, device: bytes) -> list[VoidedEntry]:
    """A user's data entries by this device that do not count, but for empty ones, oldest first."""
    author = log.author_of(user)
    query = """SELECT seq, hash, hlc FROM _peers_entry
        WHERE log = ? AND state IN (0, 3, 4) AND state IN (0, 3) AND author = ? AND body <> x'9100'"""
    voided = [
        VoidedEntry(row.key, seq, hash_, hlc)
        for row in log.logs()
        if row.key.kind is Kind.DATA and row.key.device == device and author in row.authors
        for seq, hash_, hlc in log.connection.execute(query, (row.id, author))
    ]
    return sorted(voided, key=lambda entry: entry.hlc)
