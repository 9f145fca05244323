"""The files of this device's groups: found, looked into, made and deleted; the groups behind them (DESIGN 8)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import apsw
import trio

from peersd.crash_points import CrashPoint, reach
from peersd.errors import PeersdError
from peersd.node.copies import load_copies
from peersd.node.group import Group
from peersd.node.registry import Registration
from peersd.node.summary import Summary, decode_summary, digest_of, summarise
from peersd.store.database import is_unwritten
from peersd.store.local_state import Summary as KeptSummary
from peersd.store.mark import MarkFile, read_machine_id
from peersd.store.sql_errors import convert_sqlite_error
from peersd.store.store import Store, StoreContext, create_store, open_store
from peersd_protocol import ids
from peersd_protocol.runs import Run

if TYPE_CHECKING:
    from peersd.node.node import Node

_log = logging.getLogger("peersd.node")

USER_PREFIX: Final = "user-"
GROUP_PREFIX: Final = "group-"


class GroupFiles:
    """All groups that have a file in the data folder.

    Args:
        node: whose groups they are.

    Attributes:
        groups: by id.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.groups: dict[bytes, Group] = {}

    def user_paths(self) -> list[Path]:
        """The files of personal groups."""
        return sorted(self._node.data_dir.glob(f"{USER_PREFIX}*.db"))

    def user_path(self, user: bytes) -> Path:
        """The file of a user's personal group."""
        return self._node.data_dir / f"{USER_PREFIX}{ids.format_id(ids.USER, user).removeprefix(ids.USER + '-')}.db"

    def group_path(self, group_id: bytes) -> Path:
        """The file of a group."""
        return self._node.data_dir / f"{GROUP_PREFIX}{ids.format_id(ids.GROUP, group_id).removeprefix(ids.GROUP + '-')}.db"

    def user_of(self, path: Path) -> bytes | None:
        """The user in the name of a personal group's file."""
        return _id_in(path, ids.USER, USER_PREFIX)

    # --- Finding ----------------------------------------------------------------------------------------------------------------

    async def find_personal(self, path: Path) -> Group:
        """Takes up a personal group.

        Raises:
            PeersdError: `store_corrupt`, `needs_upgrade` and others.
        """
        return await self._take_up(path, await self._look_into(path, None), is_current=True)

    async def find_group(self, group_id: bytes, registration: Registration, kept: KeptSummary | None) -> None:
        """Takes up a registered group: by what was kept of it if its file has not changed since, else by a look into the file.

        A file that cannot be opened stops no other group; its own is shown as what it is.
        """
        path = self.group_path(group_id)
        summary = decode_summary(kept.body) if kept else None
        if summary is not None and kept is not None and kept.is_current:
            await self._take_up(path, summary, is_current=True)
            return
        try:
            await self._take_up(path, await self._look_into(path, group_id), is_current=True)
        except PeersdError as error:
            _log.error("group_not_opened", extra={"fields": {"group": path.stem, "reason": error.message}})
            group = await self._take_up(path, summary or Summary(group_id, registration.name), is_current=False)
            group.store.failure = error.code

    async def find_unregistered(self) -> list[Group]:
        """Takes up the groups that have a file and stand in no registry: their making, joining or forgetting was cut off.

        A file that cannot be opened is left alone.
        """
        known = {group.path for group in self.groups.values()}
        found: list[Group] = []
        for path in sorted(set(self._node.data_dir.glob(f"{GROUP_PREFIX}*.db")) - known):
            group_id = _id_in(path, ids.GROUP, GROUP_PREFIX)  # a copy that somebody made is not the group
            try:
                if group_id is not None and not await self.drop_unwritten(path):
                    found.append(await self._take_up(path, await self._look_into(path, group_id), is_current=True))
            except PeersdError as error:
                _log.warning("file_ignored", extra={"fields": {"file": path.name, "reason": error.message}})
        return found

    async def drop_unwritten(self, path: Path) -> bool:
        """Deletes a file that was made and never written; whether it was one."""

        def drop() -> bool:
            try:
                if not is_unwritten(path, self._node.environment.disk.vfs):
                    return False
            except apsw.Error:
                return False  # whoever opens it says what is wrong with it
            self._unlink(path)
            return True

        return await self._node.environment.threads.run(drop)

    async def _look_into(self, path: Path, group_id: bytes | None) -> Summary:
        """Opens a store for a moment; one that was not closed in good order is checked by that too.

        Args:
            path: its file.
            group_id: the group that it has to hold; None for any.
        """
        local = self._node.local

        def look() -> Summary:
            if not path.exists():
                raise PeersdError(
                    "store_corrupt", f"{path.name} is missing.", hint="Restore it from a backup, or forget the group."
                )
            try:
                store = open_store(path, self._context(), self._mark(path), group_id)
                try:
                    summary = summarise(store.state, digest_of(store.group, store.vector()))
                finally:
                    store.close()
            except (apsw.Error, OSError) as error:  # OSError: the mark cannot be written
                raise convert_sqlite_error(error) from error
            local.save_summary(summary.group_id, summary.encode(), path)
            return summary

        return await self._node.environment.threads.run(look)

    async def _take_up(
        self, path: Path, summary: Summary, *, is_current: bool, create: Callable[[], Store] | None = None
    ) -> Group:
        open_ = partial(open_store, path, self._context(), self._mark(path), summary.group_id)
        node = self._node
        kept = await node.environment.threads.run(load_copies, node.local, summary.group_id)
        group = Group(node, path, open_, summary, kept, is_current=is_current, create=create)
        self.groups[group.id] = group
        return group

    def _context(self) -> StoreContext:
        node = self._node
        clock_s, vfs = node.environment.threads.clock_s, node.environment.disk.vfs
        return StoreContext(node.signing_key(), node.clock.now_ms, node.entropy, read_machine_id(), node.uuid7, clock_s, vfs)

    def _mark(self, path: Path) -> MarkFile:
        return MarkFile(self._mark_path(path), self._node.environment.disk)

    def _mark_path(self, path: Path) -> Path:
        return self._node.data_dir / "marks" / f"{path.stem}.mark"

    # --- Making and deleting ----------------------------------------------------------------------------------------------------

    async def make(self, path: Path, group_id: bytes, runs: Sequence[Run], epoch: bytes | None) -> Group:
        """Makes a group's file; where that fails, there is none.

        Args:
            path: where.
            group_id: the group's id.
            runs: what it begins with; nothing before a join.
            epoch: the epoch that the genesis was written in.

        Raises:
            PeersdError: `store_full` and others.
        """
        was_there = await self._node.environment.threads.run(path.exists)
        create = partial(create_store, path, self._context(), self._mark(path), group_id, runs, epoch)
        group = await self._take_up(path, Summary(group_id, ""), is_current=False, create=create)
        try:
            await group.store.open()
        except BaseException as error:
            if was_there and isinstance(error, PeersdError):
                self.groups.pop(group_id, None)  # what stands in it is not this one's to delete
            else:
                await self.delete(group)  # it may be made all the same, and nobody would know of it
            raise
        return group

    async def delete(self, group: Group) -> None:
        """Closes a group for good and deletes its file: one that was not joined after all, or that is forgotten.

        Comes to its end even when cancelled.

        Raises:
            PeersdError: the file cannot be deleted; the next start does it.
        """
        node = self._node
        with trio.CancelScope(shield=True):
            try:
                await group.store.close(for_good=True)
                # The file itself last: where this is cut off, the next start finds it and goes on.
                try:
                    await node.environment.threads.run(node.local.drop_group, group.id)
                except PeersdError as error:
                    _log.warning("group_not_dropped", extra={"fields": {"group": group.text_id, "reason": error.message}})
                reach(CrashPoint.GROUP_DROPPED)
                await node.environment.threads.run(self._unlink, group.path)
                reach(CrashPoint.GROUP_DELETED)
            except OSError as error:
                raise convert_sqlite_error(error) from error
            finally:
                # Not before: who finds no group here makes its file, which would then be deleted under it.
                if self.groups.get(group.id) is group:
                    del self.groups[group.id]

    def _unlink(self, path: Path) -> None:
        for found in (self._mark_path(path), Path(f"{path}-wal"), Path(f"{path}-shm"), path):
            found.unlink(missing_ok=True)


def _id_in(path: Path, kind: str, prefix: str) -> bytes | None:
    """The id in a file's name, if it has the name that this daemon gives."""
    try:
        return ids.parse_id(kind, f"{kind}-{path.stem.removeprefix(prefix)}")
    except ValueError:
        _log.warning("file_ignored", extra={"fields": {"file": path.name}})
        return None
