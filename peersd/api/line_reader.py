"""Lines from a byte stream, each bounded; one beyond the bound is dropped without being kept, and told."""

from __future__ import annotations

from typing import Final

import trio

RECEIVE_BYTES: Final = 256 * 1024
"""Asked from the socket at a time; a Unix socket's buffer holds about as much."""


class LineTooLong(Exception):
    """A line passed the bound; it was read to its end and dropped, and the next one can be read."""


class LineReader:
    """Reads lines from a stream.

    Args:
        stream: where the bytes come from.
        line_bytes_max: the bound of a line, its newline not counted.
    """

    def __init__(self, stream: trio.abc.ReceiveStream, line_bytes_max: int) -> None:
        self._stream = stream
        self._line_bytes_max = line_bytes_max
        self._buffer = bytearray()
        self._searched = 0

    async def next_line(self) -> bytes | None:
        """The next line without its newline, or None at the end; bytes after the last newline count as a line.

        Raises:
            LineTooLong: this line passed the bound.
            trio.BrokenResourceError: the other end vanished.
        """
        dropping = False
        if self._buffer:
            await trio.lowlevel.checkpoint()  # many short lines may have come at once
        while True:
            end = self._buffer.find(b"\n", self._searched)
            if end < 0:
                self._searched = len(self._buffer)
                if len(self._buffer) > self._line_bytes_max:
                    dropping = True
                    self._clear()
                received = await self._stream.receive_some(RECEIVE_BYTES)
                if received:
                    self._buffer += received
                    continue
                end = len(self._buffer)
                if not dropping and not end:
                    return None
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._searched = 0
            if dropping or len(line) > self._line_bytes_max:
                raise LineTooLong
            return line

    def _clear(self) -> None:
        self._buffer.clear()
        self._searched = 0
