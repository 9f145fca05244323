"""What who redeems a ticket shows of itself, before anything of it is kept."""

from __future__ import annotations

from pathlib import Path

from peersd.node.admission import _owns
from peersd_protocol import canonical
from peersd_protocol.entries import Kind
from peersd_protocol.messages import encode_runs
from tests.store.pools import by_hand
from tests.store.stores import Meeting


def test_an_identity_of_a_few_bytes_that_unpack_to_many_is_not_held(tmp_path: Path) -> None:
    newcomer = Meeting(tmp_path).join("newcomer")
    runs, device = list(newcomer.person.identity_runs), newcomer.person.keys.device
    assert _owns(runs, newcomer.user, device)
    raw = canonical.encode([200, *[0] * 250_000])
    for count, is_held in ((2, True), (6, False)):
        more = by_hand(newcomer, Kind.IDENTITY, *[raw] * count, after=runs[-1].last)
        assert len(encode_runs([*runs, more])) < 2048
        assert _owns([*runs, more], newcomer.user, device) is is_held
