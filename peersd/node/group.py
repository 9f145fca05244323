"""One group as the node holds it: what is known of it without its store, its store while something needs it, and its lanes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol, TypeVar

import trio

from peersd.crash_points import CrashPoint, reach
from peersd.errors import PeersdError
from peersd.node.copies import Copies, CopiesHost, KeptCopies
from peersd.node.kept_store import KeptStore, Opened, StoreHost, Use
from peersd.node.lane import Lane, Stated
from peersd.node.summary import Summary, digest_of, summarise
from peersd.store.handle import StoreHandle, open_store
from peersd.store.store import Commit, Store
from peersd.sync.group_sync import Channel, GroupSync
from peersd_protocol import ids
from peersd_protocol.entries import Kind
from peersd_protocol.errors import CloseCode
from peersd_protocol.replication import ParkingLot, SessionId
from peersd_protocol.vectors import Vector

T = TypeVar("T")


class Host(CopiesHost, StoreHost, Protocol):
    """What a group needs of its node."""

    def summary_changed(self, group: Group, before: Summary) -> None:
        """Members, names or roles have changed."""
        ...

    def may_be_told(self, group: Group, device: bytes) -> bool:
        """Whether a remote device may be told what this one holds of a group."""
        ...

    def rows_changed(self, group: Group) -> None:
        """Entries with rows were committed."""
        ...


class Group:
    """A group of this device.

    Args:
        host: the node.
        path: the SQLite file.
        opener: opens its store; runs in a thread.
        summary: what is known of it.
        kept: what is known of other devices' copies.
        is_current: whether the summary's digest is that of the file as it is now.
        create: makes the store, in place of `opener` the first time.

    Attributes:
        store: its store, and whether it is open.
        copies: what is known of other devices' copies.
        weighing: held while a plea is looked at, or while one waits until the next may be.
        weighs_from_s: when that is, on the event loop's clock.
    """

    def __init__(
        self,
        host: Host,
        path: Path,
        opener: Callable[[], Store],
        summary: Summary,
        kept: KeptCopies,
        *,
        is_current: bool,
        create: Callable[[], Store] | None = None,
    ) -> None:
        self._host = host
        self.path = path
        self._opener = opener
        self._create = create
        self.summary = summary
        self.is_current = is_current
        self.weighing = trio.Lock()
        self.weighs_from_s = 0.0
        self._lanes: dict[int, Lane] = {}
        self._lane_numbers = 0
        self.store = KeptStore(host, self.text_id, self._open_store)
        self.copies = Copies(host, summary.group_id, summary.member_devices, kept, self._post, lambda: self.opened is not None)

    @property
    def id(self) -> bytes:
        """The group's id."""
        return self.summary.group_id

    @cached_property
    def text_id(self) -> str:
        """The id as text."""
        return ids.format_id(ids.GROUP, self.id)

    @property
    def name(self) -> str:
        """What the group is called."""
        return self.summary.name

    @property
    def opened(self) -> Opened | None:
        """The open store, if it is."""
        return self.store.opened

    # --- The store --------------------------------------------------------------------------------------------------------------

    def use(self) -> Use:
        """The group with its store open, at least until the context is left.

        Raises:
            PeersdError: on entering; `store_corrupt` and others, if the file cannot be opened.
        """
        return self.store.use()

    @asynccontextmanager
    async def _open_store(self) -> AsyncGenerator[Opened, None]:
        """Opens the store; what is known without it does not count until it is closed in good order."""
        await self._local(self._host.local.clear_mark, self.id)
        reach(CrashPoint.SUMMARY_CLEARED)
        self.is_current = False
        async with open_store(self._create or self._opener, self.path, self._host.environment.threads) as store:
            self._create = None
            opened: Opened | None = None
            failure: PeersdError | None = None
            try:
                opened = await self._begin(store)
            except PeersdError as error:
                failure = error  # the store's nursery would wrap it
            if opened is not None:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(opened.sync.run_timers)
                    nursery.start_soon(self.copies.run_publishing, opened.sync)
                    self._acts_changed(opened)
                    yield opened
                    nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if opened is not None and not self.store.is_discarded:
            with trio.CancelScope(shield=True):
                await self._save_closed(opened.sync.vector())  # only now: what ran to its end while it closed counts

    async def _begin(self, store: StoreHandle) -> Opened:
        vector = await store.call(store.store.vector)
        sync = GroupSync(store, vector, self.text_id, on_equal=self.copies.note_equal)
        tell_sessions = store.on_commit

        def committed(commit: Commit, origin: SessionId | None) -> None:
            tell_sessions(commit, origin)
            self.copies.note_commit()
            if any(entry.log.kind is Kind.DATA for entry in commit.entries) or not commit.entries:
                self._host.rows_changed(self)

        store.on_commit = committed
        opened = Opened(store, sync, vector, digest_of(self.id, vector))
        # Of this store, while it closes too: an act or an intake that has begun comes to its end, and counts.
        store.on_acts = partial(self._acts_changed, opened)
        return opened

    async def _save_closed(self, vector: Vector) -> None:
        """The store was closed in good order: what it holds can be told without it."""
        self.summary = replace(self.summary, digest=digest_of(self.id, vector))
        self.is_current = True
        self.copies.note_closed(vector)
        await self._local(self._host.local.save_summary, self.id, self.summary.encode(), self.path)
        reach(CrashPoint.SUMMARY_SAVED)

    async def _local(self, call: Callable[..., T], *args: object) -> T:
        return await self._host.environment.threads.run(call, *args)

    async def digest(self) -> Stated:
        """What this device holds, as OPEN and ACCEPT state it; a closed store need not be opened for it.

        Raises:
            PeersdError: the file cannot be opened.
        """
        if self.store.is_at_rest and self.is_current:
            return Stated(self.summary.digest, None)
        async with self.use() as opened:
            vector = await opened.store.call(opened.store.store.vector)
        return Stated(digest_of(self.id, vector), vector)

    # --- What changed -----------------------------------------------------------------------------------------------------------

    def _acts_changed(self, opened: Opened) -> None:
        """The group's state may have changed. Whoever may not be told any more gets nothing from here on."""
        before = self.summary
        self.summary = summarise(opened.state, before.digest)
        opened.sync.drop_outsiders(self.may_be_told)
        self.copies.set_members(self.summary.member_devices)
        if self.summary != before:
            self._host.summary_changed(self, before)

    # --- Lanes ------------------------------------------------------------------------------------------------------------------

    async def run_lane(
        self, device: bytes, channel: Channel, lot: ParkingLot, stated: Stated | None, remote_beacons: bytes
    ) -> CloseCode:
        """Runs a channel of this group until it closes; returns the code it closed with on this side's account.

        While both sides hold the same and nothing is said, the store stays closed.

        Args:
            device: the remote device's id.
            channel: the accepted channel.
            lot: shared by the sessions of one link.
            stated: what both sides stated to hold, if it was the same, else None.
            remote_beacons: the 8 bytes that the remote side stated over its beacons.
        """
        self._lane_numbers += 1
        lane = self._lanes[self._lane_numbers] = Lane(
            self._lane_numbers, device, channel, self.copies.receive, self.copies.message_sent
        )
        code = CloseCode.NORMAL
        try:
            self.copies.lane_opened(lane.number, device, remote_beacons)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lane.run_beacons)
                code = await lane.serve(self, lot, stated)
                nursery.cancel_scope.cancel()
        finally:
            del self._lanes[lane.number]
            self.copies.lane_closed(lane.number)
            self.copies.note_seen(device)
            channel.close(code)
        return code

    def may_be_told(self, device: bytes) -> bool:
        """Whether a remote device may be told what is held here."""
        return self._host.may_be_told(self, device)

    def lanes(self) -> Mapping[bytes, bool]:
        """The devices with a channel of this group, and whether each is known to hold exactly what this one holds."""
        sync = self.opened.sync if self.opened else None
        sessions = sync.devices() if sync else {}
        found = {}
        for lane in self._lanes.values():
            session = sessions.get(lane.device)
            is_equal = sync is not None and session is not None and sync.stalled is None and sync.is_equal(session)
            found[lane.device] = lane.is_dormant or is_equal
        return found

    def _post(self, lane: int, message: bytes) -> None:
        if lane in self._lanes:
            self._lanes[lane].post(message)
