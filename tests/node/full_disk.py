"""Threads in which chosen calls find the disk full, as SQLite and the system say it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

import apsw
import trio

from peersd.store.threads import Called, WorkerThreads

T = TypeVar("T")


class FullDisk(WorkerThreads):
    """Worker threads that refuse calls of these names while they are listed.

    Attributes:
        sqlite: calls that fail as SQLite's writes do.
        system: calls that fail as the system's do.
        refused: the names of those that failed.
    """

    def __init__(self) -> None:
        self.sqlite: set[str] = set()
        self.system: set[str] = set()
        self.refused: list[str] = []

    def start(self, done: Callable[[Called[T]], None], call: Callable[..., T], *args: object) -> None:
        """See Threads."""
        super().start(done, self._or_refuse(call), *args)

    async def run(self, call: Callable[..., T], *args: object, limiter: trio.CapacityLimiter | None = None) -> T:
        """See Threads."""
        return await super().run(self._or_refuse(call), *args, limiter=limiter)

    def _or_refuse(self, call: Callable[..., T]) -> Callable[..., T]:
        name = getattr(call, "__name__", "a partial")
        if name not in self.sqlite | self.system:
            return call
        self.refused.append(name)

        def refuse(*_: object) -> T:
            raise apsw.FullError("database or disk is full") if name in self.sqlite else OSError(errno.ENOSPC, "no space left")

        return refuse
