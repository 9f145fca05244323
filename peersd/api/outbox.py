"""The answers of one connection that wait to be sent: bounded in bytes, in order of arrival."""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

OUTBOX_BYTES_MAX: Final = 4 * 1024 * 1024
"""Answers of one connection that wait for its client to read; a single longer one may wait alone (guess)."""


class Outbox:
    """A queue of lines between the requests of a connection and its writer."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._sending = False
        self._turn = trio.Lock()
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or is being sent: a line may be sent past the queue, and what is left of it put there at once."""
        return not (self._lines or self._sending or self._turn.locked())

    async def put(self, line: bytes) -> None:
        """Queue a line, waiting for room; those who wait keep their order, so that a long line is not passed for ever."""
        if self._turn.locked() or self._is_full_for(line):
            async with self._turn:
                while self._is_full_for(line):
                    await self._changed.park()
                self._append(line)
        else:
            self._append(line)

    def _is_full_for(self, line: bytes) -> bool:
        return bool(self._lines) and self._bytes + len(line) > OUTBOX_BYTES_MAX

    def _append(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)
        self._changed.unpark_all()

    async def take(self) -> bytes:
        """All that is queued, at least one line, as one piece; waits while there is nothing. `sent` follows."""
        while not self._lines:
            await self._changed.park()
        taken = b"".join(self._lines)
        self._lines.clear()
        self._bytes = 0
        self._sending = True
        self._changed.unpark_all()
        return taken

    def sent(self) -> None:
        """What was taken has gone out."""
        self._sending = False
        self._changed.unpark_all()

    async def wait_sent(self) -> None:
        """Return once nothing is queued and nothing taken is unsent."""
        while self._lines or self._sending:
            await self._changed.park()
