"""What must be true of every entry that a file holds, whatever it counts for: its place, its causes, its body, its signature."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from peersd.store.store import Store
from peersd_protocol.entries import Header, Kind, LogKey, body_hash
from peersd_protocol.errors import RemoteProtocolError
from peersd_protocol.runs import Entry, Run
from peersd_protocol.signing import sha256


def check_chain(store: Store, signed: set[tuple[bytes, bytes]]) -> str | None:
    """Looks at each entry by itself: it follows the one that it names, its name and its body's are hashes, a run is signed.

    Args:
        store: where to look.
        signed: signatures that were verified in other files, by what they sign; those of this file are added.
    """
    known: dict[bytes, Header] = {}
    open_: list[Entry] = []
    for _, entry, _, signature in store.log.all_entries():
        # The store takes its own rows for granted; here the name is computed anew.
        header = Header(**{name: getattr(entry.header, name) for name in Header.__dataclass_fields__})
        where = f"entry {header.seq} of {header.device[:4].hex()}"
        if header.hash != entry.header.hash:
            return f"{where} has the name of another entry"
        before = known.get(header.prev)
        if header.seq > 1 and (before is None or before.log != header.log or before.seq != header.seq - 1):
            return f"{where} does not follow the entry that it names"
        if (header.seq == 1) != (header.prev == b""):
            return f"{where} names an entry before it"
        blocks = store.log.blocks(header.hash, entry.body)
        if blocks and body_hash([sha256(block) for block in blocks]) != header.body_hash:
            return f"{where} has another body than it names"
        if open_ and open_[-1].header.log != header.log:
            return f"entry {open_[-1].header.seq} of {open_[-1].header.device[:4].hex()} is signed by nothing"
        known[header.hash] = header
        open_.append(entry)
        if signature is not None:
            try:
                if (header.hash, signature) not in signed:
                    Run(tuple(open_), signature).check_signature()
            except RemoteProtocolError as error:
                return f"{where}: {error}"
            signed.add((header.hash, signature))
            open_ = []
    return f"entry {open_[-1].header.seq} is signed by nothing" if open_ else None


def check_causes(store: Store, after: int = 0) -> str | None:
    """Looks whether everything that entries name, directly, is in the file as well.

    Args:
        store: where to look.
        after: only at entries beyond this position.
    """
    # First as rows: what follows nothing could not even be read as an entry.
    query = "SELECT seq, prev FROM _peers_entry WHERE id > ? AND prev > 0 AND prev NOT IN (SELECT id FROM _peers_entry)"
    for seq, prev in store.log.connection.execute(query, (after,)):
        if store.log.segments.at(cast(int, prev)) is None:
            return f"entry {seq} of a log is here without the one before it"
    for _, entry, _, _ in store.log.all_entries(after):
        header = entry.header
        for named in (*header.deps, *header.control_heads, *([header.prev] if header.prev else ())):
            if store.log.find(named) is None:
                kind = Kind(header.kind).name.lower()
                return f"{kind} entry {header.seq} of {header.device[:4].hex()} is here without {named[:4].hex()}, which it names"
    return None


def check_sequence(headers: Iterable[Header]) -> str | None:
    """Looks for two entries in one place of a log: no device writes a place twice, whatever it was restored from."""
    places: dict[tuple[LogKey, int], bytes] = {}
    for header in headers:
        if places.setdefault((header.log, header.seq), header.hash) != header.hash:
            return f"there are two entries {header.seq} of {header.device[:4].hex()} in one log"
    return None
