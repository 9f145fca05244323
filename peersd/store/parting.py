"""Acts by which the device that sends them ends its own membership, and what it wrote before that has to be here first.

Whoever takes such an act in ends the session with its sender, and nobody else may have what its cuts keep (SPEC: E-26).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from peersd.store.authority import Authority
from peersd.store.log import Log
from peersd_protocol.act_bodies import decode_body
from peersd_protocol.acts import Admit, Cuts, DecodedBody, DropDevice, Leave, NoAct, decode_act
from peersd_protocol.entries import Kind
from peersd_protocol.runs import BodyForm, Entry, Run


class Partings:
    """Finds such acts.

    Args:
        log, authority: of the group.
    """

    def __init__(self, log: Log, authority: Authority) -> None:
        self._log = log
        self._authority = authority

    def among(self, runs: Sequence[Run], sender: bytes) -> list[Run]:
        """The runs in which their sender, a member's device, goes; none of them if its user comes back in the same message.

        Args:
            runs: of one message.
            sender: the device that sent them, which counts for these only; empty for none.

        Raises:
            RemoteProtocolError: an act among them does not decode.
        """
        own = [run for run in runs if run.log.kind is Kind.CONTROL and run.log.device == sender]
        if not own or not self._authority.state.is_member_device(sender):
            return []
        found = [run for run in own if any(self._cuts(entry) is not None and self._is_new(entry) for entry in run.entries)]
        users = {entry.header.user for run in found for entry in run.entries}
        if found and any(self._brings_back(entry, users) for run in runs for entry in run.entries):
            return []
        return found

    def awaited(self, run: Run) -> set[bytes]:
        """The tips that the cuts of such a run name of its author's logs and that are not here."""
        return {
            cut.hash
            for entry in run.entries
            for user, cuts in self._cuts(entry) or ()
            if user == entry.header.user
            for cut in cuts
            if self._log.find(cut.hash) is None
        }

    def _cuts(self, entry: Entry) -> Cuts | None:
        """What the act leaves of its author's logs, if by it the device that wrote it goes; else None."""
        match self._act(entry):
            case Leave(cuts):
                return cuts
            case DropDevice(user, device, cuts) if (user, device) == (entry.header.user, entry.header.device):
                return cuts
            case _:
                return None

    def _brings_back(self, entry: Entry, users: Collection[bytes]) -> bool:
        act = self._act(entry)
        return isinstance(act, Admit) and act.user in users and self._is_new(entry)

    def _is_new(self, entry: Entry) -> bool:
        return self._log.find(entry.header.hash) is None

    def _act(self, entry: Entry) -> DecodedBody:
        """An entry's act; none while its body is not here."""
        if entry.header.kind is not Kind.CONTROL or self._is_pending(entry):
            return NoAct()
        return decode_act(Kind.CONTROL, decode_body(self._log.blocks(entry.header.hash, entry.body)))

    def _is_pending(self, entry: Entry) -> bool:
        detached = entry.body.form is BodyForm.DETACHED
        return detached and len(self._log.detached_blocks(entry.header.hash)) < len(entry.body.block_hashes)
