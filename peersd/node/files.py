"""The files of this device's groups: found, looked into, made and deleted; the groups behind them (DESIGN 8)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from peersd.errors import PeersdError
from peersd.node.group import Group
from peersd.node.registry import Registration
from peersd.node.summary import Summary, decode_summary, digest_of, summarise
from peersd.store.local_state import Summary as KeptSummary
from peersd.store.mark import MarkFile, read_machine_id
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
        try:
            return ids.parse_id(ids.USER, f"{ids.USER}-{path.stem.removeprefix(USER_PREFIX)}")
        except ValueError:
            _log.warning("file_ignored", extra={"fields": {"file": path.name}})
            return None

    # --- Finding ----------------------------------------------------------------------------------------------------------------

    async def find_personal(self, path: Path) -> Group:
        """Takes up a personal group.

        Raises:
            PeersdError: `store_corrupt`, `needs_upgrade` and others.
        """
        return self._take_up(path, await self._look_into(path), is_current=True)

    async def find_group(self, group_id: bytes, registration: Registration, kept: KeptSummary | None) -> None:
        """Takes up a registered group: by what was kept of it if its file has not changed since, else by a look into the file.

        A file that cannot be opened stops no other group; its own is shown as what it is.
        """
        path = self.group_path(group_id)
        summary = decode_summary(kept.body) if kept else None
        if summary is not None and kept is not None and kept.is_current:
            self._take_up(path, summary, is_current=True)
            return
        try:
            self._take_up(path, await self._look_into(path), is_current=True)
        except PeersdError as error:
            _log.error("group_not_opened", extra={"fields": {"group": path.stem, "reason": error.message}})
            group = self._take_up(path, summary or Summary(group_id, registration.name), is_current=False)
            group.failure = error.code

    async def _look_into(self, path: Path) -> Summary:
        """Opens a store for a moment; one that was not closed in good order is checked by that too."""
        local = self._node.local

        def look() -> Summary:
            if not path.exists():
                raise PeersdError(
                    "store_corrupt", f"{path.name} is missing.", hint="Restore it from a backup, or forget the group."
                )
            store = open_store(path, self._context(), self._mark(path))
            try:
                summary = summarise(store.state, digest_of(store.group, store.vector()))
            finally:
                store.close()
            local.save_summary(summary.group_id, summary.encode(), path)
            return summary

        return await trio.to_thread.run_sync(look)

    def _take_up(self, path: Path, summary: Summary, *, is_current: bool, create: Callable[[], Store] | None = None) -> Group:
        open_ = partial(open_store, path, self._context(), self._mark(path))
        group = Group(self._node, path, open_, summary, self._node.own_device(), is_current=is_current, create=create)
        self.groups[group.id] = group
        return group

    def _context(self) -> StoreContext:
        return StoreContext(self._node.signing_key(), self._node.clock.now_ms, self._node.entropy, read_machine_id())

    def _mark(self, path: Path) -> MarkFile:
        return MarkFile(self._mark_path(path))

    def _mark_path(self, path: Path) -> Path:
        return self._node.data_dir / "marks" / f"{path.stem}.mark"

    # --- Making and deleting ----------------------------------------------------------------------------------------------------

    async def make(self, path: Path, group_id: bytes, runs: Sequence[Run], epoch: bytes | None) -> Group:
        """Makes a group's file.

        Args:
            path: where.
            group_id: the group's id.
            runs: what it begins with; nothing before a join.
            epoch: the epoch that the genesis was written in.
        """
        create = partial(create_store, path, self._context(), self._mark(path), group_id, runs, epoch)
        group = self._take_up(path, Summary(group_id, ""), is_current=False, create=create)
        try:
            await group.open()
        except PeersdError:
            self.groups.pop(group_id, None)
            raise
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.delete(group)  # it is made all the same, and nobody would know of it
            raise
        return group

    async def delete(self, group: Group) -> None:
        """Closes a group for good and deletes its file: one that was not joined after all, or that is forgotten."""
        self.groups.pop(group.id, None)
        await group.close(for_good=True)
        for suffix in ("", "-wal", "-shm"):
            await trio.Path(f"{group.path}{suffix}").unlink(missing_ok=True)
        await trio.Path(self._mark_path(group.path)).unlink(missing_ok=True)
        await trio.to_thread.run_sync(self._node.local.drop_group, group.id)
