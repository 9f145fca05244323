"""One group as the node holds it: its store, its replication, and what is remembered of the devices it syncs with."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from peersd.store.handle import StoreHandle, open_store
from peersd.store.store import Store
from peersd.sync.group_sync import GroupSync
from peersd_protocol import ids
from peersd_protocol.group_state import GroupState


@dataclass
class DeviceView:
    """What is known of a device's copy of a group.

    Attributes:
        last_equal_ms: when it was last known to hold exactly what this device held, milliseconds since 1970.
        last_seen_ms: when a session with it last ran.
    """

    last_equal_ms: int | None = None
    last_seen_ms: int | None = None


@dataclass
class Group:
    """A group that is open.

    Attributes:
        store: its store.
        sync: its replication.
        path: the SQLite file.
        devices: by device id, what is known of its copy.
        admitting: held while an admission is decided, so that two at once cannot both take the last use of an invite.
    """

    store: StoreHandle
    sync: GroupSync
    path: Path
    devices: dict[bytes, DeviceView] = field(default_factory=dict)
    admitting: trio.Lock = field(default_factory=trio.Lock)

    @property
    def id(self) -> bytes:
        """The group's id."""
        return self.store.store.group

    @property
    def state(self) -> GroupState:
        """The group's acts, evaluated."""
        return self.store.store.state

    @property
    def text_id(self) -> str:
        """The id as text."""
        return ids.format_id(ids.GROUP, self.id)

    def view(self, device: bytes) -> DeviceView:
        """What is known of a device's copy."""
        return self.devices.setdefault(device, DeviceView())

    def note_views(self) -> None:
        """Takes over what the devices with a session have said."""
        for device, session in self.sync.devices().items():
            view = self.view(device)
            view.last_seen_ms = time.time_ns() // 1_000_000
            if self.sync.is_equal(session):
                view.last_equal_ms = view.last_seen_ms


@asynccontextmanager
async def open_group(open_: Callable[[], Store], path: Path, on_acts: Callable[[], None]) -> AsyncGenerator[Group, None]:
    """Opens a group's store and runs its replication until the context is left.

    Args:
        open_: opens or makes the store; runs in a thread.
        path: the SQLite file.
        on_acts: called when the group's state may have changed.
    """
    async with open_store(open_, path) as store:
        store.on_acts = on_acts
        vector = await store.call(store.store.vector)
        group: Group | None = None

        def on_equal(device: bytes) -> None:
            assert group is not None
            group.view(device).last_equal_ms = time.time_ns() // 1_000_000

        group = Group(store, GroupSync(store, vector, store.store.group[:4].hex(), on_equal=on_equal), path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(group.sync.run_timers)
            yield group
            group.sync.end_sessions()
            nursery.cancel_scope.cancel()
