"""What must be true of a swarm: at any moment, and once all have met again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from peersd.errors import PeersdError
from peersd.node.summary import summarise
from peersd.store.handle import QUEUED_REQUESTS_MAX
from peersd.store.store import Store
from peersd.sync.group_sync import OUTBOX_MESSAGES_MAX
from peersd.testing.checkers import Checker, Finding
from peersd.testing.simulator.checks import Acknowledged, Replicated
from peersd.testing.swarm.acknowledged import Held, Promises, held_at, lacking
from peersd.testing.swarm.device import Device
from peersd.testing.swarm.network import VirtualNetwork
from peersd.testing.swarm.tasks import leaked_tasks
from peersd.testing.swarm.wires import WINDOW_BYTES
from peersd_protocol.constants import TRANSPORT_MESSAGE_BYTES_MAX

OUTBOX_ALLOWED = 2 * OUTBOX_MESSAGES_MAX
"""Messages in a session's outbox: pushes cease at OUTBOX_MESSAGES_MAX, what answers the other side may still come on top."""


@dataclass
class Record:
    """What the clients of a swarm were told.

    Attributes:
        groups: each group's members by name, founder first; a name stands for a device and its user.
        group_ids: the groups' ids by name.
        acknowledged: every entry that was.
        markers: by group, texts that only its members may have in their files.
    """

    groups: Mapping[str, Sequence[str]]
    group_ids: dict[str, bytes] = field(default_factory=dict)
    acknowledged: Promises = field(default_factory=Promises)
    markers: dict[str, set[str]] = field(default_factory=dict)


# --- At any moment --------------------------------------------------------------------------------------------------------------


def broken_rules(devices: Sequence[Device], network: VirtualNetwork) -> Iterator[Finding]:
    """What must never be, whatever happens: two links of a pair, or a queue beyond its bound."""
    names = {device.id: device.name for device in devices}
    for device in devices:
        if not device.is_running or device.node.links is None:
            continue
        serving = [handle for handle in device.node.sharings if not handle.is_down]
        linked = Counter(names.get(handle.remote_device, "?") for handle in serving)
        for other, number in linked.items():
            if number > 1:
                yield Finding(Checker.ONE_LINK, f"{device.name} has {number} links to {other} that carry channels")
        for text in _full_queues(device):
            yield Finding(Checker.QUEUE_BOUNDS, f"{device.name}: {text}")
    for wire in network.wires():
        if wire.bytes_under_way > WINDOW_BYTES + TRANSPORT_MESSAGE_BYTES_MAX:
            yield Finding(Checker.QUEUE_BOUNDS, f"{wire.bytes_under_way} bytes are under way on one connection")


def _full_queues(device: Device) -> Iterator[str]:
    for group in device.node.groups.values():
        if group.opened is not None:
            if group.opened.store.queued > QUEUED_REQUESTS_MAX:
                yield f"{group.opened.store.queued} writes wait in {group.name}"
            if group.opened.sync.queued > OUTBOX_ALLOWED:
                yield f"{group.opened.sync.queued} messages wait in a session of {group.name}"


# --- Once all have met ----------------------------------------------------------------------------------------------------------


def names_of(devices: Sequence[Device], record: Record) -> dict[bytes, str]:
    """All groups that running devices hold, personal ones left out, by id; those of the swarm first."""
    names = {group_id: name for name, group_id in record.group_ids.items()}
    for device in devices:
        for group_id, group in device.node.groups.items() if device.is_running else ():
            if not group.summary.personal:
                names.setdefault(group_id, group.name)
    return names


def members_of(devices: Sequence[Device], group_id: bytes) -> list[Device]:
    """The running devices whose user is a member of a group, as the device itself sees it."""
    running = [device for device in devices if device.is_running and group_id in device.node.groups]
    return [device for device in running if device.node.groups[group_id].summary.role_of(device.user_id)]


async def unmet(devices: Sequence[Device], network: VirtualNetwork, record: Record) -> list[Finding]:
    """Why the swarm has not converged, one for each reason: digests and links; cheap enough to be asked again and again."""
    reasons: list[str] = []
    for group_id, name in names_of(devices, record).items():
        digests: dict[bytes, list[str]] = {}
        for device in members_of(devices, group_id):
            try:
                digests.setdefault((await device.node.groups[group_id].digest()).digest, []).append(device.name)
            except PeersdError as error:
                reasons.append(f"{device.name}: {name} cannot be opened: {error.message}")
        if len(digests) > 1:
            parts = " | ".join(",".join(names) for names in digests.values())
            reasons.append(f"{name} differs: {parts}")
    return [*(Finding(Checker.CONVERGED, text) for text in reasons), *_unmet_links(devices, network)]


def _unmet_links(devices: Sequence[Device], network: VirtualNetwork) -> Iterator[Finding]:
    """A link has two ends and one connection, and there is no connection without one."""
    linked = {(one.name, other.name) for one in devices for other in devices if one is not other and _has_link(one, other)}
    for number, one in enumerate(devices):
        for other in devices[number + 1 :]:
            ends = ((one.name, other.name) in linked) + ((other.name, one.name) in linked)
            connections = network.connected(one.name, other.name)
            if ends == 1 or connections != ends // 2:
                yield Finding(Checker.ONE_LINK, f"{one.name}-{other.name}: {connections} connections, {ends} ends of a link")


def _has_link(one: Device, other: Device) -> bool:
    return one.is_running and one.node.links is not None and one.node.links.to_device(other.id) is not None


async def differences(devices: Sequence[Device], record: Record) -> list[Finding]:
    """What is wrong with a swarm whose members all state the same: compares all that two replicas must have alike."""
    # First, since a look into a store opens it, and soon closes it again.
    found = [Finding(Checker.TASKS, text) for text in leaked_tasks(devices)]
    for group_id, name in names_of(devices, record).items():
        first: tuple[str, Replicated] | None = None
        expected = await record.acknowledged.expected(group_id, devices)
        members = members_of(devices, group_id)
        for device in members:
            group = device.node.groups[group_id]
            known = group.summary  # before the store is opened, by which the node would learn more
            async with group.use() as opened:
                replicated, held = await opened.store.call(_look, opened.store.store, expected)
                if known != summarise(opened.state, known.digest) and known.digest == group.summary.digest:
                    text = f"{device.name}: {name}: what the node knows without its store is not what the store says"
                    found.append(Finding(Checker.SUMMARIES, text))
            lost = lacking(expected, held, {one.id for one in members})
            found += [Finding(Checker.ACKNOWLEDGED, f"{device.name}: {name}: {line}") for line in lost]
            if first is None:
                first = device.name, replicated
            elif (difference := first[1].difference(replicated)) is not None:
                checker, text = difference
                found.append(Finding(checker, f"{name}: {first[0]} and {device.name} differ in {text}"))
    return found


def _look(store: Store, expected: Sequence[Acknowledged]) -> tuple[Replicated, Held]:
    """What a store has, and what it has of what it must hold."""
    return Replicated.of(store), held_at(store, expected)
