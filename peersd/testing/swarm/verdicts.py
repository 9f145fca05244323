"""What is looked for in all files of a swarm once its members have met: what each amounts to by its logs, what strangers have."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random

from peersd.testing.file_copies import copy_dead, other_device
from peersd.testing.simulator.checkers import Checker, Finding
from peersd.testing.simulator.checks import check_file
from peersd.testing.simulator.disk import DiskFile
from peersd.testing.simulator.verdict import Kept, Verdict
from peersd.testing.swarm.checks import Record, members_of, names_of
from peersd.testing.swarm.device import Device
from peersd.testing.swarm.tapping import Sightings


def judge(devices: Sequence[Device], record: Record, sightings: Sightings, seed: int, *, have_met: bool) -> Iterator[Finding]:
    """Looks at the files of all groups, and at all that devices have or got which never were in one.

    Files are copied first, and the copies looked at: rebuilt, opened anew, fed to an empty store in another order.

    Args:
        devices: all devices.
        record: what clients were told.
        sightings: what went over the connections.
        seed: of the order.
        have_met: whether members are to be alike.
    """
    for group_id, name in names_of(devices, record).items():
        users: set[bytes] = set()
        yield from _judge_group(devices, record, group_id, name, Random(f"{seed} {name}"), users, have_met)
        insiders = {device.name for device in devices if device.user_id in users} | set(record.groups.get(name, ()))
        strangers = [device for device in devices if device.name not in insiders]
        marks = [group_id, *(text.encode() for text in sorted(record.markers.get(name, ())))]
        for device in strangers:
            contents = [path.read_bytes() for path in sorted(device.folder.rglob("*")) if path.is_file()]
            if any(mark in content for mark in marks for content in contents):
                yield Finding(Checker.MARKERS, f"{device.name} holds something of {name}")
        yield from sightings.findings(name, insiders)


def _judge_group(
    devices: Sequence[Device], record: Record, group_id: bytes, name: str, random: Random, users: set[bytes], have_met: bool
) -> Iterator[Finding]:
    """Looks at the files of a group; all who ever were in it are added to `users`."""
    holding = [device for device in devices if device.is_running and group_id in device.node.groups]
    members = {device.name for device in members_of(devices, group_id)}
    # Beside the swarm's own files: where these cost no wait for a disk, copies do not either.
    with tempfile.TemporaryDirectory(prefix="verdict-", dir=devices[0].folder.parent) as base, ExitStack() as stack:
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
        verdict = Verdict(
            list(files.values()),
            parts=[[files[one] for one in files if one in members]] if members & files.keys() else [],
            outsiders=[kept for one, kept in files.items() if one not in members],
            markers=record.markers,
            acknowledged=(),  # looked for in the nodes' own stores: see `acknowledged`
            random=random,
            folder=Path(base),
            have_met=have_met,
        )
        is_wrong = not have_met
        try:
            for finding in verdict.findings():
                is_wrong = True
                yield finding
        except Exception:
            if not is_wrong:  # else no wonder that what is wrong with a file keeps it from being read further
                raise
