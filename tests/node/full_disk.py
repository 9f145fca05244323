"""Threads in which chosen calls find the disk full, as SQLite and the system say it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

import apsw

from peersd.store.threads import Limiter, WorkerThreads

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

    async def run(self, call: Callable[..., T], *args: object, limiter: Limiter | None = None) -> T:
        """See Threads."""
        name = getattr(call, "__name__", "a partial")
        if name in self.sqlite | self.system:
            self.refused.append(name)
            raise apsw.FullError("database or disk is full") if name in self.sqlite else OSError(errno.ENOSPC, "no space left")
        return await super().run(call, *args, limiter=limiter)
