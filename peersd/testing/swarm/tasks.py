"""Which tasks the nodes of a swarm may have: an account of what each node's state warrants, by name. All others were left behind.

What requests of clients have going belongs to the API, and is not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import trio

from peersd.testing.swarm.device import Device
from peersd.testing.swarm.listening import SPEAKER

LAYERS: Final = ("peersd.api.", "peersd.node.", "peersd.net.", "peersd.sync.", "peersd.store.")
"""Whose tasks may run beneath a node only."""

_OF_NODE: Final = (
    "Node._listen",
    "Node._run_saving",
    "Node._watch_clocks",
    "Meshing.run",
    "Links.run",
    "Dialer.run_timers",
    "Dialer.run_network_watch",
)
_OF_LINK: Final = (
    "_LinkRunner._read",
    "_LinkRunner._write",
    "_LinkRunner._keep_timers",
    "_LinkRunner._serve",
    "Sharing._watch",
)
_OF_OPEN_GROUP: Final = ("KeptStore._run", "Copies.run_publishing", "GroupSync.run_timers", "StoreHandle.run_committer")


def leaked_tasks(devices: Sequence[Device]) -> Iterator[str]:
    """Says which tasks there are too many of, or too few, and which nobody knows.

    Something may be about to begin or to end: only what stays so was left behind.

    Args:
        devices: those that run the product's code.
    """
    for device in devices:
        if device.is_running and device.node.links is not None:
            # The network in memory has tasks of its own there.
            tasks = (task for task in _beneath(device.node.nursery()) if not task.name.startswith("peersd.testing."))
            counted = Counter(map(_name, tasks))
            account = _account(device, len(devices))
            for name in sorted({*counted, *account}):
                least, most = account.get(name, (0, 0))
                if not least <= counted[name] <= most:
                    wanted = f"{least}" if least == most else f"{least} to {most}"
                    yield f"{device.name}: {counted[name]} tasks {name} run, {wanted} were expected"
    names = {device.name for device in devices}
    for task in _outside_of_nodes():
        if task.name.startswith(LAYERS) and (_is_system(task) or task.context.get(SPEAKER, "") in names):
            yield f"a task {_name(task)} runs beneath no node"


def _account(device: Device, devices: int) -> dict[str, tuple[int, int]]:
    """How many tasks of each name there may be, at least and at most, in a swarm of so many devices."""
    node = device.node
    assert node.links is not None
    handles = node.links.handles()
    dialled = sum(handle.direction == "out" for handle in handles)
    channels = sum(len(sharing.channels()) for sharing in node.sharings.values())
    opened = sum(group.opened is not None for group in node.groups.values())
    exact = {_OF_NODE: 1, _OF_LINK: len(handles), _OF_OPEN_GROUP: opened}
    account = {name: (number, number) for names, number in exact.items() for name in names}
    account |= {
        "Sharing._run_lane": (channels, channels),
        # A channel has a session, or sleeps while its group is closed, or is there for a farewell alone.
        "GroupSync._run_jobs": (0, channels),
        "GroupSync._run_sender": (0, channels),
        "Lane.run_beacons": (0, channels),
        "<locals>.wake": (0, channels),
        "Copies._run_timer": (0, len(node.groups)),
        "Links._tell_answered": (0, len(handles)),
        "Links._dial": (dialled, dialled + devices),  # whoever has no link may be dialled, one dial at a time
    }
    return account


def _name(task: trio.lowlevel.Task) -> str:
    """The class and the method."""
    return ".".join(task.name.split(".")[-2:])


def _beneath(
    nursery: trio.Nursery, enters: Callable[[trio.lowlevel.Task], bool] = lambda _: True
) -> Iterator[trio.lowlevel.Task]:
    """All tasks of a nursery and of those that these have opened."""
    waiting = list(nursery.child_tasks)
    while waiting:
        task = waiting.pop()
        if enters(task):
            yield task
            waiting += [child for inner in task.child_nurseries for child in inner.child_tasks]


def _outside_of_nodes() -> Iterator[trio.lowlevel.Task]:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    for nursery in root.child_nurseries:
        yield from _beneath(nursery, lambda task: not task.name.endswith(".Device.run"))


def _is_system(task: trio.lowlevel.Task) -> bool:
    """Whether it belongs to nobody, and ends with the loop only."""
    return task.parent_nursery is not None and task.parent_nursery.parent_task is trio.lowlevel.current_root_task()
