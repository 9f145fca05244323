"""Waiting for the end of a process that is not a child of ours."""

from __future__ import annotations

import os
import select
import sys
from typing import Any

import trio


class ProcessEnd:
    """Waits for the end of a process; made before it is told to end.

    Asking by `kill(pid, 0)` would not do: a process that has ended exists until its parent looks at it.

    Args:
        pid: the process; one that is gone, or of another container, counts as ended.
    """

    def __init__(self, pid: int) -> None:
        self._pidfd: int | None = None
        self._kqueue: Any = None
        try:
            if sys.platform == "linux":
                self._pidfd = os.pidfd_open(pid)
            else:
                self._kqueue = select.kqueue()
                self._kqueue.control([select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)], 0)
        except OSError:
            self.close()

    async def wait(self) -> None:
        """Return once the process has ended."""
        if self._pidfd is not None:
            await trio.lowlevel.wait_readable(self._pidfd)
        elif self._kqueue is not None:
            await trio.lowlevel.wait_readable(self._kqueue.fileno())

    def close(self) -> None:
        """Stop watching."""
        if self._pidfd is not None:
            os.close(self._pidfd)
        if self._kqueue is not None:
            self._kqueue.close()
        self._pidfd = self._kqueue = None
