"""What is looked for in all files of a swarm once its members have met: what each amounts to by its logs, what strangers have."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from peersd.testing.checkers import Checker, Finding
from peersd.testing.file_copies import copy_dead, other_device
from peersd.testing.simulator.checks import check_file
from peersd.testing.simulator.disk import DiskFile
from peersd.testing.simulator.verdict import Kept, Verdict
from peersd.testing.swarm.checks import Record, members_of, names_of
from peersd.testing.swarm.device import Device
from peersd.testing.swarm.tapping import Sightings


@dataclass(frozen=True)
class Judge:
    """Looks into the files of a swarm. They are copied first: the copies are rebuilt, opened anew, fed to an empty store.

    Attributes:
        devices: all that the product's code speaks for.
        hostile: the ids of the others, whose entries may be anything that a store takes.
        record: what clients were told.
        sightings: what went over the connections.
        seed: of the order in which copies are fed.
    """

    devices: Sequence[Device]
    hostile: Collection[bytes]
    record: Record
    sightings: Sightings
    seed: int

    def findings(self, *, have_met: bool) -> Iterator[Finding]:
        """Looks at the files of all groups, and at all that devices have or got which never were in one.

        Args:
            have_met: whether members are to be alike.
        """
        for group_id, name in names_of(self.devices, self.record).items():
            users: set[bytes] = set()
            yield from self._look_at_group(group_id, name, users, have_met=have_met)
            insiders = {device.name for device in self.devices if device.user_id in users} | set(self.record.groups.get(name, ()))
            marks = [group_id, *(text.encode() for text in sorted(self.record.markers.get(name, ())))]
            for device in self.devices:
                if device.name not in insiders and _holds(device, marks):
                    yield Finding(Checker.MARKERS, f"{device.name} holds something of {name}")
            yield from self.sightings.findings(name, insiders)

    def _look_at_group(self, group_id: bytes, name: str, users: set[bytes], *, have_met: bool) -> Iterator[Finding]:
        """Looks at the files of a group; all who ever were in it are added to `users`."""
        holding = [device for device in self.devices if device.is_running and group_id in device.node.groups]
        members = {device.name for device in members_of(self.devices, group_id)}
        # Beside the swarm's own files: where these cost no wait for a disk, copies do not either.
        with tempfile.TemporaryDirectory(prefix="verdict-", dir=self.devices[0].folder.parent) as base, ExitStack() as stack:
            files: dict[str, Kept] = {}
            for device in holding:
                folder = Path(base, device.name)
                folder.mkdir()
                # Nobody is in the middle of anything: calls to stores run in place.
                file = DiskFile(copy_dead(device.node.groups[group_id].path, folder), name, group_id)
                wrong = check_file(file)
                if wrong is not None:
                    yield Finding(Checker.INTEGRITY, f"{device.name}: {name}: {wrong}")
                    continue
                context = other_device()
                kept = files[device.name] = Kept(device.name, device.id, file, file.open(context), context)
                users.update(kept.store.state.users)
                stack.callback(lambda kept: kept.store.close(), kept)
            is_wrong = not have_met
            try:
                verdict = Verdict(
                    list(files.values()),
                    parts=[[files[one] for one in files if one in members]] if members & files.keys() else [],
                    outsiders=[kept for one, kept in files.items() if one not in members],
                    markers=self.record.markers,
                    acknowledged=(),  # looked for in the nodes' own stores: see `acknowledged`
                    random=Random(f"{self.seed} {name}"),
                    folder=Path(base),
                    hostile=self.hostile,
                    have_met=have_met,
                )
                for finding in verdict.findings():
                    is_wrong = True
                    yield finding
            except Exception:
                if not is_wrong:  # else no wonder that what is wrong with a file keeps it from being read further
                    raise


def _holds(device: Device, marks: Sequence[bytes]) -> bool:
    contents = (path.read_bytes() for path in sorted(device.folder.rglob("*")) if path.is_file())
    return any(mark in content for content in contents for mark in marks)
